//! What surrounds the node: clients, network, clocks, disks, and the hand that
//! pulls the plug.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use veltrix::dedupe::Secret;
use veltrix::log::simdisk::Flush;
use veltrix::log::wal::WalOptions;
use veltrix::replicate::clock::Now;
use veltrix::snapshot::Identity;

use super::clients::{Datagram, Fleet};
use super::files::SimDir;
use super::logdisk::{LogDisk, Place};
use super::node::{Fixed, Node, Stop};
use super::oracle::{Oracle, Violation};
use super::recovery::{self, Life, Start};
use super::rng::Rng;
use super::{Bug, Failure, compare};
use crate::model::Limits;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Where the wall clock stands at the beginning, nanoseconds since the Unix epoch.
const WALL_NS: u64 = 1_750_000_000 * SECOND;

/// Datagrams on their way at the most.
const NETWORK_MAX: usize = 40;

/// Lines of the story that are kept for a failure.
const STORY_LINES: usize = 25;

/// What a run went through. A run that met nothing has proven nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries applied.
    pub entries: u64,
    /// Events acknowledged.
    pub events: u64,
    /// Of these, duplicates.
    pub duplicates: u64,
    /// Times the node died.
    pub crashes: u64,
    /// Of these, while it was starting.
    pub crashes_in_recovery: u64,
    /// Starts that began with a snapshot.
    pub restored: u64,
    /// Snapshots that were refused as damaged.
    pub snapshots_refused: u64,
    /// Starts that the log refused as rotten.
    pub fenced: u64,
    /// Snapshots completed.
    pub snapshots: u64,
    /// Partitions moved between lanes.
    pub moves: u64,
    /// Times the log was full.
    pub log_full: u64,
    /// Jumps of the wall clock.
    pub jumps: u64,
}

impl Summary {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.events += other.events;
        self.duplicates += other.duplicates;
        self.crashes += other.crashes;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.restored += other.restored;
        self.snapshots_refused += other.snapshots_refused;
        self.fenced += other.fenced;
        self.snapshots += other.snapshots;
        self.moves += other.moves;
        self.log_full += other.log_full;
        self.jumps += other.jumps;
    }
}

/// Rounds in which a node without troubles must come to rest.
const DRAIN_ROUNDS: u32 = 2_000;

/// What rotted while the node was down.
#[derive(Debug)]
enum Damage {
    Snapshot(String),
    Log(Place),
}

/// See the module.
pub struct World {
    seed: u64,
    rng: Rng,
    fixed: Fixed,
    oracle: Oracle,
    fleet: Fleet,
    disk: LogDisk,
    folder: SimDir,
    node: Option<Node>,
    lives: u64,
    /// Snapshots that have rotted.
    rotten: BTreeSet<String>,
    /// Last entry that the log may have given up.
    purged: u64,
    /// Whether things still go wrong.
    trouble: bool,
    network: VecDeque<Datagram>,
    clock: Now,
    steps: u64,
    step: u64,
    summary: Summary,
    story: VecDeque<String>,
}

