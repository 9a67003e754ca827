//! The question in the words of the interface: made once a decision, shared by all its policies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bindings::{catalog, facts};
use super::{Assurance, EarlierFailure, FailureKind, Question};
use crate::job::{GitRef, Job, Project, RefKind};
use crate::placement::Capacity;
use crate::placement::bounds::Bounds;
use crate::placement::catalog::Catalog;
use crate::settings::ClaimsTaint;

/// All that the imports can answer.
pub(super) struct Inputs {
    pub(super) job_id: u64,
    pub(super) job_name: String,
    pub(super) job_stage: String,
    pub(super) pipeline_id: u64,
    pub(super) user_id: u64,
    pub(super) tags: facts::Tags,
    pub(super) project: facts::Project,
    pub(super) git_ref: facts::GitRef,
    pub(super) profile: String,
    pub(super) timeout_seconds: u32,
    pub(super) queued_seconds: u32,
    pub(super) attempt: u32,
    pub(super) earlier_failures: Vec<facts::EarlierFailure>,
    pub(super) facts: BTreeMap<String, (String, facts::Assurance)>,
    pub(super) image: Option<String>,
    pub(super) services: Vec<String>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) clusters: Vec<catalog::Cluster>,
    pub(super) task_definitions: Vec<catalog::TaskDefinition>,
    pub(super) roles: Vec<catalog::Role>,
    pub(super) limits: catalog::Limits,
}

impl Inputs {
    /// With `claims` only when a policy of the chain can read them: copying a job's variables would be half of
    /// the time of a decision that reads none.
    pub(super) fn new(question: &Question<'_>, claims: bool) -> Self {
        let Question { job, catalog, bounds, .. } = *question;
        let (image, services) = if claims { visible_images(job) } else { (None, Vec::new()) };
        Self {
            job_id: job.id,
            job_name: job.name.clone(),
            job_stage: job.stage.clone(),
            pipeline_id: job.pipeline_id,
            user_id: job.user_id,
            tags: facts::Tags {
                values: question.tags.iter().cloned().collect(),
                assurance: question.tags_assurance.into(),
            },
            project: facts::Project {
                id: job.project.id,
                full_path: job.project.full_path.clone(),
                namespace_id: job.project.namespace_id,
                root_namespace_id: job.project.root_namespace_id,
            },
            git_ref: facts::GitRef {
                name: job.git_ref.name.clone(),
                kind: match job.git_ref.kind {
                    RefKind::Branch => facts::RefKind::Branch,
                    RefKind::Tag => facts::RefKind::Tag,
                    RefKind::Other => facts::RefKind::Other,
                },
                sha: job.git_ref.sha.clone(),
                protected: job.git_ref.protected,
            },
            profile: question.profile.to_owned(),
            timeout_seconds: seconds(job.timeout),
            queued_seconds: seconds(job.queued),
            attempt: question.attempt,
            earlier_failures: question.earlier_failures.iter().map(Into::into).collect(),
            facts: question
                .facts
                .iter()
                .map(|(name, (value, assurance))| {
                    (name.clone(), (value.clone(), (*assurance).into()))
                })
                .collect(),
            image,
            services,
            variables: if claims { visible_variables(job) } else { BTreeMap::new() },
            clusters: catalog
                .clusters
                .iter()
                .map(|(name, cluster)| catalog::Cluster {
                    name: name.clone(),
                    labels: pairs(&cluster.labels),
                })
                .collect(),
            task_definitions: catalog
                .task_definitions
                .iter()
                .map(|(name, definition)| catalog::TaskDefinition {
                    name: name.clone(),
                    archs: definition.archs.iter().copied().map(Into::into).collect(),
                    cpu_units: definition.size.cpu_units,
                    memory_mib: definition.size.memory_mib,
                    labels: pairs(&definition.labels),
                })
                .collect(),
            roles: catalog
                .roles
                .iter()
                .map(|(name, role)| catalog::Role {
                    name: name.clone(),
                    privileged: role.privileged,
                })
                .collect(),
            limits: catalog::Limits {
                max_cpu_units: bounds.max_cpu_units,
                max_memory_mib: bounds.max_memory_mib,
                max_ephemeral_storage_gib: bounds.max_ephemeral_storage_gib,
                capacities: [Capacity::OnDemand, Capacity::Spot]
                    .into_iter()
                    .filter(|capacity| bounds.capacities.contains(capacity))
                    .map(Into::into)
                    .collect(),
            },
        }
    }
}

