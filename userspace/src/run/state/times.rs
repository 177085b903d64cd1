//! Histograms of all lanes, put together once a second: since the start, and
//! over the last ten seconds.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::admin::log_status::{Quantiles, StageStatus};
use crate::lane::stages::{Stage, StageTimes};

/// Seconds that `last_10s` looks back.
const RECENT_S: usize = 10;

/// See the module.
#[derive(Default)]
pub(super) struct Times {
    total: StageTimes,
    /// One set a second, the newest last.
    recent: VecDeque<StageTimes>,
    flush: Option<Flush>,
}

struct Flush {
    total: Histogram<u64>,
    recent: VecDeque<Histogram<u64>>,
}

impl Times {
    /// A second has passed.
    pub(super) fn next_second(&mut self) {
        if self.recent.len() == RECENT_S {
            self.recent.pop_front();
        }
        self.recent.push_back(StageTimes::default());
    }

    /// What a lane has measured since it was last asked.
    pub(super) fn add(&mut self, times: &StageTimes) {
        self.total.add(times);
        if let Some(newest) = self.recent.back_mut() {
            newest.add(times);
        }
    }

    /// Flush times of the last second.
    pub(super) fn add_flushes(&mut self, flushes: Histogram<u64>) {
        match &mut self.flush {
            None => {
                let recent = VecDeque::from([flushes.clone()]);
                self.flush = Some(Flush { total: flushes, recent });
            }
            Some(all) => {
                // Same bounds: nothing can be out of range.
                let _ = all.total.add(&flushes);
                if all.recent.len() == RECENT_S {
                    all.recent.pop_front();
                }
                all.recent.push_back(flushes);
            }
        }
    }

    /// Flush times since start and of the last ten seconds.
    pub(super) fn flushes(&self) -> (Quantiles, Quantiles) {
        let Some(all) = &self.flush else { return Default::default() };
        let mut recent = all.total.clone();
        recent.reset();
        for second in &all.recent {
            let _ = recent.add(second);
        }
        (Quantiles::of(&all.total), Quantiles::of(&recent))
    }

    /// Every stage.
    pub(super) fn stages(&self) -> Vec<StageStatus> {
        let mut recent = StageTimes::default();
        self.recent.iter().for_each(|second| recent.add(second));
        let row = |stage: &Stage| StageStatus {
            stage: stage.label().to_owned(),
            since_start_ns: Quantiles::of(self.total.of(*stage)),
            last_10s_ns: Quantiles::of(recent.of(*stage)),
        };
        Stage::ALL.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_are_remembered() {
        let mut times = Times::default();
        for second in 0..15u64 {
            times.next_second();
            let mut set = StageTimes::default();
            set.record(Stage::Whole, (second + 1) * 1_000, 1);
            times.add(&set);
        }
        let whole = times.stages().pop().unwrap();
        assert_eq!(whole.stage, "whole");
        assert_eq!((whole.since_start_ns.count, whole.last_10s_ns.count), (15, 10));
        assert!(whole.last_10s_ns.p50 > whole.since_start_ns.p50);
    }
}
