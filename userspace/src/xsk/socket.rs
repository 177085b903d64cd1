//! Bring-up of one AF_XDP socket: UMEM, rings, bind ladder, read-back.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::monitor::XskMonitor;
use super::ring::{Consumer, Producer, RingMemory};
use super::umem::{Frame, Umem};
use crate::base::mem::HugePages;
use crate::base::sockopt;

/// `XDP_MAX_TX_SKB_BUDGET` in `linux/if_xdp.h` (kernel 6.17 and later): frames
/// one send call may turn into packets, 32 unless set.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Frames a send call may take where the kernel lets us say so.
const TX_BUDGET_FRAMES: i32 = 256;

/// Bytes the kernel leaves free before the packet, on top of its own 256. With
/// 54 the packet begins ten bytes before a cache line: its MAC addresses, which
/// a lane reads only to reply, lie in the line before, and the 126 bytes from
/// ethertype to the end of one event in IPv4 fill the next two. The UDP payload
/// of an untagged IPv4 packet then lies at a multiple of 8, which the CRC is
/// fastest at.
pub const HEADROOM_BYTES: u32 = 54;

/// Frames kept for long replies: more than a batch can open. They are TX's share
/// of the UMEM, so FILL never lacks them.
const SPARE_FRAMES: usize = 64;

/// A closed socket frees its queue only after an RCU grace period: 12 to 34 ms
/// measured; bind is tried again for this long.
const BIND_RETRY_MAX: Duration = Duration::from_millis(1_000);
const BIND_RETRY_STEP: Duration = Duration::from_millis(4);

/// Whether packets may be copied between driver and UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ladder {
    /// Zero-copy where the driver has it, else copy; status says which.
    Auto,
    /// Zero-copy or nothing.
    Require,
    /// Copy.
    Off,
}

/// What a lane does when its ring is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Sleeps in `poll` until the kernel wakes it.
    Wakeup,
    /// Spins; owns its core.
    Spin,
    /// Drives the device's NAPI itself from its own core.
    PreferBusy {
        /// Microseconds of busy polling a call.
        us: u32,
        /// Packets a call may process.
        budget: u32,
    },
}

impl WaitMode {
    /// Word used in flags, status and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wakeup => "wakeup",
            Self::Spin => "spin",
            Self::PreferBusy { .. } => "prefer-busy",
        }
    }
}

/// What a socket is made from.
#[derive(Clone, Copy, Debug)]
pub struct XskSpec {
    /// Interface index.
    pub ifindex: u32,
    /// Queue index.
    pub queue: u32,
    /// RX ring entries, a power of two; FILL has twice as many.
    pub rx_ring_frames: u32,
    /// TX ring entries, a power of two; COMPLETION has as many.
    pub tx_ring_frames: u32,
    /// Bytes of a frame: 2,048 or 4,096.
    pub frame_bytes: u32,
    /// Zero-copy ladder.
    pub zero_copy: Ladder,
    /// Wait mode.
    pub wait: WaitMode,
    /// Pages of the UMEM.
    pub huge_pages: HugePages,
}

/// Which step of the bring-up failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct BindError {
    /// What was being done.
    pub step: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
}

fn at(step: &'static str) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError { step, source }
}

/// A bound AF_XDP socket with its memory. Fields are in the order they are
/// dropped: rings, socket, memory last.
#[derive(Debug)]
pub struct Xsk {
    pub(super) rx: Consumer<MappedRing<libc::xdp_desc>>,
    pub(super) tx: Producer<MappedRing<libc::xdp_desc>>,
    pub(super) fill: Producer<MappedRing<u64>>,
    pub(super) completion: Consumer<MappedRing<u64>>,
    /// Frames in nobody's ring.
    pub(super) free: Vec<Frame>,
    /// Frames kept for long replies, last used first: they stay in this core's
    /// cache, while a received frame's lines belong to the core that filled it.
    pub(super) spare: Vec<Frame>,
    /// Frames in `spare` at the start: there are never more.
    spare_max: usize,
    fd: Arc<OwnedFd>,
    zero_copy: bool,
    pub(super) wait: WaitMode,
    pub(super) umem: Umem,
}

