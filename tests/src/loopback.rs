//! The real `veltrix run --data DIR` on loopback, killed and started again on its
//! port and its directory: for tests of the log that need neither lab nor
//! privilege.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

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
}

/// A server that was killed, with what it left on disk.
pub struct Killed {
    home: Home,
    address: SocketAddr,
}

impl Node {
    /// Formats a directory and starts a server on it, on a free port.
    ///
    /// # Errors
    ///
    /// When either fails, with what it said.
    pub fn start() -> Result<Self> {
        let home = Home::new()?;
        let mut format = Command::new(binary()?);
        format.arg("format").args(SIZES.split_whitespace()).arg("--yes");
        let output = format.arg("--data").arg(home.data()).output().context("veltrix format")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{format:?}: {}\n{said}", output.status);
        run(home, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL.
    ///
    /// # Errors
    ///
    /// When its end cannot be seen.
    pub fn kill(self) -> Result<Killed> {
        let Self { server, address } = self;
        Ok(Killed { home: server.kill()?, address })
    }
}

impl Killed {
    /// Starts it on the same directory and port, and waits until it takes events.
    ///
    /// # Errors
    ///
    /// When it does not, with what it said.
    pub fn restart(self) -> Result<Node> {
        run(self.home, self.address)
    }
}

fn run(home: Home, listen: SocketAddr) -> Result<Node> {
    let mut command = Command::new(binary()?);
    command
        .args(["run", "--listen", &listen.to_string(), "--control-socket"])
        .arg(home.path().join("control.sock"))
        .arg("--data")
        .arg(home.data())
        .current_dir(home.path());
    let mut server =
        Server::start(home, command, |mut command| Ok(Process::Own(command.spawn()?)))?;
    server.wait(&mut |_| {})?;
    let address = SocketAddr::new(listen.ip(), server.status()?.port);
    Ok(Node { server, address })
}
