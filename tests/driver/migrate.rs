//! `pointsman migrate`: one `pointsman.toml` that does what files of GitLab's Fargate driver did.

use std::fs;
use std::path::Path;
use std::process::Command;

use pointsman::settings::Settings;
use tempfile::TempDir;

use crate::support::house::{DRIVER, user};
use crate::support::output::StageOutput;
use crate::support::{House, Job};

const ECS: &str = include_str!("fargate/ecs.toml");
const CONFIG: &str = include_str!("fargate/config.toml");

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The article's file for one of its environments.
fn article(environment: &str) -> String {
    ECS.replace("RUNNER_TAGS", environment)
        .replace("SUBNET", "subnet-12345")
        .replace("SECURITY_GROUP_ID", "sg-12345")
}

fn migrate(directory: &Path, arguments: &[&str]) -> StageOutput {
    let output = Command::new(DRIVER)
        .arg("migrate")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    StageOutput { stdout: output.stdout, stderr: output.stderr, status: output.status }
}

#[test]
fn three_files_become_three_profiles() {
    let directory = directory();
    for environment in ["dev", "staging", "production"] {
        let file = directory.path().join(format!("{environment}.toml"));
        fs::write(file, article(environment)).unwrap();
    }
    let files = ["dev.toml", "staging.toml", "production.toml"];
    let first = migrate(directory.path(), &files).succeeds();
    let second = migrate(directory.path(), &files).succeeds();
    assert_eq!(first.stdout, second.stdout, "not deterministic");
    let first = first.says(
        "  prepare_args = [\"--config\", \"/etc/pointsman/pointsman.toml\", \"--profile\", \"staging\", \"prepare\"]",
    );
    let path = directory.path().join("pointsman.toml");
    fs::write(&path, &first.stdout).unwrap();
    let migrated = Settings::load(&path).unwrap();
    assert_eq!(migrated.profiles.keys().collect::<Vec<_>>(), ["dev", "production", "staging"]);
    for environment in ["dev", "staging", "production"] {
        let alone = Settings::load(&directory.path().join(format!("{environment}.toml"))).unwrap();
        let same = |alone: &dyn std::fmt::Debug, migrated: &dyn std::fmt::Debug| {
            assert_eq!(format!("{alone:?}"), format!("{migrated:?}"));
        };
        same(&alone.profiles[environment], &migrated.profiles[environment]);
        let cluster = format!("acme-gitlab-{environment}-cluster");
        same(&alone.clusters[&cluster], &migrated.clusters[&cluster]);
        let definition = format!("gitlab-runner-{environment}-task");
        same(&alone.task_definitions[&definition], &migrated.task_definitions[&definition]);
        same(&alone.log, &migrated.log);
        assert_eq!(alone.state_directory, migrated.state_directory);
    }
}

/// A file in which everything that can differ does, with names that are no names of ours.
const ODD: &str = r#"
loglevel = "debug"
LOGFORMAT = "json"
LogFile = "a \"quoted\" file.log"
[fargate]
Cluster = "arn:aws:ecs:eu-west-1:123456789012:cluster/odd"
Region = "eu-west-1"
Subnet = "subnet-1"
SecurityGroup = "sg-1"
TaskDefinition = "arn:aws:ecs:eu-west-1:123456789012:task-definition/tool_s:7"
EnablePublicIP = true
UsePublicIP = true
PlatformVersion = "1.4.0"
EnableExecuteCommand = true
[SSH]
Username = 'back\slash "and" quote'
Port = 2022
[Pointsman]
Capacity = "spot"
Architecture = "arm64"
StateDirectory = "state"
AllowedTaskDefinitions = ["tool_s:7", "tool_s-7", "arn:aws:ecs:eu-west-1:123456789012:task-definition/tool_s:7"]
AllowedPlatformVersions = ["1.3.0", "LATEST"]
"#;

