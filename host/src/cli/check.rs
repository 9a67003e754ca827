//! `pointsman check` on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::policy::{Format, pretty};
use super::{Cli, Command, Global, StageCommand, flags};
use crate::check::{self, Call, Checked, Remedy, RunnerFile, Severity, Subject};
use crate::environment;
use crate::failure::{Failure, Report, guard};
use crate::output;
use crate::settings::SettingsFile;

/// Where something was found that keeps jobs from running.
const FOUND: u8 = 1;
/// Where nothing could be looked at.
const FAILED: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// GitLab Runner's file [default: /etc/gitlab-runner/config.toml, where it is there]
    #[arg(long, value_name = "FILE")]
    runner_config: Option<PathBuf>,
    /// The files are another machine's: what they name is not looked for on this one
    #[arg(long)]
    other_machine: bool,
    /// Warnings are failures as well
    #[arg(long)]
    strict: bool,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Checks, and answers 0 when nothing was found that keeps jobs from running.
pub(super) fn run(global: &Global, arguments: &Arguments) -> ExitCode {
    let mut is_fine = false;
    let ended = guard(|| {
        is_fine = look(global, arguments)?;
        Ok(())
    });
    match ended {
        Ok(()) if is_fine => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(FOUND),
        Err(Failure::System(report) | Failure::Build(report)) => {
            report.print();
            ExitCode::from(FAILED)
        }
        Err(Failure::Script(_)) => ExitCode::from(FAILED),
    }
}

fn look(global: &Global, arguments: &Arguments) -> Result<bool, Failure> {
    // Policies run here too.
    environment::drop_cloud_credentials();
    let executable = std::env::current_exe().unwrap_or_default();
    let state_directory = global
        .state_directory
        .as_deref()
        .map(std::path::absolute)
        .transpose()
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let checked = check::check(&Subject {
        settings_file: &global.config,
        state_directory: state_directory.as_deref(),
        flags: &flags(global),
        runner_file: RunnerFile {
            given: arguments.runner_config.as_deref(),
            executable: &executable,
            read_call: &read_call,
            other_machine: arguments.other_machine,
            takes_flags: matches!(SettingsFile::load(&global.config), Ok(SettingsFile::Fargate(_))),
        },
    });
    match arguments.format {
        Format::Json => output::result(&format!("{}\n", pretty(&checked)?)),
        Format::Text => output::result(&text(&checked)),
    }
    Ok(if arguments.strict {
        checked.findings.is_empty()
    } else {
        checked.count(Severity::Failure) == 0
    })
}

/// Reads a stage's command line as the stage itself would.
fn read_call(line: &[OsString]) -> Result<Call, String> {
    let cli = Cli::read(line).map_err(|error| words(&error.render().to_string()))?;
    let stage = match cli.command {
        Command::Stage(stage) | Command::Custom(stage) => match stage {
            StageCommand::Config => "config",
            StageCommand::Prepare => "prepare",
            StageCommand::Run { .. } => "run",
            StageCommand::Cleanup => "cleanup",
        },
        _ => return Err("call none of the four stages".to_owned()),
    };
    Ok(Call {
        stage,
        flag: flags(&cli.global).first(),
        settings_file: cli.global.config,
        profile: cli.global.profile,
        state_directory: cli.global.state_directory,
    })
}

/// Of clap's message, what is wrong and the tip, in a line.
fn words(message: &str) -> String {
    let of_use = |line: &&str| line.starts_with("error: ") || line.starts_with("tip: ");
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(of_use)
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: "))
        .collect();
    match lines.as_slice() {
        [] => "ask for help, and call no stage".to_owned(),
        lines => format!("are refused: {}", lines.join("; ")),
    }
}

fn text(checked: &Checked) -> String {
    let mut lines = Vec::new();
    for finding in &checked.findings {
        let (severity, id) = (finding.severity, finding.kind.id());
        lines.push(format!("{severity} ({id}): {}: {}", finding.place, finding.what));
        lines.push(format!("  why: {}", finding.why));
        lines.extend(finding.remedy.iter().map(|remedy| match remedy {
            Remedy::Run { run } => format!("  run: {run}"),
            Remedy::Change { file, change } => format!("  in {}: {change}", file.display()),
        }));
        lines.push(String::new());
    }
    let counted = |count: usize, what: &str| {
        let plural = match (count, what.strip_suffix('y')) {
            (1, _) => what.to_owned(),
            (_, Some(stem)) => format!("{stem}ies"),
            (_, None) => format!("{what}s"),
        };
        format!("{count} {plural}")
    };
    let looked = checked.counts.as_ref().map_or_else(
        || checked.settings.display().to_string(),
        |counts| {
            format!(
                "{} ({}, {})",
                checked.settings.display(),
                counted(counts.profiles, "profile"),
                counted(counts.policies, "policy")
            )
        },
    );
    lines.push(match (&checked.runner_config, &checked.counts) {
        (Some(file), Some(counts)) => {
            format!("Looked at {looked} and {} ({}).", file.display(), counted(counts.runners, "runner"))
        }
        (Some(file), None) => format!("Looked at {looked} and {}.", file.display()),
        (None, _) => format!(
            "Looked at {looked}; GitLab Runner's file was not there: name it with --runner-config FILE."
        ),
    });
    lines.push(match (checked.count(Severity::Failure), checked.count(Severity::Warning)) {
        (0, 0) => "Nothing found.".to_owned(),
        (failures, warnings) => {
            format!("{}, {}.", counted(failures, "failure"), counted(warnings, "warning"))
        }
    });
    let mut text = String::new();
    for line in lines {
        text.push_str(&output::printable(&line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn call(arguments: &[&str]) -> Result<Call, String> {
        let line: Vec<OsString> =
            std::iter::once("pointsman").chain(arguments.iter().copied()).map(Into::into).collect();
        read_call(&line)
    }

    #[test]
    fn stages_command_lines_are_read_as_the_stages_do() {
        let read = call(&["--profile", "dev", "custom", "run", "script", "build_script"]).unwrap();
        assert_eq!(read.stage, "run");
        assert_eq!(read.profile.as_deref(), Some("dev"));
        assert_eq!(read.settings_file, Path::new("/etc/pointsman/pointsman.toml"));
        for (arguments, said) in [
            (
                &["prepair"][..],
                "unrecognized subcommand 'prepair'; a similar subcommand exists: 'prepare'",
            ),
            (
                &["--profil", "dev", "prepare"],
                "unexpected argument '--profil' found; a similar argument exists: '--profile'",
            ),
            (&["tasks"], "call none of the four stages"),
            (&["--help"], "ask for help"),
        ] {
            let error = call(arguments).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
