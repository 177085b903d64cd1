//! Queries and their answers: the bodies of [`crate::wire::Kind::Query`] and
//! [`crate::wire::Kind::Answer`].
//!
//! ```text
//!   query    0           8      16                         answer   0       8        16
//!            | min_epoch | zero | count x query of 32 bytes | zeros          | epoch | age_ns | entries, one for each query
//!
//!   one query      0      1      2       4     8   16   24   32
//!                  | kind | zero | limit | tag | a | b | c |
//!   one entry      0      1        2      4     8      16
//!                  | kind | status | rows | tag | next | rows x row, by kind
//! ```
//!
//! `userspace/docs/WIRE.md` is the specification. All queries of a datagram are
//! about the hunt that its domain names. The zeros behind the queries are room
//! for the answer, which is never larger than the query.

use crate::kinds::CELL_BITS;
use crate::outcomes::codes;
pub use crate::rows::{CellRow, HuntPhase, HuntRow, PlayerRow, RankRow, Row};
use crate::wire::{put, u16_at, u32_at, u64_at};

/// Bytes of a body before its queries or entries.
pub const QUERY_HEAD_BYTES: usize = 16;
/// Bytes of one query.
pub const QUERY_BYTES: usize = 32;
/// Bytes of an entry without its rows.
pub const ENTRY_FIXED_BYTES: usize = 16;
/// Most rows that one query may ask for.
pub const ROWS_MAX: u16 = 100;
/// Largest coordinate of a cell.
pub const COORDINATE_MAX: u32 = (1 << (CELL_BITS / 2)) - 1;

codes! {
    /// What a query asks for. Zero is not a kind.
    QueryKind {
        Player = 1, "player", "What the player `a` owns.";
        Cell = 2, "cell", "The cell `a` with its hotspot.";
        CellsInBox = 3, "cells-in-box", "Cells of the box with the corners `a` and `b`, by ascending id, from the id `c` on.";
        NearestCells = 4, "nearest-cells", "The cells nearest to the cell `a`, the nearest first.";
        Top = 5, "top", "The leaderboard from rank `a` on; 0 and 1 are the first.";
        Rank = 6, "rank", "The player `a` on the leaderboard, with as many before and behind as `b` says.";
        Hunt = 7, "hunt", "What the hunt holds.";
    }
}

codes! {
    /// How a query went. Zero is never sent.
    QueryStatus {
        Found = 1, "found", "All there is.";
        More = 2, "more", "There is more than rows were asked for or had room: ask again from `next` on.";
        NotFound = 3, "not-found", "No such hunt, player or cell, or a player without a score.";
        Malformed = 4, "malformed", "The query makes no sense; see its kind.";
        Behind = 5, "behind", "The node has not applied `min_epoch` yet; ask again.";
        Moving = 6, "moving", "The partition is changing its lane; ask again.";
        NoRoom = 7, "no-room", "The datagram has no room for one row: pad it.";
        TooMuch = 8, "too-much", "Too many cells to look through for one datagram: ask for fewer of them, or for a box.";
    }
}

/// One query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Wire code of a [`QueryKind`].
    pub kind: u8,
    /// Must be zero.
    pub zero: u8,
    /// Most rows wanted, 1 to [`ROWS_MAX`]; 0 where a kind has one row.
    pub limit: u16,
    /// The client's mark, repeated in the answer.
    pub tag: u32,
    /// By kind.
    pub a: u64,
    /// By kind.
    pub b: u64,
    /// By kind.
    pub c: u64,
}

