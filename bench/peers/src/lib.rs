//! What the peers written in Rust have in common.

use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpStream};

/// The arguments: where to listen, and what follows.
///
/// # Panics
///
/// Without a port: these programs are started by the benchmark.
pub fn arguments() -> (u16, Vec<String>) {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|port| port.parse().ok()).expect("PORT");
    (port, arguments.collect())
}

/// Accepts connections for ever, on one thread, and hands each to `connection` in a task of its own.
///
/// Tasks are unconstrained, as in the examples of fastwebsockets and tokio-websockets: that saves tokio's account of what a
/// task has used.
///
/// # Panics
///
/// When the port is taken.
pub fn serve<F>(port: u16, connection: impl Fn(TcpStream) -> F) -> !
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(tokio::task::unconstrained(connection(stream)));
            }
        }
    })
}

/// Sends back every message that `is_data`, and flushes once for all that were there to be read.
///
/// They are read before any is sent, as tokio-websockets flushes whatever waits before it reads.
pub async fn echo<S, M, E>(mut socket: S, is_data: impl Fn(&M) -> bool)
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
{
    let mut messages = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        messages.push(message);
        // The end, or an error, is met again when what came before it is answered.
        while messages.len() < MOST_AT_ONCE
            && let Some(Some(Ok(message))) = socket.next().now_or_never()
        {
            messages.push(message);
        }
        for message in messages.drain(..).filter(&is_data) {
            if socket.feed(message).await.is_err() {
                return;
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}

/// Messages that are held before they are answered.
const MOST_AT_ONCE: usize = 64;
