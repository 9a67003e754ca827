//! What the log for operators says of a stage: whose its lines are, and how it ended.

use std::time::Instant;

use tracing::field::Empty;

use super::{Context, Stage};
use crate::failure::Failure;
use crate::output;
use crate::state::AttemptId;

/// Runs `stage` by `run`. All lines of the log are its, until it ends: a stage has one thread. Where the log is the
/// job log, everybody knows whose it is, and GitLab Runner tells how a stage ended.
pub(super) fn kept(
    stage: &Stage,
    context: &Context,
    run: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    if !output::notes_are_copied() {
        return run();
    }
    let began = Instant::now();
    // Of the highest level, so that it is there for every line that is.
    let span = tracing::error_span!(
        "job",
        stage = stage.name(),
        script = Empty,
        attempt = Empty,
        pid = std::process::id()
    );
    if let Stage::Run { sub_stage, .. } = stage {
        span.record("script", output::printable(sub_stage));
    }
    let attempt = context.environment.attempt.as_deref().map(AttemptId::parse);
    if let Some(Ok(attempt)) = attempt {
        span.record("attempt", tracing::field::display(attempt));
    }
    span.in_scope(|| {
        let ended = run();
        let seconds = began.elapsed().as_secs_f64();
        match &ended {
            Ok(()) => tracing::info!(seconds, "the stage has succeeded"),
            Err(Failure::Script(status)) => {
                tracing::info!(seconds, status, "the job's script has failed");
            }
            Err(Failure::Build(report)) => {
                tracing::info!(
                    seconds,
                    error = report.error,
                    "the job cannot have what it asks for"
                );
            }
            Err(Failure::System(report)) => tracing::error!(
                seconds,
                error = report.error,
                causes = report.causes.join("; "),
                hints = report.hints.join("; "),
                "the stage has failed"
            ),
        }
        ended
    })
}

/// From here on, lines are of this attempt: in `config`, which makes it.
pub(super) fn is_of(attempt: &AttemptId) {
    tracing::Span::current().record("attempt", tracing::field::display(attempt));
}
