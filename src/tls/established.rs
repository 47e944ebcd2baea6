//! The record layer of a connection whose handshake is complete (RFC 8446, section 5; RFC 5246, section 6.2).
//!
//! rustls has done the handshake and goes on deriving keys, its provider encrypts and decrypts. What is left to do is little: to
//! count records in either direction, and to know what may still come after a handshake. A connection of rustls keeps what only
//! its handshake needs, and is more than twice as large.

use super::handshake::Received;
use super::{Facts, TlsError};
use crate::transport::Records;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
    OutboundChunks, OutboundPlainMessage, UnsupportedOperationError,
};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, HandshakeType,
    InvalidMessage, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
};

/// A connection's records from the end of its handshake on.
pub(super) struct Established {
    suite: SupportedCipherSuite,
    renewal: Renewal,
    outgoing: Outgoing,
    incoming: Incoming,
    facts: Facts,
    /// The beginning of a handshake message whose rest comes in further records.
    message: Vec<u8>,
    /// The message by which the peer would have TLS 1.2 shake hands anew.
    hello: HandshakeType,
    allowed: Allowed,
    /// The peer has asked for new keys of ours (RFC 8446, section 4.6.3).
    owes_update: bool,
    /// It has asked for a new handshake, and is to hear that there is none.
    owes_refusal: bool,
}

/// Who derives the keys that follow these.
enum Renewal {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
    /// TLS 1.2 has none.
    Never,
}

struct Outgoing {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
    /// So many records may be encrypted by one key (RFC 8446, section 5.5).
    limit: u64,
}

struct Incoming {
    decrypter: Box<dyn MessageDecrypter>,
    sequence: u64,
}

/// What a peer may do so many times, though nobody needs it: it costs us more than the peer.
struct Allowed {
    warnings: u8,
    hellos: u8,
    /// In a row, without application data in between.
    updates: u8,
    empty: u8,
}

const UPDATES: u8 = 32;
const EMPTY: u8 = 32;

impl Default for Allowed {
    fn default() -> Self {
        Self { warnings: 4, hellos: 1, updates: UPDATES, empty: EMPTY }
    }
}

/// Type, version and length.
const HEADER: usize = 5;
/// Type and length.
const MESSAGE_HEADER: usize = 4;
/// The longest handshake message, as rustls has it.
const MESSAGE: usize = 0xffff;
/// The largest payload of a record of TLS 1.3 (RFC 8446, section 5.2), and of 1.2 (RFC 5246, section 6.2.3).
const PAYLOAD_13: usize = 16 * 1024 + 256;
const PAYLOAD_12: usize = 16 * 1024 + 2048;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What is wrong, and what the peer is told.
struct Failure {
    error: TlsError,
    alert: Option<AlertDescription>,
}

fn fail(alert: AlertDescription, error: impl Into<Error>) -> Failure {
    Failure { error: TlsError::from(error.into()), alert: Some(alert) }
}

/// A message has no place here.
fn unexpected() -> Failure {
    Failure { error: TlsError::Unexpected, alert: Some(AlertDescription::UnexpectedMessage) }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let alert = match &error {
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::PeerMisbehaved(_) => AlertDescription::UnexpectedMessage,
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            _ => AlertDescription::InternalError,
        };
        fail(alert, error)
    }
}

impl Established {
    /// Goes on where a server's handshake has ended.
    pub(super) fn server(connection: UnbufferedServerConnection, name: Option<&str>) -> Result<Self, Error> {
        let facts = Facts::of_server(&connection, name).ok_or(Error::HandshakeNotComplete)?;
        let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
        let suite = kernel.negotiated_cipher_suite();
        Self::new(suite, secrets, Renewal::Server(kernel), facts, HandshakeType::ClientHello)
    }

    /// Goes on where a client's handshake has ended.
    pub(super) fn client(connection: UnbufferedClientConnection) -> Result<Self, Error> {
        let facts = Facts::of_client(&connection).ok_or(Error::HandshakeNotComplete)?;
        let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
        let suite = kernel.negotiated_cipher_suite();
        Self::new(suite, secrets, Renewal::Client(kernel), facts, HandshakeType::HelloRequest)
    }

