//! The hook after a lost attempt: what Spot took, or had no room for, is tried again on demand, in the same place.
//!
//! Otherwise it has no opinion; the placers after it in the chain decide.

use pointsman_policy_sdk::{
    Capacity, Context, Decision, FailureKind, LostAttempt, Placement, Placer, Policy, Recovery,
    SettingProblem, Value, because, settings,
};

/// None.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {}

/// The policy.
#[derive(Debug)]
pub struct AfterSpot;

impl Policy for AfterSpot {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "what Spot took is tried again on demand";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        settings::from_json(json)
    }
}

impl Placer for AfterSpot {
    fn place<C: Context>(_context: &C, _settings: &Settings) -> Decision {
        Decision::Abstain
    }
}

impl Recovery for AfterSpot {
    fn recover<C: Context>(context: &C, _settings: &Settings, lost: &LostAttempt) -> Decision {
        let of_spot =
            matches!(lost.failure.kind, FailureKind::SpotInterruption | FailureKind::Capacity);
        let Some(placement) =
            lost.placement.as_ref().filter(|placement| placement.capacity == Capacity::Spot)
        else {
            return Decision::Abstain;
        };
        if !of_spot || !context.limits().capacities.contains(&Capacity::OnDemand) {
            return Decision::Abstain;
        }
        let mut again = Placement { capacity: Capacity::OnDemand, ..placement.clone() };
        again.reason.clear();
        because(
            &mut again,
            &format!("on demand, since attempt {} was lost on Spot", lost.failure.attempt),
        );
        context.notice("on demand this time, since Spot was lost");
        Decision::Place(vec![again])
    }
}

pointsman_policy_sdk::export!(AfterSpot: placer + recovery);

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_policy_sdk::EarlierFailure;
    use pointsman_policy_sdk::fixture::{Fixture, placement};

    fn recovered(kind: FailureKind, placement: Option<Placement>) -> Decision {
        let failure = EarlierFailure { attempt: 1, kind, detail: String::new() };
        AfterSpot::recover(&Fixture::default(), &Settings {}, &LostAttempt { failure, placement })
    }

    #[test]
    fn only_what_was_lost_on_spot_is_moved() {
        let on_spot = || Some(Placement { capacity: Capacity::Spot, ..placement() });
        for kind in [FailureKind::SpotInterruption, FailureKind::Capacity] {
            let Decision::Place(again) = recovered(kind, on_spot()) else { panic!("{kind:?}") };
            assert_eq!((again.len(), again[0].capacity), (1, Capacity::OnDemand));
            assert_eq!(again[0].cluster, placement().cluster);
        }
        assert_eq!(recovered(FailureKind::OutOfMemory, on_spot()), Decision::Abstain);
        assert_eq!(recovered(FailureKind::Capacity, Some(placement())), Decision::Abstain);
        assert_eq!(recovered(FailureKind::SpotInterruption, None), Decision::Abstain);
    }
}
