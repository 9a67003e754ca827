//! examples/runner-manager and examples/images, as far as a machine without containers can try them: the manager's
//! entry script with a GitLab Runner that is played, the two settings files against each other, and what the images
//! copy. tests/judges has the infrastructure.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::settings::Settings;
use serde_json::Value;
use tempfile::TempDir;

use crate::rehearsal::{pinned, root};
use crate::support::house::DRIVER;

fn manager() -> PathBuf {
    root().join("examples/runner-manager")
}

fn config() -> toml::Table {
    fs::read_to_string(manager().join("config.toml")).unwrap().parse().unwrap()
}

/// The names in place of tokens.
fn token_names() -> BTreeSet<String> {
    let config = config();
    let runners = config["runners"].as_array().unwrap();
    runners.iter().map(|runner| runner["token"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_managers_config_is_wired_for_its_settings() {
    let settings = Settings::load(&manager().join("pointsman.toml")).unwrap();
    let config = config();
    let runners = config["runners"].as_array().unwrap();
    assert_eq!(runners.len(), 3);
    let mut profiles = BTreeSet::new();
    for runner in runners {
        let name = runner["name"].as_str().unwrap();
        assert_eq!(runner["executor"].as_str(), Some("custom"));
        assert_eq!(runner["url"].as_str(), settings.gitlab.as_ref().map(|it| it.url.as_str()));
        assert!(settings.profiles[name].tags.contains(name), "{name}");
        for key in ["builds_dir", "cache_dir"] {
            for definition in &settings.profiles[name].bounds.task_definitions {
                let definition = &settings.task_definitions[definition];
                let expected = match key {
                    "builds_dir" => &definition.builds_dir,
                    _ => &definition.cache_dir,
                };
                assert_eq!(runner[key].as_str(), expected.as_deref(), "{name}");
            }
        }
        let custom = &runner["custom"];
        for stage in ["config", "prepare", "run", "cleanup"] {
            let program = custom[format!("{stage}_exec")].as_str();
            assert_eq!(program, Some("/usr/local/bin/pointsman"), "{name}");
            let arguments: Vec<&str> = custom[format!("{stage}_args")]
                .as_array()
                .unwrap()
                .iter()
                .map(|argument| argument.as_str().unwrap())
                .collect();
            let file = "/etc/pointsman/pointsman.toml";
            assert_eq!(arguments, ["--config", file, "--profile", name, stage], "{name}");
        }
        // After five minutes GitLab Runner goes on to cleanup anyway.
        assert!(custom["graceful_kill_timeout"].as_integer() < Some(300));
        profiles.insert(name.to_owned());
    }
    assert_eq!(profiles, settings.profiles.keys().cloned().collect());
    assert!(config["shutdown_timeout"].as_integer() >= Some(600), "longer than `start_timeout`");
    let expected = profiles.iter().map(|name| format!("{}_RUNNER_TOKEN", name.to_uppercase()));
    assert_eq!(token_names(), expected.collect());
}

#[test]
fn a_privileged_role_is_for_protected_refs_only() {
    let directory = pinned("runner-manager");
    let explained = |more: &[&str]| {
        let output = Command::new(DRIVER)
            .arg("--config")
            .arg(directory.path().join("pointsman.toml"))
            .arg("--state-directory")
            .arg(directory.path().join("state"))
            .arg("explain")
            .arg(root().join("examples/three-environments/.gitlab-ci.yml"))
            .args(["--job", "deploy-production", "--format", "json"])
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let jobs: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {said}"));
        jobs[0].clone()
    };
    let job = explained(&[]);
    assert_eq!(job["placements"][0]["role"], "production-deploy", "{job}");
    let job = explained(&["--unprotected"]);
    assert_eq!(job["placements"].as_array().map_or(0, Vec::len), 0, "{job}");
    assert!(job.to_string().contains("is for protected refs"), "{job}");
}

/// Plays GitLab Runner: writes down how it is called, waits for signals as `run` does, and ends as it would.
const GITLAB_RUNNER: &str = r#"#!/bin/sh
note() { printf '%s\n' "$*" >>"$WITNESS"; }
case $1 in
verify)
    note "$*"
    [ ! -e "$WITNESS.unknown" ]
    ;;
run)
    # Go's runtime would take a signal that is ignored; a shell cannot, so this sees it too if one is.
    trap 'note QUIT; [ -e "$WITNESS.busy" ] || exit 0' QUIT
    trap 'note TERM; exit 1' TERM
    trap 'note INT; exit 1' INT
    env | grep TOKEN >>"$WITNESS" || true
    note "$*"
    while :; do sleep 0.02; done
    ;;
*)
    note "$*"
    ;;
