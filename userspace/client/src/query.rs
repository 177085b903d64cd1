//! Queries: what can be read of a hunt, and what comes back.
//!
//! ```text
//!  Wanted ── check ──> datagram padded for its answer ──> Flight, retried like events
//!  Read { value, epoch, age } <── read_answer <── answer ──┘
//! ```
//!
//! Checked before it is sent is whatever the client can know to be wrong; the
//! rest is the server's to say. An answer counts only when it has an entry for
//! each query, in order, with its kind, its tag and no more rows than wanted.

use std::ops::RangeInclusive;
use std::time::Duration;

use veltrix_abi::kinds::CELL_BITS;
use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::query::{
    COORDINATE_MAX, CellRow, ENTRY_FIXED_BYTES, Entries, Entry, HuntRow, PlayerRow,
    QUERY_HEAD_BYTES, Query, QueryKind, QueryStatus, ROWS_MAX, RankRow, Row, Wanted, row_bytes,
};

use crate::Domain;
use crate::error::QueryError;

/// Most players before, and as many behind, that [`Domain::rank`] gives.
pub const AROUND_MAX: u16 = (ROWS_MAX - 1) / 2;

/// What was read, and how fresh it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// What was asked for.
    pub value: T,
    /// Log index whose state it shows: every event up to it is in, none after it.
    pub epoch: u64,
    /// How old it may be: at most so long before it answered, the server had
    /// applied all that was committed then. The way of the answer comes on top.
    pub age: Duration,
}

impl<T> Read<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Read<U> {
        let Self { value, epoch, age } = self;
        Read { value: change(value), epoch, age }
    }
}

/// Rows of one answer, and where to go on. A datagram of 1,232 bytes has room
/// for 36 rows, however many were wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in the order of the query's kind.
    pub rows: Vec<T>,
    /// Whether there is more than these: behind them in a box or on the
    /// leaderboard; of nearest cells and of a player's neighbours, as many as were
    /// wanted, which the datagram had no room for.
    pub more: bool,
    /// Where the next page begins: a cell id for a box, a rank for the
    /// leaderboard. `None` when there is no more, and for nearest cells and
    /// neighbours, which have no next page.
    pub next: Option<u64>,
}

/// The rows of one query.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "one for each query, taken apart at once")]
pub enum Rows {
    /// Of [`Wanted::Player`]; `None` for a player the hunt has given nothing.
    Player(Option<PlayerRow>),
    /// Of [`Wanted::Cell`]; `None` where no hotspot was ever put.
    Cell(Option<CellRow>),
    /// Of [`Wanted::CellsInBox`] and [`Wanted::NearestCells`].
    Cells(Page<CellRow>),
    /// Of [`Wanted::Top`] and [`Wanted::Rank`]; empty for a player without a score.
    Ranks(Page<RankRow>),
    /// Of [`Wanted::Hunt`]; `None` for a hunt in which nothing has happened.
    Hunt(Option<HuntRow>),
}

/// Reads of a hunt, answered from the server's memory.
///
/// Every result says which [`epoch`](Read::epoch) it shows. What was written
/// before is sure to be in it when the epoch of its receipt is asked for:
///
/// ```no_run
/// # async fn read(hunt: veltrix_client::Domain) -> Result<(), Box<dyn std::error::Error>> {
/// let receipt = hunt.send(veltrix_client::Event::claim(7, 0x100)).await?;
/// let player = hunt.at_least(receipt.epoch).player(7).await?;
/// println!("{:?} at epoch {}", player.value, player.epoch);
/// # Ok(())
/// # }
/// ```
impl Domain {
    /// The same hunt, read only where the server has applied everything up to
    /// `epoch`; 0 asks for nothing. A server that lags is asked again until the
    /// deadline. Events sent through it go as through any other handle.
    #[must_use]
    pub fn at_least(&self, epoch: u64) -> Self {
        Self { min_epoch: epoch, ..self.clone() }
    }

