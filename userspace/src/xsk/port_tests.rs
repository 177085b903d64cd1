//! The kernel as a script, at the other end of a port's rings: it takes FILL
//! and TX entries, writes packets and produces RX and COMPLETION entries when
//! a test tells it to. The tests that put a lane on such a port are
//! `lane/xsk_tests.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::net::UdpSocket;

use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
use veltrix_abi::wire::{self, Header, Kind};

use super::super::ring::{Consumer, Producer, RingMemory};
use super::super::socket::{HEADROOM_BYTES, MappedRing};
use super::super::umem::Umem;
use super::*;
use crate::base::mem::HugePages;

pub(crate) const PORT: u16 = 4747;
pub(crate) const FRAME_BYTES: u32 = 2_048;
/// Where the kernel puts packets: XDP headroom and ours.
const START: u64 = 256 + HEADROOM_BYTES as u64;

type Ring<T> = MappedRing<T>;

/// The other end of the four rings.
pub(crate) struct Kernel {
    fill: Consumer<Ring<u64>>,
    rx: Producer<Ring<libc::xdp_desc>>,
    tx: Consumer<Ring<libc::xdp_desc>>,
    completion: Producer<Ring<u64>>,
    /// Third views, to see what stands in the rings and set their flags.
    watch: (Ring<u64>, Ring<libc::xdp_desc>, Ring<libc::xdp_desc>, Ring<u64>),
    memory: *mut u8,
    pub(crate) frames: u32,
    /// Frames taken from FILL, and from TX.
    empty: VecDeque<u64>,
    in_flight: VecDeque<u64>,
    pub(crate) delivered: u64,
    pub(crate) transmitted: u64,
    /// UDP payload of every reply.
    pub(crate) replies: Vec<Vec<u8>>,
}

/// A port and its kernel; every ring's cursors begin at `cursor`, and FILL is
/// twice as large as RX, COMPLETION as large as TX.
pub(crate) fn port_and_kernel(
    cursor: u32,
    rx_frames: u32,
    tx_frames: u32,
    counters: &Arc<LaneCounters>,
) -> (XskPort, Kernel) {
    let frames = 2 * rx_frames + tx_frames;
    let umem = Umem::new(frames, FRAME_BYTES, HugePages::Off).unwrap();
    let memory = umem.0.start();
    let [fill, kernel_fill, watch_fill] = Ring::views(2 * rx_frames, cursor);
    let [rx, kernel_rx, watch_rx] = Ring::views(rx_frames, cursor);
    let [tx, kernel_tx, watch_tx] = Ring::views(tx_frames, cursor);
    let [completion, kernel_completion, watch_completion] = Ring::views(tx_frames, cursor);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let xsk = Xsk::over(socket.into(), umem, rx, tx, fill, completion);
    let port = XskPort::new(xsk, PORT, PAYLOAD_BYTES_MAX_DEFAULT, Arc::clone(counters));
    let kernel = Kernel {
        fill: Consumer::new(kernel_fill),
        rx: Producer::new(kernel_rx),
        tx: Consumer::new(kernel_tx),
        completion: Producer::new(kernel_completion),
        watch: (watch_fill, watch_rx, watch_tx, watch_completion),
        memory,
        frames,
        empty: VecDeque::with_capacity(frames as usize),
        in_flight: VecDeque::with_capacity(frames as usize),
        delivered: 0,
        transmitted: 0,
        replies: Vec::with_capacity(4_096),
    };
    (port, kernel)
}

/// Entries between a ring's cursors.
fn standing<T: Copy>(ring: &Ring<T>) -> impl Iterator<Item = T> {
    let (from, to) = (ring.load_consumer(), ring.load_producer());
    (0..to.wrapping_sub(from)).map(move |i| ring.read(from.wrapping_add(i)))
}

