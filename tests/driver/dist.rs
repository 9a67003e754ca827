//! What `scripts/dist` makes: an archive and a Debian package that hold what they should, and work where they are
//! unpacked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::rehearsal::root;
use crate::static_agent::static_agent;

const POLICIES: [&str; 6] =
    ["arm-first", "by-tag", "experiment", "protected-roles", "size-limits", "spot-first"];

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

fn said(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap()
}

/// The directory with a release of the development build.
fn release() -> &'static Path {
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    RELEASE.get_or_init(|| {
        let _ = static_agent();
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dist");
        let _ = fs::remove_dir_all(&output);
        let mut dist = Command::new(root().join("scripts/dist"));
        run(dist.args(["--profile", "dev", "--no-build", "--output"]).arg(&output));
        output
    })
}

fn file(ending: &str) -> PathBuf {
    let files = fs::read_dir(release()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn digest(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A `SHA256SUMS` as file and digest.
fn sums(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let sums = text.lines().map(|line| line.split_once("  ").unwrap());
    sums.map(|(digest, file)| (file.to_owned(), digest.to_owned())).collect()
}

fn files(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
}

fn scratch() -> TempDir {
    TempDir::with_prefix_in("unpacked-", env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The files that a document links to.
fn links(document: &str) -> Vec<String> {
    let targets =
        document.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let is_file = |target: &&str| !target.is_empty() && !target.contains(':');
    targets.filter(is_file).map(str::to_owned).collect()
}

/// Rehearses the example's job with what was unpacked, without anything else of this repository.
fn rehearses(pointsman: &Path, examples: &Path) {
    let example = examples.join("three-environments");
    let output = said(
        Command::new(pointsman)
            .arg("--config")
            .arg(example.join("pointsman.toml"))
            .arg("rehearse")
            .arg(example.join(".gitlab-ci.yml"))
            .args(["--job", "build-dev", "--format", "json"]),
    );
    let report: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["success"], true, "{report}");
}

#[test]
fn the_checksums_are_of_the_files() {
    let of_release = sums(&file("SHA256SUMS"));
    assert_eq!(of_release.len(), 2, "{of_release:?}");
    for (name, expected) in of_release {
        assert_eq!(digest(&release().join(&name)), expected, "{name}");
    }
}

#[test]
fn the_archive_has_all_and_works() {
    let directory = scratch();
    run(Command::new("tar").arg("-xzf").arg(file(".tar.gz")).arg("-C").arg(directory.path()));
    let archive = file(".tar.gz");
    let name = archive.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz");
    // A debug build is not taken for a release.
    assert!(name.starts_with(&format!("pointsman-{}-dev-", env!("CARGO_PKG_VERSION"))), "{name}");
    let tree = directory.path().join(name);

    let mut found = Vec::new();
    files(&tree, "", &mut found);
    let listed = sums(&tree.join("SHA256SUMS"));
    for name in found.iter().filter(|name| *name != "SHA256SUMS") {
        assert_eq!(listed.get(name), Some(&digest(&tree.join(name))), "{name}");
    }
    assert_eq!(listed.len(), found.len() - 1, "nothing is listed that is not there");
    for name in [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "THIRD-PARTY.txt",
        "bin/pointsman-simulator",
        "completions/pointsman.bash",
        "completions/_pointsman",
        "completions/pointsman.fish",
        "man/pointsman.1",
        "man/pointsman-policy-new.1",
        "docs/operations.md",
        "agent/PROTOCOL.md",
        "wit/policy.wit",
        "examples/three-environments/config.toml",
    ] {
        assert!(found.iter().any(|found| found == name), "{name} is missing: {found:?}");
    }
    // Compiled for one machine's engine: not to be shipped.
    assert!(!found.iter().any(|name| name.ends_with(".cwasm")), "{found:?}");

    let text = fs::read_to_string(tree.join("policies/policies.toml")).unwrap();
    let pinned: toml::Table = toml::from_str(&text).unwrap();
    let pinned = pinned["policies"].as_table().unwrap();
    assert_eq!(pinned.keys().collect::<Vec<_>>(), POLICIES);
    for (policy, entry) in pinned {
        let component = tree.join("policies").join(entry["component"].as_str().unwrap());
        assert_eq!(entry["sha256"].as_str().unwrap(), digest(&component), "{policy}");
        assert!(tree.join(format!("plugins/{policy}/README.md")).exists());
    }
    let licences = fs::read_to_string(tree.join("THIRD-PARTY.txt")).unwrap();
    for crate_ in ["russh", "wasmtime", "aws-sdk-ecs", "wit-bindgen", "aws-lc-sys"] {
        assert!(licences.contains(&format!("\n== {crate_} ")), "{crate_}");
    }

    for name in found.iter().filter(|name| name.ends_with(".md")) {
        let document = tree.join(name);
        for link in links(&fs::read_to_string(&document).unwrap()) {
            // Folders and modules are of the sources; files come along.
            let is_of_sources =
                root().join(name).with_file_name(&link).is_dir() || link.ends_with(".rs");
            let is_there = document.with_file_name(&link).exists();
            assert!(is_there || is_of_sources, "{name} links to {link}");
        }
    }

    let pointsman = tree.join("bin/pointsman");
    let build: Value = serde_json::from_slice(&fs::read(tree.join("build.json")).unwrap()).unwrap();
    let version = said(Command::new(&pointsman).args(["version", "--format", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&version).unwrap(), build);
    let completions = said(Command::new(&pointsman).args(["completions", "fish"]));
    assert_eq!(fs::read_to_string(tree.join("completions/pointsman.fish")).unwrap(), completions);
    let schema = fs::read_to_string(tree.join("pointsman.schema.json")).unwrap();
    assert_eq!(schema, said(Command::new(&pointsman).arg("schema")));
    assert!(serde_json::from_str::<Value>(&schema).unwrap()["properties"].is_object());
    let agent = said(Command::new("readelf").args(["-lW"]).arg(tree.join("bin/pointsman-agent")));
    assert!(!agent.contains("INTERP"), "the agent is for any image: {agent}");
    rehearses(&pointsman, &tree.join("examples"));
}

#[test]
fn the_debian_package_has_all_and_works() {
    let package = file(".deb");
    let field = |name: &str| said(Command::new("dpkg-deb").arg("-f").arg(&package).arg(name));
    assert_eq!(field("Package"), "pointsman\n");
    assert_eq!(field("Version"), format!("{}~dev-1\n", env!("CARGO_PKG_VERSION")));
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));
    let listing = said(Command::new("dpkg-deb").arg("-c").arg(&package));
    let entries: BTreeMap<&str, (&str, &str)> = listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[5], (words[0], words[1]))
        })
        .collect();
    for (path, mode) in [
        ("./usr/bin/pointsman", "-rwxr-xr-x"),
        ("./usr/bin/pointsman-agent", "-rwxr-xr-x"),
        ("./usr/bin/pointsman-simulator", "-rwxr-xr-x"),
        ("./usr/share/pointsman/policies/by-tag.wasm", "-rw-r--r--"),
        ("./usr/share/pointsman/policies/policies.toml", "-rw-r--r--"),
        ("./usr/share/pointsman/pointsman.schema.json", "-rw-r--r--"),
        ("./usr/share/man/man1/pointsman.1.gz", "-rw-r--r--"),
        ("./usr/share/bash-completion/completions/pointsman", "-rw-r--r--"),
        ("./usr/share/zsh/vendor-completions/_pointsman", "-rw-r--r--"),
        ("./usr/share/fish/vendor_completions.d/pointsman.fish", "-rw-r--r--"),
        ("./usr/share/doc/pointsman/copyright", "-rw-r--r--"),
        ("./usr/share/doc/pointsman/docs/operations.md", "-rw-r--r--"),
        ("./usr/share/doc/pointsman/examples/images/openssh/entrypoint", "-rwxr-xr-x"),
    ] {
        assert_eq!(entries.get(path), Some(&(mode, "0/0")), "{path}\n{listing}");
    }
    for (path, (mode, owner)) in &entries {
        // dpkg-deb shows the mode of a directory with a `d`; nothing may be open to others, or of somebody's.
        assert!(!mode.contains('s') && mode.as_bytes()[8] != b'w', "{path} {mode}");
        assert_eq!(*owner, "0/0", "{path}");
        assert!(!path.starts_with("./etc") && !path.starts_with("./var"), "{path}");
    }
    let directory = scratch();
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(directory.path()));
    let usr = directory.path().join("usr");
    rehearses(&usr.join("bin/pointsman"), &usr.join("share/doc/pointsman/examples"));
}
