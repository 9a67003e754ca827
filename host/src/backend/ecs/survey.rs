//! What `doctor` wants to know of an account and of a cluster. Every call here only reads.

use std::time::SystemTime;

use aws_sdk_ecs::types::{Cluster, ContainerDefinition, TaskDefinition};

use super::query::{self, Call, Service, escape, filter};
use super::xml::Node;
use super::{Ecs, failed};
use crate::backend::BackendError;
use crate::backend::survey::{
    Asked, Caller, Ruled, SeenCluster, SeenContainer, SeenDefinition, SeenGroup, SeenNetwork,
    SeenProvider, SeenRoute, SeenRule, SeenSubnet, Skew, skew,
};

/// Elements of the answers that have children.
const INNER: [&str; 19] = [
    "EvaluationResults",
    "GetCallerIdentityResult",
    "SimulatePrincipalPolicyResult",
    "groups",
    "ipPermissions",
    "ipPermissionsEgress",
    "ipRanges",
    "item",
    "member",
    "prefixListIds",
    "associationSet",
    "routeSet",
    "routeTableSet",
    "securityGroupInfo",
    "subnetSet",
    "vpcEndpointSet",
    "ipv6Ranges",
    "propagatingVgwSet",
    "tagSet",
];

impl Ecs {
    /// Whose calls these are; and how far STS's clock is from ours, which is known also when STS refuses us for it.
    pub async fn caller(&self) -> (Result<Caller, BackendError>, Option<Skew>) {
        const ACTION: &str = "GetCallerIdentity";
        let before = SystemTime::now();
        let reply = match self.send(Service::Sts, ACTION, String::new()).await {
            Ok(reply) => reply,
            Err(error) => return (Err(error), None),
        };
        let skew = reply.date.as_deref().and_then(|date| skew(date, before, SystemTime::now()));
        let caller = reply.body().and_then(|body| {
            let node = read(ACTION, &body)?;
            let result = node.child("GetCallerIdentityResult").unwrap_or(&node);
            Ok(Caller {
                account: result.text("Account").to_owned(),
                arn: result.text("Arn").to_owned(),
            })
        });
        (caller, skew)
    }

    /// The cluster; `None` when there is none of this name.
    ///
    /// # Errors
    ///
    /// Fails as DescribeClusters does.
    pub async fn survey_cluster(&self) -> Result<Option<SeenCluster>, BackendError> {
        let answer = self
            .client()
            .await?
            .describe_clusters()
            .clusters(&self.cluster.cluster)
            .send()
            .await
            .map_err(|error| failed("DescribeClusters", &error))?;
        Ok(answer.clusters().first().map(seen_cluster))
    }

    /// The task definition `name`, as ECS would resolve it for a launch.
    ///
    /// # Errors
    ///
    /// Fails as DescribeTaskDefinition does, also when there is none.
    pub async fn survey_definition(&self, name: &str) -> Result<SeenDefinition, BackendError> {
        let answer = self
            .client()
            .await?
            .describe_task_definition()
            .task_definition(name)
            .send()
            .await
            .map_err(|error| failed("DescribeTaskDefinition", &error))?;
        Ok(answer.task_definition().map(seen_definition).unwrap_or_default())
    }

    /// The cluster's subnets, with their routes.
    ///
    /// # Errors
    ///
    /// Fails as DescribeSubnets and DescribeRouteTables do.
    pub async fn survey_subnets(&self) -> Result<SeenNetwork, BackendError> {
        let ids = filter(1, "subnet-id", &self.cluster.subnets);
        let answer = self.ec2("DescribeSubnets", ids).await?;
        let subnets: Vec<SeenSubnet> = answer.list("subnetSet").iter().map(seen_subnet).collect();
        Ok(SeenNetwork { subnets, ..SeenNetwork::default() })
    }

    /// Fills in the routes of `network`'s subnets.
    ///
    /// # Errors
    ///
    /// Fails as DescribeRouteTables does.
    pub async fn survey_routes(&self, network: &mut SeenNetwork) -> Result<(), BackendError> {
        let vpcs = vpcs(network);
        if vpcs.is_empty() {
            return Ok(());
        }
        let answer = self.ec2("DescribeRouteTables", filter(1, "vpc-id", &vpcs)).await?;
        for subnet in &mut network.subnets {
            subnet.routes = routes_of(subnet, answer.list("routeTableSet"));
        }
        Ok(())
    }

