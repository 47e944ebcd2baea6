//! What is left of a guest in its process. The only test of its file, since the count of descriptors is the process's.

use lodger::{Context, Cx, Limits, Listen, Peer, raw, ws};
use lodger_libuv::Loop;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

struct Shout;

impl raw::Handler<()> for Shout {
    fn received(&mut self, cx: &mut Cx<'_, ()>, bytes: &[u8]) {
        let _ = cx.write(&bytes.to_ascii_uppercase());
    }
}

fn descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

fn serve(close_loop: bool) {
    let mut context: Context = Context::new();
    let listen = Listen::tcp(([127, 0, 0, 1], 0));
    let accept =
        |_: &Peer, _: &mut (), _: &mut lodger::Io| Some(Box::new(Shout) as Box<dyn raw::Handler<()>>);
    let listener = context.io().listen_raw(listen, Limits::default(), accept).unwrap();
    let Some(Peer::Inet(address)) = context.io().local_addr(listener) else { panic!("no address") };
    let remote = context.remote().unwrap();
    let mut uv = Loop::new().unwrap();
    let guest = uv.join(context, ());
    let peer = thread::spawn(move || {
        let sockets: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        for mut socket in &sockets {
            let mut answer = [0; 5];
            socket.write_all(b"hello").unwrap();
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HELLO");
        }
        remote.post(|_, io| io.shutdown(ws::CloseCode::GOING_AWAY)).unwrap();
    });
    uv.run();
    peer.join().unwrap();
    if close_loop {
        assert!(guest.leave().is_some());
        uv.run();
        assert!(!uv.is_alive());
        uv.close().unwrap();
    }
}

#[test]
fn no_descriptor_is_left_when_guest_and_loop_have_gone() {
    // libuv keeps a pipe for signals from the process's first loop on.
    Loop::new().unwrap().close().unwrap();
    let before = descriptors();
    for round in 0..4 {
        serve(round % 2 == 0);
        assert_eq!(descriptors(), before);
    }
}
