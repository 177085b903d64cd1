//! `veltrix world`: a realistic world, the same for the same seed, written to a
//! file or loaded into a server.
//!
//! [`generator`] says what event `i` of a world is, [`file`] writes all of them,
//! `loader` sends them until each has its outcome. Loading is not idempotent as a
//! whole: a credit counts again, a hotspot is set anew. So hunts are loaded into
//! once; `ask` looks first whether they are empty, and afterwards whether they hold
//! what they should.

mod ask;
mod chunks;
pub mod cities;
pub mod file;
pub mod generator;
mod link;
mod loader;
mod report;
mod window;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use veltrix_abi::partition::PARTITIONS_DEFAULT;

use chunks::Chunks;
use generator::{HuntKeys, Phase, Plan, World};
use link::{CONNECTIONS_MAX, Server};
use report::{Loaded, Report};

use super::load::count;
use super::ping::ADDR_DEFAULT;
use super::{CliError, ExitStatus, json_line, print};

/// Write and load a realistic world; the same seed gives the same world.
///
/// Hunts lie around real cities, with hotspots and players in proportion to the
/// people there: items, chests and tickets on cells of their own, a first credit
/// for each player, an item for every fourth. A world is loaded into hunts that
/// are still empty.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  veltrix world --cells 60k --hunts 400 --players 120k                   into 127.0.0.1:4747
  veltrix world --cells 12M --hunts 1000 --players 10M --to game:4747 --json
  veltrix world --cells 60k --hunts 400 --players 120k --print | xxhsum -H128")]
pub struct WorldArgs {
    /// Hotspots of all hunts, such as `12M`.
    #[arg(long, default_value = "60k", value_parser = count)]
    pub cells: u64,

    /// Hunts, each a consistency domain.
    #[arg(long, default_value = "400", value_parser = count)]
    pub hunts: u64,

    /// Players of all hunts, each in one.
    #[arg(long, default_value = "120k", value_parser = count)]
    pub players: u64,

    /// Where hunts lie and how large they are.
    #[arg(long, value_enum, default_value = "cities")]
    pub from: Source,

    /// Names one of all worlds of this size.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Server to load it into: HOST:PORT. Without it, and without `--write` and
    /// `--print`: 127.0.0.1:4747.
    #[arg(long, value_name = "HOST:PORT")]
    pub to: Option<String>,

    /// Write the world to this file, as CSV.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// Write the world to standard output, as CSV, and the summary to standard
    /// error.
    #[arg(long, conflicts_with = "write")]
    pub print: bool,

    /// How hunts get their keys.
    #[arg(long, value_enum, default_value = "even")]
    pub hunt_keys: HuntKeys,

    /// Least key of a hunt.
    #[arg(long, value_name = "KEY", default_value_t = 1)]
    pub first_hunt: u64,

    /// Partitions that `--hunt-keys even` fills evenly: those of the server.
    #[arg(long, default_value_t = PARTITIONS_DEFAULT)]
    pub partitions: u16,

    /// Sockets to send from [default: one for each lane of the server].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub connections: Option<u16>,

    /// Give up when no event gets an outcome for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub patience: Duration,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Where hunts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Around the 2,000 largest cities, the largest first, in proportion to people.
    Cities,
}

impl WorldArgs {
    /// The plan that the flags describe.
    #[must_use]
    pub const fn plan(&self) -> Plan {
        Plan {
            cells: self.cells,
            hunts: self.hunts,
            players: self.players,
            seed: self.seed,
            first_hunt: self.first_hunt,
            hunt_keys: self.hunt_keys,
            partitions: self.partitions,
        }
    }
}

/// Runs `veltrix world`.
///
/// # Errors
///
/// A plan that is no world, a file that cannot be written, a server that does not
/// answer, hunts that are not empty, and events that were refused, after the
/// summary.
pub fn run(args: &WorldArgs) -> Result<ExitStatus, CliError> {
    if args.patience.is_zero() {
        let message = "--patience is 0s, wanted above zero, such as 30s";
        return Err(CliError::new(ExitStatus::Usage, message));
    }
    let world = World::new(args.plan())?;
    let to = match &args.to {
        None if args.print || args.write.is_some() => None,
        to => Some(to.as_deref().unwrap_or(ADDR_DEFAULT)),
    };
    // Before the file: what cannot be loaded should be known at once.
    let mut server = to.map(|to| Server::connect(to, args.connections)).transpose()?;
    if let Some(server) = &mut server {
        are_empty(&world, server, args.patience)?;
    }
    let checksum = written(&world, args)?;
    let loaded = server.map(|mut server| load(&world, &mut server, args.patience)).transpose()?;
    let report = Report::new(&world, checksum, args.write.clone(), loaded);
    let text = if args.json { json_line(&report)? } else { report.text() };
    if args.print {
        // Standard output is the world's; nothing can be said where this is closed too.
        let _ = io::stderr().write_all(text.as_bytes());
    } else {
        print(&text)?;
    }
    match report.complaint() {
        None => Ok(ExitStatus::Ok),
        Some(complaint) => Err(CliError::new(ExitStatus::Error, complaint)),
    }
}

