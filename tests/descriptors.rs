//! Descriptors of the application's own, watched beside lodger's.

mod support;

use lodger::{AdoptRefused, CloseReason, ConnId, Context, Cx, Flow, Host, Interest, Limits, fd, raw};
use lodger_poll::PollArray;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::*;

fn adopt(house: &mut House, descriptor: impl Into<OwnedFd>, interest: Interest) -> ConnId {
    house.io().adopt(descriptor.into(), interest, Box::new(Probe)).unwrap()
}

/// Takes what a released conn left behind.
fn released(house: &mut House, id: ConnId) -> (OwnedFd, Vec<u8>) {
    house.until("it is given back", |house| house.data.closed_of(id).is_some());
    let at = house.data.closed.iter().position(|(of, _)| *of == id).unwrap();
    match house.data.closed.remove(at).1.reason {
        CloseReason::Released { descriptor, unread } => (descriptor, unread),
        reason => panic!("{reason}"),
    }
}

#[test]
fn pipe_is_read_as_lines_come_and_closed_at_its_end() {
    let mut house: House = House::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let id = adopt(&mut house, reader, Interest::READ);
    house.assert_idle();
    for line in ["one", "two"] {
        writer.write_all(line.as_bytes()).unwrap();
        let what = format!("readable {line}");
        house.until("it is read", |house| house.data.heard(id).last() == Some(&what.as_str()));
        house.assert_idle();
    }
    writer.write_all(b"last words").unwrap();
    drop(writer);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert_eq!(
        house.data.heard(id),
        ["readable one", "readable two", "readable last words", "readable", "closed"]
    );
    assert!(matches!(house.data.closed_of(id).unwrap().reason, CloseReason::Closed));
    house.leave();
}

#[test]
fn fifo_is_read_by_the_name_that_it_has() {
    let directory = Directory::new("fifo");
    let path = directory.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    // A writer of our own keeps it open while others come and go.
    let _keeper = OpenOptions::new().write(true).open(&path).unwrap();
    let mut house: House = House::new();
    let id = adopt(&mut house, reader, Interest::READ);
    for line in ["first", "second"] {
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(line.as_bytes()).unwrap();
        drop(writer);
        let what = format!("readable {line}");
        house.until("it is read", |house| house.data.heard(id).last() == Some(&what.as_str()));
        house.assert_idle();
    }
    house.leave();
}

#[test]
fn output_of_a_child_process_is_read_to_its_end() {
    let mut house: House = House::new();
    let mut child = Command::new("echo").arg("from a child").stdout(Stdio::piped()).spawn().unwrap();
    let id = adopt(&mut house, child.stdout.take().unwrap(), Interest::READ);
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert_eq!(house.data.heard(id), ["readable from a child\n", "readable", "closed"]);
    assert!(child.wait().unwrap().success());
    house.leave();
}

#[test]
fn eventfd_and_timerfd_are_descriptors_as_any_other() {
    let mut house: House = House::new();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    let raiser = event.try_clone().unwrap();
    let event = adopt(&mut house, event, Interest::READ);
    // SAFETY: it takes integers only.
    let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) };
    assert!(timer >= 0);
    // SAFETY: it was just made, and nobody else has it.
    let timer = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(timer) };
    let once = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 },
    };
    // SAFETY: the pointers are to a local and to nothing, as the call allows.
    let set = unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const once, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let timer = adopt(&mut house, timer, Interest::READ);
    house.until("the timer is due", |house| house.data.heard(timer).len() == 1);
    assert!(house.data.heard(event).is_empty());
    rustix::io::write(&raiser, &1u64.to_ne_bytes()).unwrap();
    house.until("it is raised", |house| house.data.heard(event).len() == 1);
    house.assert_idle();
    house.leave();
}

