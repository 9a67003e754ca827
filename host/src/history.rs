//! What was decided and what it cost, from the attempts that the state directory keeps.
//!
//! [`attempts`] reads them one after the other and keeps none; what is made of them is pure: a list ([`Newest`]),
//! or sums and comparisons ([`Report`]). Prices come from `rehearse`.

mod compare;
mod entry;
mod group;
mod numbers;
mod oversized;
mod report;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

pub use compare::{Comparison, Difference, Verdict};
pub use entry::{Ending, Entry, Known, Stage};
pub use group::By;
pub use numbers::Spread;
pub use oversized::Oversized;
pub use report::{Failures, Group, HasMemory, Price, Report, Summary, Unpriced};

use crate::placement::Placement;
use crate::rehearse;
use crate::settings::{ClusterBackend, LaunchKind, Settings};
use crate::state::{self, StateError, Wanted};

/// Files that are named; the others are counted.
const MAX_NAMED: usize = 10;

/// Files that are no attempts of this version, or that cannot be read.
#[derive(Debug, Default, Serialize)]
pub struct Unreadable {
    /// All of them.
    pub count: usize,
    /// The first ones, each with the reason.
    pub files: Vec<(PathBuf, String)>,
}

impl Unreadable {
    fn add(&mut self, path: &Path, why: String) {
        self.count += 1;
        if self.files.len() < MAX_NAMED {
            self.files.push((path.to_owned(), why));
        }
    }
}

/// Shows `see` the attempts below the state directory `directory` that can be `wanted`, in no order.
///
/// # Errors
///
/// Fails when the directory cannot be read. Files that are no attempts are in the answer.
pub fn attempts(
    directory: &Path,
    wanted: &Wanted,
    see: &mut dyn FnMut(Entry, &[u8]),
) -> Result<Unreadable, StateError> {
    let mut unreadable = Unreadable::default();
    state::visit(directory, wanted, &mut |seen| {
        let read = seen.text.and_then(|text| Ok((Entry::read(text, seen.living)?, text)));
        match read {
            Ok((mut entry, text)) => {
                if seen.living {
                    entry.scripts = state::scripts_of_living(directory, &entry.id);
                }
                see(entry, text);
            }
            Err(why) => unreadable.add(seen.path, why),
        }
    })?;
    Ok(unreadable)
}

/// What an operator asks for beyond what files' names tell.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Decided then or later.
    pub since: Option<Timestamp>,
    /// An id, a path, or a group's path above it.
    pub project: Option<String>,
    /// The pipeline's id.
    pub pipeline: Option<u64>,
    /// The job's name.
    pub job: Option<String>,
    /// The profile that decided.
    pub profile: Option<String>,
    /// How it ended.
    pub outcome: Option<Ended>,
}

/// Endings, as an operator asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This one.
    As(Ending),
    /// The task served to the end, whatever the scripts came to.
    Released,
    /// Lost, or never had a task: everything that is not the job's or somebody's own doing.
    Failed,
}

impl Filter {
    /// Whether `entry` is asked for.
    pub fn takes(&self, entry: &Entry) -> bool {
        let job = &entry.job;
        self.since.is_none_or(|since| entry.decided_at >= since)
            && self.pipeline.is_none_or(|pipeline| job.pipeline_id == pipeline)
            && self.job.as_ref().is_none_or(|name| job.name == *name)
            && self.profile.as_ref().is_none_or(|profile| entry.profile == *profile)
            && self.project.as_ref().is_none_or(|project| is_of_project(entry, project))
            && self.outcome.is_none_or(|outcome| match outcome {
                Ended::As(ending) => entry.ending() == ending,
                Ended::Released => {
                    matches!(entry.ending(), Ending::Done | Ending::ScriptFailed)
                }
                Ended::Failed => entry.ending().is_loss(),
            })
    }
}

fn is_of_project(entry: &Entry, asked: &str) -> bool {
    let path = entry.job.project.as_str();
    let below = || path.strip_prefix(asked).is_some_and(|rest| rest.starts_with('/'));
    asked.parse() == Ok(entry.job.project_id) || path == asked || below()
}

/// The newest attempts, and how many more there were; of all others nothing is kept.
#[derive(Debug)]
pub struct Newest {
    limit: usize,
    heap: BinaryHeap<Aged>,
    /// All that were added.
    pub count: usize,
}

