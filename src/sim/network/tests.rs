use super::*;
use crate::sim::{Endpoint, World};
use std::io::ErrorKind::{self, BrokenPipe, ConnectionReset, WouldBlock};
use std::os::fd::AsFd;

/// An accepted socket and its peer.
fn accepted(world: &mut World) -> (Network, OwnedFd, Endpoint) {
    let (fd, endpoint) = world.socket().unwrap();
    (world.network(), fd, endpoint)
}

fn any_port() -> Peer {
    Peer::Inet(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))
}

fn small_buffers(world: &mut World, buffer: usize) {
    world.chaos(Chaos { buffer, ..Chaos::NONE });
}

fn read(net: &Network, fd: &OwnedFd, length: usize) -> Result<Vec<u8>, ErrorKind> {
    let mut buf = vec![0; length];
    let read = net.read(fd.as_fd(), &mut buf).map_err(|error| error.kind())?;
    buf.truncate(read);
    Ok(buf)
}

fn write(net: &Network, fd: &OwnedFd, bytes: &[u8]) -> Result<usize, ErrorKind> {
    net.write(fd.as_fd(), bytes).map_err(|error| error.kind())
}

fn ready(net: &Network, fd: &OwnedFd) -> Ready {
    net.ready(fd.as_raw_fd())
}

const IDLE: Ready = Ready::WRITE;
const HUNG_UP: Ready = Ready::READ.with(Ready::WRITE).with(Ready::HANG_UP);

#[test]
fn bytes_cross_and_an_end_follows_them() {
    let mut world = World::new(1);
    let (net, fd, mut peer) = accepted(&mut world);
    assert_eq!(ready(&net, &fd), IDLE);
    assert_eq!(read(&net, &fd, 9), Err(WouldBlock));
    peer.send("hello");
    peer.finish();
    net.step();
    assert_eq!(ready(&net, &fd), Ready::READ.with(Ready::WRITE));
    assert_eq!(read(&net, &fd, 3).unwrap(), b"hel");
    assert_eq!(read(&net, &fd, 3).unwrap(), b"lo");
    assert_eq!(read(&net, &fd, 3).unwrap(), b"");
    assert_eq!(read(&net, &fd, 3).unwrap(), b"");
    assert_eq!(write(&net, &fd, b"bye"), Ok(3));
    net.close(fd);
    assert_eq!(peer.received(), b"bye");
    assert!(peer.at_end() && !peer.was_reset());
}

#[test]
fn hang_up_is_reported_when_both_directions_have_ended_and_not_before() {
    let mut world = World::new(1);
    let (net, fd, mut peer) = accepted(&mut world);
    net.shutdown_write(fd.as_fd()).unwrap();
    assert!(peer.at_end());
    assert_eq!(ready(&net, &fd), Ready::WRITE);
    assert_eq!(write(&net, &fd, b"x"), Err(BrokenPipe));
    peer.send("last");
    peer.finish();
    net.step();
    assert_eq!(ready(&net, &fd), HUNG_UP);
    assert_eq!(read(&net, &fd, 9).unwrap(), b"last");
    assert_eq!(read(&net, &fd, 9).unwrap(), b"");
}

