//! Which job may start when: stages, `needs`, `when`, `allow_failure`, `retry`. Pure.

use super::pipeline::{AllowFailure, Job, Pipeline, Retry, When};
use super::runner::{JobFailure, Reason};

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing has happened.
    Waiting,
    /// It runs.
    Running,
    /// It worked.
    Success,
    /// It failed; `allowed` failures do not fail the pipeline.
    Failed { allowed: bool },
    /// It does not run. A `blocking` one holds up the stages after it.
    Skipped { why: String, blocking: bool },
    /// No profile takes its tags.
    Stuck,
}

impl State {
    fn ended(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }

    /// Whether what comes after takes it for a failure.
    fn bad(&self) -> bool {
        matches!(self, Self::Failed { allowed: false } | Self::Stuck)
    }
}

/// What to do with a waiting job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What it waits for has not ended.
    Wait,
    /// It can run.
    Run,
    /// It will never run.
    Skip { why: String, blocking: bool },
}

/// What to do with the waiting job at `index`.
pub(super) fn verdict(pipeline: &Pipeline, states: &[State], index: usize) -> Verdict {
    let Some(job) = pipeline.jobs.get(index) else { return Verdict::Wait };
    let before: Vec<(&Job, &State)> = pipeline
        .jobs
        .iter()
        .zip(states)
        .filter(|(other, _)| match &job.needs {
            Some(needs) => needs.iter().any(|need| need.job == other.name),
            None => stage_of(pipeline, other) < stage_of(pipeline, job),
        })
        .collect();
    let skip = |why: String, blocking| Verdict::Skip { why, blocking };
    match job.when {
        // These never run, so there is nothing to wait for; what blocks is told apart.
        When::Manual => {
            let blocking = job.allow_failure == AllowFailure::No;
            return skip("manual: nobody starts it in a rehearsal".to_owned(), blocking);
        }
        When::Delayed => {
            return skip("delayed: a rehearsal does not wait for it".to_owned(), true);
        }
        When::Never => return skip("`when: never`".to_owned(), false),
        When::OnSuccess | When::OnFailure | When::Always => {}
    }
    if before.iter().any(|(_, state)| !state.ended()) {
        return Verdict::Wait;
    }
    if let Some((held_by, _)) =
        before.iter().find(|(_, state)| matches!(state, State::Skipped { blocking: true, .. }))
    {
        return skip(format!("`{}` before it did not run", held_by.name), true);
    }
    let failed = before.iter().find(|(_, state)| state.bad());
    match (job.when, failed) {
        (When::OnFailure, None) => skip("nothing before it failed".to_owned(), false),
        (When::OnSuccess, Some((failed, _))) => {
            skip(format!("`{}` before it failed", failed.name), false)
        }
        (When::OnSuccess, None) => {
            // A needed job that was skipped leaves nothing to build on.
            let missing = before.iter().find(|(_, state)| matches!(state, State::Skipped { .. }));
            match (&job.needs, missing) {
                (Some(_), Some((missing, _))) => {
                    skip(format!("`{}`, which it needs, did not run", missing.name), false)
                }
                _ => Verdict::Run,
            }
        }
        _ => Verdict::Run,
    }
}

fn stage_of(pipeline: &Pipeline, job: &Job) -> Option<usize> {
    pipeline.stages.iter().position(|stage| *stage == job.stage)
}

/// The jobs whose artifacts `job` fetches, by index, if they left any.
pub(super) fn artifact_sources(pipeline: &Pipeline, job: &Job) -> Vec<usize> {
    let wanted = |other: &Job| match (&job.dependencies, &job.needs) {
        (Some(names), _) => {
            names.contains(&other.name)
                && job.needs.as_ref().is_none_or(|needs| {
                    needs.iter().any(|need| need.job == other.name && need.artifacts)
                })
        }
        (None, Some(needs)) => needs.iter().any(|need| need.job == other.name && need.artifacts),
        (None, None) => stage_of(pipeline, other) < stage_of(pipeline, job),
    };
    pipeline
        .jobs
        .iter()
        .enumerate()
        .filter(|(_, other)| wanted(other))
        .map(|(index, _)| index)
        .collect()
}

/// Whether `allow_failure` covers this failure.
pub(super) fn allowed(allow: &AllowFailure, failure: &JobFailure) -> bool {
    match allow {
        AllowFailure::No => false,
        AllowFailure::Yes => failure.reason != Reason::JobCanceled,
        AllowFailure::ExitCodes(codes) => {
            failure.exit_code.is_some_and(|code| codes.contains(&code))
        }
    }
}

