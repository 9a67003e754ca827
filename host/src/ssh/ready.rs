//! Waiting for a server that is still starting.

use std::time::Duration;

use tokio::time::Instant;

use super::Target;
use super::error::{ConnectError, NotReady};
use super::session::{Session, connect};
use crate::settings::SshTimes;

const FIRST_GAP: Duration = Duration::from_millis(20);
/// An attempt at a port where nothing listens costs a packet each way, and on average half of this is lost
/// between "the server listens" and "the driver knows".
const LONGEST_GAP: Duration = Duration::from_millis(200);

/// For how long a refused login may mean that `authorized_keys` is still being written.
const LOGIN_PATIENCE: Duration = Duration::from_secs(5);

/// OpenSSH 9.8 punishes addresses whose logins fail (`PerSourcePenalties`), so these come more slowly.
const LOGIN_GAP: Duration = Duration::from_millis(500);

/// Connects to a server that may not listen yet: the first attempt at once, then after gaps that grow
/// from 20 ms to 0.2 s, each short attempt and all of them together within `times`.
///
/// `on_state` hears why each attempt failed.
///
/// # Errors
///
/// Fails when `times.ready_timeout` is over, at once when waiting cannot help, and when logging in was
/// refused for 5 s.
pub async fn connect_until_ready(
    target: &Target,
    times: &SshTimes,
    mut on_state: impl FnMut(&ConnectError),
) -> Result<Session, NotReady> {
    let start = Instant::now();
    let deadline = start + times.ready_timeout;
    let mut first_refusal = None;
    let mut attempts = 0_u32;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let short = SshTimes { connect_timeout: times.connect_timeout.min(left), ..*times };
        let last = match connect(target, &short).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        attempts = attempts.saturating_add(1);
        on_state(&last);

        let mut pause = gap(attempts, rand::random_range(0.75..=1.25));
        let mut patience = deadline;
        if matches!(last, ConnectError::Authentication { .. }) {
            pause = pause.max(LOGIN_GAP);
            patience =
                deadline.min(*first_refusal.get_or_insert_with(Instant::now) + LOGIN_PATIENCE);
        }
        if !last.is_worth_retrying() || Instant::now() + pause >= patience {
            return Err(NotReady { waited: start.elapsed(), attempts, last });
        }
        tokio::time::sleep(pause).await;
    }
}

/// The pause after `attempts` attempts. `jitter`, around 1, keeps jobs that started together apart.
fn gap(attempts: u32, jitter: f64) -> Duration {
    let doubled = FIRST_GAP.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    doubled.min(LONGEST_GAP).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_grow_from_20_ms_to_200_ms() {
        for (attempts, jitter, expected) in [
            (1, 1.0, 20),
            (2, 1.0, 40),
            (4, 1.0, 160),
            (5, 1.0, 200),
            (u32::MAX, 1.0, 200),
            (1, 0.75, 15),
            (9, 1.25, 250),
        ] {
            assert_eq!(
                gap(attempts, jitter),
                Duration::from_millis(expected),
                "{attempts} {jitter}"
            );
        }
    }
}
