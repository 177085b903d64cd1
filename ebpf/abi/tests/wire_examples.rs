//! `userspace/docs/WIRE.md` against this crate: every hex example on the page
//! is what the writers write and the decoders read, and every table of codes
//! is the enum behind it.

use std::collections::BTreeMap;

use veltrix_abi::kinds::{CELL_BITS, EventKind, SCORE_MAX};
use veltrix_abi::limits::{
    ACK_ENTRY_FIXED_BYTES, EVENT_FIXED_BYTES, EVENT_PAYLOAD_BYTES_MAX, HEADER_BYTES,
    PAYLOAD_BYTES_LIMIT, PAYLOAD_BYTES_MAX_DEFAULT, TAG_BYTES,
};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::query::{
    COORDINATE_MAX, CellRow, ENTRY_FIXED_BYTES, EntryHead, HuntRow, PlayerRow, QUERY_BYTES,
    QUERY_HEAD_BYTES, Queries, Query, QueryKind, QueryStatus, ROWS_MAX, RankRow, Row, Wanted,
    row_bytes, write_answer_head,
};
use veltrix_abi::wire::{
    self, AckEntry, Event, HELLO_BODY_BYTES, Header, Kind, Mode, PING_BODY_BYTES, Pong, Reply,
    Request, SHORT_BODY_BYTES, Welcome,
};
use veltrix_abi::{Outcome, Refusal};

const PAGE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../userspace/docs/WIRE.md"));

const SESSION: u64 = 0x1122_3344_5566_7788;
const LOG_TIME_NS: u64 = 1_767_225_600_000_000_000;

/// The page's blocks fenced as "hex NAME", by name: pairs of digits, comments
/// from `#` to the end of the line.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let mut found = BTreeMap::new();
    for block in PAGE.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a name and a line end");
        let (body, _) = rest.split_once("```").expect("a closing fence");
        let bytes = body
            .lines()
            .flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace())
            .map(|pair| {
                u8::from_str_radix(pair, 16).unwrap_or_else(|e| panic!("{name}: {pair}: {e}"))
            })
            .collect();
        assert!(found.insert(name, bytes).is_none(), "{name} is there twice");
    }
    found
}

/// Rows of the page's table under the heading `title`, cells trimmed.
fn table(title: &str) -> Vec<Vec<&'static str>> {
    let (_, section) =
        PAGE.split_once(&format!("{title}\n")).unwrap_or_else(|| panic!("no heading {title}"));
    section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn finished(header: Header, body: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER_BYTES];
    header.write(&mut datagram);
    datagram.extend_from_slice(body);
    wire::finish(&mut datagram, crc_fast::crc32_iscsi);
    datagram
}

fn header(kind: Kind, count: u16, sequence: u64, domain: u64) -> Header {
    Header { count, session: SESSION, sequence, domain, ..Header::new(kind) }
}

fn events() -> [Event<'static>; 2] {
    let key = |n| {
        let mut key = *b"\x01\x9b\x76\xda\xa8\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\x00";
        key[15] = n;
        key
    };
    let first = Event {
        key: key(1),
        player: 7,
        subject: 0x0123_4567_89ab_cdef,
        argument: 3,
        kind: 1,
        reserved: 0,
        payload: b"",
    };
    let second =
        Event { key: key(2), subject: 0xff, argument: 1, kind: 2, payload: b"gold!", ..first };
    [first, second]
}

/// Sequence, epoch, mode, outcomes, epochs of the duplicates.
type Entry<'a> = (u64, u64, Mode, &'a [u8], &'a [u64]);

