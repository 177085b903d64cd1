//! `veltrix run` as a child process, which no way of ending the demo leaves
//! behind.
//!
//! A small shell stands by in a process group of its own and reads a pipe from
//! the demo. Its end of file means that the demo is gone, in good order or by
//! kill -9: the shell then kills the server and removes the directory with
//! control socket and log.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use veltrix::admin::client::{CallError, call};
use veltrix::admin::protocol::{Reply, Request};
use veltrix::admin::status::Status;

use crate::bench::service::TempDir;
use crate::lab::LabChild;

/// Longest wait for a server to take events, and for a snapshot.
const START_WAIT_MAX: Duration = Duration::from_secs(15);

/// Longest wait for an orderly end.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest wait until what is under way has been counted.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);

/// A child of this process or of the lab.
pub enum Process {
    /// In the lab: dies with it.
    Lab(LabChild),
    /// On this host.
    Own(Child),
}

impl Process {
    fn child(&mut self) -> &mut Child {
        match self {
            Self::Lab(child) => child,
            Self::Own(child) => child,
        }
    }
}

/// A directory of the demo's own and the shell that watches over it: control
/// socket, logs, data. Gone when dropped, or when the demo is.
pub struct Home {
    lifeline: Lifeline,
    dir: TempDir,
}

impl Home {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// When the directory, or the shell, cannot be had.
    pub fn new() -> Result<Self> {
        let dir = TempDir::new()?;
        let lifeline = Lifeline::new(&dir.0)?;
        Ok(Self { lifeline, dir })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir.0
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.0.join("data")
    }
}

/// See the module. Dropped, the server is killed.
pub struct Server {
    process: Process,
    /// `None` once it was given back.
    home: Option<Home>,
    path: PathBuf,
    /// What it says goes here.
    log: PathBuf,
    started: Instant,
}

