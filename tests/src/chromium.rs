//! Chromium without a window, driven over its debugging pipe, for tests of the page.
//!
//! ```text
//!   us --JSON, ended by NUL--> descriptor 3      the shell moves our pipes there
//!   us <--JSON, ended by NUL-- descriptor 4
//! ```
//!
//! It is ended when dropped, so also by a test that panics: told to close, and killed
//! if it does not. It ends by itself when its pipe does.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::bench::service::{TempDir, binary};
use crate::lab::REQUIRE_ENV;

/// Programs that will do; the first that is on the `PATH`.
const PROGRAMS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Longest wait for an answer, and for something to appear on a page.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Longest wait for its end, and for its files to be let go.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Pause between two looks at a page.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// No sandbox: it wants user namespaces that containers lack, and the page is ours.
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "about:blank",
];

/// Whether Chromium and the binary are there; a test that lacks one returns. Says
/// `skipped: NAME: ...` as [`crate::lab::require`] does.
///
/// # Panics
///
/// When something lacks and [`REQUIRE_ENV`] is `1`.
#[must_use]
pub fn require(name: &str) -> bool {
    let lack = match (program(), binary()) {
        (Some(_), Ok(_)) => return true,
        (None, _) => "needs Chromium: `cargo xtask setup`, or apt-get install chromium".to_owned(),
        (_, Err(lack)) => format!("{lack:#}"),
    };
    let required = std::env::var_os(REQUIRE_ENV).is_some_and(|v| v == "1");
    assert!(!required, "{name}: {lack}; {REQUIRE_ENV}=1 forbids a skip");
    // The harness captures the print macros of passing tests, not this.
    let _ = writeln!(io::stderr(), "skipped: {name}: {lack}");
    false
}

fn program() -> Option<&'static str> {
    let path = std::env::var_os("PATH")?;
    let is_there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    PROGRAMS.into_iter().find(is_there)
}

/// A running Chromium with one page.
pub struct Chromium {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    /// Names the page in calls; empty until there is one.
    session: String,
    complaints: Vec<String>,
    /// Profile, temporary files and last words; removed after the process has gone.
    dir: TempDir,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Closed rather than killed: its other processes go first then, and what they
        // wrote can be removed.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.to.flush();
        let told = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && told.elapsed() < CLOSE_MAX {
            thread::sleep(LOOK_PAUSE);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let told = Instant::now();
        while std::fs::remove_dir_all(self.dir.0.join("profile"))
            .is_err_and(|e| e.kind() != io::ErrorKind::NotFound)
            && told.elapsed() < CLOSE_MAX
        {
            thread::sleep(LOOK_PAUSE);
        }
    }
}

impl Chromium {
    /// Starts it with a profile of its own and an empty page.
    ///
    /// # Errors
    ///
    /// When there is none, or it does not start.
    pub fn start() -> Result<Self> {
        let program = program().context("no Chromium on the PATH: apt-get install chromium")?;
        let dir = TempDir::new()?;
        let said = std::fs::File::create(dir.0.join("err"))?;
        let mut command = Command::new("sh");
        let moved = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
        command.args(["-c", moved, "sh", program]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", dir.0.join("profile").display()));
        // It leaves a directory of a socket among the temporary files.
        command.env("TMPDIR", &dir.0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let mut child = command.spawn().context("Chromium cannot be started")?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("no pipes to Chromium");
        };
        let (session, complaints) = (String::new(), Vec::new());
        let from = messages(from);
        let mut chromium = Self { child, to, from, calls: 0, session, complaints, dir };
        let page = chromium.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = chromium.call("Target.attachToTarget", &attach)?;
        chromium.session = attached["sessionId"].as_str().unwrap_or_default().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            chromium.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(chromium)
    }

    /// Calls a method of the debugging protocol; gives its result.
    ///
    /// # Errors
    ///
    /// It is refused, or no answer comes.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).context("Chromium has gone")?;
        self.to.flush()?;
        let asked = Instant::now();
        loop {
            let left = WAIT_MAX.saturating_sub(asked.elapsed());
            let said = self.from.recv_timeout(left).with_context(|| {
                let words = std::fs::read_to_string(self.dir.0.join("err")).unwrap_or_default();
                format!("{method}: no answer of Chromium: {words}")
            })?;
            if said["id"] != id {
                self.note(&said);
                continue;
            }
            ensure!(said["error"].is_null(), "{method}: {}", said["error"]);
            return Ok(said["result"].clone());
        }
    }

