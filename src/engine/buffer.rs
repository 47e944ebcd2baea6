//! What waits to be sent on a link, and the spare buffers that all links share.

use super::timers::{Tick, TimerId};
use crate::ws::{Shared, mask};
use std::collections::VecDeque;
use std::io::IoSlice;

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
    Shared(Shared, usize),
}

impl Segment {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Own(kept) => kept.rest(),
            Self::Shared(frame, start) => &frame.bytes()[*start..],
        }
    }
}

/// Output that the kernel has not taken yet.
#[derive(Default)]
pub(crate) struct Queue {
    segments: VecDeque<Segment>,
    len: usize,
    /// When the peer last took something, or when the queue began to wait.
    pub(crate) moved: Tick,
    /// When it will have waited for too long.
    pub(crate) stall_timer: TimerId,
}

/// How many pieces one gathered write takes.
const PIECES: usize = 32;
/// Small output of the link being served is gathered up to here.
const GATHERED: usize = 64 * 1024;
/// A segment of our own grows to this size before a new one is begun.
const SEGMENT: usize = 64 * 1024;

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, bytes: &[u8], pool: &mut Pool) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        if let Some(Segment::Own(last)) = self.segments.back_mut()
            && last.bytes.len() + bytes.len() <= SEGMENT.max(last.bytes.capacity())
        {
            last.bytes.extend_from_slice(bytes);
            return;
        }
        let mut own = pool.take();
        own.extend_from_slice(bytes);
        self.segments.push_back(Segment::Own(Kept { bytes: own, start: 0 }));
    }

    pub(crate) fn push_shared(&mut self, frame: Shared, start: usize) {
        self.len += frame.bytes().len() - start;
        self.segments.push_back(Segment::Shared(frame, start));
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
            if let Some(Segment::Own(kept)) = self.segments.pop_front() {
                pool.give(kept.bytes);
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
            queue.push(b"hello ", &mut pool);
            queue.push_shared(Shared::from_bytes(b"shared".to_vec()), 2);
            queue.push(b" world", &mut pool);
            queue.push(&[], &mut pool);
            assert_eq!(queue.len(), 16);
            assert_eq!(drain(&mut queue, step, &mut pool), b"hello ared world");
        }
    }

    #[test]
    fn emptied_buffers_are_used_again() {
        let mut pool = Pool::default();
        let mut queue = pool.take_queue();
        queue.push(&[7; 1000], &mut pool);
        pool.give_queue(queue);
        assert_eq!(pool.buffers.len(), 1);
        assert!(pool.take().capacity() >= 1000);
        assert_eq!(pool.take_queue().len(), 0);
    }
}
