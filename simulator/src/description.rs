//! Tasks, task definitions and clusters as the API describes them: pure.

use serde_json::{Map, Value, json};

use crate::account::{Account, Cluster, Revision};
use crate::definitions;
use crate::instances;
use crate::lifecycle::Status;
use crate::names::Names;
use crate::task::{Container, Task};

/// A `Task`; with its tags when the call asked for them.
pub(crate) fn task(names: &Names, task: &Task, with_tags: bool) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            fields.insert(name.to_owned(), value);
        }
    };
    let definition = &task.revision.definition;
    set("taskArn", json!(task.arn));
    set("clusterArn", json!(names.cluster_arn(&task.cluster)));
    set("taskDefinitionArn", json!(task.revision.arn));
    set("lastStatus", json!(task.status));
    set("desiredStatus", json!(task.desired_status()));
    set("launchType", json!(task.launch_type));
    set("capacityProviderName", json!(task.capacity_provider));
    set("cpu", json!(task.cpu.map(|units| units.to_string())));
    set("memory", json!(task.memory.map(|mib| mib.to_string())));
    set("availabilityZone", json!(format!("{}a", names.region)));
    set("startedBy", json!(task.started_by));
    set("group", json!(task.group));
    set("version", json!(task.version));
    set("enableExecuteCommand", json!(task.enable_execute_command));
    set("healthStatus", json!("UNKNOWN"));
    set("overrides", json!(task.overrides));
    set("ephemeralStorage", json!({"sizeInGiB": task.ephemeral_gib}));
    let architecture = definition
        .runtime_platform
        .as_ref()
        .and_then(|platform| platform.cpu_architecture.as_deref());
    let attribute = match architecture {
        Some("ARM64") => "arm64",
        _ => "x86_64",
    };
    set("attributes", json!([{"name": "ecs.cpu-architecture", "value": attribute}]));
    if task.launch_type == "FARGATE" {
        set("platformVersion", json!(task.platform_version));
        set("platformFamily", json!("Linux"));
        set("fargateEphemeralStorage", json!({"sizeInGiB": task.ephemeral_gib}));
    }
    let attachments = if is_awsvpc(task) { vec![attachment(names, task)] } else { Vec::new() };
    set("attachments", json!(attachments));
    set("containerInstanceArn", json!(instances::arn(names, task)));
    let containers: Vec<Value> =
        task.containers.iter().map(|one| container(names, task, one)).collect();
    set("containers", json!(containers));
    set("tags", if with_tags { json!(task.tags) } else { json!([]) });
    let times = &task.times;
    set("createdAt", json!(times.created));
    set("connectivity", json!(times.connected.map(|_| "CONNECTED")));
    set("connectivityAt", json!(times.connected));
    set("pullStartedAt", json!(times.pull_started));
    set("pullStoppedAt", json!(times.pull_stopped));
    set("startedAt", json!(times.started));
    set("stoppingAt", json!(times.stopping));
    set("executionStoppedAt", json!(times.execution_stopped));
    set("stoppedAt", json!(times.stopped));
    if let Some(stop) = &task.stop {
        set("stopCode", json!(stop.code));
        set("stoppedReason", json!(stop.reason));
    }
    Value::Object(fields)
}

