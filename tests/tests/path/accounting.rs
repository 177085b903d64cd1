//! Frames in = sum of exits, for over a million frames, and red when any one
//! counter is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use veltrix::admin::accounting::{by_action, close, exit, kernel_drops, total};
use veltrix::admin::status::{LaneStatus, Replies, Status};
use veltrix_abi::wire::Kind;
use veltrix_abi::{Action, Exit, Outcome};
use veltrix_tests::bench::service::Provider;
use veltrix_tests::lab::{
    Bound, GENERATED_PORT, Generator, GeneratorSpec, Lab, LabSpec, Sent, Side, Sink, SinkReading,
    Vary,
};
use veltrix_tests::server::{Server, require};

use super::fallback::raise_queues;
use super::mix::{BLOCKED, Case, cases, unanswerable};

/// Frames of the part in which nothing may be lost.
const LOSSLESS_FRAMES: u64 = 300_000;
/// Frames of the part at full speed.
const FULL_SPEED_FRAMES: u64 = 1_000_000;
/// Frames sent before the lanes are waited for: fewer than a receive ring
/// holds, so that none finds it full.
const BURST_FRAMES: u64 = 6_000;

/// Large rings, and no shedding however long a core is taken away.
const PATIENT: [(&str, &str); 2] =
    [("VELTRIX_XDP_RX_RING_FRAMES", "8192"), ("VELTRIX_LANES_DEADLINE", "10 s")];

/// A generator of the whole mix on both cores, so that two queues each meet
/// every template: one core for a whole round of templates, then the other.
fn generator(lab: &Lab, cases: &[Case]) -> Generator {
    let round = cases.len();
    let spec = GeneratorSpec {
        cores: (0..2 * round).map(|call| call / round).collect(),
        call_frames: 50,
        vary: Vary { source_mask: 0x3, port_mask: 0 },
        ..GeneratorSpec::new(0, cases.iter().map(|case| case.template.clone()).collect())
    };
    Generator::new(lab, spec).unwrap()
}

fn sum(total: &mut Sent, part: &Sent) {
    total.issued += part.issued;
    total.delivered += part.delivered;
    total.ring_full += part.ring_full;
    total.refused += part.refused;
    total.left_in_ring += part.left_in_ring;
    total.templates.resize(part.templates.len(), <_>::default());
    for (sum, part) in total.templates.iter_mut().zip(&part.templates) {
        sum.issued += part.issued;
        sum.delivered += part.delivered;
    }
    let queues = part.delivered_by_queue.len();
    total.delivered_by_queue.resize(queues, 0);
    for (sum, part) in total.delivered_by_queue.iter_mut().zip(&part.delivered_by_queue) {
        *sum += part;
    }
}

/// Delivered frames by the exit that their template leaves by.
fn expected(cases: &[Case], sent: &Sent, of: impl Fn(&Case) -> Exit) -> BTreeMap<Exit, u64> {
    let mut frames = BTreeMap::new();
    for (case, sent) in cases.iter().zip(&sent.templates) {
        *frames.entry(of(case)).or_default() += sent.delivered;
    }
    frames
}

fn all_lanes(status: &Status) -> impl Iterator<Item = &LaneStatus> {
    status.lanes.iter().chain(&status.fallback)
}

fn lanes_exit(status: &Status, wanted: Exit) -> u64 {
    all_lanes(status).map(|lane| exit(&lane.exits, wanted)).sum()
}