#[test]
fn pseudo_terminal_is_a_descriptor_as_any_other() {
    let mut house: House = House::new();
    let open = || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx");
    let Ok(mut master) = open() else { return eprintln!("no pseudo terminals here: nothing tested") };
    // SAFETY: integers only.
    assert_eq!(unsafe { libc::grantpt(master.as_raw_fd()) }, 0);
    // SAFETY: integers only.
    assert_eq!(unsafe { libc::unlockpt(master.as_raw_fd()) }, 0);
    let id = adopt(&mut house, master.try_clone().unwrap(), Interest::READ);
    // SAFETY: integers only; the number that it answers with is nobody else's.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY) };
    if slave < 0 {
        return eprintln!("no terminal behind it here: nothing tested");
    }
    // SAFETY: it was just made, and nobody else has it.
    let slave = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(slave) };
    let mut slave = File::from(slave);
    slave.write_all(b"prompt").unwrap();
    house.until("it is read", |house| house.data.heard(id) == ["readable prompt"]);
    drop(slave);
    master.write_all(b"nobody").unwrap_or_default();
    house.until("the hang-up ends it", |house| house.data.closed_of(id).is_some());
    house.leave();
}

#[test]
fn writability_is_told_once_and_again_when_asked_for() {
    let mut house: House = House::new();
    let (reader, writer) = io::pipe().unwrap();
    let id = adopt(&mut house, writer, Interest::WRITE);
    house.until("it is writable", |house| house.data.heard(id) == ["fd writable"]);
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::NONE);
    conn(&mut house, id).request_writable();
    house.until("it is writable again", |house| house.data.heard(id).len() == 2);
    house.assert_idle();
    drop(reader);
    house.assert_idle();
    conn(&mut house, id).request_writable();
    house.until("it hears of the error so", |house| house.data.heard(id).len() == 3);
    house.assert_idle();
    house.leave();
}

#[test]
fn descriptor_may_be_watched_both_ways() {
    let mut house: House = House::new();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let id = adopt(&mut house, ours, Interest::BOTH);
    house.until("it is writable", |house| house.data.heard(id) == ["fd writable"]);
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::READ);
    theirs.write_all(b"in").unwrap();
    house.until("it is readable", |house| house.data.heard(id).last() == Some(&"readable in"));
    house.assert_idle();
    house.leave();
}

#[test]
fn paused_descriptor_is_not_watched_until_it_is_resumed() {
    let mut house: House = House::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let id = adopt(&mut house, reader, Interest::READ);
    conn(&mut house, id).pause();
    writer.write_all(b"later").unwrap();
    house.assert_idle();
    assert_eq!(interest(&mut house, id), Interest::NONE);
    conn(&mut house, id).resume();
    house.until("it is read", |house| house.data.heard(id) == ["readable later"]);
    // Hung up while paused: that wakes nobody either.
    conn(&mut house, id).pause();
    drop(writer);
    house.assert_idle();
    conn(&mut house, id).resume();
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    house.leave();
}

/// A host that closes nothing, but notes when it was told to let go.
#[derive(Default)]
struct Noting(PollArray, Vec<i32>);

impl Host for Noting {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.0.add(fd, interest)
    }
    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        self.0.change(fd, previous, interest)
    }
    fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.1.push(fd.as_raw_fd());
        self.0.remove(fd);
    }
}

#[test]
fn released_descriptor_comes_back_after_remove_open_and_usable() {
    let mut context: Context<State> = Context::new();
    let mut state = State::default();
    let mut host = Noting::default();
    let (reader, mut writer) = io::pipe().unwrap();
    let number = reader.as_raw_fd();
    let id = context.io().adopt(reader.into(), Interest::READ, Box::new(Probe)).unwrap();
    let _ = context.prepare(&mut host);
    context.io().conn(id).unwrap().release();
    context.service_timeouts(&mut state);
    assert!(state.closed.is_empty(), "the host still watches it");
    assert!(context.prepare(&mut host).is_now());
    assert_eq!(host.1, [number]);
    context.service_timeouts(&mut state);
    let (_, closed) = state.closed.pop().unwrap();
    let CloseReason::Released { descriptor, unread } = closed.reason else { panic!("{closed:?}") };
    assert_eq!((descriptor.as_raw_fd(), unread.len()), (number, 0));
    assert_eq!(context.service(number, lodger::Ready::READ, &mut state), lodger::Served::Foreign);
    writer.write_all(b"x").unwrap();
    assert_eq!(rustix::io::read(&descriptor, &mut [0; 4][..]), Ok(1));
    // It may come back.
    context.io().adopt(descriptor, Interest::READ, Box::new(Probe)).unwrap();
    context.leave(&mut host, &mut state);
    assert_eq!(host.1, [number], "it was never added again");
}

