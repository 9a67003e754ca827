//! `pointsman check`: nothing is found in good files, and each finding is found where it is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pointsman::check::{Kind, Severity};
use serde_json::Value;
use tempfile::TempDir;

use crate::guests::Guest;
use crate::support::house::{DRIVER, built, digest};
use crate::support::output::StageOutput;

const SETTINGS: &str = include_str!("check/pointsman.toml");
const RUNNER: &str = include_str!("check/config.toml");
const POLICIES: [&str; 3] = ["by-tag", "spot-first", "protected-roles"];

/// A directory with both files and all that they name.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        Self::with_state(compiled())
    }

    fn with_state(state: &Path) -> Self {
        let directory = TempDir::with_prefix_in("check-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path();
        let mut settings = SETTINGS.replace("@STATE@", state.to_str().unwrap());
        for policy in POLICIES {
            let component = built(&format!("policies/{policy}.wasm"));
            settings = settings.replace(&format!("@{policy}@"), &digest(&component));
            fs::copy(component, path.join(format!("{policy}.wasm"))).unwrap();
        }
        fs::write(path.join("pointsman.toml"), settings).unwrap();
        let runner = RUNNER
            .replace("@DRIVER@", DRIVER)
            .replace("@SETTINGS@", path.join("pointsman.toml").to_str().unwrap());
        fs::write(path.join("config.toml"), runner).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn edit(&self, file: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(old), "{file} lacks {old}");
        fs::write(self.path(file), text.replacen(old, new, 1)).unwrap();
    }

    /// Puts another component in the place of `policy`.
    fn replace_policy(&self, policy: &str, bytes: &[u8]) {
        let old = digest(&self.path(&format!("{policy}.wasm")));
        fs::write(self.path(&format!("{policy}.wasm")), bytes).unwrap();
        self.edit("pointsman.toml", &old, &digest(&self.path(&format!("{policy}.wasm"))));
    }

    fn check(&self, arguments: &[&str]) -> StageOutput {
        let output = Command::new(DRIVER)
            .arg("--config")
            .arg(self.path("pointsman.toml"))
            .arg("check")
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        StageOutput { stdout: output.stdout, stderr: output.stderr, status: output.status }
    }

    /// With `config.toml` beside the settings, as JSON.
    fn found(&self) -> (Vec<Value>, Option<i32>) {
        let runner = self.path("config.toml");
        let output = self.check(&["--format", "json", "--runner-config", runner.to_str().unwrap()]);
        let checked: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {output}"));
        (checked["findings"].as_array().unwrap().clone(), output.status.code())
    }

    /// Asserts that there are just these findings, in this order, each with what it says and with a remedy that
    /// has a text.
    fn finds_all(&self, expected: &[(Kind, &str, &str)]) {
        assert_eq!(self.wrong(expected), None);
    }

    fn wrong(&self, expected: &[(Kind, &str, &str)]) -> Option<String> {
        let (findings, code) = self.found();
        let ids: Vec<&str> =
            findings.iter().map(|finding| finding["name"].as_str().unwrap()).collect();
        let expected_ids: Vec<&str> = expected.iter().map(|(kind, ..)| kind.id()).collect();
        if ids != expected_ids {
            return Some(format!("found {ids:?}, expected {expected_ids:?}: {findings:#?}"));
        }
        for (finding, (kind, said, remedy)) in findings.iter().zip(expected) {
            let text = |key: &str| finding[key].as_str().unwrap();
            if !format!("{}: {}", text("about"), text("what")).contains(said) {
                return Some(format!("`{said}` is missing in {finding:#}"));
            }
            if !finding["remedy"].to_string().contains(remedy) {
                return Some(format!("the remedy `{remedy}` is missing in {finding:#}"));
            }
            assert_eq!(
                (text("why"), text("severity")),
                (kind.why(), &*kind.severity().to_string())
            );
        }
        let is_failure = expected.iter().any(|(kind, ..)| kind.severity() == Severity::Failure);
        (code != Some(i32::from(is_failure))).then(|| format!("exit code {code:?}: {findings:#?}"))
    }
}

/// A state directory with the policies compiled, shared: a check changes nothing in it.
fn compiled() -> &'static Path {
    static STATE: OnceLock<PathBuf> = OnceLock::new();
    STATE.get_or_init(|| {
        let state =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("check-{}", std::process::id()));
        let files = Files::with_state(&state);
        let output = Command::new(DRIVER)
            .arg("--config")
            .arg(files.path("pointsman.toml"))
            .args(["policy", "sync"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        state
    })
}

#[test]
fn in_good_files_nothing_is_found() {
    let files = Files::new();
    let runner = files.path("config.toml");
    let output = files.check(&["--strict", "--runner-config", runner.to_str().unwrap()]);
    let output = output.succeeds().says_nothing();
    assert_eq!(
        output.stdout_text(),
        format!(
            "Looked at {} (2 profiles, 3 policies) and {} (2 runners).\nNothing found.\n",
            files.path("pointsman.toml").display(),
            runner.display()
        )
    );
}

