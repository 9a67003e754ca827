//! The account's VPC as EC2 describes it: subnets, route tables, security groups and endpoints. Pure.
//!
//! Everything that the world names exists in one VPC and lets tasks start; what a world wants otherwise it says in
//! `network`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::protocol::ApiError;

/// Where everything is that says nothing else.
const VPC: &str = "vpc-1";

/// The VPC's default security group, which lets its members in.
const DEFAULT_GROUP: &str = "sg-default";

/// `network` of a world: what is unlike the rest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    /// By id.
    pub(crate) subnets: BTreeMap<String, Subnet>,
    /// By id.
    pub(crate) security_groups: BTreeMap<String, Group>,
    /// Service names of VPC endpoints.
    pub(crate) endpoints: Vec<String>,
}

/// A subnet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Subnet {
    vpc: String,
    /// Of the Region: `a`, `b` and so on; by the subnet's place in the world when absent.
    zone: Option<char>,
    free: u32,
    /// Where its default route leads: `igw-…`, `nat-…`; nowhere when `null`.
    way_out: Option<String>,
    /// Whether what it leads to is gone.
    black_hole: bool,
    /// Whether its routes are those of the VPC's main table.
    main: bool,
}

impl Default for Subnet {
    fn default() -> Self {
        Self {
            vpc: VPC.to_owned(),
            zone: None,
            free: 250,
            way_out: Some("nat-1".to_owned()),
            black_hole: false,
            main: false,
        }
    }
}

/// A security group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Group {
    vpc: String,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

impl Default for Group {
    /// Open to private addresses, and out to everything.
    fn default() -> Self {
        let blocks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8"];
        let private = Rule {
            protocol: "tcp".to_owned(),
            ports: Some((0, 65_535)),
            blocks: blocks.map(str::to_owned).to_vec(),
            groups: Vec::new(),
        };
        let all = Rule {
            protocol: "-1".to_owned(),
            ports: None,
            blocks: vec!["0.0.0.0/0".to_owned()],
            groups: Vec::new(),
        };
        Self { vpc: VPC.to_owned(), ingress: vec![private], egress: vec![all] }
    }
}

/// A rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    protocol: String,
    #[serde(default)]
    ports: Option<(u16, u16)>,
    #[serde(default)]
    blocks: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
}

/// Filters of a request: name and values. All have to hold, each with one of its values.
pub(crate) type Filters = Vec<(String, Vec<String>)>;

impl Network {
    /// The XML of the items that `action` answers; `None` for another service's action.
    ///
    /// # Errors
    ///
    /// As EC2: a filter that the action has not, and one that holds nothing.
    pub(crate) fn describe(
        &self,
        action: &str,
        region: &str,
        subnets: &[String],
        groups: &[String],
        filters: &Filters,
    ) -> Option<Result<String, ApiError>> {
        let all = self.all_subnets(subnets);
        // Every VPC has one, and nobody names it.
        let default = DEFAULT_GROUP.to_owned();
        let default =
            Some(&default).filter(|_| !groups.iter().any(|id| id == DEFAULT_GROUP)).cloned();
        let (known, set, items): (&[&str], &str, Vec<Item>) = match action {
            "DescribeSubnets" => (
                &["subnet-id", "vpc-id"],
                "subnetSet",
                all.iter()
                    .enumerate()
                    .map(|(index, (id, subnet))| subnet.item(id, index, region))
                    .collect(),
            ),
            "DescribeRouteTables" => {
                (&["vpc-id", "association.subnet-id"], "routeTableSet", route_tables(&all))
            }
            "DescribeSecurityGroups" => (
                &["group-id", "group-name", "vpc-id"],
                "securityGroupInfo",
                groups.iter().chain(&default).map(|id| self.group(id).item(id)).collect(),
            ),
            "DescribeVpcEndpoints" => (
                &["vpc-id", "service-name"],
                "vpcEndpointSet",
                self.endpoints.iter().map(|name| endpoint(name)).collect(),
            ),
            _ => return None,
        };
        if let Some((name, _)) = filters.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            let message = format!("The filter '{name}' is invalid");
            return Some(Err(ApiError::new("InvalidParameterValue", message)));
        }
        if let Some((name, _)) =
            filters.iter().find(|(_, values)| values.is_empty() || values.len() > 200)
        {
            let message = format!("The filter '{name}' takes 1 to 200 values.");
            return Some(Err(ApiError::new("FilterLimitExceeded", message)));
        }
        let found: String = items
            .iter()
            .filter(|item| filters.iter().all(|(name, values)| item.matches(name, values)))
            .map(|item| format!("<item>{}</item>", item.xml))
            .collect();
        Some(Ok(format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>0</requestId><{set}>{found}</{set}></{action}Response>"
        )))
    }

    fn group(&self, id: &str) -> Group {
        let usual = || match id {
            DEFAULT_GROUP => Group { ingress: vec![Rule::from_group(id)], ..Group::default() },
            _ => Group::default(),
        };
        self.security_groups.get(id).cloned().unwrap_or_else(usual)
    }

    fn all_subnets(&self, ids: &[String]) -> Vec<(String, Subnet)> {
        ids.iter()
            .map(|id| (id.clone(), self.subnets.get(id).cloned().unwrap_or_default()))
            .collect()
    }
}

