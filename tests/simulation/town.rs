//! The application in the simulated world: its state, and the books it keeps about every conn.
//!
//! Whatever a handler is told and whatever it was allowed to send is written into a [`Life`]. What cannot be true is
//! found on the spot; the rest is compared with what the peers know, at the end.

use super::dice::Dice;
use lodger::sim::{Frame, Network};
use lodger::ws::{Message, MessageKind};
use lodger::{
    By, CloseReason, Closed, ConnId, Connection, Cx, Flow, Io, Limits, Peer, ProtocolId, SendError,
};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The host's state.
pub(crate) struct Town {
    pub(crate) dice: Dice,
    pub(crate) mood: Mood,
    pub(crate) limits: Limits,
    pub(crate) network: Network,
    /// What `GET /file` answers with.
    pub(crate) file: PathBuf,
    pub(crate) lives: Vec<Life>,
    pub(crate) by_id: BTreeMap<ConnId, usize>,
    pub(crate) protocols: Vec<ProtocolId>,
    pub(crate) started: usize,
    pub(crate) ended: usize,
    /// Accepted connections that have begun and not ended.
    pub(crate) connections: Vec<Connection>,
    pub(crate) tasks: BTreeMap<u64, Task>,
    /// No more meddling: the world is to come to rest.
    pub(crate) settling: bool,
    /// `shutdown` or `leave` was called.
    pub(crate) leaving: bool,
    /// When the loop last went on after it had stood still: what was due meanwhile is late by that.
    pub(crate) went_on: Option<Instant>,
    serial: u64,
}

/// How handlers behave.
#[derive(Clone, Copy)]
pub(crate) struct Mood {
    /// How likely an event makes its handler do something besides its work.
    pub(crate) meddle: f64,
    /// Whether that may end conns.
    pub(crate) cruel: bool,
}

/// A task of `Io::after` that has not run.
pub(crate) struct Task {
    due: Instant,
    /// How it can be cancelled, if nobody depends on it.
    id: Option<lodger::TaskId>,
}

/// What was sent on a WebSocket, as its peer must see it.
pub(crate) struct Sent {
    pub(crate) frame: Frame,
    /// `broadcast` does not tell who took it.
    pub(crate) perhaps: bool,
}

/// One conn, from its handler's first event to `closed`.
pub(crate) struct Life {
    pub(crate) id: ConnId,
    pub(crate) port: u16,
    pub(crate) kind: Kind,
    /// Whole messages, by opcode.
    pub(crate) got: Vec<(u8, Vec<u8>)>,
    /// Of the message in pieces that is under way.
    pub(crate) part: Option<(u8, Vec<u8>)>,
    pub(crate) got_bytes: Vec<u8>,
    pub(crate) got_end: bool,
    pub(crate) sent: Vec<Sent>,
    pub(crate) sent_bytes: Vec<u8>,
    /// A message is being sent in pieces.
    in_message: bool,
    /// Shared frames that wait for the end of that message.
    held: Vec<Sent>,
    pub(crate) pongs: Vec<Vec<u8>>,
    pub(crate) paused: bool,
    /// What the application did to end it, first.
    pub(crate) ending: Option<Ending>,
    pub(crate) closed: Option<Why>,
    pub(crate) unsent: usize,
    peer_closed: bool,
    timer: Option<Instant>,
    events: VecDeque<u64>,
    parent: Option<ConnId>,
    told_parent: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Talk,
    Exchange,
    Bytes,
    Watched,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    Finished,
    Closed,
    Aborted,
    Released,
}

/// [`CloseReason`], as far as it can be compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Why {
    Completed,
    Handshake(By),
    Closed,
    Aborted,
    PeerEnded,
    Io,
    Protocol,
    TooLarge,
    Content,
    TimedOut,
    Host,
    Released,
    Leaving,
}

/// What conns are told by each other.
pub(crate) enum Event {
    Hello(u64),
    /// Respond now.
    Answer(u64),
}

