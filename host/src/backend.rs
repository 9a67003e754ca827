//! What starts and stops tasks, behind one trait: [`ecs`] and [`local`].
//!
//! A backend belongs to one catalog cluster. It knows nothing of policies, SSH sessions or saved state;
//! the stages join them.

mod budget;
mod cause;
pub mod ecs;
pub mod local;
mod patient;
mod subnets;
pub mod survey;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use cause::{Cause, Fault, Step};
pub(crate) use patient::pause;
pub(crate) use subnets::FullSubnets;

use crate::placement::{Arch, Capacity, size::Size};
use crate::secret::Secret;
use crate::settings::{ClusterBackend, SessionFact};

/// Starts, describes, stops and lists the tasks of one cluster.
#[async_trait]
pub trait TaskBackend: Send + Sync + fmt::Debug {
    /// Starts one task. Called again with an equal `request` it answers the same task.
    async fn launch(&self, request: &LaunchRequest) -> Result<TaskId, BackendError>;

    /// How the tasks are, in one call for each hundred of them. Those that the backend does not know are left
    /// out: unknown any more, or on ECS for seconds after the launch not yet.
    async fn describe_many(
        &self,
        tasks: &[TaskId],
    ) -> Result<Vec<(TaskId, TaskStatus)>, BackendError>;

    /// How the task is; `None` as in [`Self::describe_many`].
    async fn describe(&self, task: &TaskId) -> Result<Option<TaskStatus>, BackendError> {
        let found = self.describe_many(std::slice::from_ref(task)).await?;
        Ok(found.into_iter().next().map(|(_, status)| status))
    }

    /// Stops the task; a task that has already stopped or is not known is no error. Answers how the task is
    /// at that moment, where the backend says it.
    async fn stop(&self, task: &TaskId, reason: &str) -> Result<Option<TaskStatus>, BackendError>;

    /// The tasks that were launched with this `started_by` and are to run or have left something behind; those that
    /// the caller may not look at as [hidden](OwnedTask::is_hidden).
    async fn list(&self, started_by: &str) -> Result<Vec<OwnedTask>, BackendError>;

    /// Takes this process's turn to launch once, and answers how long it has to wait for it.
    fn launch_turn(&self) -> Duration {
        Duration::ZERO
    }

    /// How many calls of [`Self::describe_many`] a second all processes together may make.
    fn reads_a_second(&self) -> f64 {
        f64::INFINITY
    }
}

/// All that a backend needs to know to start one task.
#[derive(Debug, Clone)]
pub struct LaunchRequest {
    /// The attempt's id: bounded, and safe in a path.
    pub attempt: String,
    /// Derived from attempt and placement: the same token means the same task. 64 hex digits.
    pub client_token: String,
    /// Names this manager; at most 128 of letters, digits, `-`, `/` and `_`.
    pub started_by: String,
    /// The task definition of the placement's architecture, as the backend spells it.
    pub task_definition: String,
    /// The container that runs the SSH server.
    pub container: String,
    /// The placement's.
    pub arch: Arch,
    /// The placement's.
    pub capacity: Capacity,
    /// The placement's.
    pub size: Size,
    /// GiB; `None` is the backend's own.
    pub ephemeral_storage_gib: Option<u32>,
    /// The role's ARN; `None` is the task definition's.
    pub role_arn: Option<String>,
    /// For the container named above. Sorted, so that a repeated request is byte-identical.
    pub environment: BTreeMap<String, Secret<String>>,
    /// At most 50. Sorted for the same reason.
    pub tags: BTreeMap<String, String>,
    /// The port that the SSH server listens on.
    pub port: u16,
    /// Subnets that have no addresses left, as the backend spells them.
    pub avoid_subnets: Vec<String>,
}

/// A backend's own name of a task: an ARN on ECS. Never shown to policies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub String);

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A living task that this manager started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedTask {
    /// The backend's name of it.
    pub id: TaskId,
    /// As they were launched.
    pub tags: BTreeMap<String, String>,
    /// When it was asked for; `None` where the backend does not say.
    pub created_at: Option<Timestamp>,
    /// How far it has come.
    pub phase: Phase,
    /// Whether the backend gives no more than the name to whoever asks: nothing else here is known then.
    pub is_hidden: bool,
}

impl OwnedTask {
    /// A task that others may look at, and this caller may not.
    fn hidden(id: TaskId) -> Self {
        Self { id, tags: BTreeMap::new(), created_at: None, phase: Phase::Pending, is_hidden: true }
    }
}

/// A task as its backend sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// ECS's `lastStatus`.
    pub phase: Phase,
    /// Where the SSH server is or will be; on Fargate known before `RUNNING`.
    pub address: Option<IpAddr>,
    /// Where the ports of containers are mapped to ports of that address; empty where ports are as they are.
    pub bindings: Vec<PortBinding>,
    /// Why it stops or stopped, as soon as the backend knows.
    pub stopped: Option<Stopped>,
    /// The subnet it is in, as the backend spells it.
    pub subnet: Option<String>,
    /// When what happened.
    pub times: Times,
}

/// ECS's timestamps of a task; each is there once it has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// The task was asked for.
    pub created_at: Option<Timestamp>,
    /// The first image pull began; from here on Fargate costs money.
    pub pull_started_at: Option<Timestamp>,
    /// The last image pull ended.
    pub pull_stopped_at: Option<Timestamp>,
    /// RUNNING.
    pub started_at: Option<Timestamp>,
    /// STOPPED.
    pub stopped_at: Option<Timestamp>,
}

