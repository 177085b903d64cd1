//! Queries of a partition that has played some.

use proptest::prelude::*;
use veltrix_abi::Outcome;
use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind};
use veltrix_abi::query::{self, Entries, QUERY_BYTES, QueryKind};

use super::*;
use crate::apply::PartitionLimits;
use crate::apply::tests::{Answer, HUNT, LIMITS, World};
use crate::index::IndexLimits;

const SHOWN: Shown = Shown { epoch: 77, log_time_ns: 0, age_ns: 5 };
const ROOMY: usize = 3_408;

fn body(wanted: &[Query], min_epoch: u64, bytes: usize) -> Vec<u8> {
    let mut body = vec![0; bytes.max(QUERY_HEAD_BYTES + wanted.len() * QUERY_BYTES)];
    Queries::write_head(&mut body, min_epoch);
    for (query, place) in wanted.iter().zip(body[QUERY_HEAD_BYTES..].chunks_exact_mut(QUERY_BYTES))
    {
        query.write(place);
    }
    body
}

/// The answer's body.
fn ask(partition: Option<&Partition>, wanted: &[Query], min_epoch: u64, bytes: usize) -> Vec<u8> {
    let request = body(wanted, min_epoch, bytes);
    let queries = Queries::check(&request, wanted.len() as u16).unwrap();
    let mut out = vec![0xee; request.len()];
    let bytes = answer(partition, HUNT, &queries, SHOWN, &mut out);
    out.truncate(bytes);
    out
}

fn one(world: &World, wanted: &Wanted) -> (EntryHead, Vec<u8>) {
    let answer = ask(Some(world.home()), &[Query::of(wanted)], 0, ROOMY);
    let entries = Entries::check(&answer, 1).unwrap();
    assert_eq!((entries.epoch, entries.age_ns), (77, 5));
    let entry = { entries }.next().unwrap();
    (entry.head, answer[QUERY_HEAD_BYTES + ENTRY_FIXED_BYTES..].to_vec())
}

fn rows<R: Row>(answered: &(EntryHead, Vec<u8>)) -> Vec<R> {
    assert_eq!(answered.1.len(), usize::from(answered.0.rows) * R::BYTES);
    answered.1.chunks_exact(R::BYTES).map(R::read).collect()
}

/// A ticket on each cell of `claims`, claimed by the player beside it.
fn world(claims: &[(u64, u64, u32)]) -> World {
    world_with(claims, LIMITS.index.cells_max)
}

fn world_with(claims: &[(u64, u64, u32)], cells_max: u32) -> World {
    let index = IndexLimits { cells_max, ..LIMITS.index };
    let mut world = World::new(PartitionLimits { index, ..LIMITS });
    for (cell, player, reward) in claims {
        let ticket = Hotspot {
            kind: HotspotKind::Ticket,
            item: 0,
            remaining: 1,
            reward: *reward,
            lifetime_s: 0,
        };
        world.spawn(*cell, &ticket);
        let claim = world.wish(EventKind::Claim, *player, *cell, 0);
        assert_eq!(world.one(claim), Answer::First(Outcome::Applied));
    }
    world
}

#[test]
fn what_was_played_can_be_read() {
    let world = world(&[(8, 1, 50), (9, 2, 70), (10, 3, 50)]);
    let claimed_at = |player: u64| 10 + 2 * player;
    let player = one(&world, &Wanted::Player(1));
    assert_eq!(player.0.status, QueryStatus::Found);
    let wanted = PlayerRow {
        player: 1,
        wallet: 50,
        score: 50,
        score_epoch: claimed_at(1),
        inventory: [0; 8],
        rank: 2,
        team: 0,
        power: 0,
    };
    assert_eq!(rows::<PlayerRow>(&player), [wanted]);
    let cell = one(&world, &Wanted::Cell(9));
    let wanted = CellRow {
        cell: 9,
        claimed_by: 2,
        expiry_s: 0,
        reward: 70,
        remaining: 0,
        kind: HotspotKind::Ticket as u8,
        item: 0,
        claimed: true,
    };
    assert_eq!(rows::<CellRow>(&cell), [wanted]);
    let top = one(&world, &Wanted::Top { from: 1, limit: 9 });
    let row =
        |rank, player, score| RankRow { rank, player, score, score_epoch: claimed_at(player) };
    // Of equal scores the older is first.
    assert_eq!(rows::<RankRow>(&top), [row(1, 2, 70), row(2, 1, 50), row(3, 3, 50)]);
    assert_eq!((top.0.status, top.0.next), (QueryStatus::Found, 0));
    let rank = one(&world, &Wanted::Rank { player: 3, around: 1 });
    assert_eq!(rows::<RankRow>(&rank), [row(2, 1, 50), row(3, 3, 50)]);
    let first = one(&world, &Wanted::Rank { player: 2, around: 1 });
    assert_eq!(rows::<RankRow>(&first), [row(1, 2, 70), row(2, 1, 50)]);
    let hunt = one(&world, &Wanted::Hunt);
    let wanted = HuntRow {
        cells: 3,
        players: 3,
        ranked: 3,
        phase: HuntPhase::Playing as u8,
        score_epoch: claimed_at(3),
        ..HuntRow::default()
    };
    assert_eq!(rows::<HuntRow>(&hunt), [wanted]);
    let near = one(&world, &Wanted::NearestCells { to: 8, limit: 2 });
    let near: Vec<u64> = rows::<CellRow>(&near).iter().map(|row| row.cell).collect();
    assert_eq!(near, [8, 9]);
}

