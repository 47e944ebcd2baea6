//! The one door for other threads: wake the context, post work to it, ask for writable events, broadcast.
//!
//! ```
//! use lodger::{Context, Remote};
//!
//! let mut context: Context<Vec<u32>> = Context::new();
//! let remote: Remote<Vec<u32>> = context.remote().expect("descriptors are left");
//! std::thread::spawn(move || remote.post(|numbers, _io| numbers.push(7)).is_ok()).join().unwrap();
//!
//! let mut numbers = Vec::new();
//! context.service_timeouts(&mut numbers); // as the host's loop does after each sleep
//! assert_eq!(numbers, [7]);
//! # context.abandon();
//! ```

use crate::context::Io;
use crate::ids::{ConnId, ProtocolId};
use crate::net::Signal;
use crate::ws::Shared;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// A handle on a context for other threads: `Clone`, `Send` and `Sync`, whatever `D` is.
///
/// What is posted runs in the context's thread, in order, in the service call that follows the wake-up; it is counted and
/// never lost while the context lives. Wake-ups coalesce, posts do not.
#[doc(alias("lws_cancel_service", "LWS_CALLBACK_EVENT_WAIT_CANCELLED", "LWS_CALLBACK_GET_THREAD_ID"))]
pub struct Remote<D>(pub(crate) Arc<Inbox<D>>);

pub(crate) struct Inbox<D> {
    queue: Mutex<Queue<D>>,
    /// The signal was raised and not taken yet. Written under the lock.
    raised: AtomicBool,
    signal: Signal,
}

struct Queue<D> {
    commands: VecDeque<Command<D>>,
    /// The context is gone.
    closed: bool,
}

pub(crate) type Task<D> = Box<dyn FnOnce(&mut D, &mut Io<D>) + Send>;

pub(crate) enum Command<D> {
    Post(Task<D>),
    Notify(ConnId, Box<dyn Any + Send>),
    RequestWritable(ConnId),
    RequestWritableAll(ProtocolId),
    Broadcast(ProtocolId, Shared),
}

/// How many posts may wait.
const POSTS: usize = 65_536;

/// Why a [`Remote`] could not take something. It is given back.
pub enum PostError<T> {
    /// 65,536 posts wait already: the loop's thread is behind.
    Full(T),
    /// The context is gone.
    Gone(T),
}

impl<T> PostError<T> {
    /// What was to be posted.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(inner) | Self::Gone(inner) => inner,
        }
    }
}

impl<T> fmt::Debug for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Gone(_) => "Gone",
        })
    }
}

impl<T> fmt::Display for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "too many posts wait",
            Self::Gone(_) => "the context is gone",
        })
    }
}

impl<T> std::error::Error for PostError<T> {}

impl<D> Remote<D> {
    /// Wakes the context's loop, which then calls [`Context::service_timeouts`](crate::Context::service_timeouts).
    ///
    /// # Errors
    ///
    /// [`PostError::Gone`].
    pub fn wake(&self) -> Result<(), PostError<()>> {
        if self.0.lock().closed {
            return Err(PostError::Gone(()));
        }
        self.0.raise();
        Ok(())
    }

    /// Runs `task` in the context's thread.
    ///
    /// # Errors
    ///
    /// The task is given back: see [`PostError`].
    pub fn post<F>(&self, task: F) -> Result<(), PostError<F>>
    where
        F: FnOnce(&mut D, &mut Io<D>) + Send + 'static,
    {
        let mut queue = self.0.lock();
        if queue.closed {
            return Err(PostError::Gone(task));
        }
        if queue.commands.len() >= POSTS {
            return Err(PostError::Full(task));
        }
        self.0.push(&mut queue, Command::Post(Box::new(task)));
        Ok(())
    }

