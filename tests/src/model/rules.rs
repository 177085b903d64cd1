//! What each kind of event does to a hunt.
//!
//! A rule looks at a [`Scene`], which it cannot change, and says in the order of the
//! table on the page of the server's `apply` why not, or what shall be there
//! afterwards. So a refused event changes nothing.

use veltrix_abi::kinds::{
    EventKind, Hotspot, HotspotKind, HuntSetup, PowerUp, QuestPay, Quota, SCORE_MAX, Stream,
};
use veltrix_abi::outcomes::Outcome;

use super::games::{self, Game};
use super::graph::Graph;
use super::state::{HotspotState, Hunt, HuntState, Player, Power, Progress, Quest, Treasure};
use super::{Event, Limits, Partition};

/// When an event is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) epoch: u64,
    pub(super) log_time_ns: u64,
}

/// What a rule can see.
struct Scene<'a> {
    partition: &'a Partition,
    limits: &'a Limits,
    event: &'a Event,
    now: Now,
    /// Its hunt, if there is one.
    hunt: Option<&'a Hunt>,
}

/// What an applied event leaves behind.
#[derive(Default)]
struct Change {
    /// The hotspot on the event's cell.
    hotspot: Option<HotspotState>,
    /// The player that acts.
    player: Option<Player>,
    /// Another player.
    other: Option<(u64, Player)>,
    state: Option<HuntState>,
    /// The quest that the event's subject calls so.
    quest: Option<Quest>,
    /// The treasure type that the event's subject calls so.
    treasure: Option<Treasure>,
    /// How far the player is in a quest.
    progress: Option<(u64, Progress)>,
    /// Whether the player has the reward of the subject's number.
    is_rewarded: bool,
}

type Judged = Result<Change, Outcome>;

/// Judges an event that was not judged before, and does what it asks for.
pub(super) fn outcome(
    partition: &mut Partition,
    limits: &Limits,
    now: Now,
    kind: EventKind,
    event: &Event,
) -> Outcome {
    let hunt = partition.hunts.get(&event.domain);
    let scene = Scene { partition, limits, event, now, hunt };
    let judged = judge(&scene, kind).and_then(|change| within_quota(&scene, change));
    match judged {
        Ok(change) => {
            partition.make(event, now.epoch, change);
            Outcome::Applied
        }
        Err(outcome) => {
            if let (Outcome::OverQuota, Some(hunt)) =
                (outcome, partition.hunts.get_mut(&event.domain))
            {
                hunt.state.over_quota += 1;
            }
            outcome
        }
    }
}

/// A hunt may have so many cells and players, and no more.
fn within_quota(scene: &Scene<'_>, change: Change) -> Judged {
    let Some(hunt) = scene.hunt else { return Ok(change) };
    let quota = hunt.state.quota;
    let is_used_up = |max: u32, used: usize| max > 0 && used >= max as usize;
    let new_cell = change.hotspot.is_some() && !hunt.cells.contains_key(&scene.event.subject);
    let acting = change.player.map(|_| scene.event.player);
    let mut players = acting.into_iter().chain(change.other.map(|(player, _)| player));
    let new_player = players.any(|player| !hunt.players.contains_key(&player));
    if (new_cell && is_used_up(quota.cells_max, hunt.cells.len()))
        || (new_player && is_used_up(quota.players_max, hunt.players.len()))
    {
        return Err(Outcome::OverQuota);
    }
    Ok(change)
}

fn judge(scene: &Scene<'_>, kind: EventKind) -> Judged {
    let makes_hunt = matches!(kind, EventKind::HotspotSpawn | EventKind::HuntOpen);
    if kind.stream() != Stream::Reward {
        match scene.hunt {
            None if !makes_hunt => return Err(Outcome::NotFound),
            Some(hunt) if kind != EventKind::HuntClose && hunt.state.is_over(scene.now_s()) => {
                return Err(Outcome::Closed);
            }
            _ => {}
        }
    }
    match kind {
        EventKind::HotspotSpawn => spawn(scene),
        EventKind::CollectItem => take(scene, HotspotKind::Item),
        EventKind::UseKey => take(scene, HotspotKind::Chest),
        EventKind::Claim => take(scene, HotspotKind::Ticket),
        EventKind::HotspotExpire => expire(scene),
        EventKind::WalletCredit => credit(scene),
        EventKind::WalletSpend => spend(scene),
        EventKind::WalletTransfer => transfer(scene),
        EventKind::HuntOpen => open(scene),
        EventKind::HuntClose => close(scene),
        EventKind::PlayerJoin => join(scene),
        EventKind::LocationPing => ping(scene),
        EventKind::PowerUp => power_up(scene),
        EventKind::TreasureType => set_treasure(scene),
        EventKind::QuestDefine => define(scene),
        EventKind::Checkpoint => checkpoint(scene),
        EventKind::QuestAbandon => abandon(scene),
        EventKind::RewardIssued => reward(scene),
        EventKind::BankDeposit => bank(scene, |wallet, bank, amount| {
            let wallet = minus(wallet, amount)?;
            Ok((wallet, plus(bank, amount)?))
        }),
        EventKind::BankWithdraw => bank(scene, |wallet, bank, amount| {
            let bank = minus(bank, amount)?;
            Ok((plus(wallet, amount)?, bank))
        }),
    }
}

