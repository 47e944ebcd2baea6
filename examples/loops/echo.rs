//! The echo server that test suites run against: WebSocket on every path, and an HTTP origin that answers `GET /` and
//! returns what is posted to it.

mod loops;

use lodger::ws::Deflate;
use lodger::{
    Conn, Context, Cx, Decision, Flow, Io, Limits, Listen, Origins, Request, Response, Site, http, tls, ws,
};
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

const USAGE: &str = "\
--listen ADDR         address and port, or unix:PATH (default 127.0.0.1:9001; port 0 for any)
  --tls-cert FILE       speak TLS with this certificate chain, in PEM; needs --tls-key
  --tls-key FILE        its private key, in PEM
  --tls-self-signed     speak TLS with a certificate made for this run, for localhost
  --max-message BYTES   longest message (default 16777216)
  --streamed            echo fragments as they come, not whole messages
  --deflate[=OPTIONS]   compress messages with clients that offer it; of these, with commas between:
                          level=1..9  threshold=BYTES  mem_level=1..9
                          server_context_takeover  client_context_takeover
                          server_max_window_bits=8..15  client_max_window_bits=8..15";

/// What the command line says.
struct Options {
    listen: Place,
    tls: Option<tls::Server>,
    run: loops::Run<()>,
    max_message: usize,
    streamed: bool,
    deflate: Option<Deflate>,
}

enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\nusage: echo [options]\n  {}\n  {USAGE}", loops::USAGE);
            std::process::exit(2);
        }
    };
    let mut context: Context = Context::new();
    let streamed = options.streamed;
    let limits = Limits { message: options.max_message, ..Limits::default() };
    let accept = move |request: &Request<'_>, _: &mut (), _: &mut Io| accept(request, streamed);
    let mut site = Site::new().protocol("echo", accept).origins(Origins::Any).limits(limits);
    if let Some(deflate) = options.deflate {
        site = site.deflate(deflate);
    }
    let mut listen = match options.listen {
        Place::Tcp(address) => Listen::tcp(address),
        Place::Unix(path) => Listen::unix(path),
    };
    if let Some(tls) = options.tls {
        site = site.tls(tls);
        listen = listen.tls();
    }
    let site = context.io().add_site(site)?;
    let listener = context.io().listen(listen, site)?;
    if let Some(address) = context.io().local_addr(listener) {
        println!("listening on {address}");
    }
    (options.run)(context, ())?;
    Ok(())
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9001));
    let mut options = Options {
        listen: Place::Tcp(default),
        tls: None,
        run: loops::named("poll")?,
        max_message: Limits::default().message,
        streamed: false,
        deflate: None,
    };
    let mut arguments = arguments;
    let (mut chain, mut key) = (None, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--listen" => options.listen = place(&value()?)?,
            "--loop" => options.run = loops::named(&value()?)?,
            "--tls-cert" => chain = Some(value()?),
            "--tls-key" => key = Some(value()?),
            "--tls-self-signed" => options.tls = Some(self_signed().map_err(|error| error.to_string())?),
            "--max-message" => options.max_message = value()?.parse().map_err(|_| "not a number of bytes")?,
            "--streamed" => options.streamed = true,
            "--deflate" => options.deflate = Some(Deflate::default()),
            other if other.starts_with("--deflate=") => {
                options.deflate = Some(deflate(&other["--deflate=".len()..])?);
            }
            other => return Err(format!("no such option: {other}")),
        }
    }
    match (chain, key) {
        (Some(chain), Some(key)) => {
            let server = tls::Server::from_pem_files(chain, key).map_err(|error| error.to_string())?;
            options.tls = Some(server);
        }
        (None, None) => {}
        _ => return Err("--tls-cert and --tls-key go together".into()),
    }
    Ok(options)
}

