//! `policy replay` and `explain` of one job, on jobs that the real driver ran.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::guests::Guest;
use crate::support::output::StageOutput;
use crate::support::{House, Job};

/// The record files of a house.
fn records(house: &House) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in fs::read_dir(house.state().join("records")).unwrap().flatten() {
        found.extend(fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.path()));
    }
    found
}

/// A house with the records of `count` jobs of the profile `agent`, each of which ran for an hour on Spot.
fn recorded(count: usize) -> House {
    let house = House::new();
    for _ in 0..count {
        let attempt = house.prepared("agent");
        let _ = attempt.cleanup().succeeds();
    }
    house.settled(count);
    let files = records(&house);
    assert_eq!(files.len(), count);
    for file in files {
        let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        record["launch"]["ready_at"] = json!("2026-11-24T10:00:00Z");
        record["released_at"] = json!("2026-11-24T11:00:00Z");
        fs::write(&file, record.to_string()).unwrap();
    }
    house
}

/// A settings file beside the house's own, with a change.
fn other(house: &House, from: &str, to: &str) -> PathBuf {
    let text = fs::read_to_string(house.settings_file()).unwrap();
    assert!(text.contains(from), "{from}");
    let path = house.path().join("other.toml");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    path
}

fn replay(house: &House, arguments: &[&str]) -> StageOutput {
    // Where the house's compiled policies are.
    let state = house.state();
    let cache = ["--cache", state.to_str().unwrap()];
    house.operator(&[&["policy", "replay"], arguments, &cache[..]].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn it_tells_which_jobs_would_move_and_what_that_would_cost() {
    let house = recorded(2);
    let settings = other(&house, "capacity = \"spot\"", "capacity = \"on-demand\"");
    let output = replay(&house, &["--settings", text(&settings)]).succeeds();
    let told = output.stdout_text();
    // Half a vCPU and a GiB of ARM in Ireland: 0.01975 USD an hour on demand, 35 % of that on Spot.
    let row = told.lines().find(|line| line.contains('→') && !line.contains("from")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>().join(" "),
        "2 +0.0257 test agent arm64 spot 0.5 vCPU / 1 GiB deploy → test agent arm64 on-demand 0.5 vCPU / 1 GiB deploy"
    );
    assert!(
        told.contains("2 jobs decided again: 2 would move, 0 stay; +0.0257 USD together"),
        "{told}"
    );
    assert!(told.contains("list prices"), "{told}");

    let output = replay(&house, &["--settings", text(&settings), "--format", "json"]).succeeds();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    for job in told["jobs"].as_array().unwrap() {
        assert_eq!(
            (job["moves"].as_bool(), job["running_seconds"].as_f64()),
            (Some(true), Some(3600.0))
        );
        assert_eq!(
            (job["before"]["capacity"].as_str(), job["after"]["capacity"].as_str()),
            (Some("spot"), Some("on-demand"))
        );
        let cost = |key: &str| format!("{:.7}", job[key].as_f64().unwrap());
        assert_eq!(
            (cost("cost_before").as_str(), cost("cost_after").as_str()),
            ("0.0069125", "0.0197500")
        );
    }
}

#[test]
fn a_job_that_would_not_be_placed_is_told_and_fails_the_command() {
    let house = recorded(1);
    let settings = other(&house, "tags = [\"agent\"]", "tags = [\"elsewhere\"]");
    let output = replay(&house, &["--settings", text(&settings)]);
    assert_eq!(output.status.code(), Some(1), "{output}");
    let told = output.stdout_text();
    assert!(
        told.contains(
            "→ nowhere: no placement for this job: policy `by-tag`: no rule knows the tag [agent]"
        ),
        "{told}"
    );
    assert!(told.contains("1 jobs decided again: 1 would move, 0 stay"), "{told}");
}

#[test]
fn what_the_operator_offered_then_is_in_the_record() {
    let house = recorded(1);
    let record = house.records().remove(0);
    let offer = &record["question"]["offer"];
    assert_eq!(offer["bounds"]["clusters"], json!(["test"]));
    assert_eq!(offer["catalog"]["task_definitions"]["agent"]["archs"], json!(["x86_64", "arm64"]));
    let written = offer.to_string();
    assert!(!written.contains("arn:") && written.len() < 1024, "{written}");

    // Spot is not offered any more: by today's offer the job has no place, by its own it stays where it was.
    let settings = other(
        &house,
        "roles = [\"deploy\"]\ncapacities = [\"on-demand\", \"spot\"]",
        "roles = [\"deploy\"]\ncapacities = [\"on-demand\"]",
    );
    let by_todays = replay(&house, &["--settings", text(&settings)]);
    assert_eq!(by_todays.status.code(), Some(1), "{by_todays}");
    assert!(by_todays.stdout_text().contains("capacity `spot` is not allowed"), "{by_todays}");
    let by_its_own =
        replay(&house, &["--settings", text(&settings), "--offer", "recorded"]).succeeds();
    let told = by_its_own.stdout_text();
    assert!(told.contains("1 jobs decided again: 0 would move, 1 stay"), "{told}");
    assert!(told.contains("1 of them with the catalog and the bounds of their record"), "{told}");
}

#[test]
fn explain_takes_the_job_response_file_of_one_job() {
    let house = House::new();
    let job = Job { name: "build app".to_owned(), ..Job::default() };
    let attempt = house.attempt("agent", &job);
    let file = attempt.response_file();
    assert!(text(&file).ends_with(".json"));
    let output = house.operator(&["--profile", "agent", "explain", text(&file)]).succeeds();
    let told = output.stdout_text();
    let row = told.lines().find(|line| line.starts_with("build app  agent")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>().join(" "),
        "build app agent test agent arm64 spot 0.5 vCPU / 1 GiB deploy rules [agent]"
    );
    for line in [
        "build app, by profile agent",
        "  1. by-tag (placer): ",
        "       fact job-tags = [agent] (set by the operator)",
        "       no claim was read",
        "  placed on cluster test, task definition agent, arm64, spot, 0.5 vCPU / 1 GiB, role deploy",
        "  since: rules [agent]",
    ] {
        assert!(told.lines().any(|told| told.starts_with(line)), "`{line}` is missing in\n{told}");
    }
    // The answer is what `config` decides.
    let mut attempt = attempt;
    let _ = attempt
        .config()
        .succeeds()
        .says("Placed on cluster test, task definition agent, arm64, spot");
    let _ = attempt.cleanup();

    let output =
        house.operator(&["--profile", "nobody", "explain", text(&file), "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (told[0]["job"].as_str(), told[0]["profile"].as_str()),
        (Some("build app"), Some("nobody"))
    );
    assert!(
        told[0]["error"].as_str().unwrap().contains("no rule knows the tag [nobody]"),
        "{told}"
    );

    let output = house.operator(&["explain", text(&file)]);
    assert_eq!(output.status.code(), Some(2), "{output}");
    let _ = output.says("the settings have several profiles").says("--profile NAME");
    fs::write(&file, "{}").unwrap();
    let output = house.operator(&["--profile", "agent", "explain", text(&file)]);
    assert_eq!(output.status.code(), Some(2), "{output}");
    drop(attempt);
    house.settled(0);
}

#[test]
fn what_a_profile_only_watches_is_told_and_decides_nothing() {
    let house = House::new();
    let refuses = Guest {
        place: "i32.const 2048",
        data: r#"(data (i32.const 2048) "\02")"#,
        ..Guest::default()
    };
    house.add_policy("strict", &refuses.placer(), "");
    house.set_chain("agent", "policies = [\"strict\", \"by-tag\"]");
    let attempt = house.attempt("agent", &Job::default());
    let file = attempt.response_file();
    let arguments = ["--profile", "agent", "explain", text(&file)];
    let output = house.operator(&arguments);
    assert_eq!(output.status.code(), Some(1), "{output}");
    assert!(output.stdout_text().contains("rejected: no reason given"), "{output}");
    house.set_chain("agent", "policies = [\"strict\", \"by-tag\"]\nmonitor = [\"strict\"]");
    let told = house.operator(&arguments).succeeds().stdout_text();
    assert!(told.contains("  1. strict (placer, only watched): "), "{told}");
    assert!(told.contains("  placed on cluster test, task definition agent"), "{told}");
    drop(attempt);
    house.settled(0);
}
