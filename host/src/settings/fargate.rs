//! The configuration file of GitLab's Fargate driver, read as it is: `[Fargate]`, `[TaskMetadata]`, `[SSH]`.
//!
//! The keys are those of its documentation (docs/README.md of gitlab-org/ci-cd/custom-executor-drivers/fargate) and
//! of what was added later: `UsePublicIP` (merge request 59) and `EnableExecuteCommand` (93). That driver ignores
//! keys that it does not know; here they are mistakes, save for `[Pointsman]`, which is ours: the one file serves
//! both while a team changes over.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::table::Table;
use super::{LogFormat, LogLevel, LogSettings, values};
use crate::placement::{Arch, Capacity};

/// Where state is kept when the file names no directory.
const STATE_DIRECTORY: &str = "/var/lib/pointsman";

/// The key of the file, and a table that only such a file has.
const MARKS: [&str; 5] = ["fargate", "taskmetadata", "loglevel", "logformat", "logfile"];
/// What only a `pointsman.toml` has.
const OWN_TABLES: [&str; 5] = ["clusters", "task_definitions", "policies", "profiles", "state"];

/// The file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FargateFile {
    /// `LogLevel`, `LogFormat`, `LogFile`
    pub log: LogSettings,
    /// `[Fargate] Cluster`
    pub cluster: String,
    /// `[Fargate] Region`
    pub region: String,
    /// `[Fargate] Subnet`
    pub subnet: String,
    /// `[Fargate] SecurityGroup`
    pub security_group: String,
    /// `[Fargate] TaskDefinition`
    pub task_definition: String,
    /// `[Fargate] EnablePublicIP`. Default false.
    pub enable_public_ip: bool,
    /// `[Fargate] UsePublicIP`. Default false, as since version 0.3 of that driver.
    pub use_public_ip: bool,
    /// `[Fargate] PlatformVersion`
    pub platform_version: Option<String>,
    /// `[Fargate] EnableExecuteCommand`. Default false.
    pub enable_execute_command: bool,
    /// Below `[TaskMetadata] Directory`, or `[Pointsman] StateDirectory`. Absolute.
    pub state_directory: PathBuf,
    /// `[SSH] Username`
    pub username: String,
    /// `[SSH] Port`. Default 22.
    pub port: u16,
    /// `[Pointsman] Capacity`. Default on-demand.
    pub capacity: Capacity,
    /// `[Pointsman] Architecture`. Default x86_64.
    pub arch: Arch,
    /// `[Pointsman] AllowedTaskDefinitions`: what `FARGATE_TASK_DEFINITION` may say; `None` ignores it.
    pub allowed_task_definitions: Option<Vec<String>>,
    /// `[Pointsman] AllowedPlatformVersions`: what `FARGATE_PLATFORM_VERSION` may say; `None` ignores it.
    pub allowed_platform_versions: Option<Vec<String>>,
}

/// What the command line says in that driver's manner, in the place of the file. An empty value says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--task-def`
    pub task_definition: Option<String>,
    /// `--platform-version`
    pub platform_version: Option<String>,
}

impl Flags {
    /// A flag that is there.
    pub fn first(&self) -> Option<&'static str> {
        match self {
            Self { task_definition: Some(_), .. } => Some("--task-def"),
            Self { platform_version: Some(_), .. } => Some("--platform-version"),
            Self { task_definition: None, platform_version: None } => None,
        }
    }
}

impl FargateFile {
    /// Takes over what `flags` say: as that driver has it, an argument counts more than the file and the job's
    /// variable.
    pub fn apply(&mut self, flags: &Flags) {
        if let Some(task_definition) = &flags.task_definition {
            self.task_definition.clone_from(task_definition);
            self.allowed_task_definitions = None;
        }
        if let Some(version) = &flags.platform_version {
            self.platform_version = Some(version.clone());
            self.allowed_platform_versions = None;
        }
    }
}

/// Whether the tables are those of such a file.
pub(super) fn is_one(root: &Table<'_>) -> bool {
    let has = |names: &[&str]| {
        root.keys().any(|key| names.iter().any(|name| name.eq_ignore_ascii_case(key)))
    };
    has(&MARKS) && !root.keys().any(|key| OWN_TABLES.contains(&key))
}

