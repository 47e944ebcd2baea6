//! What waits to be sent on a link, and the spare buffers that all links share.

use super::timers::{Tick, TimerId};
use crate::memory::{self, OutOfMemory};
use crate::ws::{Shared, mask};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

/// A buffer of bytes that are used up from the front.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: usize,
}

impl Kept {
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
}

enum Segment {
    Own(Kept),
    /// A frame that other links send too.
    Shared(Arc<Vec<u8>>, usize),
}

impl Segment {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Own(kept) => kept.rest(),
            Self::Shared(frame, start) => &frame[*start..],
        }
    }
}

/// Output that the kernel has not taken yet.
#[derive(Default)]
pub(crate) struct Queue {
    segments: VecDeque<Segment>,
    len: usize,
    /// How many of the segments are shared.
    shared: usize,
    /// When the peer last took something, or when the queue began to wait.
    pub(crate) moved: Tick,
    /// When it will have waited for too long.
    pub(crate) stall_timer: TimerId,
    /// How many of its bytes end with the last that is no answer to what was received.
    pumped: usize,
    /// How many of its bytes end with the last answer because of which its conn is not read.
    answered: usize,
}

/// How many pieces one gathered write takes.
const PIECES: usize = 32;
/// Small output of the link being served is gathered up to here.
const GATHERED: usize = 64 * 1024;
/// A segment of our own grows to this size before a new one is begun.
const SEGMENT: usize = 64 * 1024;
/// A shared frame of up to so many bytes is copied behind others: its place in the queue would take about as much.
const JOINED: usize = 512;
/// What a shared frame is counted for beside its bytes: what the frame itself takes, its entry, that of a segment of our own behind
/// it, and as much again, since the list of segments doubles.
pub(crate) const SHARED_COST: usize = Shared::OVERHEAD + 4 * size_of::<Segment>();
/// So many entries of an empty queue are kept.
const ENTRIES: usize = 64;

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What was queued last is no answer to anything.
    pub(crate) fn pumped(&mut self) {
        self.pumped = self.len;
    }

    /// What was queued last is an answer, and nothing is received until it has gone out.
    pub(crate) fn answered(&mut self) {
        self.answered = self.len;
    }

    /// How many bytes of answers wait behind everything else.
    pub(crate) fn answers(&self) -> usize {
        self.len - self.pumped
    }

    /// How many bytes have to go out until the last answer has.
    pub(crate) fn until_answered(&self) -> usize {
        self.answered
    }

    /// The memory that what waits takes beside its bytes. What is shared counts whole in every queue that it waits in: this one may
    /// come to be the last.
    #[inline]
    pub(crate) fn beside(&self) -> usize {
        self.shared * SHARED_COST
    }

    /// When the peer last took something, or the queue began to wait for it; `None` if it waits only for its turn.
    pub(crate) fn last_taken(&self) -> Option<Tick> {
        (!self.stall_timer.is_none()).then_some(self.moved)
    }

    /// Queues bytes behind the others: all of them, or none if there is no memory for them.
    pub(crate) fn push(&mut self, bytes: &[u8], pool: &mut Pool) -> Result<(), OutOfMemory> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(Segment::Own(last)) = self.segments.back_mut()
            && last.bytes.len() + bytes.len() <= SEGMENT.max(last.bytes.capacity())
        {
            memory::reserve(&mut last.bytes, bytes.len())?;
            last.bytes.extend_from_slice(bytes);
        } else {
            self.close_last();
            let mut own = pool.take();
            memory::reserve(&mut own, bytes.len())?;
            own.extend_from_slice(bytes);
            self.segments.push_back(Segment::Own(Kept { bytes: own, start: 0 }));
        }
        self.len += bytes.len();
        Ok(())
    }

    /// Queues a frame that other links send too, without copying it, unless it is so small that this would take more memory. What
    /// comes first is not copied even then: most often it is written in a moment, and needs no buffer.
    pub(crate) fn push_shared(&mut self, frame: &Arc<Vec<u8>>, pool: &mut Pool) -> Result<(), OutOfMemory> {
        if frame.len() <= JOINED && !self.segments.is_empty() {
            return self.push(frame, pool);
        }
        self.close_last();
        self.len += frame.len();
        self.shared += 1;
        self.segments.push_back(Segment::Shared(Arc::clone(frame), 0));
        Ok(())
    }

    /// Nothing more is added to the last segment: room that it has beside its bytes, having been a larger one before, is given up.
    fn close_last(&mut self) {
        if let Some(Segment::Own(last)) = self.segments.back_mut()
            && last.bytes.capacity() - last.bytes.len() > last.bytes.len().max(JOINED)
        {
            last.bytes.shrink_to_fit();
        }
    }

    /// The front of the queue as pieces for a gathered write; the count says how many there are.
    pub(crate) fn pieces<'q>(&'q self, pieces: &mut [IoSlice<'q>; PIECES]) -> usize {
        let mut count = 0;
        for (piece, segment) in pieces.iter_mut().zip(&self.segments) {
            *piece = IoSlice::new(segment.rest());
            count += 1;
        }
        count
    }

    /// Takes `bytes` off the front: they were written.
    pub(crate) fn written(&mut self, mut bytes: usize, pool: &mut Pool) {
        self.len -= bytes;
        self.pumped = self.pumped.saturating_sub(bytes);
        self.answered = self.answered.saturating_sub(bytes);
        while let Some(front) = self.segments.front_mut() {
            let rest = front.rest().len();
            if bytes < rest {
                match front {
                    Segment::Own(kept) => kept.start += bytes,
                    Segment::Shared(_, start) => *start += bytes,
                }
                return;
            }
            bytes -= rest;
            match self.segments.pop_front() {
                Some(Segment::Own(kept)) => pool.give(kept.bytes),
                Some(Segment::Shared(..)) => self.shared -= 1,
                None => {}
            }
        }
    }

    /// Empties the queue into the pool.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.written(self.len, pool);
    }
}

