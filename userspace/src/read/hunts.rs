//! The hunts of a partition, a piece at a time: for sums over tenants and for lists.
//! Asked by the control core alone, so this is no query and has no place on the wire.

use veltrix_abi::query::HuntPhase;
use veltrix_abi::split::Region;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Shown, phase_of};
use crate::apply::Partition;
use crate::apply::rules::log_time_s;

/// Most hunts of a piece: four lines of memory each, some 5 us together.
pub const LINES_MAX: usize = 40;

/// Bytes of the largest piece.
pub const PIECE_BYTES: usize = size_of::<Head>() + LINES_MAX * size_of::<HuntLine>();

/// What comes before the lines.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    epoch: u64,
    age_ns: u64,
    lines: u16,
    /// Where to go on; 0 at the end, since every piece begins behind it.
    next: u16,
    /// Whether the partition is here: 0 or 1.
    is_here: u32,
}

/// A hunt in a piece, 80 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct HuntLine {
    /// Its domain key.
    pub domain: u64,
    /// Events that a rule has decided, since the server was started.
    pub events: u64,
    /// Events refused as `over-quota`, ever.
    pub over_quota: u64,
    /// Cells with a hotspot.
    pub cells: u32,
    /// Players.
    pub players: u32,
    /// Whose it is; 0 = nobody's.
    pub tenant: u32,
    /// Most cells; 0 = no bound.
    pub cells_max: u32,
    /// Most players; 0 = no bound.
    pub players_max: u32,
    /// Most events in a second; 0 = no bound.
    pub events_per_s: u32,
    /// Second of log time at which it was opened; 0 = never.
    pub opened_s: u32,
    /// Second of log time at which it plays no more; 0 = when it is closed.
    pub ends_s: u32,
    /// Code of its game type; 0 = nobody has opened it.
    pub game: u8,
    phase: u8,
    zero: [u8; 6],
    region: [u8; Region::BYTES],
}

impl HuntLine {
    /// How it stands; `None` for what no lane writes.
    #[must_use]
    pub const fn phase(&self) -> Option<HuntPhase> {
        HuntPhase::from_code(self.phase)
    }

    /// Which region of a split hunt it is; `None` for a hunt in one piece.
    #[must_use]
    pub fn region(&self) -> Option<Region> {
        Region::of(&self.region)
    }
}

/// Writes the hunts of a partition from number `from` on to the start of `out`, at
/// most `limit` and [`LINES_MAX`] of them; gives the bytes. `None` is a partition that
/// no lane has just now.
///
/// # Panics
///
/// When `out` is shorter than [`PIECE_BYTES`]: a bug of the caller.
pub fn write(
    partition: Option<&Partition>,
    from: u16,
    limit: u16,
    shown: Shown,
    out: &mut [u8],
) -> usize {
    let (head_bytes, rows) = out[..PIECE_BYTES].split_at_mut(size_of::<Head>());
    let limit = usize::from(limit).min(LINES_MAX);
    let mut lines = 0;
    let mut next = 0;
    if let Some(partition) = partition {
        let now_s = log_time_s(shown.log_time_ns.max(partition.log_time_ns()));
        let index = partition.index();
        let mut hunts = index.hunts_from(from);
        for (hunt, place) in hunts.by_ref().take(limit).zip(rows.chunks_exact_mut(LINE_BYTES)) {
            let (record, tally) = (index.hunt_record(hunt), index.tally(hunt));
            let line = HuntLine {
                domain: record.domain(),
                events: tally.events,
                over_quota: record.over_quota,
                cells: tally.cells,
                players: tally.players,
                tenant: record.tenant,
                cells_max: record.cells_max,
                players_max: record.players_max,
                events_per_s: record.events_per_s,
                opened_s: record.opened_s,
                ends_s: record.ends_s,
                game: record.game,
                phase: phase_of(record, now_s) as u8,
                zero: [0; 6],
                region: record.split().map_or([0; Region::BYTES], |region| region.bytes()),
            };
            place.copy_from_slice(line.as_bytes());
            lines += 1;
        }
        next = hunts.next().map_or(0, |hunt| hunt.number());
    }
    let is_here = partition.is_some().into();
    let head = Head { epoch: shown.epoch, age_ns: shown.age_ns, lines, next, is_here };
    head_bytes.copy_from_slice(head.as_bytes());
    size_of::<Head>() + usize::from(lines) * LINE_BYTES
}

const LINE_BYTES: usize = size_of::<HuntLine>();