pub(crate) fn why(reason: &CloseReason) -> Why {
    match reason {
        CloseReason::Completed => Why::Completed,
        CloseReason::Handshake { by, .. } => Why::Handshake(*by),
        CloseReason::Closed => Why::Closed,
        CloseReason::Aborted => Why::Aborted,
        CloseReason::PeerEnded => Why::PeerEnded,
        CloseReason::Io(_) => Why::Io,
        CloseReason::Protocol(_) => Why::Protocol,
        CloseReason::TooLarge => Why::TooLarge,
        CloseReason::Content | CloseReason::ContentTooLarge => Why::Content,
        CloseReason::TimedOut(_) => Why::TimedOut,
        CloseReason::Host(_) => Why::Host,
        CloseReason::Released { .. } => Why::Released,
        CloseReason::Leaving => Why::Leaving,
        other => panic!("unexpected: {other}"),
    }
}

pub(crate) fn port(peer: &Peer) -> u16 {
    peer.inet().map_or(0, |address| address.port())
}

impl Life {
    pub(crate) fn is_live(&self) -> bool {
        self.closed.is_none()
    }

    fn name(&self) -> String {
        format!("{:?} {} of port {}", self.kind, self.id, self.port)
    }
}

impl Town {
    pub(crate) fn new(dice: Dice, mood: Mood, limits: Limits, network: Network, file: PathBuf) -> Self {
        Self {
            dice,
            mood,
            limits,
            network,
            file,
            lives: Vec::new(),
            by_id: BTreeMap::new(),
            protocols: Vec::new(),
            went_on: None,
            started: 0,
            ended: 0,
            tasks: BTreeMap::new(),
            settling: false,
            leaving: false,
            connections: Vec::new(),
            serial: 0,
        }
    }

