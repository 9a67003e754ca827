//! The settings as JSON, checked: every problem at once, each with its path.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_policy_sdk::schema::{self, Schema};
use pointsman_policy_sdk::{Arch, Capacity, SettingProblem, Value, values};
use serde_json::Map;

/// `[policies.by-tag.settings]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// In the file's order; never empty.
    pub rules: Vec<Rule>,
    /// What becomes of a job with a tag that no rule has.
    pub unknown_tags: UnknownTags,
}

/// `unknown_tags = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownTags {
    /// The default: a tag is a wish, and a wish that nobody knows must not go unheard.
    Reject,
    /// For tags that only choose the runner.
    Ignore,
}

/// One of `rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A job must have all of these; never empty.
    pub tags: BTreeSet<String>,
    /// What the rule says about the placement.
    pub pieces: Pieces,
    /// Ranked overlays, each of which makes one candidate.
    pub alternatives: Vec<Pieces>,
}

/// Parts of a placement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// A name of the catalog.
    pub cluster: Option<String>,
    /// A name of the catalog.
    pub task_definition: Option<String>,
    /// `x86_64` or `arm64`
    pub arch: Option<Arch>,
    /// `on-demand` or `spot`
    pub capacity: Option<Capacity>,
    /// From `cpu`; 1,024 units are one vCPU.
    pub cpu_units: Option<u32>,
    /// From `memory`.
    pub memory_mib: Option<u32>,
    /// From `ephemeral_storage`; 21 to 200.
    pub ephemeral_storage_gib: Option<u32>,
    /// A name of the catalog.
    pub role: Option<String>,
    /// For the record and for task tags.
    pub labels: BTreeMap<String, String>,
    /// Told to the reader of the job log, before the rules that decided.
    pub reason: Option<String>,
}

impl Pieces {
    /// Puts what `other` says over what is here.
    pub fn overlay(&mut self, other: &Self) {
        fn put<T: Clone>(under: &mut Option<T>, over: &Option<T>) {
            if over.is_some() {
                under.clone_from(over);
            }
        }
        put(&mut self.cluster, &other.cluster);
        put(&mut self.task_definition, &other.task_definition);
        put(&mut self.arch, &other.arch);
        put(&mut self.capacity, &other.capacity);
        put(&mut self.cpu_units, &other.cpu_units);
        put(&mut self.memory_mib, &other.memory_mib);
        put(&mut self.ephemeral_storage_gib, &other.ephemeral_storage_gib);
        put(&mut self.role, &other.role);
        put(&mut self.reason, &other.reason);
        for (key, value) in &other.labels {
            self.labels.insert(key.clone(), value.clone());
        }
    }
}

const PIECES: [&str; 10] = [
    "cluster",
    "task_definition",
    "arch",
    "capacity",
    "cpu",
    "memory",
    "ephemeral_storage",
    "role",
    "labels",
    "reason",
];

/// Reads the settings.
///
/// # Errors
///
/// Returns every problem, in the file's order.
pub fn read(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
    let mut problems = Problems::default();
    let settings = problems.settings(json);
    if problems.0.is_empty() { Ok(settings) } else { Err(problems.0) }
}

