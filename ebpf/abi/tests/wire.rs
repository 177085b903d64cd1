//! The datagram decoders on the host: never a panic, what is written reads
//! back, and nothing cut short or damaged is taken.

use proptest::prelude::*;
use veltrix_abi::limits::{ACK_ENTRY_FIXED_BYTES, EVENT_PAYLOAD_BYTES_MAX, HEADER_BYTES};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::query::{QUERY_BYTES, QUERY_HEAD_BYTES, Queries, Query, Wanted};
use veltrix_abi::wire::{
    AckEntry, Event, FLAG_SEALED, HELLO_BODY_BYTES, Header, Kind, Mode, PING_BODY_BYTES, Pong,
    Reply, ReplyError, Request, SHORT_BODY_BYTES, Welcome, decode, decode_reply, finish,
};
use veltrix_abi::{Action, Exit};

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

#[derive(Clone, Debug)]
struct Owned {
    key: [u8; 16],
    numbers: (u64, u64, u64),
    kind: u16,
    payload: Vec<u8>,
}

impl Owned {
    fn event(&self) -> Event<'_> {
        Event {
            key: self.key,
            player: self.numbers.0,
            subject: self.numbers.1,
            argument: self.numbers.2,
            kind: self.kind,
            reserved: 0,
            payload: &self.payload,
        }
    }
}

fn event() -> impl Strategy<Value = Owned> {
    let payload = prop::collection::vec(any::<u8>(), 0..=64);
    let largest = prop::collection::vec(any::<u8>(), EVENT_PAYLOAD_BYTES_MAX);
    let payload = prop_oneof![8 => payload, 1 => largest];
    (any::<[u8; 16]>(), any::<(u64, u64, u64)>(), any::<u16>(), payload)
        .prop_map(|(key, numbers, kind, payload)| Owned { key, numbers, kind, payload })
}

fn header(kind: Kind) -> impl Strategy<Value = Header> {
    any::<(u64, u64, u64, u64)>().prop_map(move |(session, sequence, domain, cookie)| Header {
        session,
        sequence,
        domain,
        cookie,
        ..Header::new(kind)
    })
}

fn datagram(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    header.write(&mut out);
    out.extend(body);
    finish(&mut out, crc);
    out
}

fn events_datagram(header: Header, mode: Mode, events: &[Owned]) -> Vec<u8> {
    let mut body = Vec::new();
    for event in events {
        let at = body.len();
        body.resize(at + event.event().wire_bytes(), 0xee);
        event.event().write(&mut body[at..]);
    }
    datagram(&Header { mode: mode as u8, count: events.len() as u16, ..header }, &body)
}

/// Decodes with the CRC made right again, so that what lies behind it is reached.
fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= HEADER_BYTES {
        let sealed = bytes[11] & FLAG_SEALED != 0 && bytes[8] == 1;
        let end = bytes.len() - if sealed { 16.min(bytes.len() - HEADER_BYTES) } else { 0 };
        finish(&mut bytes[..end], crc);
    }
    bytes
}

fn walk(bytes: &[u8]) -> Result<Header, Exit> {
    let (header, request) = decode(bytes, crc)?;
    if let Request::Events(_, events) = request {
        let count = events.count();
        assert_eq!(events.map(|e| e.wire_bytes()).sum::<usize>(), bytes.len() - HEADER_BYTES);
        assert_eq!(events.count(), count);
    }
    if let Request::Query(queries) = request {
        assert_eq!(queries.iter().len(), usize::from(header.count));
        assert_eq!(queries.body_bytes, bytes.len() - HEADER_BYTES);
    }
    Ok(header)
}

