//! Against rustls as the peer, which counts, renews and refuses by itself; and against another end of ours.

use super::*;
use crate::tls::tests::{Authority, providers};
use crate::tls::transport::Tls;
use crate::tls::{Client, Server, Version};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{Read, Write};
use std::sync::Arc;

/// Whoever has bytes to send and to take.
trait End {
    fn take(&mut self, records: &[u8]);
    fn records(&mut self) -> Vec<u8>;
    fn say(&mut self, bytes: &[u8]);
    fn heard(&mut self) -> Vec<u8>;
}

struct Ours {
    tls: Tls,
    out: Records,
    joined: Vec<u8>,
    plain: Vec<u8>,
    error: Option<TlsError>,
}

impl Ours {
    fn new(tls: Tls) -> Self {
        Self { tls, out: Records::default(), joined: Vec::new(), plain: Vec::new(), error: None }
    }

    /// It has nothing to take yet, and something to say.
    fn client(client: &Client) -> Self {
        let mut this = Self::new(Tls::client(client.config(), "localhost".try_into().unwrap()).unwrap());
        this.take(&[]);
        this
    }

    fn server(server: &Server) -> Self {
        let mut this = Self::new(Tls::server().unwrap());
        this.tls.choose(server, &mut this.out).unwrap();
        this
    }

    fn established(&mut self) -> &mut Established {
        self.tls.established().expect("the handshake is complete")
    }

    fn renew(&mut self) {
        let Self { tls, out, .. } = self;
        tls.established().expect("the handshake is complete").renew(out).unwrap();
    }
}

impl End for Ours {
    fn take(&mut self, new: &[u8]) {
        let mut records = [self.tls.kept(), new].concat();
        let mut plain = vec![0; records.len()];
        let step = self.tls.receive(&mut records, &mut plain, &mut self.out);
        self.plain.extend_from_slice(&plain[..step.plain]);
        self.error = self.error.take().or(step.error);
    }

    fn records(&mut self) -> Vec<u8> {
        let records = self.out.bytes().to_vec();
        self.out.clear();
        records
    }

    fn say(&mut self, bytes: &[u8]) {
        self.tls.encrypt(&[bytes], &mut self.joined, &mut self.out).unwrap();
    }

    fn heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }
}

struct Theirs(Connection, Vec<u8>);

impl Theirs {
    fn client(client: &Client) -> Self {
        let client = ClientConnection::new(client.config(), "localhost".try_into().unwrap());
        Self(client.unwrap().into(), Vec::new())
    }

    fn server(server: &Server) -> Self {
        Self(ServerConnection::new(server.config()).unwrap().into(), Vec::new())
    }
}

impl End for Theirs {
    fn take(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            self.0.read_tls(&mut records).unwrap();
            let state = self.0.process_new_packets().unwrap();
            let start = self.1.len();
            self.1.resize(start + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut self.1[start..]).unwrap();
        }
    }

    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut records).unwrap();
        }
        records
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.writer().write_all(bytes).unwrap();
    }

    fn heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.1)
    }
}

/// Carries records to and fro, so many bytes at once, until nobody has more to say.
fn carry(a: &mut dyn End, b: &mut dyn End, step: usize) {
    loop {
        let (to_b, to_a) = (a.records(), b.records());
        if to_a.is_empty() && to_b.is_empty() {
            return;
        }
        to_b.chunks(step).for_each(|records| b.take(records));
        to_a.chunks(step).for_each(|records| a.take(records));
    }
}

fn converse(ours: &mut dyn End, theirs: &mut dyn End, length: usize) {
    let bytes: Vec<u8> = (0..length).map(|at| (at * 7 / 3) as u8).collect();
    ours.say(&bytes);
    theirs.say(&bytes);
    carry(ours, theirs, usize::MAX);
    assert!(ours.heard() == bytes && theirs.heard() == bytes, "{length} bytes");
}

