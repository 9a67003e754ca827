//! The wish to stop, and the limits under which a driver call runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How often a waiting thread looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(20);

/// Raised by Ctrl-C: once ends the jobs (cleanup still runs), twice ends the cleanup as well.
#[derive(Debug, Default)]
pub struct Interrupt(AtomicU32);

impl Interrupt {
    /// One more wish to stop.
    pub fn raise(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn raised(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether the jobs shall end.
    pub fn is_raised(&self) -> bool {
        self.raised() > 0
    }

    /// Raises at each SIGINT and SIGTERM, for as long as the process lives.
    ///
    /// # Errors
    ///
    /// Fails when the system gives no thread or no signal pipe.
    pub fn on_signals() -> std::io::Result<Arc<Self>> {
        use tokio::signal::unix::{SignalKind, signal};

        let interrupt = Arc::new(Self::default());
        let raised = Arc::clone(&interrupt);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut int, mut term) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = int.recv() => {}
                        _ = term.recv() => {}
                    }
                    raised.raise();
                }
            });
        })?;
        Ok(interrupt)
    }
}

/// What ends a driver call before its time: GitLab Runner's contexts.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    interrupt: &'a Interrupt,
    /// Ends when the interrupt was raised so often.
    at: u32,
    deadline: Option<Instant>,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Interrupted,
    TimedOut,
}

impl<'a> Limits<'a> {
    /// Of a job: the interrupt and the job's deadline.
    pub(super) fn of_job(interrupt: &'a Interrupt, deadline: Instant) -> Self {
        Self { interrupt, at: 1, deadline: Some(deadline) }
    }

    /// Of a cleanup, which the end of its job does not end.
    pub(super) fn of_cleanup(interrupt: &'a Interrupt, deadline: Instant) -> Self {
        Self { interrupt, at: 2, deadline: Some(deadline) }
    }

    /// The same with at most `timeout` from now.
    pub(super) fn within(self, timeout: Duration) -> Self {
        let sooner = Instant::now().checked_add(timeout);
        let deadline = match (self.deadline, sooner) {
            (Some(own), Some(sooner)) => Some(own.min(sooner)),
            (own, sooner) => own.or(sooner),
        };
        Self { deadline, ..self }
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        if self.interrupt.raised() >= self.at {
            Some(Ended::Interrupted)
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Some(Ended::TimedOut)
        } else {
            None
        }
    }

    /// Waits for `pause`, or until these limits end.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while self.ended().is_none() && Instant::now() < until {
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

/// How long a thread may wait for something else before it looks again.
pub(super) const fn look_again() -> Duration {
    LOOK
}
