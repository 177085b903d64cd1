//! Kinds of event, and what their argument holds.

macro_rules! kinds {
    ($($variant:ident = $code:literal, $label:literal, $stream:ident, $doc:literal;)*) => {
        /// What an event asks for: wire code, metric label and doc row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum EventKind {
            $(#[doc = $doc] $variant = $code,)*
        }

        impl EventKind {
            /// Every kind, in code order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The kind of a wire code; `None` when the code is not assigned.
            #[must_use]
            #[inline(always)]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Wire code.
            #[must_use]
            pub const fn code(self) -> u16 {
                self as u16
            }

            /// Metric label and doc name.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// Domain stream its applied events belong to.
            #[must_use]
            #[inline(always)]
            pub const fn stream(self) -> Stream {
                match self { $(Self::$variant => Stream::$stream,)* }
            }

            /// One sentence for the documentation.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

/// A domain stream: what is archived together, and what a closed hunt still takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `game.v1`: hunts, hotspots, what players do. Nothing of it once a hunt is closed.
    Game,
    /// `quest.v1`: quests and how far players are. Nothing of it once a hunt is closed.
    Quest,
    /// `reward.v1`: wallets, banks, rewards. Goes on when a hunt is closed.
    Reward,
}

impl Stream {
    /// Name in archives and documents.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Game => "game.v1",
            Self::Quest => "quest.v1",
            Self::Reward => "reward.v1",
        }
    }
}

kinds! {
    HotspotSpawn = 1, "hotspot-spawn", Game, "Puts a hotspot onto the cell `subject`, or another in its place; `argument` describes it.";
    CollectItem = 2, "collect-item", Game, "The player takes one item from the item hotspot on the cell `subject`; `argument` is 0.";
    UseKey = 3, "use-key", Game, "The player spends one key on the chest on the cell `subject` and gets its reward; `argument` is the key's item type plus 1, or 0 for whatever the chest wants.";
    Claim = 4, "claim", Game, "The player claims the ticket on the cell `subject`: hotspot, wallet and score in one step; `argument` is 0.";
    WalletCredit = 5, "wallet-credit", Reward, "Adds `argument` to the player's wallet; `subject` is not looked at.";
    WalletSpend = 6, "wallet-spend", Reward, "Takes `argument` from the player's wallet; `subject` is not looked at.";
    WalletTransfer = 7, "wallet-transfer", Reward, "Moves `argument` from the player's wallet to that of the player `subject` of the same hunt, both or neither.";
    HotspotExpire = 8, "hotspot-expire", Game, "Ends the hotspot on the cell `subject` now, whoever set it and however long it had to live; `argument` is 0.";
    HuntOpen = 9, "hunt-open", Game, "Opens the hunt as a game of some type; `argument` says which, for how long and how (HuntSetup); the payload whose it is and what it may use (Quota), and of a split hunt which region (Region), or nothing; `subject` is 0.";
    HuntClose = 10, "hunt-close", Game, "Closes the hunt for good: it plays no more, its wallets and banks stay; `subject` and `argument` are 0.";
    PlayerJoin = 11, "player-join", Game, "The player joins the hunt, in team `argument` where its game has teams (1 to 16), else 0; `subject` is 0.";
    LocationPing = 12, "location-ping", Game, "The player stands on the cell `subject`; `argument` is 0.";
    PowerUp = 13, "power-up", Game, "The player spends an item, and its points are multiplied for a while; `argument` says by what (PowerUp); `subject` is 0.";
    TreasureType = 14, "treasure-type-updated", Game, "Sets the treasure type `subject` of the hunt to the payload, 1 to 512 opaque bytes, as its next version; `argument` is 0.";
    QuestDefine = 15, "quest-define", Quest, "Defines the quest `subject` of the hunt for good: the payload is its graph, `argument` what it pays (QuestPay).";
    Checkpoint = 16, "checkpoint", Quest, "The player passes a node of a quest: `subject` is the quest's id times 256 plus the node; `argument` is 0.";
    QuestAbandon = 17, "quest-abandon", Quest, "The player gives up what it has passed of the quest `subject`; what was paid stays paid; `argument` is 0.";
    RewardIssued = 18, "reward-issued", Reward, "Pays `argument` to the player's wallet as the reward number `subject`, once and for ever.";
    BankDeposit = 19, "bank-deposit", Reward, "Moves `argument` from the player's wallet to the bank of its team; `subject` is 0.";
    BankWithdraw = 20, "bank-withdraw", Reward, "Moves `argument` from the bank of the player's team to its wallet; `subject` is 0.";
}

