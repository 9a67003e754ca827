//! One fixture on the real component, and what differs from what it expects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{Asked, Expectation, Fixture, Variant, Verdict};
use super::{AuthoringError, listed, name_of, policy_of, variants};
use crate::placement::Placement;
use crate::policy::{self, Kind, PolicyError, Store, Trace};
use crate::settings::{self, ClaimsTaint};

/// The fields of a placement, as fixtures spell them.
pub const FIELDS: [&str; 10] = [
    "cluster",
    "task_definition",
    "arch",
    "capacity",
    "cpu_units",
    "memory_mib",
    "ephemeral_storage_gib",
    "role",
    "labels",
    "reason",
];

/// What a policy answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// In a fixture's words.
    pub verdict: Verdict,
    /// Best first, each by its fields; empty unless the verdict is [`Verdict::Place`].
    pub placements: Vec<BTreeMap<String, Value>>,
    /// Of a rejection.
    pub code: Option<String>,
    /// Of a rejection: why.
    pub message: Option<String>,
    /// What it read.
    pub facts: BTreeSet<String>,
    /// What it read.
    pub claims: BTreeSet<String>,
    /// Of all calls.
    pub fuel: u64,
    /// Microseconds of all calls.
    pub elapsed_us: u64,
}

/// A fixture that was played.
#[derive(Debug)]
pub struct Played {
    /// Of the fixture.
    pub name: String,
    /// `None` when the policy broke its contract.
    pub observed: Option<Observed>,
    /// One line for each difference; empty is a pass.
    pub differences: Vec<String>,
    /// How many variants were played.
    pub variants: usize,
}

/// A component that fixtures are played on.
#[derive(Debug)]
pub struct Bench<'a> {
    name: String,
    policy: settings::Policy,
    store: &'a Store,
}

impl<'a> Bench<'a> {
    /// The component in the file `component`, as it is now; `store` compiles it.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read.
    pub fn new(component: &Path, store: &'a Store) -> Result<Self, AuthoringError> {
        // Read and hashed once: engines of scripting languages have 18 MB.
        let policy = policy_of(component, Value::Null)?;
        Ok(Self::pinned(component, policy, store))
    }

    /// The same for a component whose digest is known.
    pub fn pinned(component: &Path, policy: settings::Policy, store: &'a Store) -> Self {
        Self { name: name_of(component), policy, store }
    }

    /// Plays `fixture` and its variants.
    ///
    /// # Errors
    ///
    /// Fails when the component cannot be loaded, or does not like the fixture's settings. A component that breaks
    /// its contract while it decides has failed the fixture, which is no error.
    pub fn play(&self, fixture: &Fixture) -> Result<Played, AuthoringError> {
        let mut played = Played {
            name: fixture.name.clone(),
            observed: None,
            differences: Vec::new(),
            variants: 0,
        };
        let observed = match self.ask(fixture, &fixture.asked())? {
            Ok(observed) => observed,
            Err(broken) => {
                played.differences.push(broken);
                return Ok(played);
            }
        };
        played.differences = differences(&fixture.expect, &observed);
        for &variant in &fixture.expect.unchanged_under {
            self.vary(fixture, variant, &observed, &mut played)?;
        }
        played.observed = Some(observed);
        Ok(played)
    }

    fn vary(
        &self,
        fixture: &Fixture,
        variant: Variant,
        observed: &Observed,
        played: &mut Played,
    ) -> Result<(), AuthoringError> {
        let fields = compared(&fixture.expect);
        let varied = variants::of(fixture, variant, observed);
        let mut base = observed.clone();
        if let Some(asked) = &varied.base {
            match self.ask(fixture, asked)? {
                Ok(observed) => base = observed,
                Err(broken) => {
                    played.differences.push(format!("{}: {broken}", variant.word()));
                    return Ok(());
                }
            }
        }
        for (what, asked) in &varied.asked {
            played.variants += 1;
            let told = match self.ask(fixture, asked)? {
                Ok(now) => changes(&base, &now, &fields),
                Err(broken) => vec![broken],
            };
            if told.is_empty() {
                continue;
            }
            let told = told.join("; ");
            played.differences.push(format!("{} ({what}): {told}", variant.word()));
            // One is enough to see what it hangs on; the others mostly say the same.
            break;
        }
        Ok(())
    }

