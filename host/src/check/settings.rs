//! The settings file by itself: sizes, names that nobody uses, files that it names.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Findings, Kind};
use crate::placement::Capacity;
use crate::placement::size::{self, Size, SizeError};
use crate::settings::{Cluster, ClusterBackend, LaunchKind, Profile, Settings};

pub(super) fn look(settings: &Settings, other_machine: bool, findings: &mut Findings<'_>) {
    if !other_machine {
        files(settings, findings);
    }
    unused(settings, findings);
    sizes(settings, findings);
    for (name, profile) in &settings.profiles {
        bounds(settings, name, profile, findings);
    }
}

fn files(settings: &Settings, findings: &mut Findings<'_>) {
    let directory = &settings.state_directory;
    match std::fs::metadata(directory) {
        Ok(found) if !found.is_dir() => findings.change(
            Kind::StateUnusable,
            "state.directory",
            format!("{} is no directory", directory.display()),
            "name a directory that belongs to GitLab Runner's user",
        ),
        // Not there is fine: the first stage makes it.
        _ => {}
    }
    if let Some(file) = settings.gitlab.as_ref().and_then(|gitlab| gitlab.ca_file.as_ref())
        && let Err(error) = std::fs::File::open(file)
    {
        findings.change(
            Kind::CaFile,
            "gitlab.ca_file",
            format!("{} cannot be read: {error}", file.display()),
            "name a file of certificates in PEM, or leave `ca_file` out to trust the system's",
        );
    }
    for (name, cluster) in &settings.clusters {
        if let ClusterBackend::Local(local) = &cluster.backend
            && let Some(agent) = &local.agent
            && !is_program(agent)
        {
            findings.change(
                Kind::AgentMissing,
                format!("clusters.{name}.agent"),
                format!("{} is no program", agent.display()),
                "name the executable `pointsman-agent`, or leave `agent` out where it lies beside the driver",
            );
        }
    }
}

/// Whether `path` can be executed by somebody.
pub(super) fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn unused(settings: &Settings, findings: &mut Findings<'_>) {
    let profiles = || settings.profiles.values();
    let named = |of: fn(&Profile) -> &BTreeSet<String>| -> BTreeSet<&String> {
        profiles().flat_map(of).collect()
    };
    let clusters = named(|profile| &profile.bounds.clusters);
    let definitions = named(|profile| &profile.bounds.task_definitions);
    let roles = named(|profile| &profile.bounds.roles);
    let policies: BTreeSet<&String> = profiles().flat_map(|profile| &profile.policies).collect();
    let mut report =
        |kind, table: &str, names: Vec<&String>, used: &BTreeSet<&String>, how: &str| {
            for name in names.into_iter().filter(|name| !used.contains(name)) {
                findings.change(
                    kind,
                    format!("{table}.{name}"),
                    format!("no profile {how} it"),
                    format!("add `{name}` to a profile, or remove [{table}.{name}]"),
                );
            }
        };
    let names = settings.clusters.keys().collect();
    report(Kind::ClusterUnused, "clusters", names, &clusters, "allows");
    let names = settings.task_definitions.keys().collect();
    report(Kind::TaskDefinitionUnused, "task_definitions", names, &definitions, "allows");
    let names = settings.roles.keys().collect();
    report(Kind::RoleUnused, "roles", names, &roles, "allows");
    let names = settings.policies.keys().collect();
    report(Kind::PolicyUnused, "policies", names, &policies, "asks");
}

/// The clusters that `profile` allows.
pub(super) fn clusters<'s>(
    settings: &'s Settings,
    profile: &'s Profile,
) -> impl Iterator<Item = &'s Cluster> {
    profile.bounds.clusters.iter().filter_map(|name| settings.clusters.get(name))
}

/// Whether sizes on `cluster` are Fargate's: a local cluster takes them as well.
fn is_fargate(cluster: &Cluster) -> bool {
    match &cluster.backend {
        ClusterBackend::Ecs(ecs) => ecs.launch == LaunchKind::Fargate,
        ClusterBackend::Local(_) => true,
    }
}

fn has_spot(cluster: &Cluster) -> bool {
    match &cluster.backend {
        ClusterBackend::Ecs(ecs) => ecs.spot_provider.is_some(),
        ClusterBackend::Local(_) => true,
    }
}

