//! The whole system on the lab: the real `veltrix run`, real frames, and what
//! became of each of them.

#[path = "path/accounting.rs"]
mod accounting;
#[path = "path/blocking.rs"]
mod blocking;
#[path = "path/fallback.rs"]
mod fallback;
#[path = "path/lifecycle.rs"]
mod lifecycle;
#[path = "path/mix.rs"]
mod mix;
#[path = "path/replies.rs"]
mod replies;
#[path = "path/stall.rs"]
mod stall;