/// The equation from outside in: generator, interface, program, lanes.
fn assert_frames_close(lab: &Lab, status: &Status, sent: &Sent) {
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    assert_eq!(status.accounting.unaccounted, 0);
    assert_eq!((sent.refused, sent.left_in_ring), (0, 0), "{sent:?}");
    assert_eq!(sent.issued, sent.delivered + sent.ring_full);
    let interface = lab.counters(Side::Server).unwrap();
    let mut frames = 0;
    for (number, delivered) in sent.delivered_by_queue.iter().enumerate() {
        let queue = status
            .xdp_queues
            .iter()
            .find(|queue| queue.queue == Some(number as u32))
            .unwrap_or_else(|| panic!("no row of queue {number}"));
        assert!(*delivered > 0, "queue {number} was not fed: {sent:?}");
        assert_eq!(interface.queues[number].xdp_packets, *delivered);
        assert_eq!(queue.frames, *delivered, "queue {number}");
        assert_eq!(queue.frames, total(&queue.exits), "queue {number}");
        assert_eq!(queue.arrived_while_reading, 0);
        let lane = status.lanes.iter().find(|lane| lane.queue == queue.queue).unwrap();
        let redirected = exit(&queue.exits, Exit::RedirectXsk);
        assert_eq!(redirected, lane.frames + kernel_drops(lane), "queue {number}");
        assert_eq!(lane.rings.rx, 0);
        frames += queue.frames;
    }
    assert_eq!(status.xdp_queues.len(), sent.delivered_by_queue.len());
    assert_eq!(frames, sent.delivered);
    assert_eq!(interface.sum(|q| q.xdp_packets), sent.delivered);
    assert_eq!(status.accounting.frames_in, sent.delivered);
    for lane in all_lanes(status) {
        assert_eq!(lane.frames, total(&lane.exits), "{lane:#?}");
        let owed = by_action(&lane.exits, Action::Reply);
        assert_eq!(owed, lane.replies.sum(), "{lane:#?}");
        assert_eq!(lane.events, total(&lane.outcomes), "{lane:#?}");
        assert_eq!(lane.alien_frames, 0);
    }
    assert_eq!(lanes_exit(status, Exit::LaneDisagrees), 0);
    assert!(status.alarms.is_empty(), "{:?}", status.alarms);
}

/// Program's exits are those of the templates, to the frame.
fn assert_program_exits(status: &Status, cases: &[Case], sent: &Sent) {
    let expected = expected(cases, sent, Case::program_exit);
    for known in Exit::ALL.iter().filter(|exit| exit.is_xdp()) {
        let rows = status.xdp_queues.iter();
        let found: u64 = rows.map(|queue| exit(&queue.exits, *known)).sum();
        let wanted = expected.get(known).copied().unwrap_or(0);
        assert_eq!(found, wanted, "{known:?}");
    }
}

/// What the sink saw is what the lanes said they sent.
fn assert_replies(lab: &Lab, status: &Status, sink: &SinkReading) {
    let sent: u64 = all_lanes(status).map(|lane| lane.replies.sent).sum();
    let (seen, lost) = (sink.dropped, lab.counters(Side::Server).unwrap().tx_dropped);
    let datagrams: u64 = seen.kinds.iter().sum();
    assert_eq!(sent, datagrams + lost, "{seen:?}");
    assert_eq!(seen.foreign, 0, "{seen:?}");
    let fates: Vec<Replies> = all_lanes(status).map(|lane| lane.replies).collect();
    let dropped: u64 = fates.iter().map(|fate| fate.dropped_tx_full).sum();
    if lost + dropped > 0 {
        println!("{lost} replies lost on the link, {dropped} for a full ring: kinds not compared");
        return;
    }
    let coalesced: u64 = fates.iter().map(|fate| fate.coalesced).sum();
    let withheld: u64 = fates.iter().map(|fate| fate.withheld).sum();
    let count = |exit| lanes_exit(status, exit);
    assert_eq!(seen.kind(Kind::Pong), count(Exit::Ping));
    assert_eq!(seen.kind(Kind::Welcome), count(Exit::Hello));
    assert_eq!(seen.kind(Kind::Busy), count(Exit::Shed));
    assert_eq!(seen.kind(Kind::Ack) + coalesced, count(Exit::Accepted));
    assert_eq!(seen.acks_cut, 0);
    assert_eq!(seen.ack_entries, count(Exit::Accepted));
    let accepted = |lane: &LaneStatus| lane.outcomes.get(Outcome::Accepted.label()).copied();
    let events: u64 = all_lanes(status).filter_map(accepted).sum();
    assert_eq!(seen.acked_events, events);
    let refused: u64 = [
        Exit::Version,
        Exit::Kind,
        Exit::Reserved,
        Exit::Sealed,
        Exit::Malformed,
        Exit::Mode,
        Exit::DurableUnavailable,
        Exit::QueryUnavailable,
    ]
    .map(count)
    .iter()
    .sum();
    assert_eq!(seen.kind(Kind::Refused) + withheld, refused);
}

