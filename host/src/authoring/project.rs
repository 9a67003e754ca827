//! `policy new`: a project that builds, and whose tests pass, as generated.

use std::fs;
use std::path::{Path, PathBuf};

use super::{AuthoringError, failed};

/// What a policy can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// With the SDK.
    Rust,
    /// On QuickJS, or on StarlingMonkey.
    JavaScript,
    /// On CPython.
    Python,
}

/// One file of a project.
type Template = (&'static str, &'static str);

const WIT: &str = include_str!("../../../wit/policy.wit");

const FIXTURES: [Template; 5] = [
    ("fixtures/branch.toml", include_str!("templates/fixtures/branch.toml")),
    ("fixtures/protected.yaml", include_str!("templates/fixtures/protected.yaml")),
    ("fixtures/interrupted.toml", include_str!("templates/fixtures/interrupted.toml")),
    ("fixtures/refused.toml", include_str!("templates/fixtures/refused.toml")),
    ("fixtures/shared/catalog.toml", include_str!("templates/fixtures/shared/catalog.toml")),
];

const RUST: [Template; 2] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml")),
    ("src/lib.rs", include_str!("templates/rust/src/lib.rs")),
];

/// The SDK that this driver was built beside, since it is not on a registry.
const SDK: [Template; 10] = [
    ("sdk/Cargo.toml", include_str!("../../../plugins/sdk/Cargo.toml")),
    ("sdk/src/bindings.rs", include_str!("../../../plugins/sdk/src/bindings.rs")),
    ("sdk/src/context.rs", include_str!("../../../plugins/sdk/src/context.rs")),
    ("sdk/src/export.rs", include_str!("../../../plugins/sdk/src/export.rs")),
    ("sdk/src/fixture.rs", include_str!("../../../plugins/sdk/src/fixture.rs")),
    ("sdk/src/lib.rs", include_str!("../../../plugins/sdk/src/lib.rs")),
    ("sdk/src/schema.rs", include_str!("../../../plugins/sdk/src/schema.rs")),
    ("sdk/src/settings.rs", include_str!("../../../plugins/sdk/src/settings.rs")),
    ("sdk/src/trust.rs", include_str!("../../../plugins/sdk/src/trust.rs")),
    ("sdk/src/values.rs", include_str!("../../../plugins/sdk/src/values.rs")),
];

/// The versions that this driver's own policies are built with; Cargo drops what the project does not use.
const RUST_LOCK: &str = include_str!("../../../plugins/Cargo.lock");

const JAVASCRIPT: [Template; 5] = [
    ("package.json", include_str!("templates/js/package.json")),
    ("src/decide.js", include_str!("templates/js/src/decide.js")),
    ("src/policy.js", include_str!("templates/js/src/policy.js")),
    ("test/decide.test.js", include_str!("templates/js/test/decide.test.js")),
    ("types/policy.d.ts", include_str!("templates/js/types/policy.d.ts")),
];

const PYTHON: [Template; 3] = [
    ("decide.py", include_str!("templates/python/decide.py")),
    ("policy.py", include_str!("templates/python/policy.py")),
    ("test_decide.py", include_str!("templates/python/test_decide.py")),
];

/// Makes the project in `directory`, which must not be there; answers the files.
///
/// # Errors
///
/// Fails for a name that is none in every language, and when a file cannot be written.
pub fn create(
    directory: &Path,
    name: &str,
    language: Language,
) -> Result<Vec<PathBuf>, AuthoringError> {
    check_name(name)?;
    if directory.exists() {
        return Err(AuthoringError::Unusable(format!("{} is there already", directory.display())));
    }
    let mut files: Vec<(&str, String)> = vec![
        ("README.md", readme(name, language)),
        (".gitignore", ignored(language).to_owned()),
        ("wit/policy.wit", WIT.to_owned()),
    ];
    let mut add = |templates: &[Template]| {
        files.extend(templates.iter().map(|&(path, text)| (path, text.replace("@NAME@", name))));
    };
    add(&FIXTURES);
    match language {
        Language::Rust => {
            add(&RUST);
            files.extend(SDK.iter().map(|&(path, text)| (path, vendored(path, text))));
            files.push(("Cargo.lock", RUST_LOCK.to_owned()));
        }
        Language::JavaScript => add(&JAVASCRIPT),
        Language::Python => add(&PYTHON),
    }
    let mut written = Vec::new();
    for (path, text) in files {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        fs::write(&path, text).map_err(failed("write", &path))?;
        written.push(path);
    }
    Ok(written)
}

