//! What becomes of a context in a loop of its own when its process forks.

use lodger::Context;
use lodger_battery::forks::{Forks, Talks};
use lodger_poll::Loop;
use std::io;

struct OwnLoop {
    own: Loop,
    context: Context<Talks>,
}

impl Forks for OwnLoop {
    fn new(context: Context<Talks>, _talks: &Talks) -> Self {
        Self { own: Loop::new(), context }
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

lodger_battery::forks!(OwnLoop);
