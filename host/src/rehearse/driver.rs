//! One call of a driver stage, exactly as GitLab Runner makes it (executors/custom/command/command.go,
//! helpers/process): argv, environment, working directory, process group, pipes, signals, exit code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::interrupt::{Limits, look_again};
use super::log::{JobLog, Lines};

/// The exit codes that the runner names (executors/custom/custom.go).
const BUILD_FAILURE: i32 = 1;
const SYSTEM_FAILURE: i32 = 2;

/// How a driver call ended, if not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Exit code 1, and the number from `BUILD_EXIT_CODE_FILE`.
    Build { exit_code: i32 },
    /// Everything else.
    System { message: String },
}

impl Failure {
    /// The runner's words in the job log.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Build { exit_code } => format!("exit status {exit_code}"),
            Self::System { message } => message.clone(),
        }
    }
}

/// What is the same for all calls of one attempt.
pub(super) struct Driver<'a> {
    /// The executable.
    pub(super) program: &'a Path,
    /// `--config F --profile P …`, before the stage's name.
    pub(super) arguments: Vec<OsString>,
    /// Of the GitLab Runner process.
    pub(super) environment: &'a [(OsString, OsString)],
    /// The attempt's own.
    pub(super) directory: PathBuf,
    /// From SIGTERM to SIGKILL.
    pub(super) graceful_kill: Duration,
    /// From SIGKILL to giving up.
    pub(super) force_kill: Duration,
}

/// Where stdout goes. Stderr goes to the job log; that of `cleanup` would go to the runner's own log as
/// warnings, and a rehearsal has only one log.
pub(super) enum Stdout {
    /// `config`
    Collect,
    /// `prepare`, `run`
    Log,
    /// `run`, with lines for the rehearsal itself behind this prefix: they are collected.
    Carry(&'static str),
    /// `cleanup`: the runner's own log at debug level, which nobody reads.
    Drop,
}

enum Event {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Closed,
    Exited(std::io::Result<ExitStatus>),
}

impl Driver<'_> {
    /// `BUILD_EXIT_CODE_FILE`
    fn exit_code_file(&self) -> PathBuf {
        self.directory.join("build_exit_code")
    }

    /// `JOB_RESPONSE_FILE`
    pub(super) fn response_file(&self) -> PathBuf {
        self.directory.join("response.json")
    }

