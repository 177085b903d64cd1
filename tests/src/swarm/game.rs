//! Mixed traffic as a game makes it: hunts by Zipf's law over the rank of their
//! city, events and queries, retries of what was answered, and some nonsense.
//!
//! Every request follows from its number. A session plays whole hunts and
//! gathers the events of one for a while before it sends them, so a hot hunt fills
//! its datagrams and a cold one sends events alone:
//!
//! ```text
//!   events of a hunt's datagram = 1 + Poisson(rate of the hunt x linger), at most 24
//!   datagrams of a hunt         ~ its share of events / events of its datagrams
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use veltrix::base::port::Port as _;
use veltrix_abi::Outcome;
use veltrix_abi::limits::PAYLOAD_BYTES_MAX_DEFAULT;
use veltrix_abi::query::{COORDINATE_MAX, Wanted};
use veltrix_client::codec::{self, Random};

use super::book::Tally;
use super::feed::CALL_FRAMES_MAX;
use super::reads::ReadTally;
use super::traffic::{EVENTS_MAX, Envelope, Play, World};
use super::{HEADERS_BYTES, Swarm};

/// Exponent of the law: that of the YCSB benchmarks.
const ZIPF_EXPONENT: f64 = 0.99;

/// One request of so many is a query.
const READ_OF: u64 = 10;

/// One request of so many is followed by one that was answered before.
const REPEAT_OF: u64 = 100;

/// One event of so many makes no sense.
const MALFORMED_OF: f64 = 1_000.0;

/// How many datagrams back a repeated one is; half of the way to the first at most.
const REPEAT_BACK: u64 = 20_000;

/// Requests of one call; the rest is room for repeated ones.
const REQUESTS_MAX: usize = CALL_FRAMES_MAX - 16;

/// Between two looks for what is due, and longest sleep.
const RETRY_LOOK_NS: u64 = 2_000_000;
const SLEEP_MAX: Duration = Duration::from_millis(1);

/// The schedule of an open loop: what is due comes in a burst every so often, ns.
const TICK_NS: u64 = 100_000;

/// Share of a map's side that a box is wide: it holds a tenth of the cells.
const BOX_SIDE: f64 = 0.316;

/// The traffic, worked out for a world.
#[derive(Clone, Debug)]
pub struct Game {
    world: World,
    /// Share of all datagrams up to and including those of each hunt.
    datagrams: Vec<f64>,
    /// Mean of the events that come while the first of a datagram waits.
    more: Vec<f64>,
    fill: f64,
}

impl Game {
    /// The game in `world` at `events_per_s` when sessions wait for `linger`.
    #[must_use]
    pub fn new(world: World, events_per_s: f64, linger: Duration) -> Self {
        let weights: Vec<f64> =
            (1..=world.hunts).map(|rank| f64::from(rank).powf(-ZIPF_EXPONENT)).collect();
        let all: f64 = weights.iter().sum();
        let more: Vec<f64> = weights
            .iter()
            .map(|weight| weight / all * events_per_s * linger.as_secs_f64())
            .collect();
        let mut upto = 0.0;
        let mut datagrams: Vec<f64> = weights
            .iter()
            .zip(&more)
            .map(|(weight, more)| {
                upto += weight / all / mean_fill(*more);
                upto
            })
            .collect();
        datagrams.iter_mut().for_each(|share| *share /= upto);
        Self { world, datagrams, more, fill: 1.0 / upto }
    }

    /// Events of a datagram, mean.
    #[must_use]
    pub const fn fill(&self) -> f64 {
        self.fill
    }

    fn hunt(&self, random: &mut Random) -> u32 {
        let at = random.unit();
        let hunt = self.datagrams.partition_point(|upto| *upto <= at);
        (hunt as u32).min(self.world.hunts - 1)
    }

    /// Datagram `number`.
    #[must_use]
    pub fn play(&self, number: u64) -> Play {
        let mut random = Random::new(self.world.seed ^ number);
        let hunt = self.hunt(&mut random);
        let events = fill(self.more[hunt as usize], &mut random);
        let malformed = random.unit() < f64::from(events) / MALFORMED_OF;
        Play { hunt, events, malformed }
    }

