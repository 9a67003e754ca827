//! `[profiles.*.default]` and `[profiles.*.fargate_variables]`: the built-in answer for jobs that no policy places,
//! and what of it a pipeline's author may choose by the variables of GitLab's Fargate driver.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Table;
use super::{Cluster, ClusterBackend, TaskDefinition, description, values};
use crate::placement::bounds::Bounds;
use crate::placement::{Arch, Capacity};
use crate::spelling::list;

/// The name of the built-in answer in chains and records; no name of a table has a space.
pub const DEFAULT_POLICY: &str = "built-in default";

/// Where a job goes that no policy places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultPlacement {
    /// A catalog name.
    pub cluster: String,
    /// A catalog name.
    pub task_definition: String,
    /// One that the task definition has.
    pub arch: Arch,
    /// One that the bounds allow.
    pub capacity: Capacity,
    /// A catalog name; `None` is the task definition's role.
    pub role: Option<String>,
    /// What `FARGATE_TASK_DEFINITION` may say: a task definition of the catalog, and the architecture that it has.
    pub task_definitions: AuthorsChoice<(String, Arch)>,
    /// What `FARGATE_PLATFORM_VERSION` may say: a cluster of the catalog.
    pub platform_versions: AuthorsChoice<String>,
}

/// What an author can say in a variable, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorsChoice<T> {
    /// Whether the operator lets authors choose at all.
    pub is_open: bool,
    /// By the variable's value; the default's own is always among them.
    pub allowed: BTreeMap<String, T>,
}

/// The tables that were read, for what a default must fit to.
pub(super) struct Offered<'o> {
    pub(super) clusters: &'o BTreeMap<String, Cluster>,
    pub(super) task_definitions: &'o BTreeMap<String, TaskDefinition>,
}

/// The two tables of a profile before its bounds are known.
pub(super) struct Tables<'t> {
    is_there: bool,
    default: Table<'t>,
    variables_are_there: bool,
    variables: Table<'t>,
}

impl<'t> Tables<'t> {
    pub(super) fn of(profile: &Table<'t>) -> Self {
        Self {
            is_there: profile.has("default"),
            default: profile.table("default"),
            variables_are_there: profile.has("fargate_variables"),
            variables: profile.table("fargate_variables"),
        }
    }

    /// The default within `bounds`; `None` when there is none, or a wrong one (then reported).
    pub(super) fn read(
        self,
        has_policies: bool,
        bounds: Option<&Bounds>,
        offered: &Offered<'_>,
    ) -> Option<DefaultPlacement> {
        let table = &self.default;
        let cluster = table.optional("cluster", values::text);
        let task_definition = table.optional("task_definition", values::text);
        let archs = [("x86_64", Arch::X86_64), ("arm64", Arch::Arm64)];
        let arch = table.optional("arch", |value| values::choice(value, &archs));
        let capacities = [("on-demand", Capacity::OnDemand), ("spot", Capacity::Spot)];
        let capacity = table.optional("capacity", |value| values::choice(value, &capacities));
        let role = table.optional("role", values::text);
        table.finish(&description::DEFAULT);
        let variables = Variables::read(&self.variables);
        let bounds = bounds?;
        if has_policies && !self.is_there {
            if self.variables_are_there {
                self.variables.report(
                    "task_definitions",
                    "has no effect: policies decide here, and they read variables themselves; add [profiles.NAME.default] for jobs that none places",
                );
            }
            return None;
        }
        let cluster = one_of(table, "cluster", cluster, &bounds.clusters)?;
        let task_definition =
            one_of(table, "task_definition", task_definition, &bounds.task_definitions)?;
        // Absent when its own table has mistakes, which are reported there.
        let definition = offered.task_definitions.get(&task_definition)?;
        let has: BTreeSet<Arch> = definition.by_arch.keys().copied().collect();
        let arch = one_of(table, "arch", arch, &has)?;
        let capacity = one_of(table, "capacity", capacity, &bounds.capacities)?;
        if let Some(role) = &role
            && !bounds.roles.contains(role)
        {
            table.report("role", format!("is `{role}`, which `bounds` do not allow"));
        }
        let task_definitions = variables.task_definitions(
            &self.variables,
            (&task_definition, arch),
            bounds,
            offered.task_definitions,
        );
        let platform_versions =
            variables.platform_versions(&self.variables, &cluster, bounds, offered.clusters);
        Some(DefaultPlacement {
            cluster,
            task_definition,
            arch,
            capacity,
            role,
            task_definitions,
            platform_versions,
        })
    }
}

