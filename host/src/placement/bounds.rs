//! What a profile allows, and the check of every candidate against it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Hosts};
use super::size::{self, Size};
use super::text::one_line;
use super::{Candidate, Capacity, Placement};

/// Labels of one placement; ECS allows 50 tags on a task, and the driver's own need room.
pub const MAX_LABELS: usize = 16;
/// Characters of a tag's key (AWS's limit).
pub const MAX_LABEL_KEY: usize = 128;
/// Characters of a tag's value (AWS's limit).
pub const MAX_LABEL_VALUE: usize = 256;
/// Characters of a placement's reason: one line of a job log.
pub const MAX_REASON: usize = 300;

/// What a profile's placements may be. Deny by default: a name that is not listed is not allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// One thing that a candidate asked and may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A name that the profile does not list.
    Name {
        /// `cluster`, `task definition` or `role`.
        what: &'static str,
        /// As the policy spelled it, fit for a log.
        asked: String,
        /// Nearest first.
        allowed: Vec<String>,
    },
    /// An architecture that the task definition does not have, or a capacity that the profile does not allow.
    Choice {
        /// `architecture` or `capacity`.
        what: &'static str,
        /// What was asked.
        asked: String,
        /// What there is.
        allowed: Vec<String>,
    },
    /// CPU and memory.
    Size(size::SizeError),
    /// Spot, on a cluster that has none.
    NoSpot {
        /// The cluster.
        cluster: String,
    },
    /// Ephemeral storage, on a cluster whose tasks use their instance's disk.
    InstanceStorage {
        /// The cluster.
        cluster: String,
    },
    /// Ephemeral storage in GiB.
    EphemeralStorage {
        /// What was asked.
        asked: u32,
        /// The profile's bound.
        max: u32,
    },
    /// More labels than [`MAX_LABELS`].
    Labels(usize),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { what, asked, allowed } => {
                write!(formatter, "{what} `{asked}` is not allowed: ")?;
                write_allowed(formatter, "the profile allows", allowed)
            }
            Self::Choice { what: "architecture", asked, allowed } => {
                write!(formatter, "architecture `{asked}` is not available: ")?;
                write_allowed(formatter, "the task definition has", allowed)
            }
            Self::Choice { what, asked, allowed } => {
                write!(formatter, "{what} `{asked}` is not allowed: ")?;
                write_allowed(formatter, "the profile allows", allowed)
            }
            Self::Size(error) => write!(formatter, "size {error}"),
            Self::NoSpot { cluster } => {
                write!(
                    formatter,
                    "capacity `spot` is not available: cluster `{cluster}` has no `spot_provider`"
                )
            }
            Self::InstanceStorage { cluster } => write!(
                formatter,
                "ephemeral storage cannot be chosen: tasks of cluster `{cluster}` use their instance's disk"
            ),
            Self::EphemeralStorage { asked, .. } if !STORAGE_GIB.contains(asked) => {
                write!(formatter, "ephemeral storage of {asked} GiB: Fargate offers 21 to 200 GiB")
            }
            Self::EphemeralStorage { asked, max } => write!(
                formatter,
                "ephemeral storage of {asked} GiB is too much: the profile allows at most {max} GiB"
            ),
            Self::Labels(count) => {
                write!(formatter, "{count} labels are too many: at most {MAX_LABELS} fit")
            }
        }
    }
}

const STORAGE_GIB: std::ops::RangeInclusive<u32> = 21..=200;

