//! The task that owns a client's socket and all its state.
//!
//! ```text
//!  callers ── Submit ──> open batch of the domain ── seal ──> Flight ── datagram ──> socket
//!                                                      ^ retry      │
//!  callers <── Receipt or SendError ── settle <── ack, refused, deadline <── reply ──┘
//! ```
//!
//! Queries take the same way without a batch to wait in (`queries`), events of
//! a session one datagram after the other (`sessions`).
//!
//! One task, no locks: callers talk to it by a channel whose length the
//! permits for events in flight bound. A datagram that is lost, or that the
//! system would not send, is sent again after a wait with decorrelated jitter,
//! with the same keys under a new sequence, until the batch's deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use veltrix_abi::limits::PAYLOAD_BYTES_LIMIT;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::{self, AckEntry, Mode, Reply};
use veltrix_abi::{Outcome, Refusal};

mod queries;
mod sessions;

use sessions::Sessions;

use crate::codec::{self, DatagramBuilder, Envelope, KeySource, Random};
use crate::config::{ClientBuilder, Greeting};
use crate::error::{QueryError, RefusedReason, SendError};
use crate::event::Event;
use crate::event::Receipt;
use crate::flight::{Asker, Cargo, Flight, Flights, Waiter, fail};
use crate::session::Facts;
use crate::stats::{Counters, add};

/// How often the server's log time is asked for again: a clock that drifts by
/// 100 parts in a million is then off by 6 ms, where keys may lead by 2 s.
const HELLO_REFRESH: Duration = Duration::from_secs(60);

/// Commands, and datagrams, taken in one go before the other side has its turn.
const TURN_MAX: usize = 256;

/// Builders kept for reuse; past it they cost an allocation per batch, which
/// only a client of that many domains at once pays.
const SPARE_MAX: usize = 64;

