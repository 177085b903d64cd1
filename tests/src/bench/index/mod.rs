//! `cargo xtask bench index`: what the in-memory index costs, in time and in
//! bytes, by itself: no log, no rules, no packets.
//!
//! ```text
//!   world     partitions full to their last cell, players beside them
//!   measure   look-ups, updates and boxes, timed
//!   ranks     the leaderboard of one hunt, and cells by distance
//! ```
//!
//! Look-ups and updates come as apply makes them: stretches of 96 in one
//! partition, in groups of 32 whose memory is asked for together. The plain
//! loops beside them ask for nothing beforehand. Cells are drawn at random from
//! all there are, so that caches help no more than they would in service. One
//! thread, on the last core.

pub mod measure;
pub mod ranks;
pub mod world;
