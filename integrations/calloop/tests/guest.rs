//! A context among the sources of a calloop loop: how it comes, is reached, and goes.

use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, LoopHandle};
use lodger::{Closed, Context, Cx, Decision, Io, Listen, Peer, Request, Site, ws};
use lodger_calloop::Local;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// The loop's data.
#[derive(Default)]
struct State {
    heard: Vec<String>,
    opened: usize,
    closed: usize,
    ticks: usize,
    messages: usize,
    over: bool,
}

type Act = Rc<RefCell<dyn FnMut(&mut Cx<'_, State>, &str)>>;

struct Talk(Act);

impl ws::Handler<State> for Talk {
    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        cx.data.opened += 1;
    }
    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        cx.data.messages += 1;
        if let ws::Message::Text(text) = message {
            (self.0.borrow_mut())(cx, text);
        }
    }
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, _: Closed) {
        cx.data.closed += 1;
    }
}

/// A context that listens, and where.
fn listening(act: impl FnMut(&mut Cx<'_, State>, &str) + 'static) -> (Context<State>, SocketAddr) {
    let act: Act = Rc::new(RefCell::new(act));
    let mut context = Context::new();
    let accept =
        move |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::websocket(Talk(Rc::clone(&act)));
    let site = context.io().add_site(Site::new().protocol("", accept)).unwrap();
    let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
    let Some(Peer::Inet(address)) = context.io().local_addr(listener) else { panic!("no address") };
    (context, address)
}

fn echo(cx: &mut Cx<'_, State>, text: &str) {
    cx.send(text).unwrap();
}

/// What a handler finds: the place for what is known only after the context was inserted.
type Later<T> = Rc<RefCell<Option<T>>>;

struct House {
    event_loop: EventLoop<'static, State>,
    state: State,
}

impl House {
    fn new() -> Self {
        Self { event_loop: EventLoop::try_new().unwrap(), state: State::default() }
    }

    fn handle(&self) -> LoopHandle<'static, State> {
        self.event_loop.handle()
    }

    fn insert(&self, context: Context<State>) -> Local<State> {
        lodger_calloop::insert(&self.handle(), context).unwrap()
    }

    /// Turns until `done`. What wakes the loop has to be the sources.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut State) -> bool) {
        let patience = Timer::from_duration(PATIENCE);
        let what = what.to_owned();
        let in_vain = move |_, _: &mut (), _: &mut State| panic!("waited in vain until {what}");
        let token = self.handle().insert_source(patience, in_vain).unwrap();
        while !done(&mut self.state) {
            self.event_loop.dispatch(None, &mut self.state).unwrap();
        }
        self.handle().remove(token);
    }

    /// Turns until a peer, in a thread of its own, has ended.
    fn run<T: Send + 'static>(&mut self, peer: impl FnOnce() -> T + Send + 'static) -> T {
        let (ping, source) = calloop::ping::make_ping().unwrap();
        let ended = self.handle().insert_source(source, |(), &mut (), state| state.over = true).unwrap();
        let peer = thread::spawn(move || {
            let _ends = Ends(ping);
            peer()
        });
        self.until("the peer has ended", |state| state.over);
        self.state.over = false;
        self.handle().remove(ended);
        peer.join().unwrap()
    }
}

/// Also when its thread panics.
struct Ends(calloop::ping::Ping);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ping();
    }
}

/// A WebSocket client.
struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket
            .write_all(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        Self(socket)
    }

    /// A short text message, masked with zeros.
    fn send(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    /// The next short frame: its first byte, and its payload; `None` at the end.
    fn receive(&mut self) -> Option<(u8, String)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[0], String::from_utf8_lossy(&payload).into_owned()))
    }

    fn text(&mut self) -> String {
        let (kind, text) = self.receive().expect("a message");
        assert_eq!(kind, 0x81);
        text
    }

    fn echoes(&mut self, text: &str) {
        self.send(text);
        assert_eq!(self.text(), text);
    }
}

