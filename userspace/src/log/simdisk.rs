//! A disk in memory that records, tears, delays, forgets, rots and fails.
//!
//! ```text
//!   write -> cache (what reads see) -> pending -> flush -> durable (what a power cut leaves)
//! ```
//!
//! A sector of 512 bytes is written whole or not at all; of what is pending at a power
//! cut any sectors may have been written, in any order. Names of files are durable at
//! once: the log makes all its files when it is formatted, and not after.
//!
//! Recording keeps every operation, so that [`SimDisk::crash`] can show what a power
//! cut at any of them would have left behind.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Access, Disk, DiskFile, WriteMode};

/// Bytes that are written together or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Contents of all files.
pub type Image = BTreeMap<String, Vec<u8>>;

/// When what `write_durable_at` wrote becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Before it returns: an honest disk.
    Honest,
    /// Only when a later `sync` asks: the flush was forgotten.
    Forgotten,
    /// When so many more operations have begun: acknowledged during the flush.
    Late(u32),
    /// As [`Flush::Forgotten`], and `sync` does nothing either.
    Never,
}

/// One operation as recorded.
#[derive(Clone, Debug)]
pub enum Op {
    /// Bytes written to a file.
    Write {
        /// Its name.
        file: String,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
        /// When durable.
        flush: Flush,
    },
    /// A file made durable.
    Sync {
        /// Its name.
        file: String,
    },
    /// Something the user of the disk wants to find again.
    Note(u64),
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Power goes while it is under way: any of its sectors are written.
    PowerCut { seed: u64 },
    /// The process dies while it is under way: it stands in the cache, not durable.
    Killed,
    /// Nothing is written, and the disk says so.
    Fails(io::ErrorKind),
}

#[derive(Clone, Debug)]
struct Pending {
    file: String,
    offset: u64,
    bytes: Vec<u8>,
    /// Operations until it is durable by itself.
    due: Option<u32>,
}

#[derive(Debug)]
struct Sim {
    durable: Image,
    cached: Image,
    pending: Vec<Pending>,
    flush: Flush,
    fate: Option<(u64, Fate)>,
    /// After a cut or a kill nothing works.
    dead: bool,
    start: Image,
    ops: Option<Vec<Op>>,
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    sim: Arc<Mutex<Sim>>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

/// A number whose bits look random; the next one from it.
fn scramble(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn put(image: &mut Image, file: &str, offset: u64, bytes: &[u8]) {
    if let Some(content) = image.get_mut(file)
        && let Some(place) = content.get_mut(offset as usize..offset as usize + bytes.len())
    {
        place.copy_from_slice(bytes);
    }
}

/// Writes those sectors of `bytes` that `choose` wants. It is asked only about sectors
/// that change something.
fn tear(
    image: &mut Image,
    file: &str,
    offset: u64,
    bytes: &[u8],
    choose: &mut dyn FnMut() -> bool,
) {
    for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        let at = offset as usize + i * SECTOR_BYTES;
        let old = image.get(file).and_then(|content| content.get(at..at + sector.len()));
        if old.is_some_and(|old| old != sector) && choose() {
            put(image, file, at as u64, sector);
        }
    }
}

impl SimDisk {
    /// An empty, honest disk.
    #[must_use]
    pub fn new() -> Self {
        Self::of_image(Image::new())
    }

    /// An honest disk that holds these files, durably.
    #[must_use]
    pub fn of_image(image: Image) -> Self {
        let sim = Sim {
            cached: image.clone(),
            start: Image::new(),
            durable: image,
            pending: Vec::new(),
            flush: Flush::Honest,
            fate: None,
            dead: false,
            ops: None,
        };
        Self { sim: Arc::new(Mutex::new(sim)) }
    }

    fn lock(&self) -> MutexGuard<'_, Sim> {
        self.sim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How honest it is from now on.
    pub fn set_flush(&self, flush: Flush) {
        self.lock().flush = flush;
    }

    /// Power goes during the `n`-th write from now, from 0; `seed` says which sectors
    /// of it are written. Nothing works afterwards until [`SimDisk::power_on`].
    pub fn cut_power_at_write(&self, n: u64, seed: u64) {
        self.lock().fate = Some((n, Fate::PowerCut { seed }));
    }