/// A client that trusts a server, both of this provider and these suites.
fn pair(provider: &Arc<CryptoProvider>, suites: &[SupportedCipherSuite]) -> (Client, Server) {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let provider = Arc::new(CryptoProvider { cipher_suites: suites.to_vec(), ..(**provider).clone() });
    let server = Server::builder().certificate_pem(&issued.chain, &issued.key).provider(provider.clone());
    let client = Client::builder().roots_pem(&authority.pem()).provider(provider);
    (client.build().unwrap(), server.build().unwrap())
}

/// Those that work with the certificate of a test.
fn suites(provider: &CryptoProvider) -> impl Iterator<Item = SupportedCipherSuite> {
    let all = provider.cipher_suites.iter().copied();
    all.filter(|suite| !suite.suite().as_str().is_some_and(|name| name.contains("_RSA_")))
}

/// Ends with a complete handshake, for every provider and suite, with our end on either side.
fn for_each(mut with: impl FnMut(SupportedCipherSuite, &mut Ours, &mut Theirs)) {
    for provider in providers() {
        for suite in suites(&provider) {
            let (client, server) = pair(&provider, &[suite]);
            let client_ours = (Ours::client(&client), Theirs::server(&server));
            let server_ours = (Ours::server(&server), Theirs::client(&client));
            for (mut ours, mut theirs) in [client_ours, server_ours] {
                carry(&mut ours, &mut theirs, usize::MAX);
                assert_eq!(ours.error, None);
                assert!(ours.tls.established().is_some() && !theirs.0.is_handshaking());
                with(suite, &mut ours, &mut theirs);
            }
        }
    }
}

fn version(suite: SupportedCipherSuite) -> Version {
    if suite.tls13().is_some() { Version::Tls13 } else { Version::Tls12 }
}

#[test]
fn every_suite_of_every_provider_carries_data_of_any_length() {
    for_each(|_, ours, theirs| {
        for length in [1, 2, 1300, 1301, 16 * 1024, 16 * 1024 + 1, 60_000] {
            converse(ours, theirs, length);
        }
        ours.tls.close(&mut ours.out);
        carry(ours, theirs, usize::MAX);
        assert!(theirs.0.process_new_packets().unwrap().peer_has_closed());
        theirs.0.send_close_notify();
        carry(ours, theirs, usize::MAX);
        assert!(ours.tls.peer_has_closed() && ours.error.is_none());
    });
}

#[test]
fn seventy_thousand_records_in_either_direction_are_counted_alike() {
    for_each(|suite, ours, theirs| {
        if !suite.suite().as_str().is_some_and(|name| name.contains("AES_128")) {
            return;
        }
        for _ in 0..700 {
            for _ in 0..100 {
                ours.say(b"x");
                theirs.say(b"y");
            }
            carry(ours, theirs, usize::MAX);
            assert_eq!((ours.heard(), theirs.heard()), (vec![b'y'; 100], vec![b'x'; 100]));
        }
        assert!(ours.established().outgoing.sequence >= 70_000);
        assert!(ours.established().incoming.sequence >= 70_000);
    });
}

#[test]
fn keys_are_renewed_at_the_wish_of_either_side() {
    for_each(|suite, ours, theirs| {
        if version(suite) == Version::Tls12 {
            return;
        }
        for at in 0..40 {
            match at % 4 {
                0 => theirs.0.refresh_traffic_keys().unwrap(),
                1 => ours.renew(),
                2 => {
                    // Both at once.
                    ours.renew();
                    theirs.0.refresh_traffic_keys().unwrap();
                }
                _ => {}
            }
            converse(ours, theirs, 10);
        }
    });
}

#[test]
fn many_wishes_for_new_keys_are_granted_once() {
    for_each(|suite, ours, theirs| {
        if version(suite) == Version::Tls12 {
            return;
        }
        for _ in 0..10 {
            theirs.0.refresh_traffic_keys().unwrap();
        }
        ours.take(&theirs.records());
        assert_eq!(ours.records(), b"", "there is time until something is sent");
        ours.say(b"x");
        let answer = ours.records();
        let first = 5 + usize::from(u16::from_be_bytes([answer[3], answer[4]]));
        let second = 5 + usize::from(u16::from_be_bytes([answer[first + 3], answer[first + 4]]));
        assert_eq!(first + second, answer.len(), "new keys, and what is sent");
        theirs.take(&answer);
        assert_eq!(theirs.heard(), b"x");
        converse(ours, theirs, 10);
    });
}

