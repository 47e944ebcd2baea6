//! A program that lives in libuv, with a TCP server, a timer and a signal handle of its own, and lodger beside them: a board
//! on which people write by `nc` or in a browser, and that all of them see.
//!
//! ```sh
//! cargo run -p lodger-examples-loops --features libuv --example libuv
//! nc 127.0.0.1 7682          # and http://127.0.0.1:7681/ in a browser
//! ```
//!
//! Its two ports can be given as arguments. Everything in `main` and in the callbacks is what such a program has anyway;
//! lodger comes in at the four places that say `lodger`.

use lodger::{Context, Cx, Decision, Io, Listen, ProtocolId, Request, Response, Site, ws};
use lodger_libuv::{Guest, Local};
use std::error::Error;
use uv::{Handle, Kind};

const PAGE: &str = "<!doctype html><meta charset=utf-8><title>board</title><form><input autofocus></form><pre></pre><script>
const socket = new WebSocket(`ws://${location.host}/`), [input, lines] = ['input', 'pre'].map(x => document.querySelector(x));
socket.onmessage = event => lines.append(event.data + '\\n');
document.forms[0].onsubmit = event => { event.preventDefault(); socket.send(input.value); input.value = ''; };
</script>";

/// What handlers and callbacks work on. lodger's handlers get it lent; callbacks of libuv reach it by a `Local`.
#[derive(Default)]
struct Board {
    lines: usize,
    pages: Option<ProtocolId>,
    /// The program's own TCP connections.
    clients: Vec<Handle>,
}

impl Board {
    fn write(&mut self, line: &str, io: &mut Io<Self>) {
        self.lines += 1;
        if let Some(pages) = self.pages {
            let message = io.encode(line);
            let _ = io.broadcast(pages, &message); // `missed` tells whom it left out
        }
        for client in &self.clients {
            uv::try_write(*client, format!("{line}\n").as_bytes());
        }
    }
}

/// One page in a browser.
struct Page;

impl ws::Handler<Board> for Page {
    fn message(&mut self, cx: &mut Cx<'_, Board>, message: ws::Message<'_>) {
        if let ws::Message::Text(text) = message {
            cx.data.write(text, cx.io);
        }
    }

    /// It does not read, and would lack a line: when it comes again it begins anew.
    fn missed(&mut self, cx: &mut Cx<'_, Board>) {
        cx.conn().abort();
    }
}

fn accept(request: &Request<'_>, _: &mut Board, _: &mut Io<Board>) -> Decision<Board> {
    if request.is_websocket() { Decision::websocket(Page) } else { Decision::respond(Response::html(PAGE)) }
}

/// What the callbacks find behind their handles.
struct Program {
    guest: Option<Guest<Board>>, // lodger: leaves when told to end
    board: Local<Board>,         // lodger: for every other callback
    own: Vec<Handle>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut ports = std::env::args().skip(1).map(|port| port.parse());
    let http = ports.next().unwrap_or(Ok(7681))?;
    let tcp = ports.next().unwrap_or(Ok(7682))?;

    // lodger: set up, and moved into the loop.
    let mut context = Context::new();
    let site = context.io().add_site(Site::new().protocol("", accept))?;
    context.io().listen(Listen::tcp(([127, 0, 0, 1], http)), site)?;
    let board = Board { pages: context.io().protocol(site, ""), ..Board::default() };
    let guest = uv::join(context, board);

    // The program's own.
    let (board, server) = (guest.local(), Handle::new(Kind::Tcp));
    let (timer, signal) = (Handle::new(Kind::Timer), Handle::new(Kind::Signal));
    uv::put_program(Program { guest: Some(guest), board, own: vec![server, timer, signal] });
    uv::listen(server, tcp, connected)?;
    uv::every_ten_seconds(timer, ticked)?;
    uv::on_interrupt(signal, interrupted)?;
    println!("http://127.0.0.1:{http}/ and nc 127.0.0.1 {tcp}");

    uv::run();
    uv::close()?;
    println!("everybody has gone, and the loop is closed");
    Ok(())
}

/// Somebody has connected to the program's own server.
fn connected(program: &mut Program, server: Handle) {
    let client = Handle::new(Kind::Tcp);
    uv::accept(server, client, read);
    program.board.with(move |board, io| {
        board.clients.push(client);
        board.write("somebody came by TCP", io);
    });
}

/// A client of its own has sent something, or has ended.
fn read(program: &mut Program, client: Handle, text: Option<&str>) {
    match text {
        Some(text) => {
            let text = text.to_owned();
            program.board.with(move |board, io| text.lines().for_each(|line| board.write(line, io)));
        }
        None => {
            client.close();
            program.board.with(move |board, io| {
                board.clients.retain(|known| *known != client);
                board.write("somebody went", io);
            });
        }
    }
}

