//! The chain: the hooks after a lost attempt and the placers until one answers, then mutators, then guards on each
//! candidate.
//!
//! After each step the host checks what came of it; what the bounds do not allow is dropped and told. A policy
//! that is only monitored runs like the others, and nothing that it answers or breaks has an effect.

mod default;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::trial::try_out;
use super::bindings::recovery::LostAttempt;
use super::bindings::types;
use super::call::{self, Caller, Exported, Ran};
use super::inputs::Inputs;
use super::store::{Loaded, Store};
use super::{
    BrokenKind, DecidedBy, Decision, EarlierFailure, PolicyError, Question, Refusal, Step, Trace,
    convert,
};
use crate::placement::Placement;
use crate::settings::{self, ClaimsTaint, Component, DefaultPlacement, Mode, OnError};

/// Lines for the job log that all policies of a chain may write together.
const MAX_NOTICES: usize = 20;

/// Asks the policies of `chain`, in their order, each by the name that the settings file has for it.
///
/// # Errors
///
/// Returns why there is no placement; see [`PolicyError`].
pub fn decide(
    question: &Question<'_>,
    chain: &[(&str, &settings::Policy)],
    store: &Store,
) -> Result<Decision, PolicyError> {
    let mut trace = Trace::default();
    let placements = decide_traced(question, chain, store, &mut trace)?;
    Ok(Decision { placements, notices: trace.notices, steps: trace.steps })
}

/// The same, for who wants to know the steps that led to an error as well.
///
/// # Errors
///
/// As [`decide`].
pub fn decide_traced(
    question: &Question<'_>,
    chain: &[(&str, &settings::Policy)],
    store: &Store,
    trace: &mut Trace,
) -> Result<Vec<Placement>, PolicyError> {
    decide_given(question, chain, store, None, trace)
}

/// The same for mutators and guards alone, asked about `given` instead of what a placer answered.
///
/// # Errors
///
/// As [`decide`].
pub fn decide_given(
    question: &Question<'_>,
    chain: &[(&str, &settings::Policy)],
    store: &Store,
    given: Option<Vec<Placement>>,
    trace: &mut Trace,
) -> Result<Vec<Placement>, PolicyError> {
    let mut members = Vec::with_capacity(chain.len());
    let mut default = None;
    for &(name, policy) in chain {
        if let Component::BuiltIn(built_in) = &policy.component {
            default = Some((name, &**built_in));
            continue;
        }
        match store.load(name, policy) {
            Ok(loaded) => members.push(Member { name, policy, loaded }),
            Err(error) if policy.mode == Mode::Monitor => {
                tracing::warn!(
                    policy = name,
                    error = &error as &dyn std::error::Error,
                    "not monitored"
                );
            }
            Err(error) => return Err(error),
        }
    }
    let claims = default.is_some() || members.iter().any(|member| member.loaded.imports_claims);
    let inputs = Arc::new(Inputs::new(question, claims));
    let mut chain = Chain { question, members, default, store, inputs, trace, reasons: Vec::new() };
    let (placer, placements) = match given {
        Some(given) => ("", given),
        None => match chain.recover()? {
            Some(answer) => answer,
            None => chain.place()?,
        },
    };
    let placements = chain.mutate(placements)?;
    let placements = chain.guard(placements)?;
    chain.taint(placer, placements)
}

struct Member<'a> {
    name: &'a str,
    policy: &'a settings::Policy,
    loaded: Arc<Loaded>,
}

impl Member<'_> {
    fn is_monitored(&self) -> bool {
        self.policy.mode == Mode::Monitor
    }
}

struct Chain<'a, 't> {
    question: &'a Question<'a>,
    members: Vec<Member<'a>>,
    /// The driver's own answer for when no placer has one, with its name.
    default: Option<(&'a str, &'a DefaultPlacement)>,
    store: &'a Store,
    inputs: Arc<Inputs>,
    trace: &'t mut Trace,
    /// Every "no" so far, for a job that is left with nothing.
    reasons: Vec<Refusal>,
}

