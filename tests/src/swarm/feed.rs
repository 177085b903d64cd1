//! Frames out of this process's memory onto the client's interface, without
//! a socket: `BPF_PROG_TEST_RUN` with live frames runs a program that copies
//! them (`ebpf/src/lab/feed.rs`).
//!
//! A call costs some 15 us whatever it sends, then about 0.3 us a frame, the
//! receiving side's XDP program and the copy into its ring included. AF_XDP in
//! copy mode takes over a microsecond a frame for sending alone.

use aya::maps::Array;
use aya::programs::{TestRun as _, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRunAttrs, TestRunOptions};

use anyhow::{Context as _, Result, ensure};

use crate::lab::{CLIENT_INTERFACE, Lab, OBJECT_ENV, Side};

#[path = "../../../ebpf/src/lab/feed_layout.rs"]
mod layout;

use layout::{
    FEED_ADDRESS, FEED_BYTES, FEED_FAILED, FEED_FRAME_BYTES, FEED_IFINDEX, FEED_MAP, FEED_NEXT,
    FEED_PROGRAM, FEED_STRIDE, FEED_VARIED, FeedWords,
};

/// Most frames of one call.
pub const CALL_FRAMES_MAX: usize = 256;

/// Frames the kernel runs between two flushes: the receiver's ring holds 256.
const BATCH_FRAMES: u32 = 64;

/// Bytes from one frame to the next: a frame of 1,274 bytes behind
/// [`FRAME_START`], in whole cache lines.
const STRIDE: usize = 1_344;

/// Where a frame begins in its place, so that its UDP payload begins a cache
/// line.
const FRAME_START: usize = 64 - 42;

/// Largest frame, bytes.
pub const FRAME_BYTES_MAX: usize = STRIDE - FRAME_START;

const _: () = assert!(FRAME_BYTES_MAX < FEED_FRAME_BYTES);

/// See the module. The program stays on the client's loopback interface,
/// where nothing runs it, because a program that is attached nowhere costs 25 ms
/// a call: the kernel patches it into its dispatcher and out again.
pub struct Feed {
    ebpf: Ebpf,
    memory: Vec<u8>,
    /// First byte of the first place, on a cache line.
    start: usize,
    /// Given to the kernel as the frame to repeat; overwritten by every frame.
    template: Vec<u8>,
    ifindex: u32,
}

impl Feed {
    /// A feeder onto the client's interface of `lab`.
    ///
    /// # Errors
    ///
    /// No object of the lab's kernel half, or the kernel refuses.
    pub fn new(lab: &Lab) -> Result<Self> {
        let path = std::env::var_os(OBJECT_ENV).with_context(|| {
            format!("swarm: {OBJECT_ENV} does not name the lab's object: cargo xtask build-ebpf")
        })?;
        let object = std::fs::read(&path).with_context(|| path.to_string_lossy().into_owned())?;
        let mut ebpf = EbpfLoader::new().load(&object).context("swarm: the lab's object")?;
        let program: &mut Xdp = ebpf
            .program_mut(FEED_PROGRAM)
            .context("swarm: the lab's object has no feeder: cargo xtask build-ebpf")?
            .try_into()?;
        program.load().context("swarm: the kernel refuses the feeder")?;
        lab.client(|| program.attach("lo", XdpMode::Skb))
            .context("swarm: the feeder cannot stand on the client's lo")?;
        let memory = vec![0; CALL_FRAMES_MAX * STRIDE + 64];
        let start = memory.as_ptr().align_offset(64);
        ensure!(start < 64, "swarm: memory cannot be aligned");
        let ifindex = lab.ifindex(Side::Client).context(CLIENT_INTERFACE)?;
        Ok(Self { ebpf, memory, start, template: vec![0; FRAME_BYTES_MAX], ifindex })
    }

    /// Place `index` of the next call.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`CALL_FRAMES_MAX`].
    #[inline]
    pub fn frame(&mut self, index: usize) -> &mut [u8; FRAME_BYTES_MAX] {
        assert!(index < CALL_FRAMES_MAX);
        let at = self.start + index * STRIDE + FRAME_START;
        let place = &mut self.memory[at..at + FRAME_BYTES_MAX];
        place.first_chunk_mut().expect("the slice has this length")
    }

    /// Sends the first `bytes` of each of the first `frames` places, from a
    /// thread inside the client's namespace; gives how many the link did not
    /// take at once. What its other end drops later is not known here.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn send(&mut self, frames: usize, bytes: usize) -> Result<u64> {
        self.call(frames, bytes, false)
    }

    /// [`Self::send`] with frames as long as their IPv4 headers say.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn send_varied(&mut self, frames: usize) -> Result<u64> {
        self.call(frames, FRAME_BYTES_MAX, true)
    }

    fn call(&mut self, frames: usize, bytes: usize, varied: bool) -> Result<u64> {
        ensure!(
            (1..=CALL_FRAMES_MAX).contains(&frames) && (14..=FRAME_BYTES_MAX).contains(&bytes),
            "swarm: {frames} frames of {bytes} bytes"
        );
        let mut words: FeedWords = [0; _];
        words[FEED_ADDRESS] = self.memory[self.start + FRAME_START..].as_ptr() as u64;
        words[FEED_STRIDE] = STRIDE as u64;
        words[FEED_BYTES] = bytes as u64;
        words[FEED_IFINDEX] = self.ifindex.into();
        words[FEED_VARIED] = varied.into();
        let map = self.ebpf.map_mut(FEED_MAP).context("swarm: the feeder has no map")?;
        let mut map: Array<_, FeedWords> = Array::try_from(map)?;
        map.set(0, words, 0).context("swarm: the feeder's map")?;
        let program: &Xdp =
            self.ebpf.program(FEED_PROGRAM).context("swarm: no feeder")?.try_into()?;
        let mut left = frames as u64;
        let mut failed = 0;
        while left > 0 {
            let options = TestRunOptions {
                data_in: Some(&self.template[..bytes]),
                repeat: left as u32,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH_FRAMES),
                ..TestRunOptions::new()
            };
            let result = program.test_run(options);
            let map = self.ebpf.map(FEED_MAP).context("swarm: the feeder has no map")?;
            let map: Array<_, FeedWords> = Array::try_from(map)?;
            let now = map.get(&0, 0).context("swarm: the feeder's map")?;
            left = (frames as u64).saturating_sub(now[FEED_NEXT]);
            failed = now[FEED_FAILED];
            // A signal cuts a call short; the program knows how far it came.
            if let Err(error) = result {
                let interrupted = matches!(&error, aya::programs::ProgramError::SyscallError(e)
                    if e.io_error.raw_os_error() == Some(libc::EINTR));
                ensure!(interrupted, "swarm: TEST_RUN of {frames} frames: {error}");
            }
        }
        Ok(failed)
    }
}