#[derive(Debug)]
pub(crate) enum Command {
    Submit {
        domain: u64,
        event: Event,
        waiter: Waiter,
    },
    /// An event that comes after all others of its session.
    Play {
        session: Arc<Facts>,
        event: Event,
        waiter: Waiter,
    },
    /// No more events come from the session of this number.
    Leave {
        session: u64,
    },
    Ask {
        domain: u64,
        asker: Asker,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Log time, from the last welcome and the monotonic clock.
#[derive(Debug)]
struct LogClock {
    log_time_ns: u64,
    at: Instant,
}

impl LogClock {
    fn now_ns(&self) -> u64 {
        let elapsed_ns = u64::try_from(self.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.log_time_ns.saturating_add(elapsed_ns)
    }
}

#[derive(Debug)]
struct OpenBatch {
    builder: DatagramBuilder,
    waiters: Vec<Waiter>,
    deadline: Instant,
}

#[derive(Debug)]
struct Settings {
    mode: Mode,
    linger: Duration,
    deadline: Duration,
    retry_base: Duration,
    retry_cap: Duration,
    datagram_bytes_max: usize,
    events_max: u16,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Driver {
    settings: Settings,
    socket: UdpSocket,
    session: u64,
    sequence_next: u64,
    cookie: u64,
    clock: LogClock,
    hello_at: Instant,
    keys: KeySource,
    random: Random,
    open: HashMap<u64, OpenBatch>,
    /// Builders without a batch, at most [`SPARE_MAX`].
    spare: Vec<DatagramBuilder>,
    flights: Flights,
    sessions: Sessions,
    counters: Arc<Counters>,
    closers: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(crate) fn new(config: &ClientBuilder, greeting: Greeting, counters: Arc<Counters>) -> Self {
        let welcome = greeting.server.welcome;
        let settings = Settings {
            mode: config.mode,
            linger: config.linger,
            deadline: config.deadline,
            retry_base: config.retry_base,
            retry_cap: config.retry_cap,
            datagram_bytes_max: config.datagram_bytes_max(&welcome),
            events_max: welcome.events_max,
        };
        Self {
            settings,
            socket: greeting.socket,
            session: greeting.session,
            sequence_next: greeting.sequence,
            cookie: welcome.cookie,
            clock: LogClock { log_time_ns: welcome.log_time_ns, at: greeting.welcomed_at },
            hello_at: greeting.welcomed_at + HELLO_REFRESH,
            keys: KeySource::new(),
            random: Random::new(codec::random_u64()),
            open: HashMap::new(),
            spare: Vec::new(),
            flights: Flights::default(),
            sessions: Sessions::default(),
            counters,
            closers: Vec::new(),
        }
    }

    /// Serves until the client is closed, or dropped by all its holders, and
    /// every event taken over has its answer.
    pub(crate) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut buffer = vec![0; PAYLOAD_BYTES_LIMIT];
        let mut listening = true;
        while listening || !self.flights.is_empty() {
            let wake = self.flights.next_wake().unwrap_or(self.hello_at).min(self.hello_at);
            tokio::select! {
                command = commands.recv(), if listening => match command {
                    Some(command) => listening = self.take_turn(command, &mut commands).await,
                    None => listening = false,
                },
                ready = self.socket.readable() => match ready {
                    Ok(()) => self.receive(&mut buffer),
                    Err(_) => add(&self.counters.receive_errors, 1),
                },
                () = tokio::time::sleep_until(wake.into()) => {
                    // An answer that is here already makes its retry needless.
                    self.receive(&mut buffer);
                    self.wake().await;
                }
            }
            self.advance_sessions().await;
        }
        for done in self.closers.drain(..) {
            // Whoever asked may have gone; that is theirs to decide.
            let _ = done.send(());
        }
    }

    /// Takes commands until nothing more is queued or the linger is over, then
    /// seals every open batch. `false` once the client is closed.
    async fn take_turn(
        &mut self,
        first: Command,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> bool {
        let started = Instant::now();
        let mut closing = self.take(first).await;
        loop {
            let mut taken = 0;
            while taken < TURN_MAX
                && let Ok(command) = commands.try_recv()
            {
                closing |= self.take(command).await;
                taken += 1;
            }
            if closing {
                // What was sent before the channel closed is still in it.
                commands.close();
            }
            if taken == 0 || (!closing && started.elapsed() >= self.settings.linger) {
                break;
            }
            // Callers that were about to send get to do it.
            tokio::task::yield_now().await;
        }
        let domains: Vec<u64> = self.open.keys().copied().collect();
        for domain in domains {
            self.seal(domain).await;
        }
        !closing
    }

    /// `true` when the command was to close.
    async fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Submit { domain, event, waiter } => {
                self.append(domain, event, waiter).await;
                false
            }
            Command::Play { session, event, waiter } => {
                self.play(&session, event, waiter);
                false
            }
            Command::Leave { session } => {
                self.sessions.leave(session);
                false
            }
            Command::Ask { domain, asker } => {
                self.ask(domain, asker).await;
                false
            }
            Command::Close { done } => {
                self.closers.push(done);
                true
            }
        }
    }

    async fn append(&mut self, domain: u64, event: Event, mut waiter: Waiter) {
        add(&self.counters.events_submitted, 1);
        let payload_bytes = event.payload.len();
        if self.open.get(&domain).is_some_and(|batch| !batch.builder.fits(payload_bytes)) {
            self.seal(domain).await;
        }
        let key = key_of(&event, &mut self.keys, &self.clock);
        let Settings { datagram_bytes_max, deadline, .. } = self.settings;
        let batch = self.open.entry(domain).or_insert_with(|| OpenBatch {
            builder: spare_or_new(&mut self.spare, &self.settings),
            waiters: Vec::new(),
            deadline: Instant::now() + deadline,
        });
        if batch.builder.push(&on_wire(&event, key)) {
            batch.waiters.push(waiter);
        } else {
            add(&self.counters.events_invalid, 1);
            waiter.answer(Err(SendError::DatagramTooSmall { payload_bytes, datagram_bytes_max }));
        }
    }

    /// Finishes a datagram and takes its builder back.
    fn finish(&mut self, mut builder: DatagramBuilder, domain: u64) -> Vec<u8> {
        // The sequence is written with each try, the first included.
        let envelope = Envelope {
            mode: self.settings.mode,
            session: self.session,
            sequence: 0,
            domain,
            cookie: self.cookie,
        };
        let datagram = builder.finish(&envelope).to_vec();
        self.keep(builder);
        datagram
    }

    fn keep(&mut self, mut builder: DatagramBuilder) {
        if self.spare.len() < SPARE_MAX {
            builder.clear();
            self.spare.push(builder);
        }
    }

    /// Sends the domain's open batch, if it holds anything.
    async fn seal(&mut self, domain: u64) {
        let Some(OpenBatch { builder, waiters, deadline }) = self.open.remove(&domain) else {
            return;
        };
        if waiters.is_empty() {
            self.keep(builder);
            return;
        }
        let datagram = self.finish(builder, domain);
        let cargo = Cargo::Events(waiters);
        let mut flight = Flight::new(datagram, cargo, deadline, self.settings.retry_base);
        self.try_once(&mut flight).await;
        self.flights.insert(flight);
    }

    /// Sends a datagram under a new sequence and names its next wake.
    async fn try_once(&mut self, flight: &mut Flight) {
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        codec::restamp(&mut flight.datagram, sequence, self.cookie);
        flight.sequences.push(sequence);
        flight.tries += 1;
        match self.socket.send(&flight.datagram).await {
            Ok(_) => add(&self.counters.datagrams_sent, 1),
            Err(_) => add(&self.counters.send_errors, 1),
        }
        flight.delay = self.jitter(flight.delay);
        flight.wake = (Instant::now() + flight.delay).min(flight.deadline);
    }

    /// Decorrelated jitter: between the base and three times the wait before,
    /// at most the cap.
    fn jitter(&mut self, previous: Duration) -> Duration {
        let base_ns = self.settings.retry_base.as_nanos() as u64;
        let top_ns = (previous.as_nanos() as u64).saturating_mul(3).max(base_ns + 1);
        let delay = Duration::from_nanos(base_ns + self.random.below(top_ns - base_ns));
        delay.min(self.settings.retry_cap)
    }

    /// Serves what is due: retries, deadlines, the next hello.
    async fn wake(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.flights.due(now) {
            let Some(mut flight) = self.flights.remove(id) else {
                continue;
            };
            if flight.deadline <= now {
                self.time_out(flight);
                continue;
            }
            if let Cargo::Queries(asker) = &flight.cargo
                && asker.reply.is_closed()
            {
                add(&self.counters.queries_abandoned, asker.wanted.len());
                continue;
            }
            add(&self.counters.retries, usize::from(flight.tries > 0));
            self.try_once(&mut flight).await;
            self.flights.put_back(id, flight);
        }
        if self.hello_at <= now {
            let sequence = self.sequence_next;
            self.sequence_next += 1;
            // When it gets lost the clock in use stays good enough until the next.
            let _ = self.socket.send(&codec::hello(self.session, sequence)).await;
            self.hello_at = now + HELLO_REFRESH;
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        for _ in 0..TURN_MAX {
            match self.socket.try_recv(buffer) {
                Ok(bytes) => self.on_datagram(&buffer[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => add(&self.counters.receive_errors, 1),
            }
        }
    }

    fn on_datagram(&mut self, datagram: &[u8]) {
        let Ok((header, reply)) = codec::read(datagram) else {
            add(&self.counters.replies_invalid, 1);
            return;
        };
        if header.session != self.session {
            add(&self.counters.replies_foreign, 1);
            return;
        }
        match reply {
            Reply::Ack(entries) => entries.for_each(|entry| self.on_ack(&entry)),
            Reply::Busy { retry_after_us } => self.on_busy(header.sequence, retry_after_us),
            Reply::Refused { reason, version_min, version_max } => {
                let code = reason;
                let reason = Refusal::from_code(code);
                let refused = RefusedReason { reason, code, version_min, version_max };
                self.on_refused(header.sequence, refused);
            }
            Reply::Welcome(welcome) => {
                self.cookie = welcome.cookie;
                self.clock = LogClock { log_time_ns: welcome.log_time_ns, at: Instant::now() };
            }
            Reply::Answer(answer) => self.on_answer(header.sequence, answer),
            // Never asked for by this client.
            Reply::Pong(_) => add(&self.counters.replies_invalid, 1),
        }
    }

    fn on_ack(&mut self, entry: &AckEntry<'_>) {
        let Some((id, flight)) = self.flights.find(entry.sequence) else {
            add(&self.counters.replies_late, 1);
            return;
        };
        let fits = matches!(&flight.cargo, Cargo::Events(w) if w.len() == entry.outcomes.len())
            && entry.mode == self.settings.mode;
        if !fits {
            add(&self.counters.replies_invalid, 1);
            return;
        }
        if let Some(flight) = self.flights.remove(id) {
            self.settle(flight, entry);
        }
    }

    /// Hands out receipts. Events the server turned away before they joined a
    /// batch go on as a batch of their own, with their keys, after a wait.
    fn settle(&mut self, flight: Flight, entry: &AckEntry<'_>) {
        let turned_away = |index: usize| {
            entry.outcomes.get(index).is_some_and(|byte| {
                matches!(Outcome::from_code(*byte), Some(Outcome::Overloaded | Outcome::NotLeader))
            })
        };
        let rest = if (0..entry.outcomes.len()).any(turned_away) {
            codec::subset(&flight.datagram, turned_away)
        } else {
            None
        };
        let Flight { cargo, session, deadline, delay, tries, busy, .. } = flight;
        let Cargo::Events(waiters) = cargo else {
            return;
        };
        if let Some(session) = session {
            self.sessions.reached(session, epoch_of(entry));
        }
        let mut epochs = entry.duplicate_epochs();
        let mut again = Vec::new();
        for (index, (mut waiter, byte)) in waiters.into_iter().zip(entry.outcomes).enumerate() {
            if rest.is_some() && turned_away(index) {
                again.push(waiter);
                continue;
            }
            let duplicate = byte & DUPLICATE_BIT != 0;
            let epoch = if duplicate { epochs.next().unwrap_or(entry.epoch) } else { entry.epoch };
            let code = byte & !DUPLICATE_BIT;
            match Outcome::from_code(code) {
                Some(outcome) => {
                    let owed = waiter.answer(Ok(Receipt { outcome, duplicate, epoch }));
                    add(&self.counters.events_acked, usize::from(owed));
                    add(&self.counters.duplicates, usize::from(owed && duplicate));
                }
                None => {
                    let owed = waiter.answer(Err(SendError::OutcomeUnknown(code)));
                    add(&self.counters.events_invalid, usize::from(owed));
                }
            }
        }
        if let Some(datagram) = rest {
            let delay = self.jitter(delay);
            let wake = (Instant::now() + delay).min(deadline);
            let flight = Flight::new(datagram, Cargo::Events(again), deadline, delay);
            self.flights.insert(Flight { wake, session, tries, busy, ..flight });
        } else if let Some(session) = session {
            self.sessions.settled(session);
        }
    }

    fn on_busy(&mut self, sequence: u64, retry_after_us: u32) {
        add(&self.counters.busy, 1);
        let Some((id, _)) = self.flights.find(sequence) else {
            add(&self.counters.replies_late, 1);
            return;
        };
        let Some(mut flight) = self.flights.remove(id) else {
            return;
        };
        // The server's wait, and up to as much again, so that all who were
        // turned away at one moment do not come back at one moment.
        let after = Duration::from_micros(retry_after_us.into()).max(self.settings.retry_base);
        let jitter_ns = self.random.below(after.as_nanos() as u64);
        flight.busy += 1;
        flight.wake =
            (Instant::now() + after + Duration::from_nanos(jitter_ns)).min(flight.deadline);
        self.flights.put_back(id, flight);
    }

    fn on_refused(&mut self, sequence: u64, refused: RefusedReason) {
        let Some((id, _)) = self.flights.find(sequence) else {
            add(&self.counters.replies_late, 1);
            return;
        };
        let Some(mut flight) = self.flights.remove(id) else {
            return;
        };
        match flight.cargo {
            Cargo::Events(ref mut waiters) => {
                let error = SendError::Refused(refused);
                let owed = fail(waiters, &error);
                add(&self.counters.events_refused, owed);
                match flight.session {
                    Some(session) if owed > 0 => self.sessions.settled(session),
                    // An earlier life of it may have been applied.
                    Some(session) => {
                        let held_back = self.sessions.unresolved(session, flight, &error);
                        add(&self.counters.events_refused, held_back);
                    }
                    None => {}
                }
            }
            Cargo::Queries(asker) => {
                add(&self.counters.queries_refused, asker.wanted.len());
                asker.finish(Err(QueryError::Refused(refused)));
            }
        }
    }

    /// Ends what got no answer until its deadline.
    fn time_out(&mut self, mut flight: Flight) {
        let (tries, busy) = (flight.tries, flight.busy);
        match flight.cargo {
            Cargo::Events(ref mut waiters) => {
                let owed = fail(waiters, &SendError::Deadline { tries, busy });
                add(&self.counters.events_timed_out, owed);
                if let Some(session) = flight.session {
                    let held_back = self.sessions.unresolved(session, flight, &SendError::NotSent);
                    add(&self.counters.events_not_sent, held_back);
                }
            }
            Cargo::Queries(asker) => {
                add(&self.counters.queries_timed_out, asker.wanted.len());
                let error = asker.overdue(tries, busy);
                asker.finish(Err(error));
            }
        }
    }
}

/// The event's own key, or a new one.
fn key_of(event: &Event, keys: &mut KeySource, clock: &LogClock) -> [u8; 16] {
    match event.key {
        Some(key) => key.into_bytes(),
        None => keys.next_key(clock.now_ns()),
    }
}

/// The event with its key, as a datagram carries it.
fn on_wire(event: &Event, key: [u8; 16]) -> wire::Event<'_> {
    wire::Event {
        key,
        player: event.player,
        subject: event.subject,
        argument: event.argument,
        kind: event.kind,
        reserved: 0,
        payload: &event.payload,
    }
}

fn spare_or_new(spare: &mut Vec<DatagramBuilder>, settings: &Settings) -> DatagramBuilder {
    let new = || DatagramBuilder::new(settings.datagram_bytes_max, settings.events_max);
    spare.pop().unwrap_or_else(new)
}

/// The highest epoch that an ack entry names.
fn epoch_of(entry: &AckEntry<'_>) -> u64 {
    let fresh = entry.outcomes.iter().any(|byte| byte & DUPLICATE_BIT == 0);
    let own = if fresh { entry.epoch } else { 0 };
    entry.duplicate_epochs().fold(own, u64::max)
}
