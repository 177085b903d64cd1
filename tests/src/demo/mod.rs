//! `cargo xtask demo`: Veltrix at work, in one command and some ten seconds.
//!
//! ```text
//!   packets   over the lab: XDP, AF_XDP, lanes      sockets   over UDP sockets on loopback
//!      |  generator, sink                              |  the load of `veltrix load`
//!      +------------------- both ---------------------+
//!   server    `veltrix run` as a child              hunters   events through the SDK
//!   search    the highest rate without loss         progress  what goes on meanwhile
//!   sums      where every frame went                report    the table, the JSON object
//! ```
//!
//! The demo measures nothing that `bench path` measures better; it shows that
//! the sums close under load, with numbers counted outside Veltrix.

pub mod hunters;
pub mod packets;
pub mod progress;
pub mod report;
pub mod search;
pub mod server;
pub mod sockets;
pub mod sums;

use std::time::Duration;

use anyhow::Result;
use veltrix::nic::diagnosis::Privileges;

use crate::{lab, testrun};
pub use report::Findings;

/// Shortest run: below it the search for a rate has no time.
pub const RUN_LEAST: Duration = Duration::from_secs(1);

/// Longest run: an hour shows no more.
pub const RUN_MOST: Duration = Duration::from_secs(3_600);

/// Longest search for the highest rate without loss.
const SEARCH_MOST: Duration = Duration::from_secs(2);

/// Share of the highest rate without loss that is then held: near enough to
/// mean something, with room for what else the machine does.
const HOLD_SHARE: f64 = 0.75;

/// Bit of the capability that network namespaces need (`linux/capability.h`).
const CAP_SYS_ADMIN: u32 = 21;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long to send, the search for the rate included.
    pub duration: Duration,
    /// Over UDP sockets, whatever this process may do.
    pub sockets: bool,
    /// Queues of the interface; half the cores unless set.
    pub queues: Option<u32>,
}

impl Options {
    /// Time for the search.
    fn search(&self) -> Duration {
        (self.duration / 5).min(SEARCH_MOST)
    }
}

/// Runs the demo over XDP where that can be had, else over sockets, saying why.
///
/// # Errors
///
/// When the server does not start or stops answering. Sums that do not close
/// are findings.
pub fn run(options: &Options) -> Result<Findings> {
    let why = if options.sockets { Some("asked for by --sockets".to_owned()) } else { obstacle()? };
    match why {
        None => packets::run(options),
        Some(why) => sockets::run(options, &why),
    }
}

/// What stands in the way of XDP, if anything does.
fn obstacle() -> Result<Option<String>> {
    let privileges = Privileges::read();
    let mut missing = privileges.missing();
    if privileges.effective >> CAP_SYS_ADMIN & 1 == 0 {
        missing.push("CAP_SYS_ADMIN");
    }
    if !missing.is_empty() {
        return Ok(Some(format!(
            "this user lacks {}; `cargo xtask demo` asks for them by sudo",
            missing.join(", ")
        )));
    }
    if std::env::var_os(lab::OBJECT_ENV).is_none() || testrun::object()?.is_none() {
        return Ok(Some(
            "the eBPF objects are not built; `cargo xtask demo` builds them".to_owned(),
        ));
    }
    Ok(None)
}
