//! Whether tasks can fetch their images and write their logs: pure.

use std::collections::BTreeSet;

use super::unseen;
use crate::backend::BackendError;
use crate::backend::survey::{SeenNetwork, SeenRoute, SeenSubnet};
use crate::doctor::finding::{Finding, list};
use crate::settings::{AddressKind, EcsCluster};

/// What tasks fetch when they start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::doctor) struct Needs {
    /// Whether an image is in a private ECR registry.
    pub ecr: bool,
    /// Whether containers log by awslogs.
    pub logs: bool,
    /// Images of other registries.
    pub elsewhere: BTreeSet<String>,
}

/// Whether tasks can fetch their images and write their logs.
pub(in crate::doctor) fn judge(
    about: &str,
    cluster: &EcsCluster,
    network: &SeenNetwork,
    needs: &Needs,
    routes: &Result<(), BackendError>,
    endpoints: &Result<(), BackendError>,
) -> Vec<Finding> {
    if let Err(error) = routes {
        return vec![unseen("routes-not-seen", about, "ec2:DescribeRouteTables", error)];
    }
    let mut findings = Vec::new();
    for subnet in &network.subnets {
        findings.extend(judge_one(about, cluster, network, subnet, needs, endpoints));
    }
    if findings.is_empty() && !network.subnets.is_empty() {
        let ways: BTreeSet<String> = network
            .subnets
            .iter()
            .filter_map(|subnet| way_out(subnet))
            .map(|route| route.target.clone())
            .collect();
        let ways: Vec<String> = ways.into_iter().collect();
        let what = match ways.as_slice() {
            [] => "tasks have no way out, and endpoints for what they fetch".to_owned(),
            ways => format!("tasks have a way out by {}", list(ways)),
        };
        findings.push(Finding::ok("routes", about, what));
    }
    findings
}

fn way_out(subnet: &SeenSubnet) -> Option<&SeenRoute> {
    subnet.routes.iter().find(|route| route.destination == "0.0.0.0/0")
}

