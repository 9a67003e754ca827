//! `[clusters.*]` with `backend = "ecs"`: its keys, their defaults, and which of them fit together.

use std::collections::BTreeSet;
use std::time::Duration;

use super::table::Table;
use super::{description, values};

/// An ECS cluster and how its tasks are launched and reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcsCluster {
    /// The AWS Region.
    pub region: String,
    /// Short name or ARN.
    pub cluster: String,
    /// What the tasks run on. Default Fargate.
    pub launch: LaunchKind,
    /// The network mode of the cluster's task definitions. Default awsvpc, on external instances bridge.
    pub network_mode: NetworkMode,
    /// 1 to 16 with awsvpc, else none.
    pub subnets: Vec<String>,
    /// At most 5; empty means the VPC's default group.
    pub security_groups: Vec<String>,
    /// Whether tasks get a public address as well. Fargate only.
    pub assign_public_ip: bool,
    /// Which of its addresses the driver connects to. Default private.
    pub address: AddressKind,
    /// The capacity provider for on-demand; `None` asks for a launch type, which needs no provider to be
    /// associated with the cluster. Always there for Managed Instances.
    pub on_demand_provider: Option<String>,
    /// The capacity provider for Spot: on Fargate `FARGATE_SPOT` by default, elsewhere none.
    pub spot_provider: Option<String>,
    /// `None` is `LATEST`. Fargate only.
    pub platform_version: Option<String>,
    /// In place of the task definition's execution role.
    pub execution_role: Option<String>,
    /// Whether `aws ecs execute-command` works on the tasks. Default `false`.
    pub enable_execute_command: bool,
    /// Whether tasks get their task definition's tags. Default `false`.
    pub propagate_tags: bool,
    /// A profile of AWS's own files; `None` is AWS's usual chain.
    pub profile: Option<String>,
    /// The role to take before the first call, for a cluster in another account.
    pub assume_role: Option<AssumeRole>,
    /// From RunTask's answer to RUNNING. Default 10 min.
    pub start_timeout: Duration,
    /// How many times AWS's default quotas of API requests the account has: 1 to 100. Default 1.
    pub request_quota: u32,
}

impl EcsCluster {
    /// On Fargate, as a file says it that leaves out whatever it can.
    pub fn fargate(region: &str, cluster: &str, subnets: Vec<String>) -> Self {
        Self {
            region: region.to_owned(),
            cluster: cluster.to_owned(),
            launch: LaunchKind::Fargate,
            network_mode: NetworkMode::Awsvpc,
            subnets,
            security_groups: Vec::new(),
            assign_public_ip: false,
            address: AddressKind::Private,
            on_demand_provider: None,
            spot_provider: Some(FARGATE_SPOT.to_owned()),
            platform_version: None,
            execution_role: None,
            enable_execute_command: false,
            propagate_tags: false,
            profile: None,
            assume_role: None,
            start_timeout: START_TIMEOUT,
            request_quota: 1,
        }
    }

    /// Tells accounts and Regions apart, as far as the file does: what AWS counts requests by.
    pub fn account(&self) -> String {
        let role = self.assume_role.as_ref().map_or("", |role| role.arn.as_str());
        format!("{}|{}|{role}", self.region, self.profile.as_deref().unwrap_or_default())
    }
}

/// `launch = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchKind {
    /// `"fargate"`
    Fargate,
    /// `"ec2"`: container instances of the cluster's own, with a capacity provider or without.
    Ec2,
    /// `"managed-instances"`: EC2 instances that ECS manages, only through a capacity provider.
    ManagedInstances,
    /// `"external"`: ECS Anywhere.
    External,
}

/// `network_mode = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// `"awsvpc"`: a network interface for each task.
    Awsvpc,
    /// `"host"`: the instance's network.
    Host,
    /// `"bridge"`: ports of the instance are mapped to the containers'.
    Bridge,
}

/// `address = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// `"private"`
    Private,
    /// `"public"`
    Public,
}

/// `assume_role = { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumeRole {
    /// The role's ARN.
    pub arn: String,
    /// What the role's trust policy asks as `sts:ExternalId`.
    pub external_id: Option<String>,
    /// With placeholders such as `{job}`. Default `pointsman`.
    pub session_name: String,
    /// The facts that become session tags `pointsman:job` and so on. Default none.
    pub session_tags: BTreeSet<SessionFact>,
    /// 15 min to 12 h; `None` is STS's hour.
    pub duration: Option<Duration>,
}

