//! One task: what it was started as, and how it is. No IO.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::account::{Revision, now};
use crate::faults::Fate;
use crate::lifecycle::Status;
use crate::model::{ContainerDefinition, Tag, TaskOverride};
use crate::requests::RunTask;
use crate::validation::Plan;

/// A task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) arn: String,
    pub(crate) cluster: String,
    pub(crate) revision: Arc<Revision>,
    pub(crate) launch_type: &'static str,
    pub(crate) has_public_address: bool,
    pub(crate) capacity_provider: Option<String>,
    /// CPU units.
    pub(crate) cpu: Option<u32>,
    /// MiB.
    pub(crate) memory: Option<u32>,
    pub(crate) ephemeral_gib: i64,
    pub(crate) platform_version: &'static str,
    pub(crate) subnet: String,
    pub(crate) tags: Vec<Tag>,
    pub(crate) started_by: Option<String>,
    pub(crate) group: String,
    pub(crate) enable_execute_command: bool,
    pub(crate) overrides: TaskOverride,
    pub(crate) fate: Fate,
    /// When calls begin to know the task.
    pub(crate) visible_from: Instant,
    pub(crate) status: Status,
    pub(crate) stop: Option<StopCause>,
    pub(crate) times: Times,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) containers: Vec<Container>,
    /// Counts changes.
    pub(crate) version: u64,
    /// Becomes `true` with `stop`.
    stopping: watch::Sender<bool>,
}

/// Why a task is to stop.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StopCause {
    pub(crate) code: String,
    pub(crate) reason: String,
}

impl StopCause {
    pub(crate) fn new(code: &str, reason: impl Into<String>) -> Self {
        Self { code: code.to_owned(), reason: reason.into() }
    }

    /// A task that never ran.
    pub(crate) fn failed_to_start(reason: impl Into<String>) -> Self {
        Self::new("TaskFailedToStart", reason)
    }
}

/// Seconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    pub(crate) created: f64,
    pub(crate) connected: Option<f64>,
    pub(crate) pull_started: Option<f64>,
    pub(crate) pull_stopped: Option<f64>,
    pub(crate) started: Option<f64>,
    pub(crate) stopping: Option<f64>,
    pub(crate) execution_stopped: Option<f64>,
    pub(crate) stopped: Option<f64>,
}

/// A container of a task, in the order of the task definition.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    /// For its ARN.
    pub(crate) id: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) reason: Option<String>,
}

impl Task {
    pub(crate) fn new(
        id: String,
        arn: String,
        request: &RunTask,
        plan: &Plan,
        capacity_provider: Option<String>,
        fate: Fate,
    ) -> Self {
        let family = &plan.revision.definition.family;
        let container = |definition: &ContainerDefinition| Container {
            name: definition.name.clone(),
            image: definition.image.clone(),
            id: random_id(),
            exit_code: None,
            reason: None,
        };
        Self {
            id,
            arn,
            cluster: plan.cluster.clone(),
            launch_type: plan.launch_type,
            has_public_address: plan.has_public_address,
            capacity_provider,
            cpu: plan.cpu,
            memory: plan.memory,
            ephemeral_gib: plan.ephemeral_gib,
            platform_version: plan.platform_version,
            subnet: plan.subnet.clone(),
            tags: plan.tags.clone(),
            started_by: request.started_by.clone(),
            group: request.group.clone().unwrap_or_else(|| format!("family:{family}")),
            enable_execute_command: request.enable_execute_command,
            overrides: request.overrides.clone().unwrap_or_default(),
            visible_from: Instant::now() + fate.missing.unwrap_or_default(),
            fate,
            status: Status::Provisioning,
            stop: None,
            times: Times { created: now(), ..Times::default() },
            address: None,
            containers: plan
                .revision
                .definition
                .container_definitions
                .iter()
                .map(container)
                .collect(),
            version: 1,
            stopping: watch::Sender::new(false),
            revision: Arc::clone(&plan.revision),
        }
    }

    /// Goes on to the next state, if there is one.
    pub(crate) fn advance(&mut self) -> Option<Status> {
        let next = self.status.next(self.stop.is_some())?;
        self.status = next;
        self.version += 1;
        let time = Some(now());
        match next {
            Status::Pending => (self.times.connected, self.times.pull_started) = (time, time),
            Status::Activating => self.times.pull_stopped = time,
            Status::Running => self.times.started = time,
            Status::Stopped => self.times.stopped = time,
            Status::Provisioning
            | Status::Deactivating
            | Status::Stopping
            | Status::Deprovisioning => {}
        }
        Some(next)
    }

    /// Tells the task to stop. The first cause stays; `false` when there was one already.
    pub(crate) fn order_stop(&mut self, cause: StopCause) -> bool {
        if self.stop.is_some() {
            return false;
        }
        self.stop = Some(cause);
        self.times.stopping = Some(now());
        self.version += 1;
        self.stopping.send_replace(true);
        true
    }

    /// Becomes `true` when the task is told to stop.
    pub(crate) fn watch_stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Says at one container what went wrong.
    pub(crate) fn set_container_reason(&mut self, container: usize, reason: &str) {
        if let Some(container) = self.containers.get_mut(container) {
            container.reason = Some(reason.to_owned());
        }
    }

    pub(crate) fn desired_status(&self) -> Status {
        if self.stop.is_some() { Status::Stopped } else { Status::Running }
    }
}

/// 32 hex digits, as tasks and containers have them.
pub(crate) fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
