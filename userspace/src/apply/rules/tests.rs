//! Each rule by itself, and what is no action at all.

use super::*;

const NOW_S: u32 = 1_000;
const TERMS: Terms = Terms { factor: 1, payee: Payee::Wallet, log_time_s: NOW_S };

fn hotspot(kind: HotspotKind) -> HotspotState {
    HotspotState { kind, item: 3, remaining: 2, reward: 50, expiry_s: 0, claimed: false }
}

fn player(items: u16) -> PlayerState {
    let mut inventory = [0; 8];
    inventory[3] = items;
    PlayerState { wallet: 7, score: 9, inventory, ..PlayerState::default() }
}

type Take = fn(
    Option<HotspotState>,
    Option<PlayerState>,
    &Terms,
) -> Result<(HotspotState, PlayerState), Outcome>;

/// [`use_key`] with whatever the chest wants.
fn any_key(
    hotspot: Option<HotspotState>,
    player: Option<PlayerState>,
    terms: &Terms,
) -> Result<(HotspotState, PlayerState), Outcome> {
    use_key(None, hotspot, player, terms)
}

/// Each rule that takes from a hotspot, its kind, and one it is not.
const TAKES: [(Take, HotspotKind, HotspotKind); 3] = [
    (collect, HotspotKind::Item, HotspotKind::Chest),
    (any_key, HotspotKind::Chest, HotspotKind::Ticket),
    (claim, HotspotKind::Ticket, HotspotKind::Item),
];

#[test]
fn what_is_not_there_is_not_found() {
    for (take, _, other) in TAKES {
        assert_eq!(take(None, Some(player(1)), &TERMS), Err(Outcome::NotFound));
        let wrong = Some(hotspot(other));
        assert_eq!(take(wrong, Some(player(1)), &TERMS), Err(Outcome::NotFound));
        assert_eq!(take(wrong, None, &TERMS), Err(Outcome::NotFound));
    }
}

#[test]
fn expiry_is_looked_at_before_what_remains() {
    for (take, kind, _) in TAKES {
        for remaining in [0, 2] {
            let at = |expiry_s| Some(HotspotState { expiry_s, remaining, ..hotspot(kind) });
            let someone = Some(player(1));
            assert_eq!(take(at(NOW_S), someone, &TERMS), Err(Outcome::Expired));
            assert_eq!(take(at(1), someone, &TERMS), Err(Outcome::Expired));
            assert_ne!(take(at(NOW_S + 1), someone, &TERMS), Err(Outcome::Expired));
            assert_ne!(take(at(0), someone, &TERMS), Err(Outcome::Expired));
        }
    }
}

#[test]
fn nothing_remaining_is_already_claimed() {
    for (take, kind, _) in TAKES {
        let empty = Some(HotspotState { remaining: 0, ..hotspot(kind) });
        assert_eq!(take(empty, Some(player(0)), &TERMS), Err(Outcome::AlreadyClaimed));
        assert_eq!(take(empty, None, &TERMS), Err(Outcome::AlreadyClaimed));
    }
}

#[test]
fn collecting_moves_one_item_and_pays_score() {
    let before = hotspot(HotspotKind::Item);
    let (after, owner) = collect(Some(before), Some(player(4)), &TERMS).unwrap();
    assert_eq!(after, HotspotState { remaining: 1, ..before });
    assert_eq!(owner, PlayerState { score: 59, ..player(5) });
}

#[test]
fn collecting_without_room_is_full() {
    let item = Some(hotspot(HotspotKind::Item));
    assert_eq!(collect(item, None, &TERMS), Err(Outcome::Full));
    assert_eq!(collect(item, Some(player(u16::MAX)), &TERMS), Err(Outcome::Full));
    let rich = PlayerState { score: SCORE_MAX - 49, ..player(0) };
    assert_eq!(collect(item, Some(rich), &TERMS), Err(Outcome::Full));
    let nearly = PlayerState { score: SCORE_MAX - 50, ..player(u16::MAX - 1) };
    let (_, owner) = collect(item, Some(nearly), &TERMS).unwrap();
    assert_eq!(owner, PlayerState { score: SCORE_MAX, ..player(u16::MAX) });
}

