//! Rules about text: length, leftover words, machine paths, binaries, blanks.

use super::Finding;
use super::allow::{BINARY, LINES_MAX, LONG, covers};
use super::rust_text::words;

/// Words that mark unfinished work. Spelled apart so that this file passes.
const LEFTOVERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Macros that must not be left behind.
const MACROS: [&str; 3] = [concat!("to", "do"), concat!("unimple", "mented"), concat!("d", "bg")];

/// Directories that exist on one machine only. A document that shows a path
/// uses one every reader has.
const MACHINE_DIRECTORIES: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// The text of a file, or what is wrong with a binary one; `Err(None)` is an
/// allowed binary.
pub fn readable<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a str, Option<Finding>> {
    if bytes.starts_with(b"\x7fELF") {
        return Err(Some(Finding::file(
            path,
            "is an executable or object file: build it, do not track it",
        )));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ if covers(BINARY, path) => Err(None),
        _ => Err(Some(Finding::file(
            path,
            "is binary: generate it, or give xtask/src/tidy/allow.rs a reason",
        ))),
    }
}

/// Marks of unfinished work, in code and prose alike.
pub fn leftovers(path: &str, text: &str) -> Vec<Finding> {
    if is_foreign(path) {
        return Vec::new();
    }
    let found =
        LEFTOVERS.iter().flat_map(|word| words(text, word).map(move |(_, line)| (word, line)));
    found
        .map(|(word, line)| {
            Finding::line(path, line, format!("`{word}`: do it, or write an issue"))
        })
        .collect()
}

/// Macros that stand for work not done.
pub fn macros(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in MACROS {
        for (at, line) in words(code, name) {
            if code[at + name.len()..].starts_with('!') {
                findings.push(Finding::line(path, line, format!("`{name}!` is left in the code")));
            }
        }
    }
    findings
}

/// Absolute paths of somebody's machine.
pub fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for directory in MACHINE_DIRECTORIES {
        for (at, _) in text.match_indices(directory) {
            let before = text[..at].chars().next_back();
            if before.is_none_or(|c| !(c.is_alphanumeric() || "_-.}~/*".contains(c))) {
                let line = super::rust_text::line_of(text, at);
                findings.push(Finding::line(
                    path,
                    line,
                    format!("`{directory}` is a path of one machine"),
                ));
            }
        }
    }
    findings
}

/// Source files over the limit without an entry, or over their entry.
pub fn length(path: &str, text: &str) -> Vec<Finding> {
    let is_source = path.ends_with(".rs") || path.ends_with(".sh") || path == ".ci/run";
    let lines = text.lines().count();
    let entry = LONG.iter().find(|(long, ..)| *long == path);
    let lines_max = entry.map_or(LINES_MAX, |(_, lines_max, _)| *lines_max);
    if !is_source || lines <= lines_max {
        return Vec::new();
    }
    let message = format!(
        "{lines} lines, {lines_max} wanted: split it, or give xtask/src/tidy/allow.rs a reason"
    );
    vec![Finding::file(path, message)]
}

/// Tabs and trailing blanks in Rust files.
pub fn blanks(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.contains('\t') {
            findings.push(Finding::line(path, index + 1, "a tab: use spaces"));
        }
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::line(path, index + 1, "trailing blanks"));
        }
    }
    findings
}

/// Text we did not write.
fn is_foreign(path: &str) -> bool {
    path == "Cargo.lock" || path.starts_with("LICENSE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_found_as_words() {
        let word = LEFTOVERS[0];
        assert_eq!(leftovers("a.md", &format!("x\n{word}: y")).len(), 1);
        assert!(leftovers("a.md", &format!("{word}S and MAS{word}")).is_empty());
        assert!(leftovers("s.sh", &format!("mktemp /tmp/a.{0}{0}", LEFTOVERS[2])).is_empty());
        assert!(leftovers("Cargo.lock", word).is_empty());
    }

    #[test]
    fn macros_are_found_in_code() {
        let name = MACROS[0];
        assert_eq!(macros("a.rs", &format!("fn f() {{ {name}!() }}")).len(), 1);
        assert!(macros("a.rs", &format!("let {name} = 1; my_{name}!()")).is_empty());
    }

    #[test]
    fn machine_paths_are_absolute_ones() {
        let directory = MACHINE_DIRECTORIES[0];
        assert_eq!(machine_paths("a.md", &format!("see `{directory}x`")).len(), 1);
        assert_eq!(machine_paths("a.md", directory).len(), 1);
        assert!(machine_paths("a.md", &format!("https://example.org{directory}x")).is_empty());
        assert!(machine_paths("a.md", &format!("target{directory}")).is_empty());
    }

    #[test]
    fn objects_and_binaries_are_refused() {
        assert!(readable("a.o", b"\x7fELF\x02").is_err_and(|f| f.is_some()));
        assert!(readable("tests/corpus/a", b"\x7fELF\x02").is_err_and(|f| f.is_some()));
        assert!(readable("a.bin", &[0xff, 0xfe]).is_err_and(|f| f.is_some()));
        assert!(readable("a.bin", b"a\0b").is_err_and(|f| f.is_some()));
        assert_eq!(readable("tests/corpus/lying-length", &[0xff, 0]), Err(None));
        assert_eq!(readable("a.md", "größer".as_bytes()), Ok("größer"));
    }

    #[test]
    fn long_sources_want_a_reason() {
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(length("a.rs", &long).len(), 1);
        assert!(length("a.rs", &long[2..]).is_empty());
        assert!(length("a.md", &long).is_empty());
        assert!(length(LONG[0].0, &long).is_empty());
    }

    #[test]
    fn blanks_are_found() {
        let lines: Vec<_> = blanks("a.rs", "ok\n\tx\ny \nz\r\n").iter().map(|f| f.line).collect();
        assert_eq!(lines, [Some(2), Some(3), Some(4)]);
    }
}
