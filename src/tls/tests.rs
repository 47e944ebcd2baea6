//! Handshakes in memory, with certificates made on the fly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, CipherSuite, ClientConnection, DigitallySignedStruct, NamedGroup,
    ServerConfig, ServerConnection, SignatureScheme,
};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/data/tls/", $name))
    };
}

/// A certificate authority, or an intermediate one.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A chain and its key, in PEM.
pub(super) struct Issued {
    pub(super) chain: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap())
    }

    fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority(name), key, &self.0).unwrap())
    }

    pub(super) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    pub(super) fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| {})
    }

    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2101, 1, 1);
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
    }

    /// A revocation list in PEM.
    fn list(&self, revoked: &[u64], next_update: i32) -> Vec<u8> {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2002, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2002, 1, 1),
            next_update: rcgen::date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap().into_bytes()
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A clock that stands still until it is set.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn at(year: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new((year - 1970) * 31_556_952)))
    }

    fn set(&self, time: SystemTime) {
        self.0.store(time.duration_since(UNIX_EPOCH).unwrap().as_secs(), Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    providers().remove(0)
}

/// All that are compiled in.
pub(super) fn providers() -> Vec<Arc<CryptoProvider>> {
    vec![
        #[cfg(feature = "tls-aws-lc-rs")]
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        #[cfg(feature = "tls-ring")]
        Arc::new(rustls::crypto::ring::default_provider()),
    ]
}

/// How a handshake went, client's side and server's.
type Ends = (Result<Facts, TlsError>, Result<Facts, TlsError>);

fn handshake(client: &Client, server: &Server) -> Ends {
    handshake_with("localhost", client, server)
}

fn handshake_with(name: &'static str, client: &Client, server: &Server) -> Ends {
    let (client, server, errors) = connect(name, client, server);
    let ends = |error: Option<TlsError>, facts: Option<Facts>| match error {
        Some(error) => Err(error),
        None => Ok(facts.expect("the handshake is done")),
    };
    let name = server.server_name().map(str::to_string);
    (ends(errors.0, Facts::of(&client, None)), ends(errors.1, Facts::of(&server, name.as_deref())))
}

type Errors = (Option<TlsError>, Option<TlsError>);

fn connect(
    name: &'static str,
    client: &Client,
    server: &Server,
) -> (ClientConnection, ServerConnection, Errors) {
    let mut client = ClientConnection::new(client.config(), name.try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server.config()).unwrap();
    let errors = exchange(&mut client, &mut server);
    (client, server, errors)
}

/// Carries records to and fro until neither side has more to say.
fn exchange(client: &mut ClientConnection, server: &mut ServerConnection) -> Errors {
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let mut moved = false;
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && server_error.is_none() {
            moved = true;
            server.read_tls(&mut rest).unwrap();
            server_error = server.process_new_packets().err().map(TlsError::from);
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && client_error.is_none() {
            moved = true;
            client.read_tls(&mut rest).unwrap();
            client_error = client.process_new_packets().err().map(TlsError::from);
        }
        if !moved {
            return (client_error, server_error);
        }
    }
}

fn received(description: AlertDescription) -> TlsError {
    TlsError::Alert { description, received: true }
}

/// Says what client and server make of a server's certificate.
fn refused(client: &Client, server: &Issued) -> (TlsError, TlsError) {
    let server = Server::from_pem(&server.chain, &server.key).unwrap();
    let (client, server) = handshake(client, &server);
    (client.unwrap_err(), server.unwrap_err())
}

/// Says what server and client make of a client's certificate.
fn refused_client(
    clients: ClientCertificates,
    authority: &Authority,
    shown: &Issued,
) -> (TlsError, TlsError) {
    let issued = authority.issue("localhost");
    let server = Server::builder().certificate_pem(&issued.chain, &issued.key);
    let server = server.client_certificates(clients).build().unwrap();
    let client = Client::builder().roots_pem(&authority.pem()).certificate_pem(&shown.chain, &shown.key);
    let (client, server) = handshake(&client.build().unwrap(), &server);
    (server.unwrap_err(), client.unwrap_err())
}

fn trusting(authority: &Authority) -> Client {
    Client::builder().roots_pem(&authority.pem()).build().unwrap()
}

fn serving(issued: &Issued) -> Server {
    Server::from_pem(&issued.chain, &issued.key).unwrap()
}

fn config_error<T>(result: Result<T, ConfigError>) -> ConfigError {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}

#[test]
fn handshake_tells_what_was_agreed_on_by_every_provider() {
    let authority = Authority::new("root");
    let issued = authority.issue("Example.com");
    for provider in providers() {
        for version in [Version::Tls12, Version::Tls13] {
            let server = Server::builder().certificate_pem(&issued.chain, &issued.key);
            let server = server.provider(provider.clone()).build().unwrap();
            let client = Client::builder().roots_pem(&authority.pem()).provider(provider.clone());
            let client = client.versions(&[version]).groups(&[NamedGroup::secp384r1]).build().unwrap();
            let (client, server) = handshake_with("example.com", &client, &server);
            let (client, server) = (client.unwrap(), server.unwrap());
            assert_eq!(server.version, version);
            assert_eq!(server.group, Some(NamedGroup::secp384r1));
            assert_eq!(server.alpn.as_deref(), Some(&b"http/1.1"[..]));
            assert_eq!(server.server_name.as_deref(), Some("example.com"));
            assert!(!server.resumed);
            assert!(server.peer_certificates.is_empty());
            assert_eq!(client.version, version);
            assert_eq!(client.cipher_suite, server.cipher_suite);
            assert_eq!(client.group, server.group);
            assert_eq!(client.alpn, server.alpn);
            assert_eq!(client.peer_certificates.len(), 1);
        }
    }
}

#[test]
fn keys_are_read_as_pkcs8_pkcs1_and_sec1() {
    for provider in providers() {
        let forms: [(&[u8], &[u8]); 3] = [
            (data!("rsa.crt"), data!("rsa-pkcs8.key")),
            (data!("rsa.crt"), data!("rsa-pkcs1.key")),
            (data!("ec.crt"), data!("ec-sec1.key")),
        ];
        for (chain, key) in forms {
            let server = Server::builder().certificate_pem(chain, key).provider(provider.clone());
            let server = server.build().unwrap();
            let client = Client::builder().roots_pem(chain).provider(provider.clone()).build().unwrap();
            let (client, server) = handshake(&client, &server);
            client.unwrap();
            server.unwrap();
        }
    }
}

#[test]
fn chain_and_key_may_be_in_one_text_with_comments_and_windows_line_ends() {
    let issued = Authority::new("root").issue("localhost");
    let mut text = b"what this is\r\n\r\n".to_vec();
    text.extend_from_slice(&issued.key);
    text.extend_from_slice(&issued.chain);
    let text = String::from_utf8(text).unwrap().replace('\n', "\r\n").into_bytes();
    assert_eq!(Server::from_pem(&text, &text).unwrap().names(), ["localhost"]);
}

#[test]
fn key_of_another_certificate_is_refused() {
    let authority = Authority::new("root");
    let (issued, other) = (authority.issue("localhost"), authority.issue("localhost"));
    let error = config_error(Server::from_pem(&issued.chain, &other.key));
    assert!(matches!(error, ConfigError::KeyMismatch { belongs_to: None }), "{error}");
    let error = config_error(Server::from_pem(data!("rsa.crt"), &other.key));
    assert!(matches!(error, ConfigError::KeyMismatch { belongs_to: None }), "{error}");
    let client = Client::builder().roots_pem(&authority.pem()).certificate_pem(&issued.chain, &other.key);
    let error = config_error(client.build());
    assert!(matches!(error, ConfigError::KeyMismatch { belongs_to: None }), "{error}");
}

#[test]
fn chain_in_the_wrong_order_is_told_from_a_wrong_key() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let chain = [authority.pem(), issued.chain].concat();
    let error = config_error(Server::from_pem(&chain, &issued.key));
    assert!(matches!(error, ConfigError::KeyMismatch { belongs_to: Some(1) }), "{error}");
}