    fn new(
        suite: SupportedCipherSuite,
        secrets: ExtractedSecrets,
        renewal: Renewal,
        facts: Facts,
        hello: HandshakeType,
    ) -> Result<Self, Error> {
        let renewal = if suite.tls13().is_some() { renewal } else { Renewal::Never };
        Ok(Self {
            suite,
            renewal,
            outgoing: Outgoing::new(suite, secrets.tx)?,
            incoming: Incoming::new(suite, secrets.rx)?,
            facts,
            message: Vec::new(),
            hello,
            allowed: Allowed::default(),
            owes_update: false,
            owes_refusal: false,
        })
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes records as far as they are complete, and says how many bytes of them are done with. What the peer is to hear for them
    /// is written behind `out`, unless nothing `may_be_said` any more.
    pub(super) fn receive(
        &mut self,
        records: &mut [u8],
        received: &mut Received<'_>,
        out: &mut Records,
        may_be_said: bool,
    ) -> Result<usize, TlsError> {
        let result = self.take(records, received);
        match result {
            Ok(used) if may_be_said => self.answer(out).map(|()| used),
            Ok(used) => Ok(used),
            Err(Failure { error, alert }) => {
                if let Some(alert) = alert.filter(|_| may_be_said) {
                    // Where not even that can be encrypted, the reason is the first one all the same.
                    let _ = self.outgoing.write(ContentType::Alert, &[FATAL, alert.into()], out);
                }
                Err(error)
            }
        }
    }

    /// Encrypts what fits a record, by new keys if the old ones have protected as much as they may.
    pub(super) fn encrypt(&mut self, bytes: &[u8], out: &mut Records) -> Result<(), TlsError> {
        if self.owes_update || self.outgoing.is_used_up() {
            self.renew(out)?;
        }
        self.outgoing.write(ContentType::ApplicationData, bytes, out)
    }

    /// Says that nothing more comes (RFC 8446, section 6.1).
    pub(super) fn close(&mut self, out: &mut Records) -> Result<(), TlsError> {
        let close_notify = AlertDescription::CloseNotify.into();
        self.outgoing.write(ContentType::Alert, &[WARNING, close_notify], out)
    }

    fn take(&mut self, records: &mut [u8], received: &mut Received<'_>) -> Result<usize, Failure> {
        let mut used = 0;
        while let Some((typ, version, length)) = self.header(&records[used..])? {
            let start = used + HEADER;
            let Some(payload) = records.get_mut(start..start + length) else { break };
            let plain = self.incoming.decrypt(InboundOpaqueMessage::new(typ, version, payload))?;
            self.handle(plain, received)?;
            if received.peer_closed {
                // What follows is ignored (RFC 8446, section 6.1).
                return Ok(records.len());
            }
            used = start + length;
        }
        Ok(used)
    }

    /// The type, version and length of the record that begins here, once they have come. They are refused as soon as they can be.
    fn header(&self, record: &[u8]) -> Result<Option<(ContentType, ProtocolVersion, usize)>, Failure> {
        let &[typ, major, minor, high, low, ..] = record else { return Ok(None) };
        let (typ, version) = (ContentType::from(typ), u16::from_be_bytes([major, minor]).into());
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (expected, longest) = match self.suite {
            // The type that counts is inside.
            SupportedCipherSuite::Tls13(_) => (typ == ContentType::ApplicationData, PAYLOAD_13),
            SupportedCipherSuite::Tls12(_) => {
                use ContentType::{Alert, ApplicationData, Handshake};
                (matches!(typ, Alert | ApplicationData | Handshake), PAYLOAD_12)
            }
        };
        match expected {
            false => Err(unexpected()),
            true if length > longest => Err(Error::PeerSentOversizedRecord.into()),
            true => Ok(Some((typ, version, length))),
        }
    }

    fn handle(&mut self, plain: InboundPlainMessage<'_>, received: &mut Received<'_>) -> Result<(), Failure> {
        let InboundPlainMessage { typ, payload, .. } = plain;
        if !self.message.is_empty() && typ != ContentType::Handshake {
            return Err(Error::from(PeerMisbehaved::MessageInterleavedWithHandshakeMessage).into());
        }
        match payload {
            [] => {
                self.allowed.empty = spent(self.allowed.empty, PeerMisbehaved::TooManyEmptyFragments)?;
            }
            _ => self.allowed.empty = EMPTY,
        }
        match typ {
            ContentType::ApplicationData => {
                if !payload.is_empty() {
                    self.allowed.updates = UPDATES;
                }
                received.push(payload);
                Ok(())
            }
            ContentType::Alert => self.alert(payload, received),
            ContentType::Handshake => self.handshake(payload),
            _ => Err(unexpected()),
        }
    }

    /// An alert (RFC 8446, section 6; RFC 5246, section 7.2).
    fn alert(&mut self, payload: &[u8], received: &mut Received<'_>) -> Result<(), Failure> {
        if payload.is_empty() && self.suite.tls13().is_some() {
            return Err(unexpected());
        }
        let &[level, description] = payload else {
            return Err(Error::from(InvalidMessage::MessageTooShort).into());
        };
        let description = AlertDescription::from(description);
        let error = Error::AlertReceived(description);
        match (level, description) {
            (WARNING | FATAL, AlertDescription::CloseNotify) => received.peer_closed = true,
            (WARNING, AlertDescription::UserCanceled) => self.warned()?,
            (WARNING, _) if self.suite.tls13().is_none() => self.warned()?,
            // TLS 1.3 has no other warnings.
            (WARNING, _) => return Err(fail(AlertDescription::DecodeError, error)),
            (FATAL, _) => return Err(Failure { error: error.into(), alert: None }),
            _ => return Err(fail(AlertDescription::IllegalParameter, error)),
        }
        Ok(())
    }

    fn warned(&mut self) -> Result<(), Failure> {
        self.allowed.warnings = spent(self.allowed.warnings, PeerMisbehaved::TooManyWarningAlertsReceived)?;
        Ok(())
    }

    /// A piece of a handshake message, one, or several.
    fn handshake(&mut self, payload: &[u8]) -> Result<(), Failure> {
        if payload.is_empty() {
            return Err(unexpected());
        }
        let mut messages = std::mem::take(&mut self.message);
        messages.extend_from_slice(payload);
        let mut rest = &messages[..];
        while let Some((&[typ, a, b, c], after)) = rest.split_first_chunk::<MESSAGE_HEADER>() {
            let (typ, length) = (HandshakeType::from(typ), u32::from_be_bytes([0, a, b, c]) as usize);
            self.expect(typ, length)?;
            let Some((body, after)) = after.split_at_checked(length) else { break };
            rest = after;
            match typ {
                HandshakeType::KeyUpdate => self.key_update(body, rest.is_empty())?,
                HandshakeType::NewSessionTicket => self.ticket(body)?,
                _ => {
                    let allowed = self.allowed.hellos;
                    self.allowed.hellos = spent(allowed, PeerMisbehaved::TooManyRenegotiationRequests)?;
                    self.owes_refusal = true;
                }
            }
        }
        let done = messages.len() - rest.len();
        messages.drain(..done);
        if !messages.is_empty() {
            self.message = messages;
        }
        Ok(())
    }

    /// Whether there can be such a message, before it is kept.
    fn expect(&self, typ: HandshakeType, length: usize) -> Result<(), Failure> {
        let longest = match (&self.renewal, typ) {
            (Renewal::Server(_) | Renewal::Client(_), HandshakeType::KeyUpdate) => 1,
            (Renewal::Client(_), HandshakeType::NewSessionTicket) => MESSAGE,
            // It has no content (RFC 5246, section 7.4.1.1).
            (Renewal::Never, HandshakeType::HelloRequest) if typ == self.hello => 0,
            (Renewal::Never, typ) if typ == self.hello => MESSAGE,
            _ => return Err(unexpected()),
        };
        match length <= longest {
            true => Ok(()),
            false => Err(Error::from(InvalidMessage::HandshakePayloadTooLarge).into()),
        }
    }

    /// The peer has new keys from its next record on (RFC 8446, section 4.6.3). `is_last` says that nothing of this record is left.
    fn key_update(&mut self, body: &[u8], is_last: bool) -> Result<(), Failure> {
        if !is_last {
            return Err(Error::from(PeerMisbehaved::KeyEpochWithPendingFragment).into());
        }
        self.allowed.updates = spent(self.allowed.updates, PeerMisbehaved::TooManyKeyUpdateRequests)?;
        match body {
            [0] => {}
            [1] => self.owes_update = true,
            [] => return Err(Error::from(InvalidMessage::MessageTooShort).into()),
            _ => return Err(fail(AlertDescription::IllegalParameter, InvalidMessage::InvalidKeyUpdate)),
        }
        self.incoming = Incoming::new(self.suite, self.renewal.incoming()?)?;
        Ok(())
    }

    fn ticket(&mut self, body: &[u8]) -> Result<(), Failure> {
        match &mut self.renewal {
            Renewal::Client(kernel) => Ok(kernel.handle_new_session_ticket(body)?),
            Renewal::Server(_) | Renewal::Never => Err(unexpected()),
        }
    }

    /// Writes what is owed to the peer: once for all that came. New keys are only due with what is sent next (RFC 8446, section
    /// 4.6.3), so that a peer that is sent nothing makes no work by asking for them.
    fn answer(&mut self, out: &mut Records) -> Result<(), TlsError> {
        if std::mem::take(&mut self.owes_refusal) {
            let no = AlertDescription::NoRenegotiation.into();
            self.outgoing.write(ContentType::Alert, &[WARNING, no], out)?;
        }
        Ok(())
    }

    /// Goes over to new keys for what we send, and tells the peer.
    fn renew(&mut self, out: &mut Records) -> Result<(), TlsError> {
        if let Renewal::Never = self.renewal {
            return Err(TlsError::KeysExhausted);
        }
        self.owes_update = false;
        self.outgoing.write(ContentType::Handshake, &KEY_UPDATE, out)?;
        self.outgoing = Outgoing::new(self.suite, self.renewal.outgoing()?)?;
        Ok(())
    }
}

/// One less of what is allowed.
fn spent(allowed: u8, error: PeerMisbehaved) -> Result<u8, Failure> {
    allowed.checked_sub(1).ok_or_else(|| Error::from(error).into())
}

impl Renewal {
    fn outgoing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_tx_secret(),
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Never => Err(UnsupportedOperationError.into()),
        }
    }

    fn incoming(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_rx_secret(),
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Never => Err(UnsupportedOperationError.into()),
        }
    }
}

