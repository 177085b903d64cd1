//! Where the time of a durable event goes, stage by stage.
//!
//! One histogram a stage and lane, filled by the lane when it acknowledges.
//! Once a second the control core asks for them; the lane hands over what it
//! has filled and goes on with an empty set, so nothing is shared while it is
//! written and nothing is merged on a lane.

use hdrhistogram::Histogram;

macro_rules! stages {
    ($($variant:ident = $index:literal, $label:literal, $doc:literal;)*) => {
        /// A step of an event's way, named by what it ends with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Stage {
            $(#[doc = $doc] $variant = $index,)*
        }

        impl Stage {
            /// Every stage in order of an event's way; the whole last.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Metric label and JSON key.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// One sentence for the documentation.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

stages! {
    Rx = 0, "rx", "The longest a frame can have lain in its ring: since the lane last looked.";
    Decoded = 1, "decoded", "From the frames being taken to all of them being decoded and copied into a batch.";
    Sealed = 2, "sealed", "From the frame being taken to its batch being sealed, decoding included.";
    Submitted = 3, "submitted", "Until the control core had handed the batch to the log.";
    Durable = 4, "durable", "Until the disk had said that it holds the batch: the flush.";
    Committed = 5, "committed", "Until the log had committed it and it was routed to the owning lanes.";
    Applied = 6, "applied", "Until the last owning lane had applied it.";
    Acked = 7, "acked", "Until the receiving lane had written its answers.";
    Whole = 8, "whole", "From the frame being taken to its answer being written: all stages but `rx`.";
}

/// How many stages there are.
pub const STAGES: usize = 9;
const _: () = assert!(Stage::ALL.len() == STAGES);

/// Longest time told apart from longer ones, nanoseconds (one minute).
const NS_MAX: u64 = 60_000_000_000;

/// Digits that a reading keeps: 1 % off at the most, in 32 KiB a stage.
const DIGITS: u8 = 2;

/// One histogram a stage, nanoseconds.
#[derive(Clone, Debug)]
pub struct StageTimes {
    stages: Vec<Histogram<u64>>,
}

impl Default for StageTimes {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, NS_MAX, DIGITS).expect("constant bounds are in order");
        Self { stages: (0..STAGES).map(|_| histogram()).collect() }
    }
}

impl StageTimes {
    /// Notes `count` passages of `ns` each; longer than a minute counts as a
    /// minute.
    #[inline]
    pub fn record(&mut self, stage: Stage, ns: u64, count: u64) {
        if let Some(histogram) = self.stages.get_mut(stage as usize) {
            histogram.saturating_record_n(ns.max(1), count);
        }
    }

    /// The histogram of a stage.
    #[must_use]
    pub fn of(&self, stage: Stage) -> &Histogram<u64> {
        &self.stages[stage as usize]
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.stages.iter_mut().zip(&other.stages) {
            // Same bounds, so nothing can be out of range.
            let _ = mine.add(theirs);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.stages.iter_mut().for_each(Histogram::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_in_order_and_sets_add_up() {
        for (i, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(*stage as usize, i);
        }
        let mut a = StageTimes::default();
        a.record(Stage::Durable, 200_000, 3);
        a.record(Stage::Durable, u64::MAX, 1);
        let mut b = a.clone();
        b.add(&a);
        assert_eq!(b.of(Stage::Durable).len(), 8);
        assert!(b.of(Stage::Durable).max() >= NS_MAX);
        assert!(b.of(Stage::Durable).value_at_quantile(0.5).abs_diff(200_000) < 2_000);
        b.clear();
        assert_eq!(b.of(Stage::Durable).len(), 0);
    }
}
