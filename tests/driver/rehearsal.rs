//! `pointsman rehearse`: the article's pipeline, as a newcomer sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::house::{DRIVER, built};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The example's settings with the digests of what was built, as `make demo` pins them.
pub(crate) fn pinned(example: &str) -> TempDir {
    let directory = TempDir::with_prefix_in("rehearsal-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    let pinned = Command::new(root().join("scripts/pin"))
        .arg(root().join("examples").join(example).join("pointsman.toml"))
        .arg(built("policies"))
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(pinned.success());
    directory
}

pub(crate) fn rehearse(
    directory: &Path,
    pipeline: &Path,
    arguments: &[&str],
) -> std::process::Output {
    Command::new(DRIVER)
        .arg("--config")
        .arg(directory.join("pointsman.toml"))
        .arg("--state-directory")
        .arg(directory.join("state"))
        .arg("rehearse")
        .arg(pipeline)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_articles_pipeline_runs_on_three_clusters_by_one_configuration() {
    let directory = pinned("three-environments");
    let pipeline = root().join("examples/three-environments/.gitlab-ci.yml");
    let output = rehearse(directory.path(), &pipeline, &["--format", "json"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["success"], true);
    assert_eq!(report["tasks"]["started"], 6, "{report}");
    assert_eq!(report["tasks"]["running"].as_array().map(Vec::len), Some(0), "{report}");
    let jobs = report["jobs"].as_array().unwrap();
    let placed: Vec<String> = jobs
        .iter()
        .map(|job| {
            assert_eq!(job["outcome"], "success", "{job}");
            let placement = &job["tries"][0]["placement"];
            ["cluster", "task_definition", "arch", "capacity", "role"]
                .map(|key| placement[key].as_str().unwrap_or("-").to_owned())
                .join(" ")
        })
        .collect();
    let dev = "dev node-dev arm64 spot dev-deploy";
    let staging = "staging node-staging x86_64 spot staging-deploy";
    let production = "production node-production x86_64 on-demand production-deploy";
    assert_eq!(placed, [dev, dev, staging, staging, production, production]);
    assert!(log.contains("Would deploy commit"), "artifacts reach the deploy jobs\n{log}");
}

#[test]
fn the_table_says_where_each_job_ran_and_why() {
    let directory = pinned("three-environments");
    let pipeline = root().join("examples/three-environments/.gitlab-ci.yml");
    let output = rehearse(directory.path(), &pipeline, &["--job", "build-dev"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.starts_with("A rehearsal: the scripts of these jobs run on this machine"),
        "{text}"
    );
    let row = text.lines().find(|line| line.starts_with("build-dev  success")).unwrap();
    let columns: Vec<&str> = row.split_whitespace().collect();
    let expected = ["build-dev", "success", "dev", "node-dev", "arm64", "spot"];
    assert_eq!(columns[..6], expected, "{text}");
    assert!(text.contains("rules [dev]"), "{text}");
    assert!(text.contains("1 task started, none left running"), "{text}");
}

#[test]
fn a_failing_job_fails_the_rehearsal_with_its_exit_code() {
    let directory = pinned("three-environments");
    let sources = directory.path().join("sources");
    fs::create_dir(&sources).unwrap();
    let pipeline = sources.join(".gitlab-ci.yml");
    fs::write(
        &pipeline,
        "allowed:\n  tags: [dev]\n  script: exit 42\n  allow_failure: { exit_codes: [42] }\nfails:\n  tags: [dev]\n  script: [echo no, exit 3]\n  after_script: [echo after $CI_JOB_STATUS]\n",
    )
    .unwrap();
    let output = rehearse(directory.path(), &pipeline, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| report["jobs"].as_array().unwrap().iter().find(|job| job["name"] == name);
    let (allowed, fails) = (of("allowed").unwrap(), of("fails").unwrap());
    assert_eq!(allowed["tries"][0]["exit_code"], 42, "{report}");
    assert_eq!(fails["tries"][0]["exit_code"], 3, "{report}");
    assert_eq!(fails["tries"][0]["failure_reason"], "script_failure", "{report}");
    assert_ne!(allowed["outcome"], fails["outcome"], "{report}");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("after failed"), "{log}");
}

#[test]
fn what_is_not_played_is_named() {
    let directory = pinned("three-environments");
    let pipeline = directory.path().join(".gitlab-ci.yml");
    fs::write(&pipeline, "build:\n  scripts: [make]\n  rules: [{ when: always }]\n").unwrap();
    let output = rehearse(directory.path(), &pipeline, &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("`rules`"), "{said}");
    assert!(said.contains("`scripts`") && said.contains("`script`"), "{said}");
}

#[test]
fn a_job_that_no_profile_takes_is_stuck() {
    let directory = pinned("three-environments");
    let pipeline = directory.path().join(".gitlab-ci.yml");
    fs::write(&pipeline, "build:\n  tags: [dev, gpu]\n  script: [make]\n").unwrap();
    let output = rehearse(directory.path(), &pipeline, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("stuck") && text.contains("gpu"), "{text}");
}

#[test]
fn a_rehearsal_asks_no_gitlab_and_plays_its_answer() {
    let directory = pinned("three-environments");
    let settings = directory.path().join("pointsman.toml");
    let text = fs::read_to_string(&settings).unwrap();
    // Whoever answered here would be asked; nobody does, and tags are required.
    let gitlab = "[gitlab]\nurl = \"https://127.0.0.1:1\"\njob_tags = \"required\"\n";
    fs::write(&settings, format!("{gitlab}\n{text}")).unwrap();
    let pipeline = directory.path().join(".gitlab-ci.yml");
    fs::write(&pipeline, "build:\n  tags: [dev]\n  script: [echo done]\n").unwrap();
    let output = rehearse(directory.path(), &pipeline, &[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("tags are not known"), "{said}");
}
