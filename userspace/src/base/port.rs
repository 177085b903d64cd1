//! The interface between a lane and what brings it packets: an AF_XDP socket
//! ([`crate::xsk`]) or a kernel UDP socket ([`crate::udp`]).
//!
//! A packet is a non-`Copy` value that owns its buffer. A lane gives each one
//! back exactly once, by [`Port::send`] or [`Port::recycle`]; the reply is
//! written where the request was, so there is nothing else to own.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use veltrix_abi::Exit;

/// Where a lane's packets come from and its replies go.
pub trait Port {
    /// A datagram whose UDP payload passed [`veltrix_abi::frame::check_payload`].
    type Packet;

    /// The way back to a packet's sender, for a reply that is sent when the
    /// packet is gone.
    type Path: Send + Clone;

    /// Begins a batch of up to `max` frames that have arrived; gives how many.
    fn receive(&mut self, max: usize) -> usize;

    /// The next frame of the batch: a datagram for us, or the exit that the
    /// frame left by. `None` after the last.
    fn take(&mut self) -> Option<Result<Self::Packet, Exit>>;

    /// UDP payload of a packet.
    fn payload<'a>(&'a self, packet: &'a Self::Packet) -> &'a [u8];

    /// Room for a reply, at least `payload_bytes_max` bytes; it begins as the
    /// request's payload.
    fn buffer<'a>(&'a mut self, packet: &'a mut Self::Packet) -> &'a mut [u8];

    /// Exchanges the packet's buffer for one that is cheap to write a long reply
    /// into; the sender stays, the request's bytes are gone.
    fn for_reply(&mut self, packet: Self::Packet) -> Self::Packet;

    /// A number that packets of one sender share.
    fn flow_hash(&self, packet: &Self::Packet) -> u32;

    /// Whether two packets came from the same address and port, by the same way.
    fn is_same_flow(&self, a: &Self::Packet, b: &Self::Packet) -> bool;

    /// The way back to the packet's sender.
    fn path(&self, packet: &Self::Packet) -> Self::Path;

    /// Whether `path` leads back to the packet's sender.
    fn is_on_path(&self, path: &Self::Path, packet: &Self::Packet) -> bool;

    /// An empty packet to be sent along `path`: its buffer holds nothing of
    /// worth. `None` when no buffer is free.
    fn reply_on(&mut self, path: &Self::Path) -> Option<Self::Packet>;

    /// Sends the first `payload_bytes` of the packet's buffer to its sender,
    /// now or at [`Self::flush`], and counts whether the kernel took it.
    fn send(&mut self, packet: Self::Packet, payload_bytes: usize);

    /// Gives a packet's buffer back.
    fn recycle(&mut self, packet: Self::Packet);

    /// Hands everything sent so far to the kernel: what is done before
    /// [`Self::flush`] takes a while.
    fn send_now(&mut self);

    /// Hands everything sent so far to the kernel and takes back what it is
    /// done with. Called once a turn.
    fn flush(&mut self);

    /// Frames waiting to be received, as far as can be known without a system call.
    fn waiting(&self) -> usize;

    /// Sleeps until a frame may be there, `waker` is readable, or `timeout` is
    /// over. A port that never sleeps returns at once.
    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>);
}
