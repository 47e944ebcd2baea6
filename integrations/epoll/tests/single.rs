//! What every adapter is tested with, behind one descriptor: in a `poll(2)` array, in an edge-triggered epoll set, and alone.

use lodger::Context;
use lodger_battery::{Adapter, Ending, State};
use lodger_epoll::Single;
use rustix::event::{PollFd, PollFlags, poll};

/// Dispatches one of several; the loop runs on when a handler panics.
fn dispatch(single: &mut Single<State>, max: usize, state: &mut State) {
    let _ = state.survive(|state| single.dispatch(max, state).unwrap());
}

/// Uses the first of several as a callback of the host's does.
fn ring(singles: &mut [Single<State>], state: &mut State) {
    singles[0].with(|io| state.foreign_ready(io)).unwrap();
}

fn end(singles: Vec<Single<State>>, state: &mut State) {
    for single in singles {
        match state.ending() {
            Ending::Leave => single.leave(state),
            Ending::Drop => drop(single),
        }
    }
}

struct InPollArray;

impl Adapter for InPollArray {
    const SEVERAL: bool = true;
    const FOREIGN: bool = true;

    fn run(contexts: Vec<Context<State>>, mut state: State) -> State {
        let mut singles: Vec<_> = contexts.into_iter().map(|context| Single::new(context).unwrap()).collect();
        while state.goes_on() {
            let own = PollFd::from_borrowed_fd(state.foreign(), PollFlags::IN);
            let entries = singles.iter().map(|single| PollFd::new(single, PollFlags::IN));
            let mut entries: Vec<_> = std::iter::once(own).chain(entries).collect();
            poll(&mut entries, None).unwrap();
            let ready: Vec<bool> = entries.iter().map(|entry| !entry.revents().is_empty()).collect();
            drop(entries);
            if ready[0] {
                ring(&mut singles, &mut state);
            }
            for (single, _) in singles.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
                dispatch(single, 64, &mut state);
            }
        }
        end(singles, &mut state);
        state
    }
}

/// One descriptor at a time.
struct Alone;

impl Adapter for Alone {
    fn run(contexts: Vec<Context<State>>, mut state: State) -> State {
        let mut singles: Vec<_> = contexts.into_iter().map(|context| Single::new(context).unwrap()).collect();
        while state.goes_on() {
            poll(&mut [PollFd::new(&singles[0], PollFlags::IN)], None).unwrap();
            dispatch(&mut singles[0], 1, &mut state);
        }
        end(singles, &mut state);
        state
    }
}

mod in_a_poll_array {
    lodger_battery::battery!(super::InPollArray);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod in_an_edge_triggered_set {
    use super::*;
    use rustix::buffer::spare_capacity;
    use rustix::event::epoll;
    use std::os::fd::AsFd;

    /// A small `max`, so that much is left for the next edge.
    struct InEdgeTriggeredSet;

    impl Adapter for InEdgeTriggeredSet {
        const SEVERAL: bool = true;
        const FOREIGN: bool = true;

        fn run(contexts: Vec<Context<State>>, mut state: State) -> State {
            const OWN: u64 = u64::MAX;
            let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            epoll::add(&set, state.foreign(), epoll::EventData::new_u64(OWN), epoll::EventFlags::IN).unwrap();
            let mut singles = Vec::new();
            for (at, context) in contexts.into_iter().enumerate() {
                let single = Single::new(context).unwrap().edge_triggered();
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&set, single.as_fd(), epoll::EventData::new_u64(at as u64), flags).unwrap();
                singles.push(single);
            }
            let mut events = Vec::with_capacity(8);
            while state.goes_on() {
                events.clear();
                epoll::wait(&set, spare_capacity(&mut events), None).unwrap();
                for event in &events {
                    match event.data.u64() {
                        OWN => ring(&mut singles, &mut state),
                        at => dispatch(&mut singles[at as usize], 3, &mut state),
                    }
                }
            }
            end(singles, &mut state);
            state
        }
    }

    lodger_battery::battery!(InEdgeTriggeredSet);
}

mod alone {
    lodger_battery::battery!(super::Alone);
}
