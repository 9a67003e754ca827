//! GitLab Runner's part: one attempt at a job, with the calls of its stages as the runner makes them
//! (executors/custom/custom.go and command/command.go).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::house::{DRIVER, House};
use super::output::StageOutput;

/// No stage of a test takes this long; one that does holds a pipe or waits for nothing.
const STUCK: Duration = Duration::from_secs(90);

/// What of the job response file a test chooses.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    /// `variables[]`, and `CUSTOM_ENV_*` as the runner makes it of them.
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) image: Option<String>,
}

impl Default for Job {
    fn default() -> Self {
        Self { name: "build".to_owned(), variables: Vec::new(), image: None }
    }
}

impl Job {
    pub(crate) fn variable(mut self, key: &str, value: &str) -> Self {
        self.variables.push((key.to_owned(), value.to_owned()));
        self
    }

    fn response(&self, id: u64) -> Value {
        let variable = |(key, value): &(String, String)| json!({ "key": key, "value": value, "public": true, "file": false, "masked": false, "raw": false });
        json!({
            "id": id,
            "token": "glcbt-64_job-token",
            "allow_git_fetch": true,
            "job_info": {
                "name": self.name, "stage": "test", "pipeline_id": 55, "project_id": 7,
                "project_name": "app", "project_full_path": "acme/app",
                "namespace_id": 3, "root_namespace_id": 3, "organization_id": 1,
                "instance_id": "", "instance_uuid": "", "user_id": 9,
                "time_in_queue_seconds": 1.5,
                "project_jobs_running_on_instance_runners_count": "0",
                "queue_size": 0, "queue_depth": 0,
            },
            "git_info": {
                "repo_url": "https://gitlab-ci-token:glcbt-64_job-token@gitlab.example.com/acme/app.git",
                "repo_object_format": "", "ref": "main",
                "sha": "0123456789abcdef0123456789abcdef01234567",
                "before_sha": "0000000000000000000000000000000000000000",
                "ref_type": "branch", "refspecs": null, "depth": 20, "protected": true,
            },
            "runner_info": { "uuid": "", "timeout": 3600 },
            "inputs": {},
            "variables": self.variables.iter().map(variable).collect::<Vec<_>>(),
            "steps": [{ "name": "script", "script": ["true"], "timeout": 3600, "when": "on_success", "allow_failure": false }],
            "image": { "name": self.image.clone().unwrap_or_default() },
            "services": null, "artifacts": null, "cache": null, "credentials": null,
            "dependencies": null,
            "features": { "trace_sections": true, "failure_reasons": null, "tracing": null },
            "policy_options": { "execution_policy_job": false, "policy_name": "" },
            "suspend_options": {},
        })
    }
}

pub(crate) struct Attempt<'h> {
    house: &'h House,
    profile: String,
    job: Job,
    /// The attempt's temporary directory: working directory and `TMPDIR` of every call.
    pub(crate) directory: TempDir,
    /// From the answer of `config`.
    pub(crate) job_env: BTreeMap<String, String>,
    scripts: u32,
}

impl<'h> Attempt<'h> {
    pub(super) fn new(house: &'h House, profile: &str, job: &Job) -> Self {
        static JOB_ID: AtomicU64 = AtomicU64::new(1000);
        let directory = TempDir::with_prefix_in("custom-executor", house.path()).unwrap();
        let id = JOB_ID.fetch_add(1, Ordering::Relaxed);
        let response = format!("{}\n", job.response(id));
        fs::write(directory.path().join("response.json"), response).unwrap();
        Self {
            house,
            profile: profile.to_owned(),
            job: job.clone(),
            directory,
            job_env: BTreeMap::new(),
            scripts: 0,
        }
    }

    /// Another attempt at the same job, as after a failed `prepare`.
    pub(crate) fn again(&self) -> Self {
        let next = Self::new(self.house, &self.profile, &self.job);
        fs::copy(self.response_file(), next.response_file()).unwrap();
        next
    }

    pub(crate) fn response_file(&self) -> PathBuf {
        self.directory.path().join("response.json")
    }

    /// A stage's call, ready to start.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let path = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(DRIVER);
        command
            .arg("--config")
            .arg(self.house.settings_file())
            .args(["--profile", &self.profile])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(self.house.cloud_environment())
            .env("TMPDIR", self.directory.path())
            .env("BUILD_FAILURE_EXIT_CODE", "1")
            .env("SYSTEM_FAILURE_EXIT_CODE", "2")
            .env("BUILD_EXIT_CODE_FILE", path("build_exit_code"))
            .env("JOB_RESPONSE_FILE", path("response.json"))
            .envs(&self.job_env)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (key, value) in &self.job.variables {
            command.env(format!("CUSTOM_ENV_{key}"), value);
        }
        command
    }

    /// Starts `config` and keeps what it answers.
    pub(crate) fn config(&mut self) -> StageOutput {
        let output = collect(self.command(&["config"]).spawn().unwrap());
        if output.status.success() {
            let reply: Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("config answered no JSON ({error})\n{output}"));
            self.job_env = serde_json::from_value(reply["job_env"].clone()).unwrap();
        }
        output
    }

    pub(crate) fn prepare(&self) -> StageOutput {
        collect(self.command(&["prepare"]).spawn().unwrap())
    }

    pub(crate) fn cleanup(&self) -> StageOutput {
        collect(self.command(&["cleanup"]).spawn().unwrap())
    }

    /// Runs `script` as the sub-stage `build_script`.
    pub(crate) fn run(&mut self, script: &[u8]) -> StageOutput {
        self.run_as("build_script", script)
    }

    pub(crate) fn run_as(&mut self, sub_stage: &str, script: &[u8]) -> StageOutput {
        collect(self.start_run(sub_stage, script))
    }

    pub(crate) fn start_run(&mut self, sub_stage: &str, script: &[u8]) -> Child {
        self.scripts += 1;
        let directory = self.directory.path().join(format!("script{}", self.scripts));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("script");
        fs::write(&path, script).unwrap();
        self.command(&["run", path.to_str().unwrap(), sub_stage]).spawn().unwrap()
    }

    /// The number that GitLab Runner would report, of the file's first line.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        let text = fs::read_to_string(self.directory.path().join("build_exit_code")).ok()?;
        text.lines().next()?.parse().ok()
    }
}

/// Waits for the exit **and** for the end of both pipes, as GitLab Runner does.
pub(crate) fn collect(mut child: Child) -> StageOutput {
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    std::thread::spawn(move || {
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        let status = child.wait().unwrap();
        let output = StageOutput { stdout: bytes, stderr: errors.join().unwrap(), status };
        // Nobody waits for it any more when the stage was stuck.
        let _ = sender.send(output);
    });
    receiver.recv_timeout(STUCK).unwrap_or_else(|_| {
        let _ = kill_process_group(group, Signal::KILL);
        let output = receiver.recv_timeout(STUCK);
        panic!(
            "the stage did not end\n{}",
            output.map(|output| output.to_string()).unwrap_or_default()
        )
    })
}

/// Sends `signal` to the stage's process group, as GitLab Runner does.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process_group(group, signal).unwrap();
}
