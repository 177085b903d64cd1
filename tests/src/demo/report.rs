//! What the demo found: tables for people, one JSON object for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use veltrix::admin::log_status::{Quantiles, RecoveryStatus, StageStatus};
use veltrix::admin::status::{Provider, Status};
use veltrix::cli::ping::Percentiles;
use veltrix::config::value::{show_bytes, show_count};

use super::check::{LogVerdict, StateVerdict};
use super::crowd::Totals;
use super::hunters::{CLIENTS, Catch, HUNTERS};
use super::sums::{Outside, Sum, fallback_frames, kernel_losses, lost_answers, sums};
use super::world::World;

/// How the kill went.
#[derive(Clone, Debug)]
pub struct Outage {
    /// Last epoch that was seen applied before.
    pub at_epoch: u64,
    /// Datagrams without an answer.
    pub unanswered: u64,
    /// From the start of the next process to it taking events.
    pub ready: Duration,
    /// From the same start to a client having its first durable ack.
    pub recovery: Duration,
    /// From the kill to that ack; the players' futile tries are in it.
    pub whole: Duration,
    /// What the start found and did.
    pub found: RecoveryStatus,
}

/// See the module.
#[derive(Debug)]
pub struct Findings {
    /// What was left out, and why.
    pub left_out: Vec<String>,
    /// Where it was played.
    pub world: Arc<World>,
    /// Core of the crowd.
    pub core: Option<usize>,
    /// The second life's counters, quiet, before its end.
    pub status: Status,
    /// Counted outside it.
    pub outside: Outside,
    /// By how much the first life's sums were off at its last quiet moment, and
    /// the frames in them.
    pub first_life: (u64, u64),
    /// The kill.
    pub outage: Outage,
    /// Where the time of an event goes, in the second life.
    pub stages: Vec<StageStatus>,
    /// Seconds of play, without founding and outage.
    pub played_s: f64,
    /// Events of the crowd acknowledged meanwhile.
    pub events_played: u64,
    /// Events that crowd and hunters were told of.
    pub told: u64,
    /// The crowd's counts.
    pub totals: Totals,
    /// Datagrams of the crowd that never got an answer.
    pub unanswered: u64,
    /// The hunters.
    pub catch: Catch,
    /// The log, judged offline.
    pub log: LogVerdict,
    /// The state, compared.
    pub state: StateVerdict,
    /// How the server ended.
    pub exit: ExitStatus,
}

/// A time as people read it.
fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} us", ns / 1_000),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

/// Bytes as people read them.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

impl Findings {
    fn sums(&self) -> Vec<Sum> {
        sums(&self.status, &self.outside)
    }

    /// Frames that the sums here, or the server's own per queue and lane,
    /// do not explain.
    #[must_use]
    pub fn unaccounted_frames(&self) -> u64 {
        let here: u64 = self.sums().iter().map(|sum| sum.off).sum();
        here.max(self.status.accounting.unaccounted.unsigned_abs()) + self.first_life.0
    }

    fn events_sent(&self) -> u64 {
        self.totals.events + self.catch.events_sent
    }

    fn events_lost(&self) -> u64 {
        self.events_sent().saturating_sub(self.told)
    }

    fn events_per_s(&self) -> f64 {
        self.events_played as f64 / self.played_s
    }

    fn applied_twice(&self) -> u64 {
        self.log.applied_twice + self.totals.doubled
    }

    fn state_matches(&self) -> bool {
        self.state.differences == 0 && self.state.cells > 0 && self.state.players > 0
    }

    /// What is not as it should be, in words.
    fn faults(&self) -> Vec<String> {
        let fallback = fallback_frames(&self.status);
        let counts = [
            (self.log.acked_lost, "acknowledged events are not in the log as they were told"),
            (self.applied_twice(), "events were applied twice"),
            (self.state.differences, "players and hotspots differ from what clients were told"),
            (self.events_lost(), "events never got an answer"),
            (self.unaccounted_frames(), "frames are not accounted for"),
            (lost_answers(&self.status), "datagrams were taken and then given up by the server"),
            (fallback, "frames fell back to the kernel socket"),
        ];
        let mut faults: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", show_count(*count)))
            .collect();
        if self.state.differences == 0 && !self.state_matches() {
            faults.push("the snapshot of the state is empty".to_owned());
        }
        if self.log.judged == 0 || self.catch.receipts.is_empty() {
            faults.push("nothing was acknowledged".to_owned());
        }
        if !self.exit.success() {
            faults.push(format!("`veltrix run` ended with {} after SIGTERM, wanted 0", self.exit));
        }
        faults
    }

