//! A mutator: doubles the memory after each attempt that ran out of it.

use pointsman_policy_sdk::{
    Context, FailureKind, Mutator, Placement, Policy, Rejection, SettingProblem, Value, settings,
};

/// No settings.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {}

/// The policy.
#[derive(Debug)]
pub struct MoreMemory;

impl Policy for MoreMemory {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "doubles the memory after each attempt that ran out of it";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        settings::from_json(json)
    }
}

impl Mutator for MoreMemory {
    fn mutate<C: Context>(
        context: &C,
        _: &Settings,
        mut candidates: Vec<Placement>,
    ) -> Result<Vec<Placement>, Rejection> {
        let failures = context.earlier_failures();
        let times =
            failures.iter().filter(|failure| failure.kind == FailureKind::OutOfMemory).count();
        if times > 0 {
            let factor = 1 << times.min(8);
            for candidate in &mut candidates {
                candidate.memory_mib = candidate.memory_mib.map(|mib| mib.saturating_mul(factor));
            }
            context.notice(&format!("{factor} times the memory, since an attempt ran out of it"));
        }
        Ok(candidates)
    }
}

pointsman_policy_sdk::export!(MoreMemory: mutator);
