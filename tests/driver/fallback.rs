//! The fallback table: what `prepare` does next after each kind of failure, told by the ledger and the log.

use serde_json::{Value, json};

use crate::support::output::StageOutput;
use crate::support::{House, Job};

fn stop(reason: &str) -> Value {
    json!({ "kind": "stop", "code": "TaskFailedToStart", "phase": "PENDING", "reason": reason })
}

fn refusal(status: u16, code: &str, message: &str) -> Value {
    json!({ "kind": "api-error", "operation": "RunTask", "status": status, "code": code, "message": message })
}

/// Runs `config`, `prepare` and `cleanup` of `profile` under `faults`; the tasks that were started are
/// answered as (architecture, Spot or not, subnets).
fn prepared(profile: &str, faults: &Value) -> (StageOutput, Vec<(bool, bool, usize)>, Value) {
    let house = House::with_faults(faults);
    let mut attempt = house.attempt(profile, &Job::default());
    let _ = attempt.config().succeeds();
    let output = attempt.prepare();
    let _ = attempt.cleanup().succeeds();
    let ledger = crate::support::ledger::settle(&house.ledger_file());
    ledger.assert_nothing_twice();
    let started = ledger
        .started()
        .iter()
        .map(|task| {
            let is_arm = task["task_definition"].as_str().unwrap().contains("arm64");
            let is_spot = task["capacity_provider"] == "FARGATE_SPOT";
            (is_arm, is_spot, task["subnets"].as_array().unwrap().len())
        })
        .collect();
    let mut records = house.records();
    assert_eq!(records.len(), 1);
    (output, started, records.remove(0))
}

const ARM_SPOT: (bool, bool, usize) = (true, true, 1);
const ARM: (bool, bool, usize) = (true, false, 1);
const X86: (bool, bool, usize) = (false, false, 1);

#[test]
fn no_capacity_on_spot_leads_to_on_demand() {
    let faults = json!([{
        "match": { "capacity_provider": "FARGATE_SPOT" }, "fault": { "kind": "no-capacity" },
    }]);
    let (output, started, record) = prepared("ranked", &faults);
    let _ = output
        .succeeds()
        .says("Placement 1 of 3 (cluster test, task definition agent, arm64, spot")
        .says("has no task: there is no capacity for it now (Capacity is unavailable at this time.")
        .says(
            "Going on with placement 2 of 3: cluster test, task definition agent, arm64, on-demand",
        );
    assert_eq!(started, [ARM]);
    assert_eq!(record["placement"]["capacity"], "on-demand");
    assert_eq!(record["outcome"]["kind"], "released");
    assert_eq!(record["earlier"][0]["failed"]["cause"], "no-capacity");
}

#[test]
fn an_image_without_arm_leads_to_x86() {
    let reason = "CannotPullContainerError: pull image manifest has been retried 7 time(s): image Manifest does not contain descriptor matching platform 'linux/arm64'";
    let faults = json!([{ "match": { "family": "agent-task-arm64" }, "fault": stop(reason) }]);
    let (output, started, record) = prepared("ranked", &faults);
    // On demand, the same image would lack the same architecture.
    let _ = output
        .succeeds()
        .says("the image is not built for its architecture")
        .says("Going on with placement 3 of 3");
    assert_eq!(started, [ARM_SPOT, X86]);
    assert_eq!(record["placement"]["arch"], "x86_64");
}

#[test]
fn an_image_for_no_ranked_architecture_is_the_authors_affair() {
    let reason = "CannotPullContainerError: image Manifest does not contain descriptor matching platform 'linux/arm64'";
    let (output, started, _) = prepared("agent", &json!([{ "match": {}, "fault": stop(reason) }]));
    let _ = output.fails_the_build().says("docker buildx build");
    assert_eq!(started.len(), 1);
}

