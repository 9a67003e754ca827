//! Tasks on this machine: the agent as a child process on a loopback address of its own.
//!
//! For tiny jobs and for trying out. There is no isolation here beyond a directory and an address: a job
//! runs as the driver's user, so a profile with a local cluster is for jobs that one would run oneself.
//!
//! ```text
//! <state>/local/<attempt>/task.json    the agent's address and process, written before it gets the word to start
//! <state>/local/<attempt>/agent.log    what the agent prints
//! <state>/local/<attempt>/builds, cache
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    BackendError, Cause, LaunchRequest, OwnedTask, Phase, Stopped, TaskBackend, TaskId, TaskStatus,
    Times,
};
use crate::environment::checkpoint;
use crate::settings::LocalCluster;

/// From SIGTERM to SIGKILL of the agent and all below it.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Waits for the word to start, and becomes the agent then, with the same process id. A driver that is killed
/// before it has noted that id takes the pipe with it, and the agent never starts.
const ON_THE_WORD: &str = "read -r word && exec \"$0\" </dev/null";

/// Of a process that waits for the word of a driver which is gone.
const WORDLESS: Duration = Duration::from_secs(2);

/// The local backend of one state directory.
#[derive(Debug)]
pub struct Local {
    directory: PathBuf,
    agent: PathBuf,
}

/// `task.json`
#[derive(Debug, Serialize, Deserialize)]
struct TaskFile {
    /// `None` until there is one.
    #[serde(default)]
    process: Option<Process>,
    address: IpAddr,
    #[serde(default)]
    created_at: Option<Timestamp>,
    started_by: String,
    tags: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Process {
    /// Start time in clock ticks since boot: a pid alone may be somebody else's by now.
    started: u64,
    pid: i32,
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        Some(Self { started: start_time(pid)?, pid })
    }

    fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
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
        if let Ok(task) = self.read(&request.attempt)
            && self.was_started(&request.attempt, &task)
        {
            return Ok(());
        }
        fs::create_dir_all(&directory)?;
        let address = free_address(&request.client_token, request.port)?;
        let mut task = TaskFile {
            process: None,
            address,
            created_at: Some(Timestamp::now()),
            started_by: request.started_by.clone(),
            tags: request.tags.clone(),
        };
        task.save(&directory)?;
        for each in ["builds", "cache"] {
            fs::create_dir_all(directory.join(each))?;
        }
        let log = File::create(self.log_of(&request.attempt))?;
        self.check_agent()?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(ON_THE_WORD).arg(&self.agent).current_dir(&directory).env_clear();
        for (name, value) in &request.environment {
            command.env(name, value.reveal());
        }
        checkpoint("before-starting-agent");
        // None of the stage's pipes: GitLab Runner waits until the last holder has closed them.
        let mut child = command
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", &directory)
            .env("LANG", "C.UTF-8")
            .env("POINTSMAN_LISTEN", SocketAddr::new(address, request.port).to_string())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let ended = || io::Error::other("the agent ended at once");
        task.process = Some(Process::of(pid).ok_or_else(ended)?);
        checkpoint("before-noting-agent");
        task.save(&directory)?;
        checkpoint("before-the-word-to-start");
        child.stdin.take().ok_or_else(ended)?.write_all(b"start\n")?;
        checkpoint("after-the-word-to-start");
        Ok(())
    }

    /// What a shell would only say in the agent's log.
    fn check_agent(&self) -> io::Result<()> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.agent.display()))
        };
        let mode = fs::metadata(&self.agent).map_err(named)?.permissions().mode();
        if mode & 0o111 == 0 {
            return Err(named(io::ErrorKind::PermissionDenied.into()));
        }
        Ok(())
    }

    fn log_of(&self, attempt: &str) -> PathBuf {
        self.directory.join(attempt).join("agent.log")
    }

    /// Whether the agent got the word to start: it lives and will go on, or its log has what it died of.
    fn was_started(&self, attempt: &str, task: &TaskFile) -> bool {
        let patience = Instant::now() + WORDLESS;
        loop {
            if fs::metadata(self.log_of(attempt)).is_ok_and(|log| log.len() > 0) {
                return true;
            }
            // Alive and silent: just started, or at the end of a pipe whose other end is gone.
            if !task.is_alive() || Instant::now() >= patience {
                return task.is_alive();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn read(&self, attempt: &str) -> io::Result<TaskFile> {
        let bytes = fs::read(self.directory.join(attempt).join("task.json"))?;
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    }

    fn look_at(&self, task: &TaskId) -> Option<TaskStatus> {
        let file = self.read(&task.0).ok()?;
        let stopped = (!file.is_alive()).then(|| {
            let log = fs::read_to_string(self.log_of(&task.0));
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
            // One that has ended, or was never started, has left a directory to remove.
            let phase = if task.is_alive() {
                Phase::Running
            } else if self.was_started(&name, &task) {
                Phase::Stopped
            } else {
                Phase::Provisioning
            };
            if task.started_by == started_by {
                owned.push(OwnedTask {
                    id: TaskId(name),
                    tags: task.tags,
                    created_at: task.created_at,
                    phase,
                    is_hidden: false,
                });
            }
        }
        owned
    }
}

impl TaskFile {
    fn save(&self, directory: &Path) -> io::Result<()> {
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut temporary, self)?;
        temporary.persist(directory.join("task.json"))?;
        Ok(())
    }

    fn is_alive(&self) -> bool {
        self.process.is_some_and(Process::is_alive)
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

    async fn stop(&self, task: &TaskId, reason: &str) -> Result<Option<TaskStatus>, BackendError> {
        let mut status = self.look_at(task);
        if let Ok(file) = self.read(&task.0)
            && let Some(agent) = file.process.filter(|process| process.is_alive())
            && let Some(pid) = Pid::from_raw(agent.pid)
        {
            // Only failing because it has ended just now.
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + STOP_GRACE;
            while agent.is_alive() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            kill_with_descendants(agent, pid).await;
        }
        if let Some(status) = status.as_mut().filter(|status| status.stopped.is_none()) {
            status.phase = Phase::Stopped;
            status.times.stopped_at = Some(Timestamp::now());
            status.stopped = Some(Stopped {
                cause: Cause::Stopped,
                code: "Stopped".to_owned(),
                reason: reason.to_owned(),
                containers: Vec::new(),
            });
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

/// Kills what runs below `agent`, then itself. It adopts all orphans below it, so as long as it lives its
/// descendants are the whole task, whatever groups and sessions they are in.
async fn kill_with_descendants(agent: Process, pid: Pid) {
    // A process can fork while the list is read; one in uninterruptible sleep must not hold the stage up.
    for _ in 0..200 {
        if !agent.is_alive() {
            return;
        }
        let descendants = descendants(agent.pid);
        for each in &descendants {
            let _ = kill_process(*each, Signal::KILL);
        }
        if descendants.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = kill_process(pid, Signal::KILL);
    for _ in 0..200 {
        if !agent.is_alive() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All living processes below `ancestor`, by the parents that `/proc` names.
fn descendants(ancestor: i32) -> Vec<Pid> {
    let processes: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
            let is_living = !matches!(fields.next()?, "Z" | "X");
            let parent = fields.next()?.parse().ok()?;
            is_living.then_some((pid, parent))
        })
        .collect();
    let mut found = vec![ancestor];
    let mut looked_at = 0;
    while let Some(&of) = found.get(looked_at) {
        found.extend(processes.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        looked_at += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}