impl<'a> Chain<'a, '_> {
    /// After a lost attempt, the hooks of all kinds of policy.
    fn recover(&mut self) -> Result<Option<(&'a str, Vec<Placement>)>, PolicyError> {
        let Some(failure) = self.question.earlier_failures.last() else { return Ok(None) };
        let lost = self.lost(failure);
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let Some(pre) = &member.loaded.linked.recovery else { continue };
            let step = Open::new(member);
            let ran = call::recover(pre, &self.store.runtime, &self.caller(member), &lost);
            if let Some(answer) = self.answered(index, step, ran, "after the lost attempt: ")? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn lost(&self, failure: &EarlierFailure) -> LostAttempt {
        // The bounds may have changed since; a policy shall not learn of what it may not name.
        let placement = failure.placement.as_ref().map(convert::to_guest).filter(|placement| {
            convert::candidates(vec![placement.clone()]).is_ok_and(|candidates| {
                candidates.iter().all(|candidate| {
                    self.question.bounds.check(candidate, self.question.catalog).is_ok()
                })
            })
        });
        LostAttempt { failure: failure.into(), placement }
    }

    fn place(&mut self) -> Result<(&'a str, Vec<Placement>), PolicyError> {
        let mut asked = Vec::new();
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let Exported::Placer(pre) = &member.loaded.linked.exported else { continue };
            asked.push(member.name.to_owned());
            let step = Open::new(member);
            let ran = call::place(pre, &self.store.runtime, &self.caller(member));
            if let Some(answer) = self.answered(index, step, ran, "")? {
                return Ok(answer);
            }
        }
        match self.default {
            Some((name, default)) => self.place_by_default(name, default),
            None => Err(PolicyError::NobodyAnswered {
                profile: self.question.profile.to_owned(),
                asked,
            }),
        }
    }

    /// What a decision of the member at `index` means; `None` goes on to the next.
    fn answered(
        &mut self,
        index: usize,
        mut step: Open,
        ran: Ran<types::Decision>,
        when: &str,
    ) -> Result<Option<(&'a str, Vec<Placement>)>, PolicyError> {
        let member = &self.members[index];
        let (name, policy) = (member.name, member.policy);
        let answer = step
            .took(ran, self.trace)
            .and_then(|decision| self.decided(&self.members[index], decision));
        match answer {
            Ok(Answer::Placements(checked)) => {
                step.close(format!("{when}{}", checked.outcome()), self.trace);
                if policy.mode == Mode::Enforce {
                    return self.left(checked).map(|placements| Some((name, placements)));
                }
            }
            Ok(Answer::Abstained) => step.close(format!("{when}abstained"), self.trace),
            Ok(Answer::Rejected(refusal)) => {
                step.close(format!("{when}rejected: {}", refusal.message), self.trace);
                if policy.mode == Mode::Enforce {
                    self.reasons.push(refusal);
                    return Err(self.rejected());
                }
            }
            Err(what) => step.broke(name, policy, what, self.trace)?,
        }
        Ok(None)
    }

    fn mutate(&mut self, mut placements: Vec<Placement>) -> Result<Vec<Placement>, PolicyError> {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let (name, policy) = (member.name, member.policy);
            let Exported::Mutator(pre) = &member.loaded.linked.exported else { continue };
            let candidates: Vec<_> = placements.iter().map(convert::to_guest).collect();
            let mut step = Open::new(member);
            let ran = call::mutate(pre, &self.store.runtime, &self.caller(member), &candidates);
            let answer = step.took(ran, self.trace).and_then(|answer| match answer {
                Ok(candidates) => Ok(Ok(self.checked(name, candidates, &placements)?)),
                Err(rejection) => Ok(Err(convert::refusal(name, &rejection))),
            });
            match answer {
                Ok(Ok(checked)) => {
                    step.close(checked.outcome(), self.trace);
                    if policy.mode == Mode::Enforce {
                        placements = self.left(checked)?;
                    }
                }
                Ok(Err(refusal)) => {
                    step.close(format!("rejected: {}", refusal.message), self.trace);
                    if policy.mode == Mode::Enforce {
                        self.reasons.push(refusal);
                        return Err(self.rejected());
                    }
                }
                Err(what) => step.broke(name, policy, what, self.trace)?,
            }
        }
        Ok(placements)
    }

    /// Guards fail closed: one that breaks ends the chain, whatever its `on_error` says.
    fn guard(&mut self, mut placements: Vec<Placement>) -> Result<Vec<Placement>, PolicyError> {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let name = member.name;
            let monitored = member.is_monitored();
            let Exported::Guard(pre) = &member.loaded.linked.exported else { continue };
            let mut step = Open::new(member);
            let mut accepted = Vec::with_capacity(placements.len());
            let mut refused: Vec<Refusal> = Vec::new();
            let mut failed = None;
            for placement in &placements {
                let candidate = convert::to_guest(placement);
                let ran = call::check(pre, &self.store.runtime, &self.caller(member), &candidate);
                match step.took(ran, self.trace) {
                    Ok(Ok(())) => accepted.push(placement.clone()),
                    Ok(Err(rejection)) => {
                        let refusal = convert::refusal(name, &rejection);
                        // The same "no" to each candidate is told once.
                        if !refused.contains(&refusal) {
                            refused.push(refusal);
                        }
                    }
                    Err(what) => {
                        failed = Some(what);
                        break;
                    }
                }
            }
            if let Some(what) = failed {
                step.close(format!("failed: {what}"), self.trace);
                if monitored {
                    continue;
                }
                return Err(PolicyError::Broken { policy: name.to_owned(), what });
            }
            let mut outcome = format!("accepted {} of {}", accepted.len(), placements.len());
            for refusal in &refused {
                outcome.push_str("; refused: ");
                outcome.push_str(&refusal.message);
            }
            step.close(outcome, self.trace);
            if monitored {
                continue;
            }
            self.reasons.extend(refused);
            if accepted.is_empty() {
                return Err(self.rejected());
            }
            placements = accepted;
        }
        Ok(placements)
    }

    /// A privileged role needs a chain that no author of a pipeline could have talked into it.
    fn taint(
        &mut self,
        placer: &str,
        placements: Vec<Placement>,
    ) -> Result<Vec<Placement>, PolicyError> {
        if self.question.claims_taint == ClaimsTaint::Allow {
            return Ok(placements);
        }
        let reader =
            self.trace.steps.iter().find(|step| !step.monitored && !step.claims_read.is_empty());
        let Some(reader) = reader else { return Ok(placements) };
        let roles = &self.question.catalog.roles;
        let (tainted, clean): (Vec<_>, Vec<_>) = placements.into_iter().partition(|placement| {
            let role = placement.role.as_ref().and_then(|role| roles.get(role));
            role.is_some_and(|role| role.privileged)
        });
        let Some(role) = tainted.first().and_then(|placement| placement.role.as_ref()) else {
            return Ok(clean);
        };
        if !clean.is_empty() {
            return Ok(clean);
        }
        let claims: Vec<&str> = reader.claims_read.iter().take(5).map(String::as_str).collect();
        let refusal = Refusal {
            policy: placer.to_owned(),
            code: "claims-taint".to_owned(),
            message: format!(
                "role `{role}` is privileged, and policy `{}` read what the pipeline's author wrote ({})",
                reader.policy,
                claims.join(", ")
            ),
            hint: Some(format!(
                "profile `{}` has `claims_taint = \"deny-privileged-roles\"`",
                self.question.profile
            )),
            decided_by: DecidedBy::ClaimsTaint,
        };
        self.reasons.push(refusal);
        Err(self.rejected())
    }

    /// What of a step is in bounds; nothing at all ends the chain.
    fn left(&mut self, checked: Checked) -> Result<Vec<Placement>, PolicyError> {
        self.reasons.extend(checked.refused);
        if checked.placements.is_empty() {
            return Err(self.rejected());
        }
        Ok(checked.placements)
    }

    fn rejected(&mut self) -> PolicyError {
        let mut reasons: Vec<Refusal> = Vec::new();
        for reason in self.reasons.drain(..) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        PolicyError::Rejected { reasons }
    }

    fn caller(&self, member: &Member<'a>) -> Caller<'a> {
        Caller { name: member.name, policy: member.policy, inputs: Arc::clone(&self.inputs) }
    }

    fn decided(
        &self,
        member: &Member<'_>,
        decision: types::Decision,
    ) -> Result<Answer, BrokenKind> {
        Ok(match decision {
            types::Decision::Place(candidates) => {
                Answer::Placements(self.checked(member.name, candidates, &[])?)
            }
            types::Decision::Abstain => Answer::Abstained,
            types::Decision::Reject(rejection) => {
                Answer::Rejected(convert::refusal(member.name, &rejection))
            }
        })
    }

    fn checked(
        &self,
        policy: &str,
        answer: Vec<types::Placement>,
        given: &[Placement],
    ) -> Result<Checked, BrokenKind> {
        let mut checked = Checked { placements: Vec::new(), refused: Vec::new() };
        for mut candidate in convert::candidates(answer)? {
            candidate.labels = own_labels(policy, candidate.labels, given);
            match self.question.bounds.check(&candidate, self.question.catalog) {
                Ok(placement) => checked.placements.push(placement),
                Err(violations) => {
                    let messages: Vec<String> =
                        violations.iter().map(ToString::to_string).collect();
                    let refusal = Refusal {
                        policy: policy.to_owned(),
                        code: "out-of-bounds".to_owned(),
                        message: messages.join("; "),
                        hint: None,
                        decided_by: DecidedBy::Bounds,
                    };
                    if !checked.refused.contains(&refusal) {
                        checked.refused.push(refusal);
                    }
                }
            }
        }
        Ok(checked)
    }
}

