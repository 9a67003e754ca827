//! What RunTask refuses, and what a request means that it accepts: pure.
//!
//! API reference, "RunTask"; the messages are the service's where they are known.

use std::sync::Arc;

use crate::account::{Account, Cluster, Revision};
use crate::capacity::Load;
use crate::definitions;
use crate::faults::Target;
use crate::instances;
use crate::model::{AwsVpcConfiguration, CapacityProviderStrategyItem, Tag, TaskOverride, Volume};
use crate::names;
use crate::protocol::ApiError;
use crate::requests::RunTask;
use crate::size;
use crate::strategy;
use crate::tags;

/// A request that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) cluster: String,
    pub(crate) revision: Arc<Revision>,
    /// One per task; none with a launch type.
    pub(crate) capacity_providers: Vec<Option<String>>,
    pub(crate) launch_type: &'static str,
    pub(crate) has_public_address: bool,
    /// CPU units.
    pub(crate) cpu: Option<u32>,
    /// MiB.
    pub(crate) memory: Option<u32>,
    pub(crate) ephemeral_gib: i64,
    pub(crate) platform_version: &'static str,
    pub(crate) task_role: Option<String>,
    /// The first of the request's.
    pub(crate) subnet: String,
    pub(crate) subnets: Vec<String>,
    /// All that the task gets.
    pub(crate) tags: Vec<Tag>,
}

impl Plan {
    /// What each of its tasks takes of the account's capacity.
    pub(crate) fn loads(&self) -> Vec<Load> {
        let load = |provider: &Option<String>| {
            let provider = provider.clone().unwrap_or_else(|| self.launch_type.to_owned());
            let target = Target {
                cluster: Some(self.cluster.clone()),
                family: Some(self.revision.definition.family.clone()),
                capacity_provider: Some(provider),
                subnet: Some(self.subnet.clone()),
            };
            Load { target, cpu: self.cpu.unwrap_or_default() }
        };
        self.capacity_providers.iter().map(load).collect()
    }
}

/// Checks a request against the account. `overrides_length` is in characters of JSON.
pub(crate) fn check(
    account: &Account,
    request: &RunTask,
    overrides_length: usize,
) -> Result<Plan, ApiError> {
    let cluster = account.cluster(request.cluster.as_deref())?;
    if cluster.status != "ACTIVE" {
        return Err(ApiError::client("The referenced cluster was inactive."));
    }
    let revision = account.definition(&request.task_definition)?;
    if !revision.is_active {
        return Err(ApiError::client("TaskDefinition is inactive"));
    }
    let count = request.count.unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(ApiError::invalid_parameter("Count should be between 1 and 10."));
    }
    check_words(request)?;
    tags::check(&request.tags)?;
    let placed = place(cluster, request)?;
    let capacity_providers = match &placed {
        Placed::LaunchType(_) => vec![None; count as usize],
        Placed::Strategy(strategy) => {
            strategy::distribute(strategy, count as usize).map(Some).collect()
        }
    };
    let launch_type = match &placed {
        Placed::LaunchType(launch_type) => launch_type,
        Placed::Strategy(_) => {
            let named = capacity_providers.iter().flatten();
            if named.clone().all(|name| name.starts_with("FARGATE")) { "FARGATE" } else { "EC2" }
        }
    };
    let fargate = launch_type == "FARGATE";
    instances::check_compatibility(&revision.definition, launch_type)?;
    check_placement(request, &revision, fargate)?;
    let network = match definitions::network_mode(&revision.definition) {
        "awsvpc" => Some(check_network(account, request)?),
        _ => instances::check_no_network(request).map(|()| None)?,
    };
    let assigns =
        network.and_then(|network| network.assign_public_ip.as_deref()) == Some("ENABLED");
    if assigns && !fargate {
        return Err(ApiError::invalid_parameter(
            "Assign public IP is not supported for this launch type.",
        ));
    }
    let none = TaskOverride::default();
    let overrides = request.overrides.as_ref().unwrap_or(&none);
    check_overrides(account, &revision, overrides, overrides_length)?;
    let (cpu, memory) = task_size(&revision, overrides, fargate)?;
    let task_role =
        overrides.task_role_arn.clone().or_else(|| revision.definition.task_role_arn.clone());
    if request.enable_execute_command && task_role.is_none() {
        return Err(ApiError::invalid_parameter(
            "The service couldn't be run because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again.",
        ));
    }
    let storage =
        overrides.ephemeral_storage.as_ref().or(revision.definition.ephemeral_storage.as_ref());
    Ok(Plan {
        cluster: cluster.name.clone(),
        capacity_providers,
        launch_type,
        has_public_address: assigns,
        cpu,
        memory,
        // Fargate's own when nothing is set.
        ephemeral_gib: storage.map_or(20, |storage| storage.size_in_gib),
        platform_version: platform_version(request.platform_version.as_deref(), fargate)?,
        task_role,
        subnet: network.and_then(|one| one.subnets.first().cloned()).unwrap_or_default(),
        subnets: network.map(|network| network.subnets.clone()).unwrap_or_default(),
        tags: all_tags(request, &revision, &cluster.name)?,
        revision,
    })
}