#[test]
fn boxes_and_leaderboards_are_read_page_by_page() {
    let claims: Vec<_> = (0..40).map(|n| (n, n, 10)).collect();
    let world = world(&claims);
    let (mut from, mut seen) = (0, Vec::new());
    loop {
        let field = Wanted::CellsInBox { x: [0, 7], y: [0, 7], from, limit: 7 };
        let page = one(&world, &field);
        let cells = rows::<CellRow>(&page);
        assert!(!cells.is_empty() && cells.len() <= 7);
        seen.extend(cells.iter().map(|row| row.cell));
        if page.0.status == QueryStatus::Found {
            break;
        }
        assert_eq!(page.0.status, QueryStatus::More);
        from = page.0.next;
    }
    assert!(seen.into_iter().eq(0..40), "each cell once, in order");
    let page = one(&world, &Wanted::Top { from: 33, limit: 5 });
    assert_eq!((page.0.status, page.0.next, page.0.rows), (QueryStatus::More, 38, 5));
    let page = one(&world, &Wanted::Top { from: 38, limit: 5 });
    assert_eq!((page.0.status, page.0.next, page.0.rows), (QueryStatus::Found, 0, 3));
    let past = one(&world, &Wanted::Top { from: 41, limit: 5 });
    assert_eq!((past.0.status, past.0.rows), (QueryStatus::Found, 0));
}

#[test]
fn whatever_cannot_be_answered_is_named() {
    let world = world(&[(8, 1, 50)]);
    let status = |wanted| one(&world, &wanted).0.status;
    assert_eq!(status(Wanted::Player(2)), QueryStatus::NotFound);
    assert_eq!(status(Wanted::Cell(9)), QueryStatus::NotFound);
    assert_eq!(status(Wanted::Rank { player: 2, around: 0 }), QueryStatus::NotFound);
    for malformed in [
        Wanted::NearestCells { to: 8, limit: 0 },
        Wanted::NearestCells { to: 8, limit: ROWS_MAX + 1 },
        Wanted::Top { from: 1, limit: 0 },
        Wanted::CellsInBox { x: [5, 4], y: [0, 0], from: 0, limit: 1 },
        Wanted::CellsInBox { x: [0, query::COORDINATE_MAX + 1], y: [0, 0], from: 0, limit: 1 },
        Wanted::Cell(1 << 60),
        Wanted::Rank { player: 1, around: 50 },
    ] {
        assert_eq!(status(malformed), QueryStatus::Malformed, "{malformed:?}");
    }
    let statuses = |partition, min_epoch, bytes| {
        let wanted = [Query::of(&Wanted::Player(1)), Query::of(&Wanted::Top { from: 1, limit: 3 })];
        let answer = ask(partition, &wanted, min_epoch, bytes);
        let entries = Entries::check(&answer, 2).unwrap();
        entries.map(|entry| entry.head.status).collect::<Vec<_>>()
    };
    let home = Some(world.home());
    assert_eq!(statuses(home, 77, ROOMY), [QueryStatus::Found; 2]);
    assert_eq!(statuses(home, 78, ROOMY), [QueryStatus::Behind; 2]);
    assert_eq!(statuses(None, 0, ROOMY), [QueryStatus::Moving; 2]);
    assert_eq!(statuses(home, 0, 0), [QueryStatus::NoRoom, QueryStatus::Found]);
    let answer = |domain: u64| {
        let request = body(&[Query::of(&Wanted::Hunt)], 0, ROOMY);
        let queries = Queries::check(&request, 1).unwrap();
        let mut out = vec![0; ROOMY];
        let bytes = super::answer(home, domain, &queries, SHOWN, &mut out);
        Entries::check(&out[..bytes], 1).unwrap().next().unwrap().head.status
    };
    assert_eq!(answer(HUNT + 1), QueryStatus::NotFound, "no such hunt");
}

