//! Cores: which this process may use, pinning the calling thread, its weight among the
//! threads of a core, and how long others keep it off.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Cores this process may run on, ascending.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect();
    cores.sort_unstable();
    cores
}

/// Pins the calling thread to `core`; false when the kernel refused.
#[must_use]
pub fn pin_to(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// Lets the calling thread, and threads it starts from now on, run on `cores`
/// only; false when the kernel refused.
#[must_use]
pub fn restrict_to(cores: &[usize]) -> bool {
    // SAFETY: all zeroes is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the core is within the set, checked above.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: a valid set of the size given; 0 names the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0 }
}

/// Nice level of the threads between an event and its answer: lanes, the log's writer
/// and the control core. The last two work for microseconds at a time; among equals one
/// waits up to a time slice of the scheduler, 3 ms, before it may.
pub const NICE_FIRST: i32 = -10;

/// Nice level of work that nobody waits for, such as writing a snapshot: that of any
/// program, with short time slices. Beside the threads above it gets a tenth of a core.
/// Not a higher level: see `REST` in `snapshot/encode.rs`.
pub const NICE_PLAIN: i32 = 0;

/// Time slice asked for, ns: the least that kernels from 6.12 on give. Who has a
/// short one may begin as soon as it wakes, and is soon off the core where others
/// wake; before 6.12 the number means nothing (kernel change "sched/eevdf: Use
/// sched_attr::sched_runtime to set request/slice suggestion").
const SLICE_NS: u64 = 100_000;

/// Sets the nice level of the calling thread, and of threads it starts from now
/// on, with short time slices; false when the kernel refused, as it does below 0
/// without CAP_SYS_NICE.
#[must_use]
pub fn set_nice(level: i32) -> bool {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: level,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says; 0 names the calling
    // thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

/// Lets timers of the calling thread, and of threads it starts from now on, end when
/// they should; the kernel adds up to 50 us otherwise (`PR_SET_TIMERSLACK`).
pub fn sharpen_timers() {
    // SAFETY: takes a number, touches no memory; it cannot fail for the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64) };
}

/// How long a thread was ready to run and something else had its core, as seen by any
/// thread. A kernel thread that does not let go counts, an interrupt does not.
#[derive(Debug)]
pub struct RunDelay(Option<File>);

impl RunDelay {
    /// Of the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Nanoseconds since the thread began; `None` where the kernel does not count
    /// them, or the thread has ended.
    #[must_use]
    pub fn ns(&self) -> Option<u64> {
        // Three numbers, the second is meant (Documentation/scheduler/sched-stats.rst).
        let mut text = [0; 64];
        let bytes = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..bytes]).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_thread_that_must_wait_for_its_core_says_so() {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let core = *allowed_cores().first().unwrap();
        let (stop, wait_max) = (AtomicBool::new(false), Duration::from_secs(10));
        let (send, delays) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            for _ in 0..2 {
                scope.spawn(|| {
                    assert!(pin_to(core));
                    send.send(RunDelay::of_this_thread()).unwrap();
                    while !stop.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let begun = Instant::now();
            for _ in 0..2 {
                let delay = delays.recv_timeout(wait_max).unwrap();
                let before = delay.ns().unwrap();
                while delay.ns().unwrap() < before + 50_000_000 {
                    assert!(begun.elapsed() < wait_max, "{delay:?}");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let ended = std::thread::spawn(RunDelay::of_this_thread).join().unwrap();
        let begun = Instant::now();
        while ended.ns().is_some() {
            assert!(begun.elapsed() < wait_max, "{ended:?}");
            std::thread::yield_now();
        }
    }
}
