//! A written job and what a policy shall answer to it: one file a case, TOML or YAML.
//!
//! docs/writing-policies.md describes the format. Whatever a fixture does not say has the value of
//! [`Fixture::default`]: a first attempt of a job on an unprotected branch.

mod expectation;
mod offer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::expectation::{Expectation, ExpectedReads, Variant, Verdict};
pub use self::offer::{
    GivenCandidate, GivenCluster, GivenDefinition, GivenLimits, GivenRole, Offer,
};
use super::{AuthoringError, failed};
use crate::job::{GitRef, Job, Project, RefKind, Variable};
use crate::placement::Candidate;
use crate::placement::bounds::Bounds;
use crate::placement::catalog::Catalog;
use crate::policy::{Assurance, EarlierFailure, FailureKind, Question};
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
    /// Where that attempt ran, for the hook `recovery`; must be in bounds, as the driver tells a policy of no other.
    #[serde(default)]
    pub placement: Option<GivenCandidate>,
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
                .map(|(key, value)| Variable::plain(key.clone(), value.clone()))
                .collect(),
        }
    }

    /// Everything that a [`Question`] borrows.
    pub fn asked(&self) -> Asked {
        let facts = &self.facts;
        let (catalog, bounds) = (self.catalog.catalog(), self.catalog.bounds());
        let ran = |candidate: &GivenCandidate| bounds.check(&candidate.candidate(), &catalog).ok();
        let earlier_failures: Vec<EarlierFailure> = (1..)
            .zip(&facts.earlier_failures)
            .map(|(attempt, failure)| EarlierFailure {
                attempt,
                kind: failure.kind,
                detail: failure.detail.clone(),
                placement: failure.placement.as_ref().and_then(ran),
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
            catalog,
            bounds,
        }
    }

    /// What a mutator or a guard is asked about.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.candidates.iter().map(GivenCandidate::candidate).collect()
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

    #[test]
    fn the_guides_fixture_is_one_and_shows_all_that_there_is() {
        const GUIDE: &str = include_str!("../../../docs/writing-policies.md");
        let block = GUIDE.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let block = block.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guide.toml");
        std::fs::write(&path, block).unwrap();
        std::fs::create_dir(directory.path().join("shared")).unwrap();
        std::fs::write(
            directory.path().join("shared/catalog.toml"),
            "[clusters.ci]\n[task_definitions.node]\n",
        )
        .unwrap();
        let fixture = Fixture::read(&path).unwrap_or_else(|error| panic!("{error}\n{block}"));
        let asked = fixture.asked();
        assert_eq!((asked.attempt, asked.job.project.id), (2, 7));
        assert_eq!(fixture.candidates()[0].task_definition, "node");
        let expect = &fixture.expect;
        assert_eq!((expect.decision, expect.unchanged_under.len()), (Some(Verdict::Place), 3));
        assert!(asked.bounds.clusters.contains("ci"));
        // Every key of `expect` is shown; a new one shall be as well.
        let whole = Expectation {
            decision: Some(Verdict::Place),
            code: Some(String::new()),
            max_fuel: Some(1),
            unchanged_under: vec![Variant::ForgedClaims],
            unchanged_fields: vec![String::new()],
            reads: Some(ExpectedReads::default()),
            first: Some(BTreeMap::new()),
            placements: Some(Vec::new()),
        };
        for key in serde_json::to_value(whole).unwrap().as_object().unwrap().keys() {
            assert!(block.contains(key.as_str()), "the guide does not show `{key}`");
        }
    }
}
