//! Queries and answers on the host: what is written reads back, every field
//! that makes no sense is found, and no bytes make a reader panic.

use proptest::collection::vec;
use proptest::prelude::*;
use veltrix_abi::kinds::{CELL_BITS, HotspotKind};
use veltrix_abi::query::{
    COORDINATE_MAX, CellRow, ENTRY_FIXED_BYTES, Entries, Entry, EntryHead, HuntRow, PlayerRow,
    QUERY_BYTES, QUERY_HEAD_BYTES, Queries, Query, QueryKind, QueryStatus, ROWS_MAX, RankRow, Row,
    Wanted, corner, write_answer_head,
};
use veltrix_abi::split::{Region, Split};

const CELL_MAX: u64 = (1 << CELL_BITS) - 1;

fn range() -> impl Strategy<Value = [u32; 2]> {
    (0..=COORDINATE_MAX, 0..=COORDINATE_MAX).prop_map(|(a, b)| [a.min(b), a.max(b)])
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let (cell, limit) = (0..=CELL_MAX, 1..=ROWS_MAX);
    prop_oneof![
        any::<u64>().prop_map(Wanted::Player),
        cell.clone().prop_map(Wanted::Cell),
        (range(), range(), cell.clone(), limit.clone())
            .prop_map(|(x, y, from, limit)| Wanted::CellsInBox { x, y, from, limit }),
        (cell, limit.clone()).prop_map(|(to, limit)| Wanted::NearestCells { to, limit }),
        (1..=u32::MAX, limit).prop_map(|(from, limit)| Wanted::Top { from, limit }),
        (any::<u64>(), 0..=(ROWS_MAX - 1) / 2)
            .prop_map(|(player, around)| Wanted::Rank { player, around }),
        Just(Wanted::Hunt),
    ]
}

/// Any query at all, most of them malformed, all of them near to sound ones.
fn query() -> impl Strategy<Value = Query> {
    let word = || prop_oneof![Just(0), any::<u64>(), 0..200_u64, Just(CELL_MAX), Just(1 << 60)];
    let limit = prop_oneof![Just(0), 0..=ROWS_MAX + 1, any::<u16>()];
    let zero = prop_oneof![9 => Just(0), 1 => any::<u8>()];
    (0..9_u8, zero, limit, any::<u32>(), word(), word(), word())
        .prop_map(|(kind, zero, limit, tag, a, b, c)| Query { kind, zero, limit, tag, a, b, c })
}

fn body(min_epoch: u64, queries: &[Query], room_bytes: usize) -> Vec<u8> {
    let mut out = vec![0xee; QUERY_HEAD_BYTES + QUERY_BYTES * queries.len()];
    Queries::write_head(&mut out, min_epoch);
    for (query, bytes) in queries.iter().zip(out[QUERY_HEAD_BYTES..].chunks_exact_mut(QUERY_BYTES))
    {
        query.write(bytes);
    }
    out.resize(out.len() + room_bytes, 0);
    out
}

fn player_row() -> impl Strategy<Value = PlayerRow> {
    any::<(u64, u64, u64, u64, [u16; 8], u32, u8, u8)>().prop_map(
        |(player, wallet, score, score_epoch, inventory, rank, team, power)| PlayerRow {
            player,
            wallet,
            score,
            score_epoch,
            inventory,
            rank,
            team,
            power,
        },
    )
}

fn cell_row() -> impl Strategy<Value = CellRow> {
    any::<(u64, u64, u32, u32, u16, u8, u8, bool)>().prop_map(
        |(cell, claimed_by, expiry_s, reward, remaining, kind, item, claimed)| CellRow {
            cell,
            claimed_by,
            expiry_s,
            reward,
            remaining,
            kind,
            item,
            claimed,
        },
    )
}

fn rank_row() -> impl Strategy<Value = RankRow> {
    any::<(u32, u64, u64, u64)>().prop_map(|(rank, player, score, score_epoch)| RankRow {
        rank,
        player,
        score,
        score_epoch,
    })
}

fn hunt_row() -> impl Strategy<Value = HuntRow> {
    let counts = any::<(u32, u32, u32, u8, u8, u64)>();
    let pot = any::<(u32, u32, u32, u64, u64, u32, u64)>();
    let region = prop::option::of((any::<u64>(), 1..=8_u8, any::<u16>()).prop_map(
        |(root, bits, number)| {
            let split = Split::new(bits, 0).unwrap();
            Region { root, split, number: number % split.regions() }
        },
    ));
    (counts, pot, any::<([u64; 16], [u32; 16])>(), region).prop_map(
        |(
            (cells, players, ranked, game, phase, score_epoch),
            (opened_s, ends_s, lots, pot, winner, tenant, over_quota),
            (banks, tiles),
            region,
        )| HuntRow {
            cells,
            players,
            ranked,
            game,
            phase,
            score_epoch,
            opened_s,
            ends_s,
            lots,
            tenant,
            pot,
            winner,
            over_quota,
            banks,
            tiles,
            region,
        },
    )
}