#[test]
fn the_example_of_three_environments_is_found_good() {
    let files = Files::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/three-environments");
    let read = |name: &str| fs::read_to_string(example.join(name)).unwrap();
    let settings = read("pointsman.toml")
        .replace("/var/lib/pointsman", compiled().to_str().unwrap())
        .replace(&"0".repeat(64), &digest(&files.path("by-tag.wasm")));
    fs::write(files.path("pointsman.toml"), settings).unwrap();
    fs::write(files.path("config.toml"), read("config.toml")).unwrap();
    // On the machine of whoever wrote it, nothing is where the manager will have it.
    let runner = files.path("config.toml");
    let output =
        files.check(&["--strict", "--other-machine", "--runner-config", runner.to_str().unwrap()]);
    let output = output.succeeds();
    assert!(output.stdout_text().ends_with("(3 runners).\nNothing found.\n"), "{output}");
}

#[test]
fn the_articles_files_for_gitlabs_driver_are_checked_as_they_are() {
    let files = Files::new();
    let ecs = include_str!("fargate/ecs.toml").replace("RUNNER_TAGS", "dev");
    let ecs =
        ecs.replace("\"SUBNET\"", "\"subnet-12345\"").replace("SECURITY_GROUP_ID", "sg-12345");
    fs::write(files.path("ecs.toml"), ecs).unwrap();
    fs::write(files.path(R), include_str!("fargate/config.toml")).unwrap();
    let output = Command::new(DRIVER)
        .arg("--config")
        .arg(files.path("ecs.toml"))
        .args(["check", "--other-machine", "--format", "json", "--runner-config"])
        .arg(files.path(R))
        .output()
        .unwrap();
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = checked["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["name"].as_str().unwrap())
        .collect();
    // What the article leaves at GitLab Runner's defaults; nothing of it is an error.
    assert_eq!(names, ["graceful-kill-long", "concurrent-low", "shutdown-short"], "{checked:#}");
    assert_eq!(checked["counts"]["runners"], 1);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_profile_without_policies_has_its_default_checked() {
    let files = Files::new();
    files.edit(
        P,
        "policies = [\"by-tag\", \"spot-first\"]",
        "policies = []\ndefault = { capacity = \"spot\", arch = \"arm64\" }",
    );
    let (findings, _) = files.found();
    let names: Vec<&str> =
        findings.iter().map(|finding| finding["name"].as_str().unwrap()).collect();
    // Rules for its tags are nobody's now, and so is the policy.
    assert_eq!(names, ["policy-unused", "rule-unreachable", "rule-unreachable"], "{findings:#?}");
}

#[test]
fn findings_are_told_with_what_why_and_remedy() {
    let files = Files::new();
    files.edit("pointsman.toml", "memory = \"2GiB\"", "memory = \"9GiB\"");
    files.edit("config.toml", "\"custom\", \"prepare\"]", "\"custom\", \"prepair\"]");
    let runner = files.path("config.toml");
    let output = files.check(&["--runner-config", runner.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output}");
    let text = output.stdout_text().replace(files.directory.path().to_str().unwrap(), "DIR");
    let expected = "\
warning (size-rounded): task_definitions.node: 1 vCPU / 9 GiB rounds up to 2 vCPU / 9 GiB
  why: Fargate offers certain pairs only, so tasks are larger, and cost more, than the file says.
  in DIR/pointsman.toml: set `cpu = \"2\"` and `memory = \"9GiB\"`

";
    assert!(text.starts_with(expected), "{text}");
    let expected = "
failure (stage-arguments): [[runners]] production: prepare_args: are refused: unrecognized subcommand 'prepair'; a similar subcommand exists: 'prepare'
  why: The stage ends with an error of the command line, so every job of the runner fails.
  in DIR/config.toml: set `prepare_args = [\"--config\", \"DIR/pointsman.toml\", \"--profile\", \"NAME\", \"prepare\"]`

Looked at DIR/pointsman.toml (2 profiles, 3 policies) and DIR/config.toml (2 runners).
1 failure, 4 warnings.
";
    assert!(text.ends_with(expected), "{text}");
    // Only warnings are no failure, unless somebody says so.
    files.edit("config.toml", "prepair", "prepare");
    let arguments = ["--runner-config", runner.to_str().unwrap()];
    let _ = files.check(&arguments).succeeds();
    let output = files.check(&[&arguments[..], &["--strict"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output}");
}

#[test]
fn without_gitlab_runners_file_the_rest_is_checked() {
    let files = Files::new();
    let output = files.check(&[]);
    // On a machine with GitLab Runner, its file may say anything.
    if !Path::new("/etc/gitlab-runner/config.toml").exists() {
        let output = output.succeeds();
        assert!(output.stdout_text().contains("name it with --runner-config FILE"), "{output}");
    }
}

/// `settings`, `runner` or both, each with an old and a new text.
type Edits = &'static [(&'static str, &'static str, &'static str)];

/// What is found, a text of it, and one of its remedy.
type Expected = (Kind, &'static str, &'static str);

const P: &str = "pointsman.toml";
const R: &str = "config.toml";
const RULE: &str = "[[policies.by-tag.settings.rules]]\ntags = [\"dev\"]";

/// What one change of the files makes `check` find.
fn cases() -> Vec<(Kind, Edits, &'static str, &'static str)> {
    use Kind::*;
    vec![
        (
            CaFile,
            &[(P, "[gitlab]\n", "[gitlab]\nca_file = \"nowhere.pem\"\n")],
            "gitlab.ca_file: ",
            "certificates in PEM",
        ),
        (
            AgentMissing,
            &[(
                P,
                "[clusters.dev]\nbackend = \"ecs\"\nregion = \"eu-west-1\"\ncluster = \"acme-dev\"\nsubnets = [\"subnet-12345\"]\n",
                "[clusters.dev]\nbackend = \"local\"\nagent = \"/nonexistent/agent\"\n",
            )],
            "clusters.dev.agent: /nonexistent/agent is no program",
            "leave `agent` out",
        ),
        (
            SizeRounded,
            &[(P, "cpu = \"1\"\n", "cpu = \"0.7\"\n")],
            "rounds up to 1 vCPU / 2 GiB",
            "set `cpu = \\\"1\\\"` and `memory = \\\"2GiB\\\"`",
        ),
        (
            BoundsOffGrid,
            &[(P, "max_memory = \"4GiB\"", "max_memory = \"64GiB\"")],
            "allows at most 2 vCPU / 64 GiB, of which Fargate offers at most 2 vCPU / 16 GiB",
            "`max_cpu = \\\"2\\\"` and `max_memory = \\\"16GiB\\\"`",
        ),
        (
            SpotNowhere,
            &[(P, "cluster = \"acme-dev\"\n", "cluster = \"acme-dev\"\nlaunch = \"ec2\"\n")],
            "profiles.dev.bounds.capacities: allows Spot, but none of the profile's clusters has any",
            "spot_provider",
        ),
        (
            ClusterUnused,
            &[(
                P,
                "[task_definitions.node]",
                "[clusters.old]\nbackend = \"local\"\n[task_definitions.node]",
            )],
            "clusters.old: no profile allows it",
            "remove [clusters.old]",
        ),
        (
            TaskDefinitionUnused,
            &[(
                P,
                "[roles.deploy]",
                "[task_definitions.old]\nx86_64 = \"old\"\nssh = { server = \"agent\" }\n[roles.deploy]",
            )],
            "task_definitions.old: no profile allows it",
            "remove [task_definitions.old]",
        ),
        (
            RoleUnused,
            &[(
                P,
                "[policies.by-tag]",
                "[roles.old]\narn = \"arn:aws:iam::123456789012:role/old\"\n[policies.by-tag]",
            )],
            "roles.old: no profile allows it",
            "remove [roles.old]",
        ),
        (
            PolicyUnused,
            &[(P, "policies = [\"by-tag\", \"spot-first\"]", "policies = [\"by-tag\"]")],
            "policies.spot-first: no profile asks it",
            "add `spot-first` to a profile",
        ),
        (
            PolicyUnreadable,
            &[(P, "component = \"spot-first.wasm\"", "component = \"spot-last.wasm\"")],
            "spot-last.wasm cannot be read: No such file",
            "correct `component` of [policies.spot-first]",
        ),
        (
            PolicyNotInstalled,
            &[(
                P,
                "component = \"spot-first.wasm\"",
                "component = \"oci://registry.example/spot-first@sha256:0123456789012345678901234567890123456789012345678901234567890123\"\n#",
            )],
            "spot-first@sha256:0123456789012345678901234567890123456789012345678901234567890123 is not installed",
            "pointsman policy sync",
        ),
        (
            PolicySettings,
            &[(P, "tags = [\"big\"]\ncpu = \"4\"", "tags = [\"big\"]\ncpus = \"4\"")],
            "policies.by-tag.settings.rules[1].cpus: ",
            "pointsman policy inspect --schema",
        ),
        (
            WasiUnneeded,
            &[(
                P,
                "component = \"spot-first.wasm\"",
                "wasi = true\ncomponent = \"spot-first.wasm\"",
            )],
            "policies.spot-first.wasi: is granted",
            "remove `wasi = true` from [policies.spot-first]",
        ),
        (
            GuardOnError,
            &[(
                P,
                "component = \"protected-roles.wasm\"",
                "on_error = \"abstain\"\ncomponent = \"protected-roles.wasm\"",
            )],
            "policies.protected-roles.on_error: is `abstain`, and the policy is a guard",
            "remove `on_error`",
        ),
        (
            ChainWithoutPlacer,
            &[(
                P,
                "policies = [\"by-tag\", \"spot-first\"]",
                "monitor = [\"by-tag\"]\npolicies = [\"by-tag\", \"spot-first\"]",
            )],
            "profiles.dev.policies: has no placer that is enforced: `by-tag` is a placer, monitored, `spot-first` is a mutator",
            "add a placer",
        ),
        (
            PlacesNothing,
            &[(P, "tags = [\"dev\", \"big\"]", "tags = [\"dev\", \"big\", \"docker\"]")],
            "profiles.dev: with the tags [\"big\", \"dev\", \"docker\"], policy `by-tag`: no rule knows the tag [docker]",
            "unknown_tags",
        ),
        (
            RuleUnknownName,
            &[(
                P,
                "[[policies.by-tag.settings.rules]]\ntags = [\"big\"]\n",
                "[[policies.by-tag.settings.rules]]\ntags = [\"big\"]\nalternatives = [{ capacity = \"spot\" }, { role = \"deplay\" }]\n",
            )],
            "rule 2 for [big]: `role = \"deplay\"` names what [roles] lacks",
            "did you mean `deploy`?",
        ),
        (
            RuleOutOfBounds,
            &[(
                P,
                "tags = [\"big\"]\n",
                "tags = [\"big\"]\nalternatives = [{ capacity = \"spot\" }, { cluster = \"production\" }]\n",
            )],
            "rule 2 for [big]: `cluster = \"production\"` is not within the bounds of `dev`",
            "bounds.clusters",
        ),
        (
            RuleUnreachable,
            &[(
                P,
                RULE,
                "[[policies.by-tag.settings.rules]]\ntags = [\"prodution\"]\ncpu = \"2\"\n[[policies.by-tag.settings.rules]]\ntags = [\"dev\"]",
            )],
            "rule 1 for [prodution]: no profile with this policy has the tag `prodution`",
            "did you mean `production`?",
        ),
        (
            RuleUnreachable,
            &[(
                P,
                RULE,
                "[[policies.by-tag.settings.rules]]\ntags = [\"production\", \"big\"]\ncpu = \"2\"\n[[policies.by-tag.settings.rules]]\ntags = [\"dev\"]",
            )],
            "rule 1 for [big, production]: no profile with this policy has all of these tags",
            "add them to `tags` of one profile",
        ),
        (
            RuleShadowed,
            &[
                (P, "[gitlab]\n", "[gitlab]\njob_tags = \"off\"\n"),
                (
                    P,
                    RULE,
                    "[[policies.by-tag.settings.rules]]\ntags = [\"big\", \"dev\"]\ncpu = \"2\"\nmemory = \"8GiB\"\n[[policies.by-tag.settings.rules]]\ntags = [\"dev\"]",
                ),
            ],
            "rule 3 for [big]: whatever it says, rule 1 says for more of the same profiles' tags",
            "jobs bring their own tags",
        ),
        (
            RunnerConfigUnreadable,
            &[(R, "concurrent = 30", "concurrent = thirty")],
            "line 3: is no TOML",
            "correct line 3",
        ),
        (
            RunnerExecutor,
            &[(R, "executor = \"custom\"", "executor = \"shell\"")],
            "[[runners]] dev: executor: is `shell`",
            "executor = \\\"custom\\\"",
        ),
        (
            StageMissing,
            &[(R, "    cleanup_exec = ", "    # ")],
            "[[runners]] dev: cleanup_exec: is missing",
            "set `cleanup_exec` and `cleanup_args`",
        ),
        (
            StageArguments,
            &[(R, "\"dev\", \"prepare\"]", "\"dev\", \"cleanup\"]")],
            "[[runners]] dev: prepare_args: call the stage `cleanup`",
            "end `prepare_args` with \\\"prepare\\\"",
        ),
        (
            StagesDiffer,
            &[(R, "\"dev\", \"cleanup\"]", "\"production\", \"cleanup\"]")],
            "[[runners]] dev: cleanup_args: --profile is `production`, and in `config_args` `dev`",
            "the same in all four",
        ),
        (
            StagesDiffer,
            &[(R, "\"dev\", \"cleanup\"]", "\"dev\", \"--state-directory\", \"/s\", \"cleanup\"]")],
            "--state-directory is `/s`, and in `config_args` not given",
            "the same in all four",
        ),
        (
            GracefulKillLong,
            &[(R, "graceful_kill_timeout = 120", "graceful_kill_timeout = 300")],
            "[[runners]] dev: graceful_kill_timeout: is 300 s",
            "graceful_kill_timeout = 120",
        ),
        (
            GracefulKillLong,
            &[(R, "graceful_kill_timeout = 120", "")],
            "is missing, which means 600 s",
            "graceful_kill_timeout = 120",
        ),
        (
            GracefulKillShort,
            &[(R, "graceful_kill_timeout = 120", "graceful_kill_timeout = 20")],
            "is 20 s, but a stage may need 50 s",
            "graceful_kill_timeout = 120",
        ),
        (
            GracefulKillShort,
            &[
                (P, "[gitlab]", "[ssh]\nstop_grace = \"3m\"\n[gitlab]"),
                (R, "graceful_kill_timeout = 120", "graceful_kill_timeout = 200"),
            ],
            "[[runners]] production: graceful_kill_timeout: is 120 s, but a stage may need 190 s",
            "graceful_kill_timeout = 190",
        ),
        (
            ShutdownShort,
            &[(R, "shutdown_timeout = 900", "")],
            "is missing, which means 30 s, but a task may take 750 s",
            "shutdown_timeout = 780",
        ),
        (
            ShutdownShort,
            &[(P, "cluster = \"acme-dev\"", "cluster = \"acme-dev\"\nstart_timeout = \"20m\"")],
            "is 900 s, but a task may take 1350 s",
            "shutdown_timeout = 1380",
        ),
        (
            StageTimeoutShort,
            &[(
                R,
                "graceful_kill_timeout = 120",
                "graceful_kill_timeout = 120\nprepare_exec_timeout = 300",
            )],
            "prepare_exec_timeout: is 300 s, but starting a task",
            "prepare_exec_timeout = 720",
        ),
        (
            StageTimeoutShort,
            &[(
                R,
                "graceful_kill_timeout = 120",
                "graceful_kill_timeout = 120\nconfig_exec_timeout = 3",
            )],
            "config_exec_timeout: is 3 s, but a decision may take 6 s",
            "config_exec_timeout",
        ),
        (
            StageTimeoutShort,
            &[(
                R,
                "graceful_kill_timeout = 120",
                "graceful_kill_timeout = 120\ncleanup_exec_timeout = 60",
            )],
            "cleanup_exec_timeout: is 60 s, but stopping a task may take 180 s",
            "cleanup_exec_timeout",
        ),
        (
            StageTimeoutShort,
            &[(R, "  limit = 20", "  limit = 20\n  prepare_timeout = \"5m\"")],
            "prepare_timeout: is 300 s",
            "prepare_timeout = \\\"720s\\\"",
        ),
        (
            ConcurrentLow,
            &[(R, "concurrent = 30", "")],
            "concurrent: is 1, so jobs run one after the other",
            "set `concurrent`",
        ),
        (
            ConcurrentLow,
            &[(R, "limit = 20", "limit = 40")],
            "[[runners]] dev: limit: is 40, but `concurrent` is 30",
            "at least 40",
        ),
        (
            OverriddenByDriver,
            &[(R, "builds_dir = \"/builds\"", "builds_dir = \"/data\"")],
            "[[runners]] dev: builds_dir: is `/data`, but the task definitions of the settings file say `/builds`",
            "remove `builds_dir`",
        ),
        (
            OverriddenByDriver,
            &[(R, "cache_dir = \"/cache\"", "shell = \"pwsh\"")],
            "[[runners]] dev: shell: is `pwsh`",
            "remove `shell`",
        ),
    ]
}

/// A change of the files that makes `check` find several things, in this order.
fn chains() -> Vec<(Edits, &'static [Expected])> {
    use Kind::*;
    vec![
        (
            &[(P, "subnets =", "subnet ="), (P, "arn = \"arn:", "arn = \"")],
            &[
                (SettingsMistake, "clusters.dev.subnets, line 9: is missing", "correct line 9"),
                (
                    SettingsMistake,
                    "clusters.dev.subnet, line 13: is no key of this table: did you mean `subnets`?",
                    "correct line 13",
                ),
                (SettingsMistake, "roles.deploy.arn, line 29: ", "correct line 29"),
            ],
        ),
        (
            &[(P, "cpu = \"1\"\n", "cpu = \"64\"\n")],
            &[
                (
                    SizeNotOffered,
                    "task_definitions.node: 64 vCPU / 2 GiB is more than Fargate offers",
                    "at most 32 vCPU",
                ),
                (PlacesNothing, "profiles.production: with the tags", "policy `by-tag`"),
            ],
        ),
        (
            &[(P, "cpu = \"1\"\nmemory = \"2GiB\"", "cpu = \"4\"\nmemory = \"8GiB\"")],
            &[
                (
                    SizeOverBounds,
                    "profiles.production.bounds: of task definition `node`, 4 vCPU / 8 GiB is too large",
                    "raise `max_cpu` and `max_memory` of [profiles.production.bounds] to 4 vCPU / 8 GiB",
                ),
                (PlacesNothing, "profiles.production: with the tags", "policy `by-tag`"),
            ],
        ),
        (
            &[(P, "max_cpu = \"2\"", "max_cpu = \"2\"\ncapacities = []")],
            &[
                (NothingToPlace, "profiles.production.bounds.capacities: is empty", "on-demand"),
                (PlacesNothing, "profiles.production: with the tags", "policy `by-tag`"),
            ],
        ),
        (
            &[(P, "[state]\ndirectory = \"", "[state]\ndirectory = \"/dev/null\" # ")],
            &[
                (
                    StateUnusable,
                    "state.directory: /dev/null is no directory",
                    "belongs to GitLab Runner's user",
                ),
                (PolicyNotCompiled, "policies.by-tag", "policy sync"),
                (PolicyNotCompiled, "policies.protected-roles", "policy sync"),
                (PolicyNotCompiled, "policies.spot-first", "policy sync"),
            ],
        ),
        (
            &[(P, "max_cpu = \"2\"", "max_cpu = \"0.1\"")],
            &[
                (
                    SizeOverBounds,
                    "profiles.production.bounds: of task definition `node`",
                    "raise `max_cpu`",
                ),
                (
                    BoundsTooSmall,
                    "profiles.production.bounds: allows at most 0.1005859375 vCPU",
                    "`max_cpu = \\\"0.25\\\"` and `max_memory = \\\"512MiB\\\"`",
                ),
                (PlacesNothing, "profiles.production: with the tags", ""),
            ],
        ),
        (
            &[
                (P, "cluster = \"acme-dev\"\n", "cluster = \"acme-dev\"\nlaunch = \"ec2\"\n"),
                (P, "[\"on-demand\", \"spot\"]", "[\"spot\"]"),
            ],
            &[
                (
                    NothingToPlace,
                    "profiles.dev.bounds.capacities: allows Spot, but none",
                    "spot_provider",
                ),
                (PlacesNothing, "profiles.dev: with the tags", ""),
            ],
        ),
        (
            &[(P, "cluster = \"dev\"", "cluster = \"production\"")],
            &[
                (
                    PlacesNothing,
                    "profiles.dev: with the tags [\"big\", \"dev\"], policy `by-tag`: cluster `production` is not allowed",
                    "",
                ),
                (
                    RuleOutOfBounds,
                    "rule 1 for [dev]: `cluster = \"production\"`",
                    "bounds.clusters",
                ),
            ],
        ),
        (
            &[(
                P,
                "ssh = { server = \"agent\" }",
                "builds_dir = \"runner\"\nssh = { server = \"agent\" }",
            )],
            &[(
                DirectoryMissing,
                "[[runners]] production: builds_dir: is missing, and `builds_dir = \"runner\"` of a task definition",
                "set `builds_dir`",
            )],
        ),
        (
            &[(R, "\"dev\", \"prepare\"]", "\"dev\", \"--task-def\", \"x\", \"prepare\"]")],
            &[(
                StageArguments,
                "[[runners]] dev: prepare_args: have `--task-def`, which goes with a file of GitLab's Fargate driver",
                "remove `--task-def`",
            )],
        ),
        (
            &[(
                R,
                "executor = \"custom\"\n  builds_dir",
                "executor = \"custom\"\n  clone_url = \"http://localhost:8080\"\n  builds_dir",
            )],
            &[(RunnerUrlLoopback, "[[runners]] dev: url: is `http://localhost:8080`", "clone_url")],
        ),
        (
            &[(P, "https://gitlab.example.com", "https://gitlab.com")],
            &[
                (
                    GitlabUrlDiffers,
                    "[[runners]] dev: url: is `https://gitlab.example.com/`, but `[gitlab] url` of the settings file is `https://gitlab.com`",
                    "the same server",
                ),
                (GitlabUrlDiffers, "[[runners]] production: url", "the same server"),
            ],
        ),
        (
            &[
                (R, "\"--profile\", \"dev\", \"config\"", "\"config\""),
                (R, "\"--profile\", \"dev\", \"prepare\"", "\"prepare\""),
                (R, "\"--profile\", \"dev\", \"run\"", "\"run\""),
                (R, "\"--profile\", \"dev\", \"cleanup\"", "\"cleanup\""),
            ],
            &[
                (
                    RunnerProfileMissing,
                    "[[runners]] dev: --profile: is missing",
                    "there is `dev`, `production`",
                ),
                (ProfileUnused, "profile `dev`: no [[runners]] entry names it", "--profile dev"),
            ],
        ),
        (
            &[
                (R, "\"dev\", \"config\"", "\"dve\", \"config\""),
                (R, "\"dev\", \"prepare\"", "\"dve\", \"prepare\""),
                (R, "\"dev\", \"run\"", "\"dve\", \"run\""),
                (R, "\"dev\", \"cleanup\"", "\"dve\", \"cleanup\""),
            ],
            &[
                (
                    RunnerProfileUnknown,
                    "[[runners]] dev: --profile: names no profile `dve`",
                    "did you mean `dev`?",
                ),
                (ProfileUnused, "profile `dev`", "remove [profiles.dev]"),
            ],
        ),
    ]
}

#[test]
fn each_change_is_found() {
    let mut all: Vec<(Edits, Vec<Expected>)> = cases()
        .into_iter()
        .map(|(kind, edits, said, remedy)| (edits, vec![(kind, said, remedy)]))
        .collect();
    all.extend(chains().into_iter().map(|(edits, expected)| (edits, expected.to_vec())));
    let mut wrong = Vec::new();
    for (edits, expected) in all {
        let files = Files::new();
        for (file, old, new) in edits {
            files.edit(file, old, new);
        }
        wrong.extend(files.wrong(&expected).map(|wrong| format!("{edits:?}\n{wrong}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_settings_file_that_is_not_there() {
    let files = Files::new();
    fs::remove_file(files.path(P)).unwrap();
    files.finds_all(&[(
        Kind::SettingsUnreadable,
        "cannot be read: No such file",
        "pointsman check --config FILE",
    )]);
}

#[test]
fn a_component_that_is_not_the_pinned_one() {
    let files = Files::new();
    let actual = {
        fs::write(files.path("spot-first.wasm"), Guest::mutator("i32.const 0")).unwrap();
        digest(&files.path("spot-first.wasm"))
    };
    files.finds_all(&[(Kind::PolicyDigest, "policies.spot-first.sha256: is ", &actual)]);
}

/// The world of a guest that wants WASI.
const WASI: &str = r#"
    package test:guest;
    world guest {
        include pointsman:policy/placement-policy@0.1.0;
        import wasi:random/random@0.2.0;
    }
    package wasi:random@0.2.0 {
        interface random { get-random-u64: func() -> u64; }
    }
"#;

#[test]
fn components_that_cannot_be_run() {
    for (bytes, said) in [
        (b"\0asm\x01\0\0\0".to_vec(), "is not a WebAssembly component"),
        (b"no wasm".to_vec(), "is not a WebAssembly component"),
        (Guest { describe: "unreachable", ..Guest::default() }.placer(), "crashed"),
    ] {
        let files = Files::new();
        files.replace_policy("spot-first", &bytes);
        files.finds_all(&[(
            Kind::PolicyBroken,
            &format!("policies.spot-first: {said}"),
            "pointsman policy inspect",
        )]);
    }
    let wasi = Guest {
        imports: r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))"#,
        wit: WASI,
        ..Guest::default()
    };
    let files = Files::new();
    files.replace_policy("spot-first", &wasi.placer());
    files.finds_all(&[(
        Kind::PolicyBroken,
        "policies.spot-first: imports what policies do not get: `wasi:random/random@0.2.0`",
        "set `wasi = true` in [policies.spot-first]",
    )]);
    // It answers, and then it does not keep to the contract.
    let files = Files::new();
    files.replace_policy("spot-first", &Guest::mutator("unreachable"));
    files.finds_all(&[
        (Kind::PolicyNotCompiled, "policies.spot-first: is not compiled yet", "policy sync"),
        (Kind::PolicyBroken, "policies.spot-first: crashed", "pointsman policy inspect"),
    ]);
}

#[test]
fn a_privileged_role_within_reach_of_claims() {
    let files = Files::new();
    let reads = Guest {
        imports: r#"(import "pointsman:policy/claims@0.1.0" "image" (func $image (param i32)))"#,
        ..Guest::default()
    };
    files.replace_policy("protected-roles", &reads.placer());
    files.edit(P, "claims_taint = \"deny-privileged-roles\"\n", "");
    files.edit(P, "[policies.protected-roles.settings.roles.deploy]\nprojects = [7]\n", "");
    files.finds_all(&[
        (Kind::PolicyNotCompiled, "policies.protected-roles", "policy sync"),
        (
            Kind::RoleByClaim,
            "profiles.production.claims_taint: is `allow`, the role `deploy` is privileged, and policy `protected-roles` can read claims",
            "set `claims_taint = \\\"deny-privileged-roles\\\"` in [profiles.production]",
        ),
    ]);
}

#[test]
fn a_store_that_others_can_write_to_and_one_that_is_not_there() {
    let state = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let policies = state.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::set_permissions(&policies, fs::Permissions::from_mode(0o777)).unwrap();
    let not_compiled = |name| (Kind::PolicyNotCompiled, name, "policy sync");
    let rest = [
        not_compiled("policies.by-tag"),
        not_compiled("policies.protected-roles"),
        not_compiled("policies.spot-first"),
    ];
    let files = Files::with_state(state.path());
    let first = (Kind::StoreUnsafe, "state.directory: the directory ", "chmod 700");
    files.finds_all(&[&[first][..], &rest].concat());
    assert_eq!(
        fs::read_dir(&policies).unwrap().count(),
        0,
        "nothing is loaded from there or put there"
    );

    // Only root can give something away.
    fs::set_permissions(&policies, fs::Permissions::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&policies, Some(1), None).is_ok() {
        let first = (
            Kind::OtherUser,
            "belongs to user 1, and this check is run by user 0",
            "sudo --user='#1' pointsman check",
        );
        files.finds_all(&[&[first][..], &rest].concat());
    }

    fs::remove_dir(&policies).unwrap();
    files.finds_all(&rest);
    assert!(!policies.exists(), "a check leaves nothing behind");
}

#[test]
fn the_state_is_left_alone() {
    let files = Files::new();
    let listed = || {
        let mut all: Vec<_> = fs::read_dir(compiled().join("policies"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = listed();
    files.finds_all(&[]);
    assert_eq!(listed(), before);
}

#[test]
fn programs_of_gitlab_runners_file() {
    let exec = format!("_exec = \"{DRIVER}\"");
    let replaced = |new: &str, which: usize| {
        let files = Files::new();
        let text = fs::read_to_string(files.path(R)).unwrap();
        let (head, tail) = text.split_at(text.find("# As GitLab's").unwrap());
        let head = head.replacen(&exec, &format!("_exec = \"{new}\""), which);
        fs::write(files.path(R), format!("{head}{tail}")).unwrap();
        files
    };
    replaced("/opt/other/driver", 1).finds_all(&[(
        Kind::StageOtherProgram,
        "[[runners]] dev: config_exec: is /opt/other/driver",
        &format!("set `config_exec = \\\"{DRIVER}\\\"`"),
    )]);
    let files = replaced("/nonexistent/pointsman", 4);
    files.finds_all(&[(
        Kind::ProgramMissing,
        "[[runners]] dev: config_exec: /nonexistent/pointsman is not there",
        "install it there",
    )]);
    let program = files.path("pointsman");
    fs::write(&program, "").unwrap();
    replaced(program.to_str().unwrap(), 4).finds_all(&[(
        Kind::ProgramMissing,
        "pointsman cannot be executed",
        "install it there",
    )]);
    replaced("pointsman", 4).finds_all(&[(
        Kind::ProgramRelative,
        "[[runners]] dev: config_exec: is `pointsman`, which does not begin with `/`",
        "/usr/local/bin/pointsman",
    )]);
}

#[test]
fn runners_of_other_drivers_and_of_other_files() {
    let files = Files::new();
    let text = fs::read_to_string(files.path(R)).unwrap();
    fs::write(files.path(R), text.replace(DRIVER, "/opt/other/driver")).unwrap();
    files.finds_all(&[(
        Kind::NoRunner,
        "[[runners]]: no entry calls this driver",
        "executor = \\\"custom\\\"",
    )]);

    let own = files.path(P).display().to_string();
    let (head, tail) = text.split_at(text.find("# As GitLab's").unwrap());
    fs::write(files.path(R), format!("{}{tail}", head.replace(&own, "/etc/other.toml"))).unwrap();
    files.finds_all(&[
        (
            Kind::RunnerOtherSettings,
            "[[runners]] dev: --config: is /etc/other.toml",
            "pointsman --config /etc/other.toml check",
        ),
        (Kind::ProfileUnused, "profile `dev`", "remove [profiles.dev]"),
    ]);

    fs::remove_file(files.path(R)).unwrap();
    files.finds_all(&[(
        Kind::RunnerConfigUnreadable,
        "config.toml: cannot be read: No such file",
        "--runner-config FILE",
    )]);
}

#[test]
fn a_broken_settings_file_does_not_hide_what_is_wrong_with_the_other() {
    let files = Files::new();
    files.edit(P, "subnets =", "subnet =");
    files.edit(R, "executor = \"custom\"", "executor = \"shell\"");
    let (findings, code) = files.found();
    let ids: BTreeSet<&str> =
        findings.iter().map(|finding| finding["name"].as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from(["settings-mistake", "runner-executor"]));
    assert_eq!(code, Some(1));
}

#[test]
fn every_kind_has_a_test_and_a_line_in_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let tests = fs::read_to_string(root.join("tests/driver/check.rs")).unwrap();
    let docs = fs::read_to_string(root.join("docs/check.md")).unwrap();
    let named: BTreeSet<&str> =
        tests.split(|character: char| !character.is_alphanumeric()).collect();
    let mut ids = BTreeSet::new();
    for kind in Kind::ALL {
        assert!(ids.insert(kind.id()), "{} twice", kind.id());
        assert!(named.contains(&*format!("{kind:?}")), "{kind:?} has no test");
        let row = format!("| `{}` | {} | {} |", kind.id(), kind.severity(), kind.why());
        assert!(docs.contains(&row), "docs/check.md lacks the row\n{row}");
    }
    let rows = docs
        .lines()
        .filter(|line| line.contains(" | failure | ") || line.contains(" | warning | "))
        .count();
    assert_eq!(rows, Kind::ALL.len());
}
