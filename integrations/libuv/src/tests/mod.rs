//! The adapter over real sockets, always under audit, with peers in threads of their own.

mod ends;
mod rig;
mod traffic;
