//! The servers of the file `servers`: which there are, starting one, ending it.

use crate::options::Options;
use lodger_bench_load::{Watched, system};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One row of the file.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    kinds: Vec<String>,
    pub(crate) command: Vec<String>,
}

impl Server {
    /// Those whose program is there and whose name is wanted.
    pub(crate) fn all(options: &Options) -> Result<Vec<Self>, Box<dyn Error>> {
        let mut servers = Vec::new();
        for line in std::fs::read_to_string("servers")?.lines() {
            let Some(server) = Self::from_line(line, options)? else { continue };
            if options.servers.as_ref().is_some_and(|regex| !regex.is_match(&server.name)) {
                continue;
            }
            if is_program(&server.command[0]) {
                servers.push(server);
            } else {
                println!("{} is left out: its program is not there", server.name);
            }
        }
        Ok(servers)
    }

    fn from_line(line: &str, options: &Options) -> Result<Option<Self>, Box<dyn Error>> {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|word| !word.starts_with('#')) else { return Ok(None) };
        let kinds = words.next().ok_or_else(|| format!("servers: {name} has no kinds"))?;
        let command: Vec<_> = words.map(|word| options.placed(word)).collect();
        if command.is_empty() {
            return Err(format!("servers: {name} has no command").into());
        }
        let kinds = kinds.split(',').map(str::to_owned).collect();
        Ok(Some(Self { name: name.to_owned(), kinds, command }))
    }

    pub(crate) fn speaks(&self, kind: &str) -> bool {
        self.kinds.iter().any(|own| own == kind)
    }

    pub(crate) fn kinds(&self) -> &[String] {
        &self.kinds
    }

    /// Starts it on a free port, bound to processor `core`, and waits until it accepts. This thread comes back to `own`. The
    /// server ends with the runner, however that ends.
    pub(crate) fn start(&self, core: usize, own: usize) -> io::Result<Running> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let words = self.command.iter().map(|word| word.replace("{port}", &port.to_string()));
        let words: Vec<_> = words.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A child starts on the processor of the thread that makes it.
        system::pin(core)?;
        let parent = getpid();
        // SAFETY: between fork and exec it makes two system calls, and touches no memory of the parent's.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::TERM))?;
                // It may have ended before that was set.
                if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
            });
        }
        let child = command.spawn();
        system::pin(own)?;
        let mut running = Running { child: child?, address: (Ipv4Addr::LOCALHOST, port).into() };
        let begin = Instant::now();
        while !system::accepts(running.address) {
            if let Some(status) = running.child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once, {status}")));
            }
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other("it does not accept connections"));
            }
            sleep(Duration::from_millis(2));
        }
        Ok(running)
    }
}

fn is_program(command: &str) -> bool {
    if command.contains('/') {
        return Path::new(command).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(command).is_file())
}

/// A server that runs; ended when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn watched(&self) -> Watched {
        Watched::new(self.child.id() as i32)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(1));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
