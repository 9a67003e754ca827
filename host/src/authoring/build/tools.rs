//! JavaScript and Python: tools from npm and PyPI, each in a directory of the cache that is named by its version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{Build, Engine};
use crate::authoring::{AuthoringError, failed, name_of};

/// npm: JavaScript on QuickJS.
const QUICKJS: (&str, &str) = ("componentize-qjs", "0.4.5");
/// npm: JavaScript on StarlingMonkey.
const STARLINGMONKEY: (&str, &str) = ("@bytecodealliance/componentize-js", "0.23.0");
/// PyPI: Python.
const PYTHON: (&str, &str) = ("componentize-py", "0.25.1");

/// Arguments: WIT, source, output. Without WASI: a policy has neither clock nor files.
const WITH_QUICKJS: &str = r#"
import { componentize } from "componentize-qjs";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
const [wit, source, output, world] = process.argv.slice(2);
const { component } = await componentize({
  witPath: wit,
  jsSource: readFileSync(source, "utf8"),
  jsPath: source,
  moduleRoot: dirname(source),
  world,
  stubWasi: true,
  sync: true,
});
writeFileSync(output, component);
"#;

const WITH_STARLINGMONKEY: &str = r#"
import { componentize } from "@bytecodealliance/componentize-js";
import { writeFileSync } from "node:fs";
const [wit, source, output, world] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath: source,
  witPath: wit,
  worldName: world,
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
writeFileSync(output, component);
"#;

#[derive(Deserialize)]
struct Package {
    name: String,
}

/// The project's name and its component.
pub(super) fn javascript(
    project: &Path,
    build: &Build<'_>,
) -> Result<(String, Vec<u8>), AuthoringError> {
    let manifest = project.join("package.json");
    let text = fs::read_to_string(&manifest).map_err(failed("read", &manifest))?;
    let package: Package = serde_json::from_str(&text).map_err(|error| {
        AuthoringError::Unusable(format!("{} is no package's: {error}", manifest.display()))
    })?;
    let source = project.join("src/policy.js");
    let text = fs::read_to_string(&source).map_err(failed("read", &source))?;
    let ((name, version), script) = match build.engine {
        Engine::QuickJs => (QUICKJS, WITH_QUICKJS),
        Engine::StarlingMonkey => (STARLINGMONKEY, WITH_STARLINGMONKEY),
    };
    let tool = installed(build, name, version, |directory| {
        let manifest = directory.join("package.json");
        fs::write(&manifest, "{\"private\":true,\"type\":\"module\"}\n")
            .map_err(failed("write", &manifest))?;
        run(Command::new("npm")
            .current_dir(directory)
            .args(["install", "--save-exact", "--no-audit", "--no-fund", "--loglevel", "error"])
            .arg(format!("{name}@{version}")))
    })?;
    let runner = tool.join("componentize.mjs");
    fs::write(&runner, script).map_err(failed("write", &runner))?;
    // The tools open it only when it is on their disk, so no pipe.
    let output = scratch()?;
    let component = output.path().join("component.wasm");
    run(Command::new("node")
        .current_dir(&tool)
        .arg(&runner)
        .arg(project.join("wit"))
        .arg(&source)
        .arg(&component)
        .arg(world(&text, "export const ")))?;
    let bytes = fs::read(&component).map_err(failed("read", &component))?;
    Ok((package.name, bytes))
}

/// The project's name and its component.
pub(super) fn python(
    project: &Path,
    build: &Build<'_>,
) -> Result<(String, Vec<u8>), AuthoringError> {
    let source = project.join("policy.py");
    let text = fs::read_to_string(&source).map_err(failed("read", &source))?;
    let (name, version) = PYTHON;
    let tool = installed(build, name, version, |directory| {
        run(Command::new("python3").args(["-m", "venv"]).arg(directory.join("venv")))?;
        run(Command::new(directory.join("venv/bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("{name}=={version}")))
    })?;
    let output = scratch()?;
    let component = output.path().join("component.wasm");
    run(Command::new(tool.join("venv/bin/componentize-py"))
        .current_dir(project)
        .args(["--quiet", "--wit-path", "wit", "--world", world(&text, "class ")])
        .args(["componentize", "--stub-wasi", "policy", "--output"])
        .arg(&component))?;
    let bytes = fs::read(&component).map_err(failed("read", &component))?;
    Ok((name_of(project), bytes))
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

fn scratch() -> Result<tempfile::TempDir, AuthoringError> {
    tempfile::Builder::new()
        .prefix("pointsman-build")
        .tempdir()
        .map_err(failed("make", Path::new("a temporary directory")))
}

/// The tool's directory; `install` fills a new one, which gets its name when it is complete.
fn installed(
    build: &Build<'_>,
    name: &str,
    version: &str,
    install: impl FnOnce(&Path) -> Result<(), AuthoringError>,
) -> Result<PathBuf, AuthoringError> {
    let cache = std::path::absolute(build.cache).map_err(failed("find", build.cache))?;
    let tools = cache.join("tools");
    let file = format!("{}-{version}", name.trim_start_matches('@').replace('/', "-"));
    let directory = tools.join(&file);
    let complete = directory.join(".complete");
    if complete.exists() {
        return Ok(directory);
    }
    fs::create_dir_all(&tools).map_err(failed("make", &tools))?;
    let lock = tools.join(format!("{file}.lock"));
    let lock = fs::File::create(&lock).map_err(failed("make", &lock))?;
    lock.lock().map_err(failed("lock", &tools))?;
    if complete.exists() {
        return Ok(directory);
    }
    (build.progress)(&format!("installing {name} {version} in {}", directory.display()));
    // What an earlier try left may be half of something.
    match fs::remove_dir_all(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("remove", &directory)(error)),
    }
    fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
    install(&directory)?;
    fs::write(&complete, "").map_err(failed("write", &complete))?;
    Ok(directory)
}

/// Runs `command`; what it says is told when it fails.
pub(super) fn run(command: &mut Command) -> Result<(), AuthoringError> {
    output(command).map(drop)
}

/// Runs `command` for its standard output.
pub(super) fn output(command: &mut Command) -> Result<String, AuthoringError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let ran = command.stdin(Stdio::null()).output().map_err(|error| AuthoringError::Program {
        program: format!("`{program}`"),
        reason: match error.kind() {
            std::io::ErrorKind::NotFound => "is not installed".to_owned(),
            _ => format!("cannot be started: {error}"),
        },
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if ran.status.success() {
        return Ok(text(&ran.stdout));
    }
    let said = [text(&ran.stdout), text(&ran.stderr)].concat();
    Err(AuthoringError::Program {
        program: format!("`{program}`"),
        reason: format!("failed ({}):\n{}", ran.status, tail(&said)),
    })
}

/// Compilers say what matters at the end.
fn tail(text: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
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

    #[test]
    fn failing_programs_are_told_with_what_they_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (exit status: 3):\nwhy");
        let error = output(&mut Command::new("/nowhere/tool")).unwrap_err();
        assert_eq!(error.to_string(), "`/nowhere/tool` is not installed");
    }
}
