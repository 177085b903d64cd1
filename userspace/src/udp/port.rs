//! A lane's port on a kernel UDP socket.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use veltrix_abi::Exit;
use veltrix_abi::frame::check_payload;

use super::batch::{Batch, Received, Return};
use crate::base::counters::LaneCounters;
use crate::base::poll;
use crate::base::port::Port;

/// A received datagram in its slot.
#[derive(Debug)]
pub struct UdpPacket {
    slot: u32,
    bytes: u32,
}

/// A sender's address and the interface its datagram came by.
#[derive(Clone)]
pub struct UdpPath(Return);

/// See the module.
pub struct UdpPort {
    socket: UdpSocket,
    batch: Batch,
    batch_max: usize,
    free: Vec<u32>,
    /// Replies queued until the flush: slot and bytes.
    queue: Vec<(u32, u32)>,
    /// The batch under way, last first.
    received: Vec<(u32, Received)>,
    payload_bytes_max: usize,
    counters: Arc<LaneCounters>,
    /// Whether the last receive left nothing behind.
    drained: bool,
}

impl UdpPort {
    /// Serves `socket`, at most `batch` datagrams a call.
    #[must_use]
    pub fn new(
        socket: UdpSocket,
        payload_bytes_max: usize,
        batch: usize,
        counters: Arc<LaneCounters>,
    ) -> Self {
        // Every slot is free again after the flush that ends a turn.
        let slots = batch;
        Self {
            socket,
            // One byte more than is accepted, so that too large is seen as such.
            batch: Batch::new(slots, payload_bytes_max + 8, batch),
            batch_max: batch,
            free: (0..slots as u32).rev().collect(),
            queue: Vec::with_capacity(slots),
            received: Vec::with_capacity(batch),
            payload_bytes_max,
            counters,
            drained: false,
        }
    }

    /// Bytes of packet memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.batch.bytes()
    }

    fn check(&self, slot: u32, received: Received) -> Result<UdpPacket, Exit> {
        if received.truncated {
            return Err(Exit::DropTooLarge);
        }
        if received.control_truncated || has_ipv6_extension(self.batch.way(slot as usize)) {
            return Err(Exit::DropIpv6Extension);
        }
        let bytes = self.batch.slot(slot as usize);
        check_payload(received.bytes, self.payload_bytes_max, || bytes.first_chunk().copied())?;
        Ok(UdpPacket { slot, bytes: received.bytes as u32 })
    }
}

/// Whether ancillary data tells of an IPv6 extension header. Beside XDP this is
/// how chains of them, which the program does not walk, are kept from passing
/// its blocklist and rate limit by the fallback socket.
fn has_ipv6_extension(mut control: &[u8]) -> bool {
    // struct cmsghdr: length with this header, level, type; padded to 8.
    while let Some((header, _)) = control.split_first_chunk::<16>() {
        let [length, level_and_type] =
            [0, 8].map(|at| u64::from_ne_bytes(header[at..at + 8].try_into().unwrap_or([0; 8])));
        let (level, kind) = (level_and_type as u32 as i32, (level_and_type >> 32) as i32);
        let is_extension =
            matches!(kind, libc::IPV6_HOPOPTS | libc::IPV6_RTHDR | libc::IPV6_DSTOPTS);
        if level == libc::IPPROTO_IPV6 && is_extension {
            return true;
        }
        let next = usize::try_from(length).unwrap_or(usize::MAX).max(16).next_multiple_of(8);
        control = control.get(next..).unwrap_or_default();
    }
    false
}

impl Port for UdpPort {
    type Packet = UdpPacket;
    type Path = UdpPath;

