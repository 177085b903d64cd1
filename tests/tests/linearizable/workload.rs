//! Clients that claim tickets through the SDK, and what they were told, ticket by
//! ticket.
//!
//! ```text
//!  each client, ticket by ticket:   look ── wait for the other claimers ── claim ── look
//!  the kill, at one ticket:         half of them claim ── first answer ── kill -9
//!                                   ── the other half claim ── restart
//! ```
//!
//! All run on one thread, so what one has seen return, returned before what another
//! calls then. A ticket's claimers wait for each other, so that they claim at once;
//! everybody takes tickets in ascending order, so nobody waits for ever.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;
use veltrix_abi::query::Wanted;
use veltrix_client::codec::{KeySource, Random};
use veltrix_client::{
    CellRow, Client, Domain, Event, Hotspot, HotspotKind, Outcome, PlayerRow, Receipt, Rows,
    SendError, Stats, Uuid,
};
use veltrix_tests::loopback::Node;

use super::history::{History, Op, REWARD, Seen, Told};

/// The cell of each hunt that its ticket is on.
const CELL: u64 = 1;

/// Plays no part; puts the tickets down.
const MASTER: u64 = 1 << 40;

/// Deadline of those that wait for their answer, whatever happens meanwhile.
const PATIENT: Duration = Duration::from_secs(60);

/// Deadline of those that do not: shorter than a restart is left to take.
const IMPATIENT: Duration = Duration::from_millis(150);

/// Longest run: past it something hangs.
const RUN_MAX: Duration = Duration::from_secs(240);

/// How a claim is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// By the event there is for it.
    OneStep,
    /// As a client would without it: look, and if the ticket is there, take the reward
    /// and end the ticket. The first two claimers of a ticket look before any of them
    /// goes on, so they both find it.
    TwoSteps,
}

/// What a client does about a claim without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    Waits,
    /// Asks again with the same key.
    AsksAgain,
    /// Leaves it pending.
    GivesUp,
}

impl Temper {
    /// By client: most wait; of those with even numbers as of those with odd ones, one
    /// in ten asks again and one in ten gives up.
    const fn of(client: u64) -> Self {
        match client / 2 % 10 {
            0 => Self::GivesUp,
            1 => Self::AsksAgain,
            _ => Self::Waits,
        }
    }

    const fn deadline(self) -> Duration {
        match self {
            Self::Waits => PATIENT,
            Self::AsksAgain | Self::GivesUp => IMPATIENT,
        }
    }
}

/// Who claims what.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: u64,
    /// Claimers of each ticket, by its number.
    pub tickets: Vec<Vec<u64>>,
    pub claiming: Claiming,
    /// The ticket at which the server is killed and started again.
    pub killed_at: Option<usize>,
}

impl Plan {
    /// `tickets` tickets with `claimers` each, chosen at random.
    pub fn random(clients: u64, tickets: usize, claimers: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut choose = || {
            let mut chosen = Vec::new();
            while chosen.len() < claimers {
                let client = random.below(clients);
                if !chosen.contains(&client) {
                    chosen.push(client);
                }
            }
            chosen
        };
        let tickets = (0..tickets).map(|_| choose()).collect();
        Self { clients, tickets, claiming: Claiming::OneStep, killed_at: None }
    }
}

/// What came of it.
pub struct Outcomes {
    /// By ticket.
    pub histories: Vec<History>,
    /// Claims that passed a deadline; those asked again count each time.
    pub unanswered: usize,
    /// Sums over the clients.
    pub retries: u64,
    pub duplicates: u64,
}

/// One claim, and what the server said of it first.
#[derive(Clone, Copy)]
struct Kept {
    ticket: usize,
    key: Uuid,
    receipt: Receipt,
}

struct Shared {
    plan: Plan,
    histories: Vec<Mutex<History>>,
    gates: Vec<Barrier>,
    /// Passed by the half that claims after the kill.
    killed: Barrier,
    /// Ticket and client of every claim that passed a deadline, each time it did.
    unanswered: Mutex<Vec<(usize, u64)>>,
    /// Told of every claim that was answered or passed its deadline.
    news: Notify,
}

