//! Everything that is refused: one row a rule.

use serde_json::{Value, json};

use crate::support::{Simulator, definition, run_task, world};

/// A change to a request that was legal, and the error's code and words.
type Row = (fn(&mut Value), &'static str, &'static str);

const RUN_TASK: &[Row] = &[
    (|it| it["cluster"] = json!("prod"), "ClusterNotFoundException", "Cluster not found."),
    (|it| it["cluster"] = Value::Null, "ClusterNotFoundException", "Cluster not found."),
    (
        |it| it["cluster"] = json!("arn:aws:ecs:eu-west-2:123456789012:cluster/dev"),
        "ClusterNotFoundException",
        "Cluster not found.",
    ),
    (
        |it| it["taskDefinition"] = json!("none"),
        "ClientException",
        "Unable to describe task definition.",
    ),
    (
        |it| it["taskDefinition"] = json!("ci:2"),
        "ClientException",
        "Unable to describe task definition.",
    ),
    (
        |it| it["taskDefinition"] = json!("ci:0"),
        "ClientException",
        "Unable to describe task definition.",
    ),
    (
        |it| {
            it["taskDefinition"] = json!("arn:aws:ecs:us-east-1:123456789012:task-definition/ci:1")
        },
        "ClientException",
        "Unable to describe task definition.",
    ),
    (
        |it| {
            it["taskDefinition"] = json!("arn:aws:ecs:eu-west-1:999999999999:task-definition/ci:1")
        },
        "ClientException",
        "Unable to describe task definition.",
    ),
    (|it| it["taskDefinition"] = Value::Null, "SerializationException", "expected a string"),
    (|it| it["subnet"] = json!("subnet-1"), "SerializationException", "unknown field `subnet`"),
    (
        |it| it["overrides"] = json!({"containerOverrides": [{"name": "main", "image": "x"}]}),
        "SerializationException",
        "unknown field `image`",
    ),
    (
        |it| it["enableExecuteCommand"] = json!("yes"),
        "SerializationException",
        "expected a boolean",
    ),
    (|it| it["count"] = json!(0), "InvalidParameterException", "Count should be between 1 and 10"),
    (|it| it["count"] = json!(11), "InvalidParameterException", "Count should be between 1 and 10"),
    (
        |it| it["capacityProviderStrategy"] = json!([{"capacityProvider": "FARGATE", "weight": 1}]),
        "InvalidParameterException",
        "both a launch type and capacity provider strategy",
    ),
    (
        |it| it["launchType"] = Value::Null,
        "InvalidParameterException",
        "No Container Instances were found",
    ),
    (
        |it| it["launchType"] = json!("EC2"),
        "InvalidParameterException",
        "No Container Instances were found",
    ),
    (
        |it| it["launchType"] = json!("FARGATE_SPOT"),
        "InvalidParameterException",
        "should be one of",
    ),
    (
        |it| strategy(it, "bare", "FARGATE"),
        "InvalidParameterException",
        "The specified capacity provider was not found",
    ),
    (
        |it| strategy(it, "dev", "FARGATE_ARM"),
        "InvalidParameterException",
        "The specified capacity provider was not found",
    ),
    (
        |it| it["networkConfiguration"] = Value::Null,
        "InvalidParameterException",
        "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
    ),
    (
        |it| *network(it, "subnets") = json!([]),
        "InvalidParameterException",
        "subnets can not be empty",
    ),
    (
        |it| *network(it, "subnets") = json!(["subnet-9"]),
        "InvalidParameterException",
        "InvalidSubnetID.NotFound",
    ),
    (
        |it| *network(it, "subnets") = json!(vec!["subnet-1"; 17]),
        "InvalidParameterException",
        "subnets can have at most 16 items",
    ),
    (
        |it| *network(it, "securityGroups") = json!(["sg-9"]),
        "InvalidParameterException",
        "InvalidGroup.NotFound",
    ),
    (
        |it| *network(it, "securityGroups") = json!(vec!["sg-1"; 6]),
        "InvalidParameterException",
        "securityGroups can have at most 5 items",
    ),
    (
        |it| *network(it, "assignPublicIp") = json!("yes"),
        "InvalidParameterException",
        "assignPublicIp",
    ),
    (
        |it| {
            it["overrides"] =
                json!({"containerOverrides": [{"name": "main", "command": ["x".repeat(8192)]}]})
        },
        "InvalidParameterException",
        "Container Overrides length must be at most 8192",
    ),
    (
        |it| it["overrides"] = json!({"containerOverrides": [{"name": "other"}]}),
        "InvalidParameterException",
        "Override for container named other is not a container in the TaskDefinition.",
    ),
    (
        |it| it["overrides"] = json!({"containerOverrides": [{"cpu": 1}]}),
        "InvalidParameterException",
        "Container name in container overrides",
    ),
    (
        |it| {
            let file = json!({"type": "s3", "value": "bucket/x.env"});
            it["overrides"] =
                json!({"containerOverrides": [{"name": "main", "environmentFiles": [file]}]});
        },
        "InvalidParameterException",
        "environmentFiles",
    ),
    (
        |it| it["overrides"] = json!({"cpu": "256", "memory": "4096"}),
        "ClientException",
        "No Fargate configuration exists for given values: 256 CPU, 4096 memory",
    ),
    (
        |it| it["overrides"] = json!({"memory": "1536"}),
        "ClientException",
        "No Fargate configuration exists",
    ),
    (
        |it| it["overrides"] = json!({"cpu": "large"}),
        "ClientException",
        "Invalid 'cpu' setting for task.",
    ),
    (
        |it| it["overrides"] = json!({"memory": "2GiB"}),
        "ClientException",
        "Invalid 'memory' setting for task.",
    ),
    (
        |it| it["overrides"] = json!({"ephemeralStorage": {"sizeInGiB": 20}}),
        "ClientException",
        "ephemeral storage size 20 GiB",
    ),
    (
        |it| it["overrides"] = json!({"ephemeralStorage": {"sizeInGiB": 201}}),
        "ClientException",
        "ephemeral storage size 201 GiB",
    ),
    (
        |it| it["overrides"] = json!({"taskRoleArn": "deploy"}),
        "ClientException",
        "Role is not valid",
    ),
    (
        |it| it["overrides"] = json!({"taskRoleArn": "arn:aws:iam::123456789012:role/admin"}),
        "AccessDeniedException",
        "not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/admin",
    ),
    (
        |it| it["overrides"] = json!({"executionRoleArn": "arn:aws:iam::123456789012:role/admin"}),
        "AccessDeniedException",
        "iam:PassRole",
    ),
    (|it| it["tags"] = many_tags(51), "InvalidParameterException", "maximum number of tags (50)"),
    (|it| it["tags"] = tag("", "v"), "InvalidParameterException", "between 1 and 128 characters"),
    (
        |it| it["tags"] = tag(&"k".repeat(129), "v"),
        "InvalidParameterException",
        "between 1 and 128 characters",
    ),
    (
        |it| it["tags"] = tag("k", &"v".repeat(257)),
        "InvalidParameterException",
        "at most 256 characters",
    ),
    (
        |it| it["tags"] = tag("aws:k", "v"),
        "InvalidParameterException",
        "must not begin with 'aws:'",
    ),
    (|it| it["tags"] = tag("k", "a,b"), "InvalidParameterException", "invalid characters"),
    (
        |it| it["tags"] = json!([{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]),
        "InvalidParameterException",
        "Duplicate tag key",
    ),
    (|it| it["startedBy"] = json!("a b"), "InvalidParameterException", "startedBy"),
    (|it| it["startedBy"] = json!("x".repeat(129)), "InvalidParameterException", "startedBy"),
    (|it| it["clientToken"] = json!("x".repeat(65)), "InvalidParameterException", "clientToken"),
    (|it| it["clientToken"] = json!("a b"), "InvalidParameterException", "clientToken"),
    (|it| it["propagateTags"] = json!("SERVICE"), "InvalidParameterException", "from a service"),
    (|it| it["propagateTags"] = json!("ALL"), "InvalidParameterException", "propagateTags ALL"),
    (
        |it| it["enableExecuteCommand"] = json!(true),
        "InvalidParameterException",
        "valid taskRoleArn",
    ),
    (
        |it| it["placementConstraints"] = json!([{"type": "distinctInstance"}]),
        "InvalidParameterException",
        "Placement constraints are not supported",
    ),
    (
        |it| it["placementStrategy"] = json!([{"type": "random"}]),
        "InvalidParameterException",
        "Placement strategies are not supported",
    ),
    (
        |it| it["volumeConfigurations"] = json!([{"name": "cache"}]),
        "InvalidParameterException",
        "Volume cache",
    ),
    (|it| it["platformVersion"] = json!("9.9.9"), "PlatformUnknownException", "does not exist"),
    (
        |it| it["taskDefinition"] = json!("ec2"),
        "InvalidParameterException",
        "does not support launch_type FARGATE",
    ),
];

fn strategy(request: &mut Value, cluster: &str, provider: &str) {
    request["cluster"] = json!(cluster);
    request["launchType"] = Value::Null;
    request["capacityProviderStrategy"] = json!([{"capacityProvider": provider, "weight": 1}]);
}

fn network<'a>(request: &'a mut Value, field: &str) -> &'a mut Value {
    &mut request["networkConfiguration"]["awsvpcConfiguration"][field]
}

