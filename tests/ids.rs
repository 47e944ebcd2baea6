//! Ids say which context they are of: one that wanders to another finds nothing there.

use lodger::sim::{Endpoint, Frame, Loop, World};
use lodger::{
    AdoptRefused, ConnId, Connect, Context, Cx, Decision, Gone, Io, Listen, ListenError, ListenerId, Peer,
    ProtocolId, Request, Response, Site, SiteId, ws,
};
use std::time::Duration;

/// What the handlers of one context have heard.
#[derive(Default)]
struct Heard {
    opened: Vec<ConnId>,
    waiting: Vec<ConnId>,
    said: Vec<&'static str>,
}

struct Probe;

impl ws::Handler<Heard> for Probe {
    fn opened(&mut self, cx: &mut Cx<'_, Heard>, _request: &Request<'_>) {
        cx.data.opened.push(cx.id());
    }

    fn message(&mut self, cx: &mut Cx<'_, Heard>, message: ws::Message<'_>) {
        assert!(cx.send(message).is_ok());
    }

    fn writable(&mut self, cx: &mut Cx<'_, Heard>) {
        cx.data.said.push("writable");
    }

    fn event(&mut self, cx: &mut Cx<'_, Heard>, _event: Box<dyn std::any::Any>) {
        cx.data.said.push("event");
    }

    fn child_closed(&mut self, cx: &mut Cx<'_, Heard>, _child: ConnId) {
        cx.data.said.push("child closed");
    }
}

fn accept(request: &Request<'_>, heard: &mut Heard, _: &mut Io<Heard>) -> Decision<Heard> {
    if request.is_websocket() {
        return Decision::websocket(Probe);
    }
    heard.waiting.push(request.id());
    Decision::Later
}

/// A context with a site, a listener and an open WebSocket, in a loop of its own.
struct House {
    context: Context<Heard>,
    heard: Heard,
    own: Loop,
    site: SiteId,
    protocol: ProtocolId,
    listener: ListenerId,
    address: Peer,
    peer: Endpoint,
    conn: ConnId,
}

impl House {
    fn new(world: &mut World) -> Self {
        let mut context: Context<Heard> = world.builder().build();
        let io = context.io();
        let site = io.add_site(Site::new().protocol("", accept)).unwrap();
        let listener = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
        let address = io.local_addr(listener).unwrap();
        let protocol = io.protocol(site, "").unwrap();
        let mut own = world.new_loop();
        let mut heard = Heard::default();
        own.run(&mut context, &mut heard);
        let mut peer = world.connect(&address).unwrap();
        peer.upgrade("/");
        own.run(&mut context, &mut heard);
        assert!(peer.upgraded());
        let conn = heard.opened[0];
        Self { context, heard, own, site, protocol, listener, address, peer, conn }
    }

    fn io(&mut self) -> &mut Io<Heard> {
        self.context.io()
    }

    fn run(&mut self) {
        self.own.run(&mut self.context, &mut self.heard);
    }

    /// What the peer gets.
    fn frames(&mut self) -> Vec<Frame> {
        self.run();
        std::iter::from_fn(|| self.peer.next_frame()).collect()
    }

    fn leave(mut self) {
        self.own.leave(&mut self.context, &mut self.heard);
    }
}

/// Two contexts of one history: only what they have drawn tells their ids apart.
fn two() -> (World, House, House) {
    let mut world = World::new(1);
    let (here, there) = (House::new(&mut world), House::new(&mut world));
    assert_eq!(here.conn.to_string(), there.conn.to_string());
    assert_ne!(here.conn, there.conn);
    (world, here, there)
}

#[test]
fn a_conn_of_one_context_is_gone_in_another_and_its_stranger_is_left_alone() {
    let (_world, here, mut there) = two();
    let stranger = here.conn;
    let io = there.io();
    assert!(io.conn(stranger).is_none());
    assert_eq!(io.notify(stranger, Box::new(())), Err(Gone));
    assert_eq!(io.decide(stranger, Decision::websocket(Probe)), Err(Gone));
    assert_eq!(there.frames(), []);
    assert!(there.heard.said.is_empty());

    let own = there.conn;
    let io = there.io();
    assert_eq!(io.conn(own).map(|conn| conn.id()), Some(own));
    assert!(io.conn(own).unwrap().send("hello").is_ok());
    assert!(io.notify(own, Box::new(())).is_ok());
    assert_eq!(there.frames(), [Frame::text("hello")]);
    assert_eq!(there.heard.said, ["event"]);
    here.leave();
    there.leave();
}

#[test]
fn a_request_that_waits_is_decided_in_its_own_context_only() {
    let (mut world, mut here, mut there) = two();
    let mut clients = [&here, &there].map(|house| world.connect(&house.address).unwrap());
    clients.iter_mut().for_each(|client| client.get("/"));
    here.run();
    there.run();
    let stranger = here.heard.waiting[0];
    assert_eq!(stranger.to_string(), there.heard.waiting[0].to_string());
    let answer = || Decision::respond(Response::text("decided"));
    assert_eq!(there.io().decide(stranger, answer()), Err(Gone));
    there.run();
    assert!(clients[1].next_answer().is_none());
    assert!(here.io().decide(stranger, answer()).is_ok());
    here.run();
    assert!(clients[0].next_answer().is_some());
    here.leave();
    there.leave();
}

