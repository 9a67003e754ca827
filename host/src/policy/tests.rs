//! The chain and the sandbox, with the real `by-tag` and with guests that misbehave.

mod guests;
mod hostile;
mod interface;
mod sandbox;

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

// --- by-tag, the real component ---

#[test]
fn by_tag_places_a_job() {
    let house = House::shared();
    let policy = by_tag(rules());
    let decision = Asked::with_tags(&["dev", "arm64", "cheap"])
        .decide(&house, &[("by-tag", &policy)])
        .unwrap();
    let shown: Vec<String> = decision.placements.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "cluster dev, task definition node, arm64, spot, 0.5 vCPU / 2 GiB, the task definition's role",
            "cluster dev, task definition node, arm64, on-demand, 0.5 vCPU / 2 GiB, the task definition's role",
        ]
    );
    assert_eq!(decision.placements[0].reason, "rules [dev], [arm64], [cheap], alternative 1 of 2");
    let [step] = &decision.steps[..] else { panic!("one step") };
    assert_eq!((step.policy.as_str(), step.kind), ("by-tag", Kind::Placer));
    assert_eq!(step.facts_read, BTreeSet::from(["job-tags".to_owned()]));
    assert_eq!(step.claims_read, BTreeSet::new());
    assert!(step.fuel > 0 && step.fuel < 1_000_000, "{}", step.fuel);
}

#[test]
fn fuel_is_the_same_each_time() {
    let house = House::shared();
    let policy = by_tag(rules());
    let asked = Asked::with_tags(&["dev"]);
    let fuel = || asked.decide(&house, &[("by-tag", &policy)]).unwrap().steps[0].fuel;
    assert_eq!(fuel(), fuel());
}

#[test]
fn by_tag_rejects_and_says_why() {
    let house = House::shared();
    let policy = by_tag(rules());
    let [refusal] =
        &rejected(Asked::with_tags(&["gpu"]).decide(&house, &[("by-tag", &policy)]))[..]
    else {
        panic!("one reason")
    };
    assert_eq!(refusal.code, "unknown-tag");
    assert_eq!(
        refusal.to_string(),
        "policy `by-tag`: no rule knows the tag [gpu] of this job's tags [gpu] (unknown-tag); rules know the \
         tags [arm64, cheap, deploy, dev, prod]; an operator can add a rule, or set `unknown_tags = \"ignore\"`"
    );
}

#[test]
fn bounds_bind_policies() {
    let house = House::shared();
    let policy = by_tag(rules());
    let [refusal] =
        &rejected(Asked::with_tags(&["prod"]).decide(&house, &[("by-tag", &policy)]))[..]
    else {
        panic!("one reason")
    };
    assert_eq!(refusal.code, "out-of-bounds");
    assert_eq!(refusal.message, "cluster `prod` is not allowed: the profile allows `dev`");

    // What is left of the candidates is used.
    let mut asked = Asked::with_tags(&["dev", "cheap"]);
    asked.bounds.capacities = [Capacity::OnDemand].into();
    let decision = asked.decide(&house, &[("by-tag", &policy)]).unwrap();
    assert_eq!(decision.placements.len(), 1);
    assert_eq!(decision.placements[0].capacity, Capacity::OnDemand);
    assert!(
        decision.steps[0]
            .outcome
            .ends_with("; refused: capacity `spot` is not allowed: the profile allows `on-demand`"),
        "{}",
        decision.steps[0].outcome
    );
}

#[test]
fn wrong_settings_are_all_told() {
    let house = House::shared();
    let policy = by_tag(json!({"rules": [{"tags": [], "arch": "x86"}], "more": 1}));
    let Err(PolicyError::Settings { policy, problems }) = house.store.ensure("by-tag", &policy)
    else {
        panic!("wrong settings")
    };
    assert_eq!(policy, "by-tag");
    assert_eq!(
        problems,
        [
            "more: is unknown, expected one of rules, unknown_tags",
            "rules[0].tags: is an empty list, expected at least one tag such as [\"dev\"]",
            "rules[0].arch: is `x86`, expected `x86_64` or `arm64`",
        ]
    );
}

// --- the chain ---

