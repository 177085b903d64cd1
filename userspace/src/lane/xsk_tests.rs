//! A lane on an AF_XDP port whose kernel is a script, over rings whose cursors
//! start near the wrap: no frame is lost or doubled, every count adds up, and
//! nothing is asked of the allocator.

use proptest::prelude::*;
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
use veltrix_abi::wire::{Reply, decode_reply};

use super::tests::datagrams;
use super::*;
use crate::xsk::XskPort;
use crate::xsk::scripted::{FRAME_BYTES, Kernel, PORT, frame, port_and_kernel};

#[path = "../../tests/support/allocator.rs"]
mod allocator;

#[global_allocator]
static COUNTING: allocator::Counting = allocator::Counting;

const RX_FRAMES: u32 = 8;
const TX_FRAMES: u32 = 4;

struct Bench {
    lane: Lane<XskPort>,
    counters: Arc<LaneCounters>,
    kernel: Kernel,
}

impl Bench {
    fn new(cursor: u32) -> Self {
        Self::with_rings(cursor, RX_FRAMES, TX_FRAMES)
    }

    fn with_rings(cursor: u32, rx_frames: u32, tx_frames: u32) -> Self {
        let counters = Arc::new(LaneCounters::default());
        let (port, kernel) = port_and_kernel(cursor, rx_frames, tx_frames, &counters);
        let facts = ServerFacts {
            partitions: 64,
            lanes: 1,
            port: PORT,
            payload_bytes_max: PAYLOAD_BYTES_MAX_DEFAULT as u16,
        };
        let admission = Admission::new(Duration::from_secs(3_600));
        let lane = Lane::new(port, facts, admission, 4, Arc::clone(&counters));
        Self { lane, counters, kernel }
    }

    fn owed(&self) -> u64 {
        let owing = Exit::ALL.iter().filter(|e| e.action() == Action::Reply);
        owing.map(|e| self.counters.exits(*e)).sum()
    }

