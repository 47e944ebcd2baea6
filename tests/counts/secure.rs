//! The same server over TLS, and clients whose own state is not there when something is counted.

use crate::tally::{Client, Server, batch, site};
use lodger::tls::rustls::{ClientConfig, ClientConnection};
use lodger::tls::{self, Version};
use lodger::ws::MessageKind;
use lodger::{Limits, Listen};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

/// A certificate, and a client that trusts it.
pub(crate) struct Pair {
    pub(crate) server: tls::Server,
    pub(crate) client: Arc<ClientConfig>,
}

impl Pair {
    pub(crate) fn new(version: Version) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("rcgen works");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let server = tls::Server::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together");
        let client = tls::Client::builder()
            .roots_pem(chain.as_bytes())
            .versions(&[version])
            .resumption(false)
            .build()
            .expect("a root is there");
        Self { server, client: client.config() }
    }

    pub(crate) fn listening(&self) -> Server {
        let site = site(Limits::default()).tls(self.server.clone());
        Server::listening(Listen::tcp(([127, 0, 0, 1], 0)).tls(), site)
    }

    /// A client that has upgraded and had one message echoed. What is left of it is its socket.
    pub(crate) fn upgraded(&self, server: &mut Server) -> Client {
        let client = server.connect();
        let name = "localhost".try_into().expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(&self.client), name).expect("it is configured");
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        exchange(&mut tls, &client, server, request.as_bytes(), |answer| answer.ends_with(b"\r\n\r\n"));
        let (request, answer) = batch(MessageKind::Binary, 32, 1);
        exchange(&mut tls, &client, server, &request, |echoed| echoed.len() == answer);
        client
    }
}

fn exchange(
    tls: &mut ClientConnection,
    client: &Client,
    server: &mut Server,
    request: &[u8],
    complete: impl Fn(&[u8]) -> bool,
) {
    let mut socket = &client.socket;
    tls.writer().write_all(request).expect("it is buffered");
    let mut answer = Vec::new();
    while !complete(&answer) {
        while tls.wants_write() {
            tls.write_tls(&mut socket).expect("a request fits");
        }
        server.turn();
        match tls.read_tls(&mut socket) {
            Ok(0) => panic!("the server closed"),
            Ok(_) => {
                let state = tls.process_new_packets().expect("the server speaks TLS");
                let start = answer.len();
                answer.resize(start + state.plaintext_bytes_to_read(), 0);
                tls.reader().read_exact(&mut answer[start..]).expect("it is there");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("reading failed: {error}"),
        }
    }
}
