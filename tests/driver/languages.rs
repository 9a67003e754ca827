//! `policy new` and `policy build` in each language: projects whose tests pass as generated, and components that
//! answer the same fixtures in the same way.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::authoring::{pointsman, said, scratch, succeeds, text};

/// A new project below `directory`.
fn project(directory: &Path, lang: &str, name: &str) -> PathBuf {
    let project = directory.join(name);
    let arguments = ["policy", "new", "--lang", lang, name, "--directory", text(&project)];
    let _ = succeeds(pointsman(&arguments));
    project
}

/// The names of the fixtures that the component passes; each project has the same.
fn passes(project: &Path, component: &Path) -> Vec<String> {
    let fixtures = project.join("fixtures");
    let arguments = ["policy", "test", text(&fixtures), "--policy", text(component)];
    let told = succeeds(pointsman(&arguments));
    let cases: Vec<String> = told
        .lines()
        .filter_map(|line| line.strip_prefix("ok "))
        .map(|line| line.rsplit_once(" (").map_or(line, |(name, _)| name).to_owned())
        .collect();
    assert_eq!(cases.len(), 4, "{told}");
    cases
}

fn inspected(component: &Path) -> Value {
    let arguments = ["policy", "inspect", text(component), "--format", "json"];
    serde_json::from_str(&succeeds(pointsman(&arguments))).unwrap()
}

/// The hook after a lost attempt, as JavaScript has it: what Spot took is tried again in the same place.
const HOOK_IN_JAVASCRIPT: &str = r#"
export const recovery = {
  recover(settings, lost) {
    if (lost.failure.kind !== "spot-interruption" || !lost.placement) {
      return { tag: "abstain" };
    }
    return { tag: "place", val: [{ ...lost.placement, capacity: "on-demand", reason: "by the hook" }] };
  },
};
"#;

/// The same in Python.
const HOOK_IN_PYTHON: &str = r#"

class Recovery(exports.Recovery):
    def recover(self, settings: str, lost) -> types.Decision:
        if lost.placement is None or word(lost.failure.kind) != "spot-interruption":
            return types.Decision_Abstain()
        lost.placement.capacity = catalog.Capacity.ON_DEMAND
        lost.placement.reason = "by the hook"
        return types.Decision_Place([lost.placement])
"#;

/// A fixture that only the hook answers like this.
const LOST: &str = r#"
[settings]
cluster = "ci"
task_definition = "node"

[[facts.earlier_failures]]
kind = "spot-interruption"
placement = { cluster = "other", task_definition = "node", capacity = "spot" }

[catalog.clusters.ci]
[catalog.clusters.other]
[catalog.task_definitions.node]

[expect]
decision = "place"
first = { cluster = "other", capacity = "on-demand", reason = "by the hook" }
"#;

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Runs a project's own tests.
fn own_tests(project: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(project).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed by this test: {error}"));
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn three_languages_answer_the_same_fixtures() {
    let directory = scratch();
    let first = project(directory.path(), "rust", "policy-in-rust");
    let mut decided = Vec::new();
    for (lang, name) in [
        ("rust", "policy-in-rust"),
        ("js", "policy-in-js"),
        ("js", "policy-on-starlingmonkey"),
        ("python", "policy-in-python"),
    ] {
        let project = match lang {
            "rust" => first.clone(),
            _ => project(directory.path(), lang, name),
        };
        match lang {
            "js" => own_tests(&project, "npm", &["test"]),
            "python" => own_tests(&project, "python3", &["-m", "unittest"]),
            // The guide's test runs `cargo test`.
            _ => {}
        }
        let hook = match lang {
            "js" => Some(("src/policy.js", HOOK_IN_JAVASCRIPT)),
            "python" => Some(("policy.py", HOOK_IN_PYTHON)),
            // `tests/driver/recovery.rs` has one of the SDK's.
            _ => None,
        };
        if let Some((file, text)) = hook {
            append(&project.join(file), text);
        }
        let on_starlingmonkey = name.ends_with("starlingmonkey");
        if on_starlingmonkey {
            let manifest = project.join("package.json");
            let text = fs::read_to_string(&manifest).unwrap();
            let wish = "\"private\": true,\n  \"pointsman\": { \"engine\": \"starlingmonkey\" },";
            assert!(text.contains("\"private\": true,"));
            fs::write(&manifest, text.replace("\"private\": true,", wish)).unwrap();
        }
        let _ = succeeds(pointsman(&["policy", "build", text(&project)]));
        let component = project.join(format!("{name}.wasm"));
        let mebibytes = fs::metadata(&component).unwrap().len() >> 20;
        match lang {
            "js" if on_starlingmonkey => assert!((8..16).contains(&mebibytes), "{mebibytes} MiB"),
            "js" => assert!((1..4).contains(&mebibytes), "{mebibytes} MiB"),
            _ => {}
        }
        // The fixtures of the first project, for all of them.
        decided.push(passes(&first, &component));
        if hook.is_some() {
            let lost = directory.path().join("lost.toml");
            fs::write(&lost, LOST).unwrap();
            let arguments = ["policy", "test", text(&lost), "--policy", text(&component)];
            let told = succeeds(pointsman(&arguments));
            assert!(told.contains("1 passed, 0 failed"), "{name}: {told}");
        }
        let inspected = inspected(&component);
        assert_eq!(inspected["world"], "placement-policy", "{name}");
        assert_eq!(inspected["wasi"].as_array().map(Vec::len), Some(0), "{name}: {inspected}");
    }
    assert!(decided.windows(2).all(|pair| pair[0] == pair[1]), "{decided:?}");
}

#[test]
fn debians_toolchain_builds_what_rustups_does() {
    let directory = scratch();
    let project = project(directory.path(), "rust", "policy-by-debian");
    let component = directory.path().join("by-debian.wasm");
    let arguments =
        ["policy", "build", text(&project), "--toolchain", "debian", "-o", text(&component)];
    let built = pointsman(&arguments);
    let told = said(&built);
    if told.contains("Debian's toolchain is not complete") {
        assert!(told.contains("apt-get install rustc-web cargo-web rust-web-src lld-19"), "{told}");
        assert_eq!(built.status.code(), Some(1), "{told}");
        // Aloud: the test's harness keeps what macros print.
        let _ = std::io::stderr().write_all(
            b"\nSKIPPED debians_toolchain_builds_what_rustups_does: no rustc-web, cargo-web, rust-web-src, lld-19\n",
        );
        return;
    }
    assert!(built.status.success(), "{told}");
    assert!(told.contains("building the standard library as well"), "{told}");
    assert_eq!(passes(&project, &component).len(), 4);
    let inspected = inspected(&component);
    assert_eq!(inspected["wasi"].as_array().map(Vec::len), Some(0), "{inspected}");
}

#[test]
fn an_unknown_engine_and_a_project_of_no_language_are_told() {
    let directory = scratch();
    let project = project(directory.path(), "js", "policy-on-v8");
    let manifest = project.join("package.json");
    let written = fs::read_to_string(&manifest).unwrap();
    let wish = "\"private\": true, \"pointsman\": { \"engine\": \"v8\" },";
    fs::write(&manifest, written.replace("\"private\": true,", wish)).unwrap();
    let output = pointsman(&["policy", "build", text(&project)]);
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(told.contains("expected `quickjs` or `starlingmonkey`"), "{told}");
    let told = said(&pointsman(&["policy", "build", text(directory.path())]));
    assert!(told.contains("expected Cargo.toml, package.json or policy.py"), "{told}");
}
