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
//! | any | `malformed` | unknown kind, no UUIDv7, reserved field set; argument or cell nonsense; transfer to oneself | `rules::nonsense_is_no_action` |
//! | hotspot-spawn | `full` | hunts or cells are used up; a cell that exists is always set again | `tests::hunts_cells_and_players_run_out` |
//! | | `applied` | the hotspot stands on the cell, whatever stood there | `tests::a_spawn_replaces_what_stood_there` |
//! | collect-item, use-key, claim | `not-found` | no such hunt or cell, or its hotspot is of another kind | `rules::what_is_not_there_is_not_found` |
//! | | `expired` | its second has come | `rules::expiry_is_looked_at_before_what_remains` |
//! | | `already-claimed` | nothing remains | `rules::nothing_remaining_is_already_claimed` |
//! | use-key | `no-key` | the player is unknown or holds no such item | `rules::without_the_key_of_the_chest_there_is_no_key` |
//! | collect-item, claim | `full` | the player is unknown and players are used up | `rules::collecting_without_room_is_full` |
//! | collect-item, use-key, claim | `full` | item count, wallet or score would overflow | `rules::a_reward_that_overflows_is_full` |
//! | collect-item | `applied` | one item more, one remaining less, reward to the score | `rules::collecting_moves_one_item_and_pays_score` |
//! | use-key | `applied` | one item less, one remaining less, reward to wallet and score | `rules::a_key_opens_a_chest_and_is_used_up` |
//! | claim | `applied` | nothing remains, reward to wallet and score, the player noted | `rules::a_claim_is_hotspot_wallet_and_score_in_one_step` |
//! | wallet-credit | `full` | hunts or players are used up, or the wallet would overflow | `rules::credits_stop_at_the_end_of_the_number` |
//! | wallet-spend | `insufficient-funds` | hunt or player unknown, or the wallet holds less | `rules::a_wallet_never_goes_below_zero` |
//! | wallet-credit, wallet-spend | `applied` | the wallet changes by the argument | the same two |
//! | wallet-transfer | `insufficient-funds` | hunt or payer unknown, or the payer's wallet holds less | `rules::a_transfer_takes_what_it_gives_or_nothing` |
//! | | `full` | the payee is unknown and players are used up, or its wallet would overflow | the same |
//! | | `applied` | one wallet less, the other more by the argument | the same |
//! | hotspot-expire | `not-found` | no such hunt or cell | `rules::an_ended_hotspot_gives_no_more` |
//! | | `expired` | its second had come before | the same |
//! | | `applied` | its second is now; the cell stays, and who claimed it | the same |
//!
//! A hunt comes to be with its first spawn or credit, a player with the first
//! event that gives it something. A refused event creates neither.

mod belt;
mod capture;
mod digest;
mod partition;
pub mod rules;

pub use belt::{Owned, apply_batch};
pub use capture::PartitionImage;
pub use digest::Digest;
pub use partition::{DUPLICATES, OUTCOME_SLOTS, Partition, PartitionBytes, PartitionLimits};

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
pub(crate) mod tests;
