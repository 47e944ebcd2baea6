//! WebSockets over real sockets: opening, messages both ways, flow control, closing, timers.

#[path = "support/rig.rs"]
mod rig;
#[path = "support/script.rs"]
mod script;

use lodger::ws::{self, CloseCode, MessageKind};
use lodger::{
    ConnId, Cx, Decision, Flow, Gone, Io, Keepalive, Limits, Peer, Protocol, ProtocolId, Request, Response,
    SendError, Site, http,
};
use rig::{Frame, Rig, State};
use script::{Heard, Script};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn accept(
    mut make: impl FnMut() -> Script + 'static,
) -> impl FnMut(&Request<'_>, &mut State, &mut Io<State>) -> Decision<State> {
    move |_, _, _| Decision::websocket(make())
}

/// A server whose WebSockets do this.
fn server(act: impl Fn(&mut Cx<'_, State>, &Heard) + 'static) -> Rig {
    let act = Rc::new(act);
    Rig::websocket(Limits::default(), move || {
        let act = Rc::clone(&act);
        Script::new(move |cx, heard| act(cx, heard))
    })
}

/// A protocol that writes down its life.
struct Noted(&'static str);

impl Protocol<State> for Noted {
    fn started(&mut self, id: ProtocolId, state: &mut State, io: &mut Io<State>) {
        assert_eq!(io.conns_of(id).count(), 0);
        state.protocol = Some(id);
        state.log.push(format!("{} started", self.0));
    }
    fn accept(&mut self, _: &Request<'_>, _: &mut State, _: &mut Io<State>) -> Decision<State> {
        Decision::websocket(Script::echo())
    }
    fn ended(&mut self, state: &mut State, _: &mut Io<State>) {
        state.log.push(format!("{} ended", self.0));
    }
}

// Protocols and sites.

fn three_protocols() -> Site<State> {
    let first = |request: &Request<'_>, _: &mut State, _: &mut Io<State>| match request.is_websocket() {
        true => Decision::websocket(Script::echo().named("first")),
        false => Decision::respond(Response::text("plain")),
    };
    Site::new()
        .protocol("first", first)
        .protocol("chat", accept(|| Script::echo().named("chat")))
        .protocol("news", accept(|| Script::echo().named("news")))
}

#[test]
fn the_first_of_the_clients_subprotocols_that_the_site_has_gets_the_connection() {
    let mut rig = Rig::site(three_protocols());
    for (offered, chosen) in [
        ("chat", "chat"),
        ("news, chat", "news"),
        ("chat, news", "chat"),
        ("unknown, chat", "chat"),
        ("CHAT, news", "news"),
        ("news, first", "news"),
        ("first", "first"),
    ] {
        let client = rig.connect();
        client.upgrade("/", &format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        let head = rig.head(&client);
        assert_eq!((head.status, head.field("sec-websocket-protocol")), (101, Some(chosen)), "{offered}");
        client.text("x");
        assert_eq!(rig.frame(&client), Frame::text("x"));
        assert!(rig.log().ends_with(&[format!("{chosen}: opened"), format!("{chosen}: text x")]));
    }
    let client = rig.connect();
    client.upgrade("/", "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, news\r\n");
    assert_eq!(rig.head(&client).field("sec-websocket-protocol"), Some("news"));
}

#[test]
fn the_first_protocol_gets_unknown_subprotocols_none_and_plain_http() {
    let mut rig = Rig::site(three_protocols());
    for fields in ["", "Sec-WebSocket-Protocol: unknown\r\n", "Sec-WebSocket-Protocol: a, b\r\n"] {
        let client = rig.connect();
        client.upgrade("/", fields);
        let head = rig.head(&client);
        assert_eq!((head.status, head.field("sec-websocket-protocol")), (101, None), "{fields}");
        assert_eq!(rig.log().last().unwrap(), "first: opened");
    }
    let client = rig.connect();
    client.get("/");
    assert_eq!(rig.answer(&client).text(), "plain");
}

#[test]
fn a_handler_has_its_own_data_for_each_connection() {
    let mut rig = Rig::websocket(Limits::default(), || {
        let mut count = 0;
        Script::new(move |cx, heard| {
            if let Heard::Text(_) = heard {
                count += 1;
                let _ = cx.send(format!("{count}").as_str());
            }
        })
    });
    let (one, two) = (rig.open(), rig.open());
    for client in [&one, &one, &two] {
        client.text("count");
    }
    assert_eq!([rig.frame(&one), rig.frame(&one)], [Frame::text("1"), Frame::text("2")]);
    assert_eq!(rig.frame(&two), Frame::text("1"));
}

#[test]
fn a_protocol_is_started_once_and_ended_once_when_its_site_is_gone() {
    let mut rig = Rig::site(Site::new().protocol("a", Noted("a")).protocol("b", Noted("b")));
    assert_eq!(rig.log(), ["a started", "b started"]);
    let (one, two) = (rig.open(), rig.open_with("/", "Sec-WebSocket-Protocol: b\r\n"));
    let idle = rig.connect();
    rig.run();
    assert_eq!(rig.log(), ["opened", "opened"]);
    let site = rig.site;
    rig.io().remove_site(site);
    assert!(matches!(
        rig.io().listen(lodger::Listen::tcp(([127, 0, 0, 1], 0)), site),
        Err(lodger::ListenError::NoSite)
    ));
    assert_eq!(rig.frame(&one), Frame::close(1001, ""));
    assert_eq!(rig.frame(&two), Frame::close(1001, ""));
    assert_eq!(rig.log(), [] as [&str; 0]);
    for client in [one, two] {
        client.frame(&Frame::close(1001, ""));
        rig.end(&client);
    }
    // It has so long for its first request.
    rig.advance(Limits::default().closing);
    rig.end(&idle);
    rig.until("the end of the site", |rig| rig.state.log.len() >= 4);
    let log = rig.log();
    assert_eq!(log[..2], ["closed: by us 1001 ", "closed: by us 1001 "]);
    assert_eq!(log[2..], ["a ended", "b ended"]);
    assert_eq!(rig.io().link_count(), 0);
}

#[test]
fn the_protocols_of_a_context_that_leaves_are_ended_after_its_connections() {
    let mut rig = Rig::site(Site::new().protocol("a", Noted("a")));
    let client = rig.open();
    rig.log();
    rig.host.leave(&mut rig.context, &mut rig.state);
    assert_eq!(rig.log(), ["closed: Leaving", "a ended"]);
    assert_eq!(rig.frames(&client), [Frame::close(1001, "")]);
}

#[test]
fn a_parent_hears_of_the_end_of_its_child() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Text(_) => {
            let parent = cx.data.conns[0];
            cx.conn().set_parent(parent);
        }
        Heard::ChildClosed(child) => {
            assert_eq!(*child, cx.data.conns[1]);
            assert!(cx.io.conn(*child).is_none());
            let _ = cx.send("my child");
        }
        _ => {}
    });
    let (parent, child) = (rig.open(), rig.open());
    child.text("mine");
    rig.until_logged("text mine");
    child.reset();
    assert_eq!(rig.frame(&parent), Frame::text("my child"));
    assert_eq!(rig.log().iter().filter(|line| *line == "child closed").count(), 1);
}

// Filters.

#[test]
fn a_peer_that_the_filter_refuses_is_dropped_before_a_byte_is_read_or_sent() {
    struct Door;
    impl Protocol<State> for Door {
        fn filter(&mut self, peer: &Peer, state: &mut State) -> bool {
            assert!(peer.is_local());
            state.log.push(peer.inet().unwrap().to_string());
            state.log.len() != 1
        }
        fn accept(&mut self, _: &Request<'_>, _: &mut State, _: &mut Io<State>) -> Decision<State> {
            Decision::respond(Response::text("in"))
        }
    }
    let mut rig = Rig::site(Site::new().protocol("", Door));
    let refused = rig.connect();
    rig.end(&refused);
    assert_eq!(refused.take(), b"");
    let welcome = rig.connect();
    welcome.get("/");
    assert_eq!(rig.answer(&welcome).text(), "in");
    assert_eq!(rig.log(), [refused.address().to_string(), welcome.address().to_string()]);
}

