//! Every limit of time ends what it bounds when it is reached, in simulated time: not before, at most one late turn after.

use lodger::sim::{Chaos, Endpoint, World};
use lodger::{
    CloseReason, Closed, Context, Cx, Decision, Io, Limits, Listen, Peer, Request, Response, Site, Timeout,
    http, raw, ws,
};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

type Ends = Vec<(Option<Timeout>, usize)>;

struct Silent;

fn note(ends: &mut Ends, closed: &Closed) {
    let which = if let CloseReason::TimedOut(which) = &closed.reason { Some(*which) } else { None };
    ends.push((which, closed.unsent));
}

impl ws::Handler<Ends> for Silent {
    fn message(&mut self, cx: &mut Cx<'_, Ends>, message: ws::Message<'_>) {
        match message {
            ws::Message::Text("close") => cx.close(),
            ws::Message::Text("much") => {
                let _ = cx.send(&vec![0; 100_000]);
            }
            _ => {}
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Ends>, closed: Closed) {
        note(cx.data, &closed);
    }
}

impl raw::Handler<Ends> for Silent {
    fn received(&mut self, cx: &mut Cx<'_, Ends>, bytes: &[u8]) {
        match bytes {
            b"c" => cx.close(),
            _ => {
                let _ = cx.write(&vec![0; 100_000]);
            }
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Ends>, closed: Closed) {
        note(cx.data, &closed);
    }
}

impl http::Handler<Ends> for Silent {
    fn body_complete(&mut self, cx: &mut Cx<'_, Ends>, _: &http::Fields) {
        let _ = cx.respond(Response::text("ok"));
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Ends>, closed: Closed) {
        note(cx.data, &closed);
    }
}

/// Never completes its response, and perhaps begins it, and closes within it.
struct Mute {
    begins: bool,
    closes: bool,
}

impl http::Handler<Ends> for Mute {
    fn body_complete(&mut self, cx: &mut Cx<'_, Ends>, _: &http::Fields) {
        if self.begins {
            let _ = cx.respond(Response::stream("text/plain"));
        }
        if self.closes {
            cx.close();
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Ends>, closed: Closed) {
        note(cx.data, &closed);
    }
}

fn decide(request: &Request<'_>, _: &mut Ends, _: &mut Io<Ends>) -> Decision<Ends> {
    match request.path() {
        "/later" => Decision::Later,
        "/mute" => Decision::http(Mute { begins: false, closes: false }),
        "/stream" => Decision::http(Mute { begins: true, closes: false }),
        "/close" => Decision::http(Mute { begins: true, closes: true }),
        _ if request.is_websocket() => Decision::websocket(Silent),
        _ => Decision::http(Silent),
    }
}

struct Case {
    name: &'static str,
    limits: Limits,
    raw: bool,
    /// What the peer does; the limit runs from its end.
    begin: fn(&mut Endpoint),
    /// A later part of it, after which the limit runs anew.
    go_on: Option<fn(&mut Endpoint)>,
    limit: Duration,
    /// There is a request that is answered before.
    answered: bool,
    /// What `closed` says, if there is a conn.
    told: Option<Timeout>,
    /// The beginning of what the peer hears at the limit.
    hears: &'static [u8],
    /// The link itself ends at this limit; else the peer hears something, and closing begins.
    ends: bool,
}

fn cases() -> Vec<Case> {
    let base = Limits {
        handshake: 400 * MS,
        head_time: 500 * MS,
        body_stall: 600 * MS,
        keep_alive: 700 * MS,
        closing: 800 * MS,
        write_stall: 900 * MS,
        begin_response: 1000 * MS,
        half_closed: 650 * MS,
        ..Limits::default()
    };
    let case = |name, begin, limit| Case {
        name,
        limits: base.clone(),
        raw: false,
        begin,
        go_on: None,
        limit,
        answered: false,
        told: None,
        hears: b"",
        ends: true,
    };
    vec![
        case("a peer that says nothing", |_| {}, base.handshake),
        Case {
            hears: b"HTTP/1.1 408",
            ends: false,
            ..case("a head that is never finished", |peer| peer.send("GET / HTTP/1.1\r\n"), base.handshake)
        },
        Case {
            hears: b"HTTP/1.1 408",
            ends: false,
            answered: true,
            go_on: Some(|peer| peer.send("GET / HT")),
            ..case("a second head that is never finished", |peer| peer.get("/"), base.head_time)
        },
        Case { answered: true, ..case("an idle connection", |peer| peer.get("/"), base.keep_alive) },
        Case {
            hears: b"HTTP/1.1 503",
            ends: false,
            ..case("a decision that never comes", |peer| peer.get("/later"), base.handshake)
        },
        Case {
            hears: b"HTTP/1.1 408",
            ends: false,
            go_on: Some(|peer| peer.send("x")),
            told: Some(Timeout::BodyStall),
            ..case(
                "content that stops",
                |peer| peer.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"),
                base.body_stall,
            )
        },
        Case {
            hears: b"HTTP/1.1 503",
            ends: false,
            told: Some(Timeout::BeginResponse),
            ..case("a response that never begins", |peer| peer.get("/mute"), base.begin_response)
        },
        Case {
            go_on: Some(Endpoint::finish),
            told: Some(Timeout::HalfClosed),
            ..case("an end before a response", |peer| peer.get("/mute"), base.half_closed)
        },
        Case {
            go_on: Some(Endpoint::finish),
            told: Some(Timeout::HalfClosed),
            ..case("an end within a response", |peer| peer.get("/stream"), base.half_closed)
        },
        Case {
            told: Some(Timeout::Closing),
            ..case("content that is closed and not completed", |peer| peer.get("/close"), base.closing)
        },
        Case {
            go_on: Some(|peer| peer.send_text("close")),
            told: Some(Timeout::Closing),
            ..case("a Close that is not answered", |peer| peer.upgrade("/"), base.closing)
        },
        Case {
            raw: true,
            told: Some(Timeout::Closing),
            ..case("an end that is not followed", |peer| peer.send("c"), base.closing)
        },
        Case {
            raw: true,
            told: Some(Timeout::WriteStall),
            ..case(
                "bytes that are not read",
                |peer| {
                    peer.stop_reading();
                    peer.send("w");
                },
                base.write_stall,
            )
        },
        Case {
            go_on: Some(|peer| {
                peer.take();
                peer.stop_reading();
                peer.send_text("much");
            }),
            told: Some(Timeout::WriteStall),
            ..case("a message that is not read", |peer| peer.upgrade("/"), base.write_stall)
        },
        Case {
            limits: Limits { ping_interval: Some(300 * MS), pong_wait: 200 * MS, ..base.clone() },
            go_on: Some(|peer| peer.send_text("hello")),
            told: Some(Timeout::PongWait),
            ..case("a Ping that is not answered", |peer| peer.upgrade("/"), 500 * MS)
        },
        Case {
            limits: Limits { idle: Some(450 * MS), ..base.clone() },
            go_on: Some(|peer| {
                peer.take();
                peer.send_text("hello");
            }),
            hears: b"\x88",
            ends: false,
            told: Some(Timeout::Idle),
            ..case("a conn without messages", |peer| peer.upgrade("/"), 450 * MS)
        },
    ]
}

fn address(context: &mut Context<Ends>, case: &Case) -> Peer {
    let io = context.io();
    let any = Listen::tcp(([127, 0, 0, 1], 0));
    let listener = if case.raw {
        io.listen_raw(any, case.limits.clone(), |_, _, _| Some(Box::new(Silent)))
    } else {
        let site = io.add_site(Site::new().protocol("", decide).limits(case.limits.clone())).unwrap();
        io.listen(any, site)
    };
    io.local_addr(listener.expect("it listens")).expect("it listens")
}

/// Runs every case in a world of this seed.
pub(crate) fn run(seed: u64, chaos: Chaos) {
    for case in cases() {
        let name = case.name;
        let (mut world, mut ends) = (World::new(seed), Ends::new());
        let mut context: Context<Ends> = world.builder().build();
        let address = address(&mut context, &case);
        // A write that was cut short goes on at any readiness that is made up, and the peer has taken something then.
        world.chaos(Chaos { buffer: 4096, small_buffers: 0.0, short_writes: 0.0, ..chaos });
        let mut peer = world.connect(&address).expect("it listens");
        (case.begin)(&mut peer);
        world.run(&mut context, &mut ends);
        if let Some(go_on) = case.go_on {
            // Within the limit, which it moves.
            world.run_for(&mut context, &mut ends, 150 * MS);
            go_on(&mut peer);
            world.run(&mut context, &mut ends);
        }
        if case.answered {
            assert_eq!(peer.next_answer().map(|answer| answer.status), Some(200), "seed {seed}: {name}");
        }
        let links = |context: &mut Context<Ends>| context.io().link_count();
        // The listener is one.
        world.run_for(&mut context, &mut ends, case.limit - 2 * MS);
        assert_eq!(links(&mut context), 2, "seed {seed}, ended early: {name}");
        assert_eq!(
            ends.iter().filter(|(why, _)| why.is_some()).count(),
            0,
            "seed {seed}, told early: {name}"
        );
        world.run_for(&mut context, &mut ends, 2 * MS + super::town::LATE);
        if case.ends {
            assert_eq!(links(&mut context), 1, "seed {seed}, ended late: {name}");
        } else {
            let heard = peer.take();
            assert!(heard.starts_with(case.hears), "seed {seed}, {name}: {heard:?}");
            // The peer does not follow: closing has its limit too.
            world.run_for(&mut context, &mut ends, case.limits.closing - super::town::LATE - 2 * MS);
            assert_eq!(links(&mut context), 2, "seed {seed}, did not linger: {name}");
            world.run_for(&mut context, &mut ends, 3 * super::town::LATE);
            assert_eq!(links(&mut context), 1, "seed {seed}, lingers: {name}");
        }
        let told: Vec<_> = ends.iter().filter_map(|(why, _)| *why).collect();
        assert_eq!(told, Vec::from_iter(case.told), "seed {seed}: {name}");
        drop(peer);
        world.leave(&mut context, &mut ends);
        assert_eq!(world.network().open_descriptors(), 0);
    }
}
