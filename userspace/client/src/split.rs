//! Split hunts: one hunt as several domains, for one that outgrows a core.
//!
//! ```text
//!   what a player does         ──> home(player)     wallet, items, score
//!   what is done to a hotspot  ──> region_of(cell)
//!   what concerns all          ──> everywhere
//! ```

use std::cmp::Reverse;

use tokio::task::JoinSet;
use veltrix_abi::query::{PlayerRow, RankRow};
use veltrix_abi::split::{Region, Split};

use crate::error::{QueryError, SendError};
use crate::event::{Event, Receipt};
use crate::query::Read;
use crate::{Client, Domain, GameSession, HuntSetup, Quota};

/// A hunt in regions. What is atomic in it, and what follows when, is told in
/// `userspace/docs/GAMES.md`.
///
/// ```no_run
/// use veltrix_client::{Client, Hotspot, HotspotKind, HuntSetup, Quota, Split};
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("127.0.0.1:4747").await?;
/// let hunt = client.split(42, Split::new(4, 0).ok_or("4 bits of 60")?);
/// let setup = HuntSetup { game: 1, length_s: 0, settings: 0 };
/// for opened in hunt.open(1, &setup, &Quota::default()).await? {
///     println!("{}", opened?.outcome.label());
/// }
/// let chest = Hotspot { kind: HotspotKind::Chest, item: 3, remaining: 1, reward: 5, lifetime_s: 0 };
/// hunt.spawn(1, 0x100, &chest).await?;
/// let anna = hunt.session(7);
/// println!("{:?}", anna.use_key_of(0x100, 3).await?.outcome);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SplitHunt {
    client: Client,
    root: u64,
    split: Split,
}

impl Client {
    /// The hunt `root`, divided so. Everybody who plays in it must divide it alike.
    #[must_use]
    pub fn split(&self, root: u64, split: Split) -> SplitHunt {
        SplitHunt { client: self.clone(), root, split }
    }
}

impl SplitHunt {
    fn region(&self, number: u16) -> Domain {
        self.client.domain(self.split.domain(self.root, number))
    }

    /// Every region.
    pub fn regions(&self) -> impl Iterator<Item = Domain> {
        (0..self.split.regions()).map(|number| self.region(number))
    }

    /// Where a player is at home.
    #[must_use]
    pub fn home(&self, player: u64) -> Domain {
        self.region(self.split.home_of(player))
    }

    /// The region that a cell lies in.
    #[must_use]
    pub fn region_of(&self, cell: u64) -> Domain {
        self.region(self.split.of_cell(cell))
    }

    /// A session of a player, at home. It reaches cells of all regions; a key is
    /// spent by [`GameSession::use_key_of`], and cells are read from
    /// [`Self::region_of`].
    #[must_use]
    pub fn session(&self, player: u64) -> GameSession {
        self.home(player).session(player)
    }

    /// Opens every region as a game of some type, which must be one that shares
    /// nothing between players. `quota` is that of each region. Receipts in the order
    /// of the regions: one that says `already-done` was opened by an earlier try.
    ///
    /// # Errors
    ///
    /// [`SendError::Setup`] when a field of the setup is out of its range.
    pub async fn open(
        &self,
        player: u64,
        setup: &HuntSetup,
        quota: &Quota,
    ) -> Result<Vec<Result<Receipt, SendError>>, SendError> {
        let mut pending = Vec::new();
        for number in 0..self.split.regions() {
            let region = Region { root: self.root, split: self.split, number };
            let event = Event::open_region(player, setup, quota, &region)?;
            pending.push(self.region(number).submit(event).await);
        }
        Ok(crate::receipts(pending).await)
    }

    /// Sends an event that concerns the whole hunt to every region: hunt-close,
    /// quest-define, treasure-type-updated. Each region gets its own copy, with a key
    /// of its own: made of the event's, if it has one, so that all of it can be tried
    /// again.
    pub async fn everywhere(&self, event: &Event) -> Vec<Result<Receipt, SendError>> {
        let mut pending = Vec::new();
        for (number, region) in (0..).zip(self.regions()) {
            pending.push(region.submit(copy_for(event, number)).await);
        }
        crate::receipts(pending).await
    }

