//! HTTP/1.1 over real sockets: requests, content, responses at once, later and in pieces, errors, time limits.

#[path = "support/rig.rs"]
mod rig;
#[path = "support/script.rs"]
mod script;

use lodger::http::StatusCode;
use lodger::{Cx, Decision, Flow, Io, Limits, Request, Response, SendError, Site, SiteError};
use rig::{Rig, State};
use script::{Heard, Script};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A server whose exchanges do this.
fn server_with(limits: Limits, act: impl Fn(&mut Cx<'_, State>, &Heard) + 'static) -> Rig {
    let act = Rc::new(act);
    Rig::http(limits, move || {
        let act = Rc::clone(&act);
        Script::new(move |cx, heard| act(cx, heard))
    })
}

fn server(act: impl Fn(&mut Cx<'_, State>, &Heard) + 'static) -> Rig {
    server_with(Limits::default(), act)
}

/// A server that answers with its protocol's own responses.
fn responder(respond: impl Fn(&Request<'_>) -> Response + 'static) -> Rig {
    responder_with(Limits::default(), respond)
}

fn responder_with(limits: Limits, respond: impl Fn(&Request<'_>) -> Response + 'static) -> Rig {
    let accept = move |request: &Request<'_>, state: &mut State, _: &mut Io<State>| {
        state.log.push(format!("{} {}", request.method(), request.target()));
        Decision::respond(respond(request))
    };
    Rig::site(Site::new().protocol("", accept).limits(limits))
}

/// A server that answers with the content of the request.
fn mirror() -> Rig {
    Rig::http(Limits::default(), || {
        let mut content = Vec::new();
        Script::new(move |cx, heard| match heard {
            Heard::Bytes(bytes) => content.extend(bytes),
            Heard::Complete(trailers) => {
                let names: Vec<_> = trailers.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let response = Response::bytes("application/octet-stream", std::mem::take(&mut content));
                let _ = cx.respond(response.field("X-Trailers", names.join(";")));
            }
            _ => {}
        })
    })
}

fn path(request: &Request<'_>) -> Response {
    Response::text(request.path().to_owned())
}

// Connections.

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let mut rig = responder(path);
    let client = rig.connect();
    for target in ["/one", "/two", "/three"] {
        client.get(target);
        let answer = rig.answer(&client);
        assert_eq!((answer.status, answer.text(), answer.field("connection")), (200, target, None));
        assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.field("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    }
    client.finish();
    rig.end(&client);
}

#[test]
fn each_exchange_has_a_handler_of_its_own_that_hears_of_its_end() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(line) = heard {
            let _ = cx.respond(Response::text(line.clone()));
        }
    });
    let client = rig.connect();
    client.get("/a");
    assert_eq!(rig.answer(&client).text(), "GET /a");
    client.get("/b");
    assert_eq!(rig.answer(&client).text(), "GET /b");
    rig.until("both ends", |rig| rig.state.log.len() == 6);
    let expected = ["GET /a", "complete", "closed: Completed", "GET /b", "complete", "closed: Completed"];
    assert_eq!(rig.log(), expected);
    assert_ne!(rig.state.conns[0], rig.state.conns[1]);
}

#[test]
fn pipelined_requests_are_answered_in_order_by_one_write() {
    let mut rig = responder(path);
    let client = rig.connect();
    let requests: String = (0..50).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests);
    rig.until("the first answer", |_| client.received_len() > 0);
    // What came at first is all of it.
    for at in 0..50 {
        assert_eq!(client.next_answer().expect("it came with the first").text(), format!("/{at}"));
    }
}

#[test]
fn a_pipelined_request_waits_for_the_answer_before_it() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Request(line) if line == "GET /slow" => cx.conn().set_timer(SECOND),
        Heard::Request(line) => drop(cx.respond(Response::text(line.clone()))),
        Heard::Timer => drop(cx.respond(Response::text("slow"))),
        _ => {}
    });
    let client = rig.connect();
    client.get("/slow");
    client.get("/quick");
    rig.until_logged("complete");
    rig.run();
    assert_eq!(rig.log(), ["GET /slow", "complete"]);
    assert_eq!(client.received(), b"");
    rig.advance(SECOND);
    assert_eq!(rig.answer(&client).text(), "slow");
    assert_eq!(rig.answer(&client).text(), "GET /quick");
}

#[test]
fn http_1_0_is_closed_after_the_answer_unless_it_asks_to_be_kept() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.send("GET /a HTTP/1.0\r\n\r\n");
    let answer = rig.answer(&client);
    assert_eq!((answer.text(), answer.field("connection")), ("/a", Some("close")));
    rig.end(&client);
    let client = rig.connect();
    for target in ["/a", "/b"] {
        client.send(format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        let answer = rig.answer(&client);
        assert_eq!((answer.text(), answer.field("connection")), (target, Some("keep-alive")));
    }
}

#[test]
fn after_connection_close_nothing_more_is_answered() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.get("/b");
    let answer = rig.answer(&client);
    assert_eq!((answer.text(), answer.field("connection")), ("/a", Some("close")));
    rig.end(&client);
    assert_eq!(client.received(), b"");
    assert_eq!(rig.log(), ["GET /a"]);
    // The same where the server wants it.
    let mut rig = responder(|request| path(request).close());
    let client = rig.connect();
    client.get("/a");
    client.get("/b");
    assert_eq!(rig.answer(&client).field("connection"), Some("close"));
    rig.end(&client);
    assert_eq!(rig.log(), ["GET /a"]);
}

