//! In which order a task's containers start and stop (`dependsOn`): pure.
//!
//! Health checks are not run here, so a container counts as healthy as soon as it runs.

use crate::model::{ContainerDefinition, ContainerDependency};
use crate::protocol::ApiError;

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Waiting,
    Running,
    /// With this exit code.
    Ended(i32),
    /// It will never start.
    Left,
}

/// Whether a container can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Now,
    Later,
    /// Why not.
    Never(String),
}

/// Refuses dependencies that cannot be fulfilled (API reference, `ContainerDependency`).
pub(crate) fn check(containers: &[ContainerDefinition]) -> Result<(), ApiError> {
    for container in containers {
        for dependency in &container.depends_on {
            check_dependency(container, dependency, containers)?;
        }
    }
    // With every step of a way a container more is on it, so one that goes on for longer is a circle.
    let mut ends: Vec<&ContainerDefinition> = containers.iter().collect();
    for _ in containers {
        let next = ends.iter().flat_map(|container| &container.depends_on);
        ends = next.filter_map(|dependency| named(containers, dependency)).collect();
        ends.sort_by_key(|container| &container.name);
        ends.dedup_by_key(|container| &container.name);
    }
    if let Some(container) = ends.first() {
        return Err(ApiError::client(format!(
            "The dependencies of container '{}' form a cycle.",
            container.name
        )));
    }
    Ok(())
}

fn check_dependency(
    container: &ContainerDefinition,
    dependency: &ContainerDependency,
    containers: &[ContainerDefinition],
) -> Result<(), ApiError> {
    let refuse = |what: &str| {
        Err(ApiError::client(format!(
            "Container '{}' has a dependency on container '{}', {what}.",
            container.name, dependency.container_name
        )))
    };
    let Some(other) = named(containers, dependency) else {
        return refuse("which is not in the task definition");
    };
    match dependency.condition.as_str() {
        "START" => Ok(()),
        "COMPLETE" | "SUCCESS" if other.essential => {
            refuse("which is essential and so cannot end before it")
        }
        "COMPLETE" | "SUCCESS" => Ok(()),
        "HEALTHY" if other.health_check.is_none() => refuse("which has no health check"),
        "HEALTHY" => Ok(()),
        _ => refuse("whose condition is none of [START, COMPLETE, SUCCESS, HEALTHY]"),
    }
}

fn named<'c>(
    containers: &'c [ContainerDefinition],
    dependency: &ContainerDependency,
) -> Option<&'c ContainerDefinition> {
    containers.iter().find(|container| container.name == dependency.container_name)
}

/// Whether the container at `index` can start; `progress` is that of all, in the same order.
pub(crate) fn readiness(
    index: usize,
    containers: &[ContainerDefinition],
    progress: &[Progress],
) -> Readiness {
    let mut readiness = Readiness::Now;
    for dependency in containers.get(index).into_iter().flat_map(|it| &it.depends_on) {
        let other = containers.iter().position(|it| it.name == dependency.container_name);
        let name = &dependency.container_name;
        let far = other.and_then(|other| progress.get(other)).copied().unwrap_or(Progress::Left);
        match (far, dependency.condition.as_str()) {
            (Progress::Ended(code), "SUCCESS") if code != 0 => {
                return Readiness::Never(format!(
                    "container ordering dependency failed: container {name} exited with {code}"
                ));
            }
            (Progress::Left, _) => {
                return Readiness::Never(format!(
                    "container ordering dependency failed: container {name} did not start"
                ));
            }
            (Progress::Ended(_), _) | (Progress::Running, "START" | "HEALTHY") => {}
            (Progress::Waiting | Progress::Running, _) => readiness = Readiness::Later,
        }
    }
    readiness
}