#[test]
fn descriptor_that_is_released_before_it_was_added_comes_back_too() {
    let mut house: House = House::new();
    let (reader, _writer) = io::pipe().unwrap();
    let number = reader.as_raw_fd();
    let id = adopt(&mut house, reader, Interest::READ);
    conn(&mut house, id).release();
    let (descriptor, _) = released(&mut house, id);
    assert_eq!(descriptor.as_raw_fd(), number);
    assert_eq!(house.counts().host_calls(), 0);
    house.leave();
}

#[test]
fn paused_descriptor_can_be_released() {
    let mut house: House = House::new();
    let (reader, _writer) = io::pipe().unwrap();
    let id = adopt(&mut house, reader, Interest::READ);
    house.settle();
    conn(&mut house, id).pause();
    house.settle();
    conn(&mut house, id).release();
    let _ = released(&mut house, id);
    assert_eq!(house.data.heard(id), ["closed"]);
    house.leave();
}

#[test]
fn released_raw_connection_brings_what_was_read_and_not_delivered() {
    let (mut house, _) = served();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::on(OwnedFd::from(theirs).into());
    let id = house.io().adopt_raw(ours.into(), b"read before", Limits::default(), Box::new(Probe)).unwrap();
    conn(&mut house, id).pause();
    house.settle();
    assert_eq!(house.data.count("received"), 0);
    conn(&mut house, id).release();
    let (descriptor, unread) = released(&mut house, id);
    assert_eq!(unread, b"read before");
    client.write(b"more");
    assert_eq!(rustix::io::read(&descriptor, &mut [0; 8][..]), Ok(4));
    rustix::io::write(&descriptor, b"and back").unwrap();
    client.pull();
    assert_eq!(client.inbox, b"and back");
    house.leave();
}

#[test]
fn closed_descriptor_is_closed_after_it_was_removed() {
    let mut house: House = House::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let id = adopt(&mut house, reader, Interest::READ);
    house.settle();
    conn(&mut house, id).close();
    house.until("it has ended", |house| house.data.closed_of(id).is_some());
    assert_eq!(house.counts().removes, 1);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    house.leave();
}

#[test]
fn refused_adoption_gives_the_descriptor_back() {
    let mut context: Context<State> = Context::builder().max_links(1).build();
    let io = context.io();
    let (reader, writer) = io::pipe().unwrap();
    let number = reader.as_raw_fd();
    let refused = io.adopt(reader.into(), Interest::NONE, Box::new(Probe)).unwrap_err();
    assert!(matches!(refused.reason, AdoptRefused::NoInterest));
    assert_eq!(refused.descriptor.as_raw_fd(), number);
    let id = io.adopt(refused.descriptor, Interest::READ, Box::new(Probe)).unwrap();
    let number = writer.as_raw_fd();
    let refused = io.adopt(writer.into(), Interest::WRITE, Box::new(Probe)).unwrap_err();
    assert!(matches!(refused.reason, AdoptRefused::Full));
    assert_eq!(refused.descriptor.as_raw_fd(), number);
    assert!(is_open(number));
    // A descriptor of a path cannot be watched, nor made non-blocking.
    let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/").unwrap();
    io.conn(id).unwrap().abort();
    let mut house = House::with(context);
    house.settle();
    let number = path.as_raw_fd();
    let refused = house.io().adopt(path.into(), Interest::READ, Box::new(Probe)).unwrap_err();
    assert!(matches!(refused.reason, AdoptRefused::Nonblocking(_)));
    assert_eq!(refused.descriptor.as_raw_fd(), number);
    house.leave();
}

