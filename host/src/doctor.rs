//! `pointsman doctor`: everything that can be verified with the cloud, each finding with its remedy.
//!
//! Facts are gathered here, by calls that change nothing; what they mean is said by pure functions, one file for
//! each subject. Only [`launch`] starts anything, and only when it was asked for.

mod cluster;
mod definition;
pub mod finding;
mod identity;
mod launch;
mod machine;
mod network;
mod permissions;
mod phases;
mod quota;
mod scope;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::SystemTime;

use jiff::SignedDuration;

use crate::backend::ecs::Ecs;
use crate::backend::local::Local;
use crate::backend::survey::{Caller, SeenDefinition, skew};
use crate::backend::{self, BackendError, Cause, SessionFacts, TaskBackend, TaskId};
use crate::failure::{Failure, Report};
use crate::gitlab;
use crate::placement::Arch;
use crate::settings::{
    ClusterBackend, EcsCluster, LaunchKind, NetworkMode, Settings, TaskDefinition,
};
use crate::stages::{Context, launch as stage};
use crate::state::{Launch, State};

use definition::Entry;
use finding::Finding;
pub use finding::{Remedy, Severity};
use launch::Choice;
pub use launch::Wish;
use machine::SeenState;
use network::routes::Needs;
use permissions::Tried;
pub use phases::Row;
use scope::Scope;

/// What is looked at.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this cluster of the catalog.
    pub cluster: Option<String>,
    /// Whether a task is started.
    pub launch: bool,
    /// What that task shall be.
    pub wish: Wish,
}

/// What the doctor says while it works.
#[derive(Debug)]
pub enum News<'n> {
    /// What is done next.
    Step(&'n str),
    /// What was found.
    Found(&'n Finding),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
    /// The phases of the launch, where there was one.
    pub phases: Vec<Row>,
}

impl Diagnosis {
    /// Whether jobs run.
    pub fn is_well(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Failure)
    }
}

/// Looks at everything that `options` and the context's profile name.
///
/// # Errors
///
/// Fails for names that the settings do not have, and when this machine cannot work at all; everything else is a
/// finding.
pub async fn examine(
    context: &Context,
    options: &Options,
    tell: &mut (dyn FnMut(News<'_>) + Send),
) -> Result<Diagnosis, Failure> {
    let settings = &context.settings;
    let profile = context.profile.as_deref();
    let scopes =
        scope::scopes(settings, profile, options.cluster.as_deref()).map_err(|unknown| {
            let report = Report::new(format!(
                "the settings file has no {} `{}`",
                unknown.what, unknown.name
            ));
            Failure::System(report.hint(format!("it has: {}", unknown.known.join(", "))))
        })?;
    let mut doctor =
        Doctor { context, tell, diagnosis: Diagnosis::default(), accounts: BTreeMap::new() };
    doctor.step("Looking at this machine...");
    let seen = machine::look_at_state(&settings.state_directory);
    doctor.found(machine::judge_state(&settings.state_directory, &seen));
    let is_usable = matches!(seen, SeenState::Usable { .. });
    if is_usable {
        doctor.all_found(machine::look_at_policies(settings));
    }
    doctor.found(machine::judge_open_files(machine::open_files()));
    doctor.gitlab();
    // Sessions and budgets are kept beside the attempts, but not where they would be somebody else's.
    let scratch = tempfile::tempdir().map_err(|error| Failure::System(Report::of(&error)))?;
    let directory = if is_usable { settings.state_directory.as_path() } else { scratch.path() };
    for scope in &scopes {
        doctor.cluster(scope, directory).await?;
    }
    if options.launch {
        doctor.launch(&scopes, options, is_usable).await?;
    }
    Ok(doctor.diagnosis)
}

struct Doctor<'d> {
    context: &'d Context,
    tell: &'d mut (dyn FnMut(News<'_>) + Send),
    diagnosis: Diagnosis,
    /// Who we are, by [`EcsCluster::account`]; `None` where nobody says.
    accounts: BTreeMap<String, Option<Caller>>,
}