impl World {
    /// The world of a seed, before its first step.
    ///
    /// # Errors
    ///
    /// What the log says of the sizes that the seed chose.
    pub fn new(seed: u64, bug: Option<Bug>) -> Result<Self, String> {
        let mut rng = Rng::new(seed);
        let tight = rng.percent(30);
        let limits = Limits {
            partitions: rng.between(1, 6) as u16,
            cells_max: if tight { rng.between(3, 12) as usize } else { 200 },
            players_max: if tight { rng.between(3, 12) as usize } else { 200 },
            hunts_max: if tight { rng.between(1, 3) as usize } else { 50 },
            definitions_max: if tight { rng.between(1, 8) as usize } else { 200 },
            deeds_max: if tight { rng.between(1, 12) as usize } else { 400 },
            keys_max: if rng.percent(30) { rng.between(20, 200) as usize } else { 20_000 },
            window_ms: rng.between(2_000, 60_000),
        };
        let secret = std::array::from_fn(|_| rng.any() as u8);
        let partition_limits = compare::partition_limits(&limits);
        let fixed = Fixed {
            limits,
            partition_limits,
            secret: Arc::new(Secret::new(secret)),
            identity: Identity {
                cluster_id: seed,
                node: 1,
                partitions: limits.partitions,
                secret_digest: 1,
                limits: recovery::snapshot_limits(&partition_limits),
            },
            lanes: rng.between(1, 3) as usize,
            wal: WalOptions {
                segment_bytes: rng.between(8, 24) * 8_192,
                segments_max: rng.between(4, 7) as u32,
                log_key: rng.any(),
                salt: 0,
            },
            bug,
        };
        let domains = rng.between(1, 8);
        let fleet = Fleet::new(rng.fork(), domains);
        let flush = match bug {
            Some(Bug::FlushDropped) => Flush::Never,
            Some(Bug::FlushDelayed) => Flush::Late(1),
            _ => Flush::Honest,
        };
        let disk = LogDisk::new(rng.fork(), &fixed.wal, flush)?;
        let folder = SimDir::new(rng.fork());
        let steps = rng.between(300, 1_500);
        Ok(Self {
            seed,
            rng,
            fixed,
            oracle: Oracle::new(limits),
            fleet,
            disk,
            folder,
            node: None,
            lives: 0,
            rotten: BTreeSet::new(),
            purged: 0,
            trouble: true,
            network: VecDeque::new(),
            clock: Now { wall_ns: WALL_NS, monotonic_ns: SECOND },
            steps,
            step: 0,
            summary: Summary::default(),
            story: VecDeque::new(),
        })
    }

    /// Runs to the end of the seed's steps, and checks what is left.
    ///
    /// # Errors
    ///
    /// The promise that was broken.
    pub fn run(mut self) -> Result<Summary, Failure> {
        match self.all_steps() {
            Ok(()) => {
                self.summary.entries = self.oracle.epoch();
                self.summary.events = self.oracle.events_acked;
                self.summary.duplicates = self.oracle.duplicates_acked;
                Ok(self.summary)
            }
            Err(what) => Err(Failure {
                seed: self.seed,
                step: self.step,
                what,
                story: self.story.into_iter().collect(),
            }),
        }
    }

    fn all_steps(&mut self) -> Result<(), Violation> {
        self.start()?;
        while self.step < self.steps {
            self.step += 1;
            self.pass_time();
            let stopped = self.one_step();
            self.after(stopped)?;
        }
        self.finish()
    }

