//! A few hundred seeds of the simulation, and proof that its oracle sees: each
//! planted mistake must be noticed by some seed of a few.

use veltrix_tests::sim::{self, Bug, Summary};

/// Seeds of the ordinary run; `cargo xtask sim --seeds N` runs more.
const SEEDS: u64 = 200;

/// Seeds in which a mistake must show.
const BUG_SEEDS: u64 = 60;

#[test]
fn every_promise_is_kept_in_every_seed() {
    let mut all = Summary::default();
    for seed in 0..SEEDS {
        match sim::run(seed) {
            Ok(summary) => all.add(&summary),
            Err(failure) => panic!("{failure}"),
        }
    }
    // What never happened was not tested.
    let Summary { entries, events, duplicates, crashes, crashes_in_recovery, .. } = all;
    let Summary { restored, snapshots_refused, fenced, snapshots, moves, log_full, jumps, .. } =
        all;
    let met = [
        entries,
        events,
        duplicates,
        crashes,
        crashes_in_recovery,
        restored,
        snapshots_refused,
        fenced,
        snapshots,
        moves,
        log_full,
        jumps,
    ];
    assert!(met.iter().all(|count| *count > 0), "{all:#?}");
}

#[test]
fn a_seed_repeats() {
    for seed in [3, 17] {
        assert_eq!(sim::run(seed), sim::run(seed));
    }
}

/// Runs seeds with the mistake until one shows it.
fn is_noticed(bug: Bug) {
    let noticed = (0..BUG_SEEDS).find_map(|seed| sim::run_with(seed, bug).err());
    let failure = noticed.unwrap_or_else(|| panic!("{bug:?} went unnoticed in {BUG_SEEDS} seeds"));
    let text = failure.to_string();
    let command = format!("cargo xtask sim --seed {}", failure.seed);
    assert!(text.ends_with(&command), "{text}");
}

#[test]
fn every_planted_bug_is_noticed() {
    for bug in Bug::ALL {
        is_noticed(*bug);
    }
}
