//! The drop-in: the article's `ecs.toml` and `config.toml`, written for GitLab's Fargate driver, with Pointsman in
//! the place of its executable.
//!
//! `config.toml` is read, and its stages are played as GitLab Runner does: `<stage>_exec` with `<stage>_args` and
//! what the runner appends. What differs from the article's machine:
//!
//! - the article's Dockerfile fills in three placeholders by `sed`; so does this test, with the same words;
//! - `/opt/gitlab-runner` and `/etc/gitlab-runner` lie below the test's own directory, since a test must not write
//!   to the machine that it runs on. The executable has the article's path there, and is a link to the driver;
//! - `Username` and `Port` stay `root` and 22 where the tests run as root and port 22 is free. Elsewhere stock sshd
//!   lets nobody else than its own user in and cannot have that port, so the user's name and 2022 stand there;
//! - the image is the simulator's stock sshd, a process on a loopback address of its own. Its tasks share the
//!   machine's files, so the runner's `builds_dir` has the task's `POINTSMAN_TASK_ROOT` before it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::guests::Guest;
use crate::support::attempt::{Attempt, collect};
use crate::support::house::{DRIVER, user};
use crate::support::output::StageOutput;
use crate::support::{House, Job};

const ECS: &str = include_str!("fargate/ecs.toml");
const CONFIG: &str = include_str!("fargate/config.toml");

/// A runner manager as the article builds it.
struct Machine {
    house: House,
    /// `[[runners]]` of GitLab Runner's file.
    runner: toml::Table,
}

impl Machine {
    /// With the two files as `change` leaves them.
    fn new(change: impl Fn(&mut String, &mut String)) -> Self {
        let port = port();
        let house = House::with(
            |_| {},
            |world| {
                world["clusters"].as_array_mut().unwrap().push(json!({
                    "name": "acme-gitlab-dev-cluster",
                    "capacity_providers": ["FARGATE", "FARGATE_SPOT"],
                }));
                let definitions = world["task_definitions"].as_array_mut().unwrap();
                for family in ["gitlab-runner-dev-task", "big-task"] {
                    definitions.push(definition(family, port));
                }
            },
        );
        let root = house.path().to_owned();
        for directory in ["opt/gitlab-runner/metadata", "etc/gitlab-runner"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(DRIVER, root.join("opt/gitlab-runner/fargate")).unwrap();
        let (mut ecs, mut config) = (ECS.to_owned(), CONFIG.to_owned());
        change(&mut ecs, &mut config);
        // The Dockerfile's three lines of sed, for RUNNER_TAGS="dev".
        let ecs = ecs
            .replace("RUNNER_TAGS", "dev")
            .replace("SUBNET", "subnet-12345")
            .replace("SECURITY_GROUP_ID", "sg-12345")
            .replace("\"root\"", &format!("\"{}\"", user()))
            .replace("Port = 22\n", &format!("Port = {port}\n"));
        let below = |text: &str| {
            text.replace("\"/opt/", &format!("\"{}/opt/", root.display()))
                .replace("\"/etc/", &format!("\"{}/etc/", root.display()))
        };
        fs::write(root.join("etc/gitlab-runner/ecs.toml"), below(&ecs)).unwrap();
        fs::write(root.join("etc/gitlab-runner/config.toml"), below(&config)).unwrap();
        let config: toml::Table = below(&config).parse().unwrap();
        let runner = config["runners"].as_array().unwrap()[0].as_table().unwrap().clone();
        Self { house, runner }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.house.path().join(path)
    }

    fn attempt(&self, job: &Job) -> Stages<'_> {
        Stages { machine: self, attempt: self.house.attempt("", job), scripts: 0 }
    }

    /// `builds_dir` of the runner, as the article has it.
    fn builds_dir(&self) -> String {
        let path = self.runner["builds_dir"].as_str().unwrap();
        path.strip_prefix(self.house.path().to_str().unwrap()).unwrap().to_owned()
    }

    /// The records of ended attempts.
    fn records(&self) -> Vec<Value> {
        let records = self.path("opt/gitlab-runner/metadata/pointsman/records");
        let mut read = Vec::new();
        for directory in fs::read_dir(records).unwrap().flatten() {
            for file in fs::read_dir(directory.path()).unwrap().flatten() {
                read.push(serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap());
            }
        }
        read
    }

    /// The state that the driver keeps, which shall be empty of attempts when all jobs have ended.
    fn attempts(&self) -> usize {
        fs::read_dir(self.path("opt/gitlab-runner/metadata/pointsman/attempts")).unwrap().count()
    }
}

/// 22, where this user may have it and nobody else has it on all addresses.
fn port() -> u16 {
    let is_free = std::net::TcpListener::bind("127.1.0.1:22").is_ok();
    if user() == "root" && is_free { 22 } else { 2022 }
}

