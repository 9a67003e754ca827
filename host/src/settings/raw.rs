//! From the file's tables to [`Settings`]: which keys there are, their defaults, and what must fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::default::{self, Offered};

use super::table::{Source, Table};
use super::{
    ClaimsTaint, Cluster, ClusterBackend, Component, Gitlab, HostKeySource, JobTags, LocalCluster,
    Mode, OnError, Policy, Problem, Profile, Role, Settings, Shell, SshServer, SshTimes,
    TaskDefinition, TaskSsh,
};
use super::{description, ecs, gitlab, log, values};
use crate::placement::bounds::Bounds;
use crate::placement::{Arch, Capacity, size::Size};
use crate::spelling::{list, nearest};

/// Fargate gives this much without asking.
const INCLUDED_STORAGE_GIB: u32 = 20;

/// Has `read` read the tables of `text`; every mistake that it reports, when there is one.
pub(super) fn read<T>(
    text: &str,
    read: impl FnOnce(&Table<'_>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let source = Source::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            source.report(offset, "TOML", error.message().to_owned());
        }
        return Err(source.into_problems());
    }
    let answer = read(&Table::root(&source, document.get_ref()));
    let problems = source.into_problems();
    // A table that could not be read has reported why, so the two cannot disagree.
    answer.filter(|_| problems.is_empty()).ok_or(problems)
}

pub(super) fn settings(root: &Table<'_>, directory: &Path) -> Option<Settings> {
    let state = root.table("state");
    let state_directory = state.required(
        "directory",
        "where the driver keeps its attempts, such as \"/var/lib/pointsman\"",
        values::text,
    );
    state.finish(&description::STATE);
    let manager = root.table("manager");
    let manager_name = manager.optional("name", values::named);
    manager.finish(&description::MANAGER);
    let gitlab = gitlab_api(root.table("gitlab"), directory);
    let ssh = ssh_times(root.table("ssh"));
    let log = log::read(&root.table("log"), directory);
    let sweep = root.table("sweep");
    let automatic_sweep = sweep.optional("automatic", values::flag).unwrap_or(true);
    sweep.finish(&description::SWEEP);
    let clusters = named(root, "clusters", cluster);
    let task_definitions = named(root, "task_definitions", task_definition);
    let roles = named(root, "roles", role);
    let policies = named(root, "policies", |table| policy(table, directory));
    let names = Names {
        clusters: clusters.names,
        task_definitions: task_definitions.names,
        roles: roles.names,
        policies: policies.names,
    };
    let offered = Offered { clusters: &clusters.read, task_definitions: &task_definitions.read };
    let profiles = named(root, "profiles", |table| profile(table, &names, &offered));
    // Profiles that go by their defaults need none.
    let lacks_policies = names.policies.is_empty()
        && profiles.read.values().any(|profile| !profile.policies.is_empty());
    for (key, missing) in [
        ("clusters", names.clusters.is_empty()),
        ("task_definitions", names.task_definitions.is_empty()),
        ("policies", lacks_policies),
        ("profiles", profiles.names.is_empty()),
    ] {
        if missing && !root.has(key) {
            root.report(key, format!("is missing: expected at least one [{key}.NAME]"));
        }
    }
    root.finish(&description::ROOT);
    Some(Settings {
        state_directory: directory.join(state_directory?),
        manager: manager_name.unwrap_or_else(|| "default".to_owned()),
        gitlab,
        ssh,
        log,
        automatic_sweep,
        clusters: clusters.read,
        task_definitions: task_definitions.read,
        roles: roles.read,
        policies: policies.read,
        profiles: profiles.read,
    })
}

/// The names that a profile may refer to, those of broken tables included: one mistake, one report.
struct Names {
    clusters: BTreeSet<String>,
    task_definitions: BTreeSet<String>,
    roles: BTreeSet<String>,
    policies: BTreeSet<String>,
}

struct Named<T> {
    names: BTreeSet<String>,
    read: BTreeMap<String, T>,
}

fn named<'t, T>(
    root: &Table<'t>,
    key: &'static str,
    mut read_one: impl FnMut(Table<'t>) -> Option<T>,
) -> Named<T> {
    let mut named = Named { names: BTreeSet::new(), read: BTreeMap::new() };
    for (name, table) in root.named_tables(key) {
        named.names.insert(name.clone());
        if let Some(entry) = read_one(table) {
            named.read.insert(name, entry);
        }
    }
    named
}

