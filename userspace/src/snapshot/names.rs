//! Names of files in the directory of snapshots.

use std::io;

use super::store::SnapshotDir;

/// A snapshot being written. What a crash leaves of it means nothing.
pub(super) const PARTIAL: &str = "snapshot.partial";

/// Name of the snapshot whose least epoch is `epoch`.
pub(super) fn of(epoch: u64) -> String {
    format!("snapshot-{epoch:020}.vsnap")
}

/// The epoch in a name; `None` when it is no snapshot's.
pub(super) fn epoch_in(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("snapshot-")?.strip_suffix(".vsnap")?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Epochs of the snapshots in a directory, ascending.
pub(super) fn epochs(dir: &impl SnapshotDir) -> io::Result<Vec<u64>> {
    let mut epochs: Vec<u64> = dir.list()?.iter().filter_map(|name| epoch_in(name)).collect();
    epochs.sort_unstable();
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_epochs() {
        for epoch in [0, 7, u64::MAX] {
            assert_eq!(epoch_in(&of(epoch)), Some(epoch));
        }
        for other in [PARTIAL, "snapshot-7.vsnap", "snapshot-+0000000000000000007.vsnap", ""] {
            assert_eq!(epoch_in(other), None, "{other}");
        }
        assert_eq!(epoch_in("snapshot-99999999999999999999.vsnap"), None, "beyond u64");
    }
}
