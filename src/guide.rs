//! The programs that users write first, each complete. They run as they stand: the clients that test them are hidden.
//!
//! - [`existing_server`]: lodger moves into a server that has its own poll array.
//! - [`chat`]: rooms, and a message that is encoded once for all who are in one.
//! - [`post_to_all`]: an HTTP request whose content goes to all WebSockets.
//! - [`proxy`]: two connections, each read no faster than the other takes.
//! - [`upload`]: content that arrives no faster than a slow sink takes it, within a fixed amount of memory.
//! - [`decide_later`]: a WebSocket that is let in or turned away by somebody who needs time.
//! - [`fifo`]: lines of a FIFO, sent to all WebSockets.
//! - [`daemon`]: a server that goes into the background, or serves in a child.
//!
//! # Peers that are slow
//!
//! Where does what is sent stay when the peer does not take it? In a queue, up to
//! [`Limits::send_max`](crate::Limits::send_max) bytes for each conn; beyond that a send is refused
//! ([`SendError::Overrun`](crate::SendError::Overrun)). Three cases:
//!
//! - **Answers** to what came: nothing needs to be done. Once
//!   [`Limits::send_high_water`](crate::Limits::send_high_water) bytes of them wait, nothing more is received until half of that is
//!   left, so that the peer's own sending comes to a stop, and `let _ = cx.send(message)` in `message` loses nothing. A peer that
//!   takes nothing at all is ended by [`Limits::write_stall`](crate::Limits::write_stall).
//!   [`Conn::read_when_full`](crate::Conn::read_when_full) switches that off.
//! - **A source of one's own** (a file, a database, another connection): send until the answer is
//!   [`Flow::Full`](crate::Flow::Full), ask for [`writable`](crate::Conn::request_writable), and go on there. Between two
//!   connections, pause one while the other is full, as [`proxy`] does.
//! - **The same for many** ([`Io::broadcast`](crate::Io::broadcast)): nobody waits for the slowest. Whoever has too much waiting is
//!   left out, and hears so by [`missed`](crate::ws::Handler::missed): drop it there, or bring it up to date in `writable`.
//!
//! What was refused is counted ([`LinkInfo::refused`](crate::LinkInfo::refused), [`Closed::refused`](crate::Closed::refused)), and the
//! first refusal of each conn is in the log, at `lodger::flow`.
//!
//! All but the first use [`lodger_poll`'s `Loop`](https://docs.rs/lodger-poll), which runs until no connection is left; the
//! protocols and handlers are the same in any loop.

