//! AF_XDP: our own thin layer on the kernel's rings.
//!
//! ```text
//!            FILL (frames we lend)            COMPLETION (frames sent)
//!   lane ──────────────────────────> kernel ──────────────────────────> lane
//!            TX (frames to send)              RX (frames received)
//! ```
//!
//! | frame is in | owner | leaves by |
//! |---|---|---|
//! | free list | lane | FILL |
//! | FILL ring | kernel | RX, with a packet in it |
//! | a [`Frame`] token in a lane's hands | lane | TX (as a reply) or free list |
//! | TX ring | kernel | COMPLETION |
//!
//! A frame is a token that cannot be copied, so it is in one place only. What
//! can be lost: a packet that finds RX full or FILL empty (the kernel counts
//! both), a reply that finds TX full (the lane counts it). Frames themselves
//! are never lost.
//!
//! Order of bring-up: UMEM, FILL filled, bind with bounded retry, options read
//! back, lane thread started, XSKMAP last. Tear-down is the reverse.
//!
//! `unsafe` lives in this folder, in `base/`, in `udp/batch.rs` and in `ebpf/`.

mod monitor;
mod packet;
mod port;
pub mod raw;
mod ring;
mod socket;
mod umem;

pub use monitor::{RingDepths, XdpStatistics, XskMonitor};
pub use port::XskPort;
#[cfg(test)]
pub(crate) use port::tests as scripted;
pub use ring::{Consumer, Producer, RingMemory};
pub use socket::{BindError, HEADROOM_BYTES, Ladder, WaitMode, Xsk, XskSpec};
pub use umem::{Frame, Umem};
