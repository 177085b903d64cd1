//! Files as the log needs them: made at full length, written in place, durable
//! when a write returns.
//!
//! [`RealDisk`] is a folder of the file system, written past the page cache
//! (`O_DIRECT | O_DSYNC`): a write costs one request to the device and says the
//! truth about its time. Where the file system refuses that (tmpfs, some
//! overlays) it writes through the page cache and calls `fdatasync`; `mode()`
//! says which, and so does the status. `simdisk` is the other implementation.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::base::mem::HUGE_PAGE_BYTES;
use crate::base::table::Table;

/// Unit of every offset, length and buffer address: the largest sector and the
/// page size of common hosts.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes of one write while a file is prefilled.
const PREFILL_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && align_of::<Block>() == BLOCK_BYTES);

/// Memory that starts at a block boundary and is whole blocks long, as direct
/// I/O wants it.
pub struct AlignedBuf(Memory);

enum Memory {
    Blocks(Vec<Block>),
    /// Whole huge pages.
    Huge(Table<u64>),
}

impl AlignedBuf {
    /// At least `bytes` zeroed bytes, rounded up to whole blocks.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        Self(Memory::Blocks(vec![Block([0; BLOCK_BYTES]); bytes.div_ceil(BLOCK_BYTES)]))
    }

    /// At least `bytes` zeroed bytes on huge pages: to the disk they are one piece
    /// and not one for each 4 KiB. On ordinary pages where the kernel has none.
    #[must_use]
    pub fn huge(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        Table::new(bytes / size_of::<u64>())
            .map_or_else(|_| Self::zeroed(bytes), |table| Self(Memory::Huge(table)))
    }

    /// Makes it at least `bytes` long; what it held stays.
    pub fn grow(&mut self, bytes: usize) {
        if bytes <= self.as_slice().len() {
            return;
        }
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        match &mut self.0 {
            Memory::Blocks(held) => held.resize(blocks, Block([0; BLOCK_BYTES])),
            Memory::Huge(held) => {
                let mut larger = Self::huge(bytes);
                larger.as_mut_slice()[..held.as_bytes().len()].copy_from_slice(held.as_bytes());
                *self = larger;
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Memory::Blocks(blocks) => blocks.as_bytes(),
            Memory::Huge(words) => words.as_bytes(),
        }
    }

    /// Its bytes, to change.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Blocks(blocks) => blocks.as_mut_bytes(),
            Memory::Huge(words) => words.as_mut_bytes(),
        }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.as_slice().len())
    }
}

/// How writes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// `O_DIRECT | O_DSYNC`.
    Direct,
    /// Through the page cache, then `fdatasync`.
    Buffered,
    /// No disk at all: memory, for tests.
    Memory,
}

impl WriteMode {
    /// Word used in status and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Buffered => "buffered",
            Self::Memory => "memory",
        }
    }
}

/// A folder of files.
pub trait Disk: Send + Sync + fmt::Debug {
    /// What to call it in messages.
    fn place(&self) -> String;

    /// Names of its files, ascending.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeroes, all written and durable (its name only after
    /// [`Disk::sync_dir`]), and tells `progress` of each part written.
    ///
    /// # Errors
    ///
    /// What the file system says; a file of that name that is there already.
    fn create(&self, name: &str, bytes: u64, progress: &mut dyn FnMut(u64)) -> io::Result<()>;

    /// Opens a file that is there.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Takes a file away.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of one that has it already.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes names durable.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn sync_dir(&self) -> io::Result<()>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// A file of a [`Disk`]. Offsets and lengths are whole blocks, buffers aligned.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its length.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn bytes(&self) -> io::Result<u64>;

    /// How its writes become durable.
    fn mode(&self) -> WriteMode;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// What the file system says; the file's end before the buffer's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// What the file system says. What was written then is unknown.
    fn write_durable_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes durable whatever was written to the file, by whomever.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    folder: PathBuf,
    direct: bool,
}

impl RealDisk {
    /// The folder at `folder`, which is there; direct writes where they are to be had.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), direct: true }
    }

    /// The same, through the page cache in any case.
    #[must_use]
    pub fn buffered(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), direct: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Opens with direct I/O; without where that is refused.
    fn open_with(&self, path: &Path, options: &OpenOptions, flags: i32) -> io::Result<RealFile> {
        if self.direct {
            let mut direct = options.clone();
            direct.custom_flags(flags);
            match direct.open(path) {
                Ok(file) => {
                    // Some overlays take the flag and refuse the first read.
                    let mut probe = AlignedBuf::zeroed(BLOCK_BYTES);
                    match file.read_at(probe.as_mut_slice(), 0) {
                        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                        _ => return Ok(RealFile { file, mode: WriteMode::Direct }),
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(RealFile { file: options.open(path)?, mode: WriteMode::Buffered })
    }
}

impl Disk for RealDisk {
    fn place(&self) -> String {
        self.folder.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let path = self.path(name);
        let made =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Against the umask: the file is the owner's alone.
        made.set_permissions(fs::Permissions::from_mode(0o600))?;
        drop(made);
        // One flush at the end, not one a write.
        let file =
            self.open_with(&path, OpenOptions::new().read(true).write(true), libc::O_DIRECT)?;
        let zeroes = AlignedBuf::zeroed(PREFILL_BYTES);
        let mut offset = 0;
        while offset < bytes {
            let part = (bytes - offset).min(PREFILL_BYTES as u64);
            file.file.write_all_at(&zeroes.as_slice()[..part as usize], offset)?;
            offset += part;
            progress(part);
        }
        file.file.sync_all()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::Write);
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        Ok(Arc::new(self.open_with(&self.path(name), &options, flags)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    mode: WriteMode,
}

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn mode(&self) -> WriteMode {
        self.mode
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_durable_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        match self.mode {
            WriteMode::Buffered => self.file.sync_data(),
            WriteMode::Direct | WriteMode::Memory => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
