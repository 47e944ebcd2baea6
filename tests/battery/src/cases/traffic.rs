//! What goes through connections, and how fast.

use crate::client::{BINARY, CLOSE, Client, PING, PONG, TEXT, UPGRADE, frame};
use crate::handlers::CONTENT;
use crate::{Adapter, run};
use lodger::Limits;
use std::env;
use std::thread;

/// One of each kind.
pub fn websocket_http_and_raw_connections_are_served_and_end_in_order<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut socket = town.websocket();
        for text in ["one", "two", "three"] {
            socket.echo(text);
        }
        socket.close();

        let mut http = town.place().connect();
        for _ in 0..2 {
            http.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let (head, content) = http.response();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(content, b"hello\n");
        }
        http.send(
            b"POST /mirror HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nConnection: close\r\n\r\nmir",
        );
        http.send(b"rors");
        assert_eq!(http.response().1, b"mirrors");
        assert_eq!(http.rest(), b"");
        drop(http);

        let mut raw = Client::connect(town.place().raw);
        raw.send(b"quiet");
        assert_eq!(raw.bytes(5), b"QUIET");
        raw.send(b" please");
        raw.finish();
        assert_eq!(raw.rest(), b" PLEASE");
        town.until_links(2);
    });
    assert_eq!((heard.opened, heard.closed), (3, 3), "{heard:?}");
}

/// Up to many times what one read takes.
pub fn large_and_fragmented_messages_come_back_whole<A: Adapter>() {
    run::<A>(1, |town| {
        let mut client = town.websocket();
        for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 5 << 20] {
            let message = pattern(length);
            let mut writer = client.writer();
            let sent = message.clone();
            let writing = thread::spawn(move || writer.binary(&sent));
            assert!(client.message() == message, "{length} bytes");
            writing.join().expect("it was sent");
        }
        // Fragments, with a Ping between them.
        client.send(&frame(false, TEXT, b"in "));
        client.send(&frame(true, PING, b"there?"));
        client.send(&frame(false, 0, b"three "));
        client.send(&frame(true, 0, b"pieces"));
        let pong = client.next_frame().expect("a Pong");
        assert_eq!((pong.opcode, pong.payload), (PONG, b"there?".to_vec()));
        assert_eq!(client.message(), b"in three pieces");
        // Byte by byte, in segments of their own as far as the system keeps them apart.
        for byte in frame(true, TEXT, b"slowly") {
            client.send(&[byte]);
            town.ask(|_, _| {});
        }
        assert_eq!(client.message(), b"slowly");
        // Many in one segment.
        let many: Vec<u8> = (0..500).flat_map(|at: u32| frame(true, BINARY, &at.to_be_bytes())).collect();
        client.send(&many);
        for at in 0..500_u32 {
            assert_eq!(client.message(), at.to_be_bytes());
        }
        client.close();
    });
}

/// Backpressure from the peer to whoever sends to it.
pub fn peer_that_does_not_read_is_not_read_from_and_loses_nothing<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut client = town.websocket();
        let message = pattern(32 * 1024);
        let mut writer = client.writer();
        let sent = message.clone();
        // More than the buffers of both sides hold, so that only a peer that reads gets all of it.
        let writing = thread::spawn(move || (0..512).for_each(|_| writer.binary(&sent)));
        town.until("output is full", |state, _| state.heard.full > 0);
        for at in 0..512 {
            assert!(client.message() == message, "message {at}");
        }
        writing.join().expect("all was sent");
        client.close();
    });
    let limits = Limits::default();
    assert!(heard.most_queued < limits.send_high_water + 64 * 1024, "{heard:?}");
}

/// Backpressure by `writable`.
pub fn content_is_made_no_faster_than_the_peer_takes_it<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut client = town.place().connect();
        // Taken for the peer's own buffer alone it would be no test of ours.
        client.send(b"GET /content HTTP/1.1\r\nHost: localhost\r\n\r\n");
        town.until("it waits for the peer", |state, io| {
            state.heard.full > 0 && io.links().any(|link| link.queued > 0)
        });
        let (head, content) = client.response();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(content.len() == CONTENT && content.iter().all(|&byte| byte == b'c'));
    });
    assert_eq!(heard.made, CONTENT);
}

/// Nor is it watched meanwhile.
pub fn paused_connection_delivers_nothing_until_it_is_resumed<A: Adapter>() {
    run::<A>(1, |town| {
        let (mut paused, mut other) = (town.websocket(), town.websocket());
        paused.text("!pause");
        town.until("it is paused", |state, _| state.heard.paused.len() == 1);
        paused.text("later");
        let before = town.ask(|state, _| state.heard.messages);
        for _ in 0..10 {
            other.echo("meanwhile");
        }
        assert_eq!(town.ask(|state, _| state.heard.messages), before + 10);
        town.ask(|state, io| {
            let id = state.heard.paused.pop().expect("it is paused");
            io.conn(id).expect("it is there").resume();
        });
        assert_eq!(paused.message(), b"later");
        paused.close();
        other.close();
    });
}

/// As many as `LODGER_BATTERY_CONNECTIONS` says.
pub fn thousands_of_connections_are_served<A: Adapter>() {
    let wanted =
        env::var("LODGER_BATTERY_CONNECTIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let allowed = limit.map_or(usize::MAX, |limit| (limit.saturating_sub(100) / 2) as usize);
    let count = wanted.min(allowed);
    let heard = run::<A>(1, move |town| {
        // They come in crowds that are smaller than what may wait for its handshake; all greet at once, twice.
        let mut clients: Vec<Client> = Vec::new();
        while clients.len() < count {
            let from = clients.len();
            clients.extend((from..count.min(from + 250)).map(|_| town.place().connect()));
            for client in &mut clients[from..] {
                client.send(UPGRADE);
            }
            for client in &mut clients[from..] {
                client.upgraded();
            }
        }
        for round in 0..2 {
            for (at, client) in clients.iter_mut().enumerate() {
                client.text(&format!("{at} {round}"));
            }
            for (at, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.message(), format!("{at} {round}").as_bytes());
            }
        }
        assert_eq!(town.ask(|_, io| io.link_count()), count + 2);
        for client in &mut clients {
            client.send(&frame(true, CLOSE, &[]));
        }
        for client in &mut clients {
            assert_eq!(client.next_frame().map(|frame| frame.opcode), Some(CLOSE));
        }
        drop(clients);
        town.until_links(2);
    });
    assert_eq!((heard.opened, heard.closed), (count, count));
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at ^ (at >> 8)) as u8).collect()
}
