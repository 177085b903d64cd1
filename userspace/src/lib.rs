//! Veltrix: kernel-bypass ingestion for real-time games. A reader follows a
//! packet by reading the modules in this order; `docs/ARCHITECTURE.md` is the map.

pub mod base;
pub mod config;
pub mod nic;
pub mod xsk;
pub mod udp;
pub mod lane;
pub mod admin;
pub mod run;
pub mod cli;