/// Reads the tables; relative paths are of `directory`.
pub(super) fn read(root: &Table<'_>, directory: &Path) -> Option<FargateFile> {
    let root = root.in_any_case();
    let log = LogSettings {
        level: filled(&root, "LogLevel", |text| {
            LogLevel::of_fargate(text).ok_or_else(|| {
                format!("is `{text}`, expected one of `debug`, `info`, `warn`, `error`, `fatal`, `panic`")
            })
        }),
        format: filled(&root, "LogFormat", |text| {
            LogFormat::of_fargate(text)
                .ok_or_else(|| format!("is `{text}`, expected `text` or `json`"))
        })
        .unwrap_or_default(),
        file: filled(&root, "LogFile", |text| Ok(directory.join(text))),
    };
    let fargate = root.table("Fargate");
    let cluster =
        fargate.required("Cluster", "expected the ECS cluster's name or ARN", values::text);
    let region =
        fargate.required("Region", "expected an AWS Region, such as \"eu-west-1\"", values::named);
    let subnet =
        fargate.required("Subnet", "expected a subnet, such as \"subnet-12345\"", values::text);
    let security_group = fargate.required(
        "SecurityGroup",
        "expected a security group, such as \"sg-12345\"",
        values::text,
    );
    let task_definition = fargate.required(
        "TaskDefinition",
        "expected `family`, `family:revision` or an ARN",
        values::text,
    );
    let enable_public_ip = flag(&fargate, "EnablePublicIP");
    let use_public_ip = flag(&fargate, "UsePublicIP");
    if use_public_ip && !enable_public_ip {
        fargate.report(
            "UsePublicIP",
            "is true, but the tasks get no public address: set `EnablePublicIP = true`",
        );
    }
    let platform_version = filled(&fargate, "PlatformVersion", |text| Ok(text.to_owned()));
    let enable_execute_command = flag(&fargate, "EnableExecuteCommand");
    fargate.finish_as_read();

    let metadata = root.table("TaskMetadata");
    let metadata_directory = filled(&metadata, "Directory", |text| Ok(directory.join(text)));
    metadata.finish_as_read();

    let ssh = root.table("SSH");
    let username =
        ssh.required("Username", "expected the login name, such as \"root\"", values::text);
    // 0 is how that driver reads an absent port.
    let port = ssh.optional("Port", |value| values::number(value, 0..=u64::from(u16::MAX)));
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    ssh.finish_as_read();

    let own = root.table("Pointsman");
    let state_directory = filled(&own, "StateDirectory", |text| Ok(directory.join(text)));
    let capacities = [("on-demand", Capacity::OnDemand), ("spot", Capacity::Spot)];
    let capacity = own.optional("Capacity", |value| values::choice(value, &capacities));
    let archs = [("x86_64", Arch::X86_64), ("arm64", Arch::Arm64)];
    let arch = own.optional("Architecture", |value| values::choice(value, &archs));
    let allowed_task_definitions = own.optional("AllowedTaskDefinitions", values::texts);
    let allowed_platform_versions = own.optional("AllowedPlatformVersions", values::texts);
    own.finish_as_read();
    root.finish_as_read();
    Some(FargateFile {
        log,
        cluster: cluster?,
        region: region?,
        subnet: subnet?,
        security_group: security_group?,
        task_definition: task_definition?,
        enable_public_ip,
        use_public_ip,
        platform_version,
        enable_execute_command,
        state_directory: state_directory
            // Apart from the other driver's files, and with a mode of its own.
            .or_else(|| metadata_directory.map(|directory| directory.join("pointsman")))
            .unwrap_or_else(|| STATE_DIRECTORY.into()),
        username: username?,
        port: port.unwrap_or(22),
        capacity: capacity.unwrap_or(Capacity::OnDemand),
        arch: arch.unwrap_or(Arch::X86_64),
        allowed_task_definitions,
        allowed_platform_versions,
    })
}

fn flag(table: &Table<'_>, key: &'static str) -> bool {
    table.optional(key, values::flag).unwrap_or(false)
}

