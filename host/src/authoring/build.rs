//! `policy build`: from a project to a component that this driver runs.
//!
//! The tools for JavaScript and Python are installed into a cache directory, by locks that are part of the driver;
//! Rust is built by whatever toolchain of this machine has the WebAssembly target.

mod component;
mod javascript;
mod python;
mod rust;
mod tools;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::project::Language;
use super::{AuthoringError, failed, inspect};

/// What JavaScript runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// `componentize-qjs`: small, and compiled in a second or two.
    QuickJs,
    /// `@bytecodealliance/componentize-js`: SpiderMonkey, seven times as large.
    StarlingMonkey,
}

/// What compiles Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// The current one, such as rustup's, which has the target's standard library.
    Current,
    /// Debian's packages; the standard library is built from source.
    Debian,
}

/// What to build, and with what.
pub struct Build<'a> {
    /// The project's directory.
    pub project: &'a Path,
    /// `None` is `<name>.wasm` in the project.
    pub output: Option<&'a Path>,
    /// Where tools are installed.
    pub cache: &'a Path,
    /// Cargo's target directory; `None` is Cargo's own choice.
    pub target: Option<&'a Path>,
    /// JavaScript's; `None` is what `package.json` says, or else QuickJS.
    pub engine: Option<Engine>,
    /// Rust's; `None` is the first that this machine has.
    pub toolchain: Option<Toolchain>,
    /// Told what takes long.
    pub progress: &'a dyn Fn(&str),
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The component.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, for `sha256 = …`.
    pub sha256: String,
    /// Of `wit/policy.wit`.
    pub world: &'static str,
}

/// Builds the project.
///
/// # Errors
///
/// Fails when a tool is missing or fails, and when what comes out is no policy.
pub fn build(build: &Build<'_>) -> Result<Built, AuthoringError> {
    let project = build.project.canonicalize().map_err(failed("find", build.project))?;
    let language = language(&project)?;
    let (name, bytes) = match language {
        Language::Rust => rust::build(&project, build)?,
        Language::JavaScript => javascript::build(&project, build)?,
        Language::Python => python::build(&project, build)?,
    };
    let bytes = component::strip_component(&bytes).map_err(|reason| {
        AuthoringError::Unusable(format!("what was built is no policy: {reason}"))
    })?;
    let world = check(&bytes)?;
    let path = match build.output {
        Some(path) => path.to_owned(),
        None => project.join(format!("{name}.wasm")),
    };
    let temporary = path.with_extension("wasm.new");
    std::fs::write(&temporary, &bytes).map_err(failed("write", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(failed("write", &path))?;
    Ok(Built { path, bytes: bytes.len() as u64, sha256: super::digest(&bytes), world })
}

/// By the file that each language's projects have.
///
/// # Errors
///
/// Says what was looked for.
pub fn language(project: &Path) -> Result<Language, AuthoringError> {
    [
        ("Cargo.toml", Language::Rust),
        ("package.json", Language::JavaScript),
        ("policy.py", Language::Python),
    ]
    .into_iter()
    .find(|(file, _)| project.join(file).is_file())
    .map(|(_, language)| language)
    .ok_or_else(|| {
        AuthoringError::Unusable(format!(
            "{} is no project of a policy: expected Cargo.toml, package.json or policy.py in it",
            project.display()
        ))
    })
}

/// A policy has one of the worlds and imports nothing that the driver does not have.
fn check(bytes: &[u8]) -> Result<&'static str, AuthoringError> {
    let unusable =
        |reason: String| AuthoringError::Unusable(format!("what was built is no policy: {reason}"));
    let (imports, exports) = inspect::interfaces(bytes).map_err(unusable)?;
    let foreign: Vec<&str> = imports
        .keys()
        .map(String::as_str)
        .filter(|name| !name.starts_with("pointsman:policy/"))
        .collect();
    if !foreign.is_empty() {
        return Err(unusable(format!("it imports {}", foreign.join(", "))));
    }
    inspect::world(&exports).ok_or_else(|| {
        let exports: Vec<&str> = exports.keys().map(String::as_str).collect();
        let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        unusable(format!("it exports {exports}, expected `placer`, `mutator` or `guard`"))
    })
}

/// By what the source exports.
fn world(source: &str, keyword: &str) -> &'static str {
    let exports = |name: &str| {
        source.lines().any(|line| {
            line.strip_prefix(keyword)
                .and_then(|rest| rest.get(..name.len()))
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        })
    };
    if exports("mutator") {
        "mutation-policy"
    } else if exports("guard") {
        "guard-policy"
    } else {
        "placement-policy"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_are_told_from_the_source() {
        assert_eq!(world("export const placer = {\n", "export const "), "placement-policy");
        assert_eq!(world("export const guard = {\n", "export const "), "guard-policy");
        assert_eq!(world("class Mutator(exports.Mutator):\n", "class "), "mutation-policy");
        assert_eq!(world("class Placer(exports.Placer):\n", "class "), "placement-policy");
    }
}
