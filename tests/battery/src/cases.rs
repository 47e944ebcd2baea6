//! The cases, each a function over an [`Adapter`]. [`battery!`](crate::battery) makes tests of them.

use crate::client::{BINARY, CLOSE, Client, PING, PONG, TEXT, UPGRADE, frame};
use crate::state::{CONTENT, Ending, Lines, State};
use crate::town::{Town, listen, silence};
use crate::{Adapter, PATIENCE, run};
use lodger::{Interest, Io, Limits};
use std::env;
use std::fs::File;
use std::io::{ErrorKind, Write, pipe};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at ^ (at >> 8)) as u8).collect()
}

/// One of each kind.
pub fn websocket_http_and_raw_connections_are_served_and_end_in_order<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut socket = town.websocket();
        for text in ["one", "two", "three"] {
            socket.echo(text);
        }
        socket.close();

        let mut http = town.place().connect();
        for _ in 0..2 {
            http.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let (head, content) = http.response();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(content, b"hello\n");
        }
        http.send(
            b"POST /mirror HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nConnection: close\r\n\r\nmir",
        );
        http.send(b"rors");
        assert_eq!(http.response().1, b"mirrors");
        assert_eq!(http.rest(), b"");
        drop(http);

        let mut raw = Client::connect(town.place().raw);
        raw.send(b"quiet");
        assert_eq!(raw.bytes(5), b"QUIET");
        raw.send(b" please");
        raw.finish();
        assert_eq!(raw.rest(), b" PLEASE");
        town.until_links(2);
    });
    assert_eq!((heard.opened, heard.closed), (3, 3), "{heard:?}");
}

/// Up to many times what one read takes.
pub fn large_and_fragmented_messages_come_back_whole<A: Adapter>() {
    run::<A>(1, |town| {
        let mut client = town.websocket();
        for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 5 << 20] {
            let message = pattern(length);
            let mut writer = client.writer();
            let sent = message.clone();
            let writing = thread::spawn(move || writer.binary(&sent));
            assert!(client.message() == message, "{length} bytes");
            writing.join().expect("it was sent");
        }
        // Fragments, with a Ping between them.
        client.send(&frame(false, TEXT, b"in "));
        client.send(&frame(true, PING, b"there?"));
        client.send(&frame(false, 0, b"three "));
        client.send(&frame(true, 0, b"pieces"));
        let pong = client.next_frame().expect("a Pong");
        assert_eq!((pong.opcode, pong.payload), (PONG, b"there?".to_vec()));
        assert_eq!(client.message(), b"in three pieces");
        // Byte by byte, in segments of their own as far as the system keeps them apart.
        for byte in frame(true, TEXT, b"slowly") {
            client.send(&[byte]);
            town.ask(|_, _| {});
        }
        assert_eq!(client.message(), b"slowly");
        // Many in one segment.
        let many: Vec<u8> = (0..500).flat_map(|at: u32| frame(true, BINARY, &at.to_be_bytes())).collect();
        client.send(&many);
        for at in 0..500_u32 {
            assert_eq!(client.message(), at.to_be_bytes());
        }
        client.close();
    });
}

/// Backpressure from the peer to whoever sends to it.
pub fn peer_that_does_not_read_is_not_read_from_and_loses_nothing<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut client = town.websocket();
        let message = pattern(32 * 1024);
        let mut writer = client.writer();
        let sent = message.clone();
        // More than the buffers of both sides hold, so that only a peer that reads gets all of it.
        let writing = thread::spawn(move || (0..512).for_each(|_| writer.binary(&sent)));
        town.until("output is full", |state, _| state.heard.full > 0);
        for at in 0..512 {
            assert!(client.message() == message, "message {at}");
        }
        writing.join().expect("all was sent");
        client.close();
    });
    let limits = Limits::default();
    assert!(heard.most_queued < limits.send_high_water + 64 * 1024, "{heard:?}");
}

