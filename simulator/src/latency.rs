//! How long a task stays in each state: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::draw::draw;
use crate::lifecycle::Status;

/// How long a task stays in each state, in milliseconds. RUNNING has no delay of its own.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Delays {
    provisioning: u64,
    pending: u64,
    activating: u64,
    deactivating: u64,
    stopping: u64,
    deprovisioning: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            provisioning: 30,
            pending: 30,
            activating: 10,
            deactivating: 0,
            stopping: 10,
            deprovisioning: 10,
        }
    }
}

impl Delays {
    fn of(&self, status: Status) -> u64 {
        match status {
            Status::Provisioning => self.provisioning,
            Status::Pending => self.pending,
            Status::Activating => self.activating,
            Status::Running | Status::Stopped => 0,
            Status::Deactivating => self.deactivating,
            Status::Stopping => self.stopping,
            Status::Deprovisioning => self.deprovisioning,
        }
    }
}

/// Where delays come from that `samples_ms` does not give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Latencies {
    /// `delays_ms`, for every task the same.
    #[default]
    Fixed,
    /// Drawn from what people have measured on Fargate.
    Fargate,
}

/// The states that have a delay.
const DELAYED: [Status; 6] = [
    Status::Provisioning,
    Status::Pending,
    Status::Activating,
    Status::Deactivating,
    Status::Stopping,
    Status::Deprovisioning,
];

/// The state that a key of `samples_ms` means.
pub(crate) fn state(name: &str) -> Option<Status> {
    DELAYED.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(name) && is_lower(name))
}

/// The keys of `samples_ms`, for messages.
pub(crate) fn state_names() -> String {
    DELAYED.map(|status| format!("`{}`", status.as_str().to_ascii_lowercase())).join(", ")
}

fn is_lower(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Published start and stop times of single Fargate tasks, in milliseconds: us-east-2 with a small image in 2023,
/// ap-northeast-2 in 2022, eu-west-1 with nginx in 2020. Their time from `stoppingAt` to `stoppedAt` is not broken
/// down further; it is DEPROVISIONING here.
fn fargate(status: Status) -> &'static [u64] {
    match status {
        Status::Provisioning => &[12_900, 19_500, 24_200],
        Status::Pending => &[4_500, 7_000, 21_000],
        Status::Activating => &[2_000, 2_100, 11_400],
        Status::Deprovisioning => &[35_000, 66_000],
        Status::Running | Status::Deactivating | Status::Stopping | Status::Stopped => &[],
    }
}

/// All that decides how long tasks take.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub(crate) seed: u64,
    pub(crate) delays: Delays,
    pub(crate) latencies: Latencies,
    /// By state, in milliseconds.
    pub(crate) samples: BTreeMap<Status, Vec<u64>>,
}

impl Pace {
    /// How long the `ordinal`-th task stays in `status`, in simulated time.
    pub(crate) fn of(&self, ordinal: u64, status: Status) -> Duration {
        let own = self.samples.get(&status).map(Vec::as_slice);
        let samples = match (own, self.latencies) {
            (Some(own), _) => own,
            (None, Latencies::Fargate) => fargate(status),
            (None, Latencies::Fixed) => return Duration::from_millis(self.delays.of(status)),
        };
        Duration::from_millis(quantile(samples, draw(self.seed, [ordinal, status as u64])))
    }
}

/// The value below which the share `part` of a population lies that `samples` were taken from: straight lines
/// between the samples.
fn quantile(samples: &[u64], part: f64) -> u64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable();
    let place = part * samples.len().saturating_sub(1) as f64;
    let at = |index: usize| samples.get(index).or(samples.last()).copied().unwrap_or(0) as f64;
    let (below, rest) = (place as usize, place.fract());
    (at(below) + (at(below + 1) - at(below)) * rest) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::{Delays, Latencies, Pace, quantile, state};
    use crate::lifecycle::Status;

    fn pace(latencies: Latencies, samples: &[(Status, &[u64])]) -> Pace {
        let samples = samples.iter().map(|(status, list)| (*status, list.to_vec()));
        Pace { seed: 1, delays: Delays::default(), latencies, samples: samples.collect() }
    }

    #[test]
    fn quantiles_lie_between_the_samples() {
        for (part, expected) in [(0.0, 10), (0.25, 15), (0.5, 20), (0.75, 30), (0.999_999, 39)] {
            assert_eq!(quantile(&[20, 10, 40], part), expected, "{part}");
        }
        assert_eq!(quantile(&[], 0.5), 0);
        assert_eq!(quantile(&[7], 0.9), 7);
    }

    #[test]
    fn fixed_delays_are_the_same_for_every_task() {
        let pace = pace(Latencies::Fixed, &[]);
        for ordinal in 0..5 {
            assert_eq!(pace.of(ordinal, Status::Pending), Duration::from_millis(30));
        }
    }

    #[test]
    fn fargates_are_within_what_was_measured() {
        let pace = pace(Latencies::Fargate, &[]);
        for (status, least, most) in [
            (Status::Provisioning, 12_900, 24_200),
            (Status::Pending, 4_500, 21_000),
            (Status::Activating, 2_000, 11_400),
            (Status::Deactivating, 0, 0),
            (Status::Deprovisioning, 35_000, 66_000),
        ] {
            let range = Duration::from_millis(least)..=Duration::from_millis(most);
            let drawn: Vec<Duration> = (0..50).map(|ordinal| pace.of(ordinal, status)).collect();
            assert!(drawn.iter().all(|one| range.contains(one)), "{status}: {drawn:?}");
            assert_eq!(drawn[7], pace.of(7, status), "the same seed, the same latency");
            assert_eq!(least == most, drawn.iter().all(|one| *one == drawn[0]), "{status}");
        }
    }

    #[test]
    fn own_samples_come_first() {
        let pace = pace(Latencies::Fargate, &[(Status::Pending, &[5])]);
        assert_eq!(pace.of(3, Status::Pending), Duration::from_millis(5));
        assert!(pace.of(3, Status::Provisioning) > Duration::from_secs(12));
        assert!(pace.samples != BTreeMap::new());
    }

    #[test]
    fn states_are_named_as_in_delays() {
        for (name, expected) in [
            ("provisioning", Some(Status::Provisioning)),
            ("deprovisioning", Some(Status::Deprovisioning)),
            ("PENDING", None),
            ("running", None),
            ("stopped", None),
        ] {
            assert_eq!(state(name), expected, "{name}");
        }
    }
}