    /// Whether the demo showed what it is there to show.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults().is_empty()
    }

    /// The tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.what_ran(&mut out);
        self.what_became(&mut out);
        self.where_time_went(&mut out);
        self.recovery(&mut out);
        self.do_sums_close(&mut out);
        self.verdict(&mut out);
        out
    }

    fn what_ran(&self, out: &mut String) {
        out.push_str("\nWhat ran\n");
        let mut row = |name: &str, text: &str| {
            let _ = writeln!(out, "  {name:<10}{text}");
        };
        match &self.status.nic {
            Some(nic) => row(
                "packets",
                &format!(
                    "AF_XDP behind an XDP program of {} instructions, {} mode on {} ({}), zero-copy: {}",
                    nic.instructions,
                    nic.xdp_mode,
                    nic.name,
                    nic.driver,
                    if self.zero_copy() { "yes" } else { "no" }
                ),
            ),
            None => row("packets", &format!("UDP sockets on {}", self.status.listen)),
        }
        if let Some(log) = &self.status.log {
            let (wal, p) = (&log.wal, &log.wal.flush_ns);
            row(
                "log",
                &format!(
                    "{} segments of {}, writes {}; flush p50 {}, p99 {}, max {}",
                    wal.segments,
                    show_bytes(wal.segment_bytes),
                    wal.io,
                    time(p.p50),
                    time(p.p99),
                    time(p.max)
                ),
            );
        }
        row(
            "world",
            &format!(
                "{} hotspots and {} players in {} cities; hottest hunt {}, {:.1} % of all events, {:.0} times the median's",
                show_count(self.world.cells.len() as u64),
                show_count(self.world.players.into()),
                self.world.hunts.len(),
                self.world.hunts[0].city,
                self.world.hottest_share() * 100.0,
                f64::from(self.world.hunts[0].players)
                    / f64::from(self.world.hunts[self.world.hunts.len() / 2].players)
            ),
        );
        row("hunters", &format!("{HUNTERS} over {CLIENTS} SDK clients, each event awaited"));
        for text in &self.left_out {
            row("left out", text);
        }
    }

    fn what_became(&self, out: &mut String) {
        let n = show_count;
        let t = &self.totals;
        let outcomes: BTreeMap<_, _> = self.status.events.iter().filter(|(_, n)| **n > 0).collect();
        let mix: Vec<_> =
            outcomes.iter().map(|(label, count)| format!("{} {label}", n(**count))).collect();
        let _ = writeln!(out, "\nEvents\n  {:<24}{:>12}{:>12}{:>8}", "", "sent", "acked", "lost");
        for (name, sent, acked) in [
            ("phones, game servers", t.events, t.acked),
            ("SDK hunters", self.catch.events_sent, self.catch.receipts.len() as u64),
        ] {
            let lost = sent.saturating_sub(acked);
            let _ = writeln!(out, "  {name:<24}{:>12}{:>12}{:>8}", n(sent), n(acked), n(lost));
        }
        let _ = writeln!(
            out,
            "  of {} datagrams {} left twice, {} were tried again, {} were told to wait, {} acks never reached their player; {} events were answered as duplicates",
            n(t.datagrams),
            n(t.twice),
            n(t.retries),
            n(t.busy),
            n(t.ignored),
            n(t.duplicates),
        );
        let _ = writeln!(out, "  outcomes since the kill: {}", mix.join(", "));
        let _ = writeln!(
            out,
            "  {} events/s durable, applied and acknowledged over {:.1} s",
            n(self.events_per_s() as u64),
            self.played_s
        );
    }

    fn where_time_went(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<32}{:>8}{:>10}{:>10}{:>10}",
            "Where the time of an event goes", "p50", "p99", "p99.9", "max"
        );
        let mut row = |name: &str, p50: String, p99: String, p999: String, max: String| {
            let _ = writeln!(out, "  {name:<28}{p50:>10}{p99:>10}{p999:>10}{max:>10}");
        };
        for stage in &self.stages {
            let q = &stage.since_start_ns;
            row(&stage.stage, time(q.p50), time(q.p99), time(q.p999), time(q.max));
        }
        for (name, histogram) in [
            ("first send to ack, crowd", &self.totals.ack_ns),
            ("send to outcome, SDK", &self.catch.ack_ns),
            ("over the outage", &self.totals.ack_ns_outage),
        ] {
            if let Some(p) = Percentiles::of(histogram) {
                row(name, time(p.p50), time(p.p99), time(p.p999), time(p.max));
            }
        }
    }

    fn recovery(&self, out: &mut String) {
        let o = &self.outage;
        let n = show_count;
        let _ = writeln!(
            out,
            "\nkill -9 at epoch {}: snapshot of epoch {} loaded in {} ms, {} entries ({}) replayed, takes events {:.2} s after its start;\n  first durable ack {:.2} s after the start, {:.2} s after the kill",
            n(o.at_epoch),
            n(o.found.snapshot_epoch),
            n(o.found.snapshot_ms),
            n(o.found.entries),
            megabytes(o.found.bytes),
            o.ready.as_secs_f64(),
            o.recovery.as_secs_f64(),
            o.whole.as_secs_f64()
        );
        let log = &self.log;
        let _ = writeln!(
            out,
            "  log judged offline: {} events, {} duplicates; {} acked lost, {} applied twice ({} older ones are in the snapshot only)",
            n(log.judged),
            n(log.duplicates),
            n(log.acked_lost),
            n(self.applied_twice()),
            n(log.older)
        );
        let _ = writeln!(
            out,
            "  state: {} players and {} hotspots {} the sum of all {} acks",
            n(self.state.players),
            n(self.state.cells),
            if self.state_matches() { "are" } else { "ARE NOT" },
            n(self.told)
        );
        for example in log.examples.iter().chain(&self.state.examples) {
            let _ = writeln!(out, "    {example}");
        }
    }

    fn do_sums_close(&self, out: &mut String) {
        out.push_str("\nDo the sums close?\n");
        let mark = |off: u64| match off {
            0 => "closes".to_owned(),
            off => format!("OFF BY {}", show_count(off)),
        };
        let (off, frames) = self.first_life;
        let _ = writeln!(
            out,
            "  {:<8} first life: all of {} frames up to the last quiet moment; second life:",
            mark(off),
            show_count(frames)
        );
        for sum in self.sums() {
            let _ = writeln!(out, "  {:<8} {}", mark(sum.off), sum.text);
        }
        for lost in kernel_losses(&Status::default(), &self.status) {
            let _ = writeln!(out, "  lost, counted and tried again: {lost}");
        }
        for gap in &self.status.accounting.gaps {
            let _ = writeln!(
                out,
                "  the server says: {}: {}: {} against {}",
                gap.place, gap.line, gap.left, gap.right
            );
        }
        for alarm in &self.status.alarms {
            let _ = writeln!(out, "  the server's alarm {}: {}", alarm.name, alarm.message);
        }
    }

    fn verdict(&self, out: &mut String) {
        let faults = self.faults();
        if faults.is_empty() {
            let _ = writeln!(
                out,
                "\nGood: {} events acknowledged across a kill -9, none lost, none applied twice, every frame accounted for.",
                show_count(self.told)
            );
        } else {
            let _ = writeln!(out, "\nNOT GOOD: {}.", faults.join("; "));
        }
        out.push_str("Next: `cargo xtask test` runs all tests, README.md explains a packet's way, `veltrix run` serves this host.\n");
    }

    fn zero_copy(&self) -> bool {
        !self.status.lanes.is_empty() && self.status.lanes.iter().all(|lane| lane.zero_copy)
    }

    /// The object for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let round = |value: f64, by: f64| (value * by).round() / by;
        let percentiles = |histogram| {
            Percentiles::of(histogram)
                .map(|p| json!({ "p50": p.p50, "p99": p.p99, "p999": p.p999, "max": p.max }))
        };
        let quantiles =
            |q: &Quantiles| json!({ "p50": q.p50, "p99": q.p99, "p999": q.p999, "max": q.max });
        let stages: serde_json::Map<_, _> = self
            .stages
            .iter()
            .map(|stage| (stage.stage.clone(), quantiles(&stage.since_start_ns)))
            .collect();
        let datagrams = self.totals.datagrams + self.totals.twice + self.totals.retries;
        let provider = match self.status.provider {
            Provider::Xdp => "xdp",
            Provider::Udp => "udp",
        };
        json!({
            "provider": provider,
            "xdp_mode": self.status.nic.as_ref().map_or("none", |nic| &nic.xdp_mode),
            "zero_copy": self.zero_copy(),
            "queues": self.status.lanes.iter().filter(|lane| lane.queue.is_some()).count(),
            "lanes": self.status.lanes.iter().map(|l| json!({ "core": l.core, "queue": l.queue, "wait": l.wait })).collect::<Vec<_>>(),
            "seconds": round(self.played_s, 10.0),
            "events_sent": self.events_sent(),
            "events_acked": self.told,
            "events_lost": self.events_lost(),
            "sdk_events_sent": self.catch.events_sent,
            "sdk_events_acked": self.catch.receipts.len(),
            "events_per_s": round(self.events_per_s(), 10.0),
            "datagrams": datagrams,
            "retries": self.totals.retries,
            "busy": self.totals.busy,
            "duplicates": self.totals.duplicates,
            "ack_ns": percentiles(&self.totals.ack_ns),
            "sdk_ack_ns": percentiles(&self.catch.ack_ns),
            "stages_ns": stages,
            "recovery_s": round(self.outage.recovery.as_secs_f64(), 1e3),
            "outage_s": round(self.outage.whole.as_secs_f64(), 1e3),
            "events_judged": self.log.judged,
            "acked_lost": self.log.acked_lost,
            "applied_twice": self.applied_twice(),
            "state_matches_model": self.state_matches(),
            "frames": self.status.accounting.frames_in,
            "unaccounted_frames": self.unaccounted_frames(),
            "fallback_frames": fallback_frames(&self.status),
            "server_exit": self.exit.code(),
            "good": self.is_good(),
        })
    }
}
