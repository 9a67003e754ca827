//! Faults that a world or a test scripts, and whom they strike.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lifecycle::Status;
use crate::names::Names;

/// A fault, whom it strikes and how often.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// Everything when absent.
    #[serde(rename = "match", default)]
    pub(crate) matches: Matches,
    /// How often it strikes; without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) times: Option<u32>,
    pub(crate) fault: Kind,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matches {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    family: Option<String>,
    /// `FARGATE` also means a request with that launch type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capacity_provider: Option<String>,
    /// The subnet that the task is put in, which is the first of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subnet: Option<String>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Kind {
    /// RunTask starts nothing and answers `failures`.
    NoCapacity,
    /// A call is answered with an error.
    ApiError {
        operation: String,
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default = "bad_request")]
        status: u16,
    },
    /// The task stops by itself on reaching `phase`.
    Stop { code: String, reason: String, phase: Status },
    /// The task is reclaimed `after_ms` in RUNNING: SIGTERM, and the end `notice_ms` later.
    SpotInterruption { after_ms: u64, notice_ms: u64 },
    /// The task's memory is used up `after_ms` in RUNNING.
    OutOfMemory { after_ms: u64 },
    /// DescribeTasks and ListTasks do not know the task for so long.
    Missing { for_ms: u64 },
    /// The task runs, but nothing listens.
    AgentDoesNotStart,
}

fn bad_request() -> u16 {
    400
}

impl Fault {
    /// What a text from outside gets wrong that its type cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.fault {
            Kind::ApiError { status, .. } if !(400..=599).contains(status) => {
                Err(format!("`status` is {status}, but an error's HTTP status is 400 to 599"))
            }
            Kind::Stop { phase, .. } if *phase > Status::Running => {
                Err(format!("`phase` is {phase}, but a task in that state is already stopping"))
            }
            _ => Ok(()),
        }
    }
}

/// A call, as far as faults tell calls apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Target {
    pub(crate) cluster: Option<String>,
    pub(crate) family: Option<String>,
    pub(crate) capacity_provider: Option<String>,
    pub(crate) subnet: Option<String>,
}

impl Target {
    /// Reads it from a request that has not been checked yet.
    pub(crate) fn of(names: &Names, request: &Value) -> Self {
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str);
        let family = text("/taskDefinition")
            .and_then(|name| names.task_definition(name))
            .map(|(family, _)| family)
            .or_else(|| text("/family"));
        let provider =
            text("/capacityProviderStrategy/0/capacityProvider").or_else(|| text("/launchType"));
        Self {
            cluster: names.cluster(text("/cluster").unwrap_or("default")).map(str::to_owned),
            family: family.map(str::to_owned),
            capacity_provider: provider.map(str::to_owned),
            subnet: text("/networkConfiguration/awsvpcConfiguration/subnets/0").map(str::to_owned),
        }
    }
}

impl Matches {
    fn hold_for(&self, target: &Target) -> bool {
        let holds =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        holds(&self.cluster, &target.cluster)
            && holds(&self.family, &target.family)
            && holds(&self.capacity_provider, &target.capacity_provider)
            && holds(&self.subnet, &target.subnet)
    }
}

/// What is scripted to happen to one task.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fate {
    /// Phase, stop code, reason.
    pub(crate) stop: Option<(Status, String, String)>,
    /// Time in RUNNING, then time of notice.
    pub(crate) spot_interruption: Option<(Duration, Duration)>,
    /// Time in RUNNING.
    pub(crate) out_of_memory: Option<Duration>,
    pub(crate) missing: Option<Duration>,
    pub(crate) agent_does_not_start: bool,
}

/// The faults that are still to come, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: VecDeque<Fault>,
}

