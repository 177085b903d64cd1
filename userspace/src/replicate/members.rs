//! Who votes: encoding of a membership, JSON so that `inspect` can show it.
//!
//! `{"version":1,"voters":[[1,2,3]],"nodes":{"1":"10.0.0.1:7600",...}}`: two
//! sets of voters while the cluster changes from one to the other; a node that
//! is in no set is a learner.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::Membership;
use openraft::impls::BasicNode;
use serde::{Deserialize, Serialize};

/// Version of this encoding.
const VERSION: u32 = 1;

/// Why bytes are no membership.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// Not the JSON that is wanted.
    #[error("membership of {bytes} bytes cannot be read: {source}")]
    Json {
        /// Length of what was given.
        bytes: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Written by another version.
    #[error("membership has version {seen}, this build reads {VERSION}")]
    Version {
        /// What was found.
        seen: u32,
    },
    /// A voter has no address.
    #[error("membership names voters without an address: {0}")]
    Incomplete(String),
}

/// The nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    version: u32,
    /// Sets of voters; an entry commits when a majority of each has it.
    pub voters: Vec<BTreeSet<u64>>,
    /// Address of each node, voters and learners.
    pub nodes: BTreeMap<u64, String>,
}

impl Members {
    /// A cluster whose nodes all vote.
    #[must_use]
    pub fn of_voters(nodes: BTreeMap<u64, String>) -> Self {
        Self { version: VERSION, voters: vec![nodes.keys().copied().collect()], nodes }
    }

    /// A cluster of one node that needs no address.
    #[must_use]
    pub fn single(node: u64) -> Self {
        Self::of_voters(BTreeMap::from([(node, String::new())]))
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembersError> {
        let members: Self = serde_json::from_slice(bytes)
            .map_err(|source| MembersError::Json { bytes: bytes.len(), source })?;
        if members.version != VERSION {
            return Err(MembersError::Version { seen: members.version });
        }
        Ok(members)
    }

    /// The bytes of a membership entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // Maps with integer keys and strings: serialization has no way to fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub(super) fn from_raft(members: &Membership<u64, BasicNode>) -> Self {
        Self {
            version: VERSION,
            voters: members.get_joint_config().clone(),
            nodes: members.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }

    pub(super) fn to_raft(&self) -> Result<Membership<u64, BasicNode>, MembersError> {
        let nodes: BTreeMap<u64, BasicNode> =
            self.nodes.iter().map(|(id, addr)| (*id, BasicNode::new(addr))).collect();
        if self.voters.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(self.voters.clone(), nodes)
            .map_err(|e| MembersError::Incomplete(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_read_back() {
        let nodes = BTreeMap::from([(1, "a:1".to_owned()), (9, "[::1]:2".to_owned())]);
        for members in [Members::of_voters(nodes), Members::single(7)] {
            let read = Members::decode(&members.encode()).unwrap();
            assert_eq!(read, members);
            assert_eq!(Members::from_raft(&read.to_raft().unwrap()), members);
        }
        let empty = Members::from_raft(&Membership::default());
        assert_eq!(
            Members::decode(&empty.encode()).unwrap().to_raft().unwrap(),
            Membership::default()
        );
    }

    #[test]
    fn encoding_is_fixed() {
        let nodes = BTreeMap::from([(1, "a:1".to_owned())]);
        assert_eq!(
            Members::of_voters(nodes).encode(),
            r#"{"version":1,"voters":[[1]],"nodes":{"1":"a:1"}}"#
        );
    }

    #[test]
    fn other_versions_and_voters_without_a_node_are_refused() {
        let other = br#"{"version":2,"voters":[[1]],"nodes":{"1":""}}"#;
        assert!(matches!(Members::decode(other), Err(MembersError::Version { seen: 2 })));
        let lacking = br#"{"version":1,"voters":[[1,2]],"nodes":{"1":""}}"#;
        let error = Members::decode(lacking).unwrap().to_raft().unwrap_err();
        assert!(matches!(error, MembersError::Incomplete(_)), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(members) = Members::decode(&bytes) {
                let _ = members.to_raft();
            }
        }
    }
}