#[test]
fn a_key_opens_a_chest_and_is_used_up() {
    let before = hotspot(HotspotKind::Chest);
    let (after, owner) = use_key(None, Some(before), Some(player(1)), &TERMS).unwrap();
    assert_eq!(after, HotspotState { remaining: 1, ..before });
    assert_eq!(owner, PlayerState { wallet: 57, score: 59, ..player(0) });
}

#[test]
fn without_the_key_of_the_chest_there_is_no_key() {
    let chest = Some(hotspot(HotspotKind::Chest));
    assert_eq!(use_key(None, chest, None, &TERMS), Err(Outcome::NoKey));
    let mut other_keys = player(0);
    other_keys.inventory[2] = 5;
    assert_eq!(use_key(None, chest, Some(other_keys), &TERMS), Err(Outcome::NoKey));
    assert_eq!(use_key(Some(2), chest, Some(player(1)), &TERMS), Err(Outcome::NoKey), "named");
    assert!(use_key(Some(3), chest, Some(player(1)), &TERMS).is_ok());
}

#[test]
fn a_key_for_another_region_is_named_and_held() {
    assert_eq!(reserve_key(None, Some(3)), Err(Outcome::NoKey));
    assert_eq!(reserve_key(Some(player(1)), None), Err(Outcome::NoKey));
    assert_eq!(reserve_key(Some(player(1)), Some(2)), Err(Outcome::NoKey));
    assert_eq!(reserve_key(Some(player(1)), Some(3)), Ok(player(0)));
    assert_eq!(refund(player(0), Some(3), 0), player(1));
}

#[test]
fn what_another_region_pays_stops_at_the_end_of_the_number() {
    let paid = Gain { points: 5, currency: 6, item: Some(3) };
    let powered = PlayerState { power: 2, power_until_s: NOW_S + 1, ..player(0) };
    let after = gain(powered, &paid, NOW_S);
    assert_eq!((after.score, after.wallet, after.inventory[3]), (19, 13, 1));
    let rich = PlayerState { score: SCORE_MAX, wallet: u64::MAX, ..player(u16::MAX) };
    assert_eq!(gain(rich, &paid, NOW_S), rich);
}

#[test]
fn a_reward_that_overflows_is_full() {
    for (take, kind) in [(any_key as Take, HotspotKind::Chest), (claim, HotspotKind::Ticket)] {
        let there = Some(hotspot(kind));
        for rich in [
            PlayerState { wallet: u64::MAX - 49, ..player(1) },
            PlayerState { score: SCORE_MAX - 49, ..player(1) },
        ] {
            assert_eq!(take(there, Some(rich), &TERMS), Err(Outcome::Full));
        }
    }
}

#[test]
fn a_claim_is_hotspot_wallet_and_score_in_one_step() {
    let before = HotspotState { remaining: 1, ..hotspot(HotspotKind::Ticket) };
    let (after, owner) = claim(Some(before), Some(player(1)), &TERMS).unwrap();
    assert_eq!(after, HotspotState { remaining: 0, claimed: true, ..before });
    assert_eq!(owner, PlayerState { wallet: 57, score: 59, ..player(1) });
    assert_eq!(claim(Some(before), None, &TERMS), Err(Outcome::Full));
    assert_eq!(claim(Some(after), Some(player(0)), &TERMS), Err(Outcome::AlreadyClaimed));
}

#[test]
fn credits_stop_at_the_end_of_the_number() {
    assert_eq!(credit(Some(player(0)), 5).unwrap().wallet, 12);
    assert_eq!(credit(Some(player(0)), u64::MAX - 7).unwrap().wallet, u64::MAX);
    assert_eq!(credit(Some(player(0)), u64::MAX - 6), Err(Outcome::Full));
    assert_eq!(credit(None, 1), Err(Outcome::Full));
}

#[test]
fn a_wallet_never_goes_below_zero() {
    assert_eq!(spend(Some(player(2)), 7).unwrap(), PlayerState { wallet: 0, ..player(2) });
    assert_eq!(spend(Some(player(2)), 8), Err(Outcome::InsufficientFunds));
    assert_eq!(spend(None, 1), Err(Outcome::InsufficientFunds));
}