#[test]
fn placers_are_asked_until_one_answers() {
    let house = House::shared();
    let abstains = house.policy(&Guest::default().placer());
    let policy = by_tag(rules());
    let decision = Asked::with_tags(&["dev"])
        .decide(&house, &[("first", &abstains), ("by-tag", &policy), ("third", &abstains)])
        .unwrap();
    let outcomes: Vec<&str> = decision.steps.iter().map(|step| step.policy.as_str()).collect();
    assert_eq!(outcomes, ["first", "by-tag"]);
    assert_eq!(decision.steps[0].outcome, "abstained");

    let error = Asked::with_tags(&["dev"])
        .decide(&house, &[("first", &abstains), ("second", &abstains)])
        .unwrap_err();
    assert_eq!(error.to_string(), "no policy of profile `dev` answered: asked first, second");
}

/// `result<_, rejection>` in memory: the first byte is the case; the rejection's texts are empty.
const GUARD_REFUSES: &str = "(i32.store8 (i32.const 2048) (i32.const 1)) i32.const 2048";
const GUARD_ACCEPTS: &str = "i32.const 2048";

#[test]
fn guards_refuse_and_fail_closed() {
    let house = House::shared();
    let placer = by_tag(rules());
    let asked = Asked::with_tags(&["dev", "cheap"]);
    let accepts = house.policy(&Guest::guard(GUARD_ACCEPTS));
    let decision = asked.decide(&house, &[("g", &accepts), ("by-tag", &placer)]).unwrap();
    assert_eq!(decision.placements.len(), 2);
    assert_eq!(decision.steps[1].outcome, "accepted 2 of 2");

    let refuses = house.policy(&Guest::guard(GUARD_REFUSES));
    let reasons = rejected(asked.decide(&house, &[("by-tag", &placer), ("g", &refuses)]));
    assert_eq!(reasons.len(), 1, "the same to both candidates: {reasons:?}");
    assert_eq!(reasons[0].to_string(), "policy `g`: no reason given (rejected)");

    let crashes =
        Policy { on_error: OnError::Abstain, ..house.policy(&Guest::guard("unreachable")) };
    let what = broken(asked.decide(&house, &[("by-tag", &placer), ("g", &crashes)]));
    assert!(matches!(what, BrokenKind::Trap(_)), "{what:?}");
}

#[test]
fn a_mutator_changes_what_the_bounds_then_check() {
    let house = House::shared();
    let placer = by_tag(rules());
    let mutator = built("examples/more-memory", json!({}));
    let chain = [("more-memory", &mutator), ("by-tag", &placer)];
    let mut asked = Asked::with_tags(&["dev"]);
    let out_of_memory = |attempt| EarlierFailure {
        attempt,
        kind: FailureKind::OutOfMemory,
        detail: String::new(),
        placement: None,
    };
    let size = |cpu_units, memory_mib| Size { cpu_units, memory_mib };
    let first = asked.decide(&house, &chain).unwrap();
    assert_eq!(first.placements[0].size, size(512, 2048));
    assert_eq!(first.notices, [""; 0]);

    asked.earlier_failures.push(out_of_memory(1));
    asked.earlier_failures.push(out_of_memory(2));
    let third = asked.decide(&house, &chain).unwrap();
    // 8 GiB are not to be had with half a vCPU.
    assert_eq!(third.placements[0].size, size(1024, 8192));
    assert_eq!(third.notices, ["more-memory: 4 times the memory, since an attempt ran out of it"]);
    assert_eq!(third.steps[1].facts_read, BTreeSet::from(["earlier-failures".to_owned()]));

    asked.bounds.max_memory_mib = 4096;
    let reasons = rejected(asked.decide(&house, &chain));
    assert_eq!(
        reasons[0].to_string(),
        "policy `more-memory`: size 0.5 vCPU / 8 GiB rounds up to 1 vCPU / 8 GiB, and the profile allows at most \
         4 vCPU / 4 GiB (out-of-bounds)"
    );
}

#[test]
fn a_guard_reads_facts_and_refuses() {
    let house = House::shared();
    let placer = by_tag(rules());
    let guard = built("examples/protected-roles", json!({"roles": ["deploy"]}));
    let chain = [("by-tag", &placer), ("protected-roles", &guard)];
    let mut asked = Asked::with_tags(&["dev", "deploy"]);
    assert_eq!(asked.decide(&house, &chain).unwrap().placements.len(), 1);
    for protected in [Some(false), None] {
        asked.job.git_ref.protected = protected;
        let reasons = rejected(asked.decide(&house, &chain));
        assert_eq!(
            reasons[0].to_string(),
            "policy `protected-roles`: role `deploy` is for protected refs, and `main` is none \
             (unprotected-ref); protect the branch or the tag in GitLab"
        );
    }
    let Err(PolicyError::Settings { problems, .. }) =
        house.store.ensure("g", &built("examples/protected-roles", json!({})))
    else {
        panic!("wrong settings")
    };
    assert_eq!(problems, ["missing field `roles`"]);
}

