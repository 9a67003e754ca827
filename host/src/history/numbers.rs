//! Percentiles, and whether two rates differ by more than chance. Pure.

use serde::Serialize;

/// What lies within this many standard errors is left to chance: 19 times out of 20 for many clusters.
const ERRORS: f64 = 1.96;

/// Of times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them took as long or less.
    pub median: f64,
    /// 19 out of 20 did.
    pub p95: f64,
}

impl Spread {
    /// Of `samples`, in any order; `None` of none. Nearest rank, so each is a time that was measured.
    pub fn of(samples: &mut [f32]) -> Option<Self> {
        samples.sort_unstable_by(f32::total_cmp);
        Some(Self { median: at(samples, 50)?, p95: at(samples, 95)? })
    }
}

/// The smallest of the sorted `samples` that `percent` of them do not exceed.
fn at(samples: &[f32], percent: usize) -> Option<f64> {
    let rank = (samples.len() * percent).div_ceil(100).max(1);
    samples.get(rank - 1).copied().map(f64::from)
}

/// What the runs of one job (by its name) came to together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cluster {
    /// How many.
    pub runs: f64,
    /// Their sum of what is compared.
    pub sum: f64,
}

/// A mean for each run, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mean {
    pub value: f64,
    /// Squared standard error; `None` of fewer than two clusters.
    variance: Option<f64>,
}

impl Mean {
    /// Of `clusters`; `None` without a run.
    ///
    /// The runs of one job are alike, so a hundred runs of two jobs say little about a third: the error is that of a
    /// ratio estimated from clusters (Cochran, Sampling Techniques, 3rd edition, section 6.4).
    pub(super) fn of(clusters: impl Iterator<Item = Cluster> + Clone) -> Option<Self> {
        let (mut n, mut runs, mut sum) = (0.0, 0.0, 0.0);
        for cluster in clusters.clone().filter(|cluster| cluster.runs > 0.0) {
            n += 1.0;
            runs += cluster.runs;
            sum += cluster.sum;
        }
        if runs == 0.0 {
            return None;
        }
        let value = sum / runs;
        let squares: f64 = clusters
            .filter(|cluster| cluster.runs > 0.0)
            .map(|cluster| (cluster.sum - value * cluster.runs).powi(2))
            .sum();
        let variance = (n > 1.0).then(|| n / (n - 1.0) * squares / (runs * runs));
        Some(Self { value, variance })
    }

    /// From and to: where `self` minus `other` lies by 19 chances out of 20.
    pub(super) fn minus(self, other: Self) -> Option<(f64, f64)> {
        let error = ERRORS * (self.variance? + other.variance?).sqrt();
        let difference = self.value - other.value;
        Some((difference - error, difference + error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values_of_the_nearest_rank() {
        let hundred: Vec<f32> = (1..=100_u8).rev().map(f32::from).collect();
        for (samples, expected) in [
            (vec![], None),
            (vec![7.5], Some((7.5, 7.5))),
            (vec![2.0, 1.0], Some((1.0, 2.0))),
            (vec![3.0, 1.0, 2.0], Some((2.0, 3.0))),
            (vec![4.0, 1.0, 3.0, 2.0], Some((2.0, 4.0))),
            (hundred, Some((50.0, 95.0))),
            ((1..=20_u8).map(f32::from).collect(), Some((10.0, 19.0))),
            ((1..=21_u8).map(f32::from).collect(), Some((11.0, 20.0))),
        ] {
            let mut samples = samples;
            let spread = Spread::of(&mut samples).map(|spread| (spread.median, spread.p95));
            assert_eq!(spread, expected, "{samples:?}");
        }
    }

    fn mean(clusters: &[(f64, f64)]) -> Option<Mean> {
        Mean::of(clusters.iter().map(|&(runs, sum)| Cluster { runs, sum }))
    }

    #[test]
    fn a_mean_is_for_each_run_and_its_error_for_each_job() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[(0.0, 0.0)]), None);
        assert_eq!(mean(&[(10.0, 20.0)]), Some(Mean { value: 2.0, variance: None }));
        // With one run a job it is the usual standard error: values 1, 2, 3 have the variance 1, of three.
        let three = mean(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]).unwrap();
        assert!((three.value - 2.0).abs() < 1e-12);
        assert!((three.variance.unwrap() - 1.0 / 3.0).abs() < 1e-12);
        // A hundred runs each of the same three jobs are no surer.
        let many = mean(&[(100.0, 100.0), (100.0, 200.0), (100.0, 300.0)]).unwrap();
        assert!((many.variance.unwrap() - 1.0 / 3.0).abs() < 1e-12);
        // By hand: 2 runs of 1 and 1 run of 4 have the mean 2; 2/1 · ((2-4)² + (4-2)²) / 9.
        let uneven = mean(&[(2.0, 2.0), (1.0, 4.0)]).unwrap();
        assert!((uneven.value - 2.0).abs() < 1e-12);
        assert!((uneven.variance.unwrap() - 16.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn a_difference_has_an_interval_where_both_sides_have_an_error() {
        let one = mean(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]).unwrap();
        let (from, to) = one.minus(one).unwrap();
        let error = 1.96 * (2.0_f64 / 3.0).sqrt();
        assert!((from + error).abs() < 1e-12 && (to - error).abs() < 1e-12);
        assert_eq!(one.minus(mean(&[(5.0, 5.0)]).unwrap()), None);
    }
}
