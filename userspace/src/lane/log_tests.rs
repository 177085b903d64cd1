//! Lanes with a log, whose control core is scripted: it commits what lanes
//! sealed, in the order it likes and when it likes.

use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use rtrb::RingBuffer;
use veltrix_abi::kinds::EventKind;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::{Event, Reply, decode_reply};

use super::link::{ControlEnds, LaneCommand, LaneReport, link};
use super::reads::mesh;
use super::tests::{FakePort, Flow};
use super::*;
use crate::apply::PartitionLimits;
use crate::apply::games::{ClassCounts, Latency};
use crate::base::waker::Waker;
use crate::batch::{BatchBuf, BatchView, Payload};
use crate::dedupe::{DedupeLimits, Secret};
use crate::index::IndexLimits;

pub(super) const PARTITIONS: u16 = 8;

/// Log time of all entries; keys are stamped with it.
const NOW_MS: u64 = 1_700_000_000_000;

pub(super) fn limits() -> PartitionLimits {
    PartitionLimits {
        index: IndexLimits {
            cells_max: 200,
            players_max: 500,
            hunts_max: 16,
            definitions_max: 16,
            deeds_max: 100,
        },
        dedupe: DedupeLimits { keys_max: 20_000, window_ms: 60_000 },
    }
}

pub(super) fn partitions() -> Vec<Option<Box<Partition>>> {
    let secret = std::array::from_fn(|i| (i as u8).wrapping_mul(151) ^ 0x5a);
    let secret = Arc::new(Secret::new(secret));
    let new = |n| Partition::new(n, &limits(), Arc::clone(&secret)).unwrap();
    (0..PARTITIONS).map(|n| Some(Box::new(new(n)))).collect()
}

/// The control core of some lanes.
pub(super) struct Control {
    pub(super) ends: Vec<ControlEnds>,
    pub(super) facts: Arc<LogFacts>,
    pub(super) epoch: u64,
    /// Sealed and not committed.
    pub(super) sealed: Vec<Arc<BatchBuf>>,
}

impl Control {
    /// Rings for `lanes` lanes, of which lane 0 owns everything.
    pub(super) fn new(lanes: usize, batches: usize) -> (Self, Vec<LogHalfSpec>) {
        let waker = Arc::new(Waker::new().unwrap());
        let (mut lane_ends, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..lanes {
            let (lane, control) = link(batches, PARTITIONS, Arc::clone(&waker)).unwrap();
            lane_ends.push(lane);
            ends.push(control);
        }
        let links: Arc<[_]> = ends.iter().map(|e: &ControlEnds| Arc::clone(&e.link)).collect();
        let facts = Arc::new(LogFacts::default());
        facts.ready.store(true, Relaxed);
        facts.replayed.store(true, Relaxed);
        let owner_of: Arc<[AtomicU16]> = (0..PARTITIONS).map(|_| AtomicU16::new(0)).collect();
        let (reads, _) = mesh(lanes, lanes, &owner_of);
        let mut state = partitions();
        let specs = lane_ends
            .into_iter()
            .zip(reads)
            .enumerate()
            .map(|(lane, (ends, reads))| LogHalfSpec {
                lane: lane as u32,
                life: 5,
                partitions: PARTITIONS,
                batches,
                deadline: Duration::from_secs(3_600),
                ends,
                facts: Arc::clone(&facts),
                lanes: Arc::clone(&links),
                owned: state.iter_mut().map(|s| if lane == 0 { s.take() } else { None }).collect(),
                images: None,
                epoch: 0,
                reads,
            })
            .collect();
        (Self { ends, facts, epoch: 0, sealed: Vec::new() }, specs)
    }

    /// Takes what lanes have sealed.
    pub(super) fn collect(&mut self) {
        for ends in &mut self.ends {
            while let Ok(batch) = ends.submissions.pop() {
                self.sealed.push(batch);
            }
        }
    }

    /// Commits one batch: every lane owns some state.
    pub(super) fn commit(&mut self, batch: Arc<BatchBuf>) {
        self.epoch += 1;
        batch.slots().committed(self.epoch, self.ends.len() as u32);
        for ends in &mut self.ends {
            let command = LaneCommand::Apply {
                epoch: self.epoch,
                log_time_ns: NOW_MS * 1_000_000,
                batch: Some(Payload::Pooled(Arc::clone(&batch))),
            };
            assert!(ends.commands.push(command).is_ok());
        }
    }

    /// Commits all that was sealed.
    pub(super) fn commit_all(&mut self) {
        self.collect();
        for batch in std::mem::take(&mut self.sealed) {
            self.commit(batch);
        }
    }
}

/// A key of log time, told apart by `n`.
pub(super) fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..6].copy_from_slice(&NOW_MS.to_be_bytes()[2..]);
    key[6] = 0x70;
    key[8] = 0x80;
    key[9..].copy_from_slice(&n.to_be_bytes()[1..]);
    key
}

