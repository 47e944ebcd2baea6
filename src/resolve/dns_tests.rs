//! The resolver of `examples/own_resolver` against a name server of the test's.

use super::dns::{Dns, PATIENCE, ROUNDS, SEARCHES_MAX, name_servers};
use super::rig::Rig;
use super::{Found, Lookup, LookupId, ResolveError};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

struct Server(UdpSocket);

/// A question that came.
struct Asked {
    id: u16,
    name: String,
    kind: TYPE,
    from: SocketAddr,
}

impl Server {
    fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn asked(&self) -> Asked {
        let mut packet = [0; 512];
        let (length, from) = self.0.recv_from(&mut packet).expect("a question comes");
        let packet = Packet::parse(&packet[..length]).unwrap();
        assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED) && !packet.has_flags(PacketFlag::RESPONSE));
        let [question] = &packet.questions[..] else { panic!("{packet:?}") };
        let simple_dns::QTYPE::TYPE(kind) = question.qtype else { panic!("{question:?}") };
        Asked { id: packet.id(), name: question.qname.to_string(), kind, from }
    }

    /// Both questions of a look-up: for AAAA, then for A.
    fn asked_both(&self) -> [Asked; 2] {
        let both = [self.asked(), self.asked()];
        assert_eq!(both.each_ref().map(|asked| asked.kind), [TYPE::AAAA, TYPE::A]);
        both
    }

    fn send(&self, asked: &Asked, packet: &Packet<'_>) {
        self.0.send_to(&packet.build_bytes_vec_compressed().unwrap(), asked.from).unwrap();
    }

    fn answer(&self, asked: &Asked, records: &[(&str, RData<'_>)]) {
        let mut packet = asked.reply();
        for (name, data) in records {
            packet.answers.push(ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, 60, data.clone()));
        }
        self.send(asked, &packet);
    }

    fn fail(&self, asked: &Asked, code: RCODE) {
        let mut packet = asked.reply();
        *packet.rcode_mut() = code;
        self.send(asked, &packet);
    }
}

impl Asked {
    fn reply(&self) -> Packet<'_> {
        let mut packet = Packet::new_reply(self.id);
        packet.questions.push(self.question(&self.name, self.kind));
        packet
    }

    fn question<'a>(&self, name: &'a str, kind: TYPE) -> Question<'a> {
        Question::new(Name::new(name).unwrap(), kind.into(), CLASS::IN.into(), false)
    }
}

fn a(last: u8) -> RData<'static> {
    RData::A(A { address: Ipv4Addr::new(192, 0, 2, last).into() })
}

fn aaaa(last: u16) -> RData<'static> {
    RData::AAAA(AAAA { address: v6(last).into() })
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn alias(name: &'static str) -> RData<'static> {
    RData::CNAME(CNAME(Name::new(name).unwrap()))
}

fn addresses(found: Result<Found, ResolveError>) -> Vec<IpAddr> {
    match found {
        Ok(Found::Addresses(addresses)) => addresses,
        other => panic!("{other:?}"),
    }
}

fn ask(server: &Server, name: &str) -> (Rig<Dns>, LookupId) {
    let mut rig = Rig::new(Dns::new(vec![server.address()]));
    let id = rig.look_up(name);
    (rig, id)
}

#[test]
fn both_kinds_of_address_are_asked_for_and_found() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "Host.Example.");
    let [six, four] = server.asked_both();
    assert_eq!(six.name, "Host.Example");
    assert_ne!(six.from, four.from);
    // In any case, and in any order.
    server.answer(&four, &[("host.example", a(1)), ("HOST.example", a(2))]);
    rig.turn();
    assert!(rig.answer_so_far(id).is_none());
    server.answer(&six, &[("host.example", aaaa(3))]);
    let expected: [IpAddr; 3] =
        [v6(3).into(), Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into()];
    assert_eq!(addresses(rig.answer(id)), expected);
    assert_eq!((rig.watched(), rig.due), (0, None));
}

