//! examples/infrastructure, held against linters that others wrote (cfn-lint, python-hcl2 and Terraform's AWS provider,
//! shellcheck), and against the settings file of examples/runner-manager that it is for.

mod cloudformation;
mod terraform;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use pointsman::placement::Arch;
use pointsman::settings::{ClusterBackend, EcsCluster, Settings};

use crate::processes::judge;

/// The account that the example's ARNs name.
const ACCOUNT: &str = "123456789012";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn settings() -> Settings {
    Settings::load(&examples().join("runner-manager/pointsman.toml")).unwrap()
}

fn ecs(settings: &Settings, name: &str) -> EcsCluster {
    match &settings.clusters[name].backend {
        ClusterBackend::Ecs(cluster) => (**cluster).clone(),
        ClusterBackend::Local(_) => panic!("`{name}` is not of ECS"),
    }
}

/// What an environment is made of, whoever says it.
#[derive(Debug, PartialEq, Eq)]
struct Environment {
    cluster: String,
    providers: BTreeSet<String>,
    families: BTreeMap<Arch, String>,
    container: String,
    /// Of the containers, and what the security group lets the runner manager reach.
    ports: BTreeSet<u16>,
    execution_role: String,
    job_roles: BTreeSet<String>,
}

impl Environment {
    /// As the settings of the runner manager name it, for the profile `name`.
    fn of_settings(settings: &Settings, name: &str) -> Self {
        let bounds = &settings.profiles[name].bounds;
        let only = |names: &BTreeSet<String>| {
            assert_eq!(names.len(), 1, "{name}: {names:?}");
            names.first().unwrap().clone()
        };
        let cluster = ecs(settings, &only(&bounds.clusters));
        let definition = &settings.task_definitions[&only(&bounds.task_definitions)];
        let role_name = |arn: &str| {
            arn.strip_prefix(&format!("arn:aws:iam::{ACCOUNT}:role/")).unwrap().to_owned()
        };
        Self {
            cluster: cluster.cluster,
            // Launch type FARGATE needs its provider too, if somebody sets a strategy.
            providers: BTreeSet::from([
                "FARGATE".to_owned(),
                cluster.spot_provider.unwrap_or_default(),
            ]),
            families: definition.by_arch.clone(),
            container: definition.container.clone(),
            ports: BTreeSet::from([definition.ssh.port]),
            execution_role: role_name(&cluster.execution_role.unwrap()),
            job_roles: bounds
                .roles
                .iter()
                .map(|role| role_name(&settings.roles[role].arn))
                .collect(),
        }
    }
}

/// The names of the environments are those of the profiles.
fn environments(settings: &Settings) -> Vec<String> {
    assert_eq!(settings.profiles.len(), 3);
    settings.profiles.keys().cloned().collect()
}

#[test]
fn both_infrastructures_are_what_the_settings_name() {
    let settings = settings();
    let module = terraform::Module::read("environment");
    for name in environments(&settings) {
        let expected = Environment::of_settings(&settings, &name);
        assert_eq!(cloudformation::environment(&name), expected, "CloudFormation: {name}");
        assert_eq!(terraform::environment(&module, &name), expected, "Terraform: {name}");
        assert_eq!(ecs(&settings, &name).region, terraform::default_region());
    }
    assert_eq!(terraform::default_environments(), BTreeSet::from_iter(environments(&settings)));
}

#[test]
fn both_infrastructures_give_the_manager_the_same_service() {
    let of_cloudformation = cloudformation::manager_service();
    assert_eq!(terraform::manager_service(), of_cloudformation);
    let expected: BTreeSet<String> = environments(&settings())
        .iter()
        .map(|name| format!("{}_RUNNER_TOKEN from {name}", name.to_uppercase()))
        .collect();
    assert_eq!(of_cloudformation.secrets, expected);
    let drain: u64 = {
        let entrypoint =
            std::fs::read_to_string(examples().join("runner-manager/entrypoint")).unwrap();
        let (_, after) = entrypoint.split_once("${DRAIN_SECONDS:-").unwrap();
        after.split_once('}').unwrap().0.parse().unwrap()
    };
    assert!(
        drain + 30 <= of_cloudformation.stop_timeout,
        "aborted jobs have no time to stop their tasks"
    );
}

#[test]
fn both_infrastructures_give_the_manager_the_same_policy() {
    let policy = terraform::manager_policy();
    assert_eq!(cloudformation::manager_policy(), policy);
    // Names, and wildcards only where a name cannot be known: revisions and tasks.
    for statement in policy["Statement"].as_array().unwrap() {
        let actions = statement["Action"].to_string();
        assert!(!actions.contains('*'), "{statement}");
        for resource in statement["Resource"].to_string().split('"').filter(|text| text.len() > 1) {
            let star = resource.find('*').map(|position| &resource[..position]);
            assert!(
                star.is_none_or(|before| {
                    before.contains(":task-definition/gitlab-runner-")
                        || before.contains(":task/acme-gitlab-")
                }),
                "{statement}"
            );
        }
        assert!(
            !statement["Resource"].to_string().contains("\"*\"")
                || !statement["Condition"].is_null(),
            "everything, on no condition: {statement}"
        );
    }
}

