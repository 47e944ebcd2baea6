//! A stub resolver (RFC 1035, section 5.3.1): asks name servers by UDP, in the loop and without a thread.
//!
//! Left out: answers too long for UDP, which take TCP; `/etc/hosts` and search lists; keeping answers.

use lodger::resolve::{Found, Hands, Lookup, LookupId, ResolveError, Resolver};
use lodger::{Interest, Ready};
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// How long a server has for an answer before the next one is asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How often each server is asked.
pub(crate) const ROUNDS: usize = 2;
/// How many look-ups go on at once at most: each takes two descriptors.
pub(crate) const SEARCHES_MAX: usize = 64;
/// What passes nearly everywhere without being fragmented.
const ANSWER_MAX: u16 = 1232;
/// How many aliases lead from the name to its addresses at most.
const ALIASES_MAX: usize = 8;

/// Asks these servers, one after the other.
pub(crate) struct Dns {
    servers: Vec<SocketAddr>,
    searches: HashMap<LookupId, Search>,
}

/// A look-up: one query for each kind of address.
struct Search {
    name: String,
    queries: Vec<Query>,
    found: Vec<IpAddr>,
    error: Option<ResolveError>,
}

/// A question that a server was asked. It has a socket of its own, whose port is as hard to guess for who would forge an answer
/// as the id is (RFC 5452, section 9.2).
struct Query {
    kind: TYPE,
    id: u16,
    attempt: usize,
    socket: UdpSocket,
    until: Instant,
}

/// What a packet means for the question.
enum Reading {
    /// Nothing: it is somebody else's, or forged.
    NotOurs,
    /// This server cannot say.
    Failed,
    Answer(Result<Vec<IpAddr>, ResolveError>),
}

impl Dns {
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, searches: HashMap::new() }
    }

    /// Asks the server whose turn it is, or one after it if that cannot be done.
    fn ask(&self, name: &str, kind: TYPE, from: usize, hands: &mut Hands<'_>) -> Result<Query, ResolveError> {
        let mut error = ResolveError::TimedOut;
        for attempt in from..self.servers.len() * ROUNDS {
            let mut id = [0; 2];
            hands.random(&mut id);
            let id = u16::from_ne_bytes(id);
            match send(self.servers[attempt % self.servers.len()], id, name, kind) {
                Ok(socket) => {
                    hands.watch(socket.as_fd(), Interest::READ)?;
                    return Ok(Query { kind, id, attempt, socket, until: hands.now() + PATIENCE });
                }
                Err(failed) => error = failed.into(),
            }
        }
        Err(error)
    }

    /// Puts a question to the next server, after the one that has failed.
    fn ask_again(&self, search: &mut Search, at: usize, hands: &mut Hands<'_>, otherwise: ResolveError) {
        let query = search.queries.swap_remove(at);
        hands.unwatch(query.socket.as_raw_fd());
        let next = query.attempt + 1;
        if next >= self.servers.len() * ROUNDS {
            search.error = Some(otherwise);
            return;
        }
        match self.ask(&search.name, query.kind, next, hands) {
            Ok(query) => search.queries.push(query),
            Err(error) => search.error = Some(error),
        }
    }

    /// Answers a search if all its questions are answered, and says when to be called again.
    fn settle(&mut self, id: LookupId, search: Search, hands: &mut Hands<'_>) {
        if search.queries.is_empty() {
            hands.answer(id, search.outcome());
        } else {
            self.searches.insert(id, search);
        }
        self.set_time(hands);
    }

    fn set_time(&self, hands: &mut Hands<'_>) {
        hands.wake_at(
            self.searches.values().flat_map(|search| &search.queries).map(|query| query.until).min(),
        );
    }
}

impl Search {
    fn outcome(mut self) -> Result<Found, ResolveError> {
        // IPv6 first, as RFC 8305, section 4, has it.
        self.found.sort_by_key(IpAddr::is_ipv4);
        match self.error {
            _ if !self.found.is_empty() => Ok(Found::Addresses(self.found)),
            Some(error) => Err(error),
            None => Err(ResolveError::NotFound),
        }
    }
}