/// The default size of each task definition that a profile may use on Fargate.
fn sizes(settings: &Settings, findings: &mut Findings<'_>) {
    for (name, definition) in &settings.task_definitions {
        let on_fargate: Vec<(&String, &Profile)> = settings
            .profiles
            .iter()
            .filter(|(_, profile)| profile.bounds.task_definitions.contains(name))
            .filter(|(_, profile)| clusters(settings, profile).any(is_fargate))
            .collect();
        if on_fargate.is_empty() {
            continue;
        }
        let wanted = definition.size;
        if wanted == Size::OWN {
            continue;
        }
        let place = format!("task_definitions.{name}");
        let exact = |max| size::fit(Some(wanted.cpu_units), Some(wanted.memory_mib), wanted, max);
        let fitted = match exact(Size::LARGEST) {
            Ok(fitted) => fitted,
            Err(error) => {
                let change = format!("set `cpu` and `memory` to at most {}", Size::LARGEST);
                findings.change(Kind::SizeNotOffered, place, error.to_string(), change);
                continue;
            }
        };
        if fitted != wanted {
            findings.change(
                Kind::SizeRounded,
                place.clone(),
                format!("{wanted} rounds up to {fitted}"),
                format!("set {}", keys(fitted)),
            );
        }
        for (profile_name, profile) in on_fargate {
            if let Err(error @ SizeError::TooLarge { .. }) = exact(largest(profile)) {
                findings.change(
                    Kind::SizeOverBounds,
                    format!("profiles.{profile_name}.bounds"),
                    format!("of task definition `{name}`, {error}"),
                    format!(
                        "raise `max_cpu` and `max_memory` of [profiles.{profile_name}.bounds] to {fitted}, or lower `cpu` and `memory` of [{place}]"
                    ),
                );
            }
        }
    }
}

const fn largest(profile: &Profile) -> Size {
    Size { cpu_units: profile.bounds.max_cpu_units, memory_mib: profile.bounds.max_memory_mib }
}

/// As the file spells a size.
fn keys(size: Size) -> String {
    let cpu = f64::from(size.cpu_units) / 1024.0;
    let memory = match (size.memory_mib / 1024, size.memory_mib % 1024) {
        (gib, 0) => format!("{gib}GiB"),
        _ => format!("{}MiB", size.memory_mib),
    };
    format!("`cpu = \"{cpu}\"` and `memory = \"{memory}\"`")
}

fn bounds(settings: &Settings, name: &str, profile: &Profile, findings: &mut Findings<'_>) {
    let place = format!("profiles.{name}.bounds");
    let spots = clusters(settings, profile).filter(|cluster| has_spot(cluster)).count();
    let may_spot = profile.bounds.capacities.contains(&Capacity::Spot);
    let remedy = "set `spot_provider` of a cluster that the profile allows, or change `capacities`";
    if profile.bounds.capacities.is_empty() {
        findings.change(
            Kind::NothingToPlace,
            format!("{place}.capacities"),
            "is empty",
            "set `capacities = [\"on-demand\"]`",
        );
    } else if may_spot && spots == 0 {
        let only = profile.bounds.capacities.len() == 1;
        let kind = if only { Kind::NothingToPlace } else { Kind::SpotNowhere };
        findings.change(
            kind,
            format!("{place}.capacities"),
            "allows Spot, but none of the profile's clusters has any",
            remedy,
        );
    }
    if !clusters(settings, profile).any(is_fargate) {
        return;
    }
    let max = largest(profile);
    let Some(reachable) = size::largest_within(max) else {
        findings.change(
            Kind::BoundsTooSmall,
            place,
            format!("allows at most {max}, and Fargate's smallest is {}", Size::SMALLEST),
            format!(
                "set {}",
                keys(Size::SMALLEST).replace("`cpu", "`max_cpu").replace("`memory", "`max_memory")
            ),
        );
        return;
    };
    if reachable != max {
        findings.change(
            Kind::BoundsOffGrid,
            place,
            format!("allows at most {max}, of which Fargate offers at most {reachable}"),
            format!(
                "set {}",
                keys(reachable).replace("`cpu", "`max_cpu").replace("`memory", "`max_memory")
            ),
        );
    }
}
