//! The body of `POST /v1/events`, checked field by field: an error names the event,
//! the field, what was found and what was wanted.

use axum::http::StatusCode;
use serde_json::{Map, Value};
use veltrix_abi::kinds::{
    CELL_BITS, EventKind, Hotspot, HotspotKind, ITEM_TYPES, LIFETIME_S_MAX, REWARD_MAX,
};
use veltrix_abi::limits::EVENT_PAYLOAD_BYTES_MAX;
use veltrix_client::{Event, Uuid};

use super::super::game::kind_name;
use super::super::params::shown;
use super::super::refused::Refused;
use super::EVENTS_MAX;
use crate::config::value::nearest;

const HOTSPOT_KINDS: [HotspotKind; 3] =
    [HotspotKind::Item, HotspotKind::Chest, HotspotKind::Ticket];

/// What a body holds.
pub struct Taken {
    /// The hunt of all events.
    pub hunt: u64,
    /// The events, with the keys that were given.
    pub events: Vec<(Event, Option<Uuid>)>,
}

/// Reads a body.
///
/// # Errors
///
/// The first thing wrong with it.
pub fn parse(body: &[u8]) -> Result<Taken, Refused> {
    let value: Value = serde_json::from_slice(body).map_err(|e| {
        Refused::bad(format!("the body is not JSON: {e}"), "send {\"hunt\": 1, \"events\": [...]}")
    })?;
    let fields = Fields::of("the body", &value, &["hunt", "events"])?;
    let hunt = fields.number("hunt", u64::MAX)?.ok_or_else(|| fields.missing("hunt"))?;
    let events = match fields.map.get("events") {
        None => return Err(fields.missing("events")),
        Some(Value::Array(events)) if (1..=EVENTS_MAX).contains(&events.len()) => events,
        Some(Value::Array(events)) => {
            let error = format!("{} events, wanted 1 to {EVENTS_MAX}", events.len());
            return Err(Refused::bad(error, "send several requests"));
        }
        Some(other) => return Err(fields.wrong("events", other, "a list of events")),
    };
    let events = events.iter().enumerate().map(|(at, event)| one(at, event));
    Ok(Taken { hunt, events: events.collect::<Result<_, _>>()? })
}

fn one(at: usize, value: &Value) -> Result<(Event, Option<Uuid>), Refused> {
    let place = format!("events[{at}]");
    let known = ["kind", "player", "subject", "argument", "key", "hotspot", "payload"];
    let fields = Fields::of(&place, value, &known)?;
    let kind = fields.word("kind", EventKind::ALL, |kind| kind.label())?;
    let player = fields.number("player", u64::MAX)?.ok_or_else(|| fields.missing("player"))?;
    let subject_max = if kind.names_a_cell() { (1 << CELL_BITS) - 1 } else { u64::MAX };
    let subject = match (fields.number("subject", subject_max)?, kind) {
        (Some(subject), _) => subject,
        (None, kind) if kind.names_nothing() => 0,
        (None, _) => return Err(fields.missing("subject")),
    };
    let argument = fields.number("argument", u64::MAX)?;
    let hotspot = fields.map.get("hotspot").map(|value| hotspot(&place, value)).transpose()?;
    let argument = match (kind, hotspot, argument) {
        (EventKind::HotspotSpawn, Some(hotspot), None) => hotspot,
        (EventKind::HotspotSpawn, None, Some(argument)) => argument,
        (EventKind::HotspotSpawn, None, None) => return Err(fields.missing("hotspot")),
        (EventKind::HotspotSpawn, Some(_), Some(_)) => {
            let error = format!("{place} has hotspot and argument, which say the same");
            return Err(Refused::bad(error, "leave argument out"));
        }
        (kind, Some(_), _) => {
            let error = format!("{place} is {} and has a hotspot", kind.label());
            return Err(Refused::bad(error, "only hotspot-spawn has one: leave it out"));
        }
        (_, None, argument) => argument.unwrap_or(0),
    };
    let payload = match fields.map.get("payload") {
        None => Vec::new(),
        Some(value) => payload(&place, value)?,
    };
    let key = fields.key()?;
    let event = Event::new(player, kind.code(), subject).argument(argument).payload(payload);
    Ok((event, key))
}

