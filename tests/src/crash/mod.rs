//! The real server killed at random moments under load, and what it kept judged
//! by what clients were told.
//!
//! ```text
//!   swarm plays ──> veltrix run --data DIR ──> kill -9 at a random moment ──┐
//!      ^  retries with the same keys                                        │ N times
//!      └──────────────── started again, sometimes killed while it starts <──┘
//!   then: everything asked once more (dedupe survived) and the log judged offline (`veltrix inspect log`)
//! ```
//!
//! The last kill leaves datagrams unanswered on purpose: those must have been
//! decided once or not at all.

pub mod dump;
pub mod judge;

use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use veltrix_abi::Outcome;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::partition::PARTITIONS_DEFAULT;
use veltrix_abi::wire::Mode;
use veltrix_client::codec::Random;

use crate::bench::ingest::node::{Sizes, format, hunts_in_fullest};
use crate::bench::rig::PORT;
use crate::bench::service::{Provider, TempDir, binary, run_command};
use crate::lab::{Lab, LabSpec};
use crate::server::Server;
use crate::swarm::book::Acked;
use crate::swarm::traffic::{EVENTS_MAX, Traffic, World};
use crate::swarm::{Spec as SwarmSpec, Swarm};
use judge::{Fault, Told};

/// Small, so that hunts are hot and retries meet their firsts.
const WORLD: World = World { hunts: 24, cells: 256, players: 64, seed: 0xc2a5 };

/// Full datagrams.
const FULL: Traffic = Traffic::Play { events: EVENTS_MAX as u8 };

/// Datagrams a second: enough that every moment has some in each stage, few
/// enough that the whole log can be judged.
const DATAGRAMS_PER_S: f64 = 4_000.0;

/// Shortest and longest life between two kills, milliseconds.
const LIFE_MS: (u64, u64) = (20, 400);

/// How long the swarm goes on playing at a dead server.
const AFTER_KILL: Duration = Duration::from_millis(5);

/// One start in so many is killed before it serves.
const KILLED_STARTING: u64 = 4;

/// Longest wait for a start, and for the last answers.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Wait before an unanswered datagram is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(30);

/// Bytes of the log for each kill: what is written between two, so that nothing
/// is purged before it is judged.
const LOG_BYTES_PER_KILL: u64 = 24 << 20;

/// Bytes of a segment: small, so that there are many borders to be killed at.
const SEGMENT_BYTES: u64 = 4 << 20;

/// How much, and which random moments.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Kills while it serves; those while it starts come on top.
    pub kills: u32,
    /// Chooses the moments.
    pub seed: u64,
    /// Ask for a snapshot before some of the kills.
    pub snapshots: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Kills while it served.
    pub kills: u32,
    /// Kills while it started.
    pub kills_starting: u32,
    /// Snapshots asked for.
    pub snapshots: u32,
    /// Events acknowledged.
    pub acked: u64,
    /// Of those, applied.
    pub applied: u64,
    /// Acks that were duplicates: first tries that a crash had hidden.
    pub duplicates: u64,
    /// Events never acknowledged.
    pub unanswered: u64,
    /// Events of the log that were judged.
    pub judged: u64,
    /// First epoch of the log that was judged.
    pub first_epoch: u64,
    /// Longest time from a kill to the first answer of the next life, milliseconds.
    pub gap_ms_max: u64,
    /// What must not be, the first few.
    pub faults: Vec<Fault>,
    /// How many there are.
    pub faults_total: u64,
}

/// What the lives of the server left with the clients.
struct History {
    /// Every datagram acknowledged.
    acked: Vec<Acked>,
    /// Key stamp of every datagram sent, by sequence.
    stamps_ms: Vec<u64>,
    unanswered: Vec<u64>,
    duplicates: u64,
}

