//! Sums over attempts by group. Pure: attempts come one after the other, and of each only numbers are kept.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::compare::{self, Comparison};
use super::group::{By, Key};
use super::numbers::Spread;
use super::oversized::{Oversized, Sizes};
use super::{Ending, Entry};
use crate::placement::Placement;
use crate::rehearse;

const CPU_UNITS_PER_VCPU: f64 = 1024.0;
const MIB_PER_GIB: f64 = 1024.0;
const SECONDS_PER_HOUR: f64 = 3600.0;

/// What a task of a placement costs for as long; or why that is not known.
pub type Price<'p> = dyn Fn(&Placement, Duration) -> Result<f64, String> + 'p;

/// Whether a task of a placement has its memory for itself, so that more than it uses is too much.
pub type HasMemory<'p> = dyn Fn(&Placement) -> bool + 'p;

/// A job as the driver knows it again: GitLab gives a retried one a new id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct JobKey {
    pipeline: u64,
    /// The project and the name's hash: the same job in each pipeline.
    pub name: (u64, u64),
}

impl JobKey {
    fn of(entry: &Entry) -> Self {
        let mut hasher = DefaultHasher::new();
        entry.job.name.hash(&mut hasher);
        Self { pipeline: entry.job.pipeline_id, name: (entry.job.project_id, hasher.finish()) }
    }
}

/// One job, all its attempts together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JobSums {
    /// USD.
    pub cost: f64,
    /// Whether a task of it has no price.
    pub unpriced: bool,
    /// From the decision to the record.
    pub seconds: f64,
    /// Attempts that were lost.
    pub losses: u32,
}

/// What a group keeps.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub jobs: HashMap<JobKey, JobSums>,
    attempts: u64,
    endings: BTreeMap<Ending, u64>,
    failed_launches: u64,
    waited: Vec<f32>,
    ran: Vec<f32>,
    vcpu_hours: f64,
    gib_hours: f64,
    tasks_without_size: u64,
    cost: f64,
    priced_tasks: u64,
    tasks_without_price: u64,
}

/// What one attempt adds to its group and to the total.
struct Share {
    key: JobKey,
    ending: Ending,
    waited: Option<f64>,
    ran: Option<f64>,
    vcpu_hours: f64,
    gib_hours: f64,
    tasks_without_size: u64,
    priced_tasks: u64,
    tasks_without_price: u64,
    job: JobSums,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float keeps 24 bits, more than any clock is worth here"
)]
fn sample(seconds: f64) -> f32 {
    seconds as f32
}

impl Sums {
    fn add(&mut self, share: &Share) {
        *self.endings.entry(share.ending).or_default() += 1;
        if share.ending == Ending::Rejected {
            return;
        }
        self.attempts += 1;
        self.waited.extend(share.waited.map(sample));
        self.ran.extend(share.ran.map(sample));
        self.vcpu_hours += share.vcpu_hours;
        self.gib_hours += share.gib_hours;
        self.tasks_without_size += share.tasks_without_size;
        self.cost += share.job.cost;
        self.priced_tasks += share.priced_tasks;
        self.tasks_without_price += share.tasks_without_price;
        let job = self.jobs.entry(share.key).or_default();
        job.cost += share.job.cost;
        job.unpriced |= share.job.unpriced;
        job.seconds += share.job.seconds;
        job.losses += share.job.losses;
    }

    fn ended(&self, ending: Ending) -> u64 {
        self.endings.get(&ending).copied().unwrap_or_default()
    }

