//! The log on openraft: start, propose, status, stop.
//!
//! Three small tasks stand beside openraft's own: one takes what was proposed
//! since it last ran and hands it over in one message; one watches what became
//! of it, and marks batches lost that will not commit; one follows the role,
//! starts the clock on election and reports the end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::base::BoxStream;
use openraft::errors::Fatal;
use openraft::impls::BasicNode;
use openraft::raft::WriteResult;
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use tokio::sync::{Notify, mpsc, watch};

use super::machine::{Machine, Routed};
use super::network::Peers;
use super::store::Store;
use super::types::RaftTypes;
use super::{
    Committed, Jump, LogClock, LogStatus, Members, Now, Proposal, Refused, ReplicatedLog, Role,
    SnapshotMeta, SnapshotSource,
};
use crate::batch::Payload;
use crate::batch::pool::Stamp;
use crate::log::Body;
use crate::log::disk::BLOCK_BYTES;

/// Intervals of the protocol, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between a leader's signs of life. 40: three fit into the shortest
    /// election timeout.
    pub heartbeat_ms: u64,
    /// Shortest silence after which a follower asks for votes. openraft waits
    /// for the lease besides.
    pub election_ms_min: u64,
    /// Longest such silence; each node draws between the two.
    pub election_ms_max: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 40, election_ms_min: 150, election_ms_max: 250 }
    }
}

/// Why a log did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The intervals do not fit each other.
    #[error(
        "heartbeat {} ms, election {}..{} ms: {why}; an election wants at least \
         three heartbeats, and the longest must be longer than the shortest",
        timing.heartbeat_ms, timing.election_ms_min, timing.election_ms_max
    )]
    Timing {
        /// What was asked for.
        timing: Timing,
        /// What is wrong with it.
        why: String,
    },
    /// The newest snapshot cannot be asked for.
    #[error("reading the newest snapshot's place in the log: {0}")]
    Snapshot(#[source] io::Error),
    /// The log or the snapshot do not fit each other, or cannot be read.
    #[error("starting from the log on disk: {0}; see `veltrix inspect log --data DIR`")]
    Log(String),
}

/// What a log is started with.
pub struct Start<K, S> {
    /// This node.
    pub node: u64,
    /// Name of the cluster, for openraft's own log lines.
    pub cluster: String,
    /// The cluster to be founded when the log is empty; `None` waits to be
    /// taken into one.
    pub found: Option<Members>,
    /// Intervals.
    pub timing: Timing,
    /// The WAL.
    pub store: Store,
    /// The router.
    pub committed: K,
    /// The node's snapshots.
    pub snapshots: S,
    /// Called when the wall clock jumped.
    pub on_jump: Box<dyn Fn(Jump)>,
    /// Called once when the log ends by an error: the process must end.
    pub on_fatal: Box<dyn FnOnce(String)>,
}

type Outcomes = BoxStream<'static, Result<WriteResult<RaftTypes>, Fatal<RaftTypes>>>;

struct Shared {
    node: u64,
    queue: RefCell<Vec<Proposal>>,
    wake: Notify,
    clock: RefCell<LogClock>,
    on_jump: Box<dyn Fn(Jump)>,
    role: watch::Sender<Role>,
    in_flight: Cell<u64>,
    in_flight_bytes: Cell<u64>,
    lost: Cell<u64>,
    routed: Rc<Routed>,
    store: super::store::Gauge,
}

/// See [`ReplicatedLog`].
pub struct RaftLog<K: Committed, S: SnapshotSource> {
    raft: Raft<RaftTypes, Machine<K, S>>,
    shared: Rc<Shared>,
}

