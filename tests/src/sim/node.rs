//! The simulated node while it lives: what threads and rings do, one step at a
//! time and in any order that they could.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use veltrix::apply::{Partition, PartitionImage, PartitionLimits};
use veltrix::batch::BatchView;
use veltrix::dedupe::{DedupeImage, Secret};
use veltrix::log::wal::{Wal, WalError, WalOptions};
use veltrix::log::{Body, LogEntry, LogId};
use veltrix::replicate::clock::{LogClock, Now};
use veltrix::snapshot::{Anchor, Identity, KEPT, Position, Recorder};

use super::Bug;
use super::clients::Datagram;
use super::files::SimDir;
use super::lane::{Ack, Command, Lane};
use super::oracle::{Oracle, Violation};
use crate::model::Limits;

/// Entries proposed and not yet durable at the most.
const QUEUE_MAX: usize = 12;

/// Why a life ends.
#[derive(Debug)]
pub enum Stop {
    /// A promise was broken: the run ends.
    Broken(Violation),
    /// The process ends itself, as it must: a disk refused a write.
    Died(String),
}

impl From<Violation> for Stop {
    fn from(what: Violation) -> Self {
        Self::Broken(what)
    }
}

/// What does not change from life to life.
#[derive(Clone)]
pub struct Fixed {
    /// What the data directory was formatted with.
    pub limits: Limits,
    /// The same for one partition.
    pub partition_limits: PartitionLimits,
    /// Of the fingerprints.
    pub secret: Arc<Secret>,
    /// Whose snapshots.
    pub identity: Identity,
    /// How many lanes.
    pub lanes: usize,
    /// The log's files; the salt is another in each life.
    pub wal: WalOptions,
    /// The mistake.
    pub bug: Option<Bug>,
}

/// See the module.
pub struct Node {
    pub(super) fixed: Fixed,
    pub(super) life: u64,
    pub(super) term: u64,
    pub(super) lanes: Vec<Lane>,
    /// Lane of each partition.
    pub(super) owners: Vec<usize>,
    /// Partitions on their way from one lane to another.
    pub(super) mail: BTreeMap<u16, Partition>,
    pub(super) wal: Wal,
    /// Proposed, not yet durable.
    pub(super) queue: VecDeque<LogEntry>,
    pub(super) last: LogId,
    /// Names of the entries that a snapshot may have to name.
    pub(super) ids: BTreeMap<u64, LogId>,
    pub(super) clock: LogClock,
    pub(super) recorder: Recorder<SimDir>,
    /// Whether a round of the recorder is under way.
    pub(super) recording: bool,
    pub(super) log_is_full: bool,
    /// Last entry that the log was told to give up.
    pub(super) purged: u64,
}

impl Node {
    /// Takes a datagram from the network on a lane; false = shed.
    pub fn receive(&mut self, lane: usize, datagram: &Datagram) -> bool {
        self.lanes[lane].receive(datagram, self.fixed.limits.partitions)
    }

    /// The lane seals what it has.
    pub fn seal(&mut self, lane: usize) {
        self.lanes[lane].seal();
    }

    /// The control core takes a sealed batch of a lane, stamps it and gives it
    /// to the log.
    ///
    /// # Errors
    ///
    /// What the oracle says.
    pub fn propose(&mut self, lane: usize, now: Now, oracle: &mut Oracle) -> Result<(), Stop> {
        if self.log_is_full || self.queue.len() >= QUEUE_MAX {
            return Ok(());
        }
        let Some((payload, events)) = self.lanes[lane].submit() else { return Ok(()) };
        self.clock.look(now);
        self.enter(Body::Batch(payload), events, oracle)
    }

    /// An entry without events.
    ///
    /// # Errors
    ///
    /// What the oracle says.
    pub fn tick(&mut self, now: Now, oracle: &mut Oracle) -> Result<(), Stop> {
        if self.log_is_full || self.queue.len() >= QUEUE_MAX {
            return Ok(());
        }
        self.clock.look(now);
        self.enter(Body::Blank, Vec::new(), oracle)
    }

