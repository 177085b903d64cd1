//! The bridge from handlers, which must be `Send`, to the server's state, which
//! belongs to one thread: a request in a channel, its answer in a oneshot.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use veltrix_abi::query::{Entries, HuntRow, QueryStatus, Row, Wanted};

use super::refused::Refused;
use crate::admin::status::Status;
use crate::read::hunts::{HuntLine, LINES_MAX, Piece};
use crate::run::server::Server;
use crate::run::state::{NotAsked, Subject, TellAnswer, Totals};

/// How long the state may take to answer: a lane that answers at all does so in
/// microseconds.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How long a read waits for its epoch, or for a partition between two lanes.
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// Pause before such a read is asked again.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// Longest such pause: it doubles, so that who asks for an epoch that is far off does
/// not keep the control core busy.
const SETTLE_PAUSE_MAX: Duration = Duration::from_millis(64);

/// Age at which a status is read anew: a reading stops the log for a moment.
const STATUS_AGE_MAX: Duration = Duration::from_millis(100);

/// What handlers ask of the state.
pub enum Ask {
    /// The whole status.
    Status(oneshot::Sender<Box<Status>>),
    /// The log in short; `None` without a log.
    Totals(oneshot::Sender<Option<Totals>>),
    /// Somebody begins to watch the stream; the log in short, `None` without a log.
    Watch(oneshot::Sender<Option<Totals>>),
    /// A read of the game.
    Read {
        /// Where.
        subject: Subject,
        /// Epoch that must be applied; 0 = any.
        min_epoch: u64,
        /// What.
        wanted: Vec<Wanted>,
        /// Gets the answer.
        tell: TellAnswer,
    },
    /// Hunts of a partition.
    Hunts {
        /// Which.
        partition: u16,
        /// Number of the first.
        from: u16,
        /// Gets a [`Piece`].
        tell: TellAnswer,
    },
}

/// Answers asks for ever; the server's thread runs it.
pub async fn answer(asks: Option<mpsc::Receiver<Ask>>, server: Rc<Server>) {
    let Some(mut asks) = asks else { return std::future::pending().await };
    let mut last: Option<(Instant, Status)> = None;
    while let Some(ask) = asks.recv().await {
        // Who no longer waits is no error.
        match ask {
            Ask::Status(tell) => {
                let fresh = last.take().filter(|(at, _)| at.elapsed() < STATUS_AGE_MAX);
                let read = match fresh {
                    Some(read) => read,
                    None => (Instant::now(), server.status_in_turn().await),
                };
                let (_, status) = last.insert(read);
                drop(tell.send(Box::new(status.clone())));
            }
            Ask::Totals(tell) => drop(tell.send(server.live().map(|live| live.totals()))),
            Ask::Watch(tell) => {
                let live = server.live().inspect(|live| live.watch());
                drop(tell.send(live.map(|live| live.totals())));
            }
            Ask::Read { subject, min_epoch, wanted, tell } => match server.live() {
                Some(live) => live.read(subject, min_epoch, &wanted, tell),
                None => drop(tell.send(Err(NotAsked::NoLog))),
            },
            Ask::Hunts { partition, from, tell } => match server.live() {
                Some(live) => live.read_hunts(partition, from, LINES_MAX as u16, tell),
                None => drop(tell.send(Err(NotAsked::NoLog))),
            },
        }
    }
    // Handlers are gone only when the runtime ends.
    std::future::pending().await
}

/// A read that found its hunt.
pub struct Found<R> {
    /// Epoch it shows.
    pub epoch: u64,
    /// How old that may be, nanoseconds.
    pub age_ns: u64,
    /// Whether what was wanted is there.
    pub is_found: bool,
    /// Where to go on, when there is more.
    pub next: Option<u64>,
    /// What was wanted.
    pub rows: Vec<R>,
}

/// Hunts of a partition.
pub struct FoundHunts {
    /// Epoch they show.
    pub epoch: u64,
    /// How old that may be, nanoseconds.
    pub age_ns: u64,
    /// Number to go on from, when there are more.
    pub next: Option<u16>,
    /// The hunts, in order of their numbers.
    pub lines: Vec<HuntLine>,
}

