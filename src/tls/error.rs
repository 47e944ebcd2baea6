//! Why a TLS connection failed, said so that one knows what to do about it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible, PeerMisbehaved};

/// Why a TLS connection failed (RFC 8446, section 6).
///
/// The variants about certificates are what *this side* found wrong with the peer's. What the peer found wrong with ours
/// comes as [`Alert`](Self::Alert), which names the reason as far as RFC 8446, section 6.2, lets it.
///
/// Nothing in it is secret.
#[doc(alias("SSL_get_error", "ERR_get_error", "SSL_get_verify_result", "X509_V_ERR"))]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer ended the connection with an alert, or this side did without a more precise reason.
    Alert {
        /// Which one (RFC 8446, section 6).
        description: AlertDescription,
        /// Whether the peer sent it.
        received: bool,
    },
    /// The peer's certificate has expired.
    #[doc(alias("X509_V_ERR_CERT_HAS_EXPIRED", "LCCSCF_ALLOW_EXPIRED"))]
    Expired {
        /// Until when it was valid, where known.
        not_after: Option<SystemTime>,
    },
    /// The peer's certificate is not valid yet; or this side's clock is behind.
    #[doc(alias = "X509_V_ERR_CERT_NOT_YET_VALID")]
    NotYetValid {
        /// From when on it will be, where known.
        not_before: Option<SystemTime>,
    },
    /// The server's certificate is for other names (RFC 9525).
    #[doc(alias("X509_V_ERR_HOSTNAME_MISMATCH", "LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK"))]
    WrongName {
        /// The name that was asked for, where known.
        expected: Option<String>,
        /// What the certificate is for, where known.
        presented: Vec<String>,
    },
    /// No chain leads from the peer's certificate to a trusted root: the root is not among the trusted ones, the certificate
    /// is self-signed, or the peer left out an intermediate certificate. These cannot be told apart from here.
    #[doc(alias(
        "X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT",
        "LCCSCF_ALLOW_SELFSIGNED"
    ))]
    UnknownIssuer,
    /// The peer's certificate, or an intermediate one, is on a revocation list (RFC 5280, section 5).
    #[doc(alias = "X509_V_ERR_CERT_REVOKED")]
    Revoked,
    /// Revocation lists are in use, and none covers the peer's certificate or one of its intermediates.
    #[doc(alias = "X509_V_ERR_UNABLE_TO_GET_CRL")]
    RevocationUnknown,
    /// The revocation list that covers the certificate is past its `nextUpdate`, and that is enforced.
    #[doc(alias = "X509_V_ERR_CRL_HAS_EXPIRED")]
    RevocationListExpired,
    /// The certificate is not for this use: a server's shown by a client, or the reverse (RFC 5280, section 4.2.1.12).
    #[doc(alias = "X509_V_ERR_INVALID_PURPOSE")]
    WrongUsage,
    /// A signature is wrong: in the chain, or the peer's proof that it holds the key.
    #[doc(alias = "X509_V_ERR_CERT_SIGNATURE_FAILURE")]
    BadSignature,
    /// A certificate is signed in a way that this side does not accept, SHA-1 for one.
    #[doc(alias = "X509_V_ERR_CA_MD_TOO_WEAK")]
    UnsupportedSignature,
    /// The certificate is no proper one, or breaks RFC 5280 otherwise; or it is an authority's own where an end entity's is
    /// expected, as some tools make self-signed ones.
    BadCertificate(CertificateError),
    /// The application's verifier refused the certificate.
    #[doc(alias("LWS_CALLBACK_OPENSSL_PERFORM_CLIENT_CERT_VERIFICATION", "SSL_set_verify"))]
    CertificateRefused,
    /// The client showed no certificate although one is required.
    #[doc(alias("SSL_VERIFY_FAIL_IF_NO_PEER_CERT", "LWS_SERVER_OPTION_REQUIRE_VALID_OPENSSL_CLIENT_CERT"))]
    NoCertificate,
    /// The two sides have no version in common.
    #[doc(alias("SSL_R_UNSUPPORTED_PROTOCOL", "SSL_CTX_set_min_proto_version"))]
    NoCommonVersion,
    /// The two sides have no cipher suite in common.
    #[doc(alias("SSL_R_NO_SHARED_CIPHER", "SSL_CTX_set_cipher_list"))]
    NoCommonSuite,
    /// The two sides have no key exchange group in common.
    #[doc(alias("SSL_R_NO_SHARED_GROUP", "SSL_CTX_set1_groups"))]
    NoCommonGroup,
    /// The two sides have no signature scheme in common that fits the certificate's key.
    #[doc(alias = "SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS")]
    NoCommonSignature,
    /// The two sides have no application protocol in common (RFC 7301).
    #[doc(alias("ALPN", "SSL_R_NO_APPLICATION_PROTOCOL"))]
    NoCommonProtocol,
    /// The two sides do not fit in another way.
    Incompatible(PeerIncompatible),
    /// What came is not TLS: plain HTTP to a port for https, most often.
    #[doc(alias("SSL_R_HTTP_REQUEST", "SSL_R_WRONG_VERSION_NUMBER", "ALLOW_NON_SSL_ON_SSL_PORT"))]
    NotTls,
    /// The connection ended without `close_notify` (RFC 8446, section 6.1): what came may have been cut off by an attacker.
    #[doc(alias("SSL_R_UNEXPECTED_EOF_WHILE_READING", "SSL_ERROR_ZERO_RETURN"))]
    Truncated,
    /// The peer ended the connection before the handshake was complete, without saying why: a client that does not trust the
    /// certificate may, and so does whatever only looks whether somebody listens.
    #[doc(alias("SSL_R_UNEXPECTED_EOF_WHILE_READING", "SSL_ERROR_SYSCALL"))]
    HandshakeEnded,
    /// Reading failed before the handshake was complete: a reset by the peer, most often.
    #[doc(alias = "SSL_ERROR_SYSCALL")]
    HandshakeIo(std::io::ErrorKind),
    /// The handshake was not complete within [`Limits::handshake`](crate::Limits::handshake).
    HandshakeTimedOut,
    /// There was no room for a new connection, and this one gave way to it, silent before its handshake was complete
    /// ([`Builder::max_handshakes`](crate::Builder::max_handshakes)).
    HandshakeGaveWay,
    /// A record is longer than RFC 8446, section 5.2, allows.
    RecordOverflow,
    /// A record or message could not be decrypted, or was changed on its way.
    #[doc(alias = "SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC")]
    Undecryptable,
    /// A message is malformed.
    Malformed(InvalidMessage),
    /// A message came that has no place here.
    #[doc(alias = "SSL_R_UNEXPECTED_MESSAGE")]
    Unexpected,
    /// The peer broke the protocol.
    Misbehaved(PeerMisbehaved),
    /// The keys have protected as much as they may (RFC 8446, section 5.5).
    KeysExhausted,
    /// Nothing can be sent any more: `close_notify` went out, or the connection has failed.
    Closed,
    /// This side failed: no time, no random bytes, or a provider or resolver that gave up.
    Internal(rustls::Error),
}

