//! Looks names up by a resolver of one's own: a DNS client that lives in the loop, without a thread.
//!
//! ```text
//! cargo run --example own_resolver -- [--server ADDRESS:PORT] NAME...
//! ```
//!
//! The name servers are those of `/etc/resolv.conf` unless one is given. The resolver is in `dns.rs`; whatever the context
//! connects to is looked up by it, too.

mod dns;

use dns::Dns;
use lodger::Context;
use lodger::resolve::{Found, Lookup};
use lodger_poll::Loop;
use std::error::Error;
use std::process::ExitCode;

fn run(mut args: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut servers = Vec::new();
    let mut names = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--server" => servers.push(args.next().ok_or("--server needs a value")?.parse()?),
            _ => names.push(arg),
        }
    }
    if servers.is_empty() {
        servers = dns::name_servers(&std::fs::read_to_string("/etc/resolv.conf")?);
    }

    let mut context: Context<usize> = Context::builder().resolver(Dns::new(servers)).build();
    let mut unanswered = names.len();
    for name in names {
        context.io().look_up(Lookup::Addresses(name.clone()), move |answer, unanswered, _| {
            match answer {
                Ok(Found::Addresses(addresses)) => println!("{name}: {addresses:?}"),
                Ok(other) => println!("{name}: {other:?}"),
                Err(error) => println!("{name}: {error}"),
            }
            *unanswered -= 1;
        });
    }
    Loop::new().run_while(&mut context, &mut unanswered, |unanswered| *unanswered > 0)?;
    Ok(())
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("own_resolver: {error}");
            ExitCode::FAILURE
        }
    }
}
