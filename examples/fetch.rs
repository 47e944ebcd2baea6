//! Gets what is at a URL, to standard output or a file: an HTTP client that reads no faster than its output takes.
//!
//! ```text
//! cargo run --example fetch -- https://example.com/ -o page.html
//! ```

use lodger::http::{ClientHandler, ClientRequest, Fields, ResponseHead};
use lodger::{CloseReason, Closed, ConnId, Connect, Context, Cx, Interest, Io, Proxy, fd, tls};
use lodger_poll::Loop;
use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: fetch [options] URL
  -o FILE                 write the content to this file, instead of to standard output
  --method METHOD         ask by this method (default GET, or POST with --data)
  --data DATA             send this, as a form does unless a header says otherwise
  --header 'NAME: VALUE'  add a field to the request
  --proxy URL             connect through a proxy: http://[user:password@]host:port, or socks5://
  --ca FILE               trust the certificates in this file, in PEM, instead of the system's roots
  --insecure              trust any certificate: whoever is on the way can read and change everything
Exit status: 0 the content is there; 1 it is not, or not all of it; 2 usage; 3 the server answered 400 or more; 4 the output
could not be written.";

const INCOMPLETE: u8 = 1;
const REFUSED: u8 = 3;
const NOT_WRITTEN: u8 = 4;

/// How many bytes wait for the output until the server has to.
const ROOM: usize = 64 * 1024;

/// What the program's handlers get lent.
struct Fetch {
    /// The file to be made.
    path: Option<PathBuf>,
    output: Output,
    /// The connection to the server.
    conn: Option<ConnId>,
    complete: bool,
    progress: Option<Progress>,
    status: u8,
}

enum Output {
    /// The server has not answered yet.
    None,
    /// It takes what it is given; there is nothing that a loop could wait for.
    File(File),
    /// What else standard output may be: a terminal, a pipe.
    Stream { conn: ConnId, waiting: Vec<u8> },
}

impl Fetch {
    fn open(&mut self, io: &mut Io<Self>) -> io::Result<()> {
        let descriptor = match &self.path {
            Some(path) => File::create(path)?.into(),
            None => standard_output()?,
        };
        let file = File::from(descriptor);
        self.output = if file.metadata()?.is_file() {
            Output::File(file)
        } else {
            let adopted = io.adopt(file.into(), Interest::WRITE, Box::new(Stream));
            let conn = adopted.map_err(io::Error::other)?;
            Output::Stream { conn, waiting: Vec::new() }
        };
        Ok(())
    }

    /// Takes content, and says whether there is room for more.
    fn write(&mut self, piece: &[u8], io: &mut Io<Self>) -> io::Result<bool> {
        match &mut self.output {
            Output::None => Ok(true),
            Output::File(file) => file.write_all(piece).map(|()| true),
            Output::Stream { conn, waiting } => {
                waiting.extend_from_slice(piece);
                if let Some(mut conn) = io.conn(*conn) {
                    conn.request_writable();
                }
                Ok(waiting.len() < ROOM)
            }
        }
    }

    fn fail(&mut self, status: u8, what: impl fmt::Display) {
        if let Some(progress) = self.progress.take() {
            progress.end();
        }
        eprintln!("fetch: {what}");
        self.status = status;
    }
}

/// The exchange with the server.
struct Exchange;

impl ClientHandler<Fetch> for Exchange {
    fn response(&mut self, cx: &mut Cx<'_, Fetch>, response: &ResponseHead<'_>) {
        let status = response.status();
        if status.code() >= 400 {
            cx.data.fail(REFUSED, format_args!("the server answered {status}"));
        }
        if let Some(progress) = &mut cx.data.progress {
            progress.total = response.content_length();
        }
        if let Err(error) = cx.data.open(cx.io) {
            cx.data.fail(NOT_WRITTEN, format_args!("the output cannot be opened: {error}"));
            cx.conn().abort();
        }
    }

    fn body(&mut self, cx: &mut Cx<'_, Fetch>, piece: &[u8]) {
        if let Some(progress) = &mut cx.data.progress {
            progress.advance(piece.len(), cx.io.now());
        }
        match cx.data.write(piece, cx.io) {
            Ok(true) => {}
            Ok(false) => cx.conn().pause(),
            Err(error) => {
                cx.data.fail(NOT_WRITTEN, format_args!("the output cannot be written: {error}"));
                cx.conn().abort();
            }
        }
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, Fetch>, _trailers: &Fields) {
        cx.data.complete = true;
        if let Some(progress) = &mut cx.data.progress {
            progress.draw(cx.io.now());
        }
        cx.close();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Fetch>, closed: Closed) {
        cx.data.conn = None;
        if !cx.data.complete && cx.data.status != NOT_WRITTEN {
            cx.data.fail(INCOMPLETE, closed.reason);
        }
        if let Some(progress) = cx.data.progress.take() {
            progress.end();
        }
        if let Output::Stream { conn, waiting } = &cx.data.output
            && waiting.is_empty()
            && let Some(mut stream) = cx.io.conn(*conn)
        {
            stream.close();
        }
    }
}

/// Standard output, where it may have to be waited for.
struct Stream;

impl fd::Handler<Fetch> for Stream {
    fn writable(&mut self, cx: &mut Cx<'_, Fetch>, fd: BorrowedFd<'_>) {
        let Output::Stream { waiting, .. } = &mut cx.data.output else { return };
        match fd::write(fd, waiting) {
            Ok(written) => drop(waiting.drain(..written)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                cx.data.fail(NOT_WRITTEN, format_args!("the output cannot be written: {error}"));
                return cx.close();
            }
        }
        let left = waiting.len();
        match cx.data.conn.and_then(|conn| cx.io.conn(conn)) {
            Some(mut server) if left < ROOM => server.resume(),
            None if left == 0 => return cx.close(),
            _ => {}
        }
        if left > 0 {
            cx.conn().request_writable();
        }
    }

