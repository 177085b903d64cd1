//! What hunts hold, asked over UDP.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use veltrix_abi::limits::PAYLOAD_BYTES_LIMIT;
use veltrix_abi::query::{Entries, HuntRow, QueryKind, QueryStatus, Wanted};
use veltrix_abi::wire::Reply;
use veltrix_client::codec;

use super::link::Session;
use crate::cli::load::sockets::socket_error;
use crate::cli::{CliError, ExitStatus};

/// Queries unanswered at a time.
const WINDOW: usize = 32;

/// A query without an answer so long after it was sent is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What each hunt holds, no older than `min_epoch`; `None` for one in which
/// nothing has happened.
///
/// # Errors
///
/// When no hunt gets its answer within `patience`, or queries are refused.
pub fn hunts(
    socket: &UdpSocket,
    session: &mut Session,
    keys: &[u64],
    min_epoch: u64,
    patience: Duration,
) -> Result<Vec<Option<HuntRow>>, CliError> {
    let mut found: Vec<Option<Option<HuntRow>>> = vec![None; keys.len()];
    let mut buffer = [0; PAYLOAD_BYTES_LIMIT];
    let mut first_open = 0;
    let mut heard = Instant::now();
    socket.set_read_timeout(Some(RETRY_AFTER)).map_err(|error| socket_error(&error))?;
    while first_open < keys.len() {
        let asked: Vec<(usize, u64)> = (first_open..keys.len())
            .filter(|index| found[*index].is_none())
            .take(WINDOW)
            .map(|index| (index, session.next_sequence()))
            .collect();
        for (index, sequence) in &asked {
            let wanted = [Wanted::Hunt];
            // One such query fits every datagram that a server may be set to.
            let query =
                codec::query(session.id, keys[*index], min_epoch, &wanted, PAYLOAD_BYTES_LIMIT);
            let mut query = query.unwrap_or_default();
            codec::restamp(&mut query, *sequence, session.cookie);
            // What does not leave is sent again, as what gets no answer.
            let _ = socket.send(&query);
        }
        let mut open = asked.len();
        while open > 0 {
            let bytes = match socket.recv(&mut buffer) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let Ok((header, reply)) = codec::read(&buffer[..bytes]) else { continue };
            let question = asked.iter().find(|(_, sequence)| *sequence == header.sequence);
            let Some((index, _)) = question.filter(|_| header.session == session.id) else {
                continue;
            };
            match reply {
                Reply::Answer(entries) if found[*index].is_none() => {
                    if let Some(row) = summary(entries) {
                        found[*index] = Some(row);
                        heard = Instant::now();
                    }
                    open -= 1;
                }
                Reply::Refused { .. } => {
                    let message =
                        "the server refuses queries: it runs no log; start it with --data";
                    return Err(CliError::new(ExitStatus::Error, message));
                }
                _ => {}
            }
        }
        while found.get(first_open).is_some_and(Option::is_some) {
            first_open += 1;
        }
        if heard.elapsed() > patience {
            let message = format!(
                "no answer for {patience:?} to what hunt {} holds; `veltrix status` on the server says how it is",
                keys[first_open]
            );
            return Err(CliError::new(ExitStatus::Unhealthy, message));
        }
    }
    Ok(found.into_iter().map(Option::flatten).collect())
}

/// What the answer to one query says; `None` when it says to ask again.
fn summary(mut entries: Entries<'_>) -> Option<Option<HuntRow>> {
    let entry = entries.next().filter(|entry| entry.head.kind == QueryKind::Hunt.code())?;
    match entry.head.status {
        QueryStatus::Found => entry.rows().next().map(Some),
        QueryStatus::NotFound => Some(None),
        _ => None,
    }
}