impl Xsk {
    /// Makes, fills and binds a socket. It receives once its fd is in the
    /// XSKMAP.
    ///
    /// # Errors
    ///
    /// [`BindError`] with the step and the kernel's answer; the caller knows
    /// the interface and adds the likely cure.
    pub fn open(spec: &XskSpec) -> Result<Self, BindError> {
        let fd = Arc::new(socket().map_err(at("make an AF_XDP socket"))?);
        let fill_frames = 2 * spec.rx_ring_frames;
        let frames = fill_frames + spec.tx_ring_frames;
        let (umem, mut free) = Umem::new(frames, spec.frame_bytes, spec.huge_pages)
            .map_err(at("map packet memory"))?;
        let spare_max = SPARE_FRAMES.min(spec.tx_ring_frames as usize);
        let spare = free.split_off(free.len() - spare_max);
        register(fd.as_fd(), &umem).map_err(at("register packet memory"))?;
        for (name, entries, step) in [
            (libc::XDP_UMEM_FILL_RING, fill_frames, "size the FILL ring"),
            (libc::XDP_UMEM_COMPLETION_RING, spec.tx_ring_frames, "size the COMPLETION ring"),
            (libc::XDP_RX_RING, spec.rx_ring_frames, "size the RX ring"),
            (libc::XDP_TX_RING, spec.tx_ring_frames, "size the TX ring"),
        ] {
            let entries = i32::try_from(entries)
                .map_err(|_| at(step)(io::Error::other("more than 2^31 entries")))?;
            sockopt::set_int(fd.as_fd(), libc::SOL_XDP, name, entries).map_err(at(step))?;
        }
        let rings = Rings::map(fd.as_fd(), spec).map_err(at("map the rings"))?;
        let mut xsk = Self {
            rx: Consumer::new(rings.rx),
            tx: Producer::new(rings.tx),
            fill: Producer::new(rings.fill),
            completion: Consumer::new(rings.completion),
            free,
            spare,
            spare_max,
            fd: Arc::clone(&fd),
            zero_copy: false,
            wait: spec.wait,
            umem,
        };
        // Filled before bind: drivers that find FILL empty at bind leak (ice, i40e).
        xsk.refill();
        set_wait(fd.as_fd(), spec.wait).map_err(at("set busy polling"))?;
        // Kernels without the option send 32 frames a call.
        let budget = TX_BUDGET_FRAMES.min(spec.tx_ring_frames as i32);
        let _ = sockopt::set_int(fd.as_fd(), libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, budget);
        bind_ladder(fd.as_fd(), spec)?;
        xsk.zero_copy =
            sockopt::xdp_is_zero_copy(fd.as_fd()).map_err(at("read the socket's options back"))?;
        if spec.zero_copy == Ladder::Require && !xsk.zero_copy {
            let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            return Err(BindError { step: "read zero-copy back", source });
        }
        Ok(xsk)
    }

    /// The socket, for the XSKMAP.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether the kernel said that packets are not copied.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The packet memory.
    #[must_use]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// A read-only view for another thread; `spec` is what it was opened with.
    ///
    /// # Errors
    ///
    /// When the rings cannot be mapped a second time.
    pub fn monitor(&self, spec: &XskSpec) -> io::Result<XskMonitor> {
        let Rings { rx, tx, fill, completion } = Rings::map(self.fd.as_fd(), spec)?;
        Ok(XskMonitor { fd: Arc::clone(&self.fd), rx, tx, fill, completion })
    }

    /// Takes a frame back from a reply; `as_spare` if it may be kept for the next
    /// one.
    #[inline(always)]
    pub(super) fn give_back(&mut self, frame: Frame, as_spare: bool) {
        if as_spare && self.spare.len() < self.spare_max {
            self.spare.push(frame);
        } else {
            self.free.push(frame);
        }
    }

    /// Lends free frames to the kernel until FILL is full.
    #[inline]
    pub(super) fn refill(&mut self) {
        let room = self.fill.room().min(self.free.len() as u32);
        for frame in self.free.drain(self.free.len() - room as usize..) {
            let pushed = self.fill.push(frame.surrender());
            debug_assert!(pushed, "room was asked for");
        }
        self.fill.publish();
    }
}

/// The four rings of a socket, mapped.
struct Rings {
    rx: MappedRing<libc::xdp_desc>,
    tx: MappedRing<libc::xdp_desc>,
    fill: MappedRing<u64>,
    completion: MappedRing<u64>,
}

