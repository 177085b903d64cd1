//! `veltrix status`: what a running server does, worst first.
//!
//! Alarms and sums that do not close stand at the top, then the modes, then
//! one row a queue or lane, those in trouble first, then the exits and the
//! equation. The text is made by [`render`], a pure function of two readings.

mod log;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, stdout};
use std::time::{Duration, Instant};

use clap::Args;
use veltrix_abi::{Action, Exit};

use super::{CliError, ExitStatus, ServerArgs, json_line, print_while_read};
use crate::admin::accounting::{by_action, exit, kernel_drops};
use crate::admin::protocol::{Reply, Request};
use crate::admin::status::{LaneStatus, Provider, QueueStatus, Status};
use crate::config::value::{show_bytes, show_count};

/// Show modes, counters, sums and alarms of a running server.
///
/// Ends with 10 when an alarm is raised or the sums do not close, with 3 when
/// no server runs. docs/METRICS.md explains every counter.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix status                     once
  veltrix status --watch 1s          every second, with rates, until Ctrl-C
  veltrix status --json              every counter, for programs")]
pub struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON, one object a reading.
    #[arg(long)]
    json: bool,
    /// Read again after each such time, until Ctrl-C.
    #[arg(long, value_name = "TIME", value_parser = parse_watch)]
    watch: Option<Duration>,
}

/// Shortest time between two readings: each costs the control core a walk over
/// all counters.
const WATCH_MIN: Duration = Duration::from_millis(100);

/// Moves to the corner of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";

fn parse_watch(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= WATCH_MIN => Ok(time),
        Ok(_) => Err("wanted at least 100ms".into()),
        Err(e) => Err(format!("{e}; wanted a time such as 1s or 500ms")),
    }
}

/// Runs the command.
///
/// # Errors
///
/// No server, or one that does not answer.
pub fn run(args: &StatusArgs) -> Result<ExitStatus, CliError> {
    let mut before: Option<(Status, Instant)> = None;
    loop {
        let status = match args.server.ask(&Request::Status)? {
            Reply::Status(status) => *status,
            other => {
                let text = format!("the server answered something else: {other:?}");
                return Err(CliError::new(ExitStatus::Error, text));
            }
        };
        let now = Instant::now();
        let text = if args.json {
            json_line(&status)?
        } else {
            let since = before.as_ref().map(|(status, at)| (status, now - *at));
            let clear = if args.watch.is_some() && stdout().is_terminal() { CLEAR } else { "" };
            format!("{clear}{}", render(&status, since))
        };
        let is_read = print_while_read(&text)?;
        let Some(pause) = args.watch.filter(|_| is_read) else {
            let healthy = status.is_healthy();
            return Ok(if healthy { ExitStatus::Ok } else { ExitStatus::Unhealthy });
        };
        before = Some((status, now));
        std::thread::sleep(pause);
    }
}

/// The status as text; with an earlier reading and the time since, with rates.
#[must_use]
pub fn render(status: &Status, before: Option<(&Status, Duration)>) -> String {
    let mut out = String::new();
    // A server that was started anew has nothing to do with the old one's counters.
    let before = before.filter(|(old, _)| old.pid == status.pid);
    alarms(&mut out, status);
    head(&mut out, status);
    let _ = writeln!(out);
    match status.provider {
        Provider::Xdp => queues(&mut out, status, before),
        Provider::Udp => sockets(&mut out, status, before),
    }
    work(&mut out, status);
    log::log(&mut out, status);
    exits(&mut out, status);
    sums(&mut out, status);
    out
}

fn alarms(out: &mut String, status: &Status) {
    let mut alarms: Vec<_> = status.alarms.iter().collect();
    alarms.sort_by_key(|alarm| Reverse(alarm.since_s));
    for alarm in alarms {
        let since = humantime::format_duration(Duration::from_secs(alarm.since_s));
        let _ = writeln!(out, "ALARM {} for {since}: {}", alarm.name, alarm.message);
    }
    for gap in &status.accounting.gaps {
        let _ = writeln!(
            out,
            "DOES NOT CLOSE {}: {}: {} against {}",
            gap.place,
            gap.line,
            show_count(gap.left),
            show_count(gap.right)
        );
    }
    if !out.is_empty() {
        out.push('\n');
    }
}

