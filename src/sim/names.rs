//! The names of a simulated world, and the resolver that knows them.

use crate::resolve::{Found, Hands, Lookup, LookupId, ResolveError, Resolver};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The names of a world, which contexts look up in no time, late or in vain. A handle, of which all clones are the same names.
#[derive(Clone, Default)]
pub struct Names(Rc<RefCell<Table>>);

#[derive(Default)]
struct Table {
    names: HashMap<Lookup, (Option<Answer>, Duration)>,
    asked: usize,
    cancelled: usize,
}

type Answer = Result<Found, ResolveError>;

impl Names {
    /// From now on `name` has these addresses, which are told after `delay`.
    pub fn set(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>, delay: Duration) {
        let found = Found::Addresses(addresses.into_iter().collect());
        self.put(Lookup::Addresses(name.to_owned()), Some(Ok(found)), delay);
    }

    /// From now on looking up `name` fails, after `delay`. What was never set is not found at once.
    pub fn fail(&self, name: &str, error: ResolveError, delay: Duration) {
        self.put(Lookup::Addresses(name.to_owned()), Some(Err(error)), delay);
    }

    /// From now on nobody answers for `name`.
    pub fn silence(&self, name: &str) {
        self.put(Lookup::Addresses(name.to_owned()), None, Duration::ZERO);
    }

    /// How many look-ups there were.
    pub fn asked(&self) -> usize {
        self.0.borrow().asked
    }

    /// How many of them were cancelled.
    pub fn cancelled(&self) -> usize {
        self.0.borrow().cancelled
    }

    fn put(&self, lookup: Lookup, answer: Option<Answer>, delay: Duration) {
        self.0.borrow_mut().names.insert(lookup, (answer, delay));
    }

    pub(super) fn resolver(&self) -> impl Resolver + 'static {
        Waiting { names: self.clone(), answers: Vec::new() }
    }
}

/// One context's look-ups.
struct Waiting {
    names: Names,
    answers: Vec<(Instant, LookupId, Answer)>,
}

impl Resolver for Waiting {
    fn look_up(&mut self, id: LookupId, lookup: &Lookup, hands: &mut Hands<'_>) {
        let mut table = self.names.0.borrow_mut();
        table.asked += 1;
        match table.names.get(lookup) {
            None => hands.answer(id, Err(ResolveError::NotFound)),
            Some((None, _)) => {}
            Some((Some(answer), Duration::ZERO)) => hands.answer(id, answer.clone()),
            Some((Some(answer), delay)) => {
                self.answers.push((hands.now() + *delay, id, answer.clone()));
                hands.wake_at(self.answers.iter().map(|(at, ..)| *at).min());
            }
        }
    }

    fn cancel(&mut self, id: LookupId, _hands: &mut Hands<'_>) {
        self.names.0.borrow_mut().cancelled += 1;
        self.answers.retain(|(_, waiting, _)| *waiting != id);
    }

    fn due(&mut self, hands: &mut Hands<'_>) {
        let now = hands.now();
        for (_, id, answer) in self.answers.extract_if(.., |(at, ..)| *at <= now) {
            hands.answer(id, answer);
        }
        hands.wake_at(self.answers.iter().map(|(at, ..)| *at).min());
    }
}