/// What a query asks for, once its fields are known to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What a player owns.
    Player(u64),
    /// A cell.
    Cell(u64),
    /// Cells of a box by ascending id.
    CellsInBox {
        /// Least and largest `x`.
        x: [u32; 2],
        /// Least and largest `y`.
        y: [u32; 2],
        /// Least id.
        from: u64,
        /// Most rows.
        limit: u16,
    },
    /// Cells by distance from a cell.
    NearestCells {
        /// The cell.
        to: u64,
        /// Most rows.
        limit: u16,
    },
    /// A part of the leaderboard.
    Top {
        /// First rank, from 1.
        from: u32,
        /// Most rows.
        limit: u16,
    },
    /// A player on the leaderboard.
    Rank {
        /// The player.
        player: u64,
        /// Rows before, and as many behind.
        around: u16,
    },
    /// What the hunt holds.
    Hunt,
}

impl Query {
    const fn new(kind: QueryKind) -> Self {
        Self { kind: kind.code(), zero: 0, limit: 0, tag: 0, a: 0, b: 0, c: 0 }
    }

    /// The query that [`Self::wanted`] reads as `wanted`.
    #[must_use]
    pub const fn of(wanted: &Wanted) -> Self {
        match *wanted {
            Wanted::Player(player) => Self { a: player, ..Self::new(QueryKind::Player) },
            Wanted::Cell(cell) => Self { a: cell, ..Self::new(QueryKind::Cell) },
            Wanted::CellsInBox { x, y, from, limit } => Self {
                limit,
                a: corner(x[0], y[0]),
                b: corner(x[1], y[1]),
                c: from,
                ..Self::new(QueryKind::CellsInBox)
            },
            Wanted::NearestCells { to, limit } => {
                Self { limit, a: to, ..Self::new(QueryKind::NearestCells) }
            }
            Wanted::Top { from, limit } => {
                Self { limit, a: from as u64, ..Self::new(QueryKind::Top) }
            }
            Wanted::Rank { player, around } => {
                Self { a: player, b: around as u64, ..Self::new(QueryKind::Rank) }
            }
            Wanted::Hunt => Self::new(QueryKind::Hunt),
        }
    }

    /// What it asks for; `None` when it is malformed: an unknown kind, a field
    /// set that the kind does not have, no rows or more than [`ROWS_MAX`], a cell
    /// of more than 60 bits, a coordinate over [`COORDINATE_MAX`], a box whose
    /// first corner lies behind its second.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        let Self { limit, a, b, c, .. } = *self;
        let rows = (1..=ROWS_MAX).contains(&limit);
        let is_cell = |id: u64| id >> CELL_BITS == 0;
        if self.zero != 0 {
            return None;
        }
        let (wanted, is_sound) = match QueryKind::from_code(self.kind)? {
            QueryKind::Player => (Wanted::Player(a), (limit, b, c) == (0, 0, 0)),
            QueryKind::Cell => (Wanted::Cell(a), (limit, b, c) == (0, 0, 0) && is_cell(a)),
            QueryKind::CellsInBox => {
                let ([x_min, y_min], [x_max, y_max]) = (coordinates(a), coordinates(b));
                let is_box = x_min <= x_max && y_min <= y_max;
                let is_inside = x_max <= COORDINATE_MAX && y_max <= COORDINATE_MAX;
                let (x, y) = ([x_min, x_max], [y_min, y_max]);
                let wanted = Wanted::CellsInBox { x, y, from: c, limit };
                (wanted, rows && is_box && is_inside && is_cell(c))
            }
            QueryKind::NearestCells => {
                let wanted = Wanted::NearestCells { to: a, limit };
                (wanted, rows && is_cell(a) && (b, c) == (0, 0))
            }
            QueryKind::Top => {
                let from = u32::try_from(a).ok()?.max(1);
                (Wanted::Top { from, limit }, rows && (b, c) == (0, 0))
            }
            QueryKind::Rank => {
                let around = u16::try_from(b).ok()?;
                let is_sound = around <= (ROWS_MAX - 1) / 2 && (limit, c) == (0, 0);
                (Wanted::Rank { player: a, around }, is_sound)
            }
            QueryKind::Hunt => (Wanted::Hunt, (limit, a, b, c) == (0, 0, 0, 0)),
        };
        is_sound.then_some(wanted)
    }

    /// Bytes that its entry takes at the most, with all the rows it asks for; a
    /// malformed query's is the bare entry.
    #[must_use]
    pub fn answer_bytes_max(&self) -> usize {
        let rows_bytes = match self.wanted() {
            None => 0,
            Some(Wanted::Player(_)) => PlayerRow::BYTES,
            Some(Wanted::Cell(_)) => CellRow::BYTES,
            Some(Wanted::CellsInBox { limit, .. } | Wanted::NearestCells { limit, .. }) => {
                usize::from(limit) * CellRow::BYTES
            }
            Some(Wanted::Top { limit, .. }) => usize::from(limit) * RankRow::BYTES,
            Some(Wanted::Rank { around, .. }) => (2 * usize::from(around) + 1) * RankRow::BYTES,
            Some(Wanted::Hunt) => HuntRow::BYTES,
        };
        ENTRY_FIXED_BYTES + rows_bytes
    }

    /// Writes the query at the start of `out`.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than a query: a bug of the caller.
    pub fn write(&self, out: &mut [u8]) {
        out[0] = self.kind;
        out[1] = self.zero;
        put(out, 2, self.limit.to_le_bytes());
        put(out, 4, self.tag.to_le_bytes());
        put(out, 8, self.a.to_le_bytes());
        put(out, 16, self.b.to_le_bytes());
        put(out, 24, self.c.to_le_bytes());
    }

    fn read(bytes: &[u8; QUERY_BYTES]) -> Self {
        Self {
            kind: bytes[0],
            zero: bytes[1],
            limit: u16_at(bytes, 2),
            tag: u32_at(bytes, 4),
            a: u64_at(bytes, 8),
            b: u64_at(bytes, 16),
            c: u64_at(bytes, 24),
        }
    }
}

