//! What one stage leaves for the next: the attempt, and afterwards its record.
//!
//! ```text
//! <directory>/attempts/<attempt>.json                   while the attempt lives; has its keys; mode 0600
//! <directory>/scripts/<attempt>.jsonl                   while the attempt lives; a line a script
//! <directory>/records/<xx>/<pipeline>-<attempt>.json    afterwards; no secrets; xx = pipeline modulo 256
//! <directory>/unfinished/<attempt>                      names a record until its tasks are known to have ended
//! ```
//!
//! Files are replaced by rename, so a killed stage leaves the old or the new text and never half of one.
//! Names are made of the job's id and of random digits: never of text that a job controls, which once cost
//! GitLab's driver an outage when a token in a file name grew beyond 255 bytes.

mod past;

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backend::{Cause, Phase, TaskId, TaskStatus};
use crate::job::Job;
use crate::placement::Placement;
use crate::secret::Secret;
pub use past::{Seen, Wanted, scripts_of_living, visit};

/// Raised when a file's meaning changes; another version's files are refused, not guessed at.
pub const VERSION: u32 = 1;

/// State that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory failed.
    #[error("cannot {action} `{path}`", path = .path.display())]
    Io {
        /// Such as `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file is not what this version writes.
    #[error("`{path}` is no attempt of this version of the driver", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What the parser says; `None` for another version.
        source: Option<serde_json::Error>,
    },
    /// An attempt id that `config` cannot have given.
    #[error("`{0}` is no attempt id")]
    BadId(String),
    /// The attempt that `job_env` names is not there.
    #[error("the attempt `{0}` is not in the state directory")]
    Unknown(AttemptId),
}

/// Names one config+prepare round of a job: `<job id>-<16 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(String);

impl AttemptId {
    /// A new one for the job `job_id`.
    ///
    /// # Errors
    ///
    /// Fails when the system has no randomness to give.
    pub fn new(job_id: u64) -> Result<Self, io::Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        Ok(Self(format!("{job_id}-{:016x}", u64::from_be_bytes(random))))
    }

    /// Reads one out of `job_env`.
    ///
    /// # Errors
    ///
    /// Fails for any text that [`Self::new`] does not make: it becomes part of a path.
    pub fn parse(text: &str) -> Result<Self, StateError> {
        let legal = text.split_once('-').is_some_and(|(job, random)| {
            job.parse::<u64>().is_ok_and(|id| id.to_string() == job)
                && random.len() == 16
                && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        if legal {
            Ok(Self(text.to_owned()))
        } else {
            Err(StateError::BadId(text.escape_debug().to_string()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One config+prepare round of a job, from its decision to its release.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    version: u32,
    /// Names it.
    pub id: AttemptId,
    /// 1 for the job's first.
    pub number: u32,
    /// The profile that decided.
    pub profile: String,
    /// Whose it is.
    pub job: JobIdentity,
    /// When `config` decided.
    pub decided_at: Timestamp,
    /// When the task has to be gone: the job's timeout and slack after [`Self::decided_at`].
    pub deadline: Timestamp,
    /// Ranked; empty only where the outcome is a rejection.
    pub placements: Vec<Placement>,
    /// What each policy answered, read and used, for `history` and `replay`.
    pub steps: serde_json::Value,
    /// What the policies were asked, as far as they could read it, for `replay`.
    #[serde(default)]
    pub question: serde_json::Value,
    /// What the task's SSH server and the driver know each other by.
    pub keys: Option<Keys>,
    /// What `prepare` has begun: the task that serves, or the last one that was asked for.
    pub launch: Option<Launch>,
    /// The tasks that were asked for before [`Self::launch`] and left, oldest first.
    #[serde(default)]
    pub earlier: Vec<Launch>,
    /// When `cleanup` began: what still runs of the attempt from here on is a leak.
    #[serde(default)]
    pub releasing_at: Option<Timestamp>,
    /// How it ended, or is ending.
    pub outcome: Option<Outcome>,
    /// The scripts that ran, in their order; filled in when the attempt becomes a record.
    #[serde(default)]
    pub scripts: Vec<ScriptRun>,
}

/// One script that ran in the attempt's task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptRun {
    /// GitLab Runner's name of it.
    pub sub_stage: String,
    /// Its exit status; 128 and the signal's number for one that a signal ended; none where it is not known.
    pub exit: Option<i32>,
    /// Wall time, as the driver saw it.
    pub seconds: f64,
    /// The peak of its memory in MiB, where the agent told.
    pub peak_memory_mib: Option<u64>,
    /// User and system time, where the agent told.
    pub cpu_seconds: Option<f64>,
}

/// What the record says of the job; ids and names that the server states.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobIdentity {
    /// The server's id.
    pub id: u64,
    /// Author-chosen.
    pub name: String,
    /// The project's id.
    pub project_id: u64,
    /// The project's path.
    pub project: String,
    /// The pipeline's id.
    pub pipeline_id: u64,
}

impl From<&Job> for JobIdentity {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id,
            name: job.name.clone(),
            project_id: job.project.id,
            project: job.project.full_path.clone(),
            pipeline_id: job.pipeline_id,
        }
    }
}

/// The attempt's key seeds, base64 of 32 bytes each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keys {
    /// The driver's.
    pub client: Secret<String>,
    /// The task's, where the driver makes it.
    pub host: Secret<String>,
}

