//! What can be seen of an account and of a cluster without starting anything: plain facts, for `doctor`.
//!
//! A backend fills them in; nobody here says whether they are good.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822;

/// Whose calls these are, as STS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Twelve digits.
    pub account: String,
    /// Of a user, or of a role's session.
    pub arn: String,
}

/// How far another's clock is from this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// This machine's clock is behind by so much.
    Behind(Duration),
    /// This machine's clock is ahead by so much.
    Ahead(Duration),
}

/// An ECS cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenCluster {
    /// Its short name.
    pub name: String,
    /// Such as `ACTIVE` and `INACTIVE`.
    pub status: String,
    /// The capacity providers that are associated with it.
    pub providers: Vec<String>,
    /// Its default strategy.
    pub default_strategy: Vec<SeenProvider>,
    /// Container instances that are registered with it.
    pub instances: u32,
}

/// A capacity provider of a strategy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenProvider {
    /// Its name.
    pub name: String,
    /// Its share.
    pub weight: i32,
    /// The tasks that it gets before the others do.
    pub base: i32,
}

/// A revision of an ECS task definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenDefinition {
    /// With the revision.
    pub arn: String,
    /// `ACTIVE`, `INACTIVE` or `DELETE_IN_PROGRESS`.
    pub status: String,
    /// `None` is Docker's own: bridge.
    pub network_mode: Option<String>,
    /// What it is registered for, such as `FARGATE`.
    pub compatibilities: Vec<String>,
    /// `X86_64` or `ARM64`; `None` is `X86_64`.
    pub architecture: Option<String>,
    /// Such as `LINUX`; `None` is Linux.
    pub operating_system: Option<String>,
    /// The role that ECS itself uses: for images, secrets and logs.
    pub execution_role: Option<String>,
    /// The role of the scripts, unless a placement names another.
    pub task_role: Option<String>,
    /// In its order.
    pub containers: Vec<SeenContainer>,
}

/// A container of a task definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenContainer {
    /// Its name in the task definition.
    pub name: String,
    /// As ECS pulls it.
    pub image: String,
    /// Whether the task ends with it.
    pub essential: bool,
    /// The ports of the container that are mapped.
    pub ports: Vec<u16>,
    /// MiB; its hard limit, which an override of the task's memory does not raise.
    pub memory_limit: Option<u32>,
    /// Such as `awslogs`.
    pub log_driver: Option<String>,
    /// The log driver's.
    pub log_options: BTreeMap<String, String>,
    /// Whether ECS fetches secrets for it, environment or registry.
    pub has_secrets: bool,
    /// Whether nothing in it can be written to.
    pub is_read_only: bool,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenSubnet {
    /// `subnet-…`
    pub id: String,
    /// `vpc-…`
    pub vpc: String,
    /// Its availability zone.
    pub zone: String,
    /// IPv4.
    pub cidr: String,
    /// Addresses that are left.
    pub free: u32,
    /// The routes of its route table: its own, or the VPC's main one.
    pub routes: Vec<SeenRoute>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenRoute {
    /// A CIDR block, or the id of a prefix list.
    pub destination: String,
    /// Such as `igw-…`, `nat-…`, `tgw-…` or `local`.
    pub target: String,
    /// Whether the target is gone.
    pub is_black_hole: bool,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenGroup {
    /// `sg-…`
    pub id: String,
    /// `vpc-…`
    pub vpc: String,
    /// What may come in.
    pub ingress: Vec<SeenRule>,
    /// What may go out.
    pub egress: Vec<SeenRule>,
}

/// A rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenRule {
    /// `tcp`, `-1` for all, and others.
    pub protocol: String,
    /// The first and the last port; `None` where the protocol has none.
    pub ports: Option<(u16, u16)>,
    /// CIDR blocks of IPv4.
    pub blocks: Vec<String>,
    /// Security groups.
    pub groups: Vec<String>,
    /// Prefix lists, whose content is not looked at.
    pub lists: Vec<String>,
}

/// The subnets and security groups of a cluster, as far as EC2 told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenNetwork {
    /// Those of the cluster's that there are.
    pub subnets: Vec<SeenSubnet>,
    /// Those of the cluster's that there are.
    pub groups: Vec<SeenGroup>,
    /// The services that the subnets' VPC has endpoints for, such as `com.amazonaws.eu-west-1.ecr.dkr`.
    pub endpoints: Vec<String>,
}

/// An action that IAM was asked about without performing it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Such as `iam:PassRole`.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
    /// Keys of conditions with their values, such as `iam:PassedToService`.
    pub context: Vec<(String, String)>,
}

/// IAM's word on [`Asked`]: `allowed`, `implicitDeny` or `explicitDeny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruled {
    /// What was asked.
    pub asked: Asked,
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// IAM's own word.
    pub decision: String,
}

/// How far the clock behind a `Date` header (RFC 9110, 5.6.7) is from ours, which showed `before` and `after` the
/// request. The header has full seconds: less than one apart counts as equal. `None` for what is no date.
pub fn skew(date: &str, before: SystemTime, after: SystemTime) -> Option<Skew> {
    let theirs = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let since_1970 = Duration::from_secs(u64::try_from(theirs.as_second()).ok()?);
    let theirs = SystemTime::UNIX_EPOCH + since_1970;
    let second = Duration::from_secs(1);
    // They wrote it down between the two, rounding down.
    if let Ok(behind) = theirs.duration_since(after)
        && behind > second
    {
        return Some(Skew::Behind(behind));
    }
    if let Ok(ahead) = before.duration_since(theirs)
        && ahead > second
    {
        return Some(Skew::Ahead(ahead));
    }
    Some(Skew::Behind(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn clocks_are_told_apart_by_full_seconds() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis);
        // 1700000000 is Tue, 14 Nov 2023 22:13:20 GMT.
        let date = |second: u32| format!("Tue, 14 Nov 2023 22:13:{second} GMT");
        let equal = Some(Skew::Behind(Duration::ZERO));
        assert_eq!(skew(&date(20), at(100), at(300)), equal);
        assert_eq!(skew(&date(20), at(900), at(1800)), equal);
        let behind = Some(Skew::Behind(Duration::from_millis(9_700)));
        assert_eq!(skew(&date(30), at(100), at(300)), behind);
        let ahead = Some(Skew::Ahead(Duration::from_millis(60_100)));
        assert_eq!(skew(&date(20), at(60_100), at(60_300)), ahead);
        assert_eq!(skew("yesterday", at(0), at(0)), None);
    }
}
