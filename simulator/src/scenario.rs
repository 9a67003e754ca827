//! The scenario file (TOML): how a run goes, over a world that says what there is.

mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::capacity::{Quotas, Rule};
use crate::faults::{Fault, Matches};
use crate::latency::{self, Latencies};
use crate::world::{Consistency, TIME_SCALES, World};
use reader::{Reader, Table};

/// How a run goes. What a scenario does not say stays as the world has it.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    title: Option<String>,
    time_scale: Option<f64>,
    seed: Option<u64>,
    throttling: Option<bool>,
    latencies: Option<Latencies>,
    samples_ms: BTreeMap<String, Vec<u64>>,
    consistency_ms: Option<Consistency>,
    quotas: Option<Quotas>,
    /// With their lines.
    capacity: Vec<(usize, Rule)>,
    /// With their lines.
    faults: Vec<(usize, Fault)>,
}

/// One mistake of a scenario file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// Such as `faults[2].share`.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}: {}", self.line, self.path, self.message)
    }
}

/// A scenario file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It cannot be read.
    #[error("cannot read the scenario `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has mistakes; never empty, in the file's order.
    #[error("the scenario has mistakes:{}", .0.iter().map(|one| format!("\n  {one}")).collect::<String>())]
    Mistakes(Vec<Mistake>),
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or with all of its mistakes.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads a scenario from TOML.
    ///
    /// # Errors
    ///
    /// As [`Scenario::read`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let reader = Reader::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            reader.report(offset, "TOML", error.message());
        }
        let scenario = if errors.is_empty() {
            scenario(&Table::root(&reader, document.get_ref()))
        } else {
            Self::default()
        };
        reader.end(scenario).map_err(ScenarioError::Mistakes)
    }

    /// Lays the scenario over a world.
    ///
    /// # Errors
    ///
    /// When it names a cluster, family, capacity provider or subnet that the world has not: nothing of it would ever
    /// happen.
    pub fn over(self, mut world: World) -> Result<World, ScenarioError> {
        let unknown = |name: &str, index: usize, line: usize, matches: &Matches| {
            let message = world.unknown(matches)?;
            Some(Mistake { line, path: format!("{name}[{}].match", index + 1), message })
        };
        let rules = self.capacity.iter().enumerate();
        let faults = self.faults.iter().enumerate();
        let mut mistakes: Vec<Mistake> = rules
            .filter_map(|(index, (line, rule))| unknown("capacity", index, *line, &rule.matches))
            .chain(faults.filter_map(|(index, (line, fault))| {
                unknown("faults", index, *line, &fault.matches)
            }))
            .collect();
        if !mistakes.is_empty() {
            mistakes.sort_by_key(|mistake| mistake.line);
            return Err(ScenarioError::Mistakes(mistakes));
        }
        world.time_scale = self.time_scale.unwrap_or(world.time_scale);
        world.seed = self.seed.unwrap_or(world.seed);
        world.throttling = self.throttling.unwrap_or(world.throttling);
        world.latencies = self.latencies.unwrap_or(world.latencies);
        world.samples_ms.extend(self.samples_ms);
        world.consistency_ms = self.consistency_ms.unwrap_or(world.consistency_ms);
        world.quotas = self.quotas.unwrap_or(world.quotas);
        world.capacity.extend(self.capacity.into_iter().map(|(_, rule)| rule));
        world.faults.extend(self.faults.into_iter().map(|(_, fault)| fault));
        Ok(world)
    }

    /// What it is about, in one line.
    pub fn summary(&self) -> String {
        let mut words =
            self.title.clone().unwrap_or_else(|| "a scenario without a title".to_owned());
        if let Some(scale) = self.time_scale.filter(|scale| *scale != 1.0) {
            words.push_str(&format!("; time runs {scale} times as fast"));
        }
        words
    }
}