#[test]
fn spot_gone_while_starting_leads_to_on_demand() {
    let faults = json!([{
        "match": { "capacity_provider": "FARGATE_SPOT" },
        "fault": { "kind": "stop", "code": "SpotInterruption", "phase": "ACTIVATING",
            "reason": "Your Spot Task was interrupted." },
    }]);
    let (output, started, _) = prepared("ranked", &faults);
    let _ = output
        .succeeds()
        .says("Spot took the task back while it was starting")
        .says("Going on with placement 2 of 3");
    assert_eq!(started, [ARM_SPOT, ARM]);
}

#[test]
fn a_full_subnet_leads_to_the_next() {
    let reason = "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment disabled in subnet 'subnet-12345': InsufficientFreeAddressesInSubnet";
    let faults = json!([{ "match": { "subnet": "subnet-12345" }, "fault": stop(reason) }]);
    let (output, started, record) = prepared("two-subnets", &faults);
    let _ = output
        .succeeds()
        .says("the subnet has no free addresses")
        .says("Trying the same placement without subnet subnet-12345.");
    assert_eq!(started, [(false, false, 2), (false, false, 1)]);
    assert_eq!(record["launch"]["avoid_subnets"], json!(["subnet-12345"]));
    // When all are full there is nowhere to go.
    let (output, started, record) =
        prepared("two-subnets", &json!([{ "match": {}, "fault": stop(reason) }]));
    let _ = output.fails_the_system().says("InsufficientFreeAddressesInSubnet").says("`subnets`");
    assert_eq!(started, [(false, false, 2), (false, false, 1)]);
    assert_eq!(record["outcome"]["kind"], "capacity");
}

#[test]
fn a_full_subnet_is_tried_last_by_the_next_jobs() {
    let reason = "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment disabled in subnet 'subnet-12345': InsufficientFreeAddressesInSubnet";
    let full = |subnet: &str| json!({ "match": { "subnet": subnet }, "fault": stop(reason) });
    let house = House::with_faults(&json!([full("subnet-12345")]));
    let play = |says: &str| {
        let mut attempt = house.attempt("two-subnets", &Job::default());
        let _ = attempt.config().succeeds();
        let output = attempt.prepare().succeeds().says(says);
        let _ = attempt.cleanup().succeeds();
        output
    };
    let _ = play("Trying the same placement without subnet subnet-12345.");
    let _ = play(
        "Other jobs have just found no free addresses in subnet-12345: trying the other subnets first.",
    )
    .hides("Trying the same placement");
    let subnets = |ledger: &crate::support::ledger::Ledger| -> Vec<Value> {
        ledger.started().iter().map(|task| task["subnets"].clone()).collect()
    };
    let (both, second) = (json!(["subnet-12345", "subnet-67890"]), json!(["subnet-67890"]));
    assert_eq!(subnets(&house.settled(3)), [both, second.clone(), second.clone()]);

    // Now the other one is full, and the first has addresses again: what others found keeps nobody out.
    house.set_faults(&[full("subnet-67890")]);
    let _ = play("Trying the same placement without subnet subnet-67890.");
    let ledger = house.settled(5);
    assert_eq!(subnets(&ledger)[3..], [second, json!(["subnet-12345"])]);
    // A task that got an address there is proof for all.
    let _ = play("Other jobs have just found no free addresses in subnet-67890");
    assert_eq!(subnets(&house.settled(6))[5], json!(["subnet-12345"]));
}

#[test]
fn what_passes_by_itself_is_tried_again() {
    for reason in [
        "Timeout waiting for network interface provisioning to complete.",
        "Timeout waiting for EphemeralStorage provisioning to complete.",
        "CannotPullContainerError: ref pull has been retried 5 time(s): dial tcp: i/o timeout",
    ] {
        let faults = json!([{ "match": {}, "times": 2, "fault": stop(reason) }]);
        let (output, started, record) = prepared("ranked", &faults);
        let _ = output.succeeds().says("Trying the same placement again in");
        assert_eq!(started, [ARM_SPOT, ARM_SPOT, ARM_SPOT], "{reason}");
        assert_eq!(record["launch"]["number"], 2);
    }
    // And then elsewhere.
    let reason = "Timeout waiting for network interface provisioning to complete.";
    let faults =
        json!([{ "match": { "capacity_provider": "FARGATE_SPOT" }, "fault": stop(reason) }]);
    let (output, started, _) = prepared("ranked", &faults);
    let _ = output.succeeds().says("Going on with placement 2 of 3");
    assert_eq!(started, [ARM_SPOT, ARM_SPOT, ARM_SPOT, ARM]);
}

