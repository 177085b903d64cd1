//! Which prefixes are blocked, until when, and why.
//!
//! The table here is the truth; the two LPM tries of the kernel half are
//! derived from it. The program takes the longest match alone, so an entry is
//! written to the trie with the latest expiry of itself and every prefix around it:
//! a short block inside a long one does not open a hole when it expires. The
//! table keeps what was asked for, and a change yields the writes it needs.
//!
//! Blocks live as long as the process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use veltrix_abi::maps::{BLOCK_REASON_BYTES_MAX, Block};

/// An address prefix without host bits.
///
/// Ordered by family, address and length, so that the prefixes inside one
/// follow it directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// Why a text is not a prefix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PrefixError {
    /// No address before the slash.
    #[error(
        "`{text}` is not an address or prefix; wanted one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
    )]
    Address {
        /// What was given.
        text: String,
    },
    /// No usable length after the slash.
    #[error("`{text}`: the length after the slash must be a number from 1 to {bits_max}")]
    Length {
        /// What was given.
        text: String,
        /// Bits of the address.
        bits_max: u8,
    },
    /// The empty prefix.
    #[error("`{text}` holds every sender; to serve nobody, stop the server instead")]
    Everybody {
        /// What was given.
        text: String,
    },
    /// Bits are set behind the prefix.
    #[error("`{text}` has bits set behind its first {bits}; did you mean `{right}`?")]
    HostBits {
        /// What was given.
        text: String,
        /// Its length.
        bits: u8,
        /// The prefix it lies in.
        right: Prefix,
    },
    /// IPv4 in IPv6 clothes.
    #[error("`{text}` is an IPv4 address written as IPv6; packets carry it as `{right}`")]
    Mapped {
        /// What was given.
        text: String,
        /// The IPv4 prefix.
        right: Prefix,
    },
}

impl Prefix {
    /// The prefix of `bits` bits that `address` lies in; `None` when the
    /// address has fewer.
    #[must_use]
    pub fn around(address: IpAddr, bits: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32u32.checked_sub(bits.into())?).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask))
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128u32.checked_sub(bits.into())?).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask))
            }
        };
        Some(Self { address, bits })
    }

    /// First address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Length in bits.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether every address of `other` lies in this prefix.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.bits <= other.bits
            && self.address.is_ipv4() == other.address.is_ipv4()
            && Self::around(other.address, self.bits) == Some(*self)
    }

    /// The prefixes around this one, nearest first.
    fn around_all(self) -> impl Iterator<Item = Self> {
        (0..self.bits).rev().filter_map(move |bits| Self::around(self.address, bits))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| PrefixError::Address { text: text.to_owned() })?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match length {
            None => bits_max,
            // `u8::from_str` would take a sign.
            Some(digits) => Some(digits)
                .filter(|d| d.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|d| d.parse().ok())
                .filter(|bits| *bits <= bits_max)
                .ok_or_else(|| PrefixError::Length { text: text.to_owned(), bits_max })?,
        };
        if bits == 0 {
            return Err(PrefixError::Everybody { text: text.to_owned() });
        }
        let wrong_length = || PrefixError::Length { text: text.to_owned(), bits_max };
        let right = Self::around(address, bits).ok_or_else(wrong_length)?;
        if let IpAddr::V6(v6) = address
            && bits >= 96
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let right = Self::around(IpAddr::V4(v4), bits - 96).ok_or_else(wrong_length)?;
            return Err(PrefixError::Mapped { text: text.to_owned(), right });
        }
        if right.address != address {
            return Err(PrefixError::HostBits { text: text.to_owned(), bits, right });
        }
        Ok(right)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// When a block ends, in nanoseconds of `CLOCK_MONOTONIC`.
pub type ExpiresNs = u64;

/// The [`ExpiresNs`] of a block that ends with the process only.
pub const NEVER: ExpiresNs = u64::MAX;

/// A blocked prefix as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// What is blocked.
    pub prefix: Prefix,
    /// Until when; [`NEVER`] for ever.
    pub expires_ns: ExpiresNs,
    /// Why, for the operator.
    pub reason: String,
}

/// Why an entry was not added.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddError {
    /// The reason does not fit.
    #[error(
        "the reason takes {bytes} bytes; wanted at most {BLOCK_REASON_BYTES_MAX}, without NUL: shorten it"
    )]
    Reason {
        /// Its length.
        bytes: usize,
    },
    /// It would be over before it began.
    #[error("the block of {prefix} would end at once; wanted a time to live above zero")]
    Expired {
        /// The prefix.
        prefix: Prefix,
    },
    /// No room.
    #[error(
        "the blocklist holds {entries_max} {family} prefixes and is full; remove some with `veltrix block del`, \
         block a shorter prefix, or raise `blocklist.entries_max` and restart"
    )]
    Full {
        /// Address family.
        family: &'static str,
        /// Its capacity.
        entries_max: u32,
    },
}

/// A write to the kernel half's tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Insert or replace.
    Set(Prefix, Block),
    /// Remove.
    Remove(Prefix),
}

