//! `policy replay`: recorded jobs, decided again by another policy or with other settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::explain::words;
use super::{AuthoringError, failed};
use crate::placement::Placement;
use crate::policy::{self, RecordedOffer, RecordedQuestion, Store, Trace};
use crate::rehearse;
use crate::settings::{self, Settings};

/// Directories below the one that is named are looked into so deep.
const MAX_DEPTH: usize = 4;

/// What of a record is needed here; see `state`.
#[derive(Debug, Deserialize)]
struct Record {
    profile: String,
    job: RecordedJob,
    placements: Vec<Placement>,
    #[serde(default)]
    placement: Option<Placement>,
    #[serde(default)]
    launch: Option<RecordedLaunch>,
    #[serde(default)]
    released_at: Option<Timestamp>,
    #[serde(default)]
    question: Option<RecordedQuestion>,
}

#[derive(Debug, Deserialize)]
struct RecordedJob {
    id: u64,
    name: String,
    project: String,
}

#[derive(Debug, Deserialize)]
struct RecordedLaunch {
    asked_at: Timestamp,
    #[serde(default)]
    ready_at: Option<Timestamp>,
}

/// Which catalog and bounds decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Those of the record, and of the settings where it has none: what is different is the policies' doing.
    Recorded,
    /// Those of the settings.
    Settings,
}

/// What would be decided now.
#[derive(Debug, Serialize)]
pub struct Replayed {
    /// The job's id.
    pub job_id: u64,
    /// Author-chosen.
    pub job: String,
    /// The project's path.
    pub project: String,
    /// The profile that decided.
    pub profile: String,
    /// Where it ran, or was to run.
    pub before: Placement,
    /// Where it would run; `None` when it would not.
    pub after: Option<Placement>,
    /// Why it would not.
    pub error: Option<String>,
    /// Whether that is another place: all but labels and reason count.
    pub moves: bool,
    /// How long the task ran; 0 when it never did.
    pub running_seconds: f64,
    /// USD; `None` where no price is known.
    pub cost_before: Option<f64>,
    /// USD, for as long as it ran; `None` where no price is known.
    pub cost_after: Option<f64>,
}

/// All of them.
#[derive(Debug, Default, Serialize)]
pub struct Replay {
    /// Oldest file name first.
    pub jobs: Vec<Replayed>,
    /// Jobs that were decided with what the operator offered then, and not with what the settings offer.
    pub with_recorded_offer: usize,
    /// Records without a question, of a driver that kept none.
    pub without_question: usize,
    /// Files that are no records.
    pub unreadable: usize,
}

/// Decides the records below `directory` again by the profiles of `settings`, in which `replaced` has taken the
/// place of the policy of that name, and with the catalog and the bounds that `offer` says.
///
/// # Errors
///
/// Fails when the directory cannot be read. A job that the policies do not place is no error.
pub fn replay(
    directory: &Path,
    settings: &Settings,
    replaced: Option<(&str, &settings::Policy)>,
    offer: Offer,
    store: &Store,
) -> Result<Replay, AuthoringError> {
    let mut files = Vec::new();
    collect(directory, MAX_DEPTH, &mut files).map_err(failed("read", directory))?;
    files.sort();
    let mut replay = Replay::default();
    for file in files {
        let record = std::fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        let Some(record) = record else {
            replay.unreadable += 1;
            continue;
        };
        let Some(question) = &record.question else {
            replay.without_question += 1;
            continue;
        };
        let Some(before) = record.placement.as_ref().or_else(|| record.placements.first()) else {
            replay.unreadable += 1;
            continue;
        };
        let offered = question.offer.as_ref().filter(|_| offer == Offer::Recorded);
        replay.with_recorded_offer += usize::from(offered.is_some());
        let again = again(&record.profile, (question, offered), settings, replaced, store);
        let (after, error) = match again {
            Ok(placement) => (Some(placement), None),
            Err(error) => (None, Some(error)),
        };
        let running = record.running();
        let cost = |placement: &Placement| {
            let kind = (placement.arch, placement.capacity, placement.size);
            rehearse::cost_of(settings, &placement.cluster, kind, running)
        };
        replay.jobs.push(Replayed {
            job_id: record.job.id,
            job: record.job.name.clone(),
            project: record.job.project.clone(),
            profile: record.profile.clone(),
            moves: after.as_ref().is_none_or(|after| !same_place(before, after)),
            running_seconds: running.as_secs_f64(),
            cost_before: if running.is_zero() { None } else { cost(before) },
            cost_after: after.as_ref().filter(|_| !running.is_zero()).and_then(cost),
            before: before.clone(),
            after,
            error,
        });
    }
    Ok(replay)
}

fn again(
    profile: &str,
    (recorded, offered): (&RecordedQuestion, Option<&RecordedOffer>),
    settings: &Settings,
    replaced: Option<(&str, &settings::Policy)>,
    store: &Store,
) -> Result<Placement, String> {
    let own = settings
        .profiles
        .get(profile)
        .ok_or_else(|| format!("the settings have no profile `{profile}`"))?;
    let mut chain = settings.chain(own);
    for (name, policy) in &mut chain {
        if let Some((_, other)) = replaced.filter(|(replaced, _)| replaced == name) {
            *policy = settings::Policy { mode: policy.mode, ..other.clone() };
        }
    }
    let chain: Vec<_> = chain.iter().map(|(name, policy)| (*name, policy)).collect();
    let job = recorded.job();
    let now;
    let (catalog, bounds, claims_taint) = match offered {
        Some(offer) => (&offer.catalog, &offer.bounds, offer.claims_taint),
        None => {
            now = settings.catalog(&own.bounds);
            (&now, &own.bounds, own.claims_taint)
        }
    };
    let question = recorded.question(&job, catalog, bounds, claims_taint);
    policy::decide_traced(&question, &chain, store, &mut Trace::default())
        .map_err(|error| words(&error))?
        .into_iter()
        .next()
        .ok_or_else(|| "no placement was decided".to_owned())
}

impl Record {
    fn running(&self) -> Duration {
        let launch = self.launch.as_ref();
        let from = launch.map(|launch| launch.ready_at.unwrap_or(launch.asked_at));
        let running = from.zip(self.released_at).map(|(from, to)| to.duration_since(from));
        running.and_then(|running| Duration::try_from(running).ok()).unwrap_or_default()
    }
}

fn same_place(one: &Placement, other: &Placement) -> bool {
    let plain = |placement: &Placement| Placement {
        labels: BTreeMap::new(),
        reason: String::new(),
        ..placement.clone()
    };
    plain(one) == plain(other)
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    Ok(())
}
