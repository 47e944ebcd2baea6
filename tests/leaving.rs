//! Leaving a loop: for another one, for good, by dropping, and in a forked child.

mod support;

use lodger::audit::{Audited, Violation};
use lodger::{
    AdoptRefused, CloseReason, Closed, Context, Cx, Flow, Host, Interest, Io, Limits, Listen, ListenError,
    PostError, Ready, SendError, Wait, ws,
};
use lodger_poll::{PollArray, VecHost, compact};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;
use support::*;

/// How many descriptors this process has.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A host over epoll(7).
struct Epoll(std::os::fd::OwnedFd);

impl Epoll {
    fn new() -> Self {
        Self(rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap())
    }

    fn flags(interest: Interest) -> rustix::event::epoll::EventFlags {
        use rustix::event::epoll::EventFlags;
        let read = if interest.is_readable() { EventFlags::IN } else { EventFlags::empty() };
        let write = if interest.is_writable() { EventFlags::OUT } else { EventFlags::empty() };
        read | write
    }

    fn wait(&self, wait: Wait) -> Vec<(RawFd, Ready)> {
        use rustix::event::epoll;
        let mut events = Vec::with_capacity(64);
        let timeout = wait.duration().map(|wait| rustix::event::Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        });
        epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()).unwrap();
        let report = |event: &epoll::Event| {
            let flags = event.flags;
            let bits = flags.bits() as i16 & (libc::POLLIN | libc::POLLOUT | libc::POLLERR | libc::POLLHUP);
            (event.data.u64() as RawFd, Ready::from_poll_revents(bits))
        };
        events.iter().map(report).collect()
    }
}

impl Host for Epoll {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let data = rustix::event::epoll::EventData::new_u64(fd.as_raw_fd() as u64);
        Ok(rustix::event::epoll::add(&self.0, fd, data, Self::flags(interest))?)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, _: Interest, interest: Interest) -> io::Result<()> {
        let data = rustix::event::epoll::EventData::new_u64(fd.as_raw_fd() as u64);
        Ok(rustix::event::epoll::modify(&self.0, fd, data, Self::flags(interest))?)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        rustix::event::epoll::delete(&self.0, fd).unwrap();
    }
}

#[test]
fn context_moves_between_hosts_of_different_kinds_with_messages_half_received() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    let (mut blocked, full) = server.websocket(&mut house);
    let (_paused_client, paused) = server.websocket(&mut house);
    conn(&mut house, paused).pause();
    let mut sent = 0;
    while conn(&mut house, full).queued() == 0 {
        let _ = conn(&mut house, full).send(&[9; 60_000]);
        sent += 60_000;
        house.turn(Duration::ZERO);
    }
    let message = client_frame(1, b"begun in one loop and ended in another");
    let third = message.len() / 3;
    client.write(&message[..third]);
    house.settle();
    house.host.detach(&mut house.context);
    assert!(house.host.host.is_empty());

    // A server's own vector.
    let mut entries: Vec<libc::pollfd> = Vec::new();
    let mut host = Audited::new(VecHost(&mut entries));
    let wait = host.prepare(&mut house.context);
    assert_eq!(wait.instant().is_some(), sent > 0, "a queue that waits has a deadline");
    client.write(&message[third..2 * third]);
    let fd = conn(&mut house, id).fd().unwrap();
    wait_until("it has come", || reported(fd, libc::POLLIN) != 0);
    assert_eq!(
        host.audit.service(&mut house.context, fd, Ready::READ, &mut house.data),
        lodger::Served::Ours
    );
    host.detach(&mut house.context);
    host.finished();
    drop(host);
    compact(&mut entries);
    assert!(entries.is_empty());

    // epoll.
    let mut host = Audited::new(Epoll::new());
    client.write(&message[2 * third..]);
    let mut got = 0;
    let mut answer = None;
    wait_until("the message is answered, and the queue is empty", || {
        let wait = host.prepare(&mut house.context).sooner(Duration::from_millis(1).into());
        host.audit.sleeping(wait.duration());
        for (fd, ready) in host.host.wait(wait) {
            let _ = host.audit.service(&mut house.context, fd, ready, &mut house.data);
        }
        host.audit.service_timeouts(&mut house.context, &mut house.data);
        client.pull();
        blocked.pull();
        while let Some((_, payload)) = blocked.next_frame() {
            got += payload.len();
        }
        answer = answer.take().or_else(|| client.next_frame());
        answer.is_some() && got == sent
    });
    assert_eq!(answer.unwrap(), (1, b"begun in one loop and ended in another".to_vec()));
    host.detach(&mut house.context);
    host.finished();
    assert!(house.data.closed.is_empty());

    // And back where it came from.
    client.text("home again");
    assert_eq!(house.frame(&mut client), (1, b"home again".to_vec()));
    house.leave();
}

