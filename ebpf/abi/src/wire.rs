//! Datagram format v1: layout, the one checked decoder, and the writers.
//!
//! `userspace/docs/WIRE.md` is the specification, written to be implemented
//! from alone; this module is its Rust form. All integers are little-endian.
//!
//! ```text
//!  0       4       8    9    10   11    12     14        16       24        32      40      48
//!  | magic | crc32c| ver|kind|mode|flags| count| reserved| session| sequence| domain| cookie| body ...
//!          \__ CRC32C of every byte from 8 on (without the tag of a sealed datagram)
//! ```
//!
//! Magic, CRC, version, the kinds of today, session and sequence keep their
//! places in every version to come, so a node can refuse by name what it does
//! not speak, and never answers an answer.

use crate::exits::Exit;
use crate::limits::{
    ACK_ENTRY_FIXED_BYTES, EVENT_FIXED_BYTES, EVENT_PAYLOAD_BYTES_MAX, HEADER_BYTES, TAG_BYTES,
};
use crate::outcomes::DUPLICATE_BIT;
use crate::query::{Entries, Queries};

/// First four bytes of every datagram.
pub const MAGIC: [u8; 4] = *b"VLTX";

/// The version written and understood here.
pub const VERSION: u8 = 1;

/// First byte that the CRC32C covers: all that follows the CRC itself.
pub const CRC_FROM: usize = 8;

/// Flag: the body is sealed and a 16-byte tag trails it. Reserved until
/// nodes hold keys.
pub const FLAG_SEALED: u8 = 1;

/// Kinds of datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Request: 1..n events of one domain.
    Events = 1,
    /// Reply: outcomes of one or several event datagrams.
    Ack = 2,
    /// Request: latency probe.
    Ping = 3,
    /// Reply to a ping.
    Pong = 4,
    /// Request: read from memory.
    Query = 5,
    /// Reply to a query.
    Answer = 6,
    /// Request: the server's facts.
    Hello = 7,
    /// Reply to a hello.
    Welcome = 8,
    /// Reply: not now; try again after the time it names.
    Busy = 9,
    /// Reply: never; says why.
    Refused = 10,
}

impl Kind {
    /// The kind of a wire code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Events,
            2 => Self::Ack,
            3 => Self::Ping,
            4 => Self::Pong,
            5 => Self::Query,
            6 => Self::Answer,
            7 => Self::Hello,
            8 => Self::Welcome,
            9 => Self::Busy,
            10 => Self::Refused,
            _ => return None,
        })
    }
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Received and counted, before any log.
    None = 1,
    /// Durable on a majority and applied.
    Durable = 2,
}

impl Mode {
    /// The mode of a wire code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::None),
            2 => Some(Self::Durable),
            _ => None,
        }
    }

    /// Word used in flags, docs and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Durable => "durable",
        }
    }
}

/// Body bytes of ping and pong.
pub const PING_BODY_BYTES: usize = 24;
/// Body bytes of hello and welcome.
pub const HELLO_BODY_BYTES: usize = 64;
/// Body bytes of busy and of refused.
pub const SHORT_BODY_BYTES: usize = 8;

#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    match bytes.get(at..).and_then(|b| b.first_chunk::<N>()) {
        Some(chunk) => *chunk,
        None => [0; N],
    }
}

#[inline(always)]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

#[inline(always)]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

#[inline(always)]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[inline(always)]
pub(crate) fn put<const N: usize>(out: &mut [u8], at: usize, value: [u8; N]) {
    out[at..at + N].copy_from_slice(&value);
}

/// The fields of a datagram header, without magic and CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Format version.
    pub version: u8,
    /// Wire code of the kind.
    pub kind: u8,
    /// Wire code of the ack mode; 0 in kinds that have none.
    pub mode: u8,
    /// Flag bits.
    pub flags: u8,
    /// Entries in the body: events, ack entries, queries, answers; 0 in kinds that have none.
    pub count: u16,
    /// Must be zero.
    pub reserved: u16,
    /// 64 random bits of the client, echoed in every reply.
    pub session: u64,
    /// The client's number of this datagram, echoed in its reply.
    pub sequence: u64,
    /// Domain key: the consistency domain all its events belong to.
    pub domain: u64,
    /// Address-validation cookie; 0 when the client has none.
    pub cookie: u64,
}

