//! Whether we may connect to the tasks' SSH servers, by the rules of their security groups: pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::unseen;
use crate::backend::BackendError;
use crate::backend::survey::{SeenGroup, SeenNetwork, SeenRule};
use crate::doctor::finding::{Finding, list};
use crate::settings::{AddressKind, EcsCluster};

/// Whether we may connect to `ports` of the tasks. `ours` is the address by which this machine reaches the subnets.
pub(in crate::doctor) fn judge(
    about: &str,
    cluster: &EcsCluster,
    network: &SeenNetwork,
    ports: &BTreeSet<u16>,
    ours: Option<Ipv4Addr>,
    seen: &Result<(), BackendError>,
) -> Vec<Finding> {
    if let Err(error) = seen {
        return vec![unseen("groups-not-seen", about, "ec2:DescribeSecurityGroups", error)];
    }
    let region = &cluster.region;
    let mut findings = Vec::new();
    let missing: Vec<String> = cluster
        .security_groups
        .iter()
        .filter(|id| !network.groups.iter().any(|group| group.id == **id))
        .cloned()
        .collect();
    if !missing.is_empty() {
        findings.push(
            Finding::failure("group-missing", about, format!("{region} has no security group {} in this account", list(&missing)))
                .why("RunTask refuses a request that names it")
                .change("correct `security_groups` of the cluster")
                .run(format!("aws ec2 describe-security-groups --region {region} --query 'SecurityGroups[].[GroupId,GroupName,VpcId]' --output table")),
        );
    }
    let foreign: Vec<String> = network
        .groups
        .iter()
        .filter(|group| {
            !network.subnets.is_empty()
                && !network.subnets.iter().any(|subnet| subnet.vpc == group.vpc)
        })
        .map(|group| format!("{} ({})", group.id, group.vpc))
        .collect();
    if !foreign.is_empty() {
        findings.push(
            Finding::failure(
                "group-elsewhere",
                about,
                format!("{} is of another VPC than the subnets", list(&foreign)),
            )
            .why("RunTask refuses security groups and subnets of different VPCs")
            .change("correct `security_groups` or `subnets` of the cluster"),
        );
    }
    let Some(first) = network.groups.first() else { return findings };
    for port in ports {
        findings.push(judge_port(about, cluster, &network.groups, first, *port, ours));
    }
    if network.groups.iter().all(|group| group.egress.is_empty()) {
        findings.push(
            Finding::failure("egress-closed", about, format!("{} lets nothing out", first.id))
                .why("tasks can neither fetch their image nor reach GitLab: they stop with CannotPullContainerError after a time-out")
                .run(format!(
                    "aws ec2 authorize-security-group-egress --region {region} --group-id {} --protocol tcp --port 443 --cidr 0.0.0.0/0",
                    first.id
                )),
        );
    }
    findings
}

fn judge_port(
    about: &str,
    cluster: &EcsCluster,
    groups: &[SeenGroup],
    first: &SeenGroup,
    port: u16,
    ours: Option<Ipv4Addr>,
) -> Finding {
    let region = &cluster.region;
    let rules: Vec<&SeenRule> =
        groups.iter().flat_map(|group| &group.ingress).filter(|rule| admits(rule, port)).collect();
    let names: Vec<String> = groups.iter().map(|group| group.id.clone()).collect();
    let blocks: Vec<String> = rules.iter().flat_map(|rule| rule.blocks.clone()).collect();
    let others: Vec<String> =
        rules.iter().flat_map(|rule| rule.groups.iter().chain(&rule.lists)).cloned().collect();
    let source = match ours {
        Some(address) if cluster.address == AddressKind::Private => format!("--cidr {address}/32"),
        _ => "--source-group GROUP_OF_THE_RUNNER_MANAGER".to_owned(),
    };
    let command = format!(
        "aws ec2 authorize-security-group-ingress --region {region} --group-id {} --protocol tcp --port {port} {source}",
        first.id
    );
    if rules.is_empty() {
        return Finding::failure("port-closed", about, format!("no rule of {} admits TCP port {port}", list(&names)))
            .why("the driver cannot connect to the task's SSH server: jobs end with \"no answer from … (connecting)\", in GitLab's driver with \"connection timed out\"")
            .run(command);
    }
    if blocks.iter().any(|block| block == "0.0.0.0/0") {
        let finding = if cluster.assign_public_ip {
            Finding::warning(
                "port-open-to-all",
                about,
                format!(
                    "{} admits TCP port {port} from the whole internet, and tasks have public addresses",
                    list(&names)
                ),
            )
        } else {
            Finding::note(
                "port-open-to-all",
                about,
                format!("{} admits TCP port {port} from everywhere", list(&names)),
            )
        };
        return finding
            .why("only the runner manager has to reach it; the job's key keeps others out, but not their attempts")
            .run(command)
            .run(format!(
                "aws ec2 revoke-security-group-ingress --region {region} --group-id {} --protocol tcp --port {port} --cidr 0.0.0.0/0",
                first.id
            ));
    }
    // By a public address nobody here knows how we look from there.
    let ours = ours.filter(|_| cluster.address == AddressKind::Private);
    if let Some(address) = ours
        && let Some(block) = blocks.iter().find(|block| contains(block, address))
    {
        return Finding::ok(
            "port",
            about,
            format!("TCP port {port} is open to this machine ({address} is in {block})"),
        );
    }
    if !others.is_empty() {
        return Finding::note("port-by-group", about, format!("TCP port {port} is open to members of {}", list(&others)))
            .why("whether this machine is one of them cannot be seen from here; `pointsman doctor --launch` connects")
            .change("the runner manager's instance or task must have one of these security groups");
    }
    let from = ours
        .map_or_else(|| "this machine".to_owned(), |address| format!("this machine ({address})"));
    Finding::warning("port-closed-to-us", about, format!("TCP port {port} is open to {}, which does not have {from}", list(&blocks)))
        .why("unless an address on the way is translated, the driver cannot connect to the task's SSH server")
        .run(command)
}

