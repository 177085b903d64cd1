//! From tables to the bytes of a snapshot file, a block at a time.

use std::io;
use std::time::{Duration, Instant};

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES, BlockHeader, Codec, Header, Limits, Manifest,
    PartitionEntry, SectionEntry, TRAILER_BYTES, Trailer, crc,
};
use super::record::Anchor;
use super::sections::{Section, StateHead};
use super::store::SnapshotFile;
use crate::log::disk::{AlignedBuf, BLOCK_BYTES};

/// Bytes handed to the disk at a time. Larger writes keep a flush of the log
/// waiting for longer, smaller ones cost more of them.
const WRITE_BYTES: usize = 256 << 10;

/// How long the thread leaves its core after each block, whatever the rate. While a
/// thread of little weight is ready, the scheduler (EEVDF, seen on Linux 6.18) may
/// keep a much heavier one waiting: the kernel's flush worker (kblockd, nice -20), and
/// so the log, for up to 10 ms until this thread slept.
const REST: Duration = Duration::from_micros(50);

/// A block is stored compressed when that saves a sixteenth at least.
const fn pays(stored: usize, raw: usize) -> bool {
    stored < raw - raw / 16
}

/// Keeps a rate of bytes on average, in sleeps of some milliseconds.
#[derive(Debug)]
struct Pace {
    bytes_per_s: Option<u64>,
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, since: Instant::now(), bytes: 0 }
    }

    /// `bytes` were produced: waits until their time has come.
    fn spend(&mut self, bytes: u64) {
        let Some(rate) = self.bytes_per_s else { return };
        self.bytes = self.bytes.saturating_add(bytes);
        let due = Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64);
        let ahead = due.saturating_sub(self.since.elapsed());
        if ahead.is_zero() {
            // Time lost waiting for lanes is not made up for by a burst.
            *self = Self::new(Some(rate));
        } else if ahead > Duration::from_millis(1) {
            std::thread::sleep(ahead);
        }
    }
}

/// Writes one file. What was begun and not finished is no snapshot.
pub(super) struct Encoder<F> {
    file: F,
    header: Header,
    pace: Pace,
    table: CompressTable,
    buffer: AlignedBuf,
    /// Bytes of the buffer that wait to be written; they belong at `written`.
    waiting: usize,
    written: u64,
    blocks: u32,
    partitions: Vec<PartitionEntry>,
}

impl<F: SnapshotFile> Encoder<F> {
    /// Begins a file; `bytes_per_s` bounds the bytes of state encoded.
    pub(super) fn new(file: F, header: Header, bytes_per_s: Option<u64>) -> io::Result<Self> {
        let block_bytes = BLOCK_HEADER_BYTES + get_maximum_output_size(BLOCK_RAW_BYTES);
        let mut encoder = Self {
            file,
            header,
            pace: Pace::new(bytes_per_s),
            table: CompressTable::large(),
            buffer: AlignedBuf::zeroed(WRITE_BYTES + block_bytes + BLOCK_BYTES),
            waiting: 0,
            written: 0,
            blocks: 0,
            partitions: Vec::new(),
        };
        encoder.append(&header.encode())?;
        Ok(encoder)
    }

    /// Bytes of the file so far.
    pub(super) fn bytes(&self) -> u64 {
        self.written + self.waiting as u64
    }

    /// Partitions written so far.
    pub(super) fn partitions(&self) -> &[PartitionEntry] {
        &self.partitions
    }

