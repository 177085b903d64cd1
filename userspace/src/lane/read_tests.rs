//! Queries to lanes: of their own partitions and of those of others.

use std::sync::atomic::Ordering::Relaxed;

use veltrix_abi::partition::partition_of;
use veltrix_abi::query::{Entries, PlayerRow, QUERY_BYTES, QUERY_HEAD_BYTES};
use veltrix_abi::query::{Queries, Query, QueryStatus, Row as _, Wanted as Asked};
use veltrix_abi::wire::{Reply, decode_reply};

use super::link::LaneCommand;
use super::log_tests::{Control, PARTITIONS, credit, datagram, lane};
use super::reads::JOBS;
use super::tests::{FakePort, Flow};
use super::*;

/// A query for player `player` of hunt 42, with room for the answer.
fn query(sequence: u64, player: u64, min_epoch: u64) -> Vec<u8> {
    query_in(42, sequence, player, min_epoch)
}

fn query_in(domain: u64, sequence: u64, player: u64, min_epoch: u64) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES + QUERY_HEAD_BYTES + QUERY_BYTES + PlayerRow::BYTES];
    let header = Header { count: 1, session: 9, sequence, domain, ..Header::new(Kind::Query) };
    header.write(&mut out);
    Queries::write_head(&mut out[HEADER_BYTES..], min_epoch);
    Query::of(&Asked::Player(player)).write(&mut out[HEADER_BYTES + QUERY_HEAD_BYTES..]);
    wire::finish(&mut out, crc_fast::crc32_iscsi);
    out
}

/// Flow, sequence, epoch, status, wallet of an answer.
type Told = (Flow, u64, u64, QueryStatus, Option<u64>);

fn told(lane: &mut Lane<FakePort>) -> Vec<Told> {
    let answers = std::mem::take(&mut lane.port.sent).into_iter();
    answers
        .map(|(flow, bytes)| {
            let (header, reply) = decode_reply(&bytes, crc_fast::crc32_iscsi).unwrap();
            let Reply::Answer(entries) = reply else { panic!("not an answer: {reply:?}") };
            let Entries { epoch, .. } = entries;
            let entry = { entries }.next().unwrap();
            let wallet = entry.rows::<PlayerRow>().next().map(|row| row.wallet);
            (flow, header.sequence, epoch, entry.head.status, wallet)
        })
        .collect()
}

/// Two lanes, of which the first owns everything; player 1 has 5.
fn two_lanes() -> (Control, Lane<FakePort>, Lane<FakePort>) {
    let (mut control, specs) = Control::new(2, 4);
    let mut lanes = specs.into_iter().map(lane);
    let (mut owner, mut other) = (lanes.next().unwrap(), lanes.next().unwrap());
    owner.deliver(1, datagram(Mode::Durable, 42, 1, &[credit(1)]));
    owner.turn();
    control.commit_all();
    owner.turn();
    other.turn();
    owner.turn();
    assert_eq!(owner.acks().len(), 1);
    (control, owner, other)
}

#[test]
fn a_lane_answers_for_its_own_partitions_at_once() {
    let (_control, mut owner, _) = two_lanes();
    owner.deliver(3, query(5, 1, 1));
    owner.deliver(4, query(6, 77, 0));
    owner.deliver(5, query(7, 1, 2));
    owner.turn();
    assert_eq!(
        told(&mut owner),
        [
            (3, 5, 1, QueryStatus::Found, Some(5)),
            (4, 6, 1, QueryStatus::NotFound, None),
            (5, 7, 1, QueryStatus::Behind, None),
        ]
    );
    assert_eq!(owner.counters.exits(Exit::Query), 3);
    owner.assert_log_closed();
}

#[test]
fn a_lane_asks_the_owner_of_a_partition_and_passes_the_answer_on() {
    let (_control, mut owner, mut other) = two_lanes();
    other.deliver(3, query(5, 1, 1));
    other.deliver(4, query(6, 77, 0));
    other.turn();
    assert!(told(&mut other).is_empty());
    assert_eq!(other.counters.acks.pending.get(), 2, "owed");
    other.assert_log_closed();
    owner.turn();
    other.turn();
    assert_eq!(
        told(&mut other),
        [(3, 5, 1, QueryStatus::Found, Some(5)), (4, 6, 1, QueryStatus::NotFound, None)]
    );
    assert_eq!(other.counters.exits(Exit::Query), 2);
    other.assert_log_closed();
    owner.assert_log_closed();
}