fn gitlab_api(table: Table<'_>, directory: &Path) -> Option<Gitlab> {
    let url = table.optional("url", |value| gitlab::url(&values::text(value)?));
    let job_tags = table.optional("job_tags", |value| {
        let modes = [
            ("required", JobTags::Required),
            ("preferred", JobTags::Preferred),
            ("off", JobTags::Off),
        ];
        values::choice(value, &modes)
    });
    let timeout = table.optional("timeout", values::duration);
    let ca_file = table.optional("ca_file", values::text);
    if job_tags == Some(JobTags::Required) && !table.has("url") {
        table.report("job_tags", "is `required`, but `url` is missing: whom to ask for the tags?");
    }
    table.finish(&description::GITLAB);
    Some(Gitlab {
        url: url?,
        job_tags: job_tags.unwrap_or(JobTags::Preferred),
        timeout: timeout.unwrap_or(Duration::from_secs(5)),
        ca_file: ca_file.map(|file| directory.join(file)),
    })
}

fn ssh_times(table: Table<'_>) -> SshTimes {
    let seconds = |key, default| {
        table.optional(key, values::duration).unwrap_or(Duration::from_secs(default))
    };
    let times = SshTimes {
        ready_timeout: seconds("ready_timeout", 120),
        connect_timeout: seconds("connect_timeout", 5),
        keepalive: seconds("keepalive", 15),
        resume_timeout: seconds("resume_timeout", 300),
        stop_grace: seconds("stop_grace", 10),
    };
    table.finish(&description::SSH);
    times
}

fn cluster(table: Table<'_>) -> Option<Cluster> {
    #[derive(Clone, Copy)]
    enum Kind {
        Ecs,
        Local,
    }
    let kind = table.required("backend", "expected one of `ecs`, `local`", |value| {
        values::choice(value, &[("ecs", Kind::Ecs), ("local", Kind::Local)])
    });
    let labels = table.optional("labels", values::labels).unwrap_or_default();
    // Without a backend nobody can tell which keys belong here, so none is called unknown.
    let backend = match kind? {
        Kind::Ecs => ecs::read(&table).map(|ecs| ClusterBackend::Ecs(Box::new(ecs))),
        Kind::Local => Some(ClusterBackend::Local(LocalCluster {
            agent: table.optional("agent", values::text).map(Into::into),
        })),
    };
    table.finish(match kind? {
        Kind::Ecs => &description::CLUSTER_ECS,
        Kind::Local => &description::CLUSTER_LOCAL,
    });
    Some(Cluster { labels, backend: backend? })
}

fn task_definition(table: Table<'_>) -> Option<TaskDefinition> {
    let mut by_arch = BTreeMap::new();
    for (key, arch) in [("x86_64", Arch::X86_64), ("arm64", Arch::Arm64)] {
        if let Some(definition) = table.optional(key, values::text) {
            by_arch.insert(arch, definition);
        }
    }
    if by_arch.is_empty() && !table.has("x86_64") && !table.has("arm64") {
        table.report(
            "x86_64",
            "is missing: expected `x86_64` or `arm64` or both, each naming an ECS task definition",
        );
    }
    let container = table.optional("container", values::text);
    let cpu = table.optional("cpu", values::cpu_units);
    let memory = table.optional("memory", values::memory_mib);
    let own_size =
        table.optional("size", |value| values::choice(value, &[("task-definition", Size::OWN)]));
    if own_size.is_some() && (table.has("cpu") || table.has("memory")) {
        table.report(
            "size",
            "is left to the ECS task definition, so `cpu` and `memory` do not go with it",
        );
    }
    let wanted = own_size.unwrap_or(Size {
        cpu_units: cpu.unwrap_or(Size::DEFAULT.cpu_units),
        memory_mib: memory.unwrap_or(Size::DEFAULT.memory_mib),
    });
    let directory = |key, default: &str| match table.optional(key, task_directory) {
        Some(directory) => directory,
        None => Some(default.to_owned()),
    };
    let builds_dir = directory("builds_dir", "/builds");
    let cache_dir = directory("cache_dir", "/cache");
    let shell = table.optional("shell", |value| {
        let shells = [("bash", Shell::Bash), ("sh", Shell::Sh), ("login", Shell::Login)];
        values::choice(value, &shells)
    });
    let labels = table.optional("labels", values::labels).unwrap_or_default();
    let ssh = task_ssh(table.table("ssh"));
    table.finish(&description::TASK_DEFINITION);
    Some(TaskDefinition {
        by_arch,
        container: container.unwrap_or_else(|| "ci-coordinator".to_owned()),
        size: wanted,
        builds_dir,
        cache_dir,
        shell: shell.unwrap_or(Shell::Bash),
        ssh: ssh?,
        labels,
    })
}

