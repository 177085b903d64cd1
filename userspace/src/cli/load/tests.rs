//! The generator and `ping` against a server that a script answers for.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use veltrix_abi::kinds::EventKind;
use veltrix_abi::limits::HEADER_BYTES;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::{self, AckEntry, Header, Kind, Mode, Pong, Request, Welcome};
use veltrix_abi::{Outcome, Refusal};

use super::*;
use crate::cli::ping;

/// What the server does with an event datagram.
#[derive(Clone, Copy)]
enum Answer {
    Accepted,
    Duplicate,
    Twice,
    Damaged,
    Busy,
    Refused,
    Nothing,
    /// So much later; all behind it wait too.
    Stalled(Duration),
}

struct Server {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Event datagrams that came.
    came: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(script: impl FnMut(u64) -> Answer + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        socket.set_read_timeout(Some(Duration::from_millis(10))).expect("timeout");
        let addr = socket.local_addr().expect("bound");
        let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, came) = (stop.clone(), came.clone());
            move || serve(&socket, &stop, &came, script)
        });
        Self { addr, stop, came, thread: Some(thread) }
    }

    fn plan(&self) -> Plan {
        Plan {
            addr: self.addr.to_string(),
            rate: Rate::Events(5_000.0),
            duration: Duration::from_millis(200),
            fill: Fill::Events(4),
            ..Plan::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the server panicked");
    }
}

fn serve(
    socket: &UdpSocket,
    stop: &AtomicBool,
    came: &AtomicU64,
    mut script: impl FnMut(u64) -> Answer,
) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((bytes, from)) = socket.recv_from(&mut buffer) else { continue };
        let (header, request) = wire::decode(&buffer[..bytes], crc_fast::crc32_iscsi)
            .expect("the generator writes sound datagrams");
        let replies = match request {
            Request::Hello => {
                let mut body = [0; 64];
                WELCOME.write(&mut body);
                vec![finished(&header, Kind::Welcome, 0, &body)]
            }
            Request::Ping(client_sent_ns) => {
                let mut body = [0; 24];
                Pong { client_sent_ns, server_received_ns: 1_000, server_sent_ns: 1_500 }
                    .write(&mut body);
                vec![finished(&header, Kind::Pong, 0, &body)]
            }
            Request::Events(mode, events) => {
                assert!(events.clone().all(|event| event.is_well_formed()));
                // What a server with a log applies whatever else it knows.
                let credit = EventKind::WalletCredit.code();
                assert!(events.clone().all(|event| event.kind == credit && event.argument > 0));
                let answer = script(came.fetch_add(1, Ordering::Relaxed));
                answers(answer, &header, mode, events.count() as u16)
            }
            Request::Query(_) => panic!("the generator asks nothing"),
        };
        for reply in replies {
            // The generator may be gone by now.
            let _ = socket.send_to(&reply, from);
        }
    }
}

const WELCOME: Welcome = Welcome {
    log_time_ns: 1_767_225_600_000_000_000,
    epoch: 0,
    partitions: 64,
    lanes: 1,
    port_first: 4747,
    port_last: 4747,
    modes: Welcome::mode_bit(Mode::None),
    version_min: 1,
    version_max: 1,
    role: 1,
    payload_bytes_max: 1232,
    events_max: 24,
    cookie: 0,
    cluster_id: 0,
    features: 0,
};

fn answers(answer: Answer, to: &Header, mode: Mode, events: u16) -> Vec<Vec<u8>> {
    let ack = |duplicates: u16| {
        let duplicates_len = usize::from(duplicates);
        let mut body = vec![0; AckEntry::wire_bytes(usize::from(events), duplicates_len)];
        let mut outcomes = vec![Outcome::Accepted.code(); usize::from(events)];
        outcomes[..duplicates_len].fill(Outcome::Accepted.code() | DUPLICATE_BIT);
        AckEntry::write(&mut body, to.sequence, 0, mode, &outcomes, duplicates);
        finished(to, Kind::Ack, 1, &body)
    };
    match answer {
        Answer::Accepted => vec![ack(0)],
        Answer::Duplicate => vec![ack(1)],
        Answer::Twice => vec![ack(0), ack(0)],
        Answer::Damaged => {
            let mut reply = ack(0);
            reply[60] ^= 1;
            vec![reply]
        }
        Answer::Busy => vec![finished(to, Kind::Busy, 0, &5_000_u64.to_le_bytes())],
        Answer::Refused => {
            let body = [Refusal::Malformed.code(), 1, 1, 0, 0, 0, 0, 0];
            vec![finished(to, Kind::Refused, 0, &body)]
        }
        Answer::Nothing => vec![],
        Answer::Stalled(time) => {
            std::thread::sleep(time);
            vec![ack(0)]
        }
    }
}

