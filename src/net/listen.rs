//! Listening sockets and their options.

use super::Peer;
use crate::error::ListenError;
use crate::role::Secure;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to listen on: an address and port, a Unix socket, or a descriptor that is bound already.
///
/// ```
/// use lodger::Listen;
/// let any_port = Listen::tcp(([127, 0, 0, 1], 0));
/// let local = Listen::unix("/run/example.sock").backlog(64);
/// ```
#[doc(alias("lws_create_vhost", "bind_socket", "iface"))]
#[derive(Debug)]
pub struct Listen {
    pub(super) place: Place,
    pub(super) backlog: i32,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) secure: Secure,
    nodelay: bool,
    reuse_port: bool,
    only_v6: Option<bool>,
}

#[derive(Debug)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Descriptor(OwnedFd),
}

/// TCP keepalive of a connection (RFC 9293, section 3.8.4): the kernel probes a silent peer.
#[doc(alias("ka_time", "ka_probes", "ka_interval"))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// Silence before the first probe; whole seconds, at least one.
    pub idle: Duration,
    /// Time between probes; whole seconds, at least one.
    pub interval: Duration,
    /// How many probes may go unanswered.
    pub probes: u32,
}

impl Listen {
    /// On `address`; port 0 lets the system choose ([`Io::local_addr`](crate::Io::local_addr) tells which).
    pub fn tcp(address: impl Into<SocketAddr>) -> Self {
        Self::on(Place::Tcp(address.into()))
    }

    /// On a Unix socket at `path`. A socket left there by a server that is gone is replaced, one that somebody still
    /// listens on is not ([`ListenError::Bind`]). The path is removed when the listener closes, unless another socket is there by then.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::on(Place::Unix(path.into()))
    }

    /// On a stream socket that is bound already, listening or not: socket activation, or one that was opened with rights
    /// that have been given up since. Its path, if it has one, is left alone.
    pub fn descriptor(socket: OwnedFd) -> Self {
        Self::on(Place::Descriptor(socket))
    }

    fn on(place: Place) -> Self {
        Self {
            place,
            backlog: 1024,
            keepalive: None,
            send_buffer: None,
            receive_buffer: None,
            secure: Secure::No,
            nodelay: true,
            reuse_port: false,
            only_v6: None,
        }
    }

    /// How many connections may wait to be accepted; the system bounds it further. Default 1,024.
    #[must_use]
    pub fn backlog(mut self, connections: u16) -> Self {
        self.backlog = connections.into();
        self
    }

    /// Lets other sockets listen on the same address and port, in this process or others of the same user, which set it too: the
    /// system deals connections out among them (`SO_REUSEPORT`). For TCP. Default: off.
    #[doc(alias("SO_REUSEPORT", "LWS_SERVER_OPTION_ALLOW_LISTEN_SHARE"))]
    #[must_use]
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// Whether an IPv6 address takes IPv6 only, or IPv4 as well, whose addresses then look like `::ffff:192.0.2.1`
    /// (`IPV6_V6ONLY`; RFC 3493, section 5.3). Default: as the system has it.
    #[doc(alias(
        "IPV6_V6ONLY",
        "LWS_SERVER_OPTION_IPV6_V6ONLY_MODIFY",
        "LWS_SERVER_OPTION_IPV6_V6ONLY_VALUE"
    ))]
    #[must_use]
    pub fn only_v6(mut self, on: bool) -> Self {
        self.only_v6 = Some(on);
        self
    }

    /// Whether small segments of each accepted connection go out at once rather than wait for others (`TCP_NODELAY`; RFC 9293,
    /// section 3.7.4). Default: they go.
    #[doc(alias("TCP_NODELAY", "Nagle"))]
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = on;
        self
    }

    /// TCP keepalive for each accepted connection. Default: off.
    #[must_use]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = Some(keepalive);
        self
    }

    /// The kernel's send buffer of each accepted connection (`SO_SNDBUF`), in bytes. Default: the system's.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// The kernel's receive buffer of each accepted connection (`SO_RCVBUF`), in bytes. Default: the system's.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Connections speak TLS, with the certificate of their site ([`Site::tls`](crate::Site::tls)).
    #[cfg(feature = "tls")]
    #[doc(alias("https", "wss", "LWS_SERVER_OPTION_REDIRECT_HTTP_TO_HTTPS"))]
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.secure = Secure::BySite;
        self
    }

    /// Connections speak TLS, by a configuration of the listener's own: for raw connections, which have no site.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_with(mut self, server: crate::tls::Server) -> Self {
        self.secure = Secure::By(server);
        self
    }

    /// Whether `TCP_NODELAY` is not to be set on what is accepted: it has it from the listener, or is to have none. A socket that came bound may have connections waiting
    /// from before it was set.
    pub(crate) fn needs_no_nodelay(&self) -> bool {
        !self.nodelay || self.passes_nodelay()
    }

    fn passes_nodelay(&self) -> bool {
        cfg!(any(target_os = "linux", target_os = "android")) && matches!(self.place, Place::Tcp(_))
    }

    /// What to remove when the listener closes; asked for once it listens.
    pub(crate) fn path(&self) -> Option<SocketPath> {
        match &self.place {
            Place::Unix(path) => SocketPath::new(path),
            Place::Tcp(_) | Place::Descriptor(_) => None,
        }
    }

    /// What is to be bound, if it is not bound already.
    pub(super) fn address(&self) -> Option<Peer> {
        match &self.place {
            Place::Tcp(address) => Some(Peer::Inet(*address)),
            Place::Unix(path) => Some(Peer::Unix(Some(path.clone()))),
            Place::Descriptor(_) => None,
        }
    }
}