/// A text, where an empty one is the same as none.
fn filled<T>(
    table: &Table<'_>,
    key: &'static str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let value = |value: &DeValue<'_>| match value.as_str() {
        Some("") => Ok(None),
        _ => read(&values::text(value)?).map(Some),
    };
    table.optional(key, value).flatten()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::raw;
    use super::*;

    pub(in crate::settings) fn file(text: &str) -> Result<FargateFile, Vec<String>> {
        raw::read(text, |root| {
            assert!(is_one(root), "{text}");
            read(root, Path::new("/etc/gitlab-runner"))
        })
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    const LEAST: &str = r#"
[fargate]
cluster = "c"
REGION = "eu-west-1"
subnet = "subnet-1"
securitygroup = "sg-1"
taskDefinition = "t:3"
[ssh]
username = "root"
"#;

    #[test]
    fn keys_are_the_same_in_any_letter_case_and_the_rest_has_defaults() {
        let read = file(LEAST).unwrap();
        assert_eq!((read.region.as_str(), read.task_definition.as_str()), ("eu-west-1", "t:3"));
        assert_eq!((read.port, read.enable_public_ip, read.use_public_ip), (22, false, false));
        assert_eq!(read.state_directory, Path::new("/var/lib/pointsman"));
        assert_eq!(read.log, LogSettings::default());
        assert_eq!(read.allowed_task_definitions, None);
    }

    #[test]
    fn every_key_is_read() {
        let read = file(
            r#"
LogLevel = "warning"
LogFormat = "text-simple"
LogFile = "fargate.log"
[Fargate]
Cluster = "c"
Region = "eu-west-1"
Subnet = "subnet-1"
SecurityGroup = "sg-1"
TaskDefinition = "t"
EnablePublicIP = true
UsePublicIP = true
PlatformVersion = "1.4.0"
EnableExecuteCommand = true
[TaskMetadata]
Directory = "metadata"
[SSH]
Username = "ci"
Port = 0
[Pointsman]
Capacity = "spot"
Architecture = "arm64"
AllowedTaskDefinitions = ["big:2"]
AllowedPlatformVersions = ["1.3.0"]
"#,
        )
        .unwrap();
        assert_eq!(
            read,
            FargateFile {
                log: LogSettings {
                    level: Some(LogLevel::Warn),
                    format: LogFormat::Text,
                    file: Some("/etc/gitlab-runner/fargate.log".into()),
                },
                cluster: "c".into(),
                region: "eu-west-1".into(),
                subnet: "subnet-1".into(),
                security_group: "sg-1".into(),
                task_definition: "t".into(),
                enable_public_ip: true,
                use_public_ip: true,
                platform_version: Some("1.4.0".into()),
                enable_execute_command: true,
                state_directory: "/etc/gitlab-runner/metadata/pointsman".into(),
                username: "ci".into(),
                port: 22,
                capacity: Capacity::Spot,
                arch: Arch::Arm64,
                allowed_task_definitions: Some(vec!["big:2".into()]),
                allowed_platform_versions: Some(vec!["1.3.0".into()]),
            }
        );
    }

    #[test]
    fn every_mistake_is_reported_with_the_nearest_key() {
        let problems = file(
            r#"LogLevel = "loud"
[Fargate]
Clustr = "c"
Region = ["eu-west-1"]
Subnet = "subnet-1"
subnet = "subnet-2"
SecurityGroup = ""
TaskDefinition = "t"
EnablePublicIP = "no"
UsePublicIP = true
[TaskMetadata]
Directory = 7
[SSH]
Port = 70000
[Fargat]
"#,
        )
        .unwrap_err();
        assert_eq!(
            problems,
            [
                "line 1: LogLevel: is `loud`, expected one of `debug`, `info`, `warn`, `error`, `fatal`, `panic`",
                "line 2: Fargate.Cluster: is missing: expected the ECS cluster's name or ARN",
                "line 3: Fargate.Clustr: is no key of this table: did you mean `Cluster`?",
                "line 4: Fargate.Region: is a array, expected a text in quotes",
                "line 6: Fargate.subnet: is `Subnet` a second time, in other letters",
                "line 7: Fargate.SecurityGroup: is empty",
                "line 9: Fargate.EnablePublicIP: is a string, expected true or false",
                "line 10: Fargate.UsePublicIP: is true, but the tasks get no public address: set `EnablePublicIP = true`",
                "line 12: TaskMetadata.Directory: is a integer, expected a text in quotes",
                "line 13: SSH.Username: is missing: expected the login name, such as \"root\"",
                "line 14: SSH.Port: is 70000, expected a whole number from 0 to 65535",
                "line 15: Fargat: is no key of this table: did you mean `Fargate`?",
            ]
        );
    }

    #[test]
    fn the_content_tells_the_format() {
        let tells = |text: &str| raw::read(text, |root| Some(is_one(root))).unwrap();
        for text in ["[Fargate]", "[FARGATE]", "LogLevel = 'info'", "[taskmetadata]\n[ssh]"] {
            assert!(tells(text), "{text}");
        }
        for text in ["", "[ssh]\nready_timeout = '2m'", "[state]\n[Fargate]", "[clusters.fargate]"]
        {
            assert!(!tells(text), "{text}");
        }
    }
}
