//! How connections, guests and loops end.

use super::rig::*;
use crate::sys::{Home, Mode, join_foreign};
use crate::{Guest, Loop};
use lodger::Context;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

#[test]
fn peers_may_reset_their_connections_in_every_state() {
    let mut house = House::new(|cx, heard| match heard {
        Heard::Text("pause") => cx.conn().pause(),
        Heard::Text("fill") => {
            let text = "x".repeat(1 << 20);
            while cx.send(text.as_str()) == Ok(lodger::Flow::Ready) {}
        }
        Heard::Text("close") => {
            let _ = cx.send("bye");
            cx.close();
        }
        other => echo(cx, other),
    });
    house.run(|address| {
        let still_there = |n: u32| {
            let client = Client::connect(address);
            client.send(&format!("{n}"));
            assert_eq!(client.receive(), format!("{n}"));
        };
        for round in 0..3 {
            Client::plain(address).reset();
            still_there(round);
            let begun = Client::plain(address);
            std::io::Write::write_all(&mut &begun.0, b"GET / HTTP/1.1\r\nHost: lo").unwrap();
            begun.reset();
            still_there(round);
            for text in ["echo", "pause", "fill", "close"] {
                let client = Client::connect(address);
                client.send(text);
                if text != "pause" {
                    let _ = client.frame();
                }
                client.reset();
                still_there(round);
            }
            // In the middle of a message.
            let client = Client::connect(address);
            std::io::Write::write_all(&mut &client.0, &frame("half a message")[..9]).unwrap();
            client.reset();
            still_there(round);
        }
    });
    let state = house.leave();
    assert_eq!(state.opened, state.closed);
}

