//! Maps of the lab: names and layouts, for both halves. The user half takes
//! this file in by its path, so there is one definition.

/// Program that makes frames, run by `BPF_PROG_TEST_RUN` with live frames.
pub const GENERATE_PROGRAM: &str = "lab_generate";
/// Program that counts replies.
pub const SINK_PROGRAM: &str = "lab_sink";
/// Program that counts every frame and drops it.
pub const DROP_PROGRAM: &str = "lab_drop";
/// Program that counts every frame and hands it to the kernel's stack.
pub const PASS_PROGRAM: &str = "lab_pass";

/// Array of one [`GeneratorSettings`].
pub const GENERATOR_MAP: &str = "GENERATOR";
/// Per-CPU array of one [`GeneratorCounts`].
pub const GENERATED_MAP: &str = "GENERATED";
/// Array of one [`SinkSettings`].
pub const SINK_MAP: &str = "SINK";
/// Per-CPU array of two [`SinkCounts`]: [`SUNK_DROPPED`] and [`SUNK_PASSED`].
pub const SUNK_MAP: &str = "SUNK";
/// Per-CPU array of one [`ReceiveCounts`].
pub const RECEIVED_MAP: &str = "RECEIVED";

/// Where the IP header of a generated frame begins, and so what it is.
pub const FAMILY_IPV4: u32 = 4;
/// See [`FAMILY_IPV4`].
pub const FAMILY_IPV6: u32 = 6;

/// What the generator does with each frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GeneratorSettings {
    /// Interface the frames leave by, in the namespace of the calling thread.
    pub ifindex: u32,
    /// Offset of the IP header in the template, bytes.
    pub l3: u32,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u32,
    /// Bits of the source address (IPv6: of its last 32 bits) replaced by the
    /// frame's number. 0: the address stays.
    pub source_mask: u32,
    /// Bits of the UDP source port replaced by the frame's number shifted
    /// right by `port_shift`. 0: the port stays.
    pub port_mask: u32,
    /// Bits the frame's number is shifted right for the port.
    pub port_shift: u32,
}

/// What the generator did on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GeneratorCounts {
    /// Frames the program ran for; the number of the next frame.
    pub frames: u64,
    /// Frames for which `bpf_redirect` said XDP_REDIRECT.
    pub redirects: u64,
    /// Frames for which it did not, or which were too short to vary.
    pub refused: u64,
}

/// Which replies the sink drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SinkSettings {
    /// First UDP destination port of generated traffic.
    pub port_first: u32,
    /// Last UDP destination port of generated traffic; below `port_first`
    /// there is none and everything passes.
    pub port_last: u32,
}

/// Row of [`SUNK_MAP`]: datagrams to a port in the configured range, dropped.
pub const SUNK_DROPPED: u32 = 0;
/// Row of [`SUNK_MAP`]: everything else, handed to the kernel's stack.
pub const SUNK_PASSED: u32 = 1;

/// Slots of [`SinkCounts::kinds`]; a kind code at or beyond it counts in the last.
pub const KIND_SLOTS: usize = 16;

/// Ack entries the sink walks in one datagram; what lies beyond is counted
/// in [`SinkCounts::acks_cut`].
pub const ACK_ENTRIES_WALKED_MAX: u32 = 32;

/// What the sink saw on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SinkCounts {
    /// Frames.
    pub frames: u64,
    /// Bytes of those frames, Ethernet header included.
    pub bytes: u64,
    /// Frames that carry no Veltrix datagram: not IP, not UDP, no magic.
    pub foreign: u64,
    /// Ack entries walked.
    pub ack_entries: u64,
    /// Events those entries answer.
    pub acked_events: u64,
    /// Acks with more entries than are walked, or whose entries run past the
    /// end of the frame; their remaining entries are not in the sums.
    pub acks_cut: u64,
    /// Veltrix datagrams by wire code of their kind.
    pub kinds: [u64; KIND_SLOTS],
}

/// What a receiver that does nothing saw on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReceiveCounts {
    /// Frames.
    pub frames: u64,
    /// Bytes of those frames, Ethernet header included.
    pub bytes: u64,
}
