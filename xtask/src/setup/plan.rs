//! What this machine lacks and what would mend it. Only looks and describes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::host::Host;
use crate::power;

/// bpf-linker as it is known to work with Debian's compiler: both on LLVM 22.
/// The crate's default feature asks for a newer LLVM, which Debian lacks.
pub const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
pub const BPF_LINKER_ARGS: [&str; 7] = [
    "install",
    "bpf-linker",
    "--version",
    "0.13.0",
    "--no-default-features",
    "--features",
    "llvm-22",
];

/// What a subcommand needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// Compiler, linker: to build the kernel half.
    Ebpf,
    /// ip and ethtool: to make the network lab.
    Lab,
    /// Formatter, lints, shellcheck.
    Lint,
    /// Chromium: to test the page.
    Browser,
    /// Redis, which `bench ingest` alone compares with.
    Redis,
}

/// Every part that building, testing and linting need.
pub const ALL: [Part; 4] = [Part::Ebpf, Part::Lab, Part::Lint, Part::Browser];

/// What was found, and what is to be done about the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub found: Vec<(&'static str, String)>,
    pub lacking: Vec<(&'static str, String)>,
    pub packages: BTreeSet<&'static str>,
    pub bpf_linker: bool,
    pub rustup_components: bool,
}

impl Plan {
    /// Looks at the machine.
    #[must_use]
    pub fn make(host: &Host, parts: &[Part]) -> Self {
        let mut plan = Self::default();
        for part in parts {
            match part {
                Part::Ebpf => plan.look_for_ebpf(host),
                Part::Lab => {
                    plan.look_for_program(host, "ip", "iproute2");
                    plan.look_for_program(host, "ethtool", "ethtool");
                }
                Part::Lint => plan.look_for_lint(host),
                Part::Browser => plan.look_for_browser(host),
                // Debian's redis-server is this file under another name; the
                // package of that name adds a service, which nobody here wants.
                Part::Redis => {
                    plan.look_for_program(host, "redis-check-rdb", "redis-tools");
                    plan.look_for_program(host, "redis-benchmark", "redis-tools");
                }
            }
        }
        plan
    }

    fn look_for_ebpf(&mut self, host: &Host) {
        self.look_for_program(host, "cc", "build-essential");
        match host.bpf_compiler() {
            Ok(compiler) => self
                .found
                .push(("eBPF compiler", format!("{}, {}", compiler.name, compiler.version))),
            Err(why) => {
                self.lacking.push(("eBPF compiler", why));
                self.packages.extend(["rustc-web", "rust-web-src", "cargo-web"]);
            }
        }
        match host.bpf_linker() {
            Ok((path, version)) => {
                self.found.push(("bpf-linker", format!("{version}, {}", path.display())))
            }
            Err(why) => {
                self.lacking.push(("bpf-linker", why));
                self.bpf_linker = true;
                if !host.at(LLVM_PREFIX).join("bin/llvm-config").exists() {
                    self.packages.insert("llvm-22-dev");
                }
            }
        }
    }

    fn look_for_lint(&mut self, host: &Host) {
        self.look_for_program(host, "shellcheck", "shellcheck");
        // It comes with Debian's compiler, so only where that is or will be.
        let debian_compiles = self.packages.contains("rustc-web")
            || host
                .bpf_compiler()
                .is_ok_and(|compiler| compiler.rustc == host.at("/usr/bin/rustc"));
        if debian_compiles && host.is_debian() {
            let driver = host.at("/usr/bin/clippy-driver");
            if driver.exists() {
                self.found.push(("clippy for eBPF", driver.display().to_string()));
            } else {
                self.lacking.push(("clippy for eBPF", "no /usr/bin/clippy-driver".into()));
                self.packages.insert("rust-web-clippy");
            }
        }
        for (name, driver) in [("rustfmt", "rustfmt"), ("clippy", "cargo-clippy")] {
            let works = host.find(driver).filter(|path| host.ask(path, &["--version"]).is_some());
            match works {
                Some(path) => self.found.push((name, path.display().to_string())),
                None => {
                    self.lacking.push((name, format!("no {driver} that starts")));
                    self.rustup_components = true;
                }
            }
        }
    }

