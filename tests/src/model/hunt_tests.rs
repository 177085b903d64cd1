//! Histories of hunts, quests and rewards, written by hand.

use super::tests::{HUNT, History, LIMITS, TICKET, chest, item};
use super::*;
use veltrix_abi::kinds::EventKind::{
    BankDeposit, BankWithdraw, Checkpoint, Claim, CollectItem, HotspotSpawn, HuntClose, HuntOpen,
    LocationPing, PlayerJoin, QuestAbandon, QuestDefine, RewardIssued, TreasureType, UseKey,
    WalletCredit, WalletSpend, WalletTransfer,
};
use veltrix_abi::outcomes::Outcome::{
    AlreadyClaimed, AlreadyDone, Applied, Closed, Expired, Full, InsufficientFunds, Malformed,
    NoKey, NotFound, NotJoined, OutOfOrder, OverQuota, WrongGame,
};

const FREE_ROAM: u8 = 1;
const TIMED_RACE: u8 = 2;
const TEAM_HUNT: u8 = 3;
const TERRITORY: u8 = 4;
const QUEST_CHAIN: u8 = 5;
const RAFFLE_DROP: u8 = 6;

/// Rounds of 10 s; every third counts five times.
const ROUNDS: u64 = 10 | 3 << 16 | 5 << 24;

fn setup(game: u8, length_s: u32, settings: u64) -> u64 {
    HuntSetup { game, length_s, settings }.pack().unwrap()
}

impl History {
    /// A history in which a hunt was opened.
    fn of(game: u8) -> Self {
        let mut h = Self::new(LIMITS);
        assert_eq!(h.ask(0, HuntOpen, 0, setup(game, 0, 0)), Applied);
        h
    }

    fn ask_with(
        &mut self,
        player: u64,
        kind: EventKind,
        subject: u64,
        argument: u64,
        payload: &[u8],
    ) -> Outcome {
        let event = self.event(player, kind, subject, argument);
        self.give(Event { payload: payload.to_vec(), ..event }).outcome
    }

    fn define(&mut self, quest: u64, payload: &[u8], node: u32, end: u32) -> Outcome {
        let pay = QuestPay { node, end }.pack().unwrap();
        self.ask_with(0, QuestDefine, quest, pay, payload)
    }

    fn pass(&mut self, player: u64, quest: u64, node: u64) -> Outcome {
        self.ask(player, Checkpoint, quest * 256 + node, 0)
    }

    fn power_up(&mut self, player: u64, item: u8, factor: u8, seconds: u32) -> Outcome {
        let argument = PowerUp { item, factor, seconds }.pack().unwrap();
        self.ask(player, EventKind::PowerUp, 0, argument)
    }

    fn state(&self) -> HuntState {
        self.model.hunt(HUNT).unwrap().state
    }
}

#[test]
fn a_hunt_is_opened_once_and_closed_for_good() {
    let mut h = History::new(LIMITS);
    assert_eq!(h.ask(1, HuntClose, 0, 0), NotFound);
    assert_eq!(h.ask(1, PlayerJoin, 0, 0), NotFound);
    assert!(h.model.hunt(HUNT).is_none(), "and none was made");
    assert_eq!(h.ask(1, WalletCredit, 0, 9), Applied, "nobody has opened it");
    assert_eq!(h.ask(0, HuntOpen, 0, setup(TIMED_RACE, 60, ROUNDS)), Applied);
    assert_eq!(h.player(1).wallet, 9, "what was there stays");
    assert_eq!(h.ask(0, HuntOpen, 0, setup(FREE_ROAM, 0, 0)), AlreadyDone);
    h.log_time_ms += 59_999;
    assert_eq!(h.spawn(5, TICKET), Applied);
    h.log_time_ms += 1;
    assert_eq!(h.spawn(6, TICKET), Closed, "its time is up");
    assert_eq!(h.ask(0, HuntOpen, 0, setup(FREE_ROAM, 0, 0)), Closed);
    assert_eq!(h.ask(1, Claim, 5, 0), Closed);
    assert_eq!(h.ask(0, HuntClose, 0, 0), Applied);
    assert_eq!(h.ask(0, HuntClose, 0, 0), Closed);
    assert_eq!(h.ask(2, RewardIssued, 1, 3), Applied, "rewards and wallets go on");
    assert_eq!(h.ask(2, WalletTransfer, 1, 2), Applied);
    assert_eq!(h.ask(1, WalletSpend, 0, 11), Applied);
    assert_eq!((h.player(1).wallet, h.player(2).wallet), (0, 1));
}

