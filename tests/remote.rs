//! The door for other threads, and use of the context between service calls.

mod support;

use lodger::{ConnId, Context, Env, Io, PostError, ProtocolId, Remote, Served, SystemEnv};
use lodger_poll::{Loop, PollArray};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use support::*;

fn is_shareable<T: Clone + Send + Sync + 'static>(_: &T) {}

#[test]
fn remote_of_a_state_that_is_not_send_is_send_and_sync() {
    let mut context: Context<Rc<RefCell<Vec<u32>>>> = Context::new();
    let remote = context.remote().unwrap();
    is_shareable(&remote);
    let other = remote.clone();
    thread::spawn(move || other.post(|state, _| state.borrow_mut().push(1)).is_ok()).join().unwrap();
    let mut state = Rc::default();
    context.service_timeouts(&mut state);
    assert_eq!(*state.borrow(), [1]);
    context.leave(&mut PollArray::new(), &mut state);
}

#[test]
fn posts_of_several_threads_run_in_order_and_none_is_lost_though_nothing_ticks() {
    let (mut house, _) = served();
    let remote = house.context.remote().unwrap();
    house.settle();
    let threads: Vec<_> = (0..4u32)
        .map(|thread| {
            let remote = remote.clone();
            thread::spawn(move || {
                for n in 0..2000 {
                    remote
                        .post(move |state: &mut State, _: &mut Io<State>| {
                            state.numbers.push(thread * 10_000 + n)
                        })
                        .unwrap();
                }
            })
        })
        .collect();
    let start = now();
    while house.data.numbers.len() < 8000 {
        assert!(start.elapsed() < Duration::from_secs(10));
        let wait = house.host.prepare(&mut house.context);
        assert_eq!(wait.instant(), None, "no deadline: only the wake-up descriptor ends the sleep");
        house.host.audit.sleeping(wait.duration());
        house.host.host.wait(wait).unwrap();
        while let Some(entry) = house.host.host.next_ready() {
            let _ = house.host.audit.service_fd(&mut house.context, entry, &mut house.data);
        }
        house.host.audit.service_timeouts(&mut house.context, &mut house.data);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    for thread in 0..4 {
        let of_it: Vec<u32> = house.data.numbers.iter().copied().filter(|n| n / 10_000 == thread).collect();
        assert_eq!(of_it, (0..2000).map(|n| thread * 10_000 + n).collect::<Vec<_>>());
    }
    assert_eq!(remote.waiting(), 0);
    house.assert_idle();
    house.leave();
}

#[test]
fn loop_that_sleeps_without_a_deadline_is_woken_by_each_post_in_turn() {
    let mut context: Context<Vec<u32>> = Context::new();
    let remote = context.remote().unwrap();
    let (answers, answered) = mpsc::channel();
    let poster = thread::spawn(move || {
        for n in 0..200 {
            let answers = answers.clone();
            remote
                .post(move |numbers: &mut Vec<u32>, _: &mut Io<Vec<u32>>| {
                    numbers.push(n);
                    answers.send(n).unwrap();
                })
                .unwrap();
            // Not before the loop has slept and woken does it go on.
            assert_eq!(answered.recv_timeout(Duration::from_secs(10)), Ok(n));
        }
    });
    let mut numbers = Vec::new();
    let mut own = Loop::new();
    own.run_while(&mut context, &mut numbers, |numbers| numbers.len() < 200).unwrap();
    poster.join().unwrap();
    assert_eq!(numbers.len(), 200);
    own.leave(&mut context, &mut numbers);
}

#[test]
fn wake_alone_ends_a_sleep_once() {
    let (mut house, _) = served();
    let remote = house.context.remote().unwrap();
    house.settle();
    for _ in 0..3 {
        remote.wake().unwrap();
    }
    let before = house.counts();
    assert_eq!(house.turn(Duration::from_secs(10)), 1);
    assert_eq!(house.counts().since(&before).wake_ups, 1);
    house.assert_idle();
    house.leave();
}

#[test]
fn what_was_posted_before_the_first_prepare_is_not_forgotten() {
    let mut house: House = House::new();
    let remote = house.context.remote().unwrap();
    remote.post(|state, _| state.numbers.push(1)).unwrap();
    house.turn(Duration::from_secs(10));
    assert_eq!(house.data.numbers, [1]);
    house.assert_idle();
    house.leave();
}

#[test]
fn writable_and_events_and_frames_come_from_other_threads() {
    let (mut house, server) = served();
    let (mut first, one) = server.websocket(&mut house);
    let (mut second, two) = server.websocket(&mut house);
    let protocol: ProtocolId = house.data.protocol.unwrap();
    let remote = house.context.remote().unwrap();
    house.settle();
    let frame = house.io().encode("to all");
    thread::spawn(move || {
        remote.request_writable(one).unwrap();
        remote.notify(two, Box::new(7)).unwrap();
        remote.request_writable_all(protocol).unwrap();
        remote.broadcast(protocol, frame).unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(house.frame(&mut first), (1, b"to all".to_vec()));
    assert_eq!(house.frame(&mut second), (1, b"to all".to_vec()));
    house.settle();
    // The second request found the first one still open, or answered: one event at least.
    assert!(house.data.heard(one).contains(&"writable"));
    assert_eq!(house.data.heard(two), ["event", "writable"]);
    house.assert_idle();
    house.leave();
}

#[test]
fn events_for_conns_that_are_gone_are_passed_over() {
    let (mut house, server) = served();
    let (_client, id) = server.websocket(&mut house);
    let remote: Remote<State> = house.context.remote().unwrap();
    conn(&mut house, id).abort();
    remote.notify(id, Box::new(())).unwrap();
    remote.request_writable(id).unwrap();
    house.settle();
    assert_eq!(house.data.heard(id), ["closed"]);
    remote.notify(id, Box::new(())).unwrap();
    house.settle();
    assert_eq!(house.data.heard(id), ["closed"]);
    house.leave();
}

#[test]
fn full_queue_gives_the_task_back_and_loses_none_that_it_took() {
    let mut context: Context<u32> = Context::new();
    let remote = context.remote().unwrap();
    let mut taken = 0;
    let refused = loop {
        match remote.post(|count: &mut u32, _: &mut Io<u32>| *count += 1) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(taken, 65_536);
    assert_eq!(remote.waiting(), 65_536);
    let PostError::Full(task) = refused else { panic!("{refused:?}") };
    let mut count = 0;
    task(&mut count, context.io());
    assert_eq!(count, 1);
    assert!(remote.wake().is_ok(), "it is awake already");
    let mut own = Loop::new();
    own.run_while(&mut context, &mut count, |count| *count < taken + 1).unwrap();
    assert!(remote.post(|count, _| *count += 1).is_ok());
    own.leave(&mut context, &mut count);
}

#[test]
fn remote_of_a_context_that_is_gone_says_so_and_gives_everything_back() {
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Noted(Arc<AtomicUsize>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let mut context: Context<u32> = Context::new();
    let remote = context.remote().unwrap();
    let noted = Noted(Arc::clone(&dropped));
    remote
        .post(move |_, _| {
            let _ = &noted;
        })
        .unwrap();
    drop(context);
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "what waited is dropped");
    let Err(PostError::Gone(task)) = remote.post(|count: &mut u32, _: &mut Io<u32>| *count += 1) else {
        panic!()
    };
    let mut other: Context<u32> = Context::new();
    let mut count = 0;
    task(&mut count, other.io());
    assert_eq!(count, 1);
    assert!(matches!(remote.wake(), Err(PostError::Gone(()))));
    other.abandon();
}

#[test]
fn loop_ends_when_another_thread_shuts_the_context_down() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    let remote = house.context.remote().unwrap();
    house.host.detach(&mut house.context);
    let peer = thread::spawn(move || {
        remote.post(|_, io| io.shutdown(lodger::ws::CloseCode::GOING_AWAY)).unwrap();
        wait_until("the Close comes", || {
            client.pull();
            client.next_frame() == Some((8, vec![3, 233]))
        });
        client.close(1001);
        wait_until("the end comes", || {
            client.pull();
            client.end == Some(End::Eof)
        });
    });
    Loop::new().run(&mut house.context, &mut house.data).unwrap();
    peer.join().unwrap();
    assert!(house.data.closed_of(id).is_some());
    assert_eq!(house.io().link_count(), 0);
    house.leave();
}

// Between service calls.

#[test]
fn what_is_done_between_service_calls_is_written_and_announced_by_the_next_prepare() {
    let (mut house, server) = served();
    let (mut client, id) = server.websocket(&mut house);
    house.settle();
    conn(&mut house, id).send("from outside").unwrap();
    let listener = house.io().listen(any_port(), server.site).unwrap();
    let address = house.io().local_addr(listener).unwrap().inet().unwrap();
    house.io().after(Duration::ZERO, |state, _| state.numbers.push(1));
    conn(&mut house, id).set_timer(Duration::from_millis(1));
    let before = house.counts();
    let _ = house.host.prepare(&mut house.context);
    assert_eq!(house.counts().since(&before).adds, 1);
    wait_until("the message is out", || {
        client.pull();
        client.next_frame() == Some((1, b"from outside".to_vec()))
    });
    house.until("both timers have run", |house| house.data.heard(id) == ["timer"]);
    assert_eq!(house.data.numbers, [1]);
    let mut late = Client::tcp(address);
    house.upgrade(&mut late);
    conn(&mut house, id).close();
    let _ = house.host.prepare(&mut house.context);
    wait_until("the Close is out", || {
        client.pull();
        client.next_frame() == Some((8, vec![3, 232]))
    });
    house.io().close_listener(listener);
    let _ = house.host.prepare(&mut house.context);
    assert!(std::net::TcpStream::connect(address).is_err());
    house.leave();
}

#[test]
fn cancelled_timers_and_tasks_do_not_run_and_leave_no_deadline() {
    let (mut house, server) = served();
    let (_client, id) = server.websocket(&mut house);
    let task = house.io().after(Duration::from_millis(1), |state, _| state.numbers.push(1));
    conn(&mut house, id).set_timer(Duration::from_millis(1));
    conn(&mut house, id).set_timer(Duration::from_millis(2));
    assert!(house.io().cancel(task));
    assert!(!house.io().cancel(task));
    conn(&mut house, id).cancel_timer();
    assert_eq!(house.host.prepare(&mut house.context), lodger::Wait::FOREVER);
    house.assert_idle();
    assert!(house.data.numbers.is_empty() && house.data.heard(id).is_empty());
    house.leave();
}

/// A poll(2) of another thread over a copy of what a host watches: a loop that sleeps and does not know of the context.
fn sleeper(array: &PollArray) -> (thread::JoinHandle<bool>, mpsc::Receiver<()>) {
    let mut entries: Vec<libc::pollfd> = array.entries().to_vec();
    let (sleeps, asleep) = mpsc::channel();
    let handle = thread::spawn(move || {
        sleeps.send(()).unwrap();
        lodger_poll::poll(&mut entries, Duration::from_secs(10)).unwrap() > 0
    });
    (handle, asleep)
}

#[test]
fn sleeping_loop_is_woken_by_use_of_the_context_when_self_wake_is_on() {
    let mut context: Context<State> = Context::builder().self_wake(true).build();
    let mut array = PollArray::new();
    // Nothing was used yet, and still the loop can be woken.
    let _ = context.prepare(&mut array);
    assert_eq!(array.len(), 1);
    for _ in 0..2 {
        let (sleeper, asleep) = sleeper(&array);
        asleep.recv().unwrap();
        context.io().after(Duration::from_secs(60), |_, _| {});
        assert!(sleeper.join().unwrap(), "the sleep ended for the wake-up descriptor");
        array.wait(Duration::ZERO).unwrap();
        let mut state = State::default();
        while array.serve(&mut context, &mut state).is_some() {}
        context.service_timeouts(&mut state);
        let _ = context.prepare(&mut array);
        assert_eq!(array.wait(Duration::ZERO).unwrap(), 0, "once");
    }
    context.leave(&mut array, &mut State::default());
}

/// The system's clock, with a count of how often it was read.
struct Counted(Arc<AtomicUsize>);

impl Env for Counted {
    fn now(&mut self) -> std::time::Instant {
        self.0.fetch_add(1, Ordering::Relaxed);
        SystemEnv.now()
    }
    fn date(&mut self) -> std::time::SystemTime {
        SystemEnv.date()
    }
    fn random(&mut self, bytes: &mut [u8]) {
        SystemEnv.random(bytes);
    }
}

#[test]
fn loop_with_self_wake_does_not_wake_itself() {
    let readings = Arc::new(AtomicUsize::new(0));
    let env = Counted(Arc::clone(&readings));
    let mut context: Context<u32> = Context::builder().env(env).self_wake(true).build();
    let _remote = context.remote().unwrap();
    context.io().after(Duration::from_millis(60), |done, _| *done = 1);
    let (mut own, mut done) = (Loop::new(), 0);
    own.run(&mut context, &mut done).unwrap();
    assert_eq!(done, 1);
    let readings = readings.load(Ordering::Relaxed);
    assert!(readings < 20, "the clock is read once a turn: {readings} turns");
    own.leave(&mut context, &mut done);
}

#[test]
fn without_self_wake_no_descriptor_is_made_for_it() {
    let mut context: Context<State> = Context::new();
    let mut array = PollArray::new();
    context.io().after(Duration::from_secs(60), |_, _| {});
    let _ = context.prepare(&mut array);
    assert!(array.is_empty());
    context.leave(&mut array, &mut State::default());
}

#[test]
fn id_of_a_conn_that_has_ended_finds_nothing_though_its_place_is_taken() {
    let (mut house, server) = served();
    let (_client, id): (Client, ConnId) = server.websocket(&mut house);
    conn(&mut house, id).abort();
    house.settle();
    let (_next, next) = server.websocket(&mut house);
    assert_ne!(id, next);
    assert!(house.io().conn(id).is_none());
    assert!(house.io().notify(id, Box::new(())).is_err());
    assert!(house.io().conn(next).is_some());
    house.leave();
}

#[test]
fn posts_that_come_with_every_sleep_are_no_spin() {
    let mut house = lodger::audit::Audited::new(PollArray::new()).spin_after(3);
    let mut context: Context<u32> = Context::new();
    let remote = context.remote().unwrap();
    let mut posts = 0;
    for _ in 0..20 {
        remote.post(|posts, _| *posts += 1).unwrap();
        let wait = house.prepare(&mut context);
        house.audit.sleeping(wait.duration());
        house.host.wait(wait).unwrap();
        while let Some(entry) = house.host.next_ready() {
            assert_eq!(house.audit.service_fd(&mut context, entry, &mut posts), Served::Ours);
        }
        house.audit.service_timeouts(&mut context, &mut posts);
    }
    assert_eq!(posts, 20);
    house.leave(&mut context, &mut posts);
}
