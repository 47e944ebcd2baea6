//! Links with a transport: what is read is decrypted, what is written is encrypted, and the handshake has its share of each turn.

use super::link::{Filled, Flags, NO_CONN, State};
use super::store::Key;
use super::{Core, FailedHandshake, RECORD, SMALL_RECEIVE};
use crate::handler::CloseReason;
use crate::memory;
use crate::role::Role;
use crate::transport::{Hello, Server, Step, Tls, TlsError};
use std::os::fd::AsFd;

/// What is read at once: more than one record, so that a large message takes few calls.
const RECEIVE: usize = 256 * 1024;
/// What is read at once at the least, be it in the smallest records.
const LEAST: usize = 2 * 1024;
/// How many links may go on with their handshakes in one turn: each step of one takes as long as a hundred messages.
pub(super) const HANDSHAKES_PER_TURN: u32 = 16;

impl Core {
    /// Takes a handshake's share of this turn, if the link needs one. If there is none left, the link goes on later, and is not
    /// watched until then.
    pub(crate) fn handshake_may_go_on(&mut self, index: u32, waited: bool) -> bool {
        let link = self.link(index);
        let over = link.state != State::Open && link.queued() == 0;
        if over || link.tls.as_ref().is_none_or(|tls| tls.is_secured()) {
            return true;
        }
        // Those that wait have a part of each turn to themselves.
        let reserved = if waited || self.to_resume.is_empty() { 0 } else { HANDSHAKES_PER_TURN / 2 };
        if self.handshakes_left <= reserved {
            self.link(index).flags.insert(Flags::BACKLOG);
            self.resume_later(index);
            self.mark(index);
            return false;
        }
        self.handshakes_left -= 1;
        true
    }

    /// Whether the last of what was read has completed the handshake.
    pub(crate) fn was_just_secured(&mut self, index: u32) -> bool {
        self.link(index).tls.as_mut().is_some_and(|tls| tls.take_secured())
    }

    /// Whether a conn opens only when its handshake is complete.
    pub(crate) fn is_unopened(&self, conn: Key) -> bool {
        self.conns.get(conn).is_some_and(|conn| conn.unopened)
    }

    /// The handshake of a raw connection is complete: its handler hears `opened` now, and what was held back behind that.
    pub(crate) fn opens(&mut self, index: u32) {
        self.cancel_phase(index);
        self.arm_look(index);
        let conn = self.link(index).conn;
        if let Some(key) = self.conns.key_at(conn) {
            self.opened(key);
        }
    }

    /// A conn's handler hears that it is open, and from now on whatever else there is.
    pub(super) fn opened(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.unopened = false;
        let held = conn.cold.as_mut().map(|cold| std::mem::take(&mut cold.held)).unwrap_or_default();
        held.into_iter().for_each(|notice| self.notice(key, notice));
    }

    /// Reads a link once, and decrypts what came into `plain`.
    pub(super) fn fill_secure(&mut self, index: u32, plain: &mut [u8]) -> Filled {
        let link = self.links.at_mut(index).expect("the link being served is there");
        if link.tls.as_ref().is_some_and(|tls| tls.has_failed()) {
            // What came before that is with its handler now, and nothing after it counts.
            return Filled::Nothing;
        }
        let unsaid = link.tls.as_ref().is_some_and(|tls| tls.waiting() > 0);
        if link.state != State::Open && !unsaid {
            // Nobody wants it any more. What waits for the handshake still does.
            return match link.read(&self.net, plain) {
                Filled::Bytes(_) => Filled::Nothing,
                nothing => nothing,
            };
        }
        let small = link.flags.contains(Flags::SMALL_READS);
        let mut input = std::mem::take(&mut self.buffers.input);
        let front = link.tls.as_ref().map_or(&[][..], |tls| tls.kept());
        let kept = front.len();
        // What comes out is never longer than what goes in.
        let at_once = link.tls.as_ref().map_or(RECEIVE, |tls| tls.at_once());
        let most = if small { SMALL_RECEIVE } else { self.shares.bytes().min(RECEIVE) };
        let length = plain.len().min(kept + most.min(at_once));
        if input.len() < length {
            let more = length - input.len();
            if memory::reserve_exact(&mut input, more).is_err() {
                self.buffers.input = input;
                self.out_of_memory(index);
                return Filled::Nothing;
            }
            input.resize(length, 0);
        }
        input[..kept].copy_from_slice(front);
        let filled = match link.read(&self.net, &mut input[kept..length]) {
            Filled::Bytes(read) => self.decrypt(index, &mut input[..kept + read], plain),
            Filled::End => match link.tls.as_ref().filter(|tls| !tls.peer_has_closed()) {
                Some(tls) => {
                    let reason = CloseReason::tls(tls.truncated());
                    self.end(index, reason);
                    Filled::Nothing
                }
                None => Filled::End,
            },
            nothing => nothing,
        };
        self.buffers.input = input;
        filled
    }

