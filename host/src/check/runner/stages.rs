//! The four stages of one `[[runners]]` entry: the programs, their arguments, and whether they fit together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Call, RunnerFile};
use crate::check::settings::is_program;
use crate::check::{Findings, Kind};
use crate::settings::Settings;
use crate::spelling;

const STAGES: [&str; 4] = ["config", "prepare", "run", "cleanup"];

/// What GitLab Runner passes to `run` behind `run_args` (executors/custom/custom.go, `Run`).
const RUN_ARGUMENTS: [&str; 2] = ["script", "build_script"];

/// What an entry says about the stages.
pub(super) struct Wiring {
    stages: Vec<Stage>,
}

struct Stage {
    name: &'static str,
    /// `None` when the key is missing or empty: GitLab Runner leaves the stage out.
    program: Option<PathBuf>,
    is_ours: bool,
    call: Result<Call, String>,
}

impl Wiring {
    pub(super) fn read(custom: &Table, file: &RunnerFile<'_>) -> Self {
        let stage = |name: &'static str| {
            let program = custom
                .get(&format!("{name}_exec"))
                .and_then(Value::as_str)
                .filter(|program| !program.is_empty())
                .map(PathBuf::from);
            let mut line: Vec<OsString> = vec!["pointsman".into()];
            let arguments = custom.get(&format!("{name}_args")).and_then(Value::as_array);
            line.extend(arguments.into_iter().flatten().filter_map(Value::as_str).map(Into::into));
            if name == "run" {
                line.extend(RUN_ARGUMENTS.map(Into::into));
            }
            let is_ours = program.as_deref().is_some_and(|program| is_ours(program, file));
            Stage { name, program, is_ours, call: (file.read_call)(&line) }
        };
        Self { stages: STAGES.map(stage).into() }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.stages.iter().any(|stage| stage.is_ours)
    }
}

/// By its name, or since it is this very program. GitLab's Fargate driver is called `fargate`, and so is what takes
/// its place.
fn is_ours(program: &Path, file: &RunnerFile<'_>) -> bool {
    program
        .file_name()
        .is_some_and(|name| name == "pointsman" || file.takes_flags && name == "fargate")
        || same_file(program, file.executable)
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// The settings file that was looked at.
pub(super) struct Own<'a> {
    pub(super) file: &'a Path,
    /// Whether the files are for another machine.
    pub(super) other_machine: bool,
    /// Whether it is one of GitLab's Fargate driver.
    pub(super) takes_flags: bool,
    pub(super) settings: Option<&'a Settings>,
}

impl Own<'_> {
    /// Whether `file` is it; on another machine it lies somewhere else.
    fn is(&self, file: &Path) -> bool {
        same_file(file, self.file)
            || self.other_machine && file.file_name() == self.file.file_name()
    }
}

