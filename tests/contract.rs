//! The contract with the host, over real sockets: the order of what it is told, no wake-up without a reason, and readiness
//! that is late, repeated or about something else.

mod support;

use lodger::audit::Audited;
use lodger::{
    CloseReason, Context, Flow, Host, Interest, Limits, PollFd, Pollable, Ready, Scope, Served, ws,
};
use lodger_poll::PollArray;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;
use support::*;

/// A host that asks the system about each descriptor that it hears of.
#[derive(Default)]
struct Suspicious {
    array: PollArray,
    removed: Vec<RawFd>,
    locked: Option<Scope>,
    /// Numbers, or every add from here on, that it will not have.
    refuses: Refuses,
    calls: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Refuses {
    #[default]
    Nothing,
    Adds,
    Changes,
}

impl Host for Suspicious {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.calls += 1;
        assert_eq!(self.locked, Some(Scope::Descriptors));
        let flags = rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let flags = rustix::fs::fcntl_getfl(fd).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
        if self.refuses == Refuses::Adds {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.array.add(fd, interest)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        self.calls += 1;
        assert!(self.locked.is_some());
        rustix::io::fcntl_getfd(fd).unwrap();
        if self.refuses == Refuses::Changes {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.array.change(fd, previous, interest)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.calls += 1;
        assert_eq!(self.locked, Some(Scope::Descriptors));
        rustix::io::fcntl_getfd(fd).expect("it is open until after this");
        self.removed.push(fd.as_raw_fd());
        self.array.remove(fd);
    }

    fn lock(&mut self, scope: Scope) {
        assert_eq!(self.locked.replace(scope), None);
    }

    fn unlock(&mut self, scope: Scope) {
        // Whatever was removed is still there, or it was closed behind our back by now: never before `remove`.
        assert_eq!(self.locked.take(), Some(scope));
    }
}

/// A turn of `context` in a host that may refuse.
fn turn<D>(context: &mut Context<D>, host: &mut Audited<Suspicious>, data: &mut D) {
    let wait = host.prepare(context).sooner(Duration::from_millis(1).into());
    host.audit.sleeping(wait.duration());
    host.host.array.wait(wait).unwrap();
    while let Some(entry) = host.host.array.next_ready() {
        let _ = host.audit.service_fd(context, entry, data);
    }
    host.audit.service_timeouts(context, data);
}

fn turn_until(
    context: &mut Context<State>,
    host: &mut Audited<Suspicious>,
    data: &mut State,
    what: &str,
    mut done: impl FnMut(&mut Context<State>, &mut State) -> bool,
) {
    wait_until(what, || {
        turn(context, host, data);
        done(context, data)
    });
}

/// A served context, taken out of its house.
fn moved_out() -> (Context<State>, State, Server) {
    let (mut house, server) = served();
    house.host.detach(&mut house.context);
    (house.context, house.data, server)
}

#[test]
fn descriptors_are_close_on_exec_and_open_until_they_have_been_removed() {
    let (mut context, mut state, server) = moved_out();
    let mut host = Audited::new(Suspicious::default());
    context.remote().unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::tcp(server.address)).collect();
    let raw = Client::tcp(server.raw_address);
    for client in &mut clients {
        client.write(UPGRADE);
    }
    turn_until(&mut context, &mut host, &mut state, "all are open", |_, state| {
        state.count("opened") == 4 && state.count("raw opened") == 1
    });
    clients.remove(0).reset();
    clients.remove(0).close(1000);
    drop(raw);
    let other = state.log.iter().rfind(|(_, what)| what == "opened").unwrap().0;
    context.io().conn(other).unwrap().abort();
    turn_until(&mut context, &mut host, &mut state, "three have ended", |_, state| state.closed.len() >= 3);
    turn(&mut context, &mut host, &mut state);
    let removed = host.host.removed.clone();
    assert!(removed.len() >= 3);
    host.leave(&mut context, &mut state);
    host.finished();
    assert_eq!(host.counts().adds, host.counts().removes);
    assert_eq!(host.host.array.len(), 0);
}

#[test]
fn number_is_closed_by_the_prepare_that_removed_it() {
    let (mut house, server) = served();
    let (_client, id) = server.websocket(&mut house);
    let fd = conn(&mut house, id).fd().unwrap();
    conn(&mut house, id).abort();
    assert!(is_open(fd));
    let _ = house.host.prepare(&mut house.context);
    // Another test of this process may have got the number by now; then at least it is not ours.
    assert!(!house.io().links().any(|link| link.fd == fd && link.conn == Some(id)));
    assert!(house.io().find_fd(fd).is_none());
    house.leave();
}

// Idle states.

#[test]
fn idle_websockets_and_listeners_wake_nobody() {
    let (mut house, server) = served();
    let _clients: Vec<_> = (0..3).map(|_| server.websocket(&mut house)).collect();
    house.assert_idle();
    let wait = house.host.prepare(&mut house.context);
    assert_eq!(wait, lodger::Wait::FOREVER);
    house.leave();
}

#[test]
fn idle_listeners_alone_need_no_deadline() {
    let (mut house, _) = served();
    house.assert_idle();
    assert_eq!(house.host.prepare(&mut house.context), lodger::Wait::FOREVER);
    house.leave();
}

#[test]
fn idle_keep_alive_connection_wakes_nobody() {
    let (mut house, server) = served();
    let mut client = Client::tcp(server.address);
    client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(house.head(&mut client).starts_with("HTTP/1.1 200 "));
    assert_eq!(house.bytes(&mut client, 6), b"hello\n");
    house.assert_idle();
    client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(house.head(&mut client).starts_with("HTTP/1.1 200 "));
    house.leave();
}

#[test]
fn half_a_request_head_wakes_nobody() {
    let (mut house, server) = served();
    let mut client = Client::tcp(server.address);
    client.write(b"GET / HTTP/1.1\r\nHost: local");
    house.assert_idle();
    client.write(b"host\r\n\r\n");
    assert!(house.head(&mut client).starts_with("HTTP/1.1 200 "));
    house.leave();
}

#[test]
fn half_a_message_wakes_nobody() {
    let (mut house, server) = served();
    let (mut client, _) = server.websocket(&mut house);
    let frame = client_frame(1, b"in two parts");
    client.write(&frame[..9]);
    house.assert_idle();
    client.write(&frame[9..]);
    assert_eq!(house.frame(&mut client), (1, b"in two parts".to_vec()));
    house.leave();
}

#[test]
fn paused_websocket_is_not_watched_and_loses_nothing() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    conn(&mut house, id).pause();
    for text in ["one", "two", "three"] {
        client.text(text);
    }
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::NONE);
    assert!(house.data.heard(id).is_empty());
    conn(&mut house, id).resume();
    for text in ["one", "two", "three"] {
        assert_eq!(house.frame(&mut client), (1, text.into()));
    }
    house.leave();
}

