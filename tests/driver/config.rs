//! `config`: the decision and the one JSON object on stdout.

use std::fs;

use serde_json::Value;

use crate::support::{House, Job};

#[test]
fn stdout_is_one_json_object_for_the_runner() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let output = attempt.config().succeeds().says(
        "Placed on cluster test, task definition agent, arm64, spot, 0.5 vCPU / 1 GiB, role deploy",
    );
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["driver"]["name"], "Pointsman");
    assert_eq!(reply["builds_dir"], "/builds");
    assert_eq!(reply["cache_dir"], "/cache");
    assert_eq!(reply["shell"], "bash");
    assert_eq!(reply["builds_dir_is_shared"], false);
    assert!(reply["job_env"]["POINTSMAN_ATTEMPT"].is_string());
    assert_eq!(reply["hostname"], "pointsman profile agent");
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

#[test]
fn a_job_that_no_rule_matches_is_a_build_failure_that_names_the_tags() {
    let house = House::new();
    let mut attempt = house.attempt("nobody", &Job::default());
    let output = attempt.config().fails_the_build().says("nobody").says("agent").says("by-tag");
    assert_eq!(attempt.exit_code(), Some(1));
    assert!(output.stdout.is_empty());
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

#[test]
fn a_component_with_another_digest_is_not_used() {
    let house = House::new();
    let text = fs::read_to_string(house.settings_file()).unwrap();
    let line = text.lines().find(|line| line.starts_with("sha256")).unwrap();
    let wrong = format!("sha256 = \"{}\"", "ab".repeat(32));
    fs::write(house.settings_file(), text.replace(line, &wrong)).unwrap();
    let mut attempt = house.attempt("agent", &Job::default());
    let output = attempt.config().fails_the_system().says(&"ab".repeat(32)).says("by-tag");
    assert!(output.stdout.is_empty());
    house.settled(0);
}

#[test]
fn a_response_file_that_is_no_job_is_a_system_failure() {
    let house = House::new();
    for (bytes, said) in [
        (&b""[..], "unexpected end"),
        (b"{\"id\": 12, \"token\": \"glcbt-64_secret", "unexpected end"),
        (b"[]", "is missing or zero"),
        (b"{\"id\":\"glcbt-64_secret\"}", "data error"),
        (b"\xff\xfe", "syntax error"),
    ] {
        let mut attempt = house.attempt("agent", &Job::default());
        fs::write(attempt.response_file(), bytes).unwrap();
        let output = attempt.config().fails_the_system().says(said).hides("secret");
        assert!(output.stdout.is_empty());
    }
    let mut attempt = house.attempt("agent", &Job::default());
    fs::remove_file(attempt.response_file()).unwrap();
    let _ = attempt.config().fails_the_system().says("response.json");
    house.settled(0);
}

#[test]
fn the_attempt_is_saved_for_this_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let entry = fs::read_dir(house.state().join("attempts")).unwrap().next().unwrap().unwrap();
    assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    fs::set_permissions(house.state(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().fails_the_system().says("chmod go-w");
}
