//! A split hunt on a real `veltrix run --data DIR` that is killed amid it: keys picked up
//! in one region open chests in others, tickets are claimed from everywhere, money goes
//! from home to home, and at the end everything is there once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use veltrix_client::{
    Client, Event, GameSession, Hotspot, HotspotKind, HuntSetup, Outcome, QueryError, Quota,
    Receipt, Region, SendError, Split, SplitHunt,
};
use veltrix_tests::loopback::Node;
use veltrix_tests::server::require_binary;

const ROOT: u64 = 77;
const SPLIT: Split = Split { bits: 3, skip: 0 };
const PLAYERS: u64 = 32;
const ROUNDS: u64 = 60;
const RUN_MAX: Duration = Duration::from_secs(240);

const KEY: u8 = 3;
const KEYS: Hotspot =
    Hotspot { kind: HotspotKind::Item, item: KEY, remaining: 2_000, reward: 1, lifetime_s: 0 };
/// Fewer than there are keys: the last keys are refunded.
const CHESTS: Hotspot =
    Hotspot { kind: HotspotKind::Chest, item: KEY, remaining: 150, reward: 100, lifetime_s: 0 };
const TICKET: Hotspot =
    Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 10_000, lifetime_s: 0 };

const fn cell_of(region: u64, number: u64) -> u64 {
    region << 57 | number
}

#[derive(Default)]
struct Told {
    collected: AtomicU64,
    opened: AtomicU64,
    refunded: AtomicU64,
    claimed: AtomicU64,
    paid: AtomicU64,
    done: AtomicU64,
    /// From a take's first sending to its answer, which shows it in wallet and score:
    /// within the home, and from another region.
    took: [Mutex<Vec<Duration>>; 2],
    news: Notify,
}

impl Told {
    fn quantiles(&self) -> String {
        let [home, other] = self.took.each_ref().map(|took| {
            let mut took = took.lock().unwrap();
            took.sort_unstable();
            let at = |share: usize| took[(took.len() - 1) * share / 1_000];
            format!(
                "{:?} / {:?} / {:?} (p50, p99, max of {})",
                at(500),
                at(990),
                at(1_000),
                took.len()
            )
        });
        format!("within the home {home}, from another region {other}")
    }
}

/// Sends an event until it has an outcome; it keeps its key.
async fn surely(session: &GameSession, event: Event) -> Result<Receipt> {
    loop {
        match session.send(event.clone()).await {
            Err(SendError::Deadline { .. } | SendError::NotSent) => {}
            other => return Ok(other?),
        }
    }
}

/// Event of a player that keeps its key through every try.
fn keyed(event: Event, player: u64, number: u64, log_time_ms: u64) -> Event {
    let mut key = [0; 16];
    key[..6].copy_from_slice(&log_time_ms.to_be_bytes()[2..]);
    key[6] = 0x70;
    key[8..12].copy_from_slice(&(player as u32).to_be_bytes());
    key[12..].copy_from_slice(&(number as u32).to_be_bytes());
    key[8] = 0x80;
    event.key(veltrix_client::Uuid::from_bytes(key))
}

async fn play(hunt: SplitHunt, player: u64, told: Arc<Told>) -> Result<()> {
    let session = hunt.session(player);
    let mut number = 0;
    let mut act = async |event: Event, cell: Option<u64>| {
        number += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let event = keyed(event, player, number, now.as_millis() as u64);
        let sent = Instant::now();
        let outcome = surely(&session, event).await?.outcome;
        if let (Outcome::Applied, Some(cell)) = (outcome, cell) {
            let is_elsewhere = SPLIT.of_cell(cell) != SPLIT.home_of(player);
            told.took[usize::from(is_elsewhere)].lock().unwrap().push(sent.elapsed());
        }
        told.done.fetch_add(1, Relaxed);
        told.news.notify_waiters();
        anyhow::Ok(outcome)
    };
    for round in 0..ROUNDS {
        let (from, to) = ((player + round) % 8, (player + 3 * round + 1) % 8);
        let (item, chest) = (cell_of(from, 1), cell_of(to, 2));
        match act(Event::collect(player, item), Some(item)).await? {
            Outcome::Applied => told.collected.fetch_add(1, Relaxed),
            other => bail!("player {player} collects: {}", other.label()),
        };
        match act(Event::use_key_of(player, chest, KEY), Some(chest)).await? {
            Outcome::Applied => told.opened.fetch_add(1, Relaxed),
            Outcome::AlreadyClaimed => told.refunded.fetch_add(1, Relaxed),
            other => bail!("player {player} opens: {}", other.label()),
        };
        if round % 10 == 0 {
            let ticket = cell_of(round / 10 % 8, 3);
            match act(Event::claim(player, ticket), Some(ticket)).await? {
                Outcome::Applied => told.claimed.fetch_add(1, Relaxed),
                Outcome::AlreadyClaimed => 0,
                other => bail!("player {player} claims: {}", other.label()),
            };
            match act(Event::transfer(player, player % PLAYERS + 1, 1), None).await? {
                Outcome::Applied => told.paid.fetch_add(1, Relaxed),
                Outcome::InsufficientFunds => 0,
                other => bail!("player {player} pays: {}", other.label()),
            };
        }
    }
    Ok(())
}

async fn patiently<T, F: Future<Output = Result<T, QueryError>>>(ask: impl Fn() -> F) -> Result<T> {
    loop {
        match ask().await {
            Err(QueryError::Deadline { .. }) => {}
            other => return Ok(other?),
        }
    }
}

