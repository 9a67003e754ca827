//! Compiled components on disk, so that a job only maps a file.
//!
//! An entry is `<sha256>-<key>.cwasm`, native code, beside `<sha256>-<key>.json`, its [`Description`]. The key
//! changes with the runtime, its settings and the driver. Components out of a registry are kept as
//! `<sha256>.wasm`, so that a new driver needs no network to compile them anew.
//! Whoever can write such a file runs code in the
//! driver, hence [`directory`]'s checks; whoever may not is kept out by those, not by looking at the file.
//!
//! Files are replaced by renaming, never changed: other processes have them mapped.

mod component;
mod directory;
mod examine;
mod install;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::component::Component as Compiled;

use self::directory::Directory;
pub use self::examine::Examined;
use super::call::{Caller, Linked, Runtime, Shape};
use super::{BrokenKind, Kind, PolicyError, convert, engine, inputs};
use crate::placement::text::one_line;
use crate::settings::{self, Component};

/// Settings that are remembered as valid for one component: more than profiles have.
const MAX_VALID_SETTINGS: usize = 64;

/// Why a component could not be made ready, apart from its own faults.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory is not safe to load code from.
    #[error("the directory {} {reason}; expected a directory of user {user} that only that user can write", .path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The effective user.
        user: u32,
    },
    /// The store's files cannot be used.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The component is not there, or too large.
    #[error("cannot read the component {component}")]
    Component {
        /// `component` of the policy.
        component: String,
        /// The reason.
        source: io::Error,
    },
    /// A job met a component that only `pointsman policy sync` can fetch.
    #[error("the component {component} is not installed")]
    NotInstalled {
        /// `component` of the policy.
        component: String,
    },
    /// The component is another than the one that was pinned.
    #[error(
        "the component {component} has the SHA-256 digest {actual}, but `sha256` of the policy is {expected}"
    )]
    Digest {
        /// `component` of the policy.
        component: String,
        /// `sha256` of the policy.
        expected: String,
        /// Of the file.
        actual: String,
    },
    /// The WebAssembly runtime cannot work on this machine.
    #[error("cannot start the WebAssembly runtime: {0}")]
    Runtime(String),
}

/// What is known of a component without running it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The component's own name.
    pub name: String,
    /// The component's own version.
    pub version: String,
    /// One line.
    pub description: String,
    /// What it is for.
    pub kind: Kind,
    /// Interfaces that it imports.
    pub imports: BTreeSet<String>,
    /// Interfaces that it exports.
    pub exports: BTreeSet<String>,
    /// Of the compiled file: a cut-off one is not even mapped.
    compiled_bytes: u64,
    /// Digests of the settings that the component found nothing wrong with.
    valid_settings: BTreeSet<String>,
}

impl Description {
    /// Whether the component can read claims at all.
    pub fn reads_claims(&self) -> bool {
        self.imports.iter().any(|name| component::is_claims(name))
    }
}

/// A directory of compiled components, and the runtime that they are for.
pub struct Store {
    directory: Directory,
    pub(super) runtime: Runtime,
    key: String,
    /// By digest and grant.
    loaded: Mutex<HashMap<(String, bool), Arc<Loaded>>>,
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A component ready to be called.
pub(super) struct Loaded {
    pub(super) linked: Linked,
    /// Whether the component can read claims at all.
    pub(super) imports_claims: bool,
    description: Mutex<Description>,
}

impl Loaded {
    fn new(linked: Linked, description: Description) -> Self {
        let imports_claims = description.reads_claims();
        Self { linked, imports_claims, description: Mutex::new(description) }
    }
}

impl Store {
    /// Opens the store in `directory`, which is made when it is missing.
    ///
    /// # Errors
    ///
    /// Returns an error when anyone but the effective user could write into the directory.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let runtime = Runtime::new().map_err(|error| StoreError::Runtime(format!("{error:#}")))?;
        let key = engine::key(&runtime.engine);
        let directory = Directory::open(directory)?;
        Ok(Self { directory, runtime, key, loaded: Mutex::default(), tell: Box::new(|_| {}) })
    }

    /// Tells `tell` in a line before something is done that takes long and should not be needed.
    #[must_use]
    pub fn telling(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.tell = Box::new(tell);
        self
    }

    /// Makes `policy` ready: compiled and its settings validated. Answers where the compiled component is.
    ///
    /// # Errors
    ///
    /// Returns an error when the component is not the pinned one, is none that this driver can run, or does not
    /// like its settings.
    pub fn ensure(&self, name: &str, policy: &settings::Policy) -> Result<PathBuf, PolicyError> {
        self.load(name, policy)?;
        Ok(self.directory.path(&self.file(&policy.sha256, "cwasm")))
    }