#[test]
fn websocket_that_pauses_between_messages_of_one_read_gets_the_rest_on_resume() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    house.data.act = Some(Box::new(|event, id, io| {
        if event == "message" {
            io.conn(id).unwrap().pause();
        }
    }));
    let batch: Vec<u8> = (0..5u8).flat_map(|n| client_frame(2, &[n])).collect();
    client.write(&batch);
    for n in 0..5 {
        assert_eq!(house.frame(&mut client), (2, vec![n]));
        house.assert_idle();
        assert_eq!(house.data.log.len(), usize::from(n) + 1);
        conn(&mut house, id).resume();
    }
    house.leave();
}

#[test]
fn reset_of_a_paused_connection_wakes_nobody_and_shows_on_resume() {
    let (mut house, server) = served();
    let (client, id) = server.websocket(&mut house);
    conn(&mut house, id).pause();
    house.settle();
    client.reset();
    house.assert_idle();
    assert!(house.data.closed.is_empty());
    conn(&mut house, id).resume();
    house.until("it has ended", |house| !house.data.closed.is_empty());
    assert!(matches!(house.data.closed_of(id).unwrap().reason, CloseReason::Io(_)));
    house.assert_idle();
    house.leave();
}

#[test]
fn reset_of_a_paused_connection_shows_at_a_write() {
    let (mut house, server) = served();
    let (client, id) = server.websocket(&mut house);
    conn(&mut house, id).pause();
    house.settle();
    client.reset();
    house.assert_idle();
    assert_eq!(conn(&mut house, id).send("anybody?"), Ok(Flow::Ready));
    house.until("it has ended", |house| !house.data.closed.is_empty());
    let closed = house.data.closed_of(id).unwrap();
    assert!(matches!(closed.reason, CloseReason::Io(_)), "{closed:?}");
    assert_eq!(closed.unsent, "anybody?".len() + 2);
    house.leave();
}

#[test]
fn raw_connection_whose_peer_has_finished_is_not_watched_and_can_still_send() {
    let (mut house, server) = served();
    house.data.silent = true;
    let (mut client, id) = server.raw(&mut house);
    client.write(b"all I have to say");
    client.finish();
    house.until("its end is heard", |house| house.data.count("end") == 1);
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::NONE);
    assert_eq!(conn(&mut house, id).write(b"and this is the answer"), Ok(Flow::Ready));
    assert_eq!(house.bytes(&mut client, 22), b"and this is the answer");
    house.assert_idle();
    conn(&mut house, id).finish();
    house.ends(&mut client);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    house.leave();
}

#[test]
fn raw_connection_that_has_finished_itself_goes_on_hearing_its_peer() {
    let (mut house, server) = served();
    house.data.silent = true;
    let (mut client, id) = server.raw(&mut house);
    conn(&mut house, id).finish();
    house.ends(&mut client);
    assert_eq!(client.end, Some(End::Eof));
    house.assert_idle();
    client.write(b"12345");
    house.until("it is heard", |house| house.data.count("received") == 1);
    house.assert_idle();
    client.finish();
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert!(house.io().conn(id).is_none());
    house.leave();
}

