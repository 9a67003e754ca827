//! How a launch went: how long each phase took, what took long, and what the task is like. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::finding::{Finding, list};
use crate::backend::{BackendError, Phase, Stopped, TaskId, Times};
use crate::placement::{Arch, Placement};
use crate::settings::{Shell, TaskDefinition};

/// What was seen of a launch. Durations are by this machine's clock.
#[derive(Debug, Default)]
pub(super) struct Launched {
    /// The task.
    pub task: Option<TaskId>,
    /// From sending RunTask to its answer.
    pub run_task: Option<Duration>,
    /// When the task was first seen in a phase, since RunTask was answered.
    pub phases: Vec<(Phase, Duration)>,
    /// Where the task is reached, and when that was known, since RunTask was answered.
    pub address: Option<(SocketAddr, Duration)>,
    /// When a session was authenticated, since RunTask was answered.
    pub ssh: Option<Duration>,
    /// How long the script took.
    pub script: Option<Duration>,
    /// From StopTask's answer to STOPPED.
    pub stop: Option<Duration>,
    /// AWS's own times.
    pub times: Times,
    /// What the script said of the task.
    pub said: Vec<(String, String)>,
    /// How it ended.
    pub ended: Ended,
    /// Why the task may still run.
    pub left: Option<String>,
}

/// How a launch ended.
#[derive(Debug, Default)]
pub(super) enum Ended {
    /// The script ran.
    #[default]
    Done,
    /// By Ctrl-C or SIGTERM.
    Interrupted,
    /// RunTask started nothing.
    Refused(BackendError),
    /// DescribeTasks did not answer.
    NotSeen(BackendError),
    /// The task stopped before its time.
    Stopped(Stopped),
    /// It did not run in time.
    TooSlow(Duration),
    /// Nobody let us in.
    NotReachable {
        /// Why.
        error: String,
        /// What to do.
        hint: String,
    },
    /// The script did not run to its end.
    Script(String),
}

/// A phase and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Stable, for programs.
    pub phase: &'static str,
    /// For people.
    pub words: &'static str,
    /// To the tenth.
    pub seconds: f64,
}

