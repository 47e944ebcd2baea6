//! What every adapter is tested with, in a calloop loop.

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, LoopHandle, Mode, PostAction};
use lodger::Context;
use lodger_battery::{Adapter, Ending, State, Then};
use lodger_calloop::Local;
use std::cell::RefCell;
use std::rc::Rc;

/// With at most this many connections in a dispatch.
struct InCalloop<const BATCH: usize>;

impl<const BATCH: usize> InCalloop<BATCH> {
    fn insert(handle: &LoopHandle<'static, State>, context: Context<State>) -> Local<State> {
        let local = lodger_calloop::insert(handle, context).unwrap();
        local.set_batch(BATCH);
        local
    }
}

fn end(local: &Local<State>, handle: &LoopHandle<'static, State>, ending: Ending, state: &mut State) {
    match ending {
        Ending::Leave => local.leave(handle, state),
        Ending::Drop => handle.remove(local.token()),
    }
}

impl<const BATCH: usize> Adapter for InCalloop<BATCH> {
    const SEVERAL: bool = true;
    const FOREIGN: bool = true;
    const ENDED_BY_HANDLERS: bool = true;

    fn run(contexts: Vec<Context<State>>, mut state: State) {
        let mut event_loop: EventLoop<'static, State> = EventLoop::try_new().unwrap();
        let handle = event_loop.handle();
        let locals = contexts.into_iter().map(|context| Self::insert(&handle, context)).collect();
        let locals: Rc<RefCell<Vec<_>>> = Rc::new(RefCell::new(locals));
        let (of_callback, weak) = (Rc::clone(&locals), handle.downgrade());
        let ring = move |_, _: &mut _, state: &mut State| {
            let handle = weak.upgrade().unwrap();
            let first = of_callback.borrow()[0].clone();
            match first.try_with(state, |state, io| state.foreign_ready(io)).unwrap() {
                Then::GoOn => {}
                Then::Move => {
                    let context = first.detach(&handle).unwrap();
                    of_callback.borrow_mut()[0] = Self::insert(&handle, context);
                }
                Then::End(ending) => end(&first, &handle, ending, state),
            }
            Ok(PostAction::Continue)
        };
        let own = Generic::new(state.foreign().try_clone_to_owned().unwrap(), Interest::READ, Mode::Level);
        handle.insert_source(own, ring).unwrap();
        let (of_handlers, weak) = (locals.borrow()[0].clone(), handle.downgrade());
        state.ends_by(move |state, ending| end(&of_handlers, &weak.upgrade().unwrap(), ending, state));
        while state.goes_on() {
            let _ = state.survive(|state| event_loop.dispatch(None, state).unwrap());
        }
        // A context that is to be dropped goes with its loop.
        if state.ending() == Ending::Leave {
            locals.borrow().iter().for_each(|local| local.leave(&handle, &mut state));
        }
        for local in locals.borrow().iter().filter(|local| !local.is_there()) {
            assert!(handle.disable(&local.token()).is_err(), "its source is still there");
        }
        drop((event_loop, handle));
        assert!(locals.borrow().iter().all(|local| !local.is_there()));
    }
}

mod in_batches {
    lodger_battery::battery!(super::InCalloop<64>);
}

mod one_at_a_time {
    lodger_battery::battery!(super::InCalloop<1>);
}