fn walk_reply(bytes: &[u8]) -> Result<Header, ReplyError> {
    let (header, reply) = decode_reply(bytes, crc)?;
    if let Reply::Ack(acks) = reply {
        let entries: Vec<AckEntry<'_>> = acks.collect();
        assert_eq!(entries.len(), usize::from(header.count));
        for entry in entries {
            let marked = entry.outcomes.iter().filter(|o| **o & DUPLICATE_BIT != 0).count();
            assert_eq!(entry.duplicate_epochs().count(), marked);
        }
    } else if let Reply::Answer(entries) = reply {
        assert_eq!(entries.count(), usize::from(header.count));
    }
    Ok(header)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn events_read_back_as_written(
        header in header(Kind::Events),
        durable in any::<bool>(),
        events in prop::collection::vec(event(), 1..12),
    ) {
        let mode = if durable { Mode::Durable } else { Mode::None };
        let bytes = events_datagram(header, mode, &events);
        let (read, request) = decode(&bytes, crc).unwrap();
        prop_assert_eq!((read.session, read.sequence, read.domain, read.cookie),
            (header.session, header.sequence, header.domain, header.cookie));
        let Request::Events(seen, list) = request else { panic!("{request:?}") };
        prop_assert_eq!(seen, mode);
        prop_assert_eq!(list.size_hint(), (events.len(), Some(events.len())));
        let list: Vec<Event<'_>> = list.collect();
        prop_assert_eq!(list.len(), events.len());
        for (read, written) in list.iter().zip(&events) {
            prop_assert_eq!(*read, written.event());
        }
    }

    #[test]
    fn no_truncation_or_extension_is_taken(
        header in header(Kind::Events),
        events in prop::collection::vec(event(), 1..6),
        more in 1..64usize,
    ) {
        let bytes = events_datagram(header, Mode::None, &events);
        for end in 0..bytes.len() {
            let seen = walk(&bytes[..end]).unwrap_err();
            let wanted = if end < HEADER_BYTES { Exit::DropHeaderShort } else { Exit::Checksum };
            prop_assert_eq!(seen, wanted);
            if end >= HEADER_BYTES {
                prop_assert_eq!(walk(&repaired(bytes[..end].to_vec())).unwrap_err(), Exit::Malformed);
            }
        }
        let mut longer = bytes;
        longer.resize(longer.len() + more, 0);
        prop_assert_eq!(walk(&repaired(longer)).unwrap_err(), Exit::Malformed);
    }

    #[test]
    fn any_flipped_bit_is_found(
        header in header(Kind::Events),
        events in prop::collection::vec(event(), 1..4),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let mut bytes = events_datagram(header, Mode::None, &events);
        // The magic is the kernel half's to check.
        let at = 4 + at.index(bytes.len() - 4);
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(walk(&bytes).unwrap_err(), Exit::Checksum);
    }

    #[test]
    fn damage_behind_a_right_crc_never_panics(
        header in header(Kind::Events),
        events in prop::collection::vec(event(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in 0..80usize,
    ) {
        let mut bytes = events_datagram(header, Mode::None, &events);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let bytes = repaired(bytes);
        if let Err(exit) = walk(&bytes) {
            prop_assert!(matches!(exit.action(), Action::Drop | Action::Silent | Action::Reply));
        }
        let _ = walk_reply(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..12u8) {
        let _ = walk(&bytes);
        let _ = walk_reply(&bytes);
        let mut bytes = bytes;
        if bytes.len() >= HEADER_BYTES {
            bytes[..4].copy_from_slice(b"VLTX");
            (bytes[8], bytes[9], bytes[10], bytes[11]) = (1, kind, bytes[10] % 3, 0);
            (bytes[12], bytes[13], bytes[14], bytes[15]) = (bytes[12] % 5, 0, 0, 0);
            let bytes = repaired(bytes);
            let _ = walk(&bytes);
            let _ = walk_reply(&bytes);
        }
    }

    #[test]
    fn acks_read_back_and_no_truncation_is_taken(
        header in header(Kind::Ack),
        entries in prop::collection::vec(
            (any::<u64>(), any::<u64>(), prop::collection::vec((1..=15u8, any::<bool>()), 0..20)), 1..6),
    ) {
        let mut body = Vec::new();
        for (sequence, epoch, outcomes) in &entries {
            let duplicates = outcomes.iter().filter(|(_, d)| *d).count();
            let at = body.len();
            let bytes = AckEntry::wire_bytes(outcomes.len(), duplicates);
            body.resize(at + bytes, 0);
            let codes: Vec<u8> = outcomes
                .iter()
                .map(|(code, duplicate)| code | if *duplicate { DUPLICATE_BIT } else { 0 })
                .collect();
            let out = &mut body[at..];
            AckEntry::write(out, *sequence, *epoch, Mode::Durable, &codes, duplicates as u16);
            let epochs = at + ACK_ENTRY_FIXED_BYTES + outcomes.len().next_multiple_of(8);
            for n in 0..duplicates {
                body[epochs + 8 * n..][..8].copy_from_slice(&(n as u64 + 5).to_le_bytes());
            }
        }
        let bytes = datagram(&Header { count: entries.len() as u16, ..header }, &body);
        let (_, reply) = decode_reply(&bytes, crc).unwrap();
        let Reply::Ack(acks) = reply else { panic!("{reply:?}") };
        for (read, (sequence, epoch, outcomes)) in acks.zip(&entries) {
            prop_assert_eq!((read.sequence, read.epoch, read.mode), (*sequence, *epoch, Mode::Durable));
            prop_assert_eq!(read.outcomes.len(), outcomes.len());
            let duplicates = outcomes.iter().filter(|(_, d)| *d).count() as u64;
            prop_assert!(read.duplicate_epochs().eq(5..5 + duplicates));
        }
        prop_assert_eq!(walk(&bytes).unwrap_err(), Exit::ReplyKind);
        for end in 0..bytes.len() {
            prop_assert!(walk_reply(&bytes[..end]).is_err());
            if end >= HEADER_BYTES {
                prop_assert_eq!(walk_reply(&repaired(bytes[..end].to_vec())).unwrap_err(), ReplyError::Malformed);
            }
        }
    }

    #[test]
    fn fixed_bodies_read_back(
        pong in any::<[u64; 3]>(),
        numbers in any::<(u64, u64, u64, u64)>(),
        shorts in any::<[u16; 6]>(),
        bytes in any::<[u8; 5]>(),
    ) {
        let pong = Pong { client_sent_ns: pong[0], server_received_ns: pong[1], server_sent_ns: pong[2] };
        let mut body = [0xee; PING_BODY_BYTES];
        pong.write(&mut body);
        prop_assert_eq!(Pong::read(&body), pong);
        let welcome = Welcome {
            log_time_ns: numbers.0, epoch: numbers.1, cookie: numbers.2, cluster_id: numbers.3,
            partitions: shorts[0], lanes: shorts[1], port_first: shorts[2], port_last: shorts[3],
            payload_bytes_max: shorts[4], events_max: shorts[5],
            modes: bytes[0], version_min: bytes[1], version_max: bytes[2], role: bytes[3],
            features: bytes[4],
        };
        let mut body = [0xee; HELLO_BODY_BYTES];
        welcome.write(&mut body);
        prop_assert_eq!(Welcome::read(&body), welcome);
        let bytes = datagram(&Header::new(Kind::Welcome), &body);
        prop_assert!(matches!(decode_reply(&bytes, crc), Ok((_, Reply::Welcome(w))) if w == welcome));
    }
}

#[test]
fn each_wrong_header_is_refused_by_its_own_name() {
    let good = Header { mode: 1, count: 0, ..Header::new(Kind::Events) };
    let of = |header: Header, body: &[u8]| walk(&datagram(&header, body)).unwrap_err();
    let event = Event {
        key: [7; 16],
        player: 1,
        subject: 2,
        argument: 3,
        kind: 4,
        reserved: 0,
        payload: &[],
    };
    let mut body = [0; 48];
    event.write(&mut body);
    let one = Header { count: 1, ..good };
    assert!(walk(&datagram(&one, &body)).is_ok());
    assert_eq!(of(Header { version: 0, ..one }, &body), Exit::Version);
    assert_eq!(of(Header { version: 2, kind: 99, ..one }, &body), Exit::Version);
    for kind in [0, 11, 255] {
        assert_eq!(of(Header { kind, ..one }, &body), Exit::Kind);
    }
    assert_eq!(of(Header { flags: 2, ..one }, &body), Exit::Reserved);
    assert_eq!(of(Header { reserved: 1, ..one }, &body), Exit::Reserved);
    for mode in [0, 3, 255] {
        assert_eq!(of(Header { mode, ..one }, &body), Exit::Mode);
    }
    for count in [0, 2, u16::MAX] {
        assert_eq!(of(Header { count, ..one }, &body), Exit::Malformed);
    }
    for payload_bytes in [1u16, 512, 513, u16::MAX] {
        let mut lying = body;
        lying[42..44].copy_from_slice(&payload_bytes.to_le_bytes());
        assert_eq!(of(one, &lying), Exit::Malformed, "{payload_bytes}");
    }
    for kind in [Kind::Ack, Kind::Pong, Kind::Answer, Kind::Welcome, Kind::Busy, Kind::Refused] {
        assert_eq!(of(Header::new(kind), &[]), Exit::ReplyKind, "{kind:?}");
    }
    for (kind, bytes) in [(Kind::Ping, PING_BODY_BYTES), (Kind::Hello, HELLO_BODY_BYTES)] {
        assert!(walk(&datagram(&Header::new(kind), &vec![0; bytes])).is_ok());
        assert_eq!(of(Header::new(kind), &vec![0; bytes - 1]), Exit::Malformed);
        assert_eq!(of(Header::new(kind), &vec![0; bytes + 1]), Exit::Malformed);
        assert_eq!(of(Header { count: 1, ..Header::new(kind) }, &vec![0; bytes]), Exit::Reserved);
    }
}

#[test]
fn a_query_is_taken_only_when_its_count_and_body_agree() {
    let of = |header: Header, body: &[u8]| walk(&datagram(&header, body)).err();
    let one = Header { count: 1, ..Header::new(Kind::Query) };
    let mut body = [0; QUERY_HEAD_BYTES + QUERY_BYTES + 16];
    Queries::write_head(&mut body, 9);
    Query::of(&Wanted::Player(7)).write(&mut body[QUERY_HEAD_BYTES..]);
    let least = QUERY_HEAD_BYTES + QUERY_BYTES;
    assert_eq!(of(one, &body), None);
    assert_eq!(of(one, &body[..least]), None);
    // What a query asks is the server's to judge, not the decoder's.
    assert_eq!(of(one, &[0; QUERY_HEAD_BYTES + QUERY_BYTES]), None);
    for bytes in [0, 8, QUERY_HEAD_BYTES, least - 1] {
        assert_eq!(of(one, &body[..bytes]), Some(Exit::Malformed), "{bytes} bytes");
    }
    for count in [0, 2, u16::MAX] {
        assert_eq!(of(Header { count, ..one }, &body), Some(Exit::Malformed), "count {count}");
    }
    for at in [8, least, body.len() - 1] {
        let mut bad = body;
        bad[at] = 1;
        assert_eq!(of(one, &bad), Some(Exit::Malformed), "byte {at}");
    }
    assert_eq!(of(Header { mode: 1, ..one }, &body), Some(Exit::Reserved));
    assert_eq!(of(Header::new(Kind::Query), &[]), Some(Exit::Malformed), "no body");
    let answer = datagram(&Header { count: 1, ..Header::new(Kind::Answer) }, &[]);
    assert_eq!(walk_reply(&answer).unwrap_err(), ReplyError::Malformed);
}

#[test]
fn a_sealed_datagram_is_told_apart() {
    let header = Header { flags: FLAG_SEALED, ..Header::new(Kind::Events) };
    // The CRC leaves the tag out.
    let mut bytes = datagram(&header, &[0; 8]);
    bytes.extend([0xaa; 16]);
    assert_eq!(walk(&bytes).unwrap_err(), Exit::Sealed);
    for end in HEADER_BYTES..bytes.len() {
        assert!(walk(&bytes[..end]).is_err());
    }
    let short = datagram(&header, &[0; 15]);
    assert_eq!(walk(&short).unwrap_err(), Exit::Checksum, "no room for the tag");
}

#[test]
fn short_replies_are_of_one_length() {
    for kind in [Kind::Busy, Kind::Refused] {
        assert!(walk_reply(&datagram(&Header::new(kind), &[1; SHORT_BODY_BYTES])).is_ok());
        for bytes in [0, SHORT_BODY_BYTES - 1, SHORT_BODY_BYTES + 1] {
            let seen = walk_reply(&datagram(&Header::new(kind), &vec![1; bytes])).unwrap_err();
            assert_eq!(seen, ReplyError::Malformed);
        }
    }
    for kind in [Kind::Events, Kind::Ping, Kind::Query, Kind::Hello] {
        let seen = walk_reply(&datagram(&Header::new(kind), &[])).unwrap_err();
        assert_eq!(seen, ReplyError::Unknown, "{kind:?}");
    }
}