impl Rings {
    fn map(fd: BorrowedFd<'_>, spec: &XskSpec) -> io::Result<Self> {
        let at = sockopt::xdp_offsets(fd)?;
        let (rx_frames, tx_frames) = (spec.rx_ring_frames, spec.tx_ring_frames);
        let fill = libc::XDP_UMEM_PGOFF_FILL_RING as i64;
        let completion = libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64;
        Ok(Self {
            rx: MappedRing::map(fd, libc::XDP_PGOFF_RX_RING, rx_frames, &at.rx)?,
            tx: MappedRing::map(fd, libc::XDP_PGOFF_TX_RING, tx_frames, &at.tx)?,
            fill: MappedRing::map(fd, fill, 2 * rx_frames, &at.fr)?,
            completion: MappedRing::map(fd, completion, tx_frames, &at.cr)?,
        })
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system call without memory arguments.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn register(fd: BorrowedFd<'_>, umem: &Umem) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of a struct of integers.
    let mut reg: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
    reg.addr = umem.start() as u64;
    reg.len = u64::from(umem.frames()) * u64::from(umem.frame_bytes());
    reg.chunk_size = umem.frame_bytes();
    reg.headroom = HEADROOM_BYTES;
    sockopt::xdp_umem_register(fd, &reg)
}

fn set_wait(fd: BorrowedFd<'_>, wait: WaitMode) -> io::Result<()> {
    /// `asm-generic/socket.h`.
    const SO_PREFER_BUSY_POLL: libc::c_int = 69;
    const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
    if let WaitMode::PreferBusy { us, budget } = wait {
        let int = |v: u32| i32::try_from(v).unwrap_or(i32::MAX);
        sockopt::set_int(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1)?;
        sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, int(us))?;
        sockopt::set_int(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, int(budget))?;
    }
    Ok(())
}

fn bind_ladder(fd: BorrowedFd<'_>, spec: &XskSpec) -> Result<(), BindError> {
    let zero_copy = libc::XDP_ZEROCOPY | libc::XDP_USE_NEED_WAKEUP;
    let copy = libc::XDP_COPY | libc::XDP_USE_NEED_WAKEUP;
    match spec.zero_copy {
        Ladder::Off => bind(fd, spec, copy).map_err(at("bind, copy mode")),
        Ladder::Require => bind(fd, spec, zero_copy).map_err(at("bind, zero-copy required")),
        Ladder::Auto => match bind(fd, spec, zero_copy) {
            Err(e) if is_no_zero_copy(&e) => bind(fd, spec, copy).map_err(at("bind, copy mode")),
            other => other.map_err(at("bind, zero-copy")),
        },
    }
}

/// Drivers without zero-copy say EOPNOTSUPP; some that have it for other
/// settings (MTU, ring sizes) say EINVAL, which copy mode then repeats if the
/// queue itself is wrong.
fn is_no_zero_copy(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

fn bind(fd: BorrowedFd<'_>, spec: &XskSpec, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: spec.ifindex,
        sxdp_queue_id: spec.queue,
        sxdp_shared_umem_fd: 0,
    };
    let started = Instant::now();
    loop {
        // SAFETY: `address` is a valid sockaddr_xdp of the size given, and the
        // fd is open.
        let rc = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
            )
        };
        if rc == 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        if e.raw_os_error() != Some(libc::EBUSY) || started.elapsed() > BIND_RETRY_MAX {
            return Err(e);
        }
        std::thread::sleep(BIND_RETRY_STEP);
    }
}

/// A ring shared with the kernel.
#[derive(Debug)]
pub struct MappedRing<T> {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

// SAFETY: the mapping is shared memory reached through atomics and through
// entries that the ring protocol gives to one side at a time.
unsafe impl<T: Send> Send for MappedRing<T> {}
// SAFETY: `&self` methods only load atomics or read entries the consumer owns.
unsafe impl<T: Send> Sync for MappedRing<T> {}

impl<T: Copy> MappedRing<T> {
    fn map(
        fd: BorrowedFd<'_>,
        pgoff: i64,
        size: u32,
        offset: &libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        let mapping_bytes = offset.desc as usize + size as usize * size_of::<T>();
        // SAFETY: a new shared mapping of the socket's ring, at an address of
        // the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapping_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                pgoff,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let zero = || io::Error::other("mmap gave address zero");
        let mapping = NonNull::new(start.cast::<u8>()).ok_or_else(zero)?;
        let part =
            |o: u64| NonNull::new(mapping.as_ptr().wrapping_add(o as usize)).ok_or_else(zero);
        Ok(Self {
            mapping,
            mapping_bytes,
            producer: part(offset.producer)?.cast(),
            consumer: part(offset.consumer)?.cast(),
            flags: part(offset.flags)?.cast(),
            entries: part(offset.desc)?.cast(),
            size,
        })
    }

