//! Errors, one enum per failing operation.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use uuid::Uuid;
use veltrix_abi::Refusal;
use veltrix_abi::kinds::{
    Hotspot, HuntSetup, ITEM_TYPES, LENGTH_S_MAX, LIFETIME_S_MAX, POWER_FACTOR_MAX, POWER_S_MAX,
    PowerUp, REWARD_MAX, SETTINGS_MAX,
};
use veltrix_abi::limits::EVENT_PAYLOAD_BYTES_MAX;
use veltrix_abi::query::{COORDINATE_MAX, QueryKind, ROWS_MAX};
use veltrix_abi::wire::Mode;

/// Why [`crate::Client::connect`] gave no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting of the builder is out of its range.
    #[error("{key} is {seen}, wanted {wanted}")]
    Setting {
        /// Name of the builder's method.
        key: &'static str,
        /// The value it was given.
        seen: String,
        /// The values it takes.
        wanted: &'static str,
    },
    /// The name could not be resolved, or resolves to no address.
    #[error("cannot resolve the server's address: {0}")]
    Resolve(#[source] io::Error),
    /// A socket could not be made.
    #[error("cannot open a UDP socket towards {addr}: {source}")]
    Socket {
        /// The server.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No welcome came.
    #[error(
        "no answer from {addr} within {waited:?} ({hellos} hellos sent){}; \
         `veltrix ping {addr}` shows whether a server is there", port_closed_note(*.port_closed)
    )]
    NoAnswer {
        /// The server.
        addr: SocketAddr,
        /// How long it was asked.
        waited: Duration,
        /// Hellos sent meanwhile.
        hellos: u32,
        /// Whether its host said that the port is closed.
        port_closed: bool,
    },
    /// The server refused the hello.
    #[error("{addr} refused the hello: {reason}")]
    Refused {
        /// The server.
        addr: SocketAddr,
        /// Why.
        reason: RefusedReason,
    },
    /// The server does not give acks of the wanted mode.
    #[error(
        "{addr} gives no `{}` acks, only: {offered}; ask for one of those with `ClientBuilder::mode`",
        .wanted.name()
    )]
    ModeUnavailable {
        /// The server.
        addr: SocketAddr,
        /// The mode asked for.
        wanted: Mode,
        /// Names of the modes it has, comma-separated.
        offered: String,
    },
}

const fn port_closed_note(port_closed: bool) -> &'static str {
    if port_closed { "; its host says that the port is closed" } else { "" }
}

