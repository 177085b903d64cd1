//! The page for people: a map of a hunt, its leaderboard, rates, times and sums.
//!
//! It is embedded in the binary and loads nothing from elsewhere; what it shows it
//! asks of the other routes, as any caller does. Who does not ask for HTML gets the
//! list of routes at the same place.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::ops;
use super::params::{Params, shown};
use super::refused::Refused;

/// What the page may do: run and show its own files, ask this server. No script,
/// style or address in its text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const INDEX: &str = include_str!("page/index.html");

/// Name, type and text of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("ask.js", "text/javascript; charset=utf-8", include_str!("page/ask.js")),
    ("map.js", "text/javascript; charset=utf-8", include_str!("page/map.js")),
    ("panels.js", "text/javascript; charset=utf-8", include_str!("page/panels.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    // The cities that `veltrix load` plays in: what the map has for land.
    ("cities.csv", "text/csv; charset=utf-8", include_str!("../../../data/cities.csv")),
];

/// `GET /`: the page for browsers, the routes for others.
///
/// # Errors
///
/// Parameters.
pub async fn front(headers: HeaderMap, params: Params) -> Result<Response, Refused> {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let vary = [(header::VARY, "Accept")];
    if !accepts.is_some_and(|types| types.contains("text/html")) {
        return Ok((vary, ops::routes(params).await?).into_response());
    }
    params.only(&[])?;
    Ok((vary, served("text/html; charset=utf-8", INDEX)).into_response())
}

/// `GET /page/{file}`.
///
/// # Errors
///
/// No such file; parameters.
pub async fn file(params: Params) -> Result<Response, Refused> {
    params.only(&[])?;
    let name = params.text("file").unwrap_or_default();
    let Some((_, kind, text)) = FILES.iter().find(|(file, ..)| *file == name) else {
        let error = format!("the page has no file {}", shown(name));
        return Err(Refused::new(StatusCode::NOT_FOUND, error, "GET / is the page"));
    };
    Ok(served(kind, text).into_response())
}

fn served(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the server has another page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_only_its_own_files() {
        for (name, _, text) in FILES.iter().filter(|file| file.0 != "cities.csv") {
            let addresses = text.replace("http://www.w3.org/", "");
            assert!(!addresses.contains("://"), "{name} names an address");
        }
        assert!(!INDEX.contains("://"), "an address in the page");
        assert!(!INDEX.contains("<style") && !INDEX.contains(" style="), "a style in the page");
        let scripts = INDEX.matches("<script").count();
        assert_eq!(scripts, INDEX.matches("<script type=\"module\" src=\"/page/").count());
        let named = INDEX.split("\"/page/").skip(1).filter_map(|rest| rest.split('"').next());
        for name in named {
            assert!(FILES.iter().any(|(file, ..)| *file == name), "{name}");
        }
    }
}
