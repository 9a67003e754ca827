//! What starts and stops tasks, behind one trait: [`ecs`] and [`local`].
//!
//! A backend belongs to one catalog cluster. It knows nothing of policies, SSH sessions or saved state;
//! the stages join them.

pub mod ecs;
pub mod local;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::placement::{Arch, Capacity, size::Size};
use crate::secret::Secret;
use crate::settings::{ClusterBackend, SessionFact};

/// Starts, describes, stops and lists the tasks of one cluster.
#[async_trait]
pub trait TaskBackend: Send + Sync + fmt::Debug {
    /// Starts one task. Called again with an equal `request` it answers the same task.
    async fn launch(&self, request: &LaunchRequest) -> Result<TaskId, BackendError>;

    /// How the task is. `Ok(None)`: the backend does not know it (any more, or on ECS for seconds after the
    /// launch: not yet).
    async fn describe(&self, task: &TaskId) -> Result<Option<TaskStatus>, BackendError>;

    /// Stops the task; a task that has already stopped or is not known is no error.
    async fn stop(&self, task: &TaskId, reason: &str) -> Result<(), BackendError>;

    /// The living tasks that were launched with this `started_by`.
    async fn list(&self, started_by: &str) -> Result<Vec<OwnedTask>, BackendError>;
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
}

/// A backend's own name of a task: an ARN on ECS. Never shown to policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A task as its backend sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    /// ECS's `lastStatus`.
    pub phase: Phase,
    /// Where the SSH server is or will be; on Fargate known before `RUNNING`.
    pub address: Option<IpAddr>,
    /// Where the ports of containers are mapped to ports of that address; empty where ports are as they are.
    pub bindings: Vec<PortBinding>,
    /// Why it stops or stopped, as soon as the backend knows.
    pub stopped: Option<Stopped>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stopped {
    /// ECS's `stopCode`, such as `SpotInterruption`; empty where the backend has none.
    pub code: String,
    /// ECS's `stoppedReason`.
    pub reason: String,
    /// Per container, in the backend's order.
    pub containers: Vec<StoppedContainer>,
}

/// How one container of a stopped task ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// What to do about it.
    pub hint: Option<String>,
}

impl BackendError {
    /// An error without a remedy.
    pub fn new(call: &'static str, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { call, code: code.into(), message: message.into(), hint: None }
    }

    /// Whether another placement might succeed where this one did not.
    pub fn is_capacity(&self) -> bool {
        // The words of `failures[].reason`; EC2 capacity providers say `RESOURCE:CPU` and the like.
        self.code.starts_with("Capacity is unavailable") || self.code.starts_with("RESOURCE:")
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
            Box::new(ecs::Ecs::open((**cluster).clone(), state, facts).await)
        }
        ClusterBackend::Local(cluster) => Box::new(local::Local::open(cluster, state)),
    }
}
