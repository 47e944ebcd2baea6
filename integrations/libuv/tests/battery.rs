//! What every adapter is tested with, in a libuv loop with a handle of its owner's.

#![allow(unsafe_code)]

use lodger::Context;
use lodger_battery::{Adapter, Ending, State, Then};
use lodger_libuv::{Guest, Loop};
use std::cell::RefCell;
use std::panic::resume_unwind;
use std::rc::Rc;

struct InUv;

type Slot = Rc<RefCell<Option<Guest<State>>>>;

/// The guest is in nobody's way while it ends.
fn end(slot: &Slot, ending: Ending) {
    let guest = slot.borrow_mut().take();
    match ending {
        Ending::Leave => drop(guest.and_then(Guest::leave)),
        Ending::Drop => drop(guest),
    }
}

impl Adapter for InUv {
    const SEVERAL: bool = true;
    const FOREIGN: bool = true;
    const ENDED_BY_HANDLERS: bool = true;
    const RUN_BY_HANDLERS: bool = true;

    fn first_of_all() {
        // libuv keeps a pipe for signals from the process's first loop on.
        Loop::new().unwrap().close().unwrap();
    }

    fn run(contexts: Vec<Context<State>>, mut state: State) {
        let mut uv = Loop::new().unwrap();
        let raw = uv.as_ptr();
        // SAFETY: `uv` outlives the guests, which are gone before it is run for the last time.
        let join = move |context, state| unsafe { Guest::join(raw, context, state) };
        let outside = state.outside();
        let foreign = state.foreign().try_clone_to_owned().unwrap();
        let first = Slot::default();
        let (of_handlers, of_callback) = (Rc::clone(&first), Rc::clone(&first));
        state.ends_by(move |_, ending| end(&of_handlers, ending));
        state.runs_by(move || owner::run_once(raw));

        let states: Vec<_> = contexts.iter().skip(1).map(|_| state.another()).collect();
        let mut contexts = contexts.into_iter();
        first.replace(contexts.next().map(|context| uv.join(context, state)));
        let others: Vec<Slot> = contexts
            .zip(states)
            .map(|(context, state)| Rc::new(RefCell::new(Some(join(context, state)))))
            .collect();

        let of_owner = outside.clone();
        let own = owner::Handle::readable(raw, foreign, move || {
            let local = of_callback.borrow().as_ref().map(Guest::local);
            match local.and_then(|local| local.try_with(|state, io| state.foreign_ready(io))) {
                Some(Then::GoOn) => {}
                Some(Then::Move) => {
                    let (context, state) = of_callback.take().unwrap().detach().unwrap();
                    of_callback.replace(Some(join(context, state)));
                }
                Some(Then::End(ending)) => end(&of_callback, ending),
                None => of_owner.foreign_ready_within(),
            }
        });
        let of_owner = outside.clone();
        let turns = owner::Handle::before_sleep(raw, move || {
            if !of_owner.goes_on() {
                owner::stop(raw);
            }
        });
        while outside.survive(|| uv.run()).is_none_or(|stopped| !stopped) {
            // Where the loop is not known to be Rust's own.
            let guests = [&first].into_iter().chain(&others);
            let panics: Vec<_> = guests.filter_map(|slot| slot.borrow().as_ref()?.take_panic()).collect();
            for panic in panics {
                let _ = outside.survive(|| -> () { resume_unwind(panic) });
            }
        }
        [&first].into_iter().chain(&others).for_each(|slot| end(slot, outside.ending()));
        drop((own, turns));
        uv.run_nowait();
        assert!(!uv.is_alive());
        uv.close().unwrap();
    }
}

/// What the owner of a loop has in it, by libuv's own functions.
#[allow(clashing_extern_declarations, reason = "the adapter has types of its own for handles")]
mod owner {
    use lodger_libuv::uv_loop_t;
    use std::ffi::{c_int, c_uint, c_void};
    use std::os::fd::{AsRawFd, OwnedFd};

    type Raw = *mut c_void;

