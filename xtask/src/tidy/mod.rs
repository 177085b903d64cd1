//! `cargo xtask tidy`: the tree's own rules, those no other tool checks.
//!
//! | file | rule |
//! |---|---|
//! | [`text`] | long files, leftover words, machine paths, binaries, blanks |
//! | [`imports`] | arrows between modules follow the packet; where `unsafe` may stand |
//! | [`docs`] | links hold, every page is reachable, generated pages are fresh |
//! | [`allow`] | the exceptions, each with its reason |
//!
//! A rule is a function from a path and its text to findings, so each is
//! tested on strings. [`rust_text`] strips comments and literals for them.

mod allow;
mod docs;
mod imports;
mod rust_text;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;

/// Check the tree's own rules.
///
/// File sizes, the direction of imports, where `unsafe` may stand, leftover
/// words, machine paths, binaries, links between the documents and whether the
/// generated ones are up to date. Looks at files git tracks and new ones it
/// does not ignore.
#[derive(clap::Args)]
pub struct Args {
    /// Rewrite the generated documents instead of complaining.
    #[arg(long)]
    bless: bool,
}

/// Something a rule found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    /// From 1; `None` when it is about the whole file.
    line: Option<usize>,
    message: String,
}

impl Finding {
    fn file(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, message: message.into() }
    }

    fn line(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// The files of the tree with their bytes, by path from the top.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Runs the subcommand.
///
/// # Errors
/// When there are findings, or git or cargo cannot be asked.
pub fn run(args: &Args) -> Result<ExitCode> {
    let context = Context::new()?;
    if args.bless {
        for page in docs::bless(&context, &read(&context)?)? {
            eprintln!("tidy: wrote {page}");
        }
    }
    check(&context)?;
    eprintln!("tidy: ok");
    Ok(ExitCode::SUCCESS)
}

/// Applies every rule and prints what they find.
///
/// # Errors
/// When there are findings, or git or cargo cannot be asked.
pub fn check(context: &Context) -> Result<()> {
    let tree = read(context)?;
    let mut findings = rules(&tree);
    let generated = docs::generated(context, &tree);
    if let Ok(stale) = &generated {
        findings.extend(stale.iter().cloned());
    }
    findings.sort();
    findings.iter().for_each(|finding| eprintln!("{finding}"));
    // Only now: what the rules found is of use even when the binary is not.
    generated?;
    match findings.len() {
        0 => Ok(()),
        1 => bail!("one finding"),
        n => bail!("{n} findings"),
    }
}

/// The rules that need only the tree.
fn rules(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let modules = imports::modules(tree);
    for (path, bytes) in tree {
        let text = match text::readable(path, bytes) {
            Ok(text) => text,
            Err(finding) => {
                findings.extend(finding);
                continue;
            }
        };
        findings.extend(text::leftovers(path, text));
        findings.extend(text::machine_paths(path, text));
        findings.extend(text::length(path, text));
        if path.ends_with(".rs") {
            let code = rust_text::code_of(text);
            findings.extend(text::blanks(path, text));
            findings.extend(text::macros(path, &code));
            findings.extend(imports::unsafe_code(path, &code));
            findings.extend(imports::direction(path, &code, &modules));
        }
    }
    findings.extend(allow::stale(tree));
    findings.extend(docs::links(tree));
    findings
}

/// Paths git tracks and new ones it does not ignore, sorted.
///
/// # Errors
/// When this is no git checkout.
pub fn files(context: &Context) -> Result<Vec<String>> {
    let output = crate::context::clean("git", crate::context::Keep::Toolchain)
        // A checkout owned by another user (CI as root) is still ours to read.
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&context.root)
        .output()
        .context("cannot start git, which lists the files to look at")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let list = String::from_utf8_lossy(&output.stdout);
    let mut files: Vec<String> =
        list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    // A deleted file is listed until its deletion is staged.
    files.retain(|path| context.root.join(path).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

fn read(context: &Context) -> Result<Tree> {
    files(context)?
        .into_iter()
        .map(|path| {
            let bytes = fs::read(context.root.join(&path))
                .with_context(|| format!("cannot read {path}"))?;
            Ok((path, bytes))
        })
        .collect()
}