/// Fills the way to the peer, which does not read.
fn fill(house: &mut House, id: lodger::ConnId) -> usize {
    let piece = vec![b'x'; 60_000];
    let mut sent = 0;
    loop {
        let flow = conn(house, id).send(&piece).unwrap();
        sent += piece.len();
        house.turn(Duration::ZERO);
        if flow == Flow::Full && conn(house, id).queued() > 0 {
            return sent;
        }
    }
}

#[test]
fn full_queue_wakes_nobody_until_the_peer_reads() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    let sent = fill(&mut house, id);
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::BOTH);
    conn(&mut house, id).request_writable();
    house.assert_idle();
    let mut got = 0;
    while got < sent {
        let (opcode, payload) = house.frame(&mut client);
        assert_eq!(opcode, 2);
        got += payload.len();
    }
    house.until("there is room", |house| house.data.count("writable") == 1);
    house.settle();
    assert_eq!(interest(&mut house, id), Interest::READ);
    house.assert_idle();
    house.leave();
}

#[test]
fn full_queue_of_a_paused_connection_is_watched_for_writing_only() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    conn(&mut house, id).pause();
    client.text("later");
    let sent = fill(&mut house, id);
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::WRITE);
    let mut got = 0;
    while got < sent {
        got += house.frame(&mut client).1.len();
    }
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::NONE);
    house.leave();
}

#[test]
fn waiting_for_a_decision_wakes_nobody() {
    let (mut house, server) = served();
    let mut client = Client::tcp(server.address);
    client.write(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    house.until("it is asked", |house| !house.data.log.is_empty());
    house.assert_idle();
    let id = house.data.log[0].0;
    house.io().decide(id, lodger::Decision::respond(lodger::Response::text("at last"))).unwrap();
    assert!(house.head(&mut client).starts_with("HTTP/1.1 200 "));
    assert_eq!(house.bytes(&mut client, 7), b"at last");
    assert!(house.head(&mut client).starts_with("HTTP/1.1 200 "));
    assert!(house.io().decide(id, lodger::Decision::Later).is_err());
    house.leave();
}

#[test]
fn response_that_is_still_to_come_wakes_nobody() {
    let (mut house, server) = served();
    let mut client = Client::tcp(server.address);
    client.write(b"POST /probe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf");
    house.until("the content begins", |house| house.data.count("body") == 1);
    house.assert_idle();
    house.data.silent = true;
    client.write(b"half");
    house.until("the content ends", |house| house.data.count("body_complete") == 1);
    house.assert_idle();
    let id = house.data.log[0].0;
    conn(&mut house, id).respond(lodger::Response::text("so be it")).unwrap();
    assert!(house.head(&mut client).starts_with("HTTP/1.1 200 "));
    house.assert_idle();
    house.leave();
}

#[test]
fn closing_handshake_under_way_wakes_nobody() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    conn(&mut house, id).close();
    house.assert_idle();
    assert_eq!(house.frame(&mut client), (8, vec![3, 232]));
    client.close(1000);
    house.ends(&mut client);
    house.assert_idle();
    drop(client);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    house.assert_idle();
    house.leave();
}

#[test]
fn lingering_connection_whose_peer_says_nothing_wakes_nobody() {
    let (mut house, server) = served();
    let (mut client, id) = server.raw(&mut house);
    conn(&mut house, id).close();
    house.ends(&mut client);
    house.assert_idle();
    client.write(b"not heard any more");
    house.assert_idle();
    drop(client);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert_eq!(house.data.count("received"), 0);
    house.leave();
}

#[test]
fn echoed_messages_cost_no_call_to_the_host() {
    let (mut house, server) = served();
    let (mut client, _) = server.websocket(&mut house);
    house.settle();
    let before = house.counts();
    for n in 0..100 {
        let text = format!("message {n}");
        client.text(&text);
        assert_eq!(house.frame(&mut client), (1, text.into_bytes()));
    }
    let counts = house.counts().since(&before);
    assert_eq!((counts.host_calls(), counts.locks), (0, 0));
    assert_eq!(counts.services, 100);
    house.leave();
}

#[test]
fn request_for_writable_costs_no_call_to_the_host_while_there_is_room() {
    let (mut house, server) = served();
    let (_client, id) = server.websocket(&mut house);
    house.settle();
    let before = house.counts();
    for n in 1..=10 {
        conn(&mut house, id).request_writable();
        house.turn(Duration::ZERO);
        assert_eq!(house.data.count("writable"), n);
    }
    assert_eq!(house.counts().since(&before).host_calls(), 0);
    house.assert_idle();
    house.leave();
}

// Hang-up.

