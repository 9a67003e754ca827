//! `sweep` and `tasks`: leaks are found and stopped, and nothing else is touched.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::attempt::Attempt;
use crate::support::{House, Job};

fn forget(house: &House, attempt: &Attempt<'_>) {
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    std::fs::remove_file(house.state().join("attempts").join(format!("{id}.json"))).unwrap();
}

fn until_running(house: &House, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while house.ledger().running().len() != count {
        assert!(Instant::now() < deadline, "{:?}", house.ledger().running());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_leak_is_stopped_and_the_others_go_on() {
    let house = House::new();
    let mut living = house.prepared("agent");
    let leaked = house.prepared("agent");
    forget(&house, &leaked);

    let output = house.operator(&["sweep", "--dry-run", "--grace", "0s"]).succeeds();
    assert!(output.stdout_text().contains("would be stopped: its job has ended."), "{output}");
    assert!(output.stdout_text().contains("2 tasks found, 1 leaked."), "{output}");
    assert_eq!(house.ledger().running().len(), 2, "a dry run stops nothing");

    // With the usual grace they are too young to say.
    let output = house.operator(&["sweep", "--format", "json"]).succeeds();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["tasks"][0]["finding"], "lives");
    assert_eq!(house.ledger().running().len(), 2);

    let output = house.operator(&["sweep", "--grace", "0s"]).succeeds();
    assert!(output.stdout_text().contains("was told to stop: its job has ended."), "{output}");
    until_running(&house, 1);
    let _ = living.run(b"true\n").succeeds();
    let _ = living.cleanup().succeeds();
    let ledger = house.settled(2);
    let reasons: Vec<&str> =
        ledger.events("stop-task").map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons[0], "Pointsman: swept, its job has ended");
    assert_eq!(reasons.len(), 2);
}

