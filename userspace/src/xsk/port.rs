//! A lane's port on an AF_XDP socket.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use veltrix_abi::Exit;
use veltrix_abi::frame::{self, FrameBytes as _};
use veltrix_abi::limits::FRAME_HEADERS_BYTES_MAX;

use super::packet::{Place, turn_around};
use super::socket::{WaitMode, Xsk};
use super::umem::Frame;
use crate::base::counters::LaneCounters;
use crate::base::poll;
use crate::base::port::Port;

/// Calls into the kernel that one flush may make before it leaves the rest of
/// a full TX ring for the next turn.
const FLUSH_CALLS_MAX: u32 = 16;

/// Replies that are worth a call into the kernel while more requests wait: half
/// of what one call sends where the kernel's budget cannot be raised. When the
/// RX ring is dry every reply goes at once.
const KICK_FRAMES: u32 = 16;

/// Frames asked for ahead of the one in hand. Frames lie 2 KiB apart, so their
/// first lines share two sets of a 48 KiB L1 of 12 ways: 24 frames, and what is
/// asked for earlier is gone again when it is wanted.
const PREFETCH_FRAMES: u32 = 16;

/// Where a lane begins to read: behind the MAC addresses.
const PREFETCH_FROM: u64 = 12;

/// Cache lines of a packet asked for ahead: those of one event in IPv4. The
/// core's own prefetcher follows longer packets by itself.
const PREFETCH_LINES: u64 = 2;

/// A received datagram in its frame.
#[derive(Debug)]
pub struct XskPacket {
    frame: Frame,
    /// Start of the packet in the frame.
    start: u32,
    at: Place,
    /// Whether the frame is one of those kept for replies.
    is_spare: bool,
}

/// Headers of a received packet: a reply along them goes back to its sender.
#[derive(Clone, Debug)]
pub struct XskPath {
    headers: [u8; FRAME_HEADERS_BYTES_MAX],
    /// Where the packet began in its frame: a reply begins there too.
    start: u32,
    at: Place,
}

/// See the module.
pub struct XskPort {
    xsk: Xsk,
    port: u16,
    payload_bytes_max: usize,
    counters: Arc<LaneCounters>,
    /// Frames of the batch under way not yet taken.
    left: usize,
}