/// Cells beside a box, every other one of a long line: each is looked at and none
/// is found.
#[test]
fn a_datagram_looks_at_so_many_cells_and_says_where_to_go_on() {
    let beside = 3_000;
    let claims: Vec<_> =
        (0..beside).map(|y| (crate::index::morton_of(1_022, 2 * y), 1, 1)).collect();
    let world = world_with(&claims, 4_000);
    let x = [1_023, 1_023];
    let mut from = 0;
    let mut pages = 0;
    loop {
        let page = one(&world, &Wanted::CellsInBox { x, y: [0, 1 << 20], from, limit: 1 });
        pages += 1;
        assert_eq!(page.0.rows, 0);
        if page.0.status == QueryStatus::Found {
            break;
        }
        assert_eq!(page.0.status, QueryStatus::More);
        assert!(page.0.next > from, "it goes on");
        from = page.0.next;
    }
    assert_eq!(pages, beside as usize / STEPS_MAX + 1);
    // They share it.
    let field = Query::of(&Wanted::CellsInBox { x, y: [0, 1 << 20], from: 0, limit: 1 });
    let answer = ask(Some(world.home()), &[field; 2], 0, ROOMY);
    let next: Vec<u64> = Entries::check(&answer, 2).unwrap().map(|e| e.head.next).collect();
    assert!(next[0] > next[1] && next[1] > 0, "{next:?}");
    // On a line that comes nearer, each is nearer than the one before it. The leaf at
    // its end holds the last of them, but not as many as the most that can be asked for.
    let claims: Vec<_> = (0..3_000).map(|x| (crate::index::morton_of(x, 0), 1, 1)).collect();
    let world = world_with(&claims, 4_000);
    let nearest = |x: u32, limit: u16| {
        one(&world, &Wanted::NearestCells { to: crate::index::morton_of(x, 0), limit })
    };
    assert_eq!(nearest(1 << 13, ROWS_MAX).0.status, QueryStatus::TooMuch);
    for (x, last) in [(1 << 13, 2_999), (2_500, 2_500)] {
        let near = nearest(x, 1);
        assert_eq!(rows::<CellRow>(&near)[0].cell, crate::index::morton_of(last, 0));
    }
}

fn any_query() -> impl Strategy<Value = Query> {
    let kind = prop_oneof![9 => 1..=7u8, 1 => any::<u8>()];
    let number = || prop_oneof![4 => 0..60u64, 1 => any::<u64>()];
    let limit = prop_oneof![1 => Just(0), 4 => 1..=ROWS_MAX, 1 => any::<u16>()];
    (kind, limit, number(), number(), number()).prop_map(|(kind, limit, a, b, c)| {
        let of = QueryKind::from_code(kind);
        let has_limit = !matches!(
            of,
            Some(QueryKind::Player | QueryKind::Cell | QueryKind::Rank | QueryKind::Hunt)
        );
        let limit = if has_limit { limit } else { 0 };
        let b = match of {
            Some(QueryKind::CellsInBox) => query::corner(30, 30),
            Some(QueryKind::Rank) => b,
            _ => 0,
        };
        let c = if of == Some(QueryKind::CellsInBox) { c } else { 0 };
        Query { kind, zero: 0, limit, tag: kind.into(), a, b, c }
    })
}

proptest! {
    /// An answer is never larger than its question, is whole, and has an entry
    /// for each query.
    #[test]
    fn no_answer_is_larger_than_its_question(
        queries in prop::collection::vec(any_query(), 1..12),
        bytes in 0..1_300usize,
    ) {
        let claims: Vec<_> = (0..50).map(|n| (n * 3, n % 20, 1 + n as u32)).collect();
        thread_local!(static WORLD: std::cell::OnceCell<World> = const { std::cell::OnceCell::new() });
        let bytes = bytes.next_multiple_of(8);
        let (answer, room) = WORLD.with(|cell| {
            let world = cell.get_or_init(|| world(&claims));
            let room = body(&queries, 0, bytes).len();
            (ask(Some(world.home()), &queries, 0, bytes), room)
        });
        prop_assert!(answer.len() <= room);
        let entries = Entries::check(&answer, queries.len() as u16).expect("a whole answer");
        for (entry, query) in entries.zip(&queries) {
            prop_assert_eq!((entry.head.kind, entry.head.tag), (query.kind, query.tag));
            let bytes = ENTRY_FIXED_BYTES
                + usize::from(entry.head.rows) * query::row_bytes(query.kind);
            prop_assert!(bytes <= query.answer_bytes_max());
            prop_assert_eq!(query.wanted().is_none(), entry.head.status == QueryStatus::Malformed);
        }
    }
}
