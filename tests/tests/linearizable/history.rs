//! What clients called and were told of one ticket, and the verdict over it.
//!
//! ```text
//!  call ─────────────────> return        recorded in the order in which one thread saw them
//!  call ──────> (no answer)              may have happened, at any time from the call on
//!      └─> LinearizabilityTester over Ticket: is there an order of all returned calls, and of
//!          some of the others, that keeps each inside its interval and that one ticket could give?
//! ```
//!
//! Each hunt of the test holds one ticket, so the ticket and the wallets and scores of
//! its hunt are one object, and every history is judged by itself: linearizability is
//! a property of each object.
//!
//! # How long it takes
//!
//! The tester tries threads in the order of their ids, deeper and deeper, and
//! remembers nothing: a wrong turn early costs every order of what is left. So each
//! call is a thread of its own, which says the same, since a client's next call begins
//! after the last one returned; and threads are numbered in the order in which the
//! server's epochs say it went. The epochs are no part of the verdict, they only
//! decide which order is tried first. Where they tell the truth the search goes
//! straight: 250 calls of 200 clients take about as many steps, each a frame deeper on
//! the stack. What is not linearizable is searched whole, in as many steps as the
//! calls have orders. Of eight claims with two winners that is soon done, of 200 it
//! never is: such a search ends as [`Verdict::Unknown`] after [`STEPS_MAX`].

use std::any::Any;
use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;

use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

/// What claiming a ticket pays.
pub const REWARD: u32 = 10;

/// Steps after which a search is given up: hundreds of times what an honest history
/// takes, and seconds for the largest.
pub const STEPS_MAX: u64 = 200_000;

/// Stack of a search, bytes: it goes a frame deeper with each call of the history.
const STACK_BYTES: usize = 64 << 20;

/// What a client asks of a ticket, by its player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Claim(u64),
    /// The ticket, and the player's own wallet and score, in one query.
    Look(u64),
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Applied,
    AlreadyClaimed,
    Seen(Seen),
}

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub owner: Option<u64>,
    pub remaining: u16,
    pub wallet: u64,
    pub score: u64,
}

/// One ticket, as it should be: nobody's, then the first claimer's for ever, and with
/// it the reward in that player's wallet and score.
#[derive(Clone)]
struct Ticket {
    owner: Option<u64>,
    steps: Rc<Cell<u64>>,
}

/// Thrown by a search that takes too long.
struct GivenUp;

impl SequentialSpec for Ticket {
    type Op = Op;
    type Ret = Told;