pub(super) fn credit(n: u64) -> Event<'static> {
    Event {
        key: key(n),
        player: n % 10,
        subject: 0,
        argument: 5,
        kind: EventKind::WalletCredit.code(),
        reserved: 0,
        payload: &[],
    }
}

pub(super) fn datagram(mode: Mode, domain: u64, sequence: u64, events: &[Event<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    for event in events {
        let at = bytes.len();
        bytes.resize(at + event.wire_bytes(), 0);
        event.write(&mut bytes[at..]);
    }
    let header = Header {
        mode: mode as u8,
        count: events.len() as u16,
        session: 9,
        sequence,
        domain,
        ..Header::new(Kind::Events)
    };
    header.write(&mut bytes);
    wire::finish(&mut bytes, crc_fast::crc32_iscsi);
    bytes
}

pub(super) fn lane(spec: LogHalfSpec) -> Lane<FakePort> {
    super::tests::lane().with_log(spec)
}

/// Flow, sequence, epoch, mode, outcomes, epochs of duplicates.
pub(super) type AckSeen = (Flow, u64, u64, Mode, Vec<u8>, Vec<u64>);

impl Lane<FakePort> {
    pub(super) fn deliver(&mut self, flow: Flow, datagram: Vec<u8>) {
        self.port.incoming.push_back((flow, datagram));
    }

    /// Ack entries sent so far: flow, sequence, epoch, mode, outcomes, epochs of
    /// duplicates.
    pub(super) fn acks(&mut self) -> Vec<AckSeen> {
        let mut all = Vec::new();
        for (flow, bytes) in std::mem::take(&mut self.port.sent) {
            let Ok((_, Reply::Ack(acks))) = decode_reply(&bytes, crc_fast::crc32_iscsi) else {
                panic!("not an ack")
            };
            for ack in acks {
                let epochs = ack.duplicate_epochs().collect();
                all.push((flow, ack.sequence, ack.epoch, ack.mode, ack.outcomes.to_vec(), epochs));
            }
        }
        all.sort_by_key(|a| a.1);
        all
    }

    /// Every event and every reply is in exactly one count.
    pub(super) fn assert_log_closed(&self) {
        let c = &self.counters;
        let r = &c.replies;
        let owed: u64 =
            Exit::ALL.iter().filter(|e| e.action() == Action::Reply).map(|e| c.exits(*e)).sum();
        let fates =
            [&r.sent, &r.coalesced, &r.dropped_tx_full, &r.withheld, &c.acks.pending, &c.acks.lost];
        assert_eq!(owed, fates.iter().map(|f| f.get()).sum::<u64>());
        let outcomes: u64 = Outcome::ALL.iter().map(|o| c.outcomes(*o)).sum();
        let parts =
            [outcomes, c.duplicates.get(), c.acks.events_pending.get(), c.acks.events_lost.get()];
        assert_eq!(c.events.get(), parts.iter().sum::<u64>());
        assert_eq!(self.port.alive, 0);
    }
}

const APPLIED: u8 = Outcome::Applied as u8;

#[test]
fn an_event_is_answered_when_it_is_committed_and_applied() {
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    lane.deliver(3, datagram(Mode::Durable, 42, 1, &[credit(1), credit(2)]));
    lane.turn();
    lane.assert_log_closed();
    assert!(lane.acks().is_empty(), "not durable yet");
    control.collect();
    let batch = control.sealed.remove(0);
    let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
    let range = view.ranges().next().unwrap();
    assert_eq!((range.partition, range.events), (partition_of(42, PARTITIONS), 2));
    lane.turn();
    assert!(lane.acks().is_empty(), "durable or not, it is not committed");
    control.commit(batch);
    lane.turn();
    assert_eq!(lane.acks(), [(3, 1, 1, Mode::Durable, vec![APPLIED; 2], vec![])]);
    lane.assert_log_closed();
    assert_eq!(lane.counters.outcomes(Outcome::Applied), 2);
}

#[test]
fn a_duplicate_is_answered_with_its_first_outcome_and_epoch() {
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    for sequence in 1..=3 {
        lane.deliver(3, datagram(Mode::Durable, 42, sequence, &[credit(1), credit(9 + sequence)]));
        lane.turn();
        control.commit_all();
        lane.turn();
    }
    let acks = lane.acks();
    assert_eq!(acks[0], (3, 1, 1, Mode::Durable, vec![APPLIED; 2], vec![]));
    assert_eq!(acks[2], (3, 3, 3, Mode::Durable, vec![APPLIED | DUPLICATE_BIT, APPLIED], vec![1]));
    assert_eq!(lane.counters.duplicates.get(), 2);
    lane.assert_log_closed();
}

#[test]
fn what_is_applied_is_sampled_while_somebody_watches() {
    let (mut control, mut specs) = Control::new(2, 4);
    // Lane 0 owns everything, lane 1 receives.
    let mut receives = lane(specs.remove(1));
    let mut owns = lane(specs.remove(0));
    for (sequence, watched) in [(1, false), (2, true), (3, false)] {
        for ends in &control.ends {
            ends.link.watch.wanted.store(watched, Relaxed);
        }
        let (kind, subject) = (EventKind::Claim.code(), 77);
        let claim = Event { kind, subject, argument: 0, ..credit(10 + sequence) };
        receives.deliver(3, datagram(Mode::Durable, 42, sequence, &[claim, credit(1)]));
        receives.turn();
        control.commit_all();
        owns.turn();
        receives.turn();
    }
    assert_eq!(receives.acks().len(), 3);
    let mut rings = control.ends.iter_mut().map(|ends| &mut ends.samples);
    let of_owner = rings.next().unwrap();
    let samples: Vec<_> = std::iter::from_fn(|| of_owner.pop().ok()).collect();
    let seen: Vec<_> = samples
        .iter()
        .map(|s| (s.epoch, s.domain, s.player, s.subject, s.kind, s.outcome, s.first_epoch))
        .collect();
    let (claim, credit) = (EventKind::Claim.code(), EventKind::WalletCredit.code());
    let not_found = Outcome::NotFound.code();
    assert_eq!(
        seen,
        [(2, 42, 2, 77, claim, not_found, 0), (2, 42, 1, 0, credit, APPLIED | DUPLICATE_BIT, 1)]
    );
    let s = samples[0];
    assert!(s.sealed_ns > 0 && s.sealed_ns <= s.applied_ns, "{s:?}");
    assert!(rings.all(|ring| ring.is_empty()), "a lane that owns nothing has seen nothing applied");
}

/// Sends datagrams of `flows` in turn, in each of two batches; gives the datagrams
/// that the last was answered with. The second batch has the flows in other order:
/// who stood where in the first must be forgotten.
fn datagrams_that_answer(flows: &[Flow]) -> usize {
    const ROUNDS: u64 = 4;
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    let mut datagrams = 0;
    let mut sequence = 0;
    let mut flows = flows.to_vec();
    for epoch in 1..=2 {
        let mut sent = Vec::new();
        for flow in (0..ROUNDS).flat_map(|_| flows.clone()) {
            sequence += 1;
            sent.push((flow, sequence, epoch, Mode::Durable, vec![APPLIED], vec![]));
            lane.deliver(flow, datagram(Mode::Durable, 42, sequence, &[credit(sequence)]));
        }
        lane.turn();
        control.commit_all();
        lane.turn();
        datagrams = lane.port.sent.len();
        assert_eq!(lane.acks(), sent);
        lane.assert_log_closed();
        flows.reverse();
    }
    datagrams
}

#[test]
fn answers_to_one_sender_share_a_datagram_whoever_sends_in_between() {
    // These three would meet in one slot of open acks.
    assert_eq!(datagrams_that_answer(&[1, 257, 513]), 3);
    // The same hash: two find a place, the others are answered in turn.
    assert_eq!(datagrams_that_answer(&[1, 4_097]), 2);
    assert_eq!(datagrams_that_answer(&[1, 4_097, 8_193, 12_289]), 2 + 8);
}

#[test]
fn sessions_of_one_address_are_answered_apart() {
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    for sequence in 1..=8 {
        let mut bytes = datagram(Mode::Durable, 42, sequence, &[credit(sequence)]);
        let session = sequence % 2;
        bytes[16..24].copy_from_slice(&session.to_le_bytes());
        wire::finish(&mut bytes, crc_fast::crc32_iscsi);
        lane.deliver(3, bytes);
    }
    lane.turn();
    control.commit_all();
    lane.turn();
    let sent = std::mem::take(&mut lane.port.sent);
    assert_eq!(sent.len(), 2);
    for (_, bytes) in sent {
        let Ok((header, Reply::Ack(acks))) = decode_reply(&bytes, crc_fast::crc32_iscsi) else {
            panic!("not an ack")
        };
        let sequences: Vec<u64> = acks.map(|ack| ack.sequence).collect();
        assert_eq!(sequences.len(), 4);
        assert!(sequences.iter().all(|s| s % 2 == header.session), "{sequences:?}");
    }
    lane.assert_log_closed();
}

#[test]
fn while_a_batch_is_in_flight_the_next_one_fills() {
    let (mut control, mut specs) = Control::new(1, 64);
    let mut lane = lane(specs.remove(0));
    for sequence in 1..=400u64 {
        let events: Vec<_> = (0..24).map(|i| credit(sequence * 24 + i)).collect();
        lane.deliver(1, datagram(Mode::Durable, sequence % 5, sequence, &events));
    }
    while lane.turn() > 0 {}
    control.collect();
    // How many depends on how long the turns took: the first is full or a quarter of a
    // millisecond old, and none was sealed for one datagram while another was
    // in flight.
    assert!((1..=60).contains(&control.sealed.len()), "{}", control.sealed.len());
    for batch in &control.sealed {
        BatchView::check(batch.bytes(), PARTITIONS).unwrap();
    }
    for _ in 0..60 {
        control.commit_all();
        while lane.turn() > 0 {}
    }
    assert_eq!(lane.acks().len(), 400);
    assert_eq!(lane.counters.outcomes(Outcome::Applied), 400 * 24);
    lane.assert_log_closed();
}

#[test]
fn batches_that_are_hardly_filled_do_not_use_up_the_buffers() {
    let (mut control, mut specs) = Control::new(1, 16);
    let mut lane = lane(specs.remove(0));
    for sequence in 1..=40 {
        lane.deliver(1, datagram(Mode::Durable, 1, sequence, &[credit(sequence)]));
        lane.turn();
        std::thread::sleep(Duration::from_micros(300));
        lane.turn();
    }
    control.collect();
    assert!((1..=5).contains(&control.sealed.len()), "{}", control.sealed.len());
    assert_eq!(lane.counters.exits(Exit::Shed), 0);
    // The last one is sealed when those before it are done.
    for _ in 0..2 {
        control.commit_all();
        while lane.turn() > 0 {}
        std::thread::sleep(Duration::from_micros(300));
        lane.turn();
    }
    assert_eq!(lane.acks().len(), 40);
    lane.assert_log_closed();
}

#[test]
fn events_are_refused_before_they_join_and_never_after() {
    let (mut control, mut specs) = Control::new(1, 2);
    let mut lane = lane(specs.remove(0));
    control.facts.ready.store(false, Relaxed);
    lane.deliver(1, datagram(Mode::Durable, 1, 1, &[credit(1)]));
    lane.turn();
    assert_eq!(lane.counters.exits(Exit::Shed), 1, "the log is being replayed");
    assert_eq!(lane.counters.outcomes(Outcome::Overloaded), 1);
    control.facts.ready.store(true, Relaxed);
    // Two buffers: both in flight, so the third batch finds none.
    for sequence in 2..=700 {
        let events: Vec<_> = (0..24).map(|i| credit(sequence * 24 + i)).collect();
        lane.deliver(1, datagram(Mode::Durable, 1, sequence, &events));
    }
    while lane.turn() > 0 {}
    let shed = lane.counters.exits(Exit::Shed);
    assert!((100..700).contains(&shed), "{shed}");
    lane.assert_log_closed();
    lane.port.sent.clear();
    control.commit_all();
    while lane.turn() > 0 {}
    assert_eq!(lane.acks().len() as u64, 700 - shed);
    lane.assert_log_closed();
}

#[test]
fn a_lost_batch_is_answered_with_silence() {
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    lane.deliver(1, datagram(Mode::Durable, 1, 1, &[credit(1), credit(2)]));
    lane.turn();
    control.collect();
    control.sealed.remove(0).slots().lost();
    lane.turn();
    assert!(lane.acks().is_empty());
    let acks = &lane.counters.acks;
    assert_eq!((acks.lost.get(), acks.events_lost.get(), acks.pending.get()), (1, 2, 0));
    lane.assert_log_closed();
    // The same keys again: they were never applied.
    lane.deliver(1, datagram(Mode::Durable, 1, 2, &[credit(1), credit(2)]));
    lane.turn();
    control.commit_all();
    lane.turn();
    assert_eq!(lane.acks(), [(1, 2, 1, Mode::Durable, vec![APPLIED; 2], vec![])]);
}

#[test]
fn telemetry_is_answered_at_once_and_applied_later() {
    let (mut control, mut specs) = Control::new(1, 4);
    let mut lane = lane(specs.remove(0));
    lane.deliver(1, datagram(Mode::None, 1, 1, &[credit(1)]));
    lane.turn();
    assert_eq!(lane.acks(), [(1, 1, 0, Mode::None, vec![Outcome::Accepted as u8], vec![])]);
    control.commit_all();
    lane.turn();
    assert!(lane.acks().is_empty(), "one answer is enough");
    // It was applied: its key is known.
    lane.deliver(1, datagram(Mode::Durable, 1, 2, &[credit(1)]));
    lane.turn();
    control.commit_all();
    lane.turn();
    assert_eq!(lane.acks()[0].4, [APPLIED | DUPLICATE_BIT]);
    lane.assert_log_closed();
}

/// A partition goes from lane to lane while both receive: every event is
/// applied once, by whoever owns it then, and answered by whoever received it.
/// The last owner lets go of the batch while the lane that owes its answers takes in the
/// next events.
#[test]
fn a_batch_is_not_written_over_before_it_is_answered() {
    let (mut control, specs) = Control::new(2, 4);
    let mut lanes = specs.into_iter().map(lane);
    let (mut owner, mut other) = (lanes.next().unwrap(), lanes.next().unwrap());
    other.deliver(1, datagram(Mode::Durable, 42, 1, &[credit(1)]));
    other.turn();
    control.commit_all();
    other.turn();
    assert!(other.acks().is_empty(), "the owner of the hunt has not applied it");
    owner.turn();
    let spend = Event { kind: EventKind::WalletSpend.code(), argument: 99, ..credit(2) };
    other.deliver(1, datagram(Mode::Durable, 42, 2, &[spend]));
    other.turn();
    let outcomes = |lane: &mut Lane<FakePort>| {
        let acks = lane.acks().into_iter();
        acks.map(|(_, sequence, epoch, _, outcomes, _)| (sequence, epoch, outcomes))
            .collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&mut other), [(1, 1, vec![Outcome::Applied.code()])]);
    control.commit_all();
    other.turn();
    owner.turn();
    other.turn();
    assert_eq!(outcomes(&mut other), [(2, 2, vec![Outcome::InsufficientFunds.code()])]);
    other.assert_log_closed();
}

