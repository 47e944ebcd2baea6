//! Listening and accepting: limits, Unix sockets, and descriptors that come from elsewhere.

mod support;

use lodger::{Context, Interest, Keepalive, Limits, Listen, ListenError, Peer, Served};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;
use support::*;

/// What the listener of a server is watched for.
fn listening(house: &mut House, server: Server) -> Interest {
    let address = Peer::Inet(server.address);
    let listener = server.listener;
    assert_eq!(house.io().local_addr(listener), Some(address));
    let interests: Vec<Interest> =
        house.io().links().filter(|link| link.role == "listener").map(|link| link.interest).collect();
    interests[0]
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on_when_one_comes_free() {
    if !in_own_process("without_descriptors_accepting_pauses_and_goes_on_when_one_comes_free") {
        return;
    }
    let (mut house, server) = served();
    let (first, _) = server.websocket(&mut house);
    let mut waiting = Client::tcp(server.address);
    waiting.write(UPGRADE);
    let old = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // No number is left for the one that waits.
    let highest = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let limit = rustix::process::Rlimit { current: Some(highest as u64), maximum: old.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    house.until("it pauses", |house| listening(house, server) == Interest::NONE);
    let before = house.counts();
    let start = now();
    while start.elapsed() < Duration::from_millis(600) {
        house.turn(Duration::from_millis(50));
    }
    let counts = house.counts().since(&before);
    assert!(counts.adds <= 4 && counts.wake_ups <= 10, "it spins: {counts:?}");
    drop(first);
    let head = house.head(&mut waiting);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    rustix::process::setrlimit(rustix::process::Resource::Nofile, old).unwrap();
    house.until("it listens again", |house| listening(house, server) == Interest::READ);
    house.leave();
}

#[test]
fn descriptors_that_come_free_elsewhere_are_found_in_time() {
    if !in_own_process("descriptors_that_come_free_elsewhere_are_found_in_time") {
        return;
    }
    let (mut house, server) = served();
    let mut waiting = Client::tcp(server.address);
    waiting.write(UPGRADE);
    let old = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let highest = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let limit = rustix::process::Rlimit { current: Some(highest as u64), maximum: old.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    house.until("it pauses", |house| listening(house, server) == Interest::NONE);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, old).unwrap();
    assert!(house.head(&mut waiting).starts_with("HTTP/1.1 101 "));
    house.leave();
}

#[test]
fn beyond_max_links_connections_wait_until_one_ends() {
    // Two listeners, and two connections.
    let (mut house, server) = served_with(Context::builder().max_links(4).build(), Limits::default());
    let (first, _) = server.websocket(&mut house);
    let (_second, _) = server.websocket(&mut house);
    let mut third = Client::tcp(server.address);
    third.write(UPGRADE);
    house.until("it pauses", |house| listening(house, server) == Interest::NONE);
    assert_eq!(house.io().link_count(), 4);
    let before = house.counts();
    let start = now();
    while start.elapsed() < Duration::from_millis(300) {
        house.turn(Duration::from_millis(50));
    }
    assert!(house.counts().since(&before).wake_ups <= 8);
    third.pull();
    assert!(third.inbox.is_empty());
    drop(first);
    assert!(house.head(&mut third).starts_with("HTTP/1.1 101 "));
    house.leave();
}

#[test]
fn beyond_max_handshakes_the_one_silent_longest_gives_way() {
    let context = Context::builder().max_handshakes(2).build();
    let (mut house, server) = served_with(context, Limits::default());
    let mut silent = Vec::new();
    for count in 1..=2 {
        silent.push(Client::tcp(server.address));
        house.until("it is accepted", |house| house.io().link_count() == 2 + count);
    }
    let mut third = Client::tcp(server.address);
    third.write(UPGRADE);
    assert!(house.head(&mut third).starts_with("HTTP/1.1 101 "));
    house.ends(&mut silent[0]);
    assert_eq!(silent[0].end, Some(End::Reset));
    // The other has its place still, and makes its request.
    silent[1].write(UPGRADE);
    assert!(house.head(&mut silent[1]).starts_with("HTTP/1.1 101 "));
    house.leave();
}

#[test]
fn raw_connections_need_no_handshake_and_do_not_wait_for_any() {
    let context = Context::builder().max_handshakes(1).build();
    let (mut house, server) = served_with(context, Limits::default());
    let _silent = Client::tcp(server.address);
    house.until("it is accepted", |house| house.io().link_count() == 3);
    let (mut raw, _) = server.raw(&mut house);
    raw.write(b"hello");
    assert_eq!(house.bytes(&mut raw, 5), b"hello");
    house.leave();
}

#[test]
fn beyond_max_per_address_connections_are_closed_until_one_ends() {
    let context = Context::builder().max_per_address(2).build();
    let (mut house, server) = served_with(context, Limits::default());
    let (mut first, _) = server.websocket(&mut house);
    let (_second, _) = server.raw(&mut house);
    for mut third in [Client::tcp(server.address), Client::tcp(server.raw_address)] {
        house.ends(&mut third);
        assert!(third.inbox.is_empty());
    }
    assert_eq!(house.io().link_count(), 4);
    first.finish();
    house.until("it has gone", |house| house.io().link_count() == 3);
    let (_third, _) = server.websocket(&mut house);
    house.leave();
}

#[test]
fn each_call_accepts_twice_as_many_connections_as_the_one_before_up_to_64() {
    let (mut house, server) = served();
    let clients: Vec<Client> = (0..200).map(|_| Client::tcp(server.address)).collect();
    let mut accepted = 0;
    for more in [1, 2, 4, 8, 16, 32, 64, 64, 9] {
        house.turn(Duration::from_secs(5));
        accepted += more;
        assert_eq!(house.io().link_count(), 2 + accepted);
    }
    assert_eq!(accepted, clients.len());
    drop(clients);
    house.leave();
}

// Unix sockets.

#[test]
fn messages_pass_over_a_unix_socket_whose_path_goes_with_its_listener() {
    let directory = Directory::new("echo");
    let path = directory.join("socket");
    let (mut house, server) = served();
    let listener = house.io().listen(Listen::unix(&path), server.site).unwrap();
    assert_eq!(house.io().local_addr(listener), Some(Peer::Unix(Some(path.clone()))));
    let mut client = Client::unix(&path);
    house.upgrade(&mut client);
    client.text("over a path");
    assert_eq!(house.frame(&mut client), (1, b"over a path".to_vec()));
    let long = vec![b'u'; 300_000];
    let frame = client_frame(2, &long);
    let mut from = 0;
    house.until("it has been sent", |_| {
        if let Ok(written) = client.stream.write(&frame[from..]) {
            from += written;
        }
        from == frame.len()
    });
    assert_eq!(house.frame(&mut client), (2, long));
    house.assert_idle();
    house.io().close_listener(listener);
    let _ = house.host.prepare(&mut house.context);
    assert!(!path.exists());
    client.text("and still");
    assert_eq!(house.frame(&mut client), (1, b"and still".to_vec()));
    house.leave();
}

#[test]
fn path_goes_when_the_context_leaves() {
    let directory = Directory::new("leaves");
    let path = directory.join("socket");
    let (mut house, server) = served();
    house.io().listen(Listen::unix(&path), server.site).unwrap();
    house.settle();
    assert!(path.exists());
    house.leave();
    assert!(!path.exists());
}

#[test]
fn socket_that_a_dead_server_left_is_replaced() {
    let directory = Directory::new("stale");
    let path = directory.join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (mut house, server) = served();
    house.io().listen(Listen::unix(&path), server.site).unwrap();
    let mut client = Client::unix(&path);
    house.upgrade(&mut client);
    house.leave();
}

#[test]
fn socket_that_somebody_listens_on_is_left_alone() {
    let directory = Directory::new("live");
    let path = directory.join("socket");
    let theirs = UnixListener::bind(&path).unwrap();
    let (mut house, server) = served();
    let refused = house.io().listen(Listen::unix(&path), server.site);
    assert!(matches!(refused, Err(ListenError::Bind { .. })), "{refused:?}");
    assert!(path.exists());
    drop(Client::unix(&path));
    theirs.set_nonblocking(true).unwrap();
    assert!(theirs.accept().is_ok());
    house.leave();
    assert!(path.exists());
}

#[test]
fn plain_file_at_the_path_is_left_alone() {
    let directory = Directory::new("file");
    let path = directory.join("precious");
    std::fs::write(&path, "do not remove").unwrap();
    let link = directory.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (mut house, server) = served();
    for path in [&path, &link, &directory.0] {
        let refused = house.io().listen(Listen::unix(path), server.site);
        assert!(matches!(refused, Err(ListenError::Bind { .. })), "{refused:?}");
    }
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "do not remove");
    let refused = house.io().listen(Listen::unix("/nowhere/at/all"), server.site);
    assert!(matches!(refused, Err(ListenError::Bind { .. })));
    let refused = house.io().listen(Listen::unix("x".repeat(500)), server.site);
    assert!(matches!(refused, Err(ListenError::Bind { .. })));
    house.leave();
}

// From elsewhere.

#[test]
fn descriptor_that_is_bound_is_listened_on_whether_it_listens_yet_or_not() {
    let (mut house, server) = served();
    let listening = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let bound =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    rustix::net::bind(&bound, &any).unwrap();
    for socket in [OwnedFd::from(listening), bound] {
        let listener = house.io().listen(Listen::descriptor(socket), server.site).unwrap();
        let address = house.io().local_addr(listener).unwrap().inet().unwrap();
        let mut client = Client::tcp(address);
        house.upgrade(&mut client);
        client.text("hi");
        assert_eq!(house.frame(&mut client), (1, b"hi".to_vec()));
    }
    house.leave();
}

#[test]
fn path_of_a_descriptor_from_elsewhere_stays() {
    let directory = Directory::new("activated");
    let path = directory.join("socket");
    let theirs = UnixListener::bind(&path).unwrap();
    let (mut house, server) = served();
    house.io().listen(Listen::descriptor(theirs.try_clone().unwrap().into()), server.site).unwrap();
    let mut client = Client::unix(&path);
    house.upgrade(&mut client);
    house.leave();
    assert!(path.exists());
}

#[test]
fn descriptor_that_cannot_listen_is_refused() {
    let (mut house, server) = served();
    let (reader, _writer) = std::io::pipe().unwrap();
    let datagrams = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let (connected, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    for socket in [reader.into(), OwnedFd::from(datagrams), connected.into()] {
        let refused = house.io().listen(Listen::descriptor(socket), server.site);
        assert!(matches!(refused, Err(ListenError::Listen(_))), "{refused:?}");
    }
    house.assert_idle();
    house.leave();
}

#[test]
fn listeners_share_a_port_where_both_allow_it() {
    let (mut house, server) = served();
    let first = house.io().listen(any_port().reuse_port(true), server.site).unwrap();
    let address = house.io().local_addr(first).unwrap().inet().unwrap();
    assert!(matches!(house.io().listen(Listen::tcp(address), server.site), Err(ListenError::Bind { .. })));
    house.io().listen(Listen::tcp(address).reuse_port(true), server.site).unwrap();
    for _ in 0..8 {
        let mut client = Client::tcp(address);
        house.upgrade(&mut client);
    }
    house.leave();
}

#[test]
fn address_of_ipv6_takes_ipv4_as_it_is_told() {
    let (mut house, server) = served();
    let any = || Listen::tcp((std::net::Ipv6Addr::UNSPECIFIED, 0));
    for (only_v6, reached) in [(false, true), (true, false)] {
        let Ok(listener) = house.io().listen(any().only_v6(only_v6), server.site) else {
            eprintln!("no IPv6 here");
            return house.leave();
        };
        let port = house.io().local_addr(listener).unwrap().inet().unwrap().port();
        assert_eq!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), reached);
    }
    house.leave();
}