#[test]
fn whatever_is_in_a_file_is_in_the_new_one() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("a")).unwrap();
    fs::create_dir(path("b")).unwrap();
    fs::write(path("a/odd one.toml"), ODD).unwrap();
    fs::write(path("b/odd one.toml"), ODD.replace("subnet-1", "subnet-2")).unwrap();
    let output = migrate(directory.path(), &["a/odd one.toml", "b/odd one.toml"]).succeeds();
    fs::write(path("new.toml"), &output.stdout).unwrap();
    let new = Settings::load(&path("new.toml")).unwrap();
    let old = Settings::load(&path("a/odd one.toml")).unwrap();
    assert_eq!(old.profiles.keys().collect::<Vec<_>>(), ["odd-one"]);
    assert_eq!(new.profiles.keys().collect::<Vec<_>>(), ["a-odd-one", "b-odd-one"]);
    assert_eq!(new.state_directory, path("a/state"));
    assert_eq!(new.log.file.as_deref(), Some(&*path("a/a \"quoted\" file.log")));
    // Three clusters of the first file and three of the second, which differ in the subnet.
    assert_eq!(
        new.clusters.keys().collect::<Vec<_>>(),
        [
            "odd",
            "odd-1.3.0",
            "odd-1.3.0-b-odd-one",
            "odd-LATEST",
            "odd-LATEST-b-odd-one",
            "odd-b-odd-one"
        ]
    );
    // Three names in ECS come to one name of ours, and both files have them.
    assert_eq!((old.task_definitions.len(), new.task_definitions.len()), (3, 5));
    let definition = &new.task_definitions["tool_s-7"];
    assert_eq!(definition.ssh.user, "back\\slash \"and\" quote");
    for (old, new) in [
        (format!("{:?}", old.clusters["odd-1.3.0"]), format!("{:?}", new.clusters["odd-1.3.0"])),
        (format!("{:?}", old.task_definitions["tool_s-7"]), format!("{definition:?}")),
    ] {
        assert_eq!(old, new);
    }
}

#[test]
fn nothing_is_overwritten_unless_it_is_asked() {
    let directory = directory();
    fs::write(directory.path().join("ecs.toml"), article("dev")).unwrap();
    fs::write(directory.path().join("config.toml"), CONFIG).unwrap();
    let arguments = ["ecs.toml", "--output", "new.toml", "--runner-config", "config.toml"];
    let new = directory.path().join("new.toml");
    let told = format!(
        "  line 19:\n  - prepare_args = [\"--config\", \"/etc/gitlab-runner/ecs.toml\", \"custom\", \"prepare\"]\n  + prepare_args = [\"--config\", \"{}\", \"--profile\", \"ecs\", \"prepare\"]\n",
        new.display()
    );
    let output = migrate(directory.path(), &arguments).succeeds().says(&told);
    assert_eq!(output.stdout_text(), "");
    let written = fs::read_to_string(&new).unwrap();

    fs::write(&new, "mine").unwrap();
    let _ = migrate(directory.path(), &arguments)
        .fails_the_system()
        .says("cannot write new.toml")
        .says("hint: --force overwrites it");
    assert_eq!(fs::read_to_string(&new).unwrap(), "mine");
    let _ = migrate(directory.path(), &[&arguments[..], &["--force"]].concat()).succeeds();
    assert_eq!(fs::read_to_string(&new).unwrap(), written);
}

#[test]
fn the_mistakes_of_all_files_are_told_and_nothing_is_written() {
    let directory = directory();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("dev.toml", &article("dev").replace("Cluster =", "Clutser ="));
    write(
        "own.toml",
        "[state]\ndirectory = \"/x\"\n[clusters.a]\nbackend = \"local\"\n[task_definitions.t]\nx86_64 = \"t\"\nssh = { server = \"agent\" }\n[profiles.p]\npolicies = []\nbounds = { clusters = [\"a\"], task_definitions = [\"t\"], max_cpu = \"1\", max_memory = \"2GiB\" }\n",
    );
    let output =
        migrate(directory.path(), &["dev.toml", "own.toml", "none.toml", "--output", "new.toml"])
            .fails_the_system()
            .says("nothing was written")
            .says("dev.toml has 2 mistakes")
            .says("did you mean `Cluster`?")
            .says("own.toml: is a pointsman.toml already")
            .says("cannot read the settings file none.toml");
    assert!(!directory.path().join("new.toml").exists(), "{output}");
}

