//! The demo from beginning to end: found, play, kill -9, recover, play on,
//! judge.
//!
//! ```text
//!  format -> run -> hotspots put -> play ... snapshot ... play -> kill -9
//!     players go on against a dead port, then wait -> run again: snapshot + log -> play, hunters too
//!     -> everything answered -> log judged -> snapshot of the state -> SIGTERM -> state compared
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use veltrix::admin::log_status::RecoveryStatus;
use veltrix::admin::status::Status;
use veltrix::base::cpu;
use veltrix::config::value::show_count;
use veltrix_abi::partition::{PARTITIONS_DEFAULT, partition_of};
use veltrix_client::codec::random_u64;

use super::Options;
use super::check;
use super::crowd::{Crowd, EVENTS_FULL, Memories, Order, Shared, Spec, Told};
use super::hunters::{self, Catch, Stop};
use super::place::{Place, Reading};
use super::report::{Findings, Outage};
use super::server::{Home, Server};
use super::sums::{self, Outside};
use super::world::{Hunt, World};
use crate::bench::service;

/// Datagrams of one event a second, over all phones.
const PHONES_PER_S: f64 = 6_000.0;

/// Full datagrams a second, over all game servers.
const SERVERS_PER_S: f64 = 16_000.0;

/// Bytes of a segment of the log, and how many: small, so that the disk need
/// not be large and a snapshot frees room while one watches.
const SEGMENT_BYTES: u64 = 16 << 20;
const SEGMENTS: u64 = 32;

/// Room for keys over what is expected.
const KEYS_SPARE: f64 = 1.5;

/// How long the players go on against a dead port before they hold.
const DEAD_PORT: Duration = Duration::from_millis(300);

/// Longest wait for the hotspots, for an answer after the recovery, and for the
/// last answers.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Cores from which on the crowd needs no core of its own.
const CORES_AMPLE: usize = 4;

/// What a person reads while it runs.
fn say(text: &str) {
    eprintln!("demo: {text}");
}

/// Runs it at `place`; `left_out` says what is missing there.
///
/// # Errors
///
/// When the server does not start or stops answering. What the check finds is
/// no error but a finding.
pub fn run(options: &Options, place: &Place, left_out: Option<String>) -> Result<Findings> {
    let binary = service::binary()?;
    let world = Arc::new(World::new(random_u64()));
    let home = Home::new()?;
    format(&binary, &home.data(), &world, options.duration)?;
    let before = place.read()?;
    let mut server = start(place, &binary, home)?;
    server.wait(&mut |_| {})?;
    let core = crowd_core(&server.status()?);
    let shared = Arc::new(Shared::default());
    let spec = Spec {
        address: place.address(),
        core,
        phones_per_s: PHONES_PER_S,
        servers_per_s: SERVERS_PER_S,
    };
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            place.as_client(|| Crowd::new(spec, Arc::clone(&world), Arc::clone(&shared))?.run())
        });
        let _end = EndOnDrop(&shared);
        let mut story = Story {
            options,
            place,
            binary: &binary,
            world: &world,
            core,
            shared: &shared,
            crowd: Some(crowd),
            played: Duration::ZERO,
            events_played: 0,
        };
        story.tell(server, &before, left_out)
    })
}

/// No error leaves the crowd running.
struct EndOnDrop<'a>(&'a Shared);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.tell(Order::End);
    }
}

fn start(place: &Place, binary: &Path, home: Home) -> Result<Server> {
    let command = place.command(binary, home.path(), &home.data());
    Server::start(home, command, |command| place.spawn(command))
}