    /// The answer, or how the policy broke its contract.
    fn ask(
        &self,
        fixture: &Fixture,
        asked: &Asked,
    ) -> Result<Result<Observed, String>, AuthoringError> {
        let policy = settings::Policy { settings: fixture.settings.clone(), ..self.policy.clone() };
        let question = asked.question(ClaimsTaint::Allow);
        let kind = self.store.describe(&self.name, &policy)?.kind;
        let given = match kind {
            Kind::Placer => None,
            Kind::Mutator | Kind::Guard => Some(given(fixture, asked)?),
        };
        let mut trace = Trace::default();
        let chain = [(self.name.as_str(), &policy)];
        let decided = policy::decide_given(&question, &chain, self.store, given, &mut trace);
        let mut observed = Observed {
            verdict: Verdict::Abstain,
            placements: Vec::new(),
            code: None,
            message: None,
            facts: trace.steps.iter().flat_map(|step| step.facts_read.clone()).collect(),
            claims: trace.steps.iter().flat_map(|step| step.claims_read.clone()).collect(),
            fuel: trace.steps.iter().map(|step| step.fuel).sum(),
            elapsed_us: trace.steps.iter().map(|step| step.elapsed_us).sum(),
        };
        match decided {
            Ok(placements) => {
                observed.verdict = Verdict::Place;
                observed.placements = placements.iter().map(fields).collect();
            }
            Err(PolicyError::NobodyAnswered { .. }) => {}
            Err(PolicyError::Rejected { reasons }) => {
                observed.verdict = Verdict::Reject;
                observed.code = reasons.first().map(|reason| reason.code.clone());
                let reasons: Vec<String> =
                    reasons.iter().map(|reason| reason.message.clone()).collect();
                observed.message = Some(reasons.join("; "));
            }
            Err(error @ PolicyError::Broken { .. }) => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
        }
        Ok(Ok(observed))
    }
}

fn given(fixture: &Fixture, asked: &Asked) -> Result<Vec<Placement>, AuthoringError> {
    let unusable =
        |what: String| AuthoringError::Unusable(format!("fixture `{}`: {what}", fixture.name));
    let candidates = fixture.candidates();
    if candidates.is_empty() {
        return Err(unusable("a mutator or a guard needs `candidates`".to_owned()));
    }
    (1..)
        .zip(&candidates)
        .map(|(number, candidate)| {
            asked.bounds.check(candidate, &asked.catalog).map_err(|violations| {
                let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
                unusable(format!("candidate {number}: {}", told.join("; ")))
            })
        })
        .collect()
}

/// A placement by its fields.
pub fn fields(placement: &Placement) -> BTreeMap<String, Value> {
    let values = [
        json!(placement.cluster),
        json!(placement.task_definition),
        json!(placement.arch),
        json!(placement.capacity),
        json!(placement.size.cpu_units),
        json!(placement.size.memory_mib),
        json!(placement.ephemeral_storage_gib),
        json!(placement.role),
        json!(placement.labels),
        json!(placement.reason),
    ];
    FIELDS.iter().map(|&name| name.to_owned()).zip(values).collect()
}

/// The fields that variants must not change.
fn compared(expect: &Expectation) -> Vec<&str> {
    if expect.unchanged_fields.is_empty() {
        return FIELDS.into_iter().filter(|field| !matches!(*field, "labels" | "reason")).collect();
    }
    expect.unchanged_fields.iter().map(String::as_str).collect()
}

/// What `observed` has that `expect` does not want.
fn differences(expect: &Expectation, observed: &Observed) -> Vec<String> {
    let mut told = Vec::new();
    match expect.decision {
        None => told.push(
            "expects nothing: give `expect.decision`, or let `policy test --update` write it"
                .to_owned(),
        ),
        Some(expected) if expected != observed.verdict => {
            let because = match (&observed.code, &observed.message) {
                (Some(code), Some(message)) => format!(" ({code}: {message})"),
                _ => String::new(),
            };
            told.push(format!(
                "decision: expected {}, got {}{because}",
                expected.word(),
                observed.verdict.word()
            ));
            return told;
        }
        Some(_) => {}
    }
    if let Some(code) = &expect.code
        && observed.code.as_ref() != Some(code)
    {
        let got = observed.code.as_deref().unwrap_or("none");
        told.push(format!("code: expected {code}, got {got}"));
    }
    if let Some(first) = &expect.first {
        match observed.placements.first() {
            Some(placement) => different_fields("first", first, placement, &mut told),
            None => told.push("first: expected a placement, got none".to_owned()),
        }
    }
    if let Some(placements) = &expect.placements {
        if placements.len() != observed.placements.len() {
            told.push(format!(
                "placements: expected {}, got {}",
                placements.len(),
                observed.placements.len()
            ));
        }
        for (index, (expected, got)) in placements.iter().zip(&observed.placements).enumerate() {
            different_fields(&format!("placements[{index}]"), expected, got, &mut told);
        }
    }
    if let Some(reads) = &expect.reads {
        for (what, expected, got) in
            [("facts", &reads.facts, &observed.facts), ("claims", &reads.claims, &observed.claims)]
        {
            if let Some(expected) = expected.as_ref().filter(|expected| *expected != got) {
                told.push(format!(
                    "reads.{what}: expected {}, got {}",
                    listed(expected),
                    listed(got)
                ));
            }
        }
    }
    if let Some(most) = expect.max_fuel.filter(|&most| observed.fuel > most) {
        told.push(format!("max_fuel: expected at most {most}, got {}", observed.fuel));
    }
    for field in &expect.unchanged_fields {
        if !FIELDS.contains(&field.as_str()) {
            told.push(format!(
                "unchanged_fields: `{field}` is no field; there are {}",
                FIELDS.join(", ")
            ));
        }
    }
    told
}

