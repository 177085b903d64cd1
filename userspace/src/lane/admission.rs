//! Accept or shed: a datagram is refused, before it is accepted, when the wait
//! predicted for it exceeds its deadline.
//!
//! The prediction is the frames ahead of it times the time one frame took
//! lately: time and frames of the last turns, summed, the older half forgotten
//! as new ones come. So a lane that was kept off its core for some milliseconds
//! does not shed when it is back, and one that shares its core does. The time is
//! measured a turn, not a frame: one clock read for a whole batch.

use std::time::{Duration, Instant};

/// Frames that the sums remember at the most: two to four full default rings.
/// Fewer let a preempted turn stand for the lane's speed; more keep shedding
/// after it is over.
const FRAMES_REMEMBERED: u64 = 8_192;

/// Frames by which the time is divided at least: what is known of fewer is an
/// accident.
const FRAMES_LEAST: u64 = 1_024;

/// Decides for a whole turn at a time.
#[derive(Debug)]
pub struct Admission {
    deadline_ns: u64,
    /// Time of the turns remembered.
    spent_ns: u64,
    /// Frames they took.
    frames: u64,
    /// Start and frames of the turn under way.
    turn: Option<(Instant, u64)>,
}

impl Admission {
    /// Sheds what would wait longer than `deadline`.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        let deadline_ns = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        Self { deadline_ns, spent_ns: 0, frames: 0, turn: None }
    }

    /// Called when a turn has taken frames, at `now`: `taken` are in its hands, `waiting`
    /// still in the ring, and all of them are ahead of the last one. Only those
    /// taken are served by this turn, so they alone say what a frame costs.
    #[inline]
    pub fn is_overloaded(&mut self, now: Instant, taken: usize, waiting: usize) -> bool {
        if let Some((started, frames)) = self.turn.replace((now, taken as u64)) {
            self.remember(u64::try_from((now - started).as_nanos()).unwrap_or(u64::MAX), frames);
        }
        self.predicted_wait_ns((taken + waiting) as u64) > self.deadline_ns
    }

    #[inline]
    fn remember(&mut self, turn_ns: u64, frames: u64) {
        self.spent_ns = self.spent_ns.saturating_add(turn_ns);
        self.frames = self.frames.saturating_add(frames);
        if self.frames > FRAMES_REMEMBERED {
            self.spent_ns /= 2;
            self.frames /= 2;
        }
    }

    /// The lane slept: the time until the next turn is not work.
    #[inline]
    pub fn idle(&mut self) {
        self.turn = None;
    }

    fn predicted_wait_ns(&self, frames: u64) -> u64 {
        frames.saturating_mul(self.spent_ns) / self.frames.max(FRAMES_LEAST)
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

    const DEADLINE: Duration = Duration::from_millis(50);

    #[test]
    fn sheds_by_predicted_wait() {
        let mut a = Admission::new(DEADLINE);
        // 100 us a frame.
        for _ in 0..100 {
            a.remember(6_400_000, 64);
        }
        assert_eq!(a.predicted_wait_ns(400), 40_000_000);
        assert!(!a.is_overloaded(Instant::now(), 64, 336));
        a.idle();
        assert!(a.is_overloaded(Instant::now(), 64, 536), "600 frames of 100 us exceed 50 ms");
        assert_eq!(a.retry_after_us(), 50_000);
    }

    #[test]
    fn one_preempted_turn_is_no_overload() {
        let mut a = Admission::new(DEADLINE);
        for _ in 0..1_000 {
            a.remember(6_400, 64);
        }
        a.remember(10_000_000, 3);
        assert!(!a.is_overloaded(Instant::now(), 64, 2_048));
        assert!(
            !Admission::new(DEADLINE).is_overloaded(Instant::now(), 64, 2_048),
            "nothing is known yet"
        );
    }

    #[test]
    fn what_was_slow_is_forgotten() {
        let mut a = Admission::new(DEADLINE);
        for _ in 0..1_000 {
            a.remember(6_400_000, 64);
        }
        assert!(a.predicted_wait_ns(2_048) > 50_000_000);
        for _ in 0..1_000 {
            a.remember(6_400, 64);
        }
        assert!(a.predicted_wait_ns(2_048) < 5_000_000);
    }

    #[test]
    fn a_sleep_is_not_work() {
        let mut a = Admission::new(DEADLINE);
        assert!(!a.is_overloaded(Instant::now(), 1, 0));
        a.idle();
        assert!(!a.is_overloaded(Instant::now(), 1, 0));
        assert_eq!(a.frames, 0, "no turn followed another without a sleep");
    }

    #[test]
    fn frames_left_in_the_ring_do_not_make_a_frame_look_cheap() {
        let mut a = Admission::new(DEADLINE);
        assert!(!a.is_overloaded(Instant::now(), 64, 100_000));
        assert!(!a.is_overloaded(Instant::now(), 64, 0));
        assert_eq!(a.frames, 64);
    }
}
