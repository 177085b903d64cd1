//! How long a claim takes whose wallet and ticket are in two regions of a split hunt,
//! beside one within a region: SDK sessions against the real server on loopback.
//!
//! The time runs from the session's call to its answer, which comes when the wallet has
//! the reward: it holds the way there and the claim's own commit as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use veltrix_abi::kinds::CELL_BITS;
use veltrix_client::{
    Client, Event, Hotspot, HotspotKind, HuntSetup, Outcome, Quota, Split, SplitHunt,
};

use crate::bench::ingest::report::Report;
use crate::loopback::Node;

const ROOT: u64 = 77;
const SPLIT: Split = Split { bits: 3, skip: 0 };
const REGIONS: u64 = SPLIT.regions() as u64;

/// Players at a time, each with one claim under way.
const PLAYERS: u64 = 32;

/// Tickets of a player, over all regions by turns.
const TICKETS: u64 = 64;

const TICKET: Hotspot =
    Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 100, lifetime_s: 0 };

const RUN_MAX: Duration = Duration::from_secs(60);

/// Claims within the region of the player's home, and in others, nanoseconds.
struct Took {
    home: Histogram<u64>,
    other: Histogram<u64>,
}

/// Measures both.
///
/// # Errors
///
/// When the server does not start, or a claim is not applied or paid.
pub fn measure(report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let took = runtime
        .block_on(async { tokio::time::timeout(RUN_MAX, play()).await.context("claims hang")? })?;
    report.set_latency("home_claim_ns", &took.home);
    report.set_latency("region_claim_ns", &took.other);
    Ok(())
}

async fn play() -> Result<Took> {
    let node = Node::start()?;
    let client = Client::builder().connect(node.address()).await?;
    let hunt = client.split(ROOT, SPLIT);
    let setup = HuntSetup { game: 1, length_s: 0, settings: 0 };
    for opened in hunt.open(1, &setup, &Quota::default()).await? {
        ensure!(opened?.outcome == Outcome::Applied, "a region is not opened");
    }
    let histogram = Histogram::new(3)?;
    let took = Arc::new(Mutex::new(Took { home: histogram.clone(), other: histogram }));
    let mut players = JoinSet::new();
    for player in 1..=PLAYERS {
        let client = Client::builder().connect(node.address()).await?;
        players.spawn(claim(client.split(ROOT, SPLIT), player, Arc::clone(&took)));
    }
    while let Some(player) = players.join_next().await {
        player.context("a player panicked")??;
    }
    Arc::into_inner(took).map(Mutex::into_inner).context("a player is left")
}

/// Sets a player's tickets, claims them one after the other and looks at the wallet.
async fn claim(hunt: SplitHunt, player: u64, took: Arc<Mutex<Took>>) -> Result<()> {
    let cell = |ticket: u64| {
        ((player + ticket) % REGIONS) << (CELL_BITS - u32::from(SPLIT.bits)) | player << 32 | ticket
    };
    for ticket in 0..TICKETS {
        let spawned = hunt.spawn(1, cell(ticket), &TICKET).await?;
        ensure!(spawned.outcome == Outcome::Applied, "no ticket: {}", spawned.outcome.label());
    }
    let session = hunt.session(player);
    for ticket in 0..TICKETS {
        let called = Instant::now();
        let claimed = session.send(Event::claim(player, cell(ticket))).await?;
        let ns = called.elapsed().as_nanos() as u64;
        ensure!(claimed.outcome == Outcome::Applied, "no claim: {}", claimed.outcome.label());
        let is_home = SPLIT.of_cell(cell(ticket)) == SPLIT.home_of(player);
        let mut took = took.lock().await;
        if is_home { &mut took.home } else { &mut took.other }.record(ns)?;
    }
    let row = hunt.home(player).player(player).await?.value.context("the player is unknown")?;
    ensure!(row.wallet == TICKETS * u64::from(TICKET.reward), "a wallet of {}", row.wallet);
    Ok(())
}
