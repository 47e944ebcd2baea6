//! Sites, and where they listen.

use super::{Fresh, Io};
use crate::engine::link::{Link, State};
use crate::engine::store::Key;
use crate::engine::timers::TimerId;
use crate::engine::{ProtocolFacts, SiteFacts};
use crate::error::{ListenError, SiteError};
use crate::ids::{ListenerId, ProtocolId, SiteId};
use crate::limits::Limits;
use crate::net::{Listen, Peer};
use crate::role::{Listener, Role, Secure, SocketOptions};
use crate::site::Site;
use std::os::fd::AsFd;
use std::rc::Rc;

impl<D> Io<D> {
    /// Adds a site. Its protocols hear `started` in the next service call.
    ///
    /// # Errors
    ///
    /// A site that could not serve all that it holds is not added, and its protocols are dropped unheard.
    ///
    /// - [`SiteError::NoProtocol`]: it holds no protocol, so that nobody would decide about its connections.
    /// - [`SiteError::SameName`]: two of its protocols have one name, and no client could ask for the second.
    /// - [`SiteError::Name`]: a protocol's name is not a token (RFC 9110, section 5.6.2), and no client could ask for it (RFC 6455,
    ///   section 4.1).
    pub fn add_site(&mut self, site: Site<D>) -> Result<SiteId, SiteError> {
        site.check()?;
        let facts = SiteFacts {
            policy: site.policy,
            protocols: Vec::new(),
            links: 0,
            listeners: 0,
            removed: false,
            aging: TimerId::NONE,
            certificate: 0,
        };
        let key = self.core.sites.insert(facts);
        let (names, protocols): (Vec<String>, Vec<_>) = site.protocols.into_iter().unzip();
        let protocols_of = &mut self.core.protocols;
        let keys = names
            .into_iter()
            .map(|name| protocols_of.insert(ProtocolFacts { name, members: Vec::new() }))
            .collect();
        if let Some(facts) = self.core.sites.get_mut(key) {
            facts.protocols = keys;
        }
        self.put(Fresh::Site(key, protocols));
        Ok(SiteId(self.core.origin.id(key)))
    }

    /// A protocol of a site, by the name that it has there.
    pub fn protocol(&self, site: SiteId, name: &str) -> Option<ProtocolId> {
        let mut keys = self.core.sites.get(self.core.origin.key(site.0))?.protocols.iter().copied();
        let named = |key: &Key| self.core.protocols.get(*key).is_some_and(|facts| facts.name == name);
        keys.find(named).map(|key| ProtocolId(self.core.origin.id(key)))
    }

    /// Removes a site: its listeners close, its WebSockets get a Close with 1001, requests under way are finished, those too that
    /// lie unread in their sockets, as with [`shutdown`](Self::shutdown). When the last of its connections has gone, its protocols
    /// hear `ended`.
    pub fn remove_site(&mut self, site: SiteId) {
        self.core.remove_site(self.core.origin.key(site.0));
    }

    /// Listens for connections of a site.
    ///
    /// # Errors
    ///
    /// See [`ListenError`]. The socket is announced to the host by the next `prepare`; should the host refuse it, the site's
    /// first protocol hears [`Protocol::listener_refused`](crate::Protocol::listener_refused), and the listener is gone.
    #[doc(alias = "lws_create_vhost")]
    pub fn listen(&mut self, listen: Listen, site: SiteId) -> Result<ListenerId, ListenError> {
        let site = self.core.origin.key(site.0);
        let facts = self.core.sites.get(site).filter(|facts| !facts.removed).ok_or(ListenError::NoSite)?;
        if matches!(listen.secure, Secure::BySite) && !facts.is_secure() {
            return Err(ListenError::NoCertificate);
        }
        if matches!(listen.secure, Secure::By(_)) {
            return Err(ListenError::CertificateOfSite);
        }
        let limits = Rc::clone(&facts.policy.limits);
        let listener = self.open_listener(listen, vec![site], limits)?;
        self.core.join_site(listener.index, site);
        self.core.listens(site);
        self.report_certificate(site);
        Ok(ListenerId(self.core.origin.id(listener)))
    }

