//! Kinds of event, and what their argument holds.

macro_rules! kinds {
    ($($variant:ident = $code:literal, $label:literal, $doc:literal;)*) => {
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

            /// One sentence for the documentation.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

kinds! {
    HotspotSpawn = 1, "hotspot-spawn", "Puts a hotspot onto the cell `subject`, or another in its place; `argument` describes it.";
    CollectItem = 2, "collect-item", "The player takes one item from the item hotspot on the cell `subject`; `argument` is 0.";
    UseKey = 3, "use-key", "The player spends one key on the chest on the cell `subject` and gets its reward; `argument` is 0.";
    Claim = 4, "claim", "The player claims the ticket on the cell `subject`: hotspot, wallet and score in one step; `argument` is 0.";
    WalletCredit = 5, "wallet-credit", "Adds `argument` to the player's wallet; `subject` is not looked at.";
    WalletSpend = 6, "wallet-spend", "Takes `argument` from the player's wallet; `subject` is not looked at.";
    WalletTransfer = 7, "wallet-transfer", "Moves `argument` from the player's wallet to that of the player `subject` of the same hunt, both or neither.";
    HotspotExpire = 8, "hotspot-expire", "Ends the hotspot on the cell `subject` now, whoever set it and however long it had to live; `argument` is 0.";
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
