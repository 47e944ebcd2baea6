//! The cases, each a function over an [`Adapter`](crate::Adapter). [`battery!`](crate::battery) makes tests of them.

mod descriptors;
mod ends;
mod neighbours;
mod sleep;
mod stillness;
mod traffic;

pub use descriptors::*;
pub use ends::*;
pub use neighbours::*;
pub use sleep::*;
pub use stillness::*;
pub use traffic::*;
