use super::connect::HEADS_MAX;
use super::*;

/// What the whole of `input` comes to: what was used of it and sent for it, or how it failed.
fn talk(proxy: &Proxy, host: &str, input: &[u8]) -> (Vec<u8>, Result<(usize, Progress), ProxyError>) {
    let mut out = Vec::new();
    let mut negotiation = match Negotiation::begin(proxy, host, 443, &mut out) {
        Ok(negotiation) => negotiation,
        Err(error) => return (out, Err(error)),
    };
    let result = negotiation.receive(input, &mut out);
    (out, result)
}

/// The same, the input coming in these pieces, as a caller hands it on that keeps what was not used.
fn talk_in_pieces(
    proxy: &Proxy,
    host: &str,
    pieces: &[&[u8]],
) -> (Vec<u8>, Result<(usize, Progress), ProxyError>) {
    let mut out = Vec::new();
    let mut negotiation = Negotiation::begin(proxy, host, 443, &mut out).unwrap();
    let (mut kept, mut total) = (Vec::new(), 0);
    for piece in pieces {
        kept.extend_from_slice(piece);
        match negotiation.receive(&kept, &mut out) {
            Ok((used, Progress::More)) => {
                total += used;
                kept.drain(..used);
            }
            Ok((used, Progress::Done)) => return (out, Ok((total + used, Progress::Done))),
            Err(error) => return (out, Err(error)),
        }
    }
    (out, Ok((total, Progress::More)))
}

/// Each split of the input into two, and all into single bytes, come to the same.
fn same_in_pieces(
    proxy: &Proxy,
    host: &str,
    input: &[u8],
) -> (Vec<u8>, Result<(usize, Progress), ProxyError>) {
    let whole = talk(proxy, host, input);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(talk_in_pieces(proxy, host, &bytes), whole, "{input:?}");
    for at in 0..=input.len() {
        let (front, back) = input.split_at(at);
        assert_eq!(talk_in_pieces(proxy, host, &[front, back]), whole, "{front:?} {back:?}");
    }
    whole
}

fn http() -> Proxy {
    Proxy::http("proxy.example", 3128)
}

fn socks() -> Proxy {
    Proxy::socks5("proxy.example", 1080)
}

fn connect_error(proxy: &Proxy, answer: &str) -> ProxyError {
    same_in_pieces(proxy, "a.example", answer.as_bytes()).1.unwrap_err()
}

