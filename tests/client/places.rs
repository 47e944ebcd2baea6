//! Where a client connects to, and what it says it is looking for.

use super::authority::Authority;
use super::town::{Heard, Script, State, Town, field, open};
use lodger::client::ConnectError;
use lodger::http::ClientRequest;
use lodger::tls::TlsError;
use lodger::{Connect, Limits, Listen, Peer, raw};
use std::path::PathBuf;

#[test]
fn sockets_of_this_machine_are_reached_by_their_path() {
    let path = PathBuf::from("/run/lodger-test");
    for url in ["ws+unix:/run/lodger-test:/chat?a=b", "ws+unix:///run/lodger-test:/chat?a=b"] {
        let mut town = Town::new();
        let mut server = town.world.listen(&Peer::Unix(Some(path.clone()))).unwrap();
        town.ws(Connect::to(url), Script::quiet());
        let mut peer = town.accept(&mut server);
        let head = open(&mut peer, "");
        assert!(head.starts_with("GET /chat?a=b HTTP/1.1\r\nHost: localhost\r\n"), "{head}");
        town.run();
        assert_eq!(town.log(), ["connected"]);
    }
    let mut town = Town::new();
    let mut server = town.world.listen(&Peer::Unix(Some(path.clone()))).unwrap();
    town.http(Connect::to("http+unix:/run/lodger-test:/page"), ClientRequest::get(), Script::quiet());
    let mut page = town.accept(&mut server);
    assert!(page.take().starts_with(b"GET /page HTTP/1.1\r\nHost: localhost\r\n"));
    town.raw(Connect::unix(&path), Script::quiet());
    let mut peer = town.accept(&mut server);
    peer.send("hello");
    town.run();
    assert_eq!(town.log()[..3], ["connected", "connected", "bytes hello"]);
}

#[test]
fn a_socket_that_is_not_there_is_named_in_the_error() {
    let mut town = Town::new();
    town.raw(Connect::to("unix:/run/nobody"), Script::quiet());
    town.run();
    let error = town.refusal();
    let ConnectError::Unreachable(attempts) = &error else { panic!("{error:?}") };
    assert_eq!(attempts[0].peer, Peer::Unix(Some("/run/nobody".into())));
}

#[test]
fn what_a_request_says_is_what_was_asked_for() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.7:4001");
    let connect = Connect::to("ws://far.example:81/a")
        .address("10.0.0.7:4001".parse().unwrap())
        .path("/status?x=y")
        .host("device.example")
        .origin("https://device.example")
        .subprotocol("v2")
        .subprotocol("v1")
        .field("Authorization", "Bearer a");
    town.ws(connect, Script::quiet());
    let mut peer = town.accept(&mut server);
    let head = open(&mut peer, "Sec-WebSocket-Protocol: v1\r\n");
    assert!(head.starts_with("GET /status?x=y HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("Host", "device.example"),
        ("Origin", "https://device.example"),
        ("Sec-WebSocket-Protocol", "v2, v1"),
        ("Authorization", "Bearer a"),
        ("Sec-WebSocket-Version", "13"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    town.run();
    assert_eq!((town.log(), town.world.names().asked()), (vec!["connected".to_owned()], 0));
}

#[test]
fn each_handshake_has_a_key_of_its_own() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    let keys: Vec<String> = (0..20)
        .map(|_| {
            town.ws(Connect::to("ws://10.0.0.1/"), Script::quiet());
            let mut peer = town.accept(&mut server);
            field(&open(&mut peer, ""), "Sec-WebSocket-Key").unwrap().to_owned()
        })
        .collect();
    let mut different = keys.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), keys.len());
}

struct Echo;

impl raw::Handler<State> for Echo {
    fn received(&mut self, cx: &mut lodger::Cx<'_, State>, bytes: &[u8]) {
        let _ = cx.write(bytes);
        cx.close();
    }
}

/// What comes of bytes over TLS to a server whose certificate is for `far.example`.
fn over_tls(change: impl FnOnce(&Authority, Connect) -> Connect) -> Town {
    let mut town = Town::new();
    let authority = Authority::new();
    let listen = Listen::tcp(([10, 0, 0, 1], 443)).tls_with(authority.server("far.example"));
    town.context.io().listen_raw(listen, Limits::default(), |_, _, _| Some(Box::new(Echo))).unwrap();
    let connect = Connect::to("tls://10.0.0.1:443").tls(authority.client().build().unwrap());
    let script = Script::new(|cx, heard| {
        if let Heard::Connected = heard {
            assert!(cx.conn().is_secure());
            let _ = cx.write(b"hello");
        }
    });
    town.raw(change(&authority, connect), script);
    town.run();
    town
}

#[test]
fn bytes_go_over_tls_to_a_server_of_that_name() {
    let mut town = over_tls(|_, connect| connect.server_name("far.example"));
    assert_eq!(town.log(), ["connected", "bytes hello", "end", "closed: the peer ended the connection"]);
}

#[test]
fn a_certificate_for_another_name_and_one_of_an_unknown_authority_fail_tls() {
    for known in [true, false] {
        let mut town = over_tls(|_, connect| match known {
            true => connect,
            false => connect.server_name("far.example").tls(Authority::new().client().build().unwrap()),
        });
        let error = town.refusal();
        assert!(matches!(error, ConnectError::Tls(_)) && !error.is_transient(), "{error:?}");
    }
}

#[test]
fn what_speaks_no_tls_fails_tls() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:443");
    let client = Authority::new().client().build().unwrap();
    town.raw(Connect::to("tls://10.0.0.1:443").tls(client), Script::quiet());
    town.accept(&mut server).send("SSH-2.0-OpenSSH\r\n");
    town.run();
    let error = town.refusal();
    assert!(
        matches!(error, ConnectError::Tls(ref error) if !matches!(error, TlsError::HandshakeEnded)),
        "{error:?}"
    );
}

#[test]
fn a_redirect_never_leads_from_tls_to_none() {
    use lodger::client::{ExchangeError, RedirectError};
    let mut town = Town::new();
    let authority = Authority::new();
    let tls = authority.server("far.example");
    let accept = |_: &lodger::Request<'_>, _: &mut State, _: &mut lodger::Io<State>| {
        let status = lodger::http::StatusCode::new(302).unwrap();
        lodger::Decision::respond(
            lodger::Response::text("").status(status).field("Location", "http://10.0.0.1/"),
        )
    };
    let site = town.context.io().add_site(lodger::Site::new().protocol("", accept).tls(tls)).unwrap();
    town.context.io().listen(Listen::tcp(([10, 0, 0, 1], 443)).tls(), site).unwrap();
    let connect = Connect::to("wss://10.0.0.1/").server_name("far.example");
    town.ws(connect.tls(authority.client().build().unwrap()), Script::quiet());
    town.run();
    let error = town.refusal();
    let insecure = matches!(&error, ConnectError::Exchange(ExchangeError::Redirect(RedirectError::Insecure)));
    assert!(insecure, "{error:?}");
}
