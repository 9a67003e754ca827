//! A backend whose calls wait for their share of the API's request budget, and are repeated where that is
//! safe and nobody needs to hear of it.
//!
//! A launch is not repeated here: `prepare` does that, with a line in the job log for each step.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::budget::{Bucket, Budget};
use super::{BackendError, Cause, LaunchRequest, OwnedTask, TaskBackend, TaskId, TaskStatus};

const RUN: &[Bucket] = &[Bucket::Run, Bucket::Modify];
const STOP: &[Bucket] = &[Bucket::Modify];
const READ: &[Bucket] = &[Bucket::Read];

/// Of a call that AWS refuses as one of too many.
const REFUSALS: u32 = 8;

/// Of a call that AWS fails or does not answer.
const FAILURES: u32 = 4;

/// What DescribeTasks takes in one call, and a page of ListTasks has.
const TOGETHER: usize = 100;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// `backend` within `budget`.
#[derive(Debug)]
pub(super) struct Patient<B> {
    pub(super) backend: B,
    pub(super) budget: Budget,
}

impl<B: TaskBackend> Patient<B> {
    /// Notes a refusal for all processes.
    fn heard<T>(
        &self,
        buckets: &[Bucket],
        answer: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if answer.as_ref().is_err_and(|error| error.cause == Cause::Throttled) {
            self.budget.refused(buckets);
        }
        answer
    }

    /// The pause before a call is repeated after its failure number `failures`; `None` when it is not.
    async fn pause_after(&self, failures: u32, error: &BackendError) -> Option<()> {
        let limit = match error.cause {
            Cause::Throttled => REFUSALS,
            Cause::Server | Cause::NoAnswer => FAILURES,
            _ => 0,
        };
        if failures >= limit {
            return None;
        }
        sleep(pause(failures, rand::random_range(0.5..=1.0))).await;
        Some(())
    }
}

/// Doubling, and apart from those of others that failed at the same moment.
pub(crate) fn pause(failures: u32, jitter: f64) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LONGEST_PAUSE)
        .mul_f64(jitter)
}

#[async_trait]
impl<B: TaskBackend> TaskBackend for Patient<B> {
    fn launch_turn(&self) -> Duration {
        self.budget.take(RUN)
    }

    fn reads_a_second(&self) -> f64 {
        self.budget.rate(Bucket::Read)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<TaskId, BackendError> {
        let answer = self.backend.launch(request).await;
        self.heard(RUN, answer)
    }

    async fn describe_many(
        &self,
        tasks: &[TaskId],
    ) -> Result<Vec<(TaskId, TaskStatus)>, BackendError> {
        let mut found = Vec::new();
        for some in tasks.chunks(TOGETHER) {
            sleep(self.budget.take(READ)).await;
            let answer = self.backend.describe_many(some).await;
            found.extend(self.heard(READ, answer)?);
        }
        Ok(found)
    }

    async fn stop(&self, task: &TaskId, reason: &str) -> Result<Option<TaskStatus>, BackendError> {
        let mut failures = 0;
        loop {
            sleep(self.budget.take(STOP)).await;
            let answer = self.backend.stop(task, reason).await;
            match self.heard(STOP, answer) {
                Ok(status) => return Ok(status),
                Err(error) => {
                    failures += 1;
                    self.pause_after(failures, &error).await.ok_or(error)?;
                }
            }
        }
    }

    async fn list(&self, started_by: &str) -> Result<Vec<OwnedTask>, BackendError> {
        let mut failures = 0;
        loop {
            // Two calls for every hundred tasks; the first page's are counted.
            sleep(self.budget.take(READ).max(self.budget.take(READ))).await;
            let answer = self.backend.list(started_by).await;
            match self.heard(READ, answer) {
                Ok(tasks) => {
                    // How many pages there were is known only now: those who come next wait for them.
                    for _ in 1..tasks.len().div_ceil(TOGETHER) {
                        let _ = self.budget.take(READ).max(self.budget.take(READ));
                    }
                    return Ok(tasks);
                }
                Err(error) => {
                    failures += 1;
                    self.pause_after(failures, &error).await.ok_or(error)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::backend::Phase;

    /// Owns this many tasks, and notes how many it is asked for.
    #[derive(Debug)]
    struct Counting {
        owned: usize,
        asked: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl TaskBackend for Counting {
        async fn launch(&self, _: &LaunchRequest) -> Result<TaskId, BackendError> {
            Err(BackendError::new("RunTask", "none", "none"))
        }

        async fn describe_many(
            &self,
            tasks: &[TaskId],
        ) -> Result<Vec<(TaskId, TaskStatus)>, BackendError> {
            self.asked.lock().unwrap().push(tasks.len());
            Ok(Vec::new())
        }

        async fn stop(&self, _: &TaskId, _: &str) -> Result<Option<TaskStatus>, BackendError> {
            Ok(None)
        }

        async fn list(&self, _: &str) -> Result<Vec<OwnedTask>, BackendError> {
            let task = |number| OwnedTask {
                id: TaskId(format!("task-{number}")),
                tags: [].into(),
                created_at: None,
                phase: Phase::Running,
                is_hidden: false,
            };
            Ok((0..self.owned).map(task).collect())
        }
    }

    #[tokio::test]
    async fn each_call_of_a_long_look_and_of_a_long_list_counts() {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::open(directory.path(), "account", 1).unwrap();
        let backend = Counting { owned: 4050, asked: Mutex::default() };
        let patient = Patient { backend, budget };
        let tasks: Vec<TaskId> = (0..250).map(|number| TaskId(number.to_string())).collect();
        patient.describe_many(&tasks).await.unwrap();
        assert_eq!(*patient.backend.asked.lock().unwrap(), [100, 100, 50]);
        assert_eq!(patient.list("me").await.unwrap().len(), 4050);
        // 3 and 2 for each of 41 pages, of a bucket of 80; a little has been refilled meanwhile.
        let wait = patient.budget.take(READ);
        assert!(wait > Duration::ZERO, "{wait:?}");
    }

    #[test]
    fn pauses_double_up_to_8_s() {
        for (failures, expected) in [(1, 250), (2, 500), (3, 1000), (6, 8000), (40, 8000)] {
            assert_eq!(pause(failures, 1.0), Duration::from_millis(expected), "{failures}");
        }
    }
}
