//! Hunts of every game type, quests, rewards and banks, through whole partitions.

use veltrix_abi::Outcome;
use veltrix_abi::kinds::EventKind::{
    BankDeposit, BankWithdraw, Checkpoint, Claim, CollectItem, HotspotExpire, HuntClose, HuntOpen,
    LocationPing, PlayerJoin, QuestAbandon, QuestDefine, RewardIssued, TreasureType, UseKey,
    WalletCredit, WalletSpend,
};
use veltrix_abi::kinds::{EventKind, HuntSetup, PowerUp, QuestPay};

use super::tests::Answer::First;
use super::tests::{CHEST, HUNT, ITEM, LIMITS, TICKET, World};
use super::{Partition, PartitionLimits};
use crate::index::{DefinitionKind, Hunt, Player, PlayerSlot};

const FREE_ROAM: u8 = 1;
const TIMED_RACE: u8 = 2;
const TEAM_HUNT: u8 = 3;
const TERRITORY: u8 = 4;
const QUEST_CHAIN: u8 = 5;
const RAFFLE_DROP: u8 = 6;

/// 0 -> 1 -> 2
const CHAIN: &[u8] = &[2, 0, 0, 1, 1, 2];

impl World {
    fn does(&mut self, kind: EventKind, player: u64, subject: u64, argument: u64) -> Outcome {
        let wish = self.wish(kind, player, subject, argument);
        match self.one(wish) {
            First(outcome) => outcome,
            again => panic!("a new key: {again:?}"),
        }
    }

    fn says(
        &mut self,
        kind: EventKind,
        subject: u64,
        argument: u64,
        what: &'static [u8],
    ) -> Outcome {
        let wish = self.wish(kind, 1, subject, argument).with(what);
        match self.one(wish) {
            First(outcome) => outcome,
            again => panic!("a new key: {again:?}"),
        }
    }

    fn all(&mut self, steps: &[(EventKind, u64, u64, u64, Outcome)]) {
        for (kind, player, subject, argument, outcome) in steps {
            let seen = self.does(*kind, *player, *subject, *argument);
            assert_eq!(seen, *outcome, "{kind:?} by {player} of {subject}, {argument}");
        }
    }

    fn opened(game: u8) -> Self {
        let mut world = Self::default();
        world.open(game, 0, 0);
        world
    }

    fn open(&mut self, game: u8, length_s: u32, settings: u64) {
        let setup = HuntSetup { game, length_s, settings }.pack().unwrap();
        assert_eq!(self.does(HuntOpen, 1, 0, setup), Outcome::Applied);
    }

    fn quest(&mut self, id: u64, graph: &'static [u8]) {
        let pay = QuestPay { node: 10, end: 100 }.pack().unwrap();
        assert_eq!(self.says(QuestDefine, id, pay, graph), Outcome::Applied);
    }

    fn record(&self, player: u64) -> &Player {
        let index = self.home().index();
        index.player(index.player_slot(index.hunt(HUNT).unwrap(), player).unwrap())
    }

    fn hunt(&self) -> &Hunt {
        let index = self.home().index();
        index.hunt_record(index.hunt(HUNT).unwrap())
    }
}

use Outcome::{
    AlreadyClaimed, AlreadyDone, Applied, Closed, Full, InsufficientFunds, Malformed, NoKey,
    NotFound, NotJoined, OutOfOrder, OverQuota, WrongGame,
};

