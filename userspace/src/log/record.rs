//! The bytes of one write to the log.
//!
//! ```text
//!  0      4         6       8       12      16     24         32        40             48              52      56            60           64
//!  | VWAL | version | flags | group | items | salt | sequence | segment | durable_upto | payload_bytes | chain | payload_crc | header_crc | items ... | zeroes to the block's end |
//!  item: | kind u8 | body kind u8 | zero u16 | bytes u32 | bytes ... | zeroes to 8 |
//! ```
//!
//! All integers little-endian; a record starts at a block boundary and is whole
//! blocks long.
//!
//! - `salt` is random per life of the process; a life begins with a record flagged
//!   [`FLAG_LIFE`]. `sequence` counts records over all lives, `chain` is the
//!   `header_crc` of the record before: what an earlier turn of the ring or an
//!   earlier life left behind cannot be taken for the next record.
//! - `durable_upto` is the position (segment number times segment bytes, plus offset)
//!   up to which the log was durable when the record was written. A record that is
//!   sound proves that everything below it once was: damage there is rot.
//! - `header_crc` is the CRC32C of the node's secret `log_key` and bytes 0 to 60;
//!   `payload_crc` that of everything behind the header, padding included.

use bytes::Bytes;

use super::disk::{AlignedBuf, BLOCK_BYTES};
use super::{BodyKind, LogEntry, LogId, Vote};

/// First four bytes of a record.
pub const MAGIC: [u8; 4] = *b"VWAL";
/// Version of this encoding.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of one record at the most: fifteen batches of 256 KiB. Smaller, a disk whose
/// flush takes 3 ms holds back what it could write (measured: 1 MiB a flush gave 340 MB/s
/// there); larger, one entry is dear to read back.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// The first record of a life of the process.
pub const FLAG_LIFE: u16 = 1;
/// The first record of a segment.
pub const FLAG_SEGMENT: u16 = 2;
/// Bytes before the bytes of an item.
pub const ITEM_HEADER_BYTES: usize = 8;
/// Bytes of an entry before its body: id and log time.
const ENTRY_FIXED_BYTES: usize = 32;
const ID_BYTES: usize = 24;
const BASE_BYTES: usize = 8 + 16 + 3 * ID_BYTES;

/// Bytes of an encoded base, its header included.
pub const BASE_ITEM_BYTES: usize = ITEM_HEADER_BYTES + BASE_BYTES;
/// Bytes of an encoded vote, cut, purge or commit, header included.
pub const SMALL_ITEM_BYTES: usize = ITEM_HEADER_BYTES + ID_BYTES;

