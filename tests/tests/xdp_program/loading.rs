//! The object loads for every queue count, costs the same for each, and keeps
//! to its budget; settings it cannot work with are refused by name.

use veltrix::nic::program::{KernelHalf, LoadError, RATE_BURST_MAX, Rate, Settings};
use veltrix_abi::Exit;
use veltrix_tests::testrun::{action, ns_over_empty, occupy, require, run};

use super::frames::Frame;
use super::{everything, plain, runner};

const INSTRUCTIONS_MAX: u32 = 1_000;

#[test]
fn it_is_the_same_program_for_every_queue_count() {
    let name = "it_is_the_same_program_for_every_queue_count";
    let Some(object) = require(name) else { return };
    let mut instructions = std::collections::BTreeSet::new();
    for queues in [1, 2, 31, 32, 33, 64, 128] {
        let half = KernelHalf::load(&object, &Settings { queues, ..everything() }).unwrap();
        let facts = half.facts().unwrap();
        assert_eq!(half.queues(), queues);
        assert_eq!(half.exits().unwrap().len(), queues as usize + 1);
        assert_eq!(facts.attached, None);
        instructions.insert((facts.instructions, facts.verified_instructions));
    }
    assert_eq!(instructions.len(), 1, "instructions differ by queue count: {instructions:?}");
    let (loaded, _) = instructions.pop_first().unwrap();
    assert!((1..INSTRUCTIONS_MAX).contains(&loaded), "{loaded} instructions");
}

#[test]
fn what_is_off_is_pruned() {
    let Some(object) = require("what_is_off_is_pruned") else {
        return;
    };
    let count = |settings: Settings| {
        KernelHalf::load(&object, &settings).unwrap().facts().unwrap().instructions
    };
    let off = count(plain());
    let blocklist = count(Settings { blocklist: true, ..plain() });
    let rate = count(Settings { rate: Rate::Enforce { per_s: 1, burst: 1 }, ..plain() });
    let all = count(everything());
    assert!(off < blocklist && off < rate && blocklist < all && rate < all);
}

#[test]
fn its_cost_over_an_empty_program_is_measured_on_the_whole_way() {
    let name = "its_cost_over_an_empty_program_is_measured_on_the_whole_way";
    let settings = Settings { block_entries_max: 2_000, ..everything() };
    let Some(mut runner) = runner(name, &settings) else {
        return;
    };
    let Some(object) = require(name) else { return };
    let _socket = occupy(&mut runner.half).unwrap();
    for (family, frame) in [("IPv4", Frame::v4()), ("IPv6", Frame::v6())] {
        let bytes = frame.bytes();
        let (answer, _) = run(runner.half.program().unwrap(), &bytes, None, 1).unwrap();
        assert_eq!(answer, action::REDIRECT);
        let cost = ns_over_empty(&object, &runner.half, &bytes, 3).unwrap();
        println!("{family}: {cost:?}, {} ns over empty", cost.over_empty_ns());
    }
    println!("{:?}", runner.half.facts().unwrap());
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let rate = |per_s, burst| Settings { rate: Rate::Enforce { per_s, burst }, ..plain() };
    for (settings, key) in [
        (Settings { port: 0, ..plain() }, "port"),
        (Settings { payload_bytes_max: 47, ..plain() }, "payload_bytes_max"),
        (Settings { payload_bytes_max: 70_000, ..plain() }, "payload_bytes_max"),
        (Settings { queues: 0, ..plain() }, "queues"),
        (Settings { queues: u32::MAX, ..plain() }, "queues"),
        (Settings { block_entries_max: 0, blocklist: true, ..plain() }, "blocklist.entries_max"),
        (rate(0, 1), "rate per second"),
        (rate(1, 0), "rate burst"),
        (rate(1, RATE_BURST_MAX + 1), "rate burst"),
    ] {
        match KernelHalf::load(&[], &settings) {
            Err(LoadError::Setting { key: seen, .. }) => assert_eq!(seen, key),
            Err(other) => panic!("{key}: {other}"),
            Ok(_) => panic!("{key} was taken"),
        }
    }
}

#[test]
fn an_object_that_is_none_is_refused() {
    let Some(object) = require("an_object_that_is_none_is_refused") else {
        return;
    };
    for bytes in [&[][..], b"\x7fELF", &object[..object.len() / 2]] {
        match KernelHalf::load(bytes, &plain()) {
            Err(LoadError::Object { .. }) => {}
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{} bytes were taken for an object", bytes.len()),
        }
    }
}

#[test]
fn the_largest_burst_and_rate_overflow_nothing() {
    let name = "the_largest_burst_and_rate_overflow_nothing";
    let rate = Rate::Enforce { per_s: u32::MAX, burst: RATE_BURST_MAX };
    let Some(mut runner) = runner(name, &Settings { rate, ..plain() }) else {
        return;
    };
    for _ in 0..1_000 {
        assert_eq!(runner.frame(&Frame::v4().bytes()).unwrap().exit, Exit::PassFallback);
    }
}