#[test]
fn a_head_gets_the_fields_of_a_get_and_no_content() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.send("HEAD /abc HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = rig.head(&client);
    assert_eq!((head.status, head.field("content-length")), (200, Some("4")));
    client.get("/next");
    assert_eq!(rig.answer(&client).text(), "/next");
}

#[test]
fn a_client_that_ends_its_half_still_gets_its_answer() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Complete(_) => cx.conn().set_timer(SECOND),
        Heard::Timer => drop(cx.respond(Response::text("late"))),
        _ => {}
    });
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    client.finish();
    rig.until_logged("complete");
    rig.advance(SECOND);
    let answer = rig.answer(&client);
    assert_eq!((answer.text(), answer.field("connection")), ("late", Some("close")));
    rig.end(&client);
    rig.until_logged("closed: Completed");
}

#[test]
fn pipelined_requests_of_a_client_that_has_ended_its_half_are_all_answered() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Request(line) if line == "GET /1" => cx.conn().set_timer(SECOND),
        Heard::Request(line) => drop(cx.respond(Response::text(line.clone()))),
        Heard::Timer => drop(cx.respond(Response::text("late"))),
        _ => {}
    });
    let client = rig.connect();
    (0..4).for_each(|at| client.get(&format!("/{at}")));
    client.finish();
    rig.run();
    rig.advance(SECOND);
    for expected in ["GET /0", "late", "GET /2", "GET /3"] {
        assert_eq!(rig.answer(&client).text(), expected);
    }
    rig.end(&client);
}

#[test]
fn a_client_that_leaves_within_its_content_is_reported() {
    let mut rig = mirror();
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    rig.until_logged("bytes abc");
    client.finish();
    rig.until("the end", |rig| rig.state.log.last().unwrap().starts_with("closed"));
    assert_eq!(rig.log(), ["POST /", "bytes abc", "closed: PeerEnded"]);
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    rig.until_logged("bytes abc");
    client.reset();
    rig.until_logged("closed: ConnectionReset");
}

// Content.

#[test]
fn content_split_at_every_byte_comes_as_it_was() {
    let length = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world".to_vec();
    let chunked = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nX-Sum: 7\r\nContent-Length: 3\r\nY: z\r\n\r\n"
        .to_vec();
    let mut rig = mirror();
    let client = rig.connect();
    for (request, trailers) in [(&length, ""), (&chunked, "X-Sum=7;Y=z")] {
        for split in 1..request.len() {
            client.send(&request[..split]);
            rig.turn(0);
            rig.turn(0);
            client.send(&request[split..]);
            let answer = rig.answer(&client);
            assert_eq!((answer.status, answer.text()), (200, "hello world"), "{split}");
            assert_eq!(answer.field("x-trailers"), Some(trailers), "{split}");
        }
        for byte in request {
            client.send([*byte]);
            rig.turn(0);
        }
        assert_eq!(rig.answer(&client).text(), "hello world");
    }
}

#[test]
fn large_content_comes_as_it_was_and_the_connection_goes_on() {
    let content: Vec<u8> = (0..5_000_000u32).map(|at| (at / 3) as u8).collect();
    let mut rig = mirror();
    let client = rig.connect();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", content.len()));
    client.send(&content);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in content.chunks(70_001) {
        client.send(format!("{:x}\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert!(rig.answer(&client).content == content);
    assert!(rig.answer(&client).content == content);
}

#[test]
fn content_that_nobody_wants_is_dropped_and_the_connection_goes_on() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    assert_eq!(rig.answer(&client).text(), "/a");
    client.send(vec![b'x'; 200_000]);
    client.get("/b");
    assert_eq!(rig.answer(&client).text(), "/b");
}

#[test]
fn who_announces_more_content_than_is_dropped_hears_that_the_connection_ends() {
    for (length, close) in
        [(200_000, None), (256 * 1024, None), (256 * 1024 + 1, Some("close")), (900_000, Some("close"))]
    {
        let mut rig = responder(path);
        let client = rig.connect();
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        let answer = rig.answer(&client);
        assert_eq!((answer.text(), answer.field("connection")), ("/a", close), "{length}");
        client.send(vec![b'x'; length]);
        client.get("/b");
        match close {
            None => assert_eq!(rig.answer(&client).text(), "/b", "{length}"),
            Some(_) => {
                rig.end(&client);
                assert_eq!(client.received(), b"");
            }
        }
    }
    // A handler gets all of it, so that the connection goes on.
    let mut rig = mirror();
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
    client.send(vec![b'x'; 900_000]);
    let answer = rig.answer(&client);
    assert_eq!((answer.content.len(), answer.field("connection")), (900_000, None));
}

#[test]
fn too_much_content_that_nobody_wants_ends_the_connection_after_the_answer() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    client.send(vec![b'x'; 3_000_000]);
    client.get("/b");
    let answer = rig.answer(&client);
    assert_eq!((answer.text(), answer.field("connection")), ("/a", Some("close")));
    rig.end(&client);
    assert_eq!(rig.log(), ["POST /a"]);
    rig.until("all was taken", |_| client.unsent() == 0);
    client.finish();
    rig.until("the end", |rig| rig.io().link_count() == 1);
    assert!(!client.was_reset());
}

#[test]
fn a_response_may_come_before_the_content_has() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(_) = heard {
            let _ = cx.respond(Response::text("enough").status(StatusCode::FORBIDDEN));
        }
    });
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    assert_eq!(rig.answer(&client).status, 403);
    rig.run();
    assert_eq!(rig.log(), ["POST /"], "the exchange is not over");
    client.send("abcdef");
    client.get("/next");
    assert_eq!(rig.answer(&client).status, 403);
    assert_eq!(rig.log()[..4], ["bytes abcdef", "complete", "closed: Completed", "GET /next"]);
}

