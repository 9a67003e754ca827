//! Whether tasks get an address ([`judge_subnets`]), reach their registry ([`routes`]), and are reached by us
//! ([`groups`]), as far as EC2 tells: pure.

pub(super) mod groups;
pub(super) mod routes;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::cluster::not_looked_at;
use super::finding::{Finding, list};
use crate::backend::survey::{SeenNetwork, SeenSubnet};
use crate::backend::{BackendError, Cause};
use crate::settings::EcsCluster;

/// AWS keeps five addresses of a subnet, and others want some too.
const FEW_ADDRESSES: u32 = 16;

/// Whether the cluster's subnets are there and have addresses left.
pub(super) fn judge_subnets(
    about: &str,
    cluster: &EcsCluster,
    seen: &Result<SeenNetwork, BackendError>,
) -> Vec<Finding> {
    let region = &cluster.region;
    let subnets = match seen {
        Ok(network) => &network.subnets,
        Err(error) => return vec![unseen("subnets-not-seen", about, "ec2:DescribeSubnets", error)],
    };
    let command = format!(
        "aws ec2 describe-subnets --region {region} --query 'Subnets[].[SubnetId,VpcId,AvailabilityZone,AvailableIpAddressCount]' --output table"
    );
    let mut findings = Vec::new();
    let missing: Vec<String> = cluster
        .subnets
        .iter()
        .filter(|id| !subnets.iter().any(|subnet| subnet.id == **id))
        .cloned()
        .collect();
    if !missing.is_empty() {
        findings.push(
            Finding::failure("subnet-missing", about, format!("{region} has no {} in this account", list(&missing)))
                .why("RunTask refuses a request that names a subnet which is not there, whatever other subnets it names")
                .change("correct `subnets` of the cluster")
                .run(command.clone()),
        );
    }
    let vpcs: BTreeSet<&str> = subnets.iter().map(|subnet| subnet.vpc.as_str()).collect();
    if vpcs.len() > 1 {
        let vpcs: Vec<String> = vpcs.into_iter().map(str::to_owned).collect();
        findings.push(
            Finding::failure(
                "subnets-apart",
                about,
                format!("its subnets are in several VPCs: {}", list(&vpcs)),
            )
            .why("RunTask takes subnets of one VPC only")
            .change("name subnets of one VPC, and another [clusters.*] for the other VPC")
            .run(command.clone()),
        );
    }
    let describe =
        |subnet: &SeenSubnet| format!("{} ({}, {} free)", subnet.id, subnet.zone, subnet.free);
    let (full, open): (Vec<_>, Vec<_>) = subnets.iter().partition(|subnet| subnet.free == 0);
    if !full.is_empty() {
        let full: Vec<String> = full.into_iter().map(describe).collect();
        let what = format!("no addresses are left in {}", list(&full));
        let finding = if open.is_empty() {
            Finding::failure("subnet-full", about, what)
                .why("every task needs an address: none can start")
        } else {
            Finding::warning("subnet-full", about, what)
                .why("tasks that AWS puts there fail first and start late, in another subnet")
        };
        findings.push(
            finding.change("add larger subnets to `subnets` of the cluster").run(command.clone()),
        );
    }
    let few: Vec<&SeenSubnet> =
        open.iter().copied().filter(|subnet| subnet.free < FEW_ADDRESSES).collect();
    if !few.is_empty() {
        let few: Vec<String> = few.into_iter().map(describe).collect();
        findings.push(
            Finding::warning(
                "subnet-nearly-full",
                about,
                format!("few addresses are left in {}", list(&few)),
            )
            .why("every task takes one while it runs")
            .change("add larger subnets to `subnets` of the cluster")
            .run(command),
        );
    }
    let zones: BTreeSet<&str> = subnets.iter().map(|subnet| subnet.zone.as_str()).collect();
    if findings.is_empty() {
        let all: Vec<String> = subnets.iter().map(describe).collect();
        findings.push(Finding::ok("subnets", about, format!("subnets: {}", list(&all))));
    }
    if zones.len() == 1 && !subnets.is_empty() {
        let zone = zones.into_iter().next().unwrap_or_default();
        findings.push(
            Finding::note("subnets-one-zone", about, format!("all tasks start in one availability zone, {zone}"))
                .why("when Fargate has no capacity in it, above all for Spot, there is no other to go to")
                .change("add a subnet in another zone to `subnets` of the cluster"),
        );
    }
    findings
}