#[test]
fn setups_that_no_game_takes_are_malformed() {
    let mut h = History::new(LIMITS);
    let bad = [
        setup(0, 0, 0),
        setup(7, 0, 0),
        setup(FREE_ROAM, 0, 1),
        setup(TEAM_HUNT, 0, ROUNDS),
        setup(TIMED_RACE, 0, ROUNDS),
        setup(TIMED_RACE, 60, 0),
        setup(TIMED_RACE, 60, ROUNDS | 1 << 28),
        setup(TIMED_RACE, 60, 10 | 1 << 16 | 5 << 24),
        setup(TIMED_RACE, 60, 10 | 3 << 16 | 1 << 24),
        setup(TIMED_RACE, 60, 3 << 16 | 5 << 24),
    ];
    for argument in bad {
        assert_eq!(h.ask(0, HuntOpen, 0, argument), Malformed, "{argument:x}");
    }
    assert_eq!(h.ask(0, HuntOpen, 1, setup(FREE_ROAM, 0, 0)), Malformed, "a subject");
    assert_eq!(h.ask(0, HuntOpen, 0, setup(FREE_ROAM, 1, 0)), Applied);
}

#[test]
fn rounds_and_power_ups_multiply_points_and_nothing_else() {
    let mut h = History::new(LIMITS);
    h.ask(0, HuntOpen, 0, setup(TIMED_RACE, 600, ROUNDS));
    h.spawn(1, item(9));
    h.spawn(2, chest(9));
    assert_eq!(h.power_up(1, 3, 2, 10), NoKey, "no such player");
    for seconds in [0, 19, 1, 9, 1] {
        h.log_time_ms += seconds * 1_000;
        assert_eq!(h.ask(1, CollectItem, 1, 0), Applied);
    }
    assert_eq!(h.player(1).score, 5 + 5 + 25 + 25 + 5);
    assert_eq!(h.power_up(1, 3, 4, 10), Applied);
    assert_eq!(h.power_up(1, 3, 2, 10), Applied, "instead of the one before");
    assert_eq!(h.ask(1, UseKey, 2, 0), Applied);
    assert_eq!((h.player(1).score, h.player(1).wallet), (65 + 200, 100));
    h.log_time_ms += 9_999;
    assert_eq!(h.ask(1, UseKey, 2, 0), Applied);
    h.log_time_ms += 1;
    assert_eq!(h.ask(1, UseKey, 2, 0), Applied);
    assert_eq!((h.player(1).score, h.player(1).wallet), (265 + 200 + 100, 300));
    assert_eq!(h.power_up(1, 3, 4, 10), NoKey);
}

#[test]
fn teams_share_a_bank() {
    let mut h = History::of(TEAM_HUNT);
    h.spawn(1, TICKET);
    h.spawn(2, item(9));
    assert_eq!(h.ask(1, PlayerJoin, 0, 0), WrongGame);
    assert_eq!(h.ask(1, PlayerJoin, 0, 17), Malformed);
    assert_eq!(h.ask(1, Claim, 1, 0), NotJoined);
    assert_eq!(h.ask(1, BankDeposit, 0, 1), NotJoined);
    assert_eq!(h.ask(1, WalletCredit, 0, 10), Applied);
    assert_eq!(h.ask(1, CollectItem, 2, 0), NotJoined, "known, and in no team");
    assert_eq!(h.ask(1, PlayerJoin, 0, 16), Applied);
    assert_eq!(h.ask(1, PlayerJoin, 0, 16), AlreadyDone);
    assert_eq!(h.ask(2, PlayerJoin, 0, 1), Applied);
    assert_eq!(h.ask(1, Claim, 1, 0), Applied);
    assert_eq!((h.player(1).wallet, h.player(1).score), (10, 1_000));
    assert_eq!((h.state().banks[15], h.state().banks[0]), (1_000, 0));
    assert_eq!(h.ask(1, BankWithdraw, 0, 1_001), InsufficientFunds);
    assert_eq!(h.ask(2, BankWithdraw, 0, 1), InsufficientFunds, "another team's");
    assert_eq!(h.ask(0, HuntClose, 0, 0), Applied);
    assert_eq!(h.ask(1, BankWithdraw, 0, 1_000), Applied, "banks stay");
    assert_eq!(h.ask(1, BankDeposit, 0, 1_011), InsufficientFunds);
    assert_eq!(h.ask(1, BankDeposit, 0, 7), Applied);
    assert_eq!((h.player(1).wallet, h.state().banks[15]), (1_003, 7));
    let mut h = History::of(FREE_ROAM);
    assert_eq!(h.ask(1, BankDeposit, 0, 1), WrongGame);
    assert_eq!(h.ask(1, PlayerJoin, 0, 1), WrongGame);
    assert_eq!(h.ask(1, PlayerJoin, 0, 0), Applied);
    assert_eq!(h.ask(1, PlayerJoin, 0, 0), AlreadyDone);
}