#[test]
fn what_is_applied_is_read_and_nothing_before() {
    let (mut control, mut owner, _) = two_lanes();
    owner.deliver(1, datagram(Mode::Durable, 42, 2, &[credit(11)]));
    owner.turn();
    owner.deliver(3, query(5, 1, 0));
    owner.turn();
    assert_eq!(told(&mut owner), [(3, 5, 1, QueryStatus::Found, Some(5))], "not committed yet");
    control.commit_all();
    owner.turn();
    owner.acks();
    owner.deliver(3, query(6, 1, 2));
    owner.turn();
    assert_eq!(told(&mut owner), [(3, 6, 2, QueryStatus::Found, Some(10))]);
}

/// Hunts of three partitions, in the order in which an entry is applied to them.
fn three_hunts() -> [u64; 3] {
    let hunt = |partition| (100..).find(|domain| partition_of(*domain, PARTITIONS) == partition);
    [1, 4, 6].map(|partition| hunt(partition).unwrap())
}

/// Two lanes, of which the first owns everything and applies in the least slices. An
/// entry, epoch 2, is begun: player 1 gets 5 thirty times in the first of three hunts and 100
/// times in the second, and two of the latter have been applied.
fn amid_an_entry() -> (Control, Lane<FakePort>, Lane<FakePort>) {
    let (mut control, mut owner, other) = two_lanes();
    owner.log.as_mut().unwrap().owner.set_least_slices();
    let [first, second, _] = three_hunts();
    let mut n = 1;
    for (domain, datagrams) in [(first, 3), (second, 10)] {
        for _ in 0..datagrams {
            let events: Vec<_> = (0..10).map(|i| credit(n * 1_000 + 10 * i + 1)).collect();
            owner.deliver(1, datagram(Mode::Durable, domain, 1 + n, &events));
            n += 1;
        }
    }
    owner.turn();
    control.commit_all();
    owner.turn();
    assert!(owner.acks().is_empty(), "not through");
    (control, owner, other)
}

#[test]
fn amid_an_entry_a_partition_is_read_as_before_or_as_after_it() {
    let (_control, mut owner, mut other) = amid_an_entry();
    let [first, second, third] = three_hunts();
    let ask = |lane: &mut Lane<FakePort>, at: u64| {
        lane.deliver(3, query_in(first, at, 1, 0));
        lane.deliver(4, query_in(second, at + 1, 1, 0));
        lane.deliver(5, query_in(third, at + 2, 1, 0));
        lane.deliver(6, query_in(first, at + 3, 1, 2));
        lane.turn();
    };
    ask(&mut owner, 10);
    assert_eq!(owner.port.early, 3, "answers do not wait for the slice that follows");
    ask(&mut other, 20);
    assert_eq!(
        told(&mut owner),
        [
            (3, 10, 2, QueryStatus::Found, Some(150)),
            (5, 12, 1, QueryStatus::NotFound, None),
            (6, 13, 2, QueryStatus::Found, Some(150)),
        ],
        "the second is half applied"
    );
    let mut answers = Vec::new();
    for left in (0..3).rev() {
        owner.assert_log_closed();
        other.assert_log_closed();
        assert_eq!(owner.counters.acks.pending.get(), 13 + 1, "13 datagrams and a query");
        owner.turn();
        other.turn();
        answers.append(&mut told(&mut other));
        assert_eq!(owner.acks_and(&mut answers), if left == 0 { 13 } else { 0 }, "{left}");
    }
    answers.sort_by_key(|told| told.1);
    assert_eq!(
        answers,
        [
            (4, 11, 2, QueryStatus::Found, Some(500)),
            (3, 20, 2, QueryStatus::Found, Some(150)),
            (4, 21, 2, QueryStatus::Found, Some(500)),
            (5, 22, 2, QueryStatus::NotFound, None),
            (6, 23, 2, QueryStatus::Found, Some(150)),
        ]
    );
    owner.assert_log_closed();
    other.assert_log_closed();
}