/// `veltrix format`, sized for the world.
fn format(binary: &Path, data: &Path, world: &World, duration: Duration) -> Result<()> {
    let fullest = |of: fn(&Hunt) -> u32| {
        let mut sums = vec![0; usize::from(PARTITIONS_DEFAULT)];
        for hunt in &world.hunts {
            sums[usize::from(partition_of(hunt.domain, PARTITIONS_DEFAULT))] += u64::from(of(hunt));
        }
        sums.into_iter().max().unwrap_or(0) * u64::from(PARTITIONS_DEFAULT)
    };
    // Players are in proportion to events.
    let unevenness = fullest(|hunt| hunt.players) as f64 / f64::from(world.players);
    let events_per_s = PHONES_PER_S + SERVERS_PER_S * EVENTS_FULL as f64;
    let keys = world.cells.len() as f64 + events_per_s * duration.as_secs_f64();
    let mut command = Command::new(binary);
    command.arg("format").arg("--data").arg(data).args(["--yes", "--json"]);
    for (flag, value) in [
        ("--segment-bytes", SEGMENT_BYTES),
        ("--segments", SEGMENTS),
        ("--cells-max", fullest(|hunt| hunt.cells)),
        ("--players-max", fullest(|hunt| hunt.players)),
        ("--dedupe-keys-max", (keys * unevenness * KEYS_SPARE) as u64),
    ] {
        command.arg(flag).arg(value.to_string());
    }
    let output = command.output().context("demo: start of `veltrix format`")?;
    ensure!(
        output.status.success(),
        "demo: `veltrix format` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Where cores are few, one without a lane for everything that loads it.
fn crowd_core(status: &Status) -> Option<usize> {
    let cores = cpu::allowed_cores();
    if cores.len() >= CORES_AMPLE {
        return None;
    }
    cores.into_iter().find(|core| status.lanes.iter().all(|lane| lane.core != Some(*core)))
}

struct Story<'scope, 'a> {
    options: &'a Options,
    place: &'a Place,
    binary: &'a PathBuf,
    world: &'a Arc<World>,
    core: Option<usize>,
    shared: &'a Shared,
    crowd: Option<ScopedJoinHandle<'scope, Result<Memories>>>,
    /// Time played, and events acknowledged in it.
    played: Duration,
    events_played: u64,
}

impl Story<'_, '_> {
    fn tell(
        &mut self,
        server: Server,
        before: &Reading,
        left_out: Option<String>,
    ) -> Result<Findings> {
        self.found(&server)?;
        let first_life = self.sums_off(&server, before)?;
        self.shared.tell(Order::Play);
        let half = self.options.duration / 2;
        self.watch(&server, half / 2)?;
        server.snapshot()?;
        say("snapshot taken while they played on");
        self.watch(&server, half - half / 2)?;
        let (server, second, outage) = self.kill_and_recover(server)?;
        let (catch, status, outside) = self.second_life(&server, &second)?;
        let stages = status.log.as_ref().map(|log| log.stages.clone()).unwrap_or_default();
        say("every event has its answer; judging the log offline, event by event");
        let data = server.data();
        self.shared.tell(Order::End);
        let mut memories = self.end_of_crowd()?;
        self.merge(&mut memories, &catch);
        let log = check::log(self.binary, &data, &memories.told)?;
        server.snapshot()?;
        let (exit, _home) = server.stop()?;
        say("comparing every player and hotspot with what clients were told");
        let state = check::state(self.binary, &data, self.world, &memories.expected)?;
        Ok(Findings {
            left_out: left_out.into_iter().collect(),
            world: Arc::clone(self.world),
            core: self.core,
            status,
            outside,
            first_life,
            outage,
            stages,
            played_s: self.played.as_secs_f64(),
            events_played: self.events_played,
            told: memories.told.len() as u64,
            totals: memories.totals,
            unanswered: memories.unanswered as u64,
            catch,
            log,
            state,
            exit,
        })
    }

    /// Fails when the crowd is gone before its time.
    fn crowd_lives(&mut self) -> Result<()> {
        match &self.crowd {
            Some(crowd) if crowd.is_finished() => match self.end_of_crowd() {
                Ok(_) => Err(anyhow!("demo: the crowd ended early")),
                Err(error) => Err(error),
            },
            _ => Ok(()),
        }
    }

    fn end_of_crowd(&mut self) -> Result<Memories> {
        let crowd = self.crowd.take().context("demo: there is no crowd")?;
        crowd.join().map_err(|_| anyhow!("demo: the crowd's thread panicked"))?
    }

    /// Waits until `done`.
    fn until(&mut self, what: &str, server: &Server, done: impl Fn(&Shared) -> bool) -> Result<()> {
        let started = Instant::now();
        while !done(self.shared) {
            self.crowd_lives()?;
            ensure!(
                started.elapsed() < ANSWER_WAIT_MAX,
                "demo: {what}: not within {ANSWER_WAIT_MAX:?}; the server said:\n{}",
                server.words()
            );
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn found(&mut self, server: &Server) -> Result<()> {
        let cells = self.world.cells.len() as u64;
        say(&format!(
            "`veltrix run` serves {}; putting {} hotspots in {} cities",
            self.place.address(),
            show_count(cells),
            self.world.hunts.len()
        ));
        self.shared.tell(Order::Found);
        self.until("the hotspots", server, |shared| {
            shared.acked_events() >= cells && shared.unanswered() == 0
        })
    }

    /// By how much the sums of the first life are off at its last quiet moment,
    /// and the frames in them.
    fn sums_off(&self, server: &Server, before: &Reading) -> Result<(u64, u64)> {
        let status = server.status_when_quiet()?;
        let outside = self.place.outside(before, self.client_datagrams())?;
        let off = sums::sums(&status, &outside).iter().map(|sum| sum.off).sum();
        Ok((off, status.accounting.frames_in))
    }

    /// Datagrams that the crowd's sockets were given.
    fn client_datagrams(&self) -> u64 {
        let totals = self.shared.totals();
        totals.datagrams + totals.twice + totals.retries
    }

    /// Lets them play for `time`, with a line a second.
    fn watch(&mut self, server: &Server, time: Duration) -> Result<()> {
        let started = Instant::now();
        let acked_before = self.shared.acked_events();
        let mut last = (started, acked_before);
        self.shared.take_p99_ns();
        while started.elapsed() < time {
            let left = time.saturating_sub(started.elapsed());
            let line = LINE_EVERY.saturating_sub(last.0.elapsed());
            thread::sleep(line.min(left));
            self.crowd_lives()?;
            if last.0.elapsed() >= LINE_EVERY {
                let (now, acked) = (Instant::now(), self.shared.acked_events());
                let per_s = (acked - last.1) as f64 / (now - last.0).as_secs_f64();
                say(&format!(
                    "{:>5.1} s  {:>9} events/s durable and applied, p99 {:>6.1} ms, epoch {}",
                    (self.played + started.elapsed()).as_secs_f64(),
                    show_count(per_s as u64),
                    self.shared.take_p99_ns() as f64 / 1e6,
                    show_count(epoch(&server.status()?)),
                ));
                last = (now, acked);
            }
        }
        self.played += started.elapsed();
        self.events_played += self.shared.acked_events() - acked_before;
        Ok(())
    }

    /// kill -9 under load; gives the next life, the link's counters before it,
    /// and how the outage went.
    fn kill_and_recover(&mut self, mut server: Server) -> Result<(Server, Second, Outage)> {
        let at_epoch = epoch(&server.status()?);
        let pid = server.pid();
        let home = server.kill()?;
        let killed = Instant::now();
        thread::sleep(DEAD_PORT);
        self.crowd_lives()?;
        let unanswered = self.shared.unanswered();
        say(&format!(
            "killed -9 process {pid} at epoch {} or later; {} datagrams have no answer, players try again and wait",
            show_count(at_epoch),
            show_count(unanswered as u64)
        ));
        self.shared.tell(Order::Hold);
        thread::sleep(Duration::from_millis(50));
        let second = Second { before: self.place.read()?, datagrams: self.client_datagrams() };
        let mut server = start(self.place, self.binary, home)?;
        server.wait(&mut |line| {
            if tells_of_recovery(line) {
                eprintln!("demo:   | {line}");
            }
        })?;
        let started = server.started();
        let ready = started.elapsed();
        self.shared.forget_first_ack();
        self.shared.tell(Order::Play);
        self.until("an answer after the recovery", &server, |s| s.first_ack().is_some())?;
        let first_ack = self.shared.first_ack().context("demo: no ack")?;
        let recovery: RecoveryStatus =
            server.status()?.log.map(|log| log.recovery).unwrap_or_default();
        let outage = Outage {
            at_epoch,
            unanswered: unanswered as u64,
            ready,
            recovery: first_ack.saturating_duration_since(started),
            whole: first_ack.saturating_duration_since(killed),
            found: recovery,
        };
        say(&format!(
            "recovered: takes events {:.2} s after its start, first durable ack after {:.2} s",
            outage.ready.as_secs_f64(),
            outage.recovery.as_secs_f64()
        ));
        Ok((server, second, outage))
    }

    /// The second half, with hunters; then everything answered and quiet.
    fn second_life(
        &mut self,
        server: &Server,
        second: &Second,
    ) -> Result<(Catch, Status, Outside)> {
        let (place, core, world) = (self.place, self.core, self.world);
        let address = place.address();
        let catch = thread::scope(|scope| {
            let stop = Stop::default();
            let told = Arc::clone(&stop.0);
            let hunting =
                scope.spawn(move || place.as_client(|| hunters::run(address, core, world, &told)));
            self.watch(server, self.options.duration - self.options.duration / 2)?;
            drop(stop);
            self.shared.tell(Order::Finish);
            hunting.join().map_err(|_| anyhow!("demo: the hunters' thread panicked"))?
        })?;
        self.until("the last answers", server, |shared| shared.unanswered() == 0)?;
        let status = server.status_when_quiet()?;
        for line in server.words().lines().filter(|line| line.contains(": warning: ")) {
            eprintln!("demo:   | {line}");
        }
        let datagrams = self.client_datagrams() - second.datagrams + catch.datagrams_sent;
        let outside = place.outside(&second.before, datagrams)?;
        Ok((catch, status, outside))
    }

    /// The hunters' receipts count as what the crowd was told.
    fn merge(&self, memories: &mut Memories, catch: &Catch) {
        for (event, receipt) in &catch.receipts {
            memories.expected.told(self.world, event, receipt.outcome);
            let (outcome, epoch) = (receipt.outcome, receipt.epoch);
            memories.told.push(Told { key: event.key, outcome, epoch });
        }
    }
}

/// Counters when the second life began.
struct Second {
    before: Reading,
    datagrams: u64,
}

fn epoch(status: &Status) -> u64 {
    status.log.as_ref().map_or(0, |log| log.applied_epoch)
}

/// Whether a line of the server's start belongs before the eyes.
fn tells_of_recovery(line: &str) -> bool {
    const WORDS: [&str; 7] = [
        "write-ahead log",
        "cut off",
        "loading state",
        "snapshot at",
        "replay",
        "serving",
        "refused",
    ];
    WORDS.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tells_of_the_recovery_is_shown() {
        assert!(tells_of_recovery("veltrix: log replayed: 2 entries, 45 B in 16 ms; epoch 1"));
        assert!(!tells_of_recovery("veltrix: memory: 59.8 MiB for batches in flight"));
    }
}
