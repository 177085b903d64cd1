//! Cores: which this process may use, and pinning the calling thread.

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
