//! epoll, or kqueue: a loop for programs that have none, and many connections.

use lodger::Context;
use lodger_epoll::Loop;
use std::io;

pub(crate) fn run(mut context: Context) -> io::Result<()> {
    Loop::new()?.run(&mut context, &mut ())
}
