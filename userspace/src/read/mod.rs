//! Reads: answers to queries out of the memory of one partition.
//!
//! ```text
//!   queries of a datagram -> hunt -> one entry each: found, more, not found, malformed ...
//!                                     rows as far as there is room
//! ```
//!
//! Nothing here changes anything, allocates or waits. The caller says which epoch the
//! partition shows and how old that may be; every answer carries both. What the
//! bytes mean is in [`veltrix_abi::query`] and `docs/WIRE.md`.

pub mod hunts;

use veltrix_abi::query::{
    CellRow, ENTRY_FIXED_BYTES, EntryHead, HuntPhase, HuntRow, PlayerRow, QUERY_HEAD_BYTES,
    Queries, Query, QueryStatus, ROWS_MAX, RankRow, Row, Wanted, write_answer_head,
};

use crate::apply::Partition;
use crate::apply::rules::log_time_s;
use crate::index::{Cell, CellBox, Hunt, HuntId, Index, PlayerSlot};

/// Cells that the queries of one datagram may look at together, those that are
/// passed over among them: no question holds up a lane.
const STEPS_MAX: usize = 2_048;

/// What an answer says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The last epoch that the partition has applied.
    pub epoch: u64,
    /// Log time of that epoch, nanoseconds since the Unix epoch. A partition without
    /// events in it knows an earlier one only.
    pub log_time_ns: u64,
    /// How long ago everything that the log had handed out was applied: so old may
    /// the answer be, nanoseconds.
    pub age_ns: u64,
}

/// Writes the body of the answer to `queries`, which are about the hunt of
/// `domain`, to the start of `out`; gives its bytes, at most
/// [`Queries::body_bytes`]. `partition` is that of the domain; `None` when no lane
/// has it just now.
///
/// # Panics
///
/// When `out` is shorter than the queries' body: a bug of the caller.
pub fn answer(
    partition: Option<&Partition>,
    domain: u64,
    queries: &Queries<'_>,
    shown: Shown,
    out: &mut [u8],
) -> usize {
    let out = &mut out[..queries.body_bytes];
    write_answer_head(out, shown.epoch, shown.age_ns);
    let refusal = match partition {
        None => Some(QueryStatus::Moving),
        Some(_) if shown.epoch < queries.min_epoch => Some(QueryStatus::Behind),
        Some(_) => None,
    };
    let of_partition = partition.map_or(0, Partition::log_time_ns);
    let log_time_ns = shown.log_time_ns.max(of_partition);
    let hunt = partition.and_then(|p| Some((p.index(), p.index().hunt(domain)?)));
    let mut at = QUERY_HEAD_BYTES;
    let mut steps = STEPS_MAX;
    let queries = queries.iter();
    let mut behind = queries.len();
    for query in queries {
        behind -= 1;
        // A query is longer than a bare entry: there is room for all heads.
        let end = out.len() - behind * ENTRY_FIXED_BYTES;
        let mut entry = Entry { out: &mut out[at..end], rows: 0, next: 0, steps: &mut steps };
        let status = match (refusal, query.wanted(), hunt) {
            (Some(refusal), _, _) => refusal,
            (None, None, _) => QueryStatus::Malformed,
            (None, Some(_), None) => QueryStatus::NotFound,
            (None, Some(wanted), Some((index, hunt))) => {
                entry.fill(index, hunt, &wanted, log_time_s(log_time_ns))
            }
        };
        at += entry.finish(&query, status);
    }
    at
}

/// An entry being written.
struct Entry<'a> {
    out: &'a mut [u8],
    rows: u16,
    next: u64,
    /// Cells that may still be looked at.
    steps: &'a mut usize,
}