impl<K: Committed, S: SnapshotSource> RaftLog<K, S> {
    /// Starts the log. Must be awaited inside a `LocalSet`, where its tasks
    /// then live. Entries behind the snapshot that are known to be committed
    /// are routed before it returns, the rest once this node leads or is told
    /// by a leader: see [`ReplicatedLog::ready`].
    ///
    /// # Errors
    ///
    /// Settings or what is on disk do not fit.
    pub async fn start(start: Start<K, S>) -> Result<Self, StartError> {
        let Start { node, cluster, found, timing, store, committed, snapshots, .. } = start;
        let config = config(&cluster, timing)?;
        let mut machine =
            Machine::open(committed, snapshots).await.map_err(StartError::Snapshot)?;
        let gauge = store.gauge();
        machine.forget_in(gauge.clone());
        let shared = Rc::new(Shared {
            node,
            queue: RefCell::default(),
            wake: Notify::new(),
            clock: RefCell::new(LogClock::new()),
            on_jump: start.on_jump,
            role: watch::Sender::new(Role::Follower),
            in_flight: Cell::new(0),
            in_flight_bytes: Cell::new(0),
            lost: Cell::new(0),
            routed: machine.routed(),
            store: gauge,
        });
        let raft = Raft::new(node, config, Peers::default(), store, machine)
            .await
            .map_err(|e| StartError::Log(e.to_string()))?;
        let (outcomes_tx, outcomes_rx) = mpsc::unbounded_channel();
        tokio::task::spawn_local(hand_over(raft.clone(), Rc::clone(&shared), outcomes_tx));
        tokio::task::spawn_local(watch_outcomes(Rc::clone(&shared), outcomes_rx));
        tokio::task::spawn_local(follow_role(raft.clone(), Rc::clone(&shared), start.on_fatal));
        let log = Self { raft, shared };
        log.found(found).await?;
        Ok(log)
    }

    /// Founds a new cluster; otherwise a sole voter need not wait for a tick.
    async fn found(&self, found: Option<Members>) -> Result<(), StartError> {
        let failed = |e: &dyn std::fmt::Display| StartError::Log(e.to_string());
        let begun = self.raft.is_initialized().await.map_err(|e| failed(&e))?;
        match found {
            Some(members) if !begun => {
                let nodes: BTreeMap<u64, BasicNode> =
                    members.nodes.iter().map(|(id, addr)| (*id, BasicNode::new(addr))).collect();
                self.raft.initialize(nodes).await.map_err(|e| failed(&e))
            }
            _ => {
                let node = self.shared.node;
                let alone = self
                    .raft
                    .with_raft_state(move |state| {
                        state.membership_state.effective().voter_ids().eq([node])
                    })
                    .await
                    .map_err(|e| failed(&e))?;
                if alone {
                    self.raft.trigger().elect(false).await.map_err(|e| failed(&e))?;
                }
                Ok(())
            }
        }
    }
}

pub(super) fn config(cluster: &str, timing: Timing) -> Result<Arc<Config>, StartError> {
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_ms_min,
        election_timeout_max: timing.election_ms_max,
        // Snapshots are made and the log is purged when we say so.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A restarted leader is elected anew: each life has a term of its own,
        // and its blank entry commits what the log holds.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    let refused = |why: String| StartError::Timing { timing, why };
    if timing.election_ms_min < 3 * timing.heartbeat_ms || timing.heartbeat_ms == 0 {
        return Err(refused("heartbeats do not fit".to_owned()));
    }
    config.validate().map(Arc::new).map_err(|e| refused(e.to_string()))
}

impl Shared {
    fn set_role(&self, role: Role) {
        self.role.send_if_modified(|before| std::mem::replace(before, role) != role);
    }

    fn lose(&self, body: &Body) {
        self.lost.set(self.lost.get() + 1);
        if let Body::Batch(payload) = body {
            lose(Some(payload));
        }
    }

    fn look(&self) {
        let jump = self.clock.borrow_mut().look(Now::read());
        if let Some(jump) = jump {
            (self.on_jump)(jump);
        }
    }