    /// Query `number`: hunt and what is asked.
    fn query(&self, number: u64) -> (u32, Wanted) {
        let mut random = Random::new(!(self.world.seed ^ number));
        let hunt = self.hunt(&mut random);
        let (cell, player) = self.world.somebody(hunt, random.next_u64());
        let side = (f64::from(COORDINATE_MAX) * BOX_SIDE) as u32;
        let mut corner = || random.below(u64::from(COORDINATE_MAX - side)) as u32;
        let (x, y) = (corner(), corner());
        let wanted = match number % 7 {
            0 => Wanted::Player(player),
            1 => Wanted::Cell(cell),
            2 => Wanted::CellsInBox { x: [x, x + side], y: [y, y + side], from: 0, limit: 36 },
            3 => Wanted::NearestCells { to: cell, limit: 10 },
            4 => Wanted::Top { from: 1, limit: 36 },
            5 => Wanted::Rank { player, around: 5 },
            _ => Wanted::Hunt,
        };
        (hunt, wanted)
    }
}

/// Mean of [`fill`].
fn mean_fill(more: f64) -> f64 {
    // Sum of the chances that there are more than n, n below the most.
    let (mut chance, mut upto, mut mean) = ((-more).exp(), 0.0, 1.0);
    for n in 0..EVENTS_MAX - 1 {
        upto += chance;
        mean += (1.0 - upto).max(0.0);
        chance *= more / (n + 1) as f64;
    }
    mean
}

/// 1 + a number of Poisson's law, at most [`EVENTS_MAX`].
fn fill(more: f64, random: &mut Random) -> u8 {
    let (mut chance, mut upto, at) = ((-more).exp(), 0.0, random.unit());
    for n in 0..EVENTS_MAX - 1 {
        upto += chance;
        if at < upto {
            return n as u8 + 1;
        }
        chance *= more / (n + 1) as f64;
    }
    EVENTS_MAX as u8
}

/// What a loop measured.
#[derive(Clone, Debug)]
pub struct GameRun {
    /// Of events.
    pub tally: Tally,
    /// Events acknowledged as applied while it sent.
    pub in_time: u64,
    /// Of queries.
    pub reads: ReadTally,
    /// Events sent for the first time in the hottest hunt.
    pub hottest: u64,
    /// Events sent once more after their answer.
    pub repeated: u64,
    /// Datagrams never answered, the wait after the loop included.
    pub unanswered: u64,
    /// How long it sent.
    pub elapsed: Duration,
}

impl GameRun {
    /// Goes on with a later run.
    ///
    /// # Errors
    ///
    /// As [`Tally::add`].
    pub fn add(&mut self, later: &Self) -> Result<()> {
        self.tally.add(&later.tally)?;
        self.in_time += later.in_time;
        self.reads.add(&later.reads)?;
        self.hottest += later.hottest;
        self.repeated += later.repeated;
        self.unanswered += later.unanswered;
        self.elapsed += later.elapsed;
        Ok(())
    }

