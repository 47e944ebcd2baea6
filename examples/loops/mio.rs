//! lodger in a program that has a mio loop: what comes in by UDP is shown in every browser.
//!
//! ```sh
//! cargo run -p lodger-examples-loops --example mio
//! echo hello > /dev/udp/127.0.0.1/7682          # in bash, and http://127.0.0.1:7681/ in a browser
//! ```
//!
//! Its two ports can be given as arguments.
//!
//! This is the right way when mio is there already. mio tells of changes only, and lodger is made for loops that go on telling:
//! `Single::edge_triggered` stands between them, with one token for all connections. A program without a loop needs no
//! mio: `lodger_epoll::Loop` does the same with fewer calls.

use lodger::{Context, Decision, Io, Listen, Request, Response, Site, ws};
use lodger_epoll::Single;
use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;

const PAGE: &str = "<!doctype html><meta charset=utf-8><title>mio</title><pre></pre><script>
new WebSocket(`ws://${location.host}/`).onmessage = event => document.querySelector('pre').append(event.data);
</script>";

const DATAGRAMS: Token = Token(0);
const LODGER: Token = Token(1);

/// A page only listens.
struct Page;

impl ws::Handler<()> for Page {}

fn accept(request: &Request<'_>, _: &mut (), _: &mut Io) -> Decision<()> {
    if request.is_websocket() { Decision::websocket(Page) } else { Decision::respond(Response::html(PAGE)) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut ports = std::env::args().skip(1).map(|port| port.parse::<u16>());
    let (http, udp) = (ports.next().unwrap_or(Ok(7681))?, ports.next().unwrap_or(Ok(7682))?);

    // The program's own.
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let mut datagrams = UdpSocket::bind(([127, 0, 0, 1], udp).into())?;
    poll.registry().register(&mut datagrams, DATAGRAMS, Interest::READABLE)?;

    // lodger: set up, and registered.
    let mut context: Context = Context::new();
    let site = context.io().add_site(Site::new().protocol("", accept))?;
    context.io().listen(Listen::tcp(([127, 0, 0, 1], http)), site)?;
    let pages = context.io().protocol(site, "").ok_or("the site has this protocol")?;
    let mut lodger = Single::new(context)?.edge_triggered();
    poll.registry().register(&mut SourceFd(&lodger.as_raw_fd()), LODGER, Interest::READABLE)?;

    let mut buffer = [0; 2048];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                // lodger: one batch. What is left makes a new edge, after the program's own have had their turn.
                LODGER => drop(lodger.dispatch(256, &mut ())?),
                _ => {
                    while let Ok(length) = datagrams.recv(&mut buffer) {
                        let text = String::from_utf8_lossy(&buffer[..length]);
                        // lodger: used from the program's own code.
                        // A page that is too slow for it goes without.
                        let _ = lodger.with(|io| io.broadcast(pages, &io.encode(&*text)))?;
                    }
                }
            }
        }
    }
}