/// A task that was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// Index into [`Attempt::placements`].
    pub placement: usize,
    /// Counts the tasks that were asked for with this placement, from 0: each has a token of its own.
    #[serde(default)]
    pub number: u32,
    /// Subnets without free addresses, as the backend spells them.
    #[serde(default)]
    pub avoid_subnets: Vec<String>,
    /// Subnets that other jobs found so shortly before.
    #[serde(default)]
    pub full_elsewhere: Vec<String>,
    /// Saved before the task is asked for, so that `cleanup` knows there may be one.
    pub asked_at: Timestamp,
    /// The backend's answer.
    pub task: Option<TaskId>,
    /// Where its SSH server listens; saved when a session was authenticated.
    pub address: Option<SocketAddr>,
    /// The host key that it showed then, as an OpenSSH public key line.
    pub host_key: Option<String>,
    /// When that was.
    pub ready_at: Option<Timestamp>,
    /// Why there is no task, or none any more.
    #[serde(default)]
    pub failed: Option<LaunchFailure>,
    /// When it was told to stop.
    #[serde(default)]
    pub told_to_stop_at: Option<Timestamp>,
    /// What the backend last said of it: phase, times, and why it stopped.
    #[serde(default)]
    pub last_seen: Option<TaskStatus>,
}

/// Why a launch led to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFailure {
    /// Told apart.
    pub cause: Cause,
    /// In the backend's words.
    pub detail: String,
}

impl Launch {
    /// The first or a further task of a placement, not yet asked for.
    pub fn new(placement: usize, number: u32, avoid_subnets: Vec<String>) -> Self {
        Self {
            placement,
            number,
            avoid_subnets,
            full_elsewhere: Vec::new(),
            asked_at: Timestamp::now(),
            task: None,
            address: None,
            host_key: None,
            ready_at: None,
            failed: None,
            told_to_stop_at: None,
            last_seen: None,
        }
    }

    /// Whether there may be a task whose name is not known.
    pub fn may_have_unnamed_task(&self) -> bool {
        let refused = |failed: &LaunchFailure| !failed.cause.leaves_open_what_happened();
        self.task.is_none() && !self.failed.as_ref().is_some_and(refused)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// For the next attempt's policies.
    pub kind: OutcomeKind,
    /// One line.
    pub detail: String,
}

/// The kinds of ending that policies can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// The task served the job to its end.
    Released,
    /// No capacity for the placements.
    Capacity,
    /// Spot took the task back.
    SpotInterruption,
    /// A container was killed for its memory use.
    OutOfMemory,
    /// GitLab Runner stopped `prepare`.
    Cancelled,
    /// No policy or no bounds allowed the job: nothing was started.
    Rejected,
    /// Anything else.
    Other,
}

