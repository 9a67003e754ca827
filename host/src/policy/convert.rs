//! The interface's records and ours. Nothing from a guest passes without going through here.

use std::collections::BTreeMap;

use super::bindings::{catalog, types};
use super::{BrokenKind, DecidedBy, Refusal};
use crate::placement::bounds::{MAX_LABEL_KEY, MAX_LABEL_VALUE};
use crate::placement::text::one_line;
use crate::placement::{Arch, Candidate, Capacity, Placement};

/// Placements of one answer: far more than a launch would ever try.
pub(super) const MAX_CANDIDATES: usize = 32;
/// Labels of one placement that are looked at; the bounds allow far fewer.
const MAX_GUEST_LABELS: usize = 256;
/// Problems with settings that are told.
const MAX_PROBLEMS: usize = 20;
/// Characters of a refusal's code.
const MAX_CODE: usize = 64;
/// Characters of a refusal's message and of its hint.
const MAX_MESSAGE: usize = 500;

impl From<Arch> for catalog::Arch {
    fn from(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::X8664,
            Arch::Arm64 => Self::Arm64,
        }
    }
}

impl From<catalog::Arch> for Arch {
    fn from(arch: catalog::Arch) -> Self {
        match arch {
            catalog::Arch::X8664 => Self::X86_64,
            catalog::Arch::Arm64 => Self::Arm64,
        }
    }
}

impl From<Capacity> for catalog::Capacity {
    fn from(capacity: Capacity) -> Self {
        match capacity {
            Capacity::OnDemand => Self::OnDemand,
            Capacity::Spot => Self::Spot,
        }
    }
}

impl From<catalog::Capacity> for Capacity {
    fn from(capacity: catalog::Capacity) -> Self {
        match capacity {
            catalog::Capacity::OnDemand => Self::OnDemand,
            catalog::Capacity::Spot => Self::Spot,
        }
    }
}

/// A checked placement for mutators and guards: its size is filled in, unless it is left to the ECS task definition.
pub(super) fn to_guest(placement: &Placement) -> types::Placement {
    let size = Some(placement.size).filter(|size| !size.is_own());
    types::Placement {
        cluster: placement.cluster.clone(),
        task_definition: placement.task_definition.clone(),
        arch: placement.arch.into(),
        capacity: placement.capacity.into(),
        cpu_units: size.map(|size| size.cpu_units),
        memory_mib: size.map(|size| size.memory_mib),
        ephemeral_storage_gib: placement.ephemeral_storage_gib,
        role: placement.role.clone(),
        labels: placement.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        extra: Vec::new(),
        reason: placement.reason.clone(),
    }
}

/// What a guest answered, in shape if not yet in bounds.
///
/// # Errors
///
/// Returns what no policy may answer: nothing at all, far too much, or fields that this driver does not know.
pub(super) fn candidates(answer: Vec<types::Placement>) -> Result<Vec<Candidate>, BrokenKind> {
    if answer.is_empty() {
        return Err(BrokenKind::WrongAnswer("an empty list of placements".to_owned()));
    }
    if answer.len() > MAX_CANDIDATES {
        return Err(BrokenKind::WrongAnswer(format!(
            "{} placements, at most {MAX_CANDIDATES} are allowed",
            answer.len()
        )));
    }
    answer.into_iter().map(candidate).collect()
}

fn candidate(answer: types::Placement) -> Result<Candidate, BrokenKind> {
    if answer.labels.len() > MAX_GUEST_LABELS {
        return Err(BrokenKind::WrongAnswer(format!(
            "a placement with {} labels, at most {MAX_GUEST_LABELS} are looked at",
            answer.labels.len()
        )));
    }
    if let Some((name, _)) = answer.extra.first() {
        return Err(BrokenKind::WrongAnswer(format!(
            "a placement with the field `{}` in `extra`, which this driver does not know",
            one_line(name, MAX_CODE)
        )));
    }
    let mut labels = BTreeMap::new();
    for (key, value) in answer.labels {
        let (key, value) = (one_line(&key, MAX_LABEL_KEY), one_line(&value, MAX_LABEL_VALUE));
        if key.is_empty() {
            continue;
        }
        if labels.contains_key(&key) {
            return Err(BrokenKind::WrongAnswer(format!(
                "a placement with the label `{}` twice",
                one_line(&key, MAX_CODE)
            )));
        }
        labels.insert(key, value);
    }
    Ok(Candidate {
        cluster: answer.cluster,
        task_definition: answer.task_definition,
        arch: answer.arch.into(),
        capacity: answer.capacity.into(),
        cpu_units: answer.cpu_units,
        memory_mib: answer.memory_mib,
        ephemeral_storage_gib: answer.ephemeral_storage_gib,
        role: answer.role,
        labels,
        reason: answer.reason,
    })
}

