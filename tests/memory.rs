//! A process that has no memory left: the peers that it had none for end, the others are served.
#![cfg(target_os = "linux")]

use lodger::ws::deflate::{Compressor, Deflate, Setting};
use lodger::{Context, Cx, Decision, Io, Limits, Listen, Origins, Request, Response, Site, ws};
use lodger_poll::PollArray;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const MIB: usize = 1 << 20;

struct Echo;

impl ws::Handler<()> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, ()>, message: ws::Message<'_>) {
        let _ = cx.send(message);
    }
}

#[test]
#[ignore = "it is the process that the other tests let run out of memory"]
fn serve_until_the_end() {
    let accept = |request: &Request<'_>, _: &mut (), _: &mut Io| match request.is_websocket() {
        true => Decision::websocket(Echo),
        false => Decision::respond(Response::text("hello\n")),
    };
    // Nothing but memory is to end a connection, however slow this is.
    let long = Duration::from_secs(600);
    let limits = Limits {
        message_stall: long,
        write_stall: long,
        handshake: long,
        head: 4 * MIB,
        ..Limits::default()
    };
    let mut context: Context = Context::builder().max_unfinished(usize::MAX).build();
    let site = Site::new().protocol("", accept).origins(Origins::Any).deflate(Deflate::default());
    let site = context.io().add_site(site.limits(limits)).expect("a site with a protocol");
    let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).expect("a port is free");
    let address = context.io().local_addr(listener).and_then(|address| address.inet()).expect("TCP");
    println!("listening on {address}");
    let mut array = PollArray::new();
    let mut end = std::os::unix::net::UnixStream::pair().expect("descriptors are left");
    end.0.set_nonblocking(true).expect("a socket");
    // The other process holds the only other end of our standard input.
    let watch = std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(end.1);
    });
    loop {
        let wait = context.prepare(&mut array).sooner(Duration::from_millis(50).into());
        array.wait(wait).expect("poll(2) works");
        while array.serve(&mut context, &mut ()).is_some() {}
        context.service_timeouts(&mut ());
        if matches!(end.0.read(&mut [0]), Ok(0)) {
            break;
        }
    }
    watch.join().expect("it only waits");
    context.leave(&mut array, &mut ());
    println!("served to the end");
}

/// A server in a process that may have 200 MB of addresses.
struct Server {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
    address: SocketAddr,
}