    /// The process dies during the `n`-th write from now, which the cache has taken.
    pub fn kill_at_write(&self, n: u64) {
        self.lock().fate = Some((n, Fate::Killed));
    }

    /// The `n`-th write from now fails.
    pub fn fail_write(&self, n: u64, kind: io::ErrorKind) {
        self.lock().fate = Some((n, Fate::Fails(kind)));
    }

    /// Flips the bits of `mask` in one byte, as if it had always been so.
    pub fn rot(&self, file: &str, offset: u64, mask: u8) {
        let mut sim = self.lock();
        let sim = &mut *sim;
        for image in [&mut sim.durable, &mut sim.cached] {
            if let Some(byte) = image.get_mut(file).and_then(|f| f.get_mut(offset as usize)) {
                *byte ^= mask;
            }
        }
    }

    /// The disk after a power cut now: of what was not durable any sectors are there,
    /// as `seed` says.
    #[must_use]
    pub fn power_on(&self, seed: u64) -> Self {
        let sim = self.lock();
        let mut image = sim.durable.clone();
        let mut seed = seed;
        for write in &sim.pending {
            let mut choose = || scramble(&mut seed) & 1 == 1;
            tear(&mut image, &write.file, write.offset, &write.bytes, &mut choose);
        }
        Self::of_image(image)
    }

    /// The disk after the process was killed and started anew: caches live on.
    #[must_use]
    pub fn restart(&self) -> Self {
        let sim = self.lock();
        let disk = Self::of_image(sim.durable.clone());
        {
            let mut new = disk.lock();
            new.cached = sim.cached.clone();
            new.pending = sim.pending.clone();
        }
        disk
    }

    /// What is durable now.
    #[must_use]
    pub fn image(&self) -> Image {
        self.lock().durable.clone()
    }

    /// Keeps every operation from now on.
    pub fn record(&self) {
        let mut sim = self.lock();
        sim.start = sim.durable.clone();
        sim.ops = Some(Vec::new());
    }

    /// Adds a note to the recording.
    pub fn note(&self, what: u64) {
        if let Some(ops) = &mut self.lock().ops {
            ops.push(Op::Note(what));
        }
    }

    /// What was recorded.
    #[must_use]
    pub fn ops(&self) -> Vec<Op> {
        self.lock().ops.clone().unwrap_or_default()
    }

    /// What a power cut during operation `n` of the recording leaves: those before it
    /// are over. `choose` is asked about each sector that is not durable and changes
    /// something: whether it was written.
    #[must_use]
    pub fn crash(&self, n: usize, choose: &mut dyn FnMut() -> bool) -> Image {
        let sim = self.lock();
        let mut after =
            Sim { pending: Vec::new(), durable: sim.start.clone(), ..Sim::of_nothing() };
        let ops = sim.ops.as_deref().unwrap_or_default();
        for (i, op) in ops.iter().enumerate().take(n + 1) {
            match op {
                Op::Write { file, offset, bytes, flush } if i == n => {
                    after.begin(*flush, file, *offset, bytes);
                }
                Op::Write { file, offset, bytes, flush } => {
                    after.begin(*flush, file, *offset, bytes);
                    after.settle(*flush);
                }
                Op::Sync { file } if i < n => after.sync(file),
                Op::Sync { .. } | Op::Note(_) => {}
            }
        }
        let Sim { mut durable, pending, .. } = after;
        for write in &pending {
            tear(&mut durable, &write.file, write.offset, &write.bytes, choose);
        }
        durable
    }
}

impl Sim {
    fn of_nothing() -> Self {
        Self {
            durable: Image::new(),
            cached: Image::new(),
            pending: Vec::new(),
            flush: Flush::Honest,
            fate: None,
            dead: false,
            start: Image::new(),
            ops: None,
        }
    }

