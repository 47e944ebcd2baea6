//! libuv: every call that is not safe by itself, and nothing else.
//!
//! A handle's memory belongs to libuv from its start to its close callback, which frees it. It refers to its guest weakly, so
//! that a guest may be dropped anywhere, also in a callback, and also when the loop is never run again.

use crate::guest::{Guest, Panics};
use lodger::{Context, Interest, Ready};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::marker::{PhantomData, PhantomPinned};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// A libuv loop. Pointers of other bindings and of C are cast to this.
#[allow(non_camel_case_types, reason = "its name in libuv")]
#[repr(C)]
pub struct uv_loop_t {
    opaque: [u8; 0],
    /// Neither moved nor shared between threads.
    pinned: PhantomData<(*mut u8, PhantomPinned)>,
}

#[repr(C)]
struct RawHandle {
    opaque: [u8; 0],
    pinned: PhantomData<(*mut u8, PhantomPinned)>,
}

type Raw = *mut RawHandle;
type OnPoll = unsafe extern "C" fn(Raw, c_int, c_int);
type OnEvent = unsafe extern "C" fn(Raw);

unsafe extern "C" {
    fn uv_loop_size() -> usize;
    fn uv_loop_init(uv: *mut uv_loop_t) -> c_int;
    fn uv_loop_close(uv: *mut uv_loop_t) -> c_int;
    fn uv_loop_fork(uv: *mut uv_loop_t) -> c_int;
    fn uv_loop_alive(uv: *const uv_loop_t) -> c_int;
    fn uv_run(uv: *mut uv_loop_t, mode: c_uint) -> c_int;
    fn uv_stop(uv: *mut uv_loop_t);
    fn uv_now(uv: *const uv_loop_t) -> u64;
    fn uv_update_time(uv: *mut uv_loop_t);
    fn uv_hrtime() -> u64;
    fn uv_backend_timeout(uv: *const uv_loop_t) -> c_int;
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_handle_get_data(handle: *const RawHandle) -> *mut c_void;
    fn uv_handle_set_data(handle: Raw, data: *mut c_void);
    fn uv_close(handle: Raw, on_close: OnEvent);
    fn uv_ref(handle: Raw);
    fn uv_unref(handle: Raw);
    fn uv_poll_init(uv: *mut uv_loop_t, handle: Raw, fd: c_int) -> c_int;
    fn uv_poll_start(handle: Raw, events: c_int, on_poll: OnPoll) -> c_int;
    fn uv_poll_stop(handle: Raw) -> c_int;
    fn uv_timer_init(uv: *mut uv_loop_t, handle: Raw) -> c_int;
    fn uv_timer_start(handle: Raw, on_timer: OnEvent, timeout: u64, repeat: u64) -> c_int;
    fn uv_timer_stop(handle: Raw) -> c_int;
    fn uv_prepare_init(uv: *mut uv_loop_t, handle: Raw) -> c_int;
    fn uv_prepare_start(handle: Raw, on_prepare: OnEvent) -> c_int;
    fn uv_idle_init(uv: *mut uv_loop_t, handle: Raw) -> c_int;
    fn uv_idle_start(handle: Raw, on_idle: OnEvent) -> c_int;
    fn uv_idle_stop(handle: Raw) -> c_int;
}

// `uv_handle_type`, in libuv's binary interface since 1.0.
const IDLE: c_int = 6;
const POLL: c_int = 8;
const PREPARE: c_int = 9;
const TIMER: c_int = 13;

// `uv_poll_event`.
const READABLE: c_int = 1;
const WRITABLE: c_int = 2;

/// `uv_run_mode`.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Default = 0,
    Once = 1,
    NoWait = 2,
}

/// What the handles of a guest report to it. Nothing of it unwinds.
pub(crate) trait Events {
    /// A descriptor is ready. `None`: libuv has found an error and has stopped watching it. False: not now, stop watching it.
    fn ready(self: Rc<Self>, fd: RawFd, ready: Option<Ready>) -> bool;
    /// The timer has expired.
    fn due(self: Rc<Self>);
    /// The loop is about to sleep.
    fn before_sleep(self: Rc<Self>);
    /// Whether the loop is run within a handler, where it may sleep.
    fn is_busy(&self) -> bool;
}