    fn propose(&self, body: Body) -> Result<(), Refused> {
        let bytes = room_for(&body);
        let refused = match *self.role.borrow() {
            Role::Leader if self.store.room_bytes() < self.in_flight_bytes.get() + bytes => {
                Some(Refused::Full { bytes })
            }
            Role::Leader => None,
            Role::Stopped => Some(Refused::Stopped),
            _ => Some(Refused::NotLeader),
        };
        if let Some(refused) = refused {
            self.lose(&body);
            return Err(refused);
        }
        self.look();
        let log_time_ns = self.clock.borrow_mut().stamp();
        if let Body::Batch(payload) = &body
            && let Some(slots) = payload.slots()
        {
            slots.stamp(Stamp::Submitted, crate::base::clock::monotonic_ns());
        }
        self.in_flight.set(self.in_flight.get() + 1);
        self.in_flight_bytes.set(self.in_flight_bytes.get() + bytes);
        self.queue.borrow_mut().push(Proposal { log_time_ns, body });
        self.wake.notify_one();
        Ok(())
    }
}

/// Bytes that a body may take in the log: in the worst case a record of its own
/// that just misses a block.
fn room_for(body: &Body) -> u64 {
    (body.as_slice().len() as u64).saturating_add(2 * BLOCK_BYTES as u64)
}

fn lose(payload: Option<&Payload>) {
    if let Some(slots) = payload.and_then(Payload::slots) {
        slots.lost();
    }
}

/// A proposal that openraft has, and will answer for.
struct Pending {
    /// A batch is held until it was routed; owners hold it after that.
    batch: Option<Payload>,
    bytes: u64,
}

impl Shared {
    fn settle(&self, pending: Pending, routed: bool) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.in_flight_bytes.set(self.in_flight_bytes.get() - pending.bytes);
        if !routed {
            self.lost.set(self.lost.get() + 1);
            lose(pending.batch.as_ref());
        }
    }
}

/// Takes all that was proposed since it last ran, in one message to openraft.
/// Waits only for room in openraft's queue, never for a flush.
async fn hand_over<K: Committed, S: SnapshotSource>(
    raft: Raft<RaftTypes, Machine<K, S>>,
    shared: Rc<Shared>,
    outcomes: mpsc::UnboundedSender<(VecDeque<Pending>, Outcomes)>,
) {
    loop {
        shared.wake.notified().await;
        let proposals = std::mem::take(&mut *shared.queue.borrow_mut());
        if proposals.is_empty() {
            continue;
        }
        let pending: VecDeque<Pending> = proposals
            .iter()
            .map(|proposal| Pending {
                bytes: room_for(&proposal.body),
                batch: match &proposal.body {
                    Body::Batch(payload) if payload.slots().is_some() => Some(payload.clone()),
                    _ => None,
                },
            })
            .collect();
        match raft.client_write_many(proposals).await {
            Ok(stream) => {
                // The other end lives as long as this task's runtime.
                let _ = outcomes.send((pending, stream));
            }
            Err(_fatal) => {
                shared.set_role(Role::Stopped);
                pending.into_iter().for_each(|p| shared.settle(p, false));
            }
        }
    }
}

/// Learns what became of each proposal, in order.
async fn watch_outcomes(
    shared: Rc<Shared>,
    mut outcomes: mpsc::UnboundedReceiver<(VecDeque<Pending>, Outcomes)>,
) {
    while let Some((mut pending, mut stream)) = outcomes.recv().await {
        while let Some(next) = pending.pop_front() {
            let outcome = poll_fn(|cx| stream.as_mut().poll_next(cx)).await;
            // Whatever the error: it did not commit, or nobody will know here.
            shared.settle(next, matches!(outcome, Some(Ok(Ok(_)))));
        }
    }
}