#[test]
fn what_a_policy_reads_is_answered_and_recorded() {
    use bindings::{claims, facts};
    let mut asked = Asked::with_tags(&["dev"]);
    asked.facts.insert("pipeline.source".to_owned(), ("push".to_owned(), Assurance::Server));
    let inputs = std::sync::Arc::new(inputs::Inputs::new(&asked.question(), true));
    let mut guest = imports::Guest::new("p", inputs, 64);
    assert_eq!(facts::Host::get_project(&mut guest).full_path, "acme/app");
    assert_eq!(facts::Host::get_ref(&mut guest).protected, Some(true));
    assert_eq!(facts::Host::timeout_seconds(&mut guest), 3600);
    assert_eq!(facts::Host::fact_names(&mut guest), ["pipeline.source"]);
    let fact = facts::Host::fact(&mut guest, "pipeline.source".to_owned()).unwrap();
    assert_eq!(fact.0, "push");
    assert!(facts::Host::fact(&mut guest, "a\nb".to_owned()).is_none());
    assert_eq!(claims::Host::image(&mut guest).as_deref(), Some("rust:1.95"));
    assert_eq!(claims::Host::variable(&mut guest, "TARGET".to_owned()), None);
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    assert_eq!(
        names(&guest.reads.facts),
        "a b, fact-names, pipeline.source, project, ref, timeout-seconds"
    );
    assert_eq!(names(&guest.reads.claims), "image, variable TARGET");
}

#[test]
fn a_failing_policy_is_skipped_only_where_the_file_says_so() {
    let house = House::shared();
    let placer = by_tag(rules());
    let asked = Asked::with_tags(&["dev"]);
    for bytes in [
        Guest { place: "unreachable", ..Guest::default() }.placer(),
        Guest::mutator("unreachable"),
        // `ok` with an empty list.
        Guest::mutator("i32.const 2048"),
    ] {
        let strict = house.policy(&bytes);
        let lax = Policy { on_error: OnError::Abstain, ..strict.clone() };
        broken(asked.decide(&house, &[("bad", &strict), ("by-tag", &placer)]));
        let decision = asked.decide(&house, &[("bad", &lax), ("by-tag", &placer)]).unwrap();
        assert_eq!(decision.placements.len(), 1);
        let [notice] = &decision.notices[..] else { panic!("{:?}", decision.notices) };
        assert!(notice.starts_with("policy `bad` ") && notice.ends_with("; it was skipped"));
    }
}

#[test]
fn a_chain_that_read_a_claim_gets_no_privileged_role() {
    let house = House::shared();
    let placer = by_tag(rules());
    let reads_image = Guest {
        imports: r#"(import "pointsman:policy/claims@0.1.0" "image" (func $image (param i32)))"#,
        // Crashes when there is no image.
        place: "(call $image (i32.const 2048))
            (if (i32.eqz (i32.load8_u (i32.const 2048))) (then unreachable))
            i32.const 1024",
        ..Guest::default()
    };
    let reader = house.policy(&reads_image.placer());
    let chain = [("reader", &reader), ("by-tag", &placer)];
    let mut asked = Asked::with_tags(&["dev", "deploy"]);
    let decision = asked.decide(&house, &chain).unwrap();
    assert_eq!(decision.steps[0].claims_read, BTreeSet::from(["image".to_owned()]));
    assert_eq!(decision.placements[0].role.as_deref(), Some("deploy"));

    asked.claims_taint = ClaimsTaint::DenyPrivilegedRoles;
    let reasons = rejected(asked.decide(&house, &chain));
    assert_eq!(
        reasons[0].to_string(),
        "policy `by-tag`: role `deploy` is privileged, and policy `reader` read what the pipeline's author \
         wrote (image) (claims-taint); profile `dev` has `claims_taint = \"deny-privileged-roles\"`"
    );
    let decision = asked.decide(&house, &[("by-tag", &placer)]).unwrap();
    assert_eq!(decision.placements[0].role.as_deref(), Some("deploy"), "nobody read a claim");
}

