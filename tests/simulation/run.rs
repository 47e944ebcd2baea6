//! One simulated town from its first peer to its last descriptor.

use super::dice::Dice;
use super::handlers::{FILE, House, Pipe, Style, Talker, Watcher, accept_bytes, content};
use super::peer::{Peer, Role};
use super::town::{Kind, Mood, Session, Town, Why};
use lodger::sim::{Chaos, Endpoint, Loop, World};
use lodger::ws::CloseCode;
use lodger::{By, Context, Interest, Limits, Listen, ListenerId, Site, SiteId};
use std::path::PathBuf;
use std::time::Duration;

/// What kind of town it is.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) peers: usize,
    pub(crate) steps: usize,
    pub(crate) chaos: Chaos,
    pub(crate) mood: Mood,
    /// The share of peers that break off, stop reading, and break protocols.
    pub(crate) rude: f64,
    /// How many contexts share the loop.
    pub(crate) contexts: usize,
    /// Contexts move between two loops.
    pub(crate) moves: bool,
}

/// A context with its state, and where it listens.
struct Place {
    context: Context<Town>,
    town: Town,
    site: SiteId,
    listener: ListenerId,
    raw_listener: ListenerId,
    adopted: Vec<u16>,
}

struct Run {
    world: World,
    loops: [Loop; 2],
    at: usize,
    places: Vec<Place>,
    peers: Vec<(usize, Peer)>,
    dice: Dice,
    plan: Plan,
}

/// Runs a town and checks it. Returns the fingerprint of all that happened.
pub(crate) fn run(seed: u64, plan: Plan) -> u64 {
    let mut world = World::new(seed);
    let dice = Dice::new(seed);
    let loops = [world.new_loop(), world.new_loop()];
    let mut run = Run { world, loops, at: 0, places: Vec::new(), peers: Vec::new(), dice, plan };
    for _ in 0..plan.contexts {
        run.add_place();
    }
    run.turn(Duration::ZERO);
    run.world.chaos(plan.chaos);
    for step in 0..plan.steps {
        run.step(step);
    }
    run.settle();
    run.end();
    run.world.fingerprint()
}

/// A file of known content, for all runs of this process.
pub(crate) fn file() -> PathBuf {
    use std::sync::OnceLock;
    static FILE_PATH: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulation.txt");
        let own = path.with_extension(format!("{}.txt", std::process::id()));
        std::fs::write(&own, content(FILE)).expect("the folder for tests is writable");
        std::fs::rename(&own, &path).expect("the folder for tests is writable");
        path
    };
    FILE_PATH.get_or_init(make).clone()
}

fn limits(dice: &mut Dice) -> Limits {
    Limits {
        head: 2048,
        fields: 20,
        message: 80_000,
        send_high_water: dice.pick(&[100, 4096, 65_536]),
        send_max: dice.pick(&[70_000, 200_000]),
        head_time: Duration::from_secs(5),
        body_stall: Duration::from_secs(6),
        closing: Duration::from_secs(3),
        write_stall: Duration::from_secs(7),
        ping_interval: dice.chance(0.3).then(|| Duration::from_secs(2)),
        ..Limits::default()
    }
}

