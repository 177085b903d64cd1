//! `cargo xtask bench game`: mixed traffic of a game against the real node over
//! veth, on the two cores of `bench ingest` and beside its events.
//!
//! ```text
//!   core 0: swarm, softirq of its frames, control core of the node, log writer
//!   core 1: the node's lane
//! ```
//!
//! The traffic is [`crate::swarm::game`]'s: 1,000 hunts by Zipf's law over the rank
//! of their city, one request in ten a query of one of the seven kinds, one datagram
//! in a hundred sent again after its answer, one event in a thousand malformed. How
//! full a datagram is follows from its hunt: a session waits a millisecond for more.
//!
//! | part | loop | figures |
//! |---|---|---|
//! | maximum | slices of the game and of `bench ingest`'s events by turns, in the same window and in datagrams as full on the mean | events_per_s, reads_per_s, over_ingest |
//! | half | half of that maximum, at a fixed rate | ack_ns, read_ns |
//! | quarter | a quarter of it | quarter_ack_ns, quarter_read_ns |
//! | regions | claims of 32 SDK sessions in a split hunt over loopback | home_claim_ns, region_claim_ns |
//! | lane | 12 M cells and 10 M players in this process, as `bench index` | box_p99_us, nearest_p99_us, rank_p99_us, top100_us, world_gib |
//!
//! In the open loops requests are due in bursts, one each 100 us, and a latency runs
//! from the burst that a request belongs to, however late the generator comes. The
//! lane spins (`--wait`): its core is its own. Two figures say how long something else
//! had the core of lane or generator, and the other could only wait.
//!
//! What can lie: as with `bench ingest`, no wire costs latency, and the generator
//! takes a share of the cores. `over_ingest` counts events on both sides, and the
//! queries of the game are work that the other does not have; in return a hot hunt
//! keeps its cache lines, and events of `bench ingest` are spread over all hunts
//! alike, so it may be above 1. The figures of the lane are of the functions that a
//! lane calls, without the datagrams around them.

pub mod regions;
mod report;

use std::iter::zip;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use veltrix::apply::{Partition, PartitionLimits};
use veltrix::base::cpu::RunDelay;
use veltrix::dedupe::DedupeLimits;
use veltrix_abi::Outcome;
use veltrix_abi::wire::Mode;

use super::index::measure::measure;
use super::index::ranks;
use super::index::world::NODE;
use super::ingest::node::{Node, Sizes, format};
use super::ingest::phases::say_stages;
use super::ingest::report::Report;
use super::rig::{GENERATOR_CORE, PORT};
use super::service::Provider;
use crate::lab::{Lab, LabSpec};
use crate::swarm::game::{Game, GameRun, Pace};
use crate::swarm::traffic::{Traffic, World};
use crate::swarm::{Spec, Swarm};

/// A million cells and a million players in hunts of the same size: what differs
/// is how much happens in them.
const WORLD: World = World { hunts: 1_000, cells: 1_024, players: 1_000, seed: 0x6a3e };

/// Rate that the fill of datagrams is worked out for, events a second.
const EVENTS_PER_S: f64 = 5e6;

/// How long a session waits for more events of a hunt.
const LINGER: Duration = Duration::from_millis(1);

/// Sessions; each plays whole hunts.
const SESSIONS: u16 = 8;

/// Datagrams unanswered at a time; the best of them is kept.
const WINDOWS: [usize; 3] = [512, 1_024, 2_048];

/// How long a window is tried.
const TRY: Duration = Duration::from_secs(2);

/// Slices of each traffic at the maximum.
const SLICES: u32 = 4;

/// Shares of the maximum in the open loops, and what the names of their figures
/// begin with.
const OPEN: [(f64, &str); 2] = [(0.5, ""), (0.25, "quarter_")];

/// Longest wait for a node, a world, and last answers.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// As in `bench ingest`: a retry means a loss.
const RETRY_AFTER: Duration = Duration::from_millis(400);

/// Keys that the node remembers.
const DEDUPE_KEYS: u64 = 8_000_000;

/// Players of the one hunt with a leaderboard for `rank_p99_us`.
const RANKED: u32 = 10_000_000;

/// Keys of `world_gib`: a quarter of an hour at 32 thousand new ones a second.
const WORLD_KEYS: u32 = 29_000_000;

/// Why there is no figure of it.
const NO_DELAYS: &str = "the kernel does not say how long a thread waits for its core";

