//! Why a configuration was refused. What a peer does wrong is a [`TlsError`](super::TlsError).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use rustls::{CipherSuite, NamedGroup};

use super::Version;
use super::error::date;

/// Why no server or client could be made of a configuration, or why a replacement was refused.
///
/// It names the file, where there is one, and the step that failed. Nothing of a key is ever in it.
#[doc(alias(
    "SSL_CTX_use_certificate_chain_file",
    "SSL_CTX_use_PrivateKey_file",
    "SSL_CTX_check_private_key"
))]
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// Neither `tls-aws-lc-rs` nor `tls-ring` is compiled in, and no `provider` was given.
    NoProvider,
    /// A server needs a certificate: `certificate_pem`, `certificate_files` or `signer`.
    NoCertificate,
    /// No roots were given, and neither `tls-native-roots` nor `tls-webpki-roots` is compiled in; or the system has none.
    NoRoots,
    /// A file could not be read.
    Read {
        /// What was to be read.
        part: Part,
        /// From where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is no PEM (RFC 7468), or lacks what it is to contain.
    Pem {
        /// What was to be read.
        part: Part,
        /// The file; `None` for PEM given as bytes.
        path: Option<PathBuf>,
        /// What is wrong.
        fault: PemFault,
    },
    /// The PEM is fine, and what it contains is not: no certificate by RFC 5280, no key that the provider can use.
    Unusable {
        /// What it is.
        part: Part,
        /// The file; `None` for PEM given as bytes.
        path: Option<PathBuf>,
        /// Which one of the parts of this kind, counted from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// The key does not belong to the certificate.
    #[doc(alias("X509_R_KEY_VALUES_MISMATCH", "SSL_R_NO_PRIVATE_KEY_ASSIGNED"))]
    KeyMismatch {
        /// It belongs to the certificate with this index in the chain. The one it belongs to has to be the first.
        belongs_to: Option<usize>,
    },
    /// A certificate or key that peers rightly refuse.
    #[doc(alias("SSL_R_EE_KEY_TOO_SMALL", "SSL_R_CA_MD_TOO_WEAK"))]
    Weak {
        /// Which certificate of the chain, counted from 0.
        index: usize,
        /// What is weak.
        weakness: Weakness,
    },
    /// The replacement has expired already.
    Expired {
        /// When.
        not_after: SystemTime,
    },
    /// The replacement is not valid yet.
    NotYetValid {
        /// From when on it will be.
        not_before: SystemTime,
    },
    /// This server was made by `from_rustls`: its certificates are a matter of the resolver it was given.
    NotReplaceable,
    /// A list of versions, cipher suites or groups is empty.
    EmptyList(&'static str),
    /// The provider does not have this cipher suite.
    UnknownCipherSuite(CipherSuite),
    /// The provider does not have this group.
    UnknownGroup(NamedGroup),
    /// None of the cipher suites is for this version.
    NoSuiteFor(Version),
    /// The name of an application protocol is empty or longer than 255 bytes (RFC 7301, section 3.1).
    BadAlpn,
    /// A `verifier` decides alone: roots, revocation lists and what is dangerous have no place beside it.
    VerifierWithRoots,
    /// rustls refused.
    Rustls(rustls::Error),
}

/// What was to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// The certificate chain.
    Chain,
    /// The private key.
    Key,
    /// Trusted roots.
    Roots,
    /// Certificate revocation lists.
    RevocationLists,
}

/// What is wrong with a PEM text (RFC 7468).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PemFault {
    /// It contains nothing of the kind.
    Missing,
    /// The key in it is encrypted; `openssl pkey -in FILE` makes one that is not.
    #[doc(alias("ssl_private_key_password", "SSL_CTX_set_default_passwd_cb"))]
    Encrypted,
    /// An END line is missing: it was cut off, or line breaks were lost.
    NoEnd,
    /// A BEGIN line is broken.
    BadBegin,
    /// It is not base64 between BEGIN and END.
    BadBase64,
    /// It is too large.
    TooLarge,
}

