//! What can be wrong with a snapshot, in an operator's words.

use std::io;
use std::path::{Path, PathBuf};

/// Why a snapshot was not written, not read or not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Bytes that no writer left there: cut off, flipped, or of another file.
    #[error("{}: damaged at byte {offset}: expected {expected}, found {found}", file.display())]
    Damaged {
        /// The snapshot.
        file: PathBuf,
        /// First byte of what is wrong.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// It was written by another cluster.
    #[error(
        "{}: belongs to cluster {found:016x}, this data directory to {expected:016x}; it cannot be used here: move it away",
        file.display()
    )]
    Foreign {
        /// The snapshot.
        file: PathBuf,
        /// Cluster it names.
        found: u64,
        /// Cluster of the data directory.
        expected: u64,
    },
    /// Another version of the format.
    #[error(
        "{}: format version {found}, this program reads version {expected}; start the program that wrote it, or move the file away and recover from an older snapshot",
        file.display()
    )]
    Version {
        /// The snapshot.
        file: PathBuf,
        /// Version it names.
        found: u32,
        /// Version understood here.
        expected: u32,
    },
    /// Written under other limits: the same events would have other outcomes.
    #[error(
        "{}: written with {what} {found}, this data directory was formatted with {expected}; they must agree: move it away",
        file.display()
    )]
    Limits {
        /// The snapshot.
        file: PathBuf,
        /// Which of them.
        what: &'static str,
        /// What it was written with.
        found: String,
        /// What the data directory has.
        expected: String,
    },
    /// The log no longer holds what follows the snapshot.
    #[error(
        "{}: ends at epoch {epoch}, but the log begins at {log_first}: the epochs between are in neither; restore a newer snapshot to this directory",
        file.display()
    )]
    Gap {
        /// The snapshot, or the directory when it holds none.
        file: PathBuf,
        /// Least epoch of its partitions; 0 without a snapshot.
        epoch: u64,
        /// First epoch the log still holds.
        log_first: u64,
    },
    /// The system refused an operation.
    #[error("{}: {doing}: {source}", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl SnapshotError {
    /// Whether an older snapshot may be tried in its place: the bytes are
    /// damaged or cannot be read. What was put there by mistake is not passed
    /// over: somebody must decide.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            // Out of memory says nothing about the file.
            Self::Io { source, .. } => source.kind() != io::ErrorKind::OutOfMemory,
            Self::Foreign { .. }
            | Self::Version { .. }
            | Self::Limits { .. }
            | Self::Gap { .. } => false,
        }
    }

    pub(super) fn damaged(
        file: &Path,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self::Damaged { file: file.to_owned(), offset, expected, found }
    }

    pub(super) fn io(file: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { file: file.to_owned(), doing, source }
    }
}
