//! A simulated connection: two ends, and what each system call on one of them does to both.
//!
//! The rules are those of Linux for TCP, with the few that differ for Unix sockets: which error comes once and which
//! always, what may still be read after a reset, what `poll(2)` says of which state.
//!
//! An end is held by a descriptor or by an [`Endpoint`](super::Endpoint). What is written to one end is in `incoming` of
//! the other at once. An endpoint also has an `outbox` of any size, from which bytes follow as there is room, and `taken`,
//! where the bytes are that it has read.

use super::chaos::Chaos;
use super::random::Random;
use crate::net::Standing;
use crate::{Peer, Ready};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _};

/// What decides by chance.
pub(super) struct Odds {
    pub(super) random: Random,
    pub(super) chaos: Chaos,
}

impl Odds {
    /// What a new connection holds in one direction.
    fn capacity(&mut self) -> usize {
        if self.random.chance(self.chaos.small_buffers) {
            1 + self.random.below(512)
        } else {
            self.chaos.buffer
        }
    }
}

pub(super) struct Stream {
    unix: bool,
    /// `connect` has been called and not been answered.
    connecting: bool,
    /// The one that connected, then the one that was accepted.
    pub(super) ends: [End; 2],
}

pub(super) struct End {
    pub(super) address: Peer,
    pub(super) holder: Holder,
    incoming: VecDeque<u8>,
    capacity: usize,
    /// The peer's FIN came; it counts after `incoming`.
    peer_finished: bool,
    /// Our FIN was sent.
    finished: bool,
    /// Reset, or never connected.
    dead: bool,
    /// Reported once, by whichever call comes first (`SO_ERROR`).
    error: Option<Errno>,
    /// The close that follows resets.
    zero_linger: bool,
    pub(super) taken: VecDeque<u8>,
    /// How many bytes an endpoint still reads; `None` is any number.
    pub(super) allowance: Option<usize>,
    outbox: VecDeque<u8>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Holder {
    /// Nobody yet: it waits in a listener's backlog, or for the answer to `connect`.
    Nobody,
    Descriptor,
    Endpoint,
    Closed,
}

/// What an endpoint does when its outbox is empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Stay,
    Finish,
    Close,
}

impl Stream {
    /// A connection from `from` to `to`; one that is `connecting` is not there yet.
    pub(super) fn new(from: Peer, to: Peer, connecting: bool, odds: &mut Odds) -> Self {
        let unix = matches!(to, Peer::Unix(_));
        let mut end = |address| End::new(address, odds.capacity());
        Self { unix, connecting, ends: [end(from), end(to)] }
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.connecting
    }

    pub(super) fn establish(&mut self) {
        self.connecting = false;
    }

    pub(super) fn refuse(&mut self, error: Errno) {
        self.connecting = false;
        self.ends[0].dead = true;
        self.ends[0].error = Some(error);
        self.ends[1].holder = Holder::Closed;
    }

    /// `SO_ERROR`, then `getpeername(2)`.
    pub(super) fn outcome(&mut self, side: usize) -> Result<(), Errno> {
        match self.ends[side].error.take() {
            _ if self.connecting => Err(Errno::WOULDBLOCK),
            Some(error) => Err(error),
            None if self.ends[side].dead => Err(Errno::NOTCONN),
            None => Ok(()),
        }
    }

    pub(super) fn read(&mut self, side: usize, buf: &mut [u8], odds: &mut Odds) -> io::Result<usize> {
        let end = &mut self.ends[side];
        if !end.incoming.is_empty() {
            let most = end.incoming.len().min(buf.len());
            let length = odds.random.shorten(most, odds.chaos.short_reads);
            end.incoming.read_exact(&mut buf[..length])?;
            return Ok(length);
        }
        // An end that was seen stays the end, even when a reset follows it.
        if end.peer_finished {
            return Ok(0);
        }
        match end.error.take() {
            Some(error) => Err(error.into()),
            None if end.dead => Ok(0),
            None => Err(Errno::WOULDBLOCK.into()),
        }
    }

