//! What goes on while a guest is in its loop.

use super::rig::*;
use crate::Loop;
use crate::sys::Home;
use lodger::{Context, Cx, Decision, Interest, Io, Listen, Request, Site, fd};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn thousands_of_messages_come_back_and_cost_no_call_to_libuv() {
    let mut house = House::new(echo);
    house.run(|address| {
        let client = Client::connect(address);
        for round in 0..100 {
            let texts: Vec<String> = (0..50).map(|n| format!("{round} {n}")).collect();
            let frames: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
            (&client.0).write_all(&frames).unwrap();
            for text in texts {
                assert_eq!(client.receive(), text);
            }
        }
    });
    let counts = house.guest.counts();
    // The listener, the wake-up descriptor, the connection.
    assert_eq!((counts.adds, counts.changes), (3, 0));
    assert_eq!(house.leave().closed, 1);
}

#[test]
fn large_messages_come_back_to_a_peer_that_reads_late() {
    let mut house = House::new(echo);
    house.run(|address| {
        let client = Client::connect(address);
        let text = "abcdefgh".repeat(1 << 17);
        let writer = Client(client.0.try_clone().unwrap());
        let sent = text.clone();
        let writer = thread::spawn(move || (0..8).for_each(|_| writer.send(&sent)));
        for _ in 0..8 {
            assert!(client.receive() == text);
        }
        writer.join().unwrap();
    });
    house.leave();
}

#[test]
fn many_connections_at_once_are_all_answered() {
    let mut house = House::new(echo);
    house.run(|address| {
        let clients: Vec<_> = (0..300).map(|_| Client::connect(address)).collect();
        for round in 0..3 {
            clients.iter().for_each(|client| client.send(&format!("{round}")));
            clients.iter().for_each(|client| assert_eq!(client.receive(), format!("{round}")));
        }
    });
    assert_eq!(house.leave().closed, 300);
}

#[test]
fn paused_connection_is_not_watched_and_goes_on_where_it_was() {
    let mut house = House::new(|cx, heard| match heard {
        Heard::Text(text) => {
            let _ = cx.send(text);
            cx.conn().pause();
            cx.conn().set_timer(5 * MILLI);
        }
        Heard::Timer => cx.conn().resume(),
        Heard::Opened | Heard::Writable => {}
    });
    house.run(|address| {
        let client = Client::connect(address);
        (0..10).for_each(|n| client.send(&format!("{n}")));
        for n in 0..10 {
            assert_eq!(client.receive(), format!("{n}"));
        }
    });
    assert!(house.guest.counts().removes >= 1);
    house.leave();
}

#[test]
fn timers_run_in_order_though_nothing_else_wakes_the_loop_and_then_it_ends() {
    let mut uv = Loop::new().unwrap();
    let guest = uv.join(Context::<Vec<u32>>::new(), Vec::new());
    guest.with(|_, io| {
        io.after(Duration::ZERO, |ran, io| {
            ran.push(1);
            io.after(10 * MILLI, |ran, io| {
                ran.push(2);
                io.after(MILLI, |ran, _| ran.push(3));
            });
        });
    });
    uv.run();
    assert_eq!(guest.leave(), Some(vec![1, 2, 3]));
    uv.close().unwrap();
}

#[test]
fn deadline_wakes_the_loop_once() {
    let mut uv = Loop::new().unwrap();
    let iterations = Rc::new(Cell::new(0));
    let guest = uv.join(Context::<u32>::new(), 0);
    let counted = Rc::clone(&iterations);
    let counter = Own::prepare(uv.home(), move || counted.set(counted.get() + 1));
    for round in 1..=20 {
        guest.with(|_, io| {
            io.after(3 * MILLI, |ran, _| *ran += 1);
        });
        iterations.set(0);
        uv.run();
        assert_eq!(guest.try_with(|ran, _| *ran), Some(round));
        // One sleep for the deadline, and one look at what came of it.
        assert!(iterations.get() <= 2, "{} iterations", iterations.get());
    }
    drop((guest, counter));
    uv.close().unwrap();
}