/// # A server that was there first
///
/// The server keeps its `Vec<libc::pollfd>`, its listener, its clients and its way through the array. Context, state and array
/// lie side by side in one struct, so that a service call can borrow all three. lodger's entries are appended behind
/// the server's; every ready entry is offered to `service_fd`, and what comes back [`Foreign`](crate::Served::Foreign) is
/// handled as before.
///
/// ```
/// use lodger::{Context, Decision, Io, Listen, Request, Response, Served, Site};
/// use lodger_poll::{VecHost, compact, poll};
/// use std::collections::HashMap;
/// use std::io::{self, Read};
/// use std::net::{TcpListener, TcpStream};
/// use std::os::fd::{AsRawFd, RawFd};
///
/// /// What the server has always had: clients that send lines, which it counts.
/// struct State {
///     listener: TcpListener,
///     clients: HashMap<RawFd, TcpStream>,
///     lines: usize,
///     running: bool,
/// }
///
/// struct Server {
///     state: State,
///     pollfds: Vec<libc::pollfd>,
///     // The lodger.
///     context: Context<State>,
/// }
///
/// impl Server {
///     fn run(&mut self) -> io::Result<()> {
///         while self.state.running {
///             let wait = self.context.prepare(&mut VecHost(&mut self.pollfds));
///             compact(&mut self.pollfds);
///             poll(&mut self.pollfds, wait)?;
///             for at in 0..self.pollfds.len() {
///                 let entry = &mut self.pollfds[at];
///                 if entry.revents != 0 && self.context.service_fd(entry, &mut self.state) == Served::Foreign {
///                     self.serve_own(at)?;
///                 }
///             }
///             self.context.service_timeouts(&mut self.state);
///         }
///         self.context.leave(&mut VecHost(&mut self.pollfds), &mut self.state);
///         Ok(())
///     }
///
///     fn serve_own(&mut self, at: usize) -> io::Result<()> {
///         let fd = self.pollfds[at].fd;
///         let Some(client) = self.state.clients.get_mut(&fd) else {
///             let (client, _) = self.state.listener.accept()?;
///             self.pollfds.push(readable(&client));
///             self.state.clients.insert(client.as_raw_fd(), client);
///             return Ok(());
///         };
///         let mut buffer = [0; 4096];
///         match client.read(&mut buffer)? {
///             0 => {
///                 self.state.clients.remove(&fd);
///                 self.pollfds[at] = libc::pollfd { fd: -1, events: 0, revents: 0 };
///             }
///             read => self.state.lines += buffer[..read].iter().filter(|&&byte| byte == b'\n').count(),
///         }
///         Ok(())
///     }
/// }
///
/// fn readable(socket: &impl AsRawFd) -> libc::pollfd {
///     libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 }
/// }
///
/// /// What is new: a page that tells of the server's state.
/// fn page(_: &Request<'_>, state: &mut State, _: &mut Io<State>) -> Decision<State> {
///     let (lines, clients) = (state.lines, state.clients.len());
///     Decision::respond(Response::text(format!("{lines} lines, {clients} clients\n")))
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let pollfds = vec![readable(&listener)];
///     let state = State { listener, clients: HashMap::new(), lines: 0, running: true };
///     let mut server = Server { state, pollfds, context: Context::new() };
///
///     let site = server.context.io().add_site(Site::new().protocol("", page))?;
///     let listener = server.context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
///     println!("http://{}/", server.context.io().local_addr(listener).expect("it listens"));
/// #     let line_port = server.state.listener.local_addr()?;
/// #     let web_port = server.context.io().local_addr(listener).expect("it listens").to_string();
/// #     let remote = server.context.remote()?;
/// #     let client = std::thread::spawn(move || {
/// #         use std::io::Write;
/// #         let mut lines = TcpStream::connect(line_port).unwrap();
/// #         lines.write_all(b"one\ntwo\n").unwrap();
/// #         let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// #         while !http(&web_port, request).ends_with("\r\n\r\n2 lines, 1 clients\n") {}
/// #         drop(lines);
/// #         while !http(&web_port, request).ends_with("\r\n\r\n2 lines, 0 clients\n") {}
/// #         remote.post(|state, _| state.running = false).unwrap();
/// #     });
///     server.run()?;
/// #     client.join().unwrap();
/// #     assert_eq!(server.pollfds.len() - server.pollfds.iter().filter(|entry| entry.fd < 0).count(), 1);
///     Ok(())
/// }
/// # fn http(address: &str, request: &[u8]) -> String {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     socket.write_all(request).unwrap();
/// #     let mut answer = String::new();
/// #     socket.read_to_string(&mut answer).unwrap();
/// #     answer
/// # }
/// ```
pub mod existing_server {}