#[test]
fn a_paused_handler_gets_no_content_and_the_sender_has_to_wait() {
    let taken = Rc::new(Cell::new(0));
    let count = Rc::clone(&taken);
    let mut rig = server(move |cx, heard| match heard {
        Heard::Request(_) => cx.conn().pause(),
        Heard::Event(_) => cx.conn().resume(),
        Heard::Bytes(bytes) => {
            count.set(count.get() + bytes.len());
            cx.data.log.pop();
            cx.conn().pause();
        }
        Heard::Complete(_) => drop(cx.respond(Response::text("thanks"))),
        _ => {}
    });
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12000000\r\n\r\n");
    client.send(vec![b'x'; 12_000_000]);
    rig.until_logged("POST /");
    rig.advance(SECOND * 3600);
    assert_eq!(taken.get(), 0);
    assert!(client.unsent() > 2_000_000, "{}", client.unsent());
    let id = rig.state.conns[0];
    let mut before = 0;
    while client.next_answer().is_none() {
        if let Some(mut conn) = rig.io().conn(id) {
            conn.resume();
        }
        rig.turn(5);
        rig.turn(5);
        let now = taken.replace(taken.get());
        assert!(now - before <= 600_000, "one read at a time");
        before = now;
    }
    assert_eq!(taken.get(), 12_000_000);
}

// Expect: 100-continue (RFC 9110, section 10.1.1).

const EXPECTS: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";

#[test]
fn a_client_that_waits_for_100_gets_it_when_the_handler_has_not_responded() {
    let mut rig = mirror();
    let client = rig.connect();
    client.send(EXPECTS);
    let interim = rig.head(&client);
    assert_eq!((interim.status, interim.fields.len()), (100, 0));
    client.send("abc");
    assert_eq!(rig.answer(&client).text(), "abc");
    // Whoever has sent all of the content at once gets it too, and nothing is confused.
    client.send(format!("{EXPECTS}def"));
    let mut answer = rig.answer(&client);
    if answer.status == 100 {
        answer = rig.answer(&client);
    }
    assert_eq!(answer.text(), "def");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(rig.answer(&client).status, 200, "no content, no 100");
}

#[test]
fn a_client_that_waits_for_100_and_gets_a_response_sends_no_content_and_the_connection_ends() {
    let by_protocol = responder(|_| Response::text("no").status(StatusCode::FORBIDDEN));
    let by_handler = server(|cx, heard| {
        if let Heard::Request(_) = heard {
            let _ = cx.respond(Response::text("no").status(StatusCode::FORBIDDEN));
        }
    });
    for mut rig in [by_protocol, by_handler] {
        let client = rig.connect();
        client.send(EXPECTS);
        let answer = rig.answer(&client);
        assert_eq!((answer.status, answer.field("connection")), (403, Some("close")));
        // What comes now could be content or a request: it is neither.
        client.get("/smuggled");
        rig.end(&client);
        assert_eq!(client.received(), b"");
        assert!(!rig.log().iter().any(|line| line.contains("smuggled")));
    }
}

#[test]
fn another_expectation_gets_417_or_is_ignored_and_never_100() {
    let mut rig = mirror();
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: the moon\r\nContent-Length: 3\r\n\r\nabc");
    assert!([200, 417].contains(&rig.answer(&client).status));
}

// Responses later and in pieces.

#[test]
fn a_response_may_come_from_the_handler_of_another_connection() {
    let limits = Limits { begin_response: SECOND * 3601, ..Limits::default() };
    let mut rig = server_with(limits, |cx, heard| {
        if let Heard::Request(line) = heard
            && line == "GET /release"
        {
            let waiting = cx.data.conns[0];
            let mut conn = cx.io.conn(waiting).unwrap();
            assert_eq!(conn.respond(Response::text("at last")), Ok(Flow::Ready));
            assert_eq!(conn.respond(Response::text("again")), Err(SendError::Responded));
            let _ = cx.respond(Response::text("released"));
        }
    });
    let waiting = rig.connect();
    waiting.get("/wait");
    rig.until_logged("GET /wait");
    rig.advance(SECOND * 3600);
    assert_eq!(waiting.received(), b"");
    let other = rig.connect();
    other.get("/release");
    assert_eq!(rig.answer(&waiting).text(), "at last");
    assert_eq!(rig.answer(&other).text(), "released");
    let waited = rig.state.conns[0];
    rig.until("the end of the exchange", |rig| rig.io().conn(waited).is_none());
}

#[test]
fn a_response_in_pieces_of_known_length_ends_with_its_last_byte() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(_) = heard {
            assert_eq!(cx.write(b"early"), Err(SendError::NotResponding));
            assert_eq!(cx.conn().end_response(), Err(SendError::NotResponding));
            assert_eq!(cx.respond(Response::stream("text/plain").length(6)), Ok(Flow::Ready));
            assert_eq!(cx.respond(Response::text("other")), Err(SendError::Responded));
            assert_eq!(cx.write(b"abc"), Ok(Flow::Ready));
            assert_eq!(cx.conn().end_response(), Err(SendError::Length));
            assert_eq!(cx.write(b"defg"), Err(SendError::Length));
            assert_eq!(cx.write(b"def"), Ok(Flow::Ready));
            assert_eq!(cx.write(b"more"), Err(SendError::Responded));
            assert_eq!(cx.conn().end_response(), Ok(Flow::Ready));
        }
    });
    let client = rig.connect();
    for _ in 0..2 {
        client.get("/");
        let answer = rig.answer(&client);
        assert_eq!((answer.text(), answer.field("content-length")), ("abcdef", Some("6")));
        assert_eq!(answer.field("transfer-encoding"), None);
    }
}