impl Newest {
    /// Keeps `limit` of them.
    pub fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::new(), count: 0 }
    }

    /// Looks at one more.
    pub fn add(&mut self, entry: Entry) {
        self.count += 1;
        self.heap.push(Aged(entry));
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    /// Newest first.
    pub fn into_entries(self) -> Vec<Entry> {
        self.heap.into_sorted_vec().into_iter().map(|aged| aged.0).collect()
    }
}

/// The oldest is the greatest, so that it is the first to go.
#[derive(Debug)]
struct Aged(Entry);

impl Ord for Aged {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |aged: &Self| (aged.0.decided_at, aged.0.id.clone());
        key(other).cmp(&key(self))
    }
}

impl PartialOrd for Aged {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Aged {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Aged {}

/// What a task of `placement` costs in USD for as long, by the prices of `rehearse`.
///
/// # Errors
///
/// Says why that is not known.
pub fn price(settings: &Settings, placement: &Placement, time: Duration) -> Result<f64, String> {
    let name = &placement.cluster;
    let Some(cluster) = settings.clusters.get(name) else {
        return Err(format!("cluster {name} is not in the settings file any more"));
    };
    let kind = (placement.arch, placement.capacity, placement.size);
    rehearse::cost_of(settings, name, kind, time).ok_or_else(|| match &cluster.backend {
        ClusterBackend::Local(_) => format!("cluster {name} is this machine"),
        ClusterBackend::Ecs(ecs) if ecs.launch != LaunchKind::Fargate => {
            format!("cluster {name} runs on instances, which are paid for as such")
        }
        ClusterBackend::Ecs(_) if placement.size.is_own() => {
            let definition = &placement.task_definition;
            format!("the size of {definition} is known to its ECS task definition only")
        }
        ClusterBackend::Ecs(ecs) => {
            format!("no price of {} in {} is known here", placement.arch, ecs.region)
        }
    })
}

/// Whether a task of `placement` has its memory for itself: on this machine tasks share what there is.
pub fn has_memory(settings: &Settings, placement: &Placement) -> bool {
    let cluster = settings.clusters.get(&placement.cluster);
    !cluster.is_some_and(|cluster| matches!(cluster.backend, ClusterBackend::Local(_)))
}

#[cfg(test)]
mod tests {
    use super::entry::tests::entry;
    use super::*;

    #[test]
    fn filters_take_what_is_asked_for() {
        let one = entry(1, |record| record["outcome"]["kind"] = "spot-interruption".into());
        let project = |text: &str| Filter { project: Some(text.to_owned()), ..Filter::default() };
        let outcome = |outcome| Filter { outcome: Some(outcome), ..Filter::default() };
        let since = |at: &str| Filter { since: Some(at.parse().unwrap()), ..Filter::default() };
        for (filter, expected) in [
            (Filter::default(), true),
            (project("7"), true),
            (project("70"), false),
            (project("acme/app"), true),
            (project("acme"), true),
            (project("acm"), false),
            (Filter { pipeline: Some(55), ..Filter::default() }, true),
            (Filter { pipeline: Some(56), ..Filter::default() }, false),
            (Filter { job: Some("build".to_owned()), ..Filter::default() }, true),
            (Filter { job: Some("buil".to_owned()), ..Filter::default() }, false),
            (Filter { profile: Some("dev".to_owned()), ..Filter::default() }, true),
            (Filter { profile: Some("prod".to_owned()), ..Filter::default() }, false),
            (outcome(Ended::As(Ending::SpotInterruption)), true),
            (outcome(Ended::As(Ending::Capacity)), false),
            (outcome(Ended::Failed), true),
            (outcome(Ended::Released), false),
            (since("2026-11-01T00:00:00Z"), true),
            (since("2026-11-01T00:00:01Z"), false),
        ] {
            assert_eq!(filter.takes(&one), expected, "{filter:?}");
        }
    }

    #[test]
    fn only_the_newest_are_kept_and_all_are_counted() {
        let mut newest = Newest::new(2);
        for day in [3, 1, 4, 2] {
            newest.add(entry(day, |record| {
                record["decided_at"] = format!("2026-11-0{day}T00:00:00Z").into();
            }));
        }
        assert_eq!(newest.count, 4);
        let ids: Vec<u64> = newest.into_entries().iter().map(|entry| entry.job.id).collect();
        assert_eq!(ids, [4, 3]);
    }
}
