//! Every command in a block `sh` of a document is run, in the document's order, in one shell; or the line before its
//! block says why not: `<!-- not run: an AWS account is needed -->`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Block, Document};
use crate::rehearsal::root;
use crate::support::house::{DRIVER, built, executable};

const NOT_RUN: &str = "<!-- not run: ";

/// Where a document's reader is.
#[derive(Clone, Copy)]
enum Place {
    /// An empty directory.
    Empty,
    /// This directory of a built checkout.
    Checkout(&'static str),
    /// A directory with this example's settings, pinned.
    Pinned(&'static str),
}

/// The documents with commands that are run; each has a test below.
const RUN: [(&str, Place); 7] = [
    ("README.md", Place::Checkout("")),
    ("docs/getting-started.md", Place::Checkout("")),
    ("docs/policies.md", Place::Pinned("three-environments")),
    ("docs/writing-policies.md", Place::Empty),
    ("examples/runner-manager/README.md", Place::Checkout("examples/runner-manager")),
    ("examples/scenarios/README.md", Place::Checkout("")),
    ("examples/three-environments/README.md", Place::Checkout("")),
];

/// Why `block` is not run.
fn reason(block: &Block) -> Option<&str> {
    block.before.strip_prefix(NOT_RUN)?.strip_suffix(" -->")
}

fn commands(document: &Document) -> Vec<Block> {
    let blocks = document.blocks().into_iter();
    blocks.filter(|block| block.language == "sh" && reason(block).is_none()).collect()
}

/// Copies files and folders, so that what commands write stays out of the checkout.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Makes `directory` what a checkout is after `make demo`, as far as documents use it.
fn checkout(directory: &Path) {
    copy(&root().join("examples"), &directory.join("examples"));
    symlink(root().join("scripts"), directory.join("scripts")).unwrap();
    fs::create_dir(directory.join("target")).unwrap();
    symlink(built("policies"), directory.join("target/policies")).unwrap();
    symlink(Path::new(DRIVER).parent().unwrap(), directory.join("target/debug")).unwrap();
    // Not the machine's own.
    for example in ["three-environments", "runner-manager"] {
        let file = directory.join("examples").join(example).join("pointsman.toml");
        let text = fs::read_to_string(&file).unwrap();
        let state = directory.join("state");
        fs::write(&file, text.replace("/var/lib/pointsman", state.to_str().unwrap())).unwrap();
    }
}

/// Runs the document's commands, and answers what they said.
fn walk(path: &str) -> (TempDir, String) {
    // Rehearsals start both.
    let _ = (executable("pointsman-agent"), executable("pointsman-simulator"));
    let (_, place) = RUN.iter().find(|(document, _)| *document == path).unwrap();
    let directory = TempDir::with_prefix_in("document-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver = Path::new(DRIVER).parent().unwrap();
    let start = match place {
        Place::Empty => directory.path().to_owned(),
        Place::Checkout(start) => {
            checkout(directory.path());
            directory.path().join(start)
        }
        Place::Pinned(example) => {
            checkout(directory.path());
            let pinned = directory.path().join("pinned");
            let settings = directory.path().join("examples").join(example).join("pointsman.toml");
            let done = Command::new(root().join("scripts/pin"))
                .args([settings.as_path(), &built("policies"), &pinned])
                .status();
            assert!(done.unwrap().success());
            pinned
        }
    };
    let script: String =
        commands(&Document::read(path)).into_iter().map(|block| block.text).collect();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authoring-cache");
    let search = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .arg("-c")
        .arg(format!("set -euxo pipefail\n{script}"))
        .current_dir(&start)
        .env("PATH", format!("{}:{search}", driver.display()))
        .env("XDG_CACHE_HOME", &cache)
        .env("CARGO_TARGET_DIR", cache.join("cargo"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{path}\n{said}");
    (directory, said)
}

#[test]
fn every_command_is_run_or_says_why_not() {
    for document in Document::all() {
        let runs = RUN.iter().any(|(path, _)| *path == document.path);
        assert_eq!(
            runs,
            !commands(&document).is_empty(),
            "{} and the list `RUN` do not fit: give each block `sh` that cannot be run a line `{NOT_RUN}… -->`",
            document.path
        );
        for block in document.blocks() {
            let at = format!("{}:{}", document.path, block.line);
            assert!(
                !["bash", "shell", "console", "shell-session"].contains(&block.language.as_str()),
                "{at}: commands are in blocks `sh`"
            );
            let first = block.text.split_whitespace().next().unwrap_or_default();
            let is_command = ["pointsman", "make", "aws", "docker", "terraform", "git", "cd", "$"];
            assert!(
                !block.language.is_empty() || !is_command.contains(&first),
                "{at}: is this a block `sh`?"
            );
            if let Some(reason) = reason(&block) {
                assert_eq!(block.language, "sh", "{at}: what is not run?");
                assert!(reason.split_whitespace().count() >= 3, "{at}: no reason: {reason:?}");
            }
        }
    }
}

#[test]
fn the_readme_leads_from_nothing_to_settings_that_are_accepted() {
    let (_directory, said) = walk("README.md");
    assert!(said.contains("The pipeline passed in"), "{said}");
}

#[test]
fn the_first_steps_work() {
    let (_directory, said) = walk("docs/getting-started.md");
    assert!(said.contains("The pipeline passed in"), "{said}");
}

#[test]
fn policies_are_installed_as_their_page_says() {
    let (directory, _) = walk("docs/policies.md");
    let installed = fs::read_dir(directory.path().join("state/policies")).unwrap().count();
    assert!(installed >= 2, "{installed} files");
}

#[test]
fn every_command_of_the_guide_works() {
    let (directory, said) = walk("docs/writing-policies.md");
    assert!(commands(&Document::read("docs/writing-policies.md")).len() >= 8);
    // The rehearsal's one job is of a protected ref, so it is on demand already.
    let replayed = said.matches("1 jobs decided again: 0 would move, 1 stay").count();
    assert_eq!(replayed, 2, "the guide ends with two replays\n{said}");
    let project = fs::read_dir(directory.path().join("spot-wisely")).unwrap().count();
    assert!(project > 5);
}

#[test]
fn the_managers_settings_are_tried_without_a_cloud() {
    let (_directory, said) = walk("examples/runner-manager/README.md");
    assert!(said.contains("role production-deploy"), "{said}");
    assert!(said.contains("is for protected refs"), "{said}");
}

#[test]
fn the_scenarios_are_played() {
    let (_directory, said) = walk("examples/scenarios/README.md");
    assert!(said.contains("Spot has no capacity for five minutes"), "{said}");
}

#[test]
fn the_three_environments_are_rehearsed() {
    let (_directory, said) = walk("examples/three-environments/README.md");
    assert!(said.contains("6 tasks started, none left running."), "{said}");
}
