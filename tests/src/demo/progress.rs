//! What goes on, while it goes on: a bar where somebody watches, else a line a
//! second.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use veltrix::config::value::show_count;

/// How often a bar is drawn.
const BAR_EVERY: Duration = Duration::from_millis(250);

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// See the module. On standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    every: Duration,
    last: Reading,
}

/// Counters at a time.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    datagrams: u64,
    events: u64,
}

impl Progress {
    /// Over a run of `duration`.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(duration.as_millis() as u64);
            // A constant template that parses; without it the default one would show.
            if let Ok(style) = ProgressStyle::with_template("{bar:12} {elapsed:>4}  {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        let started = Instant::now();
        let every = if bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        Self { bar, started, every, last: Reading { at: started, datagrams: 0, events: 0 } }
    }

    /// Whether [`Self::show`] has something to do: counters need not be read
    /// more often.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.last.at.elapsed() >= self.every
    }

    /// Shows rates since the last time, from totals of now.
    pub fn show(&mut self, doing: &str, datagrams: u64, events: u64) {
        let now = Reading { at: Instant::now(), datagrams, events };
        let seconds = (now.at - self.last.at).as_secs_f64().max(1e-3);
        let rate =
            |now: u64, last: u64| show_count((now.saturating_sub(last) as f64 / seconds) as u64);
        let text = format!(
            "{doing}: {} datagrams/s, {} events/s acked",
            rate(datagrams, self.last.datagrams),
            rate(events, self.last.events)
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position((now.at - self.started).as_millis() as u64);
                bar.set_message(text);
            }
            None => eprintln!("demo: {:>4.1} s  {text}", (now.at - self.started).as_secs_f64()),
        }
        self.last = now;
    }

    /// Says something that stays.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("demo: {text}")),
            None => eprintln!("demo: {text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
