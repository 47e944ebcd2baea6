//! TLS on a link: records to bytes and back. It holds no buffer of its own but an incomplete record, and does no input or output.

use super::established::Established;
use super::handshake::{self, Advanced, Handshake, Received, Write};
use super::hello::Peek;
use super::{Facts, Server, TlsError};
use crate::transport::{Hello, Records, Step};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, ClientConfig};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One end of a TLS connection.
pub(crate) struct Tls {
    connection: Connection,
    /// The name that the client asked for.
    server_name: Option<Box<str>>,
    /// The client has come down to a lower version than it could speak.
    is_fallback: bool,
    /// The beginning of a record whose rest has not come.
    kept: Vec<u8>,
    /// What was sent before the handshake was complete.
    early: Vec<u8>,
    /// Bytes encrypted so far.
    sent: u64,
    secured: bool,
    just_secured: bool,
    peer_closed: bool,
    /// How much is read at once, in bytes: less where that is many small records.
    at_once: u32,
    /// Why it has failed, if that is to be told later, and whether the socket could be written then.
    failure: Option<Box<(TlsError, bool)>>,
    /// Nothing can be sent any more: we have said so, or the connection has failed.
    closed: bool,
}

enum Connection {
    /// The name that the client asks for is to come; by it the server's configuration is chosen. What was read until then is kept.
    Hello(Box<Peek>),
    Server(Box<Handshake<UnbufferedServerConnection>>),
    Client(Box<Handshake<UnbufferedClientConnection>>),
    Established(Box<Established>),
    /// It has failed between two of these.
    Failed,
}

/// The largest plaintext of a record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;
/// The size of the first ones: each fits a segment of TCP, so that the peer need not wait for the next to decrypt it.
const FIRST_RECORDS: usize = 1300;
/// So many bytes go out in such records; by then the window of TCP has opened.
const FIRST_BYTES: u64 = 64 * 1024;
/// The most that is kept of what is not complete: a handshake message of 64 KiB, in records of a reasonable size.
const KEPT: usize = 96 * 1024;

impl Tls {
    /// A server's end, which begins with [`hello`](Self::hello).
    pub(crate) fn server() -> Option<Self> {
        Some(Self::new(Connection::Hello(Box::default())))
    }

