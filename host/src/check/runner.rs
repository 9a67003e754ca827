//! GitLab Runner's config.toml: whether it calls this driver as it has to be called, and waits as long as it has to.
//!
//! What GitLab Runner does with each key is told by its sources (common/config.go, executors/custom/config.go,
//! helpers/process/killer.go, commands/multi.go). The file is read leniently: it is not ours, and has keys of
//! GitLab Runner's that nobody here knows.

mod stages;
mod times;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use self::stages::{Own, Wiring};
use super::{Findings, Kind};
use crate::settings::{ClusterBackend, Settings, Shell, TaskDefinition};

/// Where GitLab Runner's package puts it.
const USUAL: &str = "/etc/gitlab-runner/config.toml";

/// GitLab Runner's file, and what is needed to judge it.
pub struct RunnerFile<'a> {
    /// As given; `None` is [`USUAL`], if it is there.
    pub given: Option<&'a Path>,
    /// This driver's own executable.
    pub executable: &'a Path,
    /// Reads a command line of this driver's, the program's name first.
    pub read_call: &'a dyn Fn(&[OsString]) -> Result<Call, String>,
    /// Whether the files are for another machine, so that nothing that they name is here.
    pub other_machine: bool,
    /// Whether the settings file is one of GitLab's Fargate driver, with flags of its own.
    pub takes_flags: bool,
}

impl fmt::Debug for RunnerFile<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RunnerFile").field("given", &self.given).finish_non_exhaustive()
    }
}

impl<'a> RunnerFile<'a> {
    pub(super) fn path(&self) -> &'a Path {
        self.given.unwrap_or(Path::new(USUAL))
    }
}

/// What a stage's command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `config`, `prepare`, `run` or `cleanup`.
    pub stage: &'static str,
    /// One that goes with a file of GitLab's Fargate driver only.
    pub flag: Option<&'static str>,
    /// `--config`
    pub settings_file: PathBuf,
    /// `--profile`
    pub profile: Option<String>,
    /// `--state-directory`
    pub state_directory: Option<PathBuf>,
}

/// One `[[runners]]` entry that calls this driver.
struct Runner<'r> {
    /// Such as `[[runners]] dev`.
    place: String,
    table: &'r Table,
    custom: &'r Table,
    wiring: Wiring,
}

/// Answers how many entries call this driver; `None` when the file was not looked at.
pub(super) fn look(
    file: &RunnerFile<'_>,
    settings_file: &Path,
    settings: Option<&Settings>,
    findings: &mut Findings<'_>,
) -> Option<usize> {
    let path = file.path();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if file.given.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return None;
        }
        Err(error) => {
            findings.run(
                Kind::RunnerConfigUnreadable,
                path.display().to_string(),
                format!("cannot be read: {error}"),
                "pointsman check --runner-config FILE, as the user that gitlab-runner runs as",
            );
            return Some(0);
        }
    };
    let document: Table = match text.parse() {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map_or(1, |span| {
                text.get(..span.start).unwrap_or_default().matches('\n').count() + 1
            });
            findings.change(
                Kind::RunnerConfigUnreadable,
                format!("line {line}"),
                format!("is no TOML: {}", error.message()),
                format!("correct line {line}"),
            );
            return Some(0);
        }
    };
    let entries = document.get("runners").and_then(Value::as_array);
    let mut runners = Vec::new();
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        let Some(table) = entry.as_table() else { continue };
        let Some(custom) = table.get("custom").and_then(Value::as_table) else { continue };
        let name = text_of(table, "name").map_or_else(|| (index + 1).to_string(), str::to_owned);
        let place = format!("[[runners]] {name}");
        let wiring = Wiring::read(custom, file);
        // Somebody else's driver is none of this one's business.
        if !wiring.is_ours() {
            continue;
        }
        runners.push(Runner { place, table, custom, wiring });
    }
    if runners.is_empty() {
        findings.change(
            Kind::NoRunner,
            "[[runners]]",
            "no entry calls this driver",
            "add an entry with `executor = \"custom\"` and the four stages in [runners.custom]",
        );
        return Some(0);
    }
    let mut used = BTreeSet::new();
    for runner in &runners {
        if text_of(runner.table, "executor") != Some("custom") {
            findings.change(
                Kind::RunnerExecutor,
                format!("{}: executor", runner.place),
                match text_of(runner.table, "executor") {
                    Some(executor) => format!("is `{executor}`"),
                    None => "is missing".to_owned(),
                },
                "set `executor = \"custom\"`",
            );
        }
        let call = stages::look(
            &runner.place,
            &runner.wiring,
            &Own {
                file: settings_file,
                other_machine: file.other_machine,
                takes_flags: file.takes_flags,
                settings,
            },
            findings,
        );
        let profile = call.and_then(|call| call.profile);
        if let Some(settings) = settings {
            let decides = match (&profile, settings.profiles.keys().next()) {
                (Some(profile), _) => Some(profile),
                (None, Some(only)) if settings.profiles.len() == 1 => Some(only),
                _ => None,
            };
            used.extend(decides.cloned());
            overridden(runner, settings, decides, findings);
            addresses(runner, settings, findings);
            times::of_runner(
                &runner.place,
                runner.table,
                runner.custom,
                settings,
                decides,
                findings,
            );
        }
    }
    concurrency(&document, &runners, findings);
    if let Some(settings) = settings {
        times::of_file(&document, settings, findings);
        for name in settings.profiles.keys().filter(|name| !used.contains(*name)) {
            findings.change(
                Kind::ProfileUnused,
                format!("profile `{name}`"),
                "no [[runners]] entry names it",
                format!(
                    "add an entry whose stages have `--profile {name}`, or remove [profiles.{name}]"
                ),
            );
        }
    }
    Some(runners.len())
}

