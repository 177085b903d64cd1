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
mod open_acks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::wire::{
    self, AckEntry, Event, HELLO_BODY_BYTES, Header, Kind, Mode, PING_BODY_BYTES, Pong, Request,
    SHORT_BODY_BYTES, VERSION, Welcome,
};
use veltrix_abi::{Action, Exit, Outcome, Refusal};

pub use admission::Admission;
use open_acks::OpenAcks;

use crate::base::clock::unix_ns;
use crate::base::counters::LaneCounters;
use crate::base::port::Port;

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
    fn welcome(&self) -> Welcome {
        Welcome {
            log_time_ns: unix_ns(),
            epoch: 0,
            partitions: self.partitions,
            lanes: self.lanes,
            port_first: self.port,
            port_last: self.port,
            modes: Welcome::mode_bit(Mode::None),
            version_min: VERSION,
            version_max: VERSION,
            role: 1,
            payload_bytes_max: self.payload_bytes_max,
            events_max: veltrix_abi::limits::events_max(usize::from(self.payload_bytes_max)) as u16,
            cookie: 0,
            cluster_id: 0,
        }
    }
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
}

/// What the turn under way has counted of the common case: four additions a
/// turn instead of four a frame.
#[derive(Default)]
struct Accepted {
    payload_bytes: u64,
    datagrams: u64,
    events: u64,
    malformed: u64,
}

impl Accepted {
    fn count(self, counters: &LaneCounters) {
        counters.payload_bytes.add(self.payload_bytes);
        counters.exits_of(Exit::Accepted, self.datagrams);
        counters.events.add(self.events);
        counters.outcome(Outcome::Accepted, self.events - self.malformed);
        counters.outcome(Outcome::Malformed, self.malformed);
    }
}

/// Outcome bytes of the datagram at hand.
struct Outcomes {
    bytes: [u8; EVENTS_LIMIT],
    count: u16,
    malformed: u16,
}

impl Outcomes {
    const NONE: Self = Self { bytes: [0; EVENTS_LIMIT], count: 0, malformed: 0 };

    #[inline(always)]
    fn clear(&mut self) {
        self.count = 0;
        self.malformed = 0;
    }

    #[inline(always)]
    fn judge(&mut self, event: &Event<'_>) {
        let outcome = if event.is_well_formed() { Outcome::Accepted } else { Outcome::Malformed };
        // No datagram that can be received holds more.
        if let Some(byte) = self.bytes.get_mut(usize::from(self.count)) {
            *byte = outcome.code();
            self.count += 1;
            self.malformed += u16::from(outcome == Outcome::Malformed);
        }
    }

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.count)]
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
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> &P {
        &self.port
    }

    /// Serves until `stop` is set, then until the port is empty or 50 ms have
    /// passed.
    pub fn run(&mut self, stop: &AtomicBool) {
        let mut empty_polls = 0;
        while !stop.load(Relaxed) {
            if self.turn() > 0 {
                empty_polls = 0;
            } else if empty_polls < EMPTY_POLLS_MAX {
                empty_polls += 1;
                std::hint::spin_loop();
            } else {
                self.admission.idle();
                self.port.wait(IDLE_SLEEP);
            }
        }
        let stopped = Instant::now();
        while self.turn() > 0 && stopped.elapsed() < DRAIN_MAX {}
    }

    /// Takes and serves one batch; gives the frames taken.
    #[inline]
    pub fn turn(&mut self) -> usize {
        let taken = self.port.receive(self.batch);
        if taken > 0 {
            self.received = Instant::now();
            let overloaded =
                self.admission.is_overloaded(self.received, taken, self.port.waiting());
            self.counters.turns.add(1);
            self.counters.frames.add(taken as u64);
            while let Some(frame) = self.port.take() {
                match frame {
                    Ok(packet) => self.serve(packet, overloaded),
                    Err(exit) => self.counters.exit(exit),
                }
            }
            self.open_acks.close_all(&mut self.port);
            std::mem::take(&mut self.accepted).count(&self.counters);
            self.port.flush();
            self.counters.turns_ended.add(1);
        } else {
            self.port.flush();
        }
        taken
    }

    #[inline]
    fn serve(&mut self, mut packet: P::Packet, overloaded: bool) {
        let payload = self.port.payload(&packet);
        let request_bytes = payload.len();
        self.accepted.payload_bytes += request_bytes as u64;
        let outcomes = &mut self.outcomes;
        outcomes.clear();
        let decoded =
            wire::decode_visiting(payload, crc_fast::crc32_iscsi, |event| outcomes.judge(event))
                .map(|(header, request)| (header, Wanted::of(&request)));
        let (header, wanted) = match decoded {
            Ok((header, Wanted::Ack)) if !overloaded => {
                self.accept(packet, &header);
                return;
            }
            Ok(other) => other,
            Err(exit) => {
                let reply_bytes = self.refuse(&mut packet, request_bytes, exit);
                self.finish(packet, reply_bytes);
                return;
            }
        };
        let reply_bytes = self.answer(&mut packet, &header, request_bytes, wanted);
        self.finish(packet, reply_bytes);
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
        let outcomes = self.outcomes.bytes();
        self.open_acks.add(&mut self.port, &self.counters, packet, header, outcomes);
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
            Wanted::Ack => {
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
                let welcome = self.facts.welcome();
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
    Ack,
    Pong { client_sent_ns: u64 },
    Welcome,
    Refusal(Exit),
}

impl Wanted {
    #[inline(always)]
    fn of(request: &Request<'_>) -> Self {
        match *request {
            Request::Events(Mode::None, _) => Self::Ack,
            Request::Events(Mode::Durable, _) => Self::Refusal(Exit::DurableUnavailable),
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
mod tests;
#[cfg(test)]
mod xsk_tests;