    /// Puts a hotspot onto a cell.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn spawn(
        &self,
        player: u64,
        cell: u64,
        hotspot: &crate::Hotspot,
    ) -> Result<Receipt, SendError> {
        self.region_of(cell).send(Event::spawn(player, cell, hotspot)?).await
    }

    /// The first `limit` players of all regions, at most 36, ranked together. Of equal
    /// scores of one epoch, the player of the lower region is first. The epoch is the
    /// lowest, the age the highest of what the regions said.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn top(&self, limit: u16) -> Result<Read<Vec<RankRow>>, QueryError> {
        let mut asked = JoinSet::new();
        for (number, region) in self.regions().enumerate() {
            asked.spawn(async move { (number, region.top(1, limit).await) });
        }
        let mut all = Vec::new();
        let (mut epoch, mut age) = (u64::MAX, std::time::Duration::ZERO);
        while let Some(answer) = asked.join_next().await {
            let (number, answer) = answer.map_err(|_| QueryError::Closed)?;
            let answer = answer?;
            (epoch, age) = (epoch.min(answer.epoch), age.max(answer.age));
            all.extend(answer.value.rows.into_iter().map(|row| (number, row)));
        }
        all.sort_by_key(|(number, row)| (Reverse(row.score), row.score_epoch, *number, row.rank));
        let rows = (1..).zip(all).take(limit.into());
        let value = rows.map(|(rank, (_, row))| RankRow { rank, ..row }).collect();
        Ok(Read { value, epoch, age })
    }

    /// Rank of a player among those of all regions, as [`Self::top`] orders them; `None`
    /// without a score. Each region is asked some twenty times, all at once: where
    /// scores change meanwhile, it is exact for none of the epochs in between.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn rank(&self, player: u64) -> Result<Read<Option<u64>>, QueryError> {
        let home = self.split.home_of(player);
        let found = self.region(home).player(player).await?;
        let (mut epoch, mut age) = (found.epoch, found.age);
        let Some(row) = found.value.filter(|row| row.rank > 0) else {
            return Ok(Read { value: None, epoch, age });
        };
        let mut rank = u64::from(row.rank);
        let mut asked = JoinSet::new();
        for number in (0..self.split.regions()).filter(|number| *number != home) {
            asked.spawn(before(self.region(number), row, number < home));
        }
        while let Some(answer) = asked.join_next().await {
            let answer = answer.map_err(|_| QueryError::Closed)??;
            (epoch, age) = (epoch.min(answer.epoch), age.max(answer.age));
            rank += u64::from(answer.value);
        }
        Ok(Read { value: Some(rank), epoch, age })
    }
}

/// An event for one of several regions: where two are in one partition, a key that is
/// the same would make the second copy a duplicate of the first.
fn copy_for(event: &Event, region: u16) -> Event {
    let Some(key) = event.key else { return event.clone() };
    let mut key = key.into_bytes();
    let [low, high] = region.to_le_bytes();
    (key[15], key[14]) = (key[15] ^ low, key[14] ^ high);
    event.clone().key(crate::Uuid::from_bytes(key))
}

/// Players of a region who are before one of another; whoever has the same score since
/// the same epoch is, when the region `is_first`.
async fn before(region: Domain, one: PlayerRow, is_first: bool) -> Result<Read<u32>, QueryError> {
    let summary = region.summary().await?;
    let (mut epoch, mut age) = (summary.epoch, summary.age);
    let (mut from, mut to) = (0, summary.value.map_or(0, |hunt| hunt.ranked));
    while from < to {
        let middle = from + (to - from) / 2;
        let page = region.top(u64::from(middle) + 1, 1).await?;
        (epoch, age) = (epoch.min(page.epoch), age.max(page.age));
        let is_before = page.value.rows.first().is_some_and(|row| {
            let (theirs, ones) =
                ((Reverse(row.score), row.score_epoch), (Reverse(one.score), one.score_epoch));
            theirs < ones || (is_first && theirs == ones)
        });
        if is_before {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    Ok(Read { value: from, epoch, age })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Uuid;

    #[test]
    fn copies_for_regions_have_keys_of_their_own() {
        let key = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00ff);
        let event = Event::close(1).key(key);
        let mut keys: Vec<_> = (0..256).map(|n| copy_for(&event, n).key.unwrap()).collect();
        assert!(keys.iter().all(|copy| copy.as_u128() >> 16 == key.as_u128() >> 16));
        assert_eq!(keys[0], key);
        assert_eq!(copy_for(&event, 7).key, Some(keys[7]), "the same at the next try");
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 256);
        assert_eq!(copy_for(&Event::close(1), 3).key, None);
    }
}