#[test]
fn accept_sees_every_field_and_may_refuse_with_a_status_and_fields_of_its_own() {
    let site = Site::new().protocol("", |request: &Request<'_>, state: &mut State, _: &mut Io<State>| {
        assert!(request.is_websocket());
        assert_eq!((request.method(), request.path(), request.query()), ("GET", "/a", Some("b=c")));
        assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["x"]);
        state.log.push(request.text("cookie").unwrap().to_owned());
        let response = Response::text("who are you?").status(http::StatusCode::UNAUTHORIZED);
        Decision::respond(response.field("WWW-Authenticate", "Basic realm=\"here\""))
    });
    let mut rig = Rig::site(site);
    let client = rig.connect();
    client.upgrade("/a?b=c", "Cookie: name=value\r\nSec-WebSocket-Protocol: x\r\n");
    let answer = rig.answer(&client);
    assert_eq!((answer.status, answer.text()), (401, "who are you?"));
    assert_eq!(answer.field("www-authenticate"), Some("Basic realm=\"here\""));
    assert_eq!(rig.log(), ["name=value"]);
    // It is a response like any other: the connection goes on.
    client.upgrade("/a?b=c", "Cookie: other\r\nSec-WebSocket-Protocol: x\r\n");
    assert_eq!(rig.answer(&client).status, 401);
}

#[test]
fn the_fields_of_the_request_are_readable_when_it_opens() {
    struct Reader;
    impl ws::Handler<State> for Reader {
        fn opened(&mut self, cx: &mut Cx<'_, State>, request: &Request<'_>) {
            let peer = cx.conn().peer().unwrap();
            assert_eq!(Some(&peer), Some(request.peer()));
            assert_eq!(request.id(), cx.id());
            let agent = request.text("user-agent").unwrap().to_owned();
            let _ = cx.send(format!("{} {agent}", request.target()).as_str());
        }
    }
    let accept = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::websocket(Reader);
    let mut rig = Rig::site(Site::new().protocol("", accept));
    let client = rig.open_with("/room?x", "User-Agent: test\r\n");
    assert_eq!(rig.frame(&client), Frame::text("/room?x test"));
}

#[test]
fn an_accepted_upgrade_may_have_fields_of_its_own_and_another_subprotocol() {
    let site = Site::new().protocol("", |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
        ws::Accept::new(Script::echo())
            .field("Set-Cookie", "a=1; HttpOnly")
            .field("set-cookie", "b=2")
            .subprotocol(Some("v2"))
            .into()
    });
    let mut rig = Rig::site(site);
    let client = rig.connect();
    client.upgrade("/", "Sec-WebSocket-Protocol: v1, v2\r\n");
    let head = rig.head(&client);
    assert_eq!((head.status, head.field("sec-websocket-protocol")), (101, Some("v2")));
    let cookies = head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    assert_eq!(cookies.map(|(_, value)| &value[..]).collect::<Vec<_>>(), ["a=1; HttpOnly", "b=2"]);
    client.text("hi");
    assert_eq!(rig.frame(&client), Frame::text("hi"));
}

#[test]
fn an_upgrade_accepted_with_what_must_not_be_sent_is_answered_with_500() {
    let bad: [fn(ws::Accept<State>) -> ws::Accept<State>; 8] = [
        |accept| accept.field("X", "a\r\nSet-Cookie: stolen"),
        |accept| accept.field("X\r\nSet-Cookie", "stolen"),
        |accept| accept.field("X", "nul\0"),
        |accept| accept.field("Connection", "close"),
        |accept| accept.field("Sec-WebSocket-Accept", "x"),
        |accept| accept.field("Sec-WebSocket-Protocol", "x"),
        |accept| accept.subprotocol(Some("never offered")),
        |accept| accept.subprotocol(Some("v1\r\nX: y")),
    ];
    for spoil in bad {
        let site = Site::new().protocol("", move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| {
            spoil(ws::Accept::new(Script::quiet())).into()
        });
        let mut rig = Rig::site(site);
        let client = rig.connect();
        client.upgrade("/", "Sec-WebSocket-Protocol: v1\r\n");
        let answer = rig.answer(&client);
        assert_eq!((answer.status, answer.field("set-cookie")), (500, None));
        assert_eq!(rig.log(), [] as [&str; 0]);
    }
}

// The opening handshake's checks (RFC 6455, section 4.2.1).

#[test]
fn each_check_of_the_opening_handshake_has_its_status() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let asks = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let get = "GET / HTTP/1.1\r\nHost: a\r\n";
    let cases = [
        (format!("{get}{asks}{version}"), 400),
        (format!("{get}{asks}{version}Sec-WebSocket-Key: \r\n"), 400),
        (format!("{get}{asks}{version}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n"), 400),
        (format!("{get}{asks}{version}Sec-WebSocket-Key: not base64 at all !!!==\r\n"), 400),
        (format!("{get}{asks}{version}{key}{key}"), 400),
        (format!("{get}{asks}{key}"), 426),
        (format!("{get}{asks}{key}Sec-WebSocket-Version: 8\r\n"), 426),
        (format!("{get}{asks}{key}Sec-WebSocket-Version: 14\r\n"), 426),
        (format!("{get}{asks}{key}Sec-WebSocket-Version: 13, 8\r\n"), 426),
        (format!("{get}{asks}{key}{version}{version}"), 400),
        (format!("{get}{asks}{key}{version}Sec-WebSocket-Protocol: a b\r\n"), 400),
        (format!("{get}{asks}{key}{version}Sec-WebSocket-Protocol: a, a\r\n"), 400),
        // What does not ask for a WebSocket gets what the protocol says to plain HTTP: here, that it is only for those.
        (format!("{get}Upgrade: websocket\r\n{key}{version}"), 426),
        (format!("{get}Connection: Upgrade\r\n{key}{version}"), 426),
        (format!("{get}Upgrade: websocket\r\nConnection: keep-alive\r\n{key}{version}"), 426),
        (format!("{get}Upgrade: websockets\r\nConnection: Upgrade\r\n{key}{version}"), 426),
        (format!("POST / HTTP/1.1\r\nHost: a\r\n{asks}{key}{version}"), 426),
        (format!("GET / HTTP/1.0\r\nHost: a\r\n{asks}{key}{version}"), 426),
        (format!("GET / HTTP/1.1\r\n{asks}{key}{version}"), 400),
        (format!("{get}Host: b\r\n{asks}{key}{version}"), 400),
        (format!("{get}{asks}{key}{version}"), 101),
        (format!("{get}UPGRADE: h2c, WebSocket\r\nconnection: x, UPGRADE\r\n{key}{version}"), 101),
    ];
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    for (request, status) in cases {
        let client = rig.connect();
        client.send(format!("{request}\r\n"));
        let answer = rig.head(&client);
        assert_eq!(answer.status, status, "{request}");
        let opened = rig.log().iter().any(|line| line == "opened");
        assert_eq!(opened, status == 101, "{request}");
        if status == 426 {
            assert_eq!(answer.field("upgrade"), Some("websocket"), "{request}");
        }
    }
}

#[test]
fn another_version_gets_426_with_version_13() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let client = rig.connect();
    client.send(rig::upgrade("/", "").replace("Version: 13", "Version: 7"));
    let answer = rig.answer(&client);
    assert_eq!((answer.status, answer.field("sec-websocket-version")), (426, Some("13")));
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert!(answer.field("connection").unwrap().contains("upgrade"));
    // The client may try again with what we speak (RFC 6455, section 4.4).
    client.upgrade("/", "");
    assert_eq!(rig.head(&client).status, 101);
}

#[test]
fn a_handshake_split_at_every_byte_is_accepted_and_frames_behind_it_are_heard() {
    let mut rig = Rig::websocket(Limits::default(), Script::echo);
    let bytes = [rig::upgrade("/", "").into_bytes(), Frame::text("early").masked()].concat();
    let whole = rig.connect();
    whole.send(&bytes);
    assert_eq!(rig.head(&whole).status, 101);
    assert_eq!(rig.frame(&whole), Frame::text("early"));
    for split in (1..bytes.len()).step_by(3) {
        let client = rig.connect();
        client.send(&bytes[..split]);
        rig.turn(0);
        rig.turn(0);
        client.send(&bytes[split..]);
        assert_eq!(rig.head(&client).status, 101, "{split}");
        assert_eq!(rig.frame(&client), Frame::text("early"));
    }
}

// Origins and Host names.

fn with_origins(origins: lodger::Origins) -> Rig {
    Rig::site(Site::new().protocol("", accept(Script::quiet)).origins(origins))
}

fn status_for_origin(rig: &mut Rig, fields: &str) -> u16 {
    let client = rig.connect();
    client.upgrade("/", fields);
    rig.head(&client).status
}

