//! Adopted descriptors: pipes, FIFOs, serial lines, terminals, timers, whatever can be polled. The application reads and
//! writes them; lodger has them watched beside its own and calls.
//!
//! ```
//! use lodger::{Context, Cx, Interest, fd};
//! use std::os::fd::BorrowedFd;
//!
//! struct Bytes;
//!
//! impl fd::Handler<Vec<u8>> for Bytes {
//!     fn readable(&mut self, cx: &mut Cx<'_, Vec<u8>>, fd: BorrowedFd<'_>) {
//!         let mut buffer = [0; 512];
//!         match fd::read(fd, &mut buffer) {
//!             Ok(0) => cx.close(),
//!             Ok(read) => cx.data.extend_from_slice(&buffer[..read]),
//!             Err(_) => {}
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (reader, _writer) = std::io::pipe()?;
//! let mut context: Context<Vec<u8>> = Context::new();
//! context.io().adopt(reader.into(), Interest::READ, Box::new(Bytes))?;
//! # context.abandon();
//! # Ok(())
//! # }
//! ```

use crate::context::Cx;
use crate::handler::Closed;
use crate::ids::ConnId;
use std::any::Any;
use std::io;
use std::os::fd::BorrowedFd;

/// Reads from a descriptor of any kind, without waiting: it was made non-blocking when it was adopted. 0 is its end.
///
/// # Errors
///
/// The system's; `WouldBlock` when nothing is there.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    crate::net::read_descriptor(fd, buffer)
}

/// Writes to a descriptor of any kind, without waiting, and says how many bytes were taken.
///
/// # Errors
///
/// The system's; `WouldBlock` when there is no room.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    crate::net::write_descriptor(fd, bytes)
}

/// One adopted descriptor.
///
/// Watching is level-triggered: whoever is called and does not read, write, pause or close is called again at once.
#[doc(alias("LWS_CALLBACK_RAW_ADOPT_FILE", "LWS_CALLBACK_RAW_FILE_BIND_PROTOCOL"))]
pub trait Handler<D> {
    /// `fd` is readable, or at its end, or failed: reading tells. At the end, `close` or `release` it.
    #[doc(alias = "LWS_CALLBACK_RAW_RX_FILE")]
    fn readable(&mut self, cx: &mut Cx<'_, D>, fd: BorrowedFd<'_>) {
        let _ = fd;
        cx.close();
    }

    /// `fd` is writable, after [`Conn::request_writable`](crate::Conn::request_writable); ask again for more.
    #[doc(alias = "LWS_CALLBACK_RAW_WRITEABLE_FILE")]
    fn writable(&mut self, cx: &mut Cx<'_, D>, fd: BorrowedFd<'_>) {
        let _ = (cx, fd);
    }

    /// The timer set with [`Conn::set_timer`](crate::Conn::set_timer) is due.
    #[doc(alias = "LWS_CALLBACK_TIMER")]
    fn timer(&mut self, cx: &mut Cx<'_, D>) {
        let _ = cx;
    }

    /// Somebody in the application sent this handler an event ([`Io::notify`](crate::Io::notify)).
    #[doc(alias = "LWS_CALLBACK_USER")]
    fn event(&mut self, cx: &mut Cx<'_, D>, event: Box<dyn Any>) {
        let _ = (cx, event);
    }

    /// A conn whose parent this is has ended.
    #[doc(alias = "LWS_CALLBACK_CHILD_CLOSING")]
    fn child_closed(&mut self, cx: &mut Cx<'_, D>, child: ConnId) {
        let _ = (cx, child);
    }

    /// The descriptor is watched no more. The last event; after a release, the reason holds it.
    #[doc(alias("LWS_CALLBACK_RAW_CLOSE_FILE", "LWS_CALLBACK_RAW_FILE_DROP_PROTOCOL"))]
    fn closed(self: Box<Self>, cx: &mut Cx<'_, D>, closed: Closed) {
        let _ = (cx, closed);
    }
}
