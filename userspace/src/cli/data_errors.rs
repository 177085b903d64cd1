//! How errors of a data directory end a command.

use super::{CliError, ExitStatus};
use crate::log::superblock::DataError;
use crate::log::wal::WalError;
use crate::snapshot::SnapshotError;

fn by_errno(source: &std::io::Error) -> ExitStatus {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::EROFS) => ExitStatus::NotPermitted,
        _ => ExitStatus::HostNotReady,
    }
}

impl From<DataError> for CliError {
    fn from(error: DataError) -> Self {
        let status = match &error {
            DataError::Io { source, .. } => by_errno(source),
            DataError::Superblock { .. } | DataError::Cluster { .. } => ExitStatus::Damaged,
            _ => ExitStatus::HostNotReady,
        };
        Self::new(status, error.to_string())
    }
}

impl From<WalError> for CliError {
    fn from(error: WalError) -> Self {
        let status = match &error {
            WalError::Io { source, .. } => by_errno(source),
            WalError::Rot { .. } | WalError::Layout { .. } => ExitStatus::Damaged,
            _ => ExitStatus::Error,
        };
        Self::new(status, error.to_string())
    }
}

impl From<SnapshotError> for CliError {
    fn from(error: SnapshotError) -> Self {
        let status = match &error {
            SnapshotError::Io { source, .. } => by_errno(source),
            _ => ExitStatus::Damaged,
        };
        Self::new(status, error.to_string())
    }
}
