//! AWS's token buckets, which all callers of an account share: pure.
//!
//! API reference, "Request throttling for the Amazon ECS API"; developer guide, "AWS Fargate throttling quotas".

use std::time::Duration;

/// Burst, and tokens a second.
type Rate = (f64, f64);

/// RunTask, StartTask, StopTask, ExecuteCommand.
const RESOURCE_MODIFY: Rate = (100.0, 40.0);
/// DescribeTasks, ListTasks.
const RESOURCE_READ: Rate = (100.0, 20.0);
/// RegisterTaskDefinition, DeregisterTaskDefinition.
const DEFINITION_MODIFY: Rate = (20.0, 1.0);
/// DescribeTaskDefinition, ListTaskDefinitions.
const DEFINITION_READ: Rate = (50.0, 20.0);
/// Fargate's own limit on calls of RunTask.
const FARGATE_RUN_TASK: Rate = (20.0, 20.0);
/// Tasks, not calls; on-demand and Spot have a bucket each.
const FARGATE_LAUNCHES: Rate = (100.0, 20.0);

/// Fills by itself, and is emptied by calls.
#[derive(Debug)]
struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    fn new((burst, per_second): Rate, scale: f64) -> Self {
        let burst = burst * scale;
        Self { burst, per_second, tokens: burst, filled_at: Duration::ZERO }
    }

    fn fill(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.filled_at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled_at = self.filled_at.max(now);
    }
}

/// All buckets of an account in a region.
#[derive(Debug)]
pub(crate) struct Throttle {
    enforced: bool,
    resource_modify: Bucket,
    resource_read: Bucket,
    definition_modify: Bucket,
    definition_read: Bucket,
    fargate_run_task: Bucket,
    on_demand_launches: Bucket,
    spot_launches: Bucket,
}

impl Throttle {
    /// Full buckets. Times are simulated, so buckets fill `scale` times faster by themselves; their burst is as many
    /// times larger, or a tenth of a second's calls would have to fit into what AWS grants for a whole one.
    pub(crate) fn new(enforced: bool, scale: f64) -> Self {
        Self {
            enforced,
            resource_modify: Bucket::new(RESOURCE_MODIFY, scale),
            resource_read: Bucket::new(RESOURCE_READ, scale),
            definition_modify: Bucket::new(DEFINITION_MODIFY, scale),
            definition_read: Bucket::new(DEFINITION_READ, scale),
            fargate_run_task: Bucket::new(FARGATE_RUN_TASK, scale),
            on_demand_launches: Bucket::new(FARGATE_LAUNCHES, scale),
            spot_launches: Bucket::new(FARGATE_LAUNCHES, scale),
        }
    }

    /// Whether a call may pass at the simulated time `now`; a call that may not costs nothing.
    pub(crate) fn admits(&mut self, operation: &str, fargate: bool, now: Duration) -> bool {
        match operation {
            "RunTask" if fargate => take(
                self.enforced,
                &mut [&mut self.resource_modify, &mut self.fargate_run_task],
                1.0,
                now,
            ),
            "RunTask" | "StopTask" | "StartTask" | "ExecuteCommand" => {
                take(self.enforced, &mut [&mut self.resource_modify], 1.0, now)
            }
            "DescribeTasks" | "ListTasks" => {
                take(self.enforced, &mut [&mut self.resource_read], 1.0, now)
            }
            "RegisterTaskDefinition" | "DeregisterTaskDefinition" => {
                take(self.enforced, &mut [&mut self.definition_modify], 1.0, now)
            }
            "DescribeTaskDefinition" | "ListTaskDefinitions" => {
                take(self.enforced, &mut [&mut self.definition_read], 1.0, now)
            }
            _ => true,
        }
    }

    /// Whether Fargate launches `n` tasks at the simulated time `now`.
    pub(crate) fn launches(&mut self, spot: bool, n: usize, now: Duration) -> bool {
        let bucket = if spot { &mut self.spot_launches } else { &mut self.on_demand_launches };
        take(self.enforced, &mut [bucket], n as f64, now)
    }
}

/// Takes from all buckets or, where one has too little, from none.
fn take(enforced: bool, buckets: &mut [&mut Bucket], tokens: f64, now: Duration) -> bool {
    for bucket in buckets.iter_mut() {
        bucket.fill(now);
    }
    if !enforced {
        return true;
    }
    let enough = buckets.iter().all(|bucket| bucket.tokens >= tokens);
    if enough {
        buckets.iter_mut().for_each(|bucket| bucket.tokens -= tokens);
    }
    enough
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Throttle;

    /// How many of many calls pass at `now`.
    fn passing(throttle: &mut Throttle, operation: &str, fargate: bool, now: u64) -> usize {
        let now = Duration::from_secs(now);
        (0..10_000).take_while(|_| throttle.admits(operation, fargate, now)).count()
    }

    #[test]
    fn every_bucket_has_its_burst_and_its_refill() {
        for (operation, fargate, burst, refill) in [
            ("RunTask", true, 20, 20),
            ("RunTask", false, 100, 40),
            ("StopTask", false, 100, 40),
            ("DescribeTasks", false, 100, 20),
            ("ListTasks", false, 100, 20),
            ("RegisterTaskDefinition", false, 20, 1),
            ("DescribeTaskDefinition", false, 50, 20),
        ] {
            let mut throttle = Throttle::new(true, 1.0);
            assert_eq!(passing(&mut throttle, operation, fargate, 0), burst, "{operation}");
            assert_eq!(passing(&mut throttle, operation, fargate, 1), refill, "{operation}");
            assert_eq!(passing(&mut throttle, operation, fargate, 3600), burst, "{operation}");
        }
    }

    #[test]
    fn operations_share_buckets() {
        let mut throttle = Throttle::new(true, 1.0);
        assert_eq!(passing(&mut throttle, "DescribeTasks", false, 0), 100);
        assert!(!throttle.admits("ListTasks", false, Duration::ZERO));
        assert_eq!(passing(&mut throttle, "StopTask", false, 0), 100);
        assert!(!throttle.admits("RunTask", false, Duration::ZERO));
        // A refused call has taken nothing from Fargate's bucket either.
        assert!(!throttle.admits("RunTask", true, Duration::ZERO));
        assert_eq!(passing(&mut throttle, "RunTask", true, 10), 20);
    }

    #[test]
    fn launches_count_tasks_and_tell_spot_apart() {
        let mut throttle = Throttle::new(true, 1.0);
        let bursts = |throttle: &mut Throttle, spot| {
            (0..100).take_while(|_| throttle.launches(spot, 10, Duration::ZERO)).count()
        };
        assert_eq!(bursts(&mut throttle, false), 10);
        assert_eq!(bursts(&mut throttle, true), 10);
        assert!(throttle.launches(true, 10, Duration::from_millis(500)));
        assert!(!throttle.launches(true, 1, Duration::from_millis(500)));
    }

    #[test]
    fn a_scale_makes_buckets_larger() {
        let mut throttle = Throttle::new(true, 10.0);
        assert_eq!(passing(&mut throttle, "RunTask", true, 0), 200);
        assert_eq!(passing(&mut throttle, "RunTask", true, 10), 200);
    }

    #[test]
    fn unenforced_everything_passes() {
        let mut throttle = Throttle::new(false, 1.0);
        assert_eq!(passing(&mut throttle, "RegisterTaskDefinition", false, 0), 10_000);
        assert!(throttle.launches(true, 1_000, Duration::ZERO));
    }
}
