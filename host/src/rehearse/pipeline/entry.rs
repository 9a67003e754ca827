//! From the merged tree to typed jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_yaml_ng::{Mapping, Value};

use super::keys::{self, Keys};
use super::tree::{problem, text_of};
use super::unfold::{Folded, unfold};
use super::{
    AllowFailure, Artifacts, ArtifactsWhen, Image, Job, Pipeline, Problem, Retry, Variable, When,
};

/// GitLab flattens nested script lists up to this depth.
const MAX_SCRIPT_DEPTH: usize = 10;
/// GitLab's own upper limit of `parallel`.
const MAX_PARALLEL: u64 = 200;

/// GitLab's own upper limit of `timeout`: a month.
const MAX_TIMEOUT: Duration = Duration::from_secs(31 * 24 * 3600);

/// `retry:when` of GitLab's reference.
const RETRY_REASONS: [&str; 16] = [
    "always",
    "unknown_failure",
    "script_failure",
    "api_failure",
    "stuck_or_timeout_failure",
    "runner_system_failure",
    "runner_unsupported",
    "stale_schedule",
    "job_execution_timeout",
    "archived_failure",
    "unmet_prerequisites",
    "scheduler_failure",
    "data_integrity_failure",
    "runner_provisioning_timeout",
    "runner_configuration_error",
    "image_pull_failure",
];

/// `None` only when `problems` say why.
pub(super) fn pipeline(document: &Mapping, problems: &mut Vec<Problem>) -> Option<Pipeline> {
    let empty = Mapping::new();
    let defaults = match document.get("default") {
        None | Some(Value::Null) => &empty,
        Some(Value::Mapping(defaults)) => {
            keys::DEFAULT.check(defaults, "default", problems);
            defaults
        }
        Some(_) => {
            problems.push(problem("default", "must be a mapping"));
            &empty
        }
    };
    let mut reader = Reader { document, defaults, problems };
    let stages = reader.stages();
    let globals = reader.variables(document.get("variables"), "variables");

    let mut jobs = Vec::new();
    for (key, value) in document {
        let name = text_of(key);
        if keys::GLOBAL.played.contains(&name.as_str()) || name.starts_with('.') {
            continue;
        }
        if keys::GLOBAL.unplayed.contains(&name.as_str()) {
            reader.problems.push(problem(&name, format!("rehearse does not play `{name}`")));
            continue;
        }
        match value {
            Value::Mapping(job) => jobs.push(reader.job(&name, job, &stages, &globals)),
            _ => {
                let meant = match keys::GLOBAL.meant(&name) {
                    none if none.is_empty() => keys::JOB.meant(&name),
                    meant => meant,
                };
                reader.problems.push(problem(
                    &name,
                    format!("is neither a keyword nor a job (a mapping with `script`){meant}"),
                ));
            }
        }
    }
    if jobs.is_empty() && reader.problems.is_empty() {
        reader.problems.push(problem("jobs", "the file has no job that is not hidden"));
    }
    let jobs = unfold(jobs, &stages, reader.problems);
    reader.problems.is_empty().then_some(Pipeline { stages, jobs })
}