#[test]
fn a_response_in_pieces_of_unknown_length_is_chunked_and_ends_when_it_is_told() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Request(_) => {
            assert_eq!(cx.respond(Response::stream("text/plain")), Ok(Flow::Ready));
            assert_eq!(cx.write(b"one "), Ok(Flow::Ready));
            assert_eq!(cx.write(b""), Ok(Flow::Ready));
            cx.conn().set_timer(SECOND);
        }
        Heard::Timer => {
            assert_eq!(cx.write(b"two"), Ok(Flow::Ready));
            assert_eq!(cx.conn().end_response(), Ok(Flow::Ready));
        }
        _ => {}
    });
    let client = rig.connect();
    client.get("/");
    rig.until("the first piece", |_| client.received().ends_with(b"\r\n\r\n4\r\none \r\n"));
    rig.advance(SECOND);
    let answer = rig.answer(&client);
    assert_eq!((answer.text(), answer.field("transfer-encoding")), ("one two", Some("chunked")));
    // An old client knows no chunks: the end of the connection is the end of the content.
    let old = rig.connect();
    old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    rig.until("the first piece", |_| old.received().ends_with(b"one "));
    rig.advance(SECOND);
    rig.end(&old);
    let answer = rig.answer(&old);
    assert_eq!((answer.text(), answer.field("connection")), ("one two", Some("close")));
    // And to HEAD there is none.
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(rig.head(&client).status, 200);
    client.get("/");
    rig.until("the next answer", |_| client.received().ends_with(b"one \r\n"));
    assert!(client.received().starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn pieces_follow_the_pace_of_a_slow_reader() {
    let highest = Rc::new(Cell::new(0));
    let seen = Rc::clone(&highest);
    let sent = Rc::new(Cell::new(0));
    let act = move |cx: &mut Cx<'_, State>, heard: &Heard| {
        match heard {
            Heard::Request(_) => drop(cx.respond(Response::stream("text/plain"))),
            Heard::Writable => drop(cx.data.log.pop()),
            _ => return,
        }
        while sent.get() < 1000 {
            sent.set(sent.get() + 1);
            let flow = cx.write(&[b'x'; 10_000]).unwrap();
            seen.set(seen.get().max(cx.conn().queued()));
            if flow == Flow::Full {
                return cx.conn().request_writable();
            }
        }
        cx.conn().end_response().unwrap();
    };
    let mut rig = server(act);
    let client = rig.connect();
    client.stop_reading();
    client.get("/");
    rig.run();
    let queued = rig.io().links().map(|link| link.queued).max();
    assert!(queued.is_some_and(|queued| queued >= 64 * 1024));
    client.resume_reading();
    assert_eq!(rig.answer(&client).content.len(), 10_000_000);
    assert!(highest.get() < 64 * 1024 + 10_100, "{}", highest.get());
}

#[test]
fn a_response_that_must_not_be_sent_is_named_and_the_answer_is_500() {
    type Make = fn() -> Response;
    let bad: [(Make, &str); 7] = [
        (|| Response::text("x").field("A", "b\r\nSet-Cookie: c").field("Content-Length", "7"), "A"),
        (|| Response::text("x").field("A\nB", "c"), "A\nB"),
        (|| Response::text("x").field("Content-Length", "7"), "Content-Length"),
        (
            || Response::text("x").field("Good", "a").field("Transfer-Encoding", "chunked"),
            "Transfer-Encoding",
        ),
        (|| Response::bytes("text/plain\r\nA: b", b"x"), "Content-Type"),
        (|| Response::text("x").status(StatusCode::NO_CONTENT), "content with a status that has none"),
        (|| Response::new(StatusCode::new(103).unwrap()), "informational status in place of a final one"),
    ];
    for (make, name) in bad {
        let mut rig = server(move |cx, heard| {
            if let Heard::Request(_) = heard {
                assert_eq!(cx.respond(make()), Err(SendError::Field(name.into())));
                assert_eq!(cx.respond(Response::text("good")), Err(SendError::Responded));
            }
        });
        let client = rig.connect();
        client.get("/");
        let answer = rig.answer(&client);
        assert_eq!((answer.status, answer.field("connection")), (500, Some("close")), "{name}");
        assert_eq!((answer.field("set-cookie"), answer.field("good")), (None, None));
        rig.end(&client);
        rig.until_logged("closed: Completed");
        // The same where nobody handles it.
        let mut rig = responder(move |_| make());
        let answer = rig.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((answer.status, answer.field("connection")), (500, Some("close")), "{name}");
    }
}

#[test]
fn a_response_is_refused_once_its_exchange_is_over() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(_) = heard {
            assert_eq!(cx.respond(Response::text("good").field("A", "b")), Ok(Flow::Ready));
            assert_eq!(cx.send("message"), Err(SendError::Role));
        }
        if let Heard::Closed(_) = heard {
            assert_eq!(cx.respond(Response::text("x")), Err(SendError::Gone));
            assert_eq!(cx.write(b"x"), Err(SendError::Gone));
            assert_eq!(cx.conn().end_response(), Err(SendError::Gone));
            cx.data.log.push("gone".to_owned());
        }
    });
    let client = rig.connect();
    client.get("/");
    let answer = rig.answer(&client);
    assert_eq!((answer.text(), answer.field("a"), answer.field("set-cookie")), ("good", Some("b"), None));
    rig.until_logged("gone");
}

