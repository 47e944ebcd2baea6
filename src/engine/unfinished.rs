//! Messages of WebSockets that have begun and are not complete: what they hold together, which of them gives way when that is too
//! much, and which has stopped.
//!
//! A message is noted when a read leaves it unfinished, never when it comes whole in one read, and stays noted, with its timer, for
//! a while after it is complete: traffic whose messages take a few reads each arms no timer for each.

use super::Core;
use super::link::{Flags, Link, State};
use super::store::Key;
use super::timers::{Tick, Timer, TimerId};
use crate::handler::{CloseReason, Timeout};
use crate::role::Role;
use crate::ws::{CloseCode, Progress};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

/// What unfinished messages may hold together, unless something else is said.
pub(crate) const MOST: usize = 256 * 1024 * 1024;

pub(crate) struct Unfinished {
    /// By the places of the links.
    noted: HashMap<u32, Noted>,
    /// What they hold together, in bytes.
    pub(crate) held: usize,
    /// What they may.
    pub(crate) most: usize,
}

/// The message that a link has under way, or had lately.
struct Noted {
    /// What is held for it, in bytes. 0 when it is complete.
    held: usize,
    complete: bool,
    begun: Tick,
    /// When more of it last came.
    moved: Tick,
    /// Payload that came lately, in bytes of the wire: halved with every second up to `aged`.
    lately: u64,
    aged: Tick,
    timer: TimerId,
}

/// How long all that counts as lately is together, by the series of halves: no message is measured by more time.
const LATELY: Duration = Duration::from_secs(2);
/// No message is measured by less time: what has just begun has come infinitely fast.
const AT_LEAST: Duration = Duration::from_millis(1);

impl Unfinished {
    pub(crate) fn new() -> Self {
        Self { noted: HashMap::new(), held: 0, most: MOST }
    }
}

impl Noted {
    fn new(now: Tick) -> Self {
        Self { held: 0, complete: false, begun: now, moved: now, lately: 0, aged: now, timer: TimerId::NONE }
    }

    /// Another message has begun.
    fn begin(&mut self, now: Tick) {
        let timer = std::mem::replace(&mut self.timer, TimerId::NONE);
        *self = Self { held: self.held, timer, ..Self::new(now) };
    }

    /// So much payload has come.
    fn came(&mut self, bytes: u64, now: Tick) {
        self.lately = self.lately_at(now).saturating_add(bytes);
        self.aged = self.aged.after(Duration::from_secs(now.since(self.aged).as_secs()));
        if bytes > 0 {
            self.moved = now;
        }
    }

    fn lately_at(&self, now: Tick) -> u64 {
        let seconds = now.since(self.aged).as_secs();
        u32::try_from(seconds).ok().and_then(|seconds| self.lately.checked_shr(seconds)).unwrap_or(0)
    }

    /// How much comes in a second for each MiB that is held; of those for which it is the same, the one that holds most is first.
    fn pace(&self, now: Tick) -> (u128, Reverse<usize>) {
        let time = now.since(self.begun).clamp(AT_LEAST, LATELY).as_micros();
        let scale = 1_000_000 * 1024 * 1024;
        let pace = u128::from(self.lately_at(now)) * scale / (time * self.held.max(1) as u128);
        (pace, Reverse(self.held))
    }
}

/// What is held for a link's message and came of it since this was asked last; `None` if none is under way.
fn progress(link: &mut Link) -> Option<Progress> {
    match &mut link.role {
        // What is lingering wants no more messages.
        Role::WebSocket(websocket) if link.state == State::Open => websocket.progress(),
        Role::WebSocket(websocket) => {
            websocket.receiver.forget();
            None
        }
        _ => None,
    }
}

impl Core {
    /// A link was read whose message was unfinished before, or is now. If this is too much for all, the message that has moved least
    /// for what it holds gives way.
    #[inline(never)]
    pub(crate) fn message_left(&mut self, index: u32) {
        let Some(link) = self.links.at_mut(index) else { return };
        let stall = link.limits.message_stall;
        let Some(progress) = progress(link) else { return self.message_over(index) };
        if progress.moved > 0 {
            // A message that is under way is no idleness.
            self.message_passed(index);
        }
        let now = self.now();
        let noted = self.unfinished.noted.entry(index).or_insert_with(|| Noted::new(now));
        if progress.is_new || noted.complete {
            noted.begin(now);
        }
        noted.came(progress.moved, now);
        self.unfinished.held = self.unfinished.held - noted.held + progress.held;
        noted.held = progress.held;
        if noted.timer.is_none()
            && let Some(key) = self.links.key_at(index)
        {
            noted.timer = self.timers.arm(noted.moved.after(stall), Timer::Message(key));
        }
        while self.unfinished.held > self.unfinished.most
            && let Some(least) = self.moved_least(now)
        {
            self.let_give_way(least);
        }
    }

    /// Nothing of a message is held for a link any more.
    fn message_over(&mut self, index: u32) {
        if let Some(noted) = self.unfinished.noted.get_mut(&index) {
            noted.complete = true;
            self.unfinished.held -= std::mem::take(&mut noted.held);
        }
    }

