//! Many names on one port: which site a request is for, and what becomes of those that come and go.

use super::rig::{State, upgrade};
use super::script::Script;
use super::town::{Hall, TlsPeer, Town, any_port};
use lodger::sim::Endpoint;
use lodger::ws::CloseCode;
use lodger::{Limits, Listen, ListenError, Site, SiteId};
use std::time::Duration;

fn site(name: &'static str, hosts: &[&str]) -> Site<State> {
    Site::new().protocol("", Hall::new(name, Script::echo)).hosts(hosts.iter().copied())
}

/// Three sites that share a listener without TLS.
fn plain() -> (Town, [SiteId; 3]) {
    let mut town = Town::empty();
    let io = town.context.io();
    let first = io.add_site(site("first", &["abc.com"])).unwrap();
    let second = io.add_site(site("second", &["cats.abc.com", "cats.example"])).unwrap();
    let small = Limits { head: 400, ..Limits::default() };
    let third = io.add_site(site("third", &["example"]).limits(small)).unwrap();
    let listener = io.listen(any_port(), first).unwrap();
    io.share_listener(listener, second).unwrap();
    io.share_listener(listener, third).unwrap();
    town.at(listener);
    (town, [first, second, third])
}

/// Three sites with certificates of their own that share a listener.
fn secure() -> (Town, [SiteId; 3]) {
    let mut town = Town::empty();
    let servers = ["abc.com", "cats.abc.com", "example"].map(|name| town.authority.server(name));
    let [a, b, c] = servers;
    let io = town.context.io();
    let first = io.add_site(site("first", &["abc.com"]).tls(a)).unwrap();
    let second = io.add_site(site("second", &["cats.abc.com"]).tls(b)).unwrap();
    let third = io.add_site(site("third", &["example"]).tls(c)).unwrap();
    let listener = io.listen(any_port().tls(), first).unwrap();
    io.share_listener(listener, second).unwrap();
    io.share_listener(listener, third).unwrap();
    town.at(listener);
    (town, [first, second, third])
}

fn ask(town: &mut Town, socket: &mut Endpoint, host: &str) -> (u16, String) {
    socket.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    town.run();
    let answer = socket.next_answer().expect("an answer");
    (answer.status, String::from_utf8(answer.content).unwrap())
}

fn named(town: &mut Town, name: &'static str) -> TlsPeer {
    let any = town.authority.client().dangerous().accept_any_certificate().build().unwrap();
    let peer = town.secured_as(name, &any);
    assert!(!peer.tls.is_handshaking(), "{:?}, {:?}", peer.error, town.state.log);
    peer
}

#[test]
fn a_host_chooses_its_site_request_by_request() {
    let (mut town, _) = plain();
    let mut socket = town.socket();
    for (host, site) in [
        ("abc.com", "first/x"),
        ("ABC.com:8080", "first/x"),
        ("cats.abc.com", "second/x"),
        ("cats.abc.com:80", "second/x"),
        // Parents, the nearest first.
        ("dogs.abc.com", "first/x"),
        ("small.cats.abc.com", "second/x"),
        ("deep.down.example", "third/x"),
        ("small.cats.example", "second/x"),
    ] {
        assert_eq!(ask(&mut town, &mut socket, host), (200, site.to_owned()), "{host}");
    }
}

#[test]
fn a_host_that_no_site_has_is_for_the_first_that_answers_to_it() {
    // The first has names, and this is none of them.
    let (mut town, _) = plain();
    let mut socket = town.socket();
    assert_eq!(ask(&mut town, &mut socket, "other").0, 421);

    let mut town = Town::empty();
    let io = town.context.io();
    let first = io.add_site(Site::new().protocol("", Hall::quiet("any"))).unwrap();
    let second = io.add_site(site("second", &["abc.com"])).unwrap();
    let listener = io.listen(any_port(), first).unwrap();
    io.share_listener(listener, second).unwrap();
    town.at(listener);
    let mut socket = town.socket();
    for (host, site) in [("other", "any/x"), ("abc.com", "second/x"), ("127.0.0.1:80", "any/x")] {
        assert_eq!(ask(&mut town, &mut socket, host), (200, site.to_owned()));
    }
    // HTTP/1.0 need not say a Host.
    socket.send("GET /x HTTP/1.0\r\n\r\n");
    town.run();
    assert_eq!(socket.next_answer().unwrap().content, b"any/x");
}

