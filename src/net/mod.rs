//! The system calls, in one place: everything that touches a socket goes through [`Net`], which is the system or the
//! simulated world.

mod file;
mod listen;
mod system;

pub(crate) use file::{open_file, read_file};

pub(crate) use listen::SocketPath;
pub use listen::{Keepalive, Listen};

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// One end of a connection, or what a listener is bound to.
#[doc(alias = "lws_get_peer_addresses")]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Peer {
    /// An address and a port.
    Inet(SocketAddr),
    /// A Unix socket; its path, where it has one. Clients rarely do.
    Unix(Option<PathBuf>),
}

impl Peer {
    /// The address and port; `None` for a Unix socket.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether the peer is on this machine: a loopback address or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Inet(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
        }
    }
}

/// How the peer of a connection stands.
pub(crate) enum Standing {
    /// Nothing is known against it.
    Open,
    /// It has ended its half; bytes that it has sent before may still lie unread.
    Ended,
    /// The connection is broken, by a reset for one.
    Failed(io::Error),
}

/// Where system calls go.
#[derive(Clone)]
pub(crate) enum Net {
    System,
    #[cfg(feature = "sim")]
    Simulated(crate::sim::Network),
}

impl Net {
    pub(crate) fn listen(&self, listen: &Listen) -> Result<OwnedFd, crate::ListenError> {
        match self {
            Self::System => listen::open(listen),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => {
                let address = listen
                    .address()
                    .ok_or_else(|| crate::ListenError::Listen(io::ErrorKind::Unsupported.into()))?;
                net.listen(&address).map_err(|error| crate::ListenError::Bind { address, error })
            }
        }
    }

    pub(crate) fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Peer)> {
        match self {
            Self::System => system::accept(listener),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.accept(listener),
        }
    }

    /// Begins to connect, from this address if one is given.
    pub(crate) fn connect(&self, peer: &Peer, source: Option<std::net::IpAddr>) -> io::Result<OwnedFd> {
        match self {
            Self::System => system::connect(peer, source),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.connect(peer),
        }
    }

    /// How connecting went: `WouldBlock` while it is under way.
    pub(crate) fn connect_outcome(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Self::System => system::connect_outcome(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.connect_outcome(fd),
        }
    }

    /// Whether there is something to read or to accept, or an end or an error to be told, by a look that takes nothing.
    pub(crate) fn is_readable(&self, fd: BorrowedFd<'_>) -> bool {
        match self {
            Self::System => system::is_readable(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.ready(std::os::fd::AsRawFd::as_raw_fd(&fd)).is_readable(),
        }
    }

    #[inline(always)]
    pub(crate) fn read(&self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::System => system::read(fd, buffer),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.read(fd, buffer),
        }
    }

    #[inline(always)]
    pub(crate) fn write(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::System => system::write(fd, bytes),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.write(fd, bytes),
        }
    }

    /// Writes what the end of the connection follows at once, so that both can go in one segment.
    pub(crate) fn write_last(&self, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::System => system::write_last(fd, bytes),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.write(fd, bytes),
        }
    }

    pub(crate) fn write_vectored(&self, fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::System => system::write_vectored(fd, parts),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.write_vectored(fd, parts),
        }
    }

    /// Ends our half of the connection. A peer that is gone already has seen the end.
    pub(crate) fn shutdown_write(&self, fd: BorrowedFd<'_>) {
        let _ = match self {
            Self::System => system::shutdown_write(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.shutdown_write(fd),
        };
    }

    /// How the peer stands, as far as that shows without reading what it has sent.
    pub(crate) fn standing(&self, fd: BorrowedFd<'_>) -> Standing {
        match self {
            Self::System => system::standing(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.standing(fd),
        }
    }

    /// Makes the close that follows a reset: what the kernel still holds is dropped.
    pub(crate) fn reset(&self, fd: BorrowedFd<'_>) {
        match self {
            Self::System => system::reset(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.reset(fd),
        }
    }

    pub(crate) fn close(&self, fd: OwnedFd) {
        match self {
            Self::System => drop(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.close(fd),
        }
    }

    pub(crate) fn local_addr(&self, fd: BorrowedFd<'_>) -> io::Result<Peer> {
        match self {
            Self::System => system::local_addr(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.local_addr(fd),
        }
    }

    pub(crate) fn peer_addr(&self, fd: BorrowedFd<'_>) -> io::Result<Peer> {
        match self {
            Self::System => system::peer_addr(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.peer_addr(fd),
        }
    }

    /// Makes a descriptor of the caller's non-blocking and close-on-exec.
    pub(crate) fn adopt(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Self::System => system::adopt(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Ok(()),
        }
    }

    pub(crate) fn set_nodelay(&self, fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        match self {
            Self::System => system::set_nodelay(fd, on),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Ok(()),
        }
    }

    pub(crate) fn set_keepalive(&self, fd: BorrowedFd<'_>, keepalive: Option<Keepalive>) -> io::Result<()> {
        match self {
            Self::System => listen::set_keepalive(fd, keepalive),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Ok(()),
        }
    }

    pub(crate) fn set_buffer_sizes(
        &self,
        fd: BorrowedFd<'_>,
        send: Option<usize>,
        receive: Option<usize>,
    ) -> io::Result<()> {
        match self {
            Self::System => listen::set_buffer_sizes(fd, send, receive),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// A descriptor that becomes readable when its other end is signalled, and that other end.
    pub(crate) fn wake_up(&self) -> io::Result<(OwnedFd, Signal)> {
        match self {
            Self::System => {
                let (read, write) = system::wake_pair()?;
                Ok((read, Signal(Arc::new(SignalEnd::System(write)))))
            }
            #[cfg(feature = "sim")]
            Self::Simulated(net) => {
                let read = net.wake_fd()?;
                let number = std::os::fd::AsRawFd::as_raw_fd(&read);
                Ok((read, Signal(Arc::new(SignalEnd::Simulated(net.clone(), number)))))
            }
        }
    }

    pub(crate) fn drain_wake_up(&self, fd: BorrowedFd<'_>) {
        match self {
            Self::System => system::drain_wake(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(net) => net.drain_wake(fd),
        }
    }
}

/// The end of a wake-up descriptor that any thread may use. It stays open as long as anybody holds it.
#[derive(Clone)]
pub(crate) struct Signal(Arc<SignalEnd>);

enum SignalEnd {
    System(OwnedFd),
    #[cfg(feature = "sim")]
    Simulated(crate::sim::Network, std::os::fd::RawFd),
}

impl Signal {
    pub(crate) fn raise(&self) {
        match &*self.0 {
            SignalEnd::System(fd) => system::raise(fd.as_fd()),
            #[cfg(feature = "sim")]
            SignalEnd::Simulated(net, fd) => net.wake(*fd),
        }
    }
}

/// What a failed read or write means.
#[inline]
pub(crate) fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads from a descriptor that may not be a socket.
pub(crate) fn read_descriptor(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buffer)?)
}

/// Writes to a descriptor that may not be a socket.
pub(crate) fn write_descriptor(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(fd, bytes)?)
}

/// The number of a network interface, by its name or number; 0 for none.
pub(crate) fn interface(name: &str) -> u32 {
    name.parse().unwrap_or_else(|_| system::interface(name))
}

/// The name of this machine, as the system knows it.
pub(crate) fn host_name() -> String {
    system::host_name()
}

/// The number of this process: a forked child has another than its parent.
pub(crate) fn process() -> u32 {
    std::process::id()
}

/// How many descriptors the process may have open (RLIMIT_NOFILE).
pub(crate) fn descriptor_limit() -> Option<u64> {
    system::descriptor_limit()
}