    /// A link has ended.
    pub(super) fn forget_message(&mut self, index: u32) {
        if self.unfinished.noted.is_empty() {
            return;
        }
        self.message_over(index);
        if let Some(mut noted) = self.unfinished.noted.remove(&index) {
            self.timers.cancel(&mut noted.timer);
        }
    }

    /// The link whose message has moved least for what it holds.
    fn moved_least(&self, now: Tick) -> Option<u32> {
        let holding = self.unfinished.noted.iter().filter(|(_, noted)| noted.held > 0);
        holding.min_by_key(|(_, noted)| noted.pace(now)).map(|(index, _)| *index)
    }

    /// Gives up the message of a link: its peer may try again later (RFC 6455, section 7.4.1, by IANA's registry).
    fn let_give_way(&mut self, index: u32) {
        log::warn!(target: "lodger::memory", "unfinished messages hold too much: one gives way");
        self.give_up_message(index);
        self.fail_websocket_with(
            index,
            CloseReason::MessageGaveWay,
            CloseCode::TRY_AGAIN,
            "too many unfinished messages",
        );
    }

    /// Reading goes on after a pause, in which the time of a message stands still.
    pub(crate) fn message_goes_on(&mut self, index: u32) {
        if !self.unfinished.noted.contains_key(&index) {
            return;
        }
        let now = self.now();
        let (key, stall) = (self.links.key_at(index), self.link(index).limits.message_stall);
        let Some((noted, key)) = self.unfinished.noted.get_mut(&index).zip(key) else { return };
        noted.moved = now;
        if noted.timer.is_none() {
            noted.timer = self.timers.arm(now.after(stall), Timer::Message(key));
        }
    }

    /// The timer of a link's message has run out. True if nothing more of it has come for too long, as far as is known.
    pub(crate) fn message_expired(&mut self, key: Key) -> bool {
        if let Some(noted) = self.unfinished.noted.get_mut(&key.index) {
            noted.timer = TimerId::NONE;
        }
        self.message_stalled(key)
    }

    /// Whether nothing more of a link's message has come for too long. If not, its timer is put right.
    pub(crate) fn message_stalled(&mut self, key: Key) -> bool {
        let now = self.now();
        let Some(link) = self.links.get(key) else { return false };
        let (paused, stall) = (link.flags.contains(Flags::PAUSED), link.limits.message_stall);
        let Some(noted) = self.unfinished.noted.get_mut(&key.index) else { return false };
        self.timers.cancel(&mut noted.timer);
        if noted.complete {
            self.unfinished.noted.remove(&key.index);
            return false;
        }
        let due = noted.moved.after(stall);
        if !paused && due > now {
            noted.timer = self.timers.arm(due, Timer::Message(key));
        }
        !paused && due <= now
    }

    /// Ends a link whose message has stopped. 1008, since waiting for the rest is what our policy forbids; 1001 and 1013 would
    /// have the peer do the same again.
    pub(crate) fn message_timed_out(&mut self, index: u32) {
        let reason = CloseReason::TimedOut(Timeout::MessageStall);
        self.give_up_message(index);
        self.fail_websocket_with(index, reason, CloseCode::POLICY, "message stalled");
    }

    /// Nobody wants the message of a link any more: its memory is let go.
    pub(super) fn give_up_message(&mut self, index: u32) {
        self.message_over(index);
        if let Some(link) = self.links.at_mut(index)
            && let Role::WebSocket(websocket) = &mut link.role
        {
            websocket.receiver.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn at(seconds: u64) -> Tick {
        Tick::default().after(Duration::from_secs(seconds))
    }

    fn noted(held: usize, came: impl IntoIterator<Item = (u64, u64)>) -> Noted {
        let mut noted = Noted::new(at(0));
        noted.held = held;
        came.into_iter().for_each(|(second, bytes)| noted.came(bytes, at(second)));
        noted
    }

    #[test]
    fn what_has_just_begun_has_come_faster_than_what_has_stopped() {
        let parked = noted(16 << 20, [(0, 16 << 20)]);
        let mut fresh = Noted::new(at(20));
        fresh.held = 1000;
        fresh.came(1, at(20));
        assert!(parked.pace(at(20)) < fresh.pace(at(20)));
    }

    #[test]
    fn what_drips_has_moved_less_than_what_flows_however_much_came_before() {
        let dripping =
            noted(16 << 20, std::iter::once((0, 16 << 20)).chain((1..30).map(|second| (second, 1))));
        let flowing = noted(1 << 20, (0..30).map(|second| (second, 30 * KIB)));
        assert!(dripping.pace(at(30)) < flowing.pace(at(30)));
    }

    #[test]
    fn what_holds_little_may_be_slow() {
        let slow = noted(2000, (0..30).map(|second| (second, 60)));
        let large = noted(16 << 20, (0..30).map(|second| (second, 100 * KIB)));
        assert!(large.pace(at(30)) < slow.pace(at(30)));
    }

    #[test]
    fn of_those_that_have_stopped_for_long_the_largest_is_the_first() {
        let (small, large) = (noted(1000, [(0, 1000)]), noted(1 << 20, [(0, 1 << 20)]));
        assert!(large.pace(at(1000)) < small.pace(at(1000)));
    }
}
