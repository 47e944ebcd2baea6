//! What becomes of a context in a libuv loop when its process forks.

use lodger::Context;
use lodger_battery::forks::{Forks, Talks};
use lodger_libuv::{Guest, Loop};
use std::io;

struct InUv {
    uv: Loop,
    guest: Guest<Talks>,
}

impl Forks for InUv {
    fn new(context: Context<Talks>, talks: &Talks) -> Self {
        let uv = Loop::new().unwrap();
        let guest = uv.join(context, talks.clone());
        Self { uv, guest }
    }

    fn run_until(&mut self, talks: &mut Talks, done: impl Fn(&Talks) -> bool) {
        while !done(talks) {
            self.uv.run_once();
        }
    }

    fn take_over(&mut self) -> io::Result<()> {
        self.uv.take_over()?;
        self.guest.take_over()
    }

    fn abandon(self) {
        self.guest.abandon();
        // The handles of the guest are left in it.
        std::mem::forget(self.uv);
    }

    fn end(self) {
        drop(self.guest);
    }
}

lodger_battery::forks!(InUv);
