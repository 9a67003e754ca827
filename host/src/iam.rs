//! The least that the driver's credentials must be allowed, told from the settings file. Pure.
//!
//! Which resources and condition keys an action has is told by the Service Authorization Reference
//! (<https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html>
//! and its neighbours for EC2, IAM and STS); how they go together, by the ECS developer guide's "Identity-based
//! policy examples".

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::settings::{AddressKind, ClusterBackend, EcsCluster, NetworkMode, Profile, Settings};
use crate::spelling;

/// Characters of a managed policy, white space left out (IAM user guide, "IAM and AWS STS quotas").
pub const MAX_MANAGED: usize = 6144;

/// Whose policy is asked for, and what the settings file does not say.
#[derive(Debug, Default)]
pub struct Asked {
    /// Only what these profiles need; empty is the whole file.
    pub profiles: Vec<String>,
    /// The policy of this role of an `assume_role`; `None` is the driver's own credentials'.
    pub role: Option<String>,
    /// The account of clusters that are not given by ARN.
    pub account: Option<String>,
    /// `aws`, `aws-cn` and so on, where neither an ARN nor the Region tells.
    pub partition: Option<String>,
    /// Roles that ECS task definitions name.
    pub pass_roles: Vec<String>,
    /// Whether `doctor` shall see all that it looks at.
    pub doctor: bool,
}

/// Why there is no policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IamError {
    /// A name that the file lacks.
    #[error("the settings file has no profile `{name}`: {instead}")]
    Profile {
        /// As given.
        name: String,
        /// What there is.
        instead: String,
    },
    /// No cluster is reached by such a role.
    #[error("no cluster has `{role}` as its `assume_role`: {instead}")]
    Role {
        /// As given.
        role: String,
        /// What there is.
        instead: String,
    },
    /// The account of a cluster cannot be told.
    #[error(
        "the account of cluster `{cluster}` cannot be told: it is given by its short name, and its roles are of no account or of several"
    )]
    Account {
        /// In the settings file.
        cluster: String,
    },
    /// Nothing is on ECS.
    #[error("no cluster that was asked for is on ECS")]
    Nothing,
}

/// An IAM policy.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: String,
    effect: &'static str,
    action: BTreeSet<&'static str>,
    resource: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'static str, BTreeMap<&'static str, BTreeSet<String>>>,
}

impl Statement {
    fn new(
        sid: impl Into<String>,
        actions: impl IntoIterator<Item = &'static str>,
        resources: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            sid: sid.into(),
            effect: "Allow",
            action: actions.into_iter().collect(),
            resource: resources.into_iter().collect(),
            condition: BTreeMap::new(),
        }
    }

    fn when(
        mut self,
        operator: &'static str,
        key: &'static str,
        values: impl IntoIterator<Item = String>,
    ) -> Self {
        self.condition.entry(operator).or_default().insert(key, values.into_iter().collect());
        self
    }
}

/// A policy, and what else is to be known.
#[derive(Debug)]
pub struct Answer {
    /// The policy.
    pub document: Document,
    /// The roles by which the asked clusters in other accounts are reached, whose own policies these are not.
    pub roles: BTreeSet<String>,
    /// Whether tasks are run with it, so that `iam:PassRole` of the task definitions' roles matters.
    pub runs_tasks: bool,
}

/// A cluster as AWS's policies name it.
#[derive(Debug, Default)]
struct Place {
    /// Task definitions that run there.
    definitions: BTreeSet<String>,
    instances: bool,
    interfaces: bool,
    ec2_instances: bool,
    region: String,
}

