//! Hunters: players near real cities whose events go through the SDK, one at a
//! time each, as a game server would send them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};
use veltrix::base::cpu;
use veltrix::cli::load::{Distribution, World};
use veltrix_client::codec::{Random, random_u64};
use veltrix_client::{Client, Event, Mode};

/// Connections, each for some of the hunts.
pub const CLIENTS: u64 = 4;

/// Hunters over all connections.
pub const HUNTERS: u64 = 64;

/// Hunts they take part in.
const HUNTS: u64 = 16;

/// Time between two events of a hunter: some 4,000 events a second in all, few
/// beside the generator's, so that they measure the load and are not it.
const EVENT_EVERY: Duration = Duration::from_millis(16);

/// Kinds of events: claim, collect, use a key, checkpoint.
const KINDS: u64 = 4;

/// Longest latency told from another.
const LATENCY_NS_MAX: u64 = 10_000_000_000;

/// What the hunters and whoever runs them share.
#[derive(Debug, Default)]
pub struct Hunt {
    stop: AtomicBool,
    measure: AtomicBool,
    acked: AtomicU64,
}

impl Hunt {
    /// Latencies count from now on.
    pub fn measure(&self, on: bool) {
        self.measure.store(on, Relaxed);
    }

    /// Asks the hunters to end.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Events acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Relaxed)
    }
}

/// Stops the hunters when dropped, so that no error leaves them running.
pub struct StopOnDrop<'a>(pub &'a Hunt);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What became of the hunters' events.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Events sent.
    pub events_sent: u64,
    /// Events with an outcome.
    pub events_acked: u64,
    /// Those of them sent while latencies counted.
    pub events_acked_measured: u64,
    /// Datagrams sent, retries included.
    pub datagrams_sent: u64,
    /// Datagrams sent again.
    pub retries: u64,
    /// From the call of `send` to its outcome, nanoseconds.
    pub ack_ns: Histogram<u64>,
}

/// Hunts on the calling thread, on `core` if given, until told to stop.
///
/// # Errors
///
/// When the server does not greet the SDK.
pub fn run(address: SocketAddr, core: Option<usize>, hunt: &Arc<Hunt>) -> Result<Catch> {
    if let Some(core) = core {
        // Without it only the figures suffer.
        let _ = cpu::pin_to(core);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(hunt_all(address, hunt))
}

async fn hunt_all(address: SocketAddr, hunt: &Arc<Hunt>) -> Result<Catch> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::builder().mode(Mode::None).connect(address).await;
        clients.push(client.with_context(|| format!("demo: the SDK cannot connect to {address}"))?);
    }
    let world = Arc::new(World::new(Distribution::Cities, HUNTS));
    let mut hunters = JoinSet::new();
    for player in 1..=HUNTERS {
        hunters.spawn(hunter(clients.clone(), player, Arc::clone(&world), Arc::clone(hunt)));
    }
    let mut total = Catch {
        events_sent: 0,
        events_acked: 0,
        events_acked_measured: 0,
        datagrams_sent: 0,
        retries: 0,
        ack_ns: Histogram::new_with_max(LATENCY_NS_MAX, 3)?,
    };
    while let Some(hunter) = hunters.join_next().await {
        let (acked, latencies) = hunter.context("demo: a hunter panicked")?;
        total.events_acked += acked;
        for ns in latencies {
            total.ack_ns.saturating_record(ns);
        }
    }
    total.events_acked_measured = total.ack_ns.len();
    for client in clients {
        let stats = client.close().await;
        total.events_sent += stats.events_submitted;
        total.datagrams_sent += stats.datagrams_sent;
        total.retries += stats.retries;
    }
    Ok(total)
}

/// One hunter: its events with an outcome, and the latencies that count.
async fn hunter(
    clients: Vec<Client>,
    player: u64,
    world: Arc<World>,
    hunt: Arc<Hunt>,
) -> (u64, Vec<u64>) {
    let mut random = Random::new(random_u64());
    let place = world.place(&mut random);
    let client = &clients[(place.domain % CLIENTS) as usize];
    let domain = client.domain(place.domain);
    let mut latencies = Vec::new();
    let mut acked = 0;
    let first = Instant::now() + EVENT_EVERY.mul_f64(random.unit());
    let mut ticks = interval_at(first.into(), EVENT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !hunt.stop.load(Relaxed) {
        ticks.tick().await;
        let kind = random.below(KINDS) as u16 + 1;
        let event = Event::new(player, kind, world.cell(place, &mut random)).argument(1);
        let counts = hunt.measure.load(Relaxed);
        let sent = Instant::now();
        // An event without an outcome is what sent and acked differ by.
        if domain.send(event).await.is_ok() {
            acked += 1;
            hunt.acked.fetch_add(1, Relaxed);
            if counts {
                latencies.push(sent.elapsed().as_nanos() as u64);
            }
        }
    }
    (acked, latencies)
}
