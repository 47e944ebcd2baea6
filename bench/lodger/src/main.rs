//! lodger as it is measured: WebSocket echo, and one page by HTTP, with the same handlers in every loop.

mod guest;
mod single;

use lodger::{Context, Cx, Decision, Flow, Io, Limits, Listen, Request, Response, Site, http, raw, ws};
use std::error::Error;
use std::io;

const USAGE: &str = "\
usage: lodger [options] PORT
  --loop LOOP        poll, epoll, single-fd, guest-epoll or polling (default epoll)
  --content WHERE    the page comes from its `file` (default) or from `memory`
  --raw              echo bytes, without a protocol
  --tls CHAIN KEY    over TLS, with these files in PEM (program `lodger-tls` only)
  --provider NAME    its cryptography: aws-lc-rs (default) or ring";

const PAGE: &str = "www/index.html";

/// A way to run the server: takes the context, and returns when it is over.
type Run = fn(Context) -> io::Result<()>;

struct Options {
    run: Run,
    page: fn() -> Response,
    raw: bool,
    tls: Option<(String, String)>,
    ring: bool,
    port: u16,
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            std::process::exit(2);
        }
    };
    let mut context: Context = Context::new();
    let listen = Listen::tcp(([127, 0, 0, 1], options.port)).backlog(4096);
    if options.raw {
        context.io().listen_raw(listen, Limits::default(), |_, _, _| Some(Box::new(Echo)))?;
    } else {
        let page = options.page;
        let accept = move |request: &Request<'_>, _: &mut (), _: &mut Io| accept(request, page);
        let mut site = Site::new().protocol("", accept);
        let mut listen = listen;
        if let Some((chain, key)) = options.tls {
            (site, listen) = secured(site, listen, &chain, &key, options.ring)?;
        }
        let site = context.io().add_site(site)?;
        context.io().listen(listen, site)?;
    }
    (options.run)(context)?;
    Ok(())
}

#[cfg(feature = "tls")]
fn secured(
    site: Site<()>,
    listen: Listen,
    chain: &str,
    key: &str,
    ring: bool,
) -> Result<(Site<()>, Listen), Box<dyn Error>> {
    use lodger::tls::{Server, rustls::crypto};
    let provider =
        if ring { crypto::ring::default_provider() } else { crypto::aws_lc_rs::default_provider() };
    let server = Server::builder().certificate_files(chain, key).provider(provider.into()).build()?;
    Ok((site.tls(server), listen.tls()))
}

#[cfg(not(feature = "tls"))]
fn secured(_: Site<()>, _: Listen, _: &str, _: &str, _: bool) -> Result<(Site<()>, Listen), Box<dyn Error>> {
    Err("this program has no TLS: lodger-tls has".into())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { run: epoll, page: file, raw: false, tls: None, ring: false, port: 0 };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--loop" => options.run = named_loop(&value()?)?,
            "--content" => options.page = if value()? == "memory" { memory } else { file },
            "--raw" => options.raw = true,
            "--tls" => options.tls = Some((value()?, value()?)),
            "--provider" => options.ring = value()? == "ring",
            port => {
                options.port = port.parse().map_err(|_| format!("neither an option nor a port: {port}"))?
            }
        }
    }
    if options.port == 0 { Err("no port".into()) } else { Ok(options) }
}

fn named_loop(name: &str) -> Result<Run, String> {
    match name {
        "poll" => Ok(|mut context| lodger_poll::Loop::new().run(&mut context, &mut ())),
        "epoll" => Ok(epoll),
        "single-fd" => Ok(single::run),
        "guest-epoll" => Ok(guest::run),
        "polling" => Ok(|mut context| lodger_polling::Loop::new()?.run(&mut context, &mut ())),
        _ => Err(format!("no such loop: {name}")),
    }
}

fn epoll(mut context: Context) -> io::Result<()> {
    lodger_epoll::Loop::new()?.run(&mut context, &mut ())
}

fn accept(request: &Request<'_>, page: fn() -> Response) -> Decision<()> {
    match request.path() {
        _ if request.is_websocket() => Decision::websocket(Echo),
        "/index.html" => Decision::respond(page()),
        "/upload" => Decision::http(Upload),
        _ => Decision::respond(Response::text("Not here.\n").status(http::StatusCode::NOT_FOUND)),
    }
}

fn file() -> Response {
    Response::file(PAGE, "text/html").unwrap_or_else(|_| Response::new(http::StatusCode::NOT_FOUND))
}

fn memory() -> Response {
    Response::bytes("text/html", include_bytes!("../../www/index.html"))
}

/// Sends back what comes; a peer that does not read what it gets is not read from either.
struct Echo;

impl ws::Handler<()> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, ()>, message: ws::Message<'_>) {
        if cx.send(message) == Ok(Flow::Full) {
            wait_for_room(cx);
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, ()>) {
        cx.conn().resume();
    }
}

impl raw::Handler<()> for Echo {
    fn received(&mut self, cx: &mut Cx<'_, ()>, bytes: &[u8]) {
        if cx.write(bytes) == Ok(Flow::Full) {
            wait_for_room(cx);
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, ()>) {
        cx.conn().resume();
    }
}

/// Takes content and keeps nothing of it.
struct Upload;

impl http::Handler<()> for Upload {
    fn body_complete(&mut self, cx: &mut Cx<'_, ()>, _: &http::Fields) {
        let _ = cx.respond(Response::text("Thank you.\n"));
    }
}

fn wait_for_room(cx: &mut Cx<'_, ()>) {
    let mut conn = cx.conn();
    conn.pause();
    conn.request_writable();
}
