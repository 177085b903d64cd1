//! The generator: one sending thread for all connections, one receiving
//! thread for each.
//!
//! ```text
//!  schedule ──> sender ── sendmmsg ──> socket ──> server
//!                 │ put                   │
//!                 v                       v recvmmsg
//!              Flights <── claim ──── receiver ──> Tally (histogram, outcomes)
//! ```
//!
//! The schedule alone says when a datagram was meant to leave, and latency is
//! taken from then: a server, or a generator, that stalls is charged for every
//! datagram that had to wait. Nothing is retried. Without a schedule, `busy`
//! answers are obeyed: the connection pauses for as long as they ask. After the
//! last send the sender waits up to a second for answers; what then has none is
//! lost.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use veltrix_abi::kinds::EventKind;
use veltrix_abi::limits::PAYLOAD_BYTES_LIMIT;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::{AckEntry, Event, Mode, Reply, Welcome};
use veltrix_abi::{Outcome, Refusal};
use veltrix_client::codec::{self, DatagramBuilder, Envelope, KeySource, Random};

use super::flight::{Flights, Times};
use super::plan::{Plan, Schedule};
use super::report::{Behind, Report};
use super::sockets::{greet, send_all, socket_error};
use super::world::World;
use crate::base::poll;
use crate::cli::ping::{Percentiles, connect, histogram, open};
use crate::cli::{CliError, ExitStatus};
use crate::udp::Batch;

/// A datagram without an answer so long after its send is lost.
const LOST_NS: u64 = 1_000_000_000;

/// A datagram sent so long after its time counts as late.
const LATE_NS: u64 = 1_000_000;

/// How long past its end a run may go on to catch up with its schedule.
const CATCH_UP_NS: u64 = 250_000_000;

/// Datagrams moved by one system call.
const CALL_MAX: usize = 32;

/// Socket buffers asked for; the host's limits may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The sender sleeps only while the next datagram is further off than this,
/// and wakes that much early: a sleep may end 60 us late.
const SLEEP_MARGIN: Duration = Duration::from_micros(150);

/// How often progress is reported.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Events sent.
    pub events_sent: u64,
    /// Events answered in any way.
    pub events_answered: u64,
}

/// Carries out `plan`.
///
/// # Errors
///
/// When the plan makes no sense, the server does not answer or lacks the
/// mode, or a socket cannot be had. A server that falls silent later is a
/// finding, not an error.
pub fn drive(plan: &Plan) -> Result<Report, CliError> {
    drive_watched(plan, &mut |_| {})
}