    pub(crate) fn delay(&mut self) -> Duration {
        Duration::from_micros(
            self.dice.pick(&[0, 1, 900, 20_000, 300_000, 1_500_000]) + self.dice.next() % 5000,
        )
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    // The books.

    pub(crate) fn begin(&mut self, id: ConnId, port: u16, kind: Kind) -> usize {
        self.lives.push(Life {
            id,
            port,
            kind,
            got: Vec::new(),
            part: None,
            got_bytes: Vec::new(),
            got_end: false,
            sent: Vec::new(),
            sent_bytes: Vec::new(),
            in_message: false,
            held: Vec::new(),
            pongs: Vec::new(),
            paused: false,
            ending: None,
            closed: None,
            unsent: 0,
            peer_closed: false,
            timer: None,
            events: VecDeque::new(),
            parent: None,
            told_parent: false,
        });
        let life = self.lives.len() - 1;
        assert!(self.by_id.insert(id, life).is_none(), "a conn has the name of another");
        life
    }

    /// Each event of a handler passes here.
    pub(crate) fn enter(&mut self, life: usize, event: &str) -> &mut Life {
        let life = &mut self.lives[life];
        assert!(life.is_live(), "{event} after closed: {}", life.name());
        assert!(
            !matches!(life.ending, Some(Ending::Aborted | Ending::Released)),
            "{event} after {:?}: {}",
            life.ending,
            life.name()
        );
        // An exchange whose response has begun is completed first.
        let closing = life.ending == Some(Ending::Closed) && life.kind != Kind::Exchange;
        assert!(!closing, "{event} after close: {}", life.name());
        life
    }

    /// Content passes here too.
    pub(crate) fn receive(&mut self, life: usize, event: &str) -> &mut Life {
        let life = self.enter(life, event);
        assert!(!life.peer_closed && !life.got_end, "{event} after the peer's end: {}", life.name());
        assert!(!life.paused, "{event} while paused: {}", life.name());
        life
    }

    pub(crate) fn peer_closed(&mut self, life: usize) {
        self.receive(life, "peer_closed").peer_closed = true;
    }

    pub(crate) fn timer(&mut self, life: usize, now: Instant) {
        let life = self.enter(life, "timer");
        let name = life.name();
        let due = life.timer.take().unwrap_or_else(|| panic!("a timer that was not set: {name}"));
        assert!(now >= due, "a timer came {:?} early: {name}", due - now);
        assert!(now - self.served_from(due) <= LATE, "a timer came {:?} late: {name}", now - due);
    }

    pub(crate) fn event(&mut self, life: usize, event: &dyn Any) -> bool {
        let life = self.enter(life, "event");
        let (serial, answer) = match event.downcast_ref() {
            Some(Event::Hello(serial)) => (*serial, false),
            Some(Event::Answer(serial)) => (*serial, true),
            None => panic!("an event of somebody else's"),
        };
        assert_eq!(life.events.pop_front(), Some(serial), "events out of order: {}", life.name());
        answer
    }

    pub(crate) fn child_closed(&mut self, life: usize, child: ConnId) {
        let id = self.enter(life, "child_closed").id;
        let child = &mut self.lives[self.by_id[&child]];
        assert_eq!(child.parent, Some(id), "told of a child of another: {}", child.name());
        assert!(!std::mem::replace(&mut child.told_parent, true), "told twice: {}", child.name());
    }

    /// Returns what a release gave back.
    pub(crate) fn closed(
        &mut self,
        life: usize,
        closed: Closed,
        now: Instant,
    ) -> Option<(std::os::fd::OwnedFd, Vec<u8>)> {
        let went_on = self.went_on;
        let life = &mut self.lives[life];
        let name = life.name();
        let why = why(&closed.reason);
        assert!(life.closed.replace(why).is_none(), "closed twice: {name}");
        life.unsent = closed.unsent;
        // What was closing has heard no timer.
        let sudden = matches!(why, Why::Completed | Why::Aborted | Why::Released | Why::Host);
        if let Some(due) = life.timer.filter(|_| sudden && life.ending.is_none()) {
            let due = went_on.map_or(due, |went_on| went_on.max(due));
            assert!(now.saturating_duration_since(due) <= LATE, "a timer never came: {name}");
        }
        let ending = life.ending;
        let plausible = match why {
            Why::Aborted => ending == Some(Ending::Aborted),
            Why::Released => ending == Some(Ending::Released),
            Why::Leaving => self.leaving,
            // An abort may follow a close, the reason of which stands.
            Why::Closed => self.leaving || matches!(ending, Some(Ending::Closed | Ending::Aborted)),
            Why::Completed | Why::Content => life.kind == Kind::Exchange,
            Why::Handshake(_) | Why::Protocol | Why::TooLarge => life.kind == Kind::Talk,
            Why::PeerEnded | Why::Io | Why::TimedOut | Why::Host => true,
        };
        assert!(plausible, "{name} ended: {} after {ending:?}", closed.reason);
        match ending {
            // What was known before the abort stands.
            Some(Ending::Aborted) => {
                assert!(!matches!(why, Why::Completed | Why::TimedOut), "{name} {why:?}")
            }
            Some(Ending::Released) => {
                // What the peer broke off before is not given back.
                let broken = matches!(why, Why::Handshake(_) | Why::Protocol | Why::TooLarge | Why::Content);
                let expected = broken || matches!(why, Why::Released | Why::Leaving | Why::Host);
                assert!(expected, "{name} ended: {} after {ending:?}", closed.reason);
            }
            _ => {}
        }
        match closed.reason {
            CloseReason::Released { descriptor, unread } => Some((descriptor, unread)),
            _ => None,
        }
    }

    /// Gives a descriptor that was released back to the system.
    pub(crate) fn let_go(&mut self, released: Option<(std::os::fd::OwnedFd, Vec<u8>)>) {
        if let Some((descriptor, _)) = released {
            self.network.close(descriptor);
        }
    }

    // What handlers do.

    fn life_of(&self, id: ConnId) -> Option<usize> {
        self.by_id.get(&id).copied().filter(|life| self.lives[*life].is_live())
    }

    fn refused(&self, io: &mut Io<Self>, life: usize, error: SendError) {
        let life = &self.lives[life];
        let queued = io.conn(life.id).map_or(0, |conn| conn.queued());
        let plausible = match error {
            SendError::Overrun => queued + 1 >= self.limits.send_max,
            SendError::InMessage => life.in_message,
            SendError::Closing | SendError::Gone => true,
            _ => false,
        };
        assert!(plausible, "{error} with {queued} bytes queued: {}", life.name());
    }

    pub(crate) fn send(&mut self, io: &mut Io<Self>, id: ConnId, message: Message<'_>) -> Option<Flow> {
        let life = self.life_of(id)?;
        match io.conn(id)?.send(message) {
            Ok(flow) => {
                let opcode = opcode(message.kind());
                let frame = Frame::new(opcode, message.as_bytes());
                self.lives[life].sent.push(Sent { frame, perhaps: false });
                self.bounded(io, life, flow, message.len());
                Some(flow)
            }
            Err(error) => {
                self.refused(io, life, error);
                None
            }
        }
    }

    pub(crate) fn send_piece(
        &mut self,
        io: &mut Io<Self>,
        id: ConnId,
        kind: MessageKind,
        payload: &[u8],
        last: bool,
    ) -> Option<Flow> {
        let life = self.life_of(id)?;
        match io.conn(id)?.send_piece(kind, payload, last) {
            Ok(flow) => {
                let entry = &mut self.lives[life];
                let opcode = if std::mem::replace(&mut entry.in_message, !last) { 0 } else { opcode(kind) };
                let frame = Frame::new(opcode, payload);
                let frame = if last { frame } else { frame.unfinished() };
                entry.sent.push(Sent { frame, perhaps: false });
                if last {
                    let held = std::mem::take(&mut entry.held);
                    entry.sent.extend(held);
                }
                Some(flow)
            }
            Err(error) => {
                self.refused(io, life, error);
                None
            }
        }
    }

    pub(crate) fn ping(&mut self, io: &mut Io<Self>, id: ConnId) {
        let payload = format!("server {}", self.serial());
        let Some(life) = self.life_of(id) else { return };
        if io.conn(id).is_some_and(|mut conn| conn.ping(payload.as_bytes()).is_ok()) {
            self.lives[life].sent.push(Sent { frame: Frame::ping(payload), perhaps: false });
        }
    }

    pub(crate) fn write(&mut self, io: &mut Io<Self>, id: ConnId, bytes: &[u8]) -> Option<Flow> {
        let life = self.life_of(id)?;
        match io.conn(id)?.write(bytes) {
            Ok(flow) => {
                self.lives[life].sent_bytes.extend(bytes);
                self.bounded(io, life, flow, bytes.len());
                Some(flow)
            }
            Err(error) => {
                self.refused(io, life, error);
                None
            }
        }
    }

    /// What waits is bounded by the limit and one message; what is gathered before the first write comes on top.
    fn bounded(&self, io: &mut Io<Self>, life: usize, flow: Flow, length: usize) {
        let life = &self.lives[life];
        let queued = io.conn(life.id).map_or(0, |conn| conn.queued());
        let bound = self.limits.send_max + length + GATHERED;
        assert!(queued <= bound, "{queued} bytes wait: {}", life.name());
        let high = self.limits.send_high_water;
        assert!(flow == Flow::Full || queued < high + GATHERED, "{queued} bytes wait: {}", life.name());
    }

    /// Tells everybody of a protocol, through one frame.
    pub(crate) fn tell_all(&mut self, io: &mut Io<Self>, protocol: ProtocolId) {
        let text = format!("to all {}", self.serial());
        let frame = Frame::text(&text);
        let shared = io.encode(&*text);
        if self.dice.chance(0.5) {
            let members: Vec<ConnId> = io.conns_of(protocol).collect();
            for id in members {
                let Some(life) = self.life_of(id) else { continue };
                let taken = io.conn(id).is_some_and(|mut conn| conn.send_shared(&shared).is_ok());
                if taken {
                    self.note_shared(life, &frame, false);
                }
            }
        } else {
            let members: Vec<usize> = io.conns_of(protocol).filter_map(|id| self.life_of(id)).collect();
            let members: Vec<usize> =
                members.into_iter().filter(|life| self.lives[*life].kind == Kind::Talk).collect();
            let taken = io.broadcast(protocol, &shared).sent;
            assert!(taken <= members.len(), "{taken} of {} took a frame", members.len());
            for life in &members {
                self.note_shared(*life, &frame, taken < members.len());
            }
        }
    }

    fn note_shared(&mut self, life: usize, frame: &Frame, perhaps: bool) {
        let life = &mut self.lives[life];
        let sent = Sent { frame: frame.clone(), perhaps };
        if life.in_message { life.held.push(sent) } else { life.sent.push(sent) }
    }

    pub(crate) fn pause(&mut self, io: &mut Io<Self>, id: ConnId) {
        let Some(life) = self.life_of(id) else { return };
        let Some(mut conn) = io.conn(id) else { return };
        conn.pause();
        // A closing handshake is not to be held up.
        self.lives[life].paused = self.lives[life].ending.is_none();
        let delay = self.delay();
        self.after(io, delay, move |town, io| town.resume(io, id));
    }

    pub(crate) fn resume(&mut self, io: &mut Io<Self>, id: ConnId) {
        let Some(life) = self.life_of(id) else { return };
        if let Some(mut conn) = io.conn(id) {
            conn.resume();
            self.lives[life].paused = false;
        }
    }

    /// Stops reading until what was sent has been taken.
    pub(crate) fn wait_for_room(&mut self, io: &mut Io<Self>, id: ConnId) {
        let Some(life) = self.life_of(id) else { return };
        let Some(mut conn) = io.conn(id) else { return };
        conn.pause();
        conn.request_writable();
        self.lives[life].paused = self.lives[life].ending.is_none();
    }

    /// When what was due at `due` could be served.
    fn served_from(&self, due: Instant) -> Instant {
        self.went_on.map_or(due, |went_on| went_on.max(due))
    }

    pub(crate) fn after(
        &mut self,
        io: &mut Io<Self>,
        delay: Duration,
        run: impl FnOnce(&mut Self, &mut Io<Self>) + 'static,
    ) -> (u64, lodger::TaskId) {
        let serial = self.serial();
        let due = io.now() + delay;
        let id = io.after(delay, move |town: &mut Self, io| {
            assert!(town.tasks.remove(&serial).is_some(), "a task ran that was cancelled");
            let now = io.now();
            assert!(now >= due && now - town.served_from(due) <= LATE, "a task of {due:?} ran at {now:?}");
            run(town, io);
        });
        self.tasks.insert(serial, Task { due, id: None });
        (serial, id)
    }

    pub(crate) fn notify(&mut self, io: &mut Io<Self>, id: ConnId, answer: bool) {
        let serial = self.serial();
        let event = if answer { Event::Answer(serial) } else { Event::Hello(serial) };
        if io.notify(id, Box::new(event)).is_ok() {
            let life = self.life_of(id).expect("who is notified is alive");
            self.lives[life].events.push_back(serial);
        }
    }

    pub(crate) fn end(&mut self, io: &mut Io<Self>, id: ConnId, ending: Ending) {
        let Some(life) = self.life_of(id) else { return };
        let Some(mut conn) = io.conn(id) else { return };
        let entry = &mut self.lives[life];
        let before = entry.ending;
        match ending {
            Ending::Finished if entry.kind != Kind::Bytes => return,
            Ending::Finished => conn.finish(),
            Ending::Closed if self.dice.chance(0.5) => conn.close(),
            Ending::Closed => conn.close_with(lodger::ws::CloseCode::POLICY, "because"),
            Ending::Aborted => conn.abort(),
            // What has begun to close is not given back any more.
            Ending::Released if before.is_some() => return,
            Ending::Released => conn.release(),
        }
        let stronger = match (before, ending) {
            (Some(Ending::Aborted), _) => Ending::Aborted,
            (Some(Ending::Released), Ending::Finished | Ending::Closed) => Ending::Released,
            (Some(Ending::Closed), Ending::Finished) => Ending::Closed,
            _ => ending,
        };
        self.lives[life].ending = Some(stronger);
        self.lives[life].paused = false;
    }

    /// Something that nobody expects, at times.
    pub(crate) fn meddle(&mut self, io: &mut Io<Self>, me: ConnId) {
        let probability = self.mood.meddle;
        if self.settling || !self.dice.chance(probability) {
            return;
        }
        let other = self.somebody().unwrap_or(me);
        match self.dice.below(if self.mood.cruel { 21 } else { 16 }) {
            0 | 1 => self.pause(io, me),
            2 => self.pause(io, other),
            3 => self.resume(io, me),
            4 => {
                let (who, delay) = (self.dice.pick(&[me, other]), self.delay());
                if let (Some(life), Some(mut conn)) = (self.life_of(who), io.conn(who)) {
                    conn.set_timer(delay);
                    self.lives[life].timer = Some(io.now() + delay);
                }
            }
            5 => {
                if let (Some(life), Some(mut conn)) = (self.life_of(other), io.conn(other)) {
                    conn.cancel_timer();
                    self.lives[life].timer = None;
                }
            }
            6 => {
                if let Some(mut conn) = io.conn(other) {
                    conn.request_writable();
                }
            }
            7 => self.notify(io, other, false),
            8 => {
                if let (Some(life), Some(mut conn)) = (self.life_of(me), io.conn(me)) {
                    let new = me != other && self.lives[life].parent.is_none();
                    if new && self.life_of(other).is_some() {
                        conn.set_parent(other);
                        self.lives[life].parent = Some(other);
                    }
                }
            }
            9 => {
                let delay = self.delay();
                let (serial, id) = self.after(io, delay, move |town, io| town.say(io, other));
                self.tasks.get_mut(&serial).expect("it has not run").id = Some(id);
            }
            10 => self.say(io, other),
            11 => {
                if let Some(protocol) = self.protocols.first().copied() {
                    self.tell_all(io, protocol);
                }
            }
            12 => self.ping(io, other),
            13 => {
                let task = self.tasks.iter_mut().find_map(|(serial, task)| Some((*serial, task.id.take()?)));
                if let Some((serial, task)) = task {
                    assert!(io.cancel(task), "a task that has not run can be cancelled");
                    assert!(!io.cancel(task), "a task can be cancelled once");
                    self.tasks.remove(&serial);
                }
            }
            14 | 15 => self.say(io, me),
            16 => self.end(io, me, Ending::Aborted),
            17 => self.end(io, other, Ending::Aborted),
            18 => self.end(io, me, Ending::Closed),
            19 => {
                let ending = self.dice.pick(&[Ending::Closed, Ending::Finished]);
                self.end(io, other, ending);
            }
            _ => self.end(io, me, Ending::Released),
        }
    }

    /// Something to say, to a talker.
    pub(crate) fn say(&mut self, io: &mut Io<Self>, id: ConnId) {
        let Some(life) = self.life_of(id) else { return };
        let text = format!("by the way {} ", self.serial());
        match self.lives[life].kind {
            Kind::Talk if self.dice.chance(0.2) => {
                let mut bytes = text.into_bytes();
                let length = self.dice.length();
                bytes.extend(self.dice.bytes(length));
                self.send(io, id, Message::Binary(&bytes));
            }
            Kind::Talk => {
                self.send(io, id, Message::Text(&text));
            }
            Kind::Bytes => {
                self.write(io, id, text.as_bytes());
            }
            Kind::Exchange | Kind::Watched => {}
        }
    }

    pub(crate) fn somebody(&mut self) -> Option<ConnId> {
        if self.lives.is_empty() {
            return None;
        }
        // Dead ones too: their names must find nothing.
        let recent = self.lives.len().min(60);
        let at = self.lives.len() - 1 - self.dice.below(recent);
        Some(self.lives[at].id)
    }

    // At the end.

    pub(crate) fn check_tasks(&self, now: Instant) {
        for task in self.tasks.values() {
            assert!(now.saturating_duration_since(self.served_from(task.due)) <= LATE, "a task never ran");
        }
        for life in self.lives.iter().filter(|life| life.is_live()) {
            if let Some(due) = life.timer.filter(|_| life.ending.is_none()) {
                assert!(
                    now.saturating_duration_since(self.served_from(due)) <= LATE,
                    "a timer never came: {}, {:?}",
                    life.name(),
                    life.ending
                );
            }
            assert!(life.events.is_empty() || life.ending.is_some(), "an event never came: {}", life.name());
        }
    }

    pub(crate) fn check_ended(&self) {
        for life in &self.lives {
            assert!(!life.is_live(), "never closed: {}", life.name());
            let parent = life.parent.map(|parent| &self.lives[self.by_id[&parent]]);
            if let Some(parent) = parent.filter(|_| !life.told_parent) {
                assert!(!parent.is_live(), "a parent was not told: {}", parent.name());
            }
        }
        assert!(self.connections.is_empty(), "connections never ended: {:?}", self.connections);
        assert_eq!((self.started, self.ended), (self.protocols.len(), self.protocols.len()));
    }
}

/// What every handler of a conn does with the events that all have.
#[derive(Clone, Copy)]
pub(crate) struct Session(pub(crate) usize);

impl Session {
    pub(crate) fn timer(self, cx: &mut Cx<'_, Town>) {
        let (id, now) = (cx.id(), cx.io.now());
        cx.data.timer(self.0, now);
        cx.data.meddle(cx.io, id);
    }

