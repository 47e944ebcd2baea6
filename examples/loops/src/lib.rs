//! Examples of lodger in loops that need libraries of their own: see `echo.rs` and its neighbours.
