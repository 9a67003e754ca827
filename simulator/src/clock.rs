//! Simulated time, which may run faster than real time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Turns real time into simulated time and back. With a scale of 10 an hour of AWS's takes six minutes.
#[derive(Debug)]
pub(crate) struct Clock {
    scale: f64,
    start: Instant,
    /// When the first RunTask came.
    opened: OnceLock<Instant>,
}

impl Clock {
    /// `scale` is how often a simulated second fits into a real one; the world's check has bounded it.
    pub(crate) fn new(scale: f64) -> Self {
        Self { scale, start: Instant::now(), opened: OnceLock::new() }
    }

    /// Simulated time since the simulator's start.
    pub(crate) fn now(&self) -> Duration {
        self.since(self.start)
    }

    /// Simulated time since a moment.
    pub(crate) fn since(&self, moment: Instant) -> Duration {
        moment.elapsed().mul_f64(self.scale)
    }

    /// What a simulated span takes.
    pub(crate) fn real(&self, simulated: Duration) -> Duration {
        simulated.div_f64(self.scale)
    }

    /// Begins the scenario: it is the first RunTask that begins it, since what a caller does before (compiling
    /// policies, say) takes as long as it likes.
    pub(crate) fn open(&self) {
        self.opened.get_or_init(Instant::now);
    }

    /// Simulated time since the first RunTask; zero before it.
    pub(crate) fn scene(&self) -> Duration {
        self.opened.get().map_or(Duration::ZERO, |opened| self.since(*opened))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Clock;

    #[test]
    fn spans_shrink_and_times_grow() {
        let clock = Clock::new(100.0);
        assert_eq!(clock.real(Duration::from_secs(120)), Duration::from_millis(1200));
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.now() >= Duration::from_secs(2), "{:?}", clock.now());
    }

    #[test]
    fn the_scene_begins_once() {
        let clock = Clock::new(100.0);
        assert_eq!(clock.scene(), Duration::ZERO);
        clock.open();
        std::thread::sleep(Duration::from_millis(10));
        clock.open();
        assert!(clock.scene() >= Duration::from_secs(1), "{:?}", clock.scene());
    }
}
