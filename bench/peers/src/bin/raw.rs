//! The floor: bytes go back as they came, without a protocol, in a level-triggered loop over epoll(7) or poll(2).
//!
//! `raw epoll|poll BUFFER PORT`. One buffer for all connections; an answer is written at once, and writability is waited for
//! only after a short write.

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, buffer, port] = &arguments[..] else { panic!("raw epoll|poll BUFFER PORT") };
    let buffer = &mut vec![0; buffer.parse().expect("BUFFER")][..];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().expect("PORT")))?;
    listener.set_nonblocking(true)?;
    match &kind[..] {
        "epoll" => by_epoll(&listener, buffer),
        "poll" => by_poll(&listener, buffer),
        _ => panic!("epoll or poll"),
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Wants {
    Read,
    Write,
}

struct Connection {
    stream: TcpStream,
    /// What a short write left.
    unsent: Vec<u8>,
}

impl Connection {
    /// The next of those that wait at `listener`.
    fn accept(listener: &TcpListener) -> Option<Self> {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, unsent: Vec::new() })
    }

    /// One read and one write. `None` at the end of the connection.
    fn ready(&mut self, buffer: &mut [u8]) -> Option<Wants> {
        if !self.unsent.is_empty() {
            let sent = write(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..sent);
        } else {
            let received = match self.stream.read(buffer) {
                Ok(0) => return None,
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(Wants::Read),
                Err(_) => return None,
            };
            let sent = write(&mut self.stream, &buffer[..received])?;
            self.unsent.extend_from_slice(&buffer[sent..received]);
        }
        Some(if self.unsent.is_empty() { Wants::Read } else { Wants::Write })
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> Option<usize> {
    match stream.write(bytes) {
        Ok(sent) => Some(sent),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

fn by_epoll(listener: &TcpListener, buffer: &mut [u8]) -> io::Result<()> {
    const LISTENER: u64 = u64::MAX;
    let flags = |wants| if wants == Wants::Read { EventFlags::IN } else { EventFlags::OUT };

    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    // By descriptor.
    let mut connections: Vec<Option<(Connection, Wants)>> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                while let Some(connection) = Connection::accept(listener) {
                    let fd = connection.stream.as_raw_fd() as usize;
                    epoll::add(&epoll, &connection.stream, EventData::new_u64(fd as u64), EventFlags::IN)?;
                    if connections.len() <= fd {
                        connections.resize_with(fd + 1, || None);
                    }
                    connections[fd] = Some((connection, Wants::Read));
                }
                continue;
            }
            let slot = &mut connections[event.data.u64() as usize];
            let Some((connection, wanted)) = slot else { continue };
            match connection.ready(buffer) {
                None => *slot = None,
                Some(wants) if wants == *wanted => {}
                Some(wants) => {
                    *wanted = wants;
                    epoll::modify(&epoll, &connection.stream, event.data, flags(wants))?;
                }
            }
        }
    }
}

fn by_poll(listener: &TcpListener, buffer: &mut [u8]) -> io::Result<()> {
    let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let mut pollfds = vec![entry(listener.as_raw_fd(), libc::POLLIN)];
    // The connection of `pollfds[n + 1]`.
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        // SAFETY: the array is as long as it is said to be, and nobody else has it during the call.
        let mut ready = unsafe { libc::poll(pollfds.as_mut_ptr(), pollfds.len() as libc::nfds_t, -1) };
        if ready < 0 {
            return Err(io::Error::last_os_error());
        }
        // From the end, so that whoever fills a gap was already looked at.
        for n in (1..pollfds.len()).rev() {
            if ready == 0 {
                break;
            }
            if pollfds[n].revents == 0 {
                continue;
            }
            ready -= 1;
            match connections[n - 1].ready(buffer) {
                None => {
                    pollfds.swap_remove(n);
                    connections.swap_remove(n - 1);
                }
                Some(Wants::Read) => pollfds[n].events = libc::POLLIN,
                Some(Wants::Write) => pollfds[n].events = libc::POLLOUT,
            }
        }
        if pollfds[0].revents != 0 {
            while let Some(connection) = Connection::accept(listener) {
                pollfds.push(entry(connection.stream.as_raw_fd(), libc::POLLIN));
                connections.push(connection);
            }
        }
    }
}
