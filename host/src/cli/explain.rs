//! `pointsman explain` on the command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::policy::{Format, pretty, table};
use super::{Global, load};
use crate::authoring::explain::{self, Assumed, Explained};
use crate::authoring::provenance::Reading;
use crate::failure::{Failure, Report, guard};
use crate::job::response;
use crate::output;
use crate::policy::Store;
use crate::rehearse::pipeline::{self, PipelineError};
use crate::settings::Settings;
use crate::spelling;

/// Where a job would not be placed.
const NOT_PLACED: u8 = 1;
/// Where there was nothing to explain.
const FAILED: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A .gitlab-ci.yml, or the job response file of one job (.json)
    #[arg(default_value = ".gitlab-ci.yml")]
    file: PathBuf,
    /// Explains only this job; may be given several times
    #[arg(long = "job", value_name = "NAME")]
    jobs: Vec<String>,
    /// Of a pipeline: the ref that it runs for
    #[arg(long, value_name = "NAME", default_value = "main")]
    git_ref: String,
    /// Of a pipeline: the ref is not protected
    #[arg(long)]
    unprotected: bool,
    /// Of a pipeline: the project's id
    #[arg(long, value_name = "ID", default_value_t = 1)]
    project_id: u64,
    /// Of a pipeline: the project's path
    #[arg(long, value_name = "PATH", default_value = "group/project")]
    project_path: String,
    /// Only the table
    #[arg(long)]
    brief: bool,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Explains, and answers 0 when every job would be placed.
pub(super) fn run(global: &Global, arguments: &Arguments) -> ExitCode {
    let mut placed = false;
    let ended = guard(|| {
        placed = explain(global, arguments)?;
        Ok(())
    });
    match ended {
        Ok(()) if placed => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(NOT_PLACED),
        Err(Failure::System(report) | Failure::Build(report)) => {
            report.print();
            ExitCode::from(FAILED)
        }
        Err(Failure::Script(_)) => ExitCode::from(FAILED),
    }
}

fn explain(global: &Global, arguments: &Arguments) -> Result<bool, Failure> {
    let settings = load(global)?;
    let store = Store::open(&settings.state_directory.join("policies"))?;
    let mut jobs = if arguments.file.extension().is_some_and(|extension| extension == "json") {
        vec![one(global, arguments, &settings, &store)?]
    } else {
        every(global, arguments, &settings, &store)?
    };
    if !arguments.jobs.is_empty() {
        let known: Vec<&str> = jobs.iter().map(|job| job.job.as_str()).collect();
        if let Some(name) =
            arguments.jobs.iter().find(|name| jobs.iter().all(|job| job.job != **name))
        {
            return Err(Failure::system(format!(
                "`{name}` is no job of the pipeline: {}",
                spelling::instead(name, known)
            )));
        }
        jobs.retain(|job| arguments.jobs.contains(&job.job));
    }
    if arguments.format == Format::Json {
        output::result(&format!("{}\n", pretty(&jobs)?));
    } else {
        output::result(&overview(&jobs));
        if !arguments.brief {
            for job in &jobs {
                output::result(&trace(job));
            }
        }
    }
    Ok(jobs.iter().all(|job| job.error.is_none()))
}

fn one(
    global: &Global,
    arguments: &Arguments,
    settings: &Settings,
    store: &Store,
) -> Result<Explained, Failure> {
    let bytes = std::fs::read(&arguments.file).map_err(|error| {
        let mut report = Report::of(&error);
        report.error = format!("cannot read {}: {error}", arguments.file.display());
        Failure::System(report)
    })?;
    let job = response::parse(&bytes)?;
    let mut names = settings.profiles.keys();
    let profile = match (&global.profile, names.next(), names.next()) {
        (Some(profile), ..) => profile.clone(),
        (None, Some(only), None) => only.clone(),
        _ => {
            return Err(Failure::system("the settings have several profiles")
                .hint("name the one that decides with --profile NAME"));
        }
    };
    Ok(explain::job(settings, &profile, &job, None, store))
}