impl Lane<FakePort> {
    /// Acks sent so far, and all answers to queries into `answers`.
    fn acks_and(&mut self, answers: &mut Vec<Told>) -> usize {
        let is_ack = |(_, bytes): &(Flow, Vec<u8>)| {
            matches!(decode_reply(bytes, crc_fast::crc32_iscsi), Ok((_, Reply::Ack(_))))
        };
        let (acks, others) = std::mem::take(&mut self.port.sent).into_iter().partition(is_ack);
        self.port.sent = others;
        answers.append(&mut told(self));
        self.port.sent = acks;
        self.acks().len()
    }
}

#[test]
fn no_capture_begins_while_its_partition_is_half_applied() {
    let (mut control, mut specs) = Control::new(1, 4);
    let image = PartitionImage::new(&super::log_tests::limits()).unwrap();
    let (images, mut delivered) = LaneImages::without_thread(image).unwrap();
    let mut spec = specs.remove(0);
    spec.images = Some(images);
    let mut lane = lane(spec);
    lane.log.as_mut().unwrap().owner.set_least_slices();
    // The first that is captured.
    let hunt = (100..).find(|domain| partition_of(*domain, PARTITIONS) == 0).unwrap();
    for sequence in 0..4 {
        let events: Vec<_> = (0..24).map(|i| credit(sequence * 24 + i)).collect();
        lane.deliver(1, datagram(Mode::Durable, hunt, sequence, &events));
    }
    lane.turn();
    assert!(control.ends[0].commands.push(LaneCommand::Capture { round: 1 }).is_ok());
    control.commit_all();
    lane.turn();
    assert!(lane.acks().is_empty(), "not through");
    let image = std::iter::repeat_with(|| {
        lane.turn();
        delivered()
    });
    let image = image.take(1_000).flatten().next().unwrap();
    let partition = lane.log.as_ref().unwrap().owner.partition(0).unwrap();
    assert_eq!((image.number, image.epoch), (0, 1));
    assert_eq!(image.digest, partition.digest(), "of all events, not of some");
}

#[test]
fn a_partition_on_its_way_says_so() {
    let (mut control, mut owner, mut other) = two_lanes();
    for partition in 0..PARTITIONS {
        let (to, _from) = rtrb::RingBuffer::new(1);
        let release = LaneCommand::Release { partition, to };
        assert!(control.ends[0].commands.push(release).is_ok());
    }
    owner.turn();
    for lane in [&mut owner, &mut other] {
        lane.deliver(3, query(5, 1, 0));
        lane.turn();
    }
    owner.turn();
    for lane in [&mut owner, &mut other] {
        lane.turn();
        assert_eq!(told(lane), [(3, 5, 1, QueryStatus::Moving, None)]);
        lane.assert_log_closed();
    }
}

#[test]
fn too_many_at_once_and_before_the_log_is_replayed_are_busy() {
    let (control, mut owner, mut other) = two_lanes();
    let busy = |lane: &mut Lane<FakePort>| {
        let sent = std::mem::take(&mut lane.port.sent);
        let is_busy = |bytes: &[u8]| {
            matches!(decode_reply(bytes, crc_fast::crc32_iscsi), Ok((_, Reply::Busy { .. })))
        };
        sent.iter().filter(|(_, bytes)| is_busy(bytes)).count()
    };
    for sequence in 0..JOBS as u64 + 3 {
        other.deliver(3, query(sequence, 1, 0));
        other.turn();
    }
    assert_eq!(busy(&mut other), 3);
    assert_eq!(other.counters.exits(Exit::Shed), 3);
    for _ in 0..JOBS {
        owner.turn();
        other.turn();
    }
    assert_eq!(told(&mut other).len(), JOBS);
    other.assert_log_closed();
    control.facts.replayed.store(false, Relaxed);
    owner.deliver(3, query(1, 1, 0));
    owner.turn();
    assert_eq!(busy(&mut owner), 1);
}
