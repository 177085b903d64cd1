//! One player's handle in one hunt: typed actions, in order, and reads that show
//! them.
//!
//! ```text
//!  collect, claim, ... ──> submit ──> the session's queue ──> one datagram at a time
//!  me, rank, cell ──> Domain::at_least(epoch) <── highest epoch of an answer ──┘
//! ```
//!
//! The queue is the driver's (`driver/sessions.rs`). A handle that is dropped
//! takes nothing back.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;
use veltrix_abi::Outcome;
use veltrix_abi::limits::{EVENT_FIXED_BYTES, HEADER_BYTES};
use veltrix_abi::query::{CellRow, PlayerRow, RankRow};

use crate::driver::Command;
use crate::error::{QueryError, SendError};
use crate::event::{Event, Receipt};
use crate::flight::Waiter;
use crate::query::{Page, Read};
use crate::{Domain, Pending, PowerUp, receipts};

/// What driver and handles know of a session.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Unlike that of every other session of the client.
    pub(crate) number: u64,
    pub(crate) domain: u64,
    /// Highest epoch that an answer named; 0 before the first.
    pub(crate) epoch: AtomicU64,
}

/// A player in a hunt, whose events are applied in the order they were handed
/// over. Cheap to clone; all clones are one session.
///
/// ```no_run
/// use veltrix_client::{Claimed, Client};
///
/// # async fn hunt() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("127.0.0.1:4747").await?;
/// let anna = client.domain(42).session(7);
/// anna.collect(0x100).await?;
/// let claimed = anna.claim(0x200).await?;
/// match claimed.outcome {
///     Claimed::Won => println!("hers, at epoch {}", claimed.epoch),
///     Claimed::AlreadyClaimed => println!("somebody else was first"),
///     other => println!("{}", other.outcome().label()),
/// }
/// println!("{:?}", anna.me().await?.value);
/// # Ok(())
/// # }
/// ```
///
/// # Order
///
/// Events are applied in the order in which [`submit`](Self::submit) and the
/// methods built on it handed them over, through all retries, each at most once.
/// Each is judged by itself: one that is refused, say with `no-key`, does not
/// hold up those behind it.
///
/// For that a session has one datagram under way at a time: as many events as
/// fit, 24 by default, leave together, and the next datagram waits for the answer.
/// So a session plays at most a datagram a round trip, and shares datagrams with
/// no other. One player needs no more; what needs more and no order goes by
/// [`Domain::submit`]. The deadline of an event runs from when its datagram first
/// leaves.
///
/// The promise is of one session, with ack mode `durable`. Other sessions and
/// handles of the same player, and other players, come in between as they may.
///
/// # When no answer comes
///
/// The events of a datagram that has no answer by the deadline end in
/// [`SendError::Deadline`]: they may or may not have been applied. Those behind them
/// end in [`SendError::NotSent`], and were not. The session keeps the datagram, with
/// its keys. The next event handed over sends it again first, and follows when it has
/// its outcomes: so nothing overtakes, however long the server was away.
///
/// # Pipelining
///
/// [`submit`](Self::submit) waits for room in flight only; the receipts come later,
/// in order. A receipt becomes the typed answer by [`Done::from`]:
///
/// ```no_run
/// # use veltrix_client::{Claimed, Done, Event, GameSession, SendError};
/// # async fn tour(anna: GameSession) -> Result<(), SendError> {
/// let mut under_way = Vec::new();
/// for cell in 0x100..0x110 {
///     under_way.push(anna.submit(Event::claim(anna.player(), cell)).await?);
/// }
/// for receipt in under_way {
///     let claimed: Done<Claimed> = receipt.await?.into();
///     println!("{:?}", claimed.outcome);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GameSession {
    handle: Arc<Handle>,
}

/// Shared by all clones; with the last of them the driver forgets the session.
#[derive(Debug)]
struct Handle {
    hunt: Domain,
    player: u64,
    facts: Arc<Facts>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A driver that is gone has nothing to forget.
        let command = Command::Leave { session: self.facts.number };
        let _ = self.hunt.client.shared.commands.send(command);
    }
}

impl Domain {
    /// A new session of `player` in this hunt; see [`GameSession`].
    #[must_use]
    pub fn session(&self, player: u64) -> GameSession {
        let number = self.client.shared.session_next.fetch_add(1, Relaxed);
        let epoch = AtomicU64::new(self.min_epoch);
        let facts = Arc::new(Facts { number, domain: self.key, epoch });
        GameSession { handle: Arc::new(Handle { hunt: self.clone(), player, facts }) }
    }
}

