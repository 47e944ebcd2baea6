//! What handlers may do: end anything from anywhere, and unwind.

mod support;

use lodger::{CloseReason, ConnId, Context, Interest, Io, Limits, Peer, Served, raw, ws};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;
use support::*;

/// A house with a conn of each kind, and those at the other ends.
struct Crowd {
    house: House,
    server: Server,
    socket: Client,
    other: Client,
    raw: Client,
    http: Client,
    pipe: Option<io::PipeWriter>,
    ids: Vec<ConnId>,
}

impl Crowd {
    fn new() -> Self {
        let limits = Limits { closing: Duration::from_millis(5), ..Limits::default() };
        let (mut house, server) = served_with(Context::new(), limits);
        let (socket, first) = server.websocket(&mut house);
        let (other, second) = server.websocket(&mut house);
        let (raw, third) = server.raw(&mut house);
        let mut http = Client::tcp(server.address);
        http.write(b"POST /probe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc");
        house.until("the content begins", |house| house.data.count("body") == 1);
        let fourth = house.data.log.last().unwrap().0;
        let (reader, writer) = io::pipe().unwrap();
        let fifth = house.io().adopt(reader.into(), Interest::READ, Box::new(Probe)).unwrap();
        house.settle();
        house.data.log.clear();
        let ids = vec![first, second, third, fourth, fifth];
        Self { house, server, socket, other, raw, http, pipe: Some(writer), ids }
    }

    /// Makes every event happen, on everything that is still there.
    fn stir(&mut self) {
        for &id in &self.ids {
            if let Some(mut conn) = self.house.io().conn(id) {
                conn.request_writable();
                conn.set_timer(Duration::ZERO);
                let _ = self.house.io().notify(id, Box::new(()));
            }
        }
        self.house.turn(Duration::ZERO);
        let mut batch = client_frame(1, b"message");
        batch.extend(client_frame(9, b"ping"));
        batch.extend(client_frame(10, b"pong"));
        batch.extend(client_frame(1, b"message"));
        for client in [&mut self.socket, &mut self.other] {
            let _ = io::Write::write(&mut client.stream, &batch);
        }
        let _ = io::Write::write(&mut self.raw.stream, b"bytes");
        let _ = io::Write::write(&mut self.http.stream, b"def");
        let _ = io::Write::write(self.pipe.as_mut().unwrap(), b"line");
        let mut late = Client::tcp(self.server.address);
        let _ = io::Write::write(&mut late.stream, UPGRADE);
        let _late_raw = Client::tcp(self.server.raw_address);
        self.house.turn(Duration::from_millis(1));
        self.house.turn(Duration::from_millis(1));
        for client in [&mut self.socket, &mut self.other, &mut late] {
            let _ = io::Write::write(&mut client.stream, &client_frame(8, &1000u16.to_be_bytes()));
        }
        let _ = self.raw.stream.shutdown(std::net::Shutdown::Write);
        self.pipe = None;
        self.house.turn(Duration::from_millis(1));
        self.house.turn(Duration::from_millis(1));
    }

    /// Everybody goes; then all that was opened has ended once, and heard nothing after that.
    fn check(mut self, what: &str) {
        let Self { socket, other, raw, http, .. } = self;
        drop((socket, other, raw, http));
        self.house.io().shutdown(ws::CloseCode::GOING_AWAY);
        self.house.data.act = None;
        self.house.until("all have gone", |house| house.io().link_count() == 0 && house.context_is_quiet());
        let state = &self.house.data;
        for id in self.ids {
            let heard = state.heard(id);
            let times = heard.iter().filter(|what| **what == "closed").count();
            assert_eq!((times, heard.last()), (1, Some(&"closed")), "{what}: {id} heard {heard:?}");
        }
        for (id, _) in &state.log {
            let heard = state.heard(*id);
            if let Some(at) = heard.iter().position(|what| *what == "closed") {
                assert_eq!(at + 1, heard.len(), "{what}: {id} heard {heard:?}");
            } else {
                assert!(heard.iter().all(|what| what.starts_with("accept")), "{what}: {id} heard {heard:?}");
            }
        }
        self.house.leave();
    }
}

trait Quiet {
    fn context_is_quiet(&mut self) -> bool;
}

impl Quiet for House {
    fn context_is_quiet(&mut self) -> bool {
        !self.host.prepare(&mut self.context).is_now()
    }
}

