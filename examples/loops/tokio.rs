//! lodger in a tokio runtime of one thread, beside a task that does something else: it counts, and every page shows how far.
//!
//! ```sh
//! cargo run -p lodger-examples-loops --example tokio          # and http://127.0.0.1:7681/ in a browser
//! ```
//!
//! Its port can be given as an argument.
//!
//! This is the right way when the program is on tokio for other reasons, and its thread has time for lodger. The future is not
//! `Send`: it goes to `block_on`, or to `spawn_local` in a `LocalSet`. Other tasks, in whatever thread, come in by `Remote`.
//! Where the runtime's threads are busy, give lodger one of its own with `lodger_epoll::Loop`; `Remote` stays the same.

use lodger::{Context, Decision, Io, Listen, PostError, ProtocolId, Remote, Request, Response, Site, ws};
use lodger_epoll::Single;
use std::error::Error;
use std::io;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

const PAGE: &str = "<!doctype html><meta charset=utf-8><title>tokio</title><pre></pre><script>
new WebSocket(`ws://${location.host}/`).onmessage = event => document.querySelector('pre').append(event.data);
</script>";

/// A page only listens.
struct Page;

impl ws::Handler<()> for Page {}

fn accept(request: &Request<'_>, _: &mut (), _: &mut Io) -> Decision<()> {
    if request.is_websocket() { Decision::websocket(Page) } else { Decision::respond(Response::html(PAGE)) }
}

/// The task that does something else.
async fn count(remote: Remote<()>, pages: ProtocolId) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for second in 0_u64.. {
        seconds.tick().await;
        let text = format!("{second}\n");
        // lodger: reached from a task, as from any other thread.
        let told = remote.broadcast(pages, ws::Shared::new(ws::Message::Text(&text)));
        if matches!(told, Err(PostError::Gone(()))) {
            return;
        }
    }
}

/// lodger: a future that goes on until nothing is left to serve.
async fn serve(context: Context) -> io::Result<()> {
    let lodger = Single::new(context)?.edge_triggered();
    // SAFETY: it keeps its one descriptor open as long as it lives, and nobody puts another in its place.
    let mut lodger = unsafe { AsyncFd::register_with_interest(lodger, Interest::READABLE)? };
    while lodger.get_mut().with(|io| io.link_count())? > 0 {
        let mut ready = lodger.readable_mut().await?;
        // Before the dispatch, which may leave something and make a new edge for it.
        ready.clear_ready();
        ready.get_inner_mut().dispatch(256, &mut ())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(7681), |port| port.parse::<u16>())?;
    let mut context: Context = Context::new();
    let site = context.io().add_site(Site::new().protocol("", accept))?;
    context.io().listen(Listen::tcp(([127, 0, 0, 1], port)), site)?;
    let pages = context.io().protocol(site, "").ok_or("the site has this protocol")?;
    let remote = context.remote()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.spawn(count(remote, pages));
    Ok(runtime.block_on(serve(context))?)
}
