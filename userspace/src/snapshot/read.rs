//! Reading a snapshot file: everything is checked before it is believed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use lz4_flex::block::decompress_into;

use super::error::SnapshotError;
use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES, BlockHeader, Codec, HEADER_BYTES, Header, HeaderFault,
    MANIFEST_BYTES_MAX, Manifest, PartitionEntry, TRAILER_BYTES, Trailer, VERSION, crc,
};
use super::sections::{Discard, SectionKind, Target};

/// Bytes that can be read at any place.
pub trait Source: Sync {
    /// How many there are.
    fn bytes(&self) -> u64;

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    ///
    /// The system's; the end before `out` is full.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for &[u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..));
        let bytes = from.and_then(|from| from.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file, its length as of when it was opened.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    bytes: u64,
}

impl Source for FileSource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
}

/// A snapshot whose header, manifest and trailer are sound.
#[derive(Debug)]
pub struct Snapshot<S> {
    path: PathBuf,
    source: S,
    header: Header,
    manifest: Manifest,
}

impl Snapshot<FileSource> {
    /// Opens a file and checks all of it but the blocks.
    ///
    /// # Errors
    ///
    /// See [`SnapshotError`].
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(SnapshotError::io(path, "cannot be opened"))?;
        // While it is held, the file is not written over by a later snapshot.
        file.try_lock_shared()
            .map_err(|e| SnapshotError::io(path, "is being replaced by a newer one")(e.into()))?;
        let meta = file.metadata().map_err(SnapshotError::io(path, "cannot be examined"))?;
        Self::of(path, FileSource { file, bytes: meta.len() })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

impl<S: Source> Snapshot<S> {
    /// A snapshot in `source`, called `path` in errors. All of it but the blocks
    /// is checked.
    ///
    /// # Errors
    ///
    /// See [`SnapshotError`].
    pub fn of(path: &Path, source: S) -> Result<Self, SnapshotError> {
        let damaged =
            |at, expected: &str, found: String| SnapshotError::damaged(path, at, expected, found);
        let bytes = source.bytes();
        if bytes < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(damaged(bytes, "header and trailer, 176 bytes", "the end".into()));
        }
        let read = |out: &mut [u8], at| {
            source.read_at(out, at).map_err(SnapshotError::io(path, "cannot be read"))
        };
        let mut head = [0; HEADER_BYTES];
        read(&mut head, 0)?;
        let header = Header::decode(&head).map_err(|fault| match fault {
            HeaderFault::Magic => damaged(0, "the magic VLTXSNAP", hex(&head[..8])),
            HeaderFault::Crc { stored, computed } => {
                damaged(12, &format!("the header's CRC {computed:08x}"), format!("{stored:08x}"))
            }
            HeaderFault::Version(found) => {
                SnapshotError::Version { file: path.to_owned(), found, expected: VERSION }
            }
            HeaderFault::Field { at, what } => damaged(at, what, "something else".into()),
        })?;
        let trailer_at = bytes - TRAILER_BYTES as u64;
        let mut tail = [0; TRAILER_BYTES];
        read(&mut tail, trailer_at)?;
        let trailer = Trailer::decode(&tail).filter(|t| t.file_id == header.file_id);
        let trailer = trailer.ok_or_else(|| {
            damaged(trailer_at, "the trailer VSNAPEND with its CRC", hex(&tail[..8]))
        })?;
        let manifest_fits = trailer.file_bytes == bytes
            && trailer.manifest_bytes <= MANIFEST_BYTES_MAX
            && trailer.manifest_offset.checked_add(trailer.manifest_bytes) == Some(trailer_at);
        if !manifest_fits {
            let said = format!("one of {} bytes", trailer.file_bytes);
            return Err(damaged(trailer_at, &format!("a trailer of {bytes} bytes of file"), said));
        }
        let mut text = vec![0; trailer.manifest_bytes as usize];
        read(&mut text, trailer.manifest_offset)?;
        let computed = crc(&[&text]);
        if computed != trailer.manifest_crc {
            let wanted = format!("a manifest with CRC {:08x}", trailer.manifest_crc);
            return Err(damaged(trailer.manifest_offset, &wanted, format!("{computed:08x}")));
        }
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|e| damaged(trailer.manifest_offset, "a manifest", e.to_string()))?;
        if let Err(found) = check_manifest(&manifest, &header, trailer.manifest_offset) {
            return Err(damaged(
                trailer.manifest_offset,
                "a manifest that agrees with itself",
                found,
            ));
        }
        Ok(Self { path: path.to_owned(), source, header, manifest })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    /// Its first bytes.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads and decodes every block and keeps none; `progress` hears the bytes
    /// of state checked so far.
    ///
    /// # Errors
    ///
    /// The first block that is damaged or cannot be read.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<(), SnapshotError> {
        let mut target = Discard(Vec::new());
        let mut window = Window::default();
        let mut done = 0;
        for entry in &self.manifest.partitions {
            self.read_partition(entry, &mut window, &mut target)?;
            done += entry.raw_bytes;
            progress(done);
        }
        Ok(())
    }

    /// Decodes the blocks of a partition into `target`.
    pub(super) fn read_partition(
        &self,
        entry: &PartitionEntry,
        window: &mut Window,
        target: &mut impl Target,
    ) -> Result<(), SnapshotError> {
        let end = entry.offset + entry.stored_bytes;
        window.seek(entry.offset, end);
        let mut crcs = Vec::new();
        let mut sequence = entry.first_block;
        for section in &entry.sections {
            // Both were checked with the manifest.
            let kind = SectionKind::from_label(&section.section);
            let (Some(kind), Some(bytes)) = (kind, section.bytes()) else { continue };
            let mut raw_offset = 0;
            while raw_offset < bytes {
                let raw_bytes = (bytes - raw_offset).min(BLOCK_RAW_BYTES as u64) as u32;
                let wanted = BlockHeader {
                    partition: entry.number,
                    section: kind.code(),
                    codec: Codec::Raw,
                    index: section.index,
                    raw_bytes,
                    stored_bytes: 0,
                    sequence,
                    raw_offset,
                    file_id: self.header.file_id,
                };
                let place = target.place(kind, section.index, raw_offset, raw_bytes as usize);
                crcs.extend_from_slice(&self.block(window, &wanted, place)?.to_le_bytes());
                sequence += 1;
                raw_offset += u64::from(raw_bytes);
            }
        }
        let computed = crc(&[&crcs]);
        if window.at != end || computed != entry.blocks_crc {
            let wanted = format!("blocks to byte {end} with CRC {:08x} in all", entry.blocks_crc);
            let found = format!("blocks to byte {} with CRC {computed:08x}", window.at);
            return Err(SnapshotError::damaged(&self.path, entry.offset, wanted, found));
        }
        Ok(())
    }

    /// Decodes the block at the window's place, which must be `wanted` but for
    /// how it is stored; gives its CRC.
    fn block(
        &self,
        window: &mut Window,
        wanted: &BlockHeader,
        place: Option<&mut [u8]>,
    ) -> Result<u32, SnapshotError> {
        let at = window.at;
        let damaged = |expected: String, found: String| {
            SnapshotError::damaged(&self.path, at, expected, found)
        };
        let whole = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                damaged("a whole block".into(), "its end cut off".into())
            }
            _ => SnapshotError::io(&self.path, "cannot be read")(error),
        };
        let head = window.peek(&self.source, BLOCK_HEADER_BYTES).map_err(whole)?;
        let head: [u8; BLOCK_HEADER_BYTES] = *head
            .first_chunk()
            .ok_or_else(|| damaged("a block's header".into(), "the end".into()))?;
        let found = BlockHeader::decode(&head);
        let as_wanted =
            found.filter(|b| BlockHeader { codec: wanted.codec, stored_bytes: 0, ..*b } == *wanted);
        let Some(header) = as_wanted else {
            let wanted = format!("block {} of partition {}", wanted.sequence, wanted.partition);
            return Err(damaged(wanted, format!("header {}", hex(&head[..28]))));
        };
        let stored = header.stored_bytes as usize;
        let bytes = window.peek(&self.source, BLOCK_HEADER_BYTES + stored).map_err(whole)?;
        let bytes = &bytes[BLOCK_HEADER_BYTES..];
        let (computed, said) = (BlockHeader::crc_of(&head, bytes), BlockHeader::crc_in(&head));
        if computed != said {
            return Err(damaged(format!("a block with CRC {said:08x}"), format!("{computed:08x}")));
        }
        let Some(place) = place else {
            let wanted = "a section within the limits".into();
            return Err(damaged(wanted, format!("{} bytes too many", wanted_end(&header))));
        };
        match header.codec {
            Codec::Raw => place.copy_from_slice(bytes),
            Codec::Zero => place.fill(0),
            Codec::Lz4 => {
                let decoded = decompress_into(bytes, place);
                if decoded.as_ref().ok() != Some(&place.len()) {
                    let wanted = format!("LZ4 of {} bytes", place.len());
                    return Err(damaged(wanted, format!("{decoded:?}")));
                }
            }
        }
        window.at += (BLOCK_HEADER_BYTES + stored) as u64;
        Ok(computed)
    }
}