#[test]
fn a_closed_hunt_plays_no_more_and_its_wallets_stay() {
    let mut w = World::default();
    w.all(&[(HuntClose, 1, 0, 0, NotFound), (PlayerJoin, 1, 0, 0, NotFound)]);
    w.open(FREE_ROAM, 0, 0);
    w.spawn(5, &TICKET);
    w.quest(1, CHAIN);
    let setup = HuntSetup { game: FREE_ROAM, length_s: 0, settings: 0 }.pack().unwrap();
    let spawn = TICKET.pack().unwrap();
    let power_up = PowerUp { item: 0, factor: 2, seconds: 1 }.pack().unwrap();
    w.all(&[
        (HuntOpen, 1, 0, setup, AlreadyDone),
        (PlayerJoin, 7, 0, 0, Applied),
        (PlayerJoin, 7, 0, 0, AlreadyDone),
        (PlayerJoin, 7, 0, 1, WrongGame),
        (WalletCredit, 7, 0, 50, Applied),
        (HuntClose, 1, 0, 0, Applied),
        (HuntClose, 1, 0, 0, Closed),
        (HuntOpen, 1, 0, setup, Closed),
        (Claim, 7, 5, 0, Closed),
        (Claim, 7, 6, 0, Closed),
        (EventKind::HotspotSpawn, 7, 5, spawn, Closed),
        (HotspotExpire, 7, 5, 0, Closed),
        (PlayerJoin, 8, 0, 0, Closed),
        (LocationPing, 7, 5, 0, Closed),
        (CollectItem, 7, 5, 0, Closed),
        (UseKey, 7, 5, 0, Closed),
        (EventKind::PowerUp, 7, 0, power_up, Closed),
        (Checkpoint, 7, 1 << 8, 0, Closed),
        (QuestAbandon, 7, 1, 0, Closed),
        (WalletSpend, 7, 0, 20, Applied),
        (RewardIssued, 7, 1, 5, Applied),
        (BankDeposit, 7, 0, 1, WrongGame),
    ]);
    assert_eq!(w.says(TreasureType, 1, 0, b"{}"), Closed);
    let pay = QuestPay { node: 1, end: 1 }.pack().unwrap();
    assert_eq!(w.says(QuestDefine, 2, pay, CHAIN), Closed);
    assert_eq!(w.record(7).wallet, 35);
}

#[test]
fn a_hunt_ends_with_its_time_and_is_closed_for_its_pot() {
    let mut w = World::default();
    w.open(RAFFLE_DROP, 60, 0);
    w.spawn(5, &TICKET);
    w.spawn(6, &TICKET);
    w.all(&[(Claim, 7, 5, 0, Applied)]);
    assert_eq!((w.hunt().pot, w.hunt().lots, w.record(7).wallet), (100, 1, 0));
    assert_eq!(w.record(7).score, 100, "points are the player's at once");
    w.log_time_ms += 60_000;
    w.all(&[(Claim, 8, 6, 0, Closed), (HuntClose, 1, 0, 0, Applied), (HuntClose, 1, 0, 0, Closed)]);
    assert_eq!((w.hunt().pot, w.record(7).wallet), (0, 100), "the only lot");
}

#[test]
fn the_pot_goes_to_one_of_those_who_paid_into_it() {
    let mut w = World::opened(RAFFLE_DROP);
    for cell in 0..40 {
        w.spawn(cell, &TICKET);
        assert_eq!(w.does(Claim, 100 + cell, cell, 0), Applied);
    }
    w.spawn(50, &ITEM);
    w.all(&[(CollectItem, 100, 50, 0, Applied), (HuntClose, 1, 0, 0, Applied)]);
    assert_eq!(w.hunt().lots, 40, "an item is no lot");
    let wallets: Vec<u64> = (100..140).map(|player| w.record(player).wallet).collect();
    assert_eq!(wallets.iter().sum::<u64>(), 4_000);
    assert_eq!(wallets.iter().filter(|wallet| **wallet > 0).count(), 1);
}

#[test]
fn bonus_rounds_and_power_ups_multiply_points_alone() {
    let mut w = World::default();
    // Rounds of 10 s, each second one a bonus of 3.
    w.open(TIMED_RACE, 600, 10 | 2 << 16 | 3 << 24);
    (0..4).for_each(|cell| {
        w.spawn(cell, &TICKET);
    });
    w.spawn(9, &ITEM);
    w.all(&[(Claim, 7, 0, 0, Applied), (CollectItem, 7, 9, 0, Applied)]);
    assert_eq!((w.record(7).score, w.record(7).wallet), (110, 100));
    w.log_time_ms += 10_000;
    w.all(&[(Claim, 7, 1, 0, Applied)]);
    assert_eq!((w.record(7).score, w.record(7).wallet), (410, 200));
    let double = PowerUp { item: 2, factor: 2, seconds: 5 }.pack().unwrap();
    w.all(&[
        (EventKind::PowerUp, 8, 0, double, NoKey),
        (EventKind::PowerUp, 7, 0, double, Applied),
        (EventKind::PowerUp, 7, 0, double, NoKey),
        (Claim, 7, 2, 0, Applied),
    ]);
    assert_eq!((w.record(7).score, w.record(7).wallet), (1_010, 300));
    w.log_time_ms += 10_000;
    w.all(&[(Claim, 7, 3, 0, Applied)]);
    assert_eq!(w.record(7).score, 1_110, "both have ended");
}