/// # Chat with rooms
///
/// The path names the room. A [`ws::Handler`](crate::ws::Handler) is the session: its fields are what is known of one member.
/// The rooms are the application's and live in `D`; `cx.data` and `cx.io` are two fields, so that one can be gone through
/// while the other sends. What a member says is encoded once and shared by all queues. A member who has stopped reading until
/// [`Limits::send_max`](crate::Limits::send_max) bytes wait for it is dropped, so that nobody waits for the slowest.
///
/// ```
/// use lodger::{Closed, ConnId, Context, Cx, Decision, Io, Listen, Request, Response, SendError, Site, ws};
/// use std::collections::HashMap;
///
/// #[derive(Default)]
/// struct Chat {
///     rooms: HashMap<String, Vec<ConnId>>,
/// }
///
/// struct Member {
///     room: String,
/// }
///
/// impl ws::Handler<Chat> for Member {
///     fn opened(&mut self, cx: &mut Cx<'_, Chat>, _request: &Request<'_>) {
///         let id = cx.id();
///         cx.data.rooms.entry(self.room.clone()).or_default().push(id);
///     }
///
///     fn message(&mut self, cx: &mut Cx<'_, Chat>, message: ws::Message<'_>) {
///         let shared = cx.io.encode(message);
///         for &id in cx.data.rooms.get(&self.room).into_iter().flatten() {
///             let Some(mut member) = cx.io.conn(id) else { continue };
///             if member.send_shared(&shared) == Err(SendError::Overrun) {
///                 member.abort();
///             }
///         }
///     }
///
///     fn closed(self: Box<Self>, cx: &mut Cx<'_, Chat>, _closed: Closed) {
///         let id = cx.id();
///         if let Some(members) = cx.data.rooms.get_mut(&self.room) {
///             members.retain(|member| *member != id);
///             if members.is_empty() {
///                 cx.data.rooms.remove(&self.room);
///             }
///         }
///     }
/// }
///
/// fn accept(request: &Request<'_>, chat: &mut Chat, _: &mut Io<Chat>) -> Decision<Chat> {
///     if request.is_websocket() {
///         Decision::websocket(Member { room: request.path().to_owned() })
///     } else {
///         Decision::respond(Response::text(format!("{} rooms\n", chat.rooms.len())))
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut context = Context::new();
///     let site = context.io().add_site(Site::new().protocol("", accept))?;
///     let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
///     println!("ws://{}/a-room", context.io().local_addr(listener).expect("it listens"));
/// #     let address = context.io().local_addr(listener).expect("it listens").to_string();
/// #     let remote = context.remote()?;
/// #     let client = std::thread::spawn(move || {
/// #         let mut kitchen = [websocket(&address, "/kitchen"), websocket(&address, "/kitchen")];
/// #         let mut cellar = websocket(&address, "/cellar");
/// #         say(&mut kitchen[0], "tea?");
/// #         assert_eq!(kitchen.each_mut().map(next_text), ["tea?", "tea?"]);
/// #         say(&mut cellar, "wine");
/// #         assert_eq!(next_text(&mut cellar), "wine");
/// #         remote.post(|_, io| io.shutdown(ws::CloseCode::GOING_AWAY)).unwrap();
/// #     });
///     let mut chat = Chat::default();
///     lodger_poll::Loop::new().run(&mut context, &mut chat)?;
/// #     client.join().unwrap();
/// #     assert!(chat.rooms.is_empty());
///     Ok(())
/// }
/// # fn websocket(address: &str, target: &str) -> std::net::TcpStream {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
/// #     let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
/// #     write!(socket, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{fields}{key}\r\n\r\n").unwrap();
/// #     let mut head = Vec::new();
/// #     while !head.ends_with(b"\r\n\r\n") {
/// #         let mut byte = [0];
/// #         socket.read_exact(&mut byte).unwrap();
/// #         head.push(byte[0]);
/// #     }
/// #     socket
/// # }
/// # fn next_text(socket: &mut std::net::TcpStream) -> String {
/// #     use std::io::Read;
/// #     let mut header = [0; 2];
/// #     socket.read_exact(&mut header).unwrap();
/// #     let mut payload = vec![0; header[1].into()];
/// #     socket.read_exact(&mut payload).unwrap();
/// #     String::from_utf8(payload).unwrap()
/// # }
/// # fn say(socket: &mut std::net::TcpStream, text: &str) {
/// #     use std::io::Write;
/// #     let mut frame = Vec::new();
/// #     ws::encode(&mut frame, text.into(), Some([1, 2, 3, 4]));
/// #     socket.write_all(&frame).unwrap();
/// # }
/// ```
pub mod chat {}

