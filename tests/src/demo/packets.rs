//! The demo over the lab: real frames through the XDP program and AF_XDP
//! sockets into the lanes, and the acks back.
//!
//! ```text
//!  core 0: generator --\                                   /--> lane (last core)
//!  core 0: SDK hunters -+-- veltrix-c ===== veltrix-s -- XDP
//!          sink <----------/       (acks)                  \--- veltrix run's control core
//! ```
//!
//! One generator a queue, on a core without a lane where there is one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use veltrix::admin::status::Status;
use veltrix::base::cpu;
use veltrix::cli::load::{Distribution, World};
use veltrix::config::value::show_count;
use veltrix_abi::Exit;
use veltrix_client::codec::{Random, random_u64};

use super::hunters::{self, Catch, Hunt, StopOnDrop};
use super::progress::Progress;
use super::report::{Findings, Hold, Load};
use super::search::{self, Attempt};
use super::server::{Process, Server};
use super::sums::{Outside, exits, kernel_losses};
use super::{HOLD_SHARE, Options};
use crate::bench::rig::PORT;
use crate::bench::service::{self, Pinger, Provider};
use crate::lab::{
    Bound, Datagram, FrameSpec, Generator, GeneratorSpec, Lab, LabSpec, Pacing, SERVER_IPV4, Sent,
    Side, Sink, Template, Vary,
};

/// Game servers that the generator plays, half of which send single events
/// and half full datagrams.
const GAME_SERVERS: u16 = 32;

/// Events of a full datagram of 1,232 bytes.
const EVENTS_FULL: u16 = 24;

/// Hunts the generator's events belong to.
const HUNTS: u64 = 1_000;

/// Source ports of generated frames lie here, below those that the system
/// gives to sockets.
const PORT_FIRST: u16 = 0x5000;

/// Of each game server four addresses take turns frame by frame, and eight
/// ports every thousand frames: as senders of many datagrams at a time do.
const VARY: Vary = Vary { source_mask: 0x3, port_mask: 0x0700 };

/// How long an ack may be under way before it counts as missing.
const ACK_WAIT_MAX: Duration = Duration::from_millis(250);

/// The rate is held, and watched, in slices of about this length.
const SLICE: Duration = Duration::from_secs(1);

/// Share of a slice's events without ack from which on the rate is too high.
const BACK_OFF_LOSS: f64 = 0.01;

/// Runs it.
///
/// # Errors
///
/// No privileges, or a server that does not start or stops answering.
pub fn run(options: &Options) -> Result<Findings> {
    const HINT: &str =
        "demo: the network lab cannot be made; `cargo xtask demo --sockets` does without";
    let cores = cpu::allowed_cores();
    let queues = options.queues.unwrap_or((cores.len() as u32 / 2).max(1));
    ensure!(
        queues as usize <= cores.len(),
        "demo: --queues is {queues}, wanted at most {}: one for each core this process may use",
        cores.len()
    );
    let binary = service::binary()?;
    let lab = Lab::new(LabSpec::with_queues(queues)).context(HINT)?;
    let sink = Sink::attach(&lab, Some(PORT_FIRST..=PORT_FIRST | VARY.port_mask | 0xff))?;
    let sent_before = lab.counters(Side::Client)?.tx_packets;
    let mut server = Server::start(
        |dir| service::run_command(&binary, Provider::Xdp, dir, &[]),
        |command| lab.spawn_server(command).map(Process::Lab),
    )?;
    if let Some(child) = server.lab_child() {
        Pinger::new(&lab)?.wait_for(child)?;
    }
    let status = server.status()?;
    let generator_cores = generator_cores(&cores, queues, &status)?;
    let mut progress = Progress::new(options.duration);
    progress.say(&format!(
        "`veltrix run --nic veltrix-s` serves {queues} {} of a veth pair; {} hunters and {} game servers begin",
        if queues == 1 { "queue" } else { "queues" },
        hunters::HUNTERS,
        GAME_SERVERS
    ));

    let hunt = Arc::new(Hunt::default());
    let core = generator_cores.first().copied();
    let address = SocketAddr::from((SERVER_IPV4, PORT));
    let (mut driven, catch) = thread::scope(|scope| -> Result<(Driven, Catch)> {
        let hunting = scope.spawn(|| lab.client(|| hunters::run(address, core, &hunt)));
        let driven = {
            let _stop = StopOnDrop(&hunt);
            let mut load = FrameLoad {
                generators: generators(&lab, &generator_cores)?,
                sink: &sink,
                server: &server,
                hunt: &hunt,
                progress: &mut progress,
                delivered: 0,
                acked: 0,
            };
            load.drive(options)?
        };
        let catch = hunting.join().map_err(|_| anyhow!("demo: the hunters' thread panicked"))??;
        Ok((driven, catch))
    })?;
    drop(progress);

    let status = server.status_when_quiet()?;
    let (client, veth) = (lab.counters(Side::Client)?, lab.counters(Side::Server)?);
    let answers = sink.read()?;
    // Acks that came after the last burst was given up.
    let late =
        answers.dropped.acked_events - driven.search.events_acked - driven.hold.load.events_acked;
    let hold = &mut driven.hold.load;
    hold.events_acked += late.min(hold.events_lost());
    let outside = Outside::Interface {
        sent: client.tx_packets - sent_before,
        taken: veth.sum(|queue| queue.xdp_packets),
        answers: answers.dropped.frames + answers.passed.frames,
        answers_refused: veth.tx_dropped,
    };
    let exit = server.stop()?;
    Ok(Findings {
        left_out: Vec::new(),
        source: format!(
            "generator on core {}: {GAME_SERVERS} game servers, half send 1 event a datagram, half {EVENTS_FULL}",
            list(&generator_cores)
        ),
        status,
        outside,
        search: driven.search,
        limit: driven.limit,
        hold: driven.hold,
        catch,
        exit,
    })
}