enum Answer {
    Placements(Checked),
    Abstained,
    Rejected(Refusal),
}

/// A step's candidates after the bounds.
struct Checked {
    placements: Vec<Placement>,
    refused: Vec<Refusal>,
}

impl Checked {
    fn outcome(&self) -> String {
        let mut outcome = match self.placements.as_slice() {
            [] => "no placement in bounds".to_owned(),
            [only] => format!("placement: {only}"),
            [first, rest @ ..] => format!("placement: {first}; and {} more", rest.len()),
        };
        for refusal in &self.refused {
            outcome.push_str("; refused: ");
            outcome.push_str(&refusal.message);
        }
        outcome
    }
}

/// `labels` with `policy` before each key, apart from those that came with a candidate as they are: nobody labels
/// in another's name.
fn own_labels(
    policy: &str,
    labels: BTreeMap<String, String>,
    given: &[Placement],
) -> BTreeMap<String, String> {
    let prefix = format!("{policy}/");
    let own = |(key, value): (String, String)| {
        let is_given = given.iter().any(|placement| placement.labels.get(&key) == Some(&value));
        if is_given || key.starts_with(&prefix) {
            return (key, value);
        }
        (format!("{prefix}{key}"), value)
    };
    labels.into_iter().map(own).collect()
}

/// A step that is being made.
struct Open(Step);

