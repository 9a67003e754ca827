//! Whether an ECS task definition fits its entry in the settings: pure.

use super::cluster::not_looked_at;
use super::finding::{Finding, Severity, list};
use crate::backend::survey::{SeenContainer, SeenDefinition};
use crate::backend::{BackendError, Cause};
use crate::placement::Arch;
use crate::settings::{EcsCluster, LaunchKind, NetworkMode, SshServer, TaskDefinition};

/// One architecture of an entry, on one cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'e> {
    /// The catalog's name.
    pub name: &'e str,
    /// The entry.
    pub definition: &'e TaskDefinition,
    /// Which of its ECS task definitions.
    pub arch: Arch,
    /// As ECS knows it.
    pub family: &'e str,
    /// Where it is launched.
    pub cluster: &'e EcsCluster,
    /// The largest MiB that a profile allows a job there.
    pub max_memory_mib: u32,
}

/// What DescribeTaskDefinition's answer says of `entry`.
pub(super) fn judge(
    about: &str,
    entry: &Entry<'_>,
    seen: &Result<SeenDefinition, BackendError>,
) -> Vec<Finding> {
    let region = &entry.cluster.region;
    let family = entry.family;
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) if error.cause == Cause::Denied => {
            return vec![not_looked_at(
                "definition-not-seen",
                about,
                "ecs:DescribeTaskDefinition",
                error,
            )];
        }
        Err(error) if error.cause == Cause::NotFound => {
            let finding = Finding::failure(
                "definition-missing",
                about,
                format!(
                    "ECS has no active task definition {family} in {region}: {}",
                    error.message
                ),
            )
            .why("every RunTask with it ends with \"Unable to describe task definition\"")
            .run(format!("aws ecs list-task-definition-families --region {region} --status ACTIVE"))
            .change(format!(
                "correct `{}` of [task_definitions.{}], or register it",
                entry.arch, entry.name
            ));
            return vec![finding];
        }
        Err(error) => {
            let finding = Finding::failure(
                "definition-unreadable",
                about,
                format!("ECS does not tell of task definition {family}: {error}"),
            )
            .why("whether jobs can be started with it is not known")
            .change(error.hint.clone().unwrap_or_else(|| "try again".to_owned()));
            return vec![finding];
        }
    };
    let judge = Judge { about, entry, seen };
    if seen.status != "ACTIVE" {
        return vec![judge.inactive()];
    }
    let mut findings: Vec<Finding> = [
        judge.architecture(),
        judge.operating_system(),
        judge.network_mode(),
        judge.compatibility(),
        judge.execute_command(),
    ]
    .into_iter()
    .flatten()
    .collect();
    match seen.containers.iter().find(|container| container.name == entry.definition.container) {
        None => findings.push(judge.no_container()),
        Some(container) => findings.extend(judge.container(container)),
    }
    findings.extend(judge.execution_role());
    findings.extend(judge.logs());
    if findings.iter().all(|finding| finding.severity == Severity::Note) {
        let container = &entry.definition.container;
        findings.insert(
            0,
            Finding::ok(
                "definition",
                about,
                format!(
                    "{} is ACTIVE, for {}, with container {container}",
                    short(&seen.arn),
                    entry.arch
                ),
            ),
        );
    }
    findings
}

/// `family:revision`
fn short(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

struct Judge<'j> {
    about: &'j str,
    entry: &'j Entry<'j>,
    seen: &'j SeenDefinition,
}