    fn enter(
        &mut self,
        body: Body,
        events: Vec<crate::model::Event>,
        oracle: &mut Oracle,
    ) -> Result<(), Stop> {
        let id = LogId { term: self.term, node: 1, index: self.last.index + 1 };
        let entry = LogEntry { id, log_time_ns: self.clock.stamp(), body };
        self.last = id;
        oracle.proposed(&entry, events)?;
        if self.fixed.bug == Some(Bug::AckBeforeDurable) {
            self.commit(&entry, oracle);
        }
        self.queue.push_back(entry);
        Ok(())
    }

    /// The writer makes the oldest `count` entries durable as one record; what
    /// is durable is committed, with one voter.
    ///
    /// # Errors
    ///
    /// The disk refused: the process must end.
    pub fn write(&mut self, count: usize, oracle: &mut Oracle) -> Result<(), Stop> {
        let count = count.min(self.queue.len());
        if count == 0 {
            return Ok(());
        }
        let entries: Vec<LogEntry> = self.queue.iter().take(count).cloned().collect();
        match self.wal.append(&entries) {
            Ok(()) => {}
            // Waits for a snapshot and its purge.
            Err(WalError::Full { .. }) => self.log_is_full = true,
            Err(error @ (WalError::Io { .. } | WalError::Closed)) => {
                return Err(Stop::Died(format!("append: {error}")));
            }
            Err(error) => return Err(Stop::Broken(format!("append: {error}"))),
        }
        // A full log has those that came before.
        let durable = self.wal.state().last.map_or(0, |id| id.index);
        for entry in entries.iter().take_while(|entry| entry.id.index <= durable) {
            self.queue.pop_front();
            if self.fixed.bug != Some(Bug::AckBeforeDurable) {
                self.commit(entry, oracle);
            }
        }
        self.wal.set_committed(self.wal.state().last.unwrap_or_default());
        Ok(())
    }

    /// Routes a committed entry to the owners; every lane hears of its epoch.
    fn commit(&mut self, entry: &LogEntry, oracle: &mut Oracle) {
        let epoch = entry.id.index;
        oracle.committed(epoch);
        self.ids.insert(epoch, entry.id);
        let batch = match &entry.body {
            Body::Batch(payload) => Some(payload),
            _ => None,
        };
        if let Some(payload) = batch
            && let Some(slots) = payload.slots()
            && let Some(view) = BatchView::of_checked(payload.as_slice())
        {
            let mut owns = vec![false; self.lanes.len()];
            for range in view.ranges() {
                owns[self.owners[usize::from(range.partition)]] = true;
            }
            slots.committed(epoch, owns.iter().filter(|owns| **owns).count() as u32);
        }
        for lane in &mut self.lanes {
            let (log_time_ns, batch) = (entry.log_time_ns, batch.cloned());
            lane.inbox.push_back(Command::Apply { epoch, log_time_ns, batch });
        }
    }

    /// A lane carries out its next command.
    ///
    /// # Errors
    ///
    /// What the oracle says.
    pub fn turn(&mut self, lane: usize, oracle: &mut Oracle) -> Result<(), Stop> {
        Ok(self.lanes[lane].turn(&mut self.mail, oracle)?)
    }

    /// A lane answers its oldest batch, if that is done.
    ///
    /// # Errors
    ///
    /// What the oracle says.
    pub fn acknowledge(&mut self, lane: usize, oracle: &mut Oracle) -> Result<Vec<Ack>, Stop> {
        let acks = self.lanes[lane].acknowledge();
        for ack in &acks {
            oracle.acknowledged(&ack.datagram, ack.epoch, &ack.answers)?;
        }
        Ok(acks)
    }

    /// Whether a capture or a move is under way or about to begin.
    fn is_rearranging(&self) -> bool {
        let busy = |lane: &Lane| {
            lane.is_adopting()
                || lane.is_capturing()
                || lane.inbox.iter().any(|command| !matches!(command, Command::Apply { .. }))
        };
        self.recording || !self.mail.is_empty() || self.lanes.iter().any(busy)
    }