#[test]
fn broken_pem_is_refused_with_what_is_wrong_and_nothing_of_the_key() {
    let issued = Authority::new("root").issue("localhost");
    let key = String::from_utf8(issued.key.clone()).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let broken = [
        (String::new(), PemFault::Missing),
        (String::from_utf8(issued.chain.clone()).unwrap(), PemFault::Missing),
        (key.replace('\n', " "), PemFault::NoEnd),
        (key.replace("KEY-----\n", "KEY "), PemFault::BadBegin),
        (key.replace("-----END", "-----ENDE"), PemFault::NoEnd),
        (key.replace(secret, &format!("{}!", &secret[1..])), PemFault::BadBase64),
        (String::from_utf8(data!("rsa-encrypted-pkcs8.key").to_vec()).unwrap(), PemFault::Encrypted),
        (String::from_utf8(data!("rsa-encrypted-pkcs1.key").to_vec()).unwrap(), PemFault::Encrypted),
    ];
    for (text, expected) in broken {
        let error = config_error(Server::from_pem(&issued.chain, text.as_bytes()));
        let ConfigError::Pem { part: Part::Key, path: None, fault } = error else { panic!("{error}") };
        assert_eq!(fault, expected);
        assert!(!format!("{error} {error:?}").contains(&secret[8..24]));
    }
}

#[test]
fn der_that_is_no_certificate_or_no_key_is_refused() {
    let issued = Authority::new("root").issue("localhost");
    let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let chain = [&issued.chain[..], no_certificate].concat();
    let error = config_error(Server::from_pem(&chain, &issued.key));
    assert!(matches!(error, ConfigError::Unusable { part: Part::Chain, index: 1, .. }), "{error}");
    let no_key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = config_error(Server::from_pem(&issued.chain, no_key));
    assert!(matches!(error, ConfigError::Unusable { part: Part::Key, .. }), "{error}");
    let roots = Client::builder().roots_pem(no_certificate).build();
    assert!(matches!(config_error(roots), ConfigError::Unusable { part: Part::Roots, .. }));
}