/// What was found so far. Each method reads one part, and answers something harmless for a part that is wrong.
#[derive(Default)]
struct Problems(Vec<SettingProblem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(SettingProblem { path: path.into(), message: message.into() });
    }

    fn settings(&mut self, json: &Value) -> Settings {
        let mut settings = Settings { rules: Vec::new(), unknown_tags: UnknownTags::Reject };
        let Some(table) = self.table("", json) else { return settings };
        self.unknown_keys("", table, &["rules", "unknown_tags"]);
        if let Some(value) = table.get("unknown_tags") {
            match value.as_str() {
                Some("reject") => {}
                Some("ignore") => settings.unknown_tags = UnknownTags::Ignore,
                _ => self.add(
                    "unknown_tags",
                    format!("is {}, expected `reject` or `ignore`", shown(value)),
                ),
            }
        }
        match table.get("rules") {
            Some(Value::Array(rules)) if !rules.is_empty() => {
                settings.rules = rules
                    .iter()
                    .enumerate()
                    .filter_map(|(index, rule)| self.rule(&format!("rules[{index}]"), rule))
                    .collect();
                self.duplicates(rules);
            }
            Some(value @ Value::Array(_)) | Some(value) => self.add(
                "rules",
                format!(
                    "is {}, expected at least one rule such as {{ tags = [\"dev\"], … }}",
                    shown(value)
                ),
            ),
            None => self.add("rules", "is missing: without rules no job can be placed"),
        }
        settings
    }

    fn rule(&mut self, path: &str, json: &Value) -> Option<Rule> {
        let table = self.table(path, json)?;
        let known: Vec<&str> = ["tags", "alternatives"].into_iter().chain(PIECES).collect();
        self.unknown_keys(path, table, &known);
        let tags = self.tags(&format!("{path}.tags"), table.get("tags"));
        let pieces = self.pieces(path, table);
        let alternatives =
            self.alternatives(&format!("{path}.alternatives"), table.get("alternatives"));
        if pieces == Pieces::default() && alternatives.is_empty() && table.len() <= 1 {
            self.add(path, "says nothing about the placement");
        }
        Some(Rule { tags, pieces, alternatives })
    }

    fn tags(&mut self, path: &str, json: Option<&Value>) -> BTreeSet<String> {
        let mut tags = BTreeSet::new();
        match json {
            Some(Value::Array(values)) if !values.is_empty() => {
                for (index, value) in values.iter().enumerate() {
                    match value.as_str() {
                        Some(tag) if tag.trim().is_empty() => {
                            self.add(format!("{path}[{index}]"), "is empty");
                        }
                        Some(tag) if !tags.insert(tag.to_owned()) => {
                            self.add(format!("{path}[{index}]"), format!("names `{tag}` again"));
                        }
                        Some(_) => {}
                        None => self.add(
                            format!("{path}[{index}]"),
                            format!("is {}, expected a tag in quotes", shown(value)),
                        ),
                    }
                }
            }
            Some(value) => self.add(
                path,
                format!("is {}, expected at least one tag such as [\"dev\"]", shown(value)),
            ),
            None => self.add(path, "is missing: a rule is for jobs with certain tags"),
        }
        tags
    }

    fn alternatives(&mut self, path: &str, json: Option<&Value>) -> Vec<Pieces> {
        match json {
            None => Vec::new(),
            Some(Value::Array(values)) if !values.is_empty() => {
                let mut alternatives: Vec<Pieces> = Vec::new();
                for (index, value) in values.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let Some(table) = self.table(&path, value) else { continue };
                    self.unknown_keys(&path, table, &PIECES);
                    let pieces = self.pieces(&path, table);
                    if alternatives.contains(&pieces) {
                        self.add(path, "is the same as an earlier alternative");
                    }
                    alternatives.push(pieces);
                }
                alternatives
            }
            Some(value) => {
                self.add(
                    path,
                    format!(
                        "is {}, expected at least one such as {{ capacity = \"spot\" }}",
                        shown(value)
                    ),
                );
                Vec::new()
            }
        }
    }

    fn pieces(&mut self, path: &str, table: &Map<String, Value>) -> Pieces {
        Pieces {
            cluster: self.value(path, table, "cluster", text),
            task_definition: self.value(path, table, "task_definition", text),
            arch: self.value(path, table, "arch", values::arch),
            capacity: self.value(path, table, "capacity", values::capacity),
            cpu_units: self.value(path, table, "cpu", values::cpu_units),
            memory_mib: self.value(path, table, "memory", values::memory_mib),
            ephemeral_storage_gib: self.value(
                path,
                table,
                "ephemeral_storage",
                values::storage_gib,
            ),
            role: self.value(path, table, "role", text),
            labels: self.labels(&format!("{path}.labels"), table.get("labels")),
            reason: self.value(path, table, "reason", text),
        }
    }

    fn labels(&mut self, path: &str, json: Option<&Value>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let Some(table) = json.and_then(|json| self.table(path, json)) else { return labels };
        for (key, value) in table {
            match value.as_str() {
                Some(text) => {
                    labels.insert(key.clone(), text.to_owned());
                }
                None => self.add(
                    format!("{path}.{key}"),
                    format!("is {}, expected a text in quotes", shown(value)),
                ),
            }
        }
        labels
    }

    fn value<T>(
        &mut self,
        path: &str,
        table: &Map<String, Value>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = table.get(key)?;
        let parsed = match value.as_str() {
            Some(text) => parse(text),
            None => Err(format!("is {}, expected a text in quotes", shown(value))),
        };
        parsed.map_err(|message| self.add(join(path, key), message)).ok()
    }

    fn table<'a>(&mut self, path: &str, json: &'a Value) -> Option<&'a Map<String, Value>> {
        let table = json.as_object();
        if table.is_none() {
            self.add(path, format!("is {}, expected a table", shown(json)));
        }
        table
    }

    fn unknown_keys(&mut self, path: &str, table: &Map<String, Value>, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            self.add(join(path, key), format!("is unknown, expected one of {}", known.join(", ")));
        }
    }

    /// Two rules for the same tags: the author of the file thinks of one of them only.
    fn duplicates(&mut self, rules: &[Value]) {
        let sets: Vec<BTreeSet<&str>> = rules
            .iter()
            .map(|rule| {
                let tags = rule.get("tags").and_then(Value::as_array);
                tags.into_iter().flatten().filter_map(Value::as_str).collect()
            })
            .collect();
        for (index, set) in sets.iter().enumerate().filter(|(_, set)| !set.is_empty()) {
            if let Some(first) = sets[..index].iter().position(|earlier| earlier == set) {
                self.add(
                    format!("rules[{index}].tags"),
                    format!("are those of rules[{first}]: make one rule of both"),
                );
            }
        }
    }
}

