//! A libuv loop that belongs to Rust.

use crate::guest::{Guest, Panics};
use crate::sys::{Home, Mode, uv_loop_t};
use lodger::Context;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;

/// A libuv loop for programs that have none. [`as_ptr`](Self::as_ptr) gives it to C and to other bindings.
///
/// When dropped, it is closed once its guests have gone, too. If somebody else has left open handles in it, its memory stays.
#[doc(alias("uv_loop_t", "uv_default_loop"))]
pub struct Loop {
    home: Home,
    panics: Rc<Panics>,
}

impl Loop {
    /// A loop in which nothing lives yet.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or no memory left.
    #[doc(alias = "uv_loop_init")]
    pub fn new() -> io::Result<Self> {
        Ok(Self { home: Home::new()?, panics: Rc::default() })
    }

    /// Moves `context` in, with the state that its handlers work on. A loop can have many guests.
    pub fn join<D: 'static>(&self, context: Context<D>, data: D) -> Guest<D> {
        Guest::move_in(&self.home, context, data, Rc::clone(&self.panics))
    }

    /// Runs until nothing keeps the loop alive, or somebody says `uv_stop`; the latter, if it returns true.
    ///
    /// # Panics
    ///
    /// With the panic of a handler. The guest goes on with the next run, without the connection that it came from.
    #[doc(alias = "UV_RUN_DEFAULT")]
    pub fn run(&mut self) -> bool {
        self.run_in(Mode::Default)
    }

    /// One iteration, which sleeps until something is ready. Says whether the loop is alive.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    #[doc(alias = "UV_RUN_ONCE")]
    pub fn run_once(&mut self) -> bool {
        self.run_in(Mode::Once)
    }

    /// One iteration without sleep. Says whether the loop is alive.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    #[doc(alias = "UV_RUN_NOWAIT")]
    pub fn run_nowait(&mut self) -> bool {
        self.run_in(Mode::NoWait)
    }

    /// In a forked child that goes on serving in its parent's place: makes the loop the child's own (`uv_loop_fork`). After it
    /// come its guests ([`Guest::take_over`]). Until then dropping it does nothing in the child.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or no memory left.
    #[doc(alias = "uv_loop_fork")]
    pub fn take_over(&mut self) -> io::Result<()> {
        self.home.fork()
    }

    /// Whether something keeps the loop alive.
    #[doc(alias = "uv_loop_alive")]
    pub fn is_alive(&self) -> bool {
        self.home.is_alive()
    }

    /// The loop, for C and for other bindings. It is there until this `Loop` and its guests have been dropped; it must not be
    /// run within one of its own callbacks, nor be closed.
    pub fn as_ptr(&self) -> *mut uv_loop_t {
        self.home.as_ptr()
    }

    /// Closes the loop, after one iteration in which handles that are closing come to their end.
    ///
    /// # Errors
    ///
    /// Somebody still lives in it (`EBUSY`): a guest, or handles of somebody else's. It is closed later, if it can be.
    #[doc(alias = "uv_loop_close")]
    pub fn close(self) -> io::Result<()> {
        self.home.close()
    }

    #[cfg(test)]
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    fn run_in(&mut self, mode: Mode) -> bool {
        let is_alive = self.home.run(mode);
        if let Some(panic) = self.panics.take() {
            resume_unwind(panic);
        }
        is_alive
    }
}

impl fmt::Debug for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loop").field("is_alive", &self.is_alive()).finish_non_exhaustive()
    }
}
