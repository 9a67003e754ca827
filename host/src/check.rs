//! `check`: what can be told of a runner manager's files without the cloud and without a network.
//!
//! Each part looks at one thing and answers [`Finding`]s; [`kind`] has what can be found and why it matters.
//! Nothing is changed, and nothing but the files is looked at: a check may run in a merge request's pipeline.

mod by_tag;
mod kind;
mod policies;
mod runner;
mod settings;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::kind::{Kind, Severity};
pub use self::runner::{Call, RunnerFile};
use crate::settings::{Flags, Settings, SettingsError};

/// Something that somebody should do something about.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What kind of thing it is, which says how bad it is and why.
    #[serde(rename = "name")]
    pub kind: Kind,
    /// See [`Kind::severity`].
    pub severity: Severity,
    /// Where: a key of a file, such as `profiles.dev.bounds`.
    #[serde(rename = "about")]
    pub place: String,
    /// What is so, fit to be printed.
    pub what: String,
    /// See [`Kind::why`].
    pub why: &'static str,
    /// What to do about it; a list, as in what `doctor` finds.
    pub remedy: [Remedy; 1],
}

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Remedy {
    /// A command to run.
    Run {
        /// As it is typed.
        run: String,
    },
    /// A change of a file.
    Change {
        /// The file.
        file: PathBuf,
        /// The change in words, with the new text where there is one.
        #[serde(rename = "do")]
        change: String,
    },
}

/// What to look at.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The settings file.
    pub settings_file: &'a Path,
    /// In the place of the file's `[state] directory`.
    pub state_directory: Option<&'a Path>,
    /// Of a command line in the manner of GitLab's Fargate driver.
    pub flags: &'a Flags,
    /// GitLab Runner's file.
    pub runner_file: RunnerFile<'a>,
}

/// What was found, and what was looked at.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The settings file.
    pub settings: PathBuf,
    /// GitLab Runner's file; `None` when it was not looked at.
    pub runner_config: Option<PathBuf>,
    /// How much the files have; `None` of a settings file that cannot be read.
    pub counts: Option<Counts>,
    /// In the order of the files.
    pub findings: Vec<Finding>,
}

/// How much was looked at.
#[derive(Debug, Serialize)]
pub struct Counts {
    /// `[profiles.*]`
    pub profiles: usize,
    /// `[policies.*]`
    pub policies: usize,
    /// `[[runners]]` entries that call this driver.
    pub runners: usize,
}

impl Checked {
    /// How many findings are that bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// What has been found so far in one file.
#[derive(Debug)]
struct Findings<'a> {
    file: &'a Path,
    found: Vec<Finding>,
}

impl<'a> Findings<'a> {
    const fn of(file: &'a Path) -> Self {
        Self { file, found: Vec::new() }
    }

    fn add(
        &mut self,
        kind: Kind,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: Remedy,
    ) {
        self.found.push(Finding {
            kind,
            severity: kind.severity(),
            place: place.into(),
            what: what.into(),
            why: kind.why(),
            remedy: [remedy],
        });
    }

    /// A finding whose remedy is a change of the file itself.
    fn change(
        &mut self,
        kind: Kind,
        place: impl Into<String>,
        what: impl Into<String>,
        change: impl Into<String>,
    ) {
        let remedy = Remedy::Change { file: self.file.to_owned(), change: change.into() };
        self.add(kind, place, what, remedy);
    }

    /// A finding whose remedy is a command.
    fn run(
        &mut self,
        kind: Kind,
        place: impl Into<String>,
        what: impl Into<String>,
        command: impl Into<String>,
    ) {
        self.add(kind, place, what, Remedy::Run { run: command.into() });
    }
}

/// Looks at everything.
pub fn check(subject: &Subject<'_>) -> Checked {
    let mut own = Findings::of(subject.settings_file);
    let settings = load(subject, &mut own);
    let mut counts = None;
    if let Some(settings) = &settings {
        settings::look(settings, subject.runner_file.other_machine, &mut own);
        policies::look(settings, subject.settings_file, &mut own);
        counts = Some(Counts {
            profiles: settings.profiles.len(),
            policies: settings.policies.len(),
            runners: 0,
        });
    }
    let mut findings = own.found;
    let file = subject.runner_file.path();
    let mut theirs = Findings::of(file);
    let runners =
        runner::look(&subject.runner_file, subject.settings_file, settings.as_ref(), &mut theirs);
    findings.extend(theirs.found);
    if let (Some(counts), Some(runners)) = (&mut counts, runners) {
        counts.runners = runners;
    }
    Checked {
        settings: subject.settings_file.to_owned(),
        runner_config: runners.map(|_| file.to_owned()),
        counts,
        findings,
    }
}

fn load(subject: &Subject<'_>, findings: &mut Findings<'_>) -> Option<Settings> {
    match Settings::load_with(subject.settings_file, subject.flags) {
        Ok(mut settings) => {
            if let Some(directory) = subject.state_directory {
                directory.clone_into(&mut settings.state_directory);
            }
            Some(settings)
        }
        Err(SettingsError::Read { path, source }) => {
            findings.run(
                Kind::SettingsUnreadable,
                path.display().to_string(),
                format!("cannot be read: {source}"),
                "pointsman check --config FILE",
            );
            None
        }
        Err(error @ SettingsError::Flag { flag, .. }) => {
            findings.run(
                Kind::SettingsMistake,
                flag,
                error.to_string(),
                "pointsman check, without the flag",
            );
            None
        }
        Err(SettingsError::Mistakes { path, problems }) => {
            for problem in problems {
                findings.change(
                    Kind::SettingsMistake,
                    format!("{}, line {}", problem.path, problem.line),
                    problem.message,
                    format!("correct line {} of {}", problem.line, path.display()),
                );
            }
            None
        }
    }
}
