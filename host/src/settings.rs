//! `pointsman.toml`, checked: what the rest of the driver sees of it.
//!
//! [`read`] turns the file's text into [`Settings`] or into every mistake at once. The types here hold no
//! `Option` that must be `Some`, and names that another table must have are known to be there.

pub mod component;
mod default;
pub mod description;
mod ecs;
pub mod fargate;
pub mod gitlab;
mod log;
pub mod migration;
pub mod problem;
mod raw;
pub mod runner;
mod table;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::placement::bounds::Bounds;
use crate::placement::catalog::{Catalog, Hosts};
use crate::placement::{Arch, size::Size};
pub use component::{Component, OciReference};
pub use default::{AuthorsChoice, DEFAULT_POLICY, DefaultPlacement};
pub use ecs::{
    AddressKind, AssumeRole, EcsCluster, LaunchKind, MAX_SESSION_NAME, NetworkMode, SessionFact,
};
pub use fargate::{FargateFile, Flags};
pub use gitlab::{Gitlab, JobTags};
pub use log::{LogFormat, LogLevel, LogSettings};
pub use problem::{Problem, SettingsError};

/// The whole file.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[state] directory`, absolute.
    pub state_directory: PathBuf,
    /// `[runner] name`: tells this manager's tasks from another's in `startedBy`.
    pub manager: String,
    /// `[gitlab]`; `None` without a `url`.
    pub gitlab: Option<Gitlab>,
    /// `[ssh]`
    pub ssh: SshTimes,
    /// `[log]`
    pub log: LogSettings,
    /// `[sweep] automatic`: whether `prepare` looks for leaked tasks now and then. Default true.
    pub automatic_sweep: bool,
    /// `[clusters.*]`
    pub clusters: BTreeMap<String, Cluster>,
    /// `[task_definitions.*]`
    pub task_definitions: BTreeMap<String, TaskDefinition>,
    /// `[roles.*]`
    pub roles: BTreeMap<String, Role>,
    /// `[policies.*]`
    pub policies: BTreeMap<String, Policy>,
    /// `[profiles.*]`
    pub profiles: BTreeMap<String, Profile>,
}

/// `[ssh]`: how long the driver is patient with a task's SSH server.
#[derive(Debug, Clone, Copy)]
pub struct SshTimes {
    /// From RUNNING to "a session is authenticated". Default 2 min.
    pub ready_timeout: Duration,
    /// One TCP and SSH handshake. Default 5 s.
    pub connect_timeout: Duration,
    /// Without an answer for three of these the connection is lost. Default 15 s.
    pub keepalive: Duration,
    /// From "the connection is lost" to giving a script up that goes on in the agent. Default 5 min.
    pub resume_timeout: Duration,
    /// From SIGTERM to SIGKILL of the remote process group. Default 10 s.
    pub stop_grace: Duration,
}

/// `[clusters.*]`: where tasks start.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Shown to policies.
    pub labels: BTreeMap<String, String>,
    /// The rest hangs on the backend.
    pub backend: ClusterBackend,
}

impl Cluster {
    /// What of it placements are checked against.
    fn catalog_entry(&self) -> crate::placement::catalog::Cluster {
        let (hosts, has_spot) = match &self.backend {
            ClusterBackend::Ecs(ecs) => {
                let is_fargate = ecs.launch == LaunchKind::Fargate;
                let hosts = if is_fargate { Hosts::Fargate } else { Hosts::Instances };
                (hosts, ecs.spot_provider.is_some())
            }
            // It has no sizes of its own; a pipeline that is tried out here shall fit on Fargate as well.
            ClusterBackend::Local(_) => (Hosts::Fargate, true),
        };
        crate::placement::catalog::Cluster { labels: self.labels.clone(), hosts, has_spot }
    }
}

/// `backend = …`
#[derive(Debug, Clone)]
pub enum ClusterBackend {
    /// `"ecs"`
    Ecs(Box<EcsCluster>),
    /// `"local"`
    Local(LocalCluster),
}

/// This machine.
#[derive(Debug, Clone)]
pub struct LocalCluster {
    /// The agent's executable; `None` is `pointsman-agent` beside the driver's own.
    pub agent: Option<PathBuf>,
}

