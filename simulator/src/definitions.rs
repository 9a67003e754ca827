//! What RegisterTaskDefinition refuses: pure.

use crate::model::{ContainerDefinition, TaskDefinition};
use crate::names;
use crate::ordering;
use crate::protocol::ApiError;
use crate::size;
use crate::tags;

/// Checks a task definition by the rules for Fargate.
pub(crate) fn check(definition: &TaskDefinition) -> Result<(), ApiError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if definition.family.is_empty()
        || definition.family.len() > 255
        || !definition.family.bytes().all(word)
    {
        return Err(ApiError::client(
            "Family contains invalid characters. Up to 255 letters (uppercase and lowercase), numbers, hyphens, and underscores are allowed.",
        ));
    }
    for role in [&definition.task_role_arn, &definition.execution_role_arn].into_iter().flatten() {
        if !names::is_role_arn(role) {
            return Err(ApiError::client("Role is not valid"));
        }
    }
    let mode = network_mode(definition);
    if supports_fargate(definition) && mode != "awsvpc" {
        return Err(ApiError::client("Fargate only supports network mode 'awsvpc'."));
    }
    if !["awsvpc", "bridge", "host"].contains(&mode) {
        return Err(ApiError::client("networkMode should be one of [bridge, host, awsvpc, none]"));
    }
    if definition.container_definitions.is_empty() {
        return Err(ApiError::client("Container list cannot be empty."));
    }
    if definition.container_definitions.len() > 10 {
        return Err(ApiError::client("Task definition cannot contain more than 10 containers."));
    }
    if !definition.container_definitions.iter().any(|container| container.essential) {
        return Err(ApiError::client(
            "At least one container in the task definition should be marked as essential.",
        ));
    }
    let fargate = supports_fargate(definition);
    for (index, container) in definition.container_definitions.iter().enumerate() {
        let others = definition.container_definitions.iter().take(index);
        if others.into_iter().any(|other| other.name == container.name) {
            return Err(ApiError::client(format!("Duplicate container name {}.", container.name)));
        }
        check_container(definition, container, fargate)?;
    }
    ordering::check(&definition.container_definitions)?;
    if let Some(storage) = &definition.ephemeral_storage {
        check_ephemeral_storage(storage.size_in_gib)?;
    }
    if fargate {
        let (Some(cpu), Some(memory)) = (&definition.cpu, &definition.memory) else {
            return Err(ApiError::client(
                "Fargate requires task definition to have cpu and memory at task level.",
            ));
        };
        size::check_fargate(size::cpu_units(cpu)?, size::memory_mib(memory)?)?;
    }
    if let Some(platform) = &definition.runtime_platform {
        let known = ["X86_64", "ARM64"];
        if platform.cpu_architecture.as_deref().is_some_and(|arch| !known.contains(&arch)) {
            return Err(ApiError::client(
                "runtimePlatform.cpuArchitecture should be one of [X86_64, ARM64]",
            ));
        }
    }
    tags::check(&definition.tags)
}

/// Linux tasks without one are of Docker's own.
pub(crate) fn network_mode(definition: &TaskDefinition) -> &str {
    definition.network_mode.as_deref().unwrap_or("bridge")
}

/// Whether tasks of it may run on Fargate.
pub(crate) fn supports_fargate(definition: &TaskDefinition) -> bool {
    definition.requires_compatibilities.iter().any(|name| name == "FARGATE")
}

/// Refuses what Fargate does not offer.
pub(crate) fn check_ephemeral_storage(gib: i64) -> Result<(), ApiError> {
    if (21..=200).contains(&gib) {
        return Ok(());
    }
    Err(ApiError::client(format!(
        "Invalid ephemeral storage size {gib} GiB: the minimum supported value is 21 GiB and the maximum supported value is 200 GiB."
    )))
}

