//! A client that makes its records itself once the handshake is complete, so that it can send what rustls would not.

use super::town::{TlsPeer, Town};
use lodger::sim::Endpoint;
use lodger::tls::Version;
use lodger::tls::rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use lodger::tls::rustls::crypto::ring::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
};
use lodger::tls::rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};
use std::sync::Arc;

pub(crate) struct Forger {
    pub(crate) socket: Endpoint,
    encrypter: Box<dyn MessageEncrypter>,
    decrypter: Box<dyn MessageDecrypter>,
    sent: u64,
    received: u64,
    inbox: Vec<u8>,
}

impl Forger {
    pub(crate) fn new(town: &mut Town, version: Version) -> Self {
        let suite = match version {
            Version::Tls12 => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            _ => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        let client = town.authority.client().versions(&[version]).cipher_suites(&[suite]).build().unwrap();
        let mut config = (*client.config()).clone();
        config.enable_secret_extraction = true;
        let socket = town.socket();
        let mut peer = TlsPeer::new(socket, "localhost", &Arc::new(config));
        town.settle(&mut peer);
        let socket = peer.socket.take().expect("it was given one");
        let secrets = peer.tls.dangerous_extract_secrets().expect("the handshake is complete");
        let (sent, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets.tx else { panic!() };
        let (received, ConnectionTrafficSecrets::Chacha20Poly1305 { key: read_key, iv: read_iv }) =
            secrets.rx
        else {
            panic!()
        };
        let (encrypter, decrypter) = match version {
            Version::Tls12 => {
                let SupportedCipherSuite::Tls12(suite) = TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 else {
                    panic!()
                };
                let encrypter = suite.aead_alg.encrypter(key, iv.as_ref(), &[]);
                (encrypter, suite.aead_alg.decrypter(read_key, read_iv.as_ref()))
            }
            _ => {
                let SupportedCipherSuite::Tls13(suite) = TLS13_CHACHA20_POLY1305_SHA256 else { panic!() };
                (suite.aead_alg.encrypter(key, iv), suite.aead_alg.decrypter(read_key, read_iv))
            }
        };
        Self { socket, encrypter, decrypter, sent, received, inbox: Vec::new() }
    }

    /// One record.
    pub(crate) fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(message, self.sent).expect("keys last");
        self.sent += 1;
        record.encode()
    }

    pub(crate) fn send(&mut self, typ: ContentType, payload: &[u8]) {
        let record = self.record(typ, payload);
        self.socket.send(record);
    }

    /// The records that have come.
    pub(crate) fn received(&mut self) -> Vec<(ContentType, Vec<u8>)> {
        self.inbox.extend(self.socket.take());
        let mut records = Vec::new();
        while let [typ, _, _, high, low, rest @ ..] = &mut self.inbox[..] {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(payload) = rest.get_mut(..length) else { break };
            let opaque =
                InboundOpaqueMessage::new(ContentType::from(*typ), ProtocolVersion::TLSv1_2, payload);
            let plain = self.decrypter.decrypt(opaque, self.received).expect("by the keys agreed on");
            records.push((plain.typ, plain.payload.to_vec()));
            self.received += 1;
            self.inbox.drain(..5 + length);
        }
        records
    }

    /// The application's bytes that have come.
    pub(crate) fn data(&mut self) -> Vec<u8> {
        let data = self.received().into_iter().filter(|(typ, _)| *typ == ContentType::ApplicationData);
        data.flat_map(|(_, bytes)| bytes).collect()
    }
}
