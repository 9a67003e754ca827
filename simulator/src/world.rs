//! The world file: which account, clusters, networks, roles, task definitions and images there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::capacity::{Quotas, Rule};
use crate::faults::{Fault, Matches};
use crate::latency::{self, Delays, Latencies, Pace};
use crate::model::TaskDefinition;
use crate::names;
use crate::network::Network;

/// What `time_scale` may be: a task that takes a minute may take a second, or an hour.
pub(crate) const TIME_SCALES: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// What exists when the simulator starts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) clusters: Vec<WorldCluster>,
    #[serde(default)]
    pub(crate) subnets: Vec<String>,
    #[serde(default)]
    pub(crate) security_groups: Vec<String>,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    #[serde(default)]
    pub(crate) task_definitions: Vec<TaskDefinition>,
    #[serde(default)]
    pub(crate) images: BTreeMap<String, Image>,
    #[serde(default)]
    pub(crate) delays_ms: Delays,
    /// Milliseconds between SIGTERM and SIGKILL; stands for the containers' `stopTimeout`.
    #[serde(default = "stop_timeout_ms")]
    pub(crate) stop_timeout_ms: u64,
    /// Whether the directories of stopped tasks stay.
    #[serde(default)]
    pub(crate) keep_directories: bool,
    #[serde(default)]
    pub(crate) faults: Vec<Fault>,
    /// How many simulated seconds a real one has.
    #[serde(default = "one")]
    pub(crate) time_scale: f64,
    /// Of all chance.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Whether AWS's token buckets are enforced.
    #[serde(default = "yes")]
    pub(crate) throttling: bool,
    #[serde(default)]
    pub(crate) latencies: Latencies,
    /// Samples to draw delays from, by state.
    #[serde(default)]
    pub(crate) samples_ms: BTreeMap<String, Vec<u64>>,
    #[serde(default)]
    pub(crate) consistency_ms: Consistency,
    #[serde(default)]
    pub(crate) quotas: Quotas,
    #[serde(default)]
    pub(crate) capacity: Vec<Rule>,
    /// Whether each server is tried until it answers, for the ledger.
    #[serde(default)]
    pub(crate) probe_servers: bool,
    /// With any, the account is another than the caller's: it answers only to sessions of these roles. Without,
    /// any role can be taken, and none has to be.
    #[serde(default)]
    pub(crate) assumable_roles: Vec<AssumableRole>,
    /// What of subnets and security groups is unlike the rest.
    #[serde(default)]
    pub(crate) network: Network,
    /// Actions that IAM denies to every caller, such as `ecs:StopTask`.
    #[serde(default)]
    pub(crate) denied: Vec<String>,
    /// Revisions that were deregistered, such as `ci:1`.
    #[serde(default)]
    pub(crate) inactive_task_definitions: Vec<String>,
    /// How far AWS's clock is ahead of the machine's, in the `Date` of its answers.
    #[serde(default)]
    pub(crate) clock_ahead_s: i64,
}

/// A role that AssumeRole gives sessions of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssumableRole {
    pub(crate) arn: String,
    /// What its trust policy asks for.
    #[serde(default)]
    pub(crate) external_id: Option<String>,
    /// Of a session, whatever was asked; the asked or STS's hour without.
    #[serde(default)]
    pub(crate) seconds: Option<i64>,
    /// Its permissions on tasks are bound to tags, as by a policy that compares `ecs:ResourceTag/KEY` with
    /// `${aws:PrincipalTag/KEY}`: of each of these keys, task and session must have the same value.
    #[serde(default)]
    pub(crate) own_tasks_by: Vec<String>,
}

/// A cluster and the capacity providers that are associated with it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorldCluster {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) capacity_providers: Vec<String>,
    /// `EC2` and `EXTERNAL`, where the cluster has such container instances: one for each task.
    #[serde(default)]
    pub(crate) launch_types: Vec<String>,
    /// `ACTIVE` when absent; nothing starts on any other.
    #[serde(default = "active")]
    pub(crate) status: String,
}

