//! The lines close over consistent rows and break when one counter is lost.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::admin::status::{Replies, RingDepths, XdpStatistics};

/// What one queue and its lane saw, from which consistent rows are made.
#[derive(Clone, Debug)]
struct Traffic {
    /// Frames by each of the program's exits; redirect is made up from the rest.
    program: Vec<u64>,
    /// Frames by each exit a lane can take.
    lane: Vec<u64>,
    /// Frames of the fallback by exit.
    fallback: Vec<u64>,
    kernel: [u64; 2],
    waiting: u32,
    outcomes: Vec<u64>,
    reply_split: [u64; 3],
}

fn lane_exits() -> Vec<Exit> {
    let delivers = |exit: &Exit| exit.action() == Action::Deliver || exit.action() == Action::Pass;
    Exit::ALL.iter().copied().filter(|exit| !delivers(exit)).collect()
}

fn program_exits() -> Vec<Exit> {
    // Chains are left out: they blur the fallback line, which has a test of its own.
    let made_up = [Exit::RedirectXsk, Exit::PassFallback, Exit::PassIpv6Chain];
    Exit::ALL.iter().copied().filter(|exit| exit.is_xdp() && !made_up.contains(exit)).collect()
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let count = || prop_oneof![Just(0_u64), 1..10_u64, 1..1_000_000_000_u64];
    (
        vec(count(), program_exits().len()),
        vec(count(), lane_exits().len()),
        vec(count(), lane_exits().len()),
        [count(), count()],
        0..4_096_u32,
        vec(count(), 3),
        [0..=4_u64, 0..=4_u64, 0..=4_u64],
    )
        .prop_map(|(program, lane, fallback, kernel, waiting, outcomes, reply_split)| {
            Traffic { program, lane, fallback, kernel, waiting, outcomes, reply_split }
        })
}

fn counts(exits: &[Exit], values: &[u64]) -> Counts {
    exits.iter().map(|exit| exit.label().to_owned()).zip(values.iter().copied()).collect()
}

/// Splits the replies a lane owes over their fates.
fn replies(owed: u64, split: [u64; 3]) -> Replies {
    let part = |eighths: u64| owed / 12 * eighths / 4;
    let [coalesced, dropped_tx_full, withheld] = split.map(part);
    let sent = owed - coalesced - dropped_tx_full - withheld;
    Replies { sent, coalesced, dropped_tx_full, withheld }
}

fn lane(exits: Counts, traffic: &Traffic) -> LaneStatus {
    let outcomes = ["accepted", "malformed", "full"].map(str::to_owned);
    LaneStatus {
        frames: total(&exits),
        replies: replies(by_action(&exits, Action::Reply), traffic.reply_split),
        events: traffic.outcomes.iter().sum(),
        outcomes: outcomes.into_iter().zip(traffic.outcomes.iter().copied()).collect(),
        exits,
        ..LaneStatus::default()
    }
}

#[derive(Clone, Debug)]
struct Rows {
    queues: Vec<QueueStatus>,
    lanes: Vec<LaneStatus>,
    fallback: LaneStatus,
}

impl Rows {
    fn close(&self) -> Accounting {
        close(&self.queues, &self.lanes, Some(&self.fallback))
    }

    /// Every counter that is a term of a line.
    fn counters(&mut self) -> Vec<&mut u64> {
        let mut all = Vec::new();
        for queue in &mut self.queues {
            all.push(&mut queue.frames);
            all.extend(queue.exits.values_mut());
        }
        for lane in self.lanes.iter_mut().chain([&mut self.fallback]) {
            all.extend([&mut lane.frames, &mut lane.events, &mut lane.socket_drops]);
            all.extend(lane.exits.values_mut());
            all.extend(lane.outcomes.values_mut());
            let replies = &mut lane.replies;
            all.extend([&mut replies.sent, &mut replies.coalesced]);
            all.extend([&mut replies.dropped_tx_full, &mut replies.withheld]);
            let kernel = &mut lane.xdp_statistics;
            all.extend([&mut kernel.rx_dropped, &mut kernel.rx_ring_full]);
        }
        all
    }
}