#[test]
fn a_hunt_with_players_is_opened_without_teams_only() {
    let mut h = History::new(LIMITS);
    assert_eq!(h.ask(9, WalletCredit, 0, 1), Applied);
    assert_eq!(h.ask(0, HuntOpen, 0, setup(TERRITORY, 0, 0)), WrongGame);
    assert_eq!(h.ask(0, HuntOpen, 0, setup(FREE_ROAM, 0, 0)), Applied);
}

#[test]
fn a_quota_bounds_cells_players_and_events_of_a_second() {
    let mut h = History::new(LIMITS);
    let quota = Quota { tenant: 9, cells_max: 1, players_max: 1, events_per_s: 5 };
    let open = h.ask_with(0, HuntOpen, 0, setup(FREE_ROAM, 0, 0), &quota.bytes());
    assert_eq!(open, Applied);
    assert_eq!((h.spawn(1, TICKET), h.spawn(2, TICKET)), (Applied, OverQuota));
    assert_eq!(h.ask(1, WalletCredit, 0, 1), Applied);
    assert_eq!(h.ask(2, WalletCredit, 0, 1), OverQuota);
    assert_eq!(h.ask(1, Claim, 1, 0), Applied);
    let spend = h.event(1, WalletSpend, 0, 1);
    assert_eq!(h.give(spend.clone()).outcome, OverQuota, "the sixth");
    assert_eq!((h.state().over_quota, h.state().counted.1), (3, 5));
    h.log_time_ms += 1_000;
    assert_eq!(h.give(spend).outcome, Applied, "not remembered");
    assert_eq!(h.ask(0, HuntClose, 0, 0), Applied);
}

#[test]
fn ground_goes_from_team_to_team() {
    let mut h = History::new(LIMITS);
    h.spawn(1, TICKET);
    h.spawn(2, TICKET);
    assert_eq!(h.ask(0, HuntOpen, 0, setup(TERRITORY, 0, 0)), Applied);
    for (player, team) in [(1, 1), (2, 2), (3, 2)] {
        assert_eq!(h.ask(player, PlayerJoin, 0, team), Applied);
    }
    let tiles = |h: &History| h.model.hunt(HUNT).unwrap().tiles()[..3].to_vec();
    assert_eq!(h.ask(9, Claim, 2, 0), NotJoined, "held by nobody");
    assert_eq!(h.ask(9, PlayerJoin, 0, 3), Applied);
    assert_eq!(tiles(&h), [0, 0, 0], "no team has claimed any");
    assert_eq!(h.ask(1, Claim, 2, 0), Applied);
    assert_eq!(h.ask(2, Claim, 2, 0), Applied);
    assert_eq!(h.ask(3, Claim, 2, 0), AlreadyClaimed, "its own team's");
    assert_eq!(tiles(&h), [0, 1, 0]);
    assert_eq!((h.player(1).wallet, h.player(2).wallet, h.player(2).score), (1_000, 0, 1_000));
    assert_eq!(h.ask(9, Claim, 1, 0), Applied, "nobody's until now");
    assert_eq!(h.ask(2, Claim, 1, 0), Applied);
    assert_eq!(tiles(&h), [0, 2, 0]);
    assert_eq!(h.spawn(1, TICKET), Applied);
    assert_eq!(tiles(&h), [0, 1, 0], "ground that was set anew is nobody's");
    let until = Hotspot { lifetime_s: 1, ..TICKET };
    assert_eq!(h.spawn(1, until), Applied);
    assert_eq!(h.ask(1, Claim, 1, 0), Applied);
    h.log_time_ms += 1_000;
    assert_eq!(h.ask(2, Claim, 1, 0), Expired);
    assert_eq!(tiles(&h), [1, 1, 0], "and stays with who held it");
}