    /// What a player owns; `None` when the hunt has given the player nothing.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn player(&self, player: u64) -> Result<Read<Option<PlayerRow>>, QueryError> {
        Ok(self.one(Wanted::Player(player)).await?.map(|rows| match rows {
            Some(Rows::Player(row)) => row,
            _ => None,
        }))
    }

    /// A cell with its hotspot, ended ones included; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; [`QueryError::Cell`] for an id of more than 60 bits.
    pub async fn cell(&self, cell: u64) -> Result<Read<Option<CellRow>>, QueryError> {
        Ok(self.one(Wanted::Cell(cell)).await?.map(|rows| match rows {
            Some(Rows::Cell(row)) => row,
            _ => None,
        }))
    }

    /// Cells whose coordinates lie in `x` and `y` (0 to [`COORDINATE_MAX`]), by
    /// ascending id, from the id `from` on: 0 for the first page, then
    /// [`Page::next`]. `limit` is 1 to [`ROWS_MAX`].
    ///
    /// # Errors
    ///
    /// [`QueryError`]; [`QueryError::Box`] when a range is empty or leaves the map.
    pub async fn cells_in_box(
        &self,
        x: RangeInclusive<u32>,
        y: RangeInclusive<u32>,
        from: u64,
        limit: u16,
    ) -> Result<Read<Page<CellRow>>, QueryError> {
        let (x, y) = ([*x.start(), *x.end()], [*y.start(), *y.end()]);
        self.cells(Wanted::CellsInBox { x, y, from, limit }).await
    }

    /// Cells by their distance from the cell `to`, the nearest first. `limit`
    /// is 1 to [`ROWS_MAX`]; what one datagram has room for comes, and there is
    /// no next page.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn nearest_cells(
        &self,
        to: u64,
        limit: u16,
    ) -> Result<Read<Page<CellRow>>, QueryError> {
        self.cells(Wanted::NearestCells { to, limit }).await
    }

    /// The leaderboard from the rank `from` on: 1 for the first page, then
    /// [`Page::next`]. `limit` is 1 to [`ROWS_MAX`].
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn top(&self, from: u64, limit: u16) -> Result<Read<Page<RankRow>>, QueryError> {
        let from = u32::try_from(from).map_err(|_| QueryError::Rank { from })?;
        self.ranks(Wanted::Top { from, limit }).await
    }

    /// A player on the leaderboard, with up to `around` (0 to [`AROUND_MAX`])
    /// players before and as many behind; no rows for a player without a score.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn rank(&self, player: u64, around: u16) -> Result<Read<Page<RankRow>>, QueryError> {
        self.ranks(Wanted::Rank { player, around }).await
    }

    /// What the hunt holds, in numbers; `None` when nothing has happened in it.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn summary(&self) -> Result<Read<Option<HuntRow>>, QueryError> {
        Ok(self.one(Wanted::Hunt).await?.map(|rows| match rows {
            Some(Rows::Hunt(row)) => row,
            _ => None,
        }))
    }

    /// Asks several queries by one datagram; their rows come in the same order
    /// and show one epoch. All share the room of one datagram: the first that
    /// are answered may leave fewer rows to the others. When one cannot be answered
    /// at all, for want of room or otherwise, there is an error and no rows.
    ///
    /// # Errors
    ///
    /// [`QueryError`]; of the first query that is at fault, where one is.
    pub async fn query(&self, wanted: &[Wanted]) -> Result<Read<Vec<Rows>>, QueryError> {
        let datagram_bytes_max = self.client.shared.datagram_bytes_max;
        check(wanted, datagram_bytes_max)?;
        self.ask(wanted.to_vec()).await
    }

    async fn one(&self, wanted: Wanted) -> Result<Read<Option<Rows>>, QueryError> {
        Ok(self.query(&[wanted]).await?.map(|mut rows| rows.pop()))
    }

    async fn cells(&self, wanted: Wanted) -> Result<Read<Page<CellRow>>, QueryError> {
        Ok(self.one(wanted).await?.map(|rows| match rows {
            Some(Rows::Cells(page)) => page,
            _ => Page::empty(),
        }))
    }

    async fn ranks(&self, wanted: Wanted) -> Result<Read<Page<RankRow>>, QueryError> {
        Ok(self.one(wanted).await?.map(|rows| match rows {
            Some(Rows::Ranks(page)) => page,
            _ => Page::empty(),
        }))
    }
}

