//! The client's side: whom to trust, and what to show.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{SigningKey, SingleCertAndKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CipherSuite, ClientConfig, KeyLogFile, NamedGroup, RootCertStore};

use super::certificate::Certificate;
use super::identity::Identity;
use super::pem::Source;
use super::provider::{self, Choice};
use super::trust::{self, RevocationLists};
use super::verify::{Skipped, Strict, Verifier};
use super::{ConfigError, Part, Version};

/// How many servers' sessions are remembered; beyond it the oldest are forgotten.
const SESSIONS: usize = 256;

/// TLS for connections to servers: whom to trust, and what to show.
///
/// A clone is the same client. Make one and use it for all connections: roots are read once, and sessions are resumed only
/// within one client.
///
/// ```no_run
/// use lodger::tls::Client;
///
/// # fn main() -> Result<(), lodger::tls::ConfigError> {
/// let ours = Client::builder().roots_file("/etc/ssl/our-ca.pem").build()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias("SSL_CTX", "client_ssl_ca_filepath", "LCCSCF_USE_SSL"))]
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// Begins with everything at its default.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            roots: Vec::new(),
            revocation: RevocationLists::new(),
            identity: None,
            choice: Choice::default(),
            alpn: provider::default_alpn(),
            resumption: true,
            verifier: None,
            skipped: Skipped::default(),
            key_log: false,
            time: Arc::new(DefaultTimeProvider),
        }
    }

    /// Whatever rustls can do. [`ClientConfig::alpn_protocols`] are its own matter too.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }

    /// The configuration of rustls, for what else in the program speaks TLS.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

impl Client {
    /// A server's name or address as it is asked for and compared; `None` where it can be neither.
    pub(crate) fn server_name(name: &str) -> Option<ServerName<'static>> {
        ServerName::try_from(name.to_owned()).ok()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Makes a [`Client`]. Files are read by [`build`](Self::build).
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    roots: Vec<Roots>,
    revocation: RevocationLists,
    identity: Option<Identity>,
    choice: Choice,
    alpn: Vec<Vec<u8>>,
    resumption: bool,
    verifier: Option<Arc<dyn ServerCertVerifier>>,
    skipped: Skipped,
    key_log: bool,
    time: Arc<dyn TimeProvider>,
}

#[derive(Clone, Debug)]
enum Roots {
    Pem(Source),
    #[cfg(feature = "tls-webpki-roots")]
    Mozilla,
    #[cfg(feature = "tls-native-roots")]
    System,
}

impl ClientBuilder {
    /// Trusts these roots: all CERTIFICATE sections of a PEM text.
    ///
    /// Where any method about roots is called, the trusted ones are what these methods name together. Where none is, they
    /// are the system's (`tls-native-roots`), else those that are compiled in (`tls-webpki-roots`).
    #[doc(alias("client_ssl_ca_mem", "LWS_CALLBACK_OPENSSL_LOAD_EXTRA_CLIENT_VERIFY_CERTS"))]
    pub fn roots_pem(mut self, pem: &[u8]) -> Self {
        self.roots.push(Roots::Pem(Source::bytes(pem)));
        self
    }