fn check_container(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    fargate: bool,
) -> Result<(), ApiError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if container.name.is_empty() || container.name.len() > 255 || !container.name.bytes().all(word)
    {
        return Err(ApiError::client("Container.name contains invalid characters."));
    }
    if container.image.is_empty() {
        return Err(ApiError::client("Container.image should not be null or empty."));
    }
    if fargate && container.privileged == Some(true) {
        return Err(ApiError::client(
            "Tasks using the Fargate launch type do not support container setting 'privileged'.",
        ));
    }
    if let Some(seconds) = container.stop_timeout
        && fargate
        && !(0..=120).contains(&seconds)
    {
        return Err(ApiError::client(
            "Container.stopTimeout must be at most 120 seconds on Fargate.",
        ));
    }
    for mapping in &container.port_mappings {
        let Some(port) = mapping.container_port else { continue };
        if !(1..=65535).contains(&port) {
            return Err(ApiError::client(format!(
                "Invalid 'containerPort' setting for container '{}'",
                container.name
            )));
        }
        let is_mapped = mapping.host_port.is_some_and(|host| host != port && host != 0);
        if is_mapped && network_mode(definition) != "bridge" {
            return Err(ApiError::client(
                "When networkMode=awsvpc, the host ports and container ports in port mappings must match.",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::check;

    fn legal() -> Value {
        json!({
            "family": "ci", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
            "cpu": "256", "memory": "512",
            "containerDefinitions": [
                {"name": "main", "image": "agent", "portMappings": [{"containerPort": 2222}]},
                {"name": "side", "image": "redis", "essential": false},
            ],
        })
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut value = legal();
        change(&mut value);
        check(&serde_json::from_value(value).unwrap())
            .map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn a_legal_definition_is_accepted() {
        assert_eq!(refusal(|_| ()), "");
    }

    #[test]
    fn every_rule_refuses() {
        type Change = fn(&mut Value);
        let table: &[(Change, &str)] = &[
            (|value| value["family"] = json!("a b"), "Family contains invalid characters"),
            (|value| value["taskRoleArn"] = json!("admin"), "Role is not valid"),
            (|value| value["networkMode"] = json!("host"), "network mode 'awsvpc'"),
            (|value| value["containerDefinitions"] = json!([]), "Container list cannot be empty"),
            (
                |value| value["containerDefinitions"][0]["essential"] = json!(false),
                "marked as essential",
            ),
            (
                |value| value["containerDefinitions"][1]["name"] = json!("main"),
                "Duplicate container name main",
            ),
            (|value| value["containerDefinitions"][1]["name"] = json!("a b"), "Container.name"),
            (|value| value["containerDefinitions"][0]["image"] = json!(""), "Container.image"),
            (|value| value["containerDefinitions"][0]["privileged"] = json!(true), "privileged"),
            (|value| value["containerDefinitions"][0]["stopTimeout"] = json!(121), "stopTimeout"),
            (
                |value| {
                    value["containerDefinitions"][0]["portMappings"][0]["containerPort"] = json!(0)
                },
                "containerPort",
            ),
            (
                |value| value["containerDefinitions"][0]["portMappings"][0]["hostPort"] = json!(22),
                "must match",
            ),
            (
                |value| {
                    value["containerDefinitions"][0]["dependsOn"] =
                        json!([{"containerName": "db", "condition": "START"}]);
                },
                "dependency on container 'db'",
            ),
            (|value| value["ephemeralStorage"] = json!({"sizeInGiB": 20}), "ephemeral storage"),
            (|value| value["cpu"] = Value::Null, "cpu and memory at task level"),
            (|value| value["cpu"] = json!("300"), "No Fargate configuration exists"),
            (|value| value["cpu"] = json!("much"), "Invalid 'cpu' setting"),
            (|value| value["memory"] = json!("much"), "Invalid 'memory' setting"),
            (
                |value| value["runtimePlatform"] = json!({"cpuArchitecture": "arm"}),
                "cpuArchitecture",
            ),
            (|value| value["tags"] = json!([{"key": "aws:x", "value": ""}]), "aws:"),
        ];
        for (change, expected) in table {
            let message = refusal(change);
            assert!(message.contains(expected), "`{message}` should contain `{expected}`");
        }
        let eleven: Vec<Value> =
            (0..11).map(|number| json!({"name": format!("c{number}"), "image": "i"})).collect();
        assert!(
            refusal(|value| value["containerDefinitions"] = json!(eleven)).contains("more than 10")
        );
    }
}
