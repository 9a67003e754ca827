//! Tools for whoever writes policies: fixtures, inspection, measuring, projects and their builds, and the
//! re-deciding of recorded jobs.
//!
//! Everything here asks real components through [`policy`](crate::policy), as a job does.

pub mod bench;
pub mod build;
pub mod explain;
pub mod fixture;
pub mod inspect;
pub mod junit;
pub mod project;
pub mod provenance;
pub mod replay;
pub mod trial;
pub mod update;
pub mod variants;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::policy::{PolicyError, StoreError};
use crate::settings;

/// What a tool for authors can fail with.
#[derive(Debug, thiserror::Error)]
pub enum AuthoringError {
    /// A file or directory failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// Such as `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A fixture that is none.
    #[error("{} is no fixture: {reason}", .path.display())]
    Fixture {
        /// The file.
        path: PathBuf,
        /// With the place, where the parser knows it.
        reason: String,
    },
    /// A component, or its settings.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The store of compiled components.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A program that a build needs.
    #[error("{program} {reason}")]
    Program {
        /// As it was called.
        program: String,
        /// What became of it.
        reason: String,
    },
    /// A project, a file or an argument that cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// For `map_err`.
pub(crate) fn failed(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> AuthoringError {
    let path = path.to_owned();
    move |source| AuthoringError::Io { action, path, source }
}

/// Lower-case hex digits of the SHA-256 digest.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `component` as the settings file would have it, with the default budgets, pinned to what it is now.
///
/// # Errors
///
/// Fails when the file cannot be read.
pub fn policy_of(
    component: &Path,
    settings: serde_json::Value,
) -> Result<settings::Policy, AuthoringError> {
    let bytes = std::fs::read(component).map_err(failed("read", component))?;
    pinned(component, digest(&bytes), settings)
}

/// The same for a digest that is known: jobs do not read the component either.
///
/// # Errors
///
/// Fails when there is no current directory that a relative path could start from.
pub fn pinned(
    component: &Path,
    sha256: String,
    settings: serde_json::Value,
) -> Result<settings::Policy, AuthoringError> {
    let path = std::path::absolute(component).map_err(failed("find", component))?;
    Ok(settings::Policy {
        component: settings::Component::File(path),
        sha256,
        settings,
        fuel: 200_000_000,
        deadline: std::time::Duration::from_millis(250),
        memory_mib: 64,
        on_error: settings::OnError::Reject,
        mode: settings::Mode::Enforce,
        // Inert, and asked for by hand: a tool that refused would only send its user back for the grant.
        wasi: true,
    })
}

/// The name that a component goes by in tools: its file's, without the ending.
pub fn name_of(component: &Path) -> String {
    component.file_stem().map_or_else(|| "policy".to_owned(), |stem| stem.to_string_lossy().into())
}

/// `a, b` or `none`.
pub(crate) fn listed(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