    #[inline(always)]
    fn cursor(&self, at: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: `at` points into the mapping, which lives as long as self,
        // is 4-byte aligned, and is only ever accessed atomically.
        unsafe { at.as_ref() }
    }

    #[inline(always)]
    fn entry(&self, cursor: u32) -> *mut T {
        self.entries.as_ptr().wrapping_add((cursor & (self.size - 1)) as usize)
    }
}

impl<T: Copy> RingMemory for MappedRing<T> {
    type Entry = T;

    #[inline(always)]
    fn size(&self) -> u32 {
        self.size
    }

    #[inline(always)]
    fn load_producer(&self) -> u32 {
        self.cursor(self.producer).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn load_consumer(&self) -> u32 {
        self.cursor(self.consumer).load(Ordering::Acquire)
    }

    #[inline(always)]
    fn store_producer(&mut self, cursor: u32) {
        self.cursor(self.producer).store(cursor, Ordering::Release);
    }

    #[inline(always)]
    fn store_consumer(&mut self, cursor: u32) {
        self.cursor(self.consumer).store(cursor, Ordering::Release);
    }

    #[inline(always)]
    fn read(&self, cursor: u32) -> T {
        // SAFETY: the masked index lies inside the mapping, T is a kernel
        // struct of integers, and the kernel does not write a slot that the
        // consumer has not released.
        unsafe { self.entry(cursor).read() }
    }

    #[inline(always)]
    fn write(&mut self, cursor: u32, entry: T) {
        // SAFETY: as in `read`; the kernel does not read a slot before it is
        // published.
        unsafe { self.entry(cursor).write(entry) };
    }

    #[inline(always)]
    fn needs_wakeup(&self) -> bool {
        self.cursor(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T> Drop for MappedRing<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`; nothing borrows from it.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
    }
}

/// Rings and sockets without an AF_XDP kernel behind them.
#[cfg(test)]
impl<T: Copy> MappedRing<T> {
    /// `N` views of one ring, both cursors at `cursor`: a lane's end, and
    /// those of a test that plays the kernel. Mapped as the kernel's rings
    /// are, from a memfd.
    pub(super) fn views<const N: usize>(size: u32, cursor: u32) -> [Self; N] {
        // SAFETY: a valid C string; nothing else is passed.
        let fd = unsafe { libc::memfd_create(c"veltrix-test-ring".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
        // SAFETY: a new descriptor that nothing else owns.
        let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // Cursors on cache lines of their own, as in the kernel.
        let offset = libc::xdp_ring_offset { producer: 0, consumer: 64, desc: 192, flags: 128 };
        let bytes = offset.desc + u64::from(size) * size_of::<T>() as u64;
        file.set_len(bytes).expect("a memfd grows");
        std::array::from_fn(|_| {
            let mut view =
                Self::map(file.as_fd(), 0, size, &offset).expect("a memfd can be mapped");
            view.store_producer(cursor);
            view.store_consumer(cursor);
            view
        })
    }

    /// What the kernel does to ask for a system call.
    pub(super) fn ask_for_wakeup(&self, is_wanted: bool) {
        let flags = if is_wanted { libc::XDP_RING_NEED_WAKEUP } else { 0 };
        self.cursor(self.flags).store(flags, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Xsk {
    /// A filled socket over rings that a test made; `fd` is any socket.
    pub(super) fn over(
        fd: OwnedFd,
        (umem, mut free): (Umem, Vec<Frame>),
        rx: MappedRing<libc::xdp_desc>,
        tx: MappedRing<libc::xdp_desc>,
        fill: MappedRing<u64>,
        completion: MappedRing<u64>,
    ) -> Self {
        let spare_max = SPARE_FRAMES.min(tx.size() as usize);
        let spare = free.split_off(free.len() - spare_max);
        let mut xsk = Self {
            rx: Consumer::new(rx),
            tx: Producer::new(tx),
            fill: Producer::new(fill),
            completion: Consumer::new(completion),
            free,
            spare,
            spare_max,
            fd: Arc::new(fd),
            zero_copy: false,
            wait: WaitMode::Wakeup,
            umem,
        };
        xsk.refill();
        xsk
    }
}
