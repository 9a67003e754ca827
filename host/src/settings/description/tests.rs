//! The description says what the reader does: keys, defaults, required keys, kinds of values; and the schema made of
//! it refuses nothing that the reader takes.

use std::path::Path;

use boon::{Compiler, SchemaIndex, Schemas};

use super::*;
use crate::settings::{Settings, read};

/// Every table, each with what it cannot be without.
const LEAST: &str = r#"
[state]
directory = "/s"
[manager]
[gitlab]
[ssh]
[log]
[sweep]
[clusters.ecs]
backend = "ecs"
region = "eu-west-1"
cluster = "c"
subnets = ["subnet-1"]
[clusters.ecs.assume_role]
arn = "arn:aws:iam::123456789012:role/x"
[clusters.local]
backend = "local"
[task_definitions.t]
x86_64 = "t"
[task_definitions.t.ssh]
server = "openssh"
[roles.r]
arn = "arn:aws:iam::123456789012:role/r"
[policies.p]
component = "p.wasm"
sha256 = "0123456789012345678901234567890123456789012345678901234567890123"
[profiles.p]
policies = ["p"]
[profiles.p.bounds]
clusters = ["ecs", "local"]
task_definitions = ["t"]
max_cpu = "4"
max_memory = "16GiB"
[profiles.q]
policies = []
[profiles.q.bounds]
clusters = ["ecs"]
task_definitions = ["t"]
max_cpu = "4"
max_memory = "16GiB"
[profiles.q.default]
[profiles.q.fargate_variables]
"#;

/// The path of each table in [`LEAST`], with its description.
const PLACES: [(&str, &Table); 18] = [
    ("state", &STATE),
    ("manager", &MANAGER),
    ("gitlab", &GITLAB),
    ("ssh", &SSH),
    ("log", &LOG),
    ("sweep", &SWEEP),
    ("clusters.ecs", &CLUSTER_ECS),
    ("clusters.ecs.assume_role", &ASSUME_ROLE),
    ("clusters.local", &CLUSTER_LOCAL),
    ("task_definitions.t", &TASK_DEFINITION),
    ("task_definitions.t.ssh", &TASK_SSH),
    ("roles.r", &ROLE),
    ("policies.p", &POLICY),
    ("profiles.p", &PROFILE),
    ("profiles.p.bounds", &BOUNDS),
    ("profiles.q.default", &DEFAULT),
    ("profiles.q.fargate_variables", &FARGATE_VARIABLES),
    ("", &ROOT),
];

fn least() -> toml::Table {
    LEAST.parse().unwrap()
}

/// The table at `path` of `file`.
fn at<'t>(file: &'t mut toml::Table, path: &str) -> &'t mut toml::Table {
    path.split('.')
        .filter(|part| !part.is_empty())
        .fold(file, |table, part| table[part].as_table_mut().unwrap())
}

fn value_of(text: &str) -> toml::Value {
    let document: toml::Table = format!("value = {text}").parse().unwrap();
    document["value"].clone()
}