#[test]
fn pages_of_other_origins_are_refused_unless_they_are_listed() {
    use lodger::Origins::{Any, List, Same};
    let foreign = "Origin: https://evil.example\r\n";
    let own = "Origin: http://localhost\r\n";
    let twice = "Origin: http://localhost\r\nOrigin: http://localhost\r\n";
    for (origins, fields, status) in [
        (Same, "", 101),
        (Same, own, 101),
        (Same, "Origin: http://LOCALHOST:80\r\n", 101),
        (Same, "Origin: http://localhost:81\r\n", 403),
        (Same, foreign, 403),
        (Same, "Origin: null\r\n", 403),
        (Same, twice, 403),
        (List(vec!["https://good.example".to_owned()]), "", 101),
        (List(vec!["https://good.example".to_owned()]), "Origin: https://good.example\r\n", 101),
        (List(vec!["https://good.example".to_owned()]), "Origin: http://good.example\r\n", 403),
        (List(vec!["https://good.example".to_owned()]), own, 403),
        (List(Vec::new()), foreign, 403),
        (Any, foreign, 101),
        (Any, "Origin: null\r\n", 101),
    ] {
        let shown = format!("{origins:?} {fields}");
        let mut rig = with_origins(origins);
        assert_eq!(status_for_origin(&mut rig, fields), status, "{shown}");
    }
}

#[test]
fn a_site_with_names_answers_to_no_other() {
    let site = Site::new().protocol("", accept(Script::quiet)).hosts(["localhost", "here.example"]);
    let mut rig = Rig::site(site);
    for (host, status) in [
        ("localhost", 101),
        ("localhost:8080", 101),
        ("HERE.example", 101),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1", 421),
    ] {
        let client = rig.connect();
        client.send(rig::upgrade("/", "").replace("Host: localhost", &format!("Host: {host}")));
        assert_eq!(rig.head(&client).status, status, "{host}");
        let client = rig.connect();
        client.send(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(rig.head(&client).status, if status == 101 { 426 } else { 421 }, "{host}");
    }
    let client = rig.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(rig.head(&client).status, 421);
}

// Decisions that come later.

fn undecided() -> Rig {
    Rig::site(Site::new().protocol("v1", |request: &Request<'_>, state: &mut State, _: &mut Io<State>| {
        state.conns.push(request.id());
        state.log.push(format!("asked {}", request.target()));
        Decision::Later
    }))
}

#[test]
fn a_decision_may_come_later() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "Sec-WebSocket-Protocol: v1\r\n");
    client.text("early");
    rig.until_logged("asked /a");
    rig.advance(SECOND * 9);
    assert_eq!(client.received(), b"");
    let id = rig.state.conns[0];
    rig.io().decide(id, Decision::websocket(Script::echo())).unwrap();
    let head = rig.head(&client);
    assert_eq!((head.status, head.field("sec-websocket-protocol")), (101, Some("v1")));
    assert_eq!(rig.frame(&client), Frame::text("early"));
    assert_eq!(rig.state.conns, [id, id], "the conn keeps its name");
    // The limit was for the decision.
    rig.advance(SECOND * 60);
    client.text("late");
    assert_eq!(rig.frame(&client), Frame::text("late"));
}

#[test]
fn a_later_decision_may_be_a_response_or_an_http_handler() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "");
    rig.until_logged("asked /a");
    let id = rig.state.conns[0];
    let refusal = Response::text("no").status(http::StatusCode::FORBIDDEN);
    rig.io().decide(id, Decision::respond(refusal)).unwrap();
    assert_eq!(rig.answer(&client).status, 403);
    client.send("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\ncontent");
    rig.until_logged("asked /b");
    let id = rig.state.conns[1];
    let handler = Script::new(|cx, heard| {
        if let Heard::Complete(_) = heard {
            let _ = cx.respond(Response::text("done"));
        }
    });
    rig.io().decide(id, Decision::http(handler)).unwrap();
    assert_eq!(rig.answer(&client).text(), "done");
    rig.until_logged("closed: Completed");
    let heard = ["POST /b", "bytes content", "complete", "closed: Completed"];
    assert_eq!(rig.log()[2..], heard);
    client.get("/c");
    rig.until_logged("asked /c");
    let id = rig.state.conns[3];
    rig.io().decide(id, Decision::websocket(Script::quiet())).unwrap();
    assert_eq!(rig.answer(&client).status, 426);
}

#[test]
fn a_request_without_a_decision_gets_503_at_the_limit_and_not_before() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "");
    rig.until_logged("asked /a");
    rig.advance(SECOND * 10 - MILLI);
    assert_eq!(client.received(), b"");
    rig.advance(MILLI);
    assert_eq!(rig.answer(&client).status, 503);
    rig.end(&client);
    let id = rig.state.conns[0];
    assert_eq!(rig.io().decide(id, Decision::websocket(Script::quiet())), Err(Gone));
}

#[test]
fn an_event_for_a_request_that_is_not_decided_is_refused_and_not_lost() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/", "Sec-WebSocket-Protocol: v1\r\n");
    rig.until_logged("asked /");
    let id = rig.state.conns[0];
    assert_eq!(rig.io().notify(id, Box::new("too early")), Err(Gone));
    rig.io().decide(id, Decision::websocket(Script::quiet())).unwrap();
    assert_eq!(rig.head(&client).status, 101);
    assert_eq!(rig.io().notify(id, Box::new("in time")), Ok(()));
}

#[test]
fn a_decision_for_a_peer_that_has_gone_is_told_so() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "");
    rig.until_logged("asked /a");
    let id = rig.state.conns[0];
    client.reset();
    rig.until("the end", |rig| rig.io().link_count() == 1);
    assert_eq!(rig.io().decide(id, Decision::websocket(Script::quiet())), Err(Gone));
    rig.run();
    assert_eq!(rig.log(), ["asked /a"]);
}

#[test]
fn only_the_first_decision_counts() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "");
    rig.until_logged("asked /a");
    let id = rig.state.conns[0];
    assert_eq!(rig.io().decide(id, Decision::websocket(Script::echo())), Ok(()));
    assert_eq!(rig.io().decide(id, Decision::respond(Response::text("no"))), Err(Gone));
    assert_eq!(rig.head(&client).status, 101);
    assert_eq!(rig.io().decide(id, Decision::respond(Response::text("no"))), Err(Gone));
}

#[test]
fn a_decision_may_be_put_off_again_and_has_its_time_again() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "");
    rig.until_logged("asked /a");
    rig.advance(SECOND * 9);
    let id = rig.state.conns[0];
    assert_eq!(rig.io().decide(id, Decision::Later), Ok(()));
    rig.advance(SECOND * 9);
    assert_eq!(rig.io().decide(id, Decision::websocket(Script::quiet())), Ok(()));
    assert_eq!(rig.head(&client).status, 101);
}

#[test]
fn pausing_a_request_without_a_decision_does_not_lift_its_limit() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "");
    rig.until_logged("asked /a");
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().pause();
    rig.advance(SECOND * 10);
    assert_eq!(rig.answer(&client).status, 503);
}

#[test]
fn a_request_without_a_decision_can_be_closed_and_aborted() {
    let mut rig = undecided();
    let client = rig.connect();
    client.upgrade("/a", "");
    rig.until_logged("asked /a");
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().close();
    assert_eq!(rig.io().decide(id, Decision::websocket(Script::quiet())), Err(Gone));
    rig.end(&client);
    assert_eq!(client.received(), b"");
    let client = rig.connect();
    client.upgrade("/b", "");
    rig.until_logged("asked /b");
    let id = rig.state.conns[1];
    rig.io().conn(id).unwrap().abort();
    rig.until("the reset", |_| client.was_reset());
}

#[test]
fn accept_may_decide_by_a_task_that_runs_at_once() {
    let site = Site::new().protocol("", |request: &Request<'_>, _: &mut State, io: &mut Io<State>| {
        let id = request.id();
        io.after(Duration::ZERO, move |_, io| io.decide(id, Decision::websocket(Script::echo())).unwrap());
        Decision::Later
    });
    let mut rig = Rig::site(site);
    let client = rig.open();
    client.text("x");
    assert_eq!(rig.frame(&client), Frame::text("x"));
}

// Receiving.

#[test]
fn messages_of_every_length_class_come_whole_whatever_the_fragments() {
    let mut rig = Rig::websocket(Limits::default(), Script::echo);
    let client = rig.open();
    for length in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        client.frame(&Frame::binary(&payload));
        assert_eq!(rig.frame(&client), Frame::binary(&payload), "{length}");
    }
    client.frame(&Frame::new(false, 1, "Hel"));
    client.frame(&Frame::ping("between"));
    client.frame(&Frame::new(false, 0, "lo, "));
    client.frame(&Frame::pong("unasked"));
    client.frame(&Frame::new(true, 0, "wörld"));
    assert_eq!(rig.frame(&client), Frame::pong("between"));
    assert_eq!(rig.frame(&client), Frame::text("Hello, wörld"));
    let log = rig.log();
    let rest: Vec<_> = log.iter().filter(|line| !line.starts_with("binary")).collect();
    assert_eq!(rest, ["opened", "ping between", "pong unasked", "text Hello, wörld"]);
}