impl TlsError {
    /// Whether the certificate that the peer showed is at fault, or that it showed none.
    pub fn is_certificate(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. }
                | Self::NotYetValid { .. }
                | Self::WrongName { .. }
                | Self::UnknownIssuer
                | Self::Revoked
                | Self::RevocationUnknown
                | Self::RevocationListExpired
                | Self::WrongUsage
                | Self::BadSignature
                | Self::UnsupportedSignature
                | Self::BadCertificate(_)
                | Self::CertificateRefused
                | Self::NoCertificate
        )
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error::*;
        match error {
            AlertReceived(description) => Self::Alert { description, received: true },
            InvalidCertificate(error) => error.into(),
            NoCertificatesPresented => Self::NoCertificate,
            PeerIncompatible(error) => error.into(),
            PeerMisbehaved(error) => Self::Misbehaved(error),
            InvalidMessage(error) => error.into(),
            PeerSentOversizedRecord => Self::RecordOverflow,
            DecryptError => Self::Undecryptable,
            NoApplicationProtocol => Self::NoCommonProtocol,
            InappropriateMessage { .. } | InappropriateHandshakeMessage { .. } => Self::Unexpected,
            other => Self::Internal(other),
        }
    }
}

impl From<CertificateError> for TlsError {
    fn from(error: CertificateError) -> Self {
        use CertificateError::*;
        match error {
            Expired => Self::Expired { not_after: None },
            ExpiredContext { not_after, .. } => Self::Expired { not_after: Some(system_time(not_after)) },
            NotValidYet => Self::NotYetValid { not_before: None },
            NotValidYetContext { not_before, .. } => {
                Self::NotYetValid { not_before: Some(system_time(not_before)) }
            }
            NotValidForName => Self::WrongName { expected: None, presented: Vec::new() },
            NotValidForNameContext { expected, presented } => {
                Self::WrongName { expected: Some(expected.to_str().into_owned()), presented }
            }
            UnknownIssuer => Self::UnknownIssuer,
            Revoked => Self::Revoked,
            UnknownRevocationStatus => Self::RevocationUnknown,
            ExpiredRevocationList | ExpiredRevocationListContext { .. } => Self::RevocationListExpired,
            InvalidPurpose | InvalidPurposeContext { .. } => Self::WrongUsage,
            BadSignature => Self::BadSignature,
            UnsupportedSignatureAlgorithmContext { .. }
            | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Self::UnsupportedSignature,
            ApplicationVerificationFailure => Self::CertificateRefused,
            other => Self::BadCertificate(other),
        }
    }
}

