//! Runs the kernel half on single frames by `BPF_PROG_TEST_RUN`: the loaded
//! program with real maps, without a network.
//!
//! The kernel wants at least the 14 bytes of an Ethernet header, and no more
//! than what one page holds. A frame comes in on queue 0 of the loopback
//! unless a context names another queue of an interface in the caller's
//! network namespace.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use socket2::{Domain, Socket, Type};
use veltrix::base::clock::monotonic_ns;
use veltrix::base::sockopt::set_int;
use veltrix::nic::blocklist::{NEVER, Prefix};
use veltrix::nic::diagnosis::Privileges;
use veltrix::nic::program::{self, BlockError, KernelHalf, Settings};
use veltrix_abi::Exit;
use veltrix_abi::exits::{FRAMES_SLOT, RATE_OBSERVED_SLOT, XDP_SLOTS};

/// Environment variable: path of the built kernel half.
pub const OBJECT_ENV: &str = "VELTRIX_EBPF_OBJECT";

/// Environment variable: `1` makes a test that lacks something fail instead
/// of being skipped.
pub const REQUIRE_ENV: &str = "VELTRIX_TEST_REQUIRE";

/// Fewest bytes of a frame that the kernel runs a program on.
pub const FRAME_BYTES_MIN: usize = 14;

/// Name of the program in the object that only passes.
const EMPTY_PROGRAM: &str = "veltrix_empty";

/// What the program returned for a frame, by the kernel's numbers.
pub mod action {
    /// Drop.
    pub const DROP: u32 = 1;
    /// To the kernel's stack.
    pub const PASS: u32 = 2;
    /// To an AF_XDP socket.
    pub const REDIRECT: u32 = 4;
}

/// The built kernel half, if there is one: the file the variable names, else
/// what is embedded in this build.
///
/// # Errors
///
/// When the variable names a file that cannot be read.
pub fn object() -> Result<Option<Vec<u8>>> {
    let Some(path) = std::env::var_os(OBJECT_ENV).map(PathBuf::from) else {
        return Ok(program::object().map(<[u8]>::to_vec));
    };
    let bytes = std::fs::read(&path).with_context(|| {
        format!("{OBJECT_ENV} names {}: build it with `cargo xtask build-ebpf`", path.display())
    })?;
    Ok(Some(bytes))
}

/// The kernel half, if this process may load it; a test without it returns.
///
/// Says `skipped: NAME: ...` on standard error past the test harness's
/// capture, so that a runner can count and name what was left out.
///
/// # Panics
///
/// When something lacks and [`REQUIRE_ENV`] is `1`, or the object that was
/// named cannot be read.
#[must_use]
pub fn require(name: &str) -> Option<Vec<u8>> {
    let missing = Privileges::read().missing();
    let object = object().unwrap_or_else(|e| panic!("{name}: {e:#}"));
    let lack = match (&object, missing.is_empty()) {
        (Some(_), true) => return object,
        (_, false) => format!("needs {}: run it with sudo", missing.join(", ")),
        (None, true) => {
            format!("needs the kernel half: `cargo xtask build-ebpf`, and {OBJECT_ENV} naming it")
        }
    };
    let required = std::env::var_os(REQUIRE_ENV).is_some_and(|v| v == "1");
    assert!(!required, "{name}: {lack}; {REQUIRE_ENV}=1 forbids a skip");
    // The harness captures the print macros of passing tests, not this.
    let _ = writeln!(io::stderr(), "skipped: {name}: {lack}");
    None
}

/// A queue of an interface in the caller's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Index of the interface.
    pub interface: u32,
    /// The queue.
    pub queue: u32,
}

/// Runs `xdp` on `frame` `repeat` times; gives its answer and the nanoseconds
/// of one run.
///
/// # Errors
///
/// What the kernel says; a frame that is too short or too long is `EINVAL`.
pub fn run(xdp: &Xdp, frame: &[u8], queue: Option<Queue>, repeat: u32) -> Result<(u32, u64)> {
    let context = queue.map(|q| {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let fields = [0, frame.len() as u32, 0, q.interface, q.queue, 0];
        fields.map(u32::to_ne_bytes).concat()
    });
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: context.as_deref(),
        repeat,
        ..TestRunOptions::default()
    };
    let result = xdp
        .test_run(options)
        .with_context(|| format!("test run of {} bytes on {queue:?}", frame.len()))?;
    Ok((result.return_value, result.duration.as_nanos() as u64))
}

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned, see [`action`].
    pub action: u32,
    /// The exit that was counted.
    pub exit: Exit,
    /// Whether the rate limit remarked it in observe-only mode.
    pub rate_observed: bool,
}

/// The loaded kernel half, and what it has counted so far.
pub struct Runner {
    /// The kernel half.
    pub half: KernelHalf,
    rows: Vec<[u64; XDP_SLOTS]>,
    frames: u64,
}

impl Runner {
    /// Loads `object`.
    ///
    /// # Errors
    ///
    /// As [`KernelHalf::load`].
    pub fn new(object: &[u8], settings: &Settings) -> Result<Self> {
        let half = KernelHalf::load(object, settings)?;
        let rows = half.exits()?;
        Ok(Self { half, rows, frames: 0 })
    }

