//! TLS 1.2 and 1.3 by rustls: certificates, whom to trust, and what is known of a connection (RFC 8446, RFC 5246).
//!
//! A [`Server`] is a certificate and what is offered with it; a [`Client`], whom to trust. Both are made once and shared.
//! Above TLS everything is the same: a WebSocket over it is `wss`, HTTP over it `https`.
//!
#![cfg_attr(any(feature = "tls-aws-lc-rs", feature = "tls-ring"), doc = "```")]
#![cfg_attr(not(any(feature = "tls-aws-lc-rs", feature = "tls-ring")), doc = "```no_run")]
//! use lodger::tls::{Client, ConfigError, Server, Version};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A throw-away certificate; there are files for it otherwise, and `Server::from_pem_files`.
//! let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
//! let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
//!
//! let server = Server::builder()
//!     .certificate_pem(chain.as_bytes(), key.as_bytes())
//!     .versions(&[Version::Tls13])
//!     .build()?;
//! assert_eq!(server.names(), ["localhost"]);
//!
//! // The client trusts this certificate and no other.
//! let client = Client::builder().roots_pem(chain.as_bytes()).build()?;
//! # drop(client);
//!
//! // While connections are up: a new certificate for those to come. A broken one is refused, and the old one kept.
//! assert!(matches!(server.replace_pem(b"not a certificate", key.as_bytes()), Err(ConfigError::Pem { .. })));
//! server.replace_pem(chain.as_bytes(), key.as_bytes())?;
//! # Ok(())
//! # }
//! ```
//!
//! # Cryptography
//!
//! The feature `tls` alone brings none. `tls-aws-lc-rs` and `tls-ring` do, and with both the first is the default;
//! [`ServerBuilder::provider`] and [`ClientBuilder::provider`] take any other. The default of the process, which belongs to
//! the application, is neither used nor set.
//!
//! # What is left out
//!
//! Early data (it can be replayed), renegotiation (RFC 8446 removed it), everything before TLS 1.2 (RFC 8996), compression.
//! Roots of trust are what is given by name, or by the features `tls-native-roots` and `tls-webpki-roots`.

mod certificate;
mod client;
mod config;
mod error;
mod established;
pub(crate) mod expiry;
mod facts;
mod handshake;
pub(crate) mod hello;
mod identity;
mod pem;
mod provider;
mod server;
#[cfg(all(test, any(feature = "tls-aws-lc-rs", feature = "tls-ring")))]
mod tests;
pub(crate) mod transport;
mod trust;
mod verify;

use std::fmt;

pub use client::{Client, ClientBuilder, Dangerous};
pub use config::{ConfigError, Part, PemFault, Weakness};
pub use error::TlsError;
pub use facts::Facts;
pub use server::{Server, ServerBuilder};
pub use trust::{ClientCertificates, RevocationLists};

/// The rustls that this is made with: its types are in the interface where they are a standard's names, or an extension of
/// it.
pub use rustls;

/// A version of TLS.
#[doc(alias("TLS1_2_VERSION", "TLS1_3_VERSION", "SSL_version"))]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Version {
    fn rustls(self) -> &'static rustls::SupportedProtocolVersion {
        match self {
            Self::Tls12 => &rustls::version::TLS12,
            Self::Tls13 => &rustls::version::TLS13,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}