/// Backpressure by `writable`.
pub fn content_is_made_no_faster_than_the_peer_takes_it<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut client = town.place().connect();
        // Taken for the peer's own buffer alone it would be no test of ours.
        client.send(b"GET /content HTTP/1.1\r\nHost: localhost\r\n\r\n");
        town.until("it waits for the peer", |state, io| {
            state.heard.full > 0 && io.links().any(|link| link.queued > 0)
        });
        let (head, content) = client.response();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(content.len() == CONTENT && content.iter().all(|&byte| byte == b'c'));
    });
    assert_eq!(heard.made, CONTENT);
}

/// Nor is it watched meanwhile.
pub fn paused_connection_delivers_nothing_until_it_is_resumed<A: Adapter>() {
    run::<A>(1, |town| {
        let (mut paused, mut other) = (town.websocket(), town.websocket());
        paused.text("!pause");
        town.until("it is paused", |state, _| state.heard.paused.len() == 1);
        paused.text("later");
        let before = town.ask(|state, _| state.heard.messages);
        for _ in 0..10 {
            other.echo("meanwhile");
        }
        assert_eq!(town.ask(|state, _| state.heard.messages), before + 10);
        town.ask(|state, io| {
            let id = state.heard.paused.pop().expect("it is paused");
            io.conn(id).expect("it is there").resume();
        });
        assert_eq!(paused.message(), b"later");
        paused.close();
        other.close();
    });
}

/// As many as `LODGER_BATTERY_CONNECTIONS` says.
pub fn thousands_of_connections_are_served<A: Adapter>() {
    let wanted =
        env::var("LODGER_BATTERY_CONNECTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let allowed = limit.map_or(usize::MAX, |limit| (limit.saturating_sub(100) / 2) as usize);
    let count = wanted.min(allowed);
    let heard = run::<A>(1, move |town| {
        // They come in crowds that are smaller than what may wait for its handshake; all greet at once, twice.
        let mut clients: Vec<Client> = Vec::new();
        while clients.len() < count {
            let from = clients.len();
            clients.extend((from..count.min(from + 250)).map(|_| town.place().connect()));
            for client in &mut clients[from..] {
                client.send(UPGRADE);
            }
            for client in &mut clients[from..] {
                client.upgraded();
            }
        }
        for round in 0..2 {
            for (at, client) in clients.iter_mut().enumerate() {
                client.text(&format!("{at} {round}"));
            }
            for (at, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.message(), format!("{at} {round}").as_bytes());
            }
        }
        assert_eq!(town.ask(|_, io| io.link_count()), count + 2);
        for client in &mut clients {
            client.send(&frame(true, CLOSE, &[]));
        }
        for client in &mut clients {
            assert_eq!(client.next_frame().map(|frame| frame.opcode), Some(CLOSE));
        }
        drop(clients);
        town.until_links(2);
    });
    assert_eq!((heard.opened, heard.closed), (count, count));
}

/// Nothing but the deadline wakes the loop here.
pub fn timers_run_in_order_and_cancelled_ones_never<A: Adapter>() {
    run::<A>(1, |town| {
        let (done, over) = std::sync::mpsc::channel();
        town.ask(move |_, io| {
            let start = io.now();
            for (number, millis) in [(3, 30), (1, 1), (2, 12), (0, 0)] {
                let delay = Duration::from_millis(millis);
                io.after(delay, move |state, io| {
                    assert!(io.now().duration_since(start) >= delay, "early");
                    state.heard.numbers.push((number, 0));
                });
            }
            let never = io.after(Duration::from_millis(5), |state, _| state.heard.numbers.push((99, 0)));
            assert!(io.cancel(never));
            io.after(Duration::from_millis(40), move |state, _| {
                done.send(state.heard.numbers.clone()).expect("somebody listens");
            });
        });
        let numbers = over.recv_timeout(PATIENCE).expect("timers run");
        assert_eq!(numbers, [(0, 0), (1, 0), (2, 0), (3, 0)]);

        let mut client = town.websocket();
        for _ in 0..3 {
            client.text("!timer");
            assert_eq!(client.message(), b"timer");
        }
        client.close();
    });
}

