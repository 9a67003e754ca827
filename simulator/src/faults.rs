//! Faults that a world or a test scripts, and whom they strike.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::draw::draw;
use crate::failures::{self, NO_CAPACITY, SPOT_NOTICE_MS};
use crate::lifecycle::Status;
use crate::names::Names;

/// Apart from the places of tasks, which latencies are drawn at.
const FAULTS: u64 = 1 << 63;

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
    /// The share of those whom it could strike that it does strike, 1 when absent; drawn with the world's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) share: Option<f64>,
    /// From when on, in milliseconds of simulated time since the first RunTask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from_ms: Option<u64>,
    /// Until when, not included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until_ms: Option<u64>,
    pub(crate) fault: Kind,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matches {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) family: Option<String>,
    /// `FARGATE` also means a request with that launch type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capacity_provider: Option<String>,
    /// The subnet that the task is put in, which is the first of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subnet: Option<String>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Kind {
    /// One of the service's failures, by its name in the table of `failures`.
    Failure {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_ms: Option<u64>,
    },
    /// RunTask starts nothing and answers `failures`.
    NoCapacity {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A call is answered with an error.
    ApiError {
        operation: String,
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default = "bad_request")]
        status: u16,
    },
    /// The task stops by itself on reaching `phase`; in RUNNING, `after_ms` later.
    Stop {
        code: String,
        reason: String,
        phase: Status,
        #[serde(default, skip_serializing_if = "is_zero")]
        after_ms: u64,
    },
    /// The task is reclaimed `after_ms` in RUNNING: SIGTERM, and the end `notice_ms` later.
    SpotInterruption {
        after_ms: u64,
        #[serde(default = "spot_notice_ms")]
        notice_ms: u64,
        /// `SpotInterruption` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// The task's memory is used up `after_ms` in RUNNING.
    OutOfMemory { after_ms: u64 },
    /// The first container is killed `after_ms` in RUNNING, and nobody says why.
    Kill { after_ms: u64 },
    /// DescribeTasks and ListTasks do not know the task for so long.
    Missing { for_ms: u64 },
    /// The task runs, but nothing listens.
    AgentDoesNotStart,
}

fn bad_request() -> u16 {
    400
}

