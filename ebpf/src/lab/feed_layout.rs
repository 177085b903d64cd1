//! The feeder's map, for both halves. The user half takes this file in by its
//! path, so there is one definition. Plain words, so that neither half needs a
//! type of its own for them.

/// Program that sends frames out of its caller's memory, run by
/// `BPF_PROG_TEST_RUN` with live frames.
pub const FEED_PROGRAM: &str = "lab_feed";

/// Array of one [`FeedWords`].
pub const FEED_MAP: &str = "FEED";

/// See the constants that index it.
pub type FeedWords = [u64; 7];

/// Address of the first frame in the caller's memory.
pub const FEED_ADDRESS: usize = 0;
/// Bytes from one frame to the next.
pub const FEED_STRIDE: usize = 1;
/// Bytes of each frame: at least 1, below [`FEED_FRAME_BYTES`], and those of
/// the template that TEST_RUN is given.
pub const FEED_BYTES: usize = 2;
/// Interface the frames leave by, in the namespace of the calling thread.
pub const FEED_IFINDEX: usize = 3;
/// Frames sent so far, the number of the next one; the caller sets it to 0.
pub const FEED_NEXT: usize = 4;
/// Frames that could not be read, written or redirected.
pub const FEED_FAILED: usize = 5;

/// 0: every frame has [`FEED_BYTES`]; else each is an IPv4 frame as long as its
/// header says, which is at most those.
pub const FEED_VARIED: usize = 6;

/// Room for one frame, bytes; a power of two, so that a mask proves the bound.
pub const FEED_FRAME_BYTES: usize = 2_048;