/// The policy.
///
/// # Errors
///
/// Names what is not in the settings file, or cannot be told from it.
pub fn policy(settings: &Settings, asked: &Asked) -> Result<Answer, IamError> {
    let profiles = profiles(settings, asked)?;
    if let Some(role) = &asked.role {
        known_role(settings, role)?;
    }
    let mut roles = BTreeSet::new();
    let mut assumed: BTreeMap<String, bool> = BTreeMap::new();
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut passed: BTreeSet<String> = BTreeSet::new();
    for (name, ecs) in clusters(settings, asked, &profiles) {
        match (&asked.role, &ecs.assume_role) {
            // The calls of such a cluster are the role's.
            (None, Some(role)) => {
                let tags = assumed.entry(role.arn.clone()).or_default();
                *tags |= !role.session_tags.is_empty();
                roles.insert(role.arn.clone());
                continue;
            }
            (Some(asked), role) if role.as_ref().map(|role| &role.arn) != Some(asked) => continue,
            _ => {}
        }
        let using: Vec<&Profile> = profiles
            .iter()
            .map(|(_, profile)| *profile)
            .filter(|profile| profile.bounds.clusters.contains(name))
            .collect();
        let (partition, account) = owner(settings, asked, name, ecs, &using)?;
        let arn = cluster_arn(ecs, &partition, &account);
        let place = places.entry(arn).or_default();
        place.region.clone_from(&ecs.region);
        let awsvpc = ecs.network_mode == NetworkMode::Awsvpc;
        place.interfaces |= awsvpc && ecs.address == AddressKind::Public;
        place.instances |= !awsvpc;
        place.ec2_instances |= !awsvpc && ecs.launch != crate::settings::LaunchKind::External;
        let family = |text: &String| definition_arn(text, &partition, &ecs.region, &account);
        for profile in &using {
            for name in &profile.bounds.task_definitions {
                let definition = settings.task_definitions.get(name);
                let families = definition.into_iter().flat_map(|found| found.by_arch.values());
                place.definitions.extend(families.map(family));
            }
            let arns = profile.bounds.roles.iter().filter_map(|role| settings.roles.get(role));
            // A role is passed within its account only.
            passed.extend(
                arns.map(|role| &role.arn).filter(|arn| account_of(arn) == Some(&account)).cloned(),
            );
        }
        if !using.is_empty() {
            passed.extend(ecs.execution_role.clone());
        }
    }
    if places.is_empty() && assumed.is_empty() {
        return Err(IamError::Nothing);
    }
    if !places.is_empty() {
        passed.extend(asked.pass_roles.iter().cloned());
    }
    let runs_tasks = places.values().any(|place| !place.definitions.is_empty());
    let mut statement = on_tasks(&places);
    if !passed.is_empty() {
        let service = ["ecs-tasks.amazonaws.com".to_owned()];
        statement.push(Statement::new("PassRolesToTasks", ["iam:PassRole"], passed).when(
            "StringEquals",
            "iam:PassedToService",
            service,
        ));
    }
    statement.extend(addresses(&places));
    statement.extend(sessions(&assumed));
    if asked.doctor && !places.is_empty() {
        statement.extend(examination(&places));
    }
    Ok(Answer { document: Document { version: "2012-10-17", statement }, roles, runs_tasks })
}

fn profiles<'s>(
    settings: &'s Settings,
    asked: &Asked,
) -> Result<Vec<(&'s String, &'s Profile)>, IamError> {
    if asked.profiles.is_empty() {
        return Ok(settings.profiles.iter().collect());
    }
    let find = |name: &String| {
        settings.profiles.get_key_value(name).ok_or_else(|| {
            let names: Vec<&str> = settings.profiles.keys().map(String::as_str).collect();
            IamError::Profile { name: name.clone(), instead: spelling::instead(name, names) }
        })
    };
    asked.profiles.iter().map(find).collect()
}

fn known_role(settings: &Settings, role: &str) -> Result<(), IamError> {
    let arns: Vec<&str> = settings
        .clusters
        .values()
        .filter_map(|cluster| match &cluster.backend {
            ClusterBackend::Ecs(ecs) => Some(ecs.assume_role.as_ref()?.arn.as_str()),
            ClusterBackend::Local(_) => None,
        })
        .collect();
    if arns.contains(&role) {
        return Ok(());
    }
    Err(IamError::Role { role: role.to_owned(), instead: spelling::instead(role, arns) })
}

/// All of the file, since a sweep looks everywhere; or those of the profiles that were asked for.
fn clusters<'s>(
    settings: &'s Settings,
    asked: &Asked,
    profiles: &[(&String, &Profile)],
) -> Vec<(&'s String, &'s EcsCluster)> {
    let wanted = |name: &String| {
        asked.profiles.is_empty()
            || profiles.iter().any(|(_, profile)| profile.bounds.clusters.contains(name))
    };
    settings
        .clusters
        .iter()
        .filter(|(name, _)| wanted(name))
        .filter_map(|(name, cluster)| match &cluster.backend {
            ClusterBackend::Ecs(ecs) => Some((name, ecs.as_ref())),
            ClusterBackend::Local(_) => None,
        })
        .collect()
}

/// `arn:aws:ecs:…` in parts.
fn parts(arn: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    (parts.len() == 6 && parts.first() == Some(&"arn")).then_some(parts)
}