impl EventKind {
    /// Whether its subject is a cell, of [`CELL_BITS`] bits.
    #[must_use]
    pub const fn names_a_cell(self) -> bool {
        matches!(
            self,
            Self::HotspotSpawn
                | Self::CollectItem
                | Self::UseKey
                | Self::Claim
                | Self::HotspotExpire
                | Self::LocationPing
        )
    }

    /// Whether its subject says nothing: it is 0 or not looked at.
    #[must_use]
    pub const fn names_nothing(self) -> bool {
        matches!(
            self,
            Self::WalletCredit
                | Self::WalletSpend
                | Self::HuntOpen
                | Self::HuntClose
                | Self::PlayerJoin
                | Self::PowerUp
                | Self::BankDeposit
                | Self::BankWithdraw
        )
    }
}

/// Bits of a cell id: a Morton code of 30 bits a coordinate, or an H3 index
/// without its mode. The upper four bits of `subject` are 0.
pub const CELL_BITS: u32 = 60;

/// Item types: an item hotspot gives one, a chest wants one as its key.
pub const ITEM_TYPES: u8 = 8;

/// Largest reward of a hotspot: 20 bits.
pub const REWARD_MAX: u32 = (1 << 20) - 1;

/// Highest score of a player: 52 bits. Every language's numbers hold it exactly,
/// and a player's place on the board fits 128 bits with it.
pub const SCORE_MAX: u64 = (1 << 52) - 1;

/// Longest life of a hotspot, seconds (12 days): 20 bits.
pub const LIFETIME_S_MAX: u32 = (1 << 20) - 1;

/// What a hotspot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HotspotKind {
    /// Gives one item to everybody who collects, until none remain.
    Item = 1,
    /// Opened with a key, so many times as remain; pays its reward.
    Chest = 2,
    /// Claimed by one player, once; pays its reward.
    Ticket = 3,
}

/// A hotspot as the argument of [`EventKind::HotspotSpawn`] describes it.
///
/// ```text
///  bits 0..2    2..8   8..24       24..44   44..64
///  | kind      | item | remaining | reward | lifetime_s
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hotspot {
    /// What it is.
    pub kind: HotspotKind,
    /// Item type it gives or wants as a key, below [`ITEM_TYPES`]; 0 for a ticket.
    pub item: u8,
    /// Times it can be taken: at least 1; exactly 1 for a ticket.
    pub remaining: u16,
    /// Added to score, and for chest and ticket to the wallet too; at most [`REWARD_MAX`].
    pub reward: u32,
    /// Seconds of log time it lives, at most [`LIFETIME_S_MAX`]; 0 = for ever.
    pub lifetime_s: u32,
}

impl Hotspot {
    /// The hotspot of an argument; `None` when a field is out of its range.
    #[must_use]
    #[inline]
    pub const fn unpack(argument: u64) -> Option<Self> {
        let kind = match argument & 3 {
            1 => HotspotKind::Item,
            2 => HotspotKind::Chest,
            3 => HotspotKind::Ticket,
            _ => return None,
        };
        let hotspot = Self {
            kind,
            item: (argument >> 2 & 0x3f) as u8,
            remaining: (argument >> 8 & 0xffff) as u16,
            reward: (argument >> 24 & REWARD_MAX as u64) as u32,
            lifetime_s: (argument >> 44) as u32,
        };
        if hotspot.is_sound() { Some(hotspot) } else { None }
    }

    /// The argument; `None` when a field is out of its range.
    #[must_use]
    pub const fn pack(&self) -> Option<u64> {
        if !self.is_sound() {
            return None;
        }
        Some(
            self.kind as u64
                | (self.item as u64) << 2
                | (self.remaining as u64) << 8
                | (self.reward as u64) << 24
                | (self.lifetime_s as u64) << 44,
        )
    }

    const fn is_sound(&self) -> bool {
        let by_kind = match self.kind {
            HotspotKind::Ticket => self.item == 0 && self.remaining == 1,
            HotspotKind::Item | HotspotKind::Chest => self.item < ITEM_TYPES,
        };
        by_kind
            && self.remaining > 0
            && self.reward <= REWARD_MAX
            && self.lifetime_s <= LIFETIME_S_MAX
    }
}

/// Teams of a hunt, numbered from 1.
pub const TEAMS: usize = 16;

/// Longest time a hunt is set up for, seconds (12 days): 20 bits.
pub const LENGTH_S_MAX: u32 = (1 << 20) - 1;

/// Largest settings of a game type: 36 bits.
pub const SETTINGS_MAX: u64 = (1 << 36) - 1;

