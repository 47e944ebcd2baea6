//! What every adapter is tested with, in a calloop loop.

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, Mode, PostAction};
use lodger::Context;
use lodger_battery::{Adapter, Ending, State};

/// With at most this many connections in a dispatch.
struct InCalloop<const BATCH: usize>;

impl<const BATCH: usize> Adapter for InCalloop<BATCH> {
    const SEVERAL: bool = true;
    const FOREIGN: bool = true;

    fn run(contexts: Vec<Context<State>>, mut state: State) -> State {
        let mut event_loop: EventLoop<'_, State> = EventLoop::try_new().unwrap();
        let handle = event_loop.handle();
        let insert = |context| lodger_calloop::insert(&handle, context).unwrap();
        let locals: Vec<_> = contexts.into_iter().map(insert).collect();
        locals.iter().for_each(|local| local.set_batch(BATCH));
        let own = Generic::new(state.foreign().try_clone_to_owned().unwrap(), Interest::READ, Mode::Level);
        let first = locals[0].clone();
        let ring = move |_, _: &mut _, state: &mut State| {
            first.try_with(state, |state, io| state.foreign_ready(io)).unwrap();
            Ok(PostAction::Continue)
        };
        handle.insert_source(own, ring).unwrap();
        while state.goes_on() {
            let _ = state.survive(|state| event_loop.dispatch(None, state).unwrap());
        }
        if state.ending() == Ending::Leave {
            locals.iter().for_each(|local| local.leave(&handle, &mut state));
        }
        drop((event_loop, handle));
        assert!(locals.iter().all(|local| !local.is_there()));
        state
    }
}

mod in_batches {
    lodger_battery::battery!(super::InCalloop<64>);
}

mod one_at_a_time {
    lodger_battery::battery!(super::InCalloop<1>);
}