/// Finds what no server answers, or what no datagram of `datagram_bytes_max`
/// could carry with one row for each.
fn check(wanted: &[Wanted], datagram_bytes_max: usize) -> Result<(), QueryError> {
    if wanted.is_empty() {
        return Err(QueryError::Empty);
    }
    let mut bytes = HEADER_BYTES + QUERY_HEAD_BYTES;
    for one in wanted {
        check_one(one)?;
        // More than the query takes itself: where the answer fits, it does.
        bytes += ENTRY_FIXED_BYTES + row_bytes(kind_of(one).code());
    }
    if bytes > datagram_bytes_max {
        let queries = wanted.len();
        return Err(QueryError::DatagramTooSmall { queries, bytes, datagram_bytes_max });
    }
    Ok(())
}

fn check_one(wanted: &Wanted) -> Result<(), QueryError> {
    let cell = match *wanted {
        Wanted::Cell(cell) | Wanted::NearestCells { to: cell, .. } => cell,
        Wanted::CellsInBox { from, .. } => from,
        _ => 0,
    };
    let limit = match *wanted {
        Wanted::CellsInBox { limit, .. }
        | Wanted::NearestCells { limit, .. }
        | Wanted::Top { limit, .. } => limit,
        _ => 1,
    };
    if cell >> CELL_BITS != 0 {
        return Err(QueryError::Cell { cell });
    }
    if !(1..=ROWS_MAX).contains(&limit) {
        return Err(QueryError::Limit { limit });
    }
    match *wanted {
        Wanted::CellsInBox { x, y, .. }
            if x[0] > x[1] || y[0] > y[1] || x[1].max(y[1]) > COORDINATE_MAX =>
        {
            Err(QueryError::Box { x, y })
        }
        Wanted::Rank { around, .. } if around > AROUND_MAX => Err(QueryError::Around { around }),
        _ => Ok(()),
    }
}

/// Why an answer was no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutOff {
    /// The server had applied up to this epoch only.
    Behind { epoch: u64 },
    /// The hunt was changing its lane.
    Moving,
}

/// What an answer is worth.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// All that was asked for.
    Whole(Read<Vec<Rows>>),
    /// Ask again after a wait.
    Later(PutOff),
    /// Asking again would not help.
    Failed(QueryError),
    /// It answers something else.
    Misfit,
}

/// Reads the answer to `wanted`, whose tags are their places.
pub(crate) fn read_answer(wanted: &[Wanted], answer: Entries<'_>, bytes: usize) -> Verdict {
    let (epoch, age) = (answer.epoch, Duration::from_nanos(answer.age_ns));
    let entries: Vec<Entry<'_>> = answer.collect();
    let belongs = entries.len() == wanted.len()
        && wanted
            .iter()
            .zip(&entries)
            .enumerate()
            .all(|(i, (wanted, entry))| fits(i, wanted, entry));
    if !belongs {
        return Verdict::Misfit;
    }
    let mut all = Vec::with_capacity(wanted.len());
    let mut put_off = None;
    for (index, (wanted, entry)) in wanted.iter().zip(&entries).enumerate() {
        let kind = kind_of(wanted);
        match entry.head.status {
            QueryStatus::Found | QueryStatus::More | QueryStatus::NotFound => {
                all.push(rows_of(wanted, entry));
            }
            QueryStatus::Malformed => {
                return Verdict::Failed(QueryError::Malformed { index, kind });
            }
            QueryStatus::NoRoom => {
                return Verdict::Failed(QueryError::NoRoom { index, kind, bytes });
            }
            QueryStatus::TooMuch => {
                return Verdict::Failed(QueryError::TooMuch { index, kind });
            }
            QueryStatus::Behind => put_off = Some(PutOff::Behind { epoch }),
            QueryStatus::Moving => put_off = Some(PutOff::Moving),
        }
    }
    match put_off {
        Some(why) => Verdict::Later(why),
        None => Verdict::Whole(Read { value: all, epoch, age }),
    }
}

