//! The settings file: every mistake at once, each with its place.

use std::fs;
use std::process::Command;

use crate::support::house::DRIVER;
use crate::support::{House, Job};

const TEN_MISTAKES: &str = r#"
[state]
directry = "/var/lib/pointsman"

[clusters.dev]
backend = "ecs"
region = "eu-west-1"
subnets = []
securty_groups = ["sg-1"]

[clusters.other]
backend = "ec2"

[task_definitions.node]
container = "ci-coordinator"
memory = "4GB"
ssh = { server = "openssh", port = 70000 }

[roles.deploy]
arn = "dev-deploy"

[policies.by-tag]
component = "by-tag.wasm"
sha256 = "1234"

[profiles.dev]
policies = ["by-tags"]
bounds = { clusters = ["prod"], task_definitions = ["node"], max_cpu = "4", max_memory = "16GiB" }
"#;

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("pointsman.toml");
    fs::write(&path, TEN_MISTAKES).unwrap();
    let output = Command::new(DRIVER).arg("--config").arg(&path).arg("prepare").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap().replace(path.to_str().unwrap(), "FILE");
    let expected = r#"Error: FILE has 13 mistakes
  caused by: line 2: state.directory: is missing: where the driver keeps its attempts, such as "/var/lib/pointsman"
  caused by: line 3: state.directry: is no key of this table: did you mean `directory`?
  caused by: line 5: clusters.dev.cluster: is missing: expected the ECS cluster's name or ARN
  caused by: line 8: clusters.dev.subnets: has 0 subnets, RunTask takes 1 to 16
  caused by: line 9: clusters.dev.securty_groups: is no key of this table: did you mean `security_groups`?
  caused by: line 12: clusters.other.backend: is `ec2`: did you mean `ecs`?
  caused by: line 14: task_definitions.node.x86_64: is missing: expected `x86_64` or `arm64` or both, each naming an ECS task definition
  caused by: line 16: task_definitions.node.memory: is `4GB`, expected an amount such as "4GiB" or "512MiB"
  caused by: line 17: task_definitions.node.ssh.port: is 70000, expected a whole number from 1 to 65535
  caused by: line 20: roles.deploy.arn: is `dev-deploy`, expected `arn:aws:iam::<12 digits>:role/<name>`
  caused by: line 24: policies.by-tag.sha256: is no SHA-256 digest, expected 64 hex digits as `sha256sum FILE` prints them
  caused by: line 27: profiles.dev.policies: names no policy `by-tags`: did you mean `by-tag`?
  caused by: line 28: profiles.dev.bounds.clusters: names no cluster `prod`; the file has `dev`, `other`
"#;
    similar(&said, expected);
}

fn similar(said: &str, expected: &str) {
    assert_eq!(said.lines().collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>(), "{said}");
}

#[test]
fn a_file_that_is_no_toml_names_the_line() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("pointsman.toml");
    fs::write(&path, "[state]\ndirectory = /var/lib\n").unwrap();
    let output = Command::new(DRIVER).arg("--config").arg(&path).arg("cleanup").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("line 2: TOML:"), "{said}");
}

#[test]
fn a_missing_file_says_how_to_name_one() {
    let output =
        Command::new(DRIVER).args(["--config", "/nonexistent", "config"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "Error: cannot read the settings file /nonexistent\n  caused by: No such file or directory (os error 2)\n  hint: name the file with --config FILE\n"
    );
}

#[test]
fn which_profile_decides_must_be_said() {
    let house = House::new();
    let attempt = house.attempt("dve", &Job::default());
    let output = attempt.command(&["config"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the settings file has no profile `dve`"), "{said}");
    assert!(said.contains("it has: agent, local, nobody, openssh"), "{said}");
}

#[test]
fn the_examples_are_read_as_they_are() {
    let example =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/three-environments/pointsman.toml");
    let settings = pointsman::settings::Settings::load(example.as_ref()).unwrap();
    assert_eq!(settings.profiles.len(), 3);
}

#[test]
fn a_wrong_command_line_is_a_system_failure() {
    let output =
        Command::new(DRIVER).arg("prepair").env("SYSTEM_FAILURE_EXIT_CODE", "42").output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert!(String::from_utf8(output.stderr).unwrap().contains("prepare"));
}

/// Makes `config` log a warning: a compiled policy that is not as it was written is made anew.
fn spoil(house: &House) {
    for entry in fs::read_dir(house.state().join("policies")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "cwasm") {
            let mut bytes = fs::read(entry.path()).unwrap();
            bytes.push(0);
            fs::write(entry.path(), bytes).unwrap();
        }
    }
}

#[test]
fn the_log_goes_where_file_and_arguments_say() {
    const LINE: &str = "a compiled policy is refused";
    let house = House::new();
    let _ = house.attempt("agent", &Job::default()).config().succeeds();
    spoil(&house);
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds().says(&format!(" WARN pointsman::policy::store: {LINE}"));

    house.edit_settings(|text| format!("{text}\n[log]\nformat = \"json\"\nfile = \"own.log\"\n"));
    spoil(&house);
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds().hides(LINE);
    let log = fs::read_to_string(house.path().join("own.log")).unwrap();
    let entry: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(entry["level"], "WARN");
    assert!(entry["message"].as_str().unwrap().starts_with(LINE), "{log}");

    // Arguments count more, and what cannot be written does not end a job.
    spoil(&house);
    let attempt = house.attempt("agent", &Job::default());
    let arguments = ["--log-format", "text", "--log-file", "/nonexistent/log", "config"];
    let output = attempt.command(&arguments).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("The log file /nonexistent/log cannot be written"), "{said}");
    assert!(said.contains(&format!(" WARN pointsman::policy::store: {LINE}")), "{said}");
}