/// Text as its bytes, or the bytes as numbers.
fn payload(place: &str, value: &Value) -> Result<Vec<u8>, Refused> {
    let bytes: Option<Vec<u8>> = match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(numbers) => numbers
            .iter()
            .map(|number| number.as_u64().and_then(|number| u8::try_from(number).ok()))
            .collect(),
        _ => None,
    };
    let bytes = bytes.filter(|bytes| bytes.len() <= EVENT_PAYLOAD_BYTES_MAX);
    bytes.ok_or_else(|| {
        Refused::bad(
            format!("{place}.payload is {value}, wanted text or bytes, at most 512 of them"),
            "send \"payload\": \"text\", or \"payload\": [1, 2, 3]",
        )
    })
}

/// The argument that describes a hotspot.
fn hotspot(place: &str, value: &Value) -> Result<u64, Refused> {
    let place = format!("{place}.hotspot");
    let fields = Fields::of(&place, value, &["kind", "item", "remaining", "reward", "lifetime_s"])?;
    let kind = fields.word("kind", &HOTSPOT_KINDS, |kind| kind_name(*kind))?;
    let number =
        |name, max, default| Ok::<_, Refused>(fields.number(name, max)?.unwrap_or(default));
    let hotspot = Hotspot {
        kind,
        // Each bound is that of its field, or below.
        item: number("item", u64::from(ITEM_TYPES) - 1, 0)? as u8,
        remaining: number("remaining", u16::MAX.into(), 1)? as u16,
        reward: number("reward", REWARD_MAX.into(), 0)? as u32,
        lifetime_s: number("lifetime_s", LIFETIME_S_MAX.into(), 0)? as u32,
    };
    hotspot.pack().ok_or_else(|| {
        Refused::bad(
            format!("{place} cannot be: item {}, remaining {}", hotspot.item, hotspot.remaining),
            "remaining is 1 or more; a ticket has item 0 and remaining 1",
        )
    })
}

/// The fields of an object.
struct Fields<'a> {
    place: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(place: &'a str, value: &'a Value, known: &[&str]) -> Result<Self, Refused> {
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

    fn missing(&self, name: &str) -> Refused {
        Refused::bad(format!("{} has no {name}", self.place), format!("add \"{name}\""))
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str) -> Refused {
        let place = if self.place == "the body" { "" } else { self.place };
        let dot = if place.is_empty() { "" } else { "." };
        let error = format!("{place}{dot}{name} is {}, wanted {wanted}", seen(value));
        Refused::new(StatusCode::BAD_REQUEST, error, format!("set {name} to {wanted}"))
    }

    /// A number, or one in a string: not every language's numbers hold 64 bits.
    fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Refused> {
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

    fn word<T: Copy>(
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

    fn key(&self) -> Result<Option<Uuid>, Refused> {
        let Some(value) = self.map.get("key") else { return Ok(None) };
        let key = value.as_str().and_then(|text| Uuid::parse_str(text).ok());
        match key.filter(|key| key.get_version_num() == 7) {
            Some(key) => Ok(Some(key)),
            None => Err(self.wrong("key", value, "a UUID of version 7")),
        }
    }
}

/// A value as an error shows it.
fn seen(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) => shown(text),
        other => shown(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn taken(value: &Value) -> Result<Taken, Refused> {
        parse(value.to_string().as_bytes())
    }

    #[test]
    fn numbers_may_be_strings() {
        let body = json!({ "hunt": "18446744073709551615", "events": [
            { "kind": "claim", "player": 7, "subject": "123" },
        ] });
        let taken = taken(&body).unwrap();
        assert_eq!(taken.hunt, u64::MAX);
        assert_eq!(taken.events, [(Event::claim(7, 123), None)]);
    }

    #[test]
    fn a_hotspot_becomes_the_argument() {
        let hotspot =
            Hotspot { kind: HotspotKind::Chest, item: 2, remaining: 3, reward: 50, lifetime_s: 60 };
        let body = json!({ "hunt": 1, "events": [{
            "kind": "hotspot-spawn", "player": 1, "subject": 9,
            "hotspot": { "kind": "chest", "item": 2, "remaining": 3, "reward": 50, "lifetime_s": 60 },
        }] });
        let taken = taken(&body).unwrap();
        assert_eq!(taken.events, [(Event::spawn(1, 9, &hotspot).unwrap(), None)]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_field_panics(name in "hunt|events|kind|player|subject|argument|key|hotspot",
                           value in "null|-1|1e99|[0-9]{1,25}|\"\"|\"é{70}\"|\\[\\]|\\{\\}") {
            let event = format!(
                "{{\"hunt\":1,\"events\":[{{\"kind\":\"claim\",\"player\":1,\"subject\":2,\"{name}\":{value}}}]}}"
            );
            let _ = parse(event.as_bytes());
            let _ = parse(format!("{{\"hunt\":1,\"{name}\":{value}}}").as_bytes());
        }
    }
}
