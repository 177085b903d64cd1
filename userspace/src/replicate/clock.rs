//! Log time: the one clock that apply sees.
//!
//! ```text
//!  log time = time at election + monotonic time since then + slew
//!                                                            |
//!        at most 1 % of the monotonic time that has passed, towards the wall clock
//! ```
//!
//! The control core stamps entries with it at propose. It starts from the
//! maximum of the last stamp in the log and the wall clock when this node is
//! elected, and after that the wall clock only steers it: a jump of the wall
//! clock makes log time run 1 % faster or slower until they agree, so expiries
//! and the horizon of dedupe neither leap nor go back. A jump of more than a
//! second is reported once, with both times.
//!
//! Pure: the caller brings both clocks. What it cannot see: a wall clock that
//! was already wrong, and ahead, when the node was elected.

/// A jump of the wall clock by more than this is reported. NTP steps a clock
/// that is off by more than 128 ms; a second is a host in trouble.
pub const JUMP_NS_MIN: u64 = 1_000_000_000;

/// Slew is monotonic time divided by this: 1 %, so a second is mended in 100.
/// Slower leaves `too-new` refusals standing for long, faster bends expiries
/// (NTP's 0.05 % would need half an hour for that second).
const SLEW_DIVISOR: u64 = 100;

/// A reading of both clocks, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the Unix epoch.
    pub wall_ns: u64,
    /// Monotonic, any origin.
    pub monotonic_ns: u64,
}

impl Now {
    /// The host's clocks.
    #[must_use]
    pub fn read() -> Self {
        Self {
            wall_ns: crate::base::clock::unix_ns(),
            monotonic_ns: crate::base::clock::monotonic_ns(),
        }
    }
}

/// The wall clock left the path that the monotonic clock gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// What the wall clock should have shown, nanoseconds since the Unix epoch.
    pub expected_ns: u64,
    /// What it showed.
    pub wall_ns: u64,
    /// Log time at that moment; it does not jump.
    pub log_time_ns: u64,
}

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    /// Log time at `looked`, before slew of what came after.
    time_ns: u64,
    looked: Option<Now>,
    stamped_ns: u64,
}

impl LogClock {
    /// A clock that was never started; the first look starts it at the wall
    /// clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts over on election: from `stamped_ns`, the greatest log time in the
    /// log, or the wall clock if that is later. A wall clock more than
    /// [`JUMP_NS_MIN`] behind the log is a jump, too.
    pub fn elected(&mut self, now: Now, stamped_ns: u64) -> Option<Jump> {
        self.stamped_ns = self.stamped_ns.max(stamped_ns);
        self.time_ns = now.wall_ns.max(self.stamped_ns);
        self.looked = Some(now);
        (self.stamped_ns.saturating_sub(now.wall_ns) > JUMP_NS_MIN).then_some(Jump {
            expected_ns: self.stamped_ns,
            wall_ns: now.wall_ns,
            log_time_ns: self.time_ns,
        })
    }

    /// Brings the clock up to `now`; call it at least every minute or so, that
    /// drift between two looks does not pass for a jump.
    pub fn look(&mut self, now: Now) -> Option<Jump> {
        let Some(before) = self.looked.replace(now) else {
            return self.elected(now, 0);
        };
        let passed = now.monotonic_ns.saturating_sub(before.monotonic_ns);
        let free = self.time_ns.saturating_add(passed);
        let slew_max = passed / SLEW_DIVISOR;
        self.time_ns = now
            .wall_ns
            .clamp(free.saturating_sub(slew_max).max(self.time_ns), free.saturating_add(slew_max));
        let expected = before.wall_ns.saturating_add(passed);
        (now.wall_ns.abs_diff(expected) > JUMP_NS_MIN).then_some(Jump {
            expected_ns: expected,
            wall_ns: now.wall_ns,
            log_time_ns: self.time_ns,
        })
    }