/// Kills, restarts, judges; `say` gets a line a kill.
///
/// # Errors
///
/// When a server does not start again or does not answer: a fault as well, with
/// what it said.
pub fn run(spec: &Spec, say: &(dyn Fn(&str) + Sync)) -> Result<Verdict> {
    let lab = Lab::new(LabSpec::with_queues(1))?;
    let dir = TempDir::new()?;
    let data = dir.0.join("data");
    let segments = (u64::from(spec.kills) * LOG_BYTES_PER_KILL).div_ceil(SEGMENT_BYTES).max(16);
    let sizes =
        Sizes { segment_bytes: SEGMENT_BYTES, segments, dedupe_keys_max: keys_max(spec.kills) };
    format(&data, &WORLD, &sizes)?;
    let mut verdict = Verdict::default();
    let mut lives = Lives { lab: &lab, data: &data, random: Random::new(spec.seed), spec, say };
    let history = Swarm::run(&lab, swarm_spec(), |swarm| lives.play(swarm, &mut verdict))?;
    let server = lives.start()?;
    let told = told(&history.acked);
    verdict.acked = told.len() as u64;
    verdict.applied = told.iter().filter(|t| t.outcome == Outcome::Applied).count() as u64;
    verdict.duplicates = history.duplicates;
    verdict.unanswered =
        history.unanswered.iter().map(|sequence| traffic(*sequence).events() as u64).sum();
    // Once before the second asking: that one decides what was unanswered.
    let mut faults = judge_log(&lab, server, &data, &told, &mut verdict)?;
    let server = lives.start()?;
    say("asking everything once more");
    let again = Swarm::run(&lab, swarm_spec(), |swarm| ask_again(swarm, &history))?;
    faults.extend(judge::against_answers(&told, &again));
    faults.extend(judge_log(&lab, server, &data, &told, &mut verdict)?);
    verdict.faults_total = faults.len() as u64;
    faults.truncate(10);
    verdict.faults = faults;
    Ok(verdict)
}

/// Keys that a node must remember to answer every one of a run again in its end:
/// each partition has room for what the one with the most hunts is sent when all
/// lives are the longest. With less, the horizon refuses the oldest as too old.
fn keys_max(kills: u32) -> u64 {
    let life_s = Duration::from_millis(LIFE_MS.1).saturating_add(AFTER_KILL).as_secs_f64();
    let played = f64::from(kills) * life_s * DATAGRAMS_PER_S * EVENTS_MAX as f64;
    let of_hunt = played / f64::from(WORLD.hunts) + f64::from(WORLD.cells);
    (of_hunt.ceil() as u64) * hunts_in_fullest(&WORLD) * u64::from(PARTITIONS_DEFAULT)
}

fn swarm_spec() -> SwarmSpec {
    SwarmSpec {
        world: WORLD,
        server_port: PORT,
        sessions: 4,
        mode: Mode::Durable,
        core: 0,
        retry_after: RETRY_AFTER,
    }
}

/// Which traffic the datagram of a sequence is of.
fn traffic(sequence: u64) -> Traffic {
    if sequence < WORLD.found_datagrams() { Traffic::Found } else { FULL }
}

/// Every event of acknowledged datagrams, with what was said of it.
fn told(acked: &[Acked]) -> Vec<Told> {
    let mut told = Vec::with_capacity(acked.len() * EVENTS_MAX);
    for datagram in acked {
        let mut first_epochs = datagram.first_epochs.iter();
        for (index, code) in datagram.outcomes.iter().enumerate() {
            let duplicate = code & DUPLICATE_BIT != 0;
            let epoch = if duplicate { first_epochs.next().copied() } else { None };
            told.push(Told {
                key: WORLD.key(
                    traffic(datagram.sequence),
                    datagram.sequence,
                    datagram.key_ms,
                    index,
                ),
                // An unknown code is no outcome that anything equals.
                outcome: Outcome::from_code(code & !DUPLICATE_BIT).unwrap_or(Outcome::Malformed),
                epoch: epoch.unwrap_or(datagram.epoch),
            });
        }
    }
    told
}

/// Sends every datagram again, with the keys it had; what is said of them now.
fn ask_again(swarm: &mut Swarm, history: &History) -> Result<Vec<Told>> {
    swarm.hello(WAIT_MAX)?;
    swarm.book().record();
    let (found, played) = history.stamps_ms.split_at(WORLD.found_datagrams() as usize);
    swarm.repeat(Traffic::Found, found, 64, WAIT_MAX)?;
    swarm.repeat(FULL, played, 64, WAIT_MAX)?;
    Ok(told(&swarm.book().recorded()))
}

/// Stops the server and judges its log.
fn judge_log(
    lab: &Lab,
    server: Server,
    data: &Path,
    told: &[Told],
    verdict: &mut Verdict,
) -> Result<Vec<Fault>> {
    let finished = server.stop()?;
    ensure!(
        finished.code == Some(0),
        "the server ended with {:?}: {}",
        finished.code,
        finished.err
    );
    let kept = dump::outcomes(lab, data)?;
    verdict.judged = kept.iter().filter(|kept| kept.outcome.is_some()).count() as u64;
    verdict.first_epoch = kept.iter().map(|kept| kept.epoch).min().unwrap_or(u64::MAX);
    Ok(judge::against_log(told, &kept, verdict.first_epoch))
}

