//! How unkind the simulated world is.

/// What goes wrong, and how often. Each probability is from 0 (never) to 1 (always), per occasion.
///
/// ```
/// use lodger::sim::{Chaos, World};
///
/// let mut world = World::new(7);
/// world.chaos(Chaos { short_reads: 0.5, ..Chaos::NONE });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chaos {
    /// A read gets only part of what is there.
    pub short_reads: f64,
    /// A write takes only part of what there is room for.
    pub short_writes: f64,
    /// Bytes between the endpoints and the sockets travel in parts, a turn or more apart.
    pub trickle: f64,
    /// A connection has buffers of 1 to 512 bytes in each direction instead of [`buffer`](Self::buffer).
    pub small_buffers: f64,
    /// Readiness is held back for one to three turns, and reported then, true or not. Keep it below 1.
    pub late: f64,
    /// Readiness is reported that is not there, of a watched descriptor.
    pub spurious: f64,
    /// Readiness is reported twice in a turn.
    pub repeated: f64,
    /// The readiness of a turn is reported in another order than that of registration.
    pub reordered: f64,
    /// Readiness is reported of a number that was removed, may have been closed and may be in use again, or that
    /// never was a descriptor.
    pub stale: f64,
    /// `prepare` is called again, and in the middle of a batch.
    pub early_prepare: f64,
    /// A deadline is served up to 20 ms late ([`run_for`](super::Loop::run_for)).
    pub oversleep: f64,
    /// A reset destroys part of what had been sent before it and not been read.
    pub lost_on_reset: f64,
    /// The host refuses to add a descriptor.
    pub failing_adds: f64,
    /// The host refuses to change what a descriptor is watched for.
    pub failing_changes: f64,
    /// `accept` finds the process out of descriptors (`EMFILE`).
    pub failing_accepts: f64,
    /// What a connection holds in each direction before its writer must wait, in bytes.
    pub buffer: usize,
}

impl Chaos {
    /// A world in which everything goes well.
    pub const NONE: Self = Self {
        short_reads: 0.0,
        short_writes: 0.0,
        trickle: 0.0,
        small_buffers: 0.0,
        late: 0.0,
        spurious: 0.0,
        repeated: 0.0,
        reordered: 0.0,
        stale: 0.0,
        early_prepare: 0.0,
        oversleep: 0.0,
        lost_on_reset: 0.0,
        failing_adds: 0.0,
        failing_changes: 0.0,
        failing_accepts: 0.0,
        buffer: 256 * 1024,
    };

    /// Everything that neither an application nor a peer may notice, all at once and often: an outcome that differs
    /// from that under [`NONE`](Self::NONE) is a mistake of lodger's, timing aside.
    pub const fn wild() -> Self {
        Self {
            short_reads: 0.3,
            short_writes: 0.3,
            trickle: 0.2,
            small_buffers: 0.3,
            late: 0.2,
            spurious: 0.1,
            repeated: 0.2,
            reordered: 0.5,
            stale: 0.3,
            early_prepare: 0.1,
            oversleep: 0.2,
            lost_on_reset: 0.5,
            ..Self::NONE
        }
    }

    /// As [`wild`](Self::wild), with failures that end connections or delay them for longer than a turn. Such a world is
    /// run by [`run_for`](super::Loop::run_for): accepting, for one, goes on only after a while.
    pub const fn hostile() -> Self {
        Self { failing_adds: 0.05, failing_changes: 0.05, failing_accepts: 0.1, ..Self::wild() }
    }
}

impl Default for Chaos {
    fn default() -> Self {
        Self::NONE
    }
}
