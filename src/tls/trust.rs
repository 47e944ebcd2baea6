//! Whom to believe: roots, revocation lists, and what a server asks of its clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::pem::Source;
use super::{ConfigError, Part};

/// Which certificates a server asks of its clients (RFC 8446, section 4.3.2).
///
/// ```no_run
/// use lodger::tls::{ClientCertificates, RevocationLists, Server};
///
/// # fn main() -> Result<(), lodger::tls::ConfigError> {
/// let staff = ClientCertificates::required()
///     .roots_file("/etc/ssl/staff-ca.pem")
///     .revocation(RevocationLists::new().pem_file("/etc/ssl/staff.crl"));
/// let server = Server::builder()
///     .certificate_files("/etc/ssl/chain.pem", "/etc/ssl/key.pem")
///     .client_certificates(staff)
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// A session that is resumed is not verified again: a certificate revoked meanwhile is accepted until the ticket is no
/// longer, after 12 hours at most. [`session_resumption(false)`](super::ServerBuilder::session_resumption) shuts that gap.
#[doc(alias(
    "SSL_VERIFY_PEER",
    "SSL_CTX_set_verify",
    "LWS_SERVER_OPTION_REQUIRE_VALID_OPENSSL_CLIENT_CERT",
    "LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS"
))]
#[derive(Clone)]
pub struct ClientCertificates {
    required: bool,
    name_roots: bool,
    roots: Vec<Source>,
    revocation: RevocationLists,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientCertificates {
    /// A client without a certificate that verifies is refused in the handshake.
    pub fn required() -> Self {
        Self { required: true, ..Self::optional() }
    }

    /// A client may show a certificate; one that does not verify is refused in the handshake all the same.
    /// [`Facts::peer_certificates`](super::Facts::peer_certificates) is empty when there is none.
    #[doc(alias = "LWS_SERVER_OPTION_PEER_CERT_NOT_REQUIRED")]
    pub fn optional() -> Self {
        Self {
            required: false,
            name_roots: true,
            roots: Vec::new(),
            revocation: RevocationLists::new(),
            verifier: None,
        }
    }

    /// Adds roots: all CERTIFICATE sections of a PEM text.
    #[doc(alias = "SSL_CTX_load_verify_locations")]
    #[must_use]
    pub fn roots_pem(mut self, pem: &[u8]) -> Self {
        self.roots.push(Source::bytes(pem));
        self
    }

    /// Adds roots: all CERTIFICATE sections of a PEM file, read by `build`.
    #[doc(alias("SSL_CTX_load_verify_locations", "ssl_ca_filepath"))]
    #[must_use]
    pub fn roots_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(Source::file(path));
        self
    }

    /// Checks against these lists.
    #[must_use]
    pub fn revocation(mut self, lists: RevocationLists) -> Self {
        self.revocation = lists;
        self
    }

    /// Whether clients are told the names of the roots, by which they choose among their certificates
    /// (RFC 8446, section 4.2.4). Anybody can read them. Default true.
    #[doc(alias = "SSL_CTX_set_client_CA_list")]
    #[must_use]
    pub fn name_roots(mut self, name: bool) -> Self {
        self.name_roots = name;
        self
    }

    /// A verifier of one's own decides alone, also about whether a certificate is required. It runs within the handshake, on
    /// the loop's thread, so it must not wait for anything.
    #[doc(alias = "LWS_CALLBACK_OPENSSL_PERFORM_CLIENT_CERT_VERIFICATION")]
    pub fn verifier(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Self { verifier: Some(verifier), ..Self::required() }
    }

