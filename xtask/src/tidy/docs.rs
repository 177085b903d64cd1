//! Rules about documents: links hold, every page can be reached from the
//! README or the architecture page, and generated pages are up to date.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::{Finding, Tree};
use crate::build_ebpf::Objects;
use crate::context::{Context, Keep, clean};

const README: &str = "README.md";
const ARCHITECTURE: &str = "userspace/docs/ARCHITECTURE.md";
const DOCS: &str = "userspace/docs/";

/// Pages printed by `veltrix docs NAME`, from the tables in the code.
const GENERATED: [(&str, &str); 2] =
    [("metrics", "userspace/docs/METRICS.md"), ("config", "userspace/docs/CONFIG.md")];

/// Links that lead nowhere, and pages no link leads to.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut reached = vec![README.to_owned(), ARCHITECTURE.to_owned()];
    for (path, bytes) in tree.iter().filter(|(path, _)| path.ends_with(".md")) {
        let text = String::from_utf8_lossy(bytes);
        for (target, line) in link_targets(&text) {
            let Some(file) = resolved(path, target) else {
                continue;
            };
            let exists = tree.contains_key(&file)
                || tree.keys().any(|other| other.starts_with(&format!("{file}/")));
            if !exists && !file.is_empty() {
                findings.push(Finding::line(
                    path,
                    line,
                    format!("links to `{target}`, which is not there"),
                ));
            }
            // A folder's own README may stand for its pages, decisions for one.
            if path == README || path == ARCHITECTURE || path.ends_with("/README.md") {
                reached.push(file);
            }
        }
    }
    if tree.contains_key(README) && tree.contains_key(ARCHITECTURE) {
        let pages = tree.keys().filter(|path| path.starts_with(DOCS) && path.ends_with(".md"));
        let lost = pages.filter(|page| !reached.contains(page));
        findings.extend(
            lost.map(|page| {
                Finding::file(page, format!("no link from {README} or {ARCHITECTURE}"))
            }),
        );
    }
    findings
}

/// Targets of Markdown links outside code blocks, with their lines.
fn link_targets(text: &str) -> Vec<(&str, usize)> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let starts = line.match_indices("](").map(|(at, _)| at + 2);
        targets.extend(starts.filter_map(|start| {
            let end = line[start..].find(')')?;
            let target = line[start..start + end].split_whitespace().next()?;
            Some((target, index + 1))
        }));
    }
    targets
}

/// The file a relative link means, from the top of the tree; `None` for links
/// to other places and within the page.
fn resolved(page: &str, target: &str) -> Option<String> {
    let file = target.split('#').next().unwrap_or(target);
    if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Generated pages that are not what `veltrix docs NAME` prints.
///
/// A page that is not there while the binary prints none is no finding.
///
/// # Errors
/// When the binary does not build.
pub fn generated(context: &Context, tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let binary = build(context)?;
    for (name, page) in GENERATED {
        let written = tree.get(page).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let printed = printed(&binary, name)?;
        if let Some(message) = compared(written.as_deref(), printed.as_deref(), name) {
            findings.push(Finding::file(page, message));
        }
    }
    Ok(findings)
}

fn compared(written: Option<&str>, printed: Option<&str>, name: &str) -> Option<String> {
    match (written, printed) {
        (None, None) => None,
        (Some(written), Some(printed)) if written == printed => None,
        (_, Some(_)) => Some("is out of date: run `cargo xtask tidy --bless`".into()),
        (Some(_), None) => Some(format!("is generated, but `veltrix docs {name}` prints nothing")),
    }
}

/// Rewrites the generated pages; returns those that changed.
///
/// # Errors
/// When the binary does not build or a page cannot be written.
pub fn bless(context: &Context, tree: &Tree) -> Result<Vec<&'static str>> {
    let mut changed = Vec::new();
    let binary = build(context)?;
    for (name, page) in GENERATED {
        let Some(text) = printed(&binary, name)? else {
            continue;
        };
        if tree.get(page).is_none_or(|written| written != text.as_bytes()) {
            fs::write(context.root.join(page), text)
                .with_context(|| format!("cannot write {page}"))?;
            changed.push(page);
        }
    }
    Ok(changed)
}

/// Builds the debug binary, with the same variables as the other commands when
/// the kernel half was built before, or cargo would build it anew each time.
fn build(context: &Context) -> Result<PathBuf> {
    let objects = Some(Objects::of(context, false))
        .filter(|objects| objects.xdp.is_file() && objects.lab.is_file());
    crate::build::build(
        context,
        objects.as_ref(),
        &["--quiet", "--package", "veltrix", "--bin", "veltrix"],
    )
    .context("veltrix does not build, so its generated documents cannot be checked")?;
    Ok(context.target.join("debug/veltrix"))
}

/// What `veltrix docs NAME` prints; `None` when it knows no such page.
fn printed(binary: &Path, name: &str) -> Result<Option<String>> {
    let output = clean(binary, Keep::Toolchain)
        .args(["docs", name])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.success() && !text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn found(files: &[(&str, &str)]) -> Vec<(String, Option<usize>)> {
        links(&tree(files)).into_iter().map(|finding| (finding.path, finding.line)).collect()
    }

    #[test]
    fn every_page_is_reached() {
        let files = [
            (
                README,
                "[map](userspace/docs/ARCHITECTURE.md) [wire](./userspace/docs/WIRE.md#header)",
            ),
            (ARCHITECTURE, "[why](decisions/README.md)"),
            ("userspace/docs/WIRE.md", "back to [the map](ARCHITECTURE.md)"),
            ("userspace/docs/LOST.md", ""),
            ("userspace/docs/decisions/README.md", "[1](0001-one.md)"),
            ("userspace/docs/decisions/0001-one.md", ""),
        ];
        assert_eq!(found(&files), [("userspace/docs/LOST.md".to_owned(), None)]);
        assert!(
            found(&files[2..4]).iter().all(|(_, line)| line.is_some()),
            "no rule before the README is there"
        );
    }

    #[test]
    fn links_hold() {
        let files = [
            (
                README,
                "[a](https://example.org) [b](#top) [code](userspace/src) [gone](nowhere.md)\n```\n[x](y)\n```",
            ),
            ("userspace/src/lib.rs", ""),
        ];
        assert_eq!(found(&files), [(README.to_owned(), Some(1))]);
    }

    #[test]
    fn paths_resolve_from_the_page() {
        assert_eq!(resolved("userspace/docs/A.md", "../../README.md").unwrap(), "README.md");
        assert_eq!(resolved("README.md", "ebpf/abi/").unwrap(), "ebpf/abi");
        assert_eq!(resolved("README.md", "#x"), None);
    }

    #[test]
    fn generated_pages_are_compared() {
        assert_eq!(compared(None, None, "metrics"), None);
        assert_eq!(compared(Some("a"), Some("a"), "metrics"), None);
        assert!(compared(Some("a"), Some("b"), "metrics").unwrap().contains("--bless"));
        assert!(compared(None, Some("b"), "metrics").unwrap().contains("--bless"));
        assert!(compared(Some("a"), None, "metrics").unwrap().contains("veltrix docs metrics"));
    }
}
