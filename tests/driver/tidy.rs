//! The rules of ARCHITECTURE.md that a search can hold.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The files under `host/src` that have `text` outside comments, relative to it.
fn mentions(text: &str) -> Vec<String> {
    let host = root().join("host/src");
    let has = |path: &PathBuf| {
        let source = fs::read_to_string(path).unwrap();
        source.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(text))
    };
    sources(&host)
        .into_iter()
        .filter(has)
        .map(|path| path.strip_prefix(&host).unwrap().display().to_string())
        .collect()
}

#[test]
fn each_library_is_named_in_one_place() {
    for (library, place) in [
        ("aws_sdk_ecs", "backend/ecs"),
        ("wasmtime", "policy"),
        ("russh", "ssh"),
        ("ureq", "gitlab"),
        ("oci_client", "registry"),
    ] {
        for file in mentions(library) {
            let is_in_place =
                file == format!("{place}.rs") || file.starts_with(&format!("{place}/"));
            assert!(is_in_place, "{library} is named in {file}");
        }
        assert!(!mentions(library).is_empty(), "{library} is named nowhere: is this test right?");
    }
}

#[test]
fn the_environment_is_read_in_one_place() {
    // Children get an environment elsewhere; `PATH` of a child is the one other read.
    let readers = mentions("env::vars_os()");
    assert_eq!(readers, ["environment.rs"]);
    let allowed =
        ["environment.rs", "backend/local.rs", "rehearse/driver.rs", "rehearse/simulator.rs"];
    for file in mentions("env::var_os(").into_iter().chain(mentions("env::var(")) {
        assert!(allowed.contains(&file.as_str()), "{file} reads the environment");
    }
    assert!(mentions("CUSTOM_ENV_").iter().all(|file| {
        // The rehearsal plays GitLab Runner, which sets them; a test proves that they are not read.
        file.starts_with("rehearse") || file == "environment.rs"
    }));
}

#[test]
fn only_output_prints() {
    for text in ["println!", "eprintln!", "print!("] {
        assert_eq!(mentions(text), Vec::<String>::new(), "{text}");
    }
    for file in mentions("io::stdout()").into_iter().chain(mentions("io::stderr()")) {
        let allowed = ["output.rs", "output/outlet.rs"];
        assert!(allowed.contains(&file.as_str()), "{file} writes to a stream of its own");
    }
}

#[test]
fn parts_do_not_know_each_other() {
    let parts = ["policy", "backend", "ssh", "state", "output", "gitlab", "registry"];
    for part in parts {
        for other in parts.iter().filter(|other| **other != part) {
            // `state` keeps what the backend calls a task.
            if part == "state" && *other == "backend" {
                continue;
            }
            for file in mentions(&format!("crate::{other}")) {
                let is_of_part =
                    file == format!("{part}.rs") || file.starts_with(&format!("{part}/"));
                assert!(!is_of_part, "{file} knows {other}");
            }
        }
    }
    for below in ["job", "placement", "settings", "secret"] {
        for above in [
            "stages", "policy", "backend", "ssh", "state", "failure", "cli", "rehearse",
            "registry", "history",
        ] {
            for file in mentions(&format!("crate::{above}")) {
                let is_of_part =
                    file == format!("{below}.rs") || file.starts_with(&format!("{below}/"));
                assert!(!is_of_part, "{file} knows {above}");
            }
        }
    }
}

/// The texts between the placeholders of what is noted in `source`.
fn noted(source: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for call in source.split("output::note(").skip(1) {
        // A text that is made elsewhere is no literal of this call.
        let Some((before, rest)) = call.split_once('"') else { continue };
        if before.contains(';') {
            continue;
        }
        let literal = rest.split('"').next().unwrap();
        texts.extend(literal.split('{').map(|piece| piece.rsplit('}').next().unwrap().to_owned()));
    }
    texts
}

#[test]
fn each_line_about_a_launch_is_documented() {
    let root = root();
    let guide = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let mut count = 0;
    for file in ["prepare.rs", "prepare/waiting.rs"] {
        let source = fs::read_to_string(root.join("host/src/stages").join(file)).unwrap();
        for text in noted(&source).iter().filter(|text| text.len() >= 8) {
            count += 1;
            assert!(guide.contains(text.as_str()), "docs/operations.md does not have `{text}`");
        }
    }
    assert!(count >= 15, "{count} texts were found: is this test right?");
}

#[test]
fn every_file_says_what_it_is_for() {
    let root = root();
    for directory in ["host", "agent", "simulator", "plugins", "tests"] {
        for path in sources(&root.join(directory)) {
            let source = fs::read_to_string(&path).unwrap();
            assert!(source.starts_with("//!"), "{} does not open with //!", path.display());
        }
    }
}

#[test]
fn invariants_name_tests_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut all = String::new();
    for directory in ["host", "agent", "simulator", "tests"] {
        for path in sources(&root().join(directory)) {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let mut invariants = 0;
    for line in text.lines().filter(|line| line.contains("**Invariant")) {
        invariants += 1;
        let (_, tests) = line.split_once("Held by").unwrap_or_else(|| panic!("no test: {line}"));
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {line}");
        for name in names {
            let function = name.rsplit("::").next().unwrap();
            assert!(all.contains(&format!("fn {function}(")), "no test {name}");
        }
    }
    assert!(invariants >= 7, "{invariants} invariants");
}