/// Actions. Each is handed over at the first poll of its future; dropping the
/// future later does not take it back. Errors are those of [`SendError`].
impl GameSession {
    /// The player.
    #[must_use]
    pub fn player(&self) -> u64 {
        self.handle.player
    }

    /// Takes one item from the item hotspot on a cell.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn collect(&self, cell: u64) -> Result<Done<Collected>, SendError> {
        self.act(Event::collect(self.player(), cell)).await
    }

    /// Spends a key on the chest on a cell.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn use_key(&self, cell: u64) -> Result<Done<Opened>, SendError> {
        self.act(Event::use_key(self.player(), cell)).await
    }

    /// As [`Self::use_key`], with a key of item type `item` and no other.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn use_key_of(&self, cell: u64, item: u8) -> Result<Done<Opened>, SendError> {
        self.act(Event::use_key_of(self.player(), cell, item)).await
    }

    /// Claims the ticket on a cell.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn claim(&self, cell: u64) -> Result<Done<Claimed>, SendError> {
        self.act(Event::claim(self.player(), cell)).await
    }

    /// Adds `amount`, 1 or above, to the wallet.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn credit(&self, amount: u64) -> Result<Done<Credited>, SendError> {
        self.act(Event::credit(self.player(), amount)).await
    }

    /// Takes `amount`, 1 or above, from the wallet.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn spend(&self, amount: u64) -> Result<Done<Spent>, SendError> {
        self.act(Event::spend(self.player(), amount)).await
    }

    /// Moves `amount`, 1 or above, to the wallet of another player, both or neither.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn transfer(&self, payee: u64, amount: u64) -> Result<Done<Transferred>, SendError> {
        self.act(Event::transfer(self.player(), payee, amount)).await
    }

    /// Joins the hunt; in `team`, 1 to 16, where its game has teams, else 0.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn join(&self, team: u8) -> Result<Done<Joined>, SendError> {
        self.act(Event::join(self.player(), team)).await
    }

    /// Passes a node of a quest.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn checkpoint(&self, quest: u64, node: u8) -> Result<Done<Passed>, SendError> {
        self.act(Event::checkpoint(self.player(), quest, node)?).await
    }

    /// Gives up what was passed of a quest.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn abandon(&self, quest: u64) -> Result<Done<Abandoned>, SendError> {
        self.act(Event::abandon(self.player(), quest)).await
    }

    /// Spends an item for points that are multiplied for a while.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn power_up(&self, power_up: &PowerUp) -> Result<Done<Powered>, SendError> {
        self.act(Event::power_up(self.player(), power_up)?).await
    }

    /// Says that the player is on a cell.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn ping(&self, cell: u64) -> Result<Done<Pinged>, SendError> {
        self.act(Event::ping(self.player(), cell)).await
    }

    /// Moves `amount`, 1 or above, from the wallet to the bank of the team.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn deposit(&self, amount: u64) -> Result<Done<Banked>, SendError> {
        self.act(Event::deposit(self.player(), amount)).await
    }

    /// Moves `amount`, 1 or above, from the bank of the team to the wallet.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn withdraw(&self, amount: u64) -> Result<Done<Banked>, SendError> {
        self.act(Event::withdraw(self.player(), amount)).await
    }

    /// Plays an event of any kind and waits for its receipt.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit), and what the receipt ends in instead.
    pub async fn send(&self, event: Event) -> Result<Receipt, SendError> {
        self.submit(event).await?.await
    }

    /// Plays events one behind the other and waits for all outcomes, given in
    /// their order.
    pub async fn send_all(
        &self,
        events: impl IntoIterator<Item = Event>,
    ) -> Vec<Result<Receipt, SendError>> {
        let mut pending = Vec::new();
        for event in events {
            pending.push(self.submit(event).await);
        }
        receipts(pending).await
    }

    /// Hands an event of any kind over, behind all that were handed over before,
    /// waiting only for room in flight (`events_in_flight_max` of the client).
    ///
    /// # Errors
    ///
    /// [`SendError::Player`] for an event of another player,
    /// [`SendError::DatagramTooSmall`] for one that fits no datagram, and what
    /// [`Domain::submit`] refuses. Nothing of it was sent then.
    pub async fn submit(&self, event: Event) -> Result<Pending, SendError> {
        let Handle { hunt, player, facts } = &*self.handle;
        let shared = &hunt.client.shared;
        if event.player != *player {
            return Err(SendError::Player { player: event.player, session_player: *player });
        }
        event.check()?;
        let (payload_bytes, datagram_bytes_max) = (event.payload.len(), shared.datagram_bytes_max);
        let bytes = HEADER_BYTES + EVENT_FIXED_BYTES + payload_bytes.next_multiple_of(8);
        if bytes > datagram_bytes_max {
            return Err(SendError::DatagramTooSmall { payload_bytes, datagram_bytes_max });
        }
        let room = shared.room.clone();
        let permit = room.acquire_owned().await.map_err(|_| SendError::Closed)?;
        let (reply, receipt) = oneshot::channel();
        let waiter = Waiter::new(reply, permit);
        let command = Command::Play { session: facts.clone(), event, waiter };
        shared.commands.send(command).map_err(|_| SendError::Closed)?;
        Ok(Pending { receipt })
    }

    async fn act<T: From<Outcome>>(&self, event: Event) -> Result<Done<T>, SendError> {
        Ok(self.send(event).await?.into())
    }
}

