//! Exchanges of an HTTP client with a server whose every byte is the test's: one after another, in pieces both ways, and how
//! redirects are followed.

use super::town::{Heard, MILLI, Script, State, Town, field};
use lodger::client::ExchangeError;
use lodger::http::ClientRequest;
use lodger::sim::{Endpoint, Server};
use lodger::{CloseReason, ConnId, Connect, Cx, Flow, Limits, SendError, Timeout};
use std::time::Duration;

const HTTP: &str = "http://10.0.0.1/";
const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A client that has sent this, and the server it has sent it to.
fn asked(connect: Connect, request: ClientRequest, script: Box<Script>) -> (Town, Server, Endpoint, ConnId) {
    let mut town = Town::new();
    let mut server = town.server("10.0.0.1:80");
    let id = town.http(connect, request, script);
    let peer = town.accept(&mut server);
    assert_eq!(town.log(), ["connected"]);
    (town, server, peer, id)
}

fn get() -> (Town, Server, Endpoint, ConnId) {
    asked(Connect::to(HTTP), ClientRequest::get(), Script::quiet())
}

fn text(peer: &mut Endpoint) -> String {
    String::from_utf8(peer.take()).unwrap()
}

#[test]
fn requests_follow_one_another_on_one_connection() {
    let (mut town, mut server, mut peer, id) = get();
    assert!(text(&mut peer).starts_with("GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n"));
    for target in ["/b", "/c"] {
        let second = ClientRequest::get().target(target);
        let refused = town.context.io().conn(id).unwrap().request(second.clone());
        assert_eq!(refused, Err(SendError::InExchange), "requests are not pipelined");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        town.run();
        assert_eq!(town.context.io().conn(id).unwrap().request(second.clone()), Err(SendError::InExchange));
        peer.send("ok");
        town.run();
        assert_eq!(town.log(), ["response 200", "bytes ok", "complete"]);
        assert_eq!(peer.received(), b"");
        town.context.io().conn(id).unwrap().request(second).unwrap();
        town.run();
        assert!(text(&mut peer).starts_with(&format!("GET {target} HTTP/1.1\r\n")));
    }
    peer.send(EMPTY);
    town.run();
    town.context.io().conn(id).unwrap().close();
    town.run();
    peer.finish();
    town.run();
    assert_eq!(town.log().len(), 3);
    let reason = town.end();
    assert!(matches!(reason, CloseReason::Completed | CloseReason::Closed), "{reason:?}");
    assert!(server.accept().is_none());
}

#[test]
fn chunks_are_removed_and_trailers_told_in_any_split() {
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nSum: 7\r\n\r\n";
    for split in 0..RESPONSE.len() {
        let (mut town, _server, mut peer, _) = get();
        peer.send(&RESPONSE[..split]);
        town.run();
        peer.send(&RESPONSE[split..]);
        town.run();
        let log = town.log();
        let bytes: String = log.iter().filter_map(|line| line.strip_prefix("bytes ")).collect();
        assert_eq!((log[0].as_str(), bytes.as_str(), log.last().unwrap().as_str()), {
            ("response 200", "hello!", "complete, Sum: 7")
        });
    }
}

