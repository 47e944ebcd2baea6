//! One conversation that an application handles.

use super::link::NO_CONN;
use super::store::Key;
use super::timers::TimerId;
use crate::handler::{CloseReason, Notice};

/// The place of no link: the link is gone, and `closed` is on its way.
pub(crate) const NO_LINK: u32 = NO_CONN;
/// The place of no protocol: raw connections and adopted descriptors.
pub(crate) const NO_PROTOCOL: u32 = u32::MAX;

pub(crate) struct Conn {
    pub(crate) link: u32,
    pub(crate) protocol: u32,
    /// Where it stands among the members of its protocol.
    pub(crate) member: u32,
    pub(crate) timer: TimerId,
    pub(crate) cold: Option<Box<Cold>>,
    /// `writable` was asked for and has not come yet.
    pub(crate) writable_wanted: bool,
    /// The timer has expired, and `timer` is on its way.
    pub(crate) timer_due: bool,
    /// Its handshake is not complete: what it is to hear is held back until `opened`.
    pub(crate) unopened: bool,
    /// It counts among the handshakes that are under way.
    pub(crate) counted: bool,
    /// `peer_ended` was told, or is on its way.
    pub(crate) heard_end: bool,
    /// Its end is decided and `closed` is on its way; nothing but that follows.
    pub(crate) ended: bool,
    /// How what it reads depends on what it sends.
    pub(crate) hold: Hold,
}

bitflags::bitflags! {
    /// How what a conn reads depends on what it sends (`engine/flow.rs`).
    #[derive(Clone, Copy)]
    pub(crate) struct Hold: u8 {
        /// It is not read until its answers have gone out.
        const HELD = 1;
        /// The user has paused it while it was held.
        const PAUSED = 1 << 1;
        /// It is read however much waits: its user wants that.
        const READS_ON = 1 << 2;
        /// It is read in smaller pieces because it was held, and for no other reason.
        const SMALL_READS = 1 << 3;
        /// It was told that a broadcast has left it out, and had no room since.
        const MISSED = 1 << 4;
    }
}

/// What few conns need.
#[derive(Default)]
pub(crate) struct Cold {
    /// Why it will have ended, where that is known before the end.
    pub(crate) reason: Option<CloseReason>,
    /// Bytes that were accepted for sending and lost when writing failed.
    pub(crate) lost: usize,
    /// How many sends were refused because too much waited.
    pub(crate) refused: u64,
    /// Who is told when it ends.
    pub(crate) parent: Option<Key>,
    /// It is to be paused as soon as there is something to pause.
    pub(crate) pausing: bool,
    /// How a client's conn comes to its link.
    pub(crate) connecting: Option<Key>,
    /// What it hears once it has opened.
    pub(crate) held: Vec<Notice>,
}

impl Conn {
    pub(crate) fn new(link: u32) -> Self {
        Self {
            link,
            protocol: NO_PROTOCOL,
            member: 0,
            timer: TimerId::NONE,
            cold: None,
            writable_wanted: false,
            timer_due: false,
            unopened: false,
            counted: false,
            heard_end: false,
            ended: false,
            hold: Hold::empty(),
        }
    }

    /// How many sends were refused because too much waited.
    pub(crate) fn refused(&self) -> u64 {
        self.cold.as_ref().map_or(0, |cold| cold.refused)
    }

    pub(crate) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Says why the conn will have ended. What is said first stands.
    pub(crate) fn set_reason(&mut self, reason: CloseReason) {
        self.cold().reason.get_or_insert(reason);
    }
}