#[test]
fn handlers_get_the_loops_own_data_and_other_sources_reach_the_connections() {
    let mut house = House::new();
    let (context, address) = listening(|cx, text| cx.data.heard.push(text.to_owned()));
    let local = house.insert(context);
    let timer = Timer::from_duration(Duration::from_millis(1));
    let tell_all = move |_, _: &mut (), state: &mut State| {
        state.ticks += 1;
        let ran = local.with(state, |state, io| {
            let conns: Vec<_> = io.links().filter_map(|link| link.conn).collect();
            for conn in conns {
                let text = format!("heard {}", state.heard.len());
                let _ = io.conn(conn).unwrap().send(&*text);
            }
        });
        assert!(ran);
        TimeoutAction::ToDuration(Duration::from_millis(1))
    };
    house.handle().insert_source(timer, tell_all).unwrap();
    house.run(move || {
        let mut client = Client::connect(address);
        client.send("one");
        while client.text() != "heard 1" {}
        client.send("two");
        while client.text() != "heard 2" {}
    });
    assert_eq!(house.state.heard, ["one", "two"]);
    assert!(house.state.ticks >= 2);
}

#[test]
fn with_inside_a_handler_waits_until_the_handler_has_returned_and_needs_no_further_wake_up() {
    let mut house = House::new();
    let later: Later<Local<State>> = Later::default();
    let found = Rc::clone(&later);
    let (context, address) = listening(move |cx, _| {
        let local = found.borrow().clone().unwrap();
        let (id, again) = (cx.id(), local.clone());
        assert!(local.try_with(cx.data, |_, _| ()).is_none());
        assert!(local.with(cx.data, move |state, io| {
            let _ = io.conn(id).unwrap().send("second");
            // And what is queued by what was queued.
            again.with(state, move |_, io| {
                let _ = io.conn(id).unwrap().send("third");
            });
        }));
        cx.send("first").unwrap();
    });
    let local = house.insert(context);
    *later.borrow_mut() = Some(local);
    let heard = house.run(move || {
        let mut client = Client::connect(address);
        client.send("go");
        [client.text(), client.text(), client.text()]
    });
    assert_eq!(heard, ["first", "second", "third"]);
    later.take();
}

#[test]
fn idle_loop_sleeps_until_its_own_timer() {
    let mut house = House::new();
    let (context, address) = listening(echo);
    let local = house.insert(context);
    let _client = house.run(move || {
        let mut client = Client::connect(address);
        client.echoes("hello");
        client
    });
    let turns: Vec<u32> = (0..5)
        .map(|_| {
            let timer = Timer::from_duration(Duration::from_millis(40));
            let tick = |_, _: &mut (), state: &mut State| {
                state.over = true;
                TimeoutAction::Drop
            };
            house.handle().insert_source(timer, tick).unwrap();
            let mut turns = 0;
            while !house.state.over {
                house.event_loop.dispatch(None, &mut house.state).unwrap();
                turns += 1;
            }
            house.state.over = false;
            turns
        })
        .collect();
    assert_eq!(turns.iter().min(), Some(&1), "woken while idle: {turns:?}");
    local.leave(&house.handle(), &mut house.state);
}

#[test]
fn detached_context_is_inserted_again_and_its_connections_go_on() {
    let mut house = House::new();
    let (context, address) = listening(echo);
    let mut local = house.insert(context);
    for round in 0..3 {
        let mut client = house.run(move || {
            let mut client = Client::connect(address);
            client.echoes("before");
            client
        });
        let context = local.detach(&house.handle()).unwrap();
        assert!(!local.is_there());
        assert!(local.detach(&house.handle()).is_none());
        assert!(!local.with(&mut house.state, |_, _| panic!("it has gone")));
        assert!(house.handle().disable(&local.token()).is_err(), "the source is still there");
        local = house.insert(context);
        house.run(move || client.echoes("after"));
        assert_eq!(house.state.opened, round + 1);
    }
    local.leave(&house.handle(), &mut house.state);
    assert_eq!(house.state.closed, 3);
}