fn deflate(options: &str) -> Result<Deflate, String> {
    let mut deflate = Deflate::default();
    for option in options.split(',') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = || value.parse::<usize>().map_err(|_| format!("not a number: {option}"));
        let small = || value.parse::<u8>().map_err(|_| format!("not a number up to 255: {option}"));
        match name {
            "level" => deflate.level = small()?,
            "threshold" => deflate.threshold = number()?,
            "mem_level" => deflate.mem_level = small()?,
            "server_context_takeover" => deflate.server_no_context_takeover = false,
            "client_context_takeover" => deflate.client_no_context_takeover = false,
            "server_max_window_bits" => deflate.server_max_window_bits = small()?,
            "client_max_window_bits" => deflate.client_max_window_bits = small()?,
            _ => return Err(format!("no such option of --deflate: {option}")),
        }
    }
    Ok(deflate)
}

/// A certificate that nobody has reason to trust, for trying things out.
fn self_signed() -> Result<tls::Server, Box<dyn Error>> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok(tls::Server::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())?)
}

fn place(text: &str) -> Result<Place, String> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(Place::Unix(path.into())),
        None => text.parse().map(Place::Tcp).map_err(|_| format!("not an address and port: {text}")),
    }
}

fn accept(request: &Request<'_>, streamed: bool) -> Decision<()> {
    if request.is_websocket() {
        return if streamed { Decision::websocket(Streamed) } else { Decision::websocket(Whole) };
    }
    match request.method() {
        "GET" | "HEAD" => {
            Decision::respond(Response::text("An echo server: open a WebSocket, or post something.\n"))
        }
        "POST" => Decision::http(Mirror {
            content_type: request.text("content-type").map(str::to_owned),
            content: Vec::new(),
        }),
        "OPTIONS" => Decision::respond(Response::text("").field("Allow", "GET, HEAD, POST, OPTIONS")),
        _ => {
            let refused = Response::text("Not here.\n").status(http::StatusCode::METHOD_NOT_ALLOWED);
            Decision::respond(refused.field("Allow", "GET, HEAD, POST, OPTIONS"))
        }
    }
}

/// Sends each message back when it is there.
struct Whole;

impl ws::Handler<()> for Whole {
    fn message(&mut self, cx: &mut Cx<'_, ()>, message: ws::Message<'_>) {
        if cx.send(message) == Ok(Flow::Full) {
            wait_for_room(cx.conn());
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, ()>) {
        cx.conn().resume();
    }
}

/// Sends fragments back as they come.
struct Streamed;

impl ws::Handler<()> for Streamed {
    fn receive(&self) -> ws::Receive {
        ws::Receive::Pieces
    }

    fn piece(&mut self, cx: &mut Cx<'_, ()>, piece: ws::Piece<'_>) {
        if cx.conn().send_piece(piece.kind, piece.payload, piece.last) == Ok(Flow::Full) {
            wait_for_room(cx.conn());
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, ()>) {
        cx.conn().resume();
    }
}

/// A peer that does not read what it gets is not read from either.
fn wait_for_room(mut conn: Conn<'_, ()>) {
    conn.pause();
    conn.request_writable();
}

/// Sends the content of a request back.
struct Mirror {
    content_type: Option<String>,
    content: Vec<u8>,
}

/// Content is kept until all of it is there, so there is a bound.
const CONTENT: usize = 16 * 1024 * 1024;

impl http::Handler<()> for Mirror {
    fn body(&mut self, cx: &mut Cx<'_, ()>, piece: &[u8]) {
        if self.content.len() + piece.len() > CONTENT {
            let too_large = Response::text("Too large.\n").status(http::StatusCode::CONTENT_TOO_LARGE);
            let _ = cx.respond(too_large.close());
        } else {
            self.content.extend_from_slice(piece);
        }
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, ()>, _trailers: &http::Fields) {
        let content_type = self.content_type.as_deref().unwrap_or("application/octet-stream");
        let content = std::mem::take(&mut self.content);
        let _ = cx.respond(Response::bytes(content_type, content));
    }
}