const EVENTS: &[&str] = &[
    "accept",
    "opened",
    "raw opened",
    "request",
    "message",
    "ping",
    "pong",
    "peer_closed",
    "received",
    "end",
    "body",
    "body_complete",
    "readable",
    "writable",
    "timer",
    "event",
    "closed",
];

/// Runs `act` at the first `event` of each conn kind, and then checks that all ended as they should.
fn at_each_event(what: &str, act: impl Fn(ConnId, &[ConnId], Server, &mut Io<State>) + Clone + 'static) {
    for event in EVENTS {
        let mut crowd = Crowd::new();
        let (ids, server) = (crowd.ids.clone(), crowd.server);
        let mut acted: Vec<ConnId> = Vec::new();
        let act = act.clone();
        crowd.house.data.act = Some(Box::new(move |heard, me, io| {
            if heard == *event && !acted.contains(&me) && acted.len() < 10 {
                acted.push(me);
                act(me, &ids, server, io);
            }
        }));
        crowd.stir();
        crowd.check(&format!("{what} at {event}"));
    }
}

fn others(me: ConnId, ids: &[ConnId]) -> impl Iterator<Item = ConnId> {
    ids.iter().copied().filter(move |id| *id != me)
}

#[test]
fn conn_may_close_itself_in_any_event() {
    at_each_event("close itself", |me, _, _, io| {
        if let Some(mut conn) = io.conn(me) {
            conn.close();
            conn.close();
        }
    });
}

#[test]
fn conn_may_abort_itself_in_any_event() {
    at_each_event("abort itself", |me, _, _, io| {
        if let Some(mut conn) = io.conn(me) {
            conn.abort();
            conn.close();
            conn.pause();
            conn.resume();
            conn.request_writable();
            conn.set_timer(Duration::ZERO);
            conn.release();
        }
    });
}

#[test]
fn conn_may_be_released_by_itself_in_any_event() {
    at_each_event("release itself", |me, _, _, io| {
        if let Some(mut conn) = io.conn(me) {
            conn.release();
        }
    });
}

#[test]
fn conn_may_pause_and_finish_itself_in_any_event() {
    at_each_event("pause and finish", |me, _, _, io| {
        if let Some(mut conn) = io.conn(me) {
            conn.pause();
            conn.finish();
        }
    });
}

#[test]
fn conn_may_close_all_others_in_any_event() {
    at_each_event("close others", |me, ids, _, io| {
        for id in others(me, ids) {
            if let Some(mut conn) = io.conn(id) {
                conn.close_with(ws::CloseCode::POLICY, "you there");
            }
        }
    });
}

#[test]
fn conn_may_abort_all_others_in_any_event() {
    at_each_event("abort others", |me, ids, _, io| {
        for id in others(me, ids) {
            if let Some(mut conn) = io.conn(id) {
                conn.abort();
            }
        }
    });
}

#[test]
fn conn_may_release_all_others_in_any_event() {
    at_each_event("release others", |me, ids, _, io| {
        for id in others(me, ids) {
            if let Some(mut conn) = io.conn(id) {
                conn.release();
            }
        }
    });
}

#[test]
fn site_may_be_removed_in_any_event() {
    at_each_event("remove the site", |_, _, server, io| {
        io.remove_site(server.site);
        io.remove_site(server.site);
    });
}

#[test]
fn listeners_may_be_closed_in_any_event() {
    at_each_event("close the listeners", |_, _, server, io| {
        io.close_listener(server.listener);
        io.close_listener(server.raw_listener);
        assert!(io.local_addr(server.raw_listener).is_none() || io.links().count() > 0);
    });
}

#[test]
fn context_may_be_shut_down_in_any_event() {
    at_each_event("shut down", |_, _, _, io| io.shutdown(ws::CloseCode::GOING_AWAY));
}

#[test]
fn handlers_may_open_adopt_and_schedule_in_any_event() {
    at_each_event("open more", |_, _, server, io| {
        let Ok(listener) = io.listen(any_port(), server.site) else { return };
        io.close_listener(listener);
        io.listen(any_port(), server.site).unwrap();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        io.adopt_raw(ours.into(), b"read before", Limits::default(), Box::new(Probe)).unwrap();
        io.after(Duration::ZERO, |_, _| {});
    });
}

