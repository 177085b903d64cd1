//! Properties of the codec: what it builds the server's decoder reads back,
//! and no input makes the reader panic.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;
use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::query::{Query, Wanted};
use veltrix_abi::wire::{self, Event, Mode, ReplyError, Request};
use veltrix_client::codec::{self, DatagramBuilder, Envelope, KeySource};

type Row = (u64, u64, u64, u16, Vec<u8>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    vec((any::<u64>(), any::<u64>(), any::<u64>(), 1..u16::MAX, vec(any::<u8>(), 0..=512)), 1..40)
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (any::<bool>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(durable, session, sequence, domain, cookie)| {
            let mode = if durable { Mode::Durable } else { Mode::None };
            Envelope { mode, session, sequence, domain, cookie }
        },
    )
}

proptest! {
    #[test]
    fn what_is_pushed_is_what_the_server_reads(
        rows in rows(),
        envelope in envelope(),
        payload_bytes_max in 96_usize..3456,
        events_max in 1_u16..72,
    ) {
        let mut keys = KeySource::seeded(1, 2);
        let mut builder = DatagramBuilder::new(payload_bytes_max, events_max);
        let mut taken = Vec::new();
        for (player, subject, argument, kind, payload) in &rows {
            let (player, subject, argument, kind) = (*player, *subject, *argument, *kind);
            let key = keys.next_key(1_767_225_600_000_000_000);
            let event = Event { key, player, subject, argument, kind, reserved: 0, payload };
            let fits = builder.fits(payload.len());
            prop_assert_eq!(builder.push(&event), fits);
            if fits {
                taken.push(event);
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        let datagram = builder.finish(&envelope).to_vec();
        prop_assert!(datagram.len() <= payload_bytes_max);
        prop_assert!(taken.len() <= usize::from(events_max));
        let (header, request) = wire::decode(&datagram, crc_fast::crc32_iscsi).expect("sound");
        prop_assert_eq!(header.session, envelope.session);
        prop_assert_eq!(header.sequence, envelope.sequence);
        prop_assert_eq!(header.domain, envelope.domain);
        prop_assert_eq!(header.cookie, envelope.cookie);
        let Request::Events(mode, events) = request else { panic!("not events") };
        prop_assert_eq!(mode, envelope.mode);
        prop_assert!(taken.iter().all(Event::is_well_formed));
        prop_assert_eq!(events.collect::<Vec<_>>(), taken);

        // A cleared builder leaves nothing of the last datagram behind.
        builder.clear();
        let event = Event { payload: &[], ..wire_event(&mut keys) };
        prop_assert!(builder.push(&event));
        prop_assert_eq!(builder.finish(&envelope).len(), HEADER_BYTES + EVENT_FIXED_BYTES);
    }

    #[test]
    fn a_restamped_datagram_differs_in_sequence_cookie_and_crc_only(
        first in envelope(),
        sequence in any::<u64>(),
        cookie in any::<u64>(),
    ) {
        let mut keys = KeySource::seeded(3, 4);
        let mut builder = DatagramBuilder::new(1232, 24);
        prop_assert!(builder.push(&wire_event(&mut keys)));
        let mut old = builder.finish(&first).to_vec();
        let new = builder.finish(&Envelope { sequence, cookie, ..first }).to_vec();
        codec::restamp(&mut old, sequence, cookie);
        prop_assert_eq!(old, new);
    }

    #[test]
    fn a_query_datagram_is_sound_and_has_room_for_its_answer(
        wanted in vec(wanted(), 0..50),
        numbers in any::<(u64, u64, u64)>(),
        bytes_max in 0_usize..3456,
    ) {
        let (session, domain, min_epoch) = numbers;
        let built = codec::query(session, domain, min_epoch, &wanted, bytes_max);
        let query_bytes = HEADER_BYTES + 16 + 32 * wanted.len();
        prop_assert_eq!(built.is_some(), !wanted.is_empty() && query_bytes <= bytes_max & !7);
        let Some(mut datagram) = built else { return Ok(()) };
        let answer_bytes: usize =
            wanted.iter().map(|wanted| Query::of(wanted).answer_bytes_max()).sum();
        let room = (HEADER_BYTES + 16 + answer_bytes).min(bytes_max & !7);
        prop_assert_eq!(datagram.len(), room.max(query_bytes));
        codec::restamp(&mut datagram, 5, 6);
        let (header, request) = wire::decode(&datagram, crc_fast::crc32_iscsi).expect("sound");
        prop_assert_eq!((header.session, header.sequence), (session, 5));
        prop_assert_eq!((header.domain, header.cookie), (domain, 6));
        let Request::Query(queries) = request else { panic!("{request:?}") };
        prop_assert_eq!(queries.min_epoch, min_epoch);
        prop_assert!(queries.iter().map(|query| query.tag).eq(0..u32::from(header.count)));
        let read: Vec<_> = queries.iter().map(|query| query.wanted()).collect();
        prop_assert_eq!(read, wanted.into_iter().map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in vec(any::<u8>(), 0..200), kind in any::<u8>()) {
        let _ = codec::read(&bytes);
        codec::restamp(&mut bytes, 1, 0);
        if bytes.len() >= HEADER_BYTES {
            // As far as the body, with every kind.
            bytes[8..12].copy_from_slice(&[1, kind % 12, 0, 0]);
            wire::finish(&mut bytes, crc_fast::crc32_iscsi);
            let _ = codec::read(&bytes);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(bit in 0_usize..8 * 72) {
        let mut datagram = codec::ping(1, 2, 3);
        datagram[bit / 8] ^= 1 << (bit % 8);
        let error = codec::read(&datagram).expect_err("damaged");
        prop_assert!(matches!(error, ReplyError::Checksum | ReplyError::NotOurs));
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let (cell, limit) = (0..1_u64 << 60, 1..=100_u16);
    let range = (0..1_u32 << 29, 0..1_u32 << 29).prop_map(|(low, more)| [low, low + more]);
    prop_oneof![
        any::<u64>().prop_map(Wanted::Player),
        cell.clone().prop_map(Wanted::Cell),
        (range.clone(), range, cell.clone(), limit.clone())
            .prop_map(|(x, y, from, limit)| Wanted::CellsInBox { x, y, from, limit }),
        (cell, limit.clone()).prop_map(|(to, limit)| Wanted::NearestCells { to, limit }),
        (1..u32::MAX, limit).prop_map(|(from, limit)| Wanted::Top { from, limit }),
        (any::<u64>(), 0..50_u16).prop_map(|(player, around)| Wanted::Rank { player, around }),
        Just(Wanted::Hunt),
    ]
}

fn wire_event(keys: &mut KeySource) -> Event<'static> {
    let key = keys.next_key(1_767_225_600_000_000_000);
    Event { key, player: 1, subject: 2, argument: 3, kind: 4, reserved: 0, payload: b"x" }
}

#[test]
fn keys_are_well_formed_and_never_repeat() {
    let mut seen = HashSet::new();
    let mut keys = KeySource::new();
    for _ in 0..100_000 {
        let key = keys.next_key(1_767_225_600_000_000_000);
        assert!(Event { key, ..wire_event(&mut KeySource::seeded(0, 0)) }.is_well_formed());
        assert_eq!(key[..6], 1_767_225_600_000_u64.to_be_bytes()[2..]);
        assert!(seen.insert(key), "repeated");
    }
}

#[test]
fn a_key_carries_all_64_unique_bits() {
    // Two sources that differ in the top bits of the unique part only.
    let mut one = KeySource::seeded(0, 0);
    let mut two = KeySource::seeded(0, 0);
    assert_eq!(one.next_key(0), two.next_key(0));
    let ones: HashSet<_> = (0..1000).map(|_| one.next_key(0)[7] & 3).collect();
    assert_eq!(ones.len(), 4, "the two top bits travel in byte 7");
}
