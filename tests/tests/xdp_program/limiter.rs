//! The limit on sources: burst, refill, observe-only, shared slots; and the
//! bucket's arithmetic against exact arithmetic.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use veltrix::nic::program::{Rate, Settings};
use veltrix_abi::Exit;
use veltrix_abi::limits::BUCKETS;
use veltrix_abi::maps::Bucket;
use veltrix_tests::testrun::{Runner, action};

use super::bucket::{self, Limit};
use super::frames::Frame;
use super::{plain, runner};

fn enforce(per_s: u32, burst: u32) -> Settings {
    Settings { rate: Rate::Enforce { per_s, burst }, ..plain() }
}

fn exit(runner: &mut Runner, source: [u8; 4]) -> Exit {
    runner.frame(&Frame::from_v4(source).bytes()).unwrap().exit
}

#[test]
fn the_first_datagrams_of_a_source_are_a_whole_burst() {
    let name = "the_first_datagrams_of_a_source_are_a_whole_burst";
    for burst in [1, 2, 7, 100] {
        let Some(mut runner) = runner(name, &enforce(1, burst)) else {
            return;
        };
        for source in [[192, 0, 2, 1], [192, 0, 2, 2]] {
            for _ in 0..burst {
                assert_eq!(exit(&mut runner, source), Exit::PassFallback);
            }
            let outcome = runner.frame(&Frame::from_v4(source).bytes()).unwrap();
            assert_eq!((outcome.exit, outcome.action), (Exit::DropRate, action::DROP));
        }
        let v6 = Frame::from_v6("2001:db8::1".parse().unwrap()).bytes();
        for _ in 0..burst {
            assert_eq!(runner.frame(&v6).unwrap().exit, Exit::PassFallback);
        }
        assert_eq!(runner.frame(&v6).unwrap().exit, Exit::DropRate);
        runner.close().unwrap();
    }
}

#[test]
fn only_what_a_lane_would_get_costs_a_token() {
    let name = "only_what_a_lane_would_get_costs_a_token";
    let Some(mut runner) = runner(name, &enforce(1, 1)) else {
        return;
    };
    let malformed = Frame::v4().with(|f| f.payload.clear()).bytes();
    for _ in 0..3 {
        assert_eq!(runner.frame(&malformed).unwrap().exit, Exit::DropEmpty);
    }
    assert_eq!(runner.frame(&Frame::v4().bytes()).unwrap().exit, Exit::PassFallback);
    assert_eq!(runner.frame(&Frame::v4().bytes()).unwrap().exit, Exit::DropRate);
    runner.close().unwrap();
}

#[test]
fn observing_drops_nothing_and_remarks_the_same() {
    let name = "observing_drops_nothing_and_remarks_the_same";
    let settings = Settings { rate: Rate::Observe { per_s: 1, burst: 3 }, ..plain() };
    let Some(mut runner) = runner(name, &settings) else {
        return;
    };
    for n in 0..10 {
        let outcome = runner.frame(&Frame::v4().bytes()).unwrap();
        assert_eq!(outcome.exit, Exit::PassFallback);
        assert_eq!(outcome.rate_observed, n >= 3, "datagram {n}");
    }
    runner.close().unwrap();
}

#[test]
fn tokens_come_back_at_the_rate() {
    let name = "tokens_come_back_at_the_rate";
    let Some(mut runner) = runner(name, &enforce(200, 20)) else {
        return;
    };
    while exit(&mut runner, [192, 0, 2, 1]) == Exit::PassFallback {}
    let started = Instant::now();
    let mut passed = 0u32;
    while started.elapsed() < Duration::from_millis(300) {
        passed += u32::from(exit(&mut runner, [192, 0, 2, 1]) == Exit::PassFallback);
    }
    let due = started.elapsed().as_secs_f64() * 200.0;
    // A tick of 10 ms at either end is worth two tokens.
    assert!((f64::from(passed) - due).abs() <= 5.0, "{passed} passed, {due:.1} were due");
    std::thread::sleep(Duration::from_millis(200));
    let mut burst = 0;
    while exit(&mut runner, [192, 0, 2, 1]) == Exit::PassFallback {
        burst += 1;
    }
    assert!((20..=22).contains(&burst), "a rested source sent {burst} at once, wanted 20");
    runner.close().unwrap();
}

/// Two sources of one slot: the later one restarts the bucket.
#[test]
fn sources_that_share_a_slot_share_nothing() {
    let name = "sources_that_share_a_slot_share_nothing";
    let slot = |n: u32| bucket::hash_v4(n.to_be_bytes()) as u32 & (BUCKETS - 1);
    let first = u32::from_be_bytes([10, 0, 0, 1]);
    let second = (first + 1..).find(|n| slot(*n) == slot(first)).unwrap();
    let (first, second) = (first.to_be_bytes(), second.to_be_bytes());
    let Some(mut runner) = runner(name, &enforce(1, 2)) else {
        return;
    };
    for source in [first, second, first] {
        assert_eq!(exit(&mut runner, source), Exit::PassFallback, "{source:?}");
        assert_eq!(exit(&mut runner, source), Exit::PassFallback, "{source:?}");
        assert_eq!(exit(&mut runner, source), Exit::DropRate, "{source:?}");
    }
    runner.close().unwrap();
}