    /// Whether to respond now.
    pub(crate) fn event(self, cx: &mut Cx<'_, Town>, event: &dyn Any) -> bool {
        let id = cx.id();
        let answer = cx.data.event(self.0, event);
        cx.data.meddle(cx.io, id);
        answer
    }

    pub(crate) fn child_closed(self, cx: &mut Cx<'_, Town>, child: ConnId) {
        let id = cx.id();
        cx.data.child_closed(self.0, child);
        cx.data.meddle(cx.io, id);
    }

    pub(crate) fn writable(self, cx: &mut Cx<'_, Town>) {
        let id = cx.id();
        cx.data.enter(self.0, "writable");
        cx.data.resume(cx.io, id);
        cx.data.meddle(cx.io, id);
    }

    pub(crate) fn closed(
        self,
        cx: &mut Cx<'_, Town>,
        closed: Closed,
    ) -> Option<(std::os::fd::OwnedFd, Vec<u8>)> {
        let (id, now) = (cx.id(), cx.io.now());
        assert!(cx.io.conn(id).is_none(), "a conn is found in its closed");
        let released = cx.data.closed(self.0, closed, now);
        cx.data.meddle(cx.io, id);
        released
    }
}

pub(crate) fn opcode(kind: MessageKind) -> u8 {
    match kind {
        MessageKind::Text => 1,
        MessageKind::Binary => 2,
    }
}

/// The loop oversleeps by up to 20 ms; nothing may come later than that.
pub(crate) const LATE: Duration = Duration::from_millis(20);
/// What the link being served may have gathered before it is written.
const GATHERED: usize = 80 * 1024;
