//! Client tokens.

use serde_json::json;

use crate::support::{Simulator, eventually, run_task, world};

#[test]
fn a_repeated_request_answers_the_first_task() {
    let simulator = Simulator::start(&world());
    let mut request = run_task("ci");
    request["clientToken"] = json!("token-1");
    let first = simulator.run(&request);
    assert_eq!(simulator.run(&request), first);
    request["clientToken"] = json!("token-2");
    let second = simulator.run(&request);
    assert_ne!(second, first);
    let ledger = simulator.ledger();
    assert_eq!(ledger.started().count(), 2);
    assert_eq!(
        ledger.per_client_token().into_iter().collect::<Vec<_>>(),
        [("token-1", 1), ("token-2", 1)]
    );
}

#[test]
fn another_request_with_the_same_token_is_a_conflict() {
    let simulator = Simulator::start(&world());
    let mut request = run_task("ci");
    request["clientToken"] = json!("token");
    let first = simulator.run(&request);
    request["startedBy"] = json!("somebody-else");
    let (status, body) = simulator.call("RunTask", &request);
    assert_eq!((status, body["__type"].as_str()), (400, Some("ConflictException")), "{body}");
    assert_eq!(body["resourceIds"], json!([first]));
}

#[test]
fn a_token_is_for_one_cluster() {
    let mut world = world();
    world["clusters"][1]["capacity_providers"] = json!(["FARGATE"]);
    let simulator = Simulator::start(&world);
    let mut request = run_task("ci");
    request["clientToken"] = json!("token");
    let first = simulator.run(&request);
    request["cluster"] = json!("bare");
    assert_ne!(simulator.run(&request), first);
}

#[test]
fn a_token_is_free_when_nothing_was_started() {
    let simulator = Simulator::start(&world());
    simulator.fault(&json!({"times": 1, "fault": {"kind": "no-capacity"}}));
    let mut request = run_task("ci");
    request["clientToken"] = json!("token");
    assert_eq!(simulator.ok("RunTask", &request)["tasks"], json!([]));
    simulator.run(&request);
}

#[test]
fn a_token_is_forgotten_an_hour_after_its_task() {
    let mut world = world();
    // An hour takes 900 ms.
    world["time_scale"] = json!(4000);
    let simulator = Simulator::start(&world);
    let mut request = run_task("ci");
    request["clientToken"] = json!("token");
    let first = simulator.run(&request);
    simulator.stop(&first);
    simulator.wait_for(&first, "STOPPED");
    let repeated = simulator.ok("RunTask", &request);
    let only = json!({"taskArn": first, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"});
    assert_eq!(repeated, json!({"tasks": [only], "failures": []}));
    let second = eventually(|| Some(simulator.run(&request)).filter(|arn| *arn != first));
    assert_eq!(simulator.run(&request), second);
    let answer = simulator.ok("DescribeTasks", &json!({"cluster": "dev", "tasks": [first]}));
    assert_eq!(answer["failures"][0]["reason"], "MISSING", "so is the task");
}

#[test]
fn a_token_is_forgotten_after_a_day() {
    let mut world = world();
    // A day takes 8.64 s.
    world["time_scale"] = json!(10_000);
    world["delays_ms"] = json!({"provisioning": 100_000_000_u64});
    let simulator = Simulator::start(&world);
    let mut request = run_task("ci");
    request["clientToken"] = json!("token");
    let first = simulator.run(&request);
    let again = std::time::Instant::now();
    assert_eq!(simulator.run(&request), first);
    eventually(|| Some(()).filter(|()| simulator.run(&request) != first));
    assert!(again.elapsed().as_secs_f64() >= 8.0, "{:?}", again.elapsed());
}
