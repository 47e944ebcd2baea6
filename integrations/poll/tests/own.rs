//! What every adapter is tested with, in a loop of its own.

use lodger::Context;
use lodger_battery::{Adapter, Ending, State};
use lodger_poll::Loop;

struct OwnLoop;

impl Adapter for OwnLoop {
    fn run(mut contexts: Vec<Context<State>>, mut state: State) {
        let mut context = contexts.remove(0);
        let mut own = Loop::new();
        while state.survive(|state| own.run_while(&mut context, state, State::goes_on).unwrap()).is_none() {}
        match state.ending() {
            Ending::Leave => own.leave(&mut context, &mut state),
            Ending::Drop => own.detach(&mut context),
        }
    }
}

lodger_battery::battery!(OwnLoop);
