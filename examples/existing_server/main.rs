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
use lodger::{Context, Served};

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut array = Array::default();
    let mut house = House::new(options, &mut array)?;

    // lodger: a context, beside the server's state and its array, and a port for it to listen on.
    let mut context = Context::new();
    let address = lodging::open(context.io(), options.listen)?;

    println!("listening on http://{address}/");
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
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            listen: ([127, 0, 0, 1], 7681).into(),
            line_listen: ([127, 0, 0, 1], 0).into(),
            fifo: None,
        };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--listen" => options.listen = value.parse()?,
                "--line-listen" => options.line_listen = value.parse()?,
                "--fifo" => options.fifo = Some(value.into()),
                _ => {
                    return Err(
                        format!("{flag}? there are --listen ADDR, --line-listen ADDR, --fifo PATH").into()
                    );
                }
            }
        }
        Ok(options)
    }
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
