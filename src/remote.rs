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
use crate::net::{self, Signal};
use crate::ws::Shared;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// A handle on a context for other threads: `Clone`, `Send` and `Sync`, whatever `D` is.
///
/// What is posted runs in the context's thread, in order, in the service call that follows the wake-up; it is counted and
/// never lost while the context lives. Wake-ups coalesce, posts do not.
///
/// It reaches the context of its own process. A forked child has a copy of the context, and the parent does not hear what the
/// child says: everything here answers [`PostError::Forked`] there, until the child has taken its copy over
/// ([`Context::take_over`](crate::Context::take_over)), which the handles that it has then reach.
#[doc(alias("lws_cancel_service", "LWS_CALLBACK_EVENT_WAIT_CANCELLED", "LWS_CALLBACK_GET_THREAD_ID"))]
pub struct Remote<D>(pub(crate) Arc<Inbox<D>>);

pub(crate) struct Inbox<D> {
    queue: Mutex<Queue<D>>,
    /// The signal was raised and not taken yet. Written under the lock.
    raised: AtomicBool,
    signal: Signal,
    /// The process of the context.
    process: u32,
    /// What is used instead, once a forked child has taken the context over: the signal of this one is the parent's, and a
    /// thread that the child does not have may hold its lock.
    successor: OnceLock<Arc<Self>>,
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
    /// The context is another process's: this one was forked from that, and has not taken the context over
    /// ([`Context::take_over`](crate::Context::take_over)). The parent would not hear of it.
    #[doc(alias = "fork")]
    Forked(T),
}

impl<T> PostError<T> {
    /// What was to be posted.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(inner) | Self::Gone(inner) | Self::Forked(inner) => inner,
        }
    }
}

impl<T> fmt::Debug for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Gone(_) => "Gone",
            Self::Forked(_) => "Forked",
        })
    }
}

impl<T> fmt::Display for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "too many posts wait",
            Self::Gone(_) => "the context is gone",
            Self::Forked(_) => "the context belongs to the process that this one was forked from",
        })
    }
}

impl<T> std::error::Error for PostError<T> {}

impl<D> Remote<D> {
    /// Wakes the context's loop, which then calls [`Context::service_timeouts`](crate::Context::service_timeouts).
    ///
    /// # Errors
    ///
    /// [`PostError::Gone`], [`PostError::Forked`].
    pub fn wake(&self) -> Result<(), PostError<()>> {
        let Some(inbox) = self.inbox() else { return Err(PostError::Forked(())) };
        if inbox.lock().closed {
            return Err(PostError::Gone(()));
        }
        inbox.raise();
        Ok(())
    }

    /// Where posts are laid, unless that is another process's: then its lock may never come free.
    fn inbox(&self) -> Option<&Inbox<D>> {
        let mut inbox = &*self.0;
        while let Some(successor) = inbox.successor.get() {
            inbox = successor;
        }
        (inbox.process == net::process()).then_some(inbox)
    }

    fn put(&self, command: Command<D>) -> Result<(), PostError<Command<D>>> {
        match self.inbox() {
            Some(inbox) => inbox.put(command),
            None => Err(PostError::Forked(command)),
        }
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
        let Some(inbox) = self.inbox() else { return Err(PostError::Forked(task)) };
        let mut queue = inbox.lock();
        if queue.closed {
            return Err(PostError::Gone(task));
        }
        if queue.commands.len() >= POSTS {
            return Err(PostError::Full(task));
        }
        inbox.push(&mut queue, Command::Post(Box::new(task)));
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
        self.put(Command::Notify(id, event)).map_err(|error| match error {
            PostError::Full(Command::Notify(_, event)) => PostError::Full(event),
            PostError::Gone(Command::Notify(_, event)) => PostError::Gone(event),
            PostError::Forked(Command::Notify(_, event)) => PostError::Forked(event),
            PostError::Full(_) | PostError::Gone(_) | PostError::Forked(_) => {
                unreachable!("what was put is given back")
            }
        })
    }

    /// Asks for a `writable` event on one conn. A conn that is gone by then, or is another context's, is passed over.
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    #[doc(alias = "lws_callback_on_writable")]
    pub fn request_writable(&self, id: ConnId) -> Result<(), PostError<()>> {
        self.put(Command::RequestWritable(id)).map_err(drop_command)
    }

    /// Asks for a `writable` event on every conn of a protocol; of another context's protocol there are none.
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    #[doc(alias = "lws_callback_on_writable_all_protocol")]
    pub fn request_writable_all(&self, protocol: ProtocolId) -> Result<(), PostError<()>> {
        self.put(Command::RequestWritableAll(protocol)).map_err(drop_command)
    }

    /// Sends a frame to every WebSocket conn of a protocol, as [`Io::broadcast`] does; of another context's protocol there are
    /// none. Those that it leaves out, since too much waits for their peers, hear so in the context's thread
    /// ([`missed`](crate::ws::Handler::missed)).
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    #[doc(alias = "libwebsockets_broadcast")]
    pub fn broadcast(&self, protocol: ProtocolId, frame: Shared) -> Result<(), PostError<()>> {
        self.put(Command::Broadcast(protocol, frame)).map_err(drop_command)
    }

