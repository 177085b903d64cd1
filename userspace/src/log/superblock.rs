//! The facts of a data directory: who it belongs to, and what was fixed when it was
//! formatted.
//!
//! ```text
//!  DIR/superblock.json   facts below, with a checksum; written last, so a directory
//!                        whose formatting was interrupted has none
//!  DIR/lock              held (flock) by the process that uses it; holds its pid
//!  DIR/wal/              segments of the log, all made when formatted
//!  DIR/snapshots/        see `snapshot`
//! ```
//!
//! Everything that decides outcomes stands in the superblock, since all replicas
//! must agree on it. Nothing here changes after the format.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::BLOCK_BYTES;
use super::wal::{SEGMENTS_MIN, WalError, WalOptions};
use crate::batch::format::BATCH_BYTES_MAX;

pub use super::datadir::{DataDir, FormatOptions, random_u64, sizes_for};

/// Version of the directory's layout, of every format in it, and of the rules
/// that its log is replayed by: with kinds of events that were `malformed` when
/// they were judged, a replay would end elsewhere.
pub const FORMAT_VERSION: u32 = 6;
/// Name of the file with the facts.
pub const SUPERBLOCK_FILE: &str = "superblock.json";
/// Its name while it is written.
pub(super) const SUPERBLOCK_TEMPORARY: &str = "superblock.json.tmp";
/// Name of the lock file.
pub const LOCK_FILE: &str = "lock";
/// Folder of the log.
pub const WAL_FOLDER: &str = "wal";
/// Folder of the snapshots.
pub const SNAPSHOT_FOLDER: &str = "snapshots";

/// Bytes of a segment where the disk has room: a write of a second at 128 MB/s,
/// so that purging and recycling stay rare.
pub const SEGMENT_BYTES_DEFAULT: u64 = 128 << 20;
/// Smallest segment: two batches of 256 KiB with their table and headers.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Largest segment: offsets in it fit 31 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Segments where the disk has room: 4 GiB, some four seconds of the far goal's
/// traffic beyond what a snapshot every few seconds needs.
pub const SEGMENTS_DEFAULT: u32 = 32;

/// Capacities of the whole node; each partition gets its share, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Cells (hotspots) of all hunts.
    pub cells_max: u64,
    /// Players, counted once a hunt.
    pub players_max: u64,
    /// Hunts of one partition.
    pub hunts_max: u16,
    /// Quests and treasure types of all hunts.
    pub definitions_max: u64,
    /// Deeds: a quest that a player has begun, or 256 rewards of a player whose
    /// numbers differ in the last byte only.
    pub deeds_max: u64,
    /// Idempotency keys remembered.
    pub dedupe_keys_max: u64,
    /// How long a key is remembered at least, while there is room, ms.
    pub dedupe_window_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cells_max: 2_000_000,
            players_max: 2_000_000,
            hunts_max: 4096,
            definitions_max: 65_536,
            deeds_max: 2_000_000,
            dedupe_keys_max: 4_000_000,
            dedupe_window_ms: 600_000,
        }
    }
}

/// A share of a node's capacity, rounded up.
#[must_use]
pub fn share(capacity: u64, partitions: u16) -> u32 {
    u32::try_from(capacity.div_ceil(u64::from(partitions.max(1)))).unwrap_or(u32::MAX)
}

/// The facts of a data directory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Superblock {
    /// [`FORMAT_VERSION`] of the binary that formatted it.
    pub format_version: u32,
    /// Random name of the cluster.
    #[serde(with = "hex_u64")]
    pub cluster_id: u64,
    /// This node in it, from 1.
    pub node_id: u64,
    /// Reserved: the one replica set is 0.
    pub group: u32,
    /// Partitions of domain keys.
    pub partitions: u16,
    /// Bytes of one segment of the log.
    pub segment_bytes: u64,
    /// Segments of the log: the hard cap.
    pub segments_max: u32,
    /// Capacities.
    pub limits: Limits,
    /// Secret that the checksums of this node's log start from, so that bytes sent
    /// in from outside cannot pass for a record.
    #[serde(with = "hex_u64")]
    pub log_key: u64,
    /// Secret of the dedupe fingerprints.
    #[serde(with = "hex_192")]
    pub dedupe_secret: [u8; 192],
}