    fn group(mut self, name: String) -> Group {
        let waiting_seconds = Spread::of(&mut self.waited);
        let running_seconds = Spread::of(&mut self.ran);
        // Without prices that are known there is no sum, and without tasks nothing was paid.
        let is_known = self.priced_tasks > 0 || self.tasks_without_price == 0;
        let priced: Vec<f64> =
            self.jobs.values().filter(|job| !job.unpriced).map(|job| job.cost).collect();
        Group {
            jobs: self.jobs.len(),
            attempts: self.attempts,
            failures: Failures {
                spot_interruption: self.ended(Ending::SpotInterruption),
                capacity: self.ended(Ending::Capacity),
                out_of_memory: self.ended(Ending::OutOfMemory),
                other: self.ended(Ending::Other),
            },
            script_failures: self.ended(Ending::ScriptFailed),
            cancelled: self.ended(Ending::Cancelled),
            rejected: self.ended(Ending::Rejected),
            failed_launches: self.failed_launches,
            waiting_seconds,
            running_seconds,
            vcpu_hours: self.vcpu_hours,
            gib_hours: self.gib_hours,
            tasks_without_size: self.tasks_without_size,
            cost_usd: is_known.then_some(self.cost),
            cost_per_job_usd: mean(&priced),
            tasks_without_price: self.tasks_without_price,
            group: name,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 jobs")]
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A report in the making.
pub struct Report<'p> {
    by: By,
    price: &'p Price<'p>,
    has_memory: &'p HasMemory<'p>,
    groups: BTreeMap<Key, Sums>,
    total: Sums,
    sizes: Sizes,
    unpriced: BTreeMap<String, u64>,
    living: u64,
    doctor: u64,
    without_label: u64,
}

impl std::fmt::Debug for Report<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Report").field("by", &self.by).finish_non_exhaustive()
    }
}

impl<'p> Report<'p> {
    /// Of nothing yet.
    pub fn new(by: By, price: &'p Price<'p>, has_memory: &'p HasMemory<'p>) -> Self {
        Self {
            by,
            price,
            has_memory,
            groups: BTreeMap::new(),
            total: Sums::default(),
            sizes: Sizes::default(),
            unpriced: BTreeMap::new(),
            living: 0,
            doctor: 0,
            without_label: 0,
        }
    }

    /// Adds one attempt that has ended; of the others there are only counts.
    pub fn add(&mut self, entry: &Entry) {
        if entry.is_doctor() {
            self.doctor += 1;
            return;
        }
        let Some(end) = entry.released_at.filter(|_| !entry.living) else {
            self.living += 1;
            return;
        };
        let share = self.share(entry, end);
        self.total.add(&share);
        if let Some(ran) = share.ran
            && entry.place().is_some_and(self.has_memory)
        {
            self.sizes.add(entry, ran);
        }
        match self.by.key(entry, entry.place()) {
            Some(key) => self.groups.entry(key).or_default().add(&share),
            None => self.without_label += 1,
        }
        for (launch, placement) in entry.launches() {
            if launch.failed.is_none() {
                continue;
            }
            self.total.failed_launches += 1;
            if let Some(key) = self.by.key(entry, placement) {
                self.groups.entry(key).or_default().failed_launches += 1;
            }
        }
    }

    fn share(&mut self, entry: &Entry, end: Timestamp) -> Share {
        let ending = entry.ending();
        let mut share = Share {
            key: JobKey::of(entry),
            ending,
            waited: entry.waited(),
            ran: entry.ran(end),
            vcpu_hours: 0.0,
            gib_hours: 0.0,
            tasks_without_size: 0,
            priced_tasks: 0,
            tasks_without_price: 0,
            job: JobSums {
                seconds: entry.whole(end),
                losses: u32::from(ending.is_loss()),
                ..JobSums::default()
            },
        };
        for (placement, time) in entry.paid(end) {
            let hours = time.as_secs_f64() / SECONDS_PER_HOUR;
            if placement.size.is_own() {
                share.tasks_without_size += 1;
            }
            share.vcpu_hours += f64::from(placement.size.cpu_units) / CPU_UNITS_PER_VCPU * hours;
            share.gib_hours += f64::from(placement.size.memory_mib) / MIB_PER_GIB * hours;
            match (self.price)(placement, time) {
                Ok(cost) => {
                    share.priced_tasks += 1;
                    share.job.cost += cost;
                }
                Err(why) => {
                    share.tasks_without_price += 1;
                    share.job.unpriced = true;
                    *self.unpriced.entry(why).or_default() += 1;
                }
            }
        }
        share
    }

    /// The whole of it.
    pub fn finish(self) -> Summary {
        let comparisons = compare::all(&self.groups);
        Summary {
            by: self.by,
            groups: self.groups.into_iter().map(|(key, sums)| sums.group(key.text)).collect(),
            total: self.total.group("total".to_owned()),
            comparisons,
            oversized: self.sizes.oversized(),
            unknown_prices: self
                .unpriced
                .into_iter()
                .map(|(why, tasks)| Unpriced { why, tasks })
                .collect(),
            cost_basis: rehearse::RECORDED_BASIS,
            living: self.living,
            doctor: self.doctor,
            without_label: self.without_label,
        }
    }
}