    /// How many posts wait; none in a forked child that has not taken the context over.
    pub fn waiting(&self) -> usize {
        self.inbox().map_or(0, |inbox| inbox.lock().commands.len())
    }
}

fn drop_command<D>(error: PostError<Command<D>>) -> PostError<()> {
    match error {
        PostError::Full(_) => PostError::Full(()),
        PostError::Gone(_) => PostError::Gone(()),
        PostError::Forked(_) => PostError::Forked(()),
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
    /// The inbox of a context of this process.
    pub(crate) fn new(signal: Signal, process: u32) -> Self {
        Self::holding(VecDeque::new(), signal, process)
    }

    fn holding(commands: VecDeque<Command<D>>, signal: Signal, process: u32) -> Self {
        Self {
            queue: Mutex::new(Queue { commands, closed: false }),
            raised: AtomicBool::new(false),
            signal,
            process,
            successor: OnceLock::new(),
        }
    }

    /// The inbox of a forked child that has taken the context over: what waited is in it, and those who have this one find it.
    /// What waited is lost if a thread was just adding to it when the process was forked.
    pub(crate) fn succeed(self: &Arc<Self>, signal: Signal, process: u32) -> Arc<Self> {
        let commands = match self.try_lock() {
            Some(mut queue) => std::mem::take(&mut queue.commands),
            None => {
                log::error!(target: "lodger::host", "posts are lost: a thread was posting when the process was forked");
                VecDeque::new()
            }
        };
        let successor = Arc::new(Self::holding(commands, signal, process));
        Arc::clone(self.successor.get_or_init(|| successor))
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

    /// Closes the inbox where a fork may have left the lock with a thread that is not there any more.
    pub(crate) fn abandon(self: &Arc<Self>) {
        if let Some(queue) = self.try_lock() {
            Self::close_queue(queue);
        }
    }

    /// The queue, unless somebody holds its lock. In a forked child that is nobody who will ever let go of it, and the queue may
    /// be half changed: it is not to be dropped either.
    fn try_lock(self: &Arc<Self>) -> Option<MutexGuard<'_, Queue<D>>> {
        match self.queue.try_lock() {
            Ok(queue) => Some(queue),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                std::mem::forget(Arc::clone(self));
                None
            }
        }
    }

    fn close_queue(mut queue: MutexGuard<'_, Queue<D>>) {
        queue.closed = true;
        let commands = std::mem::take(&mut queue.commands);
        drop(queue);
        drop(commands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Net;
    use std::os::fd::OwnedFd;

    fn signal() -> (OwnedFd, Signal) {
        Net::System.wake_up().unwrap()
    }

    /// A remote of this process, or of another.
    fn remote(process: u32) -> (OwnedFd, Remote<Vec<u32>>) {
        let (wake, signal) = signal();
        (wake, Remote(Arc::new(Inbox::new(signal, process))))
    }

    fn post(remote: &Remote<Vec<u32>>) -> Result<(), PostError<()>> {
        remote.post(|numbers, _| numbers.push(1)).map_err(|error| match error {
            PostError::Full(_) => PostError::Full(()),
            PostError::Gone(_) => PostError::Gone(()),
            PostError::Forked(_) => PostError::Forked(()),
        })
    }

    #[test]
    fn the_lock_of_another_processs_inbox_is_not_waited_for() {
        let (_wake, remote) = remote(net::process() + 1);
        let held = remote.0.lock();
        assert!(matches!(post(&remote), Err(PostError::Forked(()))));
        assert!(matches!(remote.wake(), Err(PostError::Forked(()))));
        assert_eq!(remote.waiting(), 0);
        assert_eq!(format!("{remote:?}"), "Remote { waiting: 0 }");
        remote.0.abandon();
        drop(held);
        assert!(!remote.0.lock().closed);
    }

    #[test]
    fn a_post_finds_the_inbox_that_has_succeeded_and_what_waited_is_there() {
        let (_wake, remote) = remote(net::process());
        post(&remote).unwrap();
        let mut inbox = Arc::clone(&remote.0);
        for generation in 2..4 {
            inbox = inbox.succeed(signal().1, net::process());
            assert!(!inbox.is_raised());
            post(&remote).unwrap();
            assert_eq!((remote.waiting(), inbox.lock().commands.len()), (generation, generation));
            assert!(inbox.is_raised());
        }
        inbox.close();
        assert!(matches!(post(&remote), Err(PostError::Gone(()))));
    }

    #[test]
    fn an_inbox_succeeds_another_whose_lock_nobody_lets_go_of() {
        let (_wake, remote) = remote(net::process());
        post(&remote).unwrap();
        let held = remote.0.lock();
        let successor = remote.0.succeed(signal().1, net::process());
        post(&remote).unwrap();
        assert_eq!(successor.lock().commands.len(), 1);
        drop(held);
    }
}
