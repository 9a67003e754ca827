//! Tasks on this machine: the agent as a child process on a loopback address of its own.
//!
//! For tiny jobs and for trying out. There is no isolation here beyond a directory and an address: a job
//! runs as the driver's user, so a profile with a local cluster is for jobs that one would run oneself.
//!
//! ```text
//! <state>/local/<attempt>/task.json    the agent's process and address; written once it runs
//! <state>/local/<attempt>/agent.log    what the agent prints
//! <state>/local/<attempt>/builds, cache
//! ```

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    BackendError, Cause, LaunchRequest, OwnedTask, Phase, Stopped, TaskBackend, TaskId, TaskStatus,
    Times,
};
use crate::settings::LocalCluster;

/// From SIGTERM to SIGKILL of the agent; it gives its scripts less.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Marks every process of a task, so that those which left the agent's process groups are found as well.
const MARK: &str = "POINTSMAN_TASK";

/// The local backend of one state directory.
#[derive(Debug)]
pub struct Local {
    directory: PathBuf,
    agent: PathBuf,
}

/// `task.json`
#[derive(Debug, Serialize, Deserialize)]
struct TaskFile {
    pid: i32,
    /// Start time of the process in clock ticks since boot: a pid alone may be somebody else's by now.
    started: u64,
    address: IpAddr,
    #[serde(default)]
    created_at: Option<Timestamp>,
    started_by: String,
    tags: std::collections::BTreeMap<String, String>,
}

/// The directory of the task of `attempt`, in the state directory `state`.
pub fn task_directory(state: &Path, attempt: &str) -> PathBuf {
    state.join("local").join(attempt)
}

impl Local {
    /// The agent's executable: the settings', or `pointsman-agent` beside this one.
    pub fn agent(cluster: &LocalCluster) -> PathBuf {
        let beside = || {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name("pointsman-agent")
        };
        cluster.agent.clone().unwrap_or_else(beside)
    }

    /// The backend in the state directory `state`; without `agent` in the settings the executable is
    /// `pointsman-agent` beside this one.
    pub fn open(cluster: &LocalCluster, state: &Path) -> Self {
        Self { directory: state.join("local"), agent: Self::agent(cluster) }
    }

    fn start(&self, request: &LaunchRequest) -> io::Result<()> {
        let directory = self.directory.join(&request.attempt);
        for each in [&directory, &directory.join("builds"), &directory.join("cache")] {
            fs::create_dir_all(each)?;
        }
        if self.read(&request.attempt).is_ok() {
            return Ok(());
        }
        let address = free_address(&request.client_token, request.port)?;
        let log = File::create(directory.join("agent.log"))?;
        let mut command = Command::new(&self.agent);
        command.current_dir(&directory).env_clear();
        for (name, value) in &request.environment {
            command.env(name, value.reveal());
        }
        // None of the stage's pipes: GitLab Runner waits until the last holder has closed them.
        let child = command
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", &directory)
            .env("LANG", "C.UTF-8")
            .env("POINTSMAN_LISTEN", SocketAddr::new(address, request.port).to_string())
            .env(MARK, &request.attempt)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.agent.display()))
            })?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let started = start_time(pid).ok_or_else(|| io::Error::other("the agent ended at once"))?;
        let file = TaskFile {
            pid,
            started,
            address,
            created_at: Some(Timestamp::now()),
            started_by: request.started_by.clone(),
            tags: request.tags.clone(),
        };
        let mut temporary = tempfile::NamedTempFile::new_in(&directory)?;
        serde_json::to_writer(&mut temporary, &file)?;
        temporary.persist(directory.join("task.json"))?;
        Ok(())
    }

    fn read(&self, attempt: &str) -> io::Result<TaskFile> {
        let bytes = fs::read(self.directory.join(attempt).join("task.json"))?;
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    }

    fn look_at(&self, task: &TaskId) -> Option<TaskStatus> {
        let file = self.read(&task.0).ok()?;
        let stopped = (!file.is_alive()).then(|| {
            let log = fs::read_to_string(self.directory.join(&task.0).join("agent.log"));
            let last = log.ok().and_then(|log| log.lines().last().map(str::to_owned));
            Stopped {
                cause: Cause::ContainerEnded,
                code: "AgentEnded".to_owned(),
                reason: last.unwrap_or_else(|| "the agent ended without a word".to_owned()),
                containers: Vec::new(),
            }
        });
        Some(TaskStatus {
            bindings: Vec::new(),
            phase: if stopped.is_some() { Phase::Stopped } else { Phase::Running },
            address: Some(file.address),
            stopped,
            subnet: None,
            times: Times { created_at: file.created_at, ..Times::default() },
        })
    }

    fn list_tasks(&self, started_by: &str) -> Vec<OwnedTask> {
        let mut owned = Vec::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(task) = self.read(&name) else { continue };
            if task.started_by == started_by && task.is_alive() {
                owned.push(OwnedTask {
                    id: TaskId(name),
                    tags: task.tags,
                    created_at: task.created_at,
                    phase: Phase::Running,
                });
            }
        }
        owned
    }
}