impl Server {
    fn new() -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -v 200000; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().expect("the test knows its name"))
            .args(["--exact", "serve_until_the_end", "--ignored", "--nocapture", "--test-threads=1"])
            // Each arena of the C library takes 64 MiB of addresses.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut lines =
            Box::new(BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok));
        let address = lines.find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        let address = address.expect("the server begins").parse().expect("an address");
        Self { child, lines, address }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("the server listens");
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&socket, Some(Duration::from_secs(20))).expect("a socket");
        }
        socket
    }

    fn open(&self) -> TcpStream {
        self.open_with("")
    }

    fn open_with(&self, fields: &str) -> TcpStream {
        let mut socket = self.connect();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("a request fits");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the server answers");
            seen.push(byte[0]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&seen));
        socket
    }

    /// Ends the server, which has lived until now.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.lines.any(|line| line.contains("served to the end")), "the process has died");
        assert!(self.child.wait().expect("it is our child").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A frame of which so much is announced.
fn frame(first: u8, announced: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match announced {
        0..126 => bytes.push(0x80 | announced as u8),
        126..65_536 => bytes.extend([&[0x80 | 126][..], &(announced as u16).to_be_bytes()].concat()),
        _ => bytes.extend([&[0x80 | 127][..], &(announced as u64).to_be_bytes()].concat()),
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Whether a message comes back.
fn echoes(socket: &mut TcpStream) -> bool {
    socket.write_all(&frame(0x82, 3, b"abc")).expect("a message fits");
    let mut answer = [0; 5];
    socket.read_exact(&mut answer).is_ok() && answer == *b"\x82\x03abc"
}

/// What a peer gets that sends no more: up to the end, a reset, or so many bytes.
fn received(socket: &TcpStream, most: usize) -> Vec<u8> {
    let mut read = Vec::new();
    match socket.take(most as u64).read_to_end(&mut read) {
        Ok(_) => read,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => read,
        Err(error) => panic!("it does not end: {error}"),
    }
}

/// The code of the Close, or the status, that a peer gets at its end.
fn last_word(socket: &TcpStream) -> Option<u16> {
    // One that still has its memory goes now.
    let _ = socket.shutdown(Shutdown::Write);
    let read = received(socket, usize::MAX);
    if let Some(status) = read.strip_prefix(b"HTTP/1.1 ") {
        return std::str::from_utf8(&status[..3]).ok()?.parse().ok();
    }
    let close = read.windows(2).position(|two| two[0] == 0x88 && usize::from(two[1]) < 126)?;
    Some(u16::from_be_bytes([*read.get(close + 2)?, *read.get(close + 3)?]))
}

/// Lets 30 peers send `bytes`, and gives what each of them gets, by `end`. An honest one is served meanwhile, and afterwards.
fn thirty<T>(fields: &str, bytes: &[u8], end: impl Fn(&TcpStream) -> T) -> Vec<T> {
    let server = Server::new();
    let mut honest = server.open();
    let mut peers = Vec::new();
    for number in 0..30 {
        let mut socket = server.open_with(fields);
        // It may have been given up while it sends.
        let _ = socket.write_all(bytes);
        assert!(echoes(&mut honest), "the honest one is not served beside {number} others");
        peers.push(socket);
    }
    let ends = peers.iter().map(end).collect();
    drop(peers);
    assert!(echoes(&mut honest) && echoes(&mut server.open()));
    drop(honest);
    server.end();
    ends
}

#[test]
fn messages_that_there_is_no_memory_for_end_their_connections_and_no_others() {
    let parked = frame(0x82, 16 * MIB, &vec![b'q'; 16 * MIB - 10]);
    let ends = thirty("", &parked, last_word);
    assert!(ends.contains(&Some(1009)), "{ends:?}");
}

#[test]
fn compressed_messages_that_there_is_no_memory_for_end_their_connections_and_no_others() {
    let mut payload = Vec::new();
    assert!(Compressor::new(Setting::new(9, 15, 8)).compress(&vec![7; 16 * MIB - 10], &mut payload));
    let parked = frame(0xc2, payload.len() + 1, &payload);
    let ends = thirty("Sec-WebSocket-Extensions: permessage-deflate\r\n", &parked, last_word);
    assert!(ends.contains(&Some(1009)), "{ends:?}");
}

#[test]
fn answers_that_there_is_no_memory_for_end_their_connections_and_no_others() {
    let whole = frame(0x82, 16 * MIB, &vec![b'q'; 16 * MIB]);
    // A header of 10 bytes is before it.
    let answer = 10 + 16 * MIB;
    let lengths = thirty("", &whole, |socket| received(socket, answer).len());
    assert!(lengths.iter().any(|length| *length < answer), "all have their answers");
}

#[test]
fn heads_that_there_is_no_memory_for_end_their_connections_and_no_others() {
    let head = [&b"GET / HTTP/1.1\r\nHost: a\r\nX: "[..], &vec![b'q'; 4 * MIB - 100]].concat();
    let server = Server::new();
    let mut peers = Vec::new();
    for _ in 0..60 {
        let mut socket = server.connect();
        let _ = socket.write_all(&head);
        peers.push(socket);
    }
    let ends: Vec<_> = peers.iter().map(last_word).collect();
    assert!(ends.contains(&Some(503)), "{ends:?}");
    assert!(echoes(&mut server.open()));
    server.end();
}
