//! The client against a server that loses, doubles, delays and damages.

mod fake;

use std::time::{Duration, Instant};

use fake::{Fake, LOG_TIME_NS, ack, applied, busy, refused};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_client::{
    Client, ClientBuilder, ConnectError, Event, Mode, Outcome, Refusal, SendError,
};

/// Waits for answers long enough that a busy machine causes no retry.
fn patient() -> ClientBuilder {
    Client::builder().deadline(Duration::from_secs(1)).retry_base(Duration::from_millis(100))
}

/// Retries as soon as the defaults do.
fn quick() -> ClientBuilder {
    Client::builder().deadline(Duration::from_millis(500))
}

fn event(subject: u64) -> Event {
    Event::new(7, 1, subject)
}

#[tokio::test]
async fn one_event_gets_its_receipt_and_a_key_of_log_time() {
    let server = Fake::start(|got| vec![applied(&got[got.len() - 1])]).await;
    let client = patient().connect(server.addr).await.expect("connects");
    assert_eq!(client.server().partitions(), 64);
    let receipt = client.domain(42).send(event(1)).await.expect("applied");
    assert_eq!((receipt.outcome, receipt.duplicate, receipt.epoch), (Outcome::Applied, false, 9));

    let got = server.got();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].header.domain, 42);
    assert_eq!(got[0].mode, Mode::Durable);
    let key = got[0].keys[0];
    assert_eq!(key[6] >> 4, 7);
    let key_ms = key[..6].iter().fold(0_u64, |ms, b| ms << 8 | u64::from(*b));
    let lead_ms = key_ms - LOG_TIME_NS / 1_000_000;
    assert!(lead_ms < 2_000, "key leads log time by {lead_ms} ms");

    let stats = client.close().await;
    assert_eq!((stats.events_submitted, stats.events_acked), (1, 1));
}

#[tokio::test]
async fn events_of_a_domain_share_datagrams_and_those_of_two_do_not() {
    let server = Fake::start(|got| vec![applied(&got[got.len() - 1])]).await;
    let client = patient().connect(server.addr).await.expect("connects");
    let (one, two) = (client.domain(1), client.domain(2));
    let (first, second) =
        tokio::join!(one.send_all((0..60).map(event)), two.send_all((100..110).map(event)),);
    assert!(first.iter().chain(&second).all(Result::is_ok));
    let got = server.got();
    for datagram in &got {
        assert!(datagram.keys.len() <= 24);
        let low = datagram.subjects.iter().all(|s| *s < 60);
        let high = datagram.subjects.iter().all(|s| *s >= 100);
        assert!(if datagram.header.domain == 1 { low } else { high });
    }
    assert!(got.len() <= 8, "70 events took {} datagrams", got.len());
    let subjects: Vec<u64> =
        got.iter().filter(|d| d.header.domain == 1).flat_map(|d| d.subjects.clone()).collect();
    assert_eq!(subjects, (0..60).collect::<Vec<_>>(), "order within a domain is kept");
}

#[tokio::test]
async fn lost_tries_are_repeated_with_the_same_keys_and_new_sequences() {
    // The first three tries are lost on the way.
    let server =
        Fake::start(|got| if got.len() < 4 { vec![] } else { vec![applied(&got[3])] }).await;
    let client = quick().connect(server.addr).await.expect("connects");
    client.domain(1).send(event(1)).await.expect("applied");
    let got = server.got();
    assert!(got.iter().all(|d| d.keys == got[0].keys));
    let mut sequences: Vec<u64> = got.iter().map(|d| d.header.sequence).collect();
    sequences.dedup();
    assert_eq!(sequences.len(), got.len(), "a sequence was used twice");
    assert!(client.close().await.retries >= 3);
}

#[tokio::test]
async fn a_late_ack_of_an_earlier_try_counts() {
    // Only the first try is ever answered, and that after the second arrived.
    let server =
        Fake::start(|got| if got.len() == 2 { vec![applied(&got[0])] } else { vec![] }).await;
    let client = quick().connect(server.addr).await.expect("connects");
    client.domain(1).send(event(1)).await.expect("the first try's ack counts");
    assert_eq!(client.close().await.events_acked, 1);
}

