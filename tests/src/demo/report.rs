//! What the demo found: a table for people, one JSON object for programs.

use std::fmt::Write as _;
use std::process::ExitStatus;

use serde_json::{Value, json};
use veltrix::admin::status::{Provider, Status};
use veltrix::cli::ping::Percentiles;
use veltrix::config::value::show_count;

use super::hunters::{CLIENTS, Catch, HUNTERS};
use super::sums::{Outside, Sum, fallback_frames, sums, ways_out};

/// From so much loss on the last sentence says it.
const SAID_PERCENT_LEAST: f64 = 1.0;

/// Events and datagrams of one part of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Events sent.
    pub events_sent: u64,
    /// Events acknowledged.
    pub events_acked: u64,
    /// Datagrams they were sent in.
    pub datagrams: u64,
}

impl Load {
    /// Adds another part.
    pub fn add(&mut self, other: &Self) {
        self.events_sent += other.events_sent;
        self.events_acked += other.events_acked;
        self.datagrams += other.datagrams;
    }

    /// Events without an ack.
    #[must_use]
    pub const fn events_lost(&self) -> u64 {
        self.events_sent.saturating_sub(self.events_acked)
    }
}

/// The part of the run that held one rate.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The generator's share.
    pub load: Load,
    /// How long.
    pub seconds: f64,
    /// Datagrams that Veltrix took meanwhile, whoever sent them.
    pub datagrams_in: u64,
    /// Where something was lost, if it was.
    pub loss: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Findings {
    /// What was left out, and why.
    pub left_out: Vec<String>,
    /// What sent the load.
    pub source: String,
    /// The server's counters, quiet, before its end.
    pub status: Status,
    /// Counted outside it.
    pub outside: Outside,
    /// The search for the rate.
    pub search: Load,
    /// What ended it.
    pub limit: String,
    /// The rate held.
    pub hold: Hold,
    /// The hunters.
    pub catch: Catch,
    /// How the server ended.
    pub exit: ExitStatus,
}

impl Findings {
    fn sums(&self) -> Vec<Sum> {
        sums(&self.status, &self.outside)
    }

    fn total(&self) -> Load {
        let mut total = self.sdk();
        total.add(&self.search);
        total.add(&self.hold.load);
        total
    }

    fn sdk(&self) -> Load {
        Load {
            events_sent: self.catch.events_sent,
            events_acked: self.catch.events_acked,
            datagrams: self.catch.datagrams_sent,
        }
    }

    /// Frames that the sums here, or the server's own per queue and lane,
    /// do not explain.
    #[must_use]
    pub fn unaccounted_frames(&self) -> u64 {
        let here: u64 = self.sums().iter().map(|sum| sum.off).sum();
        here.max(self.status.accounting.unaccounted.unsigned_abs())
    }

    fn events_per_s(&self) -> f64 {
        (self.hold.load.events_acked + self.catch.events_acked_measured) as f64 / self.hold.seconds
    }

    fn datagrams_per_s(&self) -> f64 {
        self.hold.datagrams_in as f64 / self.hold.seconds
    }

