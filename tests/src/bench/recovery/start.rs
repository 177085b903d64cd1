//! A start of the real server, timed from outside.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use veltrix::admin::client::call;
use veltrix::admin::log_status::LogStatus;
use veltrix::admin::protocol::{Reply, Request};

use super::directory::Made;
use crate::bench::service::{TempDir, binary};
use crate::lab::die_with_parent;

/// Longest wait for the status to say ready once the server serves.
const READY_MAX: Duration = Duration::from_secs(5);

/// A start.
#[derive(Clone, Debug)]
pub struct Started {
    /// From the start of the process until it takes events.
    pub ready: Duration,
    /// What the server says of it.
    pub log: LogStatus,
    /// Its lines, and when they came.
    pub lines: Vec<(Duration, String)>,
    /// Most memory that it had, KiB.
    pub peak_kib: u64,
    /// Time of all its threads on a core: hardly changed by what else runs on
    /// the machine, unlike [`Self::ready`].
    pub cpu: Duration,
}

impl Started {
    /// From the loaded snapshot until everything behind it was applied. The
    /// server's own figure begins when the log has been read for the first time.
    #[must_use]
    pub fn replay(&self) -> Duration {
        let at = |what| self.lines.iter().find(|(_, line)| line.contains(what)).map(|(at, _)| *at);
        match (at("snapshot at epoch"), at("log replayed:")) {
            (Some(loaded), Some(replayed)) => replayed.saturating_sub(loaded),
            _ => Duration::ZERO,
        }
    }
}

/// Killed when dropped: nothing of it may outlive the measurement.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Leaves nothing of a file in memory, so that it is read from the disk.
///
/// # Errors
///
/// `dd` is not there or fails.
pub fn forget(file: &Path) -> Result<()> {
    let mut command = Command::new("dd");
    command.arg(format!("if={}", file.display())).args(["iflag=nocache", "count=0"]);
    let output = command.output().context("dd cannot be run: apt-get install coreutils")?;
    ensure!(output.status.success(), "dd: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Starts the server on a directory, waits until it is ready and kills it.
///
/// # Errors
///
/// It ends before, replays something else, or is not ready.
pub fn start(made: &Made, lanes: usize) -> Result<Started> {
    forget(&made.snapshot)?;
    let dir = TempDir::new()?;
    let socket = dir.0.join("control.sock");
    let mut command = Command::new(binary()?);
    command.arg("run").arg("--data").arg(&made.data).arg("--control-socket").arg(&socket);
    command.args(["--listen", "127.0.0.1:0"]).env("VELTRIX_LANES_COUNT", lanes.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    die_with_parent(&mut command);
    let since = Instant::now();
    let mut server = Killed(command.spawn().context("`veltrix run` cannot be started")?);
    let stderr = server.0.stderr.take().context("its standard error")?;
    let mut lines = Vec::new();
    let mut is_serving = false;
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        is_serving = line.contains("serving UDP port");
        lines.push((since.elapsed(), line));
        if is_serving {
            break;
        }
    }
    let said = || lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
    ensure!(is_serving, "`veltrix run` ended before it served:\n{}", said());
    let serving = Instant::now();
    let log = loop {
        let status = match call(&socket, &Request::Status)? {
            Reply::Status(status) => *status.log.context("a status without the log")?,
            other => bail!("the server answered {other:?}, wanted its status"),
        };
        if status.ready {
            break status;
        }
        ensure!(serving.elapsed() < READY_MAX, "it serves and is not ready:\n{}", said());
    };
    let ready = since.elapsed();
    let peak_kib = peak_kib(server.0.id());
    let cpu = cpu(server.0.id());
    drop(server);
    check(made, &log)?;
    Ok(Started { ready, log, lines, peak_kib, cpu })
}

/// Whether it recovered what was there.
fn check(made: &Made, log: &LogStatus) -> Result<()> {
    let found = &log.recovery;
    ensure!(found.refused.is_empty(), "a snapshot was refused: {:?}", found.refused);
    let epoch = found.snapshot_epoch;
    ensure!(epoch == made.epoch, "snapshot of epoch {epoch} loaded, {} wanted", made.epoch);
    let wanted = made.last_epoch - made.epoch;
    // Each start before this one left the blank entry of its term.
    let (entries, bytes) = (found.entries, found.bytes);
    ensure!(entries >= wanted, "{entries} entries replayed, {wanted} wanted");
    ensure!(bytes >= made.log_bytes, "{bytes} bytes replayed, {} wanted", made.log_bytes);
    Ok(())
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

/// User and system time of a process so far; the kernel tells it in hundredths
/// of a second.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; behind it, the 12th and 13th.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum::<u64>();
    Duration::from_millis(ticks * 10)
}
