//! What every adapter is tested with: an array of one's own, the same with a loop that relies on being woken, and
//! with one that misbehaves.

use lodger::audit::{Audited, Blame};
use lodger::{Context, Host, Interest, Ready, Served, Wait};
use lodger_battery::{Adapter, Ending, Mischief, State, Then};
use lodger_poll::PollArray;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

/// One array for several contexts, each with an audit of its own.
#[derive(Clone, Default)]
struct Array(Rc<RefCell<PollArray>>);

impl Host for Array {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.0.borrow_mut().add(fd, interest)
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        self.0.borrow_mut().change(fd, previous, interest)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.0.borrow_mut().remove(fd);
    }
}

impl Array {
    /// The next that is ready. Nothing stays borrowed while it is served.
    fn next_ready(&self) -> Option<libc::pollfd> {
        self.0.borrow_mut().next_ready().map(|entry| *entry)
    }
}

/// In some cases there is nothing but posts for a while.
const SPIN: u32 = 100_000;

struct InArray;

impl Adapter for InArray {
    const SEVERAL: bool = true;
    const FOREIGN: bool = true;

    fn run(contexts: Vec<Context<State>>, mut state: State) {
        let array = Array::default();
        let foreign = state.foreign().as_raw_fd();
        array.0.borrow_mut().insert_foreign(foreign, libc::POLLIN).unwrap();
        let mut guests: Vec<_> = contexts
            .into_iter()
            .map(|context| (context, Audited::new(array.clone()).spin_after(SPIN)))
            .collect();
        while state.goes_on() {
            let mut wait = Wait::FOREVER;
            for (context, host) in &mut guests {
                wait = wait.sooner(host.prepare(context));
            }
            for (_, host) in &mut guests {
                host.audit.sleeping(wait.duration());
            }
            array.0.borrow_mut().wait(wait).unwrap();
            while let Some(mut entry) = array.next_ready() {
                if entry.fd == foreign {
                    let (context, host) = &mut guests[0];
                    match state.foreign_ready(context.io()) {
                        Then::GoOn => {}
                        // The next `prepare` adds all of it again.
                        Then::Move => host.detach(context),
                        Then::End(ending) => end(guests.remove(0), ending, &mut state),
                    }
                    continue;
                }
                let _ = state.survive(|state| {
                    let is_its_own = |(context, host): &mut (Context<State>, Audited<Array>)| {
                        host.audit.service_fd(context, &mut entry, state) == Served::Ours
                    };
                    assert!(guests.iter_mut().any(is_its_own), "nobody's: {entry:?}");
                });
            }
            for (context, host) in &mut guests {
                let _ = state.survive(|state| host.audit.service_timeouts(context, state));
            }
        }
        for guest in guests {
            end(guest, state.ending(), &mut state);
        }
        assert_eq!(array.0.borrow().len(), 1, "the host's own is left, and nothing else");
    }
}

fn end<H: Host>((mut context, mut host): (Context<State>, Audited<H>), ending: Ending, state: &mut State) {
    match ending {
        Ending::Leave => host.leave(&mut context, state),
        Ending::Drop => host.detach(&mut context),
    }
    host.finished();
    state.counts = Some(host.counts());
}

/// An array whose readiness is late, repeated, dropped, and made up.
struct Unruly;

impl Adapter for Unruly {
    const FOREIGN: bool = true;
    const HONEST: bool = false;

    fn run(mut contexts: Vec<Context<State>>, mut state: State) {
        let mut context = contexts.remove(0);
        let mut host = Audited::reporting(Mischief::new(PollArray::new(), &state), |violation| {
            assert_eq!(violation.blame(), Blame::Host, "{violation}");
        })
        .spin_after(SPIN);
        let foreign = state.foreign().as_raw_fd();
        host.host.host.insert_foreign(foreign, libc::POLLIN).unwrap();
        while state.goes_on() {
            let wait = host.prepare(&mut context);
            host.audit.sleeping(wait.duration());
            host.host.host.wait(wait).unwrap();
            let mut found = Vec::new();
            while let Some(entry) = host.host.host.next_ready() {
                found.push((entry.fd, Ready::from_poll_revents(entry.revents)));
            }
            if found.iter().any(|(fd, _)| *fd == foreign) {
                found.retain(|(fd, _)| *fd != foreign);
                match state.foreign_ready(context.io()) {
                    Then::GoOn => {}
                    Then::Move => host.detach(&mut context),
                    Then::End(_) => unreachable!("it is alone"),
                }
            }
            for (fd, ready) in host.host.distort(found) {
                let _ = state.survive(|state| host.audit.service(&mut context, fd, ready, state));
            }
            let _ = state.survive(|state| host.audit.service_timeouts(&mut context, state));
        }
        end((context, host), state.ending(), &mut state);
    }
}

/// Sleeps on without a `prepare` when nothing but the host's own descriptor was ready: the context wakes it.
struct Lazy;

impl Adapter for Lazy {
    const FOREIGN: bool = true;
    const SELF_WAKE: bool = true;

    fn run(mut contexts: Vec<Context<State>>, mut state: State) {
        let mut context = contexts.remove(0);
        let mut host = Audited::new(PollArray::new()).spin_after(SPIN);
        let foreign = state.foreign().as_raw_fd();
        host.insert_foreign(foreign, libc::POLLIN).unwrap();
        let mut wait = host.prepare(&mut context);
        while state.goes_on() {
            host.audit.sleeping(wait.duration());
            host.wait(wait).unwrap();
            let mut is_due = wait.poll_millis() == 0;
            while let Some(mut entry) = host.next_ready().copied() {
                is_due |= entry.fd != foreign;
                if entry.fd != foreign {
                    let _ = state.survive(|state| host.audit.service_fd(&mut context, &mut entry, state));
                    continue;
                }
                match state.foreign_ready(context.io()) {
                    Then::GoOn => {}
                    Then::Move => {
                        host.detach(&mut context);
                        is_due = true;
                    }
                    Then::End(_) => unreachable!("it is alone"),
                }
            }
            if is_due {
                let _ = state.survive(|state| host.audit.service_timeouts(&mut context, state));
                wait = host.prepare(&mut context);
            }
        }
        end((context, host), state.ending(), &mut state);
    }
}

mod in_array {
    lodger_battery::battery!(super::InArray);
}

mod in_an_array_that_sleeps_on {
    lodger_battery::battery!(super::Lazy);
}

mod in_an_unruly_array {
    lodger_battery::battery!(super::Unruly);
}