#[tokio::test]
async fn replies_that_come_twice_settle_once() {
    let server = Fake::start(|got| {
        let reply = applied(&got[got.len() - 1]);
        vec![reply.clone(), reply]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    client.domain(1).send(event(1)).await.expect("applied");
    client.domain(1).send(event(2)).await.expect("applied");
    let stats = client.close().await;
    assert_eq!(stats.events_acked, 2);
    assert!(stats.replies_late >= 1);
}

#[tokio::test]
async fn duplicates_carry_their_first_outcome_and_epoch() {
    let server = Fake::start(|got| {
        let got = &got[got.len() - 1];
        let mut outcomes = vec![Outcome::Applied.code(); got.keys.len()];
        outcomes[0] = Outcome::AlreadyClaimed.code() | DUPLICATE_BIT;
        vec![ack(&[(got, outcomes)])]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let results = client.domain(1).send_all([event(1), event(2)]).await;
    let first = results[0].as_ref().expect("outcome");
    assert_eq!((first.outcome, first.duplicate, first.epoch), (Outcome::AlreadyClaimed, true, 5));
    let second = results[1].as_ref().expect("outcome");
    assert_eq!((second.outcome, second.duplicate, second.epoch), (Outcome::Applied, false, 9));
}

#[tokio::test]
async fn busy_is_waited_out() {
    let server = Fake::start(|got| match got.len() {
        1 => vec![busy(&got[0].header, 150_000)],
        n => vec![applied(&got[n - 1])],
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let started = Instant::now();
    client.domain(1).send(event(1)).await.expect("applied");
    assert!(
        started.elapsed() >= Duration::from_millis(50),
        "came back after {:?}",
        started.elapsed()
    );
    let stats = client.close().await;
    assert_eq!((stats.busy, stats.datagrams_sent), (1, 2));
}

#[tokio::test]
async fn refused_is_a_typed_error_and_not_retried() {
    let server =
        Fake::start(|got| vec![refused(&got[got.len() - 1].header, Refusal::DurableUnavailable)])
            .await;
    let client = patient().connect(server.addr).await.expect("connects");
    match client.domain(1).send(event(1)).await {
        Err(SendError::Refused(why)) => assert_eq!(why.reason, Some(Refusal::DurableUnavailable)),
        other => panic!("{other:?}"),
    }
    let stats = client.close().await;
    assert_eq!((stats.events_refused, stats.datagrams_sent), (1, 1));
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let server = Fake::start(|_| vec![]).await;
    let client = quick().connect(server.addr).await.expect("connects");
    let started = Instant::now();
    match client.domain(1).send(event(1)).await {
        Err(SendError::Deadline { tries, busy: 0 }) => assert!(tries > 2, "{tries} tries"),
        other => panic!("{other:?}"),
    }
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(499) && waited < Duration::from_secs(2), "{waited:?}");
    assert_eq!(client.close().await.events_timed_out, 1);
}

#[tokio::test]
async fn reordered_and_coalesced_acks_find_their_events() {
    // Nothing until three datagrams wait; then one ack over them, newest first.
    let server = Fake::start(|got| {
        let fresh: Vec<_> =
            (0..3).map(|d| got.iter().rev().find(|g| g.header.domain == d)).collect();
        let Some(fresh) = fresh.into_iter().collect::<Option<Vec<_>>>() else {
            return vec![];
        };
        let codes = [Outcome::Applied, Outcome::Expired, Outcome::NoKey];
        let entries: Vec<_> = fresh
            .into_iter()
            .map(|g| (g, vec![codes[g.header.domain as usize].code(); g.keys.len()]))
            .rev()
            .collect();
        vec![ack(&entries)]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let domains = [client.domain(0), client.domain(1), client.domain(2)];
    let (a, b, c) = tokio::join!(
        domains[0].send(event(1)),
        domains[1].send(event(2)),
        domains[2].send(event(3)),
    );
    let outcomes = [a, b, c].map(|r| r.expect("outcome").outcome);
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Expired, Outcome::NoKey]);
}

#[tokio::test]
async fn foreign_damaged_and_misfit_replies_are_counted_and_change_nothing() {
    let server = Fake::start(|got| {
        let got = &got[got.len() - 1];
        let mut stranger = got.clone();
        stranger.header.session ^= 1;
        let mut damaged = applied(got);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let wrong_count = ack(&[(got, vec![Outcome::Applied.code(); got.keys.len() + 1])]);
        let mut weaker = got.clone();
        weaker.mode = Mode::None;
        let truncated = applied(got)[..60].to_vec();
        vec![
            applied(&stranger),
            damaged,
            wrong_count,
            applied(&weaker),
            truncated,
            vec![],
            applied(got),
        ]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let receipt = client.domain(1).send(event(1)).await.expect("applied");
    assert_eq!(receipt.epoch, 9);
    let stats = client.close().await;
    assert_eq!(stats.replies_foreign, 1);
    assert_eq!(stats.replies_invalid, 5);
}

#[tokio::test]
async fn events_turned_away_go_again_alone_with_their_keys() {
    let server = Fake::start(|got| {
        let n = got.len();
        let mut outcomes = vec![Outcome::Applied.code(); got[n - 1].keys.len()];
        if n == 1 {
            outcomes[1] = Outcome::Overloaded.code();
        }
        vec![ack(&[(&got[n - 1], outcomes)])]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let results = client.domain(1).send_all((0..3).map(event)).await;
    assert!(results.iter().all(|r| r.as_ref().is_ok_and(|r| r.outcome == Outcome::Applied)));
    let got = server.got();
    assert_eq!(got[0].keys.len(), 3);
    assert_eq!(got[1].keys, [got[0].keys[1]]);
}

#[tokio::test]
async fn a_mode_the_server_lacks_is_named() {
    let server = Fake::with_modes(1, |_| vec![]).await;
    match Client::connect(server.addr).await {
        Err(ConnectError::ModeUnavailable { wanted: Mode::Durable, offered, .. }) => {
            assert_eq!(offered, "none");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_there_is_said_within_the_timeout() {
    let closed =
        std::net::UdpSocket::bind("127.0.0.1:0").expect("bind").local_addr().expect("addr");
    let error = Client::builder()
        .connect_timeout(Duration::from_millis(250))
        .connect(closed)
        .await
        .expect_err("nobody listens");
    assert!(matches!(error, ConnectError::NoAnswer { port_closed: true, .. }), "{error}");
}

#[tokio::test]
async fn settings_out_of_range_are_refused_by_name() {
    for (builder, name) in [
        (Client::builder().payload_bytes_max(95), "payload_bytes_max"),
        (Client::builder().payload_bytes_max(3457), "payload_bytes_max"),
        (Client::builder().deadline(Duration::ZERO), "deadline"),
        (Client::builder().retry_base(Duration::ZERO), "retry_base"),
        (Client::builder().retry_cap(Duration::from_millis(1)), "retry_cap"),
        (Client::builder().events_in_flight_max(0), "events_in_flight_max"),
    ] {
        match builder.connect("127.0.0.1:1").await {
            Err(ConnectError::Setting { key, .. }) => assert_eq!(key, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn events_that_cannot_be_are_refused_before_they_leave() {
    let server = Fake::start(|got| vec![applied(&got[got.len() - 1])]).await;
    let client = patient().payload_bytes_max(200).connect(server.addr).await.expect("connects");
    let domain = client.domain(1);
    assert_eq!(domain.send(Event::new(1, 0, 1)).await, Err(SendError::KindZero));
    assert_eq!(
        domain.send(event(1).payload(vec![0; 513])).await,
        Err(SendError::PayloadTooLong { payload_bytes: 513 })
    );
    assert_eq!(
        domain.send(event(1).payload(vec![0; 105])).await,
        Err(SendError::DatagramTooSmall { payload_bytes: 105, datagram_bytes_max: 200 })
    );
    let key = veltrix_client::Uuid::nil();
    assert_eq!(domain.send(event(1).key(key)).await, Err(SendError::KeyNotV7 { key }));
    domain.send(event(1).payload(vec![0; 104])).await.expect("fits exactly");
}

#[tokio::test]
async fn room_in_flight_is_bounded() {
    let server = Fake::start(|_| vec![]).await;
    let client = quick().events_in_flight_max(2).connect(server.addr).await.expect("connects");
    let domain = client.domain(1);
    let _first = domain.try_send(event(1)).expect("room");
    let _second = domain.try_send(event(2)).expect("room");
    assert_eq!(domain.try_send(event(3)).err(), Some(SendError::InFlightFull));
    let waited = tokio::time::timeout(Duration::from_millis(50), domain.send(event(3))).await;
    assert!(waited.is_err(), "send did not wait for room");
    // The deadline of the first two frees their places.
    let third = domain.send(event(3)).await;
    assert!(matches!(third, Err(SendError::Deadline { .. })));
}

#[tokio::test]
async fn close_settles_what_was_taken_over_and_refuses_the_rest() {
    let server = Fake::start(|got| {
        let got = &got[got.len() - 1];
        if got.header.sequence.is_multiple_of(2) { vec![] } else { vec![applied(got)] }
    })
    .await;
    let client = quick().connect(server.addr).await.expect("connects");
    let domain = client.domain(1);
    let mut pending = Vec::new();
    for subject in 0..100 {
        pending.push(domain.submit(event(subject)).await.expect("taken over"));
    }
    let stats = client.close().await;
    assert_eq!((stats.events_submitted, stats.events_acked), (100, 100));
    for one in pending {
        one.await.expect("settled before close returned");
    }
    assert_eq!(domain.send(event(1)).await, Err(SendError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_loses_no_event() {
    // One in three datagrams is lost, one in three answered twice.
    let mut turn = 0_u32;
    let server = Fake::start(move |got| {
        turn += 1;
        let reply = applied(&got[got.len() - 1]);
        match turn % 3 {
            0 => vec![],
            1 => vec![reply],
            _ => vec![reply.clone(), reply],
        }
    })
    .await;
    let client = Client::connect(server.addr).await.expect("connects");
    let tasks: Vec<_> = (0..8)
        .map(|domain| {
            let domain = client.domain(domain);
            tokio::spawn(async move {
                for subject in 0..100 {
                    domain.send(event(subject)).await.expect("applied");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let stats = client.close().await;
    assert_eq!(stats.events_acked, 800);
    assert!(stats.retries > 0);
}
