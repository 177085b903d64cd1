//! openraft's state machine: it routes committed entries and remembers where it
//! is. State lives in the lanes, snapshots are made elsewhere; this only passes
//! them on.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use futures_util::Stream;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use tokio::sync::watch;

use super::store::Gauge;
use super::types::{
    RaftLogId, RaftTypes, StoredMembers, from_raft_entry, from_raft_id, to_raft_id,
};
use super::{Committed, Members};
use crate::log::LogId;

/// Entries between two looks of watchers while many are routed in one go; so
/// many buffers the log's cache may hold on to a moment longer.
const PUBLISH_ENTRIES: u64 = 16;

type RaftMeta = openraft::type_config::alias::SnapshotMetaOf<RaftTypes>;
type RaftSnapshot<F> = openraft::type_config::alias::SnapshotOf<RaftTypes, F>;

/// What a snapshot says of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Last entry it covers: the least of its partitions' epochs.
    pub last: Option<LogId>,
    /// Entry that brought the membership in effect at `last`.
    pub members_id: Option<LogId>,
    /// That membership; `None` before the first.
    pub members: Option<Members>,
}

impl SnapshotMeta {
    fn from_raft(meta: &RaftMeta) -> Self {
        let stored = &meta.last_membership;
        Self {
            last: meta.last_log_id.as_ref().map(from_raft_id),
            members_id: stored.log_id().as_ref().map(from_raft_id),
            members: stored.log_id().is_some().then(|| Members::from_raft(stored.membership())),
        }
    }

    fn to_raft(&self) -> io::Result<RaftMeta> {
        let members = match &self.members {
            Some(members) => members.to_raft().map_err(io::Error::other)?,
            None => openraft::Membership::default(),
        };
        Ok(RaftMeta {
            last_log_id: self.last.map(to_raft_id),
            last_membership: StoredMembers::new(self.members_id.map(to_raft_id), members),
        })
    }
}

/// The node's snapshots, as the log needs to know them. A cheap handle.
pub trait SnapshotSource: Clone + 'static {
    /// A handle of one snapshot's bytes, to be sent to a peer.
    type File: 'static;

    /// The newest complete and good snapshot. At start: the one that the
    /// lanes' state was loaded from.
    ///
    /// # Errors
    ///
    /// Ends the log.
    fn newest(&self) -> impl Future<Output = io::Result<Option<(SnapshotMeta, Self::File)>>>;

    /// openraft wants to know of a snapshot: after
    /// [`super::ReplicatedLog::snapshot_taken`], so [`Self::newest`] will do.
    /// `routed` is how far entries were routed.
    ///
    /// # Errors
    ///
    /// Ends the log; no snapshot is one.
    fn build(
        &self,
        routed: SnapshotMeta,
    ) -> impl Future<Output = io::Result<(SnapshotMeta, Self::File)>>;

    /// Replaces the node's whole state by a snapshot from the leader. Never
    /// called with one voter.
    ///
    /// # Errors
    ///
    /// Ends the log.
    fn install(&self, meta: SnapshotMeta, file: Self::File)
    -> impl Future<Output = io::Result<()>>;
}

/// What was routed so far, shared with [`super::RaftLog`].
#[derive(Debug)]
pub(super) struct Routed {
    last: Cell<Option<u64>>,
    /// `last`, as published: telling watchers costs more than routing.
    pub(super) index: watch::Sender<Option<u64>>,
    /// First id of each leader that has entries since the start.
    leaders: RefCell<Vec<LogId>>,
    /// Memberships since the start, the one at the start first.
    members: RefCell<Vec<(Option<LogId>, Option<Members>)>>,
}

impl Routed {
    pub(super) fn starting_at(meta: &SnapshotMeta) -> Rc<Self> {
        Rc::new(Self {
            last: Cell::new(meta.last.map(|id| id.index)),
            index: watch::Sender::new(meta.last.map(|id| id.index)),
            leaders: RefCell::new(meta.last.into_iter().collect()),
            members: RefCell::new(vec![(meta.members_id, meta.members.clone())]),
        })
    }

