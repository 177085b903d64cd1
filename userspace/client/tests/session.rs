//! Sessions against a server that loses, doubles and delays: order, retries,
//! what is held back, and reads that show what was written.

mod fake;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{Fake, Got, ack, answer, applied, bare, busy, refused};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::query::QueryStatus;
use veltrix_client::codec::Random;
use veltrix_client::{
    Abandoned, Banked, Claimed, Client, ClientBuilder, Done, Event, GameSession, Joined, Opened,
    Outcome, Passed, Pending, Pinged, PowerUp, Powered, Refusal, SendError,
};

const HUNT: u64 = 42;
const PLAYER: u64 = 7;

/// Waits for answers long enough that a busy machine causes no retry.
fn patient() -> ClientBuilder {
    Client::builder().deadline(Duration::from_secs(1)).retry_base(Duration::from_millis(100))
}

fn claim(cell: u64) -> Event {
    Event::claim(PLAYER, cell)
}

async fn submit(session: &GameSession, cells: std::ops::Range<u64>) -> Vec<Pending> {
    let mut pending = Vec::new();
    for cell in cells {
        pending.push(session.submit(claim(cell)).await.expect("taken over"));
    }
    pending
}

/// Applies each key once, in the order of arrival, and remembers the order.
#[derive(Default)]
struct Applies {
    order: Arc<Mutex<Vec<u64>>>,
    known: HashMap<[u8; 16], ()>,
}

impl Applies {
    /// Applies what is new; the ack says which were known.
    fn apply(&mut self, got: &Got) -> Vec<u8> {
        let mut order = self.order.lock().expect("not poisoned");
        let mut outcomes = Vec::new();
        for (key, subject) in got.keys.iter().zip(&got.subjects) {
            let known = self.known.insert(*key, ()).is_some();
            if !known {
                order.push(*subject);
            }
            outcomes.push(Outcome::Applied.code() | if known { DUPLICATE_BIT } else { 0 });
        }
        ack(&[(got, outcomes)])
    }
}