fn every(
    global: &Global,
    arguments: &Arguments,
    settings: &Settings,
    store: &Store,
) -> Result<Vec<Explained>, Failure> {
    let path = std::path::absolute(&arguments.file)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let pipeline =
        pipeline::read(&path, path.parent().unwrap_or(Path::new("/"))).map_err(|error| {
            let mut report = Report::of(&error);
            if let PipelineError::Mistakes { problems, .. } = &error {
                report.causes = problems.iter().map(ToString::to_string).collect();
            }
            Failure::System(report)
        })?;
    let assumed = Assumed {
        git_ref: arguments.git_ref.clone(),
        protected: Some(!arguments.unprotected),
        project_id: arguments.project_id,
        project_path: arguments.project_path.clone(),
    };
    if arguments.format == Format::Text {
        output::result(&format!(
            "Assumed: project {} (`{}`), ref `{}`, {}; first attempts.\n\n",
            assumed.project_id,
            output::printable(&assumed.project_path),
            output::printable(&assumed.git_ref),
            if arguments.unprotected { "not protected" } else { "protected" }
        ));
    }
    Ok(explain::pipeline(settings, &pipeline, global.profile.as_deref(), &assumed, store))
}

fn overview(jobs: &[Explained]) -> String {
    let head =
        ["job", "profile", "cluster", "task definition", "arch", "capacity", "size", "role", "why"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for job in jobs {
        let mut row =
            vec![job.job.clone(), job.profile.clone().unwrap_or_else(|| "none".to_owned())];
        match job.placements.first() {
            Some(placement) => row.extend([
                placement.cluster.clone(),
                placement.task_definition.clone(),
                placement.arch.to_string(),
                placement.capacity.to_string(),
                placement.size.to_string(),
                placement.role.clone().unwrap_or_else(|| "the definition's".to_owned()),
                placement.reason.clone(),
            ]),
            None => row.extend([
                "not placed".to_owned(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                String::new(),
                job.error.clone().unwrap_or_default(),
            ]),
        }
        rows.push(row.iter().map(|cell| output::printable(cell)).collect());
    }
    table(&rows)
}

fn trace(job: &Explained) -> String {
    let mut lines = vec![String::new(), output::printable(&job.job)];
    if let Some(profile) = &job.profile {
        lines[1].push_str(&format!(", by profile {profile}"));
    }
    for (index, step) in job.steps.iter().enumerate() {
        lines.push(format!(
            "  {}. {} ({}{}): {} fuel, {} µs",
            index + 1,
            step.policy,
            step.kind,
            if step.monitored { ", only watched" } else { "" },
            step.fuel,
            step.elapsed_us
        ));
        let mut read = |what: &str, readings: &[Reading]| {
            for reading in readings {
                lines.push(format!(
                    "       {what} {} = {} ({})",
                    reading.name, reading.value, reading.source
                ));
            }
        };
        read("fact", &step.facts);
        read("claim", &step.claims);
        if step.claims.is_empty() {
            lines.push("       no claim was read".to_owned());
        }
        lines.push(format!("       {}", step.outcome));
        lines.extend(step.changes.iter().map(|change| format!("         {change}")));
    }
    lines.extend(job.notices.iter().map(|notice| format!("  the job log says: {notice}")));
    match (&job.error, job.placements.first()) {
        (Some(error), _) => lines.push(format!("  not placed: {error}")),
        (None, Some(placement)) => {
            lines.push(format!("  placed on {placement}"));
            lines.push(format!("  since: {}", placement.reason));
            if job.placements.len() > 1 {
                let more = job.placements.len() - 1;
                let plural = if more == 1 { "" } else { "s" };
                lines.push(format!("  and {more} alternative{plural}"));
            }
        }
        (None, None) => {}
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&output::printable(&line));
        text.push('\n');
    }
    text
}