#[test]
fn a_protocol_of_one_context_has_no_conns_in_another() {
    let (_world, here, mut there) = two();
    let (stranger, own) = (here.protocol, there.protocol);
    let io = there.io();
    let frame = io.encode("to all");
    assert_eq!(io.broadcast(stranger, &frame).sent, 0);
    assert_eq!(io.conns_of(stranger).count(), 0);
    io.pause_all(stranger);
    io.request_writable_all(stranger);
    there.peer.send_text("not paused");
    assert_eq!(there.frames(), [Frame::text("not paused")]);
    assert!(there.heard.said.is_empty());

    let io = there.io();
    assert_eq!(io.broadcast(own, &frame).sent, 1);
    let conns: Vec<ConnId> = io.conns_of(own).collect();
    assert_eq!(conns, [there.conn]);
    here.leave();
    there.leave();
}

#[test]
fn a_site_of_one_context_is_no_site_in_another() {
    let (mut world, here, mut there) = two();
    let stranger = here.site;
    let (socket, _end) = world.socket().unwrap();
    let (listener, address) = (there.listener, there.address.clone());
    let io = there.io();
    assert!(io.protocol(stranger, "").is_none());
    let listen = Listen::tcp(([127, 0, 0, 1], 0));
    assert!(matches!(io.listen(listen, stranger), Err(ListenError::NoSite)));
    assert!(matches!(io.share_listener(listener, stranger), Err(ListenError::NoSite)));
    let refused = io.adopt_http(socket, b"", stranger).unwrap_err();
    assert!(matches!(refused.reason, AdoptRefused::NoSite));
    world.network().close(refused.descriptor);
    io.remove_site(stranger);
    there.run();
    assert!(world.connect(&address).is_ok(), "its own site goes on");
    here.leave();
    there.leave();
}

#[test]
fn a_listener_of_one_context_is_none_in_another() {
    let (mut world, here, mut there) = two();
    let stranger = here.listener;
    let (site, address) = (there.site, there.address.clone());
    let io = there.io();
    assert!(io.local_addr(stranger).is_none());
    assert!(matches!(io.share_listener(stranger, site), Err(ListenError::NoSite)));
    io.close_listener(stranger);
    there.run();
    assert!(world.connect(&address).is_ok(), "its own listener goes on");
    here.leave();
    there.leave();
}

#[test]
fn a_task_of_one_context_is_not_cancelled_by_another() {
    let (_world, mut here, mut there) = two();
    let task = |house: &mut House| {
        house.io().after(Duration::ZERO, |heard: &mut Heard, _: &mut Io<Heard>| heard.said.push("task"))
    };
    let (stranger, own) = (task(&mut here), task(&mut there));
    assert_ne!(stranger, own);
    assert!(!there.io().cancel(stranger));
    there.run();
    assert_eq!(there.heard.said, ["task"]);
    assert!(here.io().cancel(stranger));
    here.leave();
    there.leave();
}

#[test]
fn a_parent_of_another_context_hears_nothing_and_neither_does_its_stranger() {
    let (mut world, here, mut there) = two();
    // The conn whose place is the parent's has to be another than the child.
    let mut second = world.connect(&there.address).unwrap();
    second.upgrade("/");
    there.run();
    let child = there.heard.opened[1];
    there.io().conn(child).unwrap().set_parent(here.conn);
    there.io().conn(child).unwrap().abort();
    there.run();
    assert!(there.io().conn(child).is_none());
    assert!(there.heard.said.is_empty());
    here.leave();
    there.leave();
}

#[test]
fn a_remote_passes_over_ids_of_another_context() {
    let (_world, here, mut there) = two();
    let remote = there.context.remote().unwrap();
    there.run();
    let frame = there.io().encode("to all");
    remote.notify(here.conn, Box::new(())).unwrap();
    remote.request_writable(here.conn).unwrap();
    remote.request_writable_all(here.protocol).unwrap();
    remote.broadcast(here.protocol, frame.clone()).unwrap();
    assert_eq!(there.frames(), []);
    assert_eq!(remote.waiting(), 0);
    assert!(there.heard.said.is_empty());

    remote.notify(there.conn, Box::new(())).unwrap();
    remote.request_writable(there.conn).unwrap();
    remote.broadcast(there.protocol, frame).unwrap();
    assert_eq!(there.frames(), [Frame::text("to all")]);
    assert_eq!(there.heard.said, ["event", "writable"]);
    here.leave();
    there.leave();
}

#[test]
fn the_id_of_what_was_not_connected_since_the_context_leaves_finds_nothing_anywhere() {
    let (_world, mut here, mut there) = two();
    here.io().shutdown(ws::CloseCode::NORMAL);
    let id = here.io().connect(Connect::to("ws://127.0.0.1:1/"), Box::new(Probe));
    assert!(here.io().conn(id).is_none() && there.io().conn(id).is_none());
    here.leave();
    there.leave();
}

#[test]
fn the_same_seed_draws_the_same_ids() {
    let ids = |seed| {
        let house = House::new(&mut World::new(seed));
        let shown = format!("{:#}", house.conn);
        house.leave();
        shown
    };
    assert_eq!(ids(7), ids(7));
    assert_ne!(ids(7), ids(8));
}

#[test]
fn contexts_of_the_system_draw_different_ids() {
    let id = || {
        let mut context: Context = Context::new();
        let id = context.io().after(Duration::ZERO, |_, _| {});
        context.abandon();
        id
    };
    let ids: Vec<_> = (0..8).map(|_| id()).collect();
    assert!(ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id)), "{ids:?}");
}