/// Why an event has no receipt.
///
/// After [`Deadline`](Self::Deadline) and [`Closed`](Self::Closed) the event
/// may or may not have been applied; sending it again with the same key is
/// safe. After the others it was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No outcome came in time.
    #[error("no outcome within the deadline: {tries} tries, {busy} answered busy")]
    Deadline {
        /// Datagrams sent with this event.
        tries: u32,
        /// How many of them were answered `busy`.
        busy: u32,
    },
    /// The server refused the datagram for good.
    #[error("refused: {0}")]
    Refused(RefusedReason),
    /// The outcome's wire code is not known to this version of the client.
    #[error("outcome code {0} is not known to this client; a newer one is needed")]
    OutcomeUnknown(u8),
    /// A hotspot no server takes.
    #[error(
        "{hotspot:?} is no hotspot: wanted remaining 1 or above (a ticket: 1), item below {ITEM_TYPES} \
         (a ticket: 0), reward up to {REWARD_MAX}, lifetime_s up to {LIFETIME_S_MAX}"
    )]
    Hotspot {
        /// What was asked for.
        hotspot: Hotspot,
    },
    /// A way to play that no hunt can be opened with.
    #[error(
        "{setup:?} is no setup: wanted length_s up to {LENGTH_S_MAX}, settings up to {SETTINGS_MAX}"
    )]
    Setup {
        /// What was asked for.
        setup: HuntSetup,
    },
    /// A power-up that no server takes.
    #[error(
        "{power_up:?} is no power-up: wanted item below {ITEM_TYPES}, factor 2 to \
         {POWER_FACTOR_MAX}, seconds 1 to {POWER_S_MAX}"
    )]
    PowerUp {
        /// What was asked for.
        power_up: PowerUp,
    },
    /// A quest that no server takes.
    #[error("quest {quest}: {what}")]
    Quest {
        /// Its id.
        quest: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Event kind 0 is not a kind.
    #[error("event kind is 0, wanted 1 or above")]
    KindZero,
    /// The payload exceeds what an event may carry.
    #[error("payload is {payload_bytes} bytes, wanted at most {EVENT_PAYLOAD_BYTES_MAX}")]
    PayloadTooLong {
        /// Its length.
        payload_bytes: usize,
    },
    /// The event alone exceeds what a datagram may carry here.
    #[error(
        "event of {payload_bytes} payload bytes does not fit a datagram of {datagram_bytes_max}; \
         shorten it, or raise `payload_bytes_max` here and on the server"
    )]
    DatagramTooSmall {
        /// Payload bytes of the event.
        payload_bytes: usize,
        /// Largest datagram agreed on with the server.
        datagram_bytes_max: usize,
    },
    /// The key is not a UUIDv7.
    #[error("key {key} is a UUID of version {}, wanted 7", .key.get_version_num())]
    KeyNotV7 {
        /// The key.
        key: Uuid,
    },
    /// The event is of another player than the [`GameSession`](crate::GameSession).
    #[error("the event is of player {player}, the session of player {session_player}")]
    Player {
        /// Who acts in the event.
        player: u64,
        /// Whose session it is.
        session_player: u64,
    },
    /// An event of the same [`GameSession`](crate::GameSession) before this one
    /// has no outcome yet, so this one was not sent.
    #[error(
        "not sent: an earlier event of the session has no outcome yet; submit it again, the earlier one \
         then goes first"
    )]
    NotSent,
    /// `events_in_flight_max` events wait for an outcome; from the calls that
    /// do not wait for room only.
    #[error(
        "the limit of events in flight is reached; wait for receipts or raise `events_in_flight_max`"
    )]
    InFlightFull,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a query has no answer. Queries change nothing: asking again is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nothing was asked for.
    #[error("no query was given, wanted at least 1")]
    Empty,
    /// No rows were asked for, or too many.
    #[error("limit is {limit}, wanted 1 to {ROWS_MAX} rows")]
    Limit {
        /// The limit given.
        limit: u16,
    },
    /// More neighbours were asked for than an answer may hold.
    #[error("around is {around}, wanted 0 to {}", crate::query::AROUND_MAX)]
    Around {
        /// The number given.
        around: u16,
    },
    /// Ranks have 32 bits.
    #[error("rank to begin from is {from}, wanted up to {}", u32::MAX)]
    Rank {
        /// The rank given.
        from: u64,
    },
    /// A cell id has 60 bits.
    #[error("{cell:#x} is no cell id: wanted at most 60 bits")]
    Cell {
        /// The id given.
        cell: u64,
    },
    /// A range of a box is empty, or leaves the map.
    #[error(
        "box is {} to {} by {} to {}, wanted each from low to high, up to {COORDINATE_MAX}",
        .x[0], .x[1], .y[0], .y[1]
    )]
    Box {
        /// Least and largest `x` given.
        x: [u32; 2],
        /// Least and largest `y` given.
        y: [u32; 2],
    },
    /// The datagram could not carry the queries with one row of answer for each.
    #[error(
        "{queries} queries need {bytes} bytes for one row each, a datagram holds {datagram_bytes_max}; \
         ask fewer at once, or raise `payload_bytes_max` here and on the server"
    )]
    DatagramTooSmall {
        /// Queries asked at once.
        queries: usize,
        /// Bytes needed at least.
        bytes: usize,
        /// Largest datagram agreed on with the server.
        datagram_bytes_max: usize,
    },
    /// No answer came in time.
    #[error("no answer within the deadline: {tries} tries, {busy} answered busy")]
    Deadline {
        /// Datagrams sent with this query.
        tries: u32,
        /// How many of them were answered `busy`.
        busy: u32,
    },
    /// The server did not get as far as the query asked in time.
    #[error(
        "the server has applied up to epoch {epoch}, wanted {min_epoch}, until the deadline ({tries} tries); \
         ask again later, or for a lower epoch with `Domain::at_least`"
    )]
    Behind {
        /// The epoch asked for.
        min_epoch: u64,
        /// The epoch the server had reached when it answered last.
        epoch: u64,
        /// Datagrams sent with this query.
        tries: u32,
    },
    /// The hunt was changing its lane all the time.
    #[error(
        "the hunt's partition was changing its lane until the deadline ({tries} tries); ask again"
    )]
    Moving {
        /// Datagrams sent with this query.
        tries: u32,
    },
    /// The server finds no sense in a query that this client thought sound.
    #[error(
        "the server finds query {index} ({}) malformed: client and server differ in version; update the older",
        .kind.label()
    )]
    Malformed {
        /// Place among the queries asked at once, from 0.
        index: usize,
        /// Its kind.
        kind: QueryKind,
    },
    /// The queries before it took the room of the whole datagram.
    #[error(
        "the {bytes} bytes of the datagram have no room for a row of query {index} ({}); \
         lower the limits of those before it, or ask it by itself", .kind.label()
    )]
    NoRoom {
        /// Place among the queries asked at once, from 0.
        index: usize,
        /// Its kind.
        kind: QueryKind,
        /// Bytes of the datagram.
        bytes: usize,
    },
    /// The server would have to look through more cells than one datagram may cost.
    #[error(
        "query {index} ({}) would look through too many cells; ask for fewer of them, ask for \
         a box, or ask it by itself", .kind.label()
    )]
    TooMuch {
        /// Place among the queries asked at once, from 0.
        index: usize,
        /// Its kind.
        kind: QueryKind,
    },
    /// The server refused the datagram for good.
    #[error("refused: {0}")]
    Refused(RefusedReason),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// What a refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedReason {
    /// The reason; `None` when a newer server gives one unknown here.
    pub reason: Option<Refusal>,
    /// Its wire code.
    pub code: u8,
    /// Oldest format version the server speaks.
    pub version_min: u8,
    /// Newest format version the server speaks.
    pub version_max: u8,
}

impl std::fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.reason {
            Some(Refusal::Version) => write!(
                f,
                "{} The server speaks {} to {}, this client {}.",
                Refusal::Version.doc(),
                self.version_min,
                self.version_max,
                veltrix_abi::wire::VERSION,
            ),
            Some(reason) => write!(f, "{} ({})", reason.doc(), reason.label()),
            None => write!(f, "reason code {} (not known to this client)", self.code),
        }
    }
}