fn ack(sequence: u64, domain: u64, entries: &[Entry<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (sequence, epoch, mode, outcomes, epochs) in entries {
        let at = body.len();
        let bytes = AckEntry::wire_bytes(outcomes.len(), epochs.len());
        body.resize(at + bytes, 0);
        let duplicates = epochs.len() as u16;
        AckEntry::write(&mut body[at..], *sequence, *epoch, *mode, outcomes, duplicates);
        let tail = body.len() - 8 * epochs.len();
        for (chunk, epoch) in body[tail..].chunks_exact_mut(8).zip(*epochs) {
            chunk.copy_from_slice(&epoch.to_le_bytes());
        }
    }
    finished(header(Kind::Ack, entries.len() as u16, sequence, domain), &body)
}

const ASKED: [Wanted; 2] = [Wanted::Player(7), Wanted::Top { from: 1, limit: 2 }];

fn queries() -> Vec<Query> {
    ASKED.iter().zip(1..).map(|(wanted, tag)| Query { tag, ..Query::of(wanted) }).collect()
}

/// Padded to the size of the largest answer.
fn query() -> Vec<u8> {
    let room: usize = queries().iter().map(Query::answer_bytes_max).sum();
    let mut body = vec![0; QUERY_HEAD_BYTES + room];
    Queries::write_head(&mut body, 1000);
    let places = body[QUERY_HEAD_BYTES..].chunks_exact_mut(QUERY_BYTES);
    queries().iter().zip(places).for_each(|(query, place)| query.write(place));
    finished(header(Kind::Query, 2, 11, 42), &body)
}

fn player_row() -> PlayerRow {
    let inventory = [0, 3, 0, 0, 0, 0, 0, 1];
    PlayerRow {
        player: 7,
        wallet: 250,
        score: 120,
        score_epoch: 990,
        inventory,
        rank: 2,
        ..PlayerRow::default()
    }
}

fn rank_rows() -> [RankRow; 2] {
    [
        RankRow { rank: 1, player: 9, score: 120, score_epoch: 850 },
        RankRow { rank: 2, player: 7, score: 120, score_epoch: 990 },
    ]
}

fn answer() -> Vec<u8> {
    fn push<R: Row>(body: &mut Vec<u8>, query: &Query, status: QueryStatus, next: u64, rows: &[R]) {
        let mut entry = vec![0; ENTRY_FIXED_BYTES + R::BYTES * rows.len()];
        let Query { kind, tag, .. } = *query;
        EntryHead { kind, status, rows: rows.len() as u16, tag, next }.write(&mut entry);
        let places = entry[ENTRY_FIXED_BYTES..].chunks_exact_mut(R::BYTES);
        rows.iter().zip(places).for_each(|(row, place)| row.write(place));
        body.extend(entry);
    }
    let mut body = vec![0; QUERY_HEAD_BYTES];
    write_answer_head(&mut body, 1003, 250_000);
    let queries = queries();
    push(&mut body, &queries[0], QueryStatus::Found, 0, &[player_row()]);
    push(&mut body, &queries[1], QueryStatus::More, 3, &rank_rows());
    finished(header(Kind::Answer, 2, 11, 42), &body)
}

fn welcome() -> Welcome {
    Welcome {
        log_time_ns: LOG_TIME_NS,
        epoch: 0,
        partitions: 64,
        lanes: 2,
        port_first: 4747,
        port_last: 4747,
        modes: Welcome::mode_bit(Mode::None),
        version_min: 1,
        version_max: 1,
        role: 1,
        payload_bytes_max: 1232,
        events_max: 24,
        cookie: 0,
        cluster_id: 0,
        features: 0,
    }
}

/// Every example, written by this crate.
fn built() -> BTreeMap<&'static str, Vec<u8>> {
    let mut events_body = [0; 256];
    let mut bytes = 0;
    for event in events() {
        bytes += event.write(&mut events_body[bytes..]);
    }
    let mut ping_body = [0; PING_BODY_BYTES];
    ping_body[..8].copy_from_slice(&1_000_000_u64.to_le_bytes());
    let mut pong_body = [0; PING_BODY_BYTES];
    Pong {
        client_sent_ns: 1_000_000,
        server_received_ns: LOG_TIME_NS,
        server_sent_ns: LOG_TIME_NS + 700,
    }
    .write(&mut pong_body);
    let mut welcome_body = [0; HELLO_BODY_BYTES];
    welcome().write(&mut welcome_body);
    let durable = Header { mode: Mode::Durable as u8, ..header(Kind::Events, 2, 7, 42) };
    let applied = Outcome::Applied.code();
    let claimed_before = Outcome::AlreadyClaimed.code() | DUPLICATE_BIT;
    let (accepted, malformed) = (Outcome::Accepted.code(), Outcome::Malformed.code());
    BTreeMap::from([
        ("events", finished(durable, &events_body[..bytes])),
        (
            "ack-duplicate",
            ack(7, 42, &[(7, 1000, Mode::Durable, &[applied, claimed_before], &[990])]),
        ),
        (
            "ack-coalesced",
            ack(
                8,
                42,
                &[
                    (8, 0, Mode::None, &[accepted, accepted, malformed], &[]),
                    (9, 0, Mode::None, &[accepted], &[]),
                ],
            ),
        ),
        ("query", query()),
        ("answer", answer()),
        ("ping", finished(header(Kind::Ping, 0, 10, 0), &ping_body)),
        ("pong", finished(header(Kind::Pong, 0, 10, 0), &pong_body)),
        ("hello", finished(header(Kind::Hello, 0, 1, 0), &[0; HELLO_BODY_BYTES])),
        ("welcome", finished(header(Kind::Welcome, 0, 1, 0), &welcome_body)),
        ("busy", finished(header(Kind::Busy, 0, 7, 42), &5_000_u64.to_le_bytes())),
        (
            "refused",
            finished(
                header(Kind::Refused, 0, 7, 42),
                &[Refusal::DurableUnavailable.code(), 1, 1, 0, 0, 0, 0, 0],
            ),
        ),
    ])
}

