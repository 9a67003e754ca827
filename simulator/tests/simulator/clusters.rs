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