/// What a session can be told of whom it is for. All are vouched for by GitLab or the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionFact {
    /// `[manager] name`
    Manager,
    /// The profile that decided.
    Profile,
    /// The project's id.
    Project,
    /// The pipeline's id.
    Pipeline,
    /// The job's id.
    Job,
}

impl SessionFact {
    /// All, with their spellings.
    pub const ALL: [(&'static str, Self); 5] = [
        ("manager", Self::Manager),
        ("profile", Self::Profile),
        ("project", Self::Project),
        ("pipeline", Self::Pipeline),
        ("job", Self::Job),
    ];

    /// Its spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Profile => "profile",
            Self::Project => "project",
            Self::Pipeline => "pipeline",
            Self::Job => "job",
        }
    }
}

/// The one provider of Spot that Fargate has.
const FARGATE_SPOT: &str = "FARGATE_SPOT";

const START_TIMEOUT: Duration = Duration::from_secs(600);

/// Characters of a session's name (AWS's limit).
pub const MAX_SESSION_NAME: usize = 64;

pub(super) fn read(table: &Table<'_>) -> Option<EcsCluster> {
    let region =
        table.required("region", "expected an AWS Region, such as \"eu-west-1\"", |value| {
            values::named(value)
        });
    let cluster = table.required("cluster", "expected the ECS cluster's name or ARN", values::text);
    let launch = table.optional("launch", |value| {
        let kinds = [
            ("fargate", LaunchKind::Fargate),
            ("ec2", LaunchKind::Ec2),
            ("managed-instances", LaunchKind::ManagedInstances),
            ("external", LaunchKind::External),
        ];
        values::choice(value, &kinds)
    });
    if table.has("launch") && launch.is_none() {
        // Which keys go with a kind that cannot be read nobody can tell, so none is called wrong.
        return None;
    }
    let launch = launch.unwrap_or(LaunchKind::Fargate);
    let network_mode = network_mode(table, launch);
    let subnets = subnets(table, network_mode);
    let security_groups = table.optional("security_groups", |value| {
        let groups = values::texts(value)?;
        if groups.len() <= 5 {
            return Ok(groups);
        }
        Err(format!("has {} security groups, RunTask takes at most 5", groups.len()))
    });
    if network_mode != NetworkMode::Awsvpc && table.has("security_groups") {
        table
            .report("security_groups", "are the instance's own in this network mode: leave it out");
    }
    let assign_public_ip = table.optional("assign_public_ip", values::flag).unwrap_or(false);
    if assign_public_ip && launch != LaunchKind::Fargate {
        table.report(
            "assign_public_ip",
            "is for Fargate only: ECS gives no public address to tasks on instances",
        );
    }
    let address = address(table, launch, network_mode, assign_public_ip);
    let (on_demand_provider, spot_provider) = providers(table, launch);
    let platform_version = table.optional("platform_version", values::text);
    if platform_version.is_some() && launch != LaunchKind::Fargate {
        table.report("platform_version", "is for Fargate only: leave it out");
    }
    let execution_role = table.optional("execution_role", values::role_arn);
    let enable_execute_command = table.optional("enable_execute_command", values::flag);
    let propagate_tags = table.optional("propagate_tags", values::flag);
    let profile = table.optional("profile", values::text);
    let assume_role = assume_role(table);
    let start_timeout = table.optional("start_timeout", values::duration);
    let request_quota = table.optional("request_quota", |value| values::number(value, 1..=100));
    Some(EcsCluster {
        region: region?,
        cluster: cluster?,
        launch,
        network_mode,
        subnets: subnets?,
        security_groups: security_groups.unwrap_or_default(),
        assign_public_ip,
        address,
        on_demand_provider,
        spot_provider,
        platform_version,
        execution_role,
        enable_execute_command: enable_execute_command.unwrap_or(false),
        propagate_tags: propagate_tags.unwrap_or(false),
        profile,
        assume_role,
        start_timeout: start_timeout.unwrap_or(START_TIMEOUT),
        request_quota: request_quota.and_then(|quota| u32::try_from(quota).ok()).unwrap_or(1),
    })
}

