//! The loader against a server that a script answers for: what turns a datagram
//! away is waited for, with the same keys; what never answers is given up.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use veltrix_abi::kinds::EventKind;
use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::query::{
    ENTRY_FIXED_BYTES, EntryHead, HuntRow, QUERY_HEAD_BYTES, QueryKind, QueryStatus, Row as _,
    write_answer_head,
};
use veltrix_abi::wire::{self, AckEntry, Header, Kind, Mode, Request, Welcome};
use veltrix_abi::{Outcome, Refusal};

use super::*;

/// What the server does with an event datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Applied,
    Twice,
    Busy,
    NotLeader,
    Overloaded,
    /// Of another mode and another length.
    Unfitting,
    Refused,
    Full,
    Nothing,
    /// Applied, and nothing is said.
    Mute,
}

struct Scripted {
    addr: String,
    stop: Arc<AtomicBool>,
    /// Gives how often a key was applied.
    thread: Option<JoinHandle<HashMap<[u8; 16], u32>>>,
}

impl Scripted {
    fn start(script: impl FnMut(u64) -> Answer + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let addr = socket.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || serve(&socket, &stop, script)
        });
        Self { addr, stop, thread: Some(thread) }
    }

    fn load(&self, patience: Duration) -> Result<Loaded, CliError> {
        let world = small();
        let mut server = Server::connect(&self.addr, Some(2))?;
        are_empty(&world, &mut server, patience)?;
        load(&world, &mut server, patience)
    }

    fn keys(mut self) -> HashMap<[u8; 16], u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

fn serve(
    socket: &UdpSocket,
    stop: &AtomicBool,
    mut script: impl FnMut(u64) -> Answer,
) -> HashMap<[u8; 16], u32> {
    let mut buffer = [0; 4_096];
    let (mut came, mut keys, mut hunts) = (0, HashMap::new(), HashMap::new());
    while !stop.load(Ordering::Relaxed) {
        let Ok((bytes, from)) = socket.recv_from(&mut buffer) else { continue };
        let (header, request) = wire::decode(&buffer[..bytes], crc_fast::crc32_iscsi).unwrap();
        let replies = match request {
            Request::Hello => {
                let mut body = [0; 64];
                WELCOME.write(&mut body);
                vec![finished(&header, Kind::Welcome, 0, &body)]
            }
            Request::Query(_) => vec![summary(&header, hunts.get(&header.domain))],
            Request::Events(mode, events) => {
                assert_eq!(mode, Mode::Durable);
                let answer = script(came);
                came += 1;
                let applies = matches!(answer, Answer::Applied | Answer::Twice | Answer::Mute);
                let mut outcomes = Vec::new();
                for event in events {
                    assert!(event.is_well_formed());
                    let known = keys.contains_key(&event.key);
                    if applies && !known {
                        keys.insert(event.key, 1);
                        let row: &mut HuntRow = hunts.entry(header.domain).or_default();
                        let spawns = event.kind == EventKind::HotspotSpawn.code();
                        row.cells += u32::from(spawns);
                        row.players += u32::from(event.kind == EventKind::WalletCredit.code());
                        row.ranked += u32::from(event.kind == EventKind::CollectItem.code());
                    }
                    let outcome = match answer {
                        Answer::NotLeader => Outcome::NotLeader,
                        Answer::Overloaded if outcomes.is_empty() => Outcome::Overloaded,
                        Answer::Full => Outcome::Full,
                        _ => Outcome::Applied,
                    };
                    outcomes.push(outcome.code() | if known { DUPLICATE_BIT } else { 0 });
                }
                replies(answer, &header, outcomes)
            }
            Request::Ping(_) => vec![],
        };
        for reply in replies {
            // The loader may be gone by now.
            let _ = socket.send_to(&reply, from);
        }
    }
    keys
}

fn replies(answer: Answer, to: &Header, mut outcomes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut mode = Mode::Durable;
    if answer == Answer::Unfitting {
        outcomes.push(Outcome::Applied.code());
        mode = Mode::None;
    }
    let duplicates = outcomes.iter().filter(|byte| **byte & DUPLICATE_BIT != 0).count();
    let mut body = vec![0; AckEntry::wire_bytes(outcomes.len(), duplicates)];
    AckEntry::write(&mut body, to.sequence, 7, mode, &outcomes, duplicates as u16);
    let ack = finished(to, Kind::Ack, 1, &body);
    match answer {
        Answer::Nothing | Answer::Mute => vec![],
        Answer::Twice => vec![ack.clone(), ack],
        Answer::Busy => vec![finished(to, Kind::Busy, 0, &2_000_u64.to_le_bytes())],
        Answer::Refused => {
            let body = [Refusal::Malformed.code(), 1, 1, 0, 0, 0, 0, 0];
            vec![finished(to, Kind::Refused, 0, &body)]
        }
        _ => vec![ack],
    }
}

