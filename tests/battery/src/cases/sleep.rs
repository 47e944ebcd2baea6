//! What wakes the loop: deadlines, other threads, the host's own callbacks, and nothing else.

use crate::client::{Client, UPGRADE};
use crate::town::{Town, listen, silence};
use crate::{Adapter, PATIENCE, run, run_as};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

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

/// What they do is written and announced before the loop sleeps.
pub fn context_is_used_by_the_hosts_own_callbacks<A: Adapter>() {
    if !A::FOREIGN {
        return;
    }
    run::<A>(1, use_from_outside);
}

/// Also where the loop sleeps on without a `prepare` ([`SELF_WAKE`](Adapter::SELF_WAKE)); in any other, the wake-up is one turn.
pub fn context_that_wakes_its_loop_is_used_from_outside_and_lets_it_sleep_again<A: Adapter>() {
    if !A::FOREIGN {
        return;
    }
    run_as::<A>(1, true, |town| {
        use_from_outside(town);
        if A::HONEST {
            town.place().sleeps_well::<A>();
        }
    });
}

/// Nothing else wakes the loop for what this waits for.
fn use_from_outside(town: &Town) {
    let mut clients: Vec<Client> = (0..3).map(|_| town.websocket()).collect();
    let site = town.place().site;
    for _ in 0..3 {
        for client in &mut clients {
            client.echo("hello");
        }
        silence(Duration::from_millis(10));
        town.errand(|state, io| state.say("from outside", io));
        for client in &mut clients {
            assert_eq!(client.message(), b"from outside");
        }
        town.errand(|_, io| {
            io.after(Duration::from_millis(2), |state, io| state.say("in time", io));
        });
        for client in &mut clients {
            assert_eq!(client.message(), b"in time");
        }
        let (listener, address) = town.errand(move |_, io| listen(io, site));
        let mut client = Client::connect(address);
        client.send(UPGRADE);
        client.upgraded();
        silence(Duration::from_millis(10));
        town.errand(move |_, io| io.close_listener(listener));
        let is_closed = || TcpStream::connect(address).is_err();
        let closed = (0..PATIENCE.as_millis()).any(|_| {
            silence(Duration::from_millis(1));
            is_closed()
        });
        assert!(closed, "the listener is still open");
    }
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
