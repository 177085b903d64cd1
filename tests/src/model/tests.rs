//! Histories written by hand, with the answers that the rules demand.

use super::*;
use veltrix_abi::kinds::HotspotKind;
use veltrix_abi::outcomes::Outcome::{
    AlreadyClaimed, Applied, Expired, Full, InsufficientFunds, Malformed, NoKey, NotFound, TooNew,
    TooOld,
};

pub(super) const LIMITS: Limits = Limits {
    partitions: 4,
    cells_max: 100,
    players_max: 100,
    hunts_max: 10,
    definitions_max: 100,
    deeds_max: 100,
    keys_max: 2,
    window_ms: 60_000,
};

/// Log time at which the histories begin, milliseconds.
pub(super) const START_MS: u64 = 1_000_000_000;

pub(super) const HUNT: u64 = 7;

fn key(ms: u64, number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    key[8..].copy_from_slice(&number.to_be_bytes());
    key[6] = 0x70;
    key[8] = 0x80;
    key
}

/// A node to which events are given one by one, each with a key of its own.
pub(super) struct History {
    pub(super) model: Model,
    pub(super) log_time_ms: u64,
    keys: u64,
}

impl History {
    pub(super) fn new(limits: Limits) -> Self {
        Self { model: Model::new(limits), log_time_ms: START_MS, keys: 0 }
    }

    pub(super) fn event(
        &mut self,
        player: u64,
        kind: EventKind,
        subject: u64,
        argument: u64,
    ) -> Event {
        self.keys += 1;
        Event {
            domain: HUNT,
            key: key(self.log_time_ms, self.keys),
            player,
            subject,
            argument,
            kind: kind.code(),
            reserved: 0,
            payload: Vec::new(),
        }
    }

    pub(super) fn give(&mut self, event: Event) -> Answer {
        let entry = Entry {
            epoch: self.model.epoch() + 1,
            log_time_ns: self.log_time_ms * 1_000_000,
            events: vec![event],
        };
        self.model.apply(&entry)[0]
    }

    pub(super) fn ask(
        &mut self,
        player: u64,
        kind: EventKind,
        subject: u64,
        argument: u64,
    ) -> Outcome {
        let event = self.event(player, kind, subject, argument);
        let answer = self.give(event);
        assert_eq!(answer.first_epoch, None);
        answer.outcome
    }

    pub(super) fn spawn(&mut self, cell: u64, hotspot: Hotspot) -> Outcome {
        self.ask(0, EventKind::HotspotSpawn, cell, hotspot.pack().unwrap())
    }

    pub(super) fn player(&self, player: u64) -> Player {
        self.model
            .hunt(HUNT)
            .and_then(|hunt| hunt.players.get(&player))
            .copied()
            .unwrap_or_default()
    }
}

pub(super) fn item(remaining: u16) -> Hotspot {
    Hotspot { kind: HotspotKind::Item, item: 3, remaining, reward: 5, lifetime_s: 0 }
}

pub(super) fn chest(remaining: u16) -> Hotspot {
    Hotspot { kind: HotspotKind::Chest, item: 3, remaining, reward: 100, lifetime_s: 0 }
}

pub(super) const TICKET: Hotspot =
    Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 1_000, lifetime_s: 0 };