    /// Any that the tests take (`tests/src/chromium.rs`).
    fn look_for_browser(&mut self, host: &Host) {
        let others = ["chromium-browser", "google-chrome", "google-chrome-stable"];
        match others.into_iter().find_map(|name| host.find(name)) {
            Some(path) => self.found.push(("chromium", path.display().to_string())),
            None => self.look_for_program(host, "chromium", "chromium"),
        }
    }

    fn look_for_program(&mut self, host: &Host, program: &'static str, package: &'static str) {
        match host.find(program) {
            Some(path) => self.found.push((program, path.display().to_string())),
            None => {
                self.lacking.push((program, "not on PATH".into()));
                self.packages.insert(package);
            }
        }
    }

    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lacking.is_empty()
    }

    /// The plan as the user sees it before being asked.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for (what, how) in &self.found {
            let _ = writeln!(text, "  found    {what:<16} {how}");
        }
        for (what, why) in &self.lacking {
            let _ = writeln!(text, "  lacking  {what:<16} {why}");
        }
        if self.is_empty() {
            return text;
        }
        text.push_str("\nto be installed:\n");
        if !self.packages.is_empty() {
            let list: Vec<_> = self.packages.iter().copied().collect();
            let _ = writeln!(text, "  Debian packages {}", list.join(" "));
        }
        if self.bpf_linker {
            text.push_str("  bpf-linker 0.13.0, built with cargo against LLVM 22\n");
        }
        if self.rustup_components {
            text.push_str("  rustup components rustfmt and clippy\n");
        }
        let (megabytes, minutes) = self.cost();
        let _ = writeln!(text, "about {megabytes} MB on disk and {minutes} min");
        if self.packages.contains("rustc-web") {
            text.push_str(
                "rustc-web comes from bookworm-security and conflicts with Debian's own rustc, cargo and rustup\n\
                 packages (not with rustup installed by its script, which stays the compiler of the user half)\n",
            );
        }
        text
    }

    /// Megabytes on disk with dependencies, and minutes, for Debian 12: 1.2 GB
    /// for compiler, source and LLVM together.
    fn cost(&self) -> (u32, u32) {
        let mut megabytes = 0;
        let mut minutes = 1;
        for package in &self.packages {
            megabytes += match *package {
                "rustc-web" => 275,
                "rust-web-src" => 340,
                "cargo-web" | "shellcheck" => 30,
                "llvm-22-dev" => 590,
                "rust-web-clippy" => 15,
                "build-essential" => 200,
                "chromium" => 415,
                _ => 5,
            };
        }
        if self.packages.contains("rustc-web") {
            minutes += 1;
        }
        if self.bpf_linker {
            megabytes += 20;
            minutes += 2;
        }
        (megabytes, minutes)
    }

    /// The commands a user would type, in order.
    #[must_use]
    pub fn commands(&self, host: &Host) -> Vec<String> {
        let mut commands = Vec::new();
        let sudo = if power::is_root() { "" } else { "sudo " };
        if host.is_debian() {
            if !self.packages.is_empty() {
                let list: Vec<_> = self.packages.iter().copied().collect();
                commands.push(format!("{sudo}apt-get update"));
                commands.push(format!(
                    "{sudo}apt-get {} {}",
                    APT_INSTALL.join(" "),
                    list.join(" ")
                ));
            }
            if self.bpf_linker {
                commands
                    .push(format!("LLVM_PREFIX={LLVM_PREFIX} cargo {}", BPF_LINKER_ARGS.join(" ")));
            }
        } else {
            if self.packages.contains("rustc-web") {
                commands.push("rustup toolchain install nightly --component rust-src".into());
            }
            if self.bpf_linker {
                commands.push(
                    "cargo install bpf-linker   # wants the LLVM of the compiler above".into(),
                );
            }
            let rest: Vec<_> =
                self.packages.iter().filter(|p| !of_the_compiler(p)).copied().collect();
            if !rest.is_empty() {
                commands.push(format!("# with your package manager: {}", rest.join(" ")));
            }
        }
        if self.rustup_components {
            commands.push("rustup component add rustfmt clippy".into());
        }
        commands
    }
}

