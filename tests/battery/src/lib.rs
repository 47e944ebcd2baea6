//! The end-to-end tests that every adapter of lodger runs.
//!
//! An adapter's test file says how a context lives in its loop, and gets one test for each case:
//!
//! ```
//! use lodger::{Context, Ready};
//! use lodger_battery::{Adapter, Ending, State};
//! use lodger_poll::Loop;
//!
//! struct OwnLoop;
//!
//! impl Adapter for OwnLoop {
//!     fn run(mut contexts: Vec<Context<State>>, mut state: State) {
//!         let mut context = contexts.remove(0);
//!         let mut own = Loop::new();
//!         // A handler that panics unwinds through the loop, which then runs on.
//!         while state.survive(|state| own.run_while(&mut context, state, State::goes_on)).is_none() {}
//!         match state.ending() {
//!             Ending::Leave => own.leave(&mut context, &mut state),
//!             Ending::Drop => own.detach(&mut context),
//!         }
//!     }
//! }
//!
//! lodger_battery::battery!(OwnLoop);
//! # lodger_battery::cases::websocket_http_and_raw_connections_are_served_and_end_in_order::<OwnLoop>();
//! ```
//!
//! The peers are threads of their own with blocking sockets. They look at the server through a
//! [`Remote`](lodger::Remote) only, so that each case also shows that wake-ups arrive.
//!
//! `LODGER_BATTERY_CONNECTIONS` says how many connections are opened at once, 1,000 by default; never more than half of
//! what the process may open. With `LODGER_BATTERY_TLS` set, all of it is over TLS.

pub mod cases;
mod client;
mod descriptors;
pub mod forks;
mod handlers;
mod mischief;
mod secure;
mod state;
mod town;

pub use mischief::Mischief;
pub use state::{Ending, Outside, State, Then};

use descriptors::Descriptors;
use lodger::Context;
use state::Heard;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use town::Town;

/// How a context lives in a loop.
pub trait Adapter {
    /// The loop can hold several contexts.
    const SEVERAL: bool = false;
    /// The loop watches descriptors of the host's own, and its callbacks can reach the context.
    const FOREIGN: bool = false;
    /// After a callback of the host's own has used a context, the loop sleeps without a `prepare`: the contexts wake it by
    /// themselves ([`Builder::self_wake`](lodger::Builder::self_wake)).
    const SELF_WAKE: bool = false;
    /// The loop does not report late, twice, or what is not so: see [`Mischief`].
    const HONEST: bool = true;
    /// How many turns it takes at the most to serve one descriptor and sleep again.
    const TURNS: u64 = 1;
    /// Handlers can end the context that they belong to: see [`State::ends_by`]. Where the context is lent to the loop, or
    /// to a call of the host's, it is borrowed meanwhile, and what would end it does not compile.
    const ENDED_BY_HANDLERS: bool = false;
    /// Handlers can run the loop: see [`State::runs_by`]. Loops that lend themselves exclusively to a run cannot be run within
    /// it: that does not compile.
    const RUN_BY_HANDLERS: bool = false;

    /// Whatever the first loop of a process makes for good is made here.
    fn first_of_all() {}

    /// Runs the contexts in one loop until [`State::goes_on`], asked once before each sleep, says no, and then ends as
    /// [`State::ending`] says. There is one context, unless the loop can hold [`SEVERAL`](Self::SEVERAL).
    ///
    /// - Whatever may run a handler goes through [`State::survive`], after which the loop runs on.
    /// - A loop with descriptors of its own watches [`State::foreign`] for readability from the beginning, and calls
    ///   [`State::foreign_ready`] with the first context whenever it is readable, outside service calls; [`Then`] says what else
    ///   is to be done before that callback returns, however much of what is ready has not been served yet.
    /// - Each host is under [`lodger::audit::Audited`] where the adapter lets it in.
    /// - Afterwards the adapter looks at its loop: it is as it was.
    fn run(contexts: Vec<Context<State>>, state: State);
}

/// One test for each case, for an [`Adapter`].
#[macro_export]
macro_rules! battery {
    ($adapter:ty) => {
        $crate::battery!($adapter:
            websocket_http_and_raw_connections_are_served_and_end_in_order
            large_and_fragmented_messages_come_back_whole
            peer_that_does_not_read_is_not_read_from_and_loses_nothing
            content_is_made_no_faster_than_the_peer_takes_it
            paused_connection_delivers_nothing_until_it_is_resumed
            thousands_of_connections_are_served
            timers_run_in_order_and_cancelled_ones_never
            deadline_that_moves_earlier_is_kept_and_a_later_one_too
            posts_of_many_threads_run_in_order_without_any_tick
            listener_comes_and_goes_while_the_loop_runs
            adopted_descriptor_is_watched_and_given_back
            peer_that_resets_ends_only_its_own_connection_in_every_state
            panic_of_a_handler_ends_only_its_own_connection
            contexts_in_one_loop_do_not_disturb_each_other
            descriptors_of_the_host_are_served_in_every_turn_of_a_flood
            context_is_used_by_the_hosts_own_callbacks
            context_that_wakes_its_loop_is_used_from_outside_and_lets_it_sleep_again
            idle_context_wakes_nobody
            handler_that_takes_long_costs_no_peer_its_connection
            process_that_was_stopped_costs_no_peer_its_connection
            leaving_says_goodbye_to_everybody
            dropping_closes_everything
            refused_descriptor_ends_only_its_own_link
            context_that_a_callback_moves_keeps_its_connections
            context_that_a_callback_ends_is_gone_and_the_loop_runs_on
            context_that_a_handler_ends_is_gone_and_the_loop_runs_on
            loop_that_a_handler_runs_serves_others_and_loses_nothing
        );
    };
    ($adapter:ty: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::cases::$case::<$adapter>();
            }
        )*
    };
}

/// No peer waits longer than this for something that has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `script`, the peers' part, in a thread of its own, against `contexts` contexts in the adapter's loop. Afterwards
/// nothing is left of them: no descriptor, for one.
fn run<A: Adapter>(contexts: usize, script: impl FnOnce(&Town) + Send + 'static) -> Heard {
    run_as::<A>(contexts, A::SELF_WAKE, script)
}

/// The same with contexts that wake their loop by themselves, or do not.
fn run_as<A: Adapter>(
    contexts: usize,
    self_wake: bool,
    script: impl FnOnce(&Town) + Send + 'static,
) -> Heard {
    // One at a time: the tests of a file are run by threads of one process, and each looks at the descriptors of all.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    A::first_of_all();
    let before = Descriptors::open();
    let (town, contexts, state) = Town::found(contexts, self_wake);
    let outside = state.outside();
    let (running, ended) = mpsc::channel::<()>();
    let peers = thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| script(&town)));
        town.stop();
        // Everything is blocked if this loop does not end, and the test could only hang.
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the loop was told to stop and goes on");
            std::process::abort();
        }
        result
    });
    let result = catch_unwind(AssertUnwindSafe(|| A::run(contexts, state)));
    drop(running);
    let peers = peers.join().expect("panics are caught");
    result.and(peers).unwrap_or_else(|panic| resume_unwind(panic));
    let heard = outside.heard();
    drop(outside);
    before.are_all_again();
    heard
}
