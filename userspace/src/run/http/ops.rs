//! For operators and their tools: probes, status, metrics, consistency.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::params::Params;
use super::refused::Refused;
use super::{App, ROUTES};
use crate::admin::prometheus;
use crate::admin::status::Status;

/// `GET /` for those who do not ask for a page.
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