#[tokio::test]
async fn an_answer_has_the_type_of_its_action() {
    let server = Fake::start(|got| {
        let last = &got[got.len() - 1];
        let code = match last.subjects[..] {
            [1] => Outcome::AlreadyClaimed.code() | DUPLICATE_BIT,
            _ => Outcome::NoKey.code(),
        };
        vec![ack(&[(last, vec![code; last.keys.len()])])]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    assert_eq!(session.epoch(), 0);
    let claimed = session.claim(1).await.expect("answered");
    let expected = Done { outcome: Claimed::AlreadyClaimed, epoch: 5, duplicate: true };
    assert_eq!((claimed, session.epoch()), (expected, 5));
    let opened = session.use_key(2).await.expect("answered");
    let expected = Done { outcome: Opened::NoKey, epoch: 9, duplicate: false };
    assert_eq!((opened, session.epoch()), (expected, 9));
    let power_up = PowerUp { item: 1, factor: 2, seconds: 60 };
    assert_eq!(session.power_up(&power_up).await.unwrap().outcome, Powered::NoItem);
    let other = Outcome::NoKey;
    assert_eq!(session.join(3).await.unwrap().outcome, Joined::Other(other));
    assert_eq!(session.checkpoint(1, 2).await.unwrap().outcome, Passed::Other(other));
    assert_eq!(session.abandon(4).await.unwrap().outcome, Abandoned::Other(other));
    assert_eq!(session.ping(5).await.unwrap().outcome, Pinged::Other(other));
    assert_eq!(session.deposit(6).await.unwrap().outcome, Banked::Other(other));
    assert_eq!(session.withdraw(7).await.unwrap().outcome, Banked::Other(other));
    let too_large = session.checkpoint(1 << 56, 0).await;
    assert!(matches!(too_large, Err(SendError::Quest { .. })), "{too_large:?}");
    let subjects: Vec<u64> = server.got().iter().flat_map(|got| got.subjects.clone()).collect();
    assert_eq!(subjects, [1, 2, 0, 0, 0x102, 4, 5, 0, 0]);
    assert!(server.got().iter().all(|datagram| datagram.header.domain == HUNT));
}

#[tokio::test]
async fn a_session_has_one_datagram_under_way() {
    // Nothing is answered before the first datagram came three times.
    let server = Fake::start(|got| {
        let last = &got[got.len() - 1];
        if got.len() < 3 { vec![] } else { vec![applied(last)] }
    })
    .await;
    let client = Client::connect(server.addr).await.expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    let pending = submit(&session, 0..60).await;
    for one in pending {
        assert_eq!(one.await.expect("applied").outcome, Outcome::Applied);
    }
    let got = server.got();
    assert_eq!(got[0].subjects, (0..24).collect::<Vec<_>>());
    assert!(got[..3].iter().all(|datagram| datagram.keys == got[0].keys), "{got:?}");
    let mut keys: Vec<_> = got.iter().map(|datagram| datagram.keys.clone()).collect();
    keys.dedup();
    assert_eq!(keys.iter().map(Vec::len).collect::<Vec<_>>(), [24, 24, 12], "in turn");
}

#[tokio::test]
async fn order_is_kept_on_a_bad_network() {
    // Requests and answers get lost, datagrams come twice and late.
    let mut applies = Applies::default();
    let order = applies.order.clone();
    let mut random = Random::new(1);
    let server = Fake::start(move |got| {
        let last = &got[got.len() - 1];
        let mut replies = Vec::new();
        if random.below(3) > 0 {
            replies.push(applies.apply(last));
        }
        if random.below(3) == 0 {
            replies.push(applies.apply(&got[random.below(got.len() as u64) as usize]));
        }
        replies.retain(|_| random.below(3) > 0);
        replies
    })
    .await;
    let client = Client::builder()
        .deadline(Duration::from_secs(60))
        .retry_cap(Duration::from_millis(4))
        .connect(server.addr)
        .await
        .expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    let mut random = Random::new(2);
    let (mut pending, mut next) = (Vec::new(), 0);
    for _ in 0..60 {
        let more = 1 + random.below(40);
        pending.extend(submit(&session, next..next + more).await);
        next += more;
        if random.below(2) == 0 {
            pending.pop().expect("just submitted").await.expect("applied");
        }
    }
    for one in pending {
        one.await.expect("applied");
    }
    assert_eq!(*order.lock().expect("not poisoned"), (0..next).collect::<Vec<_>>());
    let stats = client.close().await;
    assert_eq!(stats.events_acked, next);
    assert!(stats.retries > 0 && stats.duplicates > 0, "{stats:?}");
}

#[tokio::test]
async fn what_has_no_outcome_goes_first_again_and_nothing_overtakes_it() {
    // Deaf until told otherwise.
    #[derive(Clone, Copy)]
    enum Mood {
        Deaf,
        Refuses,
        Hears,
    }
    let mood = Arc::new(Mutex::new(Mood::Deaf));
    let set = |to: Mood| *mood.lock().expect("not poisoned") = to;
    let (its_mood, mut applies) = (mood.clone(), Applies::default());
    let order = applies.order.clone();
    let server = Fake::start(move |got| {
        let last = &got[got.len() - 1];
        match *its_mood.lock().expect("not poisoned") {
            Mood::Deaf => vec![],
            Mood::Refuses => vec![refused(&last.header, Refusal::DurableUnavailable)],
            Mood::Hears => vec![applies.apply(last)],
        }
    })
    .await;
    let deadline = Duration::from_millis(500);
    let client = Client::builder().deadline(deadline).connect(server.addr).await.expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    for one in submit(&session, 0..30).await.into_iter().enumerate() {
        let (index, result) = (one.0, one.1.await);
        match result {
            Err(SendError::Deadline { .. }) if index < 24 => {}
            Err(SendError::NotSent) if index >= 24 => {}
            other => panic!("event {index}: {other:?}"),
        }
    }
    // Still no answer: what comes now is held back, as it is when the try is refused,
    // for an earlier one may have arrived.
    assert_eq!(session.claim(30).await, Err(SendError::NotSent));
    set(Mood::Refuses);
    assert!(matches!(session.claim(31).await, Err(SendError::Refused(_))));
    let got = server.got();
    assert!(got.iter().all(|datagram| datagram.keys == got[0].keys), "only the first was sent");
    assert_eq!(session.epoch(), 0);

    set(Mood::Hears);
    let claimed = session.claim(32).await.expect("applied");
    assert_eq!((claimed.outcome, claimed.duplicate), (Claimed::Won, false));
    let expected: Vec<_> = (0..24).chain([32]).collect();
    assert_eq!(*order.lock().expect("not poisoned"), expected);
    let stats = client.close().await;
    let counts = (stats.events_submitted, stats.events_acked, stats.events_timed_out);
    assert_eq!(counts, (33, 1, 24), "{stats:?}");
    assert_eq!((stats.events_not_sent, stats.events_refused), (7, 1), "{stats:?}");
}

#[tokio::test]
async fn a_session_that_waits_holds_up_no_other() {
    let server = Fake::start(|got| {
        let last = &got[got.len() - 1];
        if last.subjects[0] == 1 { vec![] } else { vec![applied(last)] }
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let hunt = client.domain(HUNT);
    let (waits, plays) = (hunt.session(PLAYER), hunt.session(PLAYER));
    let waiting = waits.submit(claim(1)).await.expect("taken over");
    for cell in 2..20 {
        plays.claim(cell).await.expect("applied");
    }
    hunt.send(claim(20)).await.expect("applied");
    assert!(matches!(waiting.await, Err(SendError::Deadline { .. })));
}

#[tokio::test]
async fn busy_and_turned_away_events_are_waited_out_in_order() {
    let mut applies = Applies::default();
    let order = applies.order.clone();
    let server = Fake::start(move |got| {
        let last = &got[got.len() - 1];
        match got.len() {
            1 => vec![busy(&last.header, 1_000)],
            2 => vec![ack(&[(last, vec![Outcome::Overloaded.code(); last.keys.len()])])],
            _ => vec![applies.apply(last)],
        }
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    for one in submit(&session, 0..30).await {
        assert_eq!(one.await.expect("applied").outcome, Outcome::Applied);
    }
    assert_eq!(*order.lock().expect("not poisoned"), (0..30).collect::<Vec<_>>());
    let got = server.got();
    assert!(got[..3].iter().all(|datagram| datagram.keys == got[0].keys));
    assert_eq!(client.close().await.busy, 1);
}

#[tokio::test]
async fn a_refusal_ends_its_events_only() {
    let server = Fake::start(|got| {
        let last = &got[got.len() - 1];
        if got.len() == 1 {
            vec![refused(&last.header, Refusal::DurableUnavailable)]
        } else {
            vec![applied(last)]
        }
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    let results = session.send_all((0..25).map(claim)).await;
    assert!(results[..24].iter().all(|one| matches!(one, Err(SendError::Refused(_)))));
    assert!(results[24].is_ok(), "{results:?}");
}

#[tokio::test]
async fn events_that_are_not_the_sessions_or_fit_nowhere_are_refused_before_they_leave() {
    let server = Fake::start(|got| vec![applied(&got[got.len() - 1])]).await;
    let client = patient().payload_bytes_max(200).connect(server.addr).await.expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    let stranger = SendError::Player { player: 8, session_player: PLAYER };
    assert_eq!(session.send(Event::claim(8, 1)).await, Err(stranger));
    assert_eq!(session.send(Event::new(PLAYER, 0, 1)).await, Err(SendError::KindZero));
    let long = SendError::DatagramTooSmall { payload_bytes: 105, datagram_bytes_max: 200 };
    assert_eq!(session.send(claim(1).payload(vec![0; 105])).await, Err(long));
    session.send(claim(1).payload(vec![0; 104])).await.expect("fits exactly");
    assert_eq!(client.close().await.events_submitted, 1);
}

#[tokio::test]
async fn room_in_flight_is_bounded_for_sessions_too() {
    let server = Fake::start(|_| vec![]).await;
    let client = Client::builder()
        .deadline(Duration::from_millis(300))
        .events_in_flight_max(2)
        .connect(server.addr)
        .await
        .expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    let first = submit(&session, 0..2).await;
    let waited = tokio::time::timeout(Duration::from_millis(50), session.submit(claim(2))).await;
    assert!(waited.is_err(), "submit did not wait for room");
    for one in first {
        assert!(one.await.is_err());
    }
    // Their places are free again, though their datagram is kept.
    assert_eq!(session.claim(3).await, Err(SendError::NotSent));
}

#[tokio::test]
async fn reads_ask_for_what_the_session_was_answered() {
    let server = Fake::answering(|asked| {
        let last = &asked[asked.len() - 1];
        let entries: Vec<_> =
            last.queries.iter().map(|query| bare(query, QueryStatus::NotFound)).collect();
        vec![answer(&last.header, &entries)]
    })
    .await;
    let client = patient().connect(server.addr).await.expect("connects");
    let hunt = client.domain(HUNT);
    let (session, other) = (hunt.session(PLAYER), hunt.at_least(3).session(8));
    session.me().await.expect("answered");
    session.claim(1).await.expect("applied");
    assert_eq!(session.me().await.expect("answered").value, None);
    session.rank(2).await.expect("answered");
    session.cell(1).await.expect("answered");
    session.clone().hunt().summary().await.expect("answered");
    other.me().await.expect("answered");
    let epochs: Vec<_> = server.asked().iter().map(|asked| asked.min_epoch).collect();
    assert_eq!(epochs, [0, 9, 9, 9, 9, 3]);
}

#[tokio::test]
async fn close_and_drop_take_nothing_back() {
    let mut turn = 0;
    let mut applies = Applies::default();
    let order = applies.order.clone();
    let server = Fake::start(move |got| {
        turn += 1;
        if turn % 2 == 0 { vec![applies.apply(&got[got.len() - 1])] } else { vec![] }
    })
    .await;
    let client = Client::connect(server.addr).await.expect("connects");
    let session = client.domain(HUNT).session(PLAYER);
    drop(submit(&session, 0..60).await);
    drop(session);
    let second = client.domain(HUNT).session(PLAYER);
    let pending = submit(&second, 60..120).await;
    let stats = client.close().await;
    assert_eq!((stats.events_submitted, stats.events_acked), (120, 120));
    for one in pending {
        one.await.expect("settled before close returned");
    }
    assert_eq!(second.claim(1).await, Err(SendError::Closed));
    let order = order.lock().expect("not poisoned").clone();
    let of = |range: std::ops::Range<u64>| -> Vec<u64> {
        order.iter().copied().filter(|cell| range.contains(cell)).collect()
    };
    assert_eq!(of(0..60), (0..60).collect::<Vec<_>>());
    assert_eq!(of(60..120), (60..120).collect::<Vec<_>>());
}