impl Entry<'_> {
    /// Rows of a type that there is room for, at most `wanted`.
    fn room<R: Row>(&self, wanted: u16) -> u16 {
        let room = self.out.len().saturating_sub(ENTRY_FIXED_BYTES) / R::BYTES;
        wanted.min(u16::try_from(room).unwrap_or(u16::MAX))
    }

    /// Adds a row, for which there is room.
    fn push<R: Row>(&mut self, row: &R) {
        let at = ENTRY_FIXED_BYTES + usize::from(self.rows) * R::BYTES;
        row.write(&mut self.out[at..at + R::BYTES]);
        self.rows += 1;
    }

    /// One row, if there is room for it.
    fn one<R: Row>(&mut self, row: Option<R>) -> QueryStatus {
        let Some(row) = row else { return QueryStatus::NotFound };
        if self.room::<R>(1) == 0 {
            return QueryStatus::NoRoom;
        }
        self.push(&row);
        QueryStatus::Found
    }

    /// Writes the head; bytes of the whole entry.
    fn finish(self, query: &Query, status: QueryStatus) -> usize {
        let Query { kind, tag, .. } = *query;
        EntryHead { kind, status, rows: self.rows, tag, next: self.next }.write(self.out);
        let row_bytes = veltrix_abi::query::row_bytes(kind);
        ENTRY_FIXED_BYTES + usize::from(self.rows) * row_bytes
    }

    fn fill(
        &mut self,
        index: &Index,
        hunt: HuntId,
        wanted: &Wanted,
        log_time_s: u32,
    ) -> QueryStatus {
        match *wanted {
            Wanted::Player(player) => {
                // A guest has nothing here; its home knows.
                let slot = index.player_slot(hunt, player);
                let slot = slot.filter(|slot| !index.player(*slot).is_guest());
                self.one(slot.map(|slot| player_row(index, slot, log_time_s)))
            }
            Wanted::Cell(id) => {
                let slot = index.cell_slot(hunt, id);
                self.one(slot.map(|slot| cell_row(index, index.cell(slot))))
            }
            Wanted::CellsInBox { x, y, from, limit } => {
                let field = CellBox { x_min: x[0], x_max: x[1], y_min: y[0], y_max: y[1] };
                self.cells_in_box(index, hunt, &field, from, limit)
            }
            Wanted::NearestCells { to, limit } => self.nearest_cells(index, hunt, to, limit),
            Wanted::Top { from, limit } => self.top(index, hunt, from, limit),
            Wanted::Rank { player, around } => self.rank(index, hunt, player, around),
            Wanted::Hunt => self.one(Some(hunt_row(index, hunt, log_time_s))),
        }
    }

    fn cells_in_box(
        &mut self,
        index: &Index,
        hunt: HuntId,
        field: &CellBox,
        from: u64,
        limit: u16,
    ) -> QueryStatus {
        let room = self.room::<CellRow>(limit);
        if room == 0 {
            return QueryStatus::NoRoom;
        }
        let mut steps = *self.steps;
        let next = index.cells_in_box(hunt, field, from, room.into(), &mut steps, |cell| {
            self.push(&cell_row(index, cell));
        });
        *self.steps = steps;
        self.going_on(next)
    }

    fn nearest_cells(&mut self, index: &Index, hunt: HuntId, to: u64, limit: u16) -> QueryStatus {
        let room = self.room::<CellRow>(limit);
        if room == 0 {
            return QueryStatus::NoRoom;
        }
        // One more than there is room for, to know whether there are.
        let mut kept = [None; ROWS_MAX as usize];
        let kept = &mut kept[..usize::from(limit.min(room + 1))];
        let Some(found) = index.nearest_cells(hunt, to, kept, self.steps) else {
            return QueryStatus::TooMuch;
        };
        let nearest = kept.iter().take(found.min(room.into())).flatten();
        nearest.for_each(|(_, cell)| self.push(&cell_row(index, cell)));
        if found > usize::from(room) { QueryStatus::More } else { QueryStatus::Found }
    }

    fn top(&mut self, index: &Index, hunt: HuntId, from: u32, limit: u16) -> QueryStatus {
        let room = self.room::<RankRow>(limit);
        if room == 0 {
            return QueryStatus::NoRoom;
        }
        let mut more = None;
        index.ranked(hunt, from, usize::from(room) + 1, |ranked| {
            if self.rows < room {
                self.push(&rank_row(&ranked));
            } else {
                more = Some(ranked.rank.into());
            }
        });
        self.going_on(more)
    }

    /// The player in the middle, as many on either side as there is room for.
    fn rank(&mut self, index: &Index, hunt: HuntId, player: u64, around: u16) -> QueryStatus {
        let rank = index.player_slot(hunt, player).and_then(|slot| index.rank(slot));
        let Some(rank) = rank else { return QueryStatus::NotFound };
        let Some(beside) = self.room::<RankRow>(2 * around + 1).checked_sub(1) else {
            return QueryStatus::NoRoom;
        };
        let told = beside / 2;
        let from = rank.saturating_sub(told.into()).max(1);
        let rows = rank - from + 1 + u32::from(told);
        index.ranked(hunt, from, rows as usize, |ranked| self.push(&rank_row(&ranked)));
        if told < around { QueryStatus::More } else { QueryStatus::Found }
    }

    fn going_on(&mut self, next: Option<u64>) -> QueryStatus {
        self.next = next.unwrap_or(0);
        if next.is_some() { QueryStatus::More } else { QueryStatus::Found }
    }
}