/// The containers in the order of their ends: those first that no other depends on, by index.
pub(crate) fn stop_waves(containers: &[ContainerDefinition]) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = (0..containers.len()).collect();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let is_needed = |index: usize| {
            let name = containers.get(index).map(|container| &container.name);
            left.iter()
                .filter_map(|other| containers.get(*other))
                .flat_map(|other| &other.depends_on)
                .any(|dependency| Some(&dependency.container_name) == name)
        };
        let (later, wave): (Vec<usize>, Vec<usize>) =
            left.iter().copied().partition(|index| is_needed(*index));
        // Only with a cycle, which no registered definition has.
        if wave.is_empty() {
            waves.push(later);
            break;
        }
        waves.push(wave);
        left = later;
    }
    waves
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A name, whether it is essential, and dependencies with conditions.
    type Container<'c> = (&'c str, bool, &'c [(&'c str, &'c str)]);

    fn containers(list: &[Container<'_>]) -> Vec<ContainerDefinition> {
        let container = |(name, essential, dependencies): &Container<'_>| {
            let dependencies: Vec<_> = dependencies
                .iter()
                .map(|(name, condition)| json!({ "containerName": name, "condition": condition }))
                .collect();
            let definition = json!({ "name": name, "image": "i", "essential": essential, "dependsOn": dependencies });
            serde_json::from_value(definition).unwrap()
        };
        list.iter().map(container).collect()
    }

    #[test]
    fn dependencies_that_cannot_be_are_refused() {
        let table: &[(&[Container<'_>], &str)] = &[
            (&[("a", true, &[("b", "START")]), ("b", true, &[])], ""),
            (
                &[
                    ("a", true, &[("b", "SUCCESS")]),
                    ("b", false, &[("c", "START")]),
                    ("c", false, &[]),
                ],
                "",
            ),
            (&[("a", true, &[("x", "START")])], "not in the task definition"),
            (&[("a", true, &[("a", "START")])], "form a cycle"),
            (&[("a", true, &[("b", "START")]), ("b", true, &[("a", "START")])], "form a cycle"),
            (&[("a", true, &[("b", "COMPLETE")]), ("b", true, &[])], "which is essential"),
            (&[("a", true, &[("b", "HEALTHY")]), ("b", true, &[])], "no health check"),
            (&[("a", true, &[("b", "READY")]), ("b", true, &[])], "none of [START,"),
        ];
        for (list, expected) in table {
            let message =
                check(&containers(list)).map_or_else(|error| error.message, |()| String::new());
            assert!(
                message.contains(expected) && message.is_empty() == expected.is_empty(),
                "{message}"
            );
        }
    }

    #[test]
    fn each_condition_waits_for_its_own() {
        use Progress::{Ended, Left, Running, Waiting};
        for (condition, far, expected) in [
            ("START", Waiting, Readiness::Later),
            ("START", Running, Readiness::Now),
            ("START", Ended(1), Readiness::Now),
            ("HEALTHY", Running, Readiness::Now),
            ("COMPLETE", Running, Readiness::Later),
            ("COMPLETE", Ended(1), Readiness::Now),
            ("SUCCESS", Running, Readiness::Later),
            ("SUCCESS", Ended(0), Readiness::Now),
        ] {
            let both = containers(&[("a", true, &[("b", condition)]), ("b", false, &[])]);
            assert_eq!(readiness(0, &both, &[Waiting, far]), expected, "{condition} {far:?}");
        }
        let both = containers(&[("a", true, &[("b", "SUCCESS")]), ("b", false, &[])]);
        for (far, expected) in [(Ended(3), "b exited with 3"), (Left, "b did not start")] {
            match readiness(0, &both, &[Waiting, far]) {
                Readiness::Never(why) => assert!(why.contains(expected), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_depended_on_stops_last() {
        let three = containers(&[
            ("db", false, &[]),
            ("app", true, &[("db", "START"), ("log", "START")]),
            ("log", false, &[("db", "START")]),
        ]);
        assert_eq!(stop_waves(&three), [vec![1], vec![2], vec![0]]);
        assert_eq!(stop_waves(&containers(&[("a", true, &[]), ("b", false, &[])])), [vec![0, 1]]);
    }
}
