//! A lane's port on an AF_XDP socket.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use veltrix_abi::Exit;
use veltrix_abi::frame::{self, Datagram};

use super::packet::turn_around;
use super::socket::{WaitMode, Xsk};
use super::umem::Frame;
use crate::base::counters::LaneCounters;
use crate::base::poll;
use crate::base::port::Port;

/// Calls into the kernel that one flush may make before it leaves the rest of
/// a full TX ring for the next turn.
const FLUSH_CALLS_MAX: u32 = 16;

/// A received datagram in its frame.
#[derive(Debug)]
pub struct XskPacket {
    frame: Frame,
    /// Start of the packet in the frame.
    start: u32,
    at: Datagram,
}

/// A frame taken from RX and not yet looked at.
struct Taken {
    frame: Frame,
    start: u32,
    bytes: u32,
}

/// See the module.
pub struct XskPort {
    xsk: Xsk,
    port: u16,
    payload_bytes_max: usize,
    counters: Arc<LaneCounters>,
    taken: Vec<Taken>,
}

impl XskPort {
    /// Serves the datagrams for UDP port `port` that `xsk` receives, at most
    /// `batch` frames a call.
    #[must_use]
    pub fn new(
        xsk: Xsk,
        port: u16,
        payload_bytes_max: usize,
        batch: usize,
        counters: Arc<LaneCounters>,
    ) -> Self {
        Self { xsk, port, payload_bytes_max, counters, taken: Vec::with_capacity(batch) }
    }

    /// The socket.
    #[must_use]
    pub fn xsk(&self) -> &Xsk {
        &self.xsk
    }

    /// The socket, to use its rings directly.
    pub(super) fn xsk_mut(&mut self) -> &mut Xsk {
        &mut self.xsk
    }

    /// Takes back the frames of sent replies.
    #[inline]
    fn reap(&mut self) {
        while self.xsk.completion.ready() > 0 {
            while let Some(address) = self.xsk.completion.pop() {
                match self.xsk.umem.reclaim(address) {
                    Some(frame) => self.xsk.free.push(frame),
                    None => self.counters.alien_frames.add(1),
                }
            }
            self.xsk.completion.release();
        }
    }

    /// Makes the kernel send what stands in the TX ring.
    fn transmit(&mut self) {
        self.xsk.tx.publish();
        let mut pending = self.xsk.tx.pending();
        for _ in 0..FLUSH_CALLS_MAX {
            if pending == 0 || !self.xsk.tx.needs_wakeup() {
                return;
            }
            let error = self.kick_tx();
            let left = self.xsk.tx.pending();
            // EAGAIN after progress means only that a call's budget was used up.
            if error.is_some() && left == pending {
                return;
            }
            pending = left;
        }
    }

