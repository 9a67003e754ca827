//! What a stopped task means: for the job log and for the next attempt's policies. Pure.

use crate::backend::Stopped;
use crate::failure::Report;
use crate::state::{Outcome, OutcomeKind};

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
            None => "never ran".to_owned(),
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
    Outcome { kind: kind(stopped), detail }
}

fn kind(stopped: &Stopped) -> OutcomeKind {
    let out_of_memory =
        stopped.containers.iter().any(|container| container.reason.contains("OutOfMemory"));
    match stopped.code.as_str() {
        _ if out_of_memory || stopped.reason.contains("OutOfMemory") => OutcomeKind::OutOfMemory,
        // `TerminationNotice` in older samples.
        "SpotInterruption" | "TerminationNotice" => OutcomeKind::SpotInterruption,
        _ if stopped.reason.contains("Capacity is unavailable") => OutcomeKind::Capacity,
        _ => OutcomeKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::StoppedContainer;

    #[test]
    fn why_a_task_stopped_is_told_apart() {
        let check = |code: &str, reason: &str, container: &str, expected| {
            let containers =
                vec![StoppedContainer { reason: container.into(), ..StoppedContainer::default() }];
            let stopped = Stopped { code: code.into(), reason: reason.into(), containers };
            assert_eq!(kind(&stopped), expected, "{code} {reason} {container}");
        };
        check(
            "SpotInterruption",
            "Your Spot Task was interrupted.",
            "",
            OutcomeKind::SpotInterruption,
        );
        check(
            "EssentialContainerExited",
            "Essential container in task exited",
            "OutOfMemoryError: Container killed due to memory usage",
            OutcomeKind::OutOfMemory,
        );
        check("UserInitiated", "Task stopped by user", "", OutcomeKind::Other);
    }
}
