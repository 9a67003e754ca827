//! What a stopped task means, and the question to the backend when one no longer answers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use super::{Context, launch};
use crate::backend::{self, Cause, Phase, Stopped, TaskStatus};
use crate::failure::{Failure, Report};
use crate::placement::size::{self, Size};
use crate::state::{Attempt, Outcome, OutcomeKind, State};

/// ECS learns of a container's end some seconds later than the connection does.
const PATIENCE: Duration = Duration::from_secs(12);

/// Of the whole question.
const LIMIT: Duration = Duration::from_secs(25);

const FIRST_GAP: Duration = Duration::from_millis(250);
const LONGEST_GAP: Duration = Duration::from_secs(2);

/// The agent ends its task on time, ECS says so later, and clocks differ.
const DEADLINE_SLACK: SignedDuration = SignedDuration::from_secs(30);

/// The status of a container that was killed, as a shell says it: 128 + SIGKILL.
const KILLED: i32 = 137;

/// `what`, with everything that the backend says about why.
pub(super) fn report(what: &str, stopped: &Stopped) -> Report {
    let mut report = Report::new(what);
    report.causes.push(match stopped.code.as_str() {
        "" => stopped.reason.clone(),
        code => format!("{code}: {}", stopped.reason),
    });
    for container in &stopped.containers {
        let ended = match container.exit_code {
            Some(code) => format!("ended with exit code {code}"),
            None => "has no exit code".to_owned(),
        };
        let reason = match container.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        report.causes.push(format!("container {} {ended}{reason}", container.name));
    }
    report
}

/// The same for the record.
pub(super) fn outcome(stopped: &Stopped) -> Outcome {
    let detail = format!("{}: {}", stopped.code, stopped.reason);
    let kind = match stopped.cause {
        Cause::OutOfMemory => OutcomeKind::OutOfMemory,
        Cause::SpotGone => OutcomeKind::SpotInterruption,
        Cause::NoCapacity => OutcomeKind::Capacity,
        _ => OutcomeKind::Other,
    };
    Outcome { kind, detail }
}

/// Asks the backend why the task no longer answers, before `failure` is reported.
pub(super) async fn diagnose(
    context: &Context,
    state: &State,
    attempt: &mut Attempt,
    failure: Failure,
) -> Failure {
    let Some(seen) = timeout(LIMIT, ended(context, state, attempt)).await.ok().flatten() else {
        return failure;
    };
    let stopped = seen.stopped.clone().unwrap_or_default();
    attempt.outcome = Some(outcome(&stopped));
    if let Some(launch) = &mut attempt.launch {
        launch.last_seen = Some(seen);
    }
    // The job log matters more than the record.
    if let Err(error) = state.save(attempt) {
        Report::of(&error).print();
    }
    let size = attempt.launched_placement().map(|placement| placement.size);
    verdict(&stopped, size, attempt.deadline, Timestamp::now())
}

/// The task's end as the backend tells it; `None` when it tells of none.
async fn ended(context: &Context, state: &State, attempt: &Attempt) -> Option<TaskStatus> {
    let task = attempt.launch.as_ref()?.task.as_ref()?;
    let cluster = context.cluster(&attempt.launched_placement()?.cluster).ok()?;
    let facts = launch::session_facts(context, attempt);
    let backend = backend::open_for(cluster, state.directory(), &facts).await;
    let began = Instant::now();
    let mut gap = FIRST_GAP;
    loop {
        // A failed look is no reason to give up: the next one may succeed.
        let seen = backend.describe(task).await.ok().flatten();
        let is_told = seen.as_ref().is_some_and(is_whole_story);
        if is_told || began.elapsed() >= PATIENCE {
            return seen.filter(|seen| seen.stopped.is_some());
        }
        sleep(gap).await;
        gap = (gap * 2).min(LONGEST_GAP);
    }
}

/// Whether nothing that matters is to come: exit codes and reasons follow the order to stop.
fn is_whole_story(seen: &TaskStatus) -> bool {
    seen.stopped.as_ref().is_some_and(|stopped| {
        seen.phase == Phase::Stopped
            || matches!(stopped.cause, Cause::SpotGone | Cause::Stopped | Cause::OutOfMemory)
            || stopped.containers.iter().any(|container| container.exit_code.is_some())
    })
}

