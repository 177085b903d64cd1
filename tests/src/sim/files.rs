//! A folder in memory for snapshots: it forgets what was not made durable.
//!
//! ```text
//!   write_at ----> contents (what a reader sees) --finish--> durable contents
//!   create, rename, remove -> names (what a reader sees) --sync--> durable names
//!   crash: durable names and some of the later changes, in their order;
//!          of contents that were not finished, any pages
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use veltrix::snapshot::{SnapshotDir, SnapshotFile};

use super::rng::Rng;

const PAGE_BYTES: usize = 4096;

/// A file's number; names point to it.
type Inode = usize;

#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, Inode),
    Rename(String, String),
    Unlink(String),
}

#[derive(Debug)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<String, Inode>,
    names_durable: BTreeMap<String, Inode>,
    /// Changes of names since the last sync.
    changes: Vec<Change>,
    /// Operations until the disk refuses one; `None` = never.
    fails_in: Option<u64>,
    rng: Rng,
}

fn change(names: &mut BTreeMap<String, Inode>, change: &Change) {
    match change {
        Change::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
    }
}

impl State {
    fn operation(&mut self) -> io::Result<()> {
        match &mut self.fails_in {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the simulated disk failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn apply(&mut self, what: Change) {
        change(&mut self.names, &what);
        self.changes.push(what);
    }
}

/// The folder; clones are the same one.
#[derive(Clone, Debug)]
pub struct SimDir(Arc<Mutex<State>>);

impl SimDir {
    /// An empty folder; `rng` decides what a crash leaves.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        let state = State {
            files: Vec::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            changes: Vec::new(),
            fails_in: None,
            rng,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // One thread: nobody panicked while holding it and lived on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many operations more, each is refused, until the next crash.
    pub fn fail_in(&self, operations: Option<u64>) {
        self.state().fails_in = operations;
    }

    /// The power goes, and comes back.
    pub fn crash(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.fails_in = None;
        let kept = state.rng.index(state.changes.len() + 1);
        let mut names = std::mem::take(&mut state.names_durable);
        for what in &state.changes[..kept] {
            change(&mut names, what);
        }
        state.changes.clear();
        for file in &mut state.files {
            file.bytes = match &file.durable {
                Some(durable) => durable.clone(),
                None => leftovers(&file.bytes, &mut state.rng),
            };
        }
        state.names = names.clone();
        state.names_durable = names;
    }

    /// The bytes of a file.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state();
        let inode = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[*inode].bytes.clone())
    }

    /// Complete snapshots by their epochs, ascending.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(u64, String)> {
        let state = self.state();
        let epoch =
            |name: &str| name.strip_prefix("snapshot-")?.strip_suffix(".vsnap")?.parse().ok();
        state.names.keys().filter_map(|name| Some((epoch(name)?, name.clone()))).collect()
    }

    /// Flips a bit of a file that has bytes: the disk rots.
    pub fn rot(&self, name: &str, bit: u64) {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied() else { return };
        let file = &mut state.files[inode];
        let Some(at) = (bit / 8).checked_rem(file.bytes.len() as u64) else { return };
        file.bytes[at as usize] ^= 1 << (bit % 8);
        file.durable = Some(file.bytes.clone());
    }
}

/// What is left of a file that nobody made durable: a part of it, and of that
/// only some pages.
fn leftovers(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut left = bytes[..rng.index(bytes.len() + 1)].to_vec();
    for page in left.chunks_mut(PAGE_BYTES) {
        if rng.percent(50) {
            page.fill(0);
        }
    }
    left
}

/// A file being written.
#[derive(Debug)]
pub struct SimFile {
    folder: SimDir,
    inode: Inode,
}

impl SnapshotFile for SimFile {
    fn write_at(&mut self, blocks: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.folder.state();
        state.operation()?;
        let bytes = &mut state.files[self.inode].bytes;
        let end = offset as usize + blocks.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[offset as usize..end].copy_from_slice(blocks);
        Ok(())
    }

    fn finish(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.folder.state();
        state.operation()?;
        let file = &mut state.files[self.inode];
        file.bytes.resize(bytes as usize, 0);
        file.durable = Some(file.bytes.clone());
        Ok(())
    }
}

impl SnapshotDir for SimDir {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.operation()?;
        let inode = state.files.len();
        state.files.push(Contents::default());
        state.apply(Change::Link(name.to_owned(), inode));
        Ok(SimFile { folder: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.apply(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.apply(Change::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        state.names_durable = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.operation()?;
        Ok(state.names.keys().cloned().collect())
    }
}