impl Shared {
    fn new(plan: Plan) -> Self {
        let gates = plan.tickets.iter().enumerate();
        // The killer is at the gate of its ticket too.
        let gates = gates
            .map(|(ticket, c)| c.len() + usize::from(plan.killed_at == Some(ticket)))
            .map(Barrier::new)
            .collect();
        let late = plan.killed_at.map_or(0, |ticket| {
            plan.tickets[ticket].iter().filter(|client| is_late(**client)).count()
        });
        Self {
            histories: plan.tickets.iter().map(|_| Mutex::default()).collect(),
            gates,
            killed: Barrier::new(late + 1),
            unanswered: Mutex::default(),
            news: Notify::new(),
            plan,
        }
    }

    fn history(&self, ticket: usize) -> MutexGuard<'_, History> {
        self.histories[ticket].lock().expect("not poisoned")
    }

    fn unanswered(&self) -> MutexGuard<'_, Vec<(usize, u64)>> {
        self.unanswered.lock().expect("not poisoned")
    }
}

/// Whether a client claims the ticket of the kill after it.
const fn is_late(client: u64) -> bool {
    client % 2 == 1
}

/// The player of a client; 0 is nobody.
pub const fn player_of(client: u64) -> u64 {
    client + 1
}

/// The hunt of a ticket.
const fn hunt_of(ticket: usize) -> u64 {
    1_000 + ticket as u64
}

/// Puts the tickets down, has them claimed, and gives what was told, with the server
/// as it then runs.
pub async fn run(plan: &Plan, node: Node) -> Result<(Outcomes, Node)> {
    let address = node.address();
    found(plan, address).await?;
    let shared = Arc::new(Shared::new(plan.clone()));
    let mut clients = JoinSet::new();
    for client in 0..plan.clients {
        let temper = if plan.killed_at.is_some() { Temper::of(client) } else { Temper::Waits };
        let connected = Client::builder().deadline(temper.deadline()).connect(address).await?;
        let player = Player::new(client, temper, connected, shared.clone());
        clients.spawn(player.play());
    }
    let play = async {
        let mut stats = Vec::new();
        while let Some(one) = clients.join_next().await {
            stats.push(one.context("a client panicked")??);
        }
        anyhow::Ok(stats)
    };
    let both = async { tokio::try_join!(play, kill(&shared, node)) };
    let (stats, node) = tokio::time::timeout(RUN_MAX, both).await.context("the run hangs")??;
    let sum = |of: fn(&Stats) -> u64| stats.iter().map(of).sum();
    let outcomes = Outcomes {
        histories: (0..plan.tickets.len()).map(|t| shared.history(t).clone()).collect(),
        unanswered: shared.unanswered().len(),
        retries: sum(|stats| stats.retries),
        duplicates: sum(|stats| stats.duplicates),
    };
    Ok((outcomes, node))
}

/// Puts each ticket into its hunt.
async fn found(plan: &Plan, address: SocketAddr) -> Result<()> {
    let client = Client::builder().deadline(PATIENT).connect(address).await?;
    let ticket =
        Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: REWARD, lifetime_s: 0 };
    let mut spawned = Vec::new();
    for number in 0..plan.tickets.len() {
        let event = Event::spawn(MASTER, CELL, &ticket)?;
        spawned.push(client.domain(hunt_of(number)).submit(event).await?);
    }
    for one in spawned {
        ensure!(one.await?.outcome == Outcome::Applied, "a ticket was not put down");
    }
    Ok(())
}

