//! fastwebsockets behind hyper, one thread: `peer-fastwebsockets PORT`.
//!
//! Its own example of an echo: it has no buffer for what it sends, each frame is one write.

use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lodger_bench_peers::{arguments, serve};

fn main() {
    serve(arguments().0, async |stream| {
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(accept));
        let _ = connection.with_upgrades().await;
    })
}

async fn accept(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, socket) = upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(echo(socket)));
    Ok(response)
}

async fn echo(socket: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(socket.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}
