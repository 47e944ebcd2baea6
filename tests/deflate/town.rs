//! A server in the simulated world, and clients that speak permessage-deflate to it.

use lodger::sim::{Answer, Endpoint, World};
use lodger::ws::deflate::{
    Compressors, Decompressors, Deflate, Deflater, Inflater, Metrics, Parameters, message_header,
};
use lodger::ws::{self, Event, Message, MessageKind, Piece, Receive, Receiver, Sender, Settings, Side};
use lodger::{
    Closed, ConnId, Context, Cx, Decision, Io, Limits, Listen, Peer, Protocol, ProtocolId, Request, Site,
};
use std::time::Duration;

pub(crate) const MILLI: Duration = Duration::from_millis(1);

/// The state that the server has.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) messages: Vec<(ConnId, MessageKind, Vec<u8>)>,
    /// The longest piece that came.
    pub(crate) longest: usize,
    pub(crate) opened: Vec<ConnId>,
    pub(crate) closed: Vec<(ConnId, String)>,
    pub(crate) protocol: Option<ProtocolId>,
    /// So many more events come before a handler pauses; `None` for never.
    pub(crate) pauses: Option<u32>,
    pub(crate) echoes: bool,
}

/// Writes down what comes, sends it back, and pauses now and then.
pub(crate) struct Noted {
    receive: Receive,
    begun: Vec<u8>,
    count: u32,
}

impl Noted {
    pub(crate) fn new(receive: Receive) -> Self {
        Self { receive, begun: Vec::new(), count: 0 }
    }

    fn may_pause(&mut self, cx: &mut Cx<'_, State>) {
        self.count += 1;
        if cx.data.pauses.is_some_and(|every| self.count.is_multiple_of(every)) {
            cx.conn().pause();
            cx.conn().set_timer(MILLI);
        }
    }
}

impl ws::Handler<State> for Noted {
    fn receive(&self) -> Receive {
        self.receive
    }

    fn opened(&mut self, cx: &mut Cx<'_, State>, _: &Request<'_>) {
        let id = cx.id();
        cx.data.opened.push(id);
    }

    fn message(&mut self, cx: &mut Cx<'_, State>, message: Message<'_>) {
        let id = cx.id();
        cx.data.messages.push((id, message.kind(), message.as_bytes().to_vec()));
        if cx.data.echoes {
            cx.send(message).unwrap();
        }
        self.may_pause(cx);
    }

    fn piece(&mut self, cx: &mut Cx<'_, State>, piece: Piece<'_>) {
        self.begun.extend_from_slice(piece.payload);
        cx.data.longest = cx.data.longest.max(piece.payload.len());
        if cx.data.echoes {
            cx.conn().send_piece(piece.kind, piece.payload, piece.last).unwrap();
        }
        if piece.last {
            let id = cx.id();
            cx.data.messages.push((id, piece.kind, std::mem::take(&mut self.begun)));
        }
        self.may_pause(cx);
    }

    fn timer(&mut self, cx: &mut Cx<'_, State>) {
        cx.conn().resume();
    }

    fn closed(self: Box<Self>, cx: &mut Cx<'_, State>, closed: Closed) {
        let id = cx.id();
        cx.data.closed.push((id, format!("{:?}", closed.reason)));
    }
}

/// Decides as the target says: `/pieces` gets its messages in pieces, `/never` is never compressed, `/small` has a small
/// window.
struct Hall;

impl Protocol<State> for Hall {
    fn started(&mut self, id: ProtocolId, state: &mut State, _: &mut Io<State>) {
        state.protocol = Some(id);
    }

    fn accept(&mut self, request: &Request<'_>, _: &mut State, _: &mut Io<State>) -> Decision<State> {
        match request.path() {
            "/pieces" => Decision::websocket(Noted::new(Receive::Pieces)),
            "/never" => ws::Accept::new(Noted::new(Receive::Whole)).deflate(None).into(),
            "/small" => {
                let mut deflate = Deflate::default();
                deflate.server_max_window_bits = 9;
                deflate.client_max_window_bits = 10;
                ws::Accept::new(Noted::new(Receive::Whole)).deflate(deflate).into()
            }
            _ => Decision::websocket(Noted::new(Receive::Whole)),
        }
    }
}