    fn invoke(&mut self, op: &Op) -> Told {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            resume_unwind(Box::new(GivenUp));
        }
        match *op {
            Op::Claim(player) if self.owner.is_none() => {
                self.owner = Some(player);
                Told::Applied
            }
            Op::Claim(_) => Told::AlreadyClaimed,
            Op::Look(player) => {
                let paid = if self.owner == Some(player) { u64::from(REWARD) } else { 0 };
                let remaining = u16::from(self.owner.is_none());
                Told::Seen(Seen { owner: self.owner, remaining, wallet: paid, score: paid })
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    Not,
    /// Not found within [`STEPS_MAX`].
    Unknown,
}

#[derive(Clone, Debug)]
struct Call {
    op: Op,
    /// With the epoch that came with it.
    told: Option<(Told, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    Called(usize),
    Returned(usize),
}

/// The calls to one ticket, in the order in which they began and ended.
#[derive(Clone, Debug, Default)]
pub struct History {
    calls: Vec<Call>,
    moments: Vec<Moment>,
}

impl History {
    /// A call begins; its number.
    pub fn call(&mut self, op: Op) -> usize {
        self.calls.push(Call { op, told: None });
        self.moments.push(Moment::Called(self.calls.len() - 1));
        self.calls.len() - 1
    }

    /// It returns. A call for which this is never said stays pending.
    pub fn told(&mut self, call: usize, told: Told, epoch: u64) {
        self.calls[call].told = Some((told, epoch));
        self.moments.push(Moment::Returned(call));
    }

    /// Players that were told that the ticket is theirs.
    pub fn winners(&self) -> Vec<u64> {
        let won = |call: &Call| match call {
            Call { op: Op::Claim(player), told: Some((Told::Applied, _)) } => Some(*player),
            _ => None,
        };
        self.calls.iter().filter_map(won).collect()
    }

    /// Players whose claim never returned.
    pub fn pending(&self) -> Vec<u64> {
        let open = |call: &Call| match call {
            Call { op: Op::Claim(player), told: None } => Some(*player),
            _ => None,
        };
        self.calls.iter().filter_map(open).collect()
    }

    /// Calls that began, looks included.
    pub const fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Whether a claim was answered.
    pub fn any_claim_returned(&self) -> bool {
        let answered = |call: &Call| matches!(call.op, Op::Claim(_)) && call.told.is_some();
        self.calls.iter().any(answered)
    }

    /// Claims that began.
    pub fn claims(&self) -> usize {
        self.calls.iter().filter(|call| matches!(call.op, Op::Claim(_))).count()
    }

    /// Whether one ticket could have told all of this.
    pub fn verdict(&self) -> Verdict {
        std::thread::scope(|scope| {
            let search = std::thread::Builder::new().stack_size(STACK_BYTES);
            let search = search.spawn_scoped(scope, || self.search()).expect("a thread");
            match search.join() {
                Ok(true) => Verdict::Linearizable,
                Ok(false) => Verdict::Not,
                Err(thrown) if is_given_up(&*thrown) => Verdict::Unknown,
                Err(thrown) => resume_unwind(thrown),
            }
        })
    }

    fn search(&self) -> bool {
        let ticket = Ticket { owner: None, steps: Rc::default() };
        let mut tester = LinearizabilityTester::new(ticket);
        let thread = self.threads();
        for moment in &self.moments {
            let noted = match *moment {
                Moment::Called(call) => match self.calls[call] {
                    // It changes nothing, and nobody knows what it saw.
                    Call { op: Op::Look(_), told: None } => continue,
                    Call { op, .. } => tester.on_invoke(thread[call], op),
                },
                Moment::Returned(call) => {
                    let (told, _) = self.calls[call].told.expect("it returned");
                    tester.on_return(thread[call], told)
                }
            };
            noted.expect("a thread has one call");
        }
        tester.is_consistent()
    }

    /// The thread of each call: see the module.
    fn threads(&self) -> Vec<usize> {
        let told = || self.calls.iter().filter_map(|call| call.told);
        let taken = |told: &Told| match told {
            Told::AlreadyClaimed => true,
            Told::Seen(seen) => seen.owner.is_some(),
            Told::Applied => false,
        };
        let owner = told().find_map(|(told, _)| match told {
            Told::Seen(seen) => seen.owner,
            _ => None,
        });
        let first_taken = told().filter(|(told, _)| taken(told)).map(|(_, epoch)| epoch).min();
        let place = |call: &usize| match self.calls[*call] {
            // An epoch shows what it claimed, and whoever was second was so behind the first.
            Call { told: Some((Told::Applied, epoch)), .. } => (epoch, 0),
            Call { told: Some((Told::AlreadyClaimed, epoch)), .. } => (epoch, 1),
            Call { told: Some((Told::Seen(_), epoch)), .. } => (epoch, 2),
            // Nobody told this player, but others saw whose it is.
            Call { op: Op::Claim(player), told: None } if owner == Some(player) => {
                (first_taken.unwrap_or(u64::MAX), 0)
            }
            Call { told: None, .. } => (u64::MAX, 3),
        };
        let mut order: Vec<usize> = (0..self.calls.len()).collect();
        order.sort_by_key(place);
        let mut thread = vec![0; order.len()];
        for (number, call) in order.into_iter().enumerate() {
            thread[call] = number;
        }
        thread
    }
}

fn is_given_up(thrown: &(dyn Any + Send)) -> bool {
    thrown.is::<GivenUp>()
}

mod tests {
    use super::*;

    const NOBODYS: Told = Told::Seen(Seen { owner: None, remaining: 1, wallet: 0, score: 0 });

    fn owned(owner: u64, paid: u64) -> Told {
        Told::Seen(Seen { owner: Some(owner), remaining: 0, wallet: paid, score: paid })
    }

    /// Calls that all begin together, then return in their order.
    fn at_once(calls: &[(Op, Option<Told>)]) -> History {
        let mut history = History::default();
        let begun: Vec<usize> = calls.iter().map(|(op, _)| history.call(*op)).collect();
        for (call, (_, told)) in begun.into_iter().zip(calls) {
            if let Some(told) = told {
                history.told(call, *told, 1);
            }
        }
        history
    }

    /// Calls one behind the other, epochs ascending.
    fn in_turn(calls: &[(Op, Option<Told>)]) -> History {
        let mut history = History::default();
        for ((op, told), epoch) in calls.iter().zip(1..) {
            let call = history.call(*op);
            if let Some(told) = told {
                history.told(call, *told, epoch);
            }
        }
        history
    }

    use Op::{Claim, Look};
    use Told::{AlreadyClaimed, Applied};

    #[test]
    fn what_one_ticket_can_tell_is_linearizable() {
        let lost = (Claim(2), Some(AlreadyClaimed));
        let won = (Claim(1), Some(Applied));
        assert_eq!(at_once(&[lost, won]).verdict(), Verdict::Linearizable);
        let story = [(Look(2), Some(NOBODYS)), won, lost, (Look(1), Some(owned(1, 10)))];
        assert_eq!(in_turn(&story).verdict(), Verdict::Linearizable);
        assert_eq!(at_once(&story).verdict(), Verdict::Linearizable);
        // The winner was never told; nor was somebody else, who may have lost.
        let pending = [(Claim(3), None), (Claim(1), None), lost, (Look(2), Some(owned(1, 0)))];
        assert_eq!(in_turn(&pending).verdict(), Verdict::Linearizable);
        assert_eq!(at_once(&pending).verdict(), Verdict::Linearizable);
        assert_eq!(in_turn(&[(Claim(3), None), lost]).verdict(), Verdict::Linearizable);
        assert_eq!(History::default().verdict(), Verdict::Linearizable);
    }

    #[test]
    fn what_no_ticket_can_tell_is_not() {
        let won = (Claim(1), Some(Applied));
        let lost = (Claim(2), Some(AlreadyClaimed));
        let paid_before = Told::Seen(Seen { owner: None, remaining: 1, wallet: 10, score: 10 });
        let half_paid = Told::Seen(Seen { owner: Some(1), remaining: 0, wallet: 10, score: 0 });
        let not_taken = Told::Seen(Seen { owner: Some(1), remaining: 1, wallet: 10, score: 10 });
        for (what, story) in [
            ("two winners", vec![won, (Claim(2), Some(Applied))]),
            ("no winner", vec![lost]),
            ("a loser before the winner", vec![lost, won]),
            ("a reward without the ticket", vec![(Look(1), Some(paid_before)), won]),
            ("a ticket without its reward", vec![won, (Look(1), Some(owned(1, 0)))]),
            ("a ticket with half its reward", vec![won, (Look(1), Some(half_paid))]),
            ("a ticket that remains", vec![won, (Look(1), Some(not_taken))]),
            ("a reward for somebody else", vec![won, (Look(2), Some(owned(1, 10)))]),
            ("another owner", vec![won, (Look(2), Some(owned(2, 10)))]),
            ("a stale look", vec![won, (Look(2), Some(NOBODYS))]),
            ("a claim undone", vec![lost, (Claim(1), None)]),
        ] {
            assert_eq!(in_turn(&story).verdict(), Verdict::Not, "{what}");
        }
        let both = [won, (Claim(2), Some(Applied)), (Claim(3), Some(AlreadyClaimed))];
        assert_eq!(at_once(&both).verdict(), Verdict::Not);
    }

    /// Whoever wins, and in whatever order answers come: no longer than the calls are many.
    #[test]
    fn two_hundred_claimers_are_judged() {
        for winner in [0, 99, 199] {
            let told = |player| if player == winner { Applied } else { AlreadyClaimed };
            let mut calls: Vec<_> =
                (0..200).map(|player| (Claim(player), Some(told(player)))).collect();
            calls.push((Claim(200), None));
            calls.push((Look(7), Some(owned(winner, 0))));
            assert_eq!(at_once(&calls).verdict(), Verdict::Linearizable);
        }
    }

    /// A search without an end is no verdict, and no hanging test.
    #[test]
    fn a_search_that_is_too_long_is_given_up() {
        let mut calls: Vec<_> =
            (0..30).map(|player| (Claim(player), Some(AlreadyClaimed))).collect();
        calls.extend([(Claim(30), Some(Applied)), (Claim(31), Some(Applied))]);
        assert_eq!(at_once(&calls).verdict(), Verdict::Unknown);
    }
}
