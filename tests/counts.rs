//! The budgets that are counts: allocations, bytes, calls to the host, system calls, readings of the clock.

#[path = "counts/held.rs"]
mod held;
#[cfg(feature = "deflate")]
#[path = "counts/largest.rs"]
mod largest;
#[cfg(any(feature = "tls-aws-lc-rs", feature = "tls-ring"))]
#[path = "counts/secure.rs"]
mod secure;
#[path = "counts/tally.rs"]
mod tally;

use lodger::audit::Audited;
use lodger::ws::MessageKind;
use lodger::{Limits, Listen, Served};
use lodger_poll::PollArray;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;
use tally::{Client, Counting, Server, allocated, allocations, batch, bytes};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KIB: usize = 1024;

/// Allocations per message once things have settled.
fn allocations_per_message(kind: MessageKind, size: usize, depth: usize) -> f64 {
    let mut server = Server::new(Limits::default());
    let mut client = server.upgraded();
    let (request, answer) = batch(kind, size, depth);
    for _ in 0..50 {
        client.echo(&mut server, &request, answer);
    }
    let rounds = if size > 16 * KIB { 50 } else { 500 };
    let before = allocations();
    for _ in 0..rounds {
        client.echo(&mut server, &request, answer);
    }
    (allocations() - before) as f64 / (rounds * depth) as f64
}

#[test]
fn echoing_allocates_nothing() {
    let mut over = Vec::new();
    for kind in [MessageKind::Binary, MessageKind::Text] {
        for size in [32, KIB, 16 * KIB, 256 * KIB] {
            for depth in [1, 16] {
                let count = allocations_per_message(kind, size, depth);
                println!("{kind:?} of {size} bytes, {depth} in flight: {count} allocations per message");
                if count > 0.0 {
                    over.push((kind, size, depth, count));
                }
            }
        }
    }
    assert!(over.is_empty(), "allocations per message: {over:?}");
}

/// Heap bytes that each further link costs, all told, when `open` has opened it and it is idle.
fn bytes_per_link(open: impl FnMut(&mut Server) -> Client) -> f64 {
    bytes_per_link_of(4096, Server::new(Limits::default()), open).0
}

/// The same, and what the process holds for it.
fn bytes_per_link_of(
    most: usize,
    mut server: Server,
    mut open: impl FnMut(&mut Server) -> Client,
) -> (f64, f64) {
    const BASE: usize = 64;
    // Both ends are in this process. Those of the clients get high numbers, as they would have in another one.
    let limit = raise_descriptor_limit();
    let clients_from = 2 * most as i32;
    let links = most.min((limit as usize).saturating_sub(2 * most + 200));
    assert!(links > 1000, "too few descriptors are allowed: {limit}");
    let mut sockets = Vec::with_capacity(BASE + links);
    let mut open_one = |server: &mut Server| {
        let client = open(server);
        // SAFETY: the number that the call returns is new, and nobody else's.
        let socket = unsafe {
            OwnedFd::from_raw_fd(libc::fcntl(client.socket.as_raw_fd(), libc::F_DUPFD_CLOEXEC, clients_from))
        };
        sockets.push(socket);
    };
    for _ in 0..BASE {
        open_one(&mut server);
    }
    let held = |server: &Server| [bytes(), allocated()].map(|bytes| bytes - server.host.bytes);
    let before = held(&server);
    for _ in 0..links {
        open_one(&mut server);
    }
    server.turn();
    let after = held(&server);
    let each = |at: usize| (after[at] - before[at]) as f64 / links as f64;
    assert_eq!(server.context.link_count(), 1 + BASE + links);
    (each(0), each(1))
}

fn raise_descriptor_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a struct that outlives them.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(65_536).max(limit.rlim_cur);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur
}

