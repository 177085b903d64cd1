//! Loads a world: every event is sent until it has its outcome.
//!
//! ```text
//!  Chunks ── a share for each session ──> Sender ── datagram ──> server
//!                                          │  ^                    │
//!                       made again, same keys └── ack, busy, nothing ──┘
//! ```
//!
//! One thread a session; it owns socket, window and flights. A datagram is not
//! kept but made again for each try: all of it follows from the world and the
//! milliseconds its keys were first stamped with. An ack of any try settles it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use veltrix_abi::limits::PAYLOAD_BYTES_LIMIT;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::{AckEntry, Event, Mode, Reply};
use veltrix_abi::{Outcome, Refusal};
use veltrix_client::codec::{self, DatagramBuilder, Envelope, Random};

use super::chunks::{Chunk, Chunks};
use super::generator::World;
use super::link::{Server, Session};
use super::window::{WINDOW_MAX, Window};
use crate::base::poll;
use crate::cli::load::sockets::send_all;
use crate::cli::{CliError, ExitStatus};
use crate::udp::Batch;

/// Datagrams moved by one system call.
const CALL_MAX: usize = 32;

/// First wait for an answer, nanoseconds: above what a loaded log takes.
const RETRY_NS_FIRST: u64 = 200_000_000;

/// Longest wait for an answer, nanoseconds.
const RETRY_NS_MAX: u64 = 1_000_000_000;

/// How often flights are looked through for those that are due.
const LOOK_EVERY_NS: u64 = 2_000_000;

/// How often the server's clock is asked for.
const HELLO_EVERY_NS: u64 = 20_000_000_000;

/// Longest sleep while nothing comes.
const SLEEP_MAX: Duration = Duration::from_millis(1);

/// What a phase found, summed over sessions.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Events by outcome code.
    pub outcomes: [u64; 128],
    /// Datagrams sent again.
    pub retries: u64,
    /// Datagrams turned away with `busy`.
    pub busy: u64,
    /// Last epoch at which one of its events was applied.
    pub epoch: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { outcomes: [0; 128], retries: 0, busy: 0, epoch: 0 }
    }
}

impl Tally {
    /// Goes on with another.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.outcomes.iter_mut().zip(&other.outcomes) {
            *sum += more;
        }
        self.retries += other.retries;
        self.busy += other.busy;
        self.epoch = self.epoch.max(other.epoch);
    }

    /// Events with an outcome.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.outcomes.iter().sum()
    }
}