#[test]
fn one_kind_of_address_is_enough() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "host.example");
    let [six, four] = server.asked_both();
    server.answer(&six, &[]);
    server.answer(&four, &[("host.example", a(1))]);
    assert_eq!(addresses(rig.answer(id)).len(), 1);
}

#[test]
fn many_addresses_come_in_one_answer() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "host.example");
    let [six, four] = server.asked_both();
    let records: Vec<_> = (0..60).map(|last| ("host.example", a(last))).collect();
    server.answer(&four, &records);
    server.answer(&six, &[]);
    assert_eq!(addresses(rig.answer(id)).len(), 60);
}

#[test]
fn aliases_are_followed_and_strangers_left_out() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "www.example");
    let [six, four] = server.asked_both();
    server.answer(
        &four,
        &[
            ("real.example", a(1)),
            ("stranger.example", a(66)),
            ("www.example", alias("cdn.example")),
            ("cdn.example", alias("REAL.example")),
            ("real.example", aaaa(66)),
        ],
    );
    server.answer(&six, &[("www.example", alias("cdn.example"))]);
    assert_eq!(addresses(rig.answer(id)), [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
fn aliases_in_a_circle_lead_nowhere() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "a.example");
    for asked in server.asked_both() {
        server.answer(&asked, &[("a.example", alias("b.example")), ("b.example", alias("a.example"))]);
    }
    assert!(matches!(rig.answer(id), Err(ResolveError::NotFound)));
}

#[test]
fn a_name_that_does_not_exist_is_not_found() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "none.example");
    for asked in server.asked_both() {
        server.fail(&asked, RCODE::NameError);
    }
    assert!(matches!(rig.answer(id), Err(ResolveError::NotFound)));
}

#[test]
fn what_is_no_name_is_not_asked_for() {
    let server = Server::new();
    for text in ["", ".", "a..b", &"a".repeat(64), &["abc"; 64].join(".")] {
        let (mut rig, id) = ask(&server, text);
        assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::NotFound))), "{text:?}");
        assert_eq!(rig.watched(), 0);
    }
    let mut rig = Rig::new(Dns::new(vec![server.address()]));
    let id = rig.begin(Lookup::Name(Ipv4Addr::LOCALHOST.into()));
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::Unsupported))));
}

#[test]
fn forged_answers_are_passed_over() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "host.example");
    let [six, four] = server.asked_both();
    server.answer(&six, &[]);
    rig.turn();

    let forged = |change: &dyn Fn(&mut Packet<'_>)| {
        let mut packet = four.reply();
        let name = Name::new("host.example").unwrap();
        packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, a(66)));
        change(&mut packet);
        server.send(&four, &packet);
    };
    forged(&|packet| packet.set_id(four.id ^ 1));
    forged(&|packet| packet.questions[0] = four.question("other.example", TYPE::A));
    forged(&|packet| packet.questions[0] = four.question("host.example", TYPE::AAAA));
    forged(&|packet| packet.questions.clear());
    forged(&|packet| packet.questions.push(four.question("host.example", TYPE::A)));
    forged(&|packet| packet.remove_flags(PacketFlag::RESPONSE));
    server.0.send_to(b"no message at all", four.from).unwrap();
    server.0.send_to(b"", four.from).unwrap();
    for _ in 0..8 {
        rig.turn();
        assert!(rig.answer_so_far(id).is_none());
    }
    // Such as come from elsewhere do not even wake it.
    let elsewhere = Server::new();
    elsewhere.answer(&four, &[("host.example", a(66))]);

    server.answer(&four, &[("host.example", a(1))]);
    assert_eq!(addresses(rig.answer(id)), [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
fn a_truncated_answer_is_an_error_that_says_so() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "host.example");
    for asked in server.asked_both() {
        let mut packet = asked.reply();
        packet.set_flags(PacketFlag::TRUNCATION);
        server.send(&asked, &packet);
    }
    let error = rig.answer(id).unwrap_err();
    assert!(matches!(error, ResolveError::Failed(_)) && error.to_string().contains("TCP"), "{error}");
}

