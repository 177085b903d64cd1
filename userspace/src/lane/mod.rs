//! A lane: takes datagrams from its port, decodes, accepts or sheds, replies.
//!
//! ```text
//!   port.receive -> [ packet ] -> decode -> exit counted -+-> recycled
//!                                                         +-> reply written in place -> port.send
//!                                            acks of one sender share a datagram (open_acks)
//! ```
//!
//! A lane owns its port and every packet in it. One turn takes one batch,
//! serves it to the end and flushes, so no packet outlives its turn. After
//! construction a turn allocates nothing, locks nothing, formats nothing and
//! awaits nothing; `userspace/tests/lane_allocations.rs` holds it to that.

mod admission;
mod effects;
mod ingest;
pub mod link;
mod open_acks;
mod outcomes;
mod owner;
mod parked;
mod readers;
pub mod reads;
pub mod samples;
pub mod stages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::wire::{
    self, AckEntry, HELLO_BODY_BYTES, Header, Kind, Mode, PING_BODY_BYTES, Pong, Request,
    SHORT_BODY_BYTES, VERSION, Welcome,
};
use veltrix_abi::{Action, Exit, Outcome, Refusal};

pub use admission::Admission;
pub use ingest::BYTES_OF_SENDERS;
use ingest::{Incoming, Ingest};
use link::{LaneEnds, LaneLink, LogFacts};
use open_acks::{Answer, OpenAcks, Sender};
use outcomes::{Outcomes, count_outcomes};
use owner::Owner;
use readers::Readers;
use reads::{LaneReads, ReadJob};
use stages::{Stage, StageTimes};

use crate::apply::{Partition, PartitionImage};
use crate::base::clock::{monotonic_ns, unix_ns};
use crate::base::counters::LaneCounters;
use crate::base::port::Port;
use crate::snapshot::LaneImages;

/// Longest sleep of an idle lane: bounds how late it sees the stop flag.
const IDLE_SLEEP: Duration = Duration::from_millis(20);

/// Empty polls before an idle lane sleeps: a burst's next packet is often a
/// few hundred nanoseconds away, a sleep and wake-up cost microseconds.
const EMPTY_POLLS_MAX: u32 = 32;

/// Longest a stopped lane goes on serving what its port holds. A full ring of
/// 4,096 frames takes it a few milliseconds; under a flood its port is never
/// empty.
const DRAIN_MAX: Duration = Duration::from_millis(50);

/// What a hello is answered with; the log time is added when it is sent.
#[derive(Clone, Copy, Debug)]
pub struct ServerFacts {
    /// Partitions the domain keys hash to.
    pub partitions: u16,
    /// Lanes that receive.
    pub lanes: u16,
    /// UDP port served.
    pub port: u16,
    /// Largest UDP payload accepted, bytes.
    pub payload_bytes_max: u16,
}

impl ServerFacts {
    fn welcome(&self, log: Option<&LogFacts>) -> Welcome {
        let modes =
            Welcome::mode_bit(Mode::None) | log.map_or(0, |_| Welcome::mode_bit(Mode::Durable));
        Welcome {
            log_time_ns: log.map_or_else(unix_ns, LogFacts::log_time_ns),
            epoch: log.map_or(0, |log| log.applied_epoch.load(Relaxed)),
            partitions: self.partitions,
            lanes: self.lanes,
            port_first: self.port,
            port_last: self.port,
            modes,
            version_min: VERSION,
            version_max: VERSION,
            role: 1,
            payload_bytes_max: self.payload_bytes_max,
            events_max: veltrix_abi::limits::events_max(usize::from(self.payload_bytes_max)) as u16,
            cookie: 0,
            cluster_id: log.map_or(0, |log| log.cluster_id.load(Relaxed)),
            features: log.map_or(0, |_| Welcome::FEATURE_QUERIES),
        }
    }
}

