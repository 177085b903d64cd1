//! The exceptions to the rules, each with its reason. An entry that no longer
//! excuses anything is itself a finding, so the lists only hold what is needed.

use super::{Finding, Tree};

/// Lines a source file may have without an entry below.
pub const LINES_MAX: usize = 700;

/// Files that may be longer: path, lines, why the file is better whole.
pub const LONG: &[(&str, usize, &str)] = &[
    (
        "ebpf/abi/src/wire.rs",
        900,
        "the whole datagram format with its decoder and its tests reads top to bottom like the document",
    ),
    (
        "scripts/nic-queues.sh",
        850,
        "an operator copies one file to a host, and reads all it can do to it there",
    ),
];

/// Where the word `unsafe` may stand: a folder or a file, and why.
pub const UNSAFE: &[(&str, &str)] = &[
    ("userspace/src/xsk/", "AF_XDP rings and UMEM are memory shared with the kernel"),
    ("userspace/src/base/", "system calls that libc alone offers"),
    ("userspace/src/udp/", "recvmmsg and sendmmsg over batches of buffers"),
    ("ebpf/src/", "maps and packet memory of the kernel half"),
    ("tests/src/lab/", "namespaces and the raw loops the benchmarks compare with"),
    (
        "userspace/tests/support/allocator.rs",
        "a global allocator that counts, the proof that a running lane does not allocate",
    ),
];

/// Binary files that may be tracked: a folder or a file, and why.
pub const BINARY: &[(&str, &str)] = &[("tests/corpus/", "packets, byte for byte")];

/// Whether a list of folders and files covers a path.
#[must_use]
pub fn covers(list: &[(&str, &str)], path: &str) -> bool {
    list.iter()
        .any(|(place, _)| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// Entries for files that are gone or no longer long.
pub fn stale(tree: &Tree) -> Vec<Finding> {
    stale_of(LONG, tree)
}

fn stale_of(long: &[(&str, usize, &str)], tree: &Tree) -> Vec<Finding> {
    let needed = |path: &str| {
        let bytes = tree.get(path);
        bytes.is_some_and(|bytes| String::from_utf8_lossy(bytes).lines().count() > LINES_MAX)
    };
    long.iter()
        .filter(|(path, ..)| !needed(path))
        .map(|(path, ..)| {
            Finding::file(
                path,
                "its entry among the long files (xtask/src/tidy/allow.rs) is not needed",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_excuse_nothing_are_found() {
        let long = [("a.rs", 900, "why"), ("b.rs", 900, "why"), ("c.rs", 900, "why")];
        let tree = Tree::from([
            ("a.rs".into(), "x\n".repeat(701).into_bytes()),
            ("b.rs".into(), "x\n".repeat(700).into_bytes()),
        ]);
        let paths: Vec<_> =
            stale_of(&long, &tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["b.rs", "c.rs"]);
    }

    #[test]
    fn folders_cover_what_is_in_them_only() {
        let list = [("tests/src/lab/", ""), ("tests/src/one.rs", "")];
        assert!(covers(&list, "tests/src/lab/veth.rs"));
        assert!(covers(&list, "tests/src/one.rs"));
        assert!(!covers(&list, "tests/src/laboratory.rs"));
        assert!(!covers(&list, "tests/src/one.rs.rs"));
    }
}