#[test]
fn an_event_whose_outcome_comes_late_is_counted_as_late() {
    let (mut control, specs) = Control::new(1, 4);
    let mut owner = lane(specs.into_iter().next().unwrap());
    owner.deliver(1, datagram(Mode::Durable, 42, 1, &[credit(1), credit(2)]));
    owner.turn();
    // Nobody has opened the hunt: it is played as free-roam.
    std::thread::sleep(Latency::Interactive.target() + Duration::from_millis(1));
    control.commit_all();
    owner.turn();
    control.ends[0].link.stages_wanted.store(true, Relaxed);
    owner.turn();
    let mut reports = std::iter::from_fn(|| control.ends[0].reports.pop().ok());
    let classes = reports.find_map(|report| match report {
        LaneReport::Measured { classes, .. } => Some(classes),
        _ => None,
    });
    assert_eq!(classes, Some(ClassCounts { events: [2, 0], late: [2, 0] }));
}

#[test]
fn a_partition_moves_between_two_epochs_under_traffic() {
    let (mut control, specs) = Control::new(2, 8);
    let mut lanes: Vec<_> = specs.into_iter().map(lane).collect();
    let domain = 42;
    let partition = partition_of(domain, PARTITIONS);
    let mut owner = 0;
    let mut sequence = 0;
    for round in 0..40 {
        for lane in &mut lanes {
            sequence += 1;
            lane.deliver(
                1,
                datagram(Mode::Durable, domain, sequence, &[credit(sequence), credit(1)]),
            );
            lane.turn();
        }
        control.collect();
        let mut sealed = std::mem::take(&mut control.sealed);
        if let Some(first) = sealed.drain(..1).next() {
            control.commit(first);
        }
        if round % 3 == 0 {
            let (to, from) = RingBuffer::new(1);
            let release = LaneCommand::Release { partition, to };
            assert!(control.ends[owner].commands.push(release).is_ok());
            owner = 1 - owner;
            let adopt = LaneCommand::Adopt { partition, from };
            assert!(control.ends[owner].commands.push(adopt).is_ok());
        }
        sealed.into_iter().for_each(|batch| control.commit(batch));
        // The new owner may be asked first: it waits.
        let first = round % 2;
        for _ in 0..6 {
            lanes[first].turn();
            lanes[1 - first].turn();
        }
    }
    let mut outcomes: Vec<_> = lanes.iter_mut().flat_map(Lane::acks).collect();
    outcomes.sort_by_key(|a| a.1);
    assert_eq!(outcomes.len(), 80);
    for (_, sequence, epoch, _, outcome, firsts) in outcomes {
        let both_new = sequence == 1;
        if both_new {
            // Its two events have one key.
            assert_eq!(outcome, [APPLIED, APPLIED | DUPLICATE_BIT]);
        } else {
            assert_eq!(
                (outcome, firsts),
                (vec![APPLIED, APPLIED | DUPLICATE_BIT], vec![1]),
                "{sequence}"
            );
        }
        assert!(epoch >= 1);
    }
    lanes.iter().for_each(Lane::assert_log_closed);
    let mut adopted = 0;
    for ends in &mut control.ends {
        while let Ok(report) = ends.reports.pop() {
            adopted += u32::from(matches!(report, LaneReport::Adopted { .. }));
        }
        assert_eq!(ends.link.applied_epoch(), control.epoch);
    }
    assert_eq!(adopted, 14);
}
