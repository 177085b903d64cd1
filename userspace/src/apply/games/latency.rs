//! How soon a player of a game wants to be answered.

use std::time::Duration;

/// A latency class. It changes nothing of how an event is judged, ordered or shed: it is
/// what the answers of a game are measured against, so that one slow figure is not read
/// the same for a race and for a raffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Latency {
    /// The player waits for the answer, or races others for it.
    Interactive = 0,
    /// The player plays on meanwhile.
    Relaxed = 1,
}

/// How many classes there are.
pub const CLASSES: usize = 2;

impl Latency {
    /// Every class, each at the place of its number.
    pub const ALL: [Self; CLASSES] = [Self::Interactive, Self::Relaxed];

    /// Name in documents, answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Relaxed => "relaxed",
        }
    }

    /// Time from an event's batch being sealed to its outcome beyond which it is late.
    /// 10 ms is below one frame of a screen at 60 Hz, and many times what a healthy disk
    /// takes. 50 ms is the default of `lanes.deadline`: an event is not accepted that
    /// would have to wait longer.
    #[must_use]
    pub const fn target(self) -> Duration {
        match self {
            Self::Interactive => Duration::from_millis(10),
            Self::Relaxed => Duration::from_millis(50),
        }
    }
}

/// Events by class, and how many of them were late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Events that a rule has decided, by class.
    pub events: [u64; CLASSES],
    /// Those that were late.
    pub late: [u64; CLASSES],
}

impl ClassCounts {
    /// Counts events that have their outcome `waited_ns` after their batch was sealed.
    pub fn count(&mut self, events: [u32; CLASSES], waited_ns: u64) {
        for ((class, events), (sum, late)) in
            Latency::ALL.iter().zip(events).zip(self.events.iter_mut().zip(&mut self.late))
        {
            *sum += u64::from(events);
            if u128::from(waited_ns) > class.target().as_nanos() {
                *late += u64::from(events);
            }
        }
    }

    /// Adds those of another lane.
    pub fn add(&mut self, other: &Self) {
        let sums = self.events.iter_mut().chain(&mut self.late);
        for (sum, more) in sums.zip(other.events.iter().chain(&other.late)) {
            *sum += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_late_by_the_target_of_their_class() {
        const MS: u64 = 1_000_000;
        let mut counts = ClassCounts::default();
        counts.count([3, 5], 10 * MS);
        counts.count([7, 0], 10 * MS + 1);
        counts.count([0, 2], 50 * MS);
        counts.count([1, 4], 50 * MS + 1);
        assert_eq!(counts, ClassCounts { events: [11, 11], late: [8, 4] });
        let mut sum = counts;
        sum.add(&counts);
        assert_eq!(sum, ClassCounts { events: [22, 22], late: [16, 8] });
    }

    #[test]
    fn a_class_stands_at_the_place_of_its_number() {
        for (place, class) in Latency::ALL.iter().enumerate() {
            assert_eq!(*class as usize, place);
        }
        assert!(Latency::Interactive.target() < Latency::Relaxed.target());
    }
}
