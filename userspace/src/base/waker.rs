//! Waking a thread that sleeps in `poll`: an eventfd and a flag, so that whoever
//! has news pays for a system call only when the other side really sleeps.
//!
//! The sleeper says [`Waker::about_to_sleep`], looks for news once more, sleeps
//! on [`Waker::fd`], then says [`Waker::awake`]. News published before
//! [`Waker::wake`] is therefore seen by that second look or ends the sleep.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};

/// See the module.
#[derive(Debug)]
pub struct Waker {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl Waker {
    /// A waker nobody sleeps on yet.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to make an eventfd.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor the kernel has just given us.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { event, asleep: AtomicBool::new(false) })
    }

    /// Readable when the sleeper was woken.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Said by the sleeper before its last look for news.
    pub fn about_to_sleep(&self) {
        self.asleep.store(true, SeqCst);
        fence(SeqCst);
    }

    /// Said by the sleeper when it is up again.
    pub fn awake(&self) {
        if !self.asleep.swap(false, SeqCst) {
            self.clear();
        }
    }

    /// Takes the event, if there is one.
    pub fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: reads at most 8 bytes into a u64.
        unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// Wakes the sleeper; true when it slept. News must be published before.
    pub fn wake(&self) -> bool {
        fence(SeqCst);
        let slept = self.asleep.swap(false, SeqCst);
        if slept {
            let one = 1u64;
            // SAFETY: writes 8 bytes from a u64. It fails only when the count
            // is full, and then the sleeper wakes anyway.
            unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
        }
        slept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::poll;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    #[test]
    fn no_news_is_lost() {
        let waker = Arc::new(Waker::new().unwrap());
        let news = Arc::new(AtomicU32::new(0));
        let (w, n) = (Arc::clone(&waker), Arc::clone(&news));
        let sleeper = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < 1_000 {
                w.about_to_sleep();
                if n.load(SeqCst) == seen {
                    poll::readable(w.fd(), None, Duration::from_secs(10));
                }
                w.awake();
                seen = n.load(SeqCst);
            }
        });
        for _ in 0..1_000 {
            news.fetch_add(1, SeqCst);
            waker.wake();
        }
        sleeper.join().unwrap();
    }

    #[test]
    fn nobody_asleep_costs_no_event() {
        let waker = Waker::new().unwrap();
        assert!(!waker.wake());
        waker.about_to_sleep();
        assert!(waker.wake() && !waker.wake());
        waker.awake();
    }
}