/// The elastic network interface, which has an address from PENDING on.
fn attachment(names: &Names, task: &Task) -> Value {
    let status = match task.status {
        Status::Provisioning => "PRECREATED",
        Status::Pending => "ATTACHING",
        Status::Activating | Status::Running | Status::Deactivating | Status::Stopping => {
            "ATTACHED"
        }
        Status::Deprovisioning => "DETACHING",
        Status::Stopped => "DELETED",
    };
    let mut details = vec![json!({"name": "subnetId", "value": task.subnet})];
    if let Some(address) = instances::private_address(task) {
        let [a, b, c, d] = address.octets();
        let mut detail =
            |name: &str, value: String| details.push(json!({"name": name, "value": value}));
        detail("networkInterfaceId", instances::interface_id(task));
        detail("macAddress", format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"));
        detail("privateDnsName", format!("ip-{a}-{b}-{c}-{d}.{}.compute.internal", names.region));
        detail("privateIPv4Address", address.to_string());
    }
    json!({"id": attachment_id(task), "type": "ElasticNetworkInterface", "status": status, "details": details})
}

/// An id of the UUID's shape, made from the task's.
fn attachment_id(task: &Task) -> String {
    let part = |from: usize, to: usize| task.id.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

fn is_awsvpc(task: &Task) -> bool {
    definitions::network_mode(&task.revision.definition) == "awsvpc"
}

fn container(names: &Names, task: &Task, container: &Container) -> Value {
    let status = match task.status {
        Status::Provisioning | Status::Pending | Status::Activating => "PENDING",
        Status::Running | Status::Deactivating | Status::Stopping
            if container.exit_code.is_none() =>
        {
            "RUNNING"
        }
        _ => "STOPPED",
    };
    let interfaces: Vec<Value> = instances::private_address(task)
        .filter(|_| is_awsvpc(task))
        .iter()
        .map(|address| json!({"attachmentId": attachment_id(task), "privateIpv4Address": address.to_string()}))
        .collect();
    let mut value = json!({
        "containerArn": names.container_arn(&task.cluster, &task.id, &container.id),
        "taskArn": task.arn,
        "name": container.name,
        "image": container.image,
        "lastStatus": status,
        "networkBindings": instances::bindings(task, &container.name),
        "networkInterfaces": interfaces,
        "healthStatus": "UNKNOWN",
    });
    let definitions = &task.revision.definition.container_definitions;
    if let Some(definition) =
        definitions.iter().find(|definition| definition.name == container.name)
    {
        value["cpu"] = json!(definition.cpu.to_string());
        if let Some(memory) = definition.memory {
            value["memory"] = json!(memory.to_string());
        }
        if let Some(reservation) = definition.memory_reservation {
            value["memoryReservation"] = json!(reservation.to_string());
        }
    }
    if task.times.started.is_some() {
        value["runtimeId"] =
            json!(format!("{}-{}", task.id, container.id.get(..10).unwrap_or_default()));
    }
    if let Some(code) = container.exit_code {
        value["exitCode"] = json!(code);
    }
    if let Some(reason) = &container.reason {
        value["reason"] = json!(reason);
    }
    value
}

/// A `TaskDefinition`.
pub(crate) fn task_definition(revision: &Revision) -> Value {
    let mut value = json!(revision.definition);
    value["taskDefinitionArn"] = json!(revision.arn);
    value["revision"] = json!(revision.number);
    value["status"] = json!(if revision.is_active { "ACTIVE" } else { "INACTIVE" });
    value["registeredAt"] = json!(revision.registered_at);
    value["compatibilities"] = json!(["EC2", "FARGATE"]);
    value
}

/// A `Cluster`.
pub(crate) fn cluster(account: &Account, cluster: &Cluster) -> Value {
    let count = |wanted: fn(Status) -> bool| {
        account
            .tasks
            .values()
            .filter(|task| task.cluster == cluster.name && wanted(task.status))
            .count()
    };
    let mut value = json!({
        "clusterArn": account.names.cluster_arn(&cluster.name),
        "clusterName": cluster.name,
        "status": cluster.status,
        // One for each task, so at least one of each kind.
        "registeredContainerInstancesCount": cluster.launch_types.len(),
        "runningTasksCount": count(|status| status == Status::Running),
        "pendingTasksCount": count(|status| status < Status::Running),
        "activeServicesCount": 0,
        "statistics": [],
        "settings": cluster.settings,
        "tags": cluster.tags,
        "capacityProviders": cluster.capacity_providers,
        "defaultCapacityProviderStrategy": cluster.default_strategy,
    });
    if let Some(configuration) = &cluster.configuration {
        value["configuration"] = configuration.clone();
    }
    if let Some(defaults) = &cluster.service_connect_defaults {
        value["serviceConnectDefaults"] = defaults.clone();
    }
    value
}
