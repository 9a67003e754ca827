//! A written job and what a policy shall answer to it: one file a case, TOML or YAML.
//!
//! docs/writing-policies.md describes the format. Whatever a fixture does not say has the value of
//! [`Fixture::default`]: a first attempt of a job on an unprotected branch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AuthoringError, failed};
use crate::job::{GitRef, Job, Project, RefKind, Variable};
use crate::placement::bounds::Bounds;
use crate::placement::catalog::{Catalog, Cluster, Hosts, Role, TaskDefinition};
use crate::placement::size::Size;
use crate::placement::{Arch, Candidate, Capacity};
use crate::policy::{Assurance, EarlierFailure, FailureKind, Question};
use crate::secret::Secret;
use crate::settings::ClaimsTaint;

/// One case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fixture {
    /// Of the case; empty is the file's name.
    pub name: String,
    /// The policy's; `null` is an empty table.
    pub settings: Value,
    /// Instead of `settings`: a file beside the fixture.
    pub settings_file: Option<PathBuf>,
    /// What the host vouches for.
    pub facts: Facts,
    /// What the pipeline's author wrote.
    pub claims: Claims,
    /// What the operator offers.
    pub catalog: Offer,
    /// Instead of `catalog`: a file beside the fixture.
    pub catalog_file: Option<PathBuf>,
    /// What a mutator or a guard is asked about.
    pub candidates: Vec<GivenCandidate>,
    /// What must come out.
    pub expect: Expectation,
}

/// `[facts]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the fact of the same name in wit/policy.wit")]
pub struct Facts {
    pub job_id: u64,
    pub job_name: String,
    pub job_stage: String,
    pub tags: BTreeSet<String>,
    pub tags_assurance: Assurance,
    pub pipeline_id: u64,
    pub user_id: u64,
    pub project: GivenProject,
    #[serde(rename = "ref")]
    pub git_ref: GivenRef,
    pub profile: String,
    pub timeout_seconds: u64,
    pub queued_seconds: u64,
    /// `None` is one more than the earlier failures.
    pub attempt: Option<u32>,
    pub earlier_failures: Vec<GivenFailure>,
    /// Further facts by dotted name, vouched for by the server.
    pub more: BTreeMap<String, String>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            job_id: 1,
            job_name: "test".to_owned(),
            job_stage: "test".to_owned(),
            tags: BTreeSet::new(),
            tags_assurance: Assurance::Server,
            pipeline_id: 1,
            user_id: 1,
            project: GivenProject::default(),
            git_ref: GivenRef::default(),
            profile: "test".to_owned(),
            timeout_seconds: 3600,
            queued_seconds: 1,
            attempt: None,
            earlier_failures: Vec::new(),
            more: BTreeMap::new(),
        }
    }
}

/// `facts.project`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the field of the same name in wit/policy.wit")]
pub struct GivenProject {
    pub id: u64,
    pub full_path: String,
    pub namespace_id: u64,
    pub root_namespace_id: u64,
}

impl Default for GivenProject {
    fn default() -> Self {
        let full_path = "group/project".to_owned();
        Self { id: 1, full_path, namespace_id: 1, root_namespace_id: 1 }
    }
}

/// `facts.ref`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the field of the same name in wit/policy.wit")]
pub struct GivenRef {
    pub name: String,
    pub kind: GivenRefKind,
    pub sha: String,
    pub protected: Option<bool>,
}

impl Default for GivenRef {
    fn default() -> Self {
        Self {
            name: "feature".to_owned(),
            kind: GivenRefKind::Branch,
            sha: "0".repeat(40),
            protected: Some(false),
        }
    }
}

/// `facts.ref.kind`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the case of the same name in wit/policy.wit")]
pub enum GivenRefKind {
    Branch,
    Tag,
    Other,
}

/// An entry of `facts.earlier_failures`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenFailure {
    /// What policies react to.
    pub kind: FailureKind,
    /// One line.
    #[serde(default)]
    pub detail: String,
}

/// `[claims]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the claim of the same name in wit/policy.wit")]
pub struct Claims {
    pub image: Option<String>,
    pub services: Vec<String>,
    pub variables: BTreeMap<String, String>,
}

/// `[catalog]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Offer {
    /// By name.
    pub clusters: BTreeMap<String, GivenCluster>,
    /// By name.
    pub task_definitions: BTreeMap<String, GivenDefinition>,
    /// By name.
    pub roles: BTreeMap<String, GivenRole>,
    /// The profile's bounds.
    pub limits: GivenLimits,
}

