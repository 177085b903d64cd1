//! Queries against a server that loses, delays, lags and answers nonsense.

mod fake;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use fake::{Asked, Fake, answer, bare, busy, entry, refused};
use veltrix_abi::query::{Query, QueryStatus};
use veltrix_client::{
    CellRow, Client, ClientBuilder, Event, HuntRow, PlayerRow, QueryError, QueryKind, RankRow,
    Refusal, Rows, Wanted,
};

/// Waits for answers long enough that a busy machine causes no retry.
fn patient() -> ClientBuilder {
    Client::builder().deadline(Duration::from_secs(1)).retry_base(Duration::from_millis(100))
}

/// Retries as soon as the defaults do.
fn quick() -> ClientBuilder {
    Client::builder().deadline(Duration::from_millis(500))
}

fn player(id: u64) -> PlayerRow {
    PlayerRow { player: id, wallet: 5, score: 100, score_epoch: 8, rank: 3, ..PlayerRow::default() }
}

fn ranks(range: std::ops::Range<u32>) -> Vec<RankRow> {
    let row = |rank| RankRow { rank, player: rank.into(), score: 1_000, score_epoch: 8 };
    range.map(row).collect()
}

/// A row for each query that asks for one of a thing, with its own id in it.
fn found(query: &Query) -> Vec<u8> {
    let status = QueryStatus::Found;
    match query.wanted().expect("sound") {
        Wanted::Player(id) => entry(query, status, 0, &[player(id)]),
        Wanted::Cell(cell) => entry(query, status, 0, &[CellRow { cell, ..CellRow::default() }]),
        Wanted::Hunt => entry(query, status, 0, &[HuntRow { cells: 4, ..HuntRow::default() }]),
        Wanted::CellsInBox { from, .. } => {
            entry(query, status, 0, &[CellRow { cell: from, ..CellRow::default() }])
        }
        Wanted::NearestCells { to, .. } => {
            entry(query, status, 0, &[CellRow { cell: to, ..CellRow::default() }])
        }
        Wanted::Top { from, limit } => {
            entry(query, status, 0, &ranks(from..from + u32::from(limit)))
        }
        Wanted::Rank { player, .. } => {
            let row = RankRow { rank: 3, player, ..RankRow::default() };
            entry(query, status, 0, &[row])
        }
    }
}

fn all_found(asked: &[Asked]) -> Vec<Vec<u8>> {
    let last = &asked[asked.len() - 1];
    vec![answer(&last.header, &last.queries.iter().map(found).collect::<Vec<_>>())]
}

/// The same status for every query of the last datagram.
fn all(asked: &[Asked], status: QueryStatus) -> Vec<Vec<u8>> {
    let last = &asked[asked.len() - 1];
    let entries: Vec<_> = last.queries.iter().map(|query| bare(query, status)).collect();
    vec![answer(&last.header, &entries)]
}

#[tokio::test]
async fn every_kind_gives_its_rows_with_epoch_and_age() {
    let server = Fake::answering(all_found).await;
    let client = patient().connect(server.addr).await.expect("connects");
    assert!(client.server().answers_queries());
    let hunt = client.domain(42);
    let read = hunt.player(7).await.expect("read");
    assert_eq!((read.value, read.epoch), (Some(player(7)), 9));
    assert_eq!(read.age, Duration::from_nanos(1_500));
    let cell = hunt.cell(0x100).await.expect("read").value.expect("there");
    assert_eq!(cell.cell, 0x100);
    let page = hunt.cells_in_box(0..=9, 5..=20, 3, 10).await.expect("read").value;
    assert_eq!((page.rows[0].cell, page.more, page.next), (3, false, None));
    assert_eq!(hunt.nearest_cells(4, 10).await.expect("read").value.rows[0].cell, 4);
    assert_eq!(hunt.top(1, 10).await.expect("read").value.rows, ranks(1..11));
    assert_eq!(hunt.rank(7, 5).await.expect("read").value.rows[0].player, 7);
    assert_eq!(hunt.summary().await.expect("read").value.expect("there").cells, 4);

    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.header.domain == 42 && asked.min_epoch == 0));
    let wanted: Vec<_> = asked.iter().map(|asked| asked.queries[0].wanted()).collect();
    let in_box = Wanted::CellsInBox { x: [0, 9], y: [5, 20], from: 3, limit: 10 };
    assert_eq!(wanted[2], Some(in_box));
    assert_eq!(wanted[5], Some(Wanted::Rank { player: 7, around: 5 }));
    let stats = client.close().await;
    assert_eq!((stats.queries_submitted, stats.queries_answered, stats.retries), (7, 7, 0));
}