impl From<PeerIncompatible> for TlsError {
    fn from(error: PeerIncompatible) -> Self {
        use PeerIncompatible::*;
        match error {
            ServerDoesNotSupportTls12Or13
            | ServerTlsVersionIsDisabledByOurConfig
            | SupportedVersionsExtensionRequired
            // What TLS 1.2 has and 1.1 had not.
            | SignatureAlgorithmsExtensionRequired
            | Tls12NotOffered
            | Tls12NotOfferedOrEnabled => Self::NoCommonVersion,
            NoCipherSuitesInCommon => Self::NoCommonSuite,
            NoKxGroupsInCommon => Self::NoCommonGroup,
            NoSignatureSchemesInCommon | NoCertificateRequestSignatureSchemesInCommon => {
                Self::NoCommonSignature
            }
            other => Self::Incompatible(other),
        }
    }
}

impl From<InvalidMessage> for TlsError {
    fn from(error: InvalidMessage) -> Self {
        match error {
            // The first bytes of a record say its type and a version of 3.x; hardly anything else looks like that.
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion => Self::NotTls,
            InvalidMessage::MessageTooLarge => Self::RecordOverflow,
            other => Self::Malformed(other),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert { description, received } => alert(f, *description, *received),
            Self::Expired { not_after: Some(time) } => {
                write!(f, "the peer's certificate expired on {}", date(*time))
            }
            Self::Expired { not_after: None } => f.write_str("the peer's certificate has expired"),
            Self::NotYetValid { not_before: Some(time) } => write!(
                f,
                "the peer's certificate is not valid before {}; is the clock right?",
                date(*time)
            ),
            Self::NotYetValid { not_before: None } => {
                f.write_str("the peer's certificate is not valid yet; is the clock right?")
            }
            Self::WrongName { expected, presented } => wrong_name(f, expected.as_deref(), presented),
            Self::UnknownIssuer => f.write_str(
                "no trusted root vouches for the peer's certificate: the root is not trusted here, the certificate is \
                 self-signed, or the peer does not send its intermediate certificates",
            ),
            Self::Revoked => f.write_str("the peer's certificate has been revoked"),
            Self::RevocationUnknown => {
                f.write_str("no revocation list covers the peer's certificate or one of its intermediates")
            }
            Self::RevocationListExpired => f.write_str("the revocation list is out of date: get a new one"),
            Self::WrongUsage => f.write_str("the peer's certificate is not for this use (extended key usage)"),
            Self::BadSignature => f.write_str("a signature of the peer's certificates or handshake is wrong"),
            Self::UnsupportedSignature => {
                f.write_str("a certificate of the peer is signed by an algorithm that is not accepted")
            }
            Self::BadCertificate(error) => write!(f, "the peer's certificate is not acceptable: {error}"),
            Self::CertificateRefused => f.write_str("the peer's certificate was refused by the application"),
            Self::NoCertificate => f.write_str("the peer showed no certificate, and one is required"),
            Self::NoCommonVersion => f.write_str("no TLS version in common with the peer"),
            Self::NoCommonSuite => f.write_str("no cipher suite in common with the peer"),
            Self::NoCommonGroup => f.write_str("no key exchange group in common with the peer"),
            Self::NoCommonSignature => {
                f.write_str("no signature scheme in common with the peer that fits the certificate's key")
            }
            Self::NoCommonProtocol => f.write_str("no application protocol in common with the peer (ALPN)"),
            Self::Incompatible(error) => write!(f, "the peer does not fit: {error:?}"),
            Self::NotTls => f.write_str("the peer does not speak TLS; plain HTTP, perhaps"),
            Self::Truncated => f.write_str("the connection ended without close_notify: data may be missing"),
            Self::HandshakeEnded => f.write_str("the peer ended the connection within the handshake"),
            Self::HandshakeIo(kind) => write!(f, "the connection broke within the handshake: {kind}"),
            Self::HandshakeTimedOut => f.write_str("the handshake took too long"),
            Self::HandshakeGaveWay => f.write_str("the connection gave way to a new one during the handshake"),
            Self::RecordOverflow => f.write_str("the peer sent a record that is too long"),
            Self::Undecryptable => f.write_str("what the peer sent cannot be decrypted"),
            Self::Malformed(error) => write!(f, "the peer sent a malformed message: {error:?}"),
            Self::Unexpected => f.write_str("the peer sent a message out of place"),
            Self::Misbehaved(error) => write!(f, "the peer broke the TLS protocol: {error:?}"),
            Self::KeysExhausted => f.write_str("the connection's keys have protected as much as they may"),
            Self::Closed => f.write_str("the TLS connection is closed for sending"),
            Self::Internal(error) => write!(f, "TLS failed on this side: {error}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Internal(error) => Some(error),
            _ => None,
        }
    }
}

/// The wall-clock time that rustls means.
pub(super) fn system_time(time: UnixTime) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs())).unwrap_or(UNIX_EPOCH)
}

