//! The directory of snapshots, as their writer needs it: behind an interface,
//! so that tests can stop between any two steps or lose what was not flushed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

#[cfg(doc)]
use crate::log::disk::BLOCK_BYTES;

/// A file being written.
pub trait SnapshotFile {
    /// Writes whole blocks of [`BLOCK_BYTES`] at a multiple of it, from memory
    /// that starts at one.
    ///
    /// # Errors
    ///
    /// The system's.
    fn write_at(&mut self, blocks: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file to its length and makes all of it durable.
    ///
    /// # Errors
    ///
    /// The system's.
    fn finish(&mut self, bytes: u64) -> io::Result<()>;
}

/// A directory to write them in.
pub trait SnapshotDir {
    /// The file it makes.
    type File: SnapshotFile;

    /// Makes a file in place of any of that name. It may hold old bytes until
    /// it is finished.
    ///
    /// # Errors
    ///
    /// The system's.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of whatever has it.
    ///
    /// # Errors
    ///
    /// The system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Takes a file away whose bytes nobody wants; it may be kept under another
    /// name.
    ///
    /// # Errors
    ///
    /// The system's.
    fn retire(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }

    /// Makes names durable.
    ///
    /// # Errors
    ///
    /// The system's.
    fn sync(&self) -> io::Result<()>;

    /// Names of the files in it.
    ///
    /// # Errors
    ///
    /// The system's.
    fn list(&self) -> io::Result<Vec<String>>;
}

/// Dirty bytes that a buffered file may gather before they are flushed: the
/// log shares the disk, and a flush of it must not wait behind gigabytes.
const DIRTY_BYTES_MAX: u64 = 4 << 20;

/// A directory of the system.
#[derive(Clone, Debug)]
pub struct RealDir {
    path: PathBuf,
}

impl RealDir {
    /// The directory, made when it is not there (its parent must be).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::create_dir(path) {
            Ok(()) => path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        Ok(Self::at(path))
    }

    /// The directory, to look at.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Whether there is a spare that may be written over. One that somebody
    /// still reads, or keeps under a name of their own, is left to them.
    fn has_usable_spare(&self) -> io::Result<bool> {
        let path = self.path.join(SPARE);
        let spare = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if spare.metadata()?.nlink() == 1 && spare.try_lock().is_ok() {
            return Ok(true);
        }
        fs::remove_file(path)?;
        Ok(false)
    }
}

impl SnapshotDir for RealDir {
    type File = RealFile;

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let path = self.path.join(name);
        if self.has_usable_spare()? {
            fs::rename(self.path.join(SPARE), &path)?;
            // Before the first byte is written over: no crash may give the file
            // its old name back.
            self.sync()?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let direct = options.clone().custom_flags(libc::O_DIRECT).open(&path);
        let (file, buffered) = match direct {
            // tmpfs and some overlays have no unbuffered writes.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (options.open(&path)?, true),
            other => (other?, false),
        };
        Ok(RealFile { file, buffered, dirty_bytes: 0 })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    /// Keeps the file for the next that is made: see [`SPARE`].
    fn retire(&self, name: &str) -> io::Result<()> {
        let (path, spare) = (self.path.join(name), self.path.join(SPARE));
        if spare.exists() { fs::remove_file(path) } else { fs::rename(path, spare) }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// A snapshot that is no more, kept to be written over. Neither its blocks are
/// given back nor new ones taken, so the file system's journal stays out of the
/// way of the log: with ext4 that discards what it frees, the unlink of 190 MB
/// held up every write of the log for 250 ms.
const SPARE: &str = "snapshot.spare";

/// Bytes given back at a time when the new snapshot is shorter than the file.
const SHRINK_STEP_BYTES: u64 = 1 << 20;

/// A file of the system: past the page cache where that can be had, so that a
/// gigabyte of snapshot neither evicts nor delays anything.
#[derive(Debug)]
pub struct RealFile {
    file: File,
    buffered: bool,
    dirty_bytes: u64,
}

impl SnapshotFile for RealFile {
    fn write_at(&mut self, blocks: &[u8], offset: u64) -> io::Result<()> {
        let written = self.file.write_all_at(blocks, offset);
        if let Err(e) = &written
            && e.raw_os_error() == Some(libc::EINVAL)
            && !self.buffered
        {
            // Opened with O_DIRECT, refused at the first write.
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the file system refuses unbuffered writes of 4 KiB blocks",
            ));
        }
        written?;
        self.dirty_bytes += blocks.len() as u64;
        if self.buffered && self.dirty_bytes >= DIRTY_BYTES_MAX {
            self.file.sync_data()?;
            self.dirty_bytes = 0;
        }
        Ok(())
    }

    fn finish(&mut self, bytes: u64) -> io::Result<()> {
        let mut len = self.file.metadata()?.len();
        while len > bytes.saturating_add(SHRINK_STEP_BYTES) {
            len -= SHRINK_STEP_BYTES;
            self.file.set_len(len)?;
            self.file.sync_data()?;
        }
        self.file.set_len(bytes)?;
        self.file.sync_all()
    }
}
