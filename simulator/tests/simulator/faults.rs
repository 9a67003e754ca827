//! Scripted faults: each strikes as it says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Simulator, eventually, id, run_task, spot, world};

#[test]
fn no_capacity_is_an_answer_without_tasks() {
    let simulator = Simulator::start(&world());
    simulator.fault(
        &json!({"match": {"capacity_provider": "FARGATE_SPOT"}, "fault": {"kind": "no-capacity"}}),
    );
    for _ in 0..2 {
        let reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
        assert_eq!(
            simulator.ok("RunTask", &spot("ci")),
            json!({"tasks": [], "failures": [{"reason": reason}]})
        );
    }
    let arn = simulator.run(&run_task("ci"));
    assert_eq!(simulator.ledger().started().map(|one| one.task.clone()).collect::<Vec<_>>(), [arn]);
}

#[test]
fn an_api_error_is_answered_as_written() {
    let mut world = world();
    world["faults"] = json!([
        {"times": 1, "fault": {"kind": "api-error", "operation": "RunTask", "code": "ThrottlingException", "message": "Rate exceeded"}},
        {"times": 1, "fault": {"kind": "api-error", "operation": "StopTask", "code": "ServerException", "status": 500}},
    ]);
    let simulator = Simulator::start(&world);
    let expected = json!({"__type": "ThrottlingException", "message": "Rate exceeded"});
    assert_eq!(simulator.call("RunTask", &run_task("ci")), (400, expected));
    let arn = simulator.run(&run_task("ci"));
    let (status, body) = simulator.call("StopTask", &json!({"cluster": "dev", "task": arn}));
    assert_eq!((status, body["__type"].as_str()), (500, Some("ServerException")));
    simulator.stop(&arn);
}

#[test]
fn a_task_stops_in_the_phase_that_is_written() {
    let simulator = Simulator::start(&world());
    let reason = "CannotPullContainerError: i/o timeout";
    simulator.fault(&json!({
        "times": 1,
        "fault": {"kind": "stop", "code": "TaskFailedToStart", "reason": reason, "phase": "PENDING"},
    }));
    let arn = simulator.run(&run_task("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "TaskFailedToStart");
    assert_eq!(stopped["stoppedReason"], reason);
    assert_eq!(stopped["containers"][0]["reason"], reason);
    assert_eq!(simulator.states(&arn), "PROVISIONING PENDING DEPROVISIONING STOPPED");
    let next = simulator.run(&run_task("ci"));
    simulator.wait_for(&next, "RUNNING");
}

#[test]
fn a_spot_interruption_has_a_notice() {
    let mut world = world();
    world["images"]["sleeper"]["command"] =
        json!(["sh", "-c", "trap 'echo told' TERM; while :; do sleep 0.05; done"]);
    let simulator = Simulator::start(&world);
    simulator.fault(&json!({
        "match": {"capacity_provider": "FARGATE_SPOT"},
        "fault": {"kind": "spot-interruption", "after_ms": 200, "notice_ms": 1500},
    }));
    let arn = simulator.run(&spot("ci"));
    let noticed = eventually(|| {
        Some(simulator.describe(&arn)).filter(|task| task["desiredStatus"] == "STOPPED")
    });
    assert_eq!(noticed["lastStatus"], "RUNNING");
    assert_eq!(noticed["capacityProviderName"], "FARGATE_SPOT");
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "SpotInterruption");
    assert_eq!(stopped["stoppedReason"], "Your Spot Task was interrupted.");
    assert_eq!(stopped["containers"][0]["exitCode"], 137);
    let window =
        stopped["executionStoppedAt"].as_f64().unwrap() - stopped["stoppingAt"].as_f64().unwrap();
    assert!(window >= 1.5, "{window}");
    let log = simulator.path("logs").join(format!("{}.main.log", id(&arn)));
    assert!(std::fs::read_to_string(log).unwrap().contains("told"));
}

#[test]
fn out_of_memory_kills_the_container() {
    let simulator = Simulator::start(&world());
    simulator.fault(&json!({"fault": {"kind": "out-of-memory", "after_ms": 20}}));
    let arn = simulator.run(&run_task("two"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "EssentialContainerExited");
    assert_eq!(stopped["stoppedReason"], "Essential container in task exited");
    assert_eq!(stopped["containers"][0]["exitCode"], 137);
    assert_eq!(
        stopped["containers"][0]["reason"],
        "OutOfMemoryError: Container killed due to memory usage"
    );
    assert_eq!(stopped["containers"][1]["reason"], Value::Null);
}

#[test]
fn a_task_is_missing_for_a_while() {
    let simulator = Simulator::start(&world());
    simulator.fault(&json!({"fault": {"kind": "missing", "for_ms": 1500}}));
    let arn = simulator.run(&run_task("ci"));
    let request = json!({"cluster": "dev", "tasks": [arn]});
    let answer = simulator.ok("DescribeTasks", &request);
    assert_eq!(answer, json!({"tasks": [], "failures": [{"arn": arn, "reason": "MISSING"}]}));
    assert_eq!(simulator.ok("ListTasks", &json!({"cluster": "dev"}))["taskArns"], json!([]));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(simulator.ok("DescribeTasks", &request)["tasks"][0]["taskArn"], json!(arn));
}

#[test]
fn a_server_that_does_not_start_leaves_a_running_task() {
    let mut world = world();
    world["images"]["sleeper"] = json!({"server": "openssh"});
    world["task_definitions"][0]["containerDefinitions"][0]["portMappings"] =
        json!([{"containerPort": 2222}]);
    let simulator = Simulator::start(&world);
    simulator.fault(&json!({"fault": {"kind": "agent-does-not-start"}}));
    let arn = simulator.run(&run_task("ci"));
    let task = simulator.wait_for(&arn, "RUNNING");
    let address =
        task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"].as_str().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(std::net::TcpStream::connect((address, 2222)).is_err());
    assert_eq!(simulator.describe(&arn)["lastStatus"], "RUNNING");
}

#[test]
fn a_task_is_stopped_from_outside() {
    let simulator = Simulator::start(&world());
    let arn = simulator.run(&run_task("ci"));
    simulator.wait_for(&arn, "RUNNING");
    let path = format!("/simulator/tasks/{}/stop", id(&arn));
    let body =
        json!({"code": "InfrastructureHealth", "reason": "The host is retired."}).to_string();
    assert_eq!(simulator.http("POST", &path, &[], &body).0, 204);
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "InfrastructureHealth");
    assert_eq!(stopped["stoppedReason"], "The host is retired.");
    assert_eq!(simulator.http("POST", "/simulator/tasks/none/stop", &[], &body).0, 404);
    assert_eq!(simulator.http("POST", &path, &[], "{}").0, 400);
}

#[test]
fn faults_are_listed_and_cleared() {
    let simulator = Simulator::start(&world());
    let fault =
        json!({"match": {"subnet": "subnet-1"}, "times": 1, "fault": {"kind": "no-capacity"}});
    simulator.fault(&fault);
    let (_, list) = simulator.http("GET", "/simulator/faults", &[], "");
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), json!([fault]));
    assert_eq!(simulator.http("DELETE", "/simulator/faults", &[], "").0, 204);
    simulator.run(&run_task("ci"));
    for bad in [
        "{}",
        r#"{"fault":{"kind":"x"}}"#,
        r#"{"fault":{"kind":"stop","code":"","reason":"","phase":"STOPPED"}}"#,
    ] {
        assert_eq!(simulator.http("POST", "/simulator/faults", &[], bad).0, 400, "{bad}");
    }
}

