//! `experiment`: sends a fixed share of the jobs that match to an alternative, and labels both sides.
//!
//! Which side a job is on hangs on a hash of the experiment's name, the project's id and the job's name, so a
//! job stays where it is from pipeline to pipeline. README.md has the settings.

use pointsman_policy_sdk::schema::{self, Schema};
use pointsman_policy_sdk::{
    Arch, Capacity, Context, Mutator, Placement, Policy, Rejection, SettingProblem, Value, because,
    label, settings, values,
};

/// `[policies.experiment.settings]`
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    name: String,
    percent: f64,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    projects: Vec<u64>,
    #[serde(default)]
    arch: Option<String>,
    #[serde(default)]
    capacity: Option<String>,
}

/// Checked.
#[derive(Debug)]
pub struct Experiment {
    name: String,
    /// Of 10,000.
    share: u64,
    tags: Vec<String>,
    projects: Vec<u64>,
    arch: Option<Arch>,
    capacity: Option<Capacity>,
}

/// The policy.
#[derive(Debug)]
pub struct ExperimentPolicy;

impl Policy for ExperimentPolicy {
    type Settings = Experiment;

    const DESCRIPTION: &'static str =
        "sends a fixed share of the jobs to an alternative and labels both sides";

    fn settings(json: &Value) -> Result<Experiment, Vec<SettingProblem>> {
        let raw: Settings = settings::from_json(json)?;
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| {
            problems.push(SettingProblem { path: path.to_owned(), message });
        };
        if raw.name.trim().is_empty() || raw.name.len() > 64 {
            problem("name", "expected 1 to 64 characters: it becomes a label".to_owned());
        }
        if !(0.0..=100.0).contains(&raw.percent) {
            problem("percent", format!("is {}, expected 0 to 100", raw.percent));
        }
        let arch = raw.arch.as_deref().map(values::arch).transpose();
        let capacity = raw.capacity.as_deref().map(values::capacity).transpose();
        let arch = arch.map_err(|message| problem("arch", message)).ok().flatten();
        let capacity = capacity.map_err(|message| problem("capacity", message)).ok().flatten();
        if raw.arch.is_none() && raw.capacity.is_none() {
            problem("", "expected `arch`, `capacity` or both: what the alternative is".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked above"
        )]
        let share = (raw.percent * 100.0).round() as u64;
        Ok(Experiment {
            name: raw.name,
            share,
            tags: raw.tags,
            projects: raw.projects,
            arch,
            capacity,
        })
    }

    fn schema() -> Option<Schema> {
        Some(
            schema::table()
                .required("name", schema::text("the label of both sides"))
                .required("percent", schema::number("share of the alternative", 0, 100))
                .optional(
                    "tags",
                    schema::list("a job must have all of these", schema::text("a tag")),
                )
                .optional(
                    "projects",
                    schema::list(
                        "ids; all when left out",
                        schema::whole("an id", 1, u64::from(u32::MAX)),
                    ),
                )
                .optional("arch", schema::choice("the alternative's", &["x86_64", "arm64"]))
                .optional("capacity", schema::choice("the alternative's", &["on-demand", "spot"])),
        )
    }
}

impl Mutator for ExperimentPolicy {
    fn mutate<C: Context>(
        context: &C,
        settings: &Experiment,
        candidates: Vec<Placement>,
    ) -> Result<Vec<Placement>, Rejection> {
        if !settings.tags.is_empty() {
            let tags = context.tags();
            if !settings.tags.iter().all(|tag| tags.values.contains(tag)) {
                return Ok(candidates);
            }
        }
        let project = context.project().id;
        if !settings.projects.is_empty() && !settings.projects.contains(&project) {
            return Ok(candidates);
        }
        let alternatives = alternatives(context, settings, &candidates);
        // Who cannot be on one side must not be counted on the other.
        if alternatives.is_empty() {
            return Ok(candidates);
        }
        let is_variant = bucket(&settings.name, project, &context.job_name()) < settings.share;
        let mut ranked = if is_variant { alternatives } else { Vec::new() };
        ranked.extend(candidates);
        for placement in &mut ranked {
            label(placement, "name", &settings.name);
            label(placement, "side", if is_variant { "variant" } else { "control" });
        }
        Ok(ranked)
    }
}