#[test]
fn more_new_keys_than_anybody_needs_are_refused() {
    for provider in providers() {
        let (client, server) = pair(&provider, &provider.cipher_suites);
        let (mut client, mut server) = (Ours::client(&client), Ours::server(&server));
        carry(&mut client, &mut server, usize::MAX);
        for _ in 0..3 {
            for _ in 0..UPDATES {
                client.renew();
            }
            converse(&mut client, &mut server, 1);
        }
        for _ in 0..=UPDATES {
            client.renew();
        }
        server.take(&client.records());
        assert_eq!(server.error, Some(TlsError::Misbehaved(PeerMisbehaved::TooManyKeyUpdateRequests)));
    }
}

#[test]
fn keys_that_are_used_up_are_renewed_or_the_connection_fails() {
    for_each(|suite, ours, theirs| {
        for _ in 0..20 {
            // As if so much had been sent.
            let outgoing = &mut ours.established().outgoing;
            outgoing.limit = outgoing.sequence + 3;
            if version(suite) == Version::Tls12 {
                break;
            }
            for _ in 0..10 {
                converse(ours, theirs, 10);
            }
            assert!(ours.established().outgoing.limit > 100, "they were renewed");
        }
        if version(suite) == Version::Tls13 {
            return;
        }
        ours.say(b"a");
        ours.say(b"b");
        let last = ours.tls.encrypt(&[b"c"], &mut ours.joined, &mut ours.out);
        assert_eq!(last, Err(TlsError::KeysExhausted));
        // There is one left to say so, and no more.
        let Ours { tls, out, .. } = ours;
        let established = tls.established().unwrap();
        assert_eq!(established.close(out), Ok(()));
        assert_eq!(established.close(out), Err(TlsError::KeysExhausted));
        carry(ours, theirs, usize::MAX);
        assert_eq!(theirs.heard(), b"ab");
        assert!(theirs.0.process_new_packets().unwrap().peer_has_closed());
    });
}

#[test]
fn a_client_resumes_by_the_tickets_that_it_gets() {
    for provider in providers() {
        for suite in suites(&provider) {
            let (client, server) = pair(&provider, &[suite]);
            for resumed in [false, true, true] {
                let (mut ours, mut theirs) = (Ours::client(&client), Theirs::server(&server));
                carry(&mut ours, &mut theirs, usize::MAX);
                converse(&mut ours, &mut theirs, 10);
                assert_eq!(ours.tls.facts().unwrap().resumed, resumed);
                assert_eq!(ours.tls.facts().unwrap().peer_certificates.len(), 1);
            }
        }
    }
}

#[test]
fn two_ends_of_ours_understand_each_other_byte_by_byte() {
    for provider in providers() {
        for suite in suites(&provider) {
            let (client, server) = pair(&provider, &[suite]);
            let (mut client, mut server) = (Ours::client(&client), Ours::server(&server));
            carry(&mut client, &mut server, 1);
            client.say(b"from the client");
            server.say(b"from the server");
            carry(&mut client, &mut server, 1);
            assert_eq!((client.error.take(), server.error.take()), (None, None));
            assert_eq!(client.heard(), b"from the server");
            assert_eq!(server.heard(), b"from the client");
            let (client, server) = (client.tls.facts().unwrap(), server.tls.facts().unwrap());
            assert_eq!((client.cipher_suite, client.version), (suite.suite(), version(suite)));
            assert_eq!((server.cipher_suite, server.group), (suite.suite(), client.group));
            assert_eq!(server.alpn, client.alpn);
        }
    }
}

#[test]
fn new_keys_and_data_may_come_in_one_read_with_the_end_of_the_handshake() {
    for provider in providers() {
        let (client, server) = pair(&provider, &provider.cipher_suites);
        let (mut theirs, mut ours) = (Theirs::client(&client), Ours::server(&server));
        ours.take(&theirs.records());
        theirs.take(&ours.records());
        theirs.say(b"old keys, ");
        theirs.0.refresh_traffic_keys().unwrap();
        theirs.say(b"new keys");
        ours.take(&theirs.records());
        assert_eq!(ours.heard(), b"old keys, new keys");
        assert!(ours.tls.established().is_some());
        carry(&mut ours, &mut theirs, usize::MAX);
        converse(&mut ours, &mut theirs, 1000);
    }
}

