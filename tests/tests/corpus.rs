//! Replays the corpus of the fuzz targets on stable: every file through the
//! decoder it is for, by the rules of `tests/fuzz/src/{checks,durable}.rs`, and every
//! frame through the loaded kernel half too.
//!
//! A file is `tests/corpus/TARGET/WHAT.VERDICT.bin` (`.toml` for `config`); the
//! verdict in the name is what the decoder must say. `tests/fuzz/src/lib.rs`
//! tells how to keep a find.

#[path = "../fuzz/src/checks.rs"]
mod checks;
#[path = "../fuzz/src/durable.rs"]
mod durable;
#[allow(dead_code, reason = "shared with the tests of the kernel half, which need more of it")]
#[path = "xdp_program/frames.rs"]
mod frames;
#[path = "corpus/seeds.rs"]
mod seeds;
#[path = "corpus/seeds_durable.rs"]
mod seeds_durable;
#[path = "corpus/seeds_games.rs"]
mod seeds_games;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use veltrix::nic::program::{Rate, Settings};
use veltrix_abi::frame::accept;
use veltrix_abi::{Action, Exit};
use veltrix_tests::testrun::{FRAME_BYTES_MIN, Runner, action, require};

use checks::{ACCEPTED, PAYLOAD_BYTES_MAX, PORT};

/// Environment variable: `1` writes the files of the builders anew.
const BLESS_ENV: &str = "VELTRIX_BLESS";

/// Most bytes the corpus may have: it is cloned by everybody.
const CORPUS_BYTES_MAX: usize = 100 << 10;

/// Judges an input and gives the verdict.
type Check = fn(&[u8]) -> &'static str;

/// A target's folder and its decoder.
const TARGETS: [(&str, Check); 7] = [
    ("frame", checks::frame),
    ("request", checks::request),
    ("reply", checks::reply),
    ("config", checks::config),
    ("batch", durable::batch),
    ("record", durable::record),
    ("snapshot", durable::snapshot),
];

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The files of a target by name, in order.
fn files(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files: BTreeMap<_, _> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().expect("a name in UTF-8").to_owned();
            (name, fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        })
        .collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// The verdict that a file's name claims.
fn claimed(name: &str) -> Option<&str> {
    name.strip_suffix(".bin").or(name.strip_suffix(".toml"))?.split_once('.').map(|(_, word)| word)
}

/// Every file of a target through its decoder; all findings at once.
fn replay(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let mut findings = Vec::new();
    for (name, bytes) in files(target) {
        let path = format!("tests/corpus/{target}/{name}");
        match std::panic::catch_unwind(|| check(&bytes)) {
            Ok(verdict) if claimed(&name) == Some(verdict) => {}
            Ok(verdict) => findings.push(format!(
                "{path}: the decoder says `{verdict}`, the name says {:?}; if the decoder is right, name it WHAT.{verdict}.EXT",
                claimed(&name)
            )),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                findings.push(format!("{path}: {text}"));
            }
        }
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn frames_leave_the_host_decoder_as_named() {
    replay("frame");
}

#[test]
fn requests_decode_as_named() {
    replay("request");
}

#[test]
fn replies_decode_as_named() {
    replay("reply");
}

#[test]
fn settings_are_judged_as_named() {
    replay("config");
}

#[test]
fn durable_bytes_are_judged_as_named() {
    for target in ["batch", "record", "snapshot"] {
        replay(target);
    }
}

#[test]
fn frames_leave_the_kernel_half_by_the_same_exit() {
    let Some(object) = require("frames_leave_the_kernel_half_by_the_same_exit") else {
        return;
    };
    let settings = Settings {
        port: PORT,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        queues: 1,
        block_entries_max: 64,
        blocklist: true,
        rate: Rate::Off,
    };
    let mut runner = Runner::new(&object, &settings).unwrap();
    let mut findings = Vec::new();
    let mut run = 0;
    for (name, bytes) in files("frame") {
        // The kernel runs no program on less than an Ethernet header.
        if bytes.len() < FRAME_BYTES_MIN {
            continue;
        }
        run += 1;
        let outcome = runner.frame(&bytes).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        // No socket is bound here, so what is ours goes to the fallback.
        let host = accept(&bytes[..], PORT, PAYLOAD_BYTES_MAX);
        let exit = host.err().unwrap_or(Exit::PassFallback);
        let label = if exit == Exit::PassFallback { ACCEPTED } else { exit.label() };
        let drops = exit.action() == Action::Drop;
        let wanted = if drops { action::DROP } else { action::PASS };
        if (outcome.exit, outcome.action) != (exit, wanted) || claimed(&name) != Some(label) {
            findings.push(format!("tests/corpus/frame/{name}: {outcome:?}, host {exit:?}"));
        }
    }
    assert!(run > 0, "no frame of the corpus could be run");
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
    runner.close().unwrap();
}

#[test]
fn what_the_builders_make_is_in_the_corpus() {
    let bless = std::env::var_os(BLESS_ENV).is_some_and(|v| v == "1");
    let mut stale = Vec::new();
    for (target, _) in TARGETS {
        let mut names = BTreeSet::new();
        for seed in seeds::of(target) {
            let name = format!("{}.{}.{}", seed.what, seed.verdict, seeds::extension(target));
            let path = folder(target).join(&name);
            if bless {
                fs::write(&path, &seed.bytes).unwrap();
            } else if fs::read(&path).ok().as_ref() != Some(&seed.bytes) {
                stale.push(format!("tests/corpus/{target}/{name}"));
            }
            assert!(names.insert(name), "{} twice in {target}", seed.what);
        }
    }
    assert!(
        stale.is_empty(),
        "not as the builders make them; `{BLESS_ENV}=1 cargo test -p veltrix-tests --test corpus` \
         writes them:\n{}",
        stale.join("\n")
    );
}

#[test]
fn every_exit_the_host_decides_has_a_frame() {
    let names = files("frame");
    let host = |exit: &Exit| {
        // What needs maps is not in the frame's bytes.
        let of_maps = [Exit::PassFallback, Exit::RedirectXsk, Exit::DropBlocked, Exit::DropRate]
            .contains(exit);
        exit.is_xdp() && !of_maps
    };
    let labels = Exit::ALL.iter().filter(|exit| host(exit)).map(|exit| exit.label());
    for label in labels.chain([ACCEPTED]) {
        assert!(names.keys().any(|name| claimed(name) == Some(label)), "no frame for {label}");
    }
}

#[test]
fn the_corpus_stays_small() {
    let bytes: usize =
        TARGETS.iter().flat_map(|(target, _)| files(target)).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes, {CORPUS_BYTES_MAX} wanted: minimise finds");
}