impl Header {
    /// A header of `kind` in this version, everything else zero.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            version: VERSION,
            kind: kind as u8,
            mode: 0,
            flags: 0,
            count: 0,
            reserved: 0,
            session: 0,
            sequence: 0,
            domain: 0,
            cookie: 0,
        }
    }

    /// The header at the start of `datagram`.
    #[must_use]
    #[inline(always)]
    pub fn read(datagram: &[u8; HEADER_BYTES]) -> Self {
        Self {
            version: datagram[8],
            kind: datagram[9],
            mode: datagram[10],
            flags: datagram[11],
            count: u16_at(datagram, 12),
            reserved: u16_at(datagram, 14),
            session: u64_at(datagram, 16),
            sequence: u64_at(datagram, 24),
            domain: u64_at(datagram, 32),
            cookie: u64_at(datagram, 40),
        }
    }

    /// Writes magic and fields into the first 48 bytes of `out`; the CRC is
    /// left to [`finish`].
    ///
    /// # Panics
    ///
    /// When `out` is shorter than a header: a bug of the caller.
    #[inline]
    pub fn write(&self, out: &mut [u8]) {
        let out = &mut out[..HEADER_BYTES];
        put(out, 0, MAGIC);
        out[8] = self.version;
        out[9] = self.kind;
        out[10] = self.mode;
        out[11] = self.flags;
        put(out, 12, self.count.to_le_bytes());
        put(out, 14, self.reserved.to_le_bytes());
        put(out, 16, self.session.to_le_bytes());
        put(out, 24, self.sequence.to_le_bytes());
        put(out, 32, self.domain.to_le_bytes());
        put(out, 40, self.cookie.to_le_bytes());
    }
}

/// Stores the CRC32C of a finished datagram; `crc32c` is the Castagnoli CRC
/// (reflected, initial and final value all ones), as in iSCSI.
///
/// # Panics
///
/// When `datagram` is shorter than a header: a bug of the caller.
#[inline]
pub fn finish(datagram: &mut [u8], crc32c: impl FnOnce(&[u8]) -> u32) {
    let crc = crc32c(&datagram[CRC_FROM..]);
    put(datagram, 4, crc.to_le_bytes());
}

/// A checked request.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Events, structurally sound, with the mode they ask for.
    Events(Mode, Events<'a>),
    /// Latency probe with the client's send time, nanoseconds of its own clock.
    Ping(u64),
    /// The server's facts are wanted.
    Hello,
    /// Reads of one hunt; what each asks for is not looked into here.
    Query(Queries<'a>),
}

/// Splits and checks a datagram as a server receives it: CRC, version, kind,
/// flags, reserved fields, and that count and lengths fill it exactly. The
/// magic was looked at before ([`crate::frame::check_payload`]).
///
/// # Errors
///
/// The exit it leaves by. The header is valid for a reply whenever the exit's
/// action is [`crate::Action::Reply`].
#[inline]
pub fn decode<'a>(
    datagram: &'a [u8],
    crc32c: impl FnOnce(&[u8]) -> u32,
) -> Result<(Header, Request<'a>), Exit> {
    decode_visiting(datagram, crc32c, |_| {})
}

/// [`decode`] that shows each event to `visit` while its structure is checked:
/// one pass over the datagram instead of two. What was shown counts only when
/// `Ok` comes back.
///
/// # Errors
///
/// As [`decode`].
#[inline]
pub fn decode_visiting<'a>(
    datagram: &'a [u8],
    crc32c: impl FnOnce(&[u8]) -> u32,
    visit: impl FnMut(&Event<'a>),
) -> Result<(Header, Request<'a>), Exit> {
    let Some(head) = datagram.first_chunk::<HEADER_BYTES>() else {
        return Err(Exit::DropHeaderShort);
    };
    let header = Header::read(head);
    let sealed = header.flags & FLAG_SEALED != 0 && header.version == VERSION;
    let tag_bytes = if sealed { TAG_BYTES } else { 0 };
    let Some(body) =
        datagram.get(HEADER_BYTES..).and_then(|b| b.get(..b.len().checked_sub(tag_bytes)?))
    else {
        return Err(Exit::Checksum);
    };
    if crc32c(&datagram[CRC_FROM..HEADER_BYTES + body.len()]) != u32_at(head, 4) {
        return Err(Exit::Checksum);
    }
    let kind = Kind::from_code(header.kind);
    // An answer is never answered, whatever else is wrong with it: two servers
    // must not refuse each other for ever, of any version.
    if kind.is_some_and(is_reply) {
        return Err(Exit::ReplyKind);
    }
    if header.version != VERSION {
        return Err(Exit::Version);
    }
    let Some(kind) = kind else {
        return Err(Exit::Kind);
    };
    if header.flags & !FLAG_SEALED != 0 || header.reserved != 0 {
        return Err(Exit::Reserved);
    }
    if sealed {
        return Err(Exit::Sealed);
    }
    let request = match kind {
        Kind::Events => {
            let Some(mode) = Mode::from_code(header.mode) else {
                return Err(Exit::Mode);
            };
            Request::Events(mode, Events::check(body, header.count, visit)?)
        }
        _ if header.mode != 0 => return Err(Exit::Reserved),
        Kind::Query => Request::Query(Queries::check(body, header.count).ok_or(Exit::Malformed)?),
        _ if header.count != 0 => return Err(Exit::Reserved),
        Kind::Ping if body.len() == PING_BODY_BYTES => Request::Ping(u64_at(body, 0)),
        Kind::Hello if body.len() == HELLO_BODY_BYTES => Request::Hello,
        Kind::Ping | Kind::Hello => return Err(Exit::Malformed),
        Kind::Ack | Kind::Pong | Kind::Answer | Kind::Welcome | Kind::Busy | Kind::Refused => {
            return Err(Exit::ReplyKind);
        }
    };
    Ok((header, request))
}

