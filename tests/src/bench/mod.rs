//! `cargo xtask bench path`: what a packet costs on its way through Veltrix,
//! beside the least that AF_XDP and a kernel socket can do, in one run.
//!
//! ```text
//!   rig          the lab, the kernel half, sockets as a lane has them
//!   throughput   frames a second while the generator sends all it can
//!   drain        nanoseconds a frame while a filled ring is drained
//!   service      the real binary: pings, restart gap
//!   report       the figures, their goals, the table
//! ```
//!
//! The generator is pinned to the first core, the poller to the second, for
//! every figure alike.

pub mod dedupe;
pub mod drain;
pub mod external;
pub mod game;
pub mod index;
pub mod ingest;
pub mod lane;
pub mod recovery;
pub mod report;
pub mod rig;
pub mod service;
pub mod throughput;
pub mod wal;
