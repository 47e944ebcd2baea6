//! A server in a loop, peers in threads, and handles of the loop's owner.

use crate::sys::{Events, Home, Poll, Prepare, Timer};
use crate::{Guest, Loop};
use lodger::{
    Context, Cx, Decision, Flow, Interest, Io, Limits, Listen, Peer, Ready, Remote, Request, Site, ws,
};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::thread;
use std::time::Duration;

/// The state of the server.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) log: Vec<String>,
    pub(super) numbers: Vec<u32>,
    pub(super) opened: usize,
    pub(super) closed: usize,
    pub(super) slot: Option<Guest<State>>,
}

/// What a connection heard.
pub(super) enum Heard<'a> {
    Opened,
    Text(&'a str),
    Writable,
    Timer,
}

type Act = Rc<dyn Fn(&mut Cx<'_, State>, Heard<'_>)>;

pub(super) struct Talk(Act);

impl ws::Handler<State> for Talk {
    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.opened += 1;
        (self.0)(cx, Heard::Opened);
    }
    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        if let ws::Message::Text(text) = message {
            (self.0)(cx, Heard::Text(text));
        }
    }
    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        (self.0)(cx, Heard::Writable);
    }
    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        (self.0)(cx, Heard::Timer);
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, _: lodger::Closed) {
        cx.data.closed += 1;
    }
}

/// Sends back what comes, and does not read from who does not.
pub(super) fn echo(cx: &mut Cx<'_, State>, heard: Heard<'_>) {
    match heard {
        Heard::Text(text) => {
            if cx.send(text) == Ok(Flow::Full) {
                cx.conn().pause();
                cx.conn().request_writable();
            }
        }
        Heard::Writable => cx.conn().resume(),
        Heard::Opened | Heard::Timer => {}
    }
}

/// A context that listens, and where.
pub(super) fn listening(
    act: impl Fn(&mut Cx<'_, State>, Heard<'_>) + 'static,
) -> (Context<State>, SocketAddr) {
    let act: Act = Rc::new(act);
    let mut context = Context::new();
    let accept =
        move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::websocket(Talk(Rc::clone(&act)));
    let site = context.io().add_site(Site::new().protocol("", accept).limits(Limits::default())).unwrap();
    let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
    let Some(Peer::Inet(address)) = context.io().local_addr(listener) else { panic!("no address") };
    (context, address)
}

pub(super) struct House {
    pub(super) uv: Loop,
    pub(super) guest: Guest<State>,
    pub(super) remote: Remote<State>,
    pub(super) address: SocketAddr,
}

impl House {
    pub(super) fn new(act: impl Fn(&mut Cx<'_, State>, Heard<'_>) + 'static) -> Self {
        let (mut context, address) = listening(act);
        let remote = context.remote().unwrap();
        let uv = Loop::new().unwrap();
        let guest = uv.join(context, State::default());
        Self { uv, guest, remote, address }
    }

    /// Runs the loop until `peer` has ended and all is closed.
    pub(super) fn run<T: Send + 'static>(
        &mut self,
        peer: impl FnOnce(SocketAddr) -> T + Send + 'static,
    ) -> T {
        let peer = self.begin(peer);
        self.uv.run();
        peer.join().unwrap()
    }

    /// A peer that shuts the server down at its end.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        peer: impl FnOnce(SocketAddr) -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let (address, end) = (self.address, ShutDown(self.remote.clone()));
        thread::spawn(move || {
            let _end = end;
            peer(address)
        })
    }

    /// The guest leaves, and the loop is as it was.
    pub(super) fn leave(mut self) -> State {
        let state = self.guest.leave().unwrap();
        self.uv.run_nowait();
        assert!(!self.uv.is_alive());
        self.uv.close().unwrap();
        state
    }
}

/// Also when its thread panics: the loop ends, and the test fails.
pub(super) struct ShutDown(pub(super) Remote<State>);

impl Drop for ShutDown {
    fn drop(&mut self) {
        let _ = self.0.post(|_, io| io.shutdown(ws::CloseCode::GOING_AWAY));
    }
}

/// A WebSocket client.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let client = Self::plain(address);
        (&client.0)
            .write_all(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            (&client.0).read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        client
    }

    pub(super) fn plain(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(super) fn send(&self, text: &str) {
        (&self.0).write_all(&frame(text)).unwrap();
    }

    pub(super) fn receive(&self) -> String {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, 0x81, "a text message");
        String::from_utf8(payload).unwrap()
    }

    /// The next frame: its first byte, and its payload.
    pub(super) fn frame(&self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        (&self.0).read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                (&self.0).read_exact(&mut length).unwrap();
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                (&self.0).read_exact(&mut length).unwrap();
                u64::from_be_bytes(length)
            }
            length => length.into(),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        (&self.0).read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// Ends the connection with a reset.
    pub(super) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO)).unwrap();
    }
}

/// A text message, masked with zeros.
pub(super) fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// How long a peer waits before it gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Handles of the loop's owner, who has nothing to do with lodger.
pub(super) struct Own {
    act: Rc<Act2>,
    _handles: Handles,
}

struct Act2(RefCell<Box<dyn FnMut()>>);

#[allow(dead_code, reason = "they are there to be there")]
struct Handles(Option<Timer>, Option<Prepare>, Option<Poll>);

impl Events for Act2 {
    fn ready(self: Rc<Self>, _: RawFd, _: Option<Ready>) -> bool {
        (self.0.borrow_mut())();
        true
    }
    fn due(self: Rc<Self>) {
        (self.0.borrow_mut())();
    }
    fn before_sleep(self: Rc<Self>) {
        (self.0.borrow_mut())();
    }
    fn is_busy(&self) -> bool {
        false
    }
}

impl Own {
    fn new(act: impl FnMut() + 'static, make: impl FnOnce(Weak<dyn Events>) -> Handles) -> Self {
        let act = Rc::new(Act2(RefCell::new(Box::new(act))));
        let events: Weak<dyn Events> = Rc::downgrade(&act) as Weak<dyn Events>;
        Self { act, _handles: make(events) }
    }

    /// Calls once, after `delay`. It does not keep the loop alive.
    pub(super) fn timer(home: &Home, delay: Duration, act: impl FnMut() + 'static) -> Self {
        Self::new(act, |events| {
            let timer = Timer::new(home, events);
            timer.start(delay.as_nanos());
            Handles(Some(timer), None, None)
        })
    }

    /// Calls before each sleep.
    pub(super) fn prepare(home: &Home, act: impl FnMut() + 'static) -> Self {
        Self::new(act, |events| Handles(None, Some(Prepare::new(home, events)), None))
    }

    /// Calls whenever `fd` is readable.
    pub(super) fn poll(home: &Home, fd: RawFd, act: impl FnMut() + 'static) -> Self {
        Self::new(act, |events| {
            let poll = Poll::new(home, fd, events).unwrap();
            poll.start(Interest::READ).unwrap();
            Handles(None, None, Some(poll))
        })
    }

    pub(super) fn does(&self, act: impl FnMut() + 'static) {
        *self.act.0.borrow_mut() = Box::new(act);
    }
}