/// Without the secrets.
impl std::fmt::Debug for Superblock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Superblock")
            .field("format_version", &self.format_version)
            .field("cluster_id", &format_args!("{:016x}", self.cluster_id))
            .field("node_id", &self.node_id)
            .field("group", &self.group)
            .field("partitions", &self.partitions)
            .field("segment_bytes", &self.segment_bytes)
            .field("segments_max", &self.segments_max)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The file: facts and the CRC32C of their compact JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    superblock: Superblock,
    crc32c: String,
}

/// [`Superblock::room_bytes_min`] of a log of `log_bytes`.
#[must_use]
pub fn room_bytes_min(log_bytes: u64, segment_bytes: u64, batches: u64) -> u64 {
    let in_flight = batches.saturating_mul((BATCH_BYTES_MAX + 2 * BLOCK_BYTES) as u64);
    let segments = (2 * in_flight).div_ceil(segment_bytes.max(1)).saturating_add(1);
    segments.saturating_mul(segment_bytes).min(log_bytes / 4)
}

impl Superblock {
    /// The file's text.
    #[must_use]
    pub fn encode(&self) -> String {
        let on_disk = OnDisk { superblock: self.clone(), crc32c: self.checksum() };
        let mut text = serde_json::to_string_pretty(&on_disk).unwrap_or_default();
        text.push('\n');
        text
    }

    fn checksum(&self) -> String {
        let compact = serde_json::to_vec(self).unwrap_or_default();
        format!("{:08x}", crc_fast::crc32_iscsi(&compact))
    }

    /// Reads the file's text; `file` is its name for messages.
    ///
    /// # Errors
    ///
    /// Text that is no superblock, another version's, a wrong checksum, values out
    /// of range.
    pub fn decode(file: &Path, text: &[u8]) -> Result<Self, DataError> {
        let damaged = |what: String| DataError::Superblock { file: file.into(), what };
        #[derive(Deserialize)]
        struct VersionOnly {
            superblock: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let version: VersionOnly = serde_json::from_slice(text)
            .map_err(|e| damaged(format!("it is not readable as JSON with a version: {e}")))?;
        let found = version.superblock.format_version;
        if found != FORMAT_VERSION {
            return Err(DataError::Version { file: file.into(), found });
        }
        let on_disk: OnDisk =
            serde_json::from_slice(text).map_err(|e| damaged(format!("a field is wrong: {e}")))?;
        let wanted = on_disk.superblock.checksum();
        if on_disk.crc32c != wanted {
            return Err(damaged(format!(
                "its crc32c says {:?}, its fields give {wanted:?}: it was changed by hand or by a failing disk",
                on_disk.crc32c
            )));
        }
        on_disk.superblock.check().map_err(damaged)?;
        Ok(on_disk.superblock)
    }

    /// What is out of range, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        let range = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !range.contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64)
        {
            return Err(format!(
                "segment_bytes is {}, wanted {} to {} and whole blocks of {BLOCK_BYTES}",
                self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX
            ));
        }
        if self.segments_max < SEGMENTS_MIN {
            return Err(format!(
                "segments_max is {}, wanted at least {SEGMENTS_MIN}",
                self.segments_max
            ));
        }
        if self.partitions == 0 {
            return Err("partitions is 0, wanted at least 1".into());
        }
        if self.group != 0 {
            return Err(format!("group is {}, this version knows only 0", self.group));
        }
        Ok(())
    }

    /// Bytes of the whole log.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.segment_bytes.saturating_mul(u64::from(self.segments_max))
    }

    /// Free bytes of the log, in whole segments, below which nothing more may join a
    /// batch while `batches` may be in flight. With these left when the last look
    /// said yes, every batch in flight still fits though all of them are written and
    /// not settled yet, and counted twice, and though one more segment was begun for
    /// something else. At most a quarter of the log: a smaller one may refuse a sealed
    /// batch when it fills up, whose events are tried again.
    #[must_use]
    pub fn room_bytes_min(&self, batches: u64) -> u64 {
        room_bytes_min(self.wal_bytes(), self.segment_bytes, batches)
    }

    /// Options to open its log with; a new salt each time.
    ///
    /// # Errors
    ///
    /// No random numbers to be had.
    pub fn wal_options(&self) -> io::Result<WalOptions> {
        Ok(WalOptions {
            segment_bytes: self.segment_bytes,
            segments_max: self.segments_max,
            log_key: self.log_key,
            salt: random_u64()?,
        })
    }
}