    fn receive(&mut self, max: usize) -> usize {
        let max = max.min(self.batch_max).min(self.free.len());
        let first = self.free.len() - max;
        self.counters.syscalls.add(1);
        let received = &mut self.received;
        let got = self
            .batch
            .receive(self.socket.as_fd(), &self.free[first..], |slot, r| received.push((slot, r)));
        // An error here is nothing waiting, or one the kernel reports of an
        // earlier send (ECONNREFUSED): the next call tells.
        let got = got.unwrap_or(0);
        self.drained = got < max;
        // Slots are used in order from `first`; the others stay free.
        self.free.drain(first..first + got);
        // Taken from the end.
        self.received.reverse();
        got
    }

    fn take(&mut self) -> Option<Result<UdpPacket, Exit>> {
        let (slot, received) = self.received.pop()?;
        let packet = self.check(slot, received);
        if packet.is_err() {
            self.free.push(slot);
        }
        Some(packet)
    }

    #[inline]
    fn payload<'a>(&'a self, packet: &'a UdpPacket) -> &'a [u8] {
        &self.batch.slot(packet.slot as usize)[..packet.bytes as usize]
    }

    #[inline]
    fn buffer<'a>(&'a mut self, packet: &'a mut UdpPacket) -> &'a mut [u8] {
        self.batch.slot_mut(packet.slot as usize)
    }

    #[inline]
    fn for_reply(&mut self, packet: UdpPacket) -> UdpPacket {
        // The kernel wrote the slot on this core: it is as warm as any.
        packet
    }

    #[inline]
    fn flow_hash(&self, packet: &UdpPacket) -> u32 {
        let mut hash = 0u32;
        for chunk in self.batch.peer(packet.slot as usize).chunks_exact(4).take(6) {
            let word = chunk.first_chunk().map_or(0, |c| u32::from_le_bytes(*c));
            hash = (hash ^ word).wrapping_mul(0x9e37_79b1).rotate_left(13);
        }
        hash
    }

    #[inline]
    fn is_same_flow(&self, a: &UdpPacket, b: &UdpPacket) -> bool {
        let (a, b) = (a.slot as usize, b.slot as usize);
        self.batch.peer(a) == self.batch.peer(b) && self.batch.way(a) == self.batch.way(b)
    }

    fn path(&self, packet: &UdpPacket) -> UdpPath {
        UdpPath(self.batch.way_back(packet.slot as usize))
    }

    fn is_on_path(&self, path: &UdpPath, packet: &UdpPacket) -> bool {
        self.batch.is_on_way(packet.slot as usize, &path.0)
    }

    fn reply_on(&mut self, path: &UdpPath) -> Option<UdpPacket> {
        if self.free.is_empty() {
            self.flush();
        }
        let slot = self.free.pop()?;
        self.batch.set_way(slot as usize, &path.0);
        Some(UdpPacket { slot, bytes: 0 })
    }

    #[inline]
    fn send(&mut self, packet: UdpPacket, payload_bytes: usize) {
        self.queue.push((packet.slot, payload_bytes as u32));
    }

    #[inline]
    fn recycle(&mut self, packet: UdpPacket) {
        self.free.push(packet.slot);
    }

    fn send_now(&mut self) {
        self.flush();
    }

    fn flush(&mut self) {
        let mut done = 0;
        while done < self.queue.len() {
            self.counters.syscalls.add(1);
            match self.batch.send(self.socket.as_fd(), &self.queue[done..]) {
                Ok(sent) => {
                    self.counters.replies.sent.add(sent as u64);
                    done += sent;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.replies.dropped_tx_full.add((self.queue.len() - done) as u64);
                    break;
                }
                // The first entry was refused (no route, firewall): the others
                // may still go.
                Err(_) => {
                    self.counters.replies.dropped_tx_full.add(1);
                    done += 1;
                }
            }
        }
        self.free.extend(self.queue.drain(..).map(|(slot, _)| slot));
    }

    #[inline]
    fn waiting(&self) -> usize {
        if self.drained { 0 } else { self.batch_max }
    }

    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) {
        self.counters.syscalls.add(1);
        self.counters.sleeps.add(1);
        poll::readable(self.socket.as_fd(), waker, timeout);
    }
}