#[test]
fn masked_and_file_variables_are_never_claims() {
    let mut asked = Asked::with_tags(&[]);
    let variable = |key: &str, value: &str, masked, file| Variable {
        key: key.to_owned(),
        value: Secret::new(value.to_owned()),
        masked,
        file,
    };
    asked.job.variables = vec![
        variable("A", "1", false, false),
        variable("A", "2", false, false),
        variable("TOKEN", "secret", true, false),
        variable("FILE", "content", false, true),
        variable("B", "visible", false, false),
        variable("B", "masked later", true, false),
    ];
    let inputs = inputs::Inputs::new(&asked.question(), true);
    assert_eq!(inputs.variables, BTreeMap::from([("A".to_owned(), "2".to_owned())]));
}

#[test]
fn notices_are_cleaned_and_capped() {
    let house = House::shared();
    let talks = Guest {
        imports: r#"(import "pointsman:policy/log@0.1.0" "notice" (func $notice (param i32 i32)))"#,
        data: r#"(data (i32.const 2048) "a\1b[2J\0ab")"#,
        place: "(local $i i32)
            (loop
                (call $notice (i32.const 2048) (i32.and (local.get $i) (i32.const 7)))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000))))
            i32.const 1024",
        ..Guest::default()
    };
    let talks = house.policy(&talks.placer());
    let placer = by_tag(rules());
    let decision = Asked::with_tags(&["dev"])
        .decide(&house, &[("talks", &talks), ("by-tag", &placer)])
        .unwrap();
    assert!(decision.notices.contains(&"talks: a [2J b".to_owned()), "{:?}", decision.notices);
    assert!(decision.notices.len() <= 10);
    assert!(decision.notices.iter().all(|notice| !notice.contains(char::is_control)));
}

// --- guests that misbehave ---

#[test]
fn each_way_to_break_the_contract_has_its_error() {
    let house = House::shared();
    let place = |place| Guest { place, ..Guest::default() }.placer();
    let asked = Asked::with_tags(&["dev"]);
    let spins = "(loop (br 0)) unreachable";
    for (bytes, expected) in [
        (place(spins), "used up its fuel of 200000000"),
        (place("unreachable"), "crashed: it panicked (`unreachable` was executed)"),
        (place("(i32.div_u (i32.const 1) (i32.const 0))"), "crashed: integer divide by zero"),
        (
            place("(drop (memory.grow (i32.const 2000))) i32.const 1024"),
            "wanted more memory than its 64 MiB",
        ),
        (
            Guest { data: r#"(data (i32.const 2048) "\09")"#, place: "i32.const 2048", ..Guest::default() }
                .placer(),
            "gave a wrong answer: ",
        ),
        (place("i32.const -4"), "gave a wrong answer: "),
        (
            // `place` with an empty list.
            place("i32.const 3000"),
            "gave a wrong answer: an empty list of placements",
        ),
        (
            // 60,000 placements in 64 KiB of memory.
            Guest {
                data: r#"(data (i32.const 2048) "\00\00\00\00\00\00\00\00\60\ea\00\00")"#,
                place: "i32.const 2048",
                ..Guest::default()
            }
            .placer(),
            "gave a wrong answer: ",
        ),
        (
            // One rejection whose message is 4 MiB of zeros.
            Guest {
                data: r#"(data (i32.const 2048) "\02\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\40\00")"#,
                place: "(drop (memory.grow (i32.const 100))) i32.const 2048",
                ..Guest::default()
            }
            .placer(),
            "moved more than 1024 KiB of data at once",
        ),
    ] {
        let policy = house.policy(&bytes);
        let what = broken(asked.decide(&house, &[("bad", &policy)])).to_string();
        assert!(what.starts_with(expected), "{what:?} is not {expected:?}");
    }
}

#[test]
fn the_deadline_ends_what_the_fuel_does_not() {
    let house = House::shared();
    let spins = Guest { place: "(loop (br 0)) unreachable", ..Guest::default() }.placer();
    let policy =
        Policy { fuel: u64::MAX / 2, deadline: Duration::from_millis(50), ..house.policy(&spins) };
    house.compiled(&policy);
    let started = Instant::now();
    let what = broken(Asked::with_tags(&[]).decide(&house, &[("spins", &policy)]));
    assert_eq!(what, BrokenKind::Deadline { deadline: Duration::from_millis(50) });
    assert!(started.elapsed() >= Duration::from_millis(50));
    // And again: the clock's thread goes on.
    let what = broken(Asked::with_tags(&[]).decide(&house, &[("spins", &policy)]));
    assert_eq!(what, BrokenKind::Deadline { deadline: Duration::from_millis(50) });
}

#[test]
fn a_deadline_of_one_call_leaves_others_alone() {
    let house = House::shared();
    let spins = Guest { place: "(loop (br 0)) unreachable", ..Guest::default() }.placer();
    let short =
        Policy { fuel: u64::MAX / 2, deadline: Duration::from_millis(30), ..house.policy(&spins) };
    let long = Policy { deadline: Duration::from_millis(300), ..short.clone() };
    house.compiled(&short);
    let asked = Asked::with_tags(&[]);
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| {
            let started = Instant::now();
            broken(asked.decide(&house, &[("long", &long)]));
            started.elapsed()
        });
        for _ in 0..3 {
            broken(asked.decide(&house, &[("short", &short)]));
        }
        assert!(patient.join().unwrap() >= Duration::from_millis(300));
    });
}

