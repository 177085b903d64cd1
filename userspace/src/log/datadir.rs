//! Making a data directory, and taking it for one process at a time. What is in it
//! says `superblock`.
//!
//! A format writes the superblock last, under another name first. Interrupted before
//! that, the directory holds a mark that lets the next format clear away what this
//! one left, and nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, RealDisk};
use super::superblock::{
    DataError, FORMAT_VERSION, LOCK_FILE, Limits, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN,
    SEGMENTS_DEFAULT, SNAPSHOT_FOLDER, SUPERBLOCK_FILE, SUPERBLOCK_TEMPORARY, Superblock,
    WAL_FOLDER,
};
use super::wal::{SEGMENTS_MIN, Wal};
use crate::base::direct;

/// Share of the free space that the log takes when no size is given, 1 in so many.
const FREE_SHARE: u64 = 4;

/// What to format.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Cluster it joins; random when `None`.
    pub cluster_id: Option<u64>,
    /// This node in it.
    pub node_id: u64,
    /// Partitions of domain keys.
    pub partitions: u16,
    /// Bytes of a segment; chosen to fit the disk when `None`.
    pub segment_bytes: Option<u64>,
    /// Segments; chosen to fit the disk when `None`.
    pub segments_max: Option<u32>,
    /// Capacities.
    pub limits: Limits,
}

impl Default for FormatOptions {
    fn default() -> Self {
        Self {
            cluster_id: None,
            node_id: 1,
            partitions: 64,
            segment_bytes: None,
            segments_max: None,
            limits: Limits::default(),
        }
    }
}

/// Segment bytes and count for a disk with `free` bytes, where not given.
#[must_use]
pub fn sizes_for(free: u64, segment_bytes: Option<u64>, segments_max: Option<u32>) -> (u64, u32) {
    let budget = free / FREE_SHARE;
    let bytes = segment_bytes.unwrap_or_else(|| {
        let least = u64::from(segments_max.unwrap_or(2 * SEGMENTS_MIN));
        let mut bytes = SEGMENT_BYTES_DEFAULT;
        while bytes > SEGMENT_BYTES_MIN && bytes.saturating_mul(least) > budget {
            bytes /= 2;
        }
        bytes
    });
    let count = segments_max.unwrap_or_else(|| {
        let fit = u32::try_from(budget / bytes.max(1)).unwrap_or(u32::MAX);
        fit.clamp(SEGMENTS_MIN, SEGMENTS_DEFAULT)
    });
    (bytes, count)
}

/// 64 random bits.
///
/// # Errors
///
/// `/dev/urandom` cannot be read.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(bytes)
}

/// A data directory in use by this process, or looked at.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    superblock: Superblock,
    /// Held while this value lives; `None` when only looked at.
    _lock: Option<File>,
}

impl DataDir {
    /// Makes a data directory in `dir`, which is empty or does not exist. `progress`
    /// is told bytes done and bytes in all as the log is filled.
    ///
    /// # Errors
    ///
    /// See [`DataError`]. What was made is taken away again.
    pub fn format(
        dir: &Path,
        options: &FormatOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Superblock, DataError> {
        prepare_empty(dir)?;
        let superblock = plan(dir, options)?;
        let made = fill(dir, &superblock, progress);
        if made.is_err() {
            clean(dir);
        }
        made.map(|()| superblock)
    }

    /// What [`DataDir::format`] would write, without writing: `dir` or its nearest
    /// parent that exists says how much is free.
    ///
    /// # Errors
    ///
    /// Values out of range, no space.
    pub fn plan(dir: &Path, options: &FormatOptions) -> Result<Superblock, DataError> {
        plan(dir, options)
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    ///
    /// See [`DataError`].
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let superblock = read_superblock(dir)?;
        for path in [dir.to_path_buf(), dir.join(SUPERBLOCK_FILE), dir.join(WAL_FOLDER)] {
            check_owner(&path)?;
        }
        let lock = lock(dir)?;
        Ok(Self { dir: dir.into(), superblock, _lock: Some(lock) })
    }

    /// Looks at the directory without taking it; a process that uses it goes on.
    ///
    /// # Errors
    ///
    /// See [`DataError`].
    pub fn look(dir: &Path) -> Result<Self, DataError> {
        Ok(Self { dir: dir.into(), superblock: read_superblock(dir)?, _lock: None })
    }

    /// Pid of the process that uses `dir`, if one does; 0 when it does not say.
    #[must_use]
    pub fn user(dir: &Path) -> Option<u32> {
        match lock_shared(dir) {
            Err(DataError::InUse { pid, .. }) => Some(pid.unwrap_or(0)),
            _ => None,
        }
    }

    /// Refuses a directory of another cluster.
    ///
    /// # Errors
    ///
    /// [`DataError::Cluster`].
    pub fn expect_cluster(&self, wanted: u64) -> Result<(), DataError> {
        let found = self.superblock.cluster_id;
        if found == wanted {
            return Ok(());
        }
        Err(DataError::Cluster { dir: self.dir.clone(), found, wanted })
    }

    /// Its facts.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Where snapshots are.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.dir.join(SNAPSHOT_FOLDER)
    }