fn rows(traffics: &[Traffic]) -> Rows {
    let mut queues = Vec::new();
    let mut lanes = Vec::new();
    let mut fallback_exits = Counts::new();
    for (number, traffic) in (0..).zip(traffics) {
        let lane = LaneStatus {
            lane: number as u16,
            queue: Some(number),
            rings: RingDepths { rx: traffic.waiting, ..RingDepths::default() },
            xdp_statistics: XdpStatistics {
                rx_dropped: traffic.kernel[0],
                rx_ring_full: traffic.kernel[1],
                rx_fill_ring_empty_descs: traffic.kernel[0],
                ..XdpStatistics::default()
            },
            ..lane(counts(&lane_exits(), &traffic.lane), traffic)
        };
        let mut exits = counts(&program_exits(), &traffic.program);
        let redirected = lane.frames + kernel_drops(&lane) + u64::from(traffic.waiting);
        exits.insert(Exit::RedirectXsk.label().into(), redirected);
        let by_fallback = counts(&lane_exits(), &traffic.fallback);
        exits.insert(Exit::PassFallback.label().into(), total(&by_fallback));
        for (label, count) in by_fallback {
            *fallback_exits.entry(label).or_default() += count;
        }
        let queue = Some(number);
        queues.push(QueueStatus { queue, frames: total(&exits), exits, ..QueueStatus::default() });
        lanes.push(lane);
    }
    let fallback = lane(fallback_exits, &traffics[0]);
    Rows { queues, lanes, fallback }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn consistent_rows_close(traffics in vec(traffic(), 1..4)) {
        let sums = rows(&traffics).close();
        prop_assert!(sums.closes, "{:?}", sums.gaps);
        prop_assert_eq!(sums.unaccounted, 0);
        prop_assert_eq!(
            sums.frames_in,
            sums.passed + sums.dropped + sums.redirected + sums.fallback_expected
        );
        prop_assert_eq!(
            sums.redirected,
            sums.lane_exits + sums.kernel_dropped + sums.in_flight
        );
    }

    #[test]
    fn any_counter_suppressed_breaks_a_line(traffics in vec(traffic(), 1..4)) {
        let whole = rows(&traffics);
        for at in 0..whole.clone().counters().len() {
            let mut rows = whole.clone();
            let counter = rows.counters().swap_remove(at);
            let was = std::mem::take(counter);
            let sums = rows.close();
            prop_assert_eq!(sums.closes, was == 0, "counter {} of {}: {:?}", at, was, sums);
            prop_assert_eq!(sums.unaccounted == 0, was == 0);
        }
    }

    #[test]
    fn any_value_is_summed_without_overflow(values in vec(any::<u64>(), 8), depth in any::<u32>()) {
        let exits: Counts = Exit::ALL.iter().map(|e| (e.label().into(), values[0])).collect();
        let queue = QueueStatus {
            queue: Some(0),
            frames: values[1],
            exits: exits.clone(),
            arrived_while_reading: values[2],
            ..QueueStatus::default()
        };
        let lane = LaneStatus {
            queue: Some(0),
            frames: values[3],
            exits,
            socket_drops: values[4],
            arrived_while_reading: values[5],
            rings: RingDepths { rx: depth, ..RingDepths::default() },
            xdp_statistics: XdpStatistics {
                rx_dropped: values[6],
                rx_ring_full: values[7],
                ..XdpStatistics::default()
            },
            ..LaneStatus::default()
        };
        let _ = close(&[queue.clone(), queue], &[lane.clone(), lane.clone()], Some(&lane));
    }
}

fn queue_with(exits: &[(Exit, u64)], queue: Option<u32>) -> QueueStatus {
    let exits: Counts = exits.iter().map(|(exit, n)| (exit.label().into(), *n)).collect();
    QueueStatus { queue, frames: total(&exits), exits, ..QueueStatus::default() }
}