#[test]
fn source_that_is_disabled_serves_nobody_until_it_is_enabled() {
    let mut house = House::new();
    let (context, address) = listening(echo);
    let local = house.insert(context);
    house.handle().disable(&local.token()).unwrap();
    let peer = thread::spawn(move || Client::connect(address).echoes("hello"));
    house.event_loop.dispatch(Duration::from_millis(20), &mut house.state).unwrap();
    assert_eq!(house.state.opened, 0);
    house.handle().enable(&local.token()).unwrap();
    house.until("the peer has gone", |state| state.closed == 1);
    peer.join().unwrap();
}

#[test]
fn handler_can_have_its_own_context_leave() {
    let mut house = House::new();
    let later: Later<Local<State>> = Later::default();
    let (found, handle) = (Rc::clone(&later), house.handle());
    let (context, address) = listening(move |cx, _| {
        let local = found.borrow().clone().unwrap();
        assert!(local.detach(&handle).is_none(), "it is busy");
        local.with(cx.data, |state, _| state.heard.push("queued".to_owned()));
        local.leave(&handle, cx.data);
        cx.send("farewell").unwrap();
    });
    let local = house.insert(context);
    *later.borrow_mut() = Some(local.clone());
    let ended = house.run(move || {
        let mut client = Client::connect(address);
        client.send("go");
        assert_eq!(client.text(), "farewell");
        client.receive()
    });
    assert_eq!(ended, Some((0x88, "\u{3}\u{fffd}".to_owned())), "a Close with 1001");
    assert!(!local.is_there());
    assert_eq!((house.state.closed, house.state.heard.len()), (1, 1));
    assert!(house.handle().disable(&local.token()).is_err(), "the source is still there");
}

#[test]
fn source_that_a_handler_removes_goes_with_its_context_when_the_handler_has_returned() {
    let mut house = House::new();
    let later: Later<Local<State>> = Later::default();
    let (found, handle) = (Rc::clone(&later), house.handle());
    let witness = Rc::new(());
    let held = Rc::clone(&witness);
    let (context, address) = listening(move |cx, _| {
        let _ = &held;
        let local = found.borrow().clone().unwrap();
        handle.remove(local.token());
        assert!(local.is_there());
        cx.send("gone").unwrap();
        let (fresh, _) = listening(echo);
        // In the place of the one that goes.
        found.replace(Some(lodger_calloop::insert(&handle, fresh).unwrap()));
    });
    let local = house.insert(context);
    *later.borrow_mut() = Some(local.clone());
    house.run(move || {
        let mut client = Client::connect(address);
        client.send("go");
        while client.receive().is_some() {}
    });
    assert!(!local.is_there());
    assert!(later.borrow().as_ref().unwrap().is_there());
    assert_eq!(Rc::strong_count(&witness), 1, "the context is still there");
    later.take();
}

#[test]
fn context_goes_when_another_source_removes_it_while_it_uses_it() {
    let mut house = House::new();
    let (context, _) = listening(echo);
    let local = house.insert(context);
    let handle = house.handle();
    let token = local.token();
    let reached = local.clone();
    house.handle().insert_idle(move |state| {
        let ran = reached.with(state, move |_, io| {
            handle.remove(token);
            assert_eq!(io.link_count(), 1);
        });
        assert!(ran && !reached.is_there());
    });
    house.event_loop.dispatch(Duration::ZERO, &mut house.state).unwrap();
    assert!(!local.is_there());
}

