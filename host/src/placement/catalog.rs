//! The closed lists that the operator offers: names and what they can, never an ARN.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Arch, size::Size};

/// What policies choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// By name.
    pub clusters: BTreeMap<String, Cluster>,
    /// By name.
    pub task_definitions: BTreeMap<String, TaskDefinition>,
    /// By name.
    pub roles: BTreeMap<String, Role>,
}

/// A cluster that the operator offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The operator's own notes for policies, such as `region` or `tier`.
    pub labels: BTreeMap<String, String>,
    /// What the tasks run on, for the sizes that can be had.
    pub hosts: Hosts,
    /// Whether Spot capacity can be had.
    pub has_spot: bool,
}

impl Default for Cluster {
    /// A cluster on Fargate, with Spot.
    fn default() -> Self {
        Self { labels: BTreeMap::new(), hosts: Hosts::Fargate, has_spot: true }
    }
}

/// What a cluster's tasks run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hosts {
    /// Fargate: sizes of its grid, and ephemeral storage by request.
    Fargate,
    /// Instances: any size that fits on one, and its disk as it is.
    Instances,
}

/// A task definition that the operator offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefinition {
    /// The architectures that it has an ECS task definition for; never empty.
    pub archs: Vec<Arch>,
    /// The size of a job whose policy names none; [`Size::OWN`] is the ECS task definition's.
    pub size: Size,
    /// The operator's own notes for policies.
    pub labels: BTreeMap<String, String>,
}

/// An IAM role that the operator offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Marked by the operator as able to do damage.
    pub privileged: bool,
}