impl Run {
    fn add_place(&mut self) {
        let limits = limits(&mut self.dice);
        let network = self.world.network();
        let mut town = Town::new(self.dice.fork(), self.plan.mood, limits.clone(), network, file());
        let mut context: Context<Town> = self.world.builder().build();
        let io = context.io();
        let house = |style| House { style, id: None };
        let site = Site::new()
            .protocol("", house(Style::Echo))
            .protocol("streamed", house(Style::Streamed))
            .protocol("chat", house(Style::Chat))
            .limits(limits.clone());
        let site = io.add_site(site).expect("a site with a protocol");
        let listener = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), site).expect("it listens");
        let raw_listener =
            io.listen_raw(Listen::tcp(([127, 0, 0, 1], 0)), limits, accept_bytes).expect("it listens");
        town.protocols.clear();
        self.places.push(Place { context, town, site, listener, raw_listener, adopted: Vec::new() });
    }

    /// Lets the loop run for some time.
    fn turn(&mut self, time: Duration) {
        let mut guests: Vec<_> =
            self.places.iter_mut().map(|place| (&mut place.context, &mut place.town)).collect();
        match time {
            Duration::ZERO => self.loops[self.at].run_all(&mut guests),
            time => self.loops[self.at].run_all_for(&mut guests, time),
        }
        for place in &mut self.places {
            let bound = place.town.limits.send_max + MOST_AT_ONCE;
            for link in place.context.io().links() {
                assert!(link.queued <= bound, "{} bytes wait: {link:?}", link.queued);
            }
        }
    }

    fn step(&mut self, step: usize) {
        let coming =
            self.plan.peers * (step + 1) / self.plan.steps - self.plan.peers * step / self.plan.steps;
        for _ in 0..coming {
            self.add_peer();
        }
        for (_, peer) in &mut self.peers {
            if self.dice.chance(0.5) {
                peer.act();
            } else {
                peer.read();
            }
        }
        self.host_acts();
        if self.dice.chance(0.08) {
            self.stand_still();
        }
        let time = match self.dice.below(3) {
            0 => Duration::ZERO,
            1 => Duration::from_micros(self.dice.below(60_000) as u64),
            _ => Duration::from_millis(self.dice.below(700) as u64),
        };
        if self.dice.chance(0.3) {
            // Single turns leave more under way.
            for _ in 0..self.dice.below(4) {
                let mut guests: Vec<_> =
                    self.places.iter_mut().map(|place| (&mut place.context, &mut place.town)).collect();
                self.loops[self.at].turn_all(&mut guests);
            }
        } else {
            self.turn(time);
        }
        for (_, peer) in &mut self.peers {
            peer.follow();
        }
    }

    /// The process is stopped, or a handler takes long. Peers are in time all the same.
    fn stand_still(&mut self) {
        for (_, peer) in &mut self.peers {
            peer.act();
        }
        let time = Duration::from_millis(self.dice.below(2_900) as u64);
        let went_on = self.world.now() + time;
        for place in &mut self.places {
            place.town.went_on = Some(went_on);
        }
        let mut guests: Vec<_> =
            self.places.iter_mut().map(|place| (&mut place.context, &mut place.town)).collect();
        self.loops[self.at].stand_still_all(&mut guests, time);
    }

    /// What the host does between service calls.
    fn host_acts(&mut self) {
        let at = self.dice.below(self.places.len());
        let place = &mut self.places[at];
        if let Some(id) = place.town.somebody() {
            place.town.meddle(place.context.io(), id);
        }
        if self.plan.moves && self.dice.chance(0.1) {
            for place in &mut self.places {
                place.context.detach(self.loops[self.at].host_mut());
            }
            assert_eq!(self.loops[self.at].host().watched().count(), 0, "left behind by detach");
            self.at = 1 - self.at;
        }
        // A host that refuses things may have refused listeners.
        for place in &mut self.places {
            let limits = place.town.limits.clone();
            let io = place.context.io();
            if io.local_addr(place.listener).is_none() {
                place.listener = io.listen(Listen::tcp(([127, 0, 0, 1], 0)), place.site).expect("it listens");
            }
            if io.local_addr(place.raw_listener).is_none() {
                let again = io.listen_raw(Listen::tcp(([127, 0, 0, 1], 0)), limits, accept_bytes);
                place.raw_listener = again.expect("it listens");
            }
        }
    }

    fn add_peer(&mut self) {
        let at = self.dice.below(self.places.len());
        let friendly = !self.dice.chance(self.plan.rude);
        let kind = self.dice.below(20);
        let mut dice = self.dice.fork();
        let place = &mut self.places[at];
        let limits = place.town.limits.clone();
        let peer = match kind {
            0 => {
                // Bytes that somebody read before.
                let Ok((socket, endpoint)) = self.world.socket() else { return };
                let before = dice.bytes(30);
                let port = super::town::port(&endpoint.address());
                let handler = Box::new(Pipe::adopted(dice.chance(0.3), port));
                let adopted = place.context.io().adopt_raw(socket, &before, limits, handler);
                adopted.expect("it is adopted");
                Peer::sender(endpoint, dice, before, friendly)
            }
            1 => {
                let Ok((socket, endpoint)) = self.world.socket() else { return };
                let life = place.town.lives.len();
                let style = dice.pick(&[Style::Echo, Style::Streamed]);
                let handler = Box::new(Talker::adopted(style, Session(life)));
                let id = place.context.io().adopt_websocket(socket, &[], limits, handler);
                let port = super::town::port(&endpoint.address());
                place.town.begin(id.expect("it is adopted"), port, Kind::Talk);
                Peer::adopted_talker(endpoint, dice, style == Style::Streamed, 80_000, friendly)
            }
            2 => {
                let Ok((socket, endpoint)) = self.world.socket() else { return };
                place.context.io().adopt_http(socket, &[], place.site).expect("it is adopted");
                Peer::visitor(endpoint, dice, limits.head, friendly)
            }
            3 => {
                let Ok((socket, endpoint)) = self.world.socket() else { return };
                let handler = Box::new(Watcher::new(Session(place.town.lives.len())));
                let id = place.context.io().adopt(socket, Interest::READ, handler).expect("it is adopted");
                place.town.begin(id, super::town::port(&endpoint.address()), Kind::Watched);
                Peer::sender(endpoint, dice, Vec::new(), friendly)
            }
            4..6 => {
                // From within a task of the loop.
                let Ok((socket, endpoint)) = self.world.socket() else { return };
                let before = dice.bytes(30);
                let bytes = before.clone();
                let port = super::town::port(&endpoint.address());
                let delay = place.town.delay();
                place.town.after(place.context.io(), delay, move |town, io| {
                    let limits = town.limits.clone();
                    match io.adopt_raw(socket, &bytes, limits, Box::new(Pipe::adopted(false, port))) {
                        Ok(_) => {}
                        Err(refused) => town.network.close(refused.descriptor),
                    }
                });
                Peer::sender(endpoint, dice, before, friendly)
            }
            6..8 => match self.connect(at, true) {
                Some(endpoint) => Peer::sender(endpoint, dice, Vec::new(), friendly),
                None => return,
            },
            8..13 => match self.connect(at, false) {
                Some(endpoint) => Peer::visitor(endpoint, dice, limits.head, friendly),
                None => return,
            },
            _ => {
                let Some(endpoint) = self.connect(at, false) else { return };
                let subprotocol = dice.pick(&["", "", "streamed", "streamed", "chat"]);
                Peer::talker(endpoint, dice, subprotocol, 80_000, friendly)
            }
        };
        self.places[at].adopted.push(peer.port);
        self.peers.push((at, peer));
    }

    fn connect(&mut self, at: usize, raw: bool) -> Option<Endpoint> {
        let place = &mut self.places[at];
        let listener = if raw { place.raw_listener } else { place.listener };
        let address = place.context.io().local_addr(listener)?;
        self.world.connect(&address).ok()
    }

    // The end.

    /// Lets everything come to rest, and checks that everything has arrived.
    fn settle(&mut self) {
        let hostile = self.plan.chaos.failing_adds > 0.0;
        self.world.chaos(Chaos { buffer: self.plan.chaos.buffer, ..Chaos::wild() });
        self.places.iter_mut().for_each(|place| place.town.settling = true);
        // Timeouts of those who stopped go by, and so do pauses; pings want answers.
        for _ in 0..20 {
            for (_, peer) in &mut self.peers {
                peer.settle();
                peer.follow();
            }
            self.turn(Duration::from_millis(900));
        }
        self.peers.iter_mut().for_each(|(_, peer)| peer.read());
        for place in &mut self.places {
            let now = place.context.io().now();
            place.town.check_tasks(now);
        }
        for (at, peer) in &self.peers {
            check(&self.places[*at].town, peer, hostile);
        }
        // At rest nothing wakes the loop, but for pings.
        self.world.chaos(Chaos { buffer: self.plan.chaos.buffer, ..Chaos::NONE });
        self.turn(Duration::ZERO);
        let before = self.loops[self.at].host().wake_ups();
        self.turn(Duration::ZERO);
        assert_eq!(self.loops[self.at].host().wake_ups(), before, "an idle loop was woken");
        self.world.chaos(Chaos { buffer: self.plan.chaos.buffer, ..Chaos::wild() });
    }

    fn end(&mut self) {
        self.places.iter_mut().for_each(|place| place.town.leaving = true);
        if self.dice.chance(0.5) {
            for place in &mut self.places {
                place.context.io().shutdown(CloseCode::GOING_AWAY);
            }
            for _ in 0..12 {
                self.peers.iter_mut().for_each(|(_, peer)| peer.follow());
                self.turn(Duration::from_millis(900));
            }
            for place in &mut self.places {
                let left: Vec<_> = place.context.io().links().map(|link| format!("{link:?}")).collect();
                assert!(left.is_empty(), "left by shutdown: {left:#?}");
            }
        }
        for place in &mut self.places {
            place.context.leave(self.loops[self.at].host_mut(), &mut place.town);
            assert_eq!(place.context.io().link_count(), 0);
        }
        self.loops.iter().for_each(|each| assert_eq!(each.host().watched().count(), 0, "left behind"));
        self.peers.iter_mut().for_each(|(_, peer)| peer.follow());
        // A task that was to adopt a socket may not have run: it is the task's, and goes with the context.
        for (at, peer) in &self.peers {
            check_sent(&self.places[*at].town, peer);
        }
        for place in self.places.drain(..) {
            drop(place.context);
            place.town.check_ended();
            for life in &place.town.lives {
                assert!(place.adopted.contains(&life.port), "of nobody: {:?}", life.id);
            }
        }
        assert_eq!(self.world.network().open_descriptors(), 0, "descriptors are open");
    }
}