/// A directory in the task; `None` for the one of GitLab Runner's `config.toml`.
fn task_directory(value: &toml::de::DeValue<'_>) -> Result<Option<String>, String> {
    let path = values::text(value)?;
    if path == "runner" {
        return Ok(None);
    }
    // The path ends up in generated scripts and GitLab Runner joins to it.
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    if path.starts_with('/') && plain && !path.split('/').any(|part| part == "..") {
        return Ok(Some(path));
    }
    Err(format!(
        "is `{path}`, expected an absolute path of letters, digits, `-`, `_` and `.`, or `runner` for the one in GitLab Runner's config.toml"
    ))
}

fn task_ssh(table: Table<'_>) -> Option<TaskSsh> {
    let server = table.required("server", "expected one of `openssh`, `agent`", |value| {
        values::choice(value, &[("openssh", SshServer::Openssh), ("agent", SshServer::Agent)])
    });
    let user = table.optional("user", values::text);
    let port = table.optional("port", |value| {
        values::number(value, 1..=u64::from(u16::MAX))
            .map(|port| u16::try_from(port).unwrap_or(u16::MAX))
    });
    let host_key = table.optional("host_key", |value| {
        let sources =
            [("injected", HostKeySource::Injected), ("first-contact", HostKeySource::FirstContact)];
        values::choice(value, &sources)
    });
    let server = server?;
    if server == SshServer::Agent && host_key == Some(HostKeySource::FirstContact) {
        table.report(
            "host_key",
            "is `first-contact`, but the agent always takes an injected key: leave it out",
        );
    }
    table.finish(&description::TASK_SSH);
    Some(TaskSsh {
        server,
        user: user.unwrap_or_else(|| "root".to_owned()),
        port: port.unwrap_or(match server {
            SshServer::Openssh => 22,
            SshServer::Agent => 2222,
        }),
        host_key: host_key.unwrap_or(match server {
            SshServer::Openssh => HostKeySource::FirstContact,
            SshServer::Agent => HostKeySource::Injected,
        }),
    })
}

fn role(table: Table<'_>) -> Option<Role> {
    let arn = table.required("arn", "expected the IAM role's ARN", values::role_arn);
    let privileged = table.optional("privileged", values::flag).unwrap_or(false);
    table.finish(&description::ROLE);
    Some(Role { arn: arn?, privileged })
}

fn policy(table: Table<'_>, directory: &Path) -> Option<Policy> {
    let component = table.required(
        "component",
        "expected the path of a WebAssembly component, or `oci://HOST/NAME@sha256:…`",
        |value| Component::parse(&values::text(value)?, directory),
    );
    let sha256 = table.required(
        "sha256",
        "expected the digest of the component, as `sha256sum FILE` prints it",
        values::sha256,
    );
    let settings = table.optional("settings", |value| match value {
        toml::de::DeValue::Table(_) => values::json(value),
        _ => Err(format!("is a {}, expected a table", value.type_str())),
    });
    let fuel = table.optional("fuel", |value| values::number(value, 1..=100_000_000_000));
    let deadline = table.optional("deadline", values::duration);
    let memory = table.optional("memory", values::memory_mib);
    let on_error = table.optional("on_error", |value| {
        values::choice(value, &[("reject", OnError::Reject), ("abstain", OnError::Abstain)])
    });
    let mode = table.optional("mode", |value| {
        values::choice(value, &[("enforce", Mode::Enforce), ("monitor", Mode::Monitor)])
    });
    let wasi = table.optional("wasi", values::flag);
    table.finish(&description::POLICY);
    let mut policy = Policy::new(component?, sha256?);
    policy.settings = settings.unwrap_or(policy.settings);
    policy.fuel = fuel.unwrap_or(policy.fuel);
    policy.deadline = deadline.unwrap_or(policy.deadline);
    policy.memory_mib = memory.unwrap_or(policy.memory_mib);
    policy.on_error = on_error.unwrap_or(policy.on_error);
    policy.mode = mode.unwrap_or(policy.mode);
    policy.wasi = wasi.unwrap_or(policy.wasi);
    Some(policy)
}

