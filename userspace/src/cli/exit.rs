//! How the process ends: the one table of exit codes, and the error that
//! carries one of them to `main`.
//!
//! Every command ends in exactly one [`ExitStatus`]. `--help` and
//! `docs/CONFIG.md` show the table; scripts may rely on the codes. 77 and 78
//! are `EX_NOPERM` and `EX_CONFIG` of `sysexits.h`, so that service managers
//! know them; 2 is what the argument parser itself uses.

use std::fmt;
use std::process::ExitCode;

macro_rules! exit_statuses {
    ($($variant:ident = $code:literal, $name:literal, $doc:literal;)*) => {
        /// How a command ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ExitStatus {
            $(#[doc = $doc] $variant = $code,)*
        }

        impl ExitStatus {
            /// Every status, by ascending code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Short name for docs and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for `--help` and the documentation.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

exit_statuses! {
    Ok = 0, "ok", "The command did what it was asked to do.";
    Error = 1, "error", "It failed in a way that no other code names; the message says how.";
    Usage = 2, "usage", "The command line is wrong: an unknown flag, a missing argument, a value that is not accepted.";
    HostNotReady = 3, "host-not-ready", "The host lacks something: an interface, queues, a kernel feature, or a running `veltrix run` to talk to.";
    Unhealthy = 10, "unhealthy", "It runs, but an alarm is raised, the accounting does not close, or an expected answer stayed out.";
    Damaged = 11, "damaged", "Data on disk is damaged, or belongs to another cluster, version or configuration; the message says where.";
    NotPermitted = 77, "not-permitted", "A capability, file permission or security module stands in the way; the message says which.";
    BadConfig = 78, "bad-config", "A configuration file or environment variable holds a key or value that is not accepted, or settings contradict each other.";
}

impl ExitStatus {
    /// The code the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The table as aligned text, as `--help` shows it.
    #[must_use]
    pub fn help_table() -> String {
        let mut out = String::from("Exit codes:\n");
        for status in Self::ALL {
            out.push_str(&format!(
                "  {:>2}  {:<15} {}\n",
                status.code(),
                status.name(),
                status.doc()
            ));
        }
        out
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

/// A command that failed: what to tell the operator, and the code to end with.
///
/// The message says what was seen, what was wanted and, where there is one,
/// the command that mends it. It needs no prefix: `main` writes `veltrix: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// How the process ends.
    pub status: ExitStatus,
    /// What the operator reads; may have several lines.
    pub message: String,
}

impl CliError {
    /// An error that ends the process with `status`.
    #[must_use]
    pub fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_names_are_distinct() {
        for pair in ExitStatus::ALL.windows(2) {
            assert!(pair[0].code() < pair[1].code());
            assert_ne!(pair[0].name(), pair[1].name());
        }
    }

    #[test]
    fn the_table_names_every_code() {
        let table = ExitStatus::help_table();
        for status in ExitStatus::ALL {
            assert!(table.contains(&format!("{:>2}  {}", status.code(), status.name())));
        }
    }
}
