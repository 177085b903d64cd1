//! The directory of snapshots, as their writer needs it: behind an interface,
//! so that tests can stop between any two steps or lose what was not flushed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
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

    /// Makes an empty file, or empties the one of that name.
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
}

impl SnapshotDir for RealDir {
    type File = RealFile;

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
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
        self.file.set_len(bytes)?;
        self.file.sync_all()
    }
}