#[test]
fn an_argument_of_a_runner_goes_into_the_new_file() {
    let directory = directory();
    fs::write(directory.path().join("ecs.toml"), article("dev")).unwrap();
    let config =
        CONFIG.replace("\"custom\", \"prepare\"", "\"--task-def=big:2\", \"custom\", \"prepare\"");
    fs::write(directory.path().join("config.toml"), config).unwrap();
    let output = migrate(directory.path(), &["ecs.toml", "--runner-config", "config.toml"]);
    let output = output.succeeds().says("\"--profile\", \"ecs\", \"prepare\"]");
    assert!(output.stdout_text().contains("x86_64 = \"big:2\""), "{output}");
}

#[test]
fn a_job_runs_by_the_new_file() {
    let house = House::new();
    let old = article("dev")
        .replace("acme-gitlab-dev-cluster", "test-cluster")
        .replace("gitlab-runner-dev-task", "openssh-task")
        .replace("\"root\"", &format!("\"{}\"", user()))
        .replace("Port = 22\n", "Port = 2022\n")
        .replace("/opt/gitlab-runner/metadata", house.path().to_str().unwrap());
    fs::write(house.path().join("dev.toml"), old).unwrap();
    let arguments = ["dev.toml", "--output", "pointsman.toml", "--force"];
    let _ = migrate(house.path(), &arguments).succeeds();
    let mut attempt = house.attempt("dev", &Job::default());
    let _ = attempt
        .config()
        .succeeds()
        .says("Placed on cluster test-cluster, task definition openssh-task");
    let _ = attempt.prepare().succeeds();
    assert_eq!(attempt.run(b"echo migrated\n").succeeds().stdout_text(), "migrated\n");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn the_documentations_tables_are_read() {
    let documentation = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/migration.md"));
    let block = |begin: &str| {
        let blocks = documentation.split("```toml\n").skip(1);
        let mut texts = blocks.map(|block| block.split("```").next().unwrap());
        texts
            .find(|text| text.starts_with(begin))
            .unwrap_or_else(|| panic!("no {begin}"))
            .to_owned()
    };
    let directory = directory();
    let old = directory.path().join("ecs.toml");
    fs::write(&old, article("dev") + &block("[Pointsman]")).unwrap();
    let settings = Settings::load(&old).unwrap();
    assert_eq!(settings.task_definitions.len(), 3);
    assert_eq!(settings.state_directory, Path::new("/var/lib/pointsman"));

    let new = directory.path().join("pointsman.toml");
    let definition = |name: &str| {
        format!("[task_definitions.{name}]\nx86_64 = \"{name}\"\nssh = {{ server = \"agent\" }}\n")
    };
    let begin = "[state]\ndirectory = \"/s\"\n[clusters.dev]\nbackend = \"local\"\n";
    let text =
        [begin, &definition("node"), &definition("node-large"), &block("[profiles.dev]")].concat();
    fs::write(&new, text).unwrap();
    let profile = &Settings::load(&new).unwrap().profiles["dev"];
    assert!(format!("{:?}", profile.default).contains("node-large"), "{profile:?}");

    // Every key that such a file can have is told.
    for key in [
        "LogLevel",
        "LogFormat",
        "LogFile",
        "Cluster",
        "Region",
        "Subnet",
        "SecurityGroup",
        "TaskDefinition",
        "EnablePublicIP",
        "UsePublicIP",
        "PlatformVersion",
        "EnableExecuteCommand",
        "Directory",
        "Username",
        "Port",
    ] {
        assert!(documentation.contains(key), "{key} is not told");
    }
}
