//! What the corpus begins with: one input of every shape that the decoders
//! know, and of every way to be wrong, each with the verdict it must get.

use veltrix_abi::limits::{EVENT_PAYLOAD_BYTES_MAX, HEADER_BYTES, TAG_BYTES};
use veltrix_abi::query::{
    COORDINATE_MAX, CellRow, ENTRY_FIXED_BYTES, EntryHead, HuntRow, PlayerRow, QUERY_BYTES,
    QUERY_HEAD_BYTES, Queries, Query, QueryKind, QueryStatus, ROWS_MAX, RankRow, Row, Wanted,
    write_answer_head,
};
use veltrix_abi::wire::{
    self, AckEntry, Event, FLAG_SEALED, HELLO_BODY_BYTES, Header, Kind, MAGIC, Mode,
    PING_BODY_BYTES, Pong, SHORT_BODY_BYTES, VERSION, Welcome,
};
use veltrix_tests::lab::{Datagram, FrameSpec};

use super::checks::{PAYLOAD_BYTES_MAX, PORT};
use super::frames::{Frame, Ip, payload};
use super::{seeds_durable, seeds_games};

/// An input, what it is, and what its decoder must say.
pub struct Seed {
    pub what: &'static str,
    pub verdict: &'static str,
    pub bytes: Vec<u8>,
}

pub fn seed(what: &'static str, verdict: &'static str, bytes: Vec<u8>) -> Seed {
    Seed { what, verdict, bytes }
}

/// The seeds of a target.
pub fn of(target: &str) -> Vec<Seed> {
    match target {
        "frame" => {
            [whole_frames(), frames_of_others(), frames_refused()].into_iter().flatten().collect()
        }
        "request" => {
            let own = [requests(), requests_refused(), queries_refused()].into_iter().flatten();
            own.chain(seeds_games::requests()).collect()
        }
        "reply" => [replies(), answers(), seeds_games::replies()].into_iter().flatten().collect(),
        "config" => settings(),
        "batch" => seeds_durable::batches(),
        "record" => seeds_durable::records(),
        "snapshot" => seeds_durable::snapshots(),
        other => panic!("no target {other}"),
    }
}

/// What a target's files end in.
pub fn extension(target: &str) -> &'static str {
    if target == "config" { "toml" } else { "bin" }
}

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

/// A header of the lab's client.
pub fn header(kind: Kind) -> Header {
    let Datagram { session, sequence, domain, .. } = Datagram::default();
    Header { session, sequence, domain, ..Header::new(kind) }
}

pub fn datagram(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    header.write(&mut out);
    out.extend(body);
    wire::finish(&mut out, crc_fast::crc32_iscsi);
    out
}

/// `payloads` are the events' payload lengths. Keys are fixed, unlike those of
/// the lab's own builder, so that the files stay the same.
pub fn events_body(payloads: &[usize]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, payload_bytes) in payloads.iter().enumerate() {
        let n = index as u8;
        let event = Event {
            key: [1, 0x9a, 0, 0, 0, n, 0x70, n, 0x80, 0, 0, 0, 0, 0, 0, n],
            player: 1_000 + index as u64,
            subject: 2_000 + index as u64,
            argument: 1,
            kind: 1,
            reserved: 0,
            payload: &vec![0x5a; *payload_bytes],
        };
        let start = body.len();
        body.resize(start + event.wire_bytes(), 0);
        event.write(&mut body[start..]);
    }
    body
}

fn events(mode: Mode, payloads: &[usize]) -> Vec<u8> {
    let header = Header { mode: mode as u8, count: payloads.len() as u16, ..header(Kind::Events) };
    datagram(&header, &events_body(payloads))
}

fn v4(change: impl FnOnce(&mut Frame)) -> Vec<u8> {
    Frame::v4().with(change).bytes()
}

fn v6(change: impl FnOnce(&mut Frame)) -> Vec<u8> {
    Frame::v6().with(change).bytes()
}

fn words(count: u8) -> impl FnOnce(&mut Frame) {
    move |f| {
        if let Ip::V4 { ihl, .. } = &mut f.ip {
            *ihl = count;
        }
    }
}

fn fragment_field(value: u16) -> impl FnOnce(&mut Frame) {
    move |f| {
        if let Ip::V4 { fragment, .. } = &mut f.ip {
            *fragment = value;
        }
    }
}

fn tagged(frame: Frame, tags: &[u16]) -> Vec<u8> {
    frame.with(|f| f.tags = tags.to_vec()).bytes()
}

pub fn cut(mut bytes: Vec<u8>, to: usize) -> Vec<u8> {
    bytes.truncate(to);
    bytes
}

