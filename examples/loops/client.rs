//! A WebSocket client for the terminal: standard input is one more descriptor in the loop, and its lines are sent as text.
//!
//! ```text
//! cargo run --example client -- wss://example.com/chat
//! ```

mod loops;

use lodger::client::Backoff;
use lodger::http::ResponseHead;
use lodger::ws::{self, CloseFrame, Deflate, Message};
use lodger::{By, CloseReason, Closed, ConnId, Connect, Context, Cx, Flow, Interest, Io, Proxy, fd, tls};
use std::cell::Cell;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

const USAGE: &str = "\
--header 'NAME: VALUE'  add a field to the opening handshake
  --subprotocol NAME    offer a subprotocol; the best first
  --origin ORIGIN       say where the page is that a browser would show
  --deflate             offer compression
  --proxy URL           connect through a proxy: http://[user:password@]host:port, or socks5://
  --ca FILE             trust the certificates in this file, in PEM, instead of the system's roots
  --insecure            trust any certificate: whoever is on the way can read and change everything
  --timeout SECONDS     how long connecting may take (default 5)
  --reconnect           connect again when the connection is lost, or cannot be made for now
  -v                    show pings, pongs and what was agreed on
Lines are sent as text, those that are not UTF-8 as binary messages. Ctrl-D closes.";

/// The longest line that is sent.
const LINE: usize = 1024 * 1024;

/// What the program's handlers get lent.
struct Client {
    connect: Connect,
    /// The connection, or the one that is being made.
    conn: ConnId,
    /// Standard input, until its end.
    input: Option<ConnId>,
    backoff: Option<Backoff>,
    verbose: bool,
    failed: Rc<Cell<bool>>,
}

impl Client {
    /// Reads on, or lets standard input wait, as the connection takes it.
    fn read_input(&self, io: &mut Io<Self>, on: bool) {
        let Some(mut input) = self.input.and_then(|input| io.conn(input)) else { return };
        if on { input.resume() } else { input.pause() }
    }

    fn remark(&self, remark: &str) {
        if self.verbose {
            eprintln!("{remark}");
        }
    }
}

/// The connection.
struct Talk;

impl ws::Handler<Client> for Talk {
    fn connected(&mut self, cx: &mut Cx<'_, Client>, response: &ResponseHead<'_>) -> bool {
        let now = cx.io.now();
        if let Some(backoff) = &mut cx.data.backoff {
            backoff.opened(now);
        }
        eprintln!("connected; Ctrl-D closes");
        for name in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
            if let Some(agreed) = response.text(name) {
                cx.data.remark(&format!("{name}: {agreed}"));
            }
        }
        if let Some(facts) = cx.conn().tls() {
            cx.data.remark(&format!("{facts:?}"));
        }
        cx.data.read_input(cx.io, true);
        true
    }

    fn message(&mut self, _cx: &mut Cx<'_, Client>, message: Message<'_>) {
        match message {
            Message::Text(text) => show(&format!("< {}", harmless(text))),
            Message::Binary(bytes) => show(&format!("< {} bytes{}", bytes.len(), dump(bytes))),
        }
    }

    fn ping(&mut self, cx: &mut Cx<'_, Client>, payload: &[u8]) {
        cx.data.remark(&format!("ping {}", payload.escape_ascii()));
    }

    fn pong(&mut self, cx: &mut Cx<'_, Client>, payload: &[u8]) {
        cx.data.remark(&format!("pong {}", payload.escape_ascii()));
    }

    fn peer_closed(&mut self, cx: &mut Cx<'_, Client>, _close: Option<CloseFrame<'_>>) {
        cx.data.read_input(cx.io, false);
    }

    fn writable(&mut self, cx: &mut Cx<'_, Client>) {
        cx.data.read_input(cx.io, true);
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Client>, closed: Closed) {
        match &closed.reason {
            CloseReason::Handshake { reason, .. } if !reason.is_empty() => {
                eprintln!("{}: {}", closed.reason, harmless(reason));
            }
            reason => eprintln!("{reason}"),
        }
        cx.data.read_input(cx.io, false);
        let client = &mut *cx.data;
        if let Some(backoff) = &mut client.backoff
            && client.input.is_some()
            && closed.reason.is_transient()
        {
            let delay = cx.io.next_delay(backoff);
            eprintln!("connecting again in {:.1} s", delay.as_secs_f64());
            client.conn = cx.io.connect(client.connect.clone().after(delay), self);
            return;
        }
        client.failed.set(client.failed.get() || !is_good(&closed.reason));
        if let Some(mut input) = client.input.and_then(|input| cx.io.conn(input)) {
            input.close();
        }
    }
}

/// Whether both sides have said that they are done.
fn is_good(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Handshake { by: By::Us, .. } => true,
        CloseReason::Handshake { by: By::Peer, code, .. } => code.is_none_or(|code| code.get() <= 1001),
        _ => false,
    }
}

/// Standard input, and the line that has not ended yet.
#[derive(Default)]
struct Input {
    line: Vec<u8>,
}

impl Input {
    fn take(&mut self, bytes: &[u8], cx: &mut Cx<'_, Client>) {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let rest = lines.next_back().unwrap_or_default();
        for end in lines {
            self.line.extend_from_slice(end);
            self.send(cx);
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > LINE {
            eprintln!("a line is longer than {LINE} bytes");
            self.line.clear();
            cx.data.failed.set(true);
            self.end(cx);
        }
    }

    fn send(&mut self, cx: &mut Cx<'_, Client>) {
        let Some(mut conn) = cx.io.conn(cx.data.conn) else { return };
        let message = match std::str::from_utf8(&self.line) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(&self.line),
        };
        match conn.send(message) {
            Ok(Flow::Ready) => {}
            Ok(Flow::Full) => {
                conn.request_writable();
                cx.data.read_input(cx.io, false);
            }
            Err(error) => {
                eprintln!("not sent: {error}");
                cx.data.failed.set(true);
            }
        }
        self.line.clear();
    }

