//! How much an account may run: the capacity that a test leaves AWS, and the account's quotas. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failures::{NO_CAPACITY, VCPU_LIMIT};
use crate::faults::{Matches, Target};

/// How much there is for launches that match. With neither number there is no limit, which lifts an earlier rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Everything when absent.
    #[serde(rename = "match", default)]
    pub(crate) matches: Matches,
    /// At the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tasks: Option<u32>,
    /// At the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vcpus: Option<f64>,
    /// From when on, in milliseconds of simulated time since the first RunTask.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) from_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Rule {
    /// What a text from outside gets wrong that its type cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.tasks.is_some() && self.vcpus.is_some() {
            return Err("capacity is counted in `tasks` or in `vcpus`, not in both".to_owned());
        }
        check_vcpus("vcpus", self.vcpus)
    }
}

/// The account's quotas on what runs at the same time; no quota when absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Quotas {
    /// Fargate On-Demand vCPU resource count (L-3032A538).
    pub(crate) on_demand_vcpus: Option<f64>,
    /// Fargate Spot vCPU resource count (L-36FBB829).
    pub(crate) spot_vcpus: Option<f64>,
}

impl Quotas {
    /// What a text from outside gets wrong that its type cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_vcpus("on_demand_vcpus", self.on_demand_vcpus)?;
        check_vcpus("spot_vcpus", self.spot_vcpus)
    }
}

fn check_vcpus(name: &str, number: Option<f64>) -> Result<(), String> {
    match number {
        Some(number) if !(0.0..=1e9).contains(&number) => {
            Err(format!("`{name}` is {number}, expected 0 or more"))
        }
        _ => Ok(()),
    }
}

/// A task that runs, or is to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    pub(crate) target: Target,
    /// CPU units.
    pub(crate) cpu: u32,
}

impl Load {
    fn is_fargate(&self) -> bool {
        self.provider().starts_with("FARGATE")
    }

    pub(crate) fn is_spot(&self) -> bool {
        self.provider() == "FARGATE_SPOT"
    }

    fn provider(&self) -> &str {
        self.target.capacity_provider.as_deref().unwrap_or_default()
    }
}

/// The rules, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    rules: Vec<Rule>,
    quotas: Quotas,
}

impl Capacity {
    pub(crate) fn new(rules: Vec<Rule>, quotas: Quotas) -> Self {
        Self { rules, quotas }
    }

    /// The account's quota of this code, in vCPU; so many that nobody meets it where the world has none. `None` for
    /// a code that is not Fargate's.
    pub(crate) fn quota(&self, code: &str) -> Option<(&'static str, f64)> {
        let (name, quota) = match code {
            "L-3032A538" => ("Fargate On-Demand vCPU resource count", self.quotas.on_demand_vcpus),
            "L-36FBB829" => ("Fargate Spot vCPU resource count", self.quotas.spot_vcpus),
            _ => return None,
        };
        Some((name, quota.unwrap_or(4000.0)))
    }

    /// From now on: replaces the rules for the same launches.
    pub(crate) fn set(&mut self, rule: Rule) {
        self.rules.retain(|other| other.matches != rule.matches);
        self.rules.push(rule);
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The rules in force at a simulated time since the first RunTask: the latest for each kind of launches.
    pub(crate) fn in_force(&self, scene: Duration) -> Vec<&Rule> {
        let begun = |rule: &&Rule| Duration::from_millis(rule.from_ms) <= scene;
        let mut latest: Vec<&Rule> = Vec::new();
        for rule in self.rules.iter().filter(begun) {
            match latest.iter_mut().find(|other| other.matches == rule.matches) {
                Some(other) if other.from_ms <= rule.from_ms => *other = rule,
                Some(_) => {}
                None => latest.push(rule),
            }
        }
        latest
    }

    /// Why `wanted` cannot all run beside `running`, in RunTask's words.
    pub(crate) fn refuses(
        &self,
        wanted: &[Load],
        running: &[Load],
        scene: Duration,
    ) -> Option<&'static str> {
        let sum = |counts: &dyn Fn(&Load) -> bool| {
            let all = running.iter().chain(wanted).filter(|load| counts(load));
            all.fold((0_u32, 0_f64), |(n, vcpus), load| (n + 1, vcpus + vcpus_of(load)))
        };
        for (spot, quota) in [(false, self.quotas.on_demand_vcpus), (true, self.quotas.spot_vcpus)]
        {
            let counts = |load: &Load| load.is_fargate() && load.is_spot() == spot;
            if wanted.iter().any(counts) && quota.is_some_and(|quota| sum(&counts).1 > quota) {
                return Some(VCPU_LIMIT);
            }
        }
        for rule in self.in_force(scene) {
            let counts = |load: &Load| rule.matches.hold_for(&load.target);
            if !wanted.iter().any(counts) {
                continue;
            }
            let (tasks, vcpus) = sum(&counts);
            if rule.tasks.is_some_and(|most| tasks > most)
                || rule.vcpus.is_some_and(|most| vcpus > most)
            {
                return Some(NO_CAPACITY);
            }
        }
        None
    }
}