    /// Fills in the services that `network`'s VPC has endpoints for.
    ///
    /// # Errors
    ///
    /// Fails as DescribeVpcEndpoints does.
    pub async fn survey_endpoints(&self, network: &mut SeenNetwork) -> Result<(), BackendError> {
        let vpcs = vpcs(network);
        if vpcs.is_empty() {
            return Ok(());
        }
        let answer = self.ec2("DescribeVpcEndpoints", filter(1, "vpc-id", &vpcs)).await?;
        let is_there = |item: &&Node| item.text("state").eq_ignore_ascii_case("available");
        network.endpoints = answer
            .list("vpcEndpointSet")
            .iter()
            .filter(is_there)
            .map(|item| item.text("serviceName").to_owned())
            .collect();
        Ok(())
    }

    /// Fills in the security groups of the cluster; without any, its VPC's default group.
    ///
    /// # Errors
    ///
    /// Fails as DescribeSecurityGroups does.
    pub async fn survey_groups(&self, network: &mut SeenNetwork) -> Result<(), BackendError> {
        let form = if self.cluster.security_groups.is_empty() {
            let vpcs = vpcs(network);
            if vpcs.is_empty() {
                return Ok(());
            }
            let default = filter(2, "group-name", &["default".to_owned()]);
            format!("{}&{default}", filter(1, "vpc-id", &vpcs))
        } else {
            filter(1, "group-id", &self.cluster.security_groups)
        };
        let answer = self.ec2("DescribeSecurityGroups", form).await?;
        network.groups = answer.list("securityGroupInfo").iter().map(seen_group).collect();
        Ok(())
    }

    /// What IAM says to actions of `principal`, a user's or a role's ARN, without performing them.
    ///
    /// # Errors
    ///
    /// Fails as SimulatePrincipalPolicy does; few managers may call it.
    pub async fn simulate(
        &self,
        principal: &str,
        asked: &[Asked],
    ) -> Result<Vec<Ruled>, BackendError> {
        const ACTION: &str = "SimulatePrincipalPolicy";
        let mut ruled = Vec::new();
        for asked in asked {
            let mut form = format!(
                "PolicySourceArn={}&ActionNames.member.1={}&ResourceArns.member.1={}",
                escape(principal),
                escape(&asked.action),
                escape(&asked.resource)
            );
            for (index, (key, value)) in asked.context.iter().enumerate() {
                let entry = format!("ContextEntries.member.{}", index + 1);
                form.push_str(&format!(
                    "&{entry}.ContextKeyName={}&{entry}.ContextKeyValues.member.1={}&{entry}.ContextKeyType=string",
                    escape(key),
                    escape(value)
                ));
            }
            let body = self.send(Service::Iam, ACTION, form).await?.body()?;
            let node = read(ACTION, &body)?;
            let result = node.child("SimulatePrincipalPolicyResult").unwrap_or(&node);
            let decision = result
                .list("EvaluationResults")
                .first()
                .map(|member| member.text("EvalDecision").to_owned())
                .unwrap_or_default();
            let is_allowed = decision == "allowed";
            ruled.push(Ruled { asked: asked.clone(), is_allowed, decision });
        }
        Ok(ruled)
    }

    /// The account's quota `code` of Fargate in this Region.
    ///
    /// # Errors
    ///
    /// Fails as GetServiceQuota does.
    pub async fn quota(&self, code: &str) -> Result<f64, BackendError> {
        const ACTION: &str = "GetServiceQuota";
        let body = serde_json::json!({ "ServiceCode": "fargate", "QuotaCode": code }).to_string();
        let body = self.send(Service::Quotas, ACTION, body).await?.body()?;
        serde_json::from_str::<serde_json::Value>(&body)
            .ok()
            .and_then(|answer| answer["Quota"]["Value"].as_f64())
            .ok_or_else(|| BackendError::new(ACTION, "answer", "the answer has no quota"))
    }

    async fn ec2(&self, action: &'static str, form: String) -> Result<Node, BackendError> {
        let body = self.send(Service::Ec2, action, form).await?.body()?;
        read(action, &body)
    }

    async fn send(
        &self,
        service: Service,
        action: &'static str,
        body: String,
    ) -> Result<query::Reply, BackendError> {
        let credentials = self.credentials.get().await?;
        let call = Call { service, action, body };
        query::send(&self.sdk, &credentials, &self.cluster.region, &call).await
    }
}

fn read(action: &'static str, body: &str) -> Result<Node, BackendError> {
    Node::read(body, &format!("{action}Response"), &INNER)
        .ok_or_else(|| BackendError::new(action, "answer", "the answer is no XML of AWS's"))
}

