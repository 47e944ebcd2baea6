//! The server as it was: it takes lines from wherever they come, numbers them, and answers those who can be answered.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::array::{Array, What};
use crate::lodging::Lodging;
use crate::{Options, sys};

/// The server's state, in no way special: lodger borrows it for the handlers of its own.
pub(crate) struct House {
    /// Set by SIGINT and SIGTERM.
    pub(crate) stopping: bool,
    /// How often the loop turned.
    pub(crate) turns: u64,
    /// How often the timer ticked, a second apart.
    pub(crate) ticks: u64,
    /// The last lines, oldest first.
    pub(crate) lines: VecDeque<Line>,
    /// Where lines come from, by descriptor.
    inputs: HashMap<RawFd, Input>,
    signals: File,
    tick: File,
    listener: TcpListener,
    child: Child,
    fifo: Option<PathBuf>,
    /// A FIFO that the server made, and takes away again.
    made: Option<PathBuf>,
    /// lodger: what its handlers keep.
    pub(crate) lodging: Lodging,
}

/// One line, numbered from 1.
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) from: &'static str,
    pub(crate) text: String,
}

/// Something that lines are read from.
struct Input {
    from: &'static str,
    file: File,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

/// A longer line counts as several.
const LINE_MAX: usize = 1024;
const LINES_KEPT: usize = 200;
const CLIENTS_MAX: usize = 64;
const TICKS_PER_LINE: u64 = 5;
/// Standard output of this is a pipe like any other.
const CHILD: &str = "while cut -d ' ' -f 1-3 /proc/loadavg; do sleep 5; done";

impl House {
    /// Opens everything and puts it into the array.
    pub(crate) fn new(options: &Options, array: &mut Array) -> io::Result<Self> {
        let signals = sys::signals()?;
        array.add(signals.as_raw_fd(), libc::POLLIN, What::Signals, "SIGINT, SIGTERM");
        let tick = sys::every(1)?;
        array.add(tick.as_raw_fd(), libc::POLLIN, What::Tick, "timerfd, every second");
        let listener = TcpListener::bind(options.line_listen)?;
        listener.set_nonblocking(true)?;
        array.add(listener.as_raw_fd(), libc::POLLIN, What::LineListener, listener.local_addr()?.to_string());
        let mut child = Command::new("sh")
            .args(["-c", CHILD])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let load = child.stdout.take().map(OwnedFd::from);

        let mut house = Self {
            stopping: false,
            turns: 0,
            ticks: 0,
            lines: VecDeque::new(),
            inputs: HashMap::new(),
            signals,
            tick,
            listener,
            child,
            fifo: options.fifo.clone(),
            made: None,
            lodging: Lodging::default(),
        };
        if let Some(load) = load {
            house.read_from("child", load.into(), array, What::Lines, "load average, every 5 s");
        }
        match &options.fifo {
            Some(path) => {
                let (fifo, made) = sys::fifo(path)?;
                house.made = made.then(|| path.clone());
                house.read_from("fifo", fifo, array, What::Lines, path.to_string_lossy());
            }
            None => {
                let stdin = io::stdin().as_fd().try_clone_to_owned()?;
                house.read_from("stdin", stdin.into(), array, What::Lines, "standard input");
            }
        }
        Ok(house)
    }

    /// Where the line protocol listens.
    pub(crate) fn lines_address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a listener has an address")
    }

    /// The FIFO that lines may be written to.
    pub(crate) fn fifo(&self) -> Option<&PathBuf> {
        self.fifo.as_ref()
    }

    /// Serves one entry of the array that poll reported.
    pub(crate) fn serve(&mut self, array: &mut Array, at: usize) {
        match array.entries[at].what {
            What::Signals => {
                array.entries[at].bytes_in += read(&mut self.signals, &mut [0; 128]).unwrap_or(0) as u64;
                self.stopping = true;
            }
            What::Tick => self.tick(array, at),
            What::LineListener => self.accept(array),
            What::Lines | What::LineClient => self.receive(array, at),
            // A readiness that outlived its descriptor: nobody's any more.
            What::Lodger => {}
        }
    }

    fn tick(&mut self, array: &mut Array, at: usize) {
        let mut passed = [0; 8];
        let Ok(length) = read(&mut self.tick, &mut passed) else { return };
        array.entries[at].bytes_in += length as u64;
        self.ticks += u64::from_ne_bytes(passed);
        if self.ticks.is_multiple_of(TICKS_PER_LINE) {
            let text = format!("up {} s, {} turns of the loop", self.ticks, self.turns);
            self.line("tick", text);
        }
    }

    fn accept(&mut self, array: &mut Array) {
        while let Ok((stream, peer)) = self.listener.accept() {
            if self.inputs.len() < CLIENTS_MAX && stream.set_nonblocking(true).is_ok() {
                let client = OwnedFd::from(stream).into();
                self.read_from("tcp", client, array, What::LineClient, peer.to_string());
            }
        }
    }

    fn read_from(
        &mut self,
        from: &'static str,
        file: File,
        array: &mut Array,
        what: What,
        note: impl Into<String>,
    ) {
        array.add(file.as_raw_fd(), libc::POLLIN, what, note);
        self.inputs.insert(file.as_raw_fd(), Input { from, file, begun: Vec::new() });
    }

    /// Takes what an input has, one read; the array reports the rest.
    fn receive(&mut self, array: &mut Array, at: usize) {
        let fd = array.fds[at].fd;
        let mut bytes = [0; 4096];
        let Some(input) = self.inputs.get_mut(&fd) else { return };
        let from = input.from;
        let length = match read(&mut input.file, &mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => 0,
        };
        let lines = input.take(&bytes[..length]);
        let numbers = lines.into_iter().map(|text| self.line(from, text)).collect::<Vec<_>>();
        array.entries[at].bytes_in += length as u64;

        let mut ended = length == 0;
        if array.entries[at].what == What::LineClient {
            let answer = numbers.iter().map(|number| format!("ok {number}\n")).collect::<String>();
            let Some(input) = self.inputs.get_mut(&fd) else { return };
            // Answers are short; a client that does not even take those is not worth a queue.
            ended |= input.file.write_all(answer.as_bytes()).is_err();
            array.entries[at].bytes_out += answer.len() as u64;
        }
        if ended {
            array.remove(at);
            self.inputs.remove(&fd);
        }
    }

    /// Keeps a line; tells its number.
    fn line(&mut self, from: &'static str, text: String) -> u64 {
        let number = self.lines.back().map_or(1, |line| line.number + 1);
        self.lines.push_back(Line { number, from, text });
        if self.lines.len() > LINES_KEPT {
            self.lines.pop_front();
        }
        number
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        if let Some(path) = &self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Input {
    /// The lines that `bytes` complete. At the end of the input, what has begun is a line too.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.begun.push(byte);
            }
            if byte == b'\n' || self.begun.len() == LINE_MAX {
                lines.push(self.end_line());
            }
        }
        if bytes.is_empty() {
            lines.push(self.end_line());
        }
        lines.retain(|line| !line.is_empty());
        lines
    }

    fn end_line(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.begun).trim_end().to_owned();
        self.begun.clear();
        line
    }
}

/// One read, again if a signal came between.
fn read(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