    /// Runs one frame on queue 0 of the loopback.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the frame did not leave by exactly one
    /// counted exit.
    pub fn frame(&mut self, frame: &[u8]) -> Result<Outcome> {
        self.frame_on(frame, None, 1)
    }

    /// Runs one frame on a queue; its counters are expected in `row`.
    ///
    /// # Errors
    ///
    /// As [`Self::frame`].
    pub fn frame_on(&mut self, frame: &[u8], queue: Option<Queue>, row: u32) -> Result<Outcome> {
        let (action, _) = run(self.half.program()?, frame, queue, 1)?;
        self.frames += 1;
        let now = self.half.exit_row(row)?;
        let before = std::mem::replace(&mut self.rows[row as usize], now);
        let counted: Vec<usize> =
            (0..XDP_SLOTS).filter(|slot| now[*slot] != before[*slot]).collect();
        ensure!(
            counted.iter().all(|slot| now[*slot] == before[*slot] + 1),
            "one frame moved slots {counted:?} of row {row} by more than one"
        );
        ensure!(counted.contains(&FRAMES_SLOT), "the frame was not counted in row {row}");
        let exits: Vec<Exit> =
            Exit::ALL.iter().copied().filter(|exit| counted.contains(&exit.slot())).collect();
        ensure!(exits.len() == 1, "one frame left by {exits:?} in row {row}");
        Ok(Outcome { action, exit: exits[0], rate_observed: counted.contains(&RATE_OBSERVED_SLOT) })
    }

    /// Frames run so far.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Checks the equation over all rows: frames run = frames counted = sum of exits.
    ///
    /// # Errors
    ///
    /// When it does not close.
    pub fn close(&self) -> Result<()> {
        let rows = self.half.exits()?;
        let frames: u64 = rows.iter().map(|row| row[FRAMES_SLOT]).sum();
        let slots = Exit::ALL.iter().filter(|exit| exit.is_xdp()).map(|exit| exit.slot());
        let exits: u64 = slots.map(|slot| rows.iter().map(|row| row[slot]).sum::<u64>()).sum();
        ensure!(
            self.frames == frames && frames == exits,
            "{} frames were run, {frames} counted, and {exits} left by an exit",
            self.frames
        );
        Ok(())
    }
}

/// Gives `half` what it would have in service, so that its cost is that of
/// service: a thousand blocked prefixes of each family, when the blocklist is
/// on, and a socket on queue 0, which the caller must keep.
///
/// The prefixes lie in 100.64.0.0/10 and in 2001:db8:ffff::/48.
///
/// # Errors
///
/// When the kernel refuses.
pub fn occupy(half: &mut KernelHalf) -> Result<Socket> {
    let now_ns = monotonic_ns();
    for n in 0..1_000u16 {
        let [high, low] = n.to_be_bytes();
        let v4 = IpAddr::from([100, 64 + high, low, 0]);
        let v6 = IpAddr::from([0x2001, 0xdb8, 0xffff, n, 0, 0, 0, 0]);
        for prefix in [Prefix::around(v4, 24), Prefix::around(v6, 64)].into_iter().flatten() {
            match half.block_add(prefix, NEVER, "cost", now_ns) {
                Ok(()) | Err(BlockError::Off) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    // An RX ring is all that the map asks for.
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None)?;
    set_int(socket.as_fd(), libc::SOL_XDP, libc::XDP_RX_RING, 64)?;
    half.xsk_insert(0, socket.as_fd())?;
    Ok(socket)
}

/// What the program costs, nanoseconds a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The program as loaded.
    pub full_ns: u64,
    /// A program that only passes.
    pub empty_ns: u64,
}

impl Cost {
    /// The difference.
    #[must_use]
    pub const fn over_empty_ns(&self) -> u64 {
        self.full_ns.saturating_sub(self.empty_ns)
    }
}

/// Runs of one measurement.
const COST_REPEAT: u32 = 1_000_000;

/// Measures what `half` costs on `frame` over an empty program of the same
/// object: the least of `rounds` rounds that take turns, so that a host
/// that is busy for a while disturbs both alike.
///
/// # Errors
///
/// When the kernel refuses, or the object has no empty program.
pub fn ns_over_empty(object: &[u8], half: &KernelHalf, frame: &[u8], rounds: u32) -> Result<Cost> {
    let mut ebpf: Ebpf = EbpfLoader::new().load(object)?;
    let empty = ebpf
        .program_mut(EMPTY_PROGRAM)
        .with_context(|| format!("the object has no program {EMPTY_PROGRAM}"))?;
    let empty: &mut Xdp = empty.try_into()?;
    empty.load()?;
    let full = half.program()?;
    let (answer, _) = run(full, frame, None, 1)?;
    let mut cost = Cost { full_ns: u64::MAX, empty_ns: u64::MAX };
    for _ in 0..rounds.max(1) {
        cost.empty_ns = cost.empty_ns.min(run(empty, frame, None, COST_REPEAT)?.1);
        let (last, full_ns) = run(full, frame, None, COST_REPEAT)?;
        ensure!(
            last == answer,
            "the answer changed from {answer} to {last} while it was measured: wanted a rate that one source of \
             {COST_REPEAT} frames a round does not exceed"
        );
        cost.full_ns = cost.full_ns.min(full_ns);
    }
    Ok(cost)
}
