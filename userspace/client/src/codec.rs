//! Datagrams without sockets, clocks or tasks: a builder over one reusable
//! buffer, readers for what a server answers, idempotency keys.
//!
//! ```text
//!  KeySource ── key ──> Event ── push ──> DatagramBuilder ── finish ──> bytes to send
//!  Wanted ── query ── restamp ──> bytes to send
//!  bytes received ── read ──> (Header, Reply)
//! ```
//!
//! Who owns what: a builder owns its buffer and allocates once, in `new`; a
//! reply borrows the bytes it was read from. The client and `veltrix load`
//! both stand on this module. `userspace/docs/WIRE.md` is the format.

use uuid::{Builder, Uuid};
use veltrix_abi::limits::{EVENT_FIXED_BYTES, EVENT_PAYLOAD_BYTES_MAX, HEADER_BYTES};
use veltrix_abi::query::{QUERY_BYTES, QUERY_HEAD_BYTES, Queries, Query, Wanted};
use veltrix_abi::wire::{
    self, Event, HELLO_BODY_BYTES, Header, Kind, Mode, PING_BODY_BYTES, Reply, ReplyError,
};

/// What the header of an event datagram carries besides what the builder knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Ack mode asked for.
    pub mode: Mode,
    /// The client's 64 random bits.
    pub session: u64,
    /// Number of this datagram; never used twice in a session.
    pub sequence: u64,
    /// Consistency domain of every event in it.
    pub domain: u64,
    /// Cookie of the last welcome; 0 when it named none.
    pub cookie: u64,
}

/// Builds event datagrams in one buffer that is allocated once.
#[derive(Debug)]
pub struct DatagramBuilder {
    bytes: Vec<u8>,
    filled: usize,
    count: u16,
    events_max: u16,
}

impl DatagramBuilder {
    /// A builder of datagrams of at most `payload_bytes_max` bytes and
    /// `events_max` events, as the server's welcome names them.
    ///
    /// A size that cannot hold one event without payload builds nothing:
    /// every [`push`](Self::push) answers `false`.
    #[must_use]
    pub fn new(payload_bytes_max: usize, events_max: u16) -> Self {
        let bytes = vec![0; payload_bytes_max.max(HEADER_BYTES)];
        Self { bytes, filled: HEADER_BYTES, count: 0, events_max }
    }

    /// Forgets the events pushed so far.
    pub fn clear(&mut self) {
        self.filled = HEADER_BYTES;
        self.count = 0;
    }

    /// Events pushed since the last [`clear`](Self::clear).
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Whether an event with `payload_bytes` of payload still fits.
    #[must_use]
    pub const fn fits(&self, payload_bytes: usize) -> bool {
        let event_bytes = EVENT_FIXED_BYTES + payload_bytes.next_multiple_of(8);
        payload_bytes <= EVENT_PAYLOAD_BYTES_MAX
            && self.count < self.events_max
            && self.filled + event_bytes <= self.bytes.len()
    }

    /// Appends an event; `false`, and nothing changed, when it does not fit.
    #[must_use]
    pub fn push(&mut self, event: &Event<'_>) -> bool {
        let fits = self.fits(event.payload.len());
        if fits {
            self.filled += event.write(&mut self.bytes[self.filled..]);
            self.count += 1;
        }
        fits
    }

    /// Writes header and CRC; gives the datagram, which stays in the builder
    /// until the next push or clear.
    pub fn finish(&mut self, envelope: &Envelope) -> &[u8] {
        let header = Header {
            mode: envelope.mode as u8,
            count: self.count,
            session: envelope.session,
            sequence: envelope.sequence,
            domain: envelope.domain,
            cookie: envelope.cookie,
            ..Header::new(Kind::Events)
        };
        let datagram = &mut self.bytes[..self.filled];
        header.write(datagram);
        wire::finish(datagram, crc_fast::crc32_iscsi);
        datagram
    }
}

/// Gives a finished datagram another sequence and cookie, and the CRC that
/// belongs to them: how a try becomes the next one. Bytes shorter than a
/// header are left as they are.
pub fn restamp(datagram: &mut [u8], sequence: u64, cookie: u64) {
    let Some(head) = datagram.first_chunk::<HEADER_BYTES>() else {
        return;
    };
    Header { sequence, cookie, ..Header::read(head) }.write(datagram);
    wire::finish(datagram, crc_fast::crc32_iscsi);
}

/// The datagram that carries only those events of `datagram` whose index
/// `keep` accepts, header fields as they were. `None` when it keeps none or
/// `datagram` is not a sound event datagram.
pub(crate) fn subset(datagram: &[u8], mut keep: impl FnMut(usize) -> bool) -> Option<Vec<u8>> {
    let (header, wire::Request::Events(mode, events)) =
        wire::decode(datagram, crc_fast::crc32_iscsi).ok()?
    else {
        return None;
    };
    let mut builder = DatagramBuilder::new(datagram.len(), header.count);
    for (index, event) in events.enumerate() {
        if keep(index) && !builder.push(&event) {
            return None;
        }
    }
    let Header { session, sequence, domain, cookie, .. } = header;
    let envelope = Envelope { mode, session, sequence, domain, cookie };
    (builder.count() > 0).then(|| builder.finish(&envelope).to_vec())
}