#[test]
fn panic_of_a_handler_goes_on_outside_of_run_and_the_guest_with_the_next() {
    let mut house = House::new(|cx, heard| match heard {
        Heard::Text("panic") => panic!("on purpose"),
        other => echo(cx, other),
    });
    let peer = house.begin(|address| {
        let (victim, other) = (Client::connect(address), Client::connect(address));
        other.send("before");
        assert_eq!(other.receive(), "before");
        victim.send("panic");
        let mut byte = [0];
        let _ = std::io::Read::read(&mut &victim.0, &mut byte);
        other.send("after");
        assert_eq!(other.receive(), "after");
    });
    let panic = catch_unwind(AssertUnwindSafe(|| house.uv.run())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    house.uv.run();
    peer.join().unwrap();
    house.leave();
}

/// A guest in a loop that it takes for a C program's.
fn foreign() -> (Home, Guest<u32>) {
    let home = Home::new().unwrap();
    let guest = join_foreign(&home, Context::new(), 0);
    guest.with(|_, io| {
        io.after(Duration::ZERO, |_, _| panic!("on purpose"));
        io.after(Duration::from_millis(1), |ran, _| *ran += 1);
    });
    (home, guest)
}

#[test]
fn panic_in_somebody_elses_loop_waits_to_be_taken_and_the_guest_stands_still() {
    let (home, guest) = foreign();
    // Nothing of the guest keeps the loop alive.
    assert!(!home.run(Mode::Default));
    assert_eq!(guest.try_with(|ran, _| *ran), Some(0));
    assert!(!home.run(Mode::Default));
    assert_eq!(guest.take_panic().unwrap().downcast_ref(), Some(&"on purpose"));
    assert!(guest.take_panic().is_none());
    home.run(Mode::Default);
    assert_eq!(guest.leave(), Some(1));
    home.close().unwrap();
}

#[test]
fn panic_that_nobody_has_taken_goes_on_from_leave() {
    let (home, guest) = foreign();
    home.run(Mode::Default);
    let panic = catch_unwind(AssertUnwindSafe(|| guest.leave())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    home.run(Mode::Default);
    home.close().unwrap();
}

/// A guest whose own state holds it, so that handlers can end it.
fn self_keeping(end: impl Fn(Guest<State>) + 'static) -> (Loop, std::net::SocketAddr) {
    let house = House::new(move |cx, heard| {
        if let Heard::Text(_) = heard {
            end(cx.data.slot.take().unwrap());
            // It goes on until the handler returns.
            let _ = cx.send("still here");
        }
    });
    let House { uv, guest, address, .. } = house;
    let local = guest.local();
    local.with(move |state, _| state.slot = Some(guest));
    (uv, address)
}

#[test]
fn guest_that_is_dropped_in_a_handler_is_gone_when_that_returns() {
    let (mut uv, address) = self_keeping(drop);
    let peer = thread::spawn(move || {
        let client = Client::connect(address);
        client.send("drop");
        // Nothing is said: the end, or a reset.
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut &client.0, &mut rest);
        assert!(!rest.contains(&0x88));
    });
    uv.run();
    assert!(!uv.is_alive());
    uv.close().unwrap();
    peer.join().unwrap();
}

#[test]
fn guest_that_leaves_in_a_handler_says_goodbye() {
    let (mut uv, address) = self_keeping(|guest| assert!(guest.leave().is_none()));
    let peer = thread::spawn(move || {
        let client = Client::connect(address);
        client.send("leave");
        assert_eq!(client.receive(), "still here");
        assert_eq!(client.frame(), (0x88, vec![0x03, 0xe9]));
    });
    uv.run();
    assert!(!uv.is_alive());
    uv.close().unwrap();
    peer.join().unwrap();
}

#[test]
fn loop_that_is_run_within_a_use_of_the_context_does_not_end_before_what_that_has_asked_for() {
    let mut uv = Loop::new().unwrap();
    let home = uv.home().clone();
    let guest = uv.join(Context::<Vec<u32>>::new(), Vec::new());
    guest.with(move |_, io| {
        home.run(Mode::NoWait);
        io.after(Duration::from_millis(1), |ran, _| ran.push(1));
    });
    uv.run();
    assert_eq!(guest.leave(), Some(vec![1]));
    uv.close().unwrap();
}

#[test]
fn guest_cannot_be_detached_in_a_handler() {
    let kept = Rc::new(RefCell::new(None));
    let keep = Rc::clone(&kept);
    let (mut uv, address) = self_keeping(move |guest| *keep.borrow_mut() = Some(guest.detach().unwrap_err()));
    let peer = thread::spawn(move || {
        let client = Client::connect(address);
        client.send("detach");
        assert_eq!(client.receive(), "still here");
    });
    while kept.borrow().is_none() {
        uv.run_once();
    }
    peer.join().unwrap();
    let guest: Guest<State> = kept.take().unwrap();
    assert!(guest.detach().is_ok());
    uv.run();
    uv.close().unwrap();
}

#[test]
fn guest_that_is_dropped_in_a_callback_of_the_owner_leaves_nothing_behind() {
    let House { mut uv, guest, .. } = House::new(echo);
    let slot = Rc::new(RefCell::new(Some(guest)));
    let timer = Own::timer(uv.home(), Duration::from_millis(5), move || drop(slot.take()));
    uv.run();
    drop(timer);
    uv.run_nowait();
    assert!(!uv.is_alive());
    uv.close().unwrap();
}

#[test]
fn guest_and_loop_may_be_dropped_in_any_order_and_without_another_run() {
    let House { mut uv, guest, .. } = House::new(echo);
    uv.run_nowait();
    drop(guest);
    drop(uv);
    let House { mut uv, guest, .. } = House::new(echo);
    uv.run_nowait();
    drop(uv);
    drop(guest);
    drop(House::new(echo));
}

#[test]
fn context_moves_from_loop_to_loop_with_its_connections() {
    let mut house = House::new(echo);
    let (remote, address) = (house.remote.clone(), house.address);
    let (moved, wait) = std::sync::mpsc::channel();
    let peer = thread::spawn(move || {
        let end = ShutDown(remote.clone());
        let client = Client::connect(address);
        client.send("here");
        assert_eq!(client.receive(), "here");
        remote.post(|state, _| state.numbers.push(1)).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        client.send("there");
        assert_eq!(client.receive(), "there");
        drop(end);
    });
    while house.guest.try_with(|state, _| state.numbers.is_empty()) == Some(true) {
        house.uv.run_once();
    }
    let (context, state) = house.guest.detach().unwrap();
    house.uv.run();
    house.uv.close().unwrap();
    moved.send(()).unwrap();
    let mut uv = Loop::new().unwrap();
    let guest = uv.join(context, state);
    uv.run();
    peer.join().unwrap();
    assert_eq!(guest.leave().unwrap().closed, 1);
    uv.close().unwrap();
}

#[test]
fn loop_ends_with_only_a_remote_left_or_when_told_not_to_be_kept() {
    let mut uv = Loop::new().unwrap();
    let mut context: Context<u32> = Context::new();
    let remote = context.remote().unwrap();
    let guest = uv.join(context, 0);
    uv.run();
    remote.post(|ran, _| *ran += 1).unwrap();
    // Not alive, so it is not looked at; it is there when the loop has something else to do.
    guest.with(|_, io| {
        io.after(Duration::from_millis(5), |_, _| ());
    });
    uv.run();
    assert_eq!(guest.leave(), Some(1));
    uv.close().unwrap();

    let mut house = House::new(echo);
    house.guest.keep_loop_alive(false);
    house.uv.run();
    house.guest.keep_loop_alive(true);
    house.run(|address| drop(Client::connect(address)));
    house.leave();
}

#[test]
fn loop_with_a_guest_in_it_is_not_closed() {
    let House { uv, guest, .. } = House::new(echo);
    assert_eq!(uv.close().unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    guest.leave();
}