impl Partition {
    /// Makes it so. That there is room was asked before.
    fn make(&mut self, event: &Event, epoch: u64, change: Change) {
        let hunt = self.hunts.entry(event.domain).or_default();
        let (player, subject) = (event.player, event.subject);
        if let Some(hotspot) = change.hotspot {
            self.cells += usize::from(hunt.cells.insert(subject, hotspot).is_none());
        }
        let acting = change.player.map(|state| (player, state));
        for (player, state) in acting.into_iter().chain(change.other) {
            self.players += usize::from(!hunt.players.contains_key(&player));
            hunt.put(player, state, epoch);
        }
        if let Some(state) = change.state {
            hunt.state = state;
        }
        if let Some(quest) = change.quest {
            self.definitions += usize::from(hunt.quests.insert(subject, quest).is_none());
        }
        if let Some(treasure) = change.treasure {
            self.definitions += usize::from(hunt.treasures.insert(subject, treasure).is_none());
        }
        if let Some((quest, progress)) = change.progress {
            let before = hunt.progress.insert((player, quest), progress);
            self.deeds += usize::from(before.is_none());
        }
        if change.is_rewarded {
            self.deeds += usize::from(!hunt.has_reward_near(player, subject));
            hunt.rewards.entry(player).or_default().insert(subject);
        }
    }
}

impl<'a> Scene<'a> {
    /// Log time, seconds.
    fn now_s(&self) -> u64 {
        self.now.log_time_ns / 1_000_000_000
    }

    /// The hunt, of an event that is for none but one that is there.
    fn known_hunt(&self) -> Result<&'a Hunt, Outcome> {
        self.hunt.ok_or(Outcome::NotFound)
    }

    /// How the hunt stands; as a new one where there is none.
    fn state(&self) -> HuntState {
        self.hunt.map(|hunt| hunt.state).unwrap_or_default()
    }

    /// `full` when the hunt is not there and there is no room for it.
    fn want_hunt(&self) -> Result<(), Outcome> {
        let has_room = self.partition.hunts.len() < self.limits.hunts_max;
        if self.hunt.is_some() || has_room { Ok(()) } else { Err(Outcome::Full) }
    }

    /// A player of the hunt, if known.
    fn known(&self, player: u64) -> Option<Player> {
        self.hunt?.players.get(&player).copied()
    }

    /// A player of the hunt, a new one if unknown; `full` when there is no room for
    /// that.
    fn player(&self, player: u64) -> Result<Player, Outcome> {
        let has_room = self.partition.players_len() < self.limits.players_max;
        let new = if has_room { Ok(Player::default()) } else { Err(Outcome::Full) };
        self.known(player).map_or(new, Ok)
    }

    /// The player that acts.
    fn actor(&self) -> Result<Player, Outcome> {
        self.player(self.event.player)
    }

    fn want_definition(&self) -> Result<(), Outcome> {
        let has_room = self.partition.definitions_len() < self.limits.definitions_max;
        if has_room { Ok(()) } else { Err(Outcome::Full) }
    }

    fn want_deed(&self) -> Result<(), Outcome> {
        let has_room = self.partition.deeds_len() < self.limits.deeds_max;
        if has_room { Ok(()) } else { Err(Outcome::Full) }
    }

    /// A player with points more, multiplied by what the game and the player's own
    /// power-up say.
    fn scored(&self, player: Player, points: u64) -> Result<Player, Outcome> {
        let (state, now_s) = (self.state(), self.now_s());
        let power = player.power.filter(|power| now_s < power.until_s);
        let factor = state.game().factor(now_s - state.opened_s)
            * power.map_or(1, |power| u64::from(power.factor));
        let score = player.score + points * factor;
        if score > SCORE_MAX { Err(Outcome::Full) } else { Ok(Player { score, ..player }) }
    }
}