enum Placed {
    LaunchType(&'static str),
    Strategy(Vec<CapacityProviderStrategyItem>),
}

/// Launch type, capacity provider strategy or the cluster's default strategy.
fn place(cluster: &Cluster, request: &RunTask) -> Result<Placed, ApiError> {
    let no_instances =
        || ApiError::invalid_parameter("No Container Instances were found in your cluster.");
    let has = |kind: &str| cluster.launch_types.iter().any(|one| one == kind);
    match (request.launch_type.as_deref(), request.capacity_provider_strategy.as_slice()) {
        (Some(_), [_, ..]) => Err(ApiError::invalid_parameter(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
        )),
        (Some("FARGATE"), []) => Ok(Placed::LaunchType("FARGATE")),
        (Some("EC2"), []) if has("EC2") => Ok(Placed::LaunchType("EC2")),
        (Some("EXTERNAL"), []) if has("EXTERNAL") => Ok(Placed::LaunchType("EXTERNAL")),
        (Some("EC2" | "EXTERNAL" | "MANAGED_INSTANCES"), []) => Err(no_instances()),
        (Some(other), []) => Err(ApiError::invalid_parameter(format!(
            "Launch type {other} is not valid: it should be one of [EC2, FARGATE, EXTERNAL, MANAGED_INSTANCES]."
        ))),
        (None, []) if cluster.default_strategy.is_empty() => Err(no_instances()),
        (None, []) => Ok(Placed::Strategy(cluster.default_strategy.clone())),
        (None, strategy) => {
            strategy::check(strategy, &cluster.capacity_providers)?;
            Ok(Placed::Strategy(strategy.to_vec()))
        }
    }
}

/// Fields that are words of limited length and alphabet.
fn check_words(request: &RunTask) -> Result<(), ApiError> {
    if let Some(started_by) = &request.started_by {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
        if started_by.len() > 128 || !started_by.bytes().all(legal) {
            return Err(ApiError::invalid_parameter(
                "startedBy must be at most 128 letters (uppercase and lowercase), numbers, hyphens, forward slashes and underscores.",
            ));
        }
    }
    if let Some(token) = &request.client_token
        && (token.is_empty()
            || token.len() > 64
            || !token.bytes().all(|byte| (33..=126).contains(&byte)))
    {
        return Err(ApiError::invalid_parameter(
            "clientToken must be up to 64 ASCII characters in the range of 33-126.",
        ));
    }
    match request.propagate_tags.as_deref() {
        None | Some("TASK_DEFINITION" | "NONE") => {}
        Some("SERVICE") => {
            return Err(ApiError::invalid_parameter(
                "Tags can be propagated from a service only to its own tasks.",
            ));
        }
        Some(other) => {
            return Err(ApiError::invalid_parameter(format!(
                "propagateTags {other} is not valid: it should be one of [TASK_DEFINITION, NONE]."
            )));
        }
    }
    if request.reference_id.as_ref().is_some_and(|id| id.len() > 1024) {
        return Err(ApiError::invalid_parameter("referenceId must be at most 1024 characters."));
    }
    Ok(())
}

/// Placement constraints and strategies are for container instances; volumes need a definition that expects them.
fn check_placement(request: &RunTask, revision: &Revision, fargate: bool) -> Result<(), ApiError> {
    if request.placement_constraints.len() > 10 || request.placement_strategy.len() > 5 {
        return Err(ApiError::invalid_parameter(
            "Up to 10 placement constraints and 5 placement strategies can be given.",
        ));
    }
    if fargate && !request.placement_constraints.is_empty() {
        return Err(ApiError::invalid_parameter(
            "Placement constraints are not supported with FARGATE launch type.",
        ));
    }
    if fargate && !request.placement_strategy.is_empty() {
        return Err(ApiError::invalid_parameter(
            "Placement strategies are not supported with FARGATE launch type.",
        ));
    }
    for volume in &request.volume_configurations {
        let expects =
            |known: &Volume| known.name == volume.name && known.configured_at_launch == Some(true);
        if !revision.definition.volumes.iter().any(expects) {
            return Err(ApiError::invalid_parameter(format!(
                "Volume {} is not configured at launch in the task definition.",
                volume.name
            )));
        }
    }
    Ok(())
}

fn check_network<'a>(
    account: &Account,
    request: &'a RunTask,
) -> Result<&'a AwsVpcConfiguration, ApiError> {
    let network = request
        .network_configuration
        .as_ref()
        .and_then(|network| network.awsvpc_configuration.as_ref())
        .ok_or_else(|| {
            ApiError::invalid_parameter(
                "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            )
        })?;
    if network.subnets.is_empty() {
        return Err(ApiError::invalid_parameter("subnets can not be empty."));
    }
    if network.subnets.len() > 16 {
        return Err(ApiError::invalid_parameter("subnets can have at most 16 items."));
    }
    if network.security_groups.len() > 5 {
        return Err(ApiError::invalid_parameter("securityGroups can have at most 5 items."));
    }
    if let Some(unknown) = network.subnets.iter().find(|subnet| !account.subnets.contains(subnet)) {
        return Err(ApiError::invalid_parameter(format!(
            "Error retrieving subnet information for [{unknown}]: The subnet ID '{unknown}' does not exist (ErrorCode: InvalidSubnetID.NotFound)"
        )));
    }
    if let Some(unknown) =
        network.security_groups.iter().find(|group| !account.security_groups.contains(group))
    {
        return Err(ApiError::invalid_parameter(format!(
            "Error retrieving security group information for [{unknown}]: The security group '{unknown}' does not exist (ErrorCode: InvalidGroup.NotFound)"
        )));
    }
    match network.assign_public_ip.as_deref() {
        None | Some("ENABLED" | "DISABLED") => Ok(network),
        Some(other) => Err(ApiError::invalid_parameter(format!(
            "assignPublicIp {other} is not valid: it should be one of [ENABLED, DISABLED]."
        ))),
    }
}

