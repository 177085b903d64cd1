//! The crowd: phones that send an event at a time and game servers that send
//! full datagrams, behind one thread and a handful of UDP sockets.
//!
//! They behave as mobile clients do: some datagrams are sent twice, some
//! answers get lost on their way to the player, and what is not answered is
//! sent again, with the same keys, later each time. `busy` answers are obeyed.
//!
//! ```text
//!   World -> datagram -> Link (a socket, a session) -> the node
//!                          | flights: sent, not answered
//!   Told, Expected <- first answer to each event
//!   Shared <- counts, for whoever watches;  Shared -> order: play, finish, hold, end
//! ```
//!
//! At most [`UNANSWERED_MAX`] datagrams are unanswered: then players wait, as
//! people do in front of a screen that does not move.

mod link;
mod tally;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use veltrix::base::cpu;
use veltrix_abi::Outcome;
use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::wire::{self, Mode};
use veltrix_client::codec::{DatagramBuilder, Envelope, KeySource, Random, random_u64};

use super::expect::Expected;
use super::world::{Event, Hunt, World, player_id};
use link::{Flight, Heard, Link};
use tally::Latency;
pub use tally::{Order, Shared, Totals};

/// Events of a full datagram.
pub const EVENTS_FULL: usize = 24;

/// Sockets: the first half phones, the others game servers.
const LINKS: usize = 8;

/// Datagrams without an answer over all sockets: then nothing new is sent.
pub const UNANSWERED_MAX: usize = 2_048;

/// Datagrams a turn sends at most, so that answers are taken in between.
const TURN_DATAGRAMS: usize = 64;

/// Pause of a turn with nothing to do: latencies are told this exactly.
const PAUSE: Duration = Duration::from_micros(100);

/// One datagram of so many is sent twice.
const TWICE_ONE_IN: u64 = 64;

/// One answer of so many does not reach its player.
const IGNORED_ONE_IN: u64 = 100;

/// Wait for the answer to all hellos.
const HELLO_WAIT_MAX: Duration = Duration::from_secs(10);

/// After an outage what is unanswered is sent again within this time.
const RESUME_SPREAD_NS: u64 = 150_000_000;

/// What the crowd is to do.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The node.
    pub address: SocketAddr,
    /// Core of its thread.
    pub core: Option<usize>,
    /// Datagrams of one event a second, over all phones.
    pub phones_per_s: f64,
    /// Full datagrams a second, over all game servers.
    pub servers_per_s: f64,
}

/// What a client was told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its key.
    pub key: [u8; 16],
    /// Its outcome; of a duplicate, the first one.
    pub outcome: Outcome,
    /// Epoch it was decided at; of a duplicate, the first one.
    pub epoch: u64,
}

/// What the crowd leaves behind.
pub struct Memories {
    /// Everything it was told, each event once.
    pub told: Vec<Told>,
    /// What the node must hold by that.
    pub expected: Expected,
    /// Counts.
    pub totals: Totals,
    /// Datagrams that never got an answer.
    pub unanswered: usize,
}

/// The crowd's thread. [`Crowd::run`] is all of it.
pub struct Crowd {
    spec: Spec,
    world: Arc<World>,
    shared: Arc<Shared>,
    links: Vec<Link>,
    started: Instant,
    /// The node's log time at `log_at`, nanoseconds.
    log_ns: u64,
    log_at: Instant,
    random: Random,
    keys: KeySource,
    builder: DatagramBuilder,
    /// Next hotspot to be put.
    founded: usize,
    /// When the next phone's, and game server's, datagram is due.
    next_ns: [f64; 2],
    /// Whose turn it is to send.
    turn: usize,
    unanswered: usize,
    /// Outages seen.
    life: u32,
    told: Vec<Told>,
    expected: Expected,
}

impl Crowd {
    /// Opens its sockets, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When a socket cannot be had.
    pub fn new(spec: Spec, world: Arc<World>, shared: Arc<Shared>) -> Result<Self> {
        let links = (0..LINKS).map(|_| Link::open(spec.address)).collect::<std::io::Result<_>>();
        let payload_bytes = HEADER_BYTES + EVENTS_FULL * EVENT_FIXED_BYTES;
        Ok(Self {
            expected: Expected::new(&world),
            spec,
            world,
            shared,
            links: links.context("demo: a UDP socket of the crowd")?,
            started: Instant::now(),
            log_ns: 0,
            log_at: Instant::now(),
            random: Random::new(random_u64()),
            keys: KeySource::new(),
            builder: DatagramBuilder::new(payload_bytes, EVENTS_FULL as u16),
            founded: 0,
            next_ns: [0.0; 2],
            turn: 0,
            unanswered: 0,
            life: 0,
            told: Vec::new(),
        })
    }

