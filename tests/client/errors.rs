//! Each way in which connecting, or an exchange, fails by what was asked for or what a server says: its own error.

use super::town::{MILLI, Script, TIMEOUT, Town, handshake, open, peer, switching};
use lodger::client::{ConnectError, ExchangeError, RedirectError, UrlError};
use lodger::http::{AnswerError, ClientRequest, FieldError, RequestError, StatusCode};
use lodger::resolve::ResolveError;
use lodger::sim::{Frame, Reach, World};
use lodger::ws::ProtocolError;
use lodger::ws::opening::{ClientKey, OpeningError};
use lodger::{CloseReason, Connect, Context, Limits, ws};
use std::time::Duration;

const SERVER: &str = "10.0.0.1:80";
const WS: &str = "ws://10.0.0.1/";
const HTTP: &str = "http://10.0.0.1/";

/// Why this is not connected to, when nobody in the world is needed to say so.
fn refused(connect: Connect) -> ConnectError {
    let mut town = Town::new();
    town.ws(connect, Script::quiet());
    town.run();
    assert_eq!(town.descriptors(), 0);
    town.refusal()
}

#[test]
fn each_mistake_in_a_url_is_the_outcome() {
    let long = format!("ws://a/{}", "b".repeat(9000));
    for (url, expected) in [
        ("10.0.0.1", UrlError::NoScheme),
        ("gopher://a/", UrlError::UnknownScheme),
        ("ws:///", UrlError::NoHost),
        ("ws://a b/", UrlError::Character),
        ("ws://a..b/", UrlError::Host),
        ("ws://m\u{fc}nchen.example/", UrlError::HostNotAscii),
        ("tcp://a", UrlError::NoPort),
        ("ws://a:0/", UrlError::Port),
        ("ws+unix:path", UrlError::SocketPath),
        ("ws://ann:secret@a/", UrlError::UserInformation),
        ("ws://a/#b", UrlError::Fragment),
        ("ws://a/<b>", UrlError::Target),
        (&long, UrlError::TooLong),
    ] {
        let error = refused(Connect::to(url));
        assert!(matches!(error, ConnectError::Url(found) if found == expected), "{url}: {error:?}");
        assert!(!error.is_transient() && error.to_string().starts_with("the address cannot be used: "));
    }
}

#[test]
fn each_mistake_in_a_request_is_the_outcome_and_nothing_is_sent() {
    let get = ClientRequest::get;
    for (connect, request, expected) in [
        (Connect::to(HTTP), ClientRequest::new("G T"), RequestError::Method),
        (Connect::to(HTTP), ClientRequest::new("CONNECT"), RequestError::Connect),
        (Connect::to(HTTP), get().target("a"), RequestError::Target),
        (Connect::to(HTTP).host("a b"), get(), RequestError::Host),
        (Connect::to(HTTP), get().field("A b", "c"), RequestError::Field(FieldError::Name)),
        (Connect::to(HTTP).field("A", "b\r\nC: d"), get(), RequestError::Field(FieldError::Value)),
        (Connect::to(HTTP), get().field("Host", "a"), RequestError::Managed),
        (Connect::to(HTTP).field("Expect", "a"), get(), RequestError::Managed),
        (Connect::to(HTTP), ClientRequest::new("TRACE").content(b"a"), RequestError::Content),
    ] {
        let mut town = Town::new();
        let mut server = town.server(SERVER);
        town.http(connect, request, Script::quiet());
        town.run();
        let error = town.refusal();
        assert!(
            matches!(error, ConnectError::Request(found) if found == expected),
            "{expected:?}: {error:?}"
        );
        assert!(!error.is_transient());
        if let Some(peer) = server.accept() {
            assert_eq!(peer.received(), b"");
        }
    }
    for connect in [
        Connect::to(WS).subprotocol("a b"),
        Connect::to(WS).subprotocol("a").subprotocol("a"),
        Connect::to(WS).host("a\r\nb"),
        Connect::to(WS).field("Sec-WebSocket-Key", "a"),
        Connect::to(WS).origin("a\r\nb: c"),
    ] {
        let mut town = Town::new();
        let mut server = town.server(SERVER);
        town.ws(connect.clone(), Script::quiet());
        town.run();
        let error = town.refusal();
        assert!(matches!(error, ConnectError::Request(_)), "{connect:?}: {error:?}");
        if let Some(peer) = server.accept() {
            assert_eq!(peer.received(), b"");
        }
    }
}

