//! The simulated ECS of a rehearsal: started for it, filled from the settings, ended with it.

mod world;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::settings::{Cluster, ClusterBackend, Settings};

const EXECUTABLE: &str = "pointsman-simulator";
const AGENT: &str = "pointsman-agent";
/// AWS's configuration file of the driver.
const PROFILES: &str = "aws-config";
/// From its start to its first line.
const START: Duration = Duration::from_secs(20);
/// From StopTask, which answers at once, to the end of the task; the simulator kills after 2 s.
const STOPPING: Duration = Duration::from_secs(5);
/// From the end of its stdin to its own.
const END: Duration = Duration::from_secs(15);

/// A simulator that does not work.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// An executable is not where it should be.
    #[error("`{name}` is not in {}, beside the driver; build it with `cargo build --workspace`", .directory.display())]
    Missing {
        /// Of the file.
        name: &'static str,
        /// Where it should be.
        directory: PathBuf,
    },
    /// Its world could not be written, or it could not be started.
    #[error("cannot start the simulator {}", .path.display())]
    Start {
        /// The executable.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It did not say where it listens.
    #[error(
        "the simulator did not say where it listens (first line `{said}`); its log says: {log}"
    )]
    Silent {
        /// Its first line.
        said: String,
        /// Its stderr.
        log: String,
    },
}

/// What the ledger says of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tasks {
    /// How many were started.
    pub started: usize,
    /// Which of them were not stopped.
    pub running: Vec<String>,
}

/// A running simulator. It ends when this is dropped.
pub(super) struct Simulator {
    child: Child,
    /// The simulator ends at its end of file, also when we are killed.
    stdin: Option<ChildStdin>,
    endpoint: String,
    directory: PathBuf,
}

#[derive(Deserialize)]
struct Hello {
    endpoint: String,
}