/// The first address of an IPv4 block that a task could have.
pub(super) fn some_address(subnet: &SeenSubnet) -> Option<Ipv4Addr> {
    let network: Ipv4Addr = subnet.cidr.split_once('/')?.0.parse().ok()?;
    Some(Ipv4Addr::from(u32::from(network).checked_add(4)?))
}

fn unseen(name: &'static str, about: &str, action: &str, error: &BackendError) -> Finding {
    if error.cause == Cause::Denied {
        return not_looked_at(name, about, action, error);
    }
    Finding::note(name, about, format!("could not be looked at: {error}"))
        .why("jobs do not need this, only the doctor does: what it would have told is not known")
        .change(
            error
                .hint
                .clone()
                .unwrap_or_else(|| format!("look at the route to ec2, and allow {action}")),
        )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backend::ecs::tests_cluster;
    use crate::backend::survey::SeenRoute;
    use crate::doctor::finding::Severity;

    pub(super) fn cluster() -> EcsCluster {
        EcsCluster { subnets: vec!["subnet-1".into(), "subnet-2".into()], ..tests_cluster() }
    }

    pub(super) fn subnet(id: &str, zone: &str, free: u32, way: Option<(&str, bool)>) -> SeenSubnet {
        let route = |(target, is_black_hole): (&str, bool)| SeenRoute {
            destination: "0.0.0.0/0".into(),
            target: target.into(),
            is_black_hole,
        };
        SeenSubnet {
            id: id.into(),
            vpc: "vpc-1".into(),
            zone: zone.into(),
            cidr: "10.0.1.0/24".into(),
            free,
            routes: way.map(route).into_iter().collect(),
        }
    }

    pub(super) fn network(subnets: Vec<SeenSubnet>) -> SeenNetwork {
        SeenNetwork { subnets, ..SeenNetwork::default() }
    }

    pub(super) fn names(findings: &[Finding]) -> Vec<&'static str> {
        for finding in findings.iter().filter(|finding| finding.severity > Severity::Ok) {
            assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
        }
        findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn every_state_of_the_subnets_has_its_finding() {
        let nat = Some(("nat-1", false));
        let two = |first, second| {
            vec![subnet("subnet-1", "a", first, nat), subnet("subnet-2", "b", second, nat)]
        };
        let mut apart = two(100, 100);
        apart[1].vpc = "vpc-2".into();
        let mut one_zone = two(100, 100);
        one_zone[1].zone = "a".into();
        for (subnets, expected) in [
            (two(100, 100), vec!["subnets"]),
            (two(100, 0), vec!["subnet-full"]),
            (two(0, 0), vec!["subnet-full"]),
            (two(100, 3), vec!["subnet-nearly-full"]),
            (apart, vec!["subnets-apart"]),
            (one_zone, vec!["subnets", "subnets-one-zone"]),
            (vec![subnet("subnet-1", "a", 9_999, nat)], vec!["subnet-missing", "subnets-one-zone"]),
            (vec![], vec!["subnet-missing"]),
        ] {
            let seen = Ok(network(subnets));
            assert_eq!(names(&judge_subnets("c", &cluster(), &seen)), expected, "{seen:?}");
        }
        let severity = |first, second| {
            judge_subnets("c", &cluster(), &Ok(network(two(first, second))))[0].severity
        };
        assert_eq!((severity(100, 0), severity(0, 0)), (Severity::Warning, Severity::Failure));
        let error = BackendError { cause: Cause::Denied, ..BackendError::new("x", "y", "z") };
        assert_eq!(names(&judge_subnets("c", &cluster(), &Err(error))), ["subnets-not-seen"]);
    }
}
