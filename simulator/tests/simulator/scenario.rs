//! Scenario files, and time that runs faster.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{Simulator, run_task, spot, world};

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    file
}

fn start(world: &Value, scenario: &str) -> Simulator {
    let file = file(scenario);
    Simulator::start_with(world, &["--scenario", file.path().to_str().unwrap()])
}

#[test]
fn a_scenario_plays_over_time() {
    let simulator = start(
        &world(),
        r#"
        title = "Spot comes back"
        time_scale = 60
        [[capacity]]
        match = { capacity_provider = "FARGATE_SPOT" }
        tasks = 0
        [[capacity]]
        from = "1m"
        match = { capacity_provider = "FARGATE_SPOT" }
        "#,
    );
    assert_eq!(simulator.hello["scenario"], "Spot comes back; time runs 60 times as fast");
    // Its clock begins with the first RunTask.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(simulator.ok("RunTask", &spot("ci"))["tasks"], json!([]));
    std::thread::sleep(Duration::from_millis(1100));
    simulator.run(&spot("ci"));
}

#[test]
fn latencies_are_drawn_and_scaled() {
    let seconds = |seed: u32| {
        let scenario = format!("time_scale = 100\nlatencies = \"fargate\"\nseed = {seed}\n");
        let simulator = start(&world(), &scenario);
        let arn = simulator.run(&run_task("ci"));
        let task = simulator.wait_for(&arn, "RUNNING");
        let at = |name: &str| task[name].as_f64().unwrap();
        simulator.stop(&arn);
        [at("pullStartedAt") - at("createdAt"), at("pullStoppedAt") - at("pullStartedAt")]
    };
    let [provisioning, pending] = seconds(1);
    // Between the samples, a hundredth; a busy machine may add to it.
    assert!((0.129..0.6).contains(&provisioning), "{provisioning}");
    assert!((0.045..0.6).contains(&pending), "{pending}");
}

#[test]
fn a_scenario_with_mistakes_is_refused_with_all_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let world_file = directory.path().join("world.json");
    std::fs::write(&world_file, world().to_string()).unwrap();
    let refused = |scenario: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman-simulator"))
            .arg("--world")
            .arg(&world_file)
            .arg("--directory")
            .arg(directory.path().join("simulator"))
            .arg("--scenario")
            .arg(file(scenario).path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused("sead = 1\nlatencies = \"real\"\n");
    assert!(said.contains("line 1: sead: is no key"), "{said}");
    assert!(said.contains("line 2: latencies: is `real`"), "{said}");
    let said = refused("[[capacity]]\nmatch = { subnet = \"subnet-9\" }\ntasks = 0\n");
    assert!(said.contains("line 1: capacity[1].match: there is no subnet `subnet-9`"), "{said}");
}

#[test]
fn a_spot_notice_is_two_scaled_minutes() {
    let mut world = world();
    world["images"]["sleeper"]["command"] =
        json!(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]);
    let simulator = start(
        &world,
        r#"
        time_scale = 120
        [[faults]]
        match = { capacity_provider = "FARGATE_SPOT" }
        fault = { kind = "failure", name = "spot-interruption", after_ms = 12_000 }
        "#,
    );
    let arn = simulator.run(&spot("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    let at = |name: &str| stopped[name].as_f64().unwrap();
    assert_eq!(stopped["stopCode"], "SpotInterruption");
    let (before, notice) =
        (at("stoppingAt") - at("startedAt"), at("executionStoppedAt") - at("stoppingAt"));
    assert!((0.09..0.8).contains(&before), "{before}");
    assert!((0.99..2.0).contains(&notice), "{notice}");
}