fn summary(to: &Header, row: Option<&HuntRow>) -> Vec<u8> {
    let entry = QUERY_HEAD_BYTES + ENTRY_FIXED_BYTES;
    let mut body = vec![0; entry + row.map_or(0, |_| HuntRow::BYTES)];
    write_answer_head(&mut body, 7, 1);
    let status = if row.is_some() { QueryStatus::Found } else { QueryStatus::NotFound };
    let kind = QueryKind::Hunt.code();
    EntryHead { kind, status, rows: u16::from(row.is_some()), tag: 0, next: 0 }
        .write(&mut body[QUERY_HEAD_BYTES..]);
    if let Some(row) = row {
        row.write(&mut body[entry..]);
    }
    finished(to, Kind::Answer, 1, &body)
}

const WELCOME: Welcome = Welcome {
    log_time_ns: 1_767_225_600_000_000_000,
    epoch: 0,
    partitions: 64,
    lanes: 1,
    port_first: 4747,
    port_last: 4747,
    modes: Welcome::mode_bit(Mode::Durable),
    version_min: 1,
    version_max: 1,
    role: 1,
    payload_bytes_max: 1232,
    events_max: 24,
    cookie: 0,
    cluster_id: 0,
    features: 1,
};

fn finished(to: &Header, kind: Kind, count: u16, body: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER_BYTES];
    Header { count, session: to.session, sequence: to.sequence, ..Header::new(kind) }
        .write(&mut datagram);
    datagram.extend_from_slice(body);
    wire::finish(&mut datagram, crc_fast::crc32_iscsi);
    datagram
}

/// Longer than any test waits for what does come.
const PATIENT: Duration = Duration::from_secs(60);

#[test]
fn whatever_turns_datagrams_away_every_event_is_applied_once() {
    let server = Scripted::start(|n| match n % 25 {
        0 => Answer::Busy,
        1 => Answer::NotLeader,
        2 => Answer::Overloaded,
        3 => Answer::Unfitting,
        4 => Answer::Nothing,
        5 => Answer::Mute,
        6 => Answer::Twice,
        _ => Answer::Applied,
    });
    let loaded = server.load(PATIENT).unwrap();
    assert_eq!((loaded.refused, loaded.hunts_short), (0, 0), "{loaded:?}");
    assert!(loaded.retries > 0 && loaded.busy > 0);
    let keys = server.keys();
    assert_eq!(keys.len() as u64, small().events(), "no more keys than events");
}

#[test]
fn silence_is_given_up_and_a_refusal_is_told() {
    for (answer, status, words) in [
        (Answer::Nothing, ExitStatus::Unhealthy, "last answered with nothing"),
        (Answer::Busy, ExitStatus::Unhealthy, "last answered with `busy`"),
        (Answer::NotLeader, ExitStatus::Unhealthy, "last answered with `not-leader`"),
        (Answer::Refused, ExitStatus::Error, "refused a datagram"),
    ] {
        let server = Scripted::start(move |_| answer);
        let error = server.load(Duration::from_millis(300)).expect_err(words);
        assert_eq!(error.status, status);
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn what_is_full_is_told_with_what_would_hold_it() {
    let server = Scripted::start(|n| if n == 3 { Answer::Full } else { Answer::Applied });
    let loaded = server.load(PATIENT).unwrap();
    assert!(loaded.refused > 0 && loaded.hunts_short == 1, "{loaded:?}");
    let report = Report::new(&small(), 0, None, Some(loaded));
    let complaint = report.complaint().unwrap();
    let wants = small().wants(64);
    for words in [
        "hotspots `full`".to_owned(),
        format!("--cells-max {} --players-max {}", wants.cells_max, wants.players_max),
        "hunts short of something: 1".to_owned(),
    ] {
        assert!(complaint.contains(&words), "{words}: {complaint}");
    }
}
