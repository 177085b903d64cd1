//! Sessions of the SDK on a real `veltrix run --data DIR` that is killed and started
//! again amid them: every action depends on the one before it, so one that overtakes
//! another is refused, and the wallets tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use veltrix_client::{Client, Done, Event, GameSession, Outcome, QueryError, SendError, Spent};
use veltrix_tests::loopback::Node;
use veltrix_tests::server::require_binary;

const HUNTS: u64 = 3;
const SESSIONS: u64 = 24;

/// Credits of one session, each spent at once.
const ROUNDS: u64 = 400;

/// Actions a session hands over at a time.
const TOGETHER: usize = 64;

/// Deadline of every third session: it misses its answers while the server is away.
const IMPATIENT: Duration = Duration::from_millis(100);
const PATIENT: Duration = Duration::from_secs(60);

/// Longest run: past it something hangs.
const RUN_MAX: Duration = Duration::from_secs(240);

/// Told to whoever kills the server.
#[derive(Default)]
struct Progress {
    answered: AtomicU64,
    missed: AtomicU64,
    news: Notify,
}

impl Progress {
    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
        self.news.notify_waiters();
    }

    async fn until(&self, counter: &AtomicU64, least: u64) {
        loop {
            let news = self.news.notified();
            if counter.load(Relaxed) >= least {
                return;
            }
            news.await;
        }
    }
}

/// Credits and spends one behind the other; what was not sent is handed over again.
async fn play(session: &GameSession, progress: &Progress) -> Result<()> {
    let me = session.player();
    let credit_and_spend = |round: u64| [Event::credit(me, round + 1), Event::spend(me, round + 1)];
    let mut left: std::collections::VecDeque<Event> =
        (0..ROUNDS).flat_map(credit_and_spend).collect();
    while !left.is_empty() {
        let batch: Vec<Event> = left.drain(..left.len().min(TOGETHER)).collect();
        let results = session.send_all(batch.iter().cloned()).await;
        let mut held_back = Vec::new();
        for (event, result) in batch.into_iter().zip(results) {
            match result {
                Ok(receipt) if receipt.outcome == Outcome::Applied => {
                    ensure!(held_back.is_empty(), "{event:?} overtook {held_back:?}");
                    progress.count(&progress.answered);
                }
                Ok(receipt) => bail!("{event:?}: {}", receipt.outcome.label()),
                // It goes first again, with its key, before whatever comes next.
                Err(SendError::Deadline { .. }) => progress.count(&progress.missed),
                Err(SendError::NotSent) => held_back.push(event),
                Err(error) => bail!("{event:?}: {error}"),
            }
        }
        for event in held_back.into_iter().rev() {
            left.push_front(event);
        }
    }
    Ok(())
}

/// Plays, sees to it that the last action has its outcome too, and reads what is left.
async fn whole(client: Client, number: u64, progress: Arc<Progress>) -> Result<()> {
    let session = client.domain(number % HUNTS).session(number + 1);
    play(&session, &progress).await.with_context(|| format!("session {number}"))?;
    let all_spent = spend(&session, 1).await?;
    ensure!(all_spent.outcome == Spent::InsufficientFunds, "session {number}: {all_spent:?}");
    // Without an answer it is applied before the next, which then finds it.
    let kept = session.credit(number + 1).await;
    ensure!(matches!(kept, Ok(_) | Err(SendError::Deadline { .. })), "session {number}: {kept:?}");
    let too_much = spend(&session, number + 2).await?;
    ensure!(too_much.outcome == Spent::InsufficientFunds, "session {number}: {too_much:?}");
    let me = loop {
        match session.me().await {
            Err(QueryError::Deadline { .. }) => {}
            read => break read?,
        }
    };
    ensure!(me.epoch >= too_much.epoch, "session {number}: {me:?} after {too_much:?}");
    let wallet = me.value.context("a player with a wallet")?.wallet;
    ensure!(wallet == number + 1, "session {number}: {wallet} left");
    Ok(())
}

/// Spends until there is an answer.
async fn spend(session: &GameSession, amount: u64) -> Result<Done<Spent>> {
    loop {
        match session.spend(amount).await {
            Err(SendError::Deadline { .. } | SendError::NotSent) => {}
            other => return Ok(other?),
        }
    }
}

#[test]
fn actions_of_a_session_are_applied_in_order_across_a_kill() {
    if !require_binary("actions_of_a_session_are_applied_in_order_across_a_kill") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let played = async {
        let node = Node::start()?;
        let progress = Arc::new(Progress::default());
        let mut sessions = JoinSet::new();
        for number in 0..SESSIONS {
            let deadline = if number % 3 == 0 { IMPATIENT } else { PATIENT };
            let client = Client::builder().deadline(deadline).connect(node.address()).await?;
            sessions.spawn(whole(client, number, progress.clone()));
        }
        let kill = async {
            progress.until(&progress.answered, SESSIONS * ROUNDS / 2).await;
            let killed = node.kill()?;
            let missed = progress.missed.load(Relaxed);
            progress.until(&progress.missed, missed + SESSIONS / 3).await;
            tokio::task::spawn_blocking(|| killed.restart()).await?
        };
        let play = async {
            while let Some(session) = sessions.join_next().await {
                session.context("a session panicked")??;
            }
            anyhow::Ok(())
        };
        let (_, _node) = tokio::try_join!(play, kill)?;
        anyhow::Ok(progress.missed.load(Relaxed))
    };
    let missed = runtime
        .block_on(async { tokio::time::timeout(RUN_MAX, played).await.context("the run hangs")? })
        .unwrap_or_else(|error| panic!("{error:#}"));
    println!("{missed} actions missed their answer at first");
}