fn hex(bytes: &[u8]) -> String {
    let rows = bytes
        .chunks(8)
        .map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "));
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_examples_are_what_the_crate_writes() {
    let page = examples();
    let built = built();
    assert_eq!(page.keys().collect::<Vec<_>>(), built.keys().collect::<Vec<_>>());
    for (name, bytes) in &built {
        assert_eq!(hex(&page[name]), hex(bytes), "`{name}`: the page is on the left");
    }
}

#[test]
fn the_requests_decode_to_what_the_page_says() {
    let page = examples();
    let (_, request) = wire::decode(&page["events"], crc_fast::crc32_iscsi).expect("sound");
    let Request::Events(Mode::Durable, got) = request else { panic!("{request:?}") };
    assert_eq!(got.collect::<Vec<_>>(), events());
    assert!(events().iter().all(Event::is_well_formed));

    let (_, request) = wire::decode(&page["query"], crc_fast::crc32_iscsi).expect("sound");
    let Request::Query(got) = request else { panic!("{request:?}") };
    assert_eq!(got.min_epoch, 1000);
    assert_eq!(got.iter().collect::<Vec<_>>(), queries());
    assert_eq!(got.iter().filter_map(|query| query.wanted()).collect::<Vec<_>>(), ASKED);

    let (_, request) = wire::decode(&page["ping"], crc_fast::crc32_iscsi).expect("sound");
    assert!(matches!(request, Request::Ping(1_000_000)), "{request:?}");
    let (_, request) = wire::decode(&page["hello"], crc_fast::crc32_iscsi).expect("sound");
    assert!(matches!(request, Request::Hello), "{request:?}");
}

#[test]
fn the_replies_decode_to_what_the_page_says() {
    let page = examples();
    let read = |name| {
        let (header, reply) = wire::decode_reply(&page[name], crc_fast::crc32_iscsi).expect(name);
        assert_eq!(header.session, SESSION);
        reply
    };
    let Reply::Ack(mut entries) = read("ack-duplicate") else { panic!("not an ack") };
    let entry = entries.next().expect("one entry");
    assert_eq!((entry.sequence, entry.epoch, entry.mode), (7, 1000, Mode::Durable));
    assert_eq!(entry.outcomes, [2, 0x83]);
    assert_eq!(entry.duplicate_epochs().collect::<Vec<_>>(), [990]);
    assert_eq!(entries.next(), None);

    let Reply::Ack(entries) = read("ack-coalesced") else { panic!("not an ack") };
    let entries: Vec<_> = entries.map(|entry| (entry.sequence, entry.outcomes.to_vec())).collect();
    assert_eq!(entries, [(8, vec![1, 1, 12]), (9, vec![1])]);

    let Reply::Answer(entries) = read("answer") else { panic!("not an answer") };
    assert_eq!((entries.epoch, entries.age_ns), (1003, 250_000));
    let entries: Vec<_> = entries.collect();
    let heads = entries.iter().map(|entry| (entry.head.status, entry.head.tag, entry.head.next));
    let wanted = [(QueryStatus::Found, 1, 0), (QueryStatus::More, 2, 3)];
    assert_eq!(heads.collect::<Vec<_>>(), wanted);
    assert_eq!(entries[0].rows().collect::<Vec<PlayerRow>>(), [player_row()]);
    assert_eq!(entries[1].rows().collect::<Vec<RankRow>>(), rank_rows());

    let Reply::Pong(pong) = read("pong") else { panic!("not a pong") };
    assert_eq!(pong.server_sent_ns - pong.server_received_ns, 700);
    let Reply::Welcome(facts) = read("welcome") else { panic!("not a welcome") };
    assert_eq!(facts, welcome());
    assert!(matches!(read("busy"), Reply::Busy { retry_after_us: 5_000 }));
    assert!(matches!(
        read("refused"),
        Reply::Refused { reason: 7, version_min: 1, version_max: 1 }
    ));
}

#[test]
fn no_reply_on_the_page_is_larger_than_its_request() {
    let page = examples();
    for (reply, request) in [
        ("ack-duplicate", "events"),
        ("answer", "query"),
        ("pong", "ping"),
        ("welcome", "hello"),
        ("busy", "events"),
        ("refused", "events"),
    ] {
        assert!(page[reply].len() <= page[request].len(), "{reply} exceeds {request}");
    }
    // The smallest that is ever sent, and the smallest sound request.
    assert!(PAGE.contains(&format!("under {} bytes", HEADER_BYTES + SHORT_BODY_BYTES)));
    assert_eq!(page["ping"].len(), HEADER_BYTES + PING_BODY_BYTES);
}

#[test]
fn the_stated_lengths_are_the_examples_lengths() {
    let page = examples();
    for name in ["events", "ack-duplicate", "ack-coalesced", "query", "answer"] {
        let (before, _) = PAGE.split_once(&format!("```hex {name}\n")).expect("there");
        let line = before.trim_end().lines().last().expect("a line before it");
        let stated = format!("; {} bytes:", page[name].len());
        assert!(
            line.ends_with(&stated),
            "`{name}`: the line before it ends not with `{stated}`: {line}"
        );
    }
}

#[test]
fn the_check_value_is_the_crcs() {
    assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xE306_9283);
    assert!(PAGE.contains("`0xE3069283`"));
}