#[derive(Clone, Debug)]
struct Entry {
    /// As asked for.
    expires_ns: ExpiresNs,
    /// As written to the trie: at least that of every prefix around it.
    effective_ns: ExpiresNs,
    reason: String,
}

impl Entry {
    fn block(&self) -> Block {
        let mut reason = [0; BLOCK_REASON_BYTES_MAX];
        reason[..self.reason.len()].copy_from_slice(self.reason.as_bytes());
        Block { expires_ns: self.effective_ns, reason }
    }
}

/// The table.
#[derive(Clone, Debug)]
pub struct Blocklist {
    entries: BTreeMap<Prefix, Entry>,
    entries_max: u32,
    entries_v4: u32,
}

impl Blocklist {
    /// An empty table for `entries_max` prefixes of each family.
    #[must_use]
    pub const fn new(entries_max: u32) -> Self {
        Self { entries: BTreeMap::new(), entries_max, entries_v4: 0 }
    }

    /// Blocks `prefix` until `expires_ns`; a prefix already blocked gets the
    /// new time and reason.
    ///
    /// # Errors
    ///
    /// [`AddError`]; the table is then unchanged.
    pub fn add(
        &mut self,
        prefix: Prefix,
        expires_ns: ExpiresNs,
        reason: &str,
        now_ns: u64,
    ) -> Result<Vec<Change>, AddError> {
        if reason.len() > BLOCK_REASON_BYTES_MAX || reason.contains('\0') {
            return Err(AddError::Reason { bytes: reason.len() });
        }
        if expires_ns <= now_ns {
            return Err(AddError::Expired { prefix });
        }
        let is_v4 = prefix.address.is_ipv4();
        let entries_v4 = self.entries_v4 as usize;
        let in_family = if is_v4 { entries_v4 } else { self.entries.len() - entries_v4 };
        let is_new = !self.entries.contains_key(&prefix);
        if is_new && in_family >= self.entries_max as usize {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            return Err(AddError::Full { family, entries_max: self.entries_max });
        }
        self.entries_v4 += u32::from(is_new && is_v4);
        let entry = Entry { expires_ns, effective_ns: 0, reason: reason.to_owned() };
        self.entries.insert(prefix, entry);
        Ok(self.settle(prefix))
    }

    /// Unblocks exactly `prefix`; `None` when it was not blocked by that name.
    pub fn remove(&mut self, prefix: Prefix) -> Option<Vec<Change>> {
        self.entries.remove(&prefix)?;
        self.entries_v4 -= u32::from(prefix.address.is_ipv4());
        let mut changes = vec![Change::Remove(prefix)];
        changes.extend(self.settle(prefix));
        Some(changes)
    }

