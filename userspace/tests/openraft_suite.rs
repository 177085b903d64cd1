//! openraft's own tests of a log storage and a state machine, on ours: the real
//! WAL in a temporary folder, with segments so small that entries lie in several.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use veltrix::log::writer::WriterOptions;
use veltrix::log::{LogEntry, RealDisk, Wal, WalOptions, WalWriter};
use veltrix::replicate::machine::Machine;
use veltrix::replicate::types::RaftTypes;
use veltrix::replicate::{Committed, SnapshotMeta, SnapshotSource, Store};

/// Routes nowhere.
struct Nowhere;

impl Committed for Nowhere {
    async fn committed(&mut self, _entry: LogEntry) {}
}

/// Snapshots without content, made when asked for.
#[derive(Clone, Default)]
struct Empty(Rc<RefCell<Option<SnapshotMeta>>>);

impl SnapshotSource for Empty {
    type File = ();

    async fn newest(&self) -> io::Result<Option<(SnapshotMeta, ())>> {
        Ok(self.0.borrow().clone().map(|meta| (meta, ())))
    }

    async fn build(&self, routed: SnapshotMeta) -> io::Result<(SnapshotMeta, ())> {
        self.0.replace(Some(routed.clone()));
        Ok((routed, ()))
    }

    async fn install(&self, meta: SnapshotMeta, (): ()) -> io::Result<()> {
        self.0.replace(Some(meta));
        Ok(())
    }
}

/// A store's folder and writer; both go when its test is over.
struct Guard {
    dir: PathBuf,
    _writer: WalWriter,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Builder {
    built: AtomicU32,
}

impl Builder {
    fn open(&self) -> io::Result<(Guard, Store)> {
        let number = self.built.fetch_add(1, Relaxed);
        let name = format!("openraft-suite-{}-{number}", std::process::id());
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir)?;
        let disk = RealDisk::new(&dir);
        let options = WalOptions { segment_bytes: 128 << 10, segments_max: 6, log_key: 1, salt: 2 };
        Wal::format(&disk, &options, &mut |_| ()).map_err(io::Error::other)?;
        let (wal, _) = Wal::open(&disk, options).map_err(io::Error::other)?;
        let fatal = Box::new(|error: &_| panic!("{error}"));
        let writer = WalWriter::start(wal, WriterOptions::default(), fatal)?;
        let store = Store::open(writer.handle(), 0).map_err(io::Error::other)?;
        Ok((Guard { dir, _writer: writer }, store))
    }
}

impl StoreBuilder<RaftTypes, Store, Machine<Nowhere, Empty>, Guard> for Builder {
    async fn build(
        &self,
    ) -> Result<(Guard, Store, Machine<Nowhere, Empty>), StorageError<RaftTypes>> {
        let failed = |error: io::Error| StorageError::read(RaftTypes::err_from_error(&error));
        let (guard, store) = self.open().map_err(failed)?;
        let machine = Machine::open(Nowhere, Empty::default()).await.map_err(failed)?;
        Ok((guard, store, machine))
    }
}

#[test]
fn the_store_keeps_every_promise_that_openraft_tests() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let builder = Builder { built: AtomicU32::new(0) };
    let tested = tokio::task::LocalSet::new().block_on(&runtime, Suite::test_all(builder));
    tested.unwrap();
}
