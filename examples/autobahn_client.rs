//! The client that the Autobahn suite runs against: sends back what the suite's server sends, case after case.
//!
//! ```text
//! AUTOBAHN_URL=ws://127.0.0.1:9001 AUTOBAHN_AGENT=lodger cargo run --release --example autobahn_client
//! ```
//!
//! For `wss:`, AUTOBAHN_CA names a file with the certificates to trust; `--insecure` trusts any.

use lodger::ws::{self, CloseCode, Deflate, Message};
use lodger::{CloseReason, Closed, Connect, Context, Cx, Flow, Io, tls};
use lodger_poll::Loop;
use std::error::Error;
use std::process::ExitCode;

struct Suite {
    url: String,
    agent: String,
    tls: Option<tls::Client>,
    /// How many cases there are.
    cases: u32,
    /// The last that has begun.
    case: u32,
    failed: bool,
}

impl Suite {
    fn connect(&self, path: &str) -> Connect {
        let connect = Connect::to(format!("{}{path}", self.url)).deflate(Deflate::default());
        match &self.tls {
            Some(client) => connect.tls(client.clone()),
            None => connect,
        }
    }

    /// Begins the next case; after the last, has the reports written. One at a time: the suite measures how long each takes.
    fn proceed(&mut self, io: &mut Io<Self>) {
        if self.case < self.cases {
            self.case += 1;
            let path = format!("/runCase?case={}&agent={}", self.case, self.agent);
            io.connect(self.connect(&path), Box::new(Case));
        } else {
            io.connect(self.connect(&format!("/updateReports?agent={}", self.agent)), Box::new(Reports));
        }
    }

    /// What a case is about may well end the connection, but not keep it from opening.
    fn judge(&mut self, what: &str, closed: &Closed) {
        if let CloseReason::Connect(error) = &closed.reason {
            eprintln!("{what}: {error}");
            self.failed = true;
        }
    }
}

/// Asks how many cases there are.
struct Count;

impl ws::Handler<Suite> for Count {
    fn message(&mut self, cx: &mut Cx<'_, Suite>, message: Message<'_>) {
        match std::str::from_utf8(message.as_bytes()).ok().and_then(|text| text.parse().ok()) {
            Some(cases) => cx.data.cases = cases,
            None => cx.conn().close_with(CloseCode::INVALID_PAYLOAD, "that is no number of cases"),
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Suite>, closed: Closed) {
        cx.data.judge("getCaseCount", &closed);
        if cx.data.cases > 0 {
            cx.data.proceed(cx.io);
        } else {
            eprintln!("the server told no number of cases");
            cx.data.failed = true;
        }
    }
}

/// Echoes until the server has seen enough.
struct Case;

impl ws::Handler<Suite> for Case {
    fn message(&mut self, cx: &mut Cx<'_, Suite>, message: Message<'_>) {
        // A server that does not read what it gets is not read from either.
        if cx.send(message) == Ok(Flow::Full) {
            cx.conn().pause();
            cx.conn().request_writable();
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, Suite>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, Suite>, closed: Closed) {
        let what = format!("case {}", cx.data.case);
        cx.data.judge(&what, &closed);
        cx.data.proceed(cx.io);
    }
}

/// Has the reports written; the server closes when they are.
struct Reports;

impl ws::Handler<Suite> for Reports {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Suite>, closed: Closed) {
        cx.data.judge("updateReports", &closed);
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let tls = match (std::env::args().nth(1).as_deref(), std::env::var_os("AUTOBAHN_CA")) {
        (Some("--insecure"), _) => Some(tls::Client::builder().dangerous().accept_any_certificate().build()?),
        (Some(other), _) => return Err(format!("no such option: {other}").into()),
        (None, Some(file)) => Some(tls::Client::builder().roots_file(file).build()?),
        (None, None) => None,
    };
    let mut suite = Suite {
        url: variable("AUTOBAHN_URL")?.trim_end_matches('/').to_owned(),
        agent: variable("AUTOBAHN_AGENT")?,
        tls,
        cases: 0,
        case: 0,
        failed: false,
    };
    let mut context = Context::new();
    context.io().connect(suite.connect("/getCaseCount"), Box::new(Count));
    Loop::new().run(&mut context, &mut suite)?;
    Ok(!suite.failed)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("autobahn_client: {error}");
            ExitCode::FAILURE
        }
    }
}