    /// Has a site share a listener with those that listen on it already. A request is for the site whose
    /// [`hosts`](crate::Site::hosts) have its Host, port left aside; else for the one that has the nearest parent of it
    /// (`abc.com` for `cats.abc.com`); else for the first. On a listener that speaks TLS the client's server name (SNI)
    /// chooses the site and its certificate in the same way, and a request for another site gets 421 (RFC 9110, section
    /// 15.5.20). A site that is removed leaves the listener to the others.
    ///
    /// # Errors
    ///
    /// [`ListenError::NoSite`]: there is no such site or listener. [`ListenError::NoCertificate`]: the listener speaks TLS, and
    /// the site has no certificate.
    #[doc(alias("lws_create_vhost", "vhost", "SNI"))]
    pub fn share_listener(&mut self, listener: ListenerId, site: SiteId) -> Result<(), ListenError> {
        let site = self.core.origin.key(site.0);
        let facts = self.core.sites.get(site).filter(|facts| !facts.removed).ok_or(ListenError::NoSite)?;
        let is_secure = facts.is_secure();
        let link = self.core.links.get_mut(self.core.origin.key(listener.0)).ok_or(ListenError::NoSite)?;
        let Role::Listener(listener) = &mut link.role else { return Err(ListenError::NoSite) };
        if listener.sites.is_empty() {
            return Err(ListenError::NoSite);
        }
        if matches!(listener.secure, Secure::BySite) && !is_secure {
            return Err(ListenError::NoCertificate);
        }
        if link.state != State::Open {
            return Err(ListenError::NoSite);
        }
        if !listener.sites.contains(&site) {
            listener.sites.push(site);
            self.core.listens(site);
        }
        self.report_certificate(site);
        Ok(())
    }

    fn report_certificate(&mut self, site: Key) {
        if self.core.sites.get(site).is_some_and(SiteFacts::is_secure) {
            self.put(Fresh::Certificate(site));
        }
    }

    /// Listens for raw connections. `accept` sees each and gives it a handler, or refuses it, which closes it at once.
    ///
    /// # Errors
    ///
    /// See [`ListenError`]. Should the host refuse the socket, that is logged, and the listener is gone.
    #[doc(alias = "LWS_CALLBACK_RAW_ADOPT")]
    pub fn listen_raw(
        &mut self,
        listen: Listen,
        limits: Limits,
        accept: impl FnMut(&Peer, &mut D, &mut Io<D>) -> Option<Box<dyn crate::raw::Handler<D>>> + 'static,
    ) -> Result<ListenerId, ListenError> {
        if matches!(listen.secure, Secure::BySite) {
            return Err(ListenError::NoCertificate);
        }
        let listener = self.open_listener(listen, Vec::new(), Rc::new(limits))?;
        self.put(Fresh::Acceptor(listener, Box::new(accept)));
        Ok(ListenerId(self.core.origin.id(listener)))
    }

    fn open_listener(
        &mut self,
        mut listen: Listen,
        sites: Vec<Key>,
        limits: Rc<Limits>,
    ) -> Result<Key, ListenError> {
        if self.core.leaving {
            return Err(ListenError::Leaving);
        }
        let socket = self.core.net.listen(&listen)?;
        let options = SocketOptions {
            nodelay: listen.needs_no_nodelay(),
            keepalive: listen.keepalive,
            send_buffer: listen.send_buffer,
            receive_buffer: listen.receive_buffer,
        };
        let secure = std::mem::replace(&mut listen.secure, Secure::No);
        let listener =
            Listener { sites, secure, paused: false, burst: 1, calm: 0, path: listen.path(), options };
        let link = Link::new(socket, Role::Listener(Box::new(listener)), None, limits);
        let index = self.core.add_link(link);
        Ok(self.core.links.key_at(index).expect("just added"))
    }

    /// Where a listener listens: with the port that the system chose.
    #[doc(alias = "lws_get_vhost_listen_port")]
    pub fn local_addr(&self, listener: ListenerId) -> Option<Peer> {
        let fd = self.core.links.get(self.core.origin.key(listener.0))?.fd.as_ref()?;
        self.core.net.local_addr(fd.as_fd()).ok()
    }

    /// Closes a listener. Connections that it has accepted stay.
    pub fn close_listener(&mut self, listener: ListenerId) {
        let listener = self.core.origin.key(listener.0);
        if self.core.links.get(listener).is_some() {
            self.core.end(listener.index, crate::CloseReason::Closed);
        }
    }
}
