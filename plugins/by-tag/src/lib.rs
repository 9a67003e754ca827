//! `by-tag`: settings map a job's tags to pieces of a placement.
//!
//! README.md has the settings. [`settings`] reads them, [`rules`] decides.

#[cfg(test)]
mod readme;
pub mod rules;
pub mod settings;

use pointsman_policy_sdk::schema::Schema;
use pointsman_policy_sdk::{Context, Decision, Placer, Policy, SettingProblem, Value};

/// The policy.
#[derive(Debug)]
pub struct ByTag;

impl Policy for ByTag {
    type Settings = settings::Settings;

    const DESCRIPTION: &'static str = "settings map a job's tags to pieces of a placement";

    fn settings(json: &Value) -> Result<Self::Settings, Vec<SettingProblem>> {
        settings::read(json)
    }

    fn schema() -> Option<Schema> {
        Some(settings::schema())
    }
}

impl Placer for ByTag {
    fn place<C: Context>(context: &C, settings: &Self::Settings) -> Decision {
        rules::decide(context, settings)
    }
}

pointsman_policy_sdk::export!(ByTag: placer);