/// What is said, if it is allowed; the only one that is allowed, if nothing is said.
fn one_of<T: Ord + Clone + ToString>(
    table: &Table<'_>,
    key: &'static str,
    said: Option<T>,
    allowed: &BTreeSet<T>,
) -> Option<T> {
    let names = || list(allowed.iter().map(ToString::to_string));
    match said {
        Some(said) if allowed.contains(&said) => return Some(said),
        Some(said) => table.report(
            key,
            format!("is `{}`, which cannot be had: there is {}", said.to_string(), names()),
        ),
        // Wrong, and reported.
        None if table.has(key) => {}
        None if allowed.len() == 1 => return allowed.first().cloned(),
        None if allowed.is_empty() => {}
        None => table.report(
            key,
            format!("is missing: where shall a job go that no policy places? There is {}", names()),
        ),
    }
    None
}

/// `[profiles.*.fargate_variables]`: names of the catalog.
struct Variables {
    task_definitions: Option<Vec<String>>,
    clusters: Option<Vec<String>>,
}

impl Variables {
    fn read(table: &Table<'_>) -> Self {
        let task_definitions = table.optional("task_definitions", values::texts);
        let clusters = table.optional("clusters", values::texts);
        table.finish(&description::FARGATE_VARIABLES);
        Self { task_definitions, clusters }
    }

    fn task_definitions(
        &self,
        table: &Table<'_>,
        (own, arch): (&String, Arch),
        bounds: &Bounds,
        offered: &BTreeMap<String, TaskDefinition>,
    ) -> AuthorsChoice<(String, Arch)> {
        let listed = self.task_definitions.as_deref().unwrap_or_default();
        let allowed = within(table, "task_definitions", listed, &bounds.task_definitions);
        let mut choices = BTreeMap::new();
        // The default last, so that its own spelling means it.
        for name in allowed.into_iter().chain([own]) {
            let Some(definition) = offered.get(name) else { continue };
            let arch = if definition.by_arch.contains_key(&arch) {
                Some(arch)
            } else {
                definition.by_arch.keys().next().copied()
            };
            if let Some((arch, spelled)) =
                arch.and_then(|arch| Some((arch, definition.by_arch.get(&arch)?)))
            {
                choices.entry(name.clone()).or_insert_with(|| (name.clone(), arch));
                choices.insert(spelled.clone(), (name.clone(), arch));
            }
        }
        AuthorsChoice { is_open: self.task_definitions.is_some(), allowed: choices }
    }

    fn platform_versions(
        &self,
        table: &Table<'_>,
        own: &String,
        bounds: &Bounds,
        offered: &BTreeMap<String, Cluster>,
    ) -> AuthorsChoice<String> {
        let listed = self.clusters.as_deref().unwrap_or_default();
        let mut choices = BTreeMap::new();
        for name in within(table, "clusters", listed, &bounds.clusters) {
            match version_of(offered.get(name)) {
                Some(version) => {
                    choices.insert(version, name.clone());
                }
                None => table.report(
                    "clusters",
                    format!(
                        "names `{name}`, which has no `platform_version` for the variable to name"
                    ),
                ),
            }
        }
        // AWS's name of what a request without a version means.
        let version = version_of(offered.get(own)).unwrap_or_else(|| "LATEST".to_owned());
        choices.insert(version, own.clone());
        AuthorsChoice { is_open: self.clusters.is_some(), allowed: choices }
    }
}

fn version_of(cluster: Option<&Cluster>) -> Option<String> {
    match &cluster?.backend {
        ClusterBackend::Ecs(ecs) => ecs.platform_version.clone(),
        ClusterBackend::Local(_) => None,
    }
}

