//! The parts of the run that drive a node.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use veltrix_abi::Outcome;
use veltrix_abi::wire::Mode;

use super::cores::CoreTime;
use super::node::{Node, Sizes, format, number};
use super::report::Report;
use crate::bench::rig::{GENERATOR_CORE, PORT};
use crate::bench::service::Provider;
use crate::lab::{Lab, LabSpec, Receiver, ReceiverKind, Side};
use crate::swarm::book::Tally;
use crate::swarm::drive::Run;
use crate::swarm::traffic::{EVENTS_MAX, Traffic, World};
use crate::swarm::{Spec, Swarm};

/// A million cells and a million players; many hunts, so that the partitions
/// are alike.
pub const WORLD: World = World { hunts: 4_096, cells: 256, players: 256, seed: 0x1_6e57 };

/// Full datagrams.
const FULL: Traffic = Traffic::Play { events: EVENTS_MAX as u8 };

/// Datagrams of one event.
const SINGLE: Traffic = Traffic::Play { events: 1 };

/// Sessions that send full datagrams.
const SESSIONS_FULL: u16 = 8;

/// Sessions that send single events.
const SESSIONS_SINGLE: u16 = 64;

/// Datagrams unanswered at a time; the best is kept.
const WINDOWS: [usize; 4] = [256, 512, 1_024, 2_048];

/// How long a window is tried.
const TRY: Duration = Duration::from_secs(2);

/// Longest wait for a node to say hello, for the world, and for the last acks.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Wait before an unanswered datagram is sent again: far above any latency of
/// a healthy run, so that a retry means a loss.
const RETRY_AFTER: Duration = Duration::from_millis(400);

/// Keys that the node remembers: 29 M would be full as well, only later.
const DEDUPE_KEYS: u64 = 8_000_000;

/// Bytes of log for each second of the maximum: it is written around in the
/// time given from 2 million events a second up.
const LOG_BYTES_PER_S: u64 = 100_000_000;

/// Bytes of a segment.
const SEGMENT_BYTES: u64 = 128 << 20;

/// The maximum goes on for so many times its time at most, waiting for the log
/// to wrap and for snapshots.
const EXTENSION_MAX: u32 = 3;

/// Which way through a node is measured, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// `durable`, or `none` to see what the way costs without a log.
    pub mode: Mode,
    /// Seconds of the maximum; the other parts take a quarter each, at least 3.
    pub seconds: u64,
    /// Folder for data directories, on the disk to be measured.
    pub dir: &'a Path,
}

impl Plan<'_> {
    fn rest(&self) -> Duration {
        Duration::from_secs((self.seconds / 4).max(3))
    }

    fn sizes(&self) -> Sizes {
        let segments = (self.seconds * LOG_BYTES_PER_S).div_ceil(SEGMENT_BYTES).max(16);
        Sizes { segment_bytes: SEGMENT_BYTES, segments, dedupe_keys_max: DEDUPE_KEYS }
    }

    fn spec(&self, sessions: u16) -> Spec {
        Spec {
            world: WORLD,
            server_port: PORT,
            sessions,
            mode: self.mode,
            core: GENERATOR_CORE,
            retry_after: RETRY_AFTER,
        }
    }

    /// Formats a data directory and starts a node on it.
    fn node(&self, lab: &Lab, provider: Provider, name: &str, say: &dyn Fn(&str)) -> Result<Node> {
        if self.mode == Mode::None {
            return Node::start(lab, provider, None);
        }
        let data = self.dir.join(name);
        let sizes = self.sizes();
        say(&format!(
            "format {} with a log of {} MB",
            data.display(),
            sizes.log_bytes() / 1_000_000
        ));
        format(&data, &WORLD, &sizes)?;
        Node::start(lab, provider, Some(&data))
    }

    /// The outcome that counts.
    const fn wanted(&self) -> Outcome {
        match self.mode {
            Mode::None => Outcome::Accepted,
            Mode::Durable => Outcome::Applied,
        }
    }
}

/// Maximum, half and single, on one node behind AF_XDP.
///
/// # Errors
///
/// When the node does not serve, or does not answer everything in the end.
pub fn xdp(plan: &Plan<'_>, report: &mut Report, say: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let lab = Lab::new(LabSpec::with_queues(1))?;
    let node = plan.node(&lab, Provider::Xdp, "xdp", say)?;
    drive_xdp(plan, &lab, &node, report, say).with_context(|| node.last_words(&lab))
}

