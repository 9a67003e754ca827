//! The job as the driver knows it: plain types, no IO.
//!
//! [`response`] makes a [`Job`] out of `JOB_RESPONSE_FILE`. Which of these values an author can choose
//! is told by GitLab Runner's source (common/spec/spec.go): everything under `job_info`, `git_info` and
//! `runner_info` is stated by the server; image, services and variables are the author's.

pub mod response;

use std::time::Duration;

use crate::secret::Secret;

/// One CI job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The server's id of the job, unique within a GitLab instance.
    pub id: u64,
    /// `job_info.name`: true, but chosen by the author.
    pub name: String,
    /// `job_info.stage`: true, but chosen by the author.
    pub stage: String,
    /// The project that the job belongs to.
    pub project: Project,
    /// `job_info.pipeline_id`.
    pub pipeline_id: u64,
    /// `job_info.user_id`: who triggered the job.
    pub user_id: u64,
    /// The ref that the job runs for.
    pub git_ref: GitRef,
    /// `runner_info.timeout`: the job's whole time, `prepare` included. GitLab Runner takes 7,200 s for 0.
    pub timeout: Duration,
    /// `job_info.time_in_queue_seconds`.
    pub queued: Duration,
    /// `image.name`, already expanded; `None` when the job names no image. A claim.
    pub image: Option<String>,
    /// `services[].name`, already expanded. Claims.
    pub services: Vec<String>,
    /// `variables[]` in the server's order, duplicates kept, not expanded. Claims, whatever their names.
    pub variables: Vec<Variable>,
}

impl Job {
    /// A job that nobody has, called `name`, to try policies on: from the ref `main`, `protected` or not, without
    /// variables.
    pub fn made_up(name: &str, protected: bool) -> Self {
        Self {
            id: 1,
            name: name.to_owned(),
            stage: "test".to_owned(),
            project: Project {
                id: 1,
                full_path: "pointsman/trial".to_owned(),
                namespace_id: 1,
                root_namespace_id: 1,
            },
            pipeline_id: 1,
            user_id: 1,
            git_ref: GitRef {
                name: "main".to_owned(),
                kind: RefKind::Branch,
                sha: "0".repeat(40),
                protected: Some(protected),
            },
            timeout: Duration::from_secs(3600),
            queued: Duration::ZERO,
            image: None,
            services: Vec::new(),
            variables: Vec::new(),
        }
    }
}

/// `job_info.project_*` and `namespace_*`.
#[derive(Debug, Clone)]
pub struct Project {
    /// Never changes; prefer it to the path.
    pub id: u64,
    /// The owners can rename it.
    pub full_path: String,
    /// The group or user that the project belongs to.
    pub namespace_id: u64,
    /// The topmost group.
    pub root_namespace_id: u64,
}

/// `git_info`.
#[derive(Debug, Clone)]
pub struct GitRef {
    /// True, but whoever can push chooses it.
    pub name: String,
    /// Branch, tag or something else, such as a merge request's ref.
    pub kind: RefKind,
    /// The commit.
    pub sha: String,
    /// `None` from GitLab older than 18.3: treat as not protected.
    pub protected: Option<bool>,
}

/// `git_info.ref_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// `branch`
    Branch,
    /// `tag`
    Tag,
    /// Any other text.
    Other,
}

/// One entry of `variables[]`.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The name.
    pub key: String,
    /// The value, not expanded.
    pub value: Secret<String>,
    /// Masked values are never shown to a policy.
    pub masked: bool,
    /// The scripts see a path, the payload has the content. Never shown to a policy.
    pub file: bool,
}

impl Variable {
    /// One that is neither masked nor a file.
    pub fn plain(key: String, value: String) -> Self {
        Self { key, value: Secret::new(value), masked: false, file: false }
    }
}
