//! Looks names up by a resolver of one's own: a DNS client that lives in the loop, without a thread.
//!
//! ```text
//! cargo run --example own_resolver -- [--server ADDRESS:PORT] NAME...
//! ```
//!
//! The name servers are those of `/etc/resolv.conf` unless one is given. The resolver is in `dns.rs`.

mod dns;

use dns::Dns;
use lodger::resolve::{Action, Found, Hands, Lookup, LookupId, Resolver};
use lodger::{Env, Ready, SystemEnv, Wait};
use std::error::Error;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::Instant;

/// What the resolver has asked for.
#[derive(Default)]
struct Desk {
    entries: Vec<libc::pollfd>,
    watched: Vec<(RawFd, OwnedFd)>,
    due: Option<Instant>,
    unanswered: usize,
}

impl Desk {
    fn call(&mut self, dns: &mut Dns, names: &[String], call: impl FnOnce(&mut Dns, &mut Hands<'_>)) {
        let mut actions = Vec::new();
        call(dns, &mut Hands::new(SystemEnv.now(), &mut |bytes| SystemEnv.random(bytes), &mut actions));
        for action in actions {
            match action {
                Action::Answer(id, answer) => {
                    let asked = (0..names.len()).find(|number| LookupId::new(*number as u64) == id);
                    let name = asked.map_or("?", |number| &names[number]);
                    match answer {
                        Ok(Found::Addresses(addresses)) => println!("{name}: {addresses:?}"),
                        Ok(other) => println!("{name}: {other:?}"),
                        Err(error) => println!("{name}: {error}"),
                    }
                    self.unanswered -= 1;
                }
                Action::Watch { number, descriptor, interest } => {
                    self.unwatch(number);
                    let events = interest.poll_events();
                    self.entries.push(libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 });
                    self.watched.push((number, descriptor));
                }
                Action::Unwatch(number) => self.unwatch(number),
                Action::WakeAt(at) => self.due = at,
                _ => {}
            }
        }
    }

    fn unwatch(&mut self, number: RawFd) {
        if let Some(at) = self.watched.iter().position(|(watched, _)| *watched == number) {
            self.watched.remove(at);
            self.entries.remove(at);
        }
    }
}

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
    let mut dns = Dns::new(servers);

    let mut desk = Desk { unanswered: names.len(), ..Desk::default() };
    for (number, name) in names.iter().enumerate() {
        let (id, lookup) = (LookupId::new(number as u64), Lookup::Addresses(name.clone()));
        desk.call(&mut dns, &names, |dns, hands| dns.look_up(id, &lookup, hands));
    }
    while desk.unanswered > 0 {
        let wait =
            desk.due.map_or(Wait::FOREVER, |due| due.saturating_duration_since(SystemEnv.now()).into());
        lodger_poll::poll(&mut desk.entries, wait)?;
        let ready: Vec<RawFd> = desk
            .entries
            .iter()
            .zip(&desk.watched)
            .filter(|(entry, _)| entry.revents != 0)
            .map(|(_, (number, _))| *number)
            .collect();
        for fd in ready {
            desk.call(&mut dns, &names, |dns, hands| dns.ready(fd, Ready::READ, hands));
        }
        if desk.due.is_some_and(|due| due <= SystemEnv.now()) {
            desk.due = None;
            desk.call(&mut dns, &names, |dns, hands| dns.due(hands));
        }
    }
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