/// A piece as it comes back from a lane.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Last epoch that the partition has applied.
    pub epoch: u64,
    /// How old that may be, nanoseconds.
    pub age_ns: u64,
    /// Whether a lane had the partition; if none had, ask again.
    pub is_here: bool,
    /// Number to go on from, when there are more.
    pub next: Option<u16>,
    lines: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Takes what [`write()`] wrote apart; `None` for anything else.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, lines) = Head::read_from_prefix(bytes).ok()?;
        let is_whole = lines.len() == usize::from(head.lines) * LINE_BYTES;
        is_whole.then_some(Self {
            epoch: head.epoch,
            age_ns: head.age_ns,
            is_here: head.is_here == 1,
            next: (head.next > 0).then_some(head.next),
            lines,
        })
    }

    /// Its hunts, in order of their numbers.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = HuntLine> + use<'a> {
        let lines = self.lines.chunks_exact(LINE_BYTES);
        lines.map(|line| HuntLine::read_from_bytes(line).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use veltrix_abi::Outcome;
    use veltrix_abi::kinds::EventKind;

    use super::*;
    use crate::apply::tests::{Answer, HUNT, World};

    const SHOWN: Shown = Shown { epoch: 77, log_time_ns: 0, age_ns: 5 };

    fn piece(partition: Option<&Partition>, from: u16, limit: u16) -> Vec<u8> {
        let mut out = vec![0xee; PIECE_BYTES];
        let bytes = write(partition, from, limit, SHOWN, &mut out);
        out.truncate(bytes);
        out
    }

    /// A world with five hunts in the partition of `HUNT`: the one of `wish`, and those
    /// it gives the domains of.
    fn five_hunts() -> (World, Vec<u64>) {
        let mut world = World::default();
        let alike: Vec<u64> = (0..).filter(|domain| world.is_home_of(*domain)).take(5).collect();
        for domain in &alike {
            let mut wish = world.wish(EventKind::WalletCredit, 1, 0, 5);
            wish.domain = *domain;
            assert_eq!(world.one(wish), Answer::First(Outcome::Applied));
        }
        (world, alike)
    }

    #[test]
    fn pieces_give_every_hunt_once_in_order() {
        let (world, domains) = five_hunts();
        let (mut seen, mut from, mut pieces) = (Vec::new(), Some(0), 0);
        while let Some(number) = from {
            let bytes = piece(Some(world.home()), number, 2);
            let piece = Piece::read(&bytes).unwrap();
            assert!(piece.is_here && (piece.epoch, piece.age_ns) == (77, 5));
            assert!(piece.lines().all(|line| (line.players, line.events) == (1, 1)));
            seen.extend(piece.lines().map(|line| line.domain));
            (from, pieces) = (piece.next, pieces + 1);
        }
        assert_eq!((seen, pieces), (domains, 3));
        let past = piece(Some(world.home()), 5, 2);
        assert_eq!(
            Piece::read(&past).map(|piece| (piece.lines().len(), piece.next)),
            Some((0, None))
        );
    }

    #[test]
    fn a_line_says_whose_a_hunt_is_and_what_it_may_use() {
        let mut world = World::default();
        let setup = veltrix_abi::kinds::HuntSetup {
            game: 2,
            length_s: 60,
            settings: 60 | 3 << 16 | 2 << 24,
        };
        // Tenant 9: 2 cells, 1 player, 8 events a second.
        let quota = &[9, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0];
        let open = world.wish(EventKind::HuntOpen, 0, 0, setup.pack().unwrap()).with(quota);
        let credits = [1, 2].map(|player| world.wish(EventKind::WalletCredit, player, 0, 5));
        assert_eq!(world.one(open), Answer::First(Outcome::Applied));
        assert_eq!(world.send(&credits), [Outcome::Applied, Outcome::OverQuota].map(Answer::First));
        let bytes = piece(Some(world.home()), 0, 9);
        let line = Piece::read(&bytes).unwrap().lines().next().unwrap();
        let of_quota = (line.tenant, line.cells_max, line.players_max, line.events_per_s);
        assert_eq!(of_quota, (9, 2, 1, 8));
        assert_eq!((line.domain, line.game, line.phase()), (HUNT, 2, Some(HuntPhase::Playing)));
        assert_eq!((line.players, line.events, line.over_quota), (1, 2, 1));
        assert_eq!(line.ends_s, line.opened_s + 60);
    }

    #[test]
    fn a_partition_on_its_way_and_damaged_bytes_are_told_apart() {
        let bytes = piece(None, 0, 9);
        let read = Piece::read(&bytes).unwrap();
        assert!(!read.is_here && read.lines().len() == 0 && read.next.is_none());
        let (world, _) = five_hunts();
        let mut whole = piece(Some(world.home()), 0, 9);
        assert!(whole.len() < PIECE_BYTES);
        whole.pop();
        assert!(Piece::read(&whole).is_none() && Piece::read(&[]).is_none());
    }
}
