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
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use veltrix::admin::client::{CallError, call};
use veltrix::admin::protocol::{Reply, Request};
use veltrix::admin::status::Status;

use crate::bench::service::TempDir;
use crate::lab::LabChild;

/// Longest wait for the control socket to answer.
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

/// See the module. Dropped, the server is killed.
pub struct Server {
    process: Process,
    lifeline: Lifeline,
    dir: TempDir,
}

impl Server {
    /// Starts the command that `command` makes for a directory (the control
    /// socket has to be `control.sock` in it) by `spawn`, and waits until the
    /// control socket answers.
    ///
    /// # Errors
    ///
    /// A server that ends or does not answer, with its last words.
    pub fn start(
        command: impl FnOnce(&Path) -> Command,
        spawn: impl FnOnce(Command) -> std::io::Result<Process>,
    ) -> Result<Self> {
        let dir = TempDir::new()?;
        let mut lifeline = Lifeline::new(&dir.0)?;
        let mut command = command(&dir.0);
        let log = File::create(dir.0.join("server.log")).context("demo: the server's log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let program = command.get_program().to_owned();
        let mut process =
            spawn(command).with_context(|| format!("demo: start of {}", program.display()))?;
        lifeline.say(&process.child().id().to_string());
        let mut server = Self { process, lifeline, dir };
        server.wait_for_control()?;
        Ok(server)
    }

    fn wait_for_control(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            match call(&self.control(), &Request::Status) {
                Ok(_) => return Ok(()),
                Err(CallError::NotRunning(..)) if started.elapsed() < START_WAIT_MAX => {}
                Err(error) => bail!("demo: {error}; it said:\n{}", self.words()),
            }
            if let Some(status) = self.process.child().try_wait()? {
                self.lifeline.say("");
                bail!(
                    "demo: `veltrix run` ended with {status} before it served; it said:\n{}",
                    self.words()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn control(&self) -> std::path::PathBuf {
        self.dir.0.join("control.sock")
    }

    /// What the server wrote so far.
    #[must_use]
    pub fn words(&self) -> String {
        std::fs::read_to_string(self.dir.0.join("server.log")).unwrap_or_default()
    }

    /// The lab's child, to wait for its first answer.
    pub fn lab_child(&mut self) -> Option<&mut LabChild> {
        match &mut self.process {
            Process::Lab(child) => Some(child),
            Process::Own(_) => None,
        }
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

    /// Asks it to end by SIGTERM and gives its exit status.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = self.process.child().id();
        // From here on its number may come to mean another process.
        self.lifeline.say("");
        let told =
            Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid.to_string()]).status();
        told.context("demo: SIGTERM to the server by `sh`")?;
        let started = Instant::now();
        while started.elapsed() < STOP_WAIT_MAX {
            if let Some(status) = self.process.child().try_wait()? {
                return Ok(status);
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
        self.lifeline.say("");
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