fn wanted_end(header: &BlockHeader) -> u64 {
    header.raw_offset.saturating_add(header.raw_bytes.into())
}

/// Everything the blocks' reader relies on; `Err` says what is wrong.
fn check_manifest(
    manifest: &Manifest,
    header: &Header,
    manifest_offset: u64,
) -> Result<(), String> {
    if manifest.partitions.len() != usize::from(header.partitions) {
        return Err(format!("{} partitions of {}", manifest.partitions.len(), header.partitions));
    }
    let least = manifest.partitions.iter().map(|p| p.epoch).min();
    if least != Some(manifest.last.index) {
        return Err(format!("last index {}, least epoch {least:?}", manifest.last.index));
    }
    for (number, entry) in manifest.partitions.iter().enumerate() {
        if usize::from(entry.number) != number {
            return Err(format!("partition {} in place of {number}", entry.number));
        }
        let fault = |what: &str| Err(format!("partition {number}: {what}"));
        let (mut raw, mut blocks) = (0u64, 0u64);
        for section in &entry.sections {
            let Some(bytes) = section.bytes().filter(|_| section.record_bytes > 0) else {
                return fault("a section beyond all bounds");
            };
            if SectionKind::from_label(&section.section).is_none() {
                return fault(&format!("unknown section {:?}", section.section));
            }
            raw = raw.saturating_add(bytes);
            blocks = blocks.saturating_add(bytes.div_ceil(BLOCK_RAW_BYTES as u64));
        }
        if raw != entry.raw_bytes || blocks != u64::from(entry.blocks) {
            return fault("bytes or blocks are not those of its sections");
        }
    }
    let mut by_offset: Vec<_> = manifest.partitions.iter().collect();
    by_offset.sort_unstable_by_key(|p| (p.offset, p.first_block, p.blocks));
    let (mut at, mut block) = (HEADER_BYTES as u64, 0u32);
    for entry in by_offset {
        let end = entry.offset.checked_add(entry.stored_bytes);
        let last = entry.first_block.checked_add(entry.blocks);
        match (end, last) {
            (Some(end), Some(last)) if entry.offset == at && entry.first_block == block => {
                (at, block) = (end, last);
            }
            _ => return Err(format!("partition {} does not follow another", entry.number)),
        }
    }
    if at != manifest_offset {
        return Err(format!("blocks end at {at}"));
    }
    Ok(())
}