    /// Where the log's segments are.
    #[must_use]
    pub fn wal_disk(&self) -> Arc<dyn Disk> {
        Arc::new(RealDisk::new(self.dir.join(WAL_FOLDER)))
    }
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> DataError {
    move |source| DataError::Io { path: path.into(), doing, source }
}

/// Leaves `dir` there, empty, and only this user's.
fn prepare_empty(dir: &Path) -> Result<(), DataError> {
    if !dir.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io_error(dir, "making the directory"))?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
    }
    check_owner(dir)?;
    // What an interrupted format left is ours to take away.
    if is_interrupted(dir) {
        clean(dir);
    }
    let mut found = fs::read_dir(dir).map_err(io_error(dir, "listing it"))?;
    if let Some(entry) = found.next() {
        let found = entry.map_err(io_error(dir, "listing it"))?.file_name();
        return Err(DataError::NotEmpty {
            dir: dir.into(),
            found: found.to_string_lossy().into_owned(),
            formatted: dir.join(SUPERBLOCK_FILE).exists(),
        });
    }
    Ok(())
}

fn plan(dir: &Path, options: &FormatOptions) -> Result<Superblock, DataError> {
    let there = dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let free = direct::free_bytes(there).map_err(io_error(there, "asking for free space"))?;
    let (segment_bytes, segments_max) =
        sizes_for(free, options.segment_bytes, options.segments_max);
    let mut dedupe_secret = [0; 192];
    let urandom = Path::new("/dev/urandom");
    let no_random = || io_error(urandom, "reading random numbers");
    random(&mut dedupe_secret).map_err(no_random())?;
    let superblock = Superblock {
        format_version: FORMAT_VERSION,
        cluster_id: match options.cluster_id {
            Some(id) => id,
            None => random_u64().map_err(no_random())?,
        },
        node_id: options.node_id,
        group: 0,
        partitions: options.partitions,
        segment_bytes,
        segments_max,
        limits: options.limits,
        log_key: random_u64().map_err(no_random())?,
        dedupe_secret,
    };
    superblock.check().map_err(DataError::Value)?;
    if superblock.wal_bytes() > free {
        return Err(DataError::NoSpace { dir: dir.into(), wanted: superblock.wal_bytes(), free });
    }
    Ok(superblock)
}

/// Marks a format under way: only files that it made may be taken away again.
const INTERRUPTED_MARK: &str = "format-in-progress";

fn is_interrupted(dir: &Path) -> bool {
    dir.join(INTERRUPTED_MARK).exists() && !dir.join(SUPERBLOCK_FILE).exists()
}