/// What makes a lane one with a log.
pub struct LogHalfSpec {
    /// Number of the lane, an index into `lanes`.
    pub lane: u32,
    /// Random for each process: names its batches apart from those of others.
    pub life: u64,
    /// Partitions of the cluster.
    pub partitions: u16,
    /// Batches that may be in flight.
    pub batches: usize,
    /// Age of the oldest batch in flight at which new events are refused.
    pub deadline: Duration,
    /// Its ends of the rings.
    pub ends: LaneEnds,
    /// Facts of the log.
    pub facts: Arc<LogFacts>,
    /// All lanes that seal, by number.
    pub lanes: Arc<[Arc<LaneLink>]>,
    /// State it owns, by partition number; as many places as partitions.
    pub owned: Vec<Option<Box<Partition>>>,
    /// What it captures into; `None` for a lane that will never own any.
    pub images: Option<LaneImages<PartitionImage>>,
    /// Epoch that the state it owns begins at.
    pub epoch: u64,
    /// Its part in reads.
    pub reads: LaneReads,
}

/// The part of a lane that a log adds.
struct LogHalf<P: Port> {
    ingest: Ingest<P>,
    owner: Owner,
    times: Box<StageTimes>,
    readers: Readers<P>,
    facts: Arc<LogFacts>,
    link: Arc<LaneLink>,
    /// When the lane last looked into its ring; 0 after a sleep.
    looked_ns: u64,
    /// When the turn under way took its frames.
    received_ns: u64,
    /// The turn under way has answered queries.
    has_told: bool,
}

impl<P: Port> LogHalf<P> {
    fn new(spec: LogHalfSpec) -> Self {
        let LaneEnds { link, submissions, commands, reports, samples } = spec.ends;
        Self {
            ingest: Ingest::new(
                spec.lane,
                spec.life,
                spec.partitions,
                spec.batches,
                spec.deadline,
                submissions,
                Arc::clone(&link),
            ),
            owner: Owner::new(
                spec.owned,
                spec.images,
                spec.epoch,
                Arc::clone(&spec.lanes),
                Arc::clone(&link),
                (commands, reports),
                samples,
            ),
            readers: Readers::new(spec.reads, spec.partitions, spec.lanes),
            times: Box::default(),
            facts: spec.facts,
            link,
            looked_ns: 0,
            received_ns: 0,
            has_told: false,
        }
    }

    /// Whether events may join a batch now.
    #[inline]
    fn accepts(&self) -> bool {
        self.facts.ready.load(Relaxed) && self.ingest.keeps_up(self.received_ns)
    }

    /// Whether the state may be read.
    fn is_replayed(&self) -> bool {
        self.facts.replayed.load(Relaxed)
    }

    /// A turn has taken so many frames.
    #[inline]
    fn begin_turn(&mut self, taken: usize) {
        let now_ns = monotonic_ns();
        if self.looked_ns > 0 {
            self.times.record(Stage::Rx, now_ns - self.looked_ns, taken as u64);
        }
        self.looked_ns = now_ns;
        self.received_ns = now_ns;
    }

    /// Nothing is left to do but to wait for packets or for the log.
    fn is_idle(&self) -> bool {
        let can_send = self.owner.has_unsent && self.ingest.has_room();
        let can_send = can_send && self.facts.ready.load(Relaxed);
        let has_answers = self.ingest.has_answers() || self.ingest.has_settled();
        !self.owner.has_work() && !has_answers && !self.readers.has_work() && !can_send
    }
}

/// Bytes a lane with a log reserves for each batch in flight.
#[must_use]
pub const fn bytes_of_batch<P: Port>() -> usize {
    Ingest::<P>::bytes_of_batch()
}

/// Bytes a lane with a log reserves for datagrams that wait for another region.
#[must_use]
pub const fn bytes_of_waiting<P: Port>() -> usize {
    parked::Waiting::<P::Path>::bytes()
}

