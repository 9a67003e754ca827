//! Client tokens.

use serde_json::json;

use crate::support::{Simulator, run_task, world};

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
