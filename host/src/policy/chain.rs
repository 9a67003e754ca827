//! The chain: placers until one answers, then mutators, then guards on each candidate.
//!
//! After each step the host checks what came of it; what the bounds do not allow is dropped and told.

use std::sync::Arc;
use std::time::Duration;

use super::bindings::types;
use super::call::{self, Caller, Linked, Ran};
use super::inputs::Inputs;
use super::store::{Loaded, Store};
use super::{BrokenKind, Decision, Kind, PolicyError, Question, Refusal, Step, Trace, convert};
use crate::placement::Placement;
use crate::settings::{self, ClaimsTaint, OnError};

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
    let members = chain
        .iter()
        .map(|&(name, policy)| Ok(Member { name, policy, loaded: store.load(name, policy)? }))
        .collect::<Result<Vec<_>, PolicyError>>()?;
    let claims = members.iter().any(|member| member.loaded.imports_claims);
    let inputs = Arc::new(Inputs::new(question, claims));
    let chain = Chain { question, members, store, inputs };
    let (placer, placements) = match given {
        Some(given) => ("", given),
        None => chain.place(trace)?,
    };
    let placements = chain.mutate(placements, trace)?;
    let placements = chain.guard(placements, trace)?;
    chain.taint(placer, placements, trace)
}

struct Member<'a> {
    name: &'a str,
    policy: &'a settings::Policy,
    loaded: Arc<Loaded>,
}

struct Chain<'a> {
    question: &'a Question<'a>,
    members: Vec<Member<'a>>,
    store: &'a Store,
    inputs: Arc<Inputs>,
}

impl<'a> Chain<'a> {
    fn place(&self, trace: &mut Trace) -> Result<(&'a str, Vec<Placement>), PolicyError> {
        let mut asked = Vec::new();
        for member in &self.members {
            let Linked::Placer(pre) = &member.loaded.linked else { continue };
            asked.push(member.name.to_owned());
            let mut step = Open::new(member);
            let ran = call::place(pre, &self.store.runtime, &self.caller(member));
            let answer = step.took(ran, trace);
            match answer.and_then(|decision| self.decided(member, decision)) {
                Ok(Answer::Placements(checked)) => {
                    step.close(checked.outcome(), trace);
                    return Ok((member.name, checked.or_rejected()?));
                }
                Ok(Answer::Abstained) => step.close("abstained".to_owned(), trace),
                Ok(Answer::Rejected(refusal)) => {
                    step.close(format!("rejected: {}", refusal.message), trace);
                    return Err(PolicyError::Rejected { reasons: vec![refusal] });
                }
                Err(what) => step.broke(member, what, trace)?,
            }
        }
        Err(PolicyError::NobodyAnswered { profile: self.question.profile.to_owned(), asked })
    }

    fn mutate(
        &self,
        mut placements: Vec<Placement>,
        trace: &mut Trace,
    ) -> Result<Vec<Placement>, PolicyError> {
        for member in &self.members {
            let Linked::Mutator(pre) = &member.loaded.linked else { continue };
            let candidates: Vec<_> = placements.iter().map(convert::to_guest).collect();
            let mut step = Open::new(member);
            let ran = call::mutate(pre, &self.store.runtime, &self.caller(member), &candidates);
            let answer = step.took(ran, trace).and_then(|answer| match answer {
                Ok(candidates) => Ok(Ok(self.checked(member, candidates)?)),
                Err(rejection) => Ok(Err(convert::refusal(member.name, &rejection))),
            });
            match answer {
                Ok(Ok(checked)) => {
                    step.close(checked.outcome(), trace);
                    placements = checked.or_rejected()?;
                }
                Ok(Err(refusal)) => {
                    step.close(format!("rejected: {}", refusal.message), trace);
                    return Err(PolicyError::Rejected { reasons: vec![refusal] });
                }
                Err(what) => step.broke(member, what, trace)?,
            }
        }
        Ok(placements)
    }