/// Kills the server amid the claims of its ticket and starts it again once every
/// impatient client that claims a dead server has missed its answer.
async fn kill(shared: &Shared, node: Node) -> Result<Node> {
    let Some(ticket) = shared.plan.killed_at else {
        return Ok(node);
    };
    shared.gates[ticket].wait().await;
    let first = || shared.history(ticket).any_claim_returned();
    until(shared, first).await;
    let killed = node.kill()?;
    shared.killed.wait().await;
    let impatient = shared.plan.tickets[ticket]
        .iter()
        .filter(|client| is_late(**client) && Temper::of(**client) != Temper::Waits);
    let missed = |client: &u64| shared.unanswered().contains(&(ticket, *client));
    until(shared, || impatient.clone().all(missed)).await;
    tokio::task::spawn_blocking(|| killed.restart()).await?
}

async fn until(shared: &Shared, done: impl Fn() -> bool) {
    loop {
        let news = shared.news.notified();
        if done() {
            return;
        }
        news.await;
    }
}

/// One client and its player.
struct Player {
    client: u64,
    temper: Temper,
    connection: Client,
    connected: Instant,
    keys: KeySource,
    shared: Arc<Shared>,
}

impl Player {
    fn new(client: u64, temper: Temper, connection: Client, shared: Arc<Shared>) -> Self {
        let keys = KeySource::new();
        Self { client, temper, connection, connected: Instant::now(), keys, shared }
    }

    const fn player(&self) -> u64 {
        player_of(self.client)
    }

    fn hunt(&self, ticket: usize) -> Domain {
        self.connection.domain(hunt_of(ticket))
    }

    async fn play(mut self) -> Result<Stats> {
        let shared = self.shared.clone();
        let mut kept = Vec::new();
        for (ticket, claimers) in shared.plan.tickets.iter().enumerate() {
            let Some(place) = claimers.iter().position(|client| *client == self.client) else {
                continue;
            };
            // At a ticket for all, some look and not everybody.
            let looks = claimers.len() < 20 || place % 8 == 0;
            match shared.plan.claiming {
                Claiming::OneStep => {
                    if looks {
                        self.look(ticket).await?;
                    }
                    shared.gates[ticket].wait().await;
                    if shared.plan.killed_at == Some(ticket) && is_late(self.client) {
                        shared.killed.wait().await;
                    }
                    kept.extend(self.claim(ticket).await?);
                    if looks {
                        self.look(ticket).await?;
                    }
                }
                Claiming::TwoSteps => self.claim_in_two_steps(ticket, place).await?,
            }
        }
        for one in kept {
            self.ask_again(one).await?;
        }
        Ok(self.connection.close().await)
    }

    /// Claims a ticket with a key of its own and records it; gives it where it was
    /// answered.
    async fn claim(&mut self, ticket: usize) -> Result<Option<Kept>> {
        let shared = self.shared.clone();
        let since = self.connected.elapsed().as_nanos() as u64;
        let log_time_ns = self.connection.server().welcome.log_time_ns + since;
        let key = Uuid::from_bytes(self.keys.next_key(log_time_ns));
        let hunt = self.hunt(ticket);
        let call = shared.history(ticket).call(Op::Claim(self.player()));
        loop {
            let answer = hunt.send(Event::claim(self.player(), CELL).key(key)).await;
            match answer {
                Ok(receipt) => {
                    let told = match receipt.outcome {
                        Outcome::Applied => Told::Applied,
                        Outcome::AlreadyClaimed => Told::AlreadyClaimed,
                        other => bail!("ticket {ticket}: a claim was {}", other.label()),
                    };
                    shared.history(ticket).told(call, told, receipt.epoch);
                    shared.news.notify_waiters();
                    return Ok(Some(Kept { ticket, key, receipt }));
                }
                Err(SendError::Deadline { .. }) if self.temper != Temper::Waits => {
                    shared.unanswered().push((ticket, self.client));
                    shared.news.notify_waiters();
                    if self.temper == Temper::GivesUp {
                        return Ok(None);
                    }
                }
                Err(error) => bail!("ticket {ticket}: {error}"),
            }
        }
    }