mod hex_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        if text.len() != 16 {
            return Err(D::Error::custom("16 hexadecimal digits wanted"));
        }
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

mod hex_192 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &[u8; 192], out: S) -> Result<S::Ok, S::Error> {
        let text: String = value.iter().map(|b| format!("{b:02x}")).collect();
        out.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 192], D::Error> {
        let text = String::deserialize(from)?;
        if text.len() != 384 || !text.is_ascii() {
            return Err(D::Error::custom("384 hexadecimal digits wanted"));
        }
        let mut value = [0; 192];
        for (byte, digits) in value.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(D::Error::custom)?;
            *byte = u8::from_str_radix(digits, 16).map_err(D::Error::custom)?;
        }
        Ok(value)
    }
}

/// Why a data directory cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file system refused something.
    #[error("{}: {doing}: {source}{}", path.display(), cure(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// There is no superblock.
    #[error(
        "{}: no data directory: {SUPERBLOCK_FILE} is missing{}; `veltrix format --data {}` makes one",
        dir.display(),
        if *interrupted { " (formatting it was interrupted)" } else { "" },
        dir.display()
    )]
    NotFormatted {
        /// The directory.
        dir: PathBuf,
        /// Whether a format was begun here.
        interrupted: bool,
    },
    /// A format into a directory that holds something.
    #[error(
        "{}: not empty: it holds {found:?}; format wants an empty or a new directory{}",
        dir.display(),
        if *formatted { " (this one is formatted already; its data would be lost)" } else { "" }
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// The first thing in it.
        found: String,
        /// Whether it is a data directory.
        formatted: bool,
    },
    /// Another version's directory.
    #[error(
        "{}: format version {found}, this veltrix knows {FORMAT_VERSION}; use the veltrix that formatted it, or format a new directory with `veltrix format --data DIR`",
        file.display()
    )]
    Version {
        /// The superblock.
        file: PathBuf,
        /// Version in it.
        found: u32,
    },
    /// A superblock that cannot be trusted.
    #[error(
        "{}: the superblock is damaged: {what}; restore the file from a copy (every replica but node_id, log_key and sizes has the same), `veltrix inspect limits --data DIR` shows what is read",
        file.display()
    )]
    Superblock {
        /// The superblock.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another cluster's directory.
    #[error(
        "{}: belongs to cluster {found:016x}, wanted {wanted:016x}; give the directory of that cluster with --data",
        dir.display()
    )]
    Cluster {
        /// The directory.
        dir: PathBuf,
        /// Cluster in its superblock.
        found: u64,
        /// Cluster asked for.
        wanted: u64,
    },
    /// Another process uses it.
    #[error(
        "{}: in use by {}; stop it first, or give another directory with --data",
        dir.display(),
        match pid { Some(pid) => format!("process {pid}"), None => "another process".into() }
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Whose it is, when the lock file says.
        pid: Option<u32>,
    },
    /// It belongs to another user, or others may write to it.
    #[error(
        "{}: owner {owner}, mode {mode:04o}; wanted owner {wanted} (this process) and no write permission for others: `chown -R {wanted} {}` and `chmod go-w {}`",
        path.display(),
        path.display(),
        path.display()
    )]
    Owner {
        /// Directory or file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// User of this process.
        wanted: u32,
    },
    /// The log does not fit the disk.
    #[error(
        "{}: the log needs {wanted} bytes, {free} are free; give less with --segments or --segment-bytes, or another disk",
        dir.display()
    )]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// Bytes of all segments.
        wanted: u64,
        /// Bytes free.
        free: u64,
    },
    /// A value for the format that is out of range.
    #[error("cannot format: {0}")]
    Value(String),
    /// The log could not be made.
    #[error(transparent)]
    Wal(#[from] WalError),
}

fn cure(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "; it is read-only: remount it, or use another disk",
        io::ErrorKind::PermissionDenied => "; this user may not: check owner and mode",
        io::ErrorKind::StorageFull => "; make room, or ask for less with --segments",
        _ => "",
    }
}