#[test]
fn file_that_cannot_be_read_is_named_with_what_it_was_for() {
    let error = config_error(Server::from_pem_files("/nowhere/chain.pem", "/nowhere/key.pem"));
    let text = error.to_string();
    assert!(text.contains("/nowhere/chain.pem") && text.contains("certificate chain"), "{text}");
    let directory = std::env::temp_dir().join(format!("lodger-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (chain, key) = (directory.join("chain.pem"), directory.join("key.pem"));
    std::fs::write(&chain, data!("ec.crt")).unwrap();
    std::fs::write(&key, "not a key").unwrap();
    let error = config_error(Server::from_pem_files(&chain, &key));
    std::fs::write(&key, data!("ec-sec1.key")).unwrap();
    let server = Server::from_pem_files(&chain, &key);
    let replaced = server.as_ref().map(|server| server.replace_pem_files(&chain, &key).is_ok());
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(error.to_string().contains("key.pem"), "{error}");
    assert!(replaced.unwrap());
}

#[test]
fn weak_certificates_are_refused() {
    let error = config_error(Server::from_pem(data!("rsa1024.crt"), data!("rsa1024.key")));
    let ConfigError::Weak { index: 0, weakness } = error else { panic!("{error}") };
    assert_eq!(weakness, Weakness::ShortRsaKey { bits: 1024 });
    let error = config_error(Server::from_pem(data!("sha1.crt"), data!("ec-sec1.key")));
    let ConfigError::Weak { index: 0, weakness } = error else { panic!("{error}") };
    assert_eq!(weakness, Weakness::OldDigest("SHA-1"));
}

#[test]
fn end_of_the_certificate_is_known() {
    let server = serving(&Authority::new("root").issue("localhost"));
    assert_eq!(server.not_after(), Some(UNIX_EPOCH + Duration::from_secs(4_133_980_800)));
}

#[test]
fn replacement_is_seen_by_new_handshakes_and_live_connections_stay() {
    let authority = Authority::new("root");
    let (old, new) = (authority.issue("localhost"), authority.issue("localhost"));
    let server = serving(&old);
    let client = Client::builder().roots_pem(&authority.pem()).resumption(false).build().unwrap();
    let (mut live, mut at_server, errors) = connect("localhost", &client, &server);
    assert_eq!(errors, (None, None));
    let before = live.peer_certificates().unwrap().to_vec();
    assert_eq!(server.generation(), 0);

    server.clone().replace_pem(&new.chain, &new.key).unwrap();
    assert_eq!(server.generation(), 1);
    let (after, _) = handshake(&client, &server);
    assert_ne!(after.unwrap().peer_certificates, before);

    std::io::Write::write_all(&mut live.writer(), b"still here").unwrap();
    assert_eq!(exchange(&mut live, &mut at_server), (None, None));
    let mut text = [0; 10];
    std::io::Read::read_exact(&mut at_server.reader(), &mut text).unwrap();
    assert_eq!(&text, b"still here");
}

#[test]
fn broken_replacement_is_refused_and_the_old_certificate_kept() {
    let authority = Authority::new("root");
    let (good, other) = (authority.issue("localhost"), authority.issue("localhost"));
    let expired =
        authority.issue_with("localhost", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early =
        authority.issue_with("localhost", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    let server = serving(&good);
    let (before, _) = handshake(&trusting(&authority), &server);
    let refused = |chain: &[u8], key: &[u8]| config_error(server.replace_pem(chain, key));
    assert!(matches!(refused(b"", &good.key), ConfigError::Pem { .. }));
    assert!(matches!(refused(&other.chain, &good.key), ConfigError::KeyMismatch { .. }));
    assert!(matches!(refused(&expired.chain, &expired.key), ConfigError::Expired { .. }));
    assert!(matches!(refused(&early.chain, &early.key), ConfigError::NotYetValid { .. }));
    assert!(matches!(refused(data!("rsa1024.crt"), data!("rsa1024.key")), ConfigError::Weak { .. }));
    assert_eq!(server.generation(), 0);
    let (after, _) = handshake(&trusting(&authority), &server);
    assert_eq!(after.unwrap().peer_certificates, before.unwrap().peer_certificates);
}

#[test]
fn replacement_is_judged_by_the_clock_that_was_given() {
    let authority = Authority::new("root");
    let short =
        authority.issue_with("localhost", |params| params.not_after = rcgen::date_time_ymd(2010, 1, 1));
    let clock = Clock::at(2005);
    let server = Server::builder().certificate_pem(&short.chain, &short.key).time(clock.clone());
    let server = server.build().unwrap();
    server.replace_pem(&short.chain, &short.key).unwrap();
    clock.set(server.not_after().unwrap() + DAY);
    assert!(matches!(
        config_error(server.replace_pem(&short.chain, &short.key)),
        ConfigError::Expired { .. }
    ));
}

#[test]
fn configuration_of_rustls_is_taken_as_it_is() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let made = serving(&issued);
    let server = Server::from_rustls(made.config());
    assert_eq!((server.not_after(), server.names(), server.generation()), (None, Vec::new(), 0));
    let error = config_error(server.replace_pem(&issued.chain, &issued.key));
    assert!(matches!(error, ConfigError::NotReplaceable));
    let (client, server) = handshake(&Client::from_rustls(trusting(&authority).config()), &server);
    client.unwrap();
    server.unwrap();
}

/// A key that only signs.
#[derive(Debug)]
struct Card {
    key: Arc<dyn rustls::sign::SigningKey>,
    tells_public_key: bool,
}

impl rustls::sign::SigningKey for Card {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        self.key.choose_scheme(offered)
    }

    fn public_key(&self) -> Option<rustls::pki_types::SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key().filter(|_| self.tells_public_key)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        self.key.algorithm()
    }
}

fn card(issued: &Issued, tells_public_key: bool) -> Arc<Card> {
    let key = PrivateKeyDer::from_pem_slice(&issued.key).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    Arc::new(Card { key, tells_public_key })
}

#[test]
fn key_elsewhere_signs_for_server_and_client() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    for tells in [false, true] {
        let server = Server::builder().signer(&issued.chain, card(&issued, tells));
        let clients = ClientCertificates::required().roots_pem(&authority.pem());
        let server = server.client_certificates(clients).build().unwrap();
        server.replace_signer(&issued.chain, card(&issued, tells)).unwrap();
        let client =
            Client::builder().roots_pem(&authority.pem()).signer(&issued.chain, card(&issued, tells));
        let (client, server) = handshake(&client.build().unwrap(), &server);
        client.unwrap();
        assert_eq!(server.unwrap().peer_certificates.len(), 1);
    }
}