fn closes_over_a_million(queues: u32) {
    let lab = Lab::new(LabSpec::with_queues(queues)).unwrap();
    let server = Server::start_with(&lab, Provider::Xdp, &[], &PATIENT).unwrap();
    let blocked = ["block", "add", BLOCKED, "--ttl", "forever", "--reason", "mix"];
    assert_eq!(server.cli(&lab, &blocked).unwrap().code, Some(0));
    let sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let cases = cases();
    let mut generator = generator(&lab, &cases);

    // Burst by burst, waiting for the lanes: nothing is lost, so that every
    // exit has exactly the frames of its templates.
    let mut sent = Sent::default();
    let mut status = server.status().unwrap();
    while sent.issued < LOSSLESS_FRAMES {
        let burst = generator.send(BURST_FRAMES).unwrap();
        sum(&mut sent, &burst);
        let served = |status: &Status| {
            let redirected = status.accounting.redirected;
            let taken: u64 = status.lanes.iter().map(|l| l.frames + kernel_drops(l)).sum();
            redirected == taken && status.accounting.frames_in == sent.delivered
        };
        status = server.until(Duration::from_secs(2), served).unwrap();
    }
    assert_eq!(sent.ring_full, 0, "{sent:?}");
    status = server.settled().unwrap_or(status);
    assert_frames_close(&lab, &status, &sent);
    assert_program_exits(&status, &cases, &sent);
    assert_eq!(status.accounting.kernel_dropped, 0);
    let by_lanes = expected(&cases, &sent, |case| case.exit);
    for known in Exit::ALL.iter().filter(|exit| !exit.is_xdp()) {
        let found: u64 = status.lanes.iter().map(|l| exit(&l.exits, *known)).sum();
        assert_eq!(found, by_lanes.get(known).copied().unwrap_or(0), "{known:?}");
    }
    let withheld = cases.iter().zip(&sent.templates);
    let withheld: u64 = withheld.filter(|(case, _)| case.withheld).map(|(_, t)| t.delivered).sum();
    assert_eq!(status.lanes.iter().map(|l| l.replies.withheld).sum::<u64>(), withheld);
    // The chain is for our port: the kernel walks it, the fallback refuses it.
    let chains = by_lanes[&Exit::PassIpv6Chain];
    let fallback = status.fallback.as_ref().unwrap();
    assert_eq!(fallback.frames + fallback.socket_drops, chains);
    assert_eq!(exit(&fallback.exits, Exit::DropIpv6Extension), fallback.frames);
    assert_replies(&lab, &status, &sink.read().unwrap());

    // As fast as it goes: what the lanes cannot take is counted by the kernel.
    sum(&mut sent, &generator.send(FULL_SPEED_FRAMES).unwrap());
    let status = server.settled().unwrap();
    assert!(sent.delivered > FULL_SPEED_FRAMES, "{sent:?}");
    assert_frames_close(&lab, &status, &sent);
    assert_program_exits(&status, &cases, &sent);
    assert_replies(&lab, &status, &sink.read().unwrap());
    println!(
        "{queues} queues: {} frames, {} dropped by the kernel for a full ring",
        sent.delivered, status.accounting.kernel_dropped
    );
    assert_eq!(server.stop().unwrap().code, Some(0));
}