const fn is_reply(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Ack | Kind::Pong | Kind::Answer | Kind::Welcome | Kind::Busy | Kind::Refused
    )
}

/// One event, borrowed from a datagram.
///
/// ```text
///  0    16       24        32         40     42              44         48
///  | key | player | subject | argument | kind | payload_bytes | reserved | payload, zero-padded to 8
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Idempotency key: a UUIDv7, bytes in network order as RFC 9562 prints them.
    pub key: [u8; 16],
    /// Player the event acts for.
    pub player: u64,
    /// Cell, item or quest it acts on.
    pub subject: u64,
    /// Meaning depends on the kind: an amount, a count, a position.
    pub argument: u64,
    /// Wire code of the event kind; 0 is not one.
    pub kind: u16,
    /// Must be zero.
    pub reserved: u32,
    /// Opaque bytes, at most 512.
    pub payload: &'a [u8],
}

impl<'a> Event<'a> {
    /// Bytes it takes in a datagram, padding included.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        EVENT_FIXED_BYTES + self.payload.len().next_multiple_of(8)
    }

    /// Whether its fields make sense by themselves: a kind, a key that is a
    /// UUIDv7, nothing in the reserved field. One that is not is answered
    /// with the outcome `malformed`; its neighbours are not touched.
    #[must_use]
    #[inline(always)]
    pub const fn is_well_formed(&self) -> bool {
        self.kind != 0
            && self.reserved == 0
            && self.key[6] & 0xf0 == 0x70
            && self.key[8] & 0xc0 == 0x80
    }

    /// Writes the event at the start of `out`; gives the bytes written.
    ///
    /// # Panics
    ///
    /// When `out` is too short or the payload too long: a bug of the caller.
    pub fn write(&self, out: &mut [u8]) -> usize {
        assert!(self.payload.len() <= EVENT_PAYLOAD_BYTES_MAX);
        let bytes = self.wire_bytes();
        let out = &mut out[..bytes];
        put(out, 0, self.key);
        put(out, 16, self.player.to_le_bytes());
        put(out, 24, self.subject.to_le_bytes());
        put(out, 32, self.argument.to_le_bytes());
        put(out, 40, self.kind.to_le_bytes());
        put(out, 42, (self.payload.len() as u16).to_le_bytes());
        put(out, 44, self.reserved.to_le_bytes());
        out[EVENT_FIXED_BYTES..EVENT_FIXED_BYTES + self.payload.len()]
            .copy_from_slice(self.payload);
        out[EVENT_FIXED_BYTES + self.payload.len()..].fill(0);
        bytes
    }

    /// The event at the start of `body` and the bytes after it.
    #[inline(always)]
    fn split(body: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let fixed = body.first_chunk::<EVENT_FIXED_BYTES>()?;
        let payload_bytes = usize::from(u16_at(fixed, 42));
        let rest = &body[EVENT_FIXED_BYTES..];
        let (padded, rest) = rest.split_at_checked(payload_bytes.next_multiple_of(8))?;
        let (payload, padding) = padded.split_at(payload_bytes);
        if payload_bytes > EVENT_PAYLOAD_BYTES_MAX || padding.iter().any(|b| *b != 0) {
            return None;
        }
        let event = Self {
            key: array(fixed, 0),
            player: u64_at(fixed, 16),
            subject: u64_at(fixed, 24),
            argument: u64_at(fixed, 32),
            kind: u16_at(fixed, 40),
            reserved: u32_at(fixed, 44),
            payload,
        };
        Some((event, rest))
    }
}

