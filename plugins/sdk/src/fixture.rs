//! A job for native tests.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Arch, Assurance, Capacity, Claim, Cluster, Context, EarlierFailure, Fact, GitRef, Level,
    Limits, Placement, Policy, Profile, Project, RefKind, Role, Tags, TaskDefinition,
};

/// A job whose every answer a test can set. The default is a first attempt of a job on an unprotected
/// branch, with an empty catalog.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Answered by [`Context::job_id`].
    pub job_id: u64,
    /// Answered by [`Context::job_name`].
    pub job_name: String,
    /// Answered by [`Context::job_stage`].
    pub job_stage: String,
    /// Answered by [`Context::tags`].
    pub tags: Tags,
    /// Answered by [`Context::pipeline_id`].
    pub pipeline_id: u64,
    /// Answered by [`Context::user_id`].
    pub user_id: u64,
    /// Answered by [`Context::project`].
    pub project: Project,
    /// Answered by [`Context::git_ref`].
    pub git_ref: GitRef,
    /// Answered by [`Context::profile`].
    pub profile: String,
    /// Answered by [`Context::timeout_seconds`].
    pub timeout_seconds: u32,
    /// Answered by [`Context::queued_seconds`].
    pub queued_seconds: u32,
    /// Answered by [`Context::earlier_failures`]; the attempt is one more than these.
    pub earlier_failures: Vec<EarlierFailure>,
    /// Answered by [`Context::fact`].
    pub facts: BTreeMap<String, (String, Assurance)>,
    /// Answered by [`Context::claimed_image`].
    pub image: Option<String>,
    /// Answered by [`Context::claimed_services`].
    pub services: Vec<String>,
    /// Answered by [`Context::claimed_variable`].
    pub variables: BTreeMap<String, String>,
    /// Answered by [`Context::clusters`].
    pub clusters: Vec<Cluster>,
    /// Answered by [`Context::task_definitions`].
    pub task_definitions: Vec<TaskDefinition>,
    /// Answered by [`Context::roles`].
    pub roles: Vec<Role>,
    /// Answered by [`Context::limits`].
    pub limits: Limits,
    /// What the policy said to the reader of the job log.
    pub notices: RefCell<Vec<String>>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            job_id: 1,
            job_name: "test".to_owned(),
            job_stage: "test".to_owned(),
            tags: Tags { values: Vec::new(), assurance: Assurance::Server },
            pipeline_id: 1,
            user_id: 1,
            project: Project {
                id: 1,
                full_path: "group/project".to_owned(),
                namespace_id: 1,
                root_namespace_id: 1,
            },
            git_ref: GitRef {
                name: "feature".to_owned(),
                kind: RefKind::Branch,
                sha: "0".repeat(40),
                protected: Some(false),
            },
            profile: "test".to_owned(),
            timeout_seconds: 3600,
            queued_seconds: 1,
            earlier_failures: Vec::new(),
            facts: BTreeMap::new(),
            image: None,
            services: Vec::new(),
            variables: BTreeMap::new(),
            clusters: Vec::new(),
            task_definitions: Vec::new(),
            roles: Vec::new(),
            limits: Limits {
                max_cpu_units: 4096,
                max_memory_mib: 30_720,
                max_ephemeral_storage_gib: 200,
                capacities: vec![Capacity::OnDemand, Capacity::Spot],
            },
            notices: RefCell::default(),
        }
    }
}

impl Fixture {
    /// A job with these tags.
    pub fn with_tags<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let values = tags.into_iter().map(str::to_owned).collect();
        Self { tags: Tags { values, assurance: Assurance::Server }, ..Self::default() }
    }
}

/// A placement to change in tests of mutators and guards: cluster `ci`, task definition `node`, x86 on demand,
/// 1 vCPU and 2 GiB, no role.
pub fn placement() -> Placement {
    Placement {
        cluster: "ci".to_owned(),
        task_definition: "node".to_owned(),
        arch: Arch::X8664,
        capacity: Capacity::OnDemand,
        cpu_units: Some(1024),
        memory_mib: Some(2048),
        ephemeral_storage_gib: None,
        role: None,
        labels: Vec::new(),
        extra: Vec::new(),
        reason: "test".to_owned(),
    }
}