fn drive_xdp(
    plan: &Plan<'_>,
    lab: &Lab,
    node: &Node,
    report: &mut Report,
    say: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let mut parts = Swarm::run(lab, plan.spec(SESSIONS_FULL), |swarm| {
        let mut all = Sums::default();
        swarm.hello(WAIT_MAX)?;
        let founded = swarm.found(512, WAIT_MAX)?;
        say(&format!("world founded in {:.1?}: {:?}", founded.elapsed, founded.tally.mix()));
        all.add(&founded.tally);
        let window = best_window(plan, swarm, FULL, &mut all, say)?;
        fill(plan, swarm, window, &mut all)?;
        let maximum = maximum(plan, swarm, window, lab, node, report, say)?;
        all.add(&maximum.tally);
        let rate = maximum.per_s(plan.wanted()) / 2.0;
        settle(swarm, FULL, &mut all)?;
        say(&format!("half: {rate:.0} events/s, open loop"));
        let half = swarm.open(FULL, rate / EVENTS_MAX as f64, plan.rest())?;
        all.add(&half.tally);
        report.set_latency("ack_ns_half", &half.tally.ack_ns);
        report.set("half_events_per_s", half.per_s(plan.wanted()));
        say_stages("half", node, lab, say)?;
        settle(swarm, FULL, &mut all)?;
        all.sent_to = swarm.book().next_sequence();
        Ok(all)
    })?;
    Swarm::run(lab, plan.spec(SESSIONS_SINGLE), |swarm| {
        swarm.hello(WAIT_MAX)?;
        swarm.book().start_at(parts.sent_to);
        let window = best_window(plan, swarm, SINGLE, &mut parts, say)?;
        let before = answers(&node.status(lab)?);
        let single = swarm.closed(SINGLE, window, plan.rest())?;
        let after = answers(&node.status(lab)?);
        let (sent, shared) = (after.0 - before.0, after.1 - before.1);
        report.set("single_answers_per_datagram", (sent + shared) as f64 / sent.max(1) as f64);
        parts.add(&single.tally);
        settle(swarm, SINGLE, &mut parts)?;
        report.set("single_event_per_s", single.per_s(plan.wanted()));
        report.set_latency("ack_ns_single", &single.tally.ack_ns);
        report.set_value("outcomes_single", json!(mix(&single.tally)));
        say_stages("single", node, lab, say)?;
        Ok(())
    })?;
    // Lanes say once a second what they have judged.
    std::thread::sleep(JUDGED_AFTER);
    let status = node.status(lab)?;
    parts.judge(plan, node, &status, report);
    let log = status.pointer("/log").cloned().unwrap_or_default();
    report.set_value("log", log);
    Ok(())
}

/// The same node on UDP sockets: full datagrams, in a window.
///
/// # Errors
///
/// As [`xdp`].
pub fn socket(plan: &Plan<'_>, report: &mut Report, say: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let lab = Lab::new(LabSpec::with_queues(1))?;
    // veth takes redirected frames only where an XDP program runs at the other end.
    let pass = Receiver::attach(&lab, Side::Server, ReceiverKind::Pass)?;
    let short = Plan { seconds: plan.seconds.min(10), ..*plan };
    let node = short.node(&lab, Provider::Udp, "udp", say)?;
    let run = Swarm::run(&lab, plan.spec(SESSIONS_FULL), |swarm| {
        let mut all = Sums::default();
        swarm.hello(WAIT_MAX)?;
        // A socket's buffer holds far fewer datagrams than a ring.
        swarm.found(32, WAIT_MAX)?;
        let window = best_window(plan, swarm, FULL, &mut all, say)?;
        let run = swarm.closed(FULL, window, plan.rest())?;
        settle(swarm, FULL, &mut all)?;
        Ok(run)
    })?;
    report.set("socket_events_per_s", run.per_s(plan.wanted()));
    drop((node, pass));
    Ok(())
}

/// Time after which the node's count of judged events holds the last of them:
/// it is put together once a second.
const JUDGED_AFTER: Duration = Duration::from_millis(2_500);

/// What all parts on one node counted.
#[derive(Default)]
struct Sums {
    applied: u64,
    doubled: u64,
    unanswered: u64,
    retries: u64,
    sent_to: u64,
}

impl Sums {
    fn add(&mut self, tally: &Tally) {
        self.applied += tally.of(Outcome::Applied);
        self.doubled += tally.doubled;
        self.retries += tally.retries;
    }

    /// Holds the acks against what the node says it judged.
    fn judge(&self, plan: &Plan<'_>, node: &Node, status: &Value, report: &mut Report) {
        let mut lost = self.unanswered;
        let mut duplicated = self.doubled;
        if plan.mode == Mode::Durable && node.is_durable() {
            let judged = number(status, "/log/judged/applied");
            lost += self.applied.saturating_sub(judged);
            // An unanswered event may have been applied.
            duplicated += judged.saturating_sub(self.applied + self.unanswered);
            report.set("acked_applied", self.applied as f64);
            report.set("judged_applied", judged as f64);
        }
        report.set("lost", lost as f64);
        report.set("duplicated", duplicated as f64);
        report.set("retries", self.retries as f64);
    }
}

fn mix(tally: &Tally) -> Value {
    Value::Object(tally.mix().into_iter().map(|(label, n)| (label.into(), json!(n))).collect())
}

/// Waits for the last acks; what never comes is lost.
fn settle(swarm: &mut Swarm, traffic: Traffic, all: &mut Sums) -> Result<()> {
    let left = swarm.finish(traffic, WAIT_MAX)?;
    all.unanswered += (left * traffic.events()) as u64;
    all.add(&swarm.book().take_tally());
    ensure!(left == 0, "{left} datagrams were never answered");
    Ok(())
}