#[test]
fn each_site_has_its_own_protocols_and_limits() {
    let (mut town, _) = plain();
    let mut socket = town.socket();
    let long = format!("GET /x HTTP/1.1\r\nHost: cats.abc.com\r\nX: {}\r\n\r\n", "x".repeat(2000));
    socket.send(&long);
    town.run();
    assert_eq!(socket.next_answer().unwrap().status, 200);
    assert_eq!(ask(&mut town, &mut socket, "example").0, 200);
    // From here on it lives by the limits of the third site.
    socket.send(&long);
    town.run();
    assert_eq!(socket.next_answer().unwrap().status, 431);

    let mut socket = town.socket();
    socket.send(upgrade("/", "").replace("localhost", "cats.abc.com"));
    town.run();
    assert_eq!(socket.next_head().unwrap().status, 101);
    socket.send_text("hello");
    town.run();
    assert_eq!(socket.next_frame().unwrap().payload, b"hello");
}

#[test]
fn a_server_name_chooses_site_and_certificate() {
    let (mut town, _) = secure();
    for (name, host, site) in [
        ("abc.com", "abc.com:443", "first"),
        ("cats.abc.com", "cats.abc.com", "second"),
        ("example", "example", "third"),
    ] {
        // The client verifies that the certificate is for this name.
        let client = town.authority.client().build().unwrap();
        let mut peer = town.secured_as(name, &client);
        assert_eq!(peer.error, None);
        assert_eq!(town.ask(&mut peer, "/x", host), Some((200, format!("{site}/x"))));
        assert_eq!(town.log(), [format!("{site}: secured TLS 1.3 {name}")]);
    }
    // A parent, and what nobody has.
    let mut peer = named(&mut town, "small.cats.abc.com");
    assert_eq!(town.ask(&mut peer, "/x", "small.cats.abc.com"), Some((200, "second/x".to_owned())));
    let _ = named(&mut town, "other.org");
    // An address is no name.
    let _ = named(&mut town, "127.0.0.1");
    assert_eq!(
        town.log(),
        [
            "second: secured TLS 1.3 small.cats.abc.com",
            "first: secured TLS 1.3 other.org",
            "first: secured TLS 1.3 -"
        ]
    );
}

#[test]
fn a_request_for_another_site_than_the_certificates_is_misdirected() {
    let (mut town, _) = secure();
    for (name, host, status) in [
        ("abc.com", "cats.abc.com", 421),
        ("cats.abc.com", "abc.com", 421),
        ("abc.com", "example:443", 421),
        ("abc.com", "other.org", 421),
        ("abc.com", "dogs.abc.com", 200),
    ] {
        let mut peer = named(&mut town, name);
        let (answer, _) = town.ask(&mut peer, "/x", host).unwrap();
        assert_eq!(answer, status, "{host} on {name}");
    }
}

#[test]
fn sites_come_and_go_while_their_connections_live() {
    let (mut town, [first, second, third]) = plain();
    let listener = town.listener.unwrap();
    let mut busy = town.socket();
    busy.send(upgrade("/", "").replace("localhost", "cats.abc.com"));
    town.run();
    assert_eq!(busy.next_head().unwrap().status, 101);
    town.context.io().remove_site(second);
    town.run();
    // Its connections are told, and may end in order.
    let close = busy.next_frame().unwrap();
    assert_eq!(close.close_code(), Some(1001));
    assert!(!town.has_logged("second: ended"));
    busy.send_close(1001, "");
    town.run();
    busy.finish();
    town.run();
    assert!(town.has_logged("second: ended"));

    // The others go on, and its name is for a parent.
    let mut socket = town.socket();
    assert_eq!(ask(&mut town, &mut socket, "cats.abc.com"), (200, "first/x".to_owned()));
    assert_eq!(ask(&mut town, &mut socket, "example"), (200, "third/x".to_owned()));
    let again = town.context.io().add_site(site("again", &["cats.abc.com"])).unwrap();
    town.context.io().share_listener(listener, again).unwrap();
    assert_eq!(ask(&mut town, &mut socket, "cats.abc.com"), (200, "again/x".to_owned()));

    // The first leaves the listener to the others, and the last closes it.
    town.context.io().remove_site(first);
    town.run();
    assert!(town.has_logged("first: ended"));
    let mut socket = town.socket();
    assert_eq!(ask(&mut town, &mut socket, "example"), (200, "third/x".to_owned()));
    town.context.io().remove_site(third);
    town.run();
    let mut socket = town.socket();
    assert_eq!(ask(&mut town, &mut socket, "cats.abc.com"), (200, "again/x".to_owned()));
    town.context.io().remove_site(again);
    town.run();
    socket.finish();
    town.run();
    town.run_for(Duration::from_secs(10));
    assert_eq!(town.links(), 0);
    assert!(town.has_logged("third: ended") && town.has_logged("again: ended"));
}