/// `[task_definitions.*]`
#[derive(Debug, Clone)]
pub struct TaskDefinition {
    /// The ECS task definition (`family`, `family:revision` or ARN) of each architecture; never empty.
    pub by_arch: BTreeMap<Arch, String>,
    /// The container that runs the SSH server. Default `ci-coordinator`.
    pub container: String,
    /// For jobs whose policy names no size; [`Size::OWN`] by `size = "task-definition"`.
    pub size: Size,
    /// Answered to GitLab Runner by `config`. Default `/builds`; `None` leaves it to the runner's `config.toml`.
    pub builds_dir: Option<String>,
    /// Answered to GitLab Runner by `config`. Default `/cache`; `None` leaves it to the runner's `config.toml`.
    pub cache_dir: Option<String>,
    /// What runs the generated scripts. Default `bash`.
    pub shell: Shell,
    /// How to reach a task.
    pub ssh: TaskSsh,
    /// Shown to policies.
    pub labels: BTreeMap<String, String>,
}

/// The shells whose scripts the driver runs. GitLab Runner also generates PowerShell's; nobody has tried those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// `bash`
    Bash,
    /// `sh`
    Sh,
    /// `login`: the login shell of the SSH user. For which shell scripts are generated is left to the runner's
    /// `config.toml`.
    Login,
}

/// `ssh = { … }` of a task definition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TaskSsh {
    /// What listens in the task.
    pub server: SshServer,
    /// The login name. Default `root`.
    pub user: String,
    /// Default 22 for OpenSSH, 2222 for the agent.
    pub port: u16,
    /// Where the driver's knowledge of the host key comes from.
    pub host_key: HostKeySource,
}

/// The two kinds of SSH server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SshServer {
    /// Stock `sshd`, given `SSH_PUBLIC_KEY` as in GitLab's documentation.
    Openssh,
    /// `pointsman-agent`
    Agent,
}

/// How the driver knows the host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeySource {
    /// The driver makes it and injects it with the task: verified from the first packet.
    Injected,
    /// The first key seen is pinned for the rest of the attempt.
    FirstContact,
}

/// `[roles.*]`
#[derive(Debug, Clone)]
pub struct Role {
    /// The IAM role's ARN. Policies never see it.
    pub arn: String,
    /// Shown to policies, and for `claims_taint`.
    pub privileged: bool,
}

/// `[policies.*]`
#[derive(Debug, Clone)]
pub struct Policy {
    /// Where the component comes from.
    pub component: Component,
    /// SHA-256 of the component, 64 lower-case hex digits.
    pub sha256: String,
    /// `[policies.*.settings]` as JSON: the policy's own.
    pub settings: serde_json::Value,
    /// The budget of one call. Fuel is the contract. Default 200,000,000.
    pub fuel: u64,
    /// The backstop of one call. Default 250 ms.
    pub deadline: Duration,
    /// Of the guest's linear memories. Default 64 MiB.
    pub memory_mib: u32,
    /// What a failing policy means. Guards always reject.
    pub on_error: OnError,
    /// Whether its answers count.
    pub mode: Mode,
    /// Whether it gets an inert WASI. Default false.
    pub wasi: bool,
}

impl Policy {
    /// A policy with nothing but what it needs, everything else at its default.
    pub fn new(component: Component, sha256: String) -> Self {
        Self {
            component,
            sha256,
            settings: serde_json::json!({}),
            fuel: 200_000_000,
            deadline: Duration::from_millis(250),
            memory_mib: 64,
            on_error: OnError::Reject,
            mode: Mode::Enforce,
            wasi: false,
        }
    }
}

/// `mode = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `"enforce"`, the default.
    Enforce,
    /// `"monitor"`: the policy runs and is recorded, and nothing hangs on what it answers.
    Monitor,
}

/// `on_error = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The job fails as a system failure.
    Reject,
    /// The policy is skipped, with a line in the job log.
    Abstain,
}

/// `[profiles.*]`: an environment's binding of policies and bounds.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The tags of the runner in GitLab that uses this profile.
    pub tags: BTreeSet<String>,
    /// Names of `[policies.*]`, in order; empty only with a [`Self::default`].
    pub policies: Vec<String>,
    /// Those of [`Self::policies`] that this profile only monitors, whatever their own mode.
    pub monitor: BTreeSet<String>,
    /// What a placement may be.
    pub bounds: Bounds,
    /// Whether a chain in which a policy read a claim may choose a privileged role.
    pub claims_taint: ClaimsTaint,
    /// Where a job goes that no placer of [`Self::policies`] answers for, as a policy whose component is
    /// [`Component::BuiltIn`].
    pub default: Option<Policy>,
}

