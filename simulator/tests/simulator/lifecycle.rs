//! Tasks from PROVISIONING to STOPPED.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{
    Simulator, definition, eventually, id, n_processes, run_task, unique_seconds, world,
};

/// A world whose family `ci` runs `command`.
fn running(command: &[&str]) -> Value {
    let mut world = world();
    world["images"]["sleeper"]["command"] = json!(command);
    world
}

#[test]
fn a_task_goes_through_all_states() {
    let simulator = Simulator::start(&world());
    let mut request = run_task("two");
    request["startedBy"] = json!("manager");
    let first = simulator.ok("RunTask", &request)["tasks"][0].clone();
    assert_eq!(first["lastStatus"], "PROVISIONING");
    assert_eq!(first["desiredStatus"], "RUNNING");
    assert_eq!(first["attachments"][0]["status"], "PRECREATED");
    assert_eq!(
        first["attachments"][0]["details"],
        json!([{"name": "subnetId", "value": "subnet-1"}])
    );
    assert_eq!(first["containers"].as_array().map(Vec::len), Some(2));
    assert_eq!(first["containers"][0]["networkInterfaces"], json!([]));
    let arn = first["taskArn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:ecs:eu-west-1:123456789012:task/dev/"), "{arn}");

    let running = simulator.wait_for(arn, "RUNNING");
    let address =
        running["containers"][0]["networkInterfaces"][0]["privateIpv4Address"].as_str().unwrap();
    assert!(address.starts_with("127.") && !address.starts_with("127.0."), "{address}");
    let details = running["attachments"][0]["details"].as_array().unwrap();
    assert!(
        details.contains(&json!({"name": "privateIPv4Address", "value": address})),
        "{details:?}"
    );
    let names: Vec<&str> = details.iter().map(|detail| detail["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["subnetId", "networkInterfaceId", "macAddress", "privateDnsName", "privateIPv4Address"]
    );
    assert_eq!(running["attachments"][0]["status"], "ATTACHED");
    assert_eq!(running["containers"][1]["lastStatus"], "RUNNING");
    assert_eq!(running["launchType"], "FARGATE");
    assert_eq!(running["capacityProviderName"], Value::Null);
    assert_eq!(running["platformVersion"], "1.4.0");
    assert_eq!(running["startedBy"], "manager");
    assert_eq!(running["group"], "family:two");
    assert!(simulator.path("tasks").join(id(arn)).is_dir());

    let stopping =
        simulator.ok("StopTask", &json!({"cluster": "dev", "task": id(arn), "reason": "done"}));
    assert_eq!(stopping["task"]["desiredStatus"], "STOPPED");
    let stopped = simulator.wait_for(arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "UserInitiated");
    assert_eq!(stopped["stoppedReason"], "done");
    assert_eq!(stopped["attachments"][0]["status"], "DELETED");
    // SIGTERM, as a shell says it.
    assert_eq!(stopped["containers"][0]["exitCode"], 143);
    assert_eq!(stopped["containers"][1]["exitCode"], 143);
    let times: Vec<f64> = [
        "createdAt",
        "connectivityAt",
        "pullStartedAt",
        "pullStoppedAt",
        "startedAt",
        "stoppingAt",
        "executionStoppedAt",
        "stoppedAt",
    ]
    .iter()
    .map(|name| stopped[name].as_f64().unwrap())
    .collect();
    assert!(times.is_sorted() && times[0] > 1.7e9, "{times:?}");
    assert!(!simulator.path("tasks").join(id(arn)).exists());
    assert_eq!(
        simulator.states(arn),
        "PROVISIONING PENDING ACTIVATING RUNNING DEACTIVATING STOPPING DEPROVISIONING STOPPED"
    );
    let ledger = simulator.ledger();
    assert_eq!(ledger.stopped(arn), Some(("UserInitiated", "done")));
    assert!(ledger.running().is_empty());
}

#[test]
fn stopping_twice_keeps_the_first_reason() {
    let simulator = Simulator::start(&world());
    let arn = simulator.run(&run_task("ci"));
    simulator.wait_for(&arn, "RUNNING");
    simulator.ok("StopTask", &json!({"cluster": "dev", "task": arn}));
    simulator.wait_for(&arn, "STOPPED");
    simulator.stop(&arn);
    assert_eq!(simulator.describe(&arn)["stoppedReason"], "Task stopped by user");
}