#[test]
fn closing_an_exchange_without_a_response_ends_the_connection() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(line) = heard {
            match line.as_str() {
                "GET /close" => cx.close(),
                "GET /abort" => cx.conn().abort(),
                "GET /answer" => {
                    let _ = cx.respond(Response::text("last"));
                    cx.close();
                }
                _ => {
                    let _ = cx.respond(Response::stream("text/plain"));
                    cx.close();
                    assert_eq!(cx.write(b"still"), Ok(Flow::Ready));
                    assert_eq!(cx.conn().end_response(), Ok(Flow::Ready));
                }
            }
        }
    });
    let client = rig.connect();
    client.get("/close");
    rig.end(&client);
    assert_eq!(client.received(), b"");
    client.finish();
    rig.until_logged("closed: Closed");
    for (target, content) in [("/answer", "last"), ("/stream", "still")] {
        let client = rig.connect();
        client.get(target);
        client.get("/answer");
        assert_eq!(rig.answer(&client).text(), content);
        rig.end(&client);
        assert_eq!(client.received(), b"");
    }
    let client = rig.connect();
    client.get("/abort");
    rig.until("the reset", |_| client.was_reset());
    rig.until_logged("closed: Aborted");
}

#[test]
fn closing_within_content_leaves_the_handler_the_closing_limit_to_complete_it() {
    for (length, within) in [(None, true), (None, false), (Some(9), true), (Some(9), false)] {
        let mut rig = server(move |cx, heard| match heard {
            Heard::Request(_) => {
                let stream = Response::stream("text/plain");
                let _ = cx.respond(length.into_iter().fold(stream, Response::length));
                let _ = cx.write(b"some");
                cx.close();
                if within {
                    cx.conn().set_timer(SECOND * 5 - MILLI);
                }
            }
            Heard::Timer => {
                assert_eq!(cx.write(b", all"), Ok(Flow::Ready));
                assert_eq!(cx.conn().end_response(), Ok(Flow::Ready));
            }
            _ => {}
        });
        let client = rig.connect();
        client.get("/");
        rig.until("it begins", |_| client.received_len() > 100);
        rig.advance(SECOND * 5 - MILLI);
        if within {
            assert_eq!(rig.answer(&client).text(), "some, all");
            rig.end(&client);
            rig.until_logged("closed: Completed");
        } else {
            assert_eq!(rig.log(), ["GET /", "complete"]);
            rig.advance(MILLI);
            assert_eq!(rig.log(), ["closed: TimedOut(Closing)"]);
            rig.until("the end", |_| client.at_end());
            assert!(client.was_reset(), "what has come must not be taken for all");
        }
    }
}

#[test]
fn a_file_goes_out_whole_though_its_handler_has_closed() {
    let folder = Scratch::new("closed-file");
    let content: Vec<u8> = (0..12_000_000u32).map(|at| (at / 7) as u8).collect();
    let file = folder.file("file", &content);
    let mut rig = server(move |cx, heard| {
        if let Heard::Request(_) = heard {
            let _ = cx.respond(Response::file(&file, "a/b").unwrap());
            cx.close();
        }
    });
    let client = rig.connect();
    client.stop_reading();
    client.get("/");
    rig.until_logged("GET /");
    for _ in 0..4 {
        rig.advance(SECOND * 6);
        client.read_at_most(2_000_000);
        rig.run();
    }
    client.resume_reading();
    assert!(rig.answer(&client).content == content);
    rig.end(&client);
}

#[test]
fn content_for_a_head_request_may_be_written_and_is_not_sent() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(_) = heard {
            assert!(cx.respond(Response::stream("text/plain").length(6)).is_ok());
            assert_eq!(cx.write(b"abc"), Ok(Flow::Ready));
            assert_eq!(cx.write(b"def"), Ok(Flow::Ready));
            assert_eq!(cx.conn().end_response(), Ok(Flow::Ready));
        }
    });
    let client = rig.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(rig.head(&client).field("content-length"), Some("6"));
    client.get("/");
    assert_eq!(rig.answer(&client).text(), "abcdef");
}

#[test]
fn closing_after_the_response_does_not_wait_for_content_that_never_comes() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(_) = heard {
            let _ = cx.respond(Response::text("enough"));
            cx.close();
        }
    });
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    assert_eq!(rig.answer(&client).text(), "enough");
    rig.end(&client);
}

#[test]
fn a_handler_that_pauses_and_then_responds_does_not_keep_the_connection_for_ever() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Request(line) if line == "GET /paused" => {
            cx.conn().pause();
            cx.conn().set_timer(SECOND);
        }
        Heard::Request(_) | Heard::Timer => drop(cx.respond(Response::text("x"))),
        _ => {}
    });
    let client = rig.connect();
    client.get("/paused");
    rig.until_logged("GET /paused");
    rig.advance(SECOND);
    assert_eq!(rig.answer(&client).text(), "x");
    client.get("/next");
    assert_eq!(rig.answer(&client).text(), "x");
}

