//! Who may do what: the capabilities the packet tests need, and sudo.
//!
//! Privilege is judged by capability, never by uid. Builds always run as the
//! invoking user; only a finished executable is elevated, with
//! `sudo env VAR=... EXECUTABLE`, because sudo drops the environment.

use std::ffi::OsStr;
use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::context::{Keep, clean};
use crate::host::Host;

/// Capabilities that loading XDP, making namespaces, AF_XDP and pinning need:
/// bit in `CapEff` and name (linux/capability.h).
const NEEDED: [(u32, &str); 7] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (14, "CAP_IPC_LOCK"),
    (21, "CAP_SYS_ADMIN"),
    (23, "CAP_SYS_NICE"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// How an executable can be run with every capability it needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Power {
    /// We have them ourselves.
    Own,
    /// Through sudo.
    Sudo,
    /// Not at all; the reason as a clause for a sentence.
    None(String),
}

impl Power {
    /// Looks at our own capabilities, then for sudo, which may ask for a
    /// password only on a terminal.
    #[must_use]
    pub fn find(host: &Host) -> Self {
        let missing = missing_capabilities();
        if missing.is_empty() {
            return Self::Own;
        }
        if let Err(why) = sudo(host) {
            return Self::None(format!("this process lacks {} and {why}", missing.join(", ")));
        }
        // Root in a container need not have them either.
        let missing = missing_through_sudo();
        if missing.is_empty() {
            Self::Sudo
        } else {
            Self::None(format!(
                "even through sudo this machine does not give {}",
                missing.join(", ")
            ))
        }
    }
}

/// Whether sudo can be used: silently, or by asking on a terminal.
///
/// # Errors
/// Why not, as a clause for a sentence.
pub fn sudo(host: &Host) -> Result<(), String> {
    if host.find("sudo").is_none() {
        return Err("there is no sudo".into());
    }
    let silent = clean("sudo", Keep::Toolchain)
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if silent.is_ok_and(|status| status.success()) || std::io::stdin().is_terminal() {
        Ok(())
    } else {
        Err("sudo wants a password but there is no terminal to ask on".into())
    }
}

/// Whether we are root, which apt-get insists on.
#[must_use]
pub fn is_root() -> bool {
    status_line("Uid:").is_some_and(|line| line.split_whitespace().nth(1) == Some("0"))
}

/// The needed capabilities this process does not have in effect.
#[must_use]
pub fn missing_capabilities() -> Vec<&'static str> {
    status_line("CapEff:").map_or_else(|| missing_of(""), |line| missing_of(&line))
}

fn missing_through_sudo() -> Vec<&'static str> {
    let output =
        sudo_command().args(["cat", "/proc/self/status"]).stderr(Stdio::inherit()).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    missing_of(&line_of(&text, "CapEff:").unwrap_or_default())
}

fn status_line(key: &str) -> Option<String> {
    line_of(&fs::read_to_string("/proc/self/status").ok()?, key)
}

fn line_of(status: &str, key: &str) -> Option<String> {
    Some(status.lines().find_map(|line| line.strip_prefix(key))?.trim().to_owned())
}

fn missing_of(hex: &str) -> Vec<&'static str> {
    let effective = u64::from_str_radix(hex, 16).unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

/// Variables an elevated executable is to see beside the ones it is given:
/// they change what it prints or finds, not what it may do.
const PASSED_THROUGH: [&str; 8] =
    ["PATH", "TERM", "COLUMNS", "NO_COLOR", "RUST_BACKTRACE", "RUST_LOG", "CI", "PROPTEST_CASES"];

/// A command for `executable`, elevated when `power` says so.
#[must_use]
pub fn command(power: &Power, executable: &Path, variables: &[(&str, &OsStr)]) -> Command {
    let Power::Sudo = power else {
        let mut command = clean(executable, Keep::Toolchain);
        command.envs(variables.iter().copied());
        return command;
    };
    let mut command = sudo_command();
    command.arg("env");
    let ours = crate::context::clean_environment(Keep::Toolchain);
    let passed = ours.iter().filter(|(key, _)| PASSED_THROUGH.iter().any(|name| key == name));
    for (key, value) in passed.map(|(k, v)| (k.as_os_str(), v.as_os_str())) {
        command.arg(assignment(key, value));
    }
    for (key, value) in variables {
        command.arg(assignment(OsStr::new(key), value));
    }
    command.arg(executable);
    command
}

fn sudo_command() -> Command {
    let mut command = clean("sudo", Keep::Toolchain);
    if !std::io::stdin().is_terminal() {
        command.arg("-n");
    }
    command.arg("--");
    command
}

fn assignment(key: &OsStr, value: &OsStr) -> std::ffi::OsString {
    let mut text = key.to_os_string();
    text.push("=");
    text.push(value);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_bit_by_bit() {
        assert!(missing_of("000001ffffffffff").is_empty());
        // CAP_SYS_RESOURCE (24) is not among the needed ones.
        assert!(missing_of("000001fffeffffff").is_empty());
        assert_eq!(missing_of("000001ffffffefff"), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_of("0").len(), NEEDED.len());
        assert_eq!(missing_of("").len(), NEEDED.len());
    }

    #[test]
    fn sudo_gets_the_variables_on_its_command_line() {
        let variables = [("VELTRIX_BIN", OsStr::new("/b in/veltrix"))];
        let command = command(&Power::Sudo, Path::new("/t/demo"), &variables);
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let env = args.iter().position(|a| a == "env").unwrap();
        assert!(args[env..].contains(&"VELTRIX_BIN=/b in/veltrix".to_owned()));
        assert_eq!(args.last().unwrap(), "/t/demo");
    }
}