/// # An HTTP request that posts to WebSockets
///
/// Plain requests and upgrades reach the same protocol, which gives each its handler. All of its conns are bound to it by
/// name, so the handler of a request asks its own conn for the protocol and
/// [broadcasts](crate::Io::broadcast) to those that are WebSockets. Content comes in pieces and is kept by the handler;
/// [`Limits::content`](crate::Limits::content) bounds it.
///
/// ```
/// use lodger::{Context, Cx, Decision, Io, Limits, Listen, Request, Response, Site, http, ws};
///
/// struct Reader;
///
/// impl ws::Handler<()> for Reader {
///     fn missed(&mut self, cx: &mut Cx<'_, ()>) {
///         cx.conn().abort(); // it has stopped reading, and was left out
///     }
/// }
///
/// struct Post(Vec<u8>);
///
/// impl http::Handler<()> for Post {
///     fn body(&mut self, _cx: &mut Cx<'_, ()>, piece: &[u8]) {
///         self.0.extend_from_slice(piece);
///     }
///
///     fn body_complete(&mut self, cx: &mut Cx<'_, ()>, _trailers: &http::Fields) {
///         let response = match std::str::from_utf8(&self.0) {
///             Ok(text) => {
///                 let frame = cx.io.encode(text);
///                 let protocol = cx.conn().protocol();
///                 let readers = protocol.map_or(0, |protocol| cx.io.broadcast(protocol, &frame).sent);
///                 Response::text(format!("{readers} readers\n"))
///             }
///             Err(_) => Response::text("not UTF-8\n").status(http::StatusCode::BAD_REQUEST),
///         };
///         let _ = cx.respond(response);
///     }
/// }
///
/// fn accept(request: &Request<'_>, _: &mut (), _: &mut Io) -> Decision<()> {
///     match request.method() {
///         "POST" => Decision::http(Post(Vec::new())),
///         // A plain GET is answered with 426 (Upgrade Required).
///         _ => Decision::websocket(Reader),
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut context = Context::new();
///     let limits = Limits { content: Some(64 * 1024), ..Limits::default() };
///     let site = context.io().add_site(Site::new().protocol("", accept).limits(limits))?;
///     let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
///     println!("curl -d hello http://{}/", context.io().local_addr(listener).expect("it listens"));
/// #     let address = context.io().local_addr(listener).expect("it listens").to_string();
/// #     let remote = context.remote()?;
/// #     let client = std::thread::spawn(move || {
/// #         let mut readers = [websocket(&address, "/"), websocket(&address, "/")];
/// #         let request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
/// #         assert!(http(&address, request).ends_with("\r\n\r\n2 readers\n"));
/// #         assert_eq!(readers.each_mut().map(next_text), ["hello", "hello"]);
/// #         let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// #         assert!(http(&address, request).starts_with("HTTP/1.1 426 "));
/// #         remote.post(|_, io| io.shutdown(ws::CloseCode::GOING_AWAY)).unwrap();
/// #     });
///     lodger_poll::Loop::new().run(&mut context, &mut ())?;
/// #     client.join().unwrap();
///     Ok(())
/// }
/// # fn websocket(address: &str, target: &str) -> std::net::TcpStream {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
/// #     let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
/// #     write!(socket, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{fields}{key}\r\n\r\n").unwrap();
/// #     let mut head = Vec::new();
/// #     while !head.ends_with(b"\r\n\r\n") {
/// #         let mut byte = [0];
/// #         socket.read_exact(&mut byte).unwrap();
/// #         head.push(byte[0]);
/// #     }
/// #     socket
/// # }
/// # fn next_text(socket: &mut std::net::TcpStream) -> String {
/// #     use std::io::Read;
/// #     let mut header = [0; 2];
/// #     socket.read_exact(&mut header).unwrap();
/// #     let mut payload = vec![0; header[1].into()];
/// #     socket.read_exact(&mut payload).unwrap();
/// #     String::from_utf8(payload).unwrap()
/// # }
/// # fn http(address: &str, request: &[u8]) -> String {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     socket.write_all(request).unwrap();
/// #     let mut answer = String::new();
/// #     socket.read_to_string(&mut answer).unwrap();
/// #     answer
/// # }
/// ```
pub mod post_to_all {}