/// Follows what this node is, until openraft ends.
async fn follow_role<K: Committed, S: SnapshotSource>(
    raft: Raft<RaftTypes, Machine<K, S>>,
    shared: Rc<Shared>,
    on_fatal: Box<dyn FnOnce(String)>,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let state = metrics.borrow_and_update().state;
        let role = match state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        if role == Role::Leader && *shared.role.borrow() != Role::Leader {
            let stamped_ns = shared.store.log_time_ns();
            let jump = shared.clock.borrow_mut().elected(Now::read(), stamped_ns);
            if let Some(jump) = jump {
                (shared.on_jump)(jump);
            }
        }
        shared.set_role(role);
        if metrics.changed().await.is_err() {
            break;
        }
    }
    shared.set_role(Role::Stopped);
    let ended = raft.metrics().borrow_watched().running_state.clone();
    match ended {
        Ok(()) | Err(Fatal::Stopped) => {}
        Err(fatal) => on_fatal(fatal.to_string()),
    }
}

impl<K: Committed, S: SnapshotSource> ReplicatedLog for RaftLog<K, S> {
    fn propose(&self, body: Body) -> Result<(), Refused> {
        self.shared.propose(body)
    }

    fn log_time_ns(&self) -> u64 {
        self.shared.look();
        self.shared.clock.borrow().time_ns()
    }

    fn role(&self) -> Role {
        *self.shared.role.borrow()
    }

    fn role_watch(&self) -> watch::Receiver<Role> {
        self.shared.role.subscribe()
    }

    fn routed_watch(&self) -> watch::Receiver<Option<u64>> {
        self.shared.routed.index.subscribe()
    }

    fn status(&self) -> LogStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        LogStatus {
            role: self.role(),
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: metrics.membership_config.voter_ids().collect(),
            last_index: metrics.last_log_index,
            committed_index: metrics.local_committed.as_ref().map(|id| id.index),
            routed_index: self.shared.routed.last(),
            snapshot_index: metrics.snapshot.as_ref().map(|id| id.index),
            purged_index: metrics.purged.as_ref().map(|id| id.index),
            in_flight: self.shared.in_flight.get(),
            lost: self.shared.lost.get(),
        }
    }

    async fn ready(&self) -> Result<(), Refused> {
        let mut role = self.role_watch();
        let mut routed = self.routed_watch();
        loop {
            let is = *role.borrow_and_update();
            routed.borrow_and_update();
            let term = self.raft.metrics().borrow_watched().current_term;
            match is {
                Role::Stopped => return Err(Refused::Stopped),
                Role::Leader if self.shared.routed.has_entry_of(term, self.shared.node) => {
                    return Ok(());
                }
                _ => {}
            }
            tokio::select! {
                changed = role.changed() => changed.map_err(|_| Refused::Stopped)?,
                changed = routed.changed() => changed.map_err(|_| Refused::Stopped)?,
            }
        }
    }

    fn meta_at(&self, index: u64) -> Option<SnapshotMeta> {
        self.shared.routed.meta_at(index)
    }

    async fn snapshot_taken(&self, purge_upto: Option<u64>) -> Result<(), Refused> {
        let stopped = |_| Refused::Stopped;
        self.raft.trigger().snapshot().await.map_err(stopped)?;
        if let Some(upto) = purge_upto {
            self.raft.trigger().purge_log(upto).await.map_err(stopped)?;
            self.shared.routed.forget_before(upto);
        }
        Ok(())
    }

    async fn step_down(&self) -> Result<(), Refused> {
        let target = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let has = |id: &u64| metrics.replication.as_ref().and_then(|r| r.get(id).cloned());
            metrics
                .membership_config
                .voter_ids()
                .filter(|id| *id != self.shared.node)
                .max_by_key(|id| has(id).flatten().map(|log| log.index))
        };
        match target {
            Some(to) => self.raft.trigger().transfer_leader(to).await.map_err(|_| Refused::Stopped),
            None => Ok(()),
        }
    }

    async fn stop(&self) {
        // The error would be that openraft's task panicked: it is over either way.
        let _ = self.raft.shutdown().await;
        self.shared.set_role(Role::Stopped);
        let queued = std::mem::take(&mut *self.shared.queue.borrow_mut());
        queued.iter().for_each(|p| self.shared.lose(&p.body));
    }
}
