//! `size-limits`: how large a task may be, by project, by namespace, by default.
//!
//! README.md has the settings.

use std::collections::BTreeMap;

use pointsman_policy_sdk::schema::{self, Schema};
use pointsman_policy_sdk::{
    Context, Guard, Placement, Policy, Rejection, SettingProblem, Value, settings, values,
};

/// As written.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    default: Option<RawCap>,
    #[serde(default)]
    namespaces: BTreeMap<String, RawCap>,
    #[serde(default)]
    projects: BTreeMap<String, RawCap>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCap {
    #[serde(default)]
    cpu: Option<String>,
    #[serde(default)]
    memory: Option<String>,
    #[serde(default)]
    ephemeral_storage: Option<String>,
}

/// `[policies.size-limits.settings]`
#[derive(Debug, Default)]
pub struct Settings {
    default: Cap,
    namespaces: BTreeMap<u64, Cap>,
    projects: BTreeMap<u64, Cap>,
}

/// What is `None` is not capped here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cap {
    cpu_units: Option<u32>,
    memory_mib: Option<u32>,
    storage_gib: Option<u32>,
}

/// The policy.
#[derive(Debug)]
pub struct SizeLimits;

impl Policy for SizeLimits {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "caps on sizes, by project and by namespace";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        let raw: Raw = settings::from_json(json)?;
        let mut problems = Vec::new();
        let default =
            raw.default.map(|raw| cap("default", &raw, &mut problems)).unwrap_or_default();
        let mut by_id = |table: &str, raw: BTreeMap<String, RawCap>| {
            let mut caps = BTreeMap::new();
            for (key, raw) in raw {
                let path = format!("{table}.{key}");
                let read = cap(&path, &raw, &mut problems);
                match key.parse() {
                    Ok(id) => {
                        caps.insert(id, read);
                    }
                    Err(_) => problems.push(SettingProblem {
                        path,
                        message: "expected an id in quotes, such as \"42\": paths can be renamed"
                            .to_owned(),
                    }),
                }
            }
            caps
        };
        let namespaces = by_id("namespaces", raw.namespaces);
        let projects = by_id("projects", raw.projects);
        if problems.is_empty() {
            Ok(Settings { default, namespaces, projects })
        } else {
            Err(problems)
        }
    }

    fn schema() -> Option<Schema> {
        let cap = || {
            schema::table()
                .optional("cpu", schema::text("vCPUs such as 2, 0.5 or 500m"))
                .optional("memory", schema::text("such as 4GiB or 512MiB"))
                .optional("ephemeral_storage", schema::text("21GiB to 200GiB"))
        };
        Some(
            schema::table()
                .optional("default", cap())
                .optional(
                    "namespaces",
                    schema::map("by the id of a group, its subgroups included", cap()),
                )
                .optional("projects", schema::map("by the id of a project", cap())),
        )
    }
}

fn cap(path: &str, raw: &RawCap, problems: &mut Vec<SettingProblem>) -> Cap {
    let mut read = |key: &str, text: &Option<String>, parse: fn(&str) -> Result<u32, String>| {
        parse_or(text.as_deref(), parse, |message| {
            problems.push(SettingProblem { path: format!("{path}.{key}"), message });
        })
    };
    let cap = Cap {
        cpu_units: read("cpu", &raw.cpu, values::cpu_units),
        memory_mib: read("memory", &raw.memory, values::memory_mib),
        storage_gib: read("ephemeral_storage", &raw.ephemeral_storage, values::storage_gib),
    };
    if raw.cpu.is_none() && raw.memory.is_none() && raw.ephemeral_storage.is_none() {
        problems.push(SettingProblem { path: path.to_owned(), message: "caps nothing".to_owned() });
    }
    cap
}

fn parse_or(
    text: Option<&str>,
    parse: fn(&str) -> Result<u32, String>,
    problem: impl FnOnce(String),
) -> Option<u32> {
    text.and_then(|text| parse(text).map_err(problem).ok())
}

