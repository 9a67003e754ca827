//! A task that is lost while a script runs: why, in the job log and for the next attempt.

use serde_json::{Value, json};

use crate::support::{House, Job};

fn lost(fault: &Value) -> (House, crate::support::output::StageOutput, Option<i32>) {
    let house = House::with_faults(&json!([{ "match": {}, "fault": fault }]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    let output = attempt.run(b"sleep 60\n");
    let exit_code = attempt.exit_code();
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
    (house, output, exit_code)
}

#[test]
fn out_of_memory_is_the_jobs_own_doing_and_names_the_next_size() {
    let (house, output, exit_code) = lost(&json!({ "kind": "out-of-memory", "after_ms": 2000 }));
    let _ = output
        .fails_the_build()
        .says("it used more memory than it has")
        .says("OutOfMemoryError")
        .says("it had 0.5 vCPU / 1 GiB")
        .says("the next size that Fargate offers is 0.5 vCPU / 2 GiB");
    assert_eq!(exit_code, Some(137));
    assert_eq!(house.records()[0]["outcome"]["kind"], "out-of-memory");
}

#[test]
fn a_spot_interruption_is_a_system_failure_with_its_record() {
    let fault = json!({ "kind": "spot-interruption", "after_ms": 2000, "notice_ms": 200 });
    let (house, output, _) = lost(&fault);
    let _ = output.fails_the_system().says("Spot took the task back").says("runner_system_failure");
    let record = &house.records()[0];
    assert_eq!(record["outcome"]["kind"], "spot-interruption");
    let seen = &record["launch"]["last_seen"];
    assert_eq!(seen["stopped"]["code"], "SpotInterruption");
    assert_eq!(seen["stopped"]["containers"][0]["name"], "ci-coordinator");
    for time in ["created_at", "pull_started_at", "pull_stopped_at", "started_at"] {
        assert!(seen["times"][time].is_string(), "{time} in {seen}");
    }
}

#[test]
fn the_diagnosis_of_a_task_that_ended_is_whole() {
    let house = House::with_faults(&json!([{
        "match": {}, "fault": { "kind": "stop", "code": "TaskFailedToStart", "phase": "PENDING",
            "reason": "ResourceInitializationError: failed to initialize logging driver" },
    }]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().fails_the_system().says("failed to initialize logging driver");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
    let record = &house.records()[0];
    let seen = &record["launch"]["last_seen"];
    assert_eq!(seen["stopped"]["cause"], "configuration");
    assert!(seen["times"]["created_at"].is_string(), "{seen}");
    assert!(seen["times"]["stopped_at"].is_string(), "{seen}");
    assert_eq!(seen["phase"], "stopped");
}

#[test]
fn a_task_that_somebody_stopped_is_told_so() {
    let house = House::new();
    let mut attempt = house.prepared("agent");
    let child = attempt.start_run("build_script", b"sleep 60\n");
    std::thread::sleep(std::time::Duration::from_millis(800));
    let task = house.ledger().running().into_iter().next().unwrap();
    let id = task.rsplit('/').next().unwrap();
    house.stop_from_outside(id, "UserInitiated", "Task stopped by user");
    let _ = crate::support::attempt::collect(child)
        .fails_the_system()
        .says("somebody stopped the task")
        .says("CloudTrail");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn a_companion_that_ends_is_named_with_its_exit_code() {
    let house = House::with(
        |_| (),
        |world| {
            let server = world["task_definitions"][1]["containerDefinitions"][0].clone();
            assert_eq!(world["task_definitions"][1]["family"], "agent-task-arm64");
            let mut server = server;
            server["dependsOn"] = json!([
                { "containerName": "migrate", "condition": "SUCCESS" },
                { "containerName": "db", "condition": "START" },
            ]);
            let container = |name: &str, essential: bool| json!({ "name": name, "image": name, "essential": essential });
            world["task_definitions"][1]["containerDefinitions"] =
                json!([container("db", true), container("migrate", false), server]);
            world["images"]["db"] =
                json!({ "server": "none", "command": ["sh", "-c", "sleep 3; exit 3"] });
            world["images"]["migrate"] = json!({ "server": "none", "command": ["true"] });
        },
    );
    let mut attempt = house.prepared("agent");
    let _ = attempt
        .run(b"sleep 60\n")
        .fails_the_system()
        .says("its container ended while the script ran")
        .says("container db ended with exit code 3")
        .says("container migrate ended with exit code 0");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
    let containers = house.records()[0]["launch"]["last_seen"]["stopped"]["containers"].clone();
    let ends: Vec<_> = containers
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["exit_code"].as_i64()))
        .collect();
    assert_eq!(ends[..2], [("db", Some(3)), ("migrate", Some(0))]);
    assert_eq!(ends[2].0, "ci-coordinator");
}