/// Bytes that an entry with `body_bytes` takes in a record.
#[must_use]
pub const fn entry_item_bytes(body_bytes: usize) -> usize {
    (ITEM_HEADER_BYTES + ENTRY_FIXED_BYTES + body_bytes).next_multiple_of(8)
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not even the magic: nothing was ever written here, or a record was torn or
    /// damaged at its first bytes.
    #[error("no record starts here")]
    NoMagic,
    /// The header's own checksum is wrong.
    #[error("header checksum is {found:08x}, its bytes give {wanted:08x}")]
    HeaderChecksum {
        /// In the header.
        found: u32,
        /// Computed.
        wanted: u32,
    },
    /// A header of another version.
    #[error("record version {0}, this veltrix knows {VERSION}")]
    Version(u16),
    /// The checksum of everything behind the header is wrong.
    #[error("payload checksum is {found:08x}, its bytes give {wanted:08x}")]
    PayloadChecksum {
        /// In the header.
        found: u32,
        /// Computed.
        wanted: u32,
    },
    /// The bytes end before the record does.
    #[error("record of {wanted} bytes, only {found} are there")]
    Short {
        /// Bytes of the record.
        wanted: usize,
        /// Bytes there.
        found: usize,
    },
    /// A field holds what no writer writes.
    #[error("{what} at byte {at} of the record")]
    Field {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
}

/// The header of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// [`FLAG_LIFE`], [`FLAG_SEGMENT`].
    pub flags: u16,
    /// Items in it.
    pub items: u32,
    /// Random per life.
    pub salt: u64,
    /// Number among all records, from 1.
    pub sequence: u64,
    /// Number of the segment it stands in, from 0, over all turns of the ring.
    pub segment: u64,
    /// Position up to which the log was durable when it was written.
    pub durable_upto: u64,
    /// Bytes of items.
    pub payload_bytes: u32,
    /// `header_crc` of the record before.
    pub chain: u32,
    /// CRC32C of everything behind the header.
    pub payload_crc: u32,
    /// CRC32C of the node's secret and the header before this field.
    pub header_crc: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn header_crc(log_key: u64, header: &[u8]) -> u32 {
    let mut seeded = [0; 8 + HEADER_BYTES - 4];
    seeded[..8].copy_from_slice(&log_key.to_le_bytes());
    seeded[8..].copy_from_slice(&header[..HEADER_BYTES - 4]);
    crc_fast::crc32_iscsi(&seeded)
}

impl RecordHeader {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Anything that is not the header of a record of the log with `log_key`.
    pub fn decode(bytes: &[u8], log_key: u64) -> Result<Self, RecordError> {
        if bytes.get(..4) != Some(&MAGIC[..]) {
            return Err(RecordError::NoMagic);
        }
        if bytes.len() < HEADER_BYTES {
            return Err(RecordError::Short { wanted: HEADER_BYTES, found: bytes.len() });
        }
        let (u16_of, u32_of, u64_of) = (
            |at| u16_at(bytes, at).unwrap_or(0),
            |at| u32_at(bytes, at).unwrap_or(0),
            |at| u64_at(bytes, at).unwrap_or(0),
        );
        let (found, wanted) = (u32_of(60), header_crc(log_key, bytes));
        if found != wanted {
            return Err(RecordError::HeaderChecksum { found, wanted });
        }
        if u16_of(4) != VERSION {
            return Err(RecordError::Version(u16_of(4)));
        }
        let header = Self {
            flags: u16_of(6),
            items: u32_of(12),
            salt: u64_of(16),
            sequence: u64_of(24),
            segment: u64_of(32),
            durable_upto: u64_of(40),
            payload_bytes: u32_of(48),
            chain: u32_of(52),
            payload_crc: u32_of(56),
            header_crc: found,
        };
        if header.flags & !(FLAG_LIFE | FLAG_SEGMENT) != 0 {
            return Err(RecordError::Field { what: "unknown flag", at: 6 });
        }
        if u32_of(8) != 0 {
            return Err(RecordError::Field { what: "group is not 0", at: 8 });
        }
        if header.record_bytes() > RECORD_BYTES_MAX {
            return Err(RecordError::Field { what: "a length over the largest record", at: 48 });
        }
        Ok(header)
    }

    /// Writes it, checksum included, and gives the checksum.
    fn encode(&self, out: &mut [u8], log_key: u64) -> u32 {
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..12].fill(0);
        out[12..16].copy_from_slice(&self.items.to_le_bytes());
        for (at, value) in
            [(16, self.salt), (24, self.sequence), (32, self.segment), (40, self.durable_upto)]
        {
            out[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(48, self.payload_bytes), (52, self.chain), (56, self.payload_crc)] {
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let crc = header_crc(log_key, out);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Bytes of the whole record on disk.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        (HEADER_BYTES + self.payload_bytes as usize).next_multiple_of(BLOCK_BYTES)
    }
}

/// All that the log says besides its entries, as of the start of a segment or a life:
/// so that earlier segments can be recycled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The vote.
    pub vote: Option<Vote>,
    /// Last entry purged.
    pub purged: Option<LogId>,
    /// Last entry known to be committed.
    pub committed: Option<LogId>,
    /// Last entry; the purged one where none is left.
    pub last: Option<LogId>,
}

/// One thing that a record says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// Where the log stands.
    Base(Base),
    /// A vote given.
    Vote(Vote),
    /// The next entry.
    Entry {
        /// Its name and place.
        id: LogId,
        /// Its log time.
        log_time_ns: u64,
        /// Kind of its body.
        kind: BodyKind,
        /// Bytes of its body.
        bytes: &'a [u8],
    },
    /// Entries behind `last` are taken back; `None` takes back all.
    Truncate(Option<LogId>),
    /// Entries up to this one are given up.
    Purge(LogId),
    /// Entries up to this one are committed.
    Committed(LogId),
}

/// Codes of items.
mod code {
    pub(super) const BASE: u8 = 1;
    pub(super) const VOTE: u8 = 2;
    pub(super) const ENTRY: u8 = 3;
    pub(super) const TRUNCATE: u8 = 4;
    pub(super) const PURGE: u8 = 5;
    pub(super) const COMMITTED: u8 = 6;
}

fn id_at(bytes: &[u8], at: usize) -> Option<LogId> {
    Some(LogId {
        term: u64_at(bytes, at)?,
        node: u64_at(bytes, at + 8)?,
        index: u64_at(bytes, at + 16)?,
    })
}

