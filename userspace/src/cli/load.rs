//! `veltrix load`: synthetic events at a rate that the server does not set.
//!
//! [`drive`] is the generator, as a function of a [`Plan`]; the rest of this
//! file is its command line. `world` says where events happen, `plan` when
//! datagrams leave, `drive` moves them, `report` says what became of them.

mod drive;
mod flight;
mod plan;
mod report;
pub(super) mod sockets;
mod world;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use veltrix_abi::wire::Mode;

pub use drive::{Progress, drive, drive_watched};
pub use plan::{Fill, Plan, Rate, Schedule};
pub use report::{Behind, Report};
pub use world::{Distribution, World};

use super::ping::ADDR_DEFAULT;
use super::{CliError, ExitStatus, json_line, print};

/// Arguments of `veltrix load`.
#[derive(clap::Args, Clone, Debug)]
pub struct LoadArgs {
    /// Server to load: HOST:PORT.
    #[arg(default_value = ADDR_DEFAULT)]
    pub addr: String,

    /// Events a second, such as `100k` or `1.5M`, sent by schedule whatever
    /// the server does; or `max`: as fast as answers come.
    #[arg(long, default_value = "100k", value_parser = rate)]
    pub rate: RateArg,

    /// With `--rate max`: datagrams of each connection unanswered at a time.
    #[arg(long, default_value_t = 256)]
    pub window: u32,

    /// How long to send, such as `10s`.
    #[arg(long = "for", default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,

    /// Events in each datagram: a number, or `max`: as many as fit.
    #[arg(long, default_value = "max", value_parser = fill)]
    pub fill: Fill,

    /// Opaque bytes of each event, at most 512.
    #[arg(long, default_value_t = 0)]
    pub payload_bytes: usize,

    /// Players that act, such as `100k`.
    #[arg(long, default_value = "100k", value_parser = count)]
    pub players: u64,

    /// Hunts they act in, each a consistency domain.
    #[arg(long, default_value = "1k", value_parser = count)]
    pub domains: u64,

    /// How events spread over hunts and cells.
    #[arg(long, value_enum, default_value = "cities")]
    pub distribution: Distribution,

    /// What an ack must promise.
    #[arg(long, value_enum, default_value = "none")]
    pub mode: AckMode,

    /// Sockets to send from, each with a source port of its own.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,

    /// Repeat the hunts, cells and players of a run; keys are always new.
    #[arg(long)]
    pub seed: Option<u64>,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,

    /// Write the distribution of ack latencies, microseconds, to this file, in
    /// the percentile text form of HdrHistogram.
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
}

/// The value of `--rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateArg {
    /// Events a second.
    Events(f64),
    /// As fast as answers come.
    Max,
}

/// [`Mode`], as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AckMode {
    /// Received and counted, before any log.
    None,
    /// Durable on a majority and applied.
    Durable,
}

impl From<AckMode> for Mode {
    fn from(mode: AckMode) -> Self {
        match mode {
            AckMode::None => Self::None,
            AckMode::Durable => Self::Durable,
        }
    }
}

impl LoadArgs {
    /// The plan that the flags describe.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan {
            addr: self.addr.clone(),
            rate: match self.rate {
                RateArg::Events(rate) => Rate::Events(rate),
                RateArg::Max => Rate::Max { window: self.window },
            },
            duration: self.duration,
            fill: self.fill,
            payload_bytes: self.payload_bytes,
            players: self.players,
            domains: self.domains,
            distribution: self.distribution,
            mode: self.mode.into(),
            connections: self.connections,
            seed: self.seed,
        }
    }
}

/// Runs `veltrix load`.
///
/// # Errors
///
/// As [`drive`], and when the `--hdr` file cannot be written. That no event
/// was acknowledged is no error but the status [`ExitStatus::Unhealthy`].
pub fn run(args: LoadArgs) -> Result<ExitStatus, CliError> {
    let plan = args.plan();
    let bar = bar(&plan, args.json);
    let report = drive_watched(&plan, &mut |progress| {
        bar.set_position(progress.elapsed.min(plan.duration).as_millis() as u64);
        let Progress { events_sent, events_answered, .. } = progress;
        bar.set_message(format!("{events_sent} events sent, {events_answered} answered"));
    });
    bar.finish_and_clear();
    let report = report?;
    if let Some(path) = &args.hdr {
        std::fs::write(path, report.hdr_text()).map_err(|error| {
            CliError::new(ExitStatus::Error, format!("--hdr {}: {error}", path.display()))
        })?;
    }
    print(&if args.json { json_line(&report)? } else { report.text() })?;
    Ok(if report.events_acked == 0 { ExitStatus::Unhealthy } else { ExitStatus::Ok })
}

/// A bar over the run's duration; hidden unless somebody watches.
fn bar(plan: &Plan, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(plan.duration.as_millis() as u64);
    // A constant template that parses; without it the default one would show.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {elapsed}/{duration} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// A number with an optional k, M or G: thousands, millions, milliards.
fn quantity(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number * factor),
        _ => Err("wanted a number above zero, such as 500, 100k or 1.5M".into()),
    }
}

fn rate(text: &str) -> Result<RateArg, String> {
    if text == "max" { Ok(RateArg::Max) } else { quantity(text).map(RateArg::Events) }
}

/// A whole number above zero, with an optional k, M or G.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let number = quantity(text)?;
    if number.fract() == 0.0 && number < u64::MAX as f64 {
        Ok(number as u64)
    } else {
        Err("wanted a whole number, such as 500, 100k or 1M".into())
    }
}

fn fill(text: &str) -> Result<Fill, String> {
    match text {
        "max" => Ok(Fill::Max),
        _ => match text.parse() {
            Ok(events @ 1..) => Ok(Fill::Events(events)),
            _ => Err("wanted a number of events from 1 on, or `max`".into()),
        },
    }
}

#[cfg(test)]
mod tests;
