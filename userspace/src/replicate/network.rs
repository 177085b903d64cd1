//! The reserved place of the peers' connections.
//!
//! openraft asks a factory for one connection per peer and task. A cluster of
//! one voter has no peer, so nothing here is ever called; a membership that
//! names others gets [`Unreachable`] from every call, which openraft retries
//! with backoff. The peers' TCP goes here, with the group field of its frames
//! reserved (0: one replica set).

use std::future::Future;
use std::marker::PhantomData;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, RaftNetworkFactory, RaftNetworkV2};

use super::types::{RaftTypes, RaftVote};

/// Makes connections to peers that cannot be reached; `F` is the handle of a
/// snapshot to send.
#[derive(Debug)]
pub struct Peers<F>(PhantomData<fn(F)>);

impl<F> Default for Peers<F> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// A connection to one peer.
#[derive(Debug)]
pub struct Peer<F> {
    id: u64,
    address: String,
    snapshots: PhantomData<fn(F)>,
}

impl<F> Peer<F> {
    fn unreachable(&self) -> Unreachable<RaftTypes> {
        Unreachable::new(&AnyError::error(format!(
            "node {} at {:?}: this build has no connections to peers",
            self.id, self.address
        )))
    }
}

impl<F: 'static> RaftNetworkFactory<RaftTypes> for Peers<F> {
    type Network = Peer<F>;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer<F> {
        Peer { id: target, address: node.addr.clone(), snapshots: PhantomData }
    }
}

impl<F: 'static> RaftNetworkV2<RaftTypes> for Peer<F> {
    type SnapshotData = F;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<RaftTypes>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftTypes>, RPCError<RaftTypes>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<RaftTypes>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftTypes>, RPCError<RaftTypes>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: RaftVote,
        _snapshot: openraft::type_config::alias::SnapshotOf<RaftTypes, F>,
        _cancel: impl Future<Output = ReplicationClosed> + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<RaftTypes>, StreamingError<RaftTypes>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