/// The phases that can be told, in their order.
pub(super) fn rows(launched: &Launched) -> Vec<Row> {
    let times = &launched.times;
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| {
        Duration::try_from(to?.duration_since(from?)).ok()
    };
    let running = seen(launched, Phase::Running);
    let after_running = launched.ssh.zip(running).map(|(ssh, running)| ssh.saturating_sub(running));
    let row = |phase, words, took: Option<Duration>| {
        let seconds = (took?.as_secs_f64() * 10.0).round() / 10.0;
        Some(Row { phase, words, seconds })
    };
    [
        row("run-task", "RunTask was answered", launched.run_task),
        row(
            "placement",
            "a machine and a network interface were found (PROVISIONING)",
            between(times.created_at, times.pull_started_at),
        ),
        row(
            "image-pull",
            "the image was pulled",
            between(times.pull_started_at, times.pull_stopped_at),
        ),
        row(
            "container-start",
            "the container was started",
            between(times.pull_stopped_at, times.started_at),
        ),
        row("running", "from RunTask to RUNNING, as seen from here", running),
        row("address", "from RunTask to a known address", launched.address.map(|(_, after)| after)),
        row("ssh", "from RUNNING to an SSH session", after_running),
        row("script", "the script ran", launched.script),
        row("stop", "from StopTask to STOPPED", launched.stop),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn seen(launched: &Launched, phase: Phase) -> Option<Duration> {
    launched.phases.iter().find(|(seen, _)| *seen >= phase).map(|(_, after)| *after)
}

/// What a phase of more than so many seconds means.
const LONG: [(&str, f64, &str, &str); 6] = [
    (
        "placement",
        30.0,
        "AWS found machine and network interface slowly, as it does at busy times and on Spot",
        "nothing of yours makes it faster; a capacity provider with instances of your own does",
    ),
    (
        "image-pull",
        20.0,
        "Fargate keeps no image from one task to the next, so every job waits for this and pays for it",
        "make the image smaller; keep it in ECR of the same Region; compress its layers by zstd; index images of more than about 250 MB with SOCI; more vCPU pull faster",
    ),
    (
        "container-start",
        20.0,
        "other containers that it waits for (`dependsOn`), secrets or volumes take their time",
        "look at `dependsOn` and at health checks of the task definition",
    ),
    (
        "ssh",
        5.0,
        "the image's entry script does much before it starts the SSH server",
        "do in the image's build what the entry script does; start `sshd` first",
    ),
    (
        "run-task",
        3.0,
        "AWS answered slowly, or the way to it is long",
        "run the manager in the cluster's Region, with a VPC endpoint for ECS",
    ),
    (
        "stop",
        35.0,
        "the container did not end on SIGTERM, and ECS waits `stopTimeout` (30 s) before it kills it; the time is paid for",
        "let the entry script `exec` the server, or run it under tini, so that SIGTERM reaches it",
    ),
];

/// What the launch came to.
pub(super) fn judge(
    about: &str,
    placement: &Placement,
    definition: &TaskDefinition,
    launched: &Launched,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(error) = &launched.left {
        let task = launched.task.as_ref().map_or("its task", |task| task.0.as_str());
        findings.push(
            Finding::failure("launch-left", about, format!("{task} could not be stopped: {error}"))
                .why("it goes on and costs money; it carries a deadline, at which a sweep stops it")
                .run("pointsman sweep")
                .run(format!("aws ecs stop-task --cluster CLUSTER --task {task}")),
        );
    }
    match failed(about, launched) {
        Some(finding) => findings.push(finding),
        None => {
            let total = launched.ssh.or(seen(launched, Phase::Running)).unwrap_or_default();
            findings.push(Finding::ok(
                "launch",
                about,
                format!("a task started, ran a script and was stopped, so RunTask with tags and this task's roles, DescribeTasks and StopTask are allowed; a job would have waited {:.1} s for it ({placement})", total.as_secs_f64()),
            ));
            findings.extend(judge_task(about, placement, definition, launched));
        }
    }
    findings.extend(judge_times(about, launched));
    findings
}

fn failed(about: &str, launched: &Launched) -> Option<Finding> {
    let finding = match &launched.ended {
        Ended::Done => return None,
        Ended::Interrupted if launched.run_task.is_none() => Finding::warning(
            "launch-interrupted",
            about,
            "interrupted before anything was started",
        )
        .why("what a launch would have told is not known")
        .run("pointsman doctor --launch"),
        Ended::Interrupted => Finding::warning("launch-interrupted", about, "the launch was interrupted; its task was told to stop")
            .why("what was not reached is not known")
            .run("pointsman doctor --launch"),
        Ended::Refused(error) => Finding::failure("launch-refused", about, format!("RunTask started nothing: {error}"))
            .why("a job with this placement would fail, or go on with the next placement")
            .change(error.hint.as_deref().or(error.cause.remedy()).unwrap_or("AWS's own words are all there is")),
        Ended::NotSeen(error) => Finding::failure("launch-not-seen", about, format!("the task could not be looked at: {error}"))
            .why("the driver learns a task's address by DescribeTasks only")
            .change(error.hint.as_deref().unwrap_or("try again")),
        Ended::Stopped(stopped) => {
            let reasons: Vec<String> = std::iter::once(&stopped.reason)
                .chain(stopped.containers.iter().map(|container| &container.reason))
                .filter(|reason| !reason.is_empty())
                .cloned()
                .collect();
            Finding::failure("launch-stopped", about, format!("the task stopped before it was reached: {} ({}: {})", stopped.cause.words(), stopped.code, list(&reasons)))
                .why("a job's task would stop in the same way")
                .change(stopped.cause.remedy().unwrap_or("look at the container's log and at the task in the ECS console"))
        }
        Ended::TooSlow(after) => Finding::failure("launch-slow", about, format!("the task does not run after {} s", after.as_secs()))
            .why("`start_timeout` of the cluster is over: a job would go on with the next placement, or fail")
            .change("raise `start_timeout` of the cluster, or look at the task's events in the ECS console"),
        Ended::NotReachable { error, hint } => Finding::failure("launch-not-reachable", about, format!("the task runs, but cannot be reached over SSH: {error}"))
            .why("no script can be run in it")
            .change(hint.clone()),
        Ended::Script(error) => Finding::failure("launch-script", about, format!("the task was reached, but the script did not run to its end: {error}"))
            .why("scripts of jobs would fail in the same way")
            .change("look at the login shell of the task's user, and at the container's log"),
    };
    Some(finding)
}

fn judge_times(about: &str, launched: &Launched) -> Vec<Finding> {
    let rows = rows(launched);
    LONG.iter()
        .filter_map(|(phase, limit, why, remedy)| {
            let row = rows.iter().find(|row| row.phase == *phase && row.seconds > *limit)?;
            Some(
                Finding::note("launch-long", about, format!("{}: {:.1} s", row.words, row.seconds))
                    .why(*why)
                    .change(*remedy),
            )
        })
        .collect()
}

/// What the script has found in the task.
fn judge_task(
    about: &str,
    placement: &Placement,
    definition: &TaskDefinition,
    launched: &Launched,
) -> Vec<Finding> {
    let name = &placement.task_definition;
    let said = |key: &str| {
        launched.said.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    };
    let has = |tool: &str| launched.said.iter().any(|(key, value)| key == "has" && value == tool);
    let mut findings = Vec::new();
    let machine = said("arch").unwrap_or_default();
    let arch = match machine {
        "x86_64" | "amd64" => Some(Arch::X86_64),
        "aarch64" | "arm64" => Some(Arch::Arm64),
        _ => None,
    };
    // Simulated tasks are processes of this machine, whatever their task definition says.
    if said("simulated").is_none() && arch.is_some_and(|arch| arch != placement.arch) {
        findings.push(
            Finding::failure("launch-architecture", about, format!("the task runs on {machine}, its placement says {}", placement.arch))
                .why("jobs would run on another architecture than was decided")
                .change(format!("correct `x86_64` and `arm64` of [task_definitions.{name}], or `runtimePlatform` of the ECS task definition")),
        );
    }
    if definition.shell == Shell::Bash && !has("bash") {
        findings.push(
            Finding::failure("image-no-bash", about, "the image has no bash")
                .why("GitLab Runner generates the job's scripts for bash: each would fail with exit code 127")
                .change(format!("install bash in the image, or set `shell = \"sh\"` of [task_definitions.{name}]")),
        );
    }
    if !has("git") {
        findings.push(
            Finding::failure("image-no-git", about, "the image has no git")
                .why("GitLab Runner's script fetches the sources inside of the task")
                .change("install git (and git-lfs, where repositories use it) in the image"),
        );
    }
    if !has("gitlab-runner") {
        findings.push(
            Finding::warning("image-no-runner", about, "the image has no gitlab-runner")
                .why("artifacts and caches are fetched and sent by the gitlab-runner of the image: jobs without them work, others fail in `download_artifacts` or lose theirs with a warning")
                .change("install the gitlab-runner package in the image; nothing of it has to run"),
        );
    }
    if let Some(builds) = &definition.builds_dir
        && said("builds").is_none()
    {
        findings.push(
            Finding::failure("builds-not-writable", about, format!("{builds} cannot be written to by the task's user {}", said("user").unwrap_or_default()))
                .why("the sources are cloned into it")
                .change(format!("make it in the image and give it to that user, or set `builds_dir` of [task_definitions.{name}]")),
        );
    }
    if said("gitlab") == Some("000") {
        findings.push(
            Finding::failure("task-no-gitlab", about, "GitLab cannot be reached from the task")
                .why("the sources are cloned by the task itself, over the subnet's routes and not the manager's")
                .change("let the subnet's routes, the security group's egress and GitLab's own firewall lead from the task to GitLab"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "image",
            about,
            format!("the image has what GitLab Runner's scripts need, on {machine}"),
        ));
    }
    findings
}

/// `key=value` lines of the script's output.
pub(super) fn read_said(output: &str) -> Vec<(String, String)> {
    output
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// The script: what a task has to have, a line each.
pub(super) fn script(definition: &TaskDefinition, gitlab: Option<&str>) -> String {
    let mut script = String::from(
        "echo \"arch=$(uname -m)\"\n\
         echo \"user=$(id -un 2>/dev/null || id -u)\"\n\
         [ -z \"$POINTSMAN_TASK_ROOT\" ] || echo simulated=yes\n\
         for tool in bash git gitlab-runner; do\n\
         command -v \"$tool\" >/dev/null 2>&1 && echo \"has=$tool\"\n\
         done\n",
    );
    // Where GitLab Runner's own file says it, it is not known here.
    if let Some(builds) = &definition.builds_dir {
        script.push_str(&format!(
            "builds=\"$POINTSMAN_TASK_ROOT\"{}\n\
             mkdir -p \"$builds\" 2>/dev/null && [ -w \"$builds\" ] && echo builds=writable\n",
            quote(builds)
        ));
    }
    if let Some(url) = gitlab {
        // `000` is curl's own word for no answer at all.
        script.push_str(&format!(
            "if command -v curl >/dev/null 2>&1; then\n\
             echo \"gitlab=$(curl -sk -m 10 -o /dev/null -w '%{{http_code}}' {})\"\n\
             fi\n",
            quote(&format!("{url}/api/v4/job"))
        ));
    }
    script.push_str("exit 0\n");
    script
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::Cause;
    use crate::doctor::finding::Severity;
    use crate::placement::{Capacity, size::Size};
    use crate::settings::{HostKeySource, SshServer, TaskSsh};

    fn definition() -> TaskDefinition {
        TaskDefinition {
            by_arch: BTreeMap::new(),
            container: "ci-coordinator".into(),
            size: Size::DEFAULT,
            builds_dir: Some("/builds".into()),
            cache_dir: Some("/cache".into()),
            shell: Shell::Bash,
            ssh: TaskSsh {
                server: SshServer::Openssh,
                user: "root".into(),
                port: 22,
                host_key: HostKeySource::FirstContact,
            },
            labels: BTreeMap::new(),
        }
    }

    fn placement() -> Placement {
        Placement {
            cluster: "dev".into(),
            task_definition: "node".into(),
            arch: Arch::X86_64,
            capacity: Capacity::OnDemand,
            size: Size::DEFAULT,
            ephemeral_storage_gib: None,
            role: None,
            labels: BTreeMap::new(),
            reason: String::new(),
        }
    }

    fn launched() -> Launched {
        let at = |second: i64| Some(Timestamp::from_second(1_700_000_000 + second).unwrap());
        let seconds = Duration::from_secs;
        Launched {
            task: Some(TaskId("arn:task".into())),
            run_task: Some(Duration::from_millis(420)),
            phases: vec![
                (Phase::Provisioning, seconds(0)),
                (Phase::Pending, seconds(12)),
                (Phase::Running, seconds(20)),
            ],
            address: Some(("10.0.1.9:22".parse().unwrap(), seconds(12))),
            ssh: Some(seconds(21)),
            script: Some(Duration::from_millis(300)),
            stop: Some(seconds(30)),
            times: Times {
                created_at: at(0),
                pull_started_at: at(13),
                pull_stopped_at: at(18),
                started_at: at(20),
                stopped_at: None,
            },
            said: read_said(
                "arch=x86_64\nuser=root\nhas=bash\nhas=git\nhas=gitlab-runner\nbuilds=writable\nnoise\n",
            ),
            ended: Ended::Done,
            left: None,
        }
    }

    fn names(launched: &Launched) -> Vec<&'static str> {
        let findings = judge("launch", &placement(), &definition(), launched);
        for finding in findings.iter().filter(|finding| finding.severity > Severity::Ok) {
            assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
        }
        findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn phases_are_told_in_their_order() {
        let rows = rows(&launched());
        let table: Vec<(&str, f64)> = rows.iter().map(|row| (row.phase, row.seconds)).collect();
        assert_eq!(
            table,
            [
                ("run-task", 0.4),
                ("placement", 13.0),
                ("image-pull", 5.0),
                ("container-start", 2.0),
                ("running", 20.0),
                ("address", 12.0),
                ("ssh", 1.0),
                ("script", 0.3),
                ("stop", 30.0),
            ]
        );
        assert_eq!(super::rows(&Launched::default()), []);
    }

    #[test]
    fn every_end_has_its_finding() {
        let error = || BackendError::new("RunTask", "code", "message");
        let stopped =
            Stopped { cause: Cause::Pull, code: "TaskFailedToStart".into(), ..Stopped::default() };
        let text = || "no answer".to_owned();
        for (ended, expected) in [
            (Ended::Done, vec!["launch", "image"]),
            (Ended::Interrupted, vec!["launch-interrupted"]),
            (Ended::Refused(error()), vec!["launch-refused"]),
            (Ended::NotSeen(error()), vec!["launch-not-seen"]),
            (Ended::Stopped(stopped), vec!["launch-stopped"]),
            (Ended::TooSlow(Duration::from_secs(600)), vec!["launch-slow"]),
            (Ended::NotReachable { error: text(), hint: text() }, vec!["launch-not-reachable"]),
            (Ended::Script(text()), vec!["launch-script"]),
        ] {
            assert_eq!(names(&Launched { ended, ..launched() }), expected);
        }
        let left = Launched { left: Some("denied".into()), ..launched() };
        assert_eq!(names(&left)[0], "launch-left");
    }

    #[test]
    fn what_took_long_is_explained() {
        let mut slow = launched();
        slow.times.pull_stopped_at =
            slow.times.pull_started_at.map(|at| at + Duration::from_secs(40));
        slow.ssh = Some(Duration::from_secs(40));
        slow.stop = Some(Duration::from_secs(66));
        let findings = judge("launch", &placement(), &definition(), &slow);
        let long: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.name == "launch-long")
            .map(|finding| finding.what.as_str())
            .collect();
        assert_eq!(
            long,
            [
                "the image was pulled: 40.0 s",
                "from RUNNING to an SSH session: 20.0 s",
                "from StopTask to STOPPED: 66.0 s"
            ]
        );
    }

    #[test]
    fn what_the_task_lacks_is_told() {
        let without = |line: &str, more: &str| {
            let all =
                "arch=x86_64\nuser=root\nhas=bash\nhas=git\nhas=gitlab-runner\nbuilds=writable\n";
            let said = read_said(&format!("{}{more}\n", all.replace(line, "")));
            names(&Launched { said, ..launched() })[1..].to_vec()
        };
        assert_eq!(without("has=bash\n", ""), ["image-no-bash"]);
        assert_eq!(without("has=git\n", ""), ["image-no-git"]);
        assert_eq!(without("has=gitlab-runner\n", ""), ["image-no-runner"]);
        assert_eq!(without("builds=writable\n", ""), ["builds-not-writable"]);
        assert_eq!(without("", "gitlab=000"), ["task-no-gitlab"]);
        assert_eq!(without("", "gitlab=401"), ["image"]);
        assert_eq!(without("arch=x86_64\n", "arch=aarch64"), ["launch-architecture"]);
        assert_eq!(without("arch=x86_64\n", "arch=aarch64\nsimulated=yes"), ["image"]);
    }

    #[test]
    fn the_script_is_a_script() {
        let mut definition = definition();
        definition.builds_dir = Some("/builds/o'brien".into());
        let text = script(&definition, Some("https://gitlab.example.com"));
        let output =
            std::process::Command::new("sh").arg("-n").arg("-c").arg(&text).output().unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("'/builds/o'\\''brien'"), "{text}");
    }
}