/// See the module.
pub struct Lane<P: Port> {
    port: P,
    counters: Arc<LaneCounters>,
    facts: ServerFacts,
    admission: Admission,
    batch: usize,
    open_acks: OpenAcks<P::Packet>,
    outcomes: Outcomes,
    /// When the turn under way took its frames.
    received: Instant,
    accepted: Accepted,
    log: Option<LogHalf<P>>,
}

/// What the turn under way has counted of the common case: four additions a
/// turn instead of four a frame.
#[derive(Default)]
struct Accepted {
    payload_bytes: u64,
    datagrams: u64,
    events: u64,
    malformed: u64,
    /// Events whose outcome the log decides.
    deferred_events: u64,
}

impl Accepted {
    fn count(self, counters: &LaneCounters) {
        counters.payload_bytes.add(self.payload_bytes);
        counters.exits_of(Exit::Accepted, self.datagrams);
        counters.events.add(self.events + self.deferred_events);
        counters.outcome(Outcome::Accepted, self.events - self.malformed);
        counters.outcome(Outcome::Malformed, self.malformed);
    }
}

/// Most events the largest datagram that can be configured holds.
const EVENTS_LIMIT: usize =
    veltrix_abi::limits::events_max(veltrix_abi::limits::PAYLOAD_BYTES_LIMIT);

impl<P: Port> Lane<P> {
    /// A lane on `port`, taking at most `batch` frames a turn.
    #[must_use]
    pub fn new(
        port: P,
        facts: ServerFacts,
        admission: Admission,
        batch: usize,
        counters: Arc<LaneCounters>,
    ) -> Self {
        Self {
            port,
            counters,
            facts,
            admission,
            batch,
            open_acks: OpenAcks::new(usize::from(facts.payload_bytes_max)),
            outcomes: Outcomes::NONE,
            received: Instant::now(),
            accepted: Accepted::default(),
            log: None,
        }
    }

