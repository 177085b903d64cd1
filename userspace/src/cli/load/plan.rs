//! What to send, and the numbers that follow from it.

use std::time::Duration;

use veltrix_abi::limits::{
    EVENT_FIXED_BYTES, EVENT_PAYLOAD_BYTES_MAX, HEADER_BYTES, PAYLOAD_BYTES_LIMIT,
};
use veltrix_abi::wire::{Mode, Welcome};

use super::world::Distribution;
use crate::cli::{CliError, ExitStatus};

/// Connections a load may have; each has a receiving thread.
pub const CONNECTIONS_MAX: u32 = 256;

/// Slots for unanswered datagrams, over all connections; 24 bytes each.
const FLIGHTS: usize = 1 << 20;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Events a second, by schedule, whatever the server does.
    Events(f64),
    /// As fast as answers come, with this many datagrams of each connection
    /// unanswered at a time.
    Max {
        /// Datagrams.
        window: u32,
    },
}

/// Events in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many.
    Events(u16),
    /// As many as the server takes.
    Max,
}

/// A load, complete.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Server: HOST:PORT.
    pub addr: String,
    /// Events a second, or as fast as answers come.
    pub rate: Rate,
    /// How long to send.
    pub duration: Duration,
    /// Events in each datagram.
    pub fill: Fill,
    /// Opaque bytes of each event.
    pub payload_bytes: usize,
    /// Players that act; ids 1 to this.
    pub players: u64,
    /// Hunts they act in; domain keys 1 to this.
    pub domains: u64,
    /// How events spread over hunts and cells.
    pub distribution: Distribution,
    /// Ack mode to ask for.
    pub mode: Mode,
    /// Sockets, each with a source port of its own.
    pub connections: u32,
    /// Repeats hunts, cells and players of a run; keys are new in every run.
    pub seed: Option<u64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            addr: crate::cli::ping::ADDR_DEFAULT.to_owned(),
            rate: Rate::Events(100_000.0),
            duration: Duration::from_secs(10),
            fill: Fill::Max,
            payload_bytes: 0,
            players: 100_000,
            domains: 1_000,
            distribution: Distribution::Cities,
            mode: Mode::None,
            connections: 1,
            seed: None,
        }
    }
}

fn usage(flag: &str, seen: impl std::fmt::Display, wanted: impl std::fmt::Display) -> CliError {
    CliError::new(ExitStatus::Usage, format!("{flag} is {seen}, wanted {wanted}"))
}

impl Plan {
    /// Whether it can be carried out at all.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::Usage`], naming flag, value seen and value wanted.
    pub fn check(&self) -> Result<(), CliError> {
        match self.rate {
            Rate::Events(rate) if !(rate.is_finite() && rate > 0.0) => {
                return Err(usage("--rate", rate, "above zero"));
            }
            Rate::Max { window: 0 } => return Err(usage("--window", 0, "1 or more")),
            _ => {}
        }
        if self.duration.is_zero() {
            return Err(usage("--for", "zero", "above zero, such as 10s"));
        }
        if self.payload_bytes > EVENT_PAYLOAD_BYTES_MAX {
            let wanted = format!("0 to {EVENT_PAYLOAD_BYTES_MAX}");
            return Err(usage("--payload-bytes", self.payload_bytes, wanted));
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return Err(usage(
                "--connections",
                self.connections,
                format!("1 to {CONNECTIONS_MAX}"),
            ));
        }
        for (flag, value, most) in [
            ("--players", self.players, u64::MAX),
            // The tables of the skewed distributions hold 16 bytes a hunt.
            ("--domains", self.domains, 10_000_000),
        ] {
            if value == 0 || value > most {
                return Err(usage(flag, value, format!("1 to {most}")));
            }
        }
        Ok(())
    }

    /// Events in each datagram, given what the server takes.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::Usage`] when so many do not fit.
    pub fn fill_of(&self, welcome: &Welcome) -> Result<u16, CliError> {
        let room = usize::from(welcome.payload_bytes_max).min(PAYLOAD_BYTES_LIMIT);
        let event_bytes = EVENT_FIXED_BYTES + self.payload_bytes.next_multiple_of(8);
        let most = (room.saturating_sub(HEADER_BYTES) / event_bytes) as u16;
        let most = most.min(welcome.events_max);
        if most == 0 {
            let wanted = format!("events that fit the server's datagrams of {room} bytes");
            return Err(usage("--payload-bytes", self.payload_bytes, wanted));
        }
        match self.fill {
            Fill::Max => Ok(most),
            Fill::Events(fill) if (1..=most).contains(&fill) => Ok(fill),
            Fill::Events(fill) => {
                let why = format!(
                    "1 to {most}: the server takes {room} bytes, {} events, a datagram",
                    welcome.events_max
                );
                Err(usage("--fill", fill, why))
            }
        }
    }