#[test]
fn a_task_past_its_deadline_is_stopped_though_its_attempt_lives() {
    let house = House::new();
    let mut attempt = house.attempt("openssh", &Job::default());
    let _ = attempt.config().succeeds();
    // The stock sshd knows no deadline, and nobody calls `cleanup`.
    let id = attempt.job_env["POINTSMAN_ATTEMPT"].clone();
    let path = house.state().join("attempts").join(format!("{id}.json"));
    let mut saved: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    saved["deadline"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&path, saved.to_string()).unwrap();
    let _ = attempt.prepare().succeeds();
    let output = house.operator(&["sweep"]).succeeds();
    assert!(output.stdout_text().contains("was told to stop: past its deadline."), "{output}");
    until_running(&house, 0);
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn other_managers_tasks_are_not_touched() {
    let house = House::new();
    let attempt = house.prepared("agent");
    forget(&house, &attempt);
    // Another manager: of another name, and of the same name on another machine.
    let settings = std::fs::read_to_string(house.settings_file()).unwrap();
    for other in [
        format!("[manager]\nname = \"other\"\n{settings}"),
        settings.replace("/state\"", "/another-state\""),
    ] {
        std::fs::write(house.settings_file(), other).unwrap();
        let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(house.ledger().running().len(), 1);
        assert_eq!(house.ledger().events("stop-task").count(), 0);
    }
    std::fs::write(house.settings_file(), settings).unwrap();
    let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds();
    house.settled(1);
}

#[test]
fn tasks_shows_what_runs() {
    let house = House::new();
    let output = house.operator(&["tasks"]).succeeds();
    assert_eq!(output.stdout_text(), "No task of this manager runs.\n");
    let attempt = house.prepared("agent");
    let output = house.operator(&["tasks"]).succeeds();
    let text = output.stdout_text();
    for part in ["CLUSTER", "test", "running", "agent", "its job runs"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = house.operator(&["tasks", "--format", "json"]).succeeds();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let task = &answer["tasks"][0];
    assert_eq!(task["attempt"], attempt.job_env["POINTSMAN_ATTEMPT"].as_str());
    assert_eq!(task["project"], "7");
    assert_eq!(task["finding"], "lives");
    assert!(task["deadline"].is_string());
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn prepare_sweeps_now_and_then_and_keeps_quiet() {
    // Tasks take long enough to start for a sweep beside the wait.
    let house = House::altered(&json!({ "delays_ms": { "provisioning": 2500 } }), |settings| {
        settings.replace("automatic = false", "automatic = true")
    });
    let mut overdue = house.attempt("agent", &Job::default());
    let _ = overdue.config().succeeds();
    let id = overdue.job_env["POINTSMAN_ATTEMPT"].clone();
    let path = house.state().join("attempts").join(format!("{id}.json"));
    let mut saved: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    saved["deadline"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&path, saved.to_string()).unwrap();
    let mut command = overdue.command(&["prepare"]);
    command.env("POINTSMAN_ABORT_AT", "after-run-task");
    let _ = crate::support::attempt::collect(command.spawn().unwrap());
    assert_eq!(house.ledger().running().len(), 1);

    let attempt = house.attempt("agent", &Job::default());
    let mut attempt = attempt;
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds().hides("swept");
    let swept = |house: &House| {
        house
            .ledger()
            .events("stop-task")
            .filter(|event| event["reason"] == "Pointsman: swept, past its deadline")
            .count()
    };
    assert_eq!(swept(&house), 1);
    let _ = attempt.cleanup().succeeds();
    let _ = overdue.cleanup().succeeds();
    house.settled(2);
    assert!(house.state().join("sweep.stamp").exists());
}

#[test]
fn a_sweep_completes_the_records_of_tasks_that_cleanup_told_to_stop() {
    let house = House::with(
        |_| (),
        |world| world["delays_ms"] = json!({ "stopping": 300, "deprovisioning": 300 }),
    );
    let attempt = house.prepared("agent");
    let began = Instant::now();
    let _ = attempt.cleanup().succeeds();
    let took = began.elapsed();
    let times = || house.records()[0]["launch"]["last_seen"]["times"].clone();
    for time in ["created_at", "pull_started_at", "pull_stopped_at", "started_at"] {
        assert!(times()[time].is_string(), "{time} in {}", times());
    }
    assert!(house.records()[0]["launch"]["told_to_stop_at"].is_string());
    assert_eq!(times()["stopped_at"], Value::Null, "{took:?}: cleanup waits for nobody");
    // It only tells, and the task has not ended yet.
    let _ = house.operator(&["sweep", "--dry-run"]).succeeds();
    house.settled(1);
    let _ = house.operator(&["tasks"]).succeeds();
    assert_eq!(times()["stopped_at"], Value::Null);

    let _ = house.operator(&["sweep"]).succeeds();
    assert!(times()["stopped_at"].is_string(), "{}", times());
    let record = house.records().remove(0);
    let seen = &record["launch"]["last_seen"];
    assert_eq!(seen["phase"], "stopped");
    assert_eq!(seen["stopped"]["containers"][0]["exit_code"], 0);
    assert_eq!(record["outcome"]["kind"], "released");
    let unfinished = || std::fs::read_dir(house.state().join("unfinished")).unwrap().count();
    assert_eq!(unfinished(), 0);
    // Nothing more is asked for.
    let describes = || house.calls()["DescribeTasks"]["calls"].clone();
    let before = describes();
    let _ = house.operator(&["sweep"]).succeeds();
    assert_eq!(describes(), before);
}

#[test]
fn records_of_tasks_that_ecs_has_forgotten_are_left_as_they_are() {
    let house = House::new();
    let attempt = house.prepared("agent");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
    let name =
        std::fs::read_dir(house.state().join("unfinished")).unwrap().next().unwrap().unwrap();
    let path = house.state().join(std::fs::read_to_string(name.path()).unwrap());
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["released_at"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&path, record.to_string()).unwrap();
    let _ = house.operator(&["sweep"]).succeeds();
    assert_eq!(house.records()[0]["launch"]["last_seen"]["times"]["stopped_at"], Value::Null);
    assert!(!name.path().exists());
}
