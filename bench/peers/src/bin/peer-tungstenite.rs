//! tungstenite on mio, one thread: `peer-tungstenite PORT READ_BUFFER`.
//!
//! Messages are written, and flushed once when nothing more is to be read. The author's read buffer of 128 KiB is good for
//! large messages; as all of it is cleared before each read, small messages want a smaller one.

use lodger_bench_peers::arguments;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::io::{self, ErrorKind};
use tungstenite::handshake::server::NoCallback;
use tungstenite::handshake::{HandshakeError, MidHandshake, server::ServerHandshake};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, WebSocket, accept_with_config};

const LISTENER: Token = Token(usize::MAX);

fn main() -> io::Result<()> {
    let (port, sizes) = arguments();
    let read_buffer = sizes.first().and_then(|size| size.parse().ok()).expect("READ_BUFFER");
    let config = WebSocketConfig::default().read_buffer_size(read_buffer);
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<Connection> = Slab::new();
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.set_nodelay(true);
                    let entry = connections.vacant_entry();
                    let token = Token(entry.key());
                    // Both from the start: edges that nobody waits for cost nothing.
                    poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    entry.insert(Connection::Accepted(stream));
                }
            } else if let Some(connection) = connections.get_mut(event.token().0)
                && connection.ready(config).is_none()
            {
                connections.remove(event.token().0);
            }
        }
    }
}

enum Connection {
    Accepted(TcpStream),
    Opening(MidHandshake<ServerHandshake<TcpStream, NoCallback>>),
    Open(WebSocket<TcpStream>),
    Closed,
}

impl Connection {
    /// Does what can be done now. `None` at the end of the connection.
    fn ready(&mut self, config: WebSocketConfig) -> Option<()> {
        if let Self::Open(socket) = self {
            return echo(socket);
        }
        let handshake = match std::mem::replace(self, Self::Closed) {
            Self::Accepted(stream) => accept_with_config(stream, Some(config)),
            Self::Opening(handshake) => handshake.handshake(),
            Self::Open(_) | Self::Closed => return None,
        };
        match handshake {
            Ok(mut socket) => {
                // The first messages may have come with the handshake.
                echo(&mut socket)?;
                *self = Self::Open(socket);
            }
            Err(HandshakeError::Interrupted(handshake)) => *self = Self::Opening(handshake),
            Err(HandshakeError::Failure(_)) => return None,
        }
        Some(())
    }
}

/// Reads until nothing is left, then flushes. While the peer does not take what we send, nothing more is read.
fn echo(socket: &mut WebSocket<TcpStream>) -> Option<()> {
    let mut all_read = false;
    loop {
        match socket.flush() {
            Ok(()) if all_read => return Some(()),
            Ok(()) => {}
            Err(error) if would_block(&error) => return Some(()),
            Err(_) => return None,
        }
        loop {
            let message = match socket.read() {
                Ok(message) => message,
                Err(error) if would_block(&error) => {
                    all_read = true;
                    break;
                }
                Err(_) => return None,
            };
            if message.is_text() || message.is_binary() {
                match socket.write(message) {
                    Ok(()) => {}
                    Err(error) if would_block(&error) => break,
                    Err(_) => return None,
                }
            }
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}
