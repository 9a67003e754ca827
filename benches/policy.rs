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

/// Each job's chain; all three are Rust, compiled ahead by `policy sync`.
const CHAINS: [&[&str]; 3] =
    [&["by-tag"], &["by-tag", "more-memory"], &["by-tag", "more-memory", "protected-roles"]];

fn main() {
    let house = house();
    let mut rows = Vec::new();
    processes(&house, &mut rows);
    warm(&house, &mut rows);
    print(&rows);
}

/// A house whose profile `agent` has the longest chain, and whose policies are installed.
fn house() -> House {
    let house = House::new();
    for (name, settings) in [
        ("more-memory", ""),
        ("protected-roles", "[policies.protected-roles.settings]\nroles = [\"deploy\"]"),
    ] {
        house.add_policy(
            name,
            &fs::read(built(&format!("policies/examples/{name}.wasm"))).unwrap(),
            settings,
        );
    }
    let synced = house.operator(&["policy", "sync"]).succeeds();
    assert!(synced.stdout_text().contains("protected-roles: ready"), "{synced}");
    house
}

fn processes(house: &House, rows: &mut Vec<Row>) {
    let mut nothing = Command::new(DRIVER);
    nothing.arg("--version").stdout(Stdio::null());
    let mut nothings = Vec::new();
    let mut chains: [Vec<Duration>; 3] = Default::default();
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
    let [one, two, three] = chains.map(|mut samples| median(&mut samples));
    rows.push(Row::milliseconds("  process of ours that does nothing", nothing, None));
    rows.push(Row::milliseconds("  config process with one policy", one, None));
    rows.push(Row::milliseconds("config process with three policies", three, Some(10.0)));
    rows.push(Row::milliseconds(
        "config with three policies, above nothing",
        three.saturating_sub(nothing),
        Some(5.0),
    ));
    rows.push(Row::milliseconds("a further policy (mutator)", two.saturating_sub(one), Some(0.5)));
    rows.push(Row::milliseconds("a further policy (guard)", three.saturating_sub(two), Some(0.5)));
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
        let chain: Vec<_> =
            CHAINS[2][..length].iter().map(|&name| (name, &settings.policies[name])).collect();
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