impl<D: 'static> Guest<D> {
    /// Moves `context` into a loop, with the state that its handlers work on. Whatever the context is to do may have been
    /// set up before, or is with [`with`](Self::with).
    ///
    /// # Panics
    ///
    /// With a null pointer.
    ///
    /// # Safety
    ///
    /// - `uv` is initialised, and stays so and in its place until this guest has been dropped, left or detached and the
    ///   loop was run once more after that (or is never touched again).
    /// - This call, and whatever runs, closes or otherwise uses the loop, is made in one thread.
    /// - Handles that the guest has made are left alone: `uv_walk` is told not to close them, and a loop that ends
    ///   by closing all of its handles does so after the guest has gone.
    pub unsafe fn join(uv: *mut uv_loop_t, context: Context<D>, data: D) -> Self {
        let home = Home {
            uv: NonNull::new(uv).expect("a loop is no null pointer"),
            own: None,
            process: this_process(),
        };
        Self::move_in(&home, context, data, Rc::new(Panics::default()))
    }
}

/// A loop that handles can be made in: in its place for as long as this exists, by the promise given to [`Guest::join`], or
/// because of `own`.
#[derive(Clone)]
pub(crate) struct Home {
    uv: NonNull<uv_loop_t>,
    own: Option<Rc<OwnLoop>>,
    /// Where the loop may be touched: a forked child shares what is behind it with its parent.
    process: Rc<Cell<u32>>,
}

fn this_process() -> Rc<Cell<u32>> {
    Rc::new(Cell::new(std::process::id()))
}

/// The memory of a loop that belongs to Rust.
struct OwnLoop {
    uv: NonNull<uv_loop_t>,
    closed: Cell<bool>,
    process: Rc<Cell<u32>>,
}

impl Home {
    pub(crate) fn new() -> io::Result<Self> {
        let layout = loop_layout();
        // SAFETY: the size is not zero.
        let uv = unsafe { alloc_zeroed(layout) }.cast::<uv_loop_t>();
        let uv = NonNull::new(uv).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: the memory is of the size that libuv asks for, and fresh.
        let code = unsafe { uv_loop_init(uv.as_ptr()) };
        if code < 0 {
            // SAFETY: allocated above with this layout; libuv refers to it no more.
            unsafe { dealloc(uv.as_ptr().cast(), layout) };
        }
        result(code)?;
        let process = this_process();
        let own = OwnLoop { uv, closed: Cell::new(false), process: Rc::clone(&process) };
        Ok(Self { uv, own: Some(Rc::new(own)), process })
    }

    /// Makes the loop, which is Rust's own, a forked child's.
    pub(crate) fn fork(&self) -> io::Result<()> {
        if self.is_forked() {
            // SAFETY: as for `run`.
            result(unsafe { uv_loop_fork(self.as_ptr()) })?;
        }
        self.taken_over();
        Ok(())
    }

    /// Whether this is a forked child, and the loop is the parent's.
    fn is_forked(&self) -> bool {
        self.process.get() != std::process::id()
    }

    /// The loop is this process's.
    pub(crate) fn taken_over(&self) {
        self.process.set(std::process::id());
    }

    pub(crate) fn as_ptr(&self) -> *mut uv_loop_t {
        self.uv.as_ptr()
    }

    /// Runs the loop, which is Rust's own, and says whether it is alive.
    ///
    /// [`Loop`](crate::Loop) lends itself exclusively for this, so it does not happen within itself.
    pub(crate) fn run(&self, mode: Mode) -> bool {
        // SAFETY: `self` shows that the loop is there; all that refers to it is `!Send`.
        unsafe { uv_run(self.as_ptr(), mode as c_uint) != 0 }
    }

    /// Has a run of Rust's own loop end after this iteration. Somebody else's is theirs.
    pub(crate) fn stop_own(&self) {
        if self.own.is_some() {
            // SAFETY: as for `run`.
            unsafe { uv_stop(self.as_ptr()) };
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        // SAFETY: as for `run`.
        unsafe { uv_loop_alive(self.as_ptr()) != 0 }
    }

    /// Closes the loop, which is Rust's own.
    pub(crate) fn close(&self) -> io::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        own.close()
    }