fn lane_with(exits: &[(Exit, u64)], queue: Option<u32>) -> LaneStatus {
    let exits: Counts = exits.iter().map(|(exit, n)| (exit.label().into(), *n)).collect();
    let sent = by_action(&exits, Action::Reply);
    let replies = Replies { sent, ..Replies::default() };
    LaneStatus { queue, frames: total(&exits), exits, replies, ..LaneStatus::default() }
}

#[test]
fn an_idle_server_closes() {
    assert!(close(&[], &[LaneStatus::default()], None).closes);
    assert!(close(&[], &[], None).closes);
}

#[test]
fn sockets_alone_count_what_reached_them() {
    let mut lane = lane_with(&[(Exit::Ping, 7), (Exit::DropMagic, 2)], None);
    lane.socket_drops = 3;
    let sums = close(&[], &[lane], None);
    assert!(sums.closes);
    assert_eq!((sums.frames_in, sums.lane_exits, sums.kernel_dropped), (12, 9, 3));
}

#[test]
fn a_redirect_without_a_lane_is_a_gap() {
    let sums = close(&[queue_with(&[(Exit::RedirectXsk, 5)], Some(3))], &[], None);
    assert_eq!(sums.unaccounted, 5);
    assert_eq!(sums.gaps[0].place, "queue 3");
}

#[test]
fn a_lane_of_a_queue_nobody_counts_is_a_gap() {
    let sums = close(&[], &[lane_with(&[(Exit::Ping, 4)], Some(1))], None);
    assert_eq!(sums.unaccounted, 4);
}

#[test]
fn frames_beyond_the_queues_at_start_must_not_be_redirected() {
    let beyond = queue_with(&[(Exit::PassFallback, 2)], None);
    let fallback = lane_with(&[(Exit::Ping, 2)], None);
    assert!(close(std::slice::from_ref(&beyond), &[], Some(&fallback)).closes);
    assert_eq!(close(&[beyond], &[], None).lost_in_stack, 2, "nobody listens for the fallback");
    let redirected = queue_with(&[(Exit::RedirectXsk, 2)], None);
    assert!(!close(&[redirected], &[lane_with(&[], None)], None).closes);
}

#[test]
fn ipv6_chains_may_arrive_at_the_fallback_and_what_is_missing_is_lost_in_the_stack() {
    let queue = queue_with(&[(Exit::PassFallback, 10), (Exit::PassIpv6Chain, 3)], Some(0));
    for (received, lost, closes) in [(9, 1, true), (10, 0, true), (13, 0, true), (14, 0, false)] {
        let fallback = lane_with(&[(Exit::Ping, received)], None);
        let sums = close(std::slice::from_ref(&queue), &[], Some(&fallback));
        assert_eq!((sums.lost_in_stack, sums.closes), (lost, closes));
    }
}

#[test]
fn what_came_while_reading_bounds_the_difference() {
    let mut queue = queue_with(&[(Exit::RedirectXsk, 1_000)], Some(0));
    let lane = lane_with(&[(Exit::Ping, 600)], Some(0));
    assert_eq!(
        close(std::slice::from_ref(&queue), std::slice::from_ref(&lane), None).unaccounted,
        400
    );
    queue.arrived_while_reading = 100;
    assert!(close(std::slice::from_ref(&queue), std::slice::from_ref(&lane), None).closes);
    queue.arrived_while_reading = 79;
    assert_eq!(close(&[queue], &[lane], None).unaccounted, 1);
}

#[test]
fn an_empty_fill_ring_is_a_remark() {
    let mut lane = lane_with(&[(Exit::Ping, 1)], Some(0));
    lane.xdp_statistics.rx_fill_ring_empty_descs = 9;
    lane.xdp_statistics.tx_ring_empty_descs = 9;
    assert!(close(&[queue_with(&[(Exit::RedirectXsk, 1)], Some(0))], &[lane], None).closes);
}