    fn start_over(&self, meta: &SnapshotMeta) {
        self.leaders.replace(meta.last.into_iter().collect());
        self.members.replace(vec![(meta.members_id, meta.members.clone())]);
        self.last.set(meta.last.map(|id| id.index));
        self.publish();
    }

    /// Whether an entry of this leader's was routed: then all before it were.
    pub(super) fn has_entry_of(&self, term: u64, node: u64) -> bool {
        self.leaders.borrow().last().is_some_and(|l| (l.term, l.node) == (term, node))
    }

    fn note(&self, id: LogId, members: Option<Members>) {
        let mut leaders = self.leaders.borrow_mut();
        if leaders.last().is_none_or(|l| (l.term, l.node) != (id.term, id.node)) {
            leaders.push(id);
        }
        if members.is_some() {
            self.members.borrow_mut().push((Some(id), members));
        }
        self.last.set(Some(id.index));
    }

    /// Index of the last entry that was routed.
    pub(super) fn last(&self) -> Option<u64> {
        self.last.get()
    }

    fn publish(&self) {
        self.index.send_replace(self.last.get());
    }

    /// What a snapshot that is exact at `index` says.
    pub(super) fn meta_at(&self, index: u64) -> Option<SnapshotMeta> {
        if self.last.get().is_none_or(|last| index > last) {
            return None;
        }
        let leaders = self.leaders.borrow();
        let leader = leaders.iter().rev().find(|l| l.index <= index)?;
        let members = self.members.borrow();
        let (members_id, members) =
            members.iter().rev().find(|(id, _)| id.is_none_or(|id| id.index <= index))?;
        Some(SnapshotMeta {
            last: Some(LogId { index, ..*leader }),
            members_id: *members_id,
            members: members.clone(),
        })
    }

