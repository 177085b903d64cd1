//! `GET /v1/stream`: what is applied, as it happens.
//!
//! ```text
//!   lanes' rings -> tell, ten times a second -> broadcast -> each connection's lines
//!                                               totals, once a second, are asked for
//! ```
//!
//! Lanes sample only while somebody watches. A connection that does not keep up loses
//! lines and is told how many.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior};
use veltrix_abi::Outcome;
use veltrix_abi::kinds::EventKind;
use veltrix_abi::outcomes::DUPLICATE_BIT;

use super::App;
use super::params::Params;
use super::refused::Refused;
use crate::base::clock::monotonic_ns;
use crate::lane::samples::{Sample, WINDOW_NS};
use crate::run::server::Server;
use crate::run::state::{Samples, Totals};

/// Pause between two lines of totals.
const TOTALS_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two lines of samples.
const SAMPLES_INTERVAL: Duration = Duration::from_nanos(WINDOW_NS);

/// Samples of a line; the dearest stay. Some 300 bytes each.
pub const ROWS_MAX: usize = 128;

/// Lines that a connection may be behind before it loses some.
const LINES_BEHIND_MAX: usize = 8;

/// Tells all who watch.
pub type Sender = broadcast::Sender<Arc<Lot>>;

/// For a server that nobody watches yet.
#[must_use]
pub fn sender() -> Sender {
    broadcast::Sender::new(LINES_BEHIND_MAX)
}

/// What lanes sampled between two lines.
#[derive(Debug)]
pub struct Lot {
    samples: Samples,
    taken_ns: u64,
    /// The line for those who watch every hunt: made once.
    whole: OnceLock<String>,
}

/// Hands on what lanes sample, for ever; the server's thread runs it.
pub async fn tell(sender: Option<Sender>, server: Rc<Server>) {
    let (Some(sender), Some(live)) = (sender, server.live()) else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(SAMPLES_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let samples = live.samples(sender.receiver_count() > 0);
        if !samples.rows.is_empty() || samples.lost > 0 {
            let taken_ns = monotonic_ns();
            let lot = Lot { samples, taken_ns, whole: OnceLock::new() };
            // Whoever watched has gone meanwhile.
            let _ = sender.send(Arc::new(lot));
        }
    }
}

/// Ids and epochs are strings where 64 bits may be in use: many readers of JSON keep
/// 53 only.
#[derive(Serialize)]
struct Row {
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_epoch: Option<u64>,
    hunt: String,
    kind: Option<&'static str>,
    player: String,
    subject: String,
    outcome: Option<&'static str>,
    duplicate: bool,
    age_ns: u64,
    after_sealed_ns: After,
}

/// Nanoseconds from the batch being sealed.
#[derive(Serialize)]
struct After {
    submitted: u64,
    durable: u64,
    committed: u64,
    applied: u64,
}

impl Row {
    fn of(sample: &Sample, taken_ns: u64) -> Self {
        let is_duplicate = sample.outcome & DUPLICATE_BIT != 0;
        let after = |stamp: u64| stamp.saturating_sub(sample.sealed_ns);
        Self {
            epoch: sample.epoch,
            first_epoch: is_duplicate.then_some(sample.first_epoch),
            hunt: sample.domain.to_string(),
            kind: EventKind::from_code(sample.kind).map(EventKind::label),
            player: sample.player.to_string(),
            subject: sample.subject.to_string(),
            outcome: Outcome::from_code(sample.outcome & !DUPLICATE_BIT).map(Outcome::label),
            duplicate: is_duplicate,
            age_ns: taken_ns.saturating_sub(sample.applied_ns),
            after_sealed_ns: After {
                submitted: after(sample.submitted_ns),
                durable: after(sample.durable_ns),
                committed: after(sample.committed_ns),
                applied: after(sample.applied_ns),
            },
        }
    }
}

impl Lot {
    /// The line for those who watch one hunt or all; `None` when there is nothing to
    /// say.
    fn line(&self, hunt: Option<u64>) -> Option<String> {
        match hunt {
            None => Some(self.whole.get_or_init(|| self.text(&|_| true)).clone()),
            Some(hunt) => {
                let is_its = |sample: &Sample| sample.domain == hunt;
                let any = self.samples.rows.iter().any(is_its) || self.samples.lost > 0;
                any.then(|| self.text(&is_its))
            }
        }
    }

    fn text(&self, is_wanted: &dyn Fn(&Sample) -> bool) -> String {
        let wanted = self.samples.rows.iter().filter(|sample| is_wanted(sample));
        let left_out = wanted.clone().skip(ROWS_MAX).count() as u64;
        let rows: Vec<Row> =
            wanted.take(ROWS_MAX).map(|sample| Row::of(sample, self.taken_ns)).collect();
        json!({ "samples": rows, "left_out": left_out, "lost": self.samples.lost }).to_string()
    }
}