/// An item with what filters look at.
struct Item {
    keys: Vec<(&'static str, String)>,
    xml: String,
}

impl Item {
    fn matches(&self, name: &str, values: &[String]) -> bool {
        self.keys.iter().any(|(key, value)| *key == name && values.contains(value))
    }
}

impl Subnet {
    fn item(&self, id: &str, index: usize, region: &str) -> Item {
        let zone = self.zone.unwrap_or(if index.is_multiple_of(2) { 'a' } else { 'b' });
        let (vpc, free) = (&self.vpc, self.free);
        Item {
            keys: vec![("subnet-id", id.to_owned()), ("vpc-id", vpc.clone())],
            xml: format!(
                "<subnetId>{id}</subnetId><state>available</state><vpcId>{vpc}</vpcId><cidrBlock>10.0.{}.0/24</cidrBlock><availableIpAddressCount>{free}</availableIpAddressCount><availabilityZone>{region}{zone}</availabilityZone>",
                index % 256
            ),
        }
    }

    fn routes(&self) -> String {
        let local = "<item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId><state>active</state></item>";
        let Some(target) = &self.way_out else { return local.to_owned() };
        let element = match target.split('-').next() {
            Some("nat") => "natGatewayId",
            Some("tgw") => "transitGatewayId",
            Some("eni") => "networkInterfaceId",
            _ => "gatewayId",
        };
        let state = if self.black_hole { "blackhole" } else { "active" };
        format!(
            "{local}<item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><{element}>{target}</{element}><state>{state}</state></item>"
        )
    }
}

/// One for each subnet, and for each VPC a main one, whose routes are those of the first subnet that has no own.
fn route_tables(subnets: &[(String, Subnet)]) -> Vec<Item> {
    let mut tables = Vec::new();
    let mut mains: BTreeMap<&str, String> = BTreeMap::new();
    for (id, subnet) in subnets {
        let vpc = subnet.vpc.as_str();
        if subnet.main {
            mains.insert(vpc, subnet.routes());
            continue;
        }
        mains.entry(vpc).or_insert_with(|| Subnet { way_out: None, ..Subnet::default() }.routes());
        tables.push(Item {
            keys: vec![("vpc-id", vpc.to_owned()), ("association.subnet-id", id.clone())],
            xml: format!(
                "<routeTableId>rtb-{id}</routeTableId><vpcId>{vpc}</vpcId><routeSet>{}</routeSet><associationSet><item><routeTableId>rtb-{id}</routeTableId><subnetId>{id}</subnetId><main>false</main></item></associationSet><propagatingVgwSet/><tagSet/>",
                subnet.routes()
            ),
        });
    }
    tables.extend(mains.into_iter().map(|(vpc, routes)| Item {
        keys: vec![("vpc-id", vpc.to_owned())],
        xml: format!(
            "<routeTableId>rtb-main</routeTableId><vpcId>{vpc}</vpcId><routeSet>{routes}</routeSet><associationSet><item><routeTableId>rtb-main</routeTableId><main>true</main></item></associationSet>"
        ),
    }));
    tables
}

impl Group {
    fn item(&self, id: &str) -> Item {
        let vpc = &self.vpc;
        let name = if id == DEFAULT_GROUP { "default" } else { "simulated" };
        let rules = |rules: &[Rule]| rules.iter().map(Rule::xml).collect::<String>();
        Item {
            keys: vec![
                ("group-id", id.to_owned()),
                ("group-name", name.to_owned()),
                ("vpc-id", vpc.clone()),
            ],
            xml: format!(
                "<groupId>{id}</groupId><groupName>{name}</groupName><vpcId>{vpc}</vpcId><ipPermissions>{}</ipPermissions><ipPermissionsEgress>{}</ipPermissionsEgress>",
                rules(&self.ingress),
                rules(&self.egress)
            ),
        }
    }
}

impl Rule {
    fn from_group(id: &str) -> Self {
        let protocol = "-1".to_owned();
        Self { protocol, ports: None, blocks: Vec::new(), groups: vec![id.to_owned()] }
    }

