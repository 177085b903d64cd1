//! Settings: what there is to set, where values come from, and what is wrong
//! with them.
//!
//! ```text
//!   default  <  file (TOML)  <  VELTRIX_SECTION_KEY  <  flag      the later one wins
//!                        |
//!            keys.rs: one row a key  ──>  Config (checked)  +  where each value came from
//! ```
//!
//! * [`keys`]: the table and the struct [`Config`] made from it.
//! * [`value`]: types of values, with their units; [`words`]: those that are words;
//!   [`names`]: lists of host names.
//! * [`load`]: reads the sources, reports every problem at once.
//! * [`show`]: `config show`, `config reference`, `docs/CONFIG.md`.
//!
//! Nothing outside this module reads a file or variable of settings, and a
//! [`Config`] exists only when every value in it was accepted.

pub mod keys;
pub mod load;
mod names;
mod paths;
pub mod show;
pub mod value;
pub mod words;

pub use keys::{Blocklist, Config, Http, KEYS, Lanes, LogSettings, RateLimit, Server, Udp, Xdp};
pub use load::{ConfigError, FileTaken, Inputs, Resolved, Source, resolve};
pub use names::Names;
pub(crate) use paths::effective_uid;
pub use value::{Cores, LaneCount};
pub use words::{RateLimitMode, WaitMode, XdpMode, ZeroCopy};
