//! What is made of the command line itself: version, completions, manual pages, and colours.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::rehearsal::{pinned, root};
use crate::support::house::DRIVER;

/// Every command that a user can give, as the help lists them.
const COMMANDS: [&str; 12] = [
    "config", "prepare", "run", "cleanup", "rehearse", "policy", "explain", "sweep", "check",
    "doctor", "migrate", "schema",
];

fn pointsman<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let output = Command::new(DRIVER).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn scratch() -> TempDir {
    TempDir::with_prefix_in("version-", env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn the_version_tells_how_it_was_built() {
    let json: Value = serde_json::from_str(&pointsman(&["version", "--format", "json"])).unwrap();
    let wit = fs::read_to_string(root().join("wit/policy.wit")).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["rustc"].as_str().unwrap().starts_with("rustc 1."), "{json}");
    assert!(json["wasm_runtime"].as_str().unwrap().starts_with("wasmtime 48."), "{json}");
    assert!(json["target"].as_str().unwrap().contains("-linux-"), "{json}");
    assert!(wit.contains(&format!("package {};", json["policy_interface"].as_str().unwrap())));
    let text = pointsman(&["version"]);
    assert_eq!(text, pointsman(&["--version"]), "one text for both");
    assert!(text.starts_with(&format!("pointsman {}\n", env!("CARGO_PKG_VERSION"))), "{text}");
    for value in json.as_object().unwrap().values() {
        assert!(text.contains(value.as_str().unwrap_or("unknown")), "{value} is missing in {text}");
    }
    assert_eq!(pointsman(&["-V"]), format!("pointsman {}\n", env!("CARGO_PKG_VERSION")));
}

/// The build script by itself, run for a package in `directory`.
fn facts(script: &Path, directory: &Path, commit: Option<&str>) -> String {
    let mut command = Command::new(script);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", directory)
        .env("CARGO_MANIFEST_DIR", directory.join("host"))
        .env("PROFILE", "release")
        .env("TARGET", "some-target");
    if let Some(commit) = commit {
        command.env("POINTSMAN_COMMIT", commit);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let fact = |line: &str| {
        Some(line.strip_prefix("cargo::rustc-env=POINTSMAN_BUILD_COMMIT=")?.to_owned())
    };
    text.lines().find_map(fact).unwrap()
}

#[test]
fn a_release_names_its_commit_and_an_archive_builds_without_one() {
    let directory = scratch();
    let script = directory.path().join("build-script");
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-o"])
        .arg(&script)
        .arg(root().join("host/build.rs"))
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

    let house = directory.path().join("checkout");
    fs::create_dir_all(house.join("host/src")).unwrap();
    fs::write(house.join("host/build.rs"), "").unwrap();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(&house)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    assert_eq!(facts(&script, &house, None), "", "of somebody else's checkout");
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    assert_eq!(facts(&script, &house, None), commit);
    fs::write(house.join("host/build.rs"), "changed").unwrap();
    assert_eq!(facts(&script, &house, None), format!("{commit}-modified"));
    assert_eq!(facts(&script, &house, Some("given")), "given");
    fs::remove_dir_all(house.join(".git")).unwrap();
    // The test's own directory lies in a checkout, too, which does not know the file.
    assert_eq!(facts(&script, &house, None), "");
}

#[test]
fn bash_completes_commands_options_and_values() {
    let directory = scratch();
    let script = directory.path().join("pointsman.bash");
    fs::write(&script, pointsman(&["completions", "bash"])).unwrap();
    let complete = |words: &[&str]| {
        let program = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _pointsman pointsman '{}' '{}'; echo \"${{COMPREPLY[*]}}\"",
            script.display(),
            words.join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let output = Command::new("bash").args(["-c", &program]).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["pointsman", "reh"]), "rehearse");
    assert_eq!(complete(&["pointsman", "policy", "in"]), "inspect");
    assert_eq!(complete(&["pointsman", "sweep", "--dry"]), "--dry-run");
    assert_eq!(complete(&["pointsman", "tasks", "--format", "j"]), "json");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = pointsman(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{command} is missing for {shell}");
        }
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let directory = scratch();
    let pages = directory.path().join("not/yet/there");
    assert_eq!(pointsman(&["man".as_ref(), pages.as_os_str()]), "");
    let root = fs::read_to_string(pages.join("pointsman.1")).unwrap();
    assert!(!root.contains("rustc"), "pages do not differ by build\n{root}");
    for command in COMMANDS {
        assert!(root.contains(&format!("pointsman\\-{command}(1)")), "{command}\n{root}");
        let page = fs::read_to_string(pages.join(format!("pointsman-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("\\-\\-config"), "{page}");
    }
    assert!(pages.join("pointsman-policy-new.1").exists());
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let output = Command::new(DRIVER).arg("man").arg(&file).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot write manual pages to"), "{said}");
}

/// Runs the driver with a terminal for stdin, stdout and stderr; answers what appears there.
fn on_a_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let Output { stdout, .. } = Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("'{DRIVER}' {}", quoted.join(" ")))
        .arg("/dev/null")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("util-linux's `script`, which makes a terminal: {error}"));
    String::from_utf8_lossy(&stdout).into_owned()
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let directory = pinned("three-environments");
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path(".gitlab-ci.yml"), "build:\n  tags: [dev]\n  script: [echo hello]\n").unwrap();
    let (settings, state, pipeline) =
        (path("pointsman.toml"), path("state"), path(".gitlab-ci.yml"));
    let global = ["--config", &settings, "--state-directory", &state];
    let rehearsal = [&global[..], &["rehearse", &pipeline]].concat();

    let coloured = on_a_terminal(&rehearsal, &[]);
    assert!(coloured.contains("\u{1b}[32;1mJob succeeded"), "{coloured}");
    for plain in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let text = on_a_terminal(&rehearsal, &plain);
        assert!(text.contains("Job succeeded") && !text.contains('\u{1b}'), "{plain:?}: {text}");
    }
    // Where it is no terminal; with an old variable of the BSDs that wants colours for all that.
    let output = Command::new(DRIVER).args(&rehearsal).env("CLICOLOR_FORCE", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Job succeeded") && !text.contains('\u{1b}'), "{text}");

    // Nothing else has colours, errors and the trace log included.
    let explain = [&global[..], &["explain", &pipeline]].concat();
    let check = [&global[..], &["check"]].concat();
    let absent = ["--config", "/nonexistent", "doctor"];
    for arguments in
        [&explain[..], &check, &absent, &["--help"], &["rehearse", "--no-such"], &["version"]]
    {
        let text = on_a_terminal(arguments, &[("POINTSMAN_LOG", "trace"), ("NO_COLOR", "1")]);
        assert!(!text.is_empty() && !text.contains('\u{1b}'), "{arguments:?}: {text:?}");
    }
}