    fn xml(&self) -> String {
        let ports = self.ports.map_or_else(String::new, |(from, to)| {
            format!("<fromPort>{from}</fromPort><toPort>{to}</toPort>")
        });
        let items = |inner: &str, values: &[String]| {
            values
                .iter()
                .map(|value| format!("<item><{inner}>{value}</{inner}></item>"))
                .collect::<String>()
        };
        format!(
            "<item><ipProtocol>{}</ipProtocol>{ports}<groups>{}</groups><ipRanges>{}</ipRanges><ipv6Ranges/><prefixListIds/></item>",
            self.protocol,
            items("groupId", &self.groups),
            items("cidrIp", &self.blocks)
        )
    }
}

fn endpoint(name: &str) -> Item {
    Item {
        keys: vec![("vpc-id", VPC.to_owned()), ("service-name", name.to_owned())],
        xml: format!(
            "<vpcEndpointId>vpce-1</vpcEndpointId><vpcId>{VPC}</vpcId><serviceName>{name}</serviceName><state>available</state>"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Filters, Network};

    fn describe(action: &str, filters: &[(&str, &[&str])]) -> Result<String, String> {
        let network: Network = serde_json::from_value(json!({
            "subnets": {"subnet-2": {"free": 3, "way_out": null, "main": true}},
            "security_groups": {"sg-1": {"ingress": []}},
            "endpoints": ["com.amazonaws.eu-west-1.s3"],
        }))
        .unwrap();
        let own = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let filters: Filters =
            filters.iter().map(|(name, values)| ((*name).to_owned(), own(values))).collect();
        let (subnets, groups): (Vec<String>, Vec<String>) =
            (own(&["subnet-1", "subnet-2"]), own(&["sg-1", "sg-2"]));
        network
            .describe(action, "eu-west-1", &subnets, &groups, &filters)
            .unwrap()
            .map_err(|error| error.message)
    }

    #[test]
    fn filters_are_all_of_their_conditions() {
        let count = |action, filters: &[(&str, &[&str])]| {
            let xml = describe(action, filters).unwrap();
            xml.matches("<vpcId>").count()
        };
        assert_eq!(count("DescribeSubnets", &[]), 2);
        assert_eq!(count("DescribeSubnets", &[("subnet-id", &["subnet-2", "subnet-9"])]), 1);
        assert_eq!(
            count("DescribeSubnets", &[("subnet-id", &["subnet-1"]), ("vpc-id", &["x"])]),
            0
        );
        // The one of subnet-1, and the main one with the routes of subnet-2.
        assert_eq!(count("DescribeRouteTables", &[("vpc-id", &["vpc-1"])]), 2);
        assert_eq!(count("DescribeSecurityGroups", &[("group-id", &["sg-2"])]), 1);
        assert_eq!(count("DescribeVpcEndpoints", &[("vpc-id", &["vpc-1"])]), 1);
    }

    #[test]
    fn filters_that_ec2_has_not_are_refused() {
        let error = describe("DescribeSubnets", &[("group-id", &["x"])]).unwrap_err();
        assert!(error.contains("'group-id' is invalid"), "{error}");
        let error = describe("DescribeSubnets", &[("vpc-id", &[])]).unwrap_err();
        assert!(error.contains("1 to 200"), "{error}");
    }

    #[test]
    fn what_a_world_says_is_in_the_answer() {
        let subnets = describe("DescribeSubnets", &[]).unwrap();
        assert!(subnets.contains("<availableIpAddressCount>3<"), "{subnets}");
        let tables = describe("DescribeRouteTables", &[]).unwrap();
        assert_eq!(tables.matches("0.0.0.0/0").count(), 1, "{tables}");
        let groups = describe("DescribeSecurityGroups", &[]).unwrap();
        assert!(groups.contains("<ipPermissions></ipPermissions>"), "{groups}");
    }
}
