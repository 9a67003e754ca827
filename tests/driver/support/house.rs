//! A runner manager's world for one test: settings, state, and a simulator.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::attempt::{Attempt, Job};
use super::ledger::{self, Ledger};
use super::output::StageOutput;

/// The driver under test.
pub(crate) const DRIVER: &str = env!("CARGO_BIN_EXE_pointsman");

/// A file of the build, such as `debug/pointsman-agent` or `policies/by-tag.wasm`.
pub(crate) fn built(name: &str) -> PathBuf {
    let profile = Path::new(DRIVER).parent().unwrap();
    let path = profile.parent().unwrap().join(name);
    assert!(path.exists(), "{} is missing: run `make build policies`", path.display());
    path
}

/// An executable of the build beside the driver.
pub(crate) fn executable(name: &str) -> PathBuf {
    let path = Path::new(DRIVER).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}

pub(crate) struct House {
    directory: TempDir,
    simulator: Child,
    endpoint: String,
    /// Beside [`Self::cloud_environment`]'s own.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl House {
    /// A house whose simulator plays nothing wrong.
    pub(crate) fn new() -> Self {
        Self::with_faults(&json!([]))
    }

    /// A house whose simulator plays `faults`, as its world file spells them.
    pub(crate) fn with_faults(faults: &Value) -> Self {
        Self::altered(&json!({ "faults": faults }), |settings| settings)
    }

    /// A house whose simulator's world has these fields beside the usual ones, with settings that `change` has
    /// made of the usual ones.
    pub(crate) fn altered(fields: &Value, change: impl Fn(String) -> String) -> Self {
        Self::with(
            |settings| *settings = change(std::mem::take(settings)),
            |world| {
                for (key, value) in fields.as_object().unwrap() {
                    world[key] = value.clone();
                }
            },
        )
    }

    /// A house whose tasks' containers start with `agent`.
    pub(crate) fn with_agent(agent: &Path) -> Self {
        Self::build(|_| {}, |_| {}, agent)
    }

    /// A house whose settings and whose simulator's world are changed before anything starts.
    pub(crate) fn with(
        change_settings: impl FnOnce(&mut String),
        change_world: impl FnOnce(&mut Value),
    ) -> Self {
        Self::build(change_settings, change_world, &executable("pointsman-agent"))
    }

    fn build(
        change_settings: impl FnOnce(&mut String),
        change_world: impl FnOnce(&mut Value),
        agent: &Path,
    ) -> Self {
        let directory = TempDir::with_prefix_in("house-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path();
        let mut settings = settings(&path.join("state"));
        change_settings(&mut settings);
        fs::write(path.join("pointsman.toml"), settings).unwrap();
        let state = path.join("state");
        fs::create_dir(&state).unwrap();
        if let Some(compiled) = compiled_policies() {
            copy_directory(compiled, &state.join("policies"));
        }
        let mut world = world();
        change_world(&mut world);
        fs::write(path.join("world.json"), world.to_string()).unwrap();
        fs::create_dir(path.join("simulator")).unwrap();
        let mut simulator = Command::new(executable("pointsman-simulator"))
            .arg("--world")
            .arg(path.join("world.json"))
            .arg("--directory")
            .arg(path.join("simulator"))
            .arg("--agent")
            .arg(agent)
            // The simulator ends when this pipe does, so also when the test panics.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(path.join("simulator.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(simulator.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            let log = fs::read_to_string(path.join("simulator.log")).unwrap_or_default();
            panic!("the simulator says {line:?} ({error})\n{log}")
        });
        let endpoint = answer["endpoint"].as_str().unwrap().to_owned();
        Self { directory, simulator, endpoint, environment: Vec::new() }
    }

    /// Where the simulator listens.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A command that is not a stage, with the cloud's environment.
    pub(crate) fn operator(&self, arguments: &[&str]) -> StageOutput {
        let output = self.operation(arguments).output().unwrap();
        StageOutput { stdout: output.stdout, stderr: output.stderr, status: output.status }
    }

    /// The same, ready to start.
    pub(crate) fn operation(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(DRIVER);
        command
            .arg("--config")
            .arg(self.settings_file())
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(self.cloud_environment())
            .stdin(Stdio::null());
        command
    }

    /// Stops the task `id` as somebody in the ECS console would.
    pub(crate) fn stop_from_outside(&self, id: &str, code: &str, reason: &str) {
        let body = json!({ "code": code, "reason": reason }).to_string();
        self.ask("POST", &format!("/simulator/tasks/{id}/stop"), &body);
    }

    /// Puts `faults` in the place of those that the simulator plays.
    pub(crate) fn set_faults(&self, faults: &[Value]) {
        self.ask("DELETE", "/simulator/faults", "");
        for fault in faults {
            self.ask("POST", "/simulator/faults", &fault.to_string());
        }
    }

    /// Calls one of the simulator's own ways in; its answer's body.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let address = self.endpoint.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The records of ended attempts.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        for directory in fs::read_dir(self.state().join("records")).into_iter().flatten().flatten()
        {
            for file in fs::read_dir(directory.path()).unwrap().flatten() {
                let text = fs::read_to_string(file.path()).unwrap();
                records.push(serde_json::from_str(&text).unwrap());
            }
        }
        records
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn settings_file(&self) -> PathBuf {
        self.path().join("pointsman.toml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Changes the settings file.
    pub(crate) fn edit_settings(&self, edit: impl Fn(String) -> String) {
        let text = fs::read_to_string(self.settings_file()).unwrap();
        let edited = edit(text.clone());
        assert_ne!(text, edited, "nothing to edit");
        fs::write(self.settings_file(), edited).unwrap();
    }

    /// Puts `lines` in the place of the line `policies = …` of `profile`.
    pub(crate) fn set_chain(&self, profile: &str, lines: &str) {
        let table = format!("[profiles.{profile}]");
        let text = fs::read_to_string(self.settings_file()).unwrap();
        let (before, after) = text.split_once(&table).unwrap();
        let old = after.lines().find(|line| line.starts_with("policies = ")).unwrap();
        let after = after.replacen(old, lines, 1);
        fs::write(self.settings_file(), format!("{before}{table}{after}")).unwrap();
    }

    /// Adds `[policies.NAME]` with the component `bytes` and further lines.
    pub(crate) fn add_policy(&self, name: &str, bytes: &[u8], more: &str) {
        let path = self.path().join(format!("{name}.wasm"));
        fs::write(&path, bytes).unwrap();
        let sha256 = digest(&path);
        self.edit_settings(|text| {
            format!(
                "{text}\n[policies.{name}]\ncomponent = \"{name}.wasm\"\nsha256 = \"{sha256}\"\n{more}\n"
            )
        });
    }

    pub(crate) fn ledger_file(&self) -> PathBuf {
        self.path().join("simulator/ledger.jsonl")
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::read(&self.ledger_file())
    }

    /// How often the simulator was called, by operation: `{"RunTask": {"calls": 1, "throttled": 0}}`.
    pub(crate) fn calls(&self) -> Value {
        serde_json::from_str(&self.ask("GET", "/simulator/calls", "")).unwrap()
    }

    /// What AWS's client is told on a machine with credentials, and where the simulator is.
    pub(crate) fn cloud_environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("AWS_ENDPOINT_URL_ECS", self.endpoint.clone()),
            ("AWS_ENDPOINT_URL_STS", self.endpoint.clone()),
            ("AWS_ENDPOINT_URL_EC2", self.endpoint.clone()),
            ("AWS_ENDPOINT_URL_IAM", self.endpoint.clone()),
            ("AWS_ENDPOINT_URL_SERVICE_QUOTAS", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret-of-the-runner-manager".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        environment.extend(self.environment.iter().cloned());
        environment
    }

    /// A new attempt at `job`, as the runner that uses the profile `profile` would make it.
    pub(crate) fn attempt<'h>(&'h self, profile: &str, job: &Job) -> Attempt<'h> {
        Attempt::new(self, profile, job)
    }

    /// An attempt whose task is ready.
    pub(crate) fn prepared(&self, profile: &str) -> Attempt<'_> {
        let mut attempt = self.attempt(profile, &Job::default());
        let _ = attempt.config().succeeds();
        let _ = attempt.prepare().succeeds();
        attempt
    }

    /// Waits until nothing runs any more, asserts that nothing was started twice, and answers the ledger.
    pub(crate) fn settled(&self, started: usize) -> Ledger {
        let ledger = ledger::settle(&self.ledger_file());
        assert_eq!(ledger.started().len(), started, "{:?}", ledger.started());
        // No stage that got as far as its state, no directory.
        let attempts = fs::read_dir(self.state().join("attempts")).map_or(0, Iterator::count);
        assert_eq!(attempts, 0, "attempts left in the state directory");
        ledger
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.simulator.stdin.take());
        let _ = self.simulator.wait();
    }
}