/// Writes the world where it is wanted; gives its checksum.
fn written(world: &World, args: &WorldArgs) -> Result<u128, CliError> {
    let failed = |what: &str, error: &io::Error| {
        CliError::new(ExitStatus::Error, format!("{what}: {error}"))
    };
    if args.print {
        return match file::write(world, &mut io::stdout().lock()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(file::checksum(world)),
            other => other.map_err(|error| failed("standard output", &error)),
        };
    }
    let Some(path) = &args.write else { return Ok(file::checksum(world)) };
    let what = format!("--write {}", path.display());
    let mut out = File::create(path).map_err(|error| failed(&what, &error))?;
    file::write(world, &mut out).map_err(|error| failed(&what, &error))
}

/// Whether nothing has happened in any hunt of the world.
fn are_empty(world: &World, server: &mut Server, patience: Duration) -> Result<(), CliError> {
    let keys: Vec<u64> = world.hunts().iter().map(|hunt| hunt.key).collect();
    let (socket, session) = &mut server.links[0];
    let found = ask::hunts(socket, session, &keys, 0, patience)?;
    let mut taken = world.hunts().iter().zip(&found).filter_map(|(hunt, row)| {
        row.filter(|row| row.cells > 0 || row.players > 0).map(|row| (hunt, row))
    });
    let Some((hunt, row)) = taken.next() else { return Ok(()) };
    let beside = keys.iter().max().map_or(1, |key| key + 1);
    Err(CliError::new(
        ExitStatus::Error,
        format!(
            "hunt {} ({}) holds {} cells and {} players already, as {} more of {} hold something; loading \
             again would count credits twice and set hotspots anew. Give --first-hunt {beside} for \
             hunts beside them, or a new data directory",
            hunt.key,
            hunt.city.name,
            row.cells,
            row.players,
            taken.count(),
            keys.len()
        ),
    ))
}

/// Loads the world, one phase after the other, and looks at what the hunts hold.
fn load(world: &World, server: &mut Server, patience: Duration) -> Result<Loaded, CliError> {
    let started = Instant::now();
    let mut loaded = Loaded::new(server, world);
    let mut progress = Progress::new(world.events());
    let mut before = 0;
    for phase in Phase::ALL {
        let chunks = Chunks::new(world, phase, server.fill());
        let watch = &mut |settled| progress.show(phase.label(), before + settled);
        let tally = loader::load(world, &chunks, server, patience, watch)?;
        before += tally.events();
        loaded.add(phase, &tally);
    }
    progress.bar.finish_and_clear();
    loaded.finish(started.elapsed());
    let keys: Vec<u64> = world.hunts().iter().map(|hunt| hunt.key).collect();
    let (socket, session) = &mut server.links[0];
    let rows = ask::hunts(socket, session, &keys, loaded.epoch, patience)?;
    loaded.compare(world, &rows);
    Ok(loaded)
}

/// How far a load is: a bar where somebody watches, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    events: u64,
    started: Instant,
    said: Instant,
}

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    fn new(events: u64) -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(events)
        } else {
            ProgressBar::hidden()
        };
        let style = "{msg:9} {wide_bar} {percent} %  {human_pos} events, {per_sec}, {eta} left";
        // A constant template that parses; without it the default one would show.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self { bar, events, started: Instant::now(), said: Instant::now() }
    }

    fn show(&mut self, phase: &'static str, settled: u64) {
        self.bar.set_message(phase);
        self.bar.set_position(settled);
        if !self.bar.is_hidden() || self.said.elapsed() < LINE_EVERY {
            return;
        }
        self.said = Instant::now();
        let per_s = settled as f64 / self.started.elapsed().as_secs_f64();
        let left_s = (self.events - settled) as f64 / per_s.max(1.0);
        let percent = settled as f64 * 100.0 / self.events.max(1) as f64;
        // As with every word on standard error: nothing can be done when it is closed.
        let _ = writeln!(
            io::stderr(),
            "{phase}: {percent:.0} %, {settled} of {} events, {per_s:.0} events/s, {left_s:.0} s left",
            self.events
        );
    }
}

#[cfg(test)]
mod tests;