impl<'a> Item<'a> {
    /// Reads the item at `at` of `payload`; gives it and the bytes it takes.
    fn decode(payload: &'a [u8], at: usize) -> Result<(Self, usize), RecordError> {
        let wrong = |what| RecordError::Field { what, at: HEADER_BYTES + at };
        let header = payload
            .get(at..)
            .and_then(<[u8]>::first_chunk::<ITEM_HEADER_BYTES>)
            .ok_or_else(|| wrong("an item is cut off"))?;
        let bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let from = at + ITEM_HEADER_BYTES;
        let taken = (ITEM_HEADER_BYTES + bytes).next_multiple_of(8);
        let body = payload.get(from..from + bytes).ok_or_else(|| wrong("an item is cut off"))?;
        let padding = payload.get(from + bytes..at + taken);
        if padding.is_none_or(|p| p.iter().any(|b| *b != 0)) || header[2..4] != [0, 0] {
            return Err(wrong("reserved bytes of an item are set"));
        }
        if header[0] != code::ENTRY && header[1] != 0 {
            return Err(wrong("reserved bytes of an item are set"));
        }
        let sized = |wanted: usize| {
            if bytes == wanted { Ok(()) } else { Err(wrong("an item's length is not its kind's")) }
        };
        let cut = || wrong("an item is cut off");
        let item = match header[0] {
            code::BASE => {
                sized(BASE_BYTES)?;
                Self::Base(Base::decode(body).ok_or_else(|| wrong("a base's flags are wrong"))?)
            }
            code::VOTE => {
                sized(ID_BYTES)?;
                let committed = u64_at(body, 16).filter(|c| *c <= 1);
                Self::Vote(Vote {
                    term: u64_at(body, 0).ok_or_else(cut)?,
                    node: u64_at(body, 8).ok_or_else(cut)?,
                    committed: committed.ok_or_else(|| wrong("a vote is neither 0 nor 1"))? == 1,
                })
            }
            code::ENTRY => Self::Entry {
                id: id_at(body, 0).ok_or_else(cut)?,
                log_time_ns: u64_at(body, ID_BYTES).ok_or_else(cut)?,
                kind: BodyKind::of_code(header[1])
                    .ok_or_else(|| wrong("an unknown kind of body"))?,
                bytes: body.get(ENTRY_FIXED_BYTES..).ok_or_else(cut)?,
            },
            code::TRUNCATE if bytes == 0 => Self::Truncate(None),
            code::TRUNCATE | code::PURGE | code::COMMITTED => {
                sized(ID_BYTES)?;
                let id = id_at(body, 0).ok_or_else(cut)?;
                match header[0] {
                    code::TRUNCATE => Self::Truncate(Some(id)),
                    code::PURGE => Self::Purge(id),
                    _ => Self::Committed(id),
                }
            }
            _ => return Err(wrong("an unknown kind of item")),
        };
        Ok((item, taken))
    }
}

impl Base {
    fn decode(body: &[u8]) -> Option<Self> {
        let flags = u64_at(body, 0)?;
        let id = |bit: u32, at| {
            if flags & (1 << bit) == 0 { Some(None) } else { Some(Some(id_at(body, at)?)) }
        };
        if flags >> 5 != 0 || flags & 0b11 == 0b10 {
            return None;
        }
        let vote =
            Vote { term: u64_at(body, 8)?, node: u64_at(body, 16)?, committed: flags & 0b10 != 0 };
        Some(Self {
            vote: (flags & 1 != 0).then_some(vote),
            purged: id(2, 24)?,
            committed: id(3, 48)?,
            last: id(4, 72)?,
        })
    }

    fn encode(&self) -> [u8; BASE_BYTES] {
        let mut out = [0; BASE_BYTES];
        let mut flags = 0u64;
        if let Some(vote) = self.vote {
            flags |= 1 | u64::from(vote.committed) << 1;
            out[8..16].copy_from_slice(&vote.term.to_le_bytes());
            out[16..24].copy_from_slice(&vote.node.to_le_bytes());
        }
        for (bit, at, id) in [(2, 24, self.purged), (3, 48, self.committed), (4, 72, self.last)] {
            if let Some(id) = id {
                flags |= 1 << bit;
                out[at..at + ID_BYTES].copy_from_slice(&id_bytes(&id));
            }
        }
        out[..8].copy_from_slice(&flags.to_le_bytes());
        out
    }
}

fn id_bytes(id: &LogId) -> [u8; ID_BYTES] {
    let mut out = [0; ID_BYTES];
    out[..8].copy_from_slice(&id.term.to_le_bytes());
    out[8..16].copy_from_slice(&id.node.to_le_bytes());
    out[16..].copy_from_slice(&id.index.to_le_bytes());
    out
}