/// Compares what a peer knows with what the application knows, when everything is at rest.
fn check(town: &Town, peer: &Peer, hostile: bool) {
    let lives: Vec<_> = town.lives.iter().filter(|life| life.port == peer.port).collect();
    let name = peer.name();
    match &peer.role {
        Role::Talk(talk) => {
            let life = lives.iter().find(|life| life.kind == Kind::Talk);
            let Some(life) = life else {
                assert!(hostile || !peer.is_friendly() || peer.did.slow, "never accepted: {name}");
                return;
            };
            let got = life.got.len();
            assert!(got <= talk.messages.len(), "more messages came than were sent: {name}");
            assert!(life.got == talk.messages[..got], "messages differ: {name}");
            let told = matches!(life.closed, Some(Why::Handshake(By::Peer) | Why::Protocol | Why::TooLarge));
            let all = life.ending.is_none() && told || life.is_live() && peer.is_friendly();
            assert!(!all || got == talk.messages.len(), "{got} of {} came: {name}", talk.messages.len());
            match life.closed {
                Some(Why::Protocol) => assert!(peer.did.violate, "no violation: {name}"),
                Some(Why::TooLarge) => assert!(peer.did.too_large, "not too large: {name}"),
                Some(Why::Handshake(By::Peer)) => assert!(peer.did.close, "no Close: {name}"),
                Some(Why::Handshake(By::Us)) => assert!(life.ending.is_some(), "not closed: {name}"),
                Some(Why::PeerEnded) => {
                    assert!(peer.did.finish || peer.did.vanish || life.ending.is_some(), "{name}");
                }
                Some(Why::Io) => {
                    let ended = peer.did.finish || peer.did.vanish || life.ending.is_some();
                    assert!(ended, "it went on: {name}");
                }
                Some(Why::TimedOut) => {
                    assert!(!peer.is_friendly() || life.ending.is_some(), "in time: {name}");
                }
                Some(Why::Host) => assert!(hostile, "{name}"),
                Some(_) => assert!(life.ending.is_some(), "{:?}: {name}", life.closed),
                None => assert!(!peer.did.vanish && !peer.did.violate, "still there: {name}"),
            }
            // A slow peer may have taken nothing while the loop stood still, and then the limit for closing is over.
            let heard = !peer.was_reset && peer.at_end && life.unsent == 0 && !peer.did.slow;
            if life.closed == Some(Why::Protocol) && heard && peer.endpoint.is_none() && !peer.did.vanish {
                assert!(talk.close.is_some() && talk.expects_close(), "no Close for a violation: {name}");
            }
        }
        Role::Web(web) => {
            let cut = lives.iter().any(|life| life.closed != Some(Why::Completed) || life.ending.is_some());
            if !hostile && peer.is_friendly() && !cut {
                assert_eq!(web.expected.len(), 0, "requests without an answer: {name}");
            }
            let live = lives.iter().find(|life| life.is_live()).map(|life| (life.ending, life.paused));
            let left = web.expected.len();
            assert!(live.is_none(), "an exchange goes on for ever, {live:?}, {left} answers to come: {name}");
        }
        Role::Bytes(bytes) => {
            for life in &lives {
                let got = life.got_bytes.len();
                assert!(
                    bytes.said.len() >= got && life.got_bytes == bytes.said[..got],
                    "bytes differ: {name}"
                );
                if life.is_live() && peer.endpoint.is_some() && !peer.did.vanish {
                    assert_eq!(got, bytes.said.len(), "bytes are missing, {:?}: {name}", life.ending);
                }
                match life.closed {
                    Some(Why::Io | Why::PeerEnded | Why::TimedOut) => {
                        let ended = life.ending.is_some() || !peer.is_friendly();
                        assert!(ended, "{:?}: {name}", life.closed);
                    }
                    Some(Why::Host) => assert!(hostile, "{name}"),
                    Some(_) => assert!(life.ending.is_some(), "{:?}: {name}", life.closed),
                    None => {}
                }
            }
            assert!(hostile || !peer.is_friendly() || !lives.is_empty(), "never accepted: {name}");
        }
    }
    check_sent(town, peer);
}

