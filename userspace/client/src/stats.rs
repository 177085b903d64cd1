//! Counters of one client, kept by its driver, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($name:ident: $doc:literal;)*) => {
        /// Counters of a client since it connected.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $(#[doc = $doc] pub $name: u64,)*
        }

        /// The live form of [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    events_submitted: "Events taken over from callers; each ends as acked, timed out, refused, invalid or not sent.";
    events_acked: "Events that got a receipt.";
    events_timed_out: "Events whose deadline passed without an outcome.";
    events_refused: "Events in datagrams the server refused.";
    events_invalid: "Events that could not be sent (too large for a datagram), or whose outcome code is unknown here.";
    events_not_sent: "Events of a session that were held back, since one before them had no outcome by its deadline.";
    duplicates: "Receipts marked duplicate: an earlier try had been applied.";
    queries_submitted: "Queries sent or to be sent; each ends as answered, failed, timed out, refused or abandoned.";
    queries_answered: "Queries that got their rows.";
    queries_failed: "Queries asked together with one that the server found malformed or had no room for, and that one.";
    queries_timed_out: "Queries whose deadline passed without an answer that shows what was asked for.";
    queries_refused: "Queries in datagrams the server refused.";
    queries_abandoned: "Queries whose caller stopped waiting; they are not sent again.";
    datagrams_sent: "Event and query datagrams sent, retries included.";
    retries: "Event and query datagrams sent again.";
    busy: "Busy answers.";
    send_errors: "Datagrams the system would not send; the retry follows as for a lost one.";
    receive_errors: "Errors on receiving, such as a closed port reported by the server's host.";
    replies_late: "Replies and ack entries for datagrams already settled: second answers to what was retried, or too late.";
    replies_invalid: "Replies dropped: not ours, damaged, of unknown kind, or not fitting the datagram they name.";
    replies_foreign: "Replies dropped: the session id is not this client's.";
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}
