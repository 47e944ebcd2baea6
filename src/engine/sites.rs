//! Sites: which links live by which, and which of those that share a listener a name is for.

use super::link::Link;
use super::store::Key;
use super::timers::Timer;
use super::{Core, SiteFacts};
use crate::limits::Limits;
use crate::role::{Role, Secure};
use crate::site::Policy;
use crate::transport::{Server, TlsError};
use crate::ws::CloseCode;
use std::rc::Rc;

impl Core {
    pub(crate) fn join_site(&mut self, link: u32, site: Key) {
        if let Some(facts) = self.sites.get_mut(site) {
            facts.links += 1;
            self.link(link).site = site.index;
        }
    }

    /// A link is gone, and was perhaps the last of a site that was removed.
    pub(super) fn left_site(&mut self, link: &Link) {
        if let Role::Listener(listener) = &link.role {
            for site in &listener.sites {
                self.listens_no_more(*site);
            }
        }
        self.left(link.site);
    }

    /// A site has a part in another listener.
    pub(crate) fn listens(&mut self, site: Key) {
        if let Some(facts) = self.sites.get_mut(site) {
            facts.listeners += 1;
        }
    }

    fn listens_no_more(&mut self, site: Key) {
        if let Some(facts) = self.sites.get_mut(site) {
            facts.listeners = facts.listeners.saturating_sub(1);
            if !facts.is_used() {
                self.timers.cancel(&mut facts.aging);
            }
        }
    }

    fn left(&mut self, site: u32) {
        let Some(site) = self.sites.key_at(site) else { return };
        if let Some(facts) = self.sites.get_mut(site) {
            facts.links = facts.links.saturating_sub(1);
            if !facts.is_used() {
                self.timers.cancel(&mut facts.aging);
            }
            self.site_may_end(site);
        }
    }

    pub(crate) fn site_may_end(&mut self, site: Key) {
        if self.sites.get(site).is_some_and(|facts| facts.removed && facts.links == 0) {
            self.ended_sites.push(site);
            self.work = true;
        }
    }

    /// The limits of a link's site, or its own.
    pub(crate) fn limits(&mut self, index: u32) -> Rc<Limits> {
        Rc::clone(&self.link(index).limits)
    }

    /// A link lives by another site from now on.
    fn move_to_site(&mut self, index: u32, site: Key) {
        let Some(facts) = self.sites.get(site) else { return };
        let limits = Rc::clone(&facts.policy.limits);
        let link = self.link(index);
        let before = std::mem::replace(&mut link.site, super::link::NO_CONN);
        link.limits = limits;
        if let Role::Http(server) = &mut link.role {
            server.site = site;
        }
        self.join_site(index, site);
        self.left(before);
    }

    /// Closes everything of a site in an orderly way. A listener that it shares goes on for the others.
    pub(crate) fn remove_site(&mut self, site: Key) {
        let Some(facts) = self.sites.get_mut(site) else { return };
        facts.removed = true;
        for index in self.all_links() {
            let link = self.link(index);
            let of_site = link.site == site.index;
            let next = match &mut link.role {
                Role::Listener(listener) => {
                    let before = listener.sites.len();
                    listener.sites.retain(|&other| other != site);
                    let (left, next) = (listener.sites.len() < before, listener.sites.first().copied());
                    if left {
                        self.listens_no_more(site);
                    }
                    next
                }
                _ => None,
            };
            match next {
                Some(next) if of_site => self.move_to_site(index, next),
                _ if of_site => self.wind_up(index, CloseCode::GOING_AWAY),
                _ => {}
            }
        }
        self.site_may_end(site);
    }

    /// The sites among which a connection's is chosen by name; its own alone if it has no other.
    fn sites_of(&mut self, index: u32) -> Option<(Key, Vec<Key>)> {
        let Role::Http(server) = &self.link(index).role else { return None };
        let (site, listener) = (server.site, server.listener);
        let shared = match self.links.get(listener).map(|link| &link.role) {
            Some(Role::Listener(listener)) if listener.sites.len() > 1 => listener.sites.clone(),
            _ => vec![site],
        };
        Some((site, shared))
    }

    fn policies<'a>(&'a self, sites: &'a [Key]) -> impl Iterator<Item = &'a Policy> {
        sites.iter().filter_map(|site| self.sites.get(*site)).map(|facts| &facts.policy)
    }

    /// The site that a request is for, by its Host (RFC 9110, section 7.2). `None` if none of those that can be reached here
    /// answers to it: it is misdirected (section 15.5.20).
    pub(crate) fn site_of_request(&mut self, index: u32, host: Option<&str>) -> Option<Key> {
        let (current, sites) = self.sites_of(index)?;
        if let [only] = sites[..] {
            return self.sites.get(only)?.policy.answers_to(host).then_some(only);
        }
        let chosen = match host.and_then(|host| Policy::choose(self.policies(&sites), host)) {
            Some(place) => sites[place],
            None => sites.into_iter().find(|site| self.sites.get(*site).is_some())?,
        };
        let named = host.is_some_and(|host| Policy::choose(self.policies(&[chosen]), host).is_some());
        if !named && !self.sites.get(chosen)?.policy.answers_to(host) {
            return None;
        }
        if chosen != current {
            // The certificate that was shown is the current site's.
            if self.link(index).tls.is_some() {
                return None;
            }
            self.move_to_site(index, chosen);
        }
        Some(chosen)
    }

    /// Chooses the site, and with it the certificate, by the name that a client asks for (RFC 6066, section 3).
    pub(super) fn choose_server(&mut self, index: u32, name: Option<&str>) -> Result<(), TlsError> {
        let Some((current, sites)) = self.sites_of(index) else { return Ok(()) };
        let chosen = name.and_then(|name| Policy::choose(self.policies(&sites), name));
        let site = chosen.map_or(current, |place| sites[place]);
        if site != current {
            self.move_to_site(index, site);
        }
        let server = self.sites.get(site).and_then(|facts| facts.policy.tls.clone());
        if let Some(server) = &server {
            self.look_at_certificate(site, server);
        }
        let Some(link) = self.links.at_mut(index) else { return Ok(()) };
        match (server, &mut link.tls) {
            (Some(server), Some(tls)) => tls.choose(&server, &mut self.buffers.output),
            _ => Ok(()),
        }
    }

    /// A certificate that was replaced has another age, to be reported by the next service call.
    fn look_at_certificate(&mut self, site: Key, server: &Server) {
        let now = self.now();
        let Some(facts) = self.sites.get_mut(site) else { return };
        if std::mem::replace(&mut facts.certificate, server.generation()) != server.generation() {
            self.timers.cancel(&mut facts.aging);
            facts.aging = self.timers.arm(now, Timer::Certificate(site));
        }
    }

    /// What secures the connections of a raw listener.
    pub(crate) fn own_server(&mut self, listener: u32) -> Option<Server> {
        match &self.link(listener).role {
            Role::Listener(listener) => match &listener.secure {
                Secure::By(server) => Some(server.clone()),
                Secure::No | Secure::BySite => None,
            },
            _ => None,
        }
    }
}

impl SiteFacts {
    /// Whether something listens or lives by it.
    pub(crate) fn is_used(&self) -> bool {
        self.links > 0 || self.listeners > 0
    }

    /// Whether its listeners can speak TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.policy.tls.is_some()
    }
}
