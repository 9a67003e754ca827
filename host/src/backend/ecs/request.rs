//! RunTask's input for a launch: pure, so that it can be held against AWS's own service model.

use std::collections::BTreeMap;

use aws_sdk_ecs::operation::run_task::RunTaskInput;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride,
    EphemeralStorage, KeyValuePair, LaunchType, NetworkConfiguration, PropagateTags, Tag,
    TaskOverride,
};

use crate::backend::LaunchRequest;
use crate::placement::Capacity;
use crate::settings::{EcsCluster, LaunchKind, NetworkMode};

/// Every choice of the placement as one request for one task.
///
/// # Errors
///
/// Answers what the SDK's builders miss; with checked settings they miss nothing.
pub(super) fn run_task(
    cluster: &EcsCluster,
    request: &LaunchRequest,
) -> Result<RunTaskInput, String> {
    let network = network(cluster, request)?;
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
    let size = Some(request.size).filter(|size| !size.is_own());
    let overrides = TaskOverride::builder()
        .set_cpu(size.map(|size| size.cpu_units.to_string()))
        .set_memory(size.map(|size| size.memory_mib.to_string()))
        .set_task_role_arn(request.role_arn.clone())
        .set_execution_role_arn(cluster.execution_role.clone())
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
    let provider = match (request.capacity, cluster.spot_provider.as_deref()) {
        (Capacity::OnDemand, _) => cluster.on_demand_provider.as_deref(),
        (Capacity::Spot, Some(provider)) => Some(provider),
        // The catalog does not offer it; a launch at another price must not take its place.
        (Capacity::Spot, None) => return Err("the cluster has no `spot_provider`".to_owned()),
    };
    let launch_type = match cluster.launch {
        LaunchKind::Fargate => Some(LaunchType::Fargate),
        LaunchKind::Ec2 => Some(LaunchType::Ec2),
        LaunchKind::External => Some(LaunchType::External),
        // "Use a capacity provider strategy and omit launchType" (developer guide, Managed Instances).
        LaunchKind::ManagedInstances => None,
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
        .set_launch_type(launch_type.filter(|_| strategy.is_none()))
        .set_capacity_provider_strategy(strategy)
        .set_platform_version(cluster.platform_version.clone())
        .set_network_configuration(network)
        .overrides(overrides)
        .set_tags(Some(tags(&request.tags)))
        .set_propagate_tags(cluster.propagate_tags.then_some(PropagateTags::TaskDefinition))
        .enable_execute_command(cluster.enable_execute_command)
        .started_by(&request.started_by)
        .client_token(&request.client_token)
        .build()
        .map_err(|error| error.to_string())
}

/// All subnets of the cluster but those that are known to be full; all again when none is left.
fn subnets(cluster: &EcsCluster, request: &LaunchRequest) -> Vec<String> {
    let is_open = |subnet: &&String| !request.avoid_subnets.contains(subnet);
    let open: Vec<String> = cluster.subnets.iter().filter(is_open).cloned().collect();
    if open.is_empty() { cluster.subnets.clone() } else { open }
}

/// The network of a task with an interface of its own; RunTask refuses one for the other network modes.
fn network(
    cluster: &EcsCluster,
    request: &LaunchRequest,
) -> Result<Option<NetworkConfiguration>, String> {
    if cluster.network_mode != NetworkMode::Awsvpc {
        return Ok(None);
    }
    let assign_public_ip = match (cluster.launch, cluster.assign_public_ip) {
        (LaunchKind::Fargate, true) => Some(AssignPublicIp::Enabled),
        (LaunchKind::Fargate, false) => Some(AssignPublicIp::Disabled),
        // On instances the field may not be there.
        (LaunchKind::Ec2 | LaunchKind::ManagedInstances | LaunchKind::External, _) => None,
    };
    let groups = &cluster.security_groups;
    let network = AwsVpcConfiguration::builder()
        .set_subnets(Some(subnets(cluster, request)))
        .set_security_groups((!groups.is_empty()).then(|| groups.clone()))
        .set_assign_public_ip(assign_public_ip)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Some(NetworkConfiguration::builder().awsvpc_configuration(network).build()))
}

