//! `policy build`: from a project to a component that this driver runs.
//!
//! The tools for JavaScript and Python are installed into a cache directory, in versions that are fixed here; Rust
//! is built by whatever toolchain of this machine has the WebAssembly target.

mod component;
mod rust;
mod tools;

use std::path::{Path, PathBuf};

use super::project::Language;
use super::{AuthoringError, failed, inspect};

/// What JavaScript runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `componentize-qjs`: small, and compiled in a second or two.
    QuickJs,
    /// `@bytecodealliance/componentize-js`: SpiderMonkey, seven times as large.
    StarlingMonkey,
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
    /// JavaScript's.
    pub engine: Engine,
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
        Language::JavaScript => tools::javascript(&project, build)?,
        Language::Python => tools::python(&project, build)?,
    };
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
