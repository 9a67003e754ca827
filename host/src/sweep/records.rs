//! What became of tasks after `cleanup` had told them to stop, for their records.
//!
//! ECS takes up to a minute to end a task, and `cleanup` does not wait for that: it would hold up the job's end
//! and the runner's slot. The next sweep asks instead, a hundred tasks a call, and completes the records: when
//! the task ended, with which exit codes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::backend::{self, TaskId, TaskStatus};
use crate::settings::Settings;
use crate::stages::launch::facts_of;
use crate::state::{Record, State};

/// ECS describes a task for an hour after its end at least (ECS API reference, DescribeTasks), and is not asked
/// for longer.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(65);

/// Completes what can be completed. A record is a report: what fails here is left for the next sweep.
pub(super) async fn complete(settings: &Settings, state: &State) {
    let records = state.unfinished_records(Timestamp::now() - REMEMBERED);
    let mut known = BTreeMap::new();
    for (first, tasks) in together(settings, &records) {
        // All of a group are seen by the session of any.
        let Some((name, record)) = first else { continue };
        let Some(cluster) = settings.clusters.get(&name) else { continue };
        let facts = facts_of(settings, &record.attempt);
        let backend = backend::open_for(cluster, state.directory(), &facts).await;
        let tasks: Vec<TaskId> = tasks.into_iter().collect();
        match backend.describe_many(&tasks).await {
            Ok(seen) => known.extend(seen),
            Err(error) => tracing::info!(%error, "records are not completed"),
        }
    }
    for mut record in records {
        if learn(&mut record, &known)
            && let Err(error) = state.complete(&record)
        {
            tracing::info!(%error, "a record is not completed");
        }
    }
}

/// A cluster's name and a record of it.
type First<'r> = Option<(String, &'r Record)>;

/// The tasks to ask for, by who may look at them.
fn together<'r>(
    settings: &Settings,
    records: &'r [Record],
) -> impl Iterator<Item = (First<'r>, BTreeSet<TaskId>)> {
    let mut groups: BTreeMap<String, (First<'r>, BTreeSet<TaskId>)> = BTreeMap::new();
    for record in records {
        for launch in record.unended() {
            let Some(placement) = record.attempt.placements.get(launch.placement) else { continue };
            let Some(cluster) = settings.clusters.get(&placement.cluster) else { continue };
            let sight = backend::sight(cluster, &facts_of(settings, &record.attempt));
            let (first, tasks) = groups.entry(sight).or_default();
            first.get_or_insert_with(|| (placement.cluster.clone(), record));
            tasks.extend(launch.task.clone());
        }
    }
    groups.into_values()
}

/// Whether the record has become another.
fn learn(record: &mut Record, known: &BTreeMap<TaskId, TaskStatus>) -> bool {
    let mut has_learnt = false;
    for launch in record.attempt.launches_mut() {
        let seen = launch.task.as_ref().and_then(|task| known.get(task));
        if let Some(seen) = seen
            && launch.last_seen.as_ref() != Some(seen)
        {
            launch.last_seen = Some(seen.clone());
            has_learnt = true;
        }
    }
    has_learnt
}
