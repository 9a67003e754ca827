//! Capacity that tests set, and quotas.

use serde_json::{Value, json};

use crate::support::{Simulator, run_task, spot, world};

const NO_CAPACITY: &str = "Capacity is unavailable at this time. Please try again later or in a different availability zone";

/// The reason in RunTask's answer; none when it started a task.
fn refusal(simulator: &Simulator, request: &Value) -> Option<String> {
    let answer = simulator.ok("RunTask", request);
    let refused = answer["tasks"] == json!([]);
    assert_ne!(refused, answer["failures"] == json!([]), "{answer}");
    answer["failures"][0]["reason"].as_str().map(str::to_owned)
}

#[test]
fn a_provider_and_a_subnet_run_full_and_free_again() {
    let mut world = world();
    world["capacity"] =
        json!([{"match": {"capacity_provider": "FARGATE_SPOT", "subnet": "subnet-1"}, "tasks": 1}]);
    let simulator = Simulator::start(&world);
    let first = simulator.run(&spot("ci"));
    assert_eq!(refusal(&simulator, &spot("ci")).as_deref(), Some(NO_CAPACITY));
    assert_eq!(refusal(&simulator, &run_task("ci")), None, "on-demand is not full");
    let mut elsewhere = spot("ci");
    elsewhere["networkConfiguration"]["awsvpcConfiguration"]["subnets"] = json!(["subnet-2"]);
    assert_eq!(refusal(&simulator, &elsewhere), None, "the other subnet is not full");
    simulator.stop(&first);
    simulator.wait_for(&first, "STOPPED");
    assert_eq!(refusal(&simulator, &spot("ci")), None);
}

#[test]
fn capacity_is_set_while_the_simulator_runs() {
    let simulator = Simulator::start(&world());
    // A task of the family has a quarter of a vCPU.
    simulator.capacity(&json!({"match": {"capacity_provider": "FARGATE"}, "vcpus": 0.5}));
    assert_eq!(refusal(&simulator, &run_task("ci")), None);
    assert_eq!(refusal(&simulator, &run_task("ci")), None);
    assert_eq!(refusal(&simulator, &run_task("ci")).as_deref(), Some(NO_CAPACITY));
    let rule = json!({"match": {"capacity_provider": "FARGATE"}, "tasks": 3});
    simulator.capacity(&rule);
    assert_eq!(refusal(&simulator, &run_task("ci")), None);
    assert_eq!(refusal(&simulator, &run_task("ci")).as_deref(), Some(NO_CAPACITY));
    let (_, list) = simulator.http("GET", "/simulator/capacity", &[], "");
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), json!([rule]));
    assert_eq!(simulator.http("DELETE", "/simulator/capacity", &[], "").0, 204);
    assert_eq!(refusal(&simulator, &run_task("ci")), None);
    for bad in [r#"{"tasks":1,"vcpus":1}"#, r#"{"task":1}"#, r#"{"tasks":1,"from_ms":5}"#] {
        assert_eq!(simulator.http("POST", "/simulator/capacity", &[], bad).0, 400, "{bad}");
    }
}

#[test]
fn a_call_for_more_than_there_is_starts_nothing() {
    let simulator = Simulator::start(&world());
    simulator.capacity(&json!({"tasks": 2}));
    let mut request = run_task("ci");
    request["count"] = json!(3);
    assert_eq!(refusal(&simulator, &request).as_deref(), Some(NO_CAPACITY));
    assert_eq!(simulator.ledger().started().count(), 0);
}

#[test]
fn quotas_are_answered_in_the_service_s_words() {
    let mut world = world();
    world["quotas"] = json!({"on_demand_vcpus": 0.25});
    let simulator = Simulator::start(&world);
    assert_eq!(refusal(&simulator, &run_task("ci")), None);
    let limit = "You've reached the limit on the number of vCPUs you can run concurrently";
    assert_eq!(refusal(&simulator, &run_task("ci")).as_deref(), Some(limit));
    assert_eq!(refusal(&simulator, &spot("ci")), None);
}
