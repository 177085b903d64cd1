//! `cargo xtask bench wal`: see the page of `wal`.

#[path = "../bench/wal/mod.rs"]
mod wal;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Map, Value, json};
use wal::measure::{Cell, DEPTH, Row, SIZES, measure};
use wal::subjects::{Ours, Plain, RaftLogs, Scratch, Subject};

/// Measures the write-ahead log beside raft-log 0.3 and plain write + fdatasync.
#[derive(Parser)]
struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Rounds of all subjects in turn.
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Folder to measure in, some 1.5 GB for the time of the run; beside this program
    /// when not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The size that decides whether ours stays.
const DECIDING_KIB: usize = 256;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let parent = match args.dir {
        Some(dir) => dir,
        None => std::env::current_exe()?.parent().context("no folder")?.to_path_buf(),
    };
    let scratch = Scratch::new(&parent)?;
    eprintln!("bench wal: filling files in {}", parent.display());
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(Ours::new(&scratch.join("ours"))?),
        Box::new(RaftLogs::new(&scratch.join("raft-log"))?),
        Box::new(Plain::new(&scratch.join("plain"))?),
    ];
    let rows = measure(&mut subjects, args.rounds, |round| match round {
        0 => eprintln!("bench wal: warming up"),
        _ => eprintln!("bench wal: round {round} of {}", args.rounds),
    })?;
    drop(subjects);
    drop(scratch);
    report(&rows, args.json);
    Ok(ExitCode::SUCCESS)
}

fn report(rows: &[Row], as_json: bool) {
    let mut values = Map::new();
    for (title, key, of) in [
        ("one append at a time".to_owned(), "", (|row| &row.single) as fn(&Row) -> &Vec<Cell>),
        (format!("{DEPTH} appends in flight"), "_pipelined", |row| &row.pipelined),
    ] {
        println!("{title}");
        println!(
            "  {:<16} {:>9} {:>10} {:>9} {:>9} {:>9}",
            "", "KiB", "MB/s", "p50 us", "p99 us", "max us"
        );
        for row in rows {
            let mut sizes = Map::new();
            for (size, cell) in SIZES.iter().zip(of(row)) {
                println!(
                    "  {:<16} {:>9} {:>10.1} {:>9.0} {:>9.0} {:>9.0}",
                    row.name,
                    size.kib,
                    cell.mb_per_s(),
                    cell.us(0.5),
                    cell.us(0.99),
                    cell.us(1.0)
                );
                sizes.insert(format!("{}k", size.kib), figures(cell));
            }
            values.insert(format!("{}{key}", row.name), Value::Object(sizes));
        }
    }
    let missed = verdict(rows, &mut values);
    if !missed.is_empty() {
        println!("missed: {}", missed.join(", "));
    }
    values.insert("missed".into(), json!(missed));
    if as_json {
        println!("{}", Value::Object(values));
    }
}

fn figures(cell: &Cell) -> Value {
    let round = |value: f64| (value * 10.0).round() / 10.0;
    json!({
        "mb_per_s": round(cell.mb_per_s()),
        "p50_us": round(cell.us(0.5)),
        "p99_us": round(cell.us(0.99)),
        "max_us": round(cell.us(1.0)),
    })
}

/// Ours over raft-log: it stays with twice the rate and half the p99.
fn verdict(rows: &[Row], values: &mut Map<String, Value>) -> Vec<&'static str> {
    let Some(deciding) = SIZES.iter().position(|size| size.kib == DECIDING_KIB) else {
        return Vec::new();
    };
    let row = |name| rows.iter().find(|row| row.name == name);
    let (Some(ours), Some(theirs)) = (row("ours"), row("raft_log")) else { return Vec::new() };
    let (a, b) = (&ours.single[deciding], &theirs.single[deciding]);
    let (c, d) = (&ours.pipelined[deciding], &theirs.pipelined[deciding]);
    let mut missed = Vec::new();
    for (key, value, wanted, met) in [
        ("over_raft_log_256k", a.mb_per_s() / b.mb_per_s(), ">= 2", None),
        ("p99_over_raft_log_256k", a.us(0.99) / b.us(0.99), "<= 0.5", Some(0.5)),
        ("p50_over_raft_log_256k", a.us(0.5) / b.us(0.5), "", Some(f64::INFINITY)),
        ("over_raft_log_256k_pipelined", c.mb_per_s() / d.mb_per_s(), "", Some(f64::INFINITY)),
        ("p99_over_raft_log_256k_pipelined", c.us(0.99) / d.us(0.99), "", Some(f64::INFINITY)),
    ] {
        let is_met = met.map_or(value >= 2.0, |most| value <= most);
        let mark = match (wanted, is_met) {
            ("", _) => "",
            (_, true) => "ok",
            _ => {
                missed.push(key);
                "MISSED"
            }
        };
        println!("{key:<34} {value:>7.2} {wanted:>7} {mark}");
        values.insert(key.into(), json!((value * 1e3).round() / 1e3));
    }
    missed
}