#[test]
fn key_elsewhere_that_tells_its_public_part_has_to_fit() {
    let authority = Authority::new("root");
    let (issued, other) = (authority.issue("localhost"), authority.issue("localhost"));
    let error = config_error(Server::builder().signer(&issued.chain, card(&other, true)).build());
    assert!(matches!(error, ConfigError::KeyMismatch { .. }), "{error}");
}

#[test]
fn nothing_secret_is_in_debug() {
    let issued = Authority::new("root").issue("localhost");
    let key = String::from_utf8(issued.key.clone()).unwrap();
    let secret = &key.lines().nth(1).unwrap()[4..20];
    let builder = Server::builder().certificate_pem(&issued.chain, &issued.key);
    let client = Client::builder().roots_pem(&issued.chain).certificate_pem(&issued.chain, &issued.key);
    let shown = format!("{builder:?} {:?} {client:?}", builder.build().unwrap());
    assert!(!shown.contains(secret), "{shown}");
    assert!(shown.contains("localhost"), "{shown}");
}

#[test]
fn expired_certificate_is_refused_and_the_server_is_told() {
    let authority = Authority::new("root");
    let issued =
        authority.issue_with("localhost", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let (client, server) = refused(&trusting(&authority), &issued);
    assert!(matches!(client, TlsError::Expired { not_after: Some(_) }), "{client}");
    assert_eq!(server, received(AlertDescription::CertificateExpired));
    assert!(server.to_string().contains("certificate_expired"));
}

#[test]
fn certificate_that_is_not_valid_yet_is_refused_and_the_server_is_told() {
    let authority = Authority::new("root");
    let issued =
        authority.issue_with("localhost", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    let (client, server) = refused(&trusting(&authority), &issued);
    assert!(matches!(client, TlsError::NotYetValid { not_before: Some(_) }), "{client}");
    assert_eq!(server, received(AlertDescription::CertificateExpired));
}

#[test]
fn certificate_for_another_name_is_refused_and_the_server_is_told() {
    let authority = Authority::new("root");
    let (client, server) = refused(&trusting(&authority), &authority.issue("example.com"));
    let TlsError::WrongName { expected, presented } = &client else { panic!("{client}") };
    assert_eq!(expected.as_deref(), Some("localhost"));
    assert_eq!(presented.len(), 1);
    assert!(client.to_string().contains("example.com"), "{client}");
    assert_eq!(server, received(AlertDescription::BadCertificate));
}

#[test]
fn certificate_of_an_unknown_issuer_is_refused_and_the_server_is_told() {
    let (authority, stranger) = (Authority::new("root"), Authority::new("stranger"));
    let (client, server) = refused(&trusting(&authority), &stranger.issue("localhost"));
    assert_eq!(client, TlsError::UnknownIssuer);
    assert_eq!(server, received(AlertDescription::UnknownCA));
}

#[test]
fn chain_without_its_intermediate_is_refused_and_with_it_accepted() {
    let authority = Authority::new("root");
    let intermediate = authority.intermediate("intermediate");
    let mut issued = intermediate.issue("localhost");
    let (client, server) = refused(&trusting(&authority), &issued);
    assert_eq!(client, TlsError::UnknownIssuer);
    assert_eq!(server, received(AlertDescription::UnknownCA));
    assert!(server.to_string().contains("intermediate"), "{server}");

    issued.chain.extend(intermediate.pem());
    let (client, _) = handshake(&trusting(&authority), &serving(&issued));
    assert_eq!(client.unwrap().peer_certificates.len(), 2);
}

#[test]
fn certificate_for_another_use_is_refused_and_the_server_is_told() {
    let authority = Authority::new("root");
    let for_clients = authority.issue_with("localhost", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let (client, server) = refused(&trusting(&authority), &for_clients);
    assert_eq!(client, TlsError::WrongUsage);
    assert_eq!(server, received(AlertDescription::UnsupportedCertificate));
}

#[test]
fn revoked_certificate_is_refused_and_the_server_is_told() {
    let authority = Authority::new("root");
    let issued = authority.issue_with("localhost", |params| params.serial_number = Some(7.into()));
    let lists = RevocationLists::new().pem(&authority.list(&[7], 2101));
    let client = Client::builder().roots_pem(&authority.pem()).revocation(lists).build().unwrap();
    let (client, server) = refused(&client, &issued);
    assert_eq!(client, TlsError::Revoked);
    assert_eq!(server, received(AlertDescription::CertificateRevoked));
}

#[test]
fn revocation_lists_are_as_strict_as_asked() {
    let authority = Authority::new("root");
    let intermediate = authority.intermediate("intermediate");
    let mut issued = intermediate.issue("localhost");
    issued.chain.extend(intermediate.pem());
    let server = serving(&issued);
    let verdict = |lists: RevocationLists| {
        let client = Client::builder().roots_pem(&authority.pem()).revocation(lists).build().unwrap();
        handshake(&client, &server).0.map(|_| ())
    };
    let (of_leaf, of_intermediate) = (intermediate.list(&[], 2101), authority.list(&[], 2101));
    let outdated = intermediate.list(&[], 2020);
    assert_eq!(verdict(RevocationLists::new().pem(&of_leaf)), Err(TlsError::RevocationUnknown));
    assert_eq!(verdict(RevocationLists::new().pem(&of_leaf).leaf_only()), Ok(()));
    assert_eq!(verdict(RevocationLists::new().pem(&of_leaf).pem(&of_intermediate)), Ok(()));
    assert_eq!(verdict(RevocationLists::new().pem(&of_intermediate).allow_unknown()), Ok(()));
    assert_eq!(verdict(RevocationLists::new().pem(&outdated).leaf_only()), Ok(()));
    assert_eq!(
        verdict(RevocationLists::new().pem(&outdated).leaf_only().enforce_expiry()),
        Err(TlsError::RevocationListExpired)
    );
}

#[test]
fn broken_revocation_list_is_refused() {
    let authority = Authority::new("root");
    let client = |lists| Client::builder().roots_pem(&authority.pem()).revocation(lists).build();
    let error = config_error(client(RevocationLists::new().der(b"no list")));
    assert!(matches!(error, ConfigError::Rustls(rustls::Error::InvalidCertRevocationList(_))), "{error}");
    let error = config_error(client(RevocationLists::new().pem(&authority.pem())));
    assert!(matches!(error, ConfigError::Pem { part: Part::RevocationLists, .. }), "{error}");
}

#[test]
fn client_certificate_is_required_or_optional() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let server = |clients: ClientCertificates| {
        let server = Server::builder().certificate_pem(&issued.chain, &issued.key);
        server.client_certificates(clients.roots_pem(&authority.pem())).build().unwrap()
    };
    let without = trusting(&authority);
    let with = Client::builder().roots_pem(&authority.pem()).certificate_pem(&issued.chain, &issued.key);
    let with = with.build().unwrap();

    let required = server(ClientCertificates::required());
    assert_eq!(handshake(&with, &required).1.unwrap().peer_certificates.len(), 1);
    let (client, refusal) = handshake(&without, &required);
    assert_eq!(refusal, Err(TlsError::NoCertificate));
    assert_eq!(client, Err(received(AlertDescription::CertificateRequired)));

    let optional = server(ClientCertificates::optional().name_roots(false));
    assert_eq!(handshake(&with, &optional).1.unwrap().peer_certificates.len(), 1);
    assert!(handshake(&without, &optional).1.unwrap().peer_certificates.is_empty());
}

#[test]
fn client_certificate_that_does_not_verify_is_refused_with_the_reason_and_the_client_is_told() {
    let (authority, stranger) = (Authority::new("root"), Authority::new("stranger"));
    let intermediate = authority.intermediate("intermediate");
    let clients = || ClientCertificates::optional().roots_pem(&authority.pem());

    let expired = authority.issue_with("c", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let (server, client) = refused_client(clients(), &authority, &expired);
    assert!(matches!(server, TlsError::Expired { .. }), "{server}");
    assert_eq!(client, received(AlertDescription::CertificateExpired));

    let early = authority.issue_with("c", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    let (server, client) = refused_client(clients(), &authority, &early);
    assert!(matches!(server, TlsError::NotYetValid { .. }), "{server}");
    assert_eq!(client, received(AlertDescription::CertificateExpired));

    for issuer in [&stranger, &intermediate] {
        let (server, client) = refused_client(clients(), &authority, &issuer.issue("c"));
        assert_eq!(server, TlsError::UnknownIssuer);
        assert_eq!(client, received(AlertDescription::UnknownCA));
    }

    let for_servers = authority.issue_with("c", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let (server, client) = refused_client(clients(), &authority, &for_servers);
    assert_eq!(server, TlsError::WrongUsage);
    assert_eq!(client, received(AlertDescription::UnsupportedCertificate));

    let revoked = authority.issue_with("c", |params| params.serial_number = Some(9.into()));
    let lists = RevocationLists::new().pem(&authority.list(&[9], 2101));
    let (server, client) = refused_client(clients().revocation(lists), &authority, &revoked);
    assert_eq!(server, TlsError::Revoked);
    assert_eq!(client, received(AlertDescription::CertificateRevoked));
}

#[test]
fn client_certificates_need_roots() {
    let issued = Authority::new("root").issue("localhost");
    let server = Server::builder().certificate_pem(&issued.chain, &issued.key);
    let error = config_error(server.client_certificates(ClientCertificates::required()).build());
    assert!(matches!(error, ConfigError::NoRoots), "{error}");
}

#[test]
fn sides_without_a_version_suite_group_or_protocol_in_common_say_so() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let server = || Server::builder().certificate_pem(&issued.chain, &issued.key);
    let client = || Client::builder().roots_pem(&authority.pem());
    let meet = |client: ClientBuilder, server: ServerBuilder| {
        let (client, server) = handshake(&client.build().unwrap(), &server.build().unwrap());
        (client.unwrap_err(), server.unwrap_err())
    };

    let (at_client, at_server) =
        meet(client().versions(&[Version::Tls12]), server().versions(&[Version::Tls13]));
    assert_eq!(at_server, TlsError::NoCommonVersion);
    assert_eq!(at_client, received(AlertDescription::ProtocolVersion));
    let (_, at_server) = meet(client().versions(&[Version::Tls13]), server().versions(&[Version::Tls12]));
    assert_eq!(at_server, TlsError::NoCommonVersion);

    let (at_client, at_server) = meet(
        client().cipher_suites(&[CipherSuite::TLS13_AES_128_GCM_SHA256]),
        server().cipher_suites(&[CipherSuite::TLS13_AES_256_GCM_SHA384]),
    );
    assert_eq!(at_server, TlsError::NoCommonSuite);
    assert_eq!(at_client, received(AlertDescription::HandshakeFailure));

    let (_, at_server) =
        meet(client().groups(&[NamedGroup::X25519]), server().groups(&[NamedGroup::secp256r1]));
    assert_eq!(at_server, TlsError::NoCommonGroup);

    let (at_client, at_server) = meet(client().alpn(&[b"h2"]), server());
    assert_eq!(at_server, TlsError::NoCommonProtocol);
    assert_eq!(at_client, received(AlertDescription::NoApplicationProtocol));
}

#[test]
fn client_without_alpn_is_served() {
    let authority = Authority::new("root");
    let client = Client::builder().roots_pem(&authority.pem()).alpn(&[]).build().unwrap();
    let (client, server) = handshake(&client, &serving(&authority.issue("localhost")));
    assert_eq!(client.unwrap().alpn, None);
    assert_eq!(server.unwrap().alpn, None);
}

#[test]
fn first_protocol_of_the_server_that_the_client_offers_is_taken() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let server = Server::builder().certificate_pem(&issued.chain, &issued.key).alpn(&[b"h2", b"http/1.1"]);
    let client = Client::builder().roots_pem(&authority.pem()).alpn(&[b"http/1.1", b"h2"]);
    let (_, server) = handshake(&client.build().unwrap(), &server.build().unwrap());
    assert_eq!(server.unwrap().alpn.as_deref(), Some(&b"h2"[..]));
}

#[test]
fn choice_is_checked_against_the_provider() {
    let issued = Authority::new("root").issue("localhost");
    let server = || Server::builder().certificate_pem(&issued.chain, &issued.key);
    let error = config_error(server().versions(&[]).build());
    assert!(matches!(error, ConfigError::EmptyList("versions")), "{error}");
    let error = config_error(server().cipher_suites(&[CipherSuite::TLS_RSA_WITH_RC4_128_MD5]).build());
    assert!(matches!(error, ConfigError::UnknownCipherSuite(_)), "{error}");
    let error = config_error(server().groups(&[NamedGroup::FFDHE2048]).build());
    assert!(matches!(error, ConfigError::UnknownGroup(NamedGroup::FFDHE2048)), "{error}");
    let only_13 = [CipherSuite::TLS13_AES_128_GCM_SHA256];
    let error = config_error(server().cipher_suites(&only_13).versions(&[Version::Tls12]).build());
    assert!(matches!(error, ConfigError::NoSuiteFor(Version::Tls12)), "{error}");
    assert!(server().cipher_suites(&only_13).build().is_ok());
    let error = config_error(server().alpn(&[b""]).build());
    assert!(matches!(error, ConfigError::BadAlpn), "{error}");
    assert!(matches!(config_error(Server::builder().build()), ConfigError::NoCertificate));
}

#[test]
fn sessions_are_resumed_by_each_version_and_provider() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    for provider in providers() {
        for version in [Version::Tls12, Version::Tls13] {
            let server = Server::builder().certificate_pem(&issued.chain, &issued.key);
            let server = server.provider(provider.clone()).build().unwrap();
            let client = Client::builder().roots_pem(&authority.pem()).provider(provider.clone());
            let client = client.versions(&[version]).build().unwrap();
            let (at_client, at_server) = handshake(&client, &server);
            assert!(!at_client.unwrap().resumed && !at_server.unwrap().resumed);
            let (at_client, at_server) = handshake(&client, &server);
            assert!(at_client.unwrap().resumed && at_server.unwrap().resumed);
        }
    }
}

#[test]
fn resumed_session_has_the_certificates_of_the_client_still() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    for version in [Version::Tls12, Version::Tls13] {
        let server = Server::builder().certificate_pem(&issued.chain, &issued.key).versions(&[version]);
        let clients = ClientCertificates::required().roots_pem(&authority.pem());
        let server = server.client_certificates(clients).build().unwrap();
        let client = Client::builder().roots_pem(&authority.pem());
        let client = client.certificate_pem(&issued.chain, &issued.key).build().unwrap();
        let first = handshake(&client, &server).1.unwrap();
        let second = handshake(&client, &server).1.unwrap();
        assert!(second.resumed && !first.resumed);
        assert_eq!(second.peer_certificates, first.peer_certificates);
    }
}

#[test]
fn ticket_of_another_server_is_no_session_here() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let (client, one, other) = (trusting(&authority), serving(&issued), serving(&issued));
    handshake(&client, &one).1.unwrap();
    assert!(!handshake(&client, &other).1.unwrap().resumed);
}