impl Judge<'_> {
    fn failure(&self, name: &'static str, what: String) -> Finding {
        Finding::failure(name, self.about, what)
    }

    fn warning(&self, name: &'static str, what: String) -> Finding {
        Finding::warning(name, self.about, what)
    }

    fn register(&self, change: &str) -> String {
        format!("register a new revision of {} {change}", self.entry.family)
    }

    fn inactive(&self) -> Finding {
        let name = short(&self.seen.arn);
        self.failure("definition-inactive", format!("task definition {name} is {}", self.seen.status))
            .why("ECS starts no task with a revision that was deregistered")
            .change(format!(
                "name an active revision in `{}` of [task_definitions.{}]; the family alone always means the newest active one",
                self.entry.arch, self.entry.name
            ))
            .run(format!(
                "aws ecs list-task-definitions --region {} --status ACTIVE --family-prefix {}",
                self.entry.cluster.region,
                name.split(':').next().unwrap_or(name)
            ))
    }

    fn architecture(&self) -> Option<Finding> {
        let found = self.seen.architecture.as_deref().unwrap_or("X86_64");
        let wanted = match self.entry.arch {
            Arch::X86_64 => "X86_64",
            Arch::Arm64 => "ARM64",
        };
        (found != wanted).then(|| {
            let (entry, arch) = (self.entry.name, self.entry.arch);
            self.failure(
                "definition-architecture",
                format!("{} is for {found}, but it is the `{arch}` of [task_definitions.{entry}]", short(&self.seen.arn)),
            )
            .why("jobs would run on another architecture than their placement says, and an image that lacks it does not start")
            .change(self.register(&format!("with `\"runtimePlatform\": {{\"cpuArchitecture\": \"{wanted}\"}}`")))
            .change(format!("or name it under the other architecture of [task_definitions.{entry}]"))
        })
    }

    fn operating_system(&self) -> Option<Finding> {
        let system = self.seen.operating_system.as_deref().unwrap_or("LINUX");
        (system != "LINUX").then(|| {
            self.failure("definition-system", format!("{} is for {system}", short(&self.seen.arn)))
                .why("Pointsman runs scripts of bash and sh over SSH, on Linux only")
                .change(self.register("with `\"operatingSystemFamily\": \"LINUX\"`"))
        })
    }

    fn network_mode(&self) -> Option<Finding> {
        let found = self.seen.network_mode.as_deref().unwrap_or("bridge");
        let wanted = match self.entry.cluster.network_mode {
            NetworkMode::Awsvpc => "awsvpc",
            NetworkMode::Host => "host",
            NetworkMode::Bridge => "bridge",
        };
        (found != wanted).then(|| {
            self.failure(
                "definition-network-mode",
                format!(
                    "{} has network mode {found}, the cluster's `network_mode` is {wanted}",
                    short(&self.seen.arn)
                ),
            )
            .why("RunTask refuses it, or the driver looks for the task at the wrong address")
            .change(self.register(&format!("with `\"networkMode\": \"{wanted}\"`")))
            .change("or set `network_mode` of the cluster (Fargate has awsvpc only)")
        })
    }

    fn compatibility(&self) -> Option<Finding> {
        let wanted = match self.entry.cluster.launch {
            LaunchKind::Fargate => "FARGATE",
            LaunchKind::Ec2 => "EC2",
            LaunchKind::ManagedInstances => "MANAGED_INSTANCES",
            LaunchKind::External => "EXTERNAL",
        };
        let listed = &self.seen.compatibilities;
        (!listed.is_empty() && !listed.iter().any(|name| name == wanted)).then(|| {
            self.failure(
                "definition-compatibility",
                format!("{} is made for {}, not for {wanted}", short(&self.seen.arn), list(listed)),
            )
            .why("RunTask refuses it on this cluster")
            .change(self.register(&format!("with `\"requiresCompatibilities\": [\"{wanted}\"]`")))
        })
    }

    fn execute_command(&self) -> Option<Finding> {
        (self.entry.cluster.enable_execute_command && self.seen.task_role.is_none()).then(|| {
            self.warning(
                "definition-execute-command",
                format!(
                    "{} has no task role, but the cluster has `enable_execute_command = true`",
                    short(&self.seen.arn)
                ),
            )
            .why("RunTask refuses it for every placement without a role of its own")
            .change(self.register(
                "with a `taskRoleArn` that has the four ssmmessages actions of docs/clusters.md",
            ))
            .change("or set `enable_execute_command = false`")
        })
    }

    fn no_container(&self) -> Finding {
        let names: Vec<String> =
            self.seen.containers.iter().map(|container| container.name.clone()).collect();
        let wanted = &self.entry.definition.container;
        self.failure(
            "container-missing",
            format!("{} has no container {wanted}; it has {}", short(&self.seen.arn), list(&names)),
        )
        .why("RunTask refuses it: \"Override for container named … is not a container in the TaskDefinition\"; the driver gives the SSH key to that container")
        .change(format!("set `container` of [task_definitions.{}] to the one with the SSH server", self.entry.name))
        .change(format!("or {}", self.register(&format!("whose container is called {wanted}"))))
    }

    fn container(&self, container: &SeenContainer) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (entry, definition) = (self.entry.name, self.entry.definition);
        let port = definition.ssh.port;
        let is_mapped = container.ports.contains(&port);
        let ports: Vec<String> = container.ports.iter().map(u16::to_string).collect();
        if self.entry.cluster.network_mode == NetworkMode::Bridge && !is_mapped {
            findings.push(
                self.failure("port-not-mapped", format!("port {port} of container {} is not mapped", container.name))
                    .why("in bridge mode a port is reached only through a port of its host, so the driver cannot connect")
                    .change(self.register(&format!("with `\"portMappings\": [{{\"containerPort\": {port}, \"hostPort\": 0}}]` for the container"))),
            );
        } else if !is_mapped && !ports.is_empty() {
            findings.push(
                self.warning(
                    "port-other",
                    format!("the SSH port of [task_definitions.{entry}] is {port}, container {} maps {}", container.name, list(&ports)),
                )
                .why("with its own network interface every port of a task is open to its security groups, mapped or not; but the server may listen on the mapped one, and connections to the other are refused")
                .change(format!("set `ssh.port` of [task_definitions.{entry}] to the port that the server listens on"))
                .change(self.register("with that port")),
            );
        }
        if !container.essential {
            findings.push(
                self.warning("container-not-essential", format!("container {} is not essential", container.name))
                    .why("when its SSH server ends, the task goes on and costs money until it is stopped")
                    .change(self.register("with `\"essential\": true` for the container")),
            );
        }
        if container.is_read_only {
            findings.push(
                self.warning("container-read-only", format!("container {} has a read-only root file system", container.name))
                    .why("scripts write to the builds directory and to the home directory, and stock sshd needs its keys written")
                    .change(self.register("with `\"readonlyRootFilesystem\": false`, or with volumes for these directories")),
            );
        }
        if let Some(limit) = container.memory_limit
            && limit < self.entry.max_memory_mib
        {
            findings.push(
                self.warning(
                    "container-memory-limit",
                    format!("container {} has a hard limit of {limit} MiB, while profiles allow jobs up to {} MiB", container.name, self.entry.max_memory_mib),
                )
                .why("a placement sets the task's memory and not the container's: scripts above the limit are killed whatever was asked and paid for")
                .change(self.register("without `memory` for the container (`memoryReservation` does no harm)")),
            );
        }
        findings
    }

    /// From whichever container needs it.
    fn execution_role(&self) -> Vec<Finding> {
        if self.seen.execution_role.is_some() || self.entry.cluster.execution_role.is_some() {
            return Vec::new();
        }
        let needs = |container: &&SeenContainer| reason_for_execution_role(container).is_some();
        let Some(container) = self.seen.containers.iter().find(needs) else { return Vec::new() };
        let reason = reason_for_execution_role(container).unwrap_or_default();
        let finding = self
            .failure(
                "execution-role-missing",
                format!("{} has no execution role, but container {} {reason}", short(&self.seen.arn), container.name),
            )
            .why("ECS itself fetches images and secrets and writes logs by the execution role: without one the task stops with ResourceInitializationError or CannotPullContainerError")
            .change(self.register("with an `executionRoleArn` that has AmazonECSTaskExecutionRolePolicy"))
            .change("or set `execution_role` of the cluster");
        vec![finding]
    }

    fn logs(&self) -> Option<Finding> {
        let container =
            self.seen.containers.iter().find(|it| it.name == self.entry.definition.container)?;
        match container.log_driver.as_deref() {
            None => {
                let server = match self.entry.definition.ssh.server {
                    SshServer::Openssh => "sshd",
                    SshServer::Agent => "the agent",
                };
                Some(
                    Finding::note("logs-off", self.about, format!("container {} has no log configuration", container.name))
                        .why(format!("the job log has all that scripts say, but when the entry script or {server} fails, nobody sees why"))
                        .change(self.register("with a `logConfiguration`, such as awslogs with `awslogs-group`, `awslogs-region` and `awslogs-stream-prefix`")),
                )
            }
            Some("awslogs") => {
                let missing: Vec<String> = ["awslogs-group", "awslogs-region"]
                    .into_iter()
                    .filter(|option| !container.log_options.contains_key(*option))
                    .map(str::to_owned)
                    .collect();
                (!missing.is_empty()).then(|| {
                    self.failure(
                        "logs-incomplete",
                        format!(
                            "the awslogs configuration of container {} lacks {}",
                            container.name,
                            list(&missing)
                        ),
                    )
                    .why("the task stops with \"failed to initialize logging driver\"")
                    .change(self.register("with these options"))
                })
            }
            Some(_) => None,
        }
    }
}

