//! A server for tests of TLS with other people's clients. It says on its standard output what each handshake came to, and
//! answers every request with what is known of its connection.
//!
//! ```text
//! tls-peers-server CHAIN KEY [--require ROOTS | --allow ROOTS] [--refuse]
//! ```
//!
//! - `--require ROOTS`, `--allow ROOTS`: clients must, or may, show a certificate that one of these vouches for
//! - `--refuse`: a client that shows one is refused by the application, whoever vouches for it

use lodger::tls::{ClientCertificates, Facts, Server, TlsError};
use lodger::{Context, Decision, Io, Listen, Peer, Protocol, Request, Response, Site};
use lodger_poll::Loop;
use std::error::Error;

/// What was said of the last handshake.
#[derive(Default)]
struct Said(String);

struct Teller {
    refuse: bool,
}

impl Protocol<Said> for Teller {
    fn secured(&mut self, _: &Peer, facts: &Facts, said: &mut Said) -> bool {
        let Facts { version, cipher_suite, .. } = facts;
        let group = facts.group.map_or("none".to_owned(), |group| format!("{group:?}"));
        let alpn = facts.alpn.as_deref().map_or("none".to_owned(), |name| name.escape_ascii().to_string());
        said.0 = format!(
            "secured version={version} suite={cipher_suite:?} group={group} name={} alpn={alpn} resumed={} certificates={}",
            facts.server_name.as_deref().unwrap_or("none"),
            facts.resumed,
            facts.peer_certificates.len(),
        );
        println!("{}", said.0);
        !self.refuse || facts.peer_certificates.is_empty()
    }

    fn handshake_failed(&mut self, _: &Peer, error: &TlsError, _: &mut Said, _: &mut Io<Said>) {
        println!("failed {error}");
    }

    fn accept(&mut self, _: &Request<'_>, said: &mut Said, _: &mut Io<Said>) -> Decision<Said> {
        Decision::respond(Response::text(format!("{}\n", said.0)))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("what comes here?");
    let mut server = Server::builder().certificate_files(next()?, next()?);
    let mut refuse = false;
    while let Ok(flag) = next() {
        match flag.as_str() {
            "--require" => {
                server = server.client_certificates(ClientCertificates::required().roots_file(next()?))
            }
            "--allow" => {
                server = server.client_certificates(ClientCertificates::optional().roots_file(next()?))
            }
            "--refuse" => refuse = true,
            other => return Err(format!("no such option: {other}").into()),
        }
    }
    let mut context = Context::new();
    let site = context.io().add_site(Site::new().protocol("", Teller { refuse }).tls(server.build()?))?;
    let listener = context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)).tls(), site)?;
    if let Some(address) = context.io().local_addr(listener) {
        println!("listening on {address}");
    }
    Loop::new().run(&mut context, &mut Said::default())?;
    Ok(())
}