/// Reads. Each shows every event of this session that was answered before it was
/// asked: at least the state at [`epoch`](Self::epoch).
impl GameSession {
    /// Highest epoch that an answer to this session has named; before the first,
    /// the one its [`Domain`] asked for.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.handle.facts.epoch.load(Relaxed)
    }

    /// The hunt, read at [`epoch`](Self::epoch) or later: for all reads that
    /// [`Domain`] has.
    #[must_use]
    pub fn hunt(&self) -> Domain {
        self.handle.hunt.at_least(self.epoch())
    }

    /// What the player owns; `None` when the hunt has given the player nothing.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn me(&self) -> Result<Read<Option<PlayerRow>>, QueryError> {
        self.hunt().player(self.player()).await
    }

    /// The player on the leaderboard, with up to `around` players before and as
    /// many behind; see [`Domain::rank`].
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn rank(&self, around: u16) -> Result<Read<Page<RankRow>>, QueryError> {
        self.hunt().rank(self.player(), around).await
    }

    /// A cell with its hotspot; see [`Domain::cell`].
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn cell(&self, cell: u64) -> Result<Read<Option<CellRow>>, QueryError> {
        self.hunt().cell(cell).await
    }
}

/// The answer to one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// What became of it.
    pub outcome: T,
    /// Log index at which it was decided; 0 in ack mode `none`.
    pub epoch: u64,
    /// Whether an earlier try had been decided already; outcome and epoch are
    /// those of that try.
    pub duplicate: bool,
}

impl<T: From<Outcome>> From<Receipt> for Done<T> {
    fn from(receipt: Receipt) -> Self {
        let Receipt { outcome, duplicate, epoch } = receipt;
        Self { outcome: outcome.into(), epoch, duplicate }
    }
}

