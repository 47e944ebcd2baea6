//! Certificates, keys and revocation lists out of PEM (RFC 7468), with errors that say from where.

use std::fmt;
use std::path::PathBuf;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{ConfigError, Part, PemFault};

/// Where a PEM text comes from. It is read when a configuration is built, each time anew.
#[derive(Clone)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Source {
    pub(super) fn bytes(pem: &[u8]) -> Self {
        Self::Bytes(pem.to_vec())
    }

    pub(super) fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    pub(super) fn certificates(&self, part: Part) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        self.all(part)
    }

    pub(super) fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, ConfigError> {
        self.all(Part::RevocationLists)
    }

    /// The first key, as PKCS#8 (RFC 5208), PKCS#1 (RFC 8017) or SEC1 (RFC 5915).
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, ConfigError> {
        let text = self.text(Part::Key)?;
        // Asked first: an encrypted PKCS#1 key looks like a broken one otherwise.
        if contains(&text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, b"Proc-Type: 4,ENCRYPTED") {
            return Err(self.fault(Part::Key, PemFault::Encrypted));
        }
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| self.fault(Part::Key, fault_of(&error)))
    }

    /// What rustls found wrong, which calls every certificate a peer's.
    pub(super) fn refused(&self, part: Part, index: usize, error: &rustls::Error) -> ConfigError {
        match error {
            rustls::Error::InvalidCertificate(error) => self.unusable(part, index, error),
            error => self.unusable(part, index, error),
        }
    }

    pub(super) fn unusable(&self, part: Part, index: usize, reason: &dyn fmt::Display) -> ConfigError {
        ConfigError::Unusable { part, path: self.path(), index, reason: reason.to_string() }
    }

    fn all<T: PemObject>(&self, part: Part) -> Result<Vec<T>, ConfigError> {
        let text = self.text(part)?;
        let items: Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
        match items {
            Ok(items) if items.is_empty() => Err(self.fault(part, PemFault::Missing)),
            Ok(items) => Ok(items),
            Err(error) => Err(self.fault(part, fault_of(&error))),
        }
    }

    fn text(&self, part: Part) -> Result<Vec<u8>, ConfigError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => {
                std::fs::read(path).map_err(|error| ConfigError::Read { part, path: path.clone(), error })
            }
        }
    }

    fn fault(&self, part: Part, fault: PemFault) -> ConfigError {
        ConfigError::Pem { part, path: self.path(), fault }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Bytes(_) => None,
            Self::File(path) => Some(path.clone()),
        }
    }
}

impl fmt::Debug for Source {
    // The bytes may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path) => path.fmt(f),
        }
    }
}

/// The kind of an error alone: the error itself quotes the line, which may be a key whose line breaks were lost.
fn fault_of(error: &pem::Error) -> PemFault {
    match error {
        pem::Error::MissingSectionEnd { .. } => PemFault::NoEnd,
        pem::Error::IllegalSectionStart { .. } => PemFault::BadBegin,
        pem::Error::Base64Decode(_) => PemFault::BadBase64,
        pem::Error::SectionTooLarge => PemFault::TooLarge,
        _ => PemFault::Missing,
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(text, needle).is_some()
}