/// A corner of a box as a query carries it: `x` in the lower half, `y` above.
#[must_use]
pub const fn corner(x: u32, y: u32) -> u64 {
    (y as u64) << 32 | x as u64
}

const fn coordinates(corner: u64) -> [u32; 2] {
    [corner as u32, (corner >> 32) as u32]
}

/// The body of a query whose structure was checked.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// Epoch that the node must have applied; 0 = any.
    pub min_epoch: u64,
    queries: &'a [u8],
    /// Bytes of the body, the room for the answer included.
    pub body_bytes: usize,
}

impl<'a> Queries<'a> {
    /// Splits a body that carries `count` queries; `None` when they do not fit, are
    /// none, the second word is not 0, or the room behind them is not zeros.
    #[must_use]
    pub fn check(body: &'a [u8], count: u16) -> Option<Self> {
        let head = body.first_chunk::<QUERY_HEAD_BYTES>()?;
        let (queries, room) =
            body[QUERY_HEAD_BYTES..].split_at_checked(usize::from(count) * QUERY_BYTES)?;
        let is_sound = count > 0 && u64_at(head, 8) == 0 && room.iter().all(|byte| *byte == 0);
        let min_epoch = u64_at(head, 0);
        is_sound.then_some(Self { min_epoch, queries, body_bytes: body.len() })
    }

    /// Queries that were checked before, without the room behind them.
    #[must_use]
    pub const fn of_checked(min_epoch: u64, queries: &'a [u8], body_bytes: usize) -> Self {
        Self { min_epoch, queries, body_bytes }
    }

    /// Bytes of the queries, without head and room.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.queries
    }

    /// Writes the head of a body.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than a head: a bug of the caller.
    pub fn write_head(out: &mut [u8], min_epoch: u64) {
        put(out, 0, min_epoch.to_le_bytes());
        put(out, 8, [0; 8]);
    }

    /// The queries in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Query> + use<'a> {
        let (queries, _) = self.queries.as_chunks::<QUERY_BYTES>();
        queries.iter().map(Query::read)
    }
}