#[test]
fn a_name_that_is_not_resolved_says_which_and_why() {
    let failed = || ResolveError::Failed(std::sync::Arc::new(std::io::Error::other("no luck")));
    for (error, transient) in [
        (ResolveError::NotFound, false),
        (ResolveError::Again, true),
        (ResolveError::Busy, true),
        (ResolveError::TimedOut, true),
        (ResolveError::Unsupported, false),
        (failed(), false),
    ] {
        for delay in [Duration::ZERO, 70 * MILLI] {
            let mut town = Town::new();
            town.world.names().fail("a.example", error.clone(), delay);
            town.ws(Connect::to("ws://a.example/"), Script::quiet());
            town.run_for(delay.saturating_sub(MILLI));
            assert_eq!(town.log().is_empty(), !delay.is_zero());
            town.run_for(2 * MILLI);
            let found = town.connect_error();
            let ConnectError::Resolve { name, error: said } = &found else { panic!("{found:?}") };
            assert_eq!((name.as_str(), format!("{said:?}")), ("a.example", format!("{error:?}")));
            assert!(found.is_transient() || !transient, "{found:?}");
        }
    }
}

#[test]
fn a_name_without_addresses_and_one_that_nobody_knows_are_not_found() {
    let mut town = Town::new();
    town.world.names().set("empty.example", [], Duration::ZERO);
    for name in ["empty.example", "unknown.example"] {
        town.ws(Connect::to(format!("ws://{name}/")), Script::quiet());
        town.run();
        let error = town.refusal();
        assert!(matches!(error, ConnectError::Resolve { error: ResolveError::NotFound, .. }), "{error:?}");
    }
    assert_eq!(town.world.names().asked(), 2);
}

#[test]
fn an_address_that_refuses_and_one_that_cannot_be_reached_are_told_apart() {
    for (reach, kind) in [
        (Reach::Refused, std::io::ErrorKind::ConnectionRefused),
        (Reach::Unreachable, std::io::ErrorKind::HostUnreachable),
    ] {
        let mut town = Town::new();
        town.world.reach(&peer(SERVER), reach);
        town.ws(Connect::to(WS), Script::quiet());
        town.run();
        let error = town.refusal();
        let ConnectError::Unreachable(attempts) = &error else { panic!("{error:?}") };
        assert_eq!(attempts.iter().map(|attempt| attempt.error.kind()).collect::<Vec<_>>(), [kind]);
        assert_eq!(attempts[0].peer, peer(SERVER));
        assert!(error.is_transient() && error.to_string().contains(SERVER));
    }
}

#[test]
fn over_the_limit_of_links_there_is_no_connection() {
    let mut town = Town::new();
    let mut context = town.world.builder().max_links(1).build();
    let mut server = town.server(SERVER);
    let (first, second) = (Script::named("first", |_, _| {}), Script::named("second", |_, _| {}));
    context.io().connect_raw(Connect::tcp("10.0.0.1", 80), first);
    town.world.run(&mut context, &mut town.state);
    context.io().connect(Connect::to(WS), second);
    town.world.run(&mut context, &mut town.state);
    assert_eq!(town.log(), ["first: connected", "second: closed: the limit of links is reached"]);
    assert!(matches!(town.connect_error(), ConnectError::Full));
    assert!(server.accept().is_some() && server.accept().is_none());
    town.world.leave(&mut context, &mut town.state);
}

#[test]
fn without_roots_to_trust_there_is_no_tls() {
    let mut town = Town::new();
    let _server = town.server("10.0.0.1:443");
    town.ws(Connect::to("wss://10.0.0.1/"), Script::quiet());
    town.run_for(TIMEOUT + MILLI);
    let error = town.refusal();
    // Not so where a feature brings roots: then it is the server that says nothing.
    if cfg!(not(any(feature = "tls-webpki-roots", feature = "tls-native-roots"))) {
        assert!(matches!(error, ConnectError::TlsConfig(_)), "{error:?}");
        assert!(!error.is_transient());
    }
}

