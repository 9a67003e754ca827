//! `doctor --launch`: a real task, measured, and never left.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::attempt::{collect, signal};
use crate::support::house::{DRIVER, House};
use crate::support::output::StageOutput;

const LAUNCH: [&str; 4] = ["doctor", "--launch", "--cluster", "test"];

fn world(change: impl FnOnce(&mut Value)) -> House {
    House::with(|_| (), change)
}

fn launch(house: &House, arguments: &[&str]) -> (StageOutput, Value) {
    let mut all = LAUNCH.to_vec();
    all.extend(["--format", "json"]);
    all.extend(arguments);
    let output = house.operator(&all);
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON: {error}\n{output}"));
    (output, answer)
}

fn finding<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let findings = answer["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {answer:#}"))
}

/// A house whose builds directory can be made by whoever runs the tests: below the task's own.
fn agent() -> House {
    world(|_| ())
}

#[test]
fn a_task_is_started_measured_and_stopped() {
    let house = agent();
    let (output, answer) = launch(&house, &["--profile", "agent", "--role", "deploy"]);
    let phases: Vec<&str> = answer["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["phase"].as_str().unwrap())
        .collect();
    for phase in
        ["run-task", "placement", "image-pull", "running", "address", "ssh", "script", "stop"]
    {
        assert!(phases.contains(&phase), "{phase} is missing in {phases:?}\n{output}");
    }
    assert_eq!(finding(&answer, "launch")["severity"], "ok");
    let ledger = house.settled(1);
    let task = &ledger.started()[0];
    assert_eq!(task["task_role"], "arn:aws:iam::123456789012:role/deploy");
    assert_eq!(task["tags"]["pointsman:profile"], "agent");
    assert!(task["tags"]["pointsman:deadline"].is_string());
    assert_eq!(ledger.events("stop-task").count(), 1);
    let _ =
        output.says("Its address is ").says("It can be reached over SSH").says("Stopping the task");
    let records = house.records();
    assert_eq!((records.len(), &records[0]["job"]["name"]), (1, &json!("doctor")));
    assert_eq!(records[0]["keys"], Value::Null);
    assert_eq!(records[0]["outcome"]["kind"], "released");
}

#[test]
fn the_placement_can_be_chosen() {
    let house = agent();
    let wish = ["--task-definition", "agent", "--arch", "arm64", "--capacity", "spot"];
    let mut arguments = vec!["--profile", "agent"];
    arguments.extend(wish);
    let (output, answer) = launch(&house, &arguments);
    assert_eq!(finding(&answer, "launch")["severity"], "ok", "{output}");
    let ledger = house.settled(1);
    let task = &ledger.started()[0];
    assert_eq!(task["capacity_provider"], "FARGATE_SPOT");
    let definition = task["task_definition"].as_str().unwrap();
    assert!(definition.contains("agent-task-arm64"), "{definition}");
}

#[test]
fn it_reads_for_people() {
    let house = agent();
    let output = house.operator(&["doctor", "--launch", "--profile", "openssh"]);
    let text = output.stdout_text();
    assert!(text.contains(" s  from RUNNING to an SSH session\n"), "{output}");
    assert!(text.contains("a task started, ran a script and was stopped"), "{output}");
    house.settled(1);
}

#[test]
fn what_the_image_lacks_is_told() {
    let url = "http://127.0.0.1:9";
    let house = House::with(
        |settings| {
            // No directory can have so long a name.
            let builds =
                format!("[task_definitions.openssh]\nbuilds_dir = \"/{}\"\n", "b".repeat(300));
            *settings = settings.replace("[task_definitions.openssh]\n", &builds);
            settings.insert_str(0, &format!("[gitlab]\nurl = \"{url}\"\n"));
        },
        |_| (),
    );
    let (_, answer) = launch(&house, &["--profile", "openssh"]);
    house.settled(1);
    let told = |name: &str| {
        answer["findings"].as_array().unwrap().iter().any(|finding| finding["name"] == name)
    };
    // The image is this machine: what it has, the task has.
    let has = |tool: &str| {
        let found =
            Command::new("sh").arg("-c").arg(format!("command -v {tool}")).output().unwrap();
        found.status.success()
    };
    for (tool, name) in
        [("git", "image-no-git"), ("gitlab-runner", "image-no-runner"), ("bash", "image-no-bash")]
    {
        assert_eq!(told(name), !has(tool), "{tool}: {answer:#}");
    }
    assert!(told("builds-not-writable"), "{answer:#}");
    assert_eq!(told("task-no-gitlab"), has("curl"), "{answer:#}");
}

#[test]
fn every_end_of_a_launch_is_told_and_nothing_is_left() {
    let failure = |name: &str| json!({ "fault": { "kind": "failure", "name": name } });
    let error = |operation: &str, code: &str| json!({ "fault": { "kind": "api-error", "operation": operation, "code": code, "message": "is not authorized to perform: it" } });
    for (faults, name, said, started) in [
        (
            json!([{ "fault": { "kind": "no-capacity" } }]),
            "launch-refused",
            "Capacity is unavailable",
            0,
        ),
        (
            json!([failure("image-not-found")]),
            "launch-stopped",
            "the registry has no such image",
            1,
        ),
        (json!([failure("pull-timeout")]), "launch-stopped", "could not be fetched in time", 1),
        (
            json!([error("DescribeTasks", "AccessDeniedException")]),
            "launch-not-seen",
            "ecs:DescribeTasks",
            1,
        ),
    ] {
        let house = world(|world| world["faults"] = faults);
        let (output, answer) = launch(&house, &["--profile", "agent"]);
        assert_eq!(output.status.code(), Some(1), "{output}");
        let text = finding(&answer, name).to_string();
        assert!(text.contains(said), "{text}");
        house.settled(started);
    }
}

#[test]
fn a_task_that_does_not_run_or_answer_in_time_is_stopped() {
    let slow = House::with(
        |settings| {
            *settings = settings.replacen(
                "cluster = \"test-cluster\"\n",
                "cluster = \"test-cluster\"\nstart_timeout = \"1s\"\n",
                1,
            );
        },
        |world| world["delays_ms"] = json!({ "pending": 60_000 }),
    );
    let (_, answer) = launch(&slow, &["--profile", "agent"]);
    assert!(finding(&answer, "launch-slow").to_string().contains("after 1 s"));
    slow.settled(1);

    let silent = House::with(
        |settings| {
            *settings = settings.replace("ready_timeout = \"20s\"", "ready_timeout = \"1s\"")
        },
        |world| world["faults"] = json!([{ "fault": { "kind": "agent-does-not-start" } }]),
    );
    let (_, answer) = launch(&silent, &["--profile", "agent"]);
    let text = finding(&answer, "launch-not-reachable").to_string();
    assert!(text.contains("nothing listens on") && text.contains("ssh.port"), "{text}");
    silent.settled(1);
}

#[test]
fn a_script_that_does_not_end_well_is_told() {
    // The login shell's start ends it.
    let house = world(|world| {
        world["faults"] = json!([{ "fault": { "kind": "kill", "after_ms": 0 } }]);
    });
    let (_, answer) = launch(&house, &["--profile", "agent"]);
    let findings = answer["findings"].as_array().unwrap();
    // Whichever is seen first: the end of the task, of the script, or that nobody answers.
    let ends = ["launch-stopped", "launch-script", "launch-not-reachable"];
    let told = findings.iter().any(|finding| ends.contains(&finding["name"].as_str().unwrap()));
    assert!(told, "{answer:#}");
    house.settled(1);
}

#[test]
fn a_task_that_cannot_be_stopped_is_named() {
    let house = world(|world| world["denied"] = json!(["ecs:StopTask"]));
    let (output, answer) = launch(&house, &["--profile", "agent"]);
    assert_eq!(output.status.code(), Some(1));
    let text = finding(&answer, "launch-left").to_string();
    assert!(text.contains("arn:aws:ecs:eu-west-1:123456789012:task/test-cluster/"), "{text}");
    assert!(text.contains("pointsman sweep"), "{text}");
    // Its attempt stays, so that a sweep knows the task.
    assert_eq!(std::fs::read_dir(house.state().join("attempts")).unwrap().count(), 1);
}

#[test]
fn without_a_state_directory_or_a_placement_nothing_is_started() {
    let house = world(|_| ());
    let (_, answer) = launch(&house, &["--profile", "openssh", "--role", "deploy"]);
    assert!(
        finding(&answer, "launch-not-tried").to_string().contains("role `deploy` is not allowed")
    );
    std::fs::remove_dir_all(house.state()).unwrap();
    let (_, answer) = launch(&house, &["--profile", "agent"]);
    assert!(finding(&answer, "launch-not-tried").to_string().contains("would not be found"));
    assert_eq!(house.ledger().started().len(), 0);
}

/// Starts `doctor --launch`, waits until there is a task, and sends `blow`.
fn interrupted(house: &House, blow: Signal) -> StageOutput {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(DRIVER);
    command
        .arg("--config")
        .arg(house.settings_file())
        .args(LAUNCH)
        .args(["--profile", "agent"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(house.cloud_environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = command.spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while house.ledger().started().is_empty() {
        assert!(Instant::now() < patience, "no task was started");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, blow);
    collect(child)
}

#[test]
fn ctrl_c_and_sigterm_stop_the_task() {
    for blow in [Signal::INT, Signal::TERM] {
        // It stays in PENDING, so there is time to lose patience.
        let house = world(|world| world["delays_ms"] = json!({ "pending": 60_000 }));
        let output = interrupted(&house, blow);
        assert!(output.stdout_text().contains("[launch-interrupted]"), "{output}");
        let ledger = house.settled(1);
        assert_eq!(ledger.events("stop-task").count(), 1);
    }
}

/// Starts `doctor --launch` to be killed at `step`; whether it was.
fn killed_at(house: &House, step: &str) -> bool {
    let mut command = Command::new(DRIVER);
    command
        .arg("--config")
        .arg(house.settings_file())
        .args(LAUNCH)
        .args(["--profile", "agent"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(house.cloud_environment())
        .env("POINTSMAN_ABORT_AT", step)
        .stdin(Stdio::null());
    command.output().unwrap().status.code().is_none()
}

#[test]
fn a_killed_doctor_leaves_what_a_sweep_finds() {
    let house = world(|_| ());
    let attempts = || {
        let directory = std::fs::read_dir(house.state().join("attempts"));
        directory.map_or_else(|_| Vec::new(), |found| found.flatten().collect())
    };
    let mut with_a_task = 0;
    let mut steps = 0;
    while killed_at(&house, &(steps + 1).to_string()) {
        steps += 1;
        let ledger = house.ledger();
        let running = ledger.running();
        assert!(running.len() <= 1, "step {steps}: {running:?} run");
        let left = attempts();
        let is_stopping =
            |task: &&Value| ledger.events("stop-task").any(|event| event["task"] == task["task"]);
        // One that is on its way out needs nobody any more.
        if !running.is_empty() && !ledger.started().last().is_some_and(is_stopping) {
            with_a_task += 1;
            assert_eq!(left.len(), 1, "step {steps}: the task is nobody's");
            // While its attempt lives, its deadline is what ends it.
            let task = ledger.started().last().copied().cloned().unwrap();
            let deadline = task["tags"]["pointsman:deadline"].as_str().unwrap();
            let deadline: jiff::Timestamp = deadline.parse().unwrap();
            let rest = deadline.duration_since(jiff::Timestamp::now());
            assert!(rest < jiff::SignedDuration::from_mins(20), "{rest}");
        }
        for attempt in left {
            std::fs::remove_file(attempt.path()).unwrap();
        }
        let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds();
        let patience = Instant::now() + Duration::from_secs(20);
        while !house.ledger().running().is_empty() {
            assert!(Instant::now() < patience, "step {steps}: a task is left");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(steps >= 6 && with_a_task >= 2, "{steps} steps, {with_a_task} with a task");
    assert_eq!(attempts().len(), 0, "the last one was not killed");
}

#[test]
fn a_cluster_on_this_machine_is_launched_on_as_well() {
    let house = world(|_| ());
    let output = house.operator(&["doctor", "--launch", "--profile", "local", "--format", "json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(finding(&answer, "launch")["severity"], "ok", "{output}");
    let attempts = std::fs::read_dir(house.state().join("attempts")).unwrap().count();
    assert_eq!(attempts, 0);
}