/// Real frames around real datagrams, and every shape of headers.
fn whole_frames() -> Vec<Seed> {
    let one = events(Mode::None, &[21]);
    let lab = Datagram::default();
    let build = |spec: &FrameSpec, payload: &[u8]| spec.build(payload).unwrap();
    let (ipv4, ipv6) = (FrameSpec::ipv4(PORT), FrameSpec::ipv6(PORT));
    let summed = FrameSpec { udp_checksum: true, ..ipv4.clone() };
    let qinq = FrameSpec { vlans: vec![5, 6], ..summed.clone() };
    let mut padded = build(&ipv4, &lab.ping(7));
    padded.extend([0; 18]);
    let full = [0; (PAYLOAD_BYTES_MAX - HEADER_BYTES) / 48];
    let frames = [
        ("v4-one-event", build(&ipv4, &one)),
        ("v4-checksum", build(&summed, &one)),
        ("v4-three-events-durable", build(&ipv4, &events(Mode::Durable, &[0, 8, 13]))),
        ("v4-full", build(&ipv4, &events(Mode::None, &full))),
        ("v4-hello", build(&ipv4, &lab.hello())),
        ("v4-ping-padded", padded),
        ("v4-ack", build(&ipv4, &lab.ack(&[(1, &[1, 1])]))),
        ("v6-one-event", build(&ipv6, &one)),
        ("v6-ping", build(&ipv6, &lab.ping(7))),
        ("qinq-v4-one-event", build(&qinq, &one)),
        ("v4-options-4-bytes", v4(words(6))),
        ("v4-options-40-bytes", v4(words(15))),
        ("vlan-v4", tagged(Frame::v4(), &[VLAN])),
        ("vlan-v6", tagged(Frame::v6(), &[VLAN])),
        ("vlan-vlan-v4", tagged(Frame::v4(), &[VLAN, VLAN])),
        ("qinq-v6", tagged(Frame::v6(), &[QINQ, VLAN])),
        ("v4-header-only", v4(|f| f.payload = payload(HEADER_BYTES))),
        ("v4-total-length-longer", v4(|f| f.ip_bytes = Some(1_400))),
    ];
    frames.into_iter().map(|(what, bytes)| seed(what, "accepted", bytes)).collect()
}

/// Frames that the kernel's own stack gets.
fn frames_of_others() -> Vec<Seed> {
    let hop_by_hop: (u8, &[u8]) = (0, &[0; 7]);
    let destination: (u8, &[u8]) = (60, &[0; 7]);
    let mut wrong_version = Frame::v6().bytes();
    wrong_version[14] = 0x40;
    vec![
        seed("empty", "pass_not_ip", vec![]),
        seed("one-byte-short-of-ethernet", "pass_not_ip", cut(Frame::v4().bytes(), 13)),
        seed("arp", "pass_not_ip", v4(|f| f.ethertype = Some(0x0806))),
        seed("vlan-tag-cut", "pass_not_ip", cut(tagged(Frame::v4(), &[VLAN]), 17)),
        seed("qinq-inner-tag-cut", "pass_not_ip", cut(tagged(Frame::v4(), &[QINQ, VLAN]), 20)),
        seed("three-tags", "pass_vlan_deep", tagged(Frame::v4(), &[QINQ, VLAN, VLAN])),
        seed("v4-ethernet-only", "pass_ip_malformed", cut(Frame::v4().bytes(), 14)),
        seed("v4-header-cut", "pass_ip_malformed", cut(Frame::v4().bytes(), 33)),
        seed("v4-ihl-4", "pass_ip_malformed", v4(words(4))),
        seed("v4-total-length-19", "pass_ip_malformed", v4(|f| f.ip_bytes = Some(19))),
        seed("v6-header-cut", "pass_ip_malformed", cut(Frame::v6().bytes(), 53)),
        seed("v6-version-4", "pass_ip_malformed", wrong_version),
        seed("v6-hop-by-hop-cut", "pass_ip_malformed", {
            cut(Frame::extensions(&[hop_by_hop]).bytes(), 61)
        }),
        seed(
            "v4-tcp",
            "pass_not_udp",
            v4(|f| {
                if let Ip::V4 { protocol, .. } = &mut f.ip {
                    *protocol = 6;
                }
            }),
        ),
        seed("v4-fragment-tail", "pass_fragment_tail", v4(fragment_field(0x2001))),
        seed("v4-fragment-last", "pass_fragment_tail", v4(fragment_field(0x1fff))),
        seed("v6-fragment-tail", "pass_fragment_tail", {
            Frame::extensions(&[(44, &[0, 0, 9, 0, 0, 0, 1])]).bytes()
        }),
        seed("v6-two-extensions", "pass_ipv6_chain", {
            Frame::extensions(&[hop_by_hop, destination]).bytes()
        }),
        seed("v6-extension-then-fragment", "pass_ipv6_chain", {
            Frame::extensions(&[hop_by_hop, (44, &[0; 7])]).bytes()
        }),
        seed("v4-udp-header-cut", "pass_udp_short", cut(Frame::v4().bytes(), 41)),
        seed("v4-options-cut", "pass_udp_short", cut(v4(words(15)), 60)),
        seed("v4-total-length-27", "pass_udp_short", v4(|f| f.ip_bytes = Some(27))),
        seed("v6-extension-length-lies", "pass_udp_short", {
            Frame::extensions(&[(43, &[255, 0, 0, 0, 0, 0, 0])]).bytes()
        }),
        seed("v4-port-4748", "pass_other_port", v4(|f| f.port = PORT + 1)),
        seed("v6-port-swapped", "pass_other_port", v6(|f| f.port = PORT.swap_bytes())),
    ]
}