fn tag(key: &str, value: &str) -> Value {
    json!([{"key": key, "value": value}])
}

fn many_tags(n: usize) -> Value {
    (0..n).map(|number| json!({"key": format!("k{number}"), "value": ""})).collect()
}

/// A world that also has a task definition for container instances only.
fn strict_world() -> Value {
    let mut world = world();
    let mut ec2 = definition("ec2", &[("main", "sleeper")]);
    ec2["requiresCompatibilities"] = json!(["EC2"]);
    world["task_definitions"].as_array_mut().unwrap().push(ec2);
    world
}

#[test]
fn run_task_refuses() {
    let simulator = Simulator::start(&strict_world());
    for (index, (change, code, words)) in RUN_TASK.iter().enumerate() {
        let mut request = run_task("ci");
        change(&mut request);
        let (status, body) = simulator.call("RunTask", &request);
        assert_eq!((status, body["__type"].as_str()), (400, Some(*code)), "row {index}: {body}");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(words), "row {index}: `{message}` should contain `{words}`");
    }
    let ledger = simulator.ledger();
    assert_eq!(ledger.started().count(), 0);
    assert_eq!(ledger.refused().count(), RUN_TASK.len());
}

#[test]
fn run_task_accepts_all_legal_fields() {
    let simulator = Simulator::start(&strict_world());
    let mut request = run_task("ci");
    for (field, value) in [
        ("count", json!(2)),
        ("enableECSManagedTags", json!(true)),
        ("enableExecuteCommand", json!(true)),
        ("group", json!("jobs")),
        ("placementConstraints", json!([])),
        ("placementStrategy", json!([])),
        ("platformVersion", json!("LATEST")),
        ("propagateTags", json!("TASK_DEFINITION")),
        ("referenceId", json!("x")),
        ("startedBy", json!("gitlab/abc_1/42-1")),
        ("tags", json!([{"key": "project", "value": "group/name @ 1=a+b:c"}])),
        ("clientToken", json!("0".repeat(64))),
        ("volumeConfigurations", json!([])),
        (
            "overrides",
            json!({
                "cpu": "1 vCPU", "memory": "2GB", "ephemeralStorage": {"sizeInGiB": 200},
                "taskRoleArn": "arn:aws:iam::123456789012:role/deploy",
                "inferenceAcceleratorOverrides": [],
                "containerOverrides": [{
                    "name": "main", "command": ["a"], "environment": [{"name": "A", "value": "b"}],
                    "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::bucket/x.env"}],
                    "cpu": 1, "memory": 100, "memoryReservation": 50, "resourceRequirements": [],
                }],
            }),
        ),
    ] {
        request[field] = value;
    }
    let answer = simulator.ok("RunTask", &request);
    assert_eq!(answer["tasks"].as_array().map(Vec::len), Some(2), "{answer}");
    let task = &answer["tasks"][0];
    assert_eq!(task["cpu"], "1024");
    assert_eq!(task["memory"], "2048");
    assert_eq!(task["group"], "jobs");
    assert_eq!(task["ephemeralStorage"], json!({"sizeInGiB": 200}));
    assert_eq!(task["overrides"], request["overrides"]);
    let tags = json!([
        {"key": "project", "value": "group/name @ 1=a+b:c"},
        {"key": "team", "value": "ci"},
        {"key": "aws:ecs:clusterName", "value": "dev"},
    ]);
    assert_eq!(task["tags"], tags);
}