#[test]
fn what_the_peer_sent_before_it_went_is_delivered_in_full() {
    let (mut house, server) = served();
    let (mut client, id) = server.raw(&mut house);
    // The answers fail, since nobody is there to read them; what was sent is heard all the same.
    let bytes = vec![7; 100_000];
    client.write(&bytes);
    drop(client);
    let fd = conn(&mut house, id).fd().unwrap();
    wait_until("the hang-up is there", || reported(fd, libc::POLLIN) & libc::POLLIN != 0);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert_eq!(house.data.numbers.iter().sum::<u32>(), 100_000);
    house.assert_idle();
    house.leave();
}

#[test]
fn messages_that_come_with_a_hang_up_are_delivered_before_closed() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    let batch: Vec<u8> = (0..50).flat_map(|n| client_frame(1, format!("{n}").as_bytes())).collect();
    client.write(&batch);
    drop(client);
    let fd = conn(&mut house, id).fd().unwrap();
    wait_until("it is readable", || reported(fd, libc::POLLIN) & libc::POLLIN != 0);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    let expected: Vec<String> = (0..50).map(|n| format!("message {n}")).chain(["closed".into()]).collect();
    assert_eq!(house.data.heard(id), expected);
    house.leave();
}

#[test]
fn unix_peer_that_writes_and_goes_is_heard_in_full() {
    let (mut house, _) = served();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut client = Client::on(std::os::fd::OwnedFd::from(theirs).into());
    let id = house.io().adopt_raw(ours.into(), b"", Limits::default(), Box::new(Probe)).unwrap();
    client.write(&[1; 5000]);
    drop(client);
    let fd = conn(&mut house, id).fd().unwrap();
    assert_eq!(reported(fd, libc::POLLIN), libc::POLLIN | libc::POLLHUP);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert_eq!(house.data.numbers.iter().sum::<u32>(), 5000);
    house.assert_idle();
    house.leave();
}

#[test]
fn broadcast_from_a_paused_conn_whose_peer_is_gone_harms_nobody() {
    let (mut house, server) = served();
    house.data.silent = true;
    let (mut first, id) = server.websocket(&mut house);
    let (mut second, _) = server.websocket(&mut house);
    let protocol = house.data.protocol.unwrap();
    house.data.act = Some(Box::new(move |event, me, io| {
        if event == "message" {
            assert_eq!(me, id);
            let frame = io.encode(&vec![b'z'; 20_000]);
            io.conn(me).unwrap().pause();
            let _ = io.broadcast(protocol, &frame);
        }
    }));
    let fd = conn(&mut house, id).fd().unwrap();
    first.text("tell them");
    first.reset();
    wait_until("the reset is there", || reported(fd, libc::POLLIN) & libc::POLLERR != 0);
    assert_eq!(house.frame(&mut second).1.len(), 20_000);
    house.until("the first has ended", |house| house.data.closed_of(id).is_some());
    house.data.act = None;
    let frame = house.io().encode("and again");
    assert_eq!(house.io().broadcast(protocol, &frame).sent, 1);
    assert_eq!(house.frame(&mut second), (1, b"and again".to_vec()));
    house.leave();
}

// Several contexts, and other descriptors.

#[test]
fn two_contexts_share_an_array_and_leave_what_is_not_theirs() {
    let (mut one, first) = served();
    let (mut two, second) = served();
    one.host.detach(&mut one.context);
    two.host.detach(&mut two.context);
    let mut array = PollArray::new();
    let mut clients = [Client::tcp(first.address), Client::tcp(second.address)];
    for client in &mut clients {
        client.write(UPGRADE);
        client.text("hello");
    }
    let mut served_by = [0, 0];
    wait_until("both have answered", || {
        let wait = one.context.prepare(&mut array).sooner(two.context.prepare(&mut array));
        array.wait(wait.sooner(Duration::from_millis(1).into())).unwrap();
        while let Some(entry) = array.next_ready() {
            let before = entry.revents;
            // Always asked the wrong one first, for one of the two.
            if two.context.service_fd(entry, &mut two.data) == Served::Ours {
                served_by[1] += 1;
                assert_eq!(entry.revents, 0);
                assert_eq!(one.context.service_fd(entry, &mut one.data), Served::Foreign);
                continue;
            }
            assert_eq!(entry.revents, before);
            assert_eq!(one.context.service_fd(entry, &mut one.data), Served::Ours);
            served_by[0] += 1;
        }
        one.context.service_timeouts(&mut one.data);
        two.context.service_timeouts(&mut two.data);
        clients.iter_mut().for_each(Client::pull);
        clients.iter().all(|client| client.inbox.ends_with(b"\x81\x05hello"))
    });
    assert!(served_by[0] > 0 && served_by[1] > 0);
    one.context.leave(&mut array, &mut one.data);
    two.context.leave(&mut array, &mut two.data);
    assert!(array.is_empty());
}