/// A cluster of a fixture.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenCluster {
    /// The operator's notes.
    pub labels: BTreeMap<String, String>,
    /// On instances of the operator's, not on Fargate: any size that fits.
    pub on_instances: bool,
    /// Whether Spot can be had.
    pub has_spot: bool,
}

impl Default for GivenCluster {
    fn default() -> Self {
        Self { labels: BTreeMap::new(), on_instances: false, has_spot: true }
    }
}

/// A task definition of a fixture.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenDefinition {
    /// What it is there for.
    pub archs: Vec<Arch>,
    /// 1,024 are one vCPU.
    pub cpu_units: u32,
    /// MiB.
    pub memory_mib: u32,
    /// The operator's notes.
    pub labels: BTreeMap<String, String>,
}

impl Default for GivenDefinition {
    fn default() -> Self {
        Self {
            archs: vec![Arch::X86_64],
            cpu_units: Size::DEFAULT.cpu_units,
            memory_mib: Size::DEFAULT.memory_mib,
            labels: BTreeMap::new(),
        }
    }
}

/// A role of a fixture.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenRole {
    /// Marked by the operator.
    pub privileged: bool,
}

/// `catalog.limits`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenLimits {
    /// 1,024 are one vCPU.
    pub max_cpu_units: u32,
    /// MiB.
    pub max_memory_mib: u32,
    /// GiB.
    pub max_ephemeral_storage_gib: u32,
    /// What may be bought.
    pub capacities: BTreeSet<Capacity>,
}

impl Default for GivenLimits {
    fn default() -> Self {
        Self {
            max_cpu_units: 4096,
            max_memory_mib: 30_720,
            max_ephemeral_storage_gib: 200,
            capacities: BTreeSet::from([Capacity::OnDemand, Capacity::Spot]),
        }
    }
}

/// An entry of `candidates`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is the field of the same name in wit/policy.wit")]
pub struct GivenCandidate {
    pub cluster: String,
    pub task_definition: String,
    #[serde(default = "x86_64")]
    pub arch: Arch,
    #[serde(default = "on_demand")]
    pub capacity: Capacity,
    #[serde(default)]
    pub cpu_units: Option<u32>,
    #[serde(default)]
    pub memory_mib: Option<u32>,
    #[serde(default)]
    pub ephemeral_storage_gib: Option<u32>,
    #[serde(default)]
    pub role: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub reason: String,
}

const fn x86_64() -> Arch {
    Arch::X86_64
}

const fn on_demand() -> Capacity {
    Capacity::OnDemand
}

/// `[expect]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expectation {
    /// Nothing is checked without it; `policy test --update` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Verdict>,
    /// Of a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// At most this much fuel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fuel: Option<u64>,
    /// Generated variants that must not change the decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unchanged_under: Vec<Variant>,
    /// The fields of a placement that those must not change; empty is all but `labels` and `reason`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unchanged_fields: Vec<String>,
    /// Exactly what is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<ExpectedReads>,
    /// Fields of the best placement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<BTreeMap<String, Value>>,
    /// Fields of all placements, best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placements: Option<Vec<BTreeMap<String, Value>>>,
}

/// `expect.reads`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedReads {
    /// Not checked when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<BTreeSet<String>>,
    /// Not checked when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<BTreeSet<String>>,
}

/// `expect.decision`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Placements; of a guard, that it accepts one.
    Place,
    /// No opinion.
    Abstain,
    /// A refusal, by the policy or by the catalog's bounds.
    Reject,
}

impl Verdict {
    /// As a fixture spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Abstain => "abstain",
            Self::Reject => "reject",
        }
    }
}

/// `expect.unchanged_under`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Every claim that the policy read, and each predefined variable, says something else.
    ForgedClaims,
    /// GitLab does not say whether the ref is protected: the same as not protected.
    MissingProtected,
    /// The project's path is another, its ids are the same.
    RenamedProject,
}

impl Variant {
    /// As a fixture spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::ForgedClaims => "forged-claims",
            Self::MissingProtected => "missing-protected",
            Self::RenamedProject => "renamed-project",
        }
    }
}

impl Fixture {
    /// Reads the file at `path`, and the files that it names.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or is no fixture, with the parser's words.
    pub fn read(path: &Path) -> Result<Self, AuthoringError> {
        let mut fixture: Self = parse(path)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        if let Some(file) = &fixture.settings_file {
            fixture.settings = parse(&directory.join(file))?;
        }
        if let Some(file) = &fixture.catalog_file {
            fixture.catalog = parse(&directory.join(file))?;
        }
        if fixture.settings.is_null() {
            fixture.settings = Value::Object(serde_json::Map::new());
        }
        if fixture.name.is_empty() {
            fixture.name = super::name_of(path);
        }
        Ok(fixture)
    }

