//! Encoding of a snapshot file, without the file.
//!
//! ```text
//!  header, 128 bytes
//!   0          8         12      16        24           32     40              48           56           58      60           64 .. 128
//!   | VLTXSNAP | version | crc32c | file id | cluster id | node | secret digest | created ns | partitions | group | block bytes | zero
//!  blocks, one after the other, of one partition after the other
//!   0      4        8           10        11      12      14    16          20              24         28          32      40
//!   | VSBK | crc32c | partition | section | codec | index | zero | raw bytes | stored bytes | sequence | zero     | raw offset | file id | stored bytes ...
//!  manifest: JSON ([`Manifest`])
//!  trailer, 48 bytes, the end of the file
//!   0          8        12             16                24               32           40
//!   | VSNAPEND | crc32c | manifest crc | manifest offset | manifest bytes | file bytes | file id |
//! ```
//!
//! All integers little-endian. Each CRC32C covers everything of its part but
//! itself, a block's also what is stored behind it; so every byte of the file
//! is under one of them. The random file id in each block keeps blocks of a
//! former file, left behind on a recycled sector, from passing as ours; partition,
//! section, offset and sequence keep ours from passing in another place. Magic,
//! version and the header's CRC keep their places in every version to come.

use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"VLTXSNAP";
/// Version written and understood here.
pub const VERSION: u32 = 5;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// First bytes of a block.
pub const BLOCK_MAGIC: [u8; 4] = *b"VSBK";
/// Bytes of a block before what is stored.
pub const BLOCK_HEADER_BYTES: usize = 48;
/// Bytes of a section in one block at the most. Larger ones compress no better
/// (the window of LZ4 is 64 KiB) and leave less to do beside a waiting disk.
pub const BLOCK_RAW_BYTES: usize = 1 << 20;
/// First bytes of the trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"VSNAPEND";
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 48;
/// Bytes of a manifest at the most: 1,024 partitions with 4 KiB each.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// CRC32C of several slices, as if they were one.
pub(super) fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

/// `N` bytes from `at`; the callers' buffers are longer.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn put<const N: usize>(out: &mut [u8], at: usize, value: [u8; N]) {
    out[at..at + N].copy_from_slice(&value);
}

/// Where the CRC of header, block and trailer stands.
const HEADER_CRC_AT: usize = 12;
const BLOCK_CRC_AT: usize = 4;
const TRAILER_CRC_AT: usize = 8;

/// The file's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Random; stands in every block.
    pub file_id: u64,
    /// Cluster whose state it is.
    pub cluster_id: u64,
    /// Node that wrote it.
    pub node: u64,
    /// See [`super::Identity::secret_digest`].
    pub secret_digest: u64,
    /// Log time when it was begun, nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// Partitions of the cluster, each of which is in the file.
    pub partitions: u16,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Magic,
    Crc { stored: u32, computed: u32 },
    Version(u32),
    Field { at: u64, what: &'static str },
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, VERSION.to_le_bytes());
        put(&mut out, 16, self.file_id.to_le_bytes());
        put(&mut out, 24, self.cluster_id.to_le_bytes());
        put(&mut out, 32, self.node.to_le_bytes());
        put(&mut out, 40, self.secret_digest.to_le_bytes());
        put(&mut out, 48, self.created_ns.to_le_bytes());
        put(&mut out, 56, self.partitions.to_le_bytes());
        put(&mut out, 60, (BLOCK_RAW_BYTES as u32).to_le_bytes());
        let crc = Self::crc_of(&out);
        put(&mut out, HEADER_CRC_AT, crc.to_le_bytes());
        out
    }

    fn crc_of(bytes: &[u8; HEADER_BYTES]) -> u32 {
        crc(&[&bytes[..HEADER_CRC_AT], &bytes[HEADER_CRC_AT + 4..]])
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderFault> {
        if bytes[..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        let stored = u32::from_le_bytes(array(bytes, HEADER_CRC_AT));
        let computed = Self::crc_of(bytes);
        if stored != computed {
            return Err(HeaderFault::Crc { stored, computed });
        }
        let version = u32::from_le_bytes(array(bytes, 8));
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let field = |at, what| Err(HeaderFault::Field { at, what });
        if array(bytes, 58) != [0u8; 2] {
            return field(58, "group 0");
        }
        if u32::from_le_bytes(array(bytes, 60)) != BLOCK_RAW_BYTES as u32 {
            return field(60, "blocks of 1 MiB");
        }
        if bytes[64..].iter().any(|b| *b != 0) {
            return field(64, "reserved bytes of zero");
        }
        Ok(Self {
            file_id: u64::from_le_bytes(array(bytes, 16)),
            cluster_id: u64::from_le_bytes(array(bytes, 24)),
            node: u64::from_le_bytes(array(bytes, 32)),
            secret_digest: u64::from_le_bytes(array(bytes, 40)),
            created_ns: u64::from_le_bytes(array(bytes, 48)),
            partitions: u16::from_le_bytes(array(bytes, 56)),
        })
    }
}

/// How a block's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Codec {
    /// As they are: compression would not have paid.
    Raw = 0,
    /// An LZ4 block.
    Lz4 = 1,
    /// Nothing is stored: they are all zero.
    Zero = 2,
}