#[test]
fn detaching_needs_no_data_and_may_be_repeated() {
    let (mut house, server) = served();
    let (mut client, _) = server.websocket(&mut house);
    for _ in 0..3 {
        house.host.detach(&mut house.context);
        house.host.detach(&mut house.context);
        assert!(house.host.host.is_empty());
        client.text("hello");
        assert_eq!(house.frame(&mut client), (1, b"hello".to_vec()));
    }
    house.leave();
}

/// A protocol and its handlers that try everything while the context leaves.
struct Stubborn(Rc<RefCell<Vec<String>>>);

impl ws::Handler<State> for Stubborn {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        assert!(matches!(closed.reason, CloseReason::Leaving), "{closed:?}");
        assert_eq!(cx.send("one more"), Err(SendError::Gone));
        let (reader, _writer) = io::pipe().unwrap();
        let refused = cx.io.adopt(reader.into(), Interest::READ, Box::new(Probe)).unwrap_err();
        assert!(matches!(refused.reason, AdoptRefused::Leaving));
        assert!(is_open(refused.descriptor.as_raw_fd()));
        let refused = cx.io.listen_raw(any_port(), Limits::default(), |_, _, _| None);
        assert!(matches!(refused, Err(ListenError::Leaving)));
        cx.io.after(Duration::ZERO, |_, _| {});
        self.0.borrow_mut().push("closed".into());
    }
}

#[test]
fn leaving_tells_everybody_and_leaves_nothing_behind() {
    let name = "leaving_tells_everybody_and_leaves_nothing_behind";
    if !in_own_process(name) {
        return;
    }
    let before = open_descriptors();
    let (mut house, server) = served();
    let notes = Rc::new(RefCell::new(Vec::new()));
    let notes_too = Rc::clone(&notes);
    let stubborn =
        lodger::Site::new().protocol("", move |_: &lodger::Request<'_>, _: &mut State, _: &mut Io<State>| {
            lodger::Decision::websocket(Stubborn(Rc::clone(&notes_too)))
        });
    let site = house.io().add_site(stubborn).unwrap();
    let listener = house.io().listen(any_port(), site).unwrap();
    let address = house.io().local_addr(listener).unwrap().inet().unwrap();
    let mut stubborn = Client::tcp(address);
    house.upgrade(&mut stubborn);
    let remote = house.context.remote().unwrap();
    let mut sockets: Vec<_> = (0..3).map(|_| server.websocket(&mut house)).collect();
    let (raw, raw_id) = server.raw(&mut house);
    let (reader, writer) = io::pipe().unwrap();
    let pipe = house.io().adopt(reader.into(), Interest::READ, Box::new(Probe)).unwrap();
    let mut http = Client::tcp(server.address);
    http.write(b"POST /probe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc");
    let mut undecided = Client::tcp(server.address);
    undecided.write(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    house.until("all are there", |house| {
        house.data.count("body") == 1 && house.data.count("accept /later") == 1
    });
    conn(&mut house, sockets[0].1).pause();
    conn(&mut house, sockets[1].1).send("last words").unwrap();
    house.leave();

    assert!(house.host.host.is_empty());
    assert_eq!(house.data.ended, 1);
    assert_eq!(*notes.borrow(), ["closed"]);
    for (n, (client, id)) in sockets.iter_mut().enumerate() {
        client.pull();
        if n == 1 {
            assert_eq!(client.next_frame(), Some((1, b"last words".to_vec())));
        }
        assert_eq!(client.next_frame(), Some((8, vec![3, 233])));
        assert_eq!(client.end, Some(End::Eof));
        assert!(matches!(house.data.closed_of(*id).unwrap().reason, CloseReason::Leaving));
    }
    for id in [raw_id, pipe] {
        assert!(matches!(house.data.closed_of(id).unwrap().reason, CloseReason::Leaving));
    }
    // Three WebSockets, a raw connection, a pipe, an exchange with a handler.
    assert_eq!(house.data.closed.len(), 6);
    http.pull();
    undecided.pull();
    assert!(http.end.is_some() && undecided.end.is_some());
    assert!(matches!(remote.wake(), Err(PostError::Gone(()))));
    assert!(matches!(
        house.io().listen(any_port(), server.site),
        Err(ListenError::Leaving | ListenError::NoSite)
    ));
    assert!(std::net::TcpStream::connect(server.address).is_err());
    drop((house, remote, sockets, raw, writer, http, undecided, stubborn));
    assert_eq!(open_descriptors(), before);
}