#[test]
fn pieces_say_where_they_stand_in_message_and_frame() {
    let mut rig = Rig::websocket(Limits::default(), || Script::quiet().in_pieces());
    let client = rig.open();
    client.frame(&Frame::text("one"));
    rig.until_logged("piece one first last 0 final");
    client.frame(&Frame::new(false, 2, "ab"));
    client.frame(&Frame::ping("p"));
    let last = Frame::new(true, 0, "cdef").masked();
    client.send(&last[..8]);
    rig.until_logged("piece cd 2 final");
    client.send(&last[8..]);
    rig.until_logged("piece ef last 0 final");
    let expected = [
        "opened",
        "piece one first last 0 final",
        "piece ab first 0",
        "ping p",
        "piece cd 2 final",
        "piece ef last 0 final",
    ];
    assert_eq!(rig.log(), expected);
    client.frame(&Frame::text(""));
    rig.until_logged("piece  first last 0 final");
}

#[test]
fn text_that_is_not_utf8_fails_the_connection_at_the_first_wrong_byte() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let client = rig.open();
    // The frame is announced longer than what comes.
    let frame = Frame::new(true, 1, [b'a', 0xce, 0xba, 0xed, 0xa0, 0x80, b'b', b'c']).masked();
    client.send(&frame[..frame.len() - 2]);
    let frames = rig.frames(&client);
    assert_eq!(frames[0].close_code(), Some(1007));
    client.finish();
    rig.until_logged("closed: Protocol(InvalidUtf8)");
}

#[test]
fn what_breaks_the_protocol_fails_the_connection_with_1002() {
    let cases: [(Vec<u8>, &str); 9] = [
        (Frame::text("x").unmasked(), "Masking"),
        (Frame::new(true, 3, "x").masked(), "Opcode"),
        (Frame::new(true, 11, "x").masked(), "Opcode"),
        (Frame::new(false, 9, "x").masked(), "FragmentedControl"),
        (Frame::ping(vec![0; 126]).masked(), "LongControl"),
        (Frame::new(true, 0, "x").masked(), "ContinuationWithoutStart"),
        ([Frame::new(false, 1, "x").masked(), Frame::text("y").masked()].concat(), "MessageWithinMessage"),
        (Frame::new(true, 8, [3]).masked(), "CloseTooShort"),
        (Frame::close(1005, "").masked(), "CloseCode"),
    ];
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    for (bytes, error) in cases {
        let client = rig.open();
        client.send(&bytes);
        // Nothing behind it is looked at.
        client.text("after");
        let frames = rig.frames(&client);
        assert_eq!(frames.iter().map(Frame::close_code).collect::<Vec<_>>(), [Some(1002)], "{error}");
        client.finish();
        rig.until_logged(&format!("closed: Protocol({error})"));
        assert!(!rig.log().iter().any(|line| line.starts_with("text")), "{error}");
    }
}

#[test]
fn a_frame_that_announces_too_much_is_refused_before_its_payload_has_come() {
    let limits = Limits { message: 10, ..Limits::default() };
    let mut rig = Rig::websocket(limits, Script::echo);
    let client = rig.open();
    client.frame(&Frame::binary("0123456789"));
    assert_eq!(rig.frame(&client), Frame::binary("0123456789"));
    client.send(&Frame::binary("0123456789a").masked()[..6]);
    let frames = rig.frames(&client);
    assert_eq!(frames.iter().map(Frame::close_code).collect::<Vec<_>>(), [Some(1009)]);
    client.finish();
    rig.until_logged("closed: TooLarge");
    assert_eq!(rig.log()[2..], ["too large 11 10", "closed: TooLarge"]);
}

#[test]
fn fragments_that_are_too_much_together_are_refused() {
    let limits = Limits { message: 10, ..Limits::default() };
    let mut rig = Rig::websocket(limits, Script::echo);
    let client = rig.open();
    client.frame(&Frame::new(false, 2, "01234"));
    client.frame(&Frame::new(false, 0, "56789"));
    client.frame(&Frame::new(true, 0, ""));
    assert_eq!(rig.frame(&client), Frame::binary("0123456789"));
    client.frame(&Frame::new(false, 2, "01234"));
    client.frame(&Frame::new(false, 0, "567890"));
    assert_eq!(rig.frame(&client).close_code(), Some(1009));
    client.finish();
    rig.until_logged("closed: TooLarge");
    assert_eq!(rig.log()[2..], ["too large 11 10", "closed: TooLarge"]);
}

#[test]
fn pieces_are_bounded_by_the_frame_limit_and_not_by_the_message_limit() {
    let limits = Limits { message: 4, frame: Some(10), ..Limits::default() };
    let mut rig = Rig::websocket(limits, || Script::quiet().in_pieces());
    let client = rig.open();
    client.frame(&Frame::new(false, 2, "0123456789"));
    client.frame(&Frame::new(true, 0, "0123456789"));
    rig.until_logged("piece 0123456789 last 0 final");
    client.frame(&Frame::new(true, 2, "0123456789a"));
    assert_eq!(rig.frame(&client).close_code(), Some(1009));
    rig.until_logged("too large 11 10");
}

// Sending.

#[test]
fn a_message_sent_in_pieces_arrives_in_fragments_with_control_frames_between() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            let shared = cx.io.encode("shared");
            let mut conn = cx.conn();
            assert_eq!(conn.send_piece(MessageKind::Text, "Gr\u{fc}".as_bytes(), false), Ok(Flow::Ready));
            assert_eq!(conn.ping(b"!"), Ok(Flow::Ready));
            assert_eq!(conn.pong(b"?"), Ok(Flow::Ready));
            assert_eq!(conn.send("whole"), Err(SendError::InMessage));
            assert_eq!(conn.send_piece(MessageKind::Binary, b"", false), Err(SendError::InMessage));
            assert_eq!(conn.send_piece(MessageKind::Text, b"\xff", false), Err(SendError::InvalidUtf8));
            // A character may be split between pieces, but not at the end.
            assert_eq!(conn.send_piece(MessageKind::Text, b"\xc3", true), Err(SendError::InvalidUtf8));
            assert_eq!(conn.send_piece(MessageKind::Text, b"\xc3", false), Ok(Flow::Ready));
            // A frame for many waits for the end of the message.
            assert_eq!(conn.send_shared(&shared), Ok(Flow::Full));
            assert_eq!(conn.send_piece(MessageKind::Text, b"\x9f", true), Ok(Flow::Ready));
            assert_eq!(conn.send("after"), Ok(Flow::Ready));
            assert_eq!(conn.ping(&[0; 126]), Err(SendError::ControlTooLong));
        }
    });
    let client = rig.open();
    client.text("go");
    let expected = [
        Frame::new(false, 1, "Gr\u{fc}"),
        Frame::ping("!"),
        Frame::pong("?"),
        Frame::new(false, 0, [0xc3]),
        Frame::new(true, 0, [0x9f]),
        Frame::text("shared"),
        Frame::text("after"),
    ];
    for frame in expected {
        assert_eq!(rig.frame(&client), frame);
    }
}

#[test]
fn what_belongs_to_other_roles_is_refused_on_a_websocket() {
    let mut rig = server(|cx, heard| {
        if let Heard::Opened = heard {
            assert_eq!(cx.write(b"x"), Err(SendError::Role));
            assert_eq!(cx.respond(Response::text("x")), Err(SendError::Role));
            assert_eq!(cx.conn().end_response(), Err(SendError::Role));
        }
    });
    let client = rig.open();
    rig.until_logged("opened");
    drop(client);
}

#[test]
fn pings_are_answered_and_pongs_are_heard() {
    let mut rig = server(|cx, heard| {
        if let Heard::Ping(_) = heard {
            assert_eq!(cx.conn().ping(b"and you?"), Ok(Flow::Ready));
        }
    });
    let client = rig.open();
    client.frame(&Frame::ping("are you there?"));
    assert_eq!(rig.frame(&client), Frame::pong("are you there?"));
    assert_eq!(rig.frame(&client), Frame::ping("and you?"));
    client.frame(&Frame::pong("and you?"));
    rig.until_logged("pong and you?");
}

// Writable.

#[test]
fn writable_comes_in_the_same_turn_without_a_word_to_the_host() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Text(_) => cx.conn().request_writable(),
        Heard::Writable => drop(cx.send("now")),
        _ => {}
    });
    let client = rig.open();
    rig.run();
    let before = rig.host.audit.counts();
    client.text("go");
    // One turn: the message, the request, and the event.
    while rig.state.log.last().unwrap() != "writable" {
        assert!(!rig.state.log.contains(&"text go".to_owned()), "another turn was needed");
        rig.turn(5);
    }
    assert_eq!(rig.frame(&client), Frame::text("now"));
    assert_eq!(rig.host.audit.counts().since(&before).host_calls(), 0);
}