/// What becomes of a client whose opening handshake is answered so.
fn answered(connect: Connect, answer: impl FnOnce(&str) -> String) -> ConnectError {
    let mut town = Town::new();
    let mut server = town.server(SERVER);
    town.ws(connect, Script::quiet());
    let mut peer = town.accept(&mut server);
    let (_, accept) = handshake(&mut peer);
    peer.send(answer(&accept));
    town.run();
    let error = town.refusal();
    assert_eq!(town.descriptors(), 0, "{error:?}");
    assert!(peer.at_end());
    error
}

#[test]
fn each_mistake_in_the_answer_to_the_opening_handshake_is_its_own_error() {
    const UPGRADE: &str = "Upgrade: websocket\r\n";
    const CONNECTION: &str = "Connection: Upgrade\r\n";
    let status = |lines: String| format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n");
    let key = |accept: &str| format!("Sec-WebSocket-Accept: {accept}\r\n");
    type Answer = Box<dyn Fn(&str) -> String>;
    let cases: Vec<(Answer, OpeningError)> = vec![
        (Box::new(|accept| switching(accept, "").replacen("1.1", "1.0", 1)), OpeningError::HttpVersion),
        (Box::new(move |accept| status(format!("{CONNECTION}{}", key(accept)))), OpeningError::NoUpgrade),
        (
            Box::new(move |accept| status(format!("Upgrade: h2c\r\n{CONNECTION}{}", key(accept)))),
            OpeningError::WrongUpgrade("h2c".into()),
        ),
        (
            Box::new(move |accept| status(format!("{UPGRADE}{UPGRADE}{CONNECTION}{}", key(accept)))),
            OpeningError::WrongUpgrade("websocket".into()),
        ),
        (Box::new(move |accept| status(format!("{UPGRADE}{}", key(accept)))), OpeningError::NoConnection),
        (
            Box::new(move |accept| status(format!("{UPGRADE}Connection: close\r\n{}", key(accept)))),
            OpeningError::WrongConnection,
        ),
        (Box::new(move |_| status(format!("{UPGRADE}{CONNECTION}"))), OpeningError::NoAccept),
        (Box::new(|_| switching("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "")), OpeningError::WrongAccept),
        (Box::new(|accept| switching(&accept.to_lowercase(), "")), OpeningError::WrongAccept),
        (Box::new(move |accept| switching(accept, &key(accept))), OpeningError::DoubledAccept),
        (
            Box::new(|accept| switching(accept, "Sec-WebSocket-Protocol: mqtt\r\n")),
            OpeningError::SubprotocolNotOffered("mqtt".into()),
        ),
        (
            Box::new(|accept| switching(accept, "Sec-WebSocket-Protocol: Chat\r\n")),
            OpeningError::SubprotocolNotOffered("Chat".into()),
        ),
        (
            Box::new(|accept| {
                switching(accept, "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n")
            }),
            OpeningError::DoubledSubprotocol,
        ),
        (
            Box::new(|accept| switching(accept, "Sec-WebSocket-Extensions: x-frob; a=b\r\n")),
            OpeningError::ExtensionNotOffered("x-frob".into()),
        ),
        (
            Box::new(|accept| switching(accept, "Sec-WebSocket-Extensions: permessage-deflate\r\n")),
            OpeningError::ExtensionNotOffered("permessage-deflate".into()),
        ),
    ];
    for (answer, expected) in cases {
        let error = answered(Connect::to(WS).subprotocol("chat"), answer);
        assert!(
            matches!(&error, ConnectError::Handshake(found) if *found == expected),
            "{expected:?}: {error:?}"
        );
        assert!(!error.is_transient());
    }
}

#[cfg(feature = "deflate")]
#[test]
fn compression_that_was_not_offered_so_is_an_error_of_its_own() {
    use lodger::ws::deflate::Deflate;
    for value in ["permessage-deflate; server_max_window_bits=99", "permessage-deflate; a=b"] {
        let connect = Connect::to(WS).deflate(Deflate::default());
        let error =
            answered(connect, |accept| switching(accept, &format!("Sec-WebSocket-Extensions: {value}\r\n")));
        assert!(matches!(error, ConnectError::Extension(_)), "{value}: {error:?}");
        assert!(!error.is_transient());
    }
    let twice = "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\n";
    let error = answered(Connect::to(WS).deflate(Deflate::default()), |accept| switching(accept, twice));
    let expected = OpeningError::DoubledExtension("permessage-deflate".into());
    assert!(matches!(&error, ConnectError::Handshake(found) if *found == expected), "{error:?}");
}

#[test]
fn another_status_than_101_comes_with_its_fields() {
    for (line, transient) in [
        ("401 Unauthorized", false),
        ("200 OK", false),
        ("404 Not Found", false),
        ("408 Request Timeout", true),
        ("429 Too Many Requests", true),
        ("503 Service Unavailable", true),
        ("304 Not Modified", false),
    ] {
        let error = answered(Connect::to(WS), |_| {
            format!(
                "HTTP/1.1 {line}\r\nWWW-Authenticate: Basic\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno"
            )
        });
        let ConnectError::Status(refusal) = &error else { panic!("{line}: {error:?}") };
        assert!(line.starts_with(&refusal.status.code().to_string()));
        assert_eq!(refusal.fields.get("retry-after"), Some(&b"7"[..]));
        assert_eq!(refusal.fields.get("WWW-Authenticate"), Some(&b"Basic"[..]));
        assert_eq!(error.is_transient(), transient, "{line}");
    }
    // The answer of one that is asked without a loop (RFC 6455, section 4.1).
    let key = ClientKey::from_random([7; 16]);
    let found = key.check(StatusCode::NOT_FOUND, 1, std::iter::empty(), &[] as &[&str], &[]);
    assert_eq!(found, Err(OpeningError::Status(StatusCode::NOT_FOUND)));
}

#[test]
fn a_handler_may_refuse_the_connection_it_has_asked_for() {
    let mut town = Town::new();
    let mut server = town.server(SERVER);
    let id = town.ws(Connect::to(WS), Script::unwelcoming());
    let mut peer = town.accept(&mut server);
    open(&mut peer, "");
    town.run();
    assert!(matches!(town.connect_error(), ConnectError::Rejected));
    assert_eq!(town.log(), ["connected", "closed: the handler would not have the connection"]);
    assert!(peer.at_end() && town.context.io().conn(id).is_none());
}

/// Every way in which a head is none.
const HEADS: [(&str, AnswerError); 15] = [
    ("SSH-2.0-OpenSSH\r\n", AnswerError::NotHttp),
    ("\x16\x03\x03\0\x05", AnswerError::Tls),
    ("HTTP/2.0 101 OK\r\n\r\n", AnswerError::VersionNotSupported),
    ("HTTP/1.1  200 OK\r\n\r\n", AnswerError::StatusLine),
    ("HTTP/1.1 600 High\r\n\r\n", AnswerError::Status),
    ("HTTP/1.1 200 OK\n\n", AnswerError::LineEnd),
    ("HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", AnswerError::FieldName),
    ("HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", AnswerError::FieldValue),
    ("HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n", AnswerError::ContentLength),
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", AnswerError::SecondContentLength),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        AnswerError::LengthAndCoding,
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", AnswerError::CodingInHttp10),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", AnswerError::TransferCoding),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", AnswerError::CodingNotSupported),
    ("HTTP/1.1 204 No Content\r\nContent-Length: 5, 6\r\n\r\n", AnswerError::ContentLength),
];

#[test]
fn what_is_no_answer_to_the_opening_handshake_says_why_not() {
    for (head, expected) in HEADS {
        let error = answered(Connect::to(WS), |_| head.to_owned());
        let ConnectError::Exchange(ExchangeError::Head(found)) = &error else {
            panic!("{head:?}: {error:?}")
        };
        assert_eq!(*found, expected, "{head:?}");
        assert!(!error.is_transient());
    }
}

#[test]
fn what_is_no_response_to_a_request_says_why_not() {
    for (head, expected) in HEADS {
        let mut town = Town::new();
        let mut server = town.server(SERVER);
        town.http(Connect::to(HTTP), ClientRequest::get(), Script::quiet());
        let mut peer = town.accept(&mut server);
        peer.send(head);
        town.run();
        let ExchangeError::Head(found) = town.exchange_error() else { panic!("{head:?}") };
        assert_eq!(found, expected, "{head:?}");
        assert_eq!(town.descriptors(), 0);
    }
}

#[test]
fn a_head_is_as_long_as_the_limit_at_the_most_and_has_as_many_fields() {
    let limits = || Limits { head: 1000, fields: 10, ..Limits::default() };
    let long = |_: &str| format!("HTTP/1.1 101 OK\r\nA: {}", "b".repeat(1000));
    let many = |_: &str| format!("HTTP/1.1 101 OK\r\n{}\r\n", "a: b\r\n".repeat(11));
    for (answer, expected) in
        [(&long as &dyn Fn(&str) -> String, AnswerError::TooLong), (&many, AnswerError::TooManyFields)]
    {
        let error = answered(Connect::to(WS).limits(limits()), answer);
        let ConnectError::Exchange(ExchangeError::Head(found)) = &error else { panic!("{error:?}") };
        assert_eq!(*found, expected);
    }
    // A bomb in pieces: it is over where the limit is, not where the bomb ends.
    let mut town = Town::new();
    let mut server = town.server(SERVER);
    town.ws(Connect::to(WS), Script::quiet());
    let mut peer = town.accept(&mut server);
    peer.send("HTTP/1.1 101 OK\r\n");
    let mut sent = 0;
    while town.state.log.is_empty() {
        peer.send("a: b\r\n".repeat(100));
        sent += 600;
        town.run();
        assert!(sent <= 17 * 1024);
    }
    let error = town.refusal();
    assert!(matches!(error, ConnectError::Exchange(ExchangeError::Head(AnswerError::TooLong))), "{error:?}");
}

#[test]
fn interim_responses_without_end_are_an_error() {
    for status in ["100 Continue", "103 Early Hints"] {
        let interim = format!("HTTP/1.1 {status}\r\n\r\n");
        let error = answered(Connect::to(WS), |_| interim.repeat(33));
        assert!(matches!(error, ConnectError::Exchange(ExchangeError::Interim)), "{error:?}");

        let mut town = Town::new();
        let mut server = town.server(SERVER);
        town.http(Connect::to(HTTP), ClientRequest::get(), Script::quiet());
        let mut peer = town.accept(&mut server);
        peer.send(interim.repeat(1000));
        town.run();
        assert!(matches!(town.exchange_error(), ExchangeError::Interim));
    }
    // As many as may be are passed over.
    let mut town = Town::new();
    let mut server = town.server(SERVER);
    town.ws(Connect::to(WS), Script::quiet());
    let mut peer = town.accept(&mut server);
    peer.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(32));
    open(&mut peer, "");
    town.run();
    assert_eq!(town.log(), ["connected"]);
}

/// How an exchange ends whose response is this, and nothing after it; `ended` is whether the server ends the connection then.
fn exchange(connect: Connect, response: &str, ended: bool) -> (Vec<String>, CloseReason) {
    let mut town = Town::new();
    let mut server = town.server(SERVER);
    town.http(connect, ClientRequest::get(), Script::quiet());
    let mut peer = town.accept(&mut server);
    peer.send(response);
    if ended {
        peer.finish();
    }
    town.run();
    let log = town.log();
    (log, town.end())
}

#[test]
fn content_that_is_not_what_was_announced_is_an_error() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const FIVE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    for (chunks, what) in [
        ("x\r\n", "a size that is no number"),
        ("1\nab", "a line end without CR"),
        ("1\r\nab\r\n", "more than the size"),
        ("fffffffffffffffff\r\n", "a size that overflows"),
        ("-1\r\n", "a sign"),
        ("0\r\nA b: c\r\n\r\n", "a trailer field without a name"),
    ] {
        let (_, reason) = exchange(Connect::to(HTTP), &format!("{CHUNKED}{chunks}"), false);
        let CloseReason::Exchange(error) = &reason else { panic!("{what}: {reason:?}") };
        assert!(matches!(**error, ExchangeError::Content), "{what}: {error:?}");
        assert!(!reason.is_transient());
    }
    for cut in
        [FIVE, &format!("{FIVE}four"), CHUNKED, &format!("{CHUNKED}5\r\nfour"), &format!("{CHUNKED}0\r\n")]
    {
        let (_, reason) = exchange(Connect::to(HTTP), cut, true);
        let CloseReason::Exchange(error) = &reason else { panic!("{cut:?}: {reason:?}") };
        assert!(matches!(**error, ExchangeError::Truncated), "{cut:?}: {error:?}");
        assert!(reason.is_transient());
    }
    for head in ["HTTP/1.1 200 OK\r\nContent", "H", "HTTP/1.1 100 Continue\r\n\r\nHTTP"] {
        let (_, reason) = exchange(Connect::to(HTTP), head, true);
        let CloseReason::Exchange(error) = &reason else { panic!("{head:?}: {reason:?}") };
        assert!(matches!(**error, ExchangeError::Truncated), "{head:?}: {error:?}");
    }
}