#[test]
fn a_reset_is_told_once_and_what_came_before_it_is_read() {
    let mut world = World::new(1);
    let (net, fd, mut peer) = accepted(&mut world);
    peer.send("before");
    net.step();
    peer.reset();
    assert_eq!(ready(&net, &fd), HUNG_UP.with(Ready::ERROR));
    assert_eq!(read(&net, &fd, 9).unwrap(), b"before");
    assert_eq!(read(&net, &fd, 9), Err(ConnectionReset));
    assert_eq!(ready(&net, &fd), HUNG_UP);
    assert_eq!(read(&net, &fd, 9).unwrap(), b"");
    assert_eq!(write(&net, &fd, b"x"), Err(BrokenPipe));
    assert_eq!(net.peer_addr(fd.as_fd()).unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn closing_with_bytes_unread_is_a_reset() {
    let mut world = World::new(1);
    let (net, fd, mut peer) = accepted(&mut world);
    peer.send("never read");
    net.step();
    net.close(fd);
    assert!(peer.was_reset() && peer.at_end());
}

#[test]
fn closing_with_zero_linger_is_a_reset_and_after_both_ends_nothing() {
    let mut world = World::new(1);
    let (net, fd, peer) = accepted(&mut world);
    net.reset(fd.as_fd());
    net.close(fd);
    assert!(peer.was_reset());

    let (net, fd, mut peer) = accepted(&mut world);
    peer.finish();
    net.step();
    net.shutdown_write(fd.as_fd()).unwrap();
    net.reset(fd.as_fd());
    net.close(fd);
    assert!(!peer.was_reset() && peer.at_end());
}

#[test]
fn bytes_to_a_closed_peer_are_answered_by_a_reset() {
    let mut world = World::new(1);
    let (net, fd, peer) = accepted(&mut world);
    peer.close();
    assert_eq!(ready(&net, &fd), Ready::READ.with(Ready::WRITE));
    assert_eq!(write(&net, &fd, b"into the void"), Ok(13));
    // The end had come before the reset, so that it is a broken pipe that is told.
    assert_eq!(ready(&net, &fd), HUNG_UP.with(Ready::ERROR));
    assert_eq!(write(&net, &fd, b"x"), Err(BrokenPipe));
    assert_eq!(read(&net, &fd, 9).unwrap(), b"");
}

#[test]
fn an_endpoint_that_sends_to_a_closed_socket_is_reset() {
    let mut world = World::new(1);
    let (net, fd, mut peer) = accepted(&mut world);
    write(&net, &fd, b"answer").unwrap();
    net.close(fd);
    peer.send("too late");
    net.step();
    assert!(peer.was_reset());
    assert_eq!(peer.received(), b"answer");
}

#[test]
fn a_closed_endpoint_still_sends_what_it_had() {
    let mut world = World::new(1);
    small_buffers(&mut world, 4);
    let (net, fd, mut peer) = accepted(&mut world);
    peer.send("abcdefghij");
    peer.close();
    let mut all = Vec::new();
    loop {
        net.step();
        match read(&net, &fd, 3).unwrap() {
            end if end.is_empty() => break,
            part => all.extend(part),
        }
    }
    assert_eq!(all, b"abcdefghij");
    net.close(fd);
    net.step();
    assert!(net.state().streams.is_empty());
}

#[test]
fn a_full_buffer_stops_the_writer_until_a_third_is_free() {
    let mut world = World::new(1);
    small_buffers(&mut world, 9);
    let (net, fd, mut peer) = accepted(&mut world);
    peer.stop_reading();
    assert_eq!(write(&net, &fd, b"0123456789"), Ok(9));
    assert_eq!(write(&net, &fd, b"x"), Err(WouldBlock));
    assert_eq!(ready(&net, &fd), Ready::NONE);
    peer.read_at_most(2);
    net.step();
    assert_eq!(ready(&net, &fd), Ready::NONE);
    assert_eq!(write(&net, &fd, b"x"), Ok(1));
    peer.read_at_most(2);
    net.step();
    assert_eq!(ready(&net, &fd), Ready::WRITE);
    peer.resume_reading();
    assert_eq!(peer.take(), b"012345678x");
}

#[test]
fn a_gathered_write_takes_what_fits_across_its_parts() {
    let mut world = World::new(1);
    small_buffers(&mut world, 7);
    let (net, fd, peer) = accepted(&mut world);
    let parts = [IoSlice::new(b"head"), IoSlice::new(b"payload")];
    assert_eq!(net.write_vectored(fd.as_fd(), &parts).unwrap(), 7);
    assert_eq!(peer.received(), b"headpay");
}

#[test]
fn a_listener_accepts_in_order_and_a_full_backlog_takes_nobody() {
    let mut world = World::new(1);
    world.backlog(2);
    let net = world.network();
    let listener = net.listen(&any_port()).unwrap();
    let address = net.local_addr(listener.as_fd()).unwrap();
    assert_eq!(net.listen(&address).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(net.accept(listener.as_fd()).unwrap_err().kind(), WouldBlock);
    let first = world.connect(&address).unwrap();
    let _second = world.connect(&address).unwrap();
    assert_eq!(world.connect(&address).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(ready(&net, &listener), Ready::READ);
    let (fd, from) = net.accept(listener.as_fd()).unwrap();
    assert_eq!(from, first.address());
    assert_eq!(net.peer_addr(fd.as_fd()).unwrap(), from);
    assert_eq!(net.local_addr(fd.as_fd()).unwrap(), address);
    world.connect(&address).unwrap();
}

#[test]
fn a_listener_that_closes_resets_those_who_wait() {
    let mut world = World::new(1);
    let net = world.network();
    let listener = net.listen(&any_port()).unwrap();
    let address = net.local_addr(listener.as_fd()).unwrap();
    let peer = world.connect(&address).unwrap();
    net.close(listener);
    assert!(peer.was_reset());
    assert_eq!(world.connect(&address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn accepting_fails_as_often_as_it_was_told_and_loses_nobody() {
    let mut world = World::new(1);
    let net = world.network();
    let listener = net.listen(&any_port()).unwrap();
    let _peer = world.connect(&net.local_addr(listener.as_fd()).unwrap()).unwrap();
    world.fail_accepts(1);
    let error = net.accept(listener.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    assert!(net.accept(listener.as_fd()).is_ok());
}

#[test]
fn a_peer_that_went_before_it_was_accepted_is_accepted_and_found_gone() {
    let mut world = World::new(1);
    let net = world.network();
    let listener = net.listen(&any_port()).unwrap();
    let mut peer = world.connect(&net.local_addr(listener.as_fd()).unwrap()).unwrap();
    peer.send("x");
    peer.close();
    net.step();
    let (fd, _) = net.accept(listener.as_fd()).unwrap();
    assert_eq!(read(&net, &fd, 9).unwrap(), b"x");
    assert_eq!(read(&net, &fd, 9).unwrap(), b"");
}

#[test]
fn connecting_ends_well_or_with_the_reason_and_never_at_once() {
    let mut world = World::new(1);
    let net = world.network();
    let mut server = world.listen(&any_port()).unwrap();
    let fd = net.connect(&server.address()).unwrap();
    assert_eq!(net.connect_outcome(fd.as_fd()).unwrap_err().kind(), WouldBlock);
    assert_eq!(ready(&net, &fd), Ready::NONE);
    net.step();
    net.connect_outcome(fd.as_fd()).unwrap();
    let mut peer = server.accept().unwrap();
    peer.send("welcome");
    net.step();
    assert_eq!(read(&net, &fd, 9).unwrap(), b"welcome");

    let nowhere = |port| Peer::Inet(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    world.reach(&nowhere(2), Reach::Unreachable);
    world.reach(&nowhere(3), Reach::Silent);
    let expected = [(1, ErrorKind::ConnectionRefused), (2, ErrorKind::HostUnreachable), (3, WouldBlock)];
    for (port, kind) in expected {
        let fd = net.connect(&nowhere(port)).unwrap();
        net.step();
        assert_eq!(ready(&net, &fd).contains(Ready::ERROR), kind != WouldBlock);
        assert_eq!(net.connect_outcome(fd.as_fd()).unwrap_err().kind(), kind);
        assert!(!net.is_moving());
        net.close(fd);
    }
}

#[test]
fn a_unix_socket_breaks_at_once_when_its_peer_closes() {
    let mut world = World::new(1);
    let net = world.network();
    let path = Peer::Unix(Some("/somewhere".into()));
    let listener = net.listen(&path).unwrap();
    let peer = world.connect(&path).unwrap();
    let (fd, from) = net.accept(listener.as_fd()).unwrap();
    assert_eq!(from, Peer::Unix(None));
    peer.close();
    assert_eq!(ready(&net, &fd), HUNG_UP);
    assert_eq!(write(&net, &fd, b"x"), Err(BrokenPipe));
}

#[test]
fn a_wake_up_is_there_until_it_is_drained() {
    let net = World::new(1).network();
    let fd = net.wake_fd().unwrap();
    assert_eq!(ready(&net, &fd), Ready::NONE);
    std::thread::scope(|scope| {
        scope.spawn(|| net.wake(fd.as_raw_fd()));
    });
    assert_eq!(ready(&net, &fd), Ready::READ);
    net.drain_wake(fd.as_fd());
    assert_eq!(ready(&net, &fd), Ready::NONE);
}

#[test]
fn numbers_are_used_again_in_the_same_order_and_a_closed_one_has_an_error() {
    let mut world = World::new(1);
    let (net, first, _peer) = accepted(&mut world);
    let (_, second, _other) = accepted(&mut world);
    let (a, b) = (first.as_raw_fd(), second.as_raw_fd());
    net.close(second);
    net.close(first);
    assert_eq!(net.ready(a), Ready::ERROR);
    assert_eq!(net.open_descriptors(), 0);
    let (_, first, _peer) = accepted(&mut world);
    let (_, second, _other) = accepted(&mut world);
    assert_eq!((first.as_raw_fd(), second.as_raw_fd()), (a, b));
}

#[test]
fn a_reset_may_lose_what_was_on_its_way() {
    let lost = |seed| {
        let mut world = World::new(seed);
        world.chaos(Chaos { lost_on_reset: 1.0, ..Chaos::NONE });
        let (net, fd, mut peer) = accepted(&mut world);
        peer.send("0123456789");
        net.step();
        peer.reset();
        read(&net, &fd, 20).map_or(10, |read| 10 - read.len())
    };
    assert!((1..20).any(|seed| lost(seed) > 0));
}