/// # A proxy with backpressure both ways
///
/// Two raw conns know each other by [`ConnId`](crate::ConnId). What one receives is written to the other; when that is
/// [`Full`](crate::Flow::Full), the receiving one is paused, and the kernel slows its peer down, until the other is
/// `writable` again. An end is passed on as an end, so that each direction finishes on its own, and a stale id finds nothing,
/// so that neither needs to know which of the two goes first. How the far side is reached is up to the program; here it is a
/// socket pair with a thread behind it.
///
/// ```
/// use lodger::{CloseReason, Closed, ConnId, Context, Cx, Flow, Limits, Listen, raw};
/// use std::os::fd::OwnedFd;
/// use std::os::unix::net::UnixStream;
///
/// /// One side of a connection through the proxy.
/// #[derive(Default)]
/// struct Side {
///     other: Option<ConnId>,
/// }
///
/// impl raw::Handler<()> for Side {
///     fn opened(&mut self, cx: &mut Cx<'_, ()>) {
///         if self.other.is_some() {
///             return; // the far side, opened below
///         }
///         let far = Side { other: Some(cx.id()) };
///         self.other = dial().ok().and_then(|far_socket| {
///             cx.io.adopt_raw(far_socket, &[], Limits::default(), Box::new(far)).ok()
///         });
///         if self.other.is_none() {
///             cx.conn().abort();
///         }
///     }
///
///     fn received(&mut self, cx: &mut Cx<'_, ()>, bytes: &[u8]) {
///         let Some(mut other) = self.other.and_then(|other| cx.io.conn(other)) else { return };
///         match other.write(bytes) {
///             Ok(Flow::Ready) => {}
///             Ok(Flow::Full) => {
///                 other.request_writable();
///                 cx.conn().pause();
///             }
///             Err(_) => cx.conn().abort(),
///         }
///     }
///
///     /// What was queued here has gone out: the other side is read again.
///     fn writable(&mut self, cx: &mut Cx<'_, ()>) {
///         if let Some(mut other) = self.other.and_then(|other| cx.io.conn(other)) {
///             other.resume();
///         }
///     }
///
///     fn end(&mut self, cx: &mut Cx<'_, ()>) {
///         if let Some(mut other) = self.other.and_then(|other| cx.io.conn(other)) {
///             other.finish();
///         }
///     }
///
///     fn closed(self: Box<Self>, cx: &mut Cx<'_, ()>, closed: Closed) {
///         let Some(mut other) = self.other.and_then(|other| cx.io.conn(other)) else { return };
///         match closed.reason {
///             CloseReason::Io(_) | CloseReason::Aborted => other.abort(),
///             _ => other.close(),
///         }
///     }
/// }
///
/// fn dial() -> std::io::Result<OwnedFd> {
///     let (near, mut far) = UnixStream::pair()?;
///     std::thread::spawn(move || {
///         let mut echo = far.try_clone()?;
///         std::io::copy(&mut far, &mut echo)
///     });
///     Ok(near.into())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut context = Context::new();
///     let listen = Listen::tcp(([127, 0, 0, 1], 0));
///     let accept = |_: &lodger::Peer, _: &mut (), _: &mut lodger::Io| Some(Box::new(Side::default()) as _);
///     let listener = context.io().listen_raw(listen, Limits::default(), accept)?;
///     println!("listening on {}", context.io().local_addr(listener).expect("it listens"));
/// #     let address = context.io().local_addr(listener).expect("it listens").to_string();
/// #     let remote = context.remote()?;
/// #     let client = std::thread::spawn(move || {
/// #         use std::io::{Read, Write};
/// #         use std::net::{Shutdown, TcpStream};
/// #         let mut socket = TcpStream::connect(address).unwrap();
/// #         let mut sender = socket.try_clone().unwrap();
/// #         let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n / 1000) as u8).collect();
/// #         let expected = sent.clone();
/// #         let sending = std::thread::spawn(move || {
/// #             sender.write_all(&sent).unwrap();
/// #             sender.shutdown(Shutdown::Write).unwrap();
/// #         });
/// #         let mut received = Vec::new();
/// #         socket.read_to_end(&mut received).unwrap();
/// #         assert!(received == expected);
/// #         sending.join().unwrap();
/// #         remote.post(|_, io| io.shutdown(lodger::ws::CloseCode::GOING_AWAY)).unwrap();
/// #     });
///     lodger_poll::Loop::new().run(&mut context, &mut ())?;
/// #     client.join().unwrap();
///     Ok(())
/// }
/// ```
pub mod proxy {}

