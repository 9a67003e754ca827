//! The pipeline as a whole: starts jobs as [`schedule`] lets them, side by side, and collects what became
//! of them.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Instant;

use super::log::Log;
use super::pipeline::Pipeline;
use super::report::{JobReport, Outcome, Try};
use super::response::Stored;
use super::runner::{self, Assignment, JobFailure, Played, Reason, Rehearsal};
use super::schedule::{self, State, Verdict};
use super::server::{self, ProjectVariable};
use crate::settings::Settings;

/// What a pipeline is played with.
pub(super) struct Play<'a> {
    pub(super) rehearsal: &'a Rehearsal<'a>,
    pub(super) pipeline: &'a Pipeline,
    /// By index: whether it was asked for.
    pub(super) wanted: Vec<bool>,
    pub(super) settings: &'a Settings,
    pub(super) variables: &'a [ProjectVariable],
    /// At least 1.
    pub(super) concurrent: usize,
    pub(super) log: &'a Log<'a>,
}

/// Where the jobs stand, and what is told of them.
struct Standing {
    states: Vec<State>,
    reports: Vec<JobReport>,
    stored: Vec<Option<Stored>>,
    ready_since: Vec<Option<Instant>>,
    slots: BTreeSet<usize>,
    next_id: u64,
}

/// Plays all jobs; gives a report for each, in the file's order.
pub(super) fn perform(play: &Play<'_>) -> Vec<JobReport> {
    let jobs = &play.pipeline.jobs;
    let mut standing = Standing {
        states: vec![State::Waiting; jobs.len()],
        reports: jobs.iter().map(JobReport::of).collect(),
        stored: vec![None; jobs.len()],
        ready_since: vec![None; jobs.len()],
        slots: BTreeSet::new(),
        next_id: 1,
    };
    for index in 0..jobs.len() {
        if !play.wanted.get(index).copied().unwrap_or_default() {
            // As if it had worked, so that what was asked for can run.
            standing.set(index, State::Success, Outcome::LeftOut, None);
        }
    }
    std::thread::scope(|scope| {
        let (sender, ended) = mpsc::channel();
        loop {
            while let Some((index, slot, profile)) = standing.next(play) {
                let id = play.rehearsal.pipeline_id * 1000 + standing.next_id;
                standing.next_id += 1;
                let queued = standing.ready_since[index].map(|since| since.elapsed());
                let token = token(id);
                let tags: Vec<_> = play
                    .settings
                    .profiles
                    .get(profile)
                    .map(|profile| profile.tags.iter().map(String::as_str).collect())
                    .unwrap_or_default();
                let job = &jobs[index];
                let assignment = Assignment {
                    job,
                    id,
                    variables: server::variables(
                        job,
                        (id, play.rehearsal.pipeline_id),
                        &token,
                        play.rehearsal.sources,
                        (profile, &tags),
                        play.variables,
                    ),
                    token,
                    profile,
                    dependencies: schedule::artifact_sources(play.pipeline, job)
                        .into_iter()
                        .filter_map(|source| standing.stored[source].clone())
                        .collect(),
                    slot,
                    queued: queued.unwrap_or_default(),
                };
                let sender = sender.clone();
                scope.spawn(move || {
                    let mut log = play.log.job(index, &assignment.job.name);
                    if job.tags.is_empty() {
                        log.say(&format!("This job has no tags: rehearsed with profile {profile}, though in GitLab only a runner that takes untagged jobs would run it"));
                    }
                    let played = runner::play(play.rehearsal, &assignment, &mut log);
                    // The receiver lives until all jobs have ended.
                    let _ = sender.send((index, slot, assignment.id, profile, played));
                });
            }
            if !standing.states.contains(&State::Running) {
                break;
            }
            let Ok((index, slot, id, profile, played)) = ended.recv() else { break };
            standing.slots.remove(&slot);
            standing.ended(play, index, (id, profile), played);
        }
    });
    standing.reports
}

impl Standing {
    fn set(&mut self, index: usize, state: State, outcome: Outcome, why: Option<String>) {
        self.states[index] = state;
        self.reports[index].outcome = outcome;
        self.reports[index].why = why;
    }

    /// The next job to start, with its slot and profile. Settles on the way what will never run.
    fn next<'a>(&mut self, play: &Play<'a>) -> Option<(usize, usize, &'a str)> {
        let mut settled = true;
        while std::mem::take(&mut settled) {
            for index in 0..self.states.len() {
                if self.states[index] != State::Waiting {
                    continue;
                }
                let name = &play.pipeline.jobs[index].name;
                if play.rehearsal.interrupt.is_raised() {
                    self.set(index, State::Failed { allowed: false }, Outcome::Canceled, None);
                    continue;
                }
                match schedule::verdict(play.pipeline, &self.states, index) {
                    Verdict::Wait => {}
                    Verdict::Skip { why, blocking } => {
                        play.log.job(index, name).say(&format!("Skipped: {why}"));
                        let state = State::Skipped { why: why.clone(), blocking };
                        self.set(index, state, Outcome::Skipped, Some(why));
                        settled = true;
                    }
                    Verdict::Run => {
                        match server::profile(play.settings, &play.pipeline.jobs[index]) {
                            Err(why) => {
                                play.log.job(index, name).error(&format!("ERROR: {why}"));
                                self.set(index, State::Stuck, Outcome::Stuck, Some(why));
                                settled = true;
                            }
                            Ok(profile) => {
                                self.ready_since[index].get_or_insert_with(Instant::now);
                                let slot = (0..)
                                    .find(|slot| !self.slots.contains(slot))
                                    .unwrap_or_default();
                                if slot < play.concurrent {
                                    self.slots.insert(slot);
                                    self.states[index] = State::Running;
                                    return Some((index, slot, profile));
                                }
                            }
                        }
                    }
                }
            }
        }
        None
    }

    fn ended(&mut self, play: &Play<'_>, index: usize, (id, profile): (u64, &str), played: Played) {
        let job = &play.pipeline.jobs[index];
        let Played { failure, waiting, running, stored } = played;
        let report = &mut self.reports[index];
        report.tries.push(Try::new(id, profile, failure.as_ref(), waiting, running));
        let tries = u32::try_from(report.tries.len()).unwrap_or(u32::MAX);
        self.stored[index] = stored;
        match failure {
            None => self.set(index, State::Success, Outcome::Success, None),
            Some(JobFailure { reason: Reason::JobCanceled, message, .. }) => {
                self.set(index, State::Failed { allowed: false }, Outcome::Canceled, Some(message));
            }
            Some(failure) if schedule::again(&job.retry, &failure, tries) => {
                self.states[index] = State::Waiting;
                self.ready_since[index] = None;
                play.log
                    .job(index, &job.name)
                    .say(&format!("Retried ({tries} of {})", job.retry.max));
            }
            Some(failure) => {
                let allowed = schedule::allowed(&job.allow_failure, &failure);
                let outcome = if allowed { Outcome::AllowedFailure } else { Outcome::Failed };
                self.set(index, State::Failed { allowed }, outcome, Some(failure.message));
            }
        }
    }
}

/// In the shape of GitLab's own, so that masking by prefix works; opens nothing.
fn token(id: u64) -> String {
    format!("glcbt-rehearsal-{id}")
}