fn ticked(program: &mut Program) {
    program.board.with(|board, io| {
        let line = format!(
            "{} lines, {} by TCP, {} links of lodger's",
            board.lines,
            board.clients.len(),
            io.link_count()
        );
        board.write(&line, io);
    });
}

/// Ends: lodger leaves, and the program's own handles close. The loop does the rest, and `run` returns.
fn interrupted(program: &mut Program) {
    // lodger: says goodbye, and gives the state back.
    let board = program.guest.take().and_then(Guest::leave);
    let clients = board.map(|board| board.clients).unwrap_or_default();
    program.own.drain(..).chain(clients).for_each(Handle::close);
}

/// The part of libuv that this program uses. A real one has a binding for it, whose `uv_loop_t *` goes to `Guest::join`.
mod uv {
    use super::{Board, Program};
    use lodger::Context;
    use lodger_libuv::{Guest, uv_loop_t};
    use std::cell::Cell;
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::io;

    type Raw = *mut c_void;

    #[repr(C)]
    struct Buffer {
        base: *mut c_char,
        len: usize,
    }

    unsafe extern "C" {
        fn uv_default_loop() -> *mut uv_loop_t;
        fn uv_run(uv: *mut uv_loop_t, mode: c_uint) -> c_int;
        fn uv_loop_close(uv: *mut uv_loop_t) -> c_int;
        fn uv_handle_size(kind: c_int) -> usize;
        fn uv_close(handle: Raw, closed: extern "C" fn(Raw));
        fn uv_tcp_init(uv: *mut uv_loop_t, tcp: Raw) -> c_int;
        fn uv_ip4_addr(ip: *const c_char, port: c_int, address: *mut libc::sockaddr_in) -> c_int;
        fn uv_tcp_bind(tcp: Raw, address: *const libc::sockaddr_in, flags: c_uint) -> c_int;
        fn uv_listen(server: Raw, backlog: c_int, connected: extern "C" fn(Raw, c_int)) -> c_int;
        fn uv_accept(server: Raw, client: Raw) -> c_int;
        fn uv_read_start(
            stream: Raw,
            allocate: extern "C" fn(Raw, usize, *mut Buffer),
            read: extern "C" fn(Raw, isize, *const Buffer),
        ) -> c_int;
        fn uv_try_write(stream: Raw, buffers: *const Buffer, count: c_uint) -> c_int;
        fn uv_timer_init(uv: *mut uv_loop_t, timer: Raw) -> c_int;
        fn uv_timer_start(timer: Raw, expired: extern "C" fn(Raw), timeout: u64, repeat: u64) -> c_int;
        fn uv_signal_init(uv: *mut uv_loop_t, signal: Raw) -> c_int;
        fn uv_signal_start(signal: Raw, came: extern "C" fn(Raw, c_int), number: c_int) -> c_int;
    }

    /// A handle of the program's: it is freed once it has been closed.
    #[derive(Clone, Copy, PartialEq)]
    pub(super) struct Handle(Raw);

    #[derive(Clone, Copy)]
    pub(super) enum Kind {
        Tcp = 12,
        Timer = 13,
        Signal = 16,
    }

    thread_local! {
        /// The callbacks' program, with their functions: C programs have a global here.
        static PROGRAM: Cell<Option<Box<Program>>> = const { Cell::new(None) };
        static CALLS: Cell<Calls> = const { Cell::new(Calls { connected: None, read: None, ticked: None, interrupted: None }) };
    }

    type OnRead = fn(&mut Program, Handle, Option<&str>);

    #[derive(Clone, Copy)]
    struct Calls {
        connected: Option<fn(&mut Program, Handle)>,
        read: Option<OnRead>,
        ticked: Option<fn(&mut Program)>,
        interrupted: Option<fn(&mut Program)>,
    }

    pub(super) fn join(context: Context<Board>, board: Board) -> Guest<Board> {
        // SAFETY: the default loop is there for good, and only this thread uses it.
        unsafe { Guest::join(uv_default_loop(), context, board) }
    }

    pub(super) fn put_program(program: Program) {
        PROGRAM.set(Some(Box::new(program)));
    }

    fn with_program(run: impl FnOnce(&mut Program)) {
        if let Some(mut program) = PROGRAM.take() {
            run(&mut program);
            PROGRAM.set(Some(program));
        }
    }

    fn with_calls(change: impl FnOnce(&mut Calls)) {
        let mut calls = CALLS.get();
        change(&mut calls);
        CALLS.set(calls);
    }

