//! What became of a world, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use veltrix_abi::Outcome;
use veltrix_abi::query::HuntRow;

use super::generator::{Phase, Wants, World};
use super::link::Server;
use super::loader::Tally;

/// A world and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Names it among worlds of its size.
    pub seed: u64,
    /// Hunts.
    pub hunts: u64,
    /// Hotspots.
    pub cells: u64,
    /// Players.
    pub players: u64,
    /// Items that players are given.
    pub items: u64,
    /// Events: hotspots, first credits, items.
    pub events: u64,
    /// XXH128 of its CSV.
    pub checksum: String,
    /// City of the largest hunt.
    pub largest_city: &'static str,
    /// Its share of all hotspots.
    pub largest_share: f64,
    /// Where it was written to.
    pub file: Option<PathBuf>,
    /// What a server with the partitions of the load, or else of the plan, needs.
    pub wants: Wants,
    /// How the load went.
    pub loaded: Option<Loaded>,
}

/// How a load went. Every event has exactly one outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Loaded {
    /// The server.
    pub addr: SocketAddr,
    /// Sockets it was sent from.
    pub connections: usize,
    /// Of all events, seconds.
    pub seconds: f64,
    /// Events a second.
    pub events_per_s: f64,
    /// Events by outcome, for hotspots, credits and items.
    pub outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Events with another outcome than `applied`.
    pub refused: u64,
    /// Datagrams sent again.
    pub retries: u64,
    /// Datagrams turned away with `busy`.
    pub busy: u64,
    /// Log index up to which all of it is applied.
    pub epoch: u64,
    /// Hunts with fewer cells, players or scores than the world has, asked afterwards.
    pub hunts_short: u64,
    /// Words about the first of them.
    #[serde(skip)]
    first_short: String,
    #[serde(skip)]
    wants: Wants,
    /// Whether the world's keys were chosen for other partitions.
    #[serde(skip)]
    other_partitions: Option<u16>,
}

impl Loaded {
    /// Nothing sent yet.
    #[must_use]
    pub fn new(server: &Server, world: &World) -> Self {
        let partitions = server.welcome.partitions;
        let planned = world.plan().partitions;
        Self {
            addr: server.addr,
            connections: server.links.len(),
            seconds: 0.0,
            events_per_s: 0.0,
            outcomes: BTreeMap::new(),
            refused: 0,
            retries: 0,
            busy: 0,
            epoch: 0,
            hunts_short: 0,
            first_short: String::new(),
            wants: world.wants(partitions),
            other_partitions: (partitions != planned).then_some(planned),
        }
    }

    /// Takes over what a phase found.
    pub fn add(&mut self, phase: Phase, tally: &Tally) {
        let label = |code: usize| {
            let known = Outcome::from_code(code as u8).map(Outcome::label);
            known.map_or_else(|| format!("code {code}"), str::to_owned)
        };
        let counts = tally.outcomes.iter().enumerate().filter(|(_, count)| **count > 0);
        let outcomes = counts.map(|(code, count)| (label(code), *count)).collect();
        self.outcomes.insert(phase.label(), outcomes);
        self.refused += tally.events() - tally.outcomes[usize::from(Outcome::Applied.code())];
        self.retries += tally.retries;
        self.busy += tally.busy;
        self.epoch = self.epoch.max(tally.epoch);
    }

    /// Everything has its outcome.
    pub fn finish(&mut self, elapsed: Duration) {
        self.seconds = elapsed.as_secs_f64();
        let events: u64 = self.outcomes.values().flat_map(BTreeMap::values).sum();
        self.events_per_s = events as f64 / self.seconds.max(f64::MIN_POSITIVE);
    }

    /// Holds what the hunts hold against what they should.
    pub fn compare(&mut self, world: &World, rows: &[Option<HuntRow>]) {
        for ((index, hunt), row) in world.hunts().iter().enumerate().zip(rows) {
            let row = row.unwrap_or_default();
            let found = [row.cells, row.players, row.ranked].map(u64::from);
            let wanted = Phase::ALL.map(|phase| world.count_in(phase, index));
            if found.iter().zip(&wanted).any(|(found, wanted)| found < wanted) {
                self.hunts_short += 1;
                if self.first_short.is_empty() {
                    let [cells, players, ranked] = found;
                    self.first_short = format!(
                        "hunt {} ({}) holds {cells} cells, {players} players and {ranked} scores, wanted {}, {} and {}",
                        hunt.key, hunt.city.name, wanted[0], wanted[1], wanted[2]
                    );
                }
            }
        }
    }

