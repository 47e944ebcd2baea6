//! What an application sees of permessage-deflate on its connections, and what it can change there.

use super::Parameters;
use super::link::{Deflated, Pools};
use std::fmt;
use std::ops::AddAssign;

/// Payload before and after, in bytes, of the messages that were compressed; the others are not counted.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Volume {
    /// Sent, before it was compressed.
    pub sent: u64,
    /// What was sent of that.
    pub sent_compressed: u64,
    /// Received, after it was inflated.
    pub received: u64,
    /// What was received of that.
    pub received_compressed: u64,
}

impl AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.sent_compressed += other.sent_compressed;
        self.received += other.received;
        self.received_compressed += other.received_compressed;
    }
}

/// permessage-deflate in a context, as [`Io::deflate_metrics`](crate::Io::deflate_metrics) shows it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Metrics {
    /// Connections on which it was agreed on.
    pub connections: usize,
    /// Bytes that compressors and decompressors take now, idle ones included.
    pub memory: usize,
    /// Bytes that those of connections with context takeover may come to.
    pub reserved: usize,
    /// The most that this may be ([`Builder::max_deflate_memory`](crate::Builder::max_deflate_memory)); what does not fit has
    /// no context takeover.
    pub limit: usize,
    /// What was sent and received, by connections that are gone too.
    pub volume: Volume,
}

/// permessage-deflate on one connection: [`Conn::deflate`](crate::Conn::deflate). What is set here takes effect with the next
/// message that begins; with it, for one message only: set, send, set back.
///
/// ```
/// use lodger::{Cx, ws};
///
/// struct Feed;
///
/// impl<D> ws::Handler<D> for Feed {
///     fn opened(&mut self, cx: &mut Cx<'_, D>, _: &lodger::Request<'_>) {
///         if let Some(mut deflate) = cx.conn().deflate() {
///             deflate.set_level(9);
///             deflate.set_threshold(4096);
///         }
///     }
/// }
/// ```
#[doc(alias("lws_set_extension_option", "deflateParams"))]
pub struct Live<'a> {
    deflated: &'a mut Deflated,
    pools: &'a mut Pools,
}

impl<'a> Live<'a> {
    pub(crate) fn new(deflated: &'a mut Deflated, pools: &'a mut Pools) -> Self {
        Self { deflated, pools }
    }

    /// What was agreed on.
    pub fn parameters(&self) -> Parameters {
        self.deflated.parameters
    }

    /// How hard to try, from 1 (fast) to 9 (small); what is outside counts as the nearest.
    #[doc(alias("compression_level", "deflateParams"))]
    pub fn set_level(&mut self, level: u8) {
        self.deflated.deflater.set_level(level);
    }

    /// Messages of fewer bytes go uncompressed.
    pub fn set_threshold(&mut self, bytes: usize) {
        self.deflated.deflater.set_threshold(bytes);
    }

    /// Whether messages are compressed at all; they are unless this says otherwise. What the peer sends is inflated in any case.
    pub fn set_compress(&mut self, on: bool) {
        self.deflated.deflater.set_compress(on);
    }

    /// Gives up the compressor of a connection that will be idle for a while; it is made anew when it is needed, and refers to
    /// nothing before. The decompressor cannot be given up while the peer may refer to what it sent before.
    #[doc(alias = "deflateEnd")]
    pub fn release(&mut self) {
        self.deflated.deflater.release(&mut self.pools.compressors);
    }

    /// What was sent and received.
    pub fn volume(&self) -> Volume {
        self.deflated.volume()
    }

    /// Bytes that its own compressor and decompressor take now: 0 without context takeover, between messages.
    pub fn memory(&self) -> usize {
        self.deflated.memory()
    }
}

impl fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("parameters", &self.parameters()).finish_non_exhaustive()
    }
}