impl Kernel {
    /// The bytes of the frame at `address`, to the frame's end.
    fn bytes(&mut self, address: u64) -> &mut [u8] {
        let bytes = u64::from(FRAME_BYTES) - address % u64::from(FRAME_BYTES);
        // SAFETY: the kernel holds this frame, so nobody else touches these
        // bytes, and the lane's UMEM outlives the borrow.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.memory.wrapping_add(address as usize),
                bytes as usize,
            )
        }
    }

    pub(crate) fn take_fill(&mut self, max: u32) -> u32 {
        let n = self.fill.ready().min(max);
        for _ in 0..n {
            self.empty.extend(self.fill.pop());
        }
        self.fill.release();
        n
    }

    /// Puts a packet into an empty frame; `bytes` is what the descriptor says
    /// of its length, if not the truth. False if RX is full or FILL empty.
    pub(crate) fn deliver(&mut self, packet: &[u8], bytes: Option<u32>) -> bool {
        if self.empty.is_empty() {
            self.take_fill(1);
        }
        if self.rx.room() == 0 {
            return false;
        }
        let Some(base) = self.empty.pop_front() else { return false };
        let addr = base + START;
        let room = self.bytes(addr);
        let n = packet.len().min(room.len());
        room[..n].copy_from_slice(&packet[..n]);
        self.announce(addr, bytes.unwrap_or(n as u32))
    }

    pub(crate) fn announce(&mut self, addr: u64, len: u32) -> bool {
        if !self.rx.push(libc::xdp_desc { addr, len, options: 0 }) {
            return false;
        }
        self.rx.publish();
        self.delivered += 1;
        true
    }

    /// Takes TX entries, never more than COMPLETION will have room for: what
    /// the kernel reserves before it takes one.
    pub(crate) fn transmit(&mut self, max: u32) -> u32 {
        let room = self.completion.room().saturating_sub(self.in_flight.len() as u32);
        let n = self.tx.ready().min(max).min(room);
        for _ in 0..n {
            let desc = self.tx.pop().unwrap();
            let packet = self.bytes(desc.addr)[..desc.len as usize].to_vec();
            let at = frame::parse(&packet[..], client_port(&packet)).expect("a reply is a packet");
            self.replies.push(packet[at.payload..at.payload + at.payload_bytes].to_vec());
            self.in_flight.push_back(desc.addr);
            self.transmitted += 1;
        }
        self.tx.release();
        n
    }

    /// Gives sent frames back.
    pub(crate) fn complete(&mut self, max: u32) -> u32 {
        let mut n = 0;
        while n < max && self.completion.room() > 0 {
            let Some(address) = self.in_flight.pop_front() else { break };
            assert!(self.completion.push(address));
            n += 1;
        }
        self.completion.publish();
        n
    }

    pub(crate) fn ask_for_wakeup(&self, is_wanted: bool) {
        self.watch.0.ask_for_wakeup(is_wanted);
        self.watch.2.ask_for_wakeup(is_wanted);
    }

    /// Every frame is in exactly one place: the port's free list, one ring, or
    /// the kernel's hands.
    pub(crate) fn assert_frames_conserved(&self, port: &XskPort) {
        let all: Vec<u64> = port
            .xsk
            .free
            .iter()
            .chain(&port.xsk.spare)
            .map(Frame::base)
            .chain(self.empty.iter().chain(&self.in_flight).copied())
            .chain(standing(&self.watch.0))
            .chain(standing(&self.watch.1).map(|d| d.addr))
            .chain(standing(&self.watch.2).map(|d| d.addr))
            .chain(standing(&self.watch.3))
            .map(|address| address & !u64::from(FRAME_BYTES - 1))
            // Addresses that the kernel made up belong to no frame.
            .filter(|base| *base < u64::from(self.frames * FRAME_BYTES))
            .collect();
        let distinct: BTreeSet<u64> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len(), "a frame is in two places: {all:?}");
        assert_eq!(distinct.len(), self.frames as usize, "a frame is lost: {distinct:?}");
    }

    /// Frames that can receive: empty in the kernel's hands, in FILL, or free.
    pub(crate) fn frames_at_rest(&self, port: &XskPort) -> usize {
        self.empty.len()
            + standing(&self.watch.0).count()
            + port.xsk.free.len()
            + port.xsk.spare.len()
    }

    pub(crate) fn rx_waiting(&self) -> u64 {
        standing(&self.watch.1).count() as u64
    }

    pub(crate) fn tx_waiting(&self) -> u64 {
        standing(&self.watch.2).count() as u64
    }

    /// Puts an address into COMPLETION that was not in TX.
    pub(crate) fn complete_alien(&mut self, address: u64) {
        assert!(self.completion.push(address));
        self.completion.publish();
    }

    /// Moves the producer cursors without regard for what is in the rings.
    pub(crate) fn jump(&mut self, rx: u32, completion: u32) {
        self.watch.1.store_producer(rx);
        self.watch.3.store_producer(completion);
    }
}

/// Destination port of an untagged packet without IP options.
fn client_port(packet: &[u8]) -> u16 {
    let udp = if packet[12] == 0x08 { 34 } else { 54 };
    u16::from_be_bytes([packet[udp + 2], packet[udp + 3]])
}

/// A packet from sender `from`, IPv6 from the odd ones.
pub(crate) fn frame(from: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let udp_bytes = (8 + payload.len()) as u16;
    let host = from.to_be_bytes();
    if from % 2 == 1 {
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        f.extend(udp_bytes.to_be_bytes());
        f.extend([17, 64, 0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, host[0], host[1]]);
        f.extend([0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
    } else {
        f.extend([0x08, 0x00, 0x45, 0]);
        f.extend((20 + udp_bytes).to_be_bytes());
        f.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 1, host[0], host[1], 10, 9, 8, 7]);
    }
    f.extend((1_000 + from).to_be_bytes());
    f.extend(PORT.to_be_bytes());
    f.extend(udp_bytes.to_be_bytes());
    f.extend([0, 0]);
    f.extend(payload);
    f
}

/// Senders that differ only in host or port fall into different slots of a
/// small table.
#[test]
fn flow_hashes_differ_in_their_low_bits() {
    let mut ping = [0; 72];
    Header::new(Kind::Ping).write(&mut ping);
    wire::finish(&mut ping, crc_fast::crc32_iscsi);
    let hash = |host: u8, source: u16| {
        let mut packet = frame(2, &ping);
        packet[29] = host;
        packet[34..36].copy_from_slice(&source.to_be_bytes());
        let (mut port, mut kernel) = port_and_kernel(0, 8, 4, &Arc::default());
        assert!(kernel.deliver(&packet, None));
        assert_eq!(port.receive(1), 1);
        let packet = port.take().and_then(Result::ok).expect("a ping");
        port.flow_hash(&packet) % 32
    };
    let hosts: BTreeSet<u32> = (1..=64).map(|host| hash(host, 1_000)).collect();
    let ports: BTreeSet<u32> = (1..=64).map(|port| hash(1, 40_000 + port)).collect();
    assert!(hosts.len() >= 16 && ports.len() >= 16, "{} and {} of 32", hosts.len(), ports.len());
}
