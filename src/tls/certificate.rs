//! What of a certificate rustls does not tell: until when, for which names, and whether it is weak (RFC 5280, section 4.1).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, UintRef, UtcTime};
use der::{Reader, SliceReader, Tag, TagNumber};

use super::Weakness;

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
/// Signature algorithms over digests with known collisions (RFC 9155).
const OLD_SIGNATURES: [(&[u8], &str); 5] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 2], "MD2"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4], "MD5"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5], "SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], "SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 3], "SHA-1"),
];

/// The shortest RSA key in bits; less is broken, or soon will be, and both providers refuse to sign with it.
const RSA_BITS: usize = 2048;

#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// Host names and addresses of the subjectAltName extension, as text. Common names are not looked at: nobody does
    /// (RFC 9525, section 2).
    pub(super) names: Vec<String>,
    /// Issuer and subject are the same.
    pub(super) self_issued: bool,
    pub(super) weakness: Option<Weakness>,
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let this = reader.sequence(|certificate| {
            let this = certificate.sequence(Self::to_be_signed)?;
            any(certificate)?; // signatureAlgorithm
            any(certificate)?; // signatureValue
            Ok::<_, der::Error>(this)
        })?;
        reader.finish()?;
        Ok(this)
    }

    /// The fields of TBSCertificate in their order.
    fn to_be_signed(reader: &mut SliceReader<'_>) -> der::Result<Self> {
        if Tag::peek(reader)? == context(0, true) {
            any(reader)?; // version
        }
        any(reader)?; // serialNumber
        let signature = reader.sequence(algorithm)?;
        let issuer = reader.tlv_bytes()?;
        let (not_before, not_after) =
            reader.sequence(|validity| Ok::<_, der::Error>((time(validity)?, time(validity)?)))?;
        let subject = reader.tlv_bytes()?;
        let rsa_bits = reader.sequence(rsa_bits)?;
        let mut names = Vec::new();
        while !reader.is_finished() {
            let field = any(reader)?;
            if field.header().tag() == context(3, true) {
                let mut extensions = SliceReader::new(field.value())?;
                extensions.sequence(|list| {
                    while !list.is_finished() {
                        list.sequence(|extension| subject_alt_names(extension, &mut names))?;
                    }
                    Ok::<_, der::Error>(())
                })?;
            }
        }
        let self_issued = issuer == subject;
        Ok(Self {
            not_before,
            not_after,
            names,
            self_issued,
            weakness: weakness(signature, self_issued, rsa_bits),
        })
    }
}

fn weakness(signature: &[u8], self_issued: bool, rsa_bits: Option<usize>) -> Option<Weakness> {
    if let Some(bits) = rsa_bits.filter(|bits| *bits < RSA_BITS) {
        return Some(Weakness::ShortRsaKey { bits });
    }
    // Nobody relies on a root's signature of itself.
    let old = OLD_SIGNATURES.into_iter().find(|(algorithm, _)| !self_issued && *algorithm == signature);
    old.map(|(_, digest)| Weakness::OldDigest(digest))
}

/// AlgorithmIdentifier: the bytes of the object identifier.
fn algorithm<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    let oid = any(reader)?;
    while !reader.is_finished() {
        any(reader)?;
    }
    Ok(oid.value())
}

/// SubjectPublicKeyInfo: how long an RSA key is; `None` for a key of another kind.
fn rsa_bits(reader: &mut SliceReader<'_>) -> der::Result<Option<usize>> {
    let algorithm = reader.sequence(algorithm)?;
    let key: BitStringRef<'_> = reader.decode()?;
    if algorithm != RSA_ENCRYPTION {
        return Ok(None);
    }
    let mut key = SliceReader::new(key.raw_bytes())?;
    key.sequence(|key| {
        let modulus: UintRef<'_> = key.decode()?;
        any(key)?; // publicExponent
        let modulus = modulus.as_bytes();
        let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        Ok(Some(modulus.len() * 8 - unused))
    })
}

/// One Extension; its names are appended when it is the one that has them.
fn subject_alt_names(extension: &mut SliceReader<'_>, names: &mut Vec<String>) -> der::Result<()> {
    let oid = any(extension)?;
    let mut value = any(extension)?;
    if value.header().tag() == Tag::Boolean {
        value = any(extension)?;
    }
    if oid.value() != SUBJECT_ALT_NAME {
        return Ok(());
    }
    let mut general_names = SliceReader::new(value.value())?;
    general_names.sequence(|list| {
        while !list.is_finished() {
            let name = any(list)?;
            names.extend(general_name(name.header().tag(), name.value()));
        }
        Ok(())
    })
}

fn general_name(tag: Tag, value: &[u8]) -> Option<String> {
    if tag == context(2, false) {
        return std::str::from_utf8(value).ok().map(str::to_ascii_lowercase);
    }
    if tag != context(7, false) {
        return None;
    }
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).to_string())
}

/// Time: two digits of the year until 2049, four from 2050 on (section 4.1.2.5).
fn time(reader: &mut SliceReader<'_>) -> der::Result<SystemTime> {
    match Tag::peek(reader)? {
        Tag::UtcTime => Ok(reader.decode::<UtcTime>()?.to_system_time()),
        _ => Ok(reader.decode::<GeneralizedTime>()?.to_system_time()),
    }
}

fn any<'a>(reader: &mut SliceReader<'a>) -> der::Result<AnyRef<'a>> {
    reader.decode()
}

fn context(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific { constructed, number: TagNumber(number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use std::time::{Duration, UNIX_EPOCH};

    fn parse(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::parse(certificate.der()).unwrap()
    }

    fn from_pem(pem: &str) -> Certificate {
        Certificate::parse(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn names_are_hosts_and_addresses_as_text() {
        let names = ["Example.com", "*.example.com", "127.0.0.1", "::1"].map(String::from);
        let parsed = parse(|params| *params = CertificateParams::new(names).unwrap());
        assert_eq!(parsed.names, ["example.com", "*.example.com", "127.0.0.1", "::1"]);
        assert_eq!(parse(|_| {}).names, [""; 0]);
    }

    #[test]
    fn times_before_and_after_2050_are_read() {
        let parsed = parse(|params| {
            params.not_before = rcgen::date_time_ymd(2001, 9, 9);
            params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        });
        assert_eq!(parsed.not_before, UNIX_EPOCH + Duration::from_secs(999_993_600));
        assert_eq!(parsed.not_after, UNIX_EPOCH + Duration::from_secs(4_102_444_800));
    }

    #[test]
    fn certificate_cut_off_anywhere_is_an_error() {
        let params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der();
        for len in 0..der.len() {
            assert!(Certificate::parse(&der[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn changed_byte_never_panics() {
        let params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut der = certificate.der().to_vec();
        for at in 0..der.len() {
            for bit in 0..8 {
                der[at] ^= 1 << bit;
                let _ = Certificate::parse(&der);
                der[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn short_rsa_key_and_sha1_signature_are_weak() {
        let short = from_pem(include_str!("../../tests/data/tls/rsa1024.crt"));
        assert_eq!(short.weakness, Some(Weakness::ShortRsaKey { bits: 1024 }));
        let sha1 = from_pem(include_str!("../../tests/data/tls/sha1.crt"));
        assert_eq!(sha1.weakness, Some(Weakness::OldDigest("SHA-1")));
        assert!(!sha1.self_issued);
        let good = from_pem(include_str!("../../tests/data/tls/rsa.crt"));
        assert_eq!(good.weakness, None);
        assert!(good.self_issued);
    }
}
