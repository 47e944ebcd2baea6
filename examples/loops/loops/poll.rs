//! `poll(2)`: a loop for programs that have none.

use lodger::Context;
use lodger_poll::Loop;
use std::io;

pub(crate) fn run<D: 'static>(mut context: Context<D>, mut data: D) -> io::Result<()> {
    Loop::new().run(&mut context, &mut data)
}