fn account_of(arn: &str) -> Option<&str> {
    parts(arn)?.get(4).copied().filter(|account| !account.is_empty())
}

fn partition_of(arn: &str) -> Option<&str> {
    parts(arn)?.get(1).copied()
}

/// The partition and the account that a cluster is in.
fn owner(
    settings: &Settings,
    asked: &Asked,
    name: &str,
    ecs: &EcsCluster,
    using: &[&Profile],
) -> Result<(String, String), IamError> {
    let mut arns: Vec<&str> = vec![&ecs.cluster];
    arns.extend(ecs.assume_role.as_ref().map(|role| role.arn.as_str()));
    arns.extend(ecs.execution_role.as_deref());
    let roles: Vec<&str> = using
        .iter()
        .flat_map(|profile| &profile.bounds.roles)
        .filter_map(|role| Some(settings.roles.get(role)?.arn.as_str()))
        .collect();
    let own = arns.iter().find_map(|arn| account_of(arn)).or(asked.account.as_deref());
    let account = own.or_else(|| {
        // Tasks take roles of their own account only: where all are of one, it is the cluster's.
        let accounts: BTreeSet<&str> = roles.iter().filter_map(|arn| account_of(arn)).collect();
        let mut accounts = accounts.into_iter();
        accounts.next().filter(|_| accounts.next().is_none())
    });
    let account = account.ok_or_else(|| IamError::Account { cluster: name.to_owned() })?;
    arns.extend(roles);
    let told = asked.partition.as_deref();
    let partition = told
        .or_else(|| arns.iter().find_map(|arn| partition_of(arn)))
        .unwrap_or_else(|| partition_of_region(&ecs.region));
    Ok((partition.to_owned(), account.to_owned()))
}