    /// A write is under way.
    fn begin(&mut self, flush: Flush, file: &str, offset: u64, bytes: &[u8]) {
        let due = |write: &Pending| write.due == Some(0);
        for write in self.pending.iter().filter(|write| due(write)) {
            put(&mut self.durable, &write.file, write.offset, &write.bytes);
        }
        self.pending.retain(|write| !due(write));
        for write in &mut self.pending {
            write.due = write.due.map(|due| due - 1);
        }
        let due = match flush {
            Flush::Late(operations) => Some(operations),
            _ => None,
        };
        put(&mut self.cached, file, offset, bytes);
        self.pending.push(Pending { file: file.into(), offset, bytes: bytes.into(), due });
    }

    /// The write that began last returns.
    fn settle(&mut self, flush: Flush) {
        if flush == Flush::Honest
            && let Some(write) = self.pending.pop()
        {
            put(&mut self.durable, &write.file, write.offset, &write.bytes);
        }
    }

    fn sync(&mut self, file: &str) {
        for write in self.pending.iter().filter(|write| write.file == file) {
            put(&mut self.durable, &write.file, write.offset, &write.bytes);
        }
        self.pending.retain(|write| write.file != file);
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the simulated machine is off")) } else { Ok(()) }
    }

    /// What happens to the write that comes now.
    fn fate(&mut self) -> Option<Fate> {
        match self.fate.as_mut() {
            Some((0, _)) => self.fate.take().map(|(_, fate)| fate),
            Some((n, _)) => {
                *n -= 1;
                None
            }
            None => None,
        }
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Disk for SimDisk {
    fn place(&self) -> String {
        "memory/wal".into()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().cached.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut sim = self.lock();
        sim.alive()?;
        if sim.cached.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        sim.cached.insert(name.into(), vec![0; bytes as usize]);
        sim.durable.insert(name.into(), vec![0; bytes as usize]);
        progress(bytes);
        Ok(())
    }

    fn open(&self, name: &str, _access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let sim = self.lock();
        sim.alive()?;
        if !sim.cached.contains_key(name) {
            return Err(missing(name));
        }
        Ok(Arc::new(SimFile { disk: self.clone(), name: name.into() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut sim = self.lock();
        sim.alive()?;
        sim.durable.remove(name);
        sim.cached.remove(name).map(|_| ()).ok_or_else(|| missing(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut sim = self.lock();
        sim.alive()?;
        let sim = &mut *sim;
        for image in [&mut sim.durable, &mut sim.cached] {
            let content = image.remove(from).ok_or_else(|| missing(from))?;
            image.insert(to.into(), content);
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.lock().alive()
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    name: String,
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        let sim = self.disk.lock();
        sim.alive()?;
        sim.cached.get(&self.name).map(|f| f.len() as u64).ok_or_else(|| missing(&self.name))
    }

    fn mode(&self) -> WriteMode {
        WriteMode::Memory
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let sim = self.disk.lock();
        sim.alive()?;
        let file = sim.cached.get(&self.name).ok_or_else(|| missing(&self.name))?;
        let from = offset as usize;
        let bytes = file.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_durable_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut sim = self.disk.lock();
        sim.alive()?;
        let flush = sim.flush;
        if let Some(ops) = &mut sim.ops {
            let (file, bytes) = (self.name.clone(), bytes.to_vec());
            ops.push(Op::Write { file, offset, bytes, flush });
        }
        match sim.fate() {
            None => {
                sim.begin(flush, &self.name, offset, bytes);
                sim.settle(flush);
                Ok(())
            }
            Some(Fate::Fails(kind)) => Err(kind.into()),
            Some(Fate::Killed) => {
                sim.begin(flush, &self.name, offset, bytes);
                sim.dead = true;
                sim.alive()
            }
            Some(Fate::PowerCut { mut seed }) => {
                let mut choose = || scramble(&mut seed) & 1 == 1;
                tear(&mut sim.durable, &self.name, offset, bytes, &mut choose);
                sim.dead = true;
                sim.alive()
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut sim = self.disk.lock();
        sim.alive()?;
        if let Some(ops) = &mut sim.ops {
            ops.push(Op::Sync { file: self.name.clone() });
        }
        if sim.flush != Flush::Never {
            sim.sync(&self.name);
        }
        Ok(())
    }
}