fn network_mode(table: &Table<'_>, launch: LaunchKind) -> NetworkMode {
    let modes: &[(&str, NetworkMode)] = match launch {
        LaunchKind::Fargate => &[("awsvpc", NetworkMode::Awsvpc)],
        LaunchKind::Ec2 => &[
            ("awsvpc", NetworkMode::Awsvpc),
            ("host", NetworkMode::Host),
            ("bridge", NetworkMode::Bridge),
        ],
        LaunchKind::ManagedInstances => {
            &[("awsvpc", NetworkMode::Awsvpc), ("host", NetworkMode::Host)]
        }
        LaunchKind::External => &[("bridge", NetworkMode::Bridge), ("host", NetworkMode::Host)],
    };
    let default = match launch {
        LaunchKind::External => NetworkMode::Bridge,
        LaunchKind::Fargate | LaunchKind::Ec2 | LaunchKind::ManagedInstances => NetworkMode::Awsvpc,
    };
    table.optional("network_mode", |value| values::choice(value, modes)).unwrap_or(default)
}

fn subnets(table: &Table<'_>, network_mode: NetworkMode) -> Option<Vec<String>> {
    if network_mode != NetworkMode::Awsvpc {
        if table.optional("subnets", values::texts).is_some() {
            table.report("subnets", "are the instance's own in this network mode: leave it out");
        }
        return Some(Vec::new());
    }
    table.required("subnets", "expected 1 to 16 subnets of one VPC", |value| {
        let subnets = values::texts(value)?;
        if (1..=16).contains(&subnets.len()) {
            return Ok(subnets);
        }
        Err(format!("has {} subnets, RunTask takes 1 to 16", subnets.len()))
    })
}

fn address(
    table: &Table<'_>,
    launch: LaunchKind,
    network_mode: NetworkMode,
    assign_public_ip: bool,
) -> AddressKind {
    let kinds = [("private", AddressKind::Private), ("public", AddressKind::Public)];
    let address = table.optional("address", |value| values::choice(value, &kinds));
    if address == Some(AddressKind::Public) {
        match (launch, network_mode) {
            (LaunchKind::Fargate, _) if !assign_public_ip => table.report(
                "address",
                "is `public`, but the tasks get no public address: set `assign_public_ip = true`",
            ),
            (LaunchKind::Ec2 | LaunchKind::ManagedInstances, NetworkMode::Awsvpc) => table.report(
                "address",
                "is `public`, but ECS gives no public address to a task's interface on instances: use `private`",
            ),
            (LaunchKind::External, _) => table.report(
                "address",
                "is `public`, but external instances are reached at the address in their attribute `pointsman.address`: leave it out",
            ),
            _ => {}
        }
    }
    address.unwrap_or(AddressKind::Private)
}

fn providers(table: &Table<'_>, launch: LaunchKind) -> (Option<String>, Option<String>) {
    let on_demand = table.optional("on_demand_provider", values::text);
    let spot = table.optional("spot_provider", values::text);
    match launch {
        LaunchKind::Fargate => {
            return (on_demand, Some(spot.unwrap_or_else(|| FARGATE_SPOT.to_owned())));
        }
        LaunchKind::ManagedInstances if !table.has("on_demand_provider") => table.report(
            "on_demand_provider",
            "is missing: Managed Instances are only reached through the cluster's capacity provider",
        ),
        LaunchKind::External => {
            for key in ["on_demand_provider", "spot_provider"] {
                if table.has(key) {
                    table.report(key, "does not go with external instances: they have no capacity providers");
                }
            }
        }
        LaunchKind::Ec2 | LaunchKind::ManagedInstances => {}
    }
    for (key, provider) in [("on_demand_provider", &on_demand), ("spot_provider", &spot)] {
        if provider.as_ref().is_some_and(|name| name.starts_with("FARGATE")) {
            table.report(key, "is a provider of Fargate, but `launch` says instances");
        }
    }
    (on_demand, spot)
}