#[test]
fn a_transfer_takes_what_it_gives_or_nothing() {
    let (payer, payee) = (player(1), player(2));
    let (poorer, richer) = transfer(Some(payer), Some(payee), 7).unwrap();
    assert_eq!(poorer, PlayerState { wallet: 0, ..payer });
    assert_eq!(richer, PlayerState { wallet: 14, ..payee });
    let rich = Some(PlayerState { wallet: u64::MAX - 6, ..payee });
    assert_eq!(transfer(Some(payer), rich, 7), Err(Outcome::Full));
    assert_eq!(transfer(Some(payer), None, 7), Err(Outcome::Full));
    for payee in [Some(payee), rich, None] {
        assert_eq!(transfer(Some(payer), payee, 8), Err(Outcome::InsufficientFunds));
        assert_eq!(transfer(None, payee, 1), Err(Outcome::InsufficientFunds));
    }
}

#[test]
fn an_ended_hotspot_gives_no_more() {
    for (take, kind, _) in TAKES {
        for expiry_s in [0, NOW_S + 1, u32::MAX] {
            let before = HotspotState { expiry_s, claimed: true, ..hotspot(kind) };
            let after = expire(Some(before), NOW_S).unwrap();
            assert_eq!(after, HotspotState { expiry_s: NOW_S, ..before });
            assert_eq!(take(Some(after), Some(player(1)), &TERMS), Err(Outcome::Expired));
            assert_eq!(expire(Some(after), NOW_S), Err(Outcome::Expired));
        }
        assert_eq!(expire(Some(hotspot(kind)), 0).unwrap().expiry_s, 1, "0 means never");
    }
    assert_eq!(expire(None, NOW_S), Err(Outcome::NotFound));
}

#[test]
fn the_game_says_what_points_count_and_whose_the_currency_is() {
    let ticket = hotspot(HotspotKind::Ticket);
    let powered = PlayerState { power: 3, power_until_s: NOW_S + 1, ..player(1) };
    for (payee, wallet) in
        [(Payee::Wallet, 57), (Payee::Bank, 7), (Payee::Pot, 7), (Payee::Nobody, 7)]
    {
        let terms = Terms { factor: 2, payee, ..TERMS };
        for (take, kind) in [(any_key as Take, HotspotKind::Chest), (claim, HotspotKind::Ticket)] {
            let (_, after) = take(Some(hotspot(kind)), Some(player(1)), &terms).unwrap();
            assert_eq!((after.score, after.wallet), (9 + 100, wallet));
            let (_, after) = take(Some(hotspot(kind)), Some(powered), &terms).unwrap();
            assert_eq!((after.score, after.wallet), (9 + 300, wallet));
        }
        let item = Some(hotspot(HotspotKind::Item));
        let (_, after) = collect(item, Some(powered), &terms).unwrap();
        assert_eq!((after.score, after.wallet), (9 + 300, 7));
    }
    let terms = Terms { log_time_s: NOW_S + 1, ..TERMS };
    let (_, after) = claim(Some(ticket), Some(powered), &terms).unwrap();
    assert_eq!(after.score, 59, "the power-up has ended");
}

#[test]
fn spawned_hotspots_expire_after_their_life() {
    let wanted =
        Hotspot { kind: HotspotKind::Chest, item: 3, remaining: 2, reward: 50, lifetime_s: 0 };
    assert_eq!(spawn(&wanted, NOW_S), hotspot(HotspotKind::Chest));
    assert_eq!(spawn(&Hotspot { lifetime_s: 60, ..wanted }, NOW_S).expiry_s, NOW_S + 60);
    assert_eq!(spawn(&Hotspot { lifetime_s: 60, ..wanted }, u32::MAX - 1).expiry_s, u32::MAX);
    assert_eq!(log_time_s(1_999_999_999), 1);
    assert_eq!(log_time_s(u64::MAX), u32::MAX);
}

