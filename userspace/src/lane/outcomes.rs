//! Outcome bytes: of the datagram at hand, and as they are counted in an ack.

use veltrix_abi::Outcome;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::Event;

use super::EVENTS_LIMIT;
use crate::base::counters::LaneCounters;

/// Outcome bytes of the datagram at hand.
pub(super) struct Outcomes {
    bytes: [u8; EVENTS_LIMIT],
    pub(super) count: u16,
    pub(super) malformed: u16,
}

impl Outcomes {
    pub(super) const NONE: Self = Self { bytes: [0; EVENTS_LIMIT], count: 0, malformed: 0 };

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.malformed = 0;
    }

    #[inline(always)]
    pub(super) fn judge(&mut self, event: &Event<'_>) {
        let outcome = if event.is_well_formed() { Outcome::Accepted } else { Outcome::Malformed };
        // No datagram that can be received holds more.
        if let Some(byte) = self.bytes.get_mut(usize::from(self.count)) {
            *byte = outcome.code();
            self.count += 1;
            self.malformed += u16::from(outcome == Outcome::Malformed);
        }
    }

    #[inline(always)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.count)]
    }
}

/// Counts outcome bytes as they stand in an ack.
#[inline]
pub(super) fn count_outcomes(counters: &LaneCounters, outcomes: &[u8]) {
    if outcomes.iter().all(|o| *o == Outcome::Applied.code()) {
        counters.outcome(Outcome::Applied, outcomes.len() as u64);
        return;
    }
    for byte in outcomes {
        match Outcome::from_code(*byte) {
            Some(outcome) => counters.outcome(outcome, 1),
            None if byte & DUPLICATE_BIT != 0 => counters.duplicates.add(1),
            // A slot that no owner filled: the sums show it.
            None => {}
        }
    }
}