fn head(out: &mut String, status: &Status) {
    let up = humantime::format_duration(Duration::from_secs(status.uptime_s));
    let _ = writeln!(out, "veltrix {}, process {}, up {up}", status.version, status.pid);
    let provider = match status.provider {
        Provider::Xdp => "AF_XDP",
        Provider::Udp => "UDP sockets",
    };
    let _ = writeln!(out, "provider  {provider}: {}", status.provider_reason);
    if let Some(nic) = &status.nic {
        let _ = writeln!(
            out,
            "nic       {} ({}), XDP {} mode, program {} of {} instructions, queues {} rx {} tx, {} at start",
            nic.name,
            nic.driver,
            nic.xdp_mode,
            nic.program_id,
            nic.instructions,
            nic.rx_queues,
            nic.tx_queues,
            nic.queues_at_start
        );
    }
    let _ = writeln!(
        out,
        "serving   UDP port {}, sockets on {}, payload up to {} B, {} partitions",
        status.port,
        status.listen,
        show_count(status.payload_bytes_max.into()),
        status.partitions
    );
}

/// Frames a second between two readings of a counter.
fn rate(now: u64, before: Option<u64>, since: Option<Duration>) -> String {
    match (before, since) {
        (Some(before), Some(since)) if !since.is_zero() => {
            let per_s = now.saturating_sub(before) as f64 / since.as_secs_f64();
            show_count(per_s.round() as u64)
        }
        _ => "-".into(),
    }
}

/// One row a queue: what the program did with its frames, and its lane.
fn queues(out: &mut String, status: &Status, before: Option<(&Status, Duration)>) {
    let mut table = Table::new(
        &[
            "queue",
            "lane",
            "core",
            "mode",
            "zero-copy",
            "wait",
            "frames",
            "frames/s",
            "to lane",
            "passed",
            "dropped",
            "fallback",
            "ring full",
            "rx dropped",
            "waiting",
        ],
        &[3, 4, 5],
    );
    let mode = status.nic.as_ref().map_or("none", |nic| nic.xdp_mode.as_str());
    let lane_of = |queue: &QueueStatus| {
        status.lanes.iter().find(|lane| queue.queue.is_some() && lane.queue == queue.queue)
    };
    let trouble = |queue: &QueueStatus| {
        let lost = lane_of(queue).map_or(0, kernel_drops);
        let fallback = exit(&queue.exits, Exit::PassFallback);
        Reverse((lost.saturating_add(fallback), lane_of(queue).is_none()))
    };
    let mut rows: Vec<_> = status.xdp_queues.iter().collect();
    rows.sort_by_key(|queue| (trouble(queue), queue.queue));
    for queue in rows {
        let old = before.and_then(|(old, _)| {
            old.xdp_queues.iter().find(|row| row.queue == queue.queue).map(|row| row.frames)
        });
        let lane = lane_of(queue);
        let of_lane = |text: &dyn Fn(&LaneStatus) -> String| lane.map_or("-".into(), text);
        table.row(vec![
            queue.queue.map_or("beyond".into(), |number| number.to_string()),
            of_lane(&|lane| lane.lane.to_string()),
            of_lane(&|lane| lane.core.map_or("any".into(), |core| core.to_string())),
            mode.to_owned(),
            of_lane(&|lane| if lane.zero_copy { "yes" } else { "no" }.into()),
            of_lane(&|lane| lane.wait.clone()),
            show_count(queue.frames),
            rate(queue.frames, old, before.map(|(_, since)| since)),
            show_count(exit(&queue.exits, Exit::RedirectXsk)),
            show_count(by_action(&queue.exits, Action::Pass)),
            show_count(by_action(&queue.exits, Action::Drop)),
            show_count(exit(&queue.exits, Exit::PassFallback)),
            of_lane(&|lane| show_count(lane.xdp_statistics.rx_ring_full)),
            of_lane(&|lane| show_count(lane.xdp_statistics.rx_dropped)),
            of_lane(&|lane| show_count(lane.rings.rx.into())),
        ]);
    }
    out.push_str(&table.render());
    if let Some(fallback) = &status.fallback {
        let _ = writeln!(
            out,
            "fallback socket: {} received, {} dropped by the kernel",
            show_count(fallback.frames),
            show_count(fallback.socket_drops)
        );
    }
    let observed: u64 = status.xdp_queues.iter().map(|queue| queue.rate_observed).sum();
    if observed > 0 {
        let _ =
            writeln!(out, "rate limit (observing): would have dropped {}", show_count(observed));
    }
}

