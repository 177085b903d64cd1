//! A queue without a lane degrades the service, visibly, and does not end it.

use std::time::Duration;

use veltrix::admin::accounting::exit;
use veltrix_abi::Exit;
use veltrix_abi::wire::Kind;
use veltrix_tests::bench::rig::{PORT, ping_template};
use veltrix_tests::bench::service::Provider;
use veltrix_tests::lab::{
    Datagram, FrameSpec, GENERATED_PORT, Generator, GeneratorSpec, Lab, LabSpec, Pacing, Sink,
    Template,
};
use veltrix_tests::server::{Server, require};

/// The alarm is looked for once a second.
const ALARM_WAIT_MAX: Duration = Duration::from_secs(4);

#[test]
fn a_queue_that_came_later_is_served_by_the_fallback_and_raises_an_alarm() {
    if !require("a_queue_that_came_later_is_served_by_the_fallback_and_raises_an_alarm") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let sink = Sink::attach(&lab, Some(GENERATED_PORT..=GENERATED_PORT)).unwrap();
    let v6 = Template::new(&FrameSpec::ipv6(PORT), &Datagram::default().events(2, 0)).unwrap();
    // Cores 0 and 1 in turn, two calls each: both templates on both.
    let spec = GeneratorSpec {
        cores: vec![0, 0, 1, 1],
        call_frames: 20,
        pacing: Pacing::RatePerS(20_000),
        ..GeneratorSpec::new(0, vec![ping_template().unwrap(), v6])
    };
    let mut generator = Generator::new(&lab, spec).unwrap();

    let one_queue = generator.send(800).unwrap();
    let status = server.settled().unwrap();
    assert_eq!(status.lanes[0].frames, one_queue.delivered);
    assert_eq!(status.accounting.fallback_expected, 0);
    assert!(status.is_healthy(), "{status:#?}");

    lab.set_queues_both(2).unwrap();
    let two_queues = generator.send(800).unwrap();
    assert_eq!((two_queues.delivered, two_queues.delivered_by_queue[1]), (800, 400));
    let status = server.settled().unwrap();
    let fallback = status.fallback.as_ref().unwrap();
    assert_eq!(fallback.frames, 400);
    assert_eq!(fallback.socket_drops, 0);
    assert_eq!((exit(&fallback.exits, Exit::Ping), exit(&fallback.exits, Exit::Accepted)), (200, 200));
    let beyond = status.xdp_queues.iter().find(|row| row.queue.is_none());
    let beyond = beyond.unwrap_or_else(|| panic!("no row of the new queue: {status:#?}"));
    assert_eq!(exit(&beyond.exits, Exit::PassFallback), 400);
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    // Everybody is answered, from either place.
    let seen = sink.read().unwrap().dropped;
    assert_eq!(seen.kind(Kind::Pong), 400 + 400, "{seen:?}");
    assert_eq!(seen.ack_entries, 400 + 400, "{seen:?}");

    let raised = |status: &veltrix::admin::status::Status| {
        status.alarms.iter().any(|alarm| alarm.name == "queue-count-changed")
    };
    let status = server.until(ALARM_WAIT_MAX, raised).unwrap();
    let alarm = &status.alarms[0];
    assert!(
        alarm.message.contains("scripts/nic-queues.sh apply veltrix-s 1"),
        "{}",
        alarm.message
    );
    let shown = server.cli(&lab, &["status"]).unwrap();
    assert_eq!(shown.code, Some(10), "{shown:?}");
    assert!(shown.out.starts_with("ALARM queue-count-changed"), "{}", shown.out);

    lab.set_queues_both(1).unwrap();
    let status = server.until(ALARM_WAIT_MAX, |status| !raised(status)).unwrap();
    assert!(status.is_healthy(), "{status:#?}");
    let again = generator.send(800).unwrap();
    let status = server.settled().unwrap();
    assert_eq!(status.lanes[0].frames, 800 + 400 + again.delivered);
    assert!(status.accounting.closes, "{:#?}", status.accounting.gaps);
    let said = server.stop().unwrap();
    assert!(said.err.contains("alarm cleared: queue-count-changed"), "{}", said.err);
}
