//! The hottest partition of a real `veltrix run --data DIR` goes from lane to lane, again
//! and again, while clients of the SDK send half of what the server takes. Every event has
//! its one outcome, none is lost or applied twice, whatever moved meanwhile: wallets,
//! tickets and the server's own counts tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use veltrix::admin::status::Status;
use veltrix_abi::partition::partition_of;
use veltrix_client::{Client, Event, Hotspot, HotspotKind, Outcome, Pending, Receipt, SendError};
use veltrix_tests::loopback::Node;
use veltrix_tests::server::require_binary;

const LANES: u16 = 2;
const CLIENTS: u64 = 8;

/// Where nine events in ten go.
const HOT: u64 = 1;

/// Where the others go.
const COLD: [u64; 3] = [2, 3, 4];

/// Of each player's events, one in so many claims a ticket, which another claims too.
const CLAIM_EVERY: u64 = 16;
const TICKETS: u64 = 800;
const REWARD: u32 = 3;

/// Events by which is measured what the server takes, and how many may be under way.
const FULL_EVENTS: u64 = 16_000;
const FULL_WINDOW: usize = 256;

/// Most events at half load, all and a second: room for their keys is there. A machine
/// that takes more than twice as many is not at half load.
const HALF_EVENTS_MAX: u64 = 200_000;
const HALF_PER_S_MAX: f64 = 50_000.0;
const TICK: Duration = Duration::from_millis(2);

const MOVES: usize = 6;

/// Longest deadline of an event, and wait for anything.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Credit,
    Claim(u64),
}

/// An event of the run: its number decides who does what where.
#[derive(Clone, Copy, Debug)]
struct Played {
    client: u64,
    hunt: u64,
    act: Act,
}

impl Played {
    fn of(number: u64) -> Self {
        let (client, turn) = (number % CLIENTS, number / CLIENTS);
        // Both clients of a pair claim the same.
        let ticket = turn / CLAIM_EVERY * (CLIENTS / 2) + client / 2;
        if turn % CLAIM_EVERY == 0 && ticket < TICKETS {
            return Self { client, hunt: HOT, act: Act::Claim(ticket) };
        }
        let is_cold = turn % 10 == 9;
        let hunt = if is_cold { COLD[(turn / 10) as usize % COLD.len()] } else { HOT };
        Self { client, hunt, act: Act::Credit }
    }

    const fn player(&self) -> u64 {
        self.client + 1
    }

    fn event(&self) -> Event {
        match self.act {
            Act::Credit => Event::credit(self.player(), 1),
            Act::Claim(ticket) => Event::claim(self.player(), ticket),
        }
    }
}

/// What one was told, and how long after it was meant to be sent.
struct Told {
    played: Played,
    receipt: Result<Receipt, SendError>,
    intended: Instant,
    acked: Instant,
}

async fn told(played: Played, pending: Pending, intended: Instant) -> Told {
    let receipt = pending.await;
    Told { played, receipt, intended, acked: Instant::now() }
}

/// The clients and what they were told.
struct Crowd {
    clients: Vec<Client>,
    next: u64,
    under_way: JoinSet<Told>,
    told: Vec<Told>,
}

