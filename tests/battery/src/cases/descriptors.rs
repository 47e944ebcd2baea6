//! Descriptors that come and go, are adopted, or are refused.

use crate::client::{Client, UPGRADE};
use crate::handlers::Lines;
use crate::state::State;
use crate::town::listen;
use crate::{Adapter, run};
use lodger::{Interest, Io};
use std::fs::File;
use std::io::{ErrorKind, Write, pipe};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

/// What it has accepted stays.
pub fn listener_comes_and_goes_while_the_loop_runs<A: Adapter>() {
    run::<A>(1, |town| {
        let site = town.place().site;
        let mut kept = Vec::new();
        for round in 0..3 {
            let (listener, address) = town.ask(move |_, io| listen(io, site));
            let mut client = Client::connect(address);
            client.send(UPGRADE);
            client.upgraded();
            client.echo("through the new door");
            kept.push(client);
            town.ask(move |_, io| io.close_listener(listener));
            town.until_links(3 + round);
            let refused = TcpStream::connect(address).map(drop).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
        }
        for mut client in kept {
            client.echo("still here");
            client.close();
        }
        town.websocket().close();
    });
}

/// A pipe, of which the handler reads one byte at each call.
pub fn adopted_descriptor_is_watched_and_given_back<A: Adapter>() {
    run::<A>(1, |town| {
        let (reader, mut writer) = pipe().expect("descriptors are left");
        town.ask(move |_, io| adopt(io, reader));
        writer.write_all(b"byte by byte").expect("somebody reads");
        town.until("all is read", |state, _| state.heard.bytes == b"byte by byte");
        writer.write_all(b".not for us").expect("somebody reads");
        town.until("it is given back", |state, _| state.heard.released == 1);
        assert_eq!(town.ask(|state, _| state.heard.bytes.len()), 12);
        town.until_links(2);
    });
}

/// epoll takes no device of this kind, poll(2) takes it; a host of [`Mischief`](crate::Mischief) can be told to refuse.
pub fn refused_descriptor_ends_only_its_own_link<A: Adapter>() {
    let heard = run::<A>(1, |town| {
        let mut bystander = town.websocket();
        let base = town.ask(|_, io| io.link_count());
        town.ask(|_, io| adopt(io, File::open("/dev/null").expect("it is there")));
        town.until("its handler hears of it", |state, _| state.heard.closed == 1);
        town.until_links(base);
        bystander.echo("unharmed");
        if town.ask(|state, _| state.can_refuse()) {
            for _ in 0..5 {
                town.ask(|state, _| state.refuse(1));
                let mut refused = town.place().connect();
                assert_eq!(refused.rest(), b"");
                bystander.echo("unharmed");
                town.until_links(base);
            }
            // A conn that has a handler hears of it.
            town.ask(|state, io| {
                state.refuse(1);
                let (reader, _writer) = pipe().expect("descriptors are left");
                adopt(io, reader);
            });
            town.until("its handler hears of it", |state, _| state.heard.refused == 1);
        }
        let mut next = town.websocket();
        next.echo("welcome");
        next.close();
        bystander.close();
    });
    let adopted = if heard.counts.is_some_and(|counts| counts.refused > 1) { 2 } else { 1 };
    assert_eq!((heard.opened, heard.closed), (2, 2 + adopted), "{heard:?}");
}

/// A descriptor that is read byte by byte.
fn adopt(io: &mut Io<State>, fd: impl Into<OwnedFd>) {
    let fd = fd.into();
    let own = File::from(fd.try_clone().expect("descriptors are left"));
    assert!(io.adopt(fd, Interest::READ, Box::new(Lines(own))).is_ok());
}
