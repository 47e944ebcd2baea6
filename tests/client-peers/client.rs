//! A client for tests with other people's servers. What it is to do comes by its standard input, a line for each step, and what
//! comes of it goes to its standard output; the parts of a line are separated by tabs.
//!
//! ```text
//! client-peers-client [NAME=ADDRESS,ADDRESS... | NAME=never]...
//! ```
//!
//! With arguments these are all the names that resolve, and `never` is one whose answer never comes; without, the system is asked.
//!
//! ```text
//! NUMBER  ws    URL  OPTION...           opens a WebSocket, which is known by its number from then on
//! NUMBER  http  METHOD  URL  OPTION...   makes a request
//! NUMBER  WORD...                        goes to the handler of that connection
//! ```

mod exchange;
mod names;
mod options;
mod socket;

use lodger::{ConnId, Context, Cx};
use lodger_poll::PollArray;
use std::collections::HashMap;
use std::error::Error;
use std::io::Read;

/// The connections by their numbers.
#[derive(Default)]
struct State(HashMap<String, ConnId>);

/// A line for the handler of a connection.
struct Words(Vec<String>);

/// Where a connection's outcome and events are told.
struct Teller(String);

impl Teller {
    fn say(&self, words: &[&str]) {
        println!("{}\t{}", self.0, words.join("\t"));
    }

    fn fields<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a [u8])>) {
        for (name, value) in fields {
            self.say(&["field", &name.to_ascii_lowercase(), &String::from_utf8_lossy(value)]);
        }
    }

    fn closed(&self, cx: &mut Cx<'_, State>, closed: &lodger::Closed) {
        if let lodger::CloseReason::Connect(error) = &closed.reason
            && let lodger::ConnectError::Status(refusal) = &**error
        {
            self.fields(refusal.fields.iter());
        }
        cx.data.0.remove(&self.0);
        self.say(&["closed", &closed.reason.to_string(), &format!("{:?}", closed.reason)]);
    }
}

fn obey(context: &mut Context<State>, state: &mut State, line: &str) -> Result<(), Box<dyn Error>> {
    let words: Vec<&str> = line.split('\t').collect();
    let (number, words) = words.split_first().ok_or("an empty line")?;
    let teller = Teller((*number).to_owned());
    let id = match words {
        ["ws", url, options @ ..] => {
            let connect = options::connect(url, options)?;
            context.io().connect(connect, Box::new(socket::Socket::new(teller)))
        }
        ["http", method, url, options @ ..] => {
            let connect = options::connect(url, options)?;
            let (request, plan) = options::request(method, options)?;
            context.io().connect_http(connect, request, Box::new(exchange::Exchange::new(teller, plan)))
        }
        words => {
            let words = Words(words.iter().map(|&word| word.to_owned()).collect());
            // It may have ended meanwhile.
            if let Some(&id) = state.0.get(*number) {
                let _ = context.io().notify(id, Box::new(words));
            }
            return Ok(());
        }
    };
    state.0.insert((*number).to_owned(), id);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let mut context = match names.is_empty() {
        true => Context::new(),
        false => Context::builder().resolver(names::Table::parse(&names)?).build(),
    };
    let mut state = State::default();
    let mut array = PollArray::new();
    array.insert_foreign(0, libc::POLLIN)?;
    let mut input = Vec::new();
    'running: loop {
        let wait = context.prepare(&mut array);
        array.wait(wait)?;
        while let Some(own) = array.serve(&mut context, &mut state) {
            let mut piece = [0; 4096];
            match std::io::stdin().lock().read(&mut piece)? {
                0 => break 'running,
                length => input.extend_from_slice(&piece[..length]),
            }
            debug_assert_eq!(own.fd, 0);
        }
        while let Some(end) = input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            obey(&mut context, &mut state, std::str::from_utf8(&line[..end])?)?;
        }
        context.service_timeouts(&mut state);
    }
    context.leave(&mut array, &mut state);
    Ok(())
}
