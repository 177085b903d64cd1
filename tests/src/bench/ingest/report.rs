//! The figures of `bench ingest`, their goals, and the table; also of `bench game`,
//! with figures of its own.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// A figure and what is wanted of it.
pub struct Figure {
    key: &'static str,
    wanted: Wanted,
    meaning: &'static str,
}

/// What is wanted of a figure.
pub enum Wanted {
    /// It is shown, whatever it is.
    Nothing,
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

use Wanted::{AtLeast, AtMost, Nothing};

/// A row of the table; a dot in `key` leads into an object.
#[must_use]
pub const fn figure(key: &'static str, wanted: Wanted, meaning: &'static str) -> Figure {
    Figure { key, wanted, meaning }
}

/// Every figure, in the order of the table; a dot leads into an object.
const FIGURES: &[Figure] = &[
    figure(
        "events_per_s",
        AtLeast(5e6),
        "durable and applied, acknowledged; 24 events a datagram (far goal 10.5 M)",
    ),
    figure("datagram_fill", Nothing, "events a datagram"),
    figure("cpu_ns_per_event", Nothing, "all cores: generator, kernel, node"),
    figure("ack_ns.p50", Nothing, "send to ack at the maximum"),
    figure("ack_ns.p99", Nothing, ""),
    figure("ack_ns.p999", Nothing, ""),
    figure("ack_ns.max", Nothing, ""),
    figure("ack_ns_half.p50", Nothing, "intended send time to ack, open loop at half the maximum"),
    figure("ack_ns_half.p99", AtMost(999_999.0), ""),
    figure("ack_ns_half.p999", Nothing, ""),
    figure("ack_ns_half.max", Nothing, ""),
    figure("single_event_per_s", AtLeast(8e5), "datagrams of one event, 64 sessions"),
    figure("socket_events_per_s", Nothing, "the node on UDP sockets, 24 events a datagram"),
    figure("lost", AtMost(0.0), "events never acknowledged, or acknowledged and not judged"),
    figure("duplicated", AtMost(0.0), "events decided twice"),
    figure(
        "redis_streams_events_per_s",
        Nothing,
        "XADD MAXLEN ~ 10000, appendfsync always, best shape",
    ),
    figure("redis_benchmark_events_per_s", Nothing, "redis-benchmark in that shape"),
    figure("redis_client_behind", AtMost(0.2), "how far our client is behind redis-benchmark"),
    figure("redis_batched_events_per_s", Nothing, "256 events an entry"),
    figure("over_redis", AtLeast(15.0), "events_per_s over redis_streams_events_per_s"),
];

/// What the run found.
pub struct Report {
    figures: &'static [Figure],
    values: Map<String, Value>,
}

impl Default for Report {
    fn default() -> Self {
        Self::of(FIGURES)
    }
}

impl Report {
    /// An empty report with these figures, in the order of the table.
    #[must_use]
    pub fn of(figures: &'static [Figure]) -> Self {
        Self { figures, values: Map::new() }
    }

    /// Sets a figure, rounded to three decimals.
    pub fn set(&mut self, key: &str, value: f64) {
        self.values.insert(key.to_owned(), json!((value * 1e3).round() / 1e3));
    }

    /// Sets anything.
    pub fn set_value(&mut self, key: &str, value: Value) {
        self.values.insert(key.to_owned(), value);
    }

    /// Sets the percentiles of a latency.
    pub fn set_latency(&mut self, key: &str, ns: &Histogram<u64>) {
        let value = json!({
            "p50": ns.value_at_quantile(0.5),
            "p99": ns.value_at_quantile(0.99),
            "p999": ns.value_at_quantile(0.999),
            "max": if ns.is_empty() { 0 } else { ns.max() },
        });
        self.set_value(key, value);
    }

    /// A figure set before.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<f64> {
        let mut words = key.split('.');
        let first = self.values.get(words.next()?)?;
        words.try_fold(first, |value, word| value.get(word))?.as_f64()
    }

    fn is_met(&self, figure: &Figure) -> Option<bool> {
        let value = self.get(figure.key)?;
        match figure.wanted {
            Nothing => None,
            AtLeast(least) => Some(value >= least),
            AtMost(most) => Some(value <= most),
        }
    }

    /// Goals missed, by key.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        self.figures.iter().filter(|f| self.is_met(f) == Some(false)).map(|f| f.key).collect()
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        for figure in self.figures {
            let Some(value) = self.get(figure.key) else { continue };
            let wanted = match figure.wanted {
                Nothing => String::new(),
                AtLeast(least) => format!(">= {}", short(least)),
                AtMost(most) => format!("<= {}", short(most)),
            };
            let mark = match self.is_met(figure) {
                None => "",
                Some(true) => "ok",
                Some(false) => "MISSED",
            };
            out.push_str(&format!(
                "{:<28} {:>14} {:>12} {:<7} {}\n",
                figure.key,
                short(value),
                wanted,
                mark,
                figure.meaning
            ));
        }
        out
    }

    /// The one line for machines.
    #[must_use]
    pub fn json(&self) -> String {
        let mut all = self.values.clone();
        all.insert("goals".to_owned(), goals(self.figures));
        all.insert("missed".to_owned(), json!(self.missed()));
        Value::Object(all).to_string()
    }
}

fn goals(figures: &[Figure]) -> Value {
    let mut goals = Map::new();
    for figure in figures {
        match figure.wanted {
            Nothing => {}
            AtLeast(least) => {
                drop(goals.insert(figure.key.to_owned(), json!({ "at_least": least })))
            }
            AtMost(most) => drop(goals.insert(figure.key.to_owned(), json!({ "at_most": most }))),
        }
    }
    Value::Object(goals)
}

/// The machine that figures are of.
#[must_use]
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
    json!({
        "cpu": model.trim_start_matches([' ', '\t', ':']),
        "cores": veltrix::base::cpu::allowed_cores().len(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

fn short(value: f64) -> String {
    if value.abs() >= 1e4 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_by_key_and_by_part() {
        let mut report = Report::default();
        assert!(report.missed().is_empty(), "what was not measured is not missed");
        report.set("events_per_s", 4.9e6);
        report.set("lost", 0.0);
        let mut ns = Histogram::new(3).unwrap();
        ns.record(2_000_000).unwrap();
        report.set_latency("ack_ns_half", &ns);
        assert_eq!(report.missed(), ["events_per_s", "ack_ns_half.p99"]);
        assert!(report.table().contains("MISSED"), "{}", report.table());
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["goals"]["lost"]["at_most"], 0.0);
        assert_eq!(json["ack_ns_half"]["p50"].as_u64().map(|ns| ns / 10_000), Some(200));
    }
}