/// The settings as JSON Schema, for editors; [`read`] is what checks them.
pub(crate) fn schema() -> Schema {
    fn pieces(table: Schema) -> Schema {
        table
            .optional("cluster", schema::text("a cluster of the catalog"))
            .optional("task_definition", schema::text("a task definition of the catalog"))
            .optional("arch", schema::choice("the architecture", &["x86_64", "arm64"]))
            .optional("capacity", schema::choice("how it is bought", &["on-demand", "spot"]))
            .optional("cpu", schema::text("vCPUs such as 2, 0.5 or 500m"))
            .optional("memory", schema::text("such as 4GiB or 512MiB"))
            .optional("ephemeral_storage", schema::text("21GiB to 200GiB"))
            .optional("role", schema::text("a role of the catalog"))
            .optional("labels", schema::map("for the record and for task tags", schema::text("")))
            .optional("reason", schema::text("a text for the job log"))
    }
    let rule = pieces(schema::table())
        .required("tags", schema::list("a job must have all of these", schema::text("a tag")))
        .optional("alternatives", schema::list("ranked overlays", pieces(schema::table())));
    schema::table().required("rules", schema::list("at least one", rule)).optional(
        "unknown_tags",
        schema::choice("what becomes of a job with a tag that no rule has", &["reject", "ignore"]),
    )
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(value) => format!("`{value}`"),
        Value::Array(values) if values.is_empty() => "an empty list".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_has_every_setting() {
        pointsman_policy_sdk::fixture::assert_schema_is_whole::<crate::ByTag>();
    }

    fn problems(json: Value) -> Vec<String> {
        read(&json)
            .unwrap_err()
            .into_iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect()
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let known = "rules: is missing: without rules no job can be placed";
        assert_eq!(problems(json!({})), [known]);
        assert_eq!(schema().keys(), ["rules", "unknown_tags"]);
        assert_eq!(
            problems(json!({"x": 1, "rules": [{"tags": ["a"], "cluster": "c"}]})),
            [format!("x: is unknown, expected one of {}", schema().keys().join(", "))]
        );
    }

    #[test]
    fn reads_a_whole_rule() {
        let settings = read(&json!({
            "unknown_tags": "ignore",
            "rules": [{
                "tags": ["dev", "arm64"], "cluster": "dev", "task_definition": "node", "arch": "arm64",
                "capacity": "spot", "cpu": "2", "memory": "4GiB", "ephemeral_storage": "50GiB",
                "role": "deploy", "labels": {"team": "a"}, "reason": "cheap",
                "alternatives": [{"capacity": "spot"}, {"capacity": "on-demand"}],
            }],
        }))
        .unwrap();
        assert_eq!(settings.unknown_tags, UnknownTags::Ignore);
        let rule = &settings.rules[0];
        assert_eq!(rule.tags, BTreeSet::from(["arm64".to_owned(), "dev".to_owned()]));
        assert_eq!(
            rule.pieces,
            Pieces {
                cluster: Some("dev".to_owned()),
                task_definition: Some("node".to_owned()),
                arch: Some(Arch::Arm64),
                capacity: Some(Capacity::Spot),
                cpu_units: Some(2048),
                memory_mib: Some(4096),
                ephemeral_storage_gib: Some(50),
                role: Some("deploy".to_owned()),
                labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
                reason: Some("cheap".to_owned()),
            }
        );
        assert_eq!(rule.alternatives.len(), 2);
        assert_eq!(rule.alternatives[1].capacity, Some(Capacity::OnDemand));
    }

    #[test]
    fn tells_all_problems_at_once() {
        assert_eq!(
            problems(json!({
                "unknown_tags": "maybe",
                "rule": [],
                "rules": [
                    {"tags": ["dev"], "arch": "x86", "capacity": "cheap", "cpu": "two", "memory": "4GB"},
                    {"tags": [], "cluster": ""},
                    {"cluster": "dev"},
                    {"tags": ["dev"], "ephemeral_storage": "20GiB", "size": "big"},
                    {"tags": ["a", "a", " ", 1], "cpu": 2, "labels": {"a": 1}},
                    {"tags": ["b"], "alternatives": [{"tags": ["c"]}, {}, 1]},
                    "dev",
                    {"tags": ["idle"]},
                ],
            })),
            [
                "rule: is unknown, expected one of rules, unknown_tags",
                "unknown_tags: is `maybe`, expected `reject` or `ignore`",
                "rules[0].arch: is `x86`, expected `x86_64` or `arm64`",
                "rules[0].capacity: is `cheap`, expected `on-demand` or `spot`",
                "rules[0].cpu: is `two`, expected vCPUs such as `2`, `0.5` or `500m`",
                "rules[0].memory: is `4GB`, expected an amount such as `4GiB` or `512MiB`",
                "rules[1].tags: is an empty list, expected at least one tag such as [\"dev\"]",
                "rules[1].cluster: is empty",
                "rules[2].tags: is missing: a rule is for jobs with certain tags",
                "rules[3].size: is unknown, expected one of tags, alternatives, cluster, task_definition, \
                 arch, capacity, cpu, memory, ephemeral_storage, role, labels, reason",
                "rules[3].ephemeral_storage: is `20GiB`, expected whole GiB from `21GiB` to `200GiB`",
                "rules[4].tags[1]: names `a` again",
                "rules[4].tags[2]: is empty",
                "rules[4].tags[3]: is the number 1, expected a tag in quotes",
                "rules[4].cpu: is the number 2, expected a text in quotes",
                "rules[4].labels.a: is the number 1, expected a text in quotes",
                "rules[5].alternatives[0].tags: is unknown, expected one of cluster, task_definition, arch, \
                 capacity, cpu, memory, ephemeral_storage, role, labels, reason",
                "rules[5].alternatives[1]: is the same as an earlier alternative",
                "rules[5].alternatives[2]: is the number 1, expected a table",
                "rules[6]: is `dev`, expected a table",
                "rules[7]: says nothing about the placement",
                "rules[3].tags: are those of rules[0]: make one rule of both",
            ]
        );
    }

    #[test]
    fn a_file_without_rules() {
        for (json, message) in [
            (json!({}), "rules: is missing: without rules no job can be placed"),
            (json!(null), ": is nothing, expected a table"),
            (
                json!({"rules": []}),
                "rules: is an empty list, expected at least one rule such as { tags = [\"dev\"], … }",
            ),
            (
                json!({"rules": 1}),
                "rules: is the number 1, expected at least one rule such as { tags = [\"dev\"], … }",
            ),
        ] {
            assert_eq!(problems(json), [message]);
        }
    }
}