    /// Log time at the last look, never behind a stamp.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time_ns.max(self.stamped_ns)
    }

    /// The stamp of the next entry: log time at the last look, strictly greater
    /// than every stamp before it.
    pub fn stamp(&mut self) -> u64 {
        self.stamped_ns = self.time_ns.max(self.stamped_ns.saturating_add(1));
        self.stamped_ns
    }

    /// How far log time is ahead of the wall clock at the last look, nanoseconds;
    /// negative when behind.
    #[must_use]
    pub fn ahead_ns(&self) -> i64 {
        let wall = self.looked.map_or(0, |l| l.wall_ns);
        let ahead = i128::from(self.time_ns()) - i128::from(wall);
        ahead.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    fn at(wall_ns: u64, monotonic_ns: u64) -> Now {
        Now { wall_ns, monotonic_ns }
    }

    #[test]
    fn follows_the_wall_while_it_is_steady() {
        let mut clock = LogClock::new();
        assert_eq!(clock.elected(at(1_000 * S, 5), 7), None);
        for i in 1..100 {
            assert_eq!(clock.look(at(1_000 * S + i, 5 + i)), None);
            assert_eq!(clock.stamp(), 1_000 * S + i);
        }
        assert_eq!(clock.ahead_ns(), 0);
    }

    #[test]
    fn entries_of_one_moment_have_different_stamps() {
        let mut clock = LogClock::new();
        clock.elected(at(10 * S, 0), 0);
        assert_eq!([clock.stamp(), clock.stamp(), clock.stamp()], [10 * S, 10 * S + 1, 10 * S + 2]);
        assert_eq!(clock.time_ns(), 10 * S + 2);
    }

    #[test]
    fn starts_from_the_log_when_the_wall_is_behind_it() {
        let mut clock = LogClock::new();
        let jump = clock.elected(at(100 * S, 0), 200 * S);
        assert_eq!(
            jump,
            Some(Jump { expected_ns: 200 * S, wall_ns: 100 * S, log_time_ns: 200 * S })
        );
        assert_eq!(clock.stamp(), 200 * S + 1);
        // 100 s behind at 1 % a second: 50 s of time give half a second back.
        assert_eq!(clock.look(at(150 * S, 50 * S)), None);
        assert_eq!(clock.time_ns(), 249 * S + S / 2);
        let mut close = LogClock::new();
        assert_eq!(close.elected(at(100 * S, 0), 101 * S), None, "a second is no jump");
    }

    #[test]
    fn a_jump_is_reported_once_and_mended_slowly() {
        for (wall, wanted) in [(3_700 * S, 1_101), (S, 1_099)] {
            let mut clock = LogClock::new();
            clock.elected(at(1_000 * S, 0), 0);
            let jump = clock.look(at(wall, S)).unwrap();
            assert_eq!((jump.expected_ns, jump.wall_ns), (1_001 * S, wall));
            assert!(jump.log_time_ns.abs_diff(1_001 * S) <= S / 100);
            assert_eq!(clock.look(at(wall + 99 * S, 100 * S)), None);
            assert_eq!(clock.time_ns() / S, wanted);
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut clock = LogClock::new();
        clock.elected(at(u64::MAX, u64::MAX), u64::MAX);
        clock.look(at(0, 0));
        clock.look(at(u64::MAX, u64::MAX));
        assert_eq!(clock.stamp(), u64::MAX);
        assert_eq!(LogClock::new().ahead_ns(), 0);
    }

    proptest! {
        #[test]
        fn time_never_goes_back_and_never_runs_more_than_a_percent_off(
            steps in proptest::collection::vec((0u64..5 * S, -20_000i64..20_000, 0usize..3), 1..200),
        ) {
            let mut clock = LogClock::new();
            let (mut wall, mut mono) = (1_700_000_000 * S, 3 * S);
            clock.elected(at(wall, mono), 0);
            let (mut last_stamp, mut last_time) = (0, clock.time_ns());
            for (passed, jump_ms, stamps) in steps {
                mono += passed;
                wall = (wall + passed).saturating_add_signed(jump_ms * 1_000_000);
                let jump = clock.look(at(wall, mono));
                prop_assert_eq!(jump.is_some(), jump_ms.unsigned_abs() * 1_000_000 > JUMP_NS_MIN);
                let went = clock.time_ns() - last_time;
                prop_assert!(went <= passed + passed / 100 + 3, "{went} in {passed}");
                prop_assert!(went + 3 >= passed - passed / 100, "{went} in {passed}");
                for _ in 0..stamps {
                    let stamp = clock.stamp();
                    prop_assert!(stamp > last_stamp);
                    last_stamp = stamp;
                }
                last_time = clock.time_ns();
            }
        }
    }
}
