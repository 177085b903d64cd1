//! For operators and their tools: probes, status, metrics, consistency, the
//! stream.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::{Value, json};

use super::params::Params;
use super::refused::Refused;
use super::{App, ROUTES};
use crate::admin::prometheus;
use crate::admin::status::Status;
use crate::run::state::Totals;

/// Pause between two lines of the stream.
const STREAM_INTERVAL: Duration = Duration::from_secs(1);

/// `GET /`.
///
/// # Errors
///
/// Parameters; so for all of these.
pub async fn routes(params: Params) -> Result<Json<Value>, Refused> {
    params.only(&[])?;
    let routes: Vec<Value> = ROUTES
        .iter()
        .map(|(method, path, what)| json!({ "method": method, "path": path, "what": what }))
        .collect();
    Ok(Json(json!({ "version": env!("CARGO_PKG_VERSION"), "routes": routes })))
}

/// `GET /livez`.
pub async fn livez() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /readyz`.
///
/// # Errors
///
/// The server starts, stops, or takes no events for the reason given.
pub async fn readyz(State(app): State<App>) -> Result<Json<Value>, Refused> {
    let totals = app.asks.totals().await.map_err(|refused| refused.as_unready())?;
    match totals.unready {
        None => Ok(Json(json!({ "ready": true, "epoch": totals.applied_epoch }))),
        Some(why) => Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}"),
            "`veltrix status` and the server's log say more",
        )),
    }
}

/// `GET /status`.
///
/// # Errors
///
/// The server starts or stops.
pub async fn status(State(app): State<App>, params: Params) -> Result<Json<Status>, Refused> {
    params.only(&[])?;
    Ok(Json(*app.asks.status().await?))
}

/// `GET /metrics`.
///
/// # Errors
///
/// As [`status`].
pub async fn metrics(State(app): State<App>, params: Params) -> Result<Response, Refused> {
    params.only(&[])?;
    let text = prometheus::text(&*app.asks.status().await?);
    Ok(([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response())
}

/// `GET /consistency`. Each lane is asked, as any read asks it: what it says is what
/// a read would show.
///
/// # Errors
///
/// As [`status`]; the server has no log; a lane does not answer.
pub async fn consistency(State(app): State<App>, params: Params) -> Result<Json<Value>, Refused> {
    params.only(&[])?;
    let totals = app.asks.totals().await?;
    let mut lanes = Vec::new();
    let mut oldest_ns = 0;
    for (lane, partitions) in totals.lanes.iter().enumerate() {
        // A lane without partitions shows nothing.
        let Some(partition) = partitions.first() else { continue };
        let (epoch, age_ns) = app.asks.shown(*partition).await?;
        oldest_ns = oldest_ns.max(age_ns);
        lanes.push(json!({
            "lane": lane,
            "partitions": partitions.len(),
            "applied_epoch": epoch,
            "age_ns": age_ns,
        }));
    }
    Ok(Json(json!({
        "last_epoch": totals.last_epoch,
        "committed_epoch": totals.committed_epoch,
        "applied_epoch": totals.applied_epoch,
        "log_time_ns": totals.log_time_ns,
        "age_ns": oldest_ns,
        "lanes": lanes,
    })))
}

/// `GET /v1/stream`.
///
/// # Errors
///
/// As [`status`]; the server has no log.
pub async fn stream(
    State(app): State<App>,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    params.only(&[])?;
    // What cannot be had is refused now, with its status code.
    let before = app.asks.totals().await?.judged;
    let lines = unfold((app, before), async |(app, before)| {
        tokio::time::sleep(STREAM_INTERVAL).await;
        // A server that stops ends its streams.
        let totals = app.asks.totals().await.ok()?;
        let event = Event::default().event("totals").data(line(&totals, &before).to_string());
        Some((Ok(event), (app, totals.judged)))
    });
    Ok(Sse::new(lines))
}

/// A line of the stream: what was judged since `before`.
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
