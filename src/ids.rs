//! What a context hands out to name what it has: conns, sites, protocols, listeners, tasks.
//!
//! An id is a key of one of the context's stores, and says which context that is. Where one comes in from outside,
//! [`Origin::key`] makes a key of it, or [`Key::NONE`] where it is another context's: that finds nothing, as a stale one does.
//! Inside, there are keys only, so that nothing is compared for a message.

use crate::engine::store::Key;
use crate::env::Env;
use std::fmt;

/// Names a conn: one conversation that a handler has.
///
/// It finds nothing once the conn has ended, and nothing in another context than its own: whatever takes it answers
/// [`Gone`](crate::Gone), [`SendError::Gone`](crate::SendError::Gone) or `None`, or passes it over. To tell contexts apart it
/// holds 32 bits that its context has drawn from [`Env`](crate::Env). It keeps nothing alive, and comes again only after
/// 2,147,483,648 other conns have had the place of its own.
///
/// 12 bytes, `Copy`, `Send` and `Sync`. It is shown as `7.3`, unlike any other conn of the context; `{:#}` adds the context:
/// `7.3@8f01c2d4`. Ids have an order, for maps, which means nothing.
#[doc(alias = "wsi")]
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnId(pub(crate) Id);

/// Names a site of a context, until the site has ended ([`Io::remove_site`](crate::Io::remove_site)).
///
/// After that, and in another context than its own, it finds nothing: [`Io::listen`](crate::Io::listen) and
/// [`Io::adopt_http`](crate::Io::adopt_http) say `NoSite`, and the rest answers `None` or passes it over. 12 bytes, `Copy`,
/// `Send` and `Sync`; it comes again only after 2,147,483,648 other sites have had the place of its own.
#[doc(alias = "lws_vhost")]
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct SiteId(pub(crate) Id);

/// Names a protocol of a site, for as long as the site is there.
///
/// After that, and in another context than its own, it is a protocol that no conn is bound to. 12 bytes, `Copy`, `Send` and
/// `Sync`; it comes again only after 2,147,483,648 other protocols have had the place of its own.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct ProtocolId(pub(crate) Id);

/// Names a listener, until it is closed.
///
/// After that, and in another context than its own, it finds nothing: [`Io::share_listener`](crate::Io::share_listener) says
/// `NoSite`, [`Io::local_addr`](crate::Io::local_addr) `None`, and there is nothing to close. 12 bytes, `Copy`, `Send` and
/// `Sync`; it comes again only after 2,147,483,648 other descriptors have had the place of its own.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct ListenerId(pub(crate) Id);

/// Names a task of [`Io::after`](crate::Io::after), until the task has run or was cancelled.
///
/// After that, and in another context than its own, [`Io::cancel`](crate::Io::cancel) says `false`. 12 bytes, `Copy`, `Send`
/// and `Sync`; it comes again only after 2,147,483,648 other tasks have had the place of its own.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct TaskId(pub(crate) Id);

/// What ids are made of: a key of one of the context's stores, and which context that is.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Id {
    origin: Origin,
    index: u32,
    generation: u32,
}

/// Which context an id is of.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Origin(u32);

impl Origin {
    /// That of a new context.
    pub(crate) fn draw(env: &mut dyn Env) -> Self {
        let mut bytes = [0; 4];
        env.random(&mut bytes);
        Self(u32::from_be_bytes(bytes))
    }

    /// The id of what has this key in the context.
    pub(crate) fn id(self, key: Key) -> Id {
        Id { origin: self, index: key.index, generation: key.generation }
    }

    /// The key that an id stands for in the context; none, if the id is another's.
    pub(crate) fn key(self, id: Id) -> Key {
        if id.origin == self { Key { index: id.index, generation: id.generation } } else { Key::NONE }
    }

    /// Numbers that those of another context are unlike, from a count of 32 bits.
    pub(crate) fn number(self, count: u32) -> u64 {
        u64::from(self.0) << 32 | u64::from(count)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Id { origin, index, generation } = self.0;
        write!(f, "{index}.{generation}")?;
        if f.alternate() { write!(f, "@{:08x}", origin.0) } else { Ok(()) }
    }
}

/// Each as `ConnId(7.3@8f01c2d4)`.
macro_rules! debug_as_shown {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#})"), ConnId(self.0))
            }
        }
    )*};
}

debug_as_shown!(ConnId, SiteId, ProtocolId, ListenerId, TaskId);

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Origin = Origin(0x8f01_c2d4);
    const KEY: Key = Key { index: 7, generation: 3 };

    #[test]
    fn an_id_is_a_key_in_its_own_context_and_nothing_in_another() {
        assert_eq!(HERE.key(HERE.id(KEY)), KEY);
        assert_eq!(Origin(1).key(HERE.id(KEY)), Key::NONE);
        assert_eq!(HERE.key(HERE.id(Key::NONE)), Key::NONE);
        assert_ne!(HERE.number(0), Origin(1).number(0));
    }

    #[test]
    fn ids_are_small_and_go_to_other_threads() {
        fn fits<T: Copy + Send + Sync + 'static>() -> bool {
            size_of::<T>() == 12
        }
        let small = [fits::<ConnId>(), fits::<SiteId>(), fits::<ProtocolId>(), fits::<ListenerId>()];
        assert!(small.into_iter().all(|fits| fits) && fits::<TaskId>());
    }

    #[test]
    fn a_conn_is_shown_by_its_place_and_on_request_by_its_context() {
        let id = ConnId(HERE.id(KEY));
        assert_eq!(id.to_string(), "7.3");
        assert_eq!(format!("{id:#}"), "7.3@8f01c2d4");
        assert_eq!(format!("{id:?}"), "ConnId(7.3@8f01c2d4)");
        assert_eq!(format!("{:?}", TaskId(HERE.id(KEY))), "TaskId(7.3@8f01c2d4)");
    }
}