/// A guest's rejection, fit to be printed.
pub(super) fn refusal(policy: &str, rejection: &types::Rejection) -> Refusal {
    let text_or = |text: String, or: &str| if text.is_empty() { or.to_owned() } else { text };
    Refusal {
        policy: policy.to_owned(),
        code: text_or(one_line(&rejection.code, MAX_CODE), "rejected"),
        message: text_or(one_line(&rejection.message, MAX_MESSAGE), "no reason given"),
        hint: rejection
            .hint
            .as_ref()
            .map(|hint| one_line(hint, MAX_MESSAGE))
            .filter(|hint| !hint.is_empty()),
        decided_by: DecidedBy::Policy,
    }
}

/// What a policy does not like about its settings, as far as anybody would read.
pub(super) fn setting_problems(problems: &[types::SettingProblem]) -> Vec<String> {
    let mut told: Vec<String> = problems.iter().take(MAX_PROBLEMS).map(setting_problem).collect();
    if problems.len() > MAX_PROBLEMS {
        told.push(format!("and {} more", problems.len() - MAX_PROBLEMS));
    }
    told
}

/// `path: message`
fn setting_problem(problem: &types::SettingProblem) -> String {
    let message = one_line(&problem.message, MAX_MESSAGE);
    match one_line(&problem.path, MAX_CODE * 2) {
        path if path.is_empty() => message,
        path => format!("{path}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> types::Placement {
        types::Placement {
            cluster: "dev".to_owned(),
            task_definition: "node".to_owned(),
            arch: catalog::Arch::Arm64,
            capacity: catalog::Capacity::Spot,
            cpu_units: Some(256),
            memory_mib: None,
            ephemeral_storage_gib: Some(30),
            role: Some("deploy".to_owned()),
            labels: vec![("a".to_owned(), "1".to_owned())],
            extra: Vec::new(),
            reason: "because".to_owned(),
        }
    }

    #[test]
    fn an_answer_becomes_candidates() {
        let [candidate] = &candidates(vec![answer()]).unwrap()[..] else { panic!("one") };
        assert_eq!(candidate.cluster, "dev");
        assert_eq!((candidate.arch, candidate.capacity), (Arch::Arm64, Capacity::Spot));
        assert_eq!((candidate.cpu_units, candidate.memory_mib), (Some(256), None));
        assert_eq!(candidate.labels.len(), 1);
    }

    #[test]
    fn wrong_answers_are_named() {
        let extra =
            types::Placement { extra: vec![("gpu\n".to_owned(), "1".to_owned())], ..answer() };
        let twice = types::Placement {
            labels: vec![("a".to_owned(), String::new()), ("a".to_owned(), String::new())],
            ..answer()
        };
        for (answer, message) in [
            (vec![], "gave a wrong answer: an empty list of placements"),
            (vec![answer(); 33], "gave a wrong answer: 33 placements, at most 32 are allowed"),
            (
                vec![extra],
                "gave a wrong answer: a placement with the field `gpu` in `extra`, which this driver does not know",
            ),
            (vec![twice], "gave a wrong answer: a placement with the label `a` twice"),
        ] {
            assert_eq!(candidates(answer).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn refusals_are_fit_to_be_printed() {
        let rejection = types::Rejection {
            code: String::new(),
            message: format!("\u{1b}[31m{}", "x".repeat(1000)),
            hint: Some("\n".to_owned()),
        };
        let refusal = refusal("by-tag", &rejection);
        assert_eq!(refusal.code, "rejected");
        assert_eq!(refusal.message.chars().count(), MAX_MESSAGE);
        assert!(refusal.message.starts_with("[31mxx"));
        assert_eq!(refusal.hint, None);
    }
}
