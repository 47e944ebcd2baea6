//! tokio-websockets, one thread: `peer-tokio-websockets PORT`.
//!
//! No limits and no splitting of messages, as in its own example of an echo; unlike that, it flushes once for all messages
//! that were there to be read.

use lodger_bench_peers::{arguments, echo, serve};
use tokio_websockets::{Config, Limits, Message, ServerBuilder};

fn main() {
    serve(arguments().0, async |stream| {
        let builder = ServerBuilder::new().config(Config::default().frame_size(usize::MAX));
        if let Ok((_, socket)) = builder.limits(Limits::unlimited()).accept(stream).await {
            echo(socket, |message: &Message| message.is_text() || message.is_binary()).await;
        }
    })
}