fn plus(a: u64, b: u64) -> Result<u64, Outcome> {
    a.checked_add(b).ok_or(Outcome::Full)
}

fn minus(a: u64, b: u64) -> Result<u64, Outcome> {
    a.checked_sub(b).ok_or(Outcome::InsufficientFunds)
}

/// A hotspot is put there, whatever was there before.
fn spawn(scene: &Scene<'_>) -> Judged {
    let Hotspot { kind, item, remaining, reward, lifetime_s } =
        Hotspot::unpack(scene.event.argument).ok_or(Outcome::Malformed)?;
    scene.want_hunt()?;
    let is_there = scene.hunt.is_some_and(|hunt| hunt.cells.contains_key(&scene.event.subject));
    if !is_there && scene.partition.cells_len() >= scene.limits.cells_max {
        return Err(Outcome::Full);
    }
    let expiry_s = if lifetime_s == 0 { 0 } else { scene.now_s() + u64::from(lifetime_s) };
    let (claimed_by, held_by) = (None, None);
    let hotspot = HotspotState { kind, item, remaining, reward, expiry_s, claimed_by, held_by };
    Ok(Change { hotspot: Some(hotspot), ..Change::default() })
}

/// A hotspot that is not over yet is over now.
fn expire(scene: &Scene<'_>) -> Judged {
    let hotspot = scene.known_hunt()?.cells.get(&scene.event.subject);
    let mut hotspot = *hotspot.ok_or(Outcome::NotFound)?;
    if hotspot.is_expired(scene.now_s()) {
        return Err(Outcome::Expired);
    }
    hotspot.expiry_s = scene.now_s();
    Ok(Change { hotspot: Some(hotspot), ..Change::default() })
}

/// Collecting, opening and claiming: the hotspot must be there, be of the right
/// kind, be alive, and not be used up; ground must be another team's.
fn take(scene: &Scene<'_>, wanted: HotspotKind) -> Judged {
    let hunt = scene.known_hunt()?;
    let (mut state, game) = (hunt.state, hunt.state.game());
    let hotspot = hunt.cells.get(&scene.event.subject).filter(|h| h.kind == wanted);
    let mut hotspot = *hotspot.ok_or(Outcome::NotFound)?;
    if hotspot.is_expired(scene.now_s()) {
        return Err(Outcome::Expired);
    }
    let team = scene.known(scene.event.player).and_then(|player| player.team);
    let is_ground = game == Game::Territory && hotspot.claimed_by.is_some();
    let can_be_taken_over = is_ground && team.is_some() && hotspot.held_by != team;
    if hotspot.remaining == 0 && !can_be_taken_over {
        return Err(Outcome::AlreadyClaimed);
    }

    let named = scene.event.argument.checked_sub(1);
    if wanted == HotspotKind::Chest && named.is_some_and(|item| item != u64::from(hotspot.item)) {
        return Err(Outcome::NoKey);
    }

    let reward = u64::from(hotspot.reward);
    let pays = wanted != HotspotKind::Item;
    let is_taken_from_a_team = hotspot.held_by.is_some();
    let to_wallet =
        pays && !matches!(game, Game::TeamHunt | Game::RaffleDrop) && !is_taken_from_a_team;
    let mut player = if wanted == HotspotKind::Chest {
        scene.known(scene.event.player).ok_or(Outcome::NoKey)?
    } else {
        scene.actor()?
    };
    let held = &mut player.inventory[usize::from(hotspot.item)];
    match wanted {
        HotspotKind::Item => *held = held.checked_add(1).ok_or(Outcome::Full)?,
        HotspotKind::Chest => *held = held.checked_sub(1).ok_or(Outcome::NoKey)?,
        HotspotKind::Ticket => {}
    }
    if to_wallet {
        player.wallet = plus(player.wallet, reward)?;
    }
    player = scene.scored(player, reward)?;

    if game.is_in_teams() && team.is_none() {
        return Err(Outcome::NotJoined);
    }
    if let (Game::TeamHunt, Some(team), true) = (game, team, pays) {
        let bank = &mut state.banks[usize::from(team) - 1];
        *bank = plus(*bank, reward)?;
    }
    if game == Game::RaffleDrop && pays {
        state.pot = plus(state.pot, reward)?;
        state.lots = state.lots.checked_add(1).ok_or(Outcome::Full)?;
        let n = u64::from(state.lots);
        let lot = games::lot(scene.event.key, scene.now.epoch, scene.now.log_time_ns, n);
        if lot.is_multiple_of(n) {
            state.winner = Some(scene.event.player);
        }
    }
    if wanted == HotspotKind::Ticket {
        hotspot.remaining = 0;
        hotspot.claimed_by = Some(scene.event.player);
        hotspot.held_by = team.filter(|_| game == Game::Territory);
    } else {
        hotspot.remaining -= 1;
    }
    Ok(Change {
        hotspot: Some(hotspot),
        player: Some(player),
        state: Some(state),
        ..Change::default()
    })
}