fn vcpus_of(load: &Load) -> f64 {
    f64::from(load.cpu) / 1024.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Capacity, Load, Quotas, Rule};
    use crate::failures::{NO_CAPACITY, VCPU_LIMIT};
    use crate::faults::Target;

    fn load(provider: &str, subnet: &str, cpu: u32) -> Load {
        let target = Target {
            cluster: Some("dev".to_owned()),
            family: Some("ci".to_owned()),
            capacity_provider: Some(provider.to_owned()),
            subnet: Some(subnet.to_owned()),
        };
        Load { target, cpu }
    }

    fn capacity(rules: serde_json::Value, quotas: Quotas) -> Capacity {
        Capacity::new(serde_json::from_value(rules).unwrap(), quotas)
    }

    #[test]
    fn each_rule_counts_its_own_launches() {
        let capacity = capacity(
            json!([
                {"match": {"capacity_provider": "FARGATE_SPOT"}, "tasks": 2},
                {"match": {"subnet": "b"}, "vcpus": 1.0},
            ]),
            Quotas::default(),
        );
        let spot = load("FARGATE_SPOT", "a", 256);
        let half = load("FARGATE", "b", 512);
        let table = [
            (vec![spot.clone()], vec![spot.clone()], None),
            (vec![spot.clone()], vec![spot.clone(), spot.clone()], Some(NO_CAPACITY)),
            (vec![spot.clone(), spot.clone()], vec![spot.clone()], Some(NO_CAPACITY)),
            (vec![half.clone()], vec![half.clone()], None),
            (vec![half.clone()], vec![half.clone(), half.clone()], Some(NO_CAPACITY)),
            // What is used up elsewhere does not matter.
            (vec![load("FARGATE", "a", 4096)], vec![half.clone(), half, spot.clone(), spot], None),
        ];
        for (wanted, running, expected) in table {
            assert_eq!(capacity.refuses(&wanted, &running, Duration::ZERO), expected, "{wanted:?}");
        }
    }

    #[test]
    fn quotas_tell_spot_apart() {
        let quotas = Quotas { on_demand_vcpus: Some(1.0), spot_vcpus: Some(0.0) };
        let capacity = capacity(json!([]), quotas);
        let refused =
            |wanted: Load, running: &[Load]| capacity.refuses(&[wanted], running, Duration::ZERO);
        let one = load("FARGATE", "a", 1024);
        assert_eq!(refused(one.clone(), &[]), None);
        assert_eq!(refused(one.clone(), std::slice::from_ref(&one)), Some(VCPU_LIMIT));
        assert_eq!(refused(one, &[load("FARGATE_SPOT", "a", 256)]), None);
        assert_eq!(refused(load("FARGATE_SPOT", "a", 256), &[]), Some(VCPU_LIMIT));
        assert_eq!(refused(load("asg", "a", 4096), &[]), None);
    }

    #[test]
    fn the_latest_rule_that_has_begun_is_in_force() {
        let capacity = capacity(
            json!([{"tasks": 5}, {"tasks": 0, "from_ms": 1000}, {"from_ms": 3000}]),
            Quotas::default(),
        );
        let at = |millis| {
            let scene = Duration::from_millis(millis);
            capacity.refuses(&[load("FARGATE", "a", 256)], &[], scene).is_some()
        };
        assert_eq!([0, 999, 1000, 2999, 3000].map(at), [false, false, true, true, false]);
    }

    #[test]
    fn setting_replaces_what_was_planned() {
        let mut capacity = capacity(json!([{"tasks": 0, "from_ms": 1000}]), Quotas::default());
        capacity.set(serde_json::from_value(json!({"tasks": 3})).unwrap());
        assert_eq!(capacity.in_force(Duration::from_secs(9))[0].tasks, Some(3));
        assert_eq!(capacity.in_force(Duration::from_secs(9)).len(), 1);
        capacity.clear();
        assert!(capacity.in_force(Duration::from_secs(9)).is_empty());
    }

    #[test]
    fn impossible_rules_are_refused() {
        for value in [json!({"tasks": 1, "vcpus": 1.0}), json!({"vcpus": -1.0})] {
            let rule: Rule = serde_json::from_value(value.clone()).unwrap();
            assert!(rule.check().is_err(), "{value}");
        }
        assert!(serde_json::from_value::<Rule>(json!({"tasks": -1})).is_err());
        assert!(Quotas { on_demand_vcpus: Some(f64::NAN), spot_vcpus: None }.check().is_err());
    }
}
