//! Clusters and task definitions.

use serde_json::{Value, json};

use crate::support::{Simulator, definition, run_task, world};

#[test]
fn a_cluster_is_made_and_given_providers() {
    let simulator = Simulator::start(&world());
    let made = simulator.ok("CreateCluster", &json!({"clusterName": "new"}));
    assert_eq!(made["cluster"]["status"], "ACTIVE");
    let arn = made["cluster"]["clusterArn"].clone();
    let strategy = json!([{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]);
    simulator.ok(
        "PutClusterCapacityProviders",
        &json!({"cluster": arn, "capacityProviders": ["FARGATE_SPOT"], "defaultCapacityProviderStrategy": strategy}),
    );
    let answer = simulator.ok("DescribeClusters", &json!({"clusters": ["new", "none"]}));
    assert_eq!(answer["clusters"][0]["capacityProviders"], json!(["FARGATE_SPOT"]));
    assert_eq!(answer["clusters"][0]["defaultCapacityProviderStrategy"], strategy);
    assert_eq!(answer["failures"][0]["reason"], "MISSING");

    // Neither launch type nor strategy: the cluster's default.
    let mut request = run_task("ci");
    request["cluster"] = json!("new");
    request["launchType"] = Value::Null;
    let task = simulator.ok("RunTask", &request)["tasks"][0].clone();
    assert_eq!(task["capacityProviderName"], "FARGATE_SPOT");
}

#[test]
fn a_family_is_its_latest_revision() {
    let simulator = Simulator::start(&world());
    let registered =
        simulator.ok("RegisterTaskDefinition", &definition("ci", &[("other", "sleeper")]));
    assert_eq!(registered["taskDefinition"]["revision"], 2);
    assert_eq!(registered["tags"], json!([{"key": "team", "value": "ci"}]));
    let arn = "arn:aws:ecs:eu-west-1:123456789012:task-definition/ci:";
    for (name, revision, container) in
        [("ci", 2, "other"), ("ci:1", 1, "main"), (&format!("{arn}2"), 2, "other")]
    {
        let found = simulator.ok("DescribeTaskDefinition", &json!({"taskDefinition": name}));
        let found = &found["taskDefinition"];
        assert_eq!(found["taskDefinitionArn"], format!("{arn}{revision}"));
        assert_eq!(found["containerDefinitions"][0]["name"], container);
        let task = simulator.ok("RunTask", &run_task(name))["tasks"][0].clone();
        assert_eq!(task["taskDefinitionArn"], format!("{arn}{revision}"));
    }
}

#[test]
fn what_is_inactive_starts_nothing() {
    let mut world = world();
    world["clusters"][1]["status"] = json!("INACTIVE");
    world["clusters"][1]["capacity_providers"] = json!(["FARGATE"]);
    world["inactive_task_definitions"] = json!(["two:1"]);
    let simulator = Simulator::start(&world);
    let message = |request: &Value| {
        let (status, answer) = simulator.call("RunTask", request);
        assert_eq!(status, 400, "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    };
    let mut on_bare = run_task("ci");
    on_bare["cluster"] = json!("bare");
    assert!(message(&on_bare).contains("inactive"));
    assert_eq!(message(&run_task("two:1")), "TaskDefinition is inactive");
    // The family alone is its newest active revision, and there is none.
    assert_eq!(message(&run_task("two")), "Unable to describe task definition.");
    let found = simulator.ok("DescribeTaskDefinition", &json!({"taskDefinition": "two:1"}));
    assert_eq!(found["taskDefinition"]["status"], "INACTIVE");
    let clusters = simulator.ok("DescribeClusters", &json!({"clusters": ["bare"]}));
    assert_eq!(clusters["clusters"][0]["status"], "INACTIVE");
}

#[test]
fn iam_denies_before_the_service_looks() {
    let mut world = world();
    world["denied"] = json!(["ecs:StopTask", "ecs:TagResource"]);
    let simulator = Simulator::start(&world);
    let denied = |operation: &str, request: &Value, action: &str| {
        let (status, answer) = simulator.call(operation, request);
        assert_eq!((status, &answer["__type"]), (400, &json!("AccessDeniedException")), "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(&format!("not authorized to perform: {action}")), "{message}");
    };
    // Of a task that there is not, too.
    denied("StopTask", &json!({"cluster": "dev", "task": "0".repeat(32)}), "ecs:StopTask");
    let mut tagged = run_task("ci");
    tagged["tags"] = json!([{"key": "a", "value": "b"}]);
    tagged["overrides"] = json!({"containerOverrides": [{"name": "none"}]});
    denied("RunTask", &tagged, "ecs:TagResource");
    tagged["tags"] = json!([]);
    let (_, answer) = simulator.call("RunTask", &tagged);
    assert!(answer["message"].as_str().unwrap().contains("is not a container"), "{answer}");
    assert_eq!(simulator.ledger().started().count(), 0);
}