#[test]
fn foreign_descriptor_is_served_in_every_turn_while_a_client_floods() {
    let (mut house, server) = served();
    house.data.silent = true;
    let (mut client, id) = server.websocket(&mut house);
    let (reader, mut writer) = io::pipe().unwrap();
    house.host.host.insert_foreign(reader.as_raw_fd(), libc::POLLIN).unwrap();
    let flood: Vec<u8> = (0..3000).flat_map(|_| client_frame(2, b"flood")).collect();
    let mut from = 0;
    for _ in 0..30 {
        // As much as the kernel takes.
        while let Ok(written) = io::Write::write(&mut client.stream, &flood[from..]) {
            from = (from + written) % flood.len();
        }
        let fd = conn(&mut house, id).fd().unwrap();
        assert_ne!(reported(fd, libc::POLLIN), 0);
        io::Write::write_all(&mut writer, b"x").unwrap();
        let before = house.data.log.len();
        house.turn(Duration::ZERO);
        assert!(house.data.log.len() > before);
        assert_eq!(house.foreign.len(), 1, "the host's own descriptor comes back in the same turn");
        io::Read::read_exact(&mut &reader, &mut [0]).unwrap();
        house.data.log.clear();
    }
    house.host.host.remove_foreign(reader.as_raw_fd());
    house.leave();
}

#[test]
fn one_call_delivers_a_bounded_number_of_messages_and_the_rest_without_sleeping() {
    let (mut house, server) = served();
    house.data.silent = true;
    let (mut client, _) = server.websocket(&mut house);
    let batch: Vec<u8> = (0..5000).flat_map(|_| client_frame(2, b"m")).collect();
    let mut from = 0;
    let mut most = 0;
    house.until("all have come", |house| {
        if let Ok(written) = io::Write::write(&mut client.stream, &batch[from..]) {
            from += written;
        }
        let before = house.data.log.len();
        house.turn(Duration::ZERO);
        most = most.max(house.data.log.len() - before);
        house.data.log.len() == 5000
    });
    // A service call, and the one for what is due.
    assert!(most <= 2 * 1024, "{most} in one turn");
    house.assert_idle();
    house.leave();
}

// Readiness of the wrong kind.

#[test]
fn numbers_that_nobody_can_have_are_foreign_and_untouched() {
    let (mut house, server) = served();
    let (_client, _) = server.websocket(&mut house);
    let (pipe, _writer) = io::pipe().unwrap();
    for fd in [-1, i32::MIN, i32::MAX, 1 << 30, 999_999, pipe.as_raw_fd()] {
        for revents in [0, libc::POLLIN, libc::POLLNVAL, -1] {
            let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents };
            assert_eq!(house.context.service_fd(&mut entry, &mut house.data), Served::Foreign);
            assert_eq!((entry.fd, entry.events, entry.revents), (fd, libc::POLLIN, revents));
        }
        let mut entry = PollFd::new(fd, Ready::READ);
        assert_eq!(house.context.service_fd(&mut entry, &mut house.data), Served::Foreign);
        assert_eq!(entry.revents(), Ready::READ);
        assert_eq!(house.context.service(fd, Ready::ERROR, &mut house.data), Served::Foreign);
    }
    house.leave();
}

#[test]
fn only_revents_is_read() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    let fd = conn(&mut house, id).fd().unwrap();
    client.text("hi");
    wait_until("it is readable", || reported(fd, libc::POLLIN) != 0);
    let mut entry = libc::pollfd { fd, events: 0, revents: libc::POLLIN };
    assert_eq!(house.context.service_fd(&mut entry, &mut house.data), Served::Ours);
    assert_eq!((entry.events, entry.revents), (0, 0));
    assert_eq!(house.data.heard(id), ["message hi"]);
    client.text("ho");
    wait_until("it is readable", || reported(fd, libc::POLLIN) != 0);
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!(house.context.service_fd(&mut entry, &mut house.data), Served::Ours);
    assert_eq!(house.data.heard(id), ["message hi"]);
    house.leave();
}

/// Every report that a loop could make.
fn every_report() -> Vec<Ready> {
    let flags = [Ready::READ, Ready::WRITE, Ready::HANG_UP, Ready::ERROR];
    let with = |bits: u32| {
        let chosen = flags.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
        chosen.fold(Ready::NONE, |all, (_, flag)| all.with(*flag))
    };
    (0..16).map(with).collect()
}

#[test]
fn spurious_and_repeated_readiness_is_harmless_to_everything_that_lives() {
    let (mut house, server) = served();
    house.context.remote().unwrap();
    let (mut socket, open) = server.websocket(&mut house);
    let (mut paused_socket, paused) = server.websocket(&mut house);
    let (mut raw, raw_id) = server.raw(&mut house);
    let (mut full_socket, full) = server.websocket(&mut house);
    let sent = fill(&mut house, full);
    conn(&mut house, paused).pause();
    paused_socket.text("kept");
    let mut http = Client::tcp(server.address);
    http.write(b"GET / HTTP/1.1\r\n");
    house.settle();
    let fds: Vec<RawFd> = house.io().links().map(|link| link.fd).collect();
    assert_eq!(fds.len(), 8);
    for ready in every_report() {
        for &fd in fds.iter().chain(&fds) {
            assert_eq!(house.context.service(fd, ready, &mut house.data), Served::Ours);
        }
    }
    assert!(house.data.closed.is_empty());
    assert!(house.data.heard(paused).is_empty());
    house.assert_idle();
    socket.text("still here");
    assert_eq!(house.frame(&mut socket), (1, b"still here".to_vec()));
    raw.write(b"me too");
    assert_eq!(house.bytes(&mut raw, 6), b"me too");
    conn(&mut house, paused).resume();
    assert_eq!(house.frame(&mut paused_socket), (1, b"kept".to_vec()));
    http.write(b"Host: localhost\r\n\r\n");
    assert!(house.head(&mut http).starts_with("HTTP/1.1 200 "));
    let mut got = 0;
    while got < sent {
        got += house.frame(&mut full_socket).1.len();
    }
    let _ = (open, raw_id);
    house.leave();
}