/// Frames for our port that are not served.
fn frames_refused() -> Vec<Seed> {
    let source = |address| Frame::from_v4(address).bytes();
    vec![
        seed("v4-first-fragment", "drop_fragment", v4(fragment_field(0x2000))),
        seed("v6-first-fragment", "drop_fragment", {
            Frame::extensions(&[(44, &[0, 0, 1, 0, 0, 0, 1])]).bytes()
        }),
        seed("v6-hop-by-hop", "drop_ipv6_extension", Frame::extensions(&[(0, &[0; 7])]).bytes()),
        seed("v6-routing", "drop_ipv6_extension", Frame::extensions(&[(43, &[0; 7])]).bytes()),
        seed("v6-destination-16-bytes", "drop_ipv6_extension", {
            Frame::extensions(&[(60, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]).bytes()
        }),
        seed("v4-broadcast-mac", "drop_not_unicast", v4(|f| f.mac = [0xff; 6])),
        seed("v6-multicast-mac", "drop_not_unicast", v6(|f| f.mac = [0x33, 0x33, 0, 0, 0, 1])),
        seed(
            "v4-broadcast-mac-no-magic",
            "drop_not_unicast",
            v4(|f| {
                f.mac = [0xff; 6];
                f.payload[0] = 0;
            }),
        ),
        seed("v4-source-port-0", "drop_bad_source", v4(|f| f.source_port = 0)),
        seed("v4-source-loopback", "drop_bad_source", source([127, 0, 0, 1])),
        seed("v4-source-multicast", "drop_bad_source", source([224, 0, 0, 1])),
        seed("v4-source-zero", "drop_bad_source", source([0; 4])),
        seed("v6-source-multicast", "drop_bad_source", {
            Frame::from_v6([0xff02, 0, 0, 0, 0, 0, 0, 1].into()).bytes()
        }),
        seed("v6-source-mapped", "drop_bad_source", {
            Frame::from_v6([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0207].into()).bytes()
        }),
        seed("v4-udp-length-7", "drop_udp_length", v4(|f| f.udp_bytes = Some(7))),
        seed("v4-udp-length-over-ip", "drop_udp_length", v4(|f| f.udp_bytes = Some(105))),
        seed(
            "v4-lengths-over-frame",
            "drop_udp_length",
            v4(|f| {
                f.ip_bytes = Some(u16::MAX);
                f.udp_bytes = Some(u16::MAX - 20);
            }),
        ),
        seed("v4-payload-cut", "drop_udp_length", {
            let whole = Frame::v4().bytes();
            let bytes = whole.len() - 1;
            cut(whole, bytes)
        }),
        seed(
            "v6-payload-length-0",
            "drop_udp_length",
            v6(|f| {
                f.ip_bytes = Some(8);
                f.udp_bytes = Some(9);
            }),
        ),
        seed("v4-no-payload", "drop_empty", v4(|f| f.payload.clear())),
        seed("v6-no-payload", "drop_empty", v6(|f| f.payload.clear())),
        seed("v4-payload-47", "drop_header_short", v4(|f| f.payload = payload(HEADER_BYTES - 1))),
        seed("v4-payload-1", "drop_header_short", v4(|f| f.payload = payload(1))),
        seed(
            "v4-payload-1233",
            "drop_too_large",
            v4(|f| {
                f.payload = payload(PAYLOAD_BYTES_MAX + 1);
            }),
        ),
        seed("v4-magic-last-byte", "drop_magic", v4(|f| f.payload[3] ^= 1)),
        seed("v6-magic-reversed", "drop_magic", v6(|f| f.payload[..4].reverse())),
    ]
}

fn requests() -> Vec<Seed> {
    let lab = Datagram::default();
    let mut odd = events_body(&[0]);
    // An event that makes no sense by itself still decodes: kind 0, a key that is no UUIDv7.
    odd[40] = 0;
    odd[6] = 0;
    let mixed = [0, 1, 7, 8, 9, 100];
    vec![
        seed("one-event", "events", events(Mode::None, &[0])),
        seed("durable-event", "events", events(Mode::Durable, &[5])),
        seed("payload-lengths", "events", events(Mode::None, &mixed)),
        seed("largest-payload", "events", events(Mode::None, &[EVENT_PAYLOAD_BYTES_MAX])),
        seed("events-full", "events", events(Mode::None, &[0; 24])),
        seed("event-not-well-formed", "events", {
            datagram(&Header { mode: 1, count: 1, ..header(Kind::Events) }, &odd)
        }),
        seed("ping", "ping", lab.ping(123_456_789)),
        seed("ping-all-ones", "ping", lab.of_kind(Kind::Ping, &[0xff; PING_BODY_BYTES])),
        seed("hello", "hello", lab.hello()),
        seed("hello-cookie", "hello", {
            datagram(&Header { cookie: u64::MAX, ..header(Kind::Hello) }, &[0; HELLO_BODY_BYTES])
        }),
    ]
    .into_iter()
    .chain(queries())
    .collect()
}

/// The sound query of a kind.
fn query_of(kind: QueryKind) -> Query {
    let cell = 0x0123_4567_89ab_cdef & ((1 << 60) - 1);
    let wanted = match kind {
        QueryKind::Player => Wanted::Player(1_000),
        QueryKind::Cell => Wanted::Cell(cell),
        QueryKind::CellsInBox => {
            Wanted::CellsInBox { x: [5, 900], y: [0, COORDINATE_MAX], from: cell, limit: 30 }
        }
        QueryKind::NearestCells => Wanted::NearestCells { to: cell, limit: 8 },
        QueryKind::Top => Wanted::Top { from: 11, limit: ROWS_MAX },
        QueryKind::Rank => Wanted::Rank { player: 1_000, around: 5 },
        QueryKind::Hunt => Wanted::Hunt,
    };
    Query { tag: 0x7a60 + u32::from(kind.code()), ..Query::of(&wanted) }
}

fn every_kind() -> Vec<Query> {
    QueryKind::ALL.iter().map(|kind| query_of(*kind)).collect()
}

/// The body of queries with this much room behind them.
fn queries_body(min_epoch: u64, queries: &[Query], room_bytes: usize) -> Vec<u8> {
    let mut body = vec![0; QUERY_HEAD_BYTES + QUERY_BYTES * queries.len() + room_bytes];
    Queries::write_head(&mut body, min_epoch);
    let places = body[QUERY_HEAD_BYTES..].chunks_exact_mut(QUERY_BYTES);
    queries.iter().zip(places).for_each(|(query, place)| query.write(place));
    body
}

fn asked(count: u16, body: &[u8]) -> Vec<u8> {
    datagram(&Header { count, ..header(Kind::Query) }, body)
}

fn queries() -> Vec<Seed> {
    let one = |query: Query| asked(1, &queries_body(0, &[query], 64));
    let of = |kind| one(query_of(kind));
    let full = [query_of(QueryKind::Hunt); (PAYLOAD_BYTES_MAX - HEADER_BYTES) / QUERY_BYTES - 1];
    // Queries that make no sense by themselves still decode: each entry says so.
    let player = query_of(QueryKind::Player);
    let top = query_of(QueryKind::Top);
    let nonsense = [
        Query { kind: 0, ..player },
        Query { kind: 8, ..player },
        Query { zero: 1, ..player },
        Query { c: 1, ..player },
        Query { limit: 0, ..top },
        Query { limit: ROWS_MAX + 1, ..top },
        Query { a: 1 << 60, ..query_of(QueryKind::Cell) },
        Query { b: 0, ..query_of(QueryKind::CellsInBox) },
    ];
    vec![
        seed("query-player", "query", of(QueryKind::Player)),
        seed("query-cell", "query", of(QueryKind::Cell)),
        seed("query-cells-in-box", "query", of(QueryKind::CellsInBox)),
        seed("query-nearest-cells", "query", of(QueryKind::NearestCells)),
        seed("query-top", "query", of(QueryKind::Top)),
        seed("query-top-rank-0", "query", one(Query { a: 0, ..top })),
        seed("query-rank", "query", of(QueryKind::Rank)),
        seed("query-hunt", "query", of(QueryKind::Hunt)),
        seed("queries-of-every-kind", "query", asked(7, &queries_body(990, &every_kind(), 800))),
        seed("query-without-room", "query", asked(1, &queries_body(u64::MAX, &[player], 0))),
        seed("queries-full", "query", asked(full.len() as u16, &queries_body(0, &full, 0))),
        seed("queries-nonsense", "query", asked(8, &queries_body(0, &nonsense, 0))),
    ]
}

fn queries_refused() -> Vec<Seed> {
    let body = queries_body(9, &[query_of(QueryKind::Player), query_of(QueryKind::Hunt)], 24);
    let with = |at: usize| {
        let mut body = body.clone();
        body[at] = 1;
        asked(2, &body)
    };
    let (head, mode) = (QUERY_HEAD_BYTES, header(Kind::Query));
    vec![
        seed("query-no-body", "malformed", asked(1, &[])),
        seed("query-count-0-no-body", "malformed", asked(0, &[])),
        seed("query-head-only", "malformed", asked(1, &body[..head])),
        seed("query-count-0", "malformed", asked(0, &body)),
        seed("query-count-one-more", "malformed", asked(3, &body)),
        seed("query-count-one-less", "malformed", asked(1, &body)),
        seed("query-count-65535", "malformed", asked(u16::MAX, &body)),
        seed("query-cut", "malformed", asked(2, &body[..head + 2 * QUERY_BYTES - 1])),
        seed("query-head-not-zero", "malformed", with(15)),
        seed("query-room-not-zero", "malformed", with(head + 2 * QUERY_BYTES)),
        seed("query-room-end-not-zero", "malformed", with(body.len() - 1)),
        seed("query-mode", "reserved", datagram(&Header { mode: 1, count: 2, ..mode }, &body)),
    ]
}

fn requests_refused() -> Vec<Seed> {
    let one = Header { mode: 1, count: 1, ..header(Kind::Events) };
    let body = events_body(&[5]);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut body = events_body(&[5]);
        change(&mut body);
        datagram(&Header { mode: 1, count: 1, ..header(Kind::Events) }, &body)
    };
    let of = |header: Header, body: &[u8]| datagram(&header, body);
    let sealed = Header { flags: FLAG_SEALED, ..one };
    let mut damaged = events(Mode::None, &[5]);
    damaged[60] ^= 4;
    let mut tagged = datagram(&sealed, &body);
    tagged.extend([0xaa; TAG_BYTES]);
    let ping = [0; PING_BODY_BYTES];
    let lab = Datagram::default();
    let mut seeds = vec![
        seed("empty", "drop_header_short", vec![]),
        seed("header-less-one-byte", "drop_header_short", cut(lab.ping(1), HEADER_BYTES - 1)),
        seed("bit-flipped", "checksum", damaged),
        seed("sealed-without-room", "checksum", of(sealed, &[0; TAG_BYTES - 1])),
        seed("version-0", "version", of(Header { version: 0, ..one }, &body)),
        seed("version-2", "version", of(Header { version: VERSION + 1, ..one }, &body)),
        seed("kind-0", "kind", of(Header { kind: 0, ..one }, &body)),
        seed("kind-11", "kind", of(Header { kind: 11, ..one }, &body)),
        seed("flag-unknown", "reserved", of(Header { flags: 2, ..one }, &body)),
        seed("reserved-set", "reserved", of(Header { reserved: 1, ..one }, &body)),
        seed("ping-with-count", "reserved", of(Header { count: 1, ..header(Kind::Ping) }, &ping)),
        seed("ping-with-mode", "reserved", of(Header { mode: 1, ..header(Kind::Ping) }, &ping)),
        seed("sealed", "sealed", tagged),
        seed("count-0", "malformed", of(Header { count: 0, ..one }, &body)),
        seed("count-0-no-body", "malformed", of(Header { count: 0, ..one }, &[])),
        seed("count-one-more", "malformed", of(Header { count: 2, ..one }, &body)),
        seed("count-65535", "malformed", of(Header { count: u16::MAX, ..one }, &body)),
        seed("count-one-less", "malformed", of(one, &events_body(&[5, 0]))),
        seed(
            "payload-513",
            "malformed",
            with(|body| {
                body[42..44].copy_from_slice(&513_u16.to_le_bytes());
                body.resize(48 + 520, 0x5a);
            }),
        ),
        seed("payload-65535", "malformed", with(|body| body[42..44].fill(0xff))),
        seed("payload-past-end", "malformed", with(|body| body[42] = 9)),
        seed("padding-not-zero", "malformed", with(|body| body[55] = 1)),
        seed("ping-short", "malformed", lab.of_kind(Kind::Ping, &ping[1..])),
        seed("hello-long", "malformed", lab.of_kind(Kind::Hello, &[0; HELLO_BODY_BYTES + 8])),
        seed("mode-0", "mode", of(Header { mode: 0, ..one }, &body)),
        seed("mode-3", "mode", of(Header { mode: 3, ..one }, &body)),
    ];
    // No answer is ever answered, whatever else is wrong with it.
    let busy = header(Kind::Busy);
    let short = [0; SHORT_BODY_BYTES];
    seeds.extend([
        seed("ack", "reply_kind", lab.ack(&[(1, &[1])])),
        seed(
            "refused-version-2",
            "reply_kind",
            of(Header { version: 2, ..header(Kind::Refused) }, &short),
        ),
        seed("busy-with-mode", "reply_kind", of(Header { mode: 1, ..busy }, &short)),
        seed("busy-reserved-set", "reply_kind", of(Header { reserved: 1, ..busy }, &short)),
        seed("busy-flag-unknown", "reply_kind", of(Header { flags: 0x80, ..busy }, &short)),
        seed("pong-sealed", "reply_kind", {
            let header = Header { flags: FLAG_SEALED, ..header(Kind::Pong) };
            let mut bytes = datagram(&header, &ping);
            bytes.extend([0xaa; TAG_BYTES]);
            bytes
        }),
    ]);
    seeds
}

