//! What waits for a peer that does not read, in bytes of the heap.

use crate::tally::{Counted, bytes};
use lodger::ws::{MessageKind, Shared};
use lodger::{ConnId, Context, Cx, Decision, Io, Limits, Request, SendError, Site, ws};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

struct Subscriber;

impl ws::Handler<Option<ConnId>> for Subscriber {
    fn opened(&mut self, cx: &mut Cx<'_, Option<ConnId>>, _: &Request<'_>) {
        *cx.data = Some(cx.id());
    }
}

/// A server with one subscriber, which does not read.
struct Feed {
    context: Context<Option<ConnId>>,
    host: Counted,
    conn: ConnId,
    _far: UnixStream,
}

/// What may wait.
const MOST: usize = 256 * 1024;

impl Feed {
    fn new() -> Self {
        let mut context = Context::builder().build();
        let accept = |_: &Request<'_>, _: &mut Option<ConnId>, _: &mut Io<Option<ConnId>>| {
            Decision::websocket(Subscriber)
        };
        let limits = Limits { send_max: MOST, ..Limits::default() };
        let site = context
            .io()
            .add_site(Site::new().protocol("", accept).limits(limits))
            .expect("a site with a protocol");
        let (near, mut far) = UnixStream::pair().expect("descriptors are left");
        near.set_nonblocking(true).expect("a socket");
        context.io().adopt_http(near.into(), &[], site).expect("a socket is adopted");
        let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        far.write_all(request.as_bytes()).expect("a request fits");
        let mut host = Counted::default();
        let mut conn = None;
        for _ in 0..3 {
            turn(&mut context, &mut host, &mut conn);
        }
        let _ = far.read(&mut [0; 1024]).expect("the server answers");
        Self { context, host, conn: conn.expect("it has opened"), _far: far }
    }

    /// Sends what `send` sends until it is refused, and says by how much the heap has grown then, and how many messages that took.
    fn grows(
        &mut self,
        mut send: impl FnMut(&mut lodger::Conn<'_, Option<ConnId>>) -> bool,
    ) -> (usize, usize) {
        // The kernel's buffer fills up, and what that needs once is there.
        let mut fill = self.context.io().conn(self.conn).expect("it is open");
        while fill.queued() == 0 {
            fill.send(&[0; 30_000][..]).expect("there is room");
        }
        let before = bytes();
        for sent in 0..4 * MOST {
            let mut conn = self.context.io().conn(self.conn).expect("it is open");
            if !send(&mut conn) {
                return ((bytes() - before) as usize, sent);
            }
        }
        panic!("it is never refused");
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.context.leave(&mut self.host, &mut self.conn.into());
    }
}

fn turn(context: &mut Context<Option<ConnId>>, host: &mut Counted, data: &mut Option<ConnId>) {
    let wait = context.prepare(host).sooner(Duration::from_millis(2).into());
    host.wait(wait, context, data);
}

/// Whether it was accepted; any refusal is that of one who has sent too much.
fn accepted(sent: Result<lodger::Flow, SendError>) -> bool {
    match sent {
        Ok(_) => true,
        Err(SendError::Overrun) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A segment, and what the queue itself takes.
const BESIDE: usize = 96 * 1024;

#[test]
fn frames_of_any_size_that_wait_hold_no_more_memory_than_may_be_sent() {
    for size in [0, 2, 100, 511, 512, 513, 600, 2000, 20_000, 100_000] {
        let mut feed = Feed::new();
        let payload = vec![7; size];
        let (held, sent) = feed.grows(|conn| accepted(conn.send_shared(&Shared::new((&payload).into()))));
        println!("{sent} frames of {size} bytes hold {held} bytes");
        assert!(held <= MOST + size + BESIDE, "{sent} frames of {size} bytes hold {held} bytes");
        // What they need beside their bytes is not much of it.
        assert!((sent + 1) * (size + 10) >= MOST / 2, "{sent} frames of {size} bytes");
    }
}

#[test]
fn small_messages_between_large_frames_hold_no_more_memory_than_may_be_sent() {
    let mut feed = Feed::new();
    let (mut at, large) = (0, vec![7; 600]);
    // Buffers that were large once are used again.
    feed.context.io().conn(feed.conn).expect("it is open").send(&[0; 65_000][..]).expect("there is room");
    let (held, sent) = feed.grows(|conn| {
        at += 1;
        accepted(match at % 2 {
            0 => conn.send("x"),
            _ => conn.send_shared(&Shared::new((&large).into())),
        })
    });
    assert!(held <= MOST + BESIDE, "{sent} messages hold {held} bytes");
}

#[test]
fn frames_that_wait_for_the_end_of_a_message_in_pieces_hold_no_more_memory_than_may_be_sent() {
    let mut feed = Feed::new();
    let mut begun = false;
    let (held, sent) = feed.grows(|conn| {
        if !std::mem::replace(&mut begun, true) {
            conn.send_piece(MessageKind::Text, b"begun", false).expect("there is room");
        }
        accepted(conn.send_shared(&Shared::new("xx".into())))
    });
    assert!(held <= MOST + BESIDE, "{sent} frames hold {held} bytes");
}

#[test]
fn what_a_queue_needed_once_is_not_kept_for_the_next() {
    let before = bytes();
    let mut feed = Feed::new();
    let frame = vec![7; 600];
    feed.grows(|conn| accepted(conn.send_shared(&Shared::new((&frame).into()))));
    feed.context.io().conn(feed.conn).expect("it is open").abort();
    for _ in 0..2 {
        turn(&mut feed.context, &mut feed.host, &mut None);
    }
    let mut other = Feed::new();
    let _ = other.context.io().link_count();
    let held = bytes() - before;
    // Two contexts: a receive buffer and a place to gather output each.
    assert!(held < 2 * (512 + 64 + 64) * 1024, "{held} bytes");
}
