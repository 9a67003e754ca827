//! `cleanup`: idempotent, silent, and right after whatever came before.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::attempt::{collect, signal};
use crate::support::{House, Job};

#[test]
fn without_an_attempt_there_is_nothing_to_do_or_say() {
    let house = House::new();
    let attempt = house.attempt("agent", &Job::default());
    let output = attempt.cleanup().succeeds();
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output}");
    house.settled(0);
}

#[test]
fn a_second_time_is_like_the_first() {
    let house = House::new();
    let attempt = house.prepared("agent");
    for _ in 0..2 {
        let output = attempt.cleanup().succeeds();
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output}");
    }
    let ledger = house.settled(1);
    assert_eq!(ledger.events("stop-task").count(), 1);
}

#[test]
fn a_killed_prepare_leaves_nothing_running() {
    // Killed at moments spread over the whole stage, those before and after RunTask among them.
    for delay in [0, 5, 10, 20, 40, 60, 80, 100, 150, 200, 300] {
        let house = House::new();
        let mut attempt = house.attempt("agent", &Job::default());
        let _ = attempt.config().succeeds();
        let child = attempt.command(&["prepare"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        signal(&child, Signal::KILL);
        let _ = collect(child);
        let _ = attempt.cleanup().succeeds();
        let ledger = crate::support::ledger::settle(&house.ledger_file());
        assert!(ledger.started().len() <= 1, "killed after {delay} ms");
    }
}

#[test]
fn a_task_that_nobody_knows_the_name_of_is_found_by_its_tag() {
    let house = House::new();
    let mut other = house.attempt("agent", &Job::default());
    let _ = other.config().succeeds();
    let _ = other.prepare().succeeds();
    let attempt = house.prepared("agent");
    // As if killed between RunTask's answer and the note of it.
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let path = house.state().join("attempts").join(format!("{id}.json"));
    let mut saved: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    saved["launch"]["task"] = serde_json::Value::Null;
    std::fs::write(&path, saved.to_string()).unwrap();
    let _ = attempt.cleanup().succeeds();
    let deadline = Instant::now() + Duration::from_secs(5);
    while house.ledger().running().len() != 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(house.ledger().running().len(), 1, "the other job's task goes on");
    let _ = other.run(b"true").succeeds();
    let _ = other.cleanup().succeeds();
    house.settled(2);
}

#[test]
fn a_task_that_cannot_be_stopped_is_told_and_kept_for_later() {
    let house = House::with_faults(&json!([{
        "match": {}, "times": 1,
        "fault": { "kind": "api-error", "operation": "StopTask", "status": 400,
            "code": "AccessDeniedException", "message": "not authorized" },
    }]));
    let attempt = house.prepared("agent");
    let output = attempt.cleanup().fails_the_system().says("ecs:StopTask");
    assert!(output.stdout.is_empty());
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn a_task_that_cannot_be_stopped_keeps_no_other_from_being_stopped() {
    let house = House::with_faults(&json!([{
        "match": {}, "times": 1,
        "fault": { "kind": "api-error", "operation": "StopTask", "status": 400,
            "code": "AccessDeniedException", "message": "not authorized" },
    }]));
    let attempt = house.prepared("agent");
    // As if an earlier launch's task could not be stopped by `prepare` either.
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let path = house.state().join("attempts").join(format!("{id}.json"));
    let mut saved: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut earlier = saved["launch"].clone();
    earlier["task"] = format!("{}x", &earlier["task"].as_str().unwrap()[..80]).into();
    saved["earlier"] = json!([earlier]);
    std::fs::write(&path, saved.to_string()).unwrap();
    let _ = attempt.cleanup().fails_the_system().says("ecs:StopTask");
    let ledger = crate::support::ledger::settle(&house.ledger_file());
    assert_eq!(ledger.events("stop-task").count(), 1);
    // The one that was stopped is not told again.
    let _ = attempt.cleanup().succeeds();
    assert_eq!(house.settled(1).events("stop-task").count(), 1);
}

#[test]
fn broken_pipes_do_not_keep_a_task_alive() {
    // The runner is gone: whoever writes gets EPIPE.
    let house = House::new();
    let attempt = house.prepared("agent");
    let mut child = attempt.command(&["cleanup"]).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().unwrap().success());
    house.settled(1);
}
