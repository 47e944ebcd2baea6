//! What becomes of a context in a calloop loop when its process forks.

use calloop::EventLoop;
use lodger::Context;
use lodger_battery::forks::{Forks, Talks};
use lodger_calloop::{Local, insert};
use std::io;
use std::mem;

struct InCalloop {
    event_loop: EventLoop<'static, Talks>,
    local: Local<Talks>,
    process: u32,
}

impl Forks for InCalloop {
    fn new(context: Context<Talks>, _talks: &Talks) -> Self {
        let event_loop = EventLoop::try_new().unwrap();
        let local = insert(&event_loop.handle(), context).unwrap();
        Self { event_loop, local, process: std::process::id() }
    }

    fn run_until(&mut self, talks: &mut Talks, done: impl Fn(&Talks) -> bool) {
        while !done(talks) {
            self.event_loop.dispatch(None, talks).unwrap();
        }
    }

    fn take_over(&mut self) -> io::Result<()> {
        let context = self.local.take_over()?.expect("the context is there and not busy");
        // The parent's loop is left alone: dropped, it would take the sources from the epoll set that the two share.
        mem::forget(mem::replace(self, Self::new(context, &Talks::default())));
        Ok(())
    }

    fn abandon(self) {
        let handle = self.event_loop.handle();
        self.local.detach(&handle).expect("the context is there and not busy").abandon();
    }

    fn end(self) {
        drop(self.local.detach(&self.event_loop.handle()));
        if self.process != std::process::id() {
            mem::forget(self.event_loop);
        }
    }
}

lodger_battery::forks!(InCalloop);
