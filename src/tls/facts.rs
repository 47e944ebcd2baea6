//! What is known of a connection once its handshake is done.

use std::fmt;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::{CipherSuite, CommonState, HandshakeKind, NamedGroup, ProtocolVersion};

use super::Version;

/// What a handshake agreed on, and who the peer showed itself to be.
#[doc(alias(
    "SSL_INFO",
    "SSL_get_version",
    "SSL_get_current_cipher",
    "SSL_CIPHER",
    "lws_tls_peer_cert_info"
))]
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Facts {
    /// The protocol's version.
    pub version: Version,
    /// The cipher suite.
    #[doc(alias("SSL_get_cipher", "SSL_CIPHER_get_name"))]
    pub cipher_suite: CipherSuite,
    /// The group of the key exchange; `None` for a session of TLS 1.2 that was resumed, which needs none.
    #[doc(alias("SSL_get_negotiated_group", "ECDH"))]
    pub group: Option<NamedGroup>,
    /// The name that the client asked for (RFC 6066, section 3), lower case; known to servers.
    #[doc(alias("SNI", "SSL_get_servername", "WSI_TOKEN_HOST"))]
    pub server_name: Option<Box<str>>,
    /// The application protocol agreed on, such as `http/1.1` (RFC 7301).
    #[doc(alias("ALPN", "SSL_get0_alpn_selected"))]
    pub alpn: Option<Box<[u8]>>,
    /// Whether an earlier session went on. What is known of the peer's certificates is from that session then.
    #[doc(alias("SSL_session_reused", "LWS_CALLBACK_OPENSSL_SESSION_REUSED"))]
    pub resumed: bool,
    /// The certificates that the peer showed and this side verified, in DER, its own first; empty when it showed none.
    #[doc(alias("SSL_get_peer_certificate", "SSL_get_peer_cert_chain", "X509"))]
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

impl Facts {
    /// `None` until the handshake is done. The server's name has to come from the ClientHello ([`super::hello`]): the
    /// unbuffered connection does not tell it.
    pub(crate) fn of_server(
        connection: &UnbufferedServerConnection,
        server_name: Option<&str>,
    ) -> Option<Self> {
        Self::of(connection, server_name)
    }

    /// `None` until the handshake is done.
    pub(crate) fn of_client(connection: &UnbufferedClientConnection) -> Option<Self> {
        Self::of(connection, None)
    }

    pub(super) fn of(state: &CommonState, server_name: Option<&str>) -> Option<Self> {
        let version = match state.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => return None,
        };
        Some(Self {
            version,
            cipher_suite: state.negotiated_cipher_suite()?.suite(),
            group: state.negotiated_key_exchange_group().map(|group| group.name()),
            server_name: server_name.map(Into::into),
            alpn: state.alpn_protocol().map(Into::into),
            resumed: state.handshake_kind()? == HandshakeKind::Resumed,
            peer_certificates: state.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        })
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("version", &self.version)
            .field("cipher_suite", &self.cipher_suite)
            .field("group", &self.group)
            .field("server_name", &self.server_name)
            .field("alpn", &self.alpn.as_deref().map(|name| name.escape_ascii().to_string()))
            .field("resumed", &self.resumed)
            .field("peer_certificates", &self.peer_certificates.len())
            .finish()
    }
}