#[test]
fn websocket_is_not_opened_any_more_once_its_accept_has_shut_the_context_down() {
    let (mut house, server) = served();
    house.data.act = Some(Box::new(|event, _, io| {
        if event == "accept" {
            io.shutdown(ws::CloseCode::GOING_AWAY);
        }
    }));
    let mut client = Client::tcp(server.address);
    client.write(UPGRADE);
    assert!(house.head(&mut client).starts_with("HTTP/1.1 503 "));
    house.ends(&mut client);
    drop(client);
    house.until("all have gone", |house| house.io().link_count() == 0);
    house.leave();
}

#[test]
fn websocket_is_not_opened_by_a_decision_after_shutdown() {
    let (mut house, server) = served();
    let mut client = Client::tcp(server.address);
    client.write(std::str::from_utf8(UPGRADE).unwrap().replace("/ws", "/later").as_bytes());
    house.until("it is asked", |house| !house.data.log.is_empty());
    let id = house.data.log[0].0;
    house.io().shutdown(ws::CloseCode::GOING_AWAY);
    house.settle();
    house.io().decide(id, lodger::Decision::websocket(Probe)).unwrap();
    assert!(house.head(&mut client).starts_with("HTTP/1.1 503 "));
    house.ends(&mut client);
    drop(client);
    house.until("all have gone", |house| house.io().link_count() == 0);
    house.leave();
}

#[test]
fn raw_listener_that_is_closed_while_it_accepts_accepts_no_more() {
    let mut house: House = House::new();
    let accepted = Rc::new(Cell::new(0));
    let counter = Rc::clone(&accepted);
    let itself = Rc::new(Cell::new(None));
    let own = Rc::clone(&itself);
    let accept = move |_: &Peer, _: &mut State, io: &mut Io<State>| {
        counter.set(counter.get() + 1);
        io.close_listener(own.get().unwrap());
        Some(Box::new(Probe) as Box<dyn raw::Handler<State>>)
    };
    let listener = house.io().listen_raw(any_port(), Limits::default(), accept).unwrap();
    itself.set(Some(listener));
    let address = house.io().local_addr(listener).unwrap().inet().unwrap();
    let _clients: Vec<Client> = (0..5).map(|_| Client::tcp(address)).collect();
    house.until("one is accepted", |_| accepted.get() > 0);
    house.settle();
    assert_eq!(accepted.get(), 1);
    house.leave();
}

#[test]
fn shutdown_while_accepting_closes_what_was_accepted() {
    let mut house: House = House::new();
    let accept = |_: &Peer, _: &mut State, io: &mut Io<State>| {
        io.shutdown(ws::CloseCode::GOING_AWAY);
        Some(Box::new(Probe) as Box<dyn raw::Handler<State>>)
    };
    let listener = house.io().listen_raw(any_port(), Limits::default(), accept).unwrap();
    let address = house.io().local_addr(listener).unwrap().inet().unwrap();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::tcp(address)).collect();
    house.until("the loop sees the first", |house| house.io().local_addr(listener).is_none());
    house.settle();
    for client in &mut clients {
        house.ends(client);
    }
    drop(clients);
    house.until("all have gone", |house| house.io().link_count() == 0);
    house.leave();
}

#[test]
fn what_accepts_for_a_listener_goes_with_it() {
    let mut house: House = House::new();
    let held = Rc::new(());
    for _ in 0..3 {
        let hold = Rc::clone(&held);
        let accept = move |_: &Peer, _: &mut State, _: &mut Io<State>| {
            let _ = &hold;
            None
        };
        let listener = house.io().listen_raw(any_port(), Limits::default(), accept).unwrap();
        house.settle();
        house.io().close_listener(listener);
        house.settle();
    }
    assert_eq!(Rc::strong_count(&held), 1);
    house.leave();
}

#[test]
fn parent_hears_that_its_child_has_ended() {
    let (mut house, server) = served();
    let (_parent, parent) = server.websocket(&mut house);
    let (child_client, child) = server.raw(&mut house);
    conn(&mut house, child).set_parent(parent);
    child_client.reset();
    house.until("it is told", |house| house.data.heard(parent) == ["child_closed"]);
    house.leave();
}

// Unwinding.

