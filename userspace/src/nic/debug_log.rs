//! Prints what a debug object of the kernel half logs: one line a frame, with
//! its queue and exit. Only in builds with the feature `debug-log`, beside an object built by
//! `cargo xtask build-ebpf --debug-log`.

use std::io::{self, Write as _};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// Writes records to standard error.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "xdp: {}", record.args());
    }

    fn flush(&self) {}
}

/// Reads the ring of log records; the kernel half drops records when it is full.
pub struct DebugLog(EbpfLogger<Stderr>);

impl DebugLog {
    /// The log of a loaded object; `None` for a release object, which has none.
    pub(super) fn of(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, Stderr).ok().map(Self)
    }

    /// Prints what has come in.
    pub fn print(&mut self) {
        self.0.flush();
    }
}