#[test]
fn accounting_closes_over_a_million_frames_and_one_queue() {
    if require("accounting_closes_over_a_million_frames_and_one_queue") {
        closes_over_a_million(1);
    }
}

#[test]
fn accounting_closes_over_a_million_frames_and_two_queues() {
    if require("accounting_closes_over_a_million_frames_and_two_queues") {
        closes_over_a_million(2);
    }
}

/// A counter of a status, by where it stands, and a way to lose it.
type Counter = (String, Box<dyn Fn(&mut Status)>);

/// A term of the sums in a lane's row.
type Term = fn(&mut LaneStatus) -> &mut u64;

/// Every counter that is a term of the sums and not zero.
fn counters(status: &Status) -> Vec<Counter> {
    let mut found: Vec<Counter> = Vec::new();
    for (row, queue) in status.xdp_queues.iter().enumerate() {
        let place = format!("queue {:?}", queue.queue);
        found.push((format!("{place} frames"), Box::new(move |s| s.xdp_queues[row].frames = 0)));
        for label in queue.exits.keys().cloned() {
            found.push((
                format!("{place} {label}"),
                Box::new(move |s| s.xdp_queues[row].exits.retain(|key, _| *key != label)),
            ));
        }
    }
    let lanes = (0..status.lanes.len()).map(Some).chain([None]);
    for at in lanes {
        // `None` is the fallback.
        fn lane(s: &mut Status, at: Option<usize>) -> &mut LaneStatus {
            match at {
                Some(at) => &mut s.lanes[at],
                None => s.fallback.as_mut().expect("a fallback"),
            }
        }
        let now = at
            .map_or_else(|| status.fallback.as_ref().expect("a fallback"), |at| &status.lanes[at]);
        let place = at.map_or("fallback".to_owned(), |at| format!("lane {at}"));
        for label in now.exits.keys().cloned() {
            found.push((
                format!("{place} {label}"),
                Box::new(move |s| lane(s, at).exits.retain(|key, _| *key != label)),
            ));
        }
        for label in now.outcomes.keys().cloned() {
            found.push((
                format!("{place} outcome {label}"),
                Box::new(move |s| lane(s, at).outcomes.retain(|key, _| *key != label)),
            ));
        }
        let terms: [(&str, Term); 9] = [
            ("frames", |l| &mut l.frames),
            ("events", |l| &mut l.events),
            ("sent", |l| &mut l.replies.sent),
            ("coalesced", |l| &mut l.replies.coalesced),
            ("dropped_tx_full", |l| &mut l.replies.dropped_tx_full),
            ("withheld", |l| &mut l.replies.withheld),
            ("socket_drops", |l| &mut l.socket_drops),
            ("rx_ring_full", |l| &mut l.xdp_statistics.rx_ring_full),
            ("rx_dropped", |l| &mut l.xdp_statistics.rx_dropped),
        ];
        for (name, term) in terms {
            if *term(&mut now.clone()) > 0 {
                found.push((format!("{place} {name}"), Box::new(move |s| *term(lane(s, at)) = 0)));
            }
        }
    }
    found
}

