//! `cargo xtask bench lane`: what an event costs the core it runs on, without
//! a NIC and without a log: raw datagrams in memory, decode, batch, dedupe,
//! apply, acks.
//!
//! ```text
//!   traffic    datagrams of a seeded world, made in rounds, never timed
//!   pipeline   the stages, timed a batch at a time
//!   check      every outcome and the end state, against the reference model
//!   memory     what a cache line at random costs on this machine, beside it
//! ```
//!
//! Each measurement first makes the world through the same pipeline, then fills
//! the dedupe tables until they drop their oldest keys, and then times ordinary
//! traffic with distinct keys on randomly drawn cells and players.

pub mod check;
pub mod memory;
pub mod pipeline;
pub mod traffic;

use anyhow::{Result, ensure};

use check::Check;
use pipeline::{Pipeline, Round, Times, decode_ns};
use traffic::{EVENTS, Scale, Traffic};

/// 2 M cells, 1.6 M players, 2 M live keys.
pub const SMALL: Scale = Scale {
    hunts_per_partition: 16,
    cells_per_hunt: 1_955,
    players_per_hunt: 1_632,
    keys: 2_000_000,
};

/// 12 M cells, 10 M players, 29 M live keys.
pub const FULL: Scale = Scale {
    hunts_per_partition: 16,
    cells_per_hunt: 11_720,
    players_per_hunt: 9_768,
    keys: 29_000_000,
};

/// Datagrams of a round: 20 MB, much more than the caches between core and
/// memory hold, and a hundred batches.
const ROUND_DATAGRAMS: usize = 16_384;

/// What a run at one scale has shown.
pub struct Measured {
    /// Cells, players and keys in the node while it was timed.
    pub cells: u64,
    /// Players.
    pub players: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Bytes reserved.
    pub bytes: u64,
    /// Median round.
    pub median: Times,
    /// Time of [`Self::median`] that decoding alone takes, ns, measured again on
    /// the same datagrams.
    pub decode_ns: u64,
    /// Fastest and slowest round, ns an event.
    pub range_ns: (f64, f64),
    /// A cache line at random in as many bytes, with 16 under way, ns.
    pub line_ns: f64,
    /// Outcomes of everything that was timed.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Events that the model judged too, and hunts whose end state was compared.
    pub checked_events: u64,
    /// Hunts watched by the model.
    pub checked_hunts: usize,
}

impl Measured {
    /// Events a second, median round.
    #[must_use]
    pub fn events_per_s(&self) -> f64 {
        self.median.events as f64 * 1e9 / self.median.total_ns() as f64
    }

    /// Of a time of the median round, ns an event.
    #[must_use]
    pub fn ns_per_event(&self, ns: u64) -> f64 {
        ns as f64 / self.median.events as f64
    }
}

/// Measures at one scale, over so many rounds; the model watches one hunt in
/// `watch_one_in`.
///
/// # Errors
///
/// No memory; an outcome or a state that is not the model's.
pub fn measure(
    scale: Scale,
    rounds: usize,
    watch_one_in: u32,
    say: impl Fn(&str),
) -> Result<Measured> {
    let mut traffic = Traffic::new(scale);
    let mut check = Check::new(&traffic, watch_one_in);
    let mut pipeline = Pipeline::new(&scale)?;
    let mut round = Round::default();

    say(&format!("{} cells and {} players are made", scale.cells(), scale.players()));
    let datagrams = traffic.birth_datagrams();
    let mut number = 0;
    while number < datagrams {
        round.clear();
        while number < datagrams && round.ends.len() < ROUND_DATAGRAMS {
            traffic.birth(number, &mut round.bytes);
            round.ends.push(round.bytes.len());
            number += 1;
        }
        pipeline.run(&round)?;
        check.follow(&round, &pipeline)?;
    }

    say(&format!("{} keys are filled in", scale.keys));
    let mut judged = scale.cells() + scale.players();
    while judged < u64::from(scale.keys) * 5 / 4 {
        ordinary_round(&mut traffic, &mut round);
        judged += pipeline.run(&round)?.events;
        check.follow(&round, &pipeline)?;
    }

    say(&format!("{rounds} rounds of {} events", ROUND_DATAGRAMS * usize::from(EVENTS)));
    let before = pipeline.outcomes();
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        ordinary_round(&mut traffic, &mut round);
        let of_round = pipeline.run(&round)?;
        times.push((of_round, decode_ns(&round)));
        check.follow(&round, &pipeline)?;
    }
    let outcomes = pipeline
        .outcomes()
        .into_iter()
        .map(|(label, n)| (label, n - before.iter().find(|b| b.0 == label).map_or(0, |b| b.1)))
        .collect();

    say(&format!("the end state of {} hunts is compared", check.hunts()));
    check.compare_state(&pipeline)?;
    let sum = |of: &dyn Fn(&veltrix::apply::Partition) -> u64| {
        pipeline.partitions().iter().map(of).sum::<u64>()
    };
    let (cells, players) =
        (sum(&|p| u64::from(p.index().cells_len())), sum(&|p| u64::from(p.index().players_len())));
    ensure!(cells == scale.cells(), "{cells} cells of {}", scale.cells());
    ensure!(players == scale.players(), "{players} players of {}", scale.players());

    let bytes = sum(&|p| veltrix::apply::Partition::bytes_of(p.limits()).total());
    let line_ns = memory::line_ns(bytes)?;
    let of_event = |t: &Times| t.total_ns() as f64 / t.events as f64;
    times.sort_by(|a, b| of_event(&a.0).total_cmp(&of_event(&b.0)));
    let (median, decode_ns) = times[times.len() / 2];
    Ok(Measured {
        cells,
        players,
        keys: sum(&|p| p.dedupe().keys_len()),
        bytes,
        median,
        decode_ns,
        range_ns: (of_event(&times[0].0), of_event(&times[times.len() - 1].0)),
        line_ns,
        outcomes,
        checked_events: check.events,
        checked_hunts: check.hunts(),
    })
}

fn ordinary_round(traffic: &mut Traffic, round: &mut Round) {
    round.clear();
    for _ in 0..ROUND_DATAGRAMS {
        traffic.ordinary(&mut round.bytes);
        round.ends.push(round.bytes.len());
    }
}
