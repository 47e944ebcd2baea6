//! lodger in a glib main loop, beside a timer and a signal of the program's own: every page shows how long it runs and how many
//! messages came, and ^C says goodbye to them.
//!
//! ```sh
//! cargo run -p lodger-examples-loops --features glib --example glib          # and http://127.0.0.1:7681/ in a browser
//! ```
//!
//! Its port can be given as an argument.
//!
//! This is the right way in programs with glib's main loop, GTK and GStreamer among them: glib looks through all its
//! descriptors in each turn, so it gets one, however many connections there are. A small batch keeps frames on time.
//! Handlers must not run the main loop, and glib's callbacks are C's: a handler that panics ends the program.

use glib::{ControlFlow, IOCondition, MainLoop};
use lodger::{Context, Cx, Decision, Io, Listen, Request, Response, Site, ws};
use lodger_epoll::Single;
use std::cell::RefCell;
use std::error::Error;
use std::os::fd::AsRawFd;
use std::rc::Rc;

const PAGE: &str =
    "<!doctype html><meta charset=utf-8><title>glib</title><button>more</button><pre></pre><script>
const socket = new WebSocket(`ws://${location.host}/`);
socket.onmessage = event => document.querySelector('pre').append(event.data);
document.querySelector('button').onclick = () => socket.send('more');
</script>";

/// What handlers work on.
#[derive(Default)]
struct Count {
    messages: u64,
}

struct Page;

impl ws::Handler<Count> for Page {
    fn message(&mut self, cx: &mut Cx<'_, Count>, _: ws::Message<'_>) {
        cx.data.messages += 1;
    }
}

fn accept(request: &Request<'_>, _: &mut Count, _: &mut Io<Count>) -> Decision<Count> {
    if request.is_websocket() { Decision::websocket(Page) } else { Decision::respond(Response::html(PAGE)) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(7681), |port| port.parse::<u16>())?;
    let main_loop = MainLoop::new(None, false);

    // lodger: set up, and shared by the sources that use it.
    let mut context = Context::new();
    let site = context.io().add_site(Site::new().protocol("", accept))?;
    context.io().listen(Listen::tcp(([127, 0, 0, 1], port)), site)?;
    let pages = context.io().protocol(site, "").ok_or("the site has this protocol")?;
    let lodger = Single::new(context)?;
    let fd = lodger.as_raw_fd();
    let shared = Rc::new(RefCell::new((lodger, Count::default())));

    // lodger: its source. When nothing is left to serve, the program is over.
    let (quit, source) = (main_loop.clone(), Rc::clone(&shared));
    glib_unix::unix_fd_add_local(fd, IOCondition::IN, move |_, _| {
        let (lodger, count) = &mut *source.borrow_mut();
        match lodger.dispatch(64, count).and_then(|_| lodger.with(|io| io.link_count())) {
            Ok(0) => quit.quit(),
            Ok(_) => {}
            Err(error) => eprintln!("{error}; the next dispatch goes on"),
        }
        ControlFlow::Continue
    });

    // The program's own sources, which use lodger from outside.
    let (timer, mut seconds) = (Rc::clone(&shared), 0);
    glib::timeout_add_seconds_local(1, move || {
        let (lodger, count) = &mut *timer.borrow_mut();
        seconds += 1;
        let text = format!("{seconds} s, {} messages\n", count.messages);
        let told = lodger.with(|io| io.broadcast(pages, &io.encode(&*text)));
        told.map_or(ControlFlow::Break, |_| ControlFlow::Continue)
    });
    glib_unix::unix_signal_add_local_once(libc::SIGINT, move || {
        let _ = shared.borrow_mut().0.with(|io| io.shutdown(ws::CloseCode::GOING_AWAY));
    });
    main_loop.run();
    Ok(())
}
