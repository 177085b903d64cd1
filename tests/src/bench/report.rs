//! The figures of `bench path`, their goals, and the table.

use serde_json::{Map, Value, json};

/// A figure and what is wanted of it.
struct Goal {
    key: &'static str,
    meaning: &'static str,
    wanted: Option<Wanted>,
}

enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

const fn figure(key: &'static str, meaning: &'static str) -> Goal {
    Goal { key, meaning, wanted: None }
}

const fn at_most(key: &'static str, most: f64, meaning: &'static str) -> Goal {
    Goal { key, meaning, wanted: Some(Wanted::AtMost(most)) }
}

const fn at_least(key: &'static str, least: f64, meaning: &'static str) -> Goal {
    Goal { key, meaning, wanted: Some(Wanted::AtLeast(least)) }
}

/// Every figure, in the order of the table.
const FIGURES: &[Goal] = &[
    figure("kernel_udp_mpps", "kernel socket, recvmmsg: frames taken, million/s"),
    figure("raw_drop_mpps", "minimal AF_XDP loop, receive and recycle"),
    figure("lane_mpps", "lane: decode, check, account; replies made, not sent"),
    at_least("lane_over_kernel", 3.0, "lane over kernel socket"),
    figure("raw_ns_per_frame", "minimal loop's own time a frame, full ring"),
    figure("lane_ns_per_frame", "lane's own time a frame, 1 event a datagram"),
    at_most(
        "lane_minus_raw_ns",
        40.0,
        "what the lane adds to a frame, tenth fastest of 100 drains",
    ),
    figure("lane_minus_raw_ns_median", "the same, median drain"),
    at_most("lane_ns_per_event", 15.0, "lane's time an event, 24 events a datagram"),
    figure("lane_ns_per_event_median", "the same, median drain"),
    figure("raw_echo_mpps", "minimal AF_XDP loop, receive and send back"),
    figure("reply_mpps", "lane with a reply a datagram (pings)"),
    at_least("reply_over_raw_echo", 0.85, "lane's replies over the minimal loop's"),
    figure("acked_mpps", "lane with shared acks: 1 event a datagram"),
    figure("acked_events_per_s", "lane with shared acks: 24 events a datagram"),
    at_most("ebpf_ns_over_empty", 60.0, "kernel half over an empty program, every feature on"),
    at_most("ebpf_insns", 999.0, "its instructions"),
    at_most("syscalls_per_1k_packets", 19.999, "lane with shared acks"),
    at_most("unaccounted_frames", 0.0, "frames that no counter explains, all lane runs"),
    at_most("fallback_frames", 0.0, "frames that went to the kernel socket"),
    at_most(
        "restart_gap_ms",
        99.999,
        "kill -9 to the first answer, by whichever way, longest of 5",
    ),
];

/// What the run is held to.
pub struct Report {
    values: Map<String, Value>,
}

impl Report {
    /// No figure yet.
    #[must_use]
    pub fn new() -> Self {
        Self { values: Map::new() }
    }

    /// Sets a figure, rounded to three decimals.
    pub fn set(&mut self, key: &str, value: f64) {
        self.values.insert(key.to_owned(), json!((value * 1e3).round() / 1e3));
    }

    /// Adds to a figure that several parts of the run share.
    pub fn add(&mut self, key: &str, value: f64) {
        let before = self.values.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        self.set(key, before + value);
    }

    /// Sets anything.
    pub fn set_value(&mut self, key: &str, value: Value) {
        self.values.insert(key.to_owned(), value);
    }

    /// A figure set before.
    #[must_use]
    pub fn get(&self, key: &str) -> f64 {
        self.values.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// Goals missed, by key.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        FIGURES.iter().filter(|g| self.is_met(g) == Some(false)).map(|g| g.key).collect()
    }

    fn is_met(&self, goal: &Goal) -> Option<bool> {
        let value = self.get(goal.key);
        goal.wanted.as_ref().map(|wanted| match wanted {
            Wanted::AtMost(most) => value <= *most,
            Wanted::AtLeast(least) => value >= *least,
        })
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        for goal in FIGURES.iter().filter(|g| self.values.contains_key(g.key)) {
            let wanted = match &goal.wanted {
                None => String::new(),
                Some(Wanted::AtMost(most)) => format!("<= {}", trim(*most)),
                Some(Wanted::AtLeast(least)) => format!(">= {}", trim(*least)),
            };
            let mark = match self.is_met(goal) {
                None => "",
                Some(true) => "ok",
                Some(false) => "MISSED",
            };
            let value = self.get(goal.key);
            out.push_str(&format!(
                "{:<24} {:>14} {:>9} {:<7} {}\n",
                goal.key,
                if value >= 1e5 { format!("{value:.0}") } else { trim(value) },
                wanted,
                mark,
                goal.meaning
            ));
        }
        for key in ["ping_ns", "ping_ns_udp"] {
            if let Some(p) = self.values.get(key) {
                out.push_str(&format!(
                    "{key:<24} p50 {} p99 {} p99.9 {} max {}\n",
                    p["p50"], p["p99"], p["p999"], p["max"]
                ));
            }
        }
        out
    }

    /// The one line for machines.
    #[must_use]
    pub fn json(&self) -> String {
        Value::Object(self.values.clone()).to_string()
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

fn trim(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