    /// What is known of `policy`'s component; it is made ready when it is not.
    ///
    /// # Errors
    ///
    /// As [`Store::ensure`].
    pub fn describe(
        &self,
        name: &str,
        policy: &settings::Policy,
    ) -> Result<Description, PolicyError> {
        self.load(name, policy)?;
        self.inspect(name, policy)
    }

    /// The same without a look at its settings, for who has none yet.
    ///
    /// # Errors
    ///
    /// As [`Store::ensure`].
    pub fn inspect(
        &self,
        name: &str,
        policy: &settings::Policy,
    ) -> Result<Description, PolicyError> {
        let loaded = self.load_unvalidated(name, policy)?;
        let description = loaded.description.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(description.clone())
    }

    /// Asks `policy` what is wrong with its settings, unless it was asked before.
    ///
    /// # Errors
    ///
    /// As [`Store::ensure`].
    pub fn validate_settings(
        &self,
        name: &str,
        policy: &settings::Policy,
    ) -> Result<(), PolicyError> {
        self.load(name, policy).map(drop)
    }

    /// From memory, from the directory, or from the component's file.
    pub(super) fn load(
        &self,
        name: &str,
        policy: &settings::Policy,
    ) -> Result<Arc<Loaded>, PolicyError> {
        let loaded = self.load_unvalidated(name, policy)?;
        self.check_settings(name, policy, &loaded)?;
        Ok(loaded)
    }

    fn load_unvalidated(
        &self,
        name: &str,
        policy: &settings::Policy,
    ) -> Result<Arc<Loaded>, PolicyError> {
        let key = (policy.sha256.clone(), policy.wasi);
        let known = self.memory().get(&key).cloned();
        let loaded = match known {
            Some(loaded) => loaded,
            None => {
                let loaded = match self.entry(name, policy)? {
                    Some(loaded) => loaded,
                    None => self.build(name, policy)?,
                };
                let loaded = Arc::new(loaded);
                self.memory().insert(key, Arc::clone(&loaded));
                loaded
            }
        };
        Ok(loaded)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<(String, bool), Arc<Loaded>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, sha256: &str, extension: &str) -> String {
        format!("{sha256}-{}.{extension}", self.key)
    }

    /// `None` when there is no entry or one that is of no use, which is then made anew.
    ///
    /// # Errors
    ///
    /// Fails when the component imports what the policy is not granted: compiling it again would not help.
    fn entry(&self, name: &str, policy: &settings::Policy) -> Result<Option<Loaded>, PolicyError> {
        let sha256 = &policy.sha256;
        let Some(description) = self.read_description(sha256) else { return Ok(None) };
        let file = self.file(sha256, "cwasm");
        let refuse = |reason: &str| {
            tracing::warn!(file, reason, "a compiled policy is refused and compiled anew");
            Ok(None)
        };
        let (mapped, length) = match self.directory.open_file(&file) {
            Ok(Some((mapped, length))) => (mapped, length),
            Ok(None) => return Ok(None),
            Err(error) => return refuse(&error.to_string()),
        };
        if length != description.compiled_bytes {
            return refuse("its length is not the one that was written");
        }
        component::check_imports(&description.imports, policy.wasi)
            .map_err(|what| PolicyError::Broken { policy: name.to_owned(), what })?;
        // The open file, not its name: this is the file that was checked.
        let path = directory::path_of(&mapped);
        // SAFETY: the file was made by `build` of the same user: it lies in a directory that belongs to the
        // effective user and that nobody else can write, belongs to that user itself, and is writable by nobody
        // else, all checked on the open handles. Files are replaced by rename and never changed in place, so it
        // stays as it is while it is mapped.
        #[expect(unsafe_code, reason = "mapping compiled code is what makes a decision fast")]
        let component = unsafe { Compiled::deserialize_file(&self.runtime.engine, path) };
        let shape = shape(policy, &description.exports);
        let linked =
            component.and_then(|component| self.runtime.link(&component, description.kind, shape));
        match linked {
            Ok(linked) => Ok(Some(Loaded::new(linked, description))),
            Err(error) => refuse(&format!("{error:#}")),
        }
    }

