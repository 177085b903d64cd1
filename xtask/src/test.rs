//! `cargo xtask test`: every test of the workspace, in one command.
//!
//! ```text
//!   build as the invoking user ──> list of test executables
//!        |                              |
//!        |        packages of pure code | veltrix-tests (namespaces, XDP, cores)
//!        |              as the user     |   elevated with sudo, one test at a time
//!        v                              v
//!     doctests                     one line each, skips by name, closing line
//! ```
//!
//! Where the capabilities cannot be had, the privileged executables run
//! without them: each test that needs one says `skipped: WHY`, and the skip is
//! counted and named. With all capabilities `VELTRIX_TEST_REQUIRE=1` is set
//! and any skip is a failure.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build;
use crate::build_ebpf::{self, Objects};
use crate::context::{Context, shown};
use crate::host::Host;
use crate::libtest::{Counts, Parser};
use crate::power::{self, Power};
use crate::setup::{self, Consent, Part, Ready};

/// Build and run every test.
///
/// Builds as you, runs the tests of pure code as you and the packet tests with
/// sudo where you lack the capabilities. Without sudo, or with --no-elevate,
/// tests that need a capability are skipped, counted and named; with all
/// capabilities a skip is a failure. The last line is
/// `N passed, N failed, N skipped`.
#[derive(clap::Args)]
pub struct Args {
    /// Never use sudo.
    #[arg(long)]
    no_elevate: bool,
    /// Install what is lacking without asking.
    #[arg(long)]
    yes: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// The package whose executables need capabilities, and cores to themselves.
const PRIVILEGED: &str = "veltrix-tests";

/// Longest an executable may run. The slowest today take a minute or two; CI
/// gives everything an hour.
const RUN_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// What `timeout` grants between SIGTERM and SIGKILL, so that a lab can clean up.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// How long output is awaited after the executable ended: a process it left
/// behind may hold the pipe open for ever.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// The status `timeout` ends with when it had to act.
const TIMED_OUT: i32 = 124;

struct Executable {
    package: String,
    target: String,
    path: PathBuf,
    directory: PathBuf,
}

struct Outcome {
    label: String,
    counts: Counts,
    seconds: f64,
    skips: Vec<String>,
    failures: Vec<String>,
}

struct Plan<'a> {
    context: &'a Context,
    power: Power,
    binary: PathBuf,
    objects: Option<Objects>,
    filter: Option<&'a str>,
}

/// Runs the subcommand.
///
/// # Errors
/// When something does not build or an executable cannot be started.
pub fn run(args: &Args) -> Result<ExitCode> {
    let context = Context::new()?;
    let host = Host::this();
    let consent = if args.yes { Consent::Given } else { Consent::Implied };
    let mut left_out = Vec::new();
    let objects = match setup::ensure(&host, &[Part::Ebpf, Part::Lab], consent)? {
        Ready::Yes => Some(build_ebpf::build(&context, &host, false)?),
        Ready::No(why) => {
            left_out.push(format!("the kernel half and every test that loads it: {why}"));
            None
        }
    };
    if let Ready::No(why) = setup::ensure(&host, &[Part::Browser], consent)? {
        left_out.push(format!("the page in a browser: {why}"));
    }
    let power = find_power(&host, args.no_elevate);
    if let Power::None(why) = &power {
        left_out.push(format!("every test that needs a capability: {why}"));
    }
    // The whole workspace, so that features unify as in the test build.
    build::build(&context, objects.as_ref(), &["--workspace", "--bins"])?;
    let executables = build_tests(&context, objects.as_ref())?;
    let binary = context.target.join("debug/veltrix");
    let plan = Plan { context: &context, power, binary, objects, filter: args.filter.as_deref() };

    let (privileged, plain): (Vec<_>, Vec<_>) =
        executables.iter().partition(|e| e.package == PRIVILEGED);
    let mut outcomes = Vec::new();
    for executable in plain {
        outcomes.push(run_executable(&plan, executable, false)?);
    }
    outcomes.push(run_doctests(&plan)?);
    for executable in privileged {
        outcomes.push(run_executable(&plan, executable, true)?);
    }
    let any_skip_fails = plan.power == Power::Own || plan.power == Power::Sudo;
    Ok(conclude(&outcomes, &left_out, any_skip_fails))
}

fn find_power(host: &Host, no_elevate: bool) -> Power {
    let missing = power::missing_capabilities();
    if no_elevate && !missing.is_empty() {
        return Power::None(format!(
            "--no-elevate was given and this process lacks {}",
            missing.join(", ")
        ));
    }
    Power::find(host)
}