fn finished(to: &Header, kind: Kind, count: u16, body: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER_BYTES];
    Header { count, session: to.session, sequence: to.sequence, ..Header::new(kind) }
        .write(&mut datagram);
    datagram.extend_from_slice(body);
    wire::finish(&mut datagram, crc_fast::crc32_iscsi);
    datagram
}

#[test]
fn a_good_server_answers_all_that_the_schedule_asks_for() {
    let server = Server::start(|_| Answer::Accepted);
    let report = drive(&Plan { connections: 3, ..server.plan() }).expect("a report");
    // 5,000 events/s for 200 ms.
    assert_eq!(report.events_intended, 1_000);
    assert_eq!(report.events_acked, report.events_sent);
    assert_eq!(report.datagrams_sent, server.came.load(Ordering::Relaxed));
    assert_eq!(report.outcomes["accepted"], report.events_acked);
    assert_eq!(report.replies, report.datagrams_sent);
    assert!(report.closes());
    let ack = report.ack_ns.expect("acks");
    assert!(0 < ack.min && ack.min <= ack.p50 && ack.p50 <= ack.p99 && ack.p999 <= ack.max);
    assert_eq!(report.histogram.len(), report.datagrams_sent);
}

#[test]
fn every_event_is_in_exactly_one_place() {
    let server = Server::start(|n| match n % 7 {
        0 => Answer::Busy,
        1 => Answer::Refused,
        2 => Answer::Nothing,
        3 => Answer::Damaged,
        4 => Answer::Twice,
        5 => Answer::Duplicate,
        _ => Answer::Accepted,
    });
    let report = drive(&server.plan()).expect("a report");
    let came = server.came.load(Ordering::Relaxed);
    let of = |rest: u64| 4 * (0..came).filter(|n| n % 7 == rest).count() as u64;
    assert_eq!(report.datagrams_sent, came);
    assert_eq!(report.events_busy, of(0));
    assert_eq!(report.events_refused, of(1));
    assert_eq!(report.refusals["malformed"], of(1));
    assert_eq!(report.events_lost, of(2) + of(3));
    assert_eq!(report.events_acked, of(4) + of(5) + of(6));
    assert_eq!(report.replies_invalid, of(3) / 4);
    assert_eq!(report.replies_late, of(4) / 4);
    assert_eq!(report.duplicates, of(5) / 4);
    assert!(report.closes());
}

#[test]
fn a_stall_is_charged_to_every_datagram_that_waited() {
    let stall = Duration::from_millis(100);
    // 100 datagrams a second apart by 2 ms; the stall comes early.
    let server =
        Server::start(move |n| if n == 10 { Answer::Stalled(stall) } else { Answer::Accepted });
    let plan = Plan { rate: Rate::Events(2_000.0), ..server.plan() };
    let report = drive(&plan).expect("a report");
    let ack = report.ack_ns.expect("acks");
    assert!(ack.max >= 99_000_000, "{ack}");
    // 50 datagrams were due in the stall, 45 of them more than 10 ms before its end.
    let waited = report.histogram.count_between(10_000_000, u64::MAX);
    assert!(waited >= 40, "{waited}: {ack}");
    assert!(!report.behind.closed_loop);
}

#[test]
fn a_window_keeps_going_as_answers_come_and_gives_up_what_is_lost() {
    let server = Server::start(|n| if n == 5 { Answer::Nothing } else { Answer::Accepted });
    let plan = Plan { rate: Rate::Max { window: 8 }, ..server.plan() };
    let report = drive(&plan).expect("a report");
    assert!(report.datagrams_sent > 100, "{}", report.datagrams_sent);
    assert_eq!(report.events_lost, 4);
    assert_eq!(report.events_intended, report.events_sent);
    assert!(report.behind.closed_loop && report.closes());
}