    /// Writes a partition; each only once.
    pub(super) fn partition(
        &mut self,
        head: &StateHead,
        sections: &[Section<'_>],
    ) -> io::Result<()> {
        let (offset, first_block) = (self.bytes(), self.blocks);
        let mut crcs = Vec::new();
        let mut entries = Vec::new();
        let mut raw_bytes = 0u64;
        for section in sections {
            for (i, chunk) in section.bytes.chunks(BLOCK_RAW_BYTES).enumerate() {
                let raw_offset = i as u64 * BLOCK_RAW_BYTES as u64;
                let crc = self.block(head.number, section, raw_offset, chunk)?;
                crcs.extend_from_slice(&crc.to_le_bytes());
            }
            raw_bytes += section.bytes.len() as u64;
            entries.push(SectionEntry {
                section: section.kind.label().to_owned(),
                index: section.index,
                record_bytes: section.record_bytes,
                records: section.bytes.len() as u64 / u64::from(section.record_bytes.max(1)),
            });
        }
        self.partitions.push(PartitionEntry {
            number: head.number,
            epoch: head.epoch,
            log_time_ns: head.log_time_ns,
            digest_outcomes: head.digest_outcomes,
            digest_state: head.digest_state,
            keys: head.keys,
            offset,
            stored_bytes: self.bytes() - offset,
            raw_bytes,
            first_block,
            blocks: self.blocks - first_block,
            blocks_crc: crc(&[&crcs]),
            sections: entries,
        });
        Ok(())
    }

    /// Appends one block; gives its CRC.
    fn block(
        &mut self,
        partition: u16,
        section: &Section<'_>,
        raw_offset: u64,
        raw: &[u8],
    ) -> io::Result<u32> {
        let space = self.buffer.as_mut_slice();
        let (head, body) = space[self.waiting..].split_at_mut(BLOCK_HEADER_BYTES);
        let (codec, stored) = if is_zero(raw) {
            (Codec::Zero, 0)
        } else {
            match compress_into_with_table(raw, body, &mut self.table) {
                Ok(stored) if pays(stored, raw.len()) => (Codec::Lz4, stored),
                _ => {
                    body[..raw.len()].copy_from_slice(raw);
                    (Codec::Raw, raw.len())
                }
            }
        };
        let header = BlockHeader {
            partition,
            section: section.kind.code(),
            codec,
            index: section.index,
            raw_bytes: raw.len() as u32,
            stored_bytes: stored as u32,
            sequence: self.blocks,
            raw_offset,
            file_id: self.header.file_id,
        };
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        let crc = header.encode(&mut bytes, &body[..stored]);
        head.copy_from_slice(&bytes);
        self.waiting += BLOCK_HEADER_BYTES + stored;
        self.blocks = self.blocks.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        self.write_whole_blocks(WRITE_BYTES)?;
        std::thread::sleep(REST);
        self.pace.spend(raw.len() as u64);
        Ok(crc)
    }

    /// Appends bytes that are no block.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(BLOCK_RAW_BYTES) {
            self.buffer.as_mut_slice()[self.waiting..][..piece.len()].copy_from_slice(piece);
            self.waiting += piece.len();
            self.write_whole_blocks(WRITE_BYTES)?;
        }
        Ok(())
    }

    /// Writes what fills whole blocks of the disk, `write_bytes` at a time; fewer wait on.
    fn write_whole_blocks(&mut self, write_bytes: usize) -> io::Result<()> {
        let mut done = 0;
        while self.waiting - done >= write_bytes {
            let blocks = &self.buffer.as_slice()[done..done + write_bytes];
            self.file.write_at(blocks, self.written)?;
            self.written += write_bytes as u64;
            done += write_bytes;
        }
        self.buffer.as_mut_slice().copy_within(done..self.waiting, 0);
        self.waiting -= done;
        Ok(())
    }

    /// Writes manifest and trailer and makes the file durable.
    pub(super) fn finish(mut self, anchor: Anchor, limits: Limits) -> io::Result<(Manifest, u64)> {
        let mut partitions = std::mem::take(&mut self.partitions);
        partitions.sort_by_key(|p| p.number);
        let Anchor { last, membership } = anchor;
        let manifest = Manifest { last, membership, limits, partitions };
        let text = serde_json::to_vec(&manifest)?;
        let manifest_offset = self.bytes();
        let file_bytes = manifest_offset + (text.len() + TRAILER_BYTES) as u64;
        self.append(&text)?;
        let trailer = Trailer {
            manifest_crc: crc(&[&text]),
            manifest_offset,
            manifest_bytes: text.len() as u64,
            file_bytes,
            file_id: self.header.file_id,
        };
        self.append(&trailer.encode())?;
        let padded = self.waiting.next_multiple_of(BLOCK_BYTES);
        self.buffer.as_mut_slice()[self.waiting..padded].fill(0);
        self.waiting = padded;
        if padded > 0 {
            self.write_whole_blocks(padded)?;
        }
        self.file.finish(file_bytes)?;
        Ok((manifest, file_bytes))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, b| all | b) == 0)
}