/// A report.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// What the groups are.
    pub by: By,
    /// By name.
    pub groups: Vec<Group>,
    /// All attempts that have ended, those without a group too.
    pub total: Group,
    /// The experiments of which both sides are among the groups.
    pub comparisons: Vec<Comparison>,
    /// The most unused first.
    pub oversized: Vec<Oversized>,
    /// Why tasks have no price.
    pub unknown_prices: Vec<Unpriced>,
    /// What the costs rest on.
    pub cost_basis: &'static str,
    /// Attempts that have not ended, and are in no sum.
    pub living: u64,
    /// Launches of `doctor`, in no sum.
    pub doctor: u64,
    /// Attempts without the label, in the total only.
    pub without_label: u64,
}

/// Tasks that have no price.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unpriced {
    /// In words.
    pub why: String,
    /// How many.
    pub tasks: u64,
}

/// Attempts that were lost, by no doing of their scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// Spot took the task back.
    pub spot_interruption: u64,
    /// No placement had capacity.
    pub capacity: u64,
    /// A container was killed for its memory use.
    pub out_of_memory: u64,
    /// Anything else.
    pub other: u64,
}

/// The attempts of one group.
#[derive(Debug, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// By pipeline, project and name: retries of a job are the same job.
    pub jobs: usize,
    /// Those that were rejected left out.
    pub attempts: u64,
    /// Lost attempts.
    pub failures: Failures,
    /// Attempts whose script failed.
    pub script_failures: u64,
    /// Attempts that were cancelled while they waited for a task.
    pub cancelled: u64,
    /// Attempts that no policy or no bounds allowed.
    pub rejected: u64,
    /// Tasks of the group's placements that were asked for and came to nothing, whichever served afterwards.
    pub failed_launches: u64,
    /// From the decision to a reached task.
    pub waiting_seconds: Option<Spread>,
    /// From there to the record.
    pub running_seconds: Option<Spread>,
    /// Of all tasks, from the pull to the end.
    pub vcpu_hours: f64,
    /// The same.
    pub gib_hours: f64,
    /// Tasks whose size is their ECS task definition's, which are not in the hours.
    pub tasks_without_size: u64,
    /// Of the tasks with a price; `None` when none has one.
    pub cost_usd: Option<f64>,
    /// The mean of the jobs all of whose tasks have a price.
    pub cost_per_job_usd: Option<f64>,
    /// Tasks that are not in the cost.
    pub tasks_without_price: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::history::entry::tests::entry;
    use crate::placement::Capacity;

    /// A dollar an hour, and half of it on Spot; `mars` has no price.
    fn price(placement: &Placement, time: Duration) -> Result<f64, String> {
        let share = if placement.capacity == Capacity::Spot { 0.5 } else { 1.0 };
        match placement.cluster.as_str() {
            "mars" => Err("cluster mars has no price".to_owned()),
            _ => Ok(share * time.as_secs_f64() / 3600.0),
        }
    }

    fn report(by: &str, entries: &[Entry]) -> Summary {
        let mut report = Report::new(by.parse().unwrap(), &price, &|_| true);
        for entry in entries {
            report.add(entry);
        }
        report.finish()
    }

    fn on_demand(record: &mut Value) {
        record["placement"]["capacity"] = "on-demand".into();
        record["placements"] = json!([record["placements"][0], record["placement"]]);
        record["launch"]["placement"] = 1.into();
    }

    fn ended(kind: &str) -> impl Fn(&mut Value) {
        move |record| record["outcome"]["kind"] = kind.into()
    }

    #[test]
    fn sums_are_by_group_and_in_all() {
        let entries = [
            entry(1, |_| {}),
            // The retry of a lost job has another id, and is the same job.
            entry(2, |record| {
                record["job"]["pipeline_id"] = 56.into();
                ended("spot-interruption")(record);
            }),
            entry(3, |record| {
                record["job"]["pipeline_id"] = 56.into();
                record["number"] = 2.into();
                // Spot had nothing, on-demand had.
                on_demand(record);
                let failed = json!({ "cause": "no-capacity", "detail": "" });
                record["earlier"] = json!([{
                    "placement": 0, "asked_at": "2026-11-01T00:00:01Z", "task": null, "address": null,
                    "host_key": null, "ready_at": null, "failed": failed,
                }]);
            }),
            entry(4, |record| {
                record["job"]["name"] = "deploy".into();
                on_demand(record);
                record["scripts"][1]["exit"] = 1.into();
                record["launch"]["ready_at"] = "2026-11-01T00:01:00Z".into();
            }),
            entry(5, |record| {
                ended("rejected")(record);
                record["placements"] = json!([]);
                record["placement"] = Value::Null;
                record["launch"] = Value::Null;
            }),
            entry(6, |record| record["job"]["id"] = 0.into()),
        ];
        let summary = report("capacity", &entries);
        let names: Vec<&str> = summary.groups.iter().map(|group| group.group.as_str()).collect();
        assert_eq!(names, ["no placement", "on-demand", "spot"]);
        let [nowhere, on_demand, spot] = &summary.groups[..] else { panic!("{summary:?}") };
        assert_eq!((nowhere.jobs, nowhere.attempts, nowhere.rejected), (0, 0, 1));
        assert_eq!((spot.jobs, spot.attempts, spot.failed_launches), (2, 2, 1));
        assert_eq!(spot.failures, Failures { spot_interruption: 1, ..Failures::default() });
        assert_eq!((on_demand.jobs, on_demand.attempts, on_demand.failed_launches), (2, 2, 0));
        assert_eq!((on_demand.script_failures, on_demand.failures), (1, Failures::default()));
        let spread = |median, p95| Some(Spread { median, p95 });
        assert_eq!(on_demand.waiting_seconds, spread(30.0, 60.0));
        assert_eq!(on_demand.running_seconds, spread(240.0, 270.0));
        // 269 s at half a dollar, twice; 269 s and 239 s at a dollar.
        let near = |value: Option<f64>, expected: f64| {
            let value = value.unwrap();
            assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
        };
        near(spot.cost_usd, 269.0 / 3600.0);
        near(on_demand.cost_usd, 508.0 / 3600.0);
        near(spot.cost_per_job_usd, 134.5 / 3600.0);
        near(Some(spot.vcpu_hours), 538.0 / 3600.0);
        near(Some(spot.gib_hours), 1076.0 / 3600.0);
        let total = &summary.total;
        assert_eq!((total.jobs, total.attempts, total.rejected, summary.doctor), (3, 4, 1, 1));
        near(total.cost_usd, 777.0 / 3600.0);
        near(total.cost_per_job_usd, 259.0 / 3600.0);
        assert_eq!(total.failed_launches, 1);
        assert_eq!(summary.comparisons.len(), 0);
    }

    #[test]
    fn what_has_no_price_is_counted_and_said() {
        let mars = |job_id| {
            entry(job_id, |record| {
                record["placement"]["cluster"] = "mars".into();
                record["placements"] = json!([record["placement"]]);
                record["job"]["name"] = format!("{job_id}").into();
            })
        };
        let summary = report("placement", &[entry(1, |_| {}), mars(2), mars(3)]);
        let [dev, mars] = &summary.groups[..] else { panic!("{summary:?}") };
        assert_eq!(
            (mars.cost_usd, mars.cost_per_job_usd, mars.tasks_without_price),
            (None, None, 2)
        );
        assert_eq!(summary.total.cost_usd, dev.cost_usd);
        assert_eq!(summary.total.cost_per_job_usd, dev.cost_per_job_usd);
        let why = "cluster mars has no price".to_owned();
        assert_eq!(summary.unknown_prices, [Unpriced { why, tasks: 2 }]);
    }

    #[test]
    fn a_hundred_thousand_attempts_are_summed_one_by_one() {
        let mut report = Report::new(By::Profile, &price, &|_| true);
        let mut one = entry(1, |_| {});
        for id in 1..=100_000 {
            one.job.id = id;
            one.job.pipeline_id = id;
            one.profile = format!("profile-{}", id % 2);
            report.add(&one);
        }
        let summary = report.finish();
        assert_eq!(summary.groups.len(), 2);
        assert_eq!((summary.total.jobs, summary.total.attempts), (100_000, 100_000));
        let expected = 100_000.0 * 134.5 / 3600.0;
        assert!((summary.total.cost_usd.unwrap() - expected).abs() < 1e-3);
    }

    #[test]
    fn an_empty_report_is_one() {
        let summary = report("project", &[]);
        assert_eq!(summary.groups, []);
        assert_eq!((summary.total.attempts, summary.total.waiting_seconds), (0, None));
        assert_eq!(summary.total.cost_usd, Some(0.0));
        assert_eq!(summary.total.cost_per_job_usd, None);
    }
}