/// Writes the head of an answer.
///
/// # Panics
///
/// When `out` is shorter than a head: a bug of the caller.
pub fn write_answer_head(out: &mut [u8], epoch: u64, age_ns: u64) {
    put(out, 0, epoch.to_le_bytes());
    put(out, 8, age_ns.to_le_bytes());
}

/// What precedes the rows of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// Wire code of the query's kind.
    pub kind: u8,
    /// How it went.
    pub status: QueryStatus,
    /// Rows that follow.
    pub rows: u16,
    /// The query's.
    pub tag: u32,
    /// Where to go on when there is more: a cell id for a box, a rank for the
    /// leaderboard; else 0.
    pub next: u64,
}

impl EntryHead {
    /// Writes it at the start of `out`.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`ENTRY_FIXED_BYTES`]: a bug of the caller.
    pub fn write(&self, out: &mut [u8]) {
        out[0] = self.kind;
        out[1] = self.status.code();
        put(out, 2, self.rows.to_le_bytes());
        put(out, 4, self.tag.to_le_bytes());
        put(out, 8, self.next.to_le_bytes());
    }
}

/// Bytes of a row in the entry for a query of this kind; 0 for a code that is none.
#[must_use]
pub const fn row_bytes(kind: u8) -> usize {
    match QueryKind::from_code(kind) {
        Some(QueryKind::Player) => PlayerRow::BYTES,
        Some(QueryKind::Cell | QueryKind::CellsInBox | QueryKind::NearestCells) => CellRow::BYTES,
        Some(QueryKind::Top | QueryKind::Rank) => RankRow::BYTES,
        Some(QueryKind::Hunt) => HuntRow::BYTES,
        None => 0,
    }
}

/// The body of an answer whose structure was checked; iterates its entries.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// Log index up to which the node had applied when it answered.
    pub epoch: u64,
    /// Nanoseconds since the node last knew that it had applied all that was
    /// committed: how old the answer may be.
    pub age_ns: u64,
    entries: &'a [u8],
    left: u16,
}

/// One entry of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What precedes the rows.
    pub head: EntryHead,
    rows: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Its rows, of the type that its kind has.
    pub fn rows<R: Row>(&self) -> impl Iterator<Item = R> + use<'a, R> {
        self.rows.chunks_exact(R::BYTES).map(R::read)
    }
}

impl<'a> Entries<'a> {
    /// Splits a body of `count` entries; `None` when they do not fill it exactly.
    #[must_use]
    pub fn check(body: &'a [u8], count: u16) -> Option<Self> {
        let head = body.first_chunk::<QUERY_HEAD_BYTES>()?;
        let entries = &body[QUERY_HEAD_BYTES..];
        let mut rest = entries;
        for _ in 0..count {
            (_, rest) = Self::split(rest)?;
        }
        let (epoch, age_ns) = (u64_at(head, 0), u64_at(head, 8));
        let is_sound = count > 0 && rest.is_empty();
        is_sound.then_some(Self { epoch, age_ns, entries, left: count })
    }

    fn split(entries: &'a [u8]) -> Option<(Entry<'a>, &'a [u8])> {
        let fixed = entries.first_chunk::<ENTRY_FIXED_BYTES>()?;
        let rows = u16_at(fixed, 2);
        let head = EntryHead {
            kind: fixed[0],
            status: QueryStatus::from_code(fixed[1])?,
            rows,
            tag: u32_at(fixed, 4),
            next: u64_at(fixed, 8),
        };
        let row_bytes = row_bytes(head.kind);
        if row_bytes == 0 && rows > 0 {
            return None;
        }
        let (rows, rest) =
            entries[ENTRY_FIXED_BYTES..].split_at_checked(usize::from(rows) * row_bytes)?;
        Some((Entry { head, rows }, rest))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (entry, rest) = Self::split(self.entries)?;
        self.entries = rest;
        Some(entry)
    }
}
