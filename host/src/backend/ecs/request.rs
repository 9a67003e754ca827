//! RunTask's input for a launch: pure, so that it can be held against AWS's own service model.

use std::collections::BTreeMap;

use aws_sdk_ecs::operation::run_task::RunTaskInput;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride,
    EphemeralStorage, KeyValuePair, LaunchType, NetworkConfiguration, Tag, TaskOverride,
};

use crate::backend::LaunchRequest;
use crate::placement::Capacity;
use crate::settings::EcsCluster;

/// Every choice of the placement as one request for one task.
///
/// # Errors
///
/// Answers what the SDK's builders miss; with checked settings they miss nothing.
pub(super) fn run_task(
    cluster: &EcsCluster,
    request: &LaunchRequest,
) -> Result<RunTaskInput, String> {
    let network = AwsVpcConfiguration::builder()
        .set_subnets(Some(cluster.subnets.clone()))
        .set_security_groups(
            (!cluster.security_groups.is_empty()).then(|| cluster.security_groups.clone()),
        )
        .assign_public_ip(if cluster.assign_public_ip {
            AssignPublicIp::Enabled
        } else {
            AssignPublicIp::Disabled
        })
        .build()
        .map_err(|error| error.to_string())?;
    let container = ContainerOverride::builder()
        .name(&request.container)
        .set_environment(Some(
            request
                .environment
                .iter()
                .map(|(name, value)| {
                    KeyValuePair::builder().name(name).value(value.reveal()).build()
                })
                .collect(),
        ))
        .build();
    let overrides = TaskOverride::builder()
        .cpu(request.size.cpu_units.to_string())
        .memory(request.size.memory_mib.to_string())
        .set_task_role_arn(request.role_arn.clone())
        .set_ephemeral_storage(
            request
                .ephemeral_storage_gib
                .map(|gib| {
                    let gib = i32::try_from(gib).map_err(|error| error.to_string())?;
                    Ok::<_, String>(EphemeralStorage::builder().size_in_gib(gib).build())
                })
                .transpose()?,
        )
        .container_overrides(container)
        .build();
    // Spot is only reached through a strategy; a strategy and a launch type exclude each other.
    let provider = match request.capacity {
        Capacity::OnDemand => cluster.on_demand_provider.as_deref(),
        Capacity::Spot => Some(cluster.spot_provider.as_str()),
    };
    let strategy = provider
        .map(|provider| {
            CapacityProviderStrategyItem::builder()
                .capacity_provider(provider)
                .weight(1)
                .build()
                .map(|item| vec![item])
                .map_err(|error| error.to_string())
        })
        .transpose()?;
    RunTaskInput::builder()
        .cluster(&cluster.cluster)
        .task_definition(&request.task_definition)
        .count(1)
        .set_launch_type(strategy.is_none().then_some(LaunchType::Fargate))
        .set_capacity_provider_strategy(strategy)
        .set_platform_version(cluster.platform_version.clone())
        .network_configuration(
            NetworkConfiguration::builder().awsvpc_configuration(network).build(),
        )
        .overrides(overrides)
        .set_tags(Some(tags(&request.tags)))
        .started_by(&request.started_by)
        .client_token(&request.client_token)
        .build()
        .map_err(|error| error.to_string())
}

/// Tags that AWS accepts: letters, digits, spaces and `+-=._:/@`, 128 and 256 characters, at most 50.
fn tags(wanted: &BTreeMap<String, String>) -> Vec<Tag> {
    wanted
        .iter()
        .take(50)
        .map(|(key, value)| Tag::builder().key(legal(key, 128)).value(legal(value, 256)).build())
        .collect()
}

fn legal(text: &str, length: usize) -> String {
    let legal = |character: char| {
        character.is_alphanumeric() || character == ' ' || "+-=._:/@".contains(character)
    };
    text.chars().take(length).map(|each| if legal(each) { each } else { '_' }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::placement::{Arch, size::Size};
    use crate::secret::Secret;

    pub(crate) fn cluster() -> EcsCluster {
        EcsCluster {
            region: "eu-west-1".into(),
            cluster: "acme-gitlab-dev-cluster".into(),
            subnets: vec!["subnet-12345".into(), "subnet-67890".into()],
            security_groups: vec!["sg-12345".into()],
            assign_public_ip: false,
            on_demand_provider: None,
            spot_provider: "FARGATE_SPOT".into(),
            platform_version: None,
            start_timeout: Duration::from_secs(600),
        }
    }

    pub(crate) fn request(capacity: Capacity) -> LaunchRequest {
        LaunchRequest {
            attempt: "7-0123456789abcdef".into(),
            client_token: "ab".repeat(32),
            started_by: "pointsman/default".into(),
            task_definition: "gitlab-runner-dev-task:3".into(),
            container: "ci-coordinator".into(),
            arch: Arch::Arm64,
            capacity,
            size: Size { cpu_units: 512, memory_mib: 1024 },
            ephemeral_storage_gib: Some(50),
            role_arn: Some("arn:aws:iam::123456789012:role/dev-deploy".into()),
            environment: BTreeMap::from([(
                "SSH_PUBLIC_KEY".to_owned(),
                Secret::new("ssh-ed25519 AAAA".to_owned()),
            )]),
            tags: BTreeMap::from([("pointsman:job".to_owned(), "7\n<script>".to_owned())]),
            port: 22,
        }
    }

    #[test]
    fn spot_goes_through_a_strategy_and_on_demand_through_the_launch_type() {
        let spot = run_task(&cluster(), &request(Capacity::Spot)).unwrap();
        let strategy = spot.capacity_provider_strategy();
        assert_eq!(strategy.len(), 1);
        assert_eq!(strategy[0].capacity_provider(), "FARGATE_SPOT");
        assert_eq!(spot.launch_type(), None);

        let on_demand = run_task(&cluster(), &request(Capacity::OnDemand)).unwrap();
        assert_eq!(on_demand.launch_type(), Some(&LaunchType::Fargate));
        assert!(on_demand.capacity_provider_strategy().is_empty());

        let own = EcsCluster { on_demand_provider: Some("FARGATE".into()), ..cluster() };
        let own = run_task(&own, &request(Capacity::OnDemand)).unwrap();
        assert_eq!(own.launch_type(), None);
        assert_eq!(own.capacity_provider_strategy()[0].capacity_provider(), "FARGATE");
    }

    #[test]
    fn the_whole_placement_is_in_the_request() {
        let input = run_task(&cluster(), &request(Capacity::Spot)).unwrap();
        let overrides = input.overrides().unwrap();
        assert_eq!(overrides.cpu(), Some("512"));
        assert_eq!(overrides.memory(), Some("1024"));
        assert_eq!(overrides.ephemeral_storage().map(|storage| storage.size_in_gib()), Some(50));
        assert_eq!(overrides.task_role_arn(), Some("arn:aws:iam::123456789012:role/dev-deploy"));
        assert_eq!(overrides.container_overrides()[0].name(), Some("ci-coordinator"));
        assert_eq!(input.started_by(), Some("pointsman/default"));
        assert_eq!(input.tags()[0].value(), Some("7__script_"));
        assert_eq!(input.count(), Some(1));
    }
}