/// Answers what the stages agree on, as far as any can be read.
pub(super) fn look(
    place: &str,
    wiring: &Wiring,
    own: &Own<'_>,

    findings: &mut Findings<'_>,
) -> Option<Call> {
    let mut calls: Vec<&Call> = Vec::new();
    let mut programs: Vec<&Path> = Vec::new();
    for stage in &wiring.stages {
        let name = stage.name;
        let key = format!("{place}: {name}_exec");
        let Some(program) = &stage.program else {
            findings.change(
                Kind::StageMissing,
                key,
                "is missing",
                format!("set `{name}_exec` and `{name}_args` as for the other stages"),
            );
            continue;
        };
        if !stage.is_ours {
            let ours = wiring.stages.iter().find(|stage| stage.is_ours);
            let ours = ours.and_then(|stage| stage.program.as_deref()).unwrap_or(program);
            findings.change(
                Kind::StageOtherProgram,
                key,
                format!("is {}", program.display()),
                format!("set `{name}_exec = \"{}\"`", ours.display()),
            );
            continue;
        }
        if !programs.contains(&program.as_path()) {
            programs.push(program);
            look_at_program(&key, program, own.other_machine, findings);
        }
        match &stage.call {
            Ok(call) if call.stage == name => calls.push(call),
            Ok(call) => findings.change(
                Kind::StageArguments,
                format!("{place}: {name}_args"),
                format!("call the stage `{}`", call.stage),
                format!("end `{name}_args` with \"{name}\""),
            ),
            Err(error) => findings.change(
                Kind::StageArguments,
                format!("{place}: {name}_args"),
                error,
                format!(
                    "set `{name}_args = [\"--config\", \"{}\", \"--profile\", \"NAME\", \"{name}\"]`",
                    own.file.display()
                ),
            ),
        }
    }
    let first = (*calls.first()?).clone();
    for call in &calls {
        for (what, differs, one, other) in [
            (
                "--config",
                call.settings_file != first.settings_file,
                first.settings_file.display().to_string(),
                call.settings_file.display().to_string(),
            ),
            (
                "--profile",
                call.profile != first.profile,
                shown(&first.profile),
                shown(&call.profile),
            ),
            (
                "--state-directory",
                call.state_directory != first.state_directory,
                shown(&first.state_directory.as_ref().map(|path| path.display().to_string())),
                shown(&call.state_directory.as_ref().map(|path| path.display().to_string())),
            ),
        ] {
            if differs {
                findings.change(
                    Kind::StagesDiffer,
                    format!("{place}: {}_args", call.stage),
                    format!("{what} is {other}, and in `{}_args` {one}", first.stage),
                    format!("make {what} the same in all four"),
                );
            }
        }
    }
    if !own.is(&first.settings_file) {
        findings.run(
            Kind::RunnerOtherSettings,
            format!("{place}: --config"),
            format!("is {}", first.settings_file.display()),
            format!("pointsman --config {} check", first.settings_file.display()),
        );
        return None;
    }
    for call in &calls {
        // GitLab's format names no task definitions by names of ours.
        if let (Some(flag), false) = (call.flag, own.takes_flags) {
            findings.change(
                Kind::StageArguments,
                format!("{place}: {}_args", call.stage),
                format!("have `{flag}`, which goes with a file of GitLab's Fargate driver"),
                format!("remove `{flag}`"),
            );
        }
    }
    if let Some(settings) = own.settings {
        look_at_profile(place, first.profile.as_deref(), settings, findings);
    }
    Some(first)
}

fn shown(value: &Option<String>) -> String {
    value.as_ref().map_or_else(|| "not given".to_owned(), |value| format!("`{value}`"))
}

fn look_at_program(key: &str, program: &Path, other_machine: bool, findings: &mut Findings<'_>) {
    if program.is_absolute() {
        if !other_machine && !is_program(program) {
            let what = if program.exists() { "cannot be executed" } else { "is not there" };
            findings.change(
                Kind::ProgramMissing,
                key,
                format!("{} {what}", program.display()),
                "name the driver's executable, or install it there",
            );
        }
    } else {
        findings.change(
            Kind::ProgramRelative,
            key,
            format!("is `{}`, which does not begin with `/`", program.display()),
            "name the driver by its whole path, such as /usr/local/bin/pointsman",
        );
    }
}

fn look_at_profile(
    place: &str,
    profile: Option<&str>,
    settings: &Settings,
    findings: &mut Findings<'_>,
) {
    let names = || settings.profiles.keys().map(String::as_str);
    match profile {
        Some(name) if !settings.profiles.contains_key(name) => {
            let all: Vec<&str> = names().collect();
            findings.change(
                Kind::RunnerProfileUnknown,
                format!("{place}: --profile"),
                format!("names no profile `{name}`"),
                format!("correct it in all four stages: {}", spelling::instead(name, all)),
            );
        }
        None if settings.profiles.len() > 1 => findings.change(
            Kind::RunnerProfileMissing,
            format!("{place}: --profile"),
            "is missing",
            format!(
                "add \"--profile\", \"NAME\" before the stage in all four; there is {}",
                spelling::list(names())
            ),
        ),
        _ => {}
    }
}
