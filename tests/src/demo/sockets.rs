//! The demo without XDP: `veltrix run` on a UDP socket of the loopback, loaded
//! by the generator of `veltrix load`.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use veltrix::base::cpu;
use veltrix::cli::load::{Fill, Plan, Rate, Report, drive_watched};
use veltrix::config::value::show_count;

use super::hunters::{self, Catch, Hunt, StopOnDrop};
use super::packets::list;
use super::progress::Progress;
use super::report::{Findings, Hold, Load};
use super::search::{self, Attempt};
use super::server::{Process, Server};
use super::sums::{Outside, kernel_losses};
use super::{HOLD_SHARE, Options};
use crate::bench::service;

/// Sockets of each of the two halves of the load.
const CONNECTIONS: u32 = 2;

/// Events of a full datagram of 1,232 bytes.
const EVENTS_FULL: u16 = 24;

/// Cores from which on the load and the hunters need no core of their own.
const CORES_AMPLE: usize = 4;

/// Runs it, saying `why` not over XDP.
///
/// # Errors
///
/// When the server does not start or stops answering.
pub fn run(options: &Options, why: &str) -> Result<Findings> {
    let left_out =
        "the XDP program, AF_XDP sockets and the network lab: the same lanes run over UDP sockets";
    eprintln!("demo: over UDP sockets: {why}\ndemo: left out: {left_out}");
    let binary = service::binary()?;
    let server = Server::start(
        |dir| {
            let mut command = Command::new(&binary);
            command.args(["run", "--listen", "127.0.0.1:0", "--control-socket"]);
            command.arg(dir.join("control.sock"));
            command
        },
        |mut command| command.spawn().map(Process::Own),
    )?;
    let status = server.status()?;
    let address: SocketAddr = status
        .listen
        .parse()
        .with_context(|| format!("demo: the server's address {}", status.listen))?;
    let load_core = load_core(status.lanes.iter().filter_map(|lane| lane.core).collect());
    let mut progress = Progress::new(options.duration);
    progress.say(&format!("`veltrix run` serves {address}; {} hunters begin", hunters::HUNTERS));

    let hunt = Arc::new(Hunt::default());
    let (driven, catch) = thread::scope(|scope| -> Result<(Driven, Catch)> {
        let hunting = scope.spawn(|| hunters::run(address, load_core, &hunt));
        let driven = {
            let _stop = StopOnDrop(&hunt);
            let mut load = SocketLoad {
                address,
                core: load_core,
                server: &server,
                hunt: &hunt,
                progress: &mut progress,
                before: Load::default(),
            };
            load.drive(options)?
        };
        let catch = hunting.join().map_err(|_| anyhow!("demo: the hunters' thread panicked"))??;
        Ok((driven, catch))
    })?;
    drop(progress);

    let status = server.status_when_quiet()?;
    let sent = driven.handed_over + catch.datagrams_sent;
    let exit = server.stop()?;
    Ok(Findings {
        left_out: vec![format!("{left_out} ({why})")],
        source: format!(
            "as `veltrix load` does it, on {}: half the datagrams hold 1 event, half {EVENTS_FULL}",
            load_core
                .map_or_else(|| "any core".to_owned(), |core| format!("core {}", list(&[core])))
        ),
        status,
        outside: Outside::Clients { sent },
        search: driven.search,
        limit: driven.limit,
        hold: driven.hold,
        catch,
        exit,
    })
}

/// Where cores are few, one without a lane for everything that loads it.
fn load_core(lanes: Vec<usize>) -> Option<usize> {
    let cores = cpu::allowed_cores();
    if cores.len() >= CORES_AMPLE {
        return None;
    }
    cores.into_iter().find(|core| !lanes.contains(core))
}

/// What [`SocketLoad::drive`] did.
struct Driven {
    search: Load,
    limit: String,
    hold: Hold,
    /// Datagrams that the sockets took.
    handed_over: u64,
}

struct SocketLoad<'a> {
    address: SocketAddr,
    core: Option<usize>,
    server: &'a Server,
    hunt: &'a Hunt,
    progress: &'a mut Progress,
    /// Of bursts that ended.
    before: Load,
}

struct Burst {
    load: Load,
    handed_over: u64,
    busy: u64,
    seconds: f64,
}

