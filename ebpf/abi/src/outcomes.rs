//! What becomes of an event, and why a datagram was refused: wire codes,
//! counters, metric labels and doc rows from one table each.

/// Bit set in an outcome byte when the event is a duplicate: the low bits are
/// then the outcome of its first application, whose epoch follows in the ack.
pub const DUPLICATE_BIT: u8 = 0x80;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $code:literal, $label:literal, $doc:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = $doc] $variant = $code,)*
        }

        impl $name {
            /// Every value, in code order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of a wire code; `None` when the code is not assigned.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Wire code.
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// Metric label and doc name: kebab case, as in the documents.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// One sentence for the documentation.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

codes! {
    /// The outcome of one event. Zero is never sent.
    Outcome {
        Accepted = 1, "accepted", "Received and counted; ack mode `none` promises no more.";
        Applied = 2, "applied", "Durable on a majority and applied.";
        AlreadyClaimed = 3, "already-claimed", "Somebody else was first.";
        Expired = 4, "expired", "The thing it names has expired.";
        Closed = 5, "closed", "The hunt is closed.";
        NotFound = 6, "not-found", "The thing it names does not exist.";
        NoKey = 7, "no-key", "The player holds no such key.";
        InsufficientFunds = 8, "insufficient-funds", "The wallet would go below zero.";
        OutOfOrder = 9, "out-of-order", "A step before its predecessor.";
        TooOld = 10, "too-old", "The idempotency key lies below the dedupe horizon.";
        TooNew = 11, "too-new", "The idempotency key lies too far in the future.";
        Malformed = 12, "malformed", "The event's fields make no sense; the datagram around it did.";
        Overloaded = 13, "overloaded", "Refused before it joined a batch; try again later.";
        NotLeader = 14, "not-leader", "This node may not order events; ask the leader.";
        Full = 15, "full", "A configured capacity is used up.";
        AlreadyDone = 16, "already-done", "It was done before, and is done once only.";
        WrongGame = 17, "wrong-game", "The hunt's game type knows nothing of this.";
        NotJoined = 18, "not-joined", "The player has not joined a team, and the hunt's game is played in teams.";
        OverQuota = 19, "over-quota", "The tenant's quota for the hunt is used up: cells, players, or events of this second.";
        WrongRegion = 20, "wrong-region", "The hunt is split, and this is another region's: the cell lies there, or the player is at home there.";
    }
}

codes! {
    /// Why a whole datagram was refused. Zero is never sent.
    Refusal {
        Version = 1, "version", "This version of the format is not spoken here.";
        Kind = 2, "kind", "This kind does not exist in this version.";
        Reserved = 3, "reserved", "An unknown flag bit or a reserved field was set.";
        Sealed = 4, "sealed", "Sealed datagrams are not accepted here.";
        Malformed = 5, "malformed", "Count, lengths or padding disagree with the datagram's length.";
        Mode = 6, "mode", "This ack mode does not exist.";
        DurableUnavailable = 7, "durable-unavailable", "Durable acks need the log, and this node runs none.";
        QueryUnavailable = 8, "query-unavailable", "This node runs no log, and has nothing to read.";
    }
}

pub(crate) use codes;