/// Rows {code, name, ...} against what the code knows of every possible code.
fn assert_codes(title: &str, name_of: impl Fn(u8) -> Option<String>) {
    let rows: BTreeMap<u8, &str> =
        table(title).iter().map(|row| (row[0].parse().expect("a code"), row[1])).collect();
    for code in 0..=u8::MAX {
        assert_eq!(
            rows.get(&code).map(|name| (*name).to_owned()),
            name_of(code),
            "{title}: code {code}, the page is on the left"
        );
    }
}

#[test]
fn the_tables_of_codes_are_the_enums() {
    assert_codes("## Kinds", |c| Kind::from_code(c).map(|k| format!("{k:?}").to_lowercase()));
    assert_codes("## Ack modes", |c| Mode::from_code(c).map(|m| m.name().to_owned()));
    assert_codes("### Outcomes", |c| Outcome::from_code(c).map(|o| o.label().to_owned()));
    assert_codes("### Kinds of queries", |c| QueryKind::from_code(c).map(|k| k.label().to_owned()));
    assert_codes("### Statuses", |c| QueryStatus::from_code(c).map(|s| s.label().to_owned()));
    assert_codes("## Refused", |c| Refusal::from_code(c).map(|r| r.label().to_owned()));
}

#[test]
fn outcomes_and_refusals_mean_what_the_code_says() {
    for (row, outcome) in table("### Outcomes").iter().zip(Outcome::ALL) {
        assert_eq!(row[2], outcome.doc());
    }
    for (row, refusal) in table("## Refused").iter().zip(Refusal::ALL) {
        assert_eq!(row[2], refusal.doc());
    }
    for (row, kind) in table("### Kinds of queries").iter().zip(QueryKind::ALL) {
        assert_eq!(row[2], kind.doc());
    }
    for (row, status) in table("### Statuses").iter().zip(QueryStatus::ALL) {
        assert_eq!(row[2], status.doc());
    }
}

