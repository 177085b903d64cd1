//! The swarm against a server without a log: what it counts from acks is what
//! the server counted.

use std::time::Duration;

use veltrix_abi::Outcome;
use veltrix_abi::wire::Mode;
use veltrix_tests::bench::rig::PORT;
use veltrix_tests::bench::service::Provider;
use veltrix_tests::lab::{Lab, LabSpec, Receiver, ReceiverKind, Side};
use veltrix_tests::server::{Server, require};
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
