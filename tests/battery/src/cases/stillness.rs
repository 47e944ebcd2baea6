//! A loop that stood still judges no peer that has kept its time: what lies in the sockets is looked at first.

use crate::client::{CLOSE, Client, TEXT, UPGRADE, frame};
use crate::handlers::Hall;
use crate::state::State;
use crate::town::{Town, listen, silence};
use crate::{Adapter, PATIENCE, run, secure};
use lodger::{Io, Limits, Site};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a peer has for whatever is waited for, and longer than that.
const LIMIT: Duration = Duration::from_secs(2);
const LONGER: Duration = Duration::from_millis(2600);
/// So many of each kind, and more in all than a loop takes in one batch.
const EACH: usize = 20;

/// In the environment of a process that serves until its input ends.
const SERVES: &str = "LODGER_BATTERY_SERVES";

fn limits() -> Limits {
    Limits {
        handshake: LIMIT,
        head_time: LIMIT,
        body_stall: LIMIT,
        keep_alive: LIMIT,
        closing: LIMIT,
        message_stall: LIMIT,
        ..Limits::default()
    }
}

/// A listener whose connections have little time.
fn impatient(io: &mut Io<State>) -> SocketAddr {
    let site = Site::new().protocol("", Hall).limits(limits());
    let site = match secure::server() {
        Some(server) => site.tls(server),
        None => site,
    };
    let site = io.add_site(site).expect("a site with a protocol");
    listen(io, site).1
}

/// Peers of whom something is waited for, and who are about to do it.
struct Late {
    first_request: Vec<Client>,
    next_request: Vec<Client>,
    content: Vec<Client>,
    message: Vec<Client>,
    close: Vec<Client>,
}

impl Late {
    fn begin(address: SocketAddr) -> Self {
        let all = |begin: fn(&mut Client)| {
            let begun = |_| {
                let mut client = Client::connect(address);
                begin(&mut client);
                client
            };
            (0..EACH).map(begun).collect()
        };
        Self {
            close: all(|client| {
                client.send(UPGRADE);
                client.upgraded();
                client.text("!close");
                assert_eq!(client.next_frame().map(|frame| frame.opcode), Some(CLOSE));
            }),
            message: all(|client| {
                client.send(UPGRADE);
                client.upgraded();
                client.echo("so far so good");
                client.send(&frame(false, TEXT, b"to be "));
            }),
            content: all(|client| {
                client.send(b"POST /mirror HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n123");
            }),
            next_request: all(|client| {
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert!(client.response().0.starts_with("HTTP/1.1 200 "));
            }),
            first_request: all(|client| client.send(b"GET / HTTP/1.1\r\n")),
        }
    }

    /// Does what is waited for.
    fn go_on(&mut self) {
        self.first_request.iter_mut().for_each(|client| client.send(b"Host: localhost\r\n\r\n"));
        self.next_request
            .iter_mut()
            .for_each(|client| client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.content.iter_mut().for_each(|client| client.send(b"456789"));
        self.message.iter_mut().for_each(|client| client.send(&frame(true, 0, b"continued")));
        self.close.iter_mut().for_each(|client| {
            client.send(&frame(true, CLOSE, &1000_u16.to_be_bytes()));
            client.finish();
        });
    }

    /// Looks whether that was heard.
    fn were_heard(self) {
        for mut client in self.first_request.into_iter().chain(self.next_request) {
            assert!(client.response().0.starts_with("HTTP/1.1 200 "));
        }
        for mut client in self.content {
            let (head, content) = client.response();
            assert!(head.starts_with("HTTP/1.1 200 ") && content == b"123456789", "{head}");
        }
        for mut client in self.message {
            assert_eq!(client.message(), b"to be continued");
        }
        for mut client in self.close {
            assert_eq!(client.rest(), b"");
        }
    }
}

/// Whatever the handler does, and whichever peers answer meanwhile.
pub fn handler_that_takes_long_costs_no_peer_its_connection<A: Adapter>() {
    run::<A>(1, |town| {
        let address = town.ask(|_, io| impatient(io));
        let mut late = Late::begin(address);
        let held = town.place().hold();
        late.go_on();
        silence(LONGER);
        drop(held);
        late.were_heard();
    });
}

/// The signal interrupts the sleep of the loop, which then knows of nothing that is ready.
pub fn process_that_was_stopped_costs_no_peer_its_connection<A: Adapter>() {
    if std::env::var_os(SERVES).is_some() {
        return serve::<A>();
    }
    // The certificate of another process is not known here.
    if secure::server().is_some() {
        return;
    }
    let mut server = Server::start();
    let mut late = Late::begin(server.address);
    server.signal(rustix::process::Signal::STOP);
    late.go_on();
    silence(LONGER);
    server.signal(rustix::process::Signal::CONT);
    late.were_heard();
    server.stop();
}

/// Serves until the input ends.
fn serve<A: Adapter>() {
    run::<A>(1, |town: &Town| {
        println!("\nlistening on {}", town.ask(|_, io| impatient(io)));
        let mut nothing = Vec::new();
        std::io::stdin().read_to_end(&mut nothing).expect("a pipe");
    });
}

/// This test, in a process of its own.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let test = std::thread::current().name().expect("a test has a name").to_owned();
        let mut process = Command::new(std::env::current_exe().expect("it runs"))
            .args([&test, "--exact", "--nocapture"])
            .env(SERVES, "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs twice");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let address = output.lines().find_map(|line| line.ok()?.strip_prefix("listening on ")?.parse().ok());
        Self { process, address: address.expect("it listens") }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, signal).expect("it is there");
    }

    fn stop(&mut self) {
        drop(self.process.stdin.take());
        let mut left = PATIENCE.as_millis();
        while self.process.try_wait().expect("a child").is_none() {
            assert!(left > 0, "it goes on");
            silence(Duration::from_millis(1));
            left -= 1;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Over already, unless the test has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