#[test]
fn other_operations_refuse() {
    let simulator = Simulator::start(&world());
    let id = "0".repeat(32);
    let many = vec![id.clone(); 101];
    let table = [
        ("DescribeTasks", json!({"tasks": [id]}), "ClusterNotFoundException", "Cluster not found."),
        (
            "DescribeTasks",
            json!({"cluster": "dev", "tasks": []}),
            "InvalidParameterException",
            "Tasks cannot be empty",
        ),
        (
            "DescribeTasks",
            json!({"cluster": "dev", "tasks": many}),
            "InvalidParameterException",
            "more than 100",
        ),
        (
            "DescribeTasks",
            json!({"cluster": "dev", "tasks": ["x"]}),
            "InvalidParameterException",
            "taskId length",
        ),
        (
            "DescribeTasks",
            json!({"cluster": "dev", "tasks": [id], "include": ["tags"]}),
            "InvalidParameterException",
            "include tags",
        ),
        (
            "DescribeTasks",
            json!({"cluster": "dev"}),
            "SerializationException",
            "missing field `tasks`",
        ),
        (
            "StopTask",
            json!({"cluster": "dev", "task": id}),
            "InvalidParameterException",
            "task was not found",
        ),
        (
            "StopTask",
            json!({"cluster": "dev", "task": id, "reason": "x".repeat(256)}),
            "InvalidParameterException",
            "at most 255",
        ),
        (
            "ListTasks",
            json!({"cluster": "dev", "startedBy": "a", "family": "ci"}),
            "InvalidParameterException",
            "startedBy with any other filter",
        ),
        (
            "ListTasks",
            json!({"cluster": "dev", "desiredStatus": "x"}),
            "InvalidParameterException",
            "desiredStatus x",
        ),
        (
            "ListTasks",
            json!({"cluster": "dev", "maxResults": 101}),
            "InvalidParameterException",
            "maxResults",
        ),
        (
            "ListTasks",
            json!({"cluster": "dev", "nextToken": "x"}),
            "InvalidParameterException",
            "Invalid token",
        ),
        (
            "DescribeTaskDefinition",
            json!({"taskDefinition": "x"}),
            "ClientException",
            "Unable to describe",
        ),
        ("RegisterTaskDefinition", definition("a b", &[("c", "i")]), "ClientException", "Family"),
        (
            "CreateCluster",
            json!({"clusterName": "a b"}),
            "InvalidParameterException",
            "Identifiers",
        ),
        (
            "PutClusterCapacityProviders",
            json!({"cluster": "x", "capacityProviders": [], "defaultCapacityProviderStrategy": []}),
            "ClusterNotFoundException",
            "",
        ),
        ("ExecuteCommand", json!({}), "UnknownOperationException", ""),
    ];
    for (operation, request, code, words) in table {
        let (status, body) = simulator.call(operation, &request);
        assert_eq!(
            (status, body["__type"].as_str()),
            (400, Some(code)),
            "{operation} {request}: {body}"
        );
        assert!(body["message"].as_str().unwrap().contains(words), "{operation} {request}: {body}");
    }
}

#[test]
fn what_is_not_the_protocol_is_refused() {
    let simulator = Simulator::start(&world());
    let target = "AmazonEC2ContainerServiceV20141113.ListTasks";
    let aws = "application/x-amz-json-1.1";
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let table: &[(Headers<'_>, &str, &str)] = &[
        (&[("content-type", aws)], "{}", "UnknownOperationException"),
        (
            &[("x-amz-target", "Other.ListTasks"), ("content-type", aws)],
            "{}",
            "UnknownOperationException",
        ),
        (
            &[("x-amz-target", target), ("content-type", "application/json")],
            "{}",
            "UnknownOperationException",
        ),
        (&[("x-amz-target", target), ("content-type", aws)], "{", "SerializationException"),
        (&[("x-amz-target", target), ("content-type", aws)], "[]", "SerializationException"),
    ];
    for (headers, body, code) in table {
        let (status, answer) = simulator.http("POST", "/", headers, body);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(code), "{headers:?} {body}: {answer}");
    }
}
