//! Seeds of hunts, quests and rewards: an event of every kind, the answers to them,
//! and what a partition holds of them.

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, HuntSetup, PowerUp, QuestPay};
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::{Event, Kind, Mode};

use super::seeds::{Seed, ack_entry, datagram, header, seed};

/// 0 -> 1 -> 3, 0 -> 2 -> 3
const DIAMOND: &[u8] = &[3, 0, 0, 1, 0, 2, 1, 3, 2, 3];

/// The body of an event; `number` makes its key another than the others'.
fn event(number: u8, kind: EventKind, subject: u64, argument: u64, payload: &[u8]) -> Vec<u8> {
    let event = Event {
        key: [1, 0x9a, 0, 0, 0, number, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number],
        player: 1_000,
        subject,
        argument,
        kind: kind.code(),
        reserved: 0,
        payload,
    };
    let mut body = vec![0; event.wire_bytes()];
    event.write(&mut body);
    body
}

fn hotspot(kind: HotspotKind, remaining: u16) -> u64 {
    Hotspot { kind, item: 0, remaining, reward: 5, lifetime_s: 60 }.pack().expect("in range")
}

/// Subject, argument and payload of an event of each kind.
fn of(kind: EventKind) -> (u64, u64, &'static [u8]) {
    let setup = HuntSetup { game: 3, length_s: 600, settings: 0 };
    let power_up = PowerUp { item: 0, factor: 2, seconds: 30 };
    let pay = QuestPay { node: 10, end: 100 };
    match kind {
        EventKind::HotspotSpawn => (9, hotspot(HotspotKind::Item, 3), &[]),
        EventKind::CollectItem
        | EventKind::UseKey
        | EventKind::Claim
        | EventKind::HotspotExpire
        | EventKind::LocationPing => (9, 0, &[]),
        EventKind::WalletCredit | EventKind::WalletSpend => (0, 20, &[]),
        EventKind::WalletTransfer => (1_001, 5, &[]),
        EventKind::HuntOpen => (0, setup.pack().expect("in range"), &[]),
        EventKind::HuntClose => (0, 0, &[]),
        EventKind::PlayerJoin => (0, 16, &[]),
        EventKind::PowerUp => (0, power_up.pack().expect("in range"), &[]),
        EventKind::TreasureType => (4, 0, br#"{"name":"amulet"}"#),
        EventKind::QuestDefine => (7, pay.pack().expect("in range"), DIAMOND),
        EventKind::Checkpoint => (7 << 8, 0, &[]),
        EventKind::QuestAbandon => (7, 0, &[]),
        EventKind::RewardIssued => (259, 30, &[]),
        EventKind::BankDeposit | EventKind::BankWithdraw => (0, 4, &[]),
    }
}

/// A datagram with one event of each of these kinds.
fn of_kinds(kinds: &[EventKind]) -> Vec<u8> {
    let mut body = Vec::new();
    for kind in kinds {
        let (subject, argument, payload) = of(*kind);
        body.extend(event(kind.code() as u8, *kind, subject, argument, payload));
    }
    let mut header = header(Kind::Events);
    (header.mode, header.count) = (Mode::Durable as u8, kinds.len() as u16);
    datagram(&header, &body)
}

pub fn requests() -> Vec<Seed> {
    vec![
        seed("event-of-every-kind", "events", of_kinds(EventKind::ALL)),
        seed("quest-define", "events", of_kinds(&[EventKind::QuestDefine])),
        seed("treasure-type", "events", of_kinds(&[EventKind::TreasureType])),
    ]
}

pub fn replies() -> Vec<Seed> {
    let mut ack = header(Kind::Ack);
    ack.count = 1;
    let outcomes: Vec<u8> = Outcome::ALL.iter().map(|outcome| outcome.code()).collect();
    let again: Vec<u8> = outcomes.iter().map(|code| code | DUPLICATE_BIT).collect();
    let epochs: Vec<u64> = (1..).take(again.len()).collect();
    vec![
        seed("every-outcome", "ack", datagram(&ack, &ack_entry(&outcomes, &[]))),
        seed("every-outcome-again", "ack", datagram(&ack, &ack_entry(&again, &epochs))),
    ]
}

/// Datagrams of one event that leave something in every table: domain and body.
pub fn game() -> Vec<(u64, Vec<u8>)> {
    use EventKind::{
        BankDeposit, Checkpoint, CollectItem, HotspotSpawn, HuntOpen, LocationPing, PlayerJoin,
        PowerUp, QuestDefine, RewardIssued, TreasureType, WalletCredit,
    };
    let kinds = [
        HuntOpen,
        PlayerJoin,
        HotspotSpawn,
        CollectItem,
        PowerUp,
        LocationPing,
        TreasureType,
        QuestDefine,
        Checkpoint,
        RewardIssued,
        BankDeposit,
        WalletCredit,
    ];
    let one = |kind: EventKind| {
        let (subject, argument, payload) = of(kind);
        (5, event(kind.code() as u8, kind, subject, argument, payload))
    };
    kinds.map(one).to_vec()
}