    pub(super) fn write(
        &mut self,
        side: usize,
        bufs: &[IoSlice<'_>],
        odds: &mut Odds,
    ) -> Result<usize, Errno> {
        let (end, other) = self.pair(side);
        if let Some(error) = end.error.take() {
            return Err(error);
        }
        if end.finished || end.dead {
            return Err(Errno::PIPE);
        }
        let total = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let gone = other.is_gone();
        if self.connecting {
            return Err(Errno::WOULDBLOCK);
        }
        if gone && self.unix {
            return Err(Errno::PIPE);
        }
        if gone {
            // The bytes leave, and are answered by a reset.
            if total > 0 {
                self.give_up(1 - side);
                self.reset_from_peer(side, odds);
            }
            return Ok(total);
        }
        let (_, other) = self.pair(side);
        let room = other.room();
        if total > 0 && room == 0 {
            return Err(Errno::WOULDBLOCK);
        }
        let length = odds.random.shorten(total.min(room), odds.chaos.short_writes);
        other.incoming.extend(bufs.iter().flat_map(|buf| buf.iter()).take(length));
        Ok(length)
    }

    /// `shutdown(2)` of the writing direction.
    pub(super) fn finish(&mut self, side: usize) -> Result<(), Errno> {
        let connecting = self.connecting;
        let (end, other) = self.pair(side);
        if end.dead || connecting {
            return Err(Errno::NOTCONN);
        }
        end.finished = true;
        other.peer_finished = true;
        Ok(())
    }

    pub(super) fn set_zero_linger(&mut self, side: usize) {
        self.ends[side].zero_linger = !self.unix;
    }

    /// `close(2)`: a FIN, or a reset when bytes were left unread (RFC 2525, section 2.17) or lingering was set to zero.
    pub(super) fn close(&mut self, side: usize, odds: &mut Odds) {
        let connecting = self.connecting;
        let (end, other) = self.pair(side);
        let over = end.dead || (end.finished && end.peer_finished);
        let resets = end.zero_linger || !end.incoming.is_empty();
        end.holder = Holder::Closed;
        end.incoming.clear();
        end.outbox.clear();
        if connecting {
            // Nobody answers it any more.
            other.holder = Holder::Closed;
            self.connecting = false;
        } else if resets && !over {
            self.reset_from_peer(1 - side, odds);
        } else if !over {
            end.finished = true;
            other.peer_finished = true;
        }
    }

    /// `SO_ERROR`, and `POLLRDHUP`.
    pub(super) fn standing(&mut self, side: usize) -> Standing {
        let end = &mut self.ends[side];
        match end.error.take() {
            Some(error) => Standing::Failed(error.into()),
            None if end.peer_finished || end.dead => Standing::Ended,
            None => Standing::Open,
        }
    }

    /// What `poll(2)` says.
    pub(super) fn ready(&self, side: usize) -> Ready {
        if self.connecting {
            return Ready::NONE;
        }
        let (end, other) = (&self.ends[side], &self.ends[1 - side]);
        let gone = other.is_gone();
        let no_input = end.peer_finished || end.dead;
        let no_output = end.finished || end.dead || (gone && self.unix);
        // A third of the buffer must be free, so that a writer is not woken for every byte.
        let writable = gone || (other.room() > 0 && other.room() * 2 >= other.incoming.len());
        let flags = [
            (no_input || !end.incoming.is_empty(), Ready::READ),
            (no_output || writable, Ready::WRITE),
            (no_input && no_output, Ready::HANG_UP),
            (end.error.is_some(), Ready::ERROR),
        ];
        flags.iter().filter(|(set, _)| *set).fold(Ready::NONE, |ready, (_, flag)| ready.with(*flag))
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.holder == Holder::Closed)
    }

    /// Moves what endpoints have to send, and what they read. Returns whether anything moved.
    pub(super) fn step(&mut self, odds: &mut Odds) -> bool {
        let mut moved = false;
        for side in 0..2 {
            if self.ends[side].holder == Holder::Endpoint && !self.connecting {
                moved |= self.pump(side, odds);
                let most = self.ends[side].readable();
                let length = odds.random.shorten(most, odds.chaos.trickle);
                moved |= self.take(side, length);
            }
        }
        moved
    }

    /// Whether `step` would move something.
    pub(super) fn is_moving(&self) -> bool {
        (0..2).any(|side| {
            let (end, other) = (&self.ends[side], &self.ends[1 - side]);
            let sends = !end.dead && !end.outbox.is_empty() && (other.room() > 0 || other.is_gone());
            let ends = match end.ending {
                Ending::Stay => false,
                Ending::Finish => !end.finished && !end.dead && end.outbox.is_empty(),
                Ending::Close => end.dead || end.outbox.is_empty(),
            };
            end.holder == Holder::Endpoint && !self.connecting && (sends || ends || end.readable() > 0)
        })
    }

