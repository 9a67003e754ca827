//! `policy test --update`: writes what came out into a fixture's `expect`, and leaves the rest of the file as it is.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fixture::{Expectation, ExpectedReads, Verdict};
use super::trial::Observed;

/// Fields of a placement that an expectation names when it named none before.
const USUAL: [&str; 5] = ["cluster", "task_definition", "arch", "capacity", "role"];

/// `expect` with what was observed: as detailed as it was before.
pub fn updated(expect: &Expectation, observed: &Observed) -> Expectation {
    let fields = |names: Vec<&str>, index: usize| {
        let placement = observed.placements.get(index);
        names
            .into_iter()
            .filter_map(|name| {
                let value = placement?.get(name)?;
                // TOML has no null.
                let value = if value.is_null() { Value::from("") } else { value.clone() };
                Some((name.to_owned(), value))
            })
            .collect::<BTreeMap<String, Value>>()
    };
    let named =
        |fields: &BTreeMap<String, Value>| -> Vec<String> { fields.keys().cloned().collect() };
    let is_placed = observed.verdict == Verdict::Place;
    let first = match (&expect.first, &expect.placements) {
        _ if !is_placed => None,
        (Some(first), _) => Some(fields(named(first).iter().map(String::as_str).collect(), 0)),
        (None, Some(_)) => None,
        (None, None) => Some(fields(USUAL.to_vec(), 0)),
    };
    let placements = expect.placements.as_ref().filter(|_| is_placed).map(|placements| {
        let names = placements.first().map_or_else(|| USUAL.map(str::to_owned).to_vec(), named);
        (0..observed.placements.len())
            .map(|index| {
                let names = placements.get(index).map_or_else(|| names.clone(), named);
                fields(names.iter().map(String::as_str).collect(), index)
            })
            .collect()
    });
    let reads = match &expect.reads {
        None if expect.decision.is_some() => None,
        None => Some(ExpectedReads {
            facts: Some(observed.facts.clone()),
            claims: Some(observed.claims.clone()),
        }),
        Some(reads) => Some(ExpectedReads {
            facts: reads.facts.as_ref().map(|_| observed.facts.clone()),
            claims: reads.claims.as_ref().map(|_| observed.claims.clone()),
        }),
    };
    Expectation {
        decision: Some(observed.verdict),
        code: observed.code.clone(),
        max_fuel: expect.max_fuel.map(|_| observed.fuel),
        unchanged_under: expect.unchanged_under.clone(),
        unchanged_fields: expect.unchanged_fields.clone(),
        reads,
        first,
        placements,
    }
}

/// `text` of a TOML fixture with another `expect`.
///
/// # Errors
///
/// Says what of the file cannot be kept.
pub fn toml(text: &str, expect: &Expectation) -> Result<String, String> {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with('[') {
            let header = trimmed.trim_start_matches('[').trim_start();
            inside = header.starts_with("expect]") || header.starts_with("expect.");
        } else if trimmed.starts_with("expect ")
            || trimmed.starts_with("expect.")
            || trimmed.starts_with("expect=")
        {
            return Err("`expect` must be a table of its own, [expect], to be updated".to_owned());
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    let table = BTreeMap::from([("expect", expect)]);
    let written = toml::to_string(&table).map_err(|error| error.to_string())?;
    Ok(format!("{}\n\n{written}", kept.trim_end()))
}

/// `text` of a YAML fixture with another `expect`.
///
/// # Errors
///
/// Says what of the file cannot be kept.
pub fn yaml(text: &str, expect: &Expectation) -> Result<String, String> {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        let is_key =
            line.chars().next().is_some_and(|first| !first.is_whitespace() && first != '#');
        if is_key {
            inside = line.starts_with("expect:");
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    let table = BTreeMap::from([("expect", expect)]);
    let written = serde_yaml_ng::to_string(&table).map_err(|error| error.to_string())?;
    Ok(format!("{}\n{written}", kept.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::authoring::fixture::Fixture;
    use serde_json::json;

    fn observed() -> Observed {
        Observed {
            verdict: Verdict::Place,
            placements: vec![BTreeMap::from([
                ("cluster".to_owned(), json!("ci")),
                ("capacity".to_owned(), json!("spot")),
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

    #[test]
    fn the_rest_of_the_file_stays() {
        let before = "# why\nname = \"x\"\n\n[expect]\ndecision = \"reject\"\nmax_fuel = 7\nunchanged_under = [\"forged-claims\"]\n\n[facts]\ntags = [\"a\"] # one\n";
        let fixture: Fixture = ::toml::from_str(before).unwrap();
        let after = toml(before, &updated(&fixture.expect, &observed())).unwrap();
        assert!(
            after.starts_with("# why\nname = \"x\"\n\n[facts]\ntags = [\"a\"] # one\n\n[expect"),
            "{after}"
        );
        let again: Fixture = ::toml::from_str(&after).unwrap();
        assert_eq!(again.expect, updated(&fixture.expect, &observed()));
        assert_eq!(
            (again.expect.decision, again.expect.max_fuel),
            (Some(Verdict::Place), Some(100))
        );
        assert_eq!(again.expect.unchanged_under.len(), 1);
        assert!(toml("expect = { decision = \"place\" }\n", &again.expect).is_err());
    }

    #[test]
    fn yaml_as_well() {
        let before = "name: x\nexpect:\n  decision: place\n  first: { capacity: on-demand }\n# why\nfacts: { tags: [a] }\n";
        let fixture: Fixture = serde_yaml_ng::from_str(before).unwrap();
        let after = yaml(before, &updated(&fixture.expect, &observed())).unwrap();
        let again: Fixture = serde_yaml_ng::from_str(&after).unwrap();
        assert_eq!(
            again.expect.first.unwrap(),
            BTreeMap::from([("capacity".to_owned(), json!("spot"))])
        );
        assert!(again.facts.tags.contains("a"), "{after}");
        assert_eq!(again.expect.reads, None);
    }
}