/// At most eight names: the line is for a job log.
fn write_allowed(formatter: &mut fmt::Formatter<'_>, who: &str, allowed: &[String]) -> fmt::Result {
    const SHOWN: usize = 8;
    if allowed.is_empty() {
        return write!(formatter, "{who} none");
    }
    write!(formatter, "{who} ")?;
    for (index, name) in allowed.iter().take(SHOWN).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(formatter, "{comma}`{name}`")?;
    }
    match allowed.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(formatter, " and {more} more"),
    }
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

    /// Makes a placement of `candidate`: every name allowed and known, on Fargate the size rounded up to one that
    /// it offers, texts fit for logs and tags.
    ///
    /// # Errors
    ///
    /// Returns everything that the candidate asked and may not have.
    pub fn check(
        &self,
        candidate: &Candidate,
        catalog: &Catalog,
    ) -> Result<Placement, Vec<Violation>> {
        let mut violations = Vec::new();
        let mut name = |what,
                        asked: &str,
                        known: &mut dyn Iterator<Item = &String>,
                        listed: &BTreeSet<String>| {
            let allowed: Vec<&String> = known.filter(|name| listed.contains(*name)).collect();
            if !allowed.iter().any(|name| *name == asked) {
                violations.push(Violation::Name {
                    what,
                    asked: one_line(asked, 64),
                    allowed: nearest_first(asked, &allowed),
                });
            }
        };
        name("cluster", &candidate.cluster, &mut catalog.clusters.keys(), &self.clusters);
        name(
            "task definition",
            &candidate.task_definition,
            &mut catalog.task_definitions.keys(),
            &self.task_definitions,
        );
        if let Some(role) = &candidate.role {
            name("role", role, &mut catalog.roles.keys(), &self.roles);
        }
        let definition = catalog
            .task_definitions
            .get(&candidate.task_definition)
            .filter(|_| self.task_definitions.contains(&candidate.task_definition));
        if let Some(definition) = definition
            && !definition.archs.contains(&candidate.arch)
        {
            violations.push(Violation::Choice {
                what: "architecture",
                asked: candidate.arch.to_string(),
                allowed: definition.archs.iter().map(ToString::to_string).collect(),
            });
        }
        if !self.capacities.contains(&candidate.capacity) {
            violations.push(Violation::Choice {
                what: "capacity",
                asked: candidate.capacity.to_string(),
                allowed: self.capacities.iter().map(ToString::to_string).collect(),
            });
        }
        let cluster = catalog
            .clusters
            .get(&candidate.cluster)
            .filter(|_| self.clusters.contains(&candidate.cluster));
        if candidate.capacity == Capacity::Spot && cluster.is_some_and(|cluster| !cluster.has_spot)
        {
            violations.push(Violation::NoSpot { cluster: candidate.cluster.clone() });
        }
        let is_on_instances = cluster.is_some_and(|cluster| cluster.hosts == Hosts::Instances);
        let max = Size { cpu_units: self.max_cpu_units, memory_mib: self.max_memory_mib };
        let default = definition.map_or(Size::DEFAULT, |definition| definition.size);
        let fit = if is_on_instances { size::fit_on_instances } else { size::fit };
        let names_size = candidate.cpu_units.is_some() || candidate.memory_mib.is_some();
        let size = if default.is_own() && !names_size {
            // The operator's choice in ECS, which the driver cannot hold against the bounds.
            Some(Size::OWN)
        } else {
            let default = if default.is_own() { Size::DEFAULT } else { default };
            fit(candidate.cpu_units, candidate.memory_mib, default, max)
                .map_err(|error| violations.push(Violation::Size(error)))
                .ok()
        };
        if let Some(asked) = candidate.ephemeral_storage_gib {
            let max = self.max_ephemeral_storage_gib;
            if is_on_instances {
                violations.push(Violation::InstanceStorage { cluster: candidate.cluster.clone() });
            } else if !STORAGE_GIB.contains(&asked) || asked > max {
                violations.push(Violation::EphemeralStorage { asked, max });
            }
        }
        if candidate.labels.len() > MAX_LABELS {
            violations.push(Violation::Labels(candidate.labels.len()));
        }
        match size {
            Some(size) if violations.is_empty() => Ok(Placement {
                cluster: candidate.cluster.clone(),
                task_definition: candidate.task_definition.clone(),
                arch: candidate.arch,
                capacity: candidate.capacity,
                size,
                ephemeral_storage_gib: candidate.ephemeral_storage_gib,
                role: candidate.role.clone(),
                labels: clean_labels(&candidate.labels),
                reason: one_line(&candidate.reason, MAX_REASON),
            }),
            _ => Err(violations),
        }
    }
}

fn clean_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| (one_line(key, MAX_LABEL_KEY), one_line(value, MAX_LABEL_VALUE)))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