/// The handlers' end.
#[derive(Clone)]
pub struct Asks {
    sender: mpsc::Sender<Ask>,
    /// Set once the state may be asked.
    begun: Arc<OnceLock<Result<SocketAddr, String>>>,
}

impl Asks {
    pub(super) const fn new(
        sender: mpsc::Sender<Ask>,
        begun: Arc<OnceLock<Result<SocketAddr, String>>>,
    ) -> Self {
        Self { sender, begun }
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Refused> {
        if self.begun.get().is_none() {
            return Err(Refused::later("the server is starting: its log is being replayed"));
        }
        let stopping = || Refused::later("the server is stopping");
        let (tell, told) = oneshot::channel();
        let asked = async {
            self.sender.send(ask(tell)).await.map_err(|_| stopping())?;
            told.await.map_err(|_| stopping())
        };
        match timeout(ANSWER_MAX, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Refused::later(format!("no answer from a lane in {ANSWER_MAX:?}"))),
        }
    }

    /// The whole status.
    ///
    /// # Errors
    ///
    /// The server starts or stops.
    pub async fn status(&self) -> Result<Box<Status>, Refused> {
        self.ask(Ask::Status).await
    }

    /// The log in short.
    ///
    /// # Errors
    ///
    /// As [`Self::status`]; the server has no log.
    pub async fn totals(&self) -> Result<Totals, Refused> {
        self.ask(Ask::Totals).await?.ok_or_else(Refused::no_log)
    }

    /// Has lanes sample what they apply, for a receiver that is there already; gives
    /// the log in short.
    ///
    /// # Errors
    ///
    /// As [`Self::totals`].
    pub async fn watch(&self) -> Result<Totals, Refused> {
        self.ask(Ask::Watch).await?.ok_or_else(Refused::no_log)
    }

    async fn read(
        &self,
        subject: Subject,
        min_epoch: u64,
        wanted: &[Wanted],
    ) -> Result<Box<[u8]>, Refused> {
        let wanted = wanted.to_vec();
        let answer = self.ask(|tell| Ask::Read { subject, min_epoch, wanted, tell }).await?;
        answer.map_err(not_asked)
    }

    /// Hunts of a partition from a number on.
    ///
    /// # Errors
    ///
    /// No lane answers.
    pub async fn hunts(
        &self,
        partition: u16,
        from: u16,
        min_epoch: u64,
    ) -> Result<FoundHunts, Refused> {
        let mut patience = Patience::new();
        loop {
            let answer = self.ask(|tell| Ask::Hunts { partition, from, tell }).await?;
            let body = answer.map_err(not_asked)?;
            let piece = Piece::read(&body).ok_or_else(unreadable)?;
            let why = match (piece.is_here, piece.epoch) {
                (false, _) => format!("partition {partition} is changing its lane"),
                (true, epoch) if epoch < min_epoch => behind(min_epoch, epoch),
                (true, epoch) => {
                    let lines = piece.lines().collect();
                    return Ok(FoundHunts { epoch, age_ns: piece.age_ns, next: piece.next, lines });
                }
            };
            patience.wait(why).await?;
        }
    }

    /// Epoch and age of what the owner of a partition shows.
    ///
    /// # Errors
    ///
    /// The lane does not answer.
    pub async fn shown(&self, partition: u16) -> Result<(u64, u64), Refused> {
        let body = self.read(Subject::Partition(partition), 0, &[Wanted::Hunt]).await?;
        let answer = Entries::check(&body, 1).ok_or_else(unreadable)?;
        Ok((answer.epoch, answer.age_ns))
    }