/// # An upload under flow control
///
/// Content goes to a thread that writes it, say to a disk. The handler counts the bytes that are on their way there: beyond a
/// bound it pauses its conn, and the thread's [`Remote`](crate::Remote) tells it when they have been written. So an upload of
/// any size takes a fixed amount of memory, while other connections go on. When the peer leaves early, the handler is dropped
/// and with it the channel, which is how the thread learns of it.
///
/// ```
/// use lodger::{Context, Cx, Decision, Io, Listen, Request, Response, Site, http};
/// use std::any::Any;
/// use std::sync::mpsc::{self, Receiver, Sender};
///
/// /// How many bytes may be on their way to the thread.
/// const BOUND: usize = 256 * 1024;
///
/// struct Upload {
///     sink: Option<Sender<Vec<u8>>>,
///     waiting: usize,
/// }
///
/// /// What the thread has to say.
/// enum Progress {
///     Written(usize),
///     Complete(u64),
/// }
///
/// impl http::Handler<()> for Upload {
///     fn request(&mut self, cx: &mut Cx<'_, ()>, _request: &Request<'_>) {
///         let Ok(remote) = cx.io.remote() else {
///             let _ = cx.respond(Response::new(http::StatusCode::SERVICE_UNAVAILABLE).close());
///             return;
///         };
///         let (sink, pieces) = mpsc::channel();
///         self.sink = Some(sink);
///         let id = cx.id();
///         std::thread::spawn(move || {
///             write(&pieces, |progress| {
///                 let _ = remote.notify(id, Box::new(progress));
///             });
///         });
///     }
///
///     fn body(&mut self, cx: &mut Cx<'_, ()>, piece: &[u8]) {
///         let Some(sink) = &self.sink else { return };
///         self.waiting += piece.len();
///         let _ = sink.send(piece.to_vec());
///         if self.waiting >= BOUND {
///             cx.conn().pause();
///         }
///     }
///
///     fn body_complete(&mut self, _cx: &mut Cx<'_, ()>, _trailers: &http::Fields) {
///         self.sink = None; // the thread sees the end
///     }
///
///     fn event(&mut self, cx: &mut Cx<'_, ()>, event: Box<dyn Any>) {
///         match event.downcast().map(|progress| *progress) {
///             Ok(Progress::Written(bytes)) => {
///                 self.waiting -= bytes;
///                 if self.waiting <= BOUND / 2 {
///                     cx.conn().resume();
///                 }
///             }
///             Ok(Progress::Complete(bytes)) => {
///                 let _ = cx.respond(Response::text(format!("{bytes} bytes\n")));
///             }
///             Err(_) => {}
///         }
///     }
/// }
///
/// /// The slow sink, in its thread.
/// fn write(pieces: &Receiver<Vec<u8>>, tell: impl Fn(Progress)) {
///     let mut written = 0;
///     for piece in pieces {
///         // ... to a disk, for one
///         written += piece.len() as u64;
///         tell(Progress::Written(piece.len()));
///     }
///     tell(Progress::Complete(written));
/// }
///
/// fn accept(_: &Request<'_>, _: &mut (), _: &mut Io) -> Decision<()> {
///     Decision::http(Upload { sink: None, waiting: 0 })
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut context = Context::new();
///     let site = context.io().add_site(Site::new().protocol("", accept))?;
///     let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
///     println!("curl -T FILE http://{}/", context.io().local_addr(listener).expect("it listens"));
/// #     let address = context.io().local_addr(listener).expect("it listens").to_string();
/// #     let remote = context.remote()?;
/// #     let client = std::thread::spawn(move || {
/// #         let head = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5000000\r\n\r\n";
/// #         let request = [&head[..], &[7; 5_000_000]].concat();
/// #         assert!(http(&address, &request).ends_with("\r\n\r\n5000000 bytes\n"));
/// #         let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// #         assert!(http(&address, request).ends_with("\r\n\r\n0 bytes\n"));
/// #         remote.post(|_, io| io.shutdown(lodger::ws::CloseCode::GOING_AWAY)).unwrap();
/// #     });
///     lodger_poll::Loop::new().run(&mut context, &mut ())?;
/// #     client.join().unwrap();
///     Ok(())
/// }
/// # fn http(address: &str, request: &[u8]) -> String {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     socket.write_all(request).unwrap();
/// #     let mut answer = String::new();
/// #     socket.read_to_string(&mut answer).unwrap();
/// #     answer
/// # }
/// ```
pub mod upload {}