    /// The lane with a log: it takes events of mode `durable`, and owns state.
    #[must_use]
    pub fn with_log(self, spec: LogHalfSpec) -> Self {
        Self { log: Some(LogHalf::new(spec)), ..self }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> &P {
        &self.port
    }

    /// Serves until `stop` is set, then until the port is empty or 50 ms have
    /// passed. Answers that wait for the log are given up then.
    pub fn run(&mut self, stop: &AtomicBool) {
        let mut empty_polls = 0;
        while !stop.load(Relaxed) {
            if self.turn() > 0 {
                empty_polls = 0;
            } else if empty_polls < EMPTY_POLLS_MAX {
                empty_polls += 1;
                std::hint::spin_loop();
            } else {
                self.sleep();
            }
        }
        let stopped = Instant::now();
        while self.turn() > 0 && stopped.elapsed() < DRAIN_MAX {}
    }

    /// Sleeps until there may be something to do.
    fn sleep(&mut self) {
        self.admission.idle();
        let Some(log) = &mut self.log else {
            self.port.wait(IDLE_SLEEP, None);
            return;
        };
        log.looked_ns = 0;
        log.link.waker.about_to_sleep();
        if log.is_idle() {
            let due = log.ingest.seal_due_in(monotonic_ns());
            let timeout = due.map_or(IDLE_SLEEP, |due| due.min(IDLE_SLEEP));
            self.port.wait(timeout, Some(log.link.waker.fd()));
        }
        log.link.waker.awake();
    }

    /// Takes and serves one batch of frames, then does what the log asks for, for about
    /// as long; gives frames taken, entries gone on with and batches answered together.
    #[inline]
    pub fn turn(&mut self) -> usize {
        let taken = self.port.receive(self.batch);
        if taken == 0 && self.log.is_none() {
            self.port.flush();
            return 0;
        }
        // Counted before any other counter moves.
        let moves = taken > 0 || self.log.as_ref().is_some_and(|log| !log.is_idle());
        if moves {
            self.counters.turns.add(1);
        }
        if taken > 0 {
            self.serve_frames(taken);
        }
        let done = self.turn_of_log(taken);
        self.open_acks.close_all(&mut self.port);
        std::mem::take(&mut self.accepted).count(&self.counters);
        self.port.flush();
        if moves {
            self.counters.turns_ended.add(1);
        }
        taken + done
    }

    #[inline]
    fn serve_frames(&mut self, taken: usize) {
        self.received = Instant::now();
        let is_late = self.admission.is_overloaded(self.received, taken, self.port.waiting());
        let mut overloaded = is_late;
        if let Some(log) = &mut self.log {
            log.begin_turn(taken);
            overloaded |= !log.accepts();
        }
        self.counters.frames.add(taken as u64);
        while let Some(frame) = self.port.take() {
            match frame {
                Ok(packet) => self.serve(packet, overloaded, is_late),
                Err(exit) => self.counters.exit(exit),
            }
        }
    }

    /// Seals what is due, applies what has committed, answers what is applied.
    #[inline]
    fn turn_of_log(&mut self, taken: usize) -> usize {
        let Some(log) = &mut self.log else { return 0 };
        if std::mem::take(&mut log.has_told) && log.owner.has_work() {
            self.port.send_now();
        }
        let now_ns = monotonic_ns();
        let mut frames_ns = 0;
        if taken > 0 {
            frames_ns = now_ns - log.received_ns;
            log.times.record(Stage::Decoded, frames_ns, taken as u64);
        } else {
            log.looked_ns = now_ns;
        }
        log.ingest.end_of_turn(taken < self.batch, now_ns);
        let applied = log.owner.turn(now_ns, frames_ns);
        let read = log.readers.turn(&mut self.port, &self.counters, &log.owner, &log.link);
        let answered = log.ingest.acknowledge(
            &mut self.port,
            &mut self.open_acks,
            &self.counters,
            &mut log.times,
        );
        let settled = log.ingest.answer_settled(
            &mut self.port,
            &mut self.open_acks,
            &self.counters,
            &mut log.times,
        );
        // Only who leads sends.
        let ready = log.facts.ready.load(Relaxed);
        let sent = if ready { log.owner.send_effects(&mut log.ingest, now_ns) } else { 0 };
        if answered + sent > 0 {
            // Nothing may be in flight any more.
            log.ingest.end_of_turn(taken < self.batch, monotonic_ns());
        }
        log.owner.exchange_times(&mut log.times);
        let (pending, events) = log.ingest.owed();
        self.counters.acks.pending.set(pending + log.readers.owed());
        self.counters.acks.events_pending.set(events);
        applied + answered + read + sent + settled
    }

    #[inline]
    fn serve(&mut self, mut packet: P::Packet, overloaded: bool, is_late: bool) {
        let payload = self.port.payload(&packet);
        let request_bytes = payload.len();
        self.accepted.payload_bytes += request_bytes as u64;
        let outcomes = &mut self.outcomes;
        outcomes.clear();
        let decoded =
            wire::decode_visiting(payload, crc_fast::crc32_iscsi, |event| outcomes.judge(event));
        let (header, wanted) = match decoded {
            Ok((header, Request::Events(mode, events))) if !overloaded => {
                let joined = match &mut self.log {
                    None => mode == Mode::None,
                    Some(log) => {
                        let body = events.as_bytes();
                        let incoming =
                            Incoming { header: &header, body, events: outcomes.count, mode };
                        log.ingest.append(&self.port, &packet, &incoming, log.received_ns)
                    }
                };
                match (joined, mode) {
                    (true, Mode::None) => return self.accept(packet, &header),
                    (true, Mode::Durable) => return self.defer(packet),
                    (false, _) => {
                        (header, Wanted::of(&Request::Events(mode, events), self.log.is_some()))
                    }
                }
            }
            Ok((header, Request::Query(queries))) if self.log.is_some() => {
                let log = self.log.as_mut().filter(|log| !is_late && log.is_replayed());
                let job = log.and_then(|log| log.readers.take(&header, &queries));
                return self.read(packet, &header, request_bytes, job);
            }
            Ok((header, request)) => (header, Wanted::of(&request, self.log.is_some())),
            Err(exit) => {
                let reply_bytes = self.refuse(&mut packet, request_bytes, exit);
                self.finish(packet, reply_bytes);
                return;
            }
        };
        let reply_bytes = self.answer(&mut packet, &header, request_bytes, wanted);
        self.finish(packet, reply_bytes);
    }

    /// Answers the queries of a job; says `busy` without one.
    fn read(
        &mut self,
        mut packet: P::Packet,
        header: &Header,
        request_bytes: usize,
        job: Option<Box<ReadJob>>,
    ) {
        if let (Some(log), Some(job)) = (&mut self.log, job) {
            match log.readers.read(&mut self.port, packet, header, job, &log.owner) {
                Ok(()) => {
                    log.has_told = true;
                    return self.counters.exit(Exit::Query);
                }
                Err(back) => packet = back,
            }
        }
        let reply_bytes = self.answer(&mut packet, header, request_bytes, Wanted::Busy);
        self.finish(packet, reply_bytes);
    }

    /// Counts the events at hand, whose outcomes the log decides.
    #[inline]
    fn defer(&mut self, packet: P::Packet) {
        self.accepted.datagrams += 1;
        self.accepted.deferred_events += u64::from(self.outcomes.count);
        self.port.recycle(packet);
    }

    /// Sends the first bytes of the packet's buffer, if any.
    #[inline]
    fn finish(&mut self, packet: P::Packet, reply_bytes: Option<usize>) {
        match reply_bytes {
            Some(bytes) => self.port.send(packet, bytes),
            None => self.port.recycle(packet),
        }
    }

    /// Counts the events at hand and acknowledges them.
    #[inline]
    fn accept(&mut self, packet: P::Packet, header: &Header) {
        self.accepted.datagrams += 1;
        self.accepted.events += u64::from(self.outcomes.count);
        self.accepted.malformed += u64::from(self.outcomes.malformed);
        let answer = Answer {
            session: header.session,
            sequence: header.sequence,
            domain: header.domain,
            epoch: 0,
            mode: Mode::None,
            outcomes: self.outcomes.bytes(),
            first_epochs: &[],
        };
        self.open_acks.add(&mut self.port, &self.counters, Sender::Packet(packet), &answer);
    }

    /// Bytes of the reply, which stands in the packet's buffer.
    #[inline]
    fn answer(
        &mut self,
        packet: &mut P::Packet,
        header: &Header,
        request_bytes: usize,
        wanted: Wanted,
    ) -> Option<usize> {
        match wanted {
            Wanted::Busy => {
                let events = u64::from(self.outcomes.count);
                self.counters.exit(Exit::Shed);
                self.counters.events.add(events);
                self.counters.outcome(Outcome::Overloaded, events);
                let retry_after_us = self.admission.retry_after_us();
                self.reply(packet, request_bytes, header, Kind::Busy, |body: &mut [u8; 8]| {
                    *body = [0; 8];
                    body[..4].copy_from_slice(&retry_after_us.to_le_bytes());
                })
            }
            Wanted::Pong { client_sent_ns } => {
                self.counters.exit(Exit::Ping);
                let waited_ns = self.received.elapsed().as_nanos() as u64;
                self.reply(packet, request_bytes, header, Kind::Pong, |body| {
                    let server_sent_ns = unix_ns();
                    let server_received_ns = server_sent_ns.saturating_sub(waited_ns);
                    Pong { client_sent_ns, server_received_ns, server_sent_ns }.write(body);
                })
            }
            Wanted::Welcome => {
                self.counters.exit(Exit::Hello);
                let log = self.log.as_ref().map(|log| &*log.facts);
                let welcome = self.facts.welcome(log);
                self.reply(packet, request_bytes, header, Kind::Welcome, |body| {
                    welcome.write(body);
                })
            }
            Wanted::Refusal(exit) => self.refuse(packet, request_bytes, exit),
        }
    }

    /// Counts the exit; tells the sender the reason if the exit owes a reply.
    #[cold]
    fn refuse(
        &mut self,
        packet: &mut P::Packet,
        request_bytes: usize,
        exit: Exit,
    ) -> Option<usize> {
        self.counters.exit(exit);
        let reason = match exit {
            Exit::Version => Refusal::Version,
            Exit::Kind => Refusal::Kind,
            Exit::Reserved => Refusal::Reserved,
            Exit::Sealed => Refusal::Sealed,
            Exit::Malformed => Refusal::Malformed,
            Exit::Mode => Refusal::Mode,
            Exit::DurableUnavailable => Refusal::DurableUnavailable,
            Exit::QueryUnavailable => Refusal::QueryUnavailable,
            _ => {
                debug_assert!(exit.action() != Action::Reply, "{exit:?} owes a reply");
                return None;
            }
        };
        let head = self.port.payload(packet).first_chunk::<HEADER_BYTES>()?;
        let header = Header::read(head);
        self.reply(packet, request_bytes, &header, Kind::Refused, |body: &mut [u8; 8]| {
            *body = [reason.code(), VERSION, VERSION, 0, 0, 0, 0, 0];
        })
    }

    /// Writes a reply with a body of `N` bytes over the request, unless it
    /// would be larger than the request.
    #[inline]
    fn reply<const N: usize>(
        &mut self,
        packet: &mut P::Packet,
        request_bytes: usize,
        request: &Header,
        kind: Kind,
        write_body: impl FnOnce(&mut [u8; N]),
    ) -> Option<usize> {
        let bytes = HEADER_BYTES + N;
        if bytes > request_bytes {
            self.counters.replies.withheld.add(1);
            return None;
        }
        let out = &mut self.port.buffer(packet)[..bytes];
        echo(request, kind).write(out);
        if let Some(body) = out[HEADER_BYTES..].first_chunk_mut::<N>() {
            write_body(body);
        }
        wire::finish(out, crc_fast::crc32_iscsi);
        Some(bytes)
    }
}

/// Header of a reply: what the client needs to match it.
fn echo(request: &Header, kind: Kind) -> Header {
    Header {
        session: request.session,
        sequence: request.sequence,
        domain: request.domain,
        ..Header::new(kind)
    }
}

/// What a request asks for, detached from its bytes, which the reply overwrites.
enum Wanted {
    /// Events that are shed.
    Busy,
    Pong {
        client_sent_ns: u64,
    },
    Welcome,
    Refusal(Exit),
}

impl Wanted {
    #[inline(always)]
    fn of(request: &Request<'_>, has_log: bool) -> Self {
        match *request {
            Request::Events(Mode::Durable, _) if !has_log => {
                Self::Refusal(Exit::DurableUnavailable)
            }
            Request::Events(..) => Self::Busy,
            Request::Ping(client_sent_ns) => Self::Pong { client_sent_ns },
            Request::Hello => Self::Welcome,
            Request::Query(_) => Self::Refusal(Exit::QueryUnavailable),
        }
    }
}

const _: () = assert!(HELLO_BODY_BYTES == 64 && PING_BODY_BYTES == 24 && SHORT_BODY_BYTES == 8);
// An ack entry with every event of the largest datagram fits the request.
const _: () = assert!(
    HEADER_BYTES + AckEntry::wire_bytes(EVENTS_LIMIT, 0)
        <= HEADER_BYTES + EVENTS_LIMIT * veltrix_abi::limits::EVENT_FIXED_BYTES
);

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod read_tests;
#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod xsk_tests;
