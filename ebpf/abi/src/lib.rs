//! The one contract between the halves of Veltrix.
//!
//! ```text
//!   ebpf/ (kernel half) ──┐
//!   userspace/ (lanes) ───┼──> this crate: bytes on the wire, maps, exits, limits
//!   userspace/client/ ────┘
//! ```
//!
//! Both halves decode frames with the code in [`frame`] and headers with the
//! code in [`wire`]; nothing else crosses between them. If the user half
//! refuses what the kernel half let through, that is a counted bug
//! ([`Exit::LaneDisagrees`]).
//!
//! `no_std`, no dependencies, no allocation, no panic on any input.
#![no_std]
#![forbid(unsafe_code)]

pub mod exits;
pub mod frame;
pub mod kinds;
pub mod limits;
pub mod maps;
pub mod outcomes;
pub mod partition;
pub mod query;
pub mod rows;
pub mod split;
pub mod wire;

pub use exits::{Action, Exit};
pub use kinds::EventKind;
pub use outcomes::{Outcome, Refusal};
