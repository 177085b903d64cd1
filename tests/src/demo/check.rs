//! The verdict: what clients were told, against what the node kept.
//!
//! | clients | node | fault |
//! |---|---|---|
//! | were told an outcome and epoch | its log, judged again offline, has neither | lost |
//! | | its log has another outcome or epoch | lost |
//! | | its log decides a key twice, or an ack changed | applied twice |
//! | sent nothing of the kind | an event of the log | applied twice |
//! | the sum of what they were told | players and hotspots of its last snapshot | state differs |
//!
//! Events older than the log are in the snapshot that the log continues, and so
//! in the state. The dump is read as it comes; what clients were told is held
//! in a table.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use veltrix_abi::Outcome;

use super::crowd::{Told, is_decided};
use super::expect::Expected;
use super::world::{World, player_id};

/// Examples of faults that are kept.
const EXAMPLES_MAX: usize = 5;

/// What the log was found to hold.
#[derive(Clone, Debug, Default)]
pub struct LogVerdict {
    /// Events of the log that were judged again.
    pub judged: u64,
    /// Those of them that were duplicates.
    pub duplicates: u64,
    /// Events clients were told of that are older than what could be judged.
    pub older: u64,
    /// Told, and not in the log as they were told.
    pub acked_lost: u64,
    /// Decided more than once, or never sent.
    pub applied_twice: u64,
    /// Some of them, in words.
    pub examples: Vec<String>,
}

impl LogVerdict {
    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

/// A line of `veltrix inspect log --outcomes`.
#[derive(Deserialize)]
struct LogLine<'a> {
    epoch: u64,
    key: &'a str,
    outcome: &'a str,
    duplicate: bool,
}

/// What a client was told of a key, and whether the log has it.
struct Entry {
    outcome: Outcome,
    epoch: u64,
    seen: bool,
}

/// Holds what clients were told against the log in `data`, judged offline.
///
/// # Errors
///
/// A log that is not sound, or a line that cannot be read.
pub fn log(binary: &Path, data: &Path, told: &[Told]) -> Result<LogVerdict> {
    let mut table: HashMap<[u8; 16], Entry> = HashMap::with_capacity(told.len());
    for told in told.iter().filter(|told| is_decided(told.outcome)) {
        let entry = Entry { outcome: told.outcome, epoch: told.epoch, seen: false };
        table.insert(told.key, entry);
    }
    let mut verdict = LogVerdict::default();
    let mut begins_at = 0;
    inspect(binary, data, &["log", "--outcomes"], &mut |line| {
        if !line.contains("\"key\"") {
            let end: serde_json::Value = serde_json::from_str(line)?;
            begins_at = end["dump"]["from_snapshot_of_epoch"].as_u64().unwrap_or(0);
            return Ok(());
        }
        let line: LogLine<'_> = serde_json::from_str(line)?;
        verdict.judged += 1;
        verdict.duplicates += u64::from(line.duplicate);
        judge(&line, &mut table, &mut verdict)
    })?;
    let judged_from = judged_from(binary, data, begins_at)?;
    for (key, entry) in table.iter().filter(|(_, entry)| !entry.seen) {
        if entry.epoch < judged_from {
            verdict.older += 1;
            continue;
        }
        verdict.acked_lost += 1;
        verdict.example(|| {
            let key = uuid::Uuid::from_bytes(*key);
            format!(
                "{key}: told {} at epoch {}, not in the log",
                entry.outcome.label(),
                entry.epoch
            )
        });
    }
    Ok(verdict)
}

fn judge(
    line: &LogLine<'_>,
    table: &mut HashMap<[u8; 16], Entry>,
    verdict: &mut LogVerdict,
) -> Result<()> {
    let outcome = Outcome::ALL.iter().find(|outcome| outcome.label() == line.outcome);
    let outcome = *outcome.with_context(|| format!("no outcome {}", line.outcome))?;
    if line.duplicate || !is_decided(outcome) {
        return Ok(());
    }
    let key = uuid::Uuid::parse_str(line.key)?.into_bytes();
    let wrong = match table.get_mut(&key) {
        None => "in the log, and no client was told",
        Some(entry) if entry.seen => "decided twice",
        Some(entry) => {
            entry.seen = true;
            if (entry.outcome, entry.epoch) != (outcome, line.epoch) {
                verdict.acked_lost += 1;
                let (was, at) = (entry.outcome.label(), entry.epoch);
                verdict.example(|| {
                    format!(
                        "{}: told {was} at epoch {at}, the log says {} at {}",
                        line.key, line.outcome, line.epoch
                    )
                });
            }
            return Ok(());
        }
    };
    verdict.applied_twice += 1;
    verdict.example(|| format!("{} at epoch {}: {wrong}", line.key, line.epoch));
    Ok(())
}

