//! Where things are, and commands with a clean environment.
//!
//! `cargo xtask` runs this program under cargo under rustup, and both leave
//! variables behind (`CARGO`, `RUSTUP_TOOLCHAIN`, `CARGO_PKG_*`,
//! `LD_LIBRARY_PATH`) that would steer the next cargo to the wrong compiler or
//! make it rebuild. Every command made here drops them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};

/// The checkout and its build directory.
pub struct Context {
    /// Top of the checkout, absolute.
    pub root: PathBuf,
    /// Cargo's target directory, absolute.
    pub target: PathBuf,
}

/// How much of the surrounding Rust set-up a child may see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The user's choice of toolchain and flags stays: for the user half.
    Toolchain,
    /// Nothing that picks a compiler or its flags: for the kernel half.
    Nothing,
}

impl Context {
    /// Asks cargo where the target directory is.
    ///
    /// # Errors
    /// When cargo cannot read the workspace.
    pub fn new() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask is not inside a workspace")?
            .to_path_buf();
        let output = cargo_in(&root)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed: mend the manifest it names above");
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target_directory")?
            .into();
        Ok(Self { root, target })
    }

    /// The cargo that runs us, at the top of the checkout.
    #[must_use]
    pub fn cargo(&self) -> Command {
        cargo_in(&self.root)
    }
}

fn cargo_in(root: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = clean(cargo, Keep::Toolchain);
    command.current_dir(root);
    command.env_remove("VELTRIX_EBPF_OBJECT");
    command
}

/// A command without the variables cargo and rustup left behind.
pub fn clean(program: impl AsRef<std::ffi::OsStr>, keep: Keep) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(clean_environment(keep));
    command
}

/// Our environment without what cargo and rustup left behind, and with the
/// `sbin` directories on `PATH`: `ip` and `ethtool` live there, and Debian
/// leaves them off an ordinary user's.
pub fn clean_environment(keep: Keep) -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter_map(|(key, value)| {
            let name = key.to_str()?;
            if !survives(name, keep) {
                return None;
            }
            let value = match name {
                "PATH" => with_sbin(&value),
                "LD_LIBRARY_PATH" => without_cargo_directories(&value)?,
                _ => value,
            };
            Some((key, value))
        })
        .collect()
}

fn survives(name: &str, keep: Keep) -> bool {
    let of_the_package = name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(
            name,
            "CARGO_BIN_NAME"
                | "CARGO_CRATE_NAME"
                | "CARGO_PRIMARY_PACKAGE"
                | "OUT_DIR"
                | "RUST_RECURSION_COUNT"
        );
    if of_the_package {
        return false;
    }
    match keep {
        Keep::Toolchain => true,
        Keep::Nothing => {
            let of_the_network =
                ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix));
            let of_the_compiler = (name == "CARGO" || name.starts_with("CARGO_"))
                && !of_the_network
                && !matches!(name, "CARGO_HOME" | "CARGO_BUILD_JOBS");
            !of_the_compiler
                && !name.starts_with("RUSTC")
                && !name.starts_with("RUSTDOC")
                && !matches!(
                    name,
                    "RUSTFLAGS"
                        | "RUSTUP_TOOLCHAIN"
                        | "RUSTUP_TOOLCHAIN_SOURCE"
                        | "LD_LIBRARY_PATH"
                )
        }
    }
}

fn with_sbin(path: &OsString) -> OsString {
    let mut directories: Vec<PathBuf> = std::env::split_paths(path).collect();
    for sbin in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
        if !directories.iter().any(|d| d == Path::new(sbin)) {
            directories.push(sbin.into());
        }
    }
    std::env::join_paths(directories).unwrap_or_else(|_| path.clone())
}

/// Cargo and rustup prepend their own library directories; `None` when nothing
/// else is left.
fn without_cargo_directories(value: &OsString) -> Option<OsString> {
    let own: Vec<PathBuf> = std::env::split_paths(value)
        .filter(|directory| {
            let text = directory.to_string_lossy();
            !text.is_empty()
                && !text.contains("/target/")
                && !text.contains("/toolchains/")
                && !text.contains("/rustlib/")
        })
        .collect();
    if own.is_empty() {
        return None;
    }
    std::env::join_paths(own).ok()
}

/// Runs a command to its end with our own streams.
///
/// # Errors
/// When it cannot be started or fails; the text names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Like [`run`], for callers that judge the status themselves.
///
/// # Errors
/// When the command cannot be started.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start {}", shown(command)))
}

/// A command as one would type it.
#[must_use]
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| quoted(&part.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(part: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !part.is_empty() && part.chars().all(plain) {
        part.to_owned()
    } else {
        format!("'{}'", part.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_left_behind_is_dropped() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "OUT_DIR"] {
            assert!(!survives(name, Keep::Toolchain), "{name}");
            assert!(!survives(name, Keep::Nothing), "{name}");
        }
        for name in
            ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"]
        {
            assert!(survives(name, Keep::Toolchain), "{name}");
            assert!(!survives(name, Keep::Nothing), "{name}");
        }
        for name in
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "HOME", "PATH", "RUSTUP_HOME"]
        {
            assert!(survives(name, Keep::Nothing), "{name}");
        }
    }

    #[test]
    fn library_path_keeps_only_what_the_user_set() {
        let mixed = OsString::from("/a/target/debug:/r/toolchains/stable/lib:/opt/lib");
        assert_eq!(without_cargo_directories(&mixed), Some("/opt/lib".into()));
        assert_eq!(without_cargo_directories(&OsString::from("/a/target/debug/deps")), None);
    }

    #[test]
    fn sbin_is_appended_once() {
        let path = with_sbin(&OsString::from("/usr/bin:/usr/sbin"));
        assert_eq!(path, OsString::from("/usr/bin:/usr/sbin:/usr/local/sbin:/sbin"));
    }

    #[test]
    fn a_shown_command_can_be_pasted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo it's"]);
        assert_eq!(shown(&command), r"sh -c 'echo it'\''s'");
    }
}
