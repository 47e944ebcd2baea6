//! The provider of cryptography, and what of it a configuration wants.

use std::sync::Arc;

use rustls::crypto::cipher::{AeadKey, Iv, NONCE_LEN};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::ProducesTickets;
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};

use super::{ConfigError, Version};

/// What was chosen; `None` is the default.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) provider: Option<Arc<CryptoProvider>>,
    pub(super) versions: Option<Vec<Version>>,
    pub(super) cipher_suites: Option<Vec<CipherSuite>>,
    pub(super) groups: Option<Vec<NamedGroup>>,
}

/// What a configuration is built with.
pub(super) type Chosen = (Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>);

impl Choice {
    pub(super) fn choose(&self) -> Result<Chosen, ConfigError> {
        let (mut provider, groups) = match &self.provider {
            Some(provider) => (provider.clone(), provider.kx_groups.clone()),
            None => (Arc::new(compiled().ok_or(ConfigError::NoProvider)?), all_groups().to_vec()),
        };
        if let Some(wanted) = &self.cipher_suites {
            let found = wanted.iter().map(|suite| {
                let found = provider.cipher_suites.iter().find(|have| have.suite() == *suite);
                found.copied().ok_or(ConfigError::UnknownCipherSuite(*suite))
            });
            let found = not_empty(found.collect::<Result<Vec<_>, _>>()?, "cipher suites")?;
            Arc::make_mut(&mut provider).cipher_suites = found;
        }
        if let Some(wanted) = &self.groups {
            let found = wanted.iter().map(|group| {
                let found = groups.iter().find(|have| have.name() == *group);
                found.copied().ok_or(ConfigError::UnknownGroup(*group))
            });
            Arc::make_mut(&mut provider).kx_groups =
                not_empty(found.collect::<Result<Vec<_>, _>>()?, "groups")?;
        }
        let versions = self.versions(&provider)?;
        Ok((provider, versions))
    }

    /// Where nothing is said about versions, the suites decide.
    fn versions(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Vec<&'static SupportedProtocolVersion>, ConfigError> {
        let has_suite = |version: Version| {
            let version = version.rustls();
            provider.cipher_suites.iter().any(|suite| suite.version() == version)
        };
        match &self.versions {
            Some(wanted) => {
                if let Some(version) = wanted.iter().find(|version| !has_suite(**version)) {
                    return Err(ConfigError::NoSuiteFor(*version));
                }
                not_empty(wanted.iter().map(|version| version.rustls()).collect(), "versions")
            }
            None => {
                let both = [Version::Tls13, Version::Tls12].into_iter();
                Ok(both.filter(|version| has_suite(*version)).map(Version::rustls).collect())
            }
        }
    }
}

fn not_empty<T>(list: Vec<T>, what: &'static str) -> Result<Vec<T>, ConfigError> {
    if list.is_empty() { Err(ConfigError::EmptyList(what)) } else { Ok(list) }
}

/// The provider that builders take when none is given.
#[cfg(feature = "tls-aws-lc-rs")]
fn compiled() -> Option<CryptoProvider> {
    Some(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
fn compiled() -> Option<CryptoProvider> {
    Some(rustls::crypto::ring::default_provider())
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
fn compiled() -> Option<CryptoProvider> {
    None
}

#[cfg(feature = "tls-aws-lc-rs")]
fn all_groups() -> &'static [&'static dyn SupportedKxGroup] {
    rustls::crypto::aws_lc_rs::ALL_KX_GROUPS
}

#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
fn all_groups() -> &'static [&'static dyn SupportedKxGroup] {
    rustls::crypto::ring::ALL_KX_GROUPS
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
fn all_groups() -> &'static [&'static dyn SupportedKxGroup] {
    &[]
}

/// Encrypts tickets with keys that change every few hours; `None` without a compiled-in provider.
pub(super) fn ticketer() -> Result<Option<Arc<dyn ProducesTickets>>, rustls::Error> {
    #[cfg(feature = "tls-aws-lc-rs")]
    let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map(Some);
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    let ticketer = rustls::crypto::ring::Ticketer::new().map(Some);
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    let ticketer = Ok(None);
    ticketer
}

/// Whether the keys of every connection can be had, so that it need not be kept as rustls keeps it.
pub(super) fn gives_keys(provider: &CryptoProvider) -> bool {
    provider.cipher_suites.iter().all(|suite| {
        let key = AeadKey::from([0; 32]);
        match suite {
            SupportedCipherSuite::Tls13(suite) => {
                suite.aead_alg.extract_keys(key, Iv::from([0; NONCE_LEN])).is_ok()
            }
            SupportedCipherSuite::Tls12(suite) => {
                let shape = suite.aead_alg.key_block_shape();
                let (fixed, explicit) = (vec![0; shape.fixed_iv_len], vec![0; shape.explicit_nonce_len]);
                let whole = fixed.len() + explicit.len() == NONCE_LEN;
                whole && suite.aead_alg.extract_keys(key, &fixed, &explicit).is_ok()
            }
        }
    })
}

/// Names of application protocols as they go into a configuration (RFC 7301, section 3.1).
pub(super) fn checked_alpn(names: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ConfigError> {
    match names.iter().all(|name| (1..=255).contains(&name.len())) {
        true => Ok(names.to_vec()),
        false => Err(ConfigError::BadAlpn),
    }
}

/// What is spoken over TLS where nothing else is said.
pub(super) fn default_alpn() -> Vec<Vec<u8>> {
    vec![b"http/1.1".to_vec()]
}
