//! The simulator's world: everything that the settings name, as an account would have it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::placement::{Arch, size::Size};
use crate::settings::{
    ClusterBackend, EcsCluster, LaunchKind, NetworkMode, Settings, SshServer, TaskDefinition,
};

/// AWS's own example account, where no ARN names one.
const ACCOUNT: &str = "123456789012";
/// Where no cluster names one.
const REGION: &str = "eu-west-1";
/// A revision that the settings name must be there; more copies of a family than this are not made.
const MAX_REVISIONS: u32 = 500;

/// The world file's content.
pub(super) fn world(settings: &Settings) -> Value {
    let clusters: Vec<&EcsCluster> = settings
        .clusters
        .values()
        .filter_map(|cluster| match &cluster.backend {
            ClusterBackend::Ecs(ecs) => Some(&**ecs),
            ClusterBackend::Local(_) => None,
        })
        .collect();
    let arns = settings
        .roles
        .values()
        .map(|role| role.arn.as_str())
        .chain(clusters.iter().map(|cluster| cluster.cluster.as_str()))
        .chain(
            settings
                .task_definitions
                .values()
                .flat_map(|one| one.by_arch.values().map(String::as_str)),
        );
    let account = arns.filter_map(account_of).next().unwrap_or(ACCOUNT);
    let names = |list: fn(&EcsCluster) -> &Vec<String>| -> BTreeSet<&String> {
        clusters.iter().flat_map(|cluster| list(cluster)).collect()
    };
    let roles: BTreeSet<&String> = settings
        .roles
        .values()
        .map(|role| &role.arn)
        .chain(clusters.iter().filter_map(|cluster| cluster.execution_role.as_ref()))
        .collect();
    let network = network(&clusters);
    json!({
        "account": account,
        "region": clusters.first().map_or(REGION, |cluster| cluster.region.as_str()),
        "clusters": clusters.iter().map(|cluster| cluster_entry(cluster)).collect::<Vec<_>>(),
        "subnets": names(|cluster| &cluster.subnets),
        "security_groups": names(|cluster| &cluster.security_groups),
        "roles": roles,
        "task_definitions": settings
            .task_definitions
            .values()
            .flat_map(|definition| registrations(definition, network))
            .collect::<Vec<_>>(),
        "images": {
            (image(SshServer::Agent)): { "server": "agent" },
            (image(SshServer::Openssh)): { "server": "openssh" },
        },
    })
}