#[test]
fn posts_of_threads_wake_a_loop_that_has_nothing_else_to_wake_it() {
    let mut house = House::new(echo);
    let remote = house.remote.clone();
    house.run(move |_| {
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                let remote = remote.clone();
                thread::spawn(move || {
                    for n in 0..1000 {
                        remote.post(move |state, _| state.numbers.push(thread * 10_000 + n)).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let numbers = house.leave().numbers;
    for thread in 0..4 {
        let of_it: Vec<u32> = numbers.iter().copied().filter(|n| n / 10_000 == thread).collect();
        assert_eq!(of_it, (0..1000).map(|n| thread * 10_000 + n).collect::<Vec<_>>());
    }
}

/// Looks from a timer of the owner's, every few milliseconds, until `seen` says so.
fn look(home: &Home, timers: &Rc<RefCell<Vec<Own>>>, seen: Rc<dyn Fn() -> bool>) {
    let (again, kept) = (home.clone(), Rc::clone(timers));
    let timer = Own::timer(home, 5 * MILLI, move || {
        if !seen() {
            look(&again, &kept, Rc::clone(&seen));
        }
    });
    timers.borrow_mut().push(timer);
}

#[test]
fn idle_guest_does_not_wake_the_loop() {
    let mut house = House::new(echo);
    let (iterations, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let counted = Rc::clone(&iterations);
    let counter = Own::prepare(house.uv.home(), move || counted.set(counted.get() + 1));
    let (end, wait) = mpsc::channel::<()>();
    let end = Rc::new(RefCell::new(Some(end)));
    let timers = Rc::new(RefCell::new(Vec::new()));
    let (local, home, kept, result) =
        (house.guest.local(), house.uv.home().clone(), Rc::clone(&timers), Rc::clone(&seen));
    let quiet = move || {
        if local.try_with(|state, _| state.numbers.is_empty()) != Some(false) {
            return false;
        }
        iterations.set(0);
        let (iterations, result, end) = (Rc::clone(&iterations), Rc::clone(&result), Rc::clone(&end));
        kept.borrow_mut().push(Own::timer(&home, 100 * MILLI, move || {
            result.set(iterations.get());
            end.take();
        }));
        true
    };
    look(house.uv.home(), &timers, Rc::new(quiet));
    let remote = house.remote.clone();
    house.run(move |address| {
        let client = Client::connect(address);
        client.send("one");
        assert_eq!(client.receive(), "one");
        remote.post(|state, _| state.numbers.push(1)).unwrap();
        let _ = wait.recv_timeout(PATIENCE);
    });
    // What was done last is told to the loop, and then nothing until the timer.
    assert!((1..=2).contains(&seen.get()), "{} iterations", seen.get());
    timers.take();
    drop(counter);
    house.leave();
}

#[test]
fn use_from_a_timer_of_the_owner_is_announced_and_written_without_more() {
    let mut house = House::new(|_, _| ());
    let (local, timers) = (house.guest.local(), Rc::new(RefCell::new(Vec::new())));
    let opened = move || {
        let opened = local.try_with(|state, _| state.opened > 0) == Some(true);
        opened
            && local.with(|state, io| {
                state.numbers.push(1);
                let ids: Vec<_> = io.links().filter_map(|link| link.conn).collect();
                for id in ids {
                    let _ = io.conn(id).map(|mut conn| conn.send("from a timer").is_ok());
                }
                let accept = |_: &Request<'_>, _: &mut State, _: &mut Io<State>| Decision::Later;
                let site = io.add_site(Site::new().protocol("", accept)).unwrap();
                io.listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
            })
    };
    look(house.uv.home(), &timers, Rc::new(opened));
    house.run(|address| {
        let client = Client::connect(address);
        assert_eq!(client.receive(), "from a timer");
    });
    timers.take();
    // Two listeners, the wake-up descriptor, the connection.
    assert_eq!(house.guest.counts().adds, 4);
    assert_eq!(house.leave().numbers, [1]);
}

#[test]
fn use_from_any_phase_of_the_loop_is_announced_before_it_sleeps_or_ends() {
    // libuv calls prepare handles in the reverse order of their start.
    for first in [true, false] {
        let mut uv = Loop::new().unwrap();
        let home = uv.home().clone();
        let early = first.then(|| Own::prepare(&home, || ()));
        let guest = uv.join(Context::<Vec<u32>>::new(), Vec::new());
        let prepare = early.unwrap_or_else(|| Own::prepare(&home, || ()));
        let (local, mut used) = (guest.local(), false);
        prepare.does(move || {
            if !std::mem::replace(&mut used, true) {
                local.with(|_, io| {
                    io.after(MILLI, |ran, _| ran.push(1));
                });
            }
        });
        uv.run();
        assert_eq!(guest.try_with(|ran, _| ran.clone()), Some(vec![1]));
        // From outside of any run.
        guest.with(|_, io| {
            io.after(MILLI, |ran, _| ran.push(2));
        });
        assert!(uv.is_alive());
        uv.run();
        assert_eq!(guest.leave(), Some(vec![1, 2]));
        drop(prepare);
        uv.close().unwrap();
    }
}

#[test]
fn use_within_a_handler_waits_for_its_end() {
    let house = Rc::new(RefCell::new(None));
    let of_handler: Rc<RefCell<Option<crate::Local<State>>>> = Rc::clone(&house);
    let mut house_itself = House::new(move |cx, heard| {
        if let Heard::Text(text) = heard {
            let (id, text) = (cx.id(), text.to_owned());
            let local = of_handler.borrow().clone().unwrap();
            assert!(local.try_with(|_, _| ()).is_none());
            assert!(local.with(move |state, io| {
                state.log.push("later".into());
                let _ = io.conn(id).unwrap().send(text.as_str());
            }));
            cx.data.log.push("first".into());
        }
    });
    *house.borrow_mut() = Some(house_itself.guest.local());
    house_itself.run(|address| {
        let client = Client::connect(address);
        client.send("x");
        assert_eq!(client.receive(), "x");
    });
    assert_eq!(house_itself.leave().log, ["first", "later"]);
    assert!(!house.borrow().as_ref().unwrap().with(|_, _| unreachable!()));
}

#[test]
fn two_guests_live_in_one_loop_and_one_may_leave() {
    let mut house = House::new(echo);
    let (mut context, address) = listening(echo);
    let remote = context.remote().unwrap();
    let other = house.uv.join(context, State::default());
    let end = ShutDown(remote);
    house.run(move |first| {
        let (a, b) = (Client::connect(first), Client::connect(address));
        for n in 0..200 {
            a.send(&format!("a{n}"));
            b.send(&format!("b{n}"));
            assert_eq!((a.receive(), b.receive()), (format!("a{n}"), format!("b{n}")));
        }
        drop((b, end));
    });
    assert_eq!(other.leave().unwrap().closed, 1);
    house.leave();
}

#[test]
fn sources_of_the_owner_are_served_under_a_flood() {
    let mut house = House::new(echo);
    let (mine, theirs) = UnixStream::pair().unwrap();
    mine.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    let fd = mine.as_raw_fd();
    let own = Own::poll(house.uv.home(), fd, move || {
        let mut byte = [0];
        if (&mine).read(&mut byte).is_ok_and(|read| read == 1) {
            (&mine).write_all(&byte).unwrap();
        }
    });
    house.run(move |address| {
        let stop = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = (0..2)
            .map(|_| {
                let (client, stop) = (Client::connect(address), Arc::clone(&stop));
                let reader = Client(client.0.try_clone().unwrap());
                thread::spawn(move || while reader.frame().0 == 0x81 {});
                thread::spawn(move || {
                    let frames: Vec<u8> = (0..1000).flat_map(|_| frame("flood")).collect();
                    while !stop.load(Ordering::Relaxed) {
                        (&client.0).write_all(&frames).unwrap();
                    }
                })
            })
            .collect();
        for n in 0..100 {
            (&theirs).write_all(&[n]).unwrap();
            let mut byte = [0];
            (&theirs).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n]);
        }
        stop.store(true, Ordering::Relaxed);
        floods.into_iter().for_each(|flood| flood.join().unwrap());
    });
    drop(own);
    house.leave();
}

/// Closes at the third time.
struct Thrice(Rc<Cell<u32>>);

impl fd::Handler<()> for Thrice {
    fn writable(&mut self, cx: &mut Cx<'_, ()>, _: BorrowedFd<'_>) {
        self.0.set(self.0.get() + 1);
        if self.0.get() == 3 { cx.close() } else { cx.conn().request_writable() }
    }
}

#[test]
fn watcher_that_libuv_stops_because_of_an_error_is_started_again() {
    let mut context: Context = Context::new();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let times = Rc::new(Cell::new(0));
    context.io().adopt(writer.into(), Interest::WRITE, Box::new(Thrice(Rc::clone(&times)))).unwrap();
    let mut uv = Loop::new().unwrap();
    let guest = uv.join(context, ());
    uv.run();
    assert_eq!(times.get(), 3);
    assert_eq!(guest.counts().adds, 1);
    guest.leave();
    uv.close().unwrap();
}
