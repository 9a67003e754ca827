//! `pointsman schema`: the examples satisfy it, and the reference is what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boon::{Compiler, Schemas};
use serde_json::Value;

use crate::support::house::DRIVER;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(DRIVER).arg("schema").args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Why the printed schema refuses `text`.
fn refusal(text: &str) -> Option<String> {
    refusal_by(serde_json::from_str(&printed(&[])).unwrap(), text)
}

fn refusal_by(schema: Value, text: &str) -> Option<String> {
    let mut compiler = Compiler::new();
    compiler.add_resource("pointsman.json", schema).unwrap();
    let mut schemas = Schemas::new();
    let index = compiler.compile("pointsman.json", &mut schemas).unwrap();
    let file: toml::Table = text.parse().unwrap();
    let json = serde_json::to_value(&file).unwrap();
    schemas.validate(&json, index).err().map(|error| format!("{error:#}"))
}

/// The settings files in `directory` and below it.
fn settings_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(settings_files(&path));
        } else if path.file_name().is_some_and(|name| name == "pointsman.toml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn all_settings_files_of_the_repository_satisfy_it() {
    let mut files = settings_files(&root().join("examples"));
    files.extend(settings_files(&root().join("tests/driver")));
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        // Digests are filled in by the tests.
        let text = fs::read_to_string(&path).unwrap();
        let filled: Vec<String> = text
            .lines()
            .map(|line| match line.split_once(" = \"@") {
                Some(("sha256", _)) => format!("sha256 = \"{}\"", "0".repeat(64)),
                _ => line.to_owned(),
            })
            .collect();
        assert_eq!(refusal(&filled.join("\n")), None, "{}", path.display());
    }
}

#[test]
fn wrong_files_do_not() {
    let text =
        fs::read_to_string(root().join("examples/three-environments/pointsman.toml")).unwrap();
    for (old, new, said) in [
        (
            "subnets = [\"subnet-12345\", \"subnet-67890\"]",
            "subnet = [\"subnet-12345\"]",
            "additionalProperties 'subnet' not allowed",
        ),
        ("region = \"eu-west-1\"\n", "", "missing properties 'region'"),
        ("backend = \"ecs\"", "backend = \"ec2\"", "value must be one of"),
        ("max_cpu = \"4\"", "max_cpu = 4", "want string, but got number"),
        ("privileged = true", "privileged = \"yes\"", "want boolean, but got string"),
        ("x86_64 = \"gitlab-runner-prod-task\"\n", "", "missing properties 'x86_64'"),
        ("clusters = [\"dev\"]", "clusters = []", "minimum 1 items required"),
    ] {
        assert!(text.contains(old), "{old}");
        let refusal =
            refusal(&text.replacen(old, new, 1)).unwrap_or_else(|| panic!("{new} is taken"));
        assert!(refusal.contains(said), "{refusal}");
    }
}

#[test]
fn what_migrate_writes_satisfies_it() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let old = directory.path().join("ecs.toml");
    fs::write(&old, include_str!("fargate/ecs.toml")).unwrap();
    let output = Command::new(DRIVER).arg("migrate").arg(&old).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(refusal(&String::from_utf8(output.stdout).unwrap()), None);
}

/// `schema` for a part of a file: nothing is required.
fn of_parts(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        // Which of several tables it is, is told by a key that is then there.
        if !fields.contains_key("const") && !fields.contains_key("if") {
            fields.remove("required");
            fields.remove("anyOf");
        }
        for (key, value) in fields {
            if key != "if" {
                of_parts(value);
            }
        }
    } else if let Some(all) = schema.as_array_mut() {
        all.iter_mut().for_each(of_parts);
    }
}

#[test]
fn what_the_documentation_shows_satisfies_it() {
    let mut schema: Value = serde_json::from_str(&printed(&[])).unwrap();
    let tables: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    of_parts(&mut schema);
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(root().join("README.md"));
    let mut shown = 0;
    for page in
        pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md"))
    {
        let text = fs::read_to_string(page).unwrap();
        for block in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let block = block.replace("\"…\"", &format!("\"{}\"", "0".repeat(64)));
            let Ok(file) = block.parse::<toml::Table>() else { continue };
            // Others show GitLab Runner's file, a policy's project, a table's keys alone.
            if file.is_empty() || !file.keys().all(|key| tables.contains(key)) {
                continue;
            }
            shown += 1;
            let refusal = refusal_by(schema.clone(), &block);
            assert_eq!(refusal, None, "{}:\n{block}", page.display());
        }
    }
    assert!(shown >= 6, "{shown} examples");
    let typo = "[clusters.dev]\nbackend = \"ecs\"\nsubnet = [\"subnet-1\"]";
    assert!(refusal_by(schema, typo).is_some());
}

#[test]
fn the_reference_is_what_the_program_prints() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    assert!(
        page == printed(&["--format", "markdown"]),
        "docs/configuration.md is not what the program says; write it anew with\n  target/debug/pointsman schema --format markdown > docs/configuration.md"
    );
}
