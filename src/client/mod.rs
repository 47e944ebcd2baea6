//! What a client needs besides the engine.

pub(crate) mod backoff;
pub(crate) mod url;