pub fn ack_entry(outcomes: &[u8], epochs: &[u64]) -> Vec<u8> {
    let mut out = vec![0; AckEntry::wire_bytes(outcomes.len(), 0)];
    AckEntry::write(&mut out, 9, 77, Mode::Durable, outcomes, epochs.len() as u16);
    out.extend(epochs.iter().flat_map(|epoch| epoch.to_le_bytes()));
    out
}

fn replies() -> Vec<Seed> {
    let lab = Datagram::default();
    let acked = |count, body: &[u8]| datagram(&Header { count, ..header(Kind::Ack) }, body);
    let duplicates = ack_entry(&[1, 0x81, 1, 0x82, 1, 1, 1, 1, 0x81], &[5, 6, u64::MAX]);
    let mut ping = [0; PING_BODY_BYTES];
    Pong { client_sent_ns: 1, server_received_ns: 2, server_sent_ns: 3 }.write(&mut ping);
    let mut hello = [0; HELLO_BODY_BYTES];
    let welcome = Welcome {
        log_time_ns: 1,
        epoch: 0,
        partitions: 64,
        lanes: 2,
        port_first: PORT,
        port_last: PORT,
        modes: Welcome::mode_bit(Mode::None),
        version_min: 1,
        version_max: 1,
        role: 1,
        payload_bytes_max: PAYLOAD_BYTES_MAX as u16,
        events_max: 24,
        cookie: 0,
        cluster_id: 0,
        features: 0,
    };
    welcome.write(&mut hello);
    let mut unmarked = ack_entry(&[1, 0x81], &[5]);
    unmarked[25] = 1;
    let mut mode = ack_entry(&[1], &[]);
    mode[18] = 3;
    let mut damaged = lab.of_kind(Kind::Busy, &[0; SHORT_BODY_BYTES]);
    damaged[50] ^= 1;
    let mut foreign = lab.of_kind(Kind::Pong, &ping);
    foreign[..MAGIC.len()].reverse();
    let flagged = Header { flags: FLAG_SEALED, ..header(Kind::Pong) };
    vec![
        seed("one-outcome", "ack", lab.ack(&[(1, &[1])])),
        seed("two-datagrams", "ack", lab.ack(&[(1, &[1; 3][..]), (2, &[1; 9])])),
        seed("no-outcome", "ack", lab.ack(&[(1, &[])])),
        seed("duplicates", "ack", acked(1, &duplicates)),
        seed("pong", "pong", lab.of_kind(Kind::Pong, &ping)),
        seed("welcome", "welcome", lab.of_kind(Kind::Welcome, &hello)),
        seed("busy", "busy", lab.of_kind(Kind::Busy, &[0x10, 0x27, 0, 0, 0, 0, 0, 0])),
        seed("refused", "refused", lab.of_kind(Kind::Refused, &[2, 1, 1, 0, 0, 0, 0, 0])),
        seed("refused-reason-unknown", "refused", lab.of_kind(Kind::Refused, &[0xff; 8])),
        seed("reserved-set", "busy", {
            datagram(&Header { reserved: 1, ..header(Kind::Busy) }, &[0; SHORT_BODY_BYTES])
        }),
        seed("header-less-one-byte", "not_ours", cut(lab.ack(&[(1, &[1])]), HEADER_BYTES - 1)),
        seed("magic-reversed", "not_ours", foreign),
        seed("bit-flipped", "checksum", damaged),
        seed("request", "unknown", lab.ping(1)),
        seed("version-2", "unknown", datagram(&Header { version: 2, ..header(Kind::Pong) }, &ping)),
        seed("sealed", "unknown", datagram(&flagged, &ping)),
        seed("kind-11", "unknown", datagram(&Header { kind: 11, ..header(Kind::Pong) }, &ping)),
        seed("ack-count-0", "malformed", acked(0, &[])),
        seed("ack-count-one-more", "malformed", acked(2, &duplicates)),
        seed(
            "ack-count-one-less",
            "malformed",
            acked(1, &[ack_entry(&[1], &[]), ack_entry(&[1], &[])].concat()),
        ),
        seed("ack-epoch-missing", "malformed", acked(1, &duplicates[..duplicates.len() - 8])),
        seed("ack-duplicate-unmarked", "malformed", acked(1, &unmarked)),
        seed("ack-mode-3", "malformed", acked(1, &mode)),
        seed("pong-short", "malformed", lab.of_kind(Kind::Pong, &ping[1..])),
        seed("busy-long", "malformed", lab.of_kind(Kind::Busy, &[0; 16])),
    ]
}

