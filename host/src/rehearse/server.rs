//! What GitLab's server adds to a job: the runner that takes it, its predefined variables, its token.

use super::pipeline::Job;
use super::response::{self, PROJECT_ID};
use super::sources::{Sources, slug};
use super::variables::Entry;
use crate::settings::Settings;

/// A variable of the project, as somebody sets it in GitLab's settings.
#[derive(Clone)]
pub struct ProjectVariable {
    /// The name.
    pub key: String,
    /// The value.
    pub value: crate::secret::Secret<String>,
    /// Replaced by `[MASKED]` in the log when it has 8 characters or more.
    pub masked: bool,
    /// Scripts get the path of a file that holds the value.
    pub file: bool,
}

impl std::fmt::Debug for ProjectVariable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}={:?}", self.key, self.value)
    }
}

/// The profile whose runner would take the job: all the job's tags, and the fewest others.
///
/// The error is what the job is stuck with.
pub(super) fn profile<'a>(settings: &'a Settings, job: &Job) -> Result<&'a str, String> {
    settings
        .profiles
        .iter()
        .filter(|(_, profile)| job.tags.iter().all(|tag| profile.tags.contains(tag)))
        .min_by_key(|(_, profile)| profile.tags.len())
        .map(|(name, _)| name.as_str())
        .ok_or_else(|| {
            let offers: Vec<_> = settings
                .profiles
                .iter()
                .map(|(name, profile)| format!("`{name}` has {}", named(profile.tags.iter())))
                .collect();
            format!(
                "stuck: no profile has all of its tags {}: {}",
                named(job.tags.iter()),
                if offers.is_empty() {
                    "there is no profile".to_owned()
                } else {
                    offers.join(", ")
                }
            )
        })
}

fn named<'a>(tags: impl Iterator<Item = &'a String>) -> String {
    let tags: Vec<_> = tags.map(|tag| format!("`{tag}`")).collect();
    if tags.is_empty() { "none".to_owned() } else { tags.join(" ") }
}

/// The server's list of variables (app/models/ci/build.rb), in kind.
pub(super) fn variables(
    job: &Job,
    ids: (u64, u64),
    token: &str,
    sources: &Sources,
    runner: (&str, &[&str]),
    project: &[ProjectVariable],
) -> Vec<Entry> {
    let (id, pipeline_id) = ids;
    let (profile, tags) = runner;
    let path = format!("rehearsal/{}", sources.name);
    let url = format!("https://gitlab.invalid/{path}");
    let mut list = vec![
        Entry::new("CI_PIPELINE_ID", pipeline_id.to_string()),
        Entry::new("CI_PIPELINE_IID", "1"),
        Entry::new("CI_PIPELINE_SOURCE", "push"),
        Entry::new("CI_PIPELINE_URL", format!("{url}/-/pipelines/{pipeline_id}")),
        Entry::new("CI_JOB_ID", id.to_string()),
        Entry::new("CI_JOB_URL", format!("{url}/-/jobs/{id}")),
        Entry { masked: true, public: false, ..Entry::new("CI_JOB_TOKEN", token) },
        Entry::new(
            "CI_JOB_STARTED_AT",
            jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ),
        Entry::new("CI", "true"),
        Entry::new("GITLAB_CI", "true"),
        Entry::new("CI_SERVER_URL", "https://gitlab.invalid"),
        Entry::new("CI_SERVER_HOST", "gitlab.invalid"),
        Entry::new("CI_SERVER_PROTOCOL", "https"),
        Entry::new("CI_SERVER_NAME", "GitLab"),
        Entry::new("CI_API_V4_URL", "https://gitlab.invalid/api/v4"),
        Entry::new("CI_JOB_NAME", &job.name),
        Entry::new("CI_JOB_NAME_SLUG", slug(&job.name)),
        Entry::new("CI_JOB_STAGE", &job.stage),
        Entry::new("CI_NODE_TOTAL", job.node.map_or(1, |(_, total)| total).to_string()),
        Entry::new("CI_PROJECT_ID", PROJECT_ID.to_string()),
        Entry::new("CI_PROJECT_NAME", &sources.name),
        Entry::new("CI_PROJECT_PATH", &path),
        Entry::new("CI_PROJECT_PATH_SLUG", slug(&path)),
        Entry::new("CI_PROJECT_NAMESPACE", "rehearsal"),
        Entry::new("CI_PROJECT_ROOT_NAMESPACE", "rehearsal"),
        Entry::new("CI_PROJECT_URL", &url),
        Entry::new("CI_DEFAULT_BRANCH", &sources.git_ref),
        Entry::new("CI_COMMIT_SHA", &sources.sha),
        Entry::new("CI_COMMIT_SHORT_SHA", sources.sha.get(..8).unwrap_or(&sources.sha)),
        Entry::new("CI_COMMIT_BEFORE_SHA", response::NO_SHA),
        Entry::new("CI_COMMIT_REF_NAME", &sources.git_ref),
        Entry::new("CI_COMMIT_REF_SLUG", slug(&sources.git_ref)),
        Entry::new("CI_COMMIT_BRANCH", &sources.git_ref),
        Entry::new("CI_COMMIT_REF_PROTECTED", "true"),
        // What people wrote is not searched for `$`.
        Entry { raw: true, ..Entry::new("CI_COMMIT_TITLE", &sources.title) },
        Entry::new("CI_RUNNER_ID", "1"),
        Entry::new("CI_RUNNER_DESCRIPTION", profile),
        Entry::new("CI_RUNNER_TAGS", serde_json::json!(tags).to_string()),
    ];
    list.extend(job.node.map(|(index, _)| Entry::new("CI_NODE_INDEX", index.to_string())));
    list.extend(job.variables.iter().map(response::entry_of));
    list.extend([Entry::new("GITLAB_USER_ID", "1"), Entry::new("GITLAB_USER_LOGIN", "rehearsal")]);
    list.extend(project.iter().map(|variable| Entry {
        masked: variable.masked,
        file: variable.file,
        public: false,
        ..Entry::new(&variable.key, variable.value.reveal())
    }));
    list
}
