//! The server's end of the control socket.
//!
//! [`ControlSocket`] owns the file: made with mode 0600, removed on drop. It
//! stands only in a directory that no other user can write to, or in a sticky
//! one such as `/tmp`, so nobody can put another socket in its place. A file
//! left by a dead process is removed; a live server's is not touched.
//!
//! What a client can do wrong ends its own connection only: requests are
//! bounded in size and time, connections in number.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::protocol::{Blocked, FailureCode, REQUEST_BYTES_MAX, Reply, Request, parse_request};
use super::status::Status;
use crate::nic::blocklist::Prefix;
use veltrix_abi::maps::BLOCK_REASON_BYTES_MAX;

/// Connections served at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 16;

/// Backlog of the socket.
const BACKLOG: i32 = 64;

/// How long a client may take for a request, and for taking its reply.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after `accept` failed, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server does for its clients; `run` implements it. Calls come one
/// at a time from the control core's thread and must not block.
pub trait Handler {
    /// All counters and modes, now.
    fn status(&self) -> Status;

    /// Blocks a prefix for so long, or for ever; gives a sentence for the operator.
    ///
    /// # Errors
    ///
    /// Why not: the blocklist is off or full, the provider has none.
    fn block_add(
        &self,
        cidr: Prefix,
        ttl: Option<Duration>,
        reason: &str,
    ) -> Result<String, String>;

    /// Unblocks a prefix; gives a sentence for the operator.
    ///
    /// # Errors
    ///
    /// Why not: it is not blocked, or as [`Self::block_add`].
    fn block_del(&self, cidr: Prefix) -> Result<String, String>;

    /// All blocked prefixes that have not expired.
    ///
    /// # Errors
    ///
    /// Why not: as [`Self::block_add`].
    fn block_list(&self) -> Result<Vec<Blocked>, String>;

    /// Gives a partition to a lane, between two epochs; gives a sentence for
    /// the operator as soon as it is under way.
    ///
    /// # Errors
    ///
    /// Why not: no log, no such partition or lane, another move or a snapshot
    /// under way.
    fn partition_move(&self, partition: u16, lane: u16) -> Result<String, String>;

    /// Begins a snapshot; gives a sentence for the operator.
    ///
    /// # Errors
    ///
    /// Why not: no log, one is under way.
    fn snapshot(&self) -> Result<String, String>;
}

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A server is alive there.
    #[error(
        "a server is already running with the control socket {0}; ask it with `veltrix status`, or give this one another with --control-socket"
    )]
    Live(PathBuf),
    /// Something else stands there.
    #[error("{0} exists and is not a socket; remove it, or name another with --control-socket")]
    NotASocket(PathBuf),
    /// Another user could replace the file.
    #[error(
        "the directory {0} (owner {1}, mode {2:03o}) belongs to another user or can be written to by others; wanted one of this user's own, mode 0700: name a socket elsewhere with --control-socket"
    )]
    OpenDirectory(PathBuf, u32, u32),
    /// The kernel refused for lack of permission.
    #[error("{0}: {1} not permitted: {2}; name a socket elsewhere with --control-socket")]
    NotPermitted(PathBuf, &'static str, io::Error),
    /// The kernel refused.
    #[error("{0}: {1} failed: {2}; name a socket elsewhere with --control-socket")]
    Io(PathBuf, &'static str, io::Error),
}

/// The listening socket and its file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: StdUnixListener,
    path: PathBuf,
    /// Device and inode of the file: only our own is removed on drop.
    id: (u64, u64),
}

impl ControlSocket {
    /// Makes the directory and the socket, with nobody listening there already.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what: &'static str| move |e: io::Error| io_error(path, what, e);
        ready_directory(path)?;
        clear_stale(path)?;
        let address = SockAddr::unix(path).map_err(failed("naming the socket"))?;
        let socket =
            Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("making a socket"))?;
        socket.bind(&address).map_err(failed("binding the socket"))?;
        // Before `listen` nobody can connect, so the mode is never too wide.
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(failed("setting mode 0600"))?;
        socket.listen(BACKLOG).map_err(failed("listening"))?;
        socket.set_nonblocking(true).map_err(failed("making it non-blocking"))?;
        let meta = fs::symlink_metadata(path).map_err(failed("looking at the socket"))?;
        Ok(Self {
            listener: StdUnixListener::from(std::os::fd::OwnedFd::from(socket)),
            path: path.to_owned(),
            id: (meta.dev(), meta.ino()),
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id);
        if ours {
            // Nobody is left to tell; the next start removes a stale file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn io_error(path: &Path, what: &'static str, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => BindError::NotPermitted(path.to_owned(), what, error),
        _ => BindError::Io(path.to_owned(), what, error),
    }
}

fn ready_directory(path: &Path) -> Result<(), BindError> {
    let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| io_error(dir, "making the directory", e))?;
    let failed = |e| io_error(dir, "looking at the directory", e);
    // Not through a symbolic link that another user may have put there.
    let meta = match fs::symlink_metadata(dir).map_err(failed)? {
        meta if meta.is_symlink() && meta.uid() != 0 && meta.uid() != own_uid() => {
            return Err(BindError::OpenDirectory(dir.to_owned(), meta.uid(), meta.mode() & 0o7777));
        }
        _ => fs::metadata(dir).map_err(failed)?,
    };
    let owned = meta.uid() == 0 || meta.uid() == own_uid();
    let open = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
    if owned && !open {
        return Ok(());
    }
    Err(BindError::OpenDirectory(dir.to_owned(), meta.uid(), meta.mode() & 0o7777))
}

