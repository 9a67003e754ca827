//! `policy bench`: what a decision costs in a process of its own, as in a job.
//!
//! A child process loads the compiled component, asks it once and ends. It measures itself; the parent measures it
//! from outside.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fixture::Fixture;
use super::trial::Bench;
use super::{AuthoringError, name_of, pinned};
use crate::policy::Store;

/// What the child says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Once {
    /// Opening the store and mapping the component.
    pub load_us: u64,
    /// Instantiating and calling.
    pub call_us: u64,
    /// Of the call.
    pub fuel: u64,
    /// Most memory that the process had, in KiB, all of it.
    pub peak_kib: u64,
}

/// Of all runs, the middle and the 95th of 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half of the runs took at most this long, in microseconds.
    pub p50_us: u64,
    /// 95 of 100 runs took at most this long, in microseconds.
    pub p95_us: u64,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// How many processes.
    pub runs: usize,
    /// From before the process starts to after it has ended.
    pub process: Spread,
    /// See [`Once::load_us`].
    pub load: Spread,
    /// See [`Once::call_us`].
    pub call: Spread,
    /// The same in each run, or the policy is not deterministic.
    pub fuel: u64,
    /// The most of all runs.
    pub peak_kib: u64,
    /// Of the one policy: what a call may use.
    pub fuel_budget: u64,
    /// Of the one policy: how long a call may take, in microseconds.
    pub call_budget_us: u64,
}

/// The child's part.
///
/// # Errors
///
/// Fails when the fixture cannot be played at all.
pub fn once(
    component: &Path,
    sha256: &str,
    fixture: &Fixture,
    store_at: &Path,
) -> Result<Once, AuthoringError> {
    let started = Instant::now();
    let store = Store::open(store_at)?;
    let policy = pinned(component, sha256.to_owned(), fixture.settings.clone())?;
    store.ensure(&name_of(component), &policy)?;
    let load_us = microseconds(started.elapsed());
    let bench = Bench::pinned(component, policy, &store);
    let played = bench.play(&without_expectations(fixture))?;
    let observed = played.observed.ok_or_else(|| {
        AuthoringError::Unusable(format!("the fixture fails: {}", played.differences.join("; ")))
    })?;
    Ok(Once { load_us, call_us: observed.elapsed_us, fuel: observed.fuel, peak_kib: peak_kib() })
}

/// Variants would be measured as well.
fn without_expectations(fixture: &Fixture) -> Fixture {
    Fixture { expect: super::fixture::Expectation::default(), ..fixture.clone() }
}

/// Runs `child` so many times.
///
/// # Errors
///
/// Fails when a run does, or when two runs used different fuel.
pub fn measure(
    runs: usize,
    budget: &crate::settings::Policy,
    mut child: impl FnMut() -> Result<Once, AuthoringError>,
) -> Result<Measured, AuthoringError> {
    // The first compiles, and fills the page cache.
    child()?;
    let mut process = Vec::with_capacity(runs);
    let mut inside = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let started = Instant::now();
        let once = child()?;
        process.push(microseconds(started.elapsed()));
        inside.push(once);
    }
    let fuel = inside.first().map_or(0, |once| once.fuel);
    if let Some(other) = inside.iter().find(|once| once.fuel != fuel) {
        return Err(AuthoringError::Unusable(format!(
            "the policy is not deterministic: {fuel} and {} fuel for the same question",
            other.fuel
        )));
    }
    Ok(Measured {
        runs: inside.len(),
        process: spread(process),
        load: spread(inside.iter().map(|once| once.load_us).collect()),
        call: spread(inside.iter().map(|once| once.call_us).collect()),
        fuel,
        peak_kib: inside.iter().map(|once| once.peak_kib).max().unwrap_or(0),
        fuel_budget: budget.fuel,
        call_budget_us: microseconds(budget.deadline),
    })
}

fn spread(mut values: Vec<u64>) -> Spread {
    values.sort_unstable();
    let at = |percent: usize| {
        let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
        values.get(index).copied().unwrap_or(0)
    };
    Spread { p50_us: at(50), p95_us: at(95) }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `VmHWM` of proc(5); 0 where there is none.
fn peak_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim();
            line.split_whitespace().next()?.parse().ok()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(spread((1..=100).collect()), Spread { p50_us: 50, p95_us: 95 });
        assert_eq!(spread(vec![7]), Spread { p50_us: 7, p95_us: 7 });
        assert_eq!(spread(Vec::new()), Spread { p50_us: 0, p95_us: 0 });
        assert!(peak_kib() > 0);
    }

    #[test]
    fn another_fuel_is_an_error() {
        let policy = crate::settings::Policy {
            fuel: 1,
            ..super::super::policy_of(Path::new("/proc/self/status"), serde_json::Value::Null)
                .unwrap()
        };
        let mut fuel = 0;
        let error = measure(2, &policy, || {
            fuel += 1;
            Ok(Once { load_us: 1, call_us: 1, fuel, peak_kib: 1 })
        });
        assert!(error.unwrap_err().to_string().contains("not deterministic"));
    }
}