fn of_the_compiler(package: &str) -> bool {
    package.contains("-web") || package.starts_with("llvm")
}

/// No recommended packages, and never the removal of one the user has.
pub const APT_INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::host::tests::Fake;

    pub fn debian(name: &str) -> Fake {
        Fake::new(name).file("etc/debian_version").file("usr/bin/apt-get")
    }

    pub fn with_compiler(fake: Fake) -> Fake {
        fake.file("usr/bin/cc")
            .file("usr/bin/rustc")
            .file("usr/bin/cargo")
            .directory("usr/lib/rustlib/src/rust/library")
            .answer("rustc --version", "rustc 1.96.0\n")
            .answer("rustc --print sysroot", "/usr\n")
    }

    #[test]
    fn bare_debian_gets_everything() {
        let fake = debian("plan-bare");
        let plan = Plan::make(&fake.host(), &ALL);
        let packages: Vec<_> = plan.packages.iter().copied().collect();
        assert_eq!(
            packages,
            [
                "build-essential",
                "cargo-web",
                "chromium",
                "ethtool",
                "iproute2",
                "llvm-22-dev",
                "rust-web-clippy",
                "rust-web-src",
                "rustc-web",
                "shellcheck",
            ]
        );
        assert!(plan.bpf_linker && plan.rustup_components);
        let shown = plan.shown();
        for word in ["bookworm-security", "conflicts", "bpf-linker 0.13.0", "MB", "min"] {
            assert!(shown.contains(word), "{word} is not in:\n{shown}");
        }
    }

    #[test]
    fn linting_alone_brings_no_compiler() {
        let fake = debian("plan-lint");
        let plan = Plan::make(&fake.host(), &[Part::Lint]);
        assert_eq!(plan.packages.iter().copied().collect::<Vec<_>>(), ["shellcheck"]);
    }

    #[test]
    fn another_browser_of_the_kind_will_do() {
        let fake = debian("plan-browser").file("usr/bin/google-chrome");
        assert!(Plan::make(&fake.host(), &[Part::Browser]).is_empty());
        let plan = Plan::make(&debian("plan-no-browser").host(), &[Part::Browser]);
        assert_eq!(plan.packages.iter().copied().collect::<Vec<_>>(), ["chromium"]);
    }

    #[test]
    fn only_the_comparison_brings_redis_and_no_service() {
        let fake = debian("plan-redis");
        let plan = Plan::make(&fake.host(), &[Part::Redis]);
        assert_eq!(plan.packages.iter().copied().collect::<Vec<_>>(), ["redis-tools"]);
        assert!(!ALL.contains(&Part::Redis));
    }

    #[test]
    fn compiler_and_llvm_cost_what_the_readme_says() {
        let fake = debian("plan-cost").file("usr/bin/cc");
        let (megabytes, _) = Plan::make(&fake.host(), &[Part::Ebpf]).cost();
        assert!((1_150..1_350).contains(&megabytes), "{megabytes}");
    }

    #[test]
    fn only_the_linker_is_built_when_the_rest_is_there() {
        let fake = with_compiler(debian("plan-linker")).file("usr/lib/llvm-22/bin/llvm-config");
        let host = fake.host();
        let plan = Plan::make(&host, &[Part::Ebpf]);
        assert!(plan.packages.is_empty() && plan.bpf_linker);
        let commands = plan.commands(&host);
        assert_eq!(
            commands,
            [
                "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22"
            ]
        );
    }
}