pub(crate) fn no_pieces<'q>() -> [IoSlice<'q>; PIECES] {
    [IoSlice::new(&[]); PIECES]
}

/// The small output of the link being served: written once, when its input has been handled.
pub(crate) struct Gathered {
    /// Of one length for good, so that adding needs no look at the capacity.
    bytes: Vec<u8>,
    len: usize,
}

impl Gathered {
    /// In the place of one that is being written.
    pub(crate) const NONE: Self = Self { bytes: Vec::new(), len: 0 };

    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; GATHERED], len: 0 }
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds `head` and `payload`; false, and nothing is added, if there is no room for both.
    #[inline]
    pub(crate) fn push(&mut self, head: &[u8], payload: &[u8]) -> bool {
        let end = self.len + head.len() + payload.len();
        let Some(room) = self.bytes.get_mut(self.len..end) else { return false };
        self.len = end;
        let (first, second) = room.split_at_mut(head.len());
        first.copy_from_slice(head);
        second.copy_from_slice(payload);
        true
    }

    /// The same with the payload masked.
    pub(crate) fn push_masked(&mut self, head: &[u8], payload: &[u8], key: [u8; 4]) -> bool {
        let start = self.len + head.len();
        let pushed = self.push(head, payload);
        if pushed {
            mask::apply(key, &mut self.bytes[start..self.len]);
        }
        pushed
    }
}

/// Spare buffers, so that a steady state allocates nothing. Bounded in number and in the size of each.
#[derive(Default)]
pub(crate) struct Pool {
    buffers: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "links hold them boxed, so that an idle link is small")]
    queues: Vec<Box<Queue>>,
}

const POOLED: usize = 64;
const POOLED_SIZE: usize = 64 * 1024;

impl Pool {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < POOLED && buffer.capacity() > 0 && buffer.capacity() <= POOLED_SIZE {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    pub(crate) fn take_queue(&mut self) -> Box<Queue> {
        self.queues.pop().unwrap_or_default()
    }

    pub(crate) fn give_queue(&mut self, mut queue: Box<Queue>) {
        queue.clear(self);
        queue.segments.shrink_to(ENTRIES);
        if self.queues.len() < POOLED {
            self.queues.push(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue, step: usize, pool: &mut Pool) -> Vec<u8> {
        let mut out = Vec::new();
        while queue.len() > 0 {
            let taken: Vec<u8> = {
                let mut pieces = no_pieces();
                let count = queue.pieces(&mut pieces);
                pieces[..count].iter().flat_map(|piece| piece.iter().copied()).take(step).collect()
            };
            queue.written(taken.len(), pool);
            out.extend(taken);
        }
        out
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_whatever_the_kernel_takes() {
        let mut pool = Pool::default();
        for step in 1..40 {
            let mut queue = Queue::default();
            queue.push(b"hello ", &mut pool).unwrap();
            queue.push_shared(&Arc::new(b"shared".to_vec()), &mut pool).unwrap();
            queue.push(b" world", &mut pool).unwrap();
            queue.push(&[], &mut pool).unwrap();
            queue.push_shared(&Arc::new(vec![b'!'; JOINED + 1]), &mut pool).unwrap();
            assert_eq!(queue.len(), 18 + JOINED + 1);
            assert_eq!(queue.beside(), SHARED_COST);
            let expected = [&b"hello shared world"[..], &[b'!'; JOINED + 1]].concat();
            assert_eq!(drain(&mut queue, step, &mut pool), expected);
            assert_eq!(queue.beside(), 0);
        }
    }

    #[test]
    fn small_frames_behind_the_first_are_joined() {
        let mut pool = Pool::default();
        let mut queue = Queue::default();
        for _ in 0..1000 {
            queue.push_shared(&Arc::new(b"xx".to_vec()), &mut pool).unwrap();
        }
        assert_eq!((queue.segments.len(), queue.shared), (2, 1));
        assert_eq!(drain(&mut queue, 7, &mut pool), [b'x'; 2000]);
    }

    #[test]
    fn a_buffer_that_was_large_once_does_not_wait_with_little_in_it() {
        let mut pool = Pool::default();
        let mut queue = Queue::default();
        pool.give(Vec::with_capacity(SEGMENT));
        queue.push(b"x", &mut pool).unwrap();
        queue.push_shared(&Arc::new(vec![7; JOINED + 1]), &mut pool).unwrap();
        let Some(Segment::Own(first)) = queue.segments.front() else { panic!("it is copied") };
        assert_eq!(first.bytes.capacity(), 1);
    }

    #[test]
    fn emptied_buffers_are_used_again() {
        let mut pool = Pool::default();
        let mut queue = pool.take_queue();
        queue.push(&[7; 1000], &mut pool).unwrap();
        pool.give_queue(queue);
        assert_eq!(pool.buffers.len(), 1);
        assert!(pool.take().capacity() >= 1000);
        assert_eq!(pool.take_queue().len(), 0);
    }
}
