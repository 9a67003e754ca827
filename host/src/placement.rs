//! Where a job runs: the words of a placement, free of IO and of any backend.
//!
//! A policy answers [`Candidate`]s; the host makes [`Placement`]s of those that the catalog, the
//! profile's bounds ([`bounds`]) and Fargate's size grid ([`size`]) allow.

pub mod bounds;
pub mod catalog;
pub mod size;
pub mod text;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use size::Size;

/// A CPU architecture, as ECS task definitions know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arch {
    /// ECS `X86_64`.
    #[serde(rename = "x86_64")]
    X86_64,
    /// ECS `ARM64` (Graviton).
    #[serde(rename = "arm64")]
    Arm64,
}

impl fmt::Display for Arch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        })
    }
}

/// How the capacity is bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// Full price, never taken back.
    OnDemand,
    /// Cheaper; AWS may take it back with two minutes' notice.
    Spot,
}

impl fmt::Display for Capacity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        })
    }
}

/// What a policy proposes, before the host has checked anything of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// A catalog name.
    pub cluster: String,
    /// A catalog name.
    pub task_definition: String,
    /// Must be one that the task definition offers.
    pub arch: Arch,
    /// Must be one that the bounds allow.
    pub capacity: Capacity,
    /// CPU units (1,024 = 1 vCPU); `None` leaves it to the task definition's default.
    pub cpu_units: Option<u32>,
    /// MiB; `None` leaves it to the task definition's default.
    pub memory_mib: Option<u32>,
    /// GiB, 21 to 200; `None` is Fargate's own 20 GiB.
    pub ephemeral_storage_gib: Option<u32>,
    /// A catalog name; `None` is the role of the task definition.
    pub role: Option<String>,
    /// For the record and for task tags.
    pub labels: BTreeMap<String, String>,
    /// One line for the people who read the job log.
    pub reason: String,
}

/// A checked candidate: every name is in the catalog and in bounds, the size is legal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// A catalog name.
    pub cluster: String,
    /// A catalog name.
    pub task_definition: String,
    /// One that the task definition offers.
    pub arch: Arch,
    /// One that the bounds allow.
    pub capacity: Capacity,
    /// On Fargate a pair that it offers, or [`Size::OWN`].
    pub size: Size,
    /// GiB, 21 to 200; `None` is Fargate's own 20 GiB.
    pub ephemeral_storage_gib: Option<u32>,
    /// A catalog name; `None` is the role of the task definition.
    pub role: Option<String>,
    /// For the record and for task tags.
    pub labels: BTreeMap<String, String>,
    /// One line for the people who read the job log.
    pub reason: String,
}

impl fmt::Display for Placement {
    /// `cluster dev, task definition node, arm64, spot, 1 vCPU / 2 GiB, role dev-deploy`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "cluster {}, task definition {}, {}, {}, {}",
            self.cluster, self.task_definition, self.arch, self.capacity, self.size
        )?;
        if let Some(gib) = self.ephemeral_storage_gib {
            write!(formatter, ", {gib} GiB disk")?;
        }
        match &self.role {
            Some(role) => write!(formatter, ", role {role}"),
            None => write!(formatter, ", the task definition's role"),
        }
    }
}