#[test]
fn any_one_counter_suppressed_breaks_the_sums() {
    if !require("any_one_counter_suppressed_breaks_the_sums") {
        return;
    }
    // Starts with one lane, sheds soon, and has little room in its sockets.
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let hasty = [("VELTRIX_LANES_DEADLINE", "30 us"), ("VELTRIX_UDP_RECEIVE_BUFFER", "64 KiB")];
    let server = Server::start_with(&lab, Provider::Xdp, &[], &hasty).unwrap();
    // Queue 1 has no lane.
    raise_queues(&lab, 2);
    let _sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    // Without the chains, which the fallback receives and nobody expects: they
    // would hide what is lost there. And without tagged frames, which the
    // server's kernel drops before its sockets, having no interface for them.
    let mut cases = cases();
    let is_left_out = |case: &Case| {
        matches!(case.exit, Exit::PassIpv6Chain | Exit::DropBlocked) || case.name.contains("behind")
    };
    cases.retain(|case| !is_left_out(case));
    let mut generator = generator(&lab, &cases);
    // Batches that both lanes find at once, knowing nothing yet of their speed:
    // events that are accepted and share acks, and pings from the subnet's
    // broadcast address, which the kernel lets no socket answer.
    let events = cases.iter().find(|case| case.exit == Exit::Accepted).unwrap();
    let first = GeneratorSpec {
        cores: vec![0, 1],
        call_frames: 25,
        ..GeneratorSpec::new(0, vec![events.template.clone(), unanswerable().template])
    };
    // Then a flood that is shed, and a stall.
    server.signal("STOP").unwrap();
    let first = Generator::new(&lab, first).unwrap().send(50).unwrap();
    server.signal("CONT").unwrap();
    server.settled().unwrap();
    let mut sent = generator.send(100_000).unwrap();
    server.signal("STOP").unwrap();
    sum(&mut sent, &generator.send(40_000).unwrap());
    server.signal("CONT").unwrap();
    let status = server.settled().unwrap();
    let delivered = first.delivered + sent.delivered;
    assert_eq!(status.accounting.frames_in, delivered, "{:#?}", status.xdp_queues);
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);

    let counters = counters(&status);
    let names: Vec<&str> = counters.iter().map(|(name, _)| name.as_str()).collect();
    for wanted in [
        "lane 0 rx_ring_full",
        "lane 0 shed",
        "lane 0 accepted",
        "lane 0 coalesced",
        "lane 0 withheld",
        "fallback socket_drops",
        "fallback dropped_tx_full",
        "fallback ping",
        "queue Some(0) redirect_xsk",
        "queue None pass_fallback",
        "queue None pass_other_port",
    ] {
        assert!(names.contains(&wanted), "{wanted} is zero: {names:?}");
    }
    println!("{} counters, each suppressed in turn", counters.len());
    for (name, suppress) in &counters {
        let mut lossy = status.clone();
        suppress(&mut lossy);
        let sums = close(&lossy.xdp_queues, &lossy.lanes, lossy.fallback.as_ref());
        // What is lost at the socket unseen is taken for lost before it.
        let is_missed = if name == "fallback socket_drops" {
            sums.lost_in_stack > status.accounting.lost_in_stack
        } else {
            !sums.closes && sums.unaccounted > 0
        };
        assert!(is_missed, "{name} is not missed");
    }
}

#[test]
fn the_sums_close_at_any_time_under_full_load() {
    if !require("the_sums_close_at_any_time_under_full_load") {
        return;
    }
    const SAMPLES: usize = 50;
    const SAMPLING_MAX: Duration = Duration::from_secs(20);
    let lab = Lab::new(LabSpec::with_queues(2)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let _sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let running = generator(&lab, &cases()).start(Bound::Time(Duration::from_secs(60))).unwrap();
    let (mut open, mut before, mut samples) = (Vec::new(), 0, 0);
    let started = Instant::now();
    // On a busy host the generator stands still now and then; such a reading
    // says nothing of load.
    while samples < SAMPLES {
        assert!(started.elapsed() < SAMPLING_MAX, "only {samples} readings under load");
        std::thread::sleep(Duration::from_millis(5));
        let status = server.status().unwrap();
        samples += usize::from(status.accounting.frames_in > before);
        before = status.accounting.frames_in;
        if !status.accounting.closes {
            open.push(status.accounting.gaps);
        }
    }
    running.stop();
    let (_, sent) = running.join().unwrap();
    let status = server.settled().unwrap();
    assert_frames_close(&lab, &status, &sent);
    let count = open.len();
    assert_eq!(count, 0, "{count} readings in {SAMPLES} did not close: {open:#?}");
}
