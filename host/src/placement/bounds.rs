//! What a profile allows, and the check of every candidate against it.

use std::collections::BTreeSet;

use super::Capacity;
use super::catalog::Catalog;

/// What a profile's placements may be. Deny by default: a name that is not listed is not allowed.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Allowed clusters.
    pub clusters: BTreeSet<String>,
    /// Allowed task definitions.
    pub task_definitions: BTreeSet<String>,
    /// Allowed roles.
    pub roles: BTreeSet<String>,
    /// Allowed capacities.
    pub capacities: BTreeSet<Capacity>,
    /// CPU units.
    pub max_cpu_units: u32,
    /// MiB.
    pub max_memory_mib: u32,
    /// GiB.
    pub max_ephemeral_storage_gib: u32,
}

impl Bounds {
    /// `catalog` without what these bounds do not allow.
    pub fn narrow(&self, catalog: &Catalog) -> Catalog {
        let mut narrowed = catalog.clone();
        narrowed.clusters.retain(|name, _| self.clusters.contains(name));
        narrowed.task_definitions.retain(|name, _| self.task_definitions.contains(name));
        narrowed.roles.retain(|name, _| self.roles.contains(name));
        narrowed
    }
}