#[test]
fn nonsense_is_no_action() {
    let spawn =
        Hotspot { kind: HotspotKind::Ticket, item: 0, remaining: 1, reward: 1, lifetime_s: 1 };
    let packed = spawn.pack().unwrap();
    let high = 1 << CELL_BITS;
    let whole = high - 1;
    for (kind, argument, action) in [
        (EventKind::HotspotSpawn, packed, Action::Spawn(spawn)),
        (EventKind::CollectItem, 0, Action::Collect),
        (EventKind::UseKey, 0, Action::UseKey(None)),
        (EventKind::UseKey, 1, Action::UseKey(Some(0))),
        (EventKind::UseKey, 8, Action::UseKey(Some(7))),
        (EventKind::Claim, 0, Action::Claim),
        (EventKind::HotspotExpire, 0, Action::Expire),
        (EventKind::LocationPing, 0, Action::Ping),
    ] {
        assert_eq!(Action::of(kind.code(), 1, whole, argument, &[]), Some(action));
        assert_eq!(Action::of(kind.code(), 1, high, argument, &[]), None);
        // A spawn without a kind of hotspot, the others with an argument.
        let nonsense = if kind == EventKind::HotspotSpawn { argument & !3 } else { 9 };
        assert_eq!(Action::of(kind.code(), 1, 0, nonsense, &[]), None);
    }
    for (kind, action) in [
        (EventKind::WalletCredit, Action::Credit(9)),
        (EventKind::WalletSpend, Action::Spend(9)),
        (EventKind::WalletTransfer, Action::Transfer(9)),
    ] {
        assert_eq!(Action::of(kind.code(), 1, u64::MAX, 9, &[]), Some(action));
        assert_eq!(Action::of(kind.code(), 1, 0, 0, &[]), None);
    }
    let to_self = Action::of(EventKind::WalletTransfer.code(), 5, 5, 9, &[]);
    assert_eq!(to_self, None, "a wallet that pays itself");
    for kind in [0, EventKind::ALL.len() as u16 + 1, u16::MAX] {
        assert_eq!(Action::of(kind, 1, 0, 0, &[]), None);
    }
}

#[test]
fn nonsense_of_hunts_and_quests_is_no_action() {
    let of = |kind: EventKind, subject, argument, payload: &[u8]| {
        Action::of(kind.code(), 1, subject, argument, payload)
    };
    let setup = HuntSetup { game: 1, length_s: 9, settings: 0 };
    let packed = setup.pack().unwrap();
    assert_eq!(of(EventKind::HuntOpen, 0, packed, &[]), Some(Action::Open(setup)));
    assert_eq!(of(EventKind::HuntOpen, 0, packed, &[0; 17]), None);
    for (subject, argument) in [(1, packed), (0, packed | 1 << 28), (0, 0), (0, 99)] {
        assert_eq!(of(EventKind::HuntOpen, subject, argument, &[]), None);
    }
    let power_up = PowerUp { item: 1, factor: 2, seconds: 3 };
    let packed = power_up.pack().unwrap();
    let pay = QuestPay { node: 1, end: 2 }.pack().unwrap();
    let (graph, cycle) = ([1, 0, 0, 1], [1, 0, 0, 1, 1, 0]);
    let quest = 1 << QUEST_BITS;
    for (kind, (subject, argument, payload), action, nonsense) in [
        (EventKind::HuntClose, (0, 0, &[][..]), Action::Close, &[(0, 1, &[][..]), (1, 0, &[])][..]),
        (EventKind::PlayerJoin, (0, 16, &[]), Action::Join(16), &[(0, 17, &[]), (1, 1, &[])]),
        (
            EventKind::PowerUp,
            (0, packed, &[]),
            Action::PowerUp(power_up),
            &[(0, 0, &[]), (1, packed, &[])],
        ),
        (
            EventKind::TreasureType,
            (u64::MAX, 0, b"{}"),
            Action::Treasure,
            &[(1, 0, &[]), (1, 1, b"{}")],
        ),
        (
            EventKind::QuestDefine,
            (quest - 1, pay, &graph),
            Action::Define,
            &[(quest, pay, &graph), (1, pay | 1 << 40, &graph), (1, pay, &cycle), (1, pay, &[])],
        ),
        (EventKind::Checkpoint, (0x2ff, 0, &[]), Action::Pass(2, 255), &[(2, 1, &[])]),
        (EventKind::QuestAbandon, (2, 0, &[]), Action::Abandon, &[(2, 1, &[]), (quest, 0, &[])]),
        (EventKind::RewardIssued, (u64::MAX, 7, &[]), Action::Reward(7), &[(1, 0, &[])]),
        (EventKind::BankDeposit, (0, 7, &[]), Action::Deposit(7), &[(0, 0, &[]), (1, 7, &[])]),
        (EventKind::BankWithdraw, (0, 7, &[]), Action::Withdraw(7), &[(0, 0, &[]), (1, 7, &[])]),
    ] {
        assert_eq!(of(kind, subject, argument, payload), Some(action), "{kind:?}");
        for (subject, argument, payload) in nonsense {
            assert_eq!(of(kind, *subject, *argument, payload), None, "{kind:?} {subject}");
        }
    }
}
