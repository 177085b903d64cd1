//! How busy the whole machine was: what generator, kernel and node cost
//! together.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Time of all cores since boot.
#[derive(Clone, Copy, Debug)]
pub struct CoreTime {
    busy_ticks: u64,
    all_ticks: u64,
}

/// Ticks a second in `/proc/stat`: fixed by the kernel's interface.
const TICKS_PER_S: u64 = 100;

impl CoreTime {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When `/proc/stat` is not as the kernel documents it.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line of all cores")
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal; the guest columns
    /// are part of user.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> =
            line.split_whitespace().take(8).map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks[..] else {
            return None;
        };
        let busy_ticks = user + nice + system + irq + softirq;
        Some(Self { busy_ticks, all_ticks: busy_ticks + idle + iowait + steal })
    }

    /// Busy time of all cores since `before`.
    #[must_use]
    pub fn busy_since(&self, before: &Self) -> Duration {
        Duration::from_millis((self.busy_ticks - before.busy_ticks) * 1_000 / TICKS_PER_S)
    }

    /// Share of all cores' time that was busy since `before`.
    #[must_use]
    pub fn share_since(&self, before: &Self) -> f64 {
        (self.busy_ticks - before.busy_ticks) as f64
            / (self.all_ticks - before.all_ticks).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_of_all_cores() {
        let at = |user, idle| {
            let text = format!("cpu  {user} 1 30 {idle} 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 0 0\n");
            CoreTime::parse(&text).unwrap()
        };
        let (before, after) = (at(100, 1_000), at(150, 1_050));
        assert_eq!(after.busy_since(&before), Duration::from_millis(500));
        assert_eq!(after.share_since(&before), 0.5);
        assert!(CoreTime::parse("cpu 1 2\n").is_none());
    }
}
