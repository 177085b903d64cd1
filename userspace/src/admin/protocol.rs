//! One JSON line each way. A request names the version it speaks; a server
//! that speaks another says so and which.
//!
//! ```text
//!   {"v":1,"request":{"op":"block_add","cidr":"203.0.113.0/24","ttl_s":900,"reason":"flood"}}
//!   {"v":1,"reply":{"kind":"done","body":"blocked 203.0.113.0/24 for 15m"}}
//! ```

use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::nic::blocklist::Prefix;

/// Version of requests and replies. Fields may be added within it; a reader
/// skips those it does not know.
pub const VERSION: u32 = 1;

/// Longest request, bytes with its newline: the longest one is far below.
pub const REQUEST_BYTES_MAX: usize = 4 << 10;

/// Longest reply, bytes: a full blocklist of both families at its largest.
pub const REPLY_BYTES_MAX: u64 = 512 << 20;

/// A request as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`VERSION`] of the sender.
    pub v: u32,
    /// What is asked for.
    pub request: Request,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// All counters and modes.
    Status,
    /// Block a prefix, or change the time and reason of a blocked one.
    BlockAdd {
        /// The prefix.
        cidr: Prefix,
        /// Seconds until it expires; `None` for ever.
        ttl_s: Option<u64>,
        /// Why, at most [`veltrix_abi::maps::BLOCK_REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// Unblock a prefix.
    BlockDel {
        /// The prefix.
        cidr: Prefix,
    },
    /// All blocked prefixes.
    BlockList,
    /// Give a partition to a lane.
    PartitionMove {
        /// Which.
        partition: u16,
        /// To whom.
        lane: u16,
    },
    /// Take a snapshot now.
    Snapshot,
}

/// A reply as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyLine {
    /// [`VERSION`] of the server.
    pub v: u32,
    /// The answer.
    pub reply: Reply,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::BlockList`].
    Blocks(Vec<Blocked>),
    /// Done; a sentence for the operator.
    Done(String),
    /// Not done.
    Error(Failure),
}

/// A blocked prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The prefix.
    pub cidr: Prefix,
    /// Seconds until it expires; `None` for ever.
    pub expires_in_s: Option<u64>,
    /// Why.
    pub reason: String,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its sort.
    pub code: FailureCode,
    /// What was found and what was wanted.
    pub message: String,
}

/// Sort of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// Not a request: too long, not JSON, an unknown operation, a bad field.
    BadRequest,
    /// A version that the server does not speak.
    Version,
    /// Understood and refused: the message says why.
    Refused,
}

impl Reply {
    pub(super) fn error(code: FailureCode, message: impl Into<String>) -> Self {
        Self::Error(Failure { code, message: message.into() })
    }

    /// The reply as one line, newline included.
    #[must_use]
    pub fn to_line(self) -> Vec<u8> {
        // Plain data with text for keys: writing it to memory cannot fail.
        let mut line =
            serde_json::to_vec(&ReplyLine { v: VERSION, reply: self }).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Reads a request line.
///
/// # Errors
///
/// The reply that refuses it.
pub fn parse_request(line: &[u8]) -> Result<Request, Reply> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let bad = |e: serde_json::Error| {
        let message = format!("not a request of version {VERSION}: {e}");
        Reply::error(FailureCode::BadRequest, message)
    };
    // The version first: what else a newer request holds is unknown here.
    let Version { v } = serde_json::from_slice(line).map_err(bad)?;
    if v != VERSION {
        let message = format!("found request version {v}, this server speaks {VERSION}");
        return Err(Reply::error(FailureCode::Version, message));
    }
    let line: RequestLine = serde_json::from_slice(line).map_err(bad)?;
    Ok(line.request)
}