#[test]
fn loop_that_is_dropped_takes_its_context_along() {
    let house = House::new();
    let witness = Rc::new(());
    let held = Rc::clone(&witness);
    let later: Later<Local<State>> = Later::default();
    let found = Rc::clone(&later);
    // Handlers that know their own way back keep nothing alive.
    let (context, address) = listening(move |_, _| {
        let _ = (&held, &found);
    });
    let local = house.insert(context);
    later.replace(Some(local.clone()));
    let House { event_loop, mut state } = house;
    drop(event_loop);
    assert!(!local.is_there());
    assert!(!local.with(&mut state, |_, _| panic!("it has gone")));
    assert_eq!(Rc::strong_count(&witness), 1);
    assert!(TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn panic_of_a_handler_ends_its_connection_and_loses_nothing_that_was_queued() {
    let mut house = House::new();
    let later: Later<Local<State>> = Later::default();
    let found = Rc::clone(&later);
    let (context, address) = listening(move |cx, text| {
        if text == "panic" {
            let local = found.borrow().clone().unwrap();
            local.with(cx.data, |state, _| state.heard.push("queued".to_owned()));
            std::panic::resume_unwind(Box::new("told to"));
        }
        echo(cx, text);
    });
    let local = house.insert(context);
    *later.borrow_mut() = Some(local.clone());
    let mut other = house.run(move || {
        let mut client = Client::connect(address);
        client.echoes("before");
        client
    });
    let peer = thread::spawn(move || {
        let mut client = Client::connect(address);
        client.send("panic");
        assert_eq!(client.receive(), None);
    });
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..1000 {
            house.event_loop.dispatch(PATIENCE, &mut house.state).unwrap();
        }
    }));
    assert_eq!(unwound.unwrap_err().downcast_ref(), Some(&"told to"));
    house.until("what was queued has run", |state| state.heard.len() == 1);
    peer.join().unwrap();
    house.run(move || other.echoes("after"));

    let used = catch_unwind(AssertUnwindSafe(|| {
        local.with(&mut house.state, |_, _| std::panic::resume_unwind(Box::new("told to")));
    }));
    assert!(used.is_err());
    house.run(move || Client::connect(address).echoes("still"));
    later.take();
}

#[test]
fn timer_of_the_loop_ticks_in_a_flood() {
    let mut house = House::new();
    let (context, address) = listening(|_, _| ());
    let local = house.insert(context);
    local.set_batch(1);
    let tick = |_, _: &mut (), state: &mut State| {
        state.ticks += 1;
        // What it took in between ticks is for one dispatch to bound.
        TimeoutAction::ToDuration(Duration::ZERO)
    };
    house.handle().insert_source(Timer::immediate(), tick).unwrap();
    let floods: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(address);
                let frames = [0x81, 0x81, 0, 0, 0, 0, b'x'].repeat(20_000);
                while client.0.write_all(&frames).is_ok() {}
            })
        })
        .collect();
    let (mut turns, mut from) = (0, 0);
    house.until("the flood has begun", |state| state.messages > 0);
    while house.state.messages < 200_000 {
        from = if turns == 0 { house.state.ticks } else { from };
        house.event_loop.dispatch(PATIENCE, &mut house.state).unwrap();
        turns += 1;
    }
    let ticks = house.state.ticks - from;
    assert!(turns >= 10, "{turns} turns are no flood");
    assert!(ticks >= turns / 2, "{ticks} ticks in {turns} turns");
    local.leave(&house.handle(), &mut house.state);
    for flood in floods {
        flood.join().unwrap();
    }
}

#[test]
fn remote_wakes_the_loop_from_a_thread() {
    let mut house = House::new();
    let (mut context, _) = listening(echo);
    let remote = context.remote().unwrap();
    let local = house.insert(context);
    let poster = thread::spawn(move || {
        for number in 0..100 {
            remote.post(move |state: &mut State, _| state.heard.push(number.to_string())).unwrap();
        }
    });
    house.until("all has come", |state| state.heard.len() == 100);
    poster.join().unwrap();
    local.leave(&house.handle(), &mut house.state);
}

#[test]
fn deadline_that_another_source_sets_is_kept() {
    let mut house = House::new();
    let (context, _) = listening(echo);
    let local = house.insert(context);
    assert!(local.with(&mut house.state, |_, io| {
        io.after(Duration::from_secs(1000), |_, _| panic!("that is far away"));
        io.after(Duration::from_millis(2), |state: &mut State, _| state.ticks += 1);
    }));
    house.until("it is due", |state| state.ticks == 1);
    local.leave(&house.handle(), &mut house.state);
}
