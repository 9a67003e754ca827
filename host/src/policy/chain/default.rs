//! The driver's own answer: the default of a profile, and what of it an author chooses by the variables of GitLab's
//! Fargate driver, where the operator has listed what may be chosen.
//!
//! Variables come out of the same [`Inputs`] as for a policy, so a masked one is not seen, and what was read counts
//! for `claims_taint`.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{Chain, microseconds, tell};
use crate::placement::Placement;
use crate::placement::text::one_line;
use crate::policy::bindings::types;
use crate::policy::inputs::Inputs;
use crate::policy::{DecidedBy, Kind, PolicyError, Refusal, Step};
use crate::settings::{AuthorsChoice, DEFAULT_POLICY, DefaultPlacement};

/// Names a task definition as ECS does.
const TASK_DEFINITION: &str = "FARGATE_TASK_DEFINITION";
/// Names a platform version of Fargate.
const PLATFORM_VERSION: &str = "FARGATE_PLATFORM_VERSION";
/// Characters of an author's value in a line of ours.
const MAX_VALUE: usize = 128;
/// Allowed values that one line tells.
const MAX_TOLD: usize = 8;

impl<'a> Chain<'a, '_> {
    /// The driver's own answer, recorded and bounded as if it were a policy's.
    pub(super) fn place_by_default(
        &mut self,
        name: &'a str,
        default: &DefaultPlacement,
    ) -> Result<(&'a str, Vec<Placement>), PolicyError> {
        let began = Instant::now();
        let Answer { decision, claims_read, notices } =
            answer(default, self.question.profile, &self.inputs);
        notices.into_iter().for_each(|notice| tell(self.trace, notice));
        let answer = decision.map(|placement| self.checked(name, vec![placement], &[]));
        let outcome = match &answer {
            Ok(Ok(checked)) => checked.outcome(),
            Ok(Err(what)) => format!("failed: {what}"),
            Err(refusal) => format!("rejected: {}", refusal.message),
        };
        self.trace.steps.push(Step {
            policy: name.to_owned(),
            sha256: String::new(),
            kind: Kind::Placer,
            monitored: false,
            outcome,
            fuel: 0,
            elapsed_us: microseconds(began.elapsed()),
            facts_read: Default::default(),
            claims_read,
        });
        match answer {
            Ok(Ok(checked)) => self.left(checked).map(|placements| (name, placements)),
            Ok(Err(what)) => Err(PolicyError::Broken { policy: name.to_owned(), what }),
            Err(refusal) => {
                self.reasons.push(refusal);
                Err(self.rejected())
            }
        }
    }
}

/// What the default has to say.
struct Answer {
    decision: Result<types::Placement, Refusal>,
    claims_read: BTreeSet<String>,
    notices: Vec<String>,
}

/// Places by `default`, which is the one of `profile`.
fn answer(default: &DefaultPlacement, profile: &str, inputs: &Inputs) -> Answer {
    let mut asked = Asked {
        inputs,
        profile,
        claims_read: BTreeSet::new(),
        notices: Vec::new(),
        chosen: Vec::new(),
    };
    let decision =
        asked.choices(default).map(|(task_definition, arch, cluster)| types::Placement {
            cluster,
            task_definition,
            arch: arch.into(),
            capacity: default.capacity.into(),
            cpu_units: None,
            memory_mib: None,
            ephemeral_storage_gib: None,
            role: default.role.clone(),
            labels: Vec::new(),
            extra: Vec::new(),
            reason: match asked.chosen.as_slice() {
                [] => "its default".to_owned(),
                chosen => format!("its default, with {}", chosen.join(" and ")),
            },
        });
    Answer { decision, claims_read: asked.claims_read, notices: asked.notices }
}

struct Asked<'a> {
    inputs: &'a Inputs,
    profile: &'a str,
    claims_read: BTreeSet<String>,
    notices: Vec<String>,
    chosen: Vec<String>,
}

impl Asked<'_> {
    fn choices(
        &mut self,
        default: &DefaultPlacement,
    ) -> Result<(String, crate::placement::Arch, String), Refusal> {
        let (task_definition, arch) = self
            .choice(TASK_DEFINITION, &default.task_definitions)?
            .unwrap_or_else(|| (default.task_definition.clone(), default.arch));
        let cluster = self
            .choice(PLATFORM_VERSION, &default.platform_versions)?
            .unwrap_or_else(|| default.cluster.clone());
        Ok((task_definition, arch, cluster))
    }

    /// What `variable` chooses; `None` when it is not set, says what is so anyway, or is ignored.
    fn choice<T: Clone>(
        &mut self,
        variable: &str,
        choice: &AuthorsChoice<T>,
    ) -> Result<Option<T>, Refusal> {
        if choice.is_open {
            self.claims_read.insert(format!("variable {variable}"));
        }
        let Some(value) = self.inputs.variables.get(variable).filter(|value| !value.is_empty())
        else {
            return Ok(None);
        };
        let told = one_line(value, MAX_VALUE);
        match (choice.allowed.get(value), choice.is_open) {
            (Some(meant), true) => {
                self.chosen.push(format!("{variable} = {told}"));
                Ok(Some(meant.clone()))
            }
            // It asks for what it gets.
            (Some(_), false) => Ok(None),
            // Not recorded as read: a line in the log is no decision, and an author who is ignored shall not cost
            // the job a privileged role.
            (None, false) => {
                self.notices.push(format!(
                    "{variable} asks for `{told}` and is ignored: the operator of this runner lets no pipeline choose. {}",
                    remedy(variable, self.profile)
                ));
                Ok(None)
            }
            (None, true) => {
                let names: Vec<String> = choice
                    .allowed
                    .keys()
                    .take(MAX_TOLD)
                    .map(|name| format!("`{}`", one_line(name, MAX_VALUE)))
                    .collect();
                let more = match choice.allowed.len().saturating_sub(MAX_TOLD) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                Err(Refusal {
                    policy: DEFAULT_POLICY.to_owned(),
                    code: "not-listed".to_owned(),
                    message: format!(
                        "{variable} asks for `{told}`, and the operator allows {}{more}",
                        names.join(", ")
                    ),
                    hint: Some(remedy(variable, self.profile)),
                    decided_by: DecidedBy::Policy,
                })
            }
        }
    }
}

