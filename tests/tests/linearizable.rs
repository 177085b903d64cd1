//! A claim is one step: ticket, wallet and score together or not at all, for one of
//! however many claim at once. Two hundred clients of the SDK claim tickets of a real
//! `veltrix run --data DIR`, with retries, and a kill -9 and restart amid them; what
//! each was told is recorded at the SDK's call and return, and judged by an existing
//! checker of linearizability. The same clients with claims in two steps of their own
//! are told apart by the same checker.

#[path = "linearizable/history.rs"]
mod history;
#[path = "linearizable/workload.rs"]
mod workload;

use history::{History, REWARD, Verdict};
use veltrix_tests::loopback::Node;
use veltrix_tests::server::require_binary;
use workload::{Claiming, Final, Plan, audit, run};

/// Tickets that some claim, and how many.
const TICKETS: usize = 200;
const CLAIMERS: usize = 8;

/// Tickets that all claim: one in peace, one around the kill.
const FOR_ALL: usize = 60;
const KILLED_AT: usize = 121;

const CLIENTS: u64 = 200;

fn block_on<R>(work: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

/// What the players of a ticket own together.
fn paid(ticket: &Final) -> u64 {
    ticket.players.values().map(|row| row.wallet).sum()
}

#[test]
fn a_claim_is_one_step_whoever_retries_and_whatever_dies() {
    if !require_binary("a_claim_is_one_step_whoever_retries_and_whatever_dies") {
        return;
    }
    let seed = veltrix_client::codec::random_u64();
    let mut plan = Plan::random(CLIENTS, TICKETS, CLAIMERS, seed);
    plan.tickets.insert(FOR_ALL, (0..CLIENTS).collect());
    plan.tickets.insert(KILLED_AT, (0..CLIENTS).collect());
    plan.killed_at = Some(KILLED_AT);
    let (outcomes, finals) = block_on(async {
        let (outcomes, node) = run(&plan, Node::start()?).await?;
        anyhow::Ok((outcomes, audit(&plan, node.address()).await?))
    })
    .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));

    assert!(outcomes.retries > 0 && outcomes.duplicates > 0 && outcomes.unanswered >= 20);
    let killed = &outcomes.histories[KILLED_AT];
    assert!(killed.pending().len() >= 10, "seed {seed}: {:?}", killed.pending());

    let calls: usize = outcomes.histories.iter().map(History::calls).sum();
    println!(
        "{calls} calls of {CLIENTS} clients: {} tries again, {} duplicates, {} claims past a deadline; \
         {} of {CLIENTS} pending at the kill",
        outcomes.retries,
        outcomes.duplicates,
        outcomes.unanswered,
        killed.pending().len()
    );

    let mut winners = 0;
    for (number, (history, ticket)) in outcomes.histories.iter().zip(&finals).enumerate() {
        let at = format!("seed {seed}, ticket {number}");
        assert_eq!(history.claims(), plan.tickets[number].len(), "{at}");
        // One owner: who was told so, or one that was told nothing.
        let owner = ticket.owner.unwrap_or_else(|| panic!("{at}: nobody has it"));
        match history.winners()[..] {
            [winner] => assert_eq!(winner, owner, "{at}"),
            [] => assert!(history.pending().contains(&owner), "{at}: {owner} has it"),
            ref winners => panic!("{at}: {winners:?} were told that it is theirs"),
        }
        winners += 1;
        let row = ticket.players.get(&owner).unwrap_or_else(|| panic!("{at}: nothing paid"));
        let (reward, row) = (u64::from(REWARD), (row.wallet, row.score));
        assert_eq!((row, ticket.remaining), ((reward, reward), 0), "{at}");
        assert_eq!((ticket.players.len(), ticket.players_total), (1, 1), "{at}: all others");
        assert_eq!(history.verdict(), Verdict::Linearizable, "{at}: {history:#?}");
    }
    assert_eq!(finals.iter().map(paid).sum::<u64>(), winners * u64::from(REWARD));
}

/// The same clients, each claim made of a look, a credit and an expiry.
#[test]
fn a_claim_in_two_steps_is_rejected() {
    if !require_binary("a_claim_in_two_steps_is_rejected") {
        return;
    }
    let seed = veltrix_client::codec::random_u64();
    let mut plan = Plan::random(40, 20, 6, seed);
    // Alone, it looks as good as any.
    let alone = plan.tickets.len();
    plan.tickets.extend((0..5).map(|client| vec![client]));
    plan.claiming = Claiming::TwoSteps;
    let (outcomes, finals) = block_on(async {
        let (outcomes, node) = run(&plan, Node::start()?).await?;
        anyhow::Ok((outcomes, audit(&plan, node.address()).await?))
    })
    .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));

    for (number, (history, ticket)) in outcomes.histories.iter().zip(&finals).enumerate() {
        let at = format!("seed {seed}, ticket {number}: {history:#?}");
        let (verdict, paid) = (history.verdict(), paid(ticket));
        if number < alone {
            assert_eq!(verdict, Verdict::Not, "{at}");
            assert!(paid >= 2 * u64::from(REWARD), "{paid} paid, {at}");
        } else {
            assert_eq!((verdict, paid), (Verdict::Linearizable, u64::from(REWARD)), "{at}");
        }
    }
}
