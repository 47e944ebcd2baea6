//! What an idle connection costs in memory.

use crate::link::{Links, PATIENCE, silence};
use crate::plan::{Kind, Plan};
use crate::watched::Watched;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How much the server grew, in bytes per connection.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// After the opening handshake.
    pub opened: f64,
    /// After one message of 1 KiB on each, beyond what there was before all of them.
    pub used: f64,
}

/// Connections that are there, and have spoken, before anything is measured: what a server allocates once is not counted.
const BEFORE: usize = 64;

/// Time for a server to finish what it does after an answer.
const SETTLE: Duration = Duration::from_millis(150);

/// Measures with `connections` idle ones.
///
/// # Errors
///
/// The server answered something wrong, or nothing.
pub fn memory(server: SocketAddr, watched: &Watched, kind: Kind, connections: usize) -> io::Result<Memory> {
    let plan = Plan::new(kind, 1024, 1, &[]);
    let mut links = Links::new()?;
    links.open(server, &plan, BEFORE)?;
    one_message_each(&mut links, &plan, 0)?;
    let before = settled(watched)?;
    links.open(server, &plan, connections)?;
    let opened = settled(watched)?;
    one_message_each(&mut links, &plan, BEFORE)?;
    let used = settled(watched)?;
    let each = |bytes: u64| (bytes as f64 - before as f64) / connections as f64;
    Ok(Memory { opened: each(opened), used: each(used) })
}

fn settled(watched: &Watched) -> io::Result<u64> {
    std::thread::sleep(SETTLE);
    watched.memory()
}

/// A message on each connection from `first` on, a few at a time.
fn one_message_each(links: &mut Links, plan: &Plan, first: usize) -> io::Result<()> {
    for few in (first..links.all.len()).step_by(64) {
        let mut missing = links.all.len().min(few + 64) - few;
        for link in &mut links.all[few..few + missing] {
            link.owed = 1;
            link.send(plan)?;
        }
        let mut heard = Instant::now();
        while missing > 0 {
            let events = links.wait(Some(Duration::from_millis(100)))?;
            for at in 0..events {
                let (which, readable, _) = links.event(at);
                let Links { all, buffer, .. } = &mut *links;
                if readable {
                    missing -= all[which].receive(plan, buffer)?.min(missing);
                    heard = Instant::now();
                }
            }
            if heard.elapsed() > PATIENCE {
                return Err(silence());
            }
        }
    }
    Ok(())
}