/// How a hunt is played, as the argument of [`EventKind::HuntOpen`] says it. Which
/// game types there are, and what their settings mean, is the server's affair:
/// see GAMES.md.
///
/// ```text
///  bits 0..8   8..28      28..64
///  | game     | length_s | settings
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HuntSetup {
    /// Code of the game type, from 1.
    pub game: u8,
    /// Seconds of log time it lasts, at most [`LENGTH_S_MAX`]; 0 = until it is closed.
    pub length_s: u32,
    /// What the game type wants to know, at most [`SETTINGS_MAX`].
    pub settings: u64,
}

impl HuntSetup {
    /// The setup of an argument.
    #[must_use]
    pub const fn unpack(argument: u64) -> Self {
        Self {
            game: argument as u8,
            length_s: (argument >> 8) as u32 & LENGTH_S_MAX,
            settings: argument >> 28,
        }
    }

    /// The argument; `None` when a field is out of its range.
    #[must_use]
    pub const fn pack(&self) -> Option<u64> {
        if self.length_s > LENGTH_S_MAX || self.settings > SETTINGS_MAX {
            return None;
        }
        Some(self.game as u64 | (self.length_s as u64) << 8 | self.settings << 28)
    }
}

/// Whose a hunt is and what it may use, the payload of [`EventKind::HuntOpen`]. What
/// a tenant may use is what its hunts may, together.
///
/// ```text
///  0        4           8             12             16
///  | tenant | cells_max | players_max | events_per_s |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The tenant; 0 = nobody's.
    pub tenant: u32,
    /// Most cells; 0 = as many as there is room for.
    pub cells_max: u32,
    /// Most players; 0 = as many as there is room for.
    pub players_max: u32,
    /// Most events in one second of log time that a rule decides, however; 0 = any
    /// number. Hunt-close does not count.
    pub events_per_s: u32,
}

impl Quota {
    /// Bytes of the payload.
    pub const BYTES: usize = 16;

    /// The quota of a payload: no bytes are no quota; `None` for any other length
    /// than [`Self::BYTES`].
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        if payload.is_empty() {
            return Some(Self::default());
        }
        let ([tenant, cells_max, players_max, events_per_s], []) = payload.as_chunks::<4>() else {
            return None;
        };
        Some(Self {
            tenant: u32::from_le_bytes(*tenant),
            cells_max: u32::from_le_bytes(*cells_max),
            players_max: u32::from_le_bytes(*players_max),
            events_per_s: u32::from_le_bytes(*events_per_s),
        })
    }

    /// The payload.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let fields = [self.tenant, self.cells_max, self.players_max, self.events_per_s];
        for (place, field) in out.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        out
    }
}

/// Largest factor of a power-up.
pub const POWER_FACTOR_MAX: u8 = 8;

/// Longest power-up, seconds: a day.
pub const POWER_S_MAX: u32 = 86_400;

/// The argument of [`EventKind::PowerUp`].
///
/// ```text
///  bits 0..8   8..16    16..33    33..64
///  | item     | factor | seconds | 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PowerUp {
    /// Item type that is spent, below [`ITEM_TYPES`].
    pub item: u8,
    /// What points are multiplied by, 2 to [`POWER_FACTOR_MAX`].
    pub factor: u8,
    /// Seconds of log time it lasts, 1 to [`POWER_S_MAX`].
    pub seconds: u32,
}

impl PowerUp {
    /// The power-up of an argument; `None` when a field is out of its range.
    #[must_use]
    pub const fn unpack(argument: u64) -> Option<Self> {
        if argument >> 33 != 0 {
            return None;
        }
        let power_up = Self {
            item: argument as u8,
            factor: (argument >> 8) as u8,
            seconds: (argument >> 16) as u32,
        };
        if power_up.is_sound() { Some(power_up) } else { None }
    }

    /// The argument; `None` when a field is out of its range.
    #[must_use]
    pub const fn pack(&self) -> Option<u64> {
        if !self.is_sound() {
            return None;
        }
        Some(self.item as u64 | (self.factor as u64) << 8 | (self.seconds as u64) << 16)
    }

    const fn is_sound(&self) -> bool {
        self.item < ITEM_TYPES
            && self.factor >= 2
            && self.factor <= POWER_FACTOR_MAX
            && self.seconds >= 1
            && self.seconds <= POWER_S_MAX
    }
}

/// Bits of a quest's id; a node of 8 bits follows in the subject of
/// [`EventKind::Checkpoint`].
pub const QUEST_BITS: u32 = 56;

