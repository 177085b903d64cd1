//! The Rust client of Veltrix: hand it events, get each one's outcome.
//!
//! ```no_run
//! use veltrix_client::{Client, Event, Mode};
//!
//! # async fn hunt() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().mode(Mode::None).connect("127.0.0.1:4747").await?;
//! let hunt = client.domain(42);
//! let receipt = hunt.send(Event::claim(7, 0x0123_4567).payload(*b"gold")).await?;
//! println!("{}", receipt.outcome.label());
//! println!("{:?}", client.close().await);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does for you
//!
//! - Every event gets an idempotency key (UUIDv7, stamped with the server's
//!   log time) and keeps it through all retries: a server that runs the log
//!   applies it at most once, and answers a retry with the first outcome.
//! - Events of one domain that are sent at the same time share datagrams. A
//!   batch leaves when it is full, when nothing more is queued, or after the
//!   linger (200 us). For throughput, have many sends under way:
//!   [`Domain::submit`] takes an event over and gives its receipt later.
//! - What gets lost is sent again after a jittered wait, until the deadline
//!   (2 s). `busy` answers are honoured, with jitter on top.
//! - Memory is bounded: at most `events_in_flight_max` events wait for an
//!   outcome; past that [`Domain::send`] waits and [`Domain::try_send`] fails.
//!
//! # Reading
//!
//! A [`Domain`] is read by the same socket: [`player`](Domain::player),
//! [`cell`](Domain::cell), [`cells_in_box`](Domain::cells_in_box),
//! [`nearest_cells`](Domain::nearest_cells), [`top`](Domain::top),
//! [`rank`](Domain::rank), [`summary`](Domain::summary), and several of them in
//! one datagram by [`query`](Domain::query).
//!
//! ```no_run
//! # async fn board(hunt: veltrix_client::Domain) -> Result<(), veltrix_client::QueryError> {
//! let mut from = 1;
//! loop {
//!     let page = hunt.top(from, 30).await?;
//!     for row in page.value.rows {
//!         println!("{:>4} {:>8} player {}", row.rank, row.score, row.player);
//!     }
//!     let Some(next) = page.value.next else { return Ok(()) };
//!     from = next;
//! }
//! # }
//! ```
//!
//! - Every result is a [`Read`]: the rows, the log index (`epoch`) whose state
//!   they show, and how old that may be (`age`). Pages that follow each other may
//!   show different epochs.
//! - To read what was written, ask for its epoch:
//!   `hunt.at_least(receipt.epoch).player(7)`.
//! - A query that gets lost is asked again like an event, as is one that the
//!   server cannot answer yet; at the deadline the error says which it was.
//! - A server without a log answers no queries: [`QueryError::Refused`].
//!   [`ServerInfo::answers_queries`] tells beforehand.
//!
//! # Playing
//!
//! A [`GameSession`] is one player in one hunt: typed actions with typed answers,
//! applied in the order they were handed over, through all retries, and reads that
//! show them.
//!
//! ```no_run
//! # async fn play(client: veltrix_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let anna = client.domain(42).session(7);
//! let (collected, opened) = tokio::join!(anna.collect(0x100), anna.use_key(0x200));
//! println!("{:?}, then {:?}", collected?.outcome, opened?.outcome);
//! println!("{:?}", anna.me().await?.value);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It does not keep events across the end of its process: give an
//! [`Event::key`] of your own when an event must survive that. A [`Domain`] does
//! not order events of different batches: wait for one receipt before you send
//! what depends on it, or play through a [`GameSession`].
//!
//! # Reading on
//!
//! [`codec`] is the same format without sockets or tasks. The bytes are
//! specified in `userspace/docs/WIRE.md`.
#![forbid(unsafe_code)]

pub mod codec;

mod config;
mod driver;
mod error;
mod event;
mod flight;
mod query;
mod session;
mod split;
mod stats;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use tokio::net::ToSocketAddrs;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};

pub use config::ClientBuilder;
pub use error::{ConnectError, QueryError, RefusedReason, SendError};
pub use event::{Event, Receipt, ServerInfo};
pub use query::{AROUND_MAX, Page, Read, Rows};
pub use session::{
    Abandoned, Banked, Claimed, Collected, Credited, Done, GameSession, Joined, Opened, Passed,
    Pinged, Powered, Spent, Transferred,
};
pub use split::SplitHunt;
pub use stats::Stats;
pub use uuid::Uuid;
pub use veltrix_abi::kinds::{Hotspot, HotspotKind, HuntSetup, PowerUp, QuestPay, Quota};
pub use veltrix_abi::query::{
    COORDINATE_MAX, CellRow, HuntRow, PlayerRow, QueryKind, ROWS_MAX, RankRow, Wanted,
};
pub use veltrix_abi::split::{Region, Split};
pub use veltrix_abi::wire::Mode;
pub use veltrix_abi::{Outcome, Refusal};

use driver::{Command, Driver};
use flight::{Asker, Waiter};
use stats::Counters;

/// A connection to a server: cheap to clone, all clones are one client.
///
/// Its work is done by a task of the tokio runtime it connected on. When the
/// last clone and the last [`Domain`] are dropped, the task ends once every
/// event it took over has an outcome or passed its deadline.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    room: Arc<Semaphore>,
    /// Number of the next session of this client.
    session_next: AtomicU64,
    counters: Arc<Counters>,
    server: ServerInfo,
    datagram_bytes_max: usize,
}

