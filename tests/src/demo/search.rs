//! The highest rate at which nothing is lost: doubled until something is, then
//! halved in on.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use veltrix::config::value::show_count;

/// First rate tried, datagrams a second.
const FIRST_RATE: f64 = 20_000.0;

/// Attempts at one rate: a loss that does not come again was the machine's.
const ATTEMPTS: u32 = 2;

/// Steps after the doubling.
const FINER_STEPS: u32 = 3;

/// Asked for twice the rate and giving less than this times what it gave, the
/// source of load is at its end. Less than asked for is no sign by itself: it
/// also comes of another program on the core.
const SOURCE_GAIN: f64 = 1.2;

/// Under this share of the rate asked for, an attempt is made again.
const REACHED_SHARE: f64 = 0.93;

/// Steps that a search takes, about: to share its time among them.
pub const STEPS: u32 = 15;

/// What one attempt at a rate gave.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Datagrams a second that really left.
    pub rate: f64,
    /// What was lost and where; `None` when nothing was.
    pub loss: Option<String>,
}

/// What the search found.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Highest rate without loss, datagrams a second.
    pub rate: f64,
    /// What stood in the way of a higher one.
    pub why: String,
}

/// Searches for about `time` with attempts that `attempt` makes at a rate.
///
/// # Errors
///
/// What `attempt` says, or when even the first rate loses something.
pub fn highest(time: Duration, mut attempt: impl FnMut(f64) -> Result<Attempt>) -> Result<Limit> {
    let started = Instant::now();
    // What it may overrun by: attempts that were repeated.
    let over = || started.elapsed() > time * 3 / 2;
    let mut best = Limit { rate: 0.0, why: "the search ran out of time".to_owned() };
    let mut asked = FIRST_RATE;
    let mut lossy = None;
    while lossy.is_none() && !over() {
        match clean(asked, &mut attempt)? {
            Ok(rate) if rate < best.rate * SOURCE_GAIN => {
                best.rate = best.rate.max(rate);
                best.why = format!(
                    "the load's own cores give no more than {} datagrams/s",
                    show_count(best.rate as u64)
                );
                return Ok(best);
            }
            Ok(rate) => best.rate = rate,
            Err(loss) => lossy = Some((asked, loss)),
        }
        asked *= 2.0;
    }
    let Some((mut above, mut loss)) = lossy else { return Ok(best) };
    for _ in 0..FINER_STEPS {
        if over() {
            break;
        }
        let middle = (best.rate + above) / 2.0;
        match clean(middle, &mut attempt)? {
            Ok(rate) => best.rate = best.rate.max(rate),
            Err(lost) => (above, loss) = (middle, lost),
        }
    }
    if best.rate == 0.0 {
        bail!(
            "demo: even {} datagrams/s lose something ({loss}); is the machine busy with something else?",
            show_count(FIRST_RATE as u64)
        );
    }
    best.why = format!("at {} datagrams/s: {loss}", show_count(above as u64));
    Ok(best)
}

/// The highest rate reached without loss, or the last attempt's loss.
fn clean(
    asked: f64,
    attempt: &mut impl FnMut(f64) -> Result<Attempt>,
) -> Result<Result<f64, String>> {
    let mut reached: Option<f64> = None;
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match attempt(asked)? {
            Attempt { rate, loss: None } => {
                reached = Some(reached.map_or(rate, |before| before.max(rate)));
                if rate >= asked * REACHED_SHARE {
                    break;
                }
            }
            Attempt { loss: Some(loss), .. } => last = loss,
        }
    }
    Ok(reached.ok_or(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: f64, source: f64) -> Result<Limit> {
        highest(Duration::from_secs(60), |asked| {
            let rate = asked.min(source);
            Ok(Attempt { rate, loss: (rate > limit).then(|| "lost".to_owned()) })
        })
    }

    #[test]
    fn it_comes_near_the_limit_from_below() {
        for limit in [21_000.0, 333_000.0, 2_222_000.0] {
            let found = search(limit, f64::INFINITY).unwrap().rate;
            assert!(found <= limit && found > limit * 0.85, "{found} of {limit}");
        }
    }

    #[test]
    fn a_source_at_its_end_is_named() {
        let found = search(f64::INFINITY, 700_000.0).unwrap();
        assert_eq!(found.rate, 700_000.0);
        assert!(found.why.contains("no more than 700,000"), "{}", found.why);
    }

    #[test]
    fn one_loss_that_does_not_come_again_is_forgiven() {
        let mut attempts = 0;
        let found = highest(Duration::from_secs(60), |rate| {
            attempts += 1;
            let lost = attempts == 1 || rate > 50_000.0;
            Ok(Attempt { rate, loss: lost.then(|| "lost".to_owned()) })
        });
        assert!(found.unwrap().rate > 40_000.0);
    }

    #[test]
    fn a_server_that_always_loses_is_an_error() {
        let error = search(1.0, f64::INFINITY).unwrap_err().to_string();
        assert!(error.contains("even 20,000"), "{error}");
    }
}