macro_rules! answers {
    ($($(#[$meta:meta])* $name:ident { $($variant:ident = $outcome:ident, $doc:literal;)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = $doc] $variant,)*
            /// Another outcome: nothing has changed, or the ack mode does not tell.
            Other(Outcome),
        }

        impl $name {
            /// The outcome it stands for.
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self {
                    $(Self::$variant => Outcome::$outcome,)*
                    Self::Other(outcome) => outcome,
                }
            }
        }

        impl From<Outcome> for $name {
            fn from(outcome: Outcome) -> Self {
                match outcome {
                    $(Outcome::$outcome => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }
    )*};
}

answers! {
    /// Of [`GameSession::collect`].
    Collected {
        Taken = Applied, "One item more, one less on the cell, and the reward on the score.";
        NotFound = NotFound, "No item hotspot is on the cell.";
        Expired = Expired, "It has expired.";
        Closed = Closed, "The hunt is closed.";
        NotJoined = NotJoined, "The game is played in teams, and the player has none.";
        NoneLeft = AlreadyClaimed, "Others have taken all of it.";
        Full = Full, "The player holds as many as can be held.";
    }

    /// Of [`GameSession::use_key`].
    Opened {
        Opened = Applied, "One key less, and the reward where the game says.";
        NotFound = NotFound, "No chest is on the cell.";
        Expired = Expired, "It has expired.";
        Closed = Closed, "The hunt is closed.";
        NoneLeft = AlreadyClaimed, "Others have opened it as often as it can be.";
        NoKey = NoKey, "The player holds no key of its type.";
        Full = Full, "Wallet or score cannot hold the reward.";
    }

    /// Of [`GameSession::claim`].
    Claimed {
        Won = Applied, "The ticket is the player's, and its reward where the game says.";
        NotFound = NotFound, "No ticket is on the cell.";
        Expired = Expired, "It has expired.";
        Closed = Closed, "The hunt is closed.";
        NotJoined = NotJoined, "The game is played in teams, and the player has none.";
        AlreadyClaimed = AlreadyClaimed, "It is claimed: by somebody else, or by the player before.";
        Full = Full, "Wallet or score cannot hold the reward.";
    }

    /// Of [`GameSession::credit`].
    Credited {
        Credited = Applied, "The amount is in the wallet.";
        Full = Full, "The wallet cannot hold it.";
    }

    /// Of [`GameSession::spend`].
    Spent {
        Paid = Applied, "The amount is out of the wallet.";
        InsufficientFunds = InsufficientFunds, "The wallet holds less.";
    }

    /// Of [`GameSession::transfer`].
    Transferred {
        Moved = Applied, "The amount is in the other wallet.";
        InsufficientFunds = InsufficientFunds, "The wallet holds less.";
        Full = Full, "The other wallet cannot hold it.";
    }

    /// Of [`GameSession::join`].
    Joined {
        Joined = Applied, "The player is known in the hunt, in that team.";
        NotFound = NotFound, "There is no such hunt.";
        Closed = Closed, "The hunt is closed.";
        WrongGame = WrongGame, "A team where the game has none, or none where it has teams.";
        AlreadyJoined = AlreadyDone, "The player has joined before.";
        Full = Full, "Players are used up.";
    }

    /// Of [`GameSession::checkpoint`].
    Passed {
        Passed = Applied, "The node is passed, and what it pays is paid.";
        NotFound = NotFound, "There is no such hunt, quest or node.";
        Closed = Closed, "The hunt is closed.";
        NotJoined = NotJoined, "The game is played in teams, and the player has none.";
        AlreadyPassed = AlreadyDone, "The node was passed before.";
        OutOfOrder = OutOfOrder, "What must come before was not passed.";
        Full = Full, "Players or deeds are used up, or score or wallet cannot hold the pay.";
    }

    /// Of [`GameSession::abandon`].
    Abandoned {
        Abandoned = Applied, "Nothing of the quest is passed any more.";
        NotFound = NotFound, "Nothing of it was passed.";
        Closed = Closed, "The hunt is closed.";
    }

    /// Of [`GameSession::power_up`].
    Powered {
        Powered = Applied, "One item less, and points are multiplied.";
        NotFound = NotFound, "There is no such hunt.";
        Closed = Closed, "The hunt is closed.";
        NoItem = NoKey, "The player holds no such item.";
    }

    /// Of [`GameSession::ping`].
    Pinged {
        Pinged = Applied, "The player was last there.";
        NotFound = NotFound, "There is no such hunt, or the player is not known in it.";
        Closed = Closed, "The hunt is closed.";
    }

    /// Of [`GameSession::deposit`] and [`GameSession::withdraw`].
    Banked {
        Moved = Applied, "The amount is moved.";
        NotFound = NotFound, "There is no such hunt.";
        WrongGame = WrongGame, "The game has no teams.";
        NotJoined = NotJoined, "The player is in no team.";
        InsufficientFunds = InsufficientFunds, "The wallet, or the bank, holds less.";
        Full = Full, "The bank, or the wallet, cannot hold it.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_answer_and_comes_back_from_it() {
        for outcome in Outcome::ALL.iter().copied() {
            assert_eq!(Collected::from(outcome).outcome(), outcome);
            assert_eq!(Opened::from(outcome).outcome(), outcome);
            assert_eq!(Claimed::from(outcome).outcome(), outcome);
            assert_eq!(Credited::from(outcome).outcome(), outcome);
            assert_eq!(Spent::from(outcome).outcome(), outcome);
            assert_eq!(Transferred::from(outcome).outcome(), outcome);
            assert_eq!(Joined::from(outcome).outcome(), outcome);
            assert_eq!(Passed::from(outcome).outcome(), outcome);
            assert_eq!(Abandoned::from(outcome).outcome(), outcome);
            assert_eq!(Powered::from(outcome).outcome(), outcome);
            assert_eq!(Pinged::from(outcome).outcome(), outcome);
            assert_eq!(Banked::from(outcome).outcome(), outcome);
        }
        assert_eq!(Spent::from(Outcome::Full), Spent::Other(Outcome::Full));
    }

    #[test]
    fn a_receipt_becomes_the_typed_answer() {
        let receipt = Receipt { outcome: Outcome::NoKey, duplicate: true, epoch: 5 };
        let done: Done<Opened> = receipt.into();
        assert_eq!(done, Done { outcome: Opened::NoKey, epoch: 5, duplicate: true });
    }
}