fn admits(rule: &SeenRule, port: u16) -> bool {
    match rule.protocol.as_str() {
        "-1" => true,
        "tcp" | "6" => rule.ports.is_some_and(|(first, last)| (first..=last).contains(&port)),
        _ => false,
    }
}

/// Whether the IPv4 block has the address.
fn contains(block: &str, address: Ipv4Addr) -> bool {
    let Some((network, bits)) = block.split_once('/') else { return false };
    let (Ok(network), Ok(bits @ 0..=32)) = (network.parse::<Ipv4Addr>(), bits.parse::<u32>())
    else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    (u32::from(network) ^ u32::from(address)) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, names, network, subnet};
    use super::*;

    #[test]
    fn every_kind_of_rule_has_its_finding() {
        let rule = |protocol: &str, ports, block: Option<&str>, group: Option<&str>| SeenRule {
            protocol: protocol.into(),
            ports,
            blocks: block.map(str::to_owned).into_iter().collect(),
            groups: group.map(str::to_owned).into_iter().collect(),
            lists: vec![],
        };
        let out = rule("-1", None, Some("0.0.0.0/0"), None);
        let ours = Some(Ipv4Addr::new(10, 0, 9, 9));
        let judged = |ingress: Vec<SeenRule>, egress: Vec<SeenRule>, cluster: &EcsCluster| {
            let group = SeenGroup { id: "sg-12345".into(), vpc: "vpc-1".into(), ingress, egress };
            let seen = SeenNetwork {
                groups: vec![group],
                ..network(vec![subnet("subnet-1", "a", 100, None)])
            };
            names(&judge("c", cluster, &seen, &[22].into(), ours, &Ok(())))
        };
        let ssh = Some((22, 22));
        for (ingress, expected) in [
            (vec![], "port-closed"),
            (vec![rule("tcp", Some((443, 443)), Some("10.0.0.0/8"), None)], "port-closed"),
            (vec![rule("udp", ssh, Some("10.0.0.0/8"), None)], "port-closed"),
            (vec![rule("tcp", ssh, Some("10.0.0.0/8"), None)], "port"),
            (vec![rule("-1", None, Some("10.0.9.9/32"), None)], "port"),
            (
                vec![rule("tcp", Some((0, 65535)), Some("192.168.0.0/16"), None)],
                "port-closed-to-us",
            ),
            (vec![rule("tcp", ssh, None, Some("sg-9"))], "port-by-group"),
            (vec![rule("tcp", ssh, Some("0.0.0.0/0"), None)], "port-open-to-all"),
        ] {
            assert_eq!(
                judged(ingress.clone(), vec![out.clone()], &cluster()),
                [expected],
                "{ingress:?}"
            );
        }
        let open = vec![rule("tcp", ssh, Some("10.0.0.0/8"), None)];
        assert_eq!(judged(open.clone(), vec![], &cluster()), ["port", "egress-closed"]);
        let other = EcsCluster { security_groups: vec!["sg-x".into()], ..cluster() };
        assert_eq!(judged(open, vec![out], &other), ["group-missing", "port"]);
    }

    #[test]
    fn groups_of_another_vpc_are_named() {
        let group =
            SeenGroup { id: "sg-12345".into(), vpc: "vpc-2".into(), ..SeenGroup::default() };
        let seen =
            SeenNetwork { groups: vec![group], ..network(vec![subnet("subnet-1", "a", 9, None)]) };
        let findings = judge("c", &cluster(), &seen, &[].into(), None, &Ok(()));
        assert_eq!(names(&findings), ["group-elsewhere", "egress-closed"]);
    }

    #[test]
    fn blocks_have_their_addresses() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        for (block, expected) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/32", true),
            ("10.1.2.2/32", false),
            ("0.0.0.0/0", true),
            ("10.1.0.0/15", true),
            ("11.0.0.0/8", false),
            ("10.0.0.0/33", false),
            ("::/0", false),
        ] {
            assert_eq!(contains(block, address), expected, "{block}");
        }
    }
}