/// Rows of the type that a kind has.
#[derive(Clone, Debug, PartialEq)]
enum Rows {
    Players(Vec<PlayerRow>),
    Cells(Vec<CellRow>),
    Ranks(Vec<RankRow>),
    Hunts(Vec<HuntRow>),
}

impl Rows {
    fn read(entry: &Entry<'_>) -> Self {
        match QueryKind::from_code(entry.head.kind).expect("a kind") {
            QueryKind::Player => Self::Players(entry.rows().collect()),
            QueryKind::Cell | QueryKind::CellsInBox | QueryKind::NearestCells => {
                Self::Cells(entry.rows().collect())
            }
            QueryKind::Top | QueryKind::Rank => Self::Ranks(entry.rows().collect()),
            QueryKind::Hunt => Self::Hunts(entry.rows().collect()),
        }
    }

    fn write(&self) -> (u16, Vec<u8>) {
        fn all<R: Row>(rows: &[R]) -> (u16, Vec<u8>) {
            let mut out = vec![0xee; R::BYTES * rows.len()];
            for (row, bytes) in rows.iter().zip(out.chunks_exact_mut(R::BYTES)) {
                row.write(bytes);
            }
            (rows.len() as u16, out)
        }
        match self {
            Self::Players(rows) => all(rows),
            Self::Cells(rows) => all(rows),
            Self::Ranks(rows) => all(rows),
            Self::Hunts(rows) => all(rows),
        }
    }
}

fn entry() -> impl Strategy<Value = (EntryHead, Rows)> {
    let kinds = |kinds: &'static [QueryKind]| prop::sample::select(kinds);
    let cells = kinds(&[QueryKind::Cell, QueryKind::CellsInBox, QueryKind::NearestCells]);
    let ranks = kinds(&[QueryKind::Top, QueryKind::Rank]);
    let rows = prop_oneof![
        vec(player_row(), 0..5).prop_map(|rows| (QueryKind::Player, Rows::Players(rows))),
        (cells, vec(cell_row(), 0..5)).prop_map(|(kind, rows)| (kind, Rows::Cells(rows))),
        (ranks, vec(rank_row(), 0..5)).prop_map(|(kind, rows)| (kind, Rows::Ranks(rows))),
        vec(hunt_row(), 0..5).prop_map(|rows| (QueryKind::Hunt, Rows::Hunts(rows))),
    ];
    (rows, prop::sample::select(QueryStatus::ALL), any::<u32>(), any::<u64>()).prop_map(
        |((kind, rows), status, tag, next)| {
            let head = EntryHead { kind: kind.code(), status, rows: rows.write().0, tag, next };
            (head, rows)
        },
    )
}

fn answer(epoch: u64, age_ns: u64, entries: &[(EntryHead, Rows)]) -> Vec<u8> {
    let mut out = vec![0xee; QUERY_HEAD_BYTES];
    write_answer_head(&mut out, epoch, age_ns);
    for (head, rows) in entries {
        let mut fixed = [0xee; ENTRY_FIXED_BYTES];
        head.write(&mut fixed);
        out.extend(fixed);
        out.extend(rows.write().1);
    }
    out
}