/// An attempt's file after its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The attempt without its keys.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// The placement that got a task, if any did.
    pub placement: Option<Placement>,
    /// When `cleanup` wrote this.
    pub released_at: Timestamp,
}

impl Record {
    /// The launches whose tasks had not ended when they were last heard of.
    pub fn unended(&self) -> impl Iterator<Item = &Launch> {
        let attempt = &self.attempt;
        attempt.earlier.iter().chain(&attempt.launch).filter(|launch| {
            let has_ended = |seen: &TaskStatus| seen.phase == Phase::Stopped;
            launch.task.is_some() && !launch.last_seen.as_ref().is_some_and(has_ended)
        })
    }
}

impl Attempt {
    /// A decided attempt that has started nothing.
    #[expect(clippy::too_many_arguments, reason = "each is a field, named at the only call")]
    pub fn new(
        id: AttemptId,
        number: u32,
        profile: String,
        job: JobIdentity,
        deadline: Timestamp,
        placements: Vec<Placement>,
        steps: serde_json::Value,
        keys: Keys,
    ) -> Self {
        Self {
            version: VERSION,
            id,
            number,
            profile,
            job,
            decided_at: Timestamp::now(),
            deadline,
            placements,
            steps,
            question: serde_json::Value::Null,
            keys: Some(keys),
            launch: None,
            earlier: Vec::new(),
            releasing_at: None,
            outcome: None,
            scripts: Vec::new(),
        }
    }

    /// The attempt with what its policies were asked.
    #[must_use]
    pub fn with_question(mut self, question: serde_json::Value) -> Self {
        self.question = question;
        self
    }

    /// All that were asked for, oldest first.
    pub fn launches_mut(&mut self) -> impl Iterator<Item = &mut Launch> {
        self.earlier.iter_mut().chain(self.launch.as_mut())
    }

    /// Whether `task` is one of them.
    pub fn has(&self, task: &TaskId) -> bool {
        self.earlier.iter().chain(&self.launch).any(|launch| launch.task.as_ref() == Some(task))
    }

    /// The placement that `launch` is about.
    pub fn launched_placement(&self) -> Option<&Placement> {
        self.placements.get(self.launch.as_ref()?.placement)
    }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct State {
    directory: PathBuf,
}

impl State {
    /// Opens `directory`, making it with mode 0700 where it is missing.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be made, or when it is open to other users: it holds private keys.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let state = Self { directory: directory.to_owned() };
        for path in [directory.to_owned(), state.attempts()] {
            make_directory(&path)?;
        }
        let metadata = fs::metadata(directory).map_err(failed("look at", directory))?;
        if metadata.permissions().mode() & 0o022 != 0 {
            let source = io::Error::other(
                "others can write to it; take that away with `chmod go-w`, since it decides what the driver trusts",
            );
            return Err(failed("trust", directory)(source));
        }
        Ok(state)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn attempts(&self) -> PathBuf {
        self.directory.join("attempts")
    }

    fn attempt_path(&self, id: &AttemptId) -> PathBuf {
        self.attempts().join(format!("{id}.json"))
    }

    fn records_of(&self, pipeline_id: u64) -> PathBuf {
        self.directory.join("records").join(format!("{:02x}", pipeline_id % 256))
    }

    /// Saves `attempt` for good: when this returns, it survives a crash of the machine.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn save(&self, attempt: &Attempt) -> Result<(), StateError> {
        write_json(&self.attempt_path(&attempt.id), attempt, true)
    }

