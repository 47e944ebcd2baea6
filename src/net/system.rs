//! The system's calls.

use super::{Peer, Standing};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

#[inline(always)]
pub(super) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(net::recv(fd, buffer, net::RecvFlags::empty())?.0)
}

#[inline(always)]
pub(super) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(net::send(fd, bytes, net::SendFlags::NOSIGNAL)?)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn write_last(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(net::send(fd, bytes, net::SendFlags::NOSIGNAL | net::SendFlags::MORE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn write_last(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    write(fd, bytes)
}

pub(super) fn write_vectored(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(net::sendmsg(fd, parts, &mut net::SendAncillaryBuffer::default(), net::SendFlags::NOSIGNAL)?)
}

pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Peer)> {
    loop {
        match accept_once(listener) {
            Ok((fd, address)) => return Ok((fd, address.map_or(Peer::Unix(None), peer))),
            // The peer went between its handshake and our accept: nobody to talk to, look for the next one.
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_vendor = "apple"))]
fn accept_once(listener: BorrowedFd<'_>) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

#[cfg(target_vendor = "apple")]
fn accept_once(listener: BorrowedFd<'_>) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (fd, address) = net::acceptfrom(listener)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    net::sockopt::set_socket_nosigpipe(&fd, true)?;
    Ok((fd, address))
}

pub(super) fn connect(peer: &Peer, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let family = match peer {
        Peer::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
        Peer::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
        Peer::Unix(_) => AddressFamily::UNIX,
    };
    let socket = stream_socket(family)?;
    if let Some(source) = source {
        net::bind(&socket, &SocketAddr::new(source, 0))?;
    }
    let begun = match peer {
        Peer::Inet(address) => net::connect(&socket, address),
        Peer::Unix(Some(path)) => net::connect(&socket, &SocketAddrUnix::new(path)?),
        Peer::Unix(None) => Err(Errno::INVAL),
    };
    match begun {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_vendor = "apple"))]
fn stream_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

#[cfg(target_vendor = "apple")]
fn stream_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    let socket = net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    net::sockopt::set_socket_nosigpipe(&socket, true)?;
    Ok(socket)
}

/// Connected is what has no error and knows its peer: writability alone says neither.
pub(super) fn connect_outcome(fd: BorrowedFd<'_>) -> io::Result<()> {
    net::sockopt::socket_error(fd)??;
    match net::getpeername(fd) {
        Ok(_) => Ok(()),
        Err(Errno::NOTCONN) => Err(Errno::WOULDBLOCK.into()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(net::shutdown(fd, net::Shutdown::Write)?)
}

/// What the system says of a descriptor at this moment; `None` if it cannot be asked (a signal has come, for one), so that nothing
/// may be concluded.
#[expect(clippy::disallowed_methods, reason = "with this timeout it does not wait")]
fn ready_now(fd: BorrowedFd<'_>, flags: PollFlags) -> Option<PollFlags> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    poll(&mut fds, Some(&AT_ONCE)).ok()?;
    Some(fds[0].revents())
}

pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    ready_now(fd, PollFlags::IN).is_none_or(|found| !found.is_empty())
}

/// Linux says of a socket whose peer has ended its half that it has (`POLLRDHUP`), wherever that end lies behind unread bytes.
/// Nothing else does: `MSG_PEEK` shows bytes, and no end behind them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn standing(fd: BorrowedFd<'_>) -> Standing {
    let Some(found) = ready_now(fd, PollFlags::RDHUP) else { return Standing::Open };
    let failure = if found.contains(PollFlags::ERR) { failure(fd) } else { None };
    match failure {
        Some(error) => Standing::Failed(error),
        None if found.intersects(PollFlags::RDHUP | PollFlags::HUP) => Standing::Ended,
        None => Standing::Open,
    }
}

/// Elsewhere only a failure shows.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn standing(fd: BorrowedFd<'_>) -> Standing {
    failure(fd).map_or(Standing::Open, Standing::Failed)
}

/// What a socket has failed by, if it has (`SO_ERROR`). It is said once.
fn failure(fd: BorrowedFd<'_>) -> Option<io::Error> {
    net::sockopt::socket_error(fd).ok()?.err().map(io::Error::from)
}

pub(super) fn reset(fd: BorrowedFd<'_>) {
    // On a socket that has no such option (a Unix socket) closing is as good.
    let _ = net::sockopt::set_socket_linger(fd, Some(std::time::Duration::ZERO));
}

pub(super) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    Ok(peer(net::getsockname(fd)?))
}

pub(super) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    Ok(net::getpeername(fd)?.map_or(Peer::Unix(None), peer))
}

fn peer(address: SocketAddrAny) -> Peer {
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return Peer::Inet(address);
    }
    let path = SocketAddrUnix::try_from(address).ok();
    Peer::Unix(path.and_then(|path| path.path_bytes().map(|bytes| OsStr::from_bytes(bytes).into())))
}

pub(super) fn adopt(fd: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::ioctl_fionbio(fd, true).or_else(|_| {
        // Not every kind of descriptor takes the ioctl.
        let flags = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)
    })?;
    let flags = rustix::io::fcntl_getfd(fd)?;
    Ok(rustix::io::fcntl_setfd(fd, flags | rustix::io::FdFlags::CLOEXEC)?)
}

pub(super) fn set_nodelay(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    Ok(net::sockopt::set_tcp_nodelay(fd, on)?)
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn wake_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::event::{EventfdFlags, eventfd};
    let read = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let write = rustix::io::fcntl_dupfd_cloexec(&read, 0)?;
    Ok((read, write))
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn wake_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe()?;
    for fd in [&read, &write] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    Ok((read, write))
}

pub(super) fn raise(fd: BorrowedFd<'_>) {
    // An eventfd takes eight bytes and adds them up; a pipe that is full is as readable as can be.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

pub(super) fn drain_wake(fd: BorrowedFd<'_>) {
    let mut bytes = [0; 512];
    while rustix::io::read(fd, &mut bytes[..]).is_ok_and(|read| read == bytes.len()) {}
}

#[cfg(target_os = "linux")]
pub(super) fn interface(name: &str) -> u32 {
    let socket = stream_socket(AddressFamily::INET6).ok();
    socket.and_then(|socket| net::netdevice::name_to_index(&socket, name).ok()).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn interface(_: &str) -> u32 {
    0
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(super) fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}