#[test]
fn leaving_twice_and_preparing_after_it_is_harmless() {
    let (mut house, server) = served();
    let (_client, _) = server.websocket(&mut house);
    house.leave();
    house.leave();
    assert_eq!(house.host.prepare(&mut house.context), Wait::FOREVER);
    house.host.audit.service_timeouts(&mut house.context, &mut house.data);
    assert_eq!(house.data.closed.len(), 1);
    assert_eq!(house.data.ended, 1);
}

#[test]
fn leaving_with_unread_input_and_work_of_every_kind_comes_to_an_end() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    let remote = house.context.remote().unwrap();
    let batch: Vec<u8> = (0..3000).flat_map(|_| client_frame(2, b"m")).collect();
    client.write(&batch);
    let fd = conn(&mut house, id).fd().unwrap();
    wait_until("they have come", || reported(fd, libc::POLLIN) != 0);
    let _ = house.host.prepare(&mut house.context);
    let _ = house.host.audit.service(&mut house.context, fd, Ready::READ, &mut house.data);
    house.io().notify(id, Box::new(())).unwrap();
    conn(&mut house, id).request_writable();
    for _ in 0..1000 {
        remote.post(|state, _| state.numbers.push(1)).unwrap();
    }
    house.io().after(Duration::ZERO, |_, _| {});
    house.leave();
    assert_eq!(house.data.closed.len(), 1);
}

#[test]
fn slow_peer_cannot_hold_up_the_leaving_and_what_it_did_not_get_is_told() {
    let (mut house, server) = served();
    let (_client, id) = server.websocket(&mut house);
    while conn(&mut house, id).send(&[1; 60_000]).unwrap() != Flow::Full || conn(&mut house, id).queued() == 0
    {
        house.turn(Duration::ZERO);
    }
    house.leave();
    let closed = house.data.closed_of(id).unwrap();
    assert!(matches!(closed.reason, CloseReason::Leaving));
    assert!(closed.unsent > 0);
}

#[test]
fn release_that_was_asked_for_just_before_leaving_is_honoured() {
    let mut house: House = House::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let id = house.io().adopt(reader.into(), Interest::READ, Box::new(Probe)).unwrap();
    house.settle();
    conn(&mut house, id).release();
    house.leave();
    let (_, closed) = house.data.closed.pop().unwrap();
    let CloseReason::Released { descriptor, .. } = closed.reason else { panic!("{closed:?}") };
    io::Write::write_all(&mut writer, b"x").unwrap();
    assert_eq!(rustix::io::read(&descriptor, &mut [0; 4][..]), Ok(1));
}