fn text_of<'t>(table: &'t Table, key: &str) -> Option<&'t str> {
    table.get(key).and_then(Value::as_str)
}

/// What `config` answers in place of the runner's own keys (executors/custom/api/config.go).
fn overridden(
    runner: &Runner<'_>,
    settings: &Settings,
    profile: Option<&String>,
    findings: &mut Findings<'_>,
) {
    let profile = profile.and_then(|name| settings.profiles.get(name));
    let definitions: Vec<(&String, &TaskDefinition)> = settings
        .task_definitions
        .iter()
        .filter(|(name, _)| {
            profile.is_none_or(|profile| profile.bounds.task_definitions.contains(*name))
        })
        .collect();
    type Answer = fn(&TaskDefinition) -> Option<String>;
    let all: [(&str, Answer); 3] = [
        ("builds_dir", |definition| definition.builds_dir.clone()),
        ("cache_dir", |definition| definition.cache_dir.clone()),
        ("shell", |definition| match definition.shell {
            Shell::Bash => Some("bash".to_owned()),
            Shell::Sh => Some("sh".to_owned()),
            Shell::Login => None,
        }),
    ];
    for (key, answer) in all {
        let answers: BTreeSet<Option<String>> =
            definitions.iter().map(|(_, definition)| answer(definition)).collect();
        let Some(own) = text_of(runner.table, key).filter(|own| !own.is_empty()) else {
            // GitLab Runner has a shell of its own, and no directories.
            if key != "shell" && answers.contains(&None) {
                findings.change(
                    Kind::DirectoryMissing,
                    format!("{}: {key}", runner.place),
                    format!("is missing, and `{key} = \"runner\"` of a task definition leaves it to this file"),
                    format!("set `{key}`, such as \"/{}\"", key.trim_end_matches("_dir")),
                );
            }
            continue;
        };
        // Some task definition leaves it to the runner.
        if answers.contains(&None) {
            continue;
        }
        let others: BTreeSet<String> = answers.into_iter().flatten().collect();
        if let (false, Some(other)) = (others.contains(own), others.first()) {
            findings.change(
                Kind::OverriddenByDriver,
                format!("{}: {key}", runner.place),
                format!("is `{own}`, but the task definitions of the settings file say `{other}`"),
                format!("remove `{key}`, or set `{key} = \"{own}\"` in [task_definitions.*] of pointsman.toml"),
            );
        }
    }
}

fn addresses(runner: &Runner<'_>, settings: &Settings, findings: &mut Findings<'_>) {
    let Some(url) = text_of(runner.table, "url") else { return };
    let is_away =
        settings.clusters.values().any(|cluster| matches!(cluster.backend, ClusterBackend::Ecs(_)));
    let clone_url = text_of(runner.table, "clone_url");
    if is_away && (is_loopback(url) || clone_url.is_some_and(is_loopback)) {
        findings.change(
            Kind::RunnerUrlLoopback,
            format!("{}: url", runner.place),
            format!("is `{}`, an address of this machine", clone_url.unwrap_or(url)),
            "set `url` and `clone_url` to an address that tasks can reach",
        );
    }
    if let Some(gitlab) = &settings.gitlab
        && host_of(&gitlab.url) != host_of(url)
    {
        findings.change(
            Kind::GitlabUrlDiffers,
            format!("{}: url", runner.place),
            format!("is `{url}`, but `[gitlab] url` of the settings file is `{}`", gitlab.url),
            "make the two the same server",
        );
    }
}

fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default().to_ascii_lowercase()
}

fn is_loopback(url: &str) -> bool {
    let host = host_of(url);
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default().to_owned(),
        None => host.split(':').next().unwrap_or_default().to_owned(),
    };
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `concurrent` is 1 when it is missing (common/config.go, `NewConfig`).
fn concurrency(document: &Table, runners: &[Runner<'_>], findings: &mut Findings<'_>) {
    let concurrent = document.get("concurrent").and_then(Value::as_integer).unwrap_or(1);
    let limit = |runner: &Runner<'_>| {
        // 0 is no limit.
        runner.table.get("limit").and_then(Value::as_integer).filter(|limit| *limit > 0)
    };
    if concurrent <= 1 {
        findings.change(
            Kind::ConcurrentLow,
            "concurrent",
            format!("is {concurrent}, so jobs run one after the other"),
            "set `concurrent` to the number of tasks that may run at once, such as 30",
        );
        return;
    }
    for (runner, limit) in runners.iter().filter_map(|runner| Some((runner, limit(runner)?))) {
        if limit > concurrent {
            findings.change(
                Kind::ConcurrentLow,
                format!("{}: limit", runner.place),
                format!("is {limit}, but `concurrent` is {concurrent}"),
                format!("set `concurrent` to at least {limit}, or lower `limit`"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_the_rest() {
        assert_eq!(host_of("https://GitLab.example.com/"), "gitlab.example.com");
        assert_eq!(host_of("https://gitlab.example.com:8443/x"), "gitlab.example.com:8443");
        for (url, expected) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]/", true),
            ("http://localhost", true),
            ("https://gitlab.example.com", false),
            ("https://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(url), expected, "{url}");
        }
    }
}