fn different_fields(
    place: &str,
    expected: &BTreeMap<String, Value>,
    got: &BTreeMap<String, Value>,
    told: &mut Vec<String>,
) {
    for (field, expected) in expected {
        match got.get(field) {
            None => told
                .push(format!("{place}.{field}: no such field; there are {}", FIELDS.join(", "))),
            Some(got) if !same(expected, got) => {
                told.push(format!(
                    "{place}.{field}: expected {}, got {}",
                    shown(expected),
                    shown(got)
                ));
            }
            Some(_) => {}
        }
    }
}

/// TOML has no null: an empty text stands for what is not there.
fn same(expected: &Value, got: &Value) -> bool {
    expected == got || (got.is_null() && expected.as_str() == Some(""))
}

fn shown(value: &Value) -> String {
    if value.is_null() { "none".to_owned() } else { value.to_string() }
}

/// What a variant changed.
fn changes(base: &Observed, now: &Observed, fields: &[&str]) -> Vec<String> {
    if (base.verdict, &base.code) != (now.verdict, &now.code) {
        let word = |observed: &Observed| match &observed.code {
            Some(code) => format!("{} ({code})", observed.verdict.word()),
            None => observed.verdict.word().to_owned(),
        };
        return vec![format!("decision: {} becomes {}", word(base), word(now))];
    }
    if base.placements.len() != now.placements.len() {
        let (before, after) = (base.placements.len(), now.placements.len());
        return vec![format!("{before} placements become {after}")];
    }
    let mut told = Vec::new();
    for (index, (before, after)) in base.placements.iter().zip(&now.placements).enumerate() {
        for &field in fields {
            let null = Value::Null;
            let (before, after) =
                (before.get(field).unwrap_or(&null), after.get(field).unwrap_or(&null));
            if before != after {
                let (before, after) = (shown(before), shown(after));
                told.push(format!("placements[{index}].{field}: {before} becomes {after}"));
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed {
            verdict: Verdict::Place,
            placements: vec![BTreeMap::from([
                ("cluster".to_owned(), json!("ci")),
                ("role".to_owned(), Value::Null),
            ])],
            code: None,
            message: None,
            facts: BTreeSet::from(["ref".to_owned()]),
            claims: BTreeSet::new(),
            fuel: 100,
            elapsed_us: 1,
        }
    }

    fn told(expect: Value) -> Vec<String> {
        differences(&serde_json::from_value(expect).unwrap(), &observed())
    }

    #[test]
    fn differences_name_the_field_and_both_values() {
        assert_eq!(
            told(
                json!({"decision": "place", "first": {"cluster": "ci", "role": ""}, "max_fuel": 100,
                        "reads": {"facts": ["ref"], "claims": []}})
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            told(json!({"decision": "place", "first": {"cluster": "x", "size": 1}, "max_fuel": 99,
                        "placements": [{}, {}], "reads": {"claims": ["image"]}, "unchanged_fields": ["rôle"]})),
            [
                "first.cluster: expected \"x\", got \"ci\"",
                "first.size: no such field; there are cluster, task_definition, arch, capacity, cpu_units, \
                 memory_mib, ephemeral_storage_gib, role, labels, reason",
                "placements: expected 2, got 1",
                "reads.claims: expected image, got none",
                "max_fuel: expected at most 99, got 100",
                "unchanged_fields: `rôle` is no field; there are cluster, task_definition, arch, capacity, \
                 cpu_units, memory_mib, ephemeral_storage_gib, role, labels, reason",
            ]
        );
        assert_eq!(told(json!({"decision": "reject"})), ["decision: expected reject, got place"]);
        assert_eq!(told(json!({})).len(), 1);
    }

    #[test]
    fn changes_look_at_the_named_fields() {
        let mut now = observed();
        now.placements[0].insert("role".to_owned(), json!("deploy"));
        assert_eq!(changes(&observed(), &now, &["cluster"]), Vec::<String>::new());
        assert_eq!(
            changes(&observed(), &now, &["cluster", "role"]),
            ["placements[0].role: none becomes \"deploy\""]
        );
        now.verdict = Verdict::Reject;
        now.code = Some("no".to_owned());
        assert_eq!(changes(&observed(), &now, &[]), ["decision: place becomes reject (no)"]);
    }
}