#[test]
fn stale_readiness_of_a_link_that_ended_in_this_batch_has_no_effect() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    let fd = conn(&mut house, id).fd().unwrap();
    client.text("too late");
    wait_until("it is readable", || reported(fd, libc::POLLIN) != 0);
    conn(&mut house, id).abort();
    for ready in every_report() {
        let mut entry = PollFd::new(fd, ready);
        assert_eq!(house.context.service_fd(&mut entry, &mut house.data), Served::Ours);
        assert!(entry.revents().is_none());
    }
    assert_eq!(house.data.heard(id), ["closed"]);
    let _ = house.host.prepare(&mut house.context);
    assert_eq!(house.context.service(fd, Ready::READ, &mut house.data), Served::Foreign);
    assert_eq!(house.data.closed.len(), 1);
    house.leave();
}

#[test]
fn readiness_for_a_socket_that_was_not_added_yet_is_its_former_owners() {
    let (mut house, server) = served();
    let _client = Client::tcp(server.raw_address);
    let before: Vec<RawFd> = house.io().links().map(|link| link.fd).collect();
    let listener = before.iter().copied().find(|&fd| reported(fd, libc::POLLIN) != 0).unwrap();
    assert_eq!(house.context.service(listener, Ready::READ, &mut house.data), Served::Ours);
    let fresh = house.io().links().map(|link| link.fd).find(|fd| !before.contains(fd)).unwrap();
    let mut entry = libc::pollfd { fd: fresh, events: libc::POLLIN, revents: libc::POLLIN | libc::POLLHUP };
    assert_eq!(house.context.service_fd(&mut entry, &mut house.data), Served::Foreign);
    assert_eq!(entry.revents, libc::POLLIN | libc::POLLHUP);
    assert!(house.data.closed.is_empty());
    let _ = house.host.prepare(&mut house.context);
    assert_eq!(house.context.service(fresh, Ready::READ, &mut house.data), Served::Ours);
    assert!(house.data.closed.is_empty());
    house.leave();
}

#[test]
fn prepare_repeated_and_in_the_middle_of_a_batch_is_harmless() {
    let (mut house, server) = served();
    let mut clients: Vec<_> = (0..6).map(|_| server.websocket(&mut house)).collect();
    house.settle();
    let before = house.counts();
    for _ in 0..5 {
        assert_eq!(house.host.prepare(&mut house.context), lodger::Wait::FOREVER);
    }
    assert_eq!(house.counts().since(&before).locks, 0);
    for (n, (client, _)) in clients.iter_mut().enumerate() {
        client.text(&format!("{n}"));
    }
    let victims: Vec<_> = clients.iter().map(|(_, id)| *id).collect();
    // Each message ends the conn of the next, and the loop prepares after each descriptor.
    house.data.act = Some(Box::new(move |event, me, io| {
        let at = victims.iter().position(|id| *id == me).unwrap();
        if event == "message" && at % 2 == 0 {
            io.conn(victims[at + 1]).unwrap().abort();
        }
    }));
    let wait = house.host.prepare(&mut house.context).sooner(Duration::from_millis(50).into());
    house.host.host.wait(wait).unwrap();
    let ready: Vec<RawFd> =
        house.host.host.entries().iter().filter(|entry| entry.revents != 0).map(|entry| entry.fd).collect();
    for fd in ready {
        let _ = house.context.service(fd, Ready::READ, &mut house.data);
        let _ = house.context.prepare(&mut house.host);
        let _ = house.context.prepare(&mut house.host);
    }
    house.context.service_timeouts(&mut house.data);
    house.data.act = None;
    for (n, (client, id)) in clients.iter_mut().enumerate() {
        if n % 2 == 0 {
            assert_eq!(house.frame(client), (1, format!("{n}").into_bytes()));
            assert!(house.io().conn(*id).is_some());
        } else {
            house.ends(client);
        }
    }
    assert_eq!(house.data.closed.len(), 3);
    house.leave();
}

