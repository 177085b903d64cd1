//! What a load found, as text, as JSON and as a table of percentiles.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::ping::Percentiles;

/// What a load found. Of what was sent, every event is in exactly one of
/// `events_acked`, `events_busy`, `events_refused` and `events_lost`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The server.
    pub addr: SocketAddr,
    /// Ack mode asked for.
    pub mode: &'static str,
    /// Events in each datagram.
    pub fill: u16,
    /// Connections.
    pub connections: u32,
    /// From the first intended send to the last one sent, seconds.
    pub seconds: f64,
    /// Events the schedule asked for; without a schedule, those sent.
    pub events_intended: u64,
    /// Events sent.
    pub events_sent: u64,
    /// Events acknowledged, whatever their outcome.
    pub events_acked: u64,
    /// Events answered `busy`.
    pub events_busy: u64,
    /// Events in refused datagrams.
    pub events_refused: u64,
    /// Events without an answer within one second of sending.
    pub events_lost: u64,
    /// Acknowledged events by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Acknowledged events marked duplicate.
    pub duplicates: u64,
    /// Refused events by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Event datagrams sent.
    pub datagrams_sent: u64,
    /// Reply datagrams received; one ack may answer several.
    pub replies: u64,
    /// Answers for what was answered or given up already.
    pub replies_late: u64,
    /// Replies dropped: damaged, of another session, or unfitting.
    pub replies_invalid: u64,
    /// Datagrams the system would not send; their events count as lost.
    pub send_errors: u64,
    /// Times the server's host said that its port is closed.
    pub port_closed: u64,
    /// Events acknowledged a second.
    pub events_per_s: f64,
    /// Event datagrams sent a second.
    pub datagrams_per_s: f64,
    /// From intended send to ack, one value a datagram; none without acks.
    pub ack_ns: Option<Percentiles>,
    /// How far the generator fell behind its own schedule.
    pub behind: Behind,
    /// The histogram behind `ack_ns`.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// How far the generator fell behind its own schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// Datagrams sent over one millisecond late.
    pub datagrams_late: u64,
    /// Scheduled datagrams that were never sent.
    pub datagrams_unsent: u64,
    /// Longest delay, nanoseconds.
    pub late_ns_max: u64,
    /// Whether there was no schedule: latency is then from the actual send,
    /// and a stalled server hides its stall.
    pub closed_loop: bool,
}

impl Report {
    /// Whether every event sent is accounted for by exactly one end.
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.events_sent
            == self.events_acked + self.events_busy + self.events_refused + self.events_lost
    }

    /// The report as a person reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{} for {:.1} s: {} connections, {} events a datagram, acks `{}`",
            self.addr, self.seconds, self.connections, self.fill, self.mode
        );
        let mut row = |name: &str, value: u64, note: &str| {
            let _ = writeln!(out, "  {name:<18}{value:>14}  {note}");
        };
        row("events intended", self.events_intended, "");
        row("events sent", self.events_sent, "");
        row("  acked", self.events_acked, &mix(&self.outcomes));
        row("  busy", self.events_busy, "");
        row("  refused", self.events_refused, &mix(&self.refusals));
        row("  lost", self.events_lost, "no answer within 1 s");
        row("datagrams sent", self.datagrams_sent, "");
        row("replies", self.replies, "");
        for (name, value) in [
            ("  late", self.replies_late),
            ("  invalid", self.replies_invalid),
            ("send errors", self.send_errors),
            ("port closed", self.port_closed),
            ("duplicates", self.duplicates),
        ] {
            if value > 0 {
                row(name, value, "");
            }
        }
        let _ = writeln!(
            out,
            "  {:.0} events/s acked, {:.0} datagrams/s sent",
            self.events_per_s, self.datagrams_per_s
        );
        match self.ack_ns {
            Some(percentiles) => {
                let _ = writeln!(out, "  ack  {percentiles}");
            }
            None => out.push_str("  ack  none came\n"),
        }
        out.push_str(&self.note());
        out
    }

    /// What the latencies do and do not say.
    fn note(&self) -> String {
        let Behind { datagrams_late, datagrams_unsent, late_ns_max, closed_loop } = self.behind;
        if closed_loop {
            return "  Closed loop: latency is from the actual send, and omits what a stall held back.\n".into();
        }
        let mut out = format!(
            "  Latency is from the intended send; {datagrams_late} datagrams left over 1 ms late, the worst by {:.1} ms.\n",
            late_ns_max as f64 / 1e6
        );
        if datagrams_unsent > 0 {
            let _ = writeln!(
                out,
                "  {datagrams_unsent} scheduled datagrams were never sent: the percentiles understate; lower --rate or raise --fill."
            );
        }
        out
    }

    /// The percentile distribution in the text form of HdrHistogram's tools,
    /// in microseconds.
    #[must_use]
    pub fn hdr_text(&self) -> String {
        let histogram = &self.histogram;
        let us = |ns: u64| ns as f64 / 1e3;
        let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        let mut total = 0;
        for step in histogram.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let (value, quantile) = (us(step.value_iterated_to()), step.quantile_iterated_to());
            let _ = if quantile < 1.0 {
                let inverse = 1.0 / (1.0 - quantile);
                writeln!(out, "{value:12.3} {quantile:14.12} {total:10} {inverse:14.2}")
            } else {
                writeln!(out, "{value:12.3} {quantile:14.12} {total:10}")
            };
        }
        let _ = writeln!(
            out,
            "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
            histogram.mean() / 1e3,
            histogram.stdev() / 1e3
        );
        let _ = writeln!(
            out,
            "#[Max     = {:12.3}, Total count    = {:12}]",
            us(histogram.max()),
            histogram.len()
        );
        let _ = writeln!(
            out,
            "#[Buckets = {:12}, SubBuckets     = {:12}]",
            histogram.buckets(),
            SUB_BUCKETS
        );
        out
    }
}

/// Sub-buckets of a histogram of three significant digits.
const SUB_BUCKETS: u32 = 2048;

fn mix(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    parts.join(", ")
}
