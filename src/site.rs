//! A site: the protocols that share a port, and who may talk to them.

use crate::error::SiteError;
use crate::handler::Protocol;
use crate::http::{is_token, same_authority};
use crate::limits::Limits;
use crate::transport::Server;
use crate::ws::extension::Deflate;
use std::rc::Rc;

/// What a listener offers: one or more protocols, which origins and Host names it answers to, and its limits.
///
/// The first protocol gets plain HTTP, and the upgrades that offer no subprotocol or none that the site has; of the
/// others, each gets the upgrades that offer its name (RFC 6455, section 1.9), in the client's order of preference.
///
/// ```
/// use lodger::{Context, Decision, Limits, Origins, Response, Site, ws};
///
/// struct Quiet;
/// impl<D> ws::Handler<D> for Quiet {}
///
/// let mut context: Context = Context::new();
/// let site = Site::new()
///     .protocol("", |_: &lodger::Request<'_>, _: &mut (), _: &mut lodger::Io| Decision::respond(Response::text("hello")))
///     .protocol("quiet", |_: &lodger::Request<'_>, _: &mut (), _: &mut lodger::Io| Decision::websocket(Quiet))
///     .hosts(["localhost", "example.com"])
///     .origins(Origins::Same)
///     .limits(Limits { message: 4096, ..Limits::default() });
/// let site = context.io().add_site(site)?;
/// # let _ = site;
/// # context.abandon();
/// # Ok::<(), lodger::SiteError>(())
/// ```
#[doc(alias("vhost", "lws_create_vhost", "lws_context_creation_info"))]
pub struct Site<D> {
    pub(crate) protocols: Vec<(String, Box<dyn Protocol<D>>)>,
    pub(crate) policy: Policy,
}

/// From which web pages a browser may open a WebSocket to a site (RFC 6455, section 10.2).
///
/// Any page may try, also to a port on the user's own machine, and the browser says only where the page came from. A
/// client that sends no `Origin` is no browser, and is let in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Origins {
    /// From pages of this very site: the origin's host and port are those of the Host field, and over TLS its scheme is `https`
    /// (RFC 6454, section 5). The default.
    ///
    /// A port that is left out is the scheme's own, 443 over TLS: a page of `http://localhost` is a stranger to a site at
    /// `https://localhost`. Without TLS both schemes pass, each with its own port, since a proxy in front may speak TLS for the
    /// site; what speaks plain HTTP to the world as well, and must tell the two apart, names its pages in a
    /// [`List`](Self::List).
    #[default]
    Same,
    /// From these, written as browsers do: `https://example.com`, with a port where it is not the scheme's own.
    List(Vec<String>),
    /// From everywhere.
    Any,
}

impl<D> Site<D> {
    /// A site without protocols; [`Io::add_site`](crate::Io::add_site) wants at least one.
    pub fn new() -> Self {
        let policy =
            Policy { origins: Origins::Same, hosts: None, limits: Rc::default(), tls: None, deflate: None };
        Self { protocols: Vec::new(), policy }
    }

    /// Adds a protocol. `name` is the subprotocol by which clients ask for it, a token that no other protocol of the site has; empty
    /// for none.
    #[doc(alias("lws_protocols", "protocol_name"))]
    #[must_use]
    pub fn protocol(mut self, name: &str, protocol: impl Protocol<D> + 'static) -> Self {
        self.protocols.push((name.to_owned(), Box::new(protocol)));
        self
    }

    /// From which pages browsers may open a WebSocket; others get 403. Default: [`Origins::Same`].
    #[must_use]
    pub fn origins(mut self, origins: Origins) -> Self {
        self.policy.origins = origins;
        self
    }

    /// The Host names that the site answers to, without port; others get 421 (RFC 9110, section 15.5.20). This keeps a page
    /// whose name was pointed at this machine (DNS rebinding) from passing for the site's own. Default: any name.
    #[must_use]
    pub fn hosts<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.policy.hosts = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// The site's certificate, and how its connections speak TLS. They do so on listeners that ask for it
    /// ([`Listen::tls`](crate::Listen::tls)).
    #[cfg(feature = "tls")]
    #[doc(alias("ssl_cert_filepath", "ssl_private_key_filepath", "LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT"))]
    #[must_use]
    pub fn tls(mut self, server: crate::tls::Server) -> Self {
        self.policy.tls = Some(server);
        self
    }