#[test]
fn teams_share_a_bank_that_is_never_below_zero() {
    let mut w = World::opened(TEAM_HUNT);
    w.spawn(5, &TICKET);
    w.spawn(6, &ITEM);
    w.all(&[
        (Claim, 7, 5, 0, NotJoined),
        (CollectItem, 7, 6, 0, NotJoined),
        (BankDeposit, 7, 0, 1, NotJoined),
        (PlayerJoin, 7, 0, 0, WrongGame),
        (PlayerJoin, 7, 0, 17, Malformed),
        (PlayerJoin, 7, 0, 16, Applied),
        (PlayerJoin, 7, 0, 2, AlreadyDone),
        (PlayerJoin, 8, 0, 16, Applied),
        (PlayerJoin, 9, 0, 2, Applied),
        (WalletCredit, 10, 0, 5, Applied),
        (BankWithdraw, 10, 0, 1, NotJoined),
        (Claim, 7, 5, 0, Applied),
        (Claim, 9, 5, 0, AlreadyClaimed),
        (CollectItem, 7, 6, 0, Applied),
    ]);
    assert_eq!((w.record(7).wallet, w.record(7).score, w.hunt().banks[15]), (0, 110, 100));
    w.all(&[
        (BankWithdraw, 8, 0, 101, InsufficientFunds),
        (BankWithdraw, 9, 0, 1, InsufficientFunds),
        (BankWithdraw, 8, 0, 60, Applied),
        (BankDeposit, 8, 0, 61, InsufficientFunds),
        (BankDeposit, 8, 0, 10, Applied),
        (HuntClose, 1, 0, 0, Applied),
        (BankWithdraw, 7, 0, 50, Applied),
        (BankWithdraw, 7, 0, 1, InsufficientFunds),
    ]);
    assert_eq!((w.record(8).wallet, w.record(7).wallet, w.hunt().banks), (50, 50, [0; 16]));
}

#[test]
fn ground_is_taken_from_other_teams_only() {
    let mut w = World::opened(TERRITORY);
    w.spawn(5, &TICKET);
    w.spawn(6, &TICKET);
    w.all(&[
        (PlayerJoin, 7, 0, 1, Applied),
        (PlayerJoin, 8, 0, 1, Applied),
        (PlayerJoin, 9, 0, 2, Applied),
        (Claim, 7, 5, 0, Applied),
        (Claim, 7, 6, 0, Applied),
        (Claim, 8, 5, 0, AlreadyClaimed),
        (Claim, 10, 5, 0, AlreadyClaimed),
    ]);
    assert_eq!(w.hunt().tiles[..2], [2, 0]);
    w.all(&[(Claim, 9, 5, 0, Applied)]);
    assert_eq!(w.hunt().tiles[..2], [1, 1]);
    assert_eq!((w.record(9).wallet, w.record(9).score), (0, 100), "points, no currency");
    assert_eq!((w.record(7).wallet, w.record(7).score), (200, 200));
    w.all(&[(Claim, 9, 5, 0, AlreadyClaimed), (Claim, 8, 5, 0, Applied)]);
    assert_eq!(w.hunt().tiles[..2], [2, 0]);
    // Another ticket in the place of a held one is nobody's.
    w.spawn(5, &TICKET);
    assert_eq!(w.hunt().tiles[..2], [1, 0]);
    w.all(&[(HotspotExpire, 1, 6, 0, Applied), (Claim, 9, 6, 0, Outcome::Expired)]);
}