    /// Events of a phase with this outcome.
    fn of(&self, phase: &str, outcome: &str) -> u64 {
        self.outcomes.get(phase).and_then(|counts| counts.get(outcome)).copied().unwrap_or(0)
    }

    /// What went wrong, and what would mend it; `None` when nothing did.
    fn complaint(&self) -> Option<String> {
        if self.refused == 0 && self.hunts_short == 0 {
            return None;
        }
        let mut out = String::new();
        if self.refused > 0 {
            let refused: Vec<String> = self
                .outcomes
                .iter()
                .flat_map(|(phase, counts)| counts.iter().map(move |(label, n)| (phase, label, n)))
                .filter(|(_, label, _)| *label != Outcome::Applied.label())
                .map(|(phase, label, n)| format!("{n} {phase} `{label}`"))
                .collect();
            let _ = write!(out, "not applied: {}", refused.join(", "));
        }
        let full = Outcome::Full.label();
        if Phase::ALL.iter().any(|phase| self.of(phase.label(), full) > 0) {
            let Wants { partitions, cells_max, players_max, hunts_max } = self.wants;
            let _ = write!(
                out,
                "\na capacity is used up; with {partitions} partitions this world alone wants\n  \
                 veltrix format --data DIR --partitions {partitions} --cells-max {cells_max} \
                 --players-max {players_max} --hunts-max {hunts_max}\n\
                 `veltrix inspect limits --data DIR` shows what the server has"
            );
        }
        if self.hunts_short > 0 {
            let more = if out.is_empty() { "" } else { "\n" };
            let _ = write!(
                out,
                "{more}hunts short of something: {}; {}",
                self.hunts_short, self.first_short
            );
        }
        Some(out)
    }
}

impl Report {
    /// The report on a world.
    #[must_use]
    pub fn new(
        world: &World,
        checksum: u128,
        file: Option<PathBuf>,
        loaded: Option<Loaded>,
    ) -> Self {
        let plan = world.plan();
        let wants =
            loaded.as_ref().map_or_else(|| world.wants(plan.partitions), |loaded| loaded.wants);
        Self {
            seed: plan.seed,
            hunts: plan.hunts,
            cells: plan.cells,
            players: plan.players,
            items: world.count(Phase::Items),
            events: world.events(),
            checksum: format!("{checksum:032x}"),
            largest_city: world.hunts().first().map_or("", |hunt| hunt.city.name),
            largest_share: world.count_in(Phase::Hotspots, 0) as f64 / plan.cells as f64,
            file,
            wants,
            loaded,
        }
    }

    /// What went wrong, and what would mend it; `None` when nothing did.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.loaded.as_ref().and_then(Loaded::complaint)
    }

    /// The report as a person reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "world of seed {}: {} cells, {} players and {} items in {} hunts; the largest, {}, has {:.2} % of it",
            self.seed,
            self.cells,
            self.players,
            self.items,
            self.hunts,
            self.largest_city,
            self.largest_share * 100.0
        );
        let _ = writeln!(out, "  checksum {} (XXH128 of its CSV)", self.checksum);
        let Wants { partitions, cells_max, players_max, hunts_max } = self.wants;
        let _ = writeln!(
            out,
            "  wants --partitions {partitions} --cells-max {cells_max} --players-max {players_max} --hunts-max {hunts_max}"
        );
        if let Some(file) = &self.file {
            let _ = writeln!(out, "  written to {}", file.display());
        }
        let Some(loaded) = &self.loaded else { return out };
        let _ = writeln!(
            out,
            "loaded into {} in {:.1} s over {} connections: {:.0} events/s, {} datagrams sent again, {} turned away",
            loaded.addr,
            loaded.seconds,
            loaded.connections,
            loaded.events_per_s,
            loaded.retries,
            loaded.busy
        );
        for phase in Phase::ALL {
            let counts = loaded.outcomes.get(phase.label()).into_iter().flatten();
            let mix: Vec<String> =
                counts.map(|(label, count)| format!("{label} {count}")).collect();
            let _ = writeln!(out, "  {:<10}{}", phase.label(), mix.join(", "));
        }
        let _ = writeln!(
            out,
            "  every hunt asked at epoch {}: {} short of something",
            loaded.epoch, loaded.hunts_short
        );
        if let Some(planned) = loaded.other_partitions {
            let _ = writeln!(
                out,
                "  hunt keys were chosen for {planned} partitions, the server has {}: --partitions {} fills them more evenly",
                partitions, partitions
            );
        }
        out
    }
}