    impl Handle {
        pub(super) fn new(kind: Kind) -> Self {
            // SAFETY: the memory is of the size that libuv asks for, and initialised as what it is.
            unsafe {
                let raw = libc::calloc(1, uv_handle_size(kind as c_int));
                match kind {
                    Kind::Tcp => uv_tcp_init(uv_default_loop(), raw),
                    Kind::Timer => uv_timer_init(uv_default_loop(), raw),
                    Kind::Signal => uv_signal_init(uv_default_loop(), raw),
                };
                Self(raw)
            }
        }

        /// Once for each handle.
        pub(super) fn close(self) {
            extern "C" fn closed(raw: Raw) {
                // SAFETY: from `calloc`, and libuv has done with it.
                unsafe { libc::free(raw) }
            }
            // SAFETY: initialised by `new`; the program forgets a handle when it closes it.
            unsafe { uv_close(self.0, closed) }
        }
    }

    // SAFETY of what follows: handles are those of `new` that were not closed, and everything else lives for the call.

    pub(super) fn listen(server: Handle, port: u16, connected: fn(&mut Program, Handle)) -> io::Result<()> {
        extern "C" fn on_connection(server: Raw, status: c_int) {
            if let (0, Some(connected)) = (status, CALLS.get().connected) {
                with_program(|program| connected(program, Handle(server)));
            }
        }
        with_calls(|calls| calls.connected = Some(connected));
        const LOOPBACK: &CStr = c"127.0.0.1";
        // SAFETY: see above.
        unsafe {
            let mut address = std::mem::zeroed();
            uv_ip4_addr(LOOPBACK.as_ptr(), port.into(), &raw mut address);
            result(uv_tcp_bind(server.0, &raw const address, 0))?;
            result(uv_listen(server.0, 128, on_connection))
        }
    }

    pub(super) fn accept(server: Handle, client: Handle, read: OnRead) {
        extern "C" fn allocate(_: Raw, size: usize, buffer: *mut Buffer) {
            // SAFETY: libuv gives a buffer to fill in; `on_read` frees what is in it.
            unsafe { *buffer = Buffer { base: libc::malloc(size).cast(), len: size } }
        }
        extern "C" fn on_read(client: Raw, got: isize, buffer: *const Buffer) {
            let Some(read) = CALLS.get().read else { return };
            // SAFETY: the first `got` bytes of the buffer are what was read.
            unsafe {
                if let Ok(got) = usize::try_from(got) {
                    let bytes = match got {
                        0 => &[],
                        got => std::slice::from_raw_parts((*buffer).base.cast(), got),
                    };
                    let text = String::from_utf8_lossy(bytes);
                    with_program(|program| read(program, Handle(client), Some(&text)));
                } else {
                    with_program(|program| read(program, Handle(client), None));
                }
                libc::free((*buffer).base.cast());
            }
        }
        with_calls(|calls| calls.read = Some(read));
        // SAFETY: see above.
        unsafe {
            uv_accept(server.0, client.0);
            uv_read_start(client.0, allocate, on_read);
        }
    }

    /// A client that does not read misses lines.
    pub(super) fn try_write(client: Handle, bytes: &[u8]) {
        let buffer = Buffer { base: bytes.as_ptr().cast_mut().cast(), len: bytes.len() };
        // SAFETY: see above.
        unsafe { uv_try_write(client.0, &raw const buffer, 1) };
    }

    pub(super) fn every_ten_seconds(timer: Handle, ticked: fn(&mut Program)) -> io::Result<()> {
        extern "C" fn on_timer(_: Raw) {
            CALLS.get().ticked.into_iter().for_each(|ticked| with_program(ticked));
        }
        with_calls(|calls| calls.ticked = Some(ticked));
        // SAFETY: see above.
        result(unsafe { uv_timer_start(timer.0, on_timer, 10_000, 10_000) })
    }

    pub(super) fn on_interrupt(signal: Handle, interrupted: fn(&mut Program)) -> io::Result<()> {
        extern "C" fn on_signal(_: Raw, _: c_int) {
            CALLS.get().interrupted.into_iter().for_each(|interrupted| with_program(interrupted));
        }
        with_calls(|calls| calls.interrupted = Some(interrupted));
        // SAFETY: see above.
        result(unsafe { uv_signal_start(signal.0, on_signal, libc::SIGINT) })
    }

    pub(super) fn run() {
        // SAFETY: not from within a callback.
        unsafe { uv_run(uv_default_loop(), 0) };
    }

    pub(super) fn close() -> io::Result<()> {
        // SAFETY: not from within a callback.
        result(unsafe { uv_loop_close(uv_default_loop()) })
    }

    fn result(code: c_int) -> io::Result<()> {
        if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
    }
}
