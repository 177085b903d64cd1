//! Apply: what a committed event does to the state of its partition.
//!
//! ```text
//!   ranges of a batch -> belt of events --> 1 fingerprints; asks for dedupe, cell and player hash lines
//!                                            2 reads the hash lines; asks for the records
//!                                            3 in order, one by one:
//!                                                malformed? -> too old, too new, duplicate? -> rule
//!                                                -> records, dedupe, digest, outcome slot
//! ```
//!
//! A [`Partition`] has one owner, a lane, which gives it the log's entries in
//! order of their epochs. What comes out depends on these entries' bytes, their
//! log time, the limits and the secret of the data directory, and on nothing
//! else: no clock, no randomness, no order of memory. So replicas agree, and
//! replay after a crash ends where the crash was. Steps 1 and 2 only warm the
//! cache; a step 3 that came without them would decide the same.
//!
//! Nothing can be lost here: an entry at or below [`Partition::epoch`] was
//! applied before and is skipped, any other takes effect whole before the next.
//!
//! # Judgement
//!
//! 1. An event whose fields make no sense is `malformed`; the dedupe table does
//!    not hear of it.
//! 2. A key beyond the dedupe horizon is `too-old`, one ahead of log time
//!    `too-new`; neither is recorded.
//! 3. A key that was judged before is a duplicate: its first outcome and the
//!    epoch of that are its answer.
//! 4. Else the rule of its kind decides, and what it decides is recorded.
//!
//! | kind | outcome | when, in this order | test |
//! |---|---|---|---|
//! | any | `malformed` | unknown kind, no UUIDv7, reserved field set; argument, subject or payload nonsense; transfer to oneself | `rules::tests::nonsense_is_no_action`, `nonsense_of_hunts_and_quests_is_no_action` |
//! | any of `game.v1` and `quest.v1` but a first spawn or open | `not-found` | no such hunt | each kind's |
//! | the same, but hunt-close | `closed` | the hunt is closed or its time is up | `hunt_tests::a_closed_hunt_plays_no_more_and_its_wallets_stay` |
//! | any but hunt-close, in a hunt with a quota | `over-quota` | before all else: the hunt has had its events of this second | `hunt_tests::a_hunt_uses_no_more_than_its_quota` |
//! | any, in a split hunt | `wrong-region` | before all else: the cell lies, or the player is at home, in another region | `split_tests::events_are_taken_where_they_belong` |
//! | hotspot-spawn | `full` | hunts or cells are used up; a cell that exists is always set again | `tests::hunts_cells_and_players_run_out` |
//! | | `applied` | the hotspot stands on the cell, whatever stood there; ground held there is nobody's | `tests::a_spawn_replaces_what_stood_there` |
//! | collect-item, use-key, claim | `not-found` | no such cell, or its hotspot is of another kind | `rules::tests::what_is_not_there_is_not_found` |
//! | | `expired` | its second has come | `rules::tests::expiry_is_looked_at_before_what_remains` |
//! | | `already-claimed` | nothing remains; ground: the player's own team holds it, or the player has none | `rules::tests::nothing_remaining_is_already_claimed` |
//! | use-key | `no-key` | the player is unknown or holds no such item; it is not the one that was named | `rules::tests::without_the_key_of_the_chest_there_is_no_key` |
//! | collect-item, claim | `full` | the player is unknown and players are used up | `rules::tests::collecting_without_room_is_full` |
//! | collect-item, use-key, claim | `full` | item count, wallet or score would overflow | `rules::tests::a_reward_that_overflows_is_full` |
//! | collect-item, claim | `not-joined` | the game is played in teams, and the player has none | `hunt_tests::teams_share_a_bank_that_is_never_below_zero` |
//! | | `full` | bank, pot or number of lots would overflow | the same |
//! | collect-item | `applied` | one item more, one remaining less, reward to the score | `rules::tests::collecting_moves_one_item_and_pays_score` |
//! | use-key | `applied` | one item less, one remaining less, reward to score and payee | `rules::tests::a_key_opens_a_chest_and_is_used_up` |
//! | claim | `applied` | nothing remains, reward to score and payee, the player noted; ground taken from a team pays points alone | `rules::tests::a_claim_is_hotspot_wallet_and_score_in_one_step` |
//! | wallet-credit | `full` | hunts or players are used up, or the wallet would overflow | `rules::tests::credits_stop_at_the_end_of_the_number` |
//! | wallet-spend | `insufficient-funds` | hunt or player unknown, or the wallet holds less | `rules::tests::a_wallet_never_goes_below_zero` |
//! | wallet-credit, wallet-spend | `applied` | the wallet changes by the argument | the same two |
//! | wallet-transfer | `insufficient-funds` | hunt or payer unknown, or the payer's wallet holds less | `rules::tests::a_transfer_takes_what_it_gives_or_nothing` |
//! | | `full` | the payee is unknown and players are used up, or its wallet would overflow | the same |
//! | | `applied` | one wallet less, the other more by the argument | the same |
//! | hotspot-expire | `not-found` | no such cell | `rules::tests::an_ended_hotspot_gives_no_more` |
//! | | `expired` | its second had come before | the same |
//! | | `applied` | its second is now; the cell stays, and who claimed it | the same |
//! | hunt-open | `malformed` | no such game type, or it does not take length and settings, or cannot be split | `games::tests`, `split_tests::events_are_taken_where_they_belong` |
//! | | `wrong-region`, `wrong-game` | the region has another key; it has players or cells | `split_tests::events_are_taken_where_they_belong` |
//! | | `full` | the hunt is unknown and hunts are used up | `hunt_tests::definitions_deeds_and_hunts_run_out` |
//! | | `closed`, `already-done`, `wrong-game` | it is closed or over; it was opened before; it has players, and the game is in teams | `rules::hunts::tests::a_hunt_is_opened_once_and_closed_once` |
//! | | `applied` | it is of that game type, and ends after its length; what was there stays | the same |
//! | hunt-close | `closed` | it was closed before; a hunt that is over can be | the same |
//! | | `applied` | it is closed, and of the pot is the winner's what the wallet can hold | `rules::hunts::tests::closing_pays_the_pot_once`, `hunt_tests::the_pot_goes_to_one_of_those_who_paid_into_it` |
//! | player-join | `wrong-game` | a team where the game has none, or none where it has teams | `rules::hunts::tests::teams_are_joined_once_and_only_where_there_are_any` |
//! | | `full` | the player is unknown and players are used up | the same |
//! | | `already-done` | the player is known, and in a team where there are teams | the same |
//! | | `applied` | the player is known, in that team | the same |
//! | location-ping | `not-found` | the player is unknown | `hunt_tests::pings_say_where_a_player_was_last` |
//! | | `applied` | the player was last there | the same |
//! | power-up | `no-key` | the player is unknown or holds no such item | `rules::hunts::tests::a_power_up_costs_an_item_and_ends` |
//! | | `applied` | one item less; points are multiplied until its end, instead of as before | the same |
//! | treasure-type-updated | `full` | the type is new and definitions are used up, or its versions are | `hunt_tests::definitions_deeds_and_hunts_run_out` |
//! | | `applied` | the payload is the type's next version | `hunt_tests::treasure_types_are_versioned` |
//! | quest-define | `malformed` | the payload is no graph: cut, unknown node, edge twice, cycle | `rules::quests::tests::a_payload_that_is_no_graph_is_told` |
//! | | `already-done`, `full` | the quest is defined; definitions are used up | `hunt_tests::quests_are_passed_in_order_and_paid_once` |
//! | | `applied` | the quest is defined, for good | the same |
//! | checkpoint | `not-found` | no such quest | the same |
//! | | `not-joined` | the game is played in teams, and the player has none or is unknown | `hunt_tests::checkpoints_are_for_those_who_joined` |
//! | | `not-found`, `already-done`, `out-of-order` | no such node; passed before; no predecessor passed, and it has some | `rules::quests::tests::a_node_wants_one_of_its_predecessors` |
//! | | `out-of-order` | the quest before it in a chain is not ended | `hunt_tests::chained_quests_want_the_one_before` |
//! | | `full` | players or deeds are used up, score or wallet would overflow | `hunt_tests::definitions_deeds_and_hunts_run_out` |
//! | | `applied` | passed; node and end are paid, each once a player | `rules::quests::tests::every_node_and_one_end_are_paid_once` |
//! | quest-abandon | `not-found` | player or quest unknown, or nothing passed | the same |
//! | | `applied` | nothing is passed any more; what was paid stays paid | the same |
//! | reward-issued | `already-done` | the player has the reward of that number | `hunt_tests::a_reward_is_issued_once_whatever_its_key` |
//! | | `full` | hunts, players or deeds are used up, or the wallet would overflow | `hunt_tests::definitions_deeds_and_hunts_run_out` |
//! | | `applied` | the wallet is more by the argument | `hunt_tests::a_reward_is_issued_once_whatever_its_key` |
//! | bank-deposit, bank-withdraw | `not-found`, `wrong-game` | no such hunt; its game is not played in teams | `hunt_tests::teams_share_a_bank_that_is_never_below_zero` |
//! | | `not-joined` | the player is unknown or in no team | the same |
//! | | `insufficient-funds`, `full` | what is taken from holds less; what is given to would overflow | `rules::hunts::tests::a_bank_never_goes_below_zero` |
//! | | `applied` | wallet and bank change by the argument | the same |
//!
//! The payee of a chest or ticket, what points are multiplied by, and whether there
//! are teams is what the hunt's game says: see [`games`].
//!
//! A quota of cells or players is looked at last: what would make one more than it
//! allows is `over-quota` and changes nothing. What is over a quota is not recorded as
//! judged either: it may come again.
//!
//! In a split hunt, collect-item, use-key, claim and wallet-transfer of another region
//! are reserved, judged there, and settled: see [`effects`]. What they end with is what
//! the table says, and `full` when too many are under way.
//!
//! A hunt comes to be with its first open, spawn, credit or reward, a player with the
//! first event that gives it something, or by joining. A refused event creates
//! neither. A hunt that nobody has opened is played as a free-roam hunt.

mod acts;
mod belt;
mod capture;
mod digest;
pub mod effects;
pub mod games;
mod hotspots;
mod outbox;
mod partition;
pub mod rules;

pub use belt::{LOOK, Owned, Place, apply_batch, apply_slice};
pub use capture::PartitionImage;
pub use digest::Digest;
pub use outbox::{Asker, EFFECTS_MAX, Settled};
pub use partition::{DUPLICATES, OUTCOME_SLOTS, Partition, PartitionBytes, PartitionLimits};

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod hunt_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod split_tests;
#[cfg(test)]
pub(crate) mod tests;