/// An empty report with the figures of this bench.
#[must_use]
pub fn report() -> Report {
    Report::of(report::FIGURES)
}

/// The parts over veth: maximum and open loops, `seconds` each.
///
/// # Errors
///
/// When the node does not serve, or does not answer everything in the end.
pub fn mixed(
    dir: &Path,
    seconds: u64,
    wait: &str,
    report: &mut Report,
    say: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let lab = Lab::new(LabSpec::with_queues(1))?;
    let data = dir.join("game");
    let sizes = Sizes { segment_bytes: 128 << 20, segments: 24, dedupe_keys_max: DEDUPE_KEYS };
    say(&format!("format {} with a log of {} MB", data.display(), sizes.log_bytes() / 1_000_000));
    format(&data, &WORLD, &sizes)?;
    let node = Node::start_with(&lab, Provider::Xdp, Some(&data), &["--wait", wait])?;
    let spec = Spec {
        world: WORLD,
        server_port: PORT,
        sessions: SESSIONS,
        mode: Mode::Durable,
        core: GENERATOR_CORE,
        retry_after: RETRY_AFTER,
    };
    let watch = Watch { node: &node, lab: &lab, say };
    let duration = Duration::from_secs(seconds);
    Swarm::run(&lab, spec, |swarm| drive(swarm, duration, report, &watch))
        .with_context(|| node.last_words(&lab))
}

/// What the loops look at besides the swarm.
struct Watch<'a> {
    node: &'a Node,
    lab: &'a Lab,
    say: &'a (dyn Fn(&str) + Sync),
}

impl Watch<'_> {
    /// How long the lane was kept off its core since its start, ns.
    fn lane_run_delay_ns(&self) -> Result<u64> {
        let status = self.node.status(self.lab)?;
        status.pointer("/lanes/0/run_delay_ns").and_then(Value::as_u64).context(NO_DELAYS)
    }
}

/// Events of `bench ingest` for a while; gives how many were applied a second.
fn ingest(swarm: &mut Swarm, events: u8, window: usize, duration: Duration) -> Result<f64> {
    let traffic = Traffic::Play { events };
    let run = swarm.closed(traffic, window, duration)?;
    let left = swarm.finish(traffic, WAIT_MAX)?;
    ensure!(left == 0, "{left} datagrams were never answered");
    swarm.book().take_tally();
    Ok(run.per_s(Outcome::Applied))
}

