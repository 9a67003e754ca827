//! `arm-first`: ARM where the task definition offers it, with an opt-out by tag.
//!
//! README.md has the settings.

use pointsman_policy_sdk::schema::Schema;
use pointsman_policy_sdk::settings::Declared;
use pointsman_policy_sdk::{
    Arch, Context, Mutator, Placement, Policy, Rejection, SettingProblem, Value, rank, same_place,
};

pointsman_policy_sdk::settings! {
    /// `[policies.arm-first.settings]`
    pub struct Settings {
        /// tags of jobs that need x86
        opt_out_tags: Vec<String> = vec!["x86_64".to_owned()],
        /// whether x86 follows when ARM has no capacity
        fall_back: bool = true,
    }
}

/// The policy.
#[derive(Debug)]
pub struct ArmFirst;

impl Policy for ArmFirst {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "ARM where the task definition offers it";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        Settings::read(json)
    }

    fn schema() -> Option<Schema> {
        Some(Settings::schema())
    }
}

impl Mutator for ArmFirst {
    fn mutate<C: Context>(
        context: &C,
        settings: &Settings,
        candidates: Vec<Placement>,
    ) -> Result<Vec<Placement>, Rejection> {
        if !settings.opt_out_tags.is_empty()
            && context.tags().values.iter().any(|tag| settings.opt_out_tags.contains(tag))
        {
            return Ok(candidates);
        }
        let definitions = context.task_definitions();
        let offers_arm = |name: &str| {
            definitions.iter().any(|definition| {
                definition.name == name && definition.archs.contains(&Arch::Arm64)
            })
        };
        let mut ranked: Vec<Placement> = Vec::with_capacity(candidates.len() * 2);
        for candidate in candidates {
            if candidate.arch == Arch::Arm64 || !offers_arm(&candidate.task_definition) {
                if !ranked.iter().any(|other| same_place(other, &candidate)) {
                    ranked.push(candidate);
                }
                continue;
            }
            let arm = Placement { arch: Arch::Arm64, ..candidate.clone() };
            rank(&mut ranked, arm, "arm64", "ARM, since the task definition offers it");
            if settings.fall_back {
                rank(&mut ranked, candidate, "x86_64", "if ARM has no capacity");
            }
        }
        Ok(ranked)
    }
}

pointsman_policy_sdk::export!(ArmFirst: mutator);

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_policy_sdk::fixture::{
        Fixture, assert_schema_is_whole, placement, task_definition,
    };

    fn archs(job: &Fixture, json: Value) -> Vec<Arch> {
        let settings = ArmFirst::settings(&json).unwrap();
        let ranked = ArmFirst::mutate(job, &settings, vec![placement()]).unwrap();
        ranked.iter().map(|placement| placement.arch).collect()
    }

    fn job(tags: &[&str], archs: &[Arch]) -> Fixture {
        Fixture {
            task_definitions: vec![task_definition(archs)],
            ..Fixture::with_tags(tags.iter().copied())
        }
    }

    #[test]
    fn who_gets_arm() {
        use Arch::{Arm64, X8664};
        let both = [X8664, Arm64];
        let json = serde_json::json!({});
        assert_eq!(archs(&job(&[], &both), json.clone()), [Arm64, X8664]);
        assert_eq!(archs(&job(&[], &[X8664]), json.clone()), [X8664]);
        assert_eq!(archs(&job(&["x86_64"], &both), json), [X8664]);
        assert_eq!(archs(&job(&[], &both), serde_json::json!({"fall_back": false})), [Arm64]);
        let other = serde_json::json!({"opt_out_tags": ["intel"]});
        assert_eq!(archs(&job(&["intel"], &both), other), [X8664]);
    }

    #[test]
    fn a_place_is_ranked_once() {
        let arm = Placement { arch: Arch::Arm64, ..placement() };
        let job = job(&[], &[Arch::X8664, Arch::Arm64]);
        let ranked = ArmFirst::mutate(
            &job,
            &Settings::read(&serde_json::json!({})).unwrap(),
            vec![placement(), arm.clone()],
        )
        .unwrap();
        let archs: Vec<Arch> = ranked.iter().map(|placement| placement.arch).collect();
        assert_eq!(archs, [Arch::Arm64, Arch::X8664]);
    }

    #[test]
    fn what_is_arm_stays() {
        let arm = Placement { arch: Arch::Arm64, ..placement() };
        let job = job(&[], &[Arch::X8664, Arch::Arm64]);
        let ranked = ArmFirst::mutate(
            &job,
            &Settings::read(&serde_json::json!({})).unwrap(),
            vec![arm.clone()],
        )
        .unwrap();
        assert_eq!(ranked, [arm]);
        assert_schema_is_whole::<ArmFirst>();
    }
}