    unsafe extern "C" {
        fn uv_run(uv: *mut uv_loop_t, mode: c_uint) -> c_int;
        fn uv_stop(uv: *mut uv_loop_t);
        fn uv_handle_size(kind: c_int) -> usize;
        fn uv_handle_get_data(handle: Raw) -> Raw;
        fn uv_handle_set_data(handle: Raw, data: Raw);
        fn uv_close(handle: Raw, on_close: unsafe extern "C" fn(Raw));
        fn uv_poll_init(uv: *mut uv_loop_t, handle: Raw, fd: c_int) -> c_int;
        fn uv_poll_start(
            handle: Raw,
            events: c_int,
            on_poll: unsafe extern "C" fn(Raw, c_int, c_int),
        ) -> c_int;
        fn uv_prepare_init(uv: *mut uv_loop_t, handle: Raw) -> c_int;
        fn uv_prepare_start(handle: Raw, on_prepare: unsafe extern "C" fn(Raw)) -> c_int;
    }

    const RUN_ONCE: c_uint = 1;
    const POLL: c_int = 8;
    const PREPARE: c_int = 9;
    const READABLE: c_int = 1;

    /// Also within a callback.
    pub(super) fn run_once(uv: *mut uv_loop_t) {
        // SAFETY: the loop is there while it has handles.
        unsafe { uv_run(uv, RUN_ONCE) };
    }

    pub(super) fn stop(uv: *mut uv_loop_t) {
        // SAFETY: as above.
        unsafe { uv_stop(uv) };
    }

    pub(super) struct Handle(Raw);

    /// What its `data` points at until it is closed, with the memory of the handle.
    struct Block {
        act: Box<dyn Fn()>,
        _memory: Vec<u128>,
        _fd: Option<OwnedFd>,
    }

    impl Handle {
        /// Calls `act` whenever a descriptor is readable.
        pub(super) fn readable(uv: *mut uv_loop_t, fd: OwnedFd, act: impl Fn() + 'static) -> Self {
            let number = fd.as_raw_fd();
            // SAFETY: the handle is of this kind, and the descriptor is open until it is closed.
            unsafe {
                let own = Self::new(POLL, Box::new(act), Some(fd), |raw| uv_poll_init(uv, raw, number));
                assert_eq!(uv_poll_start(own.0, READABLE, on_poll), 0);
                own
            }
        }

        /// Calls `act` before each sleep.
        pub(super) fn before_sleep(uv: *mut uv_loop_t, act: impl Fn() + 'static) -> Self {
            // SAFETY: the handle is of this kind.
            unsafe {
                let own = Self::new(PREPARE, Box::new(act), None, |raw| uv_prepare_init(uv, raw));
                assert_eq!(uv_prepare_start(own.0, on_event), 0);
                own
            }
        }

        /// # Safety
        ///
        /// `init` is for this kind of handle.
        unsafe fn new(
            kind: c_int,
            act: Box<dyn Fn()>,
            fd: Option<OwnedFd>,
            init: impl FnOnce(Raw) -> c_int,
        ) -> Self {
            // SAFETY: the memory is of the size that libuv asks for, and lives until `on_close`.
            unsafe {
                let mut memory = vec![0_u128; uv_handle_size(kind).div_ceil(size_of::<u128>())];
                let raw: Raw = memory.as_mut_ptr().cast();
                assert_eq!(init(raw), 0);
                let block = Block { act, _memory: memory, _fd: fd };
                uv_handle_set_data(raw, Box::into_raw(Box::new(block)).cast());
                Self(raw)
            }
        }
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            // SAFETY: closed here only.
            unsafe { uv_close(self.0, on_close) };
        }
    }

    unsafe extern "C" fn on_poll(raw: Raw, status: c_int, _events: c_int) {
        assert_eq!(status, 0);
        // SAFETY: libuv calls back with the handle that was started.
        unsafe { on_event(raw) };
    }

    unsafe extern "C" fn on_event(raw: Raw) {
        // SAFETY: the block lives until `on_close`, and nobody borrows it exclusively.
        let block = unsafe { &*uv_handle_get_data(raw).cast::<Block>() };
        (block.act)();
    }

    unsafe extern "C" fn on_close(raw: Raw) {
        // SAFETY: made by `Box::into_raw`; libuv refers to it no more.
        drop(unsafe { Box::from_raw(uv_handle_get_data(raw).cast::<Block>()) });
    }
}

lodger_battery::battery!(InUv);