fn nearest_first(asked: &str, allowed: &[&String]) -> Vec<String> {
    // Comparing is quadratic in the length, and the guest chose it.
    let asked: String = asked.chars().take(64).collect();
    let mut names: Vec<String> = allowed.iter().map(|name| (*name).clone()).collect();
    names.sort_by_cached_key(|name| strsim::damerau_levenshtein(&asked, name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Arch;
    use crate::placement::catalog::{Cluster, Role, TaskDefinition};

    fn catalog() -> Catalog {
        let definition = |archs: &[Arch]| TaskDefinition {
            archs: archs.to_vec(),
            size: Size { cpu_units: 512, memory_mib: 1024 },
            labels: BTreeMap::new(),
        };
        Catalog {
            clusters: ["dev", "staging", "prod"]
                .map(|name| (name.to_owned(), Cluster::default()))
                .into(),
            task_definitions: [
                ("node".to_owned(), definition(&[Arch::X86_64, Arch::Arm64])),
                ("old".to_owned(), definition(&[Arch::X86_64])),
            ]
            .into(),
            roles: [("deploy".to_owned(), Role { privileged: true })].into(),
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn bounds() -> Bounds {
        Bounds {
            clusters: names(&["dev", "staging", "gone"]),
            task_definitions: names(&["node", "old"]),
            roles: names(&["deploy"]),
            capacities: [Capacity::OnDemand].into(),
            max_cpu_units: 2048,
            max_memory_mib: 8192,
            max_ephemeral_storage_gib: 50,
        }
    }

    fn candidate() -> Candidate {
        Candidate {
            cluster: "dev".to_owned(),
            task_definition: "node".to_owned(),
            arch: Arch::Arm64,
            capacity: Capacity::OnDemand,
            cpu_units: None,
            memory_mib: None,
            ephemeral_storage_gib: None,
            role: None,
            labels: BTreeMap::new(),
            reason: "because".to_owned(),
        }
    }

    #[test]
    fn instances_bind_otherwise_than_fargate() {
        let mut catalog = catalog();
        let instances = Cluster { hosts: Hosts::Instances, has_spot: false, ..Cluster::default() };
        catalog.clusters.insert("dev".to_owned(), instances);
        let bounds = Bounds { capacities: [Capacity::OnDemand, Capacity::Spot].into(), ..bounds() };
        let odd = Candidate { cpu_units: Some(700), memory_mib: Some(900), ..candidate() };
        let size = bounds.check(&odd, &catalog).unwrap().size;
        assert_eq!(size, Size { cpu_units: 700, memory_mib: 900 });
        let wanting =
            Candidate { capacity: Capacity::Spot, ephemeral_storage_gib: Some(30), ..candidate() };
        let violations = bounds.check(&wanting, &catalog).unwrap_err();
        let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "capacity `spot` is not available: cluster `dev` has no `spot_provider`",
                "ephemeral storage cannot be chosen: tasks of cluster `dev` use their instance's disk",
            ]
        );
    }

    #[test]
    fn a_candidate_in_bounds_becomes_a_placement() {
        let asked = Candidate {
            memory_mib: Some(3000),
            ephemeral_storage_gib: Some(50),
            role: Some("deploy".to_owned()),
            labels: BTreeMap::from([
                ("team\n".to_owned(), "a\tb".to_owned()),
                ("\u{7}".to_owned(), String::new()),
            ]),
            reason: format!("\u{1b}[2J{}", "x".repeat(400)),
            ..candidate()
        };
        let placement = bounds().check(&asked, &catalog()).unwrap();
        assert_eq!(placement.size, Size { cpu_units: 512, memory_mib: 3072 });
        assert_eq!(placement.role.as_deref(), Some("deploy"));
        assert_eq!(placement.labels, BTreeMap::from([("team".to_owned(), "a b".to_owned())]));
        assert!(placement.reason.starts_with("[2Jxx"));
        assert_eq!(placement.reason.chars().count(), MAX_REASON);
        let plain = bounds().check(&candidate(), &catalog()).unwrap();
        assert_eq!(plain.size, Size { cpu_units: 512, memory_mib: 1024 }, "the definition's own");
    }

    #[test]
    fn what_is_out_of_bounds_is_told_with_what_is_allowed() {
        type Change = fn(&mut Candidate);
        let cases: [(Change, &str); 12] = [
            (
                |candidate| candidate.cluster = "prod".to_owned(),
                "cluster `prod` is not allowed: the profile allows `dev`, `staging`",
            ),
            (
                |candidate| candidate.cluster = "stagin".to_owned(),
                "cluster `stagin` is not allowed: the profile allows `staging`, `dev`",
            ),
            (
                |candidate| candidate.cluster = "gone".to_owned(),
                "cluster `gone` is not allowed: the profile allows `dev`, `staging`",
            ),
            (
                |candidate| candidate.task_definition = "nodes\n".to_owned(),
                "task definition `nodes` is not allowed: the profile allows `node`, `old`",
            ),
            (
                |candidate| candidate.role = Some("admin".to_owned()),
                "role `admin` is not allowed: the profile allows `deploy`",
            ),
            (
                |candidate| candidate.task_definition = "old".to_owned(),
                "architecture `arm64` is not available: the task definition has `x86_64`",
            ),
            (
                |candidate| candidate.capacity = Capacity::Spot,
                "capacity `spot` is not allowed: the profile allows `on-demand`",
            ),
            (
                |candidate| candidate.cpu_units = Some(4096),
                "size 4 vCPU / 1 GiB rounds up to 4 vCPU / 8 GiB, and the profile allows at most 2 vCPU / 8 GiB",
            ),
            (
                |candidate| candidate.ephemeral_storage_gib = Some(20),
                "ephemeral storage of 20 GiB: Fargate offers 21 to 200 GiB",
            ),
            (
                |candidate| candidate.ephemeral_storage_gib = Some(201),
                "ephemeral storage of 201 GiB: Fargate offers 21 to 200 GiB",
            ),
            (
                |candidate| candidate.ephemeral_storage_gib = Some(51),
                "ephemeral storage of 51 GiB is too much: the profile allows at most 50 GiB",
            ),
            (
                |candidate| {
                    candidate.labels =
                        (0..17).map(|index| (index.to_string(), String::new())).collect();
                },
                "17 labels are too many: at most 16 fit",
            ),
        ];
        for (change, message) in cases {
            let mut asked = candidate();
            change(&mut asked);
            let violations = bounds().check(&asked, &catalog()).unwrap_err();
            let messages: Vec<String> = violations.iter().map(ToString::to_string).collect();
            assert_eq!(messages, [message]);
        }
    }

    #[test]
    fn all_violations_are_told_and_nothing_is_allowed_by_default() {
        let violations = Bounds::default().check(&candidate(), &catalog()).unwrap_err();
        let messages: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "cluster `dev` is not allowed: the profile allows none",
                "task definition `node` is not allowed: the profile allows none",
                "capacity `on-demand` is not allowed: the profile allows none",
                "size 1 vCPU / 2 GiB is too large, and the profile allows at most 0 vCPU / 0 GiB",
            ]
        );
    }
}
