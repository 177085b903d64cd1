//! The real binary in the lab: ping latency by AF_XDP and by sockets, and the
//! gap that a kill -9 and restart leaves.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use veltrix_abi::wire::{self, Reply};

use super::rig::PORT;
use crate::lab::{Datagram, Lab, LabChild, SERVER_INTERFACE, SERVER_IPV4};

/// Environment variable: the `veltrix` binary under test.
pub const BIN_ENV: &str = "VELTRIX_BIN";

/// Longest wait for a server to answer its first ping.
const START_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest wait for one pong.
const PONG_WAIT_MAX: Duration = Duration::from_millis(200);

/// Pings of one latency figure.
const PINGS: u64 = 20_000;

/// Pings that warm caches and are not counted.
const WARM_PINGS: u64 = 500;

/// Restarts; the gap reported is the longest.
const RESTARTS: usize = 5;

/// The `veltrix` binary under test.
///
/// # Errors
///
/// When [`BIN_ENV`] does not name it.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os(BIN_ENV).map(PathBuf::from);
    path.filter(|p| p.is_file()).with_context(|| {
        format!("{BIN_ENV} does not name the veltrix binary; `cargo xtask` builds it and sets it")
    })
}

/// How a server takes its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// XDP on the server's interface.
    Xdp,
    /// A UDP socket on the server's address.
    Udp,
}

/// `veltrix run` in the lab, with a control socket of its own in `dir`.
#[must_use]
pub fn run_command(binary: &Path, provider: Provider, dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.arg("run").arg("--control-socket").arg(dir.join("control.sock"));
    match provider {
        Provider::Xdp => {
            command.args(["--nic", SERVER_INTERFACE, "--port", &PORT.to_string()]);
        }
        Provider::Udp => {
            command.args(["--listen", &format!("{SERVER_IPV4}:{PORT}")]);
        }
    }
    command.args(more).stdin(Stdio::null());
    command
}

/// A client socket that pings one at a time.
pub struct Pinger {
    socket: UdpSocket,
    sequence: u64,
    buffer: [u8; 2048],
}

impl Pinger {
    /// Opens a socket in the client's namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be had.
    pub fn new(lab: &Lab) -> Result<Self> {
        lab.client(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(SocketAddr::from((SERVER_IPV4, PORT)))?;
            socket.set_read_timeout(Some(PONG_WAIT_MAX))?;
            Ok(Self { socket, sequence: 0, buffer: [0; 2048] })
        })
    }

    /// One round trip; `None` when no pong came in time.
    ///
    /// # Errors
    ///
    /// A pong that is none.
    pub fn ping(&mut self, wait: Duration) -> Result<Option<Duration>> {
        self.sequence += 1;
        let datagram = Datagram { sequence: self.sequence, ..Datagram::default() }.ping(1);
        self.socket.set_read_timeout(Some(wait))?;
        let sent = Instant::now();
        // Nobody listens while a server restarts: ECONNREFUSED is no pong.
        if self.socket.send(&datagram).is_err() {
            return Ok(None);
        }
        loop {
            let Ok(bytes) = self.socket.recv(&mut self.buffer) else { return Ok(None) };
            let (header, reply) = wire::decode_reply(&self.buffer[..bytes], crc_fast::crc32_iscsi)
                .map_err(|e| anyhow::anyhow!("bench: a reply that does not decode: {e:?}"))?;
            ensure!(matches!(reply, Reply::Pong(_)), "bench: wanted a pong, got {reply:?}");
            if header.sequence == self.sequence {
                return Ok(Some(sent.elapsed()));
            }
        }
    }

    /// Waits until the server answers.
    ///
    /// # Errors
    ///
    /// When it does not within 10 s, or ends.
    pub fn wait_for(&mut self, server: &mut LabChild) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START_WAIT_MAX {
            if self.ping(Duration::from_millis(5))?.is_some() {
                return Ok(());
            }
            if let Some(status) = server.try_wait()? {
                bail!("bench: `veltrix run` ended with {status} before it answered");
            }
        }
        bail!("bench: `veltrix run` answered no ping for {START_WAIT_MAX:?}")
    }
}

/// Round trips of pings sent one at a time, nanoseconds.
///
/// # Errors
///
/// When the server does not start or loses pings.
pub fn ping_ns(lab: &Lab, binary: &Path, provider: Provider) -> Result<Histogram<u64>> {
    let dir = TempDir::new()?;
    let mut server = lab.spawn_server(quiet(run_command(binary, provider, &dir.0, &[])))?;
    let mut pinger = Pinger::new(lab)?;
    pinger.wait_for(&mut server)?;
    let mut histogram = Histogram::new(3)?;
    for i in 0..WARM_PINGS + PINGS {
        let rtt = pinger.ping(PONG_WAIT_MAX)?.context("bench: a ping was lost")?;
        if i >= WARM_PINGS {
            histogram.record(rtt.as_nanos() as u64)?;
        }
    }
    Ok(histogram)
}

/// Milliseconds from the last pong before a kill -9 to the first one after the
/// restart; the longest of several.
///
/// # Errors
///
/// When a server does not start.
pub fn restart_gap_ms(lab: &Lab, binary: &Path) -> Result<f64> {
    let dir = TempDir::new()?;
    let start = || lab.spawn_server(quiet(run_command(binary, Provider::Xdp, &dir.0, &[])));
    let mut server = start()?;
    let mut pinger = Pinger::new(lab)?;
    pinger.wait_for(&mut server)?;
    let mut longest = Duration::ZERO;
    for _ in 0..RESTARTS {
        pinger.ping(PONG_WAIT_MAX)?.context("bench: a ping was lost before the kill")?;
        let last_pong = Instant::now();
        server.kill()?;
        server.wait()?;
        server = start()?;
        pinger.wait_for(&mut server)?;
        longest = longest.max(last_pong.elapsed());
    }
    Ok(longest.as_secs_f64() * 1e3)
}

fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A directory of this process's own, removed when dropped.
pub struct TempDir(pub PathBuf);

impl TempDir {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// When the system's temporary directory refuses.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("veltrix-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed stays in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