/// The candidates as the alternative has them, where that is another placement and one that is offered.
fn alternatives<C: Context>(
    context: &C,
    settings: &Experiment,
    candidates: &[Placement],
) -> Vec<Placement> {
    let definitions = settings.arch.map(|_| context.task_definitions()).unwrap_or_default();
    if settings.capacity.is_some_and(|wanted| !context.limits().capacities.contains(&wanted)) {
        return Vec::new();
    }
    let mut alternatives: Vec<Placement> = Vec::new();
    for candidate in candidates {
        let arch = settings.arch.unwrap_or(candidate.arch);
        let offered = settings.arch.is_none()
            || definitions.iter().any(|definition| {
                definition.name == candidate.task_definition && definition.archs.contains(&arch)
            });
        let mut changed = Placement {
            arch,
            capacity: settings.capacity.unwrap_or(candidate.capacity),
            ..candidate.clone()
        };
        if offered && changed != *candidate {
            because(&mut changed, &format!("experiment {}", settings.name));
            if !alternatives.contains(&changed) {
                alternatives.push(changed);
            }
        }
    }
    alternatives
}

/// 0 to 9,999: FNV-1a, and a finaliser so that names that differ in one letter spread.
fn bucket(experiment: &str, project: u64, job: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let separated = [experiment.as_bytes(), &project.to_le_bytes(), job.as_bytes()];
    for part in separated {
        for &byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)) % 10_000
}

pointsman_policy_sdk::export!(ExperimentPolicy: mutator);

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_policy_sdk::fixture::{
        Fixture, assert_schema_is_whole, placement, task_definition,
    };

    fn job(name: &str) -> Fixture {
        Fixture {
            job_name: name.to_owned(),
            task_definitions: vec![task_definition(&[Arch::X8664, Arch::Arm64])],
            ..Fixture::with_tags(["linux"])
        }
    }

    fn side(job: &Fixture, json: &Value) -> Option<String> {
        let settings = ExperimentPolicy::settings(json).unwrap();
        let ranked = ExperimentPolicy::mutate(job, &settings, vec![placement()]).unwrap();
        let label = ranked[0].labels.iter().find(|(name, _)| name == "side");
        let side = label.map(|(_, side)| side.clone());
        let is_arm = ranked[0].arch == Arch::Arm64;
        assert_eq!(is_arm, side.as_deref() == Some("variant"));
        assert_eq!(ranked.len(), if is_arm { 2 } else { 1 });
        side
    }

    #[test]
    fn the_share_is_about_the_one_that_was_asked_and_jobs_stay_on_their_side() {
        let json = serde_json::json!({"name": "arm", "percent": 25.0, "arch": "arm64"});
        let variants: Vec<bool> = (0..4000)
            .map(|index| side(&job(&format!("test {index}")), &json).as_deref() == Some("variant"))
            .collect();
        let count = variants.iter().filter(|&&variant| variant).count();
        assert!((900..1100).contains(&count), "{count} of 4,000 at 25 %");
        for (index, &variant) in variants.iter().enumerate().take(50) {
            let mut later = job(&format!("test {index}"));
            later.job_id = 99;
            later.pipeline_id = 99;
            later.git_ref.name = "another".to_owned();
            assert_eq!(side(&later, &json).as_deref() == Some("variant"), variant);
        }
    }

    #[test]
    fn none_and_all() {
        let of =
            |percent: f64| serde_json::json!({"name": "arm", "percent": percent, "arch": "arm64"});
        assert_eq!(side(&job("a"), &of(0.0)).as_deref(), Some("control"));
        assert_eq!(side(&job("a"), &of(100.0)).as_deref(), Some("variant"));
    }

    #[test]
    fn who_is_not_asked_has_no_label() {
        let tags =
            serde_json::json!({"name": "arm", "percent": 100.0, "arch": "arm64", "tags": ["gpu"]});
        assert_eq!(side(&job("a"), &tags), None);
        let projects =
            serde_json::json!({"name": "arm", "percent": 100.0, "arch": "arm64", "projects": [9]});
        assert_eq!(side(&job("a"), &projects), None);
        let mut x86_only = job("a");
        x86_only.task_definitions = vec![task_definition(&[Arch::X8664])];
        let arm = serde_json::json!({"name": "arm", "percent": 100.0, "arch": "arm64"});
        assert_eq!(side(&x86_only, &arm), None);
    }

    #[test]
    fn all_mistakes_are_told() {
        let json = serde_json::json!({"name": "", "percent": 101.0, "arch": "arm"});
        let problems = ExperimentPolicy::settings(&json).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["name", "percent", "arch"]);
        assert_schema_is_whole::<ExperimentPolicy>();
    }
}