/// As [`drive`], telling `watch` every 100 ms how far it is.
///
/// # Errors
///
/// As [`drive`].
pub fn drive_watched(plan: &Plan, watch: &mut dyn FnMut(Progress)) -> Result<Report, CliError> {
    plan.check()?;
    let world = World::new(plan.distribution, plan.domains);
    let (links, fill) = Link::all(plan)?;
    let started = Instant::now();
    let stop = AtomicBool::new(false);
    let (sent, tallies) = std::thread::scope(|scope| {
        let receivers: Vec<_> = links
            .iter()
            .map(|link| scope.spawn(|| Receiver::new(link, plan.mode, fill, started).run(&stop)))
            .collect();
        let sender = scope.spawn(|| {
            let sent = Sender::new(plan, &world, &links, fill, started).run();
            stop.store(true, Ordering::Release);
            sent
        });
        while !sender.is_finished() {
            std::thread::sleep(WATCH_EVERY);
            let count = |counter: fn(&Link) -> &AtomicU64| {
                links.iter().map(|l| counter(l).load(Ordering::Relaxed)).sum::<u64>()
                    * u64::from(fill)
            };
            watch(Progress {
                elapsed: started.elapsed(),
                events_sent: count(|link| &link.sent),
                events_answered: count(|link| &link.answered),
            });
        }
        // A panic in either thread is a bug; it goes on as one.
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let tallies: Vec<Tally> = receivers
            .into_iter()
            .map(|r| r.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        (sent, tallies)
    });
    let addr = links[0].socket.peer_addr().map_err(|error| socket_error(&error))?;
    Ok(total(plan, addr, fill, &links, &sent, &tallies))
}

/// One connection, as both threads see it.
#[derive(Debug)]
struct Link {
    socket: UdpSocket,
    session: u64,
    cookie: u64,
    /// First sequence for events; the hellos used those before.
    sequence_first: u64,
    log_time_ns: u64,
    welcomed_at: Instant,
    flights: Flights,
    /// Datagrams sent.
    sent: AtomicU64,
    /// Datagrams the receiver has claimed.
    answered: AtomicU64,
    /// Until when the server asked for a pause, nanoseconds since the run's start.
    busy_until_ns: AtomicU64,
}

impl Link {
    /// Every connection of the plan, greeted, and the events a datagram.
    fn all(plan: &Plan) -> Result<(Vec<Self>, u16), CliError> {
        let first = connect(&plan.addr)?;
        let addr = first.peer_addr().map_err(|error| socket_error(&error))?;
        let mut sockets = vec![first];
        for _ in 1..plan.connections {
            sockets.push(open(addr).map_err(|error| socket_error(&error))?);
        }
        let mut links = Vec::new();
        let mut fill = None;
        for socket in sockets {
            let session = codec::random_u64();
            let (welcome, sequence_first) = greet(&socket, session, &plan.addr)?;
            if welcome.modes & Welcome::mode_bit(plan.mode) == 0 {
                return Err(CliError::new(
                    ExitStatus::Error,
                    format!("{addr} gives no `{}` acks; ask for another --mode", plan.mode.name()),
                ));
            }
            let fill = *fill.get_or_insert(plan.fill_of(&welcome)?);
            let buffers = socket2::SockRef::from(&socket);
            // Best effort: with less, a burst of acks may be lost, and is
            // then counted as such.
            let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
            let _ = buffers.set_send_buffer_size(SOCKET_BUFFER_BYTES);
            links.push(Self {
                socket,
                session,
                cookie: welcome.cookie,
                sequence_first,
                log_time_ns: welcome.log_time_ns,
                welcomed_at: Instant::now(),
                flights: Flights::new(plan.flights(fill)),
                sent: AtomicU64::new(0),
                answered: AtomicU64::new(0),
                busy_until_ns: AtomicU64::new(0),
            });
        }
        // A plan has at least one connection; the least fill stands in for none.
        Ok((links, fill.unwrap_or(1)))
    }
}

fn since_ns(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A connection's place in its schedule.
struct Turn<'a> {
    link: &'a Link,
    schedule: Schedule,
    /// Datagrams made so far.
    made: u64,
    /// Oldest sequence that may be unanswered.
    oldest: u64,
    lost: u64,
}

impl Turn<'_> {
    fn next_sequence(&self) -> u64 {
        self.link.sequence_first + self.made
    }

    /// Gives up what was sent too long ago.
    fn expire(&mut self, now_ns: u64) {
        while self.oldest < self.next_sequence() {
            match self.link.flights.sent_ns(self.oldest) {
                Some(sent_ns) if now_ns.saturating_sub(sent_ns) <= LOST_NS => return,
                Some(_) => self.lost += u64::from(self.link.flights.claim(self.oldest).is_some()),
                None => {}
            }
            self.oldest += 1;
        }
    }

    fn unanswered(&self) -> u64 {
        let answered = self.link.answered.load(Ordering::Acquire);
        self.made.saturating_sub(answered + self.lost)
    }

    /// The intended send time of the next datagram, if it may leave now.
    fn due(&self, now_ns: u64) -> Option<u64> {
        if self.next_sequence() - self.oldest >= self.link.flights.capacity() {
            return None;
        }
        match self.schedule {
            Schedule::Window { datagrams } => {
                let busy = now_ns < self.link.busy_until_ns.load(Ordering::Relaxed);
                (!busy && self.unanswered() < datagrams).then_some(now_ns)
            }
            Schedule::Open { .. } => self.schedule.due_ns(self.made).filter(|due| *due <= now_ns),
        }
    }
}

/// What the sending thread counted.
#[derive(Debug, Default)]
struct Sent {
    seconds: f64,
    lost: u64,
    send_errors: u64,
    port_closed: u64,
    behind: Behind,
    intended: Option<u64>,
}

struct Sender<'a> {
    plan: &'a Plan,
    world: &'a World,
    fill: u16,
    started: Instant,
    turns: Vec<Turn<'a>>,
    keys: KeySource,
    random: Random,
    builder: DatagramBuilder,
    payload: Vec<u8>,
    batch: Batch,
    entries: Vec<(u32, u32)>,
    sent: Sent,
}