    /// Saves `attempt` against the end of this process, though not of the machine: what is lost with that can
    /// be found again, as a task by its token and its tags. A `fsync` costs more than all the rest, and with
    /// hundreds of jobs the disk is busy with them.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn note(&self, attempt: &Attempt) -> Result<(), StateError> {
        write_json(&self.attempt_path(&attempt.id), attempt, false)
    }

    /// Notes a script of the attempt `id`. A line is appended and not waited for to reach the disk: this is done
    /// for every script, and is worth less than the time of a `fsync`.
    ///
    /// # Errors
    ///
    /// Fails when the line cannot be written.
    pub fn add_script(&self, id: &AttemptId, run: &ScriptRun) -> Result<(), StateError> {
        let path = self.scripts_of(id);
        make_directory(&self.directory.join("scripts"))?;
        let append = || -> io::Result<()> {
            let mut line = serde_json::to_vec(run)?;
            line.push(b'\n');
            let mut options = File::options();
            options.append(true).create(true).mode(0o600).open(&path)?.write_all(&line)
        };
        append().map_err(failed("write", &path))
    }

    fn scripts_of(&self, id: &AttemptId) -> PathBuf {
        self.directory.join("scripts").join(format!("{id}.jsonl"))
    }

    /// The living attempt `id`.
    ///
    /// # Errors
    ///
    /// Fails when there is none ([`StateError::Unknown`]), or when its file is not of this version.
    pub fn load(&self, id: &AttemptId) -> Result<Attempt, StateError> {
        let path = self.attempt_path(id);
        match fs::read(&path) {
            Ok(bytes) => parse_attempt(&bytes, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StateError::Unknown(id.clone()))
            }
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// All living attempts that can be read, in no order.
    pub fn living(&self) -> Vec<Attempt> {
        fs::read_dir(self.attempts())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| parse_attempt(&fs::read(entry.path()).ok()?, &entry.path()).ok())
            .collect()
    }

    /// Names this state directory, so that a task tells whose attempts it is listed among.
    ///
    /// # Errors
    ///
    /// Fails when the name can neither be read nor made.
    pub fn identity(&self) -> Result<String, StateError> {
        let path = self.directory.join("identity");
        match fs::read_to_string(&path) {
            Ok(identity) if !identity.is_empty() => return Ok(identity),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error)),
        }
        let make = || -> io::Result<String> {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            write!(file, "{:016x}", u64::from_be_bytes(random))?;
            file.as_file().sync_all()?;
            // Of two processes that make one at the same time the first one's stays.
            match file.persist_noclobber(&path) {
                Ok(_) => {}
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.error),
            }
            fs::read_to_string(&path)
        };
        make().map_err(failed("make", &path))
    }

    /// Turns the attempt into its record.
    ///
    /// # Errors
    ///
    /// Fails when the record cannot be written; the attempt then stays.
    pub fn release(&self, mut attempt: Attempt) -> Result<(), StateError> {
        let path = self.attempt_path(&attempt.id);
        let records = self.records_of(attempt.job.pipeline_id);
        make_directory(&self.directory.join("records"))?;
        make_directory(&records)?;
        attempt.keys = None;
        let scripts = self.scripts_of(&attempt.id);
        // A report, not worth failing a release for.
        let lines = fs::read_to_string(&scripts).unwrap_or_default();
        attempt.scripts =
            lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let record_path = records.join(format!("{}-{}.json", attempt.job.pipeline_id, attempt.id));
        let got_one = attempt.launch.as_ref().is_some_and(|launch| launch.task.is_some());
        let placement = attempt.launched_placement().filter(|_| got_one).cloned();
        let record = Record { attempt, placement, released_at: Timestamp::now() };
        if record.unended().next().is_some() {
            // Before the record, which is what matters: a name without one is dropped.
            let name = record_path.strip_prefix(&self.directory).unwrap_or(&record_path);
            let _ = self.mark_unfinished(&record.attempt.id, name);
        }
        write_json(&record_path, &record, true)?;
        let _ = fs::remove_file(&scripts);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", &path)(error)),
        }
    }

    fn unfinished(&self) -> PathBuf {
        self.directory.join("unfinished")
    }

    fn mark_unfinished(&self, id: &AttemptId, record: &Path) -> io::Result<()> {
        make_directory(&self.unfinished()).map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(self.unfinished())?;
        file.write_all(record.as_os_str().as_encoded_bytes())?;
        file.persist(self.unfinished().join(id.as_str()))?;
        Ok(())
    }

    /// The records with tasks that had not ended when they were last heard of. What can be read no more is dropped
    /// for good, and so are those that ended before `oldest`.
    pub fn unfinished_records(&self, oldest: Timestamp) -> Vec<Record> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.unfinished()).into_iter().flatten().flatten() {
            // Files in the making have other names.
            if AttemptId::parse(&entry.file_name().to_string_lossy()).is_err() {
                continue;
            }
            let record = fs::read_to_string(entry.path())
                .and_then(|name| fs::read(self.directory.join(name)))
                .map(|bytes| serde_json::from_slice::<Record>(&bytes));
            match record {
                Ok(Ok(record)) if record.released_at >= oldest => records.push(record),
                // It is written just after its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_young(&entry) => {}
                _ => drop(fs::remove_file(entry.path())),
            }
        }
        records
    }

    /// Writes what has been learnt of the record's tasks.
    ///
    /// # Errors
    ///
    /// Fails when the record cannot be written; the old one stays.
    pub fn complete(&self, record: &Record) -> Result<(), StateError> {
        let attempt = &record.attempt;
        let name = format!("{}-{}.json", attempt.job.pipeline_id, attempt.id);
        write_json(&self.records_of(attempt.job.pipeline_id).join(name), record, false)?;
        if record.unended().next().is_none() {
            let _ = fs::remove_file(self.unfinished().join(attempt.id.as_str()));
        }
        Ok(())
    }

    /// The ended attempts at `job`, oldest first. A retry by GitLab is a new job with a new id, so a job is
    /// known again by project, pipeline and name. Files that cannot be read are left out: they are advice to
    /// policies, no ground for failing a job.
    pub fn earlier_attempts(&self, job: &JobIdentity) -> Vec<Attempt> {
        let prefix = format!("{}-", job.pipeline_id);
        let mut attempts: Vec<Attempt> = fs::read_dir(self.records_of(job.pipeline_id))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .filter_map(|entry| parse_attempt(&fs::read(entry.path()).ok()?, &entry.path()).ok())
            .filter(|attempt| {
                attempt.job.project_id == job.project_id
                    && attempt.job.pipeline_id == job.pipeline_id
                    && attempt.job.name == job.name
            })
            .collect();
        attempts.sort_by_key(|attempt| attempt.decided_at);
        attempts
    }
}