    /// Forgets what no snapshot from `index` on can ask for.
    pub(super) fn forget_before(&self, index: u64) {
        fn cut<T>(list: &mut Vec<T>, index_of: impl Fn(&T) -> u64, index: u64) {
            let keep = list.iter().rposition(|e| index_of(e) <= index).unwrap_or(0);
            list.drain(..keep);
        }
        cut(&mut self.leaders.borrow_mut(), |id| id.index, index);
        cut(&mut self.members.borrow_mut(), |(id, _)| id.map_or(0, |id| id.index), index);
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Machine<K, S> {
    committed: K,
    snapshots: S,
    applied: Option<RaftLogId>,
    members: StoredMembers,
    routed: Rc<Routed>,
    gauge: Option<Gauge>,
}

impl<K: Committed, S: SnapshotSource> Machine<K, S> {
    /// A machine whose state is that of the newest snapshot.
    ///
    /// # Errors
    ///
    /// The snapshot, or its membership, cannot be read.
    pub async fn open(committed: K, snapshots: S) -> io::Result<Self> {
        let meta = snapshots.newest().await?.map(|(meta, _)| meta).unwrap_or_default();
        let RaftMeta { last_log_id, last_membership } = meta.to_raft()?;
        let routed = Routed::starting_at(&meta);
        Ok(Self {
            committed,
            snapshots,
            applied: last_log_id,
            members: last_membership,
            routed,
            gauge: None,
        })
    }

    pub(super) fn routed(&self) -> Rc<Routed> {
        Rc::clone(&self.routed)
    }

    /// Tells the log's cache of what was routed.
    pub(super) fn forget_in(&mut self, gauge: Gauge) {
        self.gauge = Some(gauge);
    }

    fn publish(&self) {
        self.routed.publish();
        if let (Some(gauge), Some(index)) = (&self.gauge, self.routed.last()) {
            gauge.routed(index);
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta::from_raft(&RaftMeta {
            last_log_id: self.applied,
            last_membership: self.members.clone(),
        })
    }
}

impl<K: Committed, S: SnapshotSource> RaftStateMachine<RaftTypes> for Machine<K, S> {
    type SnapshotData = S::File;
    type SnapshotBuilder = Builder<S>;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembers)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<E>(&mut self, mut entries: E) -> io::Result<()>
    where
        E: Stream<Item = io::Result<EntryResponder<RaftTypes>>> + Unpin,
    {
        while let Some(next) = poll_fn(|cx| Pin::new(&mut entries).poll_next(cx)).await {
            let (entry, responder) = next?;
            let raft_id = entry.log_id;
            let mut members = None;
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.members = StoredMembers::new(Some(raft_id), membership.clone());
                members = Some(Members::from_raft(membership));
            }
            let id = from_raft_id(&raft_id);
            self.committed.committed(from_raft_entry(entry)).await;
            self.applied = Some(raft_id);
            self.routed.note(id, members);
            if id.index.is_multiple_of(PUBLISH_ENTRIES) {
                self.publish();
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        self.publish();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<S> {
        Builder { snapshots: self.snapshots.clone(), routed: self.meta() }
    }

    async fn install_snapshot(&mut self, meta: &RaftMeta, file: S::File) -> io::Result<()> {
        let ours = SnapshotMeta::from_raft(meta);
        self.snapshots.install(ours.clone(), file).await?;
        self.applied = meta.last_log_id;
        self.members = meta.last_membership.clone();
        self.routed.start_over(&ours);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot<S::File>>> {
        let Some((meta, snapshot)) = self.snapshots.newest().await? else { return Ok(None) };
        Ok(Some(RaftSnapshot { meta: meta.to_raft()?, snapshot }))
    }
}

/// Tells openraft of the newest snapshot.
#[derive(Debug)]
pub struct Builder<S> {
    snapshots: S,
    routed: SnapshotMeta,
}

impl<S: SnapshotSource> RaftSnapshotBuilder<RaftTypes> for Builder<S> {
    type SnapshotData = S::File;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot<S::File>> {
        let (meta, snapshot) = self.snapshots.build(self.routed.clone()).await?;
        Ok(RaftSnapshot { meta: meta.to_raft()?, snapshot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, node: 1, index }
    }

    #[test]
    fn a_snapshot_is_told_the_leader_and_members_of_its_epoch() {
        let start = SnapshotMeta {
            last: Some(id(2, 10)),
            members_id: Some(id(1, 0)),
            members: Some(Members::single(1)),
        };
        let routed = Routed::starting_at(&start);
        assert_eq!(routed.meta_at(10), Some(start.clone()));
        assert_eq!(routed.meta_at(11), None, "not routed yet");
        assert_eq!(routed.meta_at(9), None, "before the start");
        routed.note(id(2, 11), None);
        routed.note(id(3, 12), None);
        routed.note(id(3, 13), Some(Members::single(2)));
        routed.note(id(3, 14), None);
        assert_eq!(routed.meta_at(11).unwrap().last, Some(id(2, 11)));
        let before = routed.meta_at(12).unwrap();
        assert_eq!((before.last, before.members_id), (Some(id(3, 12)), Some(id(1, 0))));
        let after = routed.meta_at(14).unwrap();
        assert_eq!((after.last, after.members_id), (Some(id(3, 14)), Some(id(3, 13))));
        assert_eq!(after.members, Some(Members::single(2)));
        routed.forget_before(13);
        assert_eq!(routed.meta_at(14), Some(after));
        assert_eq!(routed.meta_at(11), None);
        routed.publish();
        assert_eq!((*routed.index.borrow(), routed.last()), (Some(14), Some(14)));
    }

    #[test]
    fn nothing_is_known_before_the_first_entry() {
        let routed = Routed::starting_at(&SnapshotMeta::default());
        assert_eq!(routed.meta_at(0), None);
        routed.note(id(0, 0), Some(Members::single(1)));
        let meta = routed.meta_at(0).unwrap();
        assert_eq!((meta.last, meta.members_id), (Some(id(0, 0)), Some(id(0, 0))));
    }
}
