//! Rehearsals against a driver of bash that runs scripts on the spot and maps their exit codes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::placement::Arch;
use crate::placement::bounds::Bounds;
use crate::placement::size::Size;
use crate::settings::{
    AddressKind, ClaimsTaint, Cluster, EcsCluster, HostKeySource, LaunchKind, LogSettings,
    NetworkMode, Profile, Role, Shell, SshServer, SshTimes, TaskDefinition, TaskSsh,
};

/// It notes every call in `$FAKE/calls`, and fails as files in `$FAKE` tell it: `config-fails` and
/// `prepare-fails` hold an exit code for each call to come, `run-exits` a code for `build_script`.
const FAKE_DRIVER: &str = r#"#!/bin/bash
set -u
[ "$1 $3 $5 $7" = "--config --profile --state-directory --rehearsed-tags" ] || exit 99
config=$2 profile=$4 state=$6
shift 8
job=$CUSTOM_ENV_CI_JOB_NAME
note() { echo "$job: $*" >> "$FAKE/calls"; }
fails() {
  [ -s "$FAKE/$1-fails" ] || return 0
  code=$(head -n 1 "$FAKE/$1-fails"); sed -i 1d "$FAKE/$1-fails"
  [ "$code" = 0 ] || { note "$1 exits with $code"; exit "$code"; }
}
[ -f "$config" ] && [ -f "$JOB_RESPONSE_FILE" ] && [ "$PWD" = "$TMPDIR" ] || exit 98
[ "$(ps -o pgid= $$ | tr -d ' ')" = $$ ] || exit 97
root=$FAKE/task-$CUSTOM_ENV_CI_JOB_ID
case $1 in
  config)
    note "config $profile"
    [ -z "$CUSTOM_ENV_CI_PROJECT_DIR" ] || [ -e "$FAKE/config-fails" ] || [ -e "$FAKE/prepare-fails" ] || exit 96
    fails config
    echo "deciding" >&2
    echo '{"driver":{"name":"fake","version":"1"},"hostname":"fake-task","builds_dir":"/builds",
      "cache_dir":"/cache","shell":"bash","job_env":{"FAKE_ATTEMPT":"yes","PATH":"'"$PATH"'"}}' ;;
  prepare)
    note prepare
    [ "$FAKE_ATTEMPT" = yes ] && [[ "$CUSTOM_ENV_CI_PROJECT_DIR" = /builds/rehearsal/* ]] || exit 95
    mkdir -p "$root"
    fails prepare ;;
  run)
    note "run $3 ($CUSTOM_ENV_CI_JOB_STATUS)"
    [ -x "$2" ] && [ "$FAKE_ATTEMPT" = yes ] || exit 94
    [ -e "$FAKE/elsewhere" ] && grep -q pointsman-rehearsal "$2" && exit 93
    [ "$3" = build_script ] && [ -e "$FAKE/run-exits" ] && exit "$(cat "$FAKE/run-exits")"
    trap 'note "TERM during $3"; exit "$SYSTEM_FAILURE_EXIT_CODE"' TERM
    POINTSMAN_TASK_ROOT=$root bash < "$2"
    code=$?
    [ $code = 0 ] && exit 0
    echo $code > "$BUILD_EXIT_CODE_FILE"
    exit "$BUILD_FAILURE_EXIT_CODE" ;;
  cleanup)
    note "cleanup ${FAKE_ATTEMPT:-without job_env}"
    mkdir -p "$state/records"
    echo '{"job":{"id":'"$CUSTOM_ENV_CI_JOB_ID"'},"placement":{"cluster":"dev","task_definition":"node","arch":"x86_64",
      "capacity":"spot","size":{"cpu_units":1024,"memory_mib":2048},"role":null,"reason":"it is a fake"}}' \
      > "$state/records/$CUSTOM_ENV_CI_JOB_ID.json"
    rm -rf "$root" ;;
esac
"#;

struct Stand {
    root: tempfile::TempDir,
    settings: Settings,
}

struct Seen {
    report: Report,
    log: String,
    calls: Vec<String>,
}

impl Stand {
    fn new(pipeline: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let stand = Self { root, settings: settings() };
        std::fs::create_dir_all(stand.path("project/scripts")).unwrap();
        std::fs::create_dir_all(stand.path("fake")).unwrap();
        stand.write("project/.gitlab-ci.yml", pipeline);
        stand.write("pointsman.toml", "");
        stand.write("driver", FAKE_DRIVER);
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(stand.path("driver"), executable).unwrap();
        stand
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn options(&self) -> Options<'_> {
        let mut environment: Vec<_> = crate::environment::all();
        environment.push(("FAKE".into(), self.path("fake").into()));
        Options {
            pipeline: self.path("project/.gitlab-ci.yml"),
            settings_path: self.path("pointsman.toml"),
            settings: &self.settings,
            driver: self.path("driver"),
            state_directory: self.path("state"),
            concurrent: 4,
            backend: Backend::Simulator,
            scenario: None,
            only: Vec::new(),
            repository: None,
            variables: Vec::new(),
            environment,
            colour: false,
            patience: Patience {
                graceful_kill: Duration::from_secs(5),
                prepare_retry: Duration::from_millis(1),
                stage_retry: Duration::from_millis(1),
                ..Patience::default()
            },
            interrupt: Arc::default(),
        }
    }

    fn play(&self) -> Seen {
        self.play_with(&self.options())
    }

    fn play_with(&self, options: &Options<'_>) -> Seen {
        let mut out = Vec::new();
        let report = rehearse(options, &mut out).unwrap();
        let calls = std::fs::read_to_string(self.path("fake/calls")).unwrap_or_default();
        let log = String::from_utf8(out).unwrap();
        let left: Vec<_> = std::fs::read_dir(self.path("fake"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("task-"))
            .collect();
        assert_eq!(left, [""; 0], "every prepared attempt is cleaned up\n{log}");
        Seen { report, log, calls: calls.lines().map(str::to_owned).collect() }
    }
}

fn profile(tags: &[&str]) -> Profile {
    Profile {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        policies: vec!["any".to_owned()],
        monitor: BTreeSet::new(),
        bounds: Bounds::default(),
        claims_taint: ClaimsTaint::Allow,
        default: None,
    }
}

fn settings() -> Settings {
    Settings {
        automatic_sweep: false,
        log: LogSettings::default(),
        state_directory: "/nowhere".into(),
        manager: "rehearsal".to_owned(),
        gitlab: None,
        ssh: SshTimes {
            ready_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(15),
            resume_timeout: Duration::from_secs(20),
            stop_grace: Duration::from_secs(10),
        },
        clusters: BTreeMap::new(),
        task_definitions: BTreeMap::new(),
        roles: BTreeMap::new(),
        policies: BTreeMap::new(),
        profiles: BTreeMap::from([
            ("both".to_owned(), profile(&["dev", "staging", "linux"])),
            ("dev".to_owned(), profile(&["dev", "linux"])),
        ]),
    }
}

/// With one of everything that ECS has.
pub(super) fn settings_with_a_cluster() -> Settings {
    let mut settings = settings();
    let backend = ClusterBackend::Ecs(Box::new(EcsCluster {
        region: "eu-west-1".to_owned(),
        cluster: "acme-dev".to_owned(),
        subnets: vec!["subnet-1".to_owned(), "subnet-2".to_owned()],
        security_groups: vec!["sg-1".to_owned()],
        assign_public_ip: false,
        on_demand_provider: Some("mine".to_owned()),
        spot_provider: Some("FARGATE_SPOT".to_owned()),
        platform_version: None,
        launch: LaunchKind::Fargate,
        network_mode: NetworkMode::Awsvpc,
        address: AddressKind::Private,
        execution_role: None,
        enable_execute_command: false,
        propagate_tags: false,
        profile: None,
        assume_role: None,
        start_timeout: Duration::from_secs(600),
        request_quota: 1,
    }));
    settings.clusters.insert("dev".to_owned(), Cluster { labels: BTreeMap::new(), backend });
    let arn = "arn:aws:iam::364050767034:role/dev-deploy".to_owned();
    settings.roles.insert("dev-deploy".to_owned(), Role { arn, privileged: false });
    let definition = TaskDefinition {
        by_arch: BTreeMap::from([
            (Arch::X86_64, "arn:aws:ecs:eu-west-1:364050767034:task-definition/node:2".to_owned()),
            (Arch::Arm64, "node-arm".to_owned()),
        ]),
        container: "ci-coordinator".to_owned(),
        size: Size::DEFAULT,
        builds_dir: Some("/builds".to_owned()),
        cache_dir: Some("/cache".to_owned()),
        shell: Shell::Bash,
        ssh: TaskSsh {
            server: SshServer::Agent,
            user: "root".to_owned(),
            port: 2222,
            host_key: HostKeySource::Injected,
        },
        labels: BTreeMap::new(),
    };
    settings.task_definitions.insert("node".to_owned(), definition);
    settings
}

fn outcomes(seen: &Seen) -> Vec<(&str, Outcome)> {
    seen.report.jobs.iter().map(|job| (job.name.as_str(), job.outcome)).collect()
}

#[test]
fn a_job_goes_through_all_sub_stages() {
    let stand = Stand::new(
        "
j:
  tags: [dev]
  variables: {GREETING: 'hello $CI_JOB_NAME'}
  before_script: [echo before]
  script: ['echo \"$GREETING\" in \"$(basename \"$PWD\")\"', cat .gitlab-ci.yml > copy, 'test \"$PWD\" = \"$CI_PROJECT_DIR\"']
  after_script: ['echo after $CI_JOB_STATUS']
  artifacts: {paths: [copy]}
",
    );
    let seen = stand.play();
    assert!(seen.report.success, "{}", seen.log);
    assert_eq!(
        seen.calls,
        [
            "j: config dev",
            "j: prepare",
            "j: run prepare_script (running)",
            "j: run get_sources (running)",
            "j: run build_script (running)",
            "j: run after_script (success)",
            "j: run upload_artifacts_on_success (success)",
            "j: run cleanup_file_variables (success)",
            "j: cleanup yes",
        ]
    );
    let lines: Vec<_> = seen.log.lines().collect();
    assert!(lines[0].contains("run on this machine, as the user who started it"), "{}", lines[0]);
    for expected in [
        "j | deciding",
        "j | Using Custom executor with driver fake 1...",
        "j | $ echo before",
        "j | before",
        "j | hello j in project",
        "j | after success",
        "j | copy: found 1 matching artifact files and directories",
        "j | Job succeeded",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{}", seen.log);
    }
    let one = &seen.report.jobs[0].tries[0];
    assert_eq!(one.placement.as_ref().unwrap().reason, "it is a fake");
    assert!(one.running_seconds > 0.0 && one.cost_usd.is_none());

    let json = serde_json::to_value(&seen.report).unwrap();
    assert_eq!(json["success"], true);
    assert_eq!(json["jobs"][0]["outcome"], "success");
    assert_eq!(json["jobs"][0]["tries"][0]["placement"]["capacity"], "spot");
    assert_eq!(json["tasks"], serde_json::Value::Null);
}

#[test]
fn a_failing_script_gives_its_exit_code_and_runs_after_script() {
    let stand = Stand::new(
        "
stages: [one, two]
allowed: {stage: one, script: [exit 42], allow_failure: {exit_codes: [42]}, after_script: ['echo after $CI_JOB_STATUS'], artifacts: {paths: [x], when: on_failure}}
fails: {stage: two, script: [exit 43], allow_failure: {exit_codes: [42]}, artifacts: {paths: [x]}}
cleans: {stage: .post, script: [echo cleaned], when: on_failure}
never: {stage: .post, script: [echo never]}
",
    );
    let seen = stand.play();
    assert!(!seen.report.success);
    assert_eq!(
        outcomes(&seen),
        [
            ("allowed", Outcome::AllowedFailure),
            ("fails", Outcome::Failed),
            ("cleans", Outcome::Success),
            ("never", Outcome::Skipped)
        ]
    );
    assert_eq!(seen.report.jobs[0].tries[0].exit_code, Some(42));
    assert!(seen.log.contains("allowed | after failed"), "{}", seen.log);
    assert!(seen.log.contains("fails   | ERROR: Job failed: exit status 43"), "{}", seen.log);
    let uploads: Vec<_> = seen.calls.iter().filter(|call| call.contains("upload")).collect();
    assert_eq!(uploads, ["allowed: run upload_artifacts_on_failure (failed)"]);
    assert_eq!(seen.report.jobs[3].why.as_deref(), Some("`fails` before it failed"));
}

#[test]
fn prepare_is_tried_three_times_with_a_cleanup_for_each() {
    let stand = Stand::new("j: {script: [echo worked]}");
    stand.write("fake/prepare-fails", "2\n2\n");
    let seen = stand.play();
    assert!(seen.report.success, "{}", seen.log);
    let early: Vec<_> = seen.calls.iter().take_while(|call| !call.contains("run")).collect();
    assert_eq!(
        early,
        [
            "j: config dev",
            "j: prepare",
            "j: prepare exits with 2",
            "j: cleanup yes",
            "j: config dev",
            "j: prepare",
            "j: prepare exits with 2",
            "j: cleanup yes",
            "j: config dev",
            "j: prepare",
        ]
    );
    assert_eq!(seen.log.matches("ERROR: Preparation failed: exit status 2").count(), 2);

    let stand = Stand::new("j: {script: [echo never]}");
    stand.write("fake/config-fails", "2\n2\n2\n");
    let seen = stand.play();
    assert_eq!(outcomes(&seen), [("j", Outcome::Failed)]);
    assert_eq!(seen.report.jobs[0].tries[0].failure_reason, Some(Reason::RunnerSystemFailure));
    assert_eq!(seen.calls.iter().filter(|call| *call == "j: cleanup without job_env").count(), 3);
}

#[test]
fn a_build_failure_in_prepare_is_not_tried_again() {
    let stand = Stand::new("j: {script: [echo never]}");
    stand.write("fake/prepare-fails", "1\n");
    let seen = stand.play();
    assert_eq!(
        seen.calls,
        ["j: config dev", "j: prepare", "j: prepare exits with 1", "j: cleanup yes"]
    );
    let one = &seen.report.jobs[0].tries[0];
    assert_eq!((one.failure_reason, one.exit_code), (Some(Reason::ScriptFailure), Some(1)));
}

#[test]
fn artifacts_are_passed_on() {
    let stand = Stand::new(
        "
stages: [build, test]
a: {stage: build, script: [mkdir -p out, 'echo from-a > out/a', 'echo \"$TOKEN\"'], artifacts: {paths: [./out]}}
b: {stage: build, parallel: 2, script: ['echo $CI_NODE_INDEX > b-$CI_NODE_INDEX'], artifacts: {paths: ['b-*']}}
all: {stage: test, script: [cat out/a b-1 b-2]}
one: {stage: test, needs: [a], script: [cat out/a, test ! -e b-1]}
none: {stage: test, dependencies: [], script: [test ! -e out]}
",
    );
    let mut options = stand.options();
    options.variables = vec![ProjectVariable {
        key: "TOKEN".to_owned(),
        value: crate::secret::Secret::new("sesame-open".to_owned()),
        masked: true,
        file: false,
    }];
    let seen = stand.play_with(&options);
    assert!(seen.report.success, "{}", seen.log);
    assert!(seen.log.contains("Downloading artifacts for b 1/2"), "{}", seen.log);
    assert!(
        seen.log.contains("a     | [MASKED]") && !seen.log.contains("sesame-open"),
        "{}",
        seen.log
    );
    assert!(!seen.calls.contains(&"none: run download_artifacts (running)".to_owned()));
    assert!(seen.calls.contains(&"one: run download_artifacts (running)".to_owned()));
}

#[test]
fn a_job_whose_tags_no_profile_has_is_stuck() {
    let stand = Stand::new(
        "{j: {tags: [dev, staging], script: [echo yes]}, k: {tags: [production], script: [x]}}",
    );
    let seen = stand.play();
    assert_eq!(outcomes(&seen), [("j", Outcome::Success), ("k", Outcome::Stuck)]);
    assert_eq!(seen.report.jobs[0].tries[0].profile, "both");
    assert!(!seen.report.success);
    assert_eq!(
        seen.report.jobs[1].why.as_deref(),
        Some(
            "stuck: no profile has all of its tags `production`: `both` has `dev` `linux` `staging`, `dev` has `dev` `linux`"
        )
    );
}

#[test]
fn an_unknown_exit_code_is_a_system_failure_and_the_later_stages_still_run() {
    let stand = Stand::new(
        "j: {script: [echo never], after_script: [echo after], retry: {max: 1, when: [runner_system_failure]}}",
    );
    stand.write("fake/run-exits", "101");
    let seen = stand.play();
    assert_eq!(outcomes(&seen), [("j", Outcome::Failed)]);
    assert_eq!(seen.report.jobs[0].tries.len(), 2, "retried once");
    let line = "ERROR: Job failed (system failure): unknown Custom executor executable exit code 101; executable execution terminated with: exit status 101";
    assert!(seen.log.contains(line), "{}", seen.log);
    assert_eq!(seen.calls.iter().filter(|call| *call == "j: run after_script (failed)").count(), 2);
}

#[test]
fn a_script_timeout_is_a_sigterm_and_after_script_still_runs() {
    let stand = Stand::new(
        "j: {script: [sleep 60], after_script: ['echo after $CI_JOB_STATUS'], variables: {RUNNER_SCRIPT_TIMEOUT: 1500ms}}",
    );
    let started = Instant::now();
    let seen = stand.play();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(seen.calls.contains(&"j: TERM during build_script".to_owned()), "{:?}", seen.calls);
    assert!(seen.log.contains("j | after timedout"), "{}", seen.log);
    let one = &seen.report.jobs[0].tries[0];
    assert_eq!(one.failure_reason, Some(Reason::JobExecutionTimeout));
}

#[test]
fn a_job_timeout_ends_the_job_without_further_stages() {
    let stand = Stand::new("j: {script: [sleep 60], after_script: [echo never], timeout: 5s}");
    let seen = stand.play();
    let [.., ended, last] = seen.calls.as_slice() else { panic!("{:?}", seen.calls) };
    // On a busy machine an earlier sub-stage may be the one that is ended.
    assert!(ended.starts_with("j: TERM during "), "{ended}");
    assert_eq!(last, "j: cleanup yes");
    let one = &seen.report.jobs[0].tries[0];
    assert_eq!(one.failure_reason, Some(Reason::JobExecutionTimeout));
    assert!(!seen.log.contains("never"), "{}", seen.log);
}

#[test]
fn an_interrupt_cleans_up_and_starts_nothing_more() {
    let stand = Stand::new(
        "{stages: [a, b], j: {stage: a, script: [sleep 60]}, k: {stage: b, script: [echo never]}}",
    );
    let options = stand.options();
    let interrupt = Arc::clone(&options.interrupt);
    let calls = stand.path("fake/calls");
    let seen = std::thread::scope(|scope| {
        scope.spawn(move || {
            let started = Instant::now();
            while !std::fs::read_to_string(&calls).unwrap_or_default().contains("build_script") {
                assert!(started.elapsed() < Duration::from_secs(30));
                std::thread::sleep(Duration::from_millis(10));
            }
            interrupt.raise();
        });
        stand.play_with(&options)
    });
    assert_eq!(outcomes(&seen), [("j", Outcome::Canceled), ("k", Outcome::Canceled)]);
    assert!(seen.report.interrupted && !seen.report.success);
    assert_eq!(seen.calls.last().map(String::as_str), Some("j: cleanup yes"));
}

#[test]
fn only_named_jobs_run() {
    let stand = Stand::new(
        "{stages: [a, b], j: {stage: a, script: [exit 1]}, k: {stage: b, script: [echo yes]}}",
    );
    let mut options = stand.options();
    options.only = vec!["k".to_owned()];
    let seen = stand.play_with(&options);
    assert_eq!(outcomes(&seen), [("j", Outcome::LeftOut), ("k", Outcome::Success)]);
    options.only = vec!["gone".to_owned()];
    let error = rehearse(&options, &mut Vec::new()).unwrap_err().to_string();
    assert_eq!(error, "`gone` is no job of the pipeline: there is `j`, `k`");
}

#[test]
fn get_sources_is_tried_again_after_clearing_the_work_tree() {
    let stand = Stand::new(
        "j: {script: [echo yes], variables: {GET_SOURCES_ATTEMPTS: '2', GIT_CONFIG_COUNT: 'none'}}",
    );
    let seen = stand.play();
    let names: Vec<_> =
        seen.calls.iter().map(|call| call.split(' ').nth(2).unwrap_or("")).collect();
    assert!(
        names.windows(3).any(|three| three == ["get_sources", "clear_worktree", "get_sources"]),
        "{names:?}\n{}",
        seen.log
    );
    assert_eq!(outcomes(&seen), [("j", Outcome::Failed)]);
}

#[test]
fn a_driver_that_is_not_there_and_a_simulator_that_is_not_there() {
    let mut stand = Stand::new("j: {script: [echo never]}");
    let mut options = stand.options();
    options.driver = stand.path("gone");
    let seen = stand.play_with(&options);
    assert!(
        seen.log.contains("ERROR: Preparation failed: failed to start command: "),
        "{}",
        seen.log
    );

    stand.settings = settings_with_a_cluster();
    let error = rehearse(&stand.options(), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.starts_with("`pointsman-simulator` is not in "), "{error}");
}

#[test]
fn the_three_environments_example_plays() {
    let mut stand = Stand::new("{}");
    let profiles = ["dev", "staging", "production"].map(|tag| (tag.to_owned(), profile(&[tag])));
    stand.settings.profiles = profiles.into();
    let mut options = stand.options();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/three-environments");
    options.pipeline = example.join(".gitlab-ci.yml");
    let seen = stand.play_with(&options);
    assert!(seen.report.success, "{}", seen.log);
    let profiles: Vec<_> = seen
        .report
        .jobs
        .iter()
        .map(|job| (job.name.as_str(), job.tries[0].profile.as_str()))
        .collect();
    assert_eq!(
        profiles,
        [
            ("build-dev", "dev"),
            ("deploy-dev", "dev"),
            ("build-staging", "staging"),
            ("deploy-staging", "staging"),
            ("build-production", "production"),
            ("deploy-production", "production"),
        ]
    );
    let deployed = seen.log.lines().filter(|line| line.contains("| Would deploy commit ")).count();
    assert_eq!(deployed, 3, "{}", seen.log);
}

#[test]
fn tasks_elsewhere_get_sources_and_artifacts_in_scripts_and_give_artifacts_back_over_the_log() {
    let mut stand = Stand::new(
        "
stages: [a, b]
j: {stage: a, script: [mkdir out, head -c 300000 /dev/urandom > out/random, sha256sum out/random > out/sum], artifacts: {paths: [out]}}
k: {stage: b, script: [sha256sum --check out/sum, git log -1, test -f .gitlab-ci.yml]}
",
    );
    stand.settings = settings_with_a_cluster();
    stand.settings.profiles = settings().profiles;
    stand.write("fake/elsewhere", "");
    let mut options = stand.options();
    options.backend = Backend::AsConfigured;
    let seen = stand.play_with(&options);
    assert!(seen.report.success, "{}", seen.log);
    assert!(seen.log.contains("k | out/random: OK"), "{}", seen.log);
    assert!(!seen.log.contains("pointsman-artifacts:"), "nothing carried is shown");
    assert!(seen.log.contains("tasks start there, with your credentials, and cost money"));
    assert_eq!(seen.report.tasks, None);
}

#[test]
fn jobs_of_a_stage_run_side_by_side_as_far_as_they_may() {
    // Each waits until the other has begun.
    let meet = |own: &str, other: &str| {
        format!(
            "{own}: {{script: ['touch \"$FAKE/{own}\"', 'until [ -e \"$FAKE/{other}\" ]; do sleep 0.05; done']}}"
        )
    };
    let stand = Stand::new(&format!("{{{}, {}}}", meet("a", "b"), meet("b", "a")));
    let seen = stand.play();
    assert!(seen.report.success, "{}", seen.log);

    let stand = Stand::new("{a: {script: [echo a]}, b: {script: [echo b]}, c: {script: [echo c]}}");
    let mut options = stand.options();
    options.concurrent = 1;
    let seen = stand.play_with(&options);
    let mut order: Vec<_> =
        seen.calls.iter().map(|call| call.split(':').next().unwrap_or("")).collect();
    order.dedup();
    assert_eq!(order, ["a", "b", "c"], "one after the other");
}