impl Outgoing {
    fn new(
        suite: SupportedCipherSuite,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let (key, iv) = key_and_iv(secrets)?;
        let (mut encrypter, limit) = match suite {
            SupportedCipherSuite::Tls13(suite) => {
                (suite.aead_alg.encrypter(key, iv), suite.common.confidentiality_limit)
            }
            SupportedCipherSuite::Tls12(suite) => {
                let (fixed, explicit) = iv.as_ref().split_at(suite.aead_alg.key_block_shape().fixed_iv_len);
                (suite.aead_alg.encrypter(key, fixed, explicit), suite.common.confidentiality_limit)
            }
        };
        if sequence > 0 {
            // AWS-LC makes sure that no nonce comes twice, and takes the first that it sees for that of record 0. What is made for
            // that goes nowhere.
            encrypter.encrypt(plain(ContentType::ApplicationData, &[]), 0)?;
        }
        Ok(Self { encrypter, sequence, limit: limit.min(LAST_SEQUENCE) })
    }

    /// Whether all but the last record that this key may protect are gone: that one is for a KeyUpdate, or an alert.
    fn is_used_up(&self) -> bool {
        self.sequence + 1 >= self.limit
    }

    fn write(&mut self, typ: ContentType, bytes: &[u8], out: &mut Records) -> Result<(), TlsError> {
        if self.sequence >= self.limit {
            return Err(TlsError::KeysExhausted);
        }
        let record = self.encrypter.encrypt(plain(typ, bytes), self.sequence)?.encode();
        self.sequence += 1;
        out.room(record.len()).copy_from_slice(&record);
        out.used(record.len());
        Ok(())
    }
}

