//! Jobs whose scripts need far less memory than their tasks have. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Entry;
use crate::placement::size::{self, Size};

/// Far below is less than half.
const FAR: u64 = 2;
/// What a suggestion leaves above the highest peak, in percent of it: the next run is not the last one.
const HEADROOM_PERCENT: u64 = 150;
const MIB_PER_GIB: f64 = 1024.0;
const SECONDS_PER_HOUR: f64 = 3600.0;

/// A job that has more memory than it uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Oversized {
    /// The project's path.
    pub project: String,
    /// The job's name.
    pub job: String,
    /// Attempts that the agent told the memory of.
    pub attempts: u64,
    /// The highest peak of a script in any of them.
    pub peak_memory_mib: u64,
    /// The least that one of them had.
    pub memory_mib: u32,
    /// CPU units with that.
    pub cpu_units: u32,
    /// What Fargate offers with as much CPU that is half as much again as the peak; `None` when that is no less.
    pub enough_mib: Option<u32>,
    /// What was had above the peak, times how long, over all of them.
    pub unused_gib_hours: f64,
}

#[derive(Debug)]
struct Job {
    attempts: u64,
    peak: u64,
    had: Size,
    /// Of all attempts.
    gib_hours: f64,
    hours: f64,
}

/// All jobs by project and name.
#[derive(Debug, Default)]
pub(super) struct Sizes(BTreeMap<(String, String), Job>);

impl Sizes {
    /// Adds an attempt, where it tells its memory and its size is known.
    pub(super) fn add(&mut self, entry: &Entry, running_seconds: f64) {
        let Some(peak) = entry.peak_memory_mib() else { return };
        let Some(had) = entry.place().map(|place| place.size).filter(|size| !size.is_own()) else {
            return;
        };
        let hours = running_seconds / SECONDS_PER_HOUR;
        let key = (entry.job.project.clone(), entry.job.name.clone());
        let job = self.0.entry(key).or_insert(Job {
            attempts: 0,
            peak: 0,
            had,
            gib_hours: 0.0,
            hours: 0.0,
        });
        job.attempts += 1;
        job.peak = job.peak.max(peak);
        if had.memory_mib < job.had.memory_mib {
            job.had = had;
        }
        job.gib_hours += f64::from(had.memory_mib) / MIB_PER_GIB * hours;
        job.hours += hours;
    }

    /// Those far below what they had, the most unused first.
    pub(super) fn oversized(&self) -> Vec<Oversized> {
        let is_far = |job: &&Job| job.peak.saturating_mul(FAR) < u64::from(job.had.memory_mib);
        let mut found: Vec<Oversized> = self
            .0
            .iter()
            .filter(|(_, job)| is_far(job))
            .map(|((project, name), job)| Oversized {
                project: project.clone(),
                job: name.clone(),
                attempts: job.attempts,
                peak_memory_mib: job.peak,
                memory_mib: job.had.memory_mib,
                cpu_units: job.had.cpu_units,
                enough_mib: enough(job.peak, job.had),
                unused_gib_hours: job.gib_hours - peak_gib(job.peak) * job.hours,
            })
            .collect();
        found.sort_by(|one, other| other.unused_gib_hours.total_cmp(&one.unused_gib_hours));
        found
    }
}

#[expect(clippy::cast_precision_loss, reason = "no memory has more than 2^52 MiB")]
fn peak_gib(mib: u64) -> f64 {
    mib as f64 / MIB_PER_GIB
}

fn enough(peak: u64, had: Size) -> Option<u32> {
    let needed = u32::try_from(peak.saturating_mul(HEADROOM_PERCENT) / 100).ok()?;
    let fitted = size::fit(Some(had.cpu_units), Some(needed), Size::DEFAULT, Size::LARGEST).ok()?;
    let is_less = fitted.cpu_units == had.cpu_units && fitted.memory_mib < had.memory_mib;
    is_less.then_some(fitted.memory_mib)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::entry::tests::entry;

    #[test]
    fn a_job_is_oversized_by_its_highest_peak_and_gets_a_size_that_exists() {
        let oversized = |peaks: &[u64], (cpu_units, memory_mib): (u32, u32)| {
            let mut sizes = Sizes::default();
            for &peak in peaks {
                let one = entry(1, |record| {
                    record["scripts"][1]["peak_memory_mib"] = peak.into();
                    record["placement"]["size"] =
                        json!({ "cpu_units": cpu_units, "memory_mib": memory_mib });
                });
                sizes.add(&one, 1800.0);
            }
            sizes
                .oversized()
                .first()
                .map(|one| (one.peak_memory_mib, one.enough_mib, one.unused_gib_hours))
        };
        for (peaks, size, expected) in [
            // An hour in two attempts, 8 GiB had and 1 GiB used at most.
            (&[1024, 512][..], (1024, 8192), Some((1024, Some(2048), 7.0))),
            // Half is not far below.
            (&[1024], (1024, 2048), None),
            (&[1023], (1024, 2048), Some((1023, None, 0.500_488_281_25))),
            (&[100, 1500], (1024, 2048), None),
            (&[3000], (2048, 16_384), Some((3000, Some(5120), 6.535_156_25))),
            // The size is the task definition's own.
            (&[100], (0, 0), None),
        ] {
            assert_eq!(oversized(peaks, size), expected, "{peaks:?} of {size:?}");
        }
    }

    #[test]
    fn jobs_of_which_no_memory_is_known_are_left_out() {
        let mut sizes = Sizes::default();
        sizes.add(&entry(1, |record| record["scripts"] = json!([])), 60.0);
        assert_eq!(sizes.oversized(), []);
    }
}
