//! The same over TLS: with `LODGER_BATTERY_TLS` set, every listener speaks it, and so does every peer.

use lodger::tls::rustls::{ClientConfig, ClientConnection};
use lodger::tls::{Client, Server};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock, Mutex};

/// Both ends' configurations, if TLS is spoken.
static ENDS: LazyLock<Option<(Server, Arc<ClientConfig>)>> = LazyLock::new(|| {
    std::env::var_os("LODGER_BATTERY_TLS")?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = Server::from_pem(chain.as_bytes(), key.as_bytes()).expect("a server");
    let client = Client::builder().roots_pem(chain.as_bytes()).build().expect("a client");
    Some((server, client.config()))
});

/// The server's end, if TLS is spoken.
pub(crate) fn server() -> Option<Server> {
    ENDS.as_ref().map(|(server, _)| server.clone())
}

/// A peer's end. One thread may read while another writes.
pub(crate) struct Tls {
    connection: Mutex<ClientConnection>,
    /// Held from before records are made until they are written, so that they stay in order.
    wire: Mutex<()>,
}

impl Tls {
    /// The peer's end of a new connection, if TLS is spoken, after its handshake. Where the connection ends in that, whoever
    /// reads finds out.
    pub(crate) fn begin(stream: &mut TcpStream) -> Option<Arc<Self>> {
        let (_, config) = ENDS.as_ref()?;
        let name = "localhost".try_into().expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a connection");
        connection.set_buffer_limit(None);
        while connection.is_handshaking() && connection.complete_io(stream).is_ok() {}
        Some(Arc::new(Self { connection: Mutex::new(connection), wire: Mutex::default() }))
    }

    pub(crate) fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.write(stream, |connection| connection.writer().write_all(bytes))
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self, stream: &mut TcpStream) -> io::Result<()> {
        self.write(stream, |connection| {
            connection.send_close_notify();
            Ok(())
        })
    }

    fn write(
        &self,
        stream: &mut TcpStream,
        what: impl FnOnce(&mut ClientConnection) -> io::Result<()>,
    ) -> io::Result<()> {
        let _wire = self.wire.lock().expect("nobody panics with it");
        let mut records = Vec::new();
        {
            let mut connection = self.connection.lock().expect("nobody panics with it");
            what(&mut connection)?;
            while connection.wants_write() {
                connection.write_tls(&mut records)?;
            }
        }
        stream.write_all(&records)
    }

    /// Reads until something comes, or the end.
    pub(crate) fn read(&self, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let mut records = vec![0; 1 << 15];
        let mut plain = Vec::new();
        let mut length = 0;
        loop {
            let mut connection = self.connection.lock().expect("nobody panics with it");
            let mut rest = &records[..length];
            loop {
                match connection.reader().read_to_end(&mut plain) {
                    Ok(_) => return Ok(plain),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // It ended within the handshake.
                    Err(error) => return Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
                }
                if rest.is_empty() {
                    break;
                }
                connection.read_tls(&mut rest)?;
                connection.process_new_packets().map_err(io::Error::other)?;
            }
            drop(connection);
            if !plain.is_empty() {
                return Ok(plain);
            }
            length = stream.read(&mut records)?;
            if length == 0 {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut off"));
            }
        }
    }
}