impl<'a> Sender<'a> {
    fn new(
        plan: &'a Plan,
        world: &'a World,
        links: &'a [Link],
        fill: u16,
        started: Instant,
    ) -> Self {
        let turns = (0..).zip(links).map(|(index, link)| Turn {
            link,
            schedule: plan.schedule(index, fill),
            made: 0,
            oldest: link.sequence_first,
            lost: 0,
        });
        Self {
            plan,
            world,
            fill,
            started,
            turns: turns.collect(),
            keys: KeySource::new(),
            random: Random::new(plan.seed.unwrap_or_else(codec::random_u64)),
            builder: DatagramBuilder::new(PAYLOAD_BYTES_LIMIT, fill),
            payload: vec![0x5a; plan.payload_bytes],
            batch: Batch::new(CALL_MAX, PAYLOAD_BYTES_LIMIT, CALL_MAX),
            entries: Vec::with_capacity(CALL_MAX),
            sent: Sent::default(),
        }
    }

    fn run(mut self) -> Sent {
        let duration_ns = u64::try_from(self.plan.duration.as_nanos()).unwrap_or(u64::MAX);
        let open = matches!(self.turns[0].schedule, Schedule::Open { .. });
        let stop_ns = if open { duration_ns.saturating_add(CATCH_UP_NS) } else { duration_ns };
        while since_ns(self.started) < stop_ns {
            let mut moved = 0;
            for index in 0..self.turns.len() {
                moved += self.send_due(index);
            }
            if moved == 0 {
                let next = self.turns.iter().filter_map(|t| t.schedule.due_ns(t.made)).min();
                match next {
                    Some(next_ns) => self.wait_until(next_ns),
                    None if open => break,
                    None => std::thread::yield_now(),
                }
            }
        }
        self.sent.seconds = self.started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        self.gather_answers();
        let made: u64 = self.turns.iter().map(|turn| turn.made).sum();
        self.sent.intended = self.turns.iter().map(|turn| turn.schedule.intended()).sum();
        self.sent.behind.closed_loop = !open;
        self.sent.behind.datagrams_unsent = self.sent.intended.unwrap_or(made).saturating_sub(made);
        self.sent.lost = self.turns.iter().map(|turn| turn.lost).sum();
        self.sent
    }

    /// Sleeps as far as sleeping is exact enough, then lets others run.
    fn wait_until(&self, next_ns: u64) {
        let wait = Duration::from_nanos(next_ns.saturating_sub(since_ns(self.started)));
        match wait.checked_sub(SLEEP_MARGIN) {
            Some(sleep) if !sleep.is_zero() => std::thread::sleep(sleep),
            _ => std::thread::yield_now(),
        }
    }

    /// Sends what is due on one connection, up to a call's worth.
    fn send_due(&mut self, index: usize) -> usize {
        let now_ns = since_ns(self.started);
        self.turns[index].expire(now_ns);
        self.entries.clear();
        while self.entries.len() < CALL_MAX
            && let Some(intended_ns) = self.turns[index].due(now_ns)
        {
            self.make(index, Times { intended_ns, sent_ns: now_ns });
        }
        if !self.entries.is_empty() {
            self.flush(index);
        }
        self.entries.len()
    }

    /// Builds the next datagram of a connection in the next slot of the batch.
    fn make(&mut self, index: usize, times: Times) {
        let turn = &mut self.turns[index];
        let link = turn.link;
        let sequence = turn.next_sequence();
        let log_ns = link.log_time_ns.saturating_add(since_ns(link.welcomed_at));
        let place = self.world.place(&mut self.random);
        self.builder.clear();
        for _ in 0..self.fill {
            // `fill` was held against the datagram's size, so all fit.
            let _ = self.builder.push(&Event {
                key: self.keys.next_key(log_ns),
                player: self.random.below(self.plan.players) + 1,
                subject: self.world.cell(place, &mut self.random),
                argument: 1,
                // The one kind that is applied in a world where nothing stands yet.
                kind: EventKind::WalletCredit.code(),
                reserved: 0,
                payload: &self.payload,
            });
        }
        let datagram = self.builder.finish(&Envelope {
            mode: self.plan.mode,
            session: link.session,
            sequence,
            domain: place.domain,
            cookie: link.cookie,
        });
        let slot = self.entries.len();
        self.batch.slot_mut(slot)[..datagram.len()].copy_from_slice(datagram);
        self.entries.push((slot as u32, datagram.len() as u32));
        // Before it leaves: its answer may be there before the call returns.
        link.flights.put(sequence, times);
        turn.made += 1;
        link.sent.fetch_add(1, Ordering::Relaxed);
        let late_ns = times.sent_ns - times.intended_ns;
        self.sent.behind.datagrams_late += u64::from(late_ns > LATE_NS);
        self.sent.behind.late_ns_max = self.sent.behind.late_ns_max.max(late_ns);
    }