    pub(super) fn build(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
        if let Some(verifier) = &self.verifier {
            if !self.roots.is_empty() || !self.revocation.is_empty() {
                return Err(ConfigError::VerifierWithRoots);
            }
            return Ok(verifier.clone());
        }
        let roots = Arc::new(store(&self.roots)?);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        if !self.required {
            builder = builder.allow_unauthenticated();
        }
        if !self.name_roots {
            builder = builder.clear_root_hint_subjects();
        }
        let lists = &self.revocation;
        builder = builder.with_crls(lists.load()?);
        if lists.leaf_only {
            builder = builder.only_check_end_entity_revocation();
        }
        if lists.allow_unknown {
            builder = builder.allow_unknown_revocation_status();
        }
        if lists.enforce_expiry {
            builder = builder.enforce_revocation_expiration();
        }
        builder.build().map_err(lists_refused)
    }
}

/// Certificate revocation lists (RFC 5280, section 5), and how strictly they are taken.
///
/// As long as there is none, revocation is not checked. With at least one, each certificate of a chain below the root has
/// to be covered by a list, unless one of the methods says otherwise. Lists are not fetched from anywhere.
#[doc(alias("CRL", "X509_V_FLAG_CRL_CHECK", "X509_V_FLAG_CRL_CHECK_ALL", "X509_STORE_add_crl"))]
#[derive(Clone, Debug, Default)]
pub struct RevocationLists {
    sources: Vec<ListSource>,
    pub(super) leaf_only: bool,
    pub(super) allow_unknown: bool,
    pub(super) enforce_expiry: bool,
}

#[derive(Clone, Debug)]
enum ListSource {
    Pem(Source),
    Der(Vec<u8>),
}

impl RevocationLists {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all X509 CRL sections of a PEM text.
    #[must_use]
    pub fn pem(mut self, pem: &[u8]) -> Self {
        self.sources.push(ListSource::Pem(Source::bytes(pem)));
        self
    }

    /// Adds all X509 CRL sections of a PEM file, read by `build`.
    #[must_use]
    pub fn pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.sources.push(ListSource::Pem(Source::file(path)));
        self
    }

    /// Adds one list in DER.
    #[must_use]
    pub fn der(mut self, der: &[u8]) -> Self {
        self.sources.push(ListSource::Der(der.to_vec()));
        self
    }

    /// Only the peer's own certificate is checked, not its intermediates.
    #[doc(alias = "X509_V_FLAG_CRL_CHECK")]
    #[must_use]
    pub fn leaf_only(mut self) -> Self {
        self.leaf_only = true;
        self
    }

    /// A certificate that no list covers is accepted.
    #[must_use]
    pub fn allow_unknown(mut self) -> Self {
        self.allow_unknown = true;
        self
    }

    /// A list past its `nextUpdate` makes the certificates that it covers unacceptable. Otherwise it goes on being used.
    #[must_use]
    pub fn enforce_expiry(mut self) -> Self {
        self.enforce_expiry = true;
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    pub(super) fn load(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, ConfigError> {
        let mut lists = Vec::new();
        for source in &self.sources {
            match source {
                ListSource::Pem(source) => lists.extend(source.revocation_lists()?),
                ListSource::Der(der) => lists.push(der.clone().into()),
            }
        }
        Ok(lists)
    }
}

/// Every certificate of these has to be a usable root.
pub(super) fn store(sources: &[Source]) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for source in sources {
        for (index, certificate) in source.certificates(Part::Roots)?.into_iter().enumerate() {
            store.add(certificate).map_err(|error| source.refused(Part::Roots, index, &error))?;
        }
    }
    Ok(store)
}

/// rustls does not say which list it was.
pub(super) fn lists_refused(error: rustls::server::VerifierBuilderError) -> ConfigError {
    use rustls::server::VerifierBuilderError::*;
    match error {
        NoRootAnchors => ConfigError::NoRoots,
        InvalidCrl(error) => ConfigError::Rustls(rustls::Error::InvalidCertRevocationList(error)),
        other => ConfigError::Rustls(rustls::Error::General(other.to_string())),
    }
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates")
            .field("required", &self.required)
            .field("roots", &self.roots)
            .field("revocation", &self.revocation)
            .finish_non_exhaustive()
    }
}