    /// A raw connection begins to speak TLS.
    pub(crate) fn begin_tls(&mut self, index: u32, server: &Server) {
        let Some(mut tls) = Tls::server() else { return };
        let begun = tls.choose(server, &mut self.buffers.output);
        let link = self.link(index);
        link.secure(tls);
        let (conn, limit) = (link.conn, link.limits.handshake);
        if let Some(conn) = self.conns.at_mut(conn) {
            (conn.unopened, conn.counted) = (true, true);
            self.join_handshakes(index);
        }
        match begun {
            Ok(()) => self.arm_phase(index, limit),
            Err(error) => self.transport_failed(index, error),
        }
    }

    /// A client begins to speak TLS: says what comes first, and looks at what has come already.
    pub(crate) fn begin_client_tls(&mut self, index: u32, tls: Tls, records: &mut [u8]) {
        self.link(index).secure(tls);
        self.decrypt(index, &mut [], &mut []);
        if !records.is_empty() && self.link(index).state == State::Open {
            // A handshake is not completed by what precedes its first message, so that there is nothing to hand over.
            self.decrypt(index, records, &mut vec![0; records.len()]);
        }
    }

    fn decrypt(&mut self, index: u32, records: &mut [u8], plain: &mut [u8]) -> Filled {
        let link = self.links.at_mut(index).expect("the link being served is there");
        let hello = link.tls.as_mut().map_or(Hello::More, |tls| tls.hello(records));
        let chosen = match hello {
            Hello::Known => Ok(()),
            Hello::More => {
                self.set_active(index);
                return Filled::Nothing;
            }
            Hello::Name(name) => self.choose_server(index, name.as_deref()),
        };
        if let Err(error) = chosen {
            self.send_records(index);
            self.transport_failed(index, error);
            return Filled::Nothing;
        }
        let link = self.links.at_mut(index).expect("the link being served is there");
        let Some(tls) = &mut link.tls else { return Filled::Nothing };
        let output = &mut self.buffers.output;
        let length = records.len();
        let Step { plain, records, secured, mut error } = tls.receive(records, plain, output);
        // A record costs as much as some messages, however little is in it: so much is read of small ones as may be taken at once.
        let most = (self.shares.messages() / RECORD) as usize;
        let at_once = if records > most { length * most / records } else { tls.at_once().saturating_mul(2) };
        tls.read_at_once(at_once.max(LEAST));
        let work = (records as u32).saturating_mul(RECORD);
        if secured && error.is_none() {
            error = tls.encrypt_early(output).err();
        }
        let ended = tls.peer_has_closed();
        if secured || link.is_timed() {
            self.set_active(index);
        }
        self.took(index, length, work);
        self.send_records(index);
        if let Some(error) = error {
            if plain > 0 && self.link(index).state == State::Open {
                self.fail_later(index, error);
                return Filled::Bytes(plain);
            }
            self.transport_failed(index, error);
            return Filled::Nothing;
        }
        if secured && self.link(index).state == State::Finishing {
            // What waited for the handshake was the last.
            self.output_done(index);
        }
        match plain {
            0 if ended => {
                self.link(index).flags.insert(Flags::END_RECEIVED);
                Filled::End
            }
            0 => Filled::Nothing,
            plain => Filled::Bytes(plain),
        }
    }

    /// The transport has failed behind input that is to be heard first. Nothing can be sent from here on.
    fn fail_later(&mut self, index: u32, error: TlsError) {
        let link = self.link(index);
        let writable = !link.flags.raise(Flags::WRITE_FAILED);
        if let Some(tls) = &mut link.tls {
            tls.fail_later(error, writable);
        }
    }

    /// The input in front of a failure has been handed over: it is told now. False if there is none.
    pub(crate) fn fail_now(&mut self, index: u32) -> bool {
        let link = self.link(index);
        let Some((error, writable)) = link.tls.as_mut().and_then(|tls| tls.take_failure()) else {
            return false;
        };
        if writable {
            // What tells the peer may still wait for room.
            link.flags.remove(Flags::WRITE_FAILED);
        }
        self.transport_failed(index, error);
        true
    }

    /// Whether the peer has closed its direction with the input that was read last, and this was not said yet. It is now.
    pub(crate) fn peer_has_closed(&mut self, index: u32) -> bool {
        let link = self.link(index);
        let closed = link.tls.as_ref().is_some_and(|tls| tls.peer_has_closed());
        closed && !link.flags.raise(Flags::END_RECEIVED)
    }

    /// Encrypts `parts`, and writes them at once, or queues them behind what waits.
    pub(super) fn write_secure(&mut self, index: u32, parts: [&[u8]; 3]) {
        if self.encrypt(index, parts) {
            self.send_records(index);
        }
    }

    /// Encrypts `parts` behind what is queued.
    pub(super) fn enqueue_secure(&mut self, index: u32, parts: [&[u8]; 3]) {
        if self.encrypt(index, parts) {
            let mut output = std::mem::take(&mut self.buffers.output);
            self.queue_bytes(index, [output.bytes(), &[], &[]]);
            output.clear();
            self.buffers.output = output;
        }
    }

