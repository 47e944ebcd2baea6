//! A window and a web page in one calloop loop: what is typed and drawn in the page appears in the window, and what the
//! pointer and the keyboard do in the window appears in the page.
//!
//! ```text
//! cargo run --release -p lodger-examples-wayland          # and http://127.0.0.1:7682/ in a browser
//! ```
//!
//! - `--listen ADDR`: where the page is, 127.0.0.1:7682 unless given; port 0 takes a free one
//!
//! lodger's handlers get the loop's own data, [`App`], lent, as the window's callbacks do. So both sides simply change it:
//! there is no `Rc`, no `RefCell`, no channel and no thread. Three files have the rest: `window.rs` is the Wayland client,
//! `web.rs` what lodger serves, and `paint.rs` puts pixels into shared memory.

mod paint;
mod web;
mod window;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use calloop::EventLoop;
use calloop::signals::{Signal, Signals};

use web::{Board, Pages};
use window::Window;

/// The data of the loop: everything there is.
struct App {
    /// What the pages have sent, and the window shows.
    board: Board,
    window: Window,
    pages: Pages,
    /// Set by the window's close button, SIGINT and SIGTERM.
    closing: bool,
}

fn run(listen: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut event_loop: EventLoop<'static, App> = EventLoop::try_new()?;
    let handle = event_loop.handle();

    // The loop's sources: the window, signals, and lodger.
    let window = Window::open(&handle)?;
    let signals = Signals::new(&[Signal::SIGINT, Signal::SIGTERM])?;
    handle.insert_source(signals, |_, _, app: &mut App| app.closing = true)?;
    let (context, address, protocol) = web::open(listen)?;
    let lodger = lodger_calloop::insert(&handle, context)?;
    println!("listening on {address}");

    let pages = Pages::new(lodger.clone(), protocol, address);
    let mut app = App { board: Board::default(), window, pages, closing: false };
    while !app.closing {
        event_loop.dispatch(None, &mut app)?;
        app.redraw()?;
    }

    // lodger says goodbye to the pages; the loop would be free to go on without it.
    lodger.leave(&handle, &mut app);
    Ok(())
}

fn listen_address(mut args: impl Iterator<Item = String>) -> Result<SocketAddr, Box<dyn Error>> {
    match (args.next().as_deref(), args.next(), args.next()) {
        (None, None, None) => Ok(([127, 0, 0, 1], 7682).into()),
        (Some("--listen"), Some(address), None) => Ok(address.parse()?),
        _ => Err("there is only --listen ADDR".into()),
    }
}

fn main() -> ExitCode {
    match listen_address(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wayland: {error}");
            ExitCode::FAILURE
        }
    }
}
