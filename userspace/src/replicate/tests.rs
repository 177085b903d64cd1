//! One node from founding to restart, on a real WAL in a folder of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::LocalSet;

use super::*;
use crate::batch::{Payload, Pool};
use crate::log::disk::{Access, DiskFile};
use crate::log::writer::WriterOptions;
use crate::log::{Disk, RealDisk, Wal, WalHandle, WalOptions, WalWriter};

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("veltrix-replicate-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Snapshots that exist because a test says so.
#[derive(Clone, Default)]
struct Snapshots(Rc<RefCell<Option<SnapshotMeta>>>);

impl SnapshotSource for Snapshots {
    type File = ();

    async fn newest(&self) -> io::Result<Option<(SnapshotMeta, ())>> {
        Ok(self.0.borrow().clone().map(|meta| (meta, ())))
    }

    async fn build(&self, _routed: SnapshotMeta) -> io::Result<(SnapshotMeta, ())> {
        self.newest().await?.ok_or_else(|| io::Error::other("no snapshot was taken"))
    }

    async fn install(&self, meta: SnapshotMeta, (): ()) -> io::Result<()> {
        self.0.replace(Some(meta));
        Ok(())
    }
}

/// Keeps what was routed; holds entries back while `open` is false.
#[derive(Clone)]
struct Router {
    entries: Rc<RefCell<Vec<LogEntry>>>,
    open: tokio::sync::watch::Sender<bool>,
}

impl Router {
    fn new() -> Self {
        Self { entries: Rc::default(), open: tokio::sync::watch::Sender::new(true) }
    }

    fn batches(&self) -> Vec<(u64, u64, Vec<u8>)> {
        let entries = self.entries.borrow();
        let batches = entries.iter().filter(|e| matches!(e.body, Body::Batch(_)));
        batches.map(|e| (e.id.index, e.log_time_ns, e.body.as_slice().to_vec())).collect()
    }
}

impl Committed for Router {
    async fn committed(&mut self, entry: LogEntry) {
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        self.entries.borrow_mut().push(entry);
    }
}

const SEGMENT_BYTES: u64 = 64 << 10;

fn options(segments_max: u32) -> WalOptions {
    WalOptions { segment_bytes: SEGMENT_BYTES, segments_max, log_key: 5, salt: 9 }
}

/// A node with its WAL, and what it was started with.
struct Node {
    log: RaftLog<Router, Snapshots>,
    router: Router,
    snapshots: Snapshots,
    fatal: Rc<RefCell<Option<String>>>,
    wal: WalHandle,
    _writer: WalWriter,
}

impl Node {
    async fn start(disk: &dyn Disk, segments_max: u32, snapshots: Snapshots) -> Self {
        Self::start_with(disk, segments_max, snapshots, Router::new()).await
    }

    async fn start_with(
        disk: &dyn Disk,
        segments_max: u32,
        snapshots: Snapshots,
        router: Router,
    ) -> Self {
        let (wal, _) = Wal::open(disk, options(segments_max)).unwrap();
        let writer = WalWriter::start(wal, WriterOptions::default(), Box::new(|_| ())).unwrap();
        let wal = writer.handle();
        let fatal = Rc::new(RefCell::new(None));
        let ended = Rc::clone(&fatal);
        let log = RaftLog::start(Start {
            node: 1,
            cluster: "test".to_owned(),
            found: Some(Members::single(1)),
            timing: Timing::default(),
            store: Store::open(wal.clone(), 0).unwrap(),
            committed: router.clone(),
            snapshots: snapshots.clone(),
            on_jump: Box::new(|_| ()),
            on_fatal: Box::new(move |why| {
                ended.replace(Some(why));
            }),
        })
        .await
        .unwrap();
        Self { log, router, snapshots, fatal, wal, _writer: writer }
    }

    async fn routed(&self, index: u64) {
        let mut routed = self.log.routed_watch();
        routed.wait_for(|routed| *routed >= Some(index)).await.unwrap();
    }
}

fn batch(tag: u8, bytes: usize) -> Body {
    Body::Batch(Payload::Owned(Bytes::from(vec![tag; bytes])))
}

/// Runs as the control core does: one thread, local tasks.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn formatted(name: &str, segments_max: u32) -> (Folder, RealDisk) {
    let folder = Folder::new(name);
    let disk = RealDisk::new(&folder.0);
    Wal::format(&disk, &options(segments_max), &mut |_| ()).unwrap();
    (folder, disk)
}

