//! A blocking call to a running server.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{REPLY_BYTES_MAX, Reply, ReplyLine, Request, RequestLine, VERSION};

/// How long connecting, and each read and write, may take: a server that is
/// alive answers within a millisecond or two.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call failed. Each text names the socket and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error(
        "no server answers at {0}: {1}; start one with `veltrix run`, or name its socket with --control-socket"
    )]
    NotRunning(PathBuf, &'static str),
    /// The file may not be opened.
    #[error(
        "{0} may not be used by this user: {1}; run the command as the user who runs the server"
    )]
    NotPermitted(PathBuf, io::Error),
    /// It stopped answering, or broke off.
    #[error("the server at {0} did not answer: {1}")]
    Broken(PathBuf, io::Error),
    /// It answered something else.
    #[error(
        "the server at {0} does not speak this command's language: {1}; use the `veltrix` that it was started with"
    )]
    Language(PathBuf, String),
}

/// Sends `request` to the server at `path` and waits for its reply.
///
/// # Errors
///
/// [`CallError`]; a refusal by the server is a [`Reply::Error`], not an error here.
pub fn call(path: &Path, request: &Request) -> Result<Reply, CallError> {
    let stream = connect(path)?;
    let broken = |e| CallError::Broken(path.to_owned(), e);
    let language = |text: String| CallError::Language(path.to_owned(), text);
    let line = RequestLine { v: VERSION, request: request.clone() };
    let mut line = serde_json::to_vec(&line).map_err(|e| language(e.to_string()))?;
    line.push(b'\n');
    (&stream).write_all(&line).map_err(broken)?;

    let mut answer = Vec::new();
    BufReader::new((&stream).take(REPLY_BYTES_MAX))
        .read_until(b'\n', &mut answer)
        .map_err(broken)?;
    if answer.last() != Some(&b'\n') {
        return Err(broken(io::Error::other("it closed the connection in mid-answer")));
    }
    let answer: ReplyLine = serde_json::from_slice(&answer).map_err(|e| language(e.to_string()))?;
    if answer.v != VERSION {
        return Err(language(format!("it speaks version {}, this is {VERSION}", answer.v)));
    }
    Ok(answer.reply)
}

fn connect(path: &Path) -> Result<UnixStream, CallError> {
    let broken = |e| CallError::Broken(path.to_owned(), e);
    let address = SockAddr::unix(path).map_err(broken)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(broken)?;
    // Linux bounds the wait for a full backlog by the send timeout.
    socket.set_write_timeout(Some(TIMEOUT)).map_err(broken)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(broken)?;
    socket.connect(&address).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            CallError::NotRunning(path.to_owned(), "there is no such socket")
        }
        io::ErrorKind::ConnectionRefused => {
            CallError::NotRunning(path.to_owned(), "its process is gone")
        }
        io::ErrorKind::PermissionDenied => CallError::NotPermitted(path.to_owned(), e),
        _ => broken(e),
    })?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}