#[test]
fn option_that_is_refused_is_named() {
    let (mut house, server) = served();
    let refused = |house: &mut House, listen: Listen, name: &str| {
        let error = house.io().listen(listen, server.site).unwrap_err();
        assert!(matches!(&error, ListenError::Option(option, _) if *option == name), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    refused(&mut house, any_port().only_v6(true), "IPV6_V6ONLY");
    let (idle, interval) = (Duration::from_secs(1 << 40), Duration::from_secs(1));
    refused(&mut house, any_port().keepalive(Keepalive { idle, interval, probes: 1 }), "SO_KEEPALIVE");
    house.leave();
}

#[test]
fn an_address_that_cannot_be_bound_is_named() {
    let directory = Directory::new("named");
    let (mut house, server) = served();
    let taken = Listen::tcp(server.address);
    let nobodys = Listen::tcp(([192, 0, 2, 1], 80));
    let (missing, long) = (directory.join("no/socket"), "x".repeat(500));
    for (listen, name) in [
        (taken, server.address.to_string()),
        (nobodys, "192.0.2.1:80".into()),
        (Listen::unix(&missing), format!("unix:{}", missing.display())),
        (Listen::unix(&long), format!("unix:{long}")),
    ] {
        let error = house.io().listen(listen, server.site).unwrap_err();
        let ListenError::Bind { address, error: system } = &error else { panic!("{error}") };
        assert_eq!(address.to_string(), name);
        assert_eq!(error.to_string(), format!("address {name} cannot be bound: {system}"));
    }
    house.leave();
}

#[test]
fn port_that_is_taken_and_site_that_is_gone_are_refused() {
    let (mut house, server) = served();
    let refused = house.io().listen(Listen::tcp(server.address), server.site);
    assert!(matches!(refused, Err(ListenError::Bind { .. })));
    house.io().remove_site(server.site);
    let refused = house.io().listen(any_port(), server.site);
    assert!(matches!(refused, Err(ListenError::NoSite)));
    house.settle();
    assert_eq!(house.data.ended, 1);
    assert_eq!(house.context.service(-1, lodger::Ready::NONE, &mut house.data), Served::Foreign);
    house.leave();
    assert_eq!(house.data.ended, 1);
}

#[test]
fn connections_outlive_the_listener_that_accepted_them() {
    let (mut house, server) = served();
    let (mut client, _) = server.websocket(&mut house);
    house.io().close_listener(server.listener);
    house.settle();
    assert!(std::net::TcpStream::connect(server.address).is_err());
    client.text("hello");
    assert_eq!(house.frame(&mut client), (1, b"hello".to_vec()));
    house.leave();
}

#[test]
fn hundreds_of_connections_at_once_are_all_accepted() {
    let (mut house, server) = served();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::tcp(server.address)).collect();
    for client in &mut clients {
        client.write(UPGRADE);
    }
    house.until("all are open", |house| house.data.count("opened") == 200);
    let frame = house.io().encode("all of you");
    let protocol = house.data.protocol.unwrap();
    assert_eq!(house.io().broadcast(protocol, &frame).sent, 200);
    for client in &mut clients {
        assert!(house.head(client).starts_with("HTTP/1.1 101 "));
        assert_eq!(house.frame(client), (1, b"all of you".to_vec()));
    }
    house.assert_idle();
    house.leave();
    assert_eq!(house.data.closed.len(), 200);
}
