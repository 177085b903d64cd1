//! The real `veltrix` binary in the lab: started, asked, signalled and
//! stopped, for tests of the whole system.
//!
//! ```text
//!   Server::start -> veltrix run (lab's server side) -> control socket answers
//!     status / settled    by the control socket
//!     cli                 another `veltrix` beside it, with the same control socket
//!     stop                SIGTERM, exit code and last words
//! ```
//!
//! What a process says goes to a file of its directory, so that nobody has to
//! read pipes while it runs.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use veltrix::admin::client::{CallError, call};
use veltrix::admin::protocol::{Reply, Request};
use veltrix::admin::status::Status;
use veltrix::nic::attached::Attached;

use crate::bench::service::{Provider, TempDir, binary, run_command};
use crate::lab::{Lab, LabChild, REQUIRE_ENV, Side};

/// Longest wait for a server's control socket, and for any command to end.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Longest wait for a quiet server: frames in flight are gone in milliseconds.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Whether the lab, its object and the binary are there; a test that lacks
/// one returns. Says `skipped: NAME: ...` as [`crate::lab::require`] does.
///
/// # Panics
///
/// When something lacks and [`REQUIRE_ENV`] is `1`.
#[must_use]
pub fn require(name: &str) -> bool {
    crate::lab::require(name) && require_binary(name)
}

/// As [`require`], for a test that needs the binary and no lab.
///
/// # Panics
///
/// When it lacks and [`REQUIRE_ENV`] is `1`.
#[must_use]
pub fn require_binary(name: &str) -> bool {
    let Err(lack) = binary() else { return true };
    let required = std::env::var_os(REQUIRE_ENV).is_some_and(|v| v == "1");
    assert!(!required, "{name}: {lack:#}; {REQUIRE_ENV}=1 forbids a skip");
    // The harness captures the print macros of passing tests, not this.
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {lack:#}");
    false
}

/// What a process that ended left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A running `veltrix run`. Killed when dropped.
pub struct Server {
    child: LabChild,
    dir: TempDir,
}

impl Server {
    /// Starts it on the server side and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it ends instead, with what it said.
    pub fn start(lab: &Lab, provider: Provider, more: &[&str]) -> Result<Self> {
        Self::start_with(lab, provider, more, &[])
    }

    /// [`Self::start`] with environment variables: settings without a flag.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(
        lab: &Lab,
        provider: Provider,
        more: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let dir = TempDir::new()?;
        let mut command = run_command(&binary()?, provider, &dir.0, more);
        command.envs(env.iter().copied());
        Self::adopt(lab, command, dir)
    }

    /// Starts it again after its end, on the same control socket.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn restart(mut self, lab: &Lab) -> Result<Self> {
        ensure!(self.child.try_wait()?.is_some(), "the server still runs");
        let command = run_command(&binary()?, Provider::Xdp, &self.dir.0, &[]);
        Self::adopt(lab, command, self.dir)
    }

    /// Starts `command`, whose control socket is `control.sock` in `dir`.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn adopt(lab: &Lab, mut command: Command, dir: TempDir) -> Result<Self> {
        command.stdout(Stdio::null()).stderr(File::create(dir.0.join("err"))?);
        let child = lab.spawn_server(command).context("`veltrix run` cannot be started")?;
        let mut server = Self { child, dir };
        let started = Instant::now();
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!("`veltrix run` ended with {status} before it served:\n{}", server.said());
            }
            match call(&server.socket(), &Request::Status) {
                Ok(_) => return Ok(server),
                Err(CallError::NotRunning(..) | CallError::Broken(..)) => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(
                started.elapsed() < WAIT_MAX,
                "`veltrix run` does not answer:\n{}",
                server.said()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its directory, removed with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.0.join("control.sock")
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.dir.0.join("err")).unwrap_or_default()
    }

    /// Its status now.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        match call(&self.socket(), &Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => bail!("the server answered {other:?}, wanted its status"),
        }
    }

    /// Its status once nothing is under way: two readings that differ in no
    /// counter, with empty rings.
    ///
    /// # Errors
    ///
    /// When it does not come to rest within 5 s.
    pub fn settled(&self) -> Result<Status> {
        let started = Instant::now();
        let mut before = self.status()?;
        loop {
            thread::sleep(Duration::from_millis(5));
            let now = self.status()?;
            let still = |a: &Status, b: &Status| {
                let lanes = |s: &Status| {
                    let all = s.lanes.iter().chain(&s.fallback);
                    all.map(|l| (l.frames, l.exits.clone(), l.replies, l.socket_drops))
                        .collect::<Vec<_>>()
                };
                a.xdp_queues == b.xdp_queues && lanes(a) == lanes(b)
            };
            let waiting = |s: &Status| s.lanes.iter().any(|l| l.rings.rx + l.rings.tx > 0);
            if still(&before, &now) && !waiting(&now) {
                return Ok(now);
            }
            ensure!(started.elapsed() < SETTLE_MAX, "the server does not come to rest: {now:#?}");
            before = now;
        }
    }

    /// Polls the status until `done`, for as long as `wait`; the last one.
    ///
    /// # Errors
    ///
    /// When it never is.
    pub fn until(&self, wait: Duration, done: impl Fn(&Status) -> bool) -> Result<Status> {
        let started = Instant::now();
        loop {
            let status = self.status()?;
            if done(&status) {
                return Ok(status);
            }
            ensure!(started.elapsed() < wait, "not within {wait:?}: {status:#?}\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Another `veltrix` on the server side, told of this server's control
    /// socket by the environment.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not end.
    pub fn cli(&self, lab: &Lab, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(binary()?);
        command.args(arguments).env("VELTRIX_SERVER_CONTROL_SOCKET", self.socket());
        finish(lab, Side::Server, command)
    }

    /// Sends a signal by its name, such as `STOP`.
    ///
    /// # Errors
    ///
    /// When there is no such process or signal.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status()?;
        ensure!(status.success(), "kill -{name} {}: {status}; apt-get install procps", self.pid());
        Ok(())
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, waits for its end; gives exit code and last words.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(mut self) -> Result<Finished> {
        self.signal("TERM")?;
        let code = wait(&mut self.child)?;
        Ok(Finished { code, out: String::new(), err: self.said() })
    }
}

/// Runs a command to its end on one side of the lab. One that does not end
/// within 15 s is killed and is an error.
///
/// # Errors
///
/// When it cannot be started or does not end.
pub fn finish(lab: &Lab, side: Side, mut command: Command) -> Result<Finished> {
    let dir = TempDir::new()?;
    let (out, err) = (dir.0.join("out"), dir.0.join("err"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let shown = format!("{command:?}");
    let mut child =
        lab.spawn(side, command).with_context(|| format!("{shown} cannot be started"))?;
    let code = wait(&mut child).with_context(|| {
        let said = std::fs::read_to_string(&err).unwrap_or_default();
        format!("{shown}:\n{said}")
    })?;
    Ok(Finished { code, out: std::fs::read_to_string(out)?, err: std::fs::read_to_string(err)? })
}

fn wait(child: &mut LabChild) -> Result<Option<i32>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        ensure!(started.elapsed() < WAIT_MAX, "it did not end within {WAIT_MAX:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Ids of the XDP programs on a side's interface.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn programs(lab: &Lab, side: Side) -> Result<Vec<u32>> {
    let attached = lab.on(side, || Attached::read(side.interface()));
    Ok(attached?.programs)
}