/// What stands for a container of an image.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    pub(crate) server: Server,
    /// With `"server": "none"`: what the container runs instead of sleeping.
    #[serde(default)]
    pub(crate) command: Vec<String>,
}

/// The process that runs in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    /// Pointsman's own SSH server.
    Agent,
    /// A stock sshd, set up as an image's entry script would.
    Openssh,
    /// No server.
    None,
}

/// For how long calls do not see what has happened, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Consistency {
    /// DescribeTasks answers MISSING for so long after RunTask.
    pub(crate) describe: u64,
    /// ListTasks lags behind so far, with tasks that start and with tasks that stop.
    pub(crate) list: u64,
}

fn active() -> String {
    "ACTIVE".to_owned()
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn stop_timeout_ms() -> u64 {
    2000
}

/// A world file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// It cannot be read.
    #[error("cannot read the world file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no JSON, or has an unknown, missing or ill-typed field; the cause has line and column.
    #[error("the world file is not valid")]
    Parse(#[from] serde_json::Error),
    /// It contradicts itself.
    #[error("the world file is not valid: {0}")]
    Invalid(String),
}

impl World {
    /// Reads a world file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not valid. Task definitions are checked by [`crate::Simulator::start`],
    /// by the rules of RegisterTaskDefinition.
    pub fn read(path: &Path) -> Result<Self, WorldError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| WorldError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads a world from JSON.
    ///
    /// # Errors
    ///
    /// As [`World::read`].
    pub fn parse(text: &str) -> Result<Self, WorldError> {
        let world: Self = serde_json::from_str(text)?;
        world.check().map_err(WorldError::Invalid)?;
        Ok(world)
    }

    fn check(&self) -> Result<(), String> {
        if self.account.len() != 12 || !self.account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!(
                "`account` is `{}`, but an AWS account id has twelve digits",
                self.account
            ));
        }
        let region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.region.is_empty() || !self.region.bytes().all(region) {
            return Err(format!(
                "`region` is `{}`, expected something like `eu-west-1`",
                self.region
            ));
        }
        for (index, cluster) in self.clusters.iter().enumerate() {
            if self.clusters.iter().take(index).any(|other| other.name == cluster.name) {
                return Err(format!("cluster `{}` is there twice", cluster.name));
            }
        }
        for (name, image) in &self.images {
            if image.server != Server::None && !image.command.is_empty() {
                return Err(format!(
                    "image `{name}` has a `command`, which only `\"server\": \"none\"` may have"
                ));
            }
        }
        for role in &self.roles {
            if !names::is_role_arn(role) {
                return Err(format!("role `{role}` is not an IAM role's ARN"));
            }
        }
        for action in &self.denied {
            if !action.contains(':') {
                return Err(format!(
                    "`denied` has `{action}`, expected something like `ecs:StopTask`"
                ));
            }
        }
        if !TIME_SCALES.contains(&self.time_scale) {
            return Err(format!(
                "`time_scale` is {}, expected {} to {}",
                self.time_scale,
                TIME_SCALES.start(),
                TIME_SCALES.end()
            ));
        }
        for (name, samples) in &self.samples_ms {
            if latency::state(name).is_none() {
                let known = latency::state_names();
                return Err(format!("`samples_ms` has `{name}`, but its states are {known}"));
            }
            if samples.is_empty() {
                return Err(format!("`samples_ms` has no sample for `{name}`"));
            }
        }
        self.quotas.check().map_err(|error| format!("`quotas`: {error}"))?;
        for rule in &self.capacity {
            rule.check().map_err(|error| format!("`capacity`: {error}"))?;
        }
        for fault in &self.faults {
            fault.check().map_err(|error| format!("`faults`: {error}"))?;
        }
        Ok(())
    }

    /// What of `matches` there is not, so that nothing would ever match.
    pub(crate) fn unknown(&self, matches: &Matches) -> Option<String> {
        let is_provider = |name: &str| {
            let own =
                |cluster: &WorldCluster| cluster.capacity_providers.iter().any(|one| one == name);
            name == "FARGATE" || self.clusters.iter().any(own)
        };
        let unknown = |field: &str, name: &Option<String>, known: &dyn Fn(&str) -> bool| {
            let name = name.as_deref().filter(|name| !known(name))?;
            Some(format!("there is no {field} `{name}`"))
        };
        let cluster = |name: &str| self.clusters.iter().any(|cluster| cluster.name == name);
        let family = |name: &str| self.task_definitions.iter().any(|one| one.family == name);
        let subnet = |name: &str| self.subnets.iter().any(|one| one == name);
        unknown("cluster", &matches.cluster, &cluster)
            .or_else(|| unknown("family", &matches.family, &family))
            .or_else(|| unknown("capacity provider", &matches.capacity_provider, &is_provider))
            .or_else(|| unknown("subnet", &matches.subnet, &subnet))
    }

    /// How long tasks take.
    pub(crate) fn pace(&self) -> Pace {
        let samples = self.samples_ms.iter();
        Pace {
            seed: self.seed,
            delays: self.delays_ms,
            latencies: self.latencies,
            samples: samples
                .filter_map(|(name, list)| Some((latency::state(name)?, list.clone())))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::World;

    fn error(text: &str) -> String {
        let error = World::parse(text).expect_err("the world should be refused");
        let mut words = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            words = format!("{words}: {cause}");
        }
        words
    }

    fn with(field: &str) -> String {
        format!(r#"{{"account":"123456789012","region":"eu-west-1","clusters":[],{field}}}"#)
    }

    #[test]
    fn a_small_world_is_enough() {
        let world =
            World::parse(r#"{"account":"123456789012","region":"eu-west-1","clusters":[]}"#);
        assert!(world.is_ok(), "{world:?}");
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            (r#"{"account":"12","region":"eu-west-1","clusters":[]}"#, "twelve digits"),
            (r#"{"account":"123456789012","region":"","clusters":[]}"#, "`region`"),
            (r#"{"account":"123456789012","region":"eu-west-1"}"#, "missing field `clusters`"),
            (
                r#"{"account":"123456789012","region":"eu-west-1","clusters":[],"subnet":[]}"#,
                "unknown field `subnet`",
            ),
            (
                r#"{"account":"123456789012","region":"eu-west-1","clusters":[{"name":"a"},{"name":"a"}]}"#,
                "cluster `a` is there twice",
            ),
            (
                r#"{"account":"123456789012","region":"eu-west-1","clusters":[],"images":{"i":{"server":"agent","command":["x"]}}}"#,
                "image `i` has a `command`",
            ),
            (
                r#"{"account":"123456789012","region":"eu-west-1","clusters":[],"roles":["admin"]}"#,
                "role `admin`",
            ),
            (
                r#"{"account":"123456789012","region":"eu-west-1","clusters":[],"faults":[{"fault":{"kind":"nothing"}}]}"#,
                "unknown variant `nothing`",
            ),
            (&with(r#""time_scale":0"#), "`time_scale` is 0"),
            (&with(r#""samples_ms":{"running":[1]}"#), "its states are `provisioning`"),
            (&with(r#""samples_ms":{"pending":[]}"#), "no sample for `pending`"),
            (&with(r#""quotas":{"spot_vcpus":-1}"#), "`spot_vcpus` is -1"),
            (&with(r#""capacity":[{"tasks":1,"vcpus":1}]"#), "not in both"),
            (&with(r#""latencies":"real""#), "unknown variant `real`"),
            (
                &with(r#""faults":[{"fault":{"kind":"failure","name":"x"}}]"#),
                "there is no failure `x`",
            ),
        ];
        for (text, expected) in table {
            let words = error(text);
            assert!(words.contains(expected), "`{words}` should contain `{expected}`");
        }
    }
}
