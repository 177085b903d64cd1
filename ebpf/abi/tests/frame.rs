//! The frame decoder on the host: never a panic, and what it accepts is inside
//! the frame and says what the frame says.

use proptest::prelude::*;
use veltrix_abi::frame::{Family, FrameBytes, accept, parse};
use veltrix_abi::limits::{HEADER_BYTES, PAYLOAD_BYTES_MAX_DEFAULT};
use veltrix_abi::wire::MAGIC;
use veltrix_abi::{Action, Exit};

const PORT: u16 = 4_747;

/// Ethernet, tags, IP and UDP around a payload; every field right.
fn frame(tags: usize, v6: bool, options: usize, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in 0..tags {
        out.extend(if tag == 0 && tags == 2 { [0x88, 0xa8] } else { [0x81, 0x00] });
        out.extend([0, 9]);
    }
    let udp_bytes = (8 + payload.len()) as u16;
    if v6 {
        out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        out.extend(udp_bytes.to_be_bytes());
        out.extend([17, 64]);
        out.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        out.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    } else {
        out.extend([0x08, 0x00, 0x45 + options as u8, 0]);
        out.extend((20 + 4 * options as u16 + udp_bytes).to_be_bytes());
        out.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 7, 192, 0, 2, 1]);
        out.extend(vec![1; 4 * options]);
    }
    out.extend(40_000u16.to_be_bytes());
    out.extend(PORT.to_be_bytes());
    out.extend(udp_bytes.to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), HEADER_BYTES..=PAYLOAD_BYTES_MAX_DEFAULT).prop_map(
        |mut p| {
            p[..4].copy_from_slice(&MAGIC);
            p
        },
    )
}

/// What every answer must hold, whatever the bytes.
fn consistent(bytes: &[u8]) {
    match accept(bytes, PORT, PAYLOAD_BYTES_MAX_DEFAULT) {
        Ok(d) => {
            let end = d.payload + d.payload_bytes;
            assert!(end <= bytes.len() && d.payload == d.udp + 8 && d.l3 < d.udp);
            assert!((HEADER_BYTES..=PAYLOAD_BYTES_MAX_DEFAULT).contains(&d.payload_bytes));
            assert_eq!(bytes[d.payload..d.payload + 4], MAGIC);
            assert_eq!(bytes[d.udp + 2..d.udp + 4], PORT.to_be_bytes());
            let version = if d.family == Family::V4 { 4 } else { 6 };
            assert_eq!(bytes[d.l3] >> 4, version);
            assert_eq!(parse(bytes, PORT), Ok(d));
        }
        Err(exit) => {
            assert!(exit.is_xdp());
            assert!(matches!(exit.action(), Action::Pass | Action::Drop), "{exit:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_right_frame_is_accepted_where_it_lies(
        tags in 0..=2usize,
        v6 in any::<bool>(),
        options in 0..=10usize,
        payload in payload(),
        padding in 0..60usize,
    ) {
        let options = if v6 { 0 } else { options };
        let mut bytes = frame(tags, v6, options, &payload);
        bytes.resize(bytes.len() + padding, 0xaa);
        let d = accept(&bytes[..], PORT, PAYLOAD_BYTES_MAX_DEFAULT).unwrap();
        prop_assert_eq!(d.l3, 14 + 4 * tags);
        prop_assert_eq!(&bytes[d.payload..d.payload + d.payload_bytes], &payload[..]);
        consistent(&bytes);
        prop_assert_eq!(accept(&bytes[..], PORT + 1, PAYLOAD_BYTES_MAX_DEFAULT), Err(Exit::PassOtherPort));
    }

    #[test]
    fn no_truncation_is_accepted(tags in 0..=2usize, v6 in any::<bool>(), payload in payload()) {
        let bytes = frame(tags, v6, 0, &payload);
        for end in 0..bytes.len() {
            consistent(&bytes[..end]);
            prop_assert!(accept(&bytes[..end], PORT, PAYLOAD_BYTES_MAX_DEFAULT).is_err());
        }
    }

    #[test]
    fn damage_never_panics(
        tags in 0..=3usize,
        v6 in any::<bool>(),
        damage in prop::collection::vec((0..90usize, any::<u8>()), 0..6),
        payload in payload(),
        cut in 0..200usize,
    ) {
        let mut bytes = frame(tags, v6, 0, &payload);
        for (at, value) in damage {
            bytes[at] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        consistent(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        consistent(&bytes);
    }

    #[test]
    fn reading_keeps_to_the_frame(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        at in prop_oneof![0..60usize, Just(usize::MAX), Just(usize::MAX - 3)],
    ) {
        let read = bytes[..].read::<4>(at);
        let inside = at.checked_add(4).is_some_and(|end| bytes[..].reaches(end));
        prop_assert_eq!(read.is_some(), inside);
        if let Some(read) = read {
            prop_assert_eq!(&read[..], &bytes[at..at + 4]);
        }
    }
}
