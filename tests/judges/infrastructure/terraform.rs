//! Reads the Terraform modules by python-hcl2, and checks what `terraform validate` would, as far as these files go:
//! references, variables, calls, and the arguments of resources against the AWS provider's schema.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pointsman::placement::Arch;
use serde_json::{Map, Value};

use super::{Environment, examples};
use crate::processes::{python, script};

/// The manager's service, whoever describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) family: String,
    pub(super) container: String,
    pub(super) size: String,
    pub(super) launch_type: String,
    pub(super) count: u64,
    pub(super) stop_timeout: u64,
    pub(super) secrets: BTreeSet<String>,
}

fn root() -> PathBuf {
    examples().join("infrastructure/terraform")
}

/// Every file.
pub(super) fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in [root(), root().join("environment")] {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|is| is == "tf")));
    }
    assert!(files.len() >= 8, "{files:?}");
    files
}

/// A module: blocks by kind, type and name.
pub(super) struct Module {
    blocks: Value,
}

impl Module {
    /// The module in the folder `name` of the example; the root module is `""`.
    pub(super) fn read(name: &str) -> Self {
        let output =
            python().arg(script("read_terraform.py")).arg(root().join(name)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { blocks: serde_json::from_slice(&output.stdout).unwrap() }
    }

    fn of_kind(&self, kind: &str) -> Map<String, Value> {
        self.blocks[kind].as_object().cloned().unwrap_or_default()
    }

    fn resource(&self, kind: &str, name: &str) -> &Value {
        let resource = &self.blocks["resource"][kind][name];
        assert!(resource.is_object(), "no resource {kind}.{name}");
        resource
    }

    /// What expressions name and is not there, and variables that none names.
    pub(super) fn missing(&self) -> Vec<String> {
        let text = self.blocks.to_string();
        let mut n_references = 0;
        let mut missing = Vec::new();
        let mut unused: BTreeSet<String> = self.of_kind("variable").keys().cloned().collect();
        for path in references(&text) {
            let path: Vec<&str> = path.split('.').collect();
            let found = match path.as_slice() {
                ["var", name, ..] => {
                    unused.remove(*name);
                    self.of_kind("variable").contains_key(*name)
                }
                ["local", name, ..] => self.of_kind("locals").contains_key(*name),
                ["module", name, ..] => self.of_kind("module").contains_key(*name),
                ["data", kind, name, ..] => self.blocks["data"][kind][name].is_object(),
                [kind, name, ..] if kind.starts_with("aws_") => {
                    self.blocks["resource"][kind][name].is_object()
                }
                _ => continue,
            };
            n_references += 1;
            if !found {
                missing.push(path.join("."));
            }
        }
        assert!(n_references >= 10, "{n_references} references: is this test right?");
        missing.extend(unused.iter().map(|name| format!("the use of var.{name}")));
        missing
    }

    /// What the provider would not take; and how many resources there are.
    pub(super) fn against_the_provider(&self) -> (Vec<String>, usize) {
        let schema = fs::read_to_string(script("terraform_provider.json")).unwrap();
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let mut resources = 0;
        let mut mistakes = Vec::new();
        for (kind, named) in self.of_kind("resource") {
            for (name, arguments) in named.as_object().unwrap() {
                let known = &schema["resources"][&kind];
                assert!(known.is_object(), "tests/judges/terraform_provider.json has no {kind}");
                let meta = ["count", "for_each"];
                check_arguments(arguments, known, &meta, &format!("{kind}.{name}"), &mut mistakes);
                resources += 1;
            }
        }
        (mistakes, resources)
    }

    /// The same module with something wrong in it.
    pub(super) fn broken(name: &str, from: &str, to: &str) -> Self {
        let mut module = Self::read(name);
        let text = module.blocks.to_string();
        assert!(text.contains(from), "no {from}");
        module.blocks = serde_json::from_str(&text.replacen(from, to, 1)).unwrap();
        module
    }
}

fn check_arguments(
    arguments: &Value,
    known: &Value,
    meta: &[&str],
    place: &str,
    mistakes: &mut Vec<String>,
) {
    let arguments = arguments.as_object().unwrap();
    for (name, value) in arguments {
        if meta.contains(&name.as_str()) {
            continue;
        }
        let argument = &known[name];
        if argument.is_null() {
            mistakes.push(format!("{place}: the provider knows no `{name}`"));
        }
        if argument["block"].is_object() {
            for block in value.as_array().unwrap() {
                let place = format!("{place}.{name}");
                check_arguments(block, &argument["block"], &[], &place, mistakes);
            }
        }
    }
    for (name, argument) in known.as_object().unwrap() {
        let required = argument == "required" || argument["use"] == "required";
        if required && !arguments.contains_key(name) {
            mistakes.push(format!("{place} has no `{name}`"));
        }
    }
}

/// The dotted paths in expressions: in `${…}`, and in what this reader leaves as text.
fn references(text: &str) -> Vec<String> {
    let is_of_path = |each: char| each.is_ascii_alphanumeric() || "_-.".contains(each);
    let mut found = Vec::new();
    for expression in text.split("${").skip(1) {
        let expression = expression.split_once('}').map_or(expression, |(inside, _)| inside);
        let words = expression.split(|each| !is_of_path(each));
        found.extend(words.filter(|word| word.contains('.')).map(str::to_owned));
    }
    found
}

/// Modules are called with the variables that they have, and asked for the outputs that they have.
pub(super) fn check_calls() {
    let root = Module::read("");
    for (name, call) in root.of_kind("module") {
        let source = call["source"].as_str().unwrap().strip_prefix("./").unwrap();
        let module = Module::read(source);
        let given: BTreeSet<String> = call
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| !["source", "for_each"].contains(&key.as_str()))
            .cloned()
            .collect();
        let wanted: BTreeSet<String> = module.of_kind("variable").keys().cloned().collect();
        assert_eq!(given, wanted, "module {name}");
        let outputs = module.of_kind("output");
        let asked = root.blocks["output"].to_string();
        for output in outputs.keys() {
            assert!(asked.contains(&format!("{name}.{output}")), "{output} is asked by nobody");
        }
        let n_asked = asked.matches(&format!("=> {name}.")).count();
        assert_eq!(n_asked, outputs.len(), "{asked}");
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The module's environment `name`.
pub(super) fn environment(module: &Module, name: &str) -> Environment {
    let named = |value: &Value| text(value).replace("${var.environment}", name);
    let definition = module.resource("aws_ecs_task_definition", "task");
    assert_eq!(definition["family"], "${each.value}");
    assert_eq!(definition["runtime_platform"][0]["cpu_architecture"], "${each.key}");
    assert_eq!(definition["execution_role_arn"], "${aws_iam_role.execution.arn}");
    // A role in the definition would be one for jobs that no policy gave a role to.
    assert_eq!(definition["task_role_arn"], Value::Null);
    let families: BTreeMap<Arch, String> = definition["for_each"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(arch, family)| match arch.as_str() {
            "X86_64" => (Arch::X86_64, named(family)),
            "ARM64" => (Arch::Arm64, named(family)),
            other => panic!("{other}"),
        })
        .collect();
    let [container] =
        definition["container_definitions"]["jsonencode"].as_array().unwrap().as_slice()
    else {
        panic!("one container")
    };
    let rule = module.resource("aws_vpc_security_group_ingress_rule", "tasks");
    assert_eq!(rule["referenced_security_group_id"], "${var.manager_security_group}");
    assert_eq!(
        module.blocks["resource"]["aws_vpc_security_group_ingress_rule"].as_object().unwrap().len(),
        1
    );
    let ports =
        [&container["portMappings"][0]["containerPort"], &rule["from_port"], &rule["to_port"]];
    let providers = module.resource("aws_ecs_cluster_capacity_providers", "this");
    Environment {
        cluster: named(&module.resource("aws_ecs_cluster", "this")["name"]),
        providers: providers["capacity_providers"].as_array().unwrap().iter().map(text).collect(),
        families,
        container: text(&container["name"]),
        ports: ports.map(|port| port.as_u64().unwrap().try_into().unwrap()).into(),
        execution_role: named(&module.resource("aws_iam_role", "execution")["name"]),
        job_roles: BTreeSet::from([named(&module.resource("aws_iam_role", "deploy")["name"])]),
    }
}

/// The Region, unless somebody says another.
pub(super) fn default_region() -> String {
    text(&Module::read("").blocks["variable"]["region"]["default"])
}

/// The environments, unless somebody says others.
pub(super) fn default_environments() -> BTreeSet<String> {
    let module = Module::read("");
    let names = module.blocks["variable"]["environments"]["default"].as_array().unwrap();
    names.iter().map(text).collect()
}

/// The file that is the manager's policy.
pub(super) fn manager_policy() -> Value {
    let module = Module::read("");
    let policy = text(&module.resource("aws_iam_role_policy", "manager")["policy"]);
    let name = policy.split("${path.module}/").nth(1).unwrap().split('"').next().unwrap();
    let name = Path::new(name.trim_end_matches('\\'));
    serde_json::from_str(&fs::read_to_string(root().join(name)).unwrap()).unwrap()
}

/// The manager's service.
pub(super) fn manager_service() -> Service {
    let module = Module::read("");
    let definition = module.resource("aws_ecs_task_definition", "manager");
    let service = module.resource("aws_ecs_service", "manager");
    let [container] =
        definition["container_definitions"]["jsonencode"].as_array().unwrap().as_slice()
    else {
        panic!("one container")
    };
    let secrets = container["secrets"].to_string();
    for part in ["upper(environment)", "_RUNNER_TOKEN", "runner_tokens.arn", ":${environment}::"] {
        assert!(secrets.contains(part), "{secrets}");
    }
    assert_eq!(definition["task_role_arn"], "${aws_iam_role.manager.arn}");
    assert_eq!(definition["execution_role_arn"], "${aws_iam_role.manager_execution.arn}");
    Service {
        name: text(&service["name"]),
        family: text(&definition["family"]),
        container: text(&container["name"]),
        size: format!("{} {}", definition["cpu"], definition["memory"]),
        launch_type: text(&service["launch_type"]),
        count: service["desired_count"].as_u64().unwrap(),
        stop_timeout: container["stopTimeout"].as_u64().unwrap(),
        secrets: default_environments()
            .iter()
            .map(|name| format!("{}_RUNNER_TOKEN from {name}", name.to_uppercase()))
            .collect(),
    }
}
