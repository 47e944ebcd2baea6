//! A connection of rustls over input that lies elsewhere: through its handshake, and beyond where it cannot be had otherwise.

use super::TlsError;
use crate::transport::Records;
use rustls::ContentType;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedConnectionCommon, UnbufferedStatus,
};

/// A connection of rustls: until its handshake is complete, or for good where its keys cannot be taken from it.
pub(super) struct Handshake<C> {
    pub(super) connection: C,
    /// Whether the keys can be taken from it. Then it is given one record at a time, so that none behind the handshake is its.
    pub(super) gives_keys: bool,
    /// Where in the input the first record begins that was not complete.
    next_record: usize,
}

/// More than a record adds to what it protects.
const OVERHEAD: usize = 256;

/// Both sides' connections have the same states, by functions of their own.
pub(super) trait Process {
    type Data;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn has_shaken_hands(&self) -> bool;
}

impl Process for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        let common: &mut UnbufferedConnectionCommon<_> = self;
        common.process_tls_records(records)
    }

    fn has_shaken_hands(&self) -> bool {
        !self.is_handshaking()
    }
}

impl Process for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        let common: &mut UnbufferedConnectionCommon<_> = self;
        common.process_tls_records(records)
    }

    fn has_shaken_hands(&self) -> bool {
        !self.is_handshaking()
    }
}

impl<C: Process> Handshake<C> {
    pub(super) fn new(connection: C, gives_keys: bool) -> Self {
        Self { connection, gives_keys, next_record: 0 }
    }

    /// Takes records as far as the end of the handshake, or as far as they go.
    pub(super) fn advance(
        &mut self,
        records: &mut [u8],
        received: &mut Received<'_>,
        out: &mut Records,
    ) -> Result<Advanced, rustls::Error> {
        let mut used = 0;
        let secured = loop {
            let record = end_of_record(records, self.next_record).filter(|_| self.gives_keys);
            self.next_record = record.unwrap_or(self.next_record);
            let end = record.unwrap_or(records.len());
            let advanced = advance(&mut self.connection, &mut records[used..end], received, out)?;
            used += advanced.used;
            if advanced.secured && used < end {
                // It has begun with what follows, and goes on with it.
                self.gives_keys = false;
            }
            if (advanced.secured && self.gives_keys) || end == records.len() {
                break advanced.secured;
            }
        };
        self.next_record = self.next_record.saturating_sub(used);
        Ok(Advanced { used, secured })
    }
}

/// The end of the record that begins at `start`, if all of it is there.
fn end_of_record(records: &[u8], start: usize) -> Option<usize> {
    let header = records.get(start..start + 5)?;
    let end = start + 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
    (end <= records.len()).then_some(end)
}

/// Where decrypted bytes go.
pub(super) struct Received<'a> {
    pub(super) plain: &'a mut [u8],
    pub(super) length: usize,
    pub(super) records: usize,
    pub(super) peer_closed: bool,
}

impl Received<'_> {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.plain[self.length..end].copy_from_slice(bytes);
        self.length = end;
        self.records += 1;
    }
}

pub(super) struct Advanced {
    /// Bytes of the input that are done with.
    pub(super) used: usize,
    pub(super) secured: bool,
}

/// Takes records as far as they go.
fn advance<C: Process>(
    connection: &mut C,
    records: &mut [u8],
    received: &mut Received<'_>,
    out: &mut Records,
) -> Result<Advanced, rustls::Error> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state } = connection.process(&mut records[used..]);
        let waits = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    received.push(record.payload);
                    discard += record.discard;
                }
                None
            }
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, out);
                None
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::PeerClosed) => {
                received.peer_closed = true;
                None
            }
            Ok(
                ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed
                | ConnectionState::BlockedHandshake,
            ) => Some(()),
            // Early data is not offered, and there is no other state.
            Ok(_) => return Err(rustls::Error::General("a state that was not asked for".into())),
            Err(error) => {
                tell_of_failure(connection, &mut records[used + discard..], out);
                return Err(error);
            }
        };
        used += discard;
        if let Some(()) = waits {
            // A server that sends before its client has proved anything is not secured by that.
            return Ok(Advanced { used, secured: connection.has_shaken_hands() });
        }
    }
}

/// Writes the alert that tells the peer of a failure, if there is one. A connection that has written it must not look at its input
/// again, which would fail once more.
fn tell_of_failure<C: Process>(connection: &mut C, rest: &mut [u8], out: &mut Records) {
    let mut written = out.bytes().len();
    while let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(rest).state {
        encode(data, out);
        if is_alert(&out.bytes()[written..]) {
            return;
        }
        written = out.bytes().len();
    }
}

/// Whether a record is an alert. TLS 1.3 hides its type, but nothing else is as short.
fn is_alert(record: &[u8]) -> bool {
    const HIDDEN_ALERT: usize = 5 + 2 + 1 + 16;
    match record.first().copied().map(ContentType::from) {
        Some(ContentType::Alert) => true,
        Some(ContentType::ApplicationData) => record.len() == HIDDEN_ALERT,
        _ => false,
    }
}

pub(super) enum Write<'a> {
    Data(&'a [u8]),
    Close,
}

/// Writes one record, after whatever the connection itself has to say first. `kept` is what it has not used of its input, which
/// it counts on finding there.
pub(super) fn write<C: Process>(
    connection: &mut C,
    kept: &mut Vec<u8>,
    what: Write<'_>,
    out: &mut Records,
) -> Result<(), TlsError> {
    loop {
        let UnbufferedStatus { discard, state } = connection.process(kept);
        let done = match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let length = match what {
                    Write::Data(bytes) => bytes.len(),
                    Write::Close => 0,
                };
                let written = fit(out, length + OVERHEAD, |room| {
                    let written = match what {
                        Write::Data(bytes) => traffic.encrypt(bytes, room),
                        Write::Close => traffic.queue_close_notify(room),
                    };
                    written.map_err(|error| match error {
                        EncryptError::InsufficientSize(size) => Some(size),
                        EncryptError::EncryptExhausted => None,
                    })
                });
                if !written {
                    return Err(rustls::Error::EncryptError.into());
                }
                true
            }
            ConnectionState::EncodeTlsData(data) => {
                encode(data, out);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            // Heard already: reported once more where it was followed by nothing.
            ConnectionState::PeerClosed => false,
            _ => return Err(rustls::Error::HandshakeNotComplete.into()),
        };
        kept.drain(..discard);
        if done {
            return Ok(());
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Records) {
    fit(out, OVERHEAD, |room| {
        data.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Has `write` write behind `out`, with as much room as it asks for. False if it cannot.
fn fit(
    out: &mut Records,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> bool {
    loop {
        match write(out.room(room)) {
            Ok(written) => {
                out.used(written);
                return true;
            }
            Err(Some(size)) if size.required_size > room => room = size.required_size,
            Err(_) => return false,
        }
    }
}
