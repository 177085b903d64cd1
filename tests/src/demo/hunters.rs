//! Hunters: players whose events go through the SDK, one at a time each, as a
//! game would send them. They join once the node has recovered, and measure
//! what a caller of the SDK sees beside the crowd.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};
use veltrix::base::cpu;
use veltrix_client::codec::{KeySource, Random, random_u64};
use veltrix_client::{Client, Event as SdkEvent, Mode, Receipt};

use super::world::{Event, World, player_id};

/// Connections, each for some of the hunts.
pub const CLIENTS: u64 = 4;

/// Hunters over all connections.
pub const HUNTERS: u64 = 64;

/// Time between two events of a hunter: some 4,000 events a second in all, few
/// beside the crowd's, so that they measure the load and are not it.
const EVENT_EVERY: Duration = Duration::from_millis(16);

/// An event without an outcome after this long is given up; then nobody knows
/// whether it was applied.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longest latency told from another.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Stops the hunters when told or dropped, so that no error leaves them running.
#[derive(Debug, Default)]
pub struct Stop(pub Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What became of the hunters' events.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Events sent.
    pub events_sent: u64,
    /// Each event with an outcome.
    pub receipts: Vec<(Event, Receipt)>,
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
pub fn run(
    address: SocketAddr,
    core: Option<usize>,
    world: &Arc<World>,
    stop: &Arc<AtomicBool>,
) -> Result<Catch> {
    if let Some(core) = core {
        // Without it only the figures suffer.
        let _ = cpu::pin_to(core);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(hunt_all(address, world, stop))
}

async fn hunt_all(
    address: SocketAddr,
    world: &Arc<World>,
    stop: &Arc<AtomicBool>,
) -> Result<Catch> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::builder().mode(Mode::Durable).deadline(DEADLINE).connect(address);
        let client = client.await;
        clients.push(client.with_context(|| format!("demo: the SDK cannot connect to {address}"))?);
    }
    let mut hunters = JoinSet::new();
    for _ in 0..HUNTERS {
        hunters.spawn(hunter(clients.clone(), Arc::clone(world), Arc::clone(stop)));
    }
    let mut total = Catch {
        events_sent: 0,
        receipts: Vec::new(),
        datagrams_sent: 0,
        retries: 0,
        ack_ns: Histogram::new_with_max(LATENCY_NS_MAX, 3)?,
    };
    while let Some(hunter) = hunters.join_next().await {
        for (event, receipt, latency_ns) in hunter.context("demo: a hunter panicked")? {
            total.ack_ns.saturating_record(latency_ns);
            total.receipts.push((event, receipt));
        }
    }
    for client in clients {
        let stats = client.close().await;
        total.events_sent += stats.events_submitted;
        total.datagrams_sent += stats.datagrams_sent;
        total.retries += stats.retries;
    }
    Ok(total)
}

/// One hunter: its events with an outcome, and how long each took.
async fn hunter(
    clients: Vec<Client>,
    world: Arc<World>,
    stop: Arc<AtomicBool>,
) -> Vec<(Event, Receipt, u64)> {
    let mut random = Random::new(random_u64());
    let mut keys = KeySource::new();
    let hunt = world.hunt(&mut random);
    let domain = clients[(hunt.domain % CLIENTS) as usize].domain(hunt.domain);
    let mut receipts = Vec::new();
    let first = Instant::now() + EVENT_EVERY.mul_f64(random.unit());
    let mut ticks = interval_at(first.into(), EVENT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Relaxed) {
        ticks.tick().await;
        // A key of its own, as by a caller that writes down what it sends first.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = world.event(hunt, keys.next_key(now.as_nanos() as u64), &mut random);
        let (subject, argument) = world.wire(&event);
        let sdk = SdkEvent::new(player_id(event.player), event.kind.code(), subject)
            .argument(argument)
            .key(uuid::Uuid::from_bytes(event.key));
        let sent = Instant::now();
        // An event without an outcome is what sent and acked differ by.
        if let Ok(receipt) = domain.send(sdk).await {
            receipts.push((event, receipt, sent.elapsed().as_nanos() as u64));
        }
    }
    receipts
}
