//! Start and end.

use std::fs;

use crate::support::{Agent, client_line, command, eventually, host_seed, lives, seconds_from_now};

#[test]
fn every_mistake_of_the_environment_is_told_at_once() {
    let output = command().env("POINTSMAN_LISTEN", "nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.lines().count(), 4, "{told}");
    for name in ["SSH_PUBLIC_KEY", "POINTSMAN_HOST_KEY", "POINTSMAN_DEADLINE", "POINTSMAN_LISTEN"] {
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn version_and_help_are_printed_and_other_arguments_refused() {
    let version = command().arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"pointsman-agent "));
    let help = command().arg("--help").output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("POINTSMAN_DEADLINE"));
    assert_eq!(command().arg("--frobnicate").output().unwrap().status.code(), Some(1));
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let agent = Agent::start();
    let address = agent.ssh(&[]).get_args().last().unwrap().to_owned().into_string().unwrap();
    let output = command()
        .env("SSH_PUBLIC_KEY", client_line())
        .env("POINTSMAN_HOST_KEY", host_seed())
        .env("POINTSMAN_DEADLINE", seconds_from_now(60))
        .env("POINTSMAN_LISTEN", format!("{address}:2222"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot listen on"), "{output:?}");
}

#[test]
fn the_deadline_ends_the_agent_and_its_scripts() {
    let mut agent = Agent::start_with(&[("POINTSMAN_DEADLINE", &seconds_from_now(3))]);
    let file = agent.path("pid");
    let mut ssh = agent
        .ssh(&[])
        .arg(format!("echo $$ > {}; sleep 300; true", file.display()))
        .spawn()
        .unwrap();
    assert_eq!(agent.ended(), Some(0));
    assert!(agent.log().contains("ending: the task's deadline has passed"), "{}", agent.log());
    let pid = fs::read_to_string(&file).unwrap();
    assert!(!lives(&pid));
    assert!(!ssh.wait().unwrap().success());
}

#[test]
fn nobody_coming_ends_the_agent_but_an_open_connection_does_not() {
    let mut agent = Agent::start_with(&[("POINTSMAN_IDLE_TIMEOUT", "2")]);
    assert!(agent.run("sleep 4").status.success());
    assert!(!agent.log().contains("ending"), "{}", agent.log());
    assert_eq!(agent.ended(), Some(0));
    assert!(agent.log().contains("ending: no connection for 2 s"), "{}", agent.log());
}

#[test]
fn sigterm_ends_scripts_orphans_and_the_agent() {
    let mut agent = Agent::start();
    let file = agent.path("pids");
    // One process in the script's group, one that left it and became an orphan.
    let script = format!(
        "sleep 300 & echo $! > {0}; (setsid sh -c 'echo $$ >> {0}; exec sleep 301' </dev/null >/dev/null 2>&1 &); sleep 302; true",
        file.display()
    );
    let mut ssh = agent.ssh(&[]).arg(script).spawn().unwrap();
    let mut pids = Vec::new();
    eventually("the script runs", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        pids = text.lines().map(str::to_owned).collect();
        pids.len() == 2 && text.ends_with('\n')
    });
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0));
    assert!(pids.iter().all(|pid| !lives(pid)), "{pids:?}");
    ssh.wait().unwrap();
}