/// For calls that no job is the reason of, such as the validation of settings.
pub(super) fn blank() -> Inputs {
    let job = Job {
        id: 0,
        name: String::new(),
        stage: String::new(),
        project: Project { id: 0, full_path: String::new(), namespace_id: 0, root_namespace_id: 0 },
        pipeline_id: 0,
        user_id: 0,
        git_ref: GitRef {
            name: String::new(),
            kind: RefKind::Other,
            sha: String::new(),
            protected: None,
        },
        timeout: Duration::ZERO,
        queued: Duration::ZERO,
        image: None,
        services: Vec::new(),
        variables: Vec::new(),
    };
    let question = Question {
        job: &job,
        profile: "",
        tags: &BTreeSet::new(),
        tags_assurance: Assurance::Runner,
        attempt: 0,
        earlier_failures: &[],
        facts: &BTreeMap::new(),
        catalog: &Catalog::default(),
        bounds: &Bounds::default(),
        claims_taint: ClaimsTaint::Allow,
    };
    Inputs::new(&question, false)
}

/// The variables that policies may see, each name once.
///
/// The last entry of a name is the one that counts for GitLab Runner; when that one is masked or a file, the
/// name is not offered at all: an earlier entry would be a value that the job does not see. Neither is one whose
/// text has a masked value in it, as `CI_REPOSITORY_URL` has the job's token, which GitLab does not mask.
pub fn visible_variables(job: &Job) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for variable in &job.variables {
        last.insert(&variable.key, variable);
    }
    let masked = masked_values(job);
    last.into_iter()
        .filter(|(_, variable)| !variable.masked && !variable.file)
        .map(|(key, variable)| (key.clone(), variable.value.reveal().clone()))
        .filter(|(_, value)| !has_any(value, &masked))
        .collect()
}

/// The job's image and services, as far as no masked value was pasted into them.
pub fn visible_images(job: &Job) -> (Option<String>, Vec<String>) {
    let masked = masked_values(job);
    let visible = |image: &&String| !has_any(image, &masked);
    (
        job.image.as_ref().filter(visible).cloned(),
        job.services.iter().filter(visible).cloned().collect(),
    )
}

fn masked_values(job: &Job) -> Vec<&str> {
    job.variables
        .iter()
        .filter(|variable| variable.masked)
        .map(|variable| variable.value.reveal().as_str())
        // GitLab masks nothing shorter (docs: "at least 8 characters"); one letter would hide everything.
        .filter(|value| value.len() >= 8)
        .collect()
}

fn has_any(text: &str, masked: &[&str]) -> bool {
    masked.iter().any(|value| text.contains(value))
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn pairs(labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl From<Assurance> for facts::Assurance {
    fn from(assurance: Assurance) -> Self {
        match assurance {
            Assurance::Server => Self::Server,
            Assurance::Runner => Self::Runner,
        }
    }
}

impl From<&EarlierFailure> for facts::EarlierFailure {
    fn from(failure: &EarlierFailure) -> Self {
        Self {
            attempt: failure.attempt,
            kind: match failure.kind {
                FailureKind::Capacity => facts::FailureKind::Capacity,
                FailureKind::SpotInterruption => facts::FailureKind::SpotInterruption,
                FailureKind::OutOfMemory => facts::FailureKind::OutOfMemory,
                FailureKind::Other => facts::FailureKind::Other,
            },
            detail: failure.detail.clone(),
        }
    }
}