/// The events of a datagram whose structure was checked; iterates them.
#[derive(Clone, Copy, Debug)]
pub struct Events<'a> {
    body: &'a [u8],
    left: u16,
}

impl<'a> Events<'a> {
    /// The first `count` events of a body that was checked before; ends early,
    /// and does no more harm, where it was not.
    #[must_use]
    #[inline(always)]
    pub const fn of_checked(body: &'a [u8], count: u16) -> Self {
        Self { body, left: count }
    }

    /// Bytes of the events.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.body
    }

    /// Checks that `count` events fill `body` exactly, and shows each to `visit`.
    #[inline]
    fn check(body: &'a [u8], count: u16, mut visit: impl FnMut(&Event<'a>)) -> Result<Self, Exit> {
        let mut rest = body;
        for _ in 0..count {
            let event;
            (event, rest) = Event::split(rest).ok_or(Exit::Malformed)?;
            visit(&event);
        }
        if count == 0 || !rest.is_empty() {
            return Err(Exit::Malformed);
        }
        Ok(Self { body, left: count })
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Event<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let (event, rest) = Event::split(self.body)?;
        self.body = rest;
        Some(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Events<'_> {}

/// Answer to one event datagram inside an ack.
///
/// ```text
///  0          8       16      18     19     20           22         24
///  | sequence | epoch | count | mode | zero | duplicates | reserved | outcome bytes, padded to 8 | duplicates x u64 epoch
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckEntry<'a> {
    /// Sequence of the datagram answered.
    pub sequence: u64,
    /// Log index at which its batch committed; 0 in mode `none`, which has no log.
    pub epoch: u64,
    /// What the outcomes promise, as it was asked for.
    pub mode: Mode,
    /// One byte an event, in their order: [`crate::Outcome`] in the low seven
    /// bits, [`DUPLICATE_BIT`] above.
    pub outcomes: &'a [u8],
    /// Original epochs of the duplicates, in their order: 8 bytes each.
    epochs: &'a [u8],
}

impl<'a> AckEntry<'a> {
    /// Bytes of an entry with `events` outcomes, of which `duplicates` carry an epoch.
    #[must_use]
    #[inline(always)]
    pub const fn wire_bytes(events: usize, duplicates: usize) -> usize {
        ACK_ENTRY_FIXED_BYTES + events.next_multiple_of(8) + 8 * duplicates
    }

    /// Original epochs of the duplicate events, in their order.
    pub fn duplicate_epochs(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.epochs.chunks_exact(8).map(|c| u64_at(c, 0))
    }

    /// Writes an entry with these outcome bytes at the start of `out`. Epochs of
    /// duplicates, if any, are the caller's to write behind it.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`Self::wire_bytes`]: a bug of the caller.
    #[inline(always)]
    pub fn write(
        out: &mut [u8],
        sequence: u64,
        epoch: u64,
        mode: Mode,
        outcomes: &[u8],
        duplicates: u16,
    ) {
        put(out, 0, sequence.to_le_bytes());
        put(out, 8, epoch.to_le_bytes());
        put(out, 16, (outcomes.len() as u16).to_le_bytes());
        put(out, 18, [mode as u8, 0]);
        put(out, 20, duplicates.to_le_bytes());
        put(out, 22, [0; 2]);
        // Word by word: a copy of any length is a call, and most datagrams of
        // players hold one event.
        for (i, chunk) in outcomes.chunks(8).enumerate() {
            let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            put(out, ACK_ENTRY_FIXED_BYTES + 8 * i, word.to_le_bytes());
        }
    }
}

/// What a server says of itself: body of a welcome.
///
/// ```text
///  0             8        16           18      20           22          24      25            26            27     28             30
///  | log_time_ns | epoch  | partitions | lanes | port_first | port_last | modes | version_min | version_max | role | payload_max  | events_max
///  32       40           48         49 .. 64
///  | cookie | cluster_id | features | zero
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Log time, nanoseconds since the Unix epoch; clients stamp keys with it.
    pub log_time_ns: u64,
    /// Last applied epoch; 0 without a log.
    pub epoch: u64,
    /// Partitions the domain keys hash to.
    pub partitions: u16,
    /// Lanes that receive.
    pub lanes: u16,
    /// First UDP port served.
    pub port_first: u16,
    /// Last UDP port served.
    pub port_last: u16,
    /// Ack modes served: bit 0 `none`, bit 1 `durable`.
    pub modes: u8,
    /// Oldest format version spoken.
    pub version_min: u8,
    /// Newest format version spoken.
    pub version_max: u8,
    /// 1 when the node orders events itself, 2 when it follows.
    pub role: u8,
    /// Largest UDP payload accepted, bytes.
    pub payload_bytes_max: u16,
    /// Most events a datagram may carry.
    pub events_max: u16,
    /// Cookie to send from now on; 0 when none is asked for.
    pub cookie: u64,
    /// Names the cluster; 0 until a data directory is formatted.
    pub cluster_id: u64,
    /// What else is served: bit 0 queries.
    pub features: u8,
}