#[test]
fn a_key_is_found_and_opens_a_chest_once() {
    let mut h = History::new(LIMITS);
    assert_eq!(h.ask(1, EventKind::UseKey, 11, 0), NotFound, "no hunt yet");
    assert_eq!(h.spawn(10, item(2)), Applied);
    assert_eq!(h.spawn(11, chest(5)), Applied);
    assert_eq!(h.ask(1, EventKind::UseKey, 11, 0), NoKey, "no such player yet");
    assert_eq!(h.ask(1, EventKind::CollectItem, 10, 0), Applied);
    assert_eq!(h.player(1).inventory, [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(h.ask(1, EventKind::UseKey, 11, 0), Applied);
    assert_eq!(h.ask(1, EventKind::UseKey, 11, 0), NoKey);
    assert_eq!(
        h.player(1),
        Player { wallet: 100, score: 105, score_epoch: 6, ..Player::default() }
    );
    assert_eq!(h.model.hunt(HUNT).unwrap().cells[&11].remaining, 4);
    assert_eq!(h.ask(2, EventKind::CollectItem, 10, 0), Applied);
    assert_eq!(h.ask(3, EventKind::CollectItem, 10, 0), AlreadyClaimed);
    assert_eq!(h.ask(3, EventKind::CollectItem, 11, 0), NotFound, "a chest is no item");
    assert_eq!(h.ask(3, EventKind::Claim, 10, 0), NotFound, "an item is no ticket");
    assert_eq!(h.model.hunt(HUNT).unwrap().players.len(), 2, "the refused made no player");
}

#[test]
fn a_ticket_has_one_claimant_until_it_is_set_again() {
    let mut h = History::new(LIMITS);
    h.spawn(5, TICKET);
    for player in 0..200 {
        let wanted = if player == 0 { Applied } else { AlreadyClaimed };
        assert_eq!(h.ask(player, EventKind::Claim, 5, 0), wanted);
    }
    assert_eq!(
        h.player(0),
        Player { wallet: 1_000, score: 1_000, score_epoch: 2, ..Player::default() }
    );
    assert_eq!(h.model.hunt(HUNT).unwrap().cells[&5].claimed_by, Some(0));
    assert_eq!(h.spawn(5, TICKET), Applied);
    assert_eq!(h.ask(7, EventKind::Claim, 5, 0), Applied);
    assert_eq!(h.model.hunt(HUNT).unwrap().cells[&5].claimed_by, Some(7));
}

#[test]
fn a_hotspot_expires_at_its_second() {
    let mut h = History::new(LIMITS);
    h.spawn(5, Hotspot { lifetime_s: 10, ..TICKET });
    h.spawn(6, Hotspot { lifetime_s: 10, ..TICKET });
    h.log_time_ms += 9_999;
    assert_eq!(h.ask(1, EventKind::Claim, 5, 0), Applied);
    h.log_time_ms += 1;
    assert_eq!(h.ask(2, EventKind::Claim, 6, 0), Expired);
    assert_eq!(h.ask(2, EventKind::Claim, 5, 0), Expired, "asked before whether it was claimed");
}

#[test]
fn wallets_go_neither_below_zero_nor_over() {
    let mut h = History::new(LIMITS);
    assert_eq!(h.ask(1, EventKind::WalletSpend, 0, 1), InsufficientFunds, "no hunt");
    assert!(h.model.hunt(HUNT).is_none(), "and none was made");
    assert_eq!(
        h.ask(1, EventKind::WalletCredit, u64::MAX, 10),
        Applied,
        "subject is not looked at"
    );
    assert_eq!(h.ask(2, EventKind::WalletSpend, 0, 1), InsufficientFunds, "no player");
    assert_eq!(h.ask(1, EventKind::WalletSpend, 0, 11), InsufficientFunds);
    assert_eq!(h.ask(1, EventKind::WalletSpend, 0, 10), Applied);
    assert_eq!(h.ask(1, EventKind::WalletCredit, 0, u64::MAX), Applied);
    assert_eq!(h.ask(1, EventKind::WalletCredit, 0, 1), Full);
    h.spawn(5, TICKET);
    assert_eq!(h.ask(1, EventKind::Claim, 5, 0), Full, "the reward does not fit");
    assert_eq!(h.player(1), Player { wallet: u64::MAX, ..Player::default() });
    assert_eq!(h.ask(2, EventKind::Claim, 5, 0), Applied, "the refused claim left it");
}

#[test]
fn an_inventory_holds_65535_of_an_item() {
    let mut h = History::new(LIMITS);
    h.spawn(5, item(u16::MAX));
    for _ in 0..u16::MAX {
        assert_eq!(h.ask(1, EventKind::CollectItem, 5, 0), Applied);
    }
    h.spawn(5, item(1));
    assert_eq!(h.ask(1, EventKind::CollectItem, 5, 0), Full);
    assert_eq!(h.player(1).inventory[3], u16::MAX);
    assert_eq!(h.ask(2, EventKind::CollectItem, 5, 0), Applied);
}

#[test]
fn a_capacity_used_up_is_full_and_changes_nothing() {
    let mut h = History::new(Limits {
        partitions: 1,
        cells_max: 2,
        players_max: 1,
        hunts_max: 1,
        ..LIMITS
    });
    assert_eq!(h.spawn(1, TICKET), Applied);
    assert_eq!(h.spawn(2, item(9)), Applied);
    assert_eq!(h.spawn(3, TICKET), Full);
    assert_eq!(h.spawn(2, item(8)), Applied, "one that is there is set again");
    assert_eq!(h.ask(1, EventKind::CollectItem, 2, 0), Applied);
    assert_eq!(h.ask(2, EventKind::CollectItem, 2, 0), Full);
    assert_eq!(h.ask(2, EventKind::Claim, 1, 0), Full);
    assert_eq!(h.ask(2, EventKind::WalletCredit, 0, 1), Full);
    assert_eq!(h.model.hunt(HUNT).unwrap().cells[&2].remaining, 7);
    for (kind, argument) in
        [(EventKind::WalletCredit, 1), (EventKind::HotspotSpawn, TICKET.pack().unwrap())]
    {
        let event = Event { domain: HUNT + 1, ..h.event(1, kind, 1, argument) };
        assert_eq!(h.give(event).outcome, Full, "a second hunt");
    }
    assert!(h.model.hunt(HUNT + 1).is_none());
    let partition = h.model.partition(HUNT);
    assert_eq!((partition.cells_len(), partition.players_len()), (2, 1));
}

#[test]
fn a_retry_gets_the_first_answer_whatever_it_says() {
    let mut h = History::new(LIMITS);
    h.spawn(5, TICKET);
    let claim = h.event(1, EventKind::Claim, 5, 0);
    let loser = h.event(2, EventKind::Claim, 5, 0);
    assert_eq!(h.give(claim.clone()), Answer { outcome: Applied, first_epoch: None });
    assert_eq!(h.give(loser.clone()), Answer { outcome: AlreadyClaimed, first_epoch: None });
    assert_eq!(h.give(claim.clone()), Answer { outcome: Applied, first_epoch: Some(2) });
    assert_eq!(h.give(loser.clone()), Answer { outcome: AlreadyClaimed, first_epoch: Some(3) });
    let other = Event { kind: EventKind::WalletCredit.code(), argument: 9, ..claim.clone() };
    assert_eq!(h.give(other), Answer { outcome: Applied, first_epoch: Some(2) });
    assert_eq!(h.player(1).wallet, 1_000);
    let other_player = Event { player: 3, ..claim.clone() };
    assert_eq!(h.give(other_player), Answer { outcome: AlreadyClaimed, first_epoch: None });
}

#[test]
fn transfers_move_money_and_make_none() {
    let mut h = History::new(LIMITS);
    assert_eq!(h.ask(1, EventKind::WalletTransfer, 2, 1), InsufficientFunds, "no hunt");
    assert!(h.model.hunt(HUNT).is_none(), "and none was made");
    assert_eq!(h.ask(1, EventKind::WalletCredit, 0, 10), Applied);
    assert_eq!(h.ask(1, EventKind::WalletTransfer, 2, 11), InsufficientFunds);
    assert_eq!(h.ask(1, EventKind::WalletTransfer, 2, 4), Applied, "the payee comes to be");
    assert_eq!((h.player(1).wallet, h.player(2).wallet), (6, 4));
    assert_eq!(h.ask(3, EventKind::WalletCredit, 0, u64::MAX - 3), Applied);
    assert_eq!(h.ask(2, EventKind::WalletTransfer, 3, 4), Full);
    assert_eq!((h.player(2).wallet, h.player(3).wallet), (4, u64::MAX - 3), "neither moved");
}

#[test]
fn an_ended_hotspot_is_expired() {
    let mut h = History::new(LIMITS);
    assert_eq!(h.ask(1, EventKind::HotspotExpire, 5, 0), NotFound);
    h.spawn(5, TICKET);
    assert_eq!(h.ask(2, EventKind::HotspotExpire, 5, 0), Applied);
    assert_eq!(h.ask(1, EventKind::Claim, 5, 0), Expired);
    assert_eq!(h.ask(1, EventKind::HotspotExpire, 5, 0), Expired);
    h.spawn(5, TICKET);
    assert_eq!(h.ask(1, EventKind::Claim, 5, 0), Applied, "a new one stands there");
}

#[test]
fn nonsense_is_malformed_and_not_remembered() {
    let mut h = History::new(LIMITS);
    let good = h.event(1, EventKind::WalletCredit, 0, 5);
    let mut not_v7 = good.clone();
    not_v7.key[6] = 0x40;
    let cell = 1 << CELL_BITS;
    let bad = [
        not_v7,
        Event { kind: 0, ..good.clone() },
        Event { kind: 99, ..good.clone() },
        Event { reserved: 1, ..good.clone() },
        Event { argument: 0, ..good.clone() },
        Event { kind: EventKind::WalletSpend.code(), argument: 0, ..good.clone() },
        Event { kind: EventKind::WalletTransfer.code(), argument: 0, subject: 2, ..good.clone() },
        Event { kind: EventKind::WalletTransfer.code(), subject: good.player, ..good.clone() },
        Event { kind: EventKind::HotspotExpire.code(), argument: 1, ..good.clone() },
        Event { kind: EventKind::HotspotExpire.code(), argument: 0, subject: cell, ..good.clone() },
        Event { kind: EventKind::Claim.code(), argument: 1, ..good.clone() },
        Event { kind: EventKind::UseKey.code(), argument: 9, ..good.clone() },
        Event { kind: EventKind::CollectItem.code(), argument: 1, ..good.clone() },
        Event { kind: EventKind::CollectItem.code(), argument: 0, subject: cell, ..good.clone() },
        Event { kind: EventKind::HotspotSpawn.code(), argument: 0, ..good.clone() },
        Event {
            kind: EventKind::HotspotSpawn.code(),
            argument: TICKET.pack().unwrap(),
            subject: cell,
            ..good.clone()
        },
        // Judged before its key is looked at.
        Event { argument: 0, key: key(0, 1), ..good.clone() },
    ];
    for event in bad {
        assert_eq!(
            h.give(event.clone()),
            Answer { outcome: Malformed, first_epoch: None },
            "{event:?}"
        );
    }
    assert_eq!(h.give(good), Answer { outcome: Applied, first_epoch: None });
}

#[test]
fn keys_outside_the_window_are_refused_and_not_remembered() {
    let mut h = History::new(LIMITS);
    let at = |h: &mut History, ms: u64| {
        let event = Event { key: key(ms, 77), ..h.event(1, EventKind::WalletCredit, 0, 1) };
        h.give(event)
    };
    let fresh = |outcome| Answer { outcome, first_epoch: None };
    let edge = START_MS - LIMITS.window_ms;
    assert_eq!(at(&mut h, edge), fresh(TooOld));
    assert_eq!(at(&mut h, edge + 1), fresh(Applied));
    assert_eq!(at(&mut h, START_MS + TOO_NEW_MS + 1), fresh(TooNew));
    assert_eq!(at(&mut h, START_MS + TOO_NEW_MS), fresh(Applied));
    h.log_time_ms += 1;
    assert_eq!(at(&mut h, edge + 1), fresh(TooOld), "a duplicate no longer");
    assert_eq!(at(&mut h, START_MS + TOO_NEW_MS + 1), fresh(Applied), "was not remembered");
    // Log time never goes back.
    h.log_time_ms -= 30_000;
    assert_eq!(at(&mut h, edge + 1), fresh(TooOld));
}

#[test]
fn a_follower_holds_a_node_to_what_it_dropped() {
    let mut h = History::new(LIMITS);
    let events: Vec<Event> = (0..3)
        .map(|i| Event { key: key(START_MS + i, i), ..h.event(1, EventKind::WalletCredit, 0, 1) })
        .collect();
    let follow = |model: &mut Model, event: &Event, outcome, first_epoch| {
        let entry = Entry {
            epoch: model.epoch() + 1,
            log_time_ns: START_MS * 1_000_000,
            events: vec![event.clone()],
        };
        model.follow(&entry, &[Answer { outcome, first_epoch }])
    };
    let mut model = h.model.clone();
    for event in &events {
        follow(&mut model, event, Applied, None).unwrap();
    }
    let unknown = Event { key: key(START_MS, 99), ..events[0].clone() };
    let early = follow(&mut h.model.clone(), &unknown, TooOld, None).unwrap_err();
    assert_eq!(early.wanted.outcome, Applied, "nothing can be dropped yet");
    follow(&mut model, &events[1], TooOld, None).unwrap();
    follow(&mut model, &events[0], TooOld, None).unwrap();
    follow(&mut model, &events[2], Applied, Some(3)).unwrap();
    for (event, outcome, first_epoch) in [
        (&events[1], Applied, None),    // applied twice
        (&events[0], Applied, Some(1)), // remembered again
        (&events[2], Applied, None),    // applied twice
        (&events[2], Applied, Some(2)), // wrong epoch
    ] {
        let wrong = follow(&mut model.clone(), event, outcome, first_epoch).unwrap_err();
        assert_eq!(wrong.event, *event);
        assert!(wrong.to_string().contains("epoch 7, event 0"), "{wrong}");
    }
}

#[test]
fn partitions_know_nothing_of_each_other() {
    let mut h = History::new(LIMITS);
    let event = h.event(1, EventKind::WalletCredit, 0, 1);
    let other = (0..).find(|d| partition_of(*d, 4) != partition_of(HUNT, 4)).unwrap();
    let sister = (HUNT + 1..).find(|d| partition_of(*d, 4) == partition_of(HUNT, 4)).unwrap();
    assert_eq!(h.give(event.clone()).first_epoch, None);
    assert_eq!(h.give(Event { domain: other, ..event.clone() }).first_epoch, None);
    assert_eq!(h.give(Event { domain: sister, ..event }).first_epoch, Some(1));
}

#[test]
fn cells_are_found_in_order() {
    let mut h = History::new(LIMITS);
    for cell in [9, 3, 7, 1] {
        h.spawn(cell, TICKET);
    }
    assert_eq!(h.model.hunt(HUNT).unwrap().cells_in(2, 7), [3, 7]);
}