fn check_overrides(
    account: &Account,
    revision: &Revision,
    overrides: &TaskOverride,
    length: usize,
) -> Result<(), ApiError> {
    if length > 8192 {
        return Err(ApiError::invalid_parameter("Container Overrides length must be at most 8192"));
    }
    for container in &overrides.container_overrides {
        let Some(name) = &container.name else {
            return Err(ApiError::invalid_parameter(
                "Container name in container overrides can not be empty.",
            ));
        };
        if !revision.definition.container_definitions.iter().any(|known| known.name == *name) {
            return Err(ApiError::invalid_parameter(format!(
                "Override for container named {name} is not a container in the TaskDefinition."
            )));
        }
        let files = container.environment_files.as_deref().unwrap_or_default();
        if files.len() > 10
            || files.iter().any(|file| file.kind != "s3" || !file.value.starts_with("arn:"))
        {
            return Err(ApiError::invalid_parameter(
                "environmentFiles can have at most 10 items, each of type s3 and with the ARN of an object.",
            ));
        }
    }
    if !overrides.inference_accelerator_overrides.is_empty() {
        return Err(ApiError::invalid_parameter("Inference accelerators are not supported."));
    }
    if let Some(storage) = &overrides.ephemeral_storage {
        definitions::check_ephemeral_storage(storage.size_in_gib)?;
    }
    for role in [&overrides.task_role_arn, &overrides.execution_role_arn].into_iter().flatten() {
        if !names::is_role_arn(role) {
            return Err(ApiError::client("Role is not valid"));
        }
        if !account.roles.contains(role) {
            let caller =
                format!("arn:aws:sts::{}:assumed-role/simulated/simulated", account.names.account);
            return Err(ApiError::new(
                "AccessDeniedException",
                format!(
                    "User: {caller} is not authorized to perform: iam:PassRole on resource: {role} because no identity-based policy allows the iam:PassRole action"
                ),
            ));
        }
    }
    Ok(())
}

/// CPU units and MiB after overrides.
fn task_size(
    revision: &Revision,
    overrides: &TaskOverride,
    fargate: bool,
) -> Result<(Option<u32>, Option<u32>), ApiError> {
    let cpu = overrides.cpu.as_ref().or(revision.definition.cpu.as_ref());
    let memory = overrides.memory.as_ref().or(revision.definition.memory.as_ref());
    let cpu = cpu.map(|text| size::cpu_units(text)).transpose()?;
    let memory = memory.map(|text| size::memory_mib(text)).transpose()?;
    if fargate {
        size::check_fargate(cpu.unwrap_or_default(), memory.unwrap_or_default())?;
    }
    Ok((cpu, memory))
}

fn platform_version(wanted: Option<&str>, fargate: bool) -> Result<&'static str, ApiError> {
    match (wanted, fargate) {
        (None, false) => Ok(""),
        (Some(_), false) => Err(ApiError::invalid_parameter(
            "The platform version must be null when specifying an EC2 launch type.",
        )),
        (None | Some("LATEST" | "1.4.0"), true) => Ok("1.4.0"),
        (Some("1.3.0"), true) => Ok("1.3.0"),
        (Some(_), true) => {
            Err(ApiError::new("PlatformUnknownException", "The specified platform does not exist."))
        }
    }
}

/// The request's tags, then the definition's where they are propagated, then the managed ones.
fn all_tags(request: &RunTask, revision: &Revision, cluster: &str) -> Result<Vec<Tag>, ApiError> {
    let mut all = request.tags.clone();
    if request.propagate_tags.as_deref() == Some("TASK_DEFINITION") {
        for tag in &revision.definition.tags {
            if !all.iter().any(|other| other.key == tag.key) {
                all.push(tag.clone());
            }
        }
        tags::check(&all)?;
    }
    if request.enable_ecs_managed_tags {
        all.push(Tag { key: "aws:ecs:clusterName".to_owned(), value: cluster.to_owned() });
    }
    Ok(all)
}