/// A world whose family `ci` is for ARM64.
fn world_on_arm() -> Value {
    let mut world = world();
    world["task_definitions"][0]["runtimePlatform"] =
        json!({"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"});
    world
}

#[test]
fn failures_have_names_and_the_service_s_words() {
    let simulator = Simulator::start(&world_on_arm());
    for (name, code, reason, states) in [
        (
            "subnet-full",
            "TaskFailedToStart",
            "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment disabled in subnet 'subnet-1': InsufficientFreeAddressesInSubnet",
            "PROVISIONING DEPROVISIONING STOPPED",
        ),
        (
            "image-architecture",
            "TaskFailedToStart",
            "CannotPullContainerError: pull image manifest has been retried 7 time(s): image Manifest does not contain descriptor matching platform 'linux/arm64'",
            "PROVISIONING PENDING DEPROVISIONING STOPPED",
        ),
        (
            "essential-exited",
            "EssentialContainerExited",
            "Essential container in task exited",
            "PROVISIONING PENDING ACTIVATING RUNNING DEACTIVATING STOPPING DEPROVISIONING STOPPED",
        ),
        (
            "stopped-by-user",
            "UserInitiated",
            "Task stopped by user",
            "PROVISIONING PENDING ACTIVATING RUNNING DEACTIVATING STOPPING DEPROVISIONING STOPPED",
        ),
    ] {
        simulator.fault(&json!({"times": 1, "fault": {"kind": "failure", "name": name}}));
        let arn = simulator.run(&run_task("ci"));
        let stopped = simulator.wait_for(&arn, "STOPPED");
        assert_eq!(stopped["stopCode"], code, "{name}");
        assert_eq!(stopped["stoppedReason"], reason, "{name}");
        let says = code == "TaskFailedToStart";
        assert_eq!(stopped["containers"][0]["reason"] == reason, says, "{name}");
        assert_eq!(simulator.states(&arn), states, "{name}");
    }
}

#[test]
fn a_killed_container_gives_no_reason() {
    let simulator = Simulator::start(&world());
    simulator.fault(&json!({"fault": {"kind": "failure", "name": "killed", "after_ms": 30}}));
    let arn = simulator.run(&run_task("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "EssentialContainerExited");
    assert_eq!(stopped["containers"][0]["exitCode"], 137);
    assert_eq!(stopped["containers"][0]["reason"], Value::Null);
}

#[test]
fn a_fault_in_running_waits_for_its_time() {
    let simulator = Simulator::start(&world());
    simulator
        .fault(&json!({"fault": {"kind": "failure", "name": "infrastructure", "after_ms": 400}}));
    let arn = simulator.run(&run_task("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "InfrastructureHealth");
    let ran = stopped["stoppingAt"].as_f64().unwrap() - stopped["startedAt"].as_f64().unwrap();
    assert!(ran >= 0.39, "{ran}");
}

#[test]
fn what_has_happened_is_seen_later() {
    let mut world = world();
    world["consistency_ms"] = json!({"describe": 400, "list": 1200});
    let simulator = Simulator::start(&world);
    let arn = simulator.run(&run_task("ci"));
    let describe = || simulator.ok("DescribeTasks", &json!({"cluster": "dev", "tasks": [arn]}));
    let list = || simulator.ok("ListTasks", &json!({"cluster": "dev"}))["taskArns"].clone();
    assert_eq!(describe()["failures"][0]["reason"], "MISSING");
    simulator.wait_for(&arn, "RUNNING");
    assert_eq!(list(), json!([]));
    eventually(|| Some(()).filter(|()| list() == json!([arn])));
    simulator.stop(&arn);
    assert_eq!(describe()["tasks"][0]["desiredStatus"], "STOPPED");
    assert_eq!(list(), json!([arn]), "ListTasks does not know of the stop yet");
    eventually(|| Some(()).filter(|()| list() == json!([])));
}