#[test]
fn what_is_proposed_is_routed_once_in_order_and_again_after_a_restart() {
    run(async {
        let (_folder, disk) = formatted("order", 32);
        let node = Node::start(&disk, 32, Snapshots::default()).await;
        node.log.ready().await.unwrap();
        let term = node.log.status().term;
        for tag in 0..200u8 {
            node.log.propose(batch(tag, 100)).unwrap();
            if tag % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // The membership is entry 0, the leader's blank entry 1.
        node.routed(201).await;
        let first = node.router.batches();
        let tags: Vec<u8> = first.iter().map(|(_, _, bytes)| bytes[0]).collect();
        assert_eq!(tags, (0..200).collect::<Vec<u8>>());
        assert!(first.windows(2).all(|w| w[0].0 + 1 == w[1].0 && w[0].1 < w[1].1));
        let status = node.log.status();
        assert_eq!((status.in_flight, status.lost, status.quorum()), (0, 0, 1));
        node.log.stop().await;
        assert_eq!(node.log.propose(batch(0, 1)), Err(Refused::Stopped));
        assert_eq!(*node.fatal.borrow(), None);
        drop(node);

        let node = Node::start(&disk, 32, Snapshots::default()).await;
        node.log.ready().await.unwrap();
        assert_eq!(node.router.batches(), first);
        let indexes: Vec<u64> = node.router.entries.borrow().iter().map(|e| e.id.index).collect();
        assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<u64>>(), "each once");
        assert!(node.log.status().term > term);
        node.log.propose(batch(9, 9)).unwrap();
        node.routed(203).await;
        let last = node.router.batches().pop().unwrap();
        assert_eq!(last.0, 203);
        assert!(last.1 > first.last().unwrap().1, "log time goes on");
        assert!(node.log.log_time_ns() >= last.1);
    });
}

#[test]
fn a_router_that_waits_holds_back_what_comes_after() {
    run(async {
        let (_folder, disk) = formatted("slow", 32);
        let node = Node::start(&disk, 32, Snapshots::default()).await;
        node.log.ready().await.unwrap();
        node.router.open.send_replace(false);
        for tag in 0..50 {
            node.log.propose(batch(tag, 10)).unwrap();
        }
        // All durable, none routed.
        while node.wal.durable_index() != Some(51) {
            tokio::task::yield_now().await;
        }
        assert_eq!(node.log.status().routed_index, Some(1));
        assert_eq!(node.log.status().in_flight, 50);
        node.router.open.send_replace(true);
        node.routed(51).await;
        assert_eq!(node.router.batches().len(), 50);
    });
}

#[test]
fn a_batch_that_is_refused_is_marked_lost() {
    run(async {
        let (_folder, disk) = formatted("refused", 32);
        let (wal, _) = Wal::open(&disk, options(32)).unwrap();
        let writer = WalWriter::start(wal, WriterOptions::default(), Box::new(|_| ())).unwrap();
        let mut pool = Pool::new(2, 4);
        let index = pool.take().unwrap();
        pool.open_buffer(index).seal(0, 1, 1);
        let log = RaftLog::start(Start {
            node: 1,
            cluster: "test".to_owned(),
            // Nobody takes it into a cluster: it never leads.
            found: None,
            timing: Timing::default(),
            store: Store::open(writer.handle(), 0).unwrap(),
            committed: Router::new(),
            snapshots: Snapshots::default(),
            on_jump: Box::new(|_| ()),
            on_fatal: Box::new(|why| panic!("{why}")),
        })
        .await
        .unwrap();
        let payload = Payload::Pooled(pool.share(index));
        assert!(!pool.get(index).slots().is_done());
        assert_eq!(log.propose(Body::Batch(payload)), Err(Refused::NotLeader));
        let slots = pool.get(index).slots();
        assert!(slots.is_done() && slots.epoch().is_none());
        assert_eq!((log.status().lost, log.role()), (1, Role::Learner));
        log.stop().await;
        assert_eq!(log.ready().await, Err(Refused::Stopped));
    });
}