    /// How long the loop is going to sleep from now; `None` is for ever. For the audit.
    pub(crate) fn backend_timeout(&self) -> Option<Duration> {
        // SAFETY: as for `run`.
        let millis = unsafe {
            uv_update_time(self.as_ptr());
            uv_backend_timeout(self.as_ptr())
        };
        let millis = u64::try_from(millis).ok()?;
        // The loop's time may be a millisecond behind, and the timeout counts from there.
        Some(Duration::from_millis(millis.saturating_sub(1)))
    }
}

impl OwnLoop {
    fn close(&self) -> io::Result<()> {
        if self.closed.get() {
            return Ok(());
        }
        // To run it, or to close what is in it, would change what the parent has.
        if self.process.get() != std::process::id() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // SAFETY: the loop is initialised and not closed. It is not running: `Loop` is lent to a run exclusively, and this
        // is called by its `close`, or when it and all guests are gone.
        let code = unsafe {
            uv_run(self.uv.as_ptr(), Mode::NoWait as c_uint);
            uv_loop_close(self.uv.as_ptr())
        };
        self.closed.set(code == 0);
        result(code)
    }
}

impl Drop for OwnLoop {
    fn drop(&mut self) {
        // A loop in which somebody has left handles of their own stays: they refer to it.
        if self.close().is_ok() {
            // SAFETY: allocated with this layout by `Home::new`; closed, so that libuv refers to it no more.
            unsafe { dealloc(self.uv.as_ptr().cast(), loop_layout()) };
        }
    }
}

/// A handle, closed when dropped; left as it is in a forked child, where that would take it from the parent's epoll set.
struct Handle {
    raw: NonNull<RawHandle>,
    /// The loop is there for as long as the handle can be used.
    home: Home,
}

/// What a handle's `data` points at, until the close callback frees both.
struct Block {
    events: Weak<dyn Events>,
    fd: RawFd,
    layout: Layout,
}

impl Handle {
    /// # Safety
    ///
    /// `init` initialises a handle of this kind in the loop and memory that it is given, or fails and keeps no reference to
    /// them.
    unsafe fn new(
        home: &Home,
        kind: c_int,
        events: Weak<dyn Events>,
        fd: RawFd,
        init: impl FnOnce(*mut uv_loop_t, Raw) -> c_int,
    ) -> io::Result<Self> {
        // SAFETY: it takes any number, and answers -1 for kinds that it does not know.
        let size = unsafe { uv_handle_size(kind) };
        let layout = layout(size);
        // SAFETY: the size is not zero.
        let raw = unsafe { alloc_zeroed(layout) }.cast::<RawHandle>();
        let raw = NonNull::new(raw).unwrap_or_else(|| handle_alloc_error(layout));
        let code = init(home.as_ptr(), raw.as_ptr());
        if code < 0 {
            // SAFETY: allocated above with this layout; `init` has kept no reference.
            unsafe { dealloc(raw.as_ptr().cast(), layout) };
        }
        result(code)?;
        let block = Box::into_raw(Box::new(Block { events, fd, layout }));
        // SAFETY: `init` has initialised the handle.
        unsafe { uv_handle_set_data(raw.as_ptr(), block.cast()) };
        Ok(Self { raw, home: home.clone() })
    }

    fn raw(&self) -> Raw {
        self.raw.as_ptr()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.home.is_forked() {
            return;
        }
        // SAFETY: initialised by `new`, and closed here only. The memory lives until `on_close`.
        unsafe { uv_close(self.raw(), on_close) };
    }
}

/// Frees a handle that has been closed.
unsafe extern "C" fn on_close(raw: Raw) {
    // SAFETY: the handle is one of `Handle::new`, which made the block with `Box` and the memory with the block's layout. It
    // is closed, so that this is the last that libuv says of it.
    unsafe {
        let block = Box::from_raw(uv_handle_get_data(raw).cast::<Block>());
        dealloc(raw.cast(), block.layout);
    }
}