/// What passing a quest pays, the argument of [`EventKind::QuestDefine`].
///
/// ```text
///  bits 0..20   20..40   40..64
///  | node      | end    | 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuestPay {
    /// Points for each node, once a player; at most [`REWARD_MAX`].
    pub node: u32,
    /// Points and currency for the first node without a successor, once a player;
    /// at most [`REWARD_MAX`].
    pub end: u32,
}

impl QuestPay {
    /// The pay of an argument; `None` when it has bits that mean nothing.
    #[must_use]
    pub const fn unpack(argument: u64) -> Option<Self> {
        if argument >> 40 != 0 {
            return None;
        }
        Some(Self { node: argument as u32 & REWARD_MAX, end: (argument >> 20) as u32 & REWARD_MAX })
    }

    /// The argument; `None` when a field is out of its range.
    #[must_use]
    pub const fn pack(&self) -> Option<u64> {
        if self.node > REWARD_MAX || self.end > REWARD_MAX {
            return None;
        }
        Some(self.node as u64 | (self.end as u64) << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_known() {
        for (i, kind) in EventKind::ALL.iter().enumerate() {
            assert_eq!(kind.code() as usize, i + 1);
            assert_eq!(EventKind::from_code(kind.code()), Some(*kind));
        }
        assert_eq!(EventKind::from_code(0), None);
    }

    #[test]
    fn hotspots_travel_whole() {
        for kind in [HotspotKind::Item, HotspotKind::Chest, HotspotKind::Ticket] {
            let ticket = kind as u8 == HotspotKind::Ticket as u8;
            let hotspot = Hotspot {
                kind,
                item: if ticket { 0 } else { 7 },
                remaining: if ticket { 1 } else { 65_535 },
                reward: REWARD_MAX,
                lifetime_s: LIFETIME_S_MAX,
            };
            let argument = hotspot.pack().unwrap();
            assert_eq!(Hotspot::unpack(argument), Some(hotspot));
        }
    }

    #[test]
    fn setups_power_ups_and_pay_travel_whole() {
        let setup = HuntSetup { game: 255, length_s: LENGTH_S_MAX, settings: SETTINGS_MAX };
        assert_eq!(setup.pack(), Some(u64::MAX));
        assert_eq!(HuntSetup::unpack(u64::MAX), setup);
        assert_eq!(HuntSetup { settings: SETTINGS_MAX + 1, ..setup }.pack(), None);
        assert_eq!(HuntSetup { length_s: LENGTH_S_MAX + 1, ..setup }.pack(), None);

        let quota = Quota { tenant: 1, cells_max: 2, players_max: 3, events_per_s: u32::MAX };
        assert_eq!(Quota::of(&quota.bytes()), Some(quota));
        assert_eq!(Quota::of(&[]), Some(Quota::default()));
        assert_eq!(Quota::of(&quota.bytes()[..15]), None);

        let power = PowerUp { item: 7, factor: POWER_FACTOR_MAX, seconds: POWER_S_MAX };
        assert_eq!(power.pack().and_then(PowerUp::unpack), Some(power));
        for nonsense in [
            PowerUp { item: 8, ..power },
            PowerUp { factor: 1, ..power },
            PowerUp { factor: POWER_FACTOR_MAX + 1, ..power },
            PowerUp { seconds: 0, ..power },
            PowerUp { seconds: POWER_S_MAX + 1, ..power },
        ] {
            assert_eq!(nonsense.pack(), None, "{nonsense:?}");
        }
        assert_eq!(PowerUp::unpack(0), None);
        assert_eq!(PowerUp::unpack(power.pack().unwrap() | 1 << 33), None);

        let pay = QuestPay { node: REWARD_MAX, end: 5 };
        assert_eq!(pay.pack().and_then(QuestPay::unpack), Some(pay));
        assert_eq!(QuestPay { end: REWARD_MAX + 1, ..pay }.pack(), None);
        assert_eq!(QuestPay::unpack(1 << 40), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let good =
            Hotspot { kind: HotspotKind::Item, item: 0, remaining: 1, reward: 0, lifetime_s: 0 };
        assert!(good.pack().is_some());
        assert_eq!(Hotspot { remaining: 0, ..good }.pack(), None);
        assert_eq!(Hotspot { item: 8, ..good }.pack(), None);
        assert_eq!(Hotspot { reward: REWARD_MAX + 1, ..good }.pack(), None);
        assert_eq!(Hotspot { kind: HotspotKind::Ticket, remaining: 2, ..good }.pack(), None);
        assert_eq!(Hotspot::unpack(0), None);
        assert_eq!(Hotspot::unpack(1), None, "nothing remains");
    }
}