fn fill(
    dir: &Path,
    superblock: &Superblock,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), DataError> {
    write_file(dir, INTERRUPTED_MARK, b"")?;
    for folder in [WAL_FOLDER, SNAPSHOT_FOLDER] {
        let path = dir.join(folder);
        DirBuilder::new().mode(0o700).create(&path).map_err(io_error(&path, "making it"))?;
    }
    write_file(dir, LOCK_FILE, b"")?;
    let wal_folder = dir.join(WAL_FOLDER);
    let disk = RealDisk::new(&wal_folder);
    let (mut done, all) = (0, superblock.wal_bytes());
    progress(0, all);
    let options = superblock.wal_options().map_err(io_error(dir, "reading random numbers"))?;
    Wal::format(&disk, &options, &mut |part| {
        done += part;
        progress(done, all);
    })?;
    sync_dir(dir)?;
    write_file(dir, SUPERBLOCK_TEMPORARY, superblock.encode().as_bytes())?;
    let (from, to) = (dir.join(SUPERBLOCK_TEMPORARY), dir.join(SUPERBLOCK_FILE));
    fs::rename(&from, &to).map_err(io_error(&to, "naming it"))?;
    sync_dir(dir)?;
    let mark = dir.join(INTERRUPTED_MARK);
    fs::remove_file(&mark).map_err(io_error(&mark, "removing it"))?;
    sync_dir(dir)
}

/// Takes away what [`fill`] makes; what else is there stays.
fn clean(dir: &Path) {
    let wal = dir.join(WAL_FOLDER);
    if let Ok(segments) = fs::read_dir(&wal) {
        for segment in segments.flatten() {
            if segment.file_name().to_string_lossy().ends_with(super::wal::SEGMENT_SUFFIX) {
                let _ = fs::remove_file(segment.path());
            }
        }
    }
    for folder in [wal, dir.join(SNAPSHOT_FOLDER)] {
        let _ = fs::remove_dir(folder);
    }
    for file in [LOCK_FILE, SUPERBLOCK_TEMPORARY, SUPERBLOCK_FILE, INTERRUPTED_MARK] {
        let _ = fs::remove_file(dir.join(file));
    }
}

fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), DataError> {
    let path = dir.join(name);
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error(&path, "writing it"))
}

fn sync_dir(dir: &Path) -> Result<(), DataError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io_error(dir, "making names durable"))
}

fn read_superblock(dir: &Path) -> Result<Superblock, DataError> {
    let path = dir.join(SUPERBLOCK_FILE);
    match fs::read(&path) {
        Ok(text) => Superblock::decode(&path, &text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(DataError::NotFormatted { dir: dir.into(), interrupted: is_interrupted(dir) })
        }
        Err(e) => Err(io_error(&path, "reading it")(e)),
    }
}

fn check_owner(path: &Path) -> Result<(), DataError> {
    let facts = fs::metadata(path).map_err(io_error(path, "looking at it"))?;
    let wanted = direct::effective_uid();
    let mode = facts.mode() & 0o7777;
    if facts.uid() == wanted && mode & 0o022 == 0 {
        return Ok(());
    }
    Err(DataError::Owner { path: path.into(), owner: facts.uid(), mode, wanted })
}

/// The lock for this process, its pid written into the file.
fn lock(dir: &Path) -> Result<File, DataError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io_error(&path, "opening it"))?;
    let mut file = try_lock(dir, file, true)?;
    let write = (|| {
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    })();
    write.map_err(io_error(&path, "writing the pid"))?;
    Ok(file)
}

fn lock_shared(dir: &Path) -> Result<File, DataError> {
    let path = dir.join(LOCK_FILE);
    try_lock(dir, File::open(&path).map_err(io_error(&path, "opening it"))?, false)
}

fn try_lock(dir: &Path, mut file: File, exclusive: bool) -> Result<File, DataError> {
    let locked = if exclusive { file.try_lock() } else { file.try_lock_shared() };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Err(DataError::InUse { dir: dir.into(), pid: text.trim().parse().ok() })
        }
        Err(TryLockError::Error(e)) => Err(io_error(&dir.join(LOCK_FILE), "locking it")(e)),
    }
}
