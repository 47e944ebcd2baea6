//! What must not be noticed next door: by other connections, other contexts, and the host's own.

use crate::client::{BINARY, CLOSE, Client, TEXT, frame};
use crate::state::State;
use crate::town::{Town, silence};
use crate::{Adapter, PATIENCE, run};
use lodger::Io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// And a bystander does not notice.
pub fn peer_that_resets_ends_only_its_own_connection_in_every_state<A: Adapter>() {
    type Begin = fn(&Town) -> Client;
    let states: [(&str, Begin); 12] = [
        ("connected", |town| town.place().connect()),
        ("in a head", |town| sent(town.place().connect(), b"GET / HTTP/1.1\r\nHo")),
        ("undecided", |town| {
            let client = sent(town.place().connect(), b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
            town.until("it waits for a decision", |state, _| std::mem::take(&mut state.heard.later) > 0);
            client
        }),
        ("in a request's content", |town| {
            sent(
                town.place().connect(),
                b"POST /mirror HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n123",
            )
        }),
        ("in a response", |town| {
            let client = sent(town.place().connect(), b"GET /content HTTP/1.1\r\nHost: localhost\r\n\r\n");
            town.until("output is full", |state, _| std::mem::take(&mut state.heard.full) > 0);
            client
        }),
        ("open", |town| town.websocket()),
        ("in a frame", |town| sent(town.websocket(), &frame(true, TEXT, b"cut off")[..9])),
        ("in a message", |town| sent(town.websocket(), &frame(false, TEXT, b"to be continued"))),
        ("with output that waits", |town| {
            let client = sent(town.websocket(), &frame(true, TEXT, b"!fill"));
            town.until("output is full", |state, _| std::mem::take(&mut state.heard.full) > 0);
            client
        }),
        ("paused", |town| {
            let client = sent(town.websocket(), &frame(true, TEXT, b"!pause"));
            town.until("it is paused", |state, _| !state.heard.paused.is_empty());
            client
        }),
        ("closing", |town| {
            let mut client = sent(town.websocket(), &frame(true, TEXT, b"!close"));
            assert_eq!(client.next_frame().map(|frame| frame.opcode), Some(CLOSE));
            client
        }),
        ("raw, half closed", |town| {
            let mut client = sent(Client::connect(town.place().raw), b"all");
            client.finish();
            client
        }),
    ];
    let heard = run::<A>(1, move |town| {
        let mut bystander = town.websocket();
        let base = town.ask(|_, io| io.link_count());
        for (_name, begin) in states {
            let client = begin(town);
            client.reset();
            // A paused connection hears of it when it goes on.
            town.ask(|state, io| {
                for id in std::mem::take(&mut state.heard.paused) {
                    if let Some(mut conn) = io.conn(id) {
                        conn.resume();
                    }
                }
            });
            bystander.echo("unharmed");
            town.until_links(base);
        }
        bystander.close();
        town.until_links(2);
    });
    assert_eq!(heard.opened, heard.closed, "each has one end: {heard:?}");
}

fn sent(mut client: Client, bytes: &[u8]) -> Client {
    client.send(bytes);
    client
}

/// The loop runs on.
pub fn panic_of_a_handler_ends_only_its_own_connection<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut bystander = town.websocket();
        for _ in 0..3 {
            let mut client = town.websocket();
            client.echo("so far so good");
            client.text("!panic");
            assert_eq!(client.rest(), b"");
            bystander.echo("unharmed");
        }
        // Nothing but lodger's own deadline wakes the loop for this.
        bystander.text("!timer");
        assert_eq!(bystander.message(), b"timer");
        bystander.close();
        town.until_links(2);
    });
    assert_eq!(heard.panics, 3);
}

