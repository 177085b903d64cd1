//! A lane on an AF_XDP port whose kernel is a script: it takes FILL and TX
//! entries, writes packets and produces RX and COMPLETION entries when it
//! pleases, over rings whose cursors start near the wrap.

use std::collections::{BTreeSet, VecDeque};
use std::net::UdpSocket;

use proptest::prelude::*;
use veltrix_abi::Action;
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
use veltrix_abi::wire::{Mode, Reply, decode_reply};

use super::super::ring::{Consumer, Producer, RingMemory};
use super::super::socket::{HEADROOM_BYTES, MappedRing};
use super::super::umem::Umem;
use super::*;
use crate::base::mem::HugePages;
use crate::lane::{Admission, Lane, ServerFacts};

#[path = "../../tests/support/allocator.rs"]
mod allocator;
#[path = "../../tests/support/datagrams.rs"]
#[allow(dead_code, reason = "the integration tests use the rest")]
mod datagrams;

#[global_allocator]
static COUNTING: allocator::Counting = allocator::Counting;

const PORT: u16 = 4747;
const FRAME_BYTES: u32 = 2_048;
const RX_FRAMES: u32 = 8;
const TX_FRAMES: u32 = 4;
/// Where the kernel puts packets: XDP headroom and ours.
const START: u64 = 256 + HEADROOM_BYTES as u64;

type Ring<T> = MappedRing<T>;

/// The other end of the four rings.
struct Kernel {
    fill: Consumer<Ring<u64>>,
    rx: Producer<Ring<libc::xdp_desc>>,
    tx: Consumer<Ring<libc::xdp_desc>>,
    completion: Producer<Ring<u64>>,
    /// Third views, to see what stands in the rings and set their flags.
    watch: (Ring<u64>, Ring<libc::xdp_desc>, Ring<libc::xdp_desc>, Ring<u64>),
    memory: *mut u8,
    /// Frames taken from FILL, and from TX.
    empty: VecDeque<u64>,
    in_flight: VecDeque<u64>,
    delivered: u64,
    transmitted: u64,
    /// UDP payload of every reply.
    replies: Vec<Vec<u8>>,
}

struct Bench {
    lane: Lane<XskPort>,
    counters: Arc<LaneCounters>,
    kernel: Kernel,
    frames: u32,
}

impl Bench {
    fn new(cursor: u32) -> Self {
        Self::with_rings(cursor, RX_FRAMES, TX_FRAMES)
    }

    fn with_rings(cursor: u32, rx_frames: u32, tx_frames: u32) -> Self {
        let frames = 2 * rx_frames + tx_frames;
        let umem = Umem::new(frames, FRAME_BYTES, HugePages::Off).unwrap();
        let memory = umem.0.start();
        let [fill, kernel_fill, watch_fill] = Ring::views(2 * rx_frames, cursor);
        let [rx, kernel_rx, watch_rx] = Ring::views(rx_frames, cursor);
        let [tx, kernel_tx, watch_tx] = Ring::views(tx_frames, cursor);
        let [completion, kernel_completion, watch_completion] = Ring::views(tx_frames, cursor);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let xsk = Xsk::over(socket.into(), umem, rx, tx, fill, completion);
        let counters = Arc::new(LaneCounters::default());
        let port = XskPort::new(xsk, PORT, PAYLOAD_BYTES_MAX_DEFAULT, 4, Arc::clone(&counters));
        let facts = ServerFacts {
            partitions: 64,
            lanes: 1,
            port: PORT,
            payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT as u16,
        };
        let admission = Admission::new(Duration::from_secs(3_600));
        let lane = Lane::new(port, facts, admission, 4, Arc::clone(&counters));
        let kernel = Kernel {
            fill: Consumer::new(kernel_fill),
            rx: Producer::new(kernel_rx),
            tx: Consumer::new(kernel_tx),
            completion: Producer::new(kernel_completion),
            watch: (watch_fill, watch_rx, watch_tx, watch_completion),
            memory,
            empty: VecDeque::with_capacity(frames as usize),
            in_flight: VecDeque::with_capacity(frames as usize),
            delivered: 0,
            transmitted: 0,
            replies: Vec::with_capacity(4_096),
        };
        Self { lane, counters, kernel, frames }
    }

