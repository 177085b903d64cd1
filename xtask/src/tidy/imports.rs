//! Rules about structure: which module may use which, and where `unsafe` may
//! stand.
//!
//! Modules of `userspace/src` stand in the order a packet meets them, and an
//! arrow points backwards only: a stage uses the shared ground and the stages
//! before it. Only the wiring sees all.
//!
//! ```text
//!   shared ground: base config metrics   (used by all, and by one another)
//!   stages:        nic -> xsk -> udp -> lane -> admin
//!   wiring:        run, cli (with its commands), lib.rs, main.rs
//! ```

use std::collections::BTreeSet;

use super::allow::{UNSAFE, covers};
use super::rust_text::{line_of, words};
use super::{Finding, Tree};

const SOURCE: &str = "userspace/src/";
const GROUND: [&str; 3] = ["base", "config", "metrics"];
const STAGES: [&str; 13] = [
    "nic",
    "xsk",
    "udp",
    "batch",
    "log",
    "replicate",
    "dedupe",
    "index",
    "apply",
    "read",
    "snapshot",
    "lane",
    "admin",
];
const WIRING: [&str; 2] = ["run", "cli"];

/// The top-level modules of `userspace/src`, from its files.
pub fn modules(tree: &Tree) -> BTreeSet<String> {
    tree.keys().filter_map(|path| module_of(path)).map(str::to_owned).collect()
}

/// `lane` for `userspace/src/lane/mod.rs` and `userspace/src/lane.rs`; none
/// for the crate's own roots.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix(SOURCE).filter(|inside| inside.ends_with(".rs"))?;
    let name = match inside.split_once('/') {
        Some((directory, _)) => directory,
        None => inside.trim_end_matches(".rs"),
    };
    (name != "lib" && name != "main" && name != "bin").then_some(name)
}

/// Paths that point forwards, and modules that have no place in the order.
pub fn direction(path: &str, code: &str, modules: &BTreeSet<String>) -> Vec<Finding> {
    let Some(own) = module_of(path) else {
        return Vec::new();
    };
    if !GROUND.iter().chain(&STAGES).chain(&WIRING).any(|known| *known == own) {
        let message = format!(
            "module `{own}` has no place in the order: give it one in xtask/src/tidy/imports.rs"
        );
        return vec![Finding::file(path, message)];
    }
    let used = crate_paths(code).into_iter().filter(|(name, _)| modules.contains(name));
    used.filter(|(name, _)| !may_use(own, name))
        .map(|(name, line)| {
            let message = format!("`{own}` uses `{name}`, which comes after it on a packet's way");
            Finding::line(path, line, message)
        })
        .collect()
}

fn may_use(own: &str, other: &str) -> bool {
    if own == other || WIRING.contains(&own) || GROUND.contains(&other) {
        return true;
    }
    let place = |name: &str| STAGES.iter().position(|stage| *stage == name);
    match (place(own), place(other)) {
        (Some(own), Some(other)) => other < own,
        _ => false,
    }
}

/// The first segment after every `crate::`, with its line; groups such as
/// `crate::{nic, xsk::Ring}` give one for each member.
fn crate_paths(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in words(code, "crate") {
        let Some(rest) = code[at + "crate".len()..].trim_start().strip_prefix("::") else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            let start = code.len() - group.len();
            found
                .extend(members(group).map(|(name, offset)| (name, line_of(code, start + offset))));
        } else {
            found.push((identifier(rest).to_owned(), line));
        }
    }
    found
}

/// The first identifier of each member of a brace group, with its offset.
fn members(group: &str) -> impl Iterator<Item = (String, usize)> {
    let mut depth = 0;
    let mut start = 0;
    let mut members = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                members.push((start, at));
                start = at + 1;
            }
            '}' if depth == 0 => {
                members.push((start, at));
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    members.into_iter().filter_map(|(start, end)| {
        let member = &group[start..end];
        let offset = start + (member.len() - member.trim_start().len());
        let name = identifier(member.trim_start());
        (!name.is_empty()).then(|| (name.to_owned(), offset))
    })
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// `unsafe` outside the few places that have a reason for it.
pub fn unsafe_code(path: &str, code: &str) -> Vec<Finding> {
    if covers(UNSAFE, path) {
        return Vec::new();
    }
    words(code, "unsafe")
        .map(|(_, line)| {
            Finding::line(path, line, "`unsafe` has no place here (the places and their reasons: xtask/src/tidy/allow.rs)")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeSet<String> {
        ["base", "config", "nic", "xsk", "udp", "lane", "admin", "run", "cli"]
            .map(str::to_owned)
            .into()
    }

    fn lines(path: &str, code: &str) -> Vec<Option<usize>> {
        direction(path, code, &known()).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn arrows_point_backwards() {
        assert!(
            lines("userspace/src/lane/mod.rs", "use crate::xsk::Ring;\nuse crate::base::Clock;")
                .is_empty()
        );
        assert_eq!(lines("userspace/src/xsk/ring.rs", "\nuse crate::lane::Lane;"), [Some(2)]);
        assert_eq!(lines("userspace/src/nic.rs", "fn f() -> crate::admin::Status {}"), [Some(1)]);
        assert_eq!(lines("userspace/src/base/mod.rs", "use crate::nic::Queue;"), [Some(1)]);
        assert!(lines("userspace/src/base/mod.rs", "use crate::config::Limits;").is_empty());
        assert_eq!(lines("userspace/src/lane/mod.rs", "use crate::run::Stop;"), [Some(1)]);
    }

    #[test]
    fn wiring_and_roots_see_all() {
        for path in [
            "userspace/src/run/mod.rs",
            "userspace/src/cli/load.rs",
            "userspace/src/main.rs",
            "tests/src/lib.rs",
        ] {
            assert!(
                lines(path, "use crate::{nic, xsk, lane, admin, run, cli};").is_empty(),
                "{path}"
            );
        }
    }

    #[test]
    fn groups_are_looked_into() {
        let code =
            "use crate::{\n    base::{lane, Clock},\n    lane::Lane,\n    Error,\n    nic,\n};";
        assert_eq!(lines("userspace/src/udp/mod.rs", code), [Some(3)]);
        assert!(lines("userspace/src/udp/mod.rs", "use crate::{};").is_empty());
    }

    #[test]
    fn re_exports_and_macros_are_no_modules() {
        assert!(
            lines(
                "userspace/src/nic/mod.rs",
                "crate::Error; crate::count!(); pub(crate) fn f() {}"
            )
            .is_empty()
        );
    }

    #[test]
    fn a_new_module_needs_a_place() {
        let found = direction("userspace/src/wormhole.rs", "", &known());
        assert!(found[0].message.contains("`wormhole`"));
    }

    #[test]
    fn modules_come_from_the_files() {
        let tree: Tree = [
            "userspace/src/lib.rs",
            "userspace/src/nic/mod.rs",
            "userspace/src/metrics.rs",
            "ebpf/src/main.rs",
        ]
        .map(|path| (path.to_owned(), Vec::new()))
        .into();
        assert_eq!(modules(&tree), ["metrics", "nic"].map(str::to_owned).into());
    }

    #[test]
    fn unsafe_has_its_places() {
        assert!(unsafe_code("userspace/src/xsk/umem.rs", "unsafe { x() }").is_empty());
        assert!(unsafe_code("ebpf/src/main.rs", "unsafe { x() }").is_empty());
        assert_eq!(unsafe_code("userspace/src/lane/mod.rs", "\nunsafe { x() }")[0].line, Some(2));
        assert!(unsafe_code("userspace/src/lane/mod.rs", "#![forbid(unsafe_code)]").is_empty());
    }
}