/// All of an answer, by the readers only.
fn read_whole(body: &[u8], count: u16) -> Option<Vec<EntryHead>> {
    let entries: Vec<_> = Entries::check(body, count)?.collect();
    assert_eq!(entries.len(), usize::from(count));
    for entry in &entries {
        if QueryKind::from_code(entry.head.kind).is_some() {
            let (rows, _) = Rows::read(entry).write();
            assert_eq!(rows, entry.head.rows);
        } else {
            assert_eq!(entry.head.rows, 0);
        }
        // Of another type there may be more or fewer, but never a panic.
        let _ = entry.rows::<PlayerRow>().count() + entry.rows::<HuntRow>().count();
    }
    Some(entries.into_iter().map(|entry| entry.head).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_wanted_comes_through_a_body(
        min_epoch in any::<u64>(),
        wanted in vec((wanted(), any::<u32>()), 1..20),
        room_bytes in 0..200_usize,
    ) {
        let queries: Vec<_> =
            wanted.iter().map(|(wanted, tag)| Query { tag: *tag, ..Query::of(wanted) }).collect();
        let body = body(min_epoch, &queries, room_bytes);
        let count = queries.len() as u16;
        let read = Queries::check(&body, count).expect("sound");
        prop_assert_eq!((read.min_epoch, read.body_bytes), (min_epoch, body.len()));
        prop_assert_eq!(read.iter().len(), queries.len());
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), queries);
        let seen: Vec<_> = read.iter().map(|q| q.wanted().map(|wanted| (wanted, q.tag))).collect();
        prop_assert_eq!(seen, wanted.into_iter().map(Some).collect::<Vec<_>>());
        prop_assert!(Queries::check(&body, 0).is_none());
        // One query more is there only if the room holds one, and is then kind 0.
        let one_more = Queries::check(&body, count + 1);
        prop_assert_eq!(one_more.is_some(), room_bytes >= QUERY_BYTES);
        prop_assert!(one_more.is_none_or(|all| all.iter().last().unwrap().wanted().is_none()));
    }

    #[test]
    fn a_body_is_sound_only_with_zeros_where_zeros_belong(
        wanted in vec(wanted(), 1..5),
        room_bytes in 1..100_usize,
        at in any::<prop::sample::Index>(),
        value in 1..=u8::MAX,
        cut in 1..400_usize,
    ) {
        let queries: Vec<_> = wanted.iter().map(Query::of).collect();
        let count = queries.len() as u16;
        let good = body(7, &queries, room_bytes);
        let room = good.len() - room_bytes;
        for at in [8 + at.index(8), room + at.index(room_bytes)] {
            let mut bad = good.clone();
            bad[at] = value;
            prop_assert!(Queries::check(&bad, count).is_none(), "byte {}", at);
        }
        let end = room.saturating_sub(cut);
        prop_assert!(Queries::check(&good[..end], count).is_none());
        prop_assert!(Queries::check(&good[..room], count).is_some());
    }

    #[test]
    fn a_query_makes_sense_exactly_when_it_is_one_that_can_be_written(query in query()) {
        let Some(wanted) = query.wanted() else {
            prop_assert_eq!(query.answer_bytes_max(), ENTRY_FIXED_BYTES);
            return Ok(());
        };
        // Rank 0 is another word for rank 1; all else has one form.
        let first = query.kind == QueryKind::Top.code() && query.a == 0;
        let a = if first { 1 } else { query.a };
        prop_assert_eq!(Query { tag: query.tag, ..Query::of(&wanted) }, Query { a, ..query });
    }

    #[test]
    fn an_answer_fits_what_was_reserved_for_it(wanted in wanted()) {
        let rows_max = match wanted {
            Wanted::Player(_) | Wanted::Cell(_) | Wanted::Hunt => 1,
            Wanted::CellsInBox { limit, .. }
            | Wanted::NearestCells { limit, .. }
            | Wanted::Top { limit, .. } => usize::from(limit),
            Wanted::Rank { around, .. } => 2 * usize::from(around) + 1,
        };
        let query = Query::of(&wanted);
        let row_bytes = match wanted {
            Wanted::Player(_) => 56,
            Wanted::Hunt => 272,
            _ => 32,
        };
        let mut body = vec![0; QUERY_HEAD_BYTES + query.answer_bytes_max()];
        let rows = rows_max as u16;
        prop_assert!(rows <= ROWS_MAX);
        prop_assert_eq!(query.answer_bytes_max(), ENTRY_FIXED_BYTES + row_bytes * rows_max);
        let head = EntryHead { kind: query.kind, status: QueryStatus::Found, rows, tag: 0, next: 0 };
        head.write(&mut body[QUERY_HEAD_BYTES..]);
        prop_assert_eq!(read_whole(&body, 1), Some(vec![head]));
        EntryHead { rows: rows + 1, ..head }.write(&mut body[QUERY_HEAD_BYTES..]);
        prop_assert_eq!(read_whole(&body, 1), None);
    }

    #[test]
    fn answers_read_back_and_no_other_length_or_count_is_taken(
        epoch in any::<u64>(),
        age_ns in any::<u64>(),
        entries in vec(entry(), 1..6),
    ) {
        let body = answer(epoch, age_ns, &entries);
        let count = entries.len() as u16;
        let read = Entries::check(&body, count).expect("sound");
        prop_assert_eq!((read.epoch, read.age_ns), (epoch, age_ns));
        let read: Vec<_> = read.map(|entry| (entry.head, Rows::read(&entry))).collect();
        prop_assert_eq!(read, entries);
        for other in [0, count - 1, count + 1, u16::MAX] {
            prop_assert_eq!(read_whole(&body, other), None, "count {}", other);
        }
        for end in 0..body.len() {
            prop_assert_eq!(read_whole(&body[..end], count), None, "{} bytes", end);
        }
        let longer = [&body[..], &[0; 8]].concat();
        prop_assert_eq!(read_whole(&longer, count), None);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..300), count in any::<u16>()) {
        for count in [count, count % 8] {
            let _ = read_whole(&bytes, count);
            if let Some(queries) = Queries::check(&bytes, count) {
                prop_assert_eq!(queries.iter().filter(|q| q.answer_bytes_max() < 16).count(), 0);
            }
        }
    }

    #[test]
    fn damage_in_an_answer_never_panics(
        entries in vec(entry(), 1..6),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = answer(1, 2, &entries);
        for (at, value) in damage {
            let at = at.index(body.len());
            body[at] = value;
        }
        let _ = read_whole(&body, entries.len() as u16);
    }
}

