//! Descriptors and connections that somebody else has made.

use super::{Fresh, Io};
use crate::engine::link::{Flags, Link};
use crate::engine::store::Key;
use crate::error::{AdoptError, AdoptRefused};
use crate::handler::AnyHandler;
use crate::host::Interest;
use crate::http1::role::Server;
use crate::ids::{ConnId, SiteId};
use crate::limits::Limits;
use crate::net::Peer;
use crate::role::{Role, Secure};
use crate::transport::Tls;
use crate::ws::Side;
use crate::ws::role::WebSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

impl<D> Io<D> {
    /// Has a descriptor watched beside lodger's own; the application reads and writes it. It is made non-blocking, and is
    /// closed when the conn ends, unless [`Conn::release`](crate::Conn::release) gives it back.
    ///
    /// Readability is watched for as long as it is wanted; writability until the first `writable`, and again after each
    /// [`Conn::request_writable`](crate::Conn::request_writable).
    ///
    /// # Errors
    ///
    /// The descriptor is given back: see [`AdoptRefused`].
    #[doc(alias("lws_adopt_descriptor_vhost", "LWS_CALLBACK_RAW_ADOPT_FILE"))]
    pub fn adopt(
        &mut self,
        descriptor: OwnedFd,
        interest: Interest,
        handler: Box<dyn crate::fd::Handler<D>>,
    ) -> Result<ConnId, AdoptError<OwnedFd>> {
        if interest.is_none() {
            return Err(AdoptError { reason: AdoptRefused::NoInterest, descriptor });
        }
        let descriptor = self.adoptable(descriptor)?;
        let link = Link::new(descriptor, Role::Descriptor(interest), None, Rc::default());
        let index = self.core.add_link(link);
        let conn = self.core.add_conn(index);
        self.put(Fresh::Handler(conn, AnyHandler::Descriptor(handler)));
        Ok(self.core.conn_id(conn))
    }

    /// Adopts a connected stream socket as a raw connection. `read_already` is what was read from it before; the handler
    /// gets it first.
    ///
    /// # Errors
    ///
    /// The socket is given back: see [`AdoptRefused`].
    #[doc(alias("lws_adopt_socket_readbuf", "lws_adopt_socket"))]
    pub fn adopt_raw(
        &mut self,
        socket: OwnedFd,
        read_already: &[u8],
        limits: Limits,
        handler: Box<dyn crate::raw::Handler<D>>,
    ) -> Result<ConnId, AdoptError<OwnedFd>> {
        let socket = self.adoptable(socket)?;
        let peer = self.core.net.peer_addr(socket.as_fd()).ok();
        let conn = self.open_raw(socket, peer.as_ref(), Rc::new(limits), handler);
        self.begin_with(conn, read_already);
        Ok(self.core.conn_id(conn))
    }

    /// Adopts an accepted stream socket for a site, as if one of the site's listeners had accepted it; only
    /// [`Protocol::filter`](crate::Protocol::filter) is not asked. `read_already` is what was read from it before.
    ///
    /// # Errors
    ///
    /// The socket is given back: see [`AdoptRefused`].
    #[doc(alias("lws_adopt_socket_readbuf", "lws_adopt_socket_vhost_readbuf"))]
    pub fn adopt_http(
        &mut self,
        socket: OwnedFd,
        read_already: &[u8],
        site: SiteId,
    ) -> Result<(), AdoptError<OwnedFd>> {
        let site = self.core.origin.key(site.0);
        if self.core.sites.get(site).is_none_or(|facts| facts.removed) {
            return Err(AdoptError { reason: AdoptRefused::NoSite, descriptor: socket });
        }
        let socket = self.adoptable(socket)?;
        let peer = self.core.net.peer_addr(socket.as_fd()).unwrap_or(Peer::Unix(None));
        let index = self.open_http(socket, &peer, site, Key::NONE);
        self.keep_for_later(index, read_already);
        Ok(())
    }

    /// Adopts a stream socket on which somebody else has accepted a WebSocket: the response to the opening handshake was
    /// sent, without extensions. Frames in `read_already` come first. The handler's `opened` is not called, since there is no request to show.
    ///
    /// # Errors
    ///
    /// The socket is given back: see [`AdoptRefused`].
    #[doc(alias = "lws_adopt_socket_readbuf")]
    pub fn adopt_websocket(
        &mut self,
        socket: OwnedFd,
        read_already: &[u8],
        limits: Limits,
        handler: Box<dyn crate::ws::Handler<D>>,
    ) -> Result<ConnId, AdoptError<OwnedFd>> {
        let socket = self.adoptable(socket)?;
        let peer = self.core.net.peer_addr(socket.as_fd()).ok();
        let role = Role::WebSocket(WebSocket::new(Side::Server, handler.receive()));
        let index = self.core.add_link(Link::new(socket, role, peer.as_ref(), Rc::new(limits)));
        let conn = self.core.add_conn(index);
        self.put(Fresh::Handler(conn, AnyHandler::WebSocket(handler)));
        self.core.begin_websocket_timers(index);
        self.begin_with(conn, read_already);
        Ok(self.core.conn_id(conn))
    }

    fn adoptable(&mut self, descriptor: OwnedFd) -> Result<OwnedFd, AdoptError<OwnedFd>> {
        let reason = if self.core.leaving {
            AdoptRefused::Leaving
        } else if self.core.links.len() >= self.core.max_links {
            AdoptRefused::Full
        } else {
            match self.core.net.adopt(descriptor.as_fd()) {
                Ok(()) => {
                    // Only TCP has this option.
                    let _ = self.core.net.set_nodelay(descriptor.as_fd(), true);
                    return Ok(descriptor);
                }
                Err(error) => AdoptRefused::Nonblocking(error),
            }
        };
        Err(AdoptError { reason, descriptor })
    }

    fn begin_with(&mut self, conn: Key, read_already: &[u8]) {
        if let Some(link) = self.core.conns.get(conn).map(|conn| conn.link) {
            self.keep_for_later(link, read_already);
        }
    }

    fn keep_for_later(&mut self, index: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.core.keep(index, bytes);
            self.core.link(index).flags.insert(Flags::BACKLOG);
            self.core.link(index).received = bytes.len() as u64;
            self.core.resume_later(index);
        }
    }

    pub(crate) fn open_raw(
        &mut self,
        socket: OwnedFd,
        peer: Option<&Peer>,
        limits: Rc<Limits>,
        handler: Box<dyn crate::raw::Handler<D>>,
    ) -> Key {
        let index = self.core.add_link(Link::new(socket, Role::Raw, peer, limits));
        let conn = self.core.add_conn(index);
        self.put(Fresh::Handler(conn, AnyHandler::Raw(handler)));
        conn
    }

    pub(crate) fn open_http(&mut self, socket: OwnedFd, peer: &Peer, site: Key, listener: Key) -> u32 {
        let limits =
            self.core.sites.get(site).map(|facts| Rc::clone(&facts.policy.limits)).unwrap_or_default();
        let handshake = limits.handshake;
        let secure = self.core.links.get(listener).is_some_and(|link| match &link.role {
            Role::Listener(listener) => !matches!(listener.secure, Secure::No),
            _ => false,
        });
        let role = Role::Http(Box::new(Server::new(site, listener)));
        let index = self.core.add_link(Link::new(socket, role, Some(peer), limits));
        if let Some(tls) = Tls::server().filter(|_| secure) {
            self.core.link(index).secure(tls);
        }
        self.core.join_site(index, site);
        self.core.join_handshakes(index);
        self.core.arm_phase(index, handshake);
        index
    }
}
