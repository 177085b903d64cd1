//! openraft's type configuration, and ids to and from those of the WAL.

use std::fmt;
use std::io;

use openraft::impls::{BasicNode, leader_id_adv::LeaderId};
use openraft::{Entry, EntryPayload};

use super::Proposal;
use super::members::Members;
use crate::log::{Body, LogEntry, LogId, Vote};

openraft::declare_raft_types!(
    /// Types that openraft is used with: numbers for nodes and terms, and an
    /// empty answer, since outcomes come from the lanes and not from apply.
    pub RaftTypes:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = BasicNode,
);

pub(super) type RaftLogId = openraft::type_config::alias::LogIdOf<RaftTypes>;
pub(super) type RaftVote = openraft::type_config::alias::VoteOf<RaftTypes>;
pub(super) type RaftEntry = openraft::type_config::alias::EntryOf<RaftTypes>;
pub(super) type StoredMembers = openraft::type_config::alias::StoredMembershipOf<RaftTypes>;

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, bytes) = (self.body.kind().name(), self.body.as_slice().len());
        write!(f, "{what} of {bytes} bytes at {} ns", self.log_time_ns)
    }
}

pub(super) fn to_raft_id(id: LogId) -> RaftLogId {
    RaftLogId::new(LeaderId { term: id.term, node_id: id.node }, id.index)
}

pub(super) fn from_raft_id(id: &RaftLogId) -> LogId {
    LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(super) fn to_raft_vote(vote: Vote) -> RaftVote {
    let leader_id = LeaderId { term: vote.term, node_id: vote.node };
    RaftVote { leader_id, committed: vote.committed }
}

pub(super) fn from_raft_vote(vote: &RaftVote) -> Vote {
    Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

/// An entry of the log as openraft wants it.
///
/// # Errors
///
/// A membership that cannot be read: the log was written by another version.
pub(super) fn to_raft_entry(entry: LogEntry) -> io::Result<RaftEntry> {
    let LogEntry { id, log_time_ns, body } = entry;
    let payload = match body {
        // openraft's own blanks have no stamp, proposed ones do.
        Body::Blank if log_time_ns == 0 => EntryPayload::Blank,
        Body::Membership(bytes) => {
            let members = Members::decode(&bytes).map_err(|e| {
                io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {e}", id.index))
            })?;
            EntryPayload::Membership(members.to_raft().map_err(io::Error::other)?)
        }
        body => EntryPayload::Normal(Proposal { log_time_ns, body }),
    };
    Ok(Entry { log_id: to_raft_id(id), payload })
}

/// An entry of openraft's as the log and the router want it.
pub(super) fn from_raft_entry(entry: RaftEntry) -> LogEntry {
    let id = from_raft_id(&entry.log_id);
    let (log_time_ns, body) = match entry.payload {
        EntryPayload::Blank => (0, Body::Blank),
        EntryPayload::Membership(members) => {
            (0, Body::Membership(Members::from_raft(&members).encode()))
        }
        EntryPayload::Normal(proposal) => (proposal.log_time_ns, proposal.body),
    };
    LogEntry { id, log_time_ns, body }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::batch::Payload;

    #[test]
    fn entries_are_the_same_after_both_ways() {
        let id = LogId { term: 3, node: 2, index: 77 };
        for (log_time_ns, body) in [
            (0, Body::Blank),
            (5, Body::Blank),
            (6, Body::Batch(Payload::Owned(Bytes::from_static(b"batch")))),
            (7, Body::Digests(Bytes::from_static(b"digests"))),
            (0, Body::Membership(Members::single(2).encode())),
        ] {
            let entry = LogEntry { id, log_time_ns, body };
            let there = to_raft_entry(entry.clone()).unwrap();
            assert_eq!(from_raft_entry(there), entry);
        }
        let vote = Vote { term: 4, node: 9, committed: true };
        assert_eq!(from_raft_vote(&to_raft_vote(vote)), vote);
    }

    #[test]
    fn a_membership_that_cannot_be_read_names_its_entry() {
        let id = LogId { term: 3, node: 2, index: 77 };
        let body = Body::Membership(Bytes::from_static(b"{}"));
        let error = to_raft_entry(LogEntry { id, log_time_ns: 0, body }).unwrap_err();
        assert!(error.to_string().starts_with("entry 77: membership of 2 bytes"), "{error}");
    }
}
