//! What every sender of events does with a socket: the greeting, and handing
//! datagrams to the kernel.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use veltrix_abi::Refusal;
use veltrix_abi::limits::PAYLOAD_BYTES_LIMIT;
use veltrix_abi::wire::{Reply, Welcome};
use veltrix_client::codec;

use crate::cli::{CliError, ExitStatus};
use crate::udp::Batch;

/// An error of a socket, as a command ends with it.
#[must_use]
pub fn socket_error(error: &io::Error) -> CliError {
    CliError::new(ExitStatus::Error, format!("UDP socket: {error}"))
}

/// Says hello until a welcome comes; gives it with the next free sequence.
///
/// # Errors
///
/// [`ExitStatus::Unhealthy`] when none comes within a second,
/// [`ExitStatus::Error`] when the server refuses.
pub fn greet(socket: &UdpSocket, session: u64, addr: &str) -> Result<(Welcome, u64), CliError> {
    const TRIES: u64 = 10;
    let mut buffer = [0; PAYLOAD_BYTES_LIMIT];
    socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(|e| socket_error(&e))?;
    for sequence in 1..=TRIES {
        // What fails to leave, or is answered by a closed port, is tried again.
        if socket.send(&codec::hello(session, sequence)).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        while let Ok(bytes) = socket.recv(&mut buffer) {
            match codec::read(&buffer[..bytes]) {
                Ok((header, Reply::Welcome(welcome))) if header.session == session => {
                    return Ok((welcome, sequence + 1));
                }
                Ok((header, Reply::Refused { reason, .. })) if header.session == session => {
                    let why = Refusal::from_code(reason).map_or("reason unknown", Refusal::doc);
                    let message = format!("{addr} refused the hello: {why}");
                    return Err(CliError::new(ExitStatus::Error, message));
                }
                _ => {}
            }
        }
    }
    let message = format!(
        "no answer from {addr} within 1 s ({TRIES} hellos sent); \
         start a server with `veltrix run`, or see `veltrix ping {addr}`"
    );
    Err(CliError::new(ExitStatus::Unhealthy, message))
}

/// What the kernel did not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untaken {
    /// Times it said that an earlier datagram met a closed port.
    pub port_closed: u64,
    /// Datagrams that it would not send.
    pub send_errors: u64,
}

/// Hands `entries` of `batch` to the kernel, waiting up to `patience` for room.
pub fn send_all(
    batch: &mut Batch,
    fd: BorrowedFd<'_>,
    entries: &[(u32, u32)],
    patience: Duration,
) -> Untaken {
    let began = Instant::now();
    let mut untaken = Untaken::default();
    let mut done = 0;
    while done < entries.len() {
        match batch.send(fd, &entries[done..]) {
            Ok(taken) => done += taken,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                // Tells of an earlier datagram; this one has not left yet.
                ErrorKind::ConnectionRefused => untaken.port_closed += 1,
                ErrorKind::WouldBlock if began.elapsed() < patience => std::thread::yield_now(),
                _ => {
                    untaken.send_errors += 1;
                    done += 1;
                }
            },
        }
    }
    untaken
}