    /// Keeps what the page's console should not have: exceptions, errors, and what the
    /// security policy forbade. Answers with another status than 200 are none.
    fn note(&mut self, said: &Value) {
        let params = &said["params"];
        let entry = &params["entry"];
        match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(params["exceptionDetails"].to_string());
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                self.complaints.push(params["args"].to_string());
            }
            Some("Log.entryAdded") if entry["level"] == "error" && entry["source"] != "network" => {
                self.complaints.push(entry.to_string());
            }
            _ => {}
        }
    }

    /// What [`Self::note`] kept.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Goes to an address.
    ///
    /// # Errors
    ///
    /// Nobody answers there.
    pub fn open(&mut self, address: &str) -> Result<()> {
        let opened = self.call("Page.navigate", &json!({ "url": address }))?;
        ensure!(opened["errorText"].is_null(), "{address}: {}", opened["errorText"]);
        Ok(())
    }

    /// Value of an expression on the page.
    ///
    /// # Errors
    ///
    /// It throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let said = self.call("Runtime.evaluate", &params)?;
        ensure!(said["exceptionDetails"].is_null(), "{expression}: {}", said["exceptionDetails"]);
        Ok(said["result"]["value"].clone())
    }

    /// Waits until an expression is neither null nor false nor throws; gives its value.
    ///
    /// # Errors
    ///
    /// Never within [`WAIT_MAX`]; with the text of the page.
    pub fn until(&mut self, expression: &str) -> Result<Value> {
        let started = Instant::now();
        loop {
            let found = self.evaluate(expression);
            match &found {
                Ok(value) if !value.is_null() && *value != false => return found,
                _ if started.elapsed() < WAIT_MAX => thread::sleep(LOOK_PAUSE),
                _ => {
                    let text = self.evaluate("document.body.innerText")?;
                    let text = text.as_str().unwrap_or_default();
                    bail!(
                        "never so: {expression}: {found:?}; {:?}; the page:\n{text}",
                        self.complaints
                    );
                }
            }
        }
    }

    /// Size of the page in pixels, and whether it is to be dark.
    ///
    /// # Errors
    ///
    /// Chromium refuses.
    pub fn dress(&mut self, (width, height): (u32, u32), is_dark: bool) -> Result<()> {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] }))?;
        Ok(())
    }

    /// Writes what the page looks like as a PNG.
    ///
    /// # Errors
    ///
    /// Chromium or the disk refuses.
    pub fn screenshot(&mut self, path: &Path) -> Result<()> {
        // What the last change of size or colours made necessary is drawn first.
        let drawn = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";
        self.evaluate(drawn)?;
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.call("Page.captureScreenshot", &params)?;
        let bytes = base64(shot["data"].as_str().unwrap_or_default());
        ensure!(bytes.starts_with(b"\x89PNG"), "Chromium gave no PNG");
        std::fs::write(path, bytes).with_context(|| path.display().to_string())
    }
}

/// Reads messages until the pipe ends.
fn messages(from: ChildStdout) -> Receiver<Value> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
            let message = serde_json::from_slice(bytes.strip_suffix(b"\0").unwrap_or(&bytes));
            bytes.clear();
            let Ok(message) = message else { continue };
            if tell.send(message).is_err() {
                return;
            }
        }
    });
    told
}

/// Bytes of a text in base64; what does not belong there is skipped.
fn base64(text: &str) -> Vec<u8> {
    let (mut bits, mut held) = (0_u32, 0);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        (bits, held) = (bits << 6 | u32::from(value), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_gives_the_bytes_back() {
        assert_eq!(base64("iVBORw=="), b"\x89PNG");
        assert_eq!(base64("AAECAwQF"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(base64("+/8="), [0xfb, 0xff]);
        assert_eq!(base64(""), b"");
    }
}