impl Doctor<'_> {
    fn step(&mut self, text: &str) {
        (self.tell)(News::Step(text));
    }

    fn found(&mut self, finding: Finding) {
        (self.tell)(News::Found(&finding));
        self.diagnosis.findings.push(finding);
    }

    fn all_found(&mut self, findings: Vec<Finding>) {
        findings.into_iter().for_each(|finding| self.found(finding));
    }

    fn settings(&self) -> &Settings {
        &self.context.settings
    }

    fn gitlab(&mut self) {
        let Some(settings) = self.context.settings.gitlab.as_ref() else {
            self.found(machine::judge_gitlab(None, None));
            return;
        };
        self.step("Asking GitLab...");
        let before = SystemTime::now();
        let reached = gitlab::reach(settings);
        let after = SystemTime::now();
        self.found(machine::judge_gitlab(Some((&settings.url, settings.job_tags)), Some(&reached)));
        let date = reached.ok().and_then(|reached| reached.date);
        if let Some(skew) = date.and_then(|date| skew(&date, before, after)) {
            self.found(identity::judge_clock(machine::ABOUT, "GitLab's", skew));
        }
    }

    async fn cluster(&mut self, scope: &Scope, directory: &Path) -> Result<(), Failure> {
        let about = format!("cluster {}", scope.cluster);
        let Some(cluster) = self.context.settings.clusters.get(&scope.cluster) else {
            return Ok(());
        };
        let ecs = match &cluster.backend {
            ClusterBackend::Ecs(ecs) => ecs,
            ClusterBackend::Local(local) => {
                let agent = Local::agent(local);
                if !agent.is_file() {
                    self.found(
                        Finding::failure(
                            "agent-missing",
                            &about,
                            format!("there is no agent at {}", agent.display()),
                        )
                        .why("tasks of this cluster are the agent as a child process: none can start")
                        .change(format!("set `agent` of [clusters.{}] to where pointsman-agent is installed", scope.cluster)),
                    );
                    return Ok(());
                }
                self.found(Finding::ok(
                    "cluster-local",
                    &about,
                    "tasks are processes of this machine",
                ));
                return Ok(());
            }
        };
        self.step(&format!("Looking at {about} ({}, {})...", ecs.cluster, ecs.region));
        let client = Ecs::open((**ecs).clone(), directory, &SessionFacts::new()).await;
        let Some(caller) = self.caller(&about, ecs, &client).await else { return Ok(()) };
        let seen = client.survey_cluster().await;
        let is_there = match &seen {
            Ok(seen) => seen.as_ref().is_some_and(|seen| seen.status == "ACTIVE"),
            // Whoever may not see it may use it all the same.
            Err(error) => error.cause == Cause::Denied,
        };
        let judged = cluster::judge(&about, ecs, scope, &seen);
        self.all_found(judged);
        if !is_there {
            return Ok(());
        }
        let definitions = self.definitions(ecs, scope, &client).await;
        if ecs.network_mode == NetworkMode::Awsvpc {
            self.network(&about, ecs, scope, &client, &definitions).await;
        }
        self.permissions(&about, cluster, ecs, scope, &client, &caller, &definitions, directory)
            .await?;
        if ecs.launch == LaunchKind::Fargate {
            for capacity in &scope.capacities {
                let quota = client.quota(quota::code(*capacity)).await;
                let (max, usual) = (scope.max_cpu_units, scope.usual_cpu_units);
                let is_silent = quota.as_ref().is_err_and(|error| error.cause == Cause::NoAnswer);
                self.found(quota::judge(&about, &ecs.region, *capacity, max, usual, &quota));
                // The next would be waited for in vain as well.
                if is_silent {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Asked once for each account; `None` where nothing more can be looked at.
    async fn caller(&mut self, about: &str, ecs: &EcsCluster, client: &Ecs) -> Option<Caller> {
        let account = ecs.account();
        if let Some(known) = self.accounts.get(&account).cloned() {
            if known.is_none() {
                let what = "not looked at: AWS does not know us there, as above";
                self.found(
                    Finding::note("cluster-skipped", about, what)
                        .why("what is wrong with the credentials has to be put right first")
                        .run("pointsman doctor"),
                );
            }
            return known;
        }
        let (caller, skew) = client.caller().await;
        let finding = identity::judge_caller(about, ecs, &caller);
        self.found(finding);
        if let Some(skew) = skew
            && self.accounts.is_empty()
        {
            self.found(identity::judge_clock(machine::ABOUT, "AWS's", skew));
        }
        let caller = caller.ok();
        self.accounts.insert(account, caller.clone());
        caller
    }

    /// Those that ECS told of, with the catalog's name and the architecture.
    async fn definitions(
        &mut self,
        ecs: &EcsCluster,
        scope: &Scope,
        client: &Ecs,
    ) -> Vec<(String, Arch, SeenDefinition)> {
        let mut all = Vec::new();
        for name in &scope.definitions {
            let Some(definition) = self.context.settings.task_definitions.get(name) else {
                continue;
            };
            for (arch, family) in &definition.by_arch {
                let about = format!("task definition {name} ({arch}) on cluster {}", scope.cluster);
                let seen = client.survey_definition(family).await;
                let entry = Entry {
                    name,
                    definition,
                    arch: *arch,
                    family,
                    cluster: ecs,
                    max_memory_mib: scope.max_memory_mib,
                };
                self.all_found(definition::judge(&about, &entry, &seen));
                if let Ok(seen) = seen {
                    all.push((name.clone(), *arch, seen));
                }
            }
        }
        all
    }

    async fn network(
        &mut self,
        about: &str,
        ecs: &EcsCluster,
        scope: &Scope,
        client: &Ecs,
        definitions: &[(String, Arch, SeenDefinition)],
    ) {
        let seen = client.survey_subnets().await;
        self.all_found(network::judge_subnets(about, ecs, &seen));
        // What is known of security groups does not hang on the subnets.
        let mut network = seen.unwrap_or_default();
        if !network.subnets.is_empty() {
            let routes = client.survey_routes(&mut network).await;
            let endpoints = client.survey_endpoints(&mut network).await;
            let needs = needs(definitions.iter().map(|(_, _, seen)| seen));
            self.all_found(network::routes::judge(
                about, ecs, &network, &needs, &routes, &endpoints,
            ));
        }
        let groups = client.survey_groups(&mut network).await;
        let ports: BTreeSet<u16> = scope
            .definitions
            .iter()
            .filter_map(|name| self.settings().task_definitions.get(name))
            .map(|definition| definition.ssh.port)
            .collect();
        let ours = network.subnets.first().and_then(network::some_address).and_then(own_address);
        self.all_found(network::groups::judge(about, ecs, &network, &ports, ours, &groups));
    }

    #[expect(clippy::too_many_arguments, reason = "what was seen of one cluster, at the only call")]
    async fn permissions(
        &mut self,
        about: &str,
        cluster: &crate::settings::Cluster,
        ecs: &EcsCluster,
        scope: &Scope,
        client: &Ecs,
        caller: &Caller,
        definitions: &[(String, Arch, SeenDefinition)],
        directory: &Path,
    ) -> Result<(), Failure> {
        let backend = backend::open(cluster, directory).await;
        let started_by = stage::started_by(self.settings());
        let name = ecs.cluster.rsplit('/').next().unwrap_or_default();
        let nobody = TaskId(format!(
            "arn:{}:ecs:{}:{}:task/{name}/{:032x}",
            caller.arn.split(':').nth(1).unwrap_or("aws"),
            ecs.region,
            caller.account,
            rand::random::<u128>()
        ));
        let listed = backend.list(&started_by).await.map(drop);
        self.found(permissions::judge_call(about, "ecs:ListTasks", ecs, &listed));
        let described = backend.describe(&nobody).await.map(drop);
        self.found(permissions::judge_call(about, "ecs:DescribeTasks", ecs, &described));
        let stopped =
            backend.stop(&nobody, "Pointsman: the doctor asks whether it may").await.map(drop);
        self.found(permissions::judge_call(about, "ecs:StopTask", ecs, &stopped));
        for (name, arch, seen) in definitions {
            let Some(definition) = self.context.settings.task_definitions.get(name) else {
                continue;
            };
            let family = definition.by_arch.get(arch).map_or("", String::as_str);
            if let Some(tried) =
                self.try_run(scope, backend.as_ref(), name, definition, *arch, seen).await?
            {
                self.found(permissions::judge_run(about, family, ecs, &tried));
            }
        }
        let seen: Vec<SeenDefinition> =
            definitions.iter().map(|(_, _, seen)| seen.clone()).collect();
        let roles = permissions::roles(self.settings(), ecs, scope, &seen);
        let asked = permissions::questions(ecs, caller, &roles);
        let ruled = match permissions::principal(caller) {
            Some(principal) => client.simulate(&principal, &asked).await,
            None => Err(BackendError::new(
                "SimulatePrincipalPolicy",
                "no principal",
                "these credentials are of no user and no role",
            )),
        };
        self.all_found(permissions::judge_ruled(about, ecs, &asked, &ruled));
        Ok(())
    }

    /// Sends a job's RunTask, but for a container that no task definition has; `None` where no profile would send one.
    async fn try_run(
        &self,
        scope: &Scope,
        backend: &dyn TaskBackend,
        name: &str,
        definition: &TaskDefinition,
        arch: Arch,
        seen: &SeenDefinition,
    ) -> Result<Option<Tried>, Failure> {
        let Some(choice) = self.one_placement(scope, name, arch) else { return Ok(None) };
        let attempt = launch::attempt(&choice, SignedDuration::from_mins(1))?;
        let launch = Launch::new(0, 0, Vec::new());
        let state = "0".repeat(16);
        let mut request =
            stage::request(self.context, &attempt, &launch, &choice.placement, definition, &state)?;
        // The one mistake, of which ECS learns when it reads the task definition: nothing can start.
        request.container = loop {
            let name = format!("no-such-container-{:016x}", rand::random::<u64>());
            if !seen.containers.iter().any(|container| container.name == name) {
                break name;
            }
        };
        tokio::time::sleep(backend.launch_turn()).await;
        Ok(Some(match backend.launch(&request).await {
            Err(error) => Tried::Refused(error),
            Ok(task) => {
                let reason = "Pointsman: the doctor did not mean to start this";
                let stopped = backend.stop(&task, reason).await.map(drop);
                Tried::Started(task, stopped)
            }
        }))
    }

    fn one_placement(&self, scope: &Scope, name: &str, arch: Arch) -> Option<Choice> {
        let settings = self.settings();
        scope.profiles.iter().find_map(|profile| {
            let bounds = &settings.profiles.get(profile)?.bounds;
            let catalog = settings.catalog(bounds);
            bounds.capacities.iter().find_map(|capacity| {
                let candidate = launch::candidate(&scope.cluster, name, arch, *capacity, None);
                let placement = bounds.check(&candidate, &catalog).ok()?;
                Some(Choice { profile: profile.clone(), placement })
            })
        })
    }

    async fn launch(
        &mut self,
        scopes: &[Scope],
        options: &Options,
        is_usable: bool,
    ) -> Result<(), Failure> {
        let not_launched = |what: String| {
            Finding::failure("launch-not-tried", "launch", what)
                .why("nothing was started, so nothing was measured")
        };
        let profile = self.context.profile.as_deref();
        let choice = match launch::choose(self.settings(), scopes, profile, &options.wish) {
            Ok(choice) => choice,
            Err(reason) => {
                let finding = not_launched(format!("no placement can be launched: {reason}"));
                self.found(finding.change("name another one by --profile, --cluster, --task-definition, --arch, --capacity or --role"));
                return Ok(());
            }
        };
        let placement = &choice.placement;
        let about = format!("launch on cluster {}", placement.cluster);
        if !is_usable {
            let finding = not_launched(
                "the state directory cannot be used, so a task that is left would not be found"
                    .to_owned(),
            );
            self.found(finding.change("put the state directory right first, as told above"));
            return Ok(());
        }
        let state = State::open(&self.settings().state_directory)?;
        let context = self.context;
        let Some(definition) = context.settings.task_definitions.get(&placement.task_definition)
        else {
            return Ok(());
        };
        let tell = &mut self.tell;
        let mut step = |text: &str| tell(News::Step(text));
        let launched = launch::launch(context, &state, &choice, &mut step).await?;
        self.diagnosis.phases = phases::rows(&launched);
        self.all_found(phases::judge(&about, placement, definition, &launched));
        Ok(())
    }
}

/// What tasks fetch when they start.
fn needs<'s>(definitions: impl Iterator<Item = &'s SeenDefinition>) -> Needs {
    let mut needs = Needs::default();
    for container in definitions.flat_map(|definition| &definition.containers) {
        let registry = container.image.split('/').next().unwrap_or_default();
        if registry.contains(".dkr.ecr.") {
            needs.ecr = true;
        } else {
            needs.elsewhere.insert(container.image.clone());
        }
        needs.logs |= container.log_driver.as_deref() == Some("awslogs");
    }
    needs
}

/// The address by which this machine would reach `theirs`; nothing is sent.
fn own_address(theirs: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((theirs, 22)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(ours) => Some(*ours.ip()),
        SocketAddr::V6(_) => None,
    }
}