    /// Removes what has expired; gives the prefixes and the writes.
    pub fn purge_expired(&mut self, now_ns: u64) -> (Vec<Prefix>, Vec<Change>) {
        let expired: Vec<Prefix> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.expires_ns <= now_ns)
            .map(|(prefix, _)| *prefix)
            .collect();
        let changes = expired.iter().filter_map(|p| self.remove(*p)).flatten().collect();
        (expired, changes)
    }

    /// What is blocked, as asked for, in order of address.
    pub fn iter(&self) -> impl Iterator<Item = Blocked> {
        self.entries.iter().map(|(prefix, entry)| Blocked {
            prefix: *prefix,
            expires_ns: entry.expires_ns,
            reason: entry.reason.clone(),
        })
    }

    /// Whether exactly `prefix` is an entry.
    #[must_use]
    pub fn contains(&self, prefix: &Prefix) -> bool {
        self.entries.contains_key(prefix)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is blocked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Works out the effective expiry of `root` and everything inside it anew;
    /// gives a write for each entry that changed.
    fn settle(&mut self, root: Prefix) -> Vec<Change> {
        let around =
            root.around_all().find_map(|p| self.entries.get(&p).map(|e| (p, e.effective_ns)));
        // The prefixes that enclose the entry at hand, outermost first.
        let mut open: Vec<(Prefix, ExpiresNs)> = around.into_iter().collect();
        let mut changes = Vec::new();
        let from = (Bound::Included(root), Bound::Unbounded);
        for (prefix, entry) in self.entries.range_mut(from) {
            if !root.contains(prefix) {
                break;
            }
            while open.last().is_some_and(|(outer, _)| !outer.contains(prefix)) {
                open.pop();
            }
            let outer_ns = open.last().map_or(0, |(_, ns)| *ns);
            let effective_ns = entry.expires_ns.max(outer_ns);
            open.push((*prefix, effective_ns));
            // The asked-for entry itself is always written: its reason may be new.
            if effective_ns != entry.effective_ns || *prefix == root {
                entry.effective_ns = effective_ns;
                changes.push(Change::Set(*prefix, entry.block()));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn error(text: &str) -> String {
        text.parse::<Prefix>().unwrap_err().to_string()
    }

    #[test]
    fn addresses_and_prefixes_are_read_and_shown() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(prefix(text).to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_prefix_is_refused_with_the_right_one() {
        assert!(error("192.0.2.7/24").ends_with("did you mean `192.0.2.0/24`?"));
        assert!(error("2001:db8::1/32").ends_with("did you mean `2001:db8::/32`?"));
        assert!(error("::ffff:192.0.2.7").ends_with("packets carry it as `192.0.2.7/32`"));
        assert!(error("192.0.2.0/33").contains("from 1 to 32"));
        assert!(error("2001:db8::/129").contains("from 1 to 128"));
        assert!(error("192.0.2.0/").contains("from 1 to 32"));
        assert!(error("192.0.2.0/+8").contains("from 1 to 32"));
        assert!(error("0.0.0.0/0").contains("every sender"));
        assert!(error("::/0").contains("every sender"));
        assert!(error("hello").contains("is not an address"));
        assert!(error("192.0.2").contains("is not an address"));
    }

    #[test]
    fn a_short_block_inside_a_long_one_leaves_no_hole() {
        let mut list = Blocklist::new(8);
        list.add(prefix("10.0.0.0/8"), NEVER, "outer", 1).unwrap();
        let changes = list.add(prefix("10.1.0.0/16"), 100, "inner", 1).unwrap();
        assert!(matches!(&changes[..], [Change::Set(_, block)] if block.expires_ns == NEVER));
        // Without the outer one, the inner one ends when it was asked to.
        let changes = list.remove(prefix("10.0.0.0/8")).unwrap();
        assert_eq!(changes[0], Change::Remove(prefix("10.0.0.0/8")));
        assert!(matches!(&changes[1..], [Change::Set(_, block)] if block.expires_ns == 100));
        assert_eq!(list.purge_expired(99).0, []);
        assert_eq!(list.purge_expired(100).0, [prefix("10.1.0.0/16")]);
        assert!(list.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut list = Blocklist::new(1);
        list.add(prefix("10.0.0.0/8"), NEVER, "", 1).unwrap();
        list.add(prefix("2001:db8::/32"), NEVER, "", 1).unwrap();
        list.add(prefix("10.0.0.0/8"), 7, "again", 1).unwrap();
        let full = list.add(prefix("11.0.0.0/8"), NEVER, "", 1).unwrap_err();
        assert_eq!(full, AddError::Full { family: "IPv4", entries_max: 1 });
        let long = "x".repeat(BLOCK_REASON_BYTES_MAX + 1);
        let reason = list.add(prefix("10.0.0.0/8"), NEVER, &long, 1).unwrap_err();
        assert_eq!(reason, AddError::Reason { bytes: 41 });
        assert!(matches!(list.add(prefix("10.0.0.0/8"), 5, "", 5), Err(AddError::Expired { .. })));
        let kept: Vec<Blocked> = list.iter().collect();
        assert_eq!(kept.len(), 2);
        assert_eq!((kept[0].expires_ns, kept[0].reason.as_str()), (7, "again"));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u8, u8, u64),
        Remove(u8, u8),
        Purge(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (any::<u8>(), 0..=8u8, 1..50u64).prop_map(|(a, b, t)| Step::Add(a, b, t)),
            1 => (any::<u8>(), 0..=8u8).prop_map(|(a, b)| Step::Remove(a, b)),
            1 => (0..50u64).prop_map(Step::Purge),
        ]
    }

    proptest! {
        /// Whatever the order of changes, the longest match in the trie blocks
        /// an address exactly as long as some entry asked for.
        #[test]
        fn the_longest_match_alone_decides(steps in prop::collection::vec(step(), 1..40)) {
            let at = |a: u8| IpAddr::V4(Ipv4Addr::new(a, 0, 0, 0));
            let mut list = Blocklist::new(1_000);
            let mut trie: BTreeMap<Prefix, u64> = BTreeMap::new();
            for step in steps {
                let changes = match step {
                    Step::Add(a, bits, t) => {
                        list.add(Prefix::around(at(a), bits).unwrap(), t, "", 0).unwrap()
                    }
                    Step::Remove(a, bits) => {
                        list.remove(Prefix::around(at(a), bits).unwrap()).unwrap_or_default()
                    }
                    Step::Purge(now) => list.purge_expired(now).1,
                };
                for change in changes {
                    match change {
                        Change::Set(p, block) => { trie.insert(p, block.expires_ns); }
                        Change::Remove(p) => { trie.remove(&p); }
                    }
                }
                prop_assert_eq!(trie.len(), list.len());
                for a in 0..=255u8 {
                    let host = Prefix::around(at(a), 32).unwrap();
                    let asked = list.iter().filter(|b| b.prefix.contains(&host)).map(|b| b.expires_ns).max();
                    let longest = trie.iter().filter(|(p, _)| p.contains(&host)).max_by_key(|(p, _)| p.bits());
                    prop_assert_eq!(longest.map(|(_, ns)| *ns), asked);
                }
            }
        }
    }
}