    /// Trusts the roots in a PEM file, as [`roots_pem`](Self::roots_pem) does.
    #[doc(alias("client_ssl_ca_filepath", "SSL_CTX_load_verify_locations"))]
    pub fn roots_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(Roots::Pem(Source::file(path)));
        self
    }

    /// Trusts the roots that Mozilla trusts, as of the version of `webpki-roots` that is compiled in.
    #[cfg(feature = "tls-webpki-roots")]
    pub fn webpki_roots(mut self) -> Self {
        self.roots.push(Roots::Mozilla);
        self
    }

    /// Trusts the roots that the system trusts. `build` reads them from files, some hundred.
    #[cfg(feature = "tls-native-roots")]
    #[doc(alias("SSL_CTX_set_default_verify_paths", "SSL_CERT_FILE", "SSL_CERT_DIR"))]
    pub fn native_roots(mut self) -> Self {
        self.roots.push(Roots::System);
        self
    }

    /// Checks servers' certificates against these lists.
    pub fn revocation(mut self, lists: RevocationLists) -> Self {
        self.revocation = lists;
        self
    }

    /// Shows servers that ask for it this certificate chain in PEM, by this key.
    #[doc(alias("client_ssl_cert_mem", "client_ssl_key_mem", "mutual TLS", "mTLS"))]
    pub fn certificate_pem(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.identity = Some(Identity::Pem { chain: Source::bytes(chain), key: Source::bytes(key) });
        self
    }

    /// The same out of two files, which may be one.
    #[doc(alias("client_ssl_cert_filepath", "client_ssl_private_key_filepath"))]
    pub fn certificate_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some(Identity::Pem { chain: Source::file(chain), key: Source::file(key) });
        self
    }

    /// Shows this certificate chain in PEM, by a key that this process cannot see; as for
    /// [`ServerBuilder::signer`](super::ServerBuilder::signer).
    #[doc(alias("LWS_CALLBACK_OPENSSL_CONTEXT_REQUIRES_PRIVATE_KEY", "ENGINE", "PKCS11"))]
    pub fn signer(mut self, chain: &[u8], key: Arc<dyn SigningKey>) -> Self {
        self.identity = Some(Identity::Signer { chain: Source::bytes(chain), key });
        self
    }

    /// The cryptography; as for [`ServerBuilder::provider`](super::ServerBuilder::provider).
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.choice.provider = Some(provider);
        self
    }

    /// The versions of TLS. Default: 1.3 and 1.2, as far as there are cipher suites for them.
    #[doc(alias("SSL_CTX_set_min_proto_version", "ssl_client_options_set"))]
    pub fn versions(mut self, versions: &[Version]) -> Self {
        self.choice.versions = Some(versions.to_vec());
        self
    }

    /// The cipher suites, best first. Default: all of the provider's, none of which is weak.
    #[doc(alias("client_ssl_cipher_list", "client_tls_1_3_plus_cipher_list", "SSL_CTX_set_cipher_list"))]
    pub fn cipher_suites(mut self, suites: &[CipherSuite]) -> Self {
        self.choice.cipher_suites = Some(suites.to_vec());
        self
    }

    /// The groups of the key exchange, best first; a share is sent for the first. Default: the provider's default ones.
    #[doc(alias("SSL_CTX_set1_groups", "SSL_CTX_set1_curves"))]
    pub fn groups(mut self, groups: &[NamedGroup]) -> Self {
        self.choice.groups = Some(groups.to_vec());
        self
    }

    /// The application protocols that are offered, best first (RFC 7301). Default `http/1.1`.
    #[doc(alias("ALPN", "SSL_set_alpn_protos"))]
    pub fn alpn(mut self, protocols: &[&[u8]]) -> Self {
        self.alpn = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Whether sessions with up to 256 servers are remembered, in memory, and resumed. Default true.
    #[doc(alias("SSL_SESS_CACHE_CLIENT", "SSL_set_session", "LWS_SERVER_OPTION_DISABLE_TLS_SESSION_CACHE"))]
    pub fn resumption(mut self, resume: bool) -> Self {
        self.resumption = resume;
        self
    }

    /// A verifier of one's own decides alone about servers' certificates. It runs within the handshake, on the loop's thread,
    /// so it must not wait for anything. To skip checks, [`dangerous`](Self::dangerous) says which by name.
    #[doc(alias("LWS_CALLBACK_OPENSSL_PERFORM_SERVER_CERT_VERIFICATION", "SSL_CTX_set_verify"))]
    pub fn verifier(mut self, verifier: Arc<dyn ServerCertVerifier>) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// What takes away protection from attackers on the way.
    #[doc(alias(
        "LCCSCF_ALLOW_SELFSIGNED",
        "LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK",
        "LCCSCF_ALLOW_INSECURE"
    ))]
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }

    /// As for [`ServerBuilder::key_log_file`](super::ServerBuilder::key_log_file). Default false.
    #[doc(alias("SSLKEYLOGFILE", "SSL_CTX_set_keylog_callback", "keylog_file"))]
    pub fn key_log_file(mut self, log: bool) -> Self {
        self.key_log = log;
        self
    }

    /// The clock by which certificates and tickets are judged. Default: the system's.
    pub fn time(mut self, time: Arc<dyn TimeProvider>) -> Self {
        self.time = time;
        self
    }

    /// Reads, checks, and makes the client.
    ///
    /// # Errors
    ///
    /// What [`ConfigError`] names: among others [`ConfigError::NoRoots`], a file that cannot be read, PEM that is broken, and
    /// a key that does not belong to the certificate.
    pub fn build(&self) -> Result<Client, ConfigError> {
        let (provider, versions) = self.choice.choose()?;
        let alpn = provider::checked_alpn(&self.alpn)?;
        let verifier = self.build_verifier(&provider)?;
        let builder = ClientConfig::builder_with_details(provider.clone(), self.time.clone())
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            Some(identity) => {
                let key = Arc::unwrap_or_clone(identity.load(&provider)?.key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn;
        config.enable_secret_extraction = provider::gives_keys(&provider);
        config.resumption = match self.resumption {
            true => Resumption::in_memory_sessions(SESSIONS),
            false => Resumption::disabled(),
        };
        if self.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(Client(Arc::new(config)))
    }

    fn build_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
        if let Some(verifier) = &self.verifier {
            if !self.roots.is_empty() || !self.revocation.is_empty() || !self.skipped.nothing() {
                return Err(ConfigError::VerifierWithRoots);
            }
            return Ok(verifier.clone());
        }
        let pinned = self.pinned()?;
        if self.skipped.nothing() && pinned.is_empty() {
            return Ok(self.strict(provider)?.verifier);
        }
        let strict = match self.strict(provider) {
            Err(ConfigError::NoRoots) if self.skipped.certificate || self.skipped.self_signed => None,
            strict => Some(strict?),
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Arc::new(Verifier { skipped: self.skipped, pinned, strict, algorithms }))
    }

    /// Those of the roots that could be a server's own certificate: they bear names.
    fn pinned(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let mut pinned = Vec::new();
        for roots in &self.roots {
            #[allow(irrefutable_let_patterns, reason = "the other kinds are features")]
            if let Roots::Pem(source) = roots {
                pinned.extend(source.certificates(Part::Roots)?.into_iter().filter(|der| {
                    Certificate::parse(der).is_ok_and(|root| root.self_issued && !root.names.is_empty())
                }));
            }
        }
        Ok(pinned)
    }

    fn strict(&self, provider: &Arc<CryptoProvider>) -> Result<Strict, ConfigError> {
        let roots = Arc::new(self.root_store()?);
        let mut builder = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .with_crls(self.revocation.load()?);
        if self.revocation.leaf_only {
            builder = builder.only_check_end_entity_revocation();
        }
        if self.revocation.allow_unknown {
            builder = builder.allow_unknown_revocation_status();
        }
        if self.revocation.enforce_expiry {
            builder = builder.enforce_revocation_expiration();
        }
        Ok(Strict { verifier: builder.build().map_err(trust::lists_refused)?, roots })
    }

    fn root_store(&self) -> Result<RootCertStore, ConfigError> {
        if self.roots.is_empty() {
            return default_roots();
        }
        let mut store = RootCertStore::empty();
        for roots in &self.roots {
            match roots {
                Roots::Pem(source) => store.roots.extend(trust::store(std::slice::from_ref(source))?.roots),
                #[cfg(feature = "tls-webpki-roots")]
                Roots::Mozilla => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
                #[cfg(feature = "tls-native-roots")]
                Roots::System => store.roots.extend(system_roots()?.roots),
            }
        }
        Ok(store)
    }
}

