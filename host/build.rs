//! What `pointsman version` tells of a build: compiler, target, profile, Wasmtime, policy interface and commit.
//!
//! Nothing here fails a build: what cannot be found out, as the commit in an unpacked archive, is left out.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the commit where there is no checkout to ask, as in a distribution's build.
const COMMIT: &str = "POINTSMAN_COMMIT";

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    fact("TARGET", env::var("TARGET").ok());
    let profile = env::var("PROFILE").ok();
    fact("PROFILE", profile.clone());
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    fact("RUSTC", said(Command::new(rustc).arg("-V")));
    fact("WASMTIME", read(&manifest.join("../Cargo.lock")).as_deref().and_then(wasmtime));
    fact("INTERFACE", read(&manifest.join("../wit/policy.wit")).as_deref().and_then(interface));
    let given = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
    // A debug build does not look: it would be compiled anew at each commit.
    let of_checkout = || (profile.as_deref() == Some("release")).then(|| commit(&manifest))?;
    fact("COMMIT", given.or_else(of_checkout));
}

/// Hands a fact to `cli/version.rs`; an empty one is unknown.
fn fact(name: &str, value: Option<String>) {
    println!("cargo::rustc-env=POINTSMAN_BUILD_{name}={}", value.unwrap_or_default());
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text)
}

/// The first line that a successful command prints; `None` when there is none.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn wasmtime(lock: &str) -> Option<String> {
    let mut lines = lock.lines().skip_while(|line| *line != "name = \"wasmtime\"");
    let version = lines.nth(1)?.strip_prefix("version = \"")?;
    Some(format!("wasmtime {}", version.trim_end_matches('"')))
}

fn interface(wit: &str) -> Option<String> {
    let package = wit.lines().find_map(|line| line.strip_prefix("package "))?;
    Some(package.trim_end_matches(';').to_owned())
}

/// The commit that is checked out, marked when tracked files differ from it.
fn commit(manifest: &Path) -> Option<String> {
    let git =
        |arguments: &[&str]| said(Command::new("git").arg("-C").arg(manifest).args(arguments));
    // A source archive unpacked inside somebody else's checkout is not of that checkout's commit.
    git(&["ls-files", "--error-unmatch", "--", "build.rs"])?;
    let commit = git(&["rev-parse", "HEAD"])?;
    for name in ["HEAD", "logs/HEAD", "index"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        let path = manifest.join(path);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    println!("cargo::rerun-if-changed=src");
    let modified = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if modified { format!("{commit}-modified") } else { commit })
}