fn assume_role(parent: &Table<'_>) -> Option<AssumeRole> {
    let is_there = parent.has("assume_role");
    let table = parent.table("assume_role");
    if !is_there {
        return None;
    }
    let arn = table.required("arn", "expected the ARN of the role to take", values::role_arn);
    let external_id = table.optional("external_id", |value| {
        let id = values::text(value)?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
        if (2..=1224).contains(&id.len()) && id.bytes().all(legal) {
            return Ok(id);
        }
        Err("is no external id: expected 2 to 1,224 of letters, digits and `_+=,.@:/-`".to_owned())
    });
    let session_name = table.optional("session_name", |value| {
        let name = values::text(value)?;
        session_name(&name).map(|()| name)
    });
    let session_tags = table.optional("session_tags", |value| {
        let array = value.as_array().ok_or("is no list of facts such as \"job\"")?;
        array.iter().map(|entry| values::choice(entry.get_ref(), &SessionFact::ALL)).collect()
    });
    let duration = table.optional("duration", |value| {
        let duration = values::duration(value)?;
        if (Duration::from_secs(15 * 60)..=Duration::from_secs(12 * 3600)).contains(&duration) {
            return Ok(duration);
        }
        Err("is out of range: STS offers 15 minutes to 12 hours, and no more than the role allows"
            .to_owned())
    });
    table.finish(&description::ASSUME_ROLE);
    Some(AssumeRole {
        arn: arn?,
        external_id,
        session_name: session_name.unwrap_or_else(|| "pointsman".to_owned()),
        session_tags: session_tags.unwrap_or_default(),
        duration,
    })
}