    fn read_description(&self, sha256: &str) -> Option<Description> {
        let bytes = self.directory.read(&self.file(sha256, "json")).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn build(&self, name: &str, policy: &settings::Policy) -> Result<Loaded, PolicyError> {
        let store_error = |source| PolicyError::Store { policy: name.to_owned(), source };
        let broken = |what| PolicyError::Broken { policy: name.to_owned(), what };
        let _lock = self.directory.lock().map_err(store_error)?;
        // Another process may have made it while this one waited.
        if let Some(loaded) = self.entry(name, policy)? {
            return Ok(loaded);
        }
        (self.tell)(&format!(
            "Compiling policy `{name}`, which is not installed: `pointsman policy sync` does that ahead"
        ));
        let bytes = self.read_component(policy).map_err(store_error)?;
        let component = component::compile(&self.runtime.engine, &bytes).map_err(broken)?;
        let (kind, imports, exports) =
            component::inspect(&self.runtime.engine, &component, policy.wasi).map_err(broken)?;
        let linked = self
            .runtime
            .link(&component, kind, shape(policy, &exports))
            .map_err(|error| broken(BrokenKind::Link(one_line(&format!("{error:#}"), 500))))?;
        let caller = Caller { name, policy, inputs: Arc::new(inputs::blank()) };
        let metadata = linked.describe(&self.runtime, &caller).result.map_err(broken)?;
        let compiled = component
            .serialize()
            .map_err(|error| store_error(StoreError::Runtime(format!("{error:#}"))))?;
        let description = Description {
            name: one_line(&metadata.name, 64),
            version: one_line(&metadata.version, 64),
            description: one_line(&metadata.description, 300),
            kind,
            imports,
            exports,
            compiled_bytes: compiled.len() as u64,
            valid_settings: BTreeSet::new(),
        };
        self.directory
            .replace(&self.file(&policy.sha256, "cwasm"), &compiled)
            .map_err(store_error)?;
        // Last: an entry without a description is none.
        self.write_description(&policy.sha256, &description).map_err(store_error)?;
        Ok(Loaded::new(linked, description))
    }

    /// The pinned bytes, from where the settings say or from what `sync` kept.
    fn read_component(&self, policy: &settings::Policy) -> Result<Vec<u8>, StoreError> {
        let bytes = match &policy.component {
            Component::File(path) => component::read(path, &policy.component)?,
            // The chain asks it without loading anything.
            Component::BuiltIn(_) => {
                return Err(StoreError::Component {
                    component: policy.component.to_string(),
                    source: io::ErrorKind::Unsupported.into(),
                });
            }
            Component::Oci(_) => self
                .directory
                .read_at_most(&kept_file(&policy.sha256), component::MAX_COMPONENT)
                .map_err(|source| StoreError::Component {
                    component: policy.component.to_string(),
                    source,
                })?
                .ok_or_else(|| StoreError::NotInstalled {
                    component: policy.component.to_string(),
                })?,
        };
        component::verify(policy, &bytes)?;
        Ok(bytes)
    }

    fn write_description(&self, sha256: &str, description: &Description) -> Result<(), StoreError> {
        let file = self.file(sha256, "json");
        let json = serde_json::to_vec(description).map_err(|error| StoreError::Io {
            what: "write",
            path: self.directory.path(&file),
            source: error.into(),
        })?;
        self.directory.replace(&file, &json)
    }

    fn check_settings(
        &self,
        name: &str,
        policy: &settings::Policy,
        loaded: &Loaded,
    ) -> Result<(), PolicyError> {
        let digest = hex(&Sha256::digest(policy.settings.to_string()));
        let description = || loaded.description.lock().unwrap_or_else(PoisonError::into_inner);
        if description().valid_settings.contains(&digest) {
            return Ok(());
        }
        let caller = Caller { name, policy, inputs: Arc::new(inputs::blank()) };
        let problems = loaded
            .linked
            .validate_settings(&self.runtime, &caller)
            .result
            .map_err(|what| PolicyError::Broken { policy: name.to_owned(), what })?;
        if !problems.is_empty() {
            return Err(PolicyError::Settings {
                policy: name.to_owned(),
                problems: convert::setting_problems(&problems),
            });
        }
        description().valid_settings.insert(digest.clone());
        self.remember_settings(&policy.sha256, digest)
            .map_err(|source| PolicyError::Store { policy: name.to_owned(), source })
    }

    fn remember_settings(&self, sha256: &str, digest: String) -> Result<(), StoreError> {
        let _lock = self.directory.lock()?;
        // As it is now: another process may have remembered something since.
        let Some(mut description) = self.read_description(sha256) else { return Ok(()) };
        if description.valid_settings.len() >= MAX_VALID_SETTINGS {
            description.valid_settings.clear();
        }
        description.valid_settings.insert(digest);
        self.write_description(sha256, &description)
    }
}

fn shape(policy: &settings::Policy, exports: &BTreeSet<String>) -> Shape {
    Shape { wasi: policy.wasi, recovers: exports.iter().any(|name| component::is_recovery(name)) }
}

/// Where a component out of a registry is kept.
fn kept_file(sha256: &str) -> String {
    format!("{sha256}.wasm")
}

/// Lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
