//! The node under test: a data directory sized for the run, `veltrix run` on it
//! in the lab, and what its status says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use veltrix_abi::partition::{PARTITIONS_DEFAULT, partition_of};

use crate::bench::service::{Provider, binary};
use crate::lab::Lab;
use crate::server::Server;
use crate::swarm::traffic::World;

/// What a data directory is formatted with.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Keys remembered.
    pub dedupe_keys_max: u64,
}

impl Sizes {
    /// Bytes of the log.
    #[must_use]
    pub const fn log_bytes(&self) -> u64 {
        self.segment_bytes * self.segments
    }
}

/// Most hunts of `world` that share a partition.
#[must_use]
pub fn hunts_in_fullest(world: &World) -> u64 {
    let mut hunts = vec![0; usize::from(PARTITIONS_DEFAULT)];
    for hunt in 0..world.hunts {
        hunts[usize::from(partition_of(world.domain(hunt), PARTITIONS_DEFAULT))] += 1;
    }
    hunts.into_iter().max().unwrap_or(0)
}

/// Formats `dir` so that `world` fits.
///
/// # Errors
///
/// When `veltrix format` fails, with what it said.
pub fn format(dir: &Path, world: &World, sizes: &Sizes) -> Result<()> {
    let partitions = u64::from(PARTITIONS_DEFAULT);
    let fullest = hunts_in_fullest(world) * partitions;
    let mut command = Command::new(binary()?);
    command.arg("format").arg("--data").arg(dir);
    for (flag, value) in [
        ("--partitions", partitions),
        ("--segment-bytes", sizes.segment_bytes),
        ("--segments", sizes.segments),
        ("--cells-max", fullest * u64::from(world.cells)),
        ("--players-max", fullest * u64::from(world.players)),
        ("--dedupe-keys-max", sizes.dedupe_keys_max),
    ] {
        command.arg(flag).arg(value.to_string());
    }
    let output = command.args(["--yes", "--json"]).output().context("start `veltrix format`")?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A running node.
pub struct Node {
    /// The process.
    pub server: Server,
    data: Option<PathBuf>,
}

impl Node {
    /// Starts it; without `data` it keeps nothing.
    ///
    /// # Errors
    ///
    /// When it does not serve.
    pub fn start(lab: &Lab, provider: Provider, data: Option<&Path>) -> Result<Self> {
        Self::start_with(lab, provider, data, &[])
    }

    /// [`Self::start`] with more arguments.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(
        lab: &Lab,
        provider: Provider,
        data: Option<&Path>,
        more: &[&str],
    ) -> Result<Self> {
        let path = data.map(|data| data.to_string_lossy().into_owned());
        let mut all: Vec<&str> = path.iter().flat_map(|path| ["--data", path]).collect();
        all.extend(more);
        let server = Server::start(lab, provider, &all)?;
        Ok(Self { server, data: data.map(Path::to_path_buf) })
    }

    /// What `veltrix status --json` says.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn status(&self, lab: &Lab) -> Result<Value> {
        let finished = self.server.cli(lab, &["status", "--json"])?;
        serde_json::from_str(&finished.out)
            .with_context(|| format!("veltrix status --json: {}", finished.err))
    }

    /// What it has said and what its status is, for an error.
    #[must_use]
    pub fn last_words(&self, lab: &Lab) -> String {
        let status = self.status(lab).map_or_else(
            |error| format!("{error:#}"),
            |status| {
                format!(
                    "alarms {} events {} log {}",
                    status["alarms"], status["events"], status["log"]
                )
            },
        );
        format!("the node said:\n{}\nstatus: {status}", self.server.said())
    }

    /// Whether it keeps a log.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        self.data.is_some()
    }
}

/// The number at `path` in a status; 0 where there is none.
#[must_use]
pub fn number(status: &Value, path: &str) -> u64 {
    status.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}