/// The epoch from which on every partition's events were judged: the one after
/// the last of the snapshot that the judging began with.
fn judged_from(binary: &Path, data: &Path, begins_at: u64) -> Result<u64> {
    if begins_at == 0 {
        return Ok(0);
    }
    let mut from = None;
    inspect(binary, data, &["snapshot"], &mut |line| {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let files = value["snapshots"].as_array().map(Vec::as_slice).unwrap_or_default();
        let facts = files.iter().map(|file| &file["facts"]);
        let ours = facts.filter(|facts| facts["epoch"].as_u64() == Some(begins_at));
        from = ours.filter_map(|facts| facts["epoch_max"].as_u64()).max();
        Ok(())
    })?;
    let last = from.with_context(|| format!("demo: no snapshot of epoch {begins_at}"))?;
    Ok(last + 1)
}

/// What the state was found to be.
#[derive(Clone, Debug, Default)]
pub struct StateVerdict {
    /// Hotspots that were compared.
    pub cells: u64,
    /// Players that were compared.
    pub players: u64,
    /// Hotspots and players that differ, lack, or should not be there.
    pub differences: u64,
    /// Some of them, in words.
    pub examples: Vec<String>,
}

/// A line of `veltrix inspect snapshot --records`.
#[derive(Debug, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Record {
    Cell {
        domain: u64,
        cell: u64,
        kind: Option<String>,
        item: u8,
        remaining: i64,
        reward: u32,
        expiry_s: u64,
        claimed_by: Option<u64>,
    },
    Player {
        domain: u64,
        player: u64,
        wallet: i64,
        score: i64,
        inventory: Vec<i64>,
    },
}

/// Holds the newest snapshot in `data` against what clients were told.
///
/// # Errors
///
/// No sound snapshot, or a line that cannot be read.
pub fn state(
    binary: &Path,
    data: &Path,
    world: &World,
    expected: &Expected,
) -> Result<StateVerdict> {
    let mut comparison = Comparison::new(world, expected);
    inspect(binary, data, &["snapshot", "--records"], &mut |line| {
        if line.contains("\"record\"") {
            let record = serde_json::from_str(line)?;
            let fits = comparison.fits(&record);
            comparison.count(&record, fits);
        }
        Ok(())
    })?;
    Ok(comparison.end())
}

struct Comparison<'a> {
    world: &'a World,
    expected: &'a Expected,
    /// Number of a hotspot by domain and cell.
    by_cell: HashMap<(u64, u64), u32>,
    verdict: StateVerdict,
}

impl<'a> Comparison<'a> {
    fn new(world: &'a World, expected: &'a Expected) -> Self {
        let by_cell = (0..)
            .zip(&world.cells)
            .map(|(number, cell)| ((world.hunts[usize::from(cell.hunt)].domain, cell.id), number))
            .collect();
        Self { world, expected, by_cell, verdict: StateVerdict::default() }
    }

    /// Whether a record is as it must be.
    fn fits(&self, record: &Record) -> bool {
        match record {
            Record::Cell { domain, cell, kind, item, remaining, reward, expiry_s, claimed_by } => {
                let Some(number) = self.by_cell.get(&(*domain, *cell)) else { return false };
                let put = &self.world.cells[*number as usize].hotspot;
                let sum = &self.expected.cells[*number as usize];
                let kind_put = match put.kind {
                    veltrix_abi::kinds::HotspotKind::Item => "item",
                    veltrix_abi::kinds::HotspotKind::Chest => "chest",
                    veltrix_abi::kinds::HotspotKind::Ticket => "ticket",
                };
                sum.put == 1
                    && kind.as_deref() == Some(kind_put)
                    && (*item, *reward, *expiry_s) == (put.item, put.reward, 0)
                    && *remaining == i64::from(put.remaining) - sum.taken
                    && *claimed_by == sum.claimed_by.map(player_id)
            }
            Record::Player { domain, player, wallet, score, inventory } => {
                let number = player.wrapping_sub(1);
                let Some(hunt) = self.world.hunts.iter().find(|hunt| hunt.domain == *domain) else {
                    return false;
                };
                let first = u64::from(hunt.player_first);
                if !(first..first + u64::from(hunt.players)).contains(&number) {
                    return false;
                }
                let sum = &self.expected.players[number as usize];
                sum.known
                    && (*wallet, *score) == (sum.wallet, sum.score)
                    && *inventory == sum.inventory
            }
        }
    }

