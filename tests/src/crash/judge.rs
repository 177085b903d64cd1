//! The verdict over what clients were told and what the node kept. Pure: two
//! lists in, faults out.
//!
//! | clients | the log, judged again offline | fault |
//! |---|---|---|
//! | acknowledged, decided | not there, though the log goes back that far | lost |
//! | acknowledged, decided | there, another outcome or epoch | changed |
//! | acknowledged or not | decided in more than one place | doubled |
//! | acknowledged | a second ask got another answer | forgotten |

use std::collections::{HashMap, HashSet};

use veltrix_abi::Outcome;

/// An event's idempotency key.
pub type Key = [u8; 16];

/// What a client was told of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its key.
    pub key: Key,
    /// Its outcome; of a duplicate, the first one.
    pub outcome: Outcome,
    /// Epoch it was decided at; of a duplicate, the first one.
    pub epoch: u64,
}

/// One event of the node's log, as `veltrix inspect log` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: Key,
    /// Epoch of its entry.
    pub epoch: u64,
    /// Its outcome; of a duplicate, the first one. `None` when it could not be
    /// judged again, since the snapshot to begin with had it in already.
    pub outcome: Option<Outcome>,
    /// Whether it was a duplicate of one before.
    pub duplicate: bool,
}

/// Something that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged, and not in the log.
    Lost(Told),
    /// Acknowledged, and in the log as something else.
    Changed(Told, Kept),
    /// Decided twice.
    Doubled(Kept, Kept),
    /// The node answers another thing now.
    Forgotten(Told, Told),
}

/// Whether an outcome leaves a trace: the others may be said again and again.
#[must_use]
pub const fn is_decided(outcome: Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::Accepted
            | Outcome::TooOld
            | Outcome::TooNew
            | Outcome::Malformed
            | Outcome::OverQuota
            | Outcome::WrongRegion
            | Outcome::Overloaded
            | Outcome::NotLeader
    )
}

/// Holds what clients were told against the log, whose first epoch is
/// `first_epoch`: what was decided before it is not looked for.
#[must_use]
pub fn against_log(told: &[Told], kept: &[Kept], first_epoch: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut decided: HashMap<Key, Kept> = HashMap::with_capacity(kept.len());
    let mut unjudged: HashSet<(Key, u64)> = HashSet::new();
    for event in kept.iter().filter(|kept| !kept.duplicate) {
        match event.outcome {
            None => drop(unjudged.insert((event.key, event.epoch))),
            Some(outcome) if is_decided(outcome) => {
                if let Some(before) = decided.insert(event.key, *event) {
                    faults.push(Fault::Doubled(before, *event));
                }
            }
            Some(_) => {}
        }
    }
    for told in told.iter().filter(|t| is_decided(t.outcome) && t.epoch >= first_epoch) {
        match decided.get(&told.key) {
            None if unjudged.contains(&(told.key, told.epoch)) => {}
            None => faults.push(Fault::Lost(*told)),
            Some(kept) if (kept.outcome, kept.epoch) != (Some(told.outcome), told.epoch) => {
                faults.push(Fault::Changed(*told, *kept));
            }
            Some(_) => {}
        }
    }
    faults
}

/// Holds what clients were told against what they are told now, asking again.
#[must_use]
pub fn against_answers(told: &[Told], now: &[Told]) -> Vec<Fault> {
    let now: HashMap<Key, Told> = now.iter().map(|told| (told.key, *told)).collect();
    let decided = told.iter().filter(|told| is_decided(told.outcome));
    decided
        .filter_map(|told| match now.get(&told.key) {
            Some(again) if again == told => None,
            Some(again) => Some(Fault::Forgotten(*told, *again)),
            None => Some(Fault::Lost(*told)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: u8, outcome: Outcome, epoch: u64) -> Told {
        Told { key: [key; 16], outcome, epoch }
    }

    fn kept(key: u8, outcome: Outcome, epoch: u64, duplicate: bool) -> Kept {
        Kept { key: [key; 16], outcome: Some(outcome), epoch, duplicate }
    }

    use Outcome::{AlreadyClaimed, Applied, TooOld};

    #[test]
    fn a_sound_history_has_no_fault() {
        let told = [
            told(1, Applied, 5),
            told(2, AlreadyClaimed, 6),
            told(3, TooOld, 6),
            told(9, Applied, 1),
        ];
        let kept = [
            kept(1, Applied, 5, false),
            kept(1, Applied, 7, true),
            kept(2, AlreadyClaimed, 6, false),
            kept(3, TooOld, 6, false),
            kept(3, TooOld, 8, false),
            kept(4, Applied, 8, false),
        ];
        assert_eq!(against_log(&told, &kept, 5), []);
        // In the log, and decided before the state that judging began with.
        let earlier = Kept { outcome: None, ..kept[0] };
        assert_eq!(against_log(&told[..1], &[earlier], 5), []);
        assert_eq!(against_log(&[Told { epoch: 6, ..told[0] }], &[earlier], 5).len(), 1);
    }

    #[test]
    fn every_fault_is_found() {
        let one = told(1, Applied, 5);
        assert_eq!(against_log(&[one], &[], 5), [Fault::Lost(one)]);
        let elsewhere = kept(1, Applied, 6, false);
        assert_eq!(against_log(&[one], &[elsewhere], 5), [Fault::Changed(one, elsewhere)]);
        let otherwise = kept(1, AlreadyClaimed, 5, false);
        assert_eq!(against_log(&[one], &[otherwise], 5), [Fault::Changed(one, otherwise)]);
        let (first, second) = (kept(7, Applied, 5, false), kept(7, Applied, 9, false));
        assert_eq!(against_log(&[], &[first, second], 5), [Fault::Doubled(first, second)]);
        assert_eq!(against_answers(&[one], &[one]), []);
        let later = told(1, Applied, 9);
        assert_eq!(against_answers(&[one], &[later]), [Fault::Forgotten(one, later)]);
        assert_eq!(against_answers(&[one], &[]), [Fault::Lost(one)]);
    }
}