    /// The job that the policy is asked about.
    pub fn job(&self) -> Job {
        let facts = &self.facts;
        Job {
            id: facts.job_id,
            name: facts.job_name.clone(),
            stage: facts.job_stage.clone(),
            project: Project {
                id: facts.project.id,
                full_path: facts.project.full_path.clone(),
                namespace_id: facts.project.namespace_id,
                root_namespace_id: facts.project.root_namespace_id,
            },
            pipeline_id: facts.pipeline_id,
            user_id: facts.user_id,
            git_ref: GitRef {
                name: facts.git_ref.name.clone(),
                kind: match facts.git_ref.kind {
                    GivenRefKind::Branch => RefKind::Branch,
                    GivenRefKind::Tag => RefKind::Tag,
                    GivenRefKind::Other => RefKind::Other,
                },
                sha: facts.git_ref.sha.clone(),
                protected: facts.git_ref.protected,
            },
            timeout: Duration::from_secs(facts.timeout_seconds),
            queued: Duration::from_secs(facts.queued_seconds),
            image: self.claims.image.clone(),
            services: self.claims.services.clone(),
            variables: self
                .claims
                .variables
                .iter()
                .map(|(key, value)| Variable {
                    key: key.clone(),
                    value: Secret::new(value.clone()),
                    masked: false,
                    file: false,
                })
                .collect(),
        }
    }

    /// Everything that a [`Question`] borrows.
    pub fn asked(&self) -> Asked {
        let facts = &self.facts;
        let earlier_failures: Vec<EarlierFailure> = (1..)
            .zip(&facts.earlier_failures)
            .map(|(attempt, failure)| EarlierFailure {
                attempt,
                kind: failure.kind,
                detail: failure.detail.clone(),
                placement: None,
            })
            .collect();
        let next = u32::try_from(earlier_failures.len()).unwrap_or(u32::MAX).saturating_add(1);
        let more = facts
            .more
            .iter()
            .map(|(name, value)| (name.clone(), (value.clone(), Assurance::Server)))
            .collect();
        Asked {
            job: self.job(),
            profile: facts.profile.clone(),
            tags: facts.tags.clone(),
            tags_assurance: facts.tags_assurance,
            attempt: facts.attempt.unwrap_or(next),
            earlier_failures,
            facts: more,
            catalog: self.catalog.catalog(),
            bounds: self.catalog.bounds(),
        }
    }

    /// What a mutator or a guard is asked about.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.candidates.iter().map(GivenCandidate::candidate).collect()
    }
}

impl Offer {
    fn catalog(&self) -> Catalog {
        Catalog {
            clusters: self
                .clusters
                .iter()
                .map(|(name, given)| {
                    let hosts = if given.on_instances { Hosts::Instances } else { Hosts::Fargate };
                    let labels = given.labels.clone();
                    (name.clone(), Cluster { labels, hosts, has_spot: given.has_spot })
                })
                .collect(),
            task_definitions: self
                .task_definitions
                .iter()
                .map(|(name, given)| {
                    let definition = TaskDefinition {
                        archs: given.archs.clone(),
                        size: Size { cpu_units: given.cpu_units, memory_mib: given.memory_mib },
                        labels: given.labels.clone(),
                    };
                    (name.clone(), definition)
                })
                .collect(),
            roles: self
                .roles
                .iter()
                .map(|(name, role)| (name.clone(), Role { privileged: role.privileged }))
                .collect(),
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            clusters: self.clusters.keys().cloned().collect(),
            task_definitions: self.task_definitions.keys().cloned().collect(),
            roles: self.roles.keys().cloned().collect(),
            capacities: self.limits.capacities.clone(),
            max_cpu_units: self.limits.max_cpu_units,
            max_memory_mib: self.limits.max_memory_mib,
            max_ephemeral_storage_gib: self.limits.max_ephemeral_storage_gib,
        }
    }
}

