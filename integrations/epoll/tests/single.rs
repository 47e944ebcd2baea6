//! What every adapter is tested with, behind one descriptor: in a `poll(2)` array, in an edge-triggered epoll set, and alone.

#![expect(clippy::disallowed_methods, reason = "a host waits")]

use lodger::Context;
use lodger_battery::{Adapter, Ending, State, Then};
use lodger_epoll::Single;
use rustix::event::{PollFd, PollFlags, poll};

/// Dispatches one of several, if it is still there; the loop runs on when a handler panics.
fn dispatch(single: &mut Option<Single<State>>, max: usize, state: &mut State) {
    if let Some(single) = single {
        let _ = state.survive(|state| single.dispatch(max, state).unwrap());
    }
}

/// Uses the first of several as a callback of the host's does. `again`: it is behind another descriptor now.
fn ring(
    first: &mut Option<Single<State>>,
    state: &mut State,
    again: impl FnOnce(Context<State>) -> Single<State>,
) {
    let single = first.as_mut().unwrap();
    match single.with(|io| state.foreign_ready(io)).unwrap() {
        Then::GoOn => {}
        Then::Move => *first = first.take().map(|single| again(single.detach())),
        Then::End(ending) => end(first.take(), ending, state),
    }
}

fn end(single: Option<Single<State>>, ending: Ending, state: &mut State) {
    match (single, ending) {
        (Some(single), Ending::Leave) => single.leave(state),
        (single, _) => drop(single),
    }
}

fn single(context: Context<State>) -> Single<State> {
    Single::new(context).unwrap()
}

struct InPollArray;

impl Adapter for InPollArray {
    const SEVERAL: bool = true;
    const FOREIGN: bool = true;

    fn run(contexts: Vec<Context<State>>, mut state: State) {
        let mut singles: Vec<_> = contexts.into_iter().map(|context| Some(single(context))).collect();
        while state.goes_on() {
            let own = PollFd::from_borrowed_fd(state.foreign(), PollFlags::IN);
            let entries = singles.iter().flatten().map(|single| PollFd::new(single, PollFlags::IN));
            let mut entries: Vec<_> = std::iter::once(own).chain(entries).collect();
            poll(&mut entries, None).unwrap();
            let ready: Vec<bool> = entries.iter().map(|entry| !entry.revents().is_empty()).collect();
            drop(entries);
            let places = singles.iter_mut().filter(|single| single.is_some());
            for (single_there, _) in places.zip(&ready[1..]).filter(|(_, ready)| **ready) {
                dispatch(single_there, 64, &mut state);
            }
            if ready[0] {
                ring(&mut singles[0], &mut state, single);
            }
        }
        singles.into_iter().for_each(|single| end(single, state.ending(), &mut state));
    }
}

/// One descriptor at a time.
struct Alone;

impl Adapter for Alone {
    fn run(contexts: Vec<Context<State>>, mut state: State) {
        let mut alone = contexts.into_iter().next().map(single);
        while state.goes_on() {
            poll(&mut [PollFd::new(alone.as_ref().unwrap(), PollFlags::IN)], None).unwrap();
            dispatch(&mut alone, 1, &mut state);
        }
        end(alone, state.ending(), &mut state);
    }
}

/// A host that dispatches late, twice, and for nothing.
struct Unruly;

impl Adapter for Unruly {
    const HONEST: bool = false;

    fn run(contexts: Vec<Context<State>>, mut state: State) {
        let mut alone = contexts.into_iter().next().map(single);
        let mut turn = 0_u32;
        while state.goes_on() {
            turn += 1;
            // Every fifth turn does not wait, and finds what it finds.
            if !turn.is_multiple_of(5) {
                poll(&mut [PollFd::new(alone.as_ref().unwrap(), PollFlags::IN)], None).unwrap();
            }
            let times = [1, 0, 2, 0, 3][turn as usize % 5];
            (0..times).for_each(|_| dispatch(&mut alone, 64, &mut state));
        }
        end(alone, state.ending(), &mut state);
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

        fn run(contexts: Vec<Context<State>>, mut state: State) {
            const OWN: u64 = u64::MAX;
            let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            epoll::add(&set, state.foreign(), epoll::EventData::new_u64(OWN), epoll::EventFlags::IN).unwrap();
            let mut singles = Vec::new();
            let watched = |at: usize, context| {
                let single = single(context).edge_triggered();
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&set, single.as_fd(), epoll::EventData::new_u64(at as u64), flags).unwrap();
                single
            };
            for (at, context) in contexts.into_iter().enumerate() {
                singles.push(Some(watched(at, context)));
            }
            let mut events = Vec::with_capacity(8);
            while state.goes_on() {
                events.clear();
                epoll::wait(&set, spare_capacity(&mut events), None).unwrap();
                for event in &events {
                    match event.data.u64() {
                        OWN => ring(&mut singles[0], &mut state, |context| watched(0, context)),
                        at => dispatch(&mut singles[at as usize], 3, &mut state),
                    }
                }
            }
            singles.into_iter().for_each(|single| end(single, state.ending(), &mut state));
        }
    }

    lodger_battery::battery!(InEdgeTriggeredSet);
}

mod alone {
    lodger_battery::battery!(super::Alone);
}

mod in_an_unruly_loop {
    lodger_battery::battery!(super::Unruly);
}