/// What is weak about a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Weakness {
    /// An RSA key with fewer than 2048 bits.
    ShortRsaKey {
        /// How many it has.
        bits: usize,
    },
    /// A signature over this digest, which can be forged.
    OldDigest(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProvider => {
                f.write_str("no cryptography: compile in tls-aws-lc-rs or tls-ring, or give a provider")
            }
            Self::NoCertificate => f.write_str("a server needs a certificate and its key"),
            Self::NoRoots => {
                f.write_str("no trusted roots: give some, or compile in tls-native-roots or tls-webpki-roots")
            }
            Self::Read { part, path, error } => {
                write!(f, "cannot read the {part} from {}: {error}", path.display())
            }
            Self::Pem { part, path, fault } => {
                write!(f, "{}: ", Place(*part, path))?;
                match fault {
                    PemFault::Missing => match part {
                        Part::Chain | Part::Roots => f.write_str("no CERTIFICATE section in it; is it PEM?"),
                        Part::Key => f.write_str("no PRIVATE KEY section in it; is it PEM?"),
                        Part::RevocationLists => f.write_str("no X509 CRL section in it; is it PEM?"),
                    },
                    PemFault::Encrypted => {
                        f.write_str("the key is encrypted; decrypt it first, by `openssl pkey` for one")
                    }
                    PemFault::NoEnd => {
                        f.write_str("an END line is missing; was it cut off, or were line breaks lost?")
                    }
                    PemFault::BadBegin => f.write_str("a BEGIN line is broken"),
                    PemFault::BadBase64 => f.write_str("not base64 between BEGIN and END"),
                    PemFault::TooLarge => f.write_str("too large"),
                }
            }
            Self::Unusable { part, path, index, reason } => {
                write!(f, "{}, section {index}: {reason}", Place(*part, path))
            }
            Self::KeyMismatch { belongs_to: None } => {
                f.write_str("the key does not belong to the certificate")
            }
            Self::KeyMismatch { belongs_to: Some(index) } => write!(
                f,
                "the key belongs to certificate {index} of the chain; the server's own certificate has to come first"
            ),
            Self::Weak { index, weakness } => {
                write!(f, "certificate {index} of the chain is weak: {weakness}")
            }
            Self::Expired { not_after } => {
                write!(f, "the certificate expired on {}", date(*not_after))
            }
            Self::NotYetValid { not_before } => {
                write!(f, "the certificate is not valid before {}", date(*not_before))
            }
            Self::NotReplaceable => {
                f.write_str("made from a configuration of rustls: replace it there, in the resolver")
            }
            Self::EmptyList(what) => write!(f, "the list of {what} is empty"),
            Self::UnknownCipherSuite(suite) => write!(f, "the provider has no cipher suite {suite:?}"),
            Self::UnknownGroup(group) => write!(f, "the provider has no group {group:?}"),
            Self::NoSuiteFor(version) => write!(f, "none of the cipher suites is for {version}"),
            Self::BadAlpn => f.write_str("the name of an application protocol has 1 to 255 bytes"),
            Self::VerifierWithRoots => {
                f.write_str("a verifier decides alone: give no roots, lists or exceptions too")
            }
            Self::Rustls(error) => error.fmt(f),
        }
    }
}

/// "certificate chain in FILE", or without a file.
struct Place<'a>(Part, &'a Option<PathBuf>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(path) => write!(f, "{} in {}", self.0, path.display()),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "certificate chain",
            Self::Key => "private key",
            Self::Roots => "trusted roots",
            Self::RevocationLists => "revocation lists",
        })
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortRsaKey { bits } => write!(f, "an RSA key of {bits} bits, at least 2048 are asked for"),
            Self::OldDigest(name) => write!(f, "signed over {name}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::Rustls(error) => Some(error),
            _ => None,
        }
    }
}

impl From<rustls::Error> for ConfigError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(error)
    }
}