/// What [`FrameLoad::drive`] did.
struct Driven {
    search: Load,
    limit: String,
    hold: Hold,
}

/// Numbers with commas.
pub(super) fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// For each queue a core that feeds it, without a lane where there is one.
fn generator_cores(cores: &[usize], queues: u32, status: &Status) -> Result<Vec<usize>> {
    let has_lane = |core: usize| status.lanes.iter().any(|lane| lane.core == Some(core));
    let queues = queues as usize;
    (0..queues)
        .map(|queue| {
            let mut feeding: Vec<usize> =
                cores.iter().copied().filter(|core| core % queues == queue).collect();
            feeding.sort_by_key(|core| has_lane(*core));
            feeding.first().copied().with_context(|| {
                format!("demo: no core of {cores:?} feeds queue {queue} of {queues}; wanted --queues of at most {}", cores.len())
            })
        })
        .collect()
}

fn generators(lab: &Lab, cores: &[usize]) -> Result<Vec<Generator>> {
    let templates = templates()?;
    cores
        .iter()
        .map(|core| {
            let spec = GeneratorSpec { vary: VARY, ..GeneratorSpec::new(*core, templates.clone()) };
            Generator::new(lab, spec)
        })
        .collect()
}

/// Events in the datagrams of template `index`.
const fn events_of(index: usize) -> u16 {
    if index.is_multiple_of(2) { 1 } else { EVENTS_FULL }
}

fn templates() -> Result<Vec<Template>> {
    let world = World::new(Distribution::Cities, HUNTS);
    let mut random = Random::new(random_u64());
    (0..GAME_SERVERS)
        .map(|index| {
            let datagram = Datagram {
                session: random.next_u64(),
                sequence: u64::from(index),
                domain: world.place(&mut random).domain,
                ..Datagram::default()
            };
            let [_, low] = index.to_be_bytes();
            let frame = FrameSpec {
                source: IpAddr::V4(Ipv4Addr::new(10, 78, low, 16)),
                source_port: PORT_FIRST | u16::from(low),
                ..FrameSpec::ipv4(PORT)
            };
            Template::new(&frame, &datagram.events(events_of(index.into()), 0))
        })
        .collect()
}

/// What one burst of all generators gave.
#[derive(Default)]
struct Burst {
    load: Load,
    /// Frames that the veth ring, or the link, did not take.
    undelivered: u64,
    seconds: f64,
}

/// The generators and what watches them.
struct FrameLoad<'a> {
    generators: Vec<Generator>,
    sink: &'a Sink,
    server: &'a Server,
    hunt: &'a Hunt,
    progress: &'a mut Progress,
    /// Frames delivered by bursts that ended.
    delivered: u64,
    /// Events acknowledged, as far as counted for a burst.
    acked: u64,
}

