//! tokio-tungstenite, one thread: `peer-tokio-tungstenite PORT READ_BUFFER [CERTIFICATE KEY]`, encrypted by rustls with the
//! latter two.
//!
//! Like the `forward` of its own example of an echo, it flushes when nothing more is to be read. For the read buffer, see
//! peer-tungstenite.

use lodger_bench_peers::{arguments, echo, serve};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_tungstenite::accept_async_with_config;
use tungstenite::Message;
use tungstenite::protocol::WebSocketConfig;

fn main() {
    let (port, rest) = arguments();
    let read_buffer = rest.first().and_then(|size| size.parse().ok()).expect("READ_BUFFER");
    let config = WebSocketConfig::default().read_buffer_size(read_buffer);
    let Some(tls) = acceptor(&rest[1..]) else { serve(port, move |stream| talk(stream, config)) };
    serve(port, move |stream| {
        let accept = tls.accept(stream);
        async move {
            if let Ok(stream) = accept.await {
                talk(stream, config).await;
            }
        }
    })
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, config: WebSocketConfig) {
    if let Ok(socket) = accept_async_with_config(stream, Some(config)).await {
        echo(socket, |message: &Message| message.is_text() || message.is_binary()).await;
    }
}

fn acceptor(files: &[String]) -> Option<TlsAcceptor> {
    let [certificate, key] = files else { return None };
    let certificates = CertificateDer::pem_file_iter(certificate).expect("a certificate");
    let certificates = certificates.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key);
    Some(TlsAcceptor::from(Arc::new(config.expect("a key that fits the certificate"))))
}