#[test]
fn buffers_come_free_once_routed() {
    run(async {
        let (_folder, disk) = formatted("buffers", 32);
        let node = Node::start(&disk, 32, Snapshots::default()).await;
        node.log.ready().await.unwrap();
        let mut pool = Pool::new(4, 4);
        for round in 0..40 {
            let index = loop {
                // What the real router does: passes ranges on and keeps nothing.
                node.router.entries.borrow_mut().clear();
                match pool.take() {
                    Some(index) => break index,
                    None => tokio::task::yield_now().await,
                }
            };
            pool.open_buffer(index).seal(0, 1, round);
            node.log.propose(Body::Batch(Payload::Pooled(pool.share(index)))).unwrap();
        }
        node.routed(41).await;
    });
}

#[test]
fn a_full_log_refuses_until_a_snapshot_lets_it_be_purged() {
    run(async {
        let (_folder, disk) = formatted("full", 6);
        let node = Node::start(&disk, 6, Snapshots::default()).await;
        node.log.ready().await.unwrap();
        let mut index = 1;
        let mut rounds = 0;
        while rounds < 3 {
            match node.log.propose(batch(1, 20_000)) {
                Ok(()) => {
                    index += 1;
                    node.routed(index).await;
                }
                Err(refused) => {
                    assert_eq!(refused, Refused::Full { bytes: 20_000 + 8_192 });
                    rounds += 1;
                    let meta = node.log.meta_at(index).unwrap();
                    assert_eq!(meta.members, Some(Members::single(1)));
                    node.snapshots.0.replace(Some(meta));
                    node.log.snapshot_taken(Some(index)).await.unwrap();
                    // It learns of the snapshot first, and may purge on the second call.
                    while node.log.status().snapshot_index != Some(index) {
                        tokio::task::yield_now().await;
                    }
                    node.log.snapshot_taken(Some(index)).await.unwrap();
                    while node.wal.state().free_bytes < 2 * SEGMENT_BYTES {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        assert!(index > 10 && node.fatal.borrow().is_none());
        let snapshots = node.snapshots.clone();
        let last = snapshots.0.borrow().clone().unwrap().last.unwrap();
        node.log.stop().await;
        drop(node);
        let node = Node::start(&disk, 6, snapshots).await;
        node.log.ready().await.unwrap();
        let first = node.router.entries.borrow()[0].id.index;
        assert_eq!(first, last.index + 1, "what the snapshot has is not routed again");
        assert_eq!(node.log.status().voters, [1]);
    });
}

/// A disk whose writes fail when told to.
#[derive(Clone, Debug)]
struct Failing<T>(T, Arc<std::sync::atomic::AtomicBool>);

impl<T: Disk> Disk for Failing<T> {
    fn place(&self) -> String {
        self.0.place()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn create(&self, name: &str, bytes: u64, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        self.0.create(name, bytes, progress)
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Failing(self.0.open(name, access)?, Arc::clone(&self.1))))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

impl DiskFile for Failing<Arc<dyn DiskFile>> {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
    fn mode(&self) -> crate::log::disk::WriteMode {
        self.0.mode()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_durable_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("the disk is on fire"));
        }
        self.0.write_durable_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[test]
fn a_write_error_ends_the_log_and_loses_what_was_in_flight() {
    run(async {
        let (_folder, disk) = formatted("fire", 32);
        let fire = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let disk = Failing(disk, Arc::clone(&fire));
        let node = Node::start(&disk, 32, Snapshots::default()).await;
        node.log.ready().await.unwrap();
        let mut pool = Pool::new(1, 4);
        let index = pool.take().unwrap();
        pool.open_buffer(index).seal(0, 1, 1);
        fire.store(true, std::sync::atomic::Ordering::Relaxed);
        node.log.propose(Body::Batch(Payload::Pooled(pool.share(index)))).unwrap();
        let mut role = node.log.role_watch();
        role.wait_for(|role| *role == Role::Stopped).await.unwrap();
        while node.fatal.borrow().is_none() || node.log.status().in_flight > 0 {
            tokio::task::yield_now().await;
        }
        let why = node.fatal.take().unwrap();
        assert!(why.contains("the disk is on fire"), "{why}");
        assert_eq!(pool.get(index).slots().epoch(), None);
        assert_eq!(node.log.propose(batch(1, 1)), Err(Refused::Stopped));
        assert!(node.router.batches().is_empty(), "nothing that is not durable was routed");
    });
}

#[test]
fn a_cluster_of_three_does_not_commit_alone() {
    run(async {
        let (_folder, disk) = formatted("three", 32);
        let (wal, _) = Wal::open(&disk, options(32)).unwrap();
        let writer = WalWriter::start(wal, WriterOptions::default(), Box::new(|_| ())).unwrap();
        let router = Router::new();
        let nodes = BTreeMap::from([1, 2, 3].map(|id| (id, format!("10.0.0.{id}:7600"))));
        let log = RaftLog::start(Start {
            node: 1,
            cluster: "test".to_owned(),
            found: Some(Members::of_voters(nodes)),
            timing: Timing::default(),
            store: Store::open(writer.handle(), 0).unwrap(),
            committed: router.clone(),
            snapshots: Snapshots::default(),
            on_jump: Box::new(|_| ()),
            on_fatal: Box::new(|why| panic!("{why}")),
        })
        .await
        .unwrap();
        let mut role = log.role_watch();
        role.wait_for(|role| *role == Role::Candidate).await.unwrap();
        assert_eq!(log.status().quorum(), 2);
        assert_eq!(log.propose(batch(1, 1)), Err(Refused::NotLeader));
        assert!(router.entries.borrow().is_empty());
    });
}

#[test]
fn intervals_that_do_not_fit_are_refused_by_name() {
    let refused = |heartbeat_ms, election_ms_min, election_ms_max| {
        let timing = Timing { heartbeat_ms, election_ms_min, election_ms_max };
        super::raft::config("test", timing).unwrap_err().to_string()
    };
    for (a, b, c) in [(40, 100, 250), (0, 150, 250), (40, 250, 250), (40, 300, 250)] {
        let error = refused(a, b, c);
        assert!(error.starts_with(&format!("heartbeat {a} ms, election {b}..{c} ms")), "{error}");
    }
    assert!(super::raft::config("test", Timing::default()).is_ok());
}

#[test]
fn a_long_log_is_replayed_whole_and_in_order() {
    run(async {
        let (_folder, disk) = formatted("long", 64);
        let node = Node::start(&disk, 64, Snapshots::default()).await;
        node.log.ready().await.unwrap();
        // Many entries a record, several records, several times 64.
        for round in 0..10u64 {
            for tag in 0..100 {
                node.log.propose(batch(tag, 300)).unwrap();
            }
            node.routed(1 + (round + 1) * 100).await;
        }
        let wanted = node.router.batches();
        node.log.stop().await;
        drop(node);
        let node = Node::start(&disk, 64, Snapshots::default()).await;
        let replayed = node.router.batches().len();
        assert!(replayed >= 900, "{replayed}: what was known to be committed needs no leader");
        node.log.ready().await.unwrap();
        assert_eq!(node.router.batches(), wanted);
    });
}
