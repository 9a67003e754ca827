//! One attempt as history and reports need it, and what follows from its fields. Pure.
//!
//! Of a record's text only this is kept: not the question, which is most of it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::placement::Placement;
use crate::state::{AttemptId, JobIdentity, Launch, Outcome, OutcomeKind, ScriptRun, VERSION};

/// Sub-stages whose failure does not fail the job (GitLab Runner, common/build.go).
const HARMLESS: [&str; 5] = [
    "after_script",
    "archive_cache",
    "archive_cache_on_failure",
    "upload_artifacts_on_failure",
    "cleanup_file_variables",
];

/// An attempt that lives or has ended.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
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
    /// Ranked.
    pub placements: Vec<Placement>,
    /// What the policies did.
    #[serde(default)]
    steps: Vec<Step>,
    /// The task that serves, or the last that was asked for.
    #[serde(default)]
    pub launch: Option<Launch>,
    /// The tasks before, oldest first.
    #[serde(default)]
    pub earlier: Vec<Launch>,
    /// When `cleanup` began.
    #[serde(default)]
    pub releasing_at: Option<Timestamp>,
    /// How it ended.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// In their order.
    #[serde(default)]
    pub scripts: Vec<ScriptRun>,
    /// The placement that got a task.
    #[serde(default)]
    placement: Option<Placement>,
    /// When its record was written.
    #[serde(default)]
    pub released_at: Option<Timestamp>,
    /// Whether it has no record yet.
    #[serde(skip)]
    pub living: bool,
}

/// Of a policy's step, what tells who decided.
#[derive(Debug, Clone, Deserialize)]
struct Step {
    policy: String,
    #[serde(default)]
    monitored: bool,
    outcome: String,
}

/// How an attempt ended, the job's own scripts included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It has not.
    Living,
    /// The task served to the end, and no script failed that matters.
    Done,
    /// The task served to the end, and the job failed by its own script.
    ScriptFailed,
    /// Spot took the task back.
    SpotInterruption,
    /// No capacity for the placements.
    Capacity,
    /// A container was killed for its memory use.
    OutOfMemory,
    /// Anything else that lost the task or gave none.
    Other,
    /// GitLab Runner stopped `prepare`.
    Cancelled,
    /// Nothing was started, since nothing was allowed.
    Rejected,
}

impl Ending {
    /// Whether the attempt was lost, by no doing of the job's scripts or of whoever cancelled it.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::SpotInterruption | Self::Capacity | Self::OutOfMemory | Self::Other)
    }

    /// In a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Living => "living",
            Self::Done => "done",
            Self::ScriptFailed => "script failed",
            Self::SpotInterruption => "spot interruption",
            Self::Capacity => "no capacity",
            Self::OutOfMemory => "out of memory",
            Self::Other => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

/// How far an attempt is that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// `config` has decided, and no task has been asked for.
    Decided,
    /// A task was asked for.
    Starting,
    /// Its task is there for the job's scripts.
    Running,
    /// Its task is lost, and `cleanup` is to come.
    Lost,
    /// `cleanup` has begun.
    Releasing,
}

impl Stage {
    /// In a table.
    pub fn words(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Lost => "lost its task",
            Self::Releasing => "releasing",
        }
    }
}

/// What programs read of an attempt.
#[derive(Debug, Serialize)]
pub struct Known<'a> {
    /// The attempt's id.
    pub id: &'a AttemptId,
    /// 1 for the job's first.
    pub number: u32,
    /// Whose it is.
    pub job: &'a JobIdentity,
    /// Whether `doctor --launch` made it, and no job.
    pub doctor: bool,
    /// The profile that decided.
    pub profile: &'a str,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// The policy whose answer counted.
    pub decided_by: Option<&'a str>,
    /// Where it ran, or should have.
    pub placement: Option<&'a Placement>,
    /// Whether a task was got there.
    pub had_task: bool,
    /// How it ended.
    pub ending: Ending,
    /// One line about that.
    pub detail: Option<String>,
    /// How far it is, while it lives.
    pub stage: Option<Stage>,
    /// From the decision to a reached task.
    pub waited_seconds: Option<f64>,
    /// From there to the record, or until now.
    pub ran_seconds: Option<f64>,
    /// Of all scripts together, where the agent told.
    pub cpu_seconds: Option<f64>,
    /// Of the hungriest script, where the agent told.
    pub peak_memory_mib: Option<u64>,
    /// Tasks that were asked for and came to nothing.
    pub failed_launches: usize,
    /// In their order.
    pub scripts: &'a [ScriptRun],
    /// When its record was written.
    pub released_at: Option<Timestamp>,
}