impl Guard for SizeLimits {
    fn check<C: Context>(
        context: &C,
        settings: &Settings,
        candidate: &Placement,
    ) -> Result<(), Rejection> {
        let project = context.project();
        // The nearest that caps the thing at all: project, its group, the topmost group, everybody.
        let nearest = [
            (settings.projects.get(&project.id), format!("project {}", project.id)),
            (
                settings.namespaces.get(&project.namespace_id),
                format!("namespace {}", project.namespace_id),
            ),
            (
                settings.namespaces.get(&project.root_namespace_id),
                format!("namespace {}", project.root_namespace_id),
            ),
            (Some(&settings.default), "everybody".to_owned()),
        ];
        let limit = |of: fn(&Cap) -> Option<u32>| {
            nearest.iter().find_map(|(cap, whose)| Some((cap.and_then(of)?, whose.as_str())))
        };
        // The host has filled sizes in; where an older one has not, the task definition's count.
        let definitions = match (candidate.cpu_units, candidate.memory_mib) {
            (Some(_), Some(_)) => Vec::new(),
            _ => context.task_definitions(),
        };
        let definition =
            definitions.iter().find(|definition| definition.name == candidate.task_definition);
        let cpu =
            candidate.cpu_units.or_else(|| definition.map(|d| d.cpu_units)).unwrap_or(u32::MAX);
        let memory =
            candidate.memory_mib.or_else(|| definition.map(|d| d.memory_mib)).unwrap_or(u32::MAX);
        let storage = candidate.ephemeral_storage_gib.unwrap_or(20);
        let mut over = Vec::new();
        let mut check = |asked: u32, limit: Option<(u32, &str)>, show: fn(u32) -> String| {
            if let Some((most, whose)) = limit.filter(|&(most, _)| asked > most) {
                over.push(format!("{} is more than the {} of {whose}", show(asked), show(most)));
            }
        };
        check(cpu, limit(|cap| cap.cpu_units), |units| {
            format!("{} vCPU", f64::from(units) / 1024.0)
        });
        check(memory, limit(|cap| cap.memory_mib), |mib| {
            format!("{} GiB of memory", f64::from(mib) / 1024.0)
        });
        check(storage, limit(|cap| cap.storage_gib), |gib| format!("{gib} GiB of disk"));
        if over.is_empty() {
            return Ok(());
        }
        Err(Rejection {
            code: "too-large".to_owned(),
            message: over.join("; "),
            hint: Some("ask for less, or an operator raises the cap of `size-limits`".to_owned()),
        })
    }
}

pointsman_policy_sdk::export!(SizeLimits: guard);

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_policy_sdk::fixture::{Fixture, assert_schema_is_whole, placement};

    fn check(
        project: u64,
        cpu_units: u32,
        memory_mib: u32,
        storage: Option<u32>,
    ) -> Result<(), String> {
        let settings = SizeLimits::settings(&serde_json::json!({
            "default": {"cpu": "2", "memory": "4GiB", "ephemeral_storage": "50GiB"},
            "namespaces": {"10": {"cpu": "8"}, "1": {"memory": "16GiB"}},
            "projects": {"7": {"cpu": "16"}},
        }))
        .unwrap();
        let mut job = Fixture::default();
        job.project.id = project;
        job.project.namespace_id = 10;
        let candidate = Placement {
            cpu_units: Some(cpu_units),
            memory_mib: Some(memory_mib),
            ephemeral_storage_gib: storage,
            ..placement()
        };
        SizeLimits::check(&job, &settings, &candidate).map_err(|no| no.message)
    }

    #[test]
    fn the_nearest_cap_counts() {
        assert_eq!(check(8, 8192, 16_384, None), Ok(()));
        assert_eq!(check(7, 16_384, 16_384, Some(50)), Ok(()));
        assert_eq!(
            check(8, 16_384, 32_768, Some(60)).unwrap_err(),
            "16 vCPU is more than the 8 vCPU of namespace 10; 32 GiB of memory is more than the \
             16 GiB of memory of namespace 1; 60 GiB of disk is more than the 50 GiB of disk of everybody"
        );
    }

    #[test]
    fn an_unknown_size_is_not_a_small_one() {
        let settings = SizeLimits::settings(&serde_json::json!({"default": {"cpu": "1"}})).unwrap();
        let candidate = Placement { cpu_units: None, ..placement() };
        assert!(SizeLimits::check(&Fixture::default(), &settings, &candidate).is_err());
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        let json = serde_json::json!({"default": {"cpu": "many"}, "projects": {"a/b": {"memory": "1GiB"}}, "namespaces": {"1": {}}});
        let problems = SizeLimits::settings(&json).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["default.cpu", "namespaces.1", "projects.a/b"]);
        assert_schema_is_whole::<SizeLimits>();
    }
}
