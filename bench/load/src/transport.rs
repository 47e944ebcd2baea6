//! What carries the bytes of a connection.

use crate::link::wait_for;
use crate::tls::Tls;
use rustix::net::{RecvFlags, SendFlags};
use rustls::ClientConfig;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// A connection to the server.
pub(crate) struct Transport {
    socket: OwnedFd,
    tls: Option<Box<Tls>>,
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
        Ok(Self { socket, tls: None })
    }

    /// The same with TLS, through its handshake, if there is a configuration for it.
    pub(crate) fn open(server: SocketAddr, at: usize, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut transport = Self::connect(server, at)?;
        if let Some(config) = tls {
            transport.secure(config)?;
            transport.finish_handshake()?;
        }
        Ok(transport)
    }

    /// The socket, and what encrypts on it.
    pub(crate) fn into_parts(self) -> (OwnedFd, Option<Tls>) {
        (self.socket, self.tls.map(|tls| *tls))
    }

    fn finish_handshake(&mut self) -> io::Result<()> {
        while self.is_handshaking() {
            wait_for(self)?;
            if self.read(&mut [0; 1024])? == Some(0) {
                return Err(io::Error::other("the server closed a connection in its TLS handshake"));
            }
        }
        Ok(())
    }

    /// Begins to speak TLS; what comes of it is up to `read` and `is_handshaking`.
    pub(crate) fn secure(&mut self, config: &Arc<ClientConfig>) -> io::Result<()> {
        self.tls = Some(Box::new(Tls::new(config)?));
        self.flush()
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether an earlier TLS session went on.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_resumed())
    }

    /// Says that nothing more comes.
    pub(crate) fn close_tls(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        self.flush()
    }

    /// Sends what TLS holds back.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.flush(&self.socket).map(drop),
            None => Ok(()),
        }
    }

    /// Closing drops the connection at once, and leaves nothing behind that keeps its port.
    pub(crate) fn abort_on_close(&self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Reads what is there; `None` when nothing is.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match &mut self.tls {
            None => {
                let result =
                    rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT).map(|(_, length)| length);
                or_nothing(result)
            }
            Some(tls) => tls.read(&self.socket, buffer),
        }
    }

    /// Writes what there is room for; `None` when there is none.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match &mut self.tls {
            None => {
                or_nothing(rustix::net::send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
            }
            Some(tls) => tls.write(&self.socket, bytes),
        }
    }
}

pub(crate) fn or_nothing(result: Result<usize, rustix::io::Errno>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether somebody accepts connections there.
pub(crate) fn accepts(server: SocketAddr) -> bool {
    Transport::connect(server, 0).is_ok_and(|probe| {
        drop(TcpStream::from(probe.socket));
        true
    })
}
