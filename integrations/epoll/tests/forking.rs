//! What becomes of a context in a loop of its own, and behind one descriptor, when its process forks.

use lodger::Context;
use lodger_battery::forks::{Forks, Talks};
use lodger_epoll::{Loop, Single};
use std::io;

struct OwnLoop {
    own: Loop,
    context: Context<Talks>,
}

impl Forks for OwnLoop {
    fn new(context: Context<Talks>, _talks: &Talks) -> Self {
        Self { own: Loop::new().unwrap(), context }
    }

    fn run_until(&mut self, talks: &mut Talks, done: impl Fn(&Talks) -> bool) {
        while !done(talks) {
            self.own.turn(&mut self.context, talks, None).unwrap();
        }
    }

    fn take_over(&mut self) -> io::Result<()> {
        self.own.take_over(&mut self.context)
    }

    fn abandon(self) {
        self.context.abandon();
        // Under an audit that says what is still watched; without one it would be dropped.
        std::mem::forget(self.own);
    }

    fn end(mut self) {
        self.own.detach(&mut self.context);
    }
}

/// The one descriptor, in a host that has nothing else.
struct Behind(Option<Single<Talks>>);

impl Forks for Behind {
    fn new(context: Context<Talks>, _talks: &Talks) -> Self {
        Self(Some(Single::new(context).unwrap()))
    }

    #[expect(clippy::disallowed_methods, reason = "it is the host that waits")]
    fn run_until(&mut self, talks: &mut Talks, done: impl Fn(&Talks) -> bool) {
        let single = self.0.as_mut().unwrap();
        while !done(talks) {
            let mut host = [rustix::event::PollFd::new(&*single, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut host, None).unwrap();
            single.dispatch(64, talks).unwrap();
        }
    }

    fn take_over(&mut self) -> io::Result<()> {
        self.0.as_mut().unwrap().take_over()
    }

    fn abandon(mut self) {
        self.0.take().unwrap().detach().abandon();
    }
}

mod own {
    use super::OwnLoop;
    lodger_battery::forks!(OwnLoop);
}

mod single {
    use super::Behind;
    lodger_battery::forks!(Behind);
}
