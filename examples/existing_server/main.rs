//! A small single-threaded server as people really have them, into whose poll array lodger moves.
//!
//! The server had one `Vec<libc::pollfd>`, a line protocol on a TCP port, a FIFO or standard input, a timerfd, the pipe
//! of a child process and a signalfd. All of that is in `house.rs` and `array.rs`, and knows nothing of lodger. What
//! lodger added is here, in places marked `lodger:`, and what its page and its WebSockets do is in `lodging.rs`.
//!
//! ```text
//! cargo run --release --example existing_server -- --fifo /tmp/house
//! ```
//!
//! - `--listen ADDR`: where the page is, 127.0.0.1:7681 unless given; port 0 takes a free one
//! - `--line-listen ADDR`: where lines are taken, 127.0.0.1:0 unless given
//! - `--fifo PATH`: reads lines from this FIFO, made if nothing is there, instead of from standard input
//! - `--tls-cert FILE --tls-key FILE`: the page is at `https:`, with this certificate chain and key in PEM
//! - `--tls-self-signed`: the same with a certificate made for this run, which browsers warn of

mod array;
mod house;
mod lodging;
mod sys;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use array::Array;
use house::House;
use lodger::{Context, Served, tls};

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut array = Array::default();
    let mut house = House::new(options, &mut array)?;

    // lodger: a context, beside the server's state and its array, and a port for it to listen on.
    let mut context = Context::new();
    let address = lodging::open(context.io(), options.listen, options.tls.clone())?;

    println!("listening on {}://{address}/", if options.tls.is_some() { "https" } else { "http" });
    println!("lines on {}", house.lines_address());

    while !house.stopping {
        // lodger: tells the array what to watch, and how long the loop may sleep.
        let wait = context.prepare(&mut array);

        array.compact();
        sys::poll(&mut array.fds, wait.poll_millis())?;
        house.turns += 1;

        for at in 0..array.fds.len() {
            if !array.is_ready(at) {
                continue;
            }
            // lodger: is it one of its own?
            if context.service_fd(&mut array.fds[at], &mut house) == Served::Ours {
                continue;
            }
            house.serve(&mut array, at);
        }

        // lodger: timers and whatever else does not come from a descriptor.
        context.service_timeouts(&mut house);

        lodging::show(&mut house, &array, context.io());
    }

    // lodger: takes its leave; the browsers are told, the array is the server's alone again.
    context.leave(&mut array, &mut house);
    Ok(())
}

/// What the command line asks for.
pub(crate) struct Options {
    listen: SocketAddr,
    line_listen: SocketAddr,
    fifo: Option<PathBuf>,
    tls: Option<tls::Server>,
}

const USAGE: &str = "\
there are --listen ADDR, --line-listen ADDR, --fifo PATH, --tls-cert FILE with --tls-key FILE, --tls-self-signed";

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            listen: ([127, 0, 0, 1], 7681).into(),
            line_listen: ([127, 0, 0, 1], 0).into(),
            fifo: None,
            tls: None,
        };
        let (mut chain, mut key) = (None, None);
        while let Some(flag) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--listen" => options.listen = value()?.parse()?,
                "--line-listen" => options.line_listen = value()?.parse()?,
                "--fifo" => options.fifo = Some(value()?.into()),
                "--tls-cert" => chain = Some(value()?),
                "--tls-key" => key = Some(value()?),
                "--tls-self-signed" => options.tls = Some(self_signed()?),
                _ => return Err(format!("{flag}? {USAGE}").into()),
            }
        }
        match (chain, key) {
            (Some(chain), Some(key)) => options.tls = Some(tls::Server::from_pem_files(chain, key)?),
            (None, None) => {}
            _ => return Err("--tls-cert and --tls-key go together".into()),
        }
        Ok(options)
    }
}

/// A certificate that nobody has reason to trust, for trying things out.
fn self_signed() -> Result<tls::Server, Box<dyn Error>> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok(tls::Server::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())?)
}

fn main() -> ExitCode {
    match Options::from_args(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("existing_server: {error}");
            ExitCode::FAILURE
        }
    }
}