#[test]
fn a_lost_packet_is_asked_for_again() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "host.example");
    let [six, lost] = server.asked_both();
    server.answer(&six, &[]);
    rig.turn();
    rig.advance(PATIENCE - Duration::from_nanos(1));
    assert!(rig.due.is_some());
    rig.advance(Duration::from_nanos(1));
    let again = server.asked();
    assert_eq!((again.kind, again.name.as_str()), (TYPE::A, "host.example"));
    assert_ne!(again.from, lost.from);
    // Too late: the first answer goes to a socket that is closed.
    server.answer(&lost, &[("host.example", a(66))]);
    server.answer(&again, &[("host.example", a(1))]);
    assert_eq!(addresses(rig.answer(id)), [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
fn servers_take_turns_until_none_is_left() {
    let servers = [Server::new(), Server::new()];
    let mut rig = Rig::new(Dns::new(servers.iter().map(Server::address).collect()));
    let id = rig.look_up("host.example");
    for attempt in 0..2 * ROUNDS {
        let kinds = [servers[attempt % 2].asked().kind, servers[attempt % 2].asked().kind];
        assert!(kinds.contains(&TYPE::A) && kinds.contains(&TYPE::AAAA));
        assert!(rig.answer_so_far(id).is_none());
        rig.advance(PATIENCE);
    }
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::TimedOut))));
    assert_eq!((rig.watched(), rig.due), (0, None));
}

#[test]
fn the_next_server_is_asked_at_once_when_one_fails() {
    let (failing, good) = (Server::new(), Server::new());
    let mut rig = Rig::new(Dns::new(vec![failing.address(), good.address()]));
    let id = rig.look_up("host.example");
    for asked in failing.asked_both() {
        failing.fail(&asked, RCODE::ServerFailure);
        rig.turn();
        let asked = good.asked();
        good.answer(&asked, &[("host.example", if asked.kind == TYPE::A { a(1) } else { aaaa(1) })]);
        rig.turn();
    }
    assert_eq!(addresses(rig.answer(id)).len(), 2);
}

#[test]
fn servers_that_all_fail_mean_try_again() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "host.example");
    for _ in 0..2 * ROUNDS {
        server.fail(&server.asked(), RCODE::Refused);
        rig.turn();
    }
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::Again))));
}

#[test]
fn a_cancelled_look_up_leaves_nothing() {
    let server = Server::new();
    let (mut rig, id) = ask(&server, "host.example");
    let other = rig.look_up("other.example");
    let [six, _] = server.asked_both();
    rig.cancel(id);
    rig.cancel(id);
    assert_eq!(rig.watched(), 2);
    server.answer(&six, &[("host.example", aaaa(1))]);
    for asked in server.asked_both() {
        server.answer(&asked, &[("other.example", a(1))]);
    }
    assert_eq!(addresses(rig.answer(other)).len(), 1);
    assert!(!rig.has_answers());
    assert_eq!((rig.watched(), rig.due), (0, None));
}

#[test]
fn look_ups_beyond_the_bound_are_refused() {
    let server = Server::new();
    let mut rig = Rig::new(Dns::new(vec![server.address()]));
    let ids: Vec<LookupId> = (0..SEARCHES_MAX).map(|_| rig.look_up("host.example")).collect();
    let id = rig.look_up("host.example");
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::Busy))));
    rig.cancel(ids[0]);
    let id = rig.look_up("host.example");
    assert!(rig.answer_so_far(id).is_none());
}

#[test]
fn the_first_three_servers_of_the_configuration_count() {
    let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver\t::1\nnameserver x\n\
                nameserver 192.0.2.2\nnameserver 192.0.2.3\n";
    let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.1:53", "[::1]:53", "192.0.2.2:53"]);
    assert_eq!(name_servers(""), [SocketAddr::from(([127, 0, 0, 1], 53))]);
}