    fn encrypt(&mut self, index: u32, parts: [&[u8]; 3]) -> bool {
        let all = parts.iter().map(|part| part.len()).sum();
        if self.buffers.output.reserve(all).is_err() {
            self.output_lost(index, all);
            return false;
        }
        let link = self.links.at_mut(index).expect("the caller found it");
        let Some(tls) = &mut link.tls else { return false };
        match tls.encrypt(&parts, &mut self.buffers.joined, &mut self.buffers.output) {
            Ok(()) => true,
            Err(error) => {
                self.buffers.output.clear();
                let lost: usize = parts.iter().map(|part| part.len()).sum();
                if let Some(conn) = self.conns.at_mut(link.conn) {
                    conn.cold().lost += lost;
                }
                self.transport_failed(index, error);
                false
            }
        }
    }

    /// Says to the peer that nothing more comes from us, and whether that has to wait for room.
    pub(super) fn close_secure(&mut self, index: u32) -> bool {
        let link = self.links.at_mut(index).expect("the caller found it");
        let Some(tls) = &mut link.tls else { return false };
        tls.close(&mut self.buffers.output);
        self.send_records(index);
        self.link(index).queue.is_some()
    }

    /// Whether nothing is missing of what was to be sent when a link ends for this reason.
    pub(super) fn is_whole(&self, index: u32, reason: &CloseReason) -> bool {
        use CloseReason::{Closed, Completed, Handshake, Leaving, PeerEnded, TimedOut};
        let lost = self.current == index && !self.out.is_empty();
        let in_exchange = self
            .links
            .at(index)
            .is_some_and(|(_, link)| link.conn != NO_CONN && matches!(link.role, Role::Http(_)));
        let ordinary =
            matches!(reason, Closed | Completed | Handshake { .. } | Leaving | PeerEnded | TimedOut(_));
        ordinary && !lost && !in_exchange
    }

    /// Says that it was all, where a link ends without being closed first: the peer would think that something was cut off. What
    /// does not go out at once is not waited for.
    pub(super) fn say_end(&mut self, index: u32) {
        let link = self.links.at_mut(index).expect("the caller found it");
        if link.queue.is_some() || link.flags.intersects(Flags::RESET.union(Flags::WRITE_FAILED)) {
            return;
        }
        if let (Some(tls), Some(fd)) = (&mut link.tls, &link.fd) {
            let output = &mut self.buffers.output;
            tls.close(output);
            if !output.bytes().is_empty() {
                let _ = self.net.write(fd.as_fd(), output.bytes());
                output.clear();
            }
        }
    }

    /// Writes the records that were made, or queues them behind what waits.
    fn send_records(&mut self, index: u32) {
        let mut output = std::mem::take(&mut self.buffers.output);
        let records = output.bytes();
        let link = self.links.at_mut(index).expect("the caller found it");
        match &link.fd {
            // Nothing can be said any more.
            _ if link.flags.intersects(Flags::SHUT.union(Flags::WRITE_FAILED)) => {}
            Some(fd) if !records.is_empty() && link.queue.is_none() => {
                let result = self.net.write(fd.as_fd(), records);
                self.wrote(index, result, [records, &[], &[]]);
            }
            _ => self.queue_bytes(index, [records, &[], &[]]),
        }
        output.clear();
        self.buffers.output = output;
    }

    /// A link ends: if its handshake is not complete, and the peer or time has put an end to that, its site hears so.
    pub(super) fn handshake_may_have_failed(&mut self, index: u32, reason: &CloseReason) {
        let link = self.link(index);
        let handshaking = link.state == State::Open
            && link.conn == NO_CONN
            && link.tls.as_ref().is_some_and(|tls| !tls.is_secured());
        let peer = link.peer();
        if let Role::Http(server) = &link.role
            && handshaking
            && let Some(error) = reason.in_handshake()
        {
            let failed = FailedHandshake { site: server.site, peer, error };
            self.failed_handshakes.push_back(failed);
            self.work = true;
        }
    }

    /// The transport has failed: whoever waits hears why, and the peer has been told.
    fn transport_failed(&mut self, index: u32, error: TlsError) {
        log::debug!(target: "lodger::tls", "a connection failed: {error:?}");
        self.left_handshake(index);
        let link = self.link(index);
        let (conn, peer, unsent) = (link.conn, link.peer(), link.queued());
        if let Some(tls) = &mut link.tls {
            // It waits for what will not come.
            tls.forget_early();
        }
        match &link.role {
            Role::Http(_) if conn == NO_CONN && link.tls.as_ref().is_some_and(|tls| tls.is_secured()) => {
                self.note_end(index, &CloseReason::tls(error));
            }
            Role::Http(server) if conn == NO_CONN => {
                let site = server.site;
                self.note_end(index, &CloseReason::copy_of_tls(&error));
                let failed = FailedHandshake { site, peer, error };
                self.failed_handshakes.push_back(failed);
                self.work = true;
            }
            _ => self.end_conn(conn, CloseReason::tls(error), unsent),
        }
        self.interrupt(index);
        if self.link(index).state == State::Finishing {
            // What it was to send before its end will not be sent.
            return self.end(index, CloseReason::Closed);
        }
        self.finish_and_linger(index);
    }
}