fn phase_of(record: &Hunt, log_time_s: u32) -> HuntPhase {
    match (record.closed, record.is_over(log_time_s)) {
        (0, false) => HuntPhase::Playing,
        (0, true) => HuntPhase::Over,
        _ => HuntPhase::Closed,
    }
}

fn hunt_row(index: &Index, hunt: HuntId, log_time_s: u32) -> HuntRow {
    let (record, tally) = (index.hunt_record(hunt), index.tally(hunt));
    let phase = phase_of(record, log_time_s);
    let winner = PlayerSlot::of_mark(record.winner);
    HuntRow {
        cells: tally.cells,
        players: tally.players,
        ranked: index.ranked_len(hunt),
        game: record.game,
        phase: phase as u8,
        score_epoch: tally.score_epoch,
        opened_s: record.opened_s,
        ends_s: record.ends_s,
        lots: record.lots,
        tenant: record.tenant,
        pot: record.pot,
        // Told when it is over: who knew it before would close the hunt in time.
        winner: winner
            .filter(|_| phase != HuntPhase::Playing)
            .map_or(0, |slot| index.player(slot).player()),
        over_quota: record.over_quota,
        banks: record.banks,
        tiles: record.tiles,
        region: record.split(),
    }
}

fn player_row(index: &Index, slot: PlayerSlot, log_time_s: u32) -> PlayerRow {
    let player = index.player(slot);
    PlayerRow {
        player: player.player(),
        wallet: player.wallet,
        score: player.score,
        score_epoch: player.score_epoch,
        inventory: player.inventory,
        rank: index.rank(slot).unwrap_or(0),
        team: player.team,
        power: if log_time_s < player.power_until_s { player.power } else { 0 },
    }
}

fn cell_row(index: &Index, cell: &Cell) -> CellRow {
    let claimant = PlayerSlot::of_mark(cell.claimed_by);
    CellRow {
        cell: cell.id(),
        claimed_by: claimant.map_or(0, |slot| index.player(slot).player()),
        expiry_s: cell.expiry_s,
        reward: cell.reward(),
        remaining: cell.remaining,
        kind: cell.kind().map_or(0, |kind| kind as u8),
        item: cell.item(),
        claimed: claimant.is_some(),
    }
}

fn rank_row(ranked: &crate::index::Ranked<'_>) -> RankRow {
    let player = ranked.player;
    RankRow {
        rank: ranked.rank,
        player: player.player(),
        score: player.score,
        score_epoch: player.score_epoch,
    }
}

#[cfg(test)]
mod tests;
