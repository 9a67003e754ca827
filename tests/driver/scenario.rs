//! `pointsman rehearse --scenario`: the examples, and files that are not valid.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::rehearsal::{pinned, rehearse, root};
use crate::support::House;

/// The article's pipeline in an example's scenario: report, and log.
fn play(scenario: &str, arguments: &[&str]) -> (Value, String) {
    let directory = pinned("three-environments");
    let pipeline = root().join("examples/three-environments/.gitlab-ci.yml");
    let file = root().join("examples/scenarios").join(scenario);
    let mut all = vec!["--format", "json", "--scenario", file.to_str().unwrap()];
    all.extend(arguments);
    let output = rehearse(directory.path(), &pipeline, &all);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["success"], true, "{report}");
    assert_eq!(report["tasks"]["running"].as_array().map(Vec::len), Some(0), "{report}");
    (report, log)
}

/// All tries of all jobs that were played.
fn tries(report: &Value) -> impl Iterator<Item = &Value> {
    let jobs = report["jobs"].as_array().unwrap();
    jobs.iter().flat_map(|job| job["tries"].as_array().unwrap())
}

#[test]
fn a_spot_drought_costs_a_job_nothing_but_time_or_money() {
    let (report, log) = play("spot-drought.toml", &["--job", "build-dev"]);
    assert!(
        log.contains("Scenario: Spot has no capacity for five minutes; time runs 60 times"),
        "{log}"
    );
    assert!(log.to_lowercase().contains("capacity is unavailable"), "{log}");
    assert_eq!(report["tasks"]["started"], 1, "what was refused started nothing\n{report}");
}

#[test]
fn a_slow_day_is_waited_for() {
    let (report, log) = play("slow-day.toml", &["--job", "build-dev", "--job", "build-staging"]);
    assert!(log.contains("Scenario: A slow day"), "{log}");
    let waited: Vec<f64> =
        tries(&report).map(|one| one["waiting_seconds"].as_f64().unwrap()).collect();
    assert_eq!(waited.len(), 2, "{report}");
    // The fastest start that anybody has published, 19.4 s, at thirty times the speed.
    assert!(waited.iter().all(|seconds| *seconds >= 0.6), "{waited:?}");
}

/// Exit code and standard error of a rehearsal with a scenario of this text.
fn refused(text: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let directory = pinned("three-environments");
    let pipeline = root().join("examples/three-environments/.gitlab-ci.yml");
    let file = directory.path().join("scenario.toml");
    fs::write(&file, text).unwrap();
    let mut all = vec!["--scenario", file.to_str().unwrap()];
    all.extend(arguments);
    let output = rehearse(directory.path(), &pipeline, &all);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_scenario_with_mistakes_is_refused_with_all_of_them() {
    let text = "sead = 1\n[[capacity]]\ntask = 0\n[[faults]]\nfault = { kind = \"failure\", name = \"bad-luck\" }\n";
    let (code, said) = refused(text, &[]);
    assert_eq!(code, Some(2), "{said}");
    for expected in ["line 1: sead", "line 3: capacity[1].task", "line 4: faults[1]", "`bad-luck`"]
    {
        assert!(said.contains(expected), "`{expected}` is missing in\n{said}");
    }
    let (code, said) = refused("[[capacity]]\nmatch = { subnet = \"subnet-9\" }\ntasks = 0\n", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no subnet `subnet-9`"), "{said}");
}

#[test]
fn a_scenario_is_for_the_simulator_only() {
    let (code, said) = refused("", &["--as-configured"]);
    assert_ne!(code, Some(0));
    assert!(said.contains("--as-configured") && said.contains("--scenario"), "{said}");
}

#[test]
fn the_driver_gets_by_with_what_aws_grants() {
    let house =
        House::altered(&json!({ "throttling": true, "probe_servers": true }), |settings| settings);
    let attempts = [0; 3].map(|_| house.prepared("agent"));
    for attempt in attempts {
        let _ = attempt.cleanup().succeeds();
    }
    let ledger = house.settled(3);
    assert_eq!(ledger.events("server-answers").count(), 3);
    let calls = house.calls();
    assert_eq!(calls["RunTask"], json!({ "calls": 3, "throttled": 0 }), "{calls}");
    assert_eq!(calls["DescribeTasks"]["throttled"], 0, "{calls}");
}

#[test]
fn every_example_is_played_by_a_test() {
    let source = fs::read_to_string(root().join("tests/driver/scenario.rs")).unwrap();
    let is_scenario = |path: &Path| path.extension().is_some_and(|extension| extension == "toml");
    let mut n_examples = 0;
    for entry in fs::read_dir(root().join("examples/scenarios")).unwrap().flatten() {
        if is_scenario(&entry.path()) {
            n_examples += 1;
            let name = entry.file_name().into_string().unwrap();
            assert!(source.contains(&format!("play(\"{name}\"")), "{name}");
        }
    }
    assert_eq!(n_examples, 2);
}