    /// Nothing more comes from here: the closing handshake begins, and the connection ends when the peer has answered.
    fn end(&mut self, cx: &mut Cx<'_, Client>) {
        if !self.line.is_empty() {
            self.send(cx);
        }
        if let Some(mut conn) = cx.io.conn(cx.data.conn) {
            conn.close();
        }
        cx.close();
    }
}

impl fd::Handler<Client> for Input {
    fn readable(&mut self, cx: &mut Cx<'_, Client>, fd: BorrowedFd<'_>) {
        let mut buffer = [0; 4096];
        match fd::read(fd, &mut buffer) {
            Ok(0) => self.end(cx),
            Ok(read) => self.take(&buffer[..read], cx),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                eprintln!("standard input: {error}");
                cx.data.failed.set(true);
                self.end(cx);
            }
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Client>, closed: Closed) {
        cx.data.input = None;
        if let CloseReason::Host(error) = closed.reason {
            eprintln!("standard input cannot be watched by this loop: {error}");
            cx.data.failed.set(true);
            if let Some(mut conn) = cx.io.conn(cx.data.conn) {
                conn.close();
            }
        }
    }
}

/// Standard input, opened anew if that can be done: a descriptor of its own is made non-blocking then, and not the one that the
/// shell, its other programs and our own output share.
fn standard_input() -> io::Result<OwnedFd> {
    let own =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/dev/stdin");
    match own {
        Ok(own) if own.metadata()?.file_type().is_char_device() || own.metadata()?.file_type().is_fifo() => {
            Ok(own.into())
        }
        // A file would begin anew, and a socket cannot be opened.
        _ => io::stdin().as_fd().try_clone_to_owned(),
    }
}

/// What a peer says is not for the terminal to obey.
fn harmless(text: &str) -> String {
    let keep = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if keep(c) {
            out.push(c)
        } else {
            out.extend(c.escape_default())
        }
        out
    })
}

fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (row, bytes) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "\n  {:08x} ", row * 16);
        for at in 0..16 {
            let _ = match bytes.get(at) {
                Some(byte) => write!(out, " {byte:02x}"),
                None => write!(out, "   "),
            };
        }
        let shown =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let _ = write!(out, "  {}", bytes.iter().map(shown).collect::<String>());
    }
    out
}

/// Nobody may read any more; then nothing is shown.
fn show(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

struct Options {
    connect: Connect,
    run: loops::Run<Client>,
    backoff: Option<Backoff>,
    verbose: bool,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut url = None;
    let mut with: Vec<Box<dyn FnOnce(Connect) -> Connect>> = Vec::new();
    let (mut run, mut backoff, mut verbose) = (loops::named("poll")?, None, false);
    let mut trust = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--loop" => run = loops::named(&value()?)?,
            "--header" => {
                let header = value()?;
                let (name, text) = header.split_once(':').ok_or("a header is a name, a colon and a value")?;
                let (name, text) = (name.to_owned(), text.trim().to_owned());
                with.push(Box::new(move |connect| connect.field(&name, &text)));
            }
            "--subprotocol" => {
                let name = value()?;
                with.push(Box::new(move |connect| connect.subprotocol(&name)));
            }
            "--origin" => {
                let origin = value()?;
                with.push(Box::new(move |connect| connect.origin(&origin)));
            }
            "--deflate" => with.push(Box::new(|connect| connect.deflate(Deflate::default()))),
            "--proxy" => {
                let proxy: Proxy = value()?.parse()?;
                with.push(Box::new(|connect| connect.proxy(proxy)));
            }
            "--ca" => trust = Some(tls::Client::builder().roots_file(value()?)),
            "--insecure" => trust = Some(tls::Client::builder().dangerous().accept_any_certificate()),
            "--timeout" => {
                let timeout = Duration::try_from_secs_f64(value()?.parse()?)?;
                with.push(Box::new(move |connect| connect.timeout(timeout)));
            }
            "--reconnect" => backoff = Some(Backoff::default()),
            "-v" => verbose = true,
            other if other.starts_with('-') => return Err(format!("no such option: {other}").into()),
            other => url = Some(other.to_owned()),
        }
    }
    let mut connect = Connect::to(url.ok_or("where to? a URL is missing")?);
    for with in with {
        connect = with(connect);
    }
    if let Some(trust) = trust {
        connect = connect.tls(trust.build()?);
    }
    Ok(Options { connect, run, backoff, verbose })
}

fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let mut context: Context<Client> = Context::new();
    let io = context.io();
    let input = io.adopt(standard_input()?, Interest::READ, Box::new(Input::default()))?;
    // Until there is somebody to send its lines to.
    if let Some(mut input) = io.conn(input) {
        input.pause();
    }
    let conn = io.connect(options.connect.clone(), Box::new(Talk));
    let failed = Rc::new(Cell::new(false));
    let client = Client {
        connect: options.connect,
        conn,
        input: Some(input),
        backoff: options.backoff,
        verbose: options.verbose,
        failed: Rc::clone(&failed),
    };
    (options.run)(context, client)?;
    Ok(!failed.get())
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\nusage: client [options] URL\n  {}\n  {USAGE}", loops::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::FAILURE
        }
    }
}
