//! One snapshot after the other: partitions come in any order, and when the
//! last of a round has come the file gets its name.
//!
//! ```text
//!  begin -> snapshot.partial -> add, add ... -> finish: flush file, rename, flush directory, retire the oldest
//!               |
//!               +-- any error, abandon: taken back; what was there before stays
//! ```
//!
//! Only the rename makes a snapshot, and only a file that is durable as a whole
//! is renamed: a crash between any two steps leaves the ones before it.

use std::io;
use std::path::{Path, PathBuf};

use super::encode::Encoder;
use super::error::SnapshotError;
use super::format::{Header, Limits, Manifest, Position};
use super::names;
use super::sections::Image;
use super::store::SnapshotDir;

/// Complete snapshots that are kept: the newest, and one to fall back on.
pub const KEPT: usize = 2;

/// Whose state it is, and under which rules it came about. A snapshot of
/// another identity is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Cluster.
    pub cluster_id: u64,
    /// This node; a snapshot of another node of the cluster is as good.
    pub node: u64,
    /// Partitions of the cluster.
    pub partitions: u16,
    /// Digest of the dedupe secret: with another secret no key would be found
    /// again.
    pub secret_digest: u64,
    /// Capacities of one partition.
    pub limits: Limits,
}

/// Where in the log a snapshot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The entry at the epoch asked for.
    pub last: Position,
    /// Membership of the cluster as of that entry, as the log encodes it.
    pub membership: Vec<u8>,
}

/// A snapshot that is complete.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// What it holds.
    pub manifest: Manifest,
}

/// Writes snapshots into one directory.
pub struct Recorder<D: SnapshotDir> {
    dir: D,
    /// What to call it in messages.
    path: PathBuf,
    identity: Identity,
    bytes_per_s: Option<u64>,
    /// Epochs of the sound ones, ascending.
    kept: Vec<u64>,
    open: Option<Encoder<D::File>>,
}

impl<D: SnapshotDir> Recorder<D> {
    /// A recorder for `dir`, called `path` in messages; removes what a crash
    /// left of an unfinished snapshot. The files in `refused` count for nothing
    /// and stay where they are.
    ///
    /// # Errors
    ///
    /// The directory cannot be read, or the remains not be removed.
    pub fn new(
        dir: D,
        path: &Path,
        identity: Identity,
        bytes_per_s: Option<u64>,
        refused: &[PathBuf],
    ) -> Result<Self, SnapshotError> {
        let mut kept = names::epochs(&dir).map_err(SnapshotError::io(path, "cannot be listed"))?;
        kept.retain(|epoch| !refused.contains(&path.join(names::of(*epoch))));
        if_there(dir.remove(names::PARTIAL))
            .map_err(SnapshotError::io(path, "snapshot.partial cannot be removed"))?;
        let path = path.to_owned();
        let mut recorder = Self { dir, path, identity, bytes_per_s, kept, open: None };
        // A crash may have left one too many.
        recorder.remove_old()?;
        Ok(recorder)
    }

    /// Epochs of the complete snapshots that are kept, ascending.
    #[must_use]
    pub fn kept(&self) -> &[u64] {
        &self.kept
    }

    /// Begins a snapshot; one that was begun before and not finished is given up.
    /// `file_id` is random, `created_ns` log time.
    ///
    /// # Errors
    ///
    /// The system's; nothing has begun then.
    pub fn begin(&mut self, file_id: u64, created_ns: u64) -> Result<(), SnapshotError> {
        self.abandon();
        let header = Header {
            file_id,
            cluster_id: self.identity.cluster_id,
            node: self.identity.node,
            secret_digest: self.identity.secret_digest,
            created_ns,
            partitions: self.identity.partitions,
        };
        let encoder = self
            .dir
            .create(names::PARTIAL)
            .and_then(|file| Encoder::new(file, header, self.bytes_per_s));
        self.open = Some(encoder.map_err(|e| self.failed("cannot be made", e))?);
        Ok(())
    }

    /// Writes a partition of the snapshot begun; gives how many are in it.
    ///
    /// # Errors
    ///
    /// The system's; the snapshot is given up then.
    pub fn add(&mut self, image: &impl Image) -> Result<usize, SnapshotError> {
        let Some(encoder) = &mut self.open else { return Ok(0) };
        let head = image.head();
        let partitions = encoder.partitions();
        let fits = head.number < self.identity.partitions
            && partitions.iter().all(|p| p.number != head.number);
        let result = if fits {
            encoder.partition(&head, &image.sections())
        } else {
            let text = format!("partition {} has no place in the snapshot", head.number);
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        match result {
            Ok(()) => Ok(self.open.as_ref().map_or(0, |encoder| encoder.partitions().len())),
            Err(e) => Err(self.failed("cannot be written", e)),
        }
    }

    /// Whether every partition is in the snapshot begun.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let whole = usize::from(self.identity.partitions);
        self.open.as_ref().is_some_and(|encoder| encoder.partitions().len() == whole)
    }

    /// Bytes of the snapshot begun, so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, Encoder::bytes)
    }

    /// Least epoch of the partitions in the snapshot begun.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.open.as_ref()?.partitions().iter().map(|p| p.epoch).min()
    }

    /// Completes the snapshot begun, and removes those it makes superfluous.
    ///
    /// # Errors
    ///
    /// Partitions are missing, `anchor` is of another epoch, or the system's;
    /// the snapshot is given up then and those before it stay.
    pub fn finish(&mut self, anchor: Anchor) -> Result<Written, SnapshotError> {
        let epoch = self.epoch();
        let whole = self.is_whole() && epoch == Some(anchor.last.index);
        let (Some(epoch), Some(encoder), true) = (epoch, self.open.take(), whole) else {
            let text =
                format!("partitions are missing or {} is not their epoch", anchor.last.index);
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(self.failed("cannot be completed", error));
        };
        let name = names::of(epoch);
        let completed = encoder.finish(anchor, self.identity.limits).and_then(|file| {
            self.dir.rename(names::PARTIAL, &name)?;
            self.dir.sync()?;
            Ok(file)
        });
        let (manifest, bytes) = completed.map_err(|e| self.failed("cannot be completed", e))?;
        self.kept.retain(|kept| *kept != epoch);
        self.kept.push(epoch);
        self.kept.sort_unstable();
        self.remove_old()?;
        Ok(Written { path: self.path.join(name), bytes, manifest })
    }

    fn remove_old(&mut self) -> Result<(), SnapshotError> {
        let superfluous = self.kept.len().saturating_sub(KEPT);
        for epoch in self.kept.drain(..superfluous) {
            let name = names::of(epoch);
            if_there(self.dir.retire(&name))
                .map_err(SnapshotError::io(&self.path.join(name), "cannot be removed"))?;
        }
        Ok(())
    }

    /// Gives up the snapshot begun, if there is one.
    pub fn abandon(&mut self) {
        if self.open.take().is_some() {
            // What stays is removed at the next start or written over.
            let _ = self.dir.retire(names::PARTIAL);
        }
    }

    /// The error, after everything that was begun has been taken back.
    pub(super) fn failed(&mut self, doing: &'static str, source: io::Error) -> SnapshotError {
        self.open = None;
        // Not kept: the disk may be full.
        let _ = self.dir.remove(names::PARTIAL);
        SnapshotError::Io { file: self.path.join(names::PARTIAL), doing, source }
    }
}

fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