impl TaskFile {
    fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

#[async_trait]
impl TaskBackend for Local {
    async fn launch(&self, request: &LaunchRequest) -> Result<TaskId, BackendError> {
        self.start(request).map_err(|error| {
            let hint = "set `agent` of the local cluster to the path of pointsman-agent";
            BackendError {
                hint: (error.kind() == io::ErrorKind::NotFound).then(|| hint.to_owned()),
                ..BackendError::new("start", "local", error.to_string())
            }
        })?;
        Ok(TaskId(request.attempt.clone()))
    }

    async fn describe_many(
        &self,
        tasks: &[TaskId],
    ) -> Result<Vec<(TaskId, TaskStatus)>, BackendError> {
        Ok(tasks.iter().filter_map(|task| Some((task.clone(), self.look_at(task)?))).collect())
    }

    async fn stop(&self, task: &TaskId, _reason: &str) -> Result<Option<TaskStatus>, BackendError> {
        let status = self.look_at(task);
        if let Ok(file) = self.read(&task.0)
            && file.is_alive()
            && let Some(pid) = Pid::from_raw(file.pid)
        {
            // Only failing because it has ended just now.
            let _ = kill_process(pid, Signal::TERM);
            let deadline = tokio::time::Instant::now() + STOP_GRACE;
            while file.is_alive() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // Whatever is left: the agent itself, and processes that left its groups.
        for pid in marked_processes(&task.0) {
            let _ = kill_process(pid, Signal::KILL);
        }
        match fs::remove_dir_all(self.directory.join(&task.0)) {
            Ok(()) => Ok(status),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(status),
            Err(error) => Err(BackendError::new("remove", "local", error.to_string())),
        }
    }

    async fn list(&self, started_by: &str) -> Result<Vec<OwnedTask>, BackendError> {
        Ok(self.list_tasks(started_by))
    }
}

/// An address of 127.0.0.0/8, derived from `token` and free at `port`.
fn free_address(token: &str, port: u16) -> io::Result<IpAddr> {
    let mut last = None;
    for round in 0..16_u8 {
        let digest = Sha256::new().chain_update(token).chain_update([round]).finalize();
        // Not 127.0.0.*, where this machine's own services listen.
        let address =
            IpAddr::V4(Ipv4Addr::new(127, digest[0].max(1), digest[1], digest[2].clamp(1, 254)));
        match TcpListener::bind((address, port)) {
            Ok(_) => return Ok(address),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no free loopback address")))
}

/// Field 22 of `/proc/<pid>/stat`; `None` when there is no such process or it is a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold blanks and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn marked_processes(attempt: &str) -> Vec<Pid> {
    let mark = format!("{MARK}={attempt}");
    let is_marked = |pid: &str| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ.split(|byte| *byte == 0).any(|each| each == mark.as_bytes())
        })
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && is_marked(name))
        .filter_map(|name| Pid::from_raw(name.parse().ok()?))
        .collect()
}