impl Entry {
    /// Reads the text of a record, or of an attempt that is `living`.
    ///
    /// # Errors
    ///
    /// Says why it is none, in words without anything of the text.
    pub fn read(text: &[u8], living: bool) -> Result<Self, String> {
        let entry: Self = serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            match error.classify() {
                serde_json::error::Category::Data => {
                    format!(
                        "a field at line {line}, column {column} is not as this version writes it"
                    )
                }
                _ => format!("it is no whole JSON (line {line}, column {column})"),
            }
        })?;
        if entry.version != VERSION {
            return Err(format!(
                "it is of version {}, and this driver's is {VERSION}",
                entry.version
            ));
        }
        if AttemptId::parse(entry.id.as_str()).is_err() {
            return Err("its attempt id is none that the driver gives".to_owned());
        }
        if !living && entry.released_at.is_none() {
            return Err("it is an attempt that has not ended, and no record".to_owned());
        }
        Ok(Self { living, ..entry })
    }

    /// Whether `doctor --launch` made it: no job has this id.
    pub fn is_doctor(&self) -> bool {
        self.job.id == 0
    }

    /// Where it ran; where it was to run last or first, when it never did.
    pub fn place(&self) -> Option<&Placement> {
        let launched = || self.placements.get(self.launch.as_ref()?.placement);
        self.placement.as_ref().or_else(launched).or_else(|| self.placements.first())
    }

    /// All tasks that were asked for, oldest first, each with its placement.
    pub fn launches(&self) -> impl Iterator<Item = (&Launch, Option<&Placement>)> {
        self.earlier
            .iter()
            .chain(&self.launch)
            .map(|launch| (launch, self.placements.get(launch.placement)))
    }

    /// See [`Ending`].
    pub fn ending(&self) -> Ending {
        if self.living {
            return Ending::Living;
        }
        match self.outcome.as_ref().map(|outcome| outcome.kind) {
            Some(OutcomeKind::Released) if self.failed_script().is_some() => Ending::ScriptFailed,
            Some(OutcomeKind::Released) => Ending::Done,
            Some(OutcomeKind::Capacity) => Ending::Capacity,
            Some(OutcomeKind::SpotInterruption) => Ending::SpotInterruption,
            Some(OutcomeKind::OutOfMemory) => Ending::OutOfMemory,
            Some(OutcomeKind::Cancelled) => Ending::Cancelled,
            Some(OutcomeKind::Rejected) => Ending::Rejected,
            Some(OutcomeKind::Other) | None => Ending::Other,
        }
    }

    /// One line about the end.
    pub fn detail(&self) -> Option<String> {
        if let Some(outcome) = &self.outcome
            && !outcome.detail.is_empty()
        {
            return Some(outcome.detail.clone());
        }
        let (script, exit) = self.failed_script()?;
        Some(format!("{script} ended with exit status {exit}"))
    }

    /// The first script that failed the job, as it ended last: GitLab Runner repeats some.
    fn failed_script(&self) -> Option<(&str, i32)> {
        let mut last: BTreeMap<&str, Option<i32>> = BTreeMap::new();
        for script in &self.scripts {
            last.insert(&script.sub_stage, script.exit);
        }
        self.scripts.iter().find_map(|script| {
            let name = script.sub_stage.as_str();
            let exit = last.get(name).copied().flatten().filter(|exit| *exit != 0)?;
            (!HARMLESS.contains(&name)).then_some((name, exit))
        })
    }

    /// How far it is; `None` when it has ended.
    pub fn stage(&self) -> Option<Stage> {
        if !self.living {
            return None;
        }
        let launch = self.launch.as_ref();
        Some(if self.releasing_at.is_some() {
            Stage::Releasing
        } else if self.outcome.is_some() {
            Stage::Lost
        } else if launch.is_some_and(|launch| launch.ready_at.is_some()) {
            Stage::Running
        } else if launch.is_some() {
            Stage::Starting
        } else {
            Stage::Decided
        })
    }

    /// The policy whose answer counted: the first that placed or rejected and was not only monitored.
    pub fn decided_by(&self) -> Option<&str> {
        let decided = |step: &&Step| {
            let outcome = step.outcome.strip_prefix("after the lost attempt: ");
            let outcome = outcome.unwrap_or(&step.outcome);
            !step.monitored
                && ["placement: ", "rejected"].iter().any(|word| outcome.starts_with(word))
        };
        let step = self.steps.iter().find(decided);
        // Nothing in bounds and guards end a chain as well, as its last step.
        let last = || self.steps.iter().rev().find(|step| !step.monitored);
        step.or_else(last).map(|step| step.policy.as_str())
    }

    /// Seconds from the decision to a reached task; `None` when there was none.
    pub fn waited(&self) -> Option<f64> {
        let ready = self.launch.as_ref()?.ready_at?;
        Some(seconds(self.decided_at, ready).as_secs_f64())
    }

    /// Seconds from a reached task to the record, or until `now`.
    pub fn ran(&self, now: Timestamp) -> Option<f64> {
        let ready = self.launch.as_ref()?.ready_at?;
        Some(seconds(ready, self.released_at.unwrap_or(now)).as_secs_f64())
    }

    /// Seconds from the decision to the record.
    pub fn whole(&self, now: Timestamp) -> f64 {
        seconds(self.decided_at, self.released_at.unwrap_or(now)).as_secs_f64()
    }

    /// The tasks that Fargate takes money for, each with how long: from the start of its image pull to its end.
    pub fn paid(&self, now: Timestamp) -> impl Iterator<Item = (&Placement, Duration)> {
        let end = self.released_at.unwrap_or(now);
        self.launches().filter_map(move |(launch, placement)| {
            launch.task.as_ref()?;
            let times = launch.last_seen.as_ref().map(|seen| seen.times).unwrap_or_default();
            let began = times.pull_started_at.or(times.started_at).or(launch.ready_at)?;
            let ended = times.stopped_at.or(launch.told_to_stop_at).unwrap_or(end);
            Some((placement?, seconds(began, ended)))
        })
    }

    /// Of all scripts together.
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.scripts.iter().filter_map(|script| script.cpu_seconds).reduce(|sum, one| sum + one)
    }

    /// Of the hungriest script.
    pub fn peak_memory_mib(&self) -> Option<u64> {
        self.scripts.iter().filter_map(|script| script.peak_memory_mib).max()
    }

    /// See [`Known`].
    pub fn known(&self, now: Timestamp) -> Known<'_> {
        Known {
            id: &self.id,
            number: self.number,
            job: &self.job,
            doctor: self.is_doctor(),
            profile: &self.profile,
            decided_at: self.decided_at,
            decided_by: self.decided_by(),
            placement: self.place(),
            had_task: self.launches().any(|(launch, _)| launch.task.is_some()),
            ending: self.ending(),
            detail: self.detail(),
            stage: self.stage(),
            waited_seconds: self.waited(),
            ran_seconds: self.ran(now),
            cpu_seconds: self.cpu_seconds(),
            peak_memory_mib: self.peak_memory_mib(),
            failed_launches: self.launches().filter(|(launch, _)| launch.failed.is_some()).count(),
            scripts: &self.scripts,
            released_at: self.released_at,
        }
    }
}

