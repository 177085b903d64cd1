//! The disk under the log: `log::simdisk`, with faults in every operation and
//! a memory of what was written, so that rot falls where it must be noticed.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use veltrix::log::disk::{Access, Disk, DiskFile, WriteMode};
use veltrix::log::simdisk::{Flush, SimDisk};
use veltrix::log::wal::{Wal, WalOptions};

use super::rng::Rng;

/// Writes that are remembered as places where rot may begin.
const WRITES_KEPT: usize = 24;

/// A bit of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: String,
    offset: u64,
    mask: u8,
}

/// A write, by place.
#[derive(Clone, Debug)]
struct Extent {
    file: String,
    offset: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Faults {
    /// Operations until one is refused, and all after it; `None` = never.
    fails_in: Option<u64>,
    /// Decides what is left of a write in which it happens.
    rng: Rng,
    /// What was said to be durable, oldest first.
    written: Vec<Extent>,
}

impl Faults {
    fn may_go_on(&mut self) -> bool {
        match &mut self.fails_in {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn operation(&mut self) -> io::Result<()> {
        if self.may_go_on() { Ok(()) } else { Err(io::Error::other("the simulated disk failed")) }
    }
}

/// The disk; clones are the same one.
#[derive(Clone, Debug)]
pub struct LogDisk {
    disk: SimDisk,
    flush: Flush,
    faults: Arc<Mutex<Faults>>,
}

impl LogDisk {
    /// A disk with a log formatted on it, that flushes as `flush` says.
    ///
    /// # Errors
    ///
    /// What the log says of the options.
    pub fn new(rng: Rng, options: &WalOptions, flush: Flush) -> Result<Self, String> {
        let disk = SimDisk::new();
        Wal::format(&disk, options, &mut |_| {}).map_err(|error| error.to_string())?;
        disk.set_flush(flush);
        let faults = Faults { fails_in: None, rng, written: Vec::new() };
        Ok(Self { disk, flush, faults: Arc::new(Mutex::new(faults)) })
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        // One thread: nobody panicked while holding it and lived on.
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many operations more, each is refused, until the next crash.
    /// A write that is the first of them may have been done in part.
    pub fn fail_in(&self, operations: u64) {
        self.faults().fails_in = Some(operations);
    }

    /// Nothing is refused any more.
    pub fn heal(&self) {
        self.faults().fails_in = None;
    }

    /// The process is killed, or the power goes; then it works again.
    pub fn crash(&mut self) {
        let mut faults = self.faults();
        faults.fails_in = None;
        let power_stays = faults.rng.percent(40);
        let seed = faults.rng.any();
        drop(faults);
        self.disk = if power_stays { self.disk.restart() } else { self.disk.power_on(seed) };
        self.disk.set_flush(self.flush);
    }

    /// A bit under a record that later records prove to have been durable;
    /// `None` while there are none. The last write is left out: what damages
    /// it cannot be told from a write that was cut off.
    pub fn somewhere(&self, rng: &mut Rng) -> Option<Place> {
        let faults = self.faults();
        let (_, before) = faults.written.split_last()?;
        let extent = before.get(rng.index(before.len()))?;
        let offset = extent.offset + rng.below(extent.bytes);
        Some(Place { file: extent.file.clone(), offset, mask: 1 << rng.below(8) })
    }

    /// Turns a bit over; done twice, nothing has happened.
    pub fn flip(&self, place: &Place) {
        self.disk.rot(&place.file, place.offset, place.mask);
    }
}

impl Disk for LogDisk {
    fn place(&self) -> String {
        self.disk.place()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.faults().operation()?;
        self.disk.list()
    }

    fn create(&self, name: &str, bytes: u64, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        self.faults().operation()?;
        self.disk.create(name, bytes, progress)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.faults().operation()?;
        let file = self.disk.open(name, access)?;
        Ok(Arc::new(LogFile { disk: self.clone(), name: name.to_owned(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults().operation()?;
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults().operation()?;
        self.disk.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.faults().operation()?;
        self.disk.sync_dir()
    }
}

/// A file of it.
#[derive(Debug)]
struct LogFile {
    disk: LogDisk,
    name: String,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for LogFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn mode(&self) -> WriteMode {
        self.file.mode()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.faults().operation()?;
        self.file.read_at(buffer, offset)
    }

    fn write_durable_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut faults = self.disk.faults();
        if !faults.may_go_on() {
            match faults.rng.below(3) {
                0 => self.disk.disk.cut_power_at_write(0, faults.rng.any()),
                1 => self.disk.disk.kill_at_write(0),
                _ => self.disk.disk.fail_write(0, io::ErrorKind::Other),
            }
        }
        self.file.write_durable_at(bytes, offset)?;
        if faults.written.len() == WRITES_KEPT {
            faults.written.remove(0);
        }
        let (file, bytes) = (self.name.clone(), bytes.len() as u64);
        faults.written.push(Extent { file, offset, bytes });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.faults().operation()?;
        self.file.sync()
    }
}
