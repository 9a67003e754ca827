//! The ledger: everything that was started, stopped or refused, one JSON object a line.
//!
//! The simulator writes it; tests and rehearsals read it, in a file or over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::diagnostics;
use crate::lifecycle::Status;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// RFC 3339, UTC.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. `task` is always an ARN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// RunTask answered a task.
    RunTask(Box<RunTask>),
    /// A task reached a state.
    State {
        /// The task.
        task: String,
        /// Its new `lastStatus`.
        status: Status,
    },
    /// A container's process was started.
    ProcessStarted {
        /// The task.
        task: String,
        /// The container's name.
        container: String,
        /// The task's loopback address, with the container's port where it has one.
        address: String,
    },
    /// A container's process ended, and all that it had started with it.
    ProcessEnded {
        /// The task.
        task: String,
        /// The container's name.
        container: String,
        /// As a shell would say it: 128 and the signal's number for a killed process.
        exit_code: i32,
        /// How many other processes of the container were killed then.
        left_over: u32,
    },
    /// StopTask was called.
    StopTask {
        /// The task.
        task: String,
        /// The caller's reason.
        reason: String,
    },
    /// A task was told to stop, by whomever, and has.
    Stopped {
        /// The task.
        task: String,
        /// `stopCode`
        code: String,
        /// `stoppedReason`
        reason: String,
    },
    /// The simulator ended before the task did, and killed it: somebody leaked it.
    LeftRunning {
        /// The task.
        task: String,
    },
    /// A call was answered with an error.
    Refused {
        /// Such as `RunTask`.
        operation: String,
        /// Such as `ClientException`.
        code: String,
        /// The error's message.
        message: String,
    },
    /// AssumeRole gave a session.
    AssumeRole {
        /// The role.
        role: String,
        /// `RoleSessionName`
        session_name: String,
        /// `ExternalId`
        external_id: Option<String>,
        /// The session's tags.
        tags: BTreeMap<String, String>,
        /// Which calls are this session's.
        access_key: String,
    },
    /// DescribeNetworkInterfaces or DescribeInstances was answered.
    DescribeAddresses {
        /// Which of them.
        operation: String,
        /// The ids that were asked about.
        ids: Vec<String>,
    },
    /// RunTask was answered with HTTP 200 and a failure in place of a task.
    NoCapacity {
        /// The cluster's name.
        cluster: String,
        /// The request's.
        client_token: Option<String>,
        /// `failures[].reason`
        reason: String,
    },
}

/// What RunTask was asked for, and the task that it answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunTask {
    /// The task.
    pub task: String,
    /// The cluster's name.
    pub cluster: String,
    /// The task definition's ARN.
    pub task_definition: String,
    /// Such as `FARGATE`.
    pub launch_type: String,
    /// Such as `FARGATE_SPOT`; none when the request named a launch type.
    pub capacity_provider: Option<String>,
    /// CPU units after overrides.
    pub cpu: String,
    /// MiB after overrides.
    pub memory: String,
    /// The task role after overrides.
    pub task_role: Option<String>,
    /// `startedBy`
    pub started_by: Option<String>,
    /// `clientToken`
    pub client_token: Option<String>,
    /// All of the request.
    pub subnets: Vec<String>,
    /// Of the request and, where propagated, of the task definition.
    pub tags: BTreeMap<String, String>,
    /// Whether this was the answer to a repeated client token, so that nothing was started.
    pub repeated: bool,
}

/// Where the simulator writes its ledger.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    file: Mutex<File>,
}

impl LedgerFile {
    /// Appends to the file at `path`.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Writes one line in one piece, so that readers never see half of one. A full disk must not stop the
    /// simulation: then there is a line on stderr.
    pub(crate) fn write(&self, event: Event) {
        let entry = Entry { at: jiff::Timestamp::now().to_string(), event };
        let written =
            serde_json::to_string(&entry).map_err(std::io::Error::other).and_then(|mut line| {
                line.push('\n');
                self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
            });
        if let Err(error) = written {
            diagnostics::report(&format!("cannot write to the ledger: {error}"));
        }
    }
}

