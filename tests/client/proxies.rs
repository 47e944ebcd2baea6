//! Proxies: each way in which one makes no tunnel, and what goes through those that make one.

use super::authority::Authority;
use super::town::{Heard, Script, State, Town, field, open, peer, relay};
use lodger::client::{ConnectError, ProxyError, SocksReply};
use lodger::http::{ClientRequest, StatusCode};
use lodger::sim::{Endpoint, Server};
use lodger::{ConnId, Connect, Limits, Listen, Proxy, raw};

fn http() -> Proxy {
    Proxy::http("10.0.0.8", 3128)
}

fn socks() -> Proxy {
    Proxy::socks5("10.0.0.8", 3128)
}

fn through(proxy: Proxy) -> Connect {
    Connect::to("ws://far.example:81/chat").proxy(proxy)
}

/// What comes of a proxy that says this, one thing after another.
fn refused(proxy: Proxy, answers: &[&[u8]]) -> (ConnectError, Vec<Vec<u8>>) {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.8:3128");
    town.ws(through(proxy), Script::quiet());
    let mut peer = town.accept(&mut server);
    let mut heard = vec![peer.take()];
    for answer in answers {
        peer.send(answer);
        town.run();
        heard.push(peer.take());
    }
    let error = town.refusal();
    assert_eq!(town.descriptors(), 0, "{error:?}");
    assert_eq!(town.world.names().asked(), 0, "the proxy looks names up");
    (error, heard)
}

#[track_caller]
fn check(proxy: Proxy, answers: &[&[u8]], expected: &ProxyError) -> ConnectError {
    let (error, _) = refused(proxy, answers);
    assert!(matches!(&error, ConnectError::Proxy(found) if found == expected), "{expected:?}: {error:?}");
    error
}

#[test]
fn each_refusal_of_connect_is_its_own_error() {
    let ann = || http().credentials("ann", "secret");
    const BASIC: &[u8] =
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n";
    const DIGEST: &[u8] =
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Digest realm=\"a\"\r\n\r\n";
    check(http(), &[BASIC], &ProxyError::CredentialsNeeded);
    check(ann(), &[BASIC], &ProxyError::CredentialsRefused);
    check(ann(), &[DIGEST], &ProxyError::AuthenticationNotSupported);
    let bad_gateway = ProxyError::Refused(StatusCode::new(502).unwrap());
    assert!(check(http(), &[b"HTTP/1.1 502 Bad Gateway\r\n\r\n"], &bad_gateway).is_transient());
    let forbidden = ProxyError::Refused(StatusCode::new(403).unwrap());
    assert!(!check(http(), &[b"HTTP/1.1 403 Forbidden\r\n\r\n"], &forbidden).is_transient());
    let switching = ProxyError::Refused(StatusCode::SWITCHING_PROTOCOLS);
    check(http(), &[b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], &switching);
    check(http(), &[b"SSH-2.0"], &ProxyError::NotAProxy);
    check(http(), &[b"HTTP/1.1 2 OK\r\n\r\n"], &ProxyError::Malformed);
    check(http(), &[b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000).as_slice()], &ProxyError::TooLong);
    let long = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'b'; 17_000]].concat();
    check(http(), &[&long], &ProxyError::TooLong);
}

