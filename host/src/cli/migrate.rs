//! `pointsman migrate`: from files of GitLab's Fargate driver to one `pointsman.toml`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Report};
use crate::output;
use crate::settings::migration::{self, Source};
use crate::settings::runner::{self, Change, Told};
use crate::settings::{self, Flags, SettingsFile};

/// Where the new file is thought to be when `--output` does not say it.
const USUAL_PLACE: &str = "/etc/pointsman/pointsman.toml";

/// What is so in every case.
const ALWAYS: &str = "\
The four `…_exec` name the executable of Pointsman; `builds_dir` and `cache_dir` stay.
The runner manager's IAM role also needs ecs:TagResource on the tasks, and ecs:ListTasks for the sweep.
Change over while no job runs: the stages of one job must read one file.
";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration files of GitLab's Fargate driver; each becomes a profile that has the file's name
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Writes the new file here instead of to stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrites what is there
    #[arg(long, requires = "output")]
    force: bool,
    /// GitLab Runner's own config.toml, to tell its lines that change
    #[arg(long, value_name = "FILE")]
    runner_config: Option<PathBuf>,
}

/// Writes the new file, and tells what else changes.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut files = read_all(&arguments.files)?;
    let paths: Vec<&Path> = arguments.files.iter().map(PathBuf::as_path).collect();
    let names = migration::profile_names(&paths);
    let new_path = match &arguments.output {
        Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
        None => PathBuf::from(USUAL_PLACE),
    };
    let new_path = new_path.display().to_string();
    let profiles: Vec<(&Path, &str)> =
        paths.iter().copied().zip(names.iter().map(String::as_str)).collect();
    let told = match &arguments.runner_config {
        Some(config) => Some((config, runner_config(config, &profiles, &new_path)?)),
        None => None,
    };
    for (name, file) in names.iter().zip(&mut files) {
        if let Some(flags) = told.as_ref().and_then(|(_, told)| told.flags.get(name)) {
            file.apply(flags);
        }
    }
    let flags = Flags::default();
    let sources: Vec<Source<'_>> = profiles
        .iter()
        .zip(&files)
        .map(|((path, name), file)| Source { name: (*name).to_owned(), path, file, flags: &flags })
        .collect();
    let text = migration::write(&sources);
    // It is a mistake of ours if it cannot be read, and then nobody shall find it later.
    settings::read(&text, Path::new("/")).map_err(|problems| {
        let mut report =
            Report::new("the new file would have mistakes, which is a bug in Pointsman");
        report.causes = problems.iter().map(ToString::to_string).collect();
        Failure::System(report)
    })?;
    match &arguments.output {
        Some(path) => write(path, &text, arguments.force)?,
        None => output::result(&text),
    }
    let advice = match &told {
        Some((config, told)) => changed(config, told),
        None => usual(&profiles, &new_path),
    };
    for line in advice.lines().chain(ALWAYS.lines()) {
        output::note(line);
    }
    Ok(())
}

/// All files, or the mistakes of all.
fn read_all(paths: &[PathBuf]) -> Result<Vec<settings::FargateFile>, Failure> {
    let mut read = Vec::new();
    let mut mistakes = Report::default();
    for path in paths {
        match SettingsFile::load(path) {
            Ok(SettingsFile::Fargate(file)) => read.push(*file),
            Ok(SettingsFile::Own(_)) => {
                mistakes.causes.push(format!("{}: is a pointsman.toml already", path.display()));
            }
            Err(error) => {
                let Failure::System(report) = Failure::from(error) else { continue };
                mistakes.causes.push(report.error);
                mistakes.causes.extend(report.causes);
            }
        }
    }
    if mistakes.causes.is_empty() {
        return Ok(read);
    }
    mistakes.error = "nothing was written, since not all files can be migrated".to_owned();
    Err(Failure::System(mistakes))
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed = |error: &io::Error| {
        let mut report = Report::new(format!("cannot write {}", path.display()));
        report.causes.push(error.to_string());
        match error.kind() {
            io::ErrorKind::AlreadyExists => report.hint("--force overwrites it"),
            _ => report,
        }
    };
    let mut file = File::options();
    file.write(true);
    // By one call, so that nobody's file comes to be in between.
    if force {
        file.create(true).truncate(true)
    } else {
        file.create_new(true)
    };
    file.open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::System(failed(&error)))
}

fn runner_config(path: &Path, profiles: &[(&Path, &str)], new_path: &str) -> Result<Told, Failure> {
    let failed = |error: String, cause: String| {
        Failure::System(Report { error, causes: vec![cause], hints: Vec::new() })
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(format!("cannot read {}", path.display()), error.to_string()))?;
    runner::told(&text, profiles, new_path).map_err(|message| {
        failed(format!("{} is no config.toml of GitLab Runner", path.display()), message)
    })
}

/// What changes in the `config.toml` that was given.
fn changed(config: &Path, told: &Told) -> String {
    let mut text = String::new();
    if told.changes.is_empty() {
        let _ = writeln!(
            text,
            "No [[runners]] of {} names any of these files: nothing changes there.",
            config.display()
        );
    } else {
        let _ = writeln!(text, "In {}, these lines change:", config.display());
    }
    for Change { line, key, old, new } in &told.changes {
        let _ = writeln!(text, "  line {line}:\n  - {key} = {old}\n  + {key} = {new}");
    }
    for line in &told.differing {
        let _ = writeln!(
            text,
            "Line {line} has another --task-def or --platform-version than the runner before with the same file: copy the file for this runner and migrate both, since a profile has one default."
        );
    }
    text
}

/// What changes in a `config.toml` that was not given.
fn usual(profiles: &[(&Path, &str)], new_path: &str) -> String {
    let mut text = String::new();
    for (path, name) in profiles {
        let _ = writeln!(
            text,
            "In GitLab Runner's config.toml, for the [[runners]] that name {}:",
            path.display()
        );
        for stage in runner::STAGES {
            let _ = writeln!(text, "  {stage}_args = {}", runner::arguments(new_path, name, stage));
        }
    }
    text.push_str("With --runner-config FILE, the lines that change are told one by one.\n");
    text
}
