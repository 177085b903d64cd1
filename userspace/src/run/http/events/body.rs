//! The body of `POST /v1/events`, checked field by field: an error names the event,
//! the field, what was found and what was wanted.

use serde_json::Value;
use veltrix_abi::kinds::{CELL_BITS, EventKind};
use veltrix_abi::limits::EVENT_PAYLOAD_BYTES_MAX;
use veltrix_client::{Event, Uuid};

use super::super::refused::Refused;
use super::EVENTS_MAX;
use super::fields::{Fields, seen};
use super::objects;

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
    let known = ["kind", "player", "subject", "argument", "key", "payload"];
    let known = [&known[..], &objects::NAMES].concat();
    let fields = Fields::of(&place, value, &known)?;
    let kind = fields.word("kind", EventKind::ALL, |kind| kind.label())?;
    let player = fields.number("player", u64::MAX)?.ok_or_else(|| fields.missing("player"))?;
    let subject_max = if kind.names_a_cell() { (1 << CELL_BITS) - 1 } else { u64::MAX };
    let subject = match (fields.number("subject", subject_max)?, kind) {
        (Some(subject), _) => subject,
        (None, kind) if kind.names_nothing() => 0,
        (None, _) => return Err(fields.missing("subject")),
    };
    let (argument, payload) = match objects::described(&fields, kind)? {
        Some(described) => described,
        None => {
            let payload = fields.map.get("payload").map(|value| payload(&place, value));
            let argument = fields.number("argument", u64::MAX)?.unwrap_or(0);
            (argument, payload.transpose()?.unwrap_or_default())
        }
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
            format!(
                "{place}.payload is {}, wanted text or bytes, at most 512 of them",
                seen(value)
            ),
            "send \"payload\": \"text\", or \"payload\": [1, 2, 3]",
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use veltrix_abi::kinds::{Hotspot, HotspotKind, HuntSetup, PowerUp, QuestPay, Quota};

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

    #[test]
    fn setups_power_ups_and_quests_are_described_in_words() {
        let setup = HuntSetup { game: 2, length_s: 600, settings: 7 };
        let quota = Quota { tenant: 9, cells_max: 100, players_max: 0, events_per_s: 1_000 };
        let body = json!({ "hunt": 1, "events": [
            { "kind": "hunt-open", "player": 1, "setup": { "game": "timed-race", "length_s": 600,
              "settings": 7, "tenant": 9, "cells_max": 100, "events_per_s": 1000 } },
            { "kind": "hunt-open", "player": 1, "setup": { "game": "timed-race", "length_s": 600,
              "settings": "7" } },
            { "kind": "power-up", "player": 7, "power_up": { "item": 2, "factor": 3, "seconds": 60 } },
            { "kind": "quest-define", "player": 1, "subject": 5,
              "quest": { "nodes": 3, "edges": [[0, 1], [0, 2]], "node": 5, "end": 50 } },
            { "kind": "treasure-type-updated", "player": 1, "subject": 5, "payload": "{}" },
        ] });
        let power_up = PowerUp { item: 2, factor: 3, seconds: 60 };
        let pay = QuestPay { node: 5, end: 50 };
        let wanted = [
            Event::open_for(1, &setup, &quota).unwrap(),
            Event::open(1, &setup).unwrap(),
            Event::power_up(7, &power_up).unwrap(),
            Event::quest(1, 5, 3, &[(0, 1), (0, 2)], pay).unwrap(),
            Event::treasure_type(1, 5, "{}"),
        ];
        assert_eq!(taken(&body).unwrap().events, wanted.map(|event| (event, None)));
    }

    #[test]
    fn what_describes_another_kind_is_refused() {
        for (event, said) in [
            (json!({ "kind": "claim", "subject": 1, "setup": {} }), "only hunt-open has"),
            (json!({ "kind": "hunt-open" }), "has no setup"),
            (json!({ "kind": "hunt-open", "setup": { "game": "chess" } }), "one of free-roam"),
            (
                json!({ "kind": "hunt-open", "setup": { "game": "free-roam" }, "argument": 1 }),
                "leave argument out",
            ),
            (
                json!({ "kind": "quest-define", "subject": 1, "quest": { "nodes": 2, "edges": [[0]] } }),
                "[from, to]",
            ),
            (
                json!({ "kind": "quest-define", "subject": 1, "quest": { "nodes": 257, "edges": [] } }),
                "0 to 256",
            ),
        ] {
            let mut event = event;
            event["player"] = json!(1);
            let refused = taken(&json!({ "hunt": 1, "events": [event] })).err().unwrap();
            let text = format!("{refused:?}");
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_field_panics(name in "hunt|events|kind|player|subject|argument|key|hotspot|setup|quest|power_up|payload",
                           value in "null|-1|1e99|[0-9]{1,25}|\"\"|\"é{70}\"|\\[\\]|\\{\\}") {
            let event = format!(
                "{{\"hunt\":1,\"events\":[{{\"kind\":\"claim\",\"player\":1,\"subject\":2,\"{name}\":{value}}}]}}"
            );
            let _ = parse(event.as_bytes());
            let _ = parse(format!("{{\"hunt\":1,\"{name}\":{value}}}").as_bytes());
        }
    }
}
