//! A crash between any two steps, and steps that fail.

use std::collections::BTreeMap;

use super::super::{Recorder, SnapshotDir, SnapshotError, newest_first};
use super::*;

/// A directory that counts its steps, stops at one of them, and knows what a
/// loss of power would leave.
#[derive(Clone, Default)]
struct SimDir(Rc<RefCell<Sim>>);

#[derive(Default)]
struct Sim {
    files: Vec<SimFile>,
    /// Names now, and names that are durable.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    steps: usize,
    /// This step and all after it fail.
    stop_at: Option<usize>,
    /// Only steps of this name fail, once.
    fail: Option<(&'static str, io::ErrorKind)>,
}

#[derive(Clone, Default)]
struct SimFile {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

impl SimDir {
    fn step(&self, what: &'static str) -> io::Result<()> {
        let mut sim = self.0.borrow_mut();
        sim.steps += 1;
        if sim.stop_at.is_some_and(|stop| sim.steps > stop) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match sim.fail.take_if(|(name, _)| *name == what) {
            Some((_, kind)) => Err(kind.into()),
            None => Ok(()),
        }
    }

    /// What a process that is killed leaves behind, and what a loss of power
    /// may: names that were not flushed yet old or new, contents that were not
    /// flushed gone, cut in half or there.
    fn survivors(&self) -> Vec<BTreeMap<String, Vec<u8>>> {
        let sim = self.0.borrow();
        let mut all = Vec::new();
        for names in [&sim.names, &sim.durable_names] {
            for share in 0..=2 {
                let left = |id: &usize| {
                    let file = &sim.files[*id];
                    if file.bytes == file.durable {
                        return file.durable.clone();
                    }
                    file.bytes[..file.bytes.len() * share / 2].to_vec()
                };
                all.push(names.iter().map(|(name, id)| (name.clone(), left(id))).collect());
            }
        }
        all
    }
}

struct SimHandle(SimDir, usize);

impl SnapshotFile for SimHandle {
    fn write_at(&mut self, blocks: &[u8], offset: u64) -> io::Result<()> {
        self.0.step("write")?;
        let file = &mut self.0.0.borrow_mut().files[self.1];
        let end = offset as usize + blocks.len();
        file.bytes.resize(end.max(file.bytes.len()), 0);
        file.bytes[offset as usize..end].copy_from_slice(blocks);
        Ok(())
    }

    fn finish(&mut self, bytes: u64) -> io::Result<()> {
        self.0.step("finish")?;
        let file = &mut self.0.0.borrow_mut().files[self.1];
        file.bytes.truncate(bytes as usize);
        file.durable = file.bytes.clone();
        Ok(())
    }
}

impl SnapshotDir for SimDir {
    type File = SimHandle;

