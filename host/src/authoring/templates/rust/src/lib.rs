//! A placement policy: Spot for jobs that may be lost; on-demand on protected refs and after an interruption.
//!
//! The tests at the end are native: `cargo test` needs no WebAssembly.

use pointsman_policy_sdk::schema::Schema;
use pointsman_policy_sdk::settings::Declared;
use pointsman_policy_sdk::{
    Arch, Capacity, Context, Decision, FailureKind, Placement, Placer, Policy, Rejection,
    SettingProblem, Value,
};

pointsman_policy_sdk::settings! {
    /// `[policies.<name>.settings]` of the driver's file.
    pub struct Settings {
        /// the cluster of every job
        cluster: String,
        /// the task definition of every job
        task_definition: String,
        /// whether Spot may be used; default true
        spot: bool = true,
    }
}

/// The policy.
#[derive(Debug)]
pub struct MyPolicy;

impl Policy for MyPolicy {
    type Settings = Settings;

    const DESCRIPTION: &'static str = "Spot for jobs that may be lost, on-demand for the others";

    fn settings(json: &Value) -> Result<Settings, Vec<SettingProblem>> {
        Settings::read(json)
    }

    fn schema() -> Option<Schema> {
        Some(Settings::schema())
    }
}

impl Placer for MyPolicy {
    fn place<C: Context>(context: &C, settings: &Settings) -> Decision {
        let wanted = &settings.task_definition;
        let definitions = context.task_definitions();
        let Some(definition) = definitions.iter().find(|definition| definition.name == *wanted)
        else {
            return Decision::Reject(Rejection {
                code: "no-task-definition".to_owned(),
                message: format!("the profile offers no task definition `{wanted}`"),
                hint: Some("an operator can add it to the profile's bounds".to_owned()),
            });
        };
        let protected = context.git_ref().protected == Some(true);
        let interrupted = context.earlier_failures().iter().any(|failure| {
            matches!(failure.kind, FailureKind::SpotInterruption | FailureKind::Capacity)
        });
        let (capacity, reason) =
            if !settings.spot || !context.limits().capacities.contains(&Capacity::Spot) {
                (Capacity::OnDemand, "Spot is off here")
            } else if protected {
                (Capacity::OnDemand, "a protected ref")
            } else if interrupted {
                (Capacity::OnDemand, "an attempt on Spot was interrupted")
            } else {
                (Capacity::Spot, "may be lost: Spot")
            };
        let arch =
            if definition.archs.contains(&Arch::X8664) { Arch::X8664 } else { Arch::Arm64 };
        Decision::Place(vec![Placement {
            cluster: settings.cluster.clone(),
            task_definition: wanted.clone(),
            arch,
            capacity,
            cpu_units: None,
            memory_mib: None,
            ephemeral_storage_gib: None,
            role: None,
            labels: Vec::new(),
            extra: Vec::new(),
            reason: reason.to_owned(),
        }])
    }
}

pointsman_policy_sdk::export!(MyPolicy: placer);

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_policy_sdk::fixture::{Fixture, assert_schema_is_whole};
    use pointsman_policy_sdk::{EarlierFailure, TaskDefinition};

    fn job() -> Fixture {
        Fixture {
            task_definitions: vec![TaskDefinition {
                name: "node".to_owned(),
                archs: vec![Arch::X8664, Arch::Arm64],
                cpu_units: 1024,
                memory_mib: 2048,
                labels: Vec::new(),
            }],
            ..Fixture::default()
        }
    }

    fn decide(job: &Fixture) -> Decision {
        let settings =
            Settings { cluster: "ci".to_owned(), task_definition: "node".to_owned(), spot: true };
        MyPolicy::place(job, &settings)
    }

    fn capacity(job: &Fixture) -> Capacity {
        match decide(job) {
            Decision::Place(placements) => placements[0].capacity,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_schema_has_every_setting() {
        assert_schema_is_whole::<MyPolicy>();
    }

    #[test]
    fn a_job_that_may_be_lost_runs_on_spot() {
        assert_eq!(capacity(&job()), Capacity::Spot);
    }

    #[test]
    fn a_protected_ref_runs_on_demand_and_one_without_the_flag_is_none() {
        let mut job = job();
        job.git_ref.protected = Some(true);
        assert_eq!(capacity(&job), Capacity::OnDemand);
        job.git_ref.protected = None;
        assert_eq!(capacity(&job), Capacity::Spot);
    }

    #[test]
    fn after_an_interruption_a_job_runs_on_demand() {
        let mut job = job();
        job.earlier_failures.push(EarlierFailure {
            attempt: 1,
            kind: FailureKind::SpotInterruption,
            detail: String::new(),
        });
        assert_eq!(capacity(&job), Capacity::OnDemand);
    }

    #[test]
    fn a_task_definition_that_is_not_offered_is_refused() {
        let mut job = job();
        job.task_definitions.clear();
        assert!(matches!(decide(&job), Decision::Reject(no) if no.code == "no-task-definition"));
    }
}
