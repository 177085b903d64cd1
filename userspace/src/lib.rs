//! Veltrix: kernel-bypass ingestion for real-time games. A reader follows a
//! packet by reading the modules in this order; `docs/ARCHITECTURE.md` is the map.

pub mod admin;
pub mod apply;
pub mod base;
pub mod batch;
pub mod cli;
pub mod config;
pub mod dedupe;
pub mod index;
pub mod lane;
pub mod log;
pub mod nic;
pub mod read;
pub mod replicate;
pub mod run;
pub mod snapshot;
pub mod udp;
pub mod xsk;