impl Faults {
    pub(crate) fn new(list: Vec<Fault>) -> Self {
        Self { list: list.into() }
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.list.push_back(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }

    /// The first fault for `target` that `choose` wants; it is counted as having struck.
    fn take<T>(&mut self, target: &Target, choose: impl Fn(&Kind) -> Option<T>) -> Option<T> {
        let (index, chosen) = self.list.iter().enumerate().find_map(|(index, fault)| {
            let strikes = fault.times != Some(0) && fault.matches.hold_for(target);
            strikes.then(|| choose(&fault.fault)).flatten().map(|chosen| (index, chosen))
        })?;
        if let Some(times) = self.list.get_mut(index).and_then(|fault| fault.times.as_mut()) {
            *times -= 1;
        }
        Some(chosen)
    }

    /// HTTP status, code and message, when `operation` is to fail.
    pub(crate) fn api_error(
        &mut self,
        operation: &str,
        target: &Target,
    ) -> Option<(u16, String, String)> {
        self.take(target, |kind| match kind {
            Kind::ApiError { operation: wanted, code, message, status } if wanted == operation => {
                Some((*status, code.clone(), message.clone()))
            }
            _ => None,
        })
    }

    pub(crate) fn no_capacity(&mut self, target: &Target) -> bool {
        self.take(target, |kind| (*kind == Kind::NoCapacity).then_some(())).is_some()
    }

    /// One fault of each kind at most.
    pub(crate) fn fate(&mut self, target: &Target) -> Fate {
        Fate {
            stop: self.take(target, |kind| match kind {
                Kind::Stop { code, reason, phase } => Some((*phase, code.clone(), reason.clone())),
                _ => None,
            }),
            spot_interruption: self.take(target, |kind| match kind {
                Kind::SpotInterruption { after_ms, notice_ms } => {
                    Some((Duration::from_millis(*after_ms), Duration::from_millis(*notice_ms)))
                }
                _ => None,
            }),
            out_of_memory: self.take(target, |kind| match kind {
                Kind::OutOfMemory { after_ms } => Some(Duration::from_millis(*after_ms)),
                _ => None,
            }),
            missing: self.take(target, |kind| match kind {
                Kind::Missing { for_ms } => Some(Duration::from_millis(*for_ms)),
                _ => None,
            }),
            agent_does_not_start: self
                .take(target, |kind| (*kind == Kind::AgentDoesNotStart).then_some(()))
                .is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Fault, Faults, Target};
    use crate::names::Names;

    fn faults(value: serde_json::Value) -> Faults {
        Faults::new(serde_json::from_value::<Vec<Fault>>(value).unwrap())
    }

    fn spot() -> Target {
        let names = Names { account: "123456789012".to_owned(), region: "eu-west-1".to_owned() };
        Target::of(
            &names,
            &json!({
                "cluster": "arn:aws:ecs:eu-west-1:123456789012:cluster/dev",
                "taskDefinition": "ci:3",
                "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}],
                "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1", "subnet-2"]}},
            }),
        )
    }

    #[test]
    fn matches_are_all_of_their_conditions() {
        let table = [
            (json!({}), true),
            (json!({"cluster": "dev"}), true),
            (json!({"cluster": "prod"}), false),
            (json!({"family": "ci"}), true),
            (json!({"family": "ci", "cluster": "prod"}), false),
            (json!({"capacity_provider": "FARGATE_SPOT"}), true),
            (json!({"capacity_provider": "FARGATE"}), false),
            (json!({"subnet": "subnet-1"}), true),
            (json!({"subnet": "subnet-2"}), false),
        ];
        for (matches, expected) in table {
            let mut faults = faults(json!([{"match": matches, "fault": {"kind": "no-capacity"}}]));
            assert_eq!(faults.no_capacity(&spot()), expected, "{matches}");
        }
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says() {
        let mut faults = faults(json!([{"times": 2, "fault": {"kind": "no-capacity"}}]));
        let struck: Vec<bool> = (0..4).map(|_| faults.no_capacity(&spot())).collect();
        assert_eq!(struck, [true, true, false, false]);
    }

    #[test]
    fn an_api_error_strikes_its_operation_only() {
        let mut faults = faults(json!([
            {"fault": {"kind": "api-error", "operation": "RunTask", "code": "ThrottlingException", "message": "Rate exceeded"}}
        ]));
        assert_eq!(faults.api_error("StopTask", &spot()), None);
        let expected = (400, "ThrottlingException".to_owned(), "Rate exceeded".to_owned());
        assert_eq!(faults.api_error("RunTask", &spot()), Some(expected));
    }

    #[test]
    fn impossible_faults_are_refused() {
        let table = [
            json!({"fault": {"kind": "api-error", "operation": "RunTask", "code": "X", "status": 200}}),
            json!({"fault": {"kind": "stop", "code": "X", "reason": "", "phase": "STOPPED"}}),
        ];
        for value in table {
            let fault: Fault = serde_json::from_value(value.clone()).unwrap();
            assert!(fault.check().is_err(), "{value}");
        }
    }
}
