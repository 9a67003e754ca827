//! The processes that stand for a task's containers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use crate::model::{ContainerDefinition, TaskOverride};
use crate::sshd;
use crate::supervisor::Report;
use crate::world::{Image, Server};

/// The programs that containers are made of.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) supervisor: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) sshd: PathBuf,
}

/// A container to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) definition: &'a ContainerDefinition,
    pub(crate) overrides: &'a TaskOverride,
    pub(crate) image: &'a Image,
    pub(crate) address: Ipv4Addr,
    pub(crate) directory: &'a Path,
    pub(crate) log: &'a Path,
    /// The container runs, but no server in it.
    pub(crate) without_server: bool,
}

/// The port that a container's server listens on: its first mapping's, else the server's usual one.
pub(crate) fn port(definition: &ContainerDefinition, server: Server) -> Option<u16> {
    let mapped = definition.port_mappings.iter().find_map(|mapping| mapping.container_port);
    match server {
        Server::None => None,
        Server::Agent => Some(mapped.and_then(|port| u16::try_from(port).ok()).unwrap_or(2222)),
        Server::Openssh => Some(mapped.and_then(|port| u16::try_from(port).ok()).unwrap_or(22)),
    }
}

/// A task's running containers.
#[derive(Debug)]
pub(crate) struct Processes {
    controls: Vec<Option<ChildStdin>>,
    n_running: usize,
    ended: mpsc::Receiver<(usize, Report)>,
    ends: mpsc::Sender<(usize, Report)>,
}

impl Processes {
    pub(crate) fn none() -> Self {
        let (ends, ended) = mpsc::channel(16);
        Self { controls: Vec::new(), n_running: 0, ended, ends }
    }

    /// Starts a container. Containers are numbered in the order of their starts.
    pub(crate) fn start(&mut self, programs: &Programs, launch: &Launch<'_>) -> io::Result<()> {
        let mut environment = environment(launch);
        let port = port(launch.definition, launch.image.server)
            .map(|port| SocketAddrV4::new(launch.address, port));
        let mut command: Vec<OsString> = match (launch.image.server, port) {
            (Server::Agent, Some(listen)) if !launch.without_server => {
                environment.insert("POINTSMAN_LISTEN".to_owned(), listen.to_string());
                vec![programs.agent.clone().into()]
            }
            (Server::Openssh, Some(listen)) if !launch.without_server => {
                sshd::command(&programs.sshd, launch.directory, listen, &environment)?
            }
            _ => launch.image.command.iter().map(OsString::from).collect(),
        };
        if command.is_empty() {
            command = vec!["sleep".into(), "infinity".into()];
        }
        let log = File::options().create(true).append(true).open(launch.log)?;
        let mut child = Command::new(&programs.supervisor)
            .arg("supervise")
            .arg("--")
            .args(command)
            .env_clear()
            .envs(environment)
            .current_dir(launch.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Not in the simulator's group: Ctrl-C in a terminal is for the simulator.
            .process_group(0)
            .spawn()?;
        let index = self.controls.len();
        self.controls.push(child.stdin.take());
        self.n_running += 1;
        let ends = self.ends.clone();
        tokio::spawn(async move {
            let report = wait(child).await;
            // Nobody listens any more when the simulator ends.
            let _ = ends.send((index, report)).await;
        });
        Ok(())
    }

    /// The next container to end: its number, and how. `None` when none is running.
    pub(crate) async fn next_end(&mut self) -> Option<(usize, Report)> {
        if self.n_running == 0 {
            return None;
        }
        let end = self.ended.recv().await;
        self.n_running -= 1;
        end
    }

    /// SIGTERM to the first processes of these containers and their groups.
    pub(crate) async fn terminate(&mut self, numbers: &[usize]) {
        for number in numbers {
            if let Some(Some(control)) = self.controls.get_mut(*number) {
                // A supervisor that is gone has nothing to terminate.
                let _ = control.write_all(b"T").await;
            }
        }
    }

    /// The same of all containers.
    pub(crate) async fn terminate_all(&mut self) {
        let all: Vec<usize> = (0..self.controls.len()).collect();
        self.terminate(&all).await;
    }

    /// SIGKILL to all processes of these containers.
    pub(crate) fn kill(&mut self, numbers: &[usize]) {
        for number in numbers {
            drop(self.controls.get_mut(*number).and_then(Option::take));
        }
    }

    /// The same of all containers.
    pub(crate) fn kill_all(&mut self) {
        self.controls.iter_mut().for_each(|control| drop(control.take()));
    }
}

async fn wait(mut child: Child) -> Report {
    let mut line = String::new();
    if let Some(stdout) = &mut child.stdout {
        // An unreadable report is one that is missing.
        let _ = stdout.read_to_string(&mut line).await;
    }
    let status = child.wait().await;
    // 127 is a shell's word for a program that could not be started, 137 for one that was killed.
    let unsupervised = if status.is_ok_and(|status| status.code().is_some()) { 127 } else { 137 };
    serde_json::from_str(&line).unwrap_or(Report { exit_code: unsupervised, left_over: 0 })
}

/// A container's environment: little of the image, then the task definition's, then the override's.
fn environment(launch: &Launch<'_>) -> BTreeMap<String, String> {
    let directory = launch.directory.display().to_string();
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
    set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set("HOME", &directory);
    set("LANG", "C.UTF-8");
    for pair in &launch.definition.environment {
        set(&pair.name, &pair.value);
    }
    let overrides = &launch.overrides.container_overrides;
    let own =
        overrides.iter().filter(|one| one.name.as_deref() == Some(launch.definition.name.as_str()));
    for pair in own.flat_map(|one| one.environment.as_deref().unwrap_or_default()) {
        set(&pair.name, &pair.value);
    }
    set("POINTSMAN_TASK_ROOT", &directory);
    environment
}