/// Neighbours get slots of their own: over a /18 of addresses and as many
/// slots, about 63 % of the slots are hit when the hash is as good as random.
#[test]
fn neighbours_spread_over_the_slots() {
    let mask = u64::from(BUCKETS - 1);
    let base = u128::from_be_bytes(super::frames::SOURCE_V6);
    for hash in [
        &(|n: u32| bucket::hash_v4((0x0a00_0000 + n).to_be_bytes())) as &dyn Fn(u32) -> u64,
        &|n| bucket::hash_v6((base + u128::from(n)).to_be_bytes()),
        &|n| bucket::hash_v6((base + (u128::from(n) << 64)).to_be_bytes()),
    ] {
        let slots: std::collections::BTreeSet<u64> = (0..BUCKETS).map(|n| hash(n) & mask).collect();
        let percent = slots.len() * 100 / BUCKETS as usize;
        assert!((61..=66).contains(&percent), "{percent} % of the slots");
    }
}

/// The bucket in exact arithmetic: tokens in units of 1e-9.
struct Exact {
    nano_tokens: u128,
    at_ns: u64,
}

impl Exact {
    fn advance(&mut self, now_ns: u64, limit: Limit) {
        let earned = u128::from(now_ns - self.at_ns) * u128::from(limit.per_s);
        self.nano_tokens = (self.nano_tokens + earned).min(u128::from(limit.burst) * 1_000_000_000);
        self.at_ns = now_ns;
    }
}

fn gap_ns() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0u64),
        4 => Just(4_000_000u64),
        2 => 1..50_000_000u64,
        1 => 1..20_000_000_000u64,
        1 => (1u64 << 32) - 2..(1u64 << 32) + 2,
        1 => 1..1u64 << 62,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never more than exact arithmetic would pass, and never behind it by
    /// more than a part of a token and a nanosecond a refill.
    #[test]
    fn a_bucket_keeps_to_its_rate(
        per_s in prop_oneof![Just(1u64), 1..100u64, 1..=u64::from(u32::MAX), Just(u64::from(u32::MAX))],
        burst in prop_oneof![Just(1u64), 1..100u64, Just((1u64 << 22) - 1)],
        gaps in prop::collection::vec(gap_ns(), 1..200),
    ) {
        let limit = Limit { per_s, burst };
        let mut bucket = Bucket::default();
        let mut now_ns = 1u64;
        let mut exact = Exact { nano_tokens: u128::from(burst) * 1_000_000_000, at_ns: now_ns };
        prop_assert!(bucket::take(&mut bucket, 7, now_ns, limit), "the first one always passes");
        exact.nano_tokens -= 1_000_000_000;
        for (n, gap) in gaps.iter().enumerate() {
            now_ns = now_ns.saturating_add(*gap).min(u64::MAX / 2);
            exact.advance(now_ns, limit);
            let took = bucket::take(&mut bucket, 7, now_ns, limit);
            prop_assert!(!took || exact.nano_tokens >= 1_000_000_000, "{now_ns}: none was due");
            if took {
                exact.nano_tokens -= 1_000_000_000;
            }
            // What is not yet a whole part stays in the refill time.
            let pending = u128::from(now_ns - bucket.refilled_ns) * u128::from(per_s);
            let held = u128::from(bucket.tokens_1024th) * 1_000_000_000 / 1_024 + pending;
            let slack = 1_000_000_000 / 1_024 + u128::from(per_s) * (n as u128 + 1) + 1;
            prop_assert!(held <= exact.nano_tokens + 1, "{held} > {}", exact.nano_tokens);
            prop_assert!(held + slack >= exact.nano_tokens, "{held} << {}", exact.nano_tokens);
        }
    }

    /// A slow source under a fine clock loses nothing to rounding: over many
    /// ticks of 4 ms it gets what is due within one token.
    #[test]
    fn ticks_smaller_than_a_part_are_not_lost(per_s in 1..200u64) {
        const SECONDS: u64 = 100;
        let limit = Limit { per_s, burst: 2 };
        let mut bucket = Bucket::default();
        let (mut passed, mut now_ns) = (0u64, 1u64);
        for _ in 0..SECONDS * 250 {
            passed += u64::from(bucket::take(&mut bucket, 7, now_ns, limit));
            now_ns += 4_000_000;
        }
        let due = per_s * SECONDS;
        prop_assert!((due - 1..=due + 2).contains(&passed), "{passed} passed, {due} were due");
    }
}
