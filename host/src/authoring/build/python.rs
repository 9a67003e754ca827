//! Python: CPython and the project's source, by `componentize-py` from PyPI.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::tools::{Tool, run, scratch};
use super::{Build, Exported};
use crate::authoring::{AuthoringError, failed, name_of};

const PYTHON: Tool = Tool {
    name: "componentize-py",
    version: "0.25.1",
    lock: &[("requirements.txt", include_str!("locks/componentize-py/requirements.txt"))],
    install: from_pypi,
};

/// The project's name and its component.
pub(super) fn build(
    project: &Path,
    build: &Build<'_>,
) -> Result<(String, Vec<u8>), AuthoringError> {
    let source = project.join("policy.py");
    let text = fs::read_to_string(&source).map_err(failed("read", &source))?;
    let tool = PYTHON.installed(build)?;
    let output = scratch()?;
    let component = output.path().join("component.wasm");
    let (wit, world) = Exported::of(&text, "class ").interface(project, output.path())?;
    run(Command::new(tool.join("venv/bin/componentize-py"))
        .current_dir(project)
        .args(["--quiet", "--world", world, "--wit-path"])
        .arg(wit)
        .args(["componentize", "--stub-wasi", "policy", "--output"])
        .arg(&component))?;
    let bytes = fs::read(&component).map_err(failed("read", &component))?;
    Ok((name_of(project), bytes))
}

/// Exactly what the lock says; no package runs anything while it is installed.
fn from_pypi(directory: &Path) -> Result<(), AuthoringError> {
    run(Command::new("python3").args(["-m", "venv"]).arg(directory.join("venv")))?;
    run(Command::new(directory.join("venv/bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(["--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement"])
        .arg(directory.join("requirements.txt")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_locked_by_its_digests_and_by_no_registry() {
        let [(_, requirements)] = PYTHON.lock else { panic!("one file") };
        assert!(!requirements.contains("http"), "{requirements}");
        assert!(requirements.contains(&format!("{}=={} ", PYTHON.name, PYTHON.version)));
        let packages = requirements.lines().filter(|line| line.contains("==")).count();
        let unlocked =
            requirements.lines().filter(|line| line.contains("==") && !line.ends_with('\\'));
        assert_eq!((packages, unlocked.count()), (1, 0));
        // A wheel for each machine that a policy may be built on.
        assert!(requirements.matches("--hash=sha256:").count() >= 4);
    }
}
