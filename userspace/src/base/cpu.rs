//! Cores: which this process may use, pinning the calling thread, and its weight
//! among the threads of a core.

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

/// Nice level of the threads between an event and its answer: the log's writer
/// and the control core. They work for microseconds at a time; among equals one
/// waits up to a time slice of the scheduler, 3 ms, before it may.
pub const NICE_FIRST: i32 = -10;

/// Nice level of work that nobody waits for, such as writing a snapshot. It still
/// gets a tenth of a core that is busy with others.
pub const NICE_LAST: i32 = 10;

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