#[test]
fn quests_are_passed_in_order_and_paid_once() {
    let mut w = World::opened(FREE_ROAM);
    w.all(&[(Checkpoint, 7, 1 << 8, 0, NotFound), (QuestAbandon, 7, 1, 0, NotFound)]);
    w.quest(1, CHAIN);
    let pay = QuestPay { node: 10, end: 100 }.pack().unwrap();
    assert_eq!(w.says(QuestDefine, 1, pay, CHAIN), AlreadyDone);
    assert_eq!(w.says(QuestDefine, 2, pay, &[1, 0, 0, 1, 1, 0]), Malformed);
    w.all(&[
        (Checkpoint, 7, 1 << 8 | 1, 0, OutOfOrder),
        (Checkpoint, 7, 1 << 8 | 3, 0, NotFound),
        (Checkpoint, 7, 1 << 8, 0, Applied),
        (Checkpoint, 7, 1 << 8, 0, AlreadyDone),
        (Checkpoint, 7, 1 << 8 | 2, 0, OutOfOrder),
        (Checkpoint, 7, 1 << 8 | 1, 0, Applied),
    ]);
    assert_eq!((w.record(7).score, w.record(7).wallet), (20, 0));
    w.all(&[(Checkpoint, 7, 1 << 8 | 2, 0, Applied)]);
    assert_eq!((w.record(7).score, w.record(7).wallet), (130, 100));
    w.all(&[
        (QuestAbandon, 7, 1, 0, Applied),
        (QuestAbandon, 7, 1, 0, NotFound),
        (Checkpoint, 7, 1 << 8 | 1, 0, OutOfOrder),
        (Checkpoint, 7, 1 << 8, 0, Applied),
        (Checkpoint, 7, 1 << 8 | 1, 0, Applied),
        (Checkpoint, 7, 1 << 8 | 2, 0, Applied),
    ]);
    assert_eq!((w.record(7).score, w.record(7).wallet), (130, 100), "paid once for ever");
}

#[test]
fn checkpoints_are_for_those_who_joined() {
    let mut w = World::opened(TEAM_HUNT);
    w.quest(1, CHAIN);
    w.all(&[
        (Checkpoint, 7, 1 << 8, 0, NotJoined),
        (WalletCredit, 7, 0, 5, Applied),
        (Checkpoint, 7, 1 << 8, 0, NotJoined),
        (PlayerJoin, 7, 0, 3, Applied),
        (Checkpoint, 7, 1 << 8, 0, Applied),
    ]);
    assert_eq!((w.record(7).score, w.record(7).wallet), (10, 5));
}

#[test]
fn chained_quests_want_the_one_before() {
    let mut w = World::opened(QUEST_CHAIN);
    w.quest(1, CHAIN);
    w.quest(2, &[0, 0]);
    w.all(&[(Checkpoint, 7, 2 << 8, 0, OutOfOrder)]);
    for node in 0..3 {
        w.all(&[(Checkpoint, 7, 1 << 8 | node, 0, Applied)]);
    }
    w.all(&[(Checkpoint, 8, 2 << 8, 0, OutOfOrder), (Checkpoint, 7, 2 << 8, 0, Applied)]);
    // In other games every quest stands by itself.
    let mut w = World::opened(FREE_ROAM);
    w.quest(2, &[0, 0]);
    w.all(&[(Checkpoint, 7, 2 << 8, 0, Applied)]);
}

#[test]
fn a_reward_is_issued_once_whatever_its_key() {
    let mut w = World::default();
    w.all(&[
        (RewardIssued, 7, u64::MAX, 5, Applied),
        (RewardIssued, 7, u64::MAX, 5, AlreadyDone),
        (RewardIssued, 7, u64::MAX, 6, AlreadyDone),
        (RewardIssued, 7, u64::MAX - 1, 6, Applied),
        (RewardIssued, 8, u64::MAX, 5, Applied),
        (RewardIssued, 8, 0, 0, Malformed),
    ]);
    assert_eq!((w.record(7).wallet, w.record(8).wallet), (11, 5));
    assert_eq!(w.home().index().deeds_len(), 2, "one book a player");
}