/// An entry for the sound query of a kind.
fn entry<R: Row>(kind: QueryKind, status: QueryStatus, next: u64, rows: &[R]) -> Vec<u8> {
    let mut out = vec![0; ENTRY_FIXED_BYTES + R::BYTES * rows.len()];
    let Query { kind, tag, .. } = query_of(kind);
    EntryHead { kind, status, rows: rows.len() as u16, tag, next }.write(&mut out);
    let places = out[ENTRY_FIXED_BYTES..].chunks_exact_mut(R::BYTES);
    rows.iter().zip(places).for_each(|(row, place)| row.write(place));
    out
}

/// An entry for each kind, in the order of [`every_kind`].
fn entries() -> Vec<Vec<u8>> {
    use QueryStatus::{Found, More, NotFound};
    let inventory = [0, 3, 0, 0, 0, 0, 0, u16::MAX];
    let player = PlayerRow { player: 1_000, inventory, rank: 11, ..PlayerRow::default() };
    let cell = CellRow { cell: 7, claimed_by: 1_000, claimed: true, ..CellRow::default() };
    let rank = |rank| RankRow { rank, player: rank.into(), score: 120, score_epoch: 990 };
    let hunt = HuntRow { cells: 1, players: 1, ranked: 1, score_epoch: 990, ..HuntRow::default() };
    vec![
        entry(QueryKind::Player, Found, 0, &[player]),
        entry(QueryKind::Cell, Found, 0, &[cell]),
        entry(QueryKind::CellsInBox, More, 8, &[cell, CellRow::default()]),
        entry::<CellRow>(QueryKind::NearestCells, Found, 0, &[]),
        entry(QueryKind::Top, More, 14, &[rank(11), rank(12), rank(13)]),
        entry::<RankRow>(QueryKind::Rank, NotFound, 0, &[]),
        entry(QueryKind::Hunt, Found, 0, &[hunt]),
    ]
}