/// Whether the job is tried again after `tries` tries, the failed one included.
pub(super) fn again(retry: &Retry, failure: &JobFailure, tries: u32) -> bool {
    if tries > retry.max || failure.reason == Reason::JobCanceled {
        return false;
    }
    if retry.when.is_empty() && retry.exit_codes.is_empty() {
        return true;
    }
    let word = failure.reason.word();
    let named = retry.when.iter().any(|reason| {
        reason == "always"
            || reason == word
            || (reason == "stuck_or_timeout_failure"
                && failure.reason == Reason::JobExecutionTimeout)
    });
    named || failure.exit_code.is_some_and(|code| retry.exit_codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::pipeline;

    fn pipeline(text: &str) -> Pipeline {
        let mut include = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        pipeline::parse(std::path::Path::new("x"), text, &mut include).unwrap()
    }

    const OK: State = State::Success;
    const FAILED: State = State::Failed { allowed: false };
    const ALLOWED: State = State::Failed { allowed: true };

    fn skipped(blocking: bool) -> State {
        State::Skipped { why: String::new(), blocking }
    }

    fn told(verdict: Verdict) -> String {
        match verdict {
            Verdict::Wait => "wait".to_owned(),
            Verdict::Run => "run".to_owned(),
            Verdict::Skip { why, blocking } => {
                format!("{}{why}", if blocking { "block: " } else { "skip: " })
            }
        }
    }

    #[test]
    fn stages_are_waited_for() {
        let check = |keys: &str, before: [State; 2], expected: &str| {
            let pipeline = pipeline(&format!(
                "{{a: {{stage: build, script: x}}, b: {{stage: build, script: x}}, j: {{stage: test, script: x{keys}}}}}"
            ));
            let [a, b] = before;
            assert_eq!(told(verdict(&pipeline, &[a, b, State::Waiting], 2)), expected, "{keys}");
        };
        check("", [OK, OK], "run");
        check("", [OK, State::Running], "wait");
        check("", [FAILED, State::Running], "wait");
        check("", [OK, FAILED], "skip: `b` before it failed");
        check("", [OK, ALLOWED], "run");
        check("", [OK, State::Stuck], "skip: `b` before it failed");
        check("", [OK, skipped(false)], "run");
        check("", [OK, skipped(true)], "block: `b` before it did not run");
        check(", when: on_failure", [OK, OK], "skip: nothing before it failed");
        check(", when: on_failure", [OK, ALLOWED], "skip: nothing before it failed");
        check(", when: on_failure", [OK, FAILED], "run");
        check(", when: always", [FAILED, skipped(false)], "run");
        check(
            ", when: manual",
            [OK, State::Running],
            "skip: manual: nobody starts it in a rehearsal",
        );
        check(
            ", when: manual, allow_failure: false",
            [OK, OK],
            "block: manual: nobody starts it in a rehearsal",
        );
        check(
            ", when: delayed, start_in: 5m",
            [OK, OK],
            "block: delayed: a rehearsal does not wait for it",
        );
        check(", needs: [a]", [OK, State::Running], "run");
        check(", needs: [a]", [FAILED, OK], "skip: `a` before it failed");
        check(", needs: [a]", [skipped(false), OK], "skip: `a`, which it needs, did not run");
        check(", needs: []", [State::Running, State::Waiting], "run");
    }

    #[test]
    fn artifacts_come_from_what_a_job_depends_on() {
        let check = |keys: &str, expected: &[usize]| {
            let pipeline = pipeline(&format!(
                "{{a: {{stage: build, script: x}}, b: {{stage: build, script: x}}, j: {{script: x{keys}}}, k: {{script: x}}}}"
            ));
            assert_eq!(artifact_sources(&pipeline, &pipeline.jobs[2]), expected, "{keys}");
        };
        check("", &[0, 1]);
        check(", dependencies: [b]", &[1]);
        check(", dependencies: []", &[]);
        check(", needs: [a]", &[0]);
        check(", needs: [{job: a, artifacts: false}, b]", &[1]);
        check(", needs: [a, b], dependencies: [a]", &[0]);
    }

    #[test]
    fn failures_are_allowed_and_tried_again_as_told() {
        let failure = |reason, exit_code| JobFailure { reason, exit_code, message: String::new() };
        let script = failure(Reason::ScriptFailure, Some(42));
        let system = failure(Reason::RunnerSystemFailure, None);
        let timeout = failure(Reason::JobExecutionTimeout, None);
        let codes = AllowFailure::ExitCodes([42].into());
        assert!(allowed(&codes, &script) && !allowed(&codes, &system));
        assert!(allowed(&AllowFailure::Yes, &system) && !allowed(&AllowFailure::No, &script));

        let retry = |max, when: &[&str], codes: &[i32]| Retry {
            max,
            when: when.iter().map(|one| (*one).to_owned()).collect(),
            exit_codes: codes.iter().copied().collect(),
        };
        assert!(!again(&retry(0, &[], &[]), &script, 1));
        assert!(again(&retry(1, &[], &[]), &script, 1));
        assert!(!again(&retry(1, &[], &[]), &script, 2));
        assert!(!again(&retry(2, &["runner_system_failure"], &[]), &script, 1));
        assert!(again(&retry(2, &["runner_system_failure"], &[]), &system, 2));
        assert!(again(&retry(2, &["runner_system_failure"], &[42]), &script, 1));
        assert!(again(&retry(2, &["stuck_or_timeout_failure"], &[]), &timeout, 1));
        assert!(again(&retry(2, &["always"], &[]), &timeout, 1));
    }
}
