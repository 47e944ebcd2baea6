//! Corners of clients: pauses, redirects, releases and ends, where bytes and events could be lost or taken for others.

use lodger::http::{ClientRequest, Fields, ResponseHead};
use lodger::sim::{Endpoint, Server, World};
use lodger::{Closed, ConnId, Connect, Context, Cx, Io, Limits, Peer, http, raw, resolve, ws};
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

type State = Vec<String>;

/// Notes what it hears, and does what `act` does at each event.
struct Script<F>(F);

impl<F: FnMut(&mut Cx<'_, State>, &str)> Script<F> {
    fn hear(&mut self, cx: &mut Cx<'_, State>, what: &str) {
        cx.data.push(what.to_owned());
        (self.0)(cx, what);
    }
}

impl<F: FnMut(&mut Cx<'_, State>, &str)> http::ClientHandler<State> for Script<F> {
    fn connected(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "connected");
    }

    fn interim(&mut self, cx: &mut Cx<'_, State>, response: &ResponseHead<'_>) {
        self.hear(cx, &format!("interim {}", response.status().code()));
    }

    fn response(&mut self, cx: &mut Cx<'_, State>, response: &ResponseHead<'_>) {
        self.hear(cx, &format!("response {}", response.status().code()));
    }

    fn body(&mut self, cx: &mut Cx<'_, State>, piece: &[u8]) {
        self.hear(cx, &format!("body {}", String::from_utf8_lossy(piece)));
    }

    fn body_complete(&mut self, cx: &mut Cx<'_, State>, _: &Fields) {
        self.hear(cx, "complete");
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "writable");
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "timer");
    }

    fn event(&mut self, cx: &mut Cx<'_, State>, _: Box<dyn std::any::Any>) {
        self.hear(cx, "event");
    }

    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.hear(cx, &format!("closed {:?}", closed.reason));
    }
}

impl<F: FnMut(&mut Cx<'_, State>, &str)> ws::Handler<State> for Script<F> {
    fn connected(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) -> bool {
        self.hear(cx, "connected");
        true
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "writable");
    }

    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.hear(cx, &format!("closed {:?}", closed.reason));
    }
}

impl<F: FnMut(&mut Cx<'_, State>, &str)> raw::Handler<State> for Script<F> {
    fn opened(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "opened");
    }

    fn received(&mut self, cx: &mut Cx<'_, State>, bytes: &[u8]) {
        self.hear(cx, &format!("received {}", String::from_utf8_lossy(bytes)));
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.hear(cx, "writable");
    }

    fn closed(mut self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.hear(cx, &format!("closed {:?}", closed.reason));
    }
}

struct Town {
    world: World,
    context: Context<State>,
    state: State,
    server: Server,
}

impl Town {
    /// With a server of the test's at port 80.
    fn new() -> Self {
        let mut world = World::new(1);
        let context = world.builder().build();
        let server = world.listen(&at(80)).unwrap();
        Self { world, context, state: State::new(), server }
    }

    fn io(&mut self) -> &mut Io<State> {
        self.context.io()
    }

    fn http(
        &mut self,
        request: ClientRequest,
        act: impl FnMut(&mut Cx<'_, State>, &str) + 'static,
    ) -> ConnId {
        self.http_to(Connect::to("http://127.0.0.1/"), request, act)
    }

    fn http_to(
        &mut self,
        connect: Connect,
        request: ClientRequest,
        act: impl FnMut(&mut Cx<'_, State>, &str) + 'static,
    ) -> ConnId {
        self.io().connect_http(connect, request, Box::new(Script(act)))
    }

    fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.state);
    }

    fn run_for(&mut self, duration: Duration) {
        self.world.run_for(&mut self.context, &mut self.state, duration);
    }

    /// The next connection, with what has come on it.
    fn accept(&mut self) -> (Endpoint, String) {
        self.run();
        let mut end = self.server.accept().expect("somebody has connected");
        self.run();
        let asked = String::from_utf8(end.take()).unwrap();
        (end, asked)
    }