#[test]
fn throttling_and_server_errors_are_waited_out_with_one_token() {
    for (status, code, message) in [
        (400, "ThrottlingException", "Rate exceeded"),
        (500, "ServerException", "Service Unavailable. Please try again later."),
    ] {
        let faults = json!([{ "match": {}, "times": 2, "fault": refusal(status, code, message) }]);
        let (output, started, _) = prepared("ranked", &faults);
        let _ = output
            .succeeds()
            .says("The task could not be asked for, since AWS")
            .says(code)
            .says("Asking again in");
        assert_eq!(started, [ARM_SPOT], "{code}");
    }
}

#[test]
fn what_cannot_be_mended_by_trying_ends_it() {
    let denied =
        refusal(400, "AccessDeniedException", "User: x is not authorized to perform: ecs:RunTask");
    let (output, started, record) = prepared("ranked", &json!([{ "match": {}, "fault": denied }]));
    let _ = output.fails_the_system().says("iam:PassRole").hides("Going on");
    assert!(started.is_empty());
    assert_eq!(record["placement"], Value::Null);

    let unknown = refusal(400, "ClusterNotFoundException", "Cluster not found.");
    let (output, started, _) = prepared("ranked", &json!([{ "match": {}, "fault": unknown }]));
    let _ = output.fails_the_system().says("aws ecs list-clusters").hides("Going on");
    assert!(started.is_empty());

    let reason = "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref example/x:y: example/x:y: not found";
    let (output, started, _) = prepared("ranked", &json!([{ "match": {}, "fault": stop(reason) }]));
    let _ = output.fails_the_build().says("example/x:y: not found").says("hint: correct the image");
    assert_eq!(started, [ARM_SPOT]);

    let reason = "CannotPullContainerError: unexpected status from HEAD request: 403 Forbidden";
    let (output, started, _) = prepared("ranked", &json!([{ "match": {}, "fault": stop(reason) }]));
    let _ = output.fails_the_system().says("ecr:BatchGetImage");
    assert_eq!(started, [ARM_SPOT]);
}

#[test]
fn when_nothing_is_to_be_had_each_placement_is_told_of() {
    let (output, started, record) =
        prepared("ranked", &json!([{ "match": {}, "fault": { "kind": "no-capacity" } }]));
    let _ = output
        .fails_the_system()
        .says("before that, placement 1 of 3: there is no capacity for it now")
        .says("before that, placement 2 of 3: there is no capacity for it now")
        .says("hint:");
    assert!(started.is_empty());
    assert_eq!(record["outcome"]["kind"], "capacity");
}

#[test]
fn a_left_task_that_cannot_be_stopped_ends_it() {
    // The agent never answers and a later look finds the task stopped by itself is not this: here it is slow.
    let faults = json!([
        { "match": {}, "fault": { "kind": "missing", "for_ms": 600_000 } },
        { "match": {}, "fault": { "kind": "api-error", "operation": "StopTask", "status": 400,
            "code": "AccessDeniedException", "message": "not authorized" }, "times": 1 },
    ]);
    let house = House::altered(&json!({ "faults": faults }), |settings| {
        settings.replace(
            "cluster = \"test-cluster\"\n",
            "cluster = \"test-cluster\"\nstart_timeout = \"1s\"\n",
        )
    });
    let mut attempt = house.attempt("ranked", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().fails_the_system().says("cannot be stopped").says("ecs:StopTask");
    let _ = attempt.cleanup().succeeds();
    let ledger = house.settled(1);
    ledger.assert_nothing_twice();
}