/// The article's task definition, with a size that the driver must leave alone.
fn definition(family: &str, port: u16) -> Value {
    json!({
        "family": family,
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "2048",
        "memory": "8192",
        "runtimePlatform": { "cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX" },
        "containerDefinitions": [{
            "name": "ci-coordinator",
            "image": "example/openssh",
            "essential": true,
            "portMappings": [{ "containerPort": port, "protocol": "tcp" }],
        }],
    })
}

/// One attempt at a job, with the calls that `config.toml` says.
struct Stages<'m> {
    machine: &'m Machine,
    attempt: Attempt<'m>,
    scripts: u32,
}

impl Stages<'_> {
    fn call(&self, stage: &str, appended: &[&str]) -> StageOutput {
        let custom = self.machine.runner["custom"].as_table().unwrap();
        let arguments = custom[&format!("{stage}_args")].as_array().unwrap();
        // The environment and the working directory that the runner gives to any driver.
        let template = self.attempt.command(&[]);
        let mut command = Command::new(custom[&format!("{stage}_exec")].as_str().unwrap());
        command
            .args(arguments.iter().map(|argument| argument.as_str().unwrap()))
            .args(appended)
            .env_clear()
            .envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))))
            .current_dir(template.get_current_dir().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        collect(command.spawn().unwrap())
    }

    fn config(&mut self) -> StageOutput {
        let output = self.call("config", &[]);
        if output.status.success() {
            let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
            self.attempt.job_env = serde_json::from_value(reply["job_env"].clone()).unwrap();
        }
        output
    }

    fn prepare(&self) -> StageOutput {
        self.call("prepare", &[])
    }

    fn run(&mut self, sub_stage: &str, script: &str) -> StageOutput {
        self.scripts += 1;
        let path = self.attempt.directory.path().join(format!("script{}", self.scripts));
        fs::write(&path, script).unwrap();
        self.call("run", &[path.to_str().unwrap(), sub_stage])
    }

    fn cleanup(&self) -> StageOutput {
        self.call("cleanup", &[])
    }
}

/// Asserts that everything went and that the task was `family`'s at `size`; answers the ledger's entry.
fn released(machine: &Machine, family: &str) -> Value {
    let ledger = machine.house.settled(1);
    assert_eq!(machine.attempts(), 0);
    let task = ledger.started()[0].clone();
    let definition = task["task_definition"].as_str().unwrap();
    assert!(definition.contains(&format!("task-definition/{family}:")), "{task}");
    task
}

#[test]
fn the_articles_files_run_as_they_are() {
    let machine = Machine::new(|_, _| {});
    let mut job = machine.attempt(&Job::default());
    let output = job.config().succeeds().says(
        "Placed on cluster acme-gitlab-dev-cluster, task definition gitlab-runner-dev-task, x86_64, on-demand, the task definition's size, the task definition's role",
    );
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    // What config.toml says, or the runner's own default, must stay in force.
    for key in ["builds_dir", "cache_dir", "shell"] {
        assert_eq!(reply.get(key), None, "{reply}");
    }
    let _ = job.prepare().succeeds().says("is ready at 127.");

    let _ = job.run("prepare_script", "echo \"Running on $(hostname)\"\n").succeeds();
    let project = format!("$POINTSMAN_TASK_ROOT{}/acme/app", machine.builds_dir());
    let script = format!("mkdir -p {project} && cd {project} && git init --quiet && pwd\n");
    let output = job.run("get_sources", &script).succeeds();
    assert!(output.stdout_text().ends_with("/opt/gitlab-runner/builds/acme/app\n"), "{output}");
    let output = job.run("build_script", "echo \"It works\"\n").succeeds();
    assert_eq!(output.stdout_text(), "It works\n");
    // A command line takes no more than 128 KiB, which bounds a script of GitLab's driver.
    let long = format!("# {}\necho \"{}\"\n", "x".repeat(200 * 1024), "It works");
    assert_eq!(job.run("build_script", &long).succeeds().stdout_text(), "It works\n");
    // GitLab's driver called every failing script a failure of the system.
    let _ = job.run("after_script", "exit 3\n").fails_the_build();
    assert_eq!(job.attempt.exit_code(), Some(3));
    let _ = job.cleanup().succeeds();

    let task = released(&machine, "gitlab-runner-dev-task");
    assert_eq!(task["cluster"], "acme-gitlab-dev-cluster");
    // Asked for by name: a cluster without a default capacity provider does as well.
    assert_eq!(task["launch_type"], "FARGATE");
    assert_eq!((task["cpu"].as_str(), task["memory"].as_str()), (Some("2048"), Some("8192")));
    assert_eq!(task["tags"]["pointsman:profile"], "ecs");
}