fn spot_notice_ms() -> u64 {
    SPOT_NOTICE_MS
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Fault {
    /// What a text from outside gets wrong that its type cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(share) = self.share
            && !(share > 0.0 && share <= 1.0)
        {
            return Err(format!("`share` is {share}, expected more than 0 and at most 1"));
        }
        if self.until_ms.is_some_and(|until| until <= self.from_ms.unwrap_or(0)) {
            return Err("the fault is over before it begins".to_owned());
        }
        match &self.fault {
            Kind::Failure { name, after_ms } => failures::kind(name, *after_ms).map(drop),
            Kind::ApiError { status, .. } if !(400..=599).contains(status) => {
                Err(format!("`status` is {status}, but an error's HTTP status is 400 to 599"))
            }
            Kind::Stop { phase, .. } if *phase > Status::Running => {
                Err(format!("`phase` is {phase}, but a task in that state is already stopping"))
            }
            Kind::Stop { phase, after_ms, .. } if *phase != Status::Running && *after_ms > 0 => {
                Err(format!("`after_ms` is for the phase RUNNING, not {phase}"))
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
    pub(crate) fn hold_for(&self, target: &Target) -> bool {
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
    /// Phase, stop code, reason; in RUNNING also the time there. All times are simulated.
    pub(crate) stop: Option<(Status, String, String, Duration)>,
    /// Time in RUNNING, time of notice, stop code.
    pub(crate) spot_interruption: Option<(Duration, Duration, String)>,
    /// Time in RUNNING.
    pub(crate) out_of_memory: Option<Duration>,
    /// Time in RUNNING.
    pub(crate) kill: Option<Duration>,
    pub(crate) missing: Option<Duration>,
    pub(crate) agent_does_not_start: bool,
}

/// A fault that is still to come.
#[derive(Debug)]
struct Pending {
    fault: Fault,
    /// `fault.fault`, with a failure's name looked up.
    kind: Kind,
    /// Its place in the order of faults, for draws.
    ordinal: u64,
    /// How many it could have struck.
    n_met: u64,
}

/// The faults that are still to come, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: VecDeque<Pending>,
    seed: u64,
    n_added: u64,
}

impl Faults {
    /// `list` has been checked.
    pub(crate) fn new(list: Vec<Fault>, seed: u64) -> Self {
        let mut faults = Self { list: VecDeque::new(), seed, n_added: 0 };
        list.into_iter().for_each(|fault| faults.add(fault));
        faults
    }

    /// `fault` has been checked.
    pub(crate) fn add(&mut self, fault: Fault) {
        let named = match &fault.fault {
            Kind::Failure { name, after_ms } => failures::kind(name, *after_ms).ok(),
            _ => None,
        };
        let kind = named.unwrap_or_else(|| fault.fault.clone());
        self.list.push_back(Pending { fault, kind, ordinal: self.n_added, n_met: 0 });
        self.n_added += 1;
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter().map(|pending| &pending.fault)
    }

    /// The first fault for `target` that `choose` wants and that strikes at `scene`, the simulated time since the
    /// first RunTask; it is counted as having struck.
    fn take<T>(
        &mut self,
        target: &Target,
        scene: Duration,
        choose: impl Fn(&Kind) -> Option<T>,
    ) -> Option<T> {
        let seed = self.seed;
        self.list.iter_mut().find_map(|pending| {
            let Pending { fault, kind, ordinal, n_met } = pending;
            let begun = Duration::from_millis(fault.from_ms.unwrap_or(0)) <= scene;
            let over = fault.until_ms.is_some_and(|until| Duration::from_millis(until) <= scene);
            if fault.times == Some(0) || !begun || over || !fault.matches.hold_for(target) {
                return None;
            }
            let chosen = choose(kind)?;
            *n_met += 1;
            if fault.share.is_some_and(|share| draw(seed, [*ordinal + FAULTS, *n_met]) >= share) {
                return None;
            }
            fault.times = fault.times.map(|times| times - 1);
            Some(chosen)
        })
    }

    /// HTTP status, code and message, when `operation` is to fail.
    pub(crate) fn api_error(
        &mut self,
        operation: &str,
        target: &Target,
        scene: Duration,
    ) -> Option<(u16, String, String)> {
        self.take(target, scene, |kind| match kind {
            Kind::ApiError { operation: wanted, code, message, status } if wanted == operation => {
                Some((*status, code.clone(), message.clone()))
            }
            _ => None,
        })
    }

    /// The reason in RunTask's `failures`, when it is to start nothing.
    pub(crate) fn no_capacity(&mut self, target: &Target, scene: Duration) -> Option<String> {
        self.take(target, scene, |kind| match kind {
            Kind::NoCapacity { reason } => {
                Some(reason.clone().unwrap_or_else(|| NO_CAPACITY.to_owned()))
            }
            _ => None,
        })
    }

    /// One fault of each kind at most.
    pub(crate) fn fate(&mut self, target: &Target, scene: Duration) -> Fate {
        let millis = Duration::from_millis;
        Fate {
            stop: self.take(target, scene, |kind| match kind {
                Kind::Stop { code, reason, phase, after_ms } => {
                    Some((*phase, code.clone(), reason.clone(), millis(*after_ms)))
                }
                _ => None,
            }),
            spot_interruption: self.take(target, scene, |kind| match kind {
                Kind::SpotInterruption { after_ms, notice_ms, code } => {
                    let code = code.clone().unwrap_or_else(|| "SpotInterruption".to_owned());
                    Some((millis(*after_ms), millis(*notice_ms), code))
                }
                _ => None,
            }),
            out_of_memory: self.take(target, scene, |kind| match kind {
                Kind::OutOfMemory { after_ms } => Some(millis(*after_ms)),
                _ => None,
            }),
            kill: self.take(target, scene, |kind| match kind {
                Kind::Kill { after_ms } => Some(millis(*after_ms)),
                _ => None,
            }),
            missing: self.take(target, scene, |kind| match kind {
                Kind::Missing { for_ms } => Some(millis(*for_ms)),
                _ => None,
            }),
            agent_does_not_start: self
                .take(target, scene, |kind| (*kind == Kind::AgentDoesNotStart).then_some(()))
                .is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Fault, Faults, Target};
    use crate::lifecycle::Status;
    use crate::names::Names;

    const NOW: Duration = Duration::ZERO;

    fn faults(value: serde_json::Value) -> Faults {
        Faults::new(serde_json::from_value::<Vec<Fault>>(value).unwrap(), 1)
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
            assert_eq!(faults.no_capacity(&spot(), NOW).is_some(), expected, "{matches}");
        }
    }

    #[test]
    fn a_fault_strikes_as_often_as_it_says() {
        let mut faults = faults(json!([{"times": 2, "fault": {"kind": "no-capacity"}}]));
        let struck: Vec<bool> =
            (0..4).map(|_| faults.no_capacity(&spot(), NOW).is_some()).collect();
        assert_eq!(struck, [true, true, false, false]);
    }

    #[test]
    fn an_api_error_strikes_its_operation_only() {
        let mut faults = faults(json!([
            {"fault": {"kind": "api-error", "operation": "RunTask", "code": "ThrottlingException", "message": "Rate exceeded"}}
        ]));
        assert_eq!(faults.api_error("StopTask", &spot(), NOW), None);
        let expected = (400, "ThrottlingException".to_owned(), "Rate exceeded".to_owned());
        assert_eq!(faults.api_error("RunTask", &spot(), NOW), Some(expected));
    }

    #[test]
    fn impossible_faults_are_refused() {
        let table = [
            json!({"fault": {"kind": "api-error", "operation": "RunTask", "code": "X", "status": 200}}),
            json!({"fault": {"kind": "stop", "code": "X", "reason": "", "phase": "STOPPED"}}),
            json!({"fault": {"kind": "stop", "code": "X", "reason": "", "phase": "PENDING", "after_ms": 1}}),
            json!({"fault": {"kind": "failure", "name": "bad luck"}}),
            json!({"fault": {"kind": "failure", "name": "pull-timeout", "after_ms": 1}}),
            json!({"share": 0.0, "fault": {"kind": "no-capacity"}}),
            json!({"share": 1.5, "fault": {"kind": "no-capacity"}}),
            json!({"from_ms": 5, "until_ms": 5, "fault": {"kind": "no-capacity"}}),
        ];
        for value in table {
            let fault: Fault = serde_json::from_value(value.clone()).unwrap();
            assert!(fault.check().is_err(), "{value}");
        }
    }

    #[test]
    fn a_fault_strikes_in_its_time() {
        let mut faults =
            faults(json!([{"from_ms": 1000, "until_ms": 2000, "fault": {"kind": "no-capacity"}}]));
        let mut at = |millis| faults.no_capacity(&spot(), Duration::from_millis(millis)).is_some();
        assert_eq!([0, 999, 1000, 1999, 2000].map(&mut at), [false, false, true, true, false]);
    }

    #[test]
    fn a_fault_strikes_its_share_the_same_in_every_run() {
        let run = || {
            let mut faults =
                faults(json!([{"share": 0.25, "times": 30, "fault": {"kind": "no-capacity"}}]));
            (0..100).map(|_| faults.no_capacity(&spot(), NOW).is_some()).collect::<Vec<_>>()
        };
        let n_struck = run().iter().filter(|struck| **struck).count();
        assert!((15..=30).contains(&n_struck), "{n_struck}");
        assert_eq!(run(), run());
    }

    #[test]
    fn failures_have_names() {
        let mut faults = faults(json!([
            {"fault": {"kind": "failure", "name": "resource-eni"}},
            {"fault": {"kind": "failure", "name": "pull-timeout"}},
            {"fault": {"kind": "failure", "name": "termination-notice", "after_ms": 3}},
            {"fault": {"kind": "failure", "name": "killed"}},
        ]));
        assert_eq!(faults.no_capacity(&spot(), NOW).as_deref(), Some("RESOURCE:ENI"));
        let fate = faults.fate(&spot(), NOW);
        let (phase, code, reason, _) = fate.stop.unwrap();
        assert_eq!((phase, code.as_str()), (Status::Pending, "TaskFailedToStart"));
        assert!(reason.ends_with("i/o timeout"), "{reason}");
        let notice =
            (Duration::from_millis(3), Duration::from_secs(120), "TerminationNotice".to_owned());
        assert_eq!(fate.spot_interruption, Some(notice));
        assert_eq!((fate.kill, fate.out_of_memory), (Some(Duration::ZERO), None));
    }
}