#[test]
fn writable_after_full_comes_when_the_queue_has_emptied() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Text(_) => {
            while cx.send(&[7; 30_000][..]) == Ok(Flow::Ready) {}
            assert_eq!(cx.conn().room(), 0);
            cx.conn().request_writable();
        }
        Heard::Writable => {
            assert!(cx.conn().room() >= 32 * 1024);
            assert!(cx.conn().queued() <= 32 * 1024);
        }
        _ => {}
    });
    let client = rig.open();
    client.stop_reading();
    client.text("fill");
    rig.until_logged("text fill");
    rig.run();
    assert_eq!(rig.log(), ["opened", "text fill"]);
    client.resume_reading();
    rig.until_logged("writable");
    rig.run();
    assert_eq!(rig.log(), ["writable"], "one event for one request");
}

#[test]
fn every_member_of_a_protocol_can_be_asked_for_writable_paused_and_resumed() {
    struct Members;
    impl Protocol<State> for Members {
        fn started(&mut self, id: ProtocolId, state: &mut State, _: &mut Io<State>) {
            state.protocol = Some(id);
        }
        fn accept(&mut self, _: &Request<'_>, _: &mut State, _: &mut Io<State>) -> Decision<State> {
            Decision::websocket(Script::quiet())
        }
    }
    let mut rig = Rig::site(Site::new().protocol("m", Members).protocol("o", accept(Script::quiet)));
    let members = [rig.open(), rig.open(), rig.open()];
    let other = rig.open_with("/", "Sec-WebSocket-Protocol: o\r\n");
    rig.log();
    let protocol = rig.state.protocol.unwrap();
    assert_eq!(rig.io().conns_of(protocol).collect::<Vec<_>>(), rig.state.conns[..3]);
    rig.io().request_writable_all(protocol);
    rig.run();
    assert_eq!(rig.log(), ["writable"; 3]);
    rig.io().pause_all(protocol);
    members.iter().for_each(|client| client.text("x"));
    other.text("y");
    rig.until_logged("text y");
    rig.run();
    assert_eq!(rig.log(), ["text y"]);
    rig.io().resume_all(protocol);
    rig.until("all", |rig| rig.state.log.len() == 3);
    assert_eq!(rig.log(), ["text x"; 3]);
}

// Flow control.

#[test]
fn a_pause_in_the_middle_of_a_read_holds_back_the_rest_and_loses_nothing() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Text(text) if text == "3" || text == "7" => cx.conn().pause(),
        Heard::Event(_) => cx.conn().resume(),
        _ => {}
    });
    let client = rig.open();
    let bytes: Vec<u8> = (0..10).flat_map(|number| Frame::text(&number.to_string()).masked()).collect();
    client.send(&bytes);
    client.frame(&Frame::close(1000, ""));
    client.finish();
    rig.until_logged("text 3");
    rig.advance(SECOND * 3600);
    assert_eq!(rig.log(), ["opened", "text 0", "text 1", "text 2", "text 3", "peer ended"]);
    let id = rig.state.conns[0];
    rig.io().notify(id, Box::new("go")).unwrap();
    rig.until_logged("text 7");
    rig.run();
    assert_eq!(rig.log(), ["event go", "text 4", "text 5", "text 6", "text 7"]);
    rig.io().conn(id).unwrap().resume();
    rig.until_logged("closed: by peer 1000 ");
    assert_eq!(rig.log(), ["text 8", "text 9", "peer closed 1000 ", "closed: by peer 1000 "]);
}

#[test]
fn pausing_and_resuming_at_once_goes_on_where_it_was() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            cx.conn().pause();
            cx.conn().resume();
        }
    });
    let client = rig.open();
    let bytes: Vec<u8> = (0..50).flat_map(|number| Frame::text(&number.to_string()).masked()).collect();
    client.send(&bytes);
    rig.until_logged("text 49");
    let expected: Vec<String> = (0..50).map(|number| format!("text {number}")).collect();
    assert_eq!(rig.log()[1..], expected);
}

#[test]
fn a_paused_connection_leaves_the_senders_bytes_with_the_sender() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(text) = heard
            && text == "pause"
        {
            cx.conn().pause();
        }
    });
    let client = rig.open();
    client.text("pause");
    rig.until_logged("text pause");
    let message = Frame::text(&"x".repeat(1_000_000)).masked();
    (0..20).for_each(|_| client.send(&message));
    rig.run();
    assert!(client.unsent() > 1_000_000);
    let received = rig.io().links().find(|link| link.role == "websocket").unwrap().received;
    assert!(received < 2_000_000, "{received}");
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().resume();
    rig.until("all of it", |rig| rig.state.log.len() == 22);
}

// Closing.

#[test]
fn a_close_by_us_sends_code_and_reason_and_waits_for_the_answer() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            cx.conn().close_with(CloseCode::new(4000), "enough");
            assert_eq!(cx.send("more"), Err(SendError::Closing));
            assert_eq!(cx.conn().ping(b""), Err(SendError::Closing));
            // The first code and reason stand.
            cx.conn().close_with(CloseCode::new(4001), "again");
            cx.close();
        }
    });
    let client = rig.open();
    client.text("go");
    assert_eq!(rig.frame(&client), Frame::close(4000, "enough"));
    rig.run();
    assert!(!client.at_end());
    client.frame(&Frame::close(4000, "agreed"));
    assert_eq!(rig.frames(&client), []);
    client.finish();
    rig.until_logged("closed: by us 4000 agreed");
    assert_eq!(rig.log(), ["opened", "text go", "closed: by us 4000 agreed"]);
}

#[test]
fn after_close_nothing_but_closed_follows() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            cx.conn().set_timer(SECOND);
            cx.conn().request_writable();
            cx.close();
        }
    });
    let client = rig.open();
    let bytes: Vec<u8> = ["close", "same read"].iter().flat_map(|text| Frame::text(text).masked()).collect();
    client.send(&bytes);
    assert_eq!(rig.frame(&client), Frame::close(1000, ""));
    client.text("later read");
    client.frame(&Frame::ping("p"));
    client.frame(&Frame::pong("p"));
    rig.advance(SECOND);
    let id = rig.state.conns[0];
    let _ = rig.io().notify(id, Box::new("event"));
    rig.run();
    client.frame(&Frame::new(true, 8, ""));
    client.finish();
    rig.until_logged("closed: by us none ");
    assert_eq!(rig.log(), ["opened", "text close", "closed: by us none "]);
}

#[test]
fn a_peer_that_never_answers_our_close_is_dropped_at_the_limit() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            cx.close();
        }
    });
    let client = rig.open();
    client.text("go");
    assert_eq!(rig.frame(&client), Frame::close(1000, ""));
    rig.advance(SECOND * 5 - MILLI);
    // What else it says buys it no time.
    client.text("still here");
    rig.run();
    assert!(!client.at_end());
    rig.advance(MILLI);
    rig.until("the end", |_| client.at_end());
    assert_eq!(rig.log().last().unwrap(), "closed: TimedOut(Closing)");
}

#[test]
fn a_peer_that_answers_our_close_and_never_ends_is_dropped_at_the_limit() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            cx.close();
        }
    });
    let client = rig.open();
    client.text("go");
    assert_eq!(rig.frame(&client), Frame::close(1000, ""));
    client.frame(&Frame::close(1000, ""));
    rig.end(&client);
    rig.advance(SECOND * 5 - MILLI);
    assert_eq!(rig.io().link_count(), 2);
    rig.advance(MILLI);
    assert_eq!(rig.io().link_count(), 1);
    assert_eq!(rig.log().last().unwrap(), "closed: by us 1000 ");
}

#[test]
fn a_close_by_the_peer_is_answered_with_its_code() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    for (frame, answer, heard, closed) in [
        (
            Frame::close(1000, "bye"),
            Frame::close(1000, ""),
            "peer closed 1000 bye",
            "closed: by peer 1000 bye",
        ),
        (Frame::close(4999, ""), Frame::close(4999, ""), "peer closed 4999 ", "closed: by peer 4999 "),
        (Frame::new(true, 8, ""), Frame::new(true, 8, ""), "peer closed", "closed: by peer none "),
    ] {
        let client = rig.open();
        client.frame(&frame);
        client.text("too late");
        assert_eq!(rig.frames(&client), [answer]);
        client.finish();
        rig.until_logged(closed);
        assert_eq!(rig.log(), ["opened", heard, closed]);
    }
}