fn scenario(root: &Table<'_>) -> Scenario {
    let read = Scenario {
        title: root.get("title", reader::text),
        time_scale: root.get("time_scale", |value| {
            let scale = reader::number(value)?;
            match TIME_SCALES.contains(&scale) {
                true => Ok(scale),
                false => Err(format!(
                    "is {scale}, expected {} to {}",
                    TIME_SCALES.start(),
                    TIME_SCALES.end()
                )),
            }
        }),
        seed: root.get("seed", reader::whole),
        throttling: root.get("throttling", reader::flag),
        latencies: root.get("latencies", |value| match reader::text(value)?.as_str() {
            "fixed" => Ok(Latencies::Fixed),
            "fargate" => Ok(Latencies::Fargate),
            other => Err(format!("is `{other}`, expected `fixed` or `fargate`")),
        }),
        samples_ms: samples(root),
        consistency_ms: root.table("consistency").map(|table| {
            let delay = |key| table.get(key, reader::millis).unwrap_or(0);
            let read = Consistency { describe: delay("describe"), list: delay("list") };
            table.finish();
            read
        }),
        quotas: root.table("quotas").map(|table| {
            let vcpus = |key| table.get(key, reader::number);
            let read = Quotas {
                on_demand_vcpus: vcpus("on_demand_vcpus"),
                spot_vcpus: vcpus("spot_vcpus"),
            };
            table.finish();
            table.check(read.check());
            read
        }),
        capacity: root.list("capacity").iter().filter_map(rule).collect(),
        faults: root.list("faults").iter().filter_map(fault).collect(),
    };
    root.finish();
    read
}

fn samples(root: &Table<'_>) -> BTreeMap<String, Vec<u64>> {
    let Some(table) = root.table("samples") else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for key in table.keys() {
        if latency::state(key).is_none() {
            table.report(
                key,
                &format!("is no state with a delay: those are {}", latency::state_names()),
            );
            continue;
        }
        let list = table.get(key, |value| match value {
            DeValue::Array(entries) if !entries.is_empty() => {
                entries.iter().map(|entry| reader::millis(entry.get_ref())).collect()
            }
            _ => Err("is not a list of durations, such as [\"12.9s\", \"24.2s\"]".to_owned()),
        });
        all.extend(list.map(|list| (key.to_owned(), list)));
    }
    all
}

fn matches(table: &Table<'_>) -> Matches {
    table.table("match").map_or_else(Matches::default, |table| {
        let read = Matches {
            cluster: table.get("cluster", reader::text),
            family: table.get("family", reader::text),
            capacity_provider: table.get("capacity_provider", reader::text),
            subnet: table.get("subnet", reader::text),
        };
        table.finish();
        read
    })
}

fn rule(table: &Table<'_>) -> Option<(usize, Rule)> {
    let tasks = table.get("tasks", |value| {
        u32::try_from(reader::whole(value)?).map_err(|_| "is too large".to_owned())
    });
    let rule = Rule {
        from_ms: table.get("from", reader::millis).unwrap_or(0),
        matches: matches(table),
        tasks,
        vcpus: table.get("vcpus", reader::number),
    };
    table.finish();
    table.check(rule.check()).then_some((table.line(), rule))
}

fn fault(table: &Table<'_>) -> Option<(usize, Fault)> {
    let times = table.get("times", |value| {
        u32::try_from(reader::whole(value)?).map_err(|_| "is too large".to_owned())
    });
    let share = table.get("share", reader::number);
    let from_ms = table.get("from", reader::millis);
    let until_ms = table.get("until", reader::millis);
    let matches = matches(table);
    // As in the world file, whose type says what is wrong with it.
    let kind = table.required("fault", |value| {
        serde_json::from_value(reader::json(value)?).map_err(|error| error.to_string())
    });
    table.finish();
    let fault = Fault { matches, times, share, from_ms, until_ms, fault: kind? };
    table.check(fault.check()).then_some((table.line(), fault))
}

#[cfg(test)]
mod tests {
    use super::{Scenario, ScenarioError};
    use crate::latency::Latencies;
    use crate::world::World;

