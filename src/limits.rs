//! Every size and every time that bounds what a peer, or a mistake, can make lodger do.
//!
//! ```
//! use lodger::Limits;
//! use std::time::Duration;
//!
//! let limits = Limits { message: 64 * 1024, ping_interval: Some(Duration::from_secs(20)), ..Limits::default() };
//! assert_eq!(limits.pong_wait, Duration::from_secs(10));
//! ```

use std::time::Duration;

/// The bounds of a site's connections. A site has its own; adopted and raw ones take those they are given.
///
/// Sizes are in bytes. A time of `None` means that there is no such limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The head of a request: request line and fields (RFC 9112, section 2.1). Beyond it the answer is 431, or 414 when it is
    /// the target that is too long. For a client, the head of a response. Default 16 KiB: twice what browsers and proxies are
    /// known to send.
    pub head: usize,
    /// Fields in a head, trailer fields too. Beyond it the answer is 431. Default 100.
    pub fields: usize,
    /// The content of a request, where the handler does not take it in pieces under its own control. Beyond it the answer
    /// is 413. Default: no limit, since content is handed over in pieces and not kept.
    pub content: Option<u64>,
    /// A WebSocket message, received whole. Beyond it the handler's `too_large` is called and the peer gets Close 1009.
    /// Default 16 MiB. Messages received in pieces are not bounded by it.
    pub message: usize,
    /// The payload that one WebSocket frame may announce, also when received in pieces. Default: no limit of its own.
    pub frame: Option<u64>,
    /// From how many queued bytes on `send` answers [`Flow::Full`](crate::Flow::Full), conn by conn. So many
    /// bytes of answers to what was received end receiving, until half of them are left
    /// ([`Conn::read_when_full`](crate::Conn::read_when_full)). Default 64 KiB.
    pub send_high_water: usize,
    /// How much may wait before `send` refuses, conn by conn: the bytes, and what they take in memory beside themselves. Small
    /// messages are joined and take next to nothing; a [`Shared`](crate::ws::Shared) frame of more than 512 bytes counts whole for
    /// each conn that it waits for, since that one may be the last to have it, and for some 300 bytes more. One message may go beyond
    /// the limit, another if it answers what was received; what a call gathers before it writes (64 KiB at most) is not counted, nor is what has been written of the
    /// segment in front (64 KiB, or one message), which is let go when it has been written to its end. Default 1 MiB.
    pub send_max: usize,
    /// From accepting a connection, or from the request's head, until a decision on an upgrade has been made and sent.
    /// Default 10 s.
    pub handshake: Duration,
    /// Reading one request head, from its first byte. Default 10 s (slow-header attacks).
    pub head_time: Duration,
    /// The content of a request: the longest time without a byte. Default 30 s.
    pub body_stall: Duration,
    /// A WebSocket message that has begun and is not complete: the longest time without a byte of it, also where it is received in
    /// pieces; Pings, and frames without payload, are none. Beyond it the peer gets Close 1008. It stands still while reading is
    /// paused. Default 30 s, as `body_stall`: what is held for the message waits for nobody.
    pub message_stall: Duration,
    /// How long a handler may take to begin its response ([`Cx::respond`](crate::Cx::respond)), from when the request is complete
    /// and its content was handed over. Then the answer is 503 and the connection ends
    /// ([`Timeout::BeginResponse`](crate::Timeout::BeginResponse)). A response that has begun, an event stream for one, may go on
    /// for ever. Default 120 s: longer than the proxies in front usually wait for a response (60 s for most, 100 s for some), so
    /// that it only ends what nobody waits for any more. A long poll that is to last longer needs more.
    pub begin_response: Duration,
    /// An HTTP client has ended its direction and its exchange has nothing to send: how long until the exchange ends
    /// ([`Timeout::HalfClosed`](crate::Timeout::HalfClosed)). It begins anew with each piece of the response. Such a client has left
    /// or only says that there are no more requests, and nothing that it sends tells which of the two (RFC 9112, section 9.6);
    /// writing does, and a handler that has something to say within this time is heard by who is still there. Default 10 s: what
    /// a handshake may take, and long enough for most answers.
    pub half_closed: Duration,
    /// A client's request: how long after the last of it the head of the response may take. Default 60 s.
    pub response: Duration,
    /// How long an HTTP connection without a request is kept, a client's too. Default 60 s.
    pub keep_alive: Duration,
    /// The closing handshake, and the lingering close of HTTP (RFC 9112, section 9.6). Also how long a handler that has closed
    /// within the content of its response may take to complete it. Default 5 s.
    pub closing: Duration,
    /// Queued output: the longest time in which the peer takes nothing. Default 30 s.
    pub write_stall: Duration,
    /// After how long without anything received a Ping is sent. Default: none.
    pub ping_interval: Option<Duration>,
    /// How long after a Ping the peer may stay silent before the connection is dropped. Default 10 s.
    pub pong_wait: Duration,
    /// After how long without a message, in either direction, a WebSocket connection is closed with 1001. Pings and
    /// Pongs are no messages. Default: never.
    pub idle: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 16 * 1024,
            fields: 100,
            content: None,
            message: 16 * 1024 * 1024,
            frame: None,
            send_high_water: 64 * 1024,
            send_max: 1024 * 1024,
            handshake: Duration::from_secs(10),
            head_time: Duration::from_secs(10),
            body_stall: Duration::from_secs(30),
            message_stall: Duration::from_secs(30),
            begin_response: Duration::from_secs(120),
            half_closed: Duration::from_secs(10),
            response: Duration::from_secs(60),
            keep_alive: Duration::from_secs(60),
            closing: Duration::from_secs(5),
            write_stall: Duration::from_secs(30),
            ping_interval: None,
            pong_wait: Duration::from_secs(10),
            idle: None,
        }
    }
}