impl Open {
    fn new(member: &Member<'_>) -> Self {
        Self(Step {
            policy: member.name.to_owned(),
            sha256: member.policy.sha256.clone(),
            kind: member.loaded.linked.kind(),
            monitored: member.is_monitored(),
            outcome: String::new(),
            fuel: 0,
            elapsed_us: 0,
            facts_read: Default::default(),
            claims_read: Default::default(),
        })
    }

    /// Books one call.
    fn took<T>(&mut self, ran: Ran<T>, trace: &mut Trace) -> Result<T, BrokenKind> {
        let step = &mut self.0;
        step.fuel = step.fuel.saturating_add(ran.fuel);
        step.elapsed_us = step.elapsed_us.saturating_add(microseconds(ran.elapsed));
        step.facts_read.extend(ran.reads.facts);
        step.claims_read.extend(ran.reads.claims);
        if !step.monitored {
            ran.notices.into_iter().for_each(|notice| tell(trace, notice));
        }
        ran.result
    }

    fn close(mut self, outcome: String, trace: &mut Trace) {
        self.0.outcome = outcome;
        trace.steps.push(self.0);
    }

    /// For placers, mutators and hooks, where `on_error` decides.
    fn broke(
        self,
        name: &str,
        policy: &settings::Policy,
        what: BrokenKind,
        trace: &mut Trace,
    ) -> Result<(), PolicyError> {
        match (policy.mode, policy.on_error) {
            (Mode::Monitor, _) => self.close(format!("failed: {what}"), trace),
            (Mode::Enforce, OnError::Reject) => {
                self.close(format!("failed: {what}"), trace);
                return Err(PolicyError::Broken { policy: name.to_owned(), what });
            }
            (Mode::Enforce, OnError::Abstain) => {
                self.close(format!("failed and was skipped: {what}"), trace);
                tell(trace, format!("policy `{name}` {what}; it was skipped"));
            }
        }
        Ok(())
    }
}

fn tell(trace: &mut Trace, notice: String) {
    if trace.notices.len() < MAX_NOTICES && !trace.notices.contains(&notice) {
        trace.notices.push(notice);
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_labels_in_anothers_name() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(
            own_labels("by-tag", map(&[("team", "a"), ("by-tag/x", "1")]), &[]),
            map(&[("by-tag/team", "a"), ("by-tag/x", "1")])
        );
        let given = Placement {
            cluster: String::new(),
            task_definition: String::new(),
            arch: crate::placement::Arch::Arm64,
            capacity: crate::placement::Capacity::Spot,
            size: crate::placement::size::Size::DEFAULT,
            ephemeral_storage_gib: None,
            role: None,
            labels: map(&[("by-tag/team", "a")]),
            reason: String::new(),
        };
        let kept = map(&[("by-tag/team", "a"), ("side", "b")]);
        assert_eq!(
            own_labels("experiment", kept, std::slice::from_ref(&given)),
            map(&[("by-tag/team", "a"), ("experiment/side", "b")])
        );
        let forged = map(&[("by-tag/team", "b")]);
        assert_eq!(
            own_labels("experiment", forged, &[given]),
            map(&[("experiment/by-tag/team", "b")])
        );
    }
}