/// The guest that a handle belongs to, kept alive for the callback, and the handle's descriptor.
///
/// # Safety
///
/// `raw` is a handle of [`Handle::new`] that is not closed.
unsafe fn receiver(raw: Raw) -> Option<(Rc<dyn Events>, RawFd)> {
    // SAFETY: its block lives until `on_close`, and nobody borrows it exclusively.
    let block = unsafe { &*uv_handle_get_data(raw).cast::<Block>() };
    Some((block.events.upgrade()?, block.fd))
}

/// Watches one descriptor. It does not keep the loop alive.
pub(crate) struct Poll(Handle);

impl Poll {
    /// A watcher of `fd`, stopped.
    pub(crate) fn new(home: &Home, fd: RawFd, events: Weak<dyn Events>) -> io::Result<Self> {
        // SAFETY: `uv_poll_init` is for this kind of handle, and fails before it has touched it.
        let handle = unsafe { Handle::new(home, POLL, events, fd, |uv, raw| uv_poll_init(uv, raw, fd)) }?;
        // SAFETY: the handle is initialised and not closed.
        unsafe { uv_unref(handle.raw()) };
        Ok(Self(handle))
    }

    /// Watches for `interest` from now on, whatever it was before.
    pub(crate) fn start(&self, interest: Interest) -> io::Result<()> {
        let readable = if interest.is_readable() { READABLE } else { 0 };
        let writable = if interest.is_writable() { WRITABLE } else { 0 };
        // SAFETY: the handle is initialised and not closed. The descriptor is open: `Host` promises it until `remove`
        // has returned, which drops this.
        result(unsafe { uv_poll_start(self.0.raw(), readable | writable, on_poll) })
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        if self.0.home.is_forked() {
            return;
        }
        // SAFETY: the handle is initialised and not closed. After this libuv has no more to do with the descriptor.
        let _ = unsafe { uv_poll_stop(self.0.raw()) };
    }
}

unsafe extern "C" fn on_poll(raw: Raw, status: c_int, events: c_int) {
    // SAFETY: libuv calls back with the handle that was started, which is not closed.
    let Some((guest, fd)) = (unsafe { receiver(raw) }) else { return };
    let readable = if events & READABLE != 0 { Ready::READ } else { Ready::NONE };
    let writable = if events & WRITABLE != 0 { Ready::WRITE } else { Ready::NONE };
    if !guest.ready(fd, (status >= 0).then_some(readable.with(writable))) {
        // SAFETY: as above; a guest that is busy closes nothing.
        unsafe { uv_poll_stop(raw) };
    }
}

/// Expires once. It does not keep the loop alive.
pub(crate) struct Timer(Handle);

impl Timer {
    pub(crate) fn new(home: &Home, events: Weak<dyn Events>) -> Self {
        // SAFETY: `uv_timer_init` is for this kind of handle.
        let handle = unsafe { Handle::new(home, TIMER, events, -1, |uv, raw| uv_timer_init(uv, raw)) };
        let handle = handle.expect("libuv never refuses a timer");
        // SAFETY: the handle is initialised and not closed.
        unsafe { uv_unref(handle.raw()) };
        Self(handle)
    }

    /// Expires after `nanos`, never before it, whatever was set before.
    pub(crate) fn start(&self, nanos: u128) {
        let uv = self.0.home.as_ptr();
        // SAFETY: the loop is there, and the handle is initialised and not closed.
        unsafe {
            uv_update_time(uv);
            // The loop's time is in whole milliseconds, and behind.
            let millis = match nanos {
                0 => 0,
                nanos => {
                    let behind = u128::from(uv_hrtime()).saturating_sub(u128::from(uv_now(uv)) * 1_000_000);
                    u64::try_from((nanos + behind).div_ceil(1_000_000)).unwrap_or(u64::MAX)
                }
            };
            uv_timer_start(self.0.raw(), on_timer, millis, 0);
        }
    }

    pub(crate) fn stop(&self) {
        // SAFETY: the handle is initialised and not closed.
        unsafe { uv_timer_stop(self.0.raw()) };
    }
}

