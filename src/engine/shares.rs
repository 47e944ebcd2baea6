//! What a link may take of a turn, so that nobody waits long for others that have much to say.
//!
//! A link that is alone may take all that one is allowed. The more links there are that take much, the less each of them gets. They
//! are counted as they come, and a turn begins with what the last one has counted, so that neither the first turn of many nor the
//! next takes long. What a link does not get waits in its socket, or with what it has kept.

use super::{MESSAGES, NOBODY, RECEIVE};

/// What busy links share of a turn: work, in messages, and bytes that are read.
const MESSAGES_OF_ALL: u32 = 8 * MESSAGES;
const BYTES_OF_ALL: usize = 8 * RECEIVE;
/// What a link gets however many are busy: with less, a hundred that pipeline or send large messages would pay more for turns and
/// system calls than an honest one gains. Who takes as much is busy.
const LEAST_MESSAGES: u32 = 512;
const LEAST_BYTES: usize = 64 * 1024;

/// How many links are busy, and what a share is.
pub(crate) struct Shares {
    /// What is read from a link at the most, in bytes.
    bytes: usize,
    /// How much work is done for a link, in messages.
    messages: u32,
    /// Busy links of this phase of the turn; the last of them, since several of its steps may find it so.
    busy: u32,
    last: u32,
    /// Those of the last turn.
    before: u32,
    /// Those of this turn that were ready, once what was left of earlier turns has its phase.
    ready: u32,
}

impl Shares {
    pub(crate) fn new() -> Self {
        Self { bytes: RECEIVE, messages: MESSAGES, busy: 0, last: NOBODY, before: 0, ready: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// Whether a turn has to be counted: somebody is busy, or was.
    pub(crate) fn are_counted(&self) -> bool {
        self.busy.max(self.before) > 0
    }

    /// A link has taken so much of this turn, in bytes and in messages. Says whether it is one of the busy ones.
    pub(crate) fn took(&mut self, link: u32, bytes: usize, messages: u32) -> bool {
        let busy = bytes >= LEAST_BYTES || messages >= LEAST_MESSAGES;
        if busy && self.last != link {
            self.last = link;
            self.busy += 1;
            self.share_out();
        }
        busy
    }

    /// All that were ready have been served: those that have something left of earlier turns come next.
    pub(crate) fn ready_served(&mut self) {
        self.ready = std::mem::take(&mut self.busy);
        self.last = NOBODY;
    }

    /// Those were served, too: the next turn begins. A link may have been among both, so that the larger number counts.
    pub(crate) fn left_served(&mut self) {
        self.before = std::mem::take(&mut self.ready).max(std::mem::take(&mut self.busy));
        self.last = NOBODY;
        self.share_out();
    }

    fn share_out(&mut self) {
        let many = self.busy.max(self.before).max(self.ready).max(1);
        self.messages = (MESSAGES_OF_ALL / many).clamp(LEAST_MESSAGES, MESSAGES);
        self.bytes = (BYTES_OF_ALL / many as usize).clamp(LEAST_BYTES, RECEIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn in which these links take much when they are ready, and those when they go on.
    fn turn(shares: &mut Shares, ready: impl Iterator<Item = u32>, left: impl Iterator<Item = u32>) {
        ready.for_each(|link| assert!(shares.took(link, LEAST_BYTES, 1)));
        shares.ready_served();
        left.for_each(|link| assert!(shares.took(link, 0, LEAST_MESSAGES)));
        shares.left_served();
    }

    #[test]
    fn a_link_that_is_alone_gets_all_however_often_it_takes_it() {
        let mut shares = Shares::new();
        for _ in 0..10 {
            turn(&mut shares, [7, 7].into_iter(), [7, 7].into_iter());
            assert_eq!((shares.bytes(), shares.messages()), (RECEIVE, MESSAGES));
        }
    }

    #[test]
    fn links_that_take_little_do_not_count() {
        let mut shares = Shares::new();
        for link in 0..1000 {
            assert!(!shares.took(link, LEAST_BYTES - 1, LEAST_MESSAGES - 1));
        }
        assert_eq!((shares.bytes(), shares.messages(), shares.are_counted()), (RECEIVE, MESSAGES, false));
    }

    #[test]
    fn many_links_share_and_already_the_first_turn_is_a_short_one() {
        let mut shares = Shares::new();
        let mut read = 0;
        for link in 0..1000 {
            read += shares.bytes();
            shares.took(link, shares.bytes(), 0);
        }
        assert!(read < 1000 * LEAST_BYTES + 4 * BYTES_OF_ALL, "{read}");
        turn(&mut shares, 0..0, 0..0);
        assert_eq!((shares.bytes(), shares.messages()), (LEAST_BYTES, LEAST_MESSAGES));
        // A few at a time have what one has alone.
        turn(&mut shares, 0..8, 0..8);
        assert_eq!((shares.bytes(), shares.messages()), (RECEIVE, MESSAGES));
        turn(&mut shares, 0..16, 0..1);
        assert_eq!((shares.bytes(), shares.messages()), (RECEIVE / 2, LEAST_MESSAGES));
    }

    #[test]
    fn shares_are_whole_again_in_the_turn_after_one_in_which_nobody_was_busy() {
        let mut shares = Shares::new();
        turn(&mut shares, 0..100, 0..100);
        assert!(shares.are_counted());
        turn(&mut shares, 0..0, 0..0);
        assert_eq!((shares.bytes(), shares.messages(), shares.are_counted()), (RECEIVE, MESSAGES, false));
    }
}