/// One server after the other on a data directory.
struct Lives<'a> {
    lab: &'a Lab,
    data: &'a Path,
    random: Random,
    spec: &'a Spec,
    say: &'a (dyn Fn(&str) + Sync),
}

impl Lives<'_> {
    fn start(&self) -> Result<Server> {
        let data = self.data.to_string_lossy();
        Server::start(self.lab, Provider::Xdp, &["--data", &data])
    }

    /// Starts a server and kills it before it can have served for long, if at all.
    fn kill_starting(&mut self) -> Result<()> {
        let dir = TempDir::new()?;
        let data = self.data.to_string_lossy();
        let mut command = run_command(&binary()?, Provider::Xdp, &dir.0, &["--data", &data]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = self.lab.spawn_server(command)?;
        thread::sleep(Duration::from_micros(self.random.below(60_000)));
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn play(&mut self, swarm: &mut Swarm, verdict: &mut Verdict) -> Result<History> {
        let mut server = self.start()?;
        swarm.hello(WAIT_MAX)?;
        swarm.book().record();
        swarm.found(16, WAIT_MAX)?;
        let mut history = History {
            acked: Vec::new(),
            stamps_ms: Vec::new(),
            unanswered: Vec::new(),
            duplicates: 0,
        };
        for kill in 1..=self.spec.kills {
            let (least, most) = LIFE_MS;
            let life = Duration::from_millis(least + self.random.below(most - least));
            if self.spec.snapshots && self.random.below(3) == 0 {
                let asked = server.cli(self.lab, &["snapshot"])?;
                ensure!(asked.code == Some(0), "veltrix snapshot: {}", asked.err);
                verdict.snapshots += 1;
            }
            self.live(swarm, server, life, &mut history)?;
            verdict.kills += 1;
            (self.say)(&format!(
                "kill {kill}: after {life:?}, {} datagrams unanswered, {} acknowledged so far",
                swarm.book().waiting(),
                history.acked.len()
            ));
            if kill == self.spec.kills {
                break;
            }
            let killed = Instant::now();
            while self.random.below(KILLED_STARTING) == 0 {
                self.kill_starting()?;
                verdict.kills_starting += 1;
            }
            server = self.start().with_context(|| format!("after kill {kill}"))?;
            swarm.hello(WAIT_MAX).with_context(|| format!("after kill {kill}"))?;
            verdict.gap_ms_max = verdict.gap_ms_max.max(killed.elapsed().as_millis() as u64);
            // The next life answers what the last one left open.
            let left = swarm.finish(FULL, WAIT_MAX)?;
            if left > 0 {
                bail!("{left} datagrams have no answer after kill {kill}:\n{}", server.said());
            }
            self.keep(swarm, &mut history)?;
        }
        history.unanswered = swarm.book().unanswered().map(|(sequence, _)| sequence).collect();
        history.stamps_ms = stamps(swarm, &history.acked)?;
        Ok(history)
    }

    /// Plays until the server was killed, a random time from now, and a little on.
    fn live(
        &self,
        swarm: &mut Swarm,
        mut server: Server,
        life: Duration,
        history: &mut History,
    ) -> Result<()> {
        let run = thread::scope(|scope| {
            let killer = scope.spawn(move || {
                thread::sleep(life);
                server.kill()
            });
            let played = swarm.open(FULL, DATAGRAMS_PER_S, life + AFTER_KILL);
            killer.join().map_err(|_| anyhow::anyhow!("the killer panicked"))??;
            played
        })?;
        history.duplicates += run.tally.duplicates;
        ensure!(run.tally.doubled == 0, "{} events were decided twice", run.tally.doubled);
        self.keep(swarm, history)
    }

    /// Takes the acks over from the swarm.
    fn keep(&self, swarm: &mut Swarm, history: &mut History) -> Result<()> {
        let tally = swarm.book().take_tally();
        history.duplicates += tally.duplicates;
        ensure!(tally.doubled == 0, "{} events were decided twice", tally.doubled);
        history.acked.extend(swarm.book().recorded());
        Ok(())
    }
}

/// Key stamps by sequence, of acknowledged and unanswered datagrams together.
fn stamps(swarm: &mut Swarm, acked: &[Acked]) -> Result<Vec<u64>> {
    let unanswered: Vec<_> = swarm.book().unanswered().collect();
    let mut stamps = vec![None; swarm.book().next_sequence() as usize];
    let acked = acked.iter().map(|acked| (acked.sequence, acked.key_ms));
    for (sequence, key_ms) in acked.chain(unanswered) {
        stamps[sequence as usize] = Some(key_ms);
    }
    stamps.into_iter().collect::<Option<Vec<u64>>>().context("a datagram is not in the book")
}