#[test]
fn a_handler_may_answer_the_peers_close_with_last_messages_another_code_or_a_reset() {
    let mut rig = server(|cx, heard| match heard {
        Heard::PeerClosed(Some((4001, _))) => assert_eq!(cx.send("last words"), Ok(Flow::Ready)),
        Heard::PeerClosed(Some((4002, _))) => cx.conn().close_with(CloseCode::new(4022), "because"),
        Heard::PeerClosed(Some((4003, _))) => cx.conn().abort(),
        _ => {}
    });
    let client = rig.open();
    client.frame(&Frame::close(4001, ""));
    assert_eq!(rig.frames(&client), [Frame::text("last words"), Frame::close(4001, "")]);
    let client = rig.open();
    client.frame(&Frame::close(4002, ""));
    assert_eq!(rig.frames(&client), [Frame::close(4022, "because")]);
    client.finish();
    rig.until_logged("closed: by peer 4002 ");
    let client = rig.open();
    client.frame(&Frame::close(4003, ""));
    rig.until("the reset", |_| client.was_reset());
    assert_eq!(client.next_frame(), None);
    rig.run();
    let log = rig.log();
    assert!(log.last().unwrap().starts_with("closed: "), "{log:?}");
}

#[test]
fn a_connection_can_be_closed_from_every_callback() {
    let places = ["opened", "text", "ping", "pong", "writable", "timer", "event", "peer closed"];
    for place in places {
        let mut rig = server(move |cx, heard| {
            if heard.to_string().starts_with(place) {
                return cx.conn().close_with(CloseCode::new(4000), place);
            }
            if let Heard::Opened = heard {
                cx.conn().set_timer(SECOND);
                if place == "writable" {
                    cx.conn().request_writable();
                }
                let id = cx.id();
                if place == "event" {
                    cx.io.notify(id, Box::new("x")).unwrap();
                }
            }
        });
        let client = rig.open();
        match place {
            "text" => client.text("x"),
            "ping" => client.frame(&Frame::ping("")),
            "pong" => client.frame(&Frame::pong("")),
            "timer" => rig.advance(SECOND),
            "peer closed" => client.frame(&Frame::close(1000, "")),
            _ => {}
        }
        let frame = std::iter::from_fn(|| Some(rig.frame(&client))).find(|frame| frame.opcode == 8);
        assert_eq!(frame, Some(Frame::close(4000, place)), "{place}");
        client.frame(&Frame::close(4000, ""));
        client.finish();
        rig.end(&client);
        rig.until("the end", |rig| rig.io().link_count() == 1);
    }
}

#[test]
fn a_connection_can_be_aborted_from_every_callback() {
    let places = ["opened", "text", "ping", "pong", "writable", "timer", "event", "peer closed"];
    for place in places {
        let mut rig = server(move |cx, heard| {
            if heard.to_string().starts_with(place) {
                let _ = cx.send("never sent");
                cx.conn().abort();
                assert_eq!(cx.send("x"), Err(SendError::Gone));
                return;
            }
            match heard {
                Heard::Opened => {
                    cx.conn().set_timer(SECOND);
                    cx.conn().request_writable();
                    let id = cx.id();
                    cx.io.notify(id, Box::new("x")).unwrap();
                }
                Heard::Closed(_) => assert_eq!(cx.send("x"), Err(SendError::Gone)),
                _ => {}
            }
        });
        let client = rig.connect();
        client.upgrade("/", "");
        rig.run();
        match place {
            "text" => client.text("x"),
            "ping" => client.frame(&Frame::ping("")),
            "pong" => client.frame(&Frame::pong("")),
            "timer" => rig.advance(SECOND),
            "peer closed" => client.frame(&Frame::close(1000, "")),
            _ => {}
        }
        rig.until("the reset", |_| client.was_reset());
        rig.run();
        let log = rig.log();
        assert_eq!(log.iter().filter(|line| line.starts_with("closed: ")).count(), 1, "{place} {log:?}");
        assert!(log.last().unwrap().starts_with("closed: "), "{place} {log:?}");
        assert!(place == "peer closed" || log.last().unwrap().starts_with("closed: Aborted"), "{log:?}");
        assert_eq!(rig.io().link_count(), 1);
    }
}

#[test]
fn a_connection_can_be_closed_from_outside_and_from_another_handler() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            let other = cx.data.conns[0];
            cx.io.conn(other).unwrap().close_with(CloseCode::POLICY, "go away");
        }
    });
    let (one, two) = (rig.open(), rig.open());
    two.text("close the other");
    assert_eq!(rig.frame(&one), Frame::close(1008, "go away"));
    let id = rig.state.conns[1];
    rig.io().conn(id).unwrap().close_with(CloseCode::GOING_AWAY, "");
    assert_eq!(rig.frame(&two), Frame::close(1001, ""));
    for client in [&one, &two] {
        client.frame(&Frame::close(1000, ""));
        client.finish();
        rig.end(client);
    }
    rig.until("both ends", |rig| rig.io().link_count() == 1);
    let ids: [ConnId; 2] = [rig.state.conns[0], id];
    assert!(ids.iter().all(|id| rig.io().conn(*id).is_none()));
    assert_eq!(rig.io().notify(id, Box::new("x")), Err(Gone));
}

#[test]
fn codes_that_may_not_be_sent_and_reasons_that_are_too_long_are_mended() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(text) = heard {
            let code = CloseCode::new(text.parse().unwrap());
            cx.conn().close_with(code, &"\u{fc}".repeat(100));
        }
    });
    let client = rig.open();
    client.text("1006");
    assert_eq!(rig.frame(&client), Frame::new(true, 8, ""));
    let client = rig.open();
    client.text("1011");
    assert_eq!(rig.frame(&client), Frame::close(1011, &"\u{fc}".repeat(61)));
}

#[test]
fn what_is_queued_goes_out_before_our_close() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            for _ in 0..4 {
                let _ = cx.send(&[1; 1_000_000][..]);
            }
            cx.close();
        }
    });
    let client = rig.open();
    client.stop_reading();
    client.text("go");
    rig.until_logged("text go");
    rig.run();
    client.resume_reading();
    for _ in 0..4 {
        assert_eq!(rig.frame(&client).payload.len(), 1_000_000);
    }
    assert_eq!(rig.frame(&client), Frame::close(1000, ""));
    client.frame(&Frame::close(1000, ""));
    client.finish();
    rig.end(&client);
    rig.until_logged("closed: by us 1000 ");
}

#[test]
fn closing_a_paused_connection_still_hears_the_peers_close() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            cx.conn().pause();
        }
    });
    let client = rig.open();
    client.text("pause");
    client.text("never heard");
    rig.until_logged("text pause");
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().close();
    assert_eq!(rig.frame(&client), Frame::close(1000, ""));
    client.frame(&Frame::close(1000, "ok"));
    client.finish();
    rig.until_logged("closed: by us 1000 ok");
    assert_eq!(rig.log(), ["opened", "text pause", "closed: by us 1000 ok"]);
}

#[test]
fn an_end_without_a_close_and_a_reset_are_told_apart() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let client = rig.open();
    client.finish();
    rig.end(&client);
    rig.until_logged("closed: PeerEnded");
    let client = rig.open();
    client.reset();
    rig.until_logged("closed: ConnectionReset");
}

// Facts.

#[test]
fn a_handler_knows_its_peer_its_descriptor_and_its_protocol() {
    let mut rig = Rig::site(Site::new().protocol("", Noted("p")));
    let client = rig.open();
    let (id, protocol) = (rig.state.conns[0], rig.state.protocol);
    let conn = rig.io().conn(id).unwrap();
    assert_eq!(conn.peer(), Some(Peer::Inet(client.address())));
    assert_eq!(conn.protocol(), protocol);
    let fd = conn.fd().unwrap();
    assert_eq!(rig.io().find_fd(fd), Some(id));
    assert_eq!(rig.io().find_fd(-1), None);
    let site = rig.site;
    assert_eq!(rig.io().protocol(site, ""), protocol);
}

