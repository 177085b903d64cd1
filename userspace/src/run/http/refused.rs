//! A refusal: a status code, what was found, and what mends it.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error as the caller gets it: `{"error": "...", "mend": "..."}`.
#[derive(Clone, Debug)]
pub struct Refused {
    status: StatusCode,
    error: Cow<'static, str>,
    mend: Cow<'static, str>,
}

impl Refused {
    /// What was found and what mends it.
    pub fn new(
        status: StatusCode,
        error: impl Into<Cow<'static, str>>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, error: error.into(), mend: mend.into() }
    }

    /// The request makes no sense.
    pub fn bad(error: impl Into<Cow<'static, str>>, mend: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, mend)
    }

    /// Not now; the answer has `Retry-After: 1`.
    pub fn later(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again in a second")
    }

    /// The server keeps no state.
    #[must_use]
    pub fn no_log() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "this server keeps no state",
            "start it with --data DIR (made by `veltrix format --data DIR`)",
        )
    }

    /// The same refusal as a probe gives it: not ready, whatever the reason.
    #[must_use]
    pub fn as_unready(self) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: format!("not ready: {}", self.error).into(),
            ..self
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.error, "mend": self.mend }));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
