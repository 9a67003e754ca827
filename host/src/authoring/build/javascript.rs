//! JavaScript: a component of an engine and the project's source, by one of two tools from npm through their APIs.
//!
//! QuickJS is what is taken unless the project asks for the other: its components are a seventh of the size, are
//! compiled in two seconds instead of thirteen, and use a sixth of the fuel. StarlingMonkey is for what needs a
//! newer engine; both start within the budget of a job (docs/writing-policies.md has the numbers).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::tools::{Tool, run, scratch};
use super::{Build, Engine, Exported};
use crate::authoring::{AuthoringError, failed};

const QUICKJS: Tool = Tool {
    name: "componentize-qjs",
    version: "0.4.5",
    lock: &[
        ("package.json", include_str!("locks/componentize-qjs/package.json")),
        ("package-lock.json", include_str!("locks/componentize-qjs/package-lock.json")),
        ("componentize.mjs", WITH_QUICKJS),
    ],
    install: from_npm,
};

/// Its `package.json` names `preview2-shim` as well, which this version imports and does not depend on.
const STARLINGMONKEY: Tool = Tool {
    name: "@bytecodealliance/componentize-js",
    version: "0.23.0",
    lock: &[
        ("package.json", include_str!("locks/componentize-js/package.json")),
        ("package-lock.json", include_str!("locks/componentize-js/package-lock.json")),
        ("componentize.mjs", WITH_STARLINGMONKEY),
    ],
    install: from_npm,
};

/// Arguments: WIT, source, output, world. Without WASI: a policy has neither clock nor files.
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
    #[serde(default)]
    pointsman: Wishes,
}

/// `"pointsman": {…}` of `package.json`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    #[serde(default)]
    engine: Option<Engine>,
}

/// The project's name and its component.
pub(super) fn build(
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
    let engine = build.engine.or(package.pointsman.engine).unwrap_or(Engine::QuickJs);
    let tool = match engine {
        Engine::QuickJs => QUICKJS,
        Engine::StarlingMonkey => STARLINGMONKEY,
    };
    let tool = tool.installed(build)?;
    // The tools open it only when it is on their disk, so no pipe.
    let output = scratch()?;
    let component = output.path().join("component.wasm");
    let (wit, world) = Exported::of(&text, "export const ").interface(project, output.path())?;
    run(Command::new("node")
        .current_dir(&tool)
        .arg("componentize.mjs")
        .arg(wit)
        .arg(&source)
        .arg(&component)
        .arg(world))?;
    let bytes = fs::read(&component).map_err(failed("read", &component))?;
    Ok((package.name, bytes))
}

/// Exactly what the lock says; no package runs anything while it is installed.
fn from_npm(directory: &Path) -> Result<(), AuthoringError> {
    run(Command::new("npm").current_dir(directory).args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel",
        "error",
    ]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    #[derive(Deserialize)]
    struct Lock {
        packages: BTreeMap<String, BTreeMap<String, Value>>,
    }

    #[test]
    fn every_package_is_locked_by_its_digest_and_by_no_registry() {
        for tool in [QUICKJS, STARLINGMONKEY] {
            let [(_, manifest), (_, lock), _] = tool.lock else { panic!("three files") };
            let manifest: Value = serde_json::from_str(manifest).unwrap();
            assert_eq!(manifest["dependencies"][tool.name], tool.version);
            assert!(!lock.contains("http"), "{}", tool.name);
            let lock: Lock = serde_json::from_str(lock).unwrap();
            assert_eq!(lock.packages[""]["dependencies"], manifest["dependencies"]);
            assert!(lock.packages.len() > 2);
            for (name, entry) in lock.packages.iter().filter(|(name, _)| !name.is_empty()) {
                let integrity = entry["integrity"].as_str().unwrap();
                assert!(integrity.starts_with("sha512-"), "{name}");
                // `npm ci` leaves out what nothing depends on, even where something imports it.
                assert!(
                    !entry.contains_key("resolved") && !entry.contains_key("extraneous"),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_project_may_name_its_engine() {
        let engine = |text| {
            let package = serde_json::from_str::<Package>(text);
            package.map(|package| package.pointsman.engine).map_err(|error| error.to_string())
        };
        assert_eq!(engine(r#"{"name": "p"}"#), Ok(None));
        assert_eq!(
            engine(r#"{"name": "p", "pointsman": {"engine": "starlingmonkey"}}"#),
            Ok(Some(Engine::StarlingMonkey))
        );
        let error = engine(r#"{"name": "p", "pointsman": {"engine": "v8"}}"#).unwrap_err();
        assert!(error.contains("expected `quickjs` or `starlingmonkey`"), "{error}");
    }
}