    fn create(&self, name: &str) -> io::Result<SimHandle> {
        self.step("create")?;
        let mut sim = self.0.borrow_mut();
        let id = sim.files.len();
        sim.files.push(SimFile::default());
        sim.names.insert(name.to_owned(), id);
        Ok(SimHandle(self.clone(), id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step("rename")?;
        let mut sim = self.0.borrow_mut();
        let id = sim.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        sim.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step("remove")?;
        let removed = self.0.borrow_mut().names.remove(name);
        removed.map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.step("sync")?;
        let mut sim = self.0.borrow_mut();
        sim.durable_names = sim.names.clone();
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().names.keys().cloned().collect())
    }
}

fn recorder(dir: &SimDir) -> Result<Recorder<SimDir>, SnapshotError> {
    Recorder::new(dir.clone(), Path::new("snapshots"), identity(2), None, &[])
}

fn snapshot(recorder: &mut Recorder<SimDir>, epoch: u64) -> Result<(), SnapshotError> {
    recorder.begin(epoch, 0)?;
    recorder.add(&Plain::new(1, epoch + 1, 300_000))?;
    recorder.add(&Plain::new(0, epoch, 300_000))?;
    recorder.finish(anchor(epoch)).map(|_| ())
}

/// Epoch of the newest sound snapshot among these files.
fn newest(files: &BTreeMap<String, Vec<u8>>) -> Option<u64> {
    let folder = Folder::new();
    for (name, bytes) in files {
        std::fs::write(folder.0.join(name), bytes).unwrap();
    }
    newest_first(&folder.0).unwrap().iter().find_map(|path| {
        let snapshot = Snapshot::open(path).ok()?;
        snapshot.verify(|_| {}).ok()?;
        Some(snapshot.manifest().last.index)
    })
}

#[test]
fn a_crash_at_any_step_leaves_a_snapshot_to_start_from() {
    // 10, 20 and 30 are written; the crash comes somewhere in 40, which also
    // removes 20.
    let steps = {
        let dir = SimDir::default();
        let mut writer = recorder(&dir).unwrap();
        [10, 20, 30].into_iter().for_each(|e| snapshot(&mut writer, e).unwrap());
        let before = dir.0.borrow().steps;
        snapshot(&mut writer, 40).unwrap();
        before..dir.0.borrow().steps
    };
    assert!(steps.len() >= 8, "{steps:?}");
    for stop in steps.clone() {
        let dir = SimDir::default();
        let mut writer = recorder(&dir).unwrap();
        [10, 20, 30].into_iter().for_each(|e| snapshot(&mut writer, e).unwrap());
        dir.0.borrow_mut().stop_at = Some(stop);
        let finished = snapshot(&mut writer, 40).is_ok();
        for files in dir.survivors() {
            let newest = newest(&files);
            assert!(matches!(newest, Some(30 | 40)), "step {stop}: {newest:?}");
            // Once it is said to be there, it is.
            assert!(!finished || newest == Some(40), "step {stop}");
        }
        // The next start clears up and can write again.
        dir.0.borrow_mut().stop_at = None;
        let mut writer = recorder(&dir).unwrap();
        snapshot(&mut writer, 50).unwrap();
        let names = dir.list().unwrap();
        assert!(names.len() == 2 && names[1].contains("50.vsnap"), "step {stop}: {names:?}");
    }
}

#[test]
fn a_step_that_fails_takes_back_what_was_begun() {
    for (step, kind) in [
        ("create", io::ErrorKind::ReadOnlyFilesystem),
        ("write", io::ErrorKind::StorageFull),
        ("finish", io::ErrorKind::StorageFull),
        ("rename", io::ErrorKind::PermissionDenied),
        ("sync", io::ErrorKind::Other),
    ] {
        let dir = SimDir::default();
        let mut writer = recorder(&dir).unwrap();
        snapshot(&mut writer, 10).unwrap();
        dir.0.borrow_mut().fail = Some((step, kind));
        let error = snapshot(&mut writer, 20).unwrap_err();
        assert!(error.to_string().contains("snapshots/snapshot"), "{error}");
        assert!(!dir.list().unwrap().contains(&"snapshot.partial".to_owned()), "{step}");
        assert!(dir.survivors().iter().all(|files| newest(files).is_some()), "{step}");
        snapshot(&mut writer, 30).unwrap();
        assert_eq!(writer.kept().last(), Some(&30), "{step}");
    }
}

#[test]
fn only_whole_rounds_become_snapshots() {
    let dir = SimDir::default();
    let mut writer = recorder(&dir).unwrap();
    writer.begin(1, 0).unwrap();
    writer.add(&Plain::new(0, 5, 10)).unwrap();
    assert!(!writer.is_whole());
    assert!(writer.finish(anchor(5)).is_err(), "a partition is missing");
    writer.begin(2, 0).unwrap();
    writer.add(&Plain::new(0, 5, 10)).unwrap();
    assert!(writer.add(&Plain::new(0, 6, 10)).is_err(), "twice the same");
    writer.begin(3, 0).unwrap();
    assert!(writer.add(&Plain::new(2, 6, 10)).is_err(), "there are two");
    writer.begin(4, 0).unwrap();
    writer.add(&Plain::new(0, 5, 10)).unwrap();
    writer.add(&Plain::new(1, 4, 10)).unwrap();
    assert!(writer.finish(anchor(5)).is_err(), "the least epoch is 4");
    assert_eq!((dir.list().unwrap(), writer.kept()), (Vec::new(), &[][..]));
}

#[test]
fn two_are_kept_and_refused_ones_do_not_count() {
    let dir = SimDir::default();
    let mut writer = recorder(&dir).unwrap();
    [10, 20, 30].into_iter().for_each(|e| snapshot(&mut writer, e).unwrap());
    assert_eq!(writer.kept(), [20, 30]);
    let refused = Path::new("snapshots").join(super::super::names::of(30));
    let path = Path::new("snapshots");
    let mut writer = Recorder::new(dir.clone(), path, identity(2), None, &[refused]).unwrap();
    assert_eq!(writer.kept(), [20]);
    snapshot(&mut writer, 40).unwrap();
    assert_eq!(writer.kept(), [20, 40]);
    assert_eq!(dir.list().unwrap().len(), 3, "the refused one is left for the operator");
}