/// A crate's name, a file's name and a key of the settings file all at once.
fn check_name(name: &str) -> Result<(), AuthoringError> {
    let legal = name.len() <= 40
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    // Names that Cargo refuses for crates.
    let taken = ["test", "core", "std", "alloc", "self", "super", "crate"];
    if legal && !taken.contains(&name) {
        return Ok(());
    }
    Err(AuthoringError::Unusable(format!(
        "`{name}` is no name for a policy: expected up to 40 lower-case letters, digits and dashes, a letter first"
    )))
}

/// The SDK outside its workspace: what it inherits is written out, the interface lies one directory nearer, and
/// its examples stay behind.
fn vendored(path: &str, text: &str) -> String {
    if path != "sdk/Cargo.toml" {
        return text.replace("\"../../wit\"", "\"../wit\"");
    }
    let text = text
        .replace("rust-version.workspace = true", "rust-version = \"1.95\"")
        .replace(
            "version.workspace = true",
            &format!("version = \"{}\"", env!("CARGO_PKG_VERSION")),
        )
        .replace("edition.workspace = true", "edition = \"2024\"")
        .replace("license.workspace = true", "license = \"Apache-2.0\"");
    let end = ["[lints]", "[[example]]", "# Policies in small"]
        .iter()
        .filter_map(|section| text.find(section))
        .min()
        .unwrap_or(text.len());
    format!("{}\n", text[..end].trim_end())
}

fn ignored(language: Language) -> &'static str {
    match language {
        Language::Rust => "/target\n*.wasm\n",
        Language::JavaScript => "/node_modules\n*.wasm\n",
        Language::Python => "__pycache__\n*.wasm\n",
    }
}

fn readme(name: &str, language: Language) -> String {
    let (test, logic) = match language {
        Language::Rust => ("cargo test", "src/lib.rs"),
        Language::JavaScript => ("npm test", "src/decide.js"),
        Language::Python => ("python3 -m unittest", "decide.py"),
    };
    format!(
        "# {name}\n\n\
         A placement policy for Pointsman: Spot for jobs that may be lost, on-demand for the others.\n\
         Change `{logic}` to what you want.\n\n\
         ```sh\n\
         {test}                                    # the logic alone\n\
         pointsman policy build                    # makes {name}.wasm\n\
         pointsman policy test --policy {name}.wasm   # the fixtures, on the component\n\
         pointsman policy inspect {name}.wasm\n\
         pointsman policy bench {name}.wasm --fixture fixtures/branch.toml\n\
         ```\n\n\
         ## Settings\n\n\
         | key | meaning |\n|---|---|\n\
         | `cluster` | the cluster of every job |\n\
         | `task_definition` | the task definition of every job |\n\
         | `spot` | whether Spot may be used; default `true` |\n\n\
         ```toml\n\
         [policies.{name}]\n\
         component = \"{name}.wasm\"\n\
         sha256 = \"…\"                 # `pointsman policy inspect {name}.wasm` prints it\n\
         [policies.{name}.settings]\n\
         cluster = \"ci\"\n\
         task_definition = \"node\"\n\
         ```\n\n\
         `wit/policy.wit` is the interface: it says who vouches for each fact, and which of them an author chooses.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["spot-first", "a", "x1"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "1a", "A", "a_b", "../a", "test", "a b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_sdk_stands_alone() {
        let manifest = vendored("sdk/Cargo.toml", SDK[0].1);
        assert!(!manifest.contains("workspace") && !manifest.contains("example"), "{manifest}");
        assert!(manifest.contains("wit-bindgen"), "{manifest}");
        assert!(manifest.contains("rust-version = \"1.95\""), "{manifest}");
        let files =
            fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/sdk/src")).unwrap();
        for file in files.flatten() {
            let name = format!("sdk/src/{}", file.file_name().to_string_lossy());
            let (_, text) =
                SDK.iter().find(|(path, _)| *path == name).unwrap_or_else(|| panic!("{name}"));
            assert!(!vendored(&name, text).contains("../../wit"));
        }
    }

    #[test]
    fn a_project_has_its_name_and_is_not_written_over_another() {
        let directory = tempfile::tempdir().unwrap();
        for (language, file) in [
            (Language::Rust, "Cargo.toml"),
            (Language::JavaScript, "package.json"),
            (Language::Python, "policy.py"),
        ] {
            let project = directory.path().join(file);
            create(&project, "my-policy", language).unwrap();
            assert!(fs::read_to_string(project.join(file)).unwrap().contains("my-policy"));
            assert!(project.join("wit/policy.wit").exists());
            let error = create(&project, "my-policy", language).unwrap_err();
            assert!(error.to_string().ends_with("is there already"));
        }
    }
}