    fn answer(&mut self, end: &mut Endpoint, bytes: &str) {
        end.send(bytes);
        self.run();
    }
}

fn at(port: u16) -> Peer {
    Peer::Inet(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn quiet(_: &mut Cx<'_, State>, _: &str) {}

// Pausing.

#[test]
fn who_pauses_at_the_last_piece_hears_after_resume_that_it_was_the_last() {
    let mut town = Town::new();
    let id = town.http(ClientRequest::get(), |cx, what| {
        if what.starts_with("body") {
            cx.conn().pause();
        }
    });
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(town.state, ["connected", "response 200", "body ab"]);
    town.io().conn(id).unwrap().resume();
    town.run();
    assert_eq!(town.state[3..], ["complete"]);
}

#[test]
fn who_pauses_at_a_response_without_content_hears_after_resume_that_it_is_complete() {
    let mut town = Town::new();
    let id = town.http(ClientRequest::get(), |cx, what| {
        if what.starts_with("response") {
            cx.conn().pause();
        }
    });
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 204 No Content\r\n\r\n");
    town.io().conn(id).unwrap().resume();
    town.run();
    assert_eq!(town.state, ["connected", "response 204", "complete"]);
}

#[test]
fn who_pauses_at_an_interim_response_hears_nothing_more_until_resume() {
    let mut town = Town::new();
    let id = town.http(ClientRequest::get(), |cx, what| {
        if what.starts_with("interim") {
            cx.conn().pause();
        }
    });
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(town.state, ["connected", "interim 103"]);
    town.io().conn(id).unwrap().resume();
    town.run();
    assert_eq!(town.state[2..], ["response 204", "complete"]);
}

#[test]
fn content_that_waits_for_100_is_sent_in_time_also_after_pause_and_resume() {
    let mut town = Town::new();
    let id = town.http(ClientRequest::post(b"hello").expect_continue(SECOND), quiet);
    let (mut end, asked) = town.accept();
    assert!(asked.ends_with("Expect: 100-continue\r\n\r\n"), "{asked}");
    let mut conn = town.io().conn(id).unwrap();
    conn.pause();
    conn.resume();
    town.run_for(100 * SECOND);
    assert_eq!(end.take(), b"hello", "{:?}", town.state);
}

// Which bytes belong to what.

#[test]
fn bytes_behind_a_response_are_never_the_response_to_a_request_that_was_made_after_it() {
    let mut town = Town::new();
    town.http(ClientRequest::get().target("/one"), |cx, what| {
        if what == "complete" {
            let _ = cx.conn().request(ClientRequest::get().target("/two"));
        }
    });
    let (mut end, _) = town.accept();
    town.answer(
        &mut end,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 203 Smuggled\r\nContent-Length: 4\r\n\r\nevil",
    );
    assert!(!town.state.contains(&"response 203".to_owned()), "{:?}", town.state);
}

// Redirects.

#[test]
fn a_redirect_is_relative_to_what_was_asked_for() {
    let mut town = Town::new();
    town.http(ClientRequest::get().target("/a/b"), quiet);
    let (mut end, asked) = town.accept();
    assert!(asked.starts_with("GET /a/b "), "{asked}");
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: c\r\nContent-Length: 0\r\n\r\n");
    let (_, asked) = town.accept();
    assert!(asked.starts_with("GET /a/c "), "{asked}");
}

#[test]
fn redirects_are_followed_also_where_the_server_is_given_by_its_parts() {
    let mut town = Town::new();
    town.http_to(Connect::tcp("127.0.0.1", 80), ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: /c\r\nContent-Length: 0\r\n\r\n");
    town.run();
    assert!(town.server.accept().is_some(), "{:?}", town.state);
}

#[test]
fn a_redirect_of_content_that_cannot_be_sent_again_is_the_handlers() {
    let mut town = Town::new();
    town.http(ClientRequest::new("PUT").content_stream(Some(5)), |cx, what| {
        if what == "connected" {
            let _ = cx.write(b"hello");
        }
    });
    let (mut end, asked) = town.accept();
    assert!(asked.ends_with("\r\n\r\nhello"), "{asked}");
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: /c\r\nContent-Length: 0\r\n\r\n");
    town.run_for(1000 * SECOND);
    assert_eq!(town.state, ["connected", "response 302", "complete", "closed Completed"]);
}

#[test]
fn what_was_asked_of_another_server_is_not_asked_of_the_one_that_a_redirect_led_to_with_credentials() {
    let mut town = Town::new();
    let mut other = town.world.listen(&at(81)).unwrap();
    town.http(ClientRequest::get(), |cx, what| {
        if what == "complete" && cx.data.iter().filter(|what| *what == "complete").count() == 1 {
            let _ = cx
                .conn()
                .request(ClientRequest::get().target("/private").field("Authorization", "Bearer secret"));
        }
    });
    let (mut end, _) = town.accept();
    town.answer(
        &mut end,
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:81/\r\nContent-Length: 0\r\n\r\n",
    );
    let mut end = other.accept().unwrap();
    town.run();
    end.take();
    town.answer(&mut end, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let leaked = String::from_utf8(end.take()).unwrap();
    assert!(!leaked.contains("secret"), "{leaked}");
}

#[test]
fn a_reason_of_connecting_is_told_only_to_those_who_were_never_connected() {
    let mut town = Town::new();
    town.http(ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(town.state[0], "connected");
    assert!(!town.state[1].starts_with("closed Connect"), "{:?}", town.state);
}

#[test]
fn who_is_redirected_hears_writable_that_was_asked_for_meanwhile() {
    let mut town = Town::new();
    town.world.names().set("b.example", [[127, 0, 0, 1].into()], SECOND);
    let id = town.http(ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n");
    town.io().conn(id).unwrap().request_writable();
    town.run_for(2 * SECOND);
    assert!(town.state.contains(&"writable".to_owned()), "{:?}", town.state);
}

// Leaving.

#[test]
fn who_is_looking_up_where_a_redirect_leads_hears_that_the_context_leaves() {
    let mut town = Town::new();
    town.world.names().silence("b.example");
    town.http(ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n");
    town.world.leave(&mut town.context, &mut town.state);
    assert_eq!(town.state, ["connected", "closed Leaving"]);
}

#[test]
fn who_is_on_the_way_to_where_a_redirect_leads_hears_that_the_context_leaves_and_tries_nothing_more() {
    let mut town = Town::new();
    let addresses = [[192, 0, 2, 1], [192, 0, 2, 2]];
    for address in addresses {
        town.world.reach(&Peer::Inet((address, 80).into()), lodger::sim::Reach::Silent);
    }
    town.world.names().set("b.example", addresses.map(Into::into), Duration::ZERO);
    town.http(ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n");
    town.world.leave(&mut town.context, &mut town.state);
    assert_eq!(town.state, ["connected", "closed Leaving"]);
}

#[test]
fn a_graceful_end_is_not_held_up_by_who_was_redirected() {
    let mut town = Town::new();
    town.http(ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.io().shutdown(ws::CloseCode::GOING_AWAY);
    town.run();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n");
    if let Some(mut end) = town.server.accept() {
        town.answer(&mut end, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        town.run_for(1000 * SECOND);
    }
    assert_eq!(town.context.link_count(), 0, "{:?}", town.state);
}

/// Connects again whatever comes, until it has done so too often.
struct Again;

impl raw::Handler<State> for Again {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        cx.data.push(format!("{:?}", closed.reason));
        if cx.data.len() < 5000 {
            cx.io.connect_raw(Connect::to("tcp://127.0.0.1:80"), self);
        }
    }
}

#[test]
fn a_handler_that_always_connects_again_does_not_keep_the_context_from_leaving() {
    let mut town = Town::new();
    town.io().connect_raw(Connect::to("tcp://127.0.0.1:80"), Box::new(Again));
    town.run();
    town.world.leave(&mut town.context, &mut town.state);
    assert!(town.state.len() < 10, "closed {} times", town.state.len());
}

#[test]
fn a_question_whose_answer_asks_again_does_not_keep_a_service_call_from_returning() {
    fn ask(io: &mut Io<State>) {
        io.look_up(resolve::Lookup::Addresses("localhost".into()), |_, state, io| {
            state.push("answer".into());
            if state.len() < 100_000 {
                ask(io);
            }
        });
    }
    let mut town = Town::new();
    ask(town.context.io());
    town.world.turn(&mut town.context, &mut town.state);
    assert!(town.state.len() < 10_000, "{} answers in one turn", town.state.len());
}

#[test]
fn what_was_asked_of_the_resolver_is_answered_when_the_context_leaves() {
    let mut town = Town::new();
    town.world.names().silence("b.example");
    town.io().look_up(resolve::Lookup::Addresses("b.example".into()), |answer, state, _| {
        state.push(format!("{answer:?}"));
    });
    town.run();
    town.world.leave(&mut town.context, &mut town.state);
    assert_eq!((town.state.len(), town.world.names().cancelled()), (1, 1));
}

// Closing, and asking for room.

#[test]
fn what_was_sent_in_connected_goes_out_before_a_close_there() {
    let mut town = Town::new();
    town.io().connect(
        Connect::to("ws://127.0.0.1/"),
        Box::new(Script(|cx: &mut Cx<'_, State>, what: &str| {
            if what == "connected" {
                cx.send("last words").unwrap();
                cx.close();
            }
        })),
    );
    let (mut end, asked) = town.accept();
    town.answer(&mut end, &accepting(&asked));
    let sent = end.take();
    assert!(!sent.is_empty() && sent[0] == 0x81, "{sent:?}, {:?}", town.state);
    assert!(sent[2 + 4 + 10..].starts_with(&[0x88]), "no Close");
}

#[test]
fn writable_comes_once_also_where_it_was_asked_for_twice_before_the_connection_stood() {
    let mut town = Town::new();
    let id = town.io().connect_raw(Connect::to("tcp://127.0.0.1:80"), Box::new(Script(quiet)));
    town.io().conn(id).unwrap().request_writable();
    town.io().conn(id).unwrap().request_writable();
    town.run();
    assert_eq!(town.state, ["opened", "writable"]);
}

#[test]
fn pausing_before_the_connection_stands_is_not_forgotten() {
    let mut town = Town::new();
    let id = town.io().connect_raw(Connect::to("tcp://127.0.0.1:80"), Box::new(Script(quiet)));
    town.io().conn(id).unwrap().pause();
    let (mut end, _) = town.accept();
    town.answer(&mut end, "early");
    assert_eq!(town.state, ["opened"]);
}

#[test]
fn a_stream_of_no_content_leaves_nothing_to_be_ended() {
    let mut town = Town::new();
    town.http(ClientRequest::new("POST").content_stream(Some(0)), quiet);
    let (_end, asked) = town.accept();
    assert!(asked.contains("Content-Length: 0\r\n"), "{asked}");
    town.run_for(1000 * SECOND);
    assert!(town.state.iter().any(|what| what.starts_with("closed TimedOut(Response)")), "{:?}", town.state);
}

#[test]
fn a_proxy_is_not_asked_for_a_unix_socket() {
    let mut town = Town::new();
    let connect = Connect::to("ws+unix:/run/a.sock:/").proxy(lodger::Proxy::http("127.0.0.1", 80));
    town.io().connect(connect, Box::new(Script(quiet)));
    town.run();
    let asked = town.server.accept().map(|mut end| {
        town.world.run(&mut town.context, &mut town.state);
        String::from_utf8(end.take()).unwrap()
    });
    assert_eq!(asked, None);
}

#[test]
fn names_are_found_again_after_the_host_has_refused_the_resolvers_descriptor_once() {
    let (fd, mut speaker) = std::io::pipe().unwrap();
    let resolver = Watching { fd: fd.into(), ids: Vec::new(), watched: false };
    let mut context: Context<State> = Context::builder().resolver(resolver).build();
    let (mut state, mut entries) = (State::new(), Vec::new());
    std::io::Write::write_all(&mut speaker, b"x").unwrap();
    let mut refusals = 1;
    for asked in 1..=2 {
        let connect = Connect::to("tcp://a.example:80").timeout(Duration::from_millis(300));
        context.io().connect_raw(connect, Box::new(Script(quiet)));
        while state.len() < asked {
            let mut host = Refusing { host: lodger_poll::VecHost(&mut entries), refusals: &mut refusals };
            let wait = context.prepare(&mut host);
            lodger_poll::compact(&mut entries);
            lodger_poll::poll(&mut entries, wait).unwrap();
            for entry in entries.iter_mut().filter(|entry| entry.revents != 0) {
                let _ = context.service_fd(entry, &mut state);
            }
            context.service_timeouts(&mut state);
        }
    }
    context.abandon();
    assert!(state[1].contains("NotFound"), "{state:?}");
}

/// Refuses the first descriptors.
struct Refusing<'a> {
    host: lodger_poll::VecHost<'a>,
    refusals: &'a mut u32,
}

impl lodger::Host for Refusing<'_> {
    fn add(&mut self, fd: std::os::fd::BorrowedFd<'_>, interest: lodger::Interest) -> std::io::Result<()> {
        if *self.refusals > 0 {
            *self.refusals -= 1;
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        self.host.add(fd, interest)
    }

    fn change(
        &mut self,
        fd: std::os::fd::BorrowedFd<'_>,
        before: lodger::Interest,
        interest: lodger::Interest,
    ) -> std::io::Result<()> {
        self.host.change(fd, before, interest)
    }

    fn remove(&mut self, fd: std::os::fd::BorrowedFd<'_>) {
        self.host.remove(fd);
    }
}

/// Answers when its descriptor, which it watches once, is readable.
struct Watching {
    fd: std::os::fd::OwnedFd,
    ids: Vec<resolve::LookupId>,
    watched: bool,
}

impl resolve::Resolver for Watching {
    fn look_up(&mut self, id: resolve::LookupId, _: &resolve::Lookup, hands: &mut resolve::Hands<'_>) {
        use std::os::fd::AsFd;
        self.ids.push(id);
        if !std::mem::replace(&mut self.watched, true) {
            hands.watch(self.fd.as_fd(), lodger::Interest::READ).unwrap();
        }
    }

    fn cancel(&mut self, id: resolve::LookupId, _: &mut resolve::Hands<'_>) {
        self.ids.retain(|known| *known != id);
    }

    fn ready(&mut self, _: std::os::fd::RawFd, _: lodger::Ready, hands: &mut resolve::Hands<'_>) {
        use std::os::fd::AsFd;
        hands.unwatch(std::os::fd::AsRawFd::as_raw_fd(&self.fd.as_fd()));
        self.watched = false;
        for id in self.ids.drain(..) {
            hands.answer(id, Err(resolve::ResolveError::NotFound));
        }
    }
}

// One outcome each.

struct Connects;

impl http::Handler<State> for Connects {
    fn request(&mut self, cx: &mut Cx<'_, State>, _: &lodger::Request<'_>) {
        // An address that cannot be used is told in `closed`.
        cx.io.connect_raw(Connect::to("no-url"), Box::new(Script(quiet)));
        let _ = cx.respond(lodger::Response::text("page"));
    }
}

#[test]
fn a_connect_from_an_exchange_that_ends_at_once_has_its_outcome_too() {
    let mut world = World::new(1);
    let mut context: Context<State> = world.builder().build();
    let site = lodger::Site::new()
        .protocol("", |_: &lodger::Request<'_>, _: &mut State, _: &mut Io<State>| {
            lodger::Decision::http(Connects)
        });
    let site = context.io().add_site(site).unwrap();
    context.io().listen(lodger::Listen::tcp(([127, 0, 0, 1], 80)), site).unwrap();
    let mut state = State::new();
    let mut client = world.connect(&at(80)).unwrap();
    client.get("/");
    world.run(&mut context, &mut state);
    assert!(client.next_answer().is_some());
    assert_eq!(state, ["closed Connect(Url(NoScheme))"]);
}

#[test]
fn a_resolver_that_panics_once_answers_the_next_question() {
    struct Panics(u32);
    impl resolve::Resolver for Panics {
        fn look_up(&mut self, id: resolve::LookupId, _: &resolve::Lookup, hands: &mut resolve::Hands<'_>) {
            self.0 += 1;
            assert!(self.0 > 1, "as meant");
            hands.answer(id, Err(resolve::ResolveError::NotFound));
        }

        fn cancel(&mut self, _: resolve::LookupId, _: &mut resolve::Hands<'_>) {}
    }
    let mut world = World::new(1);
    let mut context: Context<State> = world.builder().resolver(Panics(0)).build();
    let mut state = State::new();
    for _ in 0..2 {
        let connect = || context.io().connect_raw(Connect::to("tcp://a.example:80"), Box::new(Script(quiet)));
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(connect));
    }
    world.run_for(&mut context, &mut state, 60 * SECOND);
    assert!(state.iter().any(|what| what.contains("NotFound")), "{state:?}");
}

// Time.

#[test]
fn the_response_has_its_time_from_when_the_request_is_out() {
    let mut town = Town::new();
    let limits = Limits { send_max: usize::MAX, ..Limits::default() };
    let connect = Connect::to("http://127.0.0.1/").limits(limits);
    town.http_to(connect, ClientRequest::post(vec![b'x'; 4_000_000]), quiet);
    town.run();
    let mut end = town.server.accept().unwrap();
    for _ in 0..20 {
        end.read_at_most(100_000);
        town.run_for(5 * SECOND);
    }
    assert_eq!(town.state, ["connected"]);
}

#[test]
fn a_connection_without_a_request_ends_after_the_time_for_that() {
    let mut town = Town::new();
    town.http(ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 204 No Content\r\n\r\n");
    town.run_for(2 * Limits::default().keep_alive);
    assert_eq!(town.context.link_count(), 0, "{:?}", town.state);
}

// TLS.

#[cfg(feature = "tls-ring")]
mod secure {
    use super::*;
    use lodger::tls::Client;

    fn client() -> Client {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let roots = certificate.self_signed(&key).unwrap().pem();
        Client::builder().roots_pem(roots.as_bytes()).build().unwrap()
    }

    #[test]
    fn a_server_that_goes_away_within_the_handshake_is_worth_another_try() {
        struct Transient;
        impl raw::Handler<State> for Transient {
            fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
                cx.data.push(format!("{} {:?}", closed.reason.is_transient(), closed.reason));
            }
        }
        let mut town = Town::new();
        let connect = Connect::to("tls://127.0.0.1:80").tls(client());
        town.io().connect_raw(connect, Box::new(Transient));
        town.run();
        let mut end = town.server.accept().unwrap();
        town.run();
        assert!(!end.take().is_empty());
        end.close();
        town.run();
        assert!(town.state[0].starts_with("true"), "{:?}", town.state);
    }

    #[test]
    fn what_comes_behind_the_answer_of_a_proxy_belongs_to_the_tls_handshake() {
        let mut town = Town::new();
        let connect =
            Connect::to("tls://a.example:443").tls(client()).proxy(lodger::Proxy::http("127.0.0.1", 80));
        town.io().connect_raw(connect, Box::new(Script(quiet)));
        let (mut end, _) = town.accept();
        // An alert: handshake_failure, and fatal.
        end.send(*b"HTTP/1.1 200 OK\r\n\r\n\x15\x03\x03\x00\x02\x02\x28");
        town.run();
        assert!(town.state.iter().any(|what| what.contains("Alert")), "{:?}", town.state);
    }
}

// Compression.

#[cfg(feature = "deflate")]
#[test]
fn clients_that_connect_together_keep_to_the_bound_of_memory_for_context_takeover() {
    use lodger::ws::deflate::Deflate;
    let offer = || {
        let mut options = Deflate::default();
        (options.server_no_context_takeover, options.client_no_context_takeover) = (false, false);
        options
    };
    let reserved = |clients: usize, limit: usize| {
        let mut world = World::new(1);
        let mut context: Context<State> = world.builder().max_deflate_memory(limit).build();
        let mut server = world.listen(&at(80)).unwrap();
        let mut state = State::new();
        for _ in 0..clients {
            context.io().connect(Connect::to("ws://127.0.0.1/").deflate(offer()), Box::new(Script(quiet)));
        }
        world.run(&mut context, &mut state);
        let mut ends = Vec::new();
        while let Some(mut end) = server.accept() {
            world.run(&mut context, &mut state);
            let asked = String::from_utf8(end.take()).unwrap();
            let mut answer = accepting(&asked);
            let agreed = match asked.contains("server_no_context_takeover") {
                true => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                false => "permessage-deflate",
            };
            answer.insert_str(answer.len() - 2, &format!("Sec-WebSocket-Extensions: {agreed}\r\n"));
            end.send(answer);
            ends.push(end);
        }
        world.run(&mut context, &mut state);
        assert_eq!(state, vec!["connected"; clients]);
        context.io().deflate_metrics().reserved
    };
    let each = reserved(1, usize::MAX);
    assert!(each > 0);
    let all = reserved(10, each);
    assert!(all <= each, "{all} bytes where {each} are allowed");
}

/// The answer to an opening handshake.
fn accepting(asked: &str) -> String {
    let key = asked.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = ws::handshake::accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        std::str::from_utf8(accept.as_bytes()).unwrap()
    )
}

// Giving the descriptor back.

fn released(end: &str, pieces: &[&str]) -> State {
    struct Taker(String);
    impl http::ClientHandler<State> for Taker {
        fn interim(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) {
            if self.0 == "interim" {
                cx.conn().release();
            }
        }

        fn response(&mut self, cx: &mut Cx<'_, State>, _: &ResponseHead<'_>) {
            cx.data.push("response".into());
        }

        fn body_complete(&mut self, cx: &mut Cx<'_, State>, _: &Fields) {
            cx.data.push("complete".into());
            if self.0 == "complete" {
                cx.conn().release();
            }
        }

        fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
            cx.data.push(match closed.reason {
                lodger::CloseReason::Released { unread, .. } => {
                    format!("released, unread {}", String::from_utf8_lossy(&unread))
                }
                reason => format!("closed {reason:?}"),
            });
        }
    }
    let mut town = Town::new();
    let taker = Box::new(Taker(end.to_owned()));
    town.io().connect_http(Connect::to("http://127.0.0.1/"), ClientRequest::get(), taker);
    let (mut end, _) = town.accept();
    for piece in pieces {
        town.answer(&mut end, piece);
    }
    town.state
}

#[test]
fn a_descriptor_is_given_back_with_what_came_behind_the_response() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore";
    assert_eq!(released("complete", &[answer]), ["response", "complete", "released, unread more"]);
}

#[test]
fn a_descriptor_is_given_back_also_behind_the_last_response_of_a_connection() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(released("complete", &[answer]), ["response", "complete", "released, unread "]);
}

#[test]
fn a_descriptor_that_is_given_back_at_an_interim_response_comes_with_all_that_followed() {
    let answer = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(released("interim", &[answer]), ["released, unread HTTP/1.1 204 No Content\r\n\r\n"]);
}

// What was not sent.

#[test]
fn what_was_not_sent_of_a_request_that_was_answered_early_is_counted() {
    struct Counts;
    impl http::ClientHandler<State> for Counts {
        fn body_complete(&mut self, _: &mut Cx<'_, State>, _: &Fields) {}

        fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
            cx.data.push(format!("{}", closed.unsent > 0));
        }
    }
    let mut town = Town::new();
    let limits = Limits { send_max: usize::MAX, ..Limits::default() };
    let connect = Connect::to("http://127.0.0.1/").limits(limits);
    town.io().connect_http(connect, ClientRequest::post(vec![b'x'; 4_000_000]), Box::new(Counts));
    town.run();
    let mut end = town.server.accept().unwrap();
    end.read_at_most(1000);
    town.run();
    let answer = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    town.answer(&mut end, answer);
    assert_eq!(town.state, ["true"]);
}

#[test]
fn a_users_name_without_a_letter_is_not_said_to_a_socks_proxy() {
    let mut town = Town::new();
    let proxy = lodger::Proxy::socks5("127.0.0.1", 80).credentials("", "secret");
    town.io().connect_raw(Connect::to("tcp://a.example:1").proxy(proxy), Box::new(Script(quiet)));
    let (mut end, _) = town.accept();
    end.send([5, 2]);
    town.run();
    assert_eq!(end.take(), b"", "RFC 1929, section 2: ULEN is 1 to 255");
}

// Events on the way to where a redirect leads.

#[test]
fn a_timer_that_is_due_on_the_way_to_where_a_redirect_leads_is_heard() {
    let mut town = Town::new();
    town.world.names().set("b.example", [[127, 0, 0, 1].into()], SECOND);
    town.http(ClientRequest::get(), |cx, what| {
        if what == "connected" {
            cx.conn().set_timer(SECOND / 2);
        }
    });
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n");
    town.run_for(2 * SECOND);
    assert_eq!(town.state, ["connected", "timer"]);
}

#[test]
fn an_event_on_the_way_to_where_a_redirect_leads_is_heard() {
    let mut town = Town::new();
    town.world.names().set("b.example", [[127, 0, 0, 1].into()], SECOND);
    let id = town.http(ClientRequest::get(), quiet);
    let (mut end, _) = town.accept();
    town.answer(&mut end, "HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n");
    town.io().notify(id, Box::new(())).unwrap();
    town.run_for(2 * SECOND);
    assert_eq!(town.state, ["connected", "event"]);
}

// The closing handshake.

#[test]
fn a_client_leaves_it_to_the_server_to_end_the_connection_after_both_closes() {
    let mut town = Town::new();
    let id = town.io().connect(Connect::to("ws://127.0.0.1/"), Box::new(Script(quiet)));
    let (mut end, asked) = town.accept();
    town.answer(&mut end, &accepting(&asked));
    town.io().conn(id).unwrap().close();
    town.run();
    assert_eq!(end.take()[0], 0x88);
    end.send([0x88, 2, 3, 0xe8]);
    town.run();
    assert!(!end.at_end(), "RFC 6455, section 7.1.1: the server ends first");
}

// The simulated world.

#[test]
fn a_server_of_the_simulated_world_accepts_who_has_gone_already() {
    let mut town = Town::new();
    let id = town.io().connect_raw(Connect::to("tcp://127.0.0.1:80"), Box::new(Script(quiet)));
    town.run();
    town.io().conn(id).unwrap().abort();
    town.run();
    let _ = town.server.accept();
}
