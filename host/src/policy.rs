//! Policies: WebAssembly components that say where a job shall run, and the sandbox that they run in.
//!
//! [`decide`] asks a chain of them. [`store::Store`] compiles components ahead, so that a decision only maps
//! a file. What a policy sees is [`inputs`], what it answers goes through [`convert`] and the bounds.
//! `wasmtime` is named nowhere else in the driver.

mod bindings;
mod call;
mod chain;
mod convert;
mod engine;
mod imports;
mod inputs;
mod limits;
mod recorded;
pub mod store;
#[cfg(test)]
mod tests;
mod wasi;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::placement::Placement;
use crate::placement::bounds::Bounds;
use crate::placement::catalog::Catalog;
use crate::settings;
pub use chain::{decide, decide_given, decide_traced, try_out};
pub use inputs::{visible_images, visible_variables};
pub use recorded::{RecordedOffer, RecordedQuestion};
pub use store::{Examined, Store, StoreError};

/// What the policies are asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The job, its claims included.
    pub job: &'a Job,
    /// The profile's name.
    pub profile: &'a str,
    /// The job's tags, or the profile's.
    pub tags: &'a BTreeSet<String>,
    /// Which of the two.
    pub tags_assurance: Assurance,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How earlier attempts at this job ended, oldest first.
    pub earlier_failures: &'a [EarlierFailure],
    /// Further vouched values by dotted name, such as what the GitLab API says.
    pub facts: &'a BTreeMap<String, (String, Assurance)>,
    /// What there is to choose from, narrowed to `bounds`.
    pub catalog: &'a Catalog,
    /// What a placement may be.
    pub bounds: &'a Bounds,
    /// What reading a claim means for privileged roles.
    pub claims_taint: settings::ClaimsTaint,
}

/// Who vouches for a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// The GitLab server, outside the author's reach.
    Server,
    /// The operator, in the runner's or the driver's configuration.
    Runner,
}

/// How an earlier attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierFailure {
    /// Counted from 1.
    pub attempt: u32,
    /// What policies react to.
    pub kind: FailureKind,
    /// One line.
    pub detail: String,
    /// Where it ran, if it ran.
    #[serde(default)]
    pub placement: Option<Placement>,
}

/// The kinds of failure that another placement can help with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The backend had no capacity.
    Capacity,
    /// Spot capacity was taken back.
    SpotInterruption,
    /// The task ran out of memory.
    OutOfMemory,
    /// Anything else.
    Other,
}

/// Where the job shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Best first, never empty, each within the bounds.
    pub placements: Vec<Placement>,
    /// Lines for the person who reads the job log, fit to be printed.
    pub notices: Vec<String>,
    /// What each policy did, in order.
    pub steps: Vec<Step>,
}

/// What one policy did, for the attempt's record and for `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The policy's name in the settings file.
    pub policy: String,
    /// Of its component.
    pub sha256: String,
    /// What it was asked for.
    pub kind: Kind,
    /// Whether nothing hung on its answer.
    #[serde(default)]
    pub monitored: bool,
    /// One line: what it answered, what the host made of that.
    pub outcome: String,
    /// Of all its calls; the same each time for the same answers of the host.
    pub fuel: u64,
    /// Wall time of all its calls, instantiation included, in microseconds.
    pub elapsed_us: u64,
    /// Facts that it read.
    pub facts_read: BTreeSet<String>,
    /// Claims that it read.
    pub claims_read: BTreeSet<String>,
}

/// What happened on the way to a decision or to an error.
#[derive(Debug, Default)]
pub struct Trace {
    /// See [`Decision::steps`].
    pub steps: Vec<Step>,
    /// See [`Decision::notices`].
    pub notices: Vec<String>,
}

/// What a component is for; told by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Answers placements.
    Placer,
    /// Changes them.
    Mutator,
    /// Accepts or refuses them.
    Guard,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Placer => "placer",
            Self::Mutator => "mutator",
            Self::Guard => "guard",
        })
    }
}

/// Why there is no placement.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The job may not run: a failure of the build, not of the system.
    #[error("no placement for this job: {}", reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rejected {
        /// Never empty.
        reasons: Vec<Refusal>,
    },
    /// Every placer abstained, or the chain has none.
    #[error("no policy of profile `{profile}` answered: asked {}", .asked.join(", "))]
    NobodyAnswered {
        /// The profile.
        profile: String,
        /// The chain's placers.
        asked: Vec<String>,
    },
    /// A policy did not keep to its contract.
    #[error("policy `{policy}` {what}")]
    Broken {
        /// The policy's name in the settings file.
        policy: String,
        /// How.
        what: BrokenKind,
    },
    /// The policy itself says that its settings are wrong.
    #[error("the settings of policy `{policy}` are wrong: {}", .problems.join("; "))]
    Settings {
        /// The policy's name in the settings file.
        policy: String,
        /// `path: message`, fit to be printed; never empty.
        problems: Vec<String>,
    },
    /// The component is not the one that the settings file pins, or could not be prepared.
    #[error("policy `{policy}` cannot be loaded")]
    Store {
        /// The policy's name in the settings file.
        policy: String,
        /// The reason.
        source: StoreError,
    },
}

/// A policy's or the host's "no", in texts fit to be printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The policy whose answer it was, or which asked what the bounds do not allow.
    pub policy: String,
    /// The policy's own, or `out-of-bounds`, or `claims-taint`.
    pub code: String,
    /// One line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whose "no" it is.
    #[serde(default)]
    pub decided_by: DecidedBy,
}

/// Who has the say about what was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecidedBy {
    /// The policy that is named.
    #[default]
    Policy,
    /// The profile's bounds, which the named policy's answer did not keep to.
    Bounds,
    /// The profile's `claims_taint`.
    ClaimsTaint,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "policy `{}`: {} ({})", self.policy, self.message, self.code)?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// How a policy broke its contract. The texts go on after "policy `name`".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenKind {
    /// It computed more than it may.
    #[error("used up its fuel of {budget}")]
    OutOfFuel {
        /// `fuel` of its settings.
        budget: u64,
    },
    /// It took longer than it may.
    #[error("did not answer within {deadline:?}")]
    Deadline {
        /// `deadline` of its settings.
        deadline: Duration,
    },
    /// It wanted more memory than it may have.
    #[error("wanted more memory than its {limit_mib} MiB")]
    Memory {
        /// `memory` of its settings.
        limit_mib: u32,
    },
    /// It crashed; a panic of the guest arrives as this.
    #[error("crashed: {0}")]
    Trap(String),
    /// Its answer is none that the interface allows.
    #[error("gave a wrong answer: {0}")]
    WrongAnswer(String),
    /// It moved more data at once than the host copies.
    #[error("moved more than {} KiB of data at once", .limit / 1024)]
    TooMuchData {
        /// Bytes.
        limit: usize,
    },
    /// The file is no component.
    #[error("is not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// It does not export what a policy exports.
    #[error("lacks an export: {0}")]
    MissingExport(String),
    /// It wants something that policies do not get.
    #[error("imports what policies do not get: {0}")]
    ForbiddenImport(String),
    /// What it imports or exports does not fit this driver's interface.
    #[error("does not fit this driver's policy interface: {0}")]
    Link(String),
    /// The runtime itself failed.
    #[error("made the WebAssembly runtime panic: {0}")]
    Panic(String),
}