/// One turn in which some handler may unwind; whether it did.
fn turn_unwinds(house: &mut House) -> bool {
    let unwound = catch_unwind(AssertUnwindSafe(|| house.turn(Duration::from_millis(1)))).is_err();
    if unwound {
        // The loop goes on with its batch, in which another may unwind.
        let again =
            AssertUnwindSafe(|| house.host.audit.service_timeouts(&mut house.context, &mut house.data));
        let _ = catch_unwind(again);
    }
    unwound
}

/// Stirs a crowd, in which every handler unwinds that hears `event`.
fn crowd_survives(event: &'static str) {
    let mut crowd = Crowd::new();
    let (mut bystander, _) = {
        let Crowd { house, server, .. } = &mut crowd;
        server.websocket(house)
    };
    let Crowd { house, socket, raw, http, pipe, ids, .. } = &mut crowd;
    let (first, rest) = (ids[0], &ids[2..]);
    let chosen: Vec<ConnId> = std::iter::once(first).chain(rest.iter().copied()).collect();
    house.data.unwind = Some(event);
    for &id in &chosen {
        let mut conn = conn(house, id);
        match event {
            "writable" => conn.request_writable(),
            "timer" => conn.set_timer(Duration::ZERO),
            "event" => house.io().notify(id, Box::new(())).unwrap(),
            "closed" => conn.abort(),
            _ => {}
        }
    }
    let _ = io::Write::write(&mut socket.stream, &client_frame(1, b"message"));
    let _ = io::Write::write(&mut socket.stream, &client_frame(9, b""));
    let _ = io::Write::write(&mut raw.stream, b"bytes");
    let _ = io::Write::write(&mut http.stream, b"def");
    let _ = io::Write::write(pipe.as_mut().unwrap(), b"line");
    let mut unwound = 0;
    for _ in 0..12 {
        unwound += usize::from(turn_unwinds(house));
    }
    assert!(unwound > 0, "nobody unwound at {event}");
    house.data.unwind = None;
    bystander.text("unharmed");
    assert_eq!(house.frame(&mut bystander), (1, b"unharmed".to_vec()), "{event}");
    house.settle();
    for (id, heard) in &house.data.log {
        let after = house.data.heard(*id);
        if heard == event {
            assert_eq!(after.last().copied(), Some(event), "{id} ran again after it unwound: {after:?}");
            assert!(house.context.io().conn(*id).is_none(), "{event}");
        }
    }
    house.leave();
}

#[test]
fn handler_that_unwinds_is_not_run_again_and_harms_nobody() {
    for event in [
        "message",
        "ping",
        "received",
        "body",
        "body_complete",
        "readable",
        "writable",
        "timer",
        "event",
        "closed",
    ] {
        crowd_survives(event);
    }
}

#[test]
fn peer_of_a_handler_that_unwound_sees_a_reset() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    house.data.unwind = Some("message");
    client.text("go");
    while !turn_unwinds(&mut house) {}
    house.data.unwind = None;
    house.ends(&mut client);
    assert_eq!(client.end, Some(End::Reset));
    assert!(house.io().conn(id).is_none());
    assert!(house.data.closed.is_empty());
    house.leave();
}

#[test]
fn protocol_that_unwinds_in_accept_loses_that_connection_only() {
    let (mut house, server) = served();
    let (mut bystander, _) = server.websocket(&mut house);
    house.data.unwind = Some("accept");
    let mut client = Client::tcp(server.address);
    client.write(UPGRADE);
    while !turn_unwinds(&mut house) {}
    house.data.unwind = None;
    house.ends(&mut client);
    bystander.text("unharmed");
    assert_eq!(house.frame(&mut bystander), (1, b"unharmed".to_vec()));
    let (_another, _) = server.websocket(&mut house);
    house.leave();
    assert_eq!(house.data.ended, 1);
}

#[test]
fn raw_acceptor_that_unwinds_loses_that_connection_only() {
    let mut house: House = House::new();
    let mut first = true;
    let accept = move |_: &Peer, _: &mut State, _: &mut Io<State>| {
        if std::mem::take(&mut first) {
            std::panic::resume_unwind(Box::new("told to"));
        }
        Some(Box::new(Probe) as Box<dyn raw::Handler<State>>)
    };
    let listener = house.io().listen_raw(any_port(), Limits::default(), accept).unwrap();
    let address = house.io().local_addr(listener).unwrap().inet().unwrap();
    let (mut lost, mut kept) = (Client::tcp(address), Client::tcp(address));
    while !turn_unwinds(&mut house) {}
    house.ends(&mut lost);
    kept.write(b"hello");
    assert_eq!(house.bytes(&mut kept, 5), b"hello");
    house.leave();
}