#[tokio::test]
async fn a_query_is_as_long_as_its_answer_may_be_and_no_longer_than_a_datagram() {
    let server = Fake::answering(all_found).await;
    let client = patient().connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    hunt.player(7).await.expect("read");
    hunt.top(1, 10).await.expect("read");
    hunt.query(&[Wanted::Player(1), Wanted::Hunt]).await.expect("read");
    // A hundred rows are more than a datagram holds.
    let in_box = Wanted::CellsInBox { x: [0, 1], y: [0, 1], from: 0, limit: 100 };
    hunt.query(&[in_box]).await.expect("read");
    let bytes: Vec<usize> = server.asked().iter().map(|asked| asked.bytes).collect();
    let row = |bytes: usize| 16 + bytes;
    assert_eq!(bytes, [64 + row(56), 64 + row(320), 64 + row(56) + row(272), 1_232]);
}

#[tokio::test]
async fn queries_asked_together_share_a_datagram_and_keep_their_order() {
    let server = Fake::answering(all_found).await;
    let client = patient().connect(server.addr).await.expect("connects");
    let wanted = [Wanted::Hunt, Wanted::Player(7), Wanted::Cell(3), Wanted::Player(8)];
    let read = client.domain(1).query(&wanted).await.expect("read");
    let [Rows::Hunt(Some(_)), Rows::Player(seven), Rows::Cell(Some(_)), Rows::Player(eight)] =
        &read.value[..]
    else {
        panic!("{read:?}");
    };
    assert_eq!((seven, eight), (&Some(player(7)), &Some(player(8))));
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].header.count), (1, 4));
    let tags: Vec<u32> = asked[0].queries.iter().map(|query| query.tag).collect();
    assert_eq!(tags, [0, 1, 2, 3]);
    assert_eq!(client.close().await.queries_answered, 4);
}

#[tokio::test]
async fn what_is_not_there_is_none_or_an_empty_page() {
    let server = Fake::answering(|asked| all(asked, QueryStatus::NotFound)).await;
    let client = patient().connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    assert_eq!(hunt.player(7).await.expect("read").value, None);
    assert_eq!(hunt.cell(7).await.expect("read").value, None);
    assert_eq!(hunt.summary().await.expect("read").value, None);
    let page = hunt.rank(7, 1).await.expect("read").value;
    assert_eq!((page.rows, page.more, page.next), (vec![], false, None));
}

