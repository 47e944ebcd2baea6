//! Certificates through the whole server: those of clients, those that are replaced, and those that age.

use super::authority::{Authority, Issued};
use super::records::open;
use super::rig::{Frame, State};
use super::script::Script;
use super::town::{Hall, TlsPeer, Town, VERSIONS, any_port};
use lodger::tls::rustls::pki_types::UnixTime;
use lodger::tls::rustls::time_provider::TimeProvider;
use lodger::tls::{ClientCertificates, RevocationLists, Server, Version};
use lodger::{Limits, Site, Wait};
use rcgen::{ExtendedKeyUsagePurpose, SerialNumber};
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MILLI: Duration = Duration::from_millis(1);

/// The day on which the simulated world begins.
#[derive(Debug)]
struct FirstDay;

impl TimeProvider for FirstDay {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_577_836_800)))
    }
}

/// A server that asks its clients for certificates of its town's authority.
fn asking(clients: impl FnOnce(ClientCertificates) -> ClientCertificates, required: bool) -> Town {
    let mut town = Town::empty();
    let kind = if required { ClientCertificates::required() } else { ClientCertificates::optional() };
    let clients = clients(kind.roots_pem(&town.authority.pem()));
    town.server = town.authority.builder("localhost").client_certificates(clients).build().unwrap();
    town.listen_hall(Limits::default(), Script::quiet);
    town
}

/// What becomes of a client that shows this.
fn shown(town: &mut Town, version: Version, shown: Option<&Issued>) -> (Vec<String>, TlsPeer) {
    let client = town.authority.client().versions(&[version]);
    let client = match shown {
        Some(shown) => client.certificate_pem(&shown.chain, &shown.key),
        None => client,
    };
    let mut peer = town.secured_as("localhost", &client.build().unwrap());
    let log = town.log();
    if log.iter().any(|line| line.starts_with("failed")) {
        peer.socket().finish();
        town.run();
        assert_eq!(town.links(), 1);
        assert!(peer.error.is_some());
    }
    (log, peer)
}

#[test]
fn a_client_certificate_is_refused_by_name() {
    const SERIAL: u64 = 77;
    for version in VERSIONS {
        for required in [true, false] {
            let mut town = asking(|clients| clients, required);
            let list = town.authority.list(SERIAL);
            let mut strict = asking(|clients| clients, required);
            strict.authority = std::mem::replace(&mut town.authority, Authority::new());
            let clients = match required {
                true => ClientCertificates::required(),
                false => ClientCertificates::optional(),
            };
            let clients = clients.roots_pem(&strict.authority.pem());
            let clients = clients.revocation(RevocationLists::new().pem(&list));
            strict.server =
                strict.authority.builder("localhost").client_certificates(clients).build().unwrap();
            let site = Site::new().protocol("", Hall::quiet("")).tls(strict.server.clone());
            let listener = strict.listener.take().unwrap();
            strict.context.io().close_listener(listener);
            strict.listen(site);
            strict.log();

            let issue = |change: fn(&mut rcgen::CertificateParams)| {
                strict.authority.issue_with("client", |params| {
                    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                    change(params);
                })
            };
            let good = issue(|_| {});
            let expired = issue(|params| params.not_after = rcgen::date_time_ymd(2002, 1, 1));
            let early = issue(|params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
            let revoked = issue(|params| params.serial_number = Some(SerialNumber::from(SERIAL)));
            let server = issue(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            });
            let stranger = Authority::named("a stranger").issue("client");
            let welcome = format!("secured {version} localhost");
            for (certificate, expected) in [
                (Some(&good), &*welcome),
                (Some(&expired), "failed Expired {"),
                (Some(&early), "failed NotYetValid {"),
                (Some(&revoked), "failed Revoked"),
                (Some(&server), "failed WrongUsage"),
                (Some(&stranger), "failed UnknownIssuer"),
                (None, if required { "failed NoCertificate" } else { &welcome }),
            ] {
                let (log, _) = shown(&mut strict, version, certificate);
                assert_eq!(log.len(), 1, "{log:?}");
                assert!(log[0].starts_with(expected), "{log:?}, not {expected}");
            }
        }
    }
}