/// No sequence number comes near the end of what fits it (RFC 8446, section 5.3).
const LAST_SEQUENCE: u64 = 1 << 63;

impl Incoming {
    fn new(
        suite: SupportedCipherSuite,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let (key, iv) = key_and_iv(secrets)?;
        let decrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => {
                let fixed = &iv.as_ref()[..suite.aead_alg.key_block_shape().fixed_iv_len];
                suite.aead_alg.decrypter(key, fixed)
            }
        };
        Ok(Self { decrypter, sequence })
    }

    fn decrypt<'a>(&mut self, record: InboundOpaqueMessage<'a>) -> Result<InboundPlainMessage<'a>, Failure> {
        if self.sequence >= LAST_SEQUENCE {
            return Err(Failure {
                error: TlsError::KeysExhausted,
                alert: Some(AlertDescription::InternalError),
            });
        }
        let plain = self.decrypter.decrypt(record, self.sequence)?;
        self.sequence += 1;
        Ok(plain)
    }
}

fn plain(typ: ContentType, bytes: &[u8]) -> OutboundPlainMessage<'_> {
    let payload = OutboundChunks::Single(bytes);
    // TLS 1.3 goes by this number too (RFC 8446, section 5.1).
    OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload }
}

fn key_and_iv(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    match secrets {
        Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(UnsupportedOperationError.into()),
    }
}

#[cfg(all(test, any(feature = "tls-aws-lc-rs", feature = "tls-ring")))]
mod tests;