/// What the loop has armed for the earlier deadline, or the later, is put right.
pub fn deadline_that_moves_earlier_is_kept_and_a_later_one_too<A: Adapter>() {
    run::<A>(1, |town| {
        let (done, over) = std::sync::mpsc::channel();
        let (late, later) = (done.clone(), done.clone());
        let far = town.ask(move |_, io| {
            io.after(Duration::from_secs(3600), move |_, _| late.send("far").expect("somebody listens"))
        });
        // Earlier than what the loop sleeps for; from a sleep that the wake-up ended.
        town.ask(move |_, io| {
            io.after(Duration::from_millis(2), move |_, _| done.send("near").expect("somebody listens"))
        });
        assert_eq!(over.recv_timeout(PATIENCE), Ok("near"));
        // The next one is later than what was armed first, once that is cancelled.
        let soon = town.ask(|_, io| io.after(Duration::from_millis(1), |_, _| {}));
        town.ask(move |_, io| {
            io.cancel(soon);
            assert!(io.cancel(far));
            io.after(Duration::from_millis(20), move |_, _| {
                later.send("after all").expect("somebody listens")
            });
        });
        assert_eq!(over.recv_timeout(PATIENCE), Ok("after all"));
        assert_eq!(over.recv(), Err(std::sync::mpsc::RecvError), "a cancelled timer lives on");
    });
}

/// Counted, and each thread's in its order.
pub fn posts_of_many_threads_run_in_order_without_any_tick<A: Adapter>() {
    const POSTS: u32 = 500;
    let heard = run::<A>(1, |town| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let remote = town.place().remote.clone();
                thread::spawn(move || {
                    for number in 0..POSTS {
                        let post = remote.post(move |state, _| state.heard.numbers.push((thread, number)));
                        assert!(post.is_ok());
                    }
                })
            })
            .collect();
        // Each of these waits for a wake-up while others come.
        for _ in 0..50 {
            town.ask(|_, _| {});
        }
        for thread in threads {
            thread.join().expect("it posts");
        }
        town.until("all have run", |state, _| state.heard.numbers.len() == 4 * POSTS as usize);
    });
    for thread in 0..4 {
        let numbers = heard.numbers.iter().filter(|(of, _)| *of == thread).map(|(_, number)| *number);
        assert!(numbers.eq(0..POSTS), "thread {thread}");
    }
}

/// What it has accepted stays.
pub fn listener_comes_and_goes_while_the_loop_runs<A: Adapter>() {
    run::<A>(1, |town| {
        let site = town.place().site;
        let mut kept = Vec::new();
        for round in 0..3 {
            let (listener, address) = town.ask(move |_, io| listen(io, site));
            let mut client = Client::connect(address);
            client.send(UPGRADE);
            client.upgraded();
            client.echo("through the new door");
            kept.push(client);
            town.ask(move |_, io| io.close_listener(listener));
            town.until_links(3 + round);
            let refused = TcpStream::connect(address).map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
        }
        for mut client in kept {
            client.echo("still here");
            client.close();
        }
        town.websocket().close();
    });
}

/// A pipe, of which the handler reads one byte at each call.
pub fn adopted_descriptor_is_watched_and_given_back<A: Adapter>() {
    run::<A>(1, |town| {
        let (reader, mut writer) = pipe().expect("descriptors are left");
        town.ask(move |_, io| adopt(io, reader));
        writer.write_all(b"byte by byte").expect("somebody reads");
        town.until("all is read", |state, _| state.heard.bytes == b"byte by byte");
        writer.write_all(b".not for us").expect("somebody reads");
        town.until("it is given back", |state, _| state.heard.released == 1);
        assert_eq!(town.ask(|state, _| state.heard.bytes.len()), 12);
        town.until_links(2);
    });
}

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