#[test]
fn the_fields_and_rows_of_a_query_are_what_its_kind_has() {
    for row in table("### Kinds of queries") {
        let kind = row[0].parse().expect("a code");
        // A field that the kind does not have makes the query malformed.
        let [limit, a, b, c] = [3, 4, 5, 6].map(|column| row[column] != "-");
        let sound = Query { kind, zero: 0, limit: limit.into(), tag: 0, a: 0, b: 0, c: 0 };
        assert!(sound.wanted().is_some(), "{row:?}");
        let is_sound = |query: Query| query.wanted().is_some();
        // As a corner, 1 is (1, 0): the second of a box cannot be lower.
        let least = Query { b: b.into(), ..sound };
        assert_eq!(is_sound(Query { a: 1, ..least }), a, "{row:?}");
        assert_eq!(is_sound(Query { b: 1, ..sound }), b, "{row:?}");
        assert_eq!(is_sound(Query { c: 1, ..sound }), c, "{row:?}");
        assert_eq!(is_sound(Query { limit: 1, ..sound }), limit, "{row:?}");
        let bytes = match row[7] {
            "player" => PlayerRow::BYTES,
            "hunt" => HuntRow::BYTES,
            _ => RankRow::BYTES,
        };
        assert_eq!(row_bytes(kind), bytes, "{row:?}");
    }
}

#[test]
fn the_limits_of_queries_are_the_codes() {
    let limits = [
        format!("most rows wanted, 1 to {ROWS_MAX}, where"),
        format!("| player | 0 to {} |", (ROWS_MAX - 1) / 2),
        format!("has more than {CELL_BITS}\nbits, a coordinate more than {}", CELL_BITS / 2),
        format!("The highest score is 2^{} - 1", SCORE_MAX.count_ones()),
        format!(
            "datagram of {PAYLOAD_BYTES_MAX_DEFAULT} bytes has room for {} rows of {} bytes",
            (PAYLOAD_BYTES_MAX_DEFAULT - HEADER_BYTES - QUERY_HEAD_BYTES - ENTRY_FIXED_BYTES)
                / RankRow::BYTES,
            RankRow::BYTES
        ),
    ];
    for limit in limits {
        assert!(PAGE.contains(&limit), "the page lacks: {limit}");
    }
    assert_eq!(COORDINATE_MAX.count_ones(), CELL_BITS / 2);
    assert_eq!(CellRow::BYTES, RankRow::BYTES);
}

#[test]
fn kinds_of_events_are_the_codes() {
    let rows = table("### Kinds of events");
    assert_eq!(rows.len(), EventKind::ALL.len());
    for (row, kind) in rows.iter().zip(EventKind::ALL) {
        let wanted = [&kind.code().to_string(), kind.label(), kind.stream().label()];
        assert_eq!(row[..3], wanted, "{kind:?}");
        assert_eq!(row[3] == "cell", kind.names_a_cell(), "{kind:?}");
        assert_eq!(["0", "any"].contains(&row[3]), kind.names_nothing(), "{kind:?}");
    }
}

#[test]
fn kinds_come_from_the_side_the_page_says() {
    for row in table("## Kinds") {
        let kind = Kind::from_code(row[0].parse().expect("a code")).expect("a kind");
        // What only servers send is refused by the server's decoder without a word.
        let datagram = finished(header(kind, 0, 1, 0), &[]);
        let error = wire::decode(&datagram, crc_fast::crc32_iscsi).err();
        let from = if error == Some(veltrix_abi::Exit::ReplyKind) { "server" } else { "client" };
        assert_eq!(row[2], from, "{}", row[1]);
    }
}

#[test]
fn sizes_are_the_limits() {
    let sizes: Vec<String> = table("## Sizes").iter().map(|row| row[1].to_owned()).collect();
    let wanted = [
        HEADER_BYTES.to_string(),
        EVENT_FIXED_BYTES.to_string(),
        format!("0 to {EVENT_PAYLOAD_BYTES_MAX}"),
        ACK_ENTRY_FIXED_BYTES.to_string(),
        PING_BODY_BYTES.to_string(),
        HELLO_BODY_BYTES.to_string(),
        SHORT_BODY_BYTES.to_string(),
        QUERY_HEAD_BYTES.to_string(),
        QUERY_BYTES.to_string(),
        ENTRY_FIXED_BYTES.to_string(),
        PlayerRow::BYTES.to_string(),
        RankRow::BYTES.to_string(),
        HuntRow::BYTES.to_string(),
        TAG_BYTES.to_string(),
        format!("up to {PAYLOAD_BYTES_MAX_DEFAULT}"),
        format!("up to {PAYLOAD_BYTES_LIMIT}"),
    ];
    assert_eq!(sizes, wanted);
}