#[test]
fn what_comes_behind_a_response_belongs_to_none() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nlonger",
        "HTTP/1.1 204 No Content\r\n\r\nx",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\nx",
    ] {
        let (log, reason) = exchange(Connect::to(HTTP), response, false);
        let CloseReason::Exchange(error) = &reason else { panic!("{response:?}: {reason:?}") };
        assert!(matches!(**error, ExchangeError::Unsolicited), "{response:?}: {error:?}");
        assert!(log.contains(&"complete".to_owned()), "{log:?}");
    }
    let (_, reason) =
        exchange(Connect::to(HTTP), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false);
    let CloseReason::Exchange(error) = &reason else { panic!("{reason:?}") };
    assert!(matches!(**error, ExchangeError::Unsolicited), "{error:?}");
}

#[test]
fn content_over_the_limit_is_an_error_before_it_is_delivered() {
    let limited = || Connect::to(HTTP).limits(Limits { content: Some(5), ..Limits::default() });
    for (response, heard) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nlonger", vec![]),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
            vec!["response 200", "bytes abc"],
        ),
    ] {
        let (log, reason) = exchange(limited(), response, false);
        let CloseReason::Exchange(error) = &reason else { panic!("{reason:?}") };
        assert!(matches!(**error, ExchangeError::ContentTooLarge), "{error:?}");
        assert_eq!(log[1..log.len() - 1], heard, "{log:?}");
    }
    let (log, _) = exchange(limited(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright", true);
    assert_eq!(log[1..4], ["response 200", "bytes right", "complete"]);
}

#[test]
fn a_redirect_that_cannot_be_followed_says_why() {
    type Expected = fn(&RedirectError) -> bool;
    let cases: [(&str, Expected); 7] = [
        ("", |error| matches!(error, RedirectError::NoLocation)),
        ("Location: /a\r\nLocation: /b\r\n", |error| matches!(error, RedirectError::NoLocation)),
        ("Location: ftp://a/\r\n", |error| matches!(error, RedirectError::Location(UrlError::UnknownScheme))),
        ("Location: tcp://a:1\r\n", |error| matches!(error, RedirectError::Location(UrlError::Redirect))),
        ("Location: http+unix:/run/a:/\r\n", |error| {
            matches!(error, RedirectError::Location(UrlError::Redirect))
        }),
        ("Location: http://a:b@c/\r\n", |error| {
            matches!(error, RedirectError::Location(UrlError::UserInformation))
        }),
        ("Location: /<a>\r\n", |error| matches!(error, RedirectError::Location(UrlError::Target))),
    ];
    for (location, expected) in cases {
        let answer = format!("HTTP/1.1 302 Found\r\n{location}Content-Length: 0\r\n\r\n");
        let error = answered(Connect::to(WS), |_| answer.clone());
        let ConnectError::Exchange(ExchangeError::Redirect(found)) = &error else { panic!("{error:?}") };
        assert!(expected(found), "{location:?}: {found:?}");
        assert!(!error.is_transient());

        let (log, reason) = exchange(Connect::to(HTTP), &answer, false);
        let CloseReason::Exchange(error) = &reason else { panic!("{reason:?}") };
        assert!(
            matches!(&**error, ExchangeError::Redirect(found) if expected(found)),
            "{location:?}: {error:?}"
        );
        assert_eq!(log.len(), 2, "{log:?}");
    }
}

#[test]
fn a_loop_of_redirects_ends_at_the_bound() {
    for most in [1, 5] {
        let mut town = Town::new();
        let mut server = town.server(SERVER);
        town.ws(Connect::to(WS).redirects(most), Script::quiet());
        for _ in 0..=most {
            let mut peer = town.accept(&mut server);
            peer.send("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
        }
        town.run();
        let error = town.refusal();
        let ConnectError::Exchange(ExchangeError::Redirect(RedirectError::TooMany)) = &error else {
            panic!("{error:?}")
        };
        assert!(server.accept().is_none());
        assert_eq!(town.descriptors(), 0);
    }
}

#[test]
fn a_refusal_keeps_values_that_are_not_text() {
    let mut town = Town::new();
    let mut server = town.server(SERVER);
    town.ws(Connect::to(WS), Script::quiet());
    let mut peer = town.accept(&mut server);
    peer.send(b"HTTP/1.1 403 Forbidden\r\nX-Why: gr\xfcn\tund\xff\r\nX-Last: a\r\nContent-Length: 0\r\n\r\n");
    town.run();
    let error = town.refusal();
    let ConnectError::Status(refusal) = &error else { panic!("{error:?}") };
    assert_eq!(refusal.fields.get("x-why"), Some(&b"gr\xfcn\tund\xff"[..]));
    assert_eq!(refusal.fields.get("x-last"), Some(&b"a"[..]));
}

#[test]
fn a_redirect_whose_place_is_not_ascii_says_so() {
    let mut town = Town::new();
    let mut server = town.server(SERVER);
    town.ws(Connect::to(WS).redirects(1), Script::quiet());
    let mut peer = town.accept(&mut server);
    peer.send(b"HTTP/1.1 302 Found\r\nLocation: /gr\xfcn\r\nContent-Length: 0\r\n\r\n");
    town.run();
    let error = town.refusal();
    assert!(
        matches!(
            &error,
            ConnectError::Exchange(ExchangeError::Redirect(RedirectError::Location(UrlError::Target)))
        ),
        "{error:?}"
    );
}

#[test]
fn with_no_redirects_allowed_the_redirect_is_what_the_server_says() {
    let found = "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n";
    let error = answered(Connect::to(WS).redirects(0), |_| found.to_owned());
    let ConnectError::Status(refusal) = &error else { panic!("{error:?}") };
    assert_eq!((refusal.status.code(), refusal.fields.get("Location")), (302, Some(&b"/b"[..])));
    let (log, _) = exchange(Connect::to(HTTP).redirects(0), found, true);
    assert_eq!(log[..3], ["connected", "response 302", "complete"]);
}

#[test]
fn a_server_that_breaks_the_framing_fails_the_websocket() {
    for (bytes, expected) in [
        (Frame::text("hello").masked([1, 2, 3, 4]), ProtocolError::Masking),
        (vec![0xc1, 0], ProtocolError::ReservedBits),
        (vec![0x83, 0], ProtocolError::Opcode),
    ] {
        let mut town = Town::new();
        let mut server = town.server(SERVER);
        town.ws(Connect::to(WS), Script::quiet());
        let mut peer = town.accept(&mut server);
        open(&mut peer, "");
        peer.send(bytes);
        town.run();
        peer.finish();
        town.run();
        let reason = town.end();
        assert!(matches!(reason, CloseReason::Protocol(found) if found == expected), "{reason:?}");
        let sent = peer.take();
        assert_eq!(sent[0], 0x88, "{sent:02x?}");
        assert_eq!(sent[1] & 0x80, 0x80, "what a client sends is masked");
    }
}

#[test]
fn a_conn_that_has_failed_already_is_not_there_any_more() {
    let mut world = World::new(1);
    let mut context: Context<()> = world.builder().build();
    struct Silent;
    impl ws::Handler<()> for Silent {}
    let id = context.io().connect(Connect::to("what"), Box::new(Silent));
    assert!(context.io().conn(id).is_none());
    world.leave(&mut context, &mut ());
}
