//! What every adapter is tested with, in glib's main loop, as `glib.rs` has it.

use glib::{ControlFlow, IOCondition, MainContext, SourceId};
use lodger::Context;
use lodger_battery::{Adapter, Ending, State, Then};
use lodger_epoll::Single;
use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::rc::Rc;

struct InGlib;

type Shared<T> = Rc<RefCell<T>>;
type Place = Shared<Option<(Single<State>, SourceId)>>;

/// Has a source for what is in `place` from now on.
fn insert(place: &Place, state: &Shared<State>, context: Context<State>) {
    let single = Single::new(context).unwrap();
    let (of_source, state) = (Rc::clone(place), Rc::clone(state));
    let dispatch = move |_, _| {
        let state = &mut *state.borrow_mut();
        if let Some((single, _)) = &mut *of_source.borrow_mut() {
            // Nothing unwinds into glib.
            let _ = state.survive(|state| single.dispatch(64, state).unwrap());
        }
        ControlFlow::Continue
    };
    let source = glib_unix::unix_fd_add_local(single.as_raw_fd(), IOCondition::IN, dispatch);
    place.replace(Some((single, source)));
}

/// Takes the source out of the loop, and gives back what it was for.
fn remove(place: &Place) -> Option<Single<State>> {
    let (single, source) = place.take()?;
    source.remove();
    Some(single)
}

fn end(place: &Place, ending: Ending, state: &Shared<State>) {
    match (remove(place), ending) {
        (Some(single), Ending::Leave) => single.leave(&mut state.borrow_mut()),
        (single, _) => drop(single),
    }
}

impl Adapter for InGlib {
    const SEVERAL: bool = true;
    const FOREIGN: bool = true;
    const RUN_BY_HANDLERS: bool = true;
    // glib keeps a source that is being dispatched from its inner loops, and wakes itself when it puts it back.
    const TURNS: u64 = 2;

    fn first_of_all() {
        MainContext::default().iteration(false);
    }

    fn run(contexts: Vec<Context<State>>, mut state: State) {
        let main_context = MainContext::default();
        let (outside, foreign) = (state.outside(), state.foreign().try_clone_to_owned().unwrap());
        let of_handlers = main_context.clone();
        state.runs_by(move || _ = of_handlers.iteration(true));
        let state = Rc::new(RefCell::new(state));
        let inserted = |context| {
            let place = Place::default();
            insert(&place, &state, context);
            place
        };
        let places: Vec<_> = contexts.into_iter().map(inserted).collect();

        let (first, of_source, of_owner) = (Rc::clone(&places[0]), Rc::clone(&state), outside.clone());
        let ring = move |_, _| {
            let then = match first.try_borrow_mut() {
                Ok(mut place) => {
                    let (single, _) = place.as_mut().unwrap();
                    single.with(|io| of_source.borrow_mut().foreign_ready(io)).unwrap()
                }
                Err(_) => {
                    of_owner.foreign_ready_within();
                    Then::GoOn
                }
            };
            match then {
                Then::GoOn => {}
                Then::Move => insert(&first, &of_source, remove(&first).unwrap().detach()),
                Then::End(ending) => end(&first, ending, &of_source),
            }
            ControlFlow::Continue
        };
        let own = glib_unix::unix_fd_add_local(foreign.as_raw_fd(), IOCondition::IN, ring);
        while outside.goes_on() {
            main_context.iteration(true);
        }
        places.iter().for_each(|place| end(place, outside.ending(), &state));
        own.remove();
        assert!(!main_context.pending(), "a source is left");
    }
}

lodger_battery::battery!(InGlib);
