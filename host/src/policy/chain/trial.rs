//! One policy by itself, as an installation asks it to see that it runs.

use std::sync::Arc;

use super::{Chain, Member};
use crate::placement::Placement;
use crate::policy::inputs::Inputs;
use crate::policy::{
    BrokenKind, EarlierFailure, FailureKind, Kind, PolicyError, Question, Step, Store, Trace,
};
use crate::settings::{self, Mode, OnError};

/// Asks `policy` alone: whatever its contract allows it to answer is fine. Mutators and guards are asked about
/// `candidate`. The hook `recovery` is asked as well, as if Spot had taken `candidate`: it would be a bad moment to
/// learn that it does not run when something was lost.
///
/// # Errors
///
/// Returns how it broke its contract, or that it cannot be loaded.
pub fn try_out(
    question: &Question<'_>,
    name: &str,
    policy: &settings::Policy,
    candidate: &Placement,
    store: &Store,
) -> Result<Step, PolicyError> {
    let policy =
        settings::Policy { mode: Mode::Enforce, on_error: OnError::Reject, ..policy.clone() };
    let loaded = store.load(name, &policy)?;
    let (kind, recovers) = (loaded.linked.kind(), loaded.linked.recovery.is_some());
    let mut trace = Trace::default();
    let mut ask = |question: &Question<'_>, recovery: bool| {
        let mut chain = Chain {
            question,
            members: vec![Member { name, policy: &policy, loaded: Arc::clone(&loaded) }],
            default: None,
            store,
            inputs: Arc::new(Inputs::new(question, loaded.imports_claims)),
            trace: &mut trace,
            reasons: Vec::new(),
        };
        let answer = match kind {
            _ if recovery => chain.recover().map(drop),
            Kind::Placer => chain.place().map(drop),
            Kind::Mutator => chain.mutate(vec![candidate.clone()]).map(drop),
            Kind::Guard => chain.guard(vec![candidate.clone()]).map(drop),
        };
        match answer {
            Ok(()) | Err(PolicyError::Rejected { .. } | PolicyError::NobodyAnswered { .. }) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    };
    ask(question, false)?;
    if recovers {
        let lost = [EarlierFailure {
            attempt: 1,
            kind: FailureKind::SpotInterruption,
            detail: "none: this is a trial".to_owned(),
            placement: Some(candidate.clone()),
        }];
        ask(&Question { attempt: 2, earlier_failures: &lost, ..*question }, true)?;
    }
    let first = trace.steps.into_iter().next();
    first.ok_or_else(|| PolicyError::Broken {
        policy: name.to_owned(),
        what: BrokenKind::WrongAnswer("it was not asked".to_owned()),
    })
}