#[test]
fn a_configuration_that_gives_no_keys_leaves_connections_as_they_are() {
    for provider in providers() {
        for suite in suites(&provider) {
            let (client, server) = pair(&provider, &[suite]);
            let mut config = (*server.config()).clone();
            assert!(config.enable_secret_extraction);
            config.enable_secret_extraction = false;
            let server = Server::from_rustls(Arc::new(config));
            let (mut theirs, mut ours) = (Theirs::client(&client), Ours::server(&server));
            carry(&mut ours, &mut theirs, 7);
            assert!(ours.tls.is_secured() && ours.tls.established().is_none());
            converse(&mut ours, &mut theirs, 60_000);
            if version(suite) == Version::Tls13 {
                theirs.0.refresh_traffic_keys().unwrap();
            }
            converse(&mut ours, &mut theirs, 1000);
        }
    }
}

/// Two ends of ours, the client first, with a complete handshake in this version.
fn ours(wanted: Version) -> (Ours, Ours) {
    let provider = providers().remove(0);
    let suite = suites(&provider).find(|suite| version(*suite) == wanted).unwrap();
    let (client, server) = pair(&provider, &[suite]);
    let (mut client, mut server) = (Ours::client(&client), Ours::server(&server));
    carry(&mut client, &mut server, usize::MAX);
    (client, server)
}

/// Has the client send this record, and says what the server tells it.
fn told_of(client: &mut Ours, server: &mut Ours, typ: ContentType, bytes: &[u8]) -> Option<TlsError> {
    let Ours { tls, out, .. } = client;
    tls.established().unwrap().outgoing.write(typ, bytes, out).unwrap();
    server.take(&client.records());
    client.take(&server.records());
    client.error.take()
}

fn alert(description: AlertDescription) -> Option<TlsError> {
    Some(TlsError::Alert { description, received: true })
}

#[test]
fn what_has_no_place_after_a_handshake_is_refused() {
    use ContentType::{Alert, ApplicationData, ChangeCipherSpec, Handshake, Heartbeat};
    let unexpected = alert(AlertDescription::UnexpectedMessage);
    let undecodable = alert(AlertDescription::DecodeError);
    let both = [Version::Tls12, Version::Tls13];
    type Case<'a> = (&'a [Version], ContentType, &'a [u8], &'a Option<TlsError>);
    let cases: [Case<'_>; 16] = [
        // A ticket, a request for a certificate, a ClientHello, a Finished, and what nobody knows.
        (&both, Handshake, &[4, 0, 0, 1, 0], &unexpected),
        (&both, Handshake, &[13, 0, 0, 1, 0], &unexpected),
        (&both[1..], Handshake, &[1, 0, 0, 1, 0], &unexpected),
        (&both, Handshake, &[20, 0, 0, 1, 0], &unexpected),
        (&both, Handshake, &[99, 0, 0, 1, 0], &unexpected),
        (&both[..1], Handshake, &[24, 0, 0, 1, 0], &unexpected),
        (&both[..1], Handshake, &[0, 0, 0, 0], &unexpected),
        // More behind new keys, longer ones, and others.
        (&both[1..], Handshake, &[24, 0, 0, 1, 0, 24], &unexpected),
        (&both[1..], Handshake, &[24, 0, 0, 2, 0, 0], &undecodable),
        (&both[1..], Handshake, &[24, 0, 0, 1, 2], &alert(AlertDescription::IllegalParameter)),
        (&both, Handshake, &[], &unexpected),
        (&both, ChangeCipherSpec, &[1], &unexpected),
        (&both, Heartbeat, &[1, 0, 0], &unexpected),
        (&both, Alert, &[1, 0, 0], &undecodable),
        (&both, Alert, &[3, 0], &alert(AlertDescription::IllegalParameter)),
        (&both[1..], ApplicationData, &[0; 16 * 1024 + 1], &alert(AlertDescription::RecordOverflow)),
    ];
    for (versions, typ, bytes, expected) in cases {
        for version in versions {
            let (mut client, mut server) = ours(*version);
            let told = told_of(&mut client, &mut server, typ, bytes);
            assert_eq!(&told, expected, "{version:?} {typ:?} {:?}", &bytes[..bytes.len().min(6)]);
        }
    }
}

