//! The fields of a JSON object, read one by one: whatever is wrong is named with
//! its place, what was found and what was wanted.

use axum::http::StatusCode;
use serde_json::{Map, Value};
use veltrix_client::Uuid;

use super::super::params::shown;
use super::super::refused::Refused;
use crate::config::value::nearest;

/// The fields of an object.
pub(super) struct Fields<'a> {
    pub(super) place: &'a str,
    pub(super) map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(place: &'a str, value: &'a Value, known: &[&str]) -> Result<Self, Refused> {
        let Value::Object(map) = value else {
            let error = format!("{place} is {}, wanted an object", seen(value));
            return Err(Refused::bad(error, format!("its fields: {}", known.join(", "))));
        };
        if let Some(name) = map.keys().find(|name| !known.contains(&name.as_str())) {
            let mend = nearest(name, known.iter().copied()).map_or_else(
                || format!("its fields: {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(Refused::bad(format!("{place} has no field {}", shown(name)), mend));
        }
        Ok(Self { place, map })
    }

    pub(super) fn missing(&self, name: &str) -> Refused {
        Refused::bad(format!("{} has no {name}", self.place), format!("add \"{name}\""))
    }

    pub(super) fn wrong(&self, name: &str, value: &Value, wanted: &str) -> Refused {
        let place = if self.place == "the body" { "" } else { self.place };
        let dot = if place.is_empty() { "" } else { "." };
        let error = format!("{place}{dot}{name} is {}, wanted {wanted}", seen(value));
        Refused::new(StatusCode::BAD_REQUEST, error, format!("set {name} to {wanted}"))
    }

    /// A number, or one in a string: not every language's numbers hold 64 bits.
    pub(super) fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Refused> {
        let Some(value) = self.map.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        match number.filter(|number| *number <= max) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, value, &format!("a whole number, 0 to {max}"))),
        }
    }

    pub(super) fn word<T: Copy>(
        &self,
        name: &str,
        all: &[T],
        label: impl Fn(&T) -> &'static str,
    ) -> Result<T, Refused> {
        let value = self.map.get(name).ok_or_else(|| self.missing(name))?;
        let found = value.as_str().and_then(|word| all.iter().find(|each| label(each) == word));
        found.copied().ok_or_else(|| {
            let words: Vec<_> = all.iter().map(&label).collect();
            self.wrong(name, value, &format!("one of {}", words.join(", ")))
        })
    }

    pub(super) fn key(&self) -> Result<Option<Uuid>, Refused> {
        let Some(value) = self.map.get("key") else { return Ok(None) };
        let key = value.as_str().and_then(|text| Uuid::parse_str(text).ok());
        match key.filter(|key| key.get_version_num() == 7) {
            Some(key) => Ok(Some(key)),
            None => Err(self.wrong("key", value, "a UUID of version 7")),
        }
    }
}

/// A value as an error shows it.
pub(super) fn seen(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) => shown(text),
        other => shown(&other.to_string()),
    }
}