    /// Has the site's WebSockets compress their messages with the clients that offer it (permessage-deflate, RFC 7692), in this
    /// way unless [`ws::Accept::deflate`](crate::ws::Accept::deflate) says otherwise. Default: off.
    ///
    /// A message that holds a secret beside what an attacker has a say in gives the secret away by its length once it is
    /// compressed: see [`ws::deflate`](crate::ws::deflate).
    #[cfg(feature = "deflate")]
    #[doc(alias("lws_extension", "permessage-deflate", "extensions", "LWS_SERVER_OPTION_ENABLE_PMD"))]
    #[must_use]
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        self.policy.deflate = Some(deflate);
        self
    }

    /// The limits of the site's connections.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.limits = Rc::new(limits);
        self
    }

    /// Whether each of its protocols, and at least one, can be reached.
    pub(crate) fn check(&self) -> Result<(), SiteError> {
        if self.protocols.is_empty() {
            return Err(SiteError::NoProtocol);
        }
        for (place, (name, _)) in self.protocols.iter().enumerate() {
            if self.protocols[..place].iter().any(|(before, _)| before == name) {
                return Err(SiteError::SameName(name.as_str().into()));
            }
            if !name.is_empty() && !is_token(name.as_bytes()) {
                return Err(SiteError::Name(name.as_str().into()));
            }
        }
        Ok(())
    }
}

impl<D> Default for Site<D> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a site checks before its protocols see a request.
pub(crate) struct Policy {
    pub(crate) origins: Origins,
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) limits: Rc<Limits>,
    pub(crate) tls: Option<Server>,
    /// How messages are compressed, if they are.
    pub(crate) deflate: Option<Deflate>,
}

impl Policy {
    /// Which of several sites a Host, or a name without port, is for: the one that has the name, else the one that has the
    /// nearest parent of it.
    pub(crate) fn choose<'a>(sites: impl Iterator<Item = &'a Self>, host: &str) -> Option<usize> {
        let name = without_port(host);
        // How much of the name each has at its end: the more the better, the first of those that have the same.
        let fits = |policy: &Self| {
            let names = policy.hosts.iter().flatten();
            names.filter(|known| is_name_or_parent(known, name)).map(String::len).max()
        };
        let found = sites.enumerate().filter_map(|(place, policy)| Some((fits(policy)?, place)));
        found.max_by_key(|&(length, place)| (length, std::cmp::Reverse(place))).map(|(_, place)| place)
    }

    /// Whether the site answers to this Host (RFC 9110, section 7.2). A request of HTTP/1.0 may have none.
    pub(crate) fn answers_to(&self, host: Option<&str>) -> bool {
        let Some(names) = &self.hosts else { return true };
        host.is_some_and(|host| names.iter().any(|name| name.eq_ignore_ascii_case(without_port(host))))
    }

    /// Whether a page from `origin` may open a WebSocket at `host`, over TLS if `secure`.
    pub(crate) fn lets_in(&self, origin: Option<&str>, host: Option<&str>, secure: bool) -> bool {
        let Some(origin) = origin else { return true };
        match &self.origins {
            Origins::Any => true,
            Origins::List(list) => list.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
            Origins::Same => host.is_some_and(|host| is_origin_of(origin, host, secure)),
        }
    }
}

/// Whether the authority of `origin` is `host`, whichever of the two leaves out the scheme's own port (RFC 6454, section 4), and its
/// scheme one by which the site can be reached.
fn is_origin_of(origin: &str, host: &str, secure: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    match scheme {
        // Whoever changes a page on its way, which TLS is to prevent, must not have the site's origin by that.
        "http" => !secure && same_authority(authority, host, 80),
        // A connection without TLS may come from a proxy that speaks TLS for the site.
        "https" => same_authority(authority, host, 443),
        _ => false,
    }
}

/// Whether `name` is `known`, or lies below it.
fn is_name_or_parent(known: &str, name: &str) -> bool {
    let Some(start) = name.len().checked_sub(known.len()) else { return false };
    let Some((above, end)) = name.split_at_checked(start) else { return false };
    !known.is_empty() && end.eq_ignore_ascii_case(known) && (above.is_empty() || above.ends_with('.'))
}

