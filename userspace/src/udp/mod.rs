//! The socket provider: the same pipeline over ordinary UDP sockets, where
//! AF_XDP cannot be had, and beside it as the fallback for queues without a
//! lane.
//!
//! One socket a lane, all bound to one port with `SO_REUSEPORT` (the kernel
//! spreads senders over them by 4-tuple hash); `recvmmsg` and `sendmmsg` move
//! batches. A reply leaves from the address its request was sent to, by
//! `IP_PKTINFO`. What can be lost: a datagram that finds the receive buffer
//! full (the kernel counts it), a reply the kernel refuses (the lane counts it).

mod batch;
mod port;
mod socket;

pub use batch::{Batch, CONTROL_BYTES};
pub use port::{UdpPacket, UdpPort};
pub use socket::{ListenError, Listener, UdpMonitor};
