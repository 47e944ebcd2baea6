//! A flood of silent connections over real sockets, and an honest client beside it. On Linux, where every address of 127.0.0.0/8 is
//! the machine's own.
#![cfg(target_os = "linux")]

use super::support::{UPGRADE, now, served_with};
use lodger::{Context, Limits};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How many silent connections the flood keeps, where the system lets this process have so many, and how many it makes in a
/// second.
const SILENT: usize = 5_000;
const PER_SECOND: usize = 2_000;
/// How long the honest client takes over its handshake, how often it tries, and how long after one try the next begins.
const TAKES: Duration = Duration::from_millis(300);
const TRIES: usize = 20;
const APART: Duration = Duration::from_millis(100);

/// The bound of handshakes unless another is set.
const HANDSHAKES: usize = 1_024;

const FLOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// A connection, perhaps not made yet, from this address of the machine's own.
fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(from.into(), 0))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// Waits without doing anything.
fn pass(time: Duration) {
    lodger_poll::poll(&mut [], time).unwrap();
}

/// How many descriptors everyone else needs: the server's connections, those of a turn that are not closed yet, the honest ones.
const OTHERS: usize = 2_500;

/// How many silent connections the flood can keep.
fn silent() -> usize {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let needed = (SILENT + OTHERS) as u64;
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = limit.maximum.map_or(Some(needed), |most| Some(most.min(needed)));
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    }
    let room = limit.current.map_or(SILENT, |current| (current as usize).saturating_sub(OTHERS).min(SILENT));
    assert!(room > HANDSHAKES, "too few descriptors for a flood: {limit:?}");
    room
}

/// Keeps `most` connections and makes [`PER_SECOND`] until it is told to stop. Says how many it has made, and in how long.
fn flood(server: SocketAddr, most: usize, made: &AtomicUsize, over: &AtomicBool) -> (usize, Duration) {
    let mut silent: VecDeque<TcpStream> = VecDeque::new();
    let (mut start, mut since_start) = (now(), 0);
    while !over.load(Ordering::Relaxed) {
        let begun = made.load(Ordering::Relaxed);
        let due = (start.elapsed().as_secs_f64() * PER_SECOND as f64) as usize;
        // Up to the full number as fast as it goes.
        let missing = if begun < most { 50 } else { due.saturating_sub(since_start) };
        let mut came = 0;
        while came < missing {
            let Ok(connection) = connect(FLOOD, server) else { break };
            came += 1;
            if silent.len() == most {
                silent.pop_front();
            }
            silent.push_back(connection);
            made.fetch_add(1, Ordering::Relaxed);
        }
        if begun < most {
            (start, since_start) = (now(), 0);
        } else {
            since_start += came;
        }
        pass(Duration::from_millis(1));
    }
    (since_start, start.elapsed())
}

/// Opens a WebSocket, and takes its time over the handshake.
fn honest(server: SocketAddr) -> Result<(), String> {
    let error = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream = connect(HONEST, server).map_err(error("connecting"))?;
    // Where the connection is not made yet, writing waits for that.
    stream.set_nonblocking(false).unwrap();
    let (first, second) = UPGRADE.split_at(UPGRADE.len() / 2);
    pass(TAKES / 2);
    stream.write_all(first).map_err(error("the first half"))?;
    pass(TAKES / 2);
    stream.write_all(second).map_err(error("the second half"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut head = [0; 13];
    stream.read_exact(&mut head).map_err(error("the answer"))?;
    if head == *b"HTTP/1.1 101 " { Ok(()) } else { Err(String::from_utf8_lossy(&head).into_owned()) }
}

#[test]
#[allow(clippy::print_stdout, reason = "the rate that was reached says what the test was worth")]
fn an_honest_client_gets_in_every_time_beside_a_flood_of_silent_connections() {
    let silent = silent();
    let (mut house, server) = served_with(Context::new(), Limits::default());
    let address = server.address;
    let (made, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let flooder = {
        let (made, over) = (Arc::clone(&made), Arc::clone(&over));
        std::thread::spawn(move || flood(address, silent, &made, &over))
    };
    let tries = std::thread::spawn(move || {
        while made.load(Ordering::Relaxed) < silent {
            pass(Duration::from_millis(10));
        }
        let tries: Vec<_> = (0..TRIES)
            .map(|_| {
                pass(APART);
                std::thread::spawn(move || honest(address))
            })
            .collect();
        tries.into_iter().map(|attempt| attempt.join().unwrap()).collect::<Vec<_>>()
    });
    let mut most = 0;
    while !tries.is_finished() {
        house.turn(Duration::from_millis(20));
        // Nobody looks at what the handlers have heard.
        house.data.log.clear();
        most = most.max(house.io().link_count());
    }
    over.store(true, Ordering::Relaxed);
    let (count, time) = flooder.join().unwrap();
    let rate = count as f64 / time.as_secs_f64();
    println!("{silent} silent connections, and {rate:.0} new ones a second");
    let failed: Vec<_> = tries.join().unwrap().into_iter().filter_map(Result::err).collect();
    // The bound was reached; beside it there are the listeners, the honest ones, and those of a turn that are not closed yet.
    assert!((HANDSHAKES..HANDSHAKES + 500).contains(&most), "{most} connections");
    assert!(failed.is_empty(), "{} of {TRIES} did not get in: {failed:?}", failed.len());
    house.leave();
}