#[test]
fn adopted_and_listening_is_refused_while_shutting_down() {
    let (mut house, server) = served();
    house.io().shutdown(ws::CloseCode::GOING_AWAY);
    assert!(matches!(
        house.io().listen(any_port(), server.site),
        Err(ListenError::Leaving | ListenError::NoSite)
    ));
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let refused = house.io().adopt_raw(ours.into(), b"", Limits::default(), Box::new(Probe)).unwrap_err();
    assert!(matches!(refused.reason, AdoptRefused::Leaving));
    let refused = house.io().adopt_http(refused.descriptor, b"", server.site).unwrap_err();
    assert!(is_open(refused.descriptor.as_raw_fd()));
    house.until("the listeners are gone", |house| house.io().link_count() == 0);
    house.leave();
}

// Dropping.

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LOGGED.lock().unwrap().push(format!("{} {} {}", record.level(), record.target(), record.args()));
    }
    fn flush(&self) {}
}

#[test]
fn dropping_an_attached_context_is_logged_and_harmless() {
    if !in_own_process("dropping_an_attached_context_is_logged_and_harmless") {
        return;
    }
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let before = open_descriptors();
    let found = Rc::new(RefCell::new(Vec::new()));
    let report = Rc::clone(&found);
    let (mut house, server) = served();
    let (mut client, _) = server.websocket(&mut house);
    house.host.detach(&mut house.context);
    let House { mut context, .. } = house;
    let mut host =
        Audited::reporting(PollArray::new(), move |violation: Violation| report.borrow_mut().push(violation));
    let _ = host.prepare(&mut context);
    assert!(LOGGED.lock().unwrap().is_empty());
    drop(context);
    let logged = LOGGED.lock().unwrap().clone();
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].starts_with("ERROR lodger::host"), "{logged:?}");
    wait_until("the client sees the end", || {
        client.pull();
        client.end.is_some()
    });
    drop(host);
    assert!(!found.borrow().is_empty(), "the audit says so too");
    drop(client);
    assert_eq!(open_descriptors(), before);
}

#[test]
fn dropping_a_detached_context_is_no_mistake() {
    if !in_own_process("dropping_a_detached_context_is_no_mistake") {
        return;
    }
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let before = open_descriptors();
    let (mut house, server) = served();
    let (client, _) = server.websocket(&mut house);
    house.host.detach(&mut house.context);
    house.host.finished();
    drop((house, client));
    assert_eq!(*LOGGED.lock().unwrap(), Vec::<String>::new());
    assert_eq!(open_descriptors(), before);
}

// Forking.

