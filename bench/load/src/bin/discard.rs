//! What fairness is compared with: a server without a protocol, in a level-triggered loop over epoll(7), that reads a buffer full
//! from each descriptor that is ready and throws it away. A connection whose first byte is a question mark gets back what it sends.
//!
//! `discard BUFFER PORT`.

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [buffer, port] = &arguments[..] else { panic!("discard BUFFER PORT") };
    let buffer = &mut vec![0; buffer.parse().expect("BUFFER")][..];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().expect("PORT")))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    // By descriptor.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                while let Some(connection) = Connection::accept(&listener) {
                    let fd = connection.stream.as_raw_fd() as usize;
                    epoll::add(&epoll, &connection.stream, EventData::new_u64(fd as u64), EventFlags::IN)?;
                    connections.resize_with(connections.len().max(fd + 1), || None);
                    connections[fd] = Some(connection);
                }
                continue;
            }
            let slot = &mut connections[event.data.u64() as usize];
            if slot.as_mut().is_some_and(|connection| !connection.ready(buffer)) {
                *slot = None;
            }
        }
    }
}

const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    /// Whether it gets back what it sends, once it has sent something.
    answered: Option<bool>,
}

impl Connection {
    /// The next of those that wait at `listener`.
    fn accept(listener: &TcpListener) -> Option<Self> {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, answered: None })
    }

    /// One read. False at the end of the connection.
    fn ready(&mut self, buffer: &mut [u8]) -> bool {
        let received = match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(received) => &buffer[..received],
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let answered = *self.answered.get_or_insert(received[0] == b'?');
        // What is asked is short, and its answer is waited for: there is room.
        !answered || self.stream.write_all(received).is_ok()
    }
}
