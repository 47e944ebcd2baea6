//! A verifier of servers that goes beyond rustls' own: it knows a root that is a server's certificate itself, and can skip what
//! [`Dangerous`](super::Dangerous) names.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate::Certificate;
use super::error::system_time;

/// What is skipped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Skipped {
    pub(super) certificate: bool,
    pub(super) name: bool,
    pub(super) self_signed: bool,
}

impl Skipped {
    pub(super) fn nothing(self) -> bool {
        self == Self::default()
    }
}

/// Verifies what is left to verify. That the peer holds the key of the certificate it shows is verified always.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) skipped: Skipped,
    /// Self-signed certificates that are trusted. What may vouch for any server may be one; rustls refuses those that say of
    /// themselves that they are an authority's, as `openssl req -x509` makes them.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    /// `None` when there are no roots, which is fine as long as self-signed certificates are accepted.
    pub(super) strict: Option<Strict>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// The verifier that nothing is skipped by, and its roots.
#[derive(Debug)]
pub(super) struct Strict {
    pub(super) verifier: Arc<dyn ServerCertVerifier>,
    pub(super) roots: Arc<RootCertStore>,
}

impl Verifier {
    /// By its dates and names; its signature of itself would say nothing.
    fn self_signed(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &Certificate,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if system_time(now) > parsed.not_after {
            return Err(CertificateError::Expired.into());
        }
        if system_time(now) < parsed.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if !self.skipped.name {
            verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.skipped.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        if (self.skipped.self_signed || self.pinned.iter().any(|pinned| pinned == leaf))
            && let Ok(parsed) = Certificate::parse(leaf)
            && parsed.self_issued
        {
            return self.self_signed(leaf, &parsed, name, now);
        }
        let Some(Strict { verifier, roots }) = &self.strict else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let verified = verifier.verify_server_cert(leaf, intermediates, name, ocsp, now);
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.skipped.name => {
                // The name comes last, after revocation too; the chain is asked about again in case that changes.
                let leaf = ParsedCertificate::try_from(leaf)?;
                let algorithms = self.algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