impl Welcome {
    /// Bit of [`Self::features`]: queries are answered.
    pub const FEATURE_QUERIES: u8 = 1;

    /// Bit of [`Self::modes`] for a mode.
    #[must_use]
    pub const fn mode_bit(mode: Mode) -> u8 {
        1 << (mode as u8 - 1)
    }

    /// Writes the body.
    pub fn write(&self, out: &mut [u8; HELLO_BODY_BYTES]) {
        out.fill(0);
        put(out, 0, self.log_time_ns.to_le_bytes());
        put(out, 8, self.epoch.to_le_bytes());
        put(out, 16, self.partitions.to_le_bytes());
        put(out, 18, self.lanes.to_le_bytes());
        put(out, 20, self.port_first.to_le_bytes());
        put(out, 22, self.port_last.to_le_bytes());
        out[24] = self.modes;
        out[25] = self.version_min;
        out[26] = self.version_max;
        out[27] = self.role;
        put(out, 28, self.payload_bytes_max.to_le_bytes());
        put(out, 30, self.events_max.to_le_bytes());
        put(out, 32, self.cookie.to_le_bytes());
        put(out, 40, self.cluster_id.to_le_bytes());
        out[48] = self.features;
    }

    /// Reads the body.
    #[must_use]
    pub fn read(body: &[u8; HELLO_BODY_BYTES]) -> Self {
        Self {
            log_time_ns: u64_at(body, 0),
            epoch: u64_at(body, 8),
            partitions: u16_at(body, 16),
            lanes: u16_at(body, 18),
            port_first: u16_at(body, 20),
            port_last: u16_at(body, 22),
            modes: body[24],
            version_min: body[25],
            version_max: body[26],
            role: body[27],
            payload_bytes_max: u16_at(body, 28),
            events_max: u16_at(body, 30),
            cookie: u64_at(body, 32),
            cluster_id: u64_at(body, 40),
            features: body[48],
        }
    }
}

/// Body of a pong: three clocks, nanoseconds.
///
/// ```text
///  0                8                    16
///  | client_send_ns | server_received_ns | server_sent_ns
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Echo of the ping's send time: the client's clock.
    pub client_sent_ns: u64,
    /// When the lane took the ping from its ring: nanoseconds since the Unix epoch.
    pub server_received_ns: u64,
    /// When the lane put the pong into its ring.
    pub server_sent_ns: u64,
}

impl Pong {
    /// Writes the body.
    pub fn write(&self, out: &mut [u8; PING_BODY_BYTES]) {
        put(out, 0, self.client_sent_ns.to_le_bytes());
        put(out, 8, self.server_received_ns.to_le_bytes());
        put(out, 16, self.server_sent_ns.to_le_bytes());
    }

    /// Reads the body.
    #[must_use]
    pub fn read(body: &[u8; PING_BODY_BYTES]) -> Self {
        Self {
            client_sent_ns: u64_at(body, 0),
            server_received_ns: u64_at(body, 8),
            server_sent_ns: u64_at(body, 16),
        }
    }
}