/// One row a lane on a UDP socket.
fn sockets(out: &mut String, status: &Status, before: Option<(&Status, Duration)>) {
    let mut table = Table::new(
        &["lane", "core", "wait", "datagrams", "datagrams/s", "dropped by kernel"],
        &[2],
    );
    let mut rows: Vec<_> = status.lanes.iter().collect();
    rows.sort_by_key(|lane| (Reverse(lane.socket_drops), lane.lane));
    for lane in rows {
        let old = before.and_then(|(old, _)| {
            old.lanes.iter().find(|row| row.lane == lane.lane).map(|row| row.frames)
        });
        table.row(vec![
            lane.lane.to_string(),
            lane.core.map_or("any".into(), |core| core.to_string()),
            lane.wait.clone(),
            show_count(lane.frames),
            rate(lane.frames, old, before.map(|(_, since)| since)),
            show_count(lane.socket_drops),
        ]);
    }
    out.push_str(&table.render());
}

/// One row a lane: what it did and what that cost.
fn work(out: &mut String, status: &Status) {
    let mut table = Table::new(
        &[
            "lane",
            "frames",
            "events",
            "replies",
            "shared",
            "lost",
            "withheld",
            "syscalls/1k",
            "sleeps",
            "kept off",
            "memory",
            "pages",
        ],
        &[0, 11],
    );
    let named = status.lanes.iter().map(|lane| (lane.lane.to_string(), lane));
    let fallback = status.fallback.iter().map(|lane| ("fallback".to_owned(), lane));
    let mut rows: Vec<_> = named.chain(fallback).collect();
    rows.sort_by_key(|(_, lane)| Reverse(lane.replies.dropped_tx_full));
    for (name, lane) in rows {
        let per_1k = match lane.frames {
            0 => "-".into(),
            frames => format!("{:.1}", lane.syscalls as f64 * 1_000.0 / frames as f64),
        };
        // Of the time since the start, something else had its core.
        let kept_off = lane.run_delay_ns.map_or("-".into(), |ns| {
            format!("{:.2} %", ns as f64 / 1e9 / status.uptime_s.max(1) as f64 * 100.0)
        });
        table.row(vec![
            name,
            show_count(lane.frames),
            show_count(lane.events),
            show_count(lane.replies.sent),
            show_count(lane.replies.coalesced),
            show_count(lane.replies.dropped_tx_full),
            show_count(lane.replies.withheld),
            per_1k,
            show_count(lane.sleeps),
            kept_off,
            show_bytes(lane.umem_bytes),
            lane.umem_pages.clone(),
        ]);
    }
    let _ = write!(out, "\n{}", table.render());
}