/// What was accepted for sending has arrived as a prefix, and `unsent` says how much of the rest never left.
fn check_sent(town: &Town, peer: &Peer) {
    let lives = town.lives.iter().filter(|life| life.port == peer.port);
    let name = peer.name();
    match &peer.role {
        Role::Talk(talk) => {
            let Some(life) = lives.into_iter().find(|life| life.kind == Kind::Talk) else {
                assert!(talk.frames.is_empty());
                return;
            };
            let mut sent = life.sent.iter();
            for frame in &talk.frames {
                let known = sent.by_ref().find(|sent| !sent.perhaps || sent.frame == *frame);
                let known = known.unwrap_or_else(|| panic!("{frame:?} was never sent: {name}"));
                assert!(known.frame == *frame, "{:?} was to come, not {frame:?}: {name}", known.frame);
            }
            let missing: usize =
                sent.filter(|sent| !sent.perhaps).map(|sent| sent.frame.masked([0; 4]).len() - 4).sum();
            if matches!(life.closed, Some(Why::Handshake(_))) {
                assert!(
                    life.unsent <= missing,
                    "{} bytes unsent of {missing} that are missing, {:?} after {:?}: {name}",
                    life.unsent,
                    life.closed,
                    life.ending
                );
            }
            // A reset, or a peer that went, may destroy what had left; else it is known to the byte.
            let whole = !peer.was_reset && !peer.did.vanish && peer.stopped_nowhere();
            let missing = missing.saturating_sub(talk.partial);
            let unsent = if life.is_live() { 0 } else { life.unsent };
            assert!(
                !whole || missing <= unsent,
                "{missing} bytes are missing, {unsent} were told, {:?} after {:?}: {name}",
                life.closed,
                life.ending
            );
        }
        Role::Web(_) => {}
        Role::Bytes(bytes) => {
            // The last one knows what those before it have sent.
            let Some(life) = lives.into_iter().next_back() else { return };
            let heard = bytes.heard.len();
            assert!(life.sent_bytes.len() >= heard, "more bytes came than were sent: {name}");
            assert!(life.sent_bytes[..heard] == bytes.heard, "bytes differ: {name}");
            let missing = life.sent_bytes.len() - heard;
            let unsent = if life.is_live() { 0 } else { life.unsent };
            let (reason, ending) = (life.closed, life.ending);
            assert!(missing >= unsent, "{unsent} unsent, {missing} missing, {reason:?}, {ending:?}: {name}");
            if !peer.was_reset && !peer.did.vanish && peer.stopped_nowhere() {
                assert_eq!(missing, unsent, "missing and unsent, {reason:?} after {ending:?}: {name}");
            }
        }
    }
}

/// The longest message and what is gathered.
const MOST_AT_ONCE: usize = 200_000;
