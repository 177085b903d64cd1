//! The closed list of ways out: every frame leaves by exactly one.
//!
//! A row is at once the slot in the kernel half's counter map, the slot in a
//! lane's counter block, the metric label and the documentation row
//! (`userspace/docs/METRICS.md` is generated from [`Exit::ALL`]).
//!
//! Slots below [`XDP_SLOTS`] are counted by the XDP program; a lane uses the
//! drop slots among them too, for datagrams that reach it by a kernel socket
//! and so never met the program. Slots from [`XDP_SLOTS`] on are counted by
//! lanes only.

/// What happens to a frame at an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Not ours: handed to the kernel's stack untouched.
    Pass,
    /// Ours and unwanted or malformed: dropped in the driver.
    Drop,
    /// Ours: on its way to a lane.
    Deliver,
    /// A lane is done with it; no reply.
    Silent,
    /// A lane is done with it and owes its sender a reply.
    Reply,
}

impl Action {
    /// The word used in docs and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Deliver => "deliver",
            Self::Silent => "silent",
            Self::Reply => "reply",
        }
    }
}

/// Counter slots of one queue in the kernel half, the frame total included.
pub const XDP_SLOTS: usize = 32;

/// Counter slots of a lane.
pub const LANE_SLOTS: usize = 64;

macro_rules! exits {
    ($($variant:ident = $slot:literal, $label:literal, $action:ident, $doc:literal;)*) => {
        /// One way out for a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Exit {
            $(#[doc = $doc] $variant = $slot,)*
        }

        impl Exit {
            /// Every exit, in slot order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Metric label and doc name: lower snake case.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// What becomes of the frame.
            #[must_use]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)* }
            }

            /// One sentence for the documentation.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

exits! {
    PassNotIp = 1, "pass_not_ip", Pass, "Ethertype is neither IPv4 nor IPv6, or the frame is shorter than an Ethernet header.";
    PassVlanDeep = 2, "pass_vlan_deep", Pass, "More than two VLAN tags.";
    PassIpMalformed = 3, "pass_ip_malformed", Pass, "The IP header is cut short, has the wrong version or a header length below 20 bytes; the kernel judges it.";
    PassNotUdp = 4, "pass_not_udp", Pass, "IP, but not UDP.";
    PassFragmentTail = 5, "pass_fragment_tail", Pass, "A later fragment carries no port, so it cannot be known as ours; its first fragment, if ours, was dropped, so the kernel never completes it.";
    PassIpv6Chain = 6, "pass_ipv6_chain", Pass, "Two or more IPv6 extension headers: not walked; if it is for our port, the fallback lane drops it (`drop_ipv6_extension`).";
    PassUdpShort = 7, "pass_udp_short", Pass, "UDP, but the frame ends inside the UDP header.";
    PassOtherPort = 8, "pass_other_port", Pass, "UDP for another port.";
    PassFallback = 9, "pass_fallback", Deliver, "Ours, but no AF_XDP socket is bound to this queue: handed to the kernel UDP socket on the same port.";
    RedirectXsk = 10, "redirect_xsk", Deliver, "Ours: redirected to the AF_XDP socket of its queue.";
    DropFragment = 11, "drop_fragment", Drop, "First fragment of a datagram for our port; datagrams are never fragmented.";
    DropIpv6Extension = 12, "drop_ipv6_extension", Drop, "IPv6 extension header before a datagram for our port.";
    DropNotUnicast = 13, "drop_not_unicast", Drop, "For our port, but to a broadcast, multicast or loopback address, MAC or IP.";
    DropBadSource = 14, "drop_bad_source", Drop, "A source that must not be answered: port 0, a multicast, loopback or unspecified address.";
    DropUdpLength = 15, "drop_udp_length", Drop, "The UDP length is below 8 or exceeds what the IP header or the frame holds.";
    DropEmpty = 16, "drop_empty", Drop, "A UDP datagram without payload.";
    DropHeaderShort = 17, "drop_header_short", Drop, "The payload is shorter than the datagram header.";
    DropTooLarge = 18, "drop_too_large", Drop, "The payload exceeds `payload_bytes_max`.";
    DropMagic = 19, "drop_magic", Drop, "The payload does not begin with the magic.";
    DropBlocked = 20, "drop_blocked", Drop, "The source is on the blocklist.";
    DropRate = 21, "drop_rate", Drop, "The source exceeded its rate.";

    LaneDisagrees = 32, "lane_disagrees", Silent, "The lane's parse of a redirected frame differs from the kernel half's: a bug in Veltrix.";
    Checksum = 33, "checksum", Silent, "The CRC32C over header and body does not match: damaged on the way, or not written by a client.";
    ReplyKind = 34, "reply_kind", Silent, "A kind that only servers send; answering it could make two servers talk for ever.";
    Version = 35, "version", Reply, "A version of the format that this node does not speak.";
    Kind = 36, "kind", Reply, "A kind unknown in this version.";
    Reserved = 37, "reserved", Reply, "Unknown flag bits, or a reserved field that is not zero.";
    Sealed = 38, "sealed", Reply, "A sealed datagram, and this node holds no keys.";
    Malformed = 39, "malformed", Reply, "The body does not fit the kind: count, event lengths or padding disagree with the datagram's length.";
    Mode = 40, "mode", Reply, "An ack mode that does not exist.";
    DurableUnavailable = 41, "durable_unavailable", Reply, "Durable acks were asked for and this node runs no log.";
    QueryUnavailable = 42, "query_unavailable", Reply, "A query, and this node runs no log whose state it could read.";
    Shed = 43, "shed", Reply, "Refused before it was accepted, since the predicted wait exceeds the deadline; answered `busy`.";
    Ping = 44, "ping", Reply, "Answered with a pong.";
    Hello = 45, "hello", Reply, "Answered with the server's facts.";
    Accepted = 46, "accepted", Reply, "Events counted and acknowledged.";
    Query = 47, "query", Reply, "Reads, answered from memory.";
}

/// Slot of the frame total in a queue's counter row: every frame the program
/// saw, counted at its entry. `frames == sum of exits` closes the row.
pub const FRAMES_SLOT: usize = 0;

/// Slot of datagrams that the rate limit would have dropped in observe-only
/// mode. A remark, not an exit: such a frame leaves by another one.
pub const RATE_OBSERVED_SLOT: usize = 31;

impl Exit {
    /// Whether the XDP program counts this exit.
    #[must_use]
    pub const fn is_xdp(self) -> bool {
        (self as usize) < XDP_SLOTS
    }

    /// Slot in the counter row.
    #[must_use]
    pub const fn slot(self) -> usize {
        self as usize
    }
}

const _: () = {
    let mut i = 0;
    while i < Exit::ALL.len() {
        let slot = Exit::ALL[i] as usize;
        assert!(slot != FRAMES_SLOT && slot != RATE_OBSERVED_SLOT && slot < LANE_SLOTS);
        assert!(i == 0 || slot > Exit::ALL[i - 1] as usize);
        i += 1;
    }
};
