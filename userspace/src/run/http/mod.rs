//! JSON over HTTP/1.1, on the control core.
//!
//! ```text
//!   listener -> axum, tasks of the control core's runtime        must be Send
//!                 |  Ask (mpsc), answer (oneshot)
//!                 v
//!               asks.rs, with the server's Rc state -> lanes     reads
//!                 |
//!               events.rs: a client on loopback -> the UDP port  writes
//! ```
//!
//! * [`listener`]: bounds connections in number and idle time.
//! * [`asks`]: the bridge to the state; [`game`] asks it for a hunt, players, cells,
//!   [`hunts`] for all hunts.
//! * [`events`]: takes events in as any client sends them: same log, same outcomes.
//! * [`ops`]: liveness, readiness, status, metrics, consistency; [`stream`]: what is
//!   applied, as it happens.
//! * [`page`]: the page for people, and what it is made of.
//! * `host`: by which names a server on loopback may be asked.
//! * [`params`], [`refused`]: what is accepted, and how a refusal is said.
//!
//! `docs/HTTP.md` is the page for callers. Everything is served by the thread that
//! carries the log, so all is bounded: [`listener::CONNECTIONS_MAX`], [`BODY_BYTES_MAX`], the
//! reads that an asker may have under way, readings of the status in a second.

pub mod asks;
pub mod events;
pub mod game;
mod host;
pub mod hunts;
pub mod listener;
pub mod ops;
pub mod page;
pub mod params;
pub mod refused;
pub mod stream;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::sync::mpsc;

use crate::cli::{CliError, ExitStatus};
use crate::config::{Http as Settings, Names};
use asks::{Ask, Asks};
use events::Writes;
use refused::Refused;
use stream::Sender;

/// Largest body of a request.
pub const BODY_BYTES_MAX: usize = 256 << 10;

/// Least length of a token, bytes: what nobody guesses.
pub const TOKEN_BYTES_MIN: usize = 16;

/// Asks that may wait for the state: one of each connection, and as many again.
const ASKS_MAX: usize = 2 * listener::CONNECTIONS_MAX;

/// Every route: method, path, what it is. The router, `GET /` and the tests of
/// `docs/HTTP.md` go by it.
pub const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/", "a page for browsers; for others these routes"),
    ("GET", "/page/{file}", "what the page is made of"),
    ("GET", "/livez", "200 while the process runs"),
    ("GET", "/readyz", "200 while events are taken, else 503 with the reason"),
    ("GET", "/status", "as `veltrix status --json`"),
    ("GET", "/metrics", "Prometheus text"),
    ("GET", "/consistency", "epochs of the log and of each lane, and the age of what they show"),
    ("GET", "/v1/hunts", "hunts of all partitions: ?tenant, ?limit&from"),
    ("GET", "/v1/hunts/{hunt}", "what a hunt holds"),
    ("GET", "/v1/hunts/{hunt}/leaderboard", "players by score: ?from&limit, or ?around&n"),
    ("GET", "/v1/hunts/{hunt}/players/{player}", "what a player owns"),
    ("GET", "/v1/players/{player}", "the same: ?hunt"),
    ("GET", "/v1/hunts/{hunt}/cells", "cells of a box: ?x&y or ?bbox, ?limit&from"),
    ("GET", "/v1/cells", "the same: ?hunt"),
    ("GET", "/v1/hunts/{hunt}/nearest", "cells nearest to a cell: ?cell&limit"),
    ("GET", "/v1/hunts/{hunt}/cells/{cell}", "one cell"),
    ("POST", "/v1/events", "events in, outcomes out; with a token"),
    (
        "GET",
        "/v1/stream",
        "server-sent events: totals once a second, samples of what is applied; ?hunt",
    ),
];

/// What every request is served with.
#[derive(Clone)]
pub struct App {
    asks: Asks,
    writes: Arc<Writes>,
    guard: Arc<Guard>,
    samples: Sender,
}

/// Who may do what.
struct Guard {
    token: Option<String>,
    /// Whether reads need the token too: others than this host's can ask.
    guards_reads: bool,
    /// Names that it may be asked by, where reads need no token.
    names: Names,
}

/// A bound listener, and what it needs to serve.
pub struct Http {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<String>,
    names: Names,
}

/// The other end of a running HTTP server.
pub struct Served {
    /// What it asks of the state.
    pub asks: mpsc::Receiver<Ask>,
    /// Where samples go.
    pub samples: Sender,
    writes_to: Arc<OnceLock<Result<SocketAddr, String>>>,
}

impl Served {
    /// The state may be asked now; events go to this address, or nowhere for this
    /// reason.
    pub fn begin(&self, events: Result<SocketAddr, String>) {
        // Said once.
        let _ = self.writes_to.set(events);
    }
}

