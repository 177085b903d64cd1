//! What an argument or a payload packs, as an object with names: a hotspot, the setup
//! of a hunt, a power-up, a quest.

use serde_json::Value;
use veltrix_abi::kinds::{
    EventKind, Hotspot, HotspotKind, HuntSetup, ITEM_TYPES, LENGTH_S_MAX, LIFETIME_S_MAX,
    POWER_FACTOR_MAX, POWER_S_MAX, PowerUp, QuestPay, Quota, REWARD_MAX, SETTINGS_MAX,
};
use veltrix_client::Event;

use super::super::game::kind_name;
use super::super::refused::Refused;
use super::fields::Fields;
use crate::apply::games::GAMES;

const HOTSPOT_KINDS: [HotspotKind; 3] =
    [HotspotKind::Item, HotspotKind::Chest, HotspotKind::Ticket];

/// Argument and payload.
type Described = (u64, Vec<u8>);

type Read = fn(&str, &Value) -> Result<Described, Refused>;

/// Each object: its name, the kind of event that has it, how it is read.
const OBJECTS: [(&str, EventKind, Read); 4] = [
    ("hotspot", EventKind::HotspotSpawn, hotspot),
    ("setup", EventKind::HuntOpen, setup),
    ("power_up", EventKind::PowerUp, power_up),
    ("quest", EventKind::QuestDefine, quest),
];

/// Names of the objects.
pub(super) const NAMES: [&str; 4] = ["hotspot", "setup", "power_up", "quest"];

/// What the object of an event says; `None` for an event that has none and none is
/// wanted, or that gives the argument itself.
///
/// # Errors
///
/// An object of another kind, none where one is wanted, one beside the argument it
/// stands for, and whatever is wrong in it.
pub(super) fn described(
    fields: &Fields<'_>,
    kind: EventKind,
) -> Result<Option<Described>, Refused> {
    let place = fields.place;
    for (name, owner, _) in OBJECTS {
        if owner != kind && fields.map.contains_key(name) {
            let error = format!("{place} is {} and has a {name}", kind.label());
            let mend = format!("only {} has one: leave it out", owner.label());
            return Err(Refused::bad(error, mend));
        }
    }
    let Some((name, _, read)) = OBJECTS.into_iter().find(|(_, owner, _)| *owner == kind) else {
        return Ok(None);
    };
    let beside = ["argument", "payload"].into_iter().find(|name| fields.map.contains_key(*name));
    match (fields.map.get(name), beside) {
        (Some(value), None) => read(&format!("{place}.{name}"), value).map(Some),
        (None, Some(_)) => Ok(None),
        (None, None) => Err(fields.missing(name)),
        (Some(_), Some(beside)) => {
            let error = format!("{place} has {name} and {beside}, which say the same");
            Err(Refused::bad(error, format!("leave {beside} out")))
        }
    }
}

impl Fields<'_> {
    fn or(&self, name: &str, max: u64, default: u64) -> Result<u64, Refused> {
        Ok(self.number(name, max)?.unwrap_or(default))
    }
}

/// The argument that describes a hotspot.
fn hotspot(place: &str, value: &Value) -> Result<Described, Refused> {
    let fields = Fields::of(place, value, &["kind", "item", "remaining", "reward", "lifetime_s"])?;
    let kind = fields.word("kind", &HOTSPOT_KINDS, |kind| kind_name(*kind))?;
    let number = |name, max, default| fields.or(name, max, default);
    let hotspot = Hotspot {
        kind,
        // Each bound is that of its field, or below.
        item: number("item", u64::from(ITEM_TYPES) - 1, 0)? as u8,
        remaining: number("remaining", u16::MAX.into(), 1)? as u16,
        reward: number("reward", REWARD_MAX.into(), 0)? as u32,
        lifetime_s: number("lifetime_s", LIFETIME_S_MAX.into(), 0)? as u32,
    };
    hotspot.pack().map(|argument| (argument, Vec::new())).ok_or_else(|| {
        Refused::bad(
            format!("{place} cannot be: item {}, remaining {}", hotspot.item, hotspot.remaining),
            "remaining is 1 or more; a ticket has item 0 and remaining 1",
        )
    })
}

/// How a hunt is played, and what it may use.
fn setup(place: &str, value: &Value) -> Result<Described, Refused> {
    let known = ["game", "length_s", "settings"];
    let quotas = ["tenant", "cells_max", "players_max", "events_per_s"];
    let fields = Fields::of(place, value, &[&known[..], &quotas].concat())?;
    let rows: Vec<_> = GAMES.iter().map(|row| (row.code, row.name)).collect();
    let (game, _) = fields.word("game", &rows, |(_, name)| name)?;
    let setup = HuntSetup {
        game,
        length_s: fields.or("length_s", LENGTH_S_MAX.into(), 0)? as u32,
        settings: fields.or("settings", SETTINGS_MAX, 0)?,
    };
    let [tenant, cells_max, players_max, events_per_s] =
        quotas.map(|name| fields.or(name, u32::MAX.into(), 0).map(|number| number as u32));
    let quota = Quota {
        tenant: tenant?,
        cells_max: cells_max?,
        players_max: players_max?,
        events_per_s: events_per_s?,
    };
    let payload = if quota == Quota::default() { Vec::new() } else { Vec::from(quota.bytes()) };
    // Every field is within its range.
    let argument = setup.pack().ok_or_else(|| fields.missing("game"))?;
    Ok((argument, payload))
}

fn power_up(place: &str, value: &Value) -> Result<Described, Refused> {
    let fields = Fields::of(place, value, &["item", "factor", "seconds"])?;
    let power_up = PowerUp {
        item: fields.or("item", u64::from(ITEM_TYPES) - 1, 0)? as u8,
        factor: fields.or("factor", POWER_FACTOR_MAX.into(), 0)? as u8,
        seconds: fields.or("seconds", POWER_S_MAX.into(), 0)? as u32,
    };
    power_up.pack().map(|argument| (argument, Vec::new())).ok_or_else(|| {
        let error = format!("{place} cannot be: {power_up:?}");
        Refused::bad(error, "factor is 2 or more, seconds 1 or more")
    })
}

/// A quest's graph and pay, checked as the SDK does.
fn quest(place: &str, value: &Value) -> Result<Described, Refused> {
    let fields = Fields::of(place, value, &["nodes", "edges", "node", "end"])?;
    let nodes = fields.number("nodes", 256)?.ok_or_else(|| fields.missing("nodes"))?;
    let pay = QuestPay {
        node: fields.or("node", REWARD_MAX.into(), 0)? as u32,
        end: fields.or("end", REWARD_MAX.into(), 0)? as u32,
    };
    let edges = match fields.map.get("edges") {
        None => Vec::new(),
        Some(value) => {
            let edges: Option<Vec<(u8, u8)>> =
                value.as_array().and_then(|edges| edges.iter().map(edge).collect());
            edges.ok_or_else(|| fields.wrong("edges", value, "a list of [from, to], 0 to 255"))?
        }
    };
    let event = Event::quest(0, 0, nodes as usize, &edges, pay);
    let event = event.map_err(|e| Refused::bad(format!("{place}: {e}"), "see GAMES.md"))?;
    Ok(event.into_argument_and_payload())
}

fn edge(value: &Value) -> Option<(u8, u8)> {
    let [from, to] = value.as_array()?.as_slice() else { return None };
    let node = |value: &Value| value.as_u64().and_then(|node| u8::try_from(node).ok());
    Some((node(from)?, node(to)?))
}