// Files.

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lodger-http-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_of_every_size_arrive_whole_with_their_type() {
    let scratch = Scratch::new("sizes");
    for length in [0, 1, 65_535, 65_536, 65_537, 5 * 1024 * 1024] {
        let content: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
        let path = scratch.file("file", &content);
        let mut rig = responder(move |_| Response::file(&path, "image/png").unwrap());
        let client = rig.connect();
        for _ in 0..2 {
            client.get("/");
            let answer = rig.answer(&client);
            assert_eq!(answer.field("content-type"), Some("image/png"));
            assert!(answer.content == content, "{length}");
        }
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(rig.head(&client).field("content-length"), Some(&*length.to_string()));
        client.get("/");
        assert!(rig.answer(&client).content == content);
    }
}

#[test]
fn a_large_file_follows_the_pace_of_a_slow_reader() {
    let scratch = Scratch::new("slow");
    let content: Vec<u8> = (0..12 * 1024 * 1024).map(|at| (at / 1000) as u8).collect();
    let path = scratch.file("file", &content);
    let act = move |cx: &mut Cx<'_, State>, heard: &Heard| {
        if let Heard::Request(_) = heard {
            assert!(cx.respond(Response::file(&path, "text/plain").unwrap()).is_ok());
            assert_eq!(cx.write(b"x"), Err(SendError::Responded));
        }
    };
    let mut rig = server(act);
    let client = rig.connect();
    client.stop_reading();
    client.get("/");
    rig.run();
    let mut highest = 0;
    while client.received_len() < content.len() {
        client.read_at_most(1024 * 1024);
        rig.run();
        highest = highest.max(rig.io().links().map(|link| link.queued).max().unwrap());
        assert!(highest <= 3 * 64 * 1024, "{highest}");
    }
    client.resume_reading();
    assert!(rig.answer(&client).content == content);
    rig.until_logged("closed: Completed");
}

#[test]
fn a_file_that_becomes_shorter_while_it_is_sent_ends_in_a_reset() {
    let scratch = Scratch::new("short");
    let path = scratch.file("file", &vec![b'x'; 12 * 1024 * 1024]);
    let served = path.clone();
    let mut rig = server(move |cx, heard| {
        if let Heard::Request(_) = heard {
            assert!(cx.respond(Response::file(&served, "text/plain").unwrap()).is_ok());
        }
    });
    let client = rig.connect();
    client.stop_reading();
    client.get("/");
    rig.run();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1024).unwrap();
    client.resume_reading();
    rig.until("the reset", |_| client.was_reset());
    rig.run();
    assert!(rig.log().iter().any(|line| line.starts_with("closed: File UnexpectedEof")));
}

#[test]
fn a_client_that_leaves_while_a_file_is_sent_ends_the_exchange() {
    let scratch = Scratch::new("leaves");
    let path = scratch.file("file", &vec![b'x'; 12 * 1024 * 1024]);
    let mut rig = server(move |cx, heard| {
        if let Heard::Request(_) = heard {
            let _ = cx.respond(Response::file(&path, "text/plain").unwrap());
        }
    });
    let client = rig.connect();
    client.stop_reading();
    client.get("/");
    rig.run();
    client.reset();
    rig.until("the end", |rig| rig.io().link_count() == 1);
    let last = rig.log().pop().unwrap();
    assert!(last.starts_with("closed: ConnectionReset"), "{last}");
}

// Errors.

#[test]
fn what_is_wrong_with_a_request_has_its_status_and_ends_the_connection() {
    let limits = Limits { head: 2000, fields: 10, content: Some(100), ..Limits::default() };
    let mut rig = responder_with(limits, path);
    let fields: String = (0..11).map(|at| format!("F{at}: x\r\n")).collect();
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n".to_owned(), 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n".to_owned(), 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 501),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\0".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(3000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(3000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n".to_owned(), 413),
    ];
    for (request, status) in cases {
        let client = rig.connect();
        client.send(&request);
        let answer = rig.answer(&client);
        assert_eq!(answer.status, status, "{request:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{request:?}");
        rig.end(&client);
        assert_eq!(rig.log(), [] as [&str; 0], "{request:?}");
    }
}

#[test]
fn malformed_content_is_answered_and_its_handler_told() {
    let limits = Limits { content: Some(10), ..Limits::default() };
    let mut rig = server_with(limits, |_, _| {});
    for (content, status, closed) in [
        ("5\r\nhello\r\nx\r\n", 400, "closed: Content"),
        ("5\r\nhelloX", 400, "closed: Content"),
        ("-1\r\n", 400, "closed: Content"),
        ("5\nhello", 400, "closed: Content"),
        ("5\r\nhello\r\n6\r\n", 413, "closed: ContentTooLarge"),
    ] {
        let client = rig.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(content);
        client.get("/smuggled");
        assert_eq!(rig.answer(&client).status, status, "{content:?}");
        rig.end(&client);
        assert_eq!(client.received(), b"");
        rig.until_logged(closed);
        assert!(!rig.log().iter().any(|line| line.contains("smuggled")), "{content:?}");
    }
}

#[test]
fn a_second_request_behind_an_error_is_not_answered() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut rig = responder(path);
    for first in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ] {
        let client = rig.connect();
        client.get("/before");
        client.send([first, smuggled].concat());
        assert_eq!(rig.answer(&client).text(), "/before");
        assert!([400, 501].contains(&rig.answer(&client).status), "{first}");
        rig.end(&client);
        assert_eq!(client.received(), b"");
        assert_eq!(rig.log(), ["GET /before"]);
    }
}

#[test]
fn a_client_that_still_sends_gets_the_whole_error_and_no_reset() {
    let limits = Limits { content: Some(1000), ..Limits::default() };
    let mut rig = responder_with(limits, path);
    let client = rig.connect();
    // The client sends its megabytes before it looks at the answer.
    client.stop_reading();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n");
    client.send(vec![b'x'; 8_000_000]);
    rig.until("all was taken", |_| client.unsent() == 0);
    client.resume_reading();
    assert_eq!(rig.answer(&client).status, 413);
    rig.end(&client);
    client.finish();
    rig.until("the end", |rig| rig.io().link_count() == 1);
}

