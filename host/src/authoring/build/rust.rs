//! Rust: Cargo for `wasm32-unknown-unknown`, by rustup's toolchain or by Debian's.
//!
//! The same two ways as `scripts/build-plugins` of this repository, and the same flags: the digest of a component
//! must not hang on where it was built.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::tools::{output, run};
use super::{Build, Toolchain, component};
use crate::authoring::{AuthoringError, failed};

const TARGET: &str = "wasm32-unknown-unknown";
/// Debian's packages: the compiler with the target, the sources of the standard library, the linker.
const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src lld-19";
const DEBIAN_LINKER: &str = "wasm-ld-19";

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

/// The project's name and its component.
pub(super) fn build(
    project: &Path,
    build: &Build<'_>,
) -> Result<(String, Vec<u8>), AuthoringError> {
    let path = project.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| {
        AuthoringError::Unusable(format!("{} is no crate's: {error}", path.display()))
    })?;
    let name = manifest.package.name;
    let (toolchain, sysroot) = toolchain(project, build.toolchain)?;
    let (program, mut flags) = match toolchain {
        Toolchain::Current => ("cargo", Vec::new()),
        Toolchain::Debian => (
            "/usr/bin/cargo",
            vec![format!("-Clinker={DEBIAN_LINKER}"), "-Clinker-flavor=wasm-ld".to_owned()],
        ),
    };
    flags.push(format!("--remap-path-prefix={}=pointsman", project.display()));
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags.push(format!("--remap-path-prefix={sysroot}=rust"));
    let mut cargo = Command::new(program);
    cargo.current_dir(project);
    if matches!(toolchain, Toolchain::Debian) {
        // A rustup in the environment must not stand in for either program.
        for variable in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            cargo.env_remove(variable);
        }
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        cargo.arg("-Zbuild-std=std,panic_abort");
        (build.progress)(
            "building the standard library as well: Debian's toolchain has it as source",
        );
    }
    // Joined by the unit separator, so that a space in a path is no end of an argument.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.args(["build", "--lib", "--release", "--target", TARGET, "--message-format", "short"]);
    let told = build.target.map(Path::to_owned).or_else(crate::environment::cargo_target_directory);
    let target = match told {
        Some(target) => std::path::absolute(&target).map_err(failed("find", &target))?,
        None => project.join("target"),
    };
    // Both toolchains give what they made the same name.
    let target = match toolchain {
        Toolchain::Current => target,
        Toolchain::Debian => target.join("debian"),
    };
    cargo.arg("--target-dir").arg(&target);
    run(&mut cargo)?;
    let file = format!("{}.wasm", name.replace('-', "_"));
    let module = target.join(TARGET).join("release").join(file);
    let bytes = std::fs::read(&module).map_err(failed("read", &module))?;
    let component = component::new(&bytes).map_err(|reason| {
        AuthoringError::Unusable(format!("{} makes no component: {reason}", module.display()))
    })?;
    Ok((name, component))
}

/// The one that is wanted, or else the first that has the target; and its sysroot.
fn toolchain(
    project: &Path,
    wanted: Option<Toolchain>,
) -> Result<(Toolchain, String), AuthoringError> {
    if wanted != Some(Toolchain::Debian)
        && let Some(sysroot) = current(project)
    {
        return Ok((Toolchain::Current, sysroot));
    }
    if wanted != Some(Toolchain::Current)
        && let Some(sysroot) = debian()
    {
        return Ok((Toolchain::Debian, sysroot));
    }
    let rustup = format!("run `rustup target add {TARGET}`");
    let apt = format!("run `apt-get install {DEBIAN_PACKAGES}`");
    Err(AuthoringError::Unusable(match wanted {
        None => format!("no Rust toolchain for {TARGET}: {rustup}, or on Debian {apt}"),
        Some(Toolchain::Current) => format!("`rustc` has no target {TARGET}: {rustup}"),
        Some(Toolchain::Debian) => format!("Debian's toolchain is not complete: {apt}"),
    }))
}

/// The sysroot of the project's toolchain, when that has the target.
fn current(project: &Path) -> Option<String> {
    let ask = |arguments: &[&str]| {
        output(Command::new("rustc").current_dir(project).arg("--print").args(arguments))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let libraries = ask(&["target-libdir", "--target", TARGET])?;
    if has_core(Path::new(&libraries)) { ask(&["sysroot"]) } else { None }
}

/// The sysroot of Debian's, when that is complete.
fn debian() -> Option<String> {
    let bin = Path::new("/usr/bin");
    if !bin.join("cargo").exists() || !bin.join(DEBIAN_LINKER).exists() {
        return None;
    }
    let sysroot = output(Command::new(bin.join("rustc")).args(["--print", "sysroot"])).ok()?;
    let sysroot = sysroot.trim().to_owned();
    Path::new(&sysroot).join("lib/rustlib/src/rust/library").is_dir().then_some(sysroot)
}

fn has_core(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn cargo_home() -> Option<PathBuf> {
    let set = |value: OsString| (!value.is_empty()).then(|| PathBuf::from(value));
    crate::environment::cargo_home().and_then(set)
}