#[test]
fn a_script_runs_in_the_login_shell() {
    let machine = Machine::new(|_, _| {});
    let mut job = machine.attempt(&Job::default());
    let _ = job.config().succeeds();
    let _ = job.prepare().succeeds();
    let output = job.run("build_script", "readlink /proc/$$/exe; echo \"$SHELL\"\n").succeeds();
    let text = output.stdout_text();
    let (running, login) = text.trim_end().split_once('\n').unwrap();
    assert_eq!(Path::new(running), fs::canonicalize(login).unwrap(), "{output}");
    let _ = job.cleanup().succeeds();
    released(&machine, "gitlab-runner-dev-task");
}

/// Plays a job that must be placed on `family`, with `said` in the log of `config`.
fn plays_on(machine: &Machine, job: &Job, family: &str, said: &str) -> Value {
    let mut job = machine.attempt(job);
    let _ = job.config().succeeds().says(said);
    let _ = job.prepare().succeeds();
    assert_eq!(job.run("build_script", "echo fine\n").succeeds().stdout_text(), "fine\n");
    let _ = job.cleanup().succeeds();
    released(machine, family)
}

const BIG: &str = "big-task";

fn asking_for(task_definition: &str) -> Job {
    Job::default().variable("FARGATE_TASK_DEFINITION", task_definition)
}

#[test]
fn a_variable_is_ignored_with_a_line_unless_the_operator_lists_its_values() {
    let machine = Machine::new(|_, _| {});
    let job = asking_for(BIG).variable("FARGATE_PLATFORM_VERSION", "1.3.0");
    plays_on(
        &machine,
        &job,
        "gitlab-runner-dev-task",
        "FARGATE_TASK_DEFINITION asks for `big-task` and is ignored: the operator of this runner lets no pipeline choose. To allow it, list it in `task_definitions` of [profiles.ecs.fargate_variables], or in `AllowedTaskDefinitions` of [Pointsman]",
    );
    let record = &machine.records()[0];
    assert_eq!(record["steps"][0]["claims_read"], json!([]), "{record}");
}

#[test]
fn a_listed_value_is_chosen_and_another_refused() {
    let machine = Machine::new(|ecs, _| {
        ecs.push_str("[Pointsman]\nAllowedTaskDefinitions = [\"big-task\"]\nAllowedPlatformVersions = [\"1.4.0\"]\n");
    });
    let mut refused = machine.attempt(&asking_for("root-task"));
    let _ = refused
        .config()
        .fails_the_build()
        .says("FARGATE_TASK_DEFINITION asks for `root-task`, and the operator allows `big-task`, `gitlab-runner-dev-task`");
    let _ = refused.cleanup().succeeds();

    let job = asking_for(BIG).variable("FARGATE_PLATFORM_VERSION", "1.4.0");
    plays_on(
        &machine,
        &job,
        BIG,
        "decided by profile ecs: its default, with FARGATE_TASK_DEFINITION = big-task and FARGATE_PLATFORM_VERSION = 1.4.0",
    );
    let records = machine.records();
    let placed = records.iter().find(|record| record["outcome"]["kind"] != "rejected").unwrap();
    assert_eq!(
        placed["steps"][0]["claims_read"],
        json!(["variable FARGATE_PLATFORM_VERSION", "variable FARGATE_TASK_DEFINITION"])
    );
    assert_eq!(placed["placement"]["cluster"], "acme-gitlab-dev-cluster-1.4.0");
}

#[test]
fn the_arguments_of_prepare_count_as_for_gitlabs_driver() {
    // It starts the task there, so many files have them there alone.
    let machine = Machine::new(|_, config| {
        *config = config
            .replace("\"custom\", \"prepare\"", "\"--task-def\", \"big-task\", \"custom\", \"p\"");
    });
    let mut job = machine.attempt(&asking_for("gitlab-runner-dev-task"));
    let _ = job.config().succeeds();
    let _ = job.prepare().succeeds().says(
        "By --task-def of this runner's config.toml, the task starts from the ECS task definition `big-task`",
    );
    let _ = job.run("build_script", "true\n").succeeds();
    let _ = job.cleanup().succeeds();
    released(&machine, BIG);
}

#[test]
fn its_logging_arguments_and_keys_are_taken() {
    let machine = Machine::new(|ecs, config| {
        *ecs = ecs.replace(
            "LogFormat = \"text\"",
            "logformat = \"json\"\nlogfile = \"/opt/gitlab-runner/fargate.log\"",
        );
        *config = config.replace(
            "\"custom\", \"run\"",
            "\"--log-level\", \"warning\", \"--debug\", \"custom\", \"r\"",
        );
    });
    plays_on(&machine, &Job::default(), "gitlab-runner-dev-task", "Placed on");
    assert!(machine.path("opt/gitlab-runner/fargate.log").exists());
}