#[test]
fn sessions_are_not_resumed_where_either_side_does_not_want_to() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    for (at_server, at_client) in [(false, true), (true, false)] {
        for version in [Version::Tls12, Version::Tls13] {
            let server = Server::builder().certificate_pem(&issued.chain, &issued.key);
            let server = server.session_resumption(at_server).build().unwrap();
            let client = Client::builder().roots_pem(&authority.pem()).versions(&[version]);
            let client = client.resumption(at_client).build().unwrap();
            for _ in 0..3 {
                assert!(!handshake(&client, &server).1.unwrap().resumed);
            }
        }
    }
}

#[test]
fn session_survives_the_replacement_of_the_certificate() {
    let authority = Authority::new("root");
    let (old, new) = (authority.issue("localhost"), authority.issue("localhost"));
    let (client, server) = (trusting(&authority), serving(&old));
    handshake(&client, &server).1.unwrap();
    server.replace_pem(&new.chain, &new.key).unwrap();
    assert!(handshake(&client, &server).1.unwrap().resumed);
}

#[test]
fn early_data_is_not_offered() {
    let server = serving(&Authority::new("root").issue("localhost"));
    assert_eq!(server.config().max_early_data_size, 0);
}

#[test]
fn self_signed_certificate_given_as_root_is_trusted_for_its_names_only() {
    let key = KeyPair::generate().unwrap();
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
        params.is_ca = is_ca;
        let chain = params.self_signed(&key).unwrap().pem();
        let server = Server::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let client = Client::builder().roots_pem(chain.as_bytes()).build().unwrap();
        handshake(&client, &server).0.unwrap();
        let (client, _) = handshake_with("example.com", &client, &server);
        assert!(matches!(client, Err(TlsError::WrongName { .. })), "{client:?}");
    }
}