/// Those of `listed` that `bounds` allow; the others are reported.
fn within<'l>(
    table: &Table<'_>,
    key: &'static str,
    listed: &'l [String],
    bounds: &BTreeSet<String>,
) -> Vec<&'l String> {
    let (allowed, others): (Vec<_>, Vec<_>) =
        listed.iter().partition(|name| bounds.contains(*name));
    if !others.is_empty() {
        table.report(key, format!("names {}, which `bounds` do not allow", list(others)));
    }
    allowed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Component, read};
    use super::*;

    /// Two of everything, and the profile `p` with `lines`.
    fn settings(lines: &str) -> Result<DefaultPlacement, Vec<String>> {
        let text = format!(
            r#"
[state]
directory = "/state"
[clusters.a]
backend = "ecs"
region = "eu-west-1"
cluster = "a"
subnets = ["subnet-1"]
[clusters.b]
backend = "ecs"
region = "eu-west-1"
cluster = "a"
subnets = ["subnet-1"]
platform_version = "1.4.0"
[task_definitions.one]
x86_64 = "one-task"
size = "task-definition"
ssh = {{ server = "openssh" }}
[task_definitions.both]
x86_64 = "both-task:7"
arm64 = "both-arm"
ssh = {{ server = "openssh" }}
[profiles.p]
policies = []
{lines}
"#
        );
        let settings = read(&text, Path::new("/"))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let policy = settings.profiles["p"].default.clone().unwrap();
        let Component::BuiltIn(default) = policy.component else { panic!("{policy:?}") };
        Ok(*default)
    }

    const BOTH: &str = "bounds = { clusters = ['a', 'b'], task_definitions = ['one', 'both'], capacities = ['on-demand', 'spot'], max_cpu = '1', max_memory = '2GiB' }\n";

    #[test]
    fn what_bounds_leave_no_choice_of_need_not_be_said() {
        let default = settings(
            "bounds = { clusters = ['a'], task_definitions = ['one'], max_cpu = '1', max_memory = '2GiB' }",
        )
        .unwrap();
        assert_eq!((default.cluster.as_str(), default.task_definition.as_str()), ("a", "one"));
        assert_eq!((default.arch, default.capacity), (Arch::X86_64, Capacity::OnDemand));
        assert!(!default.task_definitions.is_open && !default.platform_versions.is_open);
        let means = |value: &str| default.task_definitions.allowed.get(value).cloned();
        assert_eq!(means("one-task"), Some(("one".to_owned(), Arch::X86_64)));
        assert_eq!(default.platform_versions.allowed["LATEST"], "a");
    }

    #[test]
    fn what_bounds_leave_open_must_be_said() {
        assert_eq!(
            settings(BOTH).unwrap_err(),
            [
                "line 23: profiles.p.default.cluster: is missing: where shall a job go that no policy places? There is `a`, `b`"
            ]
        );
        assert_eq!(
            settings(&format!(
                "{BOTH}default = {{ cluster = 'a', task_definition = 'both', capacity = 'spot' }}"
            ))
            .unwrap_err(),
            [
                "line 26: profiles.p.default.arch: is missing: where shall a job go that no policy places? There is `x86_64`, `arm64`"
            ]
        );
    }

    #[test]
    fn every_wrong_name_is_told() {
        let lines = format!(
            "{BOTH}default = {{ cluster = 'a', task_definition = 'one', capacity = 'spot', role = 'root', color = 1 }}\nfargate_variables = {{ task_definitions = ['both', 'none'], clusters = ['a', 'c'] }}\n"
        );
        assert_eq!(
            settings(&lines).unwrap_err(),
            [
                "line 26: profiles.p.default.role: is `root`, which `bounds` do not allow",
                "line 26: profiles.p.default.color: is no key of this table, which has `cluster`, `task_definition`, `arch`, `capacity`, `role`",
                "line 27: profiles.p.fargate_variables.task_definitions: names `none`, which `bounds` do not allow",
                "line 27: profiles.p.fargate_variables.clusters: names `c`, which `bounds` do not allow",
                "line 27: profiles.p.fargate_variables.clusters: names `a`, which has no `platform_version` for the variable to name",
            ]
        );
    }

    #[test]
    fn a_value_means_what_ecs_calls_so() {
        let lines = format!(
            "{BOTH}default = {{ cluster = 'a', task_definition = 'one', capacity = 'spot' }}\nfargate_variables = {{ task_definitions = ['both'], clusters = ['b'] }}\n"
        );
        let default = settings(&lines).unwrap();
        let values: Vec<&str> =
            default.task_definitions.allowed.keys().map(String::as_str).collect();
        assert_eq!(values, ["both", "both-task:7", "one", "one-task"]);
        let versions: Vec<_> = default.platform_versions.allowed.iter().collect();
        assert_eq!(
            versions,
            [(&"1.4.0".to_owned(), &"b".to_owned()), (&"LATEST".to_owned(), &"a".to_owned())]
        );
    }
}