#[test]
fn a_window_pauses_for_as_long_as_a_busy_server_asks() {
    let server = Server::start(|_| Answer::Busy);
    let plan = Plan { rate: Rate::Max { window: 8 }, ..server.plan() };
    let report = drive(&plan).expect("a report");
    // A window in each 5 ms of the 200 at the most, and the one at the start.
    assert!((8..=8 * 41).contains(&report.datagrams_sent), "{}", report.datagrams_sent);
    assert_eq!(report.events_busy, report.events_sent);
    assert!(report.closes());
}

#[test]
fn a_silent_server_stops_a_window_and_all_is_lost() {
    let server = Server::start(|_| Answer::Nothing);
    let plan = Plan { rate: Rate::Max { window: 8 }, ..server.plan() };
    let report = drive(&plan).expect("a report");
    assert_eq!((report.datagrams_sent, report.events_lost), (8, 32));
    assert!(report.closes() && report.ack_ns.is_none());
}

#[test]
fn a_mode_the_server_lacks_and_a_fill_it_does_not_take_are_refused() {
    let server = Server::start(|_| Answer::Accepted);
    let error = drive(&Plan { mode: Mode::Durable, ..server.plan() }).expect_err("no log");
    assert!(error.message.contains("durable"), "{error}");
    let error = drive(&Plan { fill: Fill::Events(25), ..server.plan() }).expect_err("too many");
    assert_eq!(error.status, ExitStatus::Usage);
    assert!(error.message.contains("1 to 24"), "{error}");
}

#[test]
fn nobody_there_is_unhealthy() {
    let addr = UdpSocket::bind("127.0.0.1:0").expect("bind").local_addr().expect("addr");
    let error = drive(&Plan { addr: addr.to_string(), ..Plan::default() }).expect_err("nobody");
    assert_eq!(error.status, ExitStatus::Unhealthy);
    let socket = ping::open(addr).expect("socket");
    let report = ping::drive(&socket, 3, Duration::from_millis(1)).expect("a report");
    assert_eq!((report.sent, report.received), (3, 0));
    assert!(report.port_closed && report.rtt_ns.is_none());
}

#[test]
fn pings_are_answered_and_timed() {
    let server = Server::start(|_| Answer::Accepted);
    let socket = ping::open(server.addr).expect("socket");
    let report = ping::drive(&socket, 20, Duration::from_millis(1)).expect("a report");
    assert_eq!((report.sent, report.received, report.surplus), (20, 20, 0));
    assert_eq!(report.server_ns.expect("answered").max, 500);
    assert!(report.rtt_ns.expect("answered").max < 1_000_000_000);
}

#[test]
fn the_percentile_table_has_the_form_of_hdrhistograms_tools() {
    let server = Server::start(|_| Answer::Accepted);
    let report = drive(&server.plan()).expect("a report");
    let text = report.hdr_text();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("       Value     Percentile TotalCount 1/(1-Percentile)"));
    assert_eq!(lines.next(), Some(""));
    let rows: Vec<Vec<f64>> = lines
        .by_ref()
        .take_while(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(|n| n.parse().expect("a number")).collect())
        .collect();
    assert!(rows.is_sorted_by(|a, b| a[..3].iter().zip(&b[..3]).all(|(a, b)| a <= b)));
    let last = rows.last().expect("rows");
    assert_eq!((last[1], last[2]), (1.0, report.datagrams_sent as f64));
    assert!(text.contains("#[Mean ") && text.contains("#[Max ") && text.contains("#[Buckets "));
}

#[test]
fn flags_parse_or_say_what_they_want() {
    assert_eq!(rate("100k"), Ok(RateArg::Events(100_000.0)));
    assert_eq!(rate("1.5M"), Ok(RateArg::Events(1_500_000.0)));
    assert_eq!(rate("max"), Ok(RateArg::Max));
    assert_eq!(count("1k"), Ok(1_000));
    assert_eq!(count("2.5k"), Ok(2_500));
    assert_eq!(fill("max"), Ok(Fill::Max));
    assert_eq!(fill("24"), Ok(Fill::Events(24)));
    for text in ["", "0", "-1", "k", "nan", "inf", "1e400", "fast", "é"] {
        assert!(rate(text).is_err(), "{text}");
        assert!(count(text).is_err(), "{text}");
        assert!(fill(text).is_err(), "{text}");
    }
    assert!(count("1.5").is_err());
}