    fn provider(&self) -> &'static str {
        match self.status.provider {
            Provider::Xdp => "xdp",
            Provider::Udp => "udp",
        }
    }

    fn xdp_mode(&self) -> &str {
        self.status.nic.as_ref().map_or("none", |nic| &nic.xdp_mode)
    }

    fn zero_copy(&self) -> bool {
        !self.status.lanes.is_empty() && self.status.lanes.iter().all(|lane| lane.zero_copy)
    }

    fn queues(&self) -> usize {
        self.status.lanes.iter().filter(|lane| lane.queue.is_some()).count()
    }

    /// Events of the held load without an ack, percent.
    fn percent_lost(&self) -> f64 {
        let load = &self.hold.load;
        load.events_lost() as f64 / load.events_sent.max(1) as f64 * 100.0
    }

    /// What is not as it should be, in words.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let unaccounted = self.unaccounted_frames();
        if unaccounted > 0 {
            faults.push(format!("{} frames are not accounted for", show_count(unaccounted)));
        }
        let fallback = fallback_frames(&self.status);
        if fallback > 0 {
            faults.push(format!("{} frames fell back to the kernel socket", show_count(fallback)));
        }
        if self.hold.load.events_acked == 0 {
            faults.push("no event of the load was acknowledged".to_owned());
        }
        if self.catch.events_acked == 0 {
            faults.push("no event of the SDK was acknowledged".to_owned());
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

    /// The table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.what_ran(&mut out);
        self.what_became(&mut out);
        self.where_frames_went(&mut out);
        self.verdict(&mut out);
        out
    }

    fn what_ran(&self, out: &mut String) {
        out.push_str("\nWhat ran\n");
        let mut row = |name: &str, text: &str| {
            let _ = writeln!(out, "  {name:<10}{text}");
        };
        match &self.status.nic {
            Some(nic) => {
                row(
                    "packets",
                    &format!(
                        "AF_XDP sockets behind an XDP program of {} instructions",
                        nic.instructions
                    ),
                );
                let copy = if self.zero_copy() {
                    "yes"
                } else {
                    "no, frames are copied once (veth has no zero-copy)"
                };
                row(
                    "XDP mode",
                    &format!(
                        "{} ({}, driver {}); zero-copy: {copy}",
                        nic.xdp_mode, nic.name, nic.driver
                    ),
                );
            }
            None => {
                row(
                    "packets",
                    &format!("UDP sockets of the kernel on {}; XDP mode: none", self.status.listen),
                );
            }
        }
        for lane in &self.status.lanes {
            let queue = lane.queue.map_or(String::new(), |queue| format!("queue {queue}, "));
            let core =
                lane.core.map_or_else(|| "any core".to_owned(), |core| format!("core {core}"));
            row(
                &format!("lane {}", lane.lane),
                &format!("{queue}{core}, waits by `{}`", lane.wait),
            );
        }
        row("load", &self.source);
        row(
            "",
            &format!(
                "{HUNTERS} hunters near real cities over {CLIENTS} SDK clients, each event awaited"
            ),
        );
        for text in &self.left_out {
            row("left out", text);
        }
    }

    fn what_became(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<28}{:>14}{:>14}{:>12}{:>14}",
            "Events", "sent", "acked", "lost", "datagrams"
        );
        let mut row = |name: &str, load: &Load| {
            let _ = writeln!(
                out,
                "  {name:<26}{:>14}{:>14}{:>12}{:>14}",
                show_count(load.events_sent),
                show_count(load.events_acked),
                show_count(load.events_lost()),
                show_count(load.datagrams)
            );
        };
        row("load, searching its rate", &self.search);
        row("load, holding its rate", &self.hold.load);
        row("SDK hunters", &self.sdk());
        row("all", &self.total());
        if self.catch.retries > 0 {
            let _ = writeln!(
                out,
                "  the SDK sent {} datagrams again, whose acks did not come in time (mode `none` may then accept an event twice)",
                show_count(self.catch.retries)
            );
        }
        let _ = writeln!(out, "  the search went up until something was lost: {}", self.limit);
        if let Some(loss) = &self.hold.loss {
            let percent = self.percent_lost();
            let _ = writeln!(out, "  lost while holding, {percent:.3} % of it: {loss}");
            out.push_str(
                "  (one possible reason: another program on the lane's core; try it on an idle machine)\n",
            );
        }
        let _ = writeln!(
            out,
            "\nHeld for {:.1} s: {} events/s acknowledged, {} datagrams/s",
            self.hold.seconds,
            show_count(self.events_per_s() as u64),
            show_count(self.datagrams_per_s() as u64)
        );
        match Percentiles::of(&self.catch.ack_ns) {
            Some(p) => {
                let us = |ns: u64| show_count(ns / 1_000);
                let _ = writeln!(
                    out,
                    "  event to ack, as the SDK saw it beside that load: p50 {} us, p99 {} us, p99.9 {} us, max {} us",
                    us(p.p50),
                    us(p.p99),
                    us(p.p999),
                    us(p.max)
                );
            }
            None => out.push_str("  event to ack: no ack came\n"),
        }
    }

    fn where_frames_went(&self, out: &mut String) {
        out.push_str("\nWhere every frame went\n");
        for (place, rows) in ways_out(&self.status) {
            let _ = writeln!(out, "  {place}");
            for (label, count, meaning) in rows {
                let _ = writeln!(out, "    {label:<16}{:>14}  {meaning}", show_count(count));
            }
        }
        out.push_str("\nDo the sums close?\n");
        for sum in self.sums() {
            let mark = match sum.off {
                0 => "closes".to_owned(),
                off => format!("OFF BY {}", show_count(off)),
            };
            let _ = writeln!(out, "  {mark:<8}{}", sum.text);
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
        let frames = show_count(self.status.accounting.frames_in);
        if faults.is_empty() {
            let way = match self.status.provider {
                Provider::Xdp => "all of them by XDP",
                Provider::Udp => "by UDP sockets",
            };
            let lost = match self.percent_lost() {
                lost if lost >= SAID_PERCENT_LEAST => {
                    format!(
                        "; {lost:.0} % of the held load was lost, and counted, where it says so above"
                    )
                }
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "\nGood: {frames} frames came in, {way}, and every one is accounted for{lost}."
            );
        } else {
            let _ = writeln!(out, "\nNOT GOOD: {}.", faults.join("; "));
        }
        out.push_str("Next: `cargo xtask test` runs all tests, README.md explains a packet's way, `veltrix run` serves this host.\n");
    }

    /// The object for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let total = self.total();
        let round = |value: f64| (value * 10.0).round() / 10.0;
        let ack = Percentiles::of(&self.catch.ack_ns);
        json!({
            "provider": self.provider(),
            "xdp_mode": self.xdp_mode(),
            "zero_copy": self.zero_copy(),
            "queues": self.queues(),
            "lanes": self.status.lanes.iter().map(|l| json!({ "core": l.core, "queue": l.queue, "wait": l.wait })).collect::<Vec<_>>(),
            "seconds": round(self.hold.seconds),
            "events_sent": total.events_sent,
            "events_acked": total.events_acked,
            "events_lost": total.events_lost(),
            "events_lost_holding": self.hold.load.events_lost(),
            "sdk_events_sent": self.catch.events_sent,
            "sdk_events_acked": self.catch.events_acked,
            "events_per_s": round(self.events_per_s()),
            "datagrams_per_s": round(self.datagrams_per_s()),
            "ack_ns": ack.map(|p| json!({ "p50": p.p50, "p99": p.p99, "p999": p.p999, "max": p.max })),
            "frames": self.status.accounting.frames_in,
            "unaccounted_frames": self.unaccounted_frames(),
            "fallback_frames": fallback_frames(&self.status),
            "server_exit": self.exit.code(),
            "good": self.is_good(),
        })
    }
}