/// The digest to pin.
pub(crate) fn digest(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn settings(state: &Path) -> String {
    let component = built("policies/by-tag.wasm");
    include_str!("pointsman.toml")
        .replace("@STATE@", state.to_str().unwrap())
        .replace("@COMPONENT@", component.to_str().unwrap())
        .replace("@SHA256@", &digest(&component))
        .replace("@AGENT@", executable("pointsman-agent").to_str().unwrap())
        .replace("@USER@", &user())
}

/// Stock sshd lets only the user in who started it, unless that is root.
pub(crate) fn user() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

fn world() -> Value {
    let definition = |family: &str, arch: &str, image: &str, port: u16| {
        json!({
            "family": family,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "runtimePlatform": { "cpuArchitecture": arch, "operatingSystemFamily": "LINUX" },
            "containerDefinitions": [{
                "name": "ci-coordinator",
                "image": image,
                "essential": true,
                "portMappings": [{ "containerPort": port, "protocol": "tcp" }],
            }],
        })
    };
    json!({
        "account": "123456789012",
        "region": "eu-west-1",
        "clusters": [{ "name": "test-cluster", "capacity_providers": ["FARGATE", "FARGATE_SPOT"] }],
        "subnets": ["subnet-12345", "subnet-67890"],
        "security_groups": ["sg-12345"],
        "roles": ["arn:aws:iam::123456789012:role/deploy"],
        "task_definitions": [
            definition("agent-task", "X86_64", "example/agent", 2222),
            definition("agent-task-arm64", "ARM64", "example/agent", 2222),
            definition("openssh-task", "X86_64", "example/openssh", 2022),
        ],
        "images": {
            "example/agent": { "server": "agent" },
            "example/openssh": { "server": "openssh" },
        },
    })
}

/// The policies, compiled once for all tests of this process by a job of their own.
fn compiled_policies() -> Option<&'static Path> {
    static COMPILED: OnceLock<PathBuf> = OnceLock::new();
    static COMPILING: OnceLock<()> = OnceLock::new();
    // The house that compiles must not wait for itself.
    if COMPILED.get().is_none() && COMPILING.set(()).is_ok() {
        let house = House::new();
        let mut attempt = house.attempt("agent", &Job::default());
        let _ = attempt.config().succeeds();
        let kept =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("policies-{}", std::process::id()));
        copy_directory(&house.state().join("policies"), &kept);
        let _ = COMPILED.set(kept);
    }
    COMPILED.get().map(PathBuf::as_path)
}

fn copy_directory(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).recursive(true).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