    /// The client's end, to a server of this name.
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let gives_keys = config.enable_secret_extraction;
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(Connection::Client(Box::new(Handshake::new(connection, gives_keys)))))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            server_name: None,
            is_fallback: false,
            kept: Vec::new(),
            early: Vec::new(),
            sent: 0,
            secured: false,
            just_secured: false,
            peer_closed: false,
            at_once: u32::MAX,
            failure: None,
            closed: false,
        }
    }

    /// Whether the handshake is complete.
    pub(crate) fn is_secured(&self) -> bool {
        self.secured
    }

    /// Whether the handshake has been completed since the last time that this was asked.
    pub(crate) fn take_secured(&mut self) -> bool {
        std::mem::take(&mut self.just_secured)
    }

    /// Whether the peer has said that nothing more comes (RFC 8446, section 6.1).
    pub(crate) fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Why it has failed, if its input ends now.
    pub(crate) fn truncated(&self) -> TlsError {
        if self.secured { TlsError::Truncated } else { TlsError::HandshakeEnded }
    }

    /// Keeps why it has failed, and whether the socket could be written then, until the input before that was handed over.
    pub(crate) fn fail_later(&mut self, error: TlsError, writable: bool) {
        self.failure = Some(Box::new((error, writable)));
    }

    /// Whether it has failed, and that is to be told.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// What was kept by [`fail_later`](Self::fail_later).
    pub(crate) fn take_failure(&mut self) -> Option<(TlsError, bool)> {
        self.failure.take().map(|failure| *failure)
    }

    /// Bytes that wait for the handshake.
    pub(crate) fn waiting(&self) -> usize {
        self.early.len()
    }

    /// They are not sent any more.
    pub(crate) fn forget_early(&mut self) {
        self.early = Vec::new();
    }

    /// The beginning of a record that was left by the last step: it goes in front of what is read next.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// How much is to be read at once, in bytes, because of how small the records are that come; no bound at first.
    pub(crate) fn at_once(&self) -> usize {
        self.at_once as usize
    }

    /// From now on so many bytes are read at once.
    pub(crate) fn read_at_once(&mut self, bytes: usize) {
        self.at_once = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// What is known of the connection once the handshake is complete.
    pub(crate) fn facts(&self) -> Option<Facts> {
        match &self.connection {
            Connection::Hello(_) | Connection::Failed => None,
            Connection::Server(server) => Facts::of_server(&server.connection, self.server_name.as_deref()),
            Connection::Client(client) => Facts::of_client(&client.connection),
            Connection::Established(established) => Some(established.facts().clone()),
        }
    }

    /// Looks at what was read for the name that the client asks for, if that is still to be known. `records` has what was kept in
    /// front.
    pub(crate) fn hello(&mut self, records: &[u8]) -> Hello {
        let Connection::Hello(peek) = &mut self.connection else { return Hello::Known };
        match peek.read(&records[self.kept.len()..]) {
            Ok(None) if records.len() <= KEPT => {
                self.kept = records.to_vec();
                Hello::More
            }
            Ok(Some(hello)) => {
                self.server_name = hello.server_name.clone();
                self.is_fallback = hello.is_fallback;
                Hello::Name(hello.server_name)
            }
            // A connection of whatever configuration fails by it too, and tells the peer.
            Ok(None) | Err(_) => Hello::Name(None),
        }
    }

    /// Goes on as this server; what is to be said where it cannot is written behind `out`.
    ///
    /// A client that has come down to TLS 1.2 and is met by a server of 1.3 was talked into that (RFC 7507, section 3), which
    /// rustls does not look for.
    pub(crate) fn choose(&mut self, server: &Server, out: &mut Records) -> Result<(), TlsError> {
        if self.is_fallback && server.speaks_tls13() {
            let description = AlertDescription::InappropriateFallback;
            // A record of type alert, as TLS 1.2 writes it before there are keys: fatal.
            let alert = [21, 3, 3, 0, 2, 2, description.into()];
            out.room(alert.len()).copy_from_slice(&alert);
            out.used(alert.len());
            self.closed = true;
            return Err(TlsError::Alert { description, received: false });
        }
        let config = server.config();
        let gives_keys = config.enable_secret_extraction;
        let connection = UnbufferedServerConnection::new(config)?;
        self.connection = Connection::Server(Box::new(Handshake::new(connection, gives_keys)));
        Ok(())
    }

    /// Takes what was read, `kept` in front of it; writes what it means to `plain`, which has to have as much room, and what has to
    /// be sent for it behind `out`.
    pub(crate) fn receive(&mut self, records: &mut [u8], plain: &mut [u8], out: &mut Records) -> Step {
        let mut received = Received { plain, length: 0, records: 0, peer_closed: false };
        // What follows a close_notify is ignored (RFC 8446, section 6.1).
        if self.peer_closed || matches!(self.connection, Connection::Hello(_)) {
            return Step::default();
        }
        let result = self.advance(records, &mut received, out);
        self.peer_closed |= received.peer_closed;
        let mut step =
            Step { plain: received.length, records: received.records, secured: false, error: None };
        // What the application is sent is sent behind the handshake.
        let secured = result.as_ref().map_or(received.length > 0, |advanced| advanced.secured);
        step.secured = secured && !self.secured;
        self.just_secured |= step.secured;
        self.secured |= secured;
        match result {
            Ok(advanced) => {
                // An idle connection holds nothing.
                let rest = &records[advanced.used..];
                self.kept = if rest.is_empty() || self.peer_closed { Vec::new() } else { rest.to_vec() };
                if self.kept.len() > KEPT {
                    self.closed = true;
                    step.error = Some(TlsError::RecordOverflow);
                }
            }
            Err(error) => {
                self.kept = Vec::new();
                self.closed = true;
                if !matches!(self.connection, Connection::Established(_)) {
                    // It has said so, and would once more.
                    self.connection = Connection::Failed;
                }
                step.error = Some(error);
            }
        }
        step
    }

    #[cfg(test)]
    pub(super) fn established(&mut self) -> Option<&mut Established> {
        match &mut self.connection {
            Connection::Established(established) => Some(established),
            _ => None,
        }
    }

    fn advance(
        &mut self,
        records: &mut [u8],
        received: &mut Received<'_>,
        out: &mut Records,
    ) -> Result<Advanced, TlsError> {
        let shaken = match &mut self.connection {
            Connection::Server(server) => server.advance(records, received, out)?,
            Connection::Client(client) => client.advance(records, received, out)?,
            Connection::Established(_) => Advanced { used: 0, secured: true },
            Connection::Hello(_) | Connection::Failed => return Err(TlsError::Closed),
        };
        if shaken.secured {
            self.take_keys()?;
        }
        let Connection::Established(established) = &mut self.connection else { return Ok(shaken) };
        let used = established.receive(&mut records[shaken.used..], received, out, !self.closed)?;
        Ok(Advanced { used: shaken.used + used, secured: true })
    }

    /// Lets go of all that only the handshake needed, where the keys can be had.
    fn take_keys(&mut self) -> Result<(), TlsError> {
        let established = match std::mem::replace(&mut self.connection, Connection::Failed) {
            Connection::Server(server) if server.gives_keys => {
                let name = self.server_name.take();
                Established::server(server.connection, name.as_deref())?
            }
            Connection::Client(client) if client.gives_keys => Established::client(client.connection)?,
            other => {
                self.connection = other;
                return Ok(());
            }
        };
        self.connection = Connection::Established(Box::new(established));
        Ok(())
    }

    /// Encrypts `parts`, one behind the other, behind `out`. `joined` is room to put them together in.
    pub(crate) fn encrypt(
        &mut self,
        parts: &[&[u8]],
        joined: &mut Vec<u8>,
        out: &mut Records,
    ) -> Result<(), TlsError> {
        if !self.secured {
            parts.iter().for_each(|part| self.early.extend_from_slice(part));
            return Ok(());
        }
        joined.clear();
        for part in parts {
            // What stands before a long part shares its first record; the others are made from where it lies.
            let room = self.record().saturating_sub(joined.len());
            if part.len() <= room {
                joined.extend_from_slice(part);
                continue;
            }
            let (first, rest) = part.split_at(if joined.is_empty() { 0 } else { room });
            joined.extend_from_slice(first);
            self.encrypt_all(joined, out)?;
            joined.clear();
            self.encrypt_all(rest, out)?;
        }
        self.encrypt_all(joined, out)
    }

    /// Encrypts what was sent before the handshake was complete.
    pub(crate) fn encrypt_early(&mut self, out: &mut Records) -> Result<(), TlsError> {
        let early = std::mem::take(&mut self.early);
        self.encrypt_all(&early, out)
    }

    /// Says behind `out` that nothing more comes from us.
    pub(crate) fn close(&mut self, out: &mut Records) {
        if self.secured && !self.closed {
            // It fails only where keys are used up, and then nothing can be said any more.
            let _ = self.write(Write::Close, out);
        }
        self.closed = true;
    }

    /// How much goes into the next record.
    fn record(&self) -> usize {
        if self.sent < FIRST_BYTES { FIRST_RECORDS } else { RECORD }
    }

    fn encrypt_all(&mut self, mut bytes: &[u8], out: &mut Records) -> Result<(), TlsError> {
        while !bytes.is_empty() {
            let (record, rest) = bytes.split_at(bytes.len().min(self.record()));
            self.write(Write::Data(record), out)?;
            self.sent += record.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn write(&mut self, what: Write<'_>, out: &mut Records) -> Result<(), TlsError> {
        if self.closed {
            return Err(rustls::Error::General("the connection is closed".into()).into());
        }
        let written = match &mut self.connection {
            Connection::Hello(_) | Connection::Failed => {
                return Err(rustls::Error::HandshakeNotComplete.into());
            }
            Connection::Server(server) => handshake::write(&mut server.connection, &mut self.kept, what, out),
            Connection::Client(client) => handshake::write(&mut client.connection, &mut self.kept, what, out),
            Connection::Established(established) => match what {
                Write::Data(bytes) => established.encrypt(bytes, out),
                Write::Close => established.close(out),
            },
        };
        self.closed |= written.is_err();
        written
    }
}

impl Server {
    /// How many days its certificate is valid, and when to say so again.
    pub(crate) fn next_report(&self, now: SystemTime) -> Option<(i64, Duration)> {
        self.not_after().map(|end| super::expiry::next_report(now, end))
    }
}
