//! The two sides of an experiment: what the alternative did to money, time and failures, and whether that is more
//! than chance. Pure.
//!
//! The policy `experiment` puts a job on its side by its name, so the sides have different jobs, and all runs of a
//! job are on one side: how sure a difference is hangs on the number of different jobs, not of runs.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::group::{Key, Side};
use super::numbers::{Cluster, Mean};
use super::report::{JobSums, Sums};

/// Fewer runs on a side tell nothing.
const MIN_JOBS: usize = 30;
/// Fewer different jobs on a side tell more about the jobs than about the alternative.
const MIN_DIFFERENT: usize = 10;

/// An experiment.
#[derive(Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Its name.
    pub experiment: String,
    /// Jobs on the side that stayed as it was.
    pub control_jobs: usize,
    /// Of them, different ones by project and name.
    pub control_different: usize,
    /// Jobs on the side of the alternative.
    pub variant_jobs: usize,
    /// The same.
    pub variant_different: usize,
    /// USD a job, all attempts; jobs without a price left out.
    pub cost_usd: Difference,
    /// Seconds a job, from the first decision to the end, without the time between attempts.
    pub seconds: Difference,
    /// The share of jobs that lost an attempt.
    pub lost: Difference,
    /// What to know before anybody believes it; empty when nothing.
    pub warnings: Vec<String>,
}

/// One measure on both sides.
#[derive(Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The mean of the side that stayed.
    pub control: Option<f64>,
    /// The mean of the alternative.
    pub variant: Option<f64>,
    /// The alternative's against the other's, in percent.
    pub change_percent: Option<f64>,
    /// Where alternative minus control lies by 19 chances out of 20.
    pub interval: Option<(f64, f64)>,
    /// What to make of it.
    pub verdict: Verdict,
}

/// What a difference says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The alternative has less.
    Less,
    /// The alternative has more.
    More,
    /// The interval has both.
    MayBeChance,
    /// There are not enough jobs.
    TooFew,
}

/// Every experiment of which a side is among `groups`, by name.
pub(super) fn all(groups: &BTreeMap<Key, Sums>) -> Vec<Comparison> {
    let mut sides: BTreeMap<&str, [Option<&Sums>; 2]> = BTreeMap::new();
    for (key, sums) in groups {
        let Some((experiment, side)) = &key.side else { continue };
        let index = match side {
            Side::Control => 0,
            Side::Variant => 1,
        };
        sides.entry(experiment).or_default()[index] = Some(sums);
    }
    let none = Sums::default();
    sides
        .into_iter()
        .map(|(experiment, [control, variant])| {
            compare(experiment, control.unwrap_or(&none), variant.unwrap_or(&none))
        })
        .collect()
}

fn compare(experiment: &str, control: &Sums, variant: &Sums) -> Comparison {
    let (control, variant) = (Jobs::of(control), Jobs::of(variant));
    let mut warnings = Vec::new();
    if control.runs < MIN_JOBS || variant.runs < MIN_JOBS {
        warnings.push(format!(
            "Too few jobs to tell: {} on the control side and {} on the variant side, and {MIN_JOBS} on each are the least.",
            control.runs, variant.runs
        ));
    }
    for (side, jobs) in [("control", &control), ("variant", &variant)] {
        let different = jobs.by_name.len();
        if jobs.runs >= MIN_JOBS && different < MIN_DIFFERENT {
            warnings.push(format!(
                "Too few to tell: the {side} side has only {different} different jobs. A job is always on the same \
                 side, so what differs may be the jobs; {MIN_DIFFERENT} are the least."
            ));
        }
    }
    let is_enough = warnings.is_empty();
    let difference = |measure: fn(&JobSums) -> Option<f64>| {
        difference(control.mean(measure), variant.mean(measure), is_enough)
    };
    Comparison {
        experiment: experiment.to_owned(),
        control_jobs: control.runs,
        control_different: control.by_name.len(),
        variant_jobs: variant.runs,
        variant_different: variant.by_name.len(),
        cost_usd: difference(|job| (!job.unpriced).then_some(job.cost)),
        seconds: difference(|job| Some(job.seconds)),
        lost: difference(|job| Some(if job.losses > 0 { 1.0 } else { 0.0 })),
        warnings,
    }
}

struct Jobs<'a> {
    runs: usize,
    by_name: HashMap<(u64, u64), Vec<&'a JobSums>>,
}

impl<'a> Jobs<'a> {
    fn of(sums: &'a Sums) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for (key, job) in &sums.jobs {
            by_name.entry(key.name).or_default().push(job);
        }
        Self { runs: sums.jobs.len(), by_name }
    }

    fn mean(&self, measure: fn(&JobSums) -> Option<f64>) -> Option<Mean> {
        let clusters = self.by_name.values().map(|jobs| {
            let known = jobs.iter().filter_map(|job| measure(job));
            known.fold(Cluster::default(), |cluster, value| Cluster {
                runs: cluster.runs + 1.0,
                sum: cluster.sum + value,
            })
        });
        Mean::of(clusters)
    }
}