struct Reader<'a> {
    document: &'a Mapping,
    defaults: &'a Mapping,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn wrong(&mut self, place: &str, message: impl Into<String>) {
        self.problems.push(problem(place, message));
    }

    fn stages(&mut self) -> Vec<String> {
        let named = match self.document.get("stages") {
            None => ["build", "test", "deploy"].map(str::to_owned).to_vec(),
            Some(value) => self.strings(value, "stages"),
        };
        let middle = named.into_iter().filter(|stage| stage != ".pre" && stage != ".post");
        let mut stages = vec![".pre".to_owned()];
        stages.extend(middle);
        stages.push(".post".to_owned());
        stages
    }

    /// The job's own value, else that of `default:`, else the deprecated global one.
    fn inherited(&self, job: &'a Mapping, key: &str) -> Option<&'a Value> {
        job.get(key).or_else(|| self.defaults.get(key)).or_else(|| {
            ["image", "services", "before_script", "after_script"]
                .contains(&key)
                .then(|| self.document.get(key))
                .flatten()
        })
    }

    fn job(
        &mut self,
        name: &str,
        job: &'a Mapping,
        stages: &[String],
        globals: &[Variable],
    ) -> Folded {
        keys::JOB.check(job, name, self.problems);
        let at = |key: &str| format!("{name}: {key}");

        let stage = match job.get("stage") {
            None => "test".to_owned(),
            Some(value) => self.string(value, &at("stage")).unwrap_or_default(),
        };
        if !stages.contains(&stage) {
            let known = stages.iter().map(|stage| format!("`{stage}`")).collect::<Vec<_>>();
            self.wrong(&at("stage"), format!("`{stage}` is not in `stages`: {}", known.join(", ")));
        }

        let mut script = self
            .inherited(job, "before_script")
            .map_or_else(Vec::new, |value| self.script(value, &at("before_script")));
        match job.get("script") {
            Some(value) => {
                let lines = self.script(value, &at("script"));
                if lines.is_empty() {
                    self.wrong(&at("script"), "must not be empty");
                }
                script.extend(lines);
            }
            None if keys::JOB
                .unplayed
                .iter()
                .any(|key| matches!(*key, "trigger" | "run") && job.contains_key(*key)) => {}
            None => self.wrong(name, "has no `script`"),
        }
        let after_script = self
            .inherited(job, "after_script")
            .map_or_else(Vec::new, |value| self.script(value, &at("after_script")));

        let mut variables = globals.to_vec();
        for own in self.variables(job.get("variables"), &at("variables")) {
            match variables.iter_mut().find(|variable| variable.key == own.key) {
                Some(variable) => *variable = own,
                None => variables.push(own),
            }
        }

        let when = self.when(job.get("when"), &at("when"));
        let allow_failure = match job.get("allow_failure") {
            // A manual job that says nothing does not hold up the pipeline.
            None if when == When::Manual => AllowFailure::Yes,
            value => self.allow_failure(value, &at("allow_failure")),
        };
        Folded {
            parallel: self.parallel(job.get("parallel"), &at("parallel")),
            needs: job.get("needs").map(|value| self.needs(value, &at("needs"))),
            job: Job {
                name: name.to_owned(),
                stage,
                tags: self
                    .inherited(job, "tags")
                    .map_or_else(Vec::new, |value| self.strings(value, &at("tags"))),
                image: self
                    .inherited(job, "image")
                    .and_then(|value| self.image(value, &at("image"), &keys::IMAGE)),
                services: self
                    .inherited(job, "services")
                    .map_or_else(Vec::new, |value| self.services(value, &at("services"))),
                variables,
                script,
                after_script,
                needs: None,
                dependencies: job
                    .get("dependencies")
                    .map(|value| self.strings(value, &at("dependencies"))),
                artifacts: self
                    .inherited(job, "artifacts")
                    .and_then(|value| self.artifacts(value, &at("artifacts"))),
                when,
                allow_failure,
                retry: self
                    .inherited(job, "retry")
                    .map_or_else(Retry::default, |value| self.retry(value, &at("retry"))),
                timeout: self
                    .inherited(job, "timeout")
                    .and_then(|value| self.duration(value, &at("timeout"))),
                node: None,
            },
        }
    }

    fn mapping(&mut self, value: &'a Value, place: &str, keys: &Keys) -> Option<&'a Mapping> {
        match value {
            Value::Mapping(mapping) => {
                keys.check(mapping, place, self.problems);
                Some(mapping)
            }
            _ => {
                self.wrong(place, "must be a mapping");
                None
            }
        }
    }

    fn string(&mut self, value: &Value, place: &str) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                self.wrong(place, format!("must be a text, not `{}`", text_of(value)));
                None
            }
        }
    }

    /// A list of texts, or one text. Nested lists come from `!reference` and are flattened.
    fn strings(&mut self, value: &Value, place: &str) -> Vec<String> {
        match value {
            Value::Null => Vec::new(),
            Value::Sequence(entries) => {
                entries.iter().flat_map(|entry| self.strings(entry, place)).collect()
            }
            one => self.string(one, place).into_iter().collect(),
        }
    }

    fn script(&mut self, value: &Value, place: &str) -> Vec<String> {
        fn flatten(value: &Value, depth: usize, lines: &mut Vec<String>) -> Result<(), String> {
            match value {
                Value::String(line) => lines.push(line.clone()),
                Value::Null if depth == 0 => {}
                Value::Sequence(_) if depth > MAX_SCRIPT_DEPTH => {
                    return Err(format!("nests deeper than {MAX_SCRIPT_DEPTH} lists"));
                }
                Value::Sequence(entries) => {
                    for entry in entries {
                        flatten(entry, depth + 1, lines)?;
                    }
                }
                other => {
                    // `- echo "a: b"` is a mapping in YAML, the mistake behind most of these.
                    return Err(format!(
                        "must be lines of text, not `{}`; quote a line that holds `: `",
                        text_of(other)
                    ));
                }
            }
            Ok(())
        }
        let mut lines = Vec::new();
        if let Err(message) = flatten(value, 0, &mut lines) {
            self.wrong(place, message);
        }
        lines
    }

    fn variables(&mut self, value: Option<&'a Value>, place: &str) -> Vec<Variable> {
        let mapping = match value {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Mapping(mapping)) => mapping,
            Some(_) => {
                self.wrong(place, "must be a mapping of names and values");
                return Vec::new();
            }
        };
        let mut variables = Vec::new();
        for (key, value) in mapping {
            let key = text_of(key);
            let place = format!("{place}: {key}");
            if !is_shell_name(&key) {
                self.wrong(&place, "is no name for a variable: letters, digits and `_` only");
                continue;
            }
            let (value, raw) = match value {
                Value::Mapping(_) => {
                    let Some(mapping) = self.mapping(value, &place, &keys::VARIABLE) else {
                        continue;
                    };
                    let raw = match mapping.get("expand") {
                        None => false,
                        Some(expand) => !self.truth(expand, &place),
                    };
                    (mapping.get("value").unwrap_or(&Value::Null), raw)
                }
                plain => (plain, false),
            };
            let value = match value {
                // `X:` without anything is an empty variable.
                Value::Null => String::new(),
                Value::Bool(truth) => {
                    self.wrong(&place, format!("must be a text or a number: write \"{truth}\""));
                    continue;
                }
                other => match self.string(other, &place) {
                    Some(value) => value,
                    None => continue,
                },
            };
            variables.push(Variable { key, value, raw });
        }
        variables
    }

    fn image(&mut self, value: &'a Value, place: &str, keys: &Keys) -> Option<Image> {
        if let Value::String(name) = value {
            return Some(Image { name: name.clone(), ..Image::default() });
        }
        let mapping = self.mapping(value, place, keys)?;
        let Some(name) = mapping.get("name") else {
            self.wrong(place, "has no `name`");
            return None;
        };
        Some(Image {
            name: self.string(name, place)?,
            alias: mapping.get("alias").and_then(|alias| self.string(alias, place)),
            entrypoint: mapping.get("entrypoint").map(|value| self.strings(value, place)),
            command: mapping.get("command").map(|value| self.strings(value, place)),
            variables: self.variables(mapping.get("variables"), &format!("{place}: variables")),
            pull_policy: mapping
                .get("pull_policy")
                .map_or_else(Vec::new, |value| self.strings(value, place)),
        })
    }

    fn services(&mut self, value: &'a Value, place: &str) -> Vec<Image> {
        let Value::Sequence(entries) = value else {
            self.wrong(place, "must be a list");
            return Vec::new();
        };
        entries.iter().filter_map(|entry| self.image(entry, place, &keys::SERVICE)).collect()
    }

    fn artifacts(&mut self, value: &'a Value, place: &str) -> Option<Artifacts> {
        let mapping = self.mapping(value, place, &keys::ARTIFACTS)?;
        let mut list = |key: &str| {
            mapping
                .get(key)
                .map_or_else(Vec::new, |value| self.strings(value, &format!("{place}: {key}")))
        };
        let (paths, exclude) = (list("paths"), list("exclude"));
        if paths.is_empty() {
            self.wrong(place, "has no `paths`");
        }
        Some(Artifacts {
            paths,
            exclude,
            name: mapping
                .get("name")
                .and_then(|value| self.string(value, &format!("{place}: name")))
                .unwrap_or_default(),
            expire_in: mapping
                .get("expire_in")
                .and_then(|value| self.string(value, &format!("{place}: expire_in"))),
            when: match mapping.get("when").map(text_of).as_deref() {
                None | Some("on_success") => ArtifactsWhen::OnSuccess,
                Some("on_failure") => ArtifactsWhen::OnFailure,
                Some("always") => ArtifactsWhen::Always,
                Some(other) => {
                    let message =
                        format!("`{other}` is none of `on_success`, `on_failure`, `always`");
                    self.wrong(&format!("{place}: when"), message);
                    ArtifactsWhen::OnSuccess
                }
            },
        })
    }

    fn when(&mut self, value: Option<&Value>, place: &str) -> When {
        match value.map(text_of).as_deref() {
            None | Some("on_success") => When::OnSuccess,
            Some("on_failure") => When::OnFailure,
            Some("always") => When::Always,
            Some("manual") => When::Manual,
            Some("delayed") => When::Delayed,
            Some("never") => When::Never,
            Some(other) => {
                let message = format!(
                    "`{other}` is none of `on_success`, `on_failure`, `always`, `manual`, `delayed`, `never`"
                );
                self.wrong(place, message);
                When::OnSuccess
            }
        }
    }

    fn allow_failure(&mut self, value: Option<&'a Value>, place: &str) -> AllowFailure {
        match value {
            None | Some(Value::Bool(false)) => AllowFailure::No,
            Some(Value::Bool(true)) => AllowFailure::Yes,
            Some(mapping @ Value::Mapping(_)) => {
                let codes = self
                    .mapping(mapping, place, &keys::ALLOW_FAILURE)
                    .and_then(|mapping| mapping.get("exit_codes"))
                    .map(|codes| self.exit_codes(codes, place))
                    .unwrap_or_default();
                AllowFailure::ExitCodes(codes)
            }
            Some(_) => {
                self.wrong(place, "must be true, false or a mapping with `exit_codes`");
                AllowFailure::No
            }
        }
    }

    fn retry(&mut self, value: &'a Value, place: &str) -> Retry {
        if value.is_number() {
            return Retry { max: self.retries(value, place), ..Retry::default() };
        }
        let Some(mapping) = self.mapping(value, place, &keys::RETRY) else {
            return Retry::default();
        };
        let when = mapping.get("when").map_or_else(Vec::new, |value| self.strings(value, place));
        for reason in when.iter().filter(|reason| !RETRY_REASONS.contains(&reason.as_str())) {
            let known = RETRY_REASONS.join("`, `");
            self.wrong(&format!("{place}: when"), format!("`{reason}` is none of `{known}`"));
        }
        Retry {
            max: mapping.get("max").map_or(0, |value| self.retries(value, place)),
            when: when.into_iter().collect(),
            exit_codes: mapping
                .get("exit_codes")
                .map(|value| self.exit_codes(value, place))
                .unwrap_or_default(),
        }
    }

    fn retries(&mut self, value: &Value, place: &str) -> u32 {
        match value.as_u64() {
            Some(0) => 0,
            Some(1) => 1,
            Some(2) => 2,
            _ => {
                self.wrong(place, "must be 0, 1 or 2");
                0
            }
        }
    }

    fn exit_codes(&mut self, value: &Value, place: &str) -> BTreeSet<i32> {
        let entries = match value {
            Value::Sequence(entries) => entries.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut codes = BTreeSet::new();
        for entry in entries {
            match entry.as_i64().and_then(|code| i32::try_from(code).ok()) {
                Some(code) => drop(codes.insert(code)),
                None => self.wrong(&format!("{place}: exit_codes"), "must be whole numbers"),
            }
        }
        codes
    }

    fn parallel(&mut self, value: Option<&'a Value>, place: &str) -> Option<u32> {
        let value = value?;
        if value.is_mapping() {
            self.mapping(value, place, &keys::PARALLEL);
            return None;
        }
        match value.as_u64() {
            Some(count @ 1..=MAX_PARALLEL) => u32::try_from(count).ok(),
            _ => {
                self.wrong(place, format!("must be a number from 1 to {MAX_PARALLEL}"));
                None
            }
        }
    }

    /// Name, artifacts, optional.
    fn needs(&mut self, value: &'a Value, place: &str) -> Vec<(String, bool, bool)> {
        let entries = match value {
            Value::Sequence(entries) => entries,
            _ => {
                self.wrong(place, "must be a list");
                return Vec::new();
            }
        };
        let mut needs = Vec::new();
        for entry in entries {
            match entry {
                Value::String(name) => needs.push((name.clone(), true, false)),
                // From a nested `!reference`.
                Value::Sequence(_) => needs.extend(self.needs(entry, place)),
                _ => {
                    let Some(mapping) = self.mapping(entry, place, &keys::NEED) else { continue };
                    match mapping.get("job") {
                        Some(job) => {
                            let Some(name) = self.string(job, place) else { continue };
                            let artifacts = mapping
                                .get("artifacts")
                                .is_none_or(|value| self.truth(value, place));
                            let optional = mapping
                                .get("optional")
                                .is_some_and(|value| self.truth(value, place));
                            needs.push((name, artifacts, optional));
                        }
                        None if mapping.contains_key("pipeline")
                            || mapping.contains_key("project") => {}
                        None => self.wrong(place, "an entry has no `job`"),
                    }
                }
            }
        }
        needs
    }

    fn truth(&mut self, value: &Value, place: &str) -> bool {
        value.as_bool().unwrap_or_else(|| {
            self.wrong(place, format!("must be true or false, not `{}`", text_of(value)));
            false
        })
    }

    /// `1h 30m`, `90 minutes`, `3600 seconds`.
    fn duration(&mut self, value: &Value, place: &str) -> Option<Duration> {
        let text = self.string(value, place)?;
        match humantime::parse_duration(&text.replace(" and ", " ")) {
            Ok(duration) if duration > MAX_TIMEOUT => {
                self.wrong(place, format!("`{text}` is longer than a month"));
                None
            }
            Ok(duration) if !duration.is_zero() => Some(duration),
            _ => {
                self.wrong(place, format!("`{text}` is no duration such as `1h 30m`"));
                None
            }
        }
    }
}

/// What a shell takes as a variable's name.
fn is_shell_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