#[test]
fn one_of_those_who_paid_wins_the_pot() {
    let mut h = History::of(RAFFLE_DROP);
    h.ask(9, WalletCredit, 0, 1);
    let mut winner = None;
    for player in 1..=8 {
        h.spawn(player, TICKET);
        let claim = h.event(player, Claim, player, 0);
        let (key, epoch) = (claim.key, h.model.epoch() + 1);
        assert_eq!(h.give(claim).outcome, Applied);
        if games::lot(key, epoch, h.log_time_ms * 1_000_000, player).is_multiple_of(player) {
            winner = Some(player);
        }
        assert_eq!((h.state().lots, h.state().winner), (player as u32, winner));
    }
    assert_eq!(h.state().pot, 8_000);
    let winner = winner.unwrap();
    assert_eq!(h.player(winner).wallet, 0);
    assert_eq!(h.ask(winner, WalletCredit, 0, u64::MAX - 7_000), Applied);
    assert_eq!(h.ask(0, HuntClose, 0, 0), Applied);
    assert_eq!((h.player(winner).wallet, h.state().pot), (u64::MAX, 1_000), "what fits");
}

#[test]
fn quests_are_passed_in_order_and_paid_once() {
    let mut h = History::of(FREE_ROAM);
    // 0 -> 1 -> 3, 0 -> 2 -> 3, 2 -> 4
    let graph = [4, 0, 0, 1, 0, 2, 1, 3, 2, 3, 2, 4];
    assert_eq!(h.pass(1, 7, 0), NotFound, "no such quest");
    assert_eq!(h.define(7, &graph, 10, 500), Applied);
    assert_eq!(h.define(7, &[0, 0], 1, 1), AlreadyDone);
    assert_eq!(h.ask(1, QuestAbandon, 7, 0), NotFound, "no such player");
    assert_eq!(h.pass(1, 7, 5), NotFound, "no such node");
    assert_eq!(h.pass(1, 7, 3), OutOfOrder);
    for node in [0, 2, 3] {
        assert_eq!(h.pass(1, 7, node), Applied);
    }
    assert_eq!((h.player(1).score, h.player(1).wallet), (530, 500));
    assert_eq!(h.pass(1, 7, 4), Applied, "another end");
    assert_eq!(h.pass(1, 7, 4), AlreadyDone);
    assert_eq!((h.player(1).score, h.player(1).wallet), (540, 500));
    assert_eq!(h.ask(1, QuestAbandon, 7, 0), Applied);
    assert_eq!(h.ask(1, QuestAbandon, 7, 0), NotFound);
    assert_eq!(h.pass(1, 7, 2), OutOfOrder);
    for node in [0, 1, 2, 3] {
        assert_eq!(h.pass(1, 7, node), Applied);
    }
    assert_eq!((h.player(1).score, h.player(1).wallet), (550, 500), "only node 1 was new");
    assert_eq!((h.model.partition(HUNT).deeds_len(), h.player(2).score), (1, 0));
}

#[test]
fn chained_quests_want_the_one_before() {
    let mut h = History::of(QUEST_CHAIN);
    for quest in [0, 1, 2, 4] {
        assert_eq!(h.define(quest, &[1, 0, 0, 1], 1, 1), Applied);
    }
    assert_eq!(h.pass(1, 2, 0), OutOfOrder);
    assert_eq!((h.pass(1, 0, 0), h.pass(1, 1, 0)), (Applied, Applied));
    assert_eq!(h.pass(1, 2, 0), OutOfOrder, "begun, not ended");
    assert_eq!(h.pass(1, 1, 1), Applied);
    assert_eq!(h.ask(1, QuestAbandon, 1, 0), Applied, "ended is ended");
    assert_eq!(h.pass(1, 2, 0), Applied);
    assert_eq!(h.pass(1, 4, 0), OutOfOrder, "there is no quest 3");
    let mut h = History::of(TEAM_HUNT);
    assert_eq!(h.define(2, &[0, 0], 1, 1), Applied);
    assert_eq!(h.pass(1, 2, 9), NotJoined, "before the node is looked at");
    assert_eq!(h.ask(1, PlayerJoin, 0, 4), Applied);
    assert_eq!(h.pass(1, 2, 0), Applied);
    assert_eq!(h.player(1).wallet, 1, "a quest pays its player, not the bank");
}