impl Codec {
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zero),
            _ => None,
        }
    }
}

/// What stands before a block's stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub partition: u16,
    pub section: u8,
    pub codec: Codec,
    /// Which of several sections of that kind.
    pub index: u16,
    pub raw_bytes: u32,
    pub stored_bytes: u32,
    /// Number of the block in the file.
    pub sequence: u32,
    /// Place of its first byte in the section.
    pub raw_offset: u64,
    pub file_id: u64,
}

impl BlockHeader {
    /// Writes it before `stored`; gives the CRC.
    pub(super) fn encode(&self, out: &mut [u8; BLOCK_HEADER_BYTES], stored: &[u8]) -> u32 {
        out.fill(0);
        put(out, 0, BLOCK_MAGIC);
        put(out, 8, self.partition.to_le_bytes());
        out[10] = self.section;
        out[11] = self.codec as u8;
        put(out, 12, self.index.to_le_bytes());
        put(out, 16, self.raw_bytes.to_le_bytes());
        put(out, 20, self.stored_bytes.to_le_bytes());
        put(out, 24, self.sequence.to_le_bytes());
        put(out, 32, self.raw_offset.to_le_bytes());
        put(out, 40, self.file_id.to_le_bytes());
        let crc = Self::crc_of(out, stored);
        put(out, BLOCK_CRC_AT, crc.to_le_bytes());
        crc
    }

    /// What its CRC should be.
    pub(super) fn crc_of(bytes: &[u8; BLOCK_HEADER_BYTES], stored: &[u8]) -> u32 {
        crc(&[&bytes[..BLOCK_CRC_AT], &bytes[BLOCK_CRC_AT + 4..], stored])
    }

    /// The CRC written in it.
    pub(super) fn crc_in(bytes: &[u8; BLOCK_HEADER_BYTES]) -> u32 {
        u32::from_le_bytes(array(bytes, BLOCK_CRC_AT))
    }

    /// The fields, which mean something only when the CRC is right; `None`
    /// when they are no block's.
    pub(super) fn decode(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            partition: u16::from_le_bytes(array(bytes, 8)),
            section: bytes[10],
            codec: Codec::from_code(bytes[11])?,
            index: u16::from_le_bytes(array(bytes, 12)),
            raw_bytes: u32::from_le_bytes(array(bytes, 16)),
            stored_bytes: u32::from_le_bytes(array(bytes, 20)),
            sequence: u32::from_le_bytes(array(bytes, 24)),
            raw_offset: u64::from_le_bytes(array(bytes, 32)),
            file_id: u64::from_le_bytes(array(bytes, 40)),
        };
        let lengths = match header.codec {
            Codec::Raw => header.stored_bytes == header.raw_bytes,
            Codec::Lz4 => header.stored_bytes < header.raw_bytes,
            Codec::Zero => header.stored_bytes == 0,
        };
        let sound = bytes[..4] == BLOCK_MAGIC
            && array(bytes, 14) == [0u8; 2]
            && array(bytes, 28) == [0u8; 4]
            && (1..=BLOCK_RAW_BYTES as u32).contains(&header.raw_bytes)
            && lengths;
        sound.then_some(header)
    }
}

/// The file's last bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub manifest_crc: u32,
    pub manifest_offset: u64,
    pub manifest_bytes: u64,
    pub file_bytes: u64,
    pub file_id: u64,
}

impl Trailer {
    pub(super) fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        put(&mut out, 0, TRAILER_MAGIC);
        put(&mut out, 12, self.manifest_crc.to_le_bytes());
        put(&mut out, 16, self.manifest_offset.to_le_bytes());
        put(&mut out, 24, self.manifest_bytes.to_le_bytes());
        put(&mut out, 32, self.file_bytes.to_le_bytes());
        put(&mut out, 40, self.file_id.to_le_bytes());
        let crc = crc(&[&out[..TRAILER_CRC_AT], &out[TRAILER_CRC_AT + 4..]]);
        put(&mut out, TRAILER_CRC_AT, crc.to_le_bytes());
        out
    }

    /// The trailer, when magic and CRC are right.
    pub(super) fn decode(bytes: &[u8; TRAILER_BYTES]) -> Option<Self> {
        let computed = crc(&[&bytes[..TRAILER_CRC_AT], &bytes[TRAILER_CRC_AT + 4..]]);
        let stored = u32::from_le_bytes(array(bytes, TRAILER_CRC_AT));
        if bytes[..8] != TRAILER_MAGIC || computed != stored {
            return None;
        }
        Some(Self {
            manifest_crc: u32::from_le_bytes(array(bytes, 12)),
            manifest_offset: u64::from_le_bytes(array(bytes, 16)),
            manifest_bytes: u64::from_le_bytes(array(bytes, 24)),
            file_bytes: u64::from_le_bytes(array(bytes, 32)),
            file_id: u64::from_le_bytes(array(bytes, 40)),
        })
    }
}

