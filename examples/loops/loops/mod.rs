//! The loops that a program of lodger's can live in, each in a file of its own.

use lodger::Context;
use std::io;

mod calloop;
mod epoll;
#[cfg(feature = "glib")]
mod glib;
#[cfg(feature = "libuv")]
mod libuv;
mod mio;
mod poll;
mod polling;
mod single_fd;
mod tokio;

/// A way to run a program: takes the context and what is lent to its handlers, and returns when nothing is left to do.
pub(crate) type Run<D> = fn(Context<D>, D) -> io::Result<()>;

/// For a text that tells how a program is used.
pub(crate) const USAGE: &str = "\
--loop LOOP           the loop to live in (default poll):
                          poll        an array for poll(2)
                          epoll       epoll, or kqueue
                          single-fd   one descriptor for everything, in an array for poll(2)
                          polling     the polling crate
                          calloop     a source of a calloop loop
                          mio, tokio  one descriptor, edge-triggered
                          libuv       a guest of libuv (only with the feature `libuv`)
                          glib        a source of a glib main loop (only with the feature `glib`)";

/// A loop by its name.
pub(crate) fn named<D: 'static>(name: &str) -> Result<Run<D>, String> {
    let run: Run<D> = match name {
        "poll" => poll::run,
        "epoll" => epoll::run,
        "single-fd" => single_fd::run,
        "polling" => polling::run,
        "calloop" => calloop::run,
        "mio" => mio::run,
        "tokio" => tokio::run,
        #[cfg(feature = "libuv")]
        "libuv" => libuv::run,
        #[cfg(feature = "glib")]
        "glib" => glib::run,
        _ if matches!(name, "libuv" | "glib") => {
            return Err(format!(
                "{name} is a C library, and was left out: build with `-p lodger-examples-loops --features {name}`"
            ));
        }
        _ => return Err(format!("no such loop: {name}")),
    };
    Ok(run)
}