/// A record that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its header.
    pub header: RecordHeader,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Checks the record at the start of `bytes`: checksums, lengths, every item.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(bytes: &'a [u8], log_key: u64) -> Result<Self, RecordError> {
        let header = RecordHeader::decode(bytes, log_key)?;
        let wanted = header.record_bytes();
        let behind = bytes
            .get(HEADER_BYTES..wanted)
            .ok_or(RecordError::Short { wanted, found: bytes.len() })?;
        let crc = crc_fast::crc32_iscsi(behind);
        if crc != header.payload_crc {
            return Err(RecordError::PayloadChecksum { found: header.payload_crc, wanted: crc });
        }
        let payload = &behind[..header.payload_bytes as usize];
        let (mut at, mut items) = (0, 0u32);
        while at < payload.len() {
            at += Item::decode(payload, at)?.1;
            items += 1;
        }
        if items != header.items {
            return Err(RecordError::Field { what: "the number of items is another", at: 12 });
        }
        Ok(Self { header, payload })
    }

    /// Its items, each with the offset in the record at which it starts.
    pub fn items(&self) -> impl Iterator<Item = (usize, Item<'a>)> + use<'a> {
        let (payload, mut at) = (self.payload, 0);
        std::iter::from_fn(move || {
            let (item, taken) = Item::decode(payload, at).ok()?;
            let offset = HEADER_BYTES + at;
            at += taken;
            Some((offset, item))
        })
    }
}

/// The entry whose item starts at `at` of `record`, a checked record; its body
/// shares the record's bytes.
#[must_use]
pub fn entry_at(record: &Bytes, at: usize) -> Option<LogEntry> {
    let (item, _) = Item::decode(record, at).ok()?;
    let Item::Entry { id, log_time_ns, kind, bytes } = item else { return None };
    Some(LogEntry { id, log_time_ns, body: kind.body(record.slice_ref(bytes)) })
}

/// A record being filled.
#[derive(Debug)]
pub struct RecordBuilder {
    buffer: AlignedBuf,
    len: usize,
    items: u32,
}