/// The name in `host[:port]`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(origins: Origins, hosts: Option<&[&str]>) -> Policy {
        let hosts = hosts.map(|hosts| hosts.iter().map(|&name| name.to_owned()).collect());
        Policy { origins, hosts, limits: Rc::default(), tls: None, deflate: None }
    }

    #[test]
    fn a_page_of_the_same_host_and_port_is_let_in_and_no_other() {
        let policy = policy(Origins::Same, None);
        for (origin, host, plain, secure) in [
            ("http://example.com", "example.com", true, false),
            ("http://example.com", "example.com:80", true, false),
            ("http://example.com:443", "example.com", false, false),
            ("http://example.com:443", "example.com:443", true, false),
            ("https://example.com", "example.com", true, true),
            ("https://example.com", "example.com:443", true, true),
            ("https://example.com:443", "Example.com", true, true),
            ("https://example.com:80", "example.com", false, false),
            ("https://example.com", "example.com:80", false, false),
            ("http://127.0.0.1:7681", "127.0.0.1:7681", true, false),
            ("https://127.0.0.1:7681", "127.0.0.1:7681", true, true),
            ("https://[::1]:7681", "[::1]:7681", true, true),
            ("http://[::1]:7681", "[::1]:7681", true, false),
            ("https://127.0.0.1:7681", "127.0.0.1:7682", false, false),
            ("https://localhost", "127.0.0.1", false, false),
            ("https://evil.example", "example.com", false, false),
            ("https://example.com.evil.example", "example.com", false, false),
            ("wss://example.com", "example.com", false, false),
            ("https", "example.com", false, false),
            ("https://", "example.com", false, false),
            ("null", "example.com", false, false),
            ("file://", "example.com", false, false),
            ("", "example.com", false, false),
        ] {
            assert_eq!(policy.lets_in(Some(origin), Some(host), false), plain, "{origin} at {host}");
            assert_eq!(policy.lets_in(Some(origin), Some(host), true), secure, "{origin} at {host} over TLS");
        }
        for secure in [false, true] {
            assert!(policy.lets_in(None, Some("example.com"), secure));
            assert!(!policy.lets_in(Some("https://example.com"), None, secure));
        }
    }

    #[test]
    fn a_name_chooses_the_site_that_has_it_then_the_nearest_parents() {
        let names = [&["abc.com", "localhost"][..], &["cats.abc.com"], &["com"], &[]];
        let sites: Vec<Policy> = names.iter().map(|names| policy(Origins::Same, Some(names))).collect();
        for (host, chosen) in [
            ("abc.com", Some(0)),
            ("ABC.com:443", Some(0)),
            ("dogs.abc.com", Some(0)),
            ("cats.abc.com:8080", Some(1)),
            ("small.cats.abc.com", Some(1)),
            ("xabc.com", Some(2)),
            ("com", Some(2)),
            ("localhost", Some(0)),
            ("[::1]:80", None),
            ("", None),
        ] {
            assert_eq!(Policy::choose(sites.iter(), host), chosen, "{host}");
        }
    }

    #[test]
    fn a_list_of_origins_lets_in_what_it_names() {
        let policy = policy(Origins::List(vec!["https://app.example".into()]), None);
        for secure in [false, true] {
            assert!(policy.lets_in(Some("https://app.example"), Some("api.example"), secure));
            assert!(!policy.lets_in(Some("https://api.example"), Some("api.example"), secure));
            assert!(!policy.lets_in(Some("http://app.example"), Some("app.example"), secure));
        }
    }

    #[test]
    fn a_site_answers_to_its_names_on_any_port() {
        let policy = policy(Origins::Same, Some(&["localhost", "[::1]", "example.com"]));
        for host in ["localhost", "localhost:80", "LOCALHOST:8080", "[::1]", "[::1]:9", "example.com:"] {
            assert!(policy.answers_to(Some(host)), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "", ":80", "::1", "localhost:80x"] {
            assert!(!policy.answers_to(Some(host)), "{host}");
        }
        assert!(!policy.answers_to(None));
    }
}
