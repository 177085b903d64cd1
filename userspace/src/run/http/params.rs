//! Parameters of a request: from its path and query, checked, and refused by
//! name.

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;

use super::refused::Refused;
use crate::config::value::nearest;

/// Characters of a caller's text that an error repeats.
const SHOWN_CHARS: usize = 64;

/// Text of a caller as an error shows it.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// The parameters of a request.
#[derive(Debug)]
pub struct Params {
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|e| Refused::bad(e.body_text(), "GET / lists the routes"))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|e| Refused::bad(e.body_text(), "write it as name=value&name=value"))?;
        Ok(Self { path, query })
    }
}

impl Params {
    /// Refuses parameters of the query that are not `known`, or stand there twice.
    ///
    /// # Errors
    ///
    /// The first such parameter.
    pub fn only(&self, known: &[&str]) -> Result<(), Refused> {
        for (at, (name, _)) in self.query.iter().enumerate() {
            if self.query.iter().take(at).any(|(before, _)| before == name) {
                let error = format!("{} stands there twice", shown(name));
                return Err(Refused::bad(error, "give each parameter once"));
            }
            if self.path.iter().any(|(in_path, _)| in_path == name) {
                let error = format!("{} stands in the path and in the query", shown(name));
                return Err(Refused::bad(error, "leave it out of the query"));
            }
            if known.contains(&name.as_str()) {
                continue;
            }
            // As much of it as is shown: the rest only costs.
            let seen: String = name.chars().take(64).collect();
            let mend = match nearest(&seen, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "this route has no parameters".into(),
                None => format!("it has: {}", known.join(", ")),
            };
            return Err(Refused::bad(format!("no parameter {} here", shown(name)), mend));
        }
        Ok(())
    }

    /// The text of a parameter, of the path or the query.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let all = self.path.iter().chain(&self.query);
        all.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A whole number; `default` when there is none.
    ///
    /// # Errors
    ///
    /// It is not one from `min` to `max`.
    pub fn number(&self, name: &str, default: u64, min: u64, max: u64) -> Result<u64, Refused> {
        self.text(name).map_or(Ok(default), |text| whole(name, text, min, max))
    }

    /// A number that must be there, up to `max`.
    ///
    /// # Errors
    ///
    /// It is missing, or not one.
    pub fn id(&self, name: &str, max: u64) -> Result<u64, Refused> {
        match self.text(name) {
            Some(text) => whole(name, text, 0, max),
            None => Err(Refused::bad(format!("{name} is missing"), format!("add ?{name}=NUMBER"))),
        }
    }

    /// So many numbers up to `max`, with commas between; `None` when there are none.
    ///
    /// # Errors
    ///
    /// Others, or another count of them; `wanted` says which.
    pub fn list<const N: usize>(
        &self,
        name: &str,
        max: u32,
        wanted: &str,
    ) -> Result<Option<[u32; N]>, Refused> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let parts: Vec<&str> = text.split(',').collect();
        let mut numbers = [0; N];
        if parts.len() != N {
            let error = format!("{name} is {}, wanted {wanted}", shown(text));
            return Err(Refused::bad(error, format!("write {name}={wanted}")));
        }
        for (number, part) in numbers.iter_mut().zip(parts) {
            // Below `max`, so it fits.
            *number = whole(name, part, 0, max.into())? as u32;
        }
        Ok(Some(numbers))
    }
}

/// A whole number in plain digits: no sign, fraction, exponent or `NaN`.
///
/// # Errors
///
/// It is not one from `min` to `max`.
pub fn whole(name: &str, text: &str, min: u64, max: u64) -> Result<u64, Refused> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| is_plain && (min..=max).contains(n));
    number.ok_or_else(|| {
        Refused::bad(
            format!("{name} is {}, wanted a whole number, {min} to {max}", shown(text)),
            format!("write {name} in decimal digits, {min} to {max}"),
        )
    })
}