/// Checks a session's name with placeholders: what is left of it without them must be legal (STS API
/// reference, AssumeRole, `RoleSessionName`).
fn session_name(name: &str) -> Result<(), String> {
    let mut rest = name.to_owned();
    for (fact, _) in SessionFact::ALL {
        rest = rest.replace(&format!("{{{fact}}}"), "");
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if rest.contains(['{', '}']) {
        let names = crate::spelling::list(SessionFact::ALL.map(|(name, _)| format!("{{{name}}}")));
        return Err(format!("is `{name}`, whose placeholders can be {names}"));
    }
    if !rest.bytes().all(legal) || !(2..=MAX_SESSION_NAME).contains(&name.len()) {
        return Err(format!(
            "is `{name}`, expected 2 to {MAX_SESSION_NAME} of letters, digits and `_+=,.@-`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::{ClusterBackend, read as read_file};

    /// The cluster of a file with these keys, or its mistakes.
    fn cluster(keys: &str) -> Result<EcsCluster, Vec<String>> {
        let file = format!(
            "[state]\ndirectory = \"/s\"\n[clusters.c]\nbackend = \"ecs\"\nregion = \"eu-west-1\"\ncluster = \"c\"\n{keys}\n\
             [task_definitions.t]\nx86_64 = \"t\"\nssh = {{ server = \"agent\" }}\n\
             [policies.p]\ncomponent = \"p.wasm\"\nsha256 = \"{}\"\n\
             [profiles.p]\npolicies = [\"p\"]\nbounds = {{ clusters = [\"c\"], task_definitions = [\"t\"], max_cpu = \"2\", max_memory = \"8GiB\" }}\n",
            "0".repeat(64)
        );
        match read_file(&file, Path::new("/")) {
            Ok(settings) => match &settings.clusters["c"].backend {
                ClusterBackend::Ecs(cluster) => Ok((**cluster).clone()),
                ClusterBackend::Local(_) => unreachable!("the backend is ecs"),
            },
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn defaults_are_fargates() {
        let cluster = cluster("subnets = [\"subnet-1\"]").unwrap();
        assert_eq!(cluster.launch, LaunchKind::Fargate);
        assert_eq!(cluster.network_mode, NetworkMode::Awsvpc);
        assert_eq!(cluster.address, AddressKind::Private);
        assert_eq!(cluster.spot_provider.as_deref(), Some("FARGATE_SPOT"));
        assert_eq!(cluster.assume_role, None);
        assert_eq!(cluster, EcsCluster::fargate("eu-west-1", "c", vec!["subnet-1".to_owned()]));
    }

    #[test]
    fn other_kinds_have_their_own() {
        let external = cluster("launch = \"external\"").unwrap();
        assert_eq!(external.network_mode, NetworkMode::Bridge);
        assert_eq!((external.subnets.len(), external.spot_provider), (0, None));
        let ec2 =
            cluster("launch = \"ec2\"\nnetwork_mode = \"host\"\naddress = \"public\"").unwrap();
        assert_eq!(ec2.address, AddressKind::Public);
        let managed =
            "launch = \"managed-instances\"\nsubnets = [\"subnet-1\"]\non_demand_provider = \"mi\"";
        assert_eq!(cluster(managed).unwrap().on_demand_provider.as_deref(), Some("mi"));
    }

    #[test]
    fn a_role_to_assume_is_read() {
        let role = cluster(
            "subnets = [\"s\"]\n[clusters.c.assume_role]\narn = \"arn:aws:iam::123456789012:role/ci\"\nexternal_id = \"acme\"\nsession_name = \"ci-{job}\"\nsession_tags = [\"job\", \"project\"]\nduration = \"30m\"",
        )
        .unwrap()
        .assume_role
        .unwrap();
        assert_eq!(role.external_id.as_deref(), Some("acme"));
        assert_eq!(role.session_name, "ci-{job}");
        assert_eq!(role.session_tags, [SessionFact::Project, SessionFact::Job].into());
        assert_eq!(role.duration, Some(Duration::from_secs(1800)));
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let arn = "arn = \"arn:aws:iam::123456789012:role/ci\"";
        for (keys, said) in [
            ("subnets = []", "has 0 subnets"),
            ("launch = \"fargat\"\nsubnets = [\"s\"]", "did you mean `fargate`?"),
            ("subnets = [\"s\"]\nnetwork_mode = \"bridge\"", "expected one of `awsvpc`"),
            ("subnets = [\"s\"]\naddress = \"public\"", "set `assign_public_ip = true`"),
            (
                "launch = \"ec2\"\nsubnets = [\"s\"]\nassign_public_ip = true",
                "assign_public_ip: is for Fargate only",
            ),
            (
                "launch = \"ec2\"\nsubnets = [\"s\"]\naddress = \"public\"",
                "no public address to a task's interface",
            ),
            (
                "launch = \"ec2\"\nnetwork_mode = \"host\"\nsubnets = [\"s\"]",
                "subnets: are the instance's",
            ),
            (
                "launch = \"ec2\"\nnetwork_mode = \"host\"\nsecurity_groups = [\"s\"]",
                "security_groups: are the instance's",
            ),
            (
                "launch = \"external\"\nplatform_version = \"1.4.0\"",
                "platform_version: is for Fargate",
            ),
            ("launch = \"external\"\nspot_provider = \"x\"", "have no capacity providers"),
            ("launch = \"external\"\naddress = \"public\"", "pointsman.address"),
            ("launch = \"managed-instances\"\nsubnets = [\"s\"]", "on_demand_provider: is missing"),
            (
                "launch = \"ec2\"\nsubnets = [\"s\"]\non_demand_provider = \"FARGATE\"",
                "is a provider of Fargate",
            ),
            ("subnets = [\"s\"]\nexecution_role = \"ci\"", "expected `arn:aws:iam::"),
            ("subnets = [\"s\"]\nassume_role = {}", "assume_role.arn: is missing"),
            (
                &format!("subnets = [\"s\"]\nassume_role = {{ {arn}, external_id = \"a b\" }}"),
                "is no external id",
            ),
            (
                &format!(
                    "subnets = [\"s\"]\nassume_role = {{ {arn}, session_name = \"{{jobb}}\" }}"
                ),
                "whose placeholders can be `{manager}`",
            ),
            (
                &format!("subnets = [\"s\"]\nassume_role = {{ {arn}, session_name = \"a b\" }}"),
                "expected 2 to 64 of letters",
            ),
            (
                &format!("subnets = [\"s\"]\nassume_role = {{ {arn}, session_tags = [\"jop\"] }}"),
                "did you mean `job`?",
            ),
            (
                &format!("subnets = [\"s\"]\nassume_role = {{ {arn}, duration = \"5m\" }}"),
                "STS offers 15 minutes",
            ),
            (
                &format!("subnets = [\"s\"]\nassume_role = {{ {arn}, external = \"x\" }}"),
                "did you mean `external_id`?",
            ),
        ] {
            let problems = cluster(keys).expect_err(keys);
            assert!(problems.iter().any(|problem| problem.contains(said)), "{keys}: {problems:?}");
            assert_eq!(problems.len(), 1, "{keys}: {problems:?}");
        }
    }
}