/// Tries every window; says the best.
fn best_window(
    plan: &Plan<'_>,
    swarm: &mut Swarm,
    traffic: Traffic,
    all: &mut Sums,
    say: &dyn Fn(&str),
) -> Result<usize> {
    let mut best = (0.0, WINDOWS[0]);
    for window in WINDOWS {
        let run = swarm.closed(traffic, window, TRY)?;
        let rate = run.per_s(plan.wanted());
        say(&format!(
            "{} events a datagram, {window:>4} datagrams unanswered: {rate:.0} events/s, p99 {} us, {} retries",
            traffic.events(),
            run.tally.ack_ns.value_at_quantile(0.99) / 1_000,
            run.tally.retries
        ));
        all.add(&run.tally);
        settle(swarm, traffic, all)?;
        if rate > best.0 {
            best = (rate, window);
        }
    }
    Ok(best.1)
}

/// Sends as many keys as the node remembers.
fn fill(plan: &Plan<'_>, swarm: &mut Swarm, window: usize, all: &mut Sums) -> Result<()> {
    let mut left = if plan.mode == Mode::Durable { DEDUPE_KEYS } else { 0 };
    while left > 0 {
        let run = swarm.closed(FULL, window, Duration::from_secs(1))?;
        ensure!(run.tally.acked() > 0, "nothing was acknowledged for a second");
        left = left.saturating_sub(run.tally.acked());
        all.add(&run.tally);
    }
    Ok(())
}

/// The maximum: until its time is over, the log is written around and two
/// snapshots were taken, as far as there is a log.
fn maximum(
    plan: &Plan<'_>,
    swarm: &mut Swarm,
    window: usize,
    lab: &Lab,
    node: &Node,
    report: &mut Report,
    say: &dyn Fn(&str),
) -> Result<Run> {
    let counts =
        |status: &Value| (number(status, "/log/wal/bytes"), number(status, "/log/snapshots/taken"));
    let before = counts(&node.status(lab)?);
    let cores = CoreTime::read()?;
    let slice = Duration::from_secs(plan.seconds);
    let mut run = swarm.closed(FULL, window, slice)?;
    let mut after = counts(&node.status(lab)?);
    let log_bytes = plan.sizes().log_bytes();
    let fulfilled = |after: (u64, u64)| {
        !node.is_durable() || (after.0 - before.0 >= log_bytes && after.1 >= before.1 + 2)
    };
    for _ in 1..EXTENSION_MAX {
        if fulfilled(after) {
            break;
        }
        say("the log is not written around, or two snapshots are not taken yet: going on");
        run.add(&swarm.closed(FULL, window, slice)?)?;
        after = counts(&node.status(lab)?);
    }
    let now = CoreTime::read()?;
    let acked = run.tally.acked().max(1);
    let busy = now.busy_since(&cores);
    report.set("events_per_s", run.per_s(plan.wanted()));
    report.set("datagram_fill", run.tally.events as f64 / run.tally.datagrams.max(1) as f64);
    report.set("cpu_ns_per_event", busy.as_nanos() as f64 / acked as f64);
    report.set("cores_busy_share", now.share_since(&cores));
    report.set_latency("ack_ns", &run.tally.ack_ns);
    say_stages("maximum", node, lab, say)?;
    report.set("window_datagrams", window as f64);
    report.set("seconds", run.elapsed.as_secs_f64());
    report.set("snapshots_taken", (after.1 - before.1) as f64);
    report.set("log_written_around", (after.0 - before.0) as f64 / log_bytes as f64);
    report.set_value("conditions_met", json!(fulfilled(after)));
    report.set_value("outcomes", mix(&run.tally));
    let mix = run.tally.mix().iter().map(|(label, n)| format!("{label} {n}")).collect::<Vec<_>>();
    say(&format!("outcomes at the maximum: {}", mix.join(", ")));
    Ok(run)
}

/// Datagrams of answers that lanes sent, and answers that shared one with others.
fn answers(status: &Value) -> (u64, u64) {
    let lanes = status["lanes"].as_array().map_or(&[][..], Vec::as_slice);
    let sum = |key: &str| lanes.iter().map(|lane| number(lane, key)).sum();
    (sum("/replies/sent"), sum("/replies/coalesced"))
}

/// Says how long events were in each stage over the last ten seconds, of which a
/// part of the run that is shorter fills only its share.
///
/// # Errors
///
/// When the node's status cannot be had.
pub fn say_stages(part: &str, node: &Node, lab: &Lab, say: &dyn Fn(&str)) -> Result<()> {
    if node.is_durable() {
        let status = node.status(lab)?;
        let stages = status.pointer("/log/stages").and_then(Value::as_array);
        for stage in stages.context("the status has no stages")? {
            let us = |key| stage["last_10s_ns"][key].as_u64().unwrap_or(0) / 1_000;
            say(&format!(
                "{part}: {:<10} p50 {:>5} p99 {:>5} p99.9 {:>5} max {:>6} us",
                stage["stage"].as_str().unwrap_or("?"),
                us("p50"),
                us("p99"),
                us("p999"),
                us("max")
            ));
        }
    }
    Ok(())
}