/// A checked reply, as a client receives it.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// Outcomes.
    Ack(Acks<'a>),
    /// Answer to a ping.
    Pong(Pong),
    /// Answer to a hello.
    Welcome(Welcome),
    /// Answer to a query.
    Answer(Entries<'a>),
    /// Try again after so many microseconds, with jitter.
    Busy {
        /// Microseconds to wait at least.
        retry_after_us: u32,
    },
    /// Refused for good.
    Refused {
        /// Wire code of a [`crate::Refusal`]; unknown codes are possible from newer servers.
        reason: u8,
        /// Oldest version the server speaks.
        version_min: u8,
        /// Newest version the server speaks.
        version_max: u8,
    },
}

/// Why a client cannot use a datagram it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// Shorter than a header, or no magic.
    NotOurs,
    /// CRC mismatch.
    Checksum,
    /// Version or kind this client does not speak.
    Unknown,
    /// Body does not fit its kind.
    Malformed,
}

/// Splits and checks a datagram as a client receives it.
///
/// # Errors
///
/// [`ReplyError`]; a client drops and counts such a datagram.
pub fn decode_reply<'a>(
    datagram: &'a [u8],
    crc32c: impl FnOnce(&[u8]) -> u32,
) -> Result<(Header, Reply<'a>), ReplyError> {
    let Some(head) = datagram.first_chunk::<HEADER_BYTES>() else {
        return Err(ReplyError::NotOurs);
    };
    if head[..4] != MAGIC {
        return Err(ReplyError::NotOurs);
    }
    if crc32c(&datagram[CRC_FROM..]) != u32_at(head, 4) {
        return Err(ReplyError::Checksum);
    }
    let header = Header::read(head);
    if header.version != VERSION || header.flags != 0 {
        return Err(ReplyError::Unknown);
    }
    let body = &datagram[HEADER_BYTES..];
    let reply = match Kind::from_code(header.kind) {
        Some(Kind::Ack) => Reply::Ack(Acks::check(body, header.count)?),
        Some(Kind::Pong) => {
            Reply::Pong(Pong::read(body.try_into().map_err(|_| ReplyError::Malformed)?))
        }
        Some(Kind::Welcome) => {
            Reply::Welcome(Welcome::read(body.try_into().map_err(|_| ReplyError::Malformed)?))
        }
        Some(Kind::Answer) => {
            Reply::Answer(Entries::check(body, header.count).ok_or(ReplyError::Malformed)?)
        }
        Some(Kind::Busy) if body.len() == SHORT_BODY_BYTES => {
            Reply::Busy { retry_after_us: u32_at(body, 0) }
        }
        Some(Kind::Refused) if body.len() == SHORT_BODY_BYTES => {
            Reply::Refused { reason: body[0], version_min: body[1], version_max: body[2] }
        }
        Some(Kind::Busy | Kind::Refused) => return Err(ReplyError::Malformed),
        _ => return Err(ReplyError::Unknown),
    };
    Ok((header, reply))
}

/// The entries of an ack whose structure was checked; iterates them.
#[derive(Clone, Copy, Debug)]
pub struct Acks<'a> {
    body: &'a [u8],
    left: u16,
}

impl<'a> Acks<'a> {
    fn check(body: &'a [u8], count: u16) -> Result<Self, ReplyError> {
        let mut rest = body;
        for _ in 0..count {
            (_, rest) = Self::split(rest).ok_or(ReplyError::Malformed)?;
        }
        if count == 0 || !rest.is_empty() {
            return Err(ReplyError::Malformed);
        }
        Ok(Self { body, left: count })
    }

    fn split(body: &'a [u8]) -> Option<(AckEntry<'a>, &'a [u8])> {
        let fixed = body.first_chunk::<ACK_ENTRY_FIXED_BYTES>()?;
        let count = usize::from(u16_at(fixed, 16));
        let duplicates = usize::from(u16_at(fixed, 20));
        let rest = &body[ACK_ENTRY_FIXED_BYTES..];
        let (padded, rest) = rest.split_at_checked(count.next_multiple_of(8))?;
        let (epochs, rest) = rest.split_at_checked(duplicates * 8)?;
        let outcomes = &padded[..count];
        let marked = outcomes.iter().filter(|o| **o & DUPLICATE_BIT != 0).count();
        if marked != duplicates {
            return None;
        }
        let entry = AckEntry {
            sequence: u64_at(fixed, 0),
            epoch: u64_at(fixed, 8),
            mode: Mode::from_code(fixed[18])?,
            outcomes,
            epochs,
        };
        Some((entry, rest))
    }
}

impl<'a> Iterator for Acks<'a> {
    type Item = AckEntry<'a>;

    fn next(&mut self) -> Option<AckEntry<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let (entry, rest) = Self::split(self.body)?;
        self.body = rest;
        Some(entry)
    }
}
