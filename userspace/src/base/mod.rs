//! Shared ground: memory, clocks, cores, socket options, counters and the
//! interface between a lane and what brings it packets. Nothing here knows of
//! any stage.

pub mod bytes;
pub mod clock;
pub mod counters;
pub mod cpu;
pub mod direct;
pub mod ethtool;
pub mod mem;
pub mod netif;
pub mod poll;
pub mod port;
pub mod sockopt;
pub mod table;
pub mod waker;