fn credit(scene: &Scene<'_>) -> Judged {
    scene.want_hunt()?;
    let mut player = scene.actor()?;
    player.wallet = plus(player.wallet, scene.event.argument)?;
    Ok(Change { player: Some(player), ..Change::default() })
}

fn spend(scene: &Scene<'_>) -> Judged {
    let mut player = scene.known(scene.event.player).ok_or(Outcome::InsufficientFunds)?;
    player.wallet = minus(player.wallet, scene.event.argument)?;
    Ok(Change { player: Some(player), ..Change::default() })
}

fn transfer(scene: &Scene<'_>) -> Judged {
    let paid = spend(scene)?;
    let mut payee = scene.player(scene.event.subject)?;
    payee.wallet = plus(payee.wallet, scene.event.argument)?;
    Ok(Change { other: Some((scene.event.subject, payee)), ..paid })
}

fn open(scene: &Scene<'_>) -> Judged {
    let setup = HuntSetup::unpack(scene.event.argument);
    scene.want_hunt()?;
    let mut state = scene.state();
    if state.setup.is_some() {
        return Err(Outcome::AlreadyDone);
    }
    let has_players = scene.hunt.is_some_and(|hunt| !hunt.players.is_empty());
    if has_players && Game::of(&setup).is_some_and(Game::is_in_teams) {
        return Err(Outcome::WrongGame);
    }
    state.quota = Quota::of(&scene.event.payload).ok_or(Outcome::Malformed)?;
    state.setup = Some(setup);
    state.opened_s = scene.now_s();
    state.ends_s = (setup.length_s > 0).then(|| scene.now_s() + u64::from(setup.length_s));
    Ok(Change { state: Some(state), ..Change::default() })
}

fn close(scene: &Scene<'_>) -> Judged {
    let mut state = scene.known_hunt()?.state;
    if state.is_closed {
        return Err(Outcome::Closed);
    }
    let mut winner = state.winner.and_then(|id| Some((id, scene.known(id)?)));
    if let Some((_, winner)) = &mut winner {
        let paid = state.pot.min(u64::MAX - winner.wallet);
        winner.wallet += paid;
        state.pot -= paid;
    }
    state.is_closed = true;
    Ok(Change { other: winner, state: Some(state), ..Change::default() })
}

fn join(scene: &Scene<'_>) -> Judged {
    let game = scene.known_hunt()?.state.game();
    let team = (scene.event.argument > 0).then_some(scene.event.argument as u8);
    if team.is_some() != game.is_in_teams() {
        return Err(Outcome::WrongGame);
    }
    let mut player = scene.actor()?;
    let is_known = scene.known(scene.event.player).is_some();
    if is_known && (!game.is_in_teams() || player.team.is_some()) {
        return Err(Outcome::AlreadyDone);
    }
    player.team = team;
    Ok(Change { player: Some(player), ..Change::default() })
}

fn ping(scene: &Scene<'_>) -> Judged {
    let player = scene.known(scene.event.player).ok_or(Outcome::NotFound)?;
    let place = Some(scene.event.subject);
    Ok(Change { player: Some(Player { place, ..player }), ..Change::default() })
}

fn power_up(scene: &Scene<'_>) -> Judged {
    let PowerUp { item, factor, seconds } =
        PowerUp::unpack(scene.event.argument).ok_or(Outcome::Malformed)?;
    let mut player = scene.known(scene.event.player).ok_or(Outcome::NoKey)?;
    let held = &mut player.inventory[usize::from(item)];
    *held = held.checked_sub(1).ok_or(Outcome::NoKey)?;
    player.power = Some(Power { factor, until_s: scene.now_s() + u64::from(seconds) });
    Ok(Change { player: Some(player), ..Change::default() })
}

