//! Damaged bytes are refused, with their place.

use proptest::prelude::*;

use super::super::SnapshotError;
use super::super::format::{HEADER_BYTES, TRAILER_BYTES, VERSION, crc};
use super::*;

fn sample() -> Vec<u8> {
    encode(&[Plain::new(0, 7, 3_000), Plain::new(1, 5, 700), Plain::new(2, 9, 0)])
}

/// Place of the damage; anything but damage fails the test.
fn damage(bytes: &[u8]) -> u64 {
    match check_bytes(bytes) {
        Err(SnapshotError::Damaged { offset, .. }) => offset,
        other => panic!("{other:?}"),
    }
}

/// First bytes of all blocks, of the manifest and of the trailer.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut all: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, w)| w == b"VSBK").map(|(at, _)| at).collect();
    let manifest = check_bytes(bytes).unwrap();
    let last = manifest.partitions.iter().map(|p| p.offset + p.stored_bytes).max();
    all.push(last.unwrap() as usize);
    all.push(bytes.len() - TRAILER_BYTES);
    all
}

#[test]
fn cut_anywhere_it_is_refused() {
    let bytes = sample();
    for at in boundaries(&bytes) {
        for cut in [at.saturating_sub(1), at, at + 1] {
            assert!(damage(&bytes[..cut]) <= cut as u64);
        }
    }
    for cut in (0..bytes.len()).step_by(37) {
        damage(&bytes[..cut]);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    damage(&longer);
}

#[test]
fn every_flipped_byte_is_noticed_in_its_part() {
    let bytes = sample();
    let mut parts = vec![0];
    parts.extend(boundaries(&bytes));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let offset = damage(&flipped) as usize;
        let part = |at: usize| parts.iter().rposition(|start| *start <= at);
        assert_eq!(part(offset), part(at), "byte {at} was flipped, {offset} is named");
    }
}

#[test]
fn blocks_in_each_others_place_are_noticed() {
    // Equal partitions but for their numbers: blocks of equal lengths.
    let mut second = Plain::new(0, 7, 500);
    second.head.number = 1;
    let bytes = encode(&[Plain::new(0, 7, 500), second]);
    let manifest = check_bytes(&bytes).unwrap();
    let [a, b] = [&manifest.partitions[0], &manifest.partitions[1]];
    assert_eq!(a.stored_bytes, b.stored_bytes);
    let (a, b, len) = (a.offset as usize, b.offset as usize, a.stored_bytes as usize);
    let mut swapped = bytes.clone();
    swapped[a..a + len].copy_from_slice(&bytes[b..b + len]);
    swapped[b..b + len].copy_from_slice(&bytes[a..a + len]);
    assert_eq!(damage(&swapped), a as u64);
}

#[test]
fn blocks_of_another_file_are_noticed() {
    let bytes = sample();
    let mut other = bytes.clone();
    // The same state under another file id, its own checksums right.
    let header_bytes = |file: &mut Vec<u8>| {
        file[16] ^= 1;
        let sum = crc(&[&file[..12], &file[16..HEADER_BYTES]]);
        file[12..16].copy_from_slice(&sum.to_le_bytes());
        let at = file.len() - TRAILER_BYTES;
        file[at + 40] ^= 1;
        let sum = crc(&[&file[at..at + 8], &file[at + 12..]]);
        file[at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
    };
    header_bytes(&mut other);
    assert_eq!(damage(&other), HEADER_BYTES as u64);
}

/// Makes the checksum of the manifest right again, so that its reader is reached.
fn mend(bytes: &mut [u8]) {
    let Some(at) = bytes.len().checked_sub(TRAILER_BYTES) else { return };
    let word =
        |from: usize| u64::from_le_bytes(*bytes[at + from..].first_chunk().unwrap()) as usize;
    let (from, len) = (word(16), word(24));
    if let Some(text) = from.checked_add(len).and_then(|end| bytes.get(from..end)) {
        let sum = crc(&[text]);
        bytes[at + 12..at + 16].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = crc(&[&bytes[at..at + 8], &bytes[at + 12..]]);
    bytes[at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(check_bytes(&bytes).is_err());
    }

    #[test]
    fn a_manifest_that_lies_does_no_harm(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        digits in any::<bool>(),
    ) {
        let mut bytes = sample();
        let manifest = *boundaries(&bytes).iter().rev().nth(1).unwrap();
        let end = bytes.len() - TRAILER_BYTES;
        for (at, value) in changes {
            let at = manifest + at.index(end - manifest);
            // Mostly other numbers: anything else is no JSON.
            if !digits || bytes[at].is_ascii_digit() {
                bytes[at] = if digits { b'0' + value % 10 } else { value };
            }
        }
        mend(&mut bytes);
        let _ = check_bytes(&bytes);
    }

    #[test]
    fn a_flip_anywhere_is_refused(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let mut bytes = sample();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(check_bytes(&bytes).is_err());
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = sample();
    bytes[8] = VERSION as u8 + 1;
    let sum = crc(&[&bytes[..12], &bytes[16..HEADER_BYTES]]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    let error = check_bytes(&bytes).unwrap_err();
    let SnapshotError::Version { found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((*found, *expected), (VERSION + 1, VERSION));
    assert!(!error.is_damage());
}
