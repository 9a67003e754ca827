//! Whether an ECS cluster is there and has the capacity that placements ask for: pure.

use super::finding::{Finding, list};
use super::scope::Scope;
use crate::backend::survey::{SeenCluster, SeenProvider};
use crate::backend::{BackendError, Cause};
use crate::placement::Capacity;
use crate::settings::{EcsCluster, LaunchKind};

/// What DescribeClusters' answer says.
pub(super) fn judge(
    about: &str,
    cluster: &EcsCluster,
    scope: &Scope,
    seen: &Result<Option<SeenCluster>, BackendError>,
) -> Vec<Finding> {
    let region = &cluster.region;
    let name = &cluster.cluster;
    let mut findings = Vec::new();
    let seen = match seen {
        Ok(Some(seen)) => seen,
        Ok(None) => return vec![missing(about, cluster)],
        Err(error) if error.cause == Cause::Denied => {
            return vec![not_looked_at("cluster-not-seen", about, "ecs:DescribeClusters", error)];
        }
        Err(error) => {
            let finding = Finding::failure("ecs-unreachable", about, format!("ECS does not answer: {error}"))
                .why("no task can be started, looked at or stopped")
                .change(error.hint.clone().unwrap_or_else(|| {
                    format!("look at the `region` of the cluster, and at the route to ecs.{region}.amazonaws.com")
                }))
                .run(format!("curl -sS -o /dev/null -w '%{{http_code}}\\n' https://ecs.{region}.amazonaws.com/ping"));
            return vec![finding];
        }
    };
    if seen.status != "ACTIVE" {
        let finding = Finding::failure(
            "cluster-inactive",
            about,
            format!("the ECS cluster {name} is {}, not ACTIVE", seen.status),
        )
        .why("ECS starts no task on it: it was deleted, or is being set up")
        .run(format!("aws ecs create-cluster --region {region} --cluster-name {}", seen.name))
        .change("or name another one in `cluster` of [clusters.*]");
        return vec![finding];
    }
    findings.push(Finding::ok("cluster", about, format!("the ECS cluster {name} is ACTIVE")));
    if scope.profiles.is_empty() {
        findings.push(
            Finding::note("cluster-unused", about, "no profile may place jobs on it")
                .why("nothing was looked at beside the cluster itself, since no profile's bounds name it")
                .change("add it to `bounds.clusters` of a profile, or take it out of the file"),
        );
    }
    findings.extend(capacity(about, cluster, scope, seen));
    findings
}

fn missing(about: &str, cluster: &EcsCluster) -> Finding {
    let (region, name) = (&cluster.region, &cluster.cluster);
    Finding::failure(
        "cluster-missing",
        about,
        format!("there is no ECS cluster {name} in {region} in this account"),
    )
    .why("every RunTask ends with ClusterNotFoundException")
    .run(format!("aws ecs list-clusters --region {region}"))
    .change("correct `cluster` or `region` of [clusters.*]; for another account's cluster, set `assume_role`")
}

/// A permission that only the doctor wants is no failure: the driver does without.
pub(super) fn not_looked_at(
    name: &'static str,
    about: &str,
    action: &str,
    error: &BackendError,
) -> Finding {
    Finding::note(name, about, format!("could not be looked at: {error}"))
        .why(format!(
            "jobs do not need {action}, only the doctor does: what it would have told is not known"
        ))
        .change(format!(
            "allow {action} to these credentials, or run the doctor with an administrator's"
        ))
}

fn capacity(about: &str, cluster: &EcsCluster, scope: &Scope, seen: &SeenCluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wants = |capacity| scope.capacities.contains(&capacity);
    let asked = [
        ("on_demand_provider", &cluster.on_demand_provider, wants(Capacity::OnDemand)),
        ("spot_provider", &cluster.spot_provider, wants(Capacity::Spot)),
    ];
    for (key, provider, is_wanted) in asked {
        let Some(provider) = provider else { continue };
        if seen.providers.contains(provider) {
            findings.push(Finding::ok(
                "capacity-provider",
                about,
                format!("capacity provider {provider} is associated with the cluster"),
            ));
        } else if is_wanted || (cluster.launch != LaunchKind::Fargate) {
            findings.push(not_associated(about, cluster, seen, key, provider));
        }
    }
    let by_launch_type = cluster.on_demand_provider.is_none() && wants(Capacity::OnDemand);
    match cluster.launch {
        LaunchKind::Fargate if by_launch_type => findings.push(Finding::ok(
            "launch-type",
            about,
            "on-demand tasks ask for the launch type FARGATE, which needs neither a capacity provider nor a default strategy",
        )),
        LaunchKind::Ec2 | LaunchKind::External if by_launch_type && seen.instances == 0 => {
            findings.push(
                Finding::failure("no-container-instances", about, "no container instance is registered with the cluster")
                    .why("RunTask answers \"No Container Instances were found in your cluster.\" and starts nothing")
                    .change("start instances with the ECS agent for this cluster; or set `on_demand_provider` to a capacity provider that starts them; or set `launch = \"fargate\"`")
                    .run(format!(
                        "aws ecs list-container-instances --region {} --cluster {}",
                        cluster.region, cluster.cluster
                    )),
            );
        }
        LaunchKind::Ec2 | LaunchKind::External if by_launch_type => findings.push(Finding::ok(
            "container-instances",
            about,
            format!("{} container instances are registered", seen.instances),
        )),
        _ => {}
    }
    findings
}