impl Default for RecordBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordBuilder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: AlignedBuf::zeroed(BLOCK_BYTES), len: HEADER_BYTES, items: 0 }
    }

    /// An empty one that will never have to grow, on huge pages.
    #[must_use]
    pub fn huge() -> Self {
        Self { buffer: AlignedBuf::huge(RECORD_BYTES_MAX), len: HEADER_BYTES, items: 0 }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Bytes on disk if it were finished with `more` bytes of items.
    #[must_use]
    pub fn record_bytes_with(&self, more: usize) -> usize {
        (self.len + more).next_multiple_of(BLOCK_BYTES)
    }

    /// Adds an item; gives the offset in the record at which it starts.
    pub fn push(&mut self, item: &Item<'_>) -> usize {
        match item {
            Item::Base(base) => self.put(code::BASE, 0, &[&base.encode()]),
            Item::Vote(vote) => {
                let committed = u64::from(vote.committed).to_le_bytes();
                let parts = [vote.term.to_le_bytes(), vote.node.to_le_bytes(), committed];
                self.put(code::VOTE, 0, &[parts.as_flattened()])
            }
            Item::Entry { id, log_time_ns, kind, bytes } => {
                let parts = [&id_bytes(id)[..], &log_time_ns.to_le_bytes(), bytes];
                self.put(code::ENTRY, *kind as u8, &parts)
            }
            Item::Truncate(None) => self.put(code::TRUNCATE, 0, &[]),
            Item::Truncate(Some(id)) => self.put(code::TRUNCATE, 0, &[&id_bytes(id)]),
            Item::Purge(id) => self.put(code::PURGE, 0, &[&id_bytes(id)]),
            Item::Committed(id) => self.put(code::COMMITTED, 0, &[&id_bytes(id)]),
        }
    }

    fn put(&mut self, code: u8, body_kind: u8, parts: &[&[u8]]) -> usize {
        let bytes: usize = parts.iter().map(|p| p.len()).sum();
        let at = self.len;
        let end = at + (ITEM_HEADER_BYTES + bytes).next_multiple_of(8);
        self.buffer.grow(end);
        let out = self.buffer.as_mut_slice();
        out[at..at + 4].copy_from_slice(&[code, body_kind, 0, 0]);
        out[at + 4..at + 8].copy_from_slice(&(bytes as u32).to_le_bytes());
        let mut to = at + ITEM_HEADER_BYTES;
        for part in parts {
            out[to..to + part.len()].copy_from_slice(part);
            to += part.len();
        }
        out[to..end].fill(0);
        self.len = end;
        self.items += 1;
        at
    }

    /// Writes the header; lengths, counts and checksums of `header` are filled in.
    /// Gives the bytes to write and the record's `header_crc`.
    pub fn finish(&mut self, mut header: RecordHeader, log_key: u64) -> (&[u8], u32) {
        header.items = self.items;
        header.payload_bytes = (self.len - HEADER_BYTES) as u32;
        let record_bytes = header.record_bytes();
        let out = &mut self.buffer.as_mut_slice()[..record_bytes];
        out[self.len..].fill(0);
        header.payload_crc = crc_fast::crc32_iscsi(&out[HEADER_BYTES..]);
        let crc = header.encode(out, log_key);
        (out, crc)
    }

    /// Empties it; its memory stays.
    pub fn clear(&mut self) {
        self.len = HEADER_BYTES;
        self.items = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: u64 = 0x5eed_5eed_5eed_5eed;

    fn id(index: u64) -> LogId {
        LogId { term: 3, node: 1, index }
    }

    fn items() -> Vec<Item<'static>> {
        let vote = Vote { term: 3, node: 1, committed: true };
        vec![
            Item::Base(Base {
                vote: Some(vote),
                purged: Some(id(4)),
                committed: None,
                last: Some(id(9)),
            }),
            Item::Vote(vote),
            Item::Entry {
                id: id(10),
                log_time_ns: 1_700_000_000_000_000_000,
                kind: BodyKind::Batch,
                bytes: b"a batch of events",
            },
            Item::Entry { id: id(11), log_time_ns: 5, kind: BodyKind::Blank, bytes: b"" },
            Item::Truncate(Some(id(10))),
            Item::Truncate(None),
            Item::Purge(id(8)),
            Item::Committed(id(10)),
        ]
    }

    fn header() -> RecordHeader {
        RecordHeader {
            flags: FLAG_SEGMENT,
            salt: 77,
            sequence: 12,
            segment: 5,
            durable_upto: 4096 * 9,
            chain: 0xabcd,
            ..RecordHeader::default()
        }
    }

    fn encoded() -> Vec<u8> {
        let mut builder = RecordBuilder::new();
        for item in items() {
            builder.push(&item);
        }
        builder.finish(header(), KEY).0.to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = encoded();
        let record = Record::check(&bytes, KEY).unwrap();
        assert_eq!(record.header.sequence, 12);
        let read: Vec<_> = record.items().map(|(_, item)| item).collect();
        assert_eq!(read, items());
    }

    /// A change of the encoding is another version: this digest says when one happened.
    #[test]
    fn the_encoding_is_what_it_was() {
        assert_eq!(crc_fast::crc32_iscsi(&encoded()), 0x5828_48bd);
    }

    #[test]
    fn another_logs_record_is_refused() {
        let error = Record::check(&encoded(), KEY + 1).unwrap_err();
        assert!(matches!(error, RecordError::HeaderChecksum { .. }));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = encoded();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1 << (byte % 8);
            assert!(Record::check(&bad, KEY).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let good = encoded();
        for len in 0..good.len() {
            assert!(Record::check(&good[..len], KEY).is_err());
        }
    }

    #[test]
    fn a_builder_used_again_leaves_nothing_behind() {
        let mut builder = RecordBuilder::new();
        let long = [0xff; 9000];
        let entry = Item::Entry { id: id(1), log_time_ns: 1, kind: BodyKind::Batch, bytes: &long };
        builder.push(&entry);
        builder.finish(header(), KEY);
        builder.clear();
        for item in items() {
            builder.push(&item);
        }
        assert_eq!(builder.finish(header(), KEY).0, encoded());
    }

    proptest! {
        /// Bytes with a right checksum and any content: an error or items, never a panic.
        #[test]
        fn any_payload_is_judged(
            payload in proptest::collection::vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 0..300),
            items in 0u32..8,
        ) {
            let mut bytes = vec![0; (HEADER_BYTES + payload.len()).next_multiple_of(BLOCK_BYTES)];
            bytes[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(&payload);
            let header = RecordHeader {
                items,
                payload_bytes: payload.len() as u32,
                payload_crc: crc_fast::crc32_iscsi(&bytes[HEADER_BYTES..]),
                ..header()
            };
            header.encode(&mut bytes, KEY);
            if let Ok(record) = Record::check(&bytes, KEY) {
                prop_assert_eq!(record.items().count(), items as usize);
            }
        }

        #[test]
        fn any_bytes_are_judged(mut bytes in proptest::collection::vec(any::<u8>(), 0..8192)) {
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            prop_assert!(Record::check(&bytes, KEY).is_err());
            let shared = Bytes::from(bytes);
            let _ = entry_at(&shared, 0);
        }
    }
}