#[test]
fn treasure_types_are_versioned() {
    let mut w = World::opened(FREE_ROAM);
    for (version, what) in [(1, &b"{\"rarity\":1}"[..]), (2, b"{\"rarity\":2}")] {
        assert_eq!(w.says(TreasureType, 9, 0, what), Applied);
        let index = w.home().index();
        let hunt = index.hunt(HUNT).unwrap();
        let slot = index.definition_slot(hunt, DefinitionKind::Treasure, 9).unwrap();
        let found = index.definition(slot);
        assert_eq!((found.version, found.payload()), (version, what));
    }
    assert_eq!(w.says(TreasureType, 9, 0, b""), Malformed);
    assert_eq!(w.home().index().definitions_len(), 1);
}

#[test]
fn pings_say_where_a_player_was_last() {
    let mut w = World::opened(FREE_ROAM);
    w.all(&[
        (LocationPing, 7, 5, 0, NotFound),
        (PlayerJoin, 7, 0, 0, Applied),
        (LocationPing, 7, 0, 0, Applied),
        (LocationPing, 7, 1 << 60, 0, Malformed),
    ]);
    assert_eq!(w.record(7).place, 1, "on cell 0");
    w.all(&[(LocationPing, 7, (1 << 60) - 1, 0, Applied)]);
    assert_eq!(w.record(7).place, 1 << 60);
}

#[test]
fn definitions_deeds_and_hunts_run_out() {
    use crate::index::IndexLimits;
    let index = IndexLimits { definitions_max: 1, deeds_max: 1, hunts_max: 1, ..LIMITS.index };
    let mut w = World::new(PartitionLimits { index, ..LIMITS });
    w.open(FREE_ROAM, 0, 0);
    w.quest(1, CHAIN);
    assert_eq!(w.says(TreasureType, 9, 0, b"{}"), Full);
    w.all(&[
        (Checkpoint, 7, 1 << 8, 0, Applied),
        (Checkpoint, 8, 1 << 8, 0, Full),
        (Checkpoint, 7, 1 << 8 | 1, 0, Applied),
        (RewardIssued, 7, 1, 5, Full),
    ]);
    let index = w.home().index();
    assert_eq!(index.players_len(), 1, "what is refused creates nobody");
    let alike = (0..).find(|domain| {
        let of = |domain| veltrix_abi::partition::partition_of(domain, 4);
        *domain != HUNT && of(*domain) == of(HUNT)
    });
    let mut wish = w.wish(HuntOpen, 1, 0, 1);
    wish.domain = alike.unwrap();
    assert_eq!(w.one(wish), First(Full));
}

#[test]
fn a_hunt_uses_no_more_than_its_quota() {
    let mut w = World::default();
    let setup = HuntSetup { game: FREE_ROAM, length_s: 0, settings: 0 }.pack().unwrap();
    // Tenant 9: 2 cells, 1 player, 8 events a second.
    let quota = &[9, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0];
    assert_eq!(w.says(HuntOpen, 0, setup, &quota[..15]), Malformed);
    assert_eq!(w.says(HuntOpen, 0, setup, quota), Applied);
    let ticket = TICKET.pack().unwrap();
    use EventKind::HotspotSpawn;
    w.all(&[
        (HotspotSpawn, 1, 5, ticket, Applied),
        (HotspotSpawn, 1, 6, ticket, Applied),
        (HotspotSpawn, 1, 7, ticket, OverQuota),
        (HotspotSpawn, 1, 6, ticket, Applied),
        (WalletCredit, 7, 0, 5, Applied),
        (WalletCredit, 8, 0, 5, OverQuota),
        (EventKind::WalletTransfer, 7, 8, 5, OverQuota),
    ]);
    assert_eq!(w.record(7).wallet, 5, "nothing was taken");
    w.all(&[
        (Claim, 7, 9, 0, NotFound),
        (Claim, 7, 5, 0, OverQuota),
        (HuntClose, 1, 0, 0, Applied),
    ]);
    let (tally, hunt) = (*w.home().index().tally(w.home().index().hunt(HUNT).unwrap()), w.hunt());
    assert_eq!((tally.cells, tally.players), (2, 1));
    // What opened it, three spawns, a credit, a claim of nothing, its end.
    assert_eq!(tally.events, 7, "as many as rules have decided");
    assert_eq!((hunt.tenant, hunt.over_quota), (9, 4));
    w.log_time_ms += 1_000;
    w.all(&[(Claim, 7, 5, 0, Closed), (WalletSpend, 7, 0, 5, Applied)]);
}

