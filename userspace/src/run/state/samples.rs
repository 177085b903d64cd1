//! What lanes sample of the events they apply, taken off their rings for the
//! stream; see [`crate::lane::samples`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rtrb::Consumer;

use super::live::Live;
use crate::lane::link::LaneLink;
use crate::lane::samples::Sample;

/// Samples of all lanes since they were last taken.
#[derive(Debug, Default)]
pub struct Samples {
    /// The dearest class first, each in the order of lanes and epochs.
    pub rows: Vec<Sample>,
    /// That found no room in a lane's ring.
    pub lost: u64,
}

/// The control core's ends.
pub(super) struct Taps {
    rings: Vec<Consumer<Sample>>,
    is_watched: bool,
    /// Of what lanes have counted: told already.
    lost_told: u64,
}

impl Taps {
    pub(super) const fn new(rings: Vec<Consumer<Sample>>) -> Self {
        Self { rings, is_watched: false, lost_told: 0 }
    }

    fn take(&mut self, lanes: &[Arc<LaneLink>]) -> Samples {
        let mut rows = Vec::new();
        for ring in &mut self.rings {
            // As many as there are now: a lane may go on.
            for _ in 0..ring.slots() {
                rows.extend(ring.pop());
            }
        }
        rows.sort_by_key(Sample::class);
        let lost: u64 = lanes.iter().map(|lane| lane.watch.lost.load(Relaxed)).sum();
        let told = std::mem::replace(&mut self.lost_told, lost);
        Samples { rows, lost: lost - told }
    }
}

impl Live {
    /// Somebody watches: lanes sample whatever is handed to them from here on.
    pub fn watch(&self) {
        let mut taps = self.taps.borrow_mut();
        if taps.is_watched {
            return;
        }
        // What lies there from an earlier watch is no news.
        let _ = taps.take(&self.lanes);
        taps.is_watched = true;
        self.want_samples(true);
    }

    /// What lanes have sampled since this was last asked; `is_watched` says whether
    /// somebody still watches. Nothing before [`Self::watch`].
    #[must_use]
    pub fn samples(&self, is_watched: bool) -> Samples {
        let mut taps = self.taps.borrow_mut();
        if !taps.is_watched {
            return Samples::default();
        }
        if !is_watched {
            taps.is_watched = false;
            self.want_samples(false);
            return Samples::default();
        }
        taps.take(&self.lanes)
    }

    fn want_samples(&self, wanted: bool) {
        self.lanes.iter().for_each(|lane| lane.watch.wanted.store(wanted, Relaxed));
    }
}
