//! What the simulated account holds: clusters, task definitions, tasks. No IO.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use crate::capacity::{Capacity, Load};
use crate::definitions;
use crate::faults::Faults;
use crate::lifecycle::Status;
use crate::model::{CapacityProviderStrategyItem, Tag, TaskDefinition};
use crate::names::Names;
use crate::network::Network;
use crate::permissions::Permissions;
use crate::protocol::ApiError;
use crate::requests::RunTask;
use crate::sessions::Sessions;
use crate::task::Task;
use crate::throttle::Throttle;
use crate::world::World;

/// A cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) capacity_providers: Vec<String>,
    pub(crate) launch_types: Vec<String>,
    pub(crate) default_strategy: Vec<CapacityProviderStrategyItem>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) settings: Vec<Value>,
    pub(crate) configuration: Option<Value>,
    pub(crate) service_connect_defaults: Option<Value>,
}

impl Cluster {
    pub(crate) fn new(name: String, capacity_providers: Vec<String>) -> Self {
        Self {
            name,
            status: "ACTIVE".to_owned(),
            capacity_providers,
            launch_types: Vec::new(),
            default_strategy: Vec::new(),
            tags: Vec::new(),
            settings: Vec::new(),
            configuration: None,
            service_connect_defaults: None,
        }
    }
}

/// A revision of a task definition.
#[derive(Debug)]
pub(crate) struct Revision {
    pub(crate) arn: String,
    pub(crate) number: usize,
    pub(crate) is_active: bool,
    /// Seconds since 1970.
    pub(crate) registered_at: f64,
    pub(crate) definition: TaskDefinition,
}

/// Everything that calls read and change, behind one lock.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) names: Names,
    pub(crate) clusters: BTreeMap<String, Cluster>,
    pub(crate) subnets: Vec<String>,
    pub(crate) security_groups: Vec<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) network: Network,
    pub(crate) permissions: Permissions,
    /// Of revisions: `family:number`.
    inactive: Vec<String>,
    /// By family; the last is the latest.
    definitions: BTreeMap<String, Vec<Arc<Revision>>>,
    /// By id.
    pub(crate) tasks: BTreeMap<String, Task>,
    /// By cluster and client token.
    pub(crate) client_tokens: HashMap<(String, String), Granted>,
    pub(crate) faults: Faults,
    pub(crate) sessions: Sessions,
    pub(crate) capacity: Capacity,
    pub(crate) throttle: Throttle,
    /// By operation.
    pub(crate) calls: BTreeMap<String, Calls>,
}

/// What a client token has brought.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) request: RunTask,
    /// Of its tasks.
    pub(crate) ids: Vec<String>,
    pub(crate) at: Instant,
}

/// How often an operation was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Calls {
    /// In all.
    pub(crate) calls: u64,
    /// Of those, how many were refused as throttled.
    pub(crate) throttled: u64,
}

impl Account {
    pub(crate) fn new(world: &World) -> Result<Self, ApiError> {
        let names = Names { account: world.account.clone(), region: world.region.clone() };
        let mut account = Self {
            names,
            clusters: BTreeMap::new(),
            subnets: world.subnets.clone(),
            security_groups: world.security_groups.clone(),
            roles: world.roles.clone(),
            network: world.network.clone(),
            permissions: Permissions::new(&world.denied),
            inactive: world.inactive_task_definitions.clone(),
            definitions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            client_tokens: HashMap::new(),
            sessions: Sessions::new(world.assumable_roles.clone()),
            faults: Faults::new(world.faults.clone(), world.seed),
            capacity: Capacity::new(world.capacity.clone(), world.quotas),
            throttle: Throttle::new(world.throttling, world.time_scale),
            calls: BTreeMap::new(),
        };
        for cluster in &world.clusters {
            let new = Cluster {
                launch_types: cluster.launch_types.clone(),
                status: cluster.status.clone(),
                ..Cluster::new(cluster.name.clone(), cluster.capacity_providers.clone())
            };
            account.clusters.insert(cluster.name.clone(), new);
        }
        for definition in &world.task_definitions {
            account.register(definition.clone())?;
        }
        Ok(account)
    }

    /// The cluster that a request names; `default` when it names none.
    pub(crate) fn cluster(&self, name: Option<&str>) -> Result<&Cluster, ApiError> {
        self.names
            .cluster(name.unwrap_or("default"))
            .and_then(|name| self.clusters.get(name))
            .ok_or_else(ApiError::cluster_not_found)
    }

    /// The task definition of a family, a family and revision, or an ARN.
    pub(crate) fn definition(&self, name: &str) -> Result<Arc<Revision>, ApiError> {
        let find = || {
            let (family, number) = self.names.task_definition(name)?;
            let revisions = self.definitions.get(family)?;
            match number {
                // The family alone is its newest active revision.
                None => revisions.iter().rfind(|revision| revision.is_active),
                Some(number) => revisions.get(number.checked_sub(1)?),
            }
        };
        find().cloned().ok_or_else(|| ApiError::client("Unable to describe task definition."))
    }

    /// All tasks that take up capacity.
    pub(crate) fn running(&self) -> Vec<Load> {
        let running = |task: &&Task| task.status < Status::Stopped;
        self.tasks.values().filter(running).map(Task::load).collect()
    }

    /// Adds a revision.
    pub(crate) fn register(
        &mut self,
        definition: TaskDefinition,
    ) -> Result<Arc<Revision>, ApiError> {
        definitions::check(&definition)?;
        let revisions = self.definitions.entry(definition.family.clone()).or_default();
        let number = revisions.len() + 1;
        let revision = Arc::new(Revision {
            arn: self.names.task_definition_arn(&definition.family, number),
            number,
            is_active: !self.inactive.contains(&format!("{}:{number}", definition.family)),
            registered_at: now(),
            definition,
        });
        revisions.push(Arc::clone(&revision));
        Ok(revision)
    }
}

/// Seconds since 1970, in milliseconds' resolution, as the API gives times.
pub(crate) fn now() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1000.0
}