#[cfg(feature = "tls-native-roots")]
fn default_roots() -> Result<RootCertStore, ConfigError> {
    system_roots()
}

#[cfg(all(feature = "tls-webpki-roots", not(feature = "tls-native-roots")))]
fn default_roots() -> Result<RootCertStore, ConfigError> {
    Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
}

#[cfg(not(any(feature = "tls-webpki-roots", feature = "tls-native-roots")))]
fn default_roots() -> Result<RootCertStore, ConfigError> {
    Err(ConfigError::NoRoots)
}

/// Systems have a few roots that rustls does not take; they are left out.
#[cfg(feature = "tls-native-roots")]
fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err(ConfigError::NoRoots) } else { Ok(store) }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("roots", &self.roots)
            .field("revocation", &self.revocation)
            .field("identity", &self.identity)
            .field("versions", &self.choice.versions)
            .field("skipped", &self.skipped)
            .field("key_log", &self.key_log)
            .finish_non_exhaustive()
    }
}

/// What takes away a client's protection from attackers on the way; each method says which.
///
/// That the server holds the key of the certificate it shows is verified always.
///
/// ```no_run
/// use lodger::tls::Client;
///
/// # fn main() -> Result<(), lodger::tls::ConfigError> {
/// let for_tests = Client::builder().dangerous().accept_self_signed().build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Dangerous(ClientBuilder);

impl Dangerous {
    /// Any certificate is accepted, from anybody: whoever is on the way can read and change everything.
    #[doc(alias("LCCSCF_ALLOW_INSECURE", "SSL_VERIFY_NONE"))]
    pub fn accept_any_certificate(mut self) -> ClientBuilder {
        self.0.skipped.certificate = true;
        self.0
    }

    /// A certificate for another name is accepted when its chain is good: whoever has any certificate of a trusted issuer can
    /// be on the way.
    #[doc(alias("LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK", "X509_VERIFY_PARAM_set1_host"))]
    pub fn accept_any_name(mut self) -> ClientBuilder {
        self.0.skipped.name = true;
        self.0
    }

    /// A certificate that vouches for itself is accepted, when its dates and names fit: anybody can make one. Others are
    /// verified as ever. To trust one self-signed certificate, [`roots_pem`](ClientBuilder::roots_pem) is safe instead.
    #[doc(alias("LCCSCF_ALLOW_SELFSIGNED", "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT"))]
    pub fn accept_self_signed(mut self) -> ClientBuilder {
        self.0.skipped.self_signed = true;
        self.0
    }
}