    /// Guards fail closed: one that breaks ends the chain, whatever its `on_error` says.
    fn guard(
        &self,
        mut placements: Vec<Placement>,
        trace: &mut Trace,
    ) -> Result<Vec<Placement>, PolicyError> {
        let mut reasons = Vec::new();
        for member in &self.members {
            let Linked::Guard(pre) = &member.loaded.linked else { continue };
            let mut step = Open::new(member);
            let asked = placements.len();
            let mut accepted = Vec::with_capacity(asked);
            for placement in placements {
                let candidate = convert::to_guest(&placement);
                let ran = call::check(pre, &self.store.runtime, &self.caller(member), &candidate);
                match step.took(ran, trace) {
                    Ok(Ok(())) => accepted.push(placement),
                    Ok(Err(rejection)) => {
                        let refusal = convert::refusal(member.name, &rejection);
                        // The same "no" to each candidate is told once.
                        if !reasons.contains(&refusal) {
                            reasons.push(refusal);
                        }
                    }
                    Err(what) => {
                        step.close(format!("failed: {what}"), trace);
                        return Err(PolicyError::Broken { policy: member.name.to_owned(), what });
                    }
                }
            }
            step.close(format!("accepted {} of {asked}", accepted.len()), trace);
            if accepted.is_empty() {
                return Err(PolicyError::Rejected { reasons });
            }
            placements = accepted;
        }
        Ok(placements)
    }

    /// A privileged role needs a chain that no author of a pipeline could have talked into it.
    fn taint(
        &self,
        placer: &str,
        placements: Vec<Placement>,
        trace: &Trace,
    ) -> Result<Vec<Placement>, PolicyError> {
        if self.question.claims_taint == ClaimsTaint::Allow {
            return Ok(placements);
        }
        let Some(reader) = trace.steps.iter().find(|step| !step.claims_read.is_empty()) else {
            return Ok(placements);
        };
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
        Err(PolicyError::Rejected {
            reasons: vec![Refusal {
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
            }],
        })
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
                Answer::Placements(self.checked(member, candidates)?)
            }
            types::Decision::Abstain => Answer::Abstained,
            types::Decision::Reject(rejection) => {
                Answer::Rejected(convert::refusal(member.name, &rejection))
            }
        })
    }

    fn checked(
        &self,
        member: &Member<'_>,
        answer: Vec<types::Placement>,
    ) -> Result<Checked, BrokenKind> {
        let mut checked = Checked { placements: Vec::new(), refused: Vec::new() };
        for candidate in convert::candidates(answer)? {
            match self.question.bounds.check(&candidate, self.question.catalog) {
                Ok(placement) => checked.placements.push(placement),
                Err(violations) => {
                    let messages: Vec<String> =
                        violations.iter().map(ToString::to_string).collect();
                    let refusal = Refusal {
                        policy: member.name.to_owned(),
                        code: "out-of-bounds".to_owned(),
                        message: messages.join("; "),
                        hint: None,
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

    fn or_rejected(self) -> Result<Vec<Placement>, PolicyError> {
        if self.placements.is_empty() {
            return Err(PolicyError::Rejected { reasons: self.refused });
        }
        Ok(self.placements)
    }
}

/// A step that is being made.
struct Open(Step);

impl Open {
    fn new(member: &Member<'_>) -> Self {
        Self(Step {
            policy: member.name.to_owned(),
            sha256: member.policy.sha256.clone(),
            kind: member.loaded.linked.kind(),
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
        for notice in ran.notices {
            tell(trace, notice);
        }
        ran.result
    }

    fn close(mut self, outcome: String, trace: &mut Trace) {
        self.0.outcome = outcome;
        trace.steps.push(self.0);
    }

    /// For placers and mutators, where `on_error` decides.
    fn broke(
        self,
        member: &Member<'_>,
        what: BrokenKind,
        trace: &mut Trace,
    ) -> Result<(), PolicyError> {
        debug_assert_ne!(self.0.kind, Kind::Guard);
        match member.policy.on_error {
            OnError::Reject => {
                self.close(format!("failed: {what}"), trace);
                Err(PolicyError::Broken { policy: member.name.to_owned(), what })
            }
            OnError::Abstain => {
                self.close(format!("failed and was skipped: {what}"), trace);
                tell(trace, format!("policy `{}` {what}; it was skipped", member.name));
                Ok(())
            }
        }
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
