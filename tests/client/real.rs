//! What only real sockets show.

use super::town::{Script, State};
use lodger::client::ConnectError;
use lodger::{CloseReason, Connect, Context};
use lodger_poll::VecHost;
use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

/// Runs a real loop until `done` says so.
fn run_until(context: &mut Context<State>, state: &mut State, done: impl Fn(&State) -> bool) {
    let mut pollfds: Vec<libc::pollfd> = Vec::new();
    let start = context.io().now();
    while !done(state) {
        let wait = context.prepare(&mut VecHost(&mut pollfds));
        lodger_poll::compact(&mut pollfds);
        lodger_poll::poll(&mut pollfds, wait).unwrap();
        for pollfd in pollfds.iter_mut().filter(|pollfd| pollfd.revents != 0) {
            let _ = context.service_fd(pollfd, state);
        }
        context.service_timeouts(state);
        let elapsed = context.io().now() - start;
        assert!(elapsed < Duration::from_secs(60), "{:?}", state.log);
    }
    context.leave(&mut VecHost(&mut pollfds), state);
}

#[test]
fn a_connection_comes_from_the_source_that_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let mut context: Context<State> = Context::new();
    let mut state = State::default();
    context.io().connect_raw(Connect::tcp("127.0.0.1", port).source(source), Script::quiet());
    let server = std::thread::spawn(move || {
        let (mut socket, from) = listener.accept().unwrap();
        socket.write_all(b"hello").unwrap();
        from
    });
    run_until(&mut context, &mut state, |state| state.log.len() > 1);
    assert_eq!(state.log[..2], ["connected", "bytes hello"]);
    assert_eq!(server.join().unwrap().ip(), source);
}

#[test]
fn a_source_that_is_not_ours_fails_the_attempt() {
    let mut context: Context<State> = Context::new();
    let mut state = State::default();
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    context.io().connect_raw(Connect::tcp("127.0.0.1", 9).source(source), Script::quiet());
    run_until(&mut context, &mut state, |state| !state.ends.is_empty());
    let reason = &state.ends[0].1.reason;
    let CloseReason::Connect(error) = reason else { panic!("{reason:?}") };
    assert!(matches!(&**error, ConnectError::Unreachable(attempts) if attempts.len() == 1), "{error:?}");
}
