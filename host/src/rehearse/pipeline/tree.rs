//! The file as a tree: merge keys, `include`, `!reference` and `extends` resolved, nothing typed yet.

use std::path::{Path, PathBuf};

use serde_yaml_ng::{Mapping, Value};

use super::{PipelineError, Problem};

/// GitLab's limits: `!reference` nests 10 deep, `extends` 11, and a pipeline has 150 includes.
const MAX_REFERENCE_DEPTH: usize = 10;
const MAX_EXTENDS_DEPTH: usize = 11;
const MAX_INCLUDES: usize = 150;
/// References to lists of references multiply; a file that is meant stays far below.
const MAX_REFERENCES: usize = 20_000;

type Include<'a> = &'a mut dyn FnMut(&str) -> std::io::Result<String>;

/// The merged document. Mistakes that leave something to go on with are added to `problems`.
pub(super) fn load(
    path: &Path,
    text: &str,
    include: Include<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Mapping, PipelineError> {
    let mut included = 0;
    let document = file(path, text, include, &mut Vec::new(), &mut included, problems)?;
    let document = dereference_all(&document, problems);
    Ok(extend_all(&document, problems))
}

fn file(
    path: &Path,
    text: &str,
    include: Include<'_>,
    chain: &mut Vec<String>,
    included: &mut usize,
    problems: &mut Vec<Problem>,
) -> Result<Mapping, PipelineError> {
    let yaml = |source| PipelineError::Yaml { path: path.to_owned(), source };
    let mut value: Value = serde_yaml_ng::from_str(text).map_err(yaml)?;
    value.apply_merge().map_err(yaml)?;
    let mut own = match value {
        Value::Mapping(mapping) => mapping,
        Value::Null => Mapping::new(),
        _ => {
            problems.push(problem(path.display(), "must be a mapping of keywords and jobs"));
            Mapping::new()
        }
    };
    let Some(includes) = own.remove("include") else { return Ok(own) };
    let mut merged = Mapping::new();
    for local in locals(&includes, problems) {
        if chain.contains(&local) {
            problems.push(problem("include", format!("`{local}` includes itself")));
            continue;
        }
        *included += 1;
        if *included > MAX_INCLUDES {
            problems.push(problem("include", format!("more than {MAX_INCLUDES} files")));
            break;
        }
        let text = include(&local)
            .map_err(|source| PipelineError::Read { path: PathBuf::from(&local), source })?;
        chain.push(local.clone());
        let other = file(Path::new(&local), &text, include, chain, included, problems)?;
        chain.pop();
        merge(&mut merged, other);
    }
    merge(&mut merged, own);
    Ok(merged)
}

/// The `local` files of an `include:`, without the leading slash.
fn locals(includes: &Value, problems: &mut Vec<Problem>) -> Vec<String> {
    let entries = match includes {
        Value::Sequence(entries) => entries.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut found = Vec::new();
    for entry in entries {
        let local = match entry {
            Value::String(local) if !local.contains("://") => local,
            Value::String(_) => {
                problems.push(problem("include", "rehearse does not play remote files"));
                continue;
            }
            Value::Mapping(mapping) => {
                for key in mapping.keys().filter(|key| key.as_str() != Some("local")) {
                    problems.push(problem(
                        "include",
                        format!("rehearse does not play `{}`, only `local`", text_of(key)),
                    ));
                }
                match mapping.get("local") {
                    Some(Value::String(local)) => local,
                    Some(_) => {
                        problems.push(problem("include: local", "must be a path"));
                        continue;
                    }
                    None => continue,
                }
            }
            _ => {
                problems.push(problem("include", "must be a path, a mapping or a list of them"));
                continue;
            }
        };
        let local = local.trim_start_matches("./").trim_start_matches('/');
        if local.contains('*') {
            problems.push(problem("include", "rehearse does not play `*` in paths"));
        } else if Path::new(local)
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            problems.push(problem("include", format!("`{local}` leaves the repository")));
        } else {
            found.push(local.to_owned());
        }
    }
    found
}

/// GitLab's deep merge: mappings are merged, everything else of `over` replaces.
pub(super) fn merge(base: &mut Mapping, over: Mapping) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Mapping(below)), Value::Mapping(above)) => merge(below, above),
            (Some(below), value) => *below = value,
            (None, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn dereference_all(document: &Mapping, problems: &mut Vec<Problem>) -> Mapping {
    let mut left = MAX_REFERENCES;
    let mut resolved = Mapping::new();
    for (key, value) in document {
        let value = dereference(value, document, (0, &mut left), &text_of(key), problems);
        resolved.insert(key.clone(), value);
    }
    // A circle within a list says the same many times.
    problems.dedup();
    resolved
}

fn dereference(
    value: &Value,
    document: &Mapping,
    (depth, left): (usize, &mut usize),
    place: &str,
    problems: &mut Vec<Problem>,
) -> Value {
    match value {
        Value::Tagged(tagged) if tagged.tag == "reference" => {
            match target(&tagged.value, document) {
                Err(message) => problems.push(problem(place, message)),
                Ok(_) if depth >= MAX_REFERENCE_DEPTH => problems.push(problem(
                    place,
                    format!("`!reference` nests deeper than {MAX_REFERENCE_DEPTH}"),
                )),
                Ok(_) if *left == 0 => {}
                Ok(found) => {
                    *left -= 1;
                    if *left == 0 {
                        let message =
                            format!("the file has more than {MAX_REFERENCES} `!reference`s");
                        problems.push(problem(place, message));
                    }
                    return dereference(found, document, (depth + 1, left), place, problems);
                }
            }
            Value::Null
        }
        Value::Tagged(tagged) => {
            problems
                .push(problem(place, format!("rehearse does not play the tag `{}`", tagged.tag)));
            Value::Null
        }
        Value::Sequence(entries) => Value::Sequence(
            entries
                .iter()
                .map(|entry| dereference(entry, document, (depth, &mut *left), place, problems))
                .collect(),
        ),
        Value::Mapping(mapping) => Value::Mapping(
            mapping
                .iter()
                .map(|(key, value)| {
                    let place = format!("{place}: {}", text_of(key));
                    (
                        key.clone(),
                        dereference(value, document, (depth, &mut *left), &place, problems),
                    )
                })
                .collect(),
        ),
        plain => plain.clone(),
    }
}

fn target<'a>(path: &Value, document: &'a Mapping) -> Result<&'a Value, String> {
    let Value::Sequence(keys) = path else {
        return Err("`!reference` wants a list such as `[.job, script]`".to_owned());
    };
    let shown = keys.iter().map(text_of).collect::<Vec<_>>().join(", ");
    let mut keys = keys.iter();
    let mut found = keys
        .next()
        .ok_or_else(|| "`!reference` of an empty list".to_owned())
        .map(|first| document.get(first))?;
    for key in keys {
        found = found.and_then(|value| value.as_mapping()).and_then(|mapping| mapping.get(key));
    }
    found.ok_or_else(|| format!("`!reference [{shown}]` leads nowhere"))
}