/// # A decision that is answered later
///
/// Who asks for a WebSocket is known by a token, and whoever can judge the token takes a while: another process, a database, here
/// a thread. The protocol answers [`Later`](crate::Decision::Later) and keeps the request's id; the answer arrives through a
/// [`Remote`](crate::Remote) and is given to [`Io::decide`](crate::Io::decide). No answer within
/// [`Limits::handshake`](crate::Limits::handshake) means 503, and a peer that has gone meanwhile makes `decide` say `Gone`.
/// Where all that is wanted is a delay, [`Io::after`](crate::Io::after) takes the place of the thread.
///
/// ```
/// use lodger::{Context, Cx, Decision, Io, Listen, Request, Response, Site, http, ws};
/// use std::time::Duration;
///
/// /// Who is known, by name.
/// struct Session {
///     user: String,
/// }
///
/// impl ws::Handler<()> for Session {
///     fn opened(&mut self, cx: &mut Cx<'_, ()>, _request: &Request<'_>) {
///         let _ = cx.send(&format!("hello {}", self.user));
///     }
/// }
///
/// fn accept(request: &Request<'_>, _: &mut (), io: &mut Io) -> Decision<()> {
///     let token = request.query().and_then(|query| query.strip_prefix("token="));
///     let (Some(token), Ok(remote)) = (token, io.remote()) else {
///         return Decision::respond(Response::new(http::StatusCode::FORBIDDEN));
///     };
///     let (id, token) = (request.id(), token.to_owned());
///     if token.is_empty() {
///         // Whoever guesses gets his answer slowly.
///         io.after(Duration::from_millis(20), move |_, io| {
///             let _ = io.decide(id, Decision::respond(Response::new(http::StatusCode::FORBIDDEN)));
///         });
///         return Decision::Later;
///     }
///     std::thread::spawn(move || {
///         let user = judge(&token);
///         let _ = remote.post(move |_, io| {
///             let decision = match user {
///                 Some(user) => Decision::websocket(Session { user }),
///                 None => Decision::respond(Response::new(http::StatusCode::FORBIDDEN)),
///             };
///             let _ = io.decide(id, decision);
///         });
///     });
///     Decision::Later
/// }
///
/// /// Asks somebody slow.
/// fn judge(token: &str) -> Option<String> {
///     (token == "12345").then(|| "Anna".to_owned())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut context = Context::new();
///     let site = context.io().add_site(Site::new().protocol("", accept))?;
///     let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
///     println!("ws://{}/?token=12345", context.io().local_addr(listener).expect("it listens"));
/// #     let address = context.io().local_addr(listener).expect("it listens").to_string();
/// #     let remote = context.remote()?;
/// #     let client = std::thread::spawn(move || {
/// #         assert_eq!(next_text(&mut websocket(&address, "/?token=12345")), "hello Anna");
/// #         for target in ["/?token=54321", "/?token=", "/"] {
/// #             let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
/// #             assert!(http(&address, request.as_bytes()).starts_with("HTTP/1.1 403 "));
/// #         }
/// #         remote.post(|_, io| io.shutdown(ws::CloseCode::GOING_AWAY)).unwrap();
/// #     });
///     lodger_poll::Loop::new().run(&mut context, &mut ())?;
/// #     client.join().unwrap();
///     Ok(())
/// }
/// # fn websocket(address: &str, target: &str) -> std::net::TcpStream {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
/// #     let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
/// #     write!(socket, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{fields}{key}\r\n\r\n").unwrap();
/// #     let mut head = Vec::new();
/// #     while !head.ends_with(b"\r\n\r\n") {
/// #         let mut byte = [0];
/// #         socket.read_exact(&mut byte).unwrap();
/// #         head.push(byte[0]);
/// #     }
/// #     socket
/// # }
/// # fn next_text(socket: &mut std::net::TcpStream) -> String {
/// #     use std::io::Read;
/// #     let mut header = [0; 2];
/// #     socket.read_exact(&mut header).unwrap();
/// #     let mut payload = vec![0; header[1].into()];
/// #     socket.read_exact(&mut payload).unwrap();
/// #     String::from_utf8(payload).unwrap()
/// # }
/// # fn http(address: &str, request: &[u8]) -> String {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     socket.write_all(request).unwrap();
/// #     let mut answer = String::new();
/// #     socket.read_to_string(&mut answer).unwrap();
/// #     answer
/// # }
/// ```
pub mod decide_later {}