#[test]
fn an_idle_websocket_costs_208_bytes_at_the_most() {
    let (request, answer) = batch(MessageKind::Binary, 32, 1);
    let each = bytes_per_link(|server| {
        let mut client = server.upgraded();
        client.echo(server, &request, answer);
        client
    });
    println!("{each:.1} bytes per idle WebSocket");
    assert!(each <= 208.0, "{each:.1} bytes per idle WebSocket");
}

#[cfg(any(feature = "tls-aws-lc-rs", feature = "tls-ring"))]
#[test]
fn an_idle_websocket_over_tls_costs_3_kib_at_the_most() {
    for version in [lodger::tls::Version::Tls13, lodger::tls::Version::Tls12] {
        let pair = secure::Pair::new(version);
        let (each, held) = bytes_per_link_of(1024, pair.listening(), |server| pair.upgraded(server));
        println!("{each:.1} bytes per idle WebSocket over {version}, {held:.1} as the process holds them");
        assert!(each <= 3072.0, "{each:.1} bytes per idle WebSocket over {version}");
        // Where no other test is in the process. The keys of AWS-LC are in this number only.
        if std::env::var_os("NEXTEST").is_some() {
            assert!(held <= 3072.0, "the process holds {held:.1} bytes per idle WebSocket over {version}");
        }
    }
}

#[test]
fn an_idle_http_connection_costs_less_than_half_a_kilobyte() {
    let each = bytes_per_link(|server| {
        let mut client = server.connect();
        client.exchange(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", |answer| answer.ends_with(b"hello\n"));
        client
    });
    println!("{each:.1} bytes per HTTP connection that is kept alive");
    assert!(each <= 512.0, "{each:.1} bytes per HTTP connection that is kept alive");
}

#[test]
fn echoing_calls_the_host_never() {
    for size in [32, KIB, 16 * KIB] {
        for depth in [1, 16] {
            let mut server = Server::new(Limits::default());
            let mut client = server.upgraded();
            let (request, answer) = batch(MessageKind::Binary, size, depth);
            client.echo(&mut server, &request, answer);
            let before = server.host.calls;
            for _ in 0..200 {
                client.echo(&mut server, &request, answer);
            }
            assert_eq!(server.host.calls - before, 0, "{size} bytes, {depth} in flight");
        }
    }
}

#[test]
fn an_audited_loop_counts_one_wake_up_and_no_host_call_per_echoed_message() {
    let mut context: lodger::Context = lodger::Context::new();
    let site = context.io().add_site(tally::site(Limits::default())).unwrap();
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("descriptors are left");
    context.io().adopt_http(near.into(), &[], site).expect("a socket is adopted");
    let mut far = far;
    let mut audited = Audited::new(PollArray::new());
    let mut turn = |context: &mut lodger::Context| {
        let wait = audited.prepare(context).sooner(Duration::ZERO.into());
        audited.audit.sleeping(wait.duration());
        audited.host.wait(wait).expect("poll(2) works");
        while let Some(entry) = audited.host.next_ready() {
            assert_eq!(audited.audit.service_fd(context, entry, &mut ()), Served::Ours);
        }
        audited.audit.service_timeouts(context, &mut ());
        audited.counts()
    };
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    far.write_all(request.as_bytes()).expect("a request fits");
    turn(&mut context);
    turn(&mut context);
    let mut head = [0; 1024];
    let _ = far.read(&mut head).expect("the server answers");
    let before = turn(&mut context);
    let (request, answer) = batch(MessageKind::Text, 32, 1);
    for _ in 0..100 {
        far.write_all(&request).expect("a message fits");
        turn(&mut context);
        far.read_exact(&mut head[..answer]).expect("the server echoes");
    }
    let counts = turn(&mut context).since(&before);
    assert_eq!((counts.host_calls(), counts.locks, counts.services), (0, 0, 100));
    audited.leave(&mut context, &mut ());
}

#[test]
fn echoing_reads_no_clock_unless_a_time_is_kept_and_then_once_a_turn() {
    let (request, answer) = batch(MessageKind::Binary, 32, 16);
    let readings = |limits: Limits| {
        let mut server = Server::new(limits);
        let mut client = server.upgraded();
        client.echo(&mut server, &request, answer);
        let (before, turns) = (server.clock.readings(), server.turns);
        for _ in 0..200 {
            client.echo(&mut server, &request, answer);
        }
        (server.clock.readings() - before, server.turns - turns)
    };
    let (read, turns) = readings(Limits::default());
    assert_eq!(read, 0, "in {turns} turns without a timer");
    let minute = Some(Duration::from_secs(60));
    let (read, turns) = readings(Limits { ping_interval: minute, idle: minute, ..Limits::default() });
    assert!(read <= turns, "{read} readings in {turns} turns");
}

// System calls, in a process of their own.

/// An echo server that ends with its first connection. Run by the test below, and by `counts/instructions`.
#[test]
#[ignore = "a server for others"]
fn serve_one() {
    let mut context: lodger::Context = lodger::Context::new();
    let site = context.io().add_site(tally::site(Limits::default())).expect("a site with a protocol");
    let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).expect("a port is free");
    let address = context.io().local_addr(listener).expect("it listens");
    println!("\nlistening on {address}");
    let mut own = lodger_poll::Loop::new();
    let mut links = 1;
    while context.link_count() >= links {
        links = context.link_count();
        // What has ended is gone after the next `prepare`, and the sleep comes after that.
        own.turn(&mut context, &mut (), Some(Duration::from_millis(500))).expect("poll(2) works");
    }
    own.leave(&mut context, &mut ());
}

