//! The kernel half on single frames by `BPF_PROG_TEST_RUN`, with real maps.
//!
//! Every frame goes through the loaded program and through the decoder on this
//! side, and must leave both by the same exit; named cases say besides which one
//! that is.

#[path = "xdp_program/attach.rs"]
mod attach;
#[path = "xdp_program/blocklist.rs"]
mod blocklist;
#[path = "../../ebpf/src/bucket.rs"]
mod bucket;
#[path = "xdp_program/frames.rs"]
mod frames;
#[path = "xdp_program/limiter.rs"]
mod limiter;
#[path = "xdp_program/loading.rs"]
mod loading;
#[path = "xdp_program/parsing.rs"]
mod parsing;
#[path = "xdp_program/steering.rs"]
mod steering;

use veltrix::nic::program::{RATE_BURST_MAX, Rate, Settings};
use veltrix_abi::{Action, Exit, frame};
use veltrix_tests::testrun::{Runner, action, require};

use frames::{PAYLOAD_BYTES_MAX, PORT};

/// Everything off but parsing and steering.
fn plain() -> Settings {
    Settings {
        port: PORT,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        queues: 1,
        block_entries_max: 64,
        blocklist: false,
        rate: Rate::Off,
    }
}

/// Every feature on, and no source ever over its rate.
fn everything() -> Settings {
    Settings {
        blocklist: true,
        rate: Rate::Enforce { per_s: u32::MAX, burst: RATE_BURST_MAX },
        ..plain()
    }
}

/// The program for `settings`, or `None` when the test is skipped. Buckets
/// belong to a CPU, so the test stays on one.
fn runner(test: &str, settings: &Settings) -> Option<Runner> {
    let object = require(test)?;
    if let Some(core) = veltrix::base::cpu::allowed_cores().first() {
        assert!(veltrix::base::cpu::pin_to(*core), "{test}: core {core}");
    }
    Some(Runner::new(&object, settings).unwrap())
}

/// Where the decoder on this side lets a frame leave when no socket is bound.
fn expected(bytes: &[u8]) -> Exit {
    frame::accept(bytes, PORT, PAYLOAD_BYTES_MAX).err().unwrap_or(Exit::PassFallback)
}

/// Runs a frame; both halves must agree, and the action must be the exit's.
fn check(runner: &mut Runner, bytes: &[u8]) -> Exit {
    let outcome = runner.frame(bytes).unwrap_or_else(|e| panic!("{e:#}: {bytes:02x?}"));
    assert_eq!(outcome.exit, expected(bytes), "kernel half, user half: {bytes:02x?}");
    let wanted = match outcome.exit.action() {
        Action::Drop => action::DROP,
        _ => action::PASS,
    };
    assert_eq!(outcome.action, wanted, "{:?}: {bytes:02x?}", outcome.exit);
    outcome.exit
}