/// The network mode of all task definitions, and what they are compatible with. Which definition is for which
/// cluster the settings do not say: where modes differ, it is awsvpc, and jobs of the other clusters fail.
fn network(clusters: &[&EcsCluster]) -> (&'static str, &'static [&'static str]) {
    let has_only =
        |mode| !clusters.is_empty() && clusters.iter().all(|one| one.network_mode == mode);
    if has_only(NetworkMode::Bridge) {
        ("bridge", &["EC2", "EXTERNAL"])
    } else if has_only(NetworkMode::Host) {
        ("host", &["EC2", "EXTERNAL", "MANAGED_INSTANCES"])
    } else {
        ("awsvpc", &["FARGATE", "EC2", "MANAGED_INSTANCES"])
    }
}

fn cluster_entry(cluster: &EcsCluster) -> Value {
    let mut providers = BTreeSet::from(["FARGATE", "FARGATE_SPOT"]);
    providers.extend(cluster.spot_provider.as_deref());
    providers.extend(cluster.on_demand_provider.as_deref());
    let launch_types: &[&str] = match cluster.launch {
        LaunchKind::Ec2 => &["EC2"],
        LaunchKind::External => &["EXTERNAL"],
        LaunchKind::Fargate | LaunchKind::ManagedInstances => &[],
    };
    json!({
        "name": last_part(&cluster.cluster),
        "capacity_providers": providers,
        "launch_types": launch_types,
    })
}

/// A RegisterTaskDefinition for each architecture, repeated until the revision that the settings name is
/// there.
fn registrations(definition: &TaskDefinition, network: (&str, &[&str])) -> Vec<Value> {
    let (network_mode, compatibilities) = network;
    let mut all = Vec::new();
    for (arch, name) in &definition.by_arch {
        let name = last_part(name);
        let (family, revision) = match name.split_once(':') {
            Some((family, revision)) => (family, revision.parse().unwrap_or(1)),
            None => (name, 1_u32),
        };
        // What it really says is not in the settings.
        let size = if definition.size.is_own() { Size::DEFAULT } else { definition.size };
        let registration = json!({
            "family": family,
            "networkMode": network_mode,
            "requiresCompatibilities": compatibilities,
            "cpu": size.cpu_units.to_string(),
            "memory": size.memory_mib.to_string(),
            "runtimePlatform": {
                "cpuArchitecture": match arch {
                    Arch::X86_64 => "X86_64",
                    Arch::Arm64 => "ARM64",
                },
                "operatingSystemFamily": "LINUX",
            },
            "containerDefinitions": [{
                "name": definition.container,
                "image": image(definition.ssh.server),
                "essential": true,
                "portMappings": [{ "containerPort": definition.ssh.port, "protocol": "tcp" }],
            }],
        });
        for _ in 0..revision.clamp(1, MAX_REVISIONS) {
            all.push(registration.clone());
        }
    }
    all
}

/// The container image that the simulator runs as that server.
fn image(server: SshServer) -> String {
    let server = match server {
        SshServer::Agent => "agent",
        SshServer::Openssh => "openssh",
    };
    format!("pointsman/rehearsal-{server}")
}

/// `123456789012` of `arn:aws:iam::123456789012:role/x`.
fn account_of(arn: &str) -> Option<&str> {
    arn.strip_prefix("arn:")?.split(':').nth(3).filter(|account| !account.is_empty())
}

/// `name:7` of `arn:aws:ecs:eu-west-1:123456789012:task-definition/name:7`.
fn last_part(arn: &str) -> &str {
    match arn.starts_with("arn:") {
        true => arn.rsplit('/').next().unwrap_or(arn),
        false => arn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_accounts_come_out_of_arns() {
        assert_eq!(account_of("arn:aws:iam::364050767034:role/x"), Some("364050767034"));
        assert_eq!(account_of("gitlab-runner-dev-task"), None);
        assert_eq!(last_part("arn:aws:ecs:eu-west-1:1:task-definition/node:7"), "node:7");
        assert_eq!(last_part("node:7"), "node:7");
    }

    #[test]
    fn task_definitions_are_made_for_the_clusters_network() {
        let mut settings = crate::rehearse::tests::settings_with_a_cluster();
        assert_eq!(world(&settings)["task_definitions"][0]["networkMode"], "awsvpc");
        for cluster in settings.clusters.values_mut() {
            if let ClusterBackend::Ecs(ecs) = &mut cluster.backend {
                ecs.launch = LaunchKind::External;
                ecs.network_mode = NetworkMode::Bridge;
                ecs.execution_role = Some("arn:aws:iam::364050767034:role/exec".to_owned());
            }
        }
        let world = world(&settings);
        assert_eq!(world["clusters"][0]["launch_types"], json!(["EXTERNAL"]));
        assert_eq!(world["task_definitions"][0]["networkMode"], "bridge");
        assert_eq!(world["roles"][1], "arn:aws:iam::364050767034:role/exec");
    }

    #[test]
    fn the_world_has_what_the_settings_name() {
        let settings = crate::rehearse::tests::settings_with_a_cluster();
        let world = world(&settings);
        assert_eq!(world["account"], "364050767034");
        assert_eq!(world["region"], "eu-west-1");
        assert_eq!(
            world["clusters"],
            json!([{
                "name": "acme-dev",
                "capacity_providers": ["FARGATE", "FARGATE_SPOT", "mine"],
                "launch_types": [],
            }])
        );
        assert_eq!(world["subnets"], json!(["subnet-1", "subnet-2"]));
        assert_eq!(world["security_groups"], json!(["sg-1"]));
        assert_eq!(world["roles"], json!(["arn:aws:iam::364050767034:role/dev-deploy"]));
        let definitions = world["task_definitions"].as_array().unwrap();
        let families: Vec<_> = definitions
            .iter()
            .map(|one| {
                (
                    one["family"].as_str().unwrap(),
                    one["runtimePlatform"]["cpuArchitecture"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            families,
            [("node", "X86_64"), ("node", "X86_64"), ("node-arm", "ARM64")],
            "revision 2 is there"
        );
        let container = &definitions[0]["containerDefinitions"][0];
        assert_eq!(container["name"], "ci-coordinator");
        assert_eq!(
            container["portMappings"],
            json!([{ "containerPort": 2222, "protocol": "tcp" }])
        );
        assert_eq!(
            world["images"][container["image"].as_str().unwrap()],
            json!({ "server": "agent" })
        );
    }
}