fn begin(proxy: &Proxy, host: &str) -> Result<String, ProxyError> {
    let mut out = Vec::new();
    Negotiation::begin(proxy, host, 443, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn connect_asks_for_host_and_port() {
    for (host, authority) in [
        ("server.example.com", "server.example.com:443"),
        ("192.0.2.1", "192.0.2.1:443"),
        ("2001:db8::1", "[2001:db8::1]:443"),
        ("[::1]", "[::1]:443"),
        ("under_score", "under_score:443"),
    ] {
        let expected = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        assert_eq!(begin(&http(), host).as_deref(), Ok(expected.as_str()));
    }
}

#[test]
fn connect_gives_credentials_in_the_basic_scheme() {
    // The example of RFC 7617, section 2.
    let proxy = http().credentials("Aladdin", "open sesame");
    let head = begin(&proxy, "a").unwrap();
    assert!(head.ends_with("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"), "{head}");
    assert!(begin(&http().credentials("ann", "with: colon é"), "a").is_ok());
    for (user, password) in [("a:b", ""), ("a\n", ""), ("", "\0"), ("", "\u{7f}")] {
        let proxy = http().credentials(user, password);
        assert_eq!(begin(&proxy, "a"), Err(ProxyError::Credentials), "{user:?} {password:?}");
    }
}

#[test]
fn what_is_no_name_is_not_given_to_a_proxy() {
    for proxy in [http(), socks()] {
        assert!(begin(&proxy, &"a".repeat(255)).is_ok());
        for host in
            ["", "a b", "a\r\nX: y", "a:80", "a/b", "a@b", "a,b", "é", "[::1", "fe80::1%1", &"a".repeat(256)]
        {
            assert_eq!(talk(&proxy, host, b""), (Vec::new(), Err(ProxyError::Target)), "{host:?}");
        }
    }
}

#[test]
fn a_tunnel_begins_behind_the_head_of_a_2xx() {
    for head in [
        "HTTP/1.1 200 Connection established\r\n\r\n",
        "HTTP/1.0 200 OK\r\nProxy-agent: x\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 299 \r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        for behind in ["", "\x16\x03\x01", "\r\n\r\n", "HTTP/1.1 407 x\r\n\r\n"] {
            let (_, result) = same_in_pieces(&http(), "a", format!("{head}{behind}").as_bytes());
            assert_eq!(result, Ok((head.len(), Progress::Done)), "{head:?}");
        }
    }
}

#[test]
fn a_head_without_its_end_is_waited_for() {
    for head in ["", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r", "HTTP/1.1 200 OK\r\nA: b\r\n"] {
        assert_eq!(same_in_pieces(&http(), "a", head.as_bytes()).1, Ok((0, Progress::More)));
    }
}

#[test]
fn other_answers_refuse_the_tunnel() {
    for code in [101, 300, 302, 400, 403, 404, 502, 503, 504, 599] {
        let error = connect_error(&http(), &format!("HTTP/1.1 {code} x\r\nA: b\r\n\r\nbehind"));
        assert_eq!(error, ProxyError::Refused(StatusCode::new(code).unwrap()));
    }
}

#[test]
fn credentials_are_needed_or_wrong_or_of_no_use() {
    let proxies = [http(), http().credentials("ann", "secret")];
    for (challenge, errors) in [
        ("", [ProxyError::CredentialsNeeded, ProxyError::CredentialsRefused]),
        (
            "Proxy-Authenticate: basic realm=\"x\"\r\n",
            [ProxyError::CredentialsNeeded, ProxyError::CredentialsRefused],
        ),
        (
            "Proxy-Authenticate: Digest realm=\"x\", nonce=\"y\", Basic realm=\"x\"\r\n",
            [ProxyError::CredentialsNeeded, ProxyError::CredentialsRefused],
        ),
        (
            "Proxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic\r\n",
            [ProxyError::CredentialsNeeded, ProxyError::CredentialsRefused],
        ),
        (
            "Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n",
            [ProxyError::AuthenticationNotSupported, ProxyError::AuthenticationNotSupported],
        ),
    ] {
        for (proxy, expected) in proxies.iter().zip(errors) {
            let answer = format!("HTTP/1.1 407 Proxy Authentication Required\r\n{challenge}\r\n");
            assert_eq!(connect_error(proxy, &answer), expected, "{challenge}");
        }
    }
}

#[test]
fn a_proxy_that_answers_as_an_origin_server_does_wants_credentials_too() {
    let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n";
    assert_eq!(connect_error(&http(), answer), ProxyError::CredentialsNeeded);
    assert_eq!(connect_error(&http().credentials("ann", "secret"), answer), ProxyError::CredentialsRefused);
}

#[test]
fn what_is_no_answer_to_connect_is_refused_as_soon_as_it_is_there() {
    for answer in ["\x05", "SSH-2.0-x\r\n", "\r\n", "HTTP/2", "HTTP/1x", "http/1.1 200 OK\r\n\r\n", "HTTP/0"]
    {
        assert_eq!(connect_error(&http(), answer), ProxyError::NotAProxy, "{answer:?}");
    }
    for answer in [
        "HTTP/1.1 2000 x\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 999 x\r\n\r\n",
        "HTTP/1.1 200 x\r\nA b\r\n\r\n",
    ] {
        assert_eq!(connect_error(&http(), answer), ProxyError::Malformed, "{answer:?}");
    }
}

#[test]
fn heads_are_bounded_all_together() {
    let interim = "HTTP/1.1 100 x\r\n\r\n";
    for interims in [0, 3] {
        let before = interim.repeat(interims);
        let frame = "HTTP/1.1 200 x\r\nA: \r\n\r\n";
        let fits = HEADS_MAX - before.len() - frame.len();
        for (length, expected) in
            [(fits, Ok((HEADS_MAX, Progress::Done))), (fits + 1, Err(ProxyError::TooLong))]
        {
            let answer = format!("{before}HTTP/1.1 200 x\r\nA: {}\r\n\r\n", "b".repeat(length));
            assert_eq!(talk(&http(), "a", answer.as_bytes()).1, expected);
            let halves = answer.as_bytes().split_at(HEADS_MAX - 1);
            assert_eq!(talk_in_pieces(&http(), "a", &[halves.0, halves.1]).1, expected);
        }
    }
    let endless = interim.repeat(HEADS_MAX);
    assert_eq!(talk(&http(), "a", endless.as_bytes()).1, Err(ProxyError::TooLong));
    for (fields, fits) in [(100, true), (101, false)] {
        let answer = format!("HTTP/1.1 200 x\r\n{}\r\n", "A: b\r\n".repeat(fields));
        let result = talk(&http(), "a", answer.as_bytes()).1;
        assert_eq!(result, if fits { Ok((answer.len(), Progress::Done)) } else { Err(ProxyError::TooLong) });
    }
}

const BOUND: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";

#[test]
fn socks_asks_for_names_and_addresses_as_they_are() {
    for (host, address) in [
        ("a.example", &b"\x03\x09a.example"[..]),
        ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
        ("::1", b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
        ("[::1]", b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
    ] {
        let (out, result) = same_in_pieces(&socks(), host, &[b"\x05\x00", BOUND, b"behind"].concat());
        assert_eq!(out, [b"\x05\x01\x00\x05\x01\x00", address, b"\x01\xbb"].concat(), "{host}");
        assert_eq!(result, Ok((12, Progress::Done)));
    }
}

#[test]
fn socks_waits_for_the_method_before_it_asks() {
    assert_eq!(talk(&socks(), "a", b""), (b"\x05\x01\x00".to_vec(), Ok((0, Progress::More))));
    assert_eq!(talk(&socks(), "a", b"\x05"), (b"\x05\x01\x00".to_vec(), Ok((0, Progress::More))));
    let (out, result) = talk(&socks(), "a", b"\x05\x00");
    assert_eq!((out.len(), result), (3 + 8, Ok((2, Progress::More))));
}

#[test]
fn socks_gives_credentials_when_asked_for_them() {
    let proxy = socks().credentials("ann", "secret");
    let request = b"\x05\x01\x00\x03\x01a\x01\xbb";
    let (out, result) = same_in_pieces(&proxy, "a", &[b"\x05\x02\x01\x00", BOUND].concat());
    assert_eq!(out, [&b"\x05\x02\x00\x02\x01\x03ann\x06secret"[..], request].concat());
    assert_eq!(result, Ok((14, Progress::Done)));

    let (out, _) = same_in_pieces(&proxy, "a", b"\x05\x00");
    assert_eq!(out, [&b"\x05\x02\x00\x02"[..], request].concat());
    // The version that some proxies say here.
    let (_, result) = same_in_pieces(&proxy, "a", &[b"\x05\x02\x05\x00", BOUND].concat());
    assert_eq!(result, Ok((14, Progress::Done)));
}

#[test]
fn socks_credentials_have_at_most_255_bytes() {
    let long = "x".repeat(255);
    assert!(begin(&socks().credentials(&long, &long), "a").is_ok());
    for proxy in [socks().credentials(format!("{long}x"), ""), socks().credentials("", format!("{long}x"))] {
        assert_eq!(talk(&proxy, "a", b""), (Vec::new(), Err(ProxyError::Credentials)));
    }
}

#[test]
fn socks_methods_that_do_not_fit_are_errors() {
    let (anonymous, named) = (socks(), socks().credentials("ann", "secret"));
    for (proxy, answer, error) in [
        (&anonymous, b"\x05\xff", ProxyError::CredentialsNeeded),
        (&anonymous, b"\x05\x02", ProxyError::CredentialsNeeded),
        (&anonymous, b"\x05\x01", ProxyError::AuthenticationNotSupported),
        (&named, b"\x05\xff", ProxyError::AuthenticationNotSupported),
        (&named, b"\x05\x01", ProxyError::AuthenticationNotSupported),
        (&named, b"\x04\x00", ProxyError::NotAProxy),
        (&named, b"HT", ProxyError::NotAProxy),
    ] {
        assert_eq!(same_in_pieces(proxy, "a", answer).1, Err(error), "{answer:?}");
    }
    assert_eq!(same_in_pieces(&named, "a", b"\x05\x02\x01\x01").1, Err(ProxyError::CredentialsRefused));
    assert_eq!(same_in_pieces(&named, "a", b"H").1, Err(ProxyError::NotAProxy));
}

#[test]
fn every_reply_of_socks_has_a_name() {
    let replies = [
        SocksReply::GeneralFailure,
        SocksReply::NotAllowed,
        SocksReply::NetworkUnreachable,
        SocksReply::HostUnreachable,
        SocksReply::ConnectionRefused,
        SocksReply::TtlExpired,
        SocksReply::CommandNotSupported,
        SocksReply::AddressTypeNotSupported,
        SocksReply::Unassigned(9),
    ];
    for (code, reply) in (1..).zip(replies).chain([(255, SocksReply::Unassigned(255))]) {
        let error = Err(ProxyError::Socks(reply));
        assert_eq!(same_in_pieces(&socks(), "a", &[5, 0, 5, code]).1, error);
        assert_eq!(same_in_pieces(&socks(), "a", &[5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]).1, error);
    }
}

#[test]
fn replies_of_socks_are_as_long_as_their_address() {
    for (address, length) in
        [(&b"\x01abcd"[..], 10), (b"\x04abcdefghijklmnop", 22), (b"\x03\x00", 7), (b"\x03\x03abc", 10)]
    {
        let reply = [b"\x05\x00\x05\x00\x00", address, b"\x04\x38"].concat();
        assert_eq!(reply.len(), 2 + length);
        let (_, result) = same_in_pieces(&socks(), "a", &[&reply[..], b"behind"].concat());
        assert_eq!(result, Ok((2 + length, Progress::Done)));
        let (_, result) = same_in_pieces(&socks(), "a", &reply[..reply.len() - 1]);
        assert_eq!(result, Ok((2, Progress::More)));
    }
    for reply in [&b"\x05\x00\x04"[..], b"\x05\x00\x05\x00\x00\x02", b"\x05\x00\x05\x00\x00\x00"] {
        assert_eq!(same_in_pieces(&socks(), "a", reply).1, Err(ProxyError::NotAProxy));
    }
}

#[test]
fn whatever_a_proxy_sends_is_taken_or_refused() {
    let answers: [&[u8]; 5] = [
        b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 x\r\nA: b\r\n\r\nbehind",
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: a=\"b, c\", Basic realm=d\r\n\r\n",
        b"\x05\x02\x01\x00\x05\x00\x00\x03\x03abc\x00\x00behind",
        b"\x05\x00\x05\x00\x00\x04abcdefghijklmnop\x00\x00",
        b"\x05\x00\x05\x00\x00\x01abcd\x00\x00",
    ];
    // A generator of numbers that are the same in every run (Marsaglia's xorshift).
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let mut input = answers[next(answers.len())].to_vec();
        for _ in 0..next(4) {
            let at = next(input.len());
            input[at] = next(256) as u8;
        }
        for proxy in [http(), socks().credentials("ann", "secret")] {
            let at = next(input.len() + 1);
            let (out, result) = talk(&proxy, "a", &input);
            assert_eq!(
                talk_in_pieces(&proxy, "a", &[&input[..at], &input[at..]]),
                (out.clone(), result.clone())
            );
            assert!(out.len() < 100 && !result.is_ok_and(|(used, _)| used > input.len()));
        }
    }
}

#[test]
fn proxies_are_read_from_urls() {
    for (url, proxy) in [
        ("http://proxy.example:3128", http()),
        ("HTTP://proxy.example:3128/", http()),
        ("proxy.example:3128", http()),
        ("http://proxy.example", Proxy::http("proxy.example", 80)),
        ("http://proxy.example:", Proxy::http("proxy.example", 80)),
        ("socks5://[::1]", Proxy::socks5("::1", 1080)),
        ("socks5h://[::1]:1", Proxy::socks5("::1", 1)),
        ("http://ann@proxy.example:3128", http().credentials("ann", "")),
        ("http://ann:a%3Ab%40%2f%C3%A9%25@proxy.example:3128", http().credentials("ann", "a:b@/é%")),
        ("ann:p@ss:word@proxy.example:3128", http().credentials("ann", "p@ss:word")),
        ("http://@proxy.example:3128", http().credentials("", "")),
    ] {
        assert_eq!(url.parse(), Ok(proxy), "{url}");
    }
    for (url, error) in [
        ("https://proxy.example", ProxyUrlError::Scheme),
        ("socks4://proxy.example", ProxyUrlError::Scheme),
        ("://proxy.example", ProxyUrlError::Scheme),
        ("", ProxyUrlError::Host),
        ("http://", ProxyUrlError::Host),
        ("http://ann:secret@", ProxyUrlError::Host),
        ("http://proxy.example:0", ProxyUrlError::Host),
        ("http://proxy.example:65536", ProxyUrlError::Host),
        ("http://proxy.example:x", ProxyUrlError::Host),
        ("http://::1", ProxyUrlError::Host),
        ("http://a b", ProxyUrlError::Host),
        ("http://proxy.example/path", ProxyUrlError::Path),
        ("http://proxy.example?q", ProxyUrlError::Path),
        ("http://ann:a/b@proxy.example", ProxyUrlError::Path),
        ("http://ann:%ff@proxy.example", ProxyUrlError::Credentials),
    ] {
        assert_eq!(url.parse::<Proxy>(), Err(error), "{url}");
    }
}

#[test]
fn passwords_are_not_shown() {
    let proxy = http().credentials("ann", "secret");
    let shown = format!("{proxy:?}");
    assert!(
        shown.contains("proxy.example") && !shown.contains("secret") && !shown.contains("ann"),
        "{shown}"
    );
}

#[test]
fn the_environment_names_proxies() {
    let from = |secure, host: &str, set: &[(&str, &str)]| {
        let variable =
            |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        Proxy::from_variables(secure, host, variable).map(|proxy| proxy.map(|proxy| proxy.host().to_owned()))
    };
    let some = |host: &str| Ok(Some(host.to_owned()));
    let all = [("http_proxy", "p"), ("https_proxy", "s"), ("all_proxy", "socks5://a")];
    assert_eq!(from(false, "x", &all), some("p"));
    assert_eq!(from(true, "x", &all), some("s"));
    assert_eq!(from(true, "x", &all[..1]), Ok(None));
    assert_eq!(from(true, "x", &all[2..]), some("a"));
    assert_eq!(from(true, "x", &[("https_proxy", " "), ("HTTPS_PROXY", "S")]), some("S"));
    assert_eq!(from(false, "x", &[("HTTP_PROXY", "p")]), Ok(None));
    assert_eq!(from(false, "x", &[("ALL_PROXY", "a")]), some("a"));
    assert_eq!(from(false, "x", &[("http_proxy", "ftp://p")]), Err(ProxyUrlError::Scheme));
    assert_eq!(from(false, "x", &[]), Ok(None));
}

#[test]
fn what_no_proxy_lists_is_reached_directly() {
    let direct = |list: &str, host: &str| {
        let variable = |name: &str| match name {
            "all_proxy" => Some("p".to_owned()),
            "no_proxy" => Some(list.to_owned()),
            _ => None,
        };
        Proxy::from_variables(false, host, variable).unwrap().is_none()
    };
    for (list, host) in [
        ("*", "a"),
        ("x,example.org", "Example.ORG"),
        ("x .example.org", "a.b.example.org"),
        (".example.org", "example.org."),
        ("::1, 192.0.2.1", "192.0.2.1"),
        ("[::1]", "[::1]"),
        ("10.0.0.0/8", "10.255.0.1"),
        ("0.0.0.0/0", "1.2.3.4"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("2001:db8::/32", "2001:db8:1::1"),
        ("::/0", "2001:db8::1"),
    ] {
        assert!(direct(list, host), "{list} {host}");
    }
    for (list, host) in [
        ("", "a"),
        (" , ", "a"),
        (".", "a"),
        ("example.org", "badexample.org"),
        ("example.org", "org"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10.0.0.0/33", "10.0.0.1"),
        ("10.0.0.0/x", "10.0.0.1"),
        ("10.0.0.0/8", "10.example.org"),
        ("0.2.1", "192.0.2.1"),
        ("::/0", "1.2.3.4"),
        ("2001:db8::/32", "2001:db9::1"),
    ] {
        assert!(!direct(list, host), "{list} {host}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let error = ProxyError::Refused(StatusCode::BAD_GATEWAY);
    assert_eq!(error.to_string(), "the proxy refused the tunnel: 502 Bad Gateway");
    let error = ProxyError::Socks(SocksReply::HostUnreachable);
    assert_eq!(error.to_string(), "the proxy made no connection: host unreachable");
}
