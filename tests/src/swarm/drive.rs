//! The swarm's loops. Each returns what was counted while it ran; datagrams
//! still unanswered at its end are waited for by [`Swarm::finish`].

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use veltrix::base::port::Port as _;

use super::Swarm;
use super::book::Tally;
use super::feed::CALL_FRAMES_MAX;
use super::traffic::Traffic;

/// How often unanswered datagrams are looked through.
const RETRY_LOOK_NS: u64 = 2_000_000;

/// Longest sleep while nothing is to be done.
const SLEEP_MAX: Duration = Duration::from_millis(1);

/// At a fixed rate, datagrams go out in groups this far apart: a call costs
/// 15 us whatever it sends. The wait for the group counts in the latency.
const GROUP: Duration = Duration::from_micros(100);

/// What a loop measured.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was counted.
    pub tally: Tally,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Run {
    /// Goes on with a later run of the same kind.
    ///
    /// # Errors
    ///
    /// As [`Tally::add`].
    pub fn add(&mut self, later: &Self) -> Result<()> {
        self.tally.add(&later.tally)?;
        self.elapsed += later.elapsed;
        Ok(())
    }

    /// Events a second that were acknowledged as `outcome`.
    #[must_use]
    pub fn per_s(&self, outcome: veltrix_abi::Outcome) -> f64 {
        self.tally.of(outcome) as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl Swarm {
    /// Puts every hotspot of the world, and waits until all are there.
    ///
    /// # Errors
    ///
    /// When one is not acknowledged within `wait`, or anything was sent before.
    pub fn found(&mut self, window: usize, wait: Duration) -> Result<Run> {
        ensure!(self.book.next_sequence() == 0, "swarm: a world is founded first");
        let started = Instant::now();
        let datagrams = self.world().found_datagrams();
        while self.book.next_sequence() < datagrams {
            let left = datagrams - self.book.next_sequence();
            self.turn(Traffic::Found, window, left.min(CALL_FRAMES_MAX as u64) as usize)?;
            ensure!(started.elapsed() < wait, "swarm: the world is not founded after {wait:?}");
        }
        self.finish(Traffic::Found, wait.saturating_sub(started.elapsed()))?;
        Ok(Run { tally: self.book.take_tally(), elapsed: started.elapsed() })
    }

    /// Plays for `duration` with at most `window` datagrams unanswered.
    ///
    /// # Errors
    ///
    /// The kernel refuses to send.
    pub fn closed(&mut self, traffic: Traffic, window: usize, duration: Duration) -> Result<Run> {
        let started = Instant::now();
        while started.elapsed() < duration {
            self.turn(traffic, window, CALL_FRAMES_MAX)?;
        }
        Ok(Run { tally: self.book.take_tally(), elapsed: started.elapsed() })
    }

    /// One pass in a window: answers taken, what is due sent again, new datagrams
    /// sent when a good part of the window is free, else a sleep until an answer.
    fn turn(&mut self, traffic: Traffic, window: usize, most: usize) -> Result<()> {
        let received = self.receive();
        self.retry(traffic)?;
        let free = window.saturating_sub(self.book.waiting()).min(self.book.room());
        let group = (window / 4).clamp(1, CALL_FRAMES_MAX / 2).min(most);
        if free >= group {
            let now_ns = self.now_ns();
            let frames = free.min(most);
            self.send_new(traffic, frames, |_| now_ns)?;
        } else if received == 0 {
            self.port.wait(SLEEP_MAX, None);
        }
        Ok(())
    }

    /// Sends `frames` new datagrams; `intended_ns` says when each was meant to go.
    fn send_new(
        &mut self,
        traffic: Traffic,
        frames: usize,
        intended_ns: impl Fn(usize) -> u64,
    ) -> Result<()> {
        let key_ms = self.log_ms();
        self.send_stamped(traffic, frames, intended_ns, |_| key_ms)
    }

    /// [`Self::send_new`] with the stamp of each datagram's keys.
    fn send_stamped(
        &mut self,
        traffic: Traffic,
        frames: usize,
        intended_ns: impl Fn(usize) -> u64,
        key_ms: impl Fn(usize) -> u64,
    ) -> Result<()> {
        self.set_headers(traffic.bytes())?;
        let now_ns = self.now_ns();
        for index in 0..frames {
            let key_ms = key_ms(index);
            let sequence = self.book.sent(traffic.events(), key_ms, intended_ns(index), now_ns);
            self.place(index, traffic, sequence, key_ms);
        }
        self.send(frames, traffic)
    }

    /// Sends the next datagrams with the key stamps that another swarm of this
    /// world gave them: the same events once more. Waits for all answers.
    ///
    /// # Errors
    ///
    /// When one is not answered within `wait`.
    pub fn repeat(
        &mut self,
        traffic: Traffic,
        stamps_ms: &[u64],
        window: usize,
        wait: Duration,
    ) -> Result<Run> {
        let started = Instant::now();
        let mut left = stamps_ms;
        while !left.is_empty() {
            let received = self.receive();
            self.retry(traffic)?;
            let free = window.saturating_sub(self.book.waiting()).min(self.book.room());
            let frames = free.min(left.len()).min(CALL_FRAMES_MAX);
            if frames > 0 {
                let now_ns = self.now_ns();
                self.send_stamped(traffic, frames, |_| now_ns, |index| left[index])?;
                left = &left[frames..];
            } else if received == 0 {
                self.port.wait(SLEEP_MAX, None);
            }
            ensure!(
                started.elapsed() < wait,
                "swarm: {} datagrams unsent after {wait:?}",
                left.len()
            );
        }
        let unanswered = self.finish(traffic, wait)?;
        ensure!(unanswered == 0, "swarm: {unanswered} datagrams unanswered after {wait:?}");
        Ok(Run { tally: self.book.take_tally(), elapsed: started.elapsed() })
    }

    /// Sends again what was not answered in time.
    fn retry(&mut self, traffic: Traffic) -> Result<()> {
        let now_ns = self.now_ns();
        if now_ns < self.retries_seen_ns + RETRY_LOOK_NS {
            return Ok(());
        }
        self.retries_seen_ns = now_ns;
        let mut due = std::mem::take(&mut self.due);
        self.book.take_due(now_ns, CALL_FRAMES_MAX, &mut due);
        if !due.is_empty() {
            self.set_headers(traffic.bytes())?;
            for (index, (sequence, key_ms)) in due.iter().enumerate() {
                self.place(index, traffic, *sequence, *key_ms);
            }
            self.send(due.len(), traffic)?;
        }
        self.due = due;
        Ok(())
    }

    /// Plays for `duration` at `datagrams_per_s`, whatever the server does.
    ///
    /// # Errors
    ///
    /// The kernel refuses to send, or 65,536 datagrams are unanswered: the rate is
    /// beyond the server.
    pub fn open(
        &mut self,
        traffic: Traffic,
        datagrams_per_s: f64,
        duration: Duration,
    ) -> Result<Run> {
        let started = Instant::now();
        let start_ns = self.now_ns();
        let interval_ns = 1e9 / datagrams_per_s;
        let mut sent = 0u64;
        let mut next_group_ns = 0;
        while started.elapsed() < duration {
            let received = self.receive();
            self.retry(traffic)?;
            let elapsed_ns = self.now_ns() - start_ns;
            if elapsed_ns >= next_group_ns {
                let due = (elapsed_ns as f64 / interval_ns) as u64;
                let frames = (due - sent).min(CALL_FRAMES_MAX as u64) as usize;
                ensure!(
                    self.book.room() >= frames,
                    "swarm: {datagrams_per_s:.0} datagrams/s are beyond the server: {} unanswered",
                    self.book.waiting()
                );
                if frames > 0 {
                    let first = sent;
                    let at = |index: usize| {
                        start_ns + ((first + index as u64) as f64 * interval_ns) as u64
                    };
                    self.send_new(traffic, frames, at)?;
                    sent += frames as u64;
                }
                if sent == due {
                    next_group_ns = elapsed_ns + GROUP.as_nanos() as u64;
                }
            } else if received == 0 {
                let left = Duration::from_nanos(next_group_ns - elapsed_ns);
                self.port.wait(left.min(SLEEP_MAX), None);
            }
        }
        Ok(Run { tally: self.book.take_tally(), elapsed: started.elapsed() })
    }

    /// Sends what is unanswered again and again until all is, or `wait` is over;
    /// gives how many datagrams are still unanswered. What is counted meanwhile
    /// stays for the next loop, or [`super::book::Book::take_tally`].
    ///
    /// # Errors
    ///
    /// The kernel refuses to send.
    pub fn finish(&mut self, traffic: Traffic, wait: Duration) -> Result<usize> {
        let started = Instant::now();
        while self.book.waiting() > 0 && started.elapsed() < wait {
            if self.receive() == 0 {
                self.port.wait(SLEEP_MAX, None);
            }
            self.retry(traffic)?;
        }
        Ok(self.book.waiting())
    }
}