fn seen_cluster(cluster: &Cluster) -> SeenCluster {
    SeenCluster {
        name: cluster.cluster_name().unwrap_or_default().to_owned(),
        status: cluster.status().unwrap_or_default().to_owned(),
        providers: cluster.capacity_providers().to_vec(),
        default_strategy: cluster
            .default_capacity_provider_strategy()
            .iter()
            .map(|item| SeenProvider {
                name: item.capacity_provider().to_owned(),
                weight: item.weight(),
                base: item.base(),
            })
            .collect(),
        instances: u32::try_from(cluster.registered_container_instances_count()).unwrap_or(0),
    }
}

fn seen_definition(definition: &TaskDefinition) -> SeenDefinition {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let platform = definition.runtime_platform();
    // What it was asked to be registered for is narrower than what it would be fit for.
    let asked = definition.requires_compatibilities();
    let listed = if asked.is_empty() { definition.compatibilities() } else { asked };
    SeenDefinition {
        arn: definition.task_definition_arn().unwrap_or_default().to_owned(),
        status: definition.status().map(|status| status.as_str().to_owned()).unwrap_or_default(),
        network_mode: text(definition.network_mode().map(|mode| mode.as_str())),
        compatibilities: listed.iter().map(|name| name.as_str().to_owned()).collect(),
        architecture: text(platform.and_then(|it| it.cpu_architecture()).map(|name| name.as_str())),
        operating_system: text(
            platform.and_then(|it| it.operating_system_family()).map(|name| name.as_str()),
        ),
        execution_role: text(definition.execution_role_arn()),
        task_role: text(definition.task_role_arn()),
        containers: definition.container_definitions().iter().map(seen_container).collect(),
    }
}

fn seen_container(container: &ContainerDefinition) -> SeenContainer {
    let log = container.log_configuration();
    let port = |number: i32| u16::try_from(number).ok();
    SeenContainer {
        name: container.name().unwrap_or_default().to_owned(),
        image: container.image().unwrap_or_default().to_owned(),
        // The API's default.
        essential: container.essential().unwrap_or(true),
        ports: container
            .port_mappings()
            .iter()
            .filter_map(|mapping| mapping.container_port().and_then(port))
            .collect(),
        memory_limit: container.memory().and_then(|mib| u32::try_from(mib).ok()),
        log_driver: log.map(|log| log.log_driver().as_str().to_owned()),
        log_options: log
            .and_then(|log| log.options())
            .map(|options| {
                options.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
            })
            .unwrap_or_default(),
        has_secrets: !container.secrets().is_empty()
            || container.repository_credentials().is_some(),
        is_read_only: container.readonly_root_filesystem() == Some(true),
    }
}

fn vpcs(network: &SeenNetwork) -> Vec<String> {
    let mut vpcs: Vec<String> = network.subnets.iter().map(|subnet| subnet.vpc.clone()).collect();
    vpcs.sort_unstable();
    vpcs.dedup();
    vpcs
}

fn seen_subnet(item: &Node) -> SeenSubnet {
    SeenSubnet {
        id: item.text("subnetId").to_owned(),
        vpc: item.text("vpcId").to_owned(),
        zone: item.text("availabilityZone").to_owned(),
        cidr: item.text("cidrBlock").to_owned(),
        free: item.text("availableIpAddressCount").parse().unwrap_or(0),
        routes: Vec::new(),
    }
}

/// Those of the table that is associated with the subnet, or of its VPC's main table.
fn routes_of(subnet: &SeenSubnet, tables: &[Node]) -> Vec<SeenRoute> {
    let has = |table: &&Node, wanted: &dyn Fn(&Node) -> bool| {
        table.text("vpcId") == subnet.vpc && table.list("associationSet").iter().any(wanted)
    };
    let own = tables.iter().find(|table| has(table, &|one| one.text("subnetId") == subnet.id));
    let main = || tables.iter().find(|table| has(table, &|one| one.text("main") == "true"));
    let Some(table) = own.or_else(main) else { return Vec::new() };
    table.list("routeSet").iter().map(seen_route).collect()
}

fn seen_route(item: &Node) -> SeenRoute {
    let first = |name: fn(&str) -> bool| {
        let found = item.children().iter().find(|child| name(child.name()));
        found.map(|child| child.own_text().to_owned()).unwrap_or_default()
    };
    SeenRoute {
        destination: first(|name| name.starts_with("destination")),
        // `gatewayId`, `natGatewayId`, `transitGatewayId`, `networkInterfaceId` and so on.
        target: first(|name| name.ends_with("Id") && !name.starts_with("destination")),
        is_black_hole: item.text("state") == "blackhole",
    }
}