/// How an operator allows it, in both formats of the settings file.
fn remedy(variable: &str, profile: &str) -> String {
    let (own, fargate) = if variable == TASK_DEFINITION {
        ("task_definitions", "AllowedTaskDefinitions")
    } else {
        ("clusters", "AllowedPlatformVersions")
    };
    format!(
        "To allow it, list it in `{own}` of [profiles.{profile}.fargate_variables], or in `{fargate}` of [Pointsman] in a file of GitLab's Fargate driver"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::placement::{Arch, Capacity};
    use crate::policy::inputs;

    fn default(is_open: bool) -> DefaultPlacement {
        let node = ("node".to_owned(), Arch::X86_64);
        let big = ("big".to_owned(), Arch::Arm64);
        DefaultPlacement {
            cluster: "dev".into(),
            task_definition: "node".into(),
            arch: Arch::X86_64,
            capacity: Capacity::OnDemand,
            role: None,
            task_definitions: AuthorsChoice {
                is_open,
                allowed: BTreeMap::from([
                    ("node-task".to_owned(), node),
                    ("big-task:2".to_owned(), big),
                ])
                .into_iter()
                .filter(|(name, _)| is_open || name == "node-task")
                .collect(),
            },
            platform_versions: AuthorsChoice {
                is_open: false,
                allowed: BTreeMap::from([("LATEST".to_owned(), "dev".to_owned())]),
            },
        }
    }

    fn asked(is_open: bool, variables: &[(&str, &str)]) -> Answer {
        let mut inputs = inputs::blank();
        inputs.variables =
            variables.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        answer(&default(is_open), "ecs", &inputs)
    }

    #[test]
    fn without_a_list_variables_choose_nothing_and_are_told() {
        let plain = asked(false, &[]);
        let placed = plain.decision.unwrap();
        assert_eq!((placed.task_definition.as_str(), placed.cluster.as_str()), ("node", "dev"));
        assert_eq!(placed.reason, "its default");
        assert!(plain.claims_read.is_empty() && plain.notices.is_empty());

        let big = [
            ("FARGATE_TASK_DEFINITION", "big-task:2\nError: x"),
            ("FARGATE_PLATFORM_VERSION", "1.3.0"),
        ];
        let ignored = asked(false, &big);
        assert_eq!(ignored.decision.unwrap().task_definition, "node");
        assert!(ignored.claims_read.is_empty());
        assert_eq!(
            ignored.notices,
            [
                "FARGATE_TASK_DEFINITION asks for `big-task:2 Error: x` and is ignored: the operator of this runner lets no pipeline choose. To allow it, list it in `task_definitions` of [profiles.ecs.fargate_variables], or in `AllowedTaskDefinitions` of [Pointsman] in a file of GitLab's Fargate driver",
                "FARGATE_PLATFORM_VERSION asks for `1.3.0` and is ignored: the operator of this runner lets no pipeline choose. To allow it, list it in `clusters` of [profiles.ecs.fargate_variables], or in `AllowedPlatformVersions` of [Pointsman] in a file of GitLab's Fargate driver",
            ]
        );
        let same =
            [("FARGATE_TASK_DEFINITION", "node-task"), ("FARGATE_PLATFORM_VERSION", "LATEST")];
        assert!(asked(false, &same).notices.is_empty());
    }

    #[test]
    fn what_is_listed_is_chosen_and_the_rest_refused() {
        let chosen = asked(true, &[("FARGATE_TASK_DEFINITION", "big-task:2")]);
        let placed = chosen.decision.unwrap();
        assert_eq!(placed.task_definition, "big");
        assert_eq!(placed.reason, "its default, with FARGATE_TASK_DEFINITION = big-task:2");
        let read = BTreeSet::from(["variable FARGATE_TASK_DEFINITION".to_owned()]);
        assert_eq!(chosen.claims_read, read);
        // Read is read, whether it is set or not.
        assert_eq!(asked(true, &[]).claims_read, read);

        let refused = asked(true, &[("FARGATE_TASK_DEFINITION", "big-task")]).decision.unwrap_err();
        assert_eq!(
            refused.message,
            "FARGATE_TASK_DEFINITION asks for `big-task`, and the operator allows `big-task:2`, `node-task`"
        );
    }
}