    fn owed(&self) -> u64 {
        let owing = Exit::ALL.iter().filter(|e| e.action() == Action::Reply);
        owing.map(|e| self.counters.exits(*e)).sum()
    }

    /// Every frame is in exactly one place, and every count adds up.
    fn assert_conserved(&self) {
        let k = &self.kernel;
        let free = self.lane.port().xsk.free.iter().map(Frame::base);
        let all: Vec<u64> = free
            .chain(k.empty.iter().chain(&k.in_flight).copied())
            .chain(standing(&k.watch.0))
            .chain(standing(&k.watch.1).map(|d| d.addr))
            .chain(standing(&k.watch.2).map(|d| d.addr))
            .chain(standing(&k.watch.3))
            .map(|address| address & !u64::from(FRAME_BYTES - 1))
            // Addresses that the kernel made up belong to no frame.
            .filter(|base| *base < u64::from(self.frames * FRAME_BYTES))
            .collect();
        let distinct: BTreeSet<u64> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len(), "a frame is in two places: {all:?}");
        assert_eq!(distinct.len(), self.frames as usize, "a frame is lost: {distinct:?}");

        let c = &self.counters;
        let waiting = standing(&k.watch.1).count() as u64;
        assert_eq!(c.frames.get() + waiting, k.delivered);
        assert_eq!(c.exits_sum(), c.frames.get());
        let r = &c.replies;
        assert_eq!(r.sent.get(), k.transmitted + standing(&k.watch.2).count() as u64);
        let fates = [&r.sent, &r.coalesced, &r.dropped_tx_full, &r.withheld];
        assert_eq!(fates.iter().map(|f| f.get()).sum::<u64>(), self.owed());
    }

    /// The kernel does all it can, until nothing moves any more.
    fn settle(&mut self) {
        self.kernel.ask_for_wakeup(false);
        while self.lane.turn() > 0
            || self.kernel.transmit(u32::MAX) + self.kernel.complete(u32::MAX) > 0
        {
            self.assert_conserved();
        }
        self.assert_conserved();
    }

    /// Whether a ping sent now is answered.
    fn answers_ping(&mut self) -> bool {
        let before = self.kernel.replies.len();
        let delivered = self.kernel.deliver(&frame(1, &datagrams::ping(1, 999, 7)), None);
        self.settle();
        delivered && self.kernel.replies.len() == before + 1
    }
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

    fn take_fill(&mut self, max: u32) -> u32 {
        let n = self.fill.ready().min(max);
        for _ in 0..n {
            self.empty.extend(self.fill.pop());
        }
        self.fill.release();
        n
    }

    /// Puts a packet into an empty frame; `bytes` is what the descriptor says
    /// of its length, if not the truth. False if RX is full or FILL empty.
    fn deliver(&mut self, packet: &[u8], bytes: Option<u32>) -> bool {
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

    fn announce(&mut self, addr: u64, len: u32) -> bool {
        if !self.rx.push(libc::xdp_desc { addr, len, options: 0 }) {
            return false;
        }
        self.rx.publish();
        self.delivered += 1;
        true
    }

    /// Takes TX entries, never more than COMPLETION will have room for: what
    /// the kernel reserves before it takes one.
    fn transmit(&mut self, max: u32) -> u32 {
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
    fn complete(&mut self, max: u32) -> u32 {
        let mut n = 0;
        while n < max && self.completion.room() > 0 {
            let Some(address) = self.in_flight.pop_front() else { break };
            assert!(self.completion.push(address));
            n += 1;
        }
        self.completion.publish();
        n
    }

    fn ask_for_wakeup(&self, is_wanted: bool) {
        self.watch.0.ask_for_wakeup(is_wanted);
        self.watch.2.ask_for_wakeup(is_wanted);
    }
}

/// Destination port of an untagged packet without IP options.
fn client_port(packet: &[u8]) -> u16 {
    let udp = if packet[12] == 0x08 { 34 } else { 54 };
    u16::from_be_bytes([packet[udp + 2], packet[udp + 3]])
}

/// A packet from sender `from`, IPv6 from the odd ones.
fn frame(from: u16, payload: &[u8]) -> Vec<u8> {
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

#[derive(Clone, Debug)]
enum Step {
    TakeFill(u32),
    Deliver(Arrival),
    Transmit(u32),
    Complete(u32),
    AskForWakeup(bool),
    Turn,
    Wait,
}

#[derive(Clone, Debug)]
enum Arrival {
    Ping(u16),
    Hello(u16),
    Events(u16, u16),
    Durable(u16),
    Damaged(u16),
    Bytes(Vec<u8>),
    /// The packet's first bytes only.
    Truncated(u32),
    /// A descriptor that claims more than the packet has.
    Longer(u32),
    /// A descriptor for an address behind the UMEM.
    Alien(u64),
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let from = 0u16..4;
    prop_oneof![
        6 => from.clone().prop_map(Arrival::Ping),
        1 => from.clone().prop_map(Arrival::Hello),
        8 => (from.clone(), 1u16..25).prop_map(|(from, n)| Arrival::Events(from, n)),
        1 => from.clone().prop_map(Arrival::Durable),
        1 => from.prop_map(Arrival::Damaged),
        1 => proptest::collection::vec(any::<u8>(), 0..1_600).prop_map(Arrival::Bytes),
        1 => (0u32..114).prop_map(Arrival::Truncated),
        1 => prop_oneof![0u32..4_096, Just(u32::MAX), Just(u32::MAX - 261)].prop_map(Arrival::Longer),
        1 => prop_oneof![0u64..10_000, Just(u64::MAX >> 1)].prop_map(Arrival::Alien),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1u32..20).prop_map(Step::TakeFill),
        12 => arrival().prop_map(Step::Deliver),
        3 => (1u32..6).prop_map(Step::Transmit),
        3 => (1u32..6).prop_map(Step::Complete),
        1 => any::<bool>().prop_map(Step::AskForWakeup),
        6 => Just(Step::Turn),
        1 => Just(Step::Wait),
    ]
}

impl Bench {
    fn arrive(&mut self, arrival: &Arrival, sequence: u64) {
        let ping = || datagrams::ping(1, sequence, 7);
        let kernel = &mut self.kernel;
        match arrival {
            Arrival::Ping(from) => kernel.deliver(&frame(*from, &ping()), None),
            Arrival::Hello(from) => {
                kernel.deliver(&frame(*from, &datagrams::hello(1, sequence)), None)
            }
            Arrival::Events(from, n) => {
                let events = datagrams::events(1, sequence, Mode::None, *n);
                kernel.deliver(&frame(*from, &events), None)
            }
            Arrival::Durable(from) => {
                let events = datagrams::events(1, sequence, Mode::Durable, 2);
                kernel.deliver(&frame(*from, &events), None)
            }
            Arrival::Damaged(from) => {
                kernel.deliver(&frame(*from, &datagrams::damaged(ping())), None)
            }
            Arrival::Bytes(bytes) => kernel.deliver(bytes, None),
            Arrival::Truncated(bytes) => kernel.deliver(&frame(2, &ping()), Some(*bytes)),
            Arrival::Longer(more) => {
                let packet = frame(2, &ping());
                let bytes = (packet.len() as u32).saturating_add(*more);
                kernel.deliver(&packet, Some(bytes))
            }
            Arrival::Alien(beyond) => {
                let end = u64::from(self.frames * FRAME_BYTES);
                kernel.announce(end + beyond, 114)
            }
        };
    }

    fn step(&mut self, step: &Step, sequence: u64) {
        match step {
            Step::TakeFill(n) => drop(self.kernel.take_fill(*n)),
            Step::Deliver(arrival) => self.arrive(arrival, sequence),
            Step::Transmit(n) => drop(self.kernel.transmit(*n)),
            Step::Complete(n) => drop(self.kernel.complete(*n)),
            Step::AskForWakeup(is_wanted) => self.kernel.ask_for_wakeup(*is_wanted),
            Step::Turn => drop(self.lane.turn()),
            Step::Wait => self.lane.port_mut().wait(Duration::ZERO),
        }
    }
}

proptest! {
    #[test]
    fn frames_and_counts_are_conserved(
        cursor in prop_oneof![3 => (0u32..30).prop_map(|n| u32::MAX - n), 1 => any::<u32>()],
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut bench = Bench::new(cursor);
        for (i, step) in steps.iter().enumerate() {
            bench.step(step, i as u64);
            bench.assert_conserved();
        }
        bench.settle();
        prop_assert!(bench.answers_ping(), "the port serves on, whatever was before");
        let owned = bench.kernel.empty.len() + standing(&bench.kernel.watch.0).count();
        let at_rest = owned + bench.lane.port().xsk.free.len();
        prop_assert_eq!(at_rest, bench.frames as usize, "no frame is left in TX or COMPLETION");
        for reply in &bench.kernel.replies {
            prop_assert!(decode_reply(reply, crc32c::crc32c).is_ok());
        }
    }
}

/// Replies are dropped, one by one and counted, when the kernel sends nothing;
/// receiving goes on, and sending does when the kernel does.
#[test]
fn a_full_tx_ring_drops_replies_and_no_frame() {
    let mut bench = Bench::new(u32::MAX - 3);
    for i in 0..40 {
        assert!(bench.kernel.deliver(&frame(i % 4, &datagrams::ping(1, u64::from(i), 7)), None));
        bench.lane.turn();
        bench.assert_conserved();
    }
    let replies = &bench.counters.replies;
    assert_eq!(replies.sent.get(), u64::from(TX_FRAMES));
    assert_eq!(replies.dropped_tx_full.get(), 40 - u64::from(TX_FRAMES));
    assert_eq!(bench.counters.exits(Exit::Ping), 40);
    bench.settle();
    assert!(bench.answers_ping());
}

/// The kernel sends but gives no frame back: TX fills up behind it, replies
/// are dropped, and the frames that are left receive.
#[test]
fn a_starved_completion_ring_never_wedges_receiving() {
    let mut bench = Bench::new(u32::MAX - 3);
    for i in 0..100 {
        assert!(bench.kernel.deliver(&frame(2, &datagrams::ping(1, i, 7)), None), "frame {i}");
        bench.lane.turn();
        bench.kernel.transmit(u32::MAX);
        bench.assert_conserved();
    }
    assert_eq!(bench.counters.exits(Exit::Ping), 100);
    assert_eq!(bench.kernel.transmitted, u64::from(TX_FRAMES));
    bench.settle();
    assert_eq!(bench.kernel.transmitted, u64::from(2 * TX_FRAMES));
    for _ in 0..20 {
        assert!(bench.answers_ping());
    }
}

/// With TX as large as all of FILL, replies that wait can hold every frame but
/// those of one TX ring; they come back.
#[test]
fn replies_that_hold_every_frame_give_them_back() {
    let mut bench = Bench::with_rings(u32::MAX - 3, 4, 16);
    let mut delivered = 0;
    while bench.kernel.deliver(&frame(2, &datagrams::ping(1, delivered, 7)), None) {
        delivered += 1;
        bench.lane.turn();
        bench.kernel.transmit(u32::MAX);
        bench.assert_conserved();
        assert!(delivered < 1_000);
    }
    assert_eq!(delivered, u64::from(bench.frames), "each frame received once");
    bench.lane.turn();
    bench.settle();
    for _ in 0..100 {
        assert!(bench.answers_ping());
    }
}

#[test]
fn alien_addresses_are_counted_and_harm_nothing() {
    let mut bench = Bench::new(5);
    let end = u64::from(bench.frames * FRAME_BYTES);
    for address in [end, end + 1, u64::MAX] {
        assert!(bench.kernel.announce(address, 114));
        bench.lane.turn();
    }
    assert!(bench.kernel.completion.push(end));
    bench.kernel.completion.publish();
    bench.settle();
    assert_eq!(bench.counters.alien_frames.get(), 4);
    assert_eq!(
        bench.counters.exits(Exit::LaneDisagrees),
        3,
        "a frame was taken, so it has an exit"
    );
    assert!(bench.answers_ping());
}

/// Cursors more than a ring ahead give nothing, and the lane neither spins on
/// them nor counts frames that it did not take.
#[test]
fn insane_kernel_cursors_give_nothing() {
    let mut bench = Bench::new(u32::MAX);
    let (_, rx, _, completion) = &mut bench.kernel.watch;
    rx.store_producer(1_000);
    completion.store_producer(u32::MAX - 1);
    assert_eq!(bench.lane.turn(), 0);
    assert_eq!(bench.lane.port().waiting(), 0);
    assert_eq!((bench.counters.frames.get(), bench.counters.exits_sum()), (0, 0));
    let (_, rx, _, completion) = &mut bench.kernel.watch;
    rx.store_producer(u32::MAX);
    completion.store_producer(u32::MAX);
    assert!(bench.answers_ping());
}

#[test]
fn acks_of_one_sender_share_a_frame() {
    let mut bench = Bench::new(u32::MAX);
    for (from, sequence) in [(2, 0), (2, 1), (2, 2), (4, 3)] {
        let events = datagrams::events(1, sequence, Mode::None, 3);
        assert!(bench.kernel.deliver(&frame(from, &events), None));
    }
    bench.settle();
    let mut entries: Vec<u16> = Vec::new();
    for reply in &bench.kernel.replies {
        let Ok((header, Reply::Ack(acks))) = decode_reply(reply, crc32c::crc32c) else {
            panic!("not an ack")
        };
        assert_eq!(acks.count(), usize::from(header.count));
        entries.push(header.count);
    }
    entries.sort_unstable();
    assert_eq!(entries, [1, 3]);
    assert_eq!(bench.counters.replies.coalesced.get(), 2);
}

/// Senders that differ only in host or port fall into different slots of a
/// small table.
#[test]
fn flow_hashes_differ_in_their_low_bits() {
    let hash = |host: u8, port: u16| {
        let mut packet = frame(2, &datagrams::ping(1, 0, 0));
        packet[29] = host;
        packet[34..36].copy_from_slice(&port.to_be_bytes());
        let mut bench = Bench::new(0);
        bench.kernel.deliver(&packet, None);
        let mut packets = Vec::with_capacity(1);
        let port = bench.lane.port_mut();
        port.receive(&mut packets, 1, &mut |_| {});
        port.flow_hash(&packets[0]) % 32
    };
    let hosts: BTreeSet<u32> = (1..=64).map(|host| hash(host, 1_000)).collect();
    let ports: BTreeSet<u32> = (1..=64).map(|port| hash(1, 40_000 + port)).collect();
    assert!(hosts.len() >= 16 && ports.len() >= 16, "{} and {} of 32", hosts.len(), ports.len());
}

/// After start a lane's turn asks nothing of the allocator, whatever arrives
/// and however the kernel lags.
#[test]
fn a_turn_allocates_nothing() {
    let mut bench = Bench::new(u32::MAX - 100);
    let arrivals = [
        Arrival::Ping(1),
        Arrival::Events(2, 24),
        Arrival::Events(2, 1),
        Arrival::Hello(3),
        Arrival::Durable(2),
        Arrival::Damaged(0),
        Arrival::Bytes(vec![7; 90]),
        Arrival::Truncated(60),
        Arrival::Longer(4_000),
        Arrival::Alien(5),
    ];
    bench.kernel.ask_for_wakeup(true);
    let mut calls = allocator::Calls { allocations: 0, deallocations: 0 };
    for i in 0..10_000u64 {
        bench.arrive(&arrivals[i as usize % arrivals.len()], i);
        if i % 3 == 0 {
            let before = allocator::calls();
            bench.lane.turn();
            bench.lane.turn();
            let after = allocator::calls();
            calls.allocations += after.allocations - before.allocations;
            calls.deallocations += after.deallocations - before.deallocations;
        }
        if i % 50 < 20 {
            bench.kernel.transmit(3);
            bench.kernel.complete(2);
        }
    }
    assert_eq!(calls, allocator::Calls { allocations: 0, deallocations: 0 });
    bench.settle();
    assert!(bench.counters.frames.get() > 9_000);
    assert!(bench.counters.replies.dropped_tx_full.get() > 100);
}