fn profile(table: Table<'_>, names: &Names, offered: &Offered<'_>) -> Option<Profile> {
    let tags = table.optional("tags", values::texts);
    let policies =
        table.required("policies", "expected the policies to ask, in order", values::texts);
    if let Some(listed) = policies.as_deref() {
        known(&table, "policies", listed, &names.policies);
    }
    let monitor = table.optional("monitor", values::texts).unwrap_or_default();
    let listed = policies.as_deref().unwrap_or_default();
    if let Some(name) = monitor.iter().find(|name| !listed.contains(name)) {
        table.report("monitor", format!("names `{name}`, which is none of `policies`"));
    }
    let claims_taint = table.optional("claims_taint", |value| {
        let taints = [
            ("allow", ClaimsTaint::Allow),
            ("deny-privileged-roles", ClaimsTaint::DenyPrivilegedRoles),
        ];
        values::choice(value, &taints)
    });
    if !table.has("bounds") {
        table.report("bounds", "is missing: expected what a placement may be, such as { clusters = […], task_definitions = […], max_cpu = \"4\", max_memory = \"16GiB\" }");
    }
    let bounds = table.table("bounds");
    let present = table.has("bounds");
    let default = default::Tables::of(&table);
    table.finish(&description::PROFILE);
    let bounds = if present { bounds_of(bounds, names) } else { None };
    let has_policies = policies.as_ref().is_none_or(|listed| !listed.is_empty());
    let default = default.read(has_policies, bounds.as_ref(), offered);
    Some(Profile {
        tags: tags.unwrap_or_default().into_iter().collect(),
        policies: policies?,
        monitor: monitor.into_iter().collect(),
        bounds: bounds?,
        claims_taint: claims_taint.unwrap_or(ClaimsTaint::Allow),
        default: default
            .map(|default| Policy::new(Component::BuiltIn(Box::new(default)), String::new())),
    })
}

fn bounds_of(table: Table<'_>, names: &Names) -> Option<Bounds> {
    let clusters = table.required("clusters", "expected the clusters allowed", values::texts);
    let definitions =
        table.required("task_definitions", "expected the task definitions allowed", values::texts);
    let roles = table.optional("roles", values::texts).unwrap_or_default();
    for (key, listed, all) in [
        ("clusters", clusters.as_deref(), &names.clusters),
        ("task_definitions", definitions.as_deref(), &names.task_definitions),
        ("roles", Some(roles.as_slice()), &names.roles),
    ] {
        known(&table, key, listed.unwrap_or_default(), all);
    }
    for (key, listed) in [("clusters", &clusters), ("task_definitions", &definitions)] {
        if listed.as_ref().is_some_and(Vec::is_empty) {
            table.report(key, "is empty, so no job could be placed");
        }
    }
    let max_cpu = table.required("max_cpu", "expected vCPUs, such as \"4\"", values::cpu_units);
    let max_memory =
        table.required("max_memory", "expected an amount, such as \"16GiB\"", values::memory_mib);
    let max_storage = table.optional("max_ephemeral_storage", values::storage_gib);
    let capacities = table.optional("capacities", |value| {
        let choices = [("on-demand", Capacity::OnDemand), ("spot", Capacity::Spot)];
        let array = value.as_array().ok_or("is no list of capacities")?;
        array.iter().map(|entry| values::choice(entry.get_ref(), &choices)).collect()
    });
    table.finish(&description::BOUNDS);
    Some(Bounds {
        clusters: clusters?.into_iter().collect(),
        task_definitions: definitions?.into_iter().collect(),
        roles: roles.into_iter().collect(),
        capacities: capacities.unwrap_or_else(|| BTreeSet::from([Capacity::OnDemand])),
        max_cpu_units: max_cpu?,
        max_memory_mib: max_memory?,
        max_ephemeral_storage_gib: max_storage.unwrap_or(INCLUDED_STORAGE_GIB),
    })
}

/// Reports the entries of `listed` that no table declares.
fn known(table: &Table<'_>, key: &'static str, listed: &[String], all: &BTreeSet<String>) {
    let what = key.trim_end_matches('s').replace("policie", "policy").replace('_', " ");
    for name in listed.iter().filter(|name| !all.contains(*name)) {
        let message = match nearest(name, all.iter().map(String::as_str)) {
            Some(nearest) => format!("names no {what} `{name}`: did you mean `{nearest}`?"),
            None if all.is_empty() => format!("names the {what} `{name}`, but the file has none"),
            None => format!("names no {what} `{name}`; the file has {}", list(all.iter())),
        };
        table.report(key, message);
    }
}