fn build_tests(context: &Context, objects: Option<&Objects>) -> Result<Vec<Executable>> {
    let mut command = context.cargo();
    command.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    if let Some(objects) = objects {
        command.envs(objects.variables());
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut executables: Vec<_> = text.lines().filter_map(test_executable).collect();
    executables.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    if executables.is_empty() {
        bail!("cargo built no test executable");
    }
    Ok(executables)
}

/// A test executable, when a line of cargo's JSON announces one.
fn test_executable(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?.to_path_buf();
    let package = package_name(message["package_id"].as_str()?, &directory);
    let kind = message["target"]["kind"][0].as_str().unwrap_or("test");
    let name = message["target"]["name"].as_str()?;
    let target = match kind {
        "test" => name.to_owned(),
        "bin" | "example" => format!("{kind} {name}"),
        _ => kind.to_owned(),
    };
    Some(Executable { package, target, path, directory })
}

/// `path+file:///x/tests#veltrix-tests@0.1.0`, or `...#0.1.0` when the
/// directory is called like the package.
fn package_name(id: &str, directory: &Path) -> String {
    let fragment = id.rsplit('#').next().unwrap_or(id);
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

fn run_executable(plan: &Plan, executable: &Executable, privileged: bool) -> Result<Outcome> {
    let manifest_directory = executable.directory.as_os_str();
    let mut variables = build::variables(&plan.binary, plan.objects.as_ref());
    // As `cargo test` sets it: expect-test and proptest look for their files there.
    variables.push(("CARGO_MANIFEST_DIR", manifest_directory));
    let full_power = plan.power == Power::Own || (privileged && plan.power == Power::Sudo);
    if full_power {
        variables.push(("VELTRIX_TEST_REQUIRE", OsStr::new("1")));
    }
    let power = if privileged { &plan.power } else { &Power::Own };
    let mut command = power::command(power, Path::new("timeout"), &variables);
    command.args(timeout_args()).arg(&executable.path).arg("--show-output");
    if privileged {
        command.arg("--test-threads=1");
    }
    command.args(plan.filter);
    command.current_dir(&executable.directory);
    let label = format!("{} {}", executable.package, executable.target);
    observe(label, &mut command)
}

fn timeout_args() -> [String; 3] {
    // In the foreground, so that an interrupt from the terminal reaches the test.
    [
        "--foreground".into(),
        format!("--kill-after={}", KILL_AFTER.as_secs()),
        format!("{}", RUN_TIME_MAX.as_secs()),
    ]
}

fn run_doctests(plan: &Plan) -> Result<Outcome> {
    let mut command = plan.context.cargo();
    command.args(["test", "--doc", "--workspace", "--no-fail-fast"]);
    command.envs(build::variables(&plan.binary, plan.objects.as_ref()));
    command.arg("--").args(plan.filter);
    observe("doctests".into(), &mut command)
}

/// Runs a command to its end, prints its lines as they come and counts.
fn observe(label: String, command: &mut Command) -> Result<Outcome> {
    println!("\n=== {label}");
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let mut parser = Parser::default();
    let status = follow(&mut child, started, |line| {
        println!("{line}");
        parser.line(line);
    })?;
    let mut failures: Vec<_> = parser.failed_tests().map(str::to_owned).collect();
    let counts = parser.counts(status.success());
    if let Some(why) = bad_end(status) {
        failures.push(match parser.unfinished() {
            Some(test) => format!("{why} in {test}"),
            None => why,
        });
    } else if counts.failed > 0 && failures.is_empty() {
        failures.push(format!("ended with {status} without naming a failed test"));
    }
    Ok(Outcome {
        label,
        counts,
        seconds: started.elapsed().as_secs_f64(),
        skips: parser.skip_lines().map(str::to_owned).collect(),
        failures,
    })
}

/// Hands on the lines of both streams until the child ended and they are dry.
fn follow(child: &mut Child, started: Instant, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let (sender, lines) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let give_up = started + RUN_TIME_MAX + 6 * KILL_AFTER;
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        match ended {
            Some((_, at)) if at.elapsed() > DRAIN_MAX => break,
            Some(_) => {}
            None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
        }
        // Doctests run without `timeout`, and sudo may refuse to pass a signal on.
        if ended.is_none() && Instant::now() > give_up {
            each("xtask: over the time limit, killed");
            child.kill().ok();
            break;
        }
    }
    Ok(match ended {
        Some((status, _)) => status,
        None => child.wait()?,
    })
}

/// How an executable ended when not by its own decision.
fn bad_end(status: ExitStatus) -> Option<String> {
    if status.code() == Some(TIMED_OUT) {
        return Some(format!("ran over {} minutes and was killed", RUN_TIME_MAX.as_secs() / 60));
    }
    // A shell, sudo or timeout in between turns signal N into status 128 + N.
    let signal =
        status.signal().or_else(|| status.code().filter(|code| *code > 128).map(|code| code - 128));
    signal.map(|signal| format!("died by signal {signal}"))
}

fn conclude(outcomes: &[Outcome], left_out: &[String], any_skip_fails: bool) -> ExitCode {
    let mut total = Counts::default();
    println!("\n=== summary");
    let width = outcomes.iter().map(|outcome| outcome.label.len()).max().unwrap_or(0);
    for outcome in outcomes {
        total.add(&outcome.counts);
        let Counts { passed, failed, skipped } = outcome.counts;
        println!(
            "{:<width$}  {passed:>4} passed {failed:>4} failed {skipped:>4} skipped  {:>6.1} s",
            outcome.label, outcome.seconds
        );
    }
    for outcome in outcomes {
        outcome
            .failures
            .iter()
            .for_each(|failure| println!("failed: {}: {failure}", outcome.label));
    }
    for outcome in outcomes {
        outcome.skips.iter().for_each(|skip| println!("skipped: {}: {skip}", outcome.label));
    }
    left_out.iter().for_each(|what| println!("left out: {what}"));
    let verdict = verdict(&total, any_skip_fails);
    if let Err(why) = &verdict {
        println!("{why}");
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(total: &Counts, any_skip_fails: bool) -> Result<(), &'static str> {
    match total {
        Counts { failed, .. } if *failed > 0 => Err("there are failures, listed above"),
        Counts { skipped, .. } if *skipped > 0 && any_skip_fails => {
            Err("with all capabilities nothing may be skipped")
        }
        Counts { passed: 0, .. } => Err("no test ran"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_announces_test_executables_and_others() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///x/tests#veltrix-tests@0.1.0",
            "manifest_path":"/x/tests/Cargo.toml","target":{"kind":["test"],"name":"packet_path"},
            "profile":{"test":true},"executable":"/x/target/debug/deps/packet_path-1"}"#;
        let found = test_executable(line).unwrap();
        assert_eq!((found.package.as_str(), found.target.as_str()), (PRIVILEGED, "packet_path"));
        assert_eq!(found.directory, Path::new("/x/tests"));
        assert!(test_executable(&line.replace("\"test\":true", "\"test\":false")).is_none());
        assert!(
            test_executable(&line.replace("\"/x/target/debug/deps/packet_path-1\"", "null"))
                .is_none()
        );
        assert!(test_executable("{\"reason\":\"build-finished\"}").is_none());
        assert!(test_executable("").is_none());
    }

    #[test]
    fn package_is_named_by_the_id_or_its_directory() {
        assert_eq!(
            package_name("path+file:///x/userspace#veltrix@0.1.0", Path::new("/x/userspace")),
            "veltrix"
        );
        assert_eq!(package_name("path+file:///x/xtask#0.1.0", Path::new("/x/xtask")), "xtask");
    }

    #[test]
    fn signals_and_the_time_limit_are_named() {
        assert_eq!(bad_end(ExitStatus::from_raw(9)).unwrap(), "died by signal 9");
        assert_eq!(bad_end(ExitStatus::from_raw(139 << 8)).unwrap(), "died by signal 11");
        assert!(bad_end(ExitStatus::from_raw(TIMED_OUT << 8)).unwrap().contains("15 minutes"));
        assert_eq!(bad_end(ExitStatus::from_raw(101 << 8)), None);
        assert_eq!(bad_end(ExitStatus::from_raw(0)), None);
    }

    #[test]
    fn verdicts() {
        let counts = |passed, failed, skipped| Counts { passed, failed, skipped };
        assert!(verdict(&counts(3, 0, 0), true).is_ok());
        assert!(verdict(&counts(3, 0, 1), false).is_ok());
        assert!(verdict(&counts(3, 0, 1), true).is_err());
        assert!(verdict(&counts(3, 1, 0), false).is_err());
        assert!(verdict(&counts(0, 0, 0), false).is_err());
        assert!(verdict(&counts(0, 0, 5), false).is_err());
    }

    #[test]
    fn a_process_left_behind_does_not_hold_us_up() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 30 & echo running 1 test; echo 'test result: ok. 1 passed; 0 failed'; kill -9 $$"]);
        let started = Instant::now();
        let outcome = observe("shell".into(), &mut command).unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(outcome.counts, Counts { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(outcome.failures, ["died by signal 9"]);
    }
}
