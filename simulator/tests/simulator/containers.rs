//! Tasks of several containers: their order, and how each of them ends.

use serde_json::{Value, json};

use crate::support::{Simulator, eventually, run_task, world};

/// A name, whether it is essential, a shell script, and dependencies with conditions.
type Container<'c> = (&'c str, bool, &'c str, &'c [(&'c str, &'c str)]);

/// A world whose family `ci` has these containers.
fn of(containers: &[Container<'_>]) -> Value {
    let mut world = world();
    let mut definitions = Vec::new();
    for (name, essential, script, dependencies) in containers {
        world["images"][name] = json!({ "server": "none", "command": ["sh", "-c", script] });
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(name, condition)| json!({ "containerName": name, "condition": condition }))
            .collect();
        definitions.push(json!({ "name": name, "image": name, "essential": essential, "dependsOn": dependencies }));
    }
    world["task_definitions"][0]["containerDefinitions"] = json!(definitions);
    world
}

/// By container: its exit code.
fn ends(task: &Value) -> Value {
    let containers = task["containers"].as_array().unwrap();
    containers
        .iter()
        .map(|it| (it["name"].as_str().unwrap().to_owned(), it["exitCode"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The names of containers in the order of this kind of the ledger's events.
fn order(simulator: &Simulator, kind: &str) -> Vec<String> {
    let (_, text) = simulator.http("GET", "/simulator/ledger", &[], "");
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event"] == kind)
        .map(|event| event["container"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_init_container_ends_before_the_task_runs() {
    let simulator = Simulator::start(&of(&[
        ("main", true, "exec sleep 60", &[("init", "SUCCESS"), ("side", "START")]),
        ("side", false, "exec sleep 60", &[]),
        ("init", false, "sleep 0.4", &[]),
    ]));
    let arn = simulator.run(&run_task("ci"));
    eventually(|| (order(&simulator, "process-started").len() == 2).then_some(()));
    assert_eq!(simulator.describe(&arn)["lastStatus"], "ACTIVATING");
    let running = simulator.wait_for(&arn, "RUNNING");
    assert_eq!(ends(&running), json!({ "main": null, "side": null, "init": 0 }));
    assert_eq!(order(&simulator, "process-started"), ["side", "init", "main"]);
    simulator.stop(&arn);
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(ends(&stopped), json!({ "main": 143, "side": 143, "init": 0 }));
    // The other way round.
    assert_eq!(order(&simulator, "process-ended"), ["init", "main", "side"]);
}

#[test]
fn a_failed_init_container_keeps_the_task_from_running() {
    let simulator = Simulator::start(&of(&[
        ("main", true, "exec sleep 60", &[("init", "SUCCESS")]),
        ("init", false, "exit 4", &[]),
        ("side", false, "exec sleep 60", &[]),
    ]));
    let arn = simulator.run(&run_task("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "TaskFailedToStart");
    assert_eq!(ends(&stopped), json!({ "main": null, "init": 4, "side": 143 }));
    let reason = stopped["containers"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("container init exited with 4"), "{reason}");
    assert!(!simulator.states(&arn).contains("RUNNING"));
}

#[test]
fn a_container_that_the_task_does_not_need_is_left_out() {
    let simulator = Simulator::start(&of(&[
        ("main", true, "exec sleep 60", &[]),
        ("report", false, "exec sleep 60", &[("init", "SUCCESS")]),
        ("init", false, "exit 4", &[]),
    ]));
    let arn = simulator.run(&run_task("ci"));
    let running = simulator.wait_for(&arn, "RUNNING");
    assert_eq!(ends(&running), json!({ "main": null, "report": null, "init": 4 }));
    simulator.stop(&arn);
    simulator.wait_for(&arn, "STOPPED");
    assert_eq!(order(&simulator, "process-started"), ["main", "init"]);
}

#[test]
fn the_end_of_any_essential_container_is_the_task_s_and_each_has_its_exit_code() {
    let simulator = Simulator::start(&of(&[
        ("main", true, "exec sleep 60", &[("db", "START")]),
        ("db", true, "sleep 0.3; exit 3", &[]),
        ("log", false, "trap 'exit 9' TERM; sleep 60 & wait", &[]),
    ]));
    let arn = simulator.run(&run_task("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "EssentialContainerExited");
    assert_eq!(stopped["stoppedReason"], "Essential container in task exited");
    assert_eq!(ends(&stopped), json!({ "main": 143, "db": 3, "log": 9 }));
}

#[test]
fn a_task_can_be_stopped_while_it_waits_for_a_container() {
    let simulator = Simulator::start(&of(&[
        ("main", true, "exec sleep 60", &[("init", "COMPLETE")]),
        ("init", false, "exec sleep 60", &[]),
    ]));
    let arn = simulator.run(&run_task("ci"));
    eventually(|| (order(&simulator, "process-started").len() == 1).then_some(()));
    simulator.stop(&arn);
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(ends(&stopped), json!({ "main": null, "init": 143 }));
    assert_eq!(stopped["startedAt"], Value::Null);
}
