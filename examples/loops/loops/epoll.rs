//! epoll, or kqueue: a loop for programs that have none, and many connections.

use lodger::Context;
use lodger_epoll::Loop;
use std::io;

pub(crate) fn run<D: 'static>(mut context: Context<D>, mut data: D) -> io::Result<()> {
    Loop::new()?.run(&mut context, &mut data)
}
