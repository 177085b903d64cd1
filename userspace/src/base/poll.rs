//! Waiting for descriptors.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Sleeps until `fd`, or `other` if there is one, is readable or `timeout` is
/// over; a signal ends it early.
pub fn readable(fd: BorrowedFd<'_>, other: Option<BorrowedFd<'_>>, timeout: Duration) {
    let entry = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // The kernel skips an entry with a negative descriptor.
    let mut fds = [entry(fd.as_raw_fd()), entry(other.map_or(-1, |fd| fd.as_raw_fd()))];
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: two valid pollfds and a timespec; no signal mask.
    unsafe { libc::ppoll(fds.as_mut_ptr(), 2, &raw const timeout, std::ptr::null()) };
}