    /// Follows the orders until told to end.
    ///
    /// # Errors
    ///
    /// A node that does not greet, refuses a datagram, or gives an outcome that
    /// is none.
    pub fn run(mut self) -> Result<Memories> {
        if let Some(core) = self.spec.core {
            // Without it only the figures suffer.
            let _ = cpu::pin_to(core);
        }
        let mut last = Order::Hold;
        loop {
            let order = self.shared.order();
            if order != last && last == Order::Hold && order != Order::End {
                self.resume()?;
            }
            last = order;
            let moved = self.receive()?
                + match order {
                    Order::End => break,
                    Order::Hold => 0,
                    Order::Finish => self.retry()?,
                    Order::Found => self.retry()? + self.found()?,
                    Order::Play => self.retry()? + self.play()?,
                };
            self.shared.set_unanswered(self.unanswered);
            if moved == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(Memories {
            told: self.told,
            expected: self.expected,
            totals: self.shared.totals(),
            unanswered: self.unanswered,
        })
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn key(&mut self) -> [u8; 16] {
        self.keys.next_key(self.log_ns + self.log_at.elapsed().as_nanos() as u64)
    }

    /// Greets the node on every link, takes its log time, and lets what is
    /// unanswered go again.
    fn resume(&mut self) -> Result<()> {
        let asked = Instant::now();
        self.life += 1;
        for index in 0..self.links.len() {
            self.links[index].greeted = false;
            let mut sent: Option<Instant> = None;
            while !self.links[index].greeted {
                if sent.is_none_or(|sent| sent.elapsed() > Duration::from_millis(20)) {
                    self.links[index].hello();
                    sent = Some(Instant::now());
                }
                if self.receive()? == 0 {
                    std::thread::sleep(PAUSE);
                }
                if asked.elapsed() > HELLO_WAIT_MAX {
                    bail!("demo: the node answered no hello for {HELLO_WAIT_MAX:?}");
                }
            }
        }
        let now_ns = self.now_ns();
        for link in &mut self.links {
            link.spread(now_ns, RESUME_SPREAD_NS, &mut self.random);
        }
        self.next_ns = [now_ns as f64; 2];
        Ok(())
    }

    /// Takes what has arrived; gives the datagrams.
    fn receive(&mut self) -> Result<usize> {
        let mut datagrams = 0;
        for index in 0..self.links.len() {
            while let Some(arrived) = self.links[index].receive() {
                datagrams += arrived;
                for slot in 0..arrived {
                    self.hear(index, slot)?;
                }
            }
        }
        Ok(datagrams)
    }

    fn hear(&mut self, index: usize, slot: usize) -> Result<()> {
        let now_ns = self.now_ns();
        let mut heard = std::mem::take(&mut self.links[index].heard);
        self.links[index].read(slot, now_ns, &mut heard);
        for one in heard.drain(..) {
            match one {
                Heard::Welcome { log_time_ns } => {
                    (self.log_ns, self.log_at) = (log_time_ns, Instant::now());
                }
                Heard::Busy => self.shared.add(|t| t.busy += 1),
                Heard::Refused { reason } => {
                    bail!("demo: the node refused a datagram, reason {reason}")
                }
                Heard::Ack { sequence, told } => self.acked(index, sequence, &told, now_ns)?,
            }
        }
        self.links[index].heard = heard;
        Ok(())
    }

    /// An ack of a datagram: outcomes, each with the epoch it was decided at.
    fn acked(
        &mut self,
        index: usize,
        sequence: u64,
        told: &[(u8, bool, u64)],
        now_ns: u64,
    ) -> Result<()> {
        if self.shared.order() != Order::Finish && self.random.below(IGNORED_ONE_IN) == 0 {
            self.shared.add(|t| t.ignored += 1);
            if let Some(flight) = self.links[index].flights.get_mut(&sequence) {
                flight.ignored = true;
            }
            return Ok(());
        }
        let Some(flight) = self.links[index].flights.remove(&sequence) else {
            return self.acked_again(index, sequence, told);
        };
        if told.len() != flight.events.len() {
            bail!("demo: an ack of {} events for {}", told.len(), flight.events.len());
        }
        self.unanswered -= 1;
        self.links[index].answered.insert(sequence, self.told.len());
        let mut duplicates = 0;
        let mut applied = 0;
        for (event, (code, duplicate, epoch)) in flight.events.iter().zip(told) {
            let outcome = Outcome::from_code(*code);
            let outcome =
                outcome.with_context(|| format!("demo: outcome {code} is none of the list"))?;
            duplicates += u64::from(*duplicate);
            applied += u64::from(outcome == Outcome::Applied);
            self.expected.told(&self.world, event, outcome);
            self.told.push(Told { key: event.key, outcome, epoch: *epoch });
        }
        let latency_ns = now_ns.saturating_sub(flight.first_ns);
        let latency = match (flight.life == self.life, flight.ignored) {
            (false, _) => Latency::Outage(latency_ns),
            (true, true) => Latency::Ignored,
            (true, false) => Latency::Ordinary(latency_ns),
        };
        self.shared.acked(told.len() as u64, applied, duplicates, latency);
        Ok(())
    }

    /// Another ack of what was answered: it must say the same.
    fn acked_again(&mut self, index: usize, sequence: u64, told: &[(u8, bool, u64)]) -> Result<()> {
        let Some(first) = self.links[index].answered.get(&sequence) else {
            bail!("demo: an ack of sequence {sequence}, which was never sent");
        };
        let before = self.told.get(*first..first + told.len()).unwrap_or(&[]);
        let differs = |(was, (code, _, epoch)): (&Told, &(u8, bool, u64))| {
            is_decided(was.outcome) && (was.outcome.code(), was.epoch) != (*code, *epoch)
        };
        let doubled = before.iter().zip(told).filter(|pair| differs(*pair)).count() as u64;
        self.shared.add(|t| {
            t.acked_again += 1;
            t.doubled += doubled;
        });
        Ok(())
    }

    /// Sends again what is due.
    fn retry(&mut self) -> Result<usize> {
        let now_ns = self.now_ns();
        let mut retries = 0;
        for link in &mut self.links {
            retries += link.retry(now_ns, TURN_DATAGRAMS, &mut self.random)?;
        }
        if retries > 0 {
            self.shared.add(|t| t.retries += retries as u64);
        }
        Ok(retries)
    }

    /// Puts the next hotspots.
    fn found(&mut self) -> Result<usize> {
        let world = Arc::clone(&self.world);
        let mut sent = 0;
        while sent < TURN_DATAGRAMS && self.unanswered < UNANSWERED_MAX {
            let Some(cell) = world.cells.get(self.founded) else { break };
            let hunt = &world.hunts[usize::from(cell.hunt)];
            let end = (hunt.cell_first + hunt.cells) as usize;
            let upto = end.min(self.founded + EVENTS_FULL);
            let events = (self.founded..upto).map(|c| world.spawn(c as u32, self.key())).collect();
            self.founded = upto;
            self.turn += 1;
            self.send(LINKS / 2 + self.turn % (LINKS / 2), hunt, events)?;
            sent += 1;
        }
        Ok(sent)
    }

    /// Sends what is due of phones and game servers.
    fn play(&mut self) -> Result<usize> {
        let world = Arc::clone(&self.world);
        let now_ns = self.now_ns() as f64;
        let mut sent = 0;
        let rates = [self.spec.phones_per_s, self.spec.servers_per_s];
        for (class, rate) in rates.into_iter().enumerate() {
            let mut left = TURN_DATAGRAMS;
            while self.next_ns[class] <= now_ns && left > 0 {
                if self.unanswered >= UNANSWERED_MAX {
                    // Players wait; they do not make up for it.
                    self.next_ns[class] = now_ns;
                    break;
                }
                let hunt = world.hunt(&mut self.random);
                let events = (0..if class == 0 { 1 } else { EVENTS_FULL })
                    .map(|_| {
                        let key = self.key();
                        world.event(hunt, key, &mut self.random)
                    })
                    .collect();
                self.turn += 1;
                self.send(class * LINKS / 2 + self.turn % (LINKS / 2), hunt, events)?;
                self.next_ns[class] += 1e9 / rate;
                (left, sent) = (left - 1, sent + 1);
            }
        }
        Ok(sent)
    }

    /// Sends a new datagram over a link.
    fn send(&mut self, index: usize, hunt: &Hunt, events: Vec<Event>) -> Result<()> {
        let link = &mut self.links[index];
        self.builder.clear();
        for event in &events {
            let (subject, argument) = self.world.wire(event);
            let fits = self.builder.push(&wire::Event {
                key: event.key,
                player: player_id(event.player),
                subject,
                argument,
                kind: event.kind.code(),
                reserved: 0,
                payload: &[],
            });
            anyhow::ensure!(fits, "demo: {} events do not fit a datagram", events.len());
        }
        let sequence = link.next_sequence();
        let datagram = self.builder.finish(&Envelope {
            mode: Mode::Durable,
            session: link.session,
            sequence,
            domain: hunt.domain,
            cookie: link.cookie,
        });
        let now_ns = self.started.elapsed().as_nanos() as u64;
        let flight = Flight {
            bytes: datagram.into(),
            events: events.into_boxed_slice(),
            first_ns: now_ns,
            retry_ns: 0,
            tries: 0,
            life: self.life,
            ignored: false,
        };
        let count = flight.events.len() as u64;
        link.put(sequence, flight, now_ns, &mut self.random);
        let mut copies = 1;
        link.transmit(sequence)?;
        if self.random.below(TWICE_ONE_IN) == 0 {
            link.transmit(sequence)?;
            copies = 2;
        }
        self.unanswered += 1;
        self.shared.sent(count, copies);
        Ok(())
    }
}

/// Whether an outcome leaves a trace: the others may be said again and again.
#[must_use]
pub const fn is_decided(outcome: Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::Accepted
            | Outcome::TooOld
            | Outcome::TooNew
            | Outcome::Malformed
            | Outcome::OverQuota
            | Outcome::WrongRegion
            | Outcome::Overloaded
            | Outcome::NotLeader
    )
}
