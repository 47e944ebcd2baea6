//! Drives a resolver in tests: real descriptors, time that moves when it is told to.

use super::{Action, Found, Hands, Lookup, LookupId, ResolveError, Resolver};
use crate::env::{Env, SystemEnv, system_now};
use crate::host::{Interest, Ready};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};

pub(super) struct Rig<R> {
    pub(super) resolver: R,
    pub(super) due: Option<Instant>,
    now: Instant,
    next: u64,
    watched: Vec<(RawFd, OwnedFd)>,
    answers: Vec<(LookupId, Result<Found, ResolveError>)>,
}

impl<R: Resolver> Rig<R> {
    pub(super) fn new(resolver: R) -> Self {
        Self { resolver, due: None, now: system_now(), next: 0, watched: Vec::new(), answers: Vec::new() }
    }

    pub(super) fn look_up(&mut self, name: &str) -> LookupId {
        self.begin(Lookup::Addresses(name.to_owned()))
    }

    pub(super) fn begin(&mut self, lookup: Lookup) -> LookupId {
        self.next += 1;
        let id = LookupId::new(self.next);
        self.call(|resolver, hands| resolver.look_up(id, &lookup, hands));
        id
    }

    pub(super) fn cancel(&mut self, id: LookupId) {
        self.call(|resolver, hands| resolver.cancel(id, hands));
    }

    /// Waits until a descriptor is ready, and hands on all that are.
    #[expect(clippy::disallowed_methods, reason = "it is a host, and waits")]
    pub(super) fn turn(&mut self) {
        let mut entries: Vec<PollFd<'_>> =
            self.watched.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        let ready = poll(&mut entries, Some(&patience)).unwrap();
        assert_ne!(ready, 0, "nothing happens");
        let numbers = entries.iter().zip(&self.watched).filter(|(entry, _)| !entry.revents().is_empty());
        let numbers: Vec<RawFd> = numbers.map(|(_, (number, _))| *number).collect();
        for number in numbers {
            self.call(|resolver, hands| resolver.ready(number, Ready::READ, hands));
        }
    }

    /// The answer, waited for.
    pub(super) fn answer(&mut self, id: LookupId) -> Result<Found, ResolveError> {
        loop {
            if let Some(answer) = self.answer_so_far(id) {
                return answer;
            }
            self.turn();
        }
    }

    /// The answer, if it has been given.
    pub(super) fn answer_so_far(&mut self, id: LookupId) -> Option<Result<Found, ResolveError>> {
        let at = self.answers.iter().position(|(answered, _)| *answered == id)?;
        Some(self.answers.remove(at).1)
    }

    /// Whether an answer was given that nobody has taken.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    pub(super) fn watched(&self) -> usize {
        self.watched.len()
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        if self.due.is_some_and(|due| due <= self.now) {
            self.due = None;
            self.call(|resolver, hands| resolver.due(hands));
        }
    }

    pub(super) fn call(&mut self, call: impl FnOnce(&mut R, &mut Hands<'_>)) {
        let mut actions = Vec::new();
        let mut random = |bytes: &mut [u8]| SystemEnv.random(bytes);
        call(&mut self.resolver, &mut Hands::new(self.now, &mut random, &mut actions));
        for action in actions {
            match action {
                Action::Answer(id, answer) => self.answers.push((id, answer)),
                Action::Watch { number, descriptor, interest } => {
                    assert_eq!(interest, Interest::READ);
                    self.watched.retain(|(watched, _)| *watched != number);
                    self.watched.push((number, descriptor));
                }
                Action::Unwatch(number) => self.watched.retain(|(watched, _)| *watched != number),
                Action::WakeAt(at) => self.due = at,
            }
        }
    }
}
