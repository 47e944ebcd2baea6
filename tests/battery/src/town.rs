//! The server, and the peers' view of it.

use crate::client::{Client, UPGRADE};
use crate::handlers::{Hall, Shout};
use crate::secure;
use crate::state::{Bell, State};
use crate::{Adapter, PATIENCE};
use lodger::{Context, Io, Limits, Listen, Peer, Remote, Site, SiteId, raw};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// What the peers know of the server.
pub(crate) struct Town {
    pub(crate) places: Vec<Place>,
    bell: Bell,
}

/// What they know of one context.
pub(crate) struct Place {
    pub(crate) remote: Remote<State>,
    pub(crate) site: SiteId,
    pub(crate) address: SocketAddr,
    pub(crate) raw: SocketAddr,
}

/// Small, so that a peer that reads nothing is noticed soon.
const BUFFER: usize = 64 * 1024;

fn any_port() -> Listen {
    Listen::tcp(([127, 0, 0, 1], 0)).send_buffer(BUFFER).receive_buffer(BUFFER)
}

/// Opens a listener of a site.
pub(crate) fn listen(io: &mut Io<State>, site: SiteId) -> (lodger::ListenerId, SocketAddr) {
    let listen = if secure::server().is_some() { any_port().tls() } else { any_port() };
    let listener = io.listen(listen, site).expect("a port is free");
    (listener, io.local_addr(listener).and_then(|address| address.inet()).expect("TCP"))
}

impl Town {
    pub(crate) fn found(contexts: usize, self_wake: bool) -> (Self, Vec<Context<State>>, State) {
        let (state, bell) = State::new();
        let (places, contexts) = (0..contexts).map(|_| found_one(self_wake)).unzip();
        (Self { places, bell }, contexts, state)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.places[0]
    }

    /// The loop is to end. A context that is left hears of it, if there is one.
    pub(crate) fn stop(&self) {
        let _ = self.places.iter().any(|place| place.remote.post(|state, _| state.stop()).is_ok());
    }

    /// Makes the host's own descriptor readable.
    pub(crate) fn ring(&self, byte: u8) {
        (&self.bell.writer).write_all(&[byte]).expect("the host reads");
    }

    /// Has a callback of the host's own use the first context. Nothing else is asked of the loop.
    pub(crate) fn errand<R: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut State, &mut Io<State>) -> R + Send + 'static,
    ) -> R {
        let (answer, answered) = mpsc::channel();
        let errand = move |state: &mut State, io: &mut Io<State>| drop(answer.send(errand(state, io)));
        assert!(self.bell.errands.send(Box::new(errand)).is_ok(), "the host is gone");
        self.ring(b'e');
        answered.recv_timeout(PATIENCE).expect("the host reads")
    }

    pub(crate) fn websocket(&self) -> Client {
        self.place().websocket()
    }

    pub(crate) fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut State, &mut Io<State>) -> R + Send + 'static,
    ) -> R {
        self.place().ask(question)
    }

    /// Asks until the answer is yes.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_so: fn(&mut State, &mut Io<State>) -> bool) {
        for _ in 0..PATIENCE.as_millis() {
            if self.ask(is_so) {
                return;
            }
            silence(Duration::from_millis(1));
        }
        panic!(
            "in vain: {what}; {}",
            self.ask(|state, io| format!("{state:?} {:?}", io.links().collect::<Vec<_>>()))
        );
    }

    /// Until there are as many links as there were.
    #[track_caller]
    pub(crate) fn until_links(&self, count: usize) {
        for _ in 0..PATIENCE.as_millis() {
            if self.ask(|_, io| io.link_count()) == count {
                return;
            }
            silence(Duration::from_millis(1));
        }
        panic!("not {count} links: {}", self.ask(|_, io| format!("{:?}", io.links().collect::<Vec<_>>())));
    }
}

impl Place {
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Lets the loop go on when what this returns is dropped: whatever has come by then is ready at once.
    pub(crate) fn hold(&self) -> mpsc::Sender<()> {
        let (go_on, held) = mpsc::channel();
        let wait = move |_: &mut State, _: &mut Io<State>| {
            assert_eq!(held.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        };
        assert!(self.remote.post(wait).is_ok(), "the context is gone");
        go_on
    }

    /// Asks after times in which nothing happens: whoever asks wakes the loop, once, and nobody else does.
    #[track_caller]
    pub(crate) fn sleeps_well<A: Adapter>(&self) {
        let ask = || {
            silence(Duration::from_millis(80));
            self.ask(|state, _| state.turns())
        };
        let turns: Vec<u64> = (0..6).map(|_| ask()).collect();
        // Where the question finds it awake, as on a busy machine, that may be twice.
        let woken: Vec<u64> = turns.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(woken.iter().any(|turns| *turns <= A::TURNS), "woken while idle: {woken:?}");
    }

    /// Waits for the end of the context; its connections end a little before it.
    #[track_caller]
    pub(crate) fn until_gone(&self) {
        for _ in 0..PATIENCE.as_millis() {
            if self.remote.wake().is_err() && TcpStream::connect(self.address).is_err() {
                return;
            }
            silence(Duration::from_millis(1));
        }
        panic!("the context is still there");
    }

    pub(crate) fn websocket(&self) -> Client {
        let mut client = self.connect();
        client.send(UPGRADE);
        client.upgraded();
        client
    }

    /// Has `question` answered in the loop's thread.
    pub(crate) fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut State, &mut Io<State>) -> R + Send + 'static,
    ) -> R {
        let (answer, answered) = mpsc::channel();
        let asked = self.remote.post(move |state, io| drop(answer.send(question(state, io))));
        assert!(asked.is_ok(), "the context is gone");
        answered.recv_timeout(PATIENCE).expect("the loop is woken")
    }
}

/// Lets time pass in which nothing is done.
pub(crate) fn silence(time: Duration) {
    let (_nobody, nothing) = mpsc::channel::<()>();
    assert_eq!(nothing.recv_timeout(time), Err(RecvTimeoutError::Timeout));
}

fn found_one(self_wake: bool) -> (Place, Context<State>) {
    let mut context: Context<State> = Context::builder().self_wake(self_wake).build();
    let remote = context.remote().expect("descriptors are left");
    let io = context.io();
    let site = Site::new().protocol("", Hall);
    let tls = secure::server();
    let site = io
        .add_site(match &tls {
            Some(server) => site.tls(server.clone()),
            None => site,
        })
        .expect("a site with a protocol");
    let (_, address) = listen(io, site);
    let accept =
        |_: &Peer, _: &mut State, _: &mut Io<State>| Some(Box::new(Shout) as Box<dyn raw::Handler<State>>);
    let listen = match tls {
        Some(server) => any_port().tls_with(server),
        None => any_port(),
    };
    let listener = io.listen_raw(listen, Limits::default(), accept).expect("a port is free");
    let raw = io.local_addr(listener).and_then(|address| address.inet()).expect("TCP");
    (Place { remote, site, address, raw }, context)
}
