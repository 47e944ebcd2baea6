//! The server's side: a certificate and what is offered to clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CipherSuite, KeyLogFile, NamedGroup, ServerConfig};

use super::error::system_time;
use super::identity::{Identity, Loaded};
use super::pem::Source;
use super::provider::{self, Choice};
use super::{ClientCertificates, ConfigError, Version};

/// How many tickets a client gets after a full handshake of TLS 1.3 (RFC 8446, section 4.6.1): each is good for one
/// connection, and more than two are hardly ever used.
const TICKETS: usize = 2;

/// TLS for the connections of a site: a certificate, its key, and what is offered.
///
/// A clone is the same server. It can be given to several sites and contexts, and its certificate be replaced from any
/// thread.
///
/// ```no_run
/// use lodger::tls::Server;
///
/// # fn main() -> Result<(), lodger::tls::ConfigError> {
/// let server = Server::from_pem_files("/etc/ssl/chain.pem", "/etc/ssl/key.pem")?;
/// // When the files have changed:
/// if let Err(error) = server.replace_pem_files("/etc/ssl/chain.pem", "/etc/ssl/key.pem") {
///     eprintln!("the old certificate is kept: {error}");
/// }
/// # Ok(())
/// # }
/// ```
#[doc(alias(
    "SSL_CTX",
    "ssl_cert_filepath",
    "ssl_private_key_filepath",
    "server_ssl_cert_mem",
    "LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT"
))]
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    config: Arc<ServerConfig>,
    /// `None` for a configuration made elsewhere.
    current: Option<Arc<Current>>,
    /// Whether TLS 1.3 is spoken, as far as is known.
    speaks_tls13: bool,
}

/// The certificate that new handshakes take.
struct Current {
    loaded: RwLock<Loaded>,
    generation: AtomicU64,
}