impl GivenCandidate {
    fn candidate(&self) -> Candidate {
        Candidate {
            cluster: self.cluster.clone(),
            task_definition: self.task_definition.clone(),
            arch: self.arch,
            capacity: self.capacity,
            cpu_units: self.cpu_units,
            memory_mib: self.memory_mib,
            ephemeral_storage_gib: self.ephemeral_storage_gib,
            role: self.role.clone().filter(|role| !role.is_empty()),
            labels: self.labels.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// What a [`Question`] borrows, owned.
#[derive(Debug, Clone)]
pub struct Asked {
    /// See [`Question::job`].
    pub job: Job,
    /// See [`Question::profile`].
    pub profile: String,
    /// See [`Question::tags`].
    pub tags: BTreeSet<String>,
    /// See [`Question::tags_assurance`].
    pub tags_assurance: Assurance,
    /// See [`Question::attempt`].
    pub attempt: u32,
    /// See [`Question::earlier_failures`].
    pub earlier_failures: Vec<EarlierFailure>,
    /// See [`Question::facts`].
    pub facts: BTreeMap<String, (String, Assurance)>,
    /// See [`Question::catalog`].
    pub catalog: Catalog,
    /// See [`Question::bounds`].
    pub bounds: Bounds,
}

impl Asked {
    /// The question.
    pub fn question(&self, claims_taint: ClaimsTaint) -> Question<'_> {
        Question {
            job: &self.job,
            profile: &self.profile,
            tags: &self.tags,
            tags_assurance: self.tags_assurance,
            attempt: self.attempt,
            earlier_failures: &self.earlier_failures,
            facts: &self.facts,
            catalog: &self.catalog,
            bounds: &self.bounds,
            claims_taint,
        }
    }
}

/// TOML or YAML, by the file's ending.
pub(super) fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, AuthoringError> {
    let text = std::fs::read_to_string(path).map_err(failed("read", path))?;
    let reason = |reason: String| AuthoringError::Fixture { path: path.to_owned(), reason };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => {
            serde_yaml_ng::from_str(&text).map_err(|error| reason(error.to_string()))
        }
        Some("toml") => toml::from_str(&text).map_err(|error| reason(error.to_string())),
        _ => Err(reason("expected a name that ends in .toml, .yaml or .yml".to_owned())),
    }
}

/// The fixtures of `paths`, in order: files as they are, of directories what lies directly in them.
///
/// # Errors
///
/// Fails when a directory cannot be read, or when there is no fixture at all.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, AuthoringError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found: Vec<PathBuf> = std::fs::read_dir(path)
            .map_err(failed("read", path))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let extension = path.extension().and_then(|extension| extension.to_str());
                path.is_file() && matches!(extension, Some("toml" | "yaml" | "yml"))
            })
            .collect();
        found.sort();
        files.extend(found);
    }
    if files.is_empty() {
        let looked: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(AuthoringError::Unusable(format!(
            "no fixture in {}: expected files that end in .toml, .yaml or .yml",
            looked.join(", ")
        )));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_yaml_say_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        write("offer.toml", "[clusters.ci]\n[roles.r]\nprivileged = true\n");
        let toml = write(
            "a.toml",
            "catalog_file = \"offer.toml\"\n[facts]\nref = { protected = true }\nearlier_failures = [{ kind = \"capacity\" }]\n[expect]\ndecision = \"place\"\nfirst = { role = \"\" }\n",
        );
        let yaml = write(
            "b.yaml",
            "catalog_file: offer.toml\nfacts: { ref: { protected: true }, earlier_failures: [{ kind: capacity }] }\nexpect: { decision: place, first: { role: '' } }\n",
        );
        for path in [&toml, &yaml] {
            let fixture = Fixture::read(path).unwrap();
            let asked = fixture.asked();
            assert_eq!((asked.attempt, asked.earlier_failures.len()), (2, 1));
            assert_eq!(asked.job.git_ref.protected, Some(true));
            assert!(asked.catalog.roles["r"].privileged);
            assert!(asked.bounds.clusters.contains("ci"));
            assert_eq!(fixture.expect.decision, Some(Verdict::Place));
            assert_eq!(fixture.settings, serde_json::json!({}));
        }
        assert_eq!(Fixture::read(&toml).unwrap().name, "a");
        assert_eq!(files(&[directory.path().to_owned()]).unwrap().len(), 3);
    }

    #[test]
    fn a_misspelt_key_is_told_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.toml");
        std::fs::write(&path, "[facts]\nprotect = true\n").unwrap();
        let error = Fixture::read(&path).unwrap_err().to_string();
        assert!(error.contains("unknown field `protect`") && error.contains("line 2"), "{error}");
        let error = files(&[directory.path().join("x")]).unwrap();
        assert_eq!(error.len(), 1);
        std::fs::remove_file(&path).unwrap();
        assert!(
            files(&[directory.path().to_owned()])
                .unwrap_err()
                .to_string()
                .starts_with("no fixture")
        );
    }
}
