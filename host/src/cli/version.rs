//! `pointsman version`: what a report of a bug has to say about the build. `build.rs` finds it out.

use std::fmt::Write as _;
use std::sync::LazyLock;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::failure::{Failure, Report};
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Facts of this build; `None` is what the build could not find out.
#[derive(Debug, Serialize)]
struct Build {
    version: &'static str,
    /// With `-modified` behind it when tracked files differed; debug builds have none.
    commit: Option<&'static str>,
    profile: Option<&'static str>,
    target: Option<&'static str>,
    rustc: Option<&'static str>,
    wasm_runtime: Option<&'static str>,
    /// The interface that policies are built for.
    policy_interface: Option<&'static str>,
}

const fn known(fact: &'static str) -> Option<&'static str> {
    if fact.is_empty() { None } else { Some(fact) }
}

const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: known(env!("POINTSMAN_BUILD_COMMIT")),
    profile: known(env!("POINTSMAN_BUILD_PROFILE")),
    target: known(env!("POINTSMAN_BUILD_TARGET")),
    rustc: known(env!("POINTSMAN_BUILD_RUSTC")),
    wasm_runtime: known(env!("POINTSMAN_BUILD_WASMTIME")),
    policy_interface: known(env!("POINTSMAN_BUILD_INTERFACE")),
};

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = BUILD.version.to_owned();
    for (name, fact) in [
        ("commit", BUILD.commit),
        ("profile", BUILD.profile),
        ("target", BUILD.target),
        ("rustc", BUILD.rustc),
        ("wasm runtime", BUILD.wasm_runtime),
        ("policy interface", BUILD.policy_interface),
    ] {
        let _ = write!(text, "\n{name}: {}", fact.unwrap_or("unknown"));
    }
    text
});

/// Behind the program's name, for `--version`.
pub(super) fn text() -> &'static str {
    &TEXT
}

/// Prints it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.format {
        Format::Text => output::result(&format!("pointsman {}\n", text())),
        Format::Json => {
            let json = serde_json::to_string_pretty(&BUILD)
                .map_err(|error| Failure::System(Report::of(&error)))?;
            output::result(&format!("{json}\n"));
        }
    }
    Ok(())
}