/// Tags that AWS accepts: letters, numbers, spaces and `+-=._:/@`, 128 and 256 characters, at most 50, keys neither
/// empty nor twice, nothing that begins with the reserved `aws:`.
fn tags(wanted: &BTreeMap<String, String>) -> Vec<Tag> {
    let mut legal_tags = BTreeMap::new();
    for (key, value) in wanted.iter().filter(|(key, _)| !key.is_empty()) {
        legal_tags.entry(legal(key, 128)).or_insert_with(|| legal(value, 256));
    }
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    legal_tags.into_iter().take(50).map(tag).collect()
}

fn legal(text: &str, length: usize) -> String {
    let characters = text.chars().take(length);
    let legal: String =
        characters.map(|each| if is_legal_in_tags(each) { each } else { '_' }).collect();
    match legal.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("aws:") => legal.replacen(':', "_", 1),
        _ => legal,
    }
}

/// The service model's pattern is `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`.
fn is_legal_in_tags(character: char) -> bool {
    // `char::is_alphabetic` also takes vowel signs and circled letters, which are no `\p{L}`; what begins an
    // identifier is a letter or a number, except for two marks of Mongolian.
    let is_letter = unicode_ident::is_xid_start(character)
        && character.is_alphabetic()
        && !('\u{1885}'..='\u{1886}').contains(&character);
    is_letter || character.is_numeric() || " +-=._:/@".contains(character)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::placement::{Arch, size::Size};
    use crate::secret::Secret;

    pub(crate) fn cluster() -> EcsCluster {
        let subnets = vec!["subnet-12345".into(), "subnet-67890".into()];
        EcsCluster {
            security_groups: vec!["sg-12345".into()],
            ..EcsCluster::fargate("eu-west-1", "acme-gitlab-dev-cluster", subnets)
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
            avoid_subnets: Vec::new(),
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
    fn a_size_that_is_left_to_the_task_definition_is_not_overridden() {
        let own = LaunchRequest { size: Size::OWN, ..request(Capacity::OnDemand) };
        let input = run_task(&cluster(), &own).unwrap();
        let overrides = input.overrides().unwrap();
        assert_eq!((overrides.cpu(), overrides.memory()), (None, None));
    }

    #[test]
    fn tags_become_what_aws_accepts() {
        let check = |key: &str, value: &str, expected: &[(&str, &str)]| {
            let tags = tags(&BTreeMap::from([(key.to_owned(), value.to_owned())]));
            let tags: Vec<_> =
                tags.iter().map(|tag| (tag.key().unwrap(), tag.value().unwrap())).collect();
            assert_eq!(tags, expected);
        };
        check("pointsman:job", "a b\n<c>", &[("pointsman:job", "a b__c_")]);
        check("stage", "Prüfung ½ 東京", &[("stage", "Prüfung ½ 東京")]);
        // Letters, and vowel signs, which are marks.
        check("name", "\u{939}\u{93f}\u{928}", &[("name", "\u{939}_\u{928}")]);
        check("name", "Ⓐ\u{1885}\u{2118}", &[("name", "___")]);
        check("aws:name", "AWS:deploy", &[("aws_name", "AWS_deploy")]);
        check("", "no key", &[]);
        check(&"k".repeat(200), &"v".repeat(300), &[(&"k".repeat(128), &"v".repeat(256))]);

        let alike = ["a<", "a>"].map(|key| (key.to_owned(), key.to_owned()));
        let alike = tags(&BTreeMap::from(alike));
        assert_eq!(alike.len(), 1);
        assert_eq!(alike[0].value(), Some("a_"));
        let many = (0..60).map(|n| (format!("key {n:02}"), String::new())).collect();
        assert_eq!(tags(&many).len(), 50);
    }

    #[test]
    fn each_kind_of_launch_has_its_own_request() {
        use Capacity::{OnDemand, Spot};
        use LaunchKind::{Ec2, External, Fargate, ManagedInstances};
        use NetworkMode::{Awsvpc, Bridge, Host};
        let own = |launch, network_mode, on_demand: Option<&str>, spot: Option<&str>| EcsCluster {
            launch,
            network_mode,
            on_demand_provider: on_demand.map(Into::into),
            spot_provider: spot.map(Into::into),
            ..cluster()
        };
        type Row = (EcsCluster, Capacity, Option<LaunchType>, Option<&'static str>, bool);
        let table: [Row; 8] = [
            (
                own(Fargate, Awsvpc, None, Some("FARGATE_SPOT")),
                OnDemand,
                Some(LaunchType::Fargate),
                None,
                true,
            ),
            (
                own(Fargate, Awsvpc, None, Some("FARGATE_SPOT")),
                Spot,
                None,
                Some("FARGATE_SPOT"),
                true,
            ),
            (own(Ec2, Awsvpc, None, None), OnDemand, Some(LaunchType::Ec2), None, true),
            (own(Ec2, Bridge, Some("asg"), None), OnDemand, None, Some("asg"), false),
            (own(Ec2, Host, Some("asg"), Some("asg-spot")), Spot, None, Some("asg-spot"), false),
            (own(ManagedInstances, Awsvpc, Some("mi"), None), OnDemand, None, Some("mi"), true),
            (
                own(ManagedInstances, Host, Some("mi"), Some("mi-spot")),
                Spot,
                None,
                Some("mi-spot"),
                false,
            ),
            (own(External, Bridge, None, None), OnDemand, Some(LaunchType::External), None, false),
        ];
        for (cluster, capacity, launch_type, provider, has_network) in table {
            let input = run_task(&cluster, &request(capacity)).unwrap();
            assert_eq!(input.launch_type(), launch_type.as_ref(), "{cluster:?}");
            let first = input.capacity_provider_strategy().first();
            assert_eq!(first.map(|item| item.capacity_provider()), provider, "{cluster:?}");
            assert_eq!(input.network_configuration().is_some(), has_network, "{cluster:?}");
            let vpc =
                input.network_configuration().and_then(|network| network.awsvpc_configuration());
            let assigned = vpc.and_then(|vpc| vpc.assign_public_ip());
            assert_eq!(assigned.is_some(), cluster.launch == Fargate, "{cluster:?}");
        }
        let none = own(Ec2, Awsvpc, None, None);
        assert!(run_task(&none, &request(Spot)).unwrap_err().contains("spot_provider"));
    }

    #[test]
    fn the_operators_extras_are_in_the_request() {
        let plain = run_task(&cluster(), &request(Capacity::Spot)).unwrap();
        assert_eq!(plain.propagate_tags(), None);
        assert_eq!(plain.enable_execute_command(), Some(false));
        assert_eq!(plain.overrides().unwrap().execution_role_arn(), None);
        let all = EcsCluster {
            assign_public_ip: true,
            execution_role: Some("arn:aws:iam::123456789012:role/exec".into()),
            enable_execute_command: true,
            propagate_tags: true,
            platform_version: Some("1.4.0".into()),
            ..cluster()
        };
        let input = run_task(&all, &request(Capacity::Spot)).unwrap();
        assert_eq!(input.propagate_tags(), Some(&PropagateTags::TaskDefinition));
        assert_eq!(input.enable_execute_command(), Some(true));
        assert_eq!(input.platform_version(), Some("1.4.0"));
        let role = input.overrides().unwrap().execution_role_arn();
        assert_eq!(role, Some("arn:aws:iam::123456789012:role/exec"));
        let vpc = input.network_configuration().unwrap().awsvpc_configuration().unwrap();
        assert_eq!(vpc.assign_public_ip(), Some(&AssignPublicIp::Enabled));
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