#[test]
fn the_managers_policy_is_what_iam_policy_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("--config")
        .arg(examples().join("runner-manager/pointsman.toml"))
        .arg("iam-policy")
        .env_clear()
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let policy: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let remedy = "examples/infrastructure/README.md tells how to print it again";
    assert_eq!(terraform::manager_policy(), policy, "{remedy}");
    assert_eq!(cloudformation::manager_policy(), policy, "{remedy}");
}

#[test]
fn cfn_lint_accepts_the_templates() {
    let templates = cloudformation::templates();
    assert_eq!(templates.len(), 3);
    let judged = judge("cfn-lint").args(&templates).output().unwrap();
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success() && said.trim().is_empty(), "{said}");
    // That it would say so if something were wrong.
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.yaml");
    let text = std::fs::read_to_string(&templates[0]).unwrap();
    std::fs::write(&broken, text.replacen("RequiresCompatibilities", "RequireCompatibility", 1))
        .unwrap();
    let judged = judge("cfn-lint").arg(&broken).output().unwrap();
    assert!(!judged.status.success());
}

#[test]
fn the_templates_import_what_others_export() {
    let exported = cloudformation::exports();
    let imported = cloudformation::imports();
    assert!(imported.len() >= 6, "{imported:?}");
    assert!(imported.is_subset(&exported), "{imported:?} of {exported:?}");
}

#[test]
fn terraform_finds_everything_that_its_files_name() {
    for name in ["", "environment"] {
        assert_eq!(terraform::Module::read(name).missing(), Vec::<String>::new(), "`{name}`");
    }
    terraform::check_calls();
    // That it would say so.
    let broken = terraform::Module::broken(
        "environment",
        "aws_iam_role.execution.arn",
        "aws_iam_role.exec.arn",
    );
    assert_eq!(broken.missing(), ["aws_iam_role.exec.arn"]);
    let broken = terraform::Module::broken("", "${var.vpc_id}", "vpc");
    assert_eq!(broken.missing(), Vec::<String>::new(), "used twice");
    let broken = terraform::Module::broken("environment", "${var.vpc_id}", "vpc");
    assert_eq!(broken.missing(), ["the use of var.vpc_id"]);
}

#[test]
fn the_provider_knows_the_arguments_of_every_resource() {
    let mut resources = 0;
    for name in ["", "environment"] {
        let (mistakes, some) = terraform::Module::read(name).against_the_provider();
        assert_eq!(mistakes, Vec::<String>::new(), "`{name}`");
        resources += some;
    }
    assert!(resources >= 15, "{resources} resources: is this test right?");
    let broken = terraform::Module::broken("environment", "cpu_architecture", "architecture");
    let place = "aws_ecs_task_definition.task.runtime_platform";
    assert_eq!(
        broken.against_the_provider().0,
        [format!("{place}: the provider knows no `architecture`")]
    );
    let broken = terraform::Module::broken("environment", "\"cluster_name\"", "\"cluster\"");
    assert_eq!(broken.against_the_provider().0.len(), 2);
}

/// With Terraform itself where it is installed, else by what its formatting comes to in these files.
#[test]
fn terraform_files_are_formatted() {
    let root = examples().join("infrastructure/terraform");
    let formatted = Command::new("terraform")
        .args(["fmt", "-check", "-diff", "-recursive"])
        .arg(&root)
        .output();
    if let Ok(judged) = formatted {
        let said = [judged.stdout, judged.stderr].concat();
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    for file in terraform::files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut depth = 0_usize;
        for (number, line) in text.lines().enumerate() {
            let at = format!("{}:{}", file.display(), number + 1);
            assert!(line == line.trim_end() && !line.contains('\t'), "{at}");
            let code = line.trim_start();
            let closing = code.chars().take_while(|each| "}])".contains(*each)).count();
            depth = depth.saturating_sub(usize::from(closing > 0));
            assert!(
                code.is_empty() || line.len() - code.len() == 2 * depth,
                "{at}: indentation {} instead of {}",
                line.len() - code.len(),
                2 * depth
            );
            let opens = code.ends_with(['{', '[', '(']) && !code.starts_with('#');
            depth += usize::from(opens);
        }
        assert_eq!(depth, 0, "{}", file.display());
    }
}

#[test]
fn shellcheck_accepts_the_examples_scripts() {
    let scripts = [
        "runner-manager/entrypoint",
        "images/openssh/entrypoint",
        "three-environments/scripts/build.sh",
        "three-environments/scripts/deploy.sh",
    ];
    let judged =
        judge("shellcheck").args(scripts.map(|script| examples().join(script))).output().unwrap();
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success(), "{said}");
}