#[test]
fn what_is_no_graph_is_malformed() {
    let mut h = History::of(FREE_ROAM);
    let bad: [&[u8]; 9] = [
        &[],
        &[1],
        &[1, 0, 0],
        &[1, 1, 0, 1],
        &[1, 0, 0, 2],
        &[1, 0, 2, 0],
        &[1, 0, 0, 1, 0, 1],
        &[1, 0, 1, 1],
        &[3, 0, 0, 1, 1, 2, 2, 3, 3, 1],
    ];
    for payload in bad {
        assert_eq!(h.define(7, payload, 1, 1), Malformed, "{payload:?}");
    }
    assert_eq!(h.define(1 << 56, &[0, 0], 1, 1), Malformed);
    assert_eq!(h.ask_with(0, QuestDefine, 7, 1 << 40, &[0, 0]), Malformed);
    assert_eq!(h.ask_with(0, TreasureType, 7, 0, &[]), Malformed);
    let chain: Vec<u8> = (0..=254).flat_map(|node| [node, node + 1]).collect();
    assert_eq!(h.define(7, &[&[255, 0], &chain[..]].concat(), 1, 1), Applied);
    let circle = [&[255, 0], &chain[2..], &[255, 1]].concat();
    assert_eq!(h.define(8, &circle, 1, 1), Malformed);
}

#[test]
fn rewards_treasures_and_pings() {
    let mut h = History::new(LIMITS);
    assert_eq!(h.ask(1, LocationPing, 5, 0), NotFound);
    assert_eq!(h.ask(1, RewardIssued, 255, 4), Applied, "hunt and player come to be");
    assert_eq!(h.ask(1, RewardIssued, 255, 9), AlreadyDone);
    assert_eq!(h.ask(1, RewardIssued, 0, 1), Applied);
    assert_eq!(h.model.partition(HUNT).deeds_len(), 1, "of the same 256 numbers");
    assert_eq!(h.ask(1, RewardIssued, 256, 1), Applied);
    assert_eq!(h.ask(2, RewardIssued, 255, 1), Applied);
    assert_eq!((h.player(1).wallet, h.model.partition(HUNT).deeds_len()), (6, 3));
    assert_eq!(h.ask(1, LocationPing, 0, 0), Applied);
    assert_eq!(h.player(1).place, Some(0));
    assert_eq!(h.ask_with(0, TreasureType, 3, 0, b"gold"), Applied);
    assert_eq!(h.ask_with(0, TreasureType, 3, 0, b"lead"), Applied);
    let treasure = Treasure { payload: b"lead".to_vec(), version: 2 };
    assert_eq!(h.model.hunt(HUNT).unwrap().treasures[&3], treasure);
    assert_eq!(h.model.partition(HUNT).definitions_len(), 1);
}

#[test]
fn definitions_and_deeds_run_out() {
    let limits = Limits { partitions: 1, definitions_max: 2, deeds_max: 2, hunts_max: 1, ..LIMITS };
    let mut h = History::new(limits);
    assert_eq!(h.ask(0, HuntOpen, 0, setup(FREE_ROAM, 0, 0)), Applied);
    let other = h.event(0, HuntOpen, 0, setup(FREE_ROAM, 0, 0));
    assert_eq!(h.give(Event { domain: HUNT + 1, ..other }).outcome, Full);
    assert_eq!(h.define(1, &[1, 0], 1, 1), Applied);
    assert_eq!(h.ask_with(0, TreasureType, 1, 0, b"x"), Applied);
    assert_eq!(h.ask_with(0, TreasureType, 2, 0, b"x"), Full);
    assert_eq!(h.define(2, &[0, 0], 1, 1), Full);
    assert_eq!(h.ask_with(0, TreasureType, 1, 0, b"y"), Applied, "one that is there");
    assert_eq!(h.pass(1, 1, 0), Applied);
    assert_eq!(h.ask(1, RewardIssued, 1, 1), Applied);
    assert_eq!((h.pass(2, 1, 0), h.ask(2, RewardIssued, 1, 1)), (Full, Full));
    assert_eq!(h.model.hunt(HUNT).unwrap().players.len(), 1, "the refused made no player");
    assert_eq!((h.pass(1, 1, 1), h.ask(1, RewardIssued, 2, 1)), (Applied, Applied));
    assert_eq!(h.ask(1, HotspotSpawn, 1, TICKET.pack().unwrap()), Applied);
}
