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

/// What the source of a project in a scripting language exports.
#[derive(Debug, PartialEq, Eq)]
struct Exported {
    /// Of `wit/policy.wit`.
    world: &'static str,
    /// Whether the hook after a lost attempt is there as well.
    recovers: bool,
}

impl Exported {
    /// Each export is a line that begins with `keyword` and the interface's name.
    fn of(source: &str, keyword: &str) -> Self {
        let exports = |name: &str| {
            source.lines().any(|line| {
                line.strip_prefix(keyword)
                    .and_then(|rest| rest.get(..name.len()))
                    .is_some_and(|start| start.eq_ignore_ascii_case(name))
            })
        };
        let world = if exports("mutator") {
            "mutation-policy"
        } else if exports("guard") {
            "guard-policy"
        } else {
            "placement-policy"
        };
        Self { world, recovers: exports("recovery") }
    }

    /// The directory with the interface and the world in it, for a tool that makes a component of one world: with
    /// the hook, a world of the tool's own in a copy below `scratch`.
    fn interface(
        &self,
        project: &Path,
        scratch: &Path,
    ) -> Result<(PathBuf, &'static str), AuthoringError> {
        const WITH_HOOK: &str = "policy-with-recovery";
        let written = project.join("wit");
        if !self.recovers {
            return Ok((written, self.world));
        }
        let copied = scratch.join("wit");
        std::fs::create_dir(&copied).map_err(failed("make", &copied))?;
        for entry in std::fs::read_dir(&written).map_err(failed("read", &written))? {
            let from = entry.map_err(failed("read", &written))?.path();
            if let Some(name) = from.file_name().filter(|_| from.is_file()) {
                std::fs::copy(&from, copied.join(name)).map_err(failed("copy", &from))?;
            }
        }
        // Of the same package, so that it needs no version of its own.
        let world = copied.join("with-recovery.wit");
        let text =
            format!("world {WITH_HOOK} {{ include {}; include recovery-hook; }}\n", self.world);
        std::fs::write(&world, text).map_err(failed("write", &world))?;
        Ok((copied, WITH_HOOK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_are_told_from_the_source() {
        let of = |source, keyword| {
            let Exported { world, recovers } = Exported::of(source, keyword);
            (world, recovers)
        };
        assert_eq!(of("export const placer = {\n", "export const "), ("placement-policy", false));
        assert_eq!(
            of("export const recovery = {\nexport const guard = {\n", "export const "),
            ("guard-policy", true)
        );
        assert_eq!(of("class Mutator(exports.Mutator):\n", "class "), ("mutation-policy", false));
        assert_eq!(
            of("class Placer(exports.Placer):\nclass Recovery(exports.Recovery):\n", "class "),
            ("placement-policy", true)
        );
    }

    #[test]
    fn the_world_with_the_hook_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("project");
        std::fs::create_dir_all(project.join("wit")).unwrap();
        let text = include_str!("../../../wit/policy.wit");
        std::fs::write(project.join("wit/policy.wit"), text).unwrap();
        for world in ["placement-policy", "mutation-policy", "guard-policy"] {
            let scratch = tempfile::tempdir().unwrap();
            let plain = Exported { world, recovers: false };
            assert_eq!(
                plain.interface(&project, scratch.path()).unwrap(),
                (project.join("wit"), world)
            );
            let hooked = Exported { world, recovers: true };
            let (wit, name) = hooked.interface(&project, scratch.path()).unwrap();
            let mut resolve = wit_parser::Resolve::default();
            let (package, _) = resolve.push_dir(&wit).unwrap();
            let world = resolve.select_world(&[package], Some(name)).unwrap();
            assert_eq!(resolve.worlds[world].exports.len(), 3, "lifecycle, its own, recovery");
        }
    }
}