/// # A FIFO whose lines go to all WebSockets
///
/// The FIFO is [adopted](crate::Io::adopt): lodger has it watched, the handler reads it and sends each line to every WebSocket of
/// a protocol. The protocol is known by the name under which the site holds it. Opened for reading and writing, a FIFO neither
/// waits for a writer nor ends with the last one.
///
/// ```
/// use lodger::{Context, Cx, Decision, Interest, Io, Listen, ProtocolId, Request, Site, fd, ws};
/// use std::fs::File;
/// use std::os::fd::BorrowedFd;
/// use std::path::Path;
///
/// struct Watcher;
///
/// impl ws::Handler<()> for Watcher {
///     fn missed(&mut self, cx: &mut Cx<'_, ()>) {
///         cx.conn().abort(); // it has stopped reading, and a line was not sent to it
///     }
/// }
///
/// struct Lines {
///     to: ProtocolId,
///     /// A line that is not complete yet, of at most `LONGEST` bytes.
///     line: Vec<u8>,
/// }
///
/// const LONGEST: usize = 4096;
///
/// impl fd::Handler<()> for Lines {
///     fn readable(&mut self, cx: &mut Cx<'_, ()>, fd: BorrowedFd<'_>) {
///         let mut buffer = [0; LONGEST];
///         let Ok(read) = fd::read(fd, &mut buffer) else { return };
///         for &byte in &buffer[..read] {
///             if byte != b'\n' {
///                 self.line.push(byte);
///             }
///             if byte == b'\n' || self.line.len() == LONGEST {
///                 let frame = cx.io.encode(&*String::from_utf8_lossy(&self.line));
///                 let _ = cx.io.broadcast(self.to, &frame); // `missed` tells whom it left out
///                 self.line.clear();
///             }
///         }
///     }
/// }
///
/// fn watch(io: &mut Io, path: &Path, to: ProtocolId) -> Result<(), Box<dyn std::error::Error>> {
///     let fifo = File::options().read(true).write(true).open(path)?;
///     io.adopt(fifo.into(), Interest::READ, Box::new(Lines { to, line: Vec::new() }))?;
///     Ok(())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut context = Context::new();
///     let accept = |_: &Request<'_>, _: &mut (), _: &mut Io| Decision::websocket(Watcher);
///     let site = context.io().add_site(Site::new().protocol("lines", accept))?;
///     let lines = context.io().protocol(site, "lines").expect("just added");
///     let path = Path::new("lines.fifo");
/// #     let path = std::env::temp_dir().join(format!("lodger-guide-{}.fifo", std::process::id()));
/// #     let path = path.as_path();
/// #     assert!(std::process::Command::new("mkfifo").arg(path).status()?.success());
///     watch(context.io(), path, lines)?;
///     let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site)?;
///     println!("ws://{}/", context.io().local_addr(listener).expect("it listens"));
/// #     let address = context.io().local_addr(listener).expect("it listens").to_string();
/// #     let remote = context.remote()?;
/// #     let fifo = path.to_owned();
/// #     let client = std::thread::spawn(move || {
/// #         let mut watchers = [websocket(&address, "/"), websocket(&address, "/")];
/// #         std::fs::write(&fifo, "one\ntwo\n").unwrap();
/// #         assert_eq!(watchers.each_mut().map(next_text), ["one", "one"]);
/// #         assert_eq!(watchers.each_mut().map(next_text), ["two", "two"]);
/// #         std::fs::remove_file(fifo).unwrap();
/// #         remote.post(|_, io| io.shutdown(ws::CloseCode::GOING_AWAY)).unwrap();
/// #     });
///     lodger_poll::Loop::new().run(&mut context, &mut ())?;
/// #     client.join().unwrap();
///     Ok(())
/// }
/// # fn websocket(address: &str, target: &str) -> std::net::TcpStream {
/// #     use std::io::{Read, Write};
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
/// #     let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
/// #     write!(socket, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{fields}{key}\r\n\r\n").unwrap();
/// #     let mut head = Vec::new();
/// #     while !head.ends_with(b"\r\n\r\n") {
/// #         let mut byte = [0];
/// #         socket.read_exact(&mut byte).unwrap();
/// #         head.push(byte[0]);
/// #     }
/// #     socket
/// # }
/// # fn next_text(socket: &mut std::net::TcpStream) -> String {
/// #     use std::io::Read;
/// #     let mut header = [0; 2];
/// #     socket.read_exact(&mut header).unwrap();
/// #     let mut payload = vec![0; header[1].into()];
/// #     socket.read_exact(&mut payload).unwrap();
/// #     String::from_utf8(payload).unwrap()
/// # }
/// ```
pub mod fifo {}

/// # A server that goes into the background
///
/// Its port is opened while whoever has started it still sees what goes wrong; then the child serves, and the parent ends. A
/// context belongs to the process that built it, so the child says that it goes on in its parent's place, and the parent that
/// it has nothing more to do with it.
///
/// ```no_run
/// use lodger::{Context, Decision, Io, Listen, Request, Response, Site};
/// use lodger_poll::Loop;
/// use std::io;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut context = Context::new();
///     let hello = |_: &Request<'_>, _: &mut (), _: &mut Io| Decision::respond(Response::text("hello"));
///     let site = context.io().add_site(Site::new().protocol("", hello))?;
///     context.io().listen(Listen::tcp(([127, 0, 0, 1], 7681)), site)?;
///
///     // SAFETY: no thread has been started yet, which could hold a lock that the child needs.
///     match unsafe { libc::fork() } {
///         -1 => return Err(io::Error::last_os_error().into()),
///         0 => context.take_over()?,
///         _child => {
///             context.abandon(); // nothing is closed but this process's numbers
///             return Ok(());
///         }
///     }
///     Loop::new().run(&mut context, &mut ())?;
///     Ok(())
/// }
/// ```
///
/// - Connections that are open, timers, posts that wait and names that are being looked up go on in the child, too: a server may
///   fork at any time between two turns. It then says [`take_over`](crate::Context::take_over) by its loop
///   (`lodger_epoll::Loop::take_over`, `Single::take_over` and the like), which also makes the loop the child's own.
/// - A child that does something else needs to say nothing. Whatever it drops leaves the parent's connections alone, and its
///   [`Remote`](crate::Remote)s answer [`Forked`](crate::PostError::Forked). Descriptors are closed when it runs another program.
pub mod daemon {}