#[test]
fn self_signed_certificate_is_accepted_by_name_and_only_within_its_dates_and_names() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let chain = params.self_signed(&key).unwrap().pem();
    let server = Server::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let authority = Authority::new("root");
    assert_eq!(handshake(&trusting(&authority), &server).0, Err(TlsError::UnknownIssuer));

    let clock = Clock::at(2020);
    let client = Client::builder().roots_pem(&authority.pem()).time(clock.clone());
    let client = client.resumption(false).dangerous().accept_self_signed().build().unwrap();
    handshake(&client, &server).0.unwrap();
    let (wrong, _) = handshake_with("example.com", &client, &server);
    assert!(matches!(wrong, Err(TlsError::WrongName { .. })), "{wrong:?}");
    clock.set(server.not_after().unwrap() + DAY);
    assert!(matches!(handshake(&client, &server).0, Err(TlsError::Expired { .. })));

    let stranger = Authority::new("stranger").issue("localhost");
    clock.set(UNIX_EPOCH + DAY * 365 * 50);
    assert_eq!(handshake(&client, &serving(&stranger)).0, Err(TlsError::UnknownIssuer));
}

#[test]
fn other_name_is_accepted_by_name_and_only_from_a_trusted_issuer() {
    let (authority, stranger) = (Authority::new("root"), Authority::new("stranger"));
    let lists = RevocationLists::new().pem(&authority.list(&[5], 2101));
    let client = Client::builder().roots_pem(&authority.pem()).revocation(lists);
    let client = client.dangerous().accept_any_name().build().unwrap();
    handshake(&client, &serving(&authority.issue("example.com"))).0.unwrap();

    assert_eq!(refused(&client, &stranger.issue("example.com")).0, TlsError::UnknownIssuer);
    let expired =
        authority.issue_with("example.com", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert!(matches!(refused(&client, &expired).0, TlsError::Expired { .. }));
    let revoked = authority.issue_with("example.com", |params| params.serial_number = Some(5.into()));
    assert_eq!(refused(&client, &revoked).0, TlsError::Revoked);
}

#[test]
fn any_certificate_is_accepted_by_name_from_whoever_has_its_key() {
    let stranger = Authority::new("stranger");
    let expired =
        stranger.issue_with("example.com", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let client = Client::builder().dangerous().accept_any_certificate().build().unwrap();
    for version in [Version::Tls12, Version::Tls13] {
        let server = Server::builder().certificate_pem(&expired.chain, &expired.key).versions(&[version]);
        handshake(&client, &server.build().unwrap()).0.unwrap();
    }
    let other = stranger.issue("localhost");
    let server = Server::builder().signer(&expired.chain, card(&other, false)).build().unwrap();
    let (client, server) = handshake(&client, &server);
    assert_eq!(client, Err(TlsError::BadSignature));
    assert_eq!(server, Err(received(AlertDescription::DecryptError)));
}

/// Notes what it was asked, and answers as it is told.
#[derive(Debug)]
struct Noting(Mutex<Vec<String>>, bool);

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.lock().unwrap().push(name.to_str().into_owned());
        match self.1 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn verifier_of_ones_own_decides_alone() {
    let server = serving(&Authority::new("root").issue("example.com"));
    let verifier = Arc::new(Noting(Mutex::default(), true));
    let client = Client::builder().verifier(verifier.clone()).build().unwrap();
    handshake(&client, &server).0.unwrap();
    assert_eq!(*verifier.0.lock().unwrap(), ["localhost"]);

    let refusing = Client::builder().verifier(Arc::new(Noting(Mutex::default(), false))).build().unwrap();
    let (client, server) = handshake(&refusing, &server);
    assert_eq!(client, Err(TlsError::CertificateRefused));
    assert_eq!(server, Err(received(AlertDescription::AccessDenied)));

    let both = Client::builder().verifier(verifier).dangerous().accept_any_name().build();
    assert!(matches!(config_error(both), ConfigError::VerifierWithRoots));
}

#[cfg(not(any(feature = "tls-native-roots", feature = "tls-webpki-roots")))]
#[test]
fn client_without_roots_is_refused() {
    assert!(matches!(config_error(Client::builder().build()), ConfigError::NoRoots));
    assert!(Client::builder().dangerous().accept_self_signed().build().is_ok());
    assert!(matches!(
        config_error(Client::builder().dangerous().accept_any_name().build()),
        ConfigError::NoRoots
    ));
}

#[cfg(feature = "tls-webpki-roots")]
#[test]
fn roots_that_are_compiled_in_do_not_include_ours() {
    let client = Client::builder().webpki_roots().build().unwrap();
    let server = serving(&Authority::new("root").issue("localhost"));
    assert_eq!(handshake(&client, &server).0, Err(TlsError::UnknownIssuer));
}

#[cfg(feature = "tls-native-roots")]
#[test]
fn roots_of_the_system_are_taken_or_missed_by_name() {
    match Client::builder().native_roots().build() {
        Ok(client) => {
            let server = serving(&Authority::new("root").issue("localhost"));
            assert_eq!(handshake(&client, &server).0, Err(TlsError::UnknownIssuer));
        }
        Err(error) => assert!(matches!(error, ConfigError::NoRoots), "{error}"),
    }
}

#[test]
fn plain_http_to_a_tls_port_is_told_from_bad_tls() {
    let server = serving(&Authority::new("root").issue("localhost"));
    let error = |bytes: &[u8]| {
        let mut server = ServerConnection::new(server.config()).unwrap();
        server.read_tls(&mut &*bytes).unwrap();
        TlsError::from(server.process_new_packets().unwrap_err())
    };
    assert_eq!(error(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), TlsError::NotTls);
    assert_eq!(error(b"\x05\x01\x00 SOCKS"), TlsError::NotTls);
    assert_eq!(error(b"\x16\x03\x01\xff\xff\x00\x00"), TlsError::RecordOverflow);
    let out_of_place = error(b"\x14\x03\x03\x00\x01\x01");
    assert!(!matches!(out_of_place, TlsError::NotTls | TlsError::Internal(_)), "{out_of_place}");
}

#[test]
fn every_error_has_a_text_that_ends_without_a_full_stop() {
    let mut errors = vec![
        TlsError::Expired { not_after: Some(UNIX_EPOCH) },
        TlsError::Expired { not_after: None },
        TlsError::NotYetValid { not_before: Some(UNIX_EPOCH) },
        TlsError::Expired { not_after: UNIX_EPOCH.checked_sub(DAY) },
        TlsError::NotYetValid { not_before: Some(UNIX_EPOCH + DAY * 365 * 9000) },
        TlsError::WrongName { expected: None, presented: Vec::new() },
        TlsError::UnknownIssuer,
        TlsError::NotTls,
        TlsError::Truncated,
        TlsError::HandshakeEnded,
        TlsError::HandshakeIo(std::io::ErrorKind::ConnectionReset),
        TlsError::HandshakeTimedOut,
        TlsError::HandshakeGaveWay,
        TlsError::Internal(rustls::Error::FailedToGetCurrentTime),
    ];
    errors.extend((0..=255).map(|number| received(AlertDescription::from(number))));
    for error in errors {
        let text = error.to_string();
        assert!(text.len() > 10 && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn provider_of_the_process_is_neither_used_nor_set() {
    let authority = Authority::new("root");
    handshake(&trusting(&authority), &serving(&authority.issue("localhost"))).0.unwrap();
    assert!(CryptoProvider::get_default().is_none());
}

#[test]
fn server_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Server>();
    shared::<Client>();
    shared::<Facts>();
    shared::<TlsError>();
    let _: fn(Arc<ServerConfig>) -> Server = Server::from_rustls;
}
