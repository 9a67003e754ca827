//! The world file: which account, clusters, networks, roles, task definitions and images there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::faults::Fault;
use crate::lifecycle::Status;
use crate::model::TaskDefinition;
use crate::names;

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
    /// With any, the account is another than the caller's: it answers only to sessions of these roles. Without,
    /// any role can be taken, and none has to be.
    #[serde(default)]
    pub(crate) assumable_roles: Vec<AssumableRole>,
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

/// How long a task stays in each state, in milliseconds. RUNNING has no delay of its own.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Delays {
    provisioning: u64,
    pending: u64,
    activating: u64,
    deactivating: u64,
    stopping: u64,
    deprovisioning: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            provisioning: 30,
            pending: 30,
            activating: 10,
            deactivating: 0,
            stopping: 10,
            deprovisioning: 10,
        }
    }
}

impl Delays {
    /// How long a task stays in `status`.
    pub(crate) fn of(&self, status: Status) -> Duration {
        Duration::from_millis(match status {
            Status::Provisioning => self.provisioning,
            Status::Pending => self.pending,
            Status::Activating => self.activating,
            Status::Running | Status::Stopped => 0,
            Status::Deactivating => self.deactivating,
            Status::Stopping => self.stopping,
            Status::Deprovisioning => self.deprovisioning,
        })
    }
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
        Ok(())
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
        ];
        for (text, expected) in table {
            let words = error(text);
            assert!(words.contains(expected), "`{words}` should contain `{expected}`");
        }
    }
}