    const WORLD: &str = r#"{"account":"123456789012","region":"eu-west-1","subnets":["subnet-1"],
        "clusters":[{"name":"dev","capacity_providers":["FARGATE_SPOT"]}],
        "faults":[{"fault":{"kind":"agent-does-not-start"}}]}"#;

    fn mistakes(text: &str) -> Vec<String> {
        match Scenario::parse(text) {
            Err(ScenarioError::Mistakes(list)) => list.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?} should have mistakes"),
        }
    }

    #[test]
    fn all_of_a_scenario_reaches_the_world() {
        let scenario = Scenario::parse(
            r#"
            title = "A bad day"
            time_scale = 20
            seed = 7
            throttling = false
            latencies = "fargate"
            samples = { pending = ["1.5s", "2m"] }
            consistency = { describe = "300ms", list = "2s" }
            quotas = { spot_vcpus = 6 }
            [[capacity]]
            from = "1m"
            match = { capacity_provider = "FARGATE_SPOT" }
            tasks = 0
            [[faults]]
            from = "10s"
            until = "1h"
            share = 0.5
            times = 3
            match = { cluster = "dev", subnet = "subnet-1" }
            fault = { kind = "failure", name = "out-of-memory", after_ms = 5 }
            "#,
        )
        .unwrap();
        assert_eq!(scenario.summary(), "A bad day; time runs 20 times as fast");
        let world = scenario.over(World::parse(WORLD).unwrap()).unwrap();
        assert_eq!((world.time_scale, world.seed, world.throttling), (20.0, 7, false));
        assert_eq!(world.latencies, Latencies::Fargate);
        assert_eq!(world.samples_ms["pending"], [1500, 120_000]);
        assert_eq!((world.consistency_ms.describe, world.consistency_ms.list), (300, 2000));
        assert_eq!(world.quotas.spot_vcpus, Some(6.0));
        assert_eq!((world.capacity[0].from_ms, world.capacity[0].tasks), (60_000, Some(0)));
        assert_eq!(world.faults.len(), 2, "beside the world's own");
        assert_eq!(
            (world.faults[1].from_ms, world.faults[1].until_ms),
            (Some(10_000), Some(3_600_000))
        );
        assert_eq!((world.faults[1].share, world.faults[1].times), (Some(0.5), Some(3)));
    }

    #[test]
    fn what_is_not_said_stays() {
        let before = World::parse(WORLD).unwrap();
        let after = Scenario::parse("").unwrap().over(before.clone()).unwrap();
        assert_eq!((after.time_scale, after.seed, after.throttling), (1.0, 0, true));
        assert_eq!(after.latencies, before.latencies);
        assert_eq!(after.faults.len(), 1);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "\
time_scale = 0
sead = 7
latencies = \"real\"
throttling = 1
[samples]
running = [\"1s\"]
pending = []
[quotas]
on_demand_vcpus = -1
[consistency]
list = \"soon\"
[[capacity]]
tasks = 1
vcpus = 2
[[faults]]
share = 2
fault = { kind = \"no-capacity\" }
[[faults]]
from = \"5s\"
until = \"5s\"
fault = { kind = \"failure\", name = \"bad-luck\" }
[[faults]]
fault = { kind = \"failure\", nam = \"killed\" }
[[faults]]
times = 1
";
        let found = mistakes(text);
        let expected = [
            "line 1: time_scale: is 0, expected 0.01 to 10000",
            "line 2: sead: is no key of this table, which has ",
            "line 3: latencies: is `real`, expected `fixed` or `fargate`",
            "line 4: throttling: is a integer, expected true or false",
            "line 6: samples.running: is no state with a delay",
            "line 7: samples.pending: is not a list of durations",
            "line 8: quotas: `on_demand_vcpus` is -1",
            "line 11: consistency.list: is `soon`, expected a duration",
            "line 12: capacity[1]: capacity is counted in `tasks` or in `vcpus`",
            "line 15: faults[1]: `share` is 2",
            "line 18: faults[2]: the fault is over before it begins",
            "line 23: faults[3].fault: ",
            "line 24: faults[4]: has no `fault`",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "`{found}` should start with `{expected}`");
        }
    }

    #[test]
    fn broken_toml_is_a_mistake() {
        let found = mistakes("seed = 1\nseed = 2\n[[faults]\n");
        assert!(found.len() >= 2, "{found:?}");
        assert!(found[0].starts_with("line 2: TOML: "), "{found:?}");
    }

    #[test]
    fn names_that_the_world_has_not_are_mistakes() {
        let text = "\
[[capacity]]
match = { subnet = \"subnet-2\" }
tasks = 0
[[faults]]
match = { capacity_provider = \"FARGATE_SPOTT\" }
fault = { kind = \"no-capacity\" }
[[faults]]
match = { capacity_provider = \"FARGATE\" }
fault = { kind = \"no-capacity\" }
";
        let error = Scenario::parse(text).unwrap().over(World::parse(WORLD).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the scenario has mistakes:\n  line 1: capacity[1].match: there is no subnet `subnet-2`\n  line 4: faults[1].match: there is no capacity provider `FARGATE_SPOTT`"
        );
    }
}