impl Http {
    /// Binds what `settings` ask for; `None` when it is off.
    ///
    /// # Errors
    ///
    /// The address is taken or not this host's, or the token cannot be used; with
    /// the key that mends it.
    pub fn bind(settings: &Settings) -> Result<Option<Self>, CliError> {
        let Some(listen) = settings.listen else { return Ok(None) };
        let token = settings.token_file.as_deref().map(read_token).transpose()?;
        let failed = |e: std::io::Error| {
            let status = match e.kind() {
                std::io::ErrorKind::PermissionDenied => ExitStatus::NotPermitted,
                _ => ExitStatus::HostNotReady,
            };
            let text = format!(
                "http.listen is {listen}: {e}; set http.listen (--http ADDR:PORT) to an address that is free, to port 0 for any, or to \"off\""
            );
            CliError::new(status, text)
        };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Some(Self { listener, address, token, names: settings.names.clone() }))
    }

    /// Address served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on the runtime this is called in. Until [`Served::begin`] whatever
    /// needs the state is refused as not ready.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the socket.
    pub fn serve(self) -> Result<Served, CliError> {
        let failed = |e| CliError::new(ExitStatus::Error, format!("HTTP: {e}"));
        let listener = listener::Bounded::new(self.listener).map_err(failed)?;
        let (sender, asks) = mpsc::channel(ASKS_MAX);
        let writes_to = Arc::new(OnceLock::new());
        let samples = stream::sender();
        let app = App {
            asks: Asks::new(sender, Arc::clone(&writes_to)),
            writes: Arc::new(Writes::new(Arc::clone(&writes_to))),
            guard: Arc::new(Guard {
                guards_reads: !self.address.ip().is_loopback(),
                token: self.token,
                names: self.names,
            }),
            samples: samples.clone(),
        };
        let serving = axum::serve(listener, router(app));
        // Ends with the runtime.
        tokio::spawn(async move { serving.await });
        Ok(Served { asks, samples, writes_to })
    }
}

fn read_token(path: &Path) -> Result<String, CliError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        let status = match e.kind() {
            std::io::ErrorKind::PermissionDenied => ExitStatus::NotPermitted,
            _ => ExitStatus::BadConfig,
        };
        CliError::new(status, format!("http.token_file is {shown}: {e}; make it: head -c 32 /dev/urandom | base64 > {shown}; chmod 600 {shown}"))
    })?;
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let text = format!(
            "http.token_file is {shown}: {} bytes, wanted {TOKEN_BYTES_MIN} or more of printable ASCII without blanks; make one: head -c 32 /dev/urandom | base64 > {shown}",
            token.len()
        );
        return Err(CliError::new(ExitStatus::BadConfig, text));
    }
    Ok(token.to_owned())
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(page::front))
        .route("/page/{file}", get(page::file))
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/status", get(ops::status))
        .route("/metrics", get(ops::metrics))
        .route("/consistency", get(ops::consistency))
        .route("/v1/stream", get(stream::stream))
        .route("/v1/hunts", get(hunts::list))
        .route("/v1/hunts/{hunt}", get(game::hunt))
        .route("/v1/hunts/{hunt}/leaderboard", get(game::leaderboard))
        .route("/v1/hunts/{hunt}/players/{player}", get(game::player))
        .route("/v1/players/{player}", get(game::player))
        .route("/v1/hunts/{hunt}/cells", get(game::cells))
        .route("/v1/cells", get(game::cells))
        .route("/v1/hunts/{hunt}/nearest", get(game::nearest))
        .route("/v1/hunts/{hunt}/cells/{cell}", get(game::cell))
        .route("/v1/events", post(events::take))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

async fn no_route(request: Request) -> Refused {
    let path = params::shown(request.uri().path());
    Refused::new(StatusCode::NOT_FOUND, format!("no route {path}"), "GET / lists the routes")
}

async fn no_method(request: Request) -> Refused {
    let (method, path) = (request.method(), request.uri().path());
    let error = format!("{} does not take {method}", params::shown(path));
    let wanted = if path == "/v1/events" { "POST" } else { "GET" };
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, error, format!("use {wanted}"))
}

async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    match app.guard.admits(&request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

impl Guard {
    /// Whether a request may be served at all. On loopback it must ask by a name of ours.
    /// Where others than this host's may ask, all but the two probes and the page, which
    /// holds nothing of the game and asks its user for the token, need it.
    fn admits(&self, request: &Request) -> Result<(), Refused> {
        if !self.guards_reads {
            return host::check(request.headers(), request.uri(), &self.names);
        }
        let path = request.uri().path();
        let is_open = matches!(path, "/livez" | "/readyz" | "/") || path.starts_with("/page/");
        if is_open { Ok(()) } else { self.check(request.headers()) }
    }

    /// Whether a request carries the token.
    fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(token) = &self.token else {
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                "this server takes no events over HTTP: it has no token",
                "set http.token_file to a file with a secret of 16 bytes or more and start again",
            ));
        };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let given = given.and_then(|value| value.strip_prefix(b"Bearer "));
        if given.is_some_and(|given| is_same(given, token.as_bytes())) {
            return Ok(());
        }
        let error = if given.is_some() { "a wrong token" } else { "no token" };
        Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            error,
            "send `Authorization: Bearer TOKEN` with the token of http.token_file",
        ))
    }
}

/// Compares in a time that depends on the lengths only.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differs = given.iter().zip(token).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == token.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(is_same(b"0123456789abcdef", b"0123456789abcdef"));
        assert!(!is_same(b"0123456789abcdeX", b"0123456789abcdef"));
        assert!(!is_same(b"0123456789abcde", b"0123456789abcdef"));
        assert!(!is_same(b"", b"0123456789abcdef"));
    }
}