/// One connection.
struct Watcher {
    app: App,
    lots: broadcast::Receiver<Arc<Lot>>,
    hunt: Option<u64>,
    judged: BTreeMap<String, u64>,
    next_totals: Instant,
}

impl Watcher {
    /// The next line; `None` when the server stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.next_totals) => return self.totals().await,
                lot = self.lots.recv() => match lot {
                    Ok(lot) => {
                        if let Some(line) = lot.line(self.hunt) {
                            return Some(Event::default().event("samples").data(line));
                        }
                    }
                    Err(RecvError::Lagged(lines)) => {
                        let line = json!({ "lines": lines }).to_string();
                        return Some(Event::default().event("missed").data(line));
                    }
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    async fn totals(&mut self) -> Option<Event> {
        let totals = self.app.asks.totals().await.ok()?;
        let line = line(&totals, &self.judged).to_string();
        self.judged = totals.judged;
        self.next_totals = Instant::now() + TOTALS_INTERVAL;
        Some(Event::default().event("totals").data(line))
    }
}

/// `GET /v1/stream`.
///
/// # Errors
///
/// As [`super::ops::status`]; the server has no log.
pub async fn stream(
    State(app): State<App>,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    params.only(&["hunt"])?;
    let hunt = params.text("hunt").map(|_| params.id("hunt", u64::MAX)).transpose()?;
    // Before lanes are told: nobody is to find that nobody watches. What cannot be had
    // is refused now, with its status code.
    let lots = app.samples.subscribe();
    let judged = app.asks.watch().await?.judged;
    let next_totals = Instant::now() + TOTALS_INTERVAL;
    let watcher = Watcher { app, lots, hunt, judged, next_totals };
    let lines = unfold(watcher, async |mut watcher| {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(lines))
}

/// A line of totals: what was judged since `before`.
fn line(totals: &Totals, before: &BTreeMap<String, u64>) -> Value {
    let since: BTreeMap<&str, u64> = totals
        .judged
        .iter()
        .map(|(outcome, now)| {
            let before = before.get(outcome).copied().unwrap_or(0);
            (outcome.as_str(), now.saturating_sub(before))
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    json!({
        "epoch": totals.applied_epoch,
        "committed_epoch": totals.committed_epoch,
        "log_time_ns": totals.log_time_ns,
        "events": since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(domain: u64, player: u64) -> Sample {
        Sample {
            epoch: 4,
            domain,
            player,
            subject: u64::MAX,
            kind: EventKind::Claim.code(),
            outcome: Outcome::Applied.code(),
            sealed_ns: 10,
            submitted_ns: 11,
            durable_ns: 20,
            committed_ns: 21,
            applied_ns: 30,
            ..Sample::default()
        }
    }

    fn lot(rows: Vec<Sample>, lost: u64) -> Lot {
        Lot { samples: Samples { rows, lost }, taken_ns: 100, whole: OnceLock::new() }
    }

    fn line_of(lot: &Lot, hunt: Option<u64>) -> Value {
        serde_json::from_str(&lot.line(hunt).unwrap()).unwrap()
    }

    #[test]
    fn ids_are_strings_and_times_count_from_the_seal() {
        let duplicate = Sample {
            outcome: Outcome::NotFound.code() | DUPLICATE_BIT,
            first_epoch: 3,
            kind: 999,
            ..sample(7, u64::MAX)
        };
        let line = line_of(&lot(vec![sample(7, 1), duplicate], 5), None);
        let after = json!({ "submitted": 1, "durable": 10, "committed": 11, "applied": 20 });
        let max = "18446744073709551615";
        let first = json!({
            "epoch": 4, "hunt": "7", "kind": "claim", "player": "1", "subject": max,
            "outcome": "applied", "duplicate": false, "age_ns": 70, "after_sealed_ns": after,
        });
        let second = json!({
            "epoch": 4, "first_epoch": 3, "hunt": "7", "kind": null, "player": max, "subject": max,
            "outcome": "not-found", "duplicate": true, "age_ns": 70, "after_sealed_ns": after,
        });
        assert_eq!(line, json!({ "samples": [first, second], "left_out": 0, "lost": 5 }));
    }

    #[test]
    fn a_line_has_room_for_so_many_and_a_hunt_for_its_own() {
        let mut rows: Vec<Sample> = (0..ROWS_MAX as u64 + 3).map(|n| sample(1, n)).collect();
        rows.push(sample(2, 9));
        let lot = lot(rows, 0);
        let all = line_of(&lot, None);
        assert_eq!(
            (all["samples"].as_array().unwrap().len(), &all["left_out"]),
            (ROWS_MAX, &json!(4))
        );
        let second = line_of(&lot, Some(2));
        assert_eq!(second["samples"][0]["player"], "9");
        assert_eq!(
            (second["samples"].as_array().unwrap().len(), &second["left_out"]),
            (1, &json!(0))
        );
        assert!(lot.line(Some(3)).is_none());
    }
}