impl Crowd {
    async fn connect(node: &Node) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Client::builder().deadline(WAIT_MAX).connect(node.address()).await?);
        }
        Ok(Self { clients, next: 0, under_way: JoinSet::new(), told: Vec::new() })
    }

    async fn spawn_tickets(&self) -> Result<()> {
        let ticket = Hotspot {
            kind: HotspotKind::Ticket,
            item: 0,
            remaining: 1,
            reward: REWARD,
            lifetime_s: 0,
        };
        let spawns: Result<Vec<Event>, _> =
            (0..TICKETS).map(|cell| Event::spawn(0, cell, &ticket)).collect();
        let hunt = self.clients[0].domain(HOT);
        for receipt in hunt.send_all(spawns.context("a ticket")?).await {
            ensure!(receipt?.outcome == Outcome::Applied, "a ticket was not spawned");
        }
        Ok(())
    }

    /// Hands the next event over, meant to be sent at `intended`.
    async fn send(&mut self, intended: Instant) -> Result<()> {
        let played = Played::of(self.next);
        self.next += 1;
        let hunt = self.clients[played.client as usize].domain(played.hunt);
        let pending = hunt.submit(played.event()).await?;
        self.under_way.spawn(told(played, pending, intended));
        self.take_answers()
    }

    fn take_answers(&mut self) -> Result<()> {
        while let Some(told) = self.under_way.try_join_next() {
            self.told.push(told?);
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        while let Some(told) = self.under_way.join_next().await {
            self.told.push(told?);
        }
        Ok(())
    }

    /// As fast as answers come; events a second.
    async fn full_load(&mut self) -> Result<f64> {
        let window = Arc::new(Semaphore::new(FULL_WINDOW));
        let started = Instant::now();
        for _ in 0..FULL_EVENTS {
            let place = Arc::clone(&window).acquire_owned().await?;
            let played = Played::of(self.next);
            self.next += 1;
            let hunt = self.clients[played.client as usize].domain(played.hunt);
            let pending = hunt.submit(played.event()).await?;
            let sent = Instant::now();
            self.under_way.spawn(async move {
                let told = told(played, pending, sent).await;
                drop(place);
                told
            });
            self.take_answers()?;
        }
        self.settle().await?;
        Ok(FULL_EVENTS as f64 / started.elapsed().as_secs_f64())
    }

    /// So many events a second, whatever the answers do, until `done`.
    async fn load(&mut self, per_s: f64, done: &AtomicBool) -> Result<()> {
        let (started, first) = (Instant::now(), self.next);
        let mut ticks = tokio::time::interval(TICK);
        while !done.load(Relaxed) {
            ticks.tick().await;
            let due = (started.elapsed().as_secs_f64() * per_s) as u64;
            ensure!(due < HALF_EVENTS_MAX, "the moves do not end");
            while self.next - first < due {
                let at = (self.next - first) as f64 / per_s;
                self.send(started + Duration::from_secs_f64(at)).await?;
            }
        }
        self.settle().await
    }
}

/// When a move was asked for, and when it was seen to be over.
type Window = (Instant, Instant);

fn owner_of(status: &Status, partition: u16) -> Option<u16> {
    let owners = &status.log.as_ref()?.owners;
    owners.iter().find(|owner| owner.partitions.contains(&partition)).map(|owner| owner.lane)
}