impl Client {
    /// Connects with the default settings: durable acks, 1,232-byte datagrams,
    /// 2 s deadline.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`ConnectError::ModeUnavailable`] from a server that
    /// runs no log yet, for which [`ClientBuilder::mode`] can ask for less.
    pub async fn connect(addr: impl ToSocketAddrs) -> Result<Self, ConnectError> {
        Self::builder().connect(addr).await
    }

    /// Settings to change before connecting.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn start(config: &ClientBuilder, greeting: config::Greeting) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let shared = Shared {
            commands: sender,
            room: Arc::new(Semaphore::new(config.events_in_flight_max)),
            session_next: AtomicU64::new(0),
            counters: counters.clone(),
            server: greeting.server.clone(),
            datagram_bytes_max: config.datagram_bytes_max(&greeting.server.welcome) & !7,
        };
        tokio::spawn(Driver::new(config, greeting, counters).run(receiver));
        Self { shared: Arc::new(shared) }
    }

    /// The consistency domain `key` names: what one event may touch
    /// atomically, by default one hunt.
    #[must_use]
    pub fn domain(&self, key: u64) -> Domain {
        Domain { client: self.clone(), key, min_epoch: 0 }
    }

    /// What the server said of itself.
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        &self.shared.server
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// Takes no more events and queries, waits until every event taken over has
    /// its outcome and every query its answer, or passed its deadline, and gives
    /// the final counts.
    ///
    /// Other clones of the client see [`SendError::Closed`] and
    /// [`QueryError::Closed`] from then on.
    pub async fn close(self) -> Stats {
        self.shared.room.close();
        let (done, closed) = oneshot::channel();
        if self.shared.commands.send(Command::Close { done }).is_ok() {
            // An error says that the driver is gone already, closed by a clone.
            let _ = closed.await;
        }
        self.stats()
    }
}

/// One consistency domain of a client; events are sent, and queries asked,
/// through it.
#[derive(Clone, Debug)]
pub struct Domain {
    client: Client,
    key: u64,
    /// Epoch that queries ask for; 0 = any.
    min_epoch: u64,
}

impl Domain {
    /// The domain's key.
    #[must_use]
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// Sends an event and waits for its outcome.
    ///
    /// Dropping the future does not take the event back.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn send(&self, event: Event) -> Result<Receipt, SendError> {
        self.submit(event).await?.await
    }

    /// Hands an event over, waiting only for room in flight; the receipt is
    /// the [`Pending`] future's.
    ///
    /// # Errors
    ///
    /// [`SendError`], without [`SendError::Deadline`].
    pub async fn submit(&self, event: Event) -> Result<Pending, SendError> {
        event.check()?;
        let room = self.client.shared.room.clone();
        let permit = room.acquire_owned().await.map_err(|_| SendError::Closed)?;
        self.enqueue(event, permit)
    }

    /// Hands an event over without waiting at all.
    ///
    /// # Errors
    ///
    /// [`SendError::InFlightFull`] when there is no room, or as
    /// [`submit`](Self::submit).
    pub fn try_send(&self, event: Event) -> Result<Pending, SendError> {
        event.check()?;
        let room = self.client.shared.room.clone();
        let permit = room.try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => SendError::InFlightFull,
            TryAcquireError::Closed => SendError::Closed,
        })?;
        self.enqueue(event, permit)
    }

    /// Sends many events and waits for all outcomes, given in the events'
    /// order.
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

    fn enqueue(&self, event: Event, permit: OwnedSemaphorePermit) -> Result<Pending, SendError> {
        let (reply, receipt) = oneshot::channel();
        let waiter = Waiter::new(reply, permit);
        let command = Command::Submit { domain: self.key, event, waiter };
        self.client.shared.commands.send(command).map_err(|_| SendError::Closed)?;
        Ok(Pending { receipt })
    }

    /// Has queries sent that were checked; each call takes one place in flight.
    async fn ask(&self, wanted: Vec<Wanted>) -> Result<Read<Vec<Rows>>, QueryError> {
        let shared = &self.client.shared;
        let room = shared.room.clone();
        let permit = room.acquire_owned().await.map_err(|_| QueryError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let min_epoch = self.min_epoch;
        let asker = Asker { wanted, min_epoch, put_off: None, reply, _permit: permit };
        let command = Command::Ask { domain: self.key, asker };
        shared.commands.send(command).map_err(|_| QueryError::Closed)?;
        answer.await.unwrap_or(Err(QueryError::Closed))
    }
}

/// The receipt of an event that was handed over. Dropping it does not take
/// the event back.
#[derive(Debug)]
pub struct Pending {
    receipt: oneshot::Receiver<Result<Receipt, SendError>>,
}

/// What became of events that were handed over, in their order.
pub(crate) async fn receipts(
    pending: Vec<Result<Pending, SendError>>,
) -> Vec<Result<Receipt, SendError>> {
    let mut receipts = Vec::with_capacity(pending.len());
    for one in pending {
        receipts.push(match one {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        });
    }
    receipts
}

impl Future for Pending {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receipt)
            .poll(context)
            .map(|received| received.unwrap_or(Err(SendError::Closed)))
    }
}
