//! `pointsman sweep` and `pointsman tasks`: what this manager runs, and what of it leaked.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Global, load};
use crate::failure::{Failure, Report};
use crate::output;
use crate::state::State;
use crate::sweep::{self, Finding, Found, GRACE, Options, Swept};

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

#[derive(Debug, Args)]
pub(super) struct SweepArguments {
    /// Tells what would be stopped, and stops nothing
    #[arg(long)]
    dry_run: bool,
    /// Leaves tasks alone that are younger, or whose job ended less long ago
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
    #[arg(long, value_enum, default_value = "text", help = "How the answer is written")]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct TasksArguments {
    #[arg(long, value_enum, default_value = "text", help = "How the answer is written")]
    format: Format,
}

/// Stops what leaked.
pub(super) fn sweep(global: &Global, arguments: &SweepArguments) -> Result<(), Failure> {
    let options = Options { dry_run: arguments.dry_run, grace: arguments.grace.unwrap_or(GRACE) };
    let Swept { found, unlisted } = find(global, options)?;
    match arguments.format {
        Format::Json => {
            print(&json!({ "dry_run": options.dry_run, "tasks": found }));
        }
        // Nothing is known then.
        Format::Text if found.is_empty() && !unlisted.is_empty() => {}
        Format::Text => output::result(&swept(&found, options.dry_run)),
    }
    whole(unlisted)?;
    let failed = found.iter().filter_map(|found| found.error.as_deref()).collect::<Vec<_>>();
    if failed.is_empty() {
        return Ok(());
    }
    let mut report = Report::new(format!("{} tasks could not be stopped", failed.len()));
    report.causes = failed.into_iter().map(str::to_owned).collect();
    Err(Failure::System(report.hint("the runner manager's IAM role needs ecs:StopTask")))
}

/// Lists what runs.
pub(super) fn tasks(global: &Global, arguments: &TasksArguments) -> Result<(), Failure> {
    let Swept { found, unlisted } = find(global, Options { dry_run: true, grace: GRACE })?;
    match arguments.format {
        Format::Json => print(&json!({ "tasks": found })),
        Format::Text if found.is_empty() && !unlisted.is_empty() => {}
        Format::Text => output::result(&table(&found)),
    }
    whole(unlisted)
}

/// Fails when a cluster could not be listed, after what is known of the others has been told.
fn whole(unlisted: Vec<Report>) -> Result<(), Failure> {
    let mut reports = unlisted.into_iter();
    let Some(mut first) = reports.next() else { return Ok(()) };
    for report in reports {
        first.causes.push(report.error);
        first.causes.extend(report.causes);
        first.hints.extend(report.hints);
    }
    Err(Failure::System(first))
}

fn find(global: &Global, options: Options) -> Result<Swept, Failure> {
    let settings = load(global)?;
    let state = State::open(&settings.state_directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::System(Report::of(&error)))?;
    runtime.block_on(sweep::sweep(&settings, &state, options))
}

fn print(value: &serde_json::Value) {
    output::result(&format!("{value:#}\n"));
}

fn swept(found: &[Found], dry_run: bool) -> String {
    let mut text = String::new();
    let leaks: Vec<&Found> = found.iter().filter(|found| found.finding.is_leak()).collect();
    for leak in &leaks {
        let done = match (dry_run, &leak.error) {
            (true, _) => "would be stopped",
            (false, None) => "was told to stop",
            (false, Some(_)) => "could not be stopped",
        };
        let (task, job, why) = (&leak.task, known(&leak.job), leak.finding.words());
        let _ = writeln!(text, "{task} (job {job}) {done}: {why}.");
    }
    let _ = writeln!(text, "{} tasks found, {} leaked.", found.len(), leaks.len());
    let hidden = found.iter().filter(|found| found.finding == Finding::Hidden).count();
    if hidden > 0 {
        let _ = writeln!(
            text,
            "{hidden} of them may not be looked at by this manager's own session: allow it ecs:DescribeTasks and ecs:StopTask on tasks with its tag `pointsman:manager`."
        );
    }
    text
}

fn table(found: &[Found]) -> String {
    if found.is_empty() {
        return "No task of this manager runs.\n".to_owned();
    }
    let mut rows = vec![
        ["CLUSTER", "TASK", "PHASE", "JOB", "PROJECT", "PROFILE", "DEADLINE", ""]
            .map(str::to_owned),
    ];
    for each in found {
        rows.push([
            each.cluster.clone(),
            each.task.rsplit('/').next().unwrap_or(&each.task).to_owned(),
            each.phase.to_string(),
            known(&each.job).to_owned(),
            known(&each.project).to_owned(),
            known(&each.profile).to_owned(),
            each.deadline.map_or_else(|| "?".to_owned(), |at| format!("{at:.0}")),
            each.finding.words().to_owned(),
        ]);
    }
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{:width$}  ", output::printable(cell));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn known(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("?")
}