impl Server {
    /// Starts `command`, whose control socket is `control.sock` in the home, by
    /// `spawn`. It does not serve yet.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(
        mut home: Home,
        mut command: Command,
        spawn: impl FnOnce(Command) -> std::io::Result<Process>,
    ) -> Result<Self> {
        let log = home.path().join("server.log");
        let file = File::create(&log).context("demo: the server's log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let program = command.get_program().to_owned();
        let started = Instant::now();
        let mut process =
            spawn(command).with_context(|| format!("demo: start of {}", program.display()))?;
        home.lifeline.say(&process.child().id().to_string());
        let path = home.path().to_owned();
        Ok(Self { process, home: Some(home), path, log, started })
    }

    /// When it was started.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The shell must not kill it any more: from its end on its number may come
    /// to mean another process.
    fn forget(&mut self) {
        if let Some(home) = &mut self.home {
            home.lifeline.say("");
        }
    }

    /// Waits until it takes events; `each` gets every line that it says
    /// meanwhile, as it comes.
    ///
    /// # Errors
    ///
    /// A server that ends or does not answer, with its last words.
    pub fn wait(&mut self, each: &mut dyn FnMut(&str)) -> Result<()> {
        let mut lines = 0;
        loop {
            let ready = match call(&self.control(), &Request::Status) {
                Ok(Reply::Status(status)) => status.log.is_none_or(|log| log.ready),
                Ok(_) => false,
                Err(CallError::NotRunning(..) | CallError::Broken(..)) => false,
                Err(error) => bail!("demo: {error}; it said:\n{}", self.words()),
            };
            for line in self.words().lines().skip(lines) {
                each(line);
                lines += 1;
            }
            if ready {
                return Ok(());
            }
            if let Some(status) = self.process.child().try_wait()? {
                self.forget();
                bail!(
                    "demo: `veltrix run` ended with {status} before it served; it said:\n{}",
                    self.words()
                );
            }
            if self.started.elapsed() > START_WAIT_MAX {
                bail!(
                    "demo: the server does not serve after {START_WAIT_MAX:?}; it said:\n{}",
                    self.words()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it as kill -9 does; what it has on disk stays, and is given back.
    ///
    /// # Errors
    ///
    /// When its end cannot be seen.
    pub fn kill(mut self) -> Result<Home> {
        self.process.child().kill().context("demo: kill -9 of the server")?;
        self.forget();
        self.process.child().wait().context("demo: the end of the server")?;
        self.home.take().context("demo: the server has no home")
    }

    /// Its control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// What the server wrote so far.
    #[must_use]
    pub fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Process id.
    pub fn pid(&mut self) -> u32 {
        self.process.child().id()
    }

    /// Has a snapshot taken and waits for it.
    ///
    /// # Errors
    ///
    /// A refusal, a failure, or none within 15 s.
    pub fn snapshot(&self) -> Result<()> {
        let of = |status: Status| status.log.map(|log| log.snapshots).unwrap_or_default();
        let before = of(self.status()?);
        let mut asked = false;
        let started = Instant::now();
        while started.elapsed() < START_WAIT_MAX {
            // One may be under way by itself: then it is asked again.
            if !asked {
                match call(&self.control(), &Request::Snapshot) {
                    Ok(Reply::Error(_)) => {}
                    Ok(_) => asked = true,
                    Err(error) => bail!("demo: {error}; the server said:\n{}", self.words()),
                }
            }
            let now = of(self.status()?);
            if now.failed > before.failed {
                bail!("demo: the snapshot failed: {}", now.error);
            }
            if asked && !now.under_way && now.taken > before.taken {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("demo: no snapshot within {START_WAIT_MAX:?}; the server said:\n{}", self.words())
    }

    /// All counters now, by the control socket.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        match call(&self.control(), &Request::Status) {
            Ok(Reply::Status(status)) => Ok(*status),
            Ok(other) => bail!("demo: asked for a status, got {other:?}"),
            Err(error) => bail!("demo: {error}; the server said:\n{}", self.words()),
        }
    }

    /// All counters once nothing moves any more: two readings alike, no frame
    /// in a ring.
    ///
    /// # Errors
    ///
    /// As [`Self::status`].
    pub fn status_when_quiet(&self) -> Result<Status> {
        let started = Instant::now();
        let mut last = self.status()?;
        loop {
            thread::sleep(Duration::from_millis(50));
            let now = self.status()?;
            let quiet = now.accounting.frames_in == last.accounting.frames_in
                && now.accounting.lane_exits == last.accounting.lane_exits
                && now.accounting.in_flight == 0;
            if quiet || started.elapsed() > QUIET_WAIT_MAX {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Asks it to end by SIGTERM; gives its exit status, and the home back.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn stop(mut self) -> Result<(ExitStatus, Home)> {
        let pid = self.process.child().id();
        self.forget();
        let told =
            Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid.to_string()]).status();
        told.context("demo: SIGTERM to the server by `sh`")?;
        let started = Instant::now();
        while started.elapsed() < STOP_WAIT_MAX {
            if let Some(status) = self.process.child().try_wait()? {
                return Ok((status, self.home.take().context("demo: the server has no home")?));
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!(
            "demo: `veltrix run` did not end within {STOP_WAIT_MAX:?} of SIGTERM; it said:\n{}",
            self.words()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.forget();
        // Both fail only when the child is gone, which is what is wanted.
        let _ = self.process.child().kill();
        let _ = self.process.child().wait();
    }
}

/// The shell that outlives the demo; see the module.
struct Lifeline(Child);

/// Each line is the process to kill at the end of file; an empty one is none.
const SCRIPT: &str = r#"pid=; while read -r line; do pid=$line; done
[ -z "$pid" ] || kill -KILL "$pid"
rm -rf -- "$1""#;

impl Lifeline {
    fn new(dir: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "veltrix-demo-lifeline"]).arg(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C goes to the demo's group; this one has to see its end.
        command.process_group(0);
        Ok(Self(command.spawn().context("demo: start of `sh`")?))
    }

    fn say(&mut self, line: &str) {
        if let Some(pipe) = &mut self.0.stdin {
            // A shell that was killed leaves the demo as it is.
            let _ = writeln!(pipe, "{line}");
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It has no more to do than remove a directory.
        let _ = self.0.wait();
    }
}
