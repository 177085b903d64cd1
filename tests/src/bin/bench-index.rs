//! `cargo xtask bench index`: see `veltrix_tests::bench::index`.

use anyhow::Result;
use clap::Parser;
use serde_json::{Map, Value, json};
use veltrix_tests::bench::dedupe;
use veltrix_tests::bench::index::measure::{IndexNumbers, measure};
use veltrix_tests::bench::index::ranks::{self, RankNumbers};
use veltrix_tests::bench::index::world::{NODE, Scale};

/// Measures the in-memory index and the dedupe table by themselves.
#[derive(Parser)]
struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Measure one part only.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// 12 M cells and 10 M players in 64 partitions.
    Index,
    /// One of these partitions.
    Partition,
    /// The leaderboard of one hunt with 10 M players.
    Ranks,
    /// Dedupe at 2 M and at 29 M live keys.
    Dedupe,
}

/// Figures, and what goes into the one line for machines.
#[derive(Default)]
struct Report {
    values: Map<String, Value>,
    missed: Vec<&'static str>,
}

impl Report {
    /// Prints a figure; one with a goal is to be at most that.
    fn figure(&mut self, key: &'static str, value: f64, most: Option<f64>, meaning: &str) {
        let (wanted, mark) = match most {
            None => (String::new(), ""),
            Some(most) if value <= most => (format!("<= {most}"), "ok"),
            Some(most) => {
                self.missed.push(key);
                (format!("<= {most}"), "MISSED")
            }
        };
        println!("{key:<26} {value:>9.2} {wanted:>7} {mark:<7} {meaning}");
        self.values.insert(key.to_owned(), json!((value * 1e3).round() / 1e3));
    }

    fn node(&mut self, n: &IndexNumbers) {
        self.figure("get_ns", n.get_ns, None, "a cell read, groups of 32 prefetched");
        self.figure("get_plain_ns", n.get_plain_ns, None, "the same without prefetch");
        self.figure("update_ns", n.update_ns, Some(80.0), "a cell read and written, prefetched");
        self.figure("update_plain_ns", n.update_plain_ns, None, "the same without prefetch");
        self.figure("update_captured_ns", n.update_captured_ns, None, "the same under capture");
        self.figure("capture_step_max_us", n.capture_step_max_us, None, "slowest 64 KiB step");
        self.figure("insert_ns", n.insert_ns, None, "a new cell, ordered, no prefetch");
        self.figure("box_p50_us", n.box_p50_us, None, "a box, median");
        self.figure("box_p90_us", n.box_p90_us, None, "a box, nine in ten");
        self.figure("box_p99_us", n.box_p99_us, Some(30.0), "a box");
        self.figure("box_max_us", n.box_max_us, None, "a box, slowest");
        self.figure("box_cells", n.box_cells, None, "cells found in a box, mean");
        self.figure("nearest_p50_us", n.nearest_p50_us, None, "the ten nearest cells, median");
        self.figure("nearest_p99_us", n.nearest_p99_us, Some(50.0), "the ten nearest cells");
        self.figure("bytes_per_cell", n.bytes_per_cell, Some(40.0), "record, hash and order");
        let meaning = "and all rounding to huge pages";
        self.figure("bytes_per_cell_rounded", n.bytes_per_cell_rounded, None, meaning);
        let meaning = "loading, 0.83 players a cell with it";
        self.figure("restore_ns_per_cell", n.restore_ns_per_cell, None, meaning);
    }

    fn ranks(&mut self, n: &RankNumbers) {
        self.figure("rank_players", n.players.into(), None, "players of the hunt");
        let meaning = "distinct scores among them";
        self.figure("rank_scores_distinct", n.scores_distinct as f64, None, meaning);
        self.figure("score_ns", n.score_ns, None, "a score changed and its place on the board");
        self.figure("score_kept_ns", n.write_ns, None, "the same record written, no score changed");
        self.figure("rank_p50_us", n.rank_p50_us, None, "rank of a player, median");
        self.figure("rank_p99_us", n.rank_p99_us, Some(5.0), "rank of a player");
        self.figure("top100_us", n.top100_us, Some(20.0), "the first hundred, median");
        self.figure("top100_p99_us", n.top100_p99_us, None, "the first hundred");
        self.figure("bytes_per_score", n.bytes_per_score, None, "the board");
        self.figure("bytes_per_player", n.bytes_per_player, None, "record and hash");
        let meaning = "loading, the board with it";
        self.figure("restore_ns_per_player", n.restore_ns_per_player, None, meaning);
    }

    fn partition(&mut self, n: &IndexNumbers) {
        self.figure("one_partition_get_ns", n.get_ns, None, "one partition by itself");
        self.figure("one_partition_update_ns", n.update_ns, None, "one partition by itself");
        self.figure("one_partition_box_p99_us", n.box_p99_us, None, "one partition by itself");
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let say = |what: &str| eprintln!("bench index: {what}");
    let wants = |part: Part| args.only.is_none_or(|only| only == part);
    let mut report = Report::default();
    if wants(Part::Index) {
        report.node(&measure(NODE, say)?);
    }
    if wants(Part::Partition) {
        report.partition(&measure(Scale { partitions: 1, ..NODE }, say)?);
    }
    if wants(Part::Ranks) {
        say("one hunt with 10 M players");
        report.ranks(&ranks::measure(10_000_000)?);
    }
    if wants(Part::Dedupe) {
        let n = dedupe::measure(say)?;
        report.figure("dedupe_2m_ns", n.at_2m_ns, None, "a key checked and recorded, 2 M live");
        report.figure("dedupe_29m_ns", n.at_29m_ns, Some(120.0), "the same, 29 M live");
        report.figure("dedupe_bytes_per_key", n.bytes_per_key, Some(24.0), "at capacity");
    }
    if !report.missed.is_empty() {
        println!("missed: {}", report.missed.join(", "));
    }
    report.values.insert("missed".to_owned(), json!(report.missed));
    if args.json {
        println!("{}", Value::Object(report.values));
    }
    Ok(())
}