fn difference(control: Option<Mean>, variant: Option<Mean>, is_enough: bool) -> Difference {
    let both = control.zip(variant);
    let interval = both.and_then(|(control, variant)| variant.minus(control));
    let verdict = match interval {
        _ if !is_enough => Verdict::TooFew,
        None => Verdict::TooFew,
        Some((from, _)) if from > 0.0 => Verdict::More,
        Some((_, to)) if to < 0.0 => Verdict::Less,
        Some(_) => Verdict::MayBeChance,
    };
    let change = both.filter(|(control, _)| control.value > 0.0);
    Difference {
        control: control.map(|mean| mean.value),
        variant: variant.map(|mean| mean.value),
        change_percent: change
            .map(|(control, variant)| (variant.value / control.value - 1.0) * 100.0),
        interval,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::entry::tests::entry;
    use crate::history::{Report, Summary};

    /// Runs of each of so many different jobs on a side; how long, and whether one of them is lost.
    struct Played {
        different: u64,
        runs: u64,
        seconds: fn(u64) -> u64,
        lost: fn(u64) -> bool,
    }

    fn summary(control: &Played, variant: &Played) -> Summary {
        let price = |_: &crate::placement::Placement, time: std::time::Duration| {
            Ok(time.as_secs_f64() / 100.0)
        };
        let mut report = Report::new("policy-label=arm".parse().unwrap(), &price, &|_| true);
        for (side, played) in [("control", control), ("variant", variant)] {
            for job in 0..played.different {
                for run in 0..played.runs {
                    let seconds = (played.seconds)(job);
                    report.add(&entry(1, |record| {
                        record["job"]["name"] = format!("{side}-{job}").into();
                        record["job"]["pipeline_id"] = run.into();
                        let labels =
                            serde_json::json!({ "arm/name": "arm-2026", "arm/side": side });
                        record["placement"]["labels"] = labels.clone();
                        record["placements"][0]["labels"] = labels;
                        let end: jiff::Timestamp = "2026-11-01T00:00:30Z".parse().unwrap();
                        let end = end + std::time::Duration::from_secs(seconds);
                        record["released_at"] = end.to_string().into();
                        record["launch"]["told_to_stop_at"] = end.to_string().into();
                        if (played.lost)(job) && run == 0 {
                            record["outcome"]["kind"] = "spot-interruption".into();
                        }
                    }));
                }
            }
        }
        report.finish()
    }

    #[test]
    fn both_sides_are_compared_by_cost_time_and_failures() {
        let control = Played { different: 20, runs: 5, seconds: |job| 100 + job, lost: |_| false };
        let variant =
            Played { different: 12, runs: 5, seconds: |job| 50 + job, lost: |job| job % 2 == 0 };
        let summary = summary(&control, &variant);
        let [comparison] = &summary.comparisons[..] else { panic!("{summary:?}") };
        assert_eq!(comparison.experiment, "arm-2026");
        assert_eq!((comparison.control_jobs, comparison.control_different), (100, 20));
        assert_eq!((comparison.variant_jobs, comparison.variant_different), (60, 12));
        assert_eq!(comparison.warnings, [] as [String; 0]);
        let cost = &comparison.cost_usd;
        assert!((cost.control.unwrap() - 1.095).abs() < 1e-9, "{cost:?}");
        assert!((cost.variant.unwrap() - 0.555).abs() < 1e-9, "{cost:?}");
        assert!((cost.change_percent.unwrap() - -49.315_068).abs() < 1e-5, "{cost:?}");
        assert_eq!(cost.verdict, Verdict::Less);
        assert_eq!(comparison.seconds.verdict, Verdict::Less);
        let lost = &comparison.lost;
        assert_eq!((lost.control, lost.change_percent), (Some(0.0), None));
        assert!((lost.variant.unwrap() - 0.1).abs() < 1e-9, "{lost:?}");
        assert_eq!(lost.verdict, Verdict::More);
    }

    #[test]
    fn few_jobs_and_few_different_jobs_are_warned_of() {
        let few =
            |different, runs| Played { different, runs, seconds: |job| 100 + job, lost: |_| false };
        for (control, variant, expected) in [
            (few(5, 1), few(40, 1), vec!["Too few jobs to tell: 5 on the control side and 40"]),
            (few(2, 50), few(40, 1), vec!["the control side has only 2 different jobs"]),
            (
                few(1, 50),
                few(3, 50),
                vec!["the control side has only 1", "the variant side has only 3"],
            ),
            (few(20, 2), few(0, 0), vec!["Too few jobs to tell: 40 on the control side and 0"]),
        ] {
            let summary = summary(&control, &variant);
            let comparison = &summary.comparisons[0];
            assert_eq!(comparison.warnings.len(), expected.len(), "{:?}", comparison.warnings);
            for (warning, expected) in comparison.warnings.iter().zip(expected) {
                assert!(warning.contains(expected), "{warning}");
            }
            assert_eq!(comparison.cost_usd.verdict, Verdict::TooFew);
        }
    }

    #[test]
    fn a_difference_within_chance_is_told_so() {
        let wide =
            |seconds: fn(u64) -> u64| Played { different: 30, runs: 2, seconds, lost: |_| false };
        let summary = summary(&wide(|job| 100 + 40 * (job % 5)), &wide(|job| 105 + 40 * (job % 5)));
        let comparison = &summary.comparisons[0];
        assert_eq!(comparison.seconds.verdict, Verdict::MayBeChance);
        assert_eq!(comparison.lost.verdict, Verdict::MayBeChance);
        assert_eq!(comparison.lost.interval, Some((0.0, 0.0)));
    }
}