impl Simulator {
    /// Starts the one beside `driver`, in `directory`, which must be there.
    pub(super) fn start(
        driver: &Path,
        directory: &Path,
        settings: &Settings,
        caller: &[(OsString, OsString)],
    ) -> Result<Self, SimulatorError> {
        let beside = driver.parent().unwrap_or(Path::new("."));
        let find = |name: &'static str| {
            let path = beside.join(name);
            match path.is_file() {
                true => Ok(path),
                false => Err(SimulatorError::Missing { name, directory: beside.to_owned() }),
            }
        };
        let (path, agent) = (find(EXECUTABLE)?, find(AGENT)?);
        let failed = |source| SimulatorError::Start { path: path.clone(), source };
        let world = directory.join("world.json");
        std::fs::write(&world, world::world(settings).to_string()).map_err(failed)?;
        std::fs::write(directory.join(PROFILES), profiles(settings)).map_err(failed)?;
        let log = directory.join("simulator.log");
        let mut child = Command::new(&path)
            .env_clear()
            .envs(without_aws(caller))
            .arg("--world")
            .arg(&world)
            .arg("--directory")
            .arg(directory)
            .arg("--agent")
            .arg(&agent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(failed)?)
            // Ctrl-C must not end it before the jobs are cleaned up.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let said = first_line(&mut child);
        let mut simulator = Self {
            stdin: child.stdin.take(),
            child,
            endpoint: String::new(),
            directory: directory.to_owned(),
        };
        match serde_json::from_str::<Hello>(&said) {
            Ok(hello) => {
                simulator.endpoint = hello.endpoint;
                Ok(simulator)
            }
            Err(_) => {
                drop(simulator);
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                Err(SimulatorError::Silent { said, log: log.trim().to_owned() })
            }
        }
    }

    /// The environment of the driver.
    pub(super) fn environment(&self, caller: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
        let profiles = self.directory.join(PROFILES);
        let own = [
            ("AWS_ENDPOINT_URL_ECS", self.endpoint.as_str()),
            ("AWS_ENDPOINT_URL_STS", self.endpoint.as_str()),
            ("AWS_ENDPOINT_URL_EC2", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "rehearsal"),
            ("AWS_SECRET_ACCESS_KEY", "rehearsal"),
        ];
        let own = own.map(|(key, value)| (key.into(), value.into()));
        let files = [("AWS_CONFIG_FILE".into(), profiles.into_os_string())];
        without_aws(caller).into_iter().chain(own).chain(files).collect()
    }

    /// What was started and what still runs, by the ledger. Tasks that are being stopped get a moment.
    pub(super) fn tasks(&self) -> Tasks {
        let until = Instant::now() + STOPPING;
        loop {
            let path = self.directory.join("ledger.jsonl");
            let tasks = tasks(&std::fs::read_to_string(path).unwrap_or_default());
            if tasks.running.is_empty() || Instant::now() >= until {
                return tasks;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An AWS configuration file with the profiles that clusters name, and nothing true in it.
fn profiles(settings: &Settings) -> String {
    let of = |cluster: &Cluster| match &cluster.backend {
        ClusterBackend::Ecs(ecs) => ecs.profile.clone(),
        ClusterBackend::Local(_) => None,
    };
    let names: BTreeSet<String> = settings.clusters.values().filter_map(of).collect();
    let profile = |name: &String| {
        format!(
            "[profile {name}]\naws_access_key_id = rehearsal\naws_secret_access_key = rehearsal\n"
        )
    };
    names.iter().map(profile).collect()
}

/// The caller's environment with nothing that leads to AWS: neither the driver nor the scripts, which
/// simulated tasks run as the caller, may reach an account by accident.
pub(super) fn without_aws(caller: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let nothing = [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ];
    caller
        .iter()
        .filter(|(key, _)| !key.as_encoded_bytes().starts_with(b"AWS_"))
        .cloned()
        .chain(nothing.map(|(key, value)| (key.into(), value.into())))
        .collect()
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let until = Instant::now() + END;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line of stdout, empty when none comes in time. The rest is read and forgotten, so that the
/// simulator never waits for a reader.
fn first_line(child: &mut Child) -> String {
    let Some(stdout) = child.stdout.take() else { return String::new() };
    let (sender, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut first = String::new();
        let _ = reader.read_line(&mut first);
        let _ = sender.send(first);
        let mut rest = [0; 4096];
        while matches!(reader.read(&mut rest), Ok(length) if length > 0) {}
    });
    line.recv_timeout(START).unwrap_or_default().trim().to_owned()
}

#[derive(Deserialize)]
struct LedgerLine {
    event: String,
    #[serde(default)]
    task: Option<String>,
}

fn tasks(ledger: &str) -> Tasks {
    let mut started = BTreeSet::new();
    let mut running = BTreeSet::new();
    for line in ledger.lines().filter_map(|line| serde_json::from_str::<LedgerLine>(line).ok()) {
        match (line.event.as_str(), line.task) {
            ("run-task", Some(task)) => {
                started.insert(task.clone());
                running.insert(task);
            }
            ("stopped", Some(task)) => {
                running.remove(&task);
            }
            _ => {}
        }
    }
    Tasks { started: started.len(), running: running.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_ledger_tells_what_was_left() {
        let ledger = "{\"event\":\"run-task\",\"task\":\"a\",\"cluster\":\"c\"}\n{\"event\":\"run-task\",\"task\":\"b\"}\nbroken\n{\"event\":\"no-capacity\"}\n{\"event\":\"stopped\",\"task\":\"a\",\"at\":1}\n";
        assert_eq!(tasks(ledger), Tasks { started: 2, running: vec!["b".into()] });
        assert_eq!(tasks(""), Tasks { started: 0, running: vec![] });
    }

    fn beside(simulator: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [(EXECUTABLE, simulator), (AGENT, "")] {
            let path = root.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let directory = root.path().join("directory");
        std::fs::create_dir(&directory).unwrap();
        (root, directory)
    }

    #[test]
    fn a_simulator_is_started_and_ends_with_its_stdin() {
        let script = r#"#!/bin/bash
[ "$1 $3 $5" = "--world --directory --agent" ] && [ -s "$2" ] && [ -x "$6" ] && [ -z "${AWS_PROFILE:-}" ] || exit 1
echo '{"event":"run-task","task":"a"}' > "$4/ledger.jsonl"
echo '{"endpoint":"http://127.0.0.1:7"}'
( sleep 0.3; echo '{"event":"stopped","task":"a"}' >> "$4/ledger.jsonl" ) &
cat > /dev/null
touch "$4/ended"
"#;
        let (root, directory) = beside(script);
        let mut settings = crate::rehearse::tests::settings_with_a_cluster();
        if let Some(ClusterBackend::Ecs(ecs)) =
            settings.clusters.get_mut("dev").map(|cluster| &mut cluster.backend)
        {
            ecs.profile = Some("ci".to_owned());
        }
        let path = std::env::var_os("PATH").unwrap();
        let caller = [("AWS_PROFILE".into(), "mine".into()), ("PATH".into(), path.clone())];
        let driver = root.path().join("pointsman");
        let simulator = Simulator::start(&driver, &directory, &settings, &caller).unwrap();
        let environment = simulator.environment(&caller);
        let value = |key: &str| {
            environment
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.to_str().unwrap())
        };
        assert_eq!(value("AWS_ENDPOINT_URL_ECS"), Some("http://127.0.0.1:7"));
        assert_eq!(value("AWS_ENDPOINT_URL_STS"), Some("http://127.0.0.1:7"));
        assert_eq!((value("AWS_PROFILE"), value("PATH")), (None, path.to_str()));
        let profiles = std::fs::read_to_string(directory.join(PROFILES)).unwrap();
        assert!(
            profiles.starts_with("[profile ci]\naws_access_key_id = rehearsal\n"),
            "{profiles}"
        );
        assert_eq!(simulator.tasks(), Tasks { started: 1, running: vec![] });
        drop(simulator);
        assert!(directory.join("ended").exists());
    }

    #[test]
    fn a_simulator_that_fails_shows_its_log() {
        let (root, directory) = beside("#!/bin/bash\necho 'no such world' >&2; exit 1\n");
        let settings = crate::rehearse::tests::settings_with_a_cluster();
        let error = Simulator::start(&root.path().join("pointsman"), &directory, &settings, &[])
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "the simulator did not say where it listens (first line ``); its log says: no such world"
        );
    }
}