#[test]
fn each_refusal_of_socks_is_its_own_error() {
    let ann = || socks().credentials("ann", "secret");
    check(socks(), &[b"\x05\xff"], &ProxyError::CredentialsNeeded);
    check(socks(), &[b"\x05\x02"], &ProxyError::CredentialsNeeded);
    check(ann(), &[b"\x05\x02", b"\x01\x01"], &ProxyError::CredentialsRefused);
    check(ann(), &[b"\x05\xff"], &ProxyError::AuthenticationNotSupported);
    check(socks(), &[b"\x05\x01"], &ProxyError::AuthenticationNotSupported);
    check(socks(), &[b"HTTP/1.1 400 Bad Request"], &ProxyError::NotAProxy);
    // Before it was asked.
    check(socks(), &[b"\x05\0\x05\0\0\x01\0\0\0\0\0\0"], &ProxyError::NotAProxy);
    for (code, reply) in [
        (1, SocksReply::GeneralFailure),
        (2, SocksReply::NotAllowed),
        (3, SocksReply::NetworkUnreachable),
        (4, SocksReply::HostUnreachable),
        (5, SocksReply::ConnectionRefused),
        (6, SocksReply::TtlExpired),
        (7, SocksReply::CommandNotSupported),
        (8, SocksReply::AddressTypeNotSupported),
        (200, SocksReply::Unassigned(200)),
    ] {
        let answer = [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
        check(socks(), &[b"\x05\0", &answer], &ProxyError::Socks(reply));
    }
}

#[test]
fn what_cannot_be_said_to_a_proxy_is_not_said() {
    for (proxy, connect, expected) in [
        (http().credentials("a:b", "c"), "ws://far.example/", ProxyError::Credentials),
        (http().credentials("a\r\nb", "c"), "ws://far.example/", ProxyError::Credentials),
        (socks().credentials("a".repeat(256), "c"), "ws://far.example/", ProxyError::Credentials),
    ] {
        let mut town = Town::new();
        let mut server = town.server("10.0.0.8:3128");
        town.ws(Connect::to(connect).proxy(proxy), Script::quiet());
        let peer = town.accept(&mut server);
        let error = town.refusal();
        assert!(
            matches!(&error, ConnectError::Proxy(found) if *found == expected),
            "{expected:?}: {error:?}"
        );
        assert_eq!(peer.received(), b"");
    }
}

#[test]
fn a_name_of_the_proxys_own_is_looked_up_and_raced_and_its_failure_names_it() {
    let mut town = Town::new();
    let proxy = Proxy::http("proxy.example", 3128);
    town.ws(through(proxy.clone()), Script::quiet());
    town.run();
    let error = town.refusal();
    assert!(matches!(&error, ConnectError::Resolve { name, .. } if name == "proxy.example"), "{error:?}");

    let names = ["10.0.0.7".parse().unwrap(), "10.0.0.8".parse().unwrap()];
    town.world.names().set("proxy.example", names, std::time::Duration::ZERO);
    let mut server = town.server("10.0.0.8:3128");
    town.ws(through(proxy), Script::quiet());
    let mut peer = town.accept(&mut server);
    assert!(peer.take().starts_with(b"CONNECT far.example:81 HTTP/1.1\r\nHost: far.example:81\r\n"));
    peer.send("HTTP/1.1 200 Connection established\r\n\r\n");
    town.run();
    let head = open(&mut peer, "");
    assert!(head.starts_with("GET /chat HTTP/1.1\r\nHost: far.example:81\r\n"), "{head}");
    town.run();
    assert_eq!(town.log(), ["connected"]);
}

#[test]
fn a_socks_proxy_gets_the_credentials_and_the_name() {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.8:3128");
    town.ws(through(socks().credentials("ann", "secret")), Script::quiet());
    let mut peer = town.accept(&mut server);
    assert_eq!(peer.take(), b"\x05\x02\0\x02");
    peer.send(b"\x05\x02");
    town.run();
    assert_eq!(peer.take(), b"\x01\x03ann\x06secret");
    peer.send(b"\x01\0");
    town.run();
    assert_eq!(peer.take(), b"\x05\x01\0\x03\x0bfar.example\0\x51");
    peer.send(b"\x05\0\0\x03\x03abc\0\x01");
    town.run();
    open(&mut peer, "");
    town.run();
    assert_eq!(town.log(), ["connected"]);
}

#[test]
fn what_a_server_says_right_behind_the_proxys_answer_is_not_lost() {
    for (proxy, answers) in [
        (http(), vec![&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n220 hello"[..]]),
        (socks(), vec![b"\x05\0", b"\x05\0\0\x01\0\0\0\0\0\x00220 hello"]),
    ] {
        let mut town = Town::new();
        let mut server = town.server("10.0.0.8:3128");
        town.raw(Connect::tcp("far.example", 25).proxy(proxy), Script::quiet());
        let mut peer = town.accept(&mut server);
        for answer in answers {
            peer.send(answer);
            town.run();
        }
        assert_eq!(town.log(), ["connected", "bytes 220 hello"]);
    }
}

/// Tunnels to the server of lodger's at 10.0.0.1:443, for all who ask.
#[derive(Default)]
struct Tunnels(Vec<(Endpoint, Option<Endpoint>)>);

impl Tunnels {
    /// Carries until nothing moves.
    fn carry(&mut self, town: &mut Town, server: &mut Server) {
        loop {
            town.run();
            while let Some(peer) = server.accept() {
                self.0.push((peer, None));
            }
            let mut moved = false;
            for (asker, far) in &mut self.0 {
                match far {
                    Some(far) => moved |= relay(asker, far),
                    None => {
                        let asked = String::from_utf8(asker.take()).unwrap();
                        if asked.is_empty() {
                            continue;
                        }
                        assert!(asked.starts_with("CONNECT far.example:443 HTTP/1.1\r\n"), "{asked}");
                        assert_eq!(field(&asked, "Proxy-Authorization"), Some("Basic YW5uOnNlY3JldA=="));
                        asker.send("HTTP/1.1 200 OK\r\n\r\n");
                        *far = Some(town.world.connect(&peer("10.0.0.1:443")).unwrap());
                        moved = true;
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }
}

/// Speaks to a server of lodger's by TLS, through a proxy.
fn tunnelled(client: impl FnOnce(&mut Town, Connect) -> ConnId) -> Town {
    let mut town = Town::new();
    let authority = Authority::new();
    let tls = authority.server("far.example");
    town.serve(Listen::tcp(([10, 0, 0, 1], 443)).tls(), |site| site.tls(tls));
    let mut proxy = town.server("10.0.0.8:3128");
    let connect = Connect::tcp("far.example", 443)
        .secure()
        .path("/page")
        .proxy(http().credentials("ann", "secret"))
        .tls(authority.client().build().unwrap());
    let id = client(&mut town, connect);
    let mut tunnels = Tunnels::default();
    tunnels.carry(&mut town, &mut proxy);
    assert!(town.context.io().conn(id).is_none_or(|conn| conn.is_secure()));
    assert_eq!(tunnels.0.len(), 1);
    drop(tunnels);
    town.run();
    town
}

#[test]
fn a_websocket_over_tls_through_a_proxy_carries_messages_both_ways() {
    let mut town = tunnelled(|town, connect| {
        town.ws(
            connect,
            Script::new(|cx, heard| match heard {
                Heard::Connected => drop(cx.send("hello")),
                Heard::Text(_) => cx.close(),
                _ => {}
            }),
        )
    });
    assert_eq!(town.log(), ["connected", "text hello", "closed: closed by us, code 1000"]);
}

#[test]
fn a_page_comes_over_tls_through_a_proxy() {
    let mut town = tunnelled(|town, connect| {
        town.http(
            connect,
            ClientRequest::get(),
            Script::new(|cx, heard| {
                if let Heard::Complete(_) = heard {
                    cx.close();
                }
            }),
        )
    });
    let log = town.log();
    assert_eq!(
        log,
        ["connected", "response 200", "bytes page /page", "complete", "closed: exchange complete"]
    );
}

#[test]
fn bytes_go_over_tls_through_a_proxy() {
    struct Shout;
    impl raw::Handler<State> for Shout {
        fn received(&mut self, cx: &mut lodger::Cx<'_, State>, bytes: &[u8]) {
            let _ = cx.write(&bytes.to_ascii_uppercase());
            cx.close();
        }
    }
    let mut town = Town::new();
    let authority = Authority::new();
    let listen = Listen::tcp(([10, 0, 0, 1], 443)).tls_with(authority.server("far.example"));
    town.context.io().listen_raw(listen, Limits::default(), |_, _, _| Some(Box::new(Shout))).unwrap();
    let mut proxy = town.server("10.0.0.8:3128");
    let connect = Connect::to("tls://far.example:443")
        .proxy(http().credentials("ann", "secret"))
        .tls(authority.client().build().unwrap());
    town.raw(
        connect,
        Script::new(|cx, heard| {
            if let Heard::Connected = heard {
                let _ = cx.write(b"hello");
            }
        }),
    );
    let mut tunnels = Tunnels::default();
    tunnels.carry(&mut town, &mut proxy);
    assert_eq!(town.log()[..3], ["connected", "bytes HELLO", "end"]);
}