    /// The schedule of connection `index` at `fill` events a datagram.
    #[must_use]
    pub fn schedule(&self, index: u32, fill: u16) -> Schedule {
        match self.rate {
            Rate::Max { window } => Schedule::Window { datagrams: window.into() },
            Rate::Events(rate) => {
                let every_ns = f64::from(fill) * 1e9 / rate;
                Schedule::Open {
                    first_ns: every_ns * f64::from(index),
                    every_ns: every_ns * f64::from(self.connections),
                    end_ns: self.duration.as_nanos() as f64,
                }
            }
        }
    }

    /// Datagrams one connection may have unanswered at the most: two seconds'
    /// worth where the rate is known, since one is given up after one second.
    #[must_use]
    pub fn flights(&self, fill: u16) -> usize {
        let share = FLIGHTS / self.connections as usize;
        match self.rate {
            Rate::Max { window } => share.max(window as usize),
            Rate::Events(rate) => {
                let per_s = rate / f64::from(fill) / f64::from(self.connections);
                ((2.0 * per_s) as usize).clamp(1_024, share.max(1_024))
            }
        }
    }
}

/// When a connection sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Datagram k at `first_ns + k * every_ns` since the start, while below
    /// `end_ns`.
    Open {
        /// Of the first.
        first_ns: f64,
        /// Between two.
        every_ns: f64,
        /// End of the run.
        end_ns: f64,
    },
    /// Whenever fewer than so many are unanswered.
    Window {
        /// Datagrams.
        datagrams: u64,
    },
}

impl Schedule {
    /// When datagram `k` is due; `None` past the end, or without a schedule.
    #[must_use]
    pub fn due_ns(&self, k: u64) -> Option<u64> {
        match *self {
            Self::Open { first_ns, every_ns, end_ns } => {
                let due_ns = first_ns + k as f64 * every_ns;
                (due_ns < end_ns).then_some(due_ns as u64)
            }
            Self::Window { .. } => None,
        }
    }

    /// Datagrams it asks for in all; `None` without a schedule.
    #[must_use]
    pub fn intended(&self) -> Option<u64> {
        match *self {
            Self::Open { first_ns, every_ns, end_ns } => {
                Some(((end_ns - first_ns) / every_ns).ceil().max(0.0) as u64)
            }
            Self::Window { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_the_rate_evenly_and_interleaved() {
        let plan = Plan {
            rate: Rate::Events(1_000.0),
            duration: Duration::from_secs(1),
            connections: 4,
            ..Plan::default()
        };
        let schedules: Vec<_> = (0..4).map(|i| plan.schedule(i, 10)).collect();
        let total: u64 = schedules.iter().filter_map(Schedule::intended).sum();
        assert_eq!(total, 100);
        assert_eq!(schedules[0].due_ns(0), Some(0));
        assert_eq!(schedules[1].due_ns(0), Some(10_000_000));
        assert_eq!(schedules[0].due_ns(1), Some(40_000_000));
        for schedule in schedules {
            let intended = schedule.intended().expect("open");
            assert!(schedule.due_ns(intended - 1).is_some());
            assert!(schedule.due_ns(intended).is_none());
        }
    }

    #[test]
    fn fill_is_held_against_the_server() {
        let welcome = Welcome {
            log_time_ns: 0,
            epoch: 0,
            partitions: 64,
            lanes: 1,
            port_first: 1,
            port_last: 1,
            modes: 1,
            version_min: 1,
            version_max: 1,
            role: 1,
            payload_bytes_max: 1232,
            events_max: 24,
            cookie: 0,
            cluster_id: 0,
            features: 0,
        };
        let plan = |fill, payload_bytes| Plan { fill, payload_bytes, ..Plan::default() };
        assert_eq!(plan(Fill::Max, 0).fill_of(&welcome), Ok(24));
        assert_eq!(plan(Fill::Max, 512).fill_of(&welcome), Ok(2));
        assert_eq!(plan(Fill::Events(24), 0).fill_of(&welcome), Ok(24));
        for (fill, payload_bytes) in [(25, 0), (0, 0), (3, 512)] {
            let error = plan(Fill::Events(fill), payload_bytes).fill_of(&welcome).expect_err("no");
            assert_eq!(error.status, ExitStatus::Usage);
        }
    }

    #[test]
    fn nonsense_is_refused_by_flag() {
        let base = Plan::default();
        for (plan, flag) in [
            (Plan { rate: Rate::Events(0.0), ..base.clone() }, "--rate"),
            (Plan { rate: Rate::Events(f64::NAN), ..base.clone() }, "--rate"),
            (Plan { rate: Rate::Max { window: 0 }, ..base.clone() }, "--window"),
            (Plan { duration: Duration::ZERO, ..base.clone() }, "--for"),
            (Plan { payload_bytes: 513, ..base.clone() }, "--payload-bytes"),
            (Plan { connections: 0, ..base.clone() }, "--connections"),
            (Plan { players: 0, ..base.clone() }, "--players"),
            (Plan { domains: 0, ..base.clone() }, "--domains"),
        ] {
            let error = plan.check().expect_err(flag);
            assert!(error.message.starts_with(flag), "{error}");
        }
        assert_eq!(base.check(), Ok(()));
    }
}