/// Polls the server until `found`.
fn until<R>(node: &Node, found: impl Fn(&Status) -> Option<R>) -> Result<R> {
    let started = Instant::now();
    loop {
        let status = node.status()?;
        if let Some(found) = found(&status) {
            return Ok(found);
        }
        ensure!(started.elapsed() < WAIT_MAX, "not within {WAIT_MAX:?}: {status:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Moves the hottest partition from lane to lane once it is known which that is.
fn move_about(node: &Node) -> Result<Vec<Window>> {
    let hot = partition_of(HOT, until(node, |status| Some(status.partitions))?);
    until(node, |status| {
        let hottest = status.log.as_ref()?.hot_partitions.first()?;
        (hottest.partition == hot).then_some(())
    })?;
    let mut windows = Vec::new();
    for _ in 0..MOVES {
        let owner = until(node, |status| owner_of(status, hot))?;
        let to = (owner + 1) % LANES;
        let mut asked = Instant::now();
        while !node.move_partition(hot, to)? {
            ensure!(asked.elapsed() < WAIT_MAX, "a snapshot does not end");
            std::thread::sleep(Duration::from_millis(5));
            asked = Instant::now();
        }
        until(node, |status| (owner_of(status, hot) == Some(to)).then_some(()))?;
        windows.push((asked, Instant::now()));
        std::thread::sleep(Duration::from_millis(150));
    }
    Ok(windows)
}

/// What is to be found in wallets and in the server's counts.
#[derive(Default)]
struct Books {
    wallets: BTreeMap<(u64, u64), u64>,
    won: BTreeMap<u64, u64>,
    claimed: BTreeMap<u64, u64>,
    applied: u64,
    refused: u64,
    epoch: u64,
}

impl Books {
    fn of(all: &[Told]) -> Result<Self> {
        let mut books = Self { applied: TICKETS, ..Self::default() };
        for told in all {
            let Told { played, receipt, .. } = told;
            let receipt = receipt.as_ref().map_err(|e| anyhow::anyhow!("{played:?}: {e}"))?;
            books.epoch = books.epoch.max(receipt.epoch);
            let wallet = books.wallets.entry((played.hunt, played.player())).or_default();
            match (played.act, receipt.outcome) {
                (Act::Credit, Outcome::Applied) => *wallet += 1,
                (Act::Claim(ticket), Outcome::Applied) => {
                    *wallet += u64::from(REWARD);
                    *books.won.entry(ticket).or_default() += 1;
                    *books.claimed.entry(ticket).or_default() += 1;
                }
                (Act::Claim(ticket), Outcome::AlreadyClaimed) => {
                    *books.claimed.entry(ticket).or_default() += 1;
                    books.refused += 1;
                    continue;
                }
                (_, outcome) => anyhow::bail!("{played:?} is {}: {receipt:?}", outcome.label()),
            }
            books.applied += 1;
        }
        Ok(books)
    }
}

fn longest(all: &[Told], is_counted: impl Fn(&Told) -> bool) -> Duration {
    let waits = all.iter().filter(|told| is_counted(told));
    waits.map(|told| told.acked.duration_since(told.intended)).max().unwrap_or_default()
}

fn report(per_s: f64, half: &[Told], windows: &[Window]) {
    let is_around =
        |told: &Told| windows.iter().any(|(from, to)| told.acked >= *from && told.intended <= *to);
    println!(
        "{per_s:.0} events/s at full load; {} at half; {} of them around {} moves: longest ack {:.1?}, of all others {:.1?}; a move was seen after {:.1?} at the latest",
        half.len(),
        half.iter().filter(|told| is_around(told)).count(),
        windows.len(),
        longest(half, is_around),
        longest(half, |told| !is_around(told)),
        windows.iter().map(|(from, to)| to.duration_since(*from)).max().unwrap_or_default(),
    );
}

async fn run() -> Result<()> {
    let node = Node::start_lanes(LANES)?;
    let mut crowd = Crowd::connect(&node).await?;
    crowd.spawn_tickets().await?;
    let per_s = crowd.full_load().await?;
    let full = crowd.told.len();

    let done = Arc::new(AtomicBool::new(false));
    let moving = tokio::task::spawn_blocking({
        let done = Arc::clone(&done);
        move || {
            let moved = move_about(&node);
            done.store(true, Relaxed);
            moved.map(|windows| (node, windows))
        }
    });
    crowd.load((per_s / 2.0).min(HALF_PER_S_MAX), &done).await?;
    let (node, windows) = moving.await??;
    ensure!(windows.len() == MOVES, "{} moves", windows.len());
    report(per_s, &crowd.told[full..], &windows);
    // It went from a lane that was at work to another that was at work.
    for (_, end) in &windows {
        let after = crowd.told[full..].iter().any(|told| told.intended > *end);
        ensure!(after, "nothing was sent behind a move");
    }

    ensure!(crowd.told.len() as u64 == crowd.next, "an event has no answer");
    let books = Books::of(&crowd.told)?;
    for (ticket, claims) in &books.claimed {
        let won = books.won.get(ticket).copied().unwrap_or_default();
        ensure!(won == 1 && *claims <= 2, "ticket {ticket}: {won} of {claims} won it");
    }
    for ((hunt, player), wallet) in &books.wallets {
        let row = crowd.clients[0].domain(*hunt).at_least(books.epoch).player(*player).await?;
        let found = row.value.context("a player of the run")?.wallet;
        ensure!(found == *wallet, "hunt {hunt}, player {player}: {found}, wanted {wallet}");
    }
    // Lanes say once a second what they have judged: until both have said it, what moved
    // may be counted by both or by none.
    let wanted = [books.applied, books.refused];
    let status = until(&node, |status| {
        let judged = &status.log.as_ref()?.judged;
        let of = |outcome: Outcome| judged.get(outcome.label()).copied().unwrap_or_default();
        let counts = [Outcome::Applied, Outcome::AlreadyClaimed].map(of);
        (counts == wanted).then(|| status.clone())
    })
    .with_context(|| format!("what was judged, wanted {wanted:?}"))?;
    ensure!(status.accounting.closes, "{:?}", status.accounting);
    for client in crowd.clients {
        let stats = client.close().await;
        ensure!(stats.events_acked == stats.events_submitted, "{stats:?}");
    }
    Ok(())
}

#[test]
fn a_hot_partition_moves_at_half_load_and_no_ack_is_lost() {
    if !require_binary("a_hot_partition_moves_at_half_load_and_no_ack_is_lost") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run()).unwrap_or_else(|error| panic!("{error:#}"));
}