fn judge_one(
    about: &str,
    cluster: &EcsCluster,
    network: &SeenNetwork,
    subnet: &SeenSubnet,
    needs: &Needs,
    endpoints: &Result<(), BackendError>,
) -> Option<Finding> {
    let id = &subnet.id;
    let command = format!(
        "aws ec2 describe-route-tables --region {} --filters Name=vpc-id,Values={}",
        cluster.region, subnet.vpc
    );
    let way = way_out(subnet);
    let why_closed = match way {
        Some(route) if route.is_black_hole => {
            return Some(
                Finding::failure("route-black-hole", about, format!("the default route of {id} leads to {}, which is gone", route.target))
                    .why("tasks there reach neither a registry nor GitLab: they stop with CannotPullContainerError after a time-out")
                    .change("let the route lead to a NAT gateway that is there")
                    .run(command),
            );
        }
        Some(route) if route.target.starts_with("igw-") => {
            if cluster.assign_public_ip {
                return None;
            }
            format!(
                "the default route of {id} leads to an internet gateway, but tasks get no public address"
            )
        }
        Some(route) => {
            return (cluster.address == AddressKind::Public).then(|| {
                Finding::failure("address-not-public", about, format!("the driver connects to public addresses, but the default route of {id} leads to {}", route.target))
                    .why("a public address works only in a subnet whose default route leads to an internet gateway")
                    .change("set `address = \"private\"` of the cluster and let the runner manager reach the VPC, or name public subnets")
                    .run(command)
            });
        }
        None => format!("{id} has no default route"),
    };
    let outward = "give it a NAT gateway and a default route to it; or, in a subnet with an internet gateway, set `assign_public_ip = true` of the cluster";
    if let Some(image) = needs.elsewhere.first() {
        return Some(
            Finding::failure("route-missing", about, format!("{why_closed}, and image {image} is fetched from the internet"))
                .why("the image cannot be pulled: the task stops with CannotPullContainerError after a time-out")
                .change(outward)
                .change("or copy the image to ECR and give the VPC endpoints for it")
                .run(command),
        );
    }
    if let Err(error) = endpoints {
        return Some(
            Finding::warning("route-missing", about, format!("{why_closed}; whether the VPC has endpoints could not be looked at: {error}"))
                .why("without endpoints for ECR no image can be pulled; GitLab must be reached from there as well")
                .change(outward)
                .run(command),
        );
    }
    let has = |service: &str| network.endpoints.iter().any(|name| name.ends_with(service));
    let wanted = [
        (".ecr.api", needs.ecr),
        (".ecr.dkr", needs.ecr),
        // Layers of images are in S3.
        (".s3", needs.ecr),
        (".logs", needs.logs),
    ];
    let missing: Vec<String> = wanted
        .into_iter()
        .filter(|(service, is_needed)| *is_needed && !has(service))
        .map(|(service, _)| format!("com.amazonaws.{}{service}", cluster.region))
        .collect();
    if missing.is_empty() {
        return needs.ecr.then(|| {
            Finding::note("route-isolated", about, format!("{why_closed}; the VPC has endpoints for what tasks fetch when they start"))
                .why("scripts reach only what the VPC reaches: GitLab itself for sources and artifacts, and no package registry on the internet")
                .change(outward)
        });
    }
    let commands = missing.iter().map(|service| {
        let kind = if service.ends_with(".s3") { "Gateway" } else { "Interface" };
        format!(
            "aws ec2 create-vpc-endpoint --region {} --vpc-id {} --vpc-endpoint-type {kind} --service-name {service}",
            cluster.region, subnet.vpc
        )
    });
    let finding = Finding::failure("route-missing", about, format!("{why_closed}, and the VPC has no endpoint for {}", list(&missing)))
        .why("images cannot be pulled or logs not be written: the task stops with CannotPullContainerError or ResourceInitializationError after a time-out")
        .change(outward);
    Some(commands.fold(finding, Finding::run))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, names, network, subnet};
    use super::*;
    use crate::backend::Cause;
    use crate::doctor::finding::Severity;

    #[test]
    fn every_way_out_has_its_finding() {
        let ecr = Needs { ecr: true, logs: true, ..Needs::default() };
        let hub = Needs { elsewhere: ["docker.io/x".to_owned()].into(), ..Needs::default() };
        let public = EcsCluster { assign_public_ip: true, ..cluster() };
        let to_public = EcsCluster { address: AddressKind::Public, ..public.clone() };
        let all = ["ecr.api", "ecr.dkr", "s3", "logs"].as_slice();
        let some = ["ecr.api", "ecr.dkr"].as_slice();
        let none = [].as_slice();
        let (nat, igw) = (Some(("nat-1", false)), Some(("igw-1", false)));
        for (cluster, way, needs, endpoints, expected) in [
            (cluster(), nat, &ecr, none, Some(("routes", Severity::Ok))),
            (cluster(), Some(("tgw-1", false)), &hub, none, Some(("routes", Severity::Ok))),
            (
                cluster(),
                Some(("nat-1", true)),
                &ecr,
                all,
                Some(("route-black-hole", Severity::Failure)),
            ),
            (public.clone(), igw, &hub, none, Some(("routes", Severity::Ok))),
            (to_public.clone(), igw, &ecr, none, Some(("routes", Severity::Ok))),
            (to_public, nat, &ecr, none, Some(("address-not-public", Severity::Failure))),
            // The article's time-outs: no public address in a public subnet, no endpoints in an isolated one.
            (cluster(), igw, &ecr, none, Some(("route-missing", Severity::Failure))),
            (cluster(), None, &ecr, some, Some(("route-missing", Severity::Failure))),
            (cluster(), None, &hub, all, Some(("route-missing", Severity::Failure))),
            (cluster(), None, &ecr, all, Some(("route-isolated", Severity::Note))),
        ] {
            let seen = SeenNetwork {
                endpoints: endpoints
                    .iter()
                    .map(|name| format!("com.amazonaws.eu-west-1.{name}"))
                    .collect(),
                ..network(vec![subnet("subnet-1", "a", 100, way)])
            };
            let findings = judge("c", &cluster, &seen, needs, &Ok(()), &Ok(()));
            names(&findings);
            let first = findings.first().map(|finding| (finding.name, finding.severity));
            assert_eq!(first, expected, "{way:?} {needs:?} {endpoints:?}");
        }
        let error = || BackendError { cause: Cause::Denied, ..BackendError::new("x", "y", "z") };
        let seen = network(vec![subnet("subnet-1", "a", 100, None)]);
        let findings = judge("c", &cluster(), &seen, &ecr, &Err(error()), &Ok(()));
        assert_eq!(names(&findings), ["routes-not-seen"]);
        let findings = judge("c", &cluster(), &seen, &ecr, &Ok(()), &Err(error()));
        assert_eq!((findings[0].name, findings[0].severity), ("route-missing", Severity::Warning));
    }
}
