//! A certificate chain and its key, loaded and checked.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};

use super::certificate::Certificate;
use super::pem::Source;
use super::{ConfigError, Part};

/// Where a certificate and its key come from.
#[derive(Clone)]
pub(super) enum Identity {
    Pem { chain: Source, key: Source },
    Signer { chain: Source, key: Arc<dyn SigningKey> },
}

/// A chain and a key that belong together.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) leaf: Certificate,
}

impl Identity {
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Loaded, ConfigError> {
        let (Self::Pem { chain: source, .. } | Self::Signer { chain: source, .. }) = self;
        let chain = source.certificates(Part::Chain)?;
        let leaf = checked(&chain, source)?;
        let key = match self {
            Self::Signer { key, .. } => key.clone(),
            Self::Pem { key, .. } => provider
                .key_provider
                .load_private_key(key.key()?)
                .map_err(|error| key.refused(Part::Key, 0, &error))?,
        };
        fits(&chain, key.as_ref())?;
        Ok(Loaded { key: Arc::new(CertifiedKey::new(chain, key)), leaf })
    }
}

impl Loaded {
    /// Refuses what clients would refuse by the clock.
    pub(super) fn valid_at(self, now: SystemTime) -> Result<Self, ConfigError> {
        if now > self.leaf.not_after {
            return Err(ConfigError::Expired { not_after: self.leaf.not_after });
        }
        if now < self.leaf.not_before {
            return Err(ConfigError::NotYetValid { not_before: self.leaf.not_before });
        }
        Ok(self)
    }
}

/// Reads every certificate of the chain; the answer is about the first.
fn checked(chain: &[CertificateDer<'_>], source: &Source) -> Result<Certificate, ConfigError> {
    let mut leaf = None;
    for (index, der) in chain.iter().enumerate() {
        let parsed = Certificate::parse(der)
            .map_err(|error| source.unusable(Part::Chain, index, &format_args!("no certificate: {error}")))?;
        // By rustls too: it is what uses them.
        ParsedCertificate::try_from(der).map_err(|error| source.refused(Part::Chain, index, &error))?;
        if let Some(weakness) = parsed.weakness {
            return Err(ConfigError::Weak { index, weakness });
        }
        leaf.get_or_insert(parsed);
    }
    leaf.ok_or(ConfigError::NoCertificate)
}

/// A signer that does not tell its public key is believed.
fn fits(chain: &[CertificateDer<'_>], key: &dyn SigningKey) -> Result<(), ConfigError> {
    let Some(public) = key.public_key() else {
        return Ok(());
    };
    let belongs_to = chain.iter().position(|der| {
        ParsedCertificate::try_from(der).is_ok_and(|parsed| parsed.subject_public_key_info() == public)
    });
    match belongs_to {
        Some(0) => Ok(()),
        belongs_to => Err(ConfigError::KeyMismatch { belongs_to }),
    }
}

impl fmt::Debug for Identity {
    // What a signer shows of itself is not known to be harmless.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem { chain, key } => {
                f.debug_struct("Pem").field("chain", chain).field("key", key).finish()
            }
            Self::Signer { chain, .. } => {
                f.debug_struct("Signer").field("chain", chain).finish_non_exhaustive()
            }
        }
    }
}