    /// Hands the batch to the kernel; what it will not take is a send error,
    /// and the datagram is lost in time.
    fn flush(&mut self, index: usize) {
        let fd = self.turns[index].link.socket.as_fd();
        let sent = send_all(&mut self.batch, fd, &self.entries, Duration::from_nanos(LOST_NS));
        self.sent.port_closed += sent.port_closed;
        self.sent.send_errors += sent.send_errors;
    }

    /// Waits until everything is answered or given up.
    fn gather_answers(&mut self) {
        loop {
            let now_ns = since_ns(self.started);
            self.turns.iter_mut().for_each(|turn| turn.expire(now_ns));
            if self.turns.iter().all(|turn| turn.oldest == turn.next_sequence()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What a receiving thread counted.
#[derive(Debug)]
struct Tally {
    acks: Histogram<u64>,
    acked: u64,
    /// Events by outcome code.
    outcomes: [u64; 128],
    duplicates: u64,
    busy: u64,
    /// Datagrams by refusal code.
    refused: [u64; 256],
    /// Answered, but over a second after the send.
    lost: u64,
    replies: u64,
    replies_late: u64,
    replies_invalid: u64,
    port_closed: u64,
}

struct Receiver<'a> {
    link: &'a Link,
    mode: Mode,
    fill: u16,
    started: Instant,
    tally: Tally,
}

impl<'a> Receiver<'a> {
    fn new(link: &'a Link, mode: Mode, fill: u16, started: Instant) -> Self {
        let tally = Tally {
            acks: histogram(),
            acked: 0,
            outcomes: [0; 128],
            duplicates: 0,
            busy: 0,
            refused: [0; 256],
            lost: 0,
            replies: 0,
            replies_late: 0,
            replies_invalid: 0,
            port_closed: 0,
        };
        Self { link, mode, fill, started, tally }
    }

    /// Takes replies until told to stop and none is left.
    fn run(mut self, stop: &AtomicBool) -> Tally {
        let fd = self.link.socket.as_fd();
        let mut batch = Batch::new(CALL_MAX, PAYLOAD_BYTES_LIMIT, CALL_MAX);
        let slots: Vec<u32> = (0..CALL_MAX as u32).collect();
        let mut received = Vec::with_capacity(CALL_MAX);
        loop {
            received.clear();
            let stopping = stop.load(Ordering::Acquire);
            match batch.receive(fd, &slots, |slot, got| received.push((slot as usize, got.bytes))) {
                Ok(_) => {
                    let now_ns = since_ns(self.started);
                    for (slot, bytes) in &received {
                        let slot = batch.slot(*slot);
                        self.on_datagram(&slot[..(*bytes).min(slot.len())], now_ns);
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.tally.port_closed += 1;
                }
                Err(_) if stopping => return self.tally,
                Err(_) => poll::readable(fd, None, Duration::from_millis(20)),
            }
        }
    }

    fn on_datagram(&mut self, datagram: &[u8], now_ns: u64) {
        self.tally.replies += 1;
        let reply = match codec::read(datagram) {
            Ok((header, reply)) if header.session == self.link.session => (header.sequence, reply),
            _ => {
                self.tally.replies_invalid += 1;
                return;
            }
        };
        match reply {
            (_, Reply::Ack(entries)) => entries.for_each(|entry| self.on_ack(&entry, now_ns)),
            (sequence, Reply::Busy { retry_after_us }) => {
                // Before the claim, which lets the sender go on.
                let until_ns = now_ns.saturating_add(u64::from(retry_after_us) * 1_000);
                self.link.busy_until_ns.fetch_max(until_ns, Ordering::Relaxed);
                self.tally.busy += u64::from(self.claim(sequence, now_ns).is_some());
            }
            (sequence, Reply::Refused { reason, .. }) => {
                let claimed = self.claim(sequence, now_ns).is_some();
                self.tally.refused[usize::from(reason)] += u64::from(claimed);
            }
            // A second welcome, from a hello that was sent twice.
            (_, Reply::Welcome(_)) => self.tally.replies_late += 1,
            (_, Reply::Pong(_) | Reply::Answer(_)) => self.tally.replies_invalid += 1,
        }
    }

    fn on_ack(&mut self, entry: &AckEntry<'_>, now_ns: u64) {
        if entry.outcomes.len() != usize::from(self.fill) || entry.mode != self.mode {
            self.tally.replies_invalid += 1;
            return;
        }
        let Some(times) = self.claim(entry.sequence, now_ns) else { return };
        self.tally.acked += 1;
        self.tally.acks.saturating_record(now_ns.saturating_sub(times.intended_ns).max(1));
        for byte in entry.outcomes {
            self.tally.outcomes[usize::from(byte & !DUPLICATE_BIT)] += 1;
            self.tally.duplicates += u64::from(byte & DUPLICATE_BIT != 0);
        }
    }

    /// Takes a datagram as answered; `None` when it was so already, or is now
    /// too late to be.
    fn claim(&mut self, sequence: u64, now_ns: u64) -> Option<Times> {
        let Some(times) = self.link.flights.claim(sequence) else {
            self.tally.replies_late += 1;
            return None;
        };
        self.link.answered.fetch_add(1, Ordering::Release);
        if now_ns.saturating_sub(times.sent_ns) > LOST_NS {
            self.tally.lost += 1;
            self.tally.replies_late += 1;
            return None;
        }
        Some(times)
    }
}

fn total(
    plan: &Plan,
    addr: std::net::SocketAddr,
    fill: u16,
    links: &[Link],
    sent: &Sent,
    tallies: &[Tally],
) -> Report {
    let events = |datagrams: u64| datagrams * u64::from(fill);
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    let datagrams_sent = links.iter().map(|l| l.sent.load(Ordering::Relaxed)).sum::<u64>();
    let mut acks = histogram();
    for tally in tallies {
        // Of the same bounds, so it never fails to add.
        let _ = acks.add(&tally.acks);
    }
    let label = |known: Option<&'static str>, code: usize| {
        known.map_or_else(|| format!("code {code}"), str::to_owned)
    };
    let outcomes = (0..128).filter_map(|code| {
        let count: u64 = tallies.iter().map(|tally| tally.outcomes[code]).sum();
        let known = Outcome::from_code(code as u8).map(Outcome::label);
        (count > 0).then(|| (label(known, code), count))
    });
    let refusals = (0..256).filter_map(|code| {
        let count: u64 = tallies.iter().map(|tally| tally.refused[code]).sum();
        let known = Refusal::from_code(code as u8).map(Refusal::label);
        (count > 0).then(|| (label(known, code), events(count)))
    });
    let events_acked = events(sum(|tally| tally.acked));
    let refused = sum(|tally| tally.refused.iter().sum());
    Report {
        addr,
        mode: plan.mode.name(),
        fill,
        connections: plan.connections,
        seconds: sent.seconds,
        events_intended: events(sent.intended.unwrap_or(datagrams_sent)),
        events_sent: events(datagrams_sent),
        events_acked,
        events_busy: events(sum(|tally| tally.busy)),
        events_refused: events(refused),
        events_lost: events(sent.lost + sum(|tally| tally.lost)),
        outcomes: outcomes.collect(),
        duplicates: sum(|tally| tally.duplicates),
        refusals: refusals.collect(),
        datagrams_sent,
        replies: sum(|tally| tally.replies),
        replies_late: sum(|tally| tally.replies_late),
        replies_invalid: sum(|tally| tally.replies_invalid),
        send_errors: sent.send_errors,
        port_closed: sent.port_closed + sum(|tally| tally.port_closed),
        events_per_s: events_acked as f64 / sent.seconds,
        datagrams_per_s: datagrams_sent as f64 / sent.seconds,
        ack_ns: Percentiles::of(&acks),
        behind: sent.behind,
        histogram: acks,
    }
}
