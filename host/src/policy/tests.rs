//! The chain and the sandbox, with the real `by-tag` and with guests that misbehave.

mod by_tag;
mod chain;
mod fuzz;
mod guests;
mod hostile;
mod interface;
mod recorded;
mod sandbox;
mod store;
mod villains;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::job::{GitRef, Project, RefKind, Variable};
use crate::placement::catalog::{Cluster, Role, TaskDefinition};
use crate::placement::size::Size;
use crate::placement::{Arch, Capacity};
use crate::secret::Secret;
use crate::settings::{ClaimsTaint, Component, Mode, OnError, Policy};
use guests::Guest;

/// A store and the components that a test writes.
struct House {
    directory: PathBuf,
    store: Store,
    /// Goes with the test.
    _own: Option<TempDir>,
}

impl House {
    /// For tests of the store itself.
    fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let directory = own.path().to_owned();
        let store = Store::open(&directory.join("store")).unwrap();
        Self { directory, store, _own: Some(own) }
    }

    /// For all others: a compiler that is itself not optimised takes seconds for `by-tag`.
    fn shared() -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policy-tests");
        fs::create_dir_all(&directory).unwrap();
        let store = Store::open(&directory.join("store")).unwrap();
        Self { directory, store, _own: None }
    }

    fn policy(&self, bytes: &[u8]) -> Policy {
        let sha256 = digest(bytes);
        let component = self.directory.join(format!("{sha256}.wasm"));
        // Other tests may read the same file: never half of it.
        let mut file = tempfile::NamedTempFile::new_in(&self.directory).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        file.persist(&component).unwrap();
        policy(component, sha256, json!({}))
    }

    fn compiled(&self, policy: &Policy) -> PathBuf {
        self.store.ensure("p", policy).unwrap()
    }

    fn again(&self) -> Store {
        Store::open(&self.directory.join("store")).unwrap()
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn policy(component: PathBuf, sha256: String, settings: Value) -> Policy {
    Policy {
        settings,
        // Far more than any of these needs, so that a busy machine fails no test.
        deadline: Duration::from_secs(20),
        ..Policy::new(Component::File(component), sha256)
    }
}

fn built(name: &str, settings: Value) -> Policy {
    let component =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/policies/{name}.wasm"));
    let bytes = fs::read(&component).unwrap_or_else(|_| {
        panic!("target/policies/{name}.wasm is missing: run scripts/build-plugins")
    });
    policy(component, digest(&bytes), settings)
}

fn file_of(policy: &Policy) -> &Path {
    let Component::File(path) = &policy.component else {
        panic!("{} is no file", policy.component)
    };
    path
}

fn by_tag(settings: Value) -> Policy {
    built("by-tag", settings)
}

fn rules() -> Value {
    json!({"rules": [
        {"tags": ["dev"], "cluster": "dev", "task_definition": "node", "cpu": "0.5"},
        {"tags": ["arm64"], "arch": "arm64"},
        {"tags": ["cheap"], "alternatives": [{"capacity": "spot"}, {"capacity": "on-demand"}]},
        {"tags": ["deploy"], "role": "deploy"},
        {"tags": ["prod"], "cluster": "prod", "task_definition": "node"},
    ]})
}

/// A question with everything that it borrows.
struct Asked {
    job: Job,
    tags: BTreeSet<String>,
    earlier_failures: Vec<EarlierFailure>,
    facts: BTreeMap<String, (String, Assurance)>,
    catalog: Catalog,
    bounds: Bounds,
    claims_taint: ClaimsTaint,
}

impl Asked {
    fn with_tags(tags: &[&str]) -> Self {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            job: Job {
                id: 7,
                name: "build".to_owned(),
                stage: "build".to_owned(),
                project: Project {
                    id: 1,
                    full_path: "acme/app".to_owned(),
                    namespace_id: 2,
                    root_namespace_id: 2,
                },
                pipeline_id: 3,
                user_id: 4,
                git_ref: GitRef {
                    name: "main".to_owned(),
                    kind: RefKind::Branch,
                    sha: "0".repeat(40),
                    protected: Some(true),
                },
                timeout: Duration::from_secs(3600),
                queued: Duration::from_secs(1),
                image: Some("rust:1.95".to_owned()),
                services: Vec::new(),
                variables: Vec::new(),
            },
            tags: set(tags),
            earlier_failures: Vec::new(),
            facts: BTreeMap::new(),
            catalog: Catalog {
                clusters: [("dev".to_owned(), Cluster::default())].into(),
                task_definitions: [(
                    "node".to_owned(),
                    TaskDefinition {
                        archs: vec![Arch::X86_64, Arch::Arm64],
                        size: Size::DEFAULT,
                        labels: BTreeMap::new(),
                    },
                )]
                .into(),
                roles: [("deploy".to_owned(), Role { privileged: true })].into(),
            },
            bounds: Bounds {
                clusters: set(&["dev"]),
                task_definitions: set(&["node"]),
                roles: set(&["deploy"]),
                capacities: [Capacity::OnDemand, Capacity::Spot].into(),
                max_cpu_units: 4096,
                max_memory_mib: 16_384,
                max_ephemeral_storage_gib: 20,
            },
            claims_taint: ClaimsTaint::Allow,
        }
    }

    fn question(&self) -> Question<'_> {
        Question {
            job: &self.job,
            profile: "dev",
            tags: &self.tags,
            tags_assurance: Assurance::Server,
            attempt: 1,
            earlier_failures: &self.earlier_failures,
            facts: &self.facts,
            catalog: &self.catalog,
            bounds: &self.bounds,
            claims_taint: self.claims_taint,
        }
    }

    fn decide(&self, house: &House, chain: &[(&str, &Policy)]) -> Result<Decision, PolicyError> {
        decide(&self.question(), chain, &house.store)
    }
}

fn broken(result: Result<Decision, PolicyError>) -> BrokenKind {
    match result {
        Err(PolicyError::Broken { what, .. }) => what,
        other => panic!("expected a broken policy: {other:?}"),
    }
}

fn rejected(result: Result<Decision, PolicyError>) -> Vec<Refusal> {
    match result {
        Err(PolicyError::Rejected { reasons }) => reasons,
        other => panic!("expected a rejection: {other:?}"),
    }
}

/// `result<_, rejection>` in memory: the first byte is the case; the rejection's texts are empty.
const GUARD_REFUSES: &str = "(i32.store8 (i32.const 2048) (i32.const 1)) i32.const 2048";
const GUARD_ACCEPTS: &str = "i32.const 2048";