/// As the SDKs tell it (`partitions.json` of AWS's endpoint rules).
fn partition_of_region(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ if region.starts_with("us-isob-") => "aws-iso-b",
        _ if region.starts_with("us-isof-") => "aws-iso-f",
        _ if region.starts_with("us-iso-") => "aws-iso",
        _ if region.starts_with("eu-isoe-") => "aws-iso-e",
        _ if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

fn cluster_arn(ecs: &EcsCluster, partition: &str, account: &str) -> String {
    if parts(&ecs.cluster).is_some() {
        return ecs.cluster.clone();
    }
    format!("arn:{partition}:ecs:{}:{account}:cluster/{}", ecs.region, ecs.cluster)
}

/// A definition without a revision is any of its family's: ECS takes the latest.
fn definition_arn(text: &str, partition: &str, region: &str, account: &str) -> String {
    let arn = match parts(text) {
        Some(_) => text.to_owned(),
        None => format!("arn:{partition}:ecs:{region}:{account}:task-definition/{text}"),
    };
    let name = arn.rsplit('/').next().unwrap_or_default();
    if name.contains(':') { arn } else { format!("{arn}:*") }
}

/// The same of what is in a cluster: its tasks, its container instances.
fn inside(cluster: &str, what: &str) -> String {
    format!("{}/*", cluster.replacen(":cluster/", &format!(":{what}/"), 1))
}

fn on_tasks(places: &BTreeMap<String, Place>) -> Vec<Statement> {
    let mut statements = Vec::new();
    if places.is_empty() {
        return statements;
    }
    // Clusters with the same definitions share a statement.
    let mut by_definitions: BTreeMap<&BTreeSet<String>, BTreeSet<String>> = BTreeMap::new();
    for (arn, place) in places.iter().filter(|(_, place)| !place.definitions.is_empty()) {
        by_definitions.entry(&place.definitions).or_default().insert(arn.clone());
    }
    let many = by_definitions.len() > 1;
    let mut running = BTreeSet::new();
    for (index, (definitions, clusters)) in by_definitions.into_iter().enumerate() {
        let number = if many { (index + 1).to_string() } else { String::new() };
        running.extend(clusters.iter().cloned());
        statements.push(
            Statement::new(
                format!("RunTasks{number}"),
                ["ecs:RunTask"],
                definitions.iter().cloned(),
            )
            .when("ArnEquals", "ecs:cluster", clusters),
        );
    }
    if !running.is_empty() {
        // RunTask with tags asks for it, on a task that is not there yet.
        statements.push(
            Statement::new(
                "TagNewTasks",
                ["ecs:TagResource"],
                running.iter().map(|cluster| inside(cluster, "task")),
            )
            .when("StringEquals", "ecs:CreateAction", ["RunTask".to_owned()]),
        );
    }
    statements.push(Statement::new(
        "FollowAndStopTasks",
        ["ecs:DescribeTasks", "ecs:StopTask"],
        places.keys().map(|cluster| inside(cluster, "task")),
    ));
    statements.push(
        // It has no resource of a task's: the cluster is in the condition.
        Statement::new("ListTasks", ["ecs:ListTasks"], ["*".to_owned()]).when(
            "ArnEquals",
            "ecs:cluster",
            places.keys().cloned(),
        ),
    );
    statements
}

/// What is asked for where DescribeTasks does not say the address.
fn addresses(places: &BTreeMap<String, Place>) -> Vec<Statement> {
    let mut statements = Vec::new();
    let instances: Vec<String> = places
        .iter()
        .filter(|(_, place)| place.instances)
        .map(|(cluster, _)| inside(cluster, "container-instance"))
        .collect();
    if !instances.is_empty() {
        statements.push(Statement::new(
            "FindInstances",
            ["ecs:DescribeContainerInstances"],
            instances,
        ));
    }
    let mut actions = BTreeSet::new();
    let mut regions = BTreeSet::new();
    for place in places.values() {
        for (needed, action) in [
            (place.interfaces, "ec2:DescribeNetworkInterfaces"),
            (place.ec2_instances, "ec2:DescribeInstances"),
        ] {
            if needed {
                actions.insert(action);
                regions.insert(place.region.clone());
            }
        }
    }
    if !actions.is_empty() {
        // EC2's descriptions have no resources, but each request has its Region.
        statements.push(Statement::new("FindAddresses", actions, ["*".to_owned()]).when(
            "StringEquals",
            "aws:RequestedRegion",
            regions,
        ));
    }
    statements
}

/// What `doctor` looks at beside (docs/troubleshooting.md, "Permissions for the doctor").
fn examination(places: &BTreeMap<String, Place>) -> [Statement; 3] {
    let network = [
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcEndpoints",
    ];
    // Those of a task definition have no resource; IAM's simulation is asked in a Region of its own.
    let others = [
        "ecs:DescribeTaskDefinition",
        "iam:SimulatePrincipalPolicy",
        "servicequotas:GetServiceQuota",
    ];
    let regions = places.values().map(|place| place.region.clone());
    [
        Statement::new("ExamineClusters", ["ecs:DescribeClusters"], places.keys().cloned()),
        Statement::new("ExamineNetworks", network, ["*".to_owned()]).when(
            "StringEquals",
            "aws:RequestedRegion",
            regions,
        ),
        Statement::new("Examine", others, ["*".to_owned()]),
    ]
}

fn sessions(assumed: &BTreeMap<String, bool>) -> Vec<Statement> {
    let mut statements = Vec::new();
    if !assumed.is_empty() {
        statements.push(Statement::new("TakeRoles", ["sts:AssumeRole"], assumed.keys().cloned()));
    }
    let tagged: Vec<String> =
        assumed.iter().filter(|(_, tags)| **tags).map(|(role, _)| role.clone()).collect();
    if !tagged.is_empty() {
        statements.push(Statement::new("TagSessions", ["sts:TagSession"], tagged));
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_without_a_revision_are_any_of_the_family() {
        let arn = |text| definition_arn(text, "aws", "eu-west-1", "123456789012");
        let of = "arn:aws:ecs:eu-west-1:123456789012:task-definition";
        for (text, expected) in [
            ("ci", format!("{of}/ci:*")),
            ("ci:7", format!("{of}/ci:7")),
            (&*format!("{of}/ci"), format!("{of}/ci:*")),
            (&*format!("{of}/ci:7"), format!("{of}/ci:7")),
        ] {
            assert_eq!(arn(text), expected);
        }
    }

    #[test]
    fn what_is_in_a_cluster_has_its_name() {
        let cluster = "arn:aws-cn:ecs:cn-north-1:123456789012:cluster/ci";
        assert_eq!(inside(cluster, "task"), "arn:aws-cn:ecs:cn-north-1:123456789012:task/ci/*");
        assert_eq!(partition_of_region("cn-north-1"), "aws-cn");
        assert_eq!(partition_of_region("us-gov-west-1"), "aws-us-gov");
        assert_eq!(partition_of_region("eu-west-1"), "aws");
    }
}
