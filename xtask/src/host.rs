//! What is installed on this machine: programs, the compiler that can build
//! for BPF, and bpf-linker. Only looks, never changes anything.
//!
//! Everything goes through [`Host`], whose file-system root, search path and
//! way of asking a program are plain values, so that tests describe a machine
//! that lacks things.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::context::{Keep, clean};

/// Oldest compiler that builds the workspace, as in the root `Cargo.toml`.
const RUSTC_MIN: (u32, u32) = (1, 95);

/// Runs a program and returns its standard output, or `None` when it fails.
type Ask = Box<dyn Fn(&Path, &[&str]) -> Option<String>>;

/// A machine to look at.
pub struct Host {
    root: PathBuf,
    path: Vec<PathBuf>,
    ask: Ask,
}

/// A compiler that can build `core` for BPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// `Debian's rustc-web` or the rustup toolchain's name.
    pub name: String,
    pub rustc: PathBuf,
    pub cargo: PathBuf,
    /// First line of `rustc --version`.
    pub version: String,
}

impl Host {
    /// The machine we run on: `PATH`, then cargo's own bin directory, then
    /// the sbin directories an ordinary user's `PATH` lacks.
    #[must_use]
    pub fn this() -> Self {
        let mut path: Vec<PathBuf> = std::env::var_os("PATH")
            .map(|p| std::env::split_paths(&p).collect())
            .unwrap_or_default();
        path.extend(cargo_bin());
        path.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        Self { root: "/".into(), path, ask: Box::new(ask) }
    }

    /// A described machine, for tests.
    #[cfg(test)]
    pub fn described(root: PathBuf, path: Vec<PathBuf>, ask: Ask) -> Self {
        Self { root, path, ask }
    }

    /// A file by its absolute path on this machine.
    #[must_use]
    pub fn at(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The first executable of that name on the search path.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|directory| directory.join(name)).find(|file| is_executable(file))
    }

    /// What a program prints, or `None` when it cannot be run or fails.
    #[must_use]
    pub fn ask(&self, program: &Path, args: &[&str]) -> Option<String> {
        (self.ask)(program, args)
    }

    /// Whether packages come from apt.
    #[must_use]
    pub fn is_debian(&self) -> bool {
        self.at("/etc/debian_version").is_file() && self.find("apt-get").is_some()
    }

    /// The compiler for the kernel half: Debian's with its library source, or
    /// a rustup toolchain with `rust-src`, nightly before the others.
    ///
    /// # Errors
    /// What was looked at and what each lacks.
    pub fn bpf_compiler(&self) -> Result<Compiler, String> {
        let debian = match self.debian_compiler() {
            Ok(compiler) => return Ok(compiler),
            Err(why) => why,
        };
        let rustup = match self.rustup_compiler() {
            Ok(compiler) => return Ok(compiler),
            Err(why) => why,
        };
        Err(format!("{debian}; {rustup}"))
    }

    fn debian_compiler(&self) -> Result<Compiler, String> {
        let (rustc, cargo) = (self.at("/usr/bin/rustc"), self.at("/usr/bin/cargo"));
        if !is_executable(&rustc) || !is_executable(&cargo) {
            return Err(
                "no /usr/bin/rustc with /usr/bin/cargo (packages rustc-web, cargo-web)".into()
            );
        }
        let version =
            self.first_line(&rustc, &["--version"]).ok_or("/usr/bin/rustc --version fails")?;
        if !is_new_enough(&version) {
            let (major, minor) = RUSTC_MIN;
            return Err(format!(
                "/usr/bin/rustc is `{version}`, {major}.{minor} or newer is wanted (rustc-web)"
            ));
        }
        if !self.has_library_source(&rustc) {
            return Err("/usr/bin/rustc has no library source (package rust-web-src)".into());
        }
        Ok(Compiler { name: "Debian's rustc-web".into(), rustc, cargo, version })
    }

    fn rustup_compiler(&self) -> Result<Compiler, String> {
        let rustup = self.find("rustup").ok_or("no rustup")?;
        let list = self.ask(&rustup, &["toolchain", "list"]).unwrap_or_default();
        let mut toolchains: Vec<&str> =
            list.lines().filter_map(|line| line.split_whitespace().next()).collect();
        toolchains.sort_by_key(|name| !name.starts_with("nightly"));
        for name in &toolchains {
            let Some(sysroot) =
                self.first_line(&rustup, &["run", name, "rustc", "--print", "sysroot"])
            else {
                continue;
            };
            let bin = Path::new(&sysroot).join("bin");
            let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
            if !library_of(&sysroot).is_dir() || !is_executable(&cargo) {
                continue;
            }
            let version = self.first_line(&rustc, &["--version"]).unwrap_or_default();
            if is_new_enough(&version) {
                return Ok(Compiler { name: format!("rustup's {name}"), rustc, cargo, version });
            }
        }
        Err(format!("no rustup toolchain has rust-src (looked at {})", list_or_none(&toolchains)))
    }

    fn has_library_source(&self, rustc: &Path) -> bool {
        self.first_line(rustc, &["--print", "sysroot"])
            .is_some_and(|sysroot| library_of(&self.at(&sysroot).to_string_lossy()).is_dir())
    }

    /// A bpf-linker that starts. One whose LLVM library is gone does not.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn bpf_linker(&self) -> Result<(PathBuf, String), String> {
        let path =
            self.find("bpf-linker").ok_or("no bpf-linker on PATH or in cargo's bin directory")?;
        let version = self.first_line(&path, &["--version"]).ok_or_else(|| {
            format!("{} does not start (its LLVM library may be gone)", path.display())
        })?;
        Ok((path, version))
    }

    fn first_line(&self, program: &Path, args: &[&str]) -> Option<String> {
        let text = self.ask(program, args)?;
        text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
    }
}