#[test]
fn what_is_no_policy_is_refused_before_it_runs() {
    let house = House::shared();
    let good = Guest::default().placer();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    for (bytes, expected) in [
        (b"".to_vec(), "is not a WebAssembly component: the file is empty"),
        (
            b"#!/bin/sh\n".to_vec(),
            "is not a WebAssembly component: it does not begin as WebAssembly does",
        ),
        (
            wat("(module)"),
            "is not a WebAssembly component: a core module; `wasm-tools component new` makes a component of it",
        ),
        (good[..good.len() / 2].to_vec(), "is not a WebAssembly component: "),
        (wat("(component)"), "lacks an export: `placer`, `mutator` or `guard` of "),
        (
            wat(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#),
            "imports what policies do not get: `wasi:cli/environment@0.2.0`; ",
        ),
        (wat(r#"(component (import "evil" (func)))"#), "imports what policies do not get: `evil`"),
        (
            wat(r#"(component
                (import "pointsman:policy/facts@0.1.7" (instance (export "shoe-size" (func (result u32)))))
                (instance $i) (export "pointsman:policy/placer@0.1.0" (instance $i))
                (export "pointsman:policy/lifecycle@0.1.0" (instance $i)))"#),
            "does not fit this driver's policy interface: component imports instance \
             `pointsman:policy/facts@0.1.7`, but a matching implementation was not found in the linker: ",
        ),
        (
            wat(r#"(component
                (instance $i) (export "pointsman:policy/placer@0.1.0" (instance $i))
                (export "pointsman:policy/lifecycle@0.1.0" (instance $i)))"#),
            "does not fit this driver's policy interface: ",
        ),
        (
            Guest { describe: "unreachable", ..Guest::default() }.placer(),
            "crashed: it panicked (`unreachable` was executed)",
        ),
    ] {
        let policy = house.policy(&bytes);
        let what = match house.store.ensure("bad", &policy) {
            Err(PolicyError::Broken { what, .. }) => what.to_string(),
            other => panic!("{expected}: {other:?}"),
        };
        assert!(what.starts_with(expected), "{what:?} is not {expected:?}");
    }
}

// --- the store ---

#[test]
fn a_wrong_digest_names_both() {
    let house = House::new();
    let bytes = Guest::default().placer();
    let actual = digest(&bytes);
    let policy = Policy { sha256: "0".repeat(64), ..house.policy(&bytes) };
    let Err(PolicyError::Store { policy, source }) = house.store.ensure("by-tag", &policy) else {
        panic!("refused")
    };
    assert_eq!(policy, "by-tag");
    assert_eq!(
        source.to_string(),
        format!(
            "the component {}/{actual}.wasm has the SHA-256 digest {actual}, but `sha256` of the policy is {}",
            house.directory.display(),
            "0".repeat(64)
        )
    );
}

#[test]
fn an_entry_is_used_without_the_component() {
    let house = House::new();
    let policy = by_tag(rules());
    let bytes = fs::read(file_of(&policy)).unwrap();
    let policy = Policy { settings: rules(), ..house.policy(&bytes) };
    house.compiled(&policy);
    fs::remove_file(file_of(&policy)).unwrap();
    let store = house.again();
    let decision =
        decide(&Asked::with_tags(&["dev"]).question(), &[("by-tag", &policy)], &store).unwrap();
    assert_eq!(decision.placements.len(), 1);
    let description = store.describe("by-tag", &policy).unwrap();
    assert_eq!((description.name.as_str(), description.kind), ("by-tag", Kind::Placer));
    assert!(description.imports.contains("pointsman:policy/facts@0.1.0"));
    assert!(!description.imports.contains("pointsman:policy/claims@0.1.0"), "by-tag reads none");
}

#[test]
fn a_damaged_entry_is_made_anew() {
    let house = House::new();
    let policy = house.policy(&Guest::default().placer());
    let compiled = house.compiled(&policy);
    let good = fs::read(&compiled).unwrap();
    let damages: [(&str, &dyn Fn()); 4] = [
        ("cut off", &|| fs::write(&compiled, &good[..good.len() / 2]).unwrap()),
        ("junk of the same length", &|| fs::write(&compiled, vec![b'x'; good.len()]).unwrap()),
        ("gone", &|| fs::remove_file(&compiled).unwrap()),
        ("writable by others", &|| {
            fs::set_permissions(&compiled, fs::Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage();
        house.again().ensure("p", &policy).unwrap();
        assert_eq!(fs::read(&compiled).unwrap(), good, "{what}");
        assert_eq!(fs::metadata(&compiled).unwrap().permissions().mode() & 0o777, 0o600, "{what}");
    }
}

#[test]
fn an_entry_of_another_user_or_of_another_runtime_is_made_anew() {
    let house = House::new();
    let policy = house.policy(&Guest::default().placer());
    let compiled = house.compiled(&policy);
    let good = fs::read(&compiled).unwrap();
    let description = compiled.with_extension("json");
    // Of another runtime: other settings, and a description that fits its length.
    let bytes = fs::read(file_of(&policy)).unwrap();
    let foreign = wasmtime::Engine::new(wasmtime::Config::new().consume_fuel(false)).unwrap();
    let foreign =
        wasmtime::component::Component::new(&foreign, &bytes).unwrap().serialize().unwrap();
    let mut json: Value = serde_json::from_slice(&fs::read(&description).unwrap()).unwrap();
    json["compiled_bytes"] = json!(foreign.len());
    fs::write(&description, json.to_string()).unwrap();
    fs::write(&compiled, &foreign).unwrap();
    house.again().ensure("p", &policy).unwrap();
    assert_eq!(fs::read(&compiled).unwrap(), good);

    // Only root can give a file away; what others see of that is tested where owners are judged.
    if rustix::process::geteuid().is_root() {
        for file in [&compiled, &description] {
            std::os::unix::fs::chown(file, Some(65_534), None).unwrap();
            house.again().ensure("p", &policy).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(file).unwrap()), 0);
            assert_eq!(fs::read(&compiled).unwrap(), good);
        }
    }
    // Descriptions that are none.
    for text in ["", "{}", "[1", &json.to_string().replace("placer", "cook")] {
        fs::write(&description, text).unwrap();
        house.again().ensure("p", &policy).unwrap();
        assert_eq!(fs::read(&compiled).unwrap(), good);
    }
}

#[test]
fn settings_are_validated_once() {
    let house = House::new();
    // Traps when it is asked to validate.
    let guest = Guest { validate_settings: "unreachable", ..Guest::default() };
    let policy = house.policy(&guest.placer());
    assert!(matches!(house.store.ensure("p", &policy), Err(PolicyError::Broken { .. })));

    let policy = by_tag(rules());
    let compiled = house.compiled(&policy);
    let description = compiled.with_extension("json");
    let before = fs::metadata(&description).unwrap().modified().unwrap();
    house.again().ensure("by-tag", &policy).unwrap();
    assert_eq!(fs::metadata(&description).unwrap().modified().unwrap(), before, "remembered");
    let other = Policy { settings: json!({"rules": []}), ..policy };
    assert!(matches!(house.again().ensure("by-tag", &other), Err(PolicyError::Settings { .. })));
}

#[test]
fn processes_that_compile_at_once_do_not_disturb_each_other() {
    let house = House::new();
    let policy = house.policy(&Guest::default().placer());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| house.again().ensure("p", &policy).map(|_| ())))
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    house.again().ensure("p", &policy).unwrap();
}