#[test]
fn plaintext_and_changed_records_are_refused_after_a_handshake() {
    for version in [Version::Tls12, Version::Tls13] {
        for record in [
            &[20, 3, 3, 0, 1, 1][..],
            &[21, 3, 3, 0, 2, 1, 0],
            &[22, 3, 3, 0, 4, 0, 0, 0, 0],
            &[23, 3, 3, 0, 0],
        ] {
            let (_, mut server) = ours(version);
            server.take(record);
            assert!(server.error.is_some() && !server.tls.peer_has_closed());
            assert!(!server.records().is_empty(), "the peer is told");
        }
        let (mut client, _) = ours(version);
        client.say(b"some data");
        let record = client.records();
        for at in 0..record.len() {
            let (mut client, mut server) = ours(version);
            client.say(b"some data");
            let mut record = client.records();
            record[at] ^= 1;
            server.take(&record);
            // The version of a record of TLS 1.3 is ignored; a longer one may still come.
            let is_version = version == Version::Tls13 && (at == 1 || at == 2);
            let is_longer = server.error.is_none() && server.tls.kept().len() == record.len();
            assert!(server.error.is_some() || is_version || is_longer, "byte {at}");
            assert!(is_version || server.heard().is_empty());
        }
    }
}

#[test]
fn wishes_for_new_keys_make_no_more_records_than_we_send_ourselves() {
    let (mut client, mut server) = ours(Version::Tls13);
    let mut answers = 0;
    for _ in 0..1000 {
        let Ours { tls, out, .. } = &mut client;
        let established = tls.established().unwrap();
        established.outgoing.write(ContentType::Handshake, &[24, 0, 0, 1, 1], out).unwrap();
        let keys = established.renewal.outgoing().unwrap();
        established.outgoing = Outgoing::new(established.suite, keys).unwrap();
        client.say(b"x");
        server.take(&client.records());
        answers += server.records().len();
        assert_eq!(server.error, None);
    }
    assert!(answers < 100, "{answers} bytes for a peer that is sent nothing");
}

#[test]
fn alert_without_content_is_unexpected_in_tls_1_3() {
    let (mut client, mut server) = ours(Version::Tls13);
    let told = told_of(&mut client, &mut server, ContentType::Alert, &[]);
    assert_eq!(told, alert(AlertDescription::UnexpectedMessage));
}

#[test]
fn key_update_without_content_cannot_be_decoded() {
    let (mut client, mut server) = ours(Version::Tls13);
    let told = told_of(&mut client, &mut server, ContentType::Handshake, &[24, 0, 0, 0]);
    assert_eq!(told, alert(AlertDescription::DecodeError));
}

#[test]
fn nothing_is_heard_behind_a_close_notify() {
    for version in [Version::Tls12, Version::Tls13] {
        let (mut client, mut server) = ours(version);
        let Ours { tls, out, .. } = &mut client;
        tls.established().unwrap().close(out).unwrap();
        server.take(&client.records());
        assert!(server.tls.peer_has_closed());
        client.say(b"late");
        server.take(&client.records());
        assert_eq!(server.heard(), b"");
    }
}

#[test]
fn a_client_that_has_failed_says_so_once() {
    let provider = providers().remove(0);
    let (client, _) = pair(&provider, &provider.cipher_suites);
    let (_, stranger) = pair(&provider, &provider.cipher_suites);
    let (mut ours, mut theirs) = (Ours::client(&client), Theirs::server(&stranger));
    ours.say(b"waits for the handshake");
    theirs.take(&ours.records());
    ours.take(&theirs.records());
    assert_eq!(ours.error, Some(TlsError::BadSignature));
    assert!(!ours.records().is_empty());
    ours.take(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat());
    assert_eq!(ours.records(), b"", "a second alert");
}
