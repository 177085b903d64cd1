//! Accept or shed: a datagram is refused, before it is accepted, when the wait
//! predicted for it exceeds its deadline.
//!
//! The prediction is the frames ahead of it times the time one frame took
//! lately. The time is measured a turn, not a frame: one clock read for a
//! whole batch.

use std::time::{Duration, Instant};

/// Weight of the newest turn in the running mean: 1/8, some 500 frames of
/// memory at a batch of 64.
const NEWEST_SHARE: u64 = 8;

/// Fixed-point bits of the running mean: a frame takes some 50 ns, and eighths
/// of it must not vanish.
const MEAN_SHIFT: u32 = 8;

/// Frames taken in one turn count as at most this long, so that one preempted
/// turn does not make a lane shed for the next hundred.
const TURN_NS_MAX: u64 = 10_000_000;

/// Decides for a whole turn at a time.
#[derive(Debug)]
pub struct Admission {
    deadline_ns: u64,
    frame_ns_256th: u64,
    /// Start and frames of the turn under way.
    turn: Option<(Instant, u64)>,
}

impl Admission {
    /// Sheds what would wait longer than `deadline`.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        let deadline_ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        Self { deadline_ns, frame_ns_256th: 0, turn: None }
    }

    /// Called when a turn has taken frames: `taken` are in its hands, `waiting`
    /// still in the ring, and all of them are ahead of the last one. Only those
    /// taken are served by this turn, so they alone say what a frame costs.
    #[inline]
    pub fn is_overloaded(&mut self, taken: usize, waiting: usize) -> bool {
        let now = Instant::now();
        if let Some((started, frames)) = self.turn.replace((now, taken as u64)) {
            let turn_ns = u64::try_from((now - started).as_nanos()).unwrap_or(u64::MAX);
            let sample = (turn_ns.min(TURN_NS_MAX) << MEAN_SHIFT) / frames.max(1);
            let mean = self.frame_ns_256th;
            self.frame_ns_256th = mean - mean / NEWEST_SHARE + sample / NEWEST_SHARE;
        }
        self.predicted_wait_ns((taken + waiting) as u64) > self.deadline_ns
    }

    /// The lane slept: the time until the next turn is not work.
    #[inline]
    pub fn idle(&mut self) {
        self.turn = None;
    }

    fn predicted_wait_ns(&self, frames: u64) -> u64 {
        frames.saturating_mul(self.frame_ns_256th) >> MEAN_SHIFT
    }

    /// Microseconds after which a refused sender may try again: the deadline,
    /// by which what is ahead of it is served.
    #[must_use]
    pub fn retry_after_us(&self) -> u32 {
        u32::try_from((self.deadline_ns / 1_000).max(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheds_by_predicted_wait() {
        let mut a = Admission::new(Duration::from_micros(100));
        a.frame_ns_256th = 1_000 << MEAN_SHIFT;
        assert_eq!(a.predicted_wait_ns(64), 64_000);
        assert!(!a.is_overloaded(64, 0));
        a.turn = None;
        assert!(a.is_overloaded(64, 936), "1,000 frames of 1 us exceed 100 us");
        assert_eq!(a.retry_after_us(), 100);
    }

    #[test]
    fn a_sleep_is_not_work() {
        let mut a = Admission::new(Duration::from_millis(50));
        assert!(!a.is_overloaded(1, 0));
        a.idle();
        assert!(!a.is_overloaded(1, 0));
        assert_eq!(a.frame_ns_256th, 0, "no turn followed another without a sleep");
    }

    #[test]
    fn frames_left_in_the_ring_do_not_make_a_frame_look_cheap() {
        let mut a = Admission::new(Duration::from_millis(50));
        assert!(!a.is_overloaded(64, 100_000), "nothing is known yet");
        std::thread::sleep(Duration::from_millis(1));
        // 64 frames took a millisecond: an eighth of 15 us a frame enters the
        // mean, and 100,000 such frames are 195 ms.
        assert!(a.is_overloaded(64, 100_000));
    }
}