#[test]
fn a_unix_socket_is_served_like_any_other() {
    use std::io::{Read, Write};
    let directory = std::env::temp_dir().join(format!("lodger-websocket-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let mut rig = Rig::websocket(Limits::default(), Script::echo);
    let site = rig.site;
    rig.io().listen(lodger::Listen::unix(&path), site).unwrap();
    rig.run();
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    client.set_nonblocking(true).unwrap();
    client.write_all(rig::upgrade("/", "").as_bytes()).unwrap();
    client.write_all(&Frame::text("hello").masked()).unwrap();
    let mut received = Vec::new();
    let expected = Frame::text("hello").unmasked();
    rig.until("the echo", |_| {
        let mut buffer = [0; 1000];
        if let Ok(read) = client.read(&mut buffer) {
            received.extend(&buffer[..read]);
        }
        received.ends_with(&expected)
    });
    let id = rig.state.conns[0];
    assert!(matches!(rig.io().conn(id).unwrap().peer(), Some(Peer::Unix(_))));
    drop(client);
    rig.until_logged("closed: PeerEnded");
    rig.host.leave(&mut rig.context, &mut rig.state);
    assert!(!path.exists());
    std::fs::remove_dir_all(directory).unwrap();
}

/// Gives its descriptor back as soon as it is there.
struct Held(Rc<RefCell<Option<std::os::fd::OwnedFd>>>);

impl lodger::raw::Handler<State> for Held {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        cx.conn().release();
    }
    fn closed(self: Box<Self>, _: &mut Cx<'_, State>, closed: lodger::Closed) {
        let lodger::CloseReason::Released { descriptor, .. } = closed.reason else { panic!("{closed:?}") };
        *self.0.borrow_mut() = Some(descriptor);
    }
}

#[test]
fn the_options_of_a_listener_are_set_on_each_connection() {
    use rustix::net::sockopt;
    let keepalive = Keepalive { idle: SECOND * 7, interval: SECOND * 3, probes: 5 };
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let held = Rc::default();
    let given = Rc::clone(&held);
    let listen = lodger::Listen::tcp(([127, 0, 0, 1], 0));
    let listen = listen.keepalive(keepalive).send_buffer(20_000).receive_buffer(30_000);
    let io = rig.io();
    let accept = move |_: &Peer, _: &mut State, _: &mut Io<State>| {
        Some(Box::new(Held(Rc::clone(&given))) as Box<dyn lodger::raw::Handler<State>>)
    };
    let listener = io.listen_raw(listen, Limits::default(), accept).unwrap();
    rig.address = rig.io().local_addr(listener).unwrap().inet().unwrap();
    rig.run();
    let _client = rig.connect();
    rig.until("the release", |_| held.borrow().is_some());
    let socket = held.borrow_mut().take().unwrap();
    assert!(sockopt::socket_keepalive(&socket).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), SECOND * 7);
    assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), SECOND * 3);
    assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 5);
    assert!(sockopt::tcp_nodelay(&socket).unwrap());
    // Linux doubles what it is told, for its own use.
    assert!((20_000..=40_000).contains(&sockopt::socket_send_buffer_size(&socket).unwrap()));
    assert!((30_000..=60_000).contains(&sockopt::socket_recv_buffer_size(&socket).unwrap()));
}

#[test]
fn the_options_of_a_connection_can_be_changed() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let client = rig.open();
    let id = rig.state.conns[0];
    let mut conn = rig.io().conn(id).unwrap();
    conn.set_keepalive(Some(Keepalive { idle: SECOND, interval: SECOND, probes: 1 })).unwrap();
    conn.set_keepalive(None).unwrap();
    conn.set_buffer_sizes(Some(10_000), None).unwrap();
    // Little fits into the kernel's buffers now.
    client.stop_reading();
    conn.send(&[0; 4_000_000][..]).unwrap();
    rig.run();
    assert!(rig.io().conn(id).unwrap().queued() > 3_000_000);
}

// Broadcast.

#[test]
fn a_broadcast_reaches_every_member_and_counts_those_that_took_it() {
    let mut rig = Rig::site(Site::new().protocol("p", Noted("p")).protocol("q", Noted("q")));
    let clients = [rig.open(), rig.open(), rig.open()];
    let site = rig.site;
    let protocol = rig.io().protocol(site, "p").unwrap();
    let other = rig.open_with("/", "Sec-WebSocket-Protocol: q\r\n");
    let io = rig.io();
    let frame = io.encode("to all");
    let told = io.broadcast(protocol, &frame);
    assert_eq!((told.sent, told.missed), (3, 0));
    for client in &clients {
        assert_eq!(rig.frame(client), Frame::text("to all"));
    }
    // One that is closing does not take it.
    let id = rig.state.conns[1];
    rig.io().conn(id).unwrap().close();
    let frame = rig.io().encode(&b"again"[..]);
    let told = rig.io().broadcast(protocol, &frame);
    assert_eq!((told.sent, told.missed), (2, 0));
    assert_eq!(rig.frame(&clients[0]), Frame::binary("again"));
    assert_eq!(rig.frame(&clients[1]), Frame::close(1000, ""));
    assert_eq!(other.received(), b"");
}

#[test]
fn a_member_that_does_not_read_holds_up_nobody_and_is_left_out_at_its_limit() {
    let mut rig = Rig::site(Site::new().protocol("p", Noted("p")));
    let (slow, quick) = (rig.open(), rig.open());
    slow.stop_reading();
    let protocol = rig.state.protocol.unwrap();
    let frame = rig.io().encode(&[5; 500_000][..]);
    let mut rounds = 0;
    while rig.io().broadcast(protocol, &frame).sent == 2 {
        rounds += 1;
        assert_eq!(rig.frame(&quick).payload.len(), 500_000);
        assert!(rounds < 1000);
    }
    let id = rig.state.conns[0];
    let queued = rig.io().conn(id).unwrap().queued();
    assert!(queued > 1024 * 1024 && queued <= 1024 * 1024 + 500_010, "{queued}");
    assert_eq!(rig.frame(&quick).payload.len(), 500_000);
    slow.resume_reading();
    for _ in 0..rounds {
        assert_eq!(rig.frame(&slow).payload.len(), 500_000);
    }
}

#[test]
fn a_broadcast_from_a_handler_whose_own_peer_has_gone_reaches_the_others() {
    let gone: Rc<RefCell<Option<rig::Client>>> = Rc::default();
    let leaver = Rc::clone(&gone);
    let mut rig = server(move |cx, heard| {
        if let Heard::Text(_) = heard {
            leaver.borrow_mut().take().unwrap().reset();
            cx.conn().pause();
            let protocol = cx.conn().protocol().unwrap();
            let frame = cx.io.encode(&[1; 100_000][..]);
            for _ in 0..3 {
                let _ = cx.io.broadcast(protocol, &frame);
            }
        }
    });
    let (one, two) = (rig.open(), rig.open());
    one.text("go");
    *gone.borrow_mut() = Some(one);
    for _ in 0..3 {
        assert_eq!(rig.frame(&two).payload.len(), 100_000);
    }
    let id = rig.state.conns[0];
    rig.until("the end of the other", |rig| rig.io().conn(id).is_none());
}

// Time.

#[test]
fn a_timer_is_due_at_its_time_and_can_be_moved_and_cancelled() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(text) = heard {
            match text.parse() {
                Ok(micros) => cx.conn().set_timer(Duration::from_micros(micros)),
                Err(_) => cx.conn().cancel_timer(),
            }
        }
    });
    let client = rig.open();
    let tell = |rig: &mut Rig, text: &str| {
        client.text(text);
        rig.until_logged(&format!("text {text}"));
        rig.log();
    };
    tell(&mut rig, "1500");
    rig.advance(Duration::from_micros(1499));
    assert_eq!(rig.log(), [] as [&str; 0]);
    rig.advance(Duration::from_micros(1));
    assert_eq!(rig.log(), ["timer"]);
    rig.advance(SECOND * 3600);
    assert_eq!(rig.log(), [] as [&str; 0]);
    tell(&mut rig, "1000");
    tell(&mut rig, "2000");
    rig.advance(Duration::from_micros(1999));
    assert_eq!(rig.log(), [] as [&str; 0]);
    tell(&mut rig, "500");
    rig.advance(Duration::from_micros(500));
    assert_eq!(rig.log(), ["timer"]);
    tell(&mut rig, "1000");
    tell(&mut rig, "cancel");
    rig.advance(SECOND * 3600);
    assert_eq!(rig.log(), [] as [&str; 0]);
}

#[test]
fn a_task_runs_after_its_delay_unless_it_is_cancelled() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let io = rig.io();
    io.after(SECOND, |state, _| state.log.push("one".to_owned()));
    let two = io.after(SECOND * 2, |state, _| state.log.push("two".to_owned()));
    io.after(Duration::ZERO, |state, io| {
        state.log.push("zero".to_owned());
        io.after(SECOND * 3, |state, _| state.log.push("three".to_owned()));
    });
    rig.run();
    assert_eq!(rig.log(), ["zero"]);
    rig.advance(SECOND - MILLI);
    assert_eq!(rig.log(), [] as [&str; 0]);
    rig.advance(MILLI);
    assert_eq!(rig.log(), ["one"]);
    assert!(rig.io().cancel(two));
    assert!(!rig.io().cancel(two));
    rig.advance(SECOND * 10);
    assert_eq!(rig.log(), ["three"]);
}

fn pinging() -> Limits {
    Limits { ping_interval: Some(SECOND * 20), pong_wait: SECOND * 10, ..Limits::default() }
}