fn answers() -> Vec<Seed> {
    let body = |entries: &[Vec<u8>]| {
        let mut body = vec![0; QUERY_HEAD_BYTES];
        write_answer_head(&mut body, 1_003, 250_000);
        body.extend(entries.concat());
        body
    };
    let answer = |count, body: &[u8]| datagram(&Header { count, ..header(Kind::Answer) }, body);
    let all = entries();
    let whole = body(&all);
    let status = |code| {
        let mut entry = entry::<HuntRow>(QueryKind::Hunt, QueryStatus::Behind, 0, &[]);
        entry[1] = code;
        answer(1, &body(&[entry]))
    };
    let kind = |code, rows: &[HuntRow]| {
        let mut entry = entry(QueryKind::Hunt, QueryStatus::Malformed, 0, rows);
        entry[0] = code;
        answer(1, &body(&[entry]))
    };
    let bare: Vec<_> = QueryStatus::ALL
        .iter()
        .map(|status| entry::<PlayerRow>(QueryKind::Player, *status, 0, &[]))
        .collect();
    let mut rows = all[0].clone();
    rows[2..4].fill(0xff);
    let mut reserved = whole.clone();
    // Behind the rank of the player's row, and above the flag of the cell's.
    reserved[QUERY_HEAD_BYTES + ENTRY_FIXED_BYTES + 55] = 1;
    reserved[QUERY_HEAD_BYTES + 2 * ENTRY_FIXED_BYTES + PlayerRow::BYTES + 31] = 0xff;
    vec![
        seed("answer-player", "answer", answer(1, &body(&all[..1]))),
        seed("answer-cells", "answer", answer(1, &body(&all[2..3]))),
        seed("answer-to-every-kind", "answer", answer(7, &whole)),
        seed("answer-every-status", "answer", answer(8, &body(&bare))),
        seed("answer-kind-unknown", "answer", kind(99, &[])),
        seed("answer-reserved-set", "answer", answer(7, &reserved)),
        seed("answer-no-body", "malformed", answer(1, &[])),
        seed("answer-head-only", "malformed", answer(1, &body(&[]))),
        seed("answer-count-0", "malformed", answer(0, &body(&[]))),
        seed("answer-count-one-more", "malformed", answer(8, &whole)),
        seed("answer-count-one-less", "malformed", answer(6, &whole)),
        seed("answer-cut", "malformed", answer(7, &whole[..whole.len() - 8])),
        seed("answer-rows-65535", "malformed", answer(1, &body(&[rows]))),
        seed("answer-status-0", "malformed", status(0)),
        seed("answer-status-9", "malformed", status(9)),
        seed("answer-kind-unknown-with-row", "malformed", kind(99, &[HuntRow::default()])),
    ]
}

