//! How many datagrams may be unanswered: as many as the server takes.

/// Least.
const LEAST: f64 = 4.0;

/// At first.
const FIRST: f64 = 32.0;

/// Most: more would only wait in the server's socket buffer.
pub const WINDOW_MAX: usize = 1_024;

/// Between two cuts, nanoseconds: one burst of losses is one sign.
const CUT_EVERY_NS: u64 = 50_000_000;

/// Doubles while all goes well, then grows by one a round; halves when datagrams
/// are lost or turned away.
#[derive(Debug)]
pub struct Window {
    datagrams: f64,
    doubles: bool,
    cut_ns: u64,
}

impl Window {
    /// Before anything was sent.
    #[must_use]
    pub const fn new() -> Self {
        Self { datagrams: FIRST, doubles: true, cut_ns: 0 }
    }

    /// Datagrams that may be unanswered, 4 to [`WINDOW_MAX`].
    #[must_use]
    pub const fn size(&self) -> usize {
        self.datagrams as usize
    }

    /// A datagram got its outcomes.
    pub fn grow(&mut self) {
        let by = if self.doubles { 1.0 } else { 1.0 / self.datagrams };
        self.datagrams = (self.datagrams + by).min(WINDOW_MAX as f64);
    }

    /// One was lost or turned away; `now_ns` by any clock that only goes on.
    pub fn cut(&mut self, now_ns: u64) {
        if self.doubles || now_ns >= self.cut_ns.saturating_add(CUT_EVERY_NS) {
            (self.doubles, self.cut_ns) = (false, now_ns);
            self.datagrams = (self.datagrams / 2.0).max(LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_most_and_is_cut_once_a_burst() {
        let mut window = Window::new();
        (0..2 * WINDOW_MAX).for_each(|_| window.grow());
        assert_eq!(window.size(), WINDOW_MAX);
        (0..10).for_each(|_| window.cut(1_000));
        assert_eq!(window.size(), WINDOW_MAX / 2);
        (0..WINDOW_MAX / 2 + 1).for_each(|_| window.grow());
        assert_eq!(window.size(), WINDOW_MAX / 2 + 1, "one a round after a cut");
        (1..40).for_each(|n| window.cut(n * 2 * CUT_EVERY_NS));
        assert_eq!(window.size(), LEAST as usize);
    }
}