#[test]
fn a_silent_peer_is_pinged_at_the_interval_and_dropped_when_it_stays_silent() {
    let mut rig = Rig::websocket(pinging(), Script::quiet);
    let client = rig.open();
    rig.advance(SECOND * 20 - MILLI);
    assert_eq!(client.received(), b"");
    rig.advance(MILLI);
    assert_eq!(rig.frame(&client), Frame::ping(""));
    rig.advance(SECOND * 10 - MILLI);
    assert_eq!(rig.log(), ["opened"]);
    rig.advance(MILLI);
    rig.until("the reset", |_| client.was_reset());
    assert_eq!(rig.log(), ["closed: TimedOut(PongWait)"]);
}

#[test]
fn whatever_the_peer_sends_counts_as_life() {
    let mut rig = Rig::websocket(pinging(), Script::quiet);
    let client = rig.open();
    rig.advance(SECOND * 19);
    client.text("x");
    rig.run();
    rig.advance(SECOND * 19);
    assert_eq!(client.received(), b"", "the interval begins with the message");
    rig.advance(SECOND);
    assert_eq!(rig.frame(&client), Frame::ping(""));
    rig.advance(SECOND * 9);
    // Half a frame is an answer too.
    client.send([0x81]);
    rig.run();
    rig.advance(SECOND * 19);
    assert_eq!(client.received(), b"");
    rig.advance(SECOND);
    assert_eq!(rig.frame(&client), Frame::ping(""));
    rig.advance(SECOND * 10);
    assert_eq!(rig.log().last().unwrap(), "closed: TimedOut(PongWait)");
}

#[test]
fn a_paused_peer_is_neither_pinged_nor_dropped() {
    let mut rig = Rig::websocket(pinging(), Script::quiet);
    let client = rig.open();
    let id = rig.state.conns[0];
    rig.io().conn(id).unwrap().pause();
    rig.advance(SECOND * 3600);
    assert_eq!(rig.log(), ["opened"]);
    rig.io().conn(id).unwrap().resume();
    rig.advance(SECOND * 20 - MILLI);
    assert_eq!(client.received(), b"");
    rig.advance(MILLI);
    assert_eq!(rig.frame(&client), Frame::ping(""));
    client.frame(&Frame::pong(""));
    rig.until_logged("pong ");
}

#[test]
fn a_connection_without_messages_is_closed_with_1001_after_the_idle_time() {
    let limits = Limits { idle: Some(SECOND * 60), ..Limits::default() };
    let mut rig = Rig::websocket(limits, Script::quiet);
    let (client, silent) = (rig.open(), rig.open());
    rig.advance(SECOND * 59);
    client.text("x");
    // Pings are no messages.
    silent.frame(&Frame::ping(""));
    assert_eq!(rig.frame(&silent), Frame::pong(""));
    rig.advance(SECOND - MILLI);
    assert_eq!(silent.received(), b"");
    rig.advance(MILLI);
    assert_eq!(rig.frame(&silent).close_code(), Some(1001));
    assert_eq!(client.received(), b"");
    rig.advance(SECOND * 59);
    assert_eq!(rig.frame(&client).close_code(), Some(1001));
    // What we send counts too.
    let other = rig.open();
    let id = *rig.state.conns.last().unwrap();
    rig.advance(SECOND * 50);
    rig.io().conn(id).unwrap().send("y").unwrap();
    assert_eq!(rig.frame(&other), Frame::text("y"));
    rig.advance(SECOND * 59);
    assert_eq!(other.received(), b"");
}

#[test]
fn no_time_limit_touches_an_open_connection_by_default() {
    let mut rig = Rig::websocket(Limits::default(), Script::echo);
    let client = rig.open();
    let before = rig.host.audit.counts();
    rig.advance(SECOND * 1_000_000);
    client.text("x");
    assert_eq!(rig.frame(&client), Frame::text("x"));
    assert_eq!(rig.host.audit.counts().since(&before).host_calls(), 0);
}

#[test]
fn a_write_stall_drops_a_websocket_whose_peer_takes_nothing() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            let _ = cx.send(&[1; 12_000_000][..]);
        }
    });
    let client = rig.open();
    client.stop_reading();
    client.text("go");
    rig.until_logged("text go");
    rig.advance(SECOND * 30 - MILLI);
    assert_eq!(rig.log(), ["opened", "text go"]);
    rig.advance(MILLI);
    assert_eq!(rig.log(), ["closed: TimedOut(WriteStall), unsent"]);
}

// Events of the application's own.

#[test]
fn events_come_in_order_after_the_running_handler() {
    let mut rig = server(|cx, heard| {
        if let Heard::Text(_) = heard {
            let ids = cx.data.conns.clone();
            for id in ids {
                cx.io.notify(id, Box::new("one")).unwrap();
                cx.io.notify(id, Box::new("two")).unwrap();
            }
            cx.data.log.push("asked".to_owned());
        }
    });
    let (_one, two) = (rig.open(), rig.open());
    rig.log();
    two.text("go");
    rig.until("all events", |rig| rig.state.log.len() == 6);
    assert_eq!(rig.log(), ["text go", "asked", "event one", "event two", "event one", "event two"]);
}

// Adopting.

#[test]
fn an_adopted_websocket_begins_with_the_frames_that_were_read_already() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let (socket, client) = rig.pair();
    let first = Frame::text("read before").masked();
    let second = Frame::text("in two halves").masked();
    let already = [&first[..], &second[..5]].concat();
    client.send(&second[5..]);
    let id = rig.io().adopt_websocket(socket, &already, Limits::default(), Box::new(Script::echo())).unwrap();
    assert_eq!(rig.frame(&client), Frame::text("read before"));
    assert_eq!(rig.frame(&client), Frame::text("in two halves"));
    assert_eq!(rig.log(), ["text read before", "text in two halves"]);
    assert_eq!(rig.io().conn(id).unwrap().protocol(), None);
    client.frame(&Frame::close(1000, ""));
    assert_eq!(rig.frames(&client), [Frame::close(1000, "")]);
}

#[test]
fn nothing_is_unsent_after_a_closing_handshake_whose_last_close_nobody_waits_for() {
    for (closes, text) in [(true, "lost"), (false, "lost")] {
        let mut rig = Rig::websocket(Limits::default(), Script::quiet);
        let client = rig.open();
        let id = rig.state.conns[0];
        // It is not read, so that the client resets the connection when it leaves, right behind its Close.
        rig.io().conn(id).unwrap().send("unread").unwrap();
        let _ = rig.context.prepare(&mut rig.host);
        if closes {
            client.frame(&Frame::close(1000, ""));
        } else {
            client.frame(&Frame::binary([0; 10]));
            client.send([0xff, 0xff]);
        }
        client.reset();
        rig.until("the end", |rig| rig.io().link_count() == 1);
        let log = rig.log();
        assert!(
            log.last().unwrap().starts_with("closed: ") && !log.last().unwrap().ends_with("unsent"),
            "{log:?}"
        );

        // What was to be sent before is told.
        let client = rig.open();
        let id = rig.state.conns[1];
        rig.io().conn(id).unwrap().send("unread").unwrap();
        let _ = rig.context.prepare(&mut rig.host);
        client.frame(&Frame::close(1000, ""));
        client.reset();
        rig.io().conn(id).unwrap().send(text).unwrap();
        rig.until("the end", |rig| rig.io().link_count() == 1);
        let log = rig.log();
        assert!(log.last().unwrap().ends_with(", unsent"), "{log:?}");
    }
}

#[test]
fn an_adopted_http_socket_is_served_as_if_it_had_been_accepted() {
    let mut rig = Rig::websocket(Limits::default(), Script::echo);
    let request = rig::upgrade("/", "");
    for split in [0, 1, 20, request.len()] {
        let (socket, client) = rig.pair();
        client.send(&request[split..]);
        let site = rig.site;
        rig.io().adopt_http(socket, &request.as_bytes()[..split], site).unwrap();
        assert_eq!(rig.head(&client).status, 101, "{split}");
        client.text("x");
        assert_eq!(rig.frame(&client), Frame::text("x"));
    }
}

#[test]
fn a_socket_that_is_not_adopted_is_given_back() {
    let mut rig = Rig::websocket(Limits::default(), Script::quiet);
    let (socket, client) = rig.pair();
    let site = rig.io().add_site(Site::new().protocol("", Noted("gone"))).unwrap();
    rig.run();
    rig.io().remove_site(site);
    let error = rig.io().adopt_http(socket, b"", site).unwrap_err();
    assert!(matches!(error.reason, lodger::AdoptRefused::NoSite));
    let mut stream = std::net::TcpStream::from(error.descriptor);
    std::io::Write::write_all(&mut stream, b"still open").unwrap();
    rig.until("the bytes", |_| client.received() == b"still open");
}