fn seen_group(item: &Node) -> SeenGroup {
    let rules = |name| item.list(name).iter().map(seen_rule).collect();
    SeenGroup {
        id: item.text("groupId").to_owned(),
        vpc: item.text("vpcId").to_owned(),
        ingress: rules("ipPermissions"),
        egress: rules("ipPermissionsEgress"),
    }
}

fn seen_rule(item: &Node) -> SeenRule {
    let all = |list, name| {
        item.list(list).iter().map(|entry: &Node| entry.text(name).to_owned()).collect()
    };
    let port = |name| item.text(name).parse::<u16>().ok();
    SeenRule {
        protocol: item.text("ipProtocol").to_owned(),
        ports: port("fromPort").zip(port("toPort")),
        blocks: all("ipRanges", "cidrIp"),
        groups: all("groups", "groupId"),
        lists: all("prefixListIds", "prefixListId"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in the EC2 API reference, "DescribeRouteTables", shortened.
    #[test]
    fn a_subnet_has_its_own_routes_or_the_main_ones() {
        let xml = r#"<DescribeRouteTablesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>6f570b0b-9c18-4b07-bdec-73740dcf861a</requestId>
  <routeTableSet>
    <item><routeTableId>rtb-1</routeTableId><vpcId>vpc-1</vpcId>
      <routeSet>
        <item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId><state>active</state><origin>CreateRouteTable</origin></item>
      </routeSet>
      <associationSet><item><routeTableAssociationId>rtbassoc-1</routeTableAssociationId><routeTableId>rtb-1</routeTableId><main>true</main></item></associationSet>
      <propagatingVgwSet/><tagSet/>
    </item>
    <item><routeTableId>rtb-2</routeTableId><vpcId>vpc-1</vpcId>
      <routeSet>
        <item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><natGatewayId>nat-1</natGatewayId><state>blackhole</state></item>
      </routeSet>
      <associationSet><item><routeTableId>rtb-2</routeTableId><subnetId>subnet-2</subnetId><main>false</main></item></associationSet>
    </item>
  </routeTableSet>
</DescribeRouteTablesResponse>"#;
        let node = read("DescribeRouteTables", xml).unwrap();
        let subnet =
            |id: &str| SeenSubnet { id: id.into(), vpc: "vpc-1".into(), ..Default::default() };
        let route = |destination: &str, target: &str, is_black_hole| SeenRoute {
            destination: destination.into(),
            target: target.into(),
            is_black_hole,
        };
        let tables = node.list("routeTableSet");
        assert_eq!(routes_of(&subnet("subnet-1"), tables), [route("10.0.0.0/16", "local", false)]);
        assert_eq!(routes_of(&subnet("subnet-2"), tables), [route("0.0.0.0/0", "nat-1", true)]);
    }

    /// As in the EC2 API reference, "DescribeSecurityGroups", shortened.
    #[test]
    fn a_groups_rules_are_read() {
        let xml = r#"<DescribeSecurityGroupsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>1d62eae0-acdd-481d-88c9-example</requestId>
  <securityGroupInfo><item>
    <ownerId>123456789012</ownerId><groupId>sg-1</groupId><groupName>ci</groupName><vpcId>vpc-1</vpcId>
    <ipPermissions>
      <item><ipProtocol>tcp</ipProtocol><fromPort>22</fromPort><toPort>22</toPort>
        <groups><item><userId>123456789012</userId><groupId>sg-2</groupId></item></groups>
        <ipRanges><item><cidrIp>10.0.0.0/8</cidrIp></item></ipRanges><ipv6Ranges/><prefixListIds/></item>
    </ipPermissions>
    <ipPermissionsEgress>
      <item><ipProtocol>-1</ipProtocol><groups/><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges></item>
    </ipPermissionsEgress>
  </item></securityGroupInfo>
</DescribeSecurityGroupsResponse>"#;
        let node = read("DescribeSecurityGroups", xml).unwrap();
        let group = seen_group(&node.list("securityGroupInfo")[0]);
        let ssh = SeenRule {
            protocol: "tcp".into(),
            ports: Some((22, 22)),
            blocks: vec!["10.0.0.0/8".into()],
            groups: vec!["sg-2".into()],
            lists: vec![],
        };
        assert_eq!((group.id.as_str(), group.vpc.as_str()), ("sg-1", "vpc-1"));
        assert_eq!(group.ingress, [ssh]);
        assert_eq!(group.egress[0].ports, None);
    }
}