/// `$CARGO_HOME/bin` or `~/.cargo/bin`: where `cargo install` puts things,
/// which need not be on `PATH` (sudo's, for one).
fn cargo_bin() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    Some(home.join("bin"))
}

fn ask(program: &Path, args: &[&str]) -> Option<String> {
    let output = clean(program, Keep::Nothing)
        .args(args.iter().map(OsStr::new))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn library_of(sysroot: &str) -> PathBuf {
    Path::new(sysroot).join("lib/rustlib/src/rust/library")
}

fn is_new_enough(version: &str) -> bool {
    let numbers = version.strip_prefix("rustc ").unwrap_or(version);
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= RUSTC_MIN,
        _ => false,
    }
}

fn list_or_none(names: &[&str]) -> String {
    if names.is_empty() { "none installed".into() } else { names.join(", ") }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A described machine under a temporary directory, removed on drop.
    pub struct Fake {
        pub root: PathBuf,
        answers: Vec<(String, String)>,
    }

    impl Fake {
        pub fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("usr/bin")).unwrap();
            Self { root, answers: Vec::new() }
        }

        pub fn file(self, path: &str) -> Self {
            let file = self.root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            self
        }

        pub fn directory(self, path: &str) -> Self {
            fs::create_dir_all(self.root.join(path)).unwrap();
            self
        }

        /// `question` is the program's file name and its arguments.
        pub fn answer(mut self, question: &str, answer: &str) -> Self {
            let answer = answer.replace("{root}", &self.root.to_string_lossy());
            self.answers.push((question.into(), answer));
            self
        }

        pub fn host(&self) -> Host {
            let answers = self.answers.clone();
            Host::described(
                self.root.clone(),
                vec![self.root.join("usr/bin"), self.root.join("cargo/bin")],
                Box::new(move |program, args| {
                    let name = program.file_name()?.to_string_lossy();
                    let question = std::iter::once(&*name)
                        .chain(args.iter().copied())
                        .collect::<Vec<_>>()
                        .join(" ");
                    answers.iter().find(|(q, _)| *q == question).map(|(_, answer)| answer.clone())
                }),
            )
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    const SOURCE: &str = "usr/lib/rustlib/src/rust/library";

    fn debian(name: &str, version: &str) -> Fake {
        Fake::new(name)
            .file("usr/bin/rustc")
            .file("usr/bin/cargo")
            .answer("rustc --version", version)
            .answer("rustc --print sysroot", "/usr\n")
    }

    #[test]
    fn debian_compiler_with_source_is_taken() {
        let fake = debian("deb-ok", "rustc 1.96.0 (ac68faa20 2026-05-25)\n").directory(SOURCE);
        let compiler = fake.host().bpf_compiler().unwrap();
        assert_eq!(compiler.name, "Debian's rustc-web");
        assert_eq!(compiler.version, "rustc 1.96.0 (ac68faa20 2026-05-25)");
    }

    #[test]
    fn debian_compiler_without_source_or_too_old_is_refused_by_name() {
        let without = debian("deb-nosrc", "rustc 1.96.0\n");
        assert!(without.host().bpf_compiler().unwrap_err().contains("rust-web-src"));
        let old = debian("deb-old", "rustc 1.85.0\n").directory(SOURCE);
        assert!(old.host().bpf_compiler().unwrap_err().contains("1.85.0"));
    }

    #[test]
    fn rustup_nightly_with_source_is_taken_where_debian_has_none() {
        let fake = Fake::new("rustup")
            .file("cargo/bin/rustup")
            .file("tc/nightly/bin/cargo")
            .directory("tc/nightly/lib/rustlib/src/rust/library")
            .answer("rustup toolchain list", "stable-x (active, default)\nnightly-x\n")
            .answer("rustup run nightly-x rustc --print sysroot", "{root}/tc/nightly\n")
            .answer("rustc --version", "rustc 1.98.0-nightly\n");
        assert_eq!(fake.host().bpf_compiler().unwrap().name, "rustup's nightly-x");
    }

    #[test]
    fn bare_machine_says_what_was_looked_at() {
        let why = Fake::new("bare").host().bpf_compiler().unwrap_err();
        assert!(why.contains("rustc-web") && why.contains("no rustup"), "{why}");
    }

    #[test]
    fn linker_that_does_not_start_is_not_taken() {
        let broken = Fake::new("linker-broken").file("cargo/bin/bpf-linker");
        assert!(broken.host().bpf_linker().unwrap_err().contains("does not start"));
        let works = Fake::new("linker-ok")
            .file("cargo/bin/bpf-linker")
            .answer("bpf-linker --version", "bpf-linker 0.13.0\n");
        assert_eq!(works.host().bpf_linker().unwrap().1, "bpf-linker 0.13.0");
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(is_new_enough("rustc 1.95.0 (x)"));
        assert!(is_new_enough("rustc 1.100.0-nightly"));
        assert!(!is_new_enough("rustc 1.9.0"));
        assert!(!is_new_enough(""));
    }
}
