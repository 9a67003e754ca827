//! Tasks whose server is a stock sshd.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{
    Simulator, definition, eventually, id, n_processes, run_task, unique_seconds, world,
};

/// 32 zero bytes.
const SEED: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// The public key of that seed.
const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";

fn start() -> Simulator {
    let mut world = world();
    world["images"]["ssh"] = json!({"server": "openssh"});
    let mut ci = definition("ssh", &[("main", "ssh")]);
    ci["containerDefinitions"][0]["portMappings"] = json!([{"containerPort": 2022}]);
    world["task_definitions"] = json!([ci]);
    Simulator::start(&world)
}

/// A key pair in `directory`, and a request whose task lets it in.
fn request(directory: &Path) -> Value {
    let key = directory.join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let mut request = run_task("ssh");
    request["overrides"] = json!({"containerOverrides": [{"name": "main", "environment": [
        {"name": "SSH_PUBLIC_KEY", "value": public.trim()},
        {"name": "POINTSMAN_HOST_KEY", "value": SEED},
    ]}]});
    request
}

/// Runs `script` in the task over SSH, with its host key checked.
fn ssh(directory: &Path, address: &str, script: &str) -> Output {
    let known_hosts = directory.join("known_hosts");
    std::fs::write(&known_hosts, format!("[{address}]:2022 {HOST_KEY}\n")).unwrap();
    Command::new("ssh")
        .arg("-i")
        .arg(directory.join("key"))
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "BatchMode=yes",
            "-p",
            "2022",
            address,
        ])
        .arg(script)
        .output()
        .unwrap()
}

fn address(task: &Value) -> String {
    task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"].as_str().unwrap().to_owned()
}

#[test]
fn a_script_runs_over_ssh() {
    let directory = tempfile::tempdir().unwrap();
    let simulator = start();
    let arn = simulator.run(&request(directory.path()));
    let address = address(&simulator.wait_for(&arn, "RUNNING"));
    let output = eventually(|| {
        let output =
            ssh(directory.path(), &address, "echo $POINTSMAN_TASK_ROOT; echo $HOME; exit 7");
        (output.status.code() != Some(255)).then_some(output)
    });
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    let root = simulator.path("tasks").join(id(&arn)).canonicalize().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{0}\n{0}\n", root.display()));
}

#[test]
fn another_key_is_not_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let stranger = tempfile::tempdir().unwrap();
    let simulator = start();
    let arn = simulator.run(&request(directory.path()));
    let address = address(&simulator.wait_for(&arn, "RUNNING"));
    eventually(|| ssh(directory.path(), &address, "true").status.success().then_some(()));
    request(stranger.path());
    let output = ssh(stranger.path(), &address, "true");
    assert_eq!(output.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
}

#[test]
fn sessions_die_with_their_task() {
    let directory = tempfile::tempdir().unwrap();
    let seconds = unique_seconds();
    let simulator = start();
    let arn = simulator.run(&request(directory.path()));
    let address = address(&simulator.wait_for(&arn, "RUNNING"));
    let script = format!("setsid env -i sleep {seconds} >/dev/null 2>&1 </dev/null & exit 0");
    eventually(|| ssh(directory.path(), &address, &script).status.success().then_some(()));
    eventually(|| (n_processes(&seconds) == 1).then_some(()));
    simulator.stop(&arn);
    simulator.wait_for(&arn, "STOPPED");
    assert_eq!(n_processes(&seconds), 0);
}

#[test]
fn tasks_side_by_side_have_addresses_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (start(), start());
    let request = request(directory.path());
    let mut addresses: Vec<String> = [&one, &other, &one, &other]
        .into_iter()
        .map(|simulator| address(&simulator.wait_for(&simulator.run(&request), "RUNNING")))
        .collect();
    for address in &addresses {
        eventually(|| ssh(directory.path(), address, "true").status.success().then_some(()));
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 4);
}
