//! The files of the log, what it is opened with, and why it refuses.

use std::io;
use std::sync::Arc;

use super::disk::{Access, BLOCK_BYTES, Disk, DiskFile};

/// Segments at the least: one active, one to go on in, one for votes, one to spare.
pub const SEGMENTS_MIN: u32 = 4;
/// How names of segments end.
pub const SEGMENT_SUFFIX: &str = ".vwal";
/// Name of the file in `slot`.
#[must_use]
pub fn segment_name(slot: u64) -> String {
    format!("segment-{slot:05}{SEGMENT_SUFFIX}")
}

/// What a log is opened with.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// Bytes of a segment, whole blocks.
    pub segment_bytes: u64,
    /// Segments, at least [`SEGMENTS_MIN`].
    pub segments_max: u32,
    /// Secret that checksums start from.
    pub log_key: u64,
    /// Random, another for each opening.
    pub salt: u64,
}

/// Why the log cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Every segment that entries may use is in use.
    #[error(
        "the log is full: {segments_used} of {segments_max} segments are in use; entries below the newest snapshot must be purged first"
    )]
    Full {
        /// Segments in use.
        segments_used: u32,
        /// Segments there are.
        segments_max: u32,
    },
    /// An entry that no record can hold.
    #[error("an entry of {bytes} bytes; a record of this log holds {max} at the most")]
    TooLarge {
        /// Bytes of its body.
        bytes: usize,
        /// Bytes of a record.
        max: usize,
    },
    /// What was asked contradicts the log: a fault of the caller.
    #[error("{asked} contradicts the log, which stands at {stands}")]
    Contradiction {
        /// What was asked.
        asked: String,
        /// Where the log stands.
        stands: String,
    },
    /// An entry that was given up.
    #[error("entry {index} was purged; the first one left is {first}")]
    Purged {
        /// Entry asked for.
        index: u64,
        /// First entry there is.
        first: u64,
    },
    /// Durable bytes are damaged.
    #[error(
        "{file}, offset {offset}: the log is damaged: expected {expected}, found {found}; later records prove that these bytes were durable, so this node must not go on. Restore it from another node or a copy; `{repair}` saves the damaged files and gives up everything from there on"
    )]
    Rot {
        /// File of the segment.
        file: String,
        /// Byte in it at which the damaged record starts.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// The command that gives up what is lost.
        repair: String,
    },
    /// The files are not those of this log.
    #[error("{file}: {what}; restore the files of the log, or format a new data directory")]
    Layout {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The disk refused.
    #[error("{file}, offset {offset}: {doing}: {source}")]
    Io {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// An earlier write failed, or the writer has ended.
    #[error("the log is closed: an earlier write failed or it was stopped")]
    Closed,
}

impl WalError {
    /// As callbacks get it.
    #[must_use]
    pub fn to_io(&self) -> io::Error {
        let kind = match self {
            Self::Full { .. } => io::ErrorKind::StorageFull,
            Self::Rot { .. } | Self::Layout { .. } => io::ErrorKind::InvalidData,
            Self::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self.to_string())
    }
}

/// The files, in order of slots.
#[derive(Debug)]
pub(super) struct Ring {
    place: String,
    files: Vec<Arc<dyn DiskFile>>,
    pub(super) segment_bytes: u64,
    pub(super) log_key: u64,
}

impl Ring {
    pub(super) fn open(
        disk: &dyn Disk,
        options: &WalOptions,
        access: Access,
    ) -> Result<Self, WalError> {
        let mut ring = Self {
            place: disk.place(),
            files: Vec::new(),
            segment_bytes: options.segment_bytes,
            log_key: options.log_key,
        };
        check_options(options).map_err(|what| WalError::Layout { file: disk.place(), what })?;
        for slot in 0..u64::from(options.segments_max) {
            let name = segment_name(slot);
            let path = format!("{}/{name}", ring.place);
            let layout = |what| WalError::Layout { file: path.clone(), what };
            let io = |doing| {
                let file = path.clone();
                move |source| WalError::Io { file, offset: 0, doing, source }
            };
            let file = disk.open(&name, access).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => layout(format!(
                    "a segment is missing: {} segments wanted",
                    options.segments_max
                )),
                _ => io("opening it")(e),
            })?;
            let bytes = file.bytes().map_err(io("asking its length"))?;
            if bytes != options.segment_bytes {
                return Err(layout(format!(
                    "a segment of {bytes} bytes, {} wanted",
                    options.segment_bytes
                )));
            }
            ring.files.push(file);
        }
        Ok(ring)
    }

    pub(super) fn slots(&self) -> u64 {
        self.files.len() as u64
    }

    pub(super) fn file(&self, segment: u64) -> &dyn DiskFile {
        &*self.files[(segment % self.slots()) as usize]
    }

    pub(super) fn name(&self, segment: u64) -> String {
        format!("{}/{}", self.place, segment_name(segment % self.slots()))
    }

    pub(super) fn position(&self, segment: u64, offset: u64) -> u64 {
        segment.saturating_mul(self.segment_bytes).saturating_add(offset)
    }

    pub(super) fn io(
        &self,
        segment: u64,
        offset: u64,
        doing: &'static str,
    ) -> impl FnOnce(io::Error) -> WalError + use<> {
        let file = self.name(segment);
        move |source| WalError::Io { file, offset, doing, source }
    }

    /// The command that a damaged log names.
    pub(super) fn repair_command(&self) -> String {
        let data = self.place.strip_suffix("/wal").unwrap_or(&self.place);
        format!("veltrix repair log --data {data} --accept-loss")
    }

    /// Whatever an earlier life left in caches is durable from here on: a start acts
    /// on what it reads, and must find it again.
    pub(super) fn sync(&self) -> Result<(), WalError> {
        for (slot, file) in self.files.iter().enumerate() {
            file.sync().map_err(self.io(slot as u64, 0, "making it durable"))?;
        }
        Ok(())
    }
}

pub(super) fn check_options(options: &WalOptions) -> Result<(), String> {
    let bytes = options.segment_bytes;
    if bytes < 4 * BLOCK_BYTES as u64 || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
        return Err(format!("segments of {bytes} bytes; at least 4 whole blocks wanted"));
    }
    if bytes > u64::from(u32::MAX) {
        return Err(format!("segments of {bytes} bytes; under 4 GiB wanted"));
    }
    if options.segments_max < SEGMENTS_MIN {
        return Err(format!("{} segments; {SEGMENTS_MIN} wanted", options.segments_max));
    }
    Ok(())
}
