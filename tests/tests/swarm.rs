//! The swarm against a server without a log: what it counts from acks is what
//! the server counted. Mixed traffic against one with a log: every event is decided
//! once, every query ends.

use std::time::Duration;

use veltrix_abi::Outcome;
use veltrix_abi::wire::Mode;
use veltrix_tests::bench::ingest::node::{Node, Sizes, format, number};
use veltrix_tests::bench::rig::PORT;
use veltrix_tests::bench::service::{Provider, TempDir};
use veltrix_tests::lab::{Lab, LabSpec, Receiver, ReceiverKind, Side};
use veltrix_tests::server::{Server, require};
use veltrix_tests::swarm::game::{Game, Pace};
use veltrix_tests::swarm::traffic::{Traffic, World};
use veltrix_tests::swarm::{Spec, Swarm};

const WORLD: World = World { hunts: 16, cells: 256, players: 32, seed: 11 };

const WAIT: Duration = Duration::from_secs(10);

fn spec(mode: Mode) -> Spec {
    Spec {
        world: WORLD,
        server_port: PORT,
        sessions: 5,
        mode,
        core: 0,
        retry_after: Duration::from_secs(2),
    }
}

/// Founds, plays in every way, and gives the events acknowledged.
fn play(swarm: &mut Swarm) -> anyhow::Result<u64> {
    swarm.hello(WAIT)?;
    let mut acked = swarm.found(16, WAIT)?.tally.acked();
    assert_eq!(acked, WORLD.found_datagrams() * 24);
    let short = Duration::from_millis(200);
    for traffic in [Traffic::Play { events: 24 }, Traffic::Play { events: 1 }] {
        let closed = swarm.closed(traffic, 32, short)?;
        let open = swarm.open(traffic, 2_000.0, short)?;
        assert_eq!(swarm.finish(traffic, WAIT)?, 0);
        let rest = swarm.book().take_tally();
        let mut all = closed.tally;
        all.add(&open.tally)?;
        all.add(&rest)?;
        assert!(all.events > 0 && all.acked() == all.events, "{all:?}");
        assert_eq!((all.alien, all.doubled, all.refused), (0, 0, 0));
        assert_eq!(all.ack_ns.len(), all.acked());
        acked += all.acked();
    }
    Ok(acked)
}

#[test]
fn counts_what_the_server_counts() {
    if !require("counts_what_the_server_counts") {
        return;
    }
    for provider in [Provider::Xdp, Provider::Udp] {
        let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
        let _pass = (provider == Provider::Udp)
            .then(|| Receiver::attach(&lab, Side::Server, ReceiverKind::Pass).unwrap());
        let server = Server::start(&lab, provider, &[]).unwrap();
        let acked = Swarm::run(&lab, spec(Mode::None), play).unwrap();
        let status = server.settled().unwrap();
        let accepted = status.events.get(Outcome::Accepted.label()).copied().unwrap_or(0);
        assert_eq!(accepted, acked, "{provider:?}: {:?}", status.events);
    }
}

#[test]
fn durable_acks_are_not_expected_from_a_server_without_a_log() {
    if !require("durable_acks_are_not_expected_from_a_server_without_a_log") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let _server = Server::start(&lab, Provider::Xdp, &[]).unwrap();
    let refused = Swarm::run(&lab, spec(Mode::Durable), |swarm| swarm.hello(WAIT)).unwrap_err();
    assert!(format!("{refused:#}").contains("durable"), "{refused:#}");
}

/// Plays the game in both ways; gives the events acknowledged as applied.
fn play_game(swarm: &mut Swarm) -> anyhow::Result<u64> {
    swarm.hello(WAIT)?;
    let mut applied = swarm.found(16, WAIT)?.tally.of(Outcome::Applied);
    let game = Game::new(WORLD, 50_000.0, Duration::from_millis(1));
    let mut sent_from = swarm.book().next_sequence();
    for pace in [Pace::Window(64), Pace::PerS { rate: 4_000.0, most: 40_000.0 }] {
        let run = swarm.game(&game, pace, Duration::from_millis(400), WAIT)?;
        let (tally, reads) = (&run.tally, &run.reads);
        assert!(tally.events > 0 && tally.acked() == tally.events, "{tally:?}");
        assert_eq!((tally.alien, tally.doubled, tally.refused, run.unanswered), (0, 0, 0, 0));
        // What was repeated after its answer was known as a duplicate.
        assert!(run.repeated > 0 && tally.acked_again > 0, "{run:?}");
        let sent_to = swarm.book().next_sequence();
        let malformed = (sent_from..sent_to).filter(|n| game.play(*n).malformed).count() as u64;
        assert_eq!(tally.of(Outcome::Malformed), malformed);
        assert!(run.hottest * 10 >= tally.events, "{} of {}", run.hottest, tally.events);
        assert!(reads.sent > 0);
        let ends = reads.answered + reads.other + reads.turned_away + reads.lost;
        assert_eq!((ends, reads.other), (reads.sent, 0), "{reads:?}");
        applied += tally.of(Outcome::Applied);
        sent_from = sent_to;
    }
    assert_eq!(swarm.undelivered(), 0);
    Ok(applied)
}

#[test]
fn mixed_traffic_is_decided_once_and_read() {
    if !require("mixed_traffic_is_decided_once_and_read") {
        return;
    }
    let lab = Lab::new(LabSpec::with_queues(1)).unwrap();
    let dir = TempDir::new().unwrap();
    let data = dir.0.join("data");
    let sizes = Sizes { segment_bytes: 8 << 20, segments: 8, dedupe_keys_max: 2_000_000 };
    format(&data, &WORLD, &sizes).unwrap();
    let node = Node::start(&lab, Provider::Xdp, Some(&data)).unwrap();
    let applied = Swarm::run(&lab, spec(Mode::Durable), play_game).unwrap();
    // Lanes say once a second what they have judged.
    let started = std::time::Instant::now();
    let judged = loop {
        let judged = number(&node.status(&lab).unwrap(), "/log/judged/applied");
        if judged >= applied || started.elapsed() > WAIT {
            break judged;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(judged, applied);
}