/// Bytes read ahead of what is decoded.
#[derive(Debug, Default)]
pub(super) struct Window {
    buffer: Vec<u8>,
    /// Place in the file of the buffer's first byte, and how many are there.
    start: u64,
    len: usize,
    /// Place in the file of what is wanted next.
    at: u64,
    /// Nothing is wanted from here on.
    end: u64,
}

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

impl Window {
    fn seek(&mut self, at: u64, end: u64) {
        (self.start, self.len, self.at, self.end) = (at, 0, at, end);
    }

    /// The next `bytes`, at the same place until `at` moves.
    fn peek(&mut self, source: &impl Source, bytes: usize) -> io::Result<&[u8]> {
        let skip = (self.at - self.start) as usize;
        if self.len.saturating_sub(skip) < bytes {
            self.buffer.copy_within(skip.min(self.len)..self.len, 0);
            self.len = self.len.saturating_sub(skip);
            self.start = self.at;
            let left = self.end.saturating_sub(self.start + self.len as u64);
            let more = (bytes - self.len).max(READ_BYTES).min(usize::try_from(left).unwrap_or(0));
            if self.len + more < bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.buffer.len() < self.len + more {
                self.buffer.resize(self.len + more, 0);
            }
            source.read_at(
                &mut self.buffer[self.len..self.len + more],
                self.start + self.len as u64,
            )?;
            self.len += more;
        }
        let skip = (self.at - self.start) as usize;
        Ok(&self.buffer[skip..skip + bytes])
    }
}

/// Checks that `bytes` are a snapshot, whole and sound: for fuzzing and tools.
///
/// # Errors
///
/// The first thing that is wrong, with its place.
pub fn check_bytes(bytes: &[u8]) -> Result<Manifest, SnapshotError> {
    let snapshot = Snapshot::of(Path::new("(bytes)"), bytes)?;
    snapshot.verify(|_| {})?;
    Ok(snapshot.manifest)
}
