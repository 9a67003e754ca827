//! A question as the attempt's record keeps it, so that it can be asked again: of another policy, or of the same
//! with other settings.
//!
//! It has what policies could read and nothing else, so no token and no masked or file variable, and no ARN. What the
//! operator offered is in it as well: settings change, and whoever asks again shall be able to tell what another
//! policy does from what another offer does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inputs::{visible_images, visible_variables};
use super::{Assurance, EarlierFailure, Question};
use crate::job::{GitRef, Job, Project, RefKind, Variable};
use crate::placement::bounds::Bounds;
use crate::placement::catalog::Catalog;
use crate::settings::ClaimsTaint;

/// Bytes of names and values of variables that one record keeps.
const MAX_VARIABLES: usize = 64 * 1024;
/// Bytes of one value that is kept.
const MAX_VALUE: usize = 4 * 1024;
/// Bytes of an offer that is kept. Some hundred task definitions fit; a usual one has about a kilobyte.
const MAX_OFFER: usize = 32 * 1024;

/// What the operator offered, narrowed to the profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedOffer {
    /// See [`Question::catalog`].
    pub catalog: Catalog,
    /// See [`Question::bounds`].
    pub bounds: Bounds,
    /// See [`Question::claims_taint`].
    pub claims_taint: ClaimsTaint,
}

impl RecordedOffer {
    /// What is kept of `question`: nothing, when it is too large.
    fn of(question: &Question<'_>) -> Option<Self> {
        let offer = Self {
            catalog: question.catalog.clone(),
            bounds: question.bounds.clone(),
            claims_taint: question.claims_taint,
        };
        let bytes = serde_json::to_vec(&offer).ok()?;
        (bytes.len() <= MAX_OFFER).then_some(offer)
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedQuestion {
    /// The job's id.
    pub job_id: u64,
    /// Author-chosen.
    pub job_name: String,
    /// Author-chosen.
    pub job_stage: String,
    /// The project's id.
    pub project_id: u64,
    /// The project's path.
    pub project_path: String,
    /// Of the project.
    pub namespace_id: u64,
    /// Of the project.
    pub root_namespace_id: u64,
    /// The pipeline's id.
    pub pipeline_id: u64,
    /// Who triggered it.
    pub user_id: u64,
    /// The ref's name.
    pub ref_name: String,
    /// `branch`, `tag` or `other`.
    pub ref_kind: String,
    /// The commit.
    pub sha: String,
    /// Whether the ref is protected.
    pub protected: Option<bool>,
    /// Seconds.
    pub timeout: u64,
    /// Seconds.
    pub queued: u64,
    /// The profile that was asked for.
    pub profile: String,
    /// The job's tags, or the profile's.
    pub tags: BTreeSet<String>,
    /// Which of the two.
    pub tags_assurance: Assurance,
    /// 1 for the first.
    pub attempt: u32,
    /// Oldest first.
    pub earlier_failures: Vec<EarlierFailure>,
    /// Further vouched values.
    pub facts: BTreeMap<String, (String, Assurance)>,
    /// A claim.
    pub image: Option<String>,
    /// Claims.
    pub services: Vec<String>,
    /// Claims, without masked and file variables.
    pub variables: BTreeMap<String, String>,
    /// Names of variables that policies could read and that were too large to keep: asked again, a policy does
    /// not find them.
    pub left_out: BTreeSet<String>,
    /// `None` in records of older drivers, and when it was too large to keep.
    #[serde(default)]
    pub offer: Option<RecordedOffer>,
}

impl RecordedQuestion {
    /// What is kept of `question`.
    pub fn of(question: &Question<'_>) -> Self {
        let job = question.job;
        let (image, services) = visible_images(job);
        let mut variables = BTreeMap::new();
        let mut left_out = BTreeSet::new();
        let mut size = 0;
        for (key, value) in visible_variables(job) {
            size += key.len() + value.len();
            if value.len() <= MAX_VALUE && size <= MAX_VARIABLES {
                variables.insert(key, value);
            } else {
                size -= value.len();
                left_out.insert(key);
            }
        }
        Self {
            job_id: job.id,
            job_name: job.name.clone(),
            job_stage: job.stage.clone(),
            project_id: job.project.id,
            project_path: job.project.full_path.clone(),
            namespace_id: job.project.namespace_id,
            root_namespace_id: job.project.root_namespace_id,
            pipeline_id: job.pipeline_id,
            user_id: job.user_id,
            ref_name: job.git_ref.name.clone(),
            ref_kind: match job.git_ref.kind {
                RefKind::Branch => "branch",
                RefKind::Tag => "tag",
                RefKind::Other => "other",
            }
            .to_owned(),
            sha: job.git_ref.sha.clone(),
            protected: job.git_ref.protected,
            timeout: job.timeout.as_secs(),
            queued: job.queued.as_secs(),
            profile: question.profile.to_owned(),
            tags: question.tags.clone(),
            tags_assurance: question.tags_assurance,
            attempt: question.attempt,
            earlier_failures: question.earlier_failures.to_vec(),
            facts: question.facts.clone(),
            image,
            services,
            variables,
            left_out,
            offer: RecordedOffer::of(question),
        }
    }

    /// The job that it was about, as far as policies could see it.
    pub fn job(&self) -> Job {
        Job {
            id: self.job_id,
            name: self.job_name.clone(),
            stage: self.job_stage.clone(),
            project: Project {
                id: self.project_id,
                full_path: self.project_path.clone(),
                namespace_id: self.namespace_id,
                root_namespace_id: self.root_namespace_id,
            },
            pipeline_id: self.pipeline_id,
            user_id: self.user_id,
            git_ref: GitRef {
                name: self.ref_name.clone(),
                kind: match self.ref_kind.as_str() {
                    "branch" => RefKind::Branch,
                    "tag" => RefKind::Tag,
                    _ => RefKind::Other,
                },
                sha: self.sha.clone(),
                protected: self.protected,
            },
            timeout: Duration::from_secs(self.timeout),
            queued: Duration::from_secs(self.queued),
            image: self.image.clone(),
            services: self.services.clone(),
            variables: self
                .variables
                .iter()
                .map(|(key, value)| Variable::plain(key.clone(), value.clone()))
                .collect(),
        }
    }

    /// The question anew; `job` is what [`Self::job`] answered.
    pub fn question<'a>(
        &'a self,
        job: &'a Job,
        catalog: &'a Catalog,
        bounds: &'a Bounds,
        claims_taint: ClaimsTaint,
    ) -> Question<'a> {
        Question {
            job,
            profile: &self.profile,
            tags: &self.tags,
            tags_assurance: self.tags_assurance,
            attempt: self.attempt,
            earlier_failures: &self.earlier_failures,
            facts: &self.facts,
            catalog,
            bounds,
            claims_taint,
        }
    }
}
