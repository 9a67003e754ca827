//! How a simulator starts and ends.

use std::process::{Command, Stdio};

use pointsman_simulator::ledger::{Event, Ledger};
use serde_json::{Value, json};

use crate::support::{
    Simulator, definition, eventually, id, n_processes, run_task, unique_seconds, world,
};

/// A simulator with a running task of two processes that have `seconds` on their command lines; the task's ARN.
fn with_task(seconds: &str) -> (Simulator, String) {
    let mut world = world();
    let script = format!("(setsid env -i sleep {seconds} &); trap '' TERM; sleep {seconds}");
    world["images"]["sleeper"]["command"] = json!(["sh", "-c", script]);
    let simulator = Simulator::start(&world);
    let arn = simulator.run(&run_task("ci"));
    eventually(|| (n_processes(seconds) == 2).then_some(()));
    (simulator, arn)
}

#[test]
fn closing_its_stdin_ends_everything() {
    let seconds = unique_seconds();
    let (mut simulator, arn) = with_task(&seconds);
    assert!(simulator.close().success());
    assert_eq!(n_processes(&seconds), 0);
    assert!(!simulator.path("tasks").join(id(&arn)).exists());
    let ledger = Ledger::read(&simulator.path("ledger.jsonl")).unwrap();
    assert!(
        ledger.entries.iter().any(|entry| entry.event == Event::LeftRunning { task: arn.clone() })
    );
    assert_eq!(ledger.running().into_iter().collect::<Vec<_>>(), [arn.as_str()]);
}

#[test]
fn sigterm_and_sigint_end_everything() {
    for signal in ["-TERM", "-INT"] {
        let seconds = unique_seconds();
        let (mut simulator, _) = with_task(&seconds);
        let sent =
            Command::new("kill").args([signal, &simulator.pid().to_string()]).status().unwrap();
        assert!(sent.success());
        assert!(simulator.wait().success(), "{signal}");
        assert_eq!(n_processes(&seconds), 0, "{signal}");
    }
}

#[test]
fn even_a_killed_simulator_leaves_no_process() {
    let seconds = unique_seconds();
    let (mut simulator, _) = with_task(&seconds);
    simulator.kill();
    eventually(|| (n_processes(&seconds) == 0).then_some(()));
}

#[test]
fn a_world_that_cannot_be_is_refused() {
    let mut bad_definition = world();
    bad_definition["task_definitions"] = json!([definition("a b", &[("main", "sleeper")])]);
    let mut bad_fault = world();
    bad_fault["faults"] = json!([{"fault": {"kind": "api-error", "operation": "RunTask", "code": "X", "status": 200}}]);
    let mut no_agent = world();
    no_agent["images"]["agent"] = json!({"server": "agent"});
    let mut unknown = world();
    unknown["colour"] = json!("red");
    for (world, expected) in [
        (bad_definition, "a task definition of the world file is not valid: Family contains"),
        (bad_fault, "the world file is not valid: `faults`: `status` is 200"),
        (no_agent, "an image of the world file needs the program `/nowhere/agent`"),
        (unknown, "the world file is not valid: unknown field `colour`"),
    ] {
        assert_refused(&world, expected);
    }
}

fn assert_refused(world: &Value, expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("world.json");
    std::fs::write(&file, world.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman-simulator"))
        .arg("--world")
        .arg(file)
        .arg("--directory")
        .arg(directory.path())
        .args(["--agent", "/nowhere/agent"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && error.contains(expected),
        "`{error}` should contain `{expected}`"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn the_example_world_is_one() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/world.json");
    let world: Value = serde_json::from_str(&std::fs::read_to_string(example).unwrap()).unwrap();
    // Any program stands for the agent here.
    let simulator = Simulator::start_with(&world, &["--agent", "/bin/true"]);
    let answer = simulator
        .ok("DescribeTaskDefinition", &json!({"taskDefinition": "gitlab-runner-dev-task"}));
    assert_eq!(answer["taskDefinition"]["containerDefinitions"][0]["name"], "ci-coordinator");
}
