//! What carries the bytes of a connection.

use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A connection to the server. TLS is to be another variant: it keeps its session beside the socket, `read` and `write` go
/// through that, and whoever calls them needs to know nothing of it.
pub(crate) enum Transport {
    Plain(OwnedFd),
}

/// How many connections come from one address: well below the ports that a system gives out.
const PER_ADDRESS: usize = 10_000;

impl Transport {
    /// The `at`th connection to `server`. Connecting waits; nothing else does.
    pub(crate) fn connect(server: SocketAddr, at: usize) -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        // Not from the server's own address: a port that nobody listens on yet could be connected with itself.
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + 1 + (at / PER_ADDRESS) as u32);
        crate::system::choose_port_late(&socket)?;
        bind(&socket, &SocketAddr::from((from, 0)))?;
        connect(&socket, &server)?;
        Ok(Self::Plain(socket))
    }

    /// Closing drops the connection at once, and leaves nothing behind that keeps its port.
    pub(crate) fn abort_on_close(&self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Reads what is there; `None` when nothing is.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(socket) => {
                let result =
                    rustix::net::recv(&*socket, buffer, RecvFlags::DONTWAIT).map(|(_, length)| length);
                or_nothing(result)
            }
        }
    }

    /// Writes what there is room for; `None` when there is none.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(socket) => {
                or_nothing(rustix::net::send(&*socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
            }
        }
    }
}

fn or_nothing(result: Result<usize, rustix::io::Errno>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
        }
    }
}

/// Whether somebody accepts connections there.
pub(crate) fn accepts(server: SocketAddr) -> bool {
    Transport::connect(server, 0).is_ok_and(|probe| {
        let Transport::Plain(socket) = probe;
        drop(TcpStream::from(socket));
        true
    })
}