/// The system calls by name that a server makes in all for `batches` of `depth` messages.
fn system_calls(depth: usize, batches: usize) -> Option<[usize; 4]> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("strace is not installed: skipped");
        return None;
    }
    let log = std::env::temp_dir().join(format!("lodger-strace-{}-{depth}-{batches}", std::process::id()));
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().expect("the test knows its name"))
        .args(["--exact", "serve_one", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let Some(address) = lines.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned)) else {
        println!("strace may not trace here: skipped");
        let _ = child.wait();
        return None;
    };
    let mut socket = TcpStream::connect(address).expect("the server listens");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("a request fits");
    let mut head = [0; 1];
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut head).expect("the server answers");
        seen.push(head[0]);
    }
    let (request, answer) = batch(MessageKind::Binary, 32, depth);
    let mut echoed = vec![0; answer];
    for _ in 0..batches {
        socket.write_all(&request).expect("a batch fits");
        socket.read_exact(&mut echoed).expect("the server echoes");
    }
    drop(socket);
    lines.for_each(drop);
    assert!(child.wait().expect("strace ends").success());
    let text = std::fs::read_to_string(&log).expect("strace has written its log");
    let _ = std::fs::remove_file(&log);
    let calls: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(name, _)| name))
        .collect();
    let count = |names: &[&str]| calls.iter().filter(|call| names.contains(call)).count();
    Some([
        count(&["read", "recvfrom", "recvmsg", "readv"]),
        count(&["write", "sendto", "sendmsg", "writev"]),
        count(&["poll", "ppoll"]),
        calls.len(),
    ])
}

#[test]
fn a_batch_of_messages_costs_one_read_one_write_and_one_wait() {
    for depth in [1, 16] {
        let (Some(few), Some(many)) = (system_calls(depth, 10), system_calls(depth, 110)) else { return };
        let more: Vec<usize> = many.iter().zip(few).map(|(many, few)| many.saturating_sub(few)).collect();
        println!("{depth} in flight, 100 batches: reads, writes, waits and all: {more:?}");
        assert_eq!(more[..2], [100, 100], "{depth} in flight: reads and writes for 100 batches");
        // The wait may come once more where it has timed out in the meantime.
        assert!(more[2] <= 110 && more[3] <= 310, "{depth} in flight, for 100 batches: {more:?}");
    }
}