    fn kick_tx(&self) -> Option<io::Error> {
        self.counters.syscalls.add(1);
        // SAFETY: a send without buffer or address on an open socket.
        let rc = unsafe {
            libc::sendto(
                self.xsk.fd().as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        (rc < 0).then(io::Error::last_os_error)
    }

    /// Lets the kernel's receive side run: it asked for it, or we drive it.
    fn kick_rx(&self) {
        self.counters.syscalls.add(1);
        // SAFETY: a receive without buffer or address on an open socket.
        unsafe {
            libc::recvfrom(
                self.xsk.fd().as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
        };
    }

    fn sleep(&self, timeout: Duration) {
        self.counters.syscalls.add(1);
        self.counters.sleeps.add(1);
        poll::readable(self.xsk.fd(), timeout);
    }

    fn bytes<'a>(&'a self, packet: &'a XskPacket) -> &'a [u8] {
        &self.xsk.umem.bytes_of(&packet.frame)[packet.start as usize..]
    }
}

/// Source address (its last four bytes) and source port, as a key.
#[inline(always)]
fn flow_key(bytes: &[u8], at: &Datagram) -> (u32, u16) {
    let source_end = match at.family {
        frame::Family::V4 => at.l3 + 16,
        frame::Family::V6 => at.l3 + 24,
    };
    let word = |from: usize| bytes.get(from..).and_then(|b| b.first_chunk::<4>()).copied();
    let address = word(source_end - 4).map_or(0, u32::from_le_bytes);
    let port = word(at.udp).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    (address, port)
}

impl Port for XskPort {
    type Packet = XskPacket;

    #[inline]
    fn receive(
        &mut self,
        out: &mut Vec<XskPacket>,
        max: usize,
        refused: &mut dyn FnMut(Exit),
    ) -> usize {
        let max = max.min(self.taken.capacity());
        let ready = (self.xsk.rx.ready() as usize).min(max);
        for _ in 0..ready {
            let Some(desc) = self.xsk.rx.pop() else { break };
            let Some(frame) = self.xsk.umem.reclaim(desc.addr) else {
                self.counters.alien_frames.add(1);
                refused(Exit::LaneDisagrees);
                continue;
            };
            let start = (desc.addr - frame.base()) as u32;
            self.xsk.umem.prefetch(&frame, start as usize);
            self.xsk.umem.prefetch(&frame, start as usize + 64);
            self.taken.push(Taken { frame, start, bytes: desc.len });
        }
        self.xsk.rx.release();
        for taken in self.taken.drain(..) {
            let bytes = self.xsk.umem.bytes_of(&taken.frame);
            let start = taken.start as usize;
            let accepted = match bytes.get(start..start + taken.bytes as usize) {
                Some(packet) => frame::accept(packet, self.port, self.payload_bytes_max),
                None => Err(Exit::LaneDisagrees),
            };
            match accepted {
                Ok(at) => out.push(XskPacket { frame: taken.frame, start: taken.start, at }),
                Err(_) => {
                    refused(Exit::LaneDisagrees);
                    self.xsk.free.push(taken.frame);
                }
            }
        }
        ready
    }

    #[inline(always)]
    fn payload<'a>(&'a self, packet: &'a XskPacket) -> &'a [u8] {
        &self.bytes(packet)[packet.at.payload..packet.at.payload + packet.at.payload_bytes]
    }

    #[inline(always)]
    fn buffer<'a>(&'a mut self, packet: &'a mut XskPacket) -> &'a mut [u8] {
        let start = packet.start as usize + packet.at.payload;
        &mut self.xsk.umem.bytes_of_mut(&mut packet.frame)[start..]
    }

    #[inline(always)]
    fn flow_hash(&self, packet: &XskPacket) -> u32 {
        let (address, port) = flow_key(self.bytes(packet), &packet.at);
        // The best bits of such a product are the upper ones, and the lower
        // ones are used.
        (address ^ u32::from(port).rotate_left(16)).wrapping_mul(0x9e37_79b1).rotate_left(8)
    }

    #[inline]
    fn is_same_flow(&self, a: &XskPacket, b: &XskPacket) -> bool {
        // Everything up to the UDP ports but the IP header's per-packet fields
        // must agree: MAC addresses, tags, IP addresses, ports.
        let (x, y) = (self.bytes(a), self.bytes(b));
        let addresses = match a.at.family {
            frame::Family::V4 => a.at.l3 + 12..a.at.l3 + 20,
            frame::Family::V6 => a.at.l3 + 8..a.at.l3 + 40,
        };
        let ports = a.at.udp..a.at.udp + 4;
        a.at.family == b.at.family
            && a.at.l3 == b.at.l3
            && a.at.udp == b.at.udp
            && x[..a.at.l3] == y[..b.at.l3]
            && x[addresses.clone()] == y[addresses]
            && x[ports.clone()] == y[ports]
    }

    #[inline]
    fn send(&mut self, mut packet: XskPacket, payload_bytes: usize) {
        let start = packet.start as usize;
        let frame = &mut self.xsk.umem.bytes_of_mut(&mut packet.frame)[start..];
        let bytes = turn_around(frame, &packet.at, payload_bytes);
        let desc = libc::xdp_desc {
            addr: packet.frame.base() + u64::from(packet.start),
            len: bytes as u32,
            options: 0,
        };
        let mut pushed = self.xsk.tx.push(desc);
        if !pushed {
            self.transmit();
            self.reap();
            pushed = self.xsk.tx.push(desc);
        }
        if pushed {
            // The frame is the kernel's now; it comes back by COMPLETION.
            let _ = packet.frame.surrender();
            self.counters.replies.sent.add(1);
        } else {
            self.xsk.free.push(packet.frame);
            self.counters.replies.dropped_tx_full.add(1);
        }
    }

    #[inline(always)]
    fn recycle(&mut self, packet: XskPacket) {
        self.xsk.free.push(packet.frame);
    }

    #[inline]
    fn flush(&mut self) {
        if self.xsk.tx.publish() || self.xsk.tx.pending() > 0 {
            self.transmit();
        }
        self.reap();
        self.xsk.refill();
        if self.xsk.fill.needs_wakeup() {
            self.kick_rx();
        }
    }

    #[inline]
    fn waiting(&self) -> usize {
        self.xsk.rx.peek_ready() as usize
    }

    fn wait(&mut self, timeout: Duration) {
        match self.xsk.wait {
            WaitMode::Wakeup => self.sleep(timeout),
            WaitMode::Spin => std::hint::spin_loop(),
            WaitMode::PreferBusy { .. } => self.kick_rx(),
        }
    }
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