/// Refuses every client.
fn refusing(town: &Town) -> Site<State> {
    let mut hall = Hall::quiet("");
    hall.refuses = true;
    Site::new().protocol("", hall).tls(town.server.clone())
}

#[test]
fn a_client_that_the_protocol_refuses_is_let_go_before_anything_is_read() {
    for version in VERSIONS {
        let mut town = Town::empty();
        let site = refusing(&town);
        town.listen(site);
        town.version(version);
        let mut peer = town.connect();
        peer.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        town.settle(&mut peer);
        assert_eq!(peer.heard(), b"");
        assert!(peer.closed && peer.socket().at_end() && !peer.socket().was_reset());
        assert_eq!(town.log(), [format!("secured {version} localhost")]);
        peer.close_notify();
        peer.finish();
        town.settle(&mut peer);
        assert_eq!(town.links(), 1);
    }
}

#[test]
fn the_facts_of_a_connection_are_known_to_its_handlers() {
    for version in VERSIONS {
        let mut town = asking(|clients| clients, false);
        let issued = town.authority.issue("client");
        let client = town.authority.client().versions(&[version]);
        let client = client.certificate_pem(&issued.chain, &issued.key).build().unwrap();
        for resumed in [false, true] {
            // A session goes on with the certificate that it began with.
            if resumed {
                let new = town.authority.issue("localhost");
                town.server.replace_pem(&new.chain, &new.key).unwrap();
            }
            let mut peer = town.secured_as("localhost", &client);
            town.ask(&mut peer, "/facts", "localhost").unwrap();
            let facts = town.log().pop().unwrap();
            for part in [
                format!("version: {version:?}"),
                "server_name: Some(\"localhost\")".to_owned(),
                "alpn: Some(\"http/1.1\")".to_owned(),
                format!("resumed: {resumed}"),
                "peer_certificates: 1".to_owned(),
                format!("cipher_suite: {:?}", peer.tls.negotiated_cipher_suite().unwrap().suite()),
            ] {
                assert!(facts.contains(&part), "{facts} without {part}");
            }
            peer.close_notify();
            peer.finish();
            town.settle(&mut peer);
        }
    }
}

#[test]
fn replacing_a_certificate_loses_no_connection() {
    for version in VERSIONS {
        let mut town = Town::hall(Limits::default(), Script::echo);
        town.version(version);
        // New sessions only, so that each shows the certificate.
        let client = town.authority.client().versions(&[version]).resumption(false).build().unwrap();
        let mut peers = Vec::new();
        let mut half_way = Vec::new();
        for round in 0..10 {
            for at in 0..5 {
                let mut peer = town.secured_as("localhost", &client);
                open(&mut town, &mut peer);
                peers.push(peer);
                let mut peer = town.connect_as("localhost", &client.config());
                peer.step = 20 * (at + 1);
                peer.pump();
                half_way.push(peer);
            }
            let new = town.authority.issue("localhost");
            if round % 3 == 2 {
                town.server.replace_pem(&new.chain, b"no key").unwrap_err();
            } else {
                town.server.replace_pem(&new.chain, &new.key).unwrap();
                let mut peer = town.secured_as("localhost", &client);
                let shown = peer.tls.peer_certificates().unwrap()[0].clone();
                open(&mut town, &mut peer);
                peers.push(peer);
                let pem = String::from_utf8(new.chain).unwrap();
                let der = der(&pem);
                assert_eq!(shown.as_ref(), &der[..]);
            }
            for peer in &mut peers {
                peer.say(Frame::text("still here").masked());
            }
            town.settle_all(&mut peers);
            for peer in &mut peers {
                assert_eq!(peer.heard(), Frame::text("still here").unmasked());
            }
        }
        town.settle_all(&mut half_way);
        assert!(half_way.iter().all(|peer| !peer.tls.is_handshaking()));
        assert_eq!(town.log().iter().filter(|line| line.starts_with("failed")).count(), 0);
    }
}

