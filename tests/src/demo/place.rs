//! Where the node runs: in the lab behind XDP, or on this host's loopback; and
//! what is counted outside it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use veltrix::base::cpu;

use super::server::Process;
use super::sums::Outside;
use crate::bench::rig::PORT;
use crate::bench::service::{self, Provider};
use crate::lab::{Lab, LabSpec, SERVER_IPV4, Side, Sink};

/// Port served on the loopback.
const LOOPBACK_PORT: u16 = 4_749;

/// See the module.
pub enum Place {
    /// A veth pair with XDP at the node's end.
    Lab {
        /// The pair.
        lab: Box<Lab>,
        /// Counts what comes back.
        sink: Sink,
    },
    /// UDP sockets.
    Loopback,
}

/// The link's counters at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    sent: u64,
    taken: u64,
    answers: u64,
    refused: u64,
}

impl Place {
    /// The lab; `queues` of its interfaces, else for half the cores.
    ///
    /// # Errors
    ///
    /// No privileges, or more queues than cores.
    pub fn lab(queues: Option<u32>) -> Result<Self> {
        let cores = cpu::allowed_cores().len();
        let queues = queues.unwrap_or((cores as u32 / 2).max(1));
        ensure!(
            queues as usize <= cores,
            "demo: --queues is {queues}, wanted at most {cores}: one for each core this process may use"
        );
        let lab = Lab::new(LabSpec::with_queues(queues)).context(
            "demo: the network lab cannot be made; `cargo xtask demo --sockets` does without",
        )?;
        let sink = Sink::attach(&lab, None)?;
        Ok(Self::Lab { lab: Box::new(lab), sink })
    }

    /// The node's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Lab { .. } => (SERVER_IPV4, PORT).into(),
            Self::Loopback => ([127, 0, 0, 1], LOOPBACK_PORT).into(),
        }
    }

    /// `veltrix run` with its control socket in `home`.
    #[must_use]
    pub fn command(&self, binary: &Path, home: &Path, data: &Path) -> Command {
        let mut command = match self {
            Self::Lab { .. } => service::run_command(binary, Provider::Xdp, home, &[]),
            Self::Loopback => {
                let mut command = Command::new(binary);
                command.args(["run", "--listen", &self.address().to_string(), "--control-socket"]);
                command.arg(home.join("control.sock"));
                command
            }
        };
        command.arg("--data").arg(data);
        command
    }

    /// Starts a node.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn spawn(&self, mut command: Command) -> io::Result<Process> {
        match self {
            Self::Lab { lab, .. } => lab.spawn_server(command).map(Process::Lab),
            Self::Loopback => command.spawn().map(Process::Own),
        }
    }

    /// Runs `f` where clients are.
    pub fn as_client<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Lab { lab, .. } => lab.client(f),
            Self::Loopback => f(),
        }
    }

    /// The link's counters now.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn read(&self) -> Result<Reading> {
        let Self::Lab { lab, sink } = self else { return Ok(Reading::default()) };
        let (client, server) = (lab.counters(Side::Client)?, lab.counters(Side::Server)?);
        let answers = sink.read()?;
        Ok(Reading {
            sent: client.tx_packets,
            taken: server.sum(|queue| queue.xdp_packets),
            answers: answers.dropped.frames + answers.passed.frames,
            refused: server.tx_dropped,
        })
    }

    /// What was counted outside the node since `before`. On the loopback the
    /// clients' own count is all there is.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn outside(&self, before: &Reading, client_datagrams: u64) -> Result<Outside> {
        if matches!(self, Self::Loopback) {
            return Ok(Outside::Clients { sent: client_datagrams });
        }
        let now = self.read()?;
        Ok(Outside::Interface {
            sent: now.sent - before.sent,
            taken: now.taken - before.taken,
            answers: now.answers - before.answers,
            answers_refused: now.refused - before.refused,
        })
    }
}
