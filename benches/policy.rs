//! `make bench`: what policies cost a job, beside a process of ours that does nothing, in the same run.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on shall panic"
)]
#![expect(clippy::print_stdout, reason = "this is its output")]

#[path = "../tests/driver/support/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod support;

#[expect(dead_code, reason = "the other benchmarks use all of it")]
mod measure;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use measure::{Row, median, print, sample};
use pointsman::job::response;
use pointsman::policy::{Assurance, Question, Store, decide};
use pointsman::settings::Settings;
use support::attempt::Attempt;
use support::house::{DRIVER, built};
use support::{House, Job};

const ROUNDS: usize = 60;
const WARM_ROUNDS: usize = 500;

/// Each job's chain: Rust's with one policy more each time, then one policy in another language. All are compiled
/// ahead by `policy sync`.
const CHAINS: [&[&str]; 6] = [
    &["by-tag"],
    &["by-tag", "more-memory"],
    &["by-tag", "more-memory", "protected-roles"],
    &["in-javascript"],
    &["on-starlingmonkey"],
    &["in-python"],
];
const LONGEST: usize = 2;

/// Name in the settings, language of the project, JavaScript's engine.
const LANGUAGES: [(&str, &str, &[&str]); 3] = [
    ("in-javascript", "js", &[]),
    ("on-starlingmonkey", "js", &["--engine", "starlingmonkey"]),
    ("in-python", "python", &[]),
];

fn main() {
    let house = house();
    let mut rows = Vec::new();
    processes(&house, &mut rows);
    warm(&house, &mut rows);
    print(&rows);
}

/// A house whose policies are installed.
fn house() -> House {
    let house = House::new();
    for (name, settings) in [
        ("more-memory", ""),
        ("protected-roles", "[policies.protected-roles.settings]\nroles = [\"deploy\"]"),
    ] {
        let component = fs::read(built(&format!("policies/examples/{name}.wasm"))).unwrap();
        house.add_policy(name, &component, settings);
    }
    for (name, language, arguments) in LANGUAGES {
        let settings =
            format!("[policies.{name}.settings]\ncluster = \"test\"\ntask_definition = \"agent\"");
        house.add_policy(name, &scaffolded(&house, name, language, arguments), &settings);
    }
    let synced = house.operator(&["policy", "sync"]).succeeds();
    assert!(synced.stdout_text().contains("in-python: ready"), "{synced}");
    house
}

/// The component of a project as `policy new` makes it.
fn scaffolded(house: &House, name: &str, language: &str, arguments: &[&str]) -> Vec<u8> {
    // The tools outlive a run.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authoring-cache");
    let pointsman = |arguments: &[&str]| {
        let mut command = Command::new(DRIVER);
        command.arg("policy").args(arguments).env("XDG_CACHE_HOME", &cache);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let project = house.path().join(name);
    let (project, component) = (project.to_str().unwrap(), project.with_extension("built"));
    pointsman(&["new", "--lang", language, name, "--directory", project]);
    let output = ["build", project, "--output", component.to_str().unwrap()];
    pointsman(&[&output[..], arguments].concat());
    fs::read(component).unwrap()
}

fn processes(house: &House, rows: &mut Vec<Row>) {
    let mut nothing = Command::new(DRIVER);
    nothing.arg("--version").stdout(Stdio::null());
    let mut nothings = Vec::new();
    let mut chains: [Vec<Duration>; CHAINS.len()] = Default::default();
    // Taken in turn, so that a machine that slows down slows all of them.
    for round in 0..=ROUNDS {
        let began = sample(&mut nothing);
        if round > 0 {
            nothings.push(began);
        }
        for (chain, samples) in CHAINS.iter().zip(&mut chains) {
            house.set_chain("agent", &format!("policies = {chain:?}"));
            let mut attempt: Attempt<'_> = house.attempt("agent", &Job::default());
            let began = Instant::now();
            let output = attempt.config().succeeds();
            let elapsed = began.elapsed();
            assert!(!output.stderr_text().contains("Compiling"), "{output}");
            if round > 0 {
                samples.push(elapsed);
            }
        }
    }
    let nothing = median(&mut nothings);
    let [one, two, three, javascript, starlingmonkey, python] =
        chains.map(|mut samples| median(&mut samples));
    rows.push(Row::milliseconds("  process of ours that does nothing", nothing, None));
    rows.push(Row::milliseconds("  config process with one policy", one, None));
    rows.push(Row::milliseconds("config process with three policies", three, Some(10.0)));
    rows.push(Row::milliseconds(
        "config with three policies, above nothing",
        three.saturating_sub(nothing),
        Some(5.0),
    ));
    rows.push(Row::milliseconds(
        "a further policy in the chain (mutator)",
        two.saturating_sub(one),
        Some(0.5),
    ));
    rows.push(Row::milliseconds(
        "a further policy in the chain (guard)",
        three.saturating_sub(two),
        Some(0.5),
    ));
    for (name, measured, bound) in [
        ("config process with a policy in JavaScript", javascript, 15.0),
        ("  the same on StarlingMonkey", starlingmonkey, 15.0),
        ("config process with a policy in Python", python, 25.0),
    ] {
        rows.push(Row::milliseconds(name, measured, Some(bound)));
    }
}

/// The decision alone, in a process that has decided before.
fn warm(house: &House, rows: &mut Vec<Row>) {
    let settings = Settings::load(&house.settings_file()).unwrap();
    let store = Store::open(&house.state().join("policies")).unwrap();
    let attempt = house.attempt("agent", &Job::default());
    let job = response::parse(&fs::read(attempt.response_file()).unwrap()).unwrap();
    let profile = &settings.profiles["agent"];
    let catalog = settings.catalog(&profile.bounds);
    let tags: BTreeSet<String> = profile.tags.clone();
    let facts = BTreeMap::new();
    let question = Question {
        job: &job,
        profile: "agent",
        tags: &tags,
        tags_assurance: Assurance::Runner,
        attempt: 1,
        earlier_failures: &[],
        facts: &facts,
        catalog: &catalog,
        bounds: &profile.bounds,
        claims_taint: profile.claims_taint,
    };
    for (name, length) in
        [("a warm decision, one policy", 1), ("  a warm decision, three policies", 3)]
    {
        let chain: Vec<_> = CHAINS[LONGEST][..length]
            .iter()
            .map(|&name| (name, &settings.policies[name]))
            .collect();
        let mut samples = Vec::with_capacity(WARM_ROUNDS);
        for round in 0..WARM_ROUNDS + 20 {
            let began = Instant::now();
            decide(&question, &chain, &store).unwrap();
            if round >= 20 {
                samples.push(began.elapsed());
            }
        }
        let bound = (length == 1).then_some(0.15);
        rows.push(Row::milliseconds(name, median(&mut samples), bound));
    }
}
