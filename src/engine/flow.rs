//! A conn whose output is full: what it answers with holds back what it reads, and what it is refused is counted.
//!
//! A handler that answers what comes and drops what the send says would lose messages as soon as its peer is slow. So a conn
//! is not read while its answers wait ([`Limits::send_high_water`](crate::Limits::send_high_water) bytes of them, until half
//! of that is left), unless its user [wants it read](crate::Conn::read_when_full). What is sent otherwise holds nothing back:
//! if it did, two ends that both fill their output would each wait for the other to read.

use super::Core;
use super::conn::Hold;
use super::link::{Flags, State};
use super::store::Key;
use crate::error::SendError;
use crate::handler::{Flow, Notice};
use crate::http1::role::Output;
use crate::role::Role;

impl Core {
    /// Whether what is sent on a link now answers what was received on it.
    fn is_answer(&self, index: u32) -> bool {
        self.current == index && !self.unprompted
    }

    /// What was queued last on a link, if anything waits there, answers nothing.
    pub(crate) fn pumped(&mut self, index: u32) {
        if let Some(queue) = self.links.at_mut(index).and_then(|link| link.queue.as_mut()) {
            queue.pumped();
        }
    }

    /// Whether a send that would be refused is the first answer to find so much waiting: it is taken, and nothing is read behind
    /// it. So whoever answers each message by one loses none, whatever else was sent before.
    #[cold]
    pub(crate) fn answers_once(&self, index: u32) -> bool {
        const NO_MORE: Hold = Hold::HELD.union(Hold::READS_ON);
        let Some((_, link)) = self.links.at(index) else { return false };
        let Some((_, conn)) = self.conns.at(link.conn) else { return false };
        self.is_answer(index)
            && link.queue.is_some()
            && !link.flags.contains(Flags::PAUSED)
            && !conn.hold.intersects(NO_MORE)
    }

    /// Notes what came of a send of the application's.
    #[inline]
    pub(crate) fn sent(&mut self, conn: Key, sent: Result<Flow, SendError>) -> Result<Flow, SendError> {
        match &sent {
            Ok(Flow::Ready) => {}
            Ok(Flow::Full) => self.filled(conn),
            Err(error) => self.may_be_refused(conn, error),
        }
        sent
    }

    /// A send has found the output of a conn full: if it was an answer, nothing is read until there is room.
    #[inline(never)]
    fn filled(&mut self, conn: Key) {
        let Some(index) = self.live(conn).map(|conn| conn.link).filter(|&index| self.is_answer(index)) else {
            return;
        };
        let Some(link) = self.links.at_mut(index) else { return };
        let (high_water, over) = (link.limits.send_high_water, link.is_over_send_max());
        let Some(queue) = &mut link.queue else { return };
        if queue.answers() >= high_water || over {
            queue.answered();
            self.hold(index);
        }
    }

    /// Reads a link no further until its answers have gone out.
    fn hold(&mut self, index: u32) {
        let link = self.link(index);
        // Who has given the response holds nothing back any more.
        let responded = matches!(&link.role, Role::Http(server) if server.response == Output::Complete);
        let (was_paused, was_small) =
            (link.flags.contains(Flags::PAUSED), link.flags.contains(Flags::SMALL_READS));
        let conn = link.conn;
        let reads_on = self.conns.at(conn).is_none_or(|(_, conn)| conn.hold.contains(Hold::READS_ON));
        if was_paused || responded || reads_on {
            return;
        }
        self.stop_reading(index);
        if self.link(index).flags.contains(Flags::PAUSED)
            && let Some(conn) = self.conns.at_mut(conn)
        {
            conn.hold.insert(Hold::HELD);
            conn.hold.set(Hold::SMALL_READS, !was_small);
        }
    }

    /// The queue of a link has become shorter: it is read on if its answers have gone out, and in large pieces again if everything
    /// has.
    pub(super) fn hold_may_end(&mut self, index: u32) {
        let Some(link) = self.links.at_mut(index) else { return };
        let Some(conn) = self.conns.at_mut(link.conn).filter(|conn| !conn.hold.is_empty()) else { return };
        if link.queue.is_none() && conn.hold.contains(Hold::SMALL_READS) {
            conn.hold.remove(Hold::SMALL_READS);
            link.flags.remove(Flags::SMALL_READS);
        }
        if link.queued() <= link.limits.send_high_water / 2 {
            conn.hold.remove(Hold::MISSED);
        }
        let waiting = link.queue.as_ref().map_or(0, |queue| queue.until_answered());
        if waiting <= link.limits.send_high_water.min(link.limits.send_max) / 2 {
            self.end_hold(index);
        }
    }

    /// Reads a link on that was held, unless its user has paused it besides.
    pub(super) fn end_hold(&mut self, index: u32) {
        let Some((_, link)) = self.links.at(index) else { return };
        let Some(conn) = self.conns.at_mut(link.conn).filter(|conn| conn.hold.contains(Hold::HELD)) else {
            return;
        };
        conn.hold.remove(Hold::HELD);
        if !conn.hold.contains(Hold::PAUSED) {
            self.resume(index);
        }
    }

    /// The user pauses: if the link is held, it stays paused when that ends. False if it is not held.
    pub(super) fn hold_outlived(&mut self, index: u32) -> bool {
        let Some((_, link)) = self.links.at(index).filter(|(_, link)| link.state == State::Open) else {
            return false;
        };
        let Some(conn) = self.conns.at_mut(link.conn).filter(|conn| conn.hold.contains(Hold::HELD)) else {
            return false;
        };
        conn.hold.insert(Hold::PAUSED);
        conn.hold.remove(Hold::SMALL_READS);
        true
    }

    /// Reading goes on for another reason than that the answers have gone out.
    pub(super) fn forget_hold(&mut self, index: u32) {
        let conn = self.link(index).conn;
        if let Some(conn) = self.conns.at_mut(conn) {
            conn.hold.remove(Hold::HELD.union(Hold::PAUSED));
        }
    }

    /// Sets whether a conn is read however much waits.
    pub(crate) fn read_when_full(&mut self, conn: Key, on: bool) {
        let Some(live) = self.live(conn) else { return };
        live.hold.set(Hold::READS_ON, on);
        let index = live.link;
        if on && self.links.at(index).is_some() {
            self.end_hold(index);
        }
    }

    // What is refused.

    #[cold]
    fn may_be_refused(&mut self, conn: Key, error: &SendError) {
        if matches!(error, SendError::Overrun) {
            self.count_refused(conn);
        }
    }

    /// Counts a send that was refused since too much waits, and says so in the log the first time.
    fn count_refused(&mut self, conn: Key) {
        let Some(live) = self.live(conn) else { return };
        let cold = live.cold();
        cold.refused += 1;
        let (first, index) = (cold.refused == 1, live.link);
        if first && let Some((_, link)) = self.links.at(index) {
            let (role, queued) = (link.role.name(), link.queued());
            let peer = link.peer().map_or_else(|| "a peer".to_owned(), |peer| peer.to_string());
            log::warn!(
                target: "lodger::flow",
                "what is sent to {peer} ({role}) is refused: {queued} bytes wait already (further refusals are only counted)"
            );
        }
    }

    /// A broadcast has left out a conn, which hears so, unless it has heard it and had no room since.
    pub(crate) fn left_out(&mut self, conn: Key) {
        self.count_refused(conn);
        if let Some(live) = self.live(conn)
            && !live.hold.contains(Hold::MISSED)
        {
            live.hold.insert(Hold::MISSED);
            self.notice(conn, Notice::Missed);
        }
    }
}