/// A child does `end` with its copy of everything, and gives all numbers back by that; the parent's connections, listeners,
/// posts and paths are as they were. The process is the test's own.
fn forked_child_harms_nobody(name: &str, end: impl FnOnce(Context<State>, &mut State, &mut Audited<Epoll>)) {
    let directory = Directory::new(name);
    let path = directory.join("socket");
    let (mut house, server) = served();
    let listener = house.io().listen(Listen::unix(&path), server.site).unwrap();
    let remote = house.context.remote().unwrap();
    house.settle();
    house.host.detach(&mut house.context);
    // An epoll set, since it is shared with the child by the fork.
    let mut host = Audited::new(Epoll::new());
    let House { mut context, data: mut state, .. } = house;
    let mut client = Client::unix(&path);
    client.write(UPGRADE);
    let turn = |host: &mut Audited<Epoll>, context: &mut Context<State>, state: &mut State| {
        let wait = host.prepare(context).sooner(Duration::from_millis(1).into());
        for (fd, ready) in host.host.wait(wait) {
            let _ = host.audit.service(context, fd, ready, state);
        }
        host.audit.service_timeouts(context, state);
    };
    wait_until("it is open", || {
        turn(&mut host, &mut context, &mut state);
        state.count("opened") == 1
    });
    client.pull();
    client.inbox.clear();
    let numbers: Vec<RawFd> = context.io().links().map(|link| link.fd).collect();

    // SAFETY: the process has no thread that could hold a lock meanwhile (the harness's main thread waits), and the child only
    // ends what it has, looks at its numbers, and exits.
    match unsafe { libc::fork() } {
        0 => {
            let heard = state.log.len() + state.closed.len();
            let result = catch_unwind(AssertUnwindSafe(|| {
                assert!(context.is_forked());
                let unheard = remote.post(|_, _| ());
                assert!(matches!(unheard, Err(PostError::Forked(_))), "a post that nobody hears");
                end(context, &mut state, &mut host);
                assert!(matches!(remote.wake(), Err(PostError::Forked(()))));
                assert!(numbers.iter().all(|&fd| !is_open(fd)), "numbers that are left open");
                assert_eq!(state.log.len() + state.closed.len(), heard, "handlers have heard something");
            }));
            // SAFETY: it ends the process without running anything of the parent's.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        child => {
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: the pointer is to a local.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child has failed");
        }
    }
    assert!(path.exists());
    assert!(state.closed.is_empty());
    client.text("still there?");
    wait_until("it is answered", || {
        turn(&mut host, &mut context, &mut state);
        client.pull();
        client.next_frame() == Some((1, b"still there?".to_vec()))
    });
    remote.post(|state, _| state.numbers.push(1)).unwrap();
    let mut other = Client::unix(&path);
    other.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_until("both are heard", || {
        turn(&mut host, &mut context, &mut state);
        other.pull();
        other.inbox.starts_with(b"HTTP/1.1 200 ") && state.numbers == [1]
    });
    assert_eq!(client.end, None);
    context.io().close_listener(listener);
    host.leave(&mut context, &mut state);
    assert!(!path.exists());
}

#[test]
fn forked_child_that_abandons_harms_nobody() {
    if in_own_process("forked_child_that_abandons_harms_nobody") {
        forked_child_harms_nobody("abandons", |context, _, _| context.abandon());
    }
}

#[test]
fn forked_child_that_drops_its_context_harms_nobody() {
    if in_own_process("forked_child_that_drops_its_context_harms_nobody") {
        forked_child_harms_nobody("drops", |context, _, _| drop(context));
    }
}

#[test]
fn forked_child_that_leaves_harms_nobody_and_nobody_hears_of_it() {
    if in_own_process("forked_child_that_leaves_harms_nobody_and_nobody_hears_of_it") {
        forked_child_harms_nobody("leaves", |mut context, state, host| host.leave(&mut context, state));
    }
}

#[test]
fn forked_child_that_detaches_has_an_empty_context_and_harms_nobody() {
    if in_own_process("forked_child_that_detaches_has_an_empty_context_and_harms_nobody") {
        forked_child_harms_nobody("detaches", |mut context, state, host| {
            let conn = state.log[0].0;
            host.detach(&mut context);
            assert_eq!(context.link_count(), 0);
            assert!(context.io().conn(conn).is_none());
            assert_eq!(context.prepare(host), Wait::FOREVER);
            context.service_timeouts(state);
            assert!(context.io().links().next().is_none());
            assert!(matches!(
                context.io().listen_raw(any_port(), Limits::default(), |_, _, _| None),
                Err(ListenError::Leaving)
            ));
        });
    }
}

#[test]
fn a_context_is_its_own_processs_and_taking_it_over_there_changes_nothing() {
    let (mut house, server) = served();
    let remote = house.context.remote().unwrap();
    let (mut client, _) = server.websocket(&mut house);
    house.settle();
    let before = house.counts();
    assert!(!house.context.is_forked());
    house.context.take_over().unwrap();
    house.assert_idle();
    assert_eq!(house.counts().since(&before).host_calls(), 0);
    remote.post(|state, _| state.numbers.push(1)).unwrap();
    house.until("it is heard", |house| house.data.numbers == [1]);
    client.text("hello");
    assert_eq!(house.frame(&mut client), (1, b"hello".to_vec()));
    house.leave();
}