fn set_treasure(scene: &Scene<'_>) -> Judged {
    let version = match scene.known_hunt()?.treasures.get(&scene.event.subject) {
        Some(before) => before.version.checked_add(1).ok_or(Outcome::Full)?,
        None => {
            scene.want_definition()?;
            1
        }
    };
    let treasure = Treasure { payload: scene.event.payload.clone(), version };
    Ok(Change { treasure: Some(treasure), ..Change::default() })
}

fn define(scene: &Scene<'_>) -> Judged {
    let payload = scene.event.payload.clone();
    let graph = Graph::of(&payload).ok_or(Outcome::Malformed)?;
    let pay = QuestPay::unpack(scene.event.argument).ok_or(Outcome::Malformed)?;
    if scene.known_hunt()?.quests.contains_key(&scene.event.subject) {
        return Err(Outcome::AlreadyDone);
    }
    scene.want_definition()?;
    Ok(Change { quest: Some(Quest { payload, graph, pay }), ..Change::default() })
}

fn checkpoint(scene: &Scene<'_>) -> Judged {
    let (quest_id, node) = (scene.event.subject / 256, (scene.event.subject % 256) as u8);
    let (hunt, acting) = (scene.known_hunt()?, scene.event.player);
    let game = hunt.state.game();
    let Quest { graph, pay, .. } = hunt.quests.get(&quest_id).ok_or(Outcome::NotFound)?;
    let team = scene.known(acting).and_then(|player| player.team);
    if game.is_in_teams() && team.is_none() {
        return Err(Outcome::NotJoined);
    }
    let before = hunt.progress.get(&(acting, quest_id));
    let mut progress = before.cloned().unwrap_or_default();
    let predecessors = graph.before(node);
    if node > graph.last {
        return Err(Outcome::NotFound);
    }
    if progress.passed.contains(&node) {
        return Err(Outcome::AlreadyDone);
    }
    if !predecessors.is_empty() && progress.passed.is_disjoint(&predecessors) {
        return Err(Outcome::OutOfOrder);
    }
    if let Some(wanted) = game.quest_before(quest_id) {
        let of_wanted = hunt.progress.get(&(acting, wanted));
        if !of_wanted.is_some_and(|progress| progress.is_ended) {
            return Err(Outcome::OutOfOrder);
        }
    }
    let mut player = scene.actor()?;
    if before.is_none() {
        scene.want_deed()?;
    }
    let mut points = 0;
    progress.passed.insert(node);
    if progress.paid.insert(node) {
        points += u64::from(pay.node);
    }
    if graph.is_end(node) && !progress.is_ended {
        progress.is_ended = true;
        points += u64::from(pay.end);
        player.wallet = plus(player.wallet, pay.end.into())?;
    }
    player = scene.scored(player, points)?;
    let progress = Some((quest_id, progress));
    Ok(Change { player: Some(player), progress, ..Change::default() })
}

fn abandon(scene: &Scene<'_>) -> Judged {
    let (acting, quest) = (scene.event.player, scene.event.subject);
    let progress = scene.known_hunt()?.progress.get(&(acting, quest));
    let mut progress = progress.ok_or(Outcome::NotFound)?.clone();
    if progress.passed.is_empty() {
        return Err(Outcome::NotFound);
    }
    progress.passed.clear();
    Ok(Change { progress: Some((quest, progress)), ..Change::default() })
}

fn reward(scene: &Scene<'_>) -> Judged {
    let (acting, number) = (scene.event.player, scene.event.subject);
    let numbers = scene.hunt.and_then(|hunt| hunt.rewards.get(&acting));
    if numbers.is_some_and(|numbers| numbers.contains(&number)) {
        return Err(Outcome::AlreadyDone);
    }
    if !scene.hunt.is_some_and(|hunt| hunt.has_reward_near(acting, number)) {
        scene.want_deed()?;
    }
    Ok(Change { is_rewarded: true, ..credit(scene)? })
}

/// `rule` says what wallet and bank are afterwards.
fn bank(
    scene: &Scene<'_>,
    rule: impl FnOnce(u64, u64, u64) -> Result<(u64, u64), Outcome>,
) -> Judged {
    let mut state = scene.known_hunt()?.state;
    if !state.game().is_in_teams() {
        return Err(Outcome::WrongGame);
    }
    let mut player = scene.known(scene.event.player).ok_or(Outcome::NotJoined)?;
    let team = player.team.ok_or(Outcome::NotJoined)?;
    let bank = &mut state.banks[usize::from(team) - 1];
    (player.wallet, *bank) = rule(player.wallet, *bank, scene.event.argument)?;
    Ok(Change { player: Some(player), state: Some(state), ..Change::default() })
}