impl SocketLoad<'_> {
    fn drive(&mut self, options: &Options) -> Result<Driven> {
        let started = Instant::now();
        let mut total = Load::default();
        let mut handed_over = 0;
        let step = options.search() / search::STEPS;
        let limit = search::highest(options.search(), |rate| {
            let before = self.server.status()?;
            let burst = self.burst("searching", rate, step)?;
            total.add(&burst.load);
            handed_over += burst.handed_over;
            let loss = match burst.load.events_lost() {
                0 => None,
                _ => Some(self.explain(&before, &burst)?),
            };
            let seconds = burst.seconds.max(step.as_secs_f64());
            Ok(Attempt { rate: burst.load.datagrams as f64 / seconds, loss })
        })?;
        let rate = limit.rate * HOLD_SHARE;
        self.progress.say(&format!(
            "nothing is lost up to {} datagrams/s; holding {}",
            show_count(limit.rate as u64),
            show_count(rate as u64)
        ));
        let left = options.duration.saturating_sub(started.elapsed());
        let before = self.server.status()?;
        self.hunt.measure(true);
        let burst = self.burst("holding", rate, left.max(options.search()))?;
        self.hunt.measure(false);
        let after = self.server.status()?;
        let frames = after.accounting.frames_in - before.accounting.frames_in;
        let loss = match burst.load.events_lost() {
            0 => None,
            _ => Some(self.explain(&before, &burst)?),
        };
        Ok(Driven {
            search: total,
            limit: limit.why,
            handed_over: handed_over + burst.handed_over,
            hold: Hold { load: burst.load, seconds: burst.seconds, datagrams_in: frames, loss },
        })
    }

    /// Both halves at once: single events and full datagrams, together `rate`
    /// datagrams a second.
    fn burst(&mut self, doing: &str, rate: f64, time: Duration) -> Result<Burst> {
        let plan = |fill: u16| Plan {
            addr: self.address.to_string(),
            rate: Rate::Events(rate / 2.0 * f64::from(fill)),
            duration: time,
            fill: Fill::Events(fill),
            connections: CONNECTIONS,
            ..Plan::default()
        };
        let (core, before) = (self.core, self.before);
        let live: [Live; 2] = Default::default();
        let reports = thread::scope(|scope| -> Result<Vec<Report>> {
            let halves = [(1, &live[0]), (EVENTS_FULL, &live[1])].map(|(fill, live)| {
                let plan = plan(fill);
                scope.spawn(move || {
                    if let Some(core) = core {
                        // Without it only the figures suffer. Threads started here inherit it.
                        let _ = cpu::pin_to(core);
                    }
                    drive_watched(&plan, &mut |now| {
                        live.set(now.events_sent, now.events_answered, fill)
                    })
                })
            });
            while !halves.iter().all(|half| half.is_finished()) {
                thread::sleep(Duration::from_millis(5));
                if self.progress.is_due() {
                    let datagrams: u64 = live.iter().map(|l| l.datagrams.load(Relaxed)).sum();
                    let acked: u64 = live.iter().map(|l| l.answered.load(Relaxed)).sum();
                    let acked = before.events_acked + acked + self.hunt.acked();
                    self.progress.show(doing, before.datagrams + datagrams, acked);
                }
            }
            halves
                .into_iter()
                .map(|half| match half.join() {
                    Ok(report) => report.map_err(|error| anyhow!("demo: {error}")),
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        })?;
        let burst = total(&reports);
        self.before.add(&burst.load);
        Ok(burst)
    }

    /// Where a burst lost something.
    fn explain(&self, before: &veltrix::admin::status::Status, burst: &Burst) -> Result<String> {
        let mut found = kernel_losses(before, &self.server.status()?);
        for (count, what) in [
            (
                burst.load.datagrams - burst.handed_over,
                "datagrams were not taken by the client's socket",
            ),
            (burst.busy, "events were answered `busy`"),
        ] {
            if count > 0 {
                found.push(format!("{} {what}", show_count(count)));
            }
        }
        if found.is_empty() {
            let lost = show_count(burst.load.events_lost());
            found.push(format!("acks of {lost} events were lost, or came a second late"));
        }
        Ok(found.join(", "))
    }
}

/// Counters of a half under way.
#[derive(Default)]
struct Live {
    datagrams: AtomicU64,
    answered: AtomicU64,
}

impl Live {
    fn set(&self, events_sent: u64, events_answered: u64, fill: u16) {
        self.datagrams.store(events_sent / u64::from(fill), Relaxed);
        self.answered.store(events_answered, Relaxed);
    }
}

fn total(reports: &[Report]) -> Burst {
    let mut burst = Burst { load: Load::default(), handed_over: 0, busy: 0, seconds: 0.0 };
    for report in reports {
        burst.load.add(&Load {
            events_sent: report.events_sent,
            events_acked: report.events_acked,
            datagrams: report.datagrams_sent,
        });
        burst.handed_over += report.datagrams_sent - report.send_errors;
        burst.busy += report.events_busy;
        burst.seconds = burst.seconds.max(report.seconds);
    }
    burst
}