#[test]
fn adopted_descriptors_are_made_non_blocking_and_close_on_exec() {
    let mut house: House = House::new();
    let (reader, _writer) = io::pipe().unwrap();
    // SAFETY: integers only.
    assert_eq!(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let fd = reader.as_raw_fd();
    let id = adopt(&mut house, reader, Interest::READ);
    // SAFETY: integers only.
    let flags =
        unsafe { [libc::fcntl(fd, libc::F_GETFD), libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK] };
    assert_eq!(flags, [libc::FD_CLOEXEC, libc::O_NONBLOCK]);
    conn(&mut house, id).close();
    house.leave();
}

/// Copies what it reads to a conn, and stops reading while that conn is full.
struct Feeder(ConnId);

impl fd::Handler<State> for Feeder {
    fn readable(&mut self, cx: &mut Cx<'_, State>, fd: BorrowedFd<'_>) {
        let mut buffer = [0; 32 * 1024];
        let read = rustix::io::read(fd, &mut buffer[..]).unwrap_or(0);
        let me = cx.id();
        let Some(mut to) = cx.io.conn(self.0) else { return cx.close() };
        if read == 0 {
            to.finish();
            return cx.close();
        }
        if to.write(&buffer[..read]) == Ok(Flow::Full) {
            to.request_writable();
            cx.data.numbers.push(0);
            if let Some(mut own) = cx.io.conn(me) {
                own.pause();
            }
        }
    }
}

/// Lets its feeder go on.
struct Drain;

impl raw::Handler<State> for Drain {
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        let feeder: Vec<ConnId> =
            cx.io.links().filter(|link| link.role == "descriptor").filter_map(|link| link.conn).collect();
        for id in feeder {
            if let Some(mut conn) = cx.io.conn(id) {
                conn.resume();
            }
        }
    }
}

#[test]
fn backpressure_of_a_connection_stops_the_descriptor_that_feeds_it() {
    let mut house: House = House::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::on(OwnedFd::from(theirs).into());
    let limits = Limits { send_high_water: 16 * 1024, ..Limits::default() };
    let to = house.io().adopt_raw(ours.into(), b"", limits, Box::new(Drain)).unwrap();
    let (reader, mut writer) = io::pipe().unwrap();
    house.io().adopt(reader.into(), Interest::READ, Box::new(Feeder(to))).unwrap();
    let feeder = std::thread::spawn(move || {
        for n in 0..400u32 {
            writer.write_all(&[n as u8; 4096]).unwrap();
        }
    });
    house.until("it is stopped", |house| !house.data.numbers.is_empty());
    house.assert_idle();
    let got = house.bytes(&mut client, 400 * 4096);
    assert!(got.chunks(4096).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8)));
    house.ends(&mut client);
    feeder.join().unwrap();
    drop(client);
    house.until("both have ended", |house| house.io().link_count() == 0);
    house.leave();
}

#[test]
fn websocket_and_http_sockets_that_were_accepted_elsewhere_can_be_adopted() {
    let (mut house, server) = served();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::on(OwnedFd::from(theirs).into());
    house.io().adopt_http(ours.into(), b"GET / HTTP/1.1\r\nHo", server.site).unwrap();
    client.write(b"st: localhost\r\n\r\n");
    assert!(house.head(&mut client).starts_with("HTTP/1.1 200 "));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = Client::on(OwnedFd::from(theirs).into());
    let frame = client_frame(1, b"half read by another");
    let id =
        house.io().adopt_websocket(ours.into(), &frame[..10], Limits::default(), Box::new(Probe)).unwrap();
    client.write(&frame[10..]);
    assert_eq!(house.frame(&mut client), (1, b"half read by another".to_vec()));
    assert_eq!(house.data.heard(id), ["message half read by another"]);
    house.assert_idle();
    house.leave();
}

#[test]
fn blocking_reads_of_the_application_are_its_own_affair() {
    let mut house: House = House::new();
    let (reader, mut writer) = io::pipe().unwrap();
    let mut own = File::from(OwnedFd::from(reader.try_clone().unwrap()));
    let id = adopt(&mut house, reader, Interest::READ);
    house.settle();
    writer.write_all(b"x").unwrap();
    // Read behind lodger's back: the readiness is gone before it could be told.
    own.read_exact(&mut [0]).unwrap();
    assert_eq!(house.turn(Duration::ZERO), 0);
    assert!(house.data.heard(id).is_empty());
    house.leave();
}