impl Resolver for Dns {
    fn look_up(&mut self, id: LookupId, lookup: &Lookup, hands: &mut Hands<'_>) {
        let Lookup::Addresses(name) = lookup else {
            return hands.answer(id, Err(ResolveError::Unsupported));
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.split('.').any(str::is_empty) || Name::new(name).is_err() {
            return hands.answer(id, Err(ResolveError::NotFound));
        }
        if self.searches.len() >= SEARCHES_MAX {
            return hands.answer(id, Err(ResolveError::Busy));
        }
        let mut search =
            Search { name: name.to_owned(), queries: Vec::new(), found: Vec::new(), error: None };
        for kind in [TYPE::AAAA, TYPE::A] {
            match self.ask(name, kind, 0, hands) {
                Ok(query) => search.queries.push(query),
                Err(error) => search.error = Some(error),
            }
        }
        self.settle(id, search, hands);
    }

    fn cancel(&mut self, id: LookupId, hands: &mut Hands<'_>) {
        for query in self.searches.remove(&id).into_iter().flat_map(|search| search.queries) {
            hands.unwatch(query.socket.as_raw_fd());
        }
        self.set_time(hands);
    }

    fn ready(&mut self, fd: RawFd, _ready: Ready, hands: &mut Hands<'_>) {
        let at = |search: &Search| search.queries.iter().position(|query| query.socket.as_raw_fd() == fd);
        let Some((id, at)) = self.searches.iter().find_map(|(id, search)| Some((*id, at(search)?))) else {
            return;
        };
        let mut search = self.searches.remove(&id).expect("it was found");
        let query = &search.queries[at];
        let mut packet = [0; ANSWER_MAX as usize];
        let reading = match query.socket.recv(&mut packet) {
            Ok(length) => query.read(&search.name, &packet[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Reading::NotOurs,
            // Nobody is there, as ICMP tells.
            Err(_) => Reading::Failed,
        };
        match reading {
            Reading::NotOurs => {}
            Reading::Failed => self.ask_again(&mut search, at, hands, ResolveError::Again),
            Reading::Answer(answer) => {
                hands.unwatch(fd);
                search.queries.swap_remove(at);
                match answer {
                    Ok(addresses) => search.found.extend(addresses),
                    Err(error) => search.error = Some(error),
                }
            }
        }
        self.settle(id, search, hands);
    }

    fn due(&mut self, hands: &mut Hands<'_>) {
        let now = hands.now();
        let late = |search: &Search| search.queries.iter().position(|query| query.until <= now);
        while let Some((id, at)) = self.searches.iter().find_map(|(id, search)| Some((*id, late(search)?))) {
            let mut search = self.searches.remove(&id).expect("it was found");
            self.ask_again(&mut search, at, hands, ResolveError::TimedOut);
            self.settle(id, search, hands);
        }
        self.set_time(hands);
    }
}

impl Query {
    fn read(&self, name: &str, packet: &[u8]) -> Reading {
        let (Ok(packet), Ok(name)) = (Packet::parse(packet), Name::new(name)) else {
            return Reading::NotOurs;
        };
        let asked = |question: &Question<'_>| {
            question.qname == name
                && question.qtype == QTYPE::TYPE(self.kind)
                && question.qclass == CLASS::IN.into()
        };
        let ours = packet.id() == self.id
            && packet.has_flags(PacketFlag::RESPONSE)
            && matches!(&packet.questions[..], [question] if asked(question));
        if !ours {
            return Reading::NotOurs;
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            let error = io::Error::other("the answer is too long for UDP, and TCP is left out here");
            return Reading::Answer(Err(error.into()));
        }
        match packet.rcode() {
            RCODE::NoError => Reading::Answer(Ok(addresses(&packet, name, self.kind))),
            RCODE::NameError => Reading::Answer(Ok(Vec::new())),
            _ => Reading::Failed,
        }
    }
}

/// The addresses of `name`, or of what it is an alias of. A server that was asked for recursion gives all of the chain.
fn addresses(packet: &Packet<'_>, mut name: Name<'_>, kind: TYPE) -> Vec<IpAddr> {
    for _ in 0..=ALIASES_MAX {
        let records =
            || packet.answers.iter().filter(|record| record.name == name && record.class == CLASS::IN);
        let found: Vec<IpAddr> = records()
            .filter_map(|record| match (&record.rdata, kind) {
                (RData::A(a), TYPE::A) => Some(Ipv4Addr::from(a.address).into()),
                (RData::AAAA(aaaa), TYPE::AAAA) => Some(Ipv6Addr::from(aaaa.address).into()),
                _ => None,
            })
            .collect();
        let alias = records().find_map(|record| match &record.rdata {
            RData::CNAME(alias) => Some(alias.0.clone()),
            _ => None,
        });
        match alias {
            Some(alias) if found.is_empty() => name = alias.into_owned(),
            _ => return found,
        }
    }
    Vec::new()
}

/// The name servers that a text in the form of resolv.conf(5) lists, or the one of this machine.
pub(crate) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    let mut servers: Vec<IpAddr> = text.lines().filter_map(address).take(3).collect();
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers.into_iter().map(|address| (address, 53).into()).collect()
}

fn send(server: SocketAddr, id: u16, name: &str, kind: TYPE) -> io::Result<UdpSocket> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(io::Error::other)?;
    packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: ANSWER_MAX, version: 0 });
    let packet = packet.build_bytes_vec().map_err(io::Error::other)?;

    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    // From here on the kernel lets nothing through that comes from elsewhere.
    socket.connect(server)?;
    socket.send(&packet)?;
    Ok(socket)
}