#[tokio::test]
async fn pages_follow_each_other_by_their_next() {
    // Five players, two rows a page.
    let server = Fake::answering(|asked| {
        let last = &asked[asked.len() - 1];
        let Some(Wanted::Top { from, limit }) = last.queries[0].wanted() else {
            panic!("{last:?}")
        };
        let end = (from + u32::from(limit)).min(6);
        let (status, next) =
            if end < 6 { (QueryStatus::More, end) } else { (QueryStatus::Found, 0) };
        let rows = ranks(from..end);
        vec![answer(&last.header, &[entry(&last.queries[0], status, next.into(), &rows)])]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    let (mut from, mut seen) = (1, Vec::new());
    loop {
        let page = hunt.top(from, 2).await.expect("read").value;
        assert_eq!(page.more, page.next.is_some());
        seen.extend(page.rows);
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(seen, ranks(1..6));
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn more_without_a_place_to_go_on_is_said() {
    let server = Fake::answering(|asked| {
        let last = &asked[asked.len() - 1];
        let rows = [CellRow::default()];
        vec![answer(&last.header, &[entry(&last.queries[0], QueryStatus::More, 0, &rows)])]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let page = client.domain(1).nearest_cells(0, 1).await.expect("read").value;
    assert_eq!((page.rows.len(), page.more, page.next), (1, true, None));
}

#[tokio::test]
async fn lost_queries_are_asked_again_under_new_sequences() {
    let server =
        Fake::answering(|asked| if asked.len() < 4 { vec![] } else { all_found(asked) }).await;
    let client = quick().connect(server.addr).await.expect("connects");
    client.domain(1).player(7).await.expect("read");
    let asked = server.asked();
    let mut sequences: Vec<u64> = asked.iter().map(|asked| asked.header.sequence).collect();
    sequences.dedup();
    assert_eq!(sequences.len(), asked.len(), "a sequence was used twice");
    assert!(asked.iter().all(|one| one.queries == asked[0].queries));
    assert!(client.close().await.retries >= 3);
}

#[tokio::test]
async fn an_answer_of_an_earlier_try_counts_and_a_second_one_is_late() {
    let server = Fake::answering(|asked| match asked.len() {
        1 => vec![],
        2 => [all_found(&asked[..1]), all_found(asked)].concat(),
        _ => all_found(asked),
    })
    .await;
    let client = quick().connect(server.addr).await.expect("connects");
    client.domain(1).player(7).await.expect("read");
    client.domain(1).player(8).await.expect("read");
    let stats = client.close().await;
    assert_eq!(stats.queries_answered, 2);
    assert!(stats.replies_late >= 1);
}

#[tokio::test]
async fn the_epoch_of_a_receipt_can_be_asked_for_and_a_server_behind_is_asked_again() {
    let server = Fake::answering(|asked| match asked.len() {
        1 => all(asked, QueryStatus::Behind),
        2 => all(asked, QueryStatus::Moving),
        _ => all_found(asked),
    })
    .await;
    let client = quick().connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    let receipt = hunt.send(Event::claim(7, 1)).await.expect("applied");
    let read = hunt.at_least(receipt.epoch).player(7).await.expect("read");
    assert!(read.epoch >= receipt.epoch);
    let asked = server.asked();
    assert!(asked.len() >= 3 && asked.iter().all(|asked| asked.min_epoch == receipt.epoch));
    hunt.player(7).await.expect("read");
    assert_eq!(server.asked().last().expect("asked").min_epoch, 0);
}

#[tokio::test]
async fn at_the_deadline_the_error_says_what_it_waited_for() {
    let behind = Fake::answering(|asked| all(asked, QueryStatus::Behind)).await;
    let client = quick().connect(behind.addr).await.expect("connects");
    match client.domain(1).at_least(12).player(7).await {
        Err(QueryError::Behind { min_epoch: 12, epoch: 9, tries }) => assert!(tries > 2, "{tries}"),
        other => panic!("{other:?}"),
    }
    let moving = Fake::answering(|asked| all(asked, QueryStatus::Moving)).await;
    let client = quick().connect(moving.addr).await.expect("connects");
    let error = client.domain(1).player(7).await.expect_err("no rows");
    assert!(matches!(error, QueryError::Moving { .. }), "{error}");
    let silent = Fake::answering(|_| vec![]).await;
    let client = quick().connect(silent.addr).await.expect("connects");
    let started = Instant::now();
    let error = client.domain(1).player(7).await.expect_err("no rows");
    assert!(matches!(error, QueryError::Deadline { busy: 0, .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(499));
    assert_eq!(client.close().await.queries_timed_out, 1);
}

#[tokio::test]
async fn busy_is_waited_out() {
    let server = Fake::answering(|asked| match asked.len() {
        1 => vec![busy(&asked[0].header, 150_000)],
        _ => all_found(asked),
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let started = Instant::now();
    client.domain(1).player(7).await.expect("read");
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    assert_eq!(client.close().await.busy, 1);
}

#[tokio::test]
async fn what_the_server_will_never_answer_is_an_error_at_once() {
    let server = Fake::answering(|asked| {
        let last = &asked[asked.len() - 1];
        match asked.len() {
            1 => vec![refused(&last.header, Refusal::QueryUnavailable)],
            2 => all(asked, QueryStatus::Malformed),
            _ => {
                let no_room = bare(&last.queries[1], QueryStatus::NoRoom);
                vec![answer(&last.header, &[found(&last.queries[0]), no_room])]
            }
        }
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    match hunt.player(7).await {
        Err(QueryError::Refused(why)) => assert_eq!(why.reason, Some(Refusal::QueryUnavailable)),
        other => panic!("{other:?}"),
    }
    let error = hunt.player(7).await.expect_err("malformed");
    assert_eq!(error, QueryError::Malformed { index: 0, kind: QueryKind::Player });
    let error = hunt.query(&[Wanted::Hunt, Wanted::Player(7)]).await.expect_err("no room");
    let bytes = 64 + 16 + 272 + 16 + 56;
    assert_eq!(error, QueryError::NoRoom { index: 1, kind: QueryKind::Player, bytes });
    let stats = client.close().await;
    assert_eq!((stats.queries_refused, stats.queries_failed), (1, 3));
    assert_eq!(stats.datagrams_sent, 3);
}

#[tokio::test]
async fn answers_to_something_else_are_counted_and_change_nothing() {
    let server = Fake::answering(|asked| {
        let last = &asked[asked.len() - 1];
        let query = &last.queries[0];
        let mut stranger = last.header;
        stranger.session ^= 1;
        let right = || found(query);
        let other = Query { kind: QueryKind::Hunt.code(), ..*query };
        let mut damaged = answer(&last.header, &[right()]);
        damaged[70] ^= 1;
        vec![
            answer(&stranger, &[right()]),
            damaged,
            // Two entries, another kind, another tag, too many rows, too few.
            answer(&last.header, &[right(), right()]),
            answer(&last.header, &[entry(&other, QueryStatus::Found, 0, &[HuntRow::default()])]),
            answer(&last.header, &[found(&Query { tag: 1, ..*query })]),
            answer(&last.header, &[entry(query, QueryStatus::Found, 0, &[player(1), player(2)])]),
            answer(&last.header, &[bare(query, QueryStatus::Found)]),
            fake::applied(&fake::Got {
                header: last.header,
                mode: veltrix_client::Mode::Durable,
                keys: vec![[0; 16]],
                subjects: vec![0],
            }),
            answer(&last.header, &[right()]),
        ]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    assert_eq!(client.domain(1).player(7).await.expect("read").value, Some(player(7)));
    let stats = client.close().await;
    assert_eq!((stats.replies_foreign, stats.replies_invalid), (1, 7));
}

#[tokio::test]
async fn queries_that_cannot_be_are_refused_before_they_leave() {
    let server = Fake::answering(all_found).await;
    let client = patient().payload_bytes_max(136).connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    let wide = 1 << 60;
    assert_eq!(hunt.query(&[]).await.err(), Some(QueryError::Empty));
    assert_eq!(hunt.top(1, 0).await.err(), Some(QueryError::Limit { limit: 0 }));
    assert_eq!(hunt.nearest_cells(1, 101).await.err(), Some(QueryError::Limit { limit: 101 }));
    let from = 1 << 32;
    assert_eq!(hunt.top(from, 1).await.err(), Some(QueryError::Rank { from }));
    assert_eq!(hunt.rank(7, 50).await.err(), Some(QueryError::Around { around: 50 }));
    assert_eq!(hunt.cell(wide).await.err(), Some(QueryError::Cell { cell: wide }));
    let error =
        hunt.cells_in_box(0..=1, RangeInclusive::new(9, 8), 0, 1).await.expect_err("inverted");
    assert_eq!(error, QueryError::Box { x: [0, 1], y: [9, 8] });
    let error = hunt.cells_in_box(0..=1 << 30, 0..=1, 0, 1).await.expect_err("off the map");
    assert_eq!(error, QueryError::Box { x: [0, 1 << 30], y: [0, 1] });
    let two = [Wanted::Hunt, Wanted::Hunt];
    let (queries, bytes, datagram_bytes_max) = (2, 640, 136);
    let wanted = QueryError::DatagramTooSmall { queries, bytes, datagram_bytes_max };
    assert_eq!(hunt.query(&two).await.err(), Some(wanted));
    hunt.player(7).await.expect("fits exactly");
    assert_eq!(server.asked().len(), 1);
    assert_eq!(client.close().await.queries_submitted, 1);
}

#[tokio::test]
async fn a_query_nobody_waits_for_is_not_asked_again() {
    let server = Fake::answering(|_| vec![]).await;
    let client = patient().connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    let gave_up = tokio::time::timeout(Duration::from_millis(20), hunt.player(7)).await;
    assert!(gave_up.is_err());
    let stats = client.close().await;
    assert_eq!((stats.queries_abandoned, stats.datagrams_sent), (1, 1));
}

#[tokio::test]
async fn queries_take_room_in_flight_and_close_ends_them() {
    let server = Fake::answering(|_| vec![]).await;
    let client = quick().events_in_flight_max(1).connect(server.addr).await.expect("connects");
    let hunt = client.domain(1);
    let (first, second) = tokio::join!(
        hunt.player(7),
        tokio::time::timeout(Duration::from_millis(100), hunt.player(8)),
    );
    assert!(matches!(first, Err(QueryError::Deadline { .. })));
    assert!(second.is_err(), "the second did not wait for room");
    client.close().await;
    assert_eq!(hunt.player(7).await.err(), Some(QueryError::Closed));
    assert_eq!(server.asked().iter().filter(|a| a.queries[0].a == 8).count(), 0);
}