impl XskPort {
    /// Serves the datagrams for UDP port `port` that `xsk` receives.
    #[must_use]
    pub fn new(xsk: Xsk, port: u16, payload_bytes_max: usize, counters: Arc<LaneCounters>) -> Self {
        Self { xsk, port, payload_bytes_max, counters, left: 0 }
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

    /// Asks for the frame `ahead` of the next one.
    #[inline(always)]
    fn prefetch(&self, ahead: u32) {
        let address = self.xsk.rx.peek(ahead).addr;
        for line in 0..PREFETCH_LINES {
            self.xsk.umem.prefetch(address.wrapping_add(PREFETCH_FROM + 64 * line));
        }
    }

    /// Takes back the frames of sent replies.
    #[inline]
    fn reap(&mut self) {
        while self.xsk.completion.ready() > 0 {
            while let Some(address) = self.xsk.completion.pop() {
                match self.xsk.umem.reclaim(address) {
                    Some(frame) => self.xsk.give_back(frame, true),
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
            self.kick_tx();
            let left = self.xsk.tx.pending();
            // Whatever it said: a call that moved nothing will not at once.
            if left == pending {
                return;
            }
            pending = left;
        }
    }

    fn kick_tx(&self) {
        self.counters.syscalls.add(1);
        // SAFETY: a send without buffer or address on an open socket.
        unsafe {
            libc::sendto(
                self.xsk.fd().as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
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

    fn sleep(&self, timeout: Duration, waker: Option<BorrowedFd<'_>>) {
        self.counters.syscalls.add(1);
        self.counters.sleeps.add(1);
        poll::readable(self.xsk.fd(), waker, timeout);
    }

    #[inline(always)]
    fn bytes<'a>(&'a self, packet: &'a XskPacket) -> &'a [u8] {
        &self.xsk.umem.bytes_of(&packet.frame)[packet.start as usize..]
    }
}

/// Source address (its last four bytes) and source port, as a key.
#[inline(always)]
fn flow_key(bytes: &[u8], at: &Place) -> (u32, u16) {
    let source_end = match at.family {
        frame::Family::V4 => at.l3() + 16,
        frame::Family::V6 => at.l3() + 24,
    };
    let address = bytes.read::<4>(source_end - 4).map_or(0, u32::from_le_bytes);
    let port = bytes.read::<2>(at.udp()).map_or(0, u16::from_le_bytes);
    (address, port)
}

/// Whether `N` bytes at `from` are the same.
#[inline(always)]
fn same<const N: usize>(a: &[u8], b: &[u8], from: usize) -> bool {
    a.read::<N>(from) == b.read::<N>(from)
}

/// Whether two packets, told from `l3` on, came from the same address and port
/// by the same way: tags, IP addresses and ports agree.
#[inline(always)]
fn is_same_way(x: &[u8], x_at: &Place, y: &[u8], y_at: &Place) -> bool {
    // Pieces of fixed size: a comparison of any length is a call.
    let (l3, udp) = (x_at.l3(), x_at.udp());
    let same_addresses = match x_at.family {
        frame::Family::V4 => same::<8>(x, y, l3 + 12),
        frame::Family::V6 => same::<32>(x, y, l3 + 8),
    };
    x_at.family == y_at.family
        && l3 == y_at.l3()
        && udp == y_at.udp()
        && same_addresses
        && same::<4>(x, y, udp)
        && (l3 == 14 || x[12..l3] == y[12..l3])
}

impl Port for XskPort {
    type Packet = XskPacket;
    type Path = XskPath;

    #[inline]
    fn receive(&mut self, max: usize) -> usize {
        self.left = (self.xsk.rx.ready() as usize).min(max);
        for ahead in 0..PREFETCH_FRAMES.min(self.left as u32) {
            self.prefetch(ahead);
        }
        self.left
    }

    #[inline(always)]
    fn take(&mut self) -> Option<Result<XskPacket, Exit>> {
        self.left = self.left.checked_sub(1)?;
        if self.left >= PREFETCH_FRAMES as usize {
            self.prefetch(PREFETCH_FRAMES);
        }
        let desc = self.xsk.rx.pop()?;
        let Some(frame) = self.xsk.umem.reclaim(desc.addr) else {
            self.counters.alien_frames.add(1);
            return Some(Err(Exit::LaneDisagrees));
        };
        let start = (desc.addr - frame.base()) as usize;
        let packet = self.xsk.umem.bytes_of(&frame).get(start..start + desc.len as usize);
        match packet
            .map(|packet| frame::accept_redirected(packet, self.port, self.payload_bytes_max))
        {
            Some(Ok(at)) => {
                Some(Ok(XskPacket { frame, start: start as u32, at: at.into(), is_spare: false }))
            }
            _ => {
                self.xsk.free.push(frame);
                Some(Err(Exit::LaneDisagrees))
            }
        }
    }

    #[inline(always)]
    fn payload<'a>(&'a self, packet: &'a XskPacket) -> &'a [u8] {
        &self.bytes(packet)[packet.at.payload()]
    }

    #[inline(always)]
    fn buffer<'a>(&'a mut self, packet: &'a mut XskPacket) -> &'a mut [u8] {
        let start = packet.start as usize + packet.at.payload().start;
        &mut self.xsk.umem.bytes_of_mut(&mut packet.frame)[start..]
    }

    #[inline]
    fn for_reply(&mut self, mut packet: XskPacket) -> XskPacket {
        if let Some(mut frame) = self.xsk.spare.pop() {
            let headers = packet.start as usize..packet.start as usize + packet.at.payload().start;
            let from = &self.xsk.umem.bytes_of(&packet.frame)[headers.clone()];
            let mut copy = [0; FRAME_HEADERS_BYTES_MAX];
            let copy = &mut copy[..from.len()];
            copy.copy_from_slice(from);
            self.xsk.umem.bytes_of_mut(&mut frame)[headers].copy_from_slice(copy);
            self.xsk.free.push(std::mem::replace(&mut packet.frame, frame));
            packet.is_spare = true;
        }
        packet
    }

    #[inline(always)]
    fn flow_hash(&self, packet: &XskPacket) -> u32 {
        let (address, port) = flow_key(self.bytes(packet), &packet.at);
        // The best bits of such a product are the upper ones, and the lower
        // ones are used.
        (address ^ u32::from(port).rotate_left(16)).wrapping_mul(0x9e37_79b1).rotate_left(8)
    }

    #[inline(always)]
    fn is_same_flow(&self, a: &XskPacket, b: &XskPacket) -> bool {
        is_same_way(self.bytes(a), &a.at, self.bytes(b), &b.at)
    }

    #[inline]
    fn path(&self, packet: &XskPacket) -> XskPath {
        let mut headers = [0; FRAME_HEADERS_BYTES_MAX];
        let bytes = packet.at.payload().start;
        headers[..bytes].copy_from_slice(&self.bytes(packet)[..bytes]);
        XskPath { headers, start: packet.start, at: packet.at }
    }

    #[inline]
    fn is_on_path(&self, path: &XskPath, packet: &XskPacket) -> bool {
        is_same_way(&path.headers, &path.at, self.bytes(packet), &packet.at)
    }

    #[inline]
    fn reply_on(&mut self, path: &XskPath) -> Option<XskPacket> {
        if self.xsk.spare.is_empty() {
            self.transmit();
            self.reap();
        }
        let (mut frame, is_spare) = match self.xsk.spare.pop() {
            Some(frame) => (frame, true),
            None => (self.xsk.free.pop()?, false),
        };
        let bytes = path.at.payload().start;
        let out = &mut self.xsk.umem.bytes_of_mut(&mut frame)[path.start as usize..];
        out[..bytes].copy_from_slice(&path.headers[..bytes]);
        Some(XskPacket { frame, start: path.start, at: path.at, is_spare })
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
            self.recycle(packet);
            self.counters.replies.dropped_tx_full.add(1);
        }
    }

    #[inline(always)]
    fn recycle(&mut self, packet: XskPacket) {
        self.xsk.give_back(packet.frame, packet.is_spare);
    }

    #[inline]
    fn send_now(&mut self) {
        self.transmit();
    }

    #[inline]
    fn flush(&mut self) {
        self.xsk.rx.release();
        self.xsk.tx.publish();
        let pending = self.xsk.tx.pending();
        if pending >= KICK_FRAMES || (pending > 0 && self.xsk.rx.peek_ready() == 0) {
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
        (self.xsk.rx.peek_ready() as usize).saturating_sub(self.left)
    }

    fn wait(&mut self, timeout: Duration, waker: Option<BorrowedFd<'_>>) {
        match self.xsk.wait {
            WaitMode::Wakeup => self.sleep(timeout, waker),
            WaitMode::Spin => std::hint::spin_loop(),
            WaitMode::PreferBusy { .. } => self.kick_rx(),
        }
    }
}

#[cfg(test)]
#[path = "port_tests.rs"]
pub(crate) mod tests;
