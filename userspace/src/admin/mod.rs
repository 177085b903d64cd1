//! The control socket: how `veltrix status` and `veltrix block` talk to a
//! running server.
//!
//! ```text
//!   client::call ──one JSON line──> server::serve ──> Handler (run/ implements it)
//!                <─one JSON line──
//! ```
//!
//! * [`protocol`]: requests and replies, versioned.
//! * [`server`]: the socket file and its owner; a future on the control core's
//!   current-thread runtime, never on a lane.
//! * [`client`]: a blocking call.
//! * [`status`]: what `status` answers; [`accounting`] closes its sums,
//!   [`prometheus`] writes it as text for scrapers.
//!
//! Who may open the socket file may use it; there is no other check. The file
//! has mode 0600 and no untrusted user can replace it (see [`server`]).

pub mod accounting;
pub mod client;
pub mod log_status;
pub mod prometheus;
pub mod protocol;
pub mod server;
pub mod status;