/// Sends all datagrams of a phase over every link of `server` and waits for the
/// outcome of each event; tells `watch` ten times a second how many have theirs.
///
/// # Errors
///
/// When no outcome comes for `patience`, or the server refuses a datagram.
pub fn load(
    world: &World,
    chunks: &Chunks<'_>,
    server: &mut Server,
    patience: Duration,
    watch: &mut dyn FnMut(u64),
) -> Result<Tally, CliError> {
    let (settled, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let links = server.links.len() as u64;
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..)
            .zip(&mut server.links)
            .map(|(first, (socket, session))| {
                let mut sender = Sender::new(world, chunks, socket, session, first, links);
                let (settled, stop) = (&settled, &stop);
                scope.spawn(move || {
                    let result = sender.run(settled, stop, patience);
                    stop.fetch_or(result.is_err(), Ordering::Relaxed);
                    result.map(|()| sender.tally)
                })
            })
            .collect();
        while senders.iter().any(|sender| !sender.is_finished()) {
            std::thread::sleep(Duration::from_millis(if chunks.len() < 1_000 { 1 } else { 100 }));
            watch(settled.load(Ordering::Relaxed));
        }
        let mut all = Tally::default();
        for sender in senders {
            // A panic in a sender is a bug; it goes on as one.
            all.add(&sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// A datagram without its outcomes.
#[derive(Debug)]
struct Flight {
    chunk: Chunk,
    /// Stamp of its keys.
    key_ms: u64,
    /// Numbers of all its tries.
    sequences: Vec<u64>,
    /// When it is sent again.
    due_ns: u64,
    wait_ns: u64,
}

struct Sender<'a> {
    world: &'a World,
    chunks: &'a Chunks<'a>,
    socket: &'a UdpSocket,
    session: &'a mut Session,
    /// Next datagram of this session, and how far it is to the one after.
    next: u64,
    step: u64,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    by_sequence: HashMap<u64, usize>,
    window: Window,
    paused_until_ns: u64,
    looked_ns: u64,
    hello_ns: u64,
    settled_ns: u64,
    /// What the server last said instead of an outcome.
    hindrance: &'static str,
    started: Instant,
    random: Random,
    builder: DatagramBuilder,
    out: Batch,
    /// Slot and bytes of the datagrams in `out`.
    entries: Vec<(u32, u32)>,
    tally: Tally,
}

impl<'a> Sender<'a> {
    fn new(
        world: &'a World,
        chunks: &'a Chunks<'a>,
        socket: &'a UdpSocket,
        session: &'a mut Session,
        first: u64,
        step: u64,
    ) -> Self {
        Self {
            world,
            chunks,
            socket,
            session,
            next: first,
            step,
            flights: (0..WINDOW_MAX).map(|_| None).collect(),
            free: (0..WINDOW_MAX).collect(),
            by_sequence: HashMap::with_capacity(2 * WINDOW_MAX),
            window: Window::new(),
            paused_until_ns: 0,
            looked_ns: 0,
            hello_ns: 0,
            settled_ns: 0,
            hindrance: "nothing",
            started: Instant::now(),
            random: Random::new(codec::random_u64()),
            builder: DatagramBuilder::new(PAYLOAD_BYTES_LIMIT, u16::MAX),
            out: Batch::new(CALL_MAX, PAYLOAD_BYTES_LIMIT, CALL_MAX),
            entries: Vec::with_capacity(CALL_MAX),
            tally: Tally::default(),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn unanswered(&self) -> usize {
        WINDOW_MAX - self.free.len()
    }

    fn run(
        &mut self,
        settled: &AtomicU64,
        stop: &AtomicBool,
        patience: Duration,
    ) -> Result<(), CliError> {
        let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let fd = self.socket.as_fd();
        let mut into = Batch::new(CALL_MAX, PAYLOAD_BYTES_LIMIT, CALL_MAX);
        let slots: Vec<u32> = (0..CALL_MAX as u32).collect();
        let mut received = Vec::with_capacity(CALL_MAX);
        while !stop.load(Ordering::Relaxed) {
            received.clear();
            let take =
                into.receive(fd, &slots, |slot, got| received.push((slot as usize, got.bytes)));
            let now_ns = self.now_ns();
            let before = self.tally.events();
            for (slot, bytes) in &received {
                let slot = into.slot(*slot);
                self.on_datagram(&slot[..(*bytes).min(slot.len())], now_ns)?;
            }
            settled.fetch_add(self.tally.events() - before, Ordering::Relaxed);
            let sent = self.ask_the_time(now_ns) + self.send_due(now_ns) + self.send_new(now_ns);
            if self.unanswered() == 0 && self.chunks.get(self.next).is_none() {
                return Ok(());
            }
            if now_ns.saturating_sub(self.settled_ns) > patience_ns {
                return Err(self.given_up(patience));
            }
            // A closed port may be a server that starts again: silence, so far.
            let idle = take.map_or_else(|e| e.kind() == ErrorKind::WouldBlock, |got| got == 0);
            if idle && sent == 0 {
                poll::readable(fd, None, SLEEP_MAX);
            }
        }
        Ok(())
    }

    fn given_up(&self, patience: Duration) -> CliError {
        let message = format!(
            "no outcome for {patience:?}; the server last answered with {}. What was loaded stays: \
             a hunt is loaded into once, so go on with a new data directory or another --first-hunt",
            self.hindrance
        );
        CliError::new(ExitStatus::Unhealthy, message)
    }

    /// Asks for the server's clock now and then: clocks drift.
    fn ask_the_time(&mut self, now_ns: u64) -> usize {
        if now_ns < self.hello_ns + HELLO_EVERY_NS {
            return 0;
        }
        self.hello_ns = now_ns;
        let sequence = self.session.next_sequence();
        // One that is lost leaves the clock as it was.
        let _ = self.socket.send(&codec::hello(self.session.id, sequence));
        1
    }

    /// Sends what was not answered in time, up to a call's worth.
    fn send_due(&mut self, now_ns: u64) -> usize {
        if now_ns < self.looked_ns + LOOK_EVERY_NS {
            return 0;
        }
        self.looked_ns = now_ns;
        self.entries.clear();
        for slot in 0..WINDOW_MAX {
            let due = self.flights[slot].as_ref().is_some_and(|flight| flight.due_ns <= now_ns);
            if due && self.entries.len() < CALL_MAX {
                self.tally.retries += 1;
                self.window.cut(now_ns);
                self.send(slot, now_ns);
            }
        }
        self.flush()
    }

    /// Sends new datagrams as far as the window allows, up to a call's worth.
    fn send_new(&mut self, now_ns: u64) -> usize {
        self.entries.clear();
        while self.entries.len() < CALL_MAX
            && now_ns >= self.paused_until_ns
            && self.unanswered() < self.window.size()
            && let Some(chunk) = self.chunks.get(self.next)
            && let Some(slot) = self.free.pop()
        {
            self.next += self.step;
            let key_ms = self.session.log_ms();
            let sequences = Vec::with_capacity(1);
            self.flights[slot] =
                Some(Flight { chunk, key_ms, sequences, due_ns: 0, wait_ns: RETRY_NS_FIRST });
            self.send(slot, now_ns);
        }
        self.flush()
    }

    /// Puts the next try of a flight among those to send.
    fn send(&mut self, slot: usize, now_ns: u64) {
        let Some(flight) = &mut self.flights[slot] else { return };
        let sequence = self.session.next_sequence();
        flight.sequences.push(sequence);
        self.by_sequence.insert(sequence, slot);
        flight.due_ns = now_ns + flight.wait_ns;
        let spread = self.random.below(flight.wait_ns);
        flight.wait_ns = (flight.wait_ns + spread).min(RETRY_NS_MAX);
        let Chunk { hunt, first, count } = flight.chunk;
        self.builder.clear();
        for n in first..first + u64::from(count) {
            let event = self.world.event_in(self.chunks.phase, hunt, n);
            // As many as fit were put into the chunk.
            let _ = self.builder.push(&Event {
                key: self.world.key(self.chunks.phase, hunt, n, flight.key_ms),
                player: event.player,
                subject: event.subject,
                argument: event.argument,
                kind: event.kind.code(),
                reserved: 0,
                payload: &[],
            });
        }
        let datagram = self.builder.finish(&Envelope {
            mode: Mode::Durable,
            session: self.session.id,
            sequence,
            domain: self.world.hunts()[hunt].key,
            cookie: self.session.cookie,
        });
        let place = self.entries.len();
        self.out.slot_mut(place)[..datagram.len()].copy_from_slice(datagram);
        self.entries.push((place as u32, datagram.len() as u32));
    }

    fn flush(&mut self) -> usize {
        if !self.entries.is_empty() {
            // What the kernel does not take gets no answer, and is sent again.
            let patience = Duration::from_nanos(RETRY_NS_FIRST);
            send_all(&mut self.out, self.socket.as_fd(), &self.entries, patience);
        }
        self.entries.len()
    }

    fn on_datagram(&mut self, datagram: &[u8], now_ns: u64) -> Result<(), CliError> {
        // What is damaged or of another session is as good as lost.
        let Ok((header, reply)) = codec::read(datagram) else { return Ok(()) };
        if header.session != self.session.id {
            return Ok(());
        }
        match reply {
            Reply::Ack(entries) => entries.for_each(|entry| self.on_ack(&entry, now_ns)),
            Reply::Busy { retry_after_us } => {
                let wait_ns = u64::from(retry_after_us) * 1_000;
                let wait_ns = wait_ns + self.random.below(wait_ns);
                if let Some(flight) = self.flight_mut(header.sequence) {
                    flight.due_ns = now_ns + wait_ns;
                    self.tally.busy += 1;
                    self.hindrance = "`busy`";
                    self.paused_until_ns = self.paused_until_ns.max(now_ns + wait_ns);
                    self.window.cut(now_ns);
                }
            }
            Reply::Refused { reason, .. } if self.by_sequence.contains_key(&header.sequence) => {
                let why = Refusal::from_code(reason).map_or("reason unknown", Refusal::doc);
                let message = format!("the server refused a datagram: {why}");
                return Err(CliError::new(ExitStatus::Error, message));
            }
            Reply::Welcome(welcome) => self.session.on_welcome(&welcome),
            Reply::Refused { .. } | Reply::Pong(_) | Reply::Answer(_) => {}
        }
        Ok(())
    }

    fn flight_mut(&mut self, sequence: u64) -> Option<&mut Flight> {
        let slot = *self.by_sequence.get(&sequence)?;
        self.flights[slot].as_mut()
    }

    fn on_ack(&mut self, entry: &AckEntry<'_>, now_ns: u64) {
        // Settled by another try before, or none of ours.
        let Some(&slot) = self.by_sequence.get(&entry.sequence) else { return };
        let Some(flight) = &mut self.flights[slot] else { return };
        let count = usize::from(flight.chunk.count);
        if entry.outcomes.len() != count || entry.mode != Mode::Durable {
            return;
        }
        let turned_away = |outcome: Outcome| {
            entry.outcomes.iter().any(|byte| byte & !DUPLICATE_BIT == outcome.code())
        };
        for (outcome, words) in
            [(Outcome::Overloaded, "`overloaded`"), (Outcome::NotLeader, "`not-leader`")]
        {
            if turned_away(outcome) {
                flight.due_ns = now_ns + flight.wait_ns;
                self.hindrance = words;
                self.window.cut(now_ns);
                return;
            }
        }
        for byte in entry.outcomes {
            self.tally.outcomes[usize::from(byte & !DUPLICATE_BIT)] += 1;
        }
        self.tally.epoch = self.tally.epoch.max(entry.epoch);
        for sequence in self.flights[slot].take().map(|flight| flight.sequences).unwrap_or_default()
        {
            self.by_sequence.remove(&sequence);
        }
        self.free.push(slot);
        self.settled_ns = now_ns;
        self.window.grow();
    }
}