    /// Notes what happened, for the story of a failure.
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.story.len() == STORY_LINES {
            self.story.pop_front();
        }
        self.story.push_back(format!("step {}: {}", self.step, what()));
    }

    fn pass_time(&mut self) {
        let passed = self.rng.below(4 * MS);
        self.clock.monotonic_ns += passed;
        self.clock.wall_ns += passed;
        if self.rng.permille(4) {
            let by = self.rng.between(MS, 3_600 * SECOND);
            let ahead = self.rng.percent(50);
            let wall_ns = &mut self.clock.wall_ns;
            *wall_ns = if ahead { *wall_ns + by } else { wall_ns.saturating_sub(by) };
            self.summary.jumps += 1;
            self.tell(|| format!("the wall clock jumps by {by} ns, ahead: {ahead}"));
        }
    }

    /// The end of a life, if it was one.
    fn after(&mut self, stopped: Result<(), Stop>) -> Result<(), Violation> {
        match stopped {
            Ok(()) => Ok(()),
            Err(Stop::Broken(what)) => Err(what),
            Err(Stop::Died(why)) => {
                self.tell(|| format!("the process ends: {why}"));
                self.crash()
            }
        }
    }

    fn one_step(&mut self) -> Result<(), Stop> {
        let lane = self.rng.index(self.fixed.lanes);
        let what = self.rng.below(1_000);
        let Some(node) = &mut self.node else { return Ok(()) };
        match what {
            0..160 => {
                if self.network.len() < NETWORK_MAX {
                    self.network.push_back(self.fleet.send(node.log_time_ms()));
                }
            }
            160..350 => self.deliver(lane),
            350..430 => node.seal(lane),
            430..540 => node.propose(lane, self.clock, &mut self.oracle)?,
            540..650 => {
                let was_full = node.log_is_full;
                node.write(self.rng.between(1, 5) as usize, &mut self.oracle)?;
                self.summary.log_full += u64::from(node.log_is_full && !was_full);
            }
            650..820 => node.turn(lane, &mut self.oracle)?,
            820..875 => {
                for ack in node.acknowledge(lane, &mut self.oracle)? {
                    // Some are lost on their way.
                    if self.rng.percent(85) {
                        self.fleet.hear(&ack.datagram);
                    }
                }
            }
            875..885 => {
                let partition = self.rng.below(self.fixed.limits.partitions.into()) as u16;
                self.summary.moves += u64::from(node.relocate(partition, lane));
            }
            885..896 => {
                if self.rng.percent(20) {
                    self.folder.fail_in(Some(self.rng.below(12)));
                }
                if node.snapshot_begin(self.rng.any()) {
                    let epoch = node.last();
                    self.tell(|| format!("a snapshot begins, proposed is {epoch}"));
                }
            }
            896..990 => self.capture(lane)?,
            990..994 => node.tick(self.clock, &mut self.oracle)?,
            994..997 => {
                self.disk.fail_in(self.rng.below(6));
            }
            _ => return Err(Stop::Died("killed".into())),
        }
        Ok(())
    }

    fn deliver(&mut self, lane: usize) {
        let Some(node) = &mut self.node else { return };
        if self.network.is_empty() {
            return;
        }
        // The network keeps no order, loses some and repeats some.
        let index = self.rng.index(self.network.len());
        let fate = self.rng.below(100);
        let datagram =
            if fate < 8 { self.network.get(index).cloned() } else { self.network.remove(index) };
        if let Some(datagram) = datagram.filter(|_| fate < 95) {
            node.receive(lane, &datagram);
        }
    }

    fn capture(&mut self, lane: usize) -> Result<(), Stop> {
        let Some(node) = &mut self.node else { return Ok(()) };
        let bytes_max = if self.rng.percent(50) { 4_096 } else { 1 << 20 };
        if node.capture(lane, bytes_max)? {
            self.summary.snapshots += 1;
            self.tell(|| "a snapshot is complete".into());
        }
        if self.node.as_ref().is_some_and(|node| !node.recording) {
            // Whatever was wrong with the disk is over.
            self.folder.fail_in(None);
        }
        Ok(())
    }

    /// Power or process goes; what was not durable may go with it.
    fn crash(&mut self) -> Result<(), Violation> {
        if let Some(node) = self.node.take() {
            self.purged = self.purged.max(node.purged);
        }
        self.summary.crashes += 1;
        self.disk.crash();
        self.folder.crash();
        self.start()
    }

    /// Starts the node, as often as it takes.
    fn start(&mut self) -> Result<(), Violation> {
        let mut damage = if self.trouble { self.damage() } else { None };
        loop {
            self.lives += 1;
            if self.trouble && self.lives > 1 && self.rng.percent(15) {
                self.disk.fail_in(self.rng.below(40));
            }
            let life = Life { number: self.lives, salt: self.rng.any(), now: self.clock };
            match recovery::start(&self.fixed, &self.disk, &self.folder, life, &mut self.oracle) {
                Ok(Start::Lives { node, restored, refused }) => {
                    if let Some(Damage::Snapshot(name)) = &damage
                        && !refused.contains(name)
                    {
                        return Err(format!("{name} has rotted, and was not refused"));
                    }
                    self.summary.restored += u64::from(restored.is_some());
                    self.summary.snapshots_refused += refused.len() as u64;
                    let last = node.last();
                    self.tell(|| format!("started from {restored:?}, the log ends at {last}"));
                    self.node = Some(*node);
                    return Ok(());
                }
                Ok(Start::Fenced(why)) => {
                    let Some(Damage::Log(place)) = damage.take() else {
                        return Err(format!("a sound log was refused: {why}"));
                    };
                    self.summary.fenced += 1;
                    self.tell(|| format!("fenced: {why}"));
                    // Somebody put the bit right.
                    self.disk.flip(&place);
                }
                Err(Stop::Broken(what)) => return Err(what),
                Err(Stop::Died(why)) => {
                    self.summary.crashes_in_recovery += 1;
                    self.tell(|| format!("died while starting: {why}"));
                    self.disk.crash();
                    self.folder.crash();
                }
            }
        }
    }

    /// Sometimes a disk rots while the node is down. Never so much that what is
    /// left is not enough: that would be no fault of the node.
    fn damage(&mut self) -> Option<Damage> {
        if self.summary.crashes == 0 {
            return None;
        }
        match self.rng.below(100) {
            0..12 => {
                let epochs = self.folder.snapshots();
                let sound = |name: &String| !self.rotten.contains(name);
                let mut newest = epochs.iter().rev().filter(|(_, name)| sound(name));
                let (_, name) = newest.next()?.clone();
                let next = newest.next().map_or(0, |(epoch, _)| *epoch);
                if next < self.purged {
                    return None;
                }
                self.folder.rot(&name, self.rng.any());
                self.tell(|| format!("{name} rots"));
                self.rotten.insert(name.clone());
                Some(Damage::Snapshot(name))
            }
            12..30 => {
                let place = self.disk.somewhere(&mut self.rng)?;
                self.disk.flip(&place);
                self.tell(|| format!("the log rots at {place:?}"));
                Some(Damage::Log(place))
            }
            _ => None,
        }
    }

    /// Lets the node come to rest, and starts it twice more on what it left.
    fn finish(&mut self) -> Result<(), Violation> {
        self.trouble = false;
        self.disk.heal();
        self.folder.fail_in(None);
        for round in 0.. {
            let rests = self.drain();
            match rests {
                Ok(true) => break,
                Ok(false) if round == DRAIN_ROUNDS => {
                    return Err("the node never comes to rest".into());
                }
                Ok(false) => {}
                Err(stopped) => self.after(Err(stopped))?,
            }
        }
        let mut digests = Vec::new();
        for _ in 0..3 {
            let Some(node) = &self.node else { return Err("no node is left".into()) };
            let mut now: Vec<_> = node.partitions().map(|p| (p.number(), p.digest())).collect();
            now.sort_unstable_by_key(|(number, _)| *number);
            digests.push(now);
            self.crash()?;
        }
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err("starting again on the same disk came to other digests".into());
        }
        Ok(())
    }

    /// One round of everything; true when nothing is left to be done.
    fn drain(&mut self) -> Result<bool, Stop> {
        let Some(node) = &mut self.node else { return Ok(false) };
        for lane in 0..self.fixed.lanes {
            node.seal(lane);
            node.propose(lane, self.clock, &mut self.oracle)?;
            node.write(usize::MAX, &mut self.oracle)?;
        }
        if node.log_is_full && !node.recording {
            node.snapshot_begin(self.rng.any());
        }
        for lane in (0..self.fixed.lanes).cycle().take(4 * self.fixed.lanes) {
            node.turn(lane, &mut self.oracle)?;
            self.summary.snapshots += u64::from(node.capture(lane, 1 << 20)?);
            node.acknowledge(lane, &mut self.oracle)?;
        }
        if !node.is_idle() {
            return Ok(false);
        }
        self.oracle.at_rest(node.last().index, node.partitions())?;
        Ok(true)
    }
}
