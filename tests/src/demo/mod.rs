//! `cargo xtask demo`: Veltrix at work, in one command and some twenty seconds:
//! a durable node, players around real cities, kill -9 and recovery, and proof
//! that nothing was lost or doubled.
//!
//! ```text
//!   story     from format to verdict          place    the lab with XDP, or the loopback
//!   world     cities, hotspots, players       server   `veltrix run` as a child, and its home
//!   crowd     phones and game servers         hunters  events through the SDK
//!   expect    the sum of what they were told  check    log and state held against it
//!   sums      where every frame went          report   the tables, the JSON object
//! ```
//!
//! The demo measures nothing that the benches do not measure better.

pub mod check;
pub mod crowd;
pub mod expect;
pub mod hunters;
pub mod place;
pub mod report;
pub mod server;
pub mod story;
pub mod sums;
pub mod world;

use std::time::Duration;

use anyhow::Result;
use veltrix::nic::diagnosis::Privileges;

use crate::{lab, testrun};
use place::Place;
pub use report::Findings;

/// Shortest play: below it there is nothing to recover.
pub const RUN_LEAST: Duration = Duration::from_secs(2);

/// Longest play: what clients are told is kept in memory, 100 bytes an event.
pub const RUN_MOST: Duration = Duration::from_secs(60);

/// Bit of the capability that network namespaces need (`linux/capability.h`).
const CAP_SYS_ADMIN: u32 = 21;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long to play, without founding, outage and check.
    pub duration: Duration,
    /// Over UDP sockets, whatever this process may do.
    pub sockets: bool,
    /// Queues of the interface; half the cores unless set.
    pub queues: Option<u32>,
}

/// Runs the demo over XDP where that can be had, else over sockets, saying why.
///
/// # Errors
///
/// When the server does not start or stops answering. Whatever was lost, doubled
/// or not accounted for is a finding.
pub fn run(options: &Options) -> Result<Findings> {
    let why = if options.sockets { Some("asked for by --sockets".to_owned()) } else { obstacle()? };
    let Some(why) = why else {
        return story::run(options, &Place::lab(options.queues)?, None);
    };
    let left_out = format!(
        "the XDP program, AF_XDP sockets and the network lab: the same lanes run over UDP sockets ({why})"
    );
    eprintln!("demo: left out: {left_out}");
    story::run(options, &Place::Loopback, Some(left_out))
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