#[test]
fn lingering_after_an_error_ends_at_the_limit() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.send("nonsense\r\n\r\n");
    assert_eq!(rig.answer(&client).status, 400);
    rig.end(&client);
    rig.advance(SECOND * 5 - MILLI);
    client.send("more");
    rig.run();
    assert_eq!(rig.io().link_count(), 2);
    rig.advance(MILLI);
    assert_eq!(rig.io().link_count(), 1);
}

#[test]
fn a_site_that_cannot_serve_what_it_holds_is_not_added() {
    let page = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::respond(Response::text("page"));
    let mut rig = responder(path);
    for (names, error, text) in [
        (&[][..], SiteError::NoProtocol, "the site has no protocol"),
        (&["", ""], SiteError::SameName("".into()), "two protocols of the site have no name"),
        (
            &["", "chat", "chat"],
            SiteError::SameName("chat".into()),
            "two protocols of the site have the name chat",
        ),
        (
            &["chat", "", "chat"],
            SiteError::SameName("chat".into()),
            "two protocols of the site have the name chat",
        ),
        (&["a b"], SiteError::Name("a b".into()), "the name of a protocol is not a token: \"a b\""),
        (&["", "a,b"], SiteError::Name("a,b".into()), "the name of a protocol is not a token: \"a,b\""),
    ] {
        let site = names.iter().fold(Site::new(), |site, name| site.protocol(name, page));
        let refused = rig.io().add_site(site).unwrap_err();
        assert_eq!(refused.to_string(), text);
        assert_eq!(refused, error);
    }
    // Names of subprotocols are compared as they are (RFC 6455, section 4.2.2).
    let site = ["chat", "Chat", ""].iter().fold(Site::new(), |site, name| site.protocol(name, page));
    let site = rig.io().add_site(site).unwrap();
    assert!(rig.io().protocol(site, "Chat") != rig.io().protocol(site, "chat"));
    rig.run();
}

// Time.

#[test]
fn a_connection_that_says_nothing_is_dropped_at_the_handshake_limit() {
    let mut rig = responder(path);
    let (silent, partial) = (rig.connect(), rig.connect());
    partial.send("GET / HTTP/1.1\r\nHo");
    rig.run();
    rig.advance(SECOND * 10 - MILLI);
    // A byte now and then buys no time.
    partial.send("s");
    rig.run();
    assert!(!silent.at_end());
    assert_eq!(partial.received(), b"");
    rig.advance(MILLI);
    rig.end(&silent);
    assert_eq!(silent.received(), b"");
    assert_eq!(rig.answer(&partial).status, 408);
    rig.end(&partial);
}

#[test]
fn the_head_of_a_later_request_has_its_own_time() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.get("/a");
    assert_eq!(rig.answer(&client).status, 200);
    rig.advance(SECOND * 50);
    client.send("GET /b HTTP/1.1\r\n");
    rig.run();
    rig.advance(SECOND * 10 - MILLI);
    client.send("Host: a\r\n");
    rig.run();
    assert_eq!(client.received(), b"");
    rig.advance(MILLI);
    assert_eq!(rig.answer(&client).status, 408);
    rig.end(&client);
}

#[test]
fn an_idle_connection_is_ended_at_the_keep_alive_limit() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.get("/a");
    assert_eq!(rig.answer(&client).status, 200);
    rig.advance(SECOND * 60 - MILLI);
    client.get("/b");
    assert_eq!(rig.answer(&client).status, 200);
    rig.advance(SECOND * 60 - MILLI);
    assert!(!client.at_end());
    rig.advance(MILLI);
    rig.end(&client);
    assert_eq!(client.received(), b"");
    assert_eq!(rig.io().link_count(), 1);
}

#[test]
fn content_that_stops_coming_is_given_up_at_the_stall_limit() {
    let mut rig = server(|_, _| {});
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    rig.until_logged("POST /");
    rig.advance(SECOND * 30 - MILLI);
    client.send("a");
    rig.until_logged("bytes a");
    rig.advance(SECOND * 30 - MILLI);
    assert_eq!(client.received(), b"");
    rig.advance(MILLI);
    assert_eq!(rig.answer(&client).status, 408);
    rig.end(&client);
    rig.until_logged("closed: TimedOut(BodyStall)");
}

#[test]
fn content_that_nobody_wants_and_that_stops_coming_is_given_up_too() {
    let mut rig = responder(path);
    let client = rig.connect();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(rig.answer(&client).text(), "/a");
    rig.advance(SECOND * 30 - MILLI);
    assert!(!client.at_end());
    rig.advance(MILLI);
    rig.until("the end", |_| client.at_end());
}

#[test]
fn a_handler_that_takes_its_time_is_not_hurried_where_the_limit_allows_it() {
    let limits = Limits { begin_response: SECOND * 100_001, ..Limits::default() };
    let mut rig = server_with(limits, |cx, heard| match heard {
        Heard::Complete(_) => cx.conn().set_timer(SECOND * 100_000),
        Heard::Timer => drop(cx.respond(Response::text("late"))),
        _ => {}
    });
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    rig.until_logged("complete");
    rig.advance(SECOND * 100_000);
    assert_eq!(rig.answer(&client).text(), "late");
}