/// The socket that a listener has put at a path. A successor may have put its own there since, which stays.
pub(crate) struct SocketPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketPath {
    fn new(path: &Path) -> Option<Self> {
        let found = path.symlink_metadata().ok()?;
        Some(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    pub(crate) fn remove(&self) {
        let ours = |found: std::fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if self.path.symlink_metadata().is_ok_and(ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

pub(super) fn open(listen: &Listen) -> Result<OwnedFd, ListenError> {
    let option = |name| move |errno: rustix::io::Errno| ListenError::Option(name, errno.into());
    let bind = |errno: rustix::io::Errno| ListenError::Bind {
        address: listen.address().unwrap_or(Peer::Unix(None)),
        error: errno.into(),
    };
    let socket = match &listen.place {
        Place::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = stream_socket(family)?;
            sockopt::set_socket_reuseaddr(&socket, true).map_err(option("SO_REUSEADDR"))?;
            if listen.reuse_port {
                sockopt::set_socket_reuseport(&socket, true).map_err(option("SO_REUSEPORT"))?;
            }
            if let Some(on) = listen.only_v6 {
                sockopt::set_ipv6_v6only(&socket, on).map_err(option("IPV6_V6ONLY"))?;
            }
            // Each accepted socket gets these; here, so that what is refused is refused at once and by name.
            if let Some(keepalive) = listen.keepalive {
                set_keepalive(socket.as_fd(), Some(keepalive))
                    .map_err(|error| ListenError::Option("SO_KEEPALIVE", error))?;
            }
            set_buffer_sizes(socket.as_fd(), listen.send_buffer, None)
                .map_err(|error| ListenError::Option("SO_SNDBUF", error))?;
            set_buffer_sizes(socket.as_fd(), None, listen.receive_buffer)
                .map_err(|error| ListenError::Option("SO_RCVBUF", error))?;
            if listen.nodelay && listen.passes_nodelay() {
                sockopt::set_tcp_nodelay(&socket, true).map_err(option("TCP_NODELAY"))?;
            }
            net::bind(&socket, address).map_err(bind)?;
            socket
        }
        Place::Unix(path) => {
            let address = SocketAddrUnix::new(path).map_err(bind)?;
            remove_if_stale(path, &address);
            let socket = stream_socket(AddressFamily::UNIX)?;
            net::bind(&socket, &address).map_err(bind)?;
            socket
        }
        Place::Descriptor(socket) => {
            // A listener must be a descriptor of its own: the caller's may be shared with other processes.
            let socket = rustix::io::fcntl_dupfd_cloexec(socket, 0)
                .map_err(|errno| ListenError::Socket(errno.into()))?;
            super::system::adopt(socket.as_fd()).map_err(ListenError::Listen)?;
            socket
        }
    };
    net::listen(&socket, listen.backlog).map_err(|errno| ListenError::Listen(errno.into()))?;
    Ok(socket)
}

#[cfg(not(target_vendor = "apple"))]
fn stream_socket(family: AddressFamily) -> Result<OwnedFd, ListenError> {
    net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
        .map_err(|errno| ListenError::Socket(errno.into()))
}

#[cfg(target_vendor = "apple")]
fn stream_socket(family: AddressFamily) -> Result<OwnedFd, ListenError> {
    let socket =
        net::socket(family, SocketType::STREAM, None).map_err(|errno| ListenError::Socket(errno.into()))?;
    super::system::adopt(socket.as_fd()).map_err(ListenError::Socket)?;
    Ok(socket)
}

/// Removes a socket that nobody listens on any more. Whatever else is at the path stays, and binding says so.
fn remove_if_stale(path: &Path, address: &SocketAddrUnix) {
    use std::os::unix::fs::FileTypeExt;
    // Connecting to a plain file is refused too, and that is not ours to remove.
    if !path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
        return;
    }
    let Ok(probe) = stream_socket(AddressFamily::UNIX) else { return };
    if net::connect(&probe, address) == Err(rustix::io::Errno::CONNREFUSED) {
        let _ = std::fs::remove_file(path);
    }
}

pub(super) fn set_keepalive(fd: BorrowedFd<'_>, keepalive: Option<Keepalive>) -> io::Result<()> {
    sockopt::set_socket_keepalive(fd, keepalive.is_some())?;
    if let Some(Keepalive { idle, interval, probes }) = keepalive {
        #[cfg(not(any(target_vendor = "apple", target_os = "openbsd")))]
        sockopt::set_tcp_keepidle(fd, idle)?;
        #[cfg(not(target_os = "openbsd"))]
        {
            sockopt::set_tcp_keepintvl(fd, interval)?;
            sockopt::set_tcp_keepcnt(fd, probes)?;
        }
        let _ = (idle, interval, probes);
    }
    Ok(())
}

pub(super) fn set_buffer_sizes(
    fd: BorrowedFd<'_>,
    send: Option<usize>,
    receive: Option<usize>,
) -> io::Result<()> {
    if let Some(bytes) = send {
        sockopt::set_socket_send_buffer_size(fd, bytes)?;
    }
    if let Some(bytes) = receive {
        sockopt::set_socket_recv_buffer_size(fd, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::system;
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;

    /// A listener and a connection to it that waits.
    fn waiting() -> (OwnedFd, TcpStream) {
        let listener = open(&Listen::tcp(([127, 0, 0, 1], 0))).unwrap();
        let address = SocketAddr::try_from(net::getsockname(&listener).unwrap()).unwrap();
        (listener, TcpStream::connect(address).unwrap())
    }

    #[test]
    fn what_a_listener_accepts_has_its_nodelay_where_that_is_said() {
        let listen = Listen::tcp(([127, 0, 0, 1], 0));
        assert!(!Listen::unix("/no/such/place").passes_nodelay());
        let (listener, _peer) = waiting();
        let (accepted, _) = system::accept(listener.as_fd()).unwrap();
        assert_eq!(sockopt::tcp_nodelay(accepted).unwrap(), listen.passes_nodelay());
    }

    #[test]
    fn what_is_written_last_arrives_before_the_end() {
        let (listener, mut peer) = waiting();
        let (accepted, _) = system::accept(listener.as_fd()).unwrap();
        assert_eq!(system::write_last(accepted.as_fd(), b"goodbye").unwrap(), 7);
        system::shutdown_write(accepted.as_fd()).unwrap();
        let mut all = String::new();
        peer.read_to_string(&mut all).unwrap();
        assert_eq!(all, "goodbye");
    }
}