    /// Nobody reads any more, or the system refuses: the content is of no use.
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Fetch>, closed: Closed) {
        let Output::Stream { waiting, .. } = &cx.data.output else { return };
        let left = !waiting.is_empty() || cx.data.conn.is_some();
        if left && cx.data.status != NOT_WRITTEN {
            let why = match closed.reason {
                CloseReason::Host(error) => error.to_string(),
                _ => "nobody reads it".to_owned(),
            };
            cx.data.fail(NOT_WRITTEN, format_args!("the output cannot be written: {why}"));
        }
        if let Some(mut server) = cx.data.conn.and_then(|conn| cx.io.conn(conn)) {
            server.abort();
        }
    }
}

/// Standard output, opened anew if that can be done: a descriptor of its own is made non-blocking then, and not the one that the
/// shell and its other programs share.
fn standard_output() -> io::Result<OwnedFd> {
    let shared = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // A file would begin anew.
    if shared.metadata()?.is_file() {
        return Ok(shared.into());
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let own = OpenOptions::new().write(true).custom_flags(flags).open("/dev/stdout");
    // A socket cannot be opened.
    Ok(own.unwrap_or(shared).into())
}

/// A line on the terminal that tells how far it is.
struct Progress {
    began: Instant,
    drawn: Option<Instant>,
    received: u64,
    total: Option<u64>,
}

impl Progress {
    fn advance(&mut self, bytes: usize, now: Instant) {
        self.received += bytes as u64;
        if self.drawn.is_none_or(|drawn| now.saturating_duration_since(drawn) >= Duration::from_millis(100)) {
            self.draw(now);
        }
    }

    fn draw(&mut self, now: Instant) {
        const WIDTH: u64 = 30;
        self.drawn = Some(now);
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        let rate = Bytes(if seconds > 0.0 { self.received as f64 / seconds } else { 0.0 });
        let received = Bytes(self.received as f64);
        let line = match self.total.filter(|total| *total > 0) {
            Some(total) => {
                let part =
                    |whole: u64| (u128::from(self.received) * u128::from(whole) / u128::from(total)) as usize;
                let (done, all) = (part(WIDTH), Bytes(total as f64));
                let (bar, rest) = ("#".repeat(done), ".".repeat(WIDTH as usize - done));
                format!("[{bar}{rest}] {:3} %  {received} of {all}, {rate}/s", part(100))
            }
            None => format!("{received}, {rate}/s"),
        };
        // The cursor is at the left, and what was there before is erased.
        eprint!("\r{line}\x1b[K");
    }

    fn end(self) {
        if self.drawn.is_some() {
            eprintln!();
        }
    }
}

/// A number of bytes, for people.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            small if small < 1024.0 => write!(f, "{small:.0} B"),
            some if some < 1024.0 * 1024.0 => write!(f, "{:.1} KiB", some / 1024.0),
            many => write!(f, "{:.1} MiB", many / (1024.0 * 1024.0)),
        }
    }
}

struct Options {
    connect: Connect,
    request: ClientRequest,
    path: Option<PathBuf>,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let (mut url, mut path, mut method, mut data, mut proxy, mut trust) =
        (None, None, None, None, None, None);
    let mut fields = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "-o" => path = Some(value()?.into()),
            "--method" => method = Some(value()?),
            "--data" => data = Some(value()?),
            "--header" => {
                let header = value()?;
                let (name, text) = header.split_once(':').ok_or("a header is a name, a colon and a value")?;
                fields.push((name.to_owned(), text.trim().to_owned()));
            }
            "--proxy" => proxy = Some(value()?.parse::<Proxy>()?),
            "--ca" => trust = Some(tls::Client::builder().roots_file(value()?)),
            "--insecure" => trust = Some(tls::Client::builder().dangerous().accept_any_certificate()),
            other if other.starts_with('-') => return Err(format!("no such option: {other}").into()),
            other => url = Some(other.to_owned()),
        }
    }
    let mut connect = Connect::to(url.ok_or("what to get? a URL is missing")?);
    if let Some(proxy) = proxy {
        connect = connect.proxy(proxy);
    }
    if let Some(trust) = trust {
        connect = connect.tls(trust.build()?);
    }
    let default = if data.is_some() { "POST" } else { "GET" };
    let mut request = ClientRequest::new(method.as_deref().unwrap_or(default));
    let is_type = |(name, _): &(String, String)| name.eq_ignore_ascii_case("Content-Type");
    if data.is_some() && !fields.iter().any(is_type) {
        request = request.field("Content-Type", "application/x-www-form-urlencoded");
    }
    if let Some(data) = data {
        request = request.content(data.into_bytes());
    }
    for (name, text) in &fields {
        request = request.field(name, text);
    }
    Ok(Options { connect, request, path })
}

fn run(options: Options) -> io::Result<u8> {
    let mut context: Context<Fetch> = Context::new();
    let conn = context.io().connect_http(options.connect, options.request, Box::new(Exchange));
    // It would mix with the content.
    let shown = io::stderr().is_terminal() && (options.path.is_some() || !io::stdout().is_terminal());
    let progress = Progress { began: context.io().now(), drawn: None, received: 0, total: None };
    let mut fetch = Fetch {
        path: options.path,
        output: Output::None,
        conn: Some(conn),
        complete: false,
        progress: shown.then_some(progress),
        status: 0,
    };
    Loop::new().run(&mut context, &mut fetch)?;
    Ok(fetch.status)
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("fetch: {error}");
            ExitCode::from(INCOMPLETE)
        }
    }
}
