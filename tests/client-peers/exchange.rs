//! An HTTP connection: what it is told to ask, and what comes.

use crate::options::{self, Plan, content};
use crate::{State, Teller, Words};
use lodger::http::{self, Fields};
use lodger::{Closed, Cx, Flow};
use std::any::Any;

/// Told `request METHOD OPTION...`, `resume` or `close`.
pub(crate) struct Exchange {
    teller: Teller,
    plan: Plan,
    received: usize,
    digest: sha1_smol::Sha1,
    /// Of the content that is sent in pieces, so much is out.
    sent: usize,
}

impl Exchange {
    pub(crate) fn new(teller: Teller, plan: Plan) -> Self {
        Self { teller, plan, received: 0, digest: sha1_smol::Sha1::new(), sent: 0 }
    }

    /// Sends pieces until there is no room, or no more of them.
    fn pour(&mut self, cx: &mut Cx<'_, State>) {
        let Some(length) = self.plan.pieces else { return };
        let content = content(length);
        while self.sent < length {
            let end = length.min(self.sent + 10_000);
            match cx.write(&content[self.sent..end]) {
                Ok(flow) => {
                    self.sent = end;
                    if flow == Flow::Full {
                        return cx.conn().request_writable();
                    }
                }
                // The server has not said yet that it wants it.
                Err(lodger::SendError::Expecting) => return,
                Err(error) => return self.teller.say(&["not sent", &error.to_string()]),
            }
        }
        self.plan.pieces = None;
        if let Err(error) = cx.conn().end_request() {
            self.teller.say(&["not sent", &error.to_string()]);
        }
    }

    fn ask(
        &mut self,
        cx: &mut Cx<'_, State>,
        method: &str,
        options: &[&str],
    ) -> Result<(), Box<dyn std::error::Error>> {
        let (request, plan) = options::request(method, options)?;
        (self.plan, self.received, self.sent, self.digest) = (plan, 0, 0, sha1_smol::Sha1::new());
        cx.conn().request(request)?;
        self.pour(cx);
        Ok(())
    }
}

impl http::ClientHandler<State> for Exchange {
    fn connected(&mut self, cx: &mut Cx<'_, State>) {
        let version = cx.conn().tls().map_or("no TLS".to_owned(), |facts| facts.version.to_string());
        self.teller.say(&["connected", &version]);
        self.pour(cx);
    }

    fn interim(&mut self, _: &mut Cx<'_, State>, response: &http::ResponseHead<'_>) {
        self.teller.fields(response.fields());
        self.teller.say(&["interim", &response.status().code().to_string()]);
    }

    fn response(&mut self, _: &mut Cx<'_, State>, response: &http::ResponseHead<'_>) {
        self.teller.fields(response.fields());
        let length = response.content_length().map_or("unknown".to_owned(), |length| length.to_string());
        self.teller.say(&["response", &response.status().code().to_string(), &length]);
    }

    fn body(&mut self, cx: &mut Cx<'_, State>, piece: &[u8]) {
        self.received += piece.len();
        self.digest.update(piece);
        if self.plan.pause_at.is_some_and(|most| self.received >= most) {
            self.plan.pause_at = None;
            cx.conn().pause();
            self.teller.say(&["paused", &self.received.to_string()]);
        }
    }

    fn body_complete(&mut self, _: &mut Cx<'_, State>, trailers: &Fields) {
        for (name, value) in trailers.iter() {
            self.teller.say(&["trailer", name, &String::from_utf8_lossy(value)]);
        }
        self.teller.say(&["complete", &self.received.to_string(), &self.digest.digest().to_string()]);
    }

    fn writable(&mut self, cx: &mut Cx<'_, State>) {
        self.pour(cx);
    }

    fn event(&mut self, cx: &mut Cx<'_, State>, event: Box<dyn Any>) {
        let Ok(words) = event.downcast::<Words>() else { return };
        let words: Vec<&str> = words.0.iter().map(String::as_str).collect();
        let done = match &words[..] {
            ["request", method, options @ ..] => self.ask(cx, method, options),
            ["resume"] => {
                cx.conn().resume();
                Ok(())
            }
            ["close"] => {
                cx.close();
                Ok(())
            }
            _ => Err("no such word".into()),
        };
        if let Err(error) = done {
            self.teller.say(&["mistake", &error.to_string()]);
        }
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        self.teller.closed(cx, &closed);
    }
}