/// One of ECS's `networkBindings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// The container's name in the task definition.
    pub container: String,
    /// As the container knows it.
    pub container_port: u16,
    /// As it is reached from outside.
    pub host_port: u16,
}

impl TaskStatus {
    /// How `port` of `container` is reached at the task's address; `None` when ports are mapped, and this is not.
    pub fn port(&self, container: &str, port: u16) -> Option<u16> {
        if self.bindings.is_empty() {
            return Some(port);
        }
        let is_it = |binding: &&PortBinding| {
            binding.container == container && binding.container_port == port
        };
        self.bindings.iter().find(is_it).map(|binding| binding.host_port)
    }
}

/// ECS's task lifecycle (developer guide, "Amazon ECS task lifecycle").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The network interface is made.
    Provisioning,
    /// Waiting for the container agent: image pulls and so on.
    Pending,
    /// Last steps before the containers run.
    Activating,
    /// The containers run; an SSH server need not listen yet.
    Running,
    /// Told to stop, in one of the steps between RUNNING and STOPPED.
    Stopping,
    /// Gone.
    Stopped,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Provisioning => "provisioning",
            Self::Pending => "pending",
            Self::Activating => "activating",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        })
    }
}

/// Why a task stops.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stopped {
    /// What all of the below amounts to.
    pub cause: Cause,
    /// ECS's `stopCode`, such as `SpotInterruption`; empty where the backend has none.
    pub code: String,
    /// ECS's `stoppedReason`.
    pub reason: String,
    /// Per container, in the backend's order.
    pub containers: Vec<StoppedContainer>,
}

/// How one container of a stopped task ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoppedContainer {
    /// Its name in the task definition.
    pub name: String,
    /// `None` when it never ran.
    pub exit_code: Option<i32>,
    /// Such as `OutOfMemoryError: Container killed due to memory usage`; may be empty.
    pub reason: String,
}

/// What a backend could not do.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {code}: {message}")]
pub struct BackendError {
    /// The API action, such as `RunTask`.
    pub call: &'static str,
    /// The API's error code or `failures[].reason`; `connection` when there was no answer.
    pub code: String,
    /// The API's own words.
    pub message: String,
    /// What they amount to.
    pub cause: Cause,
    /// What to do about it.
    pub hint: Option<String>,
}

impl BackendError {
    /// An error without a remedy and of no known cause.
    pub fn new(call: &'static str, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { call, code: code.into(), message: message.into(), cause: Cause::Other, hint: None }
    }
}

/// Whom a session in another account is for; what is not known is left out.
pub type SessionFacts = BTreeMap<SessionFact, String>;

/// The backend of the catalog cluster `cluster`, with its files, if any, in the state directory `state`; for
/// nobody's sake in particular.
pub async fn open(cluster: &crate::settings::Cluster, state: &Path) -> Box<dyn TaskBackend> {
    open_for(cluster, state, &SessionFacts::new()).await
}

/// The same for a job, whose `facts` the cluster's account may want to know.
pub async fn open_for(
    cluster: &crate::settings::Cluster,
    state: &Path,
    facts: &SessionFacts,
) -> Box<dyn TaskBackend> {
    match &cluster.backend {
        ClusterBackend::Ecs(cluster) => {
            let quota = cluster.request_quota;
            // Requests are counted per account and Region; the account is known by how it is entered.
            let account = short_digest(&cluster.account());
            let ecs = ecs::Ecs::open((**cluster).clone(), state, facts).await;
            match budget::Budget::open(&state.join("budget"), &account, quota) {
                Ok(budget) => Box::new(patient::Patient { backend: ecs, budget }),
                // As above: it must not keep jobs from starting.
                Err(_) => Box::new(ecs),
            }
        }
        ClusterBackend::Local(cluster) => Box::new(local::Local::open(cluster, state)),
    }
}

/// The same for catalog clusters that are one and the same at their backend; safe in a path.
pub fn identity(cluster: &crate::settings::Cluster) -> String {
    match &cluster.backend {
        ClusterBackend::Ecs(cluster) => {
            let name = format!("{}|{}", cluster.account(), cluster.cluster);
            format!("ecs-{}", short_digest(&name))
        }
        ClusterBackend::Local(_) => "local".to_owned(),
    }
}

/// The same for those who may look at each other's tasks in `cluster`, when they act for `facts`; safe in a path.
///
/// A session with tags may be allowed its own tasks only (`aws:PrincipalTag` against `ecs:ResourceTag`), and one
/// task that it may not see makes ECS refuse a call for all.
pub fn sight(cluster: &crate::settings::Cluster, facts: &SessionFacts) -> String {
    let cluster_identity = identity(cluster);
    let ClusterBackend::Ecs(ecs) = &cluster.backend else { return cluster_identity };
    let told = |role: &crate::settings::AssumeRole| -> SessionFacts {
        let is_told = |(fact, _): &(&SessionFact, &String)| role.session_tags.contains(fact);
        facts.iter().filter(is_told).map(|(fact, value)| (*fact, value.clone())).collect()
    };
    match ecs.assume_role.as_ref().map(told) {
        Some(tags) if !tags.is_empty() => {
            format!("{cluster_identity}-{}", short_digest(&format!("{tags:?}")))
        }
        _ => cluster_identity,
    }
}

/// Fit for a file name, whatever `text` holds.
fn short_digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