#[test]
fn task_that_unwinds_takes_no_other_with_it() {
    let (mut house, server) = served();
    let (_client, id) = server.websocket(&mut house);
    house.io().after(Duration::ZERO, |_, _| std::panic::resume_unwind(Box::new("told to")));
    house.io().after(Duration::ZERO, |state, _| state.numbers.push(1));
    conn(&mut house, id).set_timer(Duration::ZERO);
    house.io().after(Duration::ZERO, |state, _| state.numbers.push(2));
    while !turn_unwinds(&mut house) {}
    house.settle();
    assert_eq!(house.data.numbers, [1, 2]);
    assert_eq!(house.data.heard(id), ["timer"]);
    house.leave();
}

#[test]
fn post_that_unwinds_takes_no_other_with_it() {
    let (mut house, _) = served();
    let remote = house.context.remote().unwrap();
    remote.post(|state, _| state.numbers.push(1)).unwrap();
    remote.post(|_, _| std::panic::resume_unwind(Box::new("told to"))).unwrap();
    remote.post(|state, _| state.numbers.push(2)).unwrap();
    while !turn_unwinds(&mut house) {}
    house.settle();
    assert_eq!(house.data.numbers, [1, 2]);
    house.leave();
}

#[test]
fn descriptor_that_was_lent_to_a_handler_that_unwound_is_removed_before_it_is_closed() {
    let mut house: House = House::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let id = house.io().adopt(reader.into(), Interest::READ, Box::new(Probe)).unwrap();
    house.settle();
    let fd = conn(&mut house, id).fd().unwrap();
    house.data.unwind = Some("readable");
    io::Write::write_all(&mut writer, b"x").unwrap();
    while !turn_unwinds(&mut house) {}
    house.settle();
    assert!(house.io().find_fd(fd).is_none());
    assert_eq!(house.counts().removes, 1);
    house.leave();
}

#[test]
fn detached_right_after_a_handler_unwound_nothing_stays_behind() {
    let (mut house, server) = served();
    let (mut client, _) = server.websocket(&mut house);
    house.data.unwind = Some("message");
    client.text("go");
    wait_until("it unwinds", || {
        catch_unwind(AssertUnwindSafe(|| house.turn(Duration::from_millis(1)))).is_err()
    });
    house.host.detach(&mut house.context);
    assert!(house.host.host.is_empty());
    house.data.unwind = None;
    house.ends(&mut client);
    house.leave();
}

/// A handler of an adopted descriptor may read whatever it holds, also by the borrowed number.
struct Counting(Rc<Cell<usize>>);

impl lodger::fd::Handler<State> for Counting {
    fn readable(&mut self, cx: &mut lodger::Cx<'_, State>, fd: BorrowedFd<'_>) {
        assert_eq!(cx.conn().fd(), Some(fd.as_raw_fd()));
        assert!(cx.io.links().any(|link| link.fd == fd.as_raw_fd()));
        assert_eq!(cx.io.find_fd(fd.as_raw_fd()), Some(cx.id()));
        self.0.set(self.0.get() + 1);
        cx.conn().release();
        cx.conn().release();
    }
}

#[test]
fn lent_descriptor_is_found_by_its_number_while_its_handler_runs() {
    let mut house: House = House::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let times = Rc::new(Cell::new(0));
    house.io().adopt(OwnedFd::from(reader), Interest::READ, Box::new(Counting(Rc::clone(&times)))).unwrap();
    io::Write::write_all(&mut writer, b"x").unwrap();
    house.settle();
    assert_eq!(times.get(), 1);
    assert_eq!(house.io().link_count(), 0);
    house.leave();
}

#[test]
fn reason_of_an_aborted_conn_says_so_whoever_aborted_it() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    conn(&mut house, id).abort();
    assert!(house.io().conn(id).is_none());
    house.ends(&mut client);
    assert!(matches!(house.data.closed_of(id).unwrap().reason, CloseReason::Aborted));
    let _: Served = house.context.service(-1, lodger::Ready::READ, &mut house.data);
    house.leave();
}