    /// Events a second that were acknowledged as applied.
    #[must_use]
    pub fn events_per_s(&self) -> f64 {
        self.in_time as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Queries answered a second.
    #[must_use]
    pub fn reads_per_s(&self) -> f64 {
        self.reads.answered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// How a loop paces itself.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many datagrams of events unanswered.
    Window(usize),
    /// So many requests a second, whatever the server does. A loop that has fallen
    /// behind makes it good at a rate of `most`: all at once would be a flood that no
    /// crowd of players sends.
    PerS {
        /// Of the schedule.
        rate: f64,
        /// Of a loop that is behind, above `rate`.
        most: f64,
    },
}

/// Where a loop is.
struct State {
    /// First datagram of the loop: what was before is of other traffic.
    first: u64,
    requests: u64,
    hottest: u64,
    repeated: u64,
}

impl Swarm {
    /// Plays for `duration`, then waits up to `wait` for the last answers.
    ///
    /// # Errors
    ///
    /// The kernel refuses to send.
    pub fn game(
        &mut self,
        game: &Game,
        pace: Pace,
        duration: Duration,
        wait: Duration,
    ) -> Result<GameRun> {
        let first = self.book.next_sequence();
        let mut state = State { first, requests: 0, hottest: 0, repeated: 0 };
        let started = Instant::now();
        match pace {
            Pace::Window(window) => self.game_in_window(game, &mut state, window, duration)?,
            Pace::PerS { rate, most } => {
                self.game_at_rate(game, &mut state, (rate, most), duration)?;
            }
        }
        let elapsed = started.elapsed();
        let mut tally = self.book.take_tally();
        let finishing = Instant::now();
        while self.book.waiting() + self.reads.waiting() > 0 && finishing.elapsed() < wait {
            if self.receive() == 0 {
                self.port.wait(SLEEP_MAX, None);
            }
            self.game_retry(game)?;
            // A query is not sent again: a second is long enough for its answer.
            if self.book.waiting() == 0 && finishing.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        // What came late counts among the outcomes and latencies, not in the rate.
        let in_time = tally.of(Outcome::Applied);
        tally.add(&self.book.take_tally())?;
        Ok(GameRun {
            tally,
            in_time,
            reads: self.reads.take_tally(),
            hottest: state.hottest,
            repeated: state.repeated,
            unanswered: self.book.waiting() as u64,
            elapsed,
        })
    }

    fn game_in_window(
        &mut self,
        game: &Game,
        state: &mut State,
        window: usize,
        duration: Duration,
    ) -> Result<()> {
        let started = Instant::now();
        let group = (window / 4).clamp(1, REQUESTS_MAX / 2);
        while started.elapsed() < duration {
            let received = self.receive();
            self.game_retry(game)?;
            let free = window.saturating_sub(self.book.waiting()).min(self.book.room());
            if free >= group {
                let now_ns = self.now_ns();
                self.game_requests(game, state, free.min(REQUESTS_MAX), |_| now_ns)?;
            } else if received == 0 {
                self.port.wait(SLEEP_MAX, None);
            }
        }
        Ok(())
    }

    fn game_at_rate(
        &mut self,
        game: &Game,
        state: &mut State,
        (per_s, most_per_s): (f64, f64),
        duration: Duration,
    ) -> Result<()> {
        let (started, start_ns) = (Instant::now(), self.now_ns());
        let interval_ns = 1e9 / per_s;
        let most = (most_per_s * TICK_NS as f64 / 1e9).ceil() as usize;
        ensure!(
            most_per_s > per_s && most <= REQUESTS_MAX,
            "swarm: {per_s:.0} requests a second and {most_per_s:.0} when behind, wanted more when behind, and at most {REQUESTS_MAX} each 100 us"
        );
        let (mut sent, mut next_tick) = (0_u64, 0);
        while started.elapsed() < duration {
            let received = self.receive();
            self.game_retry(game)?;
            let elapsed_ns = self.now_ns() - start_ns;
            let tick = elapsed_ns / TICK_NS;
            let due = ((tick * TICK_NS) as f64 / interval_ns) as u64;
            // What finds no room goes later; its time runs from when it was due.
            let frames = if tick < next_tick { 0 } else { (due - sent) as usize };
            let frames = frames.min(most).min(self.book.room());
            if frames > 0 {
                next_tick = tick + 1;
                // The first burst by which so many are due.
                let at = |index: usize| {
                    let upto_ns = ((sent + index as u64 + 1) as f64 * interval_ns) as u64;
                    start_ns + upto_ns.div_ceil(TICK_NS).min(tick) * TICK_NS
                };
                self.game_requests(game, state, frames, at)?;
                sent += frames as u64;
            } else if received == 0 {
                let left = Duration::from_nanos((tick + 1) * TICK_NS - elapsed_ns);
                self.port.wait(left.min(SLEEP_MAX), None);
            }
        }
        Ok(())
    }

    /// Sends the next `frames` requests, and what is repeated between them.
    fn game_requests(
        &mut self,
        game: &Game,
        state: &mut State,
        frames: usize,
        intended_ns: impl Fn(usize) -> u64,
    ) -> Result<()> {
        let (now_ns, key_ms) = (self.now_ns(), self.log_ms());
        let mut at = 0;
        for index in 0..frames {
            let request = state.requests;
            state.requests += 1;
            if request % READ_OF == READ_OF / 2 {
                let sequence = self.reads.sent(intended_ns(index), now_ns);
                self.place_query(game, at, sequence)?;
            } else {
                let play = game.play(self.book.next_sequence());
                let events = usize::from(play.events);
                let sequence = self.book.sent(events, key_ms, intended_ns(index), now_ns);
                state.hottest += if play.hunt == 0 { events as u64 } else { 0 };
                self.place_play(game, at, sequence, key_ms)?;
            }
            at += 1;
            let next = self.book.next_sequence();
            let back = next - ((next - state.first) / 2).min(REPEAT_BACK);
            if request.is_multiple_of(REPEAT_OF)
                && at < CALL_FRAMES_MAX
                && let Some(key_ms) = self.book.answered_key(back)
            {
                state.repeated += u64::from(game.play(back).events);
                self.place_play(game, at, back, key_ms)?;
                at += 1;
            }
        }
        self.undelivered += self.feed.send_varied(at)?;
        Ok(())
    }

    /// Sends again what was not answered in time.
    fn game_retry(&mut self, game: &Game) -> Result<()> {
        let now_ns = self.now_ns();
        if now_ns < self.retries_seen_ns + RETRY_LOOK_NS {
            return Ok(());
        }
        self.retries_seen_ns = now_ns;
        let mut due = std::mem::take(&mut self.due);
        self.book.take_due(now_ns, CALL_FRAMES_MAX, &mut due);
        if !due.is_empty() {
            for (index, (sequence, key_ms)) in due.iter().enumerate() {
                self.place_play(game, index, *sequence, *key_ms)?;
            }
            self.undelivered += self.feed.send_varied(due.len())?;
        }
        self.due = due;
        Ok(())
    }

    /// The headers of a datagram of a session into place `index` of the next call.
    fn place_headers(&mut self, index: usize, session: u32, bytes: usize) -> Result<()> {
        let words = bytes / 8;
        if self.headers_by_words.len() <= words {
            self.headers_by_words.resize(words + 1, Vec::new());
        }
        if self.headers_by_words[words].is_empty() {
            self.headers_by_words[words] = self.headers_for(bytes)?;
        }
        let headers = &self.headers_by_words[words][session as usize];
        self.feed.frame(index)[..HEADERS_BYTES].copy_from_slice(headers);
        Ok(())
    }

    fn place_play(&mut self, game: &Game, index: usize, number: u64, key_ms: u64) -> Result<()> {
        let play = game.play(number);
        let session = play.hunt % u32::from(self.spec.sessions);
        self.place_headers(index, session, play.bytes())?;
        let envelope = Envelope {
            session: self.session.wrapping_add(session.into()),
            sequence: number,
            mode: self.spec.mode,
            key_ms,
        };
        let out = &mut self.feed.frame(index)[HEADERS_BYTES..];
        game.world.write_play(&play, number, &envelope, out);
        Ok(())
    }

    fn place_query(&mut self, game: &Game, index: usize, sequence: u64) -> Result<()> {
        let (hunt, wanted) = game.query(sequence);
        let session = hunt % u32::from(self.spec.sessions);
        let domain = game.world.domain(hunt);
        let id = self.session.wrapping_add(session.into());
        let mut query = codec::query(id, domain, 0, &[wanted], PAYLOAD_BYTES_MAX_DEFAULT)
            .context("swarm: a query that does not fit")?;
        codec::restamp(&mut query, sequence, 0);
        self.place_headers(index, session, query.len())?;
        self.feed.frame(index)[HEADERS_BYTES..HEADERS_BYTES + query.len()].copy_from_slice(&query);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const WORLD: World = World { hunts: 1_000, cells: 128, players: 100, seed: 3 };

    #[test]
    fn hunts_follow_the_law_and_hot_ones_fill_their_datagrams() {
        let game = Game::new(WORLD, 5e6, Duration::from_millis(1));
        let (mut events, mut hottest, mut malformed, mut datagrams) = (0, 0, 0, 0);
        let (mut cold, mut cold_full) = (0, 0);
        for number in 0..200_000 {
            let play = game.play(number);
            assert_eq!(play, game.play(number));
            assert!(play.hunt < 1_000 && (1..=24).contains(&play.events));
            events += u64::from(play.events);
            hottest += if play.hunt == 0 { u64::from(play.events) } else { 0 };
            malformed += u64::from(play.malformed);
            datagrams += 1;
            if play.hunt >= 900 {
                cold += 1;
                cold_full += u32::from(play.events > 6);
            }
        }
        let share = hottest as f64 / events as f64;
        assert!((0.12..0.14).contains(&share), "{share}");
        let mean = events as f64 / f64::from(datagrams);
        assert!((mean - game.fill()).abs() < 0.05 * mean, "{mean} {}", game.fill());
        let nonsense = malformed as f64 / events as f64;
        assert!((0.0009..0.0011).contains(&nonsense), "{nonsense}");
        assert!(cold > 1_000 && cold_full * 100 < cold, "{cold_full} of {cold}");
    }

    #[test]
    fn every_kind_of_query_is_asked_and_makes_sense() {
        let game = Game::new(WORLD, 5e6, Duration::from_millis(1));
        let mut kinds = HashSet::new();
        for number in 0..700 {
            let (hunt, wanted) = game.query(number);
            assert!(hunt < 1_000);
            let query = veltrix_abi::query::Query::of(&wanted);
            assert_eq!(query.wanted(), Some(wanted));
            assert!(codec::query(1, 1, 0, &[wanted], PAYLOAD_BYTES_MAX_DEFAULT).is_some());
            kinds.insert(query.kind);
        }
        assert_eq!(kinds.len(), 7);
    }

    #[test]
    fn means_are_those_of_what_is_drawn() {
        for more in [0.0, 0.3, 5.0, 23.0, 80.0] {
            let mut random = Random::new(1);
            let sum: u64 = (0..50_000).map(|_| u64::from(fill(more, &mut random))).sum();
            let mean = sum as f64 / 50_000.0;
            assert!((mean - mean_fill(more)).abs() < 0.1, "{more}: {mean} {}", mean_fill(more));
        }
    }
}
