//! What a client hears that asks for TLS where there is none.

use lodger::{CloseReason, Closed, Connect, ConnectError, Context, Cx, http, raw, ws};
use lodger_poll::PollArray;

struct Note;

fn note(errors: &mut Vec<ConnectError>, closed: Closed) {
    let CloseReason::Connect(error) = closed.reason else { panic!("{:?}", closed.reason) };
    errors.push(*error);
}

impl ws::Handler<Vec<ConnectError>> for Note {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Vec<ConnectError>>, closed: Closed) {
        note(cx.data, closed);
    }
}

impl http::ClientHandler<Vec<ConnectError>> for Note {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Vec<ConnectError>>, closed: Closed) {
        note(cx.data, closed);
    }
}

impl raw::Handler<Vec<ConnectError>> for Note {
    fn closed(self: Box<Self>, cx: &mut Cx<'_, Vec<ConnectError>>, closed: Closed) {
        note(cx.data, closed);
    }
}

#[test]
#[ignore = "other packages of the workspace turn TLS on: run it with this package alone"]
fn a_url_that_asks_for_tls_is_refused_by_name_where_there_is_none() {
    let (mut context, mut errors, mut array) = (Context::new(), Vec::new(), PollArray::new());
    let io = context.io();
    io.connect(Connect::to("wss://127.0.0.1:1/"), Box::new(Note));
    io.connect_http(Connect::to("https://127.0.0.1:1/"), http::ClientRequest::get(), Box::new(Note));
    io.connect_raw(Connect::to("tls://127.0.0.1:1"), Box::new(Note));
    let _ = context.prepare(&mut array);
    context.service_timeouts(&mut errors);
    assert_eq!(errors.len(), 3);
    for error in errors {
        assert!(matches!(error, ConnectError::NoTls) && !error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
    assert_eq!(context.link_count(), 0);
}
