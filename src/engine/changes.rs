//! What the host is told at `prepare`: removes, changes, adds; then what was removed is closed.

use super::Core;
use super::link::{Flags, Link, State};
use crate::handler::CloseReason;
use crate::host::{Host, Interest, Scope};
use crate::role::Role;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// How long until a refused wake-up descriptor is offered again.
const WAKE_AGAIN: Duration = Duration::from_millis(250);

/// What one changed link needs.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Step {
    Remove,
    Change,
    Add,
    /// It was never registered, and is over.
    Close,
    Nothing,
}

fn step(link: &Link) -> Step {
    let wants = link.wants();
    match (link.told.is_none(), wants.is_none()) {
        (false, true) => Step::Remove,
        (false, false) if wants != link.told => Step::Change,
        (true, false) => Step::Add,
        (true, true) if link.state == State::Ended => Step::Close,
        _ => Step::Nothing,
    }
}

impl Core {
    /// The link that has the number `fd`, from its `add` to its close.
    #[inline]
    pub(crate) fn lookup(&self, fd: RawFd) -> Option<u32> {
        // A negative number becomes one beyond any table. `NOBODY` is above `UNANNOUNCED`.
        self.fds.get(fd as usize).copied().filter(|&index| index < super::UNANNOUNCED)
    }

    /// The link that has the number `fd`, whether a host has been told of it or not.
    pub(crate) fn link_of(&self, fd: RawFd) -> Option<u32> {
        let known = self.fds.get(fd as usize).copied().filter(|&index| index != super::NOBODY)?;
        Some(known & !super::UNANNOUNCED)
    }

    /// Tells the host what has changed, and closes what has ended.
    pub(crate) fn tell(&mut self, host: &mut dyn Host) {
        if self.changes.is_empty() {
            return;
        }
        let mut changed = std::mem::take(&mut self.changes);
        let mut scope = None;
        for &index in &changed {
            match step(self.link(index)) {
                Step::Remove | Step::Add => scope = Some(Scope::Descriptors),
                Step::Change => scope = scope.or(Some(Scope::Interests)),
                Step::Close | Step::Nothing => {}
            }
        }
        if let Some(scope) = scope {
            host.lock(scope);
        }
        for pass in [Step::Remove, Step::Change, Step::Add] {
            for &index in &changed {
                if step(self.link(index)) == pass {
                    self.tell_one(host, index, pass);
                }
            }
        }
        for &index in &changed {
            if self.link(index).flags.contains(Flags::RELEASING) {
                self.hand_over(index);
            }
            let link = self.link(index);
            if link.may_go() && !link.is_registered() {
                self.let_go(index);
            }
        }
        // What came up meanwhile is a batch of its own: the removal of what a refused change has ended, a listener for which
        // there is room again.
        for &index in &changed {
            if let Some(link) = self.links.at_mut(index) {
                link.flags.remove(Flags::DIRTY);
                self.mark(index);
            }
        }
        if let Some(scope) = scope {
            host.unlock(scope);
        }
        changed.clear();
        if self.changes.is_empty() {
            self.changes = changed;
        } else {
            self.tell(host);
        }
    }

    fn tell_one(&mut self, host: &mut dyn Host, index: u32, step: Step) {
        let link = self.links.at_mut(index).expect("a changed link is there until it is let go");
        let Some(fd) = &link.fd else { return };
        let wants = link.wants();
        let result = match step {
            Step::Remove => {
                host.remove(fd.as_fd());
                Ok(())
            }
            Step::Change => host.change(fd.as_fd(), link.told, wants),
            Step::Add => host.add(fd.as_fd(), wants),
            Step::Close | Step::Nothing => return,
        };
        match result {
            Ok(()) => {
                let number = fd.as_raw_fd();
                link.told = wants;
                self.know(number, index);
            }
            Err(error) => self.refused(index, error),
        }
    }

    /// Notes whose number it is: that of the link at `index`, or `UNANNOUNCED` beside it.
    pub(super) fn know(&mut self, fd: RawFd, index: u32) {
        let place = fd as usize;
        if self.fds.len() <= place {
            // In steps of an eighth: one more for each of many idle links counts.
            if self.fds.capacity() <= place {
                self.fds.reserve_exact(place + place / 8 + 64 - self.fds.len());
            }
            self.fds.resize(place + 1, super::NOBODY);
        }
        self.fds[place] = index;
    }

    /// The host would not watch a descriptor.
    fn refused(&mut self, index: u32, error: std::io::Error) {
        log::warn!(target: "lodger::host", "the host refused a descriptor: {error}");
        if matches!(self.link(index).role, Role::WakeUp | Role::Resolver { .. }) {
            // Without it other threads, or answers, are heard late; it is offered again.
            self.link(index).flags.insert(Flags::REFUSED);
            let at = self.now().after(WAKE_AGAIN);
            self.timers.arm(at, super::timers::Timer::Wake);
            return;
        }
        let listener = self.links.key_at(index);
        if let (Role::Listener(facts), Some(listener)) = (&self.link(index).role, listener)
            && let Some(&site) = facts.sites.first()
        {
            self.end(index, CloseReason::Closed);
            self.refused_listeners.push_back((site, listener, error));
            self.work = true;
            return;
        }
        self.end(index, CloseReason::Host(error));
    }

    /// Closes a link that the host watches no more.
    fn let_go(&mut self, index: u32) {
        let Some(key) = self.links.key_at(index) else { return };
        let Some(mut link) = self.links.remove(key) else { return };
        self.ended_links -= 1;
        if let Some(fd) = link.fd.take() {
            self.forget(fd.as_raw_fd(), index);
            if link.flags.contains(Flags::RESET) {
                self.net.reset(fd.as_fd());
            }
            self.net.close(fd);
        }
        if let Role::Listener(listener) = &link.role
            && let Some(path) = &listener.path
        {
            path.remove();
        }
        if let Role::WebSocket(websocket) = &mut link.role
            && let Some(deflated) = websocket.take_deflated()
        {
            self.pools.take_back(*deflated);
        }
        self.left_entrance(index, &link);
        self.left_site(&link);
        self.left_address(&link);
        self.accept_again();
    }

    pub(super) fn forget(&mut self, fd: RawFd, index: u32) {
        if self.link_of(fd) == Some(index) {
            self.fds[fd as usize] = super::NOBODY;
        }
    }

    /// Takes everything from the host and closes nothing. The next `prepare` adds it again.
    pub(crate) fn detach(&mut self, host: &mut dyn Host) {
        let registered: Vec<u32> =
            self.links.iter().filter(|(_, link)| link.is_registered()).map(|(key, _)| key.index).collect();
        if registered.is_empty() {
            return self.offer_all();
        }
        host.lock(Scope::Descriptors);
        for index in registered {
            let link = self.link(index);
            if let Some(fd) = &link.fd {
                host.remove(fd.as_fd());
                let number = fd.as_raw_fd();
                link.told = Interest::NONE;
                self.know(number, index | super::UNANNOUNCED);
            }
        }
        host.unlock(Scope::Descriptors);
        self.offer_all();
    }

    /// Has everything that is wanted added by the next `prepare`, what an earlier host refused too.
    fn offer_all(&mut self) {
        let links: Vec<u32> = self.links.iter().map(|(key, _)| key.index).collect();
        for index in links {
            self.link(index).flags.remove(Flags::REFUSED);
            self.mark(index);
        }
    }

    /// Whether a host still watches something.
    pub(crate) fn is_attached(&self) -> bool {
        self.links.iter().any(|(_, link)| link.is_registered())
    }
}
