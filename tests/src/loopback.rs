//! The real `veltrix run --data DIR` on loopback, killed and started again on its
//! port and its directory: for tests of the log that need neither lab nor
//! privilege.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use veltrix::admin::client::call;
use veltrix::admin::protocol::{Reply, Request};
use veltrix::admin::status::Status;

use crate::bench::service::binary;
use crate::demo::server::{Home, Process, Server};

/// What the directory is formatted for: some hundred hunts, and a log that goes
/// round more than once.
const SIZES: &str = "--partitions 4 --segment-bytes 4194304 --segments 8 --cells-max 4000 \
                     --players-max 16000 --hunts-max 2000 --dedupe-keys-max 400000";

/// A server that serves. Its process ends with the value; its directory with the
/// value or with this process, whichever way that goes.
pub struct Node {
    server: Server,
    address: SocketAddr,
    lanes: u16,
}

/// A server that was killed, with what it left on disk.
pub struct Killed {
    home: Home,
    address: SocketAddr,
    lanes: u16,
}

impl Node {
    /// Formats a directory and starts a server on it, on a free port.
    ///
    /// # Errors
    ///
    /// When either fails, with what it said.
    pub fn start() -> Result<Self> {
        Self::start_lanes(1)
    }

    /// [`Self::start`] with so many lanes.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_lanes(lanes: u16) -> Result<Self> {
        let home = Home::new()?;
        let mut format = Command::new(binary()?);
        format.arg("format").args(SIZES.split_whitespace()).arg("--yes");
        let output = format.arg("--data").arg(home.data()).output().context("veltrix format")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{format:?}: {}\n{said}", output.status);
        run(home, SocketAddr::from(([127, 0, 0, 1], 0)), lanes)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// All counters now.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        self.server.status()
    }

    /// Begins to give a partition to a lane; `false` when the server wants to be asked
    /// again, since a snapshot or another move is under way.
    ///
    /// # Errors
    ///
    /// When it does not answer, or answers something else.
    pub fn move_partition(&self, partition: u16, lane: u16) -> Result<bool> {
        let request = Request::PartitionMove { partition, lane };
        match call(&self.server.control(), &request)? {
            Reply::Done(_) => Ok(true),
            Reply::Error(why) if why.message.contains("try again") => Ok(false),
            other => bail!("partition {partition} to lane {lane}: {other:?}"),
        }
    }

    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// When its end cannot be seen.
    pub fn kill(self) -> Result<Killed> {
        let Self { server, address, lanes } = self;
        Ok(Killed { home: server.kill()?, address, lanes })
    }
}

impl Killed {
    /// Starts it on the same directory and port, and waits until it takes events.
    ///
    /// # Errors
    ///
    /// When it does not, with what it said.
    pub fn restart(self) -> Result<Node> {
        run(self.home, self.address, self.lanes)
    }
}

fn run(home: Home, listen: SocketAddr, lanes: u16) -> Result<Node> {
    let mut command = Command::new(binary()?);
    command
        .args(["run", "--listen", &listen.to_string(), "--control-socket"])
        .arg(home.path().join("control.sock"))
        .arg("--data")
        .arg(home.data())
        .env("VELTRIX_LANES_COUNT", lanes.to_string())
        .current_dir(home.path());
    let mut server =
        Server::start(home, command, |mut command| Ok(Process::Own(command.spawn()?)))?;
    server.wait(&mut |_| {})?;
    let address = SocketAddr::new(listen.ip(), server.status()?.port);
    Ok(Node { server, address, lanes })
}