const fn kind_of(wanted: &Wanted) -> QueryKind {
    match wanted {
        Wanted::Player(_) => QueryKind::Player,
        Wanted::Cell(_) => QueryKind::Cell,
        Wanted::CellsInBox { .. } => QueryKind::CellsInBox,
        Wanted::NearestCells { .. } => QueryKind::NearestCells,
        Wanted::Top { .. } => QueryKind::Top,
        Wanted::Rank { .. } => QueryKind::Rank,
        Wanted::Hunt => QueryKind::Hunt,
    }
}

/// Whether an entry can be the one of the query in its place.
fn fits(index: usize, wanted: &Wanted, entry: &Entry<'_>) -> bool {
    let head = &entry.head;
    let rows = usize::from(head.rows);
    let rows_max = (Query::of(wanted).answer_bytes_max() - ENTRY_FIXED_BYTES)
        / row_bytes(kind_of(wanted).code());
    let is_lone = matches!(wanted, Wanted::Player(_) | Wanted::Cell(_) | Wanted::Hunt);
    let rows_fit = match head.status {
        QueryStatus::Found if is_lone => rows == 1,
        QueryStatus::Found => rows <= rows_max,
        QueryStatus::More => !is_lone && rows <= rows_max,
        _ => rows == 0,
    };
    head.kind == kind_of(wanted).code() && usize::try_from(head.tag) == Ok(index) && rows_fit
}

fn rows_of(wanted: &Wanted, entry: &Entry<'_>) -> Rows {
    match wanted {
        Wanted::Player(_) => Rows::Player(entry.rows().next()),
        Wanted::Cell(_) => Rows::Cell(entry.rows().next()),
        Wanted::CellsInBox { .. } | Wanted::NearestCells { .. } => Rows::Cells(Page::of(entry)),
        Wanted::Top { .. } | Wanted::Rank { .. } => Rows::Ranks(Page::of(entry)),
        Wanted::Hunt => Rows::Hunt(entry.rows().next()),
    }
}

impl<T> Page<T> {
    const fn empty() -> Self {
        Self { rows: Vec::new(), more: false, next: None }
    }
}

impl<T: Row> Page<T> {
    fn of(entry: &Entry<'_>) -> Self {
        let more = entry.head.status == QueryStatus::More;
        let next = (more && entry.head.next != 0).then_some(entry.head.next);
        Self { rows: entry.rows().collect(), more, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind, sound and with each fault that a client can know.
    fn samples() -> Vec<Wanted> {
        let wide = 1 << CELL_BITS;
        let mut all = vec![Wanted::Player(u64::MAX), Wanted::Hunt];
        all.extend([0, wide - 1, wide].map(Wanted::Cell));
        for limit in [0, 1, ROWS_MAX, ROWS_MAX + 1] {
            all.push(Wanted::Top { from: 0, limit });
            for id in [0, wide - 1, wide] {
                all.push(Wanted::NearestCells { to: id, limit });
                for range in [[0, 0], [5, 4], [0, COORDINATE_MAX], [1, COORDINATE_MAX + 1]] {
                    all.push(Wanted::CellsInBox { x: range, y: [0, 9], from: id, limit });
                    all.push(Wanted::CellsInBox { x: [0, 9], y: range, from: id, limit });
                }
            }
        }
        all.extend(
            [0, AROUND_MAX, AROUND_MAX + 1].map(|around| Wanted::Rank { player: 7, around }),
        );
        all
    }

    #[test]
    fn what_is_refused_here_is_what_a_server_finds_malformed() {
        for wanted in samples() {
            let sound = Query::of(&wanted).wanted().is_some();
            assert_eq!(check(&[wanted], 3456).is_ok(), sound, "{wanted:?}");
        }
    }

    #[test]
    fn a_datagram_without_room_for_a_row_each_is_refused() {
        // Header 48, head 16, entry 16 and row 56.
        assert_eq!(check(&[Wanted::Player(1)], 136), Ok(()));
        let error = check(&[Wanted::Player(1)], 135).unwrap_err();
        assert_eq!(
            error,
            QueryError::DatagramTooSmall { queries: 1, bytes: 136, datagram_bytes_max: 135 }
        );
        assert!(error.to_string().contains("`payload_bytes_max`"), "{error}");
    }
}