/// The user that files made by this process belong to.
fn own_uid() -> u32 {
    crate::config::effective_uid().unwrap_or(0)
}

fn clear_stale(path: &Path) -> Result<(), BindError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error(path, "looking at the socket", e)),
    };
    if !meta.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(BindError::Live(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|e| io_error(path, "removing the socket of a dead process", e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error(path, "finding out whether its process lives", e)),
    }
}

/// Serves clients until the future is dropped. To be polled inside a
/// current-thread tokio runtime with I/O and time.
///
/// # Errors
///
/// The socket cannot be registered with the runtime.
pub async fn serve<H: Handler + 'static>(socket: &ControlSocket, handler: Rc<H>) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    LocalSet::new()
        .run_until(async {
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let handler = Rc::clone(&handler);
                        tokio::task::spawn_local(async move {
                            connection(stream, &*handler).await;
                            drop(slot);
                        });
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        })
        .await;
    Ok(())
}

/// One request, one reply.
async fn connection<H: Handler>(mut stream: UnixStream, handler: &H) {
    let request = tokio::time::timeout(CLIENT_TIMEOUT, read_request(&mut stream)).await;
    let reply = match request {
        Ok(Ok(request)) => answer(handler, request),
        Ok(Err(refusal)) => refusal,
        Err(_) => Reply::error(
            FailureCode::BadRequest,
            format!("no whole request came within {} s", CLIENT_TIMEOUT.as_secs()),
        ),
    };
    // A client that went away or does not read loses its reply, nothing else.
    let _ = tokio::time::timeout(CLIENT_TIMEOUT, async {
        stream.write_all(&reply.to_line()).await?;
        stream.shutdown().await
    })
    .await;
}

async fn read_request(stream: &mut UnixStream) -> Result<Request, Reply> {
    let mut line = Vec::new();
    let bounded = (&mut *stream).take(REQUEST_BYTES_MAX as u64);
    let read = BufReader::new(bounded).read_until(b'\n', &mut line).await;
    let bad = |message: String| Reply::error(FailureCode::BadRequest, message);
    match read {
        Ok(_) if line.last() == Some(&b'\n') => parse_request(&line),
        Ok(bytes) if bytes >= REQUEST_BYTES_MAX => {
            Err(bad(format!("the request is longer than {REQUEST_BYTES_MAX} bytes")))
        }
        Ok(_) => Err(bad("the request ended without a newline".into())),
        Err(e) => Err(bad(format!("the request could not be read: {e}"))),
    }
}

fn answer<H: Handler>(handler: &H, request: Request) -> Reply {
    let done = |result: Result<String, String>| match result {
        Ok(sentence) => Reply::Done(sentence),
        Err(why) => Reply::error(FailureCode::Refused, why),
    };
    match request {
        Request::Status => Reply::Status(Box::new(handler.status())),
        Request::BlockAdd { cidr, ttl_s, reason } => match check_block(ttl_s, &reason) {
            Ok(()) => done(handler.block_add(cidr, ttl_s.map(Duration::from_secs), &reason)),
            Err(why) => Reply::error(FailureCode::BadRequest, why),
        },
        Request::BlockDel { cidr } => done(handler.block_del(cidr)),
        Request::BlockList => match handler.block_list() {
            Ok(blocks) => Reply::Blocks(blocks),
            Err(why) => Reply::error(FailureCode::Refused, why),
        },
        Request::PartitionMove { partition, lane } => done(handler.partition_move(partition, lane)),
        Request::Snapshot => done(handler.snapshot()),
    }
}

/// Checks what the operator says of a block; the command does so before it
/// asks, the server since anybody may write to the socket by hand.
///
/// # Errors
///
/// What was found and what was wanted.
pub fn check_block(ttl_s: Option<u64>, reason: &str) -> Result<(), String> {
    let bytes = reason.len();
    if reason.trim().is_empty() || bytes > BLOCK_REASON_BYTES_MAX {
        return Err(format!(
            "found a reason of {bytes} bytes, wanted 1 to {BLOCK_REASON_BYTES_MAX} that say why, such as `flood`"
        ));
    }
    if reason.chars().any(char::is_control) {
        return Err("the reason holds control characters, wanted text of one line".into());
    }
    match ttl_s {
        Some(ttl_s) if !(1..=TTL_S_MAX).contains(&ttl_s) => Err(format!(
            "found a time of {ttl_s} s, wanted 1 s to {TTL_S_MAX} s (ten years), or forever"
        )),
        _ => Ok(()),
    }
}

/// Longest time to block for that has an end, seconds: ten years, which leaves
/// the nanosecond clock of the map far from its end.
pub const TTL_S_MAX: u64 = 10 * 365 * 86_400;

#[cfg(test)]
mod tests;
