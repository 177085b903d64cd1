//! Where a snapshot stands in the log: asked for by the snapshot thread, kept in
//! its file, told to the log.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::base::waker::Waker;
use crate::log::LogId;
use crate::replicate::{Members, SnapshotMeta, SnapshotSource};
use crate::snapshot::{Anchor, Done, FindAnchor, Manifest, OnDone, Position};

/// Asked by the snapshot thread: the entry at an epoch.
pub(in crate::run::state) type AnchorRequests = mpsc::Receiver<(u64, mpsc::Sender<Option<Anchor>>)>;

/// Told by the snapshot thread when a round has ended.
pub(in crate::run::state) type RoundsDone = mpsc::Receiver<()>;

/// How long the snapshot thread waits for the control core.
const ANCHOR_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn anchors(control: &Arc<Waker>) -> (FindAnchor, AnchorRequests) {
    let (ask, requests) = mpsc::channel();
    let control = Arc::clone(control);
    let find = move |epoch: u64| {
        let (tell, answer) = mpsc::channel();
        let gone = || io::Error::other("the control core does not answer");
        ask.send((epoch, tell)).map_err(|_| gone())?;
        control.wake();
        let answer: Option<Anchor> = answer.recv_timeout(ANCHOR_TIMEOUT).map_err(|_| gone())?;
        answer.ok_or_else(|| io::Error::other(format!("epoch {epoch} is not known to the log")))
    };
    (Box::new(find), requests)
}

pub(super) fn rounds(control: &Arc<Waker>) -> (OnDone, RoundsDone) {
    let (tell, done) = mpsc::channel();
    let control = Arc::clone(control);
    let on_done = move |_: &Done| {
        // Nobody listens any more when the server ends.
        let _ = tell.send(());
        control.wake();
    };
    (Box::new(on_done), done)
}

/// The place of a snapshot in the log, as its file keeps it: id of the entry
/// that brought the membership, then the membership.
pub(super) fn encode_members(meta: &SnapshotMeta) -> Vec<u8> {
    let id = meta.members_id.unwrap_or_default();
    let mut out: Vec<u8> =
        [id.term, id.node, id.index].into_iter().flat_map(u64::to_le_bytes).collect();
    out.extend(meta.members.as_ref().map(Members::encode).unwrap_or_default());
    out
}

pub(super) fn decode_meta(manifest: &Manifest) -> Option<SnapshotMeta> {
    let (id, members) = manifest.membership.split_at_checked(24)?;
    let word = |at: usize| id.get(at..)?.first_chunk().map(|c| u64::from_le_bytes(*c));
    let Position { term, node, index } = manifest.last;
    Some(SnapshotMeta {
        last: Some(LogId { term, node, index }),
        members_id: Some(LogId { term: word(0)?, node: word(8)?, index: word(16)? }),
        members: Some(Members::decode(members).ok()?),
    })
}

/// The node's newest snapshot, as the log asks for it.
#[derive(Clone, Default)]
pub(super) struct Newest(pub(super) Rc<RefCell<Option<SnapshotMeta>>>);

impl SnapshotSource for Newest {
    type File = ();

    async fn newest(&self) -> io::Result<Option<(SnapshotMeta, ())>> {
        Ok(self.0.borrow().clone().map(|meta| (meta, ())))
    }

    async fn build(&self, _: SnapshotMeta) -> io::Result<(SnapshotMeta, ())> {
        let meta = self.0.borrow().clone();
        meta.map(|meta| (meta, ())).ok_or_else(|| io::Error::other("there is no snapshot yet"))
    }

    async fn install(&self, _: SnapshotMeta, (): ()) -> io::Result<()> {
        Err(io::Error::other("a single voter is sent no snapshot"))
    }
}