    /// Sends `event` to the handler of a conn. A conn that is gone by then, or is another context's, is passed over.
    ///
    /// # Errors
    ///
    /// The event is given back: see [`PostError`].
    #[doc(alias = "LWS_CALLBACK_USER")]
    pub fn notify(
        &self,
        id: ConnId,
        event: Box<dyn Any + Send>,
    ) -> Result<(), PostError<Box<dyn Any + Send>>> {
        self.0.put(Command::Notify(id, event)).map_err(|error| match error {
            PostError::Full(Command::Notify(_, event)) => PostError::Full(event),
            PostError::Gone(Command::Notify(_, event)) => PostError::Gone(event),
            PostError::Full(_) | PostError::Gone(_) => unreachable!("what was put is given back"),
        })
    }

    /// Asks for a `writable` event on one conn. A conn that is gone by then, or is another context's, is passed over.
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    #[doc(alias = "lws_callback_on_writable")]
    pub fn request_writable(&self, id: ConnId) -> Result<(), PostError<()>> {
        self.0.put(Command::RequestWritable(id)).map_err(drop_command)
    }

    /// Asks for a `writable` event on every conn of a protocol; of another context's protocol there are none.
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    #[doc(alias = "lws_callback_on_writable_all_protocol")]
    pub fn request_writable_all(&self, protocol: ProtocolId) -> Result<(), PostError<()>> {
        self.0.put(Command::RequestWritableAll(protocol)).map_err(drop_command)
    }

    /// Sends a frame to every WebSocket conn of a protocol, as [`Io::broadcast`] does; of another context's protocol there are
    /// none.
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    #[doc(alias = "libwebsockets_broadcast")]
    pub fn broadcast(&self, protocol: ProtocolId, frame: Shared) -> Result<(), PostError<()>> {
        self.0.put(Command::Broadcast(protocol, frame)).map_err(drop_command)
    }

    /// How many posts wait.
    pub fn waiting(&self) -> usize {
        self.0.lock().commands.len()
    }
}

fn drop_command<D>(error: PostError<Command<D>>) -> PostError<()> {
    match error {
        PostError::Full(_) => PostError::Full(()),
        PostError::Gone(_) => PostError::Gone(()),
    }
}

impl<D> Clone for Remote<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> fmt::Debug for Remote<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("waiting", &self.waiting()).finish()
    }
}

impl<D> Inbox<D> {
    pub(crate) fn new(signal: Signal) -> Self {
        Self {
            queue: Mutex::new(Queue { commands: VecDeque::new(), closed: false }),
            raised: AtomicBool::new(false),
            signal,
        }
    }

    /// A poisoned lock is as good as any: no code of ours unwinds while it holds one.
    fn lock(&self) -> MutexGuard<'_, Queue<D>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, command: Command<D>) -> Result<(), PostError<Command<D>>> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(PostError::Gone(command));
        }
        if queue.commands.len() >= POSTS {
            return Err(PostError::Full(command));
        }
        self.push(&mut queue, command);
        Ok(())
    }

    fn push(&self, queue: &mut Queue<D>, command: Command<D>) {
        queue.commands.push_back(command);
        self.signal_once();
    }

    /// Signals the context's own descriptor.
    pub(crate) fn raise(&self) {
        let _queue = self.lock();
        self.signal_once();
    }

    fn signal_once(&self) {
        if !self.raised.swap(true, Ordering::Relaxed) {
            self.signal.raise();
        }
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// The signal has been taken: the next command raises it again.
    pub(crate) fn lowered(&self) {
        let _queue = self.lock();
        self.raised.store(false, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Option<Command<D>> {
        self.lock().commands.pop_front()
    }

    /// The context goes: whatever waits is dropped, outside the lock.
    pub(crate) fn close(&self) {
        Self::close_queue(self.lock());
    }

    /// The same where a fork may have left the lock with a thread that is not there any more.
    pub(crate) fn abandon(&self) {
        match self.queue.try_lock() {
            Ok(queue) => Self::close_queue(queue),
            Err(TryLockError::Poisoned(poisoned)) => Self::close_queue(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn close_queue(mut queue: MutexGuard<'_, Queue<D>>) {
        queue.closed = true;
        let commands = std::mem::take(&mut queue.commands);
        drop(queue);
        drop(commands);
    }
}
