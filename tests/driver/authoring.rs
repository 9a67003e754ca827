//! `pointsman policy …` and `pointsman explain`, as somebody uses them who writes policies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::house::{DRIVER, built};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Compiled policies and tools outlive a test run: installing them anew each time would take minutes.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("authoring-cache")
}

pub(crate) fn pointsman(arguments: &[&str]) -> Output {
    let cache = cache();
    Command::new(DRIVER)
        .args(arguments)
        .env("XDG_CACHE_HOME", &cache)
        .env("CARGO_TARGET_DIR", cache.join("cargo"))
        .output()
        .unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    [text(&output.stdout), text(&output.stderr)].concat()
}

#[track_caller]
pub(crate) fn succeeds(output: Output) -> String {
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    said
}

pub(crate) fn scratch() -> TempDir {
    TempDir::with_prefix_in("authoring-", env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const SHIPPED: [&str; 6] =
    ["by-tag", "spot-first", "arm-first", "protected-roles", "experiment", "size-limits"];

#[test]
fn every_shipped_policy_keeps_to_its_fixtures() {
    for name in SHIPPED {
        let fixtures = root().join("plugins").join(name).join("fixtures");
        let component = built(&format!("policies/{name}.wasm"));
        let told =
            succeeds(pointsman(&["policy", "test", text(&fixtures), "--policy", text(&component)]));
        assert!(told.contains(" 0 failed"), "{name}: {told}");
        for case in ["allow", "deny"] {
            let fixture = fs::read_to_string(fixtures.join(format!("{case}.toml"))).unwrap();
            assert!(fixture.contains("forged-claims"), "{name}: {case}");
        }
        let readme = root().join("plugins").join(name).join("README.md");
        let readme = fs::read_to_string(readme).unwrap();
        for heading in ["## Settings", "## Allowed", "## Denied"] {
            assert!(readme.contains(heading), "{name} has no {heading}");
        }
    }
}

#[test]
fn every_shipped_policy_is_a_component_without_wasi_that_gives_its_schema() {
    for name in SHIPPED {
        let component = built(&format!("policies/{name}.wasm"));
        let told =
            succeeds(pointsman(&["policy", "inspect", text(&component), "--format", "json"]));
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["says"]["name"], name);
        assert_eq!(told["interface_version"], "0.1.0");
        assert_eq!(told["wasi"].as_array().map(Vec::len), Some(0), "{told}");
        assert_eq!(told["refused"], Value::Null);
        assert_eq!(told["sha256"].as_str().map(str::len), Some(64));
        let schema = succeeds(pointsman(&["policy", "inspect", text(&component), "--schema"]));
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let readme = root().join("plugins").join(name).join("README.md");
        let readme = fs::read_to_string(readme).unwrap();
        for key in schema["properties"].as_object().unwrap().keys() {
            assert!(readme.contains(&format!("`{key}")), "{name}: README.md lacks `{key}`");
        }
    }
}

#[test]
fn a_difference_is_told_with_both_values_and_update_writes_what_came_out() {
    let directory = scratch();
    let fixture = directory.path().join("case.toml");
    let before = "# kept\nname = \"a <case>\"\n\n[settings]\n[[settings.rules]]\ntags = [\"dev\"]\ncluster = \"ci\"\ntask_definition = \"node\"\n\n[facts]\ntags = [\"dev\"]\n\n[catalog.clusters.ci]\n[catalog.task_definitions.node]\n\n[expect]\ndecision = \"place\"\nfirst = { capacity = \"spot\" }\nreads = { facts = [], claims = [] }\n";
    fs::write(&fixture, before).unwrap();
    let component = built("policies/by-tag.wasm");
    let junit = directory.path().join("junit.xml");
    let arguments =
        ["policy", "test", text(&fixture), "--policy", text(&component), "--junit", text(&junit)];
    let output = pointsman(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(told.contains("first.capacity: expected \"spot\", got \"on-demand\""), "{told}");
    assert!(told.contains("reads.facts: expected none, got job-tags"), "{told}");
    assert!(told.contains("0 passed, 1 failed"), "{told}");
    let report = fs::read_to_string(&junit).unwrap();
    assert!(report.contains("failures=\"1\"") && report.contains("a &lt;case&gt;"), "{report}");

    let _ = succeeds(pointsman(&[&arguments[..], &["--update"]].concat()));
    let after = fs::read_to_string(&fixture).unwrap();
    assert!(after.starts_with("# kept\nname"), "{after}");
    let _ = succeeds(pointsman(&arguments));
    assert!(fs::read_to_string(&junit).unwrap().contains("failures=\"0\""));
}

#[test]
fn a_misspelt_fixture_and_wrong_settings_are_told() {
    let directory = scratch();
    let fixture = directory.path().join("case.yaml");
    fs::write(&fixture, "facts: { tag: [dev] }\n").unwrap();
    let component = built("policies/by-tag.wasm");
    let arguments = ["policy", "test", text(&fixture), "--policy", text(&component)];
    let told = said(&pointsman(&arguments));
    assert!(told.contains("unknown field `tag`"), "{told}");
    fs::write(&fixture, "settings: { rule: [] }\n").unwrap();
    let told = said(&pointsman(&arguments));
    assert!(told.contains("rule: is unknown"), "{told}");
}

#[test]
fn a_bench_measures_processes_and_holds_budgets() {
    let component = built("policies/by-tag.wasm");
    let fixture = root().join("plugins/by-tag/fixtures/allow.toml");
    let arguments =
        ["policy", "bench", text(&component), "--fixture", text(&fixture), "--runs", "3"];
    let told = succeeds(pointsman(&[&arguments[..], &["--format", "json"]].concat()));
    let measured: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(measured["runs"], 3);
    for key in ["process", "load", "call"] {
        assert!(measured[key]["p50_us"].as_u64() > Some(0), "{told}");
    }
    assert!(measured["fuel"].as_u64() > Some(1000) && measured["peak_kib"].as_u64() > Some(1000));
    let output = pointsman(&[&arguments[..], &["--max-fuel", "10"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("Over budget: a decision uses"), "{}", said(&output));
}

#[test]
fn explain_shows_why_each_job_of_the_example_goes_where_it_goes() {
    let directory = scratch();
    let pinned = Command::new(root().join("scripts/pin"))
        .arg(root().join("examples/three-environments/pointsman.toml"))
        .arg(built("policies"))
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(pinned.success());
    let settings = directory.path().join("pointsman.toml");
    let state = directory.path().join("state");
    let pipeline = root().join("examples/three-environments/.gitlab-ci.yml");
    let arguments = [
        "--config",
        text(&settings),
        "--state-directory",
        text(&state),
        "explain",
        text(&pipeline),
    ];
    let told = succeeds(pointsman(&arguments));
    assert!(told.contains("fact job-tags = [dev] (set by the operator)"), "{told}");
    assert!(told.contains("no claim was read"), "{told}");
    let rows: Vec<&str> = told.lines().filter(|line| line.contains("rules [")).collect();
    assert!(rows[0].starts_with("build-dev") && rows[0].contains("arm64"), "{told}");

    let told = succeeds(pointsman(&[&arguments[..], &["--format", "json"]].concat()));
    let jobs: Value = serde_json::from_str(&told).unwrap();
    let placed: Vec<String> = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| {
            assert_eq!(job["error"], Value::Null, "{job}");
            let placement = &job["placements"][0];
            let step = &job["steps"][0];
            assert_eq!(step["facts"][0]["name"], "job-tags");
            assert!(step["fuel"].as_u64() > Some(0));
            assert!(!step["changes"].as_array().unwrap().is_empty());
            format!(
                "{} {}",
                placement["cluster"].as_str().unwrap(),
                placement["role"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        placed,
        [
            "dev dev-deploy",
            "dev dev-deploy",
            "staging staging-deploy",
            "staging staging-deploy",
            "production production-deploy",
            "production production-deploy",
        ]
    );
    let output = pointsman(&[&arguments[..], &["--job", "no-such"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("`build-dev`"), "{}", said(&output));
}