fn is_young(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_secs(60)))
}

fn parse_attempt(bytes: &[u8], path: &Path) -> Result<Attempt, StateError> {
    let foreign = |source| StateError::Foreign { path: path.to_owned(), source };
    let attempt: Attempt = serde_json::from_slice(bytes).map_err(|error| foreign(Some(error)))?;
    if attempt.version == VERSION { Ok(attempt) } else { Err(foreign(None)) }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { action, path, source }
}

fn make_directory(path: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))
}

/// Writes atomically and, if that is wanted, durably, readable by this user only (`tempfile` opens with mode
/// 0600).
fn write_json(path: &Path, value: &impl Serialize, durably: bool) -> Result<(), StateError> {
    let directory = path.parent().unwrap_or(path);
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(io::BufWriter::new(&mut file), value)?;
        file.flush()?;
        if !durably {
            file.persist(path)?;
            return Ok(());
        }
        file.as_file().sync_all()?;
        file.persist(path)?;
        // Without this the rename itself may be lost with the machine's power.
        File::open(directory)?.sync_all()
    };
    write().map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_our_own_making_become_paths() {
        let id = AttemptId::new(u64::MAX).unwrap();
        assert_eq!(AttemptId::parse(id.as_str()).unwrap(), id);
        for wrong in [
            "",
            "7",
            "7-",
            "7-0123456789ABCDEF",
            "7-0123456789abcdef0",
            "07-0123456789abcdef",
            "../7-0123456789abcdef",
            "7-../../../etc/shad",
            "-0123456789abcdef",
            "7-0123456789abcde\n",
        ] {
            assert!(AttemptId::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
