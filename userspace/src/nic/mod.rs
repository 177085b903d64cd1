//! The network interface and the kernel half that runs on it.
//!
//! ```text
//!   facts      what the interface is; read only
//!   program    load, attach, sockets into the map, counters out of it
//!   blocklist  which prefixes are blocked until when
//!   attached   what is attached to an interface, and in which mode
//!   diagnosis  from an error number to what is wrong and what mends it
//! ```
//!
//! Owns the program, its maps and its link; gives them up in the order link,
//! program, maps. Nothing here touches a frame.

pub mod attached;
pub mod blocklist;
#[cfg(feature = "debug-log")]
pub mod debug_log;
pub mod diagnosis;
pub mod facts;
pub mod program;
