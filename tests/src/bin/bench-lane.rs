//! `cargo xtask bench lane`: see `veltrix_tests::bench::lane`.

use anyhow::Result;
use clap::Parser;
use serde_json::{Map, Value, json};
use veltrix_tests::bench::lane::{self, Measured, traffic::Scale};

/// Measures what an event costs a core from raw datagram to finished ack:
/// decode, batch, dedupe, apply, ack; without a NIC and without a log.
#[derive(Parser)]
struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Measure at one scale only.
    #[arg(long, value_enum)]
    only: Option<Which>,
    /// Rounds timed at each scale, of 393,216 events; their median counts.
    #[arg(long, default_value_t = 25)]
    rounds: usize,
    /// The reference model watches one hunt in so many at the full scale; at
    /// the small one it watches all of them.
    #[arg(long, default_value_t = 16)]
    watch_one_in: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// 2 M cells, 2 M live keys.
    Small,
    /// 12 M cells, 10 M players, 29 M live keys.
    Full,
}

/// A scale, its key in the report and its goal.
struct Part {
    which: Which,
    scale: Scale,
    key: &'static str,
    goal_per_s: f64,
}

const PARTS: [Part; 2] = [
    Part { which: Which::Small, scale: lane::SMALL, key: "events_per_s", goal_per_s: 10.5e6 },
    Part { which: Which::Full, scale: lane::FULL, key: "events_per_s_full", goal_per_s: 5e6 },
];

fn main() -> Result<()> {
    let args = Args::parse();
    let mut report = Map::new();
    let mut missed = Vec::new();
    for part in PARTS.iter().filter(|p| args.only.is_none_or(|only| only == p.which)) {
        let watch_one_in = if part.which == Which::Small { 1 } else { args.watch_one_in };
        let say = |what: &str| eprintln!("bench lane: {what}");
        let measured = lane::measure(part.scale, args.rounds.max(1), watch_one_in, say)?;
        print(part, &measured);
        if measured.events_per_s() < part.goal_per_s {
            missed.push(part.key);
        }
        report.insert(part.key.to_owned(), json!(measured.events_per_s().round()));
        report.insert(part.key.replace("events_per_s", "lane"), details(&measured));
    }
    if !missed.is_empty() {
        println!("missed: {}", missed.join(", "));
    }
    // A difference from the model ends the run with an error before this line.
    report.insert("state_matches_model".to_owned(), json!(true));
    report.insert("missed".to_owned(), json!(missed));
    if args.json {
        println!("{}", Value::Object(report));
    }
    Ok(())
}

/// Stages with their time, ns an event.
fn stages(measured: &Measured) -> [(&'static str, f64, &'static str); 5] {
    let (times, ns) = (&measured.median, |ns| measured.ns_per_event(ns));
    let decode = measured.decode_ns.min(times.batch_ns);
    [
        ("decode_ns", ns(decode), "CRC and structure of the datagram"),
        ("batch_ns", ns(times.batch_ns - decode), "copy to the batch, partition, seal"),
        ("apply_ns", ns(times.apply_ns), "dedupe, rules, index, digest, outcome slots"),
        ("ack_ns", ns(times.ack_ns), "one ack a datagram, with its CRC"),
        ("total_ns", ns(times.total_ns()), "all of it"),
    ]
}

fn print(part: &Part, measured: &Measured) {
    let mark = if measured.events_per_s() < part.goal_per_s { "MISSED" } else { "ok" };
    println!(
        "{:<20} {:>12.0} >= {:<10.0} {mark:<7} {} cells, {} players, {} keys, {} MiB",
        part.key,
        measured.events_per_s(),
        part.goal_per_s,
        measured.cells,
        measured.players,
        measured.keys,
        measured.bytes >> 20,
    );
    for (key, ns, meaning) in stages(measured) {
        println!("  {key:<18} {ns:>12.1} ns an event    {meaning}");
    }
    println!(
        "  {:<18} {:>12.1} ns a cache line  at random in as many bytes, 16 under way: an event touches 6",
        "line_ns", measured.line_ns
    );
    let (fastest, slowest) = measured.range_ns;
    println!("  rounds from {fastest:.1} to {slowest:.1} ns an event");
    let all = measured.outcomes.iter().map(|o| o.1).sum::<u64>() as f64;
    let mix = measured.outcomes.iter().filter(|o| o.1 > 0);
    let mix: Vec<String> =
        mix.map(|(label, n)| format!("{label} {:.1} %", *n as f64 * 100.0 / all)).collect();
    println!("  outcomes: {}", mix.join(", "));
    println!(
        "  as the model says: {} events, end state of {} hunts",
        measured.checked_events, measured.checked_hunts
    );
}

fn details(measured: &Measured) -> Value {
    let mut details = Map::new();
    for (key, ns, _) in stages(measured) {
        details.insert(key.to_owned(), json!((ns * 10.0).round() / 10.0));
    }
    details.insert("line_ns".to_owned(), json!((measured.line_ns * 10.0).round() / 10.0));
    for (key, value) in [
        ("cells", measured.cells),
        ("players", measured.players),
        ("keys", measured.keys),
        ("bytes", measured.bytes),
        ("checked_events", measured.checked_events),
    ] {
        details.insert(key.to_owned(), json!(value));
    }
    let outcomes = measured.outcomes.iter().map(|(label, n)| ((*label).to_owned(), json!(n)));
    details.insert("outcomes".to_owned(), Value::Object(outcomes.collect()));
    Value::Object(details)
}