fn settings() -> Vec<Seed> {
    let texts = [
        ("empty", "ok", ""),
        ("port", "ok", "[server]\nport = 4747\n"),
        ("listen-v6", "ok", "[server]\nlisten = \"[::1]:5000\"\n"),
        (
            "nic",
            "ok",
            "[server]\nnic = \"eth7\"\nport = 9000\n[xdp]\nwait = \"spin\"\nmode = \"generic\"\n",
        ),
        (
            "units",
            "ok",
            "[lanes]\ndeadline = \"500 us\"\nbatch_frames = 8\n[xdp]\nbusy_poll = \"50us\"\n[blocklist]\nentries_max = \"10k\"\n",
        ),
        ("cores", "ok", "[lanes]\ncount = 2\ncores = [2, 3]\n"),
        // What `config show` makes of these must be accepted again.
        ("listen-port-0", "ok", "[server]\nlisten = \"127.0.0.1:0\"\n"),
        ("nic-and-listen", "ok", "[server]\nnic = \"eth7\"\nlisten = \"0.0.0.0:5000\"\n"),
        ("socket-path-quotes", "ok", "[server]\ncontrol_socket = '/run/a\\b\"c'\n"),
        ("dotted-keys", "ok", "server.port = 4747\nlanes.count = \"auto\"\n"),
        ("rate", "ok", "[rate_limit]\nmode = \"observe\"\ndatagrams_per_s = \"2M\"\n"),
        (
            "http",
            "ok",
            "[http]\nlisten = \"[::1]:4780\"\ntoken_file = \"/etc/veltrix/http-token\"\n",
        ),
        ("http-beyond-loopback", "bad", "[http]\nlisten = \"0.0.0.0:4780\"\n"),
        ("not-toml", "bad", "[server\nport = 4747\n"),
        ("not-utf8", "bad", "[server]\nport = 4747 # \u{fffd}\n"),
        ("section-unknown", "bad", "[sever]\nport = 4747\n"),
        ("key-unknown", "bad", "[server]\nprot = 4747\n"),
        ("key-without-section", "bad", "port = 4747\n"),
        ("section-is-a-number", "bad", "server = 1\n"),
        ("port-0", "bad", "[server]\nport = 0\n"),
        ("port-negative", "bad", "[server]\nport = -1\n"),
        (
            "number-over-i128",
            "bad",
            "[server]\nport = 999999999999999999999999999999999999999999\n",
        ),
        ("unit-missing", "bad", "[lanes]\ndeadline = 50\n"),
        ("unit-unknown", "bad", "[lanes]\ndeadline = \"50 fortnights\"\n"),
        ("duration-overflows", "bad", "[lanes]\ndeadline = \"99999999999999999999 s\"\n"),
        ("cores-twice", "bad", "[lanes]\ncores = [2, 2]\n"),
        ("cores-and-count", "bad", "[lanes]\ncount = 3\ncores = [2, 3]\n"),
        ("listen-and-port", "bad", "[server]\nlisten = \"127.0.0.1:5000\"\nport = 5001\n"),
        ("a-date", "bad", "[server]\nport = 1979-05-27\n"),
        ("a-fraction", "bad", "[server]\nport = 47.47\n"),
        ("key-twice", "bad", "[server]\nport = 1\nport = 2\n"),
    ];
    let bytes = |what: &str, text: &str| match what {
        "not-utf8" => text
            .replace('\u{fffd}', "?")
            .bytes()
            .map(|b| if b == b'?' { 0xff } else { b })
            .collect(),
        _ => text.as_bytes().to_vec(),
    };
    texts.into_iter().map(|(what, verdict, text)| seed(what, verdict, bytes(what, text))).collect()
}
