//! Which clusters are looked at, and what the profiles may start on each: pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::placement::Capacity;
use crate::settings::{Profile, Settings};

/// A catalog cluster with what profiles may start on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scope {
    /// The catalog's name of the cluster.
    pub cluster: String,
    /// The profiles whose bounds name it.
    pub profiles: Vec<String>,
    /// Task definitions by the catalog's name.
    pub definitions: BTreeSet<String>,
    /// Roles by the catalog's name.
    pub roles: BTreeSet<String>,
    /// What any of the profiles may ask for.
    pub capacities: BTreeSet<Capacity>,
    /// The largest CPU units of one job.
    pub max_cpu_units: u32,
    /// The least CPU units that a job has whose policy names none; `None` where ECS's task definitions say.
    pub usual_cpu_units: Option<u32>,
    /// The largest MiB of one job.
    pub max_memory_mib: u32,
}

/// A name that the settings do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    /// `profile` or `cluster`.
    pub what: &'static str,
    /// As asked.
    pub name: String,
    /// What there is.
    pub known: Vec<String>,
}

/// The clusters to look at: all, or those of `profile`, or just `cluster`.
///
/// # Errors
///
/// Fails when the settings have no such profile or cluster.
pub(super) fn scopes(
    settings: &Settings,
    profile: Option<&str>,
    cluster: Option<&str>,
) -> Result<Vec<Scope>, Unknown> {
    let unknown =
        |what, name: &str, known: Vec<String>| Unknown { what, name: name.to_owned(), known };
    let profiles: BTreeMap<&str, &Profile> = match profile {
        None => settings.profiles.iter().map(|(name, profile)| (name.as_str(), profile)).collect(),
        Some(name) => settings
            .profiles
            .get_key_value(name)
            .map(|(name, profile)| BTreeMap::from([(name.as_str(), profile)]))
            .ok_or_else(|| unknown("profile", name, settings.profiles.keys().cloned().collect()))?,
    };
    if let Some(name) = cluster
        && !settings.clusters.contains_key(name)
    {
        return Err(unknown("cluster", name, settings.clusters.keys().cloned().collect()));
    }
    let mut scopes = Vec::new();
    for name in settings.clusters.keys() {
        if cluster.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let scope = scope_of(name, settings, &profiles);
        // A profile that was named has its own clusters; a cluster that was named is looked at in any case.
        if profile.is_none() || cluster.is_some() || !scope.profiles.is_empty() {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

fn scope_of(cluster: &str, settings: &Settings, profiles: &BTreeMap<&str, &Profile>) -> Scope {
    let mut scope = Scope { cluster: cluster.to_owned(), ..Scope::default() };
    for (name, profile) in profiles {
        let bounds = &profile.bounds;
        if !bounds.clusters.contains(cluster) {
            continue;
        }
        scope.profiles.push((*name).to_owned());
        scope.definitions.extend(bounds.task_definitions.iter().cloned());
        scope.roles.extend(bounds.roles.iter().cloned());
        scope.capacities.extend(bounds.capacities.iter().copied());
        scope.max_cpu_units = scope.max_cpu_units.max(bounds.max_cpu_units);
        scope.max_memory_mib = scope.max_memory_mib.max(bounds.max_memory_mib);
    }
    let usual = scope.definitions.iter().filter_map(|name| settings.task_definitions.get(name));
    scope.usual_cpu_units = usual
        .filter(|definition| !definition.size.is_own())
        .map(|definition| definition.size.cpu_units)
        .min();
    scope
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings() -> Settings {
        let file = format!(
            "[state]\ndirectory = \"/s\"\n\
             [clusters.a]\nbackend = \"local\"\n[clusters.b]\nbackend = \"local\"\n[clusters.c]\nbackend = \"local\"\n\
             [task_definitions.t]\nx86_64 = \"t\"\nssh = {{ server = \"agent\" }}\n\
             [policies.p]\ncomponent = \"p.wasm\"\nsha256 = \"{}\"\n\
             [profiles.one]\npolicies = [\"p\"]\nbounds = {{ clusters = [\"a\"], task_definitions = [\"t\"], max_cpu = \"2\", max_memory = \"8GiB\" }}\n\
             [profiles.two]\npolicies = [\"p\"]\nbounds = {{ clusters = [\"a\", \"b\"], task_definitions = [\"t\"], max_cpu = \"4\", max_memory = \"8GiB\", capacities = [\"spot\"] }}\n",
            "0".repeat(64)
        );
        crate::settings::read(&file, Path::new("/")).unwrap()
    }

    #[test]
    fn all_clusters_are_looked_at_or_those_that_were_named() {
        let names = |profile, cluster| {
            let scopes = scopes(&settings(), profile, cluster).unwrap();
            scopes.into_iter().map(|scope| scope.cluster).collect::<Vec<_>>()
        };
        assert_eq!(names(None, None), ["a", "b", "c"]);
        assert_eq!(names(Some("one"), None), ["a"]);
        assert_eq!(names(Some("two"), None), ["a", "b"]);
        assert_eq!(names(None, Some("c")), ["c"]);
        assert_eq!(names(Some("one"), Some("b")), ["b"]);
    }

    #[test]
    fn a_cluster_has_what_its_profiles_may_start() {
        let scopes = scopes(&settings(), None, None).unwrap();
        assert_eq!(scopes[0].profiles, ["one", "two"]);
        assert_eq!((scopes[0].max_cpu_units, scopes[0].usual_cpu_units), (4096, Some(1024)));
        assert_eq!(scopes[0].capacities, [Capacity::OnDemand, Capacity::Spot].into());
        assert_eq!(scopes[1].capacities, [Capacity::Spot].into());
        assert_eq!(scopes[2].definitions.len(), 0);
    }

    #[test]
    fn unknown_names_are_told_with_those_that_there_are() {
        let unknown = scopes(&settings(), Some("three"), None).unwrap_err();
        assert_eq!((unknown.what, unknown.known), ("profile", vec!["one".into(), "two".into()]));
        assert_eq!(scopes(&settings(), None, Some("d")).unwrap_err().what, "cluster");
    }
}
