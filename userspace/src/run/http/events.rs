//! Events in: `POST /v1/events`.
//!
//! They go to the server's own UDP port over loopback, by the client that games use:
//! the same log, the same rules, the same retries. So nothing about an event depends
//! on how it came, and the lanes' counters count it as any other. What it costs: a
//! server whose lanes take packets from a NIC cannot be reached over loopback, and
//! takes no events here.

mod body;
mod fields;
mod objects;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use veltrix_client::codec::KeySource;
use veltrix_client::{Client, Receipt, SendError, Uuid};

use super::refused::Refused;
use super::{App, BODY_BYTES_MAX};
use body::{Taken, parse};

/// Events of one request: with [`super::listener::CONNECTIONS_MAX`] connections
/// what the client has room for.
pub const EVENTS_MAX: usize = 500;

/// The way into the log.
pub struct Writes {
    to: Arc<OnceLock<Result<SocketAddr, String>>>,
    /// Connected by the first request that needs it.
    client: OnceCell<Client>,
    keys: Mutex<KeySource>,
}

/// Where events go by loopback, when lanes listen on `address`.
#[must_use]
pub fn loopback_of(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Writes {
    pub(super) fn new(to: Arc<OnceLock<Result<SocketAddr, String>>>) -> Self {
        Self { to, client: OnceCell::new(), keys: Mutex::new(KeySource::new()) }
    }

    async fn client(&self) -> Result<&Client, Refused> {
        let to = match self.to.get() {
            Some(Ok(to)) => *to,
            Some(Err(why)) => {
                return Err(Refused::new(
                    StatusCode::NOT_IMPLEMENTED,
                    why.clone(),
                    "send events over UDP: userspace/docs/WIRE.md, or the crate veltrix-client",
                ));
            }
            None => return Err(Refused::later("the server is starting")),
        };
        let connect = || Client::connect(to);
        self.client
            .get_or_try_init(connect)
            .await
            .map_err(|e| Refused::later(format!("no way into the log by {to}: {e}")))
    }

    fn next_key(&self, log_time_ns: u64) -> Uuid {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Uuid::from_bytes(keys.next_key(log_time_ns))
    }
}

/// `POST /v1/events`.
///
/// # Errors
///
/// No token, a body that is too large or makes no sense, no way into the log. An
/// event without an outcome is no error of the request: its row says so, and the
/// status code is 504.
pub async fn take(State(app): State<App>, request: Request) -> Result<Response, Refused> {
    app.guard.check(request.headers())?;
    let body = Bytes::from_request(request, &()).await.map_err(|e| {
        let too_large = e.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let error = if too_large {
            format!("the body is larger than {BODY_BYTES_MAX} bytes")
        } else {
            e.body_text()
        };
        Refused::new(e.status(), error, format!("send at most {EVENTS_MAX} events at once"))
    })?;
    let Taken { hunt, events } = parse(&body)?;
    let totals = app.asks.totals().await?;
    if let Some(why) = totals.unready {
        return Err(Refused::later(format!("no events are taken: {why}")));
    }
    let client = app.writes.client().await?;
    let keyed: Vec<_> = events
        .into_iter()
        .map(|(event, key)| {
            // Told to the caller, so that a second try is no second event.
            let key = key.unwrap_or_else(|| app.writes.next_key(totals.log_time_ns));
            (event.key(key), key)
        })
        .collect();
    let (events, keys): (Vec<_>, Vec<_>) = keyed.into_iter().unzip();
    let receipts = client.domain(hunt).send_all(events).await;
    Ok(answer(hunt, &keys, &receipts))
}

fn answer(hunt: u64, keys: &[Uuid], receipts: &[Result<Receipt, SendError>]) -> Response {
    let results: Vec<Value> = keys
        .iter()
        .zip(receipts)
        .map(|(key, receipt)| match receipt {
            Ok(receipt) => json!({
                "key": key,
                "outcome": receipt.outcome.label(),
                "epoch": receipt.epoch,
                "duplicate": receipt.duplicate,
            }),
            Err(error) => json!({ "key": key, "outcome": null, "error": error.to_string() }),
        })
        .collect();
    let epoch = receipts.iter().flatten().map(|receipt| receipt.epoch).max();
    let lacking = receipts.iter().filter(|receipt| receipt.is_err()).count();
    let mut answer = json!({ "hunt": hunt, "epoch": epoch, "results": results });
    if lacking == 0 {
        return Json(answer).into_response();
    }
    answer["error"] = format!("{lacking} of {} events have no outcome", results.len()).into();
    answer["mend"] = "send those again with their keys: none is applied twice".into();
    (StatusCode::GATEWAY_TIMEOUT, [("retry-after", "1")], Json(answer)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_are_reached_by_an_address_that_can_be_sent_to() {
        for (listens, reached) in [
            ("0.0.0.0:4747", "127.0.0.1:4747"),
            ("[::]:4747", "[::1]:4747"),
            ("10.0.0.1:4747", "10.0.0.1:4747"),
        ] {
            assert_eq!(loopback_of(listens.parse().unwrap()), reached.parse().unwrap());
        }
    }

    #[test]
    fn without_a_way_in_the_reason_is_said() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let to = Arc::new(OnceLock::new());
        let writes = Writes::new(Arc::clone(&to));
        let status = || {
            let refused = runtime.block_on(writes.client()).unwrap_err();
            refused.into_response().status()
        };
        assert_eq!(status(), StatusCode::SERVICE_UNAVAILABLE);
        to.set(Err("by XDP".into())).unwrap();
        assert_eq!(status(), StatusCode::NOT_IMPLEMENTED);
    }
}