#[test]
fn deadline_is_kept_by_one_call_though_prepare_had_to_write() {
    let (mut house, _) = served();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let id = house.io().adopt_raw(ours.into(), b"", Limits::default(), Box::new(Probe)).unwrap();
    house.settle();
    // Queued outside a service call: prepare writes it, finds the way blocked, and looks at the clock.
    while conn(&mut house, id).write(&[7; 12_000]).is_ok() {}
    house.io().after(Duration::from_millis(20), |state, _| state.numbers.push(1));
    let mut sleeps = 0;
    while house.data.numbers.is_empty() {
        sleeps += 1;
        house.turn(Duration::from_secs(5));
    }
    assert_eq!(sleeps, 1, "sleeps for one deadline");
    house.leave();
}

// Hosts that refuse.

#[test]
fn accepted_connection_that_the_host_refuses_ends_alone() {
    let (mut context, mut state, server) = moved_out();
    let mut host = Audited::new(Suspicious::default());
    let mut client = Client::tcp(server.address);
    client.write(UPGRADE);
    turn_until(&mut context, &mut host, &mut state, "one is open", |_, state| state.count("opened") == 1);
    host.host.refuses = Refuses::Adds;
    let mut refused = Client::tcp(server.raw_address);
    let mut refused_http = Client::tcp(server.address);
    turn_until(&mut context, &mut host, &mut state, "it has ended", |_, state| state.closed.len() == 1);
    assert!(matches!(state.closed[0].1.reason, CloseReason::Host(_)), "{:?}", state.closed[0]);
    turn_until(&mut context, &mut host, &mut state, "both see it", |_, _| {
        refused.pull();
        refused_http.pull();
        refused.end.is_some() && refused_http.end.is_some()
    });
    host.host.refuses = Refuses::Nothing;
    let mut late = Client::tcp(server.address);
    late.write(UPGRADE);
    late.text("welcome?");
    client.text("still here");
    turn_until(&mut context, &mut host, &mut state, "both are answered", |_, _| {
        late.pull();
        client.pull();
        late.inbox.ends_with(b"welcome?") && client.inbox.ends_with(b"still here")
    });
    host.leave(&mut context, &mut state);
}

#[test]
fn listener_that_the_host_refuses_is_gone_and_the_rest_goes_on() {
    let (mut context, mut state, server) = moved_out();
    let mut host = Audited::new(Suspicious::default());
    turn(&mut context, &mut host, &mut state);
    host.host.refuses = Refuses::Adds;
    let listener = context.io().listen(any_port(), server.site).unwrap();
    let address = context.io().local_addr(listener).unwrap().inet().unwrap();
    turn(&mut context, &mut host, &mut state);
    host.host.refuses = Refuses::Nothing;
    assert!(context.io().local_addr(listener).is_none());
    assert!(std::net::TcpStream::connect(address).is_err());
    let mut client = Client::tcp(server.address);
    client.write(UPGRADE);
    turn_until(&mut context, &mut host, &mut state, "it is open", |_, state| state.count("opened") == 1);
    host.leave(&mut context, &mut state);
    assert_eq!(state.ended, 1);
}

#[test]
fn wake_up_descriptor_that_the_host_refuses_is_offered_again() {
    let mut context: Context<State> = Context::new();
    let mut state = State::default();
    let mut host = Audited::new(Suspicious::default());
    host.host.refuses = Refuses::Adds;
    let remote = context.remote().unwrap();
    turn(&mut context, &mut host, &mut state);
    assert!(!context.io().wakes_up());
    remote.post(|state, _| state.numbers.push(1)).unwrap();
    turn(&mut context, &mut host, &mut state);
    assert_eq!(state.numbers, [1], "what was posted is found by the next call all the same");
    host.host.refuses = Refuses::Nothing;
    turn_until(&mut context, &mut host, &mut state, "it is watched", |context, _| context.io().wakes_up());
    host.leave(&mut context, &mut state);
}

#[test]
fn wake_up_descriptor_that_one_host_refused_is_added_at_once_to_the_next() {
    let mut context: Context<State> = Context::new();
    let mut host = Audited::new(Suspicious::default());
    host.host.refuses = Refuses::Adds;
    let _remote = context.remote().unwrap();
    let _ = host.prepare(&mut context);
    host.detach(&mut context);
    let mut next = Audited::new(PollArray::new());
    let _ = next.prepare(&mut context);
    assert!(context.io().wakes_up());
    next.leave(&mut context, &mut State::default());
}

#[test]
fn context_that_left_while_its_wake_up_descriptor_was_refused_stays_quiet() {
    let mut context: Context<State> = Context::new();
    let mut state = State::default();
    let mut host = Suspicious { refuses: Refuses::Adds, ..Suspicious::default() };
    let _remote = context.remote().unwrap();
    let wait = context.prepare(&mut host);
    context.leave(&mut host, &mut state);
    let until = wait.instant().expect("it would have been offered again");
    wait_until("that time has come", || now() > until);
    context.service_timeouts(&mut state);
    assert_eq!(context.prepare(&mut host), lodger::Wait::FOREVER);
}

