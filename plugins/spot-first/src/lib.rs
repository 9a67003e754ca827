//! `spot-first`: Spot for jobs that may be lost; on-demand on protected refs, for long jobs and after an
//! interruption.
//!
//! README.md has the settings.

use pointsman_policy_sdk::schema::{self, Schema};
use pointsman_policy_sdk::settings::{Declared, Described};
use pointsman_policy_sdk::{
    Capacity, Context, FailureKind, Mutator, Placement, Policy, Rejection, SettingProblem, Value,
    rank,
};

pointsman_policy_sdk::settings! {
    /// `[policies.spot-first.settings]`
    pub struct Settings {
        /// what jobs of protected refs get
        protected_refs: Wanted = Wanted::OnDemand,
        /// timeout up to which Spot is used
        longest_minutes: u32 = 60,
        /// tags of jobs that must not be lost
        opt_out_tags: Vec<String> = Vec::new(),
        /// whether on-demand follows when Spot has no capacity
        fall_back: bool = true,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Wanted {
    OnDemand,
    Spot,
}

impl Described for Wanted {
    fn described(text: &str) -> Schema {
        schema::choice(text, &["on-demand", "spot"])
    }
}

/// The policy.
#[derive(Debug)]
pub struct SpotFirst;

impl Policy for SpotFirst {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "Spot for jobs that may be lost, on-demand for the others";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        Settings::read(json)
    }

    fn schema() -> Option<Schema> {
        Some(Settings::schema())
    }
}

impl Mutator for SpotFirst {
    fn mutate<C: Context>(
        context: &C,
        settings: &Settings,
        candidates: Vec<Placement>,
    ) -> Result<Vec<Placement>, Rejection> {
        let offered = context.limits().capacities;
        Ok(match against_spot(context, settings) {
            None if offered.contains(&Capacity::Spot) => {
                let on_demand = settings.fall_back && offered.contains(&Capacity::OnDemand);
                let mut ranked =
                    all_on(&candidates, Capacity::Spot, "Spot, since the job may be lost");
                if on_demand {
                    ranked.extend(all_on(
                        &candidates,
                        Capacity::OnDemand,
                        "if Spot has no capacity",
                    ));
                }
                ranked
            }
            Some(reason) if offered.contains(&Capacity::OnDemand) => {
                all_on(&candidates, Capacity::OnDemand, &format!("on demand, since {reason}"))
            }
            _ => candidates,
        })
    }
}

/// Why the job must not run on Spot; `None` when it may.
fn against_spot<C: Context>(context: &C, settings: &Settings) -> Option<String> {
    let interrupted = context.earlier_failures().iter().any(|failure| {
        matches!(failure.kind, FailureKind::SpotInterruption | FailureKind::Capacity)
    });
    if interrupted {
        return Some("an earlier attempt lost its Spot capacity or found none".to_owned());
    }
    if settings.protected_refs == Wanted::OnDemand && context.git_ref().protected == Some(true) {
        return Some("the ref is protected".to_owned());
    }
    let minutes = context.timeout_seconds().div_ceil(60);
    if minutes > settings.longest_minutes {
        return Some(format!(
            "it may take {minutes} min, longer than {} min",
            settings.longest_minutes
        ));
    }
    if settings.opt_out_tags.is_empty() {
        return None;
    }
    let tags = context.tags();
    let tag = tags.values.iter().find(|tag| settings.opt_out_tags.contains(tag))?;
    Some(format!("it has the tag `{tag}`"))
}

/// The candidates with one capacity, each once.
fn all_on(candidates: &[Placement], capacity: Capacity, reason: &str) -> Vec<Placement> {
    let choice = if capacity == Capacity::Spot { "spot" } else { "on-demand" };
    let mut ranked = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        rank(&mut ranked, Placement { capacity, ..candidate.clone() }, choice, reason);
    }
    ranked
}

pointsman_policy_sdk::export!(SpotFirst: mutator);

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_policy_sdk::EarlierFailure;
    use pointsman_policy_sdk::fixture::{Fixture, assert_schema_is_whole, placement};

    fn capacities(job: &Fixture, json: Value) -> Vec<Capacity> {
        let settings = SpotFirst::settings(&json).unwrap();
        let both = vec![placement(), Placement { capacity: Capacity::Spot, ..placement() }];
        let ranked = SpotFirst::mutate(job, &settings, both).unwrap();
        ranked.iter().map(|placement| placement.capacity).collect()
    }

    #[test]
    fn who_gets_spot() {
        use Capacity::{OnDemand, Spot};
        let json = || serde_json::json!({"opt_out_tags": ["deploy"]});
        assert_eq!(capacities(&Fixture::default(), json()), [Spot, OnDemand]);
        assert_eq!(
            capacities(&Fixture::default(), serde_json::json!({"fall_back": false})),
            [Spot]
        );
        assert_eq!(capacities(&Fixture::with_tags(["deploy"]), json()), [OnDemand]);
        let mut job = Fixture::default();
        job.git_ref.protected = Some(true);
        assert_eq!(capacities(&job, json()), [OnDemand]);
        assert_eq!(
            capacities(&job, serde_json::json!({"protected_refs": "spot"})),
            [Spot, OnDemand]
        );
        job.git_ref.protected = None;
        assert_eq!(capacities(&job, json()), [Spot, OnDemand]);
        job.timeout_seconds = 3601;
        assert_eq!(capacities(&job, json()), [OnDemand]);
        let mut job = Fixture::default();
        job.earlier_failures.push(EarlierFailure {
            attempt: 1,
            kind: FailureKind::SpotInterruption,
            detail: String::new(),
        });
        assert_eq!(capacities(&job, json()), [OnDemand]);
    }

    #[test]
    fn what_the_profile_does_not_offer_is_not_asked() {
        let mut job = Fixture::default();
        job.limits.capacities = vec![Capacity::OnDemand];
        let settings = Settings::read(&serde_json::json!({})).unwrap();
        assert_eq!(SpotFirst::mutate(&job, &settings, vec![placement()]).unwrap(), [placement()]);
    }

    #[test]
    fn settings_are_read_strictly() {
        assert!(SpotFirst::settings(&serde_json::json!({"spot": true})).is_err());
        assert_schema_is_whole::<SpotFirst>();
    }
}