/// What they do is written and announced before the loop sleeps.
pub fn context_is_used_by_the_hosts_own_callbacks<A: Adapter>() {
    if !A::FOREIGN {
        return;
    }
    run::<A>(1, |town| {
        let mut clients: Vec<Client> = (0..3).map(|_| town.websocket()).collect();
        for client in &mut clients {
            client.echo("hello");
        }
        for round in 1..=3 {
            town.ring(b'b');
            for client in &mut clients {
                assert_eq!(client.message(), b"from outside");
            }
            town.ring(b't');
            // Asking would wake the loop: a timer says when the other has run.
            let (done, over) = std::sync::mpsc::channel();
            town.ask(move |_, io| {
                io.after(Duration::from_millis(1), move |_, _| done.send(()).expect("somebody listens"))
            });
            over.recv_timeout(PATIENCE).expect("timers run");
            for _ in 0..PATIENCE.as_millis() {
                if town.ask(|state, _| state.heard.numbers.len()) == round {
                    break;
                }
                silence(Duration::from_millis(1));
            }
        }
    });
}

/// Counted in turns of the loop, and by the audit where there is one.
pub fn idle_context_wakes_nobody<A: Adapter>() {
    if !A::HONEST {
        return;
    }
    run::<A>(1, |town| {
        let mut clients: Vec<Client> = (0..50).map(|_| town.websocket()).collect();
        for client in &mut clients {
            client.echo("hello");
        }
        town.place().sleeps_well::<A>();
    });
}

/// WebSockets by a Close with 1001.
pub fn leaving_says_goodbye_to_everybody<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut sockets: Vec<Client> = (0..5).map(|_| town.websocket()).collect();
        let mut raw = Client::connect(town.place().raw);
        raw.send(b"x");
        assert_eq!(raw.bytes(1), b"X");
        let mut http = town.place().connect();
        http.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(http.response().1, b"hello\n");
        town.stop();
        for socket in &mut sockets {
            let close = socket.next_frame().expect("a Close");
            assert_eq!((close.opcode, close.payload), (CLOSE, 1001_u16.to_be_bytes().to_vec()));
            assert_eq!(socket.rest(), b"");
        }
        assert_eq!((raw.rest(), http.rest()), (Vec::new(), Vec::new()));
    });
    assert_eq!((heard.opened, heard.closed, heard.leaving), (6, 6, 6), "{heard:?}");
    if let Some(counts) = heard.counts {
        assert_eq!(counts.adds - counts.refused, counts.removes, "{counts:?}");
    }
}

/// Handlers hear nothing.
pub fn dropping_closes_everything<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut clients: Vec<Client> = (0..5).map(|_| town.websocket()).collect();
        town.ask(|state, _| state.end_by(Ending::Drop));
        town.stop();
        for client in &mut clients {
            assert_eq!(client.next_frame(), None);
        }
        assert!(town.place().remote.wake().is_err(), "the context is gone");
    });
    assert_eq!((heard.opened, heard.closed), (5, 0));
}

/// epoll takes no device of this kind, poll(2) takes it; a host of [`Mischief`](crate::Mischief) can be told to refuse.
pub fn refused_descriptor_ends_only_its_own_link<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut bystander = town.websocket();
        let base = town.ask(|_, io| io.link_count());
        town.ask(|_, io| adopt(io, File::open("/dev/null").expect("it is there")));
        town.until("its handler hears of it", |state, _| state.heard.closed == 1);
        town.until_links(base);
        bystander.echo("unharmed");
        if town.ask(|state, _| state.can_refuse()) {
            for _ in 0..5 {
                town.ask(|state, _| state.refuse(1));
                let mut refused = town.place().connect();
                assert_eq!(refused.rest(), b"");
                bystander.echo("unharmed");
                town.until_links(base);
            }
            // A conn that has a handler hears of it.
            town.ask(|state, io| {
                state.refuse(1);
                let (reader, _writer) = pipe().expect("descriptors are left");
                adopt(io, reader);
            });
            town.until("its handler hears of it", |state, _| state.heard.refused == 1);
        }
        let mut next = town.websocket();
        next.echo("welcome");
        next.close();
        bystander.close();
    });
    let adopted = if heard.counts.is_some_and(|counts| counts.refused > 1) { 2 } else { 1 };
    assert_eq!((heard.opened, heard.closed), (2, 2 + adopted), "{heard:?}");
}

/// A descriptor that is read byte by byte.
fn adopt(io: &mut Io<State>, fd: impl Into<OwnedFd>) {
    let fd = fd.into();
    let own = File::from(fd.try_clone().expect("descriptors are left"));
    assert!(io.adopt(fd, Interest::READ, Box::new(Lines(own))).is_ok());
}