#[test]
fn a_site_that_is_removed_leaves_a_secure_listener_to_the_others() {
    let (mut town, [first, second, third]) = secure();
    let mut peer = named(&mut town, "cats.abc.com");
    open_at(&mut town, &mut peer, "cats.abc.com");
    // Between hello and the end of the handshake.
    let mut unfinished = town.connect_as("cats.abc.com", &town.client.clone());
    unfinished.pump();
    town.run();
    town.context.io().remove_site(second);
    town.settle(&mut peer);
    assert!(town.links() > 1);
    drop((peer, unfinished));
    town.run();
    assert!(town.has_logged("second: ended"));
    let _ = named(&mut town, "cats.abc.com");
    assert!(town.has_logged("first: secured TLS 1.3 cats.abc.com"));
    town.context.io().remove_site(first);
    town.run();
    let _ = named(&mut town, "cats.abc.com");
    assert!(town.has_logged("third: secured TLS 1.3 cats.abc.com"));
    town.context.io().remove_site(third);
    town.run();
    town.run_for(Duration::from_secs(10));
    assert_eq!(town.links(), 0);
}

fn open_at(town: &mut Town, peer: &mut TlsPeer, host: &str) {
    peer.say(upgrade("/", "").replace("localhost", host));
    town.settle(peer);
    assert!(peer.heard().starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn a_secure_listener_needs_certificates() {
    let mut town = Town::empty();
    let server = town.server.clone();
    let io = town.context.io();
    let without = io.add_site(site("without", &["a"])).unwrap();
    let with = io.add_site(site("with", &["b"]).tls(server)).unwrap();
    assert!(matches!(io.listen(any_port().tls(), without), Err(ListenError::NoCertificate)));
    let listener = io.listen(any_port().tls(), with).unwrap();
    assert!(matches!(io.share_listener(listener, without), Err(ListenError::NoCertificate)));
    let accept = |_: &lodger::Peer, _: &mut State, _: &mut lodger::Io<State>| None;
    let raw = io.listen_raw(any_port().tls(), Limits::default(), accept);
    assert!(matches!(raw, Err(ListenError::NoCertificate)));
    // Without TLS, a certificate does no harm.
    let plain = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), with).unwrap();
    io.share_listener(plain, without).unwrap();
    io.remove_site(without);
    assert!(matches!(io.share_listener(plain, without), Err(ListenError::NoSite)));
    town.run();
}

#[test]
fn a_broadcast_and_a_shutdown_reach_the_connections_of_every_site() {
    let (mut town, _) = secure();
    let mut peers: Vec<TlsPeer> = ["abc.com", "cats.abc.com", "example"]
        .map(|name| {
            let mut peer = named(&mut town, name);
            open_at(&mut town, &mut peer, name);
            peer
        })
        .into();
    town.context.io().shutdown(CloseCode::GOING_AWAY);
    town.settle_all(&mut peers);
    for peer in &mut peers {
        assert_eq!(peer.heard(), super::rig::Frame::close(1001, "").unmasked());
    }
}

#[test]
fn a_name_of_a_site_is_open_at_both_of_its_listeners() {
    let (mut town, [first, ..]) = secure();
    let plain = town.context.io().listen(any_port(), first).unwrap();
    town.at(plain);
    let mut socket = town.socket();
    assert_eq!(ask(&mut town, &mut socket, "abc.com"), (200, "first/x".to_owned()));
    // There it is alone.
    assert_eq!(ask(&mut town, &mut socket, "cats.abc.com").0, 421);
}

#[test]
fn over_tls_a_page_of_another_scheme_or_port_is_of_another_origin() {
    let over_tls = [
        ("https://localhost", "localhost", 101),
        ("https://localhost", "localhost:443", 101),
        ("https://localhost:8443", "localhost:8443", 101),
        ("http://localhost", "localhost", 403),
        ("http://localhost:443", "localhost", 403),
        ("http://localhost:8443", "localhost:8443", 403),
        ("https://localhost:80", "localhost", 403),
        ("https://localhost", "localhost:80", 403),
    ];
    let mut town = Town::hall(Limits::default(), Script::quiet);
    for (origin, host, status) in over_tls {
        let mut peer = town.secured();
        let asked = upgrade("/", &format!("Origin: {origin}\r\n"));
        peer.say(asked.replace("Host: localhost\r\n", &format!("Host: {host}\r\n")));
        town.settle(&mut peer);
        let head = String::from_utf8(peer.heard()).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{origin} at {host}: {head}");
    }
}

#[test]
fn without_tls_a_page_of_the_proxy_in_front_is_of_the_same_origin() {
    let mut town = Town::empty();
    let site = town.context.io().add_site(Site::new().protocol("", Hall::quiet(""))).unwrap();
    let listener = town.context.io().listen(any_port(), site).unwrap();
    town.at(listener);
    for (origin, status) in
        [("https://localhost", 101), ("http://localhost", 101), ("http://localhost:443", 403)]
    {
        let mut socket = town.socket();
        socket.send(upgrade("/", &format!("Origin: {origin}\r\n")));
        town.run();
        assert_eq!(socket.next_head().unwrap().status, status, "{origin}");
    }
}
