//! What is counted, and a server and a client in one thread to count it on.

use lodger::{
    Context, Cx, Decision, Env, Flow, Host, Interest, Io, Limits, Listen, Origins, Request, Scope, Site,
    SystemEnv, ws,
};
use lodger_poll::PollArray;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

/// Counts what its own thread allocates, so that tests can run beside each other.
pub(crate) struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn note(allocations: u64, bytes: i64) {
    ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as i64 - layout.size() as i64);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// How often this thread has asked for memory.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// How many bytes this thread holds.
pub(crate) fn bytes() -> i64 {
    BYTES.get()
}

/// How many bytes the process holds as its allocator reckons, libraries in C and what it adds to each piece included. That of
/// other threads is in it too.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn allocated() -> i64 {
    // SAFETY: it takes nothing and returns numbers.
    unsafe { libc::mallinfo2() }.uordblks as i64
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn allocated() -> i64 {
    bytes()
}

/// The system's clock, with a count of how often it was read.
#[derive(Clone, Default)]
pub(crate) struct Clock(Rc<Cell<u64>>);

impl Clock {
    pub(crate) fn readings(&self) -> u64 {
        self.0.get()
    }
}

impl Env for Clock {
    fn now(&mut self) -> Instant {
        self.0.set(self.0.get() + 1);
        SystemEnv.now()
    }

    fn date(&mut self) -> SystemTime {
        SystemEnv.date()
    }

    fn random(&mut self, bytes: &mut [u8]) {
        SystemEnv.random(bytes);
    }
}

/// A poll array, with a count of the calls to it.
#[derive(Default)]
pub(crate) struct Counted {
    array: PollArray,
    pub(crate) calls: u64,
    /// What the array itself holds.
    pub(crate) bytes: i64,
}

impl Counted {
    /// Sleeps, and serves what is ready, and what is due.
    pub(crate) fn wait<D>(&mut self, wait: lodger::Wait, context: &mut Context<D>, data: &mut D) {
        self.array.wait(wait).expect("poll(2) works");
        while self.array.serve(context, data).is_some() {}
        context.service_timeouts(data);
    }
}

impl Host for Counted {
    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.calls += 1;
        let before = bytes();
        let added = self.array.add(fd, interest);
        self.bytes += bytes() - before;
        added
    }

    fn change(&mut self, fd: BorrowedFd<'_>, previous: Interest, interest: Interest) -> io::Result<()> {
        self.calls += 1;
        self.array.change(fd, previous, interest)
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) {
        self.calls += 1;
        self.array.remove(fd);
    }

    fn lock(&mut self, _scope: Scope) {
        self.calls += 1;
    }
}

/// Sends back what it gets, and is not read from while its peer does not read.
pub(crate) struct Echo;

impl<D> ws::Handler<D> for Echo {
    fn message(&mut self, cx: &mut Cx<'_, D>, message: ws::Message<'_>) {
        if cx.send(message) == Ok(Flow::Full) {
            cx.conn().pause();
            cx.conn().request_writable();
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_, D>) {
        cx.conn().resume();
    }
}

/// Any path upgrades; other requests get a short answer.
pub(crate) fn site(limits: Limits) -> Site<()> {
    let accept = |request: &Request<'_>, _: &mut (), _: &mut Io| match request.is_websocket() {
        true => Decision::websocket(Echo),
        false => Decision::respond(lodger::Response::text("hello\n")),
    };
    Site::new().protocol("", accept).origins(Origins::Any).limits(limits)
}

/// An echo server, served turn by turn.
pub(crate) struct Server {
    pub(crate) context: Context,
    pub(crate) host: Counted,
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    pub(crate) turns: u64,
}

impl Server {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::listening(Listen::tcp(([127, 0, 0, 1], 0)), site(limits))
    }

    pub(crate) fn listening(listen: Listen, site: Site<()>) -> Self {
        let clock = Clock::default();
        let mut context: Context = Context::builder().env(clock.clone()).build();
        let site = context.io().add_site(site).expect("a site with a protocol");
        let listener = context.io().listen(listen, site).expect("a port is free");
        let address = context.io().local_addr(listener).and_then(|address| address.inet()).expect("TCP");
        Self { context, host: Counted::default(), clock, address, turns: 0 }
    }

    /// One turn; it sleeps for a moment at the most.
    pub(crate) fn turn(&mut self) {
        self.turns += 1;
        let wait = self.context.prepare(&mut self.host).sooner(Duration::from_millis(2).into());
        self.host.wait(wait, &mut self.context, &mut ());
    }

    pub(crate) fn connect(&mut self) -> Client {
        let socket = TcpStream::connect(self.address).expect("the server listens");
        socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)).expect("a socket has options");
        Client { socket, buffer: vec![0; 1 << 20] }
    }

    /// A client with its opening handshake done.
    pub(crate) fn upgraded(&mut self) -> Client {
        let mut client = self.connect();
        let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let answer = client.exchange(self, request.as_bytes(), |answer| answer.ends_with(b"\r\n\r\n"));
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.context.leave(&mut self.host, &mut ());
    }
}

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

/// No turn of a test comes later than this.
const PATIENCE: u32 = 100_000;

impl Client {
    /// Sends `request`, and reads until `complete`.
    pub(crate) fn exchange(
        &mut self,
        server: &mut Server,
        request: &[u8],
        complete: impl Fn(&[u8]) -> bool,
    ) -> Vec<u8> {
        self.socket.write_all(request).expect("a request fits");
        let mut answer = Vec::new();
        for _ in 0..PATIENCE {
            server.turn();
            let read = self.read();
            answer.extend_from_slice(&self.buffer[..read]);
            if complete(&answer) {
                return answer;
            }
        }
        panic!("no answer: {:?}", String::from_utf8_lossy(&answer));
    }

    /// Sends `batch`, and reads as many bytes as the answer to it has; without allocating.
    pub(crate) fn echo(&mut self, server: &mut Server, batch: &[u8], answer: usize) {
        let (mut sent, mut received) = (0, 0);
        for _ in 0..PATIENCE {
            while sent < batch.len() {
                match self.socket.write(&batch[sent..]) {
                    Ok(written) => sent += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("writing failed: {error}"),
                }
            }
            server.turn();
            loop {
                let read = self.read();
                received += read;
                if read == 0 {
                    break;
                }
            }
            if received >= answer {
                assert_eq!((sent, received), (batch.len(), answer));
                return;
            }
        }
        panic!("{received} of {answer} bytes came back");
    }

    fn read(&mut self) -> usize {
        match self.socket.read(&mut self.buffer) {
            Ok(0) => panic!("the server closed"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("reading failed: {error}"),
        }
    }
}

/// `depth` messages of `size` bytes, masked, and how long their echoes are together.
pub(crate) fn batch(kind: ws::MessageKind, size: usize, depth: usize) -> (Vec<u8>, usize) {
    let payload = vec![b'x'; size];
    let message = match kind {
        ws::MessageKind::Text => ws::Message::Text(std::str::from_utf8(&payload).expect("ASCII")),
        ws::MessageKind::Binary => ws::Message::Binary(&payload),
    };
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    for _ in 0..depth {
        ws::encode(&mut request, message, Some([1, 2, 3, 4]));
        ws::encode(&mut answer, message, None);
    }
    (request, answer.len())
}