    /// Reads from a hunt that must exist.
    ///
    /// # Errors
    ///
    /// It does not, or no lane answers.
    pub async fn game<R: Row>(
        &self,
        hunt: u64,
        min_epoch: u64,
        wanted: Wanted,
    ) -> Result<Found<R>, Refused> {
        let mut patience = Patience::new();
        loop {
            // The hunt as well: an unknown one is told from an unknown player.
            let both = [Wanted::Hunt, wanted];
            let body = self.read(Subject::Hunt(hunt), min_epoch, &both).await?;
            match decode(&body, hunt, min_epoch)? {
                Decoded::Found(found) => return Ok(found),
                Decoded::NotYet(why) => patience.wait(why).await?,
            }
        }
    }
}

/// How long an answer that does not show what is wanted yet is asked for again.
struct Patience {
    asked: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { asked: Instant::now(), pause: SETTLE_PAUSE }
    }

    /// # Errors
    ///
    /// It is over; `why` is what was waited for.
    async fn wait(&mut self, why: String) -> Result<(), Refused> {
        if self.asked.elapsed() >= SETTLE_MAX {
            return Err(Refused::later(why));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(SETTLE_PAUSE_MAX);
        Ok(())
    }
}

fn not_asked(why: NotAsked) -> Refused {
    match why {
        NotAsked::NoLog => Refused::no_log(),
        NotAsked::AllUnderWay => {
            Refused::later("as many reads as may be are under way on this server")
        }
    }
}

fn behind(min_epoch: u64, epoch: u64) -> String {
    format!("min_epoch is {min_epoch}, the server has applied up to {epoch}")
}

enum Decoded<R> {
    Found(Found<R>),
    NotYet(String),
}

fn unreadable() -> Refused {
    Refused::new(
        axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        "a lane gave an answer that does not decode",
        "this is a bug of Veltrix: report it with the request",
    )
}

/// Takes the answer to a [`Wanted::Hunt`] and to another apart.
fn decode<R: Row>(body: &[u8], hunt: u64, min_epoch: u64) -> Result<Decoded<R>, Refused> {
    let mut entries = Entries::check(body, 2).ok_or_else(unreadable)?;
    let (epoch, age_ns) = (entries.epoch, entries.age_ns);
    let (Some(of_hunt), Some(entry)) = (entries.next(), entries.next()) else {
        return Err(unreadable());
    };
    match of_hunt.head.status {
        QueryStatus::Moving => {
            return Ok(Decoded::NotYet("the hunt's partition is changing its lane".into()));
        }
        QueryStatus::Behind => {
            return Ok(Decoded::NotYet(behind(min_epoch, epoch)));
        }
        QueryStatus::NotFound => {
            return Err(Refused::new(
                axum::http::StatusCode::NOT_FOUND,
                format!("there is no hunt {hunt} at epoch {epoch}"),
                "a hunt begins with its first event that is applied: POST /v1/events",
            ));
        }
        _ if of_hunt.rows::<HuntRow>().next().is_none() => return Err(unreadable()),
        _ => {}
    }
    let has_more = match entry.head.status {
        QueryStatus::Found | QueryStatus::NotFound => false,
        QueryStatus::More => true,
        QueryStatus::TooMuch => {
            return Err(Refused::new(
                axum::http::StatusCode::UNPROCESSABLE_ENTITY,
                "too many cells to look through for the answer",
                "ask for fewer cells, or for those of a box",
            ));
        }
        _ => return Err(unreadable()),
    };
    Ok(Decoded::Found(Found {
        epoch,
        age_ns,
        is_found: entry.head.status != QueryStatus::NotFound,
        next: has_more.then_some(entry.head.next),
        rows: entry.rows().collect(),
    }))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn before_the_start_and_after_the_end_nothing_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (sender, receiver) = mpsc::channel(1);
        let begun = Arc::new(OnceLock::new());
        let asks = Asks::new(sender, Arc::clone(&begun));
        let said = || runtime.block_on(asks.totals()).unwrap_err();
        assert!(format!("{:?}", said()).contains("starting"));
        assert_eq!(said().into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
        begun.set(Err(String::new())).unwrap();
        drop(receiver);
        assert!(format!("{:?}", said()).contains("stopping"));
    }
}