/// What a task's end while a script ran means for the job.
fn verdict(stopped: &Stopped, size: Option<Size>, deadline: Timestamp, now: Timestamp) -> Failure {
    let mut report = report("the task was lost while the script ran", stopped);
    let is_ours = stopped.reason.starts_with("Pointsman: ");
    let is_overdue = now.duration_since(deadline) >= -DEADLINE_SLACK;
    let (what, hint) = match stopped.cause {
        // The job's own doing (AWS words it so too): running it again with as much memory would end alike.
        Cause::OutOfMemory => {
            report.causes.insert(0, "it used more memory than it has".to_owned());
            report.hint(memory_hint(size)).print();
            return Failure::Script(KILLED);
        }
        Cause::SpotGone => (
            "Spot took the task back",
            "`retry: { max: 2, when: runner_system_failure }` runs the job again, and the policies then know why",
        ),
        Cause::Stopped if is_ours => {
            ("Pointsman stopped it", "look at who runs `pointsman sweep`, and at the job's timeout")
        }
        Cause::Stopped => (
            "somebody stopped the task",
            "ask whoever may stop tasks in this account; CloudTrail has the name",
        ),
        Cause::ContainerEnded if is_overdue => (
            "the task reached its deadline, which is the job's timeout and some minutes",
            "raise the job's `timeout` if it needs longer",
        ),
        Cause::ContainerEnded => (
            "its container ended while the script ran",
            "look at the container's log: did the script end the SSH server?",
        ),
        _ => (
            "the infrastructure under the task failed",
            "`retry: { max: 2, when: runner_system_failure }` runs the job again",
        ),
    };
    report.causes.insert(0, what.to_owned());
    Failure::System(report.hint(hint))
}

fn memory_hint(size: Option<Size>) -> String {
    let Some(size) = size.filter(|size| !size.is_own()) else {
        return "give the job more memory, in the ECS task definition or by a policy".to_owned();
    };
    let more = Some(size.memory_mib.saturating_add(1));
    match size::fit(Some(size.cpu_units), more, Size::DEFAULT, Size::LARGEST) {
        Ok(next) => {
            format!("it had {size}: ask for more, the next size that Fargate offers is {next}")
        }
        Err(_) => format!("it had {size}, the most that Fargate offers: make the job smaller"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::StoppedContainer;

    fn ended(cause: Cause, reason: &str, size: Size, late: i64) -> Failure {
        let stopped = Stopped {
            cause,
            code: "Code".to_owned(),
            reason: reason.to_owned(),
            containers: vec![StoppedContainer {
                name: "ci".to_owned(),
                exit_code: Some(137),
                reason: String::new(),
            }],
        };
        let deadline = Timestamp::from_second(1_000_000).unwrap();
        let now = Timestamp::from_second(1_000_000 + late).unwrap();
        verdict(&stopped, Some(size), deadline, now)
    }

    #[test]
    fn whose_doing_a_loss_is() {
        for (cause, reason, late, expected) in [
            (Cause::SpotGone, "Your Spot Task was interrupted.", -900, "Spot took the task back"),
            (Cause::Stopped, "Task stopped by user", -900, "somebody stopped the task"),
            (Cause::Stopped, "Pointsman: overdue", -900, "Pointsman stopped it"),
            (Cause::ContainerEnded, "Essential container in task exited", -900, "container ended"),
            (Cause::ContainerEnded, "Essential container in task exited", 2, "its deadline"),
            (Cause::Infrastructure, "unhealthy", -900, "the infrastructure"),
            (Cause::Other, "?", -900, "the infrastructure"),
        ] {
            match ended(cause, reason, Size::DEFAULT, late) {
                Failure::System(report) => {
                    assert!(report.causes[0].contains(expected), "{cause:?}: {report:?}");
                    assert!(!report.hints.is_empty());
                }
                other => panic!("{cause:?}: {other:?}"),
            }
        }
        let out_of_memory = ended(Cause::OutOfMemory, "", Size::DEFAULT, -900);
        assert!(matches!(out_of_memory, Failure::Script(137)), "{out_of_memory:?}");
    }

    #[test]
    fn the_next_size_is_one_that_fargate_offers() {
        for (cpu_units, memory_mib, expected) in [
            (
                256,
                512,
                "it had 0.25 vCPU / 0.5 GiB: ask for more, the next size that Fargate offers is 0.25 vCPU / 1 GiB",
            ),
            (
                256,
                2048,
                "it had 0.25 vCPU / 2 GiB: ask for more, the next size that Fargate offers is 0.5 vCPU / 3 GiB",
            ),
            (
                32_768,
                249_856,
                "it had 32 vCPU / 244 GiB, the most that Fargate offers: make the job smaller",
            ),
        ] {
            assert_eq!(memory_hint(Some(Size { cpu_units, memory_mib })), expected);
        }
    }

    #[test]
    fn what_the_next_attempt_learns() {
        for (cause, expected) in [
            (Cause::SpotGone, OutcomeKind::SpotInterruption),
            (Cause::OutOfMemory, OutcomeKind::OutOfMemory),
            (Cause::NoCapacity, OutcomeKind::Capacity),
            (Cause::Stopped, OutcomeKind::Other),
        ] {
            let stopped = Stopped { cause, ..Stopped::default() };
            assert_eq!(outcome(&stopped).kind, expected);
        }
    }
}