impl FrameLoad<'_> {
    fn drive(&mut self, options: &Options) -> Result<Driven> {
        let started = Instant::now();
        let mut total = Load::default();
        let step = options.search() / search::STEPS;
        let limit = search::highest(options.search(), |rate| {
            let before = self.server.status()?;
            let burst = self.burst("searching", rate, step)?;
            total.add(&burst.load);
            let lost = burst.load.events_lost() > 0 || burst.undelivered > 0;
            let loss = match lost {
                true => Some(self.explain(&before, &burst)?),
                false => None,
            };
            Ok(Attempt { rate: burst.load.datagrams as f64 / burst.seconds, loss })
        })?;
        let rate = limit.rate * HOLD_SHARE;
        self.progress.say(&format!(
            "nothing is lost up to {} datagrams/s; holding {}",
            show_count(limit.rate as u64),
            show_count(rate as u64)
        ));
        let left = options.duration.saturating_sub(started.elapsed());
        self.hunt.measure(true);
        let hold = self.hold(rate, left.max(step))?;
        self.hunt.measure(false);
        Ok(Driven { search: total, limit: limit.why, hold })
    }

    /// Holds the rate `wanted` for `time`, slice by slice; backs off while the
    /// machine does not give it.
    fn hold(&mut self, wanted: f64, time: Duration) -> Result<Hold> {
        let mut rate = wanted;
        let before = self.server.status()?;
        let mut sum = Burst::default();
        let slices = (time.as_secs_f64() / SLICE.as_secs_f64()).round().max(1.0) as u32;
        for slice in 1..=slices {
            let burst = self.burst("holding", rate, time / slices)?;
            sum.load.add(&burst.load);
            sum.undelivered += burst.undelivered;
            sum.seconds += burst.seconds;
            let lost = burst.load.events_lost() as f64 / burst.load.events_sent.max(1) as f64;
            if lost > BACK_OFF_LOSS && slice < slices {
                rate *= HOLD_SHARE;
                self.progress.say(&format!(
                    "{:.1} % lost in this slice; backing off to {} datagrams/s",
                    lost * 100.0,
                    show_count(rate as u64)
                ));
            } else if lost == 0.0 {
                rate = (rate / HOLD_SHARE).min(wanted);
            }
        }
        let after = self.server.status()?;
        let loss = match sum.load.events_lost() {
            0 => None,
            _ => Some(self.explain(&before, &sum)?),
        };
        Ok(Hold {
            load: sum.load,
            seconds: sum.seconds,
            datagrams_in: after.accounting.frames_in - before.accounting.frames_in,
            loss,
        })
    }

    /// Sends at `rate` datagrams a second over all generators and waits for
    /// the acks.
    fn burst(&mut self, doing: &str, rate: f64, time: Duration) -> Result<Burst> {
        let share = (rate / self.generators.len() as f64).max(1.0) as u64;
        let mut running = Vec::new();
        for mut generator in std::mem::take(&mut self.generators) {
            generator.set_pacing(Pacing::RatePerS(share))?;
            running.push(generator.start(Bound::Time(time))?);
        }
        while !running.iter().all(crate::lab::Running::is_finished) {
            thread::sleep(Duration::from_millis(5));
            if self.progress.is_due() {
                let now: u64 = running.iter().map(crate::lab::Running::delivered).sum();
                let acked = self.sink.read()?.dropped.acked_events + self.hunt.acked();
                self.progress.show(doing, self.delivered + now, acked);
            }
        }
        let mut sent = Vec::new();
        for one in running {
            let (generator, of_it) = one.join()?;
            self.generators.push(generator);
            sent.push(of_it);
        }
        let mut burst = total(&sent);
        self.delivered += burst.load.datagrams.saturating_sub(burst.undelivered);
        burst.load.events_acked = self.acks(burst.load.events_sent)?;
        Ok(burst)
    }

    /// Waits for the acks of `wanted` events; gives those that came. Acks of
    /// an earlier burst that come this late count for this one.
    fn acks(&mut self, wanted: u64) -> Result<u64> {
        let started = Instant::now();
        loop {
            let acked = self.sink.read()?.dropped.acked_events - self.acked;
            if acked >= wanted || started.elapsed() > ACK_WAIT_MAX {
                let acked = acked.min(wanted);
                self.acked += acked;
                return Ok(acked);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where a burst lost something.
    fn explain(&self, before: &Status, burst: &Burst) -> Result<String> {
        let after = self.server.status()?;
        let mut found = kernel_losses(before, &after);
        if burst.undelivered > 0 {
            found
                .push(format!("{} frames found the veth ring full", show_count(burst.undelivered)));
        }
        let shed = exits(&after, Exit::Shed) - exits(before, Exit::Shed);
        if shed > 0 {
            found.push(format!("{} datagrams were answered `busy`", show_count(shed)));
        }
        if found.is_empty() {
            let lost = show_count(burst.load.events_lost());
            found.push(format!("acks of {lost} events were lost on their way back"));
        }
        Ok(found.join(", "))
    }
}

fn total(sent: &[Sent]) -> Burst {
    let mut burst = Burst::default();
    for one in sent {
        burst.seconds = burst.seconds.max(one.elapsed.as_secs_f64());
        burst.undelivered += one.ring_full + one.refused;
        burst.load.datagrams += one.issued;
        for (index, template) in one.templates.iter().enumerate() {
            burst.load.events_sent += template.issued * u64::from(events_of(index));
        }
    }
    burst
}