/// What is over a quota is not remembered: the same key goes through later, and a flood
/// uses up no keys of others.
#[test]
fn over_the_quota_of_a_second_is_not_for_ever() {
    let mut w = World::default();
    let setup = HuntSetup { game: FREE_ROAM, length_s: 0, settings: 0 }.pack().unwrap();
    assert_eq!(
        w.says(HuntOpen, 0, setup, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]),
        Applied
    );
    let (first, second) = (w.wish(WalletCredit, 7, 0, 5), w.wish(WalletCredit, 7, 0, 5));
    let keys = w.home().dedupe().keys_len();
    assert_eq!(
        w.send(&[first, second, second]),
        [First(Applied), First(OverQuota), First(OverQuota)]
    );
    assert_eq!(w.home().dedupe().keys_len(), keys + 1);
    w.log_time_ms += 1_000;
    assert_eq!(w.one(second), First(Applied));
    assert_eq!(w.record(7).wallet, 10);
}

/// Players that hold something as nobody's would hold it as a team's afterwards.
#[test]
fn a_hunt_with_players_is_not_opened_in_teams() {
    let mut w = World::default();
    w.spawn(5, &TICKET);
    w.all(&[(Claim, 7, 5, 0, Applied)]);
    for game in [TEAM_HUNT, TERRITORY] {
        let setup = HuntSetup { game, length_s: 0, settings: 0 }.pack().unwrap();
        w.all(&[(HuntOpen, 1, 0, setup, WrongGame)]);
    }
    w.open(TIMED_RACE, 60, 10 | 2 << 16 | 3 << 24);
}

/// Everything there is comes back from an image, and goes on as if it had not left.
#[test]
fn hunts_quests_and_rewards_survive_a_restart() {
    let mut w = World::opened(TERRITORY);
    w.spawn(5, &TICKET);
    w.spawn(6, &CHEST);
    w.quest(1, CHAIN);
    assert_eq!(w.says(TreasureType, 9, 0, b"{}"), Applied);
    w.all(&[
        (PlayerJoin, 7, 0, 1, Applied),
        (PlayerJoin, 8, 0, 2, Applied),
        (Claim, 7, 5, 0, Applied),
        (BankDeposit, 7, 0, 40, Applied),
        (Checkpoint, 7, 1 << 8, 0, Applied),
        (RewardIssued, 7, 3, 5, Applied),
        (LocationPing, 7, 5, 0, Applied),
        (UseKey, 7, 6, 0, NoKey),
    ]);
    let images = w.capture();
    let restored = images.iter().map(|image| {
        Partition::restore(&LIMITS, super::tests::secret(), image).expect("an image of this world")
    });
    let before = (*w.hunt(), *w.record(7));
    w.partitions = restored.collect();
    assert_eq!((*w.hunt(), *w.record(7)), before);
    w.all(&[
        (PlayerJoin, 7, 0, 1, AlreadyDone),
        (Claim, 7, 5, 0, AlreadyClaimed),
        (Claim, 8, 5, 0, Applied),
        (BankWithdraw, 7, 0, 41, InsufficientFunds),
        (Checkpoint, 7, 1 << 8, 0, AlreadyDone),
        (Checkpoint, 7, 1 << 8 | 1, 0, Applied),
        (RewardIssued, 7, 3, 5, AlreadyDone),
    ]);
    let mark = w.home().index().players().position(|p| p.player() == 8);
    assert_eq!(mark, Some(1));
    assert_eq!(PlayerSlot::of_mark(2).map(|slot| w.home().index().player(slot).player()), Some(8));
}