/// A ledger that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be read.
    #[error("cannot read the ledger")]
    Read(#[from] std::io::Error),
    /// A line is no ledger entry.
    #[error("line {number} of the ledger is not an entry")]
    Line {
        /// Counted from 1.
        number: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// A ledger that was read, in the order of its lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// All entries.
    pub entries: Vec<Entry>,
}

impl Ledger {
    /// Reads a ledger file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line is no entry.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Reads a ledger's text.
    ///
    /// # Errors
    ///
    /// When a line is no entry.
    pub fn parse(text: &str) -> Result<Self, LedgerError> {
        let entry = |(index, line)| {
            serde_json::from_str(line)
                .map_err(|source| LedgerError::Line { number: index + 1, source })
        };
        Ok(Self { entries: text.lines().enumerate().map(entry).collect::<Result<_, _>>()? })
    }

    /// The tasks that were started, each once.
    pub fn started(&self) -> impl Iterator<Item = &RunTask> {
        self.entries.iter().filter_map(|entry| match &entry.event {
            Event::RunTask(run_task) if !run_task.repeated => Some(&**run_task),
            _ => None,
        })
    }

    /// ARNs of the tasks that were started and have not stopped. The ones that the simulator had to kill at its own
    /// end are among them.
    pub fn running(&self) -> BTreeSet<&str> {
        let mut running: BTreeSet<&str> =
            self.started().map(|run_task| run_task.task.as_str()).collect();
        for entry in &self.entries {
            if let Event::Stopped { task, .. } = &entry.event {
                running.remove(task.as_str());
            }
        }
        running
    }

    /// How many tasks each client token started; 1 at most, unless something is wrong.
    pub fn per_client_token(&self) -> BTreeMap<&str, usize> {
        count(self.started().filter_map(|run_task| run_task.client_token.as_deref()))
    }

    /// How many tasks were started by each `startedBy`.
    pub fn per_started_by(&self) -> BTreeMap<&str, usize> {
        count(self.started().filter_map(|run_task| run_task.started_by.as_deref()))
    }

    /// Code and reason of a task that has stopped.
    pub fn stopped(&self, arn: &str) -> Option<(&str, &str)> {
        self.entries.iter().find_map(|entry| match &entry.event {
            Event::Stopped { task, code, reason } if task == arn => {
                Some((code.as_str(), reason.as_str()))
            }
            _ => None,
        })
    }

    /// Operation, code and message of every call that was answered with an error.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.entries.iter().filter_map(|entry| match &entry.event {
            Event::Refused { operation, code, message } => {
                Some((operation.as_str(), code.as_str(), message.as_str()))
            }
            _ => None,
        })
    }
}

fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::{Ledger, LedgerError};

    const TEXT: &str = r#"{"at":"2026-01-01T00:00:00Z","event":"run-task","task":"a","cluster":"dev","task_definition":"ci:1","launch_type":"FARGATE","capacity_provider":null,"cpu":"256","memory":"512","task_role":null,"started_by":"m","client_token":"t1","subnets":["s"],"tags":{"k":"v"},"repeated":false}
{"at":"2026-01-01T00:00:00Z","event":"run-task","task":"a","cluster":"dev","task_definition":"ci:1","launch_type":"FARGATE","capacity_provider":null,"cpu":"256","memory":"512","task_role":null,"started_by":"m","client_token":"t1","subnets":["s"],"tags":{},"repeated":true}
{"at":"2026-01-01T00:00:00Z","event":"run-task","task":"b","cluster":"dev","task_definition":"ci:1","launch_type":"FARGATE","capacity_provider":"FARGATE","cpu":"256","memory":"512","task_role":null,"started_by":"m","client_token":"t2","subnets":["s"],"tags":{},"repeated":false}
{"at":"2026-01-01T00:00:01Z","event":"state","task":"a","status":"PENDING"}
{"at":"2026-01-01T00:00:02Z","event":"stopped","task":"a","code":"UserInitiated","reason":"done"}
{"at":"2026-01-01T00:00:02Z","event":"refused","operation":"StopTask","code":"ClientException","message":"no"}
{"at":"2026-01-01T00:00:03Z","event":"left-running","task":"b"}
"#;

    #[test]
    fn a_ledger_answers_questions() {
        let ledger = Ledger::parse(TEXT).unwrap();
        assert_eq!(
            ledger.started().map(|run_task| run_task.task.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(ledger.running().into_iter().collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            ledger.per_client_token().into_iter().collect::<Vec<_>>(),
            [("t1", 1), ("t2", 1)]
        );
        assert_eq!(ledger.per_started_by().into_iter().collect::<Vec<_>>(), [("m", 2)]);
        assert_eq!(ledger.stopped("a"), Some(("UserInitiated", "done")));
        assert_eq!(ledger.stopped("b"), None);
        assert_eq!(ledger.refused().collect::<Vec<_>>(), [("StopTask", "ClientException", "no")]);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let ledger = Ledger::parse(TEXT).unwrap();
        let lines: Vec<String> =
            ledger.entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert_eq!(Ledger::parse(&lines.join("\n")).unwrap(), ledger);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error =
            Ledger::parse("{\"at\":\"x\",\"event\":\"left-running\",\"task\":\"b\"}\nnonsense")
                .unwrap_err();
        assert!(matches!(error, LedgerError::Line { number: 2, .. }), "{error}");
    }
}