    /// Claims once more with the same key: the first outcome and epoch, again.
    async fn ask_again(&self, kept: Kept) -> Result<()> {
        let Kept { ticket, key, receipt } = kept;
        let hunt = self.hunt(ticket);
        loop {
            match hunt.send(Event::claim(self.player(), CELL).key(key)).await {
                Ok(again) => {
                    let expected = Receipt { duplicate: true, ..receipt };
                    ensure!(again == expected, "ticket {ticket}: {again:?}, first {receipt:?}");
                    return Ok(());
                }
                Err(SendError::Deadline { .. }) if self.temper != Temper::Waits => {}
                Err(error) => bail!("ticket {ticket}: {error}"),
            }
        }
    }

    /// Reads ticket, wallet and score at one epoch, and records what it saw.
    async fn look(&self, ticket: usize) -> Result<()> {
        let hunt = self.hunt(ticket);
        let call = self.shared.history(ticket).call(Op::Look(self.player()));
        let read = hunt.query(&[Wanted::Cell(CELL), Wanted::Player(self.player())]).await;
        let read = match read {
            Ok(read) => read,
            // Nobody knows what it would have seen.
            Err(_) if self.temper != Temper::Waits => return Ok(()),
            Err(error) => bail!("ticket {ticket}: {error}"),
        };
        let [Rows::Cell(Some(cell)), Rows::Player(player)] = &read.value[..] else {
            bail!("ticket {ticket}: {read:?}");
        };
        let seen = Seen {
            owner: owner(cell),
            remaining: cell.remaining,
            wallet: player.map_or(0, |row| row.wallet),
            score: player.map_or(0, |row| row.score),
        };
        self.shared.history(ticket).told(call, Told::Seen(seen), read.epoch);
        Ok(())
    }

    /// The planted fault; see [`Claiming::TwoSteps`].
    async fn claim_in_two_steps(&self, ticket: usize, place: usize) -> Result<()> {
        let hunt = self.hunt(ticket);
        let gate = &self.shared.gates[ticket];
        let is_first = place < 2;
        if !is_first {
            gate.wait().await;
        }
        let call = self.shared.history(ticket).call(Op::Claim(self.player()));
        let read = hunt.cell(CELL).await?;
        if is_first {
            gate.wait().await;
        }
        let there = read.value.is_some_and(|cell| cell.remaining > 0 && cell.expiry_s == 0);
        let (told, epoch) = if there {
            hunt.send(Event::credit(self.player(), u64::from(REWARD))).await?;
            let ended = hunt.send(Event::expire(self.player(), CELL)).await?;
            (Told::Applied, ended.epoch)
        } else {
            (Told::AlreadyClaimed, read.epoch)
        };
        self.shared.history(ticket).told(call, told, epoch);
        Ok(())
    }
}

fn owner(cell: &CellRow) -> Option<u64> {
    cell.claimed.then_some(cell.claimed_by)
}

/// A ticket and the players of its hunt, after everything.
pub struct Final {
    pub owner: Option<u64>,
    pub remaining: u16,
    /// By player: what the claimers own.
    pub players: HashMap<u64, PlayerRow>,
    /// Players whom the hunt has given something.
    pub players_total: u32,
}

/// Reads every ticket and every claimer's wallet, each ticket at one epoch.
pub async fn audit(plan: &Plan, address: SocketAddr) -> Result<Vec<Final>> {
    let client = Client::builder().deadline(PATIENT).connect(address).await?;
    let mut all = Vec::new();
    for (ticket, claimers) in plan.tickets.iter().enumerate() {
        let hunt = client.domain(hunt_of(ticket));
        let both = hunt.query(&[Wanted::Cell(CELL), Wanted::Hunt]).await?;
        let [Rows::Cell(Some(cell)), Rows::Hunt(Some(summary))] = &both.value[..] else {
            bail!("ticket {ticket}: {both:?}");
        };
        let mut players = HashMap::new();
        for claimer in claimers {
            let player = player_of(*claimer);
            if let Some(row) = hunt.player(player).await?.value {
                players.insert(player, row);
            }
        }
        let (owner, remaining) = (owner(cell), cell.remaining);
        all.push(Final { owner, remaining, players, players_total: summary.players });
    }
    client.close().await;
    Ok(all)
}