#[test]
fn a_handler_that_never_begins_its_response_is_ended_with_503_at_the_limit() {
    for (request, heard) in [
        ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a"),
        ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "POST /a"),
        ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "POST /a"),
        ("GET /pause HTTP/1.1\r\nHost: a\r\n\r\n", "GET /pause"),
        // Another request that waits changes nothing.
        ("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a"),
    ] {
        let mut rig = server(|cx, heard| {
            if matches!(heard, Heard::Request(line) if line == "GET /pause") {
                cx.conn().pause();
            }
        });
        let client = rig.connect();
        client.send(request);
        rig.until_logged(heard);
        rig.run();
        rig.advance(SECOND * 120 - MILLI);
        assert_eq!(rig.log()[0], heard);
        assert_eq!(client.received(), b"");
        rig.advance(MILLI);
        let answer = rig.answer(&client);
        assert_eq!((answer.status, answer.field("connection")), (503, Some("close")));
        rig.end(&client);
        assert_eq!(rig.log(), ["closed: TimedOut(BeginResponse)"]);
        client.finish();
        rig.until("the end", |rig| rig.io().link_count() == 1);
    }
}

#[test]
fn the_time_to_begin_a_response_runs_from_the_end_of_the_content() {
    let limits = Limits { begin_response: SECOND * 20, ..Limits::default() };
    let mut rig = server_with(limits, |_, _| {});
    let client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    for piece in ["a", "b", "c"] {
        rig.advance(SECOND * 15);
        client.send(piece);
        rig.until_logged(&format!("bytes {piece}"));
    }
    rig.until_logged("complete");
    rig.advance(SECOND * 20 - MILLI);
    assert!(!rig.log().iter().any(|line| line.starts_with("closed")));
    rig.advance(MILLI);
    assert_eq!(rig.log(), ["closed: TimedOut(BeginResponse)"]);
}

#[test]
fn an_event_stream_that_has_begun_is_not_cut() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Complete(_) => cx.conn().set_timer(SECOND * 119),
        Heard::Timer => drop(cx.respond(Response::stream("text/event-stream"))),
        Heard::Event(_) => drop((cx.write(b"data: x\n\n"), cx.conn().end_response())),
        _ => {}
    });
    let client = rig.connect();
    client.get("/");
    rig.until_logged("complete");
    rig.advance(SECOND * 119);
    rig.advance(SECOND * 1_000_000);
    let id = rig.state.conns[0];
    rig.io().notify(id, Box::new("go")).unwrap();
    assert_eq!(rig.answer(&client).text(), "data: x\n\n");
}

#[test]
fn a_client_that_takes_nothing_of_its_response_is_dropped_at_the_write_stall() {
    let mut rig = server(|cx, heard| {
        if let Heard::Request(_) = heard {
            let _ = cx.respond(Response::bytes("text/plain", vec![b'x'; 12_000_000]));
        }
    });
    let client = rig.connect();
    client.stop_reading();
    client.get("/");
    rig.until_logged("GET /");
    rig.advance(SECOND * 30 - MILLI);
    assert_eq!(rig.log(), ["GET /", "complete"]);
    rig.advance(MILLI);
    let mut log = rig.log();
    if log.is_empty() {
        // The kernel has taken a little more since it was last asked, though the client reads nothing.
        rig.advance(SECOND * 30);
        log = rig.log();
    }
    assert_eq!(log, ["closed: TimedOut(WriteStall), unsent"]);
}

// Ends.

#[test]
fn a_graceful_shutdown_finishes_requests_under_way_and_ends_idle_connections() {
    let mut rig = server(|cx, heard| match heard {
        Heard::Request(line) if line == "GET /slow" => cx.conn().set_timer(SECOND),
        Heard::Request(_) => drop(cx.respond(Response::text("quick"))),
        Heard::Timer => drop(cx.respond(Response::text("slow"))),
        _ => {}
    });
    let (idle, busy, fresh) = (rig.connect(), rig.connect(), rig.connect());
    idle.get("/quick");
    assert_eq!(rig.answer(&idle).text(), "quick");
    busy.get("/slow");
    rig.until_logged("GET /slow");
    rig.io().shutdown(lodger::ws::CloseCode::GOING_AWAY);
    rig.end(&idle);
    assert!(std::net::TcpStream::connect(rig.address).is_err());
    rig.advance(SECOND);
    let answer = rig.answer(&busy);
    assert_eq!((answer.text(), answer.field("connection")), ("slow", Some("close")));
    rig.end(&busy);
    busy.finish();
    idle.finish();
    // Its first request is waited for.
    rig.advance(Limits::default().closing - SECOND);
    rig.end(&fresh);
    rig.until("everything", |rig| rig.io().link_count() == 0);
}

#[test]
fn an_exchange_can_be_the_parent_of_another() {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let children = Rc::clone(&heard);
    let mut rig = server(move |cx, heard| match heard {
        Heard::Request(line) if line == "GET /child" => {
            let parent = cx.data.conns[0];
            cx.conn().set_parent(parent);
            let _ = cx.respond(Response::text("child"));
        }
        Heard::ChildClosed(child) => {
            children.borrow_mut().push(*child);
            let _ = cx.respond(Response::text("parent"));
        }
        _ => {}
    });
    let (parent, child) = (rig.connect(), rig.connect());
    parent.get("/parent");
    rig.until_logged("GET /parent");
    child.get("/child");
    assert_eq!(rig.answer(&child).text(), "child");
    assert_eq!(rig.answer(&parent).text(), "parent");
    assert_eq!(*heard.borrow(), rig.state.conns[1..2]);
}