/// The task definition `node` with these architectures.
pub fn task_definition(archs: &[Arch]) -> TaskDefinition {
    TaskDefinition {
        name: "node".to_owned(),
        archs: archs.to_vec(),
        cpu_units: 1024,
        memory_mib: 2048,
        labels: Vec::new(),
    }
}

/// Asserts that the schema of `P` has the settings that `P` takes, no more and no fewer: it is written by hand, and
/// would otherwise tell of settings that are gone.
///
/// It asks `P` about a setting that there is none of, and takes the known ones out of the answer, as `serde` words it.
///
/// # Panics
///
/// Panics when they differ, when there is no schema, and when `P` takes settings that it does not know.
pub fn assert_schema_is_whole<P: Policy>() {
    const NONE: &str = "no-such-setting";
    let schema = P::schema();
    let told: BTreeSet<&str> =
        schema.as_ref().map(|schema| schema.keys().into_iter().collect()).unwrap_or_default();
    assert!(!told.is_empty(), "there is no schema");
    let problems = P::settings(&serde_json::json!({ NONE: 1 })).err().unwrap_or_default();
    let known = problems.iter().find_map(|problem| {
        let about_it = problem.path == NONE || problem.message.contains(NONE);
        let (_, known) = problem.message.split_once("expected").filter(|_| about_it)?;
        Some(known)
    });
    assert!(known.is_some(), "an unknown setting is taken, or not answered with the known ones");
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let taken: BTreeSet<&str> = known
        .into_iter()
        .flat_map(|known| known.split(|letter| !is_name(letter)))
        .filter(|word| !matches!(*word, "" | "one" | "of" | "or"))
        .collect();
    assert_eq!(told, taken, "the schema, and what is taken");
}

impl Context for Fixture {
    fn job_id(&self) -> Fact<u64> {
        Fact::new(self.job_id)
    }
    fn job_name(&self) -> Fact<String> {
        Fact::new(self.job_name.clone())
    }
    fn job_stage(&self) -> Fact<String> {
        Fact::new(self.job_stage.clone())
    }
    fn tags(&self) -> Fact<Tags> {
        Fact::new(self.tags.clone())
    }
    fn pipeline_id(&self) -> Fact<u64> {
        Fact::new(self.pipeline_id)
    }
    fn user_id(&self) -> Fact<u64> {
        Fact::new(self.user_id)
    }
    fn project(&self) -> Fact<Project> {
        Fact::new(self.project.clone())
    }
    fn git_ref(&self) -> Fact<GitRef> {
        Fact::new(self.git_ref.clone())
    }
    fn profile(&self) -> Fact<Profile> {
        Fact::new(Profile { name: self.profile.clone() })
    }
    fn timeout_seconds(&self) -> Fact<u32> {
        Fact::new(self.timeout_seconds)
    }
    fn queued_seconds(&self) -> Fact<u32> {
        Fact::new(self.queued_seconds)
    }
    fn attempt(&self) -> Fact<u32> {
        Fact::new(u32::try_from(self.earlier_failures.len()).unwrap_or(u32::MAX).saturating_add(1))
    }
    fn earlier_failures(&self) -> Fact<Vec<EarlierFailure>> {
        Fact::new(self.earlier_failures.clone())
    }
    fn fact(&self, name: &str) -> Fact<Option<(String, Assurance)>> {
        Fact::new(self.facts.get(name).cloned())
    }
    fn claimed_image(&self) -> Claim<Option<String>> {
        Claim::new(self.image.clone())
    }
    fn claimed_services(&self) -> Claim<Vec<String>> {
        Claim::new(self.services.clone())
    }
    fn claimed_variable(&self, name: &str) -> Claim<Option<String>> {
        Claim::new(self.variables.get(name).cloned())
    }
    fn claimed_variable_names(&self) -> Claim<Vec<String>> {
        Claim::new(self.variables.keys().cloned().collect())
    }
    fn clusters(&self) -> Vec<Cluster> {
        self.clusters.clone()
    }
    fn task_definitions(&self) -> Vec<TaskDefinition> {
        self.task_definitions.clone()
    }
    fn roles(&self) -> Vec<Role> {
        self.roles.clone()
    }
    fn limits(&self) -> Limits {
        self.limits.clone()
    }
    fn log(&self, _level: Level, _message: &str) {}
    fn notice(&self, message: &str) {
        self.notices.borrow_mut().push(message.to_owned());
    }
}