fn der(pem: &str) -> Vec<u8> {
    use lodger::tls::rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// A server whose certificate is valid for so many days of the simulated world.
fn ageing(authority: &Authority, days: u32) -> Server {
    let issued = issued_for(authority, days);
    let server = Server::builder().certificate_pem(&issued.chain, &issued.key);
    server.time(Arc::new(FirstDay)).build().unwrap()
}

fn issued_for(authority: &Authority, days: u32) -> Issued {
    let first = rcgen::date_time_ymd(2020, 1, 1);
    authority.issue_with("localhost", |params| params.not_after = first + DAY * days)
}

#[test]
fn a_certificate_ages_by_deadlines_and_wakes_nobody_between_them() {
    let mut town = Town::empty();
    town.server = ageing(&town.authority, 90);
    town.listen_hall(Limits::default(), Script::quiet);
    assert_eq!(town.log(), ["90 days"]);
    let mut passed = 0;
    for (day, left) in [60, 76, 83, 87, 88, 89, 90, 91, 92].into_iter().zip([30, 14, 7, 3, 2, 1, 0, -1, -2]) {
        let wake_ups = town.world.host().wake_ups();
        town.run_for(DAY * (day - passed) - MILLI);
        passed = day;
        assert_eq!(town.world.host().wake_ups(), wake_ups, "woken before day {day}");
        assert_eq!(town.log(), [""; 0]);
        town.run_for(MILLI);
        assert_eq!(town.world.host().wake_ups(), wake_ups + 1);
        assert_eq!(town.log(), [format!("{left} days")]);
    }
}

#[test]
fn nobody_waits_for_the_age_of_a_certificate_that_is_not_used() {
    let mut town = Town::empty();
    town.server = ageing(&town.authority, 90);
    let site = Site::new().protocol("", Hall::quiet("")).tls(town.server.clone());
    let unused = town.context.io().add_site(site).unwrap();
    town.run();
    assert_eq!((town.log(), town.world.wait()), (vec![], Wait::FOREVER));
    let listener = town.context.io().listen(any_port().tls(), unused).unwrap();
    town.at(listener);
    assert_eq!(town.log(), ["90 days"]);
    assert_ne!(town.world.wait(), Wait::FOREVER);
    // As long as one of its connections lives, its certificate may be asked about.
    let any = town.authority.client().dangerous().accept_any_certificate().build().unwrap();
    let mut peer = town.secured_as("localhost", &any);
    open(&mut town, &mut peer);
    town.context.io().close_listener(listener);
    town.run();
    assert_ne!(town.world.wait(), Wait::FOREVER);
    peer.close_notify();
    peer.finish();
    town.settle(&mut peer);
    assert_eq!(town.links(), 0);
    assert_eq!(town.world.wait(), Wait::FOREVER);
    // And again, when it listens again.
    town.log();
    let listener = town.context.io().listen(any_port().tls(), unused).unwrap();
    town.at(listener);
    assert_eq!(town.log(), ["90 days"]);
}

#[test]
fn a_server_that_has_shut_down_waits_for_nothing() {
    let mut town = Town::empty();
    town.server = ageing(&town.authority, 90);
    town.listen_hall(Limits::default(), Script::quiet);
    town.context.io().shutdown(lodger::ws::CloseCode::GOING_AWAY);
    town.run();
    assert_eq!(town.links(), 0);
    assert_eq!(town.world.wait(), Wait::FOREVER);

    let mut town = Town::empty();
    town.server = ageing(&town.authority, 90);
    let site = town.listen_hall(Limits::default(), Script::quiet);
    town.context.io().remove_site(site);
    town.run();
    assert_eq!(town.world.wait(), Wait::FOREVER);
    assert!(town.has_logged("ended"));
}

#[test]
fn a_certificate_that_was_replaced_ages_anew_from_its_first_handshake_on() {
    let mut town = Town::empty();
    town.server = ageing(&town.authority, 10);
    town.listen_hall(Limits::default(), Script::quiet);
    assert_eq!(town.log(), ["10 days"]);
    let new = issued_for(&town.authority, 40);
    town.server.replace_pem(&new.chain, &new.key).unwrap();
    let any = town.authority.client().dangerous().accept_any_certificate().build().unwrap();
    let _ = town.secured_as("localhost", &any);
    assert!(town.has_logged("40 days"), "{:?}", town.state.log);
    town.log();
    town.run_for(DAY * 10 - MILLI);
    assert_eq!(town.log(), [""; 0]);
    town.run_for(MILLI);
    assert_eq!(town.log(), ["30 days"]);
}