/// Exits over all queues and lanes that are not zero: drops first, then by count.
fn exits(out: &mut String, status: &Status) {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for queue in &status.xdp_queues {
        for (label, count) in &queue.exits {
            let sum = &mut counts.entry(label).or_default().0;
            *sum = sum.saturating_add(*count);
        }
    }
    for lane in status.lanes.iter().chain(&status.fallback) {
        for (label, count) in &lane.exits {
            let sum = &mut counts.entry(label).or_default().1;
            *sum = sum.saturating_add(*count);
        }
    }
    let known = |label: &str| Exit::ALL.iter().find(|exit| exit.label() == label);
    let mut rows: Vec<_> =
        counts.into_iter().filter(|(_, (program, lanes))| program | lanes != 0).collect();
    rows.sort_by_key(|(label, (program, lanes))| {
        let is_drop = known(label).is_some_and(|exit| exit.action() == Action::Drop);
        (!is_drop, Reverse(program.saturating_add(*lanes)))
    });
    if rows.is_empty() {
        let _ = writeln!(out, "\nno frame has left by any exit yet");
        return;
    }
    let mut table = Table::new(&["exit", "action", "program", "lanes"], &[0, 1]);
    let shown = |count: u64| if count == 0 { "-".into() } else { show_count(count) };
    for (label, (program, lanes)) in rows {
        let action = known(label).map_or("unknown here", |exit| exit.action().name());
        table.row(vec![label.into(), action.into(), shown(program), shown(lanes)]);
    }
    let _ = write!(out, "\n{}", table.render());
}

/// The equation, spelt out.
fn sums(out: &mut String, status: &Status) {
    let sums = &status.accounting;
    let n = show_count;
    out.push('\n');
    let _ = match status.provider {
        Provider::Xdp => writeln!(
            out,
            "frames in {} = passed {} + dropped {} + redirected {} + fallback {}\n\
             redirected {} = lane exits {} + dropped by kernel {} + in flight {}\n\
             fallback {} = received {} + dropped at the socket {} + lost in the stack {}",
            n(sums.frames_in),
            n(sums.passed),
            n(sums.dropped),
            n(sums.redirected),
            n(sums.fallback_expected),
            n(sums.redirected),
            n(sums.lane_exits),
            n(sums.kernel_dropped),
            n(sums.in_flight),
            n(sums.fallback_expected),
            n(sums.fallback_received),
            n(sums.fallback_dropped),
            n(sums.lost_in_stack),
        ),
        Provider::Udp => writeln!(
            out,
            "datagrams in {} = lane exits {} + dropped by kernel {}",
            n(sums.frames_in),
            n(sums.lane_exits),
            n(sums.kernel_dropped),
        ),
    };
    if sums.past_program > 0 {
        let _ = writeln!(
            out,
            "fallback includes {} past the program, on queues added after it was attached",
            n(sums.past_program)
        );
    }
    let reading = status
        .xdp_queues
        .iter()
        .map(|queue| queue.arrived_while_reading)
        .chain(status.lanes.iter().chain(&status.fallback).map(|lane| lane.arrived_while_reading))
        .fold(0, u64::saturating_add);
    let _ = match (sums.closes, reading) {
        (true, 0) => writeln!(out, "closes"),
        (true, _) => writeln!(out, "closes, within what came while it was read ({})", n(reading)),
        (false, _) => writeln!(out, "DOES NOT CLOSE by {}", n(sums.unaccounted.unsigned_abs())),
    };
}

/// Text in columns: numbers to the right, words to the left.
pub(super) struct Table {
    header: Vec<&'static str>,
    left: &'static [usize],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names, of which those in `left` hold words.
    pub(super) fn new(header: &[&'static str], left: &'static [usize]) -> Self {
        Self { header: header.to_vec(), left, rows: Vec::new() }
    }

    /// Adds a row: one cell a column.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// The table, a line a row.
    pub(super) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(self.header[column].chars().count())
        };
        let widths: Vec<_> = (0..self.header.len()).map(width).collect();
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (column, (cell, width)) in cells.zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let _ = if self.left.contains(&column) {
                    write!(text, "{gap}{cell:<width$}")
                } else {
                    write!(text, "{gap}{cell:>width$}")
                };
            }
            out.push_str(text.trim_end());
            out.push('\n');
        };
        line(&mut self.header.iter().copied());
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str));
        }
        out
    }
}

#[cfg(test)]
mod tests;