/// Each has its own listeners and its own wake-up.
pub fn contexts_in_one_loop_do_not_disturb_each_other<A: Adapter>() {
    if !A::SEVERAL {
        return;
    }
    run::<A>(3, |town| {
        let mut clients: Vec<Client> = town.places.iter().map(|place| place.websocket()).collect();
        for round in 0..20 {
            for (at, client) in clients.iter_mut().enumerate() {
                client.text(&format!("{round} for {at}"));
            }
            for (at, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.message(), format!("{round} for {at}").as_bytes());
            }
        }
        for (at, place) in town.places.iter().enumerate() {
            assert_eq!(place.ask(|_, io| io.link_count()), 3, "context {at}");
            clients[at].text("!timer");
        }
        for mut client in clients {
            assert_eq!(client.message(), b"timer");
            client.close();
        }
    });
}

/// A descriptor of the host's that is always readable is served once in each turn, and a quiet connection gets its answers.
pub fn descriptors_of_the_host_are_served_in_every_turn_of_a_flood<A: Adapter>() {
    if !A::FOREIGN {
        return;
    }
    run::<A>(1, |town| {
        let over = Arc::new(AtomicBool::new(false));
        let mut quiet = town.websocket();
        let flooding: Vec<_> = (0..4)
            .map(|_| {
                let (mut client, over) = (town.websocket(), Arc::clone(&over));
                let burst = frame(true, BINARY, &[1; 4096]).repeat(8);
                thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        client.send(&burst);
                        for _ in 0..8 {
                            client.message();
                        }
                    }
                })
            })
            .collect();
        town.until("the flood has begun", |state, _| state.heard.messages > 100);
        town.ring(b'f');
        for _ in 0..100 {
            quiet.echo("in between");
        }
        let (turns, served) = town.ask(|state, _| {
            state.heard.flood_over = true;
            let (since, served) = state.heard.flood.expect("it is served");
            (state.turns() - since, served)
        });
        over.store(true, Ordering::Relaxed);
        for flood in flooding {
            flood.join().expect("it gets its answers");
        }
        assert!(turns >= 10, "{turns} turns are no flood");
        assert!(served >= turns && served <= turns + 1, "served {served} times in {turns} turns");
    });
}

/// Handlers never nest, nothing of the context's is served meanwhile, and nothing of it wakes the loop over and over.
pub fn loop_that_a_handler_runs_serves_others_and_loses_nothing<A: Adapter>() {
    if !A::RUN_BY_HANDLERS {
        return;
    }
    run::<A>(1, |town| {
        let mut others: Vec<Client> = (0..5).map(|_| town.websocket()).collect();
        let mut runner = town.websocket();
        for round in 1..=3 {
            // One that comes due while the loop is run within the handler.
            let (done, over) = std::sync::mpsc::channel();
            let begun = town.ask(move |state, io| {
                io.after(Duration::from_millis(30), move |_, _| done.send(()).expect("somebody listens"));
                state.heard.messages
            });
            let held = town.place().hold();
            runner.text("!run");
            others.iter_mut().for_each(|other| other.text("meanwhile"));
            drop(held);
            let (post, posted) = std::sync::mpsc::channel();
            let post = move |_: &mut State, _: &mut Io<State>| post.send(()).expect("somebody listens");
            silence(Duration::from_millis(100));
            assert!(town.place().remote.post(post).is_ok());
            silence(Duration::from_millis(20));
            town.ring(b'i');
            assert_eq!(runner.message(), b"has run");
            for other in &mut others {
                assert_eq!(other.message(), b"meanwhile");
            }
            assert_eq!(over.recv_timeout(PATIENCE), Ok(()), "the deadline is lost");
            assert_eq!(posted.recv_timeout(PATIENCE), Ok(()), "the post is lost");
            let (messages, runs) = town.ask(|state, _| (state.heard.messages, state.take_runs_within()));
            assert_eq!(messages - begun, others.len() + 1);
            // Each descriptor and the deadline may be reported once, and the ring ends it.
            assert!(runs as usize <= others.len() + 6, "round {round}: {runs} runs for one ring");
        }
        town.place().sleeps_well::<A>();
        runner.close();
        others.into_iter().for_each(Client::close);
    });
}
