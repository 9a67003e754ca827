//! Container instances, and what tasks on them have in place of a network interface: pure.
//!
//! Each task has an instance of its own, whose address is the task's loopback address. Instances of EC2 are known
//! to EC2; external ones have a Systems Manager id, and say their address in an attribute.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::Account;
use crate::definitions;
use crate::model::{ContainerDefinition, PortMapping, TaskDefinition};
use crate::names::Names;
use crate::protocol::ApiError;
use crate::requests::RunTask;
use crate::task::Task;

/// Ports that Docker chooses begin here.
const FIRST_DYNAMIC_PORT: i64 = 32_768;

/// `DescribeContainerInstancesRequest`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DescribeContainerInstances {
    cluster: Option<String>,
    container_instances: Vec<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "a member of the service model, which is accepted")]
    include: Vec<String>,
}

/// Refuses a definition that is not made for the launch type.
pub(crate) fn check_compatibility(
    definition: &TaskDefinition,
    launch_type: &str,
) -> Result<(), ApiError> {
    let listed = &definition.requires_compatibilities;
    let is_made_for_it = match launch_type {
        // Instances that ECS manages are shown as EC2 here.
        "EC2" => {
            let on_ec2 = |name: &String| name == "EC2" || name == "MANAGED_INSTANCES";
            listed.is_empty() || listed.iter().any(on_ec2)
        }
        other => listed.iter().any(|name| name == other),
    };
    if is_made_for_it {
        return Ok(());
    }
    Err(ApiError::invalid_parameter(format!(
        "Task definition does not support launch_type {launch_type}."
    )))
}

/// Refuses a network configuration that the network mode has no use for.
pub(crate) fn check_no_network(request: &RunTask) -> Result<(), ApiError> {
    match request.network_configuration {
        None => Ok(()),
        Some(_) => Err(ApiError::invalid_parameter(
            "Network Configuration is not valid for the given networkMode of this task definition.",
        )),
    }
}

/// The containers as they are seen from the host: in bridge mode they are reached at other ports.
pub(crate) fn on_host(definition: &TaskDefinition) -> Vec<ContainerDefinition> {
    let mut containers = definition.container_definitions.clone();
    if definitions::network_mode(definition) == "bridge" {
        for mapping in containers.iter_mut().flat_map(|one| &mut one.port_mappings) {
            mapping.container_port = host_port(mapping);
        }
    }
    containers
}

fn host_port(mapping: &PortMapping) -> Option<i64> {
    match mapping.host_port {
        None | Some(0) => Some(FIRST_DYNAMIC_PORT + mapping.container_port? % 10_000),
        fixed => fixed,
    }
}

/// `networkBindings` of a container, which are there when it runs.
pub(crate) fn bindings(task: &Task, container: &str) -> Vec<Value> {
    let definition = &task.revision.definition;
    let mode = definitions::network_mode(definition);
    if mode == "awsvpc" || task.times.started.is_none() {
        return Vec::new();
    }
    let binding = |mapping: &PortMapping| {
        let host_port = if mode == "bridge" { host_port(mapping) } else { mapping.container_port };
        json!({
            "bindIP": "0.0.0.0",
            "containerPort": mapping.container_port,
            "hostPort": host_port,
            "protocol": mapping.protocol.as_deref().unwrap_or("tcp"),
        })
    };
    let containers = &definition.container_definitions;
    let of = containers.iter().filter(|one| one.name == container);
    of.flat_map(|one| &one.port_mappings).map(binding).collect()
}

/// The id of a task's network interface.
pub(crate) fn interface_id(task: &Task) -> String {
    format!("eni-{}", short(task))
}

/// The id of a task's instance in EC2 or Systems Manager.
pub(crate) fn instance_id(task: &Task) -> String {
    let prefix = if task.launch_type == "EXTERNAL" { "mi" } else { "i" };
    format!("{prefix}-{}", short(task))
}

fn short(task: &Task) -> &str {
    task.id.get(..17).unwrap_or_default()
}

/// The private address. Where there is a public one, only that leads anywhere, as from outside the VPC.
pub(crate) fn private_address(task: &Task) -> Option<Ipv4Addr> {
    let [_, b, c, d] = task.address?.octets();
    if task.has_public_address { Some(Ipv4Addr::new(10, b, c, d)) } else { task.address }
}

/// The instance that a placed task runs on; none on Fargate.
pub(crate) fn arn(names: &Names, task: &Task) -> Option<String> {
    if task.launch_type == "FARGATE" {
        return None;
    }
    task.address?;
    let cluster = names.cluster_arn(&task.cluster);
    Some(format!("{}/{}", cluster.replacen(":cluster/", ":container-instance/", 1), task.id))
}

/// DescribeContainerInstances.
pub(crate) fn describe(
    account: &Account,
    request: &DescribeContainerInstances,
) -> Result<Value, ApiError> {
    let cluster = account.cluster(request.cluster.as_deref())?;
    if request.container_instances.is_empty() || request.container_instances.len() > 100 {
        return Err(ApiError::invalid_parameter("Container instances: 1 to 100 can be given."));
    }
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for wanted in &request.container_instances {
        let id = wanted.rsplit('/').next().unwrap_or(wanted);
        let task = account.tasks.get(id).filter(|task| task.cluster == cluster.name);
        match task.and_then(|task| Some((task, arn(&account.names, task)?))) {
            None => failures.push(json!({"arn": wanted, "reason": "MISSING"})),
            Some((task, arn)) => {
                let attributes = match (task.launch_type, task.address) {
                    ("EXTERNAL", Some(address)) => {
                        vec![json!({"name": "pointsman.address", "value": address.to_string()})]
                    }
                    _ => Vec::new(),
                };
                found.push(json!({
                    "containerInstanceArn": arn,
                    "ec2InstanceId": instance_id(task),
                    "status": "ACTIVE",
                    "agentConnected": true,
                    "attributes": attributes,
                }));
            }
        }
    }
    Ok(json!({"containerInstances": found, "failures": failures}))
}