fn not_associated(
    about: &str,
    cluster: &EcsCluster,
    seen: &SeenCluster,
    key: &str,
    provider: &str,
) -> Finding {
    let all: Vec<&str> =
        seen.providers.iter().map(String::as_str).chain(std::iter::once(provider)).collect();
    let strategy = match seen.default_strategy.as_slice() {
        // The call replaces the strategy as well.
        [] => String::new(),
        names => names
            .iter()
            .map(|SeenProvider { name, weight, base }| {
                format!(" capacityProvider={name},weight={weight},base={base}")
            })
            .collect(),
    };
    Finding::failure(
        "capacity-provider-missing",
        about,
        format!(
            "capacity provider {provider} (`{key}`) is not associated with the cluster; it has {}",
            list(&seen.providers)
        ),
    )
    .why("RunTask refuses every placement that asks for it; for a driver that names no provider, the same gap reads \"No Container Instances were found in your cluster.\"")
    .run(format!(
        "aws ecs put-cluster-capacity-providers --region {} --cluster {} --capacity-providers {} --default-capacity-provider-strategy{}",
        cluster.region,
        cluster.cluster,
        all.join(" "),
        if strategy.is_empty() { " '[]'" } else { &strategy },
    ))
    .change("or take that capacity out of `bounds.capacities` of the profiles that use the cluster")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ecs::tests_cluster as cluster;
    use crate::doctor::finding::{Remedy, Severity};

    fn scope(capacities: &[Capacity]) -> Scope {
        Scope {
            cluster: "dev".into(),
            profiles: vec!["dev".into()],
            capacities: capacities.iter().copied().collect(),
            ..Scope::default()
        }
    }

    fn active(providers: &[&str]) -> SeenCluster {
        SeenCluster {
            name: "acme".into(),
            status: "ACTIVE".into(),
            providers: providers.iter().map(|name| (*name).to_owned()).collect(),
            ..SeenCluster::default()
        }
    }

    #[test]
    fn every_state_of_a_cluster_has_its_finding() {
        use Capacity::{OnDemand, Spot};
        let own = |launch, provider: Option<&str>| EcsCluster {
            launch,
            on_demand_provider: provider.map(str::to_owned),
            spot_provider: None,
            ..cluster()
        };
        let inactive = SeenCluster { status: "INACTIVE".into(), ..active(&[]) };
        let with_instances = SeenCluster { instances: 3, ..active(&[]) };
        let denied = || {
            Err(BackendError {
                cause: Cause::Denied,
                ..BackendError::new("DescribeClusters", "AccessDeniedException", "no")
            })
        };
        let silent = || Err(BackendError::new("DescribeClusters", "no answer", "timed out"));
        let fargate = ["FARGATE", "FARGATE_SPOT"];
        for (cluster, scope, seen, expected) in [
            (cluster(), scope(&[OnDemand]), Ok(None), vec!["cluster-missing"]),
            (cluster(), scope(&[OnDemand]), Ok(Some(inactive)), vec!["cluster-inactive"]),
            (cluster(), scope(&[OnDemand]), denied(), vec!["cluster-not-seen"]),
            (cluster(), scope(&[OnDemand]), silent(), vec!["ecs-unreachable"]),
            (
                cluster(),
                scope(&[OnDemand, Spot]),
                Ok(Some(active(&fargate))),
                vec!["cluster", "capacity-provider", "launch-type"],
            ),
            // Nobody asks for Spot here, so nothing is missing.
            (cluster(), scope(&[OnDemand]), Ok(Some(active(&[]))), vec!["cluster", "launch-type"]),
            (
                cluster(),
                scope(&[Spot]),
                Ok(Some(active(&["FARGATE"]))),
                vec!["cluster", "capacity-provider-missing"],
            ),
            (
                own(LaunchKind::Ec2, None),
                scope(&[OnDemand]),
                Ok(Some(active(&[]))),
                vec!["cluster", "no-container-instances"],
            ),
            (
                own(LaunchKind::Ec2, None),
                scope(&[OnDemand]),
                Ok(Some(with_instances)),
                vec!["cluster", "container-instances"],
            ),
            (
                own(LaunchKind::ManagedInstances, Some("managed")),
                scope(&[OnDemand]),
                Ok(Some(active(&["managed"]))),
                vec!["cluster", "capacity-provider"],
            ),
            (
                cluster(),
                Scope { cluster: "dev".into(), ..Scope::default() },
                Ok(Some(active(&fargate))),
                vec!["cluster", "cluster-unused", "capacity-provider"],
            ),
        ] {
            let findings = judge("cluster dev", &cluster, &scope, &seen);
            let names: Vec<&str> = findings.iter().map(|finding| finding.name).collect();
            assert_eq!(names, expected, "{seen:?}");
            for finding in findings.iter().filter(|finding| finding.severity > Severity::Ok) {
                assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
            }
        }
    }

    #[test]
    fn associating_a_provider_keeps_what_the_cluster_has() {
        let seen = SeenCluster {
            default_strategy: vec![SeenProvider { name: "FARGATE".into(), weight: 1, base: 2 }],
            ..active(&["FARGATE"])
        };
        let findings = judge("cluster dev", &cluster(), &scope(&[Capacity::Spot]), &Ok(Some(seen)));
        let expected = "aws ecs put-cluster-capacity-providers --region eu-west-1 --cluster acme-gitlab-dev-cluster --capacity-providers FARGATE FARGATE_SPOT --default-capacity-provider-strategy capacityProvider=FARGATE,weight=1,base=2";
        assert_eq!(findings[1].remedy[0], Remedy::Run(expected.into()));
    }
}
