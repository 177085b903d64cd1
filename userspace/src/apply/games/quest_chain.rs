//! One quest after the other.

use super::{GameType, Latency};

pub(super) struct QuestChain;

impl GameType for QuestChain {
    const LATENCY: Latency = Latency::Relaxed;

    fn quest_before(quest: u64) -> Option<u64> {
        quest.checked_sub(1).filter(|before| *before > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_quest_wants_nothing() {
        assert_eq!([0, 1, 2, 9].map(QuestChain::quest_before), [None, None, Some(1), Some(8)]);
    }
}