pub(crate) struct Town {
    pub(crate) world: World,
    pub(crate) context: Context<State>,
    pub(crate) state: State,
    address: Peer,
}

pub(crate) fn taking_over() -> Deflate {
    let mut deflate = Deflate::default();
    deflate.server_no_context_takeover = false;
    deflate.client_no_context_takeover = false;
    deflate
}

impl Town {
    pub(crate) fn new(deflate: Option<Deflate>) -> Self {
        Self::with(1, deflate, Limits::default(), usize::MAX)
    }

    pub(crate) fn with(seed: u64, deflate: Option<Deflate>, limits: Limits, most: usize) -> Self {
        let mut world = World::new(seed);
        let mut context = world.builder().max_deflate_memory(most).build();
        let mut site = Site::new().protocol("", Hall).limits(limits);
        if let Some(deflate) = deflate {
            site = site.deflate(deflate);
        }
        let site = context.io().add_site(site).unwrap();
        let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
        let address = context.io().local_addr(listener).unwrap();
        let mut state = State { echoes: true, ..State::default() };
        world.run(&mut context, &mut state);
        Self { world, context, state, address }
    }

    /// Until nothing is left to do that does not wait for time.
    pub(crate) fn run(&mut self) {
        self.world.run(&mut self.context, &mut self.state);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.world.run_for(&mut self.context, &mut self.state, time);
    }

    /// Asks for a WebSocket; the answer.
    pub(crate) fn ask(&mut self, target: &str, offers: &[&str]) -> (Endpoint, Answer) {
        let mut endpoint = self.world.connect(&self.address).unwrap();
        let fields: String =
            offers.iter().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).collect();
        endpoint.upgrade_with(target, &fields);
        self.run_for(MILLI);
        let answer = endpoint.next_head().expect("an answer");
        assert_eq!(answer.status, 101);
        (endpoint, answer)
    }

    /// What the server says to these offers.
    pub(crate) fn answer(&mut self, target: &str, offers: &[&str]) -> Option<String> {
        let (_, answer) = self.ask(target, offers);
        answer.field("sec-websocket-extensions").map(str::to_owned)
    }

    /// A client with these options, on which permessage-deflate has been agreed.
    pub(crate) fn open(&mut self, target: &str, options: Deflate) -> Client {
        let (endpoint, answer) = self.ask(target, &[&options.offer().to_string()]);
        let field = answer.field("sec-websocket-extensions").expect("it is accepted");
        let parameters = options.accepted([field.as_bytes()]).unwrap().unwrap();
        Client::new(endpoint, &options, parameters)
    }

    pub(crate) fn metrics(&mut self) -> Metrics {
        self.context.io().deflate_metrics()
    }

    pub(crate) fn payloads(&self) -> Vec<&[u8]> {
        self.state.messages.iter().map(|(_, _, payload)| &payload[..]).collect()
    }

    pub(crate) fn leave(mut self) {
        self.world.leave(&mut self.context, &mut self.state);
    }
}

/// A client's codec on an endpoint.
pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) parameters: Parameters,
    pub(crate) deflater: Deflater,
    sender: Sender,
    compressors: Compressors,
    receiver: Receiver,
    inflater: Inflater,
    decompressors: Decompressors,
    rest: Vec<u8>,
    /// First bytes of the frames that came, and their lengths.
    pub(crate) frames: Vec<(u8, usize)>,
    pub(crate) messages: Vec<(MessageKind, Vec<u8>)>,
    pub(crate) pongs: usize,
    pub(crate) close: Option<(u16, String)>,
}

const KEY: [u8; 4] = [0xa1, 0x5e, 0x33, 0x07];

impl Client {
    fn new(endpoint: Endpoint, options: &Deflate, parameters: Parameters) -> Self {
        Self {
            endpoint,
            parameters,
            deflater: Deflater::new(options, &parameters, Side::Client),
            sender: Sender::new(),
            compressors: Compressors::default(),
            receiver: Receiver::new(Side::Client),
            inflater: Inflater::new(&parameters, Side::Client),
            decompressors: Decompressors::default(),
            rest: Vec::new(),
            frames: Vec::new(),
            messages: Vec::new(),
            pongs: 0,
            close: None,
        }
    }