    fn count(&mut self, record: &Record, fits: bool) {
        match record {
            Record::Cell { .. } => self.verdict.cells += 1,
            Record::Player { .. } => self.verdict.players += 1,
        }
        if !fits {
            self.verdict.differences += 1;
            if self.verdict.examples.len() < EXAMPLES_MAX {
                self.verdict.examples.push(format!("the node has {record:?}"));
            }
        }
    }

    /// What must be there and is not shows in the counts, since no record is
    /// there twice.
    fn end(mut self) -> StateVerdict {
        let cells = self.expected.cells.iter().filter(|cell| cell.put > 0).count() as u64;
        let players = self.expected.players.iter().filter(|player| player.known).count() as u64;
        for (what, wanted, found) in
            [("hotspots", cells, self.verdict.cells), ("players", players, self.verdict.players)]
        {
            if wanted != found {
                self.verdict.differences += wanted.abs_diff(found);
                self.verdict.examples.push(format!("the node has {found} {what}, wanted {wanted}"));
            }
        }
        self.verdict
    }
}

/// Runs `veltrix inspect` and gives `each` its lines as they come.
fn inspect(
    binary: &Path,
    data: &Path,
    what: &[&str],
    each: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut command = Command::new(binary);
    command.arg("inspect").args(what).args(["--json", "--data"]).arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("demo: `veltrix inspect` cannot be started")?;
    let mut read = Ok(());
    if let Some(out) = child.stdout.take() {
        let mut lines = BufReader::with_capacity(1 << 20, out);
        let mut line = String::new();
        while read.is_ok() && lines.read_line(&mut line)? > 0 {
            read = each(&line).with_context(|| format!("demo: `veltrix inspect` says {line}"));
            line.clear();
        }
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success() || read.is_err(),
        "demo: `veltrix inspect {}` ended with {}: {}",
        what.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(
        key: u8,
        epoch: u64,
        outcome: &'static str,
        duplicate: bool,
    ) -> (String, u64, &'static str, bool) {
        (uuid::Uuid::from_bytes([key; 16]).to_string(), epoch, outcome, duplicate)
    }

    #[test]
    fn lost_changed_and_doubled_events_are_found() {
        let mut table = HashMap::new();
        for key in 1..=3 {
            let entry = Entry { outcome: Outcome::Applied, epoch: 5, seen: false };
            table.insert([key; 16], entry);
        }
        let mut verdict = LogVerdict::default();
        for (key, epoch, outcome, duplicate) in [
            line(1, 5, "applied", false),
            line(1, 6, "applied", true),
            line(2, 7, "applied", false),
            line(1, 8, "applied", false),
            line(9, 8, "applied", false),
            line(9, 8, "too-old", false),
        ] {
            let line = LogLine { epoch, key: &key, outcome, duplicate };
            judge(&line, &mut table, &mut verdict).unwrap();
        }
        assert_eq!((verdict.acked_lost, verdict.applied_twice), (1, 2), "{:?}", verdict.examples);
        assert!(!table[&[3; 16]].seen);
    }

    #[test]
    fn a_player_who_lost_an_item_and_one_too_many_differ() {
        use veltrix_abi::kinds::EventKind;
        let world = World::new(1);
        let mut expected = Expected::new(&world);
        let event = super::super::world::Event {
            key: [0; 16],
            player: 0,
            cell: 0,
            amount: 70,
            kind: EventKind::WalletCredit,
        };
        expected.told(&world, &event, Outcome::Applied);
        let player = |player, wallet| Record::Player {
            domain: 1,
            player,
            wallet,
            score: 0,
            inventory: vec![0; 8],
        };
        let comparison = Comparison::new(&world, &expected);
        assert!(comparison.fits(&player(1, 70)));
        assert!(!comparison.fits(&player(1, 140)));
        assert!(!comparison.fits(&player(2, 70)), "nothing of it was applied");
        assert!(!comparison.fits(&player(0, 70)));
        assert_eq!(comparison.end().differences, 1, "the one player is not there");
    }
}
