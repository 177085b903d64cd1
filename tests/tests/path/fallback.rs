//! A queue without a lane degrades the service, visibly, and does not end it.

use std::process::Command;
use std::time::Duration;

use veltrix::admin::accounting::exit;
use veltrix::admin::status::Status;
use veltrix_abi::Exit;
use veltrix_abi::wire::Kind;
use veltrix_tests::bench::rig::{PORT, ping_template};
use veltrix_tests::bench::service::Provider;
use veltrix_tests::lab::{
    Datagram, FrameSpec, GENERATED_PORT, Generator, GeneratorSpec, Lab, LabSpec, Pacing, Side,
    Sink, Template,
};
use veltrix_tests::server::{Server, finish, require};

/// The alarm is looked for once a second.
const ALARM_WAIT_MAX: Duration = Duration::from_secs(4);

/// What the server's interface loses when it goes down.
const RESTORED: [&str; 7] = [
    "link set dev veltrix-s up",
    "addr replace fd77::1/64 dev veltrix-s nodad",
    "neigh replace 10.77.0.2 lladdr 02:76:6c:74:00:02 dev veltrix-s nud permanent",
    "neigh replace fd77::2 lladdr 02:76:6c:74:00:02 dev veltrix-s nud permanent",
    "route replace default via 10.77.0.2 dev veltrix-s",
    "-6 route replace default via fd77::2 dev veltrix-s",
    "link show dev veltrix-s",
];

/// Raises the queues of both ends to `queues` as a NIC does it: with the
/// attached program on the new ones too. veth gives a queue that comes while
/// it is up no program; down and up does.
pub fn raise_queues(lab: &Lab, queues: u32) {
    lab.set_queues_both(queues).unwrap();
    for line in ["link set dev veltrix-s down"].iter().chain(&RESTORED) {
        let mut command = Command::new("ip");
        command.args(line.split_whitespace());
        let ended = finish(lab, Side::Server, command).unwrap();
        assert_eq!(ended.code, Some(0), "ip {line}: {}", ended.err);
    }
}

/// Pings by IPv4 and events by IPv6 on cores 0 and 1 alike.
fn generator(lab: &Lab) -> Generator {
    let v6 = Template::new(&FrameSpec::ipv6(PORT), &Datagram::default().events(2, 0)).unwrap();
    let spec = GeneratorSpec {
        // Two calls each: both templates on both.
        cores: vec![0, 0, 1, 1],
        call_frames: 20,
        pacing: Pacing::RatePerS(20_000),
        ..GeneratorSpec::new(0, vec![ping_template().unwrap(), v6])
    };
    Generator::new(lab, spec).unwrap()
}

fn is_raised(status: &Status, name: &str) -> bool {
    status.alarms.iter().any(|alarm| alarm.name == name)
}

/// What 800 frames, half of them on a queue without a lane, leave behind at the
/// fallback and at a sink that came after the queue.
fn assert_served_by_fallback(status: &Status, sink: &Sink) {
    let fallback = status.fallback.as_ref().unwrap();
    assert_eq!((fallback.frames, fallback.socket_drops), (400, 0));
    let by = |wanted| exit(&fallback.exits, wanted);
    assert_eq!((by(Exit::Ping), by(Exit::Accepted)), (200, 200));
    // Everybody is answered, from either place.
    let seen = sink.read().unwrap().dropped;
    assert_eq!((seen.kind(Kind::Pong), seen.ack_entries), (400, 400), "{seen:?}");
}

#[test]
fn a_queue_that_came_later_is_served_by_the_fallback_and_raises_an_alarm() {
    if !require("a_queue_that_came_later_is_served_by_the_fallback_and_raises_an_alarm") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let mut generator = generator(&lab);
    let one_queue = generator.send(800).unwrap();
    let status = server.settled().unwrap();
    assert_eq!(status.lanes[0].frames, one_queue.delivered);
    assert_eq!(status.accounting.fallback_expected, 0);
    assert!(status.is_healthy(), "{status:#?}");

    raise_queues(&lab, 2);
    let sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let two_queues = generator.send(800).unwrap();
    assert_eq!((two_queues.delivered, two_queues.delivered_by_queue[1]), (800, 400));
    let status = server.settled().unwrap();
    assert_served_by_fallback(&status, &sink);
    let beyond = status.xdp_queues.iter().find(|row| row.queue.is_none());
    let beyond = beyond.unwrap_or_else(|| panic!("no row of the new queue: {status:#?}"));
    assert_eq!(exit(&beyond.exits, Exit::PassFallback), 400);
    assert_eq!(status.accounting.frames_in, 1_600);
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);

    const ALARM: &str = "queue-count-changed";
    let status = server.until(ALARM_WAIT_MAX, |status| is_raised(status, ALARM)).unwrap();
    let said = &status.alarms[0].message;
    assert!(said.contains("scripts/nic-queues.sh apply veltrix-s 1"), "{said}");
    let shown = server.cli(&lab, &["status"]).unwrap();
    assert_eq!(shown.code, Some(10), "{shown:?}");
    assert!(shown.out.starts_with("ALARM queue-count-changed"), "{}", shown.out);

    let frames_before = status.lanes[0].frames;
    lab.set_queues_both(1).unwrap();
    let status = server.until(ALARM_WAIT_MAX, |status| !is_raised(status, ALARM)).unwrap();
    assert!(status.is_healthy(), "{status:#?}");
    let again = generator.send(800).unwrap();
    let status = server.settled().unwrap();
    assert_eq!(status.lanes[0].frames, frames_before + again.delivered);
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    let said = server.stop().unwrap().err;
    assert!(said.contains("alarm cleared: queue-count-changed"), "{said}");
}

/// veth runs no program on a queue that comes while it is up. Its datagrams
/// reach the fallback past the program: answered, and to be told apart from
/// frames that were lost, by the alarm that names the cause and no other.
#[test]
fn frames_that_come_past_the_program_are_no_gap_in_the_sums() {
    if !require("frames_that_come_past_the_program_are_no_gap_in_the_sums") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let mut generator = generator(&lab);
    generator.send(800).unwrap();
    lab.set_queues_both(2).unwrap();
    let sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    generator.send(800).unwrap();
    let status = server.settled().unwrap();
    assert_served_by_fallback(&status, &sink);
    let raised = |status: &Status| is_raised(status, "queue-count-changed");
    server.until(ALARM_WAIT_MAX, raised).unwrap();
    // Long enough for the sums to have been judged several times.
    std::thread::sleep(ALARM_WAIT_MAX);
    let status = server.status().unwrap();
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    let names: Vec<&str> = status.alarms.iter().map(|alarm| alarm.name.as_str()).collect();
    assert_eq!(names, ["queue-count-changed"]);
}
