//! What is measured.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use raft_log::api::raft_log_writer::RaftLogWriter as _;
use raft_log::{Config, RaftLog, Types};
use veltrix::batch::Payload;
use veltrix::log::disk::RealDisk;
use veltrix::log::writer::WriterOptions;
use veltrix::log::{Body, LogEntry, LogId, Wal, WalHandle, WalOptions, WalWriter};

/// Bytes of a segment, a chunk, and a turn of the plain file.
const SEGMENT_BYTES: u64 = 128 << 20;
/// Segments of ours: what one block of measurements writes, twice.
const SEGMENTS: u32 = 8;
/// Bytes that ours and raft-log may keep in memory for readers.
const CACHE_BYTES: usize = 64 << 20;

/// Told when an append is durable.
pub type Told = SyncSender<io::Result<()>>;

/// A log under measurement.
pub trait Subject {
    /// Key in the results.
    fn name(&self) -> &'static str;

    /// Payloads of `bytes` bytes each, in the form that the subject takes.
    fn prepare(&mut self, bytes: usize, count: usize);

    /// Appends the next payload prepared; `told` hears when it is durable.
    ///
    /// # Errors
    /// What the subject says.
    fn append(&mut self, told: &Told) -> Result<()>;

    /// Gives up all that was appended, as a log does below a snapshot.
    ///
    /// # Errors
    /// What the subject says.
    fn purge(&mut self) -> Result<()>;
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Ours, as the appliance runs it.
pub struct Ours {
    _writer: WalWriter,
    log: WalHandle,
    payload: Bytes,
    next: u64,
}

impl Ours {
    /// A log of its own in `dir`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir(dir)?;
        let disk = RealDisk::new(dir);
        let options = WalOptions {
            segment_bytes: SEGMENT_BYTES,
            segments_max: SEGMENTS,
            log_key: 1,
            salt: 2,
        };
        Wal::format(&disk, &options, &mut |_| {})?;
        let (wal, _) = Wal::open(&disk, options)?;
        eprintln!("  ours writes {}", wal.mode().name());
        let options = WriterOptions { cache_bytes_max: CACHE_BYTES, ..WriterOptions::default() };
        let on_fatal = Box::new(|error: &_| eprintln!("bench wal: {error}"));
        let writer = WalWriter::start(wal, options, on_fatal)?;
        let log = writer.handle();
        Ok(Self { _writer: writer, log, payload: Bytes::new(), next: 1 })
    }

    fn id(index: u64) -> LogId {
        LogId { term: 1, node: 1, index }
    }
}

impl Subject for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn prepare(&mut self, bytes: usize, _count: usize) {
        // Shared, as the buffers of a lane's pool are.
        self.payload = noise(bytes).into();
    }

    fn append(&mut self, told: &Told) -> Result<()> {
        let body = Body::Batch(Payload::Owned(self.payload.clone()));
        let entry = LogEntry { id: Self::id(self.next), log_time_ns: self.next, body };
        self.next += 1;
        let told = told.clone();
        let done = move |result| {
            let _ = told.send(result);
        };
        Ok(self.log.append(vec![entry], Box::new(done))?)
    }

    fn purge(&mut self) -> Result<()> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let done = move |result| {
            let _ = tell.send(result);
        };
        self.log.purge(Self::id(self.next - 1), Box::new(done))?;
        Ok(told.recv()??)
    }
}

/// The types that raft-log wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftTypes;

impl Types for RaftTypes {
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    type Vote = (u64, u64);
    type Callback = Told;
    type UserData = u64;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        payload.len() as u64
    }
}

/// raft-log 0.3.
pub struct RaftLogs {
    log: RaftLog<RaftTypes>,
    payloads: Vec<Vec<u8>>,
    next: u64,
}

impl RaftLogs {
    /// A log of its own in `dir`.
    ///
    /// # Errors
    /// What the crate says.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir(dir)?;
        let config = Config {
            dir: dir.display().to_string(),
            log_cache_capacity: Some(CACHE_BYTES),
            chunk_max_size: Some(SEGMENT_BYTES as usize),
            ..Config::default()
        };
        let log = RaftLog::open(Arc::new(config))?;
        Ok(Self { log, payloads: Vec::new(), next: 0 })
    }
}

impl Subject for RaftLogs {
    fn name(&self) -> &'static str {
        "raft_log"
    }

    fn prepare(&mut self, bytes: usize, count: usize) {
        // It takes each payload for itself.
        let payload = noise(bytes);
        self.payloads = (0..count).map(|_| payload.clone()).collect();
    }

    fn append(&mut self, told: &Told) -> Result<()> {
        let payload = self.payloads.pop().context("more appends than were prepared")?;
        self.log.append([((1, self.next), payload)])?;
        self.next += 1;
        Ok(self.log.flush(Some(told.clone()))?)
    }

    fn purge(&mut self) -> Result<()> {
        self.log.purge((1, self.next - 1))?;
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.log.flush(Some(tell))?;
        Ok(told.recv()??)
    }
}

/// A file written in order by `pwrite` and `fdatasync`, prefilled as ours is.
pub struct Plain {
    file: File,
    payload: Vec<u8>,
    offset: u64,
}

impl Plain {
    /// A file of its own in `dir`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir(dir)?;
        let path = dir.join("plain");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let zeroes = vec![0; 1 << 20];
        for _ in 0..SEGMENT_BYTES >> 20 {
            file.write_all(&zeroes)?;
        }
        file.sync_all()?;
        Ok(Self { file, payload: Vec::new(), offset: 0 })
    }
}

impl Subject for Plain {
    fn name(&self) -> &'static str {
        "plain_fdatasync"
    }

    fn prepare(&mut self, bytes: usize, _count: usize) {
        self.payload = noise(bytes);
    }

    fn append(&mut self, told: &Told) -> Result<()> {
        if self.offset + self.payload.len() as u64 > SEGMENT_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(&self.payload, self.offset)?;
        self.file.sync_data()?;
        self.offset += self.payload.len() as u64;
        Ok(told.send(Ok(()))?)
    }

    fn purge(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A folder that goes when the run ends, however it does.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new folder in `parent`, which must be a disk and no memory.
    ///
    /// # Errors
    /// What the file system says; one in memory.
    pub fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("bench-wal-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("{}", path.display()))?;
        let scratch = Self(path);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let real = scratch.0.canonicalize()?;
        let mount = mounts
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ').skip(1);
                Some((words.next()?, words.next()?))
            })
            .filter(|(point, _)| real.starts_with(point))
            .max_by_key(|(point, _)| point.len());
        if let Some((point, kind @ ("tmpfs" | "ramfs"))) = mount {
            bail!("{point} is {kind}: no disk to measure; give another folder with --dir");
        }
        Ok(scratch)
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
