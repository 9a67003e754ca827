//! From the jobs of the file to those of the pipeline: `parallel` unfolded, `needs` and `dependencies` looked
//! up.

use std::collections::{HashMap, HashSet};

use super::tree::problem;
use super::{Job, Need, Problem};

/// A job before `parallel` is unfolded and its needs are looked up.
pub(super) struct Folded {
    pub(super) job: Job,
    pub(super) parallel: Option<u32>,
    /// Name, whether artifacts come along, whether the job may be missing.
    pub(super) needs: Option<Vec<(String, bool, bool)>>,
}

/// Unfolds `parallel`, and checks that what jobs need and depend on is there.
pub(super) fn unfold(
    folded: Vec<Folded>,
    stages: &[String],
    problems: &mut Vec<Problem>,
) -> Vec<Job> {
    let names: HashMap<String, (Vec<String>, usize)> = folded
        .iter()
        .map(|folded| {
            let stage = stages.iter().position(|stage| *stage == folded.job.stage).unwrap_or(0);
            (folded.job.name.clone(), (instances(folded), stage))
        })
        .collect();
    let mut jobs = Vec::new();
    for mut folded in folded {
        let name = folded.job.name.clone();
        let own_stage = names.get(&name).map_or(0, |(_, stage)| *stage);
        let mut needs = folded.needs.is_some().then(Vec::new);
        for (need, artifacts, optional) in folded.needs.take().into_iter().flatten() {
            let place = format!("{name}: needs");
            match names.get(&need) {
                None if optional => {}
                None => {
                    problems.push(problem(place, format!("`{need}` is no job of this pipeline")))
                }
                Some((_, stage)) if *stage > own_stage => {
                    problems.push(problem(place, format!("`{need}` is in a later stage")));
                }
                Some((instances, _)) => {
                    let all = instances.iter().map(|job| Need { job: job.clone(), artifacts });
                    needs.get_or_insert_default().extend(all);
                }
            }
        }
        let mut dependencies = folded.job.dependencies.is_some().then(Vec::new);
        for dependency in folded.job.dependencies.take().into_iter().flatten() {
            let place = format!("{name}: dependencies");
            match names.get(&dependency) {
                None => {
                    problems
                        .push(problem(place, format!("`{dependency}` is no job of this pipeline")));
                }
                Some((instances, stage)) => {
                    let needed = needs.as_ref().map(|needs| {
                        instances.iter().all(|job| needs.iter().any(|need| need.job == *job))
                    });
                    match needed {
                        Some(false) => problems.push(problem(
                            place,
                            format!("`{dependency}` must also be in `needs`"),
                        )),
                        None if *stage >= own_stage => problems.push(problem(
                            place,
                            format!("`{dependency}` is not in an earlier stage"),
                        )),
                        _ => dependencies.get_or_insert_default().extend(instances.iter().cloned()),
                    }
                }
            }
        }
        folded.job.needs = needs;
        folded.job.dependencies = dependencies;
        match folded.parallel {
            None => jobs.push(folded.job),
            Some(total) => {
                for (index, instance) in (1..).zip(instances(&folded)) {
                    let mut job = folded.job.clone();
                    job.name = instance;
                    job.node = Some((index, total));
                    jobs.push(job);
                }
            }
        }
    }
    if problems.is_empty() {
        for name in in_a_circle(&jobs) {
            problems.push(problem(format!("{name}: needs"), "leads back to itself"));
        }
    }
    jobs
}

fn instances(folded: &Folded) -> Vec<String> {
    let name = &folded.job.name;
    match folded.parallel {
        None => vec![name.clone()],
        Some(total) => (1..=total).map(|index| format!("{name} {index}/{total}")).collect(),
    }
}

/// The jobs that wait for themselves, or for such jobs.
fn in_a_circle(jobs: &[Job]) -> Vec<String> {
    let mut free: HashSet<&str> = HashSet::new();
    loop {
        let before = free.len();
        for job in jobs {
            if job.needs.iter().flatten().all(|need| free.contains(need.job.as_str())) {
                free.insert(&job.name);
            }
        }
        if free.len() == before {
            break;
        }
    }
    jobs.iter()
        .filter(|job| !free.contains(job.name.as_str()))
        .map(|job| job.name.clone())
        .collect()
}
