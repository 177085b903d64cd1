//! The names that a server on loopback answers to.
//!
//! A web page from anywhere can have its own name resolve to 127.0.0.1 after it is
//! loaded (DNS rebinding); its requests then are of the page's own origin, and the page
//! may read the answers. The browser still says in `Host` by which name it asks. An
//! address cannot be made to mean another, so addresses are taken; of names only
//! `localhost` and those that the operator has given.
//!
//! Beyond loopback the token is asked for instead, which no such page has.

use axum::http::{HeaderMap, StatusCode, Uri, header};

use super::params::shown;
use super::refused::Refused;
use crate::config::Names;

/// Whether a request asks by a name that is ours. One without any name is not from a
/// browser.
///
/// # Errors
///
/// The first name that is not.
pub(super) fn check(headers: &HeaderMap, uri: &Uri, names: &Names) -> Result<(), Refused> {
    let hosts =
        headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or_default());
    let of_target = uri.authority().map(axum::http::uri::Authority::as_str);
    match hosts.chain(of_target).find(|host| !is_ours(host, names)) {
        None => Ok(()),
        Some(host) => Err(Refused::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("the Host {} is no name of this server", shown(host)),
            "ask by an address or as localhost, or add the name to http.names and start again",
        )),
    }
}

fn is_ours(host: &str, names: &Names) -> bool {
    let name = without_port(host);
    let is_address = match name.strip_prefix('[') {
        Some(inside) => inside
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => name.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    is_address || name.eq_ignore_ascii_case("localhost") || names.has(name)
}

/// A host as it stands before its port, if that is one.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn names() -> Names {
        Names::of("game.example, Stats.example")
    }

    #[test]
    fn addresses_localhost_and_given_names_are_ours() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:4780",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:4780",
            "localhost",
            "LocalHost:4780",
            "game.example:4780",
            "GAME.example",
            "stats.example:",
        ] {
            assert!(is_ours(host, &names()), "{host}");
        }
    }

    #[test]
    fn all_others_are_not() {
        for host in [
            "",
            ":4780",
            "evil.example",
            "evil.example:4780",
            "localhost.evil.example",
            "evil.localhost",
            "game.example.evil.example",
            "xgame.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:4780:evil.example",
            "127.1",
            "2130706433",
            "0x7f000001",
            "::1",
            "[::1",
            "[evil.example]",
            "game.example@evil.example",
            "127.0.0.1, evil.example",
        ] {
            assert!(!is_ours(host, &names()), "{host}");
        }
    }

    #[test]
    fn every_name_that_a_request_gives_is_looked_at() {
        let ask = |hosts: &[&'static str], uri: &'static str| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            check(&headers, &Uri::from_static(uri), &names()).is_ok()
        };
        assert!(ask(&[], "/status") && ask(&["localhost"], "/status"));
        assert!(!ask(&["localhost", "evil.example"], "/status"));
        assert!(!ask(&["localhost"], "http://evil.example/status"));
        assert!(ask(&["localhost"], "http://127.0.0.1:4780/status"));
    }
}