/// A date as text, whatever it is: formatting panics on those before 1970 and after 9999.
pub(super) fn date(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    httpdate::fmt_http_date(time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST))
}

fn wrong_name(f: &mut fmt::Formatter<'_>, expected: Option<&str>, presented: &[String]) -> fmt::Result {
    f.write_str("the server's certificate is for another name")?;
    if let Some(expected) = expected {
        write!(f, " than {expected:?}")?;
    }
    if !presented.is_empty() {
        write!(f, "; it is for {}", presented.join(", "))?;
    }
    Ok(())
}

fn alert(f: &mut fmt::Formatter<'_>, description: AlertDescription, received: bool) -> fmt::Result {
    let number = u8::from(description);
    let (name, meaning) = alert_text(description);
    match received {
        true => write!(f, "the peer sent the alert {name} ({number}){meaning}"),
        false => write!(f, "the connection was ended with the alert {name} ({number})"),
    }
}

/// The name of an alert in RFC 8446, section 6, and what it means when the peer sends it.
fn alert_text(description: AlertDescription) -> (&'static str, &'static str) {
    use AlertDescription::*;
    match description {
        CloseNotify => ("close_notify", ""),
        UnexpectedMessage => ("unexpected_message", ""),
        BadRecordMac => ("bad_record_mac", ": what we sent was changed on its way"),
        RecordOverflow => ("record_overflow", ""),
        HandshakeFailure => ("handshake_failure", ": no version, suite, group or signature in common"),
        BadCertificate => ("bad_certificate", ": it does not accept our certificate; is it for this name?"),
        UnsupportedCertificate => {
            ("unsupported_certificate", ": our certificate is of a kind or for a use that it does not accept")
        }
        CertificateRevoked => ("certificate_revoked", ": our certificate has been revoked"),
        CertificateExpired => {
            ("certificate_expired", ": by its clock our certificate has expired, or is not valid yet")
        }
        CertificateUnknown => ("certificate_unknown", ": it does not accept our certificate"),
        IllegalParameter => ("illegal_parameter", ""),
        UnknownCA => (
            "unknown_ca",
            ": it does not trust the issuer of our certificate; are the intermediate certificates in the chain?",
        ),
        AccessDenied => ("access_denied", ": our certificate is valid, and was refused"),
        DecodeError => ("decode_error", ""),
        DecryptError => ("decrypt_error", ": a signature of ours did not verify"),
        ProtocolVersion => ("protocol_version", ": no TLS version in common"),
        InsufficientSecurity => ("insufficient_security", ": it asks for stronger cipher suites or groups"),
        InternalError => ("internal_error", ": it failed for reasons of its own"),
        InappropriateFallback => ("inappropriate_fallback", ""),
        UserCanceled => ("user_canceled", ""),
        NoRenegotiation => ("no_renegotiation", ""),
        MissingExtension => ("missing_extension", ""),
        UnsupportedExtension => ("unsupported_extension", ""),
        UnrecognisedName => ("unrecognized_name", ": it has no certificate for this name"),
        BadCertificateStatusResponse => ("bad_certificate_status_response", ""),
        UnknownPSKIdentity => ("unknown_psk_identity", ""),
        CertificateRequired => ("certificate_required", ": it asks for a certificate of ours"),
        NoApplicationProtocol => ("no_application_protocol", ": no application protocol in common"),
        _ => ("of a kind unknown here", ""),
    }
}
