//! TLS 1.3 of a connection, by rustls. Servers are not verified: that would be the generator's time, and nobody else's.

use rustix::net::{RecvFlags, SendFlags};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, DigitallySignedStruct,
    HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme, SupportedCipherSuite,
};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// What is read at once: more than a record.
const RECEIVE: usize = 32 * 1024;

/// One end of a TLS connection.
pub(crate) struct Tls(ClientConnection);

/// The same suite and group for all: AES-128-GCM, which every server offers, and X25519.
pub(crate) fn config(resume: bool) -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the suite is one of TLS 1.3");
    let mut config =
        config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.resumption = match resume {
        true => Resumption::store(Arc::new(Tickets::default())),
        false => Resumption::disabled(),
    };
    Arc::new(config)
}

/// The same, for connections whose records are made by [`Records`].
pub(crate) fn giving_keys() -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&config(false));
    config.enable_secret_extraction = true;
    Arc::new(config)
}

impl Tls {
    pub(crate) fn new(config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        Ok(Self(ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Says that nothing more comes.
    pub(crate) fn close(&mut self) {
        self.0.send_close_notify();
    }

    /// Reads until the socket has nothing more, or `buffer` is full; `None` when nothing came out.
    pub(crate) fn read(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut records = [0; RECEIVE];
        let mut filled = 0;
        loop {
            filled += self.plain(&mut buffer[filled..])?.unwrap_or(0);
            if filled == buffer.len() {
                return Ok(Some(filled));
            }
            // What comes out is no longer than what goes in.
            let most = RECEIVE.min(buffer.len() - filled);
            let read = rustix::net::recv(socket, &mut records[..most], RecvFlags::DONTWAIT);
            let read = match super::transport::or_nothing(read.map(|(_, read)| read))? {
                None if filled == 0 => return Ok(None),
                None => return Ok(Some(filled)),
                Some(0) => return Ok(Some(filled)),
                Some(read) => read,
            };
            let mut rest = &records[..read];
            while !rest.is_empty() {
                self.0.read_tls(&mut rest)?;
                self.0.process_new_packets().map_err(io::Error::other)?;
                match self.plain(&mut buffer[filled..])? {
                    Some(0) if filled == 0 => return Ok(Some(0)),
                    plain => filled += plain.unwrap_or(0),
                }
            }
            if self.0.wants_write() {
                self.flush(socket)?;
            }
            if read < most {
                return Ok((filled > 0).then_some(filled));
            }
        }
    }

    /// Takes what it has room for, and sends what it can; `None` when there is no room.
    pub(crate) fn write(&mut self, socket: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
        if !self.flush(socket)? {
            return Ok(None);
        }
        let taken = self.0.writer().write(bytes)?;
        self.flush(socket)?;
        Ok(Some(taken))
    }

    /// Sends what waits, and says whether that is all gone.
    pub(crate) fn flush(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What has been decrypted: `None` when nothing has, 0 at the end.
    fn plain(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.reader().read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Tls {
    /// Takes the key from a connection whose handshake is complete, to send each byte of `plain` in a record of its own, again and
    /// again. What comes back is not decrypted by it.
    pub(crate) fn into_records(self, plain: Arc<[u8]>) -> io::Result<Records> {
        let secrets = self.0.dangerous_extract_secrets().map_err(io::Error::other)?;
        let (sequence, secrets) = secrets.tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }, SupportedCipherSuite::Tls13(suite), 0) =
            (secrets, aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, sequence)
        else {
            return Err(io::Error::other("another suite than was offered"));
        };
        let encrypter = suite.aead_alg.encrypter(key, iv);
        Ok(Records { encrypter, sequence, plain, at: 0, records: Vec::new(), sent: 0 })
    }
}

/// Records of one byte, made as they are needed: none may be sent twice.
pub(crate) struct Records {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
    plain: Arc<[u8]>,
    at: usize,
    records: Vec<u8>,
    sent: usize,
}

/// So many are made at once.
const RECORDS: usize = 2000;

impl Records {
    /// One record with all of `bytes`.
    pub(crate) fn one(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let payload = OutboundChunks::Single(bytes);
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_2,
            payload,
        };
        let record = self.encrypter.encrypt(message, self.sequence).map_err(io::Error::other)?;
        self.sequence += 1;
        Ok(record.encode())
    }

    /// What is to be sent next; never nothing.
    pub(crate) fn next(&mut self) -> io::Result<&[u8]> {
        if self.sent == self.records.len() {
            self.records.clear();
            self.sent = 0;
            for _ in 0..RECORDS {
                let record = self.one(&[self.plain[self.at]])?;
                self.at = (self.at + 1) % self.plain.len();
                self.records.extend_from_slice(&record);
            }
        }
        Ok(&self.records[self.sent..])
    }

    /// So much of that was sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }
}

struct Socket<'a>(&'a OwnedFd);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest tickets of the one server, enough for all connections that begin at once; rustls' own store keeps eight.
#[derive(Debug, Default)]
struct Tickets(Mutex<VecDeque<Tls13ClientSessionValue>>);

/// Below what a server remembers that keeps sessions rather than encrypt them in tickets.
const TICKETS: usize = 64;

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() == TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_back()
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