    /// A message as it goes over the wire.
    pub(crate) fn encode(&mut self, message: Message<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.deflater.encode(&mut bytes, message, Some(KEY), &mut self.compressors);
        bytes
    }

    /// The same in fragments of these payloads.
    pub(crate) fn encode_pieces(&mut self, kind: MessageKind, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let encode = |(index, piece): (usize, &&[u8])| {
            let mut bytes = Vec::new();
            let last = index + 1 == pieces.len();
            let (sender, pool) = (&mut self.sender, &mut self.compressors);
            self.deflater.encode_piece(sender, &mut bytes, kind, piece, last, Some(KEY), pool).unwrap();
            bytes
        };
        pieces.iter().enumerate().map(encode).collect()
    }

    pub(crate) fn send(&mut self, message: Message<'_>) {
        let bytes = self.encode(message);
        self.endpoint.send(bytes);
    }

    /// Sends a frame with this compressed payload, whatever that is.
    pub(crate) fn send_compressed(&mut self, kind: MessageKind, compressed: &[u8]) {
        let mut bytes = message_header(kind, compressed.len() as u64, Some(KEY)).as_bytes().to_vec();
        ws::mask::apply_copy(KEY, compressed, &mut bytes);
        self.endpoint.send(bytes);
    }

    /// Sends a frame that begins with this byte.
    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
        bytes.extend_from_slice(&KEY);
        ws::mask::apply_copy(KEY, payload, &mut bytes);
        self.endpoint.send(bytes);
    }

    /// Takes what has come.
    pub(crate) fn read(&mut self) {
        self.rest.extend(self.endpoint.take());
        let mut bytes = std::mem::take(&mut self.rest);
        let whole = note_frames(&bytes, &mut self.frames);
        let settings = Settings::default();
        let mut used = 0;
        while used < whole {
            let next = self.receiver.next_inflated(
                &mut bytes[used..whole],
                &settings,
                &mut self.inflater,
                &mut self.decompressors,
            );
            let (took, event) = next.expect("what the server sends is valid");
            used += took;
            match event {
                None => break,
                Some(Event::Message(message)) => {
                    self.messages.push((message.kind(), message.as_bytes().to_vec()));
                }
                Some(Event::Close(close)) => {
                    self.close = close.map(|close| (close.code.get(), close.reason.to_owned()));
                }
                Some(Event::Pong(_)) => self.pongs += 1,
                Some(event @ (Event::Ping(_) | Event::Piece(_))) => panic!("{event:?}"),
            }
        }
        self.rest = bytes.split_off(whole);
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.messages.iter().map(|(_, payload)| str::from_utf8(payload).unwrap()).collect()
    }

    pub(crate) fn close_code(&mut self) -> Option<u16> {
        self.read();
        self.close.as_ref().map(|(code, _)| *code)
    }
}

/// Notes the frames that are complete; where they end.
fn note_frames(mut bytes: &[u8], frames: &mut Vec<(u8, usize)>) -> usize {
    let all = bytes.len();
    while let Ok(Some((header, used))) = ws::Header::decode(bytes, Side::Client, 0x70) {
        let length = usize::try_from(header.length).unwrap();
        let Some(rest) = bytes.get(used + length..) else { break };
        frames.push((bytes[0], length));
        bytes = rest;
    }
    all - bytes.len()
}

/// JSON, which shrinks.
pub(crate) fn json(length: usize, salt: u32) -> String {
    let mut text = String::new();
    let mut number = salt;
    while text.len() < length {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += &format!(
            "{{\"id\":{},\"name\":\"n{}\",\"on\":{}}},",
            number >> 20,
            number >> 27,
            number & 1 == 0
        );
    }
    text.truncate(length);
    text
}

/// Bytes that do not shrink.
pub(crate) fn noise(length: usize, salt: u64) -> Vec<u8> {
    let mut state = salt | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}