#[test]
fn every_mistake_of_such_a_file_is_told_at_once() {
    let machine = Machine::new(|ecs, _| {
        *ecs = ecs.replace("Subnet =", "Subnets =").replace("Port = 22", "Port = \"22\"");
    });
    let mut job = machine.attempt(&Job::default());
    let _ = job
        .config()
        .fails_the_system()
        .says("has 3 mistakes")
        .says("line 4: Fargate.Subnet: is missing: expected a subnet, such as \"subnet-12345\"")
        .says("line 7: Fargate.Subnets: is no key of this table: did you mean `Subnet`?")
        .says("SSH.Port: is a string, expected a whole number from 0 to 65535");
}

#[test]
fn its_flags_do_not_go_with_a_pointsman_toml() {
    let house = House::new();
    let attempt = house.attempt("agent", &Job::default());
    let output = collect(attempt.command(&["--task-def", "x", "config"]).spawn().unwrap());
    let _ = output
        .fails_the_system()
        .says("`--task-def` goes with a configuration file of GitLab's Fargate driver");
}

#[test]
fn a_default_with_a_privileged_role_is_not_an_authors_to_choose() {
    let tables = r#"
[profiles.plain]
policies = []
claims_taint = "deny-privileged-roles"
default = { role = "root" }
bounds = { clusters = ["test"], task_definitions = ["openssh"], roles = ["root"], max_cpu = "2", max_memory = "8GiB" }

[profiles.open]
policies = []
claims_taint = "deny-privileged-roles"
default = { role = "root", task_definition = "openssh" }
fargate_variables = { task_definitions = ["openssh-injected"] }
bounds = { clusters = ["test"], task_definitions = ["openssh", "openssh-injected"], roles = ["root"], max_cpu = "2", max_memory = "8GiB" }

[roles.root]
arn = "arn:aws:iam::123456789012:role/deploy"
privileged = true
"#;
    let house = House::with(|settings| settings.push_str(tables), |_| {});
    // An ignored variable is no reason to refuse.
    let mut plain = house.attempt("plain", &asking_for("openssh-injected"));
    let _ = plain.config().succeeds().says("is ignored").says("role root");
    let _ = plain.cleanup().succeeds();
    let mut open = house.attempt("open", &asking_for("openssh-injected"));
    let _ = open
        .config()
        .fails_the_build()
        .says("role `root` is privileged, and policy `built-in default` read what the pipeline's author wrote (variable FARGATE_TASK_DEFINITION)");
    let _ = open.cleanup().succeeds();
    house.settled(0);
}

#[test]
fn a_rehearsal_plays_by_such_a_file() {
    let machine = Machine::new(|_, _| {});
    let pipeline = machine.path("pipeline");
    fs::create_dir(&pipeline).unwrap();
    fs::write(pipeline.join(".gitlab-ci.yml"), "test:\n  script: [echo It works]\n").unwrap();
    let output = Command::new(DRIVER)
        .arg("--config")
        .arg(machine.path("etc/gitlab-runner/ecs.toml"))
        .args(["rehearse", ".gitlab-ci.yml"])
        .current_dir(&pipeline)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Placed on cluster acme-gitlab-dev-cluster"), "{text}");
    assert!(text.contains("It works\n"), "{text}");
}

#[test]
fn a_default_is_for_jobs_that_no_policy_places_and_guards_are_asked_about_it() {
    let house = House::new();
    house.add_policy("silent", &Guest::default().placer(), "");
    // A `result` in memory whose first byte is 1 is an error.
    house.add_policy("strict", &Guest::guard("i32.const 1024"), "");
    house.edit_settings(|text| {
        let profile = |name: &str, policies: &str| {
            format!("[profiles.{name}]\npolicies = [{policies}]\ndefault = {{ cluster = \"test\" }}\nbounds = {{ clusters = [\"test\"], task_definitions = [\"openssh\"], max_cpu = \"2\", max_memory = \"8GiB\" }}\n")
        };
        text + &profile("lax", "\"silent\"") + &profile("guarded", "\"silent\", \"strict\"")
    });
    let mut lax = house.attempt("lax", &Job::default());
    let _ = lax
        .config()
        .succeeds()
        .says("Placed on cluster test, task definition openssh")
        .says("decided by profile lax: its default");
    let _ = lax.cleanup().succeeds();
    let mut guarded = house.attempt("guarded", &Job::default());
    let _ = guarded.config().fails_the_build().says("the policy `strict` and its settings decided");
    let _ = guarded.cleanup().succeeds();
    house.settled(0);
}