/// Position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// That leader.
    pub node: u64,
    /// Log index, which is the epoch.
    pub index: u64,
}

/// Capacities of one partition, which decide outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most cells.
    pub cells_max: u32,
    /// Most players.
    pub players_max: u32,
    /// Most hunts.
    pub hunts_max: u16,
    /// Most quests and treasure types.
    pub definitions_max: u32,
    /// Most deeds.
    pub deeds_max: u32,
    /// Idempotency keys held.
    pub dedupe_keys_max: u32,
    /// How long a key is remembered, ms.
    pub dedupe_window_ms: u64,
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The entry at the least epoch of its partitions: replay begins after it,
    /// and a partition that is further skips what it has.
    pub last: Position,
    /// Membership of the cluster as of that entry, as the log encodes it.
    #[serde(with = "hex")]
    pub membership: Vec<u8>,
    /// What a partition of the cluster may hold.
    pub limits: Limits,
    /// By ascending number.
    pub partitions: Vec<PartitionEntry>,
}

impl Manifest {
    /// Bytes of state before compression.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.partitions.iter().map(|p| p.raw_bytes).fold(0, u64::saturating_add)
    }

    /// Largest epoch of its partitions.
    #[must_use]
    pub fn epoch_max(&self) -> u64 {
        self.partitions.iter().map(|p| p.epoch).max().unwrap_or(0)
    }

    /// Idempotency keys of all partitions.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.partitions.iter().map(|p| p.keys).fold(0, u64::saturating_add)
    }

    /// Places of sections with this label, over all partitions; some may be empty.
    #[must_use]
    pub fn records(&self, label: &str) -> u64 {
        let sections = self.partitions.iter().flat_map(|p| &p.sections);
        sections.filter(|s| s.section == label).map(|s| s.records).fold(0, u64::saturating_add)
    }
}

/// One partition of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionEntry {
    /// Its number.
    pub number: u16,
    /// Epoch its state is exact at.
    pub epoch: u64,
    /// Log time of that epoch, nanoseconds since the Unix epoch.
    pub log_time_ns: u64,
    /// Running digest of outcomes at that epoch.
    pub digest_outcomes: u64,
    /// Running digest of state at that epoch.
    pub digest_state: u64,
    /// Idempotency keys in it; its sections of keys hold empty places too.
    pub keys: u64,
    /// First byte of its first block.
    pub offset: u64,
    /// Bytes of its blocks in the file.
    pub stored_bytes: u64,
    /// Bytes of its sections.
    pub raw_bytes: u64,
    /// Number in the file of its first block.
    pub first_block: u32,
    /// How many blocks.
    pub blocks: u32,
    /// CRC32C over the CRCs of its blocks, in order.
    pub blocks_crc: u32,
    /// What the blocks hold, in order.
    pub sections: Vec<SectionEntry>,
}

/// One table of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectionEntry {
    /// Label of the kind.
    pub section: String,
    /// Which of several of that kind.
    pub index: u16,
    /// Bytes of one record.
    pub record_bytes: u32,
    /// Records in it.
    pub records: u64,
}

impl SectionEntry {
    /// Bytes of the section; `None` when they do not fit.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.records.checked_mul(self.record_bytes.into())
    }
}

/// Bytes as text.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        let text: String = bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        let pairs = digits.filter(|d| d.len() % 2 == 0);
        let pairs = pairs.ok_or_else(|| D::Error::custom("not an even number of hex digits"))?;
        Ok(pairs.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            file_id: 1,
            cluster_id: 2,
            node: 3,
            secret_digest: 4,
            created_ns: 5,
            partitions: 6,
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Ok(header()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named_not_called_damage() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        let crc = Header::crc_of(&bytes);
        put(&mut bytes, HEADER_CRC_AT, crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderFault::Version(9)));
    }

    #[test]
    fn every_flipped_bit_of_block_and_trailer_is_noticed() {
        let block = BlockHeader {
            partition: 1,
            section: 2,
            codec: Codec::Raw,
            index: 3,
            raw_bytes: 4,
            stored_bytes: 4,
            sequence: 5,
            raw_offset: 6,
            file_id: 7,
        };
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        block.encode(&mut bytes, &[1, 2, 3, 4]);
        assert_eq!(BlockHeader::decode(&bytes), Some(block));
        for bit in 0..BLOCK_HEADER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let computed = BlockHeader::crc_of(&bytes, &[1, 2, 3, 4]);
            assert_ne!(computed, BlockHeader::crc_in(&bytes), "bit {bit}");
        }
        let trailer = Trailer {
            manifest_crc: 1,
            manifest_offset: 2,
            manifest_bytes: 3,
            file_bytes: 4,
            file_id: 5,
        };
        let bytes = trailer.encode();
        assert_eq!(Trailer::decode(&bytes), Some(trailer));
        for bit in 0..TRAILER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&bytes), None, "bit {bit}");
        }
    }
}
