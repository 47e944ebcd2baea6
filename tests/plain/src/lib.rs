//! Tests of lodger without its optional parts, which have to be built alone: `cargo test -p lodger-plain -- --ignored`.