/// A ping; `sent_ns` comes back in the pong and may be of any clock.
#[must_use]
pub fn ping(session: u64, sequence: u64, sent_ns: u64) -> [u8; HEADER_BYTES + PING_BODY_BYTES] {
    let mut datagram = [0; HEADER_BYTES + PING_BODY_BYTES];
    Header { session, sequence, ..Header::new(Kind::Ping) }.write(&mut datagram);
    datagram[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&sent_ns.to_le_bytes());
    wire::finish(&mut datagram, crc_fast::crc32_iscsi);
    datagram
}

/// A hello, padded to the size of the welcome that answers it.
#[must_use]
pub fn hello(session: u64, sequence: u64) -> [u8; HEADER_BYTES + HELLO_BODY_BYTES] {
    let mut datagram = [0; HEADER_BYTES + HELLO_BODY_BYTES];
    Header { session, sequence, ..Header::new(Kind::Hello) }.write(&mut datagram);
    wire::finish(&mut datagram, crc_fast::crc32_iscsi);
    datagram
}

/// Queries of one hunt in one datagram, each tagged with its place in `wanted`,
/// padded to the size of the largest answer to them, or to `bytes_max` (bytes,
/// rounded down to a multiple of 8) where that is less: no server answers with
/// more than it got. Sequence and cookie are [`restamp`]'s to give.
///
/// `None` when `wanted` is empty or does not fit `bytes_max`.
#[must_use]
pub fn query(
    session: u64,
    domain: u64,
    min_epoch: u64,
    wanted: &[Wanted],
    bytes_max: usize,
) -> Option<Vec<u8>> {
    let head_bytes = HEADER_BYTES + QUERY_HEAD_BYTES;
    let query_bytes = head_bytes + QUERY_BYTES * wanted.len();
    let bytes_max = bytes_max & !7;
    if wanted.is_empty() || query_bytes > bytes_max {
        return None;
    }
    let count = u16::try_from(wanted.len()).ok()?;
    let answer_bytes: usize =
        wanted.iter().map(|wanted| Query::of(wanted).answer_bytes_max()).sum();
    let mut datagram = vec![0; (head_bytes + answer_bytes).clamp(query_bytes, bytes_max)];
    Header { count, session, domain, ..Header::new(Kind::Query) }.write(&mut datagram);
    Queries::write_head(&mut datagram[HEADER_BYTES..], min_epoch);
    for ((wanted, tag), at) in wanted.iter().zip(0..).zip((head_bytes..).step_by(QUERY_BYTES)) {
        Query { tag, ..Query::of(wanted) }.write(&mut datagram[at..]);
    }
    wire::finish(&mut datagram, crc_fast::crc32_iscsi);
    Some(datagram)
}

/// Checks and splits a datagram that came from a server.
///
/// # Errors
///
/// [`ReplyError`]: drop the datagram and count it.
pub fn read(datagram: &[u8]) -> Result<(Header, Reply<'_>), ReplyError> {
    wire::decode_reply(datagram, crc_fast::crc32_iscsi)
}

/// 64 random bits from the operating system: a session id, a seed.
#[must_use]
pub fn random_u64() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Version and variant are the six fixed bits of the 128; folding one half
    // onto the other, rotated, leaves every bit of the result random.
    high ^ low.rotate_left(32)
}

/// A small fast generator for jitter and synthetic load (SplitMix64). Not for
/// secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that `seed` names.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias is under
    /// `bound` / 2^64.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// A number in [0, 1).
    pub const fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Idempotency keys: UUIDv7 of a given time, all different.
///
/// Within a source no key repeats, whatever the clock does: the 64 bits behind
/// the timestamp step through a permutation. Between sources a collision needs
/// the same millisecond and the same 74 of 74 seeded bits.
#[derive(Clone, Debug)]
pub struct KeySource {
    sequence: Random,
    source: u16,
}

impl Default for KeySource {
    fn default() -> Self {
        Self::new()
    }
}

impl KeySource {
    /// A source with seeds from the operating system.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(random_u64(), random_u64())
    }

    /// A source that repeats itself for the same seeds: for tests.
    #[must_use]
    pub const fn seeded(sequence: u64, source: u64) -> Self {
        Self { sequence: Random::new(sequence), source: source as u16 }
    }

    /// A new key stamped with `unix_ns`, nanoseconds since the Unix epoch by
    /// the server's log time.
    pub fn next_key(&mut self, unix_ns: u64) -> [u8; 16] {
        let unique = self.sequence.next_u64();
        let mut random = [0; 10];
        // Bytes 0 and 2 lose bits to version and variant (four and two), so
        // byte 0 and the top of byte 2 hold source bits only, and the two
        // bits that byte 2 would cost the unique part travel in byte 1.
        random[0] = (self.source & 0x0f) as u8;
        random[1] = (((self.source >> 4) & 0x3f) << 2) as u8 | (unique >> 62) as u8;
        random[2..].copy_from_slice(&(unique & (u64::MAX >> 2)).to_be_bytes());
        Builder::from_unix_timestamp_millis(unix_ns / 1_000_000, &random).into_uuid().into_bytes()
    }
}
