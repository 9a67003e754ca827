//! How long GitLab Runner waits, against how long the settings let a stage take.

use std::time::Duration;

use toml::{Table, Value};

use crate::check::settings::clusters;
use crate::check::{Findings, Kind};
use crate::settings::{ClusterBackend, Profile, Settings};
use crate::stages;

/// After this, a cancelled job's `cleanup` comes whether the stage has ended or not (common/build.go,
/// `WaitForBuildFinishTimeout`).
const CLEANUP_COMES_ANYWAY: Duration = Duration::from_secs(300);

/// `graceful_kill_timeout` when it is missing (helpers/process/killer.go).
const GRACEFUL_DEFAULT: Duration = Duration::from_secs(600);

/// `shutdown_timeout` when it is missing (common/config.go).
const SHUTDOWN_DEFAULT: Duration = Duration::from_secs(30);

/// `config_exec_timeout` and the like when they are missing (executors/custom/consts.go).
const STAGE_DEFAULT: Duration = Duration::from_secs(3600);

/// Seconds of `key`; missing, 0 and negative are the default (executors/custom/config.go, `getDuration`).
fn seconds(table: &Table, key: &str, default: Duration) -> Duration {
    let seconds = table.get(key).and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok());
    seconds.filter(|seconds| *seconds > 0).map_or(default, Duration::from_secs)
}

/// From RunTask to a session, of the profile's slowest cluster.
fn start(settings: &Settings, profile: &Profile) -> Duration {
    let start_of = |backend: &ClusterBackend| match backend {
        ClusterBackend::Ecs(ecs) => ecs.start_timeout,
        ClusterBackend::Local(_) => stages::prepare::LOCAL_START_TIMEOUT,
    };
    let starts = clusters(settings, profile).map(|cluster| start_of(&cluster.backend));
    starts.max().unwrap_or_default() + settings.ssh.ready_timeout
}

/// What `config` may wait for: GitLab's API, and each policy.
fn decision(settings: &Settings, profile: &Profile) -> Duration {
    let gitlab = settings.gitlab.as_ref().map_or(Duration::ZERO, |gitlab| gitlab.timeout);
    let policies: Duration =
        settings.chain(profile).iter().map(|(_, policy)| policy.deadline).sum();
    gitlab + policies + Duration::from_secs(1)
}

/// Of one `[[runners]]` entry.
pub(super) fn of_runner(
    place: &str,
    runner: &Table,
    custom: &Table,
    settings: &Settings,
    profile: Option<&String>,
    findings: &mut Findings<'_>,
) {
    let graceful = seconds(custom, "graceful_kill_timeout", GRACEFUL_DEFAULT);
    let needed = stages::after_sigterm(&settings.ssh);
    let key = format!("{place}: graceful_kill_timeout");
    let given = custom.contains_key("graceful_kill_timeout");
    let is = if given { "is" } else { "is missing, which means" };
    let good = needed.max(Duration::from_secs(120)).min(CLEANUP_COMES_ANYWAY).as_secs();
    if graceful >= CLEANUP_COMES_ANYWAY {
        findings.change(
            Kind::GracefulKillLong,
            key,
            format!("{is} {} s", graceful.as_secs()),
            format!("set `graceful_kill_timeout = {good}` in [runners.custom]"),
        );
    } else if graceful < needed {
        findings.change(
            Kind::GracefulKillShort,
            key,
            format!(
                "is {} s, but a stage may need {} s after SIGTERM to stop what it started",
                graceful.as_secs(),
                needed.as_secs()
            ),
            format!("set `graceful_kill_timeout = {good}` in [runners.custom]"),
        );
    }
    let profile = profile.and_then(|name| settings.profiles.get(name));
    let mut stage = |table: &Table, key: &str, found: Duration, needed: Duration, what: &str| {
        if found < needed {
            findings.change(
                Kind::StageTimeoutShort,
                format!("{place}: {key}"),
                format!("is {} s, but {what} may take {} s", found.as_secs(), needed.as_secs()),
                match table.get(key) {
                    Some(Value::String(_)) => format!("set `{key} = \"{}s\"`", needed.as_secs()),
                    _ => format!("set `{key} = {}`, or leave it out", needed.as_secs()),
                },
            );
        }
    };
    if let Some(profile) = profile {
        let found = seconds(custom, "config_exec_timeout", STAGE_DEFAULT);
        stage(custom, "config_exec_timeout", found, decision(settings, profile), "a decision");
        let needed = start(settings, profile);
        let what = "starting a task (`start_timeout` and `[ssh] ready_timeout`)";
        let found = seconds(custom, "prepare_exec_timeout", STAGE_DEFAULT);
        stage(custom, "prepare_exec_timeout", found, needed, what);
        // A duration in words, of all attempts together.
        let words = runner.get("prepare_timeout").and_then(Value::as_str);
        if let Some(found) = words.and_then(|words| humantime::parse_duration(words).ok()) {
            stage(runner, "prepare_timeout", found, needed, what);
        }
    }
    let found = seconds(custom, "cleanup_exec_timeout", STAGE_DEFAULT);
    stage(custom, "cleanup_exec_timeout", found, stages::cleanup::LIMIT, "stopping a task");
}

/// Of the file as a whole.
pub(super) fn of_file(document: &Table, settings: &Settings, findings: &mut Findings<'_>) {
    let found = seconds(document, "shutdown_timeout", SHUTDOWN_DEFAULT);
    let starts = settings.profiles.values().map(|profile| start(settings, profile));
    // Then come the abort and `cleanup`, which stops the task in some seconds as a rule.
    let needed = starts.max().unwrap_or_default() + Duration::from_secs(30);
    if found < needed {
        let is = if document.contains_key("shutdown_timeout") {
            "is"
        } else {
            "is missing, which means"
        };
        findings.change(
            Kind::ShutdownShort,
            "shutdown_timeout",
            format!(
                "{is} {} s, but a task may take {} s to start and to be stopped again",
                found.as_secs(),
                needed.as_secs()
            ),
            format!("set `shutdown_timeout = {}`", needed.as_secs().next_multiple_of(60)),
        );
    }
}
