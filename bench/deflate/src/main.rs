//! permessage-deflate in figures. `bench/deflate/run` starts it.
//!
//! `codec`: MB/s of one core each way, lodger's codec beside zlib in C, in turns.
//! `servers`: servers of which each compresses and inflates every message: processor time and memory.
//! `serve`: lodger as such a server.

mod codec;
mod json;
mod servers;

use lodger::ws::{self, Deflate};
use lodger::{Context, Cx, Decision, Io, Listen, Request, Site};
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["codec"] => codec::measure(),
        ["servers", seconds, ref others @ ..] => {
            let seconds = seconds.parse().expect("a number of seconds");
            servers::measure(Duration::from_secs_f64(seconds), others);
        }
        ["serve", mode] => serve(mode),
        _ => {
            eprintln!(
                "usage: deflate codec | servers SECONDS ['NAME none|both=COMMAND'..] | serve none|one|both|off"
            );
            std::process::exit(2);
        }
    }
}

struct Echo;

impl ws::Handler<()> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, ()>, message: ws::Message<'_>) {
        let _ = cx.send(message);
    }
}

/// An echo. `mode` says which directions have context takeover: none, the client's, or both; or that nothing is compressed.
fn serve(mode: &str) {
    let mut deflate = Deflate::default();
    deflate.client_no_context_takeover = !matches!(mode, "one" | "both");
    deflate.server_no_context_takeover = mode != "both";
    let mut context: Context = Context::builder().max_deflate_memory(usize::MAX).build();
    let accept = |_: &Request<'_>, _: &mut (), _: &mut Io| Decision::websocket(Echo);
    let mut site = Site::new().protocol("", accept);
    if mode != "off" {
        site = site.deflate(deflate);
    }
    let site = context.io().add_site(site).expect("a site with a protocol");
    let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).expect("a port is free");
    println!("{}", context.io().local_addr(listener).expect("it listens"));
    lodger_poll::Loop::new().run(&mut context, &mut ()).expect("poll works");
}