esac
"#;

/// The manager's container without a container.
struct Container {
    directory: TempDir,
    entrypoint: Child,
}

impl Container {
    fn start(prepare: impl FnOnce(&Path), environment: &[(&str, &str)]) -> Self {
        let directory = pinned("runner-manager");
        let settings = directory.path().join("pointsman.toml");
        let text = fs::read_to_string(&settings).unwrap();
        let state = directory.path().join("state");
        fs::write(&settings, text.replace("/var/lib/pointsman", state.to_str().unwrap())).unwrap();
        let programs = directory.path().join("bin");
        let template = fs::read_to_string(manager().join("config.toml")).unwrap();
        let template = template
            .replace("/usr/local/bin", programs.to_str().unwrap())
            .replace("/etc/pointsman/pointsman.toml", settings.to_str().unwrap());
        fs::write(directory.path().join("template.toml"), template).unwrap();
        fs::create_dir(&programs).unwrap();
        fs::write(programs.join("gitlab-runner"), GITLAB_RUNNER).unwrap();
        fs::set_permissions(programs.join("gitlab-runner"), fs::Permissions::from_mode(0o755))
            .unwrap();
        std::os::unix::fs::symlink(DRIVER, programs.join("pointsman")).unwrap();
        prepare(directory.path());
        let path = std::env::var("PATH").unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(manager().join("entrypoint"));
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("HOME", directory.path())
            .env("WITNESS", directory.path().join("witness"))
            .env("POINTSMAN_SETTINGS", settings)
            .env("RUNNER_TEMPLATE", directory.path().join("template.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        for name in token_names() {
            command.env(&name, format!("glrt-of_{name}"));
        }
        command.envs(environment.iter().copied());
        Self { entrypoint: command.spawn().unwrap(), directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn witnessed(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("witness")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn until_it_runs(&mut self) {
        let patience = Instant::now() + Duration::from_secs(120);
        while !self.witnessed().iter().any(|line| line.starts_with("run ")) {
            let ended = self.entrypoint.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < patience, "{ended:?} {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let id = self.entrypoint.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn ended(&mut self) -> Option<i32> {
        self.entrypoint.wait().unwrap().code()
    }
}

#[test]
fn the_manager_drains_when_it_is_told_to_stop() {
    // What ECS sends is SIGTERM; what the image asks for is SIGQUIT.
    for signal in ["TERM", "QUIT"] {
        let mut container = Container::start(|_| {}, &[]);
        container.until_it_runs();
        let config = container.path("config.toml");
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
        let written: toml::Table = fs::read_to_string(&config).unwrap().parse().unwrap();
        for runner in written["runners"].as_array().unwrap() {
            let name = runner["name"].as_str().unwrap().to_uppercase();
            let expected = format!("glrt-of_{name}_RUNNER_TOKEN");
            assert_eq!(runner["token"].as_str(), Some(expected.as_str()));
        }
        assert!(container.log().contains("protected-roles"), "synced\n{}", container.log());
        container.signal(signal);
        assert_eq!(container.ended(), Some(0), "{}", container.log());
        let config = config.display();
        // No token is in GitLab Runner's environment, and so in no driver's.
        let expected = [
            format!("verify --config {config}"),
            format!(
                "run --config {config} --working-directory {}",
                container.path("").display().to_string().trim_end_matches('/')
            ),
            "QUIT".to_owned(),
            format!("unregister --config {config} --all-runners"),
        ];
        assert_eq!(container.witnessed(), expected);
    }
}

#[test]
fn jobs_that_do_not_end_in_time_are_aborted() {
    let mut container = Container::start(
        |directory| fs::write(directory.join("witness.busy"), "").unwrap(),
        &[("DRAIN_SECONDS", "1")],
    );
    container.until_it_runs();
    container.signal("TERM");
    // Told once more, as Docker and impatient people do.
    container.signal("TERM");
    assert_eq!(container.ended(), Some(1), "{}", container.log());
    let witnessed = container.witnessed();
    assert_eq!(witnessed[2..4], ["QUIT", "TERM"], "{witnessed:?}");
    assert!(witnessed[4].starts_with("unregister "), "{witnessed:?}");
    assert!(container.log().contains("aborting the jobs"), "{}", container.log());
}

#[test]
fn an_interrupt_reaches_gitlab_runner_at_once() {
    let mut container = Container::start(|_| {}, &[]);
    container.until_it_runs();
    container.signal("INT");
    assert_eq!(container.ended(), Some(1));
    assert_eq!(container.witnessed()[2], "INT");
}

#[test]
fn a_manager_with_wrong_tokens_takes_no_job() {
    // One of the old kind: `unregister` would delete the runner.
    for token in ["", "GR1348941abcdefghij", "glrt-a\"\nexecutor = \"shell"] {
        let mut container = Container::start(|_| {}, &[("STAGING_RUNNER_TOKEN", token)]);
        assert_ne!(container.ended(), Some(0));
        assert_eq!(container.witnessed(), Vec::<String>::new(), "{token}");
        let log = container.log();
        assert!(log.contains("STAGING_RUNNER_TOKEN is not a runner authentication token"), "{log}");
        assert!(!log.contains("GR1348941"), "{log}");
    }
    let unknown = |directory: &Path| fs::write(directory.join("witness.unknown"), "").unwrap();
    let mut container = Container::start(unknown, &[]);
    assert_ne!(container.ended(), Some(0));
    let witnessed = container.witnessed();
    assert!(witnessed.len() == 1 && witnessed[0].starts_with("verify "), "{witnessed:?}");
}

#[test]
fn a_manager_with_a_wrong_policy_takes_no_job() {
    let mut container = Container::start(
        |directory| fs::write(directory.join("policies/by-tag.wasm"), "something else").unwrap(),
        &[],
    );
    assert_ne!(container.ended(), Some(0));
    assert_eq!(container.witnessed(), Vec::<String>::new());
    assert!(container.log().contains("by-tag"), "{}", container.log());
}

#[test]
fn scripts_are_valid_for_the_shells_that_run_them() {
    for (script, shells) in [
        ("runner-manager/entrypoint", ["sh", "dash"]),
        ("images/openssh/entrypoint", ["sh", "dash"]),
        ("three-environments/scripts/build.sh", ["bash", "bash"]),
        ("three-environments/scripts/deploy.sh", ["bash", "bash"]),
    ] {
        let path = root().join("examples").join(script);
        for shell in shells {
            let checked = Command::new(shell).arg("-n").arg(&path).output().unwrap();
            assert!(checked.status.success() && checked.stderr.is_empty(), "{script}: {shell}");
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} cannot be executed");
        let text = fs::read_to_string(&path).unwrap();
        let strict = ["set -eu", "set -euo pipefail"];
        assert!(text.lines().any(|line| strict.contains(&line)), "{script}");
    }
    // Whatever has a token is unset before anything else is started.
    let text = fs::read_to_string(manager().join("entrypoint")).unwrap();
    let line = text.lines().find(|line| line.starts_with("unset ")).unwrap();
    let unset: BTreeSet<String> = line.split(' ').skip(1).map(str::to_owned).collect();
    assert_eq!(unset, token_names());
    let drop = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("no {needle}"));
    assert!(drop("\nunset ") < drop("\npointsman ") && drop("\nunset ") < drop("\ngitlab-runner "));
}

#[test]
fn check_finds_nothing_in_the_managers_files() {
    let directory = pinned("runner-manager");
    let pointsman = |arguments: &[&str]| {
        let output = Command::new(DRIVER)
            .arg("--config")
            .arg(directory.path().join("pointsman.toml"))
            .arg("--state-directory")
            .arg(directory.path().join("state"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let _ = pointsman(&["policy", "sync"]);
    let config = manager().join("config.toml");
    let check = ["check", "--runner-config", config.to_str().unwrap(), "--other-machine"];
    let found = pointsman(&[&check[..], &["--strict", "--format", "json"]].concat());
    let found: Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found["findings"].as_array().map(Vec::len), Some(0), "{found}");
}

/// What `make dist` puts into its archive beside the repository's own files, as far as images take it.
const DIST: [&str; 2] = ["bin/pointsman", "policies/*.wasm"];

/// What a README tells to put beside the Dockerfile.
const TOLD: [&str; 1] = ["pointsman-agent-${TARGETARCH}"];

#[test]
fn the_images_copy_what_there_is() {
    let mut versions = BTreeSet::new();
    for (image, lines) in [("runner-manager", 5), ("images/openssh", 1), ("images/agent", 1)] {
        let directory = root().join("examples").join(image);
        let text = fs::read_to_string(directory.join("Dockerfile")).unwrap();
        let mut copied = BTreeSet::new();
        for line in text.lines() {
            if let Some(version) = line.strip_prefix("ARG GITLAB_RUNNER_VERSION=") {
                versions.insert(version.to_owned());
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first() != Some(&"COPY") || words[1].starts_with("--from=") {
                continue;
            }
            let paths: Vec<&str> =
                words[1..].iter().copied().filter(|word| !word.starts_with("--")).collect();
            let [source, target] = paths[..] else { panic!("{line}") };
            // The manager's image is built in the archive's root, the others in their own directories.
            let context = if image == "runner-manager" { root() } else { directory.clone() };
            assert!(
                DIST.contains(&source) || TOLD.contains(&source) || context.join(source).exists(),
                "{image} copies `{source}`, which is nowhere"
            );
            if TOLD.contains(&source) {
                let readme = fs::read_to_string(directory.join("README.md")).unwrap();
                for arch in ["amd64", "arm64"] {
                    assert!(readme.contains(&source.replace("${TARGETARCH}", arch)), "{image}");
                }
            }
            copied.insert(target.to_owned());
        }
        assert_eq!(copied.len(), lines, "{image}: {copied:?}");
        let entry = text.lines().find(|line| line.starts_with("ENTRYPOINT ")).unwrap();
        let entry: Vec<String> = serde_json::from_str(&entry["ENTRYPOINT ".len()..]).unwrap();
        assert!(copied.contains(entry.last().unwrap()), "{image} starts {entry:?}");
        // Process 1's environment can be read by scripts: the keys must not stay there.
        let has_init = entry[0].ends_with("/tini");
        assert_eq!(has_init, image == "runner-manager", "{image} starts {entry:?}");
        for base in text.lines().filter(|line| line.starts_with("FROM ")) {
            assert!(base.contains(':') && !base.contains(":latest"), "{image}: {base}");
        }
        // Build arguments stay in an image's history.
        for argument in text.lines().filter(|line| line.starts_with("ARG ")) {
            assert!(!argument.to_lowercase().contains("token"), "{image}: {argument}");
        }
        let exposed = text.lines().find_map(|line| line.strip_prefix("EXPOSE "));
        let expected = match image {
            "images/openssh" => Some("22"),
            "images/agent" => Some("2222"),
            _ => None,
        };
        assert_eq!(exposed, expected, "{image}");
    }
    assert_eq!(versions.len(), 1, "{versions:?}");
    // tests/driver/dist.rs looks into an archive; this is that the names are the same.
    if let Ok(dist) = fs::read_to_string(root().join("scripts/dist")) {
        for place in ["$tree/bin/", "$tree/policies/"] {
            assert!(dist.contains(place), "scripts/dist puts nothing into {place}");
        }
    }
    // Where config.toml and the entry script look for things.
    let text = fs::read_to_string(manager().join("Dockerfile")).unwrap();
    for target in [
        "/usr/local/bin/pointsman",
        "/etc/pointsman/pointsman.toml",
        "/etc/gitlab-runner/config.toml",
    ] {
        assert!(text.contains(target), "{target}");
    }
}