    /// Moves a partition between two epochs. Waits for captures and for the
    /// move before.
    pub fn relocate(&mut self, partition: u16, to: usize) -> bool {
        let from = self.owners[usize::from(partition)];
        if from == to || self.is_rearranging() {
            return false;
        }
        self.owners[usize::from(partition)] = to;
        if self.fixed.bug == Some(Bug::MoveWithoutWaiting) {
            // What its old owner had still to apply finds it gone.
            if let Some(moved) = self.lanes[from].partitions.remove(&partition) {
                self.lanes[to].partitions.insert(partition, moved);
            }
            return true;
        }
        self.lanes[from].inbox.push_back(Command::Release(partition));
        self.lanes[to].inbox.push_back(Command::Adopt(partition));
        true
    }

    /// Begins a snapshot. Waits for partitions that are on their way.
    pub fn snapshot_begin(&mut self, file_id: u64) -> bool {
        if self.is_rearranging() {
            return false;
        }
        // Refused by the disk: an alarm, and another attempt later.
        self.recording = self.recorder.begin(file_id, self.clock.time_ns()).is_ok();
        if self.recording {
            for lane in &mut self.lanes {
                lane.inbox.push_back(Command::Capture);
            }
        }
        self.recording
    }

    /// A lane captures some more; the recorder writes what is whole, and with
    /// the last partition the file gets its name. True when there is a new
    /// snapshot.
    ///
    /// # Errors
    ///
    /// The purge of the log that follows was refused by the disk.
    pub fn capture(&mut self, lane: usize, bytes_max: usize) -> Result<bool, Stop> {
        let limits = self.fixed.partition_limits;
        let Some(mut image) = self.lanes[lane]
            .capture(bytes_max, || PartitionImage::new(&limits))
            .map_err(|e| Stop::Broken(format!("no memory for an image: {e}")))?
        else {
            return Ok(false);
        };
        match self.fixed.bug {
            Some(Bug::DedupeNotRestored) => {
                image.dedupe = DedupeImage::new(&limits.dedupe)
                    .map_err(|e| Stop::Broken(format!("no memory for an image: {e}")))?;
            }
            Some(Bug::SnapshotAhead) => image.epoch += 1,
            Some(Bug::SnapshotBehind) => image.epoch = image.epoch.saturating_sub(1),
            _ => {}
        }
        if !self.recording {
            // Given up: the rest of the lanes' images is for nothing.
            return Ok(false);
        }
        if self.recorder.add(&image).is_err() {
            self.recording = false;
            return Ok(false);
        }
        if !self.recorder.is_whole() {
            return Ok(false);
        }
        self.recording = false;
        let epoch = self.recorder.epoch().unwrap_or(0);
        let id = self.ids.get(&epoch).copied().unwrap_or_default();
        let last = Position { term: id.term, node: id.node, index: epoch };
        if self.recorder.finish(Anchor { last, membership: Vec::new() }).is_err() {
            return Ok(false);
        }
        self.purge()?;
        Ok(true)
    }

    /// Gives up the part of the log that no kept snapshot needs.
    fn purge(&mut self) -> Result<(), Stop> {
        let kept = self.recorder.kept();
        let upto = match self.fixed.bug {
            Some(Bug::PurgedTooFar) => self.lanes.iter().map(Lane::epoch).max().unwrap_or(0),
            // No other snapshot can be made of a log that takes no entry.
            _ if self.log_is_full => kept.last().copied().unwrap_or(0),
            _ if kept.len() < KEPT => return Ok(()),
            _ => kept[0],
        };
        let Some(id) = self.ids.get(&upto).copied() else { return Ok(()) };
        // Even if the disk refuses now, the record may be found later.
        self.purged = self.purged.max(upto);
        self.wal.purge(id).map_err(|error| Stop::Died(format!("purge: {error}")))?;
        self.ids.retain(|index, _| *index >= upto);
        self.log_is_full = false;
        Ok(())
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let waits = self.queue.is_empty() && self.mail.is_empty() && !self.recording;
        waits && self.lanes.iter().all(Lane::is_idle)
    }

    /// Every partition, of whatever lane.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.lanes.iter().flat_map(|lane| lane.partitions.values())
    }

    /// Last entry that was proposed.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.last
    }

    /// Log time as clients learn it, milliseconds.
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.clock.time_ns() / 1_000_000
    }
}