    /// Makes one call and waits for its exit and for the end of both pipes. Gives the collected stdout.
    ///
    /// `job_env` is what `config` answered, `variables` come prefixed, in order.
    pub(super) fn call(
        &self,
        stage: &[OsString],
        job_env: &BTreeMap<String, String>,
        variables: &[(String, String)],
        stdout: Stdout,
        limits: Limits<'_>,
        log: &JobLog<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .args(stage)
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .env("TMPDIR", &self.directory)
            .env("BUILD_FAILURE_EXIT_CODE", BUILD_FAILURE.to_string())
            .env("SYSTEM_FAILURE_EXIT_CODE", SYSTEM_FAILURE.to_string())
            .env("BUILD_EXIT_CODE_FILE", self.exit_code_file())
            .env("JOB_RESPONSE_FILE", self.response_file())
            .envs(job_env)
            .envs(variables.iter().map(|(key, value)| (format!("CUSTOM_ENV_{key}"), value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(|error| Failure::System {
            message: format!("failed to start command: {error}"),
        })?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);

        // Bounded, so that a job that writes faster than the terminal reads waits instead of filling memory.
        let (sender, events) = sync_channel(64);
        if let Some(pipe) = child.stdout.take() {
            let sender = sender.clone();
            std::thread::spawn(move || forward(pipe, Event::Stdout, &sender));
        }
        if let Some(pipe) = child.stderr.take() {
            let sender = sender.clone();
            std::thread::spawn(move || forward(pipe, Event::Stderr, &sender));
        }
        std::thread::spawn(move || wait(child, &sender));
        let (status, collected) = self.attend(&events, group, &stdout, limits, log);
        self.judge(status).map(|()| collected)
    }

    /// Passes output on until process and pipes have ended, and ends them when `limits` do.
    fn attend(
        &self,
        events: &Receiver<Event>,
        group: Option<Pid>,
        stdout: &Stdout,
        limits: Limits<'_>,
        log: &JobLog<'_>,
    ) -> (Result<std::io::Result<ExitStatus>, String>, Vec<u8>) {
        let mut collected = Vec::new();
        let mut err_lines = Lines::default();
        let mut out_lines = match stdout {
            Stdout::Carry(prefix) => Lines::carrying(prefix),
            _ => Lines::default(),
        };
        let mut status = None;
        let mut open = 2;
        // What to send next to a process that shall end, and when.
        let mut next = None;
        let mut told = false;
        loop {
            match events.recv_timeout(look_again()) {
                Ok(Event::Stdout(bytes)) => match stdout {
                    Stdout::Collect => collected.extend(bytes),
                    Stdout::Log | Stdout::Carry(_) => out_lines.push(&bytes, log),
                    Stdout::Drop => {}
                },
                Ok(Event::Stderr(bytes)) => err_lines.push(&bytes, log),
                Ok(Event::Closed) => open -= 1,
                Ok(Event::Exited(exited)) => status = Some(exited),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if status.is_none() => {
                    return (Err("the driver's exit was not seen".to_owned()), collected);
                }
                Err(RecvTimeoutError::Disconnected) => open = 0,
            }
            if open == 0
                && let Some(status) = status.take()
            {
                out_lines.end(log);
                err_lines.end(log);
                collected.extend(out_lines.into_collected());
                return (Ok(status), collected);
            }
            if !told && limits.ended().is_some() {
                told = true;
                next = Some((Instant::now(), Some(Signal::TERM)));
            }
            if let Some((at, signal)) = next
                && Instant::now() >= at
            {
                match (signal, group) {
                    (Some(signal), Some(group)) => {
                        // The group may be gone already; then its pipes end soon.
                        let _ = kill_process_group(group, signal);
                        next = Some(match signal {
                            Signal::TERM => {
                                (Instant::now() + self.graceful_kill, Some(Signal::KILL))
                            }
                            _ => (Instant::now() + self.force_kill, None),
                        });
                    }
                    _ => {
                        let id = group.map_or(0, |group| group.as_raw_nonzero().get());
                        return (
                            Err(format!(
                                "failed to kill process PID={id}, likely process is dormant"
                            )),
                            collected,
                        );
                    }
                }
            }
        }
    }

    fn judge(&self, status: Result<std::io::Result<ExitStatus>, String>) -> Result<(), Failure> {
        let system = |message| Err(Failure::System { message });
        let status = match status {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return system(error.to_string()),
            Err(message) => return system(message),
        };
        match status.code() {
            Some(0) => Ok(()),
            Some(BUILD_FAILURE) => match std::fs::read(self.exit_code_file()) {
                Err(_) => Err(Failure::Build { exit_code: BUILD_FAILURE }),
                Ok(bytes) => match build_exit_code(&bytes) {
                    Some(exit_code) => Err(Failure::Build { exit_code }),
                    None => system(unknown(SYSTEM_FAILURE, "exit status 1")),
                },
            },
            Some(SYSTEM_FAILURE) => system(format!("exit status {SYSTEM_FAILURE}")),
            Some(code) => system(unknown(code, &format!("exit status {code}"))),
            None => system(unknown(-1, &status.to_string())),
        }
    }
}

fn unknown(code: i32, status: &str) -> String {
    format!(
        "unknown Custom executor executable exit code {code}; executable execution terminated with: {status}"
    )
}

/// The first line, a decimal number with nothing around it.
fn build_exit_code(bytes: &[u8]) -> Option<i32> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?.parse().ok()
}

fn forward(mut pipe: impl Read, event: fn(Vec<u8>) -> Event, sender: &SyncSender<Event>) {
    let mut buffer = [0; 16 << 10];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if sender.send(event(buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = sender.send(Event::Closed);
}

fn wait(mut child: Child, sender: &SyncSender<Event>) {
    let _ = sender.send(Event::Exited(child.wait()));
}

/// What `config` answers; what is absent stays as the runner's own configuration has it.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ConfigReply {
    pub(super) driver: Option<DriverInfo>,
    pub(super) hostname: Option<String>,
    pub(super) builds_dir: Option<String>,
    pub(super) cache_dir: Option<String>,
    pub(super) builds_dir_is_shared: Option<bool>,
    pub(super) job_env: Option<BTreeMap<String, Option<String>>>,
    pub(super) shell: Option<String>,
}

/// Printed at the start of the job log.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct DriverInfo {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
}

impl ConfigReply {
    /// As Go's encoding/json reads it: no bytes at all are no overrides, `null` is absent, the last of two
    /// equal keys wins.
    pub(super) fn parse(stdout: &[u8]) -> Result<Self, String> {
        if stdout.is_empty() {
            return Ok(Self::default());
        }
        let wrong = |error: serde_json::Error| format!("error while parsing JSON output: {error}");
        // By way of a value, since serde takes two equal keys of a struct for an error.
        let value: serde_json::Value = serde_json::from_slice(stdout).map_err(wrong)?;
        match value {
            serde_json::Value::Null => Ok(Self::default()),
            // A list would pass for a struct in serde.
            serde_json::Value::Object(_) => serde_json::from_value(value).map_err(wrong),
            _ => Err("error while parsing JSON output: it is no object".to_owned()),
        }
    }