    /// Every frame is in exactly one place, and every count adds up.
    fn assert_conserved(&self) {
        let k = &self.kernel;
        k.assert_frames_conserved(self.lane.port());
        let c = &self.counters;
        assert_eq!(c.frames.get() + k.rx_waiting(), k.delivered);
        assert_eq!(c.exits_sum(), c.frames.get());
        let r = &c.replies;
        assert_eq!(r.sent.get(), k.transmitted + k.tx_waiting());
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
                let end = u64::from(kernel.frames * FRAME_BYTES);
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
            Step::Wait => self.lane.port.wait(Duration::ZERO, None),
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
        let at_rest = bench.kernel.frames_at_rest(bench.lane.port());
        prop_assert_eq!(at_rest, bench.kernel.frames as usize, "no frame is left in TX or COMPLETION");
        for reply in &bench.kernel.replies {
            prop_assert!(decode_reply(reply, crc_fast::crc32_iscsi).is_ok());
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

/// With TX twice as large as FILL, replies that wait can hold every frame but
/// those kept for acks; they come back.
#[test]
fn replies_that_hold_every_frame_give_them_back() {
    let (rx_frames, tx_frames) = (4, 16);
    let mut bench = Bench::with_rings(u32::MAX - 3, rx_frames, tx_frames);
    let mut delivered = 0;
    while bench.kernel.deliver(&frame(2, &datagrams::ping(1, delivered, 7)), None) {
        delivered += 1;
        bench.lane.turn();
        bench.kernel.transmit(u32::MAX);
        bench.assert_conserved();
        assert!(delivered < 1_000);
    }
    assert_eq!(delivered, 2 * u64::from(rx_frames), "each frame of FILL received once");
    bench.lane.turn();
    bench.settle();
    for _ in 0..100 {
        assert!(bench.answers_ping());
    }
}

#[test]
fn alien_addresses_are_counted_and_harm_nothing() {
    let mut bench = Bench::new(5);
    let end = u64::from(bench.kernel.frames * FRAME_BYTES);
    for address in [end, end + 1, u64::MAX] {
        assert!(bench.kernel.announce(address, 114));
        bench.lane.turn();
    }
    bench.kernel.complete_alien(end);
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
    bench.kernel.jump(1_000, u32::MAX - 1);
    assert_eq!(bench.lane.turn(), 0);
    assert_eq!(bench.lane.port().waiting(), 0);
    assert_eq!((bench.counters.frames.get(), bench.counters.exits_sum()), (0, 0));
    bench.kernel.jump(u32::MAX, u32::MAX);
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
        let Ok((header, Reply::Ack(acks))) = decode_reply(reply, crc_fast::crc32_iscsi) else {
            panic!("not an ack")
        };
        assert_eq!(acks.count(), usize::from(header.count));
        entries.push(header.count);
    }
    entries.sort_unstable();
    assert_eq!(entries, [1, 3]);
    assert_eq!(bench.counters.replies.coalesced.get(), 2);
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

/// Nor with a log: events into batches, batches applied and answered, digests
/// reported, histograms exchanged, partitions captured.
#[test]
fn a_turn_with_a_log_allocates_nothing() {
    use super::link::LaneCommand;
    use super::log_tests::{Control, credit, datagram, limits, partitions};
    use crate::snapshot::{Identity, SnapshotWriter, WriterOptions};

    let dir = std::env::temp_dir().join(format!("veltrix-lane-allocations-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let options = WriterOptions {
        dir: dir.join("snapshots"),
        identity: Identity {
            cluster_id: 1,
            node: 1,
            partitions: super::log_tests::PARTITIONS,
            secret_digest: 1,
            limits: crate::snapshot::Limits {
                cells_max: limits().index.cells_max,
                players_max: limits().index.players_max,
                hunts_max: limits().index.hunts_max,
                definitions_max: limits().index.definitions_max,
                deeds_max: limits().index.deeds_max,
                dedupe_keys_max: limits().dedupe.keys_max,
                dedupe_window_ms: limits().dedupe.window_ms,
            },
        },
        bytes_per_s: None,
        refused: Vec::new(),
    };
    let images = vec![vec![PartitionImage::new(&limits()).unwrap()]];
    let no_anchor = Box::new(|_| Err(std::io::Error::other("none")));
    let (mut writer, mut lanes) =
        SnapshotWriter::start(&options, images, no_anchor, Box::new(|_| {})).unwrap();

    let (mut control, mut specs) = Control::new(1, 4);
    let mut spec = specs.remove(0);
    spec.owned = partitions();
    spec.images = lanes.pop();
    let mut bench = Bench::with_rings(u32::MAX - 100, 64, 64);
    bench.lane = Lane { log: Some(LogHalf::new(spec)), ..bench.lane };
    let mut calls = allocator::Calls { allocations: 0, deallocations: 0 };
    for i in 0..6_000u64 {
        let events = [credit(2 * i), credit(2 * i + 1), credit(i)];
        let bytes = datagram(Mode::Durable, i % 9, i, &events);
        bench.kernel.deliver(&frame((i % 5) as u16, &bytes), None);
        if i == 1_000 {
            let round = writer.begin(1);
            assert!(control.ends[0].commands.push(LaneCommand::Capture { round }).is_ok());
        }
        if i % 1_000 == 500 {
            control.ends[0].link.stages_wanted.store(true, Relaxed);
        }
        let before = allocator::calls();
        bench.lane.turn();
        bench.lane.turn();
        let after = allocator::calls();
        calls.allocations += after.allocations - before.allocations;
        calls.deallocations += after.deallocations - before.deallocations;
        if i % 3 == 0 {
            control.commit_all();
        }
        while control.ends[0].reports.pop().is_ok() {}
        bench.kernel.transmit(8);
        bench.kernel.complete(8);
    }
    writer.stop();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(calls, allocator::Calls { allocations: 0, deallocations: 0 });
    let counted = &bench.counters;
    assert!(control.epoch > 1_024, "digests were reported: {}", control.epoch);
    assert!(counted.outcomes(Outcome::Applied) > 5_000, "{}", counted.outcomes(Outcome::Applied));
    assert!(counted.duplicates.get() > 1_000);
}