#[test]
fn responses_without_content_are_complete_at_once() {
    for (request, response) in [
        (ClientRequest::head(), "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        (ClientRequest::head(), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (ClientRequest::get(), "HTTP/1.1 204 No Content\r\n\r\n"),
        (ClientRequest::get(), "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        (ClientRequest::get(), EMPTY),
    ] {
        let (mut town, _server, mut peer, id) = asked(Connect::to(HTTP), request, Script::quiet());
        peer.send(response);
        town.run();
        let log = town.log();
        assert_eq!((log.len(), log[1].as_str()), (2, "complete"), "{response:?}: {log:?}");
        assert_eq!(town.context.io().conn(id).unwrap().request(ClientRequest::get()), Ok(Flow::Ready));
    }
}

#[test]
fn content_of_no_stated_length_ends_with_the_connection() {
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let (mut town, _server, mut peer, id) = get();
        peer.send(format!("{head}until"));
        town.run();
        peer.send(" the end");
        town.run();
        assert!(town.context.io().conn(id).is_some());
        peer.finish();
        town.run();
        assert_eq!(town.log()[..4], ["response 200", "bytes until", "bytes  the end", "complete"]);
        assert!(matches!(town.end(), CloseReason::Completed));
    }
}

#[test]
fn a_connection_that_is_not_kept_takes_no_other_request() {
    let close = || ClientRequest::get().close();
    for (request, response) in [
        (ClientRequest::get(), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        (ClientRequest::get(), "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (close(), EMPTY),
    ] {
        let script = Script::new(|cx, heard| {
            if let Heard::Complete(_) = heard {
                assert_eq!(cx.conn().request(ClientRequest::get()), Err(SendError::Closing));
            }
        });
        let (mut town, _server, mut peer, _) = asked(Connect::to(HTTP), request, script);
        peer.send(response);
        town.run();
        assert!(matches!(town.end(), CloseReason::Completed), "{response:?}");
        assert_eq!(town.descriptors(), 0);
    }
}

#[test]
fn a_request_that_must_not_be_sent_is_named_and_nothing_of_it_goes_out() {
    let (mut town, _server, mut peer, id) = get();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    town.run();
    for (request, name) in [
        (ClientRequest::get().field("A", "b\nc").field("Host", "x"), "A"),
        (ClientRequest::get().field("a b", "c"), "a b"),
        (ClientRequest::get().field("Good", "x").field("Host", "x"), "Host"),
        (ClientRequest::get().target("x"), "target is not a percent-encoded path with perhaps a query"),
    ] {
        let sent = town.context.io().conn(id).unwrap().request(request);
        assert_eq!(sent, Err(SendError::Field(name.into())));
    }
    town.run();
    text(&mut peer);
    assert_eq!(town.context.io().conn(id).unwrap().request(ClientRequest::get()), Ok(Flow::Ready));
    town.run();
    assert!(text(&mut peer).starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn a_paused_client_hears_of_a_reset_within_seconds_and_of_an_end_in_its_place() {
    for reset in [true, false] {
        let script = Script::new(|cx, heard| {
            if let Heard::Bytes(_) = heard {
                cx.conn().pause();
            }
        });
        let (mut town, _server, mut peer, id) = asked(Connect::to(HTTP), ClientRequest::get(), script);
        text(&mut peer);
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none");
        town.run();
        peer.send("two");
        town.run_for(Duration::from_secs(1000));
        assert_eq!(town.log(), ["response 200", "bytes one"]);
        if reset {
            peer.reset();
            town.run_for(Duration::from_secs(5));
            let reason = town.end();
            assert!(matches!(&reason, CloseReason::Io(_)), "{reason:?}");
            assert_eq!(town.descriptors(), 0);
        } else {
            peer.finish();
            town.run_for(Duration::from_secs(1000));
            assert_eq!(town.log(), [""; 0]);
            town.context.io().conn(id).unwrap().resume();
            town.run();
            town.context.io().conn(id).unwrap().resume();
            town.run();
            assert_eq!(town.log()[..2], ["bytes two", "complete"]);
        }
    }
}

#[test]
fn a_server_may_end_a_connection_between_requests() {
    let (mut town, _server, mut peer, _) = get();
    peer.send(EMPTY);
    town.run();
    peer.finish();
    town.run();
    let reason = town.end();
    assert!(matches!(reason, CloseReason::PeerEnded) && reason.is_transient(), "{reason:?}");
}

#[test]
fn content_goes_out_in_pieces() {
    for length in [Some(8), None] {
        let request = ClientRequest::new("PUT").content_stream(length);
        let (mut town, _server, mut peer, id) = asked(Connect::to(HTTP), request, Script::quiet());
        let head = text(&mut peer);
        assert_eq!(field(&head, "Content-Length").is_some(), length.is_some());
        for piece in ["one ", "more"] {
            town.context.io().conn(id).unwrap().write(piece.as_bytes()).unwrap();
            town.run();
            assert!(text(&mut peer).contains(piece));
        }
        let mut conn = town.context.io().conn(id).unwrap();
        assert!(length.is_none() || conn.write(b"!") != Ok(Flow::Ready), "more than was announced");
        conn.end_request().unwrap();
        town.run();
        assert_eq!(text(&mut peer), if length.is_some() { "" } else { "0\r\n\r\n" });
        peer.send(EMPTY);
        town.run();
        assert_eq!(town.log(), ["response 200", "complete"]);
    }
}

#[test]
fn content_that_is_shorter_than_announced_cannot_be_ended() {
    let request = ClientRequest::new("PUT").content_stream(Some(8));
    let (mut town, _server, _peer, id) = asked(Connect::to(HTTP), request, Script::quiet());
    let mut conn = town.context.io().conn(id).unwrap();
    assert_eq!((conn.write(b"four"), conn.end_request()), (Ok(Flow::Ready), Err(SendError::Length)));
}

#[test]
fn content_that_is_expected_waits_for_the_server_to_want_it() {
    let request = || ClientRequest::post(b"content").expect_continue(Duration::from_secs(1));
    // It is wanted.
    let (mut town, _server, mut peer, _) = asked(Connect::to(HTTP), request(), Script::quiet());
    assert!(text(&mut peer).ends_with("Expect: 100-continue\r\n\r\n"));
    peer.send("HTTP/1.1 100 Continue\r\n\r\n");
    town.run();
    assert_eq!((text(&mut peer).as_str(), town.log().len()), ("content", 0));
    peer.send(EMPTY);
    town.run();
    assert_eq!(town.log(), ["response 200", "complete"]);
    // It is not.
    let (mut town, _server, mut peer, _) = asked(Connect::to(HTTP), request(), Script::quiet());
    text(&mut peer);
    peer.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    town.run();
    assert_eq!(town.log()[..2], ["response 417", "complete"]);
    assert!(matches!(town.end(), CloseReason::Completed) && peer.received().is_empty());
    // Nobody says.
    let (mut town, _server, mut peer, _) = asked(Connect::to(HTTP), request(), Script::quiet());
    text(&mut peer);
    town.run_for(Duration::from_secs(1) - MILLI);
    assert_eq!(text(&mut peer), "");
    town.run_for(MILLI);
    assert_eq!(text(&mut peer), "content");
}

#[test]
fn a_stream_that_is_expected_hears_when_it_may_go_on() {
    let request = ClientRequest::new("PUT").content_stream(None).expect_continue(Duration::from_secs(1));
    let (mut town, _server, mut peer, id) = asked(Connect::to(HTTP), request, Script::quiet());
    text(&mut peer);
    assert_eq!(town.context.io().conn(id).unwrap().write(b"early"), Err(SendError::Expecting));
    assert_eq!(town.context.io().conn(id).unwrap().end_request(), Err(SendError::Expecting));
    peer.send("HTTP/1.1 100 Continue\r\n\r\n");
    town.run();
    assert_eq!(town.log(), ["writable"]);
    let mut conn = town.context.io().conn(id).unwrap();
    assert!(conn.write(b"now").is_ok() && conn.end_request().is_ok());
    town.run();
    assert_eq!(text(&mut peer), "3\r\nnow\r\n0\r\n\r\n");
}

#[test]
fn a_response_may_come_before_all_of_the_request_is_out() {
    let request = ClientRequest::new("PUT").content_stream(Some(1000));
    let (mut town, _server, mut peer, id) = asked(Connect::to(HTTP), request, Script::quiet());
    town.context.io().conn(id).unwrap().write(b"some").unwrap();
    peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
    town.run();
    assert_eq!(town.log()[..3], ["response 413", "bytes no", "complete"]);
    // What was announced and never came would be taken for the next request.
    assert!(matches!(town.end(), CloseReason::Completed));
    assert_eq!(town.descriptors(), 0);
}

#[test]
fn while_the_reader_pauses_nothing_is_read() {
    let script = Script::new(|cx, heard| {
        if let Heard::Bytes(_) = heard {
            cx.conn().pause();
        }
    });
    let (mut town, _server, mut peer, id) = asked(Connect::to(HTTP), ClientRequest::get(), script);
    const LENGTH: usize = 3_000_000;
    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
    peer.send(vec![b'x'; LENGTH]);
    town.run();
    let unsent = peer.unsent();
    assert!(unsent > 2_000_000, "{unsent}");
    // Nor does a pause count as a stall.
    town.run_for(Duration::from_secs(300));
    assert_eq!((peer.unsent(), town.log().len()), (unsent, 2));
    let mut resumed = 0;
    while town.state.log.last().is_none_or(|line| line != "complete") {
        town.context.io().conn(id).unwrap().resume();
        town.run();
        resumed += 1;
        assert!(resumed < 10_000, "{} bytes wait", peer.unsent());
    }
    let bytes: usize = town.log().iter().filter_map(|line| line.strip_prefix("bytes ")).map(str::len).sum();
    assert!(bytes > 2_000_000 && peer.unsent() == 0);
}

#[test]
fn a_response_has_its_time_and_not_a_millisecond_less() {
    let limits = || Limits { response: 700 * MILLI, body_stall: 300 * MILLI, ..Limits::default() };
    let (mut town, _server, _peer, _) =
        asked(Connect::to(HTTP).limits(limits()), ClientRequest::get(), Script::quiet());
    town.run_for(699 * MILLI);
    assert!(town.log().is_empty());
    town.run_for(MILLI);
    assert!(matches!(town.end(), CloseReason::TimedOut(Timeout::Response)));

    let (mut town, _server, mut peer, _) =
        asked(Connect::to(HTTP).limits(limits()), ClientRequest::get(), Script::quiet());
    town.run_for(699 * MILLI);
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    town.run_for(299 * MILLI);
    peer.send("some");
    town.run_for(299 * MILLI);
    assert_eq!(town.log(), ["response 200", "bytes some"]);
    town.run_for(2 * MILLI);
    let reason = town.end();
    assert!(
        matches!(reason, CloseReason::TimedOut(Timeout::BodyStall)) && reason.is_transient(),
        "{reason:?}"
    );
    assert_eq!(town.descriptors(), 0);
}

#[test]
fn interim_responses_are_told_but_for_100() {
    let (mut town, _server, mut peer, _) = get();
    peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    peer.send(EMPTY);
    town.run();
    assert_eq!(town.log(), ["interim 103", "response 200", "complete"]);
}

// Redirects.

/// Redirects a request from the one server to a place, and returns what is asked there.
fn redirected(status: u16, location: &str, connect: Connect, request: ClientRequest) -> String {
    let (mut town, mut server, mut peer, _) = asked(connect, request, Script::quiet());
    let mut elsewhere = town.server("10.0.0.2:80");
    peer.send(format!("HTTP/1.1 {status} There\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\ngone"));
    town.run();
    let next = server.accept().or_else(|| elsewhere.accept());
    let mut next = next.unwrap_or_else(|| panic!("not followed: {:?}", town.state.log));
    assert!(peer.at_end());
    let asked = text(&mut next);
    next.send(EMPTY);
    town.run();
    // The first answer is nobody's business, and what is asked next is not for another server to hear.
    assert_eq!(town.log()[..2], ["response 200", "complete"]);
    asked
}

#[test]
fn methods_and_content_change_as_the_status_says() {
    for (status, method, becomes, content) in [
        (301, "POST", "GET", false),
        (302, "POST", "GET", false),
        (303, "POST", "GET", false),
        (303, "PUT", "GET", false),
        (307, "POST", "POST", true),
        (308, "POST", "POST", true),
        (301, "PUT", "PUT", true),
        (302, "DELETE", "DELETE", true),
    ] {
        let request = ClientRequest::new(method).content(b"body").field("Content-Type", "text/plain");
        let asked = redirected(status, "/b?c", Connect::to(HTTP), request);
        assert!(
            asked.starts_with(&format!("{becomes} /b?c HTTP/1.1\r\nHost: 10.0.0.1\r\n")),
            "{status}: {asked}"
        );
        assert_eq!((asked.ends_with("body"), asked.contains("Content-Type")), (content, content), "{asked}");
    }
    let asked = redirected(303, "/b", Connect::to(HTTP), ClientRequest::head());
    assert!(asked.starts_with("HEAD /b "), "{asked}");
}

#[test]
fn credentials_stay_with_the_host_they_are_for() {
    let connect = || Connect::to(HTTP).field("Authorization", "all").field("X-Kind", "a");
    let request = || ClientRequest::get().field("Cookie", "one").field("X-One", "b");
    for (location, kept) in
        [("/b", true), ("http://10.0.0.1/b", true), ("http://10.0.0.2/b", false), ("//10.0.0.2/b", false)]
    {
        let asked = redirected(302, location, connect(), request());
        assert_eq!(
            (asked.contains("Authorization: all"), asked.contains("Cookie: one")),
            (kept, kept),
            "{location}"
        );
        assert!(asked.contains("X-Kind: a") && asked.contains("X-One: b"), "{asked}");
        let host = if kept { "Host: 10.0.0.1\r\n" } else { "Host: 10.0.0.2\r\n" };
        assert!(asked.contains(host), "{asked}");
    }
}

#[test]
fn what_cannot_be_sent_again_is_not_redirected() {
    let request = ClientRequest::new("PUT").content_stream(None);
    let (mut town, mut server, mut peer, _) = asked(Connect::to(HTTP), request, Script::quiet());
    peer.send("HTTP/1.1 307 There\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
    town.run();
    assert_eq!(town.log()[..2], ["response 307", "complete"]);
    assert!(server.accept().is_none());
}

#[test]
fn a_redirected_exchange_goes_on_as_any_other() {
    let script = Script::new(|cx: &mut Cx<'_, State>, heard| {
        if let Heard::Complete(_) = heard
            && cx.data.count == 0
        {
            cx.data.count = 1;
            cx.conn().request(ClientRequest::get().target("/next")).unwrap();
        }
    });
    let (mut town, mut server, mut peer, _) = asked(Connect::to(HTTP), ClientRequest::get(), script);
    peer.send("HTTP/1.1 301 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
    let mut next = town.accept(&mut server);
    text(&mut next);
    next.send(EMPTY);
    town.run();
    assert!(text(&mut next).starts_with("GET /next "));
    next.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfo");
    next.finish();
    town.run();
    assert!(matches!(town.exchange_error(), ExchangeError::Truncated));
}