#[test]
fn a_task_stopped_early_never_runs() {
    let mut world = world();
    world["delays_ms"]["provisioning"] = json!(60_000);
    let simulator = Simulator::start(&world);
    let arn = simulator.run(&run_task("ci"));
    simulator.stop(&arn);
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["startedAt"], Value::Null);
    assert_eq!(stopped["containers"][0]["exitCode"], Value::Null);
    assert_eq!(simulator.states(&arn), "PROVISIONING DEPROVISIONING STOPPED");
}

#[test]
fn an_unknown_image_cannot_be_pulled() {
    let mut world = world();
    world["task_definitions"] = json!([definition("ci", &[("main", "nowhere/nothing:1")])]);
    let simulator = Simulator::start(&world);
    let arn = simulator.run(&run_task("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "TaskFailedToStart");
    assert!(
        stopped["stoppedReason"].as_str().unwrap().starts_with("CannotPullContainerError: "),
        "{stopped}"
    );
    assert_eq!(stopped["containers"][0]["reason"], stopped["stoppedReason"]);
    assert!(stopped["pullStartedAt"].is_number());
    assert_eq!(stopped["pullStoppedAt"], Value::Null);
}

#[test]
fn the_end_of_an_essential_container_is_the_task_s() {
    let simulator = Simulator::start(&running(&["sh", "-c", "exit 3"]));
    let arn = simulator.run(&run_task("ci"));
    let stopped = simulator.wait_for(&arn, "STOPPED");
    assert_eq!(stopped["stopCode"], "EssentialContainerExited");
    assert_eq!(stopped["stoppedReason"], "Essential container in task exited");
    assert_eq!(stopped["containers"][0]["exitCode"], 3);
}

#[test]
fn the_end_of_another_container_is_not() {
    let mut world = world();
    world["images"]["brief"] = json!({"server": "none", "command": ["true"]});
    world["task_definitions"] =
        json!([definition("ci", &[("main", "sleeper"), ("side", "brief")])]);
    let simulator = Simulator::start(&world);
    let arn = simulator.run(&run_task("ci"));
    let ended = eventually(|| {
        Some(simulator.describe(&arn)).filter(|task| task["containers"][1]["exitCode"] == 0)
    });
    assert_eq!(ended["lastStatus"], "RUNNING");
    assert_eq!(ended["containers"][0]["lastStatus"], "RUNNING");
    assert_eq!(ended["containers"][1]["lastStatus"], "STOPPED");
    simulator.stop(&arn);
    simulator.wait_for(&arn, "STOPPED");
}

#[test]
fn a_container_that_ignores_sigterm_is_killed() {
    let simulator = Simulator::start(&running(&[
        "sh",
        "-c",
        "trap '' TERM; echo ready; while :; do sleep 0.1; done",
    ]));
    let arn = simulator.run(&run_task("ci"));
    let log = simulator.path("logs").join(format!("{}.main.log", id(&arn)));
    eventually(|| std::fs::read_to_string(&log).ok().filter(|text| text.contains("ready")));
    simulator.stop(&arn);
    assert_eq!(simulator.wait_for(&arn, "STOPPED")["containers"][0]["exitCode"], 137);
}

#[test]
fn a_container_dies_whole() {
    // Orphans with a session of their own, an empty environment and another working directory.
    let seconds = unique_seconds();
    let script = format!(
        "(cd / && setsid env -i sleep {seconds} &); setsid sleep {seconds} & exec sleep {seconds}"
    );
    let simulator = Simulator::start(&running(&["sh", "-c", &script]));
    let arn = simulator.run(&run_task("ci"));
    eventually(|| (n_processes(&seconds) == 3).then_some(()));
    simulator.stop(&arn);
    simulator.wait_for(&arn, "STOPPED");
    assert_eq!(n_processes(&seconds), 0);
}

#[test]
fn a_container_has_its_own_environment() {
    let agent = tempfile::tempdir().unwrap();
    let program = agent.path().join("agent");
    std::fs::write(&program, "#!/bin/sh\nenv >environment\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut world = world();
    world["images"] = json!({"agent": {"server": "agent"}});
    let mut ci = definition("ci", &[("main", "agent")]);
    ci["containerDefinitions"][0]["environment"] =
        json!([{"name": "FROM", "value": "definition"}, {"name": "KEPT", "value": "yes"}]);
    ci["containerDefinitions"][0]["portMappings"] = json!([{"containerPort": 2200}]);
    world["task_definitions"] = json!([ci]);
    let simulator = Simulator::start_with(&world, &["--agent", program.to_str().unwrap()]);
    let mut request = run_task("ci");
    request["overrides"] = json!({"containerOverrides": [
        {"name": "main", "environment": [{"name": "FROM", "value": "override"}, {"name": "SSH_PUBLIC_KEY", "value": "k"}]}
    ]});
    let arn = simulator.run(&request);
    let task = simulator.wait_for(&arn, "RUNNING");
    let address =
        task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"].as_str().unwrap();
    let directory = simulator.path("tasks").join(id(&arn)).canonicalize().unwrap();
    let environment = eventually(|| {
        std::fs::read_to_string(directory.join("environment"))
            .ok()
            .filter(|text| text.contains("SSH_PUBLIC_KEY"))
    });
    // A shell adds these two.
    let mut lines: Vec<&str> = environment
        .lines()
        .filter(|line| !line.starts_with("PWD=") && !line.starts_with("_="))
        .collect();
    lines.sort_unstable();
    let root = directory.display();
    let expected = [
        "FROM=override".to_owned(),
        format!("HOME={root}"),
        "KEPT=yes".to_owned(),
        "LANG=C.UTF-8".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("POINTSMAN_LISTEN={address}:2200"),
        format!("POINTSMAN_TASK_ROOT={root}"),
        "SSH_PUBLIC_KEY=k".to_owned(),
    ];
    assert_eq!(lines, expected.each_ref().map(String::as_str));
}

#[test]
fn tasks_are_listed_by_their_filters() {
    let simulator = Simulator::start(&world());
    let mut request = run_task("ci");
    request["startedBy"] = json!("a");
    let first = simulator.run(&request);
    let second = simulator.run(&run_task("two"));
    let list = |filter: Value| {
        let mut request = filter;
        request["cluster"] = json!("dev");
        simulator.ok("ListTasks", &request)["taskArns"].clone()
    };
    let both = list(json!({}));
    assert_eq!(both.as_array().map(Vec::len), Some(2));
    assert_eq!(list(json!({"startedBy": "a"})), json!([first]));
    assert_eq!(list(json!({"startedBy": "b"})), json!([]));
    assert_eq!(list(json!({"family": "two"})), json!([second]));
    assert_eq!(list(json!({"desiredStatus": "STOPPED"})), json!([]));
    simulator.stop(&first);
    assert_eq!(list(json!({"desiredStatus": "STOPPED"})), json!([first]));
    assert_eq!(list(json!({"startedBy": "a"})), json!([]));
    assert_eq!(simulator.ok("ListTasks", &json!({"cluster": "bare"}))["taskArns"], json!([]));
    let third = simulator.run(&run_task("ci"));
    let page = simulator.ok("ListTasks", &json!({"cluster": "dev", "maxResults": 1}));
    let rest =
        simulator.ok("ListTasks", &json!({"cluster": "dev", "nextToken": page["nextToken"]}));
    let mut all = [page["taskArns"][0].as_str().unwrap(), rest["taskArns"][0].as_str().unwrap()];
    all.sort_unstable();
    let mut expected = [second.as_str(), third.as_str()];
    expected.sort_unstable();
    assert_eq!(all, expected);
    assert_eq!(rest["nextToken"], Value::Null);
}

#[test]
fn an_unknown_task_is_missing() {
    let simulator = Simulator::start(&world());
    let arn = "arn:aws:ecs:eu-west-1:123456789012:task/dev/00000000000000000000000000000000";
    for name in [arn, id(arn)] {
        let answer = simulator.ok("DescribeTasks", &json!({"cluster": "dev", "tasks": [name]}));
        assert_eq!(answer, json!({"tasks": [], "failures": [{"arn": arn, "reason": "MISSING"}]}));
    }
    // A task of another cluster is as good as none.
    let task = simulator.run(&run_task("ci"));
    let answer = simulator.ok("DescribeTasks", &json!({"cluster": "bare", "tasks": [task]}));
    assert_eq!(answer["failures"][0]["reason"], "MISSING");
}