fn extend_all(document: &Mapping, problems: &mut Vec<Problem>) -> Mapping {
    let mut extended = Mapping::new();
    for (key, value) in document {
        let name = text_of(key);
        let value = match value {
            // A hidden job is only a source: its own mistakes show where it is used.
            Value::Mapping(job) if job.contains_key("extends") && !name.starts_with('.') => {
                match extend(&name, job, document, &mut vec![name.clone()]) {
                    Ok(job) => Value::Mapping(job),
                    Err(message) => {
                        problems.push(problem(format!("{name}: extends"), message));
                        let mut job = job.clone();
                        job.remove("extends");
                        Value::Mapping(job)
                    }
                }
            }
            other => other.clone(),
        };
        extended.insert(key.clone(), value);
    }
    extended
}

fn extend(
    name: &str,
    job: &Mapping,
    document: &Mapping,
    chain: &mut Vec<String>,
) -> Result<Mapping, String> {
    let mut own = job.clone();
    let bases = match own.remove("extends") {
        None => return Ok(own),
        Some(Value::String(base)) => vec![base],
        Some(Value::Sequence(bases)) => bases
            .iter()
            .map(|base| base.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("`{name}` must name jobs"))?,
        Some(_) => return Err(format!("`{name}` must name a job or a list of jobs")),
    };
    let mut merged = Mapping::new();
    for base in bases {
        if chain.contains(&base) {
            return Err(format!("`{name}` extends `{base}`, which extends it again"));
        }
        if chain.len() > MAX_EXTENDS_DEPTH {
            return Err(format!("nests deeper than {MAX_EXTENDS_DEPTH}"));
        }
        let Some(Value::Mapping(found)) = document.get(base.as_str()) else {
            return Err(format!("`{name}` extends `{base}`, which is no job of this file"));
        };
        chain.push(base.clone());
        let found = extend(&base, found, document, chain)?;
        chain.pop();
        merge(&mut merged, found);
    }
    merge(&mut merged, own);
    Ok(merged)
}

/// A key or scalar as a person reads it.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => "null".to_owned(),
        Value::Sequence(_) => "[…]".to_owned(),
        Value::Mapping(_) => "{…}".to_owned(),
        Value::Tagged(tagged) => tagged.tag.to_string(),
    }
}

pub(super) fn problem(place: impl ToString, message: impl Into<String>) -> Problem {
    Problem { place: place.to_string(), message: message.into() }
}
