//! `prepare`: the task that was decided, started once and reached.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{House, Job};

fn tag<'e>(event: &'e Value, key: &str) -> &'e str {
    event["tags"][key].as_str().unwrap_or_else(|| panic!("no tag {key} in {event}"))
}

#[test]
fn every_choice_of_the_placement_reaches_ecs() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt
        .prepare()
        .succeeds()
        .says("Starting a task on cluster test")
        .says("is ready at 127.");
    let _ = attempt.cleanup().succeeds();
    let ledger = house.settled(1);
    let started = ledger.started();
    let task = started[0];
    assert_eq!(task["cluster"], "test-cluster");
    assert!(task["task_definition"].as_str().unwrap().contains("agent-task-arm64"), "{task}");
    assert_eq!(task["capacity_provider"], "FARGATE_SPOT");
    assert_eq!(task["cpu"], "512");
    assert_eq!(task["memory"], "1024");
    assert_eq!(task["task_role"], "arn:aws:iam::123456789012:role/deploy");
    assert_eq!(task["started_by"], "pointsman/default");
    assert_eq!(task["client_token"].as_str().unwrap().len(), 64);
    assert_eq!(tag(task, "pointsman:attempt"), attempt.job_env["POINTSMAN_ATTEMPT"]);
    assert_eq!(tag(task, "pointsman:project"), "7");
    assert_eq!(tag(task, "pointsman:pipeline"), "55");
    assert_eq!(tag(task, "pointsman:profile"), "agent");
    assert!(tag(task, "pointsman:deadline").starts_with("20"));
    let stop = ledger.events("stop-task").next().unwrap();
    assert!(stop["reason"].as_str().unwrap().starts_with("Pointsman: job "), "{stop}");
}

#[test]
fn on_demand_asks_for_the_launch_type() {
    let house = House::new();
    let attempt = house.prepared("openssh");
    let _ = attempt.cleanup().succeeds();
    let ledger = house.settled(1);
    assert_eq!(ledger.started()[0]["launch_type"], "FARGATE");
}

#[test]
fn preparing_fails_twice_and_then_works() {
    let stop = json!({ "kind": "stop", "code": "TaskFailedToStart", "phase": "PENDING",
        "reason": "ResourceInitializationError: unable to pull secrets or registry auth" });
    let house = House::with_faults(&json!([
        { "match": {}, "times": 1, "fault": { "kind": "no-capacity" } },
        { "match": {}, "times": 1, "fault": stop },
    ]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().fails_the_system().says("Capacity is unavailable").says("hint:");
    let _ = attempt.cleanup().succeeds();

    let mut attempt = attempt.again();
    let _ = attempt.config().succeeds();
    let _ = attempt
        .prepare()
        .fails_the_system()
        .says("TaskFailedToStart: ResourceInitializationError: unable to pull secrets");
    let _ = attempt.cleanup().succeeds();

    let mut attempt = attempt.again();
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    let _ = attempt.run(b"echo third time lucky\n").succeeds();
    let _ = attempt.cleanup().succeeds();
    house.settled(2);

    let kinds: BTreeMap<u64, String> = records(&house)
        .iter()
        .map(|record| {
            let kind = record["outcome"]["kind"].as_str().unwrap().to_owned();
            (record["number"].as_u64().unwrap(), kind)
        })
        .collect();
    let expected = [(1, "capacity"), (2, "other"), (3, "released")];
    assert_eq!(kinds, expected.map(|(number, kind)| (number, kind.to_owned())).into());
}

fn records(house: &House) -> Vec<Value> {
    let mut records = Vec::new();
    for directory in std::fs::read_dir(house.state().join("records")).unwrap().flatten() {
        for file in std::fs::read_dir(directory.path()).unwrap().flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap();
            records.push(serde_json::from_str(&text).unwrap());
        }
    }
    records
}

#[test]
fn records_hold_the_decision_and_no_key() {
    let house = House::new();
    let attempt = house.prepared("agent");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
    let records = records(&house);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["placement"]["cluster"], "test");
    assert_eq!(records[0]["keys"], Value::Null);
    assert_eq!(records[0]["steps"][0]["policy"], "by-tag");
}

#[test]
fn preparing_again_finds_the_first_task() {
    let house = House::new();
    let attempt = house.prepared("agent");
    let _ = attempt.prepare().succeeds();
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn an_error_of_the_api_names_the_remedy() {
    let house = House::with_faults(&json!([{
        "match": {},
        "fault": { "kind": "api-error", "operation": "RunTask", "status": 400,
            "code": "AccessDeniedException", "message": "User: arn:aws:sts::1:assumed-role/x is not authorized" },
    }]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().fails_the_system().says("AccessDeniedException").says("iam:PassRole");
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

#[test]
fn a_task_that_cannot_be_told_of_yet_is_waited_for() {
    let house = House::with_faults(
        &json!([{ "match": {}, "fault": { "kind": "missing", "for_ms": 700 } }]),
    );
    let attempt = house.prepared("agent");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn without_config_there_is_nothing_to_prepare() {
    let house = House::new();
    let attempt = house.attempt("agent", &Job::default());
    let _ = attempt.prepare().fails_the_system().says("config_exec");
    house.settled(0);
}

#[test]
fn an_attempt_of_nobodys_is_refused() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    for (id, said) in [
        ("../../etc/passwd", "is no attempt id"),
        ("1-0123456789abcdef", "is not in the state directory"),
    ] {
        attempt.job_env = BTreeMap::from([("POINTSMAN_ATTEMPT".to_owned(), id.to_owned())]);
        let _ = attempt.prepare().fails_the_system().says(said);
    }
    house.settled(0);
}

#[test]
fn waiting_is_told_at_least_every_ten_seconds() {
    use std::io::{BufRead, BufReader};
    use std::time::{Duration, Instant};
    // Nothing listens, and `ready_timeout` is 20 s: a silent wait would be as long.
    let house =
        House::with_faults(&json!([{ "match": {}, "fault": { "kind": "agent-does-not-start" } }]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let mut child = attempt.command(&["prepare"]).spawn().unwrap();
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        longest = longest.max(last.elapsed());
        last = Instant::now();
        said.push_str(&line.unwrap());
        said.push('\n');
    }
    assert_eq!(child.wait().unwrap().code(), Some(2), "{said}");
    assert!(said.contains("Still waiting for the task (running"), "{said}");
    assert!(said.contains("was not ready after") && said.contains("hint:"), "{said}");
    // The bound is 10 s; the rest is this machine's.
    assert!(longest < Duration::from_secs(12), "silent for {longest:?}\n{said}");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn an_image_may_take_longer_to_pull_than_a_server_to_answer() {
    // The address is known, and connecting begins, seconds before anything can listen there.
    let house = House::altered(&json!({ "delays_ms": { "pending": 5000 } }), |settings| {
        settings.replace("ready_timeout = \"20s\"", "ready_timeout = \"2s\"")
    });
    let attempt = house.prepared("agent");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}