fn drive(
    swarm: &mut Swarm,
    duration: Duration,
    report: &mut Report,
    watch: &Watch<'_>,
) -> Result<()> {
    let say = watch.say;
    let own_delay = RunDelay::of_this_thread();
    swarm.hello(WAIT_MAX)?;
    let founded = swarm.found(512, WAIT_MAX)?;
    say(&format!("world founded in {:.1?}: {:?}", founded.elapsed, founded.tally.mix()));
    let game = Game::new(WORLD, EVENTS_PER_S, LINGER);
    let fill = game.fill().round().clamp(1.0, 24.0) as u8;
    let play = |swarm: &mut Swarm, pace, duration| swarm.game(&game, pace, duration, WAIT_MAX);
    let mut best = [(0.0, WINDOWS[0]); 2];
    for window in WINDOWS {
        let rates = [
            play(swarm, Pace::Window(window), TRY)?.events_per_s(),
            ingest(swarm, fill, window, TRY)?,
        ];
        say(&format!(
            "{window:>4} datagrams unanswered: game {:.0} events/s, ingest {:.0} at {fill} events a datagram",
            rates[0], rates[1]
        ));
        for (best, rate) in best.iter_mut().zip(rates) {
            if rate > best.0 {
                *best = (rate, window);
            }
        }
    }
    let slice = duration / SLICES;
    let mut maximum: Option<GameRun> = None;
    let mut beside = 0.0;
    for _ in 0..SLICES {
        let run = play(swarm, Pace::Window(best[0].1), slice)?;
        match &mut maximum {
            None => maximum = Some(run),
            Some(all) => all.add(&run)?,
        }
        beside += ingest(swarm, fill, best[1].1, slice)? / f64::from(SLICES);
    }
    let maximum = maximum.context("no slice was measured")?;
    of_maximum(&maximum, beside, fill, report);
    let per_request =
        maximum.tally.events as f64 / (maximum.tally.datagrams + maximum.reads.sent) as f64;
    let mut runs = vec![maximum];
    for (share, name) in OPEN {
        let rate = runs[0].events_per_s() * share;
        say(&format!("open loop at {rate:.0} events/s"));
        let delays =
            || anyhow::Ok([watch.lane_run_delay_ns()?, own_delay.ns().context(NO_DELAYS)?]);
        let (before, began) = (delays()?, Instant::now());
        let open = play(
            swarm,
            Pace::PerS { rate: rate / per_request, most: rate / per_request / share },
            duration,
        )?;
        let kept_off: Vec<f64> = zip(delays()?, before)
            .map(|(after, before)| (after - before) as f64 / began.elapsed().as_nanos() as f64)
            .collect();
        say_stages(&format!("{share} of it"), watch.node, watch.lab, say)?;
        report.set(&format!("{name}lane_kept_off"), kept_off[0]);
        report.set(&format!("{name}generator_kept_off"), kept_off[1]);
        report.set(&format!("{name}open_events_per_s"), open.events_per_s());
        report.set(&format!("{name}open_reads_per_s"), open.reads_per_s());
        report.set(&format!("{name}open_reads_lost"), open.reads.lost as f64);
        report.set_latency(&format!("{name}ack_ns"), &open.tally.ack_ns);
        report.set_latency(&format!("{name}read_ns"), &open.reads.read_ns);
        report.set_latency(&format!("{name}late_ns"), &open.reads.late_ns);
        report.set_latency(&format!("{name}served_ns"), &open.reads.served_ns);
        runs.push(open);
    }
    let sum = |count: fn(&GameRun) -> u64| runs.iter().map(count).sum::<u64>() as f64;
    report.set("lost", sum(|run| run.unanswered));
    report.set("duplicated", sum(|run| run.tally.doubled));
    report.set("retries", sum(|run| run.tally.retries));
    report.set("reads_lost", sum(|run| run.reads.lost));
    report.set("reads_turned_away", sum(|run| run.reads.turned_away));
    report.set("reads_other", sum(|run| run.reads.other));
    report.set("events_busy", sum(|run| run.tally.busy));
    Ok(())
}

fn of_maximum(run: &GameRun, beside: f64, fill: u8, report: &mut Report) {
    let events = run.tally.events.max(1) as f64;
    let malformed = run.tally.of(Outcome::Malformed);
    report.set("events_per_s", run.events_per_s());
    report.set("reads_per_s", run.reads_per_s());
    report.set("over_ingest", run.events_per_s() / beside.max(1.0));
    report.set("ingest_events_per_s", beside);
    report.set("ingest_fill", fill.into());
    report.set("datagram_fill", events / run.tally.datagrams.max(1) as f64);
    report.set("hot_share", run.hottest as f64 / events);
    report.set("repeated_share", run.repeated as f64 / events);
    report.set("malformed_share", malformed as f64 / run.tally.acked().max(1) as f64);
    let requests = (run.tally.datagrams + run.reads.sent).max(1) as f64;
    report.set("read_share", run.reads.sent as f64 / requests);
    report.set_latency("ack_ns_max", &run.tally.ack_ns);
    report.set_latency("read_ns_max", &run.reads.read_ns);
    let mix = run.tally.mix().into_iter().map(|(label, n)| (label.to_owned(), n.into())).collect();
    report.set_value("outcomes", serde_json::Value::Object(mix));
}

/// The parts in this process: reads of a full node's index, and its bytes.
///
/// # Errors
///
/// As the parts of `bench index`.
pub fn lane(report: &mut Report, say: &dyn Fn(&str)) -> Result<()> {
    let index = measure(NODE, say)?;
    report.set("box_p99_us", index.box_p99_us);
    report.set("nearest_p99_us", index.nearest_p99_us);
    say("one hunt with 10 M players");
    let ranks = ranks::measure(RANKED)?;
    report.set("rank_p99_us", ranks.rank_p99_us);
    report.set("top100_us", ranks.top100_us);
    let keys_max = WORLD_KEYS.div_ceil(NODE.partitions as u32);
    let dedupe = DedupeLimits { keys_max, window_ms: 600_000 };
    let bytes = Partition::bytes_of(&PartitionLimits { index: NODE.limits(), dedupe });
    let all = bytes.total() as f64 * NODE.partitions as f64;
    report.set("world_gib", all / f64::from(1 << 30));
    Ok(())
}