/// Nothing where clocks went backwards.
fn seconds(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The record of a job that waited 30 s for a Spot task and ran 270 s in it.
    pub(in crate::history) fn record(job_id: u64) -> Value {
        let placement = json!({
            "cluster": "dev", "task_definition": "node", "arch": "arm64", "capacity": "spot",
            "size": { "cpu_units": 1024, "memory_mib": 2048 }, "ephemeral_storage_gib": null,
            "role": null, "labels": {}, "reason": "rules [dev]",
        });
        json!({
            "version": VERSION, "id": format!("{job_id}-00000000000000aa"), "number": 1,
            "profile": "dev",
            "job": { "id": job_id, "name": "build", "project_id": 7, "project": "acme/app", "pipeline_id": 55 },
            "decided_at": "2026-11-01T00:00:00Z", "deadline": "2026-11-01T02:00:00Z",
            "placements": [placement],
            "steps": [
                { "policy": "watched", "monitored": true, "outcome": "placement: elsewhere" },
                { "policy": "by-tag", "outcome": "placement: cluster dev" },
            ],
            "keys": null,
            "launch": {
                "placement": 0, "asked_at": "2026-11-01T00:00:01Z", "task": "arn:task/1",
                "address": null, "host_key": null, "ready_at": "2026-11-01T00:00:30Z",
                "told_to_stop_at": "2026-11-01T00:04:59Z",
            },
            "outcome": { "kind": "released", "detail": "" },
            "scripts": [
                { "sub_stage": "get_sources", "exit": 0, "seconds": 2.0, "peak_memory_mib": 40, "cpu_seconds": 1.0 },
                { "sub_stage": "build_script", "exit": 0, "seconds": 200.0, "peak_memory_mib": 300, "cpu_seconds": 90.5 },
            ],
            "placement": placement, "released_at": "2026-11-01T00:05:00Z",
        })
    }

    /// The same, changed.
    pub(in crate::history) fn entry(job_id: u64, change: impl FnOnce(&mut Value)) -> Entry {
        let mut record = record(job_id);
        change(&mut record);
        Entry::read(record.to_string().as_bytes(), false).unwrap()
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn a_record_tells_times_use_and_who_decided() {
        let one = entry(1, |_| {});
        assert_eq!((one.waited(), one.ran(NOW), one.whole(NOW)), (Some(30.0), Some(270.0), 300.0));
        assert_eq!((one.cpu_seconds(), one.peak_memory_mib()), (Some(91.5), Some(300)));
        assert_eq!(one.decided_by(), Some("by-tag"));
        assert_eq!(one.ending(), Ending::Done);
        assert_eq!(one.stage(), None);
    }

    #[test]
    fn endings_are_told_apart() {
        type Change = fn(&mut Value);
        let cases: [(Change, Ending, Option<&str>); 8] = [
            (
                |record| record["scripts"][1]["exit"] = 3.into(),
                Ending::ScriptFailed,
                Some("build_script ended with exit status 3"),
            ),
            // What GitLab Runner repeats counts as it ended last.
            (
                |record| {
                    record["scripts"][1] = record["scripts"][0].clone();
                    record["scripts"][0]["exit"] = 1.into();
                },
                Ending::Done,
                None,
            ),
            (
                |record| {
                    record["scripts"][1]["exit"] = 1.into();
                    record["scripts"][1]["sub_stage"] = "after_script".into();
                },
                Ending::Done,
                None,
            ),
            (
                |record| record["outcome"] = json!({ "kind": "out-of-memory", "detail": "d" }),
                Ending::OutOfMemory,
                Some("d"),
            ),
            (|record| record["outcome"]["kind"] = "capacity".into(), Ending::Capacity, None),
            (|record| record["outcome"]["kind"] = "cancelled".into(), Ending::Cancelled, None),
            (|record| record["outcome"]["kind"] = "rejected".into(), Ending::Rejected, None),
            (|record| record["outcome"] = Value::Null, Ending::Other, None),
        ];
        for (change, ending, detail) in cases {
            let one = entry(1, change);
            assert_eq!((one.ending(), one.detail().as_deref()), (ending, detail));
        }
    }

    #[test]
    fn stages_of_the_living_are_told_apart() {
        let now = "2026-11-01T00:01:00Z".parse().unwrap();
        let mut record = record(1);
        let mut steps = Vec::new();
        for change in [
            |_: &mut Value| {},
            |record: &mut Value| record["releasing_at"] = Value::Null,
            |record: &mut Value| record["outcome"] = Value::Null,
            |record: &mut Value| record["launch"]["ready_at"] = Value::Null,
            |record: &mut Value| record["launch"] = Value::Null,
        ] {
            if steps.is_empty() {
                record["releasing_at"] = "2026-11-01T00:04:00Z".into();
                record["released_at"] = Value::Null;
            }
            change(&mut record);
            let one = Entry::read(record.to_string().as_bytes(), true).unwrap();
            assert_eq!(one.ending(), Ending::Living);
            steps.push((one.stage().unwrap(), one.ran(now)));
        }
        assert_eq!(
            steps,
            [
                (Stage::Releasing, Some(30.0)),
                (Stage::Lost, Some(30.0)),
                (Stage::Running, Some(30.0)),
                (Stage::Starting, None),
                (Stage::Decided, None),
            ]
        );
    }

    #[test]
    fn every_task_is_paid_from_its_pull_to_its_end() {
        let seen = |phase: &str, times: Value| json!({ "phase": phase, "address": null, "bindings": [], "stopped": null, "subnet": null, "times": times });
        let paid = |change: &dyn Fn(&mut Value)| -> Vec<f64> {
            let one = entry(1, |record| change(record));
            one.paid(NOW).map(|(_, time)| time.as_secs_f64()).collect()
        };
        // From the reached task where ECS told no times, to the order to stop.
        assert_eq!(paid(&|_| {}), [269.0]);
        let pull = json!({ "pull_started_at": "2026-11-01T00:00:10Z" });
        assert_eq!(
            paid(&|record| record["launch"]["last_seen"] = seen("running", pull.clone())),
            [289.0]
        );
        let whole = json!({ "pull_started_at": "2026-11-01T00:00:10Z", "stopped_at": "2026-11-01T00:02:10Z" });
        assert_eq!(
            paid(&|record| record["launch"]["last_seen"] = seen("stopped", whole.clone())),
            [120.0]
        );
        // A task before it that was pulled and left costs as well; one that never got so far does not.
        assert_eq!(
            paid(&|record| {
                let mut left = record["launch"].clone();
                left["ready_at"] = Value::Null;
                let mut never = left.clone();
                never["task"] = Value::Null;
                left["last_seen"] = seen("stopped", whole.clone());
                record["earlier"] = json!([left, never]);
            }),
            [120.0, 269.0]
        );
        // Nobody told it to stop, and nothing is known of its end but the record.
        assert_eq!(paid(&|record| record["launch"]["told_to_stop_at"] = Value::Null), [270.0]);
    }

    #[test]
    fn what_is_no_record_says_why_without_quoting() {
        let text = |change: fn(&mut Value)| {
            let mut record = record(1);
            change(&mut record);
            record.to_string()
        };
        for (text, expected) in [
            ("{\"version\": 1, \"id\": \"sec".to_owned(), "no whole JSON"),
            ("[]".to_owned(), "a field at line 1"),
            (text(|record| record["number"] = "secret".into()), "a field at line 1"),
            (
                text(|record| record["version"] = 2.into()),
                "it is of version 2, and this driver's is 1",
            ),
            (text(|record| record["id"] = "../x".into()), "its attempt id is none"),
            (text(|record| record["released_at"] = Value::Null), "has not ended"),
        ] {
            let why = Entry::read(text.as_bytes(), false).unwrap_err();
            assert!(why.contains(expected) && !why.contains("sec"), "{why}");
        }
    }
}
