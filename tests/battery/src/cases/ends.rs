//! How contexts leave a loop, from outside and from within.

use crate::client::{CLOSE, Client};
use crate::state::Ending;
use crate::town::Town;
use crate::{Adapter, run};
use std::time::Duration;

/// WebSockets by a Close with 1001.
pub fn leaving_says_goodbye_to_everybody<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut sockets: Vec<Client> = (0..5).map(|_| town.websocket()).collect();
        let mut raw = Client::connect(town.place().raw);
        raw.send(b"x");
        assert_eq!(raw.bytes(1), b"X");
        let mut http = town.place().connect();
        http.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(http.response().1, b"hello\n");
        town.stop();
        for socket in &mut sockets {
            let close = socket.next_frame().expect("a Close");
            assert_eq!((close.opcode, close.payload), (CLOSE, 1001_u16.to_be_bytes().to_vec()));
            assert_eq!(socket.rest(), b"");
        }
        assert_eq!((raw.rest(), http.rest()), (Vec::new(), Vec::new()));
    });
    assert_eq!((heard.opened, heard.closed, heard.leaving), (6, 6, 6), "{heard:?}");
    if let Some(counts) = heard.counts {
        assert_eq!(counts.adds - counts.refused, counts.removes, "{counts:?}");
    }
}

/// Handlers hear nothing.
pub fn dropping_closes_everything<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut clients: Vec<Client> = (0..5).map(|_| town.websocket()).collect();
        town.ask(|state, _| state.end_by(Ending::Drop));
        town.stop();
        for client in &mut clients {
            assert_eq!(client.next_frame(), None);
        }
        assert!(town.place().remote.wake().is_err(), "the context is gone");
    });
    assert_eq!((heard.opened, heard.closed), (5, 0));
}

/// In the middle of what is ready, and what has been reported of the context by then comes too late.
pub fn context_that_a_callback_moves_keeps_its_connections<A: Adapter>() {
    if !A::FOREIGN {
        return;
    }
    run::<A>(1, |town| {
        let mut clients: Vec<Client> = (0..10).map(|_| town.websocket()).collect();
        for round in 0..10 {
            let held = town.place().hold();
            let text = format!("round {round}");
            clients[..5].iter_mut().for_each(|client| client.text(&text));
            town.ring(b'm');
            clients[5..].iter_mut().for_each(|client| client.text(&text));
            drop(held);
            for client in &mut clients {
                assert_eq!(client.message(), text.as_bytes());
            }
        }
        clients[0].text("!timer");
        assert_eq!(clients[0].message(), b"timer");
        clients.into_iter().for_each(Client::close);
        if A::HONEST {
            town.place().sleeps_well::<A>();
        }
    });
}

/// In the middle of what is ready, and with another context in the loop.
pub fn context_that_a_callback_ends_is_gone_and_the_loop_runs_on<A: Adapter>() {
    if !(A::FOREIGN && A::SEVERAL) {
        return;
    }
    for (ending, byte) in [(Ending::Leave, b'l'), (Ending::Drop, b'd')] {
        run::<A>(2, move |town| {
            let mut guests = Guests::come(town);
            let held = town.places[1].hold();
            guests.greet();
            town.ring(byte);
            drop(held);
            guests.see_it_end::<A>(town, ending);
        });
    }
}

/// Whether it serves a connection, a deadline, or a post.
pub fn context_that_a_handler_ends_is_gone_and_the_loop_runs_on<A: Adapter>() {
    if !A::ENDED_BY_HANDLERS {
        return;
    }
    type End = fn(&mut Guests, &Town, Ending);
    let ends: [End; 3] = [
        |guests, _, ending| {
            guests.noisy[1].text(if ending == Ending::Leave { "!leave" } else { "!drop" });
        },
        |_, town, ending| {
            town.ask(move |_, io| {
                io.after(Duration::from_millis(1), move |state, _| state.end_now(ending));
            });
        },
        |_, town, ending| town.ask(move |state, _| state.end_now(ending)),
    ];
    for end in ends {
        for ending in [Ending::Leave, Ending::Drop] {
            run::<A>(2, move |town| {
                let mut guests = Guests::come(town);
                let held = town.places[1].hold();
                guests.greet();
                drop(held);
                end(&mut guests, town, ending);
                guests.see_it_end::<A>(town, ending);
            });
        }
    }
}

/// Connections of a context that is going to end, and of one that stays.
struct Guests {
    quiet: Client,
    noisy: Vec<Client>,
    staying: Client,
}

impl Guests {
    fn come(town: &Town) -> Self {
        let noisy = (0..6).map(|_| town.websocket()).collect();
        Self { quiet: town.websocket(), noisy, staying: town.places[1].websocket() }
    }

    fn greet(&mut self) {
        self.noisy.iter_mut().for_each(|client| client.text("hello"));
        self.staying.text("hello");
    }

    #[track_caller]
    fn see_it_end<A: Adapter>(mut self, town: &Town, ending: Ending) {
        let said = self.quiet.next_frame().map(|frame| (frame.opcode, frame.payload));
        let goodbye = (ending == Ending::Leave).then(|| (CLOSE, 1001_u16.to_be_bytes().to_vec()));
        assert_eq!(said, goodbye);
        assert_eq!(self.quiet.rest(), b"");
        // Where something was left unread, the end comes as a reset.
        for client in &mut self.noisy {
            client.rest();
        }
        let [gone, stays] = &town.places[..] else { panic!("two contexts") };
        gone.until_gone();
        assert_eq!(self.staying.message(), b"hello");
        self.staying.echo("still here");
        self.staying.text("!timer");
        assert_eq!(self.staying.message(), b"timer");
        stays.websocket().close();
        stays.sleeps_well::<A>();
    }
}
