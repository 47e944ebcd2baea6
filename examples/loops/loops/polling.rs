//! The `polling` crate: a loop for programs that have none, on whatever system.

use lodger::Context;
use lodger_polling::Loop;
use std::io;

pub(crate) fn run<D: 'static>(mut context: Context<D>, mut data: D) -> io::Result<()> {
    Loop::new()?.run(&mut context, &mut data)
}
