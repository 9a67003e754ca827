//! Write placement policies for Pointsman in Rust.
//!
//! A policy is a type that implements [`Policy`] and one of [`Placer`], [`Mutator`] and [`Guard`], and one
//! line that makes a component of the crate:
//!
//! ```ignore
//! pointsman_policy_sdk::export!(MyPolicy: placer);
//! ```
//!
//! [`Recovery`] may come with any of the three: `export!(MyPolicy: placer + recovery);`.
//!
//! What a policy may know of the job comes through [`Context`]: from the host inside a component, from a
//! [`Fixture`](fixture::Fixture) in native tests, so that `cargo test` needs no WebAssembly at all.

// The macro `settings!` names the crate as its users do.
#[cfg(test)]
extern crate self as pointsman_policy_sdk;

pub mod bindings;
pub mod context;
pub mod export;
pub mod fixture;
pub mod schema;
pub mod settings;
mod trust;
pub mod values;

pub use bindings::lifecycle::pointsman::policy::{
    catalog::{Arch, Capacity, Cluster, Limits, Role, TaskDefinition},
    facts::{Assurance, EarlierFailure, FailureKind, GitRef, Profile, Project, RefKind, Tags},
    log::Level,
    types::{Decision, Placement, Rejection, SettingProblem},
};
pub use bindings::recovery::exports::pointsman::policy::recovery::LostAttempt;
pub use context::Context;
#[doc(hidden)]
pub use serde;
pub use serde_json::Value;
pub use trust::{Claim, Fact};

/// Puts a label on `placement`, in the place of one of the same name.
pub fn label(placement: &mut Placement, name: &str, value: &str) {
    placement.labels.retain(|(other, _)| other != name);
    placement.labels.push((name.to_owned(), value.to_owned()));
}

/// Adds what a mutator thought to the placement's reason.
pub fn because(placement: &mut Placement, reason: &str) {
    if !placement.reason.is_empty() {
        placement.reason.push_str("; ");
    }
    placement.reason.push_str(reason);
}

/// Whether both ask for the same, whatever their labels and reasons.
pub fn same_place(one: &Placement, other: &Placement) -> bool {
    let place = |placement: &Placement| Placement {
        labels: Vec::new(),
        extra: Vec::new(),
        reason: String::new(),
        ..placement.clone()
    };
    place(one) == place(other)
}

/// Adds `placement` to the end of a ranking, unless that has one for the same place: with the label `choice`, which
/// says which way the job went, and with the reason.
pub fn rank(ranked: &mut Vec<Placement>, mut placement: Placement, choice: &str, reason: &str) {
    if ranked.iter().any(|other| same_place(other, &placement)) {
        return;
    }
    label(&mut placement, "choice", choice);
    because(&mut placement, reason);
    ranked.push(placement);
}

/// What every policy has: a description, and settings that it checks by itself.
pub trait Policy {
    /// The policy's settings, as it likes them.
    type Settings;

    /// One line for `pointsman policy inspect`.
    const DESCRIPTION: &'static str;

    /// Reads `[policies.<name>.settings]`. [`settings!`](crate::settings!) declares a type that does it by itself;
    /// [`settings::from_json`] is enough for one with `serde`.
    ///
    /// # Errors
    ///
    /// Returns every problem at once, each with the dotted path of the setting.
    fn settings(json: &Value) -> Result<Self::Settings, Vec<SettingProblem>>;

    /// What [`Policy::settings`] takes, for people and editors. The host does not check settings by it.
    fn schema() -> Option<schema::Schema> {
        None
    }
}

/// Answers placements.
pub trait Placer: Policy {
    /// Ranked placements, best first; or no opinion; or a refusal.
    ///
    /// Generic over the context, not a trait object: so a component imports only what it uses, and runs on
    /// hosts that lack the rest.
    fn place<C: Context>(context: &C, settings: &Self::Settings) -> Decision;
}

/// Changes placements.
pub trait Mutator: Policy {
    /// The placements to go on with, best first.
    ///
    /// # Errors
    ///
    /// A rejection ends the job.
    fn mutate<C: Context>(
        context: &C,
        settings: &Self::Settings,
        candidates: Vec<Placement>,
    ) -> Result<Vec<Placement>, Rejection>;
}

/// Accepts or refuses one placement.
pub trait Guard: Policy {
    /// # Errors
    ///
    /// A rejection drops this candidate; the job is rejected when none is left.
    fn check<C: Context>(
        context: &C,
        settings: &Self::Settings,
        candidate: &Placement,
    ) -> Result<(), Rejection>;
}

/// Optional, beside any of the three: asked after an attempt at the job was lost, before the placers.
pub trait Recovery: Policy {
    /// [`Decision::Abstain`]: decide as if nothing had happened. [`Decision::Place`]: these stand in for the placers'
    /// answer; mutators, guards and bounds still have their say. [`Decision::Reject`] ends the job.
    ///
    /// `lost.placement` is where the attempt ran, when it ran and that is still offered.
    fn recover<C: Context>(context: &C, settings: &Self::Settings, lost: &LostAttempt) -> Decision;
}
