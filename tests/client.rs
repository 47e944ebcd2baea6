//! Clients in the simulated world: every outcome of connecting, and what is spoken after it.

#[path = "tls/authority.rs"]
#[allow(dead_code, reason = "the tests of servers use all of it")]
mod authority;
#[path = "client/campaign.rs"]
mod campaign;
#[path = "client/corners.rs"]
mod corners;
#[path = "simulation/dice.rs"]
#[allow(dead_code, reason = "the simulation of servers uses all of it")]
mod dice;
#[path = "client/errors.rs"]
mod errors;
#[path = "client/http.rs"]
mod exchanges;
#[path = "client/order.rs"]
mod order;
#[path = "client/places.rs"]
mod places;
#[path = "client/proxies.rs"]
mod proxies;
#[path = "client/race.rs"]
mod race;
#[path = "client/real.rs"]
mod real;
#[path = "client/steps.rs"]
mod steps;
#[path = "client/storm.rs"]
mod storm;
#[path = "client/town.rs"]
mod town;
#[path = "client/turns.rs"]
mod turns;

use lodger::sim::World;
use lodger::{Closed, Connect, Context, Cx, Decision, Io, Listen, Request, Response, Site, http, ws};
use std::time::Duration;

#[derive(Default)]
struct State {
    log: Vec<String>,
}

struct Note;

impl ws::Handler<State> for Note {
    fn connected(&mut self, cx: &mut Cx<'_, State>, response: &http::ResponseHead<'_>) -> bool {
        cx.data.log.push(format!("connected {}", response.status()));
        let _ = cx.send("hello");
        true
    }

    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        cx.data.log.push(format!("message {message:?}"));
        cx.close();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.log.push(format!("closed: {}", closed.reason));
    }
}

impl http::ClientHandler<State> for Note {
    fn connected(&mut self, cx: &mut Cx<'_, State>) {
        cx.data.log.push("connected".into());
    }

    fn response(&mut self, cx: &mut Cx<'_, State>, response: &http::ResponseHead<'_>) {
        cx.data.log.push(format!("response {}", response.status()));
    }

    fn body(&mut self, cx: &mut Cx<'_, State>, piece: &[u8]) {
        cx.data.log.push(format!("body {}", String::from_utf8_lossy(piece)));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.log.push(format!("closed: {}", closed.reason));
    }
}

struct Echo;

impl ws::Handler<State> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
        let _ = cx.send(message);
    }
}

fn accept(request: &Request<'_>, _: &mut State, _: &mut Io<State>) -> Decision<State> {
    match request.is_websocket() {
        true => Decision::websocket(Echo),
        false => Decision::respond(Response::text("page")),
    }
}

/// A world with a context that serves at port 80.
fn world(seed: u64) -> (World, Context<State>) {
    let mut world = World::new(seed);
    let mut context: Context<State> = world.builder().build();
    let site = context.io().add_site(Site::new().protocol("", accept)).unwrap();
    context.io().listen(Listen::tcp(([127, 0, 0, 1], 80)), site).unwrap();
    (world, context)
}

#[test]
fn a_websocket_of_ours_meets_a_server_of_ours() {
    let (mut world, mut context) = world(1);
    let mut state = State::default();
    context.io().connect(Connect::to("ws://localhost/"), Box::new(Note));
    world.run(&mut context, &mut state);
    let heard =
        ["connected 101 Switching Protocols", "message Text(\"hello\")", "closed: closed by us, code 1000"];
    assert_eq!(state.log, heard);
}

#[test]
fn a_page_comes_from_a_server_of_ours() {
    let (mut world, mut context) = world(1);
    let mut state = State::default();
    let connect = Connect::to("http://127.0.0.1/");
    context.io().connect_http(connect, http::ClientRequest::get(), Box::new(Note));
    world.run(&mut context, &mut state);
    assert_eq!(state.log, ["connected", "response 200 OK", "body page", "closed: exchange complete"]);
}

#[test]
fn a_response_whose_reader_pauses_at_every_piece_is_complete_in_the_end() {
    struct Slow;
    impl http::ClientHandler<State> for Slow {
        fn body(&mut self, cx: &mut Cx<'_, State>, piece: &[u8]) {
            cx.data.log.push(format!("body {}", String::from_utf8_lossy(piece)));
            cx.conn().pause();
            cx.conn().set_timer(Duration::from_secs(1));
        }

        fn timer(&mut self, cx: &mut Cx<'_, State>) {
            cx.conn().resume();
        }

        fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
            cx.data.log.push(format!("closed: {}", closed.reason));
        }
    }
    let (mut world, mut context) = world(1);
    let mut state = State::default();
    context.io().connect_http(Connect::to("http://127.0.0.1/"), http::ClientRequest::get(), Box::new(Slow));
    world.run_for(&mut context, &mut state, Duration::from_secs(10));
    assert_eq!(state.log, ["body page", "closed: exchange complete"]);
}

#[cfg(feature = "deflate")]
#[test]
fn messages_are_compressed_both_ways_where_both_want_it() {
    use lodger::ws::deflate::Deflate;
    let mut world = World::new(1);
    let mut context: Context<State> = world.builder().build();
    let mut state = State::default();
    let site = context.io().add_site(Site::new().protocol("", accept).deflate(Deflate::default())).unwrap();
    context.io().listen(Listen::tcp(([127, 0, 0, 1], 80)), site).unwrap();
    struct Long(usize);
    impl ws::Handler<State> for Long {
        fn connected(&mut self, cx: &mut Cx<'_, State>, response: &http::ResponseHead<'_>) -> bool {
            assert!(response.field("Sec-WebSocket-Extensions").is_some());
            let _ = cx.send(&*"again and ".repeat(1000));
            true
        }

        fn message(&mut self, cx: &mut Cx<'_, State>, message: ws::Message<'_>) {
            assert_eq!(message.as_bytes(), "again and ".repeat(1000).as_bytes());
            self.0 += 1;
            if self.0 < 3 {
                let _ = cx.send(message);
                return;
            }
            let received = cx.io.links().map(|link| link.received).max();
            cx.data.log.push(format!("few bytes: {}", received < Some(2000)));
            cx.close();
        }
    }
    context.io().connect(Connect::to("ws://localhost/").deflate(Deflate::default()), Box::new(Long(0)));
    world.run(&mut context, &mut state);
    assert_eq!(state.log, ["few bytes: true"]);
}