/// The sound query of each kind, by its fields.
fn sound(kind: QueryKind) -> Query {
    Query::of(&match kind {
        QueryKind::Player => Wanted::Player(7),
        QueryKind::Cell => Wanted::Cell(CELL_MAX),
        QueryKind::CellsInBox => {
            Wanted::CellsInBox { x: [1, 5], y: [2, COORDINATE_MAX], from: 3, limit: ROWS_MAX }
        }
        QueryKind::NearestCells => Wanted::NearestCells { to: CELL_MAX, limit: 1 },
        QueryKind::Top => Wanted::Top { from: u32::MAX, limit: ROWS_MAX },
        QueryKind::Rank => Wanted::Rank { player: 7, around: 49 },
        QueryKind::Hunt => Wanted::Hunt,
    })
}

#[test]
fn each_field_that_makes_no_sense_is_found() {
    let wide = CELL_MAX + 1;
    for kind in QueryKind::ALL.iter().copied() {
        let good = sound(kind);
        assert!(good.wanted().is_some(), "{good:?}");
        let mut bad = vec![Query { zero: 1, ..good }, Query { kind: 0, ..good }];
        bad.push(Query { kind: 8, ..good });
        let has_limit =
            matches!(kind, QueryKind::CellsInBox | QueryKind::NearestCells | QueryKind::Top);
        let limits: &[u16] = if has_limit { &[0, ROWS_MAX + 1, u16::MAX] } else { &[1] };
        bad.extend(limits.iter().map(|limit| Query { limit: *limit, ..good }));
        if kind != QueryKind::CellsInBox {
            bad.push(Query { c: 1, ..good });
            let b = if kind == QueryKind::Rank { 50 } else { 1 };
            bad.push(Query { b, ..good });
        }
        match kind {
            QueryKind::Cell | QueryKind::NearestCells => bad.push(Query { a: wide, ..good }),
            QueryKind::Top => bad.push(Query { a: 1 << 32, ..good }),
            QueryKind::Rank => bad.push(Query { b: 1 << 16, ..good }),
            QueryKind::Hunt => bad.push(Query { a: 1, ..good }),
            QueryKind::CellsInBox => bad.extend([
                Query { c: wide, ..good },
                Query { a: corner(6, 2), ..good },
                Query { a: corner(1, 3), b: corner(5, 2), ..good },
                Query { b: corner(COORDINATE_MAX + 1, 2), ..good },
                Query { b: corner(5, COORDINATE_MAX + 1), ..good },
            ]),
            QueryKind::Player => {}
        }
        for query in bad {
            assert_eq!(query.wanted(), None, "{query:?}");
        }
    }
}

#[test]
fn rank_0_is_the_first() {
    let query = Query { a: 0, ..sound(QueryKind::Top) };
    assert_eq!(query.wanted(), Some(Wanted::Top { from: 1, limit: ROWS_MAX }));
}

#[test]
fn codes_from_newer_servers() {
    let with = |kind: u8, status: u8, rows: u16| {
        let mut body = [0; QUERY_HEAD_BYTES + ENTRY_FIXED_BYTES];
        body[QUERY_HEAD_BYTES..][..2].copy_from_slice(&[kind, status]);
        body[QUERY_HEAD_BYTES + 2..][..2].copy_from_slice(&rows.to_le_bytes());
        read_whole(&body, 1)
    };
    // A server repeats whatever kind it was asked, with no rows it cannot have.
    let malformed = QueryStatus::Malformed;
    let head = EntryHead { kind: 99, status: malformed, rows: 0, tag: 0, next: 0 };
    assert_eq!(with(99, malformed.code(), 0), Some(vec![head]));
    assert_eq!(with(99, malformed.code(), 1), None);
    for status in [0, 9, u8::MAX] {
        assert_eq!(with(1, status, 0), None, "status {status}");
    }
    let row = |kind| CellRow { kind, ..CellRow::default() };
    assert_eq!(row(3).hotspot_kind(), Some(HotspotKind::Ticket));
    assert_eq!([0, 4, u8::MAX].map(|kind| row(kind).hotspot_kind()), [None; 3]);
}