/// In the middle of what is ready, and what has been reported of the context by then comes too late.
pub fn context_that_a_callback_moves_keeps_its_connections<A: Adapter>() {
    if !A::FOREIGN {
        return;
    }
    run::<A>(1, |town| {
        let mut clients: Vec<Client> = (0..10).map(|_| town.websocket()).collect();
        for round in 0..10 {
            let held = town.place().hold();
            let text = format!("round {round}");
            clients[..5].iter_mut().for_each(|client| client.text(&text));
            town.ring(b'm');
            clients[5..].iter_mut().for_each(|client| client.text(&text));
            drop(held);
            for client in &mut clients {
                assert_eq!(client.message(), text.as_bytes());
            }
        }
        clients[0].text("!timer");
        assert_eq!(clients[0].message(), b"timer");
        clients.into_iter().for_each(Client::close);
        if A::HONEST {
            town.place().sleeps_well::<A>();
        }
    });
}

/// In the middle of what is ready, and with another context in the loop.
pub fn context_that_a_callback_ends_is_gone_and_the_loop_runs_on<A: Adapter>() {
    if !(A::FOREIGN && A::SEVERAL) {
        return;
    }
    for (ending, byte) in [(Ending::Leave, b'l'), (Ending::Drop, b'd')] {
        run::<A>(2, move |town| {
            let mut guests = Guests::come(town);
            let held = town.places[1].hold();
            guests.greet();
            town.ring(byte);
            drop(held);
            guests.see_it_end::<A>(town, ending);
        });
    }
}

/// Whether it serves a connection, a deadline, or a post.
pub fn context_that_a_handler_ends_is_gone_and_the_loop_runs_on<A: Adapter>() {
    if !A::ENDED_BY_HANDLERS {
        return;
    }
    type End = fn(&mut Guests, &Town, Ending);
    let ends: [End; 3] = [
        |guests, _, ending| {
            guests.noisy[1].text(if ending == Ending::Leave { "!leave" } else { "!drop" });
        },
        |_, town, ending| {
            town.ask(move |_, io| {
                io.after(Duration::from_millis(1), move |state, _| state.end_now(ending));
            });
        },
        |_, town, ending| town.ask(move |state, _| state.end_now(ending)),
    ];
    for end in ends {
        for ending in [Ending::Leave, Ending::Drop] {
            run::<A>(2, move |town| {
                let mut guests = Guests::come(town);
                let held = town.places[1].hold();
                guests.greet();
                drop(held);
                end(&mut guests, town, ending);
                guests.see_it_end::<A>(town, ending);
            });
        }
    }
}

/// Connections of a context that is going to end, and of one that stays.
struct Guests {
    quiet: Client,
    noisy: Vec<Client>,
    staying: Client,
}

impl Guests {
    fn come(town: &Town) -> Self {
        let noisy = (0..6).map(|_| town.websocket()).collect();
        Self { quiet: town.websocket(), noisy, staying: town.places[1].websocket() }
    }

    fn greet(&mut self) {
        self.noisy.iter_mut().for_each(|client| client.text("hello"));
        self.staying.text("hello");
    }

    #[track_caller]
    fn see_it_end<A: Adapter>(mut self, town: &Town, ending: Ending) {
        let said = self.quiet.next_frame().map(|frame| (frame.opcode, frame.payload));
        let goodbye = (ending == Ending::Leave).then(|| (CLOSE, 1001_u16.to_be_bytes().to_vec()));
        assert_eq!(said, goodbye);
        assert_eq!(self.quiet.rest(), b"");
        // Where something was left unread, the end comes as a reset.
        for client in &mut self.noisy {
            client.rest();
        }
        let [gone, stays] = &town.places[..] else { panic!("two contexts") };
        gone.until_gone();
        assert_eq!(self.staying.message(), b"hello");
        self.staying.echo("still here");
        self.staying.text("!timer");
        assert_eq!(self.staying.message(), b"timer");
        stays.websocket().close();
        stays.sleeps_well::<A>();
    }
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