/// `claims_taint = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimsTaint {
    /// `"allow"`, the default.
    Allow,
    /// `"deny-privileged-roles"`
    DenyPrivilegedRoles,
}

/// Reads the text of a `pointsman.toml`; `directory` is where it lies, for relative paths.
///
/// # Errors
///
/// Returns every mistake of the file, in the file's order.
pub fn read(text: &str, directory: &Path) -> Result<Settings, Vec<Problem>> {
    raw::read(text, |root| raw::settings(root, directory))
}

/// A file that was read, of either format.
#[derive(Debug)]
pub enum SettingsFile {
    /// `pointsman.toml`
    Own(Box<Settings>),
    /// Of GitLab's Fargate driver.
    Fargate(Box<FargateFile>),
}

impl SettingsFile {
    /// Reads the file at `path`, whose content tells the format.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, or with all its mistakes.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        // Relative paths in the file mean its own directory, wherever the driver was started.
        let absolute = std::path::absolute(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let directory = absolute.parent().unwrap_or_else(|| Path::new("/"));
        raw::read(&text, |root| {
            if fargate::is_one(root) {
                fargate::read(root, directory).map(|file| Self::Fargate(Box::new(file)))
            } else {
                raw::settings(root, directory).map(|own| Self::Own(Box::new(own)))
            }
        })
        .map_err(|problems| SettingsError::Mistakes { path: path.to_owned(), problems })
    }
}

impl Settings {
    /// Reads the file at `path`, whose content tells the format.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, or with all its mistakes.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        Self::load_with(path, &Flags::default())
    }

    /// The same, with what a command line in the manner of GitLab's Fargate driver says.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], and when `flags` do not go with the file's format.
    pub fn load_with(path: &Path, flags: &Flags) -> Result<Self, SettingsError> {
        match SettingsFile::load(path)? {
            SettingsFile::Own(settings) => match flags.first() {
                None => Ok(*settings),
                Some(flag) => Err(SettingsError::Flag { path: path.to_owned(), flag }),
            },
            // What `pointsman migrate` writes is what such a file means: one truth for both.
            SettingsFile::Fargate(file) => {
                let name = migration::profile_name(path);
                let text =
                    migration::write(&[migration::Source { name, path, file: &file, flags }]);
                read(&text, Path::new("/"))
                    .map_err(|problems| SettingsError::Mistakes { path: path.to_owned(), problems })
            }
        }
    }

    /// The policies of `profile` in order, by name, each in the mode that counts there.
    pub fn chain<'s>(&'s self, profile: &'s Profile) -> Vec<(&'s str, Policy)> {
        let in_profile = |name: &'s String| {
            let mut policy = self.policies.get(name)?.clone();
            if profile.monitor.contains(name) {
                policy.mode = Mode::Monitor;
            }
            Some((name.as_str(), policy))
        };
        let listed = profile.policies.iter().filter_map(in_profile);
        let default = profile.default.iter().map(|policy| (DEFAULT_POLICY, policy.clone()));
        listed.chain(default).collect()
    }

    /// The names that policies choose from, narrowed to what `bounds` allow, so that a policy cannot even
    /// see what it may not name.
    pub fn catalog(&self, bounds: &Bounds) -> Catalog {
        bounds.narrow(&Catalog {
            clusters: self
                .clusters
                .iter()
                .map(|(name, cluster)| (name.clone(), cluster.catalog_entry()))
                .collect(),
            task_definitions: self
                .task_definitions
                .iter()
                .map(|(name, definition)| {
                    let entry = crate::placement::catalog::TaskDefinition {
                        archs: definition.by_arch.keys().copied().collect(),
                        size: definition.size,
                        labels: definition.labels.clone(),
                    };
                    (name.clone(), entry)
                })
                .collect(),
            roles: self
                .roles
                .iter()
                .map(|(name, role)| {
                    (name.clone(), crate::placement::catalog::Role { privileged: role.privileged })
                })
                .collect(),
        })
    }
}