    /// `Using Custom executor with driver NAME VERSION...`
    pub(super) fn startup_line(&self) -> String {
        let info = self.driver.as_ref();
        let part = |text: Option<&String>| {
            text.filter(|text| !text.is_empty()).map(|text| format!(" {text}"))
        };
        match part(info.and_then(|info| info.name.as_ref())) {
            None => "Using Custom executor...".to_owned(),
            Some(name) => {
                let version = part(info.and_then(|info| info.version.as_ref())).unwrap_or_default();
                format!("Using Custom executor with driver{name}{version}...")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_files_are_read_as_the_runner_reads_them() {
        let check = |text: &str, expected: Option<i32>| {
            assert_eq!(build_exit_code(text.as_bytes()), expected, "{text:?}");
        };
        check("42", Some(42));
        check("42\n", Some(42));
        check("42\r\n", Some(42));
        check("42\nanything", Some(42));
        check("+42", Some(42));
        check("-1", Some(-1));
        check("256", Some(256));
        check("", None);
        check("42 ", None);
        check("\n42", None);
        check("many", None);
        check("99999999999", None);
    }

    #[test]
    fn config_replies_are_read_as_go_reads_them() {
        let fine = |text: &str| ConfigReply::parse(text.as_bytes()).unwrap();
        assert_eq!(fine(""), ConfigReply::default());
        assert_eq!(fine(" null "), ConfigReply::default());
        assert_eq!(fine("{}"), ConfigReply::default());
        let reply = fine(
            r#"{"builds_dir":"/a","builds_dir":"/b","x":1,"job_env":{"A":null},"shell":null}"#,
        );
        assert_eq!(reply.builds_dir.as_deref(), Some("/b"));
        assert_eq!(reply.startup_line(), "Using Custom executor...");
        for wrong in ["\n", "[]", "{},", "{\"job_env\":{\"A\":1}}", "1"] {
            let error = ConfigReply::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.starts_with("error while parsing JSON output: "), "{wrong}: {error}");
        }
        let line = |json: &str| fine(json).startup_line();
        assert_eq!(
            line(r#"{"driver":{"name":"d","version":"1"}}"#),
            "Using Custom executor with driver d 1..."
        );
        assert_eq!(line(r#"{"driver":{"name":"d"}}"#), "Using Custom executor with driver d...");
        assert_eq!(line(r#"{"driver":{"version":"1"}}"#), "Using Custom executor...");
    }
}