async fn furnish(hunt: &SplitHunt) -> Result<()> {
    let setup = HuntSetup { game: 1, length_s: 0, settings: 0 };
    for opened in hunt.open(1, &setup, &Quota::default()).await? {
        ensure!(opened?.outcome == Outcome::Applied, "a region is not opened");
    }
    for region in 0..8 {
        for (number, hotspot) in [(1, &KEYS), (2, &CHESTS), (3, &TICKET)] {
            let spawned = hunt.spawn(1, cell_of(region, number), hotspot).await?;
            ensure!(spawned.outcome == Outcome::Applied, "no hotspot");
        }
    }
    Ok(())
}

/// What all have together must be what was given out, whoever was told what.
async fn audit(hunt: &SplitHunt, told: &Told) -> Result<()> {
    let (mut wallets, mut scores, mut keys) = (0, 0, 0);
    for player in 1..=PLAYERS {
        let row = patiently(|| async { hunt.home(player).player(player).await }).await?;
        let row = row.value.with_context(|| format!("player {player} is unknown"))?;
        wallets += row.wallet;
        scores += row.score;
        keys += u64::from(row.inventory[usize::from(KEY)]);
    }
    let (mut left, mut shut, mut tickets) = (0, 0, 0);
    for region in 0..8 {
        for number in 1..=3 {
            let cell = cell_of(region, number);
            let row = patiently(|| async { hunt.region_of(cell).cell(cell).await }).await?;
            let row = row.value.context("a cell is gone")?;
            match number {
                1 => left += u64::from(row.remaining),
                2 => shut += u64::from(row.remaining),
                _ => {
                    tickets += u64::from(row.claimed);
                    ensure!(row.claimed == (row.claimed_by > 0), "claimed by nobody");
                }
            }
        }
    }
    let (collected, opened) = (8 * 2_000 - left, 8 * 150 - shut);
    let of = |counter: &AtomicU64| counter.load(Relaxed);
    ensure!(collected == of(&told.collected), "{collected} collected, not as told");
    ensure!(opened == of(&told.opened), "{opened} opened, not as told");
    ensure!(tickets == of(&told.claimed), "{tickets} claimed, not as told");
    ensure!(keys == collected - opened, "{keys} keys are left of {collected} - {opened}");
    ensure!(wallets == opened * 100 + tickets * 10_000, "{wallets} in all wallets");
    ensure!(scores == collected + opened * 100 + tickets * 10_000, "{scores} points");
    ensure!(opened == 8 * 150, "{opened} opened: nobody met an empty chest");
    ensure!(of(&told.refunded) > 0 && tickets == 6, "{tickets} tickets");
    ensure!(of(&told.paid) > 0, "nobody paid anybody");
    ranks(hunt).await
}

/// The merged leaderboard is that of all rows.
async fn ranks(hunt: &SplitHunt) -> Result<()> {
    let top = patiently(|| hunt.top(36)).await?.value;
    ensure!(top.len() == PLAYERS as usize, "{} players are ranked", top.len());
    ensure!(top.is_sorted_by(|a, b| a.score >= b.score), "{top:?}");
    for row in &top {
        let rank = patiently(|| hunt.rank(row.player)).await?.value;
        ensure!(rank == Some(row.rank.into()), "{row:?} has rank {rank:?}");
    }
    Ok(())
}

#[test]
fn a_split_hunt_has_everything_once_across_a_kill() {
    if !require_binary("a_split_hunt_has_everything_once_across_a_kill") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let played = async {
        let node = Node::start()?;
        let address = node.address();
        let client = async || {
            let builder = Client::builder().deadline(Duration::from_secs(2));
            builder.connect(address).await
        };
        let hunt = client().await?.split(ROOT, SPLIT);
        furnish(&hunt).await?;
        for (number, region) in (0..).zip(hunt.regions()) {
            let summary = region.summary().await?.value.context("no such region")?;
            let wanted = Region { root: ROOT, split: SPLIT, number };
            ensure!(summary.region == Some(wanted), "{:?}, wanted {wanted:?}", summary.region);
        }
        let told = Arc::new(Told::default());
        let mut players = JoinSet::new();
        for player in 1..=PLAYERS {
            let hunt = client().await?.split(ROOT, SPLIT);
            players.spawn(play(hunt, player, told.clone()));
        }
        let kill = async {
            loop {
                let news = told.news.notified();
                if told.done.load(Relaxed) >= PLAYERS * ROUNDS {
                    break;
                }
                news.await;
            }
            let killed = node.kill()?;
            tokio::task::spawn_blocking(|| killed.restart()).await?
        };
        let begun = Instant::now();
        let play = async {
            while let Some(player) = players.join_next().await {
                player.context("a player panicked")??;
            }
            anyhow::Ok(())
        };
        let (_, _node) = tokio::try_join!(play, kill)?;
        let took = begun.elapsed();
        audit(&hunt, &told).await?;
        anyhow::Ok((told.done.load(Relaxed), took, told.quantiles()))
    };
    let (done, took, quantiles) = runtime
        .block_on(async { tokio::time::timeout(RUN_MAX, played).await.context("the run hangs")? })
        .unwrap_or_else(|error| panic!("{error:#}"));
    println!("{done} actions of {PLAYERS} players over 8 regions in {took:?}, a kill amid them");
    println!("takes: {quantiles}");
}
