//! The state behind the lanes: data directory, log, partitions, snapshots.
//!
//! ```text
//!   prepare  data directory taken, snapshot loaded, memory reserved      before the NIC is touched
//!   split    partitions dealt out to lanes, rings between all            as lanes are made
//!   live     WAL and log on the control core, replay, then ready         before packets are let in
//! ```
//!
//! [`router`] carries committed entries to lanes; [`live`] proposes what lanes
//! have sealed, takes snapshots, moves partitions; [`digests`] and [`times`] put
//! together what lanes report.

mod anchor;
mod digests;
mod live;
mod load;
mod prepare;
mod reads;
mod report;
mod room;
mod router;
mod samples;
mod tenants;
mod times;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::admin::log_status::RecoveryStatus;
use crate::apply::{Partition, PartitionImage};
use crate::base::port::Port;
use crate::base::waker::Waker;
use crate::cli::{CliError, ExitStatus};
use crate::lane::link::{ControlEnds, LaneLink, LogFacts, link};
use crate::lane::reads::{Asker, BYTES_OF_JOBS, mesh};
use crate::lane::{BYTES_OF_SENDERS, LogHalfSpec, bytes_of_batch, bytes_of_waiting};
use crate::log::superblock::{DataDir, random_u64};
use crate::log::wal::Wal;
use crate::snapshot::{LaneImages, Manifest, SnapshotWriter, WriterOptions};

pub use live::Live;
pub use prepare::Prepared;
pub use reads::{NotAsked, Subject, TellAnswer, Totals};
pub use samples::Samples;

/// Images a lane captures into: one is filled while the other is written.
pub const IMAGES_A_LANE: usize = 2;

/// What is known of the state while lanes are made, and handed to [`Live`].
pub struct Parts {
    dir: DataDir,
    wal: Wal,
    manifest: Option<Manifest>,
    recovery: RecoveryStatus,
    memory_bytes: BTreeMap<String, u64>,
    /// The control core sleeps on it.
    waker: Arc<Waker>,
    facts: Arc<LogFacts>,
    /// By lane; the fallback's, if there is one, last.
    ends: Vec<ControlEnds>,
    /// Lanes that own state: the first so many.
    owning: usize,
    /// Owner of each partition, as lanes know it.
    owner_of: Arc<[AtomicU16]>,
    /// The control core's own reads.
    asker: Asker,
    batches: usize,
    snapshots: SnapshotWriter,
    anchors: anchor::AnchorRequests,
    rounds_done: anchor::RoundsDone,
}

/// What lanes are made with.
#[derive(Clone, Copy, Debug)]
pub struct SplitSpec {
    /// Lanes that own state.
    pub lanes: usize,
    /// Whether one more receives and owns none.
    pub fallback: bool,
    /// Batches of a lane.
    pub batches: usize,
    /// Age of the oldest batch in flight at which events are refused.
    pub deadline: Duration,
}

/// Bytes of batches and reads that `lanes` lanes and the control core reserve.
#[must_use]
pub const fn lanes_bytes<P: Port>(lanes: usize, batches: usize) -> u64 {
    let lane = batches * bytes_of_batch::<P>()
        + BYTES_OF_SENDERS
        + BYTES_OF_JOBS
        + bytes_of_waiting::<P>();
    (lanes * lane + BYTES_OF_JOBS) as u64
}

impl Prepared {
    /// Deals the partitions out to the lanes, in turn, and makes the rings
    /// between lanes, control core and snapshot writer.
    ///
    /// # Errors
    ///
    /// The kernel gives no memory, thread or eventfd; the snapshot directory
    /// cannot be used.
    pub fn split(self, spec: SplitSpec) -> Result<(Vec<LogHalfSpec>, Parts), CliError> {
        let superblock = self.dir.superblock();
        let partitions = superblock.partitions;
        let path = self.dir.path().to_owned();
        let failed = |e: io::Error| {
            let text = format!("{}: memory or descriptors cannot be had: {e}", path.display());
            CliError::new(ExitStatus::HostNotReady, text)
        };
        let all = spec.lanes + usize::from(spec.fallback);
        let waker = Arc::new(Waker::new().map_err(failed)?);
        let facts = Arc::new(LogFacts::default());
        facts.cluster_id.store(superblock.cluster_id, Relaxed);
        let life = random_u64().map_err(failed)?;

        let mut images = Vec::new();
        for _ in 0..spec.lanes {
            let pair: io::Result<Vec<PartitionImage>> =
                (0..IMAGES_A_LANE).map(|_| PartitionImage::new(&self.limits)).collect();
            images.push(pair.map_err(failed)?);
        }
        let options = WriterOptions {
            dir: self.dir.snapshots(),
            identity: self.identity,
            bytes_per_s: None,
            refused: self.refused,
        };
        let (find_anchor, anchors) = anchor::anchors(&waker);
        let (on_done, rounds_done) = anchor::rounds(&waker);
        let (snapshots, lane_images) =
            SnapshotWriter::start(&options, images, find_anchor, on_done)?;

        let mut ends = Vec::new();
        let mut controls = Vec::new();
        for _ in 0..all {
            let rings = link(spec.batches, partitions, Arc::clone(&waker));
            let (lane, control) = rings.map_err(failed)?;
            ends.push(lane);
            controls.push(control);
        }
        let links: Arc<[Arc<LaneLink>]> = controls.iter().map(|c| Arc::clone(&c.link)).collect();
        let epoch = self.manifest.as_ref().map_or(0, |m| m.last.index);
        let owner_of: Arc<[AtomicU16]> =
            (0..partitions).map(|number| AtomicU16::new(number % spec.lanes as u16)).collect();
        let (reads, asker) = mesh(all, spec.lanes, &owner_of);
        let mut state: Vec<Option<Box<Partition>>> =
            self.partitions.into_iter().map(|p| Some(Box::new(p))).collect();
        let mut lane_images: Vec<Option<LaneImages<PartitionImage>>> =
            lane_images.into_iter().map(Some).collect();
        lane_images.resize_with(all, || None);
        let specs = ends
            .into_iter()
            .zip(lane_images)
            .zip(reads)
            .enumerate()
            .map(|(lane, ((ends, images), reads))| LogHalfSpec {
                lane: lane as u32,
                life,
                partitions,
                batches: spec.batches,
                deadline: spec.deadline,
                ends,
                facts: Arc::clone(&facts),
                lanes: Arc::clone(&links),
                owned: state
                    .iter_mut()
                    .zip(&*owner_of)
                    .map(|(state, owner)| {
                        let is_its = usize::from(owner.load(Relaxed)) == lane;
                        if is_its { state.take() } else { None }
                    })
                    .collect(),
                images,
                epoch,
                reads,
            })
            .collect();
        let parts = Parts {
            dir: self.dir,
            wal: self.wal,
            manifest: self.manifest,
            recovery: self.recovery,
            memory_bytes: self.memory_bytes,
            waker,
            facts,
            ends: controls,
            owning: spec.lanes,
            owner_of,
            asker,
            batches: spec.batches,
            snapshots,
            anchors,
            rounds_done,
        };
        Ok((specs, parts))
    }
}