#[test]
fn connection_whose_change_is_refused_ends_and_is_removed() {
    let (mut context, mut state, server) = moved_out();
    let mut host = Audited::new(Suspicious::default());
    let mut client = Client::tcp(server.address);
    let mut other = Client::tcp(server.address);
    client.write(UPGRADE);
    other.write(UPGRADE);
    turn_until(&mut context, &mut host, &mut state, "both are open", |_, state| state.count("opened") == 2);
    host.host.refuses = Refuses::Changes;
    let id = state.log.iter().find(|(_, what)| what == "opened").unwrap().0;
    let fd = context.io().conn(id).unwrap().fd().unwrap();
    while state.closed.is_empty() {
        if let Some(mut conn) = context.io().conn(id) {
            let _ = conn.send(&[0; 60_000]);
        }
        turn(&mut context, &mut host, &mut state);
    }
    assert_eq!(state.closed[0].0, id);
    assert!(matches!(state.closed[0].1.reason, CloseReason::Host(_)));
    assert!(state.closed[0].1.unsent > 0);
    assert_eq!(host.host.removed, [fd]);
    assert_eq!(state.closed.len(), 1);
    host.leave(&mut context, &mut state);
}

#[test]
fn nothing_is_said_to_the_host_while_nothing_changes() {
    let (mut context, mut state, server) = moved_out();
    let mut host = Suspicious::default();
    let _client = Client::tcp(server.raw_address);
    for _ in 0..5 {
        let wait = context.prepare(&mut host).sooner(Duration::from_millis(5).into());
        host.array.wait(wait).unwrap();
        while host.array.serve(&mut context, &mut state).is_some() {}
        context.service_timeouts(&mut state);
    }
    let calls = host.calls;
    for _ in 0..100 {
        assert_eq!(context.prepare(&mut host), lodger::Wait::FOREVER);
        context.service_timeouts(&mut state);
    }
    assert_eq!(host.calls, calls);
    context.leave(&mut host, &mut state);
}

#[test]
fn closed_conn_hears_nothing_after_it_has_closed_itself() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    house.data.act = Some(Box::new(|event, me, io| {
        if event == "message" {
            let mut conn = io.conn(me).unwrap();
            conn.close_with(ws::CloseCode::NORMAL, "enough");
            conn.set_timer(Duration::ZERO);
            conn.request_writable();
            io.notify(me, Box::new(1)).unwrap();
        }
    }));
    let mut batch = client_frame(1, b"first");
    batch.extend(client_frame(1, b"second"));
    batch.extend(client_frame(9, b"ping"));
    batch.extend(client_frame(2, b"third"));
    client.write(&batch);
    assert_eq!(house.frame(&mut client), (1, b"first".to_vec()));
    assert_eq!(house.frame(&mut client).0, 8);
    client.text("fourth");
    house.settle();
    client.close(1000);
    drop(client);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert_eq!(house.data.heard(id), ["message first", "closed"]);
    assert!(matches!(house.data.closed_of(id).unwrap().reason, CloseReason::Handshake { .. }));
    house.leave();
}

/// A host that watches nothing.
struct Full;

impl lodger::Host for Full {
    fn add(&mut self, _: std::os::fd::BorrowedFd<'_>, _: lodger::Interest) -> std::io::Result<()> {
        Err(std::io::Error::other("the table is full"))
    }

    fn change(
        &mut self,
        _: std::os::fd::BorrowedFd<'_>,
        _: lodger::Interest,
        _: lodger::Interest,
    ) -> std::io::Result<()> {
        unreachable!("nothing was added")
    }

    fn remove(&mut self, _: std::os::fd::BorrowedFd<'_>) {
        unreachable!("nothing was added")
    }
}

/// Notes which listeners were refused, and why.
struct Complaints;

type Refused = Vec<(lodger::ListenerId, String)>;

impl lodger::Protocol<Refused> for Complaints {
    fn listener_refused(
        &mut self,
        listener: lodger::ListenerId,
        error: std::io::Error,
        refused: &mut Refused,
        _: &mut lodger::Io<Refused>,
    ) {
        refused.push((listener, error.to_string()));
    }

    fn accept(
        &mut self,
        _: &lodger::Request<'_>,
        _: &mut Refused,
        _: &mut lodger::Io<Refused>,
    ) -> lodger::Decision<Refused> {
        unreachable!("nobody can connect")
    }
}

#[test]
fn listener_that_the_host_refuses_is_reported_to_its_protocol() {
    let mut context: lodger::Context<Refused> = lodger::Context::new();
    let site = context.io().add_site(lodger::Site::new().protocol("", Complaints)).unwrap();
    let listener = context.io().listen(lodger::Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
    assert!(context.prepare(&mut Full).is_now());
    let mut refused = Vec::new();
    context.service_timeouts(&mut refused);
    assert_eq!(refused, [(listener, "the table is full".to_owned())]);
    assert_eq!(context.link_count(), 0);
    assert_eq!(context.prepare(&mut Full), lodger::Wait::FOREVER);
}