    /// Reads `length` bytes for an endpoint.
    pub(super) fn take(&mut self, side: usize, length: usize) -> bool {
        let end = &mut self.ends[side];
        end.taken.extend(end.incoming.drain(..length));
        end.allowance = end.allowance.map(|left| left - length);
        length > 0
    }

    pub(super) fn endpoint_sends(&mut self, side: usize, bytes: &[u8]) {
        // Behind its own end nothing would ever go out.
        if !self.ends[side].finished && self.ends[side].ending != Ending::Finish {
            self.ends[side].outbox.extend(bytes);
        }
    }

    pub(super) fn endpoint_finishes(&mut self, side: usize) {
        self.ends[side].ending = Ending::Finish;
    }

    /// The endpoint is gone; what it had to send is still sent.
    pub(super) fn endpoint_closes(&mut self, side: usize, odds: &mut Odds) {
        let end = &mut self.ends[side];
        end.ending = Ending::Close;
        if end.dead || end.zero_linger || end.outbox.is_empty() || !end.incoming.is_empty() {
            self.close(side, odds);
        }
    }

    /// Passes on what fits of an endpoint's outbox, then its end.
    fn pump(&mut self, side: usize, odds: &mut Odds) -> bool {
        let (end, other) = self.pair(side);
        if end.dead {
            end.outbox.clear();
        }
        let waiting = end.outbox.len();
        if waiting > 0 && other.is_gone() {
            self.give_up(1 - side);
            self.reset_from_peer(side, odds);
            return true;
        }
        let (end, other) = self.pair(side);
        let length = odds.random.shorten(waiting.min(other.room()), odds.chaos.trickle);
        other.incoming.extend(end.outbox.drain(..length));
        let ended = waiting == length && self.end(side, odds);
        length > 0 || ended
    }

    /// Does what an endpoint wanted done once everything was sent. Returns whether there was such a thing.
    fn end(&mut self, side: usize, odds: &mut Odds) -> bool {
        let end = &self.ends[side];
        match end.ending {
            Ending::Stay => false,
            Ending::Finish => !end.finished && self.finish(side).is_ok(),
            Ending::Close => {
                self.close(side, odds);
                true
            }
        }
    }

    /// An orphan that still had bytes to send sends them no more once its peer's bytes have found nobody.
    fn give_up(&mut self, side: usize) {
        self.ends[side].holder = Holder::Closed;
        self.ends[side].outbox.clear();
    }

    fn reset_from_peer(&mut self, side: usize, odds: &mut Odds) {
        let end = &mut self.ends[side];
        if end.dead || end.holder == Holder::Closed || (end.finished && end.peer_finished) {
            return;
        }
        end.dead = true;
        end.error = Some(if end.peer_finished { Errno::PIPE } else { Errno::CONNRESET });
        end.outbox.clear();
        // What came before a FIN has arrived for certain.
        if !end.peer_finished && odds.random.chance(odds.chaos.lost_on_reset) {
            let kept = odds.random.below(end.incoming.len() + 1);
            end.incoming.truncate(kept);
        }
    }

    fn pair(&mut self, side: usize) -> (&mut End, &mut End) {
        let [first, second] = &mut self.ends;
        if side == 0 { (first, second) } else { (second, first) }
    }
}

impl End {
    fn new(address: Peer, capacity: usize) -> Self {
        Self {
            address,
            holder: Holder::Nobody,
            incoming: VecDeque::new(),
            capacity,
            peer_finished: false,
            finished: false,
            dead: false,
            error: None,
            zero_linger: false,
            taken: VecDeque::new(),
            allowance: None,
            outbox: VecDeque::new(),
            ending: Ending::Stay,
        }
    }

    fn room(&self) -> usize {
        self.capacity - self.incoming.len()
    }

    /// How much an endpoint reads of what is there.
    pub(super) fn readable(&self) -> usize {
        self.allowance.unwrap_or(usize::MAX).min(self.incoming.len())
    }

    /// Whether nobody reads here any more.
    fn is_gone(&self) -> bool {
        self.holder == Holder::Closed || self.ending == Ending::Close
    }

    /// Everything was read, and no more will come.
    pub(super) fn is_at_end(&self) -> bool {
        self.incoming.is_empty() && (self.peer_finished || self.dead)
    }

    pub(super) fn is_reset(&self) -> bool {
        self.dead
    }

    pub(super) fn unsent(&self) -> usize {
        self.outbox.len()
    }
}