impl Server {
    /// Begins with everything at its default.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            identity: None,
            choice: Choice::default(),
            alpn: provider::default_alpn(),
            clients: None,
            resumption: true,
            ticketer: None,
            key_log: false,
            time: Arc::new(DefaultTimeProvider),
        }
    }

    /// A server with defaults, of a certificate chain and a key in PEM.
    ///
    /// # Errors
    ///
    /// As for [`ServerBuilder::build`].
    #[doc(alias("SSL_CTX_use_certificate", "SSL_CTX_use_PrivateKey", "server_ssl_private_key_mem"))]
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        Self::builder().certificate_pem(chain, key).build()
    }

    /// A server with defaults, of two PEM files; they may be the same file.
    ///
    /// # Errors
    ///
    /// As for [`ServerBuilder::build`].
    #[doc(alias("SSL_CTX_use_certificate_chain_file", "SSL_CTX_use_PrivateKey_file", "ssl_cert_filepath"))]
    pub fn from_pem_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::builder().certificate_files(chain, key).build()
    }

    /// Whatever rustls can do. The configuration's resolver has the certificates, so [`not_after`](Self::not_after),
    /// [`names`](Self::names) and replacing know nothing of them.
    ///
    /// [`ServerConfig::alpn_protocols`] are its own matter too. With [`ServerConfig::enable_secret_extraction`] an idle
    /// connection takes half the memory: once its handshake is complete, what only that needed is let go of.
    pub fn from_rustls(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(Inner { config, current: None, speaks_tls13: false }))
    }

    /// Replaces the certificate and its key. Handshakes that begin from now on take the new one; connections that are up
    /// stay, and sessions that began with the old one are still resumed.
    ///
    /// # Errors
    ///
    /// As for [`ServerBuilder::build`]; and [`ConfigError::Expired`], [`ConfigError::NotYetValid`] or
    /// [`ConfigError::NotReplaceable`]. The old certificate is kept then.
    #[doc(alias("lws_tls_cert_updated", "VHOST_CERT_UPDATE", "LWS_CALLBACK_VHOST_CERT_UPDATE", "reload"))]
    pub fn replace_pem(&self, chain: &[u8], key: &[u8]) -> Result<(), ConfigError> {
        self.replace(&Identity::Pem { chain: Source::bytes(chain), key: Source::bytes(key) })
    }

    /// Replaces as [`replace_pem`](Self::replace_pem) does, out of two files. It reads them at once, on this thread.
    ///
    /// # Errors
    ///
    /// As for [`replace_pem`](Self::replace_pem).
    #[doc(alias("lws_tls_cert_updated", "VHOST_CERT_UPDATE"))]
    pub fn replace_pem_files(
        &self,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<(), ConfigError> {
        self.replace(&Identity::Pem { chain: Source::file(chain), key: Source::file(key) })
    }

    /// Replaces as [`replace_pem`](Self::replace_pem) does, by a certificate whose key is elsewhere.
    ///
    /// # Errors
    ///
    /// As for [`replace_pem`](Self::replace_pem).
    pub fn replace_signer(&self, chain: &[u8], key: Arc<dyn SigningKey>) -> Result<(), ConfigError> {
        self.replace(&Identity::Signer { chain: Source::bytes(chain), key })
    }

    /// Until when the server's own certificate is valid. `None` after [`from_rustls`](Self::from_rustls).
    #[doc(alias("LWS_TLS_CERT_INFO_VALIDITY_TO", "X509_get_notAfter", "LWS_CALLBACK_VHOST_CERT_AGING"))]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.look(|loaded| loaded.leaf.not_after)
    }

    /// The host names and addresses that the server's own certificate is for, lower case, wildcards as they are (subject
    /// alternative names; RFC 5280, section 4.2.1.6). Empty after [`from_rustls`](Self::from_rustls).
    #[doc(alias("subjectAltName", "LWS_TLS_CERT_INFO_COMMON_NAME"))]
    pub fn names(&self) -> Vec<String> {
        self.look(|loaded| loaded.leaf.names.clone()).unwrap_or_default()
    }

    /// The configuration of rustls, for what else in the program speaks TLS. It is the same one throughout: what is replaced is
    /// behind it.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.config.clone()
    }

    /// Whether a client that has come down to less than TLS 1.3 was talked into that.
    pub(crate) fn speaks_tls13(&self) -> bool {
        self.0.speaks_tls13
    }

    /// Counts replacements, so that what depends on [`not_after`](Self::not_after) can be reckoned anew.
    pub(crate) fn generation(&self) -> u64 {
        self.0.current.as_ref().map_or(0, |current| current.generation.load(Ordering::Acquire))
    }

    fn replace(&self, identity: &Identity) -> Result<(), ConfigError> {
        let Inner { config, current: Some(current), .. } = &*self.0 else {
            return Err(ConfigError::NotReplaceable);
        };
        let now = config.time_provider.current_time().ok_or(rustls::Error::FailedToGetCurrentTime)?;
        let loaded = identity.load(config.crypto_provider())?.valid_at(system_time(now))?;
        *current.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        current.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn look<T>(&self, at: impl FnOnce(&Loaded) -> T) -> Option<T> {
        let current = self.0.current.as_ref()?;
        Some(at(&current.loaded.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("names", &self.names())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// Makes a [`Server`]. Files are read by [`build`](Self::build).
///
/// ```no_run
/// use lodger::tls::rustls::NamedGroup;
/// use lodger::tls::{Server, Version};
///
/// # fn main() -> Result<(), lodger::tls::ConfigError> {
/// let server = Server::builder()
///     .certificate_files("/etc/ssl/chain.pem", "/etc/ssl/key.pem")
///     .versions(&[Version::Tls13])
///     .groups(&[NamedGroup::X25519, NamedGroup::secp256r1])
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ServerBuilder {
    identity: Option<Identity>,
    choice: Choice,
    alpn: Vec<Vec<u8>>,
    clients: Option<ClientCertificates>,
    resumption: bool,
    ticketer: Option<Arc<dyn ProducesTickets>>,
    key_log: bool,
    time: Arc<dyn TimeProvider>,
}

impl ServerBuilder {
    /// The certificate chain in PEM, the server's own first, then the intermediate ones; and its key, in PKCS#8, PKCS#1 or
    /// SEC1, not encrypted.
    #[doc(alias("server_ssl_cert_mem", "server_ssl_private_key_mem"))]
    pub fn certificate_pem(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.identity = Some(Identity::Pem { chain: Source::bytes(chain), key: Source::bytes(key) });
        self
    }

    /// The same out of two files, which may be one.
    #[doc(alias("ssl_cert_filepath", "ssl_private_key_filepath", "SSL_CTX_use_certificate_chain_file"))]
    pub fn certificate_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some(Identity::Pem { chain: Source::file(chain), key: Source::file(key) });
        self
    }

    /// The certificate chain in PEM, and a key that this process cannot see: in a smart card, a TPM or an agent.
    ///
    /// Its [`sign`](rustls::sign::Signer::sign) runs within the handshake, on the loop's thread: what takes long there, all
    /// connections wait for. A key that tells its public part is checked against the certificate.
    #[doc(alias("LWS_CALLBACK_OPENSSL_CONTEXT_REQUIRES_PRIVATE_KEY", "ENGINE", "PKCS11", "HSM"))]
    pub fn signer(mut self, chain: &[u8], key: Arc<dyn SigningKey>) -> Self {
        self.identity = Some(Identity::Signer { chain: Source::bytes(chain), key });
        self
    }

    /// The cryptography. Default: that of aws-lc-rs when `tls-aws-lc-rs` is compiled in, else of ring with `tls-ring`. The
    /// default of the process is never asked for nor set.
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.choice.provider = Some(provider);
        self
    }

    /// The versions of TLS. Default: 1.3 and 1.2, as far as there are cipher suites for them.
    #[doc(alias("SSL_CTX_set_min_proto_version", "SSL_OP_NO_TLSv1_2", "ssl_options_set"))]
    pub fn versions(mut self, versions: &[Version]) -> Self {
        self.choice.versions = Some(versions.to_vec());
        self
    }

    /// The cipher suites, best first. Default: all of the provider's, none of which is weak.
    #[doc(alias(
        "ssl_cipher_list",
        "tls1_3_plus_cipher_list",
        "SSL_CTX_set_cipher_list",
        "SSL_CTX_set_ciphersuites"
    ))]
    pub fn cipher_suites(mut self, suites: &[CipherSuite]) -> Self {
        self.choice.cipher_suites = Some(suites.to_vec());
        self
    }

    /// The groups of the key exchange, best first. Default: the provider's default ones.
    #[doc(alias("ecdh_curve", "SSL_CTX_set1_groups", "SSL_CTX_set1_curves", "ECDH"))]
    pub fn groups(mut self, groups: &[NamedGroup]) -> Self {
        self.choice.groups = Some(groups.to_vec());
        self
    }

    /// The application protocols, best first (RFC 7301). Default `http/1.1`. With none, clients that ask for one are not
    /// answered; otherwise clients that ask for none of these are refused.
    #[doc(alias("ALPN", "SSL_CTX_set_alpn_select_cb", "lws_set_alpn"))]
    pub fn alpn(mut self, protocols: &[&[u8]]) -> Self {
        self.alpn = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Asks clients for certificates. Default: they are not asked.
    #[doc(alias(
        "SSL_VERIFY_PEER",
        "LWS_SERVER_OPTION_REQUIRE_VALID_OPENSSL_CLIENT_CERT",
        "mutual TLS",
        "mTLS"
    ))]
    pub fn client_certificates(mut self, clients: ClientCertificates) -> Self {
        self.clients = Some(clients);
        self
    }

    /// Whether sessions are resumed, which spares a client that comes again the most expensive part of the handshake
    /// (RFC 8446, section 2.2; RFC 5077). Default true.
    ///
    /// The session's state travels in tickets, encrypted by keys that change every six hours and exist in this process
    /// only. Clients of TLS 1.2 without tickets find theirs in a store of 256 sessions. Early data (0-RTT) is never offered:
    /// it can be replayed.
    #[doc(alias(
        "SSL_SESS_CACHE",
        "SSL_OP_NO_TICKET",
        "tls_session_timeout",
        "SSL_CTX_set_session_cache_mode"
    ))]
    pub fn session_resumption(mut self, resume: bool) -> Self {
        self.resumption = resume;
        self
    }

    /// Encrypts tickets by this one, shared by several processes, say.
    #[doc(alias("SSL_CTX_set_tlsext_ticket_key_cb", "STEK"))]
    pub fn ticketer(mut self, ticketer: Arc<dyn ProducesTickets>) -> Self {
        self.ticketer = Some(ticketer);
        self
    }

    /// Whether the keys of all connections are appended to the file that the environment variable `SSLKEYLOGFILE` names.
    /// Whoever has it can read the connections. Default false: the variable alone does nothing.
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

    /// Reads, checks, and makes the server. A certificate that has expired is accepted here: a server that comes up so is
    /// easier to mend than one that does not come up.
    ///
    /// # Errors
    ///
    /// What [`ConfigError`] names: among others a file that cannot be read, PEM that is broken, a key that does not belong to
    /// the certificate, and certificates that are weak.
    pub fn build(&self) -> Result<Server, ConfigError> {
        let (provider, versions) = self.choice.choose()?;
        let loaded = self.identity.as_ref().ok_or(ConfigError::NoCertificate)?.load(&provider)?;
        let alpn = provider::checked_alpn(&self.alpn)?;
        let current = Arc::new(Current { loaded: RwLock::new(loaded), generation: AtomicU64::new(0) });
        let builder = ServerConfig::builder_with_details(provider.clone(), self.time.clone())
            .with_protocol_versions(&versions)?;
        let builder = match &self.clients {
            Some(clients) => builder.with_client_cert_verifier(clients.build(&provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(current.clone());
        config.alpn_protocols = alpn;
        config.enable_secret_extraction = provider::gives_keys(&provider);
        self.sessions(&mut config)?;
        if self.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        let speaks_tls13 = versions.contains(&&rustls::version::TLS13);
        Ok(Server(Arc::new(Inner { config: Arc::new(config), current: Some(current), speaks_tls13 })))
    }

    fn sessions(&self, config: &mut ServerConfig) -> Result<(), ConfigError> {
        if !self.resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            return Ok(());
        }
        config.send_tls13_tickets = TICKETS;
        let ticketer = match &self.ticketer {
            Some(ticketer) => Some(ticketer.clone()),
            None => provider::ticketer()?,
        };
        if let Some(ticketer) = ticketer {
            config.ticketer = ticketer;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("identity", &self.identity)
            .field("versions", &self.choice.versions)
            .field("clients", &self.clients)
            .field("resumption", &self.resumption)
            .field("key_log", &self.key_log)
            .finish_non_exhaustive()
    }
}