fn reason_for_execution_role(container: &SeenContainer) -> Option<&'static str> {
    let registry = container.image.split('/').next().unwrap_or_default();
    if registry.contains(".dkr.ecr.") {
        return Some("has its image in a private ECR registry");
    }
    if container.has_secrets {
        return Some("uses secrets");
    }
    (container.log_driver.as_deref() == Some("awslogs")).then_some("logs by awslogs")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::ecs::tests_cluster as cluster;
    use crate::placement::size::Size;
    use crate::settings::{HostKeySource, Shell, TaskSsh};

    fn definition() -> TaskDefinition {
        TaskDefinition {
            by_arch: BTreeMap::from([(Arch::X86_64, "ci".to_owned())]),
            container: "ci-coordinator".into(),
            size: Size::DEFAULT,
            builds_dir: Some("/builds".into()),
            cache_dir: Some("/cache".into()),
            shell: Shell::Bash,
            ssh: TaskSsh {
                server: SshServer::Openssh,
                user: "root".into(),
                port: 22,
                host_key: HostKeySource::FirstContact,
            },
            labels: BTreeMap::new(),
        }
    }

    fn good() -> SeenDefinition {
        SeenDefinition {
            arn: "arn:aws:ecs:eu-west-1:123456789012:task-definition/ci:3".into(),
            status: "ACTIVE".into(),
            network_mode: Some("awsvpc".into()),
            compatibilities: vec!["FARGATE".into()],
            execution_role: Some("arn:aws:iam::123456789012:role/exec".into()),
            containers: vec![SeenContainer {
                name: "ci-coordinator".into(),
                image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci:1".into(),
                essential: true,
                ports: vec![22],
                log_driver: Some("awslogs".into()),
                log_options: [("awslogs-group", "ci"), ("awslogs-region", "eu-west-1")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ..SeenContainer::default()
            }],
            ..SeenDefinition::default()
        }
    }

    fn names(cluster: &EcsCluster, seen: SeenDefinition) -> Vec<&'static str> {
        let definition = definition();
        let entry = Entry {
            name: "node",
            definition: &definition,
            arch: Arch::X86_64,
            family: "ci",
            cluster,
            max_memory_mib: 8192,
        };
        let findings = judge("task definition node (x86_64)", &entry, &Ok(seen));
        for finding in findings.iter().filter(|finding| finding.severity > Severity::Ok) {
            assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
        }
        findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn every_fault_of_a_definition_has_its_finding() {
        type Change = fn(&mut SeenDefinition);
        let table: &[(Change, &[&str])] = &[
            (|_| {}, &["definition"]),
            (|seen| seen.status = "INACTIVE".into(), &["definition-inactive"]),
            (|seen| seen.architecture = Some("ARM64".into()), &["definition-architecture"]),
            (
                |seen| seen.operating_system = Some("WINDOWS_SERVER_2022_CORE".into()),
                &["definition-system"],
            ),
            (|seen| seen.network_mode = None, &["definition-network-mode"]),
            (|seen| seen.compatibilities = vec!["EC2".into()], &["definition-compatibility"]),
            (|seen| seen.containers[0].name = "web".into(), &["container-missing"]),
            (|seen| seen.containers[0].ports = vec![], &["definition"]),
            (|seen| seen.containers[0].ports = vec![2222], &["port-other"]),
            (|seen| seen.containers[0].essential = false, &["container-not-essential"]),
            (|seen| seen.containers[0].is_read_only = true, &["container-read-only"]),
            (|seen| seen.containers[0].memory_limit = Some(512), &["container-memory-limit"]),
            (|seen| seen.containers[0].memory_limit = Some(8192), &["definition"]),
            (|seen| seen.execution_role = None, &["execution-role-missing"]),
            (|seen| seen.containers[0].log_driver = None, &["definition", "logs-off"]),
            (|seen| seen.containers[0].log_options.clear(), &["logs-incomplete"]),
        ];
        for (index, (change, expected)) in table.iter().enumerate() {
            let mut seen = good();
            change(&mut seen);
            assert_eq!(names(&cluster(), seen), *expected, "row {index}");
        }
    }

    #[test]
    fn what_counts_depends_on_the_cluster() {
        let bridge =
            EcsCluster { launch: LaunchKind::Ec2, network_mode: NetworkMode::Bridge, ..cluster() };
        let mut seen = good();
        seen.network_mode = None;
        seen.compatibilities = vec!["EC2".into()];
        seen.containers[0].ports = vec![];
        assert_eq!(names(&bridge, seen), ["port-not-mapped"]);
        let exec = EcsCluster { enable_execute_command: true, ..cluster() };
        assert_eq!(names(&exec, good()), ["definition-execute-command"]);
        let own_role = EcsCluster { execution_role: Some("arn".into()), ..cluster() };
        assert_eq!(
            names(&own_role, SeenDefinition { execution_role: None, ..good() }),
            ["definition"]
        );
    }

    #[test]
    fn an_answer_that_is_none_is_told_by_its_cause() {
        let (cluster, definition) = (cluster(), definition());
        let entry = Entry {
            name: "node",
            definition: &definition,
            arch: Arch::X86_64,
            family: "ci",
            cluster: &cluster,
            max_memory_mib: 1,
        };
        for (cause, name, severity) in [
            (Cause::NotFound, "definition-missing", Severity::Failure),
            (Cause::Denied, "definition-not-seen", Severity::Note),
            (Cause::Server, "definition-unreadable", Severity::Failure),
        ] {
            let error = BackendError {
                cause,
                ..BackendError::new("DescribeTaskDefinition", "code", "message")
            };
            let finding = &judge("x", &entry, &Err(error))[0];
            assert_eq!((finding.name, finding.severity), (name, severity));
        }
    }

    #[test]
    fn the_execution_role_is_for_images_secrets_and_logs() {
        let container = |image: &str, has_secrets, log: Option<&str>| SeenContainer {
            image: image.into(),
            has_secrets,
            log_driver: log.map(str::to_owned),
            ..SeenContainer::default()
        };
        let needs = |container| reason_for_execution_role(&container).is_some();
        assert!(needs(container("1.dkr.ecr.eu-west-1.amazonaws.com/x", false, None)));
        assert!(needs(container("x", true, None)));
        assert!(needs(container("x", false, Some("awslogs"))));
        assert!(!needs(container("public.ecr.aws/x/y", false, Some("splunk"))));
    }
}