unsafe extern "C" fn on_timer(raw: Raw) {
    // SAFETY: libuv calls back with the handle that was started, which is not closed.
    if let Some((guest, _)) = unsafe { receiver(raw) } {
        guest.due();
    }
}

/// Hears of each sleep before it begins, and keeps the loop alive, or does not.
pub(crate) struct Prepare(Handle);

impl Prepare {
    pub(crate) fn new(home: &Home, events: Weak<dyn Events>) -> Self {
        // SAFETY: `uv_prepare_init` is for this kind of handle.
        let handle = unsafe { Handle::new(home, PREPARE, events, -1, |uv, raw| uv_prepare_init(uv, raw)) };
        let prepare = Self(handle.expect("libuv never refuses a prepare handle"));
        prepare.keep_alive(false);
        // SAFETY: the handle is initialised and not closed.
        unsafe { uv_prepare_start(prepare.0.raw(), on_prepare) };
        prepare
    }

    /// Whether the loop goes on for its sake.
    pub(crate) fn keep_alive(&self, on: bool) {
        // SAFETY: the handle is initialised and not closed.
        unsafe { if on { uv_ref(self.0.raw()) } else { uv_unref(self.0.raw()) } }
    }
}

unsafe extern "C" fn on_prepare(raw: Raw) {
    // SAFETY: libuv calls back with the handle that was started, which is not closed.
    if let Some((guest, _)) = unsafe { receiver(raw) } {
        guest.before_sleep();
    }
}

/// While it is on, the loop does not sleep and does not end.
pub(crate) struct Awake(Handle);

impl Awake {
    pub(crate) fn new(home: &Home, events: Weak<dyn Events>) -> Self {
        // SAFETY: `uv_idle_init` is for this kind of handle.
        let handle = unsafe { Handle::new(home, IDLE, events, -1, |uv, raw| uv_idle_init(uv, raw)) };
        Self(handle.expect("libuv never refuses an idle handle"))
    }

    pub(crate) fn set(&self, on: bool) {
        // SAFETY: the handle is initialised and not closed.
        unsafe { if on { uv_idle_start(self.0.raw(), on_idle) } else { uv_idle_stop(self.0.raw()) } };
    }
}

unsafe extern "C" fn on_idle(raw: Raw) {
    // SAFETY: libuv calls back with the handle that was started, which is not closed.
    unsafe {
        if receiver(raw).is_some_and(|(guest, _)| guest.is_busy()) {
            uv_idle_stop(raw);
        }
    }
}

fn loop_layout() -> Layout {
    // SAFETY: it has no conditions.
    layout(unsafe { uv_loop_size() })
}

/// Memory as `malloc` would give it.
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("libuv knows the size")
}

/// libuv's errors are the system's, negated.
fn result(code: c_int) -> io::Result<()> {
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
}

/// A guest in a loop that it takes for somebody else's.
#[cfg(test)]
pub(crate) fn join_foreign<D: 'static>(home: &Home, context: Context<D>, data: D) -> Guest<D> {
    // SAFETY: tests run the loop after the guest has gone, or not at all, and in their own thread.
    unsafe { Guest::join(home.as_ptr(), context, data) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::{CStr, c_char};

    unsafe extern "C" {
        fn uv_handle_type_name(kind: c_int) -> *const c_char;
    }

    #[test]
    fn numbers_of_the_kinds_of_handles_are_those_of_this_libuv() {
        for (kind, name) in [(IDLE, "idle"), (POLL, "poll"), (PREPARE, "prepare"), (TIMER, "timer")] {
            // SAFETY: it takes any number, and answers with a static string or null.
            let known = unsafe { uv_handle_type_name(kind) };
            assert!(!known.is_null());
            // SAFETY: as above.
            assert_eq!(unsafe { CStr::from_ptr(known) }.to_str(), Ok(name));
        }
    }

    #[test]
    fn loop_that_is_never_run_can_be_closed() {
        let home = Home::new().unwrap();
        assert!(!home.is_alive());
        home.close().unwrap();
    }
}