fn read_it(file: &toml::Table) -> Result<Settings, Vec<String>> {
    read(&file.to_string(), Path::new("/d"))
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

struct Judge {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Judge {
    fn new() -> Self {
        let mut compiler = Compiler::new();
        compiler.add_resource("pointsman.json", schema::schema()).unwrap();
        let mut schemas = Schemas::new();
        let index = compiler.compile("pointsman.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn refuses(&self, file: &toml::Table) -> Option<String> {
        let json = serde_json::to_value(file).unwrap();
        self.schemas.validate(&json, self.index).err().map(|error| error.to_string())
    }
}

#[test]
fn every_described_key_is_read_and_every_read_key_is_described() {
    // The second half is the reader's own assertion.
    assert!(read_it(&least()).is_ok());
    for (path, described) in PLACES {
        for key in described.keys {
            let mut file = least();
            // Nothing that the key can be: the reader can only complain if it looks.
            at(&mut file, path).insert(key.name.to_owned(), value_of("1979-05-27"));
            let problems = read_it(&file).expect_err(&format!("{path}.{} is not read", key.name));
            let place =
                if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            assert!(
                problems.iter().any(|problem| problem.contains(&format!(": {place}: "))),
                "{place}: {problems:?}"
            );
        }
        let mut file = least();
        at(&mut file, path).insert("no_key".to_owned(), value_of("1"));
        let problems = read_it(&file).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains("no_key: is no key of this table")));
    }
}

#[test]
fn defaults_are_the_readers() {
    let without = format!("{:?}", read_it(&least()).unwrap());
    for (path, described) in PLACES {
        for key in described.keys {
            let Need::Default(text) = key.need else { continue };
            let mut file = least();
            at(&mut file, path).insert(key.name.to_owned(), value_of(text));
            let with = read_it(&file)
                .unwrap_or_else(|problems| panic!("{path}.{}: {problems:?}", key.name));
            assert_eq!(format!("{with:?}"), without, "{path}.{} = {text}", key.name);
        }
    }
}

#[test]
fn what_is_required_is_missed_by_reader_and_schema() {
    let judge = Judge::new();
    assert_eq!(judge.refuses(&least()), None);
    for (path, described) in PLACES {
        for key in described.keys {
            let mut file = least();
            let table = at(&mut file, path);
            table.remove(key.name);
            if let Need::OneOf(names) = key.need {
                names.iter().for_each(|name| drop(table.remove(*name)));
            }
            let is_required = matches!(key.need, Need::Required | Need::OneOf(_));
            let place = format!("{path}.{}", key.name);
            assert_eq!(judge.refuses(&file).is_some(), is_required, "{place}");
            // Subnets are required on Fargate only, which no schema says; and these tables, since they are named elsewhere.
            if !["subnets", "roles"].contains(&key.name) && place != ".policies" {
                assert_eq!(read_it(&file).is_err(), is_required, "{place}");
            }
        }
    }
}

/// Values to try at each key, whatever they are for.
const PROBES: &[&str] = &[
    "1",
    "0",
    "-1",
    "65535",
    "65536",
    "101",
    "true",
    "1.5",
    "[]",
    "{}",
    "\"\"",
    "\" \"",
    "\"x\"",
    "\"a b\"",
    "\"name-1.x_y\"",
    "\"90s\"",
    "\"5m\"",
    "\"1h 30m\"",
    "\"1h30m\"",
    "\"90\"",
    "\"0s\"",
    "\"2 days\"",
    "\"4GiB\"",
    "\"20GiB\"",
    "\"200 GiB\"",
    "\"512MiB\"",
    "\"0GiB\"",
    "\"4GB\"",
    "\"2\"",
    "\"0.5\"",
    "\"500m\"",
    "\".5\"",
    "\"1e1\"",
    "\"-2\"",
    "\"two\"",
    "\"/x/y\"",
    "\"/x y\"",
    "\"x/y\"",
    "\"https://gitlab.example.com\"",
    "\"https://gitlab.example.com/sub/\"",
    "\"http://127.0.0.1:80\"",
    "\"ftp://x\"",
    "\"https://x?y\"",
    "\"arn:aws:iam::123456789012:role/x\"",
    "\"arn:aws-cn:iam::123456789012:role/p/x\"",
    "\"arn:aws:iam::1:role/x\"",
    "\"0123456789012345678901234567890123456789012345678901234567890123\"",
    "\"sha256:0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF\"",
    "\"0123\"",
    "[\"ecs\"]",
    "[\"t\"]",
    "[\"r\"]",
    "[\"p\"]",
    "[\"x\", \"y\"]",
    "[1]",
    "[\"\"]",
    "[\"spot\"]",
    "[\"job\", \"project\"]",
    "{ a = \"b\" }",
    "{ a = 1 }",
    "{ a = { b = 1 } }",
    "[1, 2, 3, 4, 5, 6]",
    "[\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\", \"10\", \"11\", \"12\", \"13\", \"14\", \"15\", \"16\", \"17\"]",
];

/// Whether a message of the reader's is about a value by itself, and not about what it does not go with, which no schema
/// tells.
fn of_kind(problem: &str) -> bool {
    problem.contains(" is a ")
        || problem.contains("expected one of")
        || problem.contains("did you mean")
}

#[test]
fn the_schema_refuses_nothing_that_the_reader_takes_and_each_wrong_kind() {
    let judge = Judge::new();
    let (mut taken, mut refused) = (0, 0);
    for (path, described) in PLACES {
        for key in described.keys.iter().filter(|key| {
            !matches!(key.value, Value::Table(_) | Value::Named(_) | Value::NamedBy { .. })
        }) {
            let mut choices: Vec<String> = Vec::new();
            if let Value::Choice(all) | Value::Choices(all) = key.value {
                choices.extend(all.iter().map(|(name, _)| match key.value {
                    Value::Choice(_) => format!("\"{name}\""),
                    _ => format!("[\"{name}\"]"),
                }));
            }
            for text in PROBES.iter().copied().chain(choices.iter().map(String::as_str)) {
                let mut file = least();
                at(&mut file, path).insert(key.name.to_owned(), value_of(text));
                let place = format!("{path}.{} = {text}", key.name);
                match (read_it(&file), judge.refuses(&file)) {
                    (Ok(_), refusal) => {
                        assert_eq!(refusal, None, "{place} is fine");
                        taken += 1;
                    }
                    (Err(problems), refusal) => {
                        let own = format!(
                            ": {}: ",
                            place.trim_start_matches('.').split(" = ").next().unwrap()
                        );
                        if problems.iter().any(|problem| problem.contains(&own) && of_kind(problem))
                            && !problems.iter().any(|problem| problem.contains("names no "))
                            && key.name != "backend"
                            && key.name != "network_mode"
                        {
                            assert!(refusal.is_some(), "{place} is wrong: {problems:?}");
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(taken > 200 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn each_choice_is_one_that_the_reader_knows() {
    for (path, described) in PLACES {
        for key in described.keys {
            let (Value::Choice(choices) | Value::Choices(choices)) = key.value else { continue };
            for (name, _) in choices {
                let mut file = least();
                let text = match key.value {
                    Value::Choice(_) => format!("\"{name}\""),
                    _ => format!("[\"{name}\"]"),
                };
                at(&mut file, path).insert(key.name.to_owned(), value_of(&text));
                if let Err(problems) = read_it(&file) {
                    // What does not go with the rest of the file says something else.
                    let unknown = format!("is `{name}`: did you mean");
                    assert!(
                        !problems.iter().any(|problem| problem.contains(&unknown)),
                        "{path}.{}: {problems:?}",
                        key.name
                    );
                }
            }
            // And all that the reader knows are described: it lists them for what is like none of them.
            let mut file = least();
            let nonsense = match key.value {
                Value::Choice(_) => "\"zzzzzzzzzzzzzzzzzzzzzzzz\"",
                _ => "[\"zzzzzzzzzzzzzzzzzzzzzzzz\"]",
            };
            at(&mut file, path).insert(key.name.to_owned(), value_of(nonsense));
            let problems = read_it(&file).unwrap_err();
            let known = problems
                .iter()
                .find_map(|problem| problem.split_once("expected one of "))
                .unwrap()
                .1;
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            let described: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            if key.name != "network_mode" {
                assert_eq!(known, described, "{path}.{}", key.name);
            }
        }
    }
}
