//! The status in the text format of Prometheus: one table of families, from which
//! `GET /metrics` and the documentation are made.

use std::fmt::Write as _;

use super::log_status::LogStatus;
use super::status::{LaneStatus, Status};

/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of samples.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Its labels, with commas between; empty for none.
    pub labels: &'static str,
    /// What it is.
    pub doc: &'static str,
    samples: fn(&Status, &mut Samples<'_>),
}

/// Writes the samples of one family.
struct Samples<'a> {
    name: &'static str,
    out: &'a mut String,
}

impl Samples<'_> {
    fn add(&mut self, labels: &[(&str, &dyn std::fmt::Display)], value: impl std::fmt::Display) {
        self.out.push_str(self.name);
        for (at, (name, text)) in labels.iter().enumerate() {
            let text = text.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            let text = text.replace('\n', "\\n");
            let _ = write!(self.out, "{}{name}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A sample for each lane, the fallback's with the label `fallback`.
    fn lanes(&mut self, status: &Status, value: impl Fn(&LaneStatus) -> u64) {
        each_lane(status, |name, lane| self.add(&[("lane", &name)], value(lane)));
    }

    /// A sample of the log, if there is one.
    fn log(&mut self, status: &Status, value: impl Fn(&LogStatus) -> u64) {
        if let Some(log) = &status.log {
            self.add(&[], value(log));
        }
    }
}

fn each_lane(status: &Status, mut each: impl FnMut(&str, &LaneStatus)) {
    for lane in &status.lanes {
        each(&lane.lane.to_string(), lane);
    }
    if let Some(lane) = &status.fallback {
        each("fallback", lane);
    }
}

macro_rules! families {
    ($($kind:ident $name:literal [$labels:literal] $doc:literal, $samples:expr;)*) => {
        /// Every family, in the order of the text.
        pub static FAMILIES: &[Family] = &[$(Family {
            name: $name,
            kind: stringify!($kind),
            labels: $labels,
            doc: $doc,
            samples: $samples,
        },)*];
    };
}

families! {
    gauge "veltrix_info" ["version, provider"] "Always 1.", |s, out| {
        let provider = match s.provider {
            super::status::Provider::Xdp => "xdp",
            super::status::Provider::Udp => "udp",
        };
        out.add(&[("version", &s.version), ("provider", &provider)], 1);
    };
    gauge "veltrix_uptime_seconds" [""] "Seconds since it began to serve.", |s, out| {
        out.add(&[], s.uptime_s);
    };
    gauge "veltrix_accounting_closes" [""] "1 while every frame and event is accounted for.", |s, out| {
        out.add(&[], u8::from(s.accounting.closes));
    };
    gauge "veltrix_alarm_seconds" ["alarm"] "Seconds since an alarm was raised; absent while it is not.", |s, out| {
        for alarm in &s.alarms {
            out.add(&[("alarm", &alarm.name)], alarm.since_s);
        }
    };
    counter "veltrix_events_total" ["outcome"] "Events answered by outcome; those applied before count as `duplicate`.", |s, out| {
        for (outcome, count) in &s.events {
            out.add(&[("outcome", outcome)], count);
        }
    };
    counter "veltrix_program_frames_total" ["queue"] "Frames the XDP program saw; `beyond` is the row of queues beyond those at start.", |s, out| {
        for row in &s.xdp_queues {
            out.add(&[("queue", &queue_name(row.queue))], row.frames);
        }
    };
    counter "veltrix_program_exits_total" ["queue, exit"] "Frames by exit of the XDP program.", |s, out| {
        for row in &s.xdp_queues {
            for (exit, count) in &row.exits {
                out.add(&[("queue", &queue_name(row.queue)), ("exit", exit)], count);
            }
        }
    };
    counter "veltrix_frames_total" ["lane"] "Frames or datagrams taken from the ring or socket.", |s, out| {
        out.lanes(s, |lane| lane.frames);
    };
    counter "veltrix_payload_bytes_total" ["lane"] "Bytes of UDP payload in them.", |s, out| {
        out.lanes(s, |lane| lane.payload_bytes);
    };
    counter "veltrix_exits_total" ["lane, exit"] "Frames by exit of a lane.", |s, out| {
        each_lane(s, |name, lane| {
            for (exit, count) in &lane.exits {
                out.add(&[("lane", &name), ("exit", exit)], count);
            }
        });
    };
    counter "veltrix_lane_events_total" ["lane"] "Events in datagrams that were served.", |s, out| {
        out.lanes(s, |lane| lane.events);
    };
    counter "veltrix_replies_total" ["lane, fate"] "Replies by fate.", |s, out| {
        each_lane(s, |name, lane| {
            let r = &lane.replies;
            let fates = [r.sent, r.coalesced, r.dropped_tx_full, r.withheld];
            for ((fate, _), count) in super::status::REPLY_FATES.iter().zip(fates) {
                out.add(&[("lane", &name), ("fate", fate)], count);
            }
        });
    };
    gauge "veltrix_acks_pending" ["lane"] "Datagrams in a batch that is not applied yet, or whose queries another lane answers.", |s, out| {
        out.lanes(s, |lane| lane.acks.pending);
    };
    counter "veltrix_acks_lost_total" ["lane"] "Datagrams whose batch will not commit.", |s, out| {
        out.lanes(s, |lane| lane.acks.lost);
    };
    counter "veltrix_socket_drops_total" ["lane"] "Datagrams the kernel dropped at a UDP socket.", |s, out| {
        out.lanes(s, |lane| lane.socket_drops);
    };
    counter "veltrix_xdp_statistics_total" ["lane, counter"] "The kernel's counters of AF_XDP sockets.", |s, out| {
        each_lane(s, |name, lane| {
            if lane.queue.is_none() {
                return;
            }
            let x = &lane.xdp_statistics;
            let counts = [
                x.rx_dropped, x.rx_invalid_descs, x.tx_invalid_descs,
                x.rx_ring_full, x.rx_fill_ring_empty_descs, x.tx_ring_empty_descs,
            ];
            for ((counter, ..), count) in super::status::XDP_STATISTICS.iter().zip(counts) {
                out.add(&[("lane", &name), ("counter", counter)], count);
            }
        });
    };
    counter "veltrix_syscalls_total" ["lane"] "System calls made for packets.", |s, out| {
        out.lanes(s, |lane| lane.syscalls);
    };
    counter "veltrix_turns_total" ["lane"] "Passes of the loop.", |s, out| {
        out.lanes(s, |lane| lane.turns);
    };
    counter "veltrix_sleeps_total" ["lane"] "Times a lane slept in the kernel.", |s, out| {
        out.lanes(s, |lane| lane.sleeps);
    };
    counter "veltrix_run_delay_seconds_total" ["lane"] "Time a lane was ready and something else had its core.", |s, out| {
        each_lane(s, |name, lane| {
            if let Some(ns) = lane.run_delay_ns {
                out.add(&[("lane", &name)], ns as f64 / 1e9);
            }
        });
    };
    gauge "veltrix_log_ready" [""] "1 while events are taken: the log is replayed and this node leads.", |s, out| {
        out.log(s, |log| log.ready.into());
    };
    gauge "veltrix_log_epoch" ["at"] "Last epoch in the log (`last`), durable on a majority (`committed`), applied by every lane (`applied`).", |s, out| {
        if let Some(log) = &s.log {
            out.add(&[("at", &"last")], log.last_epoch);
            out.add(&[("at", &"committed")], log.committed_epoch);
            out.add(&[("at", &"applied")], log.applied_epoch);
        }
    };
    gauge "veltrix_log_time_seconds" [""] "Log time, since the Unix epoch.", |s, out| {
        if let Some(log) = &s.log {
            let (s, ns) = (log.log_time_ns / 1_000_000_000, log.log_time_ns % 1_000_000_000);
            out.add(&[], format_args!("{s}.{ns:09}"));
        }
    };
    counter "veltrix_log_clock_jumps_total" [""] "Jumps of the wall clock.", |s, out| {
        out.log(s, |log| log.clock_jumps);
    };
    gauge "veltrix_log_in_flight" [""] "Proposals taken and not committed.", |s, out| {
        out.log(s, |log| log.in_flight);
    };
    counter "veltrix_log_lost_total" [""] "Batches that will never commit.", |s, out| {
        out.log(s, |log| log.lost);
    };
    counter "veltrix_wal_records_total" [""] "Records written.", |s, out| {
        out.log(s, |log| log.wal.records);
    };
    counter "veltrix_wal_bytes_total" [""] "Bytes written, padding included.", |s, out| {
        out.log(s, |log| log.wal.bytes);
    };
    gauge "veltrix_wal_segments" [""] "Segments there are.", |s, out| {
        out.log(s, |log| log.wal.segments);
    };
    gauge "veltrix_wal_segments_used" [""] "Segments that hold what a restart would need.", |s, out| {
        out.log(s, |log| log.wal.segments_used);
    };
    counter "veltrix_snapshots_total" ["result"] "Snapshots `taken` and `failed`.", |s, out| {
        if let Some(log) = &s.log {
            out.add(&[("result", &"taken")], log.snapshots.taken);
            out.add(&[("result", &"failed")], log.snapshots.failed);
        }
    };
    gauge "veltrix_snapshot_epoch" [""] "Least epoch in the newest snapshot; 0 without one.", |s, out| {
        out.log(s, |log| log.snapshots.newest_epoch);
    };
    counter "veltrix_judged_total" ["outcome"] "Events that partitions have judged in this life, replay included.", |s, out| {
        for (outcome, count) in s.log.iter().flat_map(|log| &log.judged) {
            out.add(&[("outcome", outcome)], count);
        }
    };
    counter "veltrix_class_events_total" ["class"] "Events that a rule has decided, by the latency class of their game.", |s, out| {
        for class in s.log.iter().flat_map(|log| &log.latency) {
            out.add(&[("class", &class.class)], class.events);
        }
    };
    counter "veltrix_class_late_total" ["class"] "Those whose outcome came later than the target of the class.", |s, out| {
        for class in s.log.iter().flat_map(|log| &log.latency) {
            out.add(&[("class", &class.class)], class.late);
        }
    };
    gauge "veltrix_effects_owed" ["kind"] "What regions of split hunts owe each other: `requests` that wait for their reply, `replies` that wait for delivery.", |s, out| {
        if let Some(log) = &s.log {
            out.add(&[("kind", &"requests")], log.effects.requests);
            out.add(&[("kind", &"replies")], log.effects.replies);
        }
    };
    counter "veltrix_effects_repeated_total" [""] "Requests and replies that came again, or found no room, and were not taken.", |s, out| {
        out.log(s, |log| log.effects.repeated);
    };
    gauge "veltrix_stage_seconds" ["stage, quantile"] "Time of each stage of a durable event over the last ten seconds.", |s, out| {
        for stage in s.log.iter().flat_map(|log| &log.stages) {
            let q = &stage.last_10s_ns;
            for (quantile, ns) in [("0.5", q.p50), ("0.99", q.p99), ("0.999", q.p999), ("1", q.max)] {
                let (s, ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
                let labels: [(&str, &dyn std::fmt::Display); 2] =
                    [("stage", &stage.stage), ("quantile", &quantile)];
                out.add(&labels, format_args!("{s}.{ns:09}"));
            }
        }
    };
}

fn queue_name(queue: Option<u32>) -> String {
    queue.map_or_else(|| "beyond".into(), |queue| queue.to_string())
}

/// The whole text.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        let _ = writeln!(out, "# HELP {} {}", family.name, family.doc);
        let _ = writeln!(out, "# TYPE {} {}", family.name, family.kind);
        (family.samples)(status, &mut Samples { name: family.name, out: &mut out });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::Alarm;

    #[test]
    fn every_sample_belongs_to_its_family_and_has_its_labels() {
        let lane = LaneStatus { queue: Some(0), ..LaneStatus::default() };
        let status = Status {
            lanes: vec![lane.clone()],
            fallback: Some(lane),
            log: Some(Box::default()),
            alarms: vec![Alarm { name: "a\"b\\c\nd".into(), ..Alarm::default() }],
            ..Status::default()
        };
        let text = text(&status);
        assert!(text.contains("veltrix_alarm_seconds{alarm=\"a\\\"b\\\\c\\nd\"} 0\n"), "{text}");
        let mut family = FAMILIES.iter().next();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap();
                family = FAMILIES.iter().find(|family| family.name == name);
                continue;
            }
            if line.starts_with("# TYPE ") {
                continue;
            }
            let family = family.expect("a sample before its family");
            let labels: Vec<_> =
                family.labels.split(", ").filter(|label| !label.is_empty()).collect();
            let (name, rest) = line.split_once(['{', ' ']).unwrap();
            assert_eq!(name, family.name);
            assert_eq!(line.matches("=\"").count(), labels.len(), "{line}");
            assert!(labels.iter().all(|label| rest.contains(&format!("{label}=\""))), "{line}");
        }
    }

    #[test]
    fn names_are_distinct_and_counters_say_so() {
        for (at, family) in FAMILIES.iter().enumerate() {
            assert!(FAMILIES[..at].iter().all(|before| before.name != family.name));
            assert_eq!(
                family.kind == "counter",
                family.name.ends_with("_total"),
                "{}",
                family.name
            );
        }
    }
}
